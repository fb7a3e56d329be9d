"""What rules ask about most: losses that are kept, tables of counts, picks, optimiser steps, printed metrics."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence

from auditor.index.interpreter.roles import base_name
from auditor.index.interpreter.state import Scope, Walk
from auditor.index.trace import Kind
from auditor.index.values import EMPTY, HOLE, Const, Seq, Value, deep_roles, options_of
from auditor.unpack.walk import walk

SMALLER = frozenset({"minimum", "fmin", "min", "amin", "nanmin", "argmin"})
LARGER = frozenset({"maximum", "fmax", "max"})


class Scores(Walk):
    """Keeps account of losses, counts and optimiser steps."""

    def note_rebinding(self, node: ast.stmt, target: ast.expr, source: ast.expr, value: Value, scope: Scope) -> None:
        """``total = total + loss`` and ``buffer[i] = loss`` accumulate a score like ``total += loss``."""
        if (
            isinstance(target, ast.Subscript)
            and isinstance(source, ast.BinOp)
            and isinstance(source.op, ast.Add)
            and any(base_name(n) == base_name(target) for n in walk(source) if isinstance(n, (ast.Name, ast.Attribute)))
        ):
            key = self.eval(target.slice, scope)
            self.count(node, self.eval(target.value, scope), key.roles, value.roles)
        if not self.is_score(value.roles):
            return
        if isinstance(target, ast.Subscript):
            holder = self.eval(target.value, scope)
            self.score(node, value, holder, scope)
        elif (
            isinstance(target, ast.Name)
            and isinstance(source, ast.BinOp)
            and any(isinstance(n, ast.Name) and n.id == target.id for n in walk(source))
        ):
            self.score(node, value, value, scope)

    def owner_call(self, target: ast.expr, old: Value, scope: Scope) -> int:
        """The call that created an accumulator."""
        if old.born:
            return old.born
        if isinstance(target, ast.Name):
            found = scope.find(target.id)
            if found is not None:
                return found[1].call
        return self.frames[-1].id

    def replaces_best(self, node: ast.If, test: Value) -> dict[str, frozenset[str]]:
        """``if loss < best: best = loss``: what the branch replaces, with the mark of the comparison."""
        seqs = {int(r[5:]) for r in test.roles if r.startswith("pick:")}
        found: dict[str, frozenset[str]] = {}
        for event in self.trace.events if seqs else ():
            if event.seq in seqs and event.detail.startswith("with "):
                for statement in node.body:
                    if isinstance(statement, ast.Assign) and event.detail[5:] in map(base_name, statement.targets):
                        found[event.detail[5:]] = frozenset({f"pick:{event.seq}"})
                        event.detail = "best so far"
                        break
        return found

    def reorder(self, node: ast.AST, value: Value, how: str) -> frozenset[str]:
        """The role of validation documents or windows in another order than the stored one."""
        roles = deep_roles(value, 3)
        if not roles & {"val", "val.len"} or "nn" in roles or self.passes:
            return EMPTY
        event = self.emit(Kind.ORDER, node, roles=roles, detail=how, settings=value.settings)
        return frozenset({f"order:{event.seq}"})

    def count(self, node: ast.AST, table: Value | None, key: frozenset[str], change: frozenset[str]) -> frozenset[str]:
        """Validation tokens are counted into a table: note it on the table, so that what is read from it tells."""
        if "val" not in key or "nn" in key or "nn" in change:
            return EMPTY
        event = self.emit(Kind.COUNT, node, roles=key)
        made = frozenset({f"counted:{event.seq}"})
        for option in options_of(table) if table is not None else ():
            self.mark_whole(option, made)
        return made

    def mark_whole(self, part: Value, marks: frozenset[str]) -> None:
        """Put marks on a value and on the containers that it is an item of."""
        part.roles |= marks
        whole = part.of
        for _ in range(8):
            if whole is None:
                return
            whole.roles |= marks
            whole = whole.of

    def is_realised(self, value: Value) -> bool:
        """Whether this is a loss or a probability of the tokens that did come, from a network, on validation tokens."""
        return "realised" in value.roles and self.is_score(value.roles)

    def pick(self, node: ast.AST, name: str, operands: Sequence[Value], made: Value) -> None:
        """The smaller of two losses, or the larger of two probabilities: note it on the result ``made``."""
        if len(operands) != 2 or not isinstance(node, ast.Call) or not any(self.is_realised(v) for v in operands):
            return
        parts = [
            *([node.func.value] if len(node.args) == 1 and isinstance(node.func, ast.Attribute) else []),
            *node.args,
        ]
        if len(parts) != 2:
            return
        if name in LARGER and self.sums_exponentials():
            return
        if all(self.is_realised(v) for v in operands):
            made.roles |= self.picked(node, name, "both")
            return
        other = parts[0] if self.is_realised(operands[1]) else parts[1]
        if isinstance(other, (ast.Name, ast.Subscript, ast.Attribute)):
            # Only a pick if the result replaces the other one: the best so far.
            made.roles |= self.picked(node, name, f"with {base_name(other)}")

    def picked(self, node: ast.AST, name: str, detail: str) -> frozenset[str]:
        """Record a choice between two results; its role."""
        event = self.emit(Kind.PICK, node, text=name, detail=detail)
        return frozenset({f"pick:{event.seq}"})

    def sums_exponentials(self) -> bool:
        """Whether the current function adds probabilities by their logarithms, for which it needs their maximum."""
        facts = self.index.functions.get(id(self.frames[-1].definition)) if self.frames else None
        return facts is None or bool(facts.names & {"log1p", "logaddexp", "logsumexp", "exp"})

    def keeps_best(self, target: ast.expr, value: Value) -> None:
        """``best = minimum(best, loss)``: what was compared with is replaced, so the best of several is kept."""
        seqs = {int(r[5:]) for r in value.roles if r.startswith("pick:")}
        for event in self.trace.events if seqs else ():
            if event.seq in seqs and event.detail == f"with {base_name(target)}":
                event.detail = "best so far"

    def backward(self, roles: frozenset[str]) -> None:
        """A backward pass: the next optimiser step uses the roles of its loss."""
        kept = frozenset(r for r in roles if not r.startswith(("score:", "cut:")))
        self.pending = kept if self.stepped else self.pending | kept
        self.stepped = False

    def step_event(self, node: ast.AST, target: Value, roles: frozenset[str]) -> None:
        """Record that parameters are changed with what carries ``roles``."""
        owned = deep_roles(target, 2)
        self.stepped = True
        leaves = " ".join(sorted(r for r in owned if r.startswith("leaf:")))
        self.emit(
            Kind.STEP,
            node,
            roles=roles,
            value=target,
            text=" ".join(sorted(r for r in owned if r.startswith("param:"))),
            detail=leaves,
        )

    def reset_event(self, node: ast.AST, target: Value, source: frozenset[str] = EMPTY) -> None:
        """Parameters are overwritten with what does not come from a gradient, inside a loop."""
        owned = sorted(r for r in deep_roles(target, 2) if r.startswith("param:") and "~" not in r)
        if owned and self.loops and not self.passes:
            # One of the parameters, or what a loop over all of them (or the network's own method) meets.
            every = "iter" in target.roles
            self.emit(Kind.RESET, node, text=" ".join(owned), roles=source, detail="all" if every else "one")

    def is_score(self, roles: frozenset[str]) -> bool:
        """Whether adding a value with these roles to something keeps a loss on what is evaluated."""
        if "nn" not in roles or self.passes or not roles & {"val", "foreign"}:
            return False
        return not self.observed or not any(r.startswith("stat:") for r in roles)

    def score(self, node: ast.AST, value: Value, holder: Value, scope: Scope | None, call: int = 0) -> None:
        """A loss on validation tokens is kept: credit it to the call that created the accumulator."""
        credited = call or holder.born or (scope.call if scope is not None else 0) or self.frames[-1].id
        loop_roles = frozenset(r for loop in self.loops for r in loop.roles if r.startswith("cut:"))
        self.emit(
            Kind.SCORE,
            node,
            roles=value.roles | loop_roles,
            frame=credited,
            value=value,
            text=_accumulator(node),
        )
        mark = frozenset({f"score:{self.seq}"}) | loop_roles
        holder.roles |= mark
        value.roles |= mark
        for item in value.items if isinstance(value, Seq) else ():
            if self.is_score(item.roles):
                item.roles |= mark

    def metric(self, node: ast.AST, values: Iterable[Value]) -> None:
        """A text leaves the program here; with a loss or bits-per-byte in it, it is a metric."""
        for value in values:
            text = value.value if isinstance(value, Const) and isinstance(value.value, str) else value.text
            if not text or len(text) < 6:
                continue
            lowered = text.lower()
            if "bpb" in lowered or "val_loss" in lowered or "bits" in lowered or "bpc" in lowered:
                self.emit(Kind.METRIC, node, roles=value.roles, text=text, settings=value.settings)
            elif HOLE in text or " " in text or ":" in text:
                self.emit(Kind.MESSAGE, node, text=text)


def _accumulator(node: ast.AST) -> str:
    """The name of what a score is added to."""
    if isinstance(node, ast.AugAssign):
        return ast.unparse(node.target)
    if isinstance(node, ast.Assign):
        return ast.unparse(node.targets[0])
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return ast.unparse(node.func.value)
    return ""
