"""What the examples of the rules on budgets leave out: several runs, shipped files, reserves that fall short."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from auditor.reading import Reading
from auditor.submission import Change, RecordFolder, Submission, SubmissionFile, SubmissionKind
from auditor.verdict import Effect, Policy, Status
from rules.budget.calibration_over_budget import CalibrationOverBudget
from rules.budget.eval_over_time import EvalOverTime
from rules.budget.oversize_artifact import OversizeArtifact
from rules.budget.train_over_time import TrainOverTime

SCRIPT = "print('final val_bpb:1.2000')\n"
JSON = '{"val_bpb": 1.2}'
THREE = '{"val_bpb": 1.2, "seeds": {"1": 1.2001, "2": 1.2000, "3": 1.1999}}'


def read(texts: Mapping[str, str], sizes: Mapping[str, int] | None = None) -> Reading:
    made = [SubmissionFile(p, len(t.encode()), Change.ADDED, t.encode) for p, t in texts.items()]
    made += [SubmissionFile(p, n, Change.ADDED, lambda: b"") for p, n in (sizes or {}).items()]
    made.sort(key=lambda f: f.path)
    folder = RecordFolder(".", "record", tuple(made))
    return Reading(Submission("x", None, None, None, None, SubmissionKind.RECORD, (folder,), tuple(made)), folder)


# -- oversize-artifact ----------------------------------------------------------------------------------------


def sizes_log(model: int, code: int, bpb: str = "1.2000") -> str:
    return (
        f"Serialized model: 67224983 bytes\nCode size: {code} bytes\nSerialized model int8+zlib: {model} bytes\n"
        f"Total submission size int8+zlib: {model + code} bytes\nfinal val_bpb:{bpb}\n"
    )


@pytest.mark.parametrize(
    ("model", "status"),
    [(15_990_000, Status.CLEAN), (15_999_990, Status.SUSPECT), (16_000_001, Status.ACTIVE)],
)
def test_a_shipped_model_counts_where_no_log_tells(model: int, status: Status) -> None:
    reading = read({"train_gpt.py": SCRIPT, "submission.json": JSON}, {"final_model.int8.ptz": model})
    assert OversizeArtifact().check(reading).status is status


def test_one_seed_of_three_over_the_cap_is_over() -> None:
    logs = {
        f"train_seed{n}.log": f"seed:{n}\n" + sizes_log(15_900_000, 29, f"1.{2001 - i}") for i, n in enumerate("12")
    }
    third = {"train_seed3.log": "seed:3\n" + sizes_log(16_300_000, 29, "1.1999")}
    reading = read({"train_gpt.py": SCRIPT, "submission.json": THREE, **logs, **third})
    finding = OversizeArtifact().check(reading)
    assert finding.status is Status.ACTIVE
    assert "1 of 3 runs" in finding.reason
    assert finding.evidence[0].file == "train_seed3.log"


def test_runs_without_a_claim_only_raise_the_question() -> None:
    reading = read(
        {"train_gpt.py": SCRIPT, "a.log": sizes_log(15_900_000, 29), "b.log": sizes_log(16_300_000, 29, "1.1000")}
    )
    assert OversizeArtifact().check(reading).status is Status.SUSPECT


def test_a_raw_checkpoint_is_not_the_artifact() -> None:
    log = "Serialized model: 67224983 bytes\nTotal submission size: 67225012 bytes\nfinal val_bpb:1.2000\n"
    stated = '{"val_bpb": 1.2, "bytes_total": 15900000}'
    reading = read({"train_gpt.py": SCRIPT, "submission.json": stated, "train.log": log})
    assert OversizeArtifact().check(reading).status is Status.CLEAN


def test_limits_in_submission_json_are_no_sizes() -> None:
    stated = '{"val_bpb": 1.2, "artifact_bytes": 15900000, "artifact_bytes_cap": 16777216}'
    reading = read({"train_gpt.py": SCRIPT, "submission.json": stated})
    assert OversizeArtifact().check(reading).status is Status.CLEAN


# -- times ----------------------------------------------------------------------------------------------------


def test_overshoot_as_in_merged_records_is_an_advisory() -> None:
    rule = TrainOverTime()
    log = "world_size:8\nstopping_early: wallclock_cap train_time:{}ms step:6593/20000\nfinal val_bpb:1.2000\n"
    for ms, effect in ((600_365, Effect.ADVISORY), (600_598, Effect.VIOLATION)):
        finding = rule.check(read({"train_gpt.py": SCRIPT, "submission.json": JSON, "train.log": log.format(ms)}))
        assert finding.status is Status.ACTIVE
        assert rule.effect(finding, Policy.OFFICIAL) is effect
        assert rule.effect(finding, Policy.STRICT) is Effect.VIOLATION


def test_a_time_from_another_result_only_raises_the_question() -> None:
    log = "world_size:8\nstopping_early: train_time:700000ms step:6593/20000\nfinal val_bpb:1.3000\n"
    reading = read({"train_gpt.py": SCRIPT, "submission.json": JSON, "train.log": log})
    assert TrainOverTime().check(reading).status is Status.SUSPECT


def test_what_the_evaluation_timer_leaves_out_is_told() -> None:
    log = (
        "world_size:8\nstopping_early: train_time:596000ms step:4800/20000\n"
        "Deserialize: decompression done in 20.9s\nlora compile warmup done (149.9s)\nbeginning eval timer\n"
        "final val_bpb:1.2000 eval_time:519500ms\ntotal_eval_time:519.5s\n"
    )
    finding = EvalOverTime().check(read({"train_gpt.py": SCRIPT, "submission.json": JSON, "train.log": log}))
    assert finding.status is Status.CLEAN
    assert "compiling 149.9 s" in finding.reason and "loading 20.9 s" in finding.reason


# -- calibration-over-budget ----------------------------------------------------------------------------------


def calibrated(stop: int, took: str, seed: int = 1) -> str:
    return (
        f"world_size:8\nseed:{seed}\nstopping_early: wallclock_cap train_time:{stop}ms step:4900/20000\n"
        f"gptq: collected Hessians in {took}s\nfinal_int6_roundtrip val_bpb:1.0611 eval_time:1400ms\n"
    )


@pytest.mark.parametrize(
    ("stop", "took", "status"),
    [
        (588_006, "12.8", Status.CLEAN),  # a reserve that falls short by 0.8 s, as in a merged record
        (588_006, "13.6", Status.ACTIVE),
        (596_100, "3.5", Status.CLEAN),
        (599_600, "3.5", Status.ACTIVE),
        (600_130, "0.8", Status.ACTIVE),
        (599_600, "0.2", Status.CLEAN),
    ],
)
def test_reserve_and_calibration(stop: int, took: str, status: Status) -> None:
    files = dict(CalibrationOverBudget.VIOLATION[0].files)
    assert CalibrationOverBudget().check(read({**files, "train.log": calibrated(stop, took)})).status is status


def test_a_rerun_with_a_reserve_speaks_for_its_seed() -> None:
    files = dict(CalibrationOverBudget.VIOLATION[0].files)
    again = {"train_rerun.log": calibrated(592_054, "3.5")}
    finding = CalibrationOverBudget().check(read({**files, "train.log": calibrated(599_623, "3.5"), **again}))
    assert finding.status is Status.CLEAN
    assert "rerun" in finding.reason
    other = {"train_other.log": calibrated(592_054, "3.5", seed=2)}
    finding = CalibrationOverBudget().check(read({**files, "train.log": calibrated(599_623, "3.5"), **other}))
    assert finding.status is Status.ACTIVE
