"""Making text from a submission safe and honest to show.

Everything a submission contains may be hostile: escape sequences that repaint the terminal, bidirectional
overrides that reorder code on screen, invisible characters that hide it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

# Control, format (bidi, zero-width, tags), surrogate, private use, unassigned, line and paragraph separators.
_INVISIBLE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# Letters and marks that display as nothing (Unicode's Default_Ignorable_Code_Point) or as a blank.
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
# Variation selectors, which can carry hidden text; not U+FE0F, which stands in many an honest emoji.
_INVISIBLE_RANGES = (("\ufe00", "\ufe0e"), ("\U000e0100", "\U000e01ef"))

_LANGUAGES = {"py": "python", "sh": "bash", "json": "json", "c": "c", "cpp": "cpp", "cu": "cuda"}

_CODE_SPAN = re.compile(r"`([^`\n]+)`")


def _is_invisible(char: str) -> bool:
    return (
        unicodedata.category(char) in _INVISIBLE_CATEGORIES
        or char in _INVISIBLE
        or any(low <= char <= high for low, high in _INVISIBLE_RANGES)
    )


def _escape(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def visible(text: str, limit: int = 1000) -> str:
    """``text`` on one line, with every character that does not show as itself written as an escape.

    Of a text longer than ``limit`` characters only the beginning is shown.
    """
    return visible_lines(shorten(text, limit)).replace("\n", " ").strip()


def visible_lines(text: str) -> str:
    """``text`` with its line breaks kept, tabs as spaces, and everything else that is invisible escaped."""
    if text.isascii() and text.isprintable():
        return text
    unified = text.replace("\r\n", "\n").expandtabs(4)
    return "".join(c if c == "\n" or not _is_invisible(c) else _escape(c) for c in unified)


def shorten(text: str, limit: int) -> str:
    """``text`` cut to ``limit`` characters, ending in an ellipsis if anything was cut."""
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def snippet(text: str, *, lines: int = 16, chars: int = 1200) -> str:
    """A piece of code made visible and bounded; says how many lines it leaves out.

    Cut before it is made visible, so that a huge line costs nothing.
    """
    rows = shorten(text.strip("\r\n"), chars).splitlines() or [""]
    if len(rows) > lines:
        rows = [*rows[:lines], f"… {len(rows) - lines} more lines"]
    return visible_lines("\n".join(rows))


def spans(text: str) -> Iterator[tuple[str, bool]]:
    """The parts of a sentence and whether each stood in backticks (as code): ``a `b` c`` has three."""
    end = 0
    for match in _CODE_SPAN.finditer(text):
        if match.start() > end:
            yield text[end : match.start()], False
        yield match[1], True
        end = match.end()
    if end < len(text):
        yield text[end:], False


def lexer_for(path: str) -> str:
    """The name of the language a file is written in, as pygments and GitHub both call it."""
    suffix = path.rsplit(".", 1)[-1].lower() if "." in path.rsplit("/", 1)[-1] else ""
    return _LANGUAGES.get(suffix, "text")
