"""Methods of values that are not objects of the submission: networks, optimisers, containers, tensors, strings.

A tensor is an unknown value: what its method does is decided by the method's name.
"""

from __future__ import annotations

import ast
import re

from auditor.index.interpreter.inputs import Inputs
from auditor.index.interpreter.items import LENGTH_METHODS, Items
from auditor.index.interpreter.roles import (
    PLACING,
    changing,
    copy_function,
    is_owned,
    leaves_of,
    length_of,
    roles_of_places,
    rolled,
    text_of,
    through_call,
)
from auditor.index.interpreter.scores import LARGER, SMALLER
from auditor.index.interpreter.state import MAX_ITEMS, MAX_TEXT, Scope
from auditor.index.program_index import HOOKS
from auditor.index.trace import Kind
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
    roles_of,
    settings_of,
)

SAME_OBJECT = {
    "to", "cuda", "cpu", "bfloat16", "half", "float", "double", "eval", "train", "requires_grad_", "compile",
    "contiguous", "share_memory", "apply", "type",
}  # fmt: skip
HOLDER_METHODS = SAME_OBJECT | {
    "step", "zero_grad", "parameters", "named_parameters", "modules", "named_modules", "buffers", "children",
    "state_dict", "load_state_dict", "add_param_group", "forward", "copy_", "add_argument", "parse_args",
    "parse_known_args", "add_argument_group", "add_mutually_exclusive_group",
} | HOOKS  # fmt: skip
RESETTING = frozenset({"copy_", "zero_", "fill_", "normal_", "uniform_", "set_"})


