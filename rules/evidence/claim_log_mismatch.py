"""What is claimed does not follow from the submission's own logs.

**What it catches.** A headline that no log prints and that is neither the mean nor any of the seeds' figures:
corrected, normalised or extrapolated ones, those of another run, typing errors that matter; rows for single
seeds that their own logs contradict; a log that holds nothing but a crash; statements in submission.json
("three_seeds": true) that the logs refute.

**Why it breaks the score.** The leaderboard's number is the one that the script printed. An offset, however
well explained, is not.

**Legal look-alikes.** Rounding and cutting off; the mean, the median or the best of the seeds; several
evaluations in one log; a log per seed under any name; figures of seeds whose logs are missing (see
missing-files); logs in a form that can't be read: no claim is called wrong for that; a claim worse than what
the logs show; a slip in the first digit, which the stated seeds give away; an evaluation whose log is not there,
beside the log of another that the document tells apart from it: the last three are asked about.

**How it is read.** The headline is looked up in every log: as a result, as any other figure, as a bare number;
then as the mean of the runs and of the rows per seed. The rows are looked up in the same way. Both kinds of
standard deviation are computed again, and it is said which one was stated. An unread log, or one that was cut
off, leaves a question open; a finding needs logs with results that give another number.

**Remedy.** State what the logs print, with their seeds, and ship the logs the statement is made from.

**Ruling.** Organisers excluded #1981 (an offset), #2118 (text against logs) and #2139 (three seeds stated, one
run). Settled.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal

from auditor.contest import ARTIFACT_CAP
from auditor.logs import RunLog, is_log
from auditor.reading import Reading
from auditor.runconfig.claimed import ClaimedFigure
from auditor.runconfig.derive import (
    EXACT_DIGITS,
    LogFigure,
    averaged,
    close,
    combined,
    find_figure,
    find_number,
    spread,
)
from auditor.text import decimals
from auditor.verdict import Confidence, Effect, Evidence, Status
from rules.base import Example, Finding, Rule
from rules.examples import script

_FOREIGN = re.compile(r"(?i)sota|baseline|target|leader|champion|reference|previous|prior|record")
_SEVERAL = re.compile(
    r"(?i)\b(?:\d+|three|five|multi)[- ]seeds?\b|\bseed[- ](?:mean|average)|mean[ _]of|mean_|_mean|avg"
)
OPENING = 12
"""Lines of a README that tell what the submission claims; further down, figures are of many things."""
MATERIAL = Decimal("0.00005")
"""Bits per byte. Smaller differences are slips of the pen: they change no place on any leaderboard."""
LATE_MS = 601_000
_COMPUTED = re.compile(r"(?i)correct|adjust|offset|inflat|normali[sz]|subtract|minus|extrapolat|project|estimat")
_THREE_SEEDS = re.compile(r"(?:three|3)_?seeds?(?!.*(?:pending|missing|todo))|seeds?_?(?:three|3)$")
_SMALL = re.compile(r"under_?16_?mb|fits_?(?:in_?)?16|within_(?:16|cap|size)|size_ok|artifact_ok|under_cap")
_IN_TIME = re.compile(r"train(?:ing)?_?(?:time)?_?under|under_600s?_train|train_within")
_EVALUATED_IN_TIME = re.compile(r"eval(?:uation)?_?(?:time)?_?under|under_600s?_eval|eval_within")


@dataclass(frozen=True)
class Headline:
    """The figure that is claimed, and where. ``stated`` is False for the first figure of a README's text."""

    value: Decimal
    file: str
    line: int
    stated: bool


