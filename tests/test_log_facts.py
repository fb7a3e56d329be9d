"""The log model: what a run printed about itself, in many dialects."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditor.logs import RunFacts, RunLog, parse_log
from auditor.logs.model import SizeKind, Stage, TimerKind

FIRST = """\
train_loader:dataset:texts train_shards:80
val_loader:shards pattern=./data/val_*.bin tokens:40540160
world_size:8 grad_accum_steps:1
|   0  NVIDIA H100 80GB HBM3          On  |   00000000:19:00.0 Off |                    0 |
|   1  NVIDIA H100 80GB HBM3          On  |   00000000:3B:00.0 Off |                    0 |
iterations:20000 warmup_steps:20 max_wallclock_seconds:600.000
seed:7
step:100/20000 train_loss:3.1000 train_time:12000ms step_avg:120.00ms
step:4000/20000 val_loss:2.5000 val_bpb:1.1000 train_time:480000ms step_avg:120.00ms
stopping_early: wallclock_cap train_time:599871ms step:4990/20000
gptq:reserving 12s, effective=588000ms
before quantization, post-ema val_loss:2.40000000 val_bpb:1.09000000 eval_time:7012ms
GPTQ:collecting Hessians from training data...
GPTQ:collected 67 Hessians in 12.7s
Serialize: compression done in 99.5s
Code size (uncompressed): 151,234 bytes
Code size (compressed): 31999 bytes
Serialized model: 135417533 bytes
Serialized model quantized+brotli: 15865260 bytes
Total submission size quantized+brotli: 15897259 bytes
Deserialize: decompression done in 20.5s
quantized_round_trip val_loss:2.44000000 val_bpb:1.10000000 eval_time:61000ms
adapter:compile warmup done (137.6s)
quantized_adapter_phased val_loss:2.39000000 val_bpb:1.08100000 eval_time:508785ms
total_eval_time:508.8s
"""


def one(text: str) -> RunLog:
    (run,) = parse_log("train_seed7.log", text)
    return run


def facts(text: str) -> RunFacts:
    return one(text).facts


def test_a_whole_run() -> None:
    told = facts(FIRST)
    line = {text.split(" ")[0]: n for n, text in enumerate(FIRST.split("\n"), 1)}
    assert (told.seed and told.seed.value, told.seed_in_name) == (7, 7)
    assert told.steps is not None and (told.steps.value, told.steps.line) == (4990, line["stopping_early:"])
    assert told.planned_steps is not None and told.planned_steps.value == 20000
    assert told.train_ms is not None and told.train_ms.value == 599871
    assert told.stopped is not None and told.stopped.value.startswith("stopping_early: wallclock_cap")
    assert told.hessians is not None
    assert (told.hessians.ms, told.hessians.count, told.hessians.source) == (12700, 67, "training")
    assert told.world_size is not None and told.world_size.value == 8
    assert [(g.index, g.name) for g in told.gpus] == [(0, "NVIDIA H100 80GB HBM3"), (1, "NVIDIA H100 80GB HBM3")]
    assert told.val_tokens is not None and told.val_tokens.value == 40540160
    assert told.train_shards is not None and told.train_shards.value == 80
    assert told.last_validation is not None and told.last_validation.bpb_text == "1.1000"
    stages = [m.label if m else None for m in (told.pre_quant, told.post_quant, told.final)]
    assert stages == ["before quantization, post-ema", "quantized_round_trip", "quantized_adapter_phased"]
    assert told.eval_timer is not None and told.eval_timer.label == "total_eval_time"
    assert told.eval_timer.ms == pytest.approx(508800)
    outside = [(t.kind, round(t.ms)) for t in told.outside_eval_timer]
    assert outside == [("deserialise", 20500), ("compile", 137600)]
    assert not told.tracebacks and not told.truncated
    assert told.hyperparameters["max_wallclock_seconds"].value == "600.000"
    again = RunFacts.model_validate_json(told.model_dump_json())
    assert again == told


@pytest.mark.parametrize(
    ("line", "kind", "size"),
    [
        ("Code size: 74979 bytes", "code", 74979),
        ("Code size (lzma wrapper): 21,400 bytes", "code-compressed", 21400),
        ("Total submission size int8+zlib: 15_854_246 bytes", "total", 15854246),
        ("artifact_bytes=15912345", "total", 15912345),
        ("model_bytes:11125178 code_bytes:64664", "model", 11125178),
        ("Total artifact: 15.9 MB", "total", 15900000),
        ("artifact limit: 16000000 bytes", "other", 16000000),
    ],
)
def test_sizes(line: str, kind: SizeKind, size: int) -> None:
    sizes = facts(f"seed:1\n{line}\nfinal val_bpb:1.2\n").sizes
    assert (sizes[0].kind, sizes[0].bytes, sizes[0].line) == (kind, size, 2)


def test_bare_total_is_the_raw_one_beside_a_packed_one() -> None:
    both = facts("seed:1\nTotal submission size: 106356366 bytes\nTotal submission size int6+lzma: 15863278 bytes\n")
    assert [s.kind for s in both.sizes] == ["total-raw", "total"]
    assert both.size("total") == both.sizes[1]
    alone = facts("seed:1\nTotal submission size: 15863278 bytes\n")
    assert [s.kind for s in alone.sizes] == ["total"]


@pytest.mark.parametrize(
    ("line", "kind", "ms"),
    [
        ("GPTQ:collected 67 Hessians in 3.5s", "hessian", 3500),
        ("calibrated 68 layers in 0.9s", "hessian", 900),
        ("generated 64 sequences in 196.7s", "self-generation", 196700),
        ("lora:compile warmup done (123.4s)", "compile", 123400),
        ("tilt:precompute_done elapsed=163.44s total=47851520", "precompute", 163440),
        ("Deserialize: decompression done in 19.5s", "deserialise", 19500),
        ("compressed+saved in 64.5s", "compress", 64500),
        ("quantized in 9.9s", "quantise", 9900),
        ("total_eval_time:510.0s", "eval-total", 510000),
        ("final_round val_loss:2.1 val_bpb:1.2 eval_time:1397ms", "eval", 1397),
    ],
)
def test_timers(line: str, kind: TimerKind, ms: float) -> None:
    (timer,) = facts(f"seed:1\n{line}\n").timers
    assert (timer.kind, round(timer.ms), timer.line) == (kind, ms, 2)


@pytest.mark.parametrize(
    "line",
    [
        "reserving 12s of 600s",
        "wallclock budget: 590.0s",
        "step:5/10 train_loss:2.0 step_avg:3ms",
        "chunk 3/90 time=3.1s",
    ],
)
def test_not_a_timer(line: str) -> None:
    assert facts(f"seed:1\n{line}\nfinal val_bpb:1.2\n").timers == ()


@pytest.mark.parametrize(
    ("line", "source"),
    [
        ("collecting hessians from autoregressive data...", "self-generated"),
        ("collecting hessians batches=64 source=val", "validation"),
        ("collected hessians for 67 layers (training data)", "training"),
        ("collected 67 Hessians in 3.5s", None),
    ],
)
def test_where_the_calibration_came_from(line: str, source: str | None) -> None:
    told = facts(f"seed:1\ngptq_calibration_batches: 64\n{line}\nfinal val_bpb:1.2\n").hessians
    assert told is not None and told.source == source


@pytest.mark.parametrize(
    ("line", "name", "index", "count"),
    [
        ("GPU 3: NVIDIA H100 PCIe (UUID: GPU-1-2)", "NVIDIA H100 PCIe", 3, None),
        ("device: NVIDIA H200", "NVIDIA H200", None, None),
        ("hardware: 8xH100 SXM", "H100 SXM", None, 8),
        ("|   0  NVIDIA GeForce RTX 4090   Off |   00000000:09:00.0 Off |  N/A |", "NVIDIA GeForce RTX 4090", 0, None),
    ],
)
def test_devices(line: str, name: str, index: int | None, count: int | None) -> None:
    (gpu,) = facts(f"seed:1\n{line}\nfinal val_bpb:1.2\n").gpus
    assert (gpu.name, gpu.index, gpu.count) == (name, index, count)


def test_paths_name_no_device() -> None:
    assert (
        facts("seed:1\nsaving to runs/h100_b/H100_a/x.pt\nttp: b200/782 bl:2.3 rb:1.0\nfinal val_bpb:1.2\n").gpus == ()
    )


@pytest.mark.parametrize(
    ("label", "stage"),
    [
        ("pre-quantization post-ema", "pre-quantisation"),
        ("DIAGNOSTIC post_ema", "pre-quantisation"),
        ("final_int8_zlib_roundtrip_exact", "post-quantisation"),
        ("final_int6_sliding_window", "post-quantisation"),
        ("quantized_ttt_phased", "adapted"),
        ("result", "unknown"),
    ],
)
def test_stages(label: str, stage: Stage) -> None:
    (metric,) = one(f"seed:1\n{label} val_loss:2.0 val_bpb:1.2\n").metrics
    assert metric.stage == stage


def test_the_final_metric_and_its_timer() -> None:
    told = facts(
        "seed:1\nq_done val_loss:2.0 val_bpb:1.2345 eval_time:900ms\nq_exact val_loss:2.0 val_bpb:1.23451234\n"
    )
    assert told.final is not None and told.final.label == "q_exact"
    assert told.eval_timer is not None and (told.eval_timer.label, told.eval_timer.ms) == ("q_done eval_time", 900)
    compared = facts("seed:1\nq val_loss:2.0 val_bpb:1.2\ncompare old_bpb:1.3 new_bpb:1.2\n")
    assert compared.final is not None and compared.final.label == "q"


def test_a_run_that_failed() -> None:
    told = facts(
        "seed:1\nstep:5/10 train_loss:2.0 train_time:10ms\nTraceback (most recent call last):\n"
        '  File "a.py", line 1, in <module>\n    main()\nValueError: no more shards\n'
    )
    assert [(t.value, t.line) for t in told.tracebacks] == [("ValueError: no more shards", 3)]
    assert told.truncated and told.final is None


def test_runs_of_one_file_are_numbered() -> None:
    part = "Hyperparameters:\n  seed: {0}\n  gate: {0}\nstep:1/2 val_loss:2 val_bpb:1.9\nfinal val_bpb:1.{0}00\n"
    runs = parse_log("all.log", part.format(1) + part.format(2))
    assert [(r.facts.run_number, r.facts.run_count, r.facts.seed and r.facts.seed.value) for r in runs] == [
        (1, 2, 1),
        (2, 2, 2),
    ]


def test_unknown_lines_are_kept() -> None:
    run = one("seed:1\nsomething nobody foresaw 12:34\nfinal val_bpb:1.2\n")
    assert [hit[1] for hit in run.find("nobody foresaw")] == [2]
    assert [text for text, _ in run.lines()][1] == "something nobody foresaw 12:34"


def test_the_training_curve() -> None:
    first = "step:100/900 train_loss:2.5000 train_time:60000ms step_avg:600.00ms"
    curve = one(f"seed:1\n{first}\n500/900 val_loss: 2.1 val_bpb: 1.2\n").steps
    assert [(s.step, s.line) for s in curve] == [(100, 2), (500, 3)]
    assert curve[0].values == {"train_loss": "2.5000", "train_time": "60000", "step_avg": "600.00"}


PIECES = st.sampled_from(
    [
        "step:5/10 ",
        " val_bpb:",
        "1.25",
        "train_time:",
        "99999999999999999999999",
        "ms",
        "s",
        "NVIDIA H100 ",
        "Off ",
        "bytes",
        ": ",
        "Hessians",
        "seed",
        "=",
        "loss",
        "Total submission size",
        "Traceback (most recent call last):",
        "import os",
        "{'a': 1}",
        "Hyperparameters:",
        "in ",
        "(",
        ")",
        "é",
        "\n",
        "\r",
        "\x1b[1m",
        "\x00",
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=40))
def test_no_text_is_fatal(pieces: list[str]) -> None:
    for run in parse_log("x_seed1.log", "".join(pieces)):
        told = run.facts
        assert told.first_line <= told.last_line
        assert all(t.line >= 1 for t in told.timers) and run.steps is not None
        _ = told.eval_timer, told.outside_eval_timer


def test_a_line_that_adds_model_and_code_up() -> None:
    """The model is what the total is without the code, whatever the line calls it."""
    packed = facts(FIRST + "gptq_int6_brotli: 14,934,784 bytes | code: 90,756 | total: 15,025,540 (15.03MB)\n")
    told = {(s.kind, s.bytes) for s in packed.sizes if s.line == FIRST.count("\n") + 1}
    assert told == {("model", 14_934_784), ("code", 90_756), ("total", 15_025_540)}
    keyed = facts(FIRST + "artifact_bytes:16132620 code_bytes:49461 total:16182081\n")
    told = {(s.kind, s.bytes) for s in keyed.sizes if s.line == FIRST.count("\n") + 1}
    assert told == {("model", 16_132_620), ("code", 49_461), ("total", 16_182_081)}
    # Numbers that do not add up are no sum.
    loose = facts(FIRST + "blob: 14,934,784 | code: 90,756 | total: 15,999,999 seen\n")
    assert not [s for s in loose.sizes if s.bytes in (14_934_784, 15_999_999)]
