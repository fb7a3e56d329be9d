"""Parts of the validation tokens: cuts (``cut:N``), pieces, spans of positions, rounds of a loop, early exits."""

from __future__ import annotations

import ast
import math
from dataclasses import replace

from auditor.index.interpreter.inputs import RANK_NAMES
from auditor.index.interpreter.roles import complement, is_small, places_of
from auditor.index.interpreter.state import BREAK, Scope, Walk
from auditor.index.trace import Kind, Span
from auditor.index.values import EMPTY, Const, Seq, Value, number_of, roles_of

MIRRORED = {"Lt": "Gt", "Gt": "Lt", "LtE": "GtE", "GtE": "LtE"}


class Selections(Walk):
    """Tells which part of the validation tokens a slice, a comparison or an early exit selects."""

    def early_exit(self, node: ast.If, test: Value, flows: list[str | None]) -> None:
        """A loop that may end early leaves the rest of its data unscored: remember the condition on the loop."""
        if BREAK not in flows or not self.loops:
            return
        loop = self.loops[-1]
        by_length = "val.len" in test.roles
        by_count = "iter" in test.roles or bool(test.settings)
        if "clock" not in test.roles and (by_length or not by_count):
            return
        cut = self.emit(
            Kind.CUT,
            node,
            roles=test.roles,
            settings=test.settings,
            detail="clock" if "clock" in test.roles else "break",
        )
        self.loops[-1] = replace(loop, roles=loop.roles | {f"cut:{cut.seq}"})

    def slice(self, node: ast.Subscript, holder: Value, part: ast.Slice, scope: Scope) -> Value:
        """What a slice yields, and whether it cuts the validation tokens."""
        lower = self.eval(part.lower, scope) if part.lower is not None else None
        upper = self.eval(part.upper, scope) if part.upper is not None else None
        step = self.eval(part.step, scope) if part.step is not None else None
        if isinstance(holder, Const) and isinstance(holder.value, (str, bytes)):
            known = _known_slice(lower, upper, step)
            return Const(value=holder.value[known], settings=holder.settings) if known else Value()
        places = places_of(roles_of((lower, upper)))
        if isinstance(holder, Seq) and not places and (known := _known_slice(lower, upper, step)) is not None:
            return Seq(items=holder.items[known], roles=holder.roles, settings=holder.settings)
        roles = holder.roles
        # A slice that starts at a place worked out at run time is one piece of many, not the part that is kept.
        moving = any(b is not None and "iter" in b.roles for b in (lower, upper)) or (
            part.lower is not None and not isinstance(part.lower, ast.Constant)
        )
        whole = "whole" in roles or "val.len" in roles or any(r.startswith("score:") for r in roles)
        if whole and not moving:
            # An offset, a tail cut of less than one sequence and this rank's share all depend on the length;
            # a bound that does not is a cut.
            cut = self.cut_bound(upper) or self.cut_stride(step)
            if cut is not None:
                event = self.emit(
                    Kind.CUT,
                    node,
                    roles=roles,
                    number=cut[0],
                    settings=cut[1],
                    detail=cut[2],
                    value=holder,
                )
                roles |= {f"cut:{event.seq}"}
        if not moving and upper is not None:
            roles |= frozenset(r for r in upper.roles if r.startswith("cut:"))
        if moving:
            roles -= {"whole"}
            if "file" in roles:
                roles |= {"stored"}
            for bound in (lower, upper):
                if bound is not None:
                    roles |= places_of(bound.roles, ("at:", "order:"))
            if "val" in roles and "nn" not in roles:
                roles |= self.piece(lower)
            size = _batch_size(part) if self.watches_leaves and not roles & {"val", "nn"} else None
            if size is not None and number_of(self.eval(size, scope)) == 1:
                roles |= {"alone"}
        if upper is not None and "random" in upper.roles | (lower.roles if lower else EMPTY) and "val" in roles:
            roles |= {"random"}
        typical = number_of(self.part(holder)) if isinstance(holder, Seq) else holder.sample
        return Value(roles=roles, settings=holder.settings, born=holder.born, sample=typical)

    def placed(self, holder: Value, part: ast.Slice, scope: Scope) -> frozenset[str]:
        """Roles that a slice along a further axis adds: the rounds that it moves with, and a piece of the tokens."""
        lower = self.eval(part.lower, scope) if part.lower is not None else None
        upper = self.eval(part.upper, scope) if part.upper is not None else None
        places = places_of(roles_of((lower, upper)))
        if places and "val" in holder.roles and "nn" not in holder.roles:
            return places | self.piece(lower)
        return places

    def piece(self, lower: Value | None) -> frozenset[str]:
        """The role of a new cut of the validation tokens; whether it starts with its source's first token is noted."""
        number = self.next_serial()
        first = lower is None or "from:0" in lower.roles or (isinstance(lower, Const) and lower.value in (0, 1))
        self.trace.pieces[number] = first
        return frozenset({f"piece:{number}"})

    def span(self, holder: Value, axes: list[ast.expr], scope: Scope) -> frozenset[str]:
        """The role of a selection of positions from tokens or from what a network made of them."""
        if not holder.roles & {"val", "nn", "foreign", "positions"} or "val.len" in holder.roles:
            return EMPTY
        return self.positions(axes, scope, of_tokens="whole" in holder.roles, mask=False)

    def mark(self, index: ast.expr, scope: Scope, selected: bool) -> frozenset[str]:
        """The role of a mask that is set at some positions."""
        axes = list(index.elts) if isinstance(index, ast.Tuple) else [index]
        made = self.positions(axes, scope, of_tokens=False, mask=True)
        return made if selected else complement(made)

    def positions(self, axes: list[ast.expr], scope: Scope, *, of_tokens: bool, mask: bool) -> frozenset[str]:
        """Record the range that an index selects: along the second axis, or the only one that has bounds."""
        slices = [a for a in axes[:2] if isinstance(a, ast.Slice) and (a.lower or a.upper) and a.step is None]
        if not slices:
            return EMPTY
        part = slices[-1]
        bounds = [self.eval(b, scope) if b is not None else None for b in (part.lower, part.upper)]
        lower = number_of(bounds[0]) if bounds[0] is not None else 0.0
        upper = number_of(bounds[1]) if bounds[1] is not None else math.inf
        return self.new_span(part, lower, upper, of_tokens, mask, "alone" in roles_of(bounds))

    def new_span(
        self,
        part: ast.AST,
        lower: float | None,
        upper: float | None,
        of_tokens: bool,
        mask: bool,
        alone: bool = False,
    ) -> frozenset[str]:
        """Record a range of positions; its role."""
        number = len(self.trace.spans) + 1
        frame = self.frames[-1].id if self.frames else 0
        self.trace.spans[number] = Span(
            number,
            part,
            self.program,
            lower,
            upper,
            of_tokens,
            mask,
            tuple(self.loops),
            frame,
            self.comprehensions > 0,
            alone,
        )
        return frozenset({f"span:{number}"})

    def cut_bound(self, upper: Value | None) -> tuple[float | None, frozenset[str], str] | None:
        """(number, settings, detail) of an upper bound that cuts; None for one that follows the length."""
        if upper is None or (upper.settings and upper.settings <= RANK_NAMES):
            return None
        if isinstance(upper, Const) and isinstance(upper.value, (int, float)) and not isinstance(upper.value, bool):
            if not is_small(upper.value):
                return None
            return (float(upper.value), upper.settings, "slice") if upper.value > 0 else None
        if "val.len" in upper.roles or any(r.startswith("cut:") for r in upper.roles):
            return None
        if upper.settings - RANK_NAMES:
            return None, upper.settings, "slice"
        return None

    def cut_stride(self, step: Value | None) -> tuple[float | None, frozenset[str], str] | None:
        """(number, settings, detail) of a step that leaves tokens out."""
        if not isinstance(step, Const) or not isinstance(step.value, int) or abs(step.value) <= 1:
            return None
        if step.settings and step.settings <= RANK_NAMES:
            return None
        return float(step.value), step.settings, "stride"

    @staticmethod
    def rounds(node: ast.Compare, values: list[Value]) -> frozenset[str]:
        """Which rounds of a loop a comparison of its counter selects, as ``round:LOOP:OPERATOR:NUMBER``."""
        if len(values) != 2 or not (places_of(values[0].roles) or places_of(values[1].roles)):
            return EMPTY
        name = type(node.ops[0]).__name__
        if not places_of(values[0].roles):
            values = values[::-1]
            name = MIRRORED.get(name, name)
        loop = max(int(r[3:]) for r in places_of(values[0].roles))
        other = values[1]
        number = other.value if isinstance(other, Const) and isinstance(other.value, int) else "?"
        return frozenset({f"round:{loop}:{name}:{number}"})

    def compared_positions(self, node: ast.Compare, values: list[Value]) -> frozenset[str]:
        """``positions < bound`` selects positions like a slice does."""
        found: frozenset[str] = EMPTY
        for left, op, right in zip(values, node.ops, values[1:], strict=False):
            if "positions" in left.roles and "positions" not in right.roles:
                bound, below = number_of(right), isinstance(op, (ast.Lt, ast.LtE))
                above = isinstance(op, (ast.Gt, ast.GtE))
            elif "positions" in right.roles and "positions" not in left.roles:
                bound, below = number_of(left), isinstance(op, (ast.Gt, ast.GtE))
                above = isinstance(op, (ast.Lt, ast.LtE))
            else:
                continue
            if below:
                found |= self.new_span(node, 0.0, bound, False, True)
            elif above:
                found |= self.new_span(node, bound, math.inf, False, True)
        return found


def _known_slice(*bounds: Value | None) -> slice | None:
    """The slice with these bounds, if all of them are known integers (or absent) and the step is not 0."""
    values: list[int | None] = []
    for bound in bounds:
        if bound is None:
            values.append(None)
        elif isinstance(bound, Const) and (bound.value is None or isinstance(bound.value, int)):
            values.append(bound.value)
        else:
            return None
    return slice(*values) if values[2] != 0 else None


def _batch_size(part: ast.Slice) -> ast.expr | None:
    """``n`` of a slice ``i : i + n``."""
    upper = part.upper
    if isinstance(part.lower, ast.Name) and isinstance(upper, ast.BinOp) and isinstance(upper.op, ast.Add):
        for one, other in ((upper.left, upper.right), (upper.right, upper.left)):
            if isinstance(one, ast.Name) and one.id == part.lower.id:
                return other
    return None
