"""What a log's own figures say about the denominator: how many bytes were counted.

Bits per byte are ``val_loss / ln 2 * tokens / bytes`` with the loss in nats per token. A line that prints
loss and bits per byte together therefore gives away the bytes per token that the script used, and with the number
of validation tokens the bytes it counted. The text is the same for everybody: 151.07 million bytes (rulebook 1.3).
The usual mistakes leave their own number: sentinels of a case-marking tokenizer counted as three bytes each, the
leading space counted twice, byte-fallback tokens counted as three bytes.

This is arithmetic on what was printed, not a reading of the code: a figure whose loss is not in nats per token, or
that belongs to another evaluation than its loss (a mixture printed beside the network's own loss), implies a number
without meaning.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median

from auditor.contest import FIRST_SPLIT_VAL_TOKENS, VAL_BYTES, VAL_TOKENS
from auditor.logs import Fact, Metric, RunLog
from auditor.reading import Reading
from auditor.verdict import Evidence

CANONICAL_TOLERANCE = 0.005
"""Relative: dropped tails and document starts move the count by less."""


class Denominator(StrEnum):
    """Which count of bytes the figures imply."""

    CANONICAL = "canonical"
    FIRST_SPLIT = "the split as first published"
    CASEOPS_SENTINELS = "case sentinels counted as three bytes each"
    DOUBLE_SPACE = "the leading space counted twice"
    BYTE_FALLBACK = "byte-fallback tokens counted as three bytes"
    PART = "part of the split"
    MORE = "more bytes than the split holds"
    FEWER = "fewer bytes than the split holds"

    @property
    def flatters(self) -> bool:
        """Whether this denominator makes bits per byte smaller than they are."""
        return self in _FLATTERING


_FLATTERING = frozenset(
    (Denominator.CASEOPS_SENTINELS, Denominator.DOUBLE_SPACE, Denominator.BYTE_FALLBACK, Denominator.MORE)
)

# Known wrong counts, as ratios to the canonical one: from, to. How many leading spaces a text has depends on how
# the tokenizer cuts it; the sentinels are in the text itself, so their count is exact, but for CaseOps only.
_SENTINELS = (1.0885, 1.0905)
_DOUBLE_SPACE = (1.1655, 1.1785)
_BYTE_FALLBACK = (1.0405, 1.0420)


@dataclass(frozen=True)
class ImpliedBytes:
    """The bytes that one log line implies.

    ``per_token`` is in bytes per token, ``tokens`` the number of validation tokens, ``total`` their product and
    ``ratio`` that over the canonical count. ``tokens_logged`` is False where the log does not count the tokens and the
    published count of a tokenizer with this vocabulary was assumed. ``uncertainty`` is relative and comes
    from the printed digits. ``evidence`` is the metric's line and, where logged, the line that counts the tokens.
    """

    per_token: float
    tokens: int
    tokens_logged: bool
    uncertainty: float
    denominator: Denominator
    metric: Metric
    file: str
    evidence: tuple[Evidence, ...]

    @property
    def total(self) -> float:
        return self.per_token * self.tokens

    @property
    def ratio(self) -> float:
        return self.total / VAL_BYTES

    @property
    def told(self) -> str:
        """The arithmetic in words, for a reason: "164.59 million bytes, 8.9 % more than ..."."""
        off = (self.ratio - 1) * 100
        how = f"{abs(off):.1f} % {'more' if off > 0 else 'fewer'} than" if abs(off) >= 0.5 else "as many as"
        counted = "" if self.tokens_logged else f" with {self.tokens:,} tokens, as published for this vocabulary,"
        return f"{self.total / 1e6:.2f} million bytes,{counted} {how} the split's {VAL_BYTES / 1e6:.2f} million"


@dataclass(frozen=True)
class BytesEvidence:
    """What the claim's logs imply about the bytes counted.

    ``reported`` belongs to the line that carries the claimed number, or is None where that line gives no loss.
    ``results`` are all final figures of the claim's runs, ``training`` the median bytes per token of the
    checks during training: where these agree with each other and the reported line does not, the
    reported figure is not the loss beside it over a byte count, but something else (a mixture).
    """

    reported: ImpliedBytes | None
    results: tuple[ImpliedBytes, ...]
    training: float | None

    @property
    def best(self) -> ImpliedBytes | None:
        """The reported line's figure, else the last result's."""
        return self.reported or (self.results[-1] if self.results else None)

    @property
    def same_throughout(self) -> bool:
        """Whether every result and the checks during training imply the same bytes per token (within 0.5 %).

        The bytes of a token are the tokenizer's alone: one byte count gives one ratio, whatever is evaluated.
        """
        ratios = [r.per_token for r in self.results] + ([self.training] if self.training is not None else [])
        return bool(ratios) and max(ratios) <= min(ratios) * (1 + CANONICAL_TOLERANCE)


def implied_bytes(reading: Reading) -> BytesEvidence | None:
    """The bytes that the claim's logs imply; None where no line gives a loss, its bits per byte and tokens to go by."""
    label = reading.reported.log
    results: list[ImpliedBytes] = []
    reported: ImpliedBytes | None = None
    steps: list[float] = []
    for run in reading.run.claim_runs:
        counted = _counted_tokens(run, reading.run.logs)
        for metric in run.metrics:
            per_token = _per_token(metric)
            if per_token is None:
                continue
            own = label is not None and (run.file, metric.line) == (label.file, label.line)
            if metric.kind == "step":
                steps.append(per_token)
            if metric.kind != "final" and not own:
                continue
            found = _implied(reading, run, metric, per_token, counted)
            if found is None:
                continue
            results.append(found)
            if own and label is not None and metric.val_bpb == label.value:
                reported = found
    if not results:
        return None
    return BytesEvidence(reported, tuple(results), median(steps) if steps else None)


