"""Whether a claimed figure follows from the logs: printed there, or computed from what is printed there."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import combinations
from statistics import median, pstdev, stdev
from typing import Literal

from auditor.logs import Metric, RunLog
from auditor.logs.lines import STEP
from auditor.text import decimal, decimals

_WINDOW = 400
_LAST = 2
_COUNTING = re.compile(r"\d\s*/\s*\d|\d\s*%|(?i:progress|running|chunk|batch)")
TELLING_DIGITS = 5
"""Decimals from which on a number found anywhere is hardly there by chance."""
_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True)
class LogFigure:
    """Where a number stands in a log."""

    run: RunLog
    line: int
    text: str
    metric: Metric | None = None


def close(logged: Decimal, claimed: Decimal) -> bool:
    """Whether a logged number is the claimed one, rounded or cut off to the digits of the less exact of the two."""
    unit = Decimal(1).scaleb(-min(decimals(logged), decimals(claimed)))
    return abs(logged - claimed) < unit if min(decimals(logged), decimals(claimed)) >= 3 else logged == claimed


def find_figure(runs: Iterable[RunLog], claimed: Decimal, *, anywhere: bool = False) -> LogFigure | None:
    """The log line that prints ``claimed``: among the results first, then in any other figure, then as a bare number.

    Of the running figures only the last are asked for a short number, unless ``anywhere``: among hundreds of them
    one meets it by chance.
    """
    known = list(runs)
    for kinds in (("final",), ("step", "progress"), ("other",)):
        for run in known:
            figures = [m for m in reversed(run.metrics) if m.kind in kinds]
            if kinds[0] == "step" and decimals(claimed) < TELLING_DIGITS and not anywhere:
                figures = figures[:_LAST]
            for metric in figures:
                if close(metric.bpb, claimed):
                    return LogFigure(run, metric.line, metric.text, metric)
                loss = decimal(metric.loss_text) if metric.loss_text else None
                if loss is not None and close(loss, claimed):
                    return LogFigure(run, metric.line, metric.text, metric)
    return find_number(known, claimed)


def find_number(runs: Iterable[RunLog], claimed: Decimal) -> LogFigure | None:
    """The first line of the runs' whole logs (embedded source left out) in which ``claimed`` stands, in any form."""
    digits = decimals(claimed)
    if digits < 3:
        return None
    # All but the last digit is looked up as text, with the neighbour below for what rounding changed.
    unit = Decimal(1).scaleb(-(digits - 1))
    heads = {str(h.quantize(unit)) for h in (claimed - unit, claimed, claimed + unit)}
    pattern = re.compile(rf"(?<![\d.])(?:{'|'.join(re.escape(h) for h in sorted(heads))})\d*")
    seen: set[str] = set()
    for run in runs:
        if run.file in seen:
            continue
        seen.add(run.file)
        for hit in run.log.find(pattern):
            if digits < TELLING_DIGITS and (STEP.match(hit.value) or _COUNTING.search(hit.value)):
                continue
            numbers = (decimal(m[0]) for m in pattern.finditer(hit.value))
            if any(n is not None and close(n, claimed) for n in numbers):
                return LogFigure(run, hit.line, hit.value[:_WINDOW])
    return None


def combined(values: Sequence[Decimal], claimed: Decimal) -> Literal["mean", "lowest", "highest", "median"] | None:
    """How ``claimed`` comes about from several figures, allowing for their own rounding; None if it doesn't."""
    if not values:
        return None
    finest = min(decimals(v) for v in values)
    unit = Decimal(1).scaleb(-min(decimals(claimed), finest))
    mean = sum(values, Decimal(0)) / len(values)
    # A mean of rounded figures is known to half a unit of theirs; the claim is rounded or cut off in its turn.
    slack = Decimal("0.5").scaleb(-finest) + Decimal(1).scaleb(-decimals(claimed))
    if abs(mean - claimed) <= min(slack, 2 * unit):
        return "mean"
    if close(min(values), claimed):
        return "lowest"
    if close(max(values), claimed):
        return "highest"
    return "median" if close(Decimal(median(values)), claimed) else None


@dataclass(frozen=True)
class Average:
    """A mean over runs: what was averaged, and whether all runs that measured it take part."""

    metrics: tuple[tuple[RunLog, Metric], ...]
    whole: bool


MAX_AVERAGED = 8
EXACT_DIGITS = 6
"""With fewer digits, the mean of some of many runs meets any figure by chance."""


def averaged(runs: Iterable[RunLog], claimed: Decimal) -> Average | None:
    """The mean over two runs or more, under one label, that is ``claimed``; over all runs before over some."""
    columns: dict[tuple[str, str], dict[str, tuple[RunLog, Metric]]] = {}
    for run in runs:
        for metric in run.final_metrics:
            place = f"{run.file}:{run.first_line}"
            name = (_DIGITS.sub("#", metric.label), metric.key)
            columns.setdefault(name, {})[place] = (run, metric)
    found: Average | None = None
    for column in columns.values():
        entries = list(column.values())
        if len(entries) < 2:
            continue
        alone = {str(run.seed if run.seed is not None else run.file): (run, m) for run, m in entries}
        for group in (entries, list(alone.values())):
            if len(group) > 1 and combined([m.bpb for _, m in group], claimed) == "mean":
                return Average(tuple(group), True)
        if found is None and decimals(claimed) >= 4 and len(entries) <= MAX_AVERAGED:
            found = _some(entries, claimed)
    return found


def _some(entries: list[tuple[RunLog, Metric]], claimed: Decimal) -> Average | None:
    for size in range(len(entries) - 1, 1, -1):
        for group in combinations(entries, size):
            if combined([m.bpb for _, m in group], claimed) == "mean":
                return Average(group, False)
    return None


@dataclass(frozen=True)
class Spread:
    """Both standard deviations of some figures, and which of them a claimed one is."""

    sample: float
    population: float
    claimed: Decimal | None = None

    @property
    def used(self) -> Literal["sample", "population"] | None:
        """Which one the claim states; None if neither."""
        if self.claimed is None:
            return None
        slack = 10.0 ** -decimals(self.claimed)
        told = float(self.claimed)
        for name, value in (("sample", self.sample), ("population", self.population)):
            if math.isclose(value, told, rel_tol=0.02, abs_tol=slack):
                return name  # type: ignore[return-value]
        return None


def spread(values: Sequence[Decimal], claimed: Decimal | None = None) -> Spread | None:
    """The standard deviations of two figures or more."""
    if len(values) < 2:
        return None
    numbers = [float(v) for v in values]
    return Spread(stdev(numbers), pstdev(numbers), claimed)
