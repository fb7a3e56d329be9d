"""Expressions: the abstract value of every kind that is no operator and no call."""

from __future__ import annotations

import ast
from typing import Any

from auditor.index.interpreter.calls import Calls
from auditor.index.interpreter.roles import changing, is_small, places_of
from auditor.index.interpreter.state import MAX_ITEMS, MAX_TEXT, Scope
from auditor.index.program_index import is_all_but_last
from auditor.index.values import (
    EMPTY,
    HOLE,
    Choice,
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
    options_of,
    roles_of,
    settings_of,
)


class Expressions(Calls):
    """Evaluates expressions."""

    def eval(self, node: ast.expr, scope: Scope) -> Value:
        """The abstract value of an expression."""
        self.steps += 1
        kind = node.__class__
        if kind is ast.Name:  # nearly half of all expressions
            return self.e_name(node, scope)  # type: ignore[arg-type]
        handler = EXPRESSIONS.get(kind)
        if handler is not None:
            return handler(self, node, scope)  # type: ignore[no-any-return]
        return Value()

    def e_constant(self, node: ast.Constant, scope: Scope) -> Value:
        value = node.value
        if isinstance(value, (str, bytes)) and len(value) > MAX_TEXT:
            return Value()
        return Const(value=value)

    def e_name(self, node: ast.Name, scope: Scope) -> Value:
        name = node.id
        place: Scope | None = scope
        while place is not None:
            value = place.names.get(name)
            if value is not None:
                if value.__class__ is Object:
                    self.touch(value)
                return value
            place = place.parent
        return External(name=name)

    def e_attribute(self, node: ast.Attribute, scope: Scope) -> Value:
        return self.member(self.eval(node.value, scope), node)

    def e_subscript(self, node: ast.Subscript, scope: Scope) -> Value:
        holder = self.eval(node.value, scope)
        if isinstance(node.slice, ast.Slice):
            made = self.slice(node, holder, node.slice, scope)
            if self.watches_leaves and type(made) is Value:
                made.roles |= self.span(holder, [node.slice], scope)
            return made
        if isinstance(node.slice, ast.Tuple) and any(isinstance(e, ast.Slice) for e in node.slice.elts):
            # A leading None only adds an axis.
            axes = [e for e in node.slice.elts if not (isinstance(e, ast.Constant) and e.value is None)]
            first = axes[0] if axes else node.slice.elts[0]
            chosen = EMPTY
            for part in node.slice.elts:
                if not isinstance(part, ast.Slice):
                    chosen |= self.eval(part, scope).roles
            if isinstance(first, ast.Slice):
                made = self.slice(node, holder, first, scope)
            else:
                made = Value(roles=holder.roles - {"whole"}, settings=holder.settings, born=holder.born)
            if type(made) is Value:
                made.roles |= places_of(chosen)
                for part in axes[1:]:
                    if isinstance(part, ast.Slice) and (part.lower or part.upper):
                        made.roles |= self.placed(holder, part, scope)
            if self.passes and "nn" in holder.roles and _is_shift(node.slice):
                made.roles |= {"prev"}
            if "nn" in holder.roles and "val" in chosen and "nn" not in chosen and type(made) is Value:
                made.roles |= {"realised"}
            if self.watches_leaves and type(made) is Value:
                made.roles |= self.span(holder, axes, scope)
            return made
        key = self.eval(node.slice, scope)
        if isinstance(holder, Object) and isinstance(holder.kind, External) and "*" in holder.attributes:
            return self.item(holder.attributes["*"], key)
        if isinstance(holder, External):
            if holder.name == "os.environ":
                return self.environment(key, None, node)
            return Value()
        result: Value | None = None
        for option in options_of(holder):
            result = join(result, self.item(option, key))
        if result is None:
            return Value()
        if "nn" in holder.roles and "val" in key.roles and "nn" not in key.roles and type(result) is Value:
            result.roles |= {"realised"}  # picked out at the place of the token
        places = places_of(key.roles)
        return changing(result, places) if places and (result.roles or type(holder) is Value) else result

    def e_ifexp(self, node: ast.IfExp, scope: Scope) -> Value:
        test = self.eval(node.test, scope)
        truth = self.truth(test)
        if truth is not None:
            value = self.eval(node.body if truth else node.orelse, scope)
            if test.settings and isinstance(value, Const):
                return Const(value=value.value, settings=value.settings | test.settings, roles=value.roles)
            return value
        sides = self.eval(node.body, scope), self.eval(node.orelse, scope)
        made = join(*sides)
        if type(made) is Value:
            # Of two paths neither is known any more, but what may be read from them is.
            made.roles |= self.path_roles(sides)
            made.settings |= test.settings
        if type(made) is Value and test.sample is not None:
            made.sample = number_of(sides[0 if test.sample else 1])
        return made

    def e_sequence(self, node: ast.Tuple | ast.List | ast.Set, scope: Scope) -> Value:
        items: list[Value] = []
        for element in node.elts[: MAX_ITEMS * 4]:
            if isinstance(element, ast.Starred):
                inner = self.eval(element.value, scope)
                items.extend(inner.items if isinstance(inner, Seq) else [self.part(inner)])
            else:
                items.append(self.eval(element, scope))
        return Seq(
            items=items,
            roles=roles_of(items),
            settings=settings_of(items),
            born=self.frames[-1].id if self.frames else 0,
        )

    def e_dict(self, node: ast.Dict, scope: Scope) -> Value:
        made = Mapping(born=self.frames[-1].id if self.frames else 0)
        for key, value_node in zip(node.keys, node.values, strict=True):
            value = self.eval(value_node, scope)
            made.roles |= value.roles
            made.settings |= value.settings
            if key is None:
                if isinstance(value, Mapping):
                    made.items.update(value.items)
                continue
            known = self.eval(key, scope)
            if isinstance(known, Const) and isinstance(known.value, str):
                made.items[known.value] = value
            else:
                made.rest = join(made.rest, value)
        return made

    def e_comprehension(
        self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp, scope: Scope
    ) -> Value:
        inner = self.new_scope(scope, scope.call)
        sources: list[Value] = []
        self.comprehensions += 1
        for generator in node.generators:
            source = self.eval(generator.iter, inner)
            sources.append(source)
            self.bind(generator.target, self.element(source), inner)
            for condition in generator.ifs:
                self.eval(condition, inner)
        if isinstance(node, ast.DictComp):
            self.eval(node.key, inner)
            value = self.eval(node.value, inner)
        else:
            value = self.eval(node.elt, inner)
        self.comprehensions -= 1
        # A list of windows or documents is as long as what it was made from.
        kept = frozenset(
            r for s in sources for r in s.roles if r in ("val.len", "whole") or r.startswith(("cut:", "per:"))
        )
        roles = (value.roles - {"iter"}) | kept
        if isinstance(value, (Object, Function, Choice, Class, Seq)):
            return Seq(items=[value], roles=roles, settings=value.settings)
        return Value(roles=roles, settings=value.settings | settings_of(sources), sample=number_of(value))

    def e_joinedstr(self, node: ast.JoinedStr, scope: Scope) -> Value:
        pieces: list[str] = []
        values: list[Value] = []
        for part in node.values:
            if isinstance(part, ast.Constant):
                pieces.append(str(part.value))
                continue
            if isinstance(part, ast.FormattedValue):
                value = self.eval(part.value, scope)
                values.append(value)
                if isinstance(value, Const) and part.format_spec is None and is_small(value.value):
                    pieces.append(str(value.value))
                elif value.text is not None:
                    pieces.append(value.text)
                else:
                    pieces.append(HOLE)
        text = "".join(pieces)
        roles, settings = roles_of(values), settings_of(values)
        if len(text) > MAX_TEXT:
            return Value(roles=roles, settings=settings)
        if all(isinstance(v, Const) for v in values) and HOLE not in text:
            return Const(value=text, roles=roles, settings=settings)
        return Value(text=text, roles=roles, settings=settings)

    def e_lambda(self, node: ast.Lambda, scope: Scope) -> Value:
        return self.make_function(node, scope)

    def e_namedexpr(self, node: ast.NamedExpr, scope: Scope) -> Value:
        value = self.eval(node.value, scope)
        self.bind(node.target, value, scope)
        return value

    def e_starred(self, node: ast.Starred, scope: Scope) -> Value:
        return self.eval(node.value, scope)

    def e_await(self, node: ast.Await, scope: Scope) -> Value:
        return self.eval(node.value, scope)

    def e_yield(self, node: ast.Yield | ast.YieldFrom, scope: Scope) -> Value:
        if node.value is not None:
            value = self.eval(node.value, scope)
            if isinstance(node, ast.YieldFrom):
                value = self.element(value)
            owner = scope
            owner.names["yield"] = join(owner.names.get("yield"), Seq(items=[value], roles=value.roles))
        return Value()


