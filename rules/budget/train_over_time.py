"""Training stops after 600 s.

**What it catches.** A run behind a record claim whose own clock passes 600 s before training stops: a limit set
higher or switched off, a forced last step that ignores the clock, a clock that is asked too rarely.

**Why it breaks the score.** Every further second of training lowers the loss. Ten minutes on eight H100 are the same
for everybody.

**Legal look-alikes.** The step that was under way when the time was up (about 0.1 s). Warm-up steps before the clock
starts, with the state reset. Validation with the clock paused. Quantising and compressing afterwards. Runs on
the non-record track, which has no limit on compute. Logs in the folder that the claim does not rest on.

**How it is read.** The training time in the line that says why training stopped, else the last one printed. More
than 600.1 s is over; up to 600.4 s, which organisers have merged, it is an advisory, and so it is where the submission
calls itself a non-record one although its folder is on the record track.
On fewer or other devices than eight H100 the time can't be compared, unless eight would be too slow even
at their best.

**Remedy.** Check the clock after each step, and keep a reserve as long as a step.

**Ruling.** README, 18 March 2026. A rerun was demanded on #1945 (seed 42 at 602.0 s); #1908 (601.2 s by a
forced stop step) and #888 were flagged. Overshoot by one step (600.09 s) was tolerated, and records
with up to 600.37 s were merged (#549, #1019, #1120).
"""

from __future__ import annotations

import re

from auditor.clock import (
    NO_RECORD,
    OVERSHOOT_MS,
    Stop,
    clock_settings,
    eased,
    held_to_budgets,
    line_evidence,
    machine,
    seconds,
    stated_seconds,
    stops,
    wallclock_limit,
)
from auditor.contest import BUDGET_MS
from auditor.reading import Reading
from auditor.verdict import Confidence, Effect, Evidence, Status
from rules.base import Example, Finding, Rule
from rules.examples import script

LIMIT_MS = BUDGET_MS + OVERSHOOT_MS
PASSED_MS = 400.0
"""Overshoot that organisers merged (600.365 s on #1120, several steps late); at 602.0 s they demanded a rerun."""
_STATED = re.compile(r"(?i)^(?:train(?:ing)?_?(?:time|wall_?clock)|wall_?clock)\w*$")
_NOT_STATED = re.compile(r"(?i)max_|limit|cap|budget|_ms|minutes|_min$|eval|hours")


class TrainOverTime(Rule):
    """See the module's documentation."""

    slug = "train-over-time"
    group = "budget"
    title = "training stops after 600 s"
    official = Effect.VIOLATION
    strict = Effect.VIOLATION
    evidence = ("log",)
    precedents = (
        "README, 18 Mar 2026: training under 10 minutes on 8xH100 SXM",
        "#1945: rerun demanded for 602.0 s; #1908: 601.2 s by a forced stop step",
        "tolerated: one step's overshoot (600.086 s)",
        "merged with 600.365 s: #1120; with 600.14 s: #1019, #549",
    )

    def check(self, reading: Reading) -> Finding:
        found = stops(reading)
        if not held_to_budgets(reading):
            told = f" (this run's stopped at {seconds(max(s.ms for s in found))})" if found else ""
            return Finding(
                Status.NOT_APPLICABLE,
                f"The folder is not on the record track, where training time is limited{told}.",
                Confidence.HIGH,
            )
        if not found:
            return _without_a_stop(reading)
        over = sorted((s for s in found if s.least_ms > LIMIT_MS), key=lambda s: -s.ms)
        if over:
            return _over(reading, over, len(found))
        latest = max(found, key=lambda s: s.ms)
        others = f", the latest of {len(found)} runs" if len(found) > 1 else ""
        beyond = " (the step under way, tolerated)" if latest.ms > BUDGET_MS else ""
        return Finding(
            Status.CLEAN,
            f"Training stopped at {seconds(latest.ms)} by its own clock{others}{beyond}.",
            Confidence.HIGH if latest.run.facts.stopped is not None else Confidence.MEDIUM,
            (line_evidence(reading, latest.run, latest.line, "training stopped here"),),
        )


def _over(reading: Reading, over: list[Stop], of: int) -> Finding:
    worst = over[0]
    evidence = [line_evidence(reading, s.run, s.line, "training stopped here") for s in over[:3]]
    settings = [n for n in clock_settings(reading) if reading.values_of(n)]
    evidence += reading.setting_evidence(settings)[:4]
    many = f" ({len(over)} of {of} runs are over)" if of > 1 else ""
    told = f"Training stopped at {seconds(worst.ms)} by its own clock{many}"
    used = machine(reading, worst.run)
    if not used.contest and not used.surely_over(worst.least_ms, LIMIT_MS):
        return Finding(
            Status.SUSPECT,
            f"{told}, on {used.told}: how long eight H100 would take is not known.",
            Confidence.LOW,
            tuple(evidence),
            settings=tuple(settings),
        )
    if reading.reported.log is None or not reading.reported.log.linked:
        return Finding(
            Status.SUSPECT,
            f"{told}, but the claimed number was not found in that log: another run may be behind the claim.",
            Confidence.LOW,
            tuple(evidence),
            settings=tuple(settings),
        )
    if all(s.least_ms - BUDGET_MS <= max(PASSED_MS, s.step_ms or 0.0) for s in over):
        return Finding(
            Status.ACTIVE,
            f"{told}: later than the step that was under way explains, but no later than in merged records.",
            Confidence.HIGH,
            tuple(evidence),
            settings=tuple(settings),
            official=Effect.ADVISORY,
        )
    return Finding(
        Status.ACTIVE,
        f"{told}, over the budget of 600 s{NO_RECORD if reading.claims_no_record else ''}.",
        Confidence.HIGH,
        tuple(evidence),
        settings=tuple(settings),
        official=eased(reading),
    )


