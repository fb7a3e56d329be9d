"""Order of scoring and training: how each gradient step on validation tokens stands to the reported scores.

Facts about a trace that several rules ask for. Everything is read from the order of events, the loops that they
share, and the roles that say which tokens they use (:mod:`auditor.index.values`); no name of any submission
counts. A *round* is one execution of a loop's body, a *span* the tokens that an expression covers in it.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from auditor.index.trace import Event, Kind, Loop, Trace
from auditor.index.window_parameters import only_window_parameters

SELECTS: dict[str, Callable[[int, int], bool]] = {
    "Eq": lambda a, b: a == b,
    "NotEq": lambda a, b: a != b,
    "Lt": lambda a, b: a < b,
    "LtE": lambda a, b: a <= b,
    "Gt": lambda a, b: a > b,
    "GtE": lambda a, b: a >= b,
}


class Order(StrEnum):
    """How a step on validation tokens stands to one reported score."""

    SCORED_FIRST = "scored first"
    """Each span is scored before it is trained on, and never again."""
    SCORED_AGAIN = "scored again"
    """A loop returns to the same tokens: they are scored in a round that follows training on them."""
    TRAINED_FIRST = "trained first"
    """In one round, the span is trained on and then scored by the changed parameters."""
    UNCLEAR = "unclear"
    """Trained, then scored, in one round; that both use the same tokens could not be shown."""
    OWN_TENSORS = "own tensors"
    """As :attr:`TRAINED_FIRST`, but what is optimised are tensors made in this round, outside of any network (SLOT)."""
    APART = "apart"
    """No loop of the evaluation holds both."""


@dataclass(frozen=True)
class Relation:
    """One step and one reported score: their order, the loop that decides it, and why."""

    step: Event
    score: Event
    order: Order
    loop: Loop | None = None
    kept: str = ""
    """For :attr:`Order.SCORED_AGAIN`: ``last`` or ``some`` rounds are kept, or ``every`` one."""


def share_loop(score: Event, step: Event) -> bool:
    """Whether both happen in one and the same execution of a loop inside the evaluation."""
    return bool(shared_loops(score, step))


def exclude_each_other(first: Event, second: Event) -> bool:
    """Whether the two stand in the two branches of one condition that is tested once."""
    if same_round(first, second):
        return False
    taken = {(id(g.node), g.frame): g.negated for g in first.guards if g.truth is None and g.frame}
    return any(g.truth is None and taken.get((id(g.node), g.frame), g.negated) is not g.negated for g in second.guards)


def same_round(first: Event, second: Event) -> bool:
    """Whether both happen in one execution of some loop, wherever it stands."""
    return not {loop.id for loop in first.loops}.isdisjoint(loop.id for loop in second.loops)


def shared_loops(score: Event, step: Event) -> list[Loop]:
    """The loops of the evaluation whose one execution holds both, outermost first."""
    own = {f.id for f in score.own_frames} | {score.frame}
    ids = {loop.id for loop in step.loops}
    return [loop for loop in score.loops if loop.frame in own and loop.id in ids]


def owners(step: Event) -> set[int]:
    """Serials of the networks whose parameters the step changes."""
    return {int(r.removeprefix("param:").split("~")[0]) for r in (step.text or "").split()}


def leaves(step: Event) -> set[int]:
    """Numbers of the tensors outside of any network that the step changes (the roles ``leaf:N``)."""
    return {int(r.removeprefix("leaf:")) for r in step.detail.split()}


def root(trace: Trace, serial: int) -> int:
    """The network that the object ``serial`` is part of."""
    for _ in range(20):
        if serial not in trace.parents:
            return serial
        serial = trace.parents[serial]
    return serial


def moves(roles: Iterable[str], loop: Loop) -> bool:
    """Whether a value with these roles is another one in every round of ``loop``."""
    return f"at:{loop.id}" in roles


def last_pass(event: Event) -> int | None:
    """When the newest forward pass ran that ``event``'s value came out of; None if none is known."""
    times = [int(r.removeprefix("pass:")) for r in event.roles if r.startswith("pass:")]
    return max(times, default=None)


def pieces(event: Event) -> set[int]:
    """The cuts of the validation tokens that ``event``'s value depends on, numbered in the order they are made in."""
    return {int(r[6:]) for r in event.roles if r.startswith("piece:")}


