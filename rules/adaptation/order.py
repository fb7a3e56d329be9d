"""What the score-order rules share: which relations of steps to scores count in the run that was reported."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from auditor.index.adaptation import Order, Relation, relations
from auditor.index.trace import Event, Kind
from auditor.reading import Reading
from auditor.verdict import Confidence, Evidence, Status
from rules.base import Finding

Wanted = Callable[[Relation], bool]


@dataclass(frozen=True)
class Weighed:
    """The relations that a rule asks for, by whether the run's files show that they happened."""

    ran: Relation | None = None
    shown: Evidence | None = None
    open: Relation | None = None
    why: str = ""
    idle: Relation | None = None


def weigh(reading: Reading, found: Iterable[Relation]) -> Weighed:
    """The first relation that happened in the run; else the first that may have, or that did not."""
    opened: Relation | None = None
    idle: Relation | None = None
    for relation in found:
        ran, shown = reading.ran(relation.step)
        if ran is False:
            idle = idle or relation
        elif ran is None and unknown_setting(relation.step, relation.score):
            opened = opened or relation
        else:
            return Weighed(relation, shown)
    return Weighed(None, None, opened, "a setting on the path is not known for this run" if opened else "", idle)


def unknown_setting(*events: Event) -> bool:
    """Whether a condition on the way to one of ``events`` hangs on a setting that the run's files leave open."""
    return any(g.settings and "<exception>" not in g.settings for e in events for g in e.undecided)


def settings_of(*events: Event) -> set[str]:
    """The settings that decide whether, and how often, these events happen."""
    return {s for e in events for s in e.switches} | {s for e in events for loop in e.loops for s in loop.settings}


def happened(
    reading: Reading, relation: Relation, shown: Evidence | None, reason: str, evidence: tuple[Evidence, ...]
) -> Finding:
    """An active finding on one relation."""
    step = relation.step
    settings = step.switches
    if relation.loop is not None:
        settings |= relation.loop.settings
    sure = reading.reported.metric is not None and (shown is not None or not unknown_setting(step, relation.score))
    return Finding(
        Status.ACTIVE,
        reason,
        Confidence.HIGH if sure else Confidence.MEDIUM,
        (*evidence, *([shown] if shown is not None else []), *reading.setting_evidence(settings)),
        reading.call_path(step),
        tuple(sorted(settings)),
    )


def left_open(reading: Reading, relation: Relation, reason: str, evidence: tuple[Evidence, ...]) -> Finding:
    """A suspect finding on one relation."""
    guards = reading.guard_evidence(relation.step.undecided, "condition not decided")
    return Finding(
        Status.SUSPECT,
        reason,
        Confidence.LOW,
        (*evidence, *guards),
        reading.call_path(relation.step),
        tuple(sorted(settings_of(relation.step))),
    )


def did_not_run(reading: Reading, relation: Relation, what: str) -> Finding:
    """A latent finding: the whole log lacks what the function always prints."""
    name = relation.step.frames[-1].function
    return Finding(
        Status.LATENT,
        f"{name} {what}, but the log lacks every line it prints: it did not run.",
        Confidence.MEDIUM,
        (reading.at(relation.step, "would train here"), reading.at(relation.score, "would score here")),
        reading.call_path(relation.step),
    )


def switched_off(reading: Reading, wanted: Wanted, what: str) -> Finding | None:
    """A latent finding: the pattern is found only where every setting is left open."""
    trace = reading.switched_off(reading.training_names())
    if trace is None:
        return None
    known = {id(e.node) for e in reading.trace.of(Kind.STEP) if "val" in e.roles}
    for relation in relations(trace, trace.of(Kind.SCORE)):
        step = relation.step
        # A loss that only follows the training is not a result.
        if id(step.node) in known or not relation.score.no_grad or not wanted(relation):
            continue
        switches = step.switches
        off = [b for b in reading.trace.skipped if b.settings & switches and b.settings]
        names = sorted(set().union(*(b.settings for b in off)) & switches) or sorted(switches)
        if not off:
            continue
        return Finding(
            Status.LATENT,
            f"{step.frames[-1].function} {what}, but is switched off in this run ({', '.join(names[:3])}).",
            Confidence.MEDIUM,
            (
                reading.at(step, "would train here"),
                reading.at(relation.score, "would score here"),
                *reading.setting_evidence(names),
            ),
            reading.call_path(step),
            tuple(names),
        )
    return None


def clean(reading: Reading, found: list[Relation]) -> Finding:
    """What was seen where nothing is wrong with the order."""
    trace = reading.trace
    doubt = Confidence.LOW if trace.truncated or not trace.events else None
    steps = [e for e in trace.of(Kind.STEP) if "val" in e.roles]
    if not steps:
        return Finding(
            Status.CLEAN, "No optimiser step uses validation tokens: no state is adapted.", doubt or Confidence.HIGH
        )
    if not found:
        return Finding(
            Status.CLEAN,
            "Parameters are trained on validation tokens, but no reported evaluation was found to order that against.",
            Confidence.LOW,
            (reading.at(steps[0], "trains on validation tokens"),),
        )
    by_order = {r.order: r for r in reversed(found)}
    seen = by_order.get(Order.SCORED_FIRST)
    if seen is not None:
        return Finding(
            Status.CLEAN,
            "Each span is scored before it is trained on (score-first).",
            doubt or Confidence.HIGH,
            (reading.at(seen.score, "scored here, first"), reading.at(seen.step, "trained on here, afterwards")),
            reading.call_path(seen.step),
        )
    seen = by_order.get(Order.OWN_TENSORS)
    if seen is not None:
        return Finding(
            Status.CLEAN,
            "What is optimised before the score are tensors of one window only, outside of the network: the slot rules"
            " judge these.",
            doubt or Confidence.MEDIUM,
            (reading.at(seen.step, "optimised here"), reading.at(seen.score, "scored here")),
        )
    seen = found[0]
    after = all(r.step.seq > r.score.seq for r in found)
    return Finding(
        Status.CLEAN,
        "Validation tokens are trained on only after the reported evaluation has scored them."
        if after
        else "Training on validation tokens is a phase of its own, not part of the reported evaluation's loop"
        " (the rules prequant-ttt and two-pass-rescore judge it).",
        doubt or Confidence.HIGH,
        (reading.at(seen.step, "trains on validation tokens"), reading.at(seen.score, "scored here")),
    )
