"""Is the reported number divided by the true bytes of the validation text?

The tiny validation text is ours, so its bytes are known. They must be what the loss per token and the bits per byte
of the submission imply: loss / ln 2 / bpb is bytes per token. Only positions that are scored count. A denominator
that does not change when the text does (a number fixed in the code) can't be tested in another world.
"""

from __future__ import annotations

from auditor.evidence import Status
from auditor.probe.base import Probe
from auditor.probe.evaluations import counted
from auditor.probe.result import Number, ProbeResult, ProbeStatus, Shown
from auditor.probe.run import Bench
from auditor.probe.session import Session

TOLERANCE = 1e-4
"""Of the bytes: accumulators in float32 round."""


class Bytes(Probe):
    """Compares the denominator with the text."""

    name = "bytes"
    title = "the denominator is the UTF-8 bytes of the validation text"
    level = "evaluation"
    rules = ("byte-count",)

    def run(self, bench: Bench) -> ProbeResult:
        session = Session.of(bench)
        outcomes = session.outcomes
        if outcomes is None:
            return session.could_not_run(self.name)
        base = outcomes.get("late-base") or outcomes.get("base")
        size = outcomes.size(base) if base is not None else None
        if size is None:
            return session.could_not_run(self.name, "loss and bits per byte are not both known")
        found = counted(outcomes)
        if isinstance(found, str):
            return session.could_not_run(self.name, found)
        truth = found.bytes
        numbers = (
            Number(name="bytes that the reported number is divided by", value=size, expected=truth, unit="bytes"),
            Number(name="ratio", value=size / truth, expected=1),
        )
        shared = {
            "changed": "nothing: the text of the tiny world is known",
            "must_stay": "the quotient of loss and bits per byte",
            "numbers": numbers,
            "tolerance": TOLERANCE * truth,
            "trials": 1,
        }
        if abs(size - truth) <= TOLERANCE * truth:
            reason = f"the reported number is divided by {size:g} bytes, as many as the scored text has"
            return session.result(self.name, ProbeStatus.CLEAN, reason, **shared)
        way = "lowers" if size > truth else "raises"
        reason = (
            f"the reported number is divided by {size:g} bytes, the scored text has {truth:g}:"
            f" that {way} it by a factor of {max(size, truth) / min(size, truth):.4f}"
        )
        shown = tuple(Shown(rule=r, status=Status.ACTIVE, reason=reason) for r in self.rules)
        return session.result(self.name, ProbeStatus.VIOLATED, reason, shown=shown, **shared)
