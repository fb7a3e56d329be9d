"""What every source shares: the interface, the bounds, and what kind and folders the touched files make."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from auditor.submission import Change, RecordFolder, Submission, SubmissionFile, SubmissionKind, Track

MAX_FILES = 100_000
"""Upper bound on the files listed for one submission; a tree can be crafted to name billions of them."""

MAX_DEPTH = 100
"""Upper bound on nested folders. The deepest real submission has 20."""

SYMLINK = "symbolic link: not followed"
DELETED = "deleted: nothing to read at the head commit"
TOO_LARGE = "larger than 64 MiB: not read"
TOO_DEEP = f"more than {MAX_DEPTH} folders deep: not read"
UNSAFE_PATH = "unsafe path (absolute, or with '.' or '..' in it): not read"

_SCORE = re.compile(r'"[^"\n]*bpb[^"\n]*"\s*:\s*\d')
_MAX_SUBMISSION_JSON = 1024 * 1024

_CODE_SUFFIXES = frozenset(
    {
        ".bash",
        ".c",
        ".cc",
        ".cpp",
        ".cu",
        ".cuh",
        ".cxx",
        ".go",
        ".h",
        ".hpp",
        ".ipynb",
        ".java",
        ".jl",
        ".js",
    }
    | {".lua", ".mojo", ".pl", ".py", ".pyx", ".rs", ".sh", ".ts", ".zig"}
)
_NON_RECORD = re.compile(r"non[-_ ]?records?(?![a-z])|unlimited", re.IGNORECASE)
_RECORD = re.compile(r"track_10min|10[-_ ]?min|^record$", re.IGNORECASE)


class Source(Protocol):
    """Where a submission comes from."""

    def load(self) -> Submission:
        """The submission. Raises SourceError when it can't be obtained."""
        ...


def nothing() -> bytes:
    """The content of a file that is not read."""
    return b""


def shown_path(raw: bytes) -> str:
    """A path from a repository as text that is safe to print.

    Git allows any byte but NUL. What isn't valid UTF-8 or isn't printable (line breaks, terminal escapes)
    comes out as a backslash escape.
    """
    text = raw.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def is_unsafe(path: str) -> bool:
    """Whether a POSIX path could point outside the folder it is joined to."""
    return any(part in ("", ".", "..") for part in path.split("/"))


def is_code(path: str) -> bool:
    """Whether the file is a program, judged by its name. A packed ``train_gpt.<anything>`` is one."""
    name = path.rsplit("/", 1)[-1]
    dot = name.rfind(".")
    return (dot > 0 and name[dot:].lower() in _CODE_SUFFIXES) or is_train_script(name)


def is_train_script(name: str) -> bool:
    """Whether a file name is that of the contest's script or a variant (train_gpt_mlx.py, train_gpt.lzma)."""
    return name.startswith("train_gpt") and not name.endswith((".log", ".txt", ".md", ".json"))


def record_folder_of(path: str, holds_files: Callable[[str], bool]) -> str | None:
    """The record folder that ``path`` belongs to, or None when it isn't below ``records/``.

    Normally that is ``records/<track>/<name>``; submissions also come as ``records/<name>``, with
    ``records/`` or a track repeated, inside an unknown group (``records/<group>/<name>``, the group holding
    no file itself), or as a whole copied checkout (``<any>/records/track_*/<name>``). A file loose in
    ``records/`` or in a track belongs to that very folder. ``holds_files`` tells whether a folder holds a
    file directly.
    """
    parts = path.split("/")
    folders = len(parts) - 1
    start = _records_index(parts)
    if start is None:
        return None
    index = start + 1
    tracked = False
    while index < folders and _is_container(parts[index]):
        tracked = tracked or parts[index] != "records"
        index += 1
    if index >= folders:
        return "/".join(parts[:folders])
    name = "/".join(parts[: index + 1])
    if not tracked and index + 1 < folders and not holds_files(name):
        name = f"{name}/{parts[index + 1]}"
    return name


def is_container(folder: str) -> bool:
    """Whether a folder gathers record folders: ``records`` itself or one of its tracks."""
    parts = folder.split("/")
    start = _records_index([*parts, "x"])
    return start is not None and all(_is_container(part) for part in parts[start + 1 :])


def _is_container(name: str) -> bool:
    return name == "records" or name.startswith("track_")


def _records_index(parts: Sequence[str]) -> int | None:
    if parts[0] == "records" and len(parts) > 1:
        return 0
    for index in range(1, len(parts) - 2):
        if parts[index] == "records" and parts[index + 1].startswith("track_"):
            return index
    return None


