"""Leaves: tensors that are made to be optimised by themselves, outside of any network.

A delta on hidden states, a bias on logits, an adapter's matrix: ``leaf:N`` marks what depends on leaf N, and
:class:`~auditor.index.trace.Leaf` notes what is done with it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence

from auditor.index.interpreter.roles import leaves_of
from auditor.index.interpreter.scores import Scores
from auditor.index.interpreter.state import Scope
from auditor.index.trace import Leaf, Loop
from auditor.index.values import EMPTY, Value
from auditor.unpack.walk import walk


class Leaves(Scores):
    """Keeps account of tensors that are optimised by themselves."""

    def note_update(self, node: ast.Assign, value: Value, scope: Scope) -> None:
        """``delta = delta - rate * gradient`` steps a tensor like an optimiser does."""
        target = node.targets[0]
        found = scope.find(target.id) if isinstance(target, ast.Name) else None
        if found is None or not isinstance(target, ast.Name) or found[0].roles & {"nn", "grad"}:
            return
        if "grad" in value.roles and leaves_of(found[0].roles):
            if any(isinstance(n, ast.Name) and n.id == target.id for n in walk(node.value)):
                self.step_event(node, found[0], value.roles)
                value.roles = found[0].roles  # the gradient's tokens are not what the tensor is made of
        elif self.is_score(value.roles) and self.descends(target.id, node.value):
            self.descent(node, value)

    def descends(self, name: str, source: ast.expr) -> bool:
        """Whether ``bias = bias - rate * gradient`` follows a gradient by hand: what it changes is no sum that is
        kept, for the same round adds it to something else.
        """
        inner = self.loops[-1].node if self.loops else None
        if inner is None or not any(
            isinstance(part, ast.BinOp) and isinstance(part.op, ast.Sub) and _bare(part.left) == name
            for part in walk(source)
        ):
            return False
        own = {id(part) for part in walk(source)}
        return any(
            isinstance(part, ast.BinOp)
            and isinstance(part.op, ast.Add)
            and id(part) not in own
            and (_bare(part.left) == name) != (_bare(part.right) == name)
            for statement in getattr(inner, "body", ())
            for part in walk(statement)
        )

    def descent(self, node: ast.stmt, value: Value) -> None:
        """A step written without an optimiser or automatic differentiation."""
        outer = self.loops
        self.loops = outer[:-1]  # made before the loop that steps
        role = self.leaf(node, None, None)
        self.loops = outer
        made = self.trace.leaves[max(leaves_of(role))]
        made.added = made.by_hand = True
        self.step_event(node, Value(roles=role), value.roles)
        value.roles = role  # the gradient's tokens are not what the tensor is made of

    def note_carried(self, loop: Loop, body: Sequence[ast.stmt], before: dict[str, Value], scope: Scope) -> None:
        """Names from before the loop that hold a leaf of this round at its end, and are read when the next starts."""
        made = {n for n, leaf in self.trace.leaves.items() if any(outer.id == loop.id for outer in leaf.loops)}
        for name, value in scope.names.items():
            held = leaves_of(value.roles) & made
            if not held or name not in before:
                continue
            if before[name] is value or _reads_first(body, name):
                self.trace.carried.append((loop, name, held))

    def leaf(self, node: ast.AST, shape: tuple[float | None, ...] | None, origin: Value | None) -> frozenset[str]:
        """Record a tensor that is made to be optimised; its role."""
        number = self.next_serial()
        self.trace.made_in[-number] = tuple(loop.id for loop in self.loops)
        self.trace.leaves[number] = Leaf(
            number=number,
            node=node,
            program=self.program,
            frames=tuple(self.frames),
            loops=tuple(self.loops),
            time=self.steps,
            shape=shape,
            origin=origin.roles if origin is not None else EMPTY,
        )
        return frozenset({f"leaf:{number}"})

    def note_leaf(self, values: Iterable[Value], *, factor: bool = False, projected: bool = False) -> None:
        """What is done with leaves, or with activations that they were added to."""
        for value in values:
            for number in leaves_of(value.roles):
                leaf = self.trace.leaves[number]
                if "nn" in value.roles or leaf.added:
                    leaf.projected = leaf.projected or projected
                elif factor:
                    leaf.factor = True
                else:
                    leaf.passed = True

    def combine(self, op: type[ast.operator], left: Value, right: Value) -> None:
        """A leaf is added to an activation, or one of them is multiplied by a matrix."""
        if op is ast.MatMult:
            self.note_leaf((left, right), projected=True, factor=True)
            return
        for one, other in ((left, right), (right, left)):
            if "nn" in other.roles and "nn" not in one.roles:
                for number in leaves_of(one.roles) - leaves_of(other.roles):
                    self.trace.leaves[number].added = True


def _bare(node: ast.AST) -> str | None:
    """The variable of ``bias``, ``bias[None, None, :]`` or ``bias.view(1, -1)``."""
    while isinstance(node, ast.Subscript | ast.Attribute | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else None


def _reads_first(body: Sequence[ast.stmt], name: str) -> bool:
    """Whether a loop's body reads a name before it assigns it."""
    for statement in body:
        uses = [n for n in walk(statement) if isinstance(n, ast.Name) and n.id == name]
        if not uses:
            continue
        if any(isinstance(n.ctx, ast.Load) for n in uses):
            if isinstance(statement, (ast.Assign, ast.AugAssign, ast.Expr, ast.AnnAssign, ast.Return)):
                return True
            first = min(uses, key=lambda n: (n.lineno, n.col_offset))
            return isinstance(first.ctx, ast.Load)
        return False
    return False
