"""Logs of different seeds that share what independent runs cannot share.

**What it catches.** Train logs that are presented as runs of different seeds and yet hold the same measurements: whole
lines with the same loss and the same time in milliseconds, per-batch losses of the evaluation that agree to the last
digit although the trainings differ, times that agree line by line, or one log under two seeds' names. Also logs whose
figures cannot belong together: one evaluation whose ratio of loss to bits per byte changes from seed to seed.

**Why it breaks the claim.** The mean and the significance of a record rest on runs that were made. Copied lines show
that at least one of the logs is not the output of the run it is shown for.

**Legal look-alikes.** Everything that follows from the configuration may be equal: hyperparameters, parameter counts,
schedules, the loss before and just after the start. One run under two file names, or once by itself and once in a log
of all runs, is the same seed. One checkpoint evaluated several times gives nearly the same losses; that makes no
second seed (see insufficient-seeds) but no false log either. Short chunks on one machine often take the same tenth of
a second.

**How it is read.** The logs of the claim are compared in pairs of different seeds. Lines found in both are weighed by
the odds that their measurements coincide; times count most, since not even a repeated evaluation repeats them. Where
lines coincide, the logs are aligned place by place to see whether the agreement covers nearly everything, and whether
the trainings differ.

**Remedy.** Publish each run's own log as it was written.

**Ruling.** None; organisers may disqualify results that cannot be reproduced (README). Advisory.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from auditor.logs import Metric, RunLog
from auditor.logs.compare import Comparison, Measured, compare, measured, seeds_of, shared_times
from auditor.logs.facts import final_metric
from auditor.reading import Reading
from auditor.verdict import Confidence, Effect, Evidence, Status
from rules.base import Example, Finding, Rule
from rules.examples import script

MAX_RUNS = 12
CERTAIN = 10
"""Odds of one in ten to this power that lines with exact times coincide by chance."""
UNLIKELY = 6
BLOCK = 20
"""So many aligned times, or half as many losses, make a block whose agreement means something."""
NEARLY_ALL = 0.9
RATIO_SLACK = 1e-4
"""Relative: evaluations may differ by a few tokens at the edges."""

_TOLD = 3


@dataclass(frozen=True)
class Suspicion:
    """What two logs share, how grave it is, and the lines that show it."""

    proven: bool
    what: str
    comparison: Comparison
    shown: tuple[tuple[Measured, Measured], ...]


class ClonedLogs(Rule):
    """See the module's documentation."""

    slug = "cloned-logs"
    group = "evidence"
    title = "logs of different seeds share values that independent runs cannot share"
    official = Effect.ADVISORY
    strict = Effect.VIOLATION
    evidence = ("log",)
    precedents = ("README: non-reproducible results can be disqualified",)

    def check(self, reading: Reading) -> Finding:
        runs = [r for r in _shown(reading) if seeds_of(r)][:MAX_RUNS]
        pairs = [(a, b) for a, b in itertools.combinations(runs, 2) if _presented_apart(a, b)]
        if not pairs:
            return Finding(Status.NOT_APPLICABLE, "There are no two logs of different seeds to compare.")
        found = [s for a, b in pairs if (s := _suspicion(a, b)) is not None]
        found.sort(key=lambda s: (s.proven, len(s.comparison.same)), reverse=True)
        odd = list(_contradictions(runs))
        if found and found[0].proven:
            proven = [s for s in found if s.proven]
            more = f"; so do {len(proven) - 1} more pairs of logs" if len(proven) > 1 else ""
            also = "; and the ratio of loss to bits per byte changes between them" if len(odd) >= 2 else ""
            return Finding(
                Status.ACTIVE,
                f"{_who(proven[0])} {proven[0].what}{more}{also}.",
                Confidence.HIGH,
                (*_evidence(reading, proven[0]), *_odd_evidence(reading, odd[:1] if len(odd) >= 2 else [])),
            )
        if found:
            return Finding(
                Status.SUSPECT,
                f"{_who(found[0])} {found[0].what}: compare the files.",
                Confidence.LOW,
                _evidence(reading, found[0]),
            )
        if len(odd) >= 2:
            label = odd[0][0].label
            return Finding(
                Status.SUSPECT,
                f"The ratio of loss to bits per byte changes from seed to seed for {len(odd)} evaluations ({label!r}"
                " first) and not for all alike: on the same tokens it is a constant.",
                Confidence.LOW,
                tuple(_odd_evidence(reading, odd[:2])),
            )
        seeds = sorted(set().union(*(seeds_of(r) for pair in pairs for r in pair)))
        return Finding(
            Status.CLEAN,
            f"The logs of {len(seeds)} seeds share no measurement that independent runs cannot share.",
        )


def _shown(reading: Reading) -> list[RunLog]:
    """The claim's runs, their trainings, and the other runs whose logs lie beside them."""
    claimed = (*reading.run.claim_runs, *reading.run.training_runs)
    folders = {r.file.rpartition("/")[0] for r in claimed}
    beside = (r for r in reading.run.logs if r.file.rpartition("/")[0] in folders)
    return list(dict.fromkeys((*claimed, *beside)))


