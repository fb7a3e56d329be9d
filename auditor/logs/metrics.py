"""Bits-per-byte figures in a log, in any dialect.

Nothing here knows one script's labels: a metric is a line that gives a bits-per-byte figure, and its label is
whatever stands before the first ``key:number`` of that line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from auditor.logs.lines import NUMBER, STEP, LogFile, without_prefix
from auditor.logs.model import Metric, MetricKind
from auditor.text import decimal, lines_with

MAX_METRICS = 5_000
BPB_WORD = re.compile(r"(?i)bpb|bits[ _-]?per[ _-]?byte")
_FIGURE_WORDS = ("bpb", "per byte", "per_byte", "per-byte", "perbyte")
BPB = re.compile(
    r"(?i)(?<![\w.])((?:\w+[_/])?(?:bpb|bits[ _-]?per[ _-]?byte)(?:_\w+)?)[\"']?(?:\s*\([^()]{0,40}\))?"
    rf"(?:\s*(?::=|[:=→])\s*\**|\s+)({NUMBER})(?![\w%])"
)
_BPB_AFTER = re.compile(r"(?i)(?<![\w.])(\d\.\d{3,})\**\s*(?:val_?)?bpb\b")
_LOSS = re.compile(rf"(?i)(?<![\w.])((?:\w+_)?loss|vl|nll|nats)[\"']?\s*[:=]?\s*({NUMBER})(?![\w%])")
_KEY_NUMBER = re.compile(rf"[\"'{{]*(?<![\w.])[A-Za-z_][\w./]*[\"']?(?:\s*\([^()]{{0,40}}\))?\s*[:=]\s*\**{NUMBER}")
_LABEL_END = re.compile(r"[\s:=|,\-→(\[{*\"']+$")
_EVAL_TIME = re.compile(rf"(?i)\b(eval(?:_?time)?|elapsed|time|t)\s*[:=]\s*({NUMBER})\s*(ms|s)\b")
_PROGRESS = re.compile(
    r"(?i)\d\s*/\s*\d|\d\s*%|running|progress|\bepochs?\b\W*\d|\bep\W?\d|\bchunks?\b\W*\d|\bbatch(?:es)?\b\W*\d|batch_\w*bpb|"
    r"\bstep\b\W*\d|\b(?:tc|ttt_chunk)\b"
)
_COMPARISON_WORDS = (
    *("gap", "delta", "δ", "gain", "improve", "degrad", "worse", "better", "diff", "vs", "compar", "baseline"),
    *("target", "sota", "leader", "penalty", "expected", "previous", "threshold", "saved", "reference", "prior"),
    "record",
)
"""What :data:`_COMPARISON` cannot do without: twenty look-ups cost less than twenty alternatives at every letter."""
_COMPARISON = re.compile(
    r"(?i)gap|delta|Δ|gain|improve|degrad|worse|better|diff\b|\bvs\b|compar|baseline|target|sota|leader|penalty|expected|previous|"
    r"threshold|saved|reference|\bprior\b|\brecord\b"
)


def is_progress(text: str) -> bool:
    """Whether a line reports on work that is still going on."""
    return _PROGRESS.search(text) is not None


def _compares(text: str) -> bool:
    """Whether words before a figure, or its key, tell of a comparison."""
    low = text.lower()
    return any(w in low for w in _COMPARISON_WORDS) and _COMPARISON.search(text) is not None


def find_metrics(log: LogFile) -> Iterator[Metric]:
    """Every bits-per-byte figure of the log's output; of a run with very many, all final ones."""
    index = log.index
    count = 0
    for begin in (at for span in log.output for at, _ in lines_with(index.lower, _FIGURE_WORDS, *span)):
        number = index.line_of(begin)
        text = index.line(number)
        if len(text) > 2_000:
            continue
        for metric in line_metrics(text, number):
            count += 1
            if count > MAX_METRICS and metric.kind != "final":
                continue
            if count > 4 * MAX_METRICS:
                return
            yield metric


def line_metrics(text: str, number: int) -> Iterator[Metric]:
    """The figures of one line, which has the 1-based ``number``."""
    plain = without_prefix(text)
    found = [(m.start(), m[1], m[2]) for m in BPB.finditer(plain) if "." in m[2]]
    keyed = bool(found)
    if not keyed:
        found = [(m.start(), "bpb", m[1]) for m in _BPB_AFTER.finditer(plain)]
    if not found:
        return
    first_pair = _KEY_NUMBER.search(plain) if keyed else None
    cut = min([p for p, _, _ in found] + ([first_pair.start()] if first_pair else []))
    label = _LABEL_END.sub("", plain[:cut]).strip()[:160]
    timing = _EVAL_TIME.search(plain, found[0][0])
    time_ms = float(timing[2]) * (1000.0 if timing[3].lower() == "s" else 1.0) if timing else None
    given = [(m.start(), m) for m in _LOSS.finditer(plain)]
    for position, key, value in found:
        exact = decimal(value)
        if exact is None or not 0 < exact < 50:
            continue
        before = plain[:position]
        losses = [m for at, m in given if at < position] or [m for _, m in given if "val" in m[1].lower()]
        loss = losses[-1][2] if losses else None
        kind: MetricKind = "final"
        if STEP.match(plain):
            kind = "step"
        elif _compares(before) or _compares(key):
            kind = "other"
        elif _PROGRESS.search(before) or "running" in key.lower() or key.lower().startswith("batch"):
            kind = "progress"
        yield Metric(
            label=label or key,
            key=key,
            val_bpb=float(exact),
            bpb_text=str(exact),
            val_loss=float(loss) if loss else None,
            loss_text=loss,
            eval_time_ms=time_ms,
            timer=timing[1] if timing else None,
            kind=kind,
            line=number,
            text=text[:2000],
        )
