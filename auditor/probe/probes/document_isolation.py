"""Where packed documents are kept apart, nothing of a document reaches into the next one.

**What is changed.** Single tokens of a row that holds several documents, each position in turn; document-start tokens
stay where they are.

**What must stay.** The logits of all later documents, in every pass whose attention keeps documents apart. Whether it
does is measured too: a token well inside a document moves later positions of its own document but none of the next.

**What it catches.** A smear of the previous position's state (SmearGate), a convolution or a hashed neighbour that is
not masked at document starts: only the last few tokens of a document move the next one, at its document-start position
first, and from there wherever attention carries it.

**What it is run on.** The passes of the run that take document boundaries (``cu_seqlens``, document ids) or find them
in the tokens, training included, and as ``causality`` otherwise. Passes whose attention runs across documents, as in
scripts that cut rows from the stream, leak nothing by a smear: not applicable. Where reading finds a smear that the
run switches off, the network is measured once more with it switched on; what shows only then is latent.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from auditor.evidence import Status
from auditor.index.trace import Kind
from auditor.probe.base import Probe
from auditor.probe.forward import (
    Boundary,
    Measurement,
    Pass,
    boundaries,
    figure,
    isolates,
    measure,
    switched_off_smears,
    unfinished,
    use_of,
)
from auditor.probe.result import Number, Position, ProbeResult, ProbeStatus, Shown, Stop
from auditor.probe.run import Bench
from auditor.reading import Reading

RULE = "smeargate-bos-leak"


class DocumentIsolation(Probe):
    """See the module's documentation."""

    name: ClassVar[str] = "document-isolation"
    title: ClassVar[str] = "does a packed document reach into the next one?"
    level: ClassVar[Literal["model", "evaluation"]] = "model"
    rules: ClassVar[tuple[str, ...]] = (RULE,)

    def run(self, bench: Bench) -> ProbeResult:
        done = measure(bench)
        if isinstance(done, Stop):
            return ProbeResult.could_not_run(self.name, done, sandboxed=bench.sandboxed)
        result = done.furnish(judge(self.name, bench.reading, done.told))
        if result.status in (ProbeStatus.VIOLATED, ProbeStatus.COULD_NOT_RUN):
            return result
        settings = switched_off_smears(bench.reading)
        if not settings:
            return result
        bench.progress(f"again with {', '.join(settings)} on")
        again = measure(bench, switched_on=settings)
        if isinstance(again, Stop):
            return result.model_copy(
                update={"reason": f"{result.reason} With {', '.join(settings)} on it could not run: {again.message}"}
            )
        on = judge(self.name, bench.reading, again.told, switched_on=settings)
        return again.furnish(on) if on.status is ProbeStatus.LATENT else result


def judge(name: str, reading: Reading, done: Measurement, *, switched_on: tuple[str, ...] = ()) -> ProbeResult:
    """What the measured passes show."""
    counted = [p for p in done.paths if use_of(reading, p).used is not False and p.reacts]
    apart = [p for p in counted if isolates(p)]
    leaks = {p: [b for b in boundaries(p) if b.near > p.tolerance] for p in apart}
    leaking = sorted((p for p in apart if leaks[p]), key=lambda p: -max(b.near for b in leaks[p]))
    changed = "one token, each position in turn; document starts stay"
    must_stay = "the logits of all later documents"
    if leaking:
        return _leak(name, reading, leaking, leaks, counted, switched_on)
    # A pass that was not measured at every position may isolate, or not; a leak that was seen is one all the same.
    late = unfinished([p for p in done.paths if use_of(reading, p).used is not False])
    if late is not None:
        return ProbeResult.could_not_run(name, Stop(kind="time", message=late))
    if apart:
        reason = (
            f"No token of a document moves an output of a later one in {_listed(apart)}, although tokens of the same"
            f" document do (largest difference {figure(max(b.near for p in apart for b in boundaries(p)))})."
        )
        return ProbeResult(
            name=name,
            status=ProbeStatus.CLEAN,
            reason=reason,
            subject=", ".join(dict.fromkeys(p.path for p in apart)),
            changed=changed,
            must_stay=must_stay,
            numbers=tuple(_number(p, b) for p in apart[:3] for b in boundaries(p)),
            tolerance=max(p.tolerance for p in apart),
            noise=max(p.noise for p in apart),
            trials=sum(p.trials for p in apart),
            shown=(Shown(rule=RULE, status=Status.CLEAN, reason=reason),),
        )
    if not counted:
        problems = [f"{m.name}: {m.problem}" for m in done.models if m.problem]
        why = "; ".join((*done.skipped[:3], *problems[:2])) or "none was found"
        message = f"No forward pass could be measured: {why}."
        return ProbeResult.could_not_run(name, Stop(kind="not-found", message=message))
    told = [p for p in counted if p.documents]
    example = (told or counted)[0]
    across = max(b.far for b in boundaries(example))
    how = "although it is told where documents start, " if told else ""
    return ProbeResult(
        name=name,
        status=ProbeStatus.NOT_APPLICABLE,
        reason=f"No pass keeps documents apart: in {example.label}, {how}tokens well before a document's start move its"
        f" outputs by {figure(across)}.",
        subject=", ".join(dict.fromkeys(p.path for p in counted)),
        changed=changed,
        must_stay=must_stay,
        tolerance=example.tolerance,
        noise=example.noise,
        trials=sum(p.trials for p in counted),
    )


