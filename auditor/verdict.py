"""The verdict: what the auditor says about a submission, in a form that people and machines can check.

Everything here is frozen and forbids unknown fields; the JSON schema is exported to docs/verdict.schema.json.
No field depends on the time or the machine, so the same submission gives the same bytes. (What probes measure is
kept to six digits, but is computed by the machine's own arithmetic.)
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Literal

from pydantic import Field

from auditor.evidence import Evidence as Evidence
from auditor.evidence import Frozen as Frozen
from auditor.evidence import Status as Status
from auditor.probe.result import ProbeReport


class Effect(StrEnum):
    """What the policy makes of an active status."""

    VIOLATION = "violation"
    ADVISORY = "advisory"
    ACCEPTED = "accepted"
    NONE = "none"


class Confidence(StrEnum):
    """How sure the reading is: high = every step resolved; medium = one step inferred; low = several."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


class Policy(StrEnum):
    """official = organiser rulings as applied; strict = the letter of issue #1017 and of the README."""

    OFFICIAL = "official"
    STRICT = "strict"


class Overall(StrEnum):
    """The verdict on the whole submission. Never "legal": a tool can't say that."""

    VIOLATIONS_FOUND = "violations-found"
    NEEDS_REVIEW = "needs-review"
    NO_VIOLATION_FOUND = "no-violation-found"


class Frame(Frozen):
    """One step of the call path from the entry point to a finding."""

    function: str
    file: str
    line: int = Field(ge=1)


class SuggestedFix(Frozen):
    """A change that makes the finding go away. It was applied and audited again before being shown."""

    file: str
    description: str
    diff: str
    verified: bool


class Outcome(Frozen):
    """What one rule says about one record folder."""

    rule: str
    status: Status
    effect: Effect
    confidence: Confidence
    reason: str = Field(description="one sentence")
    evidence: tuple[Evidence, ...] = ()
    call_path: tuple[Frame, ...] = ()
    settings: tuple[str, ...] = Field(default=(), description="names of the run settings the status rests on")
    fix: SuggestedFix | None = None
    shown_by: tuple[str, ...] = Field(default=(), description="names of the probes that showed it or cleared it")


class SettingValue(Frozen):
    """One value of a setting and where it was read."""

    value: str
    origin: Literal["code default", "launch command", "submission.json", "log"]
    file: str
    line: int = Field(ge=1)


class Setting(Frozen):
    """A run setting: the value in force, and every value seen, weakest first."""

    name: str
    value: str | None
    values: tuple[SettingValue, ...]
    conflict: str | None = Field(default=None, description="says so when seeds or logs disagree")


class ReportedMetric(Frozen):
    """Which number is claimed and which evaluation call in the code produced it."""

    label: str | None = None
    value: float | None = None
    log_file: str | None = None
    log_line: int | None = None
    evaluation: str | None = Field(default=None, description="qualified name of the evaluation function")
    file: str | None = None
    line: int | None = None
    how: str = Field(description="how the link was made, or why it could not be")


class RunConfig(Frozen):
    """The run that produced the number, as far as the submission's files tell."""

    script: str | None = None
    entry_point: str | None = None
    phases: tuple[str, ...] = ()
    reported: ReportedMetric
    settings: tuple[Setting, ...] = ()
    launch_commands: tuple[str, ...] = ()
    logs: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class SubmissionInfo(Frozen):
    """The submission, as identified by its source."""

    source: str
    repository: str | None = None
    number: int | None = None
    head: str | None = None
    base: str | None = None
    kind: str
    author: str | None = None
    title: str | None = None
    state: str | None = None
    metadata_note: str | None = None
    folder: str | None = Field(default=None, description="the record folder that carries the claim")
    track: str = "unknown"
    notes: tuple[str, ...] = ()


class FolderVerdict(Frozen):
    """The outcomes for one more record folder of the same pull request."""

    folder: str
    track: str
    verdict: Overall
    run_config: RunConfig
    outcomes: tuple[Outcome, ...]


class Tool(Frozen):
    """Who says this."""

    name: str = "parameter-golf-auditor"
    version: str


class Verdict(Frozen):
    """The whole answer. ``digest`` is the SHA-256 of the JSON without ``digest``: same input, same digest."""

    verdict: Overall
    policy: Policy
    submission: SubmissionInfo
    run_config: RunConfig
    outcomes: tuple[Outcome, ...]
    other_folders: tuple[FolderVerdict, ...] = ()
    probes: ProbeReport | None = Field(default=None, description="what running it showed, if it was asked for")
    not_checked: tuple[str, ...] = ()
    tool: Tool
    digest: str = ""

    def with_digest(self) -> Verdict:
        """A copy whose ``digest`` is filled in."""
        bare = self.model_copy(update={"digest": ""})
        digest = hashlib.sha256(bare.model_dump_json().encode()).hexdigest()
        return self.model_copy(update={"digest": digest})


def overall(outcomes: tuple[Outcome, ...], deciding: frozenset[str]) -> Overall:
    """The verdict that ``outcomes`` add up to.

    ``deciding`` are the slugs whose effect would be ``violation`` if they were active: only these send a
    submission to review when they are suspect or unknown.
    """
    if any(o.effect is Effect.VIOLATION for o in outcomes):
        return Overall.VIOLATIONS_FOUND
    open_question = (Status.SUSPECT, Status.UNKNOWN)
    if any(o.status in open_question and o.rule in deciding for o in outcomes):
        return Overall.NEEDS_REVIEW
    return Overall.NO_VIOLATION_FOUND
