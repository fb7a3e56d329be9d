"""A sandbox of Linux namespaces, by bubblewrap.

Inside: no network (not even the host's loopback), the system and whatever is named read-only, a private /tmp and
/proc, one writable folder /out, an environment of only what is given, no privileges to gain. From outside the run is
watched and, past any limit, its whole process tree is killed with its PID namespace.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import IO

import psutil

from auditor.errors import AuditorError
from auditor.sandbox.guard import Ear, furnish
from auditor.sandbox.result import Attempt, End, Limits, SandboxResult, size_of

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc/alternatives", "/etc/ld.so.cache")
_GPU = "/dev/nvidia*"
_POLL = 0.01
_MEASURE = 0.2
"""Seconds between looks at the process count, and between those at memory and files."""


class SandboxError(AuditorError):
    """There is no sandbox here, so nothing was run."""


def _base(arguments: Sequence[str] = ()) -> list[str]:
    return [
        *(
            shutil.which("bwrap") or "bwrap",
            "--unshare-all",
            "--unshare-user",
            "--disable-userns",
            "--die-with-parent",
            "--new-session",
        ),
        *("--cap-drop", "ALL", "--clearenv", "--hostname", "sandbox", *arguments),
    ]


@cache
def _problem() -> str | None:
    if not sys.platform.startswith("linux"):
        return "the sandbox needs Linux"
    if shutil.which("bwrap") is None:
        return "bubblewrap is missing (Debian, Ubuntu: apt install bubblewrap)"
    trial = [*_base(), *_read_only(_SYSTEM), "--proc", "/proc", "--dev", "/dev", "--", "/bin/true"]
    done = subprocess.run(trial, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    return f"bubblewrap can't make a sandbox here ({done.stderr.strip()[:160] or 'no reason given'})"


def require() -> None:
    """Make sure that a sandbox can be had.

    Raises:
        SandboxError: bubblewrap is missing, or user namespaces are off.
    """
    problem = _problem()
    if problem is not None:
        raise SandboxError(f"{problem}; --no-sandbox runs the submission without protection")


def _read_only(paths: Sequence[str]) -> list[str]:
    arguments: list[str] = []
    for path in paths:
        if os.path.islink(path):
            arguments += ["--symlink", os.readlink(path), path]
        elif os.path.exists(path):
            arguments += ["--ro-bind", path, path]
    return arguments


@dataclass
class Sandbox:
    """One place to run things in.

    ``output`` is the host folder that appears as /out, the only one that can be written to. ``mounts`` maps paths in
    the sandbox to host paths, read-only. ``environment`` is all there is besides PATH, HOME and the like. ``gpu``
    passes the NVIDIA devices. ``protected=False`` runs without a sandbox, and the result says so.
    """

    output: Path
    mounts: Mapping[str, Path] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    gpu: bool = False
    protected: bool = True
    progress: Callable[[str], None] | None = None

    def run(self, command: Sequence[str], *, directory: str = "/out") -> SandboxResult:
        """Run ``command`` (a program and its arguments, as seen inside) to its end or to the first limit.

        Raises:
            SandboxError: there is no sandbox here.
        """
        if self.protected:
            require()
        self.output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="guard-") as guard:
            folder = Path(guard)
            furnish(folder)
            with Ear(folder) as ear:
                return self._watch(self._command(command, folder, directory), ear, directory)

    def _command(self, command: Sequence[str], guard: Path, directory: str) -> list[str]:
        if not self.protected:
            return list(command)
        interpreter = [p for p in dict.fromkeys((sys.prefix, sys.base_prefix)) if not p.startswith("/usr")]
        arguments = _read_only(_SYSTEM)
        arguments += ["--proc", "/proc", "--dev", "/dev", "--size", str(self.limits.scratch), "--tmpfs", "/tmp"]
        arguments += _read_only(interpreter)
        arguments += ["--ro-bind", str(guard), "/guard", "--bind", str(self.output.absolute()), "/out"]
        if self.gpu:
            for device in sorted(Path("/dev").glob(_GPU.rsplit("/", 1)[-1])):
                arguments += ["--dev-bind", str(device), str(device)]
        for inside, outside in self.mounts.items():
            arguments += ["--ro-bind", str(outside.absolute()), inside]
        path = os.pathsep.join(["/guard/bin", str(Path(sys.executable).parent), "/usr/bin", "/bin"])
        environment = {
            **{"PATH": path, "HOME": "/tmp", "LANG": "C.UTF-8", "PYTHONPATH": "/guard/python", "USER": "sandbox"},
            **{"PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": "/tmp"},
            **self.environment,
        }
        if "PYTHONPATH" in self.environment:
            environment["PYTHONPATH"] = f"/guard/python{os.pathsep}{self.environment['PYTHONPATH']}"
        for name, value in environment.items():
            arguments += ["--setenv", name, value]
        return [*_base(arguments), "--chdir", directory, "--", *command]

    def _confine(self) -> None:
        """In the child, before it becomes bubblewrap: limits that all processes inside inherit."""
        limits = self.limits
        for which, value in (
            (resource.RLIMIT_DATA, limits.memory),
            (resource.RLIMIT_CPU, limits.cpu),
            (resource.RLIMIT_FSIZE, limits.file_size),
            (resource.RLIMIT_NOFILE, limits.open_files),
            (resource.RLIMIT_CORE, 0),
        ):
            resource.setrlimit(which, (value, value))

    def _watch(self, command: list[str], ear: Ear, directory: str) -> SandboxResult:
        limits = self.limits
        start = time.monotonic()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=self._confine,
            start_new_session=True,
            cwd=None if self.protected else (self.output if directory == "/out" else directory),
            # bubblewrap is the first process inside, where its environment can be read: it gets none.
            env={} if self.protected else {**os.environ, **self.environment},
        )
        assert process.stdout is not None and process.stderr is not None
        out, err = _Tail(process.stdout, limits.kept_text, self.progress), _Tail(process.stderr, limits.kept_text)
        end = End.FINISHED
        measured = 0.0
        try:
            while process.poll() is None:
                ear.listen()
                now = time.monotonic()
                measure = now - measured > _MEASURE
                reached = self._reached(process.pid, now - start, measure=measure)
                measured = now if measure else measured
                if reached is not None:
                    end = reached
                    break
                time.sleep(_POLL)
        finally:
            _kill(process, self.protected)
        out.close()
        err.close()
        if end is End.FINISHED and size_of(self.output) > limits.output:
            end = End.OUTPUT
        returncode = process.returncode if end is End.FINISHED else None
        if returncode is not None and (returncode < 0 or returncode in (128 + signal.SIGKILL, 128 + signal.SIGXCPU)):
            end = End.KILLED
        return SandboxResult(
            end=end,
            returncode=returncode,
            seconds=round(time.monotonic() - start, 3),
            stdout=out.text,
            stderr=err.text,
            attempts=(*ear.attempts(), *self._limit(end)),
            sandboxed=self.protected,
        )

    def _reached(self, pid: int, seconds: float, *, measure: bool) -> End | None:
        """The first limit that the tree of ``pid`` is past."""
        if seconds > self.limits.wall:
            return End.TIMEOUT
        if _exceeds(pid, self.limits.processes):
            return End.PROCESSES
        if not measure:
            return None
        try:
            tree = psutil.Process(pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return None
        resident = 0
        for member in tree:
            with contextlib.suppress(psutil.Error):
                resident += member.memory_info().rss
        if resident > self.limits.memory:
            return End.MEMORY
        if size_of(self.output) > self.limits.output:
            return End.OUTPUT
        return None

    def _limit(self, end: End) -> list[Attempt]:
        limits = self.limits
        told = {
            End.TIMEOUT: ("time", f"still running after {limits.wall:g} s"),
            End.MEMORY: ("memory", f"more than {limits.memory >> 20:,} MiB of memory"),
            End.PROCESSES: ("processes", f"more than {limits.processes} processes"),
            End.OUTPUT: ("output", f"more than {limits.output >> 20:,} MiB of files"),
        }
        if end not in told:
            return []
        kind, what = told[end]
        return [Attempt(kind=kind, what=what, seen_by="limit")]  # type: ignore[arg-type]


def _exceeds(pid: int, limit: int) -> bool:
    """Whether ``pid`` has more than ``limit`` descendants.

    Stops counting there: a fork bomb grows faster than all of it can be counted.
    """
    todo = [str(pid)]
    count = -1
    while todo:
        member = todo.pop()
        count += 1
        if count > limit:
            return True
        with contextlib.suppress(OSError):
            for thread in os.listdir(f"/proc/{member}/task"):
                with contextlib.suppress(OSError):
                    todo += Path(f"/proc/{member}/task/{thread}/children").read_text().split()
    return False


def _kill(process: subprocess.Popen[bytes], protected: bool) -> None:
    """End the whole tree: with the sandbox's first process its PID namespace goes, and everything in it."""
    if process.poll() is None:
        members: list[psutil.Process] = []
        with contextlib.suppress(psutil.Error):
            members = psutil.Process(process.pid).children(recursive=not protected)
        for member in members:
            with contextlib.suppress(psutil.Error):
                member.kill()
        process.kill()
    process.wait()


class _Tail:
    """Reads a stream to its end in a thread and keeps the last part of it."""

    def __init__(self, stream: IO[bytes], kept: int, progress: Callable[[str], None] | None = None) -> None:
        self._stream = stream
        self._kept = kept
        self._progress = progress
        self._data = bytearray()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        descriptor = self._stream.fileno()
        while piece := os.read(descriptor, 65536):
            self._data += piece
            if len(self._data) > 2 * self._kept:
                del self._data[: -self._kept]
            if self._progress is not None:
                lines = piece.decode("utf-8", "replace").strip().splitlines()
                if lines:
                    self._progress(lines[-1][:200])

    def close(self) -> None:
        self._thread.join(timeout=5)
        self._stream.close()

    @property
    def text(self) -> str:
        return bytes(self._data[-self._kept :]).decode("utf-8", "replace")
