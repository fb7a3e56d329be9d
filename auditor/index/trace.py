"""The trace: what happens, in order, when the submission's entry point runs under its effective configuration.

Events are recorded by :mod:`auditor.index.interpreter`, which follows the code without running it. Rules read
the events; nothing here knows any rule.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from auditor.index.interpreter.state import Scope
    from auditor.index.values import Value
    from auditor.unpack import Program


class Kind(StrEnum):
    """What an event is."""

    STEP = "step"  # an optimiser (or a hand-written update) changes parameters
    SCORE = "score"  # a loss on validation tokens is added to an accumulator
    METRIC = "metric"  # a text with a loss or bpb is printed or logged
    MESSAGE = "message"  # any other text is printed or logged
    EXTERNAL = "external"  # an external program or library is run or loaded
    DATA = "data"  # a public data set is opened by name, instead of the contest's shards
    NETWORK = "network"  # Python code fetches something from the network
    DELEGATE = "delegate"  # another file that the submission does not hold is run
    SERIALIZE = "serialize"  # a model or bytes are written to a file
    COUNT = "count"  # validation tokens are counted into a table
    PICK = "pick"  # the better of two results on the tokens that did come is taken, or they are compared
    RESET = "reset"  # parameters are overwritten, inside a loop, with what no gradient made
    LOAD = "load"  # parameters are loaded into an object
    ORDER = "order"  # validation documents or windows are sorted or shuffled
    CUT = "cut"  # a part of the validation tokens (or of their windows, documents) is selected
    MODEL_CALL = "model call"  # a network is applied
    MATCH = "match"  # validation tokens are compared, place by place, with the content of a file that is no shard
    OBSERVE = "observe"  # a network is applied while forward hooks gather statistics of its activations
    ATTENTION = "attention"  # attention is computed; ``detail`` says whether documents are kept apart
    BYTE_MIX = "byte mix"  # a token's probability is mixed with a byte model's; ``detail`` is the form of the mixture
    LOOKAHEAD = "lookahead"  # positions may see later ones: ``detail``: attention, shift or state
    SMEAR = "smear"  # the previous position's state is mixed into the current one


@dataclass(frozen=True, slots=True)
class CallFrame:
    """One call on the stack: ``id`` is unique in the trace, ``call`` the place it was made from."""

    id: int
    function: str
    program: Program
    definition: ast.AST | None
    call: ast.AST | None
    caller: Program | None


@dataclass(frozen=True, slots=True)
class Guard:
    """A condition on the path to an event. ``truth`` is None where the run's files do not decide it."""

    node: ast.expr
    program: Program
    truth: bool | None
    settings: frozenset[str]
    negated: bool = False
    roles: frozenset[str] = frozenset()
    """What the condition depends on: rounds of a loop (``round:``), a comparison of two losses (``pick:``)."""
    frame: int = 0
    """The call in which the condition is tested, where both of its branches were followed."""


@dataclass(frozen=True, slots=True)
class Loop:
    """A loop being executed: one serial number each time it is entered.

    ``roles`` say what it runs over: ``const`` a known number of rounds (``rounds:N``), ``unset`` an unknown setting,
    ``val``/``val.len`` the validation tokens or their length, ``cut:N`` a selection of them.
    """

    id: int
    node: ast.AST
    roles: frozenset[str]
    frame: int
    settings: frozenset[str] = frozenset()
    """Settings that decide how many rounds there are."""


@dataclass(slots=True)
class Event:
    """One thing that happens. ``seq`` and ``time`` order the trace; ``frame`` is the call it is credited to."""

    kind: Kind
    seq: int
    node: ast.AST
    program: Program
    frames: tuple[CallFrame, ...]
    guards: tuple[Guard, ...]
    loops: tuple[Loop, ...]
    no_grad: bool
    time: int
    fallible: bool = False
    """Whether an exception here is caught in the function or its callers."""
    forward_pass: int = 0
    """Which whole forward pass this belongs to (0: none)."""
    roles: frozenset[str] = frozenset()
    settings: frozenset[str] = frozenset()
    text: str | None = None
    frame: int = 0
    number: float | None = None
    value: Value | None = None
    detail: str = ""
    ends_round: int = 0
    """The loop whose round ends with the branch that this stands in (``continue``); 0 for none."""

    @property
    def own_frames(self) -> tuple[CallFrame, ...]:
        """The call that the event is credited to, and the calls below it that lead to the event."""
        ids = [f.id for f in self.frames]
        return self.frames[ids.index(self.frame) if self.frame in ids else -1 :]

    @property
    def undecided(self) -> tuple[Guard, ...]:
        """Guards on the path that the run's files do not decide."""
        return tuple(g for g in self.guards if g.truth is None)

    @property
    def switches(self) -> frozenset[str]:
        """The settings that the conditions on the path depend on; whether an exception comes is none."""
        return frozenset(s for g in self.guards for s in g.settings if not s.startswith("<"))

    @property
    def rests_on(self) -> tuple[str, ...]:
        """The settings that decide whether the event happens and with which values, sorted."""
        return tuple(sorted(self.switches | self.settings))


@dataclass(frozen=True, slots=True)
class Resume:
    """Where a walk stood when it left a branch out; for the interpreter only."""

    scope: Scope
    state: tuple[Any, ...]
    forward_pass: int


