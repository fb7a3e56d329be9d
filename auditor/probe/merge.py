"""What probes showed goes into the outcomes of the rules that they speak for.

A proof outweighs what was read: it makes a rule ``active``, whatever reading made of it. A clean probe settles what
reading only suspected; it does not overrule what reading found, since the tiny world may lack what sets it off. A
probe that could not run changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from auditor.evidence import Attempt, Status
from auditor.probe.result import ProbeReport, ProbeResult, Shown, as_sentence
from auditor.verdict import Confidence, Effect, Evidence, Outcome, Policy
from rules.base import Finding, Rule
from rules.budget.external_binary import COMPILERS, LAUNCHERS, QUERIES

EXTERNAL, NETWORK = "external-binary", "network-access"

_LIBRARIES_CALL = frozenset({*COMPILERS, *QUERIES, *LAUNCHERS, "ninja", "cmake", "ldconfig", "lscpu", "uname", "sh"})
"""Programs that Python's own libraries start for reasons of theirs."""
_WORD = re.compile(r"[\w.+/-]*[A-Za-z][\w.+-]*")
_LOOPBACK = re.compile(r"^\(?['\"]?(?:localhost|127\.|::1|0\.0\.0\.0|sandbox\b)|^['\"]?/")  # a path: a Unix socket
_SEEN_BY = {
    "shim": "seen by a shim on PATH",
    "audit-hook": "seen by Python's audit hook, which code can avoid",
    "limit": "stopped by a limit",
}


def merge(
    outcomes: Sequence[Outcome],
    report: ProbeReport,
    rules: Iterable[Rule],
    policy: Policy,
    declared: Callable[[str], object] = lambda program: None,
) -> tuple[tuple[Outcome, ...], ProbeReport]:
    """The outcomes as they are with ``report``, and the report with a note on each disagreement.

    ``rules`` are those behind the outcomes; ``declared`` says whether the set-up notes declare a program.
    """
    known = {rule.slug: rule for rule in rules}
    now = {outcome.rule: outcome for outcome in outcomes}
    notes: list[str] = []
    proven: set[str] = set()
    for status in (Status.ACTIVE, Status.LATENT):
        for result in report.results:
            for shown in _that_count(result, status, now):
                now[shown.rule] = _proven(now[shown.rule], shown, result, known[shown.rule], policy)
                proven.add(shown.rule)
    for result in report.results:
        for shown in result.shown:
            before = now.get(shown.rule)
            if shown.status is not Status.CLEAN or before is None or shown.rule in proven:
                continue
            if before.status is Status.SUSPECT:
                now[shown.rule] = _cleared(before, shown, result)
            elif before.status is Status.ACTIVE:
                notes.append(
                    f"{shown.rule} is active by reading, but the probe {result.name} did not show it:"
                    f" {as_sentence(shown.reason)} A person should look at both."
                )
    for slug, change in ((EXTERNAL, _programs), (NETWORK, _network)):
        if slug in now:
            now[slug] = change(now[slug], report.attempts, known[slug], policy, declared)
    # Seconds depend on the machine, and a verdict must not.
    results = tuple(result.model_copy(update={"seconds": None}) for result in report.results)
    changed = report.model_copy(update={"results": results, "notes": (*report.notes, *notes)})
    return tuple(now[outcome.rule] for outcome in outcomes), changed


def _that_count(result: ProbeResult, status: Status, now: dict[str, Outcome]) -> list[Shown]:
    """What ``result`` shows about rules that are judged here, with ``status``."""
    shown = [s for s in result.shown if s.status is status and s.rule in now]
    counted = [s for s in shown if not s.suspected_only]
    doubtful = [s for s in shown if s.suspected_only]
    for wanted in ((Status.ACTIVE, Status.SUSPECT), (Status.LATENT,)):
        suspected = [s for s in doubtful if now[s.rule].status in wanted]
        if suspected:
            return counted + suspected
    return counted or doubtful[:1]


