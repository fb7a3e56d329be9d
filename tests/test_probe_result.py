"""What a probe's result may say, and what it may not."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from auditor.evidence import Status
from auditor.probe.base import Probe, discover
from auditor.probe.result import Number, ProbeReport, ProbeResult, ProbeStatus, Shown, Stop, Substitution
from rules import discover as discover_rules

STOP = Stop(kind="missing-module", message="There is no stand-in for made_up.", exception="ModuleNotFoundError", line=3)
ACTIVE = Shown(rule="noncausal-model", status=Status.ACTIVE, reason="It moved by 0.1.")
CLEAN = Shown(rule="noncausal-model", status=Status.CLEAN, reason="Nothing moved.")


def test_a_result_survives_json() -> None:
    result = ProbeResult(name="causality", status=ProbeStatus.VIOLATED, reason="It moved.", shown=(ACTIVE,))
    report = ProbeReport(source="folder", results=(result,))
    assert ProbeReport.model_validate_json(report.model_dump_json()) == report


def test_what_stopped_a_probe_is_always_said() -> None:
    result = ProbeResult.could_not_run("causality", STOP, seconds=1.5)
    assert result.status is ProbeStatus.COULD_NOT_RUN and result.reason == STOP.message and result.seconds == 1.5
    with pytest.raises(ValidationError):
        ProbeResult(name="causality", status=ProbeStatus.COULD_NOT_RUN, reason="Somehow.")
    with pytest.raises(ValidationError):
        ProbeResult(name="causality", status=ProbeStatus.CLEAN, reason="Clean.", stop=STOP)


def test_a_probe_that_did_not_run_shows_nothing() -> None:
    with pytest.raises(ValidationError):
        ProbeResult.could_not_run("causality", STOP, shown=(CLEAN,))
    with pytest.raises(ValidationError):
        ProbeResult(name="causality", status=ProbeStatus.NOT_APPLICABLE, reason="No model.", shown=(CLEAN,))


def test_what_is_shown_follows_from_the_status() -> None:
    with pytest.raises(ValidationError):
        ProbeResult(name="causality", status=ProbeStatus.CLEAN, reason="Clean.", shown=(ACTIVE,))
    # A violation of one kind may rule out another.
    ProbeResult(name="causality", status=ProbeStatus.VIOLATED, reason="It moved.", shown=(ACTIVE, CLEAN))


def test_latent_names_what_was_switched_on() -> None:
    latent = Shown(rule="smeargate-bos-leak", status=Status.LATENT, reason="It moved with the gate on.")
    fields = {"name": "document-isolation", "status": "latent", "reason": "It moved.", "shown": (latent,)}
    with pytest.raises(ValidationError):
        ProbeResult.model_validate(fields)
    assert ProbeResult.model_validate({**fields, "switched_on": ("GATE",)}).switched_on == ("GATE",)


def test_numbers_keep_six_digits() -> None:
    assert Number(name="sum", value=1 / 3).value == 0.333333


def test_a_report_names_each_substitution_once() -> None:
    same = Substitution(what="device cuda → cpu", file="train_gpt.py", line=3)
    results = tuple(
        ProbeResult(name=name, status=ProbeStatus.CLEAN, reason="Clean.", substitutions=(same,)) for name in "ab"
    )
    assert ProbeReport(source="folder", results=results).substitutions == (same,)


@pytest.mark.parametrize("probe", discover(), ids=lambda p: p.name)
def test_each_probe_speaks_for_rules_that_exist(probe: Probe) -> None:
    known = {rule.slug for rule in discover_rules()}
    assert set(probe.rules) <= known
    assert probe.documentation() and probe.title
