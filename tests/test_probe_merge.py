"""What probes show goes into the verdict, and what they don't show stays out of it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

import rules
from auditor.evidence import Attempt, Evidence, Status
from auditor.probe.merge import merge, program_of
from auditor.probe.result import Number, ProbeReport, ProbeResult, ProbeStatus, Shown, Stop
from auditor.verdict import Confidence, Effect, Outcome, Policy

CATALOGUE = rules.discover()
MOVED = "The logits at position 3 moved by 0.21 nats when the token at 7 changed."
PLACE = Evidence(file="train_gpt.py", line=3, column=5, snippet="x = y", role="what moved")


def outcome(rule: str, status: Status, reason: str = "Read so.") -> Outcome:
    effect = next(r for r in CATALOGUE if r.slug == rule).official if status is Status.ACTIVE else Effect.NONE
    return Outcome(rule=rule, status=status, effect=effect, confidence=Confidence.LOW, reason=reason)


def result(*shown: Shown, status: ProbeStatus = ProbeStatus.VIOLATED, name: str = "causality") -> ProbeResult:
    return ProbeResult(
        name=name,
        status=status,
        reason=MOVED,
        numbers=(Number(name="largest change", value=0.21, expected=0, unit="nats"),),
        shown=shown,
        evidence=(PLACE,),
        seconds=3.5,
        switched_on=("GATE",) if status is ProbeStatus.LATENT else (),
    )


def shown(rule: str, status: Status = Status.ACTIVE, *, suspected_only: bool = False) -> Shown:
    return Shown.model_validate({"rule": rule, "status": status, "reason": MOVED, "suspected_only": suspected_only})


def merged(
    outcomes: Sequence[Outcome], *results: ProbeResult, policy: Policy = Policy.OFFICIAL
) -> tuple[dict[str, Outcome], ProbeReport]:
    report = ProbeReport(source="folder", results=results)
    after, report = merge(outcomes, report, CATALOGUE, policy)
    assert [o.rule for o in after] == [o.rule for o in outcomes]
    return {o.rule: o for o in after}, report


@pytest.mark.parametrize("before", [Status.SUSPECT, Status.CLEAN, Status.UNKNOWN, Status.NOT_APPLICABLE, Status.LATENT])
def test_a_proof_makes_a_rule_active(before: Status) -> None:
    after, _ = merged([outcome("noncausal-model", before)], result(shown("noncausal-model")))
    now = after["noncausal-model"]
    assert (now.status, now.effect, now.confidence) == (Status.ACTIVE, Effect.VIOLATION, Confidence.HIGH)
    assert now.reason.startswith(f"Shown by probe causality: {MOVED}")
    assert now.evidence == (PLACE,) and now.shown_by == ("causality",)


def test_a_proof_is_added_to_what_reading_found() -> None:
    after, _ = merged([outcome("noncausal-model", Status.ACTIVE)], result(shown("noncausal-model")))
    assert after["noncausal-model"].reason == f"Read so. Shown by probe causality: {MOVED}"
    assert after["noncausal-model"].effect is Effect.VIOLATION


def test_the_policy_decides_what_a_proof_amounts_to() -> None:
    before = [outcome("slot-scored-region", Status.SUSPECT)]
    probed = result(shown("slot-scored-region"))
    assert merged(before, probed)[0]["slot-scored-region"].effect is Effect.ADVISORY
    assert merged(before, probed, policy=Policy.STRICT)[0]["slot-scored-region"].effect is Effect.VIOLATION


def test_what_could_be_several_counts_for_those_suspected() -> None:
    probed = result(*(shown(r, suspected_only=True) for r in ("ngram-unnormalized", "target-gate", "oracle-min")))
    slugs = ("ngram-unnormalized", "oracle-min", "target-gate")
    after, _ = merged([outcome(s, Status.SUSPECT if s == "target-gate" else Status.CLEAN) for s in slugs], probed)
    assert [s for s in slugs if after[s].status is Status.ACTIVE] == ["target-gate"]
    after, _ = merged([outcome(s, Status.LATENT if s == "oracle-min" else Status.CLEAN) for s in slugs], probed)
    assert [s for s in slugs if after[s].status is Status.ACTIVE] == ["oracle-min"]
    after, _ = merged([outcome(s, Status.CLEAN) for s in slugs], probed)
    assert [s for s in slugs if after[s].status is Status.ACTIVE] == ["ngram-unnormalized"]


def test_a_clean_probe_settles_a_suspicion_and_nothing_else() -> None:
    probed = result(shown("noncausal-model", Status.CLEAN), status=ProbeStatus.CLEAN)
    after, report = merged([outcome("noncausal-model", Status.SUSPECT)], probed)
    assert after["noncausal-model"].status is Status.CLEAN and "Cleared by probe" in after["noncausal-model"].reason
    assert report.notes == ()
    for before in (Status.UNKNOWN, Status.LATENT, Status.NOT_APPLICABLE):
        assert merged([outcome("noncausal-model", before)], probed)[0]["noncausal-model"].status is before
    after, report = merged([outcome("noncausal-model", Status.ACTIVE)], probed)
    assert after["noncausal-model"].status is Status.ACTIVE
    assert len(report.notes) == 1 and "A person should look" in report.notes[0]


def test_a_violation_outweighs_another_probe_that_is_clean() -> None:
    clean = result(shown("noncausal-model", Status.CLEAN), status=ProbeStatus.CLEAN, name="aaa")
    for order in ((clean, result(shown("noncausal-model"))), (result(shown("noncausal-model")), clean)):
        after, report = merged([outcome("noncausal-model", Status.SUSPECT)], *order)
        assert after["noncausal-model"].status is Status.ACTIVE and report.notes == ()


def test_latent_is_what_was_switched_on() -> None:
    probed = result(shown("smeargate-bos-leak", Status.LATENT), status=ProbeStatus.LATENT)
    after, _ = merged([outcome("smeargate-bos-leak", Status.SUSPECT)], probed)
    now = after["smeargate-bos-leak"]
    assert (now.status, now.effect, now.settings) == (Status.LATENT, Effect.NONE, ("GATE",))
    after, _ = merged([outcome("smeargate-bos-leak", Status.ACTIVE)], probed)
    assert after["smeargate-bos-leak"].status is Status.ACTIVE


def test_a_probe_that_could_not_run_changes_nothing() -> None:
    before = [outcome("noncausal-model", Status.SUSPECT)]
    stopped = ProbeResult.could_not_run("causality", Stop(kind="shape", message="Heads don't divide the width."))
    after, report = merged(before, stopped)
    assert list(after.values()) == before and report.results == (stopped,)


def test_rules_that_were_not_asked_for_are_left_out_and_seconds_are_forgotten() -> None:
    after, report = merged([outcome("prequant-ttt", Status.CLEAN)], result(shown("noncausal-model")))
    assert after["prequant-ttt"].status is Status.CLEAN
    assert report.results[0].seconds is None


# What the sandboxed run tried


def tried(*attempts: Attempt) -> ProbeResult:
    return ProbeResult(name="runs-at-all", status=ProbeStatus.CLEAN, reason="It ran.", attempts=attempts)


def program(what: str, seen_by: str = "shim") -> Attempt:
    return Attempt.model_validate({"kind": "program", "what": what, "seen_by": seen_by})


def test_programs_are_named_as_they_were_called() -> None:
    assert program_of(program("lrzip -d x.lrz")) == "lrzip"
    assert program_of(program("['/usr/bin/lrzip', '-d']", "audit-hook")) == "lrzip"
    assert program_of(program("['/bin/sh', '-c', 'curl http://a.example']", "audit-hook")) == "curl"
    assert program_of(Attempt(kind="network", what="a.example", seen_by="audit-hook")) is None


def test_a_call_that_reading_missed_is_a_suspicion() -> None:
    after, _ = merged([outcome("external-binary", Status.CLEAN)], tried(program("lrzip -d x")))
    now = after["external-binary"]
    assert now.status is Status.SUSPECT and "lrzip (seen by a shim on PATH)" in now.reason


def test_what_libraries_call_is_no_suspicion() -> None:
    attempts = (program("gcc -v"), program("git rev-parse HEAD"), program("['nvidia-smi']", "audit-hook"))
    before = [outcome("external-binary", Status.CLEAN)]
    assert list(merged(before, tried(*attempts))[0].values()) == before


def test_a_suspected_call_that_happens_is_active_and_a_declared_one_accepted() -> None:
    before = [outcome("external-binary", Status.SUSPECT, "lrzip may be run: the files do not settle it.")]
    report = ProbeReport(source="folder", results=(tried(program("lrzip -d x")),))
    for declared, effect in ((None, Effect.VIOLATION), ("apt install lrzip", Effect.ACCEPTED)):
        after, _ = merge(before, report, CATALOGUE, Policy.OFFICIAL, lambda name, found=declared: found)
        assert (after[0].status, after[0].effect) == (Status.ACTIVE, effect)


def test_a_latent_call_stays_latent() -> None:
    after, _ = merged([outcome("external-binary", Status.LATENT)], tried(program("lrzip -d x")))
    assert after["external-binary"].status is Status.LATENT and "lrzip" in after["external-binary"].reason


def test_the_network_is_a_suspicion_but_this_machine_is_not() -> None:
    outside = Attempt(kind="network", what="models.example", seen_by="audit-hook")
    inside = [Attempt(kind="network", what=w, seen_by="audit-hook") for w in ("localhost", "('127.0.0.1', 29500)")]
    before = [outcome("network-access", Status.CLEAN)]
    assert list(merged(before, tried(*inside))[0].values()) == before
    now = merged(before, tried(*inside, outside))[0]["network-access"]
    assert now.status is Status.SUSPECT and "models.example" in now.reason and "audit hook" in now.reason
