"""A record is claimed on fewer than three independent seed runs.

**What it catches.** Submissions to the record track whose logs show fewer than three runs that were trained
from different seeds in the same configuration and report the same kind of figure. Three evaluations of one
checkpoint are one seed, and so are two logs of one run.

**Why it breaks the claim.** Runs differ from seed to seed by as much as one record differs from the next. A
single run, or the best of several, shows no improvement that others would see.

**Legal look-alikes.** More than three seeds; logs in a subfolder or several runs in one log; evaluation in a
log of its own beside that of the training; seeds whose settings differ in paths and names only; the non-record
track, which asks for no seeds.

**How it is read.** Every log of the folder that prints the reported figure is a candidate. Runs of one seed
count once; runs that agree to six digits or more in what was measured before the reported evaluation share a
checkpoint. Settings printed by the runs are compared. Logs that can't be read, or seeds whose figures are
stated while their logs are missing, leave the question open.

**Remedy.** Train and evaluate three seeds with the submitted script and add their logs.

**Ruling.** README: enough logs to show the gain at p < 0.01; three runs usually suffice. Organisers turned down
#181, #1963, #2020, #2121, #2124 and #2139 for it. In the contest's first days (until 20 March 2026) single runs
were merged: a note there. A submission that calls itself non-record although it lies in the record track claims
no record: likewise.
"""

from __future__ import annotations

from auditor.reading import Reading
from auditor.runconfig.seeds import SeedRun, SeedRuns
from auditor.verdict import Confidence, Effect, Evidence, Status
from rules.base import Example, Finding, Rule
from rules.examples import script

ENOUGH = 3
SINGLE_RUNS_MERGED_UNTIL = "2026-03-20"
"""Records of one run that were opened up to this day stand on the leaderboard."""


class InsufficientSeeds(Rule):
    slug = "insufficient-seeds"
    group = "evidence"
    title = "fewer than 3 matching, independent seed runs for a record"
    evidence = ("log", "files")
    official = Effect.VIOLATION
    strict = Effect.VIOLATION
    precedents = ("#181, #1963, #2020, #2121, #2124, #2139: single or unlike seeds",)

    def check(self, reading: Reading) -> Finding:
        if reading.folder.track != "record":
            return Finding(Status.NOT_APPLICABLE, "Only the record track asks for several seeds.")
        run = reading.run
        claimed = run.claims.seeds or run.claim.seeds
        # A figure in README is no claim where submission.json leaves its own open: it may be another's, or a target.
        told = run.claim.val_bpb is not None or (run.readme_claim is not None and not run.claim.left_open)
        if not told and not claimed and not run.logs:
            return Finding(Status.NOT_APPLICABLE, "No score is claimed.")
        shown = reading.seed_runs
        number = shown.independent
        evidence = tuple(_figure(reading, r) for r in shown.runs[:6])
        if number >= ENOUGH:
            return self._enough(reading, shown, evidence)
        if shown.shared:
            first, metric, second, twin = shown.shared[0]
            evidence = (
                _line(reading, first, metric.line, metric.text, "the same figure, to the last digit"),
                _line(reading, second, twin.line, twin.text, "the same figure, to the last digit"),
                *evidence,
            )
            reason = (
                f"The logs hold evaluations for {_count(len(shown.runs))}, but these share a checkpoint:"
                f" {_count(number)} was trained."
            )
            return Finding(Status.ACTIVE, reason, Confidence.HIGH, evidence, official=_tolerated(reading))
        seeds = [r.seed for r in shown.runs]
        without = [s for s in claimed if s not in seeds]
        named = f" ({', '.join(str(s) for s in seeds)})" if seeds and None not in seeds else ""
        if number + len({r.file for r in shown.unread}) >= ENOUGH:
            unread = shown.unread[0]
            place = reading.log_evidence(
                unread.file, unread.first_line, reading.line_text(unread.file, unread.first_line) or unread.file,
                "a log in which no result was recognised",
            )  # fmt: skip
            return Finding(
                Status.SUSPECT,
                f"A result was recognised in the logs of {_count(number)}{named}; more logs are there: read these.",
                Confidence.LOW,
                (*evidence, place),
            )
        apart = [r for r in shown.otherwise if r.seed in without]
        if apart and len({r.seed for r in apart}) == len(without):
            last = apart[0].final_metrics[-1]
            place = reading.log_evidence(
                apart[0].file, last.line, reading.line_text(apart[0].file, last.line) or last.text,
                f"seed {apart[0].seed} was evaluated otherwise",
            )  # fmt: skip
            return Finding(
                Status.ACTIVE,
                f"The reported evaluation is in the logs of {_count(number)}{named} only; the log of seed"
                f" {apart[0].seed} ends with another one ({last.label}).",
                Confidence.MEDIUM,
                (place, *evidence),
                official=_tolerated(reading),
            )
        if len(claimed) >= ENOUGH and without:
            return Finding(
                Status.SUSPECT,
                f"Figures are stated for {_count(len(claimed))}, but the logs show {_count(number)}{named}:"
                f" ask for the logs of {', '.join(map(str, without[:6]))}.",
                Confidence.MEDIUM,
                (*evidence, *_stated(reading, without)),
            )
        what = (
            f"the logs show {_count(number)}{named}"
            if run.logs
            else f"{_count(len(claimed))} is claimed, and no log is there"
        )
        if run.logs and not shown.runs:
            what = "no log shows a result"
        if not run.logs and not claimed:
            what = "no run is shown"
        return Finding(
            Status.ACTIVE,
            f"A record asks for three independent runs, but {what}.",
            Confidence.HIGH,
            evidence or _headline(reading),
            official=_tolerated(reading),
        )

    def _enough(self, reading: Reading, shown: SeedRuns, evidence: tuple[Evidence, ...]) -> Finding:
        settings = {s for names in reading.trace.aliases.values() for s in (names,)} | set(reading.trace.defaults)
        known = {s.lower() for s in settings} | {s.lower() for s in reading.trace.aliases}
        unlike = [(name, values) for name, values in shown.unlike if name.lower() in known]
        alike = _largest_alike(unlike, shown)
        if unlike and alike < ENOUGH:
            name, values = unlike[0]
            listed = "; ".join(f"{name}={v} (seed {r.seed})" for v, r in values[:5])
            places = tuple(
                _line(reading, r, at.line, f"{name}: {v}", f"{name}, as this run printed it")
                for v, r in values[:4]
                if (at := r.run.hyperparameters.get(name)) is not None
            )
            return Finding(
                Status.SUSPECT,
                f"The runs were not configured alike ({listed}): see whether that touches the reported figure.",
                Confidence.MEDIUM,
                (*places, *evidence[:3]),
            )
        seeds = [str(r.seed) for r in shown.runs if r.seed is not None]
        named = f" (seeds {', '.join(seeds[:8])})" if seeds else ""
        return Finding(
            Status.CLEAN, f"The logs show {_count(shown.independent)}{named}.", Confidence.HIGH, evidence[:5]
        )


