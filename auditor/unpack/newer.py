"""Reading syntax newer than the running interpreter: 3.12 f-strings, PEP 695 and 3.14's bare ``except A, B``.

The text itself is never changed. What this interpreter can't parse is covered by stand-ins of the same
extent, so that every other node keeps its position, and the covered f-strings are put back into the tree as
``ast.JoinedStr`` nodes.
"""

from __future__ import annotations

import ast
import re
import threading
import warnings
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, TypeVar

import libcst as cst
from libcst.metadata import MetadataWrapper, PositionProvider

MAX_LIBCST_BYTES = 2 << 20
MAX_BRACKETS = 200
MAX_EFFORT = 100_000_000
"""Bound on the sum of squared logical line lengths (in tokens): LibCST's time is quadratic in these."""
STACK_BYTES = 256 << 20
"""LibCST recurses natively, some 3 kB a level and more; a thread of its own gets room for it."""
MAX_BARE_EXCEPTS = 200

PARSE_ERRORS = (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError)
"""What ast.parse raises on bad input (UnicodeError is a ValueError)."""


class NewerSyntaxError(Exception):
    """The text is no valid Python of any version we can read. ``line`` and ``column`` are 1-based."""

    def __init__(self, message: str, line: int, column: int) -> None:
        super().__init__(message)
        self.line = line
        self.column = column


class TooDeepError(Exception):
    """The text is too large or too deeply nested to be handed to LibCST safely."""


