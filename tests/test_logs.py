"""Reading one log: dialects, embedded source, several runs."""

from __future__ import annotations

import re

import pytest

from auditor.logs import Fact, Metric, RunLog, parse_log

SOURCE = '''"""A script whose docstring boasts of val_bpb: 1.0001."""
import os
import sys
from math import log


class Hyperparameters:
    gate_enabled = bool(int(os.environ.get("GATE_ENABLED", "1")))
    num_layers = 3


def main():
    # best so far val_bpb:1.0002
    print(f"final val_bpb:{x:.4f}")
    sentinel = "adapting on validation"


if __name__ == "__main__":
    main()
'''
RULE = "=" * 100


def one(text: str) -> RunLog:
    (run,) = parse_log("train.log", text)
    return run


def finals(run: RunLog) -> list[tuple[str, str, float]]:
    return [(m.label, m.key, m.val_bpb) for m in run.final_metrics]


@pytest.mark.parametrize(
    ("line", "label", "key", "bpb", "loss", "ms", "kind"),
    [
        ("final_exact val_loss:2.0 val_bpb:1.25000000", "final_exact", "val_bpb", 1.25, 2.0, None, "final"),
        ("q_ttt val_loss:2.1 val_bpb:1.2 eval_time:500ms", "q_ttt", "val_bpb", 1.2, 2.1, 500.0, "final"),
        (
            "sliding:done val_loss=2.1 val_bpb=1.2 elapsed=2.5s",
            "sliding:done",
            "val_bpb",
            1.2,
            2.1,
            2500.0,
            "final",
        ),
        ("step:5/10 val_loss:2.1 val_bpb:1.2 train_time:5ms", "val_bpb", "val_bpb", 1.2, 2.1, None, "step"),
        ("5/10 val_loss: 2.1 val_bpb: 1.2", "5/10", "val_bpb", 1.2, 2.1, None, "step"),
        ("  chunk [1/90] bpb=1.2 time=3s", "chunk [1/90]", "bpb", 1.2, None, 3000.0, "progress"),
        (
            "eval [ 5%] 7/9 windows running_bpb=1.2",
            "eval [ 5%] 7/9 windows",
            "running_bpb",
            1.2,
            None,
            None,
            "progress",
        ),
        ("adapt:epoch 3/9 val_bpb=1.2 lr=1", "adapt:epoch 3/9", "val_bpb", 1.2, None, None, "progress"),
        ("mixer bytes=900 mix_bpb=0.9 mode=x", "mixer", "mix_bpb", 0.9, None, None, "final"),
        ("q vl:2.1 bpb:1.2 t:30ms", "q", "bpb", 1.2, 2.1, 30.0, "final"),
        ("Score with it:   1.1985 bpb", "Score with it", "bpb", 1.1985, None, None, "final"),
        ("EMA BPB (no XSA): 1.2", "EMA", "BPB", 1.2, None, None, "final"),
        ("gain over int6: 0.0123 BPB", "gain over int6", "bpb", 0.0123, None, None, "other"),
        ("[2026-01-01 10:00:00] last val_bpb:1.2", "last", "val_bpb", 1.2, None, None, "final"),
        ("[rank0]: last val_bpb:1.2", "last", "val_bpb", 1.2, None, None, "final"),
    ],
)
def test_metric_dialects(
    line: str, label: str, key: str, bpb: float, loss: float | None, ms: float | None, kind: str
) -> None:
    (metric,) = one(f"seed:1\n{line}\n").metrics
    assert isinstance(metric, Metric)
    got = (metric.label, metric.key, metric.val_bpb, metric.val_loss, metric.eval_time_ms, metric.kind)
    assert got == (label, key, bpb, loss, ms, kind)
    assert metric.line == 2 and metric.text == line


def test_several_figures_on_a_line() -> None:
    run = one("seed:1\nmix mix_bpb=0.9 only_bpb=2.3\n")
    assert finals(run) == [("mix", "mix_bpb", 0.9), ("mix", "only_bpb", 2.3)]


@pytest.mark.parametrize("line", ["val_bpb:enabled kind=x", "bpb budget is 3", "val_bpb:nan", "about val_bpb 2"])
def test_not_a_metric(line: str) -> None:
    assert one(f"seed:1\n{line}\n").metrics == ()


def test_block_with_foreign_lines_between() -> None:
    text = "Hyperparameters:\n  gate: True\nbash: no version information\n  path: a b/c\n  layers: 3\nlayers_seen: 9\n"
    run = one(text)
    shown = {n: (v.value, v.line) for n, v in run.hyperparameters.items()}
    assert shown["gate"] == ("True", 2) and shown["path"] == ("a b/c", 4) and shown["layers"] == ("3", 5)


def test_inline_settings() -> None:
    text = (
        "seed:1337\nbatch_tokens:524288 seq_len:2048 wallclock_seconds:600.000\n"
        "ttt_enabled=True\nsdp:cudnn=False flash=True\n"
        "adapt:start chunks=10 adapt_lr=0.002 adapt_epochs=3\n"
        "swa:start step:500\nstep:1/2 train_loss:2.0 step_avg:3ms\n"
    )
    found = {n: v.value for n, v in one(text).hyperparameters.items()}
    assert found["seq_len"] == "2048" and found["wallclock_seconds"] == "600.000"
    assert found["ttt_enabled"] == "True" and found["adapt_lr"] == "0.002"
    assert not {"swa", "adapt", "step", "train_loss", "step_avg"} & set(found)


