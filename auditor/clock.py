"""How long runs took, and on what machine: what the rules on time budgets share.

The budgets hold for eight H100 SXM. A time on fewer or other devices says little about that machine: it can only
be compared under the best case, that eight would be that much faster.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from auditor.contest import BUDGET_MS
from auditor.logs import RunLog
from auditor.reading import Reading
from auditor.submission import SubmissionKind
from auditor.verdict import Effect, Evidence, SettingValue

CONTEST_GPUS = 8
OVERSHOOT_MS = 100.0
"""What organisers let pass beyond a budget: the step that was under way (rulebook V27)."""

SLOWEST_STEP_MS = 500.0
"""Milliseconds; on eight H100 steps take 40 to 310 (a thousand logs that count eight processes)."""

_DEVICE = (
    r"GH200|GB200|[BH][12]00|B300|A100|A10G?|A40|A6000|L40S?|L4|V100|T4|RTX|GTX|MI\d{3}X?|"
    r"Apple|M[1-4] (?:Max|Ultra|Pro)|MLX"
)
_COUNTED_GPU = re.compile(rf"(?<![\w.])(\d{{1,2}})\s*[x\u00d7*]\s*(?:NVIDIA\s*)?({_DEVICE})")
_ANY_GPU = re.compile(rf"\b({_DEVICE})")
_AT_LEAST_H100 = ("H100", "H200", "GH200", "B200", "B300", "GB200")
_PROCESSES = re.compile(r"nproc[-_]per[-_]node[ =](\d{1,2})\b")
_HARDWARE_KEY = re.compile(r"(?i)hardware|gpu|device|compute")
_WALLCLOCK = re.compile(r"(?i)wall_?clock|force_stop|stop_(?:after_)?step")


@dataclass(frozen=True)
class Machine:
    """What a run used: number and name of the devices, None where nothing tells."""

    gpus: int | None
    name: str | None
    slow: bool = False
    """Its steps take longer than any of this contest's do on eight H100, and its log names no device."""

    @property
    def contest(self) -> bool:
        """Eight H100, as a claim on the record track says of itself unless something tells otherwise."""
        return self.gpus in (None, CONTEST_GPUS) and self.name in (None, "H100") and not self.slow

    @property
    def told(self) -> str:
        if self.gpus is None and self.name is None:
            return "a slow machine that is not told" if self.slow else "a machine that is not told"
        if self.slow:
            return f"a machine slower than the {self.gpus or CONTEST_GPUS} {self.name or 'GPUs'} stated"
        count = "an unknown number of" if self.gpus is None else str(self.gpus)
        devices = "GPU" if self.gpus == 1 else "GPUs"
        return f"{count} {self.name or devices}"

    def surely_over(self, ms: float, budget_ms: float) -> bool:
        """Whether ``ms`` on this machine exceeds ``budget_ms`` on eight H100 even if eight were perfectly faster."""
        if self.contest:
            return ms > budget_ms
        if self.gpus is None or self.slow or self.name not in _AT_LEAST_H100:
            return False
        return ms * min(self.gpus, CONTEST_GPUS) / CONTEST_GPUS > budget_ms


@dataclass(frozen=True)
class Stop:
    """When training stopped by the run's own clock: milliseconds, and half the last printed digit."""

    run: RunLog
    ms: float
    rounding_ms: float
    line: int

    @property
    def least_ms(self) -> float:
        return self.ms - self.rounding_ms

    @property
    def step_ms(self) -> float | None:
        """The average step, None where the log does not count steps."""
        steps = self.run.facts.steps
        return self.ms / steps.value if steps is not None and steps.value else None


def held_to_budgets(reading: Reading) -> bool:
    """Whether the time budgets hold for this folder: on the record track, and for a folder given without a track."""
    track = reading.folder.track
    return track == "record" or (track == "unknown" and reading.submission.kind is SubmissionKind.RECORD)


def eased(reading: Reading) -> Effect | None:
    """The official effect where a folder on the record track calls itself a non-record one: told, not held against."""
    return Effect.ADVISORY if reading.claims_no_record else None


NO_RECORD = "; the folder is on the record track, but the submission calls itself a non-record one"


def machine(reading: Reading, run: RunLog) -> Machine:
    """The devices of a run: as its log tells, else submission.json, the launch command and the documents."""
    cache: dict[str, Machine] = reading.__dict__.setdefault("_machine", {})
    stated = cache.get("stated")
    if stated is None:
        stated = cache["stated"] = _stated_machine(reading)
    facts = run.facts
    listed = {g.index for g in facts.gpus if g.index is not None}
    gpus = facts.world_size.value if facts.world_size is not None else None
    if gpus is None:
        gpus = stated.gpus if stated.gpus is not None else len(listed) or None
    name = named = next((_kind(g.name) for g in facts.gpus if _kind(g.name)), None)
    if name is None and stated.gpus in (None, gpus):
        name = stated.name
    if name is None and gpus is not None:
        # Other devices may be stated than this run had (those hoped for): only a name with its number of them counts.
        name = next((kind for count, kind in _described(reading) if count == gpus), None)
    pace = facts.train_ms.value / facts.steps.value if facts.train_ms and facts.steps and facts.steps.value else 0.0
    # What documents state is of the machine aimed at, which a local run's log may sit beside.
    slow = gpus in (None, CONTEST_GPUS) and named is None and pace > SLOWEST_STEP_MS
    return Machine(gpus, name, slow=slow)


