"""Adapters kept as rows of one tensor, and rows exchanged between the members of a batch.

A batch of documents is often adapted with one tensor whose first axis is the batch: row b belongs to document b. A
forward pass that picks other rows of that tensor (by an index that the evaluation sets) scores a document with the
adapters of its neighbours.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass

from auditor.index.names import leaf_name
from auditor.index.program_index import FunctionNode, ProgramIndex
from auditor.index.trace import Event
from auditor.unpack import Program
from auditor.unpack.walk import walk

MOVING_CALLS = frozenset({"roll", "flip", "index_select"})


@dataclass(frozen=True)
class RowPick:
    """A parameter's rows picked by an index: ``self.A[index]`` in a method, ``index`` being kept outside of it."""

    cls: str
    node: ast.expr
    program: Program
    names: frozenset[str]
    """Attributes that the index is read from; empty where rows are moved by a fixed amount (``roll``)."""


def row_picks(index: ProgramIndex) -> list[RowPick]:
    """Every place of one program where a network picks rows of a parameter that it was made with."""
    found: list[RowPick] = []
    for cls in index.classes:
        methods = [s for s in cls.body if isinstance(s, FunctionNode)]
        held = _parameters_by_row(methods)
        if not held:
            continue
        for method in methods:
            if method.name != "__init__":
                found += _picks(cls.name, method, held, index.program)
    return found


def exchanged(picks: Iterable[RowPick], score: Event) -> tuple[RowPick, ast.AST | None] | None:
    """The pick that a score depends on, with the place in the evaluation that sets its index; None without one."""
    bodies = [f.definition for f in reversed(score.frames) if f.definition is not None]
    for pick in picks:
        if not pick.names:
            return pick, None
        for body in bodies:
            for node in walk(body):
                if not isinstance(node, ast.Assign) or isinstance(node.value, ast.Constant):
                    continue
                if any(isinstance(t, ast.Attribute) and t.attr in pick.names for t in node.targets):
                    return pick, node
    return None


def _parameters_by_row(methods: Iterable[FunctionNode]) -> set[str]:
    """Attributes that hold a parameter whose first size is an argument of ``__init__``."""
    found: set[str] = set()
    for method in methods:
        if method.name != "__init__":
            continue
        arguments = {a.arg for a in (*method.args.args, *method.args.kwonlyargs)} - {"self"}
        for node in walk(method):
            if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Call):
                continue
            if leaf_name(node.value) != "Parameter":
                continue
            sizes = [
                call.args
                for call in walk(node.value)
                if isinstance(call, ast.Call) and call is not node.value and len(call.args) >= 3
            ]
            if any(isinstance(s[0], ast.Name) and s[0].id in arguments for s in sizes):
                found |= {t.attr for t in node.targets if isinstance(t, ast.Attribute)}
    return found


def _picks(cls: str, method: FunctionNode, held: set[str], program: Program) -> list[RowPick]:
    found: list[RowPick] = []
    for node in walk(method):
        if isinstance(node, ast.Subscript) and _held(node.value, held):
            names = _read_from(node.slice, method)
            if names:
                found.append(RowPick(cls, node, program, names))
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in MOVING_CALLS
            and any(_held(a, held) for a in (node.func.value, *node.args[:1]))
        ):
            found.append(RowPick(cls, node, program, frozenset()))
    return found


def _held(node: ast.expr, held: set[str]) -> bool:
    return (
        isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
        and node.attr in held
    )


def _read_from(index: ast.expr, method: FunctionNode) -> frozenset[str]:
    """The attributes that an index is read from, directly or by one local name."""
    if isinstance(index, ast.Attribute):
        return frozenset({index.attr})
    if not isinstance(index, ast.Name):
        return frozenset()
    sources = [
        n.value
        for n in walk(method)
        if isinstance(n, ast.Assign) and any(isinstance(t, ast.Name) and t.id == index.id for t in n.targets)
    ]
    return frozenset(s.attr for s in sources if isinstance(s, ast.Attribute))
