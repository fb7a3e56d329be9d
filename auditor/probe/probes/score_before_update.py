"""Does the score of a token depend on tokens that are scored later?

One validation token is changed before anything of the validation split has been read, and the submission's whole flow
runs: training, adaptation, quantisation, the reported evaluation. Every other token that comes before the changed one
in the stream, and is not scored after it, must keep its loss to the last digit, since in a legal evaluation nothing
that such a loss is computed from (the artifact, the text before it, what was learnt from tokens scored before it)
contains the changed token. Tokens in another part of the stream that are scored afterwards may change: the model may
learn from the changed token once that is scored.

The runs are repeated without a change to measure the noise; the program's clock and random numbers are the same in
all runs. Which loss belongs to which position is found by changing the sizes of tokens, not by names.
"""

from __future__ import annotations

import numpy as np

from auditor.evidence import Status
from auditor.probe.base import Probe
from auditor.probe.evaluations import Floats, Ints, Outcome, Outcomes, tested_positions
from auditor.probe.result import Number, Position, ProbeResult, ProbeStatus, Shown
from auditor.probe.run import Bench
from auditor.probe.session import Session


class ScoreBeforeUpdate(Probe):
    """Changes single tokens for the whole flow and looks at the losses before them."""

    name = "score-before-update"
    title = "a token's score does not depend on tokens that are scored later"
    level = "evaluation"
    rules = (
        "prequant-ttt",
        "score-after-adapt",
        "two-pass-rescore",
        "epoch-rescore",
        "slot-scored-region",
        "val-calibration",
        "warmup-on-val",
        "val-data-in-training",
    )

    def run(self, bench: Bench) -> ProbeResult:
        session = Session.of(bench)
        outcomes = session.outcomes
        if outcomes is None:
            return session.could_not_run(self.name)
        base = outcomes.get("base")
        assert base is not None
        if outcomes.account is None:
            return session.could_not_run(self.name, "what the reported number is the sum of was not seen")
        places = _places(outcomes)
        if places is None:
            return session.could_not_run(self.name, "which loss belongs to which position was not found")
        first, last = places
        times = outcomes.times(base)
        tolerance = outcomes.tolerance
        found: list[Position] = []
        trials, worst, moved = 0, 0.0, 0
        for changed in tested_positions(outcomes.stream):
            run = outcomes.get(f"early-{changed}")
            if run is None or outcomes.losses(run).size != times.size:
                continue
            when = _when(outcomes, base, run, first, last, times, changed)
            if when is None:
                # Not scored once, or scored in another order than without the change: nothing to compare.
                continue
            trials += 1
            before, after = outcomes.losses(base), outcomes.losses(run)
            stays = (last < changed) & (last >= 0) & (times <= when)
            differs = np.abs(after - before)
            wrong = np.flatnonzero(stays & (differs > tolerance))
            worst = max(worst, float(differs[stays].max()) if stays.any() else 0.0)
            moved += int(wrong.size)
            for index in wrong[np.argsort(-differs[wrong])][:4]:
                place = int(last[index])
                note = "" if first[index] == last[index] else f"sum of the losses at {int(first[index])} to {place}"
                found.append(
                    Position(moved=place, changed=changed, before=before[index], after=after[index], note=note)
                )
        if not trials:
            return session.could_not_run(self.name, "no run with a changed token can be compared with the base run")
        numbers = (
            Number(name="losses that changed with a token scored later", value=moved, expected=0, unit="losses"),
            Number(name="largest such change", value=worst, expected=0, unit="nats"),
            Number(name="optimiser steps within the evaluation", value=base.steps),
        )
        shared = {
            "changed": "one validation token, before the validation split is read",
            "must_stay": "the losses of the tokens before it that are not scored after it",
            "numbers": numbers,
            "tolerance": tolerance,
            "trials": trials,
        }
        if not found:
            reason = f"no loss depends on a token that is scored later: {trials} tokens were changed"
            return session.result(self.name, ProbeStatus.CLEAN, reason, **shared)
        found.sort(key=lambda p: -abs((p.after or 0.0) - (p.before or 0.0)))
        worst_one = found[0]
        early = _before_evaluation(outcomes)
        earlier = " even before the reported evaluation begins" if early else ""
        reason = (
            f"changing the token at position {worst_one.changed} changes the loss at position {worst_one.moved}, scored"
            f" before it, from {worst_one.before:.6g} to {worst_one.after:.6g} nats: it is learnt from{earlier}"
        )
        # The first is what it counts for where reading suspects none of them.
        rules = self.rules if early else (*self.rules[1:], self.rules[0])
        shown = tuple(Shown(rule=r, status=Status.ACTIVE, reason=reason, suspected_only=True) for r in rules)
        return session.result(
            self.name, ProbeStatus.VIOLATED, reason, **shared, positions=tuple(found[:12]), shown=shown
        )


def _places(outcomes: Outcomes) -> tuple[Ints, Ints] | None:
    """The first and last position that each loss is of; -1 where not known."""
    positions = outcomes.positions
    if positions is not None:
        return positions, positions
    return outcomes.ranges


def _when(
    outcomes: Outcomes, base: Outcome, run: Outcome, first: Ints, last: Ints, times: Ints, changed: int
) -> int | None:
    """The time at which the changed token is scored; None if not known, not once, or if the order is another."""
    at = np.flatnonzero((first <= changed) & (last >= changed) & (first >= 0))
    name = outcomes.account.bytes if outcomes.account is not None else None
    if at.size != 1 or name is None:
        return None
    kind = "parts" if outcomes.positions is not None else "values"
    before, after = getattr(base, kind)[name], getattr(run, kind).get(name)
    if after is None or after.size != before.size or np.flatnonzero(before != after).tolist() != at.tolist():
        return None
    return int(times[at[0]])


def _before_evaluation(outcomes: Outcomes) -> bool:
    """Whether the same change made only when the evaluation begins leaves the losses before it as they were."""
    base = outcomes.get("late-base")
    for name in outcomes.runs:
        run = outcomes.get(name)
        place = name.removeprefix("late-")
        if not name.startswith("late-") or not place.isdigit() or run is None or base is None:
            continue
        positions = _places(outcomes)
        before: Floats = outcomes.losses(base)
        after: Floats = outcomes.losses(run)
        if positions is None or before.size != after.size:
            return False
        stays = (positions[1] >= 0) & (positions[1] < int(place))
        return bool(np.all(np.abs(after - before)[stays] <= outcomes.tolerance))
    return False
