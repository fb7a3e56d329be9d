"""Training data is used after the 600 s: Hessians, activation statistics, pruning.

**What it catches.** Calibration of the quantiser (GPTQ Hessians, AWQ scales), pruning or any other pass over
training data between the end of the training clock and the end of the script, when clock and calibration together pass
600 s.

**Why it breaks the score.** Calibration fits the artifact to training data. Evaluation may not read training data, and
training has ten minutes: what comes after belongs to neither.

**Legal look-alikes.** A reserve: training stops early enough for the calibration to fit. Text that the model generated
itself; random tokens. Rounding, packing and compressing, which read no data. Calibration on validation tokens is
`val-calibration`. Runs on the non-record track.

**How it is read.** The code's trace shows a network applied to training tokens after the last optimiser step of
training, outside of the training loop, and the setting that keeps a reserve; the log tells when training stopped and
how long collecting took. Where the log does not time it, a run that stopped without any reserve is over, and one that
stopped at least ten seconds early is not. A reserve that falls short by less than a second is let pass.

**Remedy.** Stop training early enough (the field reserves 4 to 12 s), or calibrate on self-generated text.

**Ruling.** Organisers closed some fifteen submissions for it on 24 and 25 March 2026 (#606: 3.6 s); on #609: everything
must fit into training or evaluation. Records merged in late April stop at 599.6 s and then collect for 3.5 to
6.9 s (#1787, #1851, #1855, #2135): no longer enforced, hence an advisory. Self-generated text was merged (#1019).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from auditor.clock import (
    OVERSHOOT_MS,
    Stop,
    held_to_budgets,
    line_evidence,
    machine,
    seconds,
    stops,
)
from auditor.contest import BUDGET_MS
from auditor.index.trace import Event, Kind
from auditor.logs import RunLog
from auditor.reading import Reading
from auditor.verdict import Confidence, Effect, Evidence, Status
from rules.base import Example, Finding, Rule
from rules.examples import script

LIMIT_MS = BUDGET_MS + OVERSHOOT_MS
ENOUGH_MS = 10_000.0
"""A reserve that every timed calibration of the contest's usual size fits into."""
FAMILIAR_MS = 4_000.0
"""The shortest reserve that timed runs of merged records fit into."""
RESERVE_MS = 1_000.0
"""A run that stops later than this before the end keeps no reserve worth the name."""
NONE_MS = 100.0
"""A run that stops later than this before the end has no time left for anything."""
EXCEEDED_MS = 1_000.0
"""By how much a reserve may fall short: 600.8 s in all were merged as compliant (#1493)."""
_RESERVE = re.compile(r"(?i)reserve")


@dataclass(frozen=True)
class Calibrated:
    """One run: when training stopped, and how long collecting statistics took (None: not told)."""

    stop: Stop
    ms: float | None
    line: int | None

    @property
    def end_ms(self) -> float:
        return self.stop.least_ms + (self.ms or 0.0)

    @property
    def told(self) -> str:
        if self.ms is None:
            return f"training stopped at {seconds(self.stop.ms)}, and the log does not time the calibration"
        return (
            f"training stopped at {seconds(self.stop.ms)} and collecting took {self.ms / 1000:.1f} s,"
            f" together {seconds(self.stop.ms + self.ms)}"
        )


