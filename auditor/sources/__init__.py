"""Where submissions come from: GitHub, a local mirror of it, or the file system.

All sources yield the same :class:`~auditor.submission.Submission`; none executes, checks out or follows
anything that a submission contains.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from auditor.errors import SourceError
from auditor.sources.base import Source
from auditor.sources.git_mirror import GitMirror, MirrorSource
from auditor.sources.github import GitHubSource
from auditor.sources.local import LocalSource
from auditor.submission import Submission

__all__ = [
    "GitHubSource",
    "GitMirror",
    "LocalSource",
    "MirrorSource",
    "Source",
    "open_submission",
    "source_for",
]

_ACCEPTED = "https://github.com/OWNER/REPO/pull/N, OWNER/REPO#N, a folder, or a .py file"
_OWNER_AND_NAME = r"(?P<owner>[A-Za-z0-9][A-Za-z0-9-]{0,38})/(?P<name>(?!\.{1,2}[/#])[A-Za-z0-9._-]{1,100})"
_PULL_REQUEST = (
    re.compile(rf"https?://(?:www\.)?github\.com/{_OWNER_AND_NAME}/pull/(?P<number>\d{{1,9}})(?:[/?#].*)?", re.I),
    re.compile(rf"{_OWNER_AND_NAME}#(?P<number>\d{{1,9}})"),
)


def open_submission(
    source: str, *, mirror: Path | None = None, progress: Callable[[str], None] | None = None
) -> Submission:
    """The submission at an address.

    ``source`` is a pull request (its URL or ``OWNER/REPO#N``), a local folder, or a single .py file. With
    ``mirror``, a bare git repository that holds ``refs/pull/*/head``, pull requests are read from there and
    nothing is fetched. ``progress`` is told, in a few words, about each step that may take a while. Raises
    SourceError, in one line, when the address isn't one of these or nothing can be had from it.
    """
    return source_for(source, mirror=mirror, progress=progress).load()


def source_for(source: str, *, mirror: Path | None = None, progress: Callable[[str], None] | None = None) -> Source:
    """The source that an address names; see :func:`open_submission`."""
    address = source.strip()
    for pattern in _PULL_REQUEST:
        match = pattern.fullmatch(address)
        if match is None:
            continue
        owner, name, number = match["owner"], match["name"], int(match["number"])
        shown = f"https://github.com/{owner}/{name}/pull/{number}"
        if mirror is not None:
            return MirrorSource(mirror, f"{owner}/{name}", number, shown)
        return GitHubSource(owner, name, number, source=shown, progress=progress)
    try:
        path = Path(source).expanduser()
        if source and (path.is_dir() or (path.is_file() and path.suffix == ".py")):
            return LocalSource(path, source)
    except (OSError, ValueError, RuntimeError):
        pass
    readable = address.encode("unicode_escape").decode("ascii")
    readable = readable if len(readable) <= 200 else f"{readable[:200]}..."
    raise SourceError(f"'{readable}' is not a submission; accepted are {_ACCEPTED}")
