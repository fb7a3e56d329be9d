"""Running probes: which, how long, what is reported when one can't run; the command line; and audit without torch."""

from __future__ import annotations

import html
import json
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import pytest

from auditor import cli, sandbox
from auditor.engine import audit, claimed
from auditor.errors import UsageError
from auditor.evidence import Attempt, Status
from auditor.probe import run as runner
from auditor.probe.base import Probe, discover
from auditor.probe.result import Number, Override, Position, ProbeReport, ProbeResult, ProbeStatus, Shown, Substitution
from auditor.probe.run import Bench, ProbeError, run_probes
from auditor.sandbox import SandboxError
from auditor.sources import open_submission
from auditor.verdict import Overall, Verdict
from reports.base import launches
from reports.json import JsonReport
from reports.markdown import MAX_CHARACTERS, MarkdownReport
from reports.terminal import TerminalReport
from tests.test_reports import HOSTILE, invisible

try:
    sandbox.require()
    MISSING = "" if find_spec("torch") else "torch is missing"
except SandboxError as why:
    MISSING = str(why)
needs_sandbox = pytest.mark.skipif(bool(MISSING), reason=MISSING)
ROOT = Path(__file__).parent.parent
LEGAL = ROOT / "tests" / "fixtures" / "submissions" / "prequant-ttt-latent"


class Clean(Probe):
    """Finds nothing."""

    name: ClassVar[str] = "clean-one"
    title = "finds nothing"
    level = "model"
    rules = ("noncausal-model",)

    def run(self, bench: Bench) -> ProbeResult:
        assert bench.left() > 0 and bench.folder.is_dir()
        bench.progress("looking")
        bench.world = "vocabulary 320, 6 documents"
        return ProbeResult(name=self.name, status=ProbeStatus.CLEAN, reason="Nothing moved.")


class Violated(Clean):
    """Finds something."""

    name = "violated-one"

    def run(self, bench: Bench) -> ProbeResult:
        return ProbeResult(
            name=self.name,
            status=ProbeStatus.VIOLATED,
            reason="It moved.",
            subject="GPT (train_gpt.py:3)",
            changed="the last token",
            must_stay="the logits before it",
            numbers=(Number(name="largest change", value=0.25, expected=0, unit="nats"),),
            positions=(Position(moved=3, changed=7, before=1.0, after=1.25, note="document 2"),),
            tolerance=1e-5,
            noise=0.0,
            trials=12,
            shown=(Shown(rule="noncausal-model", status=Status.ACTIVE, reason="It moved by 0.25 nats."),),
            substitutions=(Substitution(what="device cuda → cpu", file="train_gpt.py", line=9),),
            overrides=(Override(name="NUM_LAYERS", run="11", probe="2"),),
            attempts=(Attempt(kind="network", what="a.example", seen_by="audit-hook"),),
        )


class Failing(Clean):
    """Has a bug."""

    name = "failing-one"

    def run(self, bench: Bench) -> ProbeResult:
        raise ZeroDivisionError("our own bug")


