"""What a program imports, and whether it can do without."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass


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


def _is_main_guard(test: ast.expr) -> bool:
    return isinstance(test, ast.Compare) and isinstance(test.left, ast.Name) and test.left.id == "__name__"
