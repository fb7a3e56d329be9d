"""Evaluation takes over 600 s, or work was moved before its timer.

**What it catches.** A run behind a record claim whose reported evaluation took more than 600 s by the log's own
timer; and passes over the validation tokens (hint tables, caches) done before the timer starts that bring the
sum over 600 s.

**Why it breaks the score.** Adaptation and mixing at evaluation buy loss for time. Without the limit the score
measures patience.

**Legal look-alikes.** Diagnostic evaluations beside the reported one: their time is not counted. Compiling before
the timer starts, loading and decompressing the model: left out by every merged record that adapts, and told here.
Runs on the non-record track, where compute is not limited; a submission that calls itself a non-record one although
its folder is on the record track is told, as an advisory. Times on fewer devices, which say little about eight.

**How it is read.** The time that the reported figure's line gives, or the total that the run prints for it, in each
run behind the claim. Whether a precomputation stands before the timer is read from the order of the log's lines: what
follows the line that announces the timer is inside.

**Remedy.** Start the timer before anything reads validation tokens; score in larger batches or adapt less.

**Ruling.** README, 18 March 2026: evaluation within 10 minutes on 8xH100, in addition to training. Organisers named
~688 s on #1972. Merged records leave compilation (85-157 s) and loading (2 x 20 s) out of the timer: accepted.
Precomputing n-gram hints outside was never ruled on; the convention since #1514 is inside.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from auditor.clock import NO_RECORD, eased, held_to_budgets, line_evidence, machine, rounding, seconds, stated_seconds
from auditor.contest import BUDGET_MS
from auditor.index.trace import Event, Kind
from auditor.logs import Metric, RunLog, Timer
from auditor.reading import Reading
from auditor.verdict import Confidence, Effect, Evidence, Status
from rules.base import Example, Finding, Rule
from rules.examples import script

_TIMER_STARTS = re.compile(r"(?i)\b(?:begin|start)\w*\b.{0,30}\btimer\b|\btimer\b.{0,20}\b(?:begin|start)")
_STATED = re.compile(r"(?i)^(?:\w*eval\w*_?(?:time|seconds|wall_?clock)\w*|evaluation_time\w*)$")
_NOT_STATED = re.compile(r"(?i)max_|limit|cap|budget|_ms|minutes|_min$|hours|train")


@dataclass(frozen=True)
class Timed:
    """One run's evaluation: its timer, and the work that the timer leaves out."""

    run: RunLog
    timer: Timer
    rounding_ms: float
    outside: tuple[Timer, ...]

    @property
    def least_ms(self) -> float:
        return self.timer.ms - self.rounding_ms

    @property
    def moved(self) -> tuple[Timer, ...]:
        """Work on the data before the timer: neither compiling nor loading."""
        return tuple(t for t in self.outside if t.kind == "precompute")

    @property
    def with_moved_ms(self) -> float:
        return self.least_ms + sum(t.ms for t in self.moved)


class EvalOverTime(Rule):
    """See the module's documentation."""

    slug = "eval-over-time"
    group = "budget"
    title = "evaluation over 600 s, or work moved before its timer"
    official = Effect.VIOLATION
    strict = Effect.VIOLATION
    evidence = ("log", "code")
    precedents = (
        "README, 18 Mar 2026: evaluation within 10 minutes on 8xH100",
        "organiser on #1972, 2 May 2026: ~688 s",
        "accepted in merged records: compilation and loading outside of the timer (#1855, #2135)",
    )

    def check(self, reading: Reading) -> Finding:
        timed = [t for run in reading.run.claim_runs if (t := _timed(reading, run)) is not None]
        if not held_to_budgets(reading):
            told = f" (this run's took {seconds(max(t.timer.ms for t in timed))})" if timed else ""
            return Finding(
                Status.NOT_APPLICABLE,
                f"The folder is not on the record track, where evaluation time is limited{told}.",
                Confidence.HIGH,
            )
        if not timed:
            return _without_a_timer(reading)
        over = sorted((t for t in timed if t.least_ms > BUDGET_MS), key=lambda t: -t.timer.ms)
        if over:
            return _over(reading, over, len(timed))
        longest = max(timed, key=lambda t: t.with_moved_ms)
        if longest.with_moved_ms > BUDGET_MS:
            return _moved(reading, longest)
        apart = _adapted_apart(reading)
        if apart is not None:
            finding = _sum_of_passes(reading, timed, apart)
            if finding is not None:
                return finding
        longest = max(timed, key=lambda t: t.timer.ms)
        others = f", the longest of {len(timed)} runs" if len(timed) > 1 else ""
        return Finding(
            Status.CLEAN,
            f"The reported evaluation took {seconds(longest.timer.ms)} by its own timer{others}{_left_out(timed)}.",
            Confidence.HIGH,
            _evidence(reading, longest),
        )