def classify(per_token: float, tokens: int) -> Denominator:
    """Which count of bytes ``tokens`` tokens of ``per_token`` bytes are."""
    ratio = per_token * tokens / VAL_BYTES
    if abs(ratio - 1) <= CANONICAL_TOLERANCE:
        return Denominator.CANONICAL
    if ratio > 1:
        if abs(tokens / FIRST_SPLIT_VAL_TOKENS - 1) < 1e-3 and ratio < 1.035:
            return Denominator.FIRST_SPLIT
        if _SENTINELS[0] <= ratio <= _SENTINELS[1] and abs(tokens / VAL_TOKENS["sp8192 CaseOps"] - 1) < 5e-3:
            return Denominator.CASEOPS_SENTINELS
        if _DOUBLE_SPACE[0] <= ratio <= _DOUBLE_SPACE[1]:
            return Denominator.DOUBLE_SPACE
        if _BYTE_FALLBACK[0] <= ratio <= _BYTE_FALLBACK[1]:
            return Denominator.BYTE_FALLBACK
        return Denominator.MORE
    return Denominator.PART if ratio < 0.9 else Denominator.FEWER


def _per_token(metric: Metric) -> float | None:
    """Bytes per token, from a line with both figures; None where the loss is missing or makes no sense."""
    if not metric.val_loss or not metric.val_bpb or metric.val_loss <= 0:
        return None
    return metric.val_loss / math.log(2) / metric.val_bpb


def _implied(
    reading: Reading, run: RunLog, metric: Metric, per_token: float, counted: Fact[int] | None
) -> ImpliedBytes | None:
    tokens = counted.value if counted is not None else _assumed_tokens(reading, per_token)
    if not tokens:
        return None
    evidence = [reading.log_evidence(run.file, metric.line, metric.text, "loss and bits per byte, as logged")]
    if counted is not None:
        line = reading.line_text(run.file, counted.line) or f"val_tokens {tokens}"
        evidence.append(reading.log_evidence(run.file, counted.line, line, "validation tokens, as logged"))
    return ImpliedBytes(
        per_token=per_token,
        tokens=tokens,
        tokens_logged=counted is not None,
        uncertainty=_rounding(metric.loss_text, metric.val_loss) + _rounding(metric.bpb_text, metric.val_bpb),
        denominator=classify(per_token, tokens),
        metric=metric,
        file=run.file,
        evidence=tuple(evidence),
    )


def _counted_tokens(run: RunLog, logs: Iterable[RunLog]) -> Fact[int] | None:
    """The validation tokens that a run counts, or that an earlier run in the same file did."""
    if run.facts.val_tokens is not None:
        return run.facts.val_tokens
    earlier = [r for r in logs if r.file == run.file and r.last_line < run.first_line and r.facts.val_tokens]
    return earlier[-1].facts.val_tokens if earlier else None


def _assumed_tokens(reading: Reading, per_token: float) -> int | None:
    """The published count for the run's vocabulary; where two tokenizers share it, the one that fits better."""
    told = reading.run.effective(env="VOCAB_SIZE", attribute="vocab_size").value
    if told is None and (default := reading.trace.defaults.get("VOCAB_SIZE")) is not None:
        told = default[2]
    if told is None:
        return None
    counts: Sequence[int] = [n for name, n in VAL_TOKENS.items() if name.split()[0] == f"sp{told.strip()}"]
    return min(counts, key=lambda n: abs(per_token * n / VAL_BYTES - 1), default=None)


def _rounding(text: str | None, value: float | None) -> float:
    """The relative error that the last printed digit leaves."""
    if not text or not value:
        return 0.0
    digits = len(text.partition(".")[2])
    return 0.5 * 10.0**-digits / abs(value) if re.fullmatch(r"[\d.]+", text) else 0.0
