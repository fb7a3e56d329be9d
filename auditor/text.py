"""Line bookkeeping shared by the readers of logs, documents and scripts."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import cached_property

_NEWLINE = re.compile("\n")
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[@-Z\\-_])")

_BOOLEANS = {
    **dict.fromkeys(("true", "yes", "on", "enabled"), "1"),
    **dict.fromkeys(("false", "no", "off", "disabled"), "0"),
}

MAX_LINE = 20_000
"""Longer lines (packed code, dumped tensors) are never parsed."""


@dataclass(frozen=True)
class TextIndex:
    """A text with 1-based line numbers as editors count them (by line feed)."""

    text: str

    @classmethod
    def of(cls, text: str) -> TextIndex:
        """Index ``text`` after removing terminal colour codes, which change no line number."""
        return cls(_ANSI.sub("", text) if "\x1b" in text else text)

    @cached_property
    def starts(self) -> list[int]:
        """Offset at which each line begins."""
        return [0, *(m.end() for m in _NEWLINE.finditer(self.text))]

    @cached_property
    def after_newline(self) -> str:
        """The text after one more line feed.

        A pattern that begins with a line feed finds the beginnings of lines in it many times faster than one that
        begins with "^" does, which the engine tries at every character; a match starts where its line does in
        :attr:`text`.
        """
        return f"\n{self.text}"

    @cached_property
    def lower(self) -> str:
        """The text in lower case, each character where it stands in :attr:`text`."""
        return lower(self.text)

    def line_of(self, offset: int) -> int:
        """The 1-based line that holds the character at ``offset``."""
        return bisect_right(self.starts, offset)

    def line(self, number: int) -> str:
        """The text of a 1-based line; of a progress bar redrawn with carriage returns, its last state."""
        if not 1 <= number <= len(self.starts):
            return ""
        end = self.starts[number] - 1 if number < len(self.starts) else len(self.text)
        raw = self.text[self.starts[number - 1] : end].rstrip("\r")
        return raw.rsplit("\r", 1)[-1] if "\r" in raw else raw

    def __len__(self) -> int:
        return len(self.starts)


def lower(text: str) -> str:
    """``text`` in lower case and of the same length: one capital letter of Unicode would become two characters."""
    return text.replace("\u0130", "i").lower()


def lines_with(text: str, words: Iterable[str], begin: int = 0, end: int | None = None) -> list[tuple[int, int]]:
    """The lines of ``text`` from ``begin`` to ``end`` that hold one of ``words``: their offsets, line feed left out.

    A plain text is found about a hundred times faster than a pattern that may begin with any letter, so what a
    pattern cannot do without is looked up first, and the pattern is tried on the lines found.
    """
    end = len(text) if end is None else end
    found: dict[int, int] = {}
    for word in words:
        at = text.find(word, begin, end)
        while at >= 0:
            stop = text.find("\n", at, end)
            stop = end if stop < 0 else stop
            found[max(text.rfind("\n", begin, at) + 1, begin)] = stop
            at = text.find(word, stop, end)
    return sorted(found.items())


def matches(
    pattern: re.Pattern[str], text: str, low: str, words: Iterable[str], begin: int = 0, end: int | None = None
) -> Iterator[re.Match[str]]:
    """Matches of ``pattern`` within lines that hold one of ``words`` (lower case; ``low`` is the lower-cased text)."""
    for first, last in lines_with(low, words, begin, end):
        yield from pattern.finditer(text, first, last)


def decimal(text: object) -> Decimal | None:
    """``text`` as an exact finite decimal, or None. Written digits are kept, so 1.0810 is not 1.081."""
    if isinstance(text, bool) or text is None:
        return None
    try:
        value = Decimal(str(text).strip())
    except (InvalidOperation, ValueError):
        return None
    # figures have few digits; a million places would only serve to stall the arithmetic
    return value if value.is_finite() and decimals(value) <= 40 and abs(value.adjusted()) <= 40 else None


def decimals(value: Decimal) -> int:
    """Number of digits written after the point."""
    exponent = value.as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def canonical(value: str) -> str:
    """A form in which two spellings of one setting value are equal: True/true/"1.0"/1, quotes, case."""
    text = value.strip().strip("'\"").strip()
    number = decimal(text) if len(text) < 40 else None
    if number is not None and abs(number.adjusted()) < 40:
        return f"{number.normalize():f}" if number else "0"
    lowered = text.lower()
    return _BOOLEANS.get(lowered, lowered)
