"""Are the reported losses those of a probability distribution?

Whatever the code looks like, exp(-loss) at a position, summed over every token of the vocabulary that could stand
there, must be 1. The last token of the stream is replaced by every token in turn, in the submission's own evaluation.
Where its loss is seen, that is summed. Where only totals are, the sum is over exp(-(L(v) - L0)), with L(v) the total
of all losses when v is the last token, and L0 that of the stream without it.

Where the loss is the cross-entropy of logits, computed by torch, the sum is 1 by construction if the logits don't
depend on the token: then ten tokens are enough to see that the log-sum-exp of the logits stays the same.

The stream ends with copies of one document, so that n-grams and byte models are sure of what comes next. A sum above
1 means that more probability is given out than there is; one below 1 that the reported number isn't that of a
distribution over the tokens either.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from auditor.evidence import Status
from auditor.probe.base import Probe
from auditor.probe.evaluations import Outcome, Outcomes, all_tokens, tried_tokens
from auditor.probe.result import Number, Position, ProbeResult, ProbeStatus, Shown
from auditor.probe.run import Bench
from auditor.probe.session import Session

TOLERANCE = 0.01
"""Of the sum: float32 losses of a stream of some hundred tokens."""
SECONDS = 400.0


class Normalisation(Probe):
    """Puts every token at the end of the stream."""

    name = "normalisation"
    title = "the probabilities of all tokens sum to 1"
    level = "evaluation"
    rules = (
        "byte-mix-unnormalized",
        "ngram-unnormalized",
        "ngram-target-in-key",
        "target-gate",
        "oracle-min",
        "scalar-expert",
        "slot-scored-region",
    )

    def run(self, bench: Bench) -> ProbeResult:
        session = Session.of(bench)
        outcomes = session.outcomes
        if outcomes is None:
            return session.could_not_run(self.name)
        slot = last_slot(outcomes)
        if slot is not None:
            spread = logits_stay(outcomes, slot)
            if spread is not None:
                return self._softmax(session, *spread)
        elif outcomes.get("short") is None:
            why = outcomes.why_not("short")
            return session.could_not_run(self.name, f"the stream could not be cut by one token: {why}")
        elif not _cut_by_one(outcomes):
            return session.could_not_run(self.name, "without its last token the stream is scored in another way")
        likely, others = all_tokens(outcomes.stream)
        session.more(likely, SECONDS)
        if _sum(self._costs(outcomes, slot), outcomes) <= 1 + TOLERANCE:
            session.more(others, SECONDS)
        return self._sum(session, outcomes, slot)

    @staticmethod
    def _costs(outcomes: Outcomes, slot: int | None) -> dict[int, float]:
        """What each token that was tried costs at the last position, in nats."""
        stream = outcomes.stream
        found: dict[int, float] = {}
        for token in range(stream.lengths.size):
            name = "late-base" if token == stream.tokens[stream.last] else f"all-{token}"
            run = outcomes.get(name) or outcomes.get(f"last-{token}")
            cost = _cost(outcomes, run, slot) if run is not None else None
            if cost is not None:
                found[token] = cost
        return found

    def _softmax(self, session: Session, columns: int, spread: float) -> ProbeResult:
        outcomes = session.outcomes
        assert outcomes is not None
        reason = (
            f"the reported losses are the cross-entropy of {columns} logits, whose log-sum-exp at the last position"
            f" moves by {spread:.2g} nats at most when the token there changes: the probabilities sum to 1"
        )
        return session.result(
            self.name,
            ProbeStatus.CLEAN,
            reason,
            changed="the last token of the stream, ten times",
            must_stay="the log-sum-exp of the logits that its loss is computed from",
            numbers=(
                Number(name="logits", value=columns),
                Number(name="largest change of their log-sum-exp", value=spread, expected=0, unit="nats"),
            ),
            tolerance=1e-4,
            trials=len(tried_tokens(outcomes.stream)),
        )

    def _sum(self, session: Session, outcomes: Outcomes, slot: int | None) -> ProbeResult:
        stream = outcomes.stream
        costs = self._costs(outcomes, slot)
        missing = stream.lengths.size - len(costs)
        total = _sum(costs, outcomes)
        every = math.fsum(math.exp(-cost) for cost in costs.values())
        written = {token: cost for token, cost in costs.items() if stream.lengths[token]}
        best = min(written, key=lambda t: written[t]) if written else None
        numbers: tuple[Number, ...] = (
            Number(name="sum of the probabilities of all tokens with a text at the last position", value=total),
            Number(name="the same with control tokens", value=every, expected=1),
            Number(name="tokens tried", value=len(costs), unit="tokens"),
            Number(name="tokens of the vocabulary", value=stream.lengths.size, unit="tokens"),
        )
        if best is not None:
            numbers = (*numbers, Number(name=f"largest of them (token {best})", value=math.exp(-costs[best])))
        shared = {
            "changed": "the last token of the stream, to every token of the vocabulary",
            "must_stay": "the sum of exp(-loss) over all tokens, which is 1",
            "numbers": numbers,
            "tolerance": TOLERANCE,
            "trials": len(costs),
        }
        where = "its own loss" if slot is not None else "the total with and without it"
        if total > 1 + TOLERANCE or (not missing and every < 1 - TOLERANCE):
            shown_sum = total if total > 1 + TOLERANCE else every
            tried = "all tokens" if not missing else f"{len(written)} of {stream.lengths.size} tokens"
            reason = (
                f"the probabilities that the reported number gives to {tried} at position {stream.last} sum to"
                f" {shown_sum:.4f}, not 1 (from {where})"
            )
            positions = (Position(moved=stream.last, changed=stream.last, note="last token of the stream"),)
            shown = tuple(Shown(rule=r, status=Status.ACTIVE, reason=reason, suspected_only=True) for r in self.rules)
            return session.result(self.name, ProbeStatus.VIOLATED, reason, positions=positions, shown=shown, **shared)
        if missing and (len(written) < int((stream.lengths > 0).sum()) or every < 0.5):
            return session.could_not_run(
                self.name,
                f"only {len(costs)} of {stream.lengths.size} tokens could be tried at the last position;"
                f" their probabilities sum to {every:.4f}",
            )
        what = f"all {len(costs)} tokens" if not missing else f"{len(costs)} tokens (all but {missing} control tokens)"
        reason = f"the probabilities of {what} at position {stream.last} sum to {every:.4f} (from {where})"
        return session.result(self.name, ProbeStatus.CLEAN, reason, **shared)


def _sum(costs: Mapping[int, float], outcomes: Outcomes) -> float:
    """The probabilities of all tokens that stand for a text: some programs count no loss for control tokens."""
    lengths = outcomes.stream.lengths
    return math.fsum(math.exp(-cost) for token, cost in costs.items() if lengths[token])


def last_slot(outcomes: Outcomes) -> int | None:
    """Which of the losses is that of the last position, or the first of them, if it is seen by itself."""
    positions = outcomes.positions
    if positions is None:
        return None
    at = np.flatnonzero(positions == outcomes.stream.last)
    return int(at[0]) if at.size else None


def logits_stay(outcomes: Outcomes, slot: int) -> tuple[int, float] | None:
    """How many logits the last loss is the cross-entropy of, and how much their log-sum-exp moves.

    None if it is no cross-entropy that torch computed, or moves.
    """
    runs = [outcomes.get(f"last-{token}") for token in tried_tokens(outcomes.stream)]
    base = outcomes.get("late-base")
    known = [run for run in (base, *runs) if run is not None]
    if len(known) < 8:
        return None
    shown = [run.parts.get("cross_entropy") for run in known]
    sizes = {array.size for array in shown if array is not None}
    if len(sizes) != 1 or any(array is None for array in shown):
        return None
    each = np.stack([array for array in shown if array is not None])
    losses = np.asarray([outcomes.losses(run)[slot] for run in known])
    same = np.flatnonzero(np.abs(each - losses[:, None]).max(axis=0) < 1e-6)
    names = [name for name in known[0].parts if name.startswith("log_sum_exp:")]
    for name in names:
        columns = int(name.partition(":")[2])
        sums = [run.parts.get(name) for run in known]
        if columns < outcomes.stream.lengths.size or any(s is None or s.size != each.shape[1] for s in sums):
            continue
        table = np.stack([s for s in sums if s is not None])
        for index in same:
            spread = float(np.ptp(table[:, index]))
            if spread <= 1e-4:
                return columns, spread
    return None


def _cut_by_one(outcomes: Outcomes) -> bool:
    base, short = outcomes.get("late-base"), outcomes.get("short")
    sizes = [outcomes.size(run) for run in (base, short) if run is not None]
    if len(sizes) < 2 or sizes[0] is None or sizes[1] is None:
        return False
    return abs(sizes[0] - sizes[1] - float(outcomes.stream.sizes[outcomes.stream.last])) < 0.01


def _cost(outcomes: Outcomes, run: Outcome, slot: int | None) -> float | None:
    """What the last token costs in this run, in nats."""
    if slot is not None:
        losses = outcomes.losses(run)
        return float(losses[slot]) if losses.size == outcomes.losses(outcomes.runs["late-base"]).size else None
    short = outcomes.get("short")
    total, without = outcomes.total(run), outcomes.total(short) if short is not None else None
    return total - without if total is not None and without is not None else None
