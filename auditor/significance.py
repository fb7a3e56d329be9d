"""Is a gain more than luck? Welch's t-test on the seeds' results against the record that stood.

The written bar asks for 0.005 nats at p < 0.01; the organisers' late audits went through the records in order of
opening and asked for p < 0.25. Both are computed; p is one-sided, as theirs is.

Losses per token compare only under one tokenizer, so the gain is measured in bits per byte, which always compare, and
converted with the candidate's own ratio of nats per token to bits per byte. The p-value doesn't depend on the unit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from statistics import fmean, variance

from pydantic import Field

from auditor.errors import UsageError
from auditor.verdict import Frozen

WRITTEN_NATS = 0.005
WRITTEN_P = 0.01
APPLIED_P = 0.25
NATS_PER_BIT_AND_BYTE = 1.688
"""Nats per token for one bit per byte where no log tells it: that of the contest's first tokenizer."""


class SeedResult(Frozen):
    """One run: its loss in nats per token (where known) and its bits per byte."""

    seed: int | None = None
    val_loss: float | None = None
    val_bpb: float


class Record(Frozen):
    """An accepted record: what it is called, the day on which it was opened (ISO 8601), and its runs."""

    submission: str
    opened: str
    runs: tuple[SeedResult, ...] = Field(min_length=1)

    @property
    def bpb(self) -> float:
        """The mean over its runs."""
        return fmean(r.val_bpb for r in self.runs)


class RecordTable(Frozen):
    """The accepted records, and how the table was made."""

    how: str
    records: tuple[Record, ...]


class Test(Frozen):
    """A candidate's runs against a baseline's.

    ``gain_nats`` is positive where the candidate is better, in nats per token of its own tokenizer. ``t``, ``df``
    (Welch and Satterthwaite) and ``p`` (one-sided) are None where one side has a single run, or the candidate is no
    better.
    """

    baseline: Record
    runs: int
    gain_bpb: float
    gain_nats: float
    t: float | None = None
    df: float | None = None
    p: float | None = None

    @property
    def meets_written_bar(self) -> bool | None:
        """At least 0.005 nats at p < 0.01; None where the gain would do and p is not known."""
        if self.gain_nats < WRITTEN_NATS:
            return False
        return None if self.p is None else self.p < WRITTEN_P

    @property
    def meets_applied_bar(self) -> bool | None:
        """Better than the record that stood, at p < 0.25; None where it is better and p is not known."""
        if self.gain_bpb <= 0:
            return False
        return None if self.p is None else self.p < APPLIED_P

    def sentence(self) -> str:
        """The result in one plain sentence."""
        base = f"{self.baseline.submission} ({self.baseline.bpb:.5f}, opened {self.baseline.opened})"
        side = f"{abs(self.gain_nats):.4f} nats ({abs(self.gain_bpb):.5f} bits per byte)"
        head = f"{side} {'better' if self.gain_bpb > 0 else 'worse'} than {base}"
        if self.gain_bpb <= 0:
            return head
        if self.p is None or self.t is None or self.df is None:
            return f"{head}; one side has a single run, so chance can't be judged"
        return f"{head}, p = {self.p:.3g} (Welch, one-sided, t = {self.t:.2f}, df = {self.df:.1f})"


@cache
def record_table() -> RecordTable:
    """The accepted records, as shipped with the auditor."""
    return RecordTable.model_validate_json((files("auditor") / "records.json").read_text("utf-8"))


def standing(opened: str | None) -> Record:
    """The best of the records opened before that day (ISO 8601); of all, where the day is not known."""
    records = record_table().records
    earlier = [r for r in records if opened is None or r.opened < opened]
    return min(earlier or records[:1], key=lambda r: r.bpb)


def baseline_from(text: str) -> Record:
    """A baseline as given by a person: a name from the table ("#1493"), or figures ("1.0810,1.0808,1.0812").

    Raises UsageError where it is neither.
    """
    wanted = text.strip()
    for record in record_table().records:
        if wanted.lstrip("#").lower() == record.submission.lstrip("#").lower():
            return record
    try:
        figures = [float(part) for part in wanted.split(",")]
    except ValueError:
        figures = []
    if not figures or not all(math.isfinite(f) and 0 < f < 10 for f in figures):
        raise UsageError(f"--baseline takes an accepted record such as #1493, or bits per byte by seed, not {text!r}")
    return Record(submission="the given baseline", opened="?", runs=tuple(SeedResult(val_bpb=f) for f in figures))


def compare(candidate: Sequence[SeedResult], baseline: Record) -> Test:
    """The candidate's runs (at least one) against the baseline's."""
    ours = [r.val_bpb for r in candidate]
    theirs = [r.val_bpb for r in baseline.runs]
    ratios = [r.val_loss / r.val_bpb for r in (*candidate, *baseline.runs) if r.val_loss is not None]
    nats = ratios[0] if ratios else NATS_PER_BIT_AND_BYTE
    gain = fmean(theirs) - fmean(ours)
    test = Test(baseline=baseline, runs=len(ours), gain_bpb=gain, gain_nats=gain * nats)
    if gain <= 0 or min(len(ours), len(theirs)) < 2 or variance(ours) == variance(theirs) == 0:
        return test  # what is not better needs no test
    from scipy.special import stdtr  # slow to import, and most submissions never come this far

    # Welch's test; scipy.stats has it too, and takes three times as long to import as everything else here.
    spread = [variance(theirs) / len(theirs), variance(ours) / len(ours)]
    t = gain / math.sqrt(sum(spread))
    df = sum(spread) ** 2 / sum(s**2 / (n - 1) for s, n in zip(spread, (len(theirs), len(ours)), strict=True))
    return test.model_copy(update={"t": t, "df": df, "p": float(stdtr(df, -t))})