@pytest.mark.parametrize(
    "line",
    [
        '{"seed": 3, "gate": 1, "name": "x"}',
        "{'seed': 3, 'gate': 1, 'name': 'x'}",
        "Namespace(seed=3, gate=1, name='x')",
        "config: {'seed': 3, 'gate': 1, 'name': 'x'}",
    ],
)
def test_structured_dumps(line: str) -> None:
    run = one(f"{line}\nstep:1/2 train_loss:2.0\n")
    assert run.seed == 3
    assert {n: v.value for n, v in run.hyperparameters.items()} == {"seed": "3", "gate": "1", "name": "x"}


def test_an_echoed_command_line() -> None:
    run = one("+ SEED=7 GATE=1 torchrun train_gpt.py --lr 0.1\nstep:1/2 train_loss:2.0\n")
    assert run.seed == 7
    assert {n: v.value for n, v in run.environment.items()} == {"SEED": "7", "GATE": "1", "lr": "0.1"}


@pytest.mark.parametrize("tail", [f"{RULE}\nRunning Python 3.12\n{RULE}\n", "\n", f"\n\n{RULE}\n"])
@pytest.mark.parametrize("head", ["", "W0101 launcher banner\n", f"{RULE}\n"])
def test_embedded_source_is_not_output(head: str, tail: str) -> None:
    text = f"{head}{SOURCE}{tail}seed:1\nnum_layers:11\nfinal val_loss:2.0 val_bpb:1.2500\n"
    run = one(text)
    assert finals(run) == [("final", "val_bpb", 1.25)]
    assert run.hyperparameters["num_layers"].value == "11"
    assert "gate_enabled" not in run.hyperparameters
    assert run.find("adapting on validation") == []
    ((first, last),) = run.embedded_source
    lines = text.split("\n")
    assert first == 1 + head.count("\n") and "main()" in lines[last - 1 - ("=" in lines[last - 1])] + SOURCE
    assert all("seed:1" not in line for line in lines[first - 1 : last])


def test_source_that_lost_its_beginning() -> None:
    body = "".join(f"        self.x{i} = {i}\n" for i in range(30))
    text = (
        f"final val_bpb:1.2500\n.__init__()\n{body}    print(1)\n\n"
        f"if __name__ == '__main__':\n    main()\n{RULE}\nseed:4\n"
    )
    before, after = parse_log("train.log", text)  # the dump begins another run
    assert finals(before) == [("final", "val_bpb", 1.25)] and after.seed == 4
    assert len(after.embedded_source) == 1 and after.find("self.x3 ") == []


def test_a_traceback_is_not_source() -> None:
    failure = 'Traceback (most recent call last):\n  File "a.py", line 1\n    import x\n'
    run = one(f"seed:1\nstep:1/2 train_loss:2\n{failure}")
    assert run.embedded_source == () and run.facts.truncated
    assert [(t.line, t.value) for t in run.facts.tracebacks] == [(3, "")]


def test_two_runs_in_one_file() -> None:
    part = "Hyperparameters:\n  seed: {0}\n  gate: {0}\nstep:1/2 val_loss:2 val_bpb:1.9\nfinal val_bpb:1.{0}00\n"
    first, second = parse_log("train.log", part.format(1) + part.format(2))
    assert (first.seed, second.seed) == (1, 2)
    assert (first.first_line, first.last_line, second.first_line) == (1, 5, 6)
    assert second.hyperparameters["gate"].line == 8
    assert [h[1] for h in second.find(re.compile(r"^final", re.M))] == [10]


def test_facts() -> None:
    text = (
        "val_loader:shards pattern=x/val_*.bin tokens:62021632\ntrain_shards: 80\nworld_size:8 grad_accum:1\n"
        "step:900/20000 val_loss:2.0 val_bpb:1.3 train_time:1000ms\n"
        "stopping_early: wallclock_cap train_time:600123ms step:900/20000\n"
        "Total submission size int8+zlib: 15,949,473 bytes\nfinal val_bpb:1.25\n"
    )
    facts = one(text).facts
    assert facts.val_tokens == Fact[int](value=62021632, line=1)
    assert facts.train_shards is not None and facts.train_shards.value == 80
    assert facts.world_size is not None and facts.world_size.value == 8
    assert facts.steps == Fact[int](value=900, line=5)
    assert facts.planned_steps is not None and facts.planned_steps.value == 20000
    assert facts.train_ms == Fact[float](value=600123, line=5)
    assert [(x.label, x.bytes, x.kind) for x in facts.sizes] == [("Total submission size int8+zlib", 15949473, "total")]
    assert not facts.truncated


def test_colour_codes_and_progress_bars() -> None:
    run = one("seed:1\n\x1b[32mfinal\x1b[0m val_bpb:\x1b[1m1.2500\x1b[0m\n  0%\r 50%\r100% seen val_bpb:1.4\n")
    assert finals(run)[0] == ("final", "val_bpb", 1.25)
    assert [m.line for m in run.metrics] == [2, 3]


def test_a_text_that_is_no_log() -> None:
    assert parse_log("notes.txt", "Some words about the method.\nNothing ran.\n") == []