class CalibrationOverBudget(Rule):
    """See the module's documentation."""

    slug = "calibration-over-budget"
    group = "budget"
    title = "training data used after the 600 s (Hessians, pruning, ...)"
    official = Effect.ADVISORY
    strict = Effect.VIOLATION
    evidence = ("code", "log")
    precedents = (
        "organisers, 24 and 25 Mar 2026: #529 #569 #576 #593 #606 #609 and others closed",
        "not enforced on merged records: #1787 #1851 #1855 #2135",
        "legal: a reserve that covers it (#1394, #1626); self-generated text (#1019)",
    )

    def check(self, reading: Reading) -> Finding:
        if not held_to_budgets(reading):
            return Finding(
                Status.NOT_APPLICABLE,
                "The folder is not on the record track, where training time is limited.",
                Confidence.HIGH,
            )
        problem = reading.unreadable()
        if problem is not None:
            return Finding(Status.UNKNOWN, f"The code could not be read: {problem}.", Confidence.HIGH)
        uses = _uses(reading)
        ran = [(u, *reading.ran(u)) for u in uses]
        happened = [(u, shown) for u, did, shown in ran if did is not False]
        if not happened:
            return _none(reading, uses[0] if uses else None)
        use, shown = happened[0]
        settings = tuple(sorted(n for n in reading.trace.defaults if _RESERVE.search(n)))
        code = (
            reading.at(use, "applies the model to training data after training"),
            *((shown,) if shown is not None else ()),
            *reading.setting_evidence(settings)[:4],
        )
        label = _label_of(reading, shown)
        timed = [_calibrated(s, label) for s in stops(reading)]
        if not timed:
            kept = _reserved_ms(reading, settings)
            if kept >= FAMILIAR_MS:
                return Finding(
                    Status.CLEAN,
                    f"Training data is used after training; no log tells when that was, but {seconds(kept)} are kept"
                    " for it.",
                    Confidence.LOW,
                    code,
                    reading.call_path(use),
                    settings,
                )
            return Finding(
                Status.SUSPECT,
                "Training data is used after training, and no log tells when training stopped.",
                Confidence.LOW,
                code,
                reading.call_path(use),
                settings,
            )
        certain = shown is not None or not use.undecided
        return _judge(reading, use, timed, code, settings, certain)


def _judge(
    reading: Reading,
    use: Event,
    timed: list[Calibrated],
    code: tuple[Evidence, ...],
    settings: tuple[str, ...],
    certain: bool,
) -> Finding:
    path = reading.call_path(use)
    late = [c for c in timed if _late(c)]
    # A rerun with a reserve speaks for its seed.
    again = {c.stop.run.seed for c in timed if c not in late and c.stop.run.seed is not None}
    over = [c for c in late if c.stop.run.seed not in again]
    timed = [c for c in timed if c in over or c not in late]
    rerun = " (each seed that was over has a rerun)" if late and not over else ""
    if over:
        worst = max(over, key=lambda c: c.end_ms)
        used = machine(reading, worst.stop.run)
        many = f" ({len(over)} of {len(timed)} runs)" if len(timed) > 1 else ""
        evidence = (*_evidence(reading, worst), *code)
        if used.contest and certain:
            return Finding(
                Status.ACTIVE,
                f"Training data is used after the 600 s{many}: {worst.told}.",
                Confidence.HIGH if worst.ms is not None else Confidence.MEDIUM,
                evidence,
                path,
                settings,
            )
        why = "whether the code ran is not settled" if used.contest else f"this was on {used.told}"
        return Finding(
            Status.SUSPECT,
            f"Training data may be used after the 600 s{many}: {worst.told}; {why}.",
            Confidence.LOW,
            evidence,
            path,
            settings,
        )
    unclear = [c for c in timed if c.ms is None and c.stop.ms > BUDGET_MS - ENOUGH_MS]
    if unclear:
        return Finding(
            Status.SUSPECT,
            f"Training data is used after training: {unclear[0].told}; whether the rest of the 600 s suffices is open.",
            Confidence.LOW,
            (*_evidence(reading, unclear[0]), *code),
            path,
            settings,
        )
    latest = max(timed, key=lambda c: c.end_ms)
    return Finding(
        Status.CLEAN,
        f"Training data is used after training, but within the 600 s{rerun}: {latest.told}.",
        Confidence.HIGH if latest.ms is not None else Confidence.MEDIUM,
        (*_evidence(reading, latest), *code),
        path,
        settings,
    )


