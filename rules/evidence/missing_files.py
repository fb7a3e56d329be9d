"""The submission is not whole, or it changes what is not its own.

**What it catches.** A record folder without README, submission.json, train log or script; a script that is only
a stub or needs own modules that were left out; logs for fewer seeds than are claimed; changes outside of the
record folder, and changes to or deletions of files that were there before.

**Why it breaks the score.** The number can't be checked without the log, nor reproduced without the script.
Changes elsewhere can't be merged, and may change what other submissions mean.

**Legal look-alikes.** Several record folders in one pull request; a script under another name
(train_gpt_mlx.py); a submission.json with a suffix in its name; logs in a subfolder or with any name; more
files than asked for; files of one's own record folder that are changed or deleted while the pull request is
open.

**How it is read.** The folder's files by name, the logs by content; the claimed seeds against the seeds of the
logs; for a pull request, the difference to the commit it branched from. A local folder has no such difference.

**Remedy.** Add what is missing; take changes outside of the record folder out of the pull request.

**Ruling.** README: a pull request only adds one folder below /records with README.md, submission.json, a train
log and train_gpt.py. Organisers sent back #53, #545, #1031, #1143 for changes elsewhere, as a matter of form,
and merged others with such changes: these alone don't decide the verdict here. Nor does a log that is missing
for some of several seeds, or a document or log that is missing where no record is claimed (the non-record track,
or a submission that calls itself non-record): such were merged.
"""

from __future__ import annotations

import re

from auditor.logs import is_log
from auditor.needs import claims_nothing, holds_no_program, missing_modules, whole_script
from auditor.reading import Reading
from auditor.runconfig.launches import is_readme
from auditor.submission import Change, SubmissionFile
from auditor.verdict import Confidence, Effect, Evidence, Status
from rules.base import Example, Finding, Rule
from rules.examples import script

_PROGRAM = (".py", ".ipynb", ".sh", ".rs", ".cu", ".cpp", ".c", ".jl", ".js", ".mojo", ".zig", ".go")
_LOG_NAME = re.compile(r"(?i)log|result|metrics|output|stdout|history|train|eval|run|seed")
_LOG_SUFFIX = (
    ".tsv",
    ".csv",
    ".jsonl",
    ".json",
    ".txt",
    ".md",
    ".ipynb",
    ".html",
    ".gz",
    ".zip",
    ".bz2",
    ".xz",
    ".zst",
)


class MissingFiles(Rule):
    slug = "missing-files"
    group = "evidence"
    title = "README, submission.json, log or script missing; edits outside the record folder"
    evidence = ("files",)
    official = Effect.VIOLATION
    strict = Effect.VIOLATION
    precedents = ("#53, #545, #1031, #1120, #1143: not records-folder-only", "#496, #529, #631: files missing")

    def check(self, reading: Reading) -> Finding:
        folder = reading.folder
        files = [f for f in folder.files if f.change is not Change.DELETED]
        if claims_nothing(reading):
            return Finding(Status.NOT_APPLICABLE, "No record folder and no claim: nothing that would have to be whole.")
        lacking, evidence, minor = self._lacking(reading, files)
        outside = _outside(reading)
        elsewhere = "records" not in folder.path.split("/") and reading.submission.kind.value in (
            "root-script", "code-elsewhere",
        )  # fmt: skip
        if elsewhere:
            below = any(f.path.startswith("records/") for f in files)
            lacking.append("the script in the folder below records/" if below else "a folder below records/")
        parts = []
        if lacking:
            parts.append(f"{', '.join(lacking[:5])} {'is' if len(lacking) == 1 else 'are'} missing")
        if outside:
            listed = ", ".join(f"{f.path} ({f.change.value})" for f in outside[:3])
            parts.append(f"{len(outside)} file{'s' if len(outside) > 1 else ''} outside of the record folder: {listed}")
            evidence += [_place(f, f"{f.change.value}, outside of the record folder") for f in outside[:4]]
        if not parts:
            return Finding(Status.CLEAN, f"README, submission.json, script and log are there{_scope(reading)}.")
        reason = "; ".join(parts)
        only_form = not lacking or (minor and not elsewhere)
        return Finding(
            Status.ACTIVE,
            f"{reason[0].upper()}{reason[1:]}.",
            Confidence.HIGH,
            tuple(evidence or [_any_place(files)]),
            official=Effect.ADVISORY if only_form else None,
        )

    def _lacking(self, reading: Reading, files: list[SubmissionFile]) -> tuple[list[str], list[Evidence], bool]:
        """What is missing, where that shows, and whether it is only what merged submissions lacked too."""
        lacking: list[str] = []
        evidence: list[Evidence] = []
        minor = True
        no_record = reading.folder.track == "non-record" or reading.claims_no_record
        if not any(is_readme(f) for f in files):
            lacking.append("README.md")
            minor = no_record
        if not any(f.name.lower().startswith("submission") and f.name.lower().endswith(".json") for f in files):
            lacking.append("submission.json")
            minor = minor and no_record
        if not any(f.name.endswith(_PROGRAM) or f.name.startswith("train_gpt.") for f in files):
            lacking.append("train_gpt.py")
            minor = False
        elif holds_no_program(reading):
            lacking.append("the script that trains and evaluates (the one shipped does neither)")
            minor = False
            evidence.append(whole_script(reading))
        else:
            for module in missing_modules(reading):
                if module.why is not None:
                    lacking.append(f"the module {module.name} ({module.why})")
                    evidence += module.evidence
                    minor = False
        logs, unread = reading.run.logs, [f for f in files if _may_be_log(f)]
        if not logs and not unread:
            lacking.append("a train log")
            minor = minor and no_record
        elif logs and _only_evaluations(reading):
            lacking.append("a log of the training (the logs are of evaluations)")
            evidence.append(_log_place(reading))
        elif logs:
            shown = {r.seed for r in logs} | {r.seed_in_name for r in logs}
            known = all(r.seed is not None or r.seed_in_name is not None for r in logs)
            claimed = [s for s in reading.run.claim.seeds if s not in shown]
            files_with = {r.file for r in logs}
            if claimed and len(claimed) + len(files_with) <= max(len(reading.run.claim.seeds), 2) and known:
                lacking.append(f"the log of seed {', '.join(map(str, claimed[:5]))}")
                evidence.append(_claim_place(reading))
        if lacking and not evidence and reading.run.claim.file is not None:
            evidence.append(_claim_place(reading))
        return lacking, evidence, minor


