"""Operators: arithmetic on what is known, roles for the rest, comparisons and truth in three values."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from typing import Any

from auditor.index.interpreter.inputs import RANK_NAMES, TORCHRUN
from auditor.index.interpreter.passes import Passes
from auditor.index.interpreter.roles import base_name, complement, places_of, text_of
from auditor.index.interpreter.selections import Selections
from auditor.index.interpreter.state import MAX_ITEMS, MAX_TEXT, Scope
from auditor.index.trace import Kind
from auditor.index.values import (
    EMPTY,
    HOLE,
    Class,
    Const,
    External,
    Function,
    Mapping,
    Object,
    Seq,
    Value,
    join,
    number_of,
    roles_of,
    settings_of,
)
from auditor.unpack.walk import walk

BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.BitAnd: operator.and_, ast.BitOr: operator.or_,
    ast.BitXor: operator.xor, ast.LShift: operator.lshift, ast.RShift: operator.rshift, ast.Pow: operator.pow,
}  # fmt: skip
COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge, ast.Is: operator.eq, ast.IsNot: operator.ne,
}  # fmt: skip
OPPOSITE = {"Eq": "NotEq", "NotEq": "Eq", "Lt": "GtE", "GtE": "Lt", "Gt": "LtE", "LtE": "Gt"}


class Operators(Selections, Passes):
    """Evaluates operators."""

    def byte_mix(self, node: ast.expr, value: Value, scope: Scope) -> Value:
        """Note a mixture with a byte model: what is computed from it carries ``bytemix:N``.

        Native code returns its figures through its arguments, so all names given to the call carry it too.
        """
        mixture = self.byte_mixtures[id(node)]
        event = self.emit(Kind.BYTE_MIX, node, roles=value.roles, detail=mixture.form)
        mark = frozenset({f"bytemix:{event.seq}"})
        if mixture.native is not None:
            for name in walk(node):
                known = scope.find(name.id) if isinstance(name, ast.Name) else None
                if known is not None and type(known[0]) is Value:
                    known[0].roles |= mark
        return Value(roles=value.roles | mark, settings=value.settings, born=value.born, sample=value.sample)

    def e_binop(self, node: ast.BinOp, scope: Scope) -> Value:
        value = self.binary(type(node.op), self.eval(node.left, scope), self.eval(node.right, scope), node)
        return self.byte_mix(node, value, scope) if id(node) in self.byte_mixtures else value

    def binary(self, op: type[ast.operator], left: Value, right: Value, node: ast.AST | None = None) -> Value:
        """The result of an operator on two values."""
        settings = left.settings | right.settings
        if isinstance(left, Const) and isinstance(right, Const):
            known = _arithmetic(op, left.value, right.value)
            if known is not None:
                return Const(value=known, settings=settings, roles=places_of(left.roles | right.roles))
        if op is ast.Div and not isinstance(left, Const) and isinstance(text_of(right), str):
            left = left if left.text is not None else Value(text=HOLE, roles=left.roles)  # a path and a name
        if op is ast.Div or op is ast.Add or op is ast.Mod:
            texts = [text_of(v) for v in (left, right)]
            if texts[0] is not None and (texts[1] is not None or op is ast.Mod):
                if op is ast.Mod:
                    merged = re.sub(r"%[-+ #0-9.]*[a-zA-Z]", HOLE, texts[0])
                else:
                    merged = texts[0] + ("/" if op is ast.Div else "") + (texts[1] or "")
                return Value(text=merged[:MAX_TEXT], roles=left.roles | right.roles, settings=settings)
            if op is ast.Add and isinstance(left, Seq) and isinstance(right, Seq):
                items = [*left.items, *right.items][:MAX_ITEMS]
                return Seq(items=items, roles=left.roles | right.roles, settings=settings)
        if op is ast.Sub and right.roles:
            # What remains after taking away a capped amount is not capped by it.
            gone = frozenset(r for r in right.roles - left.roles if r.startswith("cut:"))
            right = Value(roles=right.roles - gone, settings=right.settings) if gone else right
        roles = left.roles | right.roles
        if "from:0" in roles and not (op is ast.Add and isinstance(right, Const) and right.value == 1):
            roles -= {"from:0"}  # the targets of a span start one further, which still is its start
        if op is ast.Div and "nn" in left.roles:
            # a loss per byte, or per token, is not made of counts
            roles -= frozenset(r for r in right.roles - left.roles if r.startswith("counted:"))
        if op is ast.Sub or op is ast.Add or op is ast.Mult:
            roles = _retracted(op, left.roles, right.roles, roles)
        if self.passes and node is not None:
            roles = self.mix(op, left, right, roles, node)
        if self.trace.leaves and (op is ast.Add or op is ast.MatMult or op is ast.Sub):
            self.combine(op, left, right)
        if op is ast.Sub and isinstance(left, Const) and left.value == 1:
            roles = complement(roles)
        if "val.len" in roles:
            if "iter" in roles or "val" in roles:
                roles -= {"val.len"}
            elif op is ast.FloorDiv and isinstance(right, Const) and isinstance(right.value, int):
                if right.value > 1 and not right.settings & RANK_NAMES:
                    roles |= {f"per:{right.value}"}
            elif op is ast.Mult and node is not None:
                for side in (left, right):
                    if isinstance(side, Const) and isinstance(side.value, float) and 0 < side.value < 1:
                        cut = self.emit(
                            Kind.CUT,
                            node,
                            roles=roles,
                            number=side.value,
                            settings=side.settings,
                            detail="fraction",
                        )
                        roles |= {f"cut:{cut.seq}"}
        if isinstance(left, Seq) and op is ast.Mult and isinstance(right, Const) and right.value == 0:
            roles |= {"empty"}
        numbers = number_of(left), number_of(right)
        typical = None if numbers[0] is None or numbers[1] is None else _arithmetic(op, *numbers)
        return Value(roles=roles, settings=settings, born=left.born or right.born, sample=typical)

    def e_unaryop(self, node: ast.UnaryOp, scope: Scope) -> Value:
        value = self.eval(node.operand, scope)
        if isinstance(node.op, ast.Not):
            truth = self.truth(value)
            if truth is not None:
                return Const(value=not truth, settings=value.settings)
            sample = None if value.sample is None else float(not value.sample)
            return Value(roles=frozenset(map(_opposite, value.roles)), settings=value.settings, sample=sample)
        if isinstance(value, Const) and isinstance(value.value, (int, float)) and isinstance(node.op, ast.USub):
            return Const(value=-value.value, settings=value.settings)
        if isinstance(node.op, ast.Invert):
            return Value(roles=complement(value.roles), settings=value.settings)
        minus = isinstance(node.op, ast.USub) and value.sample is not None
        return Value(roles=value.roles, settings=value.settings, sample=-(value.sample or 0.0) if minus else None)

    def e_boolop(self, node: ast.BoolOp, scope: Scope) -> Value:
        decisive = isinstance(node.op, ast.Or)
        settings: frozenset[str] = EMPTY
        seen: list[Value] = []
        for part in node.values:
            value = self.eval(part, scope)
            truth = self.truth(value)
            if truth is decisive:
                if not seen:
                    return value
                if decisive and any(not isinstance(v, Const) for v in seen):
                    seen.append(value)
                    break
                return Const(
                    value=value.value if isinstance(value, Const) else decisive,
                    settings=settings | value.settings if decisive else value.settings or settings,
                )
            settings |= value.settings
            if truth is None or part is node.values[-1]:
                seen.append(value)
        if len(seen) == 1:
            only = seen[0]
            if isinstance(only, Const):
                return Const(value=only.value, settings=settings, roles=only.roles)
            return only
        result: Value | None = None
        for value in seen:
            result = join(result, value)
        if result is None:
            return Value(settings=settings)
        if isinstance(result, Const):
            return Value(settings=settings)
        return result

    def e_compare(self, node: ast.Compare, scope: Scope) -> Value:
        values = [self.eval(node.left, scope), *(self.eval(c, scope) for c in node.comparators)]
        settings = settings_of(values)
        outcome: bool | None = True
        for left, op, right in zip(values, node.ops, values[1:], strict=False):
            truth = self.compare(type(op), left, right)
            if truth is None:
                outcome = None
                break
            if not truth:
                outcome = False
                break
        if outcome is not None:
            return Const(value=outcome, settings=settings)
        roles = roles_of(values)
        equality = isinstance(node.ops[0], (ast.Eq, ast.NotEq))
        if equality and roles & {"val", "train", "tokens", "random"} and not roles & {"nn", "val.len"}:
            roles |= {"boundary"}  # tokens compared with a value: where documents start
        if equality and "stored" in roles and "val" in roles:
            for stored, tokens in (values, values[::-1]):
                if "stored" in stored.roles - tokens.roles and "val" in tokens.roles and "nn" not in roles:
                    roles |= {f"match:{self.emit(Kind.MATCH, node, roles=roles).seq}"}
                    break
        if len(values) == 2 and isinstance(node.ops[0], (ast.Lt, ast.LtE, ast.Gt, ast.GtE)):
            sides = [self.is_realised(v) for v in values]
            if all(sides):
                roles |= self.picked(node, "comparison", "both")
            elif any(sides):
                other = node.comparators[0] if sides[0] else node.left
                if isinstance(other, (ast.Name, ast.Subscript, ast.Attribute)):
                    roles |= self.picked(node, "comparison", f"with {base_name(other)}")
        typical: float | None = None
        if len(values) == 2 and (numbers := [n for v in values if (n := number_of(v)) is not None])[1:]:
            operation = COMPARE.get(type(node.ops[0]))
            typical = float(operation(*numbers)) if operation is not None else None
        if self.watches_leaves and any("positions" in v.roles for v in values):
            roles |= self.compared_positions(node, values)
        return Value(roles=roles | self.rounds(node, values), settings=settings, sample=typical)

    def compare(self, op: type[ast.cmpop], left: Value, right: Value) -> bool | None:
        """The outcome of one comparison; None where the run's files do not decide it."""
        if op in (ast.In, ast.NotIn):
            answer: bool | None = None
            if isinstance(right, External) and right.name == "os.environ" and isinstance(left, Const):
                name = str(left.value)
                known = name in TORCHRUN or name in self.set_by_code
                if not known and self.configuration is not None:
                    known = self.configuration.environment(name) is not None
                answer = known
            elif isinstance(left, Const) and isinstance(right, Seq):
                if all(isinstance(i, Const) for i in right.items):
                    answer = any(isinstance(i, Const) and i.value == left.value for i in right.items)
            elif isinstance(left, Const) and isinstance(right, Const) and isinstance(right.value, str):
                answer = str(left.value) in right.value
            return answer if answer is None or op is ast.In else not answer
        if op in (ast.Is, ast.IsNot):
            for first, second in ((left, right), (right, left)):
                if isinstance(second, Const) and second.value is None and not isinstance(first, Const):
                    if isinstance(first, (Object, Function, Class, Seq, Mapping)):
                        return op is ast.IsNot
                    if first.roles and "maybe-none" not in first.roles:
                        return op is ast.IsNot
                    return None
        if isinstance(left, Const) and isinstance(right, Const):
            try:
                return bool(COMPARE[op](left.value, right.value))
            except (TypeError, KeyError):
                return None
        return None

    def truth(self, value: Value) -> bool | None:
        """True, False, or None where the run's files do not decide it."""
        if isinstance(value, Const):
            return bool(value.value)
        if isinstance(value, (Function, Class)):
            return True
        if isinstance(value, Object):
            return True if isinstance(value.kind, External) and value.is_module else None
        return None


