"""Overrides: sizes shrink together, everything else has its value of the run, and data settings lead into the world."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from auditor.probe.overrides import Overrides, plan_overrides
from auditor.probe.world import build
from auditor.reading import Reading
from auditor.submission import Change, RecordFolder, Submission, SubmissionFile, SubmissionKind

SETTINGS = """
import argparse
import glob
import os

import torch


class Hyperparameters:
    data_path = os.environ.get("DATA_PATH", "./data/datasets/fineweb10B_sp1024")
    train_files = os.path.join(data_path, "fineweb_train_*.bin")
    val_files = os.path.join(data_path, "fineweb_val_*.bin")
    tokenizer_path = os.environ.get("TOKENIZER_PATH", "./data/tokenizers/fineweb_1024_bpe.model")
    run_id = os.environ.get("RUN_ID", "x")
    seed = int(os.environ.get("SEED", 1337))
    vocab_size = int(os.environ.get("VOCAB_SIZE", 1024))
    num_layers = int(os.environ.get("NUM_LAYERS", 11))
    model_dim = int(os.environ.get("MODEL_DIM", 512))
    num_heads = int(os.environ.get("NUM_HEADS", 8))
    num_kv_heads = int(os.environ.get("NUM_KV_HEADS", 4))
    rope_dims = int(os.environ.get("ROPE_DIMS", 16))
    xsa_last_n = int(os.environ.get("XSA_LAST_N", 4))
    train_seq_len = int(os.environ.get("TRAIN_SEQ_LEN", 2048))
    eval_seq_len = int(os.environ.get("EVAL_SEQ_LEN", 2048))
    eval_stride = int(os.environ.get("EVAL_STRIDE", 64))
    train_batch_tokens = int(os.environ.get("TRAIN_BATCH_TOKENS", 786432))
    val_batch_size = int(os.environ.get("VAL_BATCH_SIZE", 524288))
    iterations = int(os.environ.get("ITERATIONS", 20000))
    warmdown_iters = int(os.environ.get("WARMDOWN_ITERS", 3500))
    max_wallclock_seconds = float(os.environ.get("MAX_WALLCLOCK_SECONDS", 600.0))
    ttt_enabled = bool(int(os.environ.get("TTT_ENABLED", "0")))
    ttt_lora_rank = int(os.environ.get("TTT_LORA_RANK", 8))
    ttt_chunk_tokens = int(os.environ.get("TTT_CHUNK_TOKENS", 32768))
    gate = float(os.environ.get("GATE_SCALE", "0.5"))
    mode = os.environ.get("MODE", "plain")
    artifacts = os.environ.get("ARTIFACT_DIR", "/somewhere/else")
    BIGRAM_DIM = 8 * 16


def main():
    args = Hyperparameters()
    limit = 1000.0 * args.max_wallclock_seconds if args.max_wallclock_seconds > 0 else None
    ema_decay = 0.997
    tokens = torch.cat([load(f) for f in sorted(glob.glob(args.val_files))])
    print(f"val_loss:{evaluate(args, tokens):.4f} val_bpb:{evaluate(args, tokens):.4f}")


