"""What every report has in common: the protocol, the wording, and the order of findings."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Protocol

from auditor.evidence import Attempt
from auditor.probe.result import Number, Override, Position, ProbeReport, ProbeResult, ProbeStatus, Substitution
from auditor.verdict import (
    Effect,
    Evidence,
    Outcome,
    Overall,
    ReportedMetric,
    RunConfig,
    Setting,
    Status,
    SubmissionInfo,
    Verdict,
)


class Report(Protocol):
    """Turns a verdict into text. Pure: the same verdict and options give the same text."""

    def render(self, verdict: Verdict) -> str:
        """The report, ending in exactly one newline."""
        ...


HEADLINES = {
    Overall.VIOLATIONS_FOUND: "VIOLATIONS FOUND",
    Overall.NEEDS_REVIEW: "NEEDS REVIEW",
    Overall.NO_VIOLATION_FOUND: "NO VIOLATION FOUND",
}

# What happened first, the most serious of it on top; then what could not be decided; then the rest.
_EFFECT_RANK = {Effect.VIOLATION: 0, Effect.ADVISORY: 1, Effect.ACCEPTED: 2}
_STATUS_RANK = {
    Status.ACTIVE: 3,
    Status.SUSPECT: 4,
    Status.UNKNOWN: 5,
    Status.LATENT: 6,
    Status.CLEAN: 7,
    Status.NOT_APPLICABLE: 8,
}

_NOT_LEGAL = "No violation found does not mean legal: only people can rule that."
LIMITS = f"The code was read, not run. {_NOT_LEGAL}"
PROBE_LIMITS = f"The code was run in a tiny world, which may lack what sets something off. {_NOT_LEGAL}"

DISPUTE = (
    "Think this is wrong? Answer with the rule's name, the file and line you dispute, what the code does "
    "there instead, and the digest below. A counterexample beats an argument: a few lines that have the same "
    "shape and are legal become a test of the rule."
)


def ranked(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """``outcomes``, most serious first, by slug within one rank."""
    return sorted(outcomes, key=lambda o: (_EFFECT_RANK.get(o.effect, _STATUS_RANK[o.status]), o.rule))


QUIET = (Status.CLEAN, Status.NOT_APPLICABLE)
"""Statuses that ask nothing of a reader: with some fifty rules, most outcomes. Reports fold them."""


def shown(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """The outcomes a reader must look into: all but clean and not applicable ones, ranked."""
    return [o for o in ranked(outcomes) if o.status not in QUIET]


def grouped(outcomes: Iterable[Outcome]) -> list[list[Outcome]]:
    """``outcomes``, ranked, those that could not be analysed for one and the same reason put together.

    A script that can't be read leaves most rules unknown, and saying so once is enough.
    """
    groups: dict[object, list[Outcome]] = {}
    for outcome in ranked(outcomes):
        same = (outcome.status, outcome.reason, outcome.confidence)
        groups.setdefault(same if outcome.status is Status.UNKNOWN else outcome.rule, []).append(outcome)
    return list(groups.values())


def folded(outcomes: Iterable[Outcome]) -> list[tuple[Status, list[str]]]:
    """The slugs of the quiet outcomes, by status."""
    ordered = ranked(outcomes)
    by_status = ((status, [o.rule for o in ordered if o.status is status]) for status in QUIET)
    return [(status, slugs) for status, slugs in by_status if slugs]


def has_details(outcome: Outcome) -> bool:
    """Whether there is more to show of ``outcome`` than its row in the table of rules."""
    return bool(outcome.evidence or outcome.call_path or outcome.settings or outcome.fix)


def finding(outcome: Outcome) -> str:
    """Status and effect in a few words, such as ``active (violation)`` or ``latent``."""
    if outcome.effect is Effect.NONE:
        return outcome.status.value
    return f"{outcome.status.value} ({outcome.effect.value})"


def title(info: SubmissionInfo) -> str:
    """What to call the submission in one line: ``owner/repo#number``, else its source."""
    if info.repository and info.number is not None:
        return f"{info.repository}#{info.number}"
    return info.source


def gist(overall: Overall, outcomes: Sequence[Outcome], limit: int = 3) -> str:
    """The findings that made ``overall``, named, at most ``limit`` of them."""
    if overall is Overall.VIOLATIONS_FOUND:
        slugs = [o.rule for o in ranked(outcomes) if o.effect is Effect.VIOLATION]
    elif overall is Overall.NEEDS_REVIEW:
        slugs = [o.rule for o in ranked(outcomes) if o.status in (Status.SUSPECT, Status.UNKNOWN)]
    else:
        return "1 rule checked" if len(outcomes) == 1 else f"{len(outcomes)} rules checked"
    named = ", ".join(slugs[:limit])
    return f"{named} and {len(slugs) - limit} more" if len(slugs) > limit else named


