"""What the driver measured of a network's forward passes, and what it means.

The figures come from a process that ran the submission: they are read as data, within bounds, and judged here.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from auditor.index.trace import Event, Kind
from auditor.index.values import Const, Mapping
from auditor.probe.harness import Harness, JobResult
from auditor.probe.overrides import Overrides, plan_overrides
from auditor.probe.result import Position, ProbeResult, Stop
from auditor.probe.run import Bench
from auditor.reading import Reading

ROWS = ((11, 9, 12), (23, 17, 24), (50, 40, 38), (100, 76, 80))
"""Lengths of the documents in a row: 32, 64, 128, 256 tokens."""
SEEDS = (1, 2)
START_TOKEN = 1
"""The contest's document-start token, where the code names no other."""
WALL = 75.0
"""Seconds for one job."""
MAX_ROW = 512
"""Longest row that the driver may tell of."""
NEAR = 4
"""Positions before a document's end from which a state mixed with that of its neighbours can cross the boundary."""
_UNIT = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}

Row = Annotated[tuple[float, ...], Field(max_length=MAX_ROW)]


class _Told(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Move(_Told):
    """An output that moved when the token at ``changed`` (``single``), or all tokens from there on, were others."""

    changed: int = Field(ge=0)
    moved: int = Field(ge=0)
    before: float
    after: float
    difference: float
    single: bool


class Pass(_Told):
    """One way to apply the network, measured; see :mod:`auditor.probe.driver.model`."""

    path: str = Field(max_length=200)
    arguments: str = Field(max_length=400)
    state: str = Field(default="", max_length=400)
    documents: bool
    """Whether it was told where documents start."""
    what: str = Field(max_length=20)
    dtype: str = Field(max_length=20)
    length: int = Field(ge=1, le=MAX_ROW)
    starts: tuple[int, ...] = Field(max_length=MAX_ROW)
    scale: float
    noise: float
    trials: int = Field(ge=0)
    influence: tuple[Row, ...] = Field(max_length=MAX_ROW)
    """``[p][q]``: largest change of an output at q when the token at p alone is another."""
    after: Row
    """``[t]``: largest change at or before t when all tokens after t are others."""
    other_row: float | None
    worst: tuple[Move, ...] = Field(max_length=64)
    stopped: str = Field(default="", max_length=600)
    seconds: float
    finished: bool

    @property
    def tolerance(self) -> float:
        """A difference up to this is rounding: some units in the last place of the largest output, and the noise."""
        unit = _UNIT.get(self.dtype, 2.0**-7)
        return max(4 * self.noise, (64 if unit < 1e-6 else 4) * unit * self.scale)

    @property
    def label(self) -> str:
        """Such as ``GPT.forward(input_ids, target_ids)``."""
        return f"{self.path}({self.arguments})"

    def document_of(self, position: int) -> int:
        """Number of the document that a position belongs to, from 0."""
        return sum(s <= position for s in self.starts) - 1

    @property
    def reacts(self) -> bool:
        """Whether outputs depend on the tokens before them at all; otherwise nothing is shown."""
        own = (self.influence[p][q] for p in range(self.length) for q in range(p + 1, self.length))
        return max(own, default=0.0) > self.tolerance


class Built(_Told):
    """A network that the code makes: the number of its ``parameters``, or the ``problem`` that kept it from that."""

    name: str = Field(alias="class", max_length=200)
    line: int
    parameters: int | None = None
    vocabulary: int | None = None
    filled: tuple[str, ...] = ()
    switches: dict[str, bool] = Field(default_factory=dict)
    problem: str | None = Field(default=None, max_length=600)


class Full(_Told):
    """The networks at full size, or the ``problem`` that kept them from being made."""

    models: tuple[Built, ...] = Field(default=(), max_length=32)
    problem: str | None = Field(default=None, max_length=600)


class Measurement(_Told):
    """All that one job of the driver told."""

    imported: float
    start_token: int = 1
    models: tuple[Built, ...] = Field(default=(), max_length=32)
    paths: tuple[Pass, ...] = Field(default=(), max_length=128)
    skipped: tuple[str, ...] = Field(default=(), max_length=128)
    full: Full | None = None


# -- causality -------------------------------------------------------------------------------------------------


def look_ahead(measured: Pass) -> float:
    """The largest change of an output before the first changed token, or by other rows of the batch."""
    early = (measured.influence[p][q] for p in range(measured.length) for q in range(min(p, measured.length)))
    return max(max(early, default=0.0), max(measured.after, default=0.0), measured.other_row or 0.0)


def look_ahead_positions(measured: Pass) -> tuple[Position, ...]:
    """Where it shows, worst first."""
    return tuple(
        Position(
            moved=m.moved,
            changed=m.changed,
            before=m.before,
            after=m.after,
            note=f"{measured.path}, {'this token alone' if m.single else 'this token and all after it'} changed",
        )
        for m in measured.worst
        if m.moved < m.changed and m.difference > measured.tolerance
    )


# -- isolation of documents ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Boundary:
    """What crosses into a document from the tokens before it: ``near`` its start, and from ``far``ther back.

    ``moved``: positions that tokens near the boundary move; ``reach``: from how many tokens back.
    """

    start: int
    near: float
    far: float
    moved: tuple[int, ...]
    reach: int


def boundaries(measured: Pass) -> list[Boundary]:
    """The boundaries between documents in the row that was measured."""
    found = []
    for start, end in zip(measured.starts[1:], [*measured.starts[2:], measured.length], strict=True):
        inside = range(start, end)
        # The start itself is never changed, and neither are the starts before it.
        back = {start - p: [measured.influence[p][q] for q in inside] for p in range(start)}
        reaching = {d: max(values) for d, values in back.items() if max(values) > measured.tolerance}
        near = {d: v for d, v in reaching.items() if d <= NEAR}
        moved = sorted({q for d in near for q, v in zip(inside, back[d], strict=True) if v > measured.tolerance})
        found.append(
            Boundary(
                start,
                max(near.values(), default=0.0),
                max((v for d, v in reaching.items() if d > NEAR), default=0.0),
                tuple(moved),
                max(near, default=0),
            )
        )
    return found


def isolates(measured: Pass) -> bool:
    """Whether tokens well before a document do not reach into it, although they reach far inside their own."""
    far = max((b.far for b in boundaries(measured)), default=0.0)
    within = max(
        (
            measured.influence[p][q]
            for p in range(measured.length)
            for q in range(p + NEAR + 1, measured.length)
            if measured.document_of(p) == measured.document_of(q)
        ),
        default=0.0,
    )
    return len(measured.starts) > 1 and far <= measured.tolerance < within


# -- which passes the run makes --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Use:
    """How the run uses one forward pass, as far as reading shows. None: reading does not tell.

    ``scored``: the reported evaluation calls it, to score or to adapt.
    """

    used: bool | None
    scored: bool | None


def use_of(reading: Reading, measured: Pass) -> Use:
    """Whether the run, and its reported evaluation, apply the network in this way."""
    calls = reading.trace.of(Kind.MODEL_CALL)
    if not calls:
        return Use(None, None)
    own = {f.id for s in reading.reported.scores for f in s.own_frames} | {s.frame for s in reading.reported.scores}
    given = set(measured.arguments.split(", "))
    alike = [e for e in calls if e.text == measured.path and (given <= _given(e) or not measured.documents)]
    inside = any(f.id in own for e in calls for f in e.frames)
    cls = measured.path.rpartition(".")[0]
    outer = [e for e in alike if not any(f.function.rpartition(".")[0] == cls for f in e.frames)]
    return Use(bool(alike), any(f.id in own for e in outer for f in e.frames) if inside else None)


def unfinished(paths: Iterable[Pass]) -> str | None:
    """A sentence if a pass was measured at some positions only, however the network was set."""
    paths = list(paths)
    done = {p.label for p in paths if p.finished}
    missing = dict.fromkeys(p.label for p in paths if p.label not in done)
    if not missing:
        return None
    return f"The time was up before every position of {' and '.join(list(missing)[:3])} was measured."


def _given(event: Event) -> set[str]:
    """The names of what a network is given, None left out."""
    items = event.value.items if isinstance(event.value, Mapping) else {}
    return {name for name, value in items.items() if not (isinstance(value, Const) and value.value is None)}


def unmeasured(reading: Reading, done: Measurement) -> str | None:
    """A sentence if reading knows the passes of the reported evaluation and none of them was measured."""
    own = {f.id for s in reading.reported.scores for f in s.own_frames} | {s.frame for s in reading.reported.scores}
    classes = {m.name for m in done.models}
    scored: dict[str, None] = {}
    for event in reading.trace.of(Kind.MODEL_CALL):
        cls, _, method = (event.text or "").rpartition(".")
        inner = any(f.function.rpartition(".")[0] in classes for f in event.frames)
        if cls in classes and not inner and not method.startswith("_") and any(f.id in own for f in event.frames):
            scored[event.text or ""] = None
    if not scored or scored.keys() & {p.path for p in done.paths}:
        return None
    why = next((s for s in done.skipped if s.startswith(tuple(scored))), "no way to call it was found")
    return f"The reported evaluation applies {' and '.join(scored)}, which could not be measured: {why}."


def switched_off_smears(reading: Reading) -> tuple[str, ...]:
    """Settings, off in this run, that would switch on a smear of the previous position's state; none if one is on."""
    trace = reading.trace
    if trace.of(Kind.SMEAR) or not any(index.has_shift for index in reading.opened()):
        return ()
    methods = [m for index in reading.opened() for m in index.methods]
    wider = reading.switched_off({"roll", "pad"}, lambda n: isinstance(n, ast.Slice), inside=methods)
    smears = [e for e in wider.of(Kind.SMEAR) if not e.detail] if wider is not None else []
    names = {s for e in smears for g in e.guards for s in g.settings}
    return tuple(sorted(n for n in names if n[:1].isupper() and _is_off(reading, n)))


def _is_off(reading: Reading, name: str) -> bool:
    values = reading.values_of(name)
    return bool(values) and values[-1].value.strip().lower() in ("0", "false", "off", "no", "", "0.0", "none")


# -- running it ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Done:
    """One job of the driver, and under which settings it ran."""

    told: Measurement
    job: JobResult
    plan: Overrides

    def furnish(self, result: ProbeResult) -> ProbeResult:
        """The result with what was put in place of something, and what the sandbox saw."""
        job = self.job
        return result.model_copy(
            update={
                "substitutions": job.substitutions,
                "overrides": self.plan.changed,
                "attempts": job.attempts,
                "sandboxed": job.sandboxed,
            }
        )


def measure(bench: Bench, switched_on: Iterable[str] = ()) -> Done | Stop:
    """Build the network and measure its forward passes; once for all probes that ask for the same."""
    on = tuple(switched_on)
    key = f"forward passes {on}"
    if key not in bench.cache:
        bench.cache[key] = _measure(bench, on)
    found = bench.cache[key]
    assert isinstance(found, (Done, Stop))
    return found


def _measure(bench: Bench, on: tuple[str, ...]) -> Done | Stop:
    plan = plan_of(bench)
    wall = min(WALL, bench.left())
    arguments: dict[str, object] = {"start_token": START_TOKEN, "rows": ROWS, "seeds": SEEDS}
    arguments["seconds"] = max(5.0, 0.7 * wall - 10)
    if not plan.constants and not on:
        # With constants replaced in the code, the full size needs a text of its own.
        arguments["full"] = _of_the_run(plan)
    with Harness(bench.reading, overrides=plan, protected=bench.sandboxed, progress=bench.progress) as harness:
        job = harness.run("model:measure_all", arguments, wall=wall, environment=dict.fromkeys(on, "1"))
    if job.stop is not None:
        return job.stop
    try:
        return Done(Measurement.model_validate(job.value), job, plan)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"][:4])
        return Stop(kind="exception", message=f"what the driver told can't be read: {where}")


def full_size(bench: Bench, done: Done) -> Full:
    """The networks at full size, under the run's settings, made without memory."""
    if done.told.full is not None:
        return done.told.full
    environment = {name: value for name, value in _of_the_run(done.plan).items() if value is not None}
    with Harness(bench.reading, environment=environment, protected=bench.sandboxed) as harness:
        job = harness.run("model:count", wall=max(10.0, min(60.0, bench.left())))
    if job.stop is not None:
        return Full(problem=job.stop.message)
    try:
        return Full.model_validate(job.value)
    except ValidationError:
        return Full(problem="what the driver told can't be read")


def _of_the_run(plan: Overrides) -> dict[str, str | None]:
    """The environment with sizes as in the run; None for what the run leaves to the code's default."""
    shrunk = {o.name: o.run for o in plan.changed}
    return {name: shrunk.get(name, value) for name, value in plan.environment.items()}


def plan_of(bench: Bench) -> Overrides:
    """How this submission is made tiny."""
    if "overrides" not in bench.cache:
        bench.cache["overrides"] = plan_overrides(bench.reading)
    plan = bench.cache["overrides"]
    assert isinstance(plan, Overrides)
    return plan


def figure(value: float) -> str:
    """A difference as text: three significant digits."""
    return f"{value:.3g}"
