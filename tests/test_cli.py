"""The command line: exit codes, one-line errors, and where output goes."""

from __future__ import annotations

import io
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import pytest

import rules
from auditor import __version__, cli
from auditor.errors import SourceError
from auditor.probe.result import ProbeReport
from auditor.reading import Reading
from auditor.significance import Record
from auditor.verdict import Effect, Overall, Policy, Status, Verdict
from reports import REPORTS
from rules.base import Example, Finding, Rule

ROOT = Path(__file__).parent.parent
VERDICT = Path(__file__).parent / "fixtures" / "verdict.json"


class MadeUpRule(Rule):
    """Documented in *Markdown*."""

    slug = "made-up"
    group = "leakage"
    title = "something that is not done"
    official = Effect.VIOLATION
    strict = Effect.ADVISORY
    precedents = ("It was ruled once.",)
    VIOLATION = (Example("does it", {"train_gpt.py": "bad = True\n"}, Status.ACTIVE),)
    LEGAL = (Example("does not", {"train_gpt.py": "bad = False\n"}, Status.CLEAN),)

    def check(self, reading: object) -> Finding:
        raise NotImplementedError

    @classmethod
    def documentation(cls) -> str:
        return "Documented in *Markdown*."


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AUDITOR_MIRROR", "AUDITOR_DEBUG", "COLUMNS", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "discover", lambda: (MadeUpRule(),))


@pytest.fixture
def verdict() -> Verdict:
    return Verdict.model_validate_json(VERDICT.read_text("utf-8"))


Calls = list[tuple[str, Path | None, Policy, Sequence[str] | None, float | None]]


@pytest.fixture
def engine(verdict: Verdict, monkeypatch: pytest.MonkeyPatch) -> Callable[[Verdict | BaseException], Calls]:
    """Puts stand-ins for sources and engine in place, which give or raise the answer; returns their calls."""

    def install(answer: Verdict | BaseException) -> Calls:
        calls: Calls = []
        opened: list[tuple[str, Path | None]] = []

        def open_submission(source: str, *, mirror: Path | None = None, progress: Callable[[str], None]) -> object:
            progress("fetching")
            opened.append((source, mirror))
            return object()

        def audit(
            submission: object,
            *,
            policy: Policy,
            slugs: Sequence[str] | None,
            baseline: Record | None,
            progress: Callable[[str], None],
            probe: Callable[[Reading], ProbeReport] | None,
        ) -> Verdict:
            progress("reading")
            assert probe is None
            calls.append((*opened[-1], policy, slugs, baseline.bpb if baseline is not None else None))
            if isinstance(answer, BaseException):
                raise answer
            return answer

        sources, engine = ModuleType("auditor.sources"), ModuleType("auditor.engine")
        vars(sources)["open_submission"] = open_submission
        vars(engine)["audit"] = audit
        monkeypatch.setitem(sys.modules, "auditor.sources", sources)
        monkeypatch.setitem(sys.modules, "auditor.engine", engine)
        return calls

    return install


Engine = Callable[[Verdict | BaseException], Calls]
Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("overall", "code"),
    [(Overall.NO_VIOLATION_FOUND, 0), (Overall.VIOLATIONS_FOUND, 1), (Overall.NEEDS_REVIEW, 3)],
)
def test_the_exit_code_is_the_verdict(
    overall: Overall, code: int, verdict: Verdict, engine: Engine, capsys: Capture
) -> None:
    engine(verdict.model_copy(update={"verdict": overall}))
    assert cli.main(["audit", "somewhere"]) == code
    captured = capsys.readouterr()
    assert captured.out.startswith(f" {overall.value.replace('-', ' ').upper()} ")
    assert captured.err == ""  # no progress unless a terminal is watching


def test_every_verdict_has_an_exit_code() -> None:
    assert len({cli.exit_code(overall) for overall in Overall}) == len(Overall)