def _presented_apart(first: RunLog, second: RunLog) -> bool:
    """Whether two runs are shown as different seeds: by what they print, else by their files' names."""
    ours, theirs = seeds_of(first), seeds_of(second)
    if not ours & theirs:
        return True
    alone = first.count == second.count == 1 and len(ours) == len(theirs) == 1
    names = first.seed_in_name, second.seed_in_name
    return alone and None not in names and names[0] != names[1]


def _suspicion(first: RunLog, second: RunLog) -> Suspicion | None:
    found = compare(first, second)
    if seeds_of(first) & seeds_of(second):  # named for two seeds, but both print one
        equal, every = len(found.timed), sum(1 for m in _measured(first) if m.time_weight >= 3)
        if equal >= 2 and equal >= NEARLY_ALL * every:
            what = f"are one run: {equal} of {every} lines with exact times are the same, and both print one seed"
            return Suspicion(True, what, found, found.timed)
        return None
    exact = shared_times(first, second)
    if not found.same and exact < 5:
        return _same_result(first, second, found)
    timed = found.timed
    together = found.weight_of(found.same)
    sure = found.weight >= CERTAIN or (found.weight >= UNLIKELY and together >= UNLIKELY + 2)
    if (sure and len(found.aligned) <= 100) or found.weight >= CERTAIN:
        what = (
            f"share {len(found.same)} measured line{'s' * (len(found.same) > 1)}, {len(timed)} with the very same time"
        )
        if found.prefix and not _both_say_first(first, second, timed):
            what += " up to one point and none after it, as when one training goes on twice"
            return Suspicion(False, what, found, timed)
        return Suspicion(True, what, found, found.same if len(found.same) <= _TOLD else timed)
    if len(found.same) >= BLOCK // 2 or exact >= 5:
        equal_times, all_times = found.times()
        equal, every = found.losses(training=False)
        trained, steps = found.losses(training=True)
        same_times = all_times >= BLOCK and equal_times >= NEARLY_ALL * all_times
        same_losses = every >= BLOCK // 2 and equal >= NEARLY_ALL * every
        shown = found.same or tuple(p for p in found.aligned if p[0].times == p[1].times)
        parts = []
        if same_losses:
            parts.append(f"{equal} of {every} losses of the evaluation")
        if same_times:
            parts.append(f"{equal_times} of {all_times} times")
        if parts:
            apart = steps >= 3 and trained <= steps // 2
            told = " and ".join(parts)
            if same_times or apart:
                though = ", though their training losses differ" if apart else ""
                return Suspicion(True, f"share {told} to the last digit{though}", found, shown)
            return Suspicion(False, f"share {told}: one checkpoint evaluated twice, or a copied log", found, shown)
    if found.weight >= UNLIKELY:
        return Suspicion(False, "share a measured line with the same loss and the same time", found, timed)
    return _same_result(first, second, found)


def _both_say_first(first: RunLog, second: RunLog, shared: tuple[tuple[Measured, Measured], ...]) -> bool:
    """Whether both runs print their seed above what they share: then the shared part is shown as that seed's own."""
    ours, theirs = first.facts.seed, second.facts.seed
    return (
        ours is not None and theirs is not None and all(ours.line < a.line and theirs.line < b.line for a, b in shared)
    )


def _measured(run: RunLog) -> Iterator[Measured]:
    for text, line in run.lines():
        one = measured(text, line)
        if one is not None:
            yield one


def _same_result(first: RunLog, second: RunLog, found: Comparison) -> Suspicion | None:
    """Two seeds with one result, to at least six decimals."""
    ours, theirs = final_metric(first.final_metrics), final_metric(second.final_metrics)
    if ours is None or theirs is None or ours.bpb_text != theirs.bpb_text or ours.label != theirs.label:
        return None
    if len(ours.bpb_text.partition(".")[2]) < 6 or (ours.loss_text or "") != (theirs.loss_text or ""):
        return None
    pair = (_as_measured(ours), _as_measured(theirs))
    return Suspicion(False, f"end in the same result, {ours.bpb_text}, to its last digit", found, (pair,))


def _as_measured(metric: Metric) -> Measured:
    return Measured(metric.text.strip(), metric.line, metric.label, (), (), False)


def _contradictions(runs: Iterable[RunLog]) -> Iterator[tuple[Metric, RunLog, Metric, RunLog]]:
    """Evaluations whose loss/bpb ratio, against the same log's first evaluation, changes from log to log.

    A log may rest on another copy of the data, which moves all its ratios alike; a single one cannot move.
    """
    by_label: dict[str, list[tuple[float, Metric, RunLog]]] = {}
    for run in runs:
        exact = {m.label: m for m in run.final_metrics if _exact_ratio(m)}
        first = next(iter(exact.values()), None)
        for label, metric in exact.items():
            if first is not None and metric is not first:
                by_label.setdefault(label, []).append((_ratio(metric) / _ratio(first), metric, run))
    seen: set[tuple[str | None, str]] = set()
    for found in by_label.values():
        low, high = min(found, key=lambda x: x[0]), max(found, key=lambda x: x[0])
        key = (high[1].loss_text, high[1].bpb_text)
        # beyond one per cent another quantity was meant
        if RATIO_SLACK < high[0] / low[0] - 1 < 0.01 and low[2].file != high[2].file and key not in seen:
            seen.add(key)
            yield low[1], low[2], high[1], high[2]


