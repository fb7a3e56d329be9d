"""What every report has in common: the protocol, the wording, and the order of findings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Protocol

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

LIMITS = "The code was read, not run. No violation found does not mean legal: only people can rule that."

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
