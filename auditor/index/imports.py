"""What a program imports, and whether it can do without."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from auditor.unpack.walk import walk


@dataclass(frozen=True)
class Import:
    """One import of one module.

    ``name`` is the dotted module ("" for ``from . import x``), ``level`` the number of leading dots, ``names`` what is
    taken out of it. ``guarded``: a ``try`` around it catches a failure. ``branch``: it stands below a condition.
    ``function`` is the innermost function it stands in, None at module level.
    """

    name: str
    level: int
    names: tuple[str, ...]
    node: ast.Import | ast.ImportFrom
    guarded: bool
    branch: bool
    function: ast.AST | None

    @property
    def top(self) -> str:
        """The first part of the dotted name."""
        return self.name.split(".")[0]


# Most statements, and nothing below them.
_SIMPLE = frozenset({ast.Expr, ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Return, ast.Assert, ast.Raise, ast.Pass})


def imports_of(tree: ast.Module) -> list[Import]:
    """Every import statement of a program, in source order."""
    return list(_of(tree.body, False, False, None))


def _of(body: list[ast.stmt], guarded: bool, branch: bool, function: ast.AST | None) -> Iterator[Import]:
    for statement in body:
        if statement.__class__ in _SIMPLE:
            continue
        if isinstance(statement, ast.Import):
            for alias in statement.names:
                yield Import(alias.name, 0, (), statement, guarded, branch, function)
        elif isinstance(statement, ast.ImportFrom):
            names = tuple(a.name for a in statement.names)
            yield Import(statement.module or "", statement.level, names, statement, guarded, branch, function)
        elif isinstance(statement, ast.Try | ast.TryStar):
            yield from _of(statement.body, guarded or bool(statement.handlers), branch, function)
            for handler in statement.handlers:
                yield from _of(handler.body, guarded, True, function)
            yield from _of(statement.orelse, guarded, True, function)
            yield from _of(statement.finalbody, guarded, branch, function)
        elif isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _of(statement.body, guarded, branch, statement)
        elif isinstance(statement, ast.ClassDef):
            yield from _of(statement.body, guarded, branch, function)
        elif isinstance(statement, ast.If):
            plain = _is_main_guard(statement.test)
            yield from _of(statement.body, guarded, branch or not plain, function)
            yield from _of(statement.orelse, guarded, True, function)
        elif isinstance(statement, ast.With | ast.AsyncWith):
            suppressed = any("suppress" in ast.unparse(item.context_expr) for item in statement.items)
            yield from _of(statement.body, guarded or suppressed, branch, function)
        elif isinstance(statement, ast.For | ast.AsyncFor | ast.While):
            yield from _of([*statement.body, *statement.orelse], guarded, True, function)
        elif isinstance(statement, ast.Match):
            for case in statement.cases:
                yield from _of(case.body, guarded, True, function)


def import_flags(tree: ast.AST) -> frozenset[str]:
    """Names that tell whether an optional import succeeded.

    The modules that a guarded ``try`` binds, where a handler binds them to a constant (``except ImportError: zstd =
    None``), and names that ``try`` and handler set to different constants (``HAVE_ZSTD = True`` / ``False``).
    """
    found: set[str] = set()
    for node in walk(tree):
        if not isinstance(node, ast.Try) or not any(isinstance(s, ast.Import | ast.ImportFrom) for s in node.body):
            continue
        bound = {
            alias.asname or alias.name.split(".")[0]
            for statement in node.body
            if isinstance(statement, ast.Import | ast.ImportFrom)
            for alias in statement.names
        }
        bound |= _constants_set(node.body) | _constants_set(node.orelse)
        found |= bound & {name for handler in node.handlers for name in _constants_set(handler.body)}
    return frozenset(found)


def asks_for_lack(test: ast.expr, flags: frozenset[str], *, negated: bool = False) -> bool:
    """Whether ``test`` (its opposite, if ``negated``) holds only where an optional import failed."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return asks_for_lack(test.operand, flags, negated=not negated)
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.Or if negated else ast.And):
        return any(asks_for_lack(value, flags, negated=negated) for value in test.values)
    if isinstance(test, ast.Name):
        return negated and test.id in flags
    if isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.left, ast.Name):
        against = test.comparators[0]
        if test.left.id not in flags or not isinstance(against, ast.Constant) or against.value not in (None, False):
            return False
        return isinstance(test.ops[0], ast.IsNot | ast.NotEq if negated else ast.Is | ast.Eq)
    return False


def _constants_set(body: list[ast.stmt]) -> set[str]:
    return {
        target.id
        for statement in body
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }


def _is_main_guard(test: ast.expr) -> bool:
    return isinstance(test, ast.Compare) and isinstance(test.left, ast.Name) and test.left.id == "__name__"