EXPRESSIONS: dict[type[ast.expr], Any] = {
    ast.Constant: Expressions.e_constant, ast.Name: Expressions.e_name, ast.Attribute: Expressions.e_attribute,
    ast.Subscript: Expressions.e_subscript, ast.Call: Expressions.e_call, ast.BinOp: Expressions.e_binop,
    ast.UnaryOp: Expressions.e_unaryop, ast.BoolOp: Expressions.e_boolop, ast.Compare: Expressions.e_compare,
    ast.IfExp: Expressions.e_ifexp, ast.Tuple: Expressions.e_sequence, ast.List: Expressions.e_sequence,
    ast.Set: Expressions.e_sequence, ast.Dict: Expressions.e_dict, ast.ListComp: Expressions.e_comprehension,
    ast.SetComp: Expressions.e_comprehension, ast.GeneratorExp: Expressions.e_comprehension,
    ast.DictComp: Expressions.e_comprehension, ast.JoinedStr: Expressions.e_joinedstr,
    ast.Lambda: Expressions.e_lambda, ast.NamedExpr: Expressions.e_namedexpr, ast.Starred: Expressions.e_starred,
    ast.Await: Expressions.e_await, ast.Yield: Expressions.e_yield, ast.YieldFrom: Expressions.e_yield,
}  # fmt: skip


def _is_shift(index: ast.expr) -> bool:
    """Whether a subscript drops the last position: ``[:, :-1]``, ``[:, :-1, :]``, ``[:, : n - 1]``."""
    parts = index.elts if isinstance(index, ast.Tuple) else [index]
    if parts and isinstance(parts[0], ast.Constant) and parts[0].value is Ellipsis and len(parts) == 2:
        return False
    return any(is_all_but_last(p) for p in (parts[1:] if len(parts) > 1 else parts))
