"""The bounds on reading a packed script: bytes, time, steps, stages. Beyond any of them reading stops."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

MAX_OUTPUT_BYTES = 64 * 1024 * 1024
"""What all decoders and decompressors of one script may produce together."""
MAX_WORKING_BYTES = 512 * 1024 * 1024
"""What all other values of one script may add up to, whether or not they are still alive."""
MAX_STAGES = 8
MAX_SECONDS = 5.0
MAX_STEPS = 3_000_000
MAX_CALL_DEPTH = 40
MAX_INTEGER_BITS = 1 << 20


class LimitError(Exception):
    """A bound was reached. The message completes the sentence "could not unpack: ..."."""


@dataclass
class Budget:
    """What is left for one script. Every method raises LimitError when its bound is passed."""

    deadline: float = field(default_factory=lambda: time.monotonic() + MAX_SECONDS)
    steps: int = MAX_STEPS
    output: int = MAX_OUTPUT_BYTES
    working: int = MAX_WORKING_BYTES

    def step(self) -> None:
        """Count one evaluation step; look at the clock now and then."""
        self.steps -= 1
        if self.steps < 0:
            raise LimitError(f"more than {MAX_STEPS:,} evaluation steps")
        if self.steps & 0xFF == 0:
            self.check_time()

    def check_time(self) -> None:
        if time.monotonic() > self.deadline:
            raise LimitError(f"more than {MAX_SECONDS:g} s")

    def produce(self, size: int) -> None:
        """Count ``size`` bytes of decoder output."""
        self.output -= size
        if self.output < 0:
            raise LimitError(f"more than {MAX_OUTPUT_BYTES >> 20} MiB of output")

    def allow(self, size: int) -> None:
        """Refuse, before it is built, one value of ``size`` bytes or items."""
        if size > MAX_OUTPUT_BYTES:
            raise LimitError(f"a value of more than {MAX_OUTPUT_BYTES >> 20} MiB")

    def hold(self, size: int) -> None:
        """Count a value of ``size`` bytes that now exists."""
        self.working -= size
        if self.working < 0:
            raise LimitError(f"more than {MAX_WORKING_BYTES >> 20} MiB of intermediate values")