class ClaimLogMismatch(Rule):
    slug = "claim-log-mismatch"
    group = "evidence"
    title = "the claim does not follow from the submission's own logs"
    evidence = ("log", "files")
    official = Effect.VIOLATION
    strict = Effect.VIOLATION
    precedents = ("#1981: offset", "#2118: body against logs", "#2139: three_seeds", "#1133: the log is a traceback")

    def check(self, reading: Reading) -> Finding:
        run = reading.run
        head = _headline(reading)
        if head is None:
            return Finding(Status.NOT_APPLICABLE, "No figure is claimed.")
        refuted = _refuted_fact(reading)
        if refuted is not None:
            return refuted
        if not run.logs:
            return _no_log(reading, head)
        if not any(r.metrics for r in run.logs):
            return _nothing_printed(reading, head)
        rows = _rows(reading, head)
        wrong = _contradicted(reading, rows)
        follows = self._follows(reading, head, rows)
        if follows is None:
            return self._mismatch(reading, head, rows, wrong)
        if wrong:
            # Rows that are all worse than their logs, under a headline that follows, win nothing: another run's.
            harmless = all(f.value > w.value for f, w in wrong)
            figure, logged = wrong[0]
            return Finding(
                Status.SUSPECT if harmless else Status.ACTIVE,
                f"Seed {figure.seed} is stated with {figure.value}, which no log prints; its log says {logged.text}.",
                Confidence.MEDIUM,
                (
                    _at(reading, figure.file, figure.line, figure.text, f"stated for seed {figure.seed}"),
                    logged.evidence,
                ),
            )
        how, evidence, values = follows
        return Finding(
            Status.CLEAN,
            f"The claimed {head.value} {how}{_spread(reading, values)}.",
            Confidence.HIGH,
            (_at(reading, head.file, head.line, str(head.value), "what is claimed"), *evidence),
        )

    def _follows(
        self, reading: Reading, head: Headline, rows: list[ClaimedFigure]
    ) -> tuple[str, tuple[Evidence, ...], list[Decimal]] | None:
        """How the headline comes about from the logs, the lines that show it, and the figures it is made from."""
        run = reading.run
        shown = reading.seed_runs.runs
        lines = tuple(_of(reading, LogFigure(r.run, r.metric.line, r.metric.text)) for r in shown[:5])
        figures = [r.metric.bpb for r in shown]
        way = combined(figures, head.value) if len(figures) > 1 else None
        if way == "mean":
            return f"is the mean of the {len(figures)} logged runs", lines, figures
        found = find_figure(run.logs, head.value)
        if found is not None and not (found.metric and found.metric.kind == "other" and _FOREIGN.search(found.text)):
            return "stands in the log", (_of(reading, found),), figures
        average = averaged(run.logs, head.value)
        if average is not None and (average.whole or decimals(head.value) >= EXACT_DIGITS):
            members = [LogFigure(r, m.line, m.text) for r, m in average.metrics[:5]]
            return (
                f"is a mean of {len(average.metrics)} logged runs",
                tuple(_of(reading, f) for f in members),
                [m.bpb for _, m in average.metrics],
            )
        label = run.reported()
        if label is not None and label.linked and combined([m for _, m in run.claim.seed_values()], head.value):
            return (
                "is the mean of the seeds' figures, which the logs print",
                lines,
                [m for _, m in run.claim.seed_values()],
            )
        values = [f.value for f in rows]
        way = combined(values, head.value)
        if way is not None and any(find_figure(run.logs, v) is not None for v in values):
            printed = [f for f in rows if find_figure(run.logs, f.value) is not None]
            part = "which the logs print" if len(printed) == len(rows) else f"of which the logs print {len(printed)}"
            return f"is the {way} of the {len(rows)} seeds' figures, {part}", lines, values
        if way is None and len(figures) > 1 and combined(figures, head.value) is not None:
            return f"is the {combined(figures, head.value)} of the {len(figures)} logged runs", lines, figures
        return None

    def _mismatch(
        self,
        reading: Reading,
        head: Headline,
        rows: list[ClaimedFigure],
        wrong: list[tuple[ClaimedFigure, _Logged]],
    ) -> Finding:
        run = reading.run
        shown = reading.seed_runs.runs
        place = _at(reading, head.file, head.line, str(head.value), "what is claimed")
        if not head.stated and head.line > OPENING:
            return Finding(
                Status.NOT_APPLICABLE,
                f"submission.json states no score; the first one in the documents ({head.value}) is not in the logs.",
            )
        lines = tuple(_of(reading, LogFigure(r.run, r.metric.line, r.metric.text)) for r in shown[:5])
        figures = [r.metric.bpb for r in shown]
        if not figures:
            return Finding(
                Status.SUSPECT,
                f"The claimed {head.value} is not in the logs, which show figures of the training only:"
                " look for the log of the evaluation.",
                Confidence.LOW,
                (place, *_last_figures(reading)),
            )
        logged_seeds = {r.seed for r in shown}
        unlogged = [s for s in (run.claims.seeds or run.claim.seeds) if s not in logged_seeds]
        mean = sum(figures, Decimal(0)) / len(figures)
        nearest = min([*figures, mean], key=lambda v: abs(v - head.value))
        what = f"the mean of {len(figures)} runs" if len(figures) > 1 and nearest == mean else "the log's figure"
        difference = f"it differs from {what} ({nearest:.8f}".rstrip("0") + f") by {head.value - nearest:+.5f}"
        by_rows = combined([f.value for f in rows], head.value)
        if by_rows is not None and (unlogged or None in logged_seeds):
            return Finding(
                Status.SUSPECT,
                f"The claimed {head.value} is the {by_rows} of the figures stated for the seeds, but no log prints"
                " these: ask for their logs.",
                Confidence.MEDIUM,
                (place, *lines),
            )
        told = f"{run.claim.val_bpb_key} {run.claim.text[:4000]} {' '.join(_opening(reading))}"
        several = len(figures) == 1 and _SEVERAL.search(told) is not None
        if several and not unlogged and by_rows is None and not rows:
            return Finding(
                Status.SUSPECT,
                f"The claimed {head.value} is not the logged figure ({difference}); it is called a mean of several"
                " runs, of which one log is there.",
                Confidence.MEDIUM,
                (place, *lines),
            )
        if unlogged and by_rows is None and not rows:
            return Finding(
                Status.SUSPECT,
                f"The claimed {head.value} does not follow from the logs that are there ({difference}); logs of further"
                f" seeds ({', '.join(map(str, unlogged[:5]))}) are missing.",
                Confidence.MEDIUM,
                (place, *lines),
            )
        if abs(head.value - nearest) < MATERIAL:
            return Finding(
                Status.CLEAN,
                f"The claimed {head.value} is the logged figure up to a slip ({difference}).",
                Confidence.MEDIUM,
                (place, *lines),
            )
        open_logs = [r for r in run.logs if not r.final_metrics and not r.facts.tracebacks]
        some = averaged(run.logs, head.value)
        if some is not None:
            named = ", ".join(dict.fromkeys(r.file.rsplit("/", 1)[-1] for r, _ in some.metrics))
            return Finding(
                Status.SUSPECT,
                f"The claimed {head.value} is the mean of some of the logged runs only ({named}):"
                " see which were chosen.",
                Confidence.MEDIUM,
                (place, *lines),
            )
        passing = find_figure(run.logs, head.value, anywhere=True)
        if passing is not None:
            return Finding(
                Status.SUSPECT,
                f"The claimed {head.value} is no result in the logs ({difference}); a figure in passing meets it.",
                Confidence.MEDIUM,
                (place, _of(reading, passing), *lines),
            )
        lenient = _no_deceit(reading, head, rows, figures, difference, len(wrong))
        if lenient is not None:
            return Finding(Status.SUSPECT, lenient, Confidence.LOW, (place, *lines))
        certain = head.stated and not open_logs and all(r.final_metrics for r in run.claim_runs)
        reason = f"The claimed {head.value} does not follow from the logs: {difference}"
        left = "; some logs show no result: look there." if open_logs else "; see whether it is what is claimed."
        if rows and by_rows is None:
            reason += "; nor is it the mean of the stated seeds"
        return Finding(
            Status.ACTIVE if certain else Status.SUSPECT,
            reason + ("." if certain else left),
            Confidence.HIGH if certain else Confidence.LOW,
            tuple(dict.fromkeys((place, *(logged.evidence for _, logged in wrong[:2]), *lines))),
        )