def _largest_alike(unlike: list[tuple[str, tuple[tuple[str, SeedRun], ...]]], shown: SeedRuns) -> int:
    """How many runs agree in all these settings, at most."""
    groups: dict[tuple[str, ...], int] = {}
    for run in shown.runs:
        key = tuple(next((v for v, r in values if r is run), "") for _, values in unlike)
        groups[key] = groups.get(key, 0) + 1
    return max(groups.values(), default=0)


def _count(number: int) -> str:
    words = {0: "no seed run", 1: "one seed run", 2: "two seed runs"}
    return words.get(number, f"{number} seed runs")


def _tolerated(reading: Reading) -> Effect | None:
    """What makes a short record no violation as rules were applied: its day, or that it claims no record."""
    opened = reading.submission.opened
    if opened is not None and opened <= SINGLE_RUNS_MERGED_UNTIL:
        return Effect.ADVISORY
    return Effect.ADVISORY if reading.claims_no_record else None


def _figure(reading: Reading, run: SeedRun) -> Evidence:
    whose = f"seed {run.seed}" if run.seed is not None else "a run"
    return _line(reading, run, run.metric.line, run.metric.text, f"the figure of {whose}")


def _line(reading: Reading, run: SeedRun, line: int, text: str, role: str) -> Evidence:
    return reading.log_evidence(run.run.file, line, reading.line_text(run.run.file, line) or text, role)


def _headline(reading: Reading) -> tuple[Evidence, ...]:
    run = reading.run
    if run.claim.file is not None and run.claim.val_bpb is not None:
        line = run.claim.val_bpb_line or 1
        text = reading.line_text(run.claim.file, line) or f"val_bpb {run.claim.val_bpb}"
        return (reading.log_evidence(run.claim.file, line, text, "what is claimed"),)
    if run.readme_claim is not None:
        value, file, line = run.readme_claim
        return (reading.log_evidence(file, line, reading.line_text(file, line) or str(value), "what is claimed"),)
    files = [
        *([run.claim.file] if run.claim.file else []),
        *(d.file for d in run.documents),
        *(r.file for r in run.logs),
    ]
    return tuple(
        reading.log_evidence(file, 1, reading.line_text(file, 1) or file.rsplit("/", 1)[-1], "the claim's file")
        for file in files[:1]
    )


