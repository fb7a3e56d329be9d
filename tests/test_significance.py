"""Significance: the table of records, the choice of a baseline by day, and Welch's test."""

from __future__ import annotations

import math
import subprocess
import sys
from datetime import date

import pytest

from auditor.errors import UsageError
from auditor.significance import Record, SeedResult, baseline_from, compare, record_table, standing


def record(*figures: float, opened: str = "2026-01-01") -> Record:
    return Record(submission="made up", opened=opened, runs=tuple(SeedResult(val_bpb=f) for f in figures))


def results(*figures: float, ratio: float | None = None) -> list[SeedResult]:
    return [SeedResult(val_bpb=f, val_loss=None if ratio is None else f * ratio) for f in figures]


def test_the_table_says_how_it_was_made_and_is_in_order() -> None:
    table = record_table()
    assert "logs" in table.how
    days = [date.fromisoformat(r.opened) for r in table.records]
    assert days == sorted(days)
    assert len({r.submission for r in table.records}) >= len(table.records) - 1
    for r in table.records:
        for run in r.runs:
            assert 1.0 < run.val_bpb < 1.3
            # nats per token and bits per byte belong together: no tokenizer of the contest has other ratios
            assert run.val_loss is not None and 1.6 < run.val_loss / run.val_bpb < 2.7


def test_the_baseline_is_chosen_by_day_alone() -> None:
    records = record_table().records
    last = min(records, key=lambda r: r.bpb)
    assert standing(None) == last
    assert standing("2030-01-01") == last
    assert standing(last.opened).opened < last.opened
    assert standing("2000-01-01") == records[0]
    for r in records[1:]:
        assert standing(r.opened).bpb == min(x.bpb for x in records if x.opened < r.opened)


def test_welch_by_hand() -> None:
    ours, theirs = (1.0, 1.2, 1.1), (1.5, 1.3, 1.7, 1.5)
    test = compare(results(*ours), record(*theirs))
    variance = [0.01 / 3, (0.08 / 3) / 4]
    t = (1.5 - 1.1) / math.sqrt(sum(variance))
    df = sum(variance) ** 2 / (variance[0] ** 2 / 2 + variance[1] ** 2 / 3)
    assert test.t == pytest.approx(t) and test.df == pytest.approx(df)
    assert test.p is not None and 0.005 < test.p < 0.006  # t = 4.032 has 0.005 at five degrees
    assert test.gain_bpb == pytest.approx(0.4)


def test_one_sided_as_the_organisers_computed_it() -> None:
    """The last record against its predecessor: p = 0.014 in the final audit."""
    records = record_table().records
    test = compare(records[-1].runs, standing(records[-1].opened))
    assert test.p == pytest.approx(0.014, abs=5e-4)
    assert test.meets_applied_bar and not test.meets_written_bar


def test_the_gain_is_in_nats_of_the_candidates_own_tokenizer() -> None:
    test = compare(results(1.00, 1.01, ratio=2.5), record(1.10, 1.11))
    assert test.gain_nats == pytest.approx(0.25)
    assert test.meets_written_bar is True


@pytest.mark.parametrize(
    ("ours", "theirs", "written", "applied"),
    [
        ((1.2,), (1.3, 1.31), None, None),
        ((1.2, 1.21), (1.3,), None, None),
        ((1.3, 1.31), (1.2, 1.21), False, False),
        ((1.3,), (1.2,), False, False),
        ((1.2, 1.2), (1.2, 1.2), False, False),
        ((1.2999, 1.2998), (1.3000, 1.3001), False, True),
    ],
)
def test_bars(ours: tuple[float, ...], theirs: tuple[float, ...], written: bool | None, applied: bool | None) -> None:
    test = compare(results(*ours), record(*theirs))
    assert (test.meets_written_bar, test.meets_applied_bar) == (written, applied)
    assert test.sentence()


def test_a_baseline_given_by_a_person() -> None:
    first = record_table().records[1]
    assert baseline_from(first.submission) == first
    assert baseline_from(first.submission.lstrip("#")) == first
    assert [r.val_bpb for r in baseline_from("1.0810, 1.0808").runs] == [1.0810, 1.0808]
    for nonsense in ("", "#999999", "1.08,x", "nan", "-1"):
        with pytest.raises(UsageError) as caught:
            baseline_from(nonsense)
        assert "\n" not in str(caught.value)


def test_scipy_is_not_loaded_until_it_is_needed() -> None:
    code = "import sys, auditor.cli, auditor.engine, rules; rules.discover(); print('scipy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