def _no_deceit(
    reading: Reading,
    head: Headline,
    rows: list[ClaimedFigure],
    figures: list[Decimal],
    difference: str,
    contradicted: int,
) -> str | None:
    """Why a headline that the logs do not show need not be a wrong claim, or None.

    ``contradicted`` counts the stated rows for which the log of the same seed shows another figure.
    """
    stated = [f.value for f in rows] or [v for _, v in reading.run.claim.seed_values()]
    for whole in (Decimal(1), Decimal(-1)):
        if combined(stated or figures, head.value + whole) == "mean" and combined(figures, head.value + whole):
            return (
                f"The claimed {head.value} is a slip in its first digit: the logs and the stated seeds give"
                f" {head.value + whole}."
            )
    # A test loss does not fall by taking the worse of two figures.
    if head.value > max(figures):
        return (
            f"The claimed {head.value} is not in the logs ({difference}), but is worse than what they show:"
            " ask which run it is of."
        )
    log = reading.reported.log
    if log is not None and not log.linked and not reading.reported.in_log and reading.reported.metric is not None:
        told = [_told_in_readme(reading, v) for v in (head.value, Decimal(str(log.value)))]
        if all(told) and told[0] != told[1]:
            return (
                f"The claimed {head.value} is not in the logs ({difference}); the document states the logged figure as"
                " that of another evaluation, and the script does not print it: ask for the log of the claimed one."
            )
    mean = sum(figures, Decimal(0)) / len(figures)
    here = _told_in_readme(reading, head.value)
    there = set().union(*(_told_in_readme(reading, value) for value in (*figures, mean)))
    if head.stated and contradicted < 2 and here and there and not here & there and not _computed(reading, here):
        return (
            f"The claimed {head.value} is not in the logs ({difference}); the document states the logged figure beside"
            " it, as that of another run or evaluation: ask for the log of the claimed one."
        )
    return None