def _stated(reading: Reading, seeds: list[int]) -> tuple[Evidence, ...]:
    claims = reading.run.claims
    figures = [*claims.submission, *(f for column in claims.tables for f in column)]
    found: list[Evidence] = []
    for seed in seeds[:3]:
        figure = next((f for f in figures if f.seed == seed), None)
        if figure is not None:
            text = reading.line_text(figure.file, figure.line) or figure.text
            found.append(reading.log_evidence(figure.file, figure.line, text, f"stated for seed {seed}"))
    return tuple(found) or _headline(reading)


def _log(seed: int, bpb: float, steps: int = 5000, trained: float = 0.0) -> str:
    trained = trained or bpb - 0.01
    return (
        f"Hyperparameters:\n  iterations: {steps}\n  lr: 0.02\n  seed: {seed}\n"
        f"step:{steps}/{steps} train_loss:2.1{seed % 10}73 train_time:5999{seed % 10}4ms\n"
        f"pre_quant val_loss:{trained * 1.688:.8f} val_bpb:{trained:.8f}\n"
        f"final_int8_zlib_roundtrip val_loss:{bpb * 1.688:.8f} val_bpb:{bpb:.8f}\n"
    )


_CODE = script(
    """
    steps = int(os.environ.get("ITERATIONS", "5000"))
    rate = float(os.environ.get("LR", "0.02"))
    model = GPT()
    print(f"final_int8_zlib_roundtrip val_bpb:{float(steps) * rate:.8f}")
    """
)


def _submission(**logs: str) -> dict[str, str]:
    files = {
        "train_gpt.py": _CODE,
        "README.md": "# Nine layers\n",
        "submission.json": '{"track": "10min_16mb", "val_bpb": 1.2311}\n',
    }
    return files | {f"{name}.log": text for name, text in logs.items()}


_SHARED = {seed: _log(seed, 1.23 + seed / 1e4, trained=1.22110034) for seed in (7, 8, 9)}

InsufficientSeeds.VIOLATION = (
    Example("one run", _submission(train=_log(7, 1.2311)), Status.ACTIVE),
    Example("two seeds", _submission(train_seed7=_log(7, 1.2311), train_seed8=_log(8, 1.2317)), Status.ACTIVE),
    Example(
        "one run under three names",
        _submission(train=_log(7, 1.2311), train_again=_log(7, 1.2311), train_seed7=_log(7, 1.2311)),
        Status.ACTIVE,
    ),
    Example(
        "three evaluations of one checkpoint",
        _submission(eval_seed7=_SHARED[7], eval_seed8=_SHARED[8], eval_seed9=_SHARED[9]),
        Status.ACTIVE,
    ),
)
InsufficientSeeds.LEGAL = (
    Example(
        "three seeds",
        _submission(train_seed7=_log(7, 1.2311), train_seed8=_log(8, 1.2317), train_seed9=_log(9, 1.2305)),
        Status.CLEAN,
    ),
    Example(
        "three runs in one log", _submission(train=_log(7, 1.2311) + _log(8, 1.2317) + _log(9, 1.2305)), Status.CLEAN
    ),
    Example(
        "the non-record track",
        _submission(train=_log(7, 1.2311)) | {"submission.json": '{"track": "non_record_16mb", "val_bpb": 1.2311}\n'},
        Status.NOT_APPLICABLE,
    ),
    Example(
        "the figure is left open, README names another's",
        {
            "train_gpt.py": _CODE,
            "README.md": "# Nine layers\n\nBuilt on the base of 1.2244 BPB. **val_bpb: to come**\n",
            "submission.json": '{"track": "10min_16mb", "val_bpb": 0.0}\n',
        },
        Status.NOT_APPLICABLE,
    ),
    Example(
        "three seeds stated, one log",
        _submission(train_seed7=_log(7, 1.2311))
        | {"README.md": "# Run\n\n| Seed | val_bpb |\n|---|---|\n| 7 | 1.2311 |\n| 8 | 1.2317 |\n| 9 | 1.2305 |\n"},
        Status.SUSPECT,
    ),
    Example(
        "a third seed of another configuration",
        _submission(train_seed7=_log(7, 1.2311), train_seed8=_log(8, 1.2317), train_seed9=_log(9, 1.2305, steps=9000)),
        Status.SUSPECT,
    ),
)
