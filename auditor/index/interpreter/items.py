"""Attributes and items of values, read and assigned."""

from __future__ import annotations

import ast
from dataclasses import replace

from auditor.index.interpreter.passes import Passes
from auditor.index.interpreter.roles import canonical, copy_function, is_owned, is_true, length_of
from auditor.index.interpreter.selections import Selections
from auditor.index.interpreter.state import Scope
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
    deep_roles,
    join,
    options_of,
)

LENGTH_METHODS = {"numel", "size", "shape", "nelement", "__len__", "nbytes"}


class Items(Selections, Passes):
    """Looks up and assigns attributes and items."""

    def bind(self, target: ast.expr, value: Value, scope: Scope) -> None:
        """Assign ``value`` to a name, a pattern of names, an attribute or an item."""
        if isinstance(target, ast.Name):
            scope.assign(target.id, value)
        elif isinstance(target, (ast.Tuple, ast.List)):
            items = value.items if isinstance(value, Seq) else None
            for i, part in enumerate(target.elts):
                if isinstance(part, ast.Starred):
                    self.bind(part.value, self.part(value), scope)
                elif items is not None and len(items) == len(target.elts):
                    self.bind(part, items[i], scope)
                else:
                    self.bind(part, self.part(value), scope)
        elif isinstance(target, ast.Attribute):
            holder = self.eval(target.value, scope)
            if target.attr == "forward":
                self.replace_forward(holder, value)
            for option in options_of(holder):
                if isinstance(option, (Object, Class)):
                    self.adopt(option, [value])
                    known = option.attributes.get(target.attr)
                    # Different branches and loops write the same attribute: keep what either wrote.
                    keep = known if self.undecided() and known is not None else None
                    option.attributes[target.attr] = join(keep, value) if keep else value
                elif target.attr == "requires_grad":
                    if is_true(value) and not is_owned(option.roles):
                        option.roles |= self.leaf(target, None, option)
                elif target.attr == "data" or "param:" in "".join(option.roles):
                    if "grad" in value.roles:
                        self.step_event(target, option, value.roles)
                    elif "nn" not in value.roles and target.attr == "data":
                        self.reset_event(target, option, value.roles)
                    option.roles |= value.roles
        elif isinstance(target, ast.Subscript):
            holder = self.eval(target.value, scope)
            key = self.eval(target.slice, scope)
            if isinstance(holder, External) and holder.name == "os.environ":
                if isinstance(key, Const):
                    self.set_by_code[str(key.value)] = value
                return
            if self.watches_leaves and isinstance(value, Const) and not isinstance(value.value, str):
                # mask[i, a:b] = 1 selects positions, = 0 leaves them out
                holder.roles |= self.mark(target.slice, scope, bool(value.value))
            for option in options_of(holder):
                if isinstance(option, Mapping):
                    if isinstance(key, Const) and isinstance(key.value, str) and len(option.items) < 400:
                        option.items[key.value] = value
                    else:
                        option.rest = join(option.rest, value)
                option.roles |= value.roles

    def element(self, iterable: Value) -> Value:
        """What a loop variable holds while it runs over ``iterable``."""
        if isinstance(iterable, Choice):
            result: Value | None = None
            for option in iterable.options:
                result = join(result, self.element(option))
            return result or Value()
        if isinstance(iterable, Seq):
            result = None
            for item in iterable.items:
                result = join(result, item)
            if isinstance(result, Const) and len(iterable.items) > 1:
                result = Value(roles=result.roles, settings=result.settings)
            return result or Value(roles=iterable.roles)
        if isinstance(iterable, Mapping):
            return Value(roles=iterable.roles)
        if isinstance(iterable, Object) and "*" in iterable.attributes:
            return self.element(iterable.attributes["*"])
        if isinstance(iterable, Object) and isinstance(iterable.kind, Class):
            for name in ("__next__", "__iter__", "__getitem__"):
                method = self.attribute(iterable, name, iterable.kind.node)
                if isinstance(method, Function):
                    made = self.call(method, [], {}, iterable.kind.node)
                    if name == "__iter__" and made is not iterable:
                        return self.element(made)
                    if made is not iterable:
                        return made
            return Value(roles=deep_roles(iterable))
        roles = iterable.roles - {"whole"}
        if "val.len" in roles or not roles:
            roles = roles - {"val.len"} | {"iter"}
        return Value(roles=roles | {"iter"}, settings=EMPTY, sample=iterable.sample)

    def member(self, holder: Value, node: ast.Attribute) -> Value:
        """The attribute that ``node`` names, of a holder that was evaluated already."""
        if type(holder) is Value or isinstance(holder, Const):
            return self.plain_attribute(holder, node.attr)
        if isinstance(holder, Choice):
            result: Value | None = None
            for option in holder.options:
                result = join(result, self.attribute(option, node.attr, node))
            return result or Value()
        return self.attribute(holder, node.attr, node)

    def plain_attribute(self, holder: Value, name: str) -> Value:
        """An attribute of a value that is no object: a length, a gradient, a part of it."""
        if name in LENGTH_METHODS:
            return length_of(holder)
        if name == "grad":
            return Value(roles=holder.roles | self.pending | {"grad"})
        if name == "parent" and holder.text:
            return Value(text=holder.text.rpartition("/")[0] or HOLE, roles=holder.roles)
        return Value(roles=holder.roles, settings=holder.settings, born=holder.born)

    def attribute(self, holder: Value, name: str, node: ast.AST) -> Value:
        """The attribute ``name`` of one object, class or library."""
        if isinstance(holder, External):
            return External(name=canonical(f"{holder.name}.{name}"), roles=holder.roles)
        if isinstance(holder, Object):
            self.touch(holder)
            if name in holder.attributes:
                held = holder.attributes[name]
                if name in self.index.counters and isinstance(held, Const) and type(held.value) in (int, float):
                    # Loop bodies are visited once: a counter is not the number it starts with.
                    return Value(roles=held.roles | {"count"}, settings=held.settings, born=held.born)
                return held
            if isinstance(holder.kind, Class):
                found = holder.kind.lookup(name)
                if isinstance(found, Function):
                    if "static" in found.roles:
                        return found
                    method = copy_function(found)
                    method.receiver = holder.kind if "classmethod" in found.roles else holder
                    if "property" in found.roles:
                        return self.call(method, [], {}, node)
                    return method
                if found is not None:
                    return found
                if holder.is_module:
                    return Value(roles=frozenset({f"param:{holder.serial}"}))
                return Value(roles=holder.roles)
            if holder.is_module:
                return Value(roles=frozenset({f"param:{holder.serial}"}))
            return Value(roles=holder.roles)
        if isinstance(holder, Class):
            found = holder.lookup(name)
            if found is None:
                return Const(value=holder.name) if name == "__name__" else Value()
            if isinstance(found, Function) and "classmethod" in found.roles:
                method = copy_function(found)
                method.receiver = holder
                return method
            return found
        if isinstance(holder, Function):
            return Value(roles=holder.roles)
        if isinstance(holder, Mapping) and name in holder.items:
            return holder.items[name]
        return self.plain_attribute(holder, name)

    def item(self, holder: Value, key: Value) -> Value:
        """The item of ``holder`` at ``key``."""
        if isinstance(holder, Seq):
            place = key.value if isinstance(key, Const) else None
            if isinstance(place, int) and -len(holder.items) <= place < len(holder.items):
                return holder.items[place]
            return self.part(holder)
        if isinstance(holder, Mapping):
            if isinstance(key, Const) and isinstance(key.value, str) and key.value in holder.items:
                return holder.items[key.value]
            return _of_split(holder.rest or Value(roles=holder.roles), key)
        if isinstance(holder, Object):
            if isinstance(holder.kind, Class):
                method = holder.kind.lookup("__getitem__")
                if isinstance(method, Function):
                    bound = copy_function(method)
                    bound.receiver = holder
                    return self.call(bound, [key], {}, holder.kind.node)
            return Value(roles=deep_roles(holder, 2))
        roles = holder.roles - {"whole"}
        if "random" in key.roles and "val" in roles:
            roles |= {"random"}
        roles |= frozenset(r for r in key.roles if r.startswith(("cut:", "span:", "out:", "order:")))
        return Value(roles=roles, settings=holder.settings, born=holder.born, sample=holder.sample, of=holder)


def _of_split(value: Value, key: Value) -> Value:
    """What a cache by path holds under the path of one split was not read from the other."""
    for own, other in (("train", "val"), ("val", "train")):
        if own in key.roles and other not in key.roles and other in value.roles and type(value) is Value:
            return replace(value, roles=value.roles - {other, "whole"} | {own})
    return value