def _timed(reading: Reading, run: RunLog) -> Timed | None:
    """The timer of the reported figure in a run; None where the run prints none."""
    timer = _of_reported(reading, run) or run.facts.eval_timer
    if timer is None:
        return None
    line = reading.line_text(run.file, timer.line) or ""
    starts = [n for _, n, _ in run.find(_TIMER_STARTS, words=("timer",))]
    begun = max((n for n in starts if n <= timer.line), default=None)
    outside = tuple(
        t for t in run.facts.outside_eval_timer if t.line < timer.line and (begun is None or t.line < begun)
    )
    return Timed(run, timer, rounding(line, timer.ms), outside)


def _of_reported(reading: Reading, run: RunLog) -> Timer | None:
    """The time on the reported figure's own line, or on the nearest line that prints the same figure."""
    label = reading.reported.log
    if label is None:
        return None
    metrics: list[Metric] = [m for m in run.metrics if (m.label, m.key) == (label.label, label.key)]
    if run.file == label.file:
        metrics = [m for m in metrics if m.line == label.line] or metrics
    same = [m for m in run.metrics if m.eval_time_ms is not None and abs(m.val_bpb - label.value) < 5e-5]
    if (not metrics or metrics[-1].eval_time_ms is None) and run.file == label.file and same:
        metrics = same
    if not metrics:
        return None
    last = metrics[-1]
    totals = [t for t in run.facts.timed("eval-total") if 0 <= t.line - last.line <= 12]
    if totals:
        return totals[0]
    if last.eval_time_ms is not None:
        return Timer(label=last.label, ms=last.eval_time_ms, kind="eval", line=last.line)
    figure = last.bpb_text[:6]
    named = [t for t in run.facts.timers if figure in (reading.line_text(run.file, t.line) or "")]
    return min(named, key=lambda t: abs(t.line - last.line), default=None)


def _over(reading: Reading, over: list[Timed], of: int) -> Finding:
    worst = over[0]
    many = f" ({len(over)} of {of} runs are over)" if of > 1 else ""
    told = f"The reported evaluation took {seconds(worst.timer.ms)} by its own timer{many}"
    used = machine(reading, worst.run)
    if not used.contest and not used.surely_over(worst.least_ms, BUDGET_MS):
        return Finding(
            Status.SUSPECT,
            f"{told}, on {used.told}: how long eight H100 would take is not known.",
            Confidence.LOW,
            _evidence(reading, worst),
        )
    if reading.reported.log is None or not reading.reported.log.linked:
        return Finding(
            Status.SUSPECT,
            f"{told}, but the claimed number was not found in that log: another evaluation may be behind the claim.",
            Confidence.LOW,
            _evidence(reading, worst),
        )
    return Finding(
        Status.ACTIVE,
        f"{told}, over the budget of 600 s{_left_out(over)}{NO_RECORD if reading.claims_no_record else ''}.",
        Confidence.HIGH,
        _evidence(reading, worst),
        official=eased(reading),
    )


def _moved(reading: Reading, longest: Timed) -> Finding:
    work = ", ".join(f"{t.label[:60]} {seconds(t.ms)}" for t in longest.moved[:3])
    used = machine(reading, longest.run)
    reason = (
        f"Work on the data before the timer ({work}) and the timed {seconds(longest.timer.ms)} make"
        f" {seconds(longest.with_moved_ms)}"
    )
    if not used.contest and not used.surely_over(longest.with_moved_ms, BUDGET_MS):
        return Finding(Status.SUSPECT, f"{reason}, on {used.told}.", Confidence.LOW, _evidence(reading, longest))
    return Finding(
        Status.ACTIVE,
        f"{reason}, over the budget of 600 s; the timer alone is within it.",
        Confidence.MEDIUM,
        _evidence(reading, longest),
        official=Effect.ADVISORY,
    )


