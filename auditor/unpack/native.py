"""Native code that a submission carries, read as text: C, C++, CUDA and Rust, in files and in strings of Python code.

Nothing here compiles or parses fully. Comments and literals are blanked, braces are matched, and what is left is read
as functions and their assignments: enough to follow a value through a kernel or a helper and to show its line. What
macros, templates or overloads make of it is not seen, so a rule that finds nothing here has only not found it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from auditor.submission import SubmissionFile

if TYPE_CHECKING:
    from auditor.unpack import Program

LANGUAGES = {
    ".c": "C", ".h": "C", ".cc": "C++", ".cpp": "C++", ".cxx": "C++", ".hpp": "C++", ".cu": "CUDA", ".cuh": "CUDA",
    ".rs": "Rust",
}  # fmt: skip
MAX_FILE = 2 * 1024 * 1024
MAX_FILES = 64

_LOOKS_NATIVE = re.compile(
    r"#\s*include\s*[<\"]|extern\s+\"C\"|__global__"
    r"|^[ \t]*(?:static\s+|inline\s+|const\s+|unsigned\s+)*(?:void|int|float|double|u?int\d+_t|long|size_t)\b[\w\s*&]*"
    r"\([^;{}]*\)\s*\{|\bfn\s+\w+\s*\([^)]*\)[^;{]*\{",
    re.MULTILINE,
)
_BLANKED = re.compile(
    r"//[^\n]*|/\*.*?(?:\*/|\Z)|\"(?:\\.|[^\"\\\n])*\"|(?<![\w])'(?:\\.|[^'\\\n])'|^[ \t]*#[^\n]*(?:\\\n[^\n]*)*",
    re.DOTALL | re.MULTILINE,
)
_HEADER = re.compile(r"(?:(?<=[\s*&>:])|^)(\w+)\s*(?:<[^<>;{}()]*>\s*)?\(", re.MULTILINE)
_ASSIGNMENT = re.compile(
    r"(?P<target>[A-Za-z_]\w*(?:\s*(?:\[[^\[\]]*(?:\[[^\[\]]*\][^\[\]]*)*\]|(?:->|\.)\s*\w+))*)\s*"
    r"(?:(?<![<>!=])(?:<<|>>|[-+*/%|&^])?=(?!=))(?P<value>(?:[^;{}]|(?<=[=,(])\{)*)"
)
_NOT_FUNCTIONS = frozenset({"if", "for", "while", "switch", "return", "sizeof", "catch", "match", "loop", "defined"})
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True)
class Assignment:
    """``target op= value``, as text; ``offset`` is where it stands in the source's text."""

    target: str
    value: str
    offset: int

    @property
    def name(self) -> str:
        """The variable that is assigned or written into, without index and members."""
        match = _IDENTIFIER.match(self.target)
        return match[0] if match else self.target

    @property
    def used(self) -> frozenset[str]:
        """The identifiers of the value."""
        return frozenset(_IDENTIFIER.findall(self.value))


@dataclass(frozen=True)
class NativeFunction:
    """One function. ``body`` is its text between the braces with comments and literals blanked."""

    name: str
    parameters: tuple[str, ...]
    body: str
    offset: int
    """Where the name stands in the source's text."""
    body_offset: int

    @cached_property
    def names(self) -> frozenset[str]:
        """All identifiers of the body."""
        return frozenset(_IDENTIFIER.findall(self.body))

    @cached_property
    def assignments(self) -> tuple[Assignment, ...]:
        """All assignments of the body in order; a declaration of several variables counts one each."""
        found: list[Assignment] = []
        at = 0
        while (match := _ASSIGNMENT.search(self.body, at)) is not None:
            start = match.start("value")
            end = start + _first_comma(match["value"])
            found.append(
                Assignment(match["target"].strip(), self.body[start:end].strip(), self.body_offset + match.start())
            )
            # What follows the comma, and assignments inside the value (a = b = c), are looked at in turn.
            at = start if "=" in self.body[start:end] else end
        return tuple(found)

    def derived(self, seeds: Iterable[str]) -> frozenset[str]:
        """``seeds`` and every variable of this function whose value is computed from one of them."""
        found = set(seeds)
        changed = True
        while changed:
            changed = False
            for assignment in self.assignments:
                if assignment.name not in found and assignment.used & found:
                    found.add(assignment.name)
                    changed = True
        return frozenset(found)