def _computed(reading: Reading, lines: set[int]) -> bool:
    """Whether the first document says that the figure on these lines is a corrected or extrapolated one."""
    first = reading.run.documents[0]
    return any(_COMPUTED.search(reading.line_text(first.file, n) or "") for n in lines)


def _told_in_readme(reading: Reading, value: Decimal) -> set[int]:
    """The lines of the first document that state ``value`` with four digits or more."""
    found = set()
    for document in reading.run.documents[:1]:
        file = next((f for f in reading.folder.files if f.path == document.file), None)
        for number, line in enumerate(file.text.split("\n") if file is not None else (), 1):
            for text in re.findall(r"(?<![\d.])\d\.\d{4,}(?!\d)", line):
                if close(value, Decimal(text)):
                    found.add(number)
    return found


@dataclass(frozen=True)
class _Logged:
    text: str
    value: Decimal
    evidence: Evidence


def _spread(reading: Reading, values: list[Decimal]) -> str:
    """What is to be said of the stated standard deviation."""
    claims = reading.run.claims
    stated = [f for f in claims.submission if f.role == "std" and f.quantity == "bpb"]
    stated += [f for column in claims.tables for f in column if f.role == "std" and f.quantity == "bpb"]
    if not stated or len(values) < 2:
        return ""
    used: dict[str, str] = {}
    for figure in stated[:6]:
        made = spread(values, figure.value)
        if made is not None and made.used is not None:
            used.setdefault(made.used, f"{figure.value} in {figure.file.rsplit('/', 1)[-1]}:{figure.line}")
    both = spread(values)
    assert both is not None
    computed = f"sample {both.sample:.6f}, population {both.population:.6f}"
    if not used:
        return f"; the stated standard deviation ({stated[0].value}) is neither kind ({computed})"
    told = " and ".join(f"the {kind} one ({where})" for kind, where in used.items())
    return f"; as standard deviation {told} is stated ({computed})"


def _headline(reading: Reading) -> Headline | None:
    claim = reading.run.claim
    if claim.val_bpb is not None and claim.file is not None and claim.val_bpb > 0:
        return Headline(claim.val_bpb, claim.file, claim.val_bpb_line or 1, True)
    if reading.run.readme_claim is not None and not claim.per_seed:
        value, file, line = reading.run.readme_claim
        return Headline(value, file, line, False)
    return None


def _opening(reading: Reading) -> list[str]:
    return [piece.text for d in reading.run.documents[:1] for piece in d.prose[:8]]


def _rows(reading: Reading, head: Headline) -> list[ClaimedFigure]:
    """The figures stated for single seeds from which the headline is made: of submission.json, else of a table."""
    claims = reading.run.claims
    columns: dict[str, list[ClaimedFigure]] = {}
    for figure in claims.submission:
        if figure.role == "seed" and figure.quantity == "bpb":
            columns.setdefault(figure.column, []).append(figure)
    candidates = list(columns.values())
    candidates += [[f for f in t if f.role == "seed" and f.quantity == "bpb"] for t in claims.tables]
    candidates = [c for c in candidates if c]
    for column in candidates:
        if combined([f.value for f in column], head.value) is not None:
            return column
    return list(next(iter(columns.values()), [])) if len(columns) == 1 else []


