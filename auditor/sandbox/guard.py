"""What stands inside the sandbox to see what the code tries: shims on PATH and a Python audit hook.

Both write one line per attempt into a pipe whose other end is outside: what was told can't be taken back.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from auditor.sandbox.result import Attempt

SHIMMED = (
    "lrzip", "zpaq", "7z", "xz", "zstd", "brotli", "gcc", "g++", "cc", "c++", "clang", "clang++", "nvcc", "ninja",
    "make", "cmake", "cargo", "rustc", "apt", "apt-get", "dpkg", "pip", "pip3", "uv", "conda", "curl", "wget", "git",
    "ssh", "scp", "pyminify", "huggingface-cli", "aws", "gsutil", "docker", "sudo", "su",
)  # fmt: skip
"""Programs that submissions are known to call, and some that would do harm."""

_SHIM = """#!/bin/sh
printf 'program\\t%s %s\\n' "${0##*/}" "$*" > /guard/told
echo "${0##*/}: not available in the sandbox" >&2
exit 127
"""

_HOOK = """
import os as _os
import sys as _sys


def _hook(event, arguments, _open=_os.open, _write=_os.write, _close=_os.close, _busy=[False]):
    if _busy[0]:
        return
    if event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn"):
        kind, what = "program", arguments[0] if event != "subprocess.Popen" else arguments[1] or arguments[0]
    elif event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "urllib.Request"):
        kind, what = "network", arguments[-1] if event in ("socket.connect", "socket.sendto") else arguments[0]
    elif event == "open" and isinstance(arguments[0], (str, bytes)) and isinstance(arguments[2], int):
        path = _os.fsdecode(arguments[0])
        if not arguments[2] & (_os.O_WRONLY | _os.O_RDWR | _os.O_CREAT):
            return
        path = _os.path.abspath(path)
        if path.startswith(("/out/", "/tmp/", "/dev/", "/proc/self/", "/guard/")):
            return
        kind, what = "write-outside", path
    else:
        return
    _busy[0] = True
    try:
        text = repr(what) if not isinstance(what, str) else what
        line = kind + "\\t" + text.replace("\\n", " ")[:400] + "\\n"
        pipe = _open("/guard/told", _os.O_WRONLY | _os.O_NONBLOCK)
        _write(pipe, ("python\\t" + line).encode("utf-8", "replace"))
        _close(pipe)
    except OSError:
        pass
    finally:
        _busy[0] = False


_sys.addaudithook(_hook)
"""

_LINE = re.compile(r"(?:(python)\t)?(program|network|write-outside)\t(.*)")
MAX_TOLD = 1 << 16
MAX_ATTEMPTS = 200


def furnish(folder: Path) -> None:
    """Write the guard into ``folder``: ``bin/`` with the shims, ``python/`` with the hook, the pipe ``told``."""
    (folder / "bin").mkdir()
    (folder / "python").mkdir()
    for name in SHIMMED:
        shim = folder / "bin" / name
        shim.write_text(_SHIM, encoding="utf-8")
        shim.chmod(0o755)
    (folder / "python" / "sitecustomize.py").write_text(_HOOK, encoding="utf-8")
    os.mkfifo(folder / "told")
    (folder / "told").chmod(0o622)


class Ear:
    """The outer end of the guard's pipe."""

    def __init__(self, folder: Path) -> None:
        # Read and write: a pipe without a writer would end, and one without a reader would block the shims.
        self._pipe = os.open(folder / "told", os.O_RDWR | os.O_NONBLOCK)
        self._heard = b""

    def listen(self) -> None:
        """Take in what was told since; a flood is cut off, but always drained."""
        try:
            while piece := os.read(self._pipe, 65536):
                if len(self._heard) < MAX_TOLD:
                    self._heard += piece
        except BlockingIOError:
            pass

    def attempts(self) -> list[Attempt]:
        """What was told so far, each thing once."""
        self.listen()
        found: dict[Attempt, None] = {}
        for line in self._heard.decode("utf-8", "replace").split("\n"):
            match = _LINE.fullmatch(line)
            if match is None or len(found) >= MAX_ATTEMPTS:
                continue
            what = re.sub(r"[^\x20-\x7e]", "?", match[3])[:400].strip()
            seen_by = "audit-hook" if match[1] else "shim"
            found[Attempt(kind=match[2], what=what, seen_by=seen_by)] = None  # type: ignore[arg-type]
        return list(found)

    def __enter__(self) -> Ear:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._pipe)