def _opposite(role: str) -> str:
    """The role of a negated comparison: other rounds of the loop are selected."""
    if not role.startswith("round:"):
        return role
    loop, operator_, number = role[6:].split(":")
    return f"round:{loop}:{OPPOSITE.get(operator_, operator_)}:{number}"


def _retracted(
    op: type[ast.operator], left: frozenset[str], right: frozenset[str], roles: frozenset[str]
) -> frozenset[str]:
    """Roles of a sum from which a score is taken out again, and of one in which another takes its place.

    ``minus:N`` marks what score N was subtracted from; adding that to something with a score of its own makes it
    ``superseded``. A weighted difference (an interpolation) takes nothing out.
    """
    kept = any(r.startswith("score:") for r in left) or (op is ast.Sub and "nn" in left)
    if not kept or not any(r.startswith("score:") for r in right):
        return roles
    first, second = ({r[6:] for r in side if r.startswith("score:")} for side in (left, right))
    if op is ast.Sub:
        return roles | frozenset(f"minus:{n}" for n in second)
    gone = {r[6:] for r in roles if r.startswith("minus:")}
    if op is ast.Mult:
        return frozenset(r for r in roles if not r.startswith("minus:"))
    for sum_, change in ((first, second), (second, first)):
        if gone and gone <= sum_ and change - sum_ - gone:
            return roles | {"superseded"}
    return roles


def _arithmetic(op: type[ast.operator], left: Any, right: Any) -> Any:
    """The result for two small constants, or None where it is undefined or could be large."""
    numbers = isinstance(left, (int, float)) and isinstance(right, (int, float))
    if numbers:
        if op is ast.Pow and (abs(right) > 64 or abs(left) > 1e6):
            return None
        if op in (ast.LShift, ast.RShift) and not (isinstance(right, int) and 0 <= right <= 64):
            return None
        if abs(left) > 1e18 or abs(right) > 1e18:
            return None
    elif op is ast.Add and isinstance(left, str) and isinstance(right, str):
        return left + right if len(left) + len(right) <= MAX_TEXT else None
    elif op is ast.Mult and isinstance(left, str) and isinstance(right, int):
        return left * right if 0 <= len(left) * right <= MAX_TEXT else None
    else:
        return None
    try:
        return BINARY[op](left, right)
    except (ArithmeticError, KeyError, TypeError, ValueError):
        return None