def _contradicted(reading: Reading, rows: list[ClaimedFigure]) -> list[tuple[ClaimedFigure, _Logged]]:
    """Stated rows that no log prints although the log of that seed shows another figure."""
    found = []
    if len({f.seed for f in rows}) < len(rows):
        return []  # several configurations for one seed: the log can be of any
    for figure in rows:
        own = next((r for r in reading.seed_runs.runs if r.seed == figure.seed), None)
        if own is None or find_figure(reading.run.logs, figure.value) is not None:
            continue
        # Its own figure up to a slip, or that of a seed without a log: then the printed seed is not that of the run.
        logged = {r.seed for r in reading.seed_runs.runs}
        if any(abs(own.metric.bpb - f.value) < MATERIAL for f in rows if f is figure or f.seed not in logged):
            continue
        evidence = _of(reading, LogFigure(own.run, own.metric.line, own.metric.text))
        found.append((figure, _Logged(own.metric.bpb_text, own.metric.bpb, evidence)))
    return found


def _no_log(reading: Reading, head: Headline) -> Finding:
    unread = [f for f in reading.folder.files if is_log(f) and f.size > 0]
    if not unread:
        return Finding(Status.NOT_APPLICABLE, "There is no log to compare the claim with (see missing-files).")
    file = unread[0]
    text = reading.line_text(file.path, 1) or file.name
    return Finding(
        Status.SUSPECT,
        f"No run was recognised in {file.name}: see whether it bears out {head.value}.",
        Confidence.LOW,
        (
            _at(reading, head.file, head.line, str(head.value), "what is claimed"),
            _at(reading, file.path, 1, text, "a log"),
        ),
    )


def _nothing_printed(reading: Reading, head: Headline) -> Finding:
    place = _at(reading, head.file, head.line, str(head.value), "what is claimed")
    found = find_number(reading.run.logs, head.value)
    if found is not None:
        return Finding(
            Status.CLEAN, f"The claimed {head.value} stands in a log.", Confidence.MEDIUM, (place, _of(reading, found))
        )
    crashed = [(r, t) for r in reading.run.logs for t in r.facts.tracebacks]
    if crashed and all(r.facts.tracebacks for r in reading.run.logs):
        run, traceback = crashed[0]
        text = reading.line_text(run.file, traceback.line) or traceback.value
        return Finding(
            Status.ACTIVE,
            f"The claimed {head.value} has no log: what is shipped as one ends in an error before any result.",
            Confidence.HIGH,
            (place, _at(reading, run.file, traceback.line, text, "the run ends here")),
        )
    first = reading.run.logs[0]
    text = reading.line_text(first.file, first.first_line) or first.file
    return Finding(
        Status.SUSPECT,
        f"No result was recognised in the logs: see whether they bear out {head.value}.",
        Confidence.LOW,
        (place, _at(reading, first.file, first.first_line, text, "a log without a result")),
    )


def _refuted_fact(reading: Reading) -> Finding | None:
    """A yes in submission.json that the logs answer with no."""
    for fact in reading.run.claims.facts:
        if not fact.value:
            continue
        against = None
        official: Effect | None = Effect.ADVISORY  # the budgets have rules of their own, which decide
        if _THREE_SEEDS.search(fact.name):
            shown, claimed = reading.seed_runs, reading.run.claims.seeds or reading.run.claim.seeds
            if shown.runs and shown.independent < 3 and len(claimed) < 3 and not shown.unread:
                last = shown.runs[-1]
                against = (
                    f"the logs show {shown.independent}",
                    LogFigure(last.run, last.metric.line, last.metric.text),
                )
                official = None
        elif _SMALL.search(fact.name):
            against = _oversize(reading.run.claim_runs)
        elif _IN_TIME.search(fact.name):
            against = _late(reading.run.claim_runs)
        elif _EVALUATED_IN_TIME.search(fact.name):
            against = _late_evaluation(reading.run.claim_runs)
        if against is not None:
            what, where = against
            return Finding(
                Status.ACTIVE,
                f'submission.json states "{fact.name}": true, but {what}.',
                Confidence.HIGH,
                (_at(reading, fact.file, fact.line, fact.name, "what is stated"), _of(reading, where)),
                official=official,
            )
    return None