def _late(calibrated: Calibrated) -> bool:
    """Whether a run used training data after the time: with a reserve that fell short by little, it did not."""
    if calibrated.ms is None:
        return calibrated.stop.least_ms > BUDGET_MS - NONE_MS
    unreserved = calibrated.stop.least_ms > BUDGET_MS - RESERVE_MS
    return calibrated.end_ms > (LIMIT_MS if unreserved else BUDGET_MS + EXCEEDED_MS)


def _reserved_ms(reading: Reading, settings: tuple[str, ...]) -> float:
    """The longest time that a setting named for it keeps; values from 1,000 are milliseconds."""
    longest = 0.0
    for name in settings:
        values = reading.values_of(name)
        if values and re.fullmatch(r"\d+(?:\.\d*)?", values[-1].value):
            value = float(values[-1].value)
            longest = max(longest, value if value >= 1_000 else value * 1_000)
    return longest


def _uses(reading: Reading) -> list[Event]:
    """Where a network is applied to training tokens after training, outside of every loop that trains."""
    steps = [e for e in reading.trace.of(Kind.STEP) if "train" in e.roles and "val" not in e.roles]
    if not steps:
        return []
    training = {loop.id for step in steps for loop in step.loops}
    first, last = steps[0].seq, steps[-1].seq
    found: list[Event] = []
    for event in reading.trace.of(Kind.MODEL_CALL):
        if "train" not in event.roles or "val" in event.roles or event.seq < first:
            continue
        if (event.seq > last or event.no_grad) and not training & {loop.id for loop in event.loops}:
            found.append(event)
    outermost: dict[int, Event] = {}
    for event in found:
        outermost.setdefault(event.frames[-1].id, event)
    return list(outermost.values())[:8]


def _label_of(reading: Reading, shown: Evidence | None) -> str | None:
    """What the log line that shows that it ran calls its own duration, if it gives one."""
    if shown is None:
        return None
    timers = (t for run in reading.run.claim_runs if run.file == shown.file for t in run.facts.timers)
    return next((t.label for t in timers if t.line == shown.line), None)


def _calibrated(stop: Stop, label: str | None = None) -> Calibrated:
    """How long it took: by the timer of that ``label``, else by the longest that speaks of calibration."""
    facts = stop.run.facts
    own = [t for t in facts.timers if t.label == label and t.line > stop.line]
    if own:
        return Calibrated(stop, own[-1].ms, own[-1].line)
    timers = [t for t in facts.timed("hessian") if t.line > stop.line]
    longest = max(timers, key=lambda t: t.ms, default=None)
    if longest is not None and longest.ms > 0:
        return Calibrated(stop, longest.ms, longest.line)
    if facts.hessians is not None and facts.hessians.ms:
        return Calibrated(stop, facts.hessians.ms, facts.hessians.line)
    return Calibrated(stop, None, facts.hessians.line if facts.hessians is not None else None)


def _evidence(reading: Reading, calibrated: Calibrated) -> tuple[Evidence, ...]:
    run: RunLog = calibrated.stop.run
    found = [line_evidence(reading, run, calibrated.stop.line, "training stopped here")]
    if calibrated.line is not None:
        found.append(line_evidence(reading, run, calibrated.line, "calibration, as logged"))
    return tuple(found)


