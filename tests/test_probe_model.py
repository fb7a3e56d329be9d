"""Model probes: what the networks of small scripts of our own do when tokens change, and what the figures mean."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path

import pytest

from auditor.evidence import Status
from auditor.probe.forward import Built, Measurement, Pass, boundaries, isolates, look_ahead
from auditor.probe.probes.causality import Causality
from auditor.probe.probes.causality import judge as judge_causality
from auditor.probe.probes.document_isolation import DocumentIsolation
from auditor.probe.probes.document_isolation import judge as judge_isolation
from auditor.probe.probes.runs_at_all import RunsAtAll
from auditor.probe.result import ProbeResult, ProbeStatus
from auditor.probe.run import Bench
from auditor.reading import Reading
from auditor.sandbox import SandboxError, require
from auditor.sources.local import LocalSource

try:
    require()
    MISSING = "" if importlib.util.find_spec("torch") else "torch is missing"
except SandboxError as why:
    MISSING = str(why)
needs_sandbox = pytest.mark.skipif(bool(MISSING), reason=MISSING)

PACKED = (Path(__file__).parent / "fixtures" / "probe" / "packed" / "train_gpt.py").read_text(encoding="utf-8")
MASK = "            g = g * (input_ids[:, 1:] != BOS_ID).unsqueeze(-1)\n"


def bench(folder: Path, *changes: tuple[str, str], logs: str = "", launch: str = "") -> Bench:
    code = PACKED
    for old, new in changes:
        assert code.count(old) == 1, old
        code = code.replace(old, new)
    source = folder / "source"
    source.mkdir()
    (source / "train_gpt.py").write_text(code, encoding="utf-8")
    (source / "train.log").write_text(logs, encoding="utf-8")
    if launch:
        (source / "README.md").write_text(f"# Run\n\n```bash\n{launch} train_gpt.py\n```\n", encoding="utf-8")
    submission = LocalSource(source, "here").load()
    reading = Reading(submission, submission.folders[0])
    (folder / "bench").mkdir()
    return Bench(reading, folder / "bench", time.monotonic() + 240, lambda message: None, True, {})


def shown(result: ProbeResult) -> list[tuple[str, Status]]:
    return [(s.rule, s.status) for s in result.shown]


# -- in the sandbox --------------------------------------------------------------------------------------------


@needs_sandbox
def test_a_legal_submission_is_clean(tmp_path: Path) -> None:
    made = bench(tmp_path, logs="model_params:1313293\nfinal val_loss:2.0000 val_bpb:2.8854\n")
    causality = Causality().run(made)
    assert causality.status is ProbeStatus.CLEAN, causality
    assert causality.numbers[0].value == 0
    assert shown(causality) == [("noncausal-model", Status.CLEAN)]
    isolation = DocumentIsolation().run(made)
    assert isolation.status is ProbeStatus.CLEAN, isolation
    assert "GPT.forward_logits(input_ids, cu_seqlens, max_seqlen)" in isolation.reason
    runs = RunsAtAll().run(made)
    assert runs.status is ProbeStatus.CLEAN, runs
    assert "GPT.forward_ttt" in runs.reason
    assert "Under the run's settings it has 1,313,293 parameters, as the log states." in runs.reason
    assert runs.evidence[0].snippet == "model_params:1313293"
    assert any(s.what == "stand-in for FlashAttention" for s in runs.substitutions)
    assert any(o.name == "MODEL_DIM" for o in runs.overrides)


@needs_sandbox
def test_a_smear_without_mask_moves_the_next_documents_start(tmp_path: Path) -> None:
    result = DocumentIsolation().run(bench(tmp_path, (MASK, "")))
    assert result.status is ProbeStatus.VIOLATED, result
    assert shown(result) == [("smeargate-bos-leak", Status.ACTIVE)]
    first = result.positions[0]
    # The last token of a document moves the first of the next; both are rows of known documents.
    assert first.moved in (11, 20) and first.changed == first.moved - 1 and "start of document" in first.note
    assert first.before is not None and first.after is not None and result.tolerance is not None
    assert abs(first.after - first.before) > 1000 * result.tolerance
    assert result.evidence[0].snippet.startswith("x = torch.cat([x[:, :1]")


@needs_sandbox
def test_a_smear_that_the_run_switches_off_is_latent(tmp_path: Path) -> None:
    made = bench(tmp_path, (MASK, ""), launch="SMEAR_ENABLED=0 torchrun --nproc_per_node=8")
    result = DocumentIsolation().run(made)
    assert result.status is ProbeStatus.LATENT, result
    assert result.switched_on == ("SMEAR_ENABLED",)
    assert Causality().run(made).status is ProbeStatus.CLEAN


@needs_sandbox
def test_attention_without_mask_is_not_causal(tmp_path: Path) -> None:
    made = bench(tmp_path, ("                causal=True,\n", ""))
    result = Causality().run(made)
    assert result.status is ProbeStatus.VIOLATED, result
    assert shown(result) == [("noncausal-model", Status.ACTIVE)]
    assert all(p.changed is not None and p.moved < p.changed for p in result.positions)


@needs_sandbox
def test_a_network_that_predicts_hidden_tokens_is_not_accused(tmp_path: Path) -> None:
    made = bench(
        tmp_path,
        ("                causal=True,\n", ""),
        ("            x, y = piece[:-1], piece[1:]\n", "            x, y = piece.clone()[1:], piece[1:]\n"
         "            x[torch.rand(x.shape) < 0.5] = 0\n"),
    )  # fmt: skip
    result = Causality().run(made)
    assert result.status is ProbeStatus.NOT_APPLICABLE, result
    assert not result.shown


@needs_sandbox
def test_looking_ahead_where_only_training_does_is_no_violation(tmp_path: Path) -> None:
    line = "        logits = self.forward_logits(input_ids, cu_seqlens, max_seqlen)\n"
    made = bench(tmp_path, (line, f"{line}        logits = logits + logits.mean(1, keepdim=True)\n"))
    result = Causality().run(made)
    assert result.status is ProbeStatus.CLEAN, result
    assert "GPT.forward looks ahead, but the reported evaluation does not apply it" in result.reason


@needs_sandbox
def test_rows_that_run_across_documents_leak_nothing(tmp_path: Path) -> None:
    made = bench(
        tmp_path,
        (MASK, ""),
        ("forward_logits(x[None], cu_seqlens=cu_seqlens, max_seqlen=longest)", "forward_logits(x[None])"),
        ("piece[None, 1:], cu_seqlens=cu_seqlens, max_seqlen=longest", "piece[None, 1:]"),
    )
    result = DocumentIsolation().run(made)
    assert result.status is ProbeStatus.NOT_APPLICABLE, result
    assert "No pass keeps documents apart" in result.reason


@needs_sandbox
def test_what_stops_it_is_told(tmp_path: Path) -> None:
    made = bench(tmp_path, ("        self.looped = False\n", "        self.looped = no_such_name\n"))
    result = RunsAtAll().run(made)
    assert result.status is ProbeStatus.COULD_NOT_RUN
    assert result.stop is not None and "no network could be built" in result.stop.message
    assert "no_such_name" in result.stop.message
    assert Causality().run(made).status is ProbeStatus.COULD_NOT_RUN


# -- what the figures mean -------------------------------------------------------------------------------------

STARTS = (0, 10, 20)
LENGTH = 30


def passed(reach: dict[tuple[int, int], float], **more: object) -> Pass:
    """A pass with these influences; by default each token moves what follows it in its document."""
    influence = [[0.0] * LENGTH for _ in range(LENGTH)]
    for p in range(LENGTH):
        if p not in STARTS:
            for q in range(p, min((s for s in STARTS if s > p), default=LENGTH)):
                influence[p][q] = 1.0
    for (p, q), value in reach.items():
        influence[p][q] = value
    fields: dict[str, object] = {
        **{"path": "Net.forward", "arguments": "ids, cu_seqlens", "documents": True, "what": "logits"},
        **{"dtype": "float32", "length": LENGTH, "starts": STARTS, "scale": 10.0, "noise": 0.0, "trials": 60},
        **{"influence": influence, "after": [0.0] * LENGTH, "other_row": None, "worst": [], "seconds": 1.0},
        **{"finished": True, **more},
    }
    return Pass.model_validate(fields)


@pytest.fixture
def reading(tmp_path: Path) -> Reading:
    (tmp_path / "train_gpt.py").write_text("print('nothing that reading could follow')\n", encoding="utf-8")
    submission = LocalSource(tmp_path, "here").load()
    return Reading(submission, submission.folders[0])


def told(*paths: Pass) -> Measurement:
    return Measurement(imported=1.0, models=(Built.model_validate({"class": "Net", "line": 1}),), paths=paths)


def test_isolation_is_measured() -> None:
    assert isolates(passed({}))
    assert not isolates(passed({(2, 12): 0.5}))
    leak = passed({(9, 10): 0.5, (9, 11): 0.1})
    assert isolates(leak)
    assert [(b.near, b.far, b.moved, b.reach) for b in boundaries(leak)] == [(0.5, 0.0, (10, 11), 1), (0.0, 0.0, (), 0)]


def test_rounding_is_no_leak(reading: Reading) -> None:
    tolerance = passed({}).tolerance
    assert 1e-6 < tolerance < 1e-3
    small = judge_isolation("document-isolation", reading, told(passed({(9, 10): 0.9 * tolerance})))
    large = judge_isolation("document-isolation", reading, told(passed({(9, 10): 1.1 * tolerance})))
    assert (small.status, large.status) == (ProbeStatus.CLEAN, ProbeStatus.VIOLATED)


def test_noise_raises_the_tolerance(reading: Reading) -> None:
    noisy = passed({(5, 3): 0.1}, noise=0.05)
    assert look_ahead(noisy) == 0.1
    assert judge_causality("causality", reading, told(noisy)).status is ProbeStatus.CLEAN
    assert judge_causality("causality", reading, told(passed({(5, 3): 0.1}))).status is ProbeStatus.VIOLATED


def test_other_rows_count_as_later_tokens(reading: Reading) -> None:
    result = judge_causality("causality", reading, told(passed({}, other_row=0.3)))
    assert result.status is ProbeStatus.VIOLATED
    assert "the other rows of the batch" in result.reason


def test_a_network_that_ignores_its_input_shows_nothing(reading: Reading) -> None:
    dead = passed({}, influence=[[0.0] * LENGTH for _ in range(LENGTH)])
    result = judge_causality("causality", reading, told(dead))
    assert result.status is ProbeStatus.COULD_NOT_RUN
    assert result.stop is not None and "do not depend on earlier tokens" in result.stop.message


def test_what_the_driver_tells_is_bounded() -> None:
    with pytest.raises(ValueError, match="at most 512"):
        passed({}, after=[0.0] * 600)


def test_what_was_measured_in_part_is_not_called_clean(reading: Reading) -> None:
    part = told(passed({}, finished=False))
    for result in (
        judge_causality("causality", reading, part),
        judge_isolation("document-isolation", reading, part),
    ):
        assert result.status is ProbeStatus.COULD_NOT_RUN
        assert result.stop is not None and result.stop.kind == "time"
    leak = judge_isolation("document-isolation", reading, told(passed({(9, 10): 0.5}, finished=False)))
    assert leak.status is ProbeStatus.VIOLATED
    # The same pass with a switch set otherwise may be cut short.
    both = judge_causality("causality", reading, told(passed({}), passed({}, finished=False, state="looped = True")))
    assert both.status is ProbeStatus.CLEAN
