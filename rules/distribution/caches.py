"""What the rules about caches have in common: the evidence of one probability, and code that is not reached."""

from __future__ import annotations

import ast
from collections.abc import Iterable

from auditor.index.flow import Site
from auditor.index.tables import Form, Ratio
from auditor.index.trace import SkippedBranch
from auditor.reading import Reading, printed_in, prints
from auditor.unpack.walk import walk
from auditor.verdict import Confidence, Evidence, Status
from rules.base import Finding

BELOW_NETWORKS = 1.0
"""Bits per byte that no network of this contest reached without such a cache (rulebook, section 9)."""


def ratio_evidence(reading: Reading, ratio: Ratio) -> tuple[Evidence, ...]:
    """The places that make up one probability: its key, both reads, the quotient, and where the score is kept."""
    key = ratio.key
    what = "the token being scored goes into the key" if ratio.form is Form.HASHED else "the token is an index here"
    upper, lower = ratio.numerator, ratio.denominator
    found = (
        reading.evidence(key.site.program, key.node, what),
        reading.evidence(upper.site.program, upper.access.keys[0].node, "counts of context and token, read"),
        reading.evidence(lower.site.program, lower.access.keys[0].node, "counts of the context, read"),
        reading.evidence(ratio.site.program, ratio.node, "a probability for this token alone"),
    )
    return (*found, *_scored(reading))


def _scored(reading: Reading) -> list[Evidence]:
    """Where the loss is added to the reported sum; else the first place at which it is kept."""
    scores = reading.reported.scores
    added = next((e for e in scores if isinstance(e.node, ast.AugAssign)), None) or reading.reported.first_score()
    return [reading.at(added, "scored here")] if added is not None else []


def undecided(reading: Reading, ratio: Ratio) -> Finding | None:
    """A suspicion instead of an accusation where the run's files don't say whether the call that leads here is made."""
    bodies = set()
    site: Site | None = ratio.site
    while site is not None:
        bodies.add(id(site.body))
        site = site.caller
    bodies -= {id(f.definition) for event in reading.tables.starts for f in event.frames[:2]}
    inside = [e for e in reading.trace.events if any(id(f.definition) in bodies for f in e.frames)]
    for event in inside:
        open_guards = [g for g in event.undecided if g.settings and "<exception>" not in g.settings]
        if not open_guards or reading.ran(event)[0]:
            return None
    if not inside:
        return None
    guard = next(g for g in inside[0].undecided if g.settings)
    return Finding(
        Status.SUSPECT,
        "A cache is mixed into a figure that may be the reported one, but the setting that calls it is not known for"
        " this run.",
        Confidence.LOW,
        (*reading.guard_evidence((guard,), "condition not decided"), *ratio_evidence(reading, ratio)),
        reading.call_path(inside[0]),
        tuple(sorted(guard.settings)),
    )


def lookup_suspect(reading: Reading, question: str) -> Finding:
    """What to say of a count that is read with a target in a hashed key and is not divided by another count."""
    read, place = reading.tables.lookups[0]
    evidence = (
        reading.evidence(place.site.program, place.node, "a token goes into the key"),
        reading.evidence(read.site.program, read.node, "the count, read"),
    )
    return Finding(
        Status.SUSPECT,
        f"A count behind the reported figure is looked up with a token hashed that may be the target: see {question}.",
        Confidence.MEDIUM,
        (*evidence, *_scored(reading)),
        reading.call_path(reading.tables.starts[0]),
    )


def not_reported(reading: Reading, ratio: Ratio, what: str) -> Finding:
    """What to say of a pattern that stands in the code but that the reported figure does not depend on."""
    body = ratio.site.body
    name = getattr(body, "name", "<module>")
    evidence = ratio_evidence(reading, ratio)[:4]
    branches = branches_left_out(reading, name, ratio.node)
    settings = sorted({s for b in branches for s in b.settings if not s.startswith("<")})
    line = _printed_by(reading, branches)
    if line is not None:
        return Finding(
            Status.ACTIVE,
            f"{name} has {what}; no file says that it was switched on, but the claimed figure's own log line is one"
            " that only this branch prints.",
            Confidence.MEDIUM,
            (*evidence, line, *reading.setting_evidence(settings)),
            (),
            tuple(settings),
        )
    label = reading.reported.log
    figure = label.value if label is not None else reading.run.claim.val_bpb
    told_off = any(v.origin != "code default" for s in settings for v in reading.values_of(s))
    texts = [text for b in branches for text in printed_in(b.body)]
    told_off = told_off or (bool(texts) and reading.log_is_whole and not any(map(reading.log_lines_like, texts)))
    if figure is not None and float(figure) < BELOW_NETWORKS and not told_off:
        return Finding(
            Status.SUSPECT,
            f"{name} has {what}; reading finds no way from it to the reported figure, but {float(figure):g} is less"
            " than networks alone have reached: see whether it ran.",
            Confidence.MEDIUM,
            (*evidence, *reading.setting_evidence(settings)),
            (),
            tuple(settings),
        )
    if id(body) not in reading.trace.called or settings:
        told = f" ({', '.join(settings[:3])})" if settings else ""
        return Finding(
            Status.LATENT,
            f"{name} has {what}, but is not reached in this run{told}.",
            Confidence.MEDIUM,
            (*evidence, *reading.setting_evidence(settings)),
            (),
            tuple(settings),
        )
    if reading.reported.metric is None or not reading.reported.in_log:
        return Finding(
            Status.SUSPECT,
            f"{name} has {what} and runs, but which evaluation made the claimed number could not be told:"
            " see whether the claimed figure is the one it is part of.",
            Confidence.LOW,
            evidence,
        )
    return Finding(
        Status.LATENT,
        f"{name} has {what}, but the reported figure does not depend on it.",
        Confidence.MEDIUM,
        evidence,
    )


def branches_left_out(reading: Reading, name: str, node: ast.AST) -> list[SkippedBranch]:
    """The branches left out that hold ``node`` or name the function it stands in."""
    found: list[SkippedBranch] = []
    seen: set[int] = set()
    for branch in reading.trace.skipped:
        if id(branch.node) in seen:
            continue
        seen.add(id(branch.node))
        parts = (part for statement in branch.body for part in walk(statement))
        if any(
            part is node
            or (isinstance(part, ast.Name) and part.id == name)
            or (isinstance(part, ast.Attribute) and part.attr == name)
            for part in parts
        ):
            found.append(branch)
    return found


def _printed_by(reading: Reading, branches: Iterable[SkippedBranch]) -> Evidence | None:
    """The log line of the claimed figure, where a branch left out prints it and nothing that ran does."""
    label = reading.reported.log
    if label is None or reading.reported.in_log:
        return None
    for branch in branches:
        if any(prints(text, label.text) for text in printed_in(branch.body)):
            return reading.log_evidence(
                label.file, label.line, label.text, "the claimed figure, printed by this branch"
            )
    return None