@dataclass(frozen=True)
class NativeSource:
    """One native text: a shipped file, or a string in a Python program (``program`` and ``node`` then say where).

    ``code`` is ``text`` with comments, string and character literals and preprocessor lines blanked: same length,
    same lines.
    """

    file: str
    language: str
    text: str
    program: Program | None = None
    node: ast.Constant | None = None

    @cached_property
    def code(self) -> str:
        return _BLANKED.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), self.text)

    @cached_property
    def functions(self) -> tuple[NativeFunction, ...]:
        """The functions in the order of the text. Methods count under their last name."""
        return tuple(_functions_of(self.code))

    def line_of(self, offset: int) -> int:
        """The 1-based line of an offset: in the shipped file, or in the Python program that holds the string."""
        line = self.text.count("\n", 0, offset)
        if self.node is None:
            return line + 1
        return min(self.node.lineno + line, self.node.end_lineno or self.node.lineno)

    def snippet(self, offset: int) -> str:
        """The line at an offset, at most 160 characters around it."""
        start = self.text.rfind("\n", 0, offset) + 1
        end = self.text.find("\n", offset)
        end = len(self.text) if end < 0 else end
        if end - start > 160:
            start = max(start, offset - 20)
            end = min(end, start + 160)
        return self.text[start:end].strip()

    def called_from(self, names: Iterable[str]) -> list[NativeFunction]:
        """The functions with one of these names, and those that they call in turn."""
        wanted, found = set(names), dict[int, NativeFunction]()
        todo = [f for f in self.functions if f.name in wanted]
        while todo:
            function = todo.pop()
            if function.offset in found:
                continue
            found[function.offset] = function
            todo += [f for f in self.functions if f.name in function.names and f.offset not in found]
        return [found[offset] for offset in sorted(found)]


def is_native(path: str) -> bool:
    """Whether a file's name says that it is native source code."""
    return _suffix(path) in LANGUAGES


def native_files(files: Iterable[SubmissionFile]) -> list[NativeSource]:
    """The native source files among ``files`` (at most 64, of at most 2 MiB)."""
    chosen = [f for f in files if is_native(f.path) and f.size <= MAX_FILE and f.change != "deleted" and not f.problem]
    return [
        NativeSource(f.path, LANGUAGES[_suffix(f.path)], f.text.replace("\r\n", "\n").replace("\r", "\n"))
        for f in chosen[:MAX_FILES]
    ]


def native_string(program: Program, node: ast.Constant) -> NativeSource | None:
    """The native code that a string constant of a Python program holds, or None."""
    text = node.value
    if not isinstance(text, str) or len(text) > MAX_FILE or "{" not in text or _LOOKS_NATIVE.search(text) is None:
        return None
    rust = re.search(r"\bfn\s+\w+\s*\(", text) is not None
    cuda = "__global__" in text or "blockIdx" in text
    return NativeSource(program.file, "Rust" if rust else "CUDA" if cuda else "C/C++", text, program, node)


def _suffix(path: str) -> str:
    name = path.rsplit("/", 1)[-1]
    return "." + name.rsplit(".", 1)[-1].lower() if "." in name else ""


def _functions_of(code: str) -> Iterator[NativeFunction]:
    at = 0
    while (match := _HEADER.search(code, at)) is not None:
        at = match.end()
        if match[1] in _NOT_FUNCTIONS:
            continue
        close = _matching(code, match.end() - 1, "()")
        if close is None:
            continue
        # Between the parameters and the body: const, noexcept, a return type, an initialiser list.
        opening = re.compile(r"[^;{}()=]*(?::[^;{}]*)?\{").match(code, close + 1)
        if opening is None:
            continue
        end = _matching(code, opening.end() - 1, "{}")
        if end is None:
            end = len(code)
        yield NativeFunction(
            match[1],
            tuple(_parameter(p) for p in _split(code[match.end() : close]) if p.strip()),
            code[opening.end() : end],
            match.start(1),
            opening.end(),
        )
        at = end


def _parameter(text: str) -> str:
    """The name of ``const double* nll`` or of Rust's ``nll: &[f64]``."""
    before = text.split(":", 1)[0] if ":" in text and "::" not in text else text.split("=", 1)[0]
    names = _IDENTIFIER.findall(re.sub(r"\[[^\]]*\]", "", before))
    return names[-1] if names else ""


def _matching(code: str, start: int, pair: str) -> int | None:
    """The offset of the bracket that closes the one at ``start``."""
    depth = 0
    for match in re.compile(f"[{re.escape(pair)}]").finditer(code, start):
        depth += 1 if match[0] == pair[0] else -1
        if depth == 0:
            return match.start()
    return None


def _split(text: str) -> list[str]:
    """``text`` at its outer commas."""
    parts = []
    while (comma := _first_comma(text)) < len(text):
        parts.append(text[:comma])
        text = text[comma + 1 :]
    return [*parts, text]


def _first_comma(text: str) -> int:
    """The offset of the first comma outside of brackets, or the end; an unmatched closing bracket ends it too."""
    depth = 0
    for i, c in enumerate(text):
        if c in "([{":
            depth += 1
        elif c in ")]}":
            depth -= 1
            if depth < 0:
                return i
        elif c == "," and depth == 0:
            return i
    return len(text)