def same_tokens(trace: Trace, scored: set[int], trained: set[int]) -> bool:
    """Whether what was scored and what was trained on, given by their pieces, have tokens in common for certain.

    They do if both are cut from one piece and the score takes all of it, or both start with its first token.
    """
    common = scored & trained
    if not common:
        return False
    last = max(common)
    further = {n for n in scored if n > last}
    if not further:
        return True
    own = {n for n in trained if n > last}
    return all(trace.pieces.get(n, False) for n in further | own)


def number_of_rounds(loop: Loop) -> int | None:
    """How many rounds a loop over a known range has; None where that is not known."""
    known = [int(r.removeprefix("rounds:")) for r in loop.roles if r.startswith("rounds:")]
    return known[0] if known else None


def first_number(loop: Loop) -> int:
    """What the counter of ``for i in range(...)`` starts at."""
    source = loop.node.iter if isinstance(loop.node, (ast.For, ast.AsyncFor)) else None
    if isinstance(source, ast.Call) and len(source.args) > 1:
        start = source.args[0]
        if isinstance(start, ast.Constant) and isinstance(start.value, int):
            return start.value
    return 0


def kept_rounds(event: Event, loop: Loop) -> set[int] | None:
    """The rounds of ``loop`` (0 is the first) in which ``event`` happens, by the conditions on its path.

    None where a condition on the round can't be told. At most the first 1,000 rounds are looked at.
    """
    count = min(number_of_rounds(loop) or 2, 1000)
    first = first_number(loop)
    kept = set(range(count))
    for guard in event.guards:
        for role in guard.roles:
            if not role.startswith(f"round:{loop.id}:"):
                continue
            name, bound = role.split(":")[2:]
            if bound == "?" or name not in SELECTS:
                return None
            kept = {k for k in kept if SELECTS[name](first + k, int(bound)) is not guard.negated}
    return kept


def repeats(loop: Loop, score: Event) -> bool:
    """Whether the loop is one over rounds (epochs, passes) that all score the same tokens."""
    if not isinstance(loop.node, ast.For) or not loop.roles & {"const", "unset"}:
        return False
    return not moves(score.roles, loop) and "random" not in score.roles and number_of_rounds(loop) != 1


def renewed(trace: Trace, step: Event, loop: Loop) -> bool:
    """Whether what the step changes is made anew, reset or loaded in every round of ``loop``."""
    targets = owners(step)
    whole = targets | {root(trace, o) for o in targets}
    made = [trace.made_in.get(o, ()) for o in targets] + [trace.made_in.get(-n, ()) for n in leaves(step)]
    if made and all(loop.id in loops for loops in made):
        return True
    for event in trace.events:
        if event.kind is Kind.RESET:
            reset = {int(r.removeprefix("param:")) for r in (event.text or "").split()}
        elif event.kind is Kind.LOAD:
            serial = getattr(event.value, "serial", None)
            reset = {serial} if serial is not None else whole
        else:
            continue
        if not reset & whole or loop.id not in {inner.id for inner in event.loops}:
            continue
        kept = kept_rounds(event, loop)
        if kept is None or kept != {0}:
            return True
    return False


def relation(trace: Trace, score: Event, step: Event) -> Relation:
    """How ``step`` stands to ``score``; both are events of ``trace``."""
    shared = shared_loops(score, step)
    if not shared:
        return Relation(step, score, Order.APART)
    for loop in shared:
        if repeats(loop, score) and not renewed(trace, step, loop):
            kept = kept_rounds(score, loop)
            if kept == {0}:
                continue
            count = number_of_rounds(loop)
            if kept is None or (count is None and "unset" in loop.roles):
                return Relation(step, score, Order.UNCLEAR, loop)
            how = "every" if len(kept) == min(count or 2, 1000) else "last" if kept == {(count or 0) - 1} else "some"
            return Relation(step, score, Order.SCORED_AGAIN, loop, how)
    inner = shared[-1]
    newest = last_pass(score)
    if step.seq > score.seq or newest is None or newest < step.time or step.ends_round == inner.id:
        return Relation(step, score, Order.SCORED_FIRST, inner)
    if _undone(trace, step, score):
        return Relation(step, score, Order.SCORED_FIRST, inner)
    if not owners(step):
        made = [trace.made_in.get(-n, ()) for n in leaves(step)]
        if not made or all(inner.id in loops for loops in made) or only_window_parameters(trace, step):
            return Relation(step, score, Order.OWN_TENSORS, inner)
    if not moves(score.roles, inner) and not moves(step.roles, inner):
        known = isinstance(inner.node, ast.For) and "const" in inner.roles
        return Relation(step, score, Order.TRAINED_FIRST if known else Order.UNCLEAR, inner)
    same = same_tokens(trace, pieces(score), pieces(step))
    return Relation(step, score, Order.TRAINED_FIRST if same else Order.UNCLEAR, inner)


