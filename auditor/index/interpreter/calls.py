"""Calls: what is called, with which arguments, and what happens in a function of the submission."""

from __future__ import annotations

import ast
from collections.abc import Iterable

from auditor.index.interpreter.externals import Externals
from auditor.index.interpreter.methods import HOLDER_METHODS, Methods
from auditor.index.interpreter.operators import Operators
from auditor.index.interpreter.roles import copy_function, through_call
from auditor.index.interpreter.state import MAX_DEPTH, Scope
from auditor.index.trace import CallFrame, Kind
from auditor.index.values import (
    EMPTY,
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
    roles_of,
    settings_of,
)


class Calls(Methods, Externals, Operators):
    """Evaluates calls."""

    def make_function(
        self,
        node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda,
        scope: Scope,
        owner: Class | None = None,
    ) -> Function:
        """The value of a ``def`` or ``lambda``."""
        name = getattr(node, "name", "<lambda>")
        qualname = f"{owner.name}.{name}" if owner is not None else name
        return Function(node=node, scope=scope, program=self.program, qualname=qualname, owner=owner)

    def e_call(self, node: ast.Call, scope: Scope) -> Value:
        if self.passes and id(node) in self.index.state_calls:
            self.emit(Kind.LOOKAHEAD, node, detail="state")
        value = self.plain_call(node, scope)
        return self.byte_mix(node, value, scope) if id(node) in self.byte_mixtures else value

    def plain_call(self, node: ast.Call, scope: Scope) -> Value:
        """Evaluate what is called and its arguments, and call it."""
        holder: Value | None = None
        if isinstance(node.func, ast.Attribute):
            # The holder is evaluated once: chains of calls would otherwise double with every link.
            holder = self.eval(node.func.value, scope)
            function = self.member(holder, node.func)
        else:
            function = self.eval(node.func, scope)
        arguments: list[Value] = []
        for argument in node.args:
            if isinstance(argument, ast.Starred):
                packed = self.eval(argument.value, scope)
                arguments.extend(packed.items if isinstance(packed, Seq) else [self.part(packed)])
            else:
                arguments.append(self.eval(argument, scope))
        keywords: dict[str, Value] = {}
        for keyword in node.keywords:
            value = self.eval(keyword.value, scope)
            if keyword.arg is not None:
                keywords[keyword.arg] = value
            elif isinstance(value, Mapping):
                keywords.update(value.items)
            else:
                keywords.setdefault("**", value)
        if holder is not None and isinstance(node.func, ast.Attribute):
            name = node.func.attr
            if type(function) is Value or isinstance(function, Const):
                return self.method(node, holder, name, arguments, keywords, scope)
            if name in HOLDER_METHODS and not isinstance(holder, External):
                special = self.object_method(node, holder, name, arguments, keywords)
                if special is not None:
                    return special
        return self.call(function, arguments, keywords, node)

    def call(self, function: Value, arguments: list[Value], keywords: dict[str, Value], node: ast.AST) -> Value:
        """The result of applying ``function``; enters functions of the submission that can matter."""
        if isinstance(function, Function):
            if function.bound or function.bound_keywords:
                arguments = [*function.bound, *arguments]
                keywords = {**function.bound_keywords, **keywords}
            return self.enter(function, arguments, keywords, node)
        if isinstance(function, External):
            return self.external(function, arguments, keywords, node)
        if isinstance(function, Class):
            return self.instantiate(function, arguments, keywords, node)
        if isinstance(function, Object):
            return self.apply(function, arguments, keywords, node)
        if isinstance(function, Choice):
            result: Value | None = None
            for option in function.options:
                result = join(result, self.call(option, arguments, keywords, node))
            return result or Value()
        return self.unknown_call(function, arguments, keywords, node)

    def unknown_call(self, function: Value, arguments: list[Value], keywords: dict[str, Value], node: ast.AST) -> Value:
        """A call of something that is not known: the result carries the roles of all that goes in."""
        values = [*arguments, *keywords.values()]
        self.metric(node, values)
        roles = function.roles
        for value in values:
            roles |= deep_roles(value, 1)
        roles = through_call(roles)
        if any(r.startswith("param:") for r in function.roles) and ("val" in roles or "train" in roles):
            roles = self.passed(roles)
            if self.trace.leaves:
                self.note_leaf(values, projected=True)
        return Value(roles=roles, settings=settings_of(values))

    def enter(
        self,
        function: Function,
        arguments: list[Value],
        keywords: dict[str, Value],
        node: ast.AST,
        *,
        force: bool = False,
    ) -> Value:
        """Follow a call into a function of the submission."""
        values = [*arguments, *keywords.values()]
        definition = function.node
        receiver = function.receiver
        index = self.index_of(function)
        computed = "property" in function.roles  # a switch is often one: ``enabled`` of an adapter
        if not (force or computed) and isinstance(receiver, Object) and receiver.is_module and function.owner:
            name = getattr(definition, "name", "")
            if name != "__init__" and not index.trains(definition):
                return self.network(function, arguments, keywords, node)
        self.note_call(function, node)
        if isinstance(definition, ast.Lambda) or computed:
            interesting = True
        else:
            interesting = force or index.interesting(definition) or (self.passes > 0 and index.mixes(definition))
            if not interesting and (index.counts(definition) or index.reorders(definition)):
                interesting = any("val" in deep_roles(v, 1) for v in (*values, *([receiver] if receiver else [])))
        outer = self.frames[-1] if self.frames else None
        recursive = sum(1 for f in self.frames if f.definition is definition)
        if not interesting or recursive > 0 or len(self.frames) >= MAX_DEPTH:
            self.metric(node, values)
            roles = EMPTY
            for value in values:
                roles |= deep_roles(value, 1)
            if isinstance(receiver, Object):
                roles |= deep_roles(receiver, 2)
            closure = index.free_roles(definition, function.scope)
            return Value(roles=through_call(roles | closure), settings=settings_of(values))
        self.metric(node, values)
        scope = self.new_scope(function.scope, self.next_serial())
        self.bind_arguments(function, arguments, keywords, scope)
        frame = CallFrame(
            scope.call, function.qualname, function.program, definition, node, self.program if outer else None
        )
        self.trace.entered[frame.id] = (outer.id if outer else 0, id(definition), id(node))
        self.frames.append(frame)
        stack = self.stack
        self.stack = (*stack, scope.call)
        saved = (self.program, self.index)
        self.program, self.index = function.program, index
        self.returns.append([])
        outside, self.outside = self.outside, len(self.guards)
        quiet = 1 if "no_grad" in function.roles else 0
        self.no_grad += quiet
        try:
            if isinstance(definition, ast.Lambda):
                return self.eval(definition.body, scope)
            self.block(definition.body, scope)
            made = self.returns[-1]
            result: Value | None = None
            for value in made:
                result = join(result, value)
            if "yield" in scope.names:
                result = join(result, scope.names["yield"])
            if self.observed:
                result = _with_statistics(result, values)
            return result if result is not None else Const(value=None)
        finally:
            self.no_grad -= quiet
            self.returns.pop()
            self.frames.pop()
            self.outside = outside
            self.stack = stack
            self.program, self.index = saved

    def bind_arguments(
        self, function: Function, arguments: list[Value], keywords: dict[str, Value], scope: Scope
    ) -> None:
        """Set a function's parameters in its ``scope``."""
        spec = function.node.args
        names = [a.arg for a in (*spec.posonlyargs, *spec.args)]
        given = list(arguments)
        if function.receiver is not None and not isinstance(function.node, ast.Lambda):
            given.insert(0, function.receiver)
        defaults: dict[str, ast.expr] = dict(zip(names[len(names) - len(spec.defaults) :], spec.defaults, strict=False))
        for argument, default in zip(spec.kwonlyargs, spec.kw_defaults, strict=True):
            names.append(argument.arg)
            if default is not None:
                defaults[argument.arg] = default
        positional = len(spec.posonlyargs) + len(spec.args)
        rest = keywords.get("**")
        for i, name in enumerate(names):
            if i < len(given) and i < positional:
                scope.names[name] = given[i]
            elif name in keywords:
                scope.names[name] = keywords[name]
            elif name in defaults:
                scope.names[name] = self.eval(defaults[name], function.scope)
            else:
                scope.names[name] = self.part(rest) if rest is not None else Value()
        if spec.vararg is not None:
            extra = given[positional:]
            scope.names[spec.vararg.arg] = Seq(items=extra, roles=roles_of(extra))
        if spec.kwarg is not None:
            extra_keywords = {k: v for k, v in keywords.items() if k not in names}
            scope.names[spec.kwarg.arg] = Mapping(items=extra_keywords, roles=roles_of(extra_keywords.values()))

    def instantiate(self, cls: Class, arguments: list[Value], keywords: dict[str, Value], node: ast.AST) -> Value:
        """An object of a class of the submission, with its ``__init__`` followed."""
        made = Object(kind=cls, born=self.frames[-1].id if self.frames else 0)
        if self.loops:
            self.trace.made_in[made.serial] = tuple(loop.id for loop in self.loops)
        self.touch(made)
        values = [*arguments, *keywords.values()]
        if cls.is_optimizer:
            made.roles = roles_of(values)
            for value in values:
                made.roles |= deep_roles(value, 2)
            return made
        init = cls.lookup("__init__")
        if isinstance(init, Function):
            bound = copy_function(init)
            bound.receiver = made
            self.enter(bound, arguments, keywords, node, force=True)
        else:
            fields = [
                s.target.id for s in cls.node.body if isinstance(s, ast.AnnAssign) and isinstance(s.target, ast.Name)
            ]
            for name, value in zip(fields, arguments, strict=False):
                made.attributes[name] = self.logged(name, value)
            for name, value in keywords.items():
                if name != "**":
                    made.attributes[name] = self.logged(name, value)
            self.fill_fields(cls, made, node)
        return made

    def fill_fields(self, cls: Class, made: Object, node: ast.AST) -> None:
        """What a dataclass does when it is made: defaults given by ``field(...)``, then ``__post_init__``."""
        for name, value in list(cls.attributes.items()):
            if not isinstance(value, Object) or not isinstance(value.kind, External):
                continue
            if value.kind.name != "dataclasses.field" or name in made.attributes:
                continue
            default = value.attributes.get("default")
            factory = value.attributes.get("default_factory")
            if default is None and factory is not None:
                default = self.call(factory, [], {}, node)
            if default is not None:
                made.attributes[name] = self.logged(name, default)
        after = cls.lookup("__post_init__")
        if isinstance(after, Function):
            bound = copy_function(after)
            bound.receiver = made
            self.enter(bound, [], {}, node, force=True)


def _with_statistics(result: Value | None, given: Iterable[Value]) -> Value | None:
    """What a function makes of gathered statistics depends on them, also where its loops carry them round."""
    gathered = frozenset(r for v in given for r in v.roles if r.startswith("stat:"))
    if not gathered or result is None:
        return result
    if type(result) is Value:
        return Value(
            roles=result.roles | gathered,
            settings=result.settings,
            text=result.text,
            born=result.born,
            sample=result.sample,
        )
    for option in options_of(result):
        if isinstance(option, (Seq, Mapping)):
            option.roles |= gathered
            held = option.items.values() if isinstance(option, Mapping) else option.items
            for item in (*held, option.rest) if isinstance(option, Mapping) else held:
                if isinstance(item, (Seq, Mapping)) or type(item) is Value:
                    item.roles |= gathered
    return result