class Methods(Inputs, Items):
    """Applies methods by their name."""

    def object_method(
        self,
        node: ast.Call,
        holder: Value,
        name: str,
        arguments: list[Value],
        keywords: dict[str, Value],
    ) -> Value | None:
        """Methods whose meaning does not depend on the submission's code; None when it does."""
        results: list[Value] = []
        for option in options_of(holder):
            result = self.one_object_method(node, option, name, arguments, keywords)
            if result is None:
                return None
            results.append(result)
        joined: Value | None = None
        for result in results:
            joined = join(joined, result)
        return joined

    def one_object_method(
        self, node: ast.Call, holder: Value, name: str, arguments: list[Value], keywords: dict[str, Value]
    ) -> Value | None:
        """As :meth:`object_method`, for one of the values that the holder may be."""
        if isinstance(holder, Object):
            if isinstance(holder.kind, External) and holder.kind.name.startswith("argparse."):
                return self.argument_parser(node, holder, name, arguments, keywords)
            self.touch(holder)
            serial = holder.serial
            own = holder.kind.lookup(name) if isinstance(holder.kind, Class) else None
            if holder.is_optimizer:
                if name == "step":
                    for closure in [*arguments[:1], *(v for k, v in keywords.items() if k == "closure")]:
                        self.call(closure, [], {}, node)
                    self.step_event(node, holder, self.pending)
                    return Value()
                if name == "zero_grad":
                    self.pending = EMPTY
                    return Value()
                if own is None and name in ("state_dict", "load_state_dict", "add_param_group"):
                    return Value(roles=frozenset({f"optstate:{serial}"}))
            if holder.is_module and own is None:
                if name in HOOKS:
                    return self.hook(holder, arguments)
                if name in (
                    "parameters",
                    "named_parameters",
                    "modules",
                    "named_modules",
                    "buffers",
                    "children",
                ):
                    return Value(roles=frozenset({f"param:{serial}"}))
                if name == "state_dict":
                    self.trace.captures.append((self.steps, serial))
                    return Value(roles=frozenset({f"state:{serial}@{self.steps}", f"param:{serial}"}))
                if name in ("load_state_dict", "copy_"):
                    self.load(node, holder, arguments)
                    return Value()
                if name == "zero_grad":
                    self.pending = EMPTY
                    return Value()
                if name in SAME_OBJECT:
                    return holder
                if name == "forward":
                    return self.apply(holder, arguments, keywords, node)
            if own is not None and name == "step" and isinstance(own, Function):
                before = len(self.trace.events)
                bound = copy_function(own)
                bound.receiver = holder
                result = self.enter(bound, arguments, keywords, node, force=True)
                stepped = any(e.kind is Kind.STEP for e in self.trace.events[before:])
                owned = deep_roles(holder)
                if not stepped and self.pending and any(r.startswith("param:") for r in owned):
                    self.step_event(node, Value(roles=owned), self.pending)
                return result
            return None
        if isinstance(holder, (Seq, Mapping)):
            return self.container_method(node, holder, name, arguments, keywords)
        return None

    def load(self, node: ast.AST, target: Object, arguments: list[Value]) -> None:
        """Parameters are loaded into a network; a state of its own that comes back whole is a restore."""
        roles = deep_roles(arguments[0], 2) if arguments else EMPTY
        self.emit(Kind.LOAD, node, roles=roles, value=target)
        states = [r for r in roles if r.startswith("state:")]
        if not states:
            return
        own = [int(r.split("@")[1]) for r in states if r.startswith(f"state:{target.serial}@")]
        live = any(r == f"param:{target.serial}~live" for r in roles)
        if own and len(own) == len(states) and len(own) == 1 and not live:
            self.trace.restores.append((self.steps, target.serial, own[0]))

    def container_method(
        self,
        node: ast.AST,
        holder: Seq | Mapping,
        name: str,
        arguments: list[Value],
        keywords: dict[str, Value],
    ) -> Value | None:
        """A method of a list, tuple, set or dict."""
        if isinstance(holder, Seq):
            if name in ("append", "add", "appendleft") and arguments:
                if len(holder.items) < MAX_ITEMS:
                    holder.items.append(arguments[0])
                # A list of numbers is not shorter because one of its numbers is limited.
                holder.roles |= (
                    arguments[0].roles
                    if "val" in arguments[0].roles
                    else frozenset(r for r in arguments[0].roles if not r.startswith("cut:"))
                )
                holder.settings |= arguments[0].settings
                if self.is_score(arguments[0].roles):
                    self.score(node, arguments[0], holder, None)
                return Const(value=None)
            if name in ("extend", "update") and arguments:
                source = arguments[0]
                holder.items.extend((source.items if isinstance(source, Seq) else [self.part(source)])[:MAX_ITEMS])
                holder.roles |= source.roles
                return Const(value=None)
            if name == "copy":
                return Seq(items=list(holder.items), roles=holder.roles, settings=holder.settings)
            if name == "sort":
                if "key" in keywords or "reverse" in keywords:
                    marked = changing(holder, self.reorder(node, holder, "sorted"))
                    if isinstance(marked, Seq):
                        holder.items, holder.roles = marked.items, marked.roles
                return Const(value=None)
            if name == "pop":
                return self.part(holder)
            if name == "insert" and len(arguments) > 1:
                holder.items.insert(0, arguments[1])
                return Const(value=None)
            return Value(roles=holder.roles)
        if name in ("get", "pop", "setdefault") and arguments:
            found = self.item(holder, arguments[0])
            if len(arguments) > 1 and not (isinstance(arguments[0], Const) and str(arguments[0].value) in holder.items):
                found = join(found, arguments[1]) if holder.items or holder.rest else arguments[1]
            return found
        if name == "items":
            joined = holder.rest
            for value in list(holder.items.values()):
                joined = join(joined, value)
            pair = Seq(items=[Value(), joined or Value(roles=holder.roles)])
            return Seq(items=[pair]) if holder.items or holder.rest else Value(roles=holder.roles)
        if name == "values":
            return Seq(items=[*holder.items.values(), *([holder.rest] if holder.rest else [])], roles=holder.roles)
        if name == "keys":
            return Value(roles=EMPTY)
        if name == "update" and arguments:
            if isinstance(arguments[0], Mapping):
                holder.items.update(arguments[0].items)
            holder.roles |= arguments[0].roles
            return Const(value=None)
        return Value(roles=holder.roles)

    def method(
        self,
        node: ast.Call,
        holder: Value,
        name: str,
        arguments: list[Value],
        keywords: dict[str, Value],
        scope: Scope,
    ) -> Value:
        """A method of an unknown value or a constant, decided by its name."""
        values = [*arguments, *keywords.values()]
        if isinstance(holder, Const):
            return self.constant_method(holder, name, arguments, keywords, node)
        if isinstance(holder, (Object, Choice, Seq, Mapping, Class)):
            special = self.object_method(node, holder, name, arguments, keywords)
            if special is not None:
                return special
        given = roles_of(values)
        roles = holder.roles | given
        if name in HOOKS:
            return self.hook(holder, arguments)
        if name == "remove" and self.hooks:
            self.unhook(holder.roles)
        if self.passes:
            if name == "roll" and "nn" in holder.roles:
                moved = arguments[0] if arguments else keywords.get("shifts")
                dims = arguments[1] if len(arguments) > 1 else keywords.get("dims")
                return Value(roles=roles | rolled(moved, dims))
            if name == "lerp" and arguments and "prev" in arguments[0].roles:
                return Value(roles=self.smear(node, Value(roles=given), holder, roles))
            if name in ("masked_fill", "masked_fill_", "where") and "boundary" in given:
                self.mask_smears(Value(roles=given), holder, node)
        if name == "backward":
            self.backward(holder.roles)
            return Value()
        if name == "step":
            if self.pending and not arguments and "schedule" not in ast.unparse(node.func).lower():
                self.step_event(node, holder, self.pending)
            return Value()
        if name == "zero_grad":
            self.pending = EMPTY
            return Value()
        if name in LENGTH_METHODS:
            return length_of(holder)
        if name in ("parameters", "named_parameters", "state_dict", "modules", "named_modules"):
            return Value(roles=holder.roles)
        if name == "load_state_dict":
            self.emit(Kind.LOAD, node, roles=given)
            return Value()
        if name == "requires_grad_":
            given_flag = arguments[0] if arguments else keywords.get("requires_grad")
            off = isinstance(given_flag, Const) and not given_flag.value
            if not off and "val" in holder.roles and (_is_copy(node) or not is_owned(holder.roles)):
                # Computed from tokens, by a network perhaps: a tensor of its own, none of the network's weights.
                own = frozenset(r for r in holder.roles if not r.startswith("param:"))
                holder.roles = own | self.leaf(node, None, holder)
                return holder
            if not off and not is_owned(holder.roles):
                holder.roles |= self.leaf(node, None, holder)
            return holder
        if name == "shuffle" and arguments:
            arguments[0].roles |= self.reorder(node, arguments[0], "shuffled")
            return Const(value=None)
        if name == "permutation" and arguments:
            return Value(roles=given | self.reorder(node, arguments[0], "shuffled"))
        if name == "argsort" or (name == "sort" and keywords):
            marks = self.reorder(node, holder, "sorted")
            holder.roles |= marks if name == "sort" else EMPTY
            return Value(roles=roles_of_places(holder.roles, name) | marks)
        if name.endswith("_") and not name.startswith("_"):
            owned = any(r.startswith(("param:", "leaf:")) for r in holder.roles)
            if name in ("zero_", "fill_"):
                self.trace.resets.extend((self.steps, n, tuple(self.guards)) for n in leaves_of(holder.roles))
            if owned and "grad" in given and name in ("add_", "sub_", "addcdiv_", "copy_", "addcmul_", "lerp_"):
                self.step_event(node, holder, given)
                return holder
            if name in ("scatter_add_", "index_add_", "index_put_", "scatter_reduce_") and len(arguments) > 1:
                at = arguments[1] if name != "index_put_" else arguments[0]
                self.count(node, holder, deep_roles(at, 1), given & {"nn"})
            if owned and name in RESETTING and not given & {"grad", "nn"}:
                self.reset_event(node, holder, given)
            if self.is_score(given) and name in (
                "add_",
                "copy_",
                "index_add_",
                "scatter_add_",
                "index_copy_",
            ):
                self.score(node, Value(roles=given), holder, scope)
            if owned or any(r.startswith("state:") for r in holder.roles):
                # A saved state that is mixed with live parameters is no longer the saved state.
                given = given | frozenset(f"{r}~live" for r in given if r.startswith("param:") and "~" not in r)
            holder.roles |= given
            if (
                isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Subscript)
                and self.is_score(given)
            ):
                # best[i].copy_(loss): the list holds it now
                kept = self.eval(node.func.value.value, scope)
                kept.roles |= holder.roles
            return holder
        if name in ("append", "extend", "put", "appendleft", "add", "update", "write", "index_put_"):
            if self.is_score(given) and name in ("append", "extend", "put"):
                self.score(node, Value(roles=given), holder, scope)
            holder.roles |= given
            if name == "write":
                self.emit(Kind.SERIALIZE, node, roles=given)
            return Value()
        if name in ("submit", "map", "apply_async", "starmap", "run"):
            for value in arguments[:1]:
                if isinstance(value, Function):
                    return self.call(value, arguments[1:], keywords, node)
        if name in (
            "item",
            "tolist",
            "double",
            "float",
            "long",
            "int",
            "to",
            "cuda",
            "cpu",
            "numpy",
            "detach",
        ):
            return Value(
                roles=holder.roles | frozenset(r for r in given if r.startswith("cut:")),
                settings=holder.settings,
                born=holder.born,
                sample=holder.sample,
            )
        if name in (
            "clone",
            "contiguous",
            "view",
            "reshape",
            "flatten",
            "squeeze",
            "unsqueeze",
            "pin_memory",
        ):
            return Value(roles=holder.roles, settings=holder.settings, born=holder.born)
        if name in ("read_text", "read_bytes", "open") and holder.text and holder.text.endswith(".py"):
            return Value(roles=roles | {f"read:{holder.text}"})
        if name in ("read_text", "read_bytes", "open", "glob", "rglob", "iterdir"):
            found = roles | self.path_roles([holder, *values])
            return Value(roles=through_call(self.from_file(found) if name[0] in "ro" else found))
        if name in ("joinpath", "with_name", "resolve", "absolute", "expanduser", "with_suffix") and holder.text:
            known = text_of(arguments[0]) if arguments else None
            return Value(text=f"{holder.text}/{known}" if known else holder.text, roles=roles)
        if name in ("format", "join"):
            return Value(roles=roles, settings=settings_of(values))
        self.metric(node, values)
        if name in PLACING:
            roles = roles_of_places(roles, name)
        made = Value(roles=through_call(roles), settings=holder.settings | settings_of(values), born=holder.born)
        if name == "gather" and "nn" in holder.roles and "val" in given:
            made.roles |= {"realised"}
        if name in SMALLER or name in LARGER:
            along = bool(keywords.keys() & {"dim", "axis"}) or (bool(arguments) and isinstance(arguments[0], Const))
            if not along:
                self.pick(node, name, [holder, *arguments], made)
            elif name in SMALLER and self.is_realised(holder):
                made.roles |= self.picked(node, name, "both")
        return made

    def constant_method(
        self, holder: Const, name: str, arguments: list[Value], keywords: dict[str, Value], node: ast.AST
    ) -> Value:
        """A method of a string that is known, or of another constant."""
        settings = holder.settings | settings_of(arguments)
        text = holder.value
        if isinstance(text, str):
            plain = [a.value for a in arguments if isinstance(a, Const)]
            if name == "format":
                pieces = re.sub(r"\{[^{}]*\}", HOLE, text)
                return Value(text=pieces, roles=roles_of([*arguments, *keywords.values()]), settings=settings)
            if len(plain) == len(arguments) and not keywords and len(text) <= MAX_TEXT:
                try:
                    if name in ("lower", "upper", "strip", "lstrip", "rstrip", "replace", "removeprefix"):
                        return Const(value=getattr(text, name)(*plain), settings=settings)
                    if name in ("startswith", "endswith", "isdigit"):
                        return Const(value=getattr(text, name)(*plain), settings=settings)
                    if name in ("split", "rsplit", "splitlines"):
                        parts = getattr(text, name)(*plain)[:MAX_ITEMS]
                        return Seq(items=[Const(value=p, settings=settings) for p in parts], settings=settings)
                except (TypeError, ValueError):
                    return Value(settings=settings)
            if name == "join":
                return self.joined(arguments, holder)
        return Value(settings=settings, roles=roles_of(arguments))

    def joined(self, arguments: list[Value], separator: Const) -> Value:
        """``separator.join(...)``."""
        source = arguments[0] if arguments else Value()
        if isinstance(source, Seq) and all(isinstance(i, Const) and isinstance(i.value, str) for i in source.items):
            parts = [str(i.value) for i in source.items if isinstance(i, Const)]
            return Const(value=str(separator.value).join(parts)[:MAX_TEXT], settings=source.settings)
        return Value(roles=source.roles, settings=source.settings, text=HOLE)


def _is_copy(call: ast.AST) -> bool:
    """Whether a method is called on ``x.detach().clone()``, in either order."""
    names = set()
    part = call.func if isinstance(call, ast.Call) else call
    while isinstance(part, (ast.Attribute, ast.Call)):
        if isinstance(part, ast.Attribute):
            names.add(part.attr)
        part = part.value if isinstance(part, ast.Attribute) else part.func
    return {"detach", "clone"} <= names
