"""Abstract values: what is known about a value without running anything.

A value carries three things the rules ask for:

* what it is, as far as that can be told (a constant, a function, an object, a sequence, or unknown);
* its *roles*: where its content came from. Roles are plain strings and travel with the data through
  every operation (``val``/``train``: tokens of that split,
  ``both``: of a pattern that matches either; ``foreign``: of a public data set, opened by name in event ``data:N``;
  ``nn``: came out of a network; ``grad``: a
  gradient; ``param:N``/``state:N@T``: parameters / a saved state of object N; ``score:N``: the loss of
  score event N; ``cut:N``: went through selection N; ``val.len``: a length of the validation tokens;
  ``stat:N``: gathered by a forward hook in event N; ``hook:N``: the handle of a forward hook;
  ``replaced``: a function put in the place of a ``forward``; ``file``: read from a file that is no shard,
  ``stored``: cut from it at a place worked out at run time, ``match:N``: equal to validation tokens in event N;
  ``boundary``: tokens compared with a value; ``prev``: moved by one position, ``next``: to the one
  before, ``ahead``: computed with such; ``unset``: an unknown
  setting; ``at:L``: another value in every round of loop L; ``round:L:Eq:0``: true in that round of loop
  L; ``piece:N``: cut N of the validation tokens, made at a place worked out at run time; ``from:0``: a counter
  that starts at 0; ``pass:T``: came out
  of the forward pass at time T; ``realised``: a loss or probability of the tokens that did come; ``pick:N``: chosen
  by comparing two of these in event N; ``counted:N``: from a table into which event N counted validation
  tokens; ``minus:N``: score N was taken out of this sum; ``superseded``: and another one put in its place;
  ``leaf:N``: a tensor optimised by itself, outside of any network;
  ``bytemix:N``: computed from byte mixture N; ``span:N`` / ``out:N``: restricted to span N of positions, or to
  all others; ``positions``: numbers of positions; ``alone``: a batch of one; ``order:N``: in the order
  that event N made);
* the *settings* (environment variables, command line flags) its value depends on.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from auditor.index.interpreter.state import Scope
    from auditor.unpack import Program

EMPTY: frozenset[str] = frozenset()
HOLE = "\x00"
"""Stands for an unknown part of a partially known string."""

_serial = itertools.count(1)


@dataclass(eq=False, slots=True)
class Value:
    """An unknown value with roles. Mutable on purpose: in-place operations add roles, and aliases share them.

    ``text`` is set for strings of which some pieces are known; HOLE marks the others. ``born`` is the id of the
    call in which the value was created, which for an accumulator is the evaluation it belongs to. ``sample`` is what
    a number typically is in the middle of the run (for a collection of numbers: one of its items), so that bounds
    which move with a loop can be compared; it never decides a branch.
    """

    roles: frozenset[str] = EMPTY
    settings: frozenset[str] = EMPTY
    text: str | None = None
    born: int = 0
    sample: float | None = None
    of: Value | None = None
    """The container that this is an item of, where that is known."""


@dataclass(eq=False, slots=True)
class Const(Value):
    """A value that is known: str, bytes, int, float, bool or None."""

    value: Any = None


@dataclass(eq=False, slots=True)
class Seq(Value):
    """A list, tuple or set whose items are known one by one (bounded)."""

    items: list[Value] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Mapping(Value):
    """A dict; ``items`` holds the entries with constant string keys, ``rest`` joins all others."""

    items: dict[str, Value] = field(default_factory=dict)
    rest: Value | None = None


@dataclass(eq=False, slots=True)
class External(Value):
    """A name from outside the submission, by its dotted path, such as ``torch.optim.AdamW``."""

    name: str = ""


@dataclass(eq=False, slots=True)
class Function(Value):
    """A function or lambda of the submission, with the scope it closes over and, for methods, its object."""

    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda = field(default=None)  # type: ignore[assignment]
    scope: Scope = field(default=None)  # type: ignore[assignment]
    program: Program = field(default=None)  # type: ignore[assignment]
    qualname: str = ""
    receiver: Value | None = None
    owner: Class | None = None
    bound: tuple[Value, ...] = ()
    bound_keywords: dict[str, Value] = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class Class(Value):
    """A class of the submission. ``module`` tells whether it is a torch.nn.Module."""

    node: ast.ClassDef = field(default=None)  # type: ignore[assignment]
    scope: Scope = field(default=None)  # type: ignore[assignment]
    program: Program = field(default=None)  # type: ignore[assignment]
    bases: tuple[Value, ...] = ()
    attributes: dict[str, Value] = field(default_factory=dict)
    _external: frozenset[str] | None = None

    @property
    def name(self) -> str:
        return self.node.name

    def external_bases(self) -> frozenset[str]:
        """Dotted names of all bases outside the submission, through user classes."""
        if self._external is None:
            found: frozenset[str] = EMPTY
            for base in self.bases:
                if isinstance(base, External):
                    found |= {base.name}
                elif isinstance(base, Class) and base is not self:
                    found |= base.external_bases()
            self._external = found
        return self._external

    @property
    def is_module(self) -> bool:
        return any(b.endswith("nn.Module") or b.startswith("torch.nn.") for b in self.external_bases())

    @property
    def is_optimizer(self) -> bool:
        return any("optim" in b.lower() for b in self.external_bases())

    def lookup(self, name: str) -> Value | None:
        """The class attribute ``name``, through bases."""
        if name in self.attributes:
            return self.attributes[name]
        for base in self.bases:
            if isinstance(base, Class) and base is not self and (found := base.lookup(name)) is not None:
                return found
        return None


@dataclass(eq=False, slots=True)
class Object(Value):
    """An instance: of a class of the submission, or of an external one (``kind`` is then an External)."""

    kind: Class | External = field(default=None)  # type: ignore[assignment]
    attributes: dict[str, Value] = field(default_factory=dict)
    serial: int = field(default_factory=lambda: next(_serial))

    @property
    def is_module(self) -> bool:
        if isinstance(self.kind, Class):
            return self.kind.is_module
        return self.kind.name.startswith("torch.nn.") and not self.kind.name.startswith("torch.nn.functional")

    @property
    def is_optimizer(self) -> bool:
        if isinstance(self.kind, Class):
            return self.kind.is_optimizer
        name = self.kind.name
        return ".optim." in f".{name}" and "lr_scheduler" not in name and "swa_utils" not in name


@dataclass(eq=False, slots=True)
class Choice(Value):
    """One of several values, where a branch could not be decided."""

    options: list[Value] = field(default_factory=list)


MAX_OPTIONS = 6


def roles_of(values: Iterable[Value | None]) -> frozenset[str]:
    """The union of the roles of ``values``."""
    found: frozenset[str] = EMPTY
    for value in values:
        if value is not None and value.roles and not value.roles <= found:
            found |= value.roles
    return found


def settings_of(values: Iterable[Value | None]) -> frozenset[str]:
    """The union of the settings of ``values``."""
    found: frozenset[str] = EMPTY
    for value in values:
        if value is not None and value.settings and not value.settings <= found:
            found |= value.settings
    return found


def number_of(value: Value | None) -> float | None:
    """The number that ``value`` is, or typically is; None where nothing tells."""
    if isinstance(value, Const):
        return value.value if isinstance(value.value, (int, float)) else None
    return value.sample if value is not None else None


def deep_roles(value: Value | None, depth: int = 3) -> frozenset[str]:
    """The roles of ``value`` and of what it holds (attributes, items), ``depth`` levels down."""
    if value is None:
        return EMPTY
    found = value.roles
    if depth == 0:
        return found
    held: Iterable[Value] = ()
    if isinstance(value, Object):
        held = value.attributes.values()
    elif isinstance(value, Seq):
        held = value.items
    elif isinstance(value, Mapping):
        held = [*value.items.values(), *([value.rest] if value.rest else [])]
    elif isinstance(value, Choice):
        held = value.options
    elif isinstance(value, Function) and value.receiver is not None:
        held = (value.receiver,)
    for item in list(held):
        found |= deep_roles(item, depth - 1)
    return found


def join(first: Value | None, second: Value | None) -> Value:
    """One value that stands for either. Callables and objects stay apart as a :class:`Choice`."""
    if first is None or first is second:
        return second if second is not None else Value()
    if second is None:
        return first
    if isinstance(first, Const) and isinstance(second, Const):
        same = type(first.value) is type(second.value) and first.value == second.value
        if same:
            return first
    structured = (Function, Class, Object, Choice, External, Seq, Mapping)
    if isinstance(first, structured) or isinstance(second, structured):
        options: list[Value] = []
        for value in (first, second):
            for option in value.options if isinstance(value, Choice) else [value]:
                if not any(option is known for known in options):
                    options.append(option)
        # A known None beside an object is the usual "not built yet": it adds nothing.
        solid = [o for o in options if not (isinstance(o, Const) and o.value is None)]
        options = (solid or options)[:MAX_OPTIONS]
        if len(options) == 1:
            return options[0]
        return Choice(roles=roles_of(options), settings=settings_of(options), options=options)
    roles = first.roles | second.roles
    if any(isinstance(v, Const) and v.value is None for v in (first, second)):
        roles |= {"maybe-none"}
    numbers = [n for n in (number_of(first), number_of(second)) if n is not None]
    return Value(
        roles=roles,
        settings=first.settings | second.settings,
        text=first.text if first.text is not None else second.text,
        born=first.born or second.born,
        sample=numbers[0] if numbers and numbers[0] == numbers[-1] else None,
    )


def options_of(value: Value) -> list[Value]:
    """The alternatives ``value`` stands for."""
    return value.options if isinstance(value, Choice) else [value]