def track_of(folder: str, files: Iterable[SubmissionFile] = ()) -> Track:
    """The track, from the folder's path; where that is silent, from ``track`` in its submission.json."""
    from_path = _track_in_path(folder)
    if from_path != "unknown":
        return from_path
    candidates = [f for f in files if f.name == "submission.json" and f.size <= _MAX_SUBMISSION_JSON]
    if not candidates:
        return "unknown"
    nearest = min(candidates, key=lambda f: (f.path.count("/"), f.path))
    from_path = _track_in_path(nearest.path)
    if from_path != "unknown":
        return from_path
    try:
        content = json.loads(nearest.text)
    except (ValueError, RecursionError):
        return "unknown"
    named = content.get("track") if isinstance(content, dict) else None
    if not isinstance(named, str):
        return "unknown"
    if _NON_RECORD.search(named):
        return "non-record"
    return "record" if _RECORD.search(named) else "unknown"


def _track_in_path(path: str) -> Track:
    for part in path.split("/"):
        if part.startswith("track_10min"):
            return "record"
        if re.fullmatch(r"(track[-_])?non[-_]records?(_.*)?", part):
            return "non-record"
    return "unknown"


def arrange(
    changed: Sequence[SubmissionFile],
    below: Callable[[str], Sequence[SubmissionFile]],
    holds_files: Callable[[str], bool],
) -> tuple[SubmissionKind, tuple[RecordFolder, ...]]:
    """What kind of submission the changed files make, and the folders in it that can be audited.

    ``below`` lists all files below a folder at the head commit; ``holds_files`` tells whether a folder holds
    a file directly. The folders are:

    * record: each record folder in which code changed;
    * root-script: a folder "" of the changed files that no other folder holds (logs and README of such a
      submission often lie below ``records/``), and each folder with a changed ``train_gpt*``;
    * code-elsewhere: each folder with a changed ``train_gpt*``, or else a folder "" of all changed files;
    * documents-only: each record folder that already held code, for whoever wants to look at it again, and each
      whose submission.json states a score: one without its script is not whole, and its logs can be read.
    """
    if not changed:
        return SubmissionKind.EMPTY, ()
    present = [f for f in changed if f.change is not Change.DELETED and f.problem != UNSAFE_PATH]
    homes = {f.path: record_folder_of(f.path, holds_files) for f in present}

    def record_folder(path: str) -> RecordFolder:
        # A track also holds everybody else's records, so of its loose files only the changed ones count.
        files = [f for f in present if homes[f.path] == path] if is_container(path) else below(path)
        return _folder(path, files)

    with_code = sorted({home for f in present if (home := homes[f.path]) is not None and is_code(f.path)})
    # Copies of other people's records, kept for study, are not what is submitted beside them.
    with_code = [path for path in with_code if path.split("/")[0] == "records"] or with_code
    if with_code:
        return SubmissionKind.RECORD, tuple(record_folder(path) for path in with_code)

    code = [f.path for f in changed if is_code(f.path)]
    if not code:
        touched = sorted({home for home in homes.values() if home is not None and not is_container(home)})
        folders = tuple(record_folder(path) for path in touched)
        return SubmissionKind.DOCUMENTS, tuple(
            f
            for f in folders
            if any(is_code(x.path) for x in f.files)
            or claims_score(x for x in f.files if x.change is not Change.UNCHANGED)
        )

    at_root = any("/" not in path for path in code)
    kind = SubmissionKind.ROOT_SCRIPT if at_root else SubmissionKind.CODE_ELSEWHERE
    scripts = {f.path.rpartition("/")[0] for f in present if is_train_script(f.name)} - {""}
    # A script in a subfolder of another script's folder belongs to the outer one.
    outer = sorted(s for s in scripts if not any(s.startswith(f"{other}/") for other in scripts))
    found = [_folder(path, below(path)) for path in outer]
    if kind is SubmissionKind.ROOT_SCRIPT or not found:
        rest = [f for f in present if not any(f.path.startswith(f"{path}/") for path in outer)]
        if any(is_code(f.path) for f in rest):
            found.insert(0, _folder("", rest))
    return kind, tuple(found)


def claims_score(files: Iterable[SubmissionFile]) -> bool:
    """Whether a submission.json among ``files`` gives a number for bits per byte."""
    return any(
        f.name == "submission.json" and f.size <= _MAX_SUBMISSION_JSON and _SCORE.search(f.text) is not None
        for f in files
    )


def _folder(path: str, files: Iterable[SubmissionFile]) -> RecordFolder:
    ordered = tuple(sorted(files, key=lambda f: f.path))
    return RecordFolder(path=path, track=track_of(path, ordered), files=ordered)