def thrown_away(trace: Trace, scores: Sequence[Event], step: Event) -> str | None:
    """Why what the step changes has no part in these scores: put back, or not used afterwards. None if it may have."""
    changed = owners(step)
    if not changed:
        return None
    if not scores:
        return None
    whole = changed | {root(trace, o) for o in changed}
    # Weights that are put back only after the scores were taken with them don't count.
    next_score = min((s.time for s in scores if s.seq > step.seq), default=None)
    for when, serial, saved in trace.restores:
        if serial in whole and saved < step.time < when and (next_score is None or when <= next_score):
            return "the weights are restored afterwards"
    if any(e.kind is Kind.RESET and step.seq < e.seq < scores[0].seq and _wipes(e, changed) for e in trace.events):
        return "what was trained is reset before the reported evaluation scores"
    end = end_of_work(trace, step)
    used = any(
        time > end and _in_scored_part(scores, frames)
        for serial in whole
        for time, frames in trace.touches.get(serial, {}).values()
    )
    captured = any(serial in whole and time > step.time for time, serial in trace.captures)
    return "the stepped weights are not used afterwards" if not used and not captured else None


def _wipes(reset: Event, changed: set[int]) -> bool:
    """Whether a reset puts constants into all that a step changed."""
    kept = any(r.startswith(("param:", "state:")) for r in reset.roles)
    return (
        reset.detail == "all"
        and not kept
        and changed <= {int(r.removeprefix("param:")) for r in (reset.text or "").split()}
    )


def end_of_work(trace: Trace, step: Event) -> int:
    """When the outermost loop around the step, in the function that steps, is over."""
    own = [loop for loop in step.loops if loop.frame == step.frames[-1].id]
    return trace.loop_end.get(own[0].id, step.time) if own else step.time


def _in_scored_part(scores: Sequence[Event], frames: tuple[int, ...]) -> bool:
    """Whether a use lies in the evaluation of ``scores``, or in the script's own main line that leads to it."""
    if not scores:
        return True
    function = scores[0].frame
    return function in frames or function in {s.frames[-1].id for s in scores} & set(frames)


def _undone(trace: Trace, step: Event, score: Event) -> bool:
    """Whether the parameters are put back between the step and the score."""
    whole = owners(step) | {root(trace, o) for o in owners(step)}
    return any(serial in whole and saved < step.time < when <= score.time for when, serial, saved in trace.restores)


def relations(trace: Trace, scores: Sequence[Event]) -> list[Relation]:
    """Every pair of a reported score and a step on validation tokens."""
    steps = [e for e in trace.of(Kind.STEP) if "val" in e.roles]
    return [relation(trace, score, step) for step in steps for score in scores]


def printed_scores(trace: Trace) -> list[Event]:
    """The scores that some printed result is made of."""
    printed = {int(r[6:]) for e in trace.of(Kind.METRIC) for r in e.roles if r.startswith("score:")}
    return [e for e in trace.of(Kind.SCORE) if e.seq in printed]


def is_warm_up(trace: Trace, scores: Sequence[Event], step: Event) -> str | None:
    """Why this step only warms up: nothing is scored beside it, and what it changes is thrown away. None if not so."""
    why = thrown_away(trace, scores, step)
    if why is None or any(share_loop(score, step) for score in trace.of(Kind.SCORE)):
        return None
    whole = owners(step) | {root(trace, o) for o in owners(step)}
    put_back = min(
        (when for when, serial, saved in trace.restores if serial in whole and saved < step.time < when), default=None
    )
    for score in trace.of(Kind.SCORE):
        if score.time <= step.time or (put_back is not None and score.time >= put_back):
            continue
        inside = {score.frame, score.frames[-1].id}
        uses = (
            frames for serial in whole for time, frames in trace.touches.get(serial, {}).values() if time > step.time
        )
        if any(inside & set(frames) for frames in uses) and put_back is None:
            return None
        if put_back is not None:
            return None
    return why


