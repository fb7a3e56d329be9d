"""Where a walk over the submission's code stands, and how it records what happens.

:class:`Walk` holds the state that all parts of the interpreter share: the calls, guards and loops around the
present statement, the trace, the roles that wait for an optimiser step. It also declares the few operations that
earlier parts ask of later ones.
"""

from __future__ import annotations

import ast
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Mapping as Mapping_
from typing import Any, Protocol

from auditor.index.byte_mixtures import ByteMixture
from auditor.index.program_index import ProgramIndex
from auditor.index.trace import Callee, Caller, CallFrame, Event, Guard, Kind, Loop, Trace
from auditor.index.values import EMPTY, Choice, Class, Function, Mapping, Object, Seq, Value, join, options_of

MAX_DEPTH = 30
MAX_STEPS = 250_000
MAX_VISIT = 40_000
MAX_TEXT = 4_000
MAX_ITEMS = 64
STOP, BREAK, NEXT = "return", "break", "continue"
# The state of a walk that a visit to a skipped branch starts from.
RESUMED = ("frames", "guards", "loops", "stack", "program", "index", "no_grad", "tries", "passes", "forward_pass")


class Configuration(Protocol):
    """What the interpreter asks about the run: values that override the code's defaults."""

    def environment(self, name: str) -> str | None:
        """The value of an environment variable as launched; None if nothing says, HOLE if the files disagree."""

    def world_size(self) -> int | None:
        """The number of processes of the run, where its files tell."""

    def flag(self, name: str) -> str | None:
        """The value of a command-line flag (``slot-steps``), likewise; "" for a bare switch."""

    def logged(self, attribute: str) -> str | None:
        """The value that the train logs print for a hyperparameter, or None."""


class Siblings(Protocol):
    """The other modules of the submission, by the name they are imported under."""

    def get(self, name: str, /) -> ProgramIndex | None:
        """The index of the module, or None when it is not part of the submission."""


class Budget(Exception):
    """The trace has become too long."""


