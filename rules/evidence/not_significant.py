"""The claimed gain does not clear the bar against the record that stood.

**What it catches.** Record-track submissions whose seeds are not better than those of the record that stood
when they were opened, by what chance alone explains: by less than 0.005 nats, or at a p-value that the applied
bar does not allow, or not better at all.

**Why it breaks the claim.** Training from another seed alone moves the score by several ten-thousandths of a
bit. Who may pick among enough runs will find a record in the noise.

**Legal look-alikes.** Gains in speed alone, for which README waives the bar: that can't be told from the files,
so it is said here. A record that clears the applied bar though not the written one. More seeds than three.

**How it is read.** The figures of the seed runs, as logged, are compared with those of the best accepted record
opened on an earlier day, by Welch's t-test (unequal variances, one-sided, as the organisers computed it). The
records with their seeds are a table in this tool (auditor/records.json says how it was made); `--baseline`
names another. The gain is given in nats per token of the submission's own tokenizer. Where the day is not
known, the last record is taken, and it is said.

**Remedy.** More seeds; or a larger gain; or a submission to the non-record track.

**Ruling.** README: at least 0.005 nats at p < 0.01. Applied from 29 April 2026 on: better than the
chronological predecessor at p < 0.25; several accepted records lie below 0.005 nats. Organisers turned down
#374, #473, #589 and #1784 by significance. Advisory, with both bars shown.
"""

from __future__ import annotations

from auditor.reading import Reading
from auditor.significance import APPLIED_P, WRITTEN_NATS, WRITTEN_P, SeedResult, Test, compare, standing
from auditor.verdict import Confidence, Effect, Evidence, Status
from rules.base import Example, Finding, Rule
from rules.examples import script


class NotSignificant(Rule):
    slug = "not-significant"
    group = "evidence"
    title = "the claimed gain does not clear the bar"
    evidence = ("log",)
    official = Effect.ADVISORY
    strict = Effect.VIOLATION
    precedents = ("#374, #473, #589, #1784: not significant", "#1902: p < 0.25 in chronological order")

    def check(self, reading: Reading) -> Finding:
        if reading.folder.track != "record":
            return Finding(Status.NOT_APPLICABLE, "Only a record has to clear the bar.")
        runs = reading.seed_runs.runs
        results = [SeedResult(seed=r.seed, val_loss=r.metric.val_loss, val_bpb=r.metric.val_bpb) for r in runs]
        evidence = [
            reading.log_evidence(
                r.run.file, r.metric.line, reading.line_text(r.run.file, r.metric.line) or r.metric.text,
                "as logged" if r.seed is None else f"as logged, seed {r.seed}",
            )
            for r in runs[:5]
        ]  # fmt: skip
        claim = reading.run.claim
        if not results and claim.val_bpb is not None and claim.file is not None:
            results = [SeedResult(val_bpb=float(claim.val_bpb))]
            line = claim.val_bpb_line or 1
            text = reading.line_text(claim.file, line) or str(claim.val_bpb)
            evidence = [reading.log_evidence(claim.file, line, text, "what is claimed")]
        if not results or any(not 0 < r.val_bpb < 10 for r in results):
            return Finding(Status.NOT_APPLICABLE, "No score is claimed or logged.")
        baseline = reading.baseline or standing(reading.submission.opened)
        test = compare(results, baseline)
        return _judge(reading, test, tuple(evidence), logged=bool(runs))


def _judge(reading: Reading, test: Test, evidence: tuple[Evidence, ...], *, logged: bool) -> Finding:
    how = f"{_runs(test.runs, logged)}: {test.sentence()}"
    if reading.baseline is None and reading.submission.opened is None:
        how += "; the day of opening is not known, so the last record is taken (--baseline names another)"
    written = _bar(test.meets_written_bar, f"written bar ({WRITTEN_NATS} nats at p < {WRITTEN_P})")
    applied = _bar(test.meets_applied_bar, f"applied bar (p < {APPLIED_P} in order of opening)")
    reason = f"{how}; {written}, {applied}."
    if test.meets_written_bar:
        return Finding(Status.CLEAN, reason, Confidence.HIGH, evidence)
    if test.meets_written_bar is None and test.meets_applied_bar is not False:
        return Finding(Status.SUSPECT, reason, Confidence.MEDIUM, evidence)
    confidence = (
        Confidence.MEDIUM if reading.submission.opened is None and reading.baseline is None else Confidence.HIGH
    )
    # Records that clear the bar as it was applied stand, though the written one is higher.
    accepted = Effect.ACCEPTED if test.meets_applied_bar else None
    return Finding(Status.ACTIVE, reason, confidence, evidence, official=accepted)


def _runs(number: int, logged: bool) -> str:
    if not logged:
        return "The claimed score alone"
    return "One run" if number == 1 else f"The mean of {number} runs"


def _bar(met: bool | None, name: str) -> str:
    return f"{name}: {'not decided' if met is None else 'met' if met else 'not met'}"


def _log(seed: int, bpb: float) -> str:
    return (
        f"Hyperparameters:\n  iterations: 5000\n  seed: {seed}\n"
        f"step:5000/5000 train_loss:2.1{seed % 10}73 train_time:5999{seed % 10}4ms\n"
        f"final_int8_zlib_roundtrip val_loss:{bpb * 1.688:.8f} val_bpb:{bpb:.8f}\n"
    )


def _submission(*figures: float, track: str = "10min_16mb") -> dict[str, str]:
    files = {
        "train_gpt.py": script('model = GPT()\nprint(f"final_int8_zlib_roundtrip val_bpb:{1.0:.8f}")'),
        "README.md": "# A record\n",
        "submission.json": f'{{"track": "{track}", "val_bpb": {sum(figures) / len(figures):.6f}}}\n',
    }
    return files | {f"train_seed{i}.log": _log(i, figure) for i, figure in enumerate(figures, 1)}


NotSignificant.VIOLATION = (
    Example("worse than the record", _submission(1.2311, 1.2317, 1.2305), Status.ACTIVE),
    Example("better by less than chance explains", _submission(1.0569, 1.0551, 1.0573), Status.ACTIVE),
)
NotSignificant.LEGAL = (
    Example("far better in three seeds", _submission(1.0411, 1.0417, 1.0405), Status.CLEAN),
    Example("far better in one", _submission(1.0411), Status.SUSPECT),
    Example("the non-record track", _submission(1.2311, track="non_record_16mb"), Status.NOT_APPLICABLE),
)
