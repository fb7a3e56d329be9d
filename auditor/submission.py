"""What a source yields: one submission, as files in memory, before anything has been read into it.

Sources build these objects; the rest of the auditor only reads them. File contents are loaded on first use,
because a pull request may carry hundreds of megabytes that no rule ever looks at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Literal

MAX_FILE_BYTES = 64 * 1024 * 1024
"""Larger files are listed but never read."""


class Change(StrEnum):
    """What the pull request does to a file, against the commit it branched from."""

    ADDED = "added"
    MODIFIED = "modified"
    DELETED = "deleted"
    UNCHANGED = "unchanged"


class SubmissionKind(StrEnum):
    """What a pull request is, judged by the paths it touches."""

    RECORD = "record"  # adds or changes at least one folder below records/ that holds code
    CODE_ELSEWHERE = "code-elsewhere"  # code, but neither in a record folder nor the root script
    ROOT_SCRIPT = "root-script"  # changes the repository's own train_gpt.py (or other root scripts) only
    DOCUMENTS = "documents-only"  # no code at all
    EMPTY = "empty"  # no difference from its base


@dataclass(frozen=True)
class SubmissionFile:
    """One file of the submission at its head commit.

    ``path`` is POSIX and relative to the repository (or to the folder that was given). ``problem`` is set when
    the content is deliberately not read (symlink, submodule, over MAX_FILE_BYTES, vanished); ``data`` is then b"".
    """

    path: str
    size: int
    change: Change
    load: Callable[[], bytes] = field(repr=False, compare=False)
    problem: str | None = None

    @cached_property
    def data(self) -> bytes:
        """The raw bytes (empty when ``problem`` is set)."""
        return b"" if self.problem else self.load()

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[-1]

    @cached_property
    def text(self) -> str:
        """The content decoded for reading: BOMs honoured, undecodable bytes replaced. Never raises."""
        data = self.data
        for bom, encoding in (
            (b"\xef\xbb\xbf", "utf-8-sig"),
            (b"\xff\xfe", "utf-16"),
            (b"\xfe\xff", "utf-16"),
        ):
            if data.startswith(bom):
                return data.decode(encoding, "replace")
        return data.decode("utf-8", "replace")


Track = Literal["record", "non-record", "unknown"]


@dataclass(frozen=True)
class RecordFolder:
    """One folder that holds a runnable submission: ``records/<track>/<name>`` or a local folder.

    ``files`` are all files below it at the head commit, including those the pull request leaves unchanged,
    sorted by path.
    """

    path: str
    track: Track
    files: tuple[SubmissionFile, ...]

    def file(self, relative: str) -> SubmissionFile | None:
        """The file at ``relative`` below this folder, or None."""
        wanted = f"{self.path}/{relative}" if self.path not in ("", ".") else relative
        return next((f for f in self.files if f.path == wanted), None)


@dataclass(frozen=True)
class Submission:
    """A submission as its source gives it.

    ``number``, ``author``, ``title``, ``body`` and ``state`` are None where the source cannot know them;
    ``metadata_note`` then says why ("metadata unavailable: ..."). They are shown, and never used as evidence.
    ``files`` are the files the pull request adds, changes or deletes; ``folders`` the record folders among them.
    """

    source: str
    repository: str | None
    number: int | None
    head: str | None
    base: str | None
    kind: SubmissionKind
    folders: tuple[RecordFolder, ...]
    files: tuple[SubmissionFile, ...]
    author: str | None = None
    title: str | None = None
    body: str | None = None
    state: str | None = None
    metadata_note: str | None = None
    opened: str | None = None
    """The day (UTC, ISO 8601) on which it was opened: as GitHub tells it, else that of the first commit of the branch
    that holds the newest record folder's files. None where neither is known."""

    @property
    def outside(self) -> tuple[SubmissionFile, ...]:
        """What a pull request changes that belongs to no record folder, or to one that was there before it.

        Files that it only adds to a record folder are its own. Empty for what is no pull request, or where the
        commit it branched from is not known.
        """
        if self.number is None or self.base is None:
            return ()
        return tuple(
            f
            for f in self.files
            if f.change is not Change.ADDED or not ("records/" in f.path and f.path.count("/") >= 2)
        )
