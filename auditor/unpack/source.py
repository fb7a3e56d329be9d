"""From the bytes of a Python file to its text and tree, whatever the bytes are. Never raises on bad input."""

from __future__ import annotations

import ast
import codecs
import re
from dataclasses import dataclass
from functools import cached_property

from auditor.unpack.newer import PARSE_ERRORS, NewerSyntaxError, TooDeepError, parse_newer, quiet_parse
from auditor.unpack.values import PAYLOAD_LENGTH
from auditor.unpack.walk import walk

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
MAX_CODE = 2**20
"""Characters of code, long literals left out, that are parsed: a syntax tree takes up to 700 times as much."""
TOO_LARGE = "the text is too large to be parsed"
LONG_LITERAL = 200
_WORD = re.compile(r"[^\s'\"\\,;=()]+")
_COOKIE = re.compile(rb"^[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)")
_BLANK = re.compile(rb"^[ \t\f]*(?:#.*)?$")


@dataclass(frozen=True)
class Source:
    """A Python text and, where it could be parsed, its tree.

    ``text`` has "\\n" line ends only and no BOM. ``error`` says in one sentence, with line:column, why
    ``tree`` is None. ``note`` is a remark on a text that was read although Python itself would refuse the
    bytes.
    """

    text: str
    tree: ast.Module | None
    rewritten: bool
    error: str | None
    note: str | None = None

    @cached_property
    def long_literals(self) -> tuple[ast.Constant, ...]:
        """The literals of text and bytes that are long enough to be a payload."""
        constants = (n for n in walk(self.tree) if isinstance(n, ast.Constant)) if self.tree is not None else ()
        return tuple(n for n in constants if isinstance(n.value, str | bytes) and len(n.value) >= PAYLOAD_LENGTH)


def encoding_of(data: bytes) -> tuple[str, int]:
    """The encoding of a Python source and the length of its BOM: BOM, then PEP 263 cookie, then UTF-8."""
    for bom, name in _BOMS:
        if data.startswith(bom):
            return name, len(bom)
    for line in data[:4096].splitlines()[:2]:
        if match := _COOKIE.match(line):
            name = match[1].decode("ascii", "replace")
            try:
                info = codecs.lookup(name)
            except (LookupError, ValueError):
                return "utf-8", 0
            # Only encodings of text: "rot13", "zlib" and the like are codecs too.
            return (info.name if getattr(info, "_is_text_encoding", True) else "utf-8"), 0
        if not _BLANK.match(line):
            break
    return "utf-8", 0


def decode(data: bytes) -> tuple[str, str | None]:
    """The text of a Python source and a note when Python itself would refuse to decode it."""
    encoding, bom = encoding_of(data)
    body = data[bom:]
    note = None
    if encoding.startswith(("utf-16", "utf-32")):
        note = f"the file is encoded in {encoding.upper()}, which Python does not run"
    try:
        text = body.decode(encoding)
    except (UnicodeError, ValueError, LookupError) as error:
        where = f" at byte {bom + error.start}" if isinstance(error, UnicodeDecodeError) else ""
        note = f"the file is not valid {encoding.upper()}{where}"
        text = body.decode("utf-8" if not encoding.startswith("utf-") else encoding, "replace")
    return text.replace("\r\n", "\n").replace("\r", "\n"), note


def parse(text: str, note: str | None = None) -> Source:
    """Parse ``text``, whose line ends are all "\\n"."""
    if "\0" in text:
        line, column = position(text, text.index("\0"))
        return Source(text, None, False, f"null byte at {line}:{column}", note)
    if len(text) > MAX_CODE and len(text) - _literals(text) > MAX_CODE:
        return Source(text, None, False, f"{TOO_LARGE}: more than {MAX_CODE // 2**20} MiB of code", note)
    try:
        return Source(text, quiet_parse(text), False, None, note)
    except SyntaxError as error:
        line, column, message = error.lineno or 1, max(error.offset or 1, 1), error.msg
        in_format_string = message.startswith("f-string")
    except PARSE_ERRORS as error:
        # Not a matter of newer syntax: too deep, or characters that can't be encoded.
        reason = "nested too deeply" if isinstance(error, RecursionError | MemoryError) else str(error)
        return Source(text, None, False, f"can't be parsed: {reason} (1:1)", note)
    try:
        return Source(text, parse_newer(text), True, None, note)
    except TooDeepError as too_deep:
        return Source(text, None, False, f"{message} at {line}:{column} ({too_deep})", note)
    except NewerSyntaxError as newer:
        # Where only newer f-strings upset ast, the first real error is the one LibCST meets.
        if in_format_string and newer.line > 1:
            line, column, message = newer.line, newer.column, str(newer)
        return Source(text, None, False, f"{message} at {line}:{column}", note)


def _literals(text: str) -> int:
    """The characters of a text that stand in words too long to be code."""
    return sum(len(word) for word in _WORD.findall(text) if len(word) >= LONG_LITERAL)


def read_source(data: bytes) -> Source:
    """Decode and parse the bytes of a Python file."""
    text, note = decode(data)
    return parse(text, note)


def position(text: str, offset: int) -> tuple[int, int]:
    """The 1-based line and column of a character offset."""
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)