class Slow(Clean):
    """Takes all the time there is."""

    name = "a-slow-one"

    def run(self, bench: Bench) -> ProbeResult:
        time.sleep(bench.left() + 0.01)
        return super().run(bench) if bench.left() else ProbeResult(name=self.name, status="clean", reason="Done.")


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts these probes in place of the real ones, on a machine that has all they need."""

    def install(*chosen: Probe) -> None:
        monkeypatch.setattr(runner, "discover", lambda: chosen)
        monkeypatch.setattr(runner, "require", lambda *, sandboxed=True: None)

    return install


def reading() -> Any:
    return claimed(open_submission(str(LEGAL)))


def test_results_come_in_order_and_are_told(probes: Callable[..., None]) -> None:
    probes(Clean(), Violated())
    said: list[str] = []
    report = run_probes(reading(), progress=said.append)
    assert [r.name for r in report.results] == ["clean-one", "violated-one"]
    assert said == ["probe 1/2 clean-one", "probe 1/2 clean-one: looking", "probe 2/2 violated-one"]
    assert report.script == "train_gpt.py" and report.sandboxed
    assert all(r.seconds is not None for r in report.results)


def test_only_the_probes_named_are_run(probes: Callable[..., None]) -> None:
    probes(Clean(), Violated())
    assert [r.name for r in run_probes(reading(), ["violated-one"]).results] == ["violated-one"]
    with pytest.raises(UsageError, match="did you mean clean-one"):
        run_probes(reading(), ["clean_won"])


def test_a_bug_of_ours_is_no_verdict(probes: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUDITOR_DEBUG", raising=False)
    probes(Failing(), Clean())
    failed, clean = run_probes(reading()).results
    assert failed.status is ProbeStatus.COULD_NOT_RUN and "The auditor itself failed" in failed.reason
    assert clean.status is ProbeStatus.CLEAN


def test_what_has_no_time_left_says_so(probes: Callable[..., None]) -> None:
    probes(Slow(), Clean())
    slow, late = run_probes(reading(), timeout=0.2).results
    assert slow.status is ProbeStatus.CLEAN
    assert late.stop is not None and late.stop.kind == "time"


def test_a_folder_without_a_script_can_not_be_run(probes: Callable[..., None], tmp_path: Path) -> None:
    probes(Clean())
    (tmp_path / "train_gpt.py").write_text("def broken(:\n")
    nothing = claimed(open_submission(str(tmp_path)))
    assert nothing is not None
    (result,) = run_probes(nothing).results
    assert result.stop is not None and result.stop.kind == "no-code"


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "find_spec", lambda name: None if name == "torch" else object())
    with pytest.raises(ProbeError, match=r"probes need torch: pip install .*\[probe\]"):
        runner.require()


# Into the verdict


def test_audit_counts_what_probes_show(probes: Callable[..., None]) -> None:
    probes(Violated(), Failing())
    verdict = audit(open_submission(str(LEGAL)), probe=lambda r: run_probes(r))
    (outcome,) = (o for o in verdict.outcomes if o.rule == "noncausal-model")
    assert verdict.verdict is Overall.VIOLATIONS_FOUND
    assert outcome.reason == "Shown by probe violated-one: It moved by 0.25 nats." and outcome.shown_by
    assert any("failing-one could not run" in line for line in verdict.not_checked)
    assert verdict.probes is not None and verdict.probes.results[0].seconds is None
    assert "Nothing was executed" not in " ".join(verdict.not_checked)
    network = next(o for o in verdict.outcomes if o.rule == "network-access")
    assert network.status is Status.SUSPECT
    assert Verdict.model_validate_json(JsonReport().render(verdict)) == verdict
    for text in (TerminalReport().render(verdict), MarkdownReport().render(verdict)):
        assert "What running it showed" in text and "It moved." in text and "0.25 nats" in text
        assert "The code was read, not run." not in text


def test_without_probes_nothing_is_said_about_them() -> None:
    verdict = audit(open_submission(str(LEGAL)))
    assert verdict.probes is None and all(o.shown_by == () for o in verdict.outcomes)
    assert "What running it showed" not in TerminalReport().render(verdict)


# Reports


@pytest.fixture
def report(probes: Callable[..., None]) -> ProbeReport:
    probes(Violated(), Failing(), Clean())
    return run_probes(reading())


def test_reports_say_everything_that_matters(report: ProbeReport) -> None:
    for text in (TerminalReport().render_probes(report), MarkdownReport().render_probes(report)):
        assert text.endswith("\n") and not text.endswith("\n\n")
        flat = html.unescape(" ".join(text.split())).replace("\u200b", "")
        for told in (
            *(
                "violated-one",
                "failing-one",
                "clean-one",
                "vocabulary 320",
                "largest change: 0.25 nats, must be 0 nats",
            ),
            *("token 7 changed, position 3 moved: 1 → 1.25", "12 runs; up to 1e-05 is rounding", "NUM", "a.example"),
            *("device cuda → cpu (train", "the last token", "the logits before it", "1 could not run", "audit hook"),
        ):
            assert told in flat, told
    assert ProbeReport.model_validate_json(JsonReport().render_probes(report)) == report


def test_no_sandbox_stands_in_the_report(report: ProbeReport) -> None:
    open_air = report.model_copy(update={"sandboxed": False})
    for render in (TerminalReport().render_probes, MarkdownReport().render_probes):
        assert "no-sandbox" in render(open_air) and "no-sandbox" not in render(report)


def test_probe_reports_show_hostile_text_as_text(report: ProbeReport) -> None:
    def spoiled(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: v if k in ("status", "rule", "kind", "seen_by") else spoiled(v) for k, v in value.items()}
        if isinstance(value, list):
            return [spoiled(v) for v in value]
        return value + HOSTILE if isinstance(value, str) else value

    hostile = ProbeReport.model_validate(spoiled(report.model_dump(mode="json")))
    terminal, markdown = TerminalReport().render_probes(hostile), MarkdownReport().render_probes(hostile)
    assert invisible(terminal) == invisible(markdown) == invisible(JsonReport().render_probes(hostile)) == set()
    assert all(len(line) <= 100 for line in terminal.splitlines())
    assert "<img" not in markdown and "@everyone" not in markdown and "](http" not in markdown


def test_a_long_report_fits_into_a_comment(report: ProbeReport) -> None:
    many = tuple(Override(name=f"SETTING_{i}" * 20, run="1" * 200, probe="2") for i in range(500))
    long = report.model_copy(update={"results": (report.results[0].model_copy(update={"overrides": many}),)})
    assert len(MarkdownReport().render_probes(long)) <= MAX_CHARACTERS


def test_launches_that_differ_in_the_seed_are_one() -> None:
    commands = [f"SEED={s} RUN_ID=run_{s} torchrun train_gpt.py" for s in (1337, 42)]
    other = "SEED=7 RUN_ID=run_7 WIDTH=512 torchrun train_gpt.py"
    assert launches([*commands, other]) == [f"{commands[0]}  (seeds 1337, 42)", other]
    assert launches(["python a.py --seed 1", "python a.py --seed 2"]) == ["python a.py --seed 1  (seeds 1, 2)"]
    assert launches(["torchrun train_gpt.py", "torchrun other.py"]) == ["torchrun train_gpt.py", "torchrun other.py"]


# The command line


Capture = pytest.CaptureFixture[str]


def test_the_exit_code_is_what_was_found(
    probes: Callable[..., None], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AUDITOR_DEBUG", raising=False)
    for chosen, code in (((Clean(),), 0), ((Clean(), Violated(), Failing()), 1), ((Clean(), Failing()), 3)):
        probes(*chosen)
        assert cli.main(["probe", str(LEGAL)]) == code
        captured = capsys.readouterr()
        assert captured.err == "" and all(p.name in captured.out for p in chosen)


def test_formats_and_output(probes: Callable[..., None], capsys: Capture, tmp_path: Path) -> None:
    probes(Clean(), Violated())
    target = tmp_path / "report.json"
    arguments = ["probe", str(LEGAL), "--probe", "clean-one", "--format", "json", "--output", str(target)]
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out == ""
    assert [r["name"] for r in json.loads(target.read_text())["results"]] == ["clean-one"]
    assert cli.main(["probe", str(LEGAL), "--format", "markdown"]) == 1
    assert capsys.readouterr().out.startswith("## ")


def test_audit_with_probes(probes: Callable[..., None], capsys: Capture) -> None:
    probes(Violated())
    assert cli.main(["audit", str(LEGAL), "--probe"]) == 1
    assert "Shown by probe violated-one" in capsys.readouterr().out
    assert cli.main(["audit", str(LEGAL), "--probe", "--no-sandbox", "--format", "json"]) == 1
    assert json.loads(capsys.readouterr().out)["probes"]["sandboxed"] is False


@pytest.mark.parametrize(
    "arguments", [["probe", str(LEGAL), "--probe", "no-such-probe"], ["audit", str(LEGAL), "--no-sandbox"]]
)
def test_usage_errors_are_one_line(probes: Callable[..., None], arguments: list[str], capsys: Capture) -> None:
    probes(Clean())
    assert cli.main(arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_no_sandbox_here_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    def refuse() -> None:
        raise SandboxError("bubblewrap is missing (Debian, Ubuntu: apt install bubblewrap)")

    monkeypatch.setattr(sandbox, "require", refuse)
    monkeypatch.setattr(runner, "find_spec", lambda name: object())
    for command in (["probe", str(LEGAL)], ["audit", str(LEGAL), "--probe"]):
        assert cli.main(command) == 2
        assert capsys.readouterr().err == "error: bubblewrap is missing (Debian, Ubuntu: apt install bubblewrap)\n"


# Without torch

BLOCKED = """
import sys
for name in ("torch", "triton", "sentencepiece", "psutil"):
    sys.modules[name] = None