main()
"""


def read(files: dict[str, str]) -> Reading:
    made = tuple(SubmissionFile(p, len(t.encode()), Change.ADDED, t.encode) for p, t in sorted(files.items()))
    folder = RecordFolder(".", "unknown", made)
    return Reading(Submission("test", None, None, None, None, SubmissionKind.RECORD, (folder,), made), folder)


@pytest.fixture(scope="module")
def plan() -> Overrides:
    launch = "Run: `TTT_ENABLED=1 GATE_SCALE=0.7 SEED=42 MODE=fancy torchrun --nproc_per_node=8 train_gpt.py`\n"
    return plan_overrides(read({"train_gpt.py": SETTINGS, "README.md": launch, "submission.json": json.dumps({})}))


def test_sizes_keep_what_divides_what(plan: Overrides) -> None:
    e = {k: int(float(v)) for k, v in plan.environment.items() if v.replace(".", "").isdigit()}
    assert e["MODEL_DIM"] % e["NUM_HEADS"] == 0 and e["NUM_HEADS"] % e["NUM_KV_HEADS"] == 0
    assert e["MODEL_DIM"] // e["NUM_HEADS"] % 2 == 0 and e["ROPE_DIMS"] <= e["MODEL_DIM"] // e["NUM_HEADS"]
    assert e["NUM_HEADS"] // e["NUM_KV_HEADS"] == 2
    assert e["TRAIN_BATCH_TOKENS"] % (8 * e["TRAIN_SEQ_LEN"]) == 0
    assert e["VAL_BATCH_SIZE"] // 8 >= e["EVAL_SEQ_LEN"]
    assert 0 < e["EVAL_STRIDE"] < e["EVAL_SEQ_LEN"] and e["TTT_CHUNK_TOKENS"] % e["TRAIN_SEQ_LEN"] == 0
    assert e["TTT_LORA_RANK"] <= 4 and 0 < e["WARMDOWN_ITERS"] <= e["ITERATIONS"]
    assert e["MAX_WALLCLOCK_SECONDS"] == 0


def test_layers_stay(plan: Overrides) -> None:
    assert not {"NUM_LAYERS", "XSA_LAST_N"} & plan.environment.keys()


def test_what_is_no_size_has_its_value_of_the_run(plan: Overrides) -> None:
    assert plan.environment["TTT_ENABLED"] == "1" and plan.environment["GATE_SCALE"] == "0.7"
    assert plan.environment["SEED"] == "42" and plan.environment["MODE"] == "fancy"
    assert not {"TTT_ENABLED", "GATE_SCALE", "SEED", "MODE"} & {c.name for c in plan.changed}


def test_numbers_fixed_in_the_code_are_named(plan: Overrides) -> None:
    constants = {c.name: c for c in plan.constants}
    assert constants.keys() == {"Hyperparameters.BIGRAM_DIM", "main.ema_decay"}
    constant = constants["Hyperparameters.BIGRAM_DIM"]
    assert constant.run == "128" and constant.probe == "16"
    assert SETTINGS.splitlines()[constant.line - 1].strip() == "BIGRAM_DIM = 8 * 16"


def test_averages_forget_as_much_as_in_the_run(plan: Overrides) -> None:
    # 0.997 ** 20000 is nothing: after a few steps the average has to be near the weights that were trained.
    assert {c.name: c.probe for c in plan.constants}["main.ema_decay"] == "0.5"


def test_data_settings_lead_into_the_world(plan: Overrides, tmp_path: Path) -> None:
    world = build(tmp_path, **plan.world())
    assert plan.environment["DATA_PATH"] == world.inside(world.dataset, "/world")
    assert plan.environment["TOKENIZER_PATH"] == world.inside(world.tokenizer, "/world")
    assert (tmp_path / "data/datasets/fineweb10B_sp1024/fineweb_val_000000.bin").exists()
    assert (tmp_path / "data/tokenizers/fineweb_1024_bpe.model").exists()
    assert int(plan.environment["VOCAB_SIZE"]) == world.vocabulary and not world.caseops
    assert plan.environment["ARTIFACT_DIR"] == "./out"


def test_every_change_is_told(plan: Overrides) -> None:
    told = {c.name: (c.run, c.probe) for c in plan.changed}
    assert told["MODEL_DIM"] == ("512", "64") and told["Hyperparameters.BIGRAM_DIM"] == ("128", "16")
    assert told["VOCAB_SIZE"] == ("1024", str(plan.size.vocabulary))


def test_a_run_that_only_evaluates_is_trained_first() -> None:
    text = SETTINGS.replace('"x")', '"x")\n    eval_only = bool(int(os.environ.get("EVAL_ONLY", "0")))')
    launch = "`EVAL_ONLY=1 torchrun --nproc_per_node=8 train_gpt.py`\n"
    plan = plan_overrides(read({"train_gpt.py": text, "README.md": launch, "submission.json": "{}"}))
    assert plan.environment["EVAL_ONLY"] == "0"


def test_command_line_arguments() -> None:
    text = """
import argparse

p = argparse.ArgumentParser()
p.add_argument("--vocab_size", type=int, default=1024)
p.add_argument("--seq_len", type=int, default=512)
p.add_argument("--data_path", type=str, default="./data/datasets/fineweb10B_sp1024")
args = p.parse_args()
print(f"val_bpb:{evaluate(args.data_path, args.vocab_size, args.seq_len):.4f}")
"""
    plan = plan_overrides(read({"train_gpt.py": text}))
    pairs = dict(zip(plan.arguments[::2], plan.arguments[1::2], strict=True))
    assert pairs["--vocab_size"] == "320" and pairs["--seq_len"] == "64" and pairs["--data_path"].startswith("/world/")


def test_without_a_script_there_is_nothing_to_override() -> None:
    plan = plan_overrides(read({"README.md": "nothing"}))
    assert not plan.environment and plan.notes


def test_case_operators_are_asked_for() -> None:
    text = SETTINGS.replace('"fineweb_val_*.bin")', '"fineweb_val_*.bin")\n    side = "fineweb_val_bytes_*.bin"')
    assert plan_overrides(read({"train_gpt.py": text})).world()["caseops"] is True


def test_what_is_code_in_a_log_is_no_value() -> None:
    log = "ttt_lora_rank: float\nttt_chunk_tokens: args.ttt_chunk_tokens\nmode: tuple(\ngate_scale: enabled\n"
    plan = plan_overrides(read({"train_gpt.py": SETTINGS, "train.log": log}))
    assert plan.environment["TTT_LORA_RANK"] == "4" and plan.environment["TTT_CHUNK_TOKENS"] == "128"
    assert "MODE" not in plan.environment


def test_a_limit_that_the_code_computes_with_unasked_stays() -> None:
    ask = "    limit = 1000.0 * args.max_wallclock_seconds if args.max_wallclock_seconds > 0 else None\n"
    assert ask in SETTINGS
    for use in ("    steps = int(max_wallclock_ms / 5)\n", "    print(f'{max_wallclock_ms:.0f}')\n"):
        text = SETTINGS.replace(ask, ask.replace("limit", "max_wallclock_ms", 1) + "    a = 1\n" * 10 + use)
        plan = plan_overrides(read({"train_gpt.py": text}))
        assert "MAX_WALLCLOCK_SECONDS" not in plan.environment
