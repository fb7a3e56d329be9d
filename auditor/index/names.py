"""The names that expressions end in: what is called, what is read."""

from __future__ import annotations

import ast


def last_name(node: ast.expr) -> str:
    """The last name of a variable or attribute: ``add`` of ``np.add``; "" for anything else."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def leaf_name(call: ast.Call) -> str:
    """The last name of what is called: ``add`` of ``np.add(...)``."""
    func = call.func
    return func.attr if isinstance(func, ast.Attribute) else func.id if isinstance(func, ast.Name) else ""