from auditor import cli
"""


def blocked(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BLOCKED + code]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def test_audit_needs_nothing_that_only_probes_need() -> None:
    done = blocked(f"sys.exit(cli.main(['audit', {str(LEGAL)!r}, '--format', 'summary']))")
    assert done.returncode in (0, 1, 3), done.stderr
    assert "prequant-ttt-latent" in done.stdout and done.stderr == ""


def test_probe_says_what_it_needs() -> None:
    done = blocked(f"sys.exit(cli.main(['probe', {str(LEGAL)!r}]))")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: probes need ") and done.stderr.count("\n") == 1


def test_every_probe_is_explained() -> None:
    text = (ROOT / "docs" / "probe.md").read_text(encoding="utf-8")
    assert [p.name for p in discover() if f"| `{p.name}` |" not in text] == []


# From end to end


@needs_sandbox
def test_a_leak_is_shown_and_counted(tmp_path: Path, capsys: Capture) -> None:
    code = (ROOT / "tests" / "fixtures" / "probe" / "packed" / "train_gpt.py").read_text(encoding="utf-8")
    mask = "            g = g * (input_ids[:, 1:] != BOS_ID).unsqueeze(-1)\n"
    assert code.count(mask) == 1
    (tmp_path / "train_gpt.py").write_text(code.replace(mask, ""), encoding="utf-8")
    arguments = ["probe", str(tmp_path), "--probe", "document-isolation", "--format", "json"]
    assert cli.main(arguments) == 1
    captured = capsys.readouterr()
    assert captured.err == ""
    report = ProbeReport.model_validate_json(captured.out)
    (result,) = report.results
    assert report.sandboxed and result.positions and result.substitutions and result.overrides
    verdict = audit(open_submission(str(tmp_path)), probe=lambda reading: report)
    (outcome,) = (o for o in verdict.outcomes if o.rule == "smeargate-bos-leak")
    assert (outcome.status, outcome.shown_by) == (Status.ACTIVE, ("document-isolation",))
    assert verdict.verdict is Overall.VIOLATIONS_FOUND