def _only_evaluations(reading: Reading) -> bool:
    """Whether the logs are of evaluations alone, by content and by name."""
    names = [r.file.rsplit("/", 1)[-1].lower() for r in reading.run.logs if r.metrics]
    trained = any(r.last_step is not None for r in reading.run.logs)
    return not trained and any("eval" in n for n in names) and not any("train" in n for n in names)


def _outside(reading: Reading) -> list[SubmissionFile]:
    """Changes that are not to this pull request's own record folders."""
    submission = reading.submission
    own = {
        folder.path for folder in submission.folders
        if folder.path and any(f.change is Change.ADDED and f.name.endswith(".py") for f in folder.files)
    }  # fmt: skip
    return [f for f in submission.outside if not any(f.path.startswith(f"{path}/") for path in own)]


def _scope(reading: Reading) -> str:
    if reading.submission.outside or reading.submission.kind.value != "record":
        return ""
    return "" if any(f.change is Change.UNCHANGED for f in reading.folder.files) else ", and nothing else is changed"


def _may_be_log(file: SubmissionFile) -> bool:
    if is_log(file):
        return file.size > 0
    name = file.name.lower()
    return (
        name.endswith(_LOG_SUFFIX)
        and bool(_LOG_NAME.search(name))
        and not name.startswith("readme")
        and file.size > 200
    )


def _place(file: SubmissionFile, role: str) -> Evidence:
    return Evidence(file=file.path, line=1, column=1, snippet=file.name, role=role)


def _any_place(files: list[SubmissionFile]) -> Evidence:
    first = min(files, key=lambda f: (f.path.count("/"), not f.name.lower().startswith("readme"), f.path))
    return _place(first, "among the files that are there")


def _claim_place(reading: Reading) -> Evidence:
    claim = reading.run.claim
    line = claim.val_bpb_line or 1
    text = reading.line_text(claim.file or "", line) or ""
    role = "what is claimed" if claim.val_bpb_line is not None else "among the files that are there"
    return Evidence(file=claim.file or "submission.json", line=line, column=1, snippet=text[:200], role=role)


def _log_place(reading: Reading) -> Evidence:
    run = reading.run.logs[0]
    text = reading.line_text(run.file, run.first_line) or ""
    return Evidence(file=run.file, line=run.first_line, column=1, snippet=text[:200], role="a log of an evaluation")


_LOG = "seed: 42\nstep:100/100 train_loss:2.1 train_time:599000ms\n"
_LOG += "final_int8_zlib_roundtrip val_loss:2.08 val_bpb:1.2316\n"
_JSON = '{"track": "10min_16mb", "val_bpb": 1.2316, "seeds": [42]}\n'
_SCRIPT = script('model = GPT()\nprint(f"final_int8_zlib_roundtrip val_bpb:{1.0:.4f}")')

MissingFiles.VIOLATION = (
    Example("no log", {"README.md": "# Run\n", "submission.json": _JSON, "train_gpt.py": _SCRIPT}, Status.ACTIVE),
    Example(
        "no README",
        {"submission.json": _JSON, "train_gpt.py": _SCRIPT, "train.log": _LOG},
        Status.ACTIVE,
    ),
    Example(
        "a stub instead of the script",
        {
            "README.md": "# Run\n",
            "submission.json": _JSON,
            "train.log": _LOG,
            "train_gpt.py": 'import json\n\nprint(json.load(open("submission.json"))["val_bpb"])\n',
        },
        Status.ACTIVE,
    ),
    Example(
        "the log of one of two claimed seeds",
        {
            "README.md": "# Run\n",
            "submission.json": _JSON.replace("[42]", "[42, 7]"),
            "train_gpt.py": _SCRIPT,
            "train_seed42.log": _LOG,
        },
        Status.ACTIVE,
    ),
)
MissingFiles.LEGAL = (
    Example(
        "whole",
        {"README.md": "# Run\n", "submission.json": _JSON, "train_gpt.py": _SCRIPT, "train.log": _LOG},
        Status.CLEAN,
    ),
    Example(
        "other names, logs in a folder",
        {
            "README.md": "# Run\n",
            "submission_int8.json": "{}\n",
            "submission.json": _JSON,
            "train_gpt_small.py": _SCRIPT,
            "logs/seed_42.txt": _LOG,
        },
        Status.CLEAN,
    ),
)
