"""Walks a syntax tree: what ``ast.walk`` does, several times faster, as trees are walked once per script and rule."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

# Fields that hold names, numbers or operators: nothing below them.
_LEAVES = frozenset(
    {
        "arg", "asname", "attr", "conversion", "ctx", "id", "is_async", "kind", "kwd_attrs", "level", "module", "name",
        "op", "ops", "rest", "simple", "tag", "type_comment", "type_ignores",
    }
)  # fmt: skip
_NAMES_ONLY = (ast.Constant, ast.Global, ast.Nonlocal, ast.MatchSingleton)


def _fields(kind: type[ast.AST]) -> tuple[str, ...]:
    return () if kind in _NAMES_ONLY else tuple(f for f in kind._fields if f not in _LEAVES)


FIELDS: dict[type[ast.AST], tuple[str, ...]] = {
    kind: _fields(kind) for kind in vars(ast).values() if isinstance(kind, type) and issubclass(kind, ast.AST)
}
"""Node type → the fields that can hold other nodes (operators and contexts are left out)."""


ONE, MANY, SPARSE = 0, 1, 2


def _shape(kind: type[ast.AST]) -> tuple[tuple[str, int], ...]:
    # ast says which fields are lists in its docstrings: "Call(expr func, expr* args, keyword* keywords)".
    grammar = (kind.__doc__ or "").partition("(")[2].rpartition(")")[0]
    lists = {part.split()[-1] for part in grammar.split(",") if "*" in part}
    gaps = ("keys", "kw_defaults")
    return tuple((f, ONE if f not in lists else SPARSE if f in gaps else MANY) for f in FIELDS[kind])


SHAPES: dict[type[ast.AST], tuple[tuple[str, int], ...]] = {kind: _shape(kind) for kind in FIELDS}
"""As :data:`FIELDS`, each with whether it holds ONE node, MANY, or a list that may have gaps (SPARSE)."""


def walk(node: ast.AST) -> Iterator[ast.AST]:
    """``node`` and all nodes below it in no particular order, operators and contexts left out."""
    shapes = SHAPES
    todo = [node]
    push, pop = todo.append, todo.pop
    while todo:
        node = pop()
        yield node
        for name, held in shapes[node.__class__]:
            value = getattr(node, name, None)
            if not value:
                continue
            if held == ONE:
                push(value)
            elif held == MANY:
                todo += value
            else:
                todo += [item for item in value if item is not None]


def children(node: ast.AST) -> list[ast.AST]:
    """The nodes right below ``node``, in source order, operators and contexts left out."""
    found: list[ast.AST] = []
    for name in FIELDS[node.__class__]:
        value = getattr(node, name, None)
        if value.__class__ is list:
            found += [item for item in value if isinstance(item, ast.AST)]
        elif isinstance(value, ast.AST):
            found.append(value)
    return found


def statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """All statements of ``body`` and below it, in no particular order, without going into expressions."""
    todo = list(body)
    while todo:
        statement = todo.pop()
        yield statement
        for name in ("body", "orelse", "finalbody"):
            todo += getattr(statement, name, ())
        for part in (*getattr(statement, "handlers", ()), *getattr(statement, "cases", ())):
            todo += part.body