def tally(outcomes: Iterable[Outcome]) -> str:
    """How many of each finding, such as ``1 active (violation), 3 clean``."""
    counts = Counter(finding(o) for o in ranked(outcomes))  # insertion order is rank order
    return ", ".join(f"{count} {what}" for what, count in counts.items())


def within(path: str, folder: str | None) -> str:
    """``path`` relative to the record folder where it lies below it: that prefix says nothing new."""
    if folder and folder != "." and path.startswith(f"{folder.rstrip('/')}/"):
        return path[len(folder.rstrip("/")) + 1 :]
    return path


def place(evidence: Evidence, folder: str | None) -> str:
    """``file:line:column``, as editors and terminals understand it."""
    return f"{within(evidence.file, folder)}:{evidence.line}:{evidence.column}"


def packed_note(evidence: Evidence) -> str | None:
    """Where to look in the shipped file when ``evidence`` points into the unpacked program."""
    if evidence.view != "unpacked":
        return None
    if evidence.shipped_line is None:
        return "line of the unpacked program"
    column = f", column {evidence.shipped_column}" if evidence.shipped_column is not None else ""
    return f"line of the unpacked program; packed in line {evidence.shipped_line}{column} of the shipped file"


def is_packed(outcomes: Iterable[Outcome]) -> bool:
    """Whether any evidence points into a program that had to be unpacked first."""
    return any(e.view == "unpacked" for o in outcomes for e in o.evidence)


def settings_of(outcome: Outcome, config: RunConfig) -> list[Setting]:
    """The run settings that ``outcome`` rests on, in its order; a name nothing is known of has no values."""
    known = {setting.name: setting for setting in config.settings}
    return [known.get(name) or Setting(name=name, value=None, values=()) for name in outcome.settings]


def number(value: float) -> str:
    """A metric as people write it: the shortest digits that give the same float."""
    return repr(value)


_SEED = re.compile(r"(?i)seed\W{0,3}(\d+)")


def launches(commands: Iterable[str]) -> list[str]:
    """``commands``, those that differ in nothing but the seed put together: the first of them, and all their seeds."""
    alike: dict[str, tuple[str, dict[str, None]]] = {}
    for command in commands:
        seeds = dict.fromkeys(_SEED.findall(command))
        template = command
        for seed in seeds:  # wherever it stands: the name of the run often carries it too
            template = re.sub(rf"(?<![\d.]){seed}(?![\d.])", "{}", template)
        alike.setdefault(template, (command, {}))[1].update(seeds)
    return [f"{c}  (seeds {', '.join(seeds)})" if len(seeds) > 1 else c for c, seeds in alike.values()]


def metric_places(metric: ReportedMetric, folder: str | None) -> str:
    """Which evaluation the number comes from and which log line states it; empty if neither is known."""
    parts = []
    if metric.evaluation:
        at = f" ({within(metric.file, folder)}:{metric.line})" if metric.file and metric.line else ""
        parts.append(f"from {metric.evaluation}{at}")
    if metric.log_file:
        line = f":{metric.log_line}" if metric.log_line else ""
        parts.append(f"logged at {within(metric.log_file, folder)}{line}")
    return ", ".join(parts)


# -- probes ----------------------------------------------------------------------------------------------------

_PROBE_RANK = {
    ProbeStatus.VIOLATED: 0,
    ProbeStatus.LATENT: 1,
    ProbeStatus.COULD_NOT_RUN: 2,
    ProbeStatus.CLEAN: 3,
    ProbeStatus.NOT_APPLICABLE: 4,
}
_SEEN_BY = {"shim": "a shim on PATH", "audit-hook": "Python's audit hook: advisory", "limit": "a limit"}


def limits(verdict: Verdict) -> str:
    """What a reader must not take ``verdict`` for."""
    return LIMITS if verdict.probes is None else PROBE_LIMITS


def ranked_probes(report: ProbeReport) -> list[ProbeResult]:
    """The results, the most telling first."""
    return sorted(report.results, key=lambda r: (_PROBE_RANK[r.status], r.name))


