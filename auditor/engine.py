"""Judges a submission: reads each record folder, asks every rule, applies the policy, forms the verdict."""

from __future__ import annotations

import difflib
import gc
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import rules
from auditor import __version__
from auditor.errors import UsageError
from auditor.probe.merge import merge
from auditor.probe.result import ProbeReport, as_sentence
from auditor.reading import Reading
from auditor.significance import Record
from auditor.submission import RecordFolder, Submission, SubmissionKind
from auditor.verdict import (
    Confidence,
    Effect,
    FolderVerdict,
    Outcome,
    Overall,
    Policy,
    ReportedMetric,
    RunConfig,
    Status,
    SubmissionInfo,
    Tool,
    Verdict,
    overall,
)
from rules.base import Finding, Rule

KIND_NOTES = {
    SubmissionKind.DOCUMENTS: "The pull request changes documents only: there is no code to audit.",
    SubmissionKind.ROOT_SCRIPT: ("The pull request changes the repository's own scripts and adds no record folder."),
    SubmissionKind.CODE_ELSEWHERE: "The pull request adds code outside of a record folder.",
    SubmissionKind.EMPTY: "The pull request changes nothing against its base.",
}


def select(slugs: Sequence[str] | None) -> tuple[Rule, ...]:
    """The rules with these slugs, or all of them.

    Raises:
        UsageError: a slug is not in the catalogue.
    """
    available = {rule.slug: rule for rule in rules.discover()}
    if not slugs:
        return tuple(available.values())
    for slug in slugs:
        if slug not in available:
            close = difflib.get_close_matches(slug, available, n=2)
            hint = f"did you mean {' or '.join(close)}?" if close else f"known rules: {', '.join(available)}"
            raise UsageError(f"there is no rule {slug!r}; {hint}")
    return tuple(available[slug] for slug in dict.fromkeys(slugs))


def audit(
    submission: Submission,
    *,
    policy: Policy = Policy.OFFICIAL,
    slugs: Sequence[str] | None = None,
    baseline: Record | None = None,
    progress: Callable[[str], None] | None = None,
    probe: Callable[[Reading], ProbeReport] | None = None,
) -> Verdict:
    """The verdict on ``submission`` under ``policy``, with all rules or those named by ``slugs``.

    ``baseline`` is what a record's gain is measured against; by default the record that stood when it was opened.
    ``probe`` is called with the folder that carries the claim, and what it shows goes into the verdict on that folder.

    Raises:
        UsageError: a slug is not in the catalogue.
    """
    chosen = select(slugs)
    # Syntax trees are many small objects that all live until the end: looking for cycles among them only costs time.
    collecting = gc.isenabled()
    gc.disable()
    try:
        return _audit(submission, policy, chosen, baseline, progress, probe)
    finally:
        if collecting:
            gc.enable()


def _audit(
    submission: Submission,
    policy: Policy,
    chosen: tuple[Rule, ...],
    baseline: Record | None,
    progress: Callable[[str], None] | None,
    probe: Callable[[Reading], ProbeReport] | None,
) -> Verdict:
    judged: list[_Judged] = []
    for folder in submission.folders:
        if progress is not None:
            progress(f"reading {folder.path or 'the submission'}")
        judged.append(_judge(submission, folder, chosen, policy, baseline))
    judged.sort(key=lambda j: _claim_order(j.weight, j.folder), reverse=True)
    notes = [KIND_NOTES[submission.kind]] if submission.kind in KIND_NOTES else []
    if not judged:
        return _nothing_to_judge(submission, chosen, policy, notes)
    main = judged[0].verdict
    report: ProbeReport | None = None
    if probe is not None:
        main, report = _probed(main, Reading(submission, judged[0].folder, baseline), probe, chosen, policy)
    others = tuple(sorted((j.verdict for j in judged[1:]), key=lambda f: f.folder))
    if others:
        notes.append(
            f"The pull request touches {len(judged)} record folders; the claim is taken from {main.folder},"
            f" {judged[0].why}."
        )
    # Folders that come along (stacked branches, older attempts) are judged and shown, but are not what is claimed.
    if any(o.verdict is Overall.VIOLATIONS_FOUND for o in others) and main.verdict is not Overall.VIOLATIONS_FOUND:
        notes.append(
            "Violations were found in another record folder of this pull request, not in the one with the claim."
        )
    return Verdict(
        verdict=main.verdict,
        policy=policy,
        submission=_info(submission, main.folder, main.track, notes),
        run_config=main.run_config,
        outcomes=main.outcomes,
        other_folders=others,
        probes=report,
        not_checked=(*_not_run(report), *judged[0].not_checked),
        tool=Tool(version=__version__),
    ).with_digest()


class _Judged(NamedTuple):
    """What is kept of a folder that was read: its verdict, how much speaks for it as the one with the claim and why."""

    weight: int
    why: str
    not_checked: tuple[str, ...]
    folder: RecordFolder
    verdict: FolderVerdict


def claimed(submission: Submission) -> Reading | None:
    """The record folder that carries the claim, read; None if the submission holds no code."""
    readings = [Reading(submission, folder) for folder in submission.folders]
    return max(readings, key=lambda r: _claim_order(_claim_weight(r), r.folder), default=None)


def _claim_order(weight: int, folder: RecordFolder) -> tuple[int, str]:
    """Of equals the last by name, which starts with a date, is the newest; stacked branches carry older ones along."""
    return weight, folder.path


