"""What is claimed, and whether it follows: figures with their places, seed runs, means and deviations."""

from __future__ import annotations

from decimal import Decimal

import pytest

from auditor.runconfig import RunEvidence
from auditor.runconfig.derive import averaged, close, combined, find_figure, find_number, spread
from auditor.runconfig.seeds import SeedRuns, seed_runs
from auditor.submission import Change, RecordFolder, SubmissionFile

ROOT = "records/track_10min_16mb/2026-01-01_Example"


def evidence(**files: str) -> RunEvidence:
    """The evidence in files named with "__" for the dot."""
    made = []
    for name, text in sorted(files.items()):
        data = text.encode()
        made.append(SubmissionFile(f"{ROOT}/{name.replace('__', '.')}", len(data), Change.ADDED, lambda d=data: d))
    return RunEvidence.collect(RecordFolder(ROOT, "record", tuple(made)))


def log(seed: int, bpb: float, *, lr: float = 0.02, trained: float | None = None) -> str:
    before = bpb + 0.01 if trained is None else trained
    return (
        f"Hyperparameters:\n  iterations: 5000\n  matrix_lr: {lr}\n  seed: {seed}\n"
        f"step:5000/5000 train_loss:2.1{seed % 10}73 train_time:5999{seed % 10}4ms\n"
        f"pre_ttt val_loss:{before * 1.688:.8f} val_bpb:{before:.8f}\n"
        f"final_ttt val_loss:{bpb * 1.688:.8f} val_bpb:{bpb:.8f}\n"
    )


README = """# A record

| Seed | Steps | val_bpb | Artifact (bytes) |
|---|---|---|---|
| 42 | 5,000 | **1.2311** | 15,214,377 |
| Seed 7 | 5,001 | 1.2317 | 15,214,468 |
| Mean | | 1.2314 ± 0.0004 | |

| Change | val_bpb |
|---|---|
| baseline | 1.2244 |
"""


def test_tables_about_seeds_are_read_with_their_lines() -> None:
    claims = evidence(README__md=README).claims
    bpb = next(t for t in claims.tables if t[0].quantity == "bpb")
    assert [(f.role, f.seed, str(f.value), f.line) for f in bpb] == [
        ("seed", 42, "1.2311", 5),
        ("seed", 7, "1.2317", 6),
        ("mean", None, "1.2314", 7),
        ("std", None, "0.0004", 7),
    ]
    sizes = next(t for t in claims.tables if t[0].quantity == "bytes")
    assert [int(f.value) for f in sizes] == [15214377, 15214468]
    assert claims.seeds == (42, 7)
    assert not any("1.2244" in f.text for t in claims.tables for f in t)


def test_seeds_across_the_header() -> None:
    header = "| Metric | Seed 1 | Seed 2 | Mean | Std |\n|---|---|---|---|---|\n"
    text = header + "| val_bpb | 1.10 | 1.1011 | 1.1005 | 0.0007 |\n"
    (column,) = evidence(README__md=text).claims.tables
    assert [(f.role, f.seed, str(f.value)) for f in column] == [
        ("seed", 2, "1.1011"),  # two decimals say too little to be compared
        ("mean", None, "1.1005"),
        ("std", None, "0.0007"),
    ]


def test_submission_json_figures_facts_and_deviations() -> None:
    text = (
        '{\n  "val_bpb": 1.2311,\n  "val_bpb_std": 0.0006,\n  "tied_embed_init_std": 0.005,\n'
        '  "seed_results": {"42": {"val_bpb": 1.2311, "val_loss": 2.0781}},\n'
        '  "compliance": {"three_seeds": true, "no_slot": false}\n}\n'
    )
    claims = evidence(submission__json=text).claims
    assert [(f.role, f.quantity, str(f.value), f.line) for f in claims.submission] == [
        ("headline", "bpb", "1.2311", 2),
        ("seed", "bpb", "1.2311", 2),
        ("seed", "nats", "2.0781", 5),
        ("std", "bpb", "0.0006", 3),
    ]
    assert [(f.name, f.value, f.line) for f in claims.facts] == [("three_seeds", True, 6), ("no_slot", False, 6)]


@pytest.mark.parametrize(
    ("logged", "claimed", "same"),
    [
        ("1.23112345", "1.2311", True),
        ("1.23118", "1.2311", True),  # cut off
        ("1.23118", "1.2312", True),  # rounded
        ("1.2311", "1.23112345", True),  # the log is the less exact one
        ("1.23118", "1.2313", False),
        ("1.23", "1.2311", False),  # too few digits to stand for it
    ],
)
def test_close(logged: str, claimed: str, same: bool) -> None:
    assert close(Decimal(logged), Decimal(claimed)) is same


def decimals(*texts: str) -> list[Decimal]:
    return [Decimal(t) for t in texts]


