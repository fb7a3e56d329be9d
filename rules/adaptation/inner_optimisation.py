"""What the rules on throw-away parameters optimised inside an evaluation have in common: from facts to a finding."""

from __future__ import annotations

from collections.abc import Callable

from auditor.index.window_parameters import Relation, WindowParameters
from auditor.reading import Reading
from auditor.verdict import Confidence, Evidence, Status
from rules.base import Finding

Wanted = Callable[[WindowParameters], bool]

RELATIONS = {
    Relation.SCORED: "they score positions that taught them",
    Relation.SHARED: "one tensor serves overlapping windows of a batch, which score each other's context",
    Relation.CONTEXT: "they are optimised on positions of the window that are scored already",
    Relation.EARLIER: "each window is scored before it teaches them",
    Relation.UNCLEAR: "the bounds do not tell which positions teach them",
}


def judge(reading: Reading, wanted: Wanted, what: str, *, unsure: Wanted | None = None) -> Finding:
    """The finding of a rule about the optimisations that ``wanted`` accepts; ``what`` says what it would be.

    ``unsure`` accepts those of which it cannot be told: they are suspect.
    """
    problem = reading.unreadable()
    if problem is not None:
        return Finding(Status.UNKNOWN, f"The code could not be read: {problem}.", Confidence.HIGH)
    found = reading.window_parameters
    open_question: Finding | None = None
    did_not_run: WindowParameters | None = None
    for inner in [w for w in found if wanted(w)]:
        ran, shown = reading.ran(inner.step)
        if ran is False:
            did_not_run = did_not_run or inner
            continue
        undecided = [g for g in inner.step.undecided if g.settings and "<exception>" not in g.settings]
        if undecided and ran is None:
            open_question = open_question or _finding(
                reading,
                inner,
                Status.SUSPECT,
                f"{_where(inner)} {what}, but a setting on the path is not known for this run.",
                Confidence.LOW,
                reading.guard_evidence(undecided, "condition not decided"),
            )
            continue
        sure = reading.reported.metric is not None and (not inner.step.undecided or shown is not None)
        return _finding(
            reading,
            inner,
            Status.ACTIVE,
            f"{_where(inner)} {what}: {RELATIONS[inner.relation]}.",
            Confidence.HIGH if sure else Confidence.MEDIUM,
            (shown,) if shown is not None else (),
        )
    for inner in [w for w in found if unsure is not None and unsure(w)]:
        if reading.ran(inner.step)[0] is False:
            continue
        open_question = open_question or _finding(
            reading,
            inner,
            Status.SUSPECT,
            f"{_where(inner)} optimises throw-away parameters in the reported evaluation,"
            f" but {RELATIONS[inner.relation]}."
            " Compare the positions of the loss with those that are scored, or change one scored target and see"
            " whether another position's loss moves.",
            Confidence.LOW,
        )
    if open_question is not None:
        return open_question
    if did_not_run is not None:
        return _finding(
            reading,
            did_not_run,
            Status.LATENT,
            f"{_where(did_not_run)} {what}, but the log lacks every line it prints: it did not run.",
            Confidence.MEDIUM,
        )
    elsewhere = next((w for w in reading.other_window_parameters if wanted(w)), None)
    if elsewhere is not None:
        lost = not reading.reported.scores
        return _finding(
            reading,
            elsewhere,
            Status.SUSPECT if lost else Status.LATENT,
            f"{_where(elsewhere)} {what}, "
            + (
                "but the evaluation that made the claimed number was not found: see whether it is this one."
                if lost
                else "but its result is not the number that is claimed."
            ),
            Confidence.LOW if lost else Confidence.MEDIUM,
        )
    latent = next((w for w in reading.latent_window_parameters if wanted(w)), None)
    if latent is not None:
        switches = latent.step.switches
        off = [b.settings for b in reading.trace.skipped if b.settings & switches]
        names = sorted(frozenset[str]().union(*off) & switches) or sorted(switches)
        return _finding(
            reading,
            latent,
            Status.LATENT,
            f"{_where(latent)} {what}, but is switched off in this run"
            + (f" ({', '.join(names[:3])})." if names else "."),
            Confidence.MEDIUM,
            reading.setting_evidence(names),
            names,
        )
    if found:
        return _finding(
            reading,
            found[0],
            Status.CLEAN,
            f"{_where(found[0])} optimises throw-away parameters in the reported evaluation, in another form:"
            f" {RELATIONS[found[0].relation]}.",
            Confidence.HIGH,
        )
    return Finding(
        Status.CLEAN,
        "The reported evaluation optimises no throw-away parameters (a delta on the hidden state, a logit bias).",
        Confidence.LOW if reading.trace.truncated or not reading.reported.scores else Confidence.HIGH,
    )


def _where(inner: WindowParameters) -> str:
    return inner.step.frames[-1].function


def _finding(
    reading: Reading,
    inner: WindowParameters,
    status: Status,
    reason: str,
    confidence: Confidence,
    more: tuple[Evidence, ...] = (),
    settings: list[str] | None = None,
) -> Finding:
    step, score = inner.step, inner.score
    order = [(step.seq, reading.at(step, "optimised here")), (score.seq, reading.at(score, "scored here"))]
    evidence: list[Evidence] = []
    for leaf in inner.leaves[:2]:
        evidence.append(reading.evidence(leaf.program, leaf.node, "parameters made here"))
    for span in inner.optimised[:2]:
        role = "restricts the positions of the loss"
        evidence.append(reading.evidence(span.program, span.node, role))
    for span in inner.scored[:2]:
        role = "restricts the positions that are scored"
        evidence.append(reading.evidence(span.program, span.node, role))
    evidence += [made for _, made in sorted(order, key=lambda pair: pair[0])]
    if status is Status.ACTIVE:
        names = step.switches
        evidence += reading.setting_evidence(names)
        settings = sorted(names)
    return Finding(
        status,
        reason,
        confidence,
        (*evidence, *more),
        reading.call_path(step),
        tuple(settings or ()),
    )
