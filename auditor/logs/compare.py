"""What two runs' logs have in common that two independent runs cannot have.

Two trainings from different seeds agree in their settings and in what follows from them. They don't agree in what was
measured: a loss printed to four decimals coincides about once in a hundred lines, a time of six digits of
milliseconds about once in ten thousand. ``weight`` is the decimal logarithm of those odds, on the cautious side. Many
lines may coincide where one checkpoint was evaluated twice; times never do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

from auditor.logs.lines import STEP, without_prefix
from auditor.logs.run import RunLog

EARLY_STEPS = 10
"""Before this step the loss still is that of the initialisation, which seeds nearly share."""
_MAX_LINES = 60_000

_VALUE = re.compile(
    r"(?<![\w.])([A-Za-z][\w/]*)[\"']?\s*[:=]\s*(-?\d+(?:\.\d+)?)\s*(ms|s|m)?(?![\w.])",
)
_LOSS_KEY = re.compile(r"(?i)loss|bpb|nll|^[bvrt]l$|^[br]b$|perplexity|^ppl$|^ce$")
_TIME_KEY = re.compile(r"(?i)time|elapsed|tok(?:ens)?[_/](?:s|sec)|tok_s|throughput|^t$|_ms$|^ms$")
_DERIVED = re.compile(r"(?i)avg|average|budget|limit|cap\b|max|lr|reserve")
_SEED = re.compile(r"[Ss](?<![A-Za-z0-9][Ss])(?:eed|EED)\W{1,4}(\d{1,10})\b")
_EXACT_TIME = re.compile(r"[:= ](\d{5,9} ?ms)\b")
_NUMBERS = re.compile(r"\d+")


@dataclass(frozen=True)
class Measured:
    """A line with measurements: its losses and its times as printed, by key, and the odds of a coincidence.

    ``place`` is the line without its measurements; ``training`` says that it reports on a training step.
    """

    text: str
    line: int
    place: str
    losses: tuple[tuple[str, str], ...]
    times: tuple[tuple[str, str, str], ...]
    training: bool

    @property
    def loss_weight(self) -> int:
        """Loss and bits per byte say the same thing, so the more exact one counts alone."""
        return max((min(len(v.partition(".")[2]) - 2, 4) for _, v in self.losses), default=0)

    @property
    def time_weight(self) -> int:
        return max((_time_weight(v, unit) for _, v, unit in self.times), default=0)

    @property
    def weight(self) -> int:
        return max(self.loss_weight, 0) + max(self.time_weight, 0)


def _time_weight(value: str, unit: str) -> int:
    digits = len(value.replace(".", "").lstrip("-0"))
    return min(digits - 2, 4) if unit != "m" else 0


def measured(text: str, line: int) -> Measured | None:
    """The measurements of one line of output; None where it has none or stands too early in training."""
    if len(text) > 600 or ("." not in text and "ms" not in text):
        return None
    plain = without_prefix(text).strip()
    step = STEP.match(plain)
    number = _NUMBERS.search(step[0]) if step else None
    if number is not None and int(number[0][:9]) <= EARLY_STEPS:
        return None
    losses: list[tuple[str, str]] = []
    times: list[tuple[str, str, str]] = []
    for match in _VALUE.finditer(plain):
        key, value, unit = match[1], match[2], match[3] or ""
        if _DERIVED.search(key):
            continue
        if _LOSS_KEY.search(key) and "." in value:
            losses.append((key.lower(), value))
        elif _TIME_KEY.search(key) and (unit or not _LOSS_KEY.search(key)):
            times.append((key.lower(), value, unit))
    if not losses and not times:
        return None
    place = _VALUE.sub(_blank, plain)
    return Measured(plain, line, place, tuple(losses), tuple(times), step is not None)


def _blank(match: re.Match[str]) -> str:
    """A measurement is blanked; a count, which says where the line stands, is kept."""
    of_value = "." in match[2] or match[3] or _LOSS_KEY.search(match[1]) or _TIME_KEY.search(match[1])
    return f"{match[1]}:#" if of_value else match[0]


@dataclass(frozen=True)
class Comparison:
    """Two runs side by side. Pairs are (line of the first, line of the second)."""

    first: RunLog
    second: RunLog
    same: tuple[tuple[Measured, Measured], ...]
    """Lines that are identical with all their measurements, by weight of at least two."""

    @property
    def timed(self) -> tuple[tuple[Measured, Measured], ...]:
        """Those of ``same`` that hold a telling time."""
        return tuple(p for p in self.same if p[0].time_weight >= 3)

    @property
    def weight(self) -> int:
        """The decimal logarithm of the odds against all lines with a telling time being coincidences."""
        return self.weight_of(self.timed)

    @staticmethod
    def weight_of(pairs: Iterable[tuple[Measured, Measured]]) -> int:
        """The weight of several lines together: a value that is printed twice coincides once."""
        pairs = list(pairs)
        losses = {p[0].losses: p[0].loss_weight for p in pairs if p[0].losses}
        times = {max(v for _, v, _ in p[0].times): p[0].time_weight for p in pairs if p[0].times}
        return sum(max(w, 0) for w in (*losses.values(), *times.values()))

    @cached_property
    def aligned(self) -> tuple[tuple[Measured, Measured], ...]:
        """All lines of the two runs that stand in the same place, equal or not."""
        ours, theirs = (_by_place(r) for r in (self.first, self.second))
        return tuple((a, theirs[place]) for place, a in ours.items() if place in theirs)

    def losses(self, *, training: bool) -> tuple[int, int]:
        """(equal, all) among the aligned losses of at least four decimals, in or after training."""
        pairs = [p for p in self.aligned if p[0].training is training and p[0].loss_weight >= 2]
        return sum(a.losses == b.losses for a, b in pairs), len(pairs)

    def times(self) -> tuple[int, int]:
        """(equal, all) among the aligned times of at least ten seconds."""
        pairs = [(a, b) for a, b in self.aligned if a.times and any(_long(v, u) for _, v, u in a.times)]
        return sum(a.times == b.times for a, b in pairs), len(pairs)

    @property
    def prefix(self) -> bool:
        """Whether the logs agree up to some line and nowhere after it: as when two runs go on from one."""
        agree = [a.times == b.times and a.losses == b.losses for a, b in self.aligned if a.weight >= 2]
        equal = sum(agree)
        return 0 < equal < len(agree) and all(agree[:equal])


def _long(value: str, unit: str) -> bool:
    scale = {"ms": 1e-3, "s": 1.0, "m": 60.0}.get(unit)
    return scale is not None and "." in value + ("." if unit == "ms" else "") and float(value) * scale >= 10


def _by_place(run: RunLog) -> dict[str, Measured]:
    found: dict[str, Measured] = {}
    for text, line in islice(run.lines(), _MAX_LINES):
        one = measured(text, line)
        if one is not None:
            found.setdefault(one.place, one)
    return found


def seeds_of(run: RunLog) -> frozenset[int]:
    """Every seed the run's output or its settings name; where none, the one in the file's name."""
    found: frozenset[int] | None = run.__dict__.get("_seeds")
    if found is None:
        printed = {int(m[1]) for m, _ in run.scan(_SEED, quiet=True, words=("seed",))}
        if run.seed is not None and (run.seed != run.seed_in_name or not printed):
            printed.add(run.seed)
        found = run.__dict__["_seeds"] = frozenset(printed)
    return found


def shared_times(first: RunLog, second: RunLog) -> int:
    """How many exact times (five digits of milliseconds or more) both runs print, wherever."""
    return len(_exact_times(first) & _exact_times(second))


def _exact_times(run: RunLog) -> frozenset[str]:
    found: frozenset[str] | None = run.__dict__.get("_exact_times")
    if found is None:
        found = run.__dict__["_exact_times"] = frozenset(m[1] for m, _ in run.scan(_EXACT_TIME))
    return found


def compare(first: RunLog, second: RunLog) -> Comparison:
    """What two runs share. Cheap where they share nothing: only lines found in both are looked at."""
    theirs = second.line_numbers
    same: list[tuple[Measured, Measured]] = []
    for text, line in first.line_numbers.items():
        other = theirs.get(text)
        if other is None or not _NUMBERS.search(text):
            continue
        one = measured(text, line)
        if one is not None and one.weight >= 2:
            same.append((one, Measured(one.text, other, one.place, one.losses, one.times, one.training)))
    return Comparison(first, second, tuple(same))
