"""The run configuration of a whole record folder: claim, launches, logs and their linking."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from auditor.runconfig import RunEvidence
from auditor.submission import Change, RecordFolder, SubmissionFile

ROOT = "records/track_10min_16mb/2026-01-01_Example"


def folder(files: Mapping[str, str | bytes], path: str = ROOT) -> RecordFolder:
    made = []
    for name, content in sorted(files.items()):
        data = content if isinstance(content, bytes) else content.encode()
        made.append(SubmissionFile(f"{path}/{name}", len(data), Change.ADDED, partial(bytes, data)))
    return RecordFolder(path, "record", tuple(made))


def collect(files: Mapping[str, str | bytes]) -> RunEvidence:
    return RunEvidence.collect(folder(files))


def log(seed: int, final: float, *, extra: str = "", label: str = "final_eval") -> str:
    return (
        "Hyperparameters:\n"
        f"  seed: {seed}\n"
        "  widget_enabled: True\n"
        "  num_layers: 11\n"
        f"{extra}"
        "==============================\n"
        "train_shards: 80\n"
        "step:10/20 val_loss:3.0000 val_bpb:1.9000 train_time:100ms\n"
        "quantized val_loss:2.5000 val_bpb:1.50000000 eval_time:1000ms\n"
        f"{label} val_loss:2.4000 val_bpb:{final:.4f} eval_time:2000ms\n"
        f"{label}_exact val_loss:2.40000000 val_bpb:{final:.8f}\n"
    )


README = """# An example

## Reproduction

```bash
pip install brotli
SEED=42 WIDGET=1 \\
  NUM_LAYERS=9 \\
  torchrun --standalone --nproc_per_node=8 train_gpt.py
```

## Ablations

