"""Runs the chosen probes on one record folder and gathers what they found."""

from __future__ import annotations

import difflib
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from auditor.errors import AuditorError, UsageError
from auditor.probe.base import Probe, discover
from auditor.probe.result import ProbeReport, ProbeResult, Stop
from auditor.reading import Reading

DEFAULT_TIMEOUT = 600.0
"""Seconds for all probes of one submission."""
_NEEDED = ("torch", "numpy", "sentencepiece", "psutil")


class ProbeError(AuditorError):
    """Probes can't be run here at all."""


@dataclass
class Bench:
    """What a probe gets to work with.

    ``folder`` is an empty folder of this run, shared by its probes and gone afterwards; ``deadline`` is a reading of
    time.monotonic() by which the probe should be done; ``progress`` takes one line for whoever is watching;
    ``sandboxed`` is False only if a person typed --no-sandbox; ``cache`` lets probes share what one sandboxed run
    answered for several of them; ``world`` is one line about the tiny world, by whoever builds it.
    """

    reading: Reading
    folder: Path
    deadline: float
    progress: Callable[[str], None]
    sandboxed: bool
    cache: dict[str, object]
    world: str = ""

    def left(self) -> float:
        """Seconds that are left; not below zero."""
        return max(0.0, self.deadline - time.monotonic())


def select(names: Sequence[str] | None) -> tuple[Probe, ...]:
    """The probes with these names, or all of them.

    Raises:
        UsageError: there is no such probe.
    """
    known = {probe.name: probe for probe in discover()}
    for name in names or ():
        if name not in known:
            near = difflib.get_close_matches(name.lower().replace("_", "-"), known, n=2)
            hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}"
            raise UsageError(f"unknown probe {name!r}: {hint}")
    return tuple(probe for probe in known.values() if not names or probe.name in names)


def require(*, sandboxed: bool = True) -> None:
    """Make sure that probes can be run here; nothing is imported that would take long.

    Raises:
        ProbeError: torch or another package is missing.
        SandboxError: there is no sandbox, and the run was to have one.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise ProbeError(
            f"probes need {' and '.join(missing)}: pip install 'parameter-golf-auditor[probe]', or make probe in a"
            " clone (any build of torch will do)"
        )
    if sandboxed:
        from auditor.sandbox import require as require_sandbox

        require_sandbox()


def run_probes(
    reading: Reading,
    names: Sequence[str] | None = None,
    *,
    timeout: float = DEFAULT_TIMEOUT,
    progress: Callable[[str], None] = lambda message: None,
    sandboxed: bool = True,
) -> ProbeReport:
    """Run the probes with these names (all by default) on one record folder.

    ``timeout`` is in seconds, for all of them together.

    Raises:
        UsageError: there is no such probe.
        ProbeError, SandboxError: nothing can be run here.
    """
    chosen = select(names)
    require(sandboxed=sandboxed)
    deadline = time.monotonic() + timeout
    results: list[ProbeResult] = []
    with tempfile.TemporaryDirectory(prefix="probe-") as folder:
        bench = Bench(reading, Path(folder), deadline, progress, sandboxed, {})
        for index, probe in enumerate(chosen):
            said = f"probe {index + 1}/{len(chosen)} {probe.name}"
            progress(said)
            bench.progress = lambda message, said=said: progress(f"{said}: {message}")  # type: ignore[misc]
            # A probe may take twice its share of what is left: the first do work that the others find done.
            start = time.monotonic()
            bench.deadline = start + max(0.0, deadline - start) * min(1.0, 2 / (len(chosen) - index))
            result = _run(probe, bench, timeout)
            result = result.model_copy(update={"seconds": round(time.monotonic() - start, 2)})
            results.append(result)
    submission = reading.submission
    return ProbeReport(
        source=submission.source,
        number=submission.number,
        head=submission.head,
        folder=reading.folder.path,
        script=reading.entry.program.file if reading.entry is not None else None,
        sandboxed=sandboxed,
        world=bench.world,
        results=tuple(results),
    )


def _run(probe: Probe, bench: Bench, timeout: float) -> ProbeResult:
    entry = bench.reading.entry
    if entry is None or entry.program.tree is None:
        problem = bench.reading.unreadable() or "no script was found"
        stop = Stop(kind="no-code", message=f"There is nothing to run: {problem}.")
        return ProbeResult.could_not_run(probe.name, stop, sandboxed=bench.sandboxed)
    if bench.left() <= 0:
        stop = Stop(kind="time", message=f"The {timeout:g} s for all probes were used up before it began.")
        return ProbeResult.could_not_run(probe.name, stop, sandboxed=bench.sandboxed)
    try:
        return probe.run(bench)
    except AuditorError:
        raise
    except Exception as error:
        if os.environ.get("AUDITOR_DEBUG") == "1":
            raise
        stop = Stop(
            kind="exception",
            message=f"The auditor itself failed ({type(error).__name__}: {error}); please report it.",
            exception=type(error).__name__,
        )
        return ProbeResult.could_not_run(probe.name, stop, sandboxed=bench.sandboxed)
