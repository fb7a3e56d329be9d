"""The values a packed script is read with: plain Python values, and stand-ins for everything else."""

from __future__ import annotations

import ast
import posixpath
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from auditor.submission import SubmissionFile

TEXT_SAMPLE = 4096
PAYLOAD_LENGTH = 256
"""A string literal at least this long may be a packed program."""


@dataclass(frozen=True)
class Unknown:
    """A value that was not worked out. ``packed`` says that packed data went into it."""

    reason: str
    packed: bool = False


@dataclass(frozen=True)
class Ref:
    """Something of a module, by its dotted name: ``lzma``, ``lzma.decompress``, ``builtins.exec``."""

    path: str


@dataclass
class Function:
    """A function or lambda of the script."""

    node: ast.FunctionDef | ast.Lambda
    scope: Scope
    defaults: list[Any]
    keyword_defaults: list[Any]


@dataclass(frozen=True)
class Partial:
    """functools.partial."""

    function: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


@dataclass(frozen=True)
class Method:
    """A method of a plain value or stand-in, not called yet."""

    owner: Any
    name: str


@dataclass(frozen=True)
class Code:
    """What compile(..., "exec") gives: still the source."""

    source: Any
    filename: str


@dataclass
class Module:
    """A module object made by the script; its attributes are not followed."""

    name: Any


@dataclass(frozen=True)
class Spec:
    """An import spec or loader for one file."""

    name: Any
    path: Any


@dataclass(frozen=True)
class Machine:
    """A decompressor object; ``decoder`` names the function that does the same in one go."""

    decoder: str
    options: Mapping[str, Any]


class Globals:
    """globals(), or the namespace of __main__ by any other way."""


@dataclass
class Handle:
    """An open file in memory. ``path`` is None for io.BytesIO and the like."""

    path: str | None
    data: bytearray
    text: bool = False
    encoding: str = "utf-8"
    writes: bool = False
    position: int = 0

    def read(self, size: int | None = None) -> bytes:
        end = len(self.data) if size is None or size < 0 else self.position + size
        chunk = bytes(self.data[self.position : end])
        self.position += len(chunk)
        return chunk

    def write(self, chunk: bytes) -> None:
        self.data[self.position : self.position + len(chunk)] = chunk
        self.position += len(chunk)


class Items:
    """An iterator over a finite sequence."""

    def __init__(self, items: Iterator[Any]) -> None:
        self.items = items


class Scope:
    """Names of a module or of one function call."""

    def __init__(self, parent: Scope | None = None) -> None:
        self.names: dict[str, Any] = {}
        self.parent = parent
        self.outer: set[str] = set()

    @property
    def module(self) -> Scope:
        scope = self
        while scope.parent is not None:
            scope = scope.parent
        return scope

    def find(self, name: str) -> Any:
        """The value of ``name``; KeyError when no scope has it."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.names:
                return scope.names[name]
            scope = scope.parent
        raise KeyError(name)

    def assign(self, name: str, value: Any) -> None:
        scope = self
        if name in self.outer:
            scope = self.module
            parent = self.parent
            while parent is not None:
                if name in parent.names:
                    scope = parent
                    break
                parent = parent.parent
        scope.names[name] = value


ROOT = "/submission"
"""Where the record folder stands in the paths a script computes. The real file system is never read."""
TEMPORARY = "/temporary"


@dataclass
class Files:
    """The record folder as the script sees it, and what the script wrote."""

    script: str
    siblings: Mapping[str, SubmissionFile]
    own: SubmissionFile
    written: dict[str, bytes] = field(default_factory=dict)
    opened: list[str] = field(default_factory=list)

    def resolve(self, path: str) -> str:
        return posixpath.normpath(posixpath.join(ROOT, path))

    def sibling(self, path: str) -> SubmissionFile | None:
        """The shipped file that ``path`` names, tried from the record folder and from the script's own."""
        if self.resolve(path) == self.script:
            return self.own
        for full in (
            self.resolve(path),
            posixpath.normpath(posixpath.join(posixpath.dirname(self.script), path)),
        ):
            if full.startswith(ROOT + "/"):
                found = self.siblings.get(full[len(ROOT) + 1 :])
                if found is not None:
                    return found
        return next((f for f in self.siblings.values() if f.path == path), None)

    def exists(self, path: str) -> bool:
        return self.resolve(path) in self.written or self.sibling(path) is not None

    def read(self, path: str) -> bytes | None:
        """The content of a written or shipped file, or None."""
        full = self.resolve(path)
        if full in self.written:
            return self.written[full]
        found = self.sibling(path)
        if found is None or found.problem:
            return None
        if found.path != self.own.path and full not in self.opened:
            self.opened.append(full)
        return found.data


def looks_packed(value: Any) -> bool:
    """Whether ``value`` is a long str or bytes that reads like encoded data rather than like text or code."""
    if not isinstance(value, str | bytes | bytearray) or len(value) < PAYLOAD_LENGTH:
        return False
    head = value[:TEXT_SAMPLE]
    sample = head.encode("utf-8", "replace") if isinstance(head, str) else bytes(head)
    blanks = sum(map(sample.count, (b" ", b"\t", b"\n", b"\r")))
    return blanks * 100 < len(sample) * 3


Callback = Callable[..., Any]
