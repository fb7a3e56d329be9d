"""The bundled example submissions get the verdict they were written for, and their evidence holds."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TypedDict

import pytest

from auditor.engine import audit
from auditor.sources import open_submission
from auditor.submission import Change, SubmissionFile
from auditor.unpack import read_program
from auditor.verdict import Effect, Evidence, Outcome, Policy, Status, Verdict

ROOT = Path(__file__).parent.parent
FIXTURES = Path(__file__).parent / "fixtures"
SUBMISSIONS = FIXTURES / "submissions"


class Expected(TypedDict):
    verdict: str
    rules: dict[str, str]


EXPECTED: dict[str, Expected] = json.loads((SUBMISSIONS / "expected.json").read_text(encoding="utf-8"))
NAMES = sorted(EXPECTED)


@cache
def verdict(name: str, policy: Policy = Policy.OFFICIAL) -> Verdict:
    return audit(open_submission(str(SUBMISSIONS / name)), policy=policy)


def outcome(name: str, rule: str, policy: Policy = Policy.OFFICIAL) -> Outcome:
    return next(o for o in verdict(name, policy).outcomes if o.rule == rule)


def all_evidence(judged: Verdict) -> Iterator[tuple[Outcome, Evidence]]:
    for o in (*judged.outcomes, *(o for folder in judged.other_folders for o in folder.outcomes)):
        for evidence in o.evidence:
            yield o, evidence


def holds(evidence: Evidence, line: str) -> bool:
    """Whether ``line`` says what the evidence quotes."""
    if evidence.role.startswith("setting "):
        # Quoted in one form, whatever the form in the file: name and value must both stand there.
        name, _, value = evidence.snippet.partition(" = ")
        bare = name.lstrip("-").lower().replace("-", "_")
        return bare in line.lower().replace("-", "_") and value in line
    quoted = evidence.snippet.strip("…").strip()
    return bool(quoted) and quoted[:60] in line.expandtabs()


# -- verdicts -----------------------------------------------------------------------------------------------


def test_every_folder_is_expected_and_every_expectation_has_a_folder() -> None:
    assert sorted(p.name for p in SUBMISSIONS.iterdir() if p.is_dir()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_verdict(name: str) -> None:
    judged = verdict(name)
    found = {o.rule: o.status.value for o in judged.outcomes if o.rule in EXPECTED[name]["rules"]}
    assert found == EXPECTED[name]["rules"]
    assert judged.verdict.value == EXPECTED[name]["verdict"]


@pytest.mark.parametrize("name", NAMES)
def test_same_input_same_bytes(name: str) -> None:
    source = str(SUBMISSIONS / name)
    first, second = (audit(open_submission(source)) for _ in range(2))
    assert first.model_dump_json() == second.model_dump_json()
    assert first.digest == first.with_digest().digest
    assert len(first.digest) == 64


DIGESTS = """
import sys
from auditor.engine import audit
from auditor.sources import open_submission
for folder in sys.argv[1:]:
    print(audit(open_submission(folder)).digest)