@dataclass(frozen=True, slots=True)
class Callee:
    """A function that a call leads to, with the class it is a method of."""

    definition: ast.AST
    program: Program
    owner: ast.ClassDef | None


@dataclass(frozen=True, slots=True)
class Caller:
    """A call that leads to a function, with the function it stands in (None: the module itself)."""

    call: ast.AST
    definition: ast.AST | None
    program: Program


@dataclass(slots=True)
class SkippedBranch:
    """A branch that the effective configuration switches off; ``negated``: taken when the condition is false."""

    node: ast.AST
    body: tuple[ast.stmt, ...]
    program: Program
    settings: frozenset[str]
    frames: tuple[CallFrame, ...]
    negated: bool = False
    resume: Resume | None = field(default=None, repr=False)
    repeated: bool = False
    """Whether it stands in a loop of its function: another round may take it."""


@dataclass(slots=True)
class Leaf:
    """A tensor made to be optimised outside of any network: a delta, a bias, an adapter's matrix."""

    number: int
    node: ast.AST
    program: Program
    frames: tuple[CallFrame, ...]
    loops: tuple[Loop, ...]
    time: int
    shape: tuple[float | None, ...] | None = None
    """Its dimensions (None: not known); None where it copies another tensor."""
    origin: frozenset[str] = frozenset()
    """Roles of what it was made from."""
    named: bool = False
    """The first dimension is a batch size worked out at run time."""
    added: bool = False
    """It is added to an activation."""
    projected: bool = False
    """What it was added to is multiplied by a matrix or passed to a network afterwards."""
    passed: bool = False
    """It is handed to a network beside its input."""
    factor: bool = False
    """It is itself a factor of a matrix product."""
    by_hand: bool = False
    """It is stepped without an optimiser or automatic differentiation; ``node`` is the step."""


@dataclass(frozen=True, slots=True)
class Span:
    """A range of positions that was selected. Bounds are typical numbers: None where not known."""

    number: int
    node: ast.AST
    program: Program
    lower: float | None
    upper: float | None
    of_tokens: bool
    """Bounds count from the start of the validation tokens, not of a window."""
    mask: bool
    loops: tuple[Loop, ...]
    frame: int
    gathered: bool = False
    """Taken inside a comprehension: one of several windows."""
    alone: bool = False
    """Taken from a batch that is known to hold a single window."""


@dataclass
class Trace:
    """All events of one entry point, with the facts that span several of them."""

    events: list[Event] = field(default_factory=list)
    skipped: list[SkippedBranch] = field(default_factory=list)
    called: set[int] = field(default_factory=set)
    """ids of the AST nodes of all functions that were entered or applied as a network."""
    calls: dict[int, dict[int, Callee]] = field(default_factory=dict)
    """id of a call's AST node → the submission's functions it leads to, by the id of their node."""
    entered: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    """call id → (call id of the caller, id of the function's AST node, id of the call's AST node)."""
    decided: dict[int, dict[int, bool | None]] = field(default_factory=dict)
    """call id → id of an ``if`` in it → its truth; None where it was left open, or differed."""
    callers: dict[int, dict[int, Caller]] = field(default_factory=dict)
    """id of a function's AST node → the calls that lead to it, by the id of their node."""
    touches: dict[int, dict[int, tuple[int, tuple[int, ...]]]] = field(default_factory=dict)
    """object serial → call id → (time, call ids on the stack) of the last use in that call."""
    parents: dict[int, int] = field(default_factory=dict)
    """object serial of a network → that of the network it is part of."""
    made_in: dict[int, tuple[int, ...]] = field(default_factory=dict)
    """object serial (of a tensor optimised by itself: minus its ``leaf:`` number) → loops in which it was made."""
    pieces: dict[int, bool] = field(default_factory=dict)
    """number of a cut of the validation tokens → whether its first round starts with the first token of its source."""
    captures: list[tuple[int, int]] = field(default_factory=list)
    """(time, object serial) for each state_dict() taken."""
    loop_end: dict[int, int] = field(default_factory=dict)
    """loop id → time at which it was left."""
    restores: list[tuple[int, int, int]] = field(default_factory=list)
    """(time, object serial, time of the saved state) for each full restore of a saved state."""
    defaults: dict[str, tuple[Program, ast.AST, str]] = field(default_factory=dict)
    """setting → where the code reads it, and its default there."""
    leaves: dict[int, Leaf] = field(default_factory=dict)
    """number N of a role ``leaf:N`` → the tensor."""
    spans: dict[int, Span] = field(default_factory=dict)
    """number N of a role ``span:N`` → the positions."""
    carried: list[tuple[Loop, str, frozenset[int]]] = field(default_factory=list)
    """(loop, name, leaves) for each name that hands values of leaves made in one round to the next."""
    resets: list[tuple[int, int, tuple[Guard, ...]]] = field(default_factory=list)
    """(time, leaf, guards) for each leaf that is set back to a constant."""
    aliases: dict[str, str] = field(default_factory=dict)
    """setting → the attribute under which logs print it."""
    modules: list[str] = field(default_factory=list)
    """Files of the submission whose statements ran, the entry script first: it and the modules it imports."""
    truncated: str | None = None
    """Why the trace stops early, if it does."""

    def of(self, kind: Kind) -> list[Event]:
        """The events of one kind, in order."""
        return [e for e in self.events if e.kind is kind]
