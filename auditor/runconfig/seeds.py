"""Which independent seed runs stand behind a claim, as far as the logs of the folder show."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from decimal import Decimal

from auditor.logs import Metric, RunLog
from auditor.runconfig.evidence import RunEvidence, metric_key, same_figure
from auditor.text import canonical, decimal, decimals

_OTHER = re.compile(
    r"(?i)ablat|baseline|reference|\bref\b|_ref|control|old|prev|prior|superseded|smoke|debug|no_?ttt|without"
)
_DIGITS = re.compile(r"\d+")
IDENTITY = re.compile(
    r"(?i)seed|run_?id|log|path|dir|file|name|uuid|date|host|rank|device|master|port|wandb|cache|tmp|(?:^|_)out|artifact|"
    r"every|interval|verbose|debug|nproc|master|hash|commit|time$|_ms$|loss|bpb|bytes|size_mb|params"
)
"""Settings whose value says which run it was or how it was watched, not how it was configured."""


@dataclass(frozen=True)
class SeedRun:
    """One run that counts for the claim: its seed (None where nothing tells it) and the figure that it reports."""

    seed: int | None
    run: RunLog
    metric: Metric


@dataclass(frozen=True)
class SeedRuns:
    """The runs behind a claim.

    ``runs``: one for each seed, in the order of the logs. ``unread``: log files without a result, which may belong
    to further seeds. ``otherwise``: runs with results, but not under the reported label. ``unlike``: settings that
    differ between runs, with the values. ``shared``: runs of different seeds that evaluated one checkpoint, as pairs
    of metrics that agree to the last of at least six digits.
    """

    runs: tuple[SeedRun, ...]
    unread: tuple[RunLog, ...] = ()
    unlike: tuple[tuple[str, tuple[tuple[str, SeedRun], ...]], ...] = ()
    shared: tuple[tuple[SeedRun, Metric, SeedRun, Metric], ...] = ()
    otherwise: tuple[RunLog, ...] = ()

    @property
    def independent(self) -> int:
        """How many of the runs can be independent trainings: runs that share a checkpoint count once."""
        groups: dict[int, int] = {i: i for i in range(len(self.runs))}
        position = {id(r): i for i, r in enumerate(self.runs)}
        for first, _, second, _ in self.shared:
            old, new = groups[position[id(second)]], groups[position[id(first)]]
            groups = {k: new if v == old else v for k, v in groups.items()}
        return len(set(groups.values()))


def seed_runs(evidence: RunEvidence) -> SeedRuns:
    """The runs whose logs carry the reported figure, one per seed; empty where no log holds a result."""
    label = evidence.reported()
    if label is None:
        return SeedRuns((), tuple(r for r in evidence.logs if not r.final_metrics))
    key = metric_key(label.label, label.key)
    claimed = {s: v for s, v in evidence.claim.seed_values() if s is not None}
    home = _shape(label.file)
    found: dict[object, SeedRun] = {}
    unread: list[RunLog] = []
    otherwise: list[RunLog] = []
    for run in evidence.logs:
        linked = any(run is r for r in label.runs)
        if not linked and (_shape(run.file) != home or _OTHER.search(run.file.rsplit("/", 1)[-1])):
            continue
        metric = _figure(run, key, claimed.get(run.seed if run.seed is not None else -1))
        if metric is None and linked and run.final_metrics:
            metric = run.final_metrics[-1]
        if metric is None:
            (otherwise if run.final_metrics else unread).append(run)
            continue
        seed = run.seed if run.seed is not None else run.seed_in_name
        named = run.seed_in_name if claimed and run.seed not in claimed and run.seed_in_name in claimed else seed
        candidate = SeedRun(named, run, metric)
        place: object = named if named is not None else (run.file, metric.bpb_text)
        if place not in found or (linked and not any(found[place].run is r for r in label.runs)):
            found[place] = candidate
        elif not label.linked:
            # Several runs of one seed, none of which shows the claimed figure: the nearest is the likeliest.
            aim = claimed.get(named if named is not None else -1, evidence.claim.val_bpb)
            if aim is not None and abs(metric.bpb - aim) < abs(found[place].metric.bpb - aim):
                found[place] = candidate
    runs = tuple(found.values())
    files = {r.run.file for r in runs}
    seeds = {r.seed for r in runs}
    return SeedRuns(
        runs,
        tuple(r for r in unread if r.file not in files),
        _unlike(runs),
        _shared(runs),
        tuple(r for r in otherwise if r.seed not in seeds),
    )


def _shape(path: str) -> str:
    """The folder of a log with its numbers taken out: runs/seed_1/ and runs/seed_2/ are alike."""
    return _DIGITS.sub("#", path.rpartition("/")[0])


def _figure(run: RunLog, key: tuple[str, str], claimed: Decimal | None) -> Metric | None:
    """The run's figure under the reported label, in the most exact form in which it is printed."""
    under = [m for m in run.final_metrics if metric_key(m.label, m.key) == key]
    if claimed is not None:
        same = [m for m in under if same_figure(m.bpb, claimed)]
        under = same or under
    if not under:
        return None
    best = under[-1]
    twins = [m for m in run.final_metrics if abs(m.line - best.line) <= 3 and same_figure(m.bpb, best.bpb)]
    return max([best, *twins], key=lambda m: (min(decimals(m.bpb), 9), m.val_loss is not None))


