"""Reading a submission's Python file into a program a person can read, without executing anything.

Most files are read as they are. Self-extracting scripts are unpacked by a bounded evaluator of their own few
statements (:mod:`auditor.unpack.evaluate`); files in syntax newer than this interpreter's get their tree
through LibCST (:mod:`auditor.unpack.newer`).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from auditor.submission import SubmissionFile
from auditor.unpack.evaluate import Evaluator, Run, Stage, code_size, may_run_code, payload_share
from auditor.unpack.limits import Budget
from auditor.unpack.source import TOO_LARGE, Source, parse, read_source
from auditor.unpack.values import ROOT, Files
from auditor.unpack.walk import walk

__all__ = ["Program", "read_program"]

SNIPPET_LENGTH = 160
WRAPPER_CODE = 1_000
"""Characters of code up to which a script that runs another file (or module) is only a wrapper around it."""
OPAQUE_SHARE = 0.5
"""A script that runs code and of which this share is encoded data is packed, understood or not."""

Problem = Literal["opaque-code", "broken-script"]


@dataclass(frozen=True)
class Program:
    """One readable program.

    ``file`` is the path of the shipped file it is read from: the script's own, or, where the script does
    nothing but run another shipped file as it is, that file's (``view`` is "shipped" and ``layers`` says how
    it is run). ``text`` is the readable source (line ends are all "\\n", no BOM), the innermost stage if
    packed, and ``tree`` its syntax tree, None if there is none; node positions are those of ``text``.
    ``layers`` says how it was unpacked, outermost first, e.g. ("base64.b85decode", "lzma.decompress",
    "exec"). ``problem`` is "opaque-code" when the script runs code that could not be worked out (``text`` is
    then the innermost stage that could) and "broken-script" when ``text`` is no valid Python; ``detail`` then
    says what and where in one sentence (with no problem it may hold a remark). ``rewritten``: the syntax is
    newer than this interpreter's; the tree was made with the help of LibCST.

    ``prelude`` holds the statements of the outer stages around the one that runs the program, such as
    ``os.environ.setdefault(...)``: their positions are those of the shipped file. Where the script runs
    several packed programs in its own namespace, ``text`` is all of them in order.
    ``bundled`` are further programs that the script carries and runs or imports as modules; ``name`` is the
    file or module name the script gives to a program, if any.
    """

    file: str
    text: str
    tree: ast.Module | None
    view: Literal["shipped", "unpacked"]
    layers: tuple[str, ...]
    problem: Problem | None
    detail: str | None
    rewritten: bool
    prelude: ast.Module | None = None
    bundled: tuple[Program, ...] = ()
    name: str | None = None
    anchor: tuple[int, int] = (1, 1)
    """Where in the shipped file the program is run (1-based line and column); meant for ``locate``."""

    def locate(self, line: int, column: int) -> tuple[int, int]:
        """The 1-based position in the shipped file of a 1-based position in ``text``.

        For an unpacked program this is where the shipped file runs it: all its lines are in that payload.
        """
        return (line, column) if self.view == "shipped" else self.anchor

    def position(self, node: ast.AST) -> tuple[int, int]:
        """The 1-based line and column, in characters, of a node of ``tree`` (ast counts UTF-8 bytes)."""
        line = getattr(node, "lineno", 1)
        offset = getattr(node, "col_offset", 0)
        text = self._line(line)
        return line, len(text.encode("utf-8", "surrogatepass")[:offset].decode("utf-8", "replace")) + 1

    def snippet(self, line: int, column: int) -> str:
        """What stands at a 1-based position of ``text``, for a person: at most 160 characters on one line.

        A long line is cut down to the statement around ``column``, and further around the column itself, with
        "…" where something was left out.
        """
        text = self._line(line)
        if len(text.strip()) <= SNIPPET_LENGTH:
            return _readable(text.strip())
        at = min(max(column - 1, 0), len(text) - 1)
        start, end = _statement_around(text, at)
        if end - start > SNIPPET_LENGTH - 2:
            start = max(start, min(at - SNIPPET_LENGTH // 4, end - (SNIPPET_LENGTH - 2)))
            end = min(end, start + SNIPPET_LENGTH - 2)
        before = "…" if text[:start].strip() else ""
        after = "…" if text[end:].strip() else ""
        return _readable(before + text[start:end].strip() + after)

    def _line(self, line: int) -> str:
        lines = self._lines()
        return lines[line - 1] if 1 <= line <= len(lines) else ""

    def _lines(self) -> list[str]:
        # Kept on the instance: reports ask for many snippets of the same text.
        cached: list[str] | None = self.__dict__.get("_split")
        if cached is None:
            cached = self.text.split("\n")
            object.__setattr__(self, "_split", cached)
        return cached


def read_program(file: SubmissionFile, siblings: Mapping[str, SubmissionFile]) -> Program:
    """Read ``file`` into a readable program. ``siblings`` maps paths relative to the record folder to its
    files.

    Never raises on bad input and never executes anything: what can't be read is said in ``problem`` and
    ``detail``. Bounds: 64 MiB of output, 8 stages, 5 seconds.
    """
    if file.problem:
        return Program(file.path, "", None, "shipped", (), "broken-script", f"not read: {file.problem}", False)
    source = read_source(file.data)
    program = _shipped(file.path, source)
    if source.tree is None or not may_run_code(source.text):
        return program
    own = next((key for key, other in siblings.items() if other.path == file.path), file.name)
    evaluator = Evaluator(Files(f"{ROOT}/{own}", siblings, file), Budget())
    stage = evaluator.stage(source, evaluator.fresh_scope())
    evaluator.release()
    return _choose(stage, program)


def _shipped(path: str, source: Source) -> Program:
    problem: Problem | None = None
    if source.error is not None:
        problem = "opaque-code" if source.error.startswith(TOO_LARGE) else "broken-script"
    detail = "; ".join(filter(None, (source.error, source.note))) or None
    return Program(path, source.text, source.tree, "shipped", (), problem, detail, source.rewritten)


def _choose(stage: Stage, program: Program) -> Program:
    """The program that a stage amounts to. ``program`` is the stage's own text, seen as a program.

    It is the code the stage runs where that is more than the stage's own code, else the stage itself: a
    script that merely runs a generated snippet or installs bundled modules is its own program.
    """
    code = code_size(stage.source)
    runs = [run for run in stage.runs if run.stage.source.text.strip()]
    # A shipped file that is run as it is stands for itself: only a bare wrapper is replaced by it.
    own = [r for r in runs if r.own and (r.shipped is None or code <= WRAPPER_CODE)]
    chosen: list[Run] = []
    if own and sum(len(run.stage.source.text) for run in own) >= code:
        # Only exec shares the namespace; files that are run are programs of their own.
        shared = all(run.layers[-1] == "exec" for run in own)
        chosen = own if shared else [max(own, key=lambda r: len(r.stage.source.text))]
    elif code <= WRAPPER_CODE:
        largest = max(runs, key=lambda r: len(r.stage.source.text), default=None)
        if largest is not None and len(largest.stage.source.text) >= code:
            chosen = [largest]
    rest = [run for run in runs if run not in chosen]
    bundled = tuple(_program_of(run, program) for run in rest)
    if not chosen:
        if stage.opaque and program.problem is None and not (runs and payload_share(stage.source) < OPAQUE_SHARE):
            reason, line, column = stage.opaque[0]
            return _opaque(program, reason, line, column, bundled)
        if not runs and payload_share(stage.source) >= OPAQUE_SHARE and program.problem is None:
            line, column = _first_payload(stage.source)
            return _opaque(program, "how the encoded data is run was not understood", line, column, bundled)
        return replace(program, bundled=bundled)
    parts = [_program_of(run, program) for run in chosen]
    result = parts[0] if len(parts) == 1 else _joined(parts)
    around = _prelude(stage, chosen, program)
    inner = result.prelude.body if result.prelude else []
    body = [*around, *inner]
    return replace(
        result,
        prelude=ast.Module(body=body, type_ignores=[]) if body else None,
        bundled=(*bundled, *result.bundled),
    )


def _program_of(run: Run, outer: Program) -> Program:
    """The program that a run amounts to, as run by ``outer``."""
    line, column = _character_position(outer, run.line, run.column)
    source = run.stage.source
    inner = _shipped(run.shipped or outer.file, source)
    if run.shipped is None or outer.view == "unpacked":
        inner = replace(inner, file=outer.file, view="unpacked", anchor=outer.locate(line, column))
    inner = replace(inner, name=run.name or None)
    chosen = _choose(run.stage, inner)
    return replace(chosen, layers=(*run.layers, *chosen.layers))


def _joined(parts: list[Program]) -> Program:
    """Several programs run one after the other in the same namespace, as one."""
    text = "".join(part.text if part.text.endswith("\n") else part.text + "\n" for part in parts)
    source = parse(text)
    first = parts[0]
    whole = _shipped(first.file, source)
    bodies = [statement for part in parts if part.prelude for statement in part.prelude.body]
    return replace(
        whole,
        view="unpacked",
        layers=tuple(dict.fromkeys(layer for part in parts for layer in part.layers)),
        problem=next((p.problem for p in parts if p.problem), whole.problem),
        detail=next((p.detail for p in parts if p.detail), whole.detail),
        anchor=first.anchor,
        prelude=ast.Module(body=bodies, type_ignores=[]) if bodies else None,
        bundled=tuple(b for part in parts for b in part.bundled),
        name=first.name,
    )


def _prelude(stage: Stage, chosen: list[Run], program: Program) -> list[ast.stmt]:
    """The other statements of a stage; those of an unpacked stage moved to where the shipped file runs it."""
    assert stage.source.tree is not None
    running = {id(run.statement) for run in chosen if isinstance(run.statement, ast.Expr)}
    statements = [s for s in stage.source.tree.body if id(s) not in running]
    if program.view == "shipped":
        return statements
    line, column = program.anchor
    copies = ast.Module(body=statements, type_ignores=[])
    for node in walk(copies):
        if isinstance(node, ast.stmt | ast.expr | ast.excepthandler | ast.arg | ast.keyword | ast.alias):
            node.lineno = node.end_lineno = line
            node.col_offset = node.end_col_offset = column - 1
    return statements


def _opaque(program: Program, reason: str, line: int, column: int, bundled: tuple[Program, ...]) -> Program:
    line, column = _character_position(program, line, column)
    detail = f"could not unpack the code run at {line}:{column}: {reason}"
    return replace(program, problem="opaque-code", detail=detail, bundled=bundled)


def _first_payload(source: Source) -> tuple[int, int]:
    assert source.tree is not None
    literals = [
        node for node in walk(source.tree) if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)
    ]
    longest = max(literals, key=lambda n: len(n.value))  # type: ignore[arg-type]
    return longest.lineno, longest.col_offset + 1


def _character_position(program: Program, line: int, column: int) -> tuple[int, int]:
    """A 1-based column in UTF-8 bytes, as characters."""
    text = program._line(line).encode("utf-8", "surrogatepass")
    return line, len(text[: column - 1].decode("utf-8", "replace")) + 1


def _statement_around(text: str, at: int) -> tuple[int, int]:
    """The extent of the statement around a character of a line, parted at ";" outside strings, brackets."""
    start, depth = 0, 0
    for match in re.finditer(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[(\[{]|[)\]}]|;""", text):
        piece = match[0]
        if piece in "([{":
            depth += 1
        elif piece in ")]}":
            depth = max(0, depth - 1)
        elif piece == ";" and depth == 0:
            if match.start() > at:
                return start, match.start()
            start = match.end()
    return start, len(text)


def _readable(text: str) -> str:
    """``text`` fit for a terminal and a report: no control characters."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]", "\N{REPLACEMENT CHARACTER}", text)