def _none(reading: Reading, idle: Event | None) -> Finding:
    """No use of training data after training: what is there instead."""
    if idle is not None:
        return Finding(
            Status.CLEAN,
            "The code that would use training data after training did not run, as the log shows.",
            Confidence.MEDIUM,
            (reading.at(idle, "did not run"),),
        )
    made = [
        e
        for e in reading.trace.of(Kind.MODEL_CALL)
        if e.no_grad and "random" in e.roles and not {"train", "val"} & e.roles
    ]
    logged = next((r for r in reading.run.claim_runs if r.facts.hessians is not None), None)
    if made and logged is not None and logged.facts.hessians is not None:
        return Finding(
            Status.CLEAN,
            "The calibration reads text that the model generated itself, no training data.",
            Confidence.HIGH,
            (
                reading.at(made[0], "generates or reads its own text"),
                line_evidence(reading, logged, logged.facts.hessians.line, "calibration, as logged"),
            ),
        )
    if logged is not None and logged.facts.hessians is not None and not _on_validation(reading):
        told = logged.facts.hessians
        calibrated = next((c for s in stops(reading) if _late(c := _calibrated(s))), None)
        if told.source in (None, "training") and calibrated is not None:
            return Finding(
                Status.SUSPECT,
                f"The log shows a calibration, and {calibrated.told}; its data could not be followed in the code.",
                Confidence.LOW,
                _evidence(reading, calibrated),
            )
    return Finding(
        Status.CLEAN,
        "Nothing applies the model to training data after training.",
        Confidence.HIGH if reading.trace.of(Kind.STEP) else Confidence.LOW,
    )


def _on_validation(reading: Reading) -> bool:
    """Whether a network is applied to validation tokens without gradients before anything is scored."""
    first = reading.reported.first_score()
    return any(
        e.no_grad and "val" in e.roles and (first is None or e.seq < first.seq)
        for e in reading.trace.of(Kind.MODEL_CALL)
    )


def _script(data: str, reserve: str) -> str:
    return script(
        f"""
        import time

        reserve = float(os.environ.get("GPTQ_RESERVE_SECONDS", "{reserve}"))


        def collect(model, batches):
            total = torch.zeros(())
            with torch.no_grad():
                for x in batches:
                    h = model(x[:-1], x[1:])
                    total += h * h
            return total


        model = GPT()
        optimizer = torch.optim.AdamW(model.parameters())
        train_tokens = load_tokens("fineweb_train_*.bin")
        start = time.perf_counter()
        for step in range(20000):
            loss = model(train_tokens[:1024], train_tokens[1:1025])
            loss.backward()
            optimizer.step()
            if time.perf_counter() - start > 600 - reserve:
                break
        t0 = time.perf_counter()
        hessian = collect(model, {data})
        print(f"gptq: collected Hessians in {{time.perf_counter() - t0:.1f}}s")
        torch.save(quantize(model.state_dict()), "model.pt")
        """
    )


_ON_TRAIN = "[train_tokens[i : i + 1025] for i in range(0, 65536, 1024)]"
_GENERATED = "[torch.randint(0, 1024, (1025,)) for _ in range(64)]"
_JSON = '{"val_bpb": 1.0611}\n'


def _log(stop: int, took: str) -> str:
    return (
        "world_size:8\n"
        f"stopping_early: wallclock_cap train_time:{stop}ms step:4900/20000\n"
        f"gptq: collected Hessians in {took}s\n"
        "final_int6_roundtrip val_bpb:1.0611 eval_time:1400ms\n"
    )


CalibrationOverBudget.VIOLATION = (
    Example(
        "stopped at 599.6 s, then Hessians on training data for 3.5 s",
        {
            "train_gpt.py": _script(_ON_TRAIN, "0.5"),
            "submission.json": _JSON,
            "train.log": _log(599_592, "3.5"),
        },
        Status.ACTIVE,
    ),
)

CalibrationOverBudget.LEGAL = (
    Example(
        "a reserve that covers the calibration",
        {
            "train_gpt.py": _script(_ON_TRAIN, "12"),
            "submission.json": _JSON,
            "train.log": _log(588_006, "11.3"),
        },
        Status.CLEAN,
    ),
    Example(
        "the calibration reads random tokens",
        {
            "train_gpt.py": _script(_GENERATED, "0"),
            "submission.json": _JSON,
            "train.log": _log(600_041, "21.7"),
        },
        Status.CLEAN,
    ),
    Example(
        "quantising without data",
        {
            "train_gpt.py": _script("[]", "0"),
            "submission.json": _JSON,
            "train.log": _log(600_041, "0.0").replace("gptq: collected Hessians in 0.0s\n", ""),
        },
        Status.CLEAN,
    ),
)