def _exact_ratio(metric: Metric) -> bool:
    digits = (len((t or "").partition(".")[2]) for t in (metric.bpb_text, metric.loss_text))
    return bool(metric.val_loss) and "loss" in metric.text and min(digits) >= 6


def _ratio(metric: Metric) -> float:
    return (metric.val_loss or 0.0) / metric.val_bpb


def _who(suspicion: Suspicion) -> str:
    names = []
    for run in (suspicion.comparison.first, suspicion.comparison.second):
        seed = run.seed if suspicion.comparison.first.seed != suspicion.comparison.second.seed else run.seed_in_name
        names.append(f"seed {seed}" if seed is not None else run.file.rsplit("/", 1)[-1])
    return f"The logs of {names[0]} and {names[1]}"


def _evidence(reading: Reading, suspicion: Suspicion) -> tuple[Evidence, ...]:
    pair = suspicion.comparison.first, suspicion.comparison.second
    step = max(1, len(suspicion.shown) // _TOLD)
    places: list[Evidence] = []
    for ours, theirs in suspicion.shown[::step][:_TOLD]:
        places.append(reading.log_evidence(pair[0].file, ours.line, ours.text, "measured in one run"))
        places.append(reading.log_evidence(pair[1].file, theirs.line, theirs.text, "the same in the other"))
    return tuple(places)


def _odd_evidence(reading: Reading, odd: Iterable[tuple[Metric, RunLog, Metric, RunLog]]) -> Iterator[Evidence]:
    for low, first, high, second in odd:
        for metric, run in ((low, first), (high, second)):
            role = f"loss / bits per byte = {_ratio(metric):.6f}"
            yield reading.log_evidence(run.file, metric.line, metric.text, role)


_CODE = script(
    """
    def main():
        torch.manual_seed(int(os.environ.get("SEED", "1")))
        model = GPT()
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(900):
            tokens = load_tokens("fineweb_train_*.bin")
            model(tokens[:-1], tokens[1:]).backward()
            opt.step()
        print(f"final_exact val_loss:2.1 val_bpb:1.25000000")

    main()
    """
)
_JSON = (
    '{"track": "track_10min_16mb", "val_bpb": 1.2505, "seeds": [1, 2],'
    ' "seed_results": {"1": {"val_bpb": 1.25000000}, "2": {"val_bpb": 1.25100000}}}\n'
)


def _log(seed: int, shift: int = 0, *, batches: int = 0, end: str = "") -> str:
    """A small log; ``shift`` moves every measurement as another run would."""
    lines = [f"seed:{seed}", "world_size:8"]
    for step in range(100, 1000, 100):
        loss, ms = 30000 - step * 9 + shift * 37 * (step % 7 + 1), step * 612 + shift * (step + 13)
        lines.append(f"step:{step}/900 train_loss:{loss / 10000:.4f} train_time:{ms}ms")
    for i in range(batches):
        lines.append(
            f"batch b{i}/{batches} loss:{2.5 - i * 0.0137 + batches % 7 * 0.0311:.4f} took t:{20 + i * 1.37:.1f}s"
        )
    return "\n".join([*lines, end or f"final_exact val_loss:2.1{seed}000000 val_bpb:1.25{seed - 1}00000"]) + "\n"


def _files(first: str, second: str) -> dict[str, str]:
    return {
        "train_gpt.py": _CODE,
        "submission.json": _JSON,
        "train_seed1.log": first,
        "train_seed2.log": second,
    }


ClonedLogs.VIOLATION = (
    Example("step lines copied", _files(_log(1), _log(2)), Status.ACTIVE),
    Example(
        "batch losses and times copied after another training",
        _files(_log(1, batches=30), _log(2, 1, batches=30)),
        Status.ACTIVE,
    ),
    Example(
        "one log under two seeds' names",
        _files(_log(1), _log(1, end="final_exact val_loss:2.12000000 val_bpb:1.25100000")),
        Status.ACTIVE,
    ),
)
ClonedLogs.LEGAL = (
    Example("two trainings", _files(_log(1), _log(2, 1)), Status.CLEAN),
    Example("two trainings with per-batch losses", _files(_log(1, batches=30), _log(2, 1, batches=31)), Status.CLEAN),
    Example(
        "one run under two names, another in a log of its own",
        _files(_log(1), _log(2, 1)) | {"logs/run.log": _log(1)},
        Status.CLEAN,
    ),
    Example(
        "two seeds that end in one result",
        _files(
            _log(1, end="final_exact val_loss:2.11000000 val_bpb:1.25000000"),
            _log(2, 1, end="final_exact val_loss:2.11000000 val_bpb:1.25000000"),
        ),
        Status.SUSPECT,
    ),
    Example(
        "a single log",
        {"train_gpt.py": _CODE, "submission.json": _JSON, "train_seed1.log": _log(1)},
        Status.NOT_APPLICABLE,
    ),
)
