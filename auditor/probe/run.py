"""Runs the chosen probes on one submission."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from auditor.reading import Reading


@dataclass
class Bench:
    """What a probe gets to work with.

    ``deadline`` is a reading of time.monotonic() by which the probe should be done; ``progress`` takes one line for
    whoever is watching; ``sandboxed`` is False only if a person typed --no-sandbox.
    """

    reading: Reading
    deadline: float
    progress: Callable[[str], None] = lambda message: None
    sandboxed: bool = True

    def left(self) -> float:
        """Seconds that are left; not below zero."""
        return max(0.0, self.deadline - time.monotonic())
