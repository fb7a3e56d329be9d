"""The benchmark: labels in both forms, what counts as right and wrong, the command, and its files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from sources_helpers import RECORD, Repository

import rules
from auditor import benchmark as bench
from auditor import cli
from auditor.benchmark import Audited, Label, Result, Score
from auditor.errors import UsageError
from auditor.verdict import Confidence, Effect, Outcome, Status

RULE = next(r for r in rules.discover() if r.slug == "external-binary")


def outcome(rule: str, status: Status, effect: Effect = Effect.NONE) -> Outcome:
    return Outcome(rule=rule, status=status, effect=effect, confidence=Confidence.HIGH, reason="Made up.")


def label(expected: bool | None, *slugs: str, file: str | None = None, pr: int = 7) -> Label:
    return Label(pr, "a" * 40, slugs, expected, "participant", file, {})


def audited(*outcomes: Outcome) -> Audited:
    return Audited("a" * 40, (("records/x", outcomes),))


def write(path: Path, *rows: Mapping[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


# -- one label ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "status", "result"),
    [
        (True, Status.ACTIVE, Result.FOUND),
        (True, Status.LATENT, Result.MISSED),
        (True, Status.CLEAN, Result.MISSED),
        (True, Status.SUSPECT, Result.SUSPECTED),
        (True, Status.UNKNOWN, Result.SUSPECTED),
        (False, Status.ACTIVE, Result.FALSE),
        (False, Status.LATENT, Result.CLEAR),
        (False, Status.NOT_APPLICABLE, Result.CLEAR),
        (False, Status.SUSPECT, Result.DOUBTED),
        (None, Status.ACTIVE, Result.UNCLEAR),
    ],
)
def test_a_status_against_a_label(expected: bool | None, status: Status, result: Result) -> None:
    judgement = bench.judge(label(expected, "one"), audited(outcome("one", status)), {})
    assert judgement.result is judgement.adjudicated is result


def test_of_several_rules_for_one_kind_one_suffices() -> None:
    several = audited(outcome("one", Status.CLEAN), outcome("two", Status.ACTIVE), outcome("other", Status.ACTIVE))
    assert bench.judge(label(True, "one", "two"), several, {}).result is Result.FOUND
    assert bench.judge(label(False, "one", "two"), several, {}).result is Result.FALSE
    assert {o.rule for o in bench.judge(label(True, "one", "two"), several, {}).outcomes} == {"one", "two"}


def test_the_folder_that_the_label_read_is_compared() -> None:
    both = Audited(
        None,
        (("records/a", (outcome("one", Status.CLEAN),)), ("records/b", (outcome("one", Status.ACTIVE),))),
    )
    assert bench.judge(label(True, "one", file="records/b/train_gpt.py"), both, {}).result is Result.FOUND
    assert bench.judge(label(True, "one", file="elsewhere/train_gpt.py"), both, {}).result is Result.MISSED
    assert bench.judge(label(True, "one"), both, {}).result is Result.MISSED


def test_accepted_submissions_must_have_no_violation() -> None:
    noted = audited(outcome("one", Status.ACTIVE, Effect.ADVISORY), outcome("two", Status.ACTIVE, Effect.ACCEPTED))
    assert bench.judge(label(False, "*"), noted, {}).result is Result.CLEAR
    broken = audited(outcome("one", Status.ACTIVE, Effect.VIOLATION))
    judgement = bench.judge(label(False, "*"), broken, {})
    assert judgement.result is Result.FALSE and [o.rule for o in judgement.outcomes] == ["one"]
    excused = bench.judge(label(False, "*"), broken, {(7, "one"): {"status": "active", "proof": "So it is."}})
    assert (excused.result, excused.adjudicated) == (Result.FALSE, Result.CLEAR)


def test_our_own_reading_overrules_a_label() -> None:
    found = audited(outcome("one", Status.ACTIVE), outcome("two", Status.CLEAN))
    own = {(7, "one"): {"status": "active", "proof": "Line 12 shows it."}}
    judgement = bench.judge(label(False, "one"), found, own)
    assert (judgement.result, judgement.adjudicated) == (Result.FALSE, Result.FOUND)
    assert bench.judge(label(False, "one"), found, {(7, "one"): {"status": "suspect"}}).adjudicated is Result.UNCLEAR
    # That one of two rules is clean does not clear the other.
    of_two = bench.judge(label(True, "one", "two"), found, {(7, "two"): {"status": "clean"}})
    assert of_two.adjudicated is Result.FOUND


# -- figures ------------------------------------------------------------------------------------------------


def test_wilsons_interval() -> None:
    # E. B. Wilson's interval for 81 of 263 (R. G. Newcombe, Statistics in Medicine 17, 1998, table I).
    value, lower, upper = bench.proportion(81, 263) or (0.0, 0.0, 0.0)
    assert value == pytest.approx(0.308, abs=5e-4)
    assert (lower, upper) == (pytest.approx(0.2553, abs=1e-4), pytest.approx(0.3662, abs=1e-4))
    assert bench.proportion(0, 0) is None
    assert bench.proportion(10, 10) == (1.0, pytest.approx(0.7225, abs=1e-4), 1.0)


def test_scores_count_what_they_should() -> None:
    score = Score(
        Counter(
            {
                Result.FOUND: 6,
                Result.FALSE: 2,
                Result.MISSED: 1,
                Result.SUSPECTED: 1,
                Result.CLEAR: 5,
                Result.UNCLEAR: 3,
            }
        )
    )
    assert (score.labels, score.right, score.wrong, score.undecided, score.accused) == (15, 11, 3, 1, 8)
    assert (score.precision() or (0,))[0] == 0.75
    assert (score.recall() or (0,))[0] == 0.75
    assert score.recall_with_doubt() == 6.5 / 8
    assert Score(Counter()).precision() is None


def test_totals_leave_the_accepted_out() -> None:
    judged = [
        bench.judge(label(True, "one"), audited(outcome("one", Status.ACTIVE)), {}),
        bench.judge(label(False, "*"), audited(outcome("one", Status.ACTIVE, Effect.VIOLATION)), {}),
    ]
    by_rule = bench.scores(judged)
    assert set(by_rule) == {("*", "participant"), ("one", "participant")}
    assert bench.totals(by_rule)["participant"].labels == 1


# -- label files --------------------------------------------------------------------------------------------


def test_both_forms_of_labels_are_read(tmp_path: Path) -> None:
    rulings = write(
        tmp_path / "rulings.jsonl",
        {
            "pr": 3,
            "head": "b" * 40,
            "rule": "one",
            "expected": "violation",
            "strength": "organiser",
            "stale_head": True,
        },
        {"pr": 4, "head": None, "rule": "*", "expected": "accepted", "strength": "organiser", "stale_head": False},
    )
    first, second = bench.read_labels(rulings)
    assert (first.pr, first.rules, first.expected, first.strength) == (3, ("one",), True, "organiser, stale")
    assert (second.rules, second.expected, second.strength) == (("*",), False, "organiser")
    kinds = {
        "x": {"rules": ["one", "two"], "status": "latent", "evidence": "Line 3."},
        "y": {"rules": ["three"], "status": "unclear", "evidence": ""},
    }
    readings = write(tmp_path / "readings.jsonl", {"pr": 5, "head": "c" * 40, "file": "records/a/t.py", "kinds": kinds})
    x, y = bench.read_labels(readings)
    assert (x.rules, x.expected, x.file, x.name) == (("one", "two"), False, "records/a/t.py", "one (+1)")
    assert (y.expected, y.strength) == (None, "reading")


@pytest.mark.parametrize(
    "text",
    [
        "nonsense\n",
        "[1]\n",
        '{"pr": 1}\n',
        '{"pr": 1, "rule": "a", "expected": "maybe", "strength": "x"}\n',
        '{"pr": 1, "kinds": 3}\n',
    ],
)
def test_a_bad_label_is_one_line_that_says_where(text: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text("\n" + text, "utf-8")
    with pytest.raises(UsageError) as caught:
        bench.read_labels(path)
    assert f"{path}:2" in str(caught.value) and "\n" not in str(caught.value)


def test_a_bad_adjudication_is_one_line_that_says_where(tmp_path: Path) -> None:
    path = write(tmp_path / "own.jsonl", {"pr": 1, "rule": "one", "status": "guilty"})
    with pytest.raises(UsageError, match=r"own\.jsonl:1"):
        bench.read_adjudications(path)


def test_the_bundled_adjudications_are_readable() -> None:
    rows = bench.read_adjudications(Path(__file__).parent / "adjudicated.jsonl")
    assert rows
    assert all(str(row["proof"]).strip() for row in rows.values())


# -- the command --------------------------------------------------------------------------------------------


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """Pull request 1 breaks the rule, pull request 2 does not; there is no pull request 3."""
    repository = Repository(tmp_path / "mirror.git")
    base = repository.commit({"README.md": b"The contest.\n"})
    repository.set_main(base)
    for number, example in ((1, RULE.VIOLATION[0]), (2, next(e for e in RULE.LEGAL if e.status is Status.CLEAN))):
        files = {f"{RECORD}{number}/{path}": text.encode() for path, text in example.files.items()}
        repository.set_pull(number, repository.commit({"README.md": b"The contest.\n", **files}, base))
    return repository.path


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    row = {"head": None, "rule": RULE.slug, "strength": "participant", "stale_head": False, "note": "Somebody said so."}
    return write(
        tmp_path / "labels.jsonl",
        {**row, "pr": 1, "expected": "violation"},
        {**row, "pr": 2, "expected": "violation"},
        {**row, "pr": 3, "expected": "clean"},
        {**row, "pr": 1, "rule": "no-such-rule", "expected": "clean"},
    )


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_the_command(jobs: str, mirror: Path, labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = write(tmp_path / "own.jsonl", {"pr": 2, "rule": RULE.slug, "status": "clean", "proof": "Nothing is run."})
    found = tmp_path / "disagreements.jsonl"
    arguments = ["benchmark", "--mirror", str(mirror), "--labels", str(labels), "--rule", RULE.slug, "--jobs", jobs]
    code = cli.main([*arguments, "--adjudicated", str(own), "--disagreements", str(found)])
    captured = capsys.readouterr()
    assert (code, captured.err) == (0, "")
    rows = [line.split()[:8] for line in captured.out.splitlines() if line.startswith(RULE.slug)]
    assert rows[0][:7] == [RULE.slug, "participant", "2", "1", "0", "1", "0"]
    assert rows[1][:7] == [RULE.slug, "participant", "2", "2", "0", "0", "0"]
    assert "Not in the mirror: #3" in captured.out
    (row,) = map(json.loads, found.read_text("utf-8").splitlines())
    assert (row["pr"], row["result"], row["adjudicated_result"]) == (2, "missed", "clear")
    assert row["label"]["note"] == "Somebody said so."
    assert row["tool"][0]["status"] == "clean" and row["tool"][0]["reason"]
    assert row["adjudication"]["proof"] == "Nothing is run."


def test_labels_of_one_strength(mirror: Path, labels: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["benchmark", "--mirror", str(mirror), "--labels", str(labels), "--jobs", "1"]
    assert cli.main([*arguments, "--strength", "organiser"]) == 2
    assert "there are participant" in capsys.readouterr().err
    assert cli.main([*arguments, "--strength", "participant"]) == 0


def test_a_failure_of_the_tool_is_counted_and_told(
    mirror: Path, labels: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(bench, "audit", fail)
    assert cli.main(["benchmark", "--mirror", str(mirror), "--labels", str(labels), "--jobs", "1"]) == 2
    captured = capsys.readouterr()
    assert "#1: the tool failed: RuntimeError: a fault of ours" in captured.out
    assert captured.err.count("\n") == 1


def test_no_mirror_no_labels(tmp_path: Path, labels: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["benchmark", "--mirror", str(tmp_path / "none"), "--labels", str(labels), "--jobs", "1"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert cli.main(["benchmark", "--mirror", str(tmp_path), "--labels", str(tmp_path / "none.jsonl")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: cannot read ") and error.count("\n") == 1
