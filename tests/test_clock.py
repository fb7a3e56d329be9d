"""How long runs took, and on what machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import pytest

from auditor.clock import Machine, held_to_budgets, machine, rounding, seconds, stops
from auditor.reading import Reading
from auditor.submission import Change, RecordFolder, Submission, SubmissionFile, SubmissionKind
from auditor.verdict import Effect, Status
from rules.budget.eval_over_time import EvalOverTime
from rules.budget.train_over_time import TrainOverTime
from rules.budget.wrong_hardware import WrongHardware
from rules.leakage.train_val_overlap import TrainValOverlap

RESULT = "final val_loss:2.0673 val_bpb:1.2244 eval_time:1400ms\n"
STOP = "stopping_early: wallclock_cap train_time:{}ms step:{}/20000\n"
JSON = '{"val_bpb": 1.2244}'


def files(texts: Mapping[str, str]) -> tuple[SubmissionFile, ...]:
    return tuple(SubmissionFile(p, len(t.encode()), Change.ADDED, t.encode) for p, t in sorted(texts.items()))


def read(
    texts: Mapping[str, str],
    track: Literal["record", "non-record", "unknown"] = "record",
    kind: SubmissionKind = SubmissionKind.RECORD,
    elsewhere: Mapping[str, str] | None = None,
) -> Reading:
    made = files(texts)
    folder = RecordFolder(".", track, made)
    return Reading(Submission("x", None, None, None, None, kind, (folder,), (*made, *files(elsewhere or {}))), folder)


def of(log: str, **more: str) -> Machine:
    reading = read({"train.log": log + RESULT, "submission.json": JSON, **more})
    return machine(reading, reading.run.claim_runs[0])


def test_the_log_tells_the_machine() -> None:
    assert of("world_size:8\nNVIDIA H100 80GB HBM3\n") == Machine(8, "H100")
    assert of("world_size:1\n") == Machine(1, None)
    assert of("seed: 1\n") == Machine(None, None)


def test_documents_tell_what_the_log_does_not() -> None:
    assert of("seed: 1\n", **{"README.md": "Trained on 8xA100 for an hour.\n"}) == Machine(8, "A100")
    hardware = '{"val_bpb": 1.2244, "hardware": "1x H100 SXM"}'
    assert of("seed: 1\n", **{"submission.json": hardware}) == Machine(1, "H100")
    launch = "# Run\n\n```bash\ntorchrun --nproc_per_node=4 train_gpt.py\n```\n"
    assert of("seed: 1\n", **{"README.md": launch, "train_gpt.py": ""}).gpus == 4


@pytest.mark.parametrize(
    ("used", "ms", "over"),
    [
        (Machine(8, "H100"), 601_000, True),
        (Machine(8, "H100"), 599_000, False),
        (Machine(None, None), 601_000, True),
        (Machine(1, "H100"), 4_000_000, False),
        (Machine(1, "H100"), 5_000_000, True),
        (Machine(1, "A100"), 9_000_000, False),
        (Machine(1, None), 9_000_000, False),
    ],
)
def test_only_the_best_case_counts_on_other_machines(used: Machine, ms: float, over: bool) -> None:
    assert used.surely_over(ms, 600_100) is over


def test_rounding_is_half_the_last_digit() -> None:
    assert rounding("stopping train_time: 600117ms step: 1/2", 600_117) == 0
    assert rounding("train_time: 10.0m tok/s: 5", 600_000) == pytest.approx(3_000)
    assert rounding("done in 600.12s", 600_120) == pytest.approx(5)
    assert rounding("nothing of the kind", 600_120) == 0


def test_minutes_are_not_exact_enough_to_be_over() -> None:
    log = "world_size:8\n6000/6000 train_loss: 2.9 train_time: {} tok/s: 5\n" + RESULT
    within = read({"train_gpt.py": "x = 1\n", "train.log": log.format("10.0m"), "submission.json": JSON})
    over = read({"train_gpt.py": "x = 1\n", "train.log": log.format("19.8m"), "submission.json": JSON})
    assert TrainOverTime().check(within).status is Status.CLEAN
    assert TrainOverTime().check(over).status is Status.ACTIVE


def test_the_non_record_track_has_no_limit() -> None:
    texts = {"train_gpt.py": "x = 1\n", "train.log": STOP.format(3_598_245, 16_001) + RESULT, "submission.json": JSON}
    assert not held_to_budgets(read(texts, "non-record"))
    finding = TrainOverTime().check(read(texts, "non-record"))
    assert finding.status is Status.NOT_APPLICABLE
    assert "3598.2 s" in finding.reason
    assert EvalOverTime().check(read(texts, "non-record")).status is Status.NOT_APPLICABLE
    assert not held_to_budgets(read(texts, "unknown", SubmissionKind.ROOT_SCRIPT))
    assert held_to_budgets(read(texts, "unknown"))


def test_every_run_behind_the_claim_counts() -> None:
    texts = {
        "train_gpt.py": "x = 1\n",
        "submission.json": '{"val_bpb": 1.2244, "seeds": {"1": 1.2244, "2": 1.2243}}',
        "train_seed1.log": "seed: 1\n" + STOP.format(599_000, 4_900) + RESULT,
        "train_seed2.log": "seed: 2\n" + STOP.format(602_048, 4_945) + RESULT.replace("1.2244", "1.2243"),
    }
    reading = read(texts)
    assert [s.ms for s in stops(reading)] == [599_000, 602_048]
    finding = TrainOverTime().check(reading)
    assert finding.status is Status.ACTIVE
    assert "1 of 2 runs" in finding.reason
    assert finding.evidence[0].file == "train_seed2.log"


def test_a_time_next_to_the_budget_is_told_exactly() -> None:
    assert seconds(600_117) == "600.117 s"
    assert seconds(588_006) == "588.0 s"


def test_logs_beside_an_identical_script_speak_for_a_folder_without_logs() -> None:
    log = "train_shards: 1499\nval_tokens: 47851520\n" + RESULT
    own = {"train_gpt.py": "x = 1\n", "submission.json": JSON}
    found = read(own, elsewhere={"final/train_gpt.py": "x = 1\n", "final/train.log": log})
    assert [r.file for r in found.runs_elsewhere] == ["final/train.log"]
    assert TrainValOverlap().check(found).status is Status.ACTIVE
    other = read(own, elsewhere={"final/train_gpt.py": "x = 2\n", "final/train.log": log})
    assert other.runs_elsewhere == ()
    assert TrainValOverlap().check(other).status is Status.CLEAN


def test_the_launch_counts_the_devices_and_the_document_names_them() -> None:
    launch = "Trained on 8xA100 for an hour.\n\n```bash\ntorchrun --nproc_per_node=8 train_gpt.py\n```\n"
    assert of("seed: 1\n", **{"README.md": launch, "train_gpt.py": ""}) == Machine(8, "A100")
    other = launch.replace("8xA100", "1xA100")
    assert of("seed: 1\n", **{"README.md": other, "train_gpt.py": ""}) == Machine(8, None)


def test_a_machine_hoped_for_does_not_name_the_devices_of_the_run() -> None:
    hoped = "8xH100 results are pending.\n\n```bash\ntorchrun --nproc_per_node=8 train_gpt.py\n```\n"
    assert of("world_size:4\n", **{"README.md": hoped, "train_gpt.py": ""}) == Machine(4, None)
    key = '{"val_bpb": 1.2244, "hardware": "8xH100 SXM"}'
    assert of("world_size:1\n", **{"submission.json": key}) == Machine(1, None)
    told = "Run on 4xH100, since 8xH100 were not to be had.\n"
    assert of("world_size:4\n", **{"README.md": told}) == Machine(4, "H100")


def test_steps_too_slow_for_eight_h100_tell_that_it_was_another_machine() -> None:
    log = STOP.format(4_511_317, 5004) + "final val_bpb:1.2244 eval_time:1978188ms\n"
    reading = read({"train.log": log, "submission.json": JSON})
    assert TrainOverTime().check(reading).status is Status.SUSPECT
    assert EvalOverTime().check(reading).status is Status.SUSPECT
    stated = {"README.md": "Made for 8xH100.\n", "train.log": log, "submission.json": JSON}
    finding = TrainOverTime().check(read(stated))
    assert finding.status is Status.SUSPECT
    assert "slower than the 8 H100 stated" in finding.reason
    listed = read({**stated, "train.log": "NVIDIA H100 80GB HBM3\n" + log})
    assert TrainOverTime().check(listed).status is Status.ACTIVE
    fast = read({"train.log": log.replace("step:5004/", "step:45040/"), "submission.json": JSON})
    assert TrainOverTime().check(fast).status is Status.ACTIVE


LATE = "world_size:8\n" + STOP.format(615_394, 4071) + "final val_loss:2.1 val_bpb:1.2244 eval_time:763000ms\n"


@pytest.mark.parametrize(
    "more",
    [
        {"submission.json": '{"val_bpb": 1.2244, "name": "Non-record: a study"}'},
        {"submission.json": '{"val_bpb": 1.2244, "notes": "Single seed. Non-record submission, for the method."}'},
        {"README.md": "# A study\n" + "\nText.\n" * 20 + "\n**Non-record submission.** One seed.\n"},
        {"README.md": "# A study\n" + "\nText.\n" * 20 + "\nThis run uses one card (non-record submission)\n"},
        {"README.md": "Checks the format. This is **not** a competitive entry, only a short run.\n"},
        {"README.md": "# A study\n" + "\nText.\n" * 20 + "\nThis is a research note, not a record submission.\n"},
    ],
)
def test_who_claims_no_record_is_told_but_not_accused(more: dict[str, str]) -> None:
    reading = read({"train.log": LATE, "submission.json": JSON, **more})
    for finding in (TrainOverTime().check(reading), EvalOverTime().check(reading)):
        assert (finding.status, finding.official) == (Status.ACTIVE, Effect.ADVISORY)
        assert "non-record" in finding.reason
    one = read({"train.log": LATE.replace("world_size:8", "world_size:1"), "submission.json": JSON, **more})
    assert WrongHardware().check(one).official is Effect.ADVISORY


def test_a_draft_without_a_result_is_told_but_not_accused() -> None:
    smoke = {"train.log": LATE.replace("world_size:8", "world_size:1"), "README.md": "# Nine layers, results to come\n"}
    draft = WrongHardware().check(read({**smoke, "submission.json": '{"val_bpb": null}'}))
    assert (draft.status, draft.official) == (Status.ACTIVE, Effect.ADVISORY)
    assert WrongHardware().check(read({**smoke, "submission.json": JSON})).official is None


@pytest.mark.parametrize(
    "text",
    [
        "Builds on the ideas of non-record submission #12 and others.",
        "Prior art exists in the non-record PR #1035.",
        "This submission extends our earlier non-record submission.",
        "An earlier grant enabled our prior non-record submission.",
        "Non-record submissions may use any hardware.",
        "This is not a non-record submission.",
        "This run beats what was not a record submission.",
        "This entry does not use a leaderboard trick; the submission stands.",
    ],
)
def test_citing_non_record_work_is_no_such_claim(text: str) -> None:
    reading = read(
        {"train.log": LATE, "submission.json": JSON, "README.md": "# A\n" + "\nText.\n" * 20 + f"\n{text}\n"}
    )
    assert TrainOverTime().check(reading).official is None
    assert EvalOverTime().check(reading).official is None