def counted_first(trace: Trace, scores: Sequence[Event]) -> list[Relation]:
    """Scores computed with a table into which tokens were counted earlier in the same round of a loop."""
    counts = {e.seq: e for e in trace.of(Kind.COUNT)}
    found: list[Relation] = []
    for score in scores if counts else ():
        for number in sorted(_numbers(score.roles, "counted:") & counts.keys()):
            count = counts[number]
            shared = [loop for loop in score.loops if loop.id in {other.id for other in count.loops}]
            if not shared or count.ends_round == shared[-1].id or count.seq > score.seq:
                continue
            same = same_tokens(trace, pieces(score), pieces(count))
            found.append(Relation(count, score, Order.TRAINED_FIRST if same else Order.UNCLEAR, shared[-1]))
    return found


@dataclass(frozen=True)
class Rescoring:
    """A state that holds validation tokens, and the score that is computed with it after a pass is over."""

    state: Event
    """The step, or the count into a table, that brings the tokens into the state."""
    score: Event
    first: Event | None
    """The score of the pass before, which the state was built beside; None where no such score was found."""
    proof: str
    """Why the tokens scored are those of the pass before: ``stored`` (its results are used again), ``replaced`` (its
    loss is taken out of the sum), ``all`` (the state was complete before anything was scored with it), ``phase`` (the
    whole set is scored again by trained parameters), or empty where it could not be shown."""


def rescorings(trace: Trace, scores: Sequence[Event], metric: Event | None) -> list[Rescoring]:
    """Scores behind the reported number that use a state built from validation tokens in a pass that is over."""
    return [*_counted_before(trace, scores, metric), *_trained_before(trace, scores)]


def _numbers(roles: Iterable[str], kind: str) -> set[int]:
    return {int(r[len(kind) :]) for r in roles if r.startswith(kind)}


def _counted_before(trace: Trace, scores: Sequence[Event], metric: Event | None) -> list[Rescoring]:
    counts = {e.seq: e for e in trace.of(Kind.COUNT)}
    if not counts or not scores:
        return []
    found: list[Rescoring] = []
    replaced = metric is not None and "superseded" in metric.roles
    known = {e.seq: e for e in trace.of(Kind.SCORE)}
    users = [*scores, *([metric] if metric is not None else [])]
    for user in users:
        for number in sorted(_numbers(user.roles, "counted:") & counts.keys()):
            count = counts[number]
            beside = [s for s in known.values() if s.seq < count.seq and same_round(s, count)]
            if user is metric:
                # What the result is made of without having been added up in a loop: nothing scored beside the counts.
                if beside or any(same_round(s, count) for s in scores):
                    continue
                score = scores[-1]
            else:
                score = user
                if same_round(user, count) or exclude_each_other(user, count):
                    continue
            stored = sorted(n for n in _numbers(user.roles, "score:") if n in known and n < number)
            if beside:
                first: Event | None = beside[0]
                again = {s.seq for s in beside} & set(stored)
                anew = replaced or "superseded" in user.roles or any(_overwrites(score, s) for s in beside)
                proof = "replaced" if anew else "stored" if again else ""
            else:
                first = known[stored[0]] if stored else None
                complete = "whole" in count.roles and not any(loop.roles & {"val", "val.len"} for loop in count.loops)
                proof = "stored" if stored else "all" if complete else ""
            found.append(Rescoring(count, score, first, proof))
    return found


def _overwrites(later: Event, earlier: Event) -> bool:
    """Whether a score is put where an earlier one was kept: ``losses[chunk] = loss``, twice."""
    places = []
    for event in (later, earlier):
        if not isinstance(event.node, ast.Assign) or not isinstance(event.node.targets[0], ast.Subscript):
            return False
        places.append((event.frame, ast.unparse(event.node.targets[0].value)))
    return places[0] == places[1] and later.node is not earlier.node


def _trained_before(trace: Trace, scores: Sequence[Event]) -> list[Rescoring]:
    found: list[Rescoring] = []
    if not scores:
        return found
    for step in trace.of(Kind.STEP):
        if "val" not in step.roles or not owners(step) or step.seq > scores[-1].seq:
            continue
        if any(share_loop(s, step) for s in scores):
            continue
        beside = [s for s in trace.of(Kind.SCORE) if s.seq < step.seq and share_loop(s, step) and s not in scores]
        later = [s for s in scores if s.seq > step.seq and not exclude_each_other(s, step)]
        if not beside or not later or thrown_away(trace, scores, step) is not None:
            continue
        if not any(relation(trace, s, step).order is Order.SCORED_FIRST for s in beside):
            continue
        # A loss that only follows the training (printed per epoch) is no pass of scoring.
        if not any(s.no_grad for s in beside):
            continue
        found.append(Rescoring(step, later[0], beside[0], "phase"))
    return found
