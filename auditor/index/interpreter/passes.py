"""Forward passes: what a network is given and yields, and what happens inside where a rule has to see it.

A pass is entered only when its code may mix positions. Inside, attention, shifts along the sequence (``prev``,
``next``), smears and their masks at document boundaries become events.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from auditor.index.interpreter.leaves import Leaves
from auditor.index.interpreter.roles import copy_function, rolled, through_call
from auditor.index.program_index import ATTENTIONS
from auditor.index.trace import Kind
from auditor.index.values import (
    EMPTY,
    Class,
    Const,
    Function,
    Mapping,
    Object,
    Seq,
    Value,
    deep_roles,
    join,
    roles_of,
    settings_of,
)

# What a network kept from other passes (caches, buffers) says nothing about the data of this one.
OF_THE_PASS = frozenset({"prev", "next", "boundary", "tokens", "val", "train", "foreign", "whole", "random"})
PASS_ROLES = frozenset({"boundary", "maybe-none"})


class Passes(Leaves):
    """Applies networks."""

    def apply(self, target: Object, arguments: list[Value], keywords: dict[str, Value], node: ast.AST) -> Value:
        """Calling an object: a network's forward pass, or ``__call__``."""
        self.touch(target)
        values = [*arguments, *keywords.values()]
        if self.trace.leaves:
            self.note_leaf(values, projected=True)
        if isinstance(target.kind, Class):
            name = "forward" if target.is_module else "__call__"
            method = target.kind.lookup(name)
            if isinstance(method, Function):
                bound = copy_function(method)
                bound.receiver = target
                if not target.is_module:
                    return self.enter(bound, arguments, keywords, node)
                return self.network(bound, arguments, keywords, node)
        self.observe(target, roles_of(values), node)
        roles = through_call(roles_of(values) | {f"param:{target.serial}"}) - {"prev"}
        if target.is_module or target.kind.name.startswith("torch."):
            roles = self.passed(roles)
        return Value(roles=roles)

    def network(self, function: Function, arguments: list[Value], keywords: dict[str, Value], node: ast.AST) -> Value:
        """A forward pass: not entered (unless it trains), but noted with what it is given."""
        self.note_call(function, node)
        receiver = function.receiver
        values = [*arguments, *keywords.values()]
        roles = roles_of(values)
        if self.trace.leaves:
            self.note_leaf(values, projected=True)
        if isinstance(receiver, Object):
            self.touch(receiver)
            roles |= {f"param:{receiver.serial}"}
            self.observe(receiver, roles_of(values), node)
        names = _parameter_names(function)
        given = {**dict(zip(names, arguments, strict=False)), **keywords}
        self.emit(
            Kind.MODEL_CALL,
            node,
            roles=roles,
            text=function.qualname,
            value=Mapping(items=given),
            detail=",".join(sorted(given)),
        )
        index = self.index_of(function)
        if self.loops and isinstance(receiver, Object) and index.resets(function.node) and not roles & {"val", "train"}:
            self.reset_event(node, Value(roles=frozenset({f"param:{receiver.serial}", "iter"})))
        if index.trains(function.node):
            entered = self.enter(function, arguments, keywords, node, force=True)
            roles |= entered.roles
        elif self.follow_passes and index.mixes(function.node):
            roles |= self.follow(function, arguments, keywords, node, given) - OF_THE_PASS
        # A pass that is given two token tensors gets the targets too: what it yields is a loss on them.
        realised = sum(1 for v in values if "val" in v.roles and not isinstance(v, Object)) > 1
        made = self.passed(through_call(roles)) | ({"realised"} if realised else EMPTY)
        return Value(roles=made, settings=settings_of(values))

    def passed(self, roles: frozenset[str]) -> frozenset[str]:
        """The roles of what a forward pass yields now: those of what it was given, and when it ran."""
        return frozenset(r for r in roles if not r.startswith(("pass:", "counted:"))) | {"nn", f"pass:{self.steps}"}

    def hook(self, holder: Value, arguments: list[Value]) -> Value:
        """Register a forward hook on a network or a part of it; the result is its handle."""
        serial = self.next_serial()
        if arguments:
            self.hooks[serial] = (arguments[0], frozenset(r for r in deep_roles(holder, 1) if r.startswith("param:")))
        return Value(roles=frozenset({f"hook:{serial}"}))

    def unhook(self, roles: frozenset[str]) -> None:
        """Remove the hooks whose handles these are."""
        for role in roles:
            if role.startswith("hook:"):
                self.hooks.pop(int(role[5:]), None)

    def replace_forward(self, holder: Value, value: Value) -> None:
        """A function put in the place of a network's ``forward`` sees what a hook would; the original ends that."""
        owners = frozenset(r for r in deep_roles(holder, 1) if r.startswith("param:"))
        if isinstance(holder, Object):
            owners |= {f"param:{holder.serial}"}
        if not owners:
            return
        if isinstance(value, Function) and value.receiver is None:
            made = copy_function(value)
            made.roles |= {"replaced"}
            self.hooks[self.next_serial()] = (made, owners)
        else:
            self.hooks = {s: h for s, h in self.hooks.items() if "replaced" not in h[0].roles or h[1] != owners}

    def observe(self, network: Object, roles: frozenset[str], node: ast.AST) -> None:
        """A network is applied: its forward hooks see activations that come from the arguments."""
        if not self.hooks or self.passes:
            return
        given = frozenset(r for r in roles if not r.startswith(("param:", "hook:")))
        live = [(s, f) for s, (f, owners) in self.hooks.items() if not owners or self.belongs(owners, network)]
        if not live or (id(node), given) in self.observed:
            return
        self.observed.add((id(node), given))
        event = self.emit(Kind.OBSERVE, node, roles=given)
        seen = given | {"nn", f"stat:{event.seq}"}
        for _, function in live[:4]:
            if isinstance(function, Function):
                inputs: list[Value] = [Value(), Seq(items=[Value(roles=seen)], roles=seen), Value(roles=seen)]
                if "replaced" in function.roles:
                    inputs = [Value(roles=seen) for _ in function.node.args.args]
                self.passes += 1  # what hooks keep is no score
                try:
                    self.enter(function, inputs, {}, node, force=True)
                finally:
                    self.passes -= 1

    def belongs(self, owners: frozenset[str], network: Object) -> bool:
        """Whether parameters with these roles are those of the network or of a part of it."""
        for role in owners:
            serial: int | None = int(role[6:].split("~")[0])
            for _ in range(20):
                if serial == network.serial:
                    return True
                serial = self.trace.parents.get(serial) if serial is not None else None
        return False

    def follow(
        self,
        function: Function,
        arguments: list[Value],
        keywords: dict[str, Value],
        node: ast.AST,
        given: dict[str, Value],
    ) -> frozenset[str]:
        """Enter a forward pass. A pass like one that was followed before repeats its events, without the walk."""
        if self.passes:
            # Layers are applied in several places of one pass; alike ones do the same each time.
            part = (id(function.node), _serial(function.receiver), *_alike(arguments), *_alike(keywords.values()))
            if part not in self.parts:
                self.parts[part] = self.enter(function, arguments, keywords, node, force=True).roles
            return self.parts[part]
        # The arguments of a whole forward pass are tokens, whatever else is known of them.
        for value in given.values():
            if type(value) is Value and "nn" not in value.roles:
                value.roles |= {"tokens"}
        owner = function.owner.node if function.owner is not None else None
        key = (
            id(function.node),
            id(owner),
            tuple(
                (
                    name,
                    "none" if isinstance(v, Const) and v.value is None else tuple(sorted(v.roles & PASS_ROLES)),
                )
                for name, v in sorted(given.items())
            ),
        )
        depth = len(self.frames), len(self.guards)
        if key in self.followed:
            self.forward_pass = self.next_serial()
            for kind, event, frames, guards in self.followed[key]:
                copy = self.emit(kind, event.node, roles=event.roles, text=event.text, detail=event.detail)
                copy.program = event.program
                copy.frames = (*self.frames, *frames)
                copy.guards = (*self.guards, *guards)
            self.forward_pass = 0
            looked = any(kind is Kind.LOOKAHEAD and e.detail == "shift" for kind, e, _, _ in self.followed[key])
            return frozenset({"ahead"}) if looked else EMPTY
        before = len(self.trace.events)
        self.passes += 1
        self.parts = {}
        self.forward_pass = self.next_serial()
        try:
            roles = self.enter(function, arguments, keywords, node, force=True).roles
        finally:
            self.passes -= 1
            self.forward_pass = 0
        self.followed[key] = [
            (e.kind, e, e.frames[depth[0] :], e.guards[depth[1] :])
            for e in self.trace.events[before:]
            if e.kind in (Kind.SMEAR, Kind.ATTENTION, Kind.LOOKAHEAD)
        ]
        return roles

    def in_forward(self, name: str, arguments: list[Value], keywords: dict[str, Value], node: ast.AST) -> Value | None:
        """Attention, shifts and masks inside a forward pass; None for everything else."""
        leaf = name.rsplit(".", 1)[-1]
        values = [*arguments, *keywords.values()]
        roles = roles_of(values)
        if "attn" in leaf or "attention" in leaf:
            separate = "none"
            if "varlen" in leaf or "cu_seqlens" in " ".join(keywords):
                packed = [v for k, v in keywords.items() if "cu_seqlens" in k] or arguments[3:5]
                given = [v for v in packed if not (isinstance(v, Const) and v.value is None)]
                separate = "documents" if given else "none"
            elif "boundary" in roles - (arguments[0].roles if arguments else EMPTY):
                separate = "documents"
            self.emit(Kind.ATTENTION, node, roles=roles, text=name, detail=separate)
            if leaf in ATTENTIONS and _is_open(arguments, keywords):
                self.emit(Kind.LOOKAHEAD, node, roles=roles, text=name, detail="attention")
            return Value(roles=through_call(roles) | {"nn"})
        if leaf == "roll" and arguments and "nn" in arguments[0].roles:
            moved = arguments[1] if len(arguments) > 1 else keywords.get("shifts")
            dims = arguments[2] if len(arguments) > 2 else keywords.get("dims")
            return Value(roles=through_call(roles) | rolled(moved, dims))
        if leaf == "pad" and arguments and "nn" in arguments[0].roles:
            amounts = arguments[1] if len(arguments) > 1 else keywords.get("pad")
            if isinstance(amounts, Seq):
                known = [i.value for i in amounts.items if isinstance(i, Const)]
                if -1 in known and 1 in known:
                    return Value(roles=through_call(roles) | {"prev"})
        if leaf == "lerp" and len(arguments) > 1 and "prev" in arguments[1].roles:
            return Value(
                roles=self.smear(
                    node,
                    join(arguments[1], arguments[2] if len(arguments) > 2 else None),
                    arguments[0],
                    roles,
                )
            )
        if leaf == "addcmul" and any("prev" in v.roles for v in arguments[1:]):
            return Value(roles=self.smear(node, Value(roles=roles_of(arguments[1:])), arguments[0], roles))
        if leaf == "where" and arguments and "boundary" in arguments[0].roles:
            self.mask_smears(arguments[0], Value(roles=roles_of(arguments[1:])), node)
            return None
        return None

    def mix(
        self, op: type[ast.operator], left: Value, right: Value, roles: frozenset[str], node: ast.AST
    ) -> frozenset[str]:
        """Adding the previous position's state to the current one is a smear; masking may come before or after."""
        if op is ast.Add:
            for shifted, current in ((left, right), (right, left)):
                if "next" in shifted.roles and not {"next", "prev"} & current.roles and "nn" in current.roles:
                    self.emit(Kind.LOOKAHEAD, node, roles=roles, detail="shift")
                    return (roles - {"next"}) | {"ahead"}
        if op in (ast.Add, ast.Sub):
            for shifted, current in ((left, right), (right, left)):
                if "prev" in shifted.roles and "prev" not in current.roles and "nn" in current.roles:
                    return self.smear(node, shifted, current, roles)
        elif op is ast.Mult and "boundary" in roles:
            self.mask_smears(left, right, node)
        return roles

    def smear(self, node: ast.AST, shifted: Value, current: Value, roles: frozenset[str]) -> frozenset[str]:
        """Record that the previous position's state is mixed in; the roles of the mixture."""
        masked = "boundary" in shifted.roles
        event = self.emit(Kind.SMEAR, node, roles=roles, detail="masked" if masked else "")
        if masked and "boundary" in current.roles:
            event.detail = "mask unclear"
        return (roles - {"prev", "boundary"}) | {f"smear:{event.seq}"}

    def mask_smears(self, condition: Value, target: Value, node: ast.AST) -> None:
        """A mixed state is selected or multiplied by a document boundary afterwards."""
        for mask, value in ((condition, target), (target, condition)):
            if "boundary" not in mask.roles:
                continue
            seqs = {int(r[6:]) for r in value.roles if r.startswith("smear:")}
            for event in self.trace.events if seqs else ():
                if event.seq in seqs and not event.detail:
                    event.detail = "masked afterwards"


