"""The evaluation probes: how a stream is made and read back, and what they say of submissions of our own."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from probe_submissions import SUBMISSIONS, reading_of

from auditor.probe import evaluations, session
from auditor.probe.evaluations import Account, Branch, Outcome, Outcomes, Stream, Target, counted, find_account
from auditor.probe.probes import normalisation
from auditor.probe.result import ProbeResult, ProbeStatus
from auditor.probe.run import run_probes
from auditor.probe.world import BOS
from auditor.sandbox import SandboxError
from auditor.sandbox import require as require_sandbox

try:
    require_sandbox()
    MISSING = "" if importlib.util.find_spec("torch") else "torch is missing"
except SandboxError as why:
    MISSING = str(why)
needs_sandbox = pytest.mark.skipif(bool(MISSING), reason=MISSING)


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Stream:
    return evaluations.make_stream(tmp_path_factory.mktemp("world") / "world", vocabulary=320)


def outcome(name: str, losses: list[float], sizes: list[int], *, once: bool = True) -> Outcome:
    """A run in which each target was added up by itself."""
    loss = np.asarray(losses)
    size = np.asarray(sizes, dtype=np.float64)
    ones = np.ones(loss.size, dtype=np.int64)
    return Outcome(
        id=name,
        loss=float(loss.mean()),
        bpb=float(loss.sum() / math.log(2) / size.sum()),
        line="",
        values={"f:loss": loss, "f:count": ones.astype(np.float64), "f:size": size},
        parts={"f:loss": loss, "f:size": size},
        pieces={"f:loss": ones, "f:size": ones},
    )


def made(stream: Stream, scored: list[int]) -> Outcomes:
    """Runs of an evaluation that scores these positions, in this order, at a constant loss."""
    found: dict[str, Outcome] = {}
    for branch in evaluations.first_branches(stream):
        tokens = stream.tokens.copy()
        sizes = stream.sizes.copy()
        for place, token in branch.tokens.items():
            tokens[place], sizes[place] = token, stream.lengths[token]
        found[branch.id] = outcome(branch.id, [5.0 + place / 1000 for place in scored], sizes[scored].tolist())
    return Outcomes(stream, found, {})


def test_the_stream_ends_as_it_begins(stream: Stream) -> None:
    assert stream.tokens.size == 257 and int(stream.tokens[0]) == BOS
    assert stream.tokens[-12:].tolist() == stream.tokens[101:113].tolist()
    assert all(stream.sizes[p] == stream.lengths[stream.tokens[p]] for p in stream.editable)
    assert stream.last in evaluations.tested_positions(stream)
    assert all(stream.lengths[stream.other(p, salt)] != stream.sizes[p] for p in stream.editable for salt in range(3))
    likely, others = evaluations.all_tokens(stream)
    assert len({b.tokens[stream.last] for b in (*likely, *others)} | {int(stream.tokens[-1])}) == 320


def test_the_account_is_found_by_its_quotients() -> None:
    run = outcome("base", [2.1, 3.0, 4.0], [1, 4, 2])
    assert find_account(run) == Account("f:loss", "f:count", "f:size", "f:loss")
    assert find_account(replace(run, loss=2.5)) is None
    assert find_account(replace(run, bpb=9.0)) == Account("f:loss", "f:count", None, "f:loss")


def test_positions_are_read_from_the_sizes_of_tokens(stream: Stream) -> None:
    order = [*range(100, 257), *range(1, 100)]
    outcomes = made(stream, order)
    assert outcomes.positions is not None
    expected = [p if p in stream.editable else -1 for p in order]
    assert outcomes.positions.tolist() == expected
    found = counted(outcomes)
    assert not isinstance(found, str)
    assert (found.end, found.missing, dict(found.repeated)) == (256, (), {})
    assert found.bytes == stream.sizes.sum()


def test_what_is_not_scored_or_twice_is_seen(stream: Stream) -> None:
    hole = next(p for p in stream.editable if p > 40)
    found = counted(made(stream, [p for p in range(1, 200) if p != hole]))
    assert not isinstance(found, str)
    assert found.end == 199 and found.missing[0] == hole
    assert set(found.missing) == {hole, *(p for p in stream.editable if p > 199)}
    twice = counted(made(stream, [*range(1, 257), hole]))
    assert not isinstance(twice, str)
    assert dict(twice.repeated) == {hole: 2}


def test_totals_alone_show_how_far_the_stream_is_scored(stream: Stream) -> None:
    outcomes = made(stream, list(range(1, 193)))
    bare = {k: replace(run, values={}, parts={}, pieces={}) for k, run in outcomes.runs.items()}
    totals = Outcomes(stream, bare, {})
    assert totals.account is None
    # 192 of 256 targets: bytes per token tell, whatever the number of tokens is taken to be.
    assert totals.reach is None
    whole = made(stream, list(range(1, 257)))
    bare = {k: replace(run, values={}, parts={}, pieces={}) for k, run in whole.runs.items()}
    assert Outcomes(stream, bare, {}).reach == 256


def look(folder: Path, name: str, probes: Sequence[str], *prefixes: str) -> dict[str, ProbeResult]:
    """What some of the probes say of one of our submissions, with only the runs that they need."""
    every = evaluations.first_branches

    def some(stream: Stream) -> list[Branch]:
        return [b for b in every(stream) if b.id in ("base", "late-base") or b.id.startswith(prefixes)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "first_branches", some)
        report = run_probes(reading_of(folder, name), probes, timeout=1200)
    return {result.name: result for result in report.results}


PROBES = ("score-before-update", "coverage", "single-pass", "bytes", "normalisation")


@needs_sandbox
def test_a_legal_submission_is_clean(tmp_path: Path) -> None:
    found = look(tmp_path, "score-first", PROBES, "early-2", "bit-", "last-")
    assert {name: result.status.value for name, result in found.items()} == dict.fromkeys(PROBES, "clean"), found
    assert "cross-entropy of 320 logits" in found["normalisation"].reason
    assert "each of 256 targets" in found["coverage"].reason
    steps = {n.name: n.value for n in found["score-before-update"].numbers}["optimiser steps within the evaluation"]
    assert steps >= 1


@needs_sandbox
def test_training_on_validation_tokens_before_they_are_scored(tmp_path: Path) -> None:
    result = look(tmp_path, "prequant", ["score-before-update"], "early-2", "late-", "bit-")["score-before-update"]
    assert result.status is ProbeStatus.VIOLATED
    assert "before the reported evaluation begins" in result.reason
    assert result.shown[0].rule == "prequant-ttt"
    assert all(p.changed is not None and p.moved < p.changed for p in result.positions)


@needs_sandbox
def test_tokens_left_out_or_counted_twice_and_wrong_bytes(tmp_path: Path) -> None:
    found = look(tmp_path, "careless", ["coverage", "single-pass", "bytes"], "bit-")
    assert found["coverage"].status is ProbeStatus.VIOLATED and "never count" in found["coverage"].reason
    assert found["single-pass"].status is ProbeStatus.VIOLATED
    assert "lowers it" in found["bytes"].reason and found["bytes"].status is ProbeStatus.VIOLATED


@needs_sandbox
def test_more_probability_than_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A few of the likely tokens are enough to see it.
    monkeypatch.setattr(normalisation, "all_tokens", lambda stream: (evaluations.all_tokens(stream)[0][:12], []))
    result = look(tmp_path, "ngram-hits", ["normalisation"], "bit-", "short")["normalisation"]
    assert result.status is ProbeStatus.VIOLATED
    assert result.numbers[0].value > 1.1


def test_what_is_looked_for_is_read_statically(tmp_path: Path) -> None:
    target = Target.of(reading_of(tmp_path, "score-first"))
    assert target is not None
    assert (target.function, target.observed, target.key) == ("eval_val", ("eval_val",), "val_bpb")
    assert all("def main():" in text for text in SUBMISSIONS.values())
