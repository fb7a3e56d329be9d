"""Is any validation token scored more than once?

As in ``coverage``: tokens are replaced by tokens of another size, and the summands whose bytes change are those that
the position counts in. A position that counts in two summands weighs twice in the reported number.

Sliding windows that end with the stream often share its last tokens. That is less than one window, however long the
stream is, and is told but no violation.
"""

from __future__ import annotations

from auditor.evidence import Status
from auditor.probe.base import Probe
from auditor.probe.evaluations import counted
from auditor.probe.result import Number, Position, ProbeResult, ProbeStatus, Shown
from auditor.probe.run import Bench
from auditor.probe.session import Session


class SinglePass(Probe):
    """Finds the positions that are counted in several summands."""

    name = "single-pass"
    title = "no validation token is scored twice"
    level = "evaluation"
    rules = ("two-pass-rescore", "epoch-rescore")

    def run(self, bench: Bench) -> ProbeResult:
        session = Session.of(bench)
        outcomes = session.outcomes
        if outcomes is None:
            return session.could_not_run(self.name)
        found = counted(outcomes)
        if isinstance(found, str):
            return session.could_not_run(self.name, found)
        shared = {
            "changed": "the sizes of tokens: in run k of those whose position has bit k set",
            "must_stay": "the number of bytes, but for what these tokens gain",
            "trials": found.trials,
            "numbers": (
                Number(name="positions counted more than once", value=len(found.repeated), expected=0, unit="tokens"),
            ),
        }
        window = session.plan.size.eval_sequence
        if not found.repeated or min(found.repeated) > found.end - window:
            reason = f"no target counts more than once ({found.how})"
            if found.repeated:
                # Sliding windows that end with the stream often share its last tokens, however long the stream is.
                reason = (
                    f"only {len(found.repeated)} targets of the last window of {window} tokens count more than once,"
                    f" a number that does not grow with the stream ({found.how})"
                )
            return session.result(self.name, ProbeStatus.CLEAN, reason, **shared)
        first = min(found.repeated)
        reason = (
            f"{len(found.repeated)} targets count more than once in the reported number: the one at position {first}"
            f" {found.repeated[first]} times ({found.how})"
        )
        positions = tuple(Position(moved=p, note=f"counts {k} times") for p, k in sorted(found.repeated.items())[:12])
        shown = tuple(Shown(rule=r, status=Status.ACTIVE, reason=reason, suspected_only=True) for r in self.rules)
        return session.result(self.name, ProbeStatus.VIOLATED, reason, positions=positions, shown=shown, **shared)
