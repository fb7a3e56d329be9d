"""Where a script's main flow begins: what is executed to import it, and what only to run it. Needs no torch."""

from __future__ import annotations

import ast

_FLOW = (ast.For, ast.While, ast.With)
_STATEMENTS = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_WORK = frozenset({"backward", "step", "init_process_group", "load_state_dict", "parameters", "manual_seed"})


def split(tree: ast.Module) -> tuple[ast.Module, ast.Module]:
    """The statements to import a script, and the rest.

    With a guard (``if __name__ == "__main__"``), the rest is its body, and what follows it but for definitions. Without
    one, the rest begins at the first statement that trains, loops or calls one of the script's own functions for
    nothing but its effect.
    """
    at = next((i for i, s in enumerate(tree.body) if _is_guard(s)), None)
    guarded = at is not None
    if at is None:
        own = {s.name: s for s in tree.body if isinstance(s, ast.FunctionDef)}
        at = next((i for i, s in enumerate(tree.body) if _is_flow(s, own)), len(tree.body))
    head, rest = list(tree.body[:at]), []
    bound: set[str] = set()
    for statement in tree.body[at:]:
        if _is_guard(statement):
            assert isinstance(statement, ast.If)
            rest += statement.body
        elif isinstance(statement, _STATEMENTS):
            (rest if _uses(statement, bound) else head).append(statement)
        elif guarded and not _is_flow(statement, {}):
            head.append(statement)
        else:
            rest.append(statement)
            bound |= {n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return ast.Module(body=head, type_ignores=[]), ast.Module(body=rest, type_ignores=[])


def _is_guard(statement: ast.stmt) -> bool:
    if not isinstance(statement, ast.If) or not isinstance(statement.test, ast.Compare):
        return False
    sides = (statement.test.left, *statement.test.comparators)
    return any(isinstance(s, ast.Name) and s.id == "__name__" for s in sides) and isinstance(
        statement.test.ops[0], ast.Eq
    )


def _is_flow(statement: ast.stmt, own: dict[str, ast.FunctionDef]) -> bool:
    """Whether a module-level statement belongs to the main flow rather than to the setting up of a module."""
    if isinstance(statement, _STATEMENTS):
        return False
    if isinstance(statement, _FLOW):
        return any(_works(n) for n in ast.walk(statement))
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        function = statement.value.func
        if isinstance(function, ast.Name) and function.id in own:
            return True
    return any(_works(n) for n in ast.walk(statement))


def _works(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _WORK


def _uses(statement: ast.stmt, bound: set[str]) -> bool:
    """Whether a definition needs one of these names when it is executed: decorators, bases, defaults."""
    now: list[ast.AST] = []
    if isinstance(statement, ast.ClassDef):
        now = [*statement.decorator_list, *statement.bases, *statement.body]
    elif isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
        now = [*statement.decorator_list, *statement.args.defaults, *(d for d in statement.args.kw_defaults if d)]
    return any(isinstance(n, ast.Name) and n.id in bound for part in now for n in ast.walk(part))
