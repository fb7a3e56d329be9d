"""What two logs share, weighed by the odds of a coincidence."""

from __future__ import annotations

import pytest

from auditor.logs import RunLog, parse_log
from auditor.logs.compare import compare, measured, seeds_of, shared_times


def run(text: str, name: str = "train.log") -> RunLog:
    (found,) = parse_log(name, text)
    return found


@pytest.mark.parametrize(
    ("line", "weight"),
    [
        ("step:500/900 train_loss:2.3412 train_time:43251ms step_avg:86.50ms", 2 + 3),
        ("final_exact val_loss:2.11111111 val_bpb:1.25555555", 4),
        ("batch b3/90 bl:2.3685 bb:1.0950 rl:2.3040", 2),
        ("epoch 3/9 time=9.1s lr=0.000072", 0),
        ("500/900 train_loss: 2.4930 train_time: 0.8m tok/s: 8295325", 2 + 4),
    ],
)
def test_weight_of_a_line(line: str, weight: int) -> None:
    found = measured(line, 1)
    assert found is not None and found.weight == weight


@pytest.mark.parametrize(
    "line",
    [
        "step:5/900 train_loss:6.9312 train_time:431ms",
        "model_dim: 512",
        "weight_decay=0.0950",
        "lr:0.0312 momentum:0.95",
    ],
)
def test_lines_that_measure_nothing(line: str) -> None:
    assert measured(line, 1) is None


STEPS = "".join(f"step:{n}/900 train_loss:2.{n}1 train_time:{n * 613}ms\n" for n in range(100, 900, 100))


def test_copied_steps_and_a_prefix() -> None:
    first, second = "seed:1\n" + STEPS, "seed:2\n" + STEPS
    both = compare(run(first + "final val_loss:2.5 val_bpb:1.2\n"), run(second + "final val_bpb:1.3\n"))
    assert len(both.timed) == len(both.same) == 8 and both.weight >= 8 * 5
    other = STEPS.replace("train_time:", "train_time:1")
    apart = compare(run(first), run("seed:2\n" + other))
    assert apart.same == () and apart.times() == (0, 8) and apart.losses(training=True) == (8, 8)
    later = STEPS.replace("/900", "/901")
    assert compare(run(first + other.replace("/900", "/901")), run(second + later)).prefix


def test_a_time_printed_twice_counts_once() -> None:
    once = "step:700/900 train_loss:2.7100 train_time:429100ms\n"
    twice = once + "stopping: train_time:429100ms step:700/900\n"
    alone, again = (compare(run(f"seed:1\n{t}"), run(f"seed:2\n{t}")).weight for t in (once, twice))
    assert alone == again == 2 + 4


def test_seeds_of_a_log() -> None:
    assert seeds_of(run("seed:5\nfinal val_bpb:1.2\n", "train_seed7.log")) == {5}
    assert seeds_of(run("final val_bpb:1.2\n", "train_seed7.log")) == {7}
    assert seeds_of(run("=== SEED 3 ===\nx\n=== SEED 4 ===\nfinal val_bpb:1.2\n")) == {3, 4}
    assert seeds_of(run("final val_bpb:1.2\n")) == frozenset()


def test_exact_times() -> None:
    assert (
        shared_times(
            run("a time:43251ms\nb time:999ms\nval_bpb:1.2\n"), run("c time:43251ms\nd time:999ms\nval_bpb:1.2\n")
        )
        == 1
    )