def _adapted_apart(reading: Reading) -> Event | None:
    """An optimiser step on validation tokens before the reported evaluation and outside of it."""
    first = reading.reported.first_score()
    function = reading.reported.function
    if first is None or function is None:
        return None
    network = {r for s in reading.reported.scores for r in s.roles if r.startswith("param:")}
    found: list[Event] = []
    for event in reading.trace.of(Kind.STEP):
        apart = event.seq < first.seq and all(f.id != function.id for f in event.frames)
        if apart and "val" in event.roles and (not _scores_too(reading, event) or network & event.roles):
            found.append(event)
    return next((e for e in found if not _scores_too(reading, e)), found[0] if found else None)


def _scores_too(reading: Reading, step: Event) -> bool:
    """Whether the function that adapts is itself an evaluation: it, or what it calls, adds up a loss."""
    first = reading.reported.first_score()
    shared = {f.id for f in first.frames} if first is not None else set()
    inside = {f.id for f in step.frames} - shared
    return any(inside & {f.id for f in e.frames} for e in reading.trace.of(Kind.SCORE))


def _sum_of_passes(reading: Reading, timed: list[Timed], apart: Event) -> Finding | None:
    """Where the reported pass starts from what was learnt on validation tokens before, the times add up."""
    alone = not _scores_too(reading, apart)
    for t in sorted(timed, key=lambda t: -t.timer.ms):
        trained = t.run.facts.steps.line if t.run.facts.steps is not None else 0
        others = [
            o
            for o in t.run.facts.timed("adapt", "eval")
            if trained < o.line < t.timer.line - 2 and abs(o.ms - t.timer.ms) > 1_500
        ]
        longest = max(others, key=lambda o: o.ms, default=None)
        if longest is None or longest.ms + t.least_ms <= BUDGET_MS:
            continue
        evidence = (
            reading.at(apart, "trains on validation tokens before the reported pass"),
            line_evidence(
                reading, t.run, longest.line, "time of that training" if alone else "time of an earlier pass"
            ),
            *_evidence(reading, t),
        )
        both = f"{seconds(longest.ms)} ({longest.label[:50]}) and {seconds(t.timer.ms)} for the reported pass"
        used = machine(reading, t.run)
        sure = used.contest or used.surely_over(longest.ms + t.least_ms, BUDGET_MS)
        if alone and sure and longest.kind == "adapt":
            return Finding(
                Status.ACTIVE,
                f"Training on validation tokens is part of the evaluation: {both} make"
                f" {seconds(longest.ms + t.timer.ms)}, over the budget of 600 s"
                f"{NO_RECORD if reading.claims_no_record else ''}.",
                Confidence.MEDIUM,
                evidence,
                reading.call_path(apart),
                official=eased(reading),
            )
        return Finding(
            Status.SUSPECT,
            f"The model is trained on validation tokens before the reported pass: {both} are over 600 s together"
            + (f", on {used.told}." if not sure else ", if the one builds on the other."),
            Confidence.LOW,
            evidence,
            reading.call_path(apart),
        )
    return None


def _left_out(timed: list[Timed]) -> str:
    """What the timers leave out, at most, in words."""
    worst = max(timed, key=lambda t: sum(o.ms for o in t.outside))
    if not worst.outside:
        return ""
    kinds = {"compile": "compiling", "deserialise": "loading", "precompute": "precomputing"}
    sums: dict[str, float] = {}
    for timer in worst.outside:
        sums[kinds[timer.kind]] = sums.get(kinds[timer.kind], 0.0) + timer.ms
    told = " and ".join(f"{name} {seconds(ms)}" for name, ms in sums.items())
    return f"; the timer leaves out {told}"


def _evidence(reading: Reading, timed: Timed) -> tuple[Evidence, ...]:
    found = [line_evidence(reading, timed.run, timed.timer.line, "time of the reported evaluation")]
    found += [line_evidence(reading, timed.run, t.line, "not in that time") for t in timed.outside[:4]]
    return tuple(found)


