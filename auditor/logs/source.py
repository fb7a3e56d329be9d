"""Source code that a log prints, told apart from the output around it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from auditor.logs.lines import RULE, STEP
from auditor.logs.metrics import line_metrics
from auditor.text import TextIndex

_IMPORT = re.compile(r"\n\ufeff?(?:import [A-Za-z_]|from [\w.]+ import\b)")
_CODE = re.compile(
    r"^\ufeff?(?:import [A-Za-z_]|from [\w.]+ import\b|def \w+\(|class \w+\s*[(:]|@\w|if __name__\b|"
    r"async def )"
)
_PACKED = re.compile(r"^(?:exec\s*\(|import [\w, .]+;|\w+\s*=\s*\w+\()")
_MAIN_GUARD = re.compile(r"^if __name__\b")
_GUARD_LINE = re.compile(r"\nif __name__\b")
_STATEMENT = re.compile(
    r"^(?:[A-Za-z_][\w.\[\], ]*\s*(?::[^=\n]+)?=\s|[\w.]+\(|@\w|"
    r"(?:with|for|if|try|else|elif|except|finally|while|assert|raise|del|global)\b)"
)


def embedded_source_ranges(index: TextIndex) -> Iterator[tuple[int, int]]:
    """Line ranges (1-based, inclusive) in which a log prints a program's source.

    Scripts of this contest print themselves before they start, so a dump begins with imports and ends at the
    main guard or at the rule printed after it. A packed script is an import followed by ``exec(...)``.
    """
    done = 0
    for match in _IMPORT.finditer(index.after_newline):
        first = index.line_of(match.start())
        if first <= done:
            continue
        ahead = [index.line(n) for n in range(first, min(first + 80, len(index)) + 1)]
        if not (sum(1 for line in ahead if _CODE.match(line)) >= 3 or any(_PACKED.match(x) for x in ahead[:4])):
            continue
        last = _source_end(index, first)
        begin = _docstring_start(index, first, done)
        yield begin, last
        done = last


def headless_source_ranges(index: TextIndex, known: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Dumps whose beginning is lost (overwritten or cut): found from their main guard upwards."""
    floor = 0
    for match in _GUARD_LINE.finditer(index.after_newline):
        guard = index.line_of(match.start())
        if any(first <= guard <= last for first, last in known):
            continue
        begin = guard
        while begin - 1 > floor and _like_source(index.line(begin - 1)):
            begin -= 1
        if guard - begin < 20:
            continue  # a main guard on its own proves nothing
        floor = _source_end(index, guard)
        yield begin, floor


def _like_source(line: str) -> bool:
    if not line.strip() or line.lstrip().startswith("#"):
        return True
    if not (line[0] in " \t)]}\"'" or _CODE.match(line) or _STATEMENT.match(line)):
        return False
    return not any(line_metrics(line, 1)) and not STEP.match(line.strip())


def _source_end(index: TextIndex, first: int) -> int:
    last_code = number = first
    while number <= len(index):
        line = index.line(number)
        if line[:1] in ("", " ", "\t"):
            if number - last_code > 1500:
                break
        elif _CODE.match(line) or _PACKED.match(line):
            last_code = number
            if _MAIN_GUARD.match(line):
                number += 1
                while number <= len(index) and (not (text := index.line(number)).strip() or text[0] in " \t"):
                    number += 1
                following = index.line(number)
                last_code = number - 1
                if number > len(index) or not (_CODE.match(following) or following.startswith("#")):
                    break
                continue
        elif RULE.match(line) and number > first:
            after = [t for n in range(number + 1, number + 5) if (t := index.line(n)).strip()]
            if not any(t[0] in " \t#\"'" or _CODE.match(t) for t in after[:2]):
                return number
        elif number - last_code > 1500:
            break
        number += 1
    number = last_code + 1
    while number <= len(index) and (text := index.line(number)) and (not text.strip() or text[0] in " \t)]}"):
        number += 1
    return number - 1


def _docstring_start(index: TextIndex, first: int, floor: int) -> int:
    """Walk up from the first import over comments and one docstring."""

    def skip(number: int) -> int:
        while number - 1 > floor and (not (t := index.line(number - 1).strip()) or t.startswith("#")):
            number -= 1
        return number

    begin = skip(first)
    above = index.line(begin - 1).rstrip() if begin - 1 > floor else ""
    quote = next((q for q in ('"""', "'''") if above.endswith(q)), None)
    if quote:
        if above.lstrip().startswith(quote) and len(above.strip()) >= 6:
            return skip(begin - 1)
        for number in range(begin - 2, max(floor, begin - 200), -1):
            if index.line(number).startswith((quote, "r" + quote)):
                return skip(number)
    return begin