def _without_a_stop(reading: Reading) -> Finding:
    """No log tells a training time: what the configuration and submission.json say."""
    claim = reading.run.claim
    stated = [p for p in stated_seconds(reading, _STATED) if not _NOT_STATED.search(p[0]) and p[1] < 1e6]
    over = [p for p in stated if p[1] * 1000 > LIMIT_MS]
    if over and claim.file is not None:
        key, value = max(over, key=lambda p: p[1])
        line = claim.line_of(key)
        text = reading.line_text(claim.file, line) or f"{key}: {value:g}"
        return Finding(
            Status.SUSPECT,
            f"No log tells when training stopped; submission.json states {value:g} ({key}): a person must see"
            " whether that is training alone, in seconds.",
            Confidence.LOW,
            (reading.log_evidence(claim.file, line, text, "stated time"),),
        )
    if not reading.run.logs and claim.val_bpb is None:
        return Finding(Status.NOT_APPLICABLE, "No result is claimed and no run is logged.", Confidence.MEDIUM)
    limit = wallclock_limit(reading)
    if limit is not None:
        value, setting = limit
        evidence: tuple[Evidence, ...] = (
            reading.log_evidence(
                setting.file,
                setting.line,
                reading.line_text(setting.file, setting.line) or setting.value,
                f"time limit, from the {setting.origin}",
            ),
        )
        if 0 < value <= BUDGET_MS / 1000:
            return Finding(
                Status.CLEAN,
                f"No log tells when training stopped; the script stops itself at {value:g} s.",
                Confidence.LOW,
                evidence,
            )
        none = "no limit" if value == 0 else f"a limit of {value:g} s"
        return Finding(
            Status.SUSPECT,
            f"No log tells when training stopped, and the run's configuration gives {none}.",
            Confidence.LOW,
            evidence,
        )
    return Finding(
        Status.UNKNOWN, "No log tells when training stopped, and no time limit was found in the code.", Confidence.HIGH
    )


_TRAIN = script(
    """
    import time

    limit = float(os.environ.get("MAX_WALLCLOCK_SECONDS", "600"))
    force = int(os.environ.get("FORCE_STOP_STEP", "0"))
    model = GPT()
    optimizer = torch.optim.AdamW(model.parameters())
    train_tokens = load_tokens("fineweb_train_*.bin")
    start = time.perf_counter()
    for step in range(20000):
        loss = model(train_tokens[:1024], train_tokens[1:1025])
        loss.backward()
        optimizer.step()
        elapsed = time.perf_counter() - start
        if (step >= force) if force else elapsed >= limit:
            print(f"stopping_early: wallclock_cap train_time:{1000 * elapsed:.0f}ms step:{step}/20000")
            break
    """
)
_JSON = '{"val_bpb": 1.2244}\n'


def _log(stop: int, steps: int, gpus: int = 8) -> str:
    return (
        f"world_size:{gpus} grad_accum_steps:{8 // gpus}\n"
        f"step:{steps}/20000 val_loss:2.0660 val_bpb:1.2230 train_time:{stop}ms step_avg:{stop / steps:.2f}ms\n"
        f"stopping_early: wallclock_cap train_time:{stop}ms step:{steps}/20000\n"
        "final_int8_zlib_roundtrip val_loss:2.0673 val_bpb:1.2244 eval_time:1400ms\n"
    )


TrainOverTime.VIOLATION = (
    Example(
        "a forced last step ignores the clock",
        {
            "train_gpt.py": _TRAIN,
            "README.md": "# Run\n\n```bash\nFORCE_STOP_STEP=4945 torchrun --nproc_per_node=8 train_gpt.py\n```\n",
            "submission.json": _JSON,
            "train.log": _log(601_153, 4945),
        },
        Status.ACTIVE,
    ),
    Example(
        "beyond what is tolerated for the step that was under way: reported, but not held against it",
        {"train_gpt.py": _TRAIN, "submission.json": _JSON, "train.log": _log(600_117, 4699)},
        Status.ACTIVE,
    ),
)

TrainOverTime.LEGAL = (
    Example(
        "the step that was under way",
        {"train_gpt.py": _TRAIN, "submission.json": _JSON, "train.log": _log(600_086, 6776)},
        Status.CLEAN,
    ),
    Example(
        "stopped early enough to keep a reserve",
        {"train_gpt.py": _TRAIN, "submission.json": _JSON, "train.log": _log(588_006, 4621)},
        Status.CLEAN,
    ),
    Example(
        "one device for longer than eight may take",
        {"train_gpt.py": _TRAIN, "submission.json": _JSON, "train.log": _log(3_600_000, 5000, gpus=1)},
        Status.SUSPECT,
    ),
    Example(
        "no log, but the script stops itself",
        {"train_gpt.py": _TRAIN, "submission.json": _JSON},
        Status.CLEAN,
    ),
)