def _oversize(runs: tuple[RunLog, ...]) -> tuple[str, LogFigure] | None:
    """A run whose model alone is over the cap in every form printed; how code counts is another rule's matter."""
    for run in runs:
        models = [s for s in run.facts.sizes if s.exact and s.kind in ("model", "total")]
        smallest = min(models, key=lambda s: s.bytes, default=None)
        if smallest is not None and smallest.bytes > ARTIFACT_CAP:
            return f"a log counts {smallest.bytes:,} bytes", LogFigure(run, smallest.line, smallest.label)
    return None


def _late(runs: tuple[RunLog, ...]) -> tuple[str, LogFigure] | None:
    for run in runs:
        spent = run.facts.train_ms
        if spent is not None and spent.value > LATE_MS:
            return f"a run trained for {spent.value / 1000:.1f} s", LogFigure(run, spent.line, "")
    return None


def _late_evaluation(runs: tuple[RunLog, ...]) -> tuple[str, LogFigure] | None:
    for run in runs:
        timer = run.facts.eval_timer
        if timer is not None and timer.ms > LATE_MS:
            return f"an evaluation took {timer.ms / 1000:.1f} s", LogFigure(run, timer.line, timer.label)
    return None


def _last_figures(reading: Reading) -> tuple[Evidence, ...]:
    with_figures = [r for r in reading.run.logs if r.metrics]
    return tuple(_of(reading, LogFigure(r, r.metrics[-1].line, r.metrics[-1].text)) for r in with_figures[:2])


def _of(reading: Reading, figure: LogFigure) -> Evidence:
    role = "as logged" if figure.run.seed is None else f"as logged, seed {figure.run.seed}"
    return _at(reading, figure.run.file, figure.line, figure.text, role)


def _at(reading: Reading, file: str, line: int, text: str, role: str) -> Evidence:
    return reading.log_evidence(file, line, reading.line_text(file, line) or text, role)


def _log(seed: int, bpb: float) -> str:
    return (
        f"Hyperparameters:\n  iterations: 5000\n  seed: {seed}\n"
        f"step:5000/5000 train_loss:2.1{seed % 10}73 train_time:5999{seed % 10}4ms\n"
        f"pre_quant val_loss:{(bpb - 0.01) * 1.688:.8f} val_bpb:{bpb - 0.01:.8f}\n"
        f"final_int8_zlib_roundtrip val_loss:{bpb * 1.688:.8f} val_bpb:{bpb:.8f}\n"
    )


def _submission(claim: str, readme: str = "# Nine layers\n", **logs: str) -> dict[str, str]:
    files = {
        "train_gpt.py": script('model = GPT()\nprint(f"final_int8_zlib_roundtrip val_bpb:{1.0:.8f}")'),
        "README.md": readme,
        "submission.json": claim + "\n",
    }
    return files | {f"{name}.log": text for name, text in logs.items()}


_EVALUATION = """
def evaluate(model, val_tokens):
    loss_sum = torch.zeros(())
    with torch.no_grad():
        for i in range(0, val_tokens.numel() - 1024, 1024):
            loss_sum += model(val_tokens[i : i + 1024], val_tokens[i + 1 : i + 1025])
    return loss_sum


bpb = evaluate(GPT(), load_tokens("data/fineweb_val_*.bin")).item()
print(f"sliding window of 64: val_bpb:{bpb:.8f}")
"""
_THREE = {"train_seed7": _log(7, 1.23112345), "train_seed8": _log(8, 1.23171234), "train_seed9": _log(9, 1.2305)}
_TABLE = (
    "# Run\n\n| Seed | val_bpb |\n|---|---|\n| 7 | 1.2311 |\n| 8 | {eight} |\n| 9 | 1.2305 |\n"
    "| Mean | 1.2311 ± 0.0006 |\n"
)