def _probed(
    main: FolderVerdict,
    reading: Reading,
    probe: Callable[[Reading], ProbeReport],
    chosen: Sequence[Rule],
    policy: Policy,
) -> tuple[FolderVerdict, ProbeReport]:
    """The verdict with what ``probe`` shows about the folder, and its report."""
    outcomes, report = merge(main.outcomes, probe(reading), chosen, policy, reading.run.declared)
    reading.close()
    deciding = frozenset(rule.slug for rule in chosen if rule.decides(policy))
    return main.model_copy(update={"outcomes": outcomes, "verdict": overall(outcomes, deciding)}), report


def _judge(
    submission: Submission, folder: RecordFolder, chosen: Sequence[Rule], policy: Policy, baseline: Record | None
) -> _Judged:
    reading = Reading(submission, folder, baseline)
    outcomes = tuple(_outcome(rule, reading, policy) for rule in chosen)
    deciding = frozenset(rule.slug for rule in chosen if rule.decides(policy))
    verdict = FolderVerdict(
        folder=folder.path,
        track=folder.track,
        verdict=overall(outcomes, deciding),
        run_config=reading.run_config(s for o in outcomes for s in o.settings),
        outcomes=outcomes,
    )
    judged = _Judged(_claim_weight(reading), _why(reading), _not_checked(reading, chosen), folder, verdict)
    reading.close()
    return judged


def _outcome(rule: Rule, reading: Reading, policy: Policy) -> Outcome:
    try:
        finding = rule.check(reading)
    except RecursionError:
        finding = Finding(Status.UNKNOWN, "The code is nested too deeply to be followed.", Confidence.HIGH)
    return Outcome(
        rule=rule.slug,
        status=finding.status,
        effect=rule.effect(finding, policy),
        confidence=finding.confidence,
        reason=finding.reason,
        evidence=finding.evidence,
        call_path=finding.call_path,
        settings=finding.settings,
        fix=finding.fix,
    )


def _claim_weight(reading: Reading) -> int:
    """How much speaks for this folder as the one that carries the claim."""
    added = any(f.change == "added" and f.path.endswith(".py") for f in reading.folder.files)
    weight = 0
    weight += 8 if reading.run.claim.val_bpb is not None else 0
    weight += 2 if reading.folder.track == "record" else 0
    weight += 16 if added else 0
    weight += 1 if reading.python_files else 0
    claim = reading.run.claim.val_bpb
    if claim is not None and reading.submission.title:
        titled = (float(n) for n in re.findall(r"\b\d\.\d{3,}", reading.submission.title))
        weight += 32 if any(abs(n - float(claim)) < 1e-3 for n in titled) else 0
    return weight


def _why(reading: Reading) -> str:
    claim = reading.run.claim.val_bpb
    if claim is not None:
        return f"whose submission.json states {claim} bits per byte"
    return "which adds a script" if reading.python_files else "the first by name"


def _info(submission: Submission, folder: str | None, track: str, notes: Sequence[str]) -> SubmissionInfo:
    return SubmissionInfo(
        source=submission.source,
        repository=submission.repository,
        number=submission.number,
        head=submission.head,
        base=submission.base,
        kind=submission.kind.value,
        author=submission.author,
        title=submission.title,
        state=submission.state,
        metadata_note=submission.metadata_note,
        folder=folder,
        track=track,
        notes=tuple(notes),
    )


def _not_run(report: ProbeReport | None) -> tuple[str, ...]:
    """What was not run, or could not be."""
    unchecked = "training, timing, artifact size and the claimed figures were not reproduced."
    if report is None:
        return (f"Nothing was executed: {unchecked}",)
    stopped = (
        f"The probe {r.name} could not run: {as_sentence(r.reason)}" for r in report.results if r.stop is not None
    )
    return (f"The submission ran only in a tiny world made by the auditor: {unchecked}", *stopped)


def _not_checked(reading: Reading, chosen: Sequence[Rule]) -> tuple[str, ...]:
    """What a reader must not take this verdict to cover."""
    missing = len(rules.discover()) - len(chosen)
    notes = []
    if missing:
        notes.append(f"{missing} of the catalogue's rules were left out, as asked.")
    if not reading.run.logs:
        notes.append("The folder holds no train log: switches are read from the code and launch command alone.")
    opened = reading.__dict__.get("_indexes", {})
    unread = [p for p in reading.python_files if p not in opened]
    if unread:
        shown = ", ".join(sorted(unread)[:4]) + (" ..." if len(unread) > 4 else "")
        notes.append(f"Python files that the entry script does not import were not followed: {shown}")
    native = [f.path for f in reading.folder.files if f.name.endswith((".c", ".cc", ".cpp", ".cu", ".so", ".rs"))]
    if native:
        notes.append(f"Native code was not read: {', '.join(native[:4])}")
    return tuple(notes)


def _nothing_to_judge(submission: Submission, chosen: Sequence[Rule], policy: Policy, notes: Sequence[str]) -> Verdict:
    outcomes = tuple(
        Outcome(
            rule=rule.slug,
            status=Status.NOT_APPLICABLE,
            effect=Effect.NONE,
            confidence=Confidence.HIGH,
            reason="There is no record folder and no script to read.",
        )
        for rule in chosen
    )
    return Verdict(
        verdict=Overall.NO_VIOLATION_FOUND,
        policy=policy,
        submission=_info(submission, None, "unknown", notes),
        run_config=RunConfig(reported=ReportedMetric(how="no code to read")),
        outcomes=outcomes,
        not_checked=("Nothing was checked: the submission holds no code.",),
        tool=Tool(version=__version__),
    ).with_digest()
