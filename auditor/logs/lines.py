"""A log as lines: what is output and what is embedded source, and the line shapes every reader needs."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import cached_property

from auditor.text import TextIndex, lines_with, matches

PREFIX = re.compile(
    r"^(?:\s*(?:\[?\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[\d.,+:]*Z?\]?|\[\d\d:\d\d(?::\d\d)?[\d.,]*\]|"
    r"\[?rank\s?:?\d+\]?:?|\[default\d+\]:?|(?:INFO|WARNING|DEBUG)(?::\w+)?:|\[\d+(?:\.\d+)?s\]))+\s*",
    re.I,
)
NUMBER = r"[-+]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][-+]?\d+)?"
STEP = re.compile(
    r"(?i)^\W{0,3}(?:(?:step|s|iter(?:ation)?)\s*[:=# ]?\s*)?\d+\s*/\s*\d+|"
    r"^\W{0,3}(?:step|iter(?:ation)?|s)\s*[:=# ]\s*\d+"
)
RULE = re.compile(r"^[=\-*]{20,}\s*$")


def without_prefix(line: str) -> str:
    """A line without the time, rank or level that a logger or launcher put before it."""
    if line[:1].isalpha() and line[0] not in "rRiIwWdD":
        return line  # no prefix begins so; most lines do
    found = PREFIX.match(line)
    return line[found.end() :] if found is not None else line


@dataclass(frozen=True)
class LoggedValue:
    """A value as printed and its 1-based line."""

    value: str
    line: int


@dataclass(frozen=True)
class LogFile:
    """One log: its text by line, and the 1-based inclusive line ranges that are embedded source code."""

    path: str
    index: TextIndex = field(repr=False)
    embedded_source: tuple[tuple[int, int], ...] = ()

    def in_source(self, line: int) -> bool:
        """Whether a line belongs to embedded source."""
        return any(first <= line <= last for first, last in self.embedded_source)

    @cached_property
    def output(self) -> list[tuple[int, int]]:
        """Character ranges of the whole log that are output."""
        return self.outputs(1, len(self.index))

    def outputs(self, first: int, last: int) -> list[tuple[int, int]]:
        """Character ranges of lines ``first`` to ``last`` that are output, not embedded source."""
        index = self.index
        ranges: list[tuple[int, int]] = []
        begin = first
        for low, high in (*self.embedded_source, (last + 1, last + 1)):
            if high < begin:
                continue
            end = min(low - 1, last)
            if begin <= end:
                stop = index.starts[end] if end < len(index) else len(index.text)
                ranges.append((index.starts[begin - 1], stop))
            begin = max(begin, high + 1)
            if begin > last:
                break
        return ranges

    def find(
        self, pattern: str | re.Pattern[str], first: int = 1, last: int | None = None, *, words: Collection[str] = ()
    ) -> list[LoggedValue]:
        """Lines ``first`` to ``last`` that contain ``pattern`` (fixed text or regex), source left out.

        ``words``, in lower case, are what a match cannot do without, one or another: see :func:`lines_with`.
        """
        index = self.index
        last = len(index) if last is None else min(last, len(index))
        found: list[LoggedValue] = []
        for begin, end in self.outputs(first, last):
            offsets: Iterable[int]
            if isinstance(pattern, str):
                offsets = (at for at, _ in lines_with(index.text, (pattern,), begin, end))
            elif words:
                offsets = (m.start() for m in matches(pattern, index.text, index.lower, words, begin, end))
            else:
                offsets = (m.start() for m in pattern.finditer(index.text, begin, end))
            for offset in offsets:
                line = index.line_of(offset)
                if not found or found[-1].line != line:
                    found.append(LoggedValue(index.line(line)[:2000], line))
        return found
