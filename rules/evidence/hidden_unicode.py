"""Characters that a reader does not see, or that reorder what is seen.

**What it catches.** Controls for the direction of writing (U+202A-U+202E, U+2066-U+2069 and their marks),
spaces and joiners without width, soft hyphens, invisible operators and tag characters in the submission's
programs, scripts, README and JSON.

**Why it breaks a review.** Such characters can make code read differently from what runs: a line that looks
like a comment may be executed, two names that look alike may differ. A submission is judged by people who read
it.

**Legal look-alikes.** A byte order mark at the start of a file; joiners and variation selectors inside emoji,
and tag characters in the emoji of a flag; joiners between letters of scripts that need them (Arabic, Indic);
escapes such as "\\u200b", which are plain ASCII; letters, dashes, box-drawing and private-use characters, which
are all visible or at least marked by editors.

**How it is read.** The bytes of programs, scripts, documents and JSON files are searched for the encodings of
these characters; what is found is shown with its name, line and column. A packed script is searched after
unpacking too. Logs are not searched.

**Remedy.** Delete the characters; write those that are meant as data as escapes.

**Ruling.** None by an organiser: reported, without deciding the verdict. Under the strict policy the submission
has to be readable.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from auditor.reading import Reading
from auditor.submission import SubmissionFile
from auditor.verdict import Confidence, Effect, Evidence, Status
from rules.base import Example, Finding, Rule

MAX_BYTES = 4 * 1024 * 1024
SUFFIXES = (
    *(".py", ".pyx", ".ipynb", ".md", ".markdown", ".rst", ".json", ".sh", ".bash", ".toml", ".yml", ".yaml", ".cfg"),
    *(".c", ".cc", ".cpp", ".cxx", ".cu", ".cuh", ".h", ".hpp", ".rs", ".js", ".ts", ".ini"),
)
NAMES = ("readme", "readme.txt", "requirements.txt", "makefile", "dockerfile")

# UTF-8 of the characters below: those around U+2000, and the rest. A search for fixed bytes is much the fastest.
_SPACES = re.compile(rb"\xe2(?:\x80[\x8b-\x8f\xaa-\xae]|\x81[\xa0-\xaf])")
_OTHERS = (
    *(b"\xef\xbb\xbf", b"\xc2\xad", b"\xd8\x9c", b"\xe1\xa0\x8e"),
    *(b"\xe3\x85\xa4", b"\xef\xbe\xa0", b"\xf3\xa0\x80", b"\xf3\xa0\x81"),
)
_DIRECTION = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_HIDDEN = re.compile(
    "[\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0\U000e0000-\U000e007f]"
)
_JOINERS = "\u200c\u200d"
_FLAG = "\U0001f3f4"
# Scripts whose spelling needs joiners or marks: Arabic and its neighbours, the Indic scripts, Mongolian.
_JOINING = re.compile(r"[\u0590-\u08ff\u0900-\u0dff\u0f00-\u109f\u1780-\u18af]")
_SHOWN = 6


class HiddenUnicode(Rule):
    slug = "hidden-unicode"
    group = "evidence"
    title = "bidirectional or invisible characters in source or documents"
    evidence = ("files",)
    official = Effect.ADVISORY
    strict = Effect.VIOLATION

    def check(self, reading: Reading) -> Finding:
        places: list[tuple[Evidence, str]] = []
        looked = 0
        for file in reading.folder.files:
            if not _is_text(file):
                continue
            looked += 1
            if _may_hide(file.data):
                places.extend(_in_file(reading, file))
        for index in reading.opened():
            program = index.program
            if program.view != "unpacked" or program.text.isascii():
                continue
            for line, column, character in hidden(program.text):
                shipped_line, shipped_column = program.locate(line, column)
                places.append((
                    Evidence(
                        file=program.file, line=line, column=column, role=_named(character), view="unpacked",
                        snippet=_visible(program.text.split("\n")[line - 1], column),
                        shipped_line=shipped_line, shipped_column=shipped_column,
                    ),
                    character,
                ))  # fmt: skip
        if not looked:
            return Finding(Status.NOT_APPLICABLE, "There is no source and no document.")
        if not places:
            return Finding(Status.CLEAN, f"No hidden character in {looked} programs and documents.")
        names = list(dict.fromkeys(_named(c) for _, c in places))
        files = list(dict.fromkeys(e.file.rsplit("/", 1)[-1] for e, _ in places))
        direction = [p for p in places if p[1] in _DIRECTION]
        reason = f"Hidden characters ({len(places)}) stand in {', '.join(files[:4])}"
        reason += f": {', '.join(names[:4])}"
        reason += "; some change the order in which text is shown." if direction else "."
        shown = [*direction, *(p for p in places if p not in direction)][:_SHOWN]
        return Finding(Status.ACTIVE, reason, Confidence.HIGH, tuple(e for e, _ in shown))


def _is_text(file: SubmissionFile) -> bool:
    if file.problem or file.change == "deleted" or file.size > MAX_BYTES:
        return False
    name = file.name.lower()
    return name.endswith(SUFFIXES) or name in NAMES


def _may_hide(data: bytes) -> bool:
    """Whether any of the characters may be in there, at the price of a few searches for single bytes."""
    if data.isascii():
        return b"\0" in data[:4]  # UTF-16 without a mark
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return True
    return _SPACES.search(data) is not None or any(data.find(found, 1) > 0 for found in _OTHERS)


def _in_file(reading: Reading, file: SubmissionFile) -> Iterator[tuple[Evidence, str]]:
    lines = file.text.split("\n")
    for line, column, character in hidden(file.text):
        snippet = _visible(lines[line - 1], column)
        yield Evidence(file=file.path, line=line, column=column, snippet=snippet, role=_named(character)), character


def hidden(text: str) -> Iterator[tuple[int, int, str]]:
    """(line, column, character) of every hidden character that has no lawful place where it stands; both 1-based."""
    for match in _HIDDEN.finditer(text):
        at, character = match.start(), match[0]
        if at == 0 and character == "\ufeff":
            continue
        before, after = text[max(0, at - 12) : at], text[at + 1 : at + 2]
        if character in _JOINERS and (_pictograph(before[-1:]) or _pictograph(after)):
            continue
        if character in "\u200c\u200d\u200e\u200f\u061c" and _JOINING.search(before[-2:] + after):
            continue
        if character >= "\U000e0000" and _FLAG in before:
            continue
        yield text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at), character


def _pictograph(character: str) -> bool:
    """Whether a character belongs to an emoji: a picture, a skin tone or a variation selector."""
    return bool(character) and (
        character in "\ufe0e\ufe0f"
        or "\U0001f000" <= character <= "\U0001faff"
        or unicodedata.category(character) == "So"
    )


def _named(character: str) -> str:
    return f"{unicodedata.name(character, 'unnamed character')} (U+{ord(character):04X})"


def _visible(line: str, column: int) -> str:
    """The neighbourhood of a column, hidden characters written out."""
    part = line[max(0, column - 60) : column + 60].strip()
    return _HIDDEN.sub(lambda m: f"<U+{ord(m[0]):04X}>", part)[:200]


HiddenUnicode.VIOLATION = (
    Example(
        "a right-to-left override in a comment",
        {
            "train_gpt.py": "limit = 0  # \u202e }0 = timil{ \u202c keep the whole set\nprint(limit)\n",
            "README.md": "# Run\n",
        },
        Status.ACTIVE,
    ),
    Example(
        "a space without width inside a string",
        {"train_gpt.py": 'path = "fineweb_\u200bval"\nprint(path)\n'},
        Status.ACTIVE,
    ),
    Example(
        "a soft hyphen in the README",
        {"README.md": "# Run\n\nThe vali\u00addation set is whole.\n", "train_gpt.py": "print(1)\n"},
        Status.ACTIVE,
    ),
)
HiddenUnicode.LEGAL = (
    Example(
        "a byte order mark, an emoji with joiners, dashes and arrows",
        {
            "train_gpt.py": "print('\u2192 \u2014 \u2581')\n",
            "README.md": "\ufeff# Run \U0001f469\u200d\U0001f52c \u2764\ufe0f\u200d\U0001f525 \u26a0\ufe0f\n",
        },
        Status.CLEAN,
    ),
    Example(
        "an escape, and joiners that a script's spelling needs",
        {
            "train_gpt.py": 'ZWSP = "\\u200b"\nprint(ZWSP)\n',
            "README.md": "# \u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645\n",
        },
        Status.CLEAN,
    ),
)
