"""What a run in the sandbox may use, how it ended, and what it tried."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from auditor.evidence import Attempt as Attempt

MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """The bounds of one run. Sizes in bytes, times in seconds.

    ``memory`` bounds the data of each process (RLIMIT_DATA) and the resident memory of all together; ``file_size`` one
    file; ``output`` all that lies in the output folder; ``scratch`` the private /tmp.
    """

    wall: float = 60.0
    cpu: int = 600
    memory: int = 4096 * MIB
    processes: int = 128
    file_size: int = 1024 * MIB
    output: int = 2048 * MIB
    scratch: int = 512 * MIB
    open_files: int = 1024
    kept_text: int = MIB


class End(StrEnum):
    """Why a run is over."""

    FINISHED = "finished"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    PROCESSES = "processes"
    OUTPUT = "output"
    KILLED = "killed"


class SandboxResult(BaseModel):
    """How a run ended. ``returncode`` is None when it was stopped from outside; the texts are the last of what came."""

    model_config = ConfigDict(frozen=True)

    end: End
    returncode: int | None
    seconds: float
    stdout: str
    stderr: str
    attempts: tuple[Attempt, ...] = ()
    sandboxed: bool = True

    @property
    def ok(self) -> bool:
        """Whether the code ran to its end without an error."""
        return self.end is End.FINISHED and self.returncode == 0


def output_files(folder: Path) -> Iterator[Path]:
    """The regular files below an output folder. Links are not followed, and not returned: they may lead anywhere."""
    todo = [folder]
    while todo:
        with os.scandir(todo.pop()) as entries:
            for entry in sorted(entries, key=lambda e: e.name):
                if entry.is_dir(follow_symlinks=False):
                    todo.append(Path(entry.path))
                elif stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode):
                    yield Path(entry.path)


def size_of(folder: Path) -> int:
    """Bytes that the files below a folder take on disk, links not followed; what vanishes meanwhile counts nothing."""
    total = 0
    todo = [str(folder)]
    while todo:
        try:
            with os.scandir(todo.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(entry.path)
                    else:
                        total += entry.stat(follow_symlinks=False).st_blocks * 512
        except OSError:
            continue
    return total
