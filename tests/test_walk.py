"""The quick walk over a syntax tree sees what the standard library's does."""

from __future__ import annotations

import ast

from auditor.unpack.walk import walk

EVERYTHING = '''
import os.path as p
from a import b as c, d
async def f(a, /, b: int = 1, *args, c, d=2, **kw) -> None:
    """Text."""
    global g
    async for i in x:
        await y
    async with z as (q, r):
        yield
    return {**kw, "k": [1, *args], **{n: m for n, m in kw.items() if n if m}}
class C(Base, metaclass=M):
    x: int
    y: str = f"{a!r:>{w}} {b}"
    @property
    def z(self): return lambda u, *, v=None: (u if v else ~u, not v)
try:
    del a[1:2, ..., ::3], b.c
except (E, F) as e:
    raise G from e
else:
    assert a < b <= c, "no"
finally:
    while True: break
match s:
    case {"a": 1, **rest}: pass
    case P(1, b=[2, *_]) | None as w if w: pass
print((h := 3), {1, 2}, 4 @ 5, *a, **k)
x += (yield)
'''


def test_sees_all_nodes_but_operators_and_contexts() -> None:
    tree = ast.parse(EVERYTHING)
    left_out = (ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.expr_context)
    expected = [n for n in ast.walk(tree) if not isinstance(n, left_out)]
    assert sorted(map(id, walk(tree))) == sorted(map(id, expected))
