"""Submissions from a local folder, a checkout of the contest's repository, or a single script."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from auditor.errors import SourceError
from auditor.sources import base
from auditor.submission import (
    MAX_FILE_BYTES,
    Change,
    RecordFolder,
    Submission,
    SubmissionFile,
    SubmissionKind,
)

_SKIPPED_FOLDERS = frozenset({"__pycache__", "node_modules"})

# Opening must neither follow a link put there since the listing nor wait for the writer of a pipe.
_OPEN_FLAGS = os.O_RDONLY
for _name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):
    _OPEN_FLAGS |= getattr(os, _name, 0)


@dataclass(frozen=True)
class LocalSource:
    """A folder or a single .py file. ``source`` is the address to show for it.

    Every file counts as added. Hidden folders and __pycache__ are left out. A folder that has record folders
    below ``records/`` yields these; any other yields itself, as ".". ``load`` raises SourceError if the path
    can't be listed or holds more than MAX_FILES files.
    """

    path: Path
    source: str

    def load(self) -> Submission:
        try:
            root = self.path.resolve(strict=True)
            if root.is_dir():
                files = tuple(sorted(_listing(root), key=lambda f: f.path))
            elif root.is_file() and root.suffix == ".py":
                files = (_file(root, root.name),)
            else:
                raise SourceError(f"{self.source} is neither a folder nor a .py file")
        except (OSError, RuntimeError) as error:
            reason = error.strerror if isinstance(error, OSError) else None
            raise SourceError(f"{self.source} can't be read: {reason or error}") from error
        kind, folders = _arrange(root, files)
        what = "folder" if root.is_dir() else "file"
        return Submission(
            source=self.source,
            repository=None,
            number=None,
            head=None,
            base=None,
            kind=kind,
            folders=folders,
            files=files,
            metadata_note=f"metadata unavailable: read from a local {what}",
        )


def _arrange(root: Path, files: tuple[SubmissionFile, ...]) -> tuple[SubmissionKind, tuple[RecordFolder, ...]]:
    homes = {f.path.rpartition("/")[0] for f in files}
    if any(base.record_folder_of(f.path, homes.__contains__) for f in files):
        return base.arrange(files, lambda folder: _below(folder, files), homes.__contains__)
    if not files:
        return SubmissionKind.EMPTY, ()
    code = [f.path for f in files if base.is_code(f.path)]
    if not code:
        return SubmissionKind.DOCUMENTS, (_folder(".", files, root),) if base.claims_score(files) else ()
    if root.name == "records" or base.is_container(root.as_posix().lstrip("/")):
        # The gathering folder itself was given: each folder in it is a record.
        names = sorted({path.partition("/")[0] for path in code if "/" in path})
        if names:
            return SubmissionKind.RECORD, tuple(_folder(name, _below(name, files), root) for name in names)
    return SubmissionKind.RECORD, (_folder(".", files, root),)


def _folder(path: str, files: tuple[SubmissionFile, ...], root: Path) -> RecordFolder:
    return RecordFolder(path=path, track=base.track_of((root / path).as_posix(), files), files=files)


def _below(folder: str, files: tuple[SubmissionFile, ...]) -> tuple[SubmissionFile, ...]:
    return tuple(f for f in files if f.path.startswith(f"{folder}/"))


def _listing(root: Path) -> Iterator[SubmissionFile]:
    found = 0
    pending = [(root, "")]
    while pending:
        folder, prefix = pending.pop()
        try:
            with os.scandir(folder) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            if folder == root:
                raise
            yield _unread(prefix.rstrip("/"), f"folder can't be listed: {error.strerror or error}")
            continue
        for entry in entries:
            found += 1
            if found > base.MAX_FILES:
                raise SourceError(f"{root} holds more than {base.MAX_FILES:,} files: too many to audit")
            relative = prefix + base.shown_path(os.fsencode(entry.name))
            if entry.is_dir(follow_symlinks=False):
                if entry.name.startswith(".") or entry.name in _SKIPPED_FOLDERS:
                    continue
                if prefix.count("/") >= base.MAX_DEPTH:
                    yield _unread(relative, base.TOO_DEEP)
                else:
                    pending.append((folder / entry.name, f"{relative}/"))
            else:
                yield _file(folder / entry.name, relative)


def _file(path: Path, relative: str) -> SubmissionFile:
    try:
        status = path.lstat()
    except OSError as error:
        return _unread(relative, f"can't be read: {error.strerror or error}")
    if stat.S_ISLNK(status.st_mode):
        return _unread(relative, base.SYMLINK)
    if not stat.S_ISREG(status.st_mode):
        return _unread(relative, "not a regular file: not read")
    if status.st_size > MAX_FILE_BYTES:
        return _unread(relative, base.TOO_LARGE, status.st_size)
    if not os.access(path, os.R_OK):
        return _unread(relative, "can't be read: Permission denied", status.st_size)
    return SubmissionFile(relative, status.st_size, Change.ADDED, partial(_read, path, relative))


def _unread(relative: str, problem: str, size: int = 0) -> SubmissionFile:
    return SubmissionFile(relative, size, Change.ADDED, base.nothing, problem)


def _read(path: Path, relative: str) -> bytes:
    try:
        descriptor = os.open(path, _OPEN_FLAGS)
        with os.fdopen(descriptor, "rb") as stream:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise SourceError(f"{relative} is no longer a regular file")
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise SourceError(f"{relative} can't be read any more: {error.strerror or error}") from error
    if len(data) > MAX_FILE_BYTES:
        raise SourceError(f"{relative} has grown beyond 64 MiB since it was listed")
    return data
