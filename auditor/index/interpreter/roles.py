"""What operations make of values and their roles (:mod:`auditor.index.values`): functions without state."""

from __future__ import annotations

import ast
from dataclasses import replace
from functools import lru_cache
from typing import Any

from auditor.index.values import EMPTY, Const, Function, Seq, Value

# What counts become here are places in an order (where documents or groups begin), not frequencies.
PLACING = frozenset({"cumsum", "argsort", "searchsorted", "nonzero"})
TYPICAL_VAL_TOKENS = 40_540_161.0
"""How many validation tokens there typically are; only the order of magnitude matters."""


def leaves_of(roles: frozenset[str]) -> frozenset[int]:
    """The numbers of the leaves that a value with these roles depends on."""
    return frozenset(int(r[5:]) for r in roles if r.startswith("leaf:"))


def is_owned(roles: frozenset[str]) -> bool:
    """Whether these are the roles of a network's own parameter."""
    return "nn" not in roles and any(r.startswith("param:") for r in roles)


def complement(roles: frozenset[str]) -> frozenset[str]:
    """The roles of a mask's complement."""
    if not any(r.startswith(("span:", "out:")) for r in roles):
        return roles
    return frozenset(
        f"out:{r[5:]}" if r.startswith("span:") else f"span:{r[4:]}" if r.startswith("out:") else r for r in roles
    )


@lru_cache(maxsize=4096)
def roles_of_places(roles: frozenset[str], name: str) -> frozenset[str]:
    """The roles of places: neither counted tokens nor, unlike a running sum, losses (``argsort(losses)``)."""
    if "realised" in roles and name != "cumsum":
        roles -= {"realised", "nn"}
    return frozenset(r for r in roles if not r.startswith("counted:"))


def through_call(roles: frozenset[str]) -> frozenset[str]:
    """Roles that survive a call that is not entered: data does, positions in a loop do not."""
    return frozenset(r for r in roles if r != "iter" and not r.startswith("optstate:"))


def places_of(roles: frozenset[str], kinds: tuple[str, ...] = ("at:",)) -> frozenset[str]:
    """The loops whose round a value with these roles depends on."""
    return frozenset(r for r in roles if r.startswith(kinds)) if roles else EMPTY


def changing(value: Value, places: frozenset[str]) -> Value:
    """``value``, marked as being another one in every round of these loops. What is kept in place stays itself."""
    if value.roles & {"nn", "grad"} or any(r.startswith(("param:", "score:", "state:")) for r in value.roles):
        return value
    if isinstance(value, Seq):
        items = [changing(item, places) for item in value.items]
        return Seq(items=items, roles=value.roles | places, settings=value.settings, born=value.born)
    if type(value) is Value:
        return replace(value, roles=value.roles | places)
    return value


def rolled(amount: Value | None, dims: Value | None) -> frozenset[str]:
    """The role of values that ``roll`` moved along the sequence: to later positions (``prev``) or earlier ones."""
    if isinstance(amount, Const) and isinstance(amount.value, int) and amount.value < 0:
        along = isinstance(dims, Const) and dims.value in (1, -2)
        return frozenset({"next"}) if along else EMPTY
    return frozenset({"prev"})


def length_of(value: Value) -> Value:
    """The length of ``value``: of validation data it keeps only that it is such a length."""
    roles = frozenset(r for r in value.roles if r.startswith(("cut:", "per:", "at:")))
    if value.roles & {"whole", "val.len"}:
        roles |= {"val.len"}
    if "iter" in value.roles:
        roles |= {"iter"}
    whole = "whole" in value.roles and value.sample is None
    return Value(roles=roles, settings=value.settings, sample=TYPICAL_VAL_TOKENS if whole else None)


def text_of(value: Value) -> str | None:
    """The string that ``value`` is, with HOLE for what is not known of it; None where it is none."""
    if isinstance(value, Const):
        return value.value if isinstance(value.value, str) else None
    return value.text


def is_true(value: Value) -> bool:
    """Whether ``value`` is known to be True."""
    return isinstance(value, Const) and value.value is True


def is_small(value: Any) -> bool:
    """Whether a constant can be printed and compared without surprise."""
    return isinstance(value, str) or (isinstance(value, (int, float)) and abs(value) < 10**18)


def base_name(node: ast.AST) -> str:
    """The name of the variable or attribute that an expression takes items of."""
    while isinstance(node, ast.Subscript):
        node = node.value
    return ast.unparse(node)


@lru_cache(maxsize=4096)
def canonical(name: str) -> str:
    """One spelling for the modules that go by several names."""
    for short, full in (("np.", "numpy."), ("torch.nn.Parameter", "torch.nn.parameter.Parameter")):
        if name.startswith(short):
            return full + name[len(short) :]
    if name == "nn" or name.startswith("nn."):
        return "torch." + name
    return name


def copy_function(function: Function) -> Function:
    """The same function, to be bound to an object or to arguments."""
    return Function(
        roles=function.roles,
        node=function.node,
        scope=function.scope,
        program=function.program,
        qualname=function.qualname,
        receiver=function.receiver,
        owner=function.owner,
        bound=function.bound,
        bound_keywords=function.bound_keywords,
    )