def _leak(
    name: str,
    reading: Reading,
    leaking: list[Pass],
    leaks: dict[Pass, list[Boundary]],
    counted: list[Pass],
    switched_on: tuple[str, ...],
) -> ProbeResult:
    worst = leaking[0]
    boundary = max(leaks[worst], key=lambda b: b.near)
    only = boundary.moved == (boundary.start,)
    where = "that position" if only else f"that position and {len(boundary.moved) - 1} after it"
    if boundary.start not in boundary.moved:
        where = f"positions {', '.join(map(str, boundary.moved[:5]))}"
    about = " (within the reported evaluation)" if use_of(reading, worst).scored else ""
    reach = "the last token" if boundary.reach == 1 else f"one of the last {boundary.reach} tokens"
    reason = (
        f"In {worst.label}{about} changing {reach} before the document start at position {boundary.start} moves"
        f" {where} by up to {figure(boundary.near)} (rounding: {figure(worst.tolerance)}), while tokens further back"
        f" move nothing there (at most {figure(boundary.far)})."
    )
    latent = bool(switched_on)
    status = ProbeStatus.LATENT if latent else ProbeStatus.VIOLATED
    told: Literal[Status.ACTIVE, Status.LATENT] = Status.LATENT if latent else Status.ACTIVE
    smears = [e for e in reading.trace.of(Kind.SMEAR) if not e.detail]
    return ProbeResult(
        name=name,
        status=status,
        reason=f"With {', '.join(switched_on)} on: {reason}" if latent else reason,
        subject=", ".join(dict.fromkeys(p.path for p in leaking)),
        changed="one token, each position in turn; document starts stay",
        must_stay="the logits of all later documents",
        numbers=tuple(_number(p, b) for p in leaking[:4] for b in boundaries(p)),
        positions=tuple(x for p in leaking[:4] for x in _positions(p))[:12],
        tolerance=worst.tolerance,
        noise=worst.noise,
        trials=sum(p.trials for p in counted),
        switched_on=switched_on,
        shown=(Shown(rule=RULE, status=told, reason=reason),),
        evidence=tuple(reading.at(e, "the previous position's state is mixed in here") for e in smears[:2]),
    )


def _positions(measured: Pass) -> list[Position]:
    found = []
    for move in measured.worst:
        if move.single and move.moved > move.changed and move.difference > measured.tolerance:
            document = measured.document_of(move.moved)
            if document > measured.document_of(move.changed):
                place = "start" if move.moved in measured.starts else "position"
                found.append(
                    Position(
                        moved=move.moved,
                        changed=move.changed,
                        before=move.before,
                        after=move.after,
                        note=f"{measured.path}: {place} of document {document}, from document"
                        f" {measured.document_of(move.changed)}",
                    )
                )
    return found


def _number(measured: Pass, boundary: Boundary) -> Number:
    state = f" with {measured.state}" if measured.state else ""
    return Number(
        name=f"largest change at and after the document start at {boundary.start}, {measured.label}{state}",
        value=max(boundary.near, boundary.far),
        expected=0.0,
    )


def _listed(paths: list[Pass]) -> str:
    return " and ".join(list(dict.fromkeys(p.label for p in paths))[:3])