def _without_a_timer(reading: Reading) -> Finding:
    claim = reading.run.claim
    stated = [p for p in stated_seconds(reading, _STATED) if not _NOT_STATED.search(p[0]) and p[1] < 1e6]
    over = [p for p in stated if p[1] * 1000 > BUDGET_MS]
    if stated and claim.file is not None:
        key, value = max(over or stated, key=lambda p: p[1])
        line = claim.line_of(key)
        text = reading.line_text(claim.file, line) or f"{key}: {value:g}"
        shown = (reading.log_evidence(claim.file, line, text, "stated time"),)
        told = f"No log times the reported evaluation; submission.json states {value:g} ({key})"
        if over:
            return Finding(Status.SUSPECT, f"{told}: a person must see whether that is seconds.", Confidence.LOW, shown)
        return Finding(Status.CLEAN, f"{told}.", Confidence.LOW, shown)
    if not reading.run.logs and claim.val_bpb is None:
        return Finding(Status.NOT_APPLICABLE, "No result is claimed and no run is logged.", Confidence.MEDIUM)
    told = "Neither a log nor submission.json tells how long the evaluation took"
    first = reading.reported.first_score()
    if first is None:
        return Finding(Status.UNKNOWN, f"{told}, and its code was not found.", Confidence.HIGH)
    adapting = [e for e in reading.trace.of(Kind.STEP) if "val" in e.roles]
    if adapting:
        return Finding(
            Status.SUSPECT,
            f"{told}, and the script trains on validation tokens, which takes minutes: running it would tell.",
            Confidence.LOW,
            (reading.at(adapting[0], "trains on validation tokens"),),
            reading.call_path(adapting[0]),
        )
    return Finding(
        Status.CLEAN,
        f"{told}; it only applies the model to the split, which takes seconds to a few minutes.",
        Confidence.LOW,
        (reading.at(first, "scored here, without training"),),
        reading.call_path(first),
    )


_SCRIPT = script(
    """
    def evaluate(model, val_tokens):
        total = torch.zeros(())
        with torch.no_grad():
            for i in range(0, val_tokens.numel() - 1, 1024):
                chunk = val_tokens[i : i + 1025]
                total += model(chunk[:-1], chunk[1:]) * (chunk.numel() - 1)
        return total / val_tokens.numel()


    model = GPT()
    bpb = evaluate(model, load_tokens("fineweb_val_*.bin"))
    print(f"final_ttt val_bpb:{bpb:.4f} eval_time:{0:.0f}ms")
    """
)
_JSON = '{"val_bpb": 1.0700}\n'


def _log(ms: int, before: str = "", gpus: int = 8) -> str:
    return (
        f"world_size:{gpus}\n"
        "stopping_early: wallclock_cap train_time:596000ms step:4800/20000\n"
        "diagnostic quantized val_bpb:1.0800 eval_time:76000ms\n"
        f"{before}"
        f"final_ttt val_bpb:1.0700 eval_time:{ms}ms\n"
    )


_HINTS = "ngram hints: precompute done in 160.0s\n"

EvalOverTime.VIOLATION = (
    Example(
        "the reported figure's own timer is over 600 s",
        {"train_gpt.py": _SCRIPT, "submission.json": _JSON, "train.log": _log(763_797)},
        Status.ACTIVE,
    ),
    Example(
        "hints precomputed before the timer starts",
        {
            "train_gpt.py": _SCRIPT,
            "submission.json": _JSON,
            "train.log": _log(480_000, f"{_HINTS}beginning eval timer\n"),
        },
        Status.ACTIVE,
    ),
)

EvalOverTime.LEGAL = (
    Example(
        "compilation before the timer",
        {
            "train_gpt.py": _SCRIPT,
            "submission.json": _JSON,
            "train.log": _log(519_500, "lora compile warmup done (149.9s)\nbeginning eval timer\n"),
        },
        Status.CLEAN,
    ),
    Example(
        "hints precomputed inside the timer",
        {
            "train_gpt.py": _SCRIPT,
            "submission.json": _JSON,
            "train.log": _log(580_000, f"beginning eval timer\n{_HINTS}"),
        },
        Status.CLEAN,
    ),
    Example(
        "over 600 s on a single device",
        {"train_gpt.py": _SCRIPT, "submission.json": _JSON, "train.log": _log(1_400_000, gpus=1)},
        Status.SUSPECT,
    ),
    Example(
        "no time is told, and nothing is trained at evaluation",
        {"train_gpt.py": _SCRIPT, "submission.json": _JSON},
        Status.CLEAN,
    ),
)