```bash
WIDGET=0 torchrun --standalone --nproc_per_node=8 train_gpt.py
```
"""


def test_log_beats_launch_and_both_places_are_kept() -> None:
    evidence = collect({"README.md": README, "train_gpt.py": "", "train_seed42.log": log(42, 1.2345)})
    layers = evidence.effective(env="NUM_LAYERS", attribute="num_layers")
    assert layers.value == "11" and layers.conflict is None
    assert [(v.value, v.origin, v.file.rsplit("/", 1)[-1], v.line) for v in layers.values] == [
        ("9", "launch command", "README.md", 8),
        ("11", "log", "train_seed42.log", 4),
    ]


def test_attribute_name_and_environment_name_are_both_tried() -> None:
    evidence = collect({"README.md": README, "train_gpt.py": "", "train_seed42.log": log(42, 1.2345)})
    assert evidence.effective(env="WIDGET", attribute="widget_enabled").value == "True"
    assert evidence.effective(env="WIDGET").value == "1"
    assert evidence.effective(env="UNHEARD_OF").value is None


def test_the_ablation_launch_does_not_speak_for_the_claim() -> None:
    evidence = collect({"README.md": README, "train_gpt.py": ""})
    assert evidence.effective(env="WIDGET").value == "1"
    assert {x.heading.rsplit(" / ", 1)[-1] for x in evidence.launches} == {"Reproduction", "Ablations"}
    assert [x.heading for x in evidence.claimed_launches] == ["An example / Reproduction"]


def test_submission_json_stands_between_launch_and_log() -> None:
    files = {
        "README.md": README,
        "train_gpt.py": "",
        "submission.json": '{\n "config": {"num_layers": 10}\n}',
    }
    layers = collect(files).effective(env="NUM_LAYERS")
    assert layers.value == "10"
    assert [v.origin for v in layers.values] == ["launch command", "submission.json"]
    assert layers.values[1].line == 2
    assert collect({**files, "train.log": log(42, 1.2)}).effective(env="NUM_LAYERS").value == "11"


def test_disagreeing_seeds_are_reported() -> None:
    files = {
        "submission.json": json.dumps({"val_bpb": 1.25, "seed_results": {"1": 1.2, "2": 1.3}}),
        "train_seed1.log": log(1, 1.2, extra="  gate: 0\n").replace("1.2000", "1.20000"),
        "train_seed2.log": log(2, 1.3, extra="  gate: 1\n"),
    }
    evidence = collect(files)
    gate = evidence.effective(attribute="gate")
    assert gate.conflict is not None and "logs disagree" in gate.conflict
    assert "train_seed1.log:5" in gate.conflict and "train_seed2.log:5" in gate.conflict
    assert evidence.effective(attribute="num_layers").conflict is None


def test_launches_that_disagree_are_reported_when_no_log_decides() -> None:
    text = "## Run\n```\nGATE=1 python train_gpt.py\nGATE=0 python train_gpt.py\n```\n"
    gate = collect({"README.md": text, "train_gpt.py": ""}).effective(env="GATE")
    assert gate.conflict is not None and "launch commands disagree" in gate.conflict


def test_a_setting_that_only_some_launches_give_is_reported() -> None:
    text = "## Run\n```\nA=1 python train_gpt.py\nA=2 python train_gpt.py\nA=3 GATE=0 python train_gpt.py\n```\n"
    gate = collect({"README.md": text, "train_gpt.py": ""}).effective(env="GATE")
    assert gate.value is None
    assert gate.conflict is not None and "1 of 3" in gate.conflict


def test_an_ablation_log_does_not_pollute_the_claim() -> None:
    files = {
        "submission.json": '{"val_bpb": 1.23456789}',
        "train.log": log(42, 1.23456789, extra="  gate: 0\n"),
        "ablation.log": log(42, 1.3, extra="  gate: 1\n"),
    }
    evidence = collect(files)
    assert evidence.effective(attribute="gate").value == "0"
    assert evidence.effective(attribute="gate").conflict is None
    assert [r.file.rsplit("/", 1)[-1] for r in evidence.claim_runs] == ["train.log"]
    assert evidence.find("gate: 1") == []
    assert [hit[1] for hit in evidence.find("gate: 1", every_log=True)] == [5]


@pytest.mark.parametrize(
    "claimed",
    [
        {"seed_results": {"1": {"val_bpb": 1.2}, "2": {"val_bpb": 1.3}}, "val_bpb": 1.25},
        {"seeds": {"1": {"val_bpb": 1.2, "other_bpb": 1.5}, "2": {"val_bpb": 1.3, "other_bpb": 1.5}}},
        {"seed_results": [{"seed": 1, "val_bpb": 1.2}, {"seed": 2, "val_bpb": 1.3}]},
        {"seeds": [1, 2], "val_bpb_seeds": [1.2, 1.3]},
        {"seed_1": {"val_bpb": 1.2}, "seed_2": {"val_bpb": 1.3}, "val_bpb": 1.25},
        {"val_bpb_seed1": 1.2, "val_bpb_seed2": 1.3},
        {"per_seed": {"s1": 1.2, "s2": 1.3}},
    ],
)
def test_shapes_of_per_seed_claims(claimed: dict[str, object]) -> None:
    text = json.dumps(claimed).replace("1.2}", "1.2000}").replace("1.2,", "1.2000,").replace("1.3", "1.3000")
    files = {"submission.json": text, "train_seed1.log": log(1, 1.2), "train_seed2.log": log(2, 1.3)}
    reported = collect(files).reported()
    assert reported is not None and reported.linked
    assert reported.label == "final_eval_exact"
    assert {m.label for m in reported.alternatives} == {"final_eval"}
    assert "2 of 2" in reported.how
    assert [r.seed for r in reported.runs] == [1, 2]


def test_the_figure_per_seed_is_the_one_whose_mean_is_claimed() -> None:
    seeds = {s: {"val_bpb": v, "quantized_bpb": 1.5} for s, v in (("1", 1.2), ("2", 1.3))}
    files = {
        "submission.json": json.dumps({"val_bpb": 1.5, "seed_results": seeds}),
        "train_seed1.log": log(1, 1.2),
        "train_seed2.log": log(2, 1.3),
    }
    reported = collect(files).reported()
    assert reported is not None and reported.label == "quantized"


def test_a_mean_is_linked_to_the_label_whose_mean_it_is() -> None:
    files = {
        "submission.json": '{"val_bpb": 1.25000000}',
        "train_seed1.log": log(1, 1.2),
        "train_seed2.log": log(2, 1.3),
    }
    reported = collect(files).reported()
    assert reported is not None and reported.linked
    assert (reported.label, reported.line) == ("final_eval_exact", 10)
    assert "mean" in reported.how and len(reported.runs) == 2


def test_without_a_match_the_last_result_is_given_and_not_called_linked() -> None:
    reported = collect({"submission.json": '{"val_bpb": 1.1111}', "train.log": log(1, 1.2)}).reported()
    assert reported is not None and not reported.linked
    assert reported.label == "final_eval_exact"
    assert "no log line equals the claim 1.1111" in reported.how


def test_the_readme_title_stands_in_for_a_missing_submission_json() -> None:
    evidence = collect({"README.md": "# Thing: val_bpb 1.2340\n", "train.log": log(1, 1.234)})
    reported = evidence.reported()
    assert reported is not None and reported.linked and "README.md:1" in reported.how
    assert "no submission.json" in evidence.notes


def test_a_seed_whose_log_says_otherwise_is_named() -> None:
    files = {
        "submission.json": '{"seed_results": {"1": 1.2000, "2": 1.2999}}',
        "train_seed1.log": log(1, 1.2),
        "train_seed2.log": log(2, 1.3),
    }
    reported = collect(files).reported()
    assert reported is not None and "1 of 2" in reported.how
    assert "seed 2: claimed 1.2999, log says 1.30000000" in reported.how
    assert len(reported.runs) == 2


def test_an_evaluation_log_leads_to_the_training_log_of_its_seed() -> None:
    trained = "seed:7\ngate:1 knob:3\nstep:1/9 train_loss:2.0\nadapt:epoch 1 loss 2.2\n"
    scored = "seed:7\nfinal_eval val_loss:2.0 val_bpb:1.23450000\n"
    evidence = collect({"submission.json": '{"val_bpb": 1.2345}', "train_seed7.log": trained, "eval_seed7.log": scored})
    assert [r.file.rsplit("/", 1)[-1] for r in evidence.training_runs] == ["train_seed7.log"]
    assert evidence.effective(env="GATE").value == "1"
    assert [h[1] for h in evidence.find("adapt:epoch")] == [4]


def test_seed_in_name_and_seed_in_log_are_compared() -> None:
    notes = collect({"train_seed1.log": log(2, 1.2)}).notes
    assert any("named for seed 1 but prints seed 2" in n for n in notes)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"val_bpb": 1.2345,}', "1.2345"),
        ('{"val_bpb": 1.2345}\n}\n', "1.2345"),
        ('json{"val_bpb": 1.2345}', "1.2345"),
        ('{\n// a comment\n"val_bpb": 1.2345}', "1.2345"),
        ('{"n": 1_000, "val_bpb": 1.2345, "x": ', "1.2345"),
        ('{"x": NaN, "val_bpb": "1.2345 (mean)"}', "1.2345"),
        ('\ufeff{"val_bpb": 1.2340}', "1.2340"),
        ('{"results": {"val_bpb": {"mean": 1.2345}}}', "1.2345"),
        ("not json at all", None),
    ],
)
def test_broken_submission_json(text: str, value: str | None) -> None:
    claim = collect({"submission.json": text}).claim
    assert (str(claim.val_bpb) if claim.val_bpb is not None else None) == value


def test_declared_programs() -> None:
    readme = (
        "# X\n\nWe compress groups with lrzip and avoid zpaq.\n\n## Setup\n\n"
        "```bash\napt-get install -y lrzip\n```\n\nNo gcc is needed. Weights are packed by `brotli`.\n"
    )
    evidence = collect({"README.md": readme, "requirements.txt": "python-minifier==2.0\n# zstandard\n"})
    lrzip = evidence.declared("/usr/bin/lrzip")
    assert lrzip is not None and (lrzip.strength, lrzip.line) == ("declared", 8)
    minify = evidence.declared("pyminify")
    assert minify is not None and minify.strength == "declared" and minify.file.endswith("requirements.txt")
    brotli = evidence.declared("brotli")
    assert brotli is not None and brotli.strength == "mentioned"
    for absent in ("gcc", "zpaq", "zstd", "xz"):
        assert evidence.declared(absent) is None


def test_a_shipped_program_is_named_by_its_path() -> None:
    files = {"README.md": "# X\n\n- Evaluator: `runtime/evaluator_bin`\n- not `other/zstd`\n"}
    assert collect(files).declared("evaluator_bin") is None
    named = collect(files | {"runtime/evaluator_bin": "ELF"}).declared("./runtime/evaluator_bin")
    assert named is not None and (named.strength, named.line) == ("mentioned", 3)
    assert collect(files).declared("zstd") is None


def test_a_system_package_is_declared_in_a_comment_of_the_requirements() -> None:
    asked = collect({"requirements.txt": "torch\n# System dep (apt): lrzip (packs the groups)\n"}).declared("lrzip")
    assert asked is not None and (asked.strength, asked.line) == ("declared", 2)
    installed = collect({"requirements.txt": "torch\n# apt-get install -y lrzip\n"}).declared("lrzip")
    assert installed is not None and installed.strength == "declared"
    assert collect({"requirements.txt": "torch\n# lrzip was slower\n"}).declared("lrzip") is None


def test_build_essential_provides_a_compiler() -> None:
    declared = collect({"setup.sh": "apt-get install -y build-essential\n"}).declared("gcc")
    assert declared is not None and declared.strength == "declared"


def test_huge_and_unreadable_logs_are_noted_not_read() -> None:
    big = SubmissionFile(f"{ROOT}/train.log", 30_000_000, Change.ADDED, lambda: pytest.fail("read"))
    gone = SubmissionFile(f"{ROOT}/old.log", 0, Change.ADDED, lambda: b"", "symlink")
    evidence = RunEvidence.collect(RecordFolder(ROOT, "record", (gone, big)))
    assert evidence.logs == () and evidence.reported() is None
    assert any("30,000,000 bytes" in n for n in evidence.notes) and any("symlink" in n for n in evidence.notes)


_PIECES = st.sampled_from(
    [
        *("val_bpb:1.2", "{", "}", '"', "'", "\n", "seed_", "```", "$", "\\\n", "import os\n", "for", "done"),
        *(
            "=",
            ":",
            "torchrun train_gpt.py",
            "(",
            ")",
            "step:1/2",
            "Hyperparameters:",
            " a: 1",
            "\x1b[0m",
            "\0",
        ),
        *("1e99999", "if __name__", "é"),
    ]
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(_PIECES | st.text(max_size=8), max_size=40).map("".join), st.binary(max_size=60))
def test_never_raises(text: str, noise: bytes) -> None:
    data = text.encode("utf-8", "surrogatepass") + noise
    evidence = collect({n: data for n in ("README.md", "run.sh", "train.log", "submission.json", "env.txt")})
    evidence.reported()
    evidence.effective(env="A", attribute="a", flag="--a")
    evidence.declared("gcc")
    evidence.find("a")
    assert all(r.facts is not None for r in evidence.logs)


def test_arithmetic_bombs_in_figures_are_ignored() -> None:
    text = '{"val_bpb": 1e999999999, "seed_results": {"1": 1.5e-999999}}'
    evidence = collect({"submission.json": text, "train.log": "x val_bpb:1.0e-9999999\n" + log(1, 1.2)})
    assert evidence.claim.val_bpb is None and evidence.reported() is not None