def _parameter_names(function: Function) -> list[str]:
    spec = function.node.args
    names = [a.arg for a in (*spec.posonlyargs, *spec.args)]
    return names[1:] if function.receiver is not None else names


def _is_open(arguments: list[Value], keywords: dict[str, Value]) -> bool:
    """Whether nothing in the arguments of an attention call masks: no mask, and not causal."""
    given: dict[str, Value] = {**dict(zip(("q", "k", "v", "mask"), arguments[:4], strict=False)), **keywords}
    masks = ("mask", "attn_mask", "attn_bias", "block_mask", "score_mod", "window_size", "**")
    if any(not (isinstance(mask := given[m], Const) and mask.value is None) for m in masks if m in given):
        return False
    causal = given.get("is_causal", given.get("causal"))
    return causal is None or (isinstance(causal, Const) and causal.value in (False, None, 0))


def _serial(value: Value | None) -> int:
    return value.serial if isinstance(value, Object) else id(value)


@lru_cache(maxsize=4096)
def _without_owner(roles: frozenset[str]) -> frozenset[str]:
    return frozenset(r for r in roles if ":" not in r)


def _alike(values: Iterable[Value]) -> list[Any]:
    """What a part of a network can tell its arguments apart by."""
    return [
        (v.value if isinstance(v.value, (int, str, type(None))) else str(v.value))
        if isinstance(v, Const)
        else _without_owner(v.roles)
        if type(v) is Value
        else id(v)
        for v in values
    ]
