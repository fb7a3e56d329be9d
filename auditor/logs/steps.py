"""The training curve: the numbers of each step line, as printed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from auditor.logs.lines import NUMBER, STEP, without_prefix
from auditor.verdict import Frozen

if TYPE_CHECKING:
    from auditor.logs.run import RunLog

MAX_STEPS = 20_000

_STEP_LINE = re.compile(r"(?m)^[^\n]{0,60}?\d[^\n]*\b(?:loss|bpb|vl|tl)\b[^\n]*|^[^\n]{0,60}?\w*(?:_loss|_bpb)\b[^\n]*")
_NUMBERS = re.compile(r"\d+")
_PAIR = re.compile(rf"([A-Za-z_][\w/]*)\s*[:=]\s*({NUMBER})(?![\w.]*/)\s*(ms|s|m|min)?\b")


class StepLine(Frozen):
    """A line about one training step: ``values`` maps each key to its number with the printed digits."""

    step: int
    values: dict[str, str]
    line: int
    text: str


def read_steps(run: RunLog) -> Iterator[StepLine]:
    """The run's step lines, in order."""
    count = 0
    for match, line in run.scan(_STEP_LINE):
        text = without_prefix(match[0])
        head = STEP.match(text)
        number = _NUMBERS.search(head[0]) if head else None
        if head is None or number is None or len(text) > 1_000:
            continue
        values = {m[1].lower(): m[2] for m in _PAIR.finditer(text, head.end())}
        if values:
            count += 1
            if count > MAX_STEPS:
                return
            yield StepLine(step=int(number[0][:9]), values=values, line=line, text=text.strip())