def stops(reading: Reading) -> list[Stop]:
    """When the runs behind the claim stopped training, where their logs tell."""
    found = []
    for run in (*reading.run.claim_runs, *reading.run.training_runs):
        fact = run.facts.train_ms
        if fact is not None:
            line = reading.line_text(run.file, fact.line) or ""
            found.append(Stop(run, fact.value, rounding(line, fact.value), fact.line))
    return found


def rounding(line: str, ms: float) -> float:
    """Half the last printed digit, in milliseconds, of the duration ``ms`` in a log line."""
    units = {"ms": 1.0, "s": 1e3, "sec": 1e3, "seconds": 1e3, "m": 6e4, "min": 6e4}
    for match in re.finditer(r"(\d+)(?:\.(\d+))?\s*(ms|seconds|sec|s|min|m)\b", line):
        unit = units[match[3]]
        if abs(float(f"{match[1]}.{match[2] or 0}") * unit - ms) < 1e-3 * unit:
            return 0.0 if unit == 1.0 else 0.5 * unit * 10.0 ** -len(match[2] or "")
    return 0.0


def clock_settings(reading: Reading) -> list[str]:
    """Settings that bound training by time or force its end, by their names: only for showing their values."""
    return sorted(name for name in reading.trace.defaults if _WALLCLOCK.search(name))


def wallclock_limit(reading: Reading) -> tuple[float, SettingValue] | None:
    """The time limit in seconds that the run's configuration gives (0: none), where one of its settings says so."""
    for name in clock_settings(reading):
        if not re.search(r"(?i)wall_?clock", name) or re.search(r"(?i)reserve|ttt|eval", name):
            continue
        values = reading.values_of(name)
        if values and re.fullmatch(r"\d+(?:\.\d*)?", values[-1].value):
            return float(values[-1].value), values[-1]
    return None


def stated_seconds(reading: Reading, key: re.Pattern[str]) -> list[tuple[str, float]]:
    """Times in submission.json whose key matches: (key, seconds)."""
    return [(k, n) for k, n in _numbers(reading.run.claim.raw) if key.search(k)]


def line_evidence(reading: Reading, run: RunLog, line: int, role: str) -> Evidence:
    """A line of a run's log."""
    return reading.log_evidence(run.file, line, reading.line_text(run.file, line) or f"line {line}", role)


def seconds(ms: float) -> str:
    """A duration for people: as exact as matters next to a budget of 600 s."""
    digits = 1 if abs(ms - BUDGET_MS) > 1_000 else 3
    return f"{ms / 1000:.{digits}f} s"


def _kind(name: str) -> str | None:
    match = _ANY_GPU.search(name)
    return match[1] if match else None


def _stated_machine(reading: Reading) -> Machine:
    texts = [str(v) for k, v in _texts(reading.run.claim.raw) if _HARDWARE_KEY.search(k)]
    for text in texts:
        match = _COUNTED_GPU.search(text)
        if match:
            return Machine(int(match[1]), match[2])
    name = next((kind for text in texts if (kind := _kind(text))), None)
    described = _described(reading)
    launched = (_PROCESSES.search(launch.text) for launch in reading.run.claimed_launches)
    match = next((m for m in launched if m), None)
    if match:
        gpus = int(match[1])
        return Machine(gpus, name or next((kind for count, kind in described if count == gpus), None))
    return Machine(*described[0]) if described else Machine(None, name)


def _described(reading: Reading) -> list[tuple[int, str]]:
    """Numbers and kinds of devices that the first document names, in its order."""
    pieces = (piece.text for document in reading.run.documents[:1] for piece in document.prose[:200])
    return [(int(m[1]), m[2]) for text in pieces for m in _COUNTED_GPU.finditer(text)]


def _texts(raw: object, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(raw, Mapping):
        for name, value in raw.items():
            yield from _texts(value, f"{key}.{name}" if key else str(name))
    elif isinstance(raw, list):
        for value in raw[:20]:
            yield from _texts(value, key)
    elif isinstance(raw, str):
        yield key, raw[:400]


def _numbers(raw: object, key: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(raw, Mapping):
        for name, value in raw.items():
            yield from _numbers(value, str(name))
    elif isinstance(raw, list):
        for value in raw[:20]:
            yield from _numbers(value, key)
    elif not isinstance(raw, bool | str) and raw is not None:
        try:
            yield key, float(raw)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            return