ClaimLogMismatch.VIOLATION = (
    Example("an offset was taken off the mean", _submission('{"val_bpb": 1.2261}', **_THREE), Status.ACTIVE),
    Example(
        "a figure that the document itself calls corrected, beside the logged one",
        _submission(
            '{"val_bpb": 1.2261}',
            "# Run\n\n- val_bpb as logged: 1.2311\n- val_bpb corrected for the inflation: 1.2261\n",
            **_THREE,
        ),
        Status.ACTIVE,
    ),
    Example(
        "another figure than the log's",
        _submission('{"val_bpb": 1.2214, "seed": 7}', train=_log(7, 1.23112345)),
        Status.ACTIVE,
    ),
    Example(
        "the log is a crash",
        _submission(
            '{"val_bpb": 1.2214}',
            train="Hyperparameters:\n  iterations: 5000\n  seed: 7\nTraceback (most recent call last):\n"
            '  File "train_gpt.py", line 9, in <module>\n    main()\nRuntimeError: out of memory\n',
        ),
        Status.ACTIVE,
    ),
    Example(
        "three seeds are stated, one was run",
        _submission('{"val_bpb": 1.23112, "compliance": {"three_seeds": true}}', train=_log(7, 1.23112345)),
        Status.ACTIVE,
    ),
    Example(
        "a row that its own log contradicts",
        _submission('{"val_bpb": 1.2311}', _TABLE.format(eight="1.2309"), **_THREE),
        Status.ACTIVE,
    ),
)
ClaimLogMismatch.LEGAL = (
    Example(
        "the mean of three seeds, rounded, with the sample deviation",
        _submission('{"val_bpb": 1.2311}', _TABLE.format(eight="1.2317"), **_THREE),
        Status.CLEAN,
    ),
    Example("a figure cut off, not rounded", _submission('{"val_bpb": 1.2317}', train=_log(7, 1.23178)), Status.CLEAN),
    Example(
        "worse than the log: nothing is won",
        _submission('{"val_bpb": 1.2399, "seed": 7}', train=_log(7, 1.23112345)),
        Status.SUSPECT,
    ),
    Example(
        "a slip in the first digit",
        _submission('{"val_bpb_mean": 0.2311, "seed_results": {"7": 1.2311, "8": 1.2317, "9": 1.2305}}', **_THREE),
        Status.SUSPECT,
    ),
    Example(
        "a row worse than its own log, under a headline that follows",
        _submission('{"val_bpb": 1.2311}', _TABLE.format(eight="1.2321"), **_THREE),
        Status.SUSPECT,
    ),
    Example(
        "a note about another evaluation in place of the log",
        _submission(
            '{"val_bpb": 1.2214}',
            "# Run\n\n| Evaluation | val_bpb |\n|---|---|\n| plain | 1.2311 |\n| sliding | 1.2214 |\n",
            train="Summary of the runs\n  val_bpb: 1.2311\n",
        )
        | {"train_gpt.py": script(_EVALUATION)},
        Status.SUSPECT,
    ),
    Example(
        "the log of another variant than the claimed one, and both are stated",
        _submission(
            '{"val_bpb": 1.22713, "seed": 7}',
            "# A study\n\n| Variant | val_bpb |\n|---|---|\n| fused, fourth | 1.22713 |\n| fused, fifth | 1.23112 |\n"
            "\ntrain.log is of the fifth.\n",
            train=_log(7, 1.23112345),
        ),
        Status.SUSPECT,
    ),
    Example(
        "logs of two configurations: the claim is compared with those of its own",
        _submission(
            '{"mean_val_bpb": 1.1316, "seed_results": {"7": 1.1316, "8": 1.1317}}',
            one_seed7=_log(7, 1.23112345),
            one_seed8=_log(8, 1.23171234),
            two_seed7=_log(7, 1.13112345),
            two_seed8=_log(8, 1.13151234),
        ),
        Status.SUSPECT,
    ),
    Example("the best seed", _submission('{"val_bpb": 1.2305}', **_THREE), Status.CLEAN),
    Example("no log", _submission('{"val_bpb": 1.2305}'), Status.NOT_APPLICABLE),
    Example(
        "a log in a form that nobody knows",
        _submission('{"val_bpb": 1.2214}', train="seed: 7\niterations: 5000\nscore after all is said: one and a bit\n"),
        Status.SUSPECT,
    ),
    Example(
        "a mean over seeds whose logs are missing",
        _submission('{"val_bpb": 1.2214, "seeds": [7, 8, 9]}', train_seed7=_log(7, 1.23112345)),
        Status.SUSPECT,
    ),
)