def test_options_reach_the_engine(
    verdict: Verdict, engine: Engine, catalogue: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = engine(verdict)
    cli.main(["audit", "a"])
    cli.main(["audit", "b", "--mirror", "m", "--policy", "strict", "--rule", "made-up", "--rule", "made-up"])
    monkeypatch.setenv("AUDITOR_MIRROR", "from-environment")
    cli.main(["audit", "c", "--baseline", "1.25"])
    assert calls == [
        ("a", None, Policy.OFFICIAL, None, None),
        ("b", Path("m"), Policy.STRICT, ("made-up",), None),
        ("c", Path("from-environment"), Policy.OFFICIAL, None, 1.25),
    ]


def test_a_baseline_that_is_none_is_one_line(verdict: Verdict, engine: Engine, capsys: Capture) -> None:
    calls = engine(verdict)
    assert cli.main(["audit", "a", "--baseline", "the best"]) == 2
    assert calls == []
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "--baseline" in error and error.count("\n") == 1


def test_names_on_the_command_line_are_those_of_the_models() -> None:
    assert [p.value for p in cli.PolicyName] == [p.value for p in Policy]
    assert {f.value for f in cli.Format} == set(REPORTS)


@pytest.mark.parametrize("name", sorted(REPORTS))
def test_formats(name: str, verdict: Verdict, engine: Engine, capsys: Capture) -> None:
    engine(verdict)
    assert cli.main(["audit", "a", "--format", name]) == 1
    assert capsys.readouterr().out == REPORTS[name]().render(verdict)


def test_output_goes_to_the_file_alone(verdict: Verdict, engine: Engine, tmp_path: Path, capsys: Capture) -> None:
    engine(verdict)
    target = tmp_path / "verdict.json"
    target.write_text("old")
    target.chmod(0o640)
    assert cli.main(["audit", "a", "--format", "json", "--output", str(target)]) == 1
    assert capsys.readouterr() == ("", "")
    assert target.read_text("utf-8") == REPORTS["json"]().render(verdict)
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["verdict.json"]


def test_output_follows_a_symbolic_link(verdict: Verdict, engine: Engine, tmp_path: Path) -> None:
    engine(verdict)
    (tmp_path / "real").mkdir()
    link = tmp_path / "link.json"
    link.symlink_to(tmp_path / "real" / "verdict.json")
    assert cli.main(["audit", "a", "--format", "json", "--output", str(link)]) == 1
    assert link.is_symlink()
    assert json.loads((tmp_path / "real" / "verdict.json").read_text("utf-8"))["policy"] == "official"


def test_a_failed_write_keeps_the_old_file(
    verdict: Verdict, engine: Engine, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine(verdict)
    target = tmp_path / "verdict.json"
    target.write_text("old")

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    assert cli.main(["audit", "a", "--output", str(target)]) == 2
    assert capsys.readouterr().err == f"error: cannot write {target}: No space left on device\n"
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["verdict.json"]


def test_an_unwritable_output_is_found_before_the_audit(
    verdict: Verdict, engine: Engine, tmp_path: Path, capsys: Capture
) -> None:
    calls = engine(verdict)
    for target in (tmp_path, tmp_path / "missing" / "v.json"):
        assert cli.main(["audit", "a", "--output", str(target)]) == 2
        assert_one_line(capsys.readouterr().err, f"error: cannot write {target}: ")
    assert calls == []


def assert_one_line(text: str, start: str) -> None:
    assert text.startswith(start)
    assert text.count("\n") == 1
    assert text.endswith("\n")


def test_source_errors_are_one_line(engine: Engine, capsys: Capture) -> None:
    engine(SourceError("no such pull request:\n\x1b[31m#1"))
    assert cli.main(["audit", "a"]) == 2
    assert capsys.readouterr() == ("", "error: no such pull request: \\x1b[31m#1\n")


def test_bugs_are_one_line(engine: Engine, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    engine(RecursionError("too\ndeep"))
    assert cli.main(["audit", "a"]) == 2
    assert_one_line(capsys.readouterr().err, "internal error: RecursionError: too deep; please report it")
    monkeypatch.setenv("AUDITOR_DEBUG", "1")
    with pytest.raises(RecursionError):
        cli.main(["audit", "a"])


def test_interruption_is_one_line(engine: Engine, capsys: Capture) -> None:
    engine(KeyboardInterrupt())
    assert cli.main(["audit", "a"]) == 130
    assert capsys.readouterr() == ("", "interrupted\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["audit"],
        ["audit", "a", "b"],
        ["audit", "a", "--no-such-option"],
        ["audit", "a", "--format", "pdf"],
        ["audit", "a", "--policy", "lenient"],
        ["no-such-command"],
        ["rules", "show"],
    ],
)
def test_usage_errors_are_one_line(arguments: list[str], capsys: Capture) -> None:
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert_one_line(captured.err, "error: ")


def test_an_unknown_rule_names_its_neighbours(
    verdict: Verdict, engine: Engine, catalogue: None, capsys: Capture
) -> None:
    calls = engine(verdict)
    assert cli.main(["audit", "a", "--rule", "Made_upp"]) == 2
    assert capsys.readouterr().err == "error: unknown rule Made_upp: did you mean made-up?\n"
    assert cli.main(["rules", "show", "xyz"]) == 2
    assert capsys.readouterr().err == "error: unknown rule xyz: `auditor rules` lists them\n"
    assert calls == []


def test_rules_are_listed(catalogue: None, capsys: Capture) -> None:
    assert cli.main(["rules"]) == 0
    header, group, row = capsys.readouterr().out.splitlines()
    assert header.split() == ["Rule", "Evidence", "Official", "Strict", "What", "it", "catches"]
    assert group == "leakage"
    assert " ".join(row.split()) == "made-up code violation advisory something that is not done"


@pytest.mark.parametrize("arguments", [["rules", "show", "made-up"], ["rules", "made-up"]])
def test_a_rule_is_shown(arguments: list[str], catalogue: None, capsys: Capture) -> None:
    assert cli.main(arguments) == 0
    out = capsys.readouterr().out
    for expected in (
        "made-up  (leakage)",
        "something that is not done",
        "Decided from code.",
        "An active finding is violation under official, advisory under strict.",
        "Documented in Markdown.",
        "It was ruled once.",
        "Violation: does it (active)",
        "bad = True",
        "Legal: does not (clean)",
    ):
        assert expected in out
    assert "\x1b" not in out


def test_every_real_rule_can_be_shown(capsys: Capture) -> None:
    for rule in rules.discover():
        assert cli.main(["rules", "show", rule.slug]) == 0
        out = capsys.readouterr().out
        assert rule.slug in out
        assert "\x1b" not in out


def test_schema_and_version(capsys: Capture) -> None:
    assert cli.main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "Verdict"
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"auditor {__version__}\n"


def test_help(capsys: Capture) -> None:
    assert cli.main(["audit", "--help"]) == 0
    help_text = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).split())
    assert "0 no violation found, 1 violations found, 2 usage or source error, 3 needs review" in help_text
    assert cli.main([]) == 2
    captured = capsys.readouterr()
    assert "auditor [OPTIONS] COMMAND" in re.sub(r"\x1b\[[0-9;]*m", "", captured.out + captured.err)


def test_help_does_not_wait_for_the_engine() -> None:
    script = (
        "import sys; from auditor.cli import main; main(['--help'])\n"
        "heavy = {'pydantic', 'libcst', 'pygit2', 'githubkit'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def test_a_closed_pipe_is_no_error() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "auditor.cli", "schema"],
            cwd=ROOT,
            stdout=write_end,
            stderr=subprocess.PIPE,
            check=False,
        )
    finally:
        os.close(write_end)
    assert done.returncode == 0
    assert done.stderr == b""


def test_output_survives_a_narrow_encoding(verdict: Verdict, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine(verdict)
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    assert cli.main(["audit", "a"]) == 1
    text = raw.getvalue().decode("ascii")
    assert "train -> quantise -> load" in text
    assert "\\u" not in text


def test_a_closed_standard_output_is_one_line(
    verdict: Verdict, engine: Engine, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine(verdict)
    monkeypatch.setattr(sys, "stdout", None)
    assert cli.main(["audit", "a"]) == 2
    assert capsys.readouterr().err == "error: cannot write the report: standard output is closed\n"
