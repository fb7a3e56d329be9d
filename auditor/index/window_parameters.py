"""Parameters made for windows of an evaluation, optimised there and thrown away: a delta on the hidden state, a bias.

They are told apart from weights and adapters by what is done with them: tensors that no network owns, added to
activations (or handed to the network beside them), never a factor of a matrix product. What matters is which
positions taught them (the spans that restrict the loss) and which positions they score (the spans that restrict what
is added to the reported sum). Spans that restrict both say nothing about the difference and are left out.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from auditor.index.trace import Event, Kind, Leaf, Loop, Span, Trace

SLACK = 1.0
"""Positions by which two ranges may overlap because one counts inputs and the other targets."""


class Relation(StrEnum):
    """How the positions that taught the parameters relate to those that they score."""

    SCORED = "scored"  # they score positions that taught them
    SHARED = "shared"  # each window's context only, but one tensor serves windows that score each other's context
    CONTEXT = "context"  # positions of the window that are scored already
    EARLIER = "earlier"  # windows that were scored before
    UNCLEAR = "unclear"


@dataclass(frozen=True)
class WindowParameters:
    """One inner optimisation of throw-away parameters, and the score that uses them."""

    step: Event
    leaves: tuple[Leaf, ...]
    score: Event
    relation: Relation
    optimised: tuple[Span, ...]
    """The spans that restrict the loss and not the score."""
    scored: tuple[Span, ...]
    """The spans that restrict the score and not the loss."""
    carried: bool
    """What one window learnt is where the next starts."""

    @property
    def biases(self) -> tuple[Leaf, ...]:
        """Those that are added to the logits themselves."""
        return tuple(leaf for leaf in self.leaves if leaf.added and not leaf.projected)


def numbers(roles: Iterable[str], kind: str) -> frozenset[int]:
    """The numbers N of the roles ``kind:N``."""
    return frozenset(int(r[len(kind) + 1 :]) for r in roles if r.startswith(f"{kind}:"))


def leaves_of(trace: Trace, step: Event) -> tuple[Leaf, ...]:
    """The tensors owned by no network that a step changes."""
    return tuple(trace.leaves[n] for n in sorted(numbers(step.detail.split(), "leaf")))


def is_window_parameter(leaf: Leaf) -> bool:
    """Whether a leaf is added to activations as a whole, unlike the matrices of an adapter."""
    if leaf.factor:
        return False
    flat = leaf.shape is not None and (len(leaf.shape) == 1 or any(n == 1 for n in leaf.shape[:-1]))
    return leaf.added or (flat and leaf.passed)


def only_window_parameters(trace: Trace, step: Event) -> bool:
    """Whether a step changes nothing but such parameters: neither weights nor adapters."""
    leaves = leaves_of(trace, step)
    return bool(leaves) and not step.text and all(is_window_parameter(leaf) for leaf in leaves)


def window_parameters(trace: Trace, scores: Sequence[Event]) -> list[WindowParameters]:
    """Every inner optimisation on validation tokens, with each of ``scores`` that depends on it."""
    if not trace.leaves:
        return []
    found: list[WindowParameters] = []
    for step in trace.of(Kind.STEP):
        if not step.detail or not step.roles & {"val", "foreign"}:
            continue
        leaves = leaves_of(trace, step)
        if leaves:
            found += [made for score in scores if (made := _with(trace, step, leaves, score)) is not None]
    return found


def latent_parameters(trace: Trace, before: int) -> list[WindowParameters]:
    """The same for code that is switched off: for the events from number ``before`` on.

    A branch that makes the parameters may leave the score to the code after it, which did run, without them.
    """
    own = trace.events[before:]
    steps = [e for e in own if e.kind is Kind.STEP and e.detail and e.roles & {"val", "foreign"}]
    inside = [e for e in own if e.kind is Kind.SCORE]
    after = [e for e in trace.events[:before] if e.kind is Kind.SCORE]
    found: list[WindowParameters] = []
    for step in steps:
        leaves = leaves_of(trace, step)
        made = [w for score in inside if (w := _with(trace, step, leaves, score)) is not None]
        for score in after if not made else ():
            line = getattr(score.node, "lineno", 0)
            if score.frames[-1].id == step.frames[-1].id and line > getattr(step.node, "lineno", 0):
                supposed = replace(score, seq=step.seq + 1, roles=score.roles | {f"leaf:{leaves[0].number}"})
                w = _with(trace, step, leaves, supposed)
                made += [replace(w, score=score)] if w is not None else []
        found += made
    return found


def _with(trace: Trace, step: Event, leaves: tuple[Leaf, ...], score: Event) -> WindowParameters | None:
    shared = _shared_loops(score, step)
    if not shared:
        return None
    fresh = {leaf.number for leaf in leaves if any(loop.id == shared[-1].id for loop in leaf.loops)}
    leaves = tuple(leaf for leaf in leaves if is_window_parameter(leaf) or leaf.number in fresh)
    if not leaves:
        return None
    if any(loop.id == step.loops[-1].id for loop in score.loops) and f"at:{step.loops[-1].id}" not in score.roles:
        return None  # a loss inside the inner loop
    held = numbers(score.roles, "leaf")
    own = {leaf.number for leaf in leaves}
    before = {n for leaf in leaves for n in numbers(leaf.origin, "leaf")} - own
    carried = any(loop.id in {s.id for s in shared} and own & made for loop, _, made in trace.carried)
    kept = [leaf for leaf in leaves if leaf.number not in fresh and not _reset(trace, leaf, shared[-1])]
    if score.seq > step.seq and held & own:
        optimised, scored = _spans(trace, step, score)
        relation = _relation(trace, step, score, leaves, optimised, scored)
        if relation is Relation.CONTEXT and not any(map(is_window_parameter, leaves)):
            return None  # an adapter trained on scored context
        return WindowParameters(step, leaves, score, relation, optimised, scored, carried or bool(kept))
    leaves = tuple(leaf for leaf in leaves if is_window_parameter(leaf))
    if leaves and score.seq < step.seq and (held & (own | before) or carried or any(leaf.by_hand for leaf in leaves)):
        optimised, scored = _spans(trace, step, score)
        return WindowParameters(step, leaves, score, Relation.EARLIER, optimised, scored, True)
    return None


def _shared_loops(score: Event, step: Event) -> list[Loop]:
    """The loops of the evaluation that both belong to, outermost first."""
    own = {f.id for f in score.own_frames} | {score.frame}
    inside = {loop.id for loop in score.loops if loop.frame in own}
    return [loop for loop in step.loops if loop.id in inside]


def _reset(trace: Trace, leaf: Leaf, loop: Loop) -> bool:
    end = trace.loop_end.get(loop.id, 0)
    return any(n == leaf.number and leaf.time < time <= end and not _open(guards) for time, n, guards in trace.resets)


def _open(guards: Sequence[object]) -> bool:
    return any(getattr(g, "truth", True) is None and getattr(g, "settings", None) for g in guards)


def _spans(trace: Trace, step: Event, score: Event) -> tuple[tuple[Span, ...], tuple[Span, ...]]:
    """The spans that only restrict the loss, and those that only restrict the score."""
    of_loss, of_score = numbers(step.roles, "span"), numbers(score.roles, "span")
    return (
        tuple(trace.spans[n] for n in sorted(of_loss - of_score)),
        tuple(trace.spans[n] for n in sorted(of_score - of_loss)),
    )


def _relation(
    trace: Trace,
    step: Event,
    score: Event,
    leaves: tuple[Leaf, ...],
    optimised: tuple[Span, ...],
    scored: tuple[Span, ...],
) -> Relation:
    if numbers(step.roles, "span") & numbers(score.roles, "out") or numbers(step.roles, "out") & numbers(
        score.roles, "span"
    ):
        apart: bool | None = True  # one mask and its complement
    else:
        window = _window(trace, step, score)
        apart = _apart(optimised, scored, window)
    if apart is None:
        return Relation.UNCLEAR
    if not apart:
        return Relation.SCORED
    return Relation.SHARED if _serves_neighbours(trace, step, score, leaves, scored) else Relation.CONTEXT


def _window(trace: Trace, step: Event, score: Event) -> tuple[float, float] | None:
    """The tokens that loss and score both come from, as the range (start, end) in the validation tokens."""
    both = numbers(step.roles, "span") & numbers(score.roles, "span")
    ranges = [
        (s.lower, s.upper)
        for n in both
        if (s := trace.spans[n]).of_tokens and s.lower is not None and s.upper is not None and s.loops
    ]
    return min(ranges) if ranges else None


def _apart(optimised: tuple[Span, ...], scored: tuple[Span, ...], window: tuple[float, float] | None) -> bool | None:
    """Whether two restrictions have no position in common; None where the bounds do not tell."""
    if any(s.of_tokens for s in (*optimised, *scored)):
        first, second = _absolute(optimised, window), _absolute(scored, window)
        if first is None or second is None:
            return None
        return min(first[1], second[1]) - max(first[0], second[0]) <= SLACK
    if not optimised:
        return False  # the loss covers everything that can be scored
    length = window[1] - window[0] - 1 if window is not None else None
    first, second = _range(optimised, length), _range(scored, length)
    if first is not None and second is not None:
        return min(first[1], second[1]) - max(first[0], second[0]) <= SLACK
    return _apart_as_written(optimised, scored)


def _range(spans: tuple[Span, ...], length: float | None) -> tuple[float, float] | None:
    """What all of ``spans`` leave of a window; None where a bound is not known."""
    if length is None:
        known = [s.upper for s in spans if s.upper is not None and 0 < s.upper < math.inf]
        length = max(known) if known else None
    lower, upper = 0.0, math.inf
    for span in spans:
        bounds = [span.lower, span.upper]
        for i, bound in enumerate(bounds):
            if bound is None:
                return None
            if bound < 0:
                if length is None:
                    return None
                bounds[i] = length + bound
        lower = max(lower, bounds[0] or 0.0)
        upper = min(upper, bounds[1] if bounds[1] is not None else math.inf)
    if length is not None:
        upper = min(upper, max(length, lower))
    return lower, upper


def _absolute(spans: tuple[Span, ...], window: tuple[float, float] | None) -> tuple[float, float] | None:
    """The range of validation tokens that ``spans`` select."""
    whole = [(s.lower, s.upper) for s in spans if s.of_tokens]
    if any(low is None or high is None for low, high in whole):
        return None
    ranges = [(low, high) for low, high in whole if low is not None and high is not None]
    outer = (max(r[0] for r in ranges), min(r[1] for r in ranges)) if ranges else window
    if outer is None:
        return None
    inner = tuple(s for s in spans if not s.of_tokens)
    within = _range(inner, outer[1] - outer[0]) if inner else (0.0, math.inf)
    if within is None:
        return None
    return outer[0] + within[0], min(outer[1], outer[0] + within[1])


def _apart_as_written(optimised: tuple[Span, ...], scored: tuple[Span, ...]) -> bool | None:
    """``[:s]`` and ``[s:]`` are apart whatever ``s`` is; ``[s:]`` and ``[s:]`` are the same."""
    answer: bool | None = None
    for first in optimised:
        for second in scored:
            if not isinstance(first.node, ast.Slice) or not isinstance(second.node, ast.Slice):
                continue
            texts = [
                ast.dump(bound) if bound is not None else None
                for bound in (first.node.lower, first.node.upper, second.node.lower, second.node.upper)
            ]
            if texts[1] is not None and texts[1] == texts[2]:
                return True
            if texts[0] is not None and texts[0] == texts[2]:
                answer = False
    return answer


def _serves_neighbours(
    trace: Trace, step: Event, score: Event, leaves: tuple[Leaf, ...], scored: tuple[Span, ...]
) -> bool:
    """Whether one tensor is optimised for several overlapping windows at once."""
    own = any(leaf.named or (leaf.shape and (leaf.shape[0] or 1) > 1) for leaf in leaves)
    if not scored or own or not any(leaf.shape for leaf in leaves):
        return False  # the whole window is scored, or each window has (or may have) its own
    both = [trace.spans[n] for n in numbers(step.roles, "span") & numbers(score.roles, "span")]
    around = {loop.id for loop in step.loops}
    for span in both:
        if not span.of_tokens or span.alone or not (span.loops or span.gathered):
            continue
        inside = {loop.id for loop in span.loops}
        outside = {loop.id for leaf in leaves for loop in leaf.loops} - inside
        if (span.gathered or not inside <= around) and not outside:
            return True
    return False
