"""Phases of a run: which gradient steps belong to training, and which can have taught the reported pass its tokens.

Facts about a trace that several rules ask for, read from the order of events and from what becomes of the weights.
"""

from __future__ import annotations

from collections.abc import Sequence

from auditor.index.adaptation import exclude_each_other, owners, share_loop, thrown_away
from auditor.index.trace import Event, Kind, Trace


def why_harmless(trace: Trace, scores: Sequence[Event], step: Event) -> str | None:
    """Why a step can't have taught the pass with these scores its own tokens; None if it may have."""
    if scores:
        if step.seq > scores[-1].seq and not any(share_loop(s, step) for s in scores):
            return "they come after the reported evaluation"
        shared = [s for s in scores if share_loop(s, step)]
        if shared:
            if shared[0].seq < step.seq:
                return "each span is scored before it is trained on (score-first)"
            return (
                "they train inside the reported evaluation's own loop, before that loop scores: a question of"
                " score order (score-after-adapt), not of a phase before the reported pass"
            )
        if step.frames[-1].id in {f.id for f in scores[0].own_frames} and step.seq > scores[0].seq:
            return "they come after the tokens are scored (score-first)"
    if scores and all(exclude_each_other(score, step) for score in scores):
        return "they belong to the branch that the reported evaluation is the alternative to"
    thrown = thrown_away(trace, scores, step)
    if thrown is not None:
        return f"{thrown} (throw-away steps)"
    if not owners(step):
        earlier = [s for s in trace.of(Kind.SCORE) if s.seq < step.seq and share_loop(s, step) and s not in scores]
        if earlier and not step.text:
            return "each span is scored before it is trained on, in an evaluation that is not the reported one"
    return None


def is_training_itself(trace: Trace, step: Event) -> bool:
    """Whether a step on validation tokens is the training, and not an adaptation of a trained network.

    It is when nothing was trained on other tokens or loaded from elsewhere before it.
    """
    for event in trace.events:
        if event.seq >= step.seq:
            return True
        if event.kind is Kind.STEP and "val" not in event.roles:
            return False
        # Restoring its own saved state is no sign of an earlier training; anything else may be a checkpoint.
        if event.kind is Kind.LOAD and not any(r.startswith("state:") for r in event.roles):
            return False
    return True
