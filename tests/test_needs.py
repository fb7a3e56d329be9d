"""What belongs to a submission: scripts outside of records/, tools without a claim, what a non-record may lack."""

from __future__ import annotations

import ast

from auditor.engine import audit
from auditor.index.imports import asks_for_lack, import_flags
from auditor.sources.base import track_of
from auditor.submission import Change, RecordFolder, Submission, SubmissionFile, SubmissionKind
from auditor.verdict import Effect, Outcome, Status, Verdict
from rules.examples import script


def judged(kind: SubmissionKind, folders: dict[str, dict[str, str]], *slugs: str) -> Verdict:
    made = []
    for path, files in folders.items():
        shipped = []
        for name, text in sorted(files.items()):
            data = text.encode()
            full = f"{path}/{name}" if path else name
            shipped.append(SubmissionFile(full, len(data), Change.ADDED, lambda d=data: d))
        made.append(RecordFolder(path, track_of(path, shipped), tuple(shipped)))
    submission = Submission(
        source="test", repository=None, number=1, head=None, base="0" * 40, kind=kind, folders=tuple(made),
        files=tuple(f for folder in made for f in folder.files),
    )  # fmt: skip
    return audit(submission, slugs=slugs)


def outcome(kind: SubmissionKind, folder: str, files: dict[str, str], slug: str) -> Outcome:
    return judged(kind, {folder: files}, slug).outcomes[0]


OVERLAY = script(
    """
    import sys
    from pathlib import Path

    ROOT = Path(__file__).resolve().parent.parent
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    import train_gpt_mlx as base

    print(base.Hyperparameters, GPT())
    """
)


def test_a_script_outside_of_records_finds_the_repositorys_own_modules() -> None:
    elsewhere = outcome(SubmissionKind.CODE_ELSEWHERE, "tools", {"overlay.py": OVERLAY}, "broken-script")
    assert elsewhere.status is Status.CLEAN
    folder = "records/track_10min_16mb/2026-01-01_Overlay"
    inside = outcome(SubmissionKind.RECORD, folder, {"overlay.py": OVERLAY}, "broken-script")
    assert inside.status is Status.ACTIVE  # two levels up from there is records/track_10min_16mb
    higher = OVERLAY.replace(".parent.parent", ".parents[3]")
    assert outcome(SubmissionKind.RECORD, folder, {"overlay.py": higher}, "broken-script").status is Status.SUSPECT
    sought = OVERLAY.replace("Path(__file__).resolve().parent.parent", "find_root(__file__)")
    assert outcome(SubmissionKind.RECORD, folder, {"overlay.py": sought}, "broken-script").status is Status.SUSPECT
    alone = OVERLAY.replace("ROOT.parent", "ROOT").replace(".parent.parent", ".parent")
    assert (
        outcome(SubmissionKind.CODE_ELSEWHERE, "tools", {"overlay.py": alone}, "broken-script").status is Status.ACTIVE
    )


def test_a_tool_without_a_claim_is_no_broken_script() -> None:
    tool = {"check_folder.py": 'import json\nimport sys\n\nprint(json.load(open(sys.argv[1]))["val_bpb"])\n'}
    assert outcome(SubmissionKind.ROOT_SCRIPT, "", tool, "broken-script").status is Status.NOT_APPLICABLE
    record = outcome(
        SubmissionKind.RECORD, "records/track_10min_16mb/2026-01-01_Nine",
        {"train_gpt.py": tool["check_folder.py"], "submission.json": '{"val_bpb": 1.2}\n'}, "broken-script",
    )  # fmt: skip
    assert record.status is Status.ACTIVE


def test_a_log_is_a_matter_of_form_where_no_record_is_claimed() -> None:
    folder = "records/track_10min_16mb/2026-01-01_Twelve"
    files = {
        "train_gpt.py": script("print(GPT())"),
        "submission.json": '{"val_bpb": 1.15}\n',
        "README.md": "# Twelve\n",
    }
    claimed = outcome(SubmissionKind.RECORD, folder, files, "missing-files")
    assert (claimed.status, claimed.effect) == (Status.ACTIVE, Effect.VIOLATION)
    files["README.md"] = "# Non-record: twelve layers\n"
    told = outcome(SubmissionKind.RECORD, folder, files, "missing-files")
    assert (told.status, told.effect) == (Status.ACTIVE, Effect.ADVISORY)


def test_programs_cannot_be_declared_where_there_is_no_submission() -> None:
    files = {"train_gpt.py": script('import subprocess\n\nsubprocess.run(["lrzip", "-d", "x.lrz"], check=True)')}
    alone = outcome(SubmissionKind.ROOT_SCRIPT, "", files, "external-binary")
    assert (alone.status, alone.effect) == (Status.ACTIVE, Effect.ADVISORY)
    folder = "records/track_10min_16mb/2026-01-01_Packed"
    record = outcome(SubmissionKind.RECORD, folder, files, "external-binary")
    assert (record.status, record.effect) == (Status.ACTIVE, Effect.VIOLATION)


def test_what_runs_only_without_an_import() -> None:
    tree = ast.parse(
        "try:\n    import brotli\nexcept ImportError:\n    brotli = None\n"
        "try:\n    import zstandard as zstd\n    HAVE = True\nexcept ImportError:\n    HAVE = False\n"
        "try:\n    import lzma\nexcept ImportError:\n    raise\n"
    )
    flags = import_flags(tree)
    assert flags == {"brotli", "HAVE"}

    def lacks(test: str, *, negated: bool = False) -> bool:
        return asks_for_lack(ast.parse(test, mode="eval").body, flags, negated=negated)

    for test in ("brotli is None", "not brotli", "not HAVE", "HAVE == False", "rank == 0 and brotli is None"):
        assert lacks(test) and not lacks(test, negated=True)
    for test in ("brotli is not None", "HAVE", "HAVE or rank == 0"):
        assert lacks(test, negated=True) and not lacks(test)
    for test in ("lzma is None", "rank == 0", "brotli is None or rank == 0", "brotli == 1"):
        assert not lacks(test) and not lacks(test, negated=test == "rank == 0")
