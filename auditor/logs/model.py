"""The log model: what one run printed about itself, each value with its 1-based line.

Everything is frozen and can be dumped as JSON. Times are in milliseconds, sizes in bytes, losses in nats per token.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Generic, Literal, TypeVar

from pydantic import Field

from auditor.verdict import Frozen

T = TypeVar("T")

MetricKind = Literal["final", "step", "progress", "other"]
Stage = Literal["training", "pre-quantisation", "post-quantisation", "adapted", "unknown"]
TimerKind = Literal[
    "train",
    "hessian",
    "self-generation",
    "quantise",
    "compress",
    "deserialise",
    "compile",
    "precompute",
    "adapt",
    "eval",
    "eval-total",
    "total",
    "other",
]
SizeKind = Literal["code", "code-compressed", "model", "model-raw", "total", "total-raw", "other"]
CalibrationSource = Literal["training", "validation", "self-generated", "random"]

_PRE_QUANT = re.compile(
    r"(?i)pre[-_ ]?quant|pre[-_ ]?(?:gptq|int\d)|un-?quantized|before[-_ ]quant|full[-_ ]precision|"
    r"fp(?:16|32)\b|bf16\b|post[-_ ]?(?:ema|swa|average|avg|train)|"
    r"\b(?:raw|ema|swa|lawa)\b(?!.*(?:int\d|quant|roundtrip))"
)
_ADAPTED = re.compile(
    r"(?i)ttt|slot|n[-_ ]?gram|ppm|mix(?:er|ture)?(?:\b|_)(?!ed)|lora|adapt|cache|knn|hedge|blend|tilt"
)
_POST_QUANT = re.compile(
    r"(?i)quant|round[-_ ]?trip|\bint\d|_int\d|int\d_|zlib|zstd|lzma|brotli|gptq|ternary|sliding|"
    r"artifact|export|compressed"
)


class Fact(Frozen, Generic[T]):
    """A value that a run printed, and its line."""

    value: T
    line: int = Field(ge=1)


class Metric(Frozen):
    """A bits-per-byte figure.

    ``label`` is the text before the first ``key:number`` on its line ("quantized_sliding_window"), or the key itself
    where nothing stands before it. ``kind``: "step" = validation during training, "progress" = a running figure
    inside an evaluation, "other" = a comparison (gain, baseline, target), "final" = the rest. ``timer`` is the name
    under which the line gives the evaluation's time ("eval_time", "elapsed").
    """

    label: str
    key: str
    val_bpb: float
    bpb_text: str
    val_loss: float | None
    loss_text: str | None
    eval_time_ms: float | None
    timer: str | None = None
    kind: MetricKind
    line: int = Field(ge=1)
    text: str

    @property
    def bpb(self) -> Decimal:
        """The figure with its printed digits."""
        return Decimal(self.bpb_text)

    @property
    def stage(self) -> Stage:
        """Which model was measured, as far as the label tells: before quantisation, after it, after adaptation."""
        if self.kind == "step":
            return "training"
        name = f"{self.label} {self.key}"
        if _PRE_QUANT.search(name):
            return "pre-quantisation"
        if _ADAPTED.search(name):
            return "adapted"
        return "post-quantisation" if _POST_QUANT.search(name) else "unknown"


class Timer(Frozen):
    """A duration that a run printed for one piece of work; ``label`` is what the line calls it."""

    label: str
    ms: float
    kind: TimerKind
    line: int = Field(ge=1)


class Size(Frozen):
    """A size that a run printed. ``exact`` is False where it was given in kilo- or megabytes."""

    label: str
    bytes: int
    kind: SizeKind
    exact: bool = True
    line: int = Field(ge=1)


class Hessians(Frozen):
    """Calibration statistics: how long collecting took, how many, and from which data as far as the log says."""

    ms: float | None = None
    count: int | None = None
    source: CalibrationSource | None = None
    line: int = Field(ge=1)
    source_line: int | None = None


class Gpu(Frozen):
    """A device name in a log. ``index`` is its number in an nvidia-smi table or list, None where merely named."""

    name: str
    index: int | None = None
    count: int | None = Field(default=None, description='what stands before the name in "8xH100"')
    line: int = Field(ge=1)


class RunFacts(Frozen):
    """One run; None or empty where it did not print the thing.

    ``steps`` are the optimiser steps done and ``planned_steps`` those intended; ``train_ms`` is the training time
    when training ended, as the run's own clock gave it, and ``stopped`` the line that says why.
    ``metrics`` are all results that are neither mid-training nor running nor comparisons, in order; ``final`` is the
    last of them. ``timers`` are all durations outside of step and progress lines. ``tracebacks`` hold the exception
    each ended with. ``run_number`` of ``run_count``: several runs may share one file.
    """

    file: str
    first_line: int
    last_line: int
    run_number: int = 1
    run_count: int = 1
    seed: Fact[int] | None = None
    seed_in_name: int | None = None
    steps: Fact[int] | None = None
    planned_steps: Fact[int] | None = None
    train_ms: Fact[float] | None = None
    stopped: Fact[str] | None = None
    hessians: Hessians | None = None
    metrics: tuple[Metric, ...] = ()
    last_validation: Metric | None = Field(default=None, description="the last figure printed during training")
    pre_quant: Metric | None = None
    post_quant: Metric | None = None
    final: Metric | None = None
    timers: tuple[Timer, ...] = ()
    sizes: tuple[Size, ...] = ()
    val_tokens: Fact[int] | None = None
    train_shards: Fact[int] | None = None
    world_size: Fact[int] | None = None
    gpus: tuple[Gpu, ...] = ()
    tracebacks: tuple[Fact[str], ...] = ()
    truncated: bool = Field(default=False, description="it trained, but prints no result")
    embedded_source: tuple[tuple[int, int], ...] = ()
    hyperparameters: dict[str, Fact[str]] = Field(default_factory=dict, repr=False)

    def size(self, *kinds: SizeKind) -> Size | None:
        """The last size of the first of ``kinds`` that was printed."""
        for kind in kinds:
            found = [s for s in self.sizes if s.kind == kind]
            if found:
                return found[-1]
        return None

    def timed(self, *kinds: TimerKind) -> tuple[Timer, ...]:
        """The timers of these kinds, in order."""
        return tuple(t for t in self.timers if t.kind in kinds)

    @property
    def eval_timer(self) -> Timer | None:
        """What the run itself counts as evaluation time: a total if it prints one, else the final metric's."""
        totals = self.timed("eval-total")
        if totals:
            return totals[-1]
        if self.final is None:
            return None
        twins = [m for m in self.metrics if m.eval_time_ms is not None and _twin(m, self.final)]
        if not twins or twins[-1].eval_time_ms is None:
            return None
        best = twins[-1]
        label = f"{best.label} {best.timer}" if best.timer else best.label
        return Timer(label=label, ms=twins[-1].eval_time_ms, kind="eval", line=best.line)

    @property
    def outside_eval_timer(self) -> tuple[Timer, ...]:
        """Work after training that no evaluation timer covers: loading, compiling, precomputing for the evaluation."""
        trained = self.steps.line if self.steps is not None else 0
        return tuple(t for t in self.timed("deserialise", "compile", "precompute") if t.line > trained)


def _twin(metric: Metric, final: Metric) -> bool:
    """Whether a metric is the final one, printed once more with other digits ("..._exact")."""
    digits = min(len(metric.bpb_text), len(final.bpb_text)) - 1
    return abs(metric.val_bpb - final.val_bpb) <= 10.0 ** -max(digits - 1, 3) and final.line - metric.line <= 3