def probes_overall(report: ProbeReport) -> Overall:
    """What the results add up to; a probe that could not run leaves its question open."""
    statuses = {result.status for result in report.results}
    if ProbeStatus.VIOLATED in statuses:
        return Overall.VIOLATIONS_FOUND
    return Overall.NEEDS_REVIEW if ProbeStatus.COULD_NOT_RUN in statuses else Overall.NO_VIOLATION_FOUND


def probes_gist(report: ProbeReport) -> str:
    """The probes that made the overall result, by name."""
    overall = probes_overall(report)
    decisive = {Overall.VIOLATIONS_FOUND: ProbeStatus.VIOLATED, Overall.NEEDS_REVIEW: ProbeStatus.COULD_NOT_RUN}
    names = [r.name for r in ranked_probes(report) if r.status is decisive.get(overall)]
    named = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    if overall is Overall.NEEDS_REVIEW:
        return f"could not run: {named}"
    return named or f"{len(report.results)} probe{'s' if len(report.results) != 1 else ''} run"


def probes_tally(report: ProbeReport) -> str:
    """How many probes ended in which way."""
    counts = Counter(r.status.value.replace("-", " ") for r in ranked_probes(report))
    return ", ".join(f"{count} {what}" for what, count in counts.items())


def sandbox_note(report: ProbeReport) -> str:
    """Where the submission's code ran."""
    if report.sandboxed:
        return "bubblewrap: no network, nothing writable but its own output folder"
    return "none, as asked with --no-sandbox: the code ran with the rights of whoever started it"


def quantity(value: float | None, unit: str = "") -> str:
    """A measured number with its unit."""
    text = "?" if value is None else f"{value:,.0f}" if value.is_integer() else f"{value:.6g}"
    return f"{text} {unit}".rstrip()


def number_line(number: Number) -> str:
    """A figure of the proof in words."""
    expected = "" if number.expected is None else f", must be {quantity(number.expected, number.unit)}"
    return f"{number.name}: {quantity(number.value, number.unit)}{expected}"


def position_line(position: Position) -> str:
    """Where something moved, in words."""
    if position.changed is None:
        text = f"position {position.moved}"
    else:
        text = f"token {position.changed} changed, position {position.moved} moved"
    if position.before is not None and position.after is not None:
        text += f": {quantity(position.before)} → {quantity(position.after)}"
    return f"{text} ({position.note})" if position.note else text


def comparison(result: ProbeResult) -> str:
    """How much was compared, and what counts as a difference; empty if nothing was."""
    parts = [f"{result.trials} run{'s' if result.trials != 1 else ''}"] if result.trials else []
    if result.tolerance is not None:
        parts.append(f"up to {quantity(result.tolerance)} is rounding")
    if result.noise is not None:
        parts.append(f"repeats with nothing changed differ by {quantity(result.noise)}")
    return "; ".join(parts)


def stop_place(result: ProbeResult, folder: str | None) -> str:
    """The line that stopped a probe; empty if there is none."""
    stop = result.stop
    if stop is None or stop.file is None:
        return ""
    return within(stop.file, folder) + (f":{stop.line}" if stop.line else "")


def substitution_lines(items: Iterable[Substitution], folder: str | None, limit: int = 10) -> list[str]:
    """What was put in place of what, each once with the lines where, at most ``limit`` of them."""
    lines: dict[tuple[str, str | None], list[int]] = {}
    for item in items:
        lines.setdefault((item.what, item.file), []).extend([item.line] if item.line else [])
    found = []
    for (what, file), places in lines.items():
        more = f" and {len(places) - limit} more" if len(places) > limit else ""
        at = f":{', '.join(map(str, sorted(places)[:limit]))}{more}" if places else ""
        found.append(what if file is None else f"{what} ({within(file, folder)}{at})")
    return found


def meanings(result: ProbeResult) -> list[str]:
    """What a result says about rules, without repeating its reason."""
    return [
        f"{s.rule} {s.status.value}" + ("" if s.reason == result.reason else f": {s.reason}")
        for s in result.shown
        if not s.suspected_only
    ]


def override_line(item: Override) -> str:
    """A setting, its value in the run, and the one it had in the probe."""
    return f"{item.name} {'?' if item.run is None else item.run} → {item.probe}"


def attempt_line(attempt: Attempt) -> str:
    """What the run tried, and which mechanism saw it."""
    return f"{attempt.kind.replace('-', ' ')}: {attempt.what} (seen by {_SEEN_BY[attempt.seen_by]})"