class Scope:
    """Names of one module, class body or call. ``call`` is the id of the call that owns it."""

    __slots__ = ("call", "globals", "names", "parent", "shared")

    def __init__(self, parent: Scope | None, call: int) -> None:
        self.names: dict[str, Value] = {}
        self.parent = parent
        self.call = call
        self.shared: dict[str, Scope] = {}

    def find(self, name: str) -> tuple[Value, Scope] | None:
        """The value of a name and the scope that holds it, from here outwards."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.names:
                return scope.names[name], scope
            scope = scope.parent
        return None

    def assign(self, name: str, value: Value) -> None:
        """Set a name here, or where ``global`` or ``nonlocal`` say."""
        (self.shared.get(name) or self if self.shared else self).names[name] = value

    @property
    def module(self) -> Scope:
        """The scope of the module."""
        scope = self
        while scope.parent is not None:
            scope = scope.parent
        return scope


class Walk(ABC):
    """The state of a walk: what surrounds the present statement, and what was found so far.

    ``forced`` and ``shown`` are those of :class:`~auditor.index.interpreter.Interpreter`.
    """

    def __init__(
        self,
        entry: ProgramIndex,
        siblings: Siblings,
        configuration: Configuration | None,
        *,
        forced: Mapping_[int, bool | None] | None = None,
        shown: Callable[[Sequence[ast.stmt]], bool] | None = None,
    ) -> None:
        self.forced = forced or {}
        self.shown = shown or (lambda body: False)
        self.scopes: list[Scope] = []
        self.classes: list[Class] = []
        self.entry = entry
        self.siblings = siblings
        self.configuration = configuration
        self.trace = Trace()
        self.steps = 0
        self.seq = 0
        self.serial = 0
        self.frames: list[CallFrame] = []
        self.stack: tuple[int, ...] = (0,)  # ids of the frames
        self.guards: list[Guard] = []
        self.loops: list[Loop] = []
        self.returns: list[list[Value]] = []
        self.outside = 0  # how many guards stand outside of the function being followed
        self.no_grad = 0
        self.tries = 0
        self.comprehensions = 0  # depth of comprehensions being evaluated
        self.passes = 0  # depth of forward passes being followed
        self.forward_pass = 0  # id of the outermost one
        self.pending: frozenset[str] = EMPTY  # roles of the losses of backward passes not yet stepped
        self.stepped = False
        self.modules: dict[str, Object] = {}
        self.set_by_code: dict[str, Value] = {}
        self.program = entry.program
        self.index = entry
        self.follow_passes = entry.has_shift or entry.has_lookahead
        self.parts: dict[Any, frozenset[str]] = {}  # parts of the present pass → the roles of what they return
        self.watches_leaves = entry.makes_leaves
        self.followed: dict[Any, list[tuple[Kind, Event, tuple[CallFrame, ...], tuple[Guard, ...]]]] = {}
        self.indexes: dict[int, ProgramIndex] = {}
        self.carried_by: dict[int, frozenset[str]] = {}
        self.hooks: dict[int, tuple[Value, frozenset[str]]] = {}  # forward hooks not yet removed, and whose they are
        self.observed: set[tuple[int, frozenset[str]]] = set()
        self.byte_mixtures: dict[int, ByteMixture] = {}

    def new_scope(self, parent: Scope | None, call: int) -> Scope:
        """A scope whose values :meth:`~auditor.index.interpreter.Interpreter.release` lets go of."""
        scope = Scope(parent, call)
        self.scopes.append(scope)
        return scope

    def next_serial(self) -> int:
        """A number that nothing else in this walk has."""
        self.serial += 1
        return self.serial

    def emit(self, kind: Kind, node: ast.AST, **facts: Any) -> Event:
        """Record an event at the present place of the walk."""
        self.seq += 1
        facts.setdefault("frame", self.frames[-1].id if self.frames else 0)
        event = Event(
            kind=kind,
            seq=self.seq,
            node=node,
            program=self.program,
            frames=tuple(self.frames),
            guards=tuple(self.guards),
            loops=tuple(self.loops),
            no_grad=self.no_grad > 0,
            time=self.steps,
            fallible=self.tries > 0,
            forward_pass=self.forward_pass,
            **facts,
        )
        self.trace.events.append(event)
        return event

    def adopt(self, parent: Value, children: Iterable[Value]) -> None:
        """Note that a network is part of another: a change to the part is a change to the whole."""
        if not isinstance(parent, Object):
            return
        for child in children:
            for option in options_of(child):
                if isinstance(option, Object) and option.is_module and option is not parent:
                    self.trace.parents.setdefault(option.serial, parent.serial)
                elif isinstance(option, (Seq, Mapping)):
                    held = option.items.values() if isinstance(option, Mapping) else option.items
                    self.adopt(parent, list(held)[:MAX_ITEMS])

    def touch(self, value: Value) -> None:
        """Note the use of an object: later uses tell whether a change to it survives."""
        if isinstance(value, Object):
            uses = self.trace.touches.get(value.serial)
            if uses is None:
                uses = self.trace.touches[value.serial] = {}
            stack = self.stack
            uses[stack[-1]] = (self.steps, stack)

    def in_own_loop(self) -> bool:
        """Whether the innermost loop is one of the function being followed."""
        return bool(self.loops) and self.loops[-1].frame == self.frames[-1].id

    def undecided(self) -> bool:
        """Whether a condition on the path here is one that the run's files do not decide."""
        return any(g.truth is None for g in self.guards)

    def part(self, value: Value) -> Value:
        """An item of ``value`` whose position is not known."""
        if isinstance(value, Seq):
            item: Value | None = None
            for known in value.items:
                item = join(item, known)
            return item if item is not None else Value(roles=value.roles)
        if isinstance(value, Choice):
            result: Value | None = None
            for option in value.options:
                result = join(result, self.part(option))
            return result or Value()
        return Value(roles=value.roles, settings=value.settings, born=value.born, sample=value.sample)

    @staticmethod
    def is_empty(value: Value) -> bool:
        """Whether a loop over ``value`` has no rounds."""
        if isinstance(value, Seq):
            return not value.items and "len0" in value.roles
        return "empty" in value.roles

    def index_of(self, function: Function) -> ProgramIndex:
        """The index of the file that a function is from."""
        return self.indexes.get(id(function.program), self.entry)

    def note_call(self, function: Function, node: ast.AST) -> None:
        """Record that the call ``node`` leads to ``function``: what reads the code itself resolves calls by this."""
        trace, definition = self.trace, function.node
        trace.called.add(id(definition))
        known = trace.calls.setdefault(id(node), {})
        if id(definition) not in known:
            owner = function.owner.node if function.owner is not None else None
            known[id(definition)] = Callee(definition, function.program, owner)
            outer = self.frames[-1].definition if self.frames else None
            trace.callers.setdefault(id(definition), {})[id(node)] = Caller(node, outer, self.program)

    # -- what earlier parts ask of later ones ------------------------------------------------------------

    @abstractmethod
    def eval(self, node: ast.expr, scope: Scope) -> Value:
        """The abstract value of an expression (:mod:`.expressions`)."""

    @abstractmethod
    def block(self, body: Sequence[ast.stmt], scope: Scope) -> str | None:
        """Visit statements; returns how the block ends for certain (:mod:`.statements`)."""

    @abstractmethod
    def call(self, function: Value, arguments: list[Value], keywords: dict[str, Value], node: ast.AST) -> Value:
        """The result of applying ``function`` (:mod:`.calls`)."""

    @abstractmethod
    def enter(
        self,
        function: Function,
        arguments: list[Value],
        keywords: dict[str, Value],
        node: ast.AST,
        *,
        force: bool = False,
    ) -> Value:
        """Follow a call into a function of the submission (:mod:`.calls`)."""

    @abstractmethod
    def sibling(self, name: str) -> Object | None:
        """The module ``name`` when it is a file of this submission (:mod:`.definitions`)."""