def _proven(before: Outcome, shown: Shown, result: ProbeResult, rule: Rule, policy: Policy) -> Outcome:
    said = f"Shown by probe {result.name}: {as_sentence(shown.reason)}"
    places = _joined(result.evidence, before.evidence)
    if before.status is Status.ACTIVE:
        if shown.status is Status.LATENT:
            return before
        reason, effect = f"{before.reason} {said}", before.effect
        places = _joined(before.evidence, result.evidence)
    else:
        reason = said
        if before.status is Status.SUSPECT:
            reason += f" Reading suspected it: {before.reason}"
        effect = rule.effect(Finding(shown.status, reason), policy)
    return before.model_copy(
        update={
            "status": Status.ACTIVE if before.status is Status.ACTIVE else shown.status,
            "effect": effect,
            "confidence": Confidence.HIGH,
            "reason": reason,
            "evidence": places,
            "settings": tuple(dict.fromkeys((*before.settings, *result.switched_on))),
            "shown_by": (*before.shown_by, result.name),
        }
    )


def _cleared(before: Outcome, shown: Shown, result: ProbeResult) -> Outcome:
    return before.model_copy(
        update={
            "status": Status.CLEAN,
            "effect": Effect.NONE,
            "confidence": Confidence.MEDIUM,
            "reason": f"Cleared by probe {result.name}: {as_sentence(shown.reason)} Reading had suspected it:"
            f" {before.reason}",
            "shown_by": (*before.shown_by, result.name),
        }
    )


def _joined(first: tuple[Evidence, ...], second: tuple[Evidence, ...]) -> tuple[Evidence, ...]:
    found: dict[tuple[object, ...], Evidence] = {}
    for evidence in (*first, *second):
        found.setdefault((evidence.file, evidence.line, evidence.column, evidence.view), evidence)
    return tuple(found.values())


# -- what the sandboxed run tried ------------------------------------------------------------------------------


def program_of(attempt: Attempt) -> str | None:
    """The program that an attempt names, without its folder; None for another kind of attempt, or a shell."""
    if attempt.kind != "program":
        return None
    words = [w.rsplit("/", 1)[-1] for w in _WORD.findall(attempt.what)]
    while words and words[0] in ("sh", "bash", "b", "-c"):
        words = words[1:]
    return words[0] if words else None


def _programs(
    before: Outcome,
    attempts: Sequence[Attempt],
    rule: Rule,
    policy: Policy,
    declared: Callable[[str], object],
) -> Outcome:
    tried: dict[str, Attempt] = {}
    for attempt in attempts:
        program = program_of(attempt)
        if program is not None and (program not in _LIBRARIES_CALL or program in before.reason):
            tried.setdefault(program, attempt)
    if not tried or before.status is Status.NOT_APPLICABLE:
        return before
    named = ", ".join(f"{program} ({_SEEN_BY[attempt.seen_by]})" for program, attempt in tried.items())
    said = f"Run in the sandbox, the submission called {named}."
    if before.status in (Status.ACTIVE, Status.LATENT):
        return before.model_copy(update={"reason": f"{before.reason} {said}"})
    if before.status is Status.SUSPECT and any(program in before.reason for program in tried):
        accepted = all(declared(program) is not None for program in tried)
        finding = Finding(Status.ACTIVE, said, official=Effect.ACCEPTED if accepted else None)
        return before.model_copy(
            update={
                "status": Status.ACTIVE,
                "effect": rule.effect(finding, policy),
                "confidence": Confidence.MEDIUM,
                "reason": f"{said} Reading suspected it: {before.reason}",
            }
        )
    said += " Whether this is the submission's own call or a library's is for a person to see."
    return _suspected(before, said)


def _network(
    before: Outcome,
    attempts: Sequence[Attempt],
    rule: Rule,
    policy: Policy,
    declared: Callable[[str], object],
) -> Outcome:
    tried = [a for a in attempts if a.kind == "network" and not _LOOPBACK.search(a.what)]
    if not tried or before.status is Status.NOT_APPLICABLE:
        return before
    named = ", ".join(dict.fromkeys(f"{a.what[:80]} ({_SEEN_BY[a.seen_by]})" for a in tried[:3]))
    said = f"Run in the sandbox, the submission tried to reach {named}."
    if before.status in (Status.ACTIVE, Status.LATENT, Status.SUSPECT):
        return before.model_copy(update={"reason": f"{before.reason} {said}"})
    return _suspected(before, f"{said} At which point of a real run it would do so is for a person to see.")


def _suspected(before: Outcome, said: str) -> Outcome:
    return before.model_copy(
        update={"status": Status.SUSPECT, "effect": Effect.NONE, "confidence": Confidence.LOW, "reason": said}
    )