def _unlike(runs: tuple[SeedRun, ...]) -> tuple[tuple[str, tuple[tuple[str, SeedRun], ...]], ...]:
    if len(runs) < 2:
        return ()
    common = set.intersection(*(set(r.run.hyperparameters) for r in runs))
    found = []
    for name in sorted(common):
        if IDENTITY.search(name):
            continue
        values = [(r.run.hyperparameters[name].value, r) for r in runs]
        if any("/" in v or len(v) > 40 for v, _ in values):
            continue
        if len({canonical(v) for v, _ in values}) > 1 and not _close(values) and not _only_more(name, runs):
            found.append((name, tuple(values)))
    return tuple(found)


def _close(values: list[tuple[str, SeedRun]]) -> bool:
    """Whether numbers differ by no more than two in a hundred: a budget cut a little shorter is no other setting."""
    numbers = [decimal(v) for v, _ in values]
    known = [float(n) for n in numbers if n is not None]
    return len(known) == len(values) and min(known) > 0 and max(known) <= 1.02 * min(known)


def _only_more(name: str, runs: tuple[SeedRun, ...]) -> bool:
    """Whether a switch only adds an evaluation that is printed after the reported figure ("ttt_enabled")."""
    stem = name.lower().removeprefix("run_").split("_")[0]
    on = [r for r in runs if canonical(r.run.hyperparameters[name].value) == "1"]
    later = [any(m.line > r.metric.line and stem in m.label.lower() for m in r.run.final_metrics) for r in on]
    return bool(on) and all(later) and all(stem not in r.metric.label.lower() for r in runs)


def _shared(runs: tuple[SeedRun, ...]) -> tuple[tuple[SeedRun, Metric, SeedRun, Metric], ...]:
    """Pairs of runs that agree, to six digits or more, in everything that both measured beside the reported figure.

    One figure alone counts only with its loss: scripts also print what they compare themselves with.
    """
    found = []
    for first, second in itertools.combinations(runs, 2):
        ours, theirs = (_exact(r) for r in (first, second))
        common = [(ours[k], theirs[k]) for k in ours if k in theirs]
        same = [(a, b) for a, b in common if a.bpb_text == b.bpb_text and a.loss_text == b.loss_text]
        told = [(a, b) for a, b in same if a.val_loss is not None]
        if same and len(same) == len(common) and (told or len(same) > 1):
            metric, twin = (told or same)[0]
            found.append((first, metric, second, twin))
    return tuple(found)


def _exact(run: SeedRun) -> dict[tuple[str, str], Metric]:
    """What a run measured to six digits or more beside its reported figure, by what it is called."""
    return {
        metric_key(m.label, m.key): m
        for m in run.run.final_metrics
        if decimals(m.bpb) >= 6 and not same_figure(m.bpb, run.metric.bpb)
    }