"""


def test_same_bytes_whatever_the_hash_seed() -> None:
    """Sets of strings come in another order in each process; nothing of that may show."""
    folders = [str(SUBMISSIONS / name) for name in NAMES]
    digests = set()
    for seed in ("1", "2", "3"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", DIGESTS, *folders],
            env=environment, capture_output=True, text=True, check=True, cwd=ROOT,
        )  # fmt: skip
        digests.add(done.stdout)
    assert len(digests) == 1
    assert digests.pop().split() == [verdict(name).digest for name in NAMES]


def test_digest_follows_the_content(tmp_path: Path) -> None:
    copy = tmp_path / "clean-baseline"
    shutil.copytree(SUBMISSIONS / "clean-baseline", copy)
    before = audit(open_submission(str(copy)))
    script = copy / "train_gpt.py"
    text = "import math  # moves every line\n" + script.read_text(encoding="utf-8")
    script.write_text(text, encoding="utf-8")
    assert audit(open_submission(str(copy))).digest != before.digest


# -- evidence -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_evidence_quotes_what_stands_there(name: str) -> None:
    for o, evidence in all_evidence(verdict(name)):
        where = f"{o.rule}: {evidence.file}:{evidence.line} ({evidence.role})"
        shipped = (SUBMISSIONS / name / evidence.file).read_text(encoding="utf-8")
        text = shipped
        if evidence.view == "unpacked":
            text = (FIXTURES / "packed_source.py").read_text(encoding="utf-8")
            assert evidence.shipped_line is not None, where
            assert evidence.shipped_line <= len(shipped.split("\n")), where
        else:
            assert evidence.shipped_line is None, where
        lines = text.split("\n")
        assert evidence.line <= len(lines), where
        line = lines[evidence.line - 1]
        assert evidence.column <= len(line) + 1, where
        assert holds(evidence, line), f"{where}: {evidence.snippet!r} is not in {line!r}"


@pytest.mark.parametrize("name", NAMES)
def test_no_evidence_is_given_twice(name: str) -> None:
    for o in verdict(name).outcomes:
        places = [(e.file, e.line, e.column, e.role.split(",")[0].lower()) for e in o.evidence]
        assert len(places) == len(set(places)), o.rule


@pytest.mark.parametrize("name", NAMES)
def test_snippets_fit_on_one_short_line(name: str) -> None:
    for _, evidence in all_evidence(verdict(name)):
        assert len(evidence.snippet) <= 200
        assert "\n" not in evidence.snippet


@pytest.mark.parametrize("name", NAMES)
def test_findings_come_with_evidence_and_a_way_to_it(name: str) -> None:
    for o in verdict(name).outcomes:
        if o.status in (Status.ACTIVE, Status.LATENT):
            assert o.evidence, o.rule
            # What only logs and documents show has no path through the code.
            if any(e.file.endswith(".py") for e in o.evidence) and o.rule != "broken-script":
                assert o.call_path and o.call_path[0].function == "<module>", o.rule
        assert o.reason.endswith(".") and "\n" not in o.reason


# -- single cases -------------------------------------------------------------------------------------------


def test_log_switches_on_what_the_code_leaves_off() -> None:
    found = outcome("prequant-ttt-active", "prequant-ttt")
    log = [e for e in found.evidence if e.file == "train_seed42.log"]
    assert any("prequant_ttt_enabled" in e.snippet.lower() and "True" in e.snippet for e in log)
    assert any(e.file == "train_gpt.py" and "optimizer.step()" in e.snippet for e in found.evidence)


def test_report_shows_the_default_beside_the_log_line() -> None:
    judged = verdict("prequant-ttt-active")
    script = (SUBMISSIONS / "prequant-ttt-active" / "train_gpt.py").read_text(encoding="utf-8").split("\n")
    default = next(i for i, line in enumerate(script, 1) if '"PREQUANT_TTT_ENABLED", "0"' in line)
    settings = [s for s in judged.run_config.settings if s.name.lower() == "prequant_ttt_enabled"]
    shown = {(v.origin, v.file, v.line) for s in settings for v in s.values}
    quoted = {(e.file, e.line) for o in judged.outcomes for e in o.evidence}
    assert any(origin == "log" for origin, _, _ in shown)
    assert ("code default", "train_gpt.py", default) in shown or ("train_gpt.py", default) in quoted


def test_latent_names_the_switch() -> None:
    found = outcome("prequant-ttt-latent", "prequant-ttt")
    assert "prequant_ttt_enabled" in {s.lower() for s in found.settings}
    assert any("False" in e.snippet for e in found.evidence)
    assert found.effect is Effect.NONE


def test_subset_rests_on_the_launch_command() -> None:
    found = outcome("eval-subset-by-launch", "eval-subset")
    assert "VAL_TOKEN_LIMIT" in found.settings
    assert any(e.file == "README.md" and "3000000" in e.snippet for e in found.evidence)


def test_declared_program_is_accepted_by_one_policy_only() -> None:
    official = outcome("external-lrzip-declared", "external-binary")
    strict = outcome("external-lrzip-declared", "external-binary", Policy.STRICT)
    assert (official.status, official.effect) == (Status.ACTIVE, Effect.ACCEPTED)
    assert (strict.status, strict.effect) == (Status.ACTIVE, Effect.VIOLATION)
    assert any(e.file == "README.md" and "lrzip" in e.snippet for e in official.evidence)


def test_undeclared_program_is_named() -> None:
    found = outcome("external-binary-undeclared", "external-binary")
    assert found.effect is Effect.VIOLATION
    assert "zpaq" in found.reason


def test_masked_twin_differs_only_by_the_mask() -> None:
    leak, masked = (
        (SUBMISSIONS / name / "train_gpt.py").read_text(encoding="utf-8").split("\n")[1:]
        for name in ("smeargate-leak", "smeargate-masked")
    )
    assert [line for line in masked if line not in leak] == [
        "        g = g * (input_ids[:, 1:] != BOS_ID).unsqueeze(-1).to(g.dtype)"
    ]
    found = outcome("smeargate-masked", "smeargate-bos-leak")
    assert any("x[:, :-1]" in e.snippet and "masked" in e.role for e in found.evidence)


def test_packed_script_is_reported_in_the_program_it_holds() -> None:
    found = outcome("packed", "prequant-ttt")
    places = [e for e in found.evidence if e.file == "train_gpt.py"]
    assert places and all(e.view == "unpacked" for e in places)
    assert any("optimizer.step()" in e.snippet for e in places)
    assert any("lzma" in note for note in verdict("packed").run_config.notes)


def test_packed_script_is_made_from_its_source() -> None:
    tools = runpy.run_path(str(FIXTURES / "make_packed.py"))
    source = tools["SOURCE"].read_text(encoding="utf-8")
    shipped = tools["TARGET"].read_text(encoding="utf-8")
    # Another liblzma may compress differently, so both are read back by the auditor rather than compared.
    for text in (shipped, tools["pack"](source)):
        file = SubmissionFile("train_gpt.py", len(text), Change.ADDED, text.encode)
        assert read_program(file, {}).text == source


def test_minified_places_are_told_by_column() -> None:
    found = outcome("minified", "eval-subset")
    script = (SUBMISSIONS / "minified" / "train_gpt.py").read_text(encoding="utf-8").split("\n")
    places = [e for e in found.evidence if e.file == "train_gpt.py"]
    assert places
    for evidence in places:
        at = script[evidence.line - 1][evidence.column - 1 :]
        assert at and not at[0].isspace()
    assert any(e.column > 20 for e in places)


def test_claim_is_found_among_two_folders() -> None:
    judged = verdict("two-folders")
    longer = "records/track_non_record_16mb/2026-03-08_Longer"
    assert judged.submission.folder == longer
    assert judged.submission.track == "non-record"
    assert [f.folder for f in judged.other_folders] == ["records/track_non_record_16mb/2026-03-01_Baseline"]
    assert any("2 record folders" in note for note in judged.submission.notes)
    assert judged.run_config.reported.log_file == f"{longer}/train_seed42.log"


def test_broken_script_says_where() -> None:
    text = (SUBMISSIONS / "broken-script" / "train_gpt.py").read_text(encoding="utf-8").split("\n")
    line = next(i for i, content in enumerate(text, 1) if content.endswith("model(x, y"))
    code_rules = [o for o in verdict("broken-script").outcomes if o.status is Status.UNKNOWN]
    assert {o.rule for o in code_rules} >= {"prequant-ttt", "eval-subset", "smeargate-bos-leak", "external-binary"}
    for o in code_rules:
        assert f"{line}:" in o.reason, o.reason


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("clean-baseline", "eval_val"),
        ("clean-score-first-ttt", "eval_val_ttt"),
        ("minified", "evaluate"),
        ("packed", "eval_val"),
    ],
)
def test_reported_number_is_linked_to_its_evaluation(name: str, function: str) -> None:
    reported = verdict(name).run_config.reported
    claim = json.loads((SUBMISSIONS / name / "submission.json").read_text(encoding="utf-8"))
    assert reported.evaluation == function
    assert reported.value == claim["val_bpb"]
    log = (SUBMISSIONS / name / "train_seed42.log").read_text(encoding="utf-8").split("\n")
    assert reported.log_line is not None
    assert f"val_bpb:{claim['val_bpb']:.4f}" in log[reported.log_line - 1]


@pytest.mark.parametrize("name", NAMES)
def test_files_stay_small(name: str) -> None:
    for path in (SUBMISSIONS / name).rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert len(data) < 10_000 and data.count(b"\n") < 150, path


def test_the_readme_shows_a_real_verdict() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = readme.split("<!-- verdict -->\n```text\n")[1].split("\n```\n<!-- /verdict -->")[0]
    command = [sys.executable, "-m", "auditor.cli", "audit", "tests/fixtures/submissions/prequant-ttt-active"]
    environment = {**os.environ, "COLUMNS": "100"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 1
    assert done.stdout.split("\nWhat was not checked")[0].rstrip() == shown
