"""Declared programs: which external tools the set-up notes name, and how plainly."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from auditor.runconfig.launches import MAX_DOCUMENT_BYTES, Document, is_readme
from auditor.submission import RecordFolder, SubmissionFile

Strength = Literal["declared", "mentioned"]

# Packages that provide a program under another name (Debian and PyPI names).
_PROVIDERS: dict[str, tuple[str, ...]] = {
    "pyminify": ("python-minifier", "python_minifier"),
    "python-minifier": ("pyminify", "python_minifier"),
    "python_minifier": ("pyminify", "python-minifier"),
    "gcc": ("build-essential",),
    "cc": ("build-essential", "gcc"),
    "g++": ("build-essential", "gpp"),
    "c++": ("build-essential", "g++"),
    "make": ("build-essential",),
    "nvcc": ("cuda-toolkit", "nvidia-cuda-toolkit", "cuda_toolkit"),
    "ninja": ("ninja-build",),
    "xz": ("xz-utils",),
    "zstd": ("zstandard",),
    "7z": ("p7zip", "p7zip-full", "7zip"),
    "clang": ("llvm", "clang++"),
    "cargo": ("rustc", "rustup", "rust"),
}
_INSTALL = re.compile(
    r"(?i)\b(?:apt(?:-get)?|yum|dnf|apk|brew|conda|mamba|pip3?|uv|pacman|cargo|snap)\b[^\n]{0,60}"
    r"\b(?:install|add)\b|"
    r"^\s*RUN\s"
)
_NEED = re.compile(
    r"(?i)\binstall(?:ed|s|ing)?\b|\brequire[sd]?\b|\brequirements?\b|\bdependenc(?:y|ies)\b|"
    r"\bprerequisites?\b|\bneed(?:s|ed)?\b|\bmust be (?:present|available|on)\b|"
    r"\bsystem (?:binary|package|deps?|tool)\b|\bPATH\b"
)
_SENTENCE_END = re.compile(r"[.;!?]\s+(?=[A-Z`*(])")
_SETUP_HEADING = re.compile(
    r"(?i)set-?up|requirement|dependenc|prerequisite|install|environment|reproduc|system|\brun\b|how to|"
    r"quick ?start"
)
_NEGATED = (
    r"(?:\bno|\bnot|n't|\bwithout|\binstead of|\breplac\w+|\bavoid\w*|\bremov\w+|\bnever|\brather than)"
    r"(?:\s+\w+){0,3}\s+[`*]*"
)
_DEPENDENCY_FILE = re.compile(
    r"(?i)^(?:(?:.*[-_.])?requirements.*\.(?:txt|in)|apt.*\.txt|packages.*\.txt|environment.*\.ya?ml|conda.*\.ya?ml|"
    r"pyproject\.toml|setup\.(?:py|cfg)|(?:.*\.)?dockerfile(?:\..*)?|containerfile|.*\.def|flake\.nix|shell\.nix)$"
)


@dataclass(frozen=True)
class Declaration:
    """Where a program is named.

    "declared": an install line, a dependency file, or set-up notes that call for it. "mentioned": named
    elsewhere in README or submission.json, so a reader learns of it, but not among what must be installed.
    """

    program: str
    strength: Strength
    file: str
    line: int
    text: str


def find_declaration(folder: RecordFolder, documents: tuple[Document, ...], program: str) -> Declaration | None:
    """The strongest place that names ``program`` (or a package providing it); None when none does."""
    base = program.rsplit("/", 1)[-1].lower()
    names = (base, *_PROVIDERS.get(base, ()))
    alternatives = "|".join(re.escape(n) for n in sorted(names, key=len, reverse=True))
    # A program that the folder ships is named by its path; for others a name behind a slash is another thing.
    shipped = any(f.name.lower() == base and f.change != "deleted" for f in folder.files)
    before = r"[\w.+-]" if shipped else r"[\w.+/-]"
    pattern = re.compile(rf"(?i)(?<!{before})(?:{alternatives})(?![\w+]|-\w|\.\w)")
    negated = re.compile(rf"(?i){_NEGATED}(?:{alternatives})")
    weak: Declaration | None = None
    for strength, file, line, text in _places(folder, documents, pattern):
        if negated.search(text):
            continue
        found = Declaration(base, strength, file, line, text.strip()[:500])
        if strength == "declared":
            return found
        weak = weak or found
    return weak


def _places(
    folder: RecordFolder, documents: tuple[Document, ...], pattern: re.Pattern[str]
) -> Iterator[tuple[Strength, str, int, str]]:
    files = {f.path: f for f in folder.files}
    for document in documents:
        lines = files[document.file].text.split("\n") if document.file in files else []
        headings = {s.line: s.heading for s in document.prose}
        code = {
            number: s.heading
            for s in document.snippets
            if s.fenced
            for number in range(s.line, s.line + s.text.count("\n") + 1)
        }
        for number, text in enumerate(lines, 1):
            if len(text) > 5_000 or not pattern.search(text):
                continue
            heading = (code.get(number) or headings.get(number) or "").rsplit(" / ", 1)[-1]
            install = _asked_for(text, pattern)
            # In set-up sections a list entry or a command that names the program asks for it.
            setup = bool(_SETUP_HEADING.search(heading)) and (number in code or bool(re.match(r"\s*[-*|\d]", text)))
            yield "declared" if install or setup else "mentioned", document.file, number, text
    for file in folder.files:
        if file.change == "deleted" or file.problem or file.size > MAX_DOCUMENT_BYTES or is_readme(file):
            continue
        if _DEPENDENCY_FILE.match(file.name):
            yield from _hits(file, pattern, "declared", comments=False)
            # What no package manager of Python installs is asked for in a comment, in so many words: a name that
            # is merely commented out asks for nothing.
            yield from (hit for hit in _hits(file, pattern, "declared", comments=True) if _asked_for(hit[3], pattern))
        elif file.name.lower().endswith((".sh", ".bash", ".sbatch")):
            for strength, path, number, text in _hits(file, pattern, "mentioned", comments=True):
                yield "declared" if _asked_for(text, pattern) else strength, path, number, text
        elif file.name == "submission.json":
            for strength, path, number, text in _hits(file, pattern, "mentioned", comments=True):
                key = re.search(r"(?i)\"\w*(?:dependenc|require|install|setup|system_packages|apt)\w*\"", text)
                yield "declared" if key else strength, path, number, text


def _asked_for(text: str, pattern: re.Pattern[str]) -> bool:
    """Whether a line installs the program, or one of its sentences says that the program is needed."""
    if _INSTALL.search(text):
        return True
    return any(pattern.search(part) and _NEED.search(part) for part in _SENTENCE_END.split(text))


def _hits(
    file: SubmissionFile, pattern: re.Pattern[str], strength: Strength, *, comments: bool
) -> Iterator[tuple[Strength, str, int, str]]:
    for number, text in enumerate(file.text.split("\n"), 1):
        code = text if comments else text.split("#", 1)[0]
        if len(text) <= 5_000 and pattern.search(code):
            yield strength, file.path, number, text
