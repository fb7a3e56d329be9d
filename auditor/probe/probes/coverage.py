"""Is every validation token scored?

In ten runs tokens are replaced by tokens of another size: in run k all those whose position has bit k set. The
bytes that the reported number is divided by must grow by exactly what these tokens gain; and the runs in which the
bytes of one summand change spell the position that it belongs to. A position that moves nothing is not scored.

The tail of less than one evaluation window that the reference script drops is legal. A longer tail is looked at
again in a world of twice the size: what is dropped because a batch is not full stays the same, a true subset grows.
"""

from __future__ import annotations

from auditor.evidence import Status
from auditor.probe.base import Probe
from auditor.probe.evaluations import Counted, counted
from auditor.probe.result import Number, Position, ProbeResult, ProbeStatus, Shown
from auditor.probe.run import Bench
from auditor.probe.session import Session


class Coverage(Probe):
    """Finds the positions that are counted in no summand."""

    name = "coverage"
    title = "every validation token is scored"
    level = "evaluation"
    rules = ("eval-subset",)

    def run(self, bench: Bench) -> ProbeResult:
        session = Session.of(bench)
        outcomes = session.outcomes
        if outcomes is None:
            return session.could_not_run(self.name)
        found = counted(outcomes)
        if isinstance(found, str):
            return session.could_not_run(self.name, found)
        window = session.plan.size.eval_sequence
        stream = outcomes.stream
        holes = [p for p in found.missing if p <= found.end]
        tail = stream.last - found.end
        numbers: tuple[Number, ...] = (
            Number(name="positions looked at", value=len(stream.editable), unit="tokens"),
            Number(name="positions not scored before the last scored one", value=len(holes), expected=0, unit="tokens"),
            Number(name="positions after the last scored one", value=tail, unit="tokens"),
            Number(name="evaluation window", value=window, unit="tokens"),
        )
        shared = {
            "changed": "the sizes of tokens: in run k of those whose position has bit k set",
            "must_stay": "the number of bytes, but for what these tokens gain",
            "trials": found.trials,
        }
        if not holes and tail < max(window, 2):
            dropped = f", but for the last {tail}, less than one window of {window}" if tail else ""
            reason = f"each of {stream.last} targets is counted{dropped} ({found.how})"
            return session.result(self.name, ProbeStatus.CLEAN, reason, numbers=numbers, **shared)
        if not holes:
            larger = session.tail_in_larger_world()
            if isinstance(larger, str):
                return session.could_not_run(self.name, f"the last {tail} tokens are not scored; {larger}")
            numbers = (*numbers, Number(name="the same in a world of twice the size", value=larger, unit="tokens"))
            if larger <= tail + window:
                reason = f"the last {tail} tokens are not scored, as many in a world of twice the size: no full batch"
                return session.result(self.name, ProbeStatus.CLEAN, reason, numbers=numbers, **shared)
        what = f"{len(holes)} tokens before position {found.end}" if holes else f"the last {tail} tokens"
        reason = f"{what} of {stream.last} never count in the reported number ({found.how})"
        places = holes or list(range(found.end + 1, stream.last + 1))
        positions = tuple(Position(moved=p, note="not scored") for p in places[:12])
        shown = tuple(Shown(rule=r, status=Status.ACTIVE, reason=reason) for r in self.rules)
        return session.result(
            self.name, ProbeStatus.VIOLATED, reason, numbers=numbers, positions=positions, shown=shown, **shared
        )


__all__ = ["Counted", "Coverage"]