def quiet_parse(text: str) -> ast.Module:
    """``ast.parse`` without the SyntaxWarnings that other people's escape sequences provoke."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(text)


_TOKEN = re.compile(
    r"""(?P<string>(?<![\w'"])[rRbBuU]{0,2}(?:\"{3}(?:[^\\]|\\.)*?\"{3}|'{3}(?:[^\\]|\\.)*?'{3}
        |"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'))
      |(?P<open>[(\[{])|(?P<close>[)\]}])|(?P<newline>\n)|(?P<other>\w+|[^\s\w])""",
    re.VERBOSE | re.DOTALL,
)


def check_nesting(text: str) -> None:
    """Raise TooDeepError when ``text`` could overflow LibCST's native stack or keep it busy for long."""
    if len(text) > MAX_LIBCST_BYTES:
        raise TooDeepError(f"{len(text):,} characters")
    depth = tokens = effort = 0
    for match in _TOKEN.finditer(text):
        tokens += 1
        kind = match.lastgroup
        if kind == "open":
            depth += 1
            if depth > MAX_BRACKETS:
                raise TooDeepError(f"brackets nested more than {MAX_BRACKETS} deep")
        elif kind == "close":
            depth = max(0, depth - 1)
        elif kind == "newline" and depth == 0:
            effort += tokens * tokens
            tokens = 0
    if effort + tokens * tokens > MAX_EFFORT:
        raise TooDeepError("expressions of too many tokens")


T = TypeVar("T")


def with_room(work: Callable[[], T]) -> T:
    """``work()``, run in a thread with a large stack; its exception is raised here."""
    outcome: list[T] = []
    failure: list[BaseException] = []

    def target() -> None:
        try:
            outcome.append(work())
        except BaseException as error:  # handed over to the caller's thread below
            failure.append(error)

    before = threading.stack_size(STACK_BYTES)
    try:
        thread = threading.Thread(target=target)
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


@dataclass(frozen=True)
class _Cover:
    """A stretch of text that this interpreter can't parse: character offsets, stand-in, real node."""

    start: int
    end: int
    stand_in: str
    node: ast.expr | None
    name: int | None = None
    """Where the name of a type alias really stands; the stand-in begins with it."""


def _blank(text: str) -> str:
    """``text`` as white space of the same extent."""
    return re.sub(r"[^\n]", " ", text)


def _parses(source: str) -> bool:
    try:
        quiet_parse(f"({source}\n)")
    except PARSE_ERRORS:
        return False
    return True


def _line_starts(text: str) -> list[int]:
    return [0, *(m.end() for m in re.finditer(r"\n", text))]


class _Finder(cst.CSTVisitor):
    """Collects the covers of one module."""

    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self, text: str, module: cst.Module) -> None:
        super().__init__()
        self.text = text
        self.module = module
        self.starts = _line_starts(text)
        self.covers: list[_Cover] = []

    def _span(self, node: cst.CSTNode) -> tuple[int, int]:
        place = self.get_metadata(PositionProvider, node)
        return (
            self.starts[place.start.line - 1] + place.start.column,
            self.starts[place.end.line - 1] + place.end.column,
        )

    def _string(self, node: cst.BaseString) -> bool:
        start, end = self._span(node)
        source = self.text[start:end]
        if "{" not in source or _parses(source):
            return False
        # Brackets, not a bare name: a keyword may follow the closing quote without a space.
        stand_in = "(_" + _blank(source[2:-1]) + ")"
        self.covers.append(_Cover(start, end, stand_in, self._build(node)))
        return False

    def visit_FormattedString(self, node: cst.FormattedString) -> bool:
        return self._string(node)

    def visit_TemplatedString(self, node: Any) -> bool:
        return self._string(node)

    def visit_ConcatenatedString(self, node: cst.ConcatenatedString) -> bool:
        return self._string(node)

    def visit_TypeParameters(self, node: cst.TypeParameters) -> bool:
        start, end = self._span(node)
        self.covers.append(_Cover(start, end, _blank(self.text[start:end]).replace("\n", " "), None))
        return False

    def visit_TypeAlias(self, node: cst.TypeAlias) -> None:
        start, _ = self._span(node)
        name, name_end = self._span(node.name)
        self.covers.append(
            _Cover(start, name_end, self.text[name:name_end] + " " * (name - start), None, name),
        )

    def _build(self, node: cst.BaseString) -> ast.expr:
        """The ast node of a string that this interpreter can't parse."""
        values = self._values(node)
        merged: list[ast.expr] = []
        for value in values:
            last = merged[-1] if merged else None
            if (
                isinstance(value, ast.Constant)
                and isinstance(last, ast.Constant)
                and isinstance(last.value, str)
                and isinstance(value.value, str)
            ):
                merged[-1] = ast.Constant(last.value + value.value)
            else:
                merged.append(value)
        return ast.JoinedStr([v for v in merged if not (isinstance(v, ast.Constant) and v.value == "")])

    def _values(self, node: cst.BaseString) -> list[ast.expr]:
        if isinstance(node, cst.ConcatenatedString):
            return self._values(node.left) + self._values(node.right)
        if isinstance(node, cst.SimpleString):
            return [ast.Constant(ast.literal_eval(node.value))]
        formatted: Any = node
        raw = "r" in formatted.start.lower()
        return self._parts(formatted.parts, raw)

    def _parts(self, parts: Any, raw: bool) -> list[ast.expr]:
        values: list[ast.expr] = []
        for part in parts:
            if hasattr(part, "expression"):
                values += self._field(part, raw)
            else:
                values.append(ast.Constant(_literal(part.value, raw)))
        return values

    def _field(self, part: Any, raw: bool) -> list[ast.expr]:
        start, end = self._span(part.expression)
        expression = _expression(self.text[start:end])
        line = self.text.count("\n", 0, start)
        column = len(self.text[self.starts[line] : start].encode())
        _shift(expression, line, column)
        spec = part.format_spec
        conversion = ord(part.conversion) if part.conversion else -1
        values: list[ast.expr] = []
        if part.equal is not None:
            outer_start, outer_end = self._span(part)
            inner = self.text[outer_start + 1 : outer_end - 1]
            values.append(ast.Constant(inner[: end - outer_start - 1] + "="))
            if not part.conversion and spec is None:
                conversion = ord("r")
        format_spec = None if spec is None else ast.JoinedStr(self._parts(spec, raw))
        values.append(ast.FormattedValue(expression, conversion, format_spec))
        return values


def _literal(source: str, raw: bool) -> str:
    """The value of the literal part of an f-string."""
    source = source.replace("{{", "{").replace("}}", "}")
    if raw or "\\" not in source:
        return source
    # All quotes are escaped first, whatever the outer ones were, so that any literal can hold the text.
    quoted = re.sub(r"(\\.)|(\")", lambda m: m[1] or '\\"', source, flags=re.DOTALL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = ast.literal_eval('"""' + quoted + '"""')
    return str(value)


def _expression(source: str) -> ast.expr:
    """Parse one expression, newer syntax included. Positions count from line 1, column 0 of ``source``."""
    text = f"({source}\n)"
    try:
        module = quiet_parse(text)
    except PARSE_ERRORS:
        module = _covered(text)
    statement = module.body[0]
    if not isinstance(statement, ast.Expr):
        raise ValueError("not an expression")
    _shift(statement.value, 0, -1)
    return statement.value


def _shift(tree: ast.AST, lines: int, columns: int) -> None:
    """Move ``tree``: everything by ``lines``, what stands on its first line by ``columns`` (UTF-8 bytes)."""
    for node in ast.walk(tree):
        for line, column in (("lineno", "col_offset"), ("end_lineno", "end_col_offset")):
            if (number := getattr(node, line, None)) is not None:
                if number == 1:
                    setattr(node, column, max(0, getattr(node, column) + columns))
                setattr(node, line, number + lines)


class _Restorer(ast.NodeTransformer):
    """Puts the real nodes where their stand-ins are."""

    def __init__(
        self,
        nodes: dict[tuple[int, int], tuple[_Cover, tuple[int, int]]],
        aliases: dict[tuple[int, int], tuple[int, int]],
    ) -> None:
        self.nodes = nodes
        self.aliases = aliases

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if (alias := self.aliases.get((node.lineno, node.col_offset))) is not None:
            line, column = alias
            length = (node.end_col_offset or 0) - node.col_offset
            node.lineno, node.col_offset = line, column
            node.end_lineno, node.end_col_offset = line, column + length
            return node
        # The stand-in is "(_ )": its name begins one byte after the string.
        found = self.nodes.get((node.lineno, node.col_offset - 1))
        if found is None or node.id != "_":
            return node
        cover, (end_line, end_column) = found
        built = cover.node
        assert built is not None
        for inner in ast.walk(built):
            if isinstance(inner, ast.expr) and not hasattr(inner, "lineno"):
                inner.lineno, inner.col_offset = node.lineno, node.col_offset - 1
                inner.end_lineno, inner.end_col_offset = end_line, end_column
        return built


def _find_covers(text: str) -> list[_Cover]:
    """What this interpreter can't parse in ``text``, by LibCST."""
    module = cst.parse_module(text)
    finder = _Finder(text, module)
    MetadataWrapper(module, unsafe_skip_copy=True).visit(finder)
    return finder.covers


_FORMATTED = re.compile(r"""[fF][rR]?["']""")
_CLAUSE = re.compile(r"(?:el(?=if\b)|else\s*:|try\s*:|finally\s*:)")


def _covers_by_line(text: str) -> list[_Cover]:
    """The covers of ``text`` from those lines alone that need one; LibCST is slow on whole functions.

    Raises ValueError (or what LibCST raises) when a statement runs over several lines.
    """
    covers: list[_Cover] = []
    for number, (begin, end) in enumerate(pairwise([*_line_starts(text), len(text) + 1])):
        line = text[begin : end - 1]
        if not _FORMATTED.search(line):
            continue
        indent = len(line) - len(line.lstrip())
        if clause := _CLAUSE.match(line, indent):
            indent = clause.end()  # a statement of its own follows "else:", "elif" reads as "if"
            indent += len(line[indent:]) - len(line[indent:].lstrip())
        statement = line[indent:]
        if statement.rstrip().endswith(":"):
            statement += "0"
        try:
            quiet_parse(statement)
            continue
        except SyntaxError:
            pass
        for cover in _find_covers(statement):
            if cover.node is not None:
                _shift(cover.node, number, len(line[:indent].encode()))
            covers.append(replace(cover, start=cover.start + begin + indent, end=cover.end + begin + indent))
    return covers


def _covered(text: str, covers: list[_Cover] | None = None) -> ast.Module:
    """Parse ``text`` (line ends are all "\\n") with everything newer covered, then put back what can be."""
    if covers is None:
        covers = _find_covers(text)
    if not covers:
        raise ValueError("nothing newer in it")
    pieces: list[str] = []
    position = 0
    nodes: dict[tuple[int, int], tuple[_Cover, tuple[int, int]]] = {}
    aliases: dict[tuple[int, int], tuple[int, int]] = {}
    starts = _line_starts(text)

    def place(offset: int) -> tuple[int, int]:
        line = text.count("\n", 0, offset)
        return line + 1, len(text[starts[line] : offset].encode())

    for cover in sorted(covers, key=lambda c: c.start):
        original = text[cover.start : cover.end]
        stand_in = cover.stand_in
        # Columns are UTF-8 bytes: pad for what the stand-in's ASCII lacks on the last line.
        tail = original.rsplit("\n", 1)[-1]
        missing = len(tail.encode()) - len(tail)
        stand_in = stand_in[:-1] + " " * missing + stand_in[-1:]
        pieces += [text[position : cover.start], stand_in]
        position = cover.end
        if cover.node is not None:
            nodes[place(cover.start)] = (cover, place(cover.end))
        if cover.name is not None:
            aliases[place(cover.start)] = place(cover.name)
    pieces.append(text[position:])
    tree = quiet_parse("".join(pieces))
    restored: ast.Module = _Restorer(nodes, aliases).visit(tree)
    return restored


_WORDS = frozenset(("for", "if", "else", "in", "and", "or", "not", "is"))


def spaced_out(text: str) -> tuple[str, list[int]]:
    """``text`` with a blank between brackets and the words beside them, and the character offsets that got one."""
    offsets: list[int] = []
    for match in _TOKEN.finditer(text):
        if match.lastgroup == "other" and match[0] in _WORDS:
            if text[match.start() - 1 : match.start()] == ")":
                offsets.append(match.start())
            if text[match.end() : match.end() + 1] == "(":
                offsets.append(match.end())
    edges = [0, *offsets, len(text)]
    return " ".join(text[a:b] for a, b in pairwise(edges)), offsets


def _unspaced(tree: ast.Module, text: str, offsets: list[int]) -> ast.Module:
    """``tree`` of the spaced text, its columns moved back to those of ``text``."""
    starts = _line_starts(text)
    added: dict[int, list[int]] = {}
    for offset in offsets:
        line = bisect_right(starts, offset)
        column = len(text[starts[line - 1] : offset].encode())
        row = added.setdefault(line, [])
        row.append(column + len(row))
    for node in ast.walk(tree):
        for line_name, column_name in (("lineno", "col_offset"), ("end_lineno", "end_col_offset")):
            row = added.get(getattr(node, line_name, 0), [])
            if row:
                column = getattr(node, column_name)
                setattr(node, column_name, column - bisect_left(row, column))
    return tree


_BARE_EXCEPT = re.compile(r"(\bexcept\*?)\s+[\w.]+(?:\s*,\s*[\w.]+)+(?=\s*:)")


def _bracket_excepts(text: str) -> tuple[str, list[int]]:
    """``text`` with 3.14's bare ``except A, B:`` in brackets wherever the parser trips over it.

    The opening bracket takes the place of a blank; the second value are the character offsets in ``text``
    where a closing one was put in.
    """
    lines, starts, offsets = text.split("\n"), _line_starts(text), []
    for _ in range(MAX_BARE_EXCEPTS):
        try:
            quiet_parse("\n".join(lines))
        except SyntaxError as error:
            number = (error.lineno or 0) - 1
            if "multiple exception types" not in str(error) or not 0 <= number < len(lines):
                break
            line = lines[number]
            match = _BARE_EXCEPT.search(line)
            if match is None:
                break
            opening, closing = match.end(1), match.end()
            lines[number] = f"{line[:opening]}({line[opening + 1 : closing]}){line[closing:]}"
            offsets.append(starts[number] + closing)
        except PARSE_ERRORS:
            break
        else:
            break
    return "\n".join(lines), sorted(offsets)


def _newer(text: str) -> ast.Module:
    """Parse ``text`` by way of LibCST."""
    try:
        return with_room(lambda: _covered(text))
    except cst.CSTValidationError:
        # LibCST wants blanks that Python doesn't, as in "[a-(b if c else d)for a in e]".
        spaced, blanks = spaced_out(text)
        return _unspaced(with_room(lambda: _covered(spaced)), text, blanks)


def _line_by_line(text: str) -> ast.Module | None:
    """Parse ``text`` with covers from single lines; None where that does not work out."""
    try:
        covers = _covers_by_line(text)
        return _covered(text, covers) if covers and not any(c.name is not None for c in covers) else None
    except (*PARSE_ERRORS, cst.ParserSyntaxError, cst.CSTValidationError):
        return None


_PIECE = re.compile(r"^(?=def |class |async def |@)", re.MULTILINE)


def _by_piece(text: str) -> ast.Module | None:
    """Parse ``text`` cut before its top-level functions and classes, so that LibCST, which is slow, only sees those
    that need it. None where that does not work out, as with a string that a cut falls into.
    """
    begins = [m.start() for m in _PIECE.finditer(text) if m.start() > 0]
    # A decorator stays with what it decorates.
    begins = [b for b in begins if not text.startswith("@", text.rfind("\n", 0, b - 1) + 1)]
    cuts = [0, *begins, len(text)]
    body: list[ast.stmt] = []
    for begin, end in pairwise(cuts):
        piece = text[begin:end]
        try:
            try:
                tree = quiet_parse(piece)
            except SyntaxError:
                tree = _line_by_line(piece) or _newer(piece)
        except (*PARSE_ERRORS, cst.ParserSyntaxError, cst.CSTValidationError):
            return None
        _shift(tree, text.count("\n", 0, begin), 0)
        body += tree.body
    return ast.Module(body=body, type_ignores=[])


def parse_newer(text: str) -> ast.Module:
    """Parse ``text``, which ``ast.parse`` rejected and whose line ends are all "\\n".

    Node positions are those of ``text``.
    Raises NewerSyntaxError when LibCST rejects it too, TooDeepError when it can't be handed to LibCST.
    """
    bracketed, brackets = _bracket_excepts(text)
    if brackets:
        try:
            return _unspaced(quiet_parse(bracketed), text, brackets)
        except PARSE_ERRORS:
            pass
    check_nesting(bracketed)
    try:
        tree = _by_piece(bracketed)
        if tree is None:
            tree = _newer(bracketed)
        return _unspaced(tree, text, brackets)
    except cst.ParserSyntaxError as error:
        message = re.sub(r"^.*error at \d+:\d+: ", "", error.message.splitlines()[0])
        raise NewerSyntaxError(message, error.raw_line, error.raw_column + 1) from None
    except SyntaxError as error:
        raise NewerSyntaxError(error.msg, error.lineno or 1, error.offset or 1) from None
    except (ValueError, RecursionError, MemoryError, OverflowError, cst.CSTValidationError) as error:
        raise NewerSyntaxError(str(error) or type(error).__name__, 1, 1) from None
