"""Notes which stand-ins a submission used, and from which line. Needs nothing else: stand-ins import it."""

from __future__ import annotations

import os
import sys


def place(path: str) -> str:
    """A path below /submission, /out, /world or /job as it is here: elsewhere when there is no sandbox around us."""
    root, _, rest = path.lstrip("/").partition("/")
    found = os.environ.get(f"AUDITOR_{root.upper()}", f"/{root}")
    return f"{found}/{rest}" if rest else found


ADAPTED = place("/submission/adapted/")
"""Where the adapted modules lie; only calls from there are noted with a line."""
MAX_NOTED = 400

_noted: dict[tuple[str, str | None, int | None], int] = {}


class NoStandInError(Exception):
    """The submission needs something that a CPU does not have and that no stand-in exists for."""


def note(what: str) -> None:
    """Note that the stand-in ``what`` was used by the innermost line of the submission that led here."""
    frame = sys._getframe(1)
    for _ in range(12):
        if frame.f_code.co_filename.startswith(ADAPTED):
            break
        if frame.f_back is None:
            break
        frame = frame.f_back
    inside = frame.f_code.co_filename.startswith(ADAPTED)
    key = (what, frame.f_code.co_filename[len(ADAPTED) :] if inside else None, frame.f_lineno if inside else None)
    if key in _noted or len(_noted) < MAX_NOTED:
        _noted[key] = _noted.get(key, 0) + 1


def noted() -> list[dict[str, object]]:
    """What was noted: ``what``, ``file`` (relative to the submission) and ``line``, ``count``."""
    return [{"what": what, "file": file, "line": line, "count": n} for (what, file, line), n in _noted.items()]