def test_how_a_claim_is_made_from_several_figures() -> None:
    figures = decimals("1.23112345", "1.23171234", "1.2305")
    assert combined(figures, Decimal("1.2311")) == "mean"
    assert combined(figures, Decimal("1.2305")) == "lowest"
    assert combined(figures, Decimal("1.2317")) == "highest"
    assert combined(decimals("1.1", "1.2", "1.9"), Decimal("1.2")) == "median"
    assert combined(figures, Decimal("1.2281")) is None
    assert combined([], Decimal("1.2")) is None


def test_which_deviation_was_stated() -> None:
    figures = decimals("1.07743908", "1.07666593", "1.07645419")
    both = spread(figures)
    assert both is not None and both.sample == pytest.approx(0.000518, abs=1e-6)
    for stated, used in (("0.00042", "population"), ("0.00052", "sample"), ("0.0031", None)):
        made = spread(figures, Decimal(stated))
        assert made is not None and made.used == used
    assert spread(figures[:1]) is None


def test_a_figure_is_found_as_result_as_loss_and_as_bare_number() -> None:
    logs = evidence(train__log=log(7, 1.23112345) + "all told the score came to 1.19876 in the end\n").logs
    found = [find_figure(logs, Decimal(c)) for c in ("1.2311", "2.0781", "1.1988")]
    assert [f.line if f else None for f in found] == [7, 7, 8]
    assert find_figure(logs, Decimal("1.2299")) is None
    assert find_number(logs, Decimal("1")) is None


def test_a_short_number_among_running_figures_proves_nothing() -> None:
    running = "".join(f"ttt_chunk {i}/500 bpb={1.20 + i / 1e4:.6f}\n" for i in range(1, 501))
    logs = evidence(train__log=running + log(7, 1.23112345)).logs
    assert find_figure(logs, Decimal("1.2123")) is None
    assert find_figure(logs, Decimal("1.2123"), anywhere=True) is not None
    assert find_figure(logs, Decimal("1.212300")) is not None


def test_means_over_all_runs_come_before_means_over_some() -> None:
    three = [log(s, b) for s, b in ((1, 1.2301), (2, 1.2309), (3, 1.2347))]
    logs = evidence(a1__log=three[0], a2__log=three[1], a3__log=three[2]).logs
    whole = averaged(logs, Decimal("1.2319"))
    assert whole is not None and whole.whole and len(whole.metrics) == 3
    some = averaged(logs, Decimal("1.230500"))
    assert some is not None and not some.whole and len(some.metrics) == 2
    assert averaged(logs, Decimal("1.2999")) is None


def runs(**files: str) -> SeedRuns:
    return seed_runs(evidence(submission__json='{"val_bpb": 1.2311}', **files))


def test_one_run_per_seed_whatever_the_number_of_logs() -> None:
    found = runs(train__log=log(7, 1.2311), train_seed7__log=log(7, 1.2311), train_seed8__log=log(8, 1.2317))
    assert sorted(r.seed or 0 for r in found.runs) == [7, 8]
    assert found.independent == 2


def test_of_several_runs_of_a_seed_the_nearest_to_the_claim_counts() -> None:
    found = runs(
        a_seed7__log=log(7, 1.2412),
        a_seed8__log=log(8, 1.2417),
        b_seed7__log=log(7, 1.2303),
        b_seed8__log=log(8, 1.2307),
    )
    assert [r.run.file.rsplit("/", 1)[-1] for r in found.runs] == ["b_seed7.log", "b_seed8.log"]


def test_runs_of_one_checkpoint_count_once() -> None:
    found = runs(**{f"eval_seed{s}__log": log(s, 1.2304 + s / 1e4, trained=1.24110034) for s in (7, 8, 9)})
    assert len(found.runs) == 3
    assert found.independent == 1


def test_a_constant_that_scripts_print_makes_no_checkpoint() -> None:
    champion = "Champion: 1.18672385 BPB\n"
    found = runs(**{f"train_seed{s}__log": log(s, 1.2304 + s / 1e4) + champion for s in (7, 8, 9)})
    assert found.independent == 3


def test_settings_that_differ_are_named() -> None:
    found = runs(train_seed7__log=log(7, 1.2311), train_seed8__log=log(8, 1.2317, lr=0.04))
    assert [name for name, _ in found.unlike] == ["matrix_lr"]
    assert runs(train_seed7__log=log(7, 1.2311), train_seed8__log=log(8, 1.2317)).unlike == ()


def test_a_log_without_a_result_is_left_open() -> None:
    found = runs(train_seed7__log=log(7, 1.2311), train_seed8__log="seed: 8\nstep:10/5000 train_loss:6.1\n")
    assert [r.seed for r in found.runs] == [7]
    assert [r.seed for r in found.unread] == [8]
