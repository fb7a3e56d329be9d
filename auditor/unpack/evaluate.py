"""A small interpreter for the part of a script that unpacks it: whitelisted, bounded, without side effects.

It follows module-level statements and calls of the script's own functions over plain values (numbers,
strings, bytes, containers) and knows the decoders, paths and files that packers use. Everything else is
:class:`~auditor.unpack.values.Unknown`. Files are those of the submission, held in memory; writes go to
memory; nothing is imported, executed or read from the machine.

What it is after are the places where a script runs code it has computed: ``exec``, ``runpy.run_path``,
``exec_module``, an import of a file written before, a subprocess on such a file. Each becomes a :class:`Run`.
"""

from __future__ import annotations

import ast
import codecs
import itertools
import json
import lzma
import math
import operator
import posixpath
import re
import string
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from auditor.unpack.decoders import DECODERS, DecodeError
from auditor.unpack.limits import (
    MAX_CALL_DEPTH,
    MAX_INTEGER_BITS,
    MAX_STAGES,
    Budget,
    LimitError,
)
from auditor.unpack.source import Source, read_source
from auditor.unpack.values import (
    TEMPORARY,
    Code,
    Files,
    Function,
    Globals,
    Handle,
    Items,
    Machine,
    Method,
    Module,
    Partial,
    Ref,
    Scope,
    Spec,
    Unknown,
    looks_packed,
)
from auditor.unpack.walk import walk

MAX_ITEMS = 4_000_000
MAX_SPLIT_BYTES = 8 << 20
MAX_INTEGER_TEXT = 250_000
MAX_SEARCH_EFFORT = 1_000_000_000
LARGE_CODE_STEPS = 200_000
"""Steps for a script of more code than SMALL_CODE: a readable program that may carry a few packed modules."""
SMALL_CODE = 30_000
"""Scripts with less code than this (payload literals aside) are followed into every function they call; in
larger ones only functions that could run or decode something are."""

_WAYS_TO_RUN = ("exec_module", "load_module", "run_path", "run_module", "runcode", "runsource", "marshal", "builtins")
_EXEC = re.compile(r"exec\b(?<!\wexec)")
_LONG_WORD = 400
_EVAL = re.compile(r"eval\(")


def may_run_code(text: str) -> bool:
    """Whether ``text`` could run packed code in any way that is known here. Cheap, as most texts can't."""
    if "decompress" in text and any(
        len(line) >= _LONG_WORD and max(map(len, line.split()), default=0) >= _LONG_WORD for line in text.split("\n")
    ):
        return True  # what it unpacks may be written to a file and imported or run by name
    if any(word in text for word in _WAYS_TO_RUN) or ("exec" in text and _EXEC.search(text)):
        return True
    if "eval(" not in text:
        return False
    # model.eval() and train_and_eval() are everywhere in these scripts.
    before = (text[match.start() - 1] for match in _EVAL.finditer(text, 1))
    return any(not (character.isalnum() or character in "._") for character in before)


_INTERESTING = frozenset(
    [
        "exec",
        "eval",
        "exec_module",
        "load_module",
        "run_path",
        "run_module",
        "decompress",
        "decode",
        "b85decode",
        "b64decode",
        "a85decode",
        "b32decode",
        "b16decode",
        "unhexlify",
        "fromhex",
        "a2b_base64",
        "__import__",
        "import_module",
    ]
)

TEXT_ENCODINGS = frozenset(
    [
        "utf-8",
        "utf-8-sig",
        "utf-16",
        "utf-16-le",
        "utf-16-be",
        "utf-32",
        "utf-32-le",
        "utf-32-be",
        "ascii",
        "iso8859-1",
        "cp1252",
        "cp437",
        "unicode_escape",
        "raw_unicode_escape",
    ]
)


@dataclass
class Stage:
    """One program text and what it runs."""

    source: Source
    runs: list[Run] = field(default_factory=list)
    opaque: list[tuple[str, int, int]] = field(default_factory=list)
    """Runs whose code could not be worked out: reason, 1-based line and column."""


@dataclass(frozen=True)
class Run:
    """Code that a stage runs. ``line`` and ``column`` (1-based) are the call's, ``statement`` the top-level
    statement it happened in. ``own`` says that it runs in the script's own namespace, as the script itself.
    ``shipped`` is the path of the shipped file whose content it is, unchanged."""

    stage: Stage
    own: bool
    layers: tuple[str, ...]
    name: str
    line: int
    column: int
    statement: ast.stmt | None
    shipped: str | None
    data: bytes


class _Return(Exception):
    def __init__(self, value: Any) -> None:
        self.value = value


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


class _Raise(Exception):
    """The script raises, or leaves."""


_FLOW = (_Return, _Break, _Continue, _Raise)

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
    ast.BitAnd: operator.and_,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.Not: operator.not_,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Invert: operator.invert,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: lambda a, b: a is b if a is None or b is None else a == b,
    ast.IsNot: lambda a, b: a is not b if a is None or b is None else a != b,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}

_PLAIN = (
    bool,
    int,
    float,
    str,
    bytes,
    bytearray,
    list,
    tuple,
    dict,
    set,
    frozenset,
    range,
    slice,
    type(None),
)
_SEQUENCES = (str, bytes, bytearray, list, tuple, range)

_TEXT_METHODS = frozenset(
    [
        "capitalize",
        "casefold",
        "count",
        "endswith",
        "find",
        "index",
        "isalnum",
        "isalpha",
        "isascii",
        "isdigit",
        "islower",
        "isspace",
        "isupper",
        "join",
        "ljust",
        "lower",
        "lstrip",
        "partition",
        "removeprefix",
        "removesuffix",
        "replace",
        "rfind",
        "rindex",
        "rjust",
        "rpartition",
        "rsplit",
        "rstrip",
        "split",
        "splitlines",
        "startswith",
        "strip",
        "swapcase",
        "title",
        "translate",
        "upper",
        "zfill",
        "center",
        "hex",
    ]
)
_METHODS: dict[type, frozenset[str]] = {
    str: _TEXT_METHODS - {"hex"},
    bytes: _TEXT_METHODS,
    bytearray: _TEXT_METHODS | {"append", "extend", "reverse", "pop", "clear", "insert"},
    list: frozenset(["append", "extend", "insert", "pop", "remove", "reverse", "index", "count", "copy", "clear"]),
    tuple: frozenset(("index", "count")),
    dict: frozenset(["get", "items", "keys", "values", "pop", "copy", "update", "setdefault"]),
    set: frozenset(["add", "discard", "update", "union", "copy"]),
    frozenset: frozenset(("union",)),
    int: frozenset(("bit_length", "to_bytes")),
    PurePosixPath: frozenset(["with_name", "with_suffix", "with_stem", "joinpath", "as_posix", "relative_to"]),
}
_PATH_ATTRIBUTES = frozenset(["parent", "parents", "name", "stem", "suffix", "suffixes", "parts"])
_PATH_SAME = frozenset(["resolve", "absolute", "expanduser"])

_CONSTANTS: dict[str, Any] = {
    **{
        f"lzma.{name}": getattr(lzma, name)
        for name in dir(lzma)
        if re.match(r"(FORMAT|FILTER|PRESET|CHECK|M[FO])", name)
    },
    "zlib.MAX_WBITS": zlib.MAX_WBITS,
    **{
        f"string.{name}": getattr(string, name)
        for name in (
            "ascii_letters",
            "ascii_lowercase",
            "ascii_uppercase",
            "digits",
            "hexdigits",
            "printable",
        )
    },
    "string.punctuation": string.punctuation,
    "os.sep": "/",
    "os.path.sep": "/",
    "os.linesep": "\n",
    "sys.byteorder": "little",
    "sys.executable": "python",
    "sys.platform": "linux",
    "os.name": "posix",
    "builtins.True": True,
    "typing.TYPE_CHECKING": False,
}
_MACHINES = {
    "lzma.LZMADecompressor": ("lzma.decompress", ("format", "memlimit", "filters")),
    "bz2.BZ2Decompressor": ("bz2.decompress", ()),
    "zlib.decompressobj": ("zlib.decompress", ("wbits",)),
    "brotli.Decompressor": ("brotli.decompress", ()),
    "zstandard.ZstdDecompressor": ("zstandard.decompress", ()),
    "compression.zstd.ZstdDecompressor": ("zstandard.decompress", ()),
}
_OPENERS = {"gzip.open": "gzip", "gzip.GzipFile": "gzip", "lzma.open": "lzma", "lzma.LZMAFile": "lzma",
            "bz2.open": "bz2", "bz2.BZ2File": "bz2"}  # fmt: skip
_CODEC_DECODERS = {
    "hex": "bytes.fromhex", "hex_codec": "bytes.fromhex", "base64": "base64.decodebytes",
    "base64_codec": "base64.decodebytes", "zlib": "zlib.decompress", "zlib_codec": "zlib.decompress",
    "zip": "zlib.decompress", "bz2": "bz2.decompress", "bz2_codec": "bz2.decompress",
}  # fmt: skip
_PATH_FUNCTIONS: dict[str, Callable[..., Any]] = {
    name: getattr(posixpath, name)
    for name in ("join", "dirname", "basename", "split", "splitext", "normpath", "commonpath", "relpath")
    if name != "relpath"
}
_NEVER = {
    "marshal.loads": "byte code is not read",
    "marshal.load": "byte code is not read",
    "pickle.loads": "pickles are not read",
    "pickle.load": "pickles are not read",
    "dill.loads": "pickles are not read",
    "torch.load": "pickles are not read",
}
_RUNS_COMMAND = re.compile(
    r"subprocess\.(run|call|check_call|check_output|Popen|getoutput|getstatusoutput)"
    r"|os\.(exec|spawn|posix_spawn)\w*|os\.system|os\.popen"
)


def _extent(node: ast.Constant) -> int:
    """The length of a literal in the source."""
    if node.lineno == node.end_lineno and node.end_col_offset is not None:
        return node.end_col_offset - node.col_offset
    return len(node.value) if isinstance(node.value, str | bytes) else 0


def code_size(source: Source) -> int:
    """The characters of a program that are not long string literals (payloads)."""
    if source.tree is None:
        return len(source.text)
    literals = sum(map(_extent, source.long_literals))
    return max(0, len(source.text) - literals)


def payload_share(source: Source) -> float:
    """The share of a program's text that is literals which look like encoded data."""
    if source.tree is None or not source.text:
        return 0.0
    packed = sum(_extent(node) for node in source.long_literals if looks_packed(node.value))
    return packed / len(source.text)


class Evaluator:
    """Reads one script and everything it unpacks, within one budget."""

    def __init__(self, files: Files, budget: Budget) -> None:
        self.files = files
        self.budget = budget
        self.stages: list[Stage] = []
        self.trace: list[str] = []
        self.calls = 0
        self.escaped = False
        """Set when a loop or function may have been left, on a condition that is not known."""
        self.statement: ast.stmt | None = None
        self.follow_all = True
        self.interesting: dict[int, bool] = {}
        self.scopes: list[Scope] = []

    def scope(self, parent: Scope | None = None) -> Scope:
        """A scope that :meth:`release` lets go of."""
        made = Scope(parent)
        self.scopes.append(made)
        return made

    def release(self) -> None:
        """Let go of all values: functions and their scopes hold each other, and with them the syntax tree."""
        for scope in self.scopes:
            scope.names = {}

    # ---- stages -------------------------------------------------------------------------------------------

    def stage(self, source: Source, scope: Scope) -> Stage:
        """Evaluate one program text. A bound that is reached ends this stage only; see ``opaque``."""
        result = Stage(source)
        if source.tree is None:
            return result
        if len(self.stages) >= MAX_STAGES:
            result.opaque.append((f"more than {MAX_STAGES} stages", 1, 1))
            return result
        kept = self.statement, self.follow_all
        self.stages.append(result)
        self.follow_all = code_size(source) <= SMALL_CODE
        reserve = 0 if self.follow_all else max(0, self.budget.steps - LARGE_CODE_STEPS)
        self.budget.steps -= reserve
        scope.names.setdefault("__doc__", ast.get_docstring(source.tree, clean=False))
        try:
            for statement in source.tree.body:
                self.statement = statement
                try:
                    self.execute(statement, scope)
                except (_Return, _Break, _Continue):
                    continue
        except _Raise:
            pass
        except (LimitError, RecursionError, MemoryError) as error:
            reason = str(error) if isinstance(error, LimitError) else "expressions nested too deeply"
            at = self.statement
            if payload_share(source) >= 0.5 or (isinstance(at, ast.stmt) and _mentions_payload(at)):
                result.opaque.append((reason, at.lineno if at else 1, at.col_offset + 1 if at else 1))
        finally:
            self.budget.steps = max(0, self.budget.steps) + reserve
            self.stages.pop()
            self.statement, self.follow_all = kept
        return result

    def run(self, kind: str, value: Any, own: bool, name: str, node: ast.AST, scope: Scope) -> None:
        """The script runs ``value``: source text or bytes, a Code, or an Unknown."""
        line, column = getattr(node, "lineno", 1), getattr(node, "col_offset", 0) + 1
        current = self.stages[-1]
        layers = (*dict.fromkeys(self.trace), kind)
        if isinstance(value, Code):
            name = name or posixpath.basename(value.filename)
            value = value.source
        if isinstance(value, Unknown):
            if value.packed:
                current.opaque.append((value.reason, line, column))
            return
        if isinstance(value, str):
            data = value.encode("utf-8", "surrogatepass")
        elif isinstance(value, bytes | bytearray):
            data = bytes(value)
        else:
            return
        self.trace.clear()
        if any(run.data == data for run in current.runs):
            return
        shipped = next(
            (
                found.path
                for path in self.files.opened
                if (found := self.files.sibling(path)) is not None and _same_text(found.data, data)
            ),
            None,
        )
        source = read_source(data)
        small = len(source.text) <= SMALL_CODE
        if small or may_run_code(source.text):
            stage = self.stage(source, scope.module if own else self.fresh_scope())
        else:
            stage = Stage(source)
        current.runs.append(Run(stage, own, layers, name, line, column, self.statement, shipped, data))

    def fresh_scope(self) -> Scope:
        """The names a script starts with."""
        scope = self.scope()
        scope.names |= {
            "__file__": self.files.script,
            "__name__": "__main__",
            "__builtins__": Ref("builtins"),
            "__spec__": None,
            "__package__": None,
        }
        return scope

    # ---- statements ---------------------------------------------------------------------------------------

    def block(self, body: Iterable[ast.stmt], scope: Scope) -> None:
        for statement in body:
            self.execute(statement, scope)

    def maybe(self, body: Iterable[ast.stmt], scope: Scope) -> None:
        """Execute statements that may or may not be reached: leaving them leads nowhere."""
        for statement in body:
            try:
                self.execute(statement, scope)
            except _FLOW:
                self.escaped = True
                return

    def execute(self, node: ast.stmt, scope: Scope) -> None:
        self.budget.step()
        match node:
            case ast.Expr():
                self.value(node.value, scope)
            case ast.Assign():
                value = self.value(node.value, scope)
                for target in node.targets:
                    self.bind(target, value, scope)
            case ast.AnnAssign():
                if node.value is not None:
                    self.bind(node.target, self.value(node.value, scope), scope)
            case ast.AugAssign():
                self.augment(node, scope)
            case ast.FunctionDef():
                defaults = [self.value(d, scope) for d in node.args.defaults]
                keyword = [d and self.value(d, scope) for d in node.args.kw_defaults]
                function: Any = Function(node, scope, defaults, keyword)
                if any("cache" not in ast.dump(d) for d in node.decorator_list):
                    function = Unknown("a decorated function")
                scope.assign(node.name, function)
            case ast.ClassDef() | ast.AsyncFunctionDef():
                scope.assign(node.name, Unknown(f"{node.name} is not followed"))
            case ast.Import():
                for alias in node.names:
                    self.imported(alias.name, node, scope)
                    name = alias.name if alias.asname else alias.name.split(".")[0]
                    scope.assign(alias.asname or name, Ref(name))
            case ast.ImportFrom():
                module = "." * node.level + (node.module or "")
                self.imported(module, node, scope)
                for alias in node.names:
                    if alias.name != "*":
                        scope.assign(alias.asname or alias.name, self.constant(f"{module}.{alias.name}"))
            case ast.If():
                test = self.value(node.test, scope)
                if isinstance(test, Unknown):
                    self.maybe(node.body, scope)
                    self.maybe(node.orelse, scope)
                else:
                    self.block(node.body if _truth(test) else node.orelse, scope)
            case ast.For():
                self.loop(node, scope)
            case ast.While():
                self.repeat(node, scope)
            case ast.With():
                self.manage(node, scope)
            case ast.Try():
                try:
                    self.block(node.body, scope)
                    self.block(node.orelse, scope)
                except _Raise:
                    if node.handlers:
                        self.maybe(node.handlers[0].body, scope)
                self.block(node.finalbody, scope)
            case ast.Return():
                raise _Return(self.value(node.value, scope) if node.value else None)
            case ast.Raise():
                if node.exc is not None:
                    self.value(node.exc, scope)
                raise _Raise
            case ast.Break():
                raise _Break
            case ast.Continue():
                raise _Continue
            case ast.Global() | ast.Nonlocal():
                scope.outer |= set(node.names)
            case ast.Delete() | ast.Pass() | ast.Assert():
                pass
            case _:
                self.forget(node, scope)

    def forget(self, node: ast.AST, scope: Scope) -> None:
        """Whatever ``node`` assigns is unknown from here on."""
        for inner in walk(node):
            if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
                scope.assign(inner.id, Unknown("it depends on something that is not known"))

    def imported(self, name: str, node: ast.stmt, scope: Scope) -> None:
        """Importing a file that the script has written runs it."""
        relative = name.lstrip(".").replace(".", "/")
        for path, data in self.files.written.items():
            if relative and path.endswith((f"/{relative}.py", f"/{relative}/__init__.py")):
                self.run("import", data, False, posixpath.basename(path), node, scope)

    def bind(self, target: ast.expr, value: Any, scope: Scope) -> None:
        match target:
            case ast.Name():
                scope.assign(target.id, value)
            case ast.Tuple() | ast.List():
                self.unpack(target.elts, value, scope)
            case ast.Subscript():
                owner = self.value(target.value, scope)
                key = self.value(target.slice, scope)
                if isinstance(owner, Globals) and isinstance(key, str):
                    scope.module.assign(key, value)
                elif isinstance(owner, list | dict | bytearray) and not isinstance(key, Unknown):
                    try:
                        owner[key] = value
                    except Exception:
                        return
            case _:
                pass

    def unpack(self, targets: Sequence[ast.expr], value: Any, scope: Scope) -> None:
        starred = next((i for i, t in enumerate(targets) if isinstance(t, ast.Starred)), None)
        items = None if isinstance(value, Unknown) else self.items(value)
        if items is not None and starred is not None and len(items) >= len(targets) - 1:
            tail = len(targets) - starred - 1
            middle = items[starred : len(items) - tail]
            items = [*items[:starred], middle, *items[len(items) - tail :]]
        for index, target in enumerate(targets):
            known = items is not None and len(items) == len(targets)
            part = items[index] if known and items is not None else _unknown_of("unpacking", value)
            self.bind(target.value if isinstance(target, ast.Starred) else target, part, scope)

    def augment(self, node: ast.AugAssign, scope: Scope) -> None:
        load = ast.copy_location(_as_load(node.target), node.target)
        before = self.value(load, scope)
        right = self.value(node.value, scope)
        if isinstance(before, list | bytearray) and isinstance(node.op, ast.Add) and not isinstance(right, Unknown):
            added = self.items(right)
            if added is not None:
                self.budget.hold(len(added))
                try:
                    before.extend(added)
                except Exception:
                    self.bind(node.target, Unknown("an extension failed"), scope)
                return
        after = self.binary(node.op, before, right)
        if isinstance(before, str | bytes) and isinstance(after, str | bytes):
            self.budget.working += len(before)  # the old value is gone
        self.bind(node.target, after, scope)

    def loop(self, node: ast.For, scope: Scope) -> None:
        sequence = self.value(node.iter, scope)
        items = None if isinstance(sequence, Unknown) else self.items(sequence)
        if items is None:
            self.bind(node.target, _unknown_of("a loop", sequence), scope)
            self.maybe(node.body, scope)
            self.forget(node, scope)
            return
        for item in items:
            self.budget.step()
            self.bind(node.target, item, scope)
            try:
                self.block(node.body, scope)
            except _Break:
                return
            except _Continue:
                continue
        self.block(node.orelse, scope)

    def repeat(self, node: ast.While, scope: Scope) -> None:
        before, self.escaped = self.escaped, False
        try:
            while True:
                self.budget.step()
                test = self.value(node.test, scope)
                if isinstance(test, Unknown) or self.escaped:
                    # How often it runs is not known: once, to see what it does, is all there is to it.
                    if not self.escaped:
                        self.maybe(node.body, scope)
                    self.forget(node, scope)
                    return
                if not _truth(test):
                    break
                try:
                    self.block(node.body, scope)
                except _Break:
                    return
                except _Continue:
                    continue
            self.block(node.orelse, scope)
        finally:
            self.escaped = before

    def manage(self, node: ast.With, scope: Scope) -> None:
        for item in node.items:
            value = self.value(item.context_expr, scope)
            if item.optional_vars is not None:
                self.bind(item.optional_vars, value, scope)
        self.block(node.body, scope)

    # ---- expressions --------------------------------------------------------------------------------------

    def value(self, node: ast.expr, scope: Scope) -> Any:
        """The value of an expression; Unknown, never an exception, when it can't be worked out."""
        self.budget.step()
        match node:
            case ast.Constant():
                return node.value
            case ast.Name():
                return self.name(node.id, scope)
            case ast.Attribute():
                return self.attribute(self.value(node.value, scope), node.attr)
            case ast.Call():
                return self.call_node(node, scope)
            case ast.BinOp():
                # The left spine is walked in a loop: packers join thousands of parts with "+".
                spine: list[ast.BinOp] = []
                left: ast.expr = node
                while isinstance(left, ast.BinOp):
                    spine.append(left)
                    left = left.left
                value = self.value(left, scope)
                for operation in reversed(spine):
                    value = self.binary(operation.op, value, self.value(operation.right, scope))
                return value
            case ast.UnaryOp():
                operand = self.value(node.operand, scope)
                return self.attempt(_UNARY[type(node.op)], operand)
            case ast.BoolOp():
                value = None
                for part in node.values:
                    value = self.value(part, scope)
                    if isinstance(value, Unknown) or _truth(value) is isinstance(node.op, ast.Or):
                        return value
                return value
            case ast.Compare():
                return self.compare(node, scope)
            case ast.IfExp():
                test = self.value(node.test, scope)
                if isinstance(test, Unknown):
                    return test
                return self.value(node.body if _truth(test) else node.orelse, scope)
            case ast.Subscript():
                owner = self.value(node.value, scope)
                return self.subscript(owner, self.value(node.slice, scope), scope)
            case ast.Slice():
                parts = [p and self.value(p, scope) for p in (node.lower, node.upper, node.step)]
                unknown = next((p for p in parts if isinstance(p, Unknown)), None)
                return unknown or slice(*parts)
            case ast.Tuple():
                return tuple(self.elements(node.elts, scope))
            case ast.List():
                return self.elements(node.elts, scope)
            case ast.Set():
                return self.attempt(set, self.elements(node.elts, scope))
            case ast.Dict():
                return self.dictionary(node, scope)
            case ast.JoinedStr():
                return self.formatted(node, scope)
            case ast.Lambda():
                defaults = [self.value(d, scope) for d in node.args.defaults]
                keyword = [d and self.value(d, scope) for d in node.args.kw_defaults]
                return Function(node, scope, defaults, keyword)
            case ast.NamedExpr():
                value = self.value(node.value, scope)
                self.bind(node.target, value, scope)
                return value
            case ast.ListComp() | ast.GeneratorExp() | ast.SetComp() | ast.DictComp():
                return self.comprehension(node, scope)
            case _:
                return Unknown(f"{type(node).__name__} is not supported")

    def name(self, name: str, scope: Scope) -> Any:
        try:
            return scope.find(name)
        except KeyError:
            return self.constant(f"builtins.{name}")

    def constant(self, path: str) -> Any:
        """A name of a module: its value where that is a known constant, else a Ref."""
        if path == "sys.argv":
            return [self.files.script]
        if path in ("__main__.__dict__", "__main__"):
            return Globals()
        return _CONSTANTS.get(path, Ref(path))

    def attribute(self, owner: Any, name: str) -> Any:
        if isinstance(owner, Unknown):
            return owner
        if isinstance(owner, Ref):
            return self.constant(f"{owner.path}.{name}")
        if isinstance(owner, PurePosixPath) and name in _PATH_ATTRIBUTES:
            value = getattr(owner, name)
            return list(value) if name == "parents" else value
        if isinstance(owner, Spec) and name == "loader":
            return owner
        if isinstance(owner, Globals | Module) and name == "__dict__":
            return owner
        if isinstance(owner, Handle) and name == "name":
            return owner.path
        return Method(owner, name)

    def elements(self, nodes: Sequence[ast.expr], scope: Scope) -> list[Any]:
        out: list[Any] = []
        for node in nodes:
            if isinstance(node, ast.Starred):
                value = self.value(node.value, scope)
                items = None if isinstance(value, Unknown) else self.items(value)
                if items is None:
                    out.append(_unknown_of("*", value))
                else:
                    out += items
            else:
                out.append(self.value(node, scope))
        return out

    def dictionary(self, node: ast.Dict, scope: Scope) -> Any:
        out: dict[Any, Any] = {}
        for key_node, value_node in zip(node.keys, node.values, strict=True):
            value = self.value(value_node, scope)
            if key_node is None:
                if not isinstance(value, dict):
                    return _unknown_of("**", value)
                out.update(value)
                continue
            key = self.value(key_node, scope)
            try:
                out[key] = value
            except TypeError:
                return _unknown_of("a dictionary", key)
        return out

    def formatted(self, node: ast.JoinedStr, scope: Scope) -> Any:
        parts: list[str] = []
        for part in node.values:
            if isinstance(part, ast.Constant):
                parts.append(str(part.value))
                continue
            assert isinstance(part, ast.FormattedValue)
            value = self.value(part.value, scope)
            spec = self.value(part.format_spec, scope) if part.format_spec else ""
            if isinstance(value, Unknown) or isinstance(spec, Unknown) or not _is_plain(value):
                return _unknown_of("an f-string", value, spec)
            if _wide(spec):
                raise LimitError("a format width of more than 4 digits")
            if part.conversion == ord("r"):
                value = repr(value)
            elif part.conversion == ord("s"):
                value = str(value)
            try:
                parts.append(format(value, spec))
            except (ValueError, TypeError):
                return _unknown_of("an f-string", value)
        return self.made("".join(parts))

    def comprehension(self, node: ast.ListComp | ast.GeneratorExp | ast.SetComp | ast.DictComp, scope: Scope) -> Any:
        inner = self.scope(scope)
        out: list[Any] = []
        unknown: list[Unknown] = []

        def walk(generators: Sequence[ast.comprehension]) -> None:
            if not generators:
                if isinstance(node, ast.DictComp):
                    out.append((self.value(node.key, inner), self.value(node.value, inner)))
                else:
                    out.append(self.value(node.elt, inner))
                if len(out) > MAX_ITEMS:
                    raise LimitError(f"more than {MAX_ITEMS:,} items")
                return
            first, *rest = generators
            sequence = self.value(first.iter, inner)
            items = None if isinstance(sequence, Unknown) else self.items(sequence)
            if items is None:
                unknown.append(_unknown_of("a comprehension", sequence))
                return
            for item in items:
                self.budget.step()
                self.bind(first.target, item, inner)
                tests = [self.value(test, inner) for test in first.ifs]
                undecided = next((t for t in tests if isinstance(t, Unknown)), None)
                if undecided is not None:
                    unknown.append(undecided)
                    return
                if all(map(_truth, tests)):
                    walk(rest)

        walk(node.generators)
        if unknown:
            return unknown[0]
        if isinstance(node, ast.DictComp):
            return self.attempt(dict, out)
        return self.attempt(set, out) if isinstance(node, ast.SetComp) else out

    def compare(self, node: ast.Compare, scope: Scope) -> Any:
        left = self.value(node.left, scope)
        for op, right_node in zip(node.ops, node.comparators, strict=True):
            right = self.value(right_node, scope)
            if isinstance(op, ast.Is | ast.IsNot) and None in (left, right) and not _any_unknown(left, right):
                result: Any = (left is right) is isinstance(op, ast.Is)
            else:
                result = self.attempt(_COMPARE[type(op)], left, right)
            if isinstance(result, Unknown) or not result:
                return result
            left = right
        return True

    def subscript(self, owner: Any, key: Any, scope: Scope) -> Any:
        if isinstance(owner, Globals) and isinstance(key, str):
            return self.name(key, scope.module)
        if isinstance(owner, Ref) and owner.path.endswith("__dict__") and isinstance(key, str):
            return self.constant(f"{owner.path[: -len('.__dict__')]}.{key}")
        if isinstance(owner, Ref) and owner.path == "sys.modules" and isinstance(key, str):
            return self.constant(key)
        if isinstance(owner, Ref | Module | Function) or _any_unknown(owner, key):
            return _unknown_of("a subscript", owner, key)
        return self.made(self.attempt(operator.getitem, owner, key))

    def binary(self, op: ast.operator, left: Any, right: Any) -> Any:
        if _any_unknown(left, right):
            return _unknown_of("an operation", left, right)
        if isinstance(left, int) and isinstance(right, int):
            if isinstance(op, ast.LShift):
                self._integer_bits(left.bit_length() + max(right, 0))
            elif isinstance(op, ast.Pow):
                self._integer_bits(left.bit_length() * max(right, 1))
            elif isinstance(op, ast.Mult):
                self._integer_bits(left.bit_length() + right.bit_length())
        elif isinstance(op, ast.Mult):
            sequence, times = (left, right) if isinstance(left, _SEQUENCES) else (right, left)
            if isinstance(sequence, _SEQUENCES) and isinstance(times, int):
                width = 8 if isinstance(sequence, list | tuple) else 1
                self.budget.allow(len(sequence) * max(times, 0) * width)
        elif isinstance(op, ast.Mod) and isinstance(left, str | bytes | bytearray):
            if _wide(left) or "*" in _as_text(left):
                return Unknown("a wide format")
        elif isinstance(op, ast.Div) and PurePosixPath in (type(left), type(right)):
            return self.attempt(lambda a, b: PurePosixPath(a) / b, left, right)
        if not (_is_plain(left) and _is_plain(right)):
            return _unknown_of("an operation", left, right)
        return self.made(self.attempt(_BINARY[type(op)], left, right)) if type(op) in _BINARY else Unknown("@")

    def _integer_bits(self, bits: int) -> None:
        if bits > MAX_INTEGER_BITS:
            raise LimitError(f"an integer of more than {MAX_INTEGER_BITS:,} bits")

    def attempt(self, function: Callable[..., Any], *args: Any) -> Any:
        """``function(*args)`` on plain values; Unknown when one is unknown or it fails."""
        if _any_unknown(*args):
            return _unknown_of("an operation", *args)
        try:
            return function(*args)
        except LimitError:
            raise
        except Exception as error:
            # Any failure of a whitelisted operation on the script's own values is the script's failure.
            return _unknown_of(f"{type(error).__name__}: {str(error)[:80]}", *args)

    def made(self, value: Any) -> Any:
        """Count a new value; refuse what is too large."""
        if isinstance(value, _SEQUENCES) and not isinstance(value, range):
            size = len(value) * (8 if isinstance(value, list | tuple) else 1)
            self.budget.allow(size)
            self.budget.hold(size)
        return value

    def items(self, value: Any) -> list[Any] | None:
        """The items of an iterable as a list; None for what can't be iterated."""
        if isinstance(value, Handle):
            lines = self.text_of(value, value.read())
            return list(lines.splitlines(keepends=True)) if isinstance(lines, str | bytes) else None
        if isinstance(value, Items):
            out = list(itertools.islice(value.items, MAX_ITEMS + 1))
        elif isinstance(value, (*_SEQUENCES, dict, set, frozenset)) or _is_view(value):
            if len(value) > MAX_ITEMS:
                raise LimitError(f"more than {MAX_ITEMS:,} items")
            out = list(value)
        else:
            return None
        if len(out) > MAX_ITEMS:
            raise LimitError(f"more than {MAX_ITEMS:,} items")
        self.budget.hold(8 * len(out))
        return out

    # ---- calls --------------------------------------------------------------------------------------------

    def call_node(self, node: ast.Call, scope: Scope) -> Any:
        function = self.value(node.func, scope)
        args = self.elements(node.args, scope)
        kwargs: dict[str, Any] = {}
        for keyword in node.keywords:
            value = self.value(keyword.value, scope)
            if keyword.arg is not None:
                kwargs[keyword.arg] = value
            elif isinstance(value, dict):
                kwargs |= {str(k): v for k, v in value.items()}
        return self.call(function, args, kwargs, node, scope)

    def call(self, function: Any, args: list[Any], kwargs: dict[str, Any], node: ast.AST, scope: Scope) -> Any:
        self.budget.step()
        match function:
            case Unknown():
                return _unknown_of(function.reason, function, *args)
            case Function():
                return self.call_function(function, args, kwargs)
            case Partial():
                return self.call(function.function, [*function.args, *args], {**function.kwargs, **kwargs}, node, scope)
            case Method():
                return self.call_method(function.owner, function.name, args, kwargs, node, scope)
            case Ref():
                return self.call_ref(function.path, args, kwargs, node, scope)
            case _:
                return _unknown_of("a call", *args)

    def call_function(self, function: Function, args: list[Any], kwargs: dict[str, Any]) -> Any:
        node = function.node
        if not self.follow_all and not self._is_interesting(node, function.scope):
            return _unknown_of("a function that is not followed", *args, *kwargs.values())
        if self.calls >= MAX_CALL_DEPTH:
            raise LimitError(f"calls nested more than {MAX_CALL_DEPTH} deep")
        scope = self.scope(function.scope)
        parameters = [a.arg for a in (*node.args.posonlyargs, *node.args.args)]
        for name, default in zip(reversed(parameters), reversed(function.defaults), strict=False):
            scope.names[name] = default
        for parameter, default in zip(node.args.kwonlyargs, function.keyword_defaults, strict=False):
            scope.names[parameter.arg] = default
        scope.names |= dict(zip(parameters, args, strict=False))
        known = {*parameters, *(a.arg for a in node.args.kwonlyargs)}
        scope.names |= {name: value for name, value in kwargs.items() if name in known}
        if node.args.vararg:
            scope.names[node.args.vararg.arg] = tuple(args[len(parameters) :])
        if node.args.kwarg:
            scope.names[node.args.kwarg.arg] = {k: v for k, v in kwargs.items() if k not in known}
        for name in known - scope.names.keys():
            scope.names[name] = Unknown("a missing argument")
        self.calls += 1
        try:
            if isinstance(node, ast.Lambda):
                return self.value(node.body, scope)
            if _is_generator(node):
                return Unknown("a generator function", any(map(_packed, args)))
            self.block(node.body, scope)
        except _Return as done:
            return done.value
        except (_Break, _Continue):
            pass
        finally:
            self.calls -= 1
        return None

    def _is_interesting(self, node: ast.FunctionDef | ast.Lambda, scope: Scope) -> bool:
        """Whether a function of a large script may run or decode something, itself or through others."""
        found = self.interesting.get(id(node))
        if found is None:
            self.interesting[id(node)] = False  # recursion ends here
            names = {n.id for n in walk(node) if isinstance(n, ast.Name)}
            attributes = {n.attr for n in walk(node) if isinstance(n, ast.Attribute)}
            found = bool((names | attributes) & _INTERESTING)
            for name in names if not found else ():
                callee = scope.module.names.get(name)
                if isinstance(callee, Function) and self._is_interesting(callee.node, callee.scope):
                    found = True
                    break
            self.interesting[id(node)] = found
        return found

    def call_method(
        self, owner: Any, name: str, args: list[Any], kwargs: dict[str, Any], node: ast.AST, scope: Scope
    ) -> Any:
        if isinstance(owner, Spec) and name in ("exec_module", "load_module"):
            self.run_file("importlib", owner.path, owner.name == "__main__", node, scope)
            return Module(owner.name)
        if isinstance(owner, Globals) and name in ("get", "__getitem__") and args:
            return self.subscript(owner, args[0], scope)
        if isinstance(owner, Globals) and name == "update":
            scope.module.names.update({k: v for k, v in kwargs.items()})
            return None
        if isinstance(owner, list | dict | set) and name in (
            "append",
            "update",
            "extend",
            "setdefault",
            "add",
        ):
            pass  # containers may hold unknown values
        elif _any_unknown(*args, *kwargs.values()):
            return _unknown_of(f".{name}()", owner, *args, *kwargs.values())
        if name == "decode" and isinstance(owner, bytes | bytearray):
            return self.recode(owner, "decode", args, kwargs)
        if name == "encode" and isinstance(owner, str):
            return self.recode(owner, "encode", args, kwargs)
        if isinstance(owner, Machine):
            if name in ("decompress", "process") and args:
                return self.decode(owner.decoder, args[:1], dict(owner.options))
            if name == "stream_reader" and args and isinstance(args[0], Handle):
                return self._handle(self.decode(owner.decoder, [args[0].read()], {}))
            return b"" if name in ("flush", "finish") else Unknown(f".{name}()", any(map(looks_packed, args)))
        if isinstance(owner, Handle):
            return self.handle_method(owner, name, args)
        if isinstance(owner, PurePosixPath):
            return self.path_method(owner, name, args, kwargs)
        if isinstance(owner, str) and name == "format":
            return self.format(owner, args, kwargs)
        if isinstance(owner, list) and name == "sort":
            ordered = self.call_builtin("sorted", [owner], kwargs, node, scope)
            if isinstance(ordered, list):
                owner[:] = ordered
            return None
        if not any(isinstance(owner, kind) and name in allowed for kind, allowed in _METHODS.items()):
            return _unknown_of(f".{name}()", owner, *args)
        if name in ("extend", "update") and args and not isinstance(args[0], dict):
            args = [self.items(args[0])]
        self.check_method(owner, name, args)
        result = self.attempt_packed(lambda: getattr(owner, name)(*args, **kwargs), owner, *args)
        return self.made(list(result) if _is_view(result) else result)

    def attempt_packed(self, work: Callable[[], Any], *operands: Any) -> Any:
        """``work()``; Unknown, remembering whether packed data was involved, when it fails."""
        try:
            return work()
        except LimitError:
            raise
        except Exception as error:
            return _unknown_of(f"{type(error).__name__}: {str(error)[:80]}", *operands)

    def check_method(self, owner: Any, name: str, args: list[Any]) -> None:
        """Refuse, before it happens, what would take too much space or time."""
        if isinstance(owner, str | bytes | bytearray):
            if name == "join" and args:
                parts = args[0] if isinstance(args[0], list | tuple) else self.items(args[0])
                sizes = [len(p) for p in parts or () if isinstance(p, str | bytes | bytearray)]
                self.budget.allow(sum(sizes) + len(owner) * len(sizes))
                if isinstance(args[0], Items):
                    args[0] = parts
            elif name == "replace" and len(args) >= 2 and isinstance(args[0], str | bytes):
                hits = owner.count(args[0]) if type(args[0]) is type(owner) else 0  # type: ignore[arg-type]
                self.budget.allow(len(owner) + hits * max(0, len(args[1]) - len(args[0])))
            elif name in ("ljust", "rjust", "center", "zfill") and args:
                self.budget.allow(args[0] if isinstance(args[0], int) else 0)
            elif name in ("rfind", "rindex", "rsplit", "rpartition") and args and isinstance(args[0], str | bytes):
                if len(owner) * len(args[0]) > MAX_SEARCH_EFFORT:
                    raise LimitError("a search for a long string from the right")
            elif name == "translate" and args and isinstance(args[0], dict):
                widest = max((len(v) for v in args[0].values() if isinstance(v, str)), default=1)
                self.budget.allow(len(owner) * max(1, widest))
            if name in ("split", "splitlines", "rsplit") and len(owner) > MAX_SPLIT_BYTES:
                raise LimitError(f"splitting more than {MAX_SPLIT_BYTES >> 20} MiB")
        elif name == "to_bytes" and args:
            self.budget.allow(args[0] if isinstance(args[0], int) else 0)

    def recode(self, owner: Any, direction: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """bytes.decode and str.encode with a text encoding."""
        encoding = args[0] if args else kwargs.get("encoding", "utf-8")
        errors = args[1] if len(args) > 1 else kwargs.get("errors", "strict")
        try:
            name = codecs.lookup(encoding).name
        except (LookupError, TypeError, ValueError):
            name = ""
        if name not in TEXT_ENCODINGS and encoding not in TEXT_ENCODINGS:
            return _unknown_of(f"the encoding {encoding!r}", owner)
        if errors not in (
            "strict",
            "ignore",
            "replace",
            "surrogateescape",
            "surrogatepass",
            "backslashreplace",
        ):
            return _unknown_of(f"the error handler {errors!r}", owner)
        return self.made(self.attempt_packed(lambda: getattr(owner, direction)(encoding, errors), owner))

    def format(self, template: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """str.format with plain fields only: no attributes, no nested or wide specifications."""
        try:
            fields = [(f or "", spec or "") for _, f, spec, _ in string.Formatter().parse(template) if f is not None]
        except ValueError:
            return Unknown("a malformed format")
        for name, spec in fields:
            if not re.fullmatch(r"\w*", name) or "{" in spec or _wide(spec):
                return Unknown(f"the format field {name!r}")
        if not all(_is_plain(v) for v in (*args, *kwargs.values())):
            return _unknown_of(".format()", *args, *kwargs.values())
        largest = max((len(str(v)) for v in (*args, *kwargs.values())), default=0)
        self.budget.allow(len(template) + len(fields) * largest)
        return self.made(self.attempt(lambda: template.format(*args, **kwargs)))

    def decode(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Apply a decoder."""
        self.trace.append(name)
        try:
            return DECODERS[name](self.budget, args, kwargs)
        except DecodeError as error:
            return Unknown(f"{name} fails: {str(error)[:100]}", packed=True)

    # ---- files --------------------------------------------------------------------------------------------

    def open(self, args: list[Any], kwargs: dict[str, Any], binary: bool = False) -> Any:
        path = args[0] if args else kwargs.get("file")
        mode = args[1] if len(args) > 1 else kwargs.get("mode", "rb" if binary else "r")
        encoding = kwargs.get("encoding") or "utf-8"
        if isinstance(path, PurePosixPath):
            path = str(path)
        if isinstance(path, Handle):
            return path
        if not isinstance(path, str) or not isinstance(mode, str) or encoding not in TEXT_ENCODINGS:
            return Unknown("a file that is not known")
        text = "b" not in mode and not binary
        if any(flag in mode for flag in "wxa"):
            full = self.files.resolve(path)
            before = self.files.written.get(full, b"") if "a" in mode else b""
            self.files.written[full] = before
            return Handle(full, bytearray(before), text, encoding, True, len(before))
        data = self.files.read(path)
        if data is None:
            return Unknown(f"{posixpath.basename(path)} is not among the submission's files", packed=binary)
        if self.files.resolve(path) not in self.files.written:
            self.trace.append(f"open({posixpath.basename(path)!r})")
        return Handle(self.files.resolve(path), bytearray(data), text, encoding)

    def _handle(self, data: Any) -> Any:
        return Handle(None, bytearray(data)) if isinstance(data, bytes) else data

    def text_of(self, handle: Handle, data: bytes) -> Any:
        """What a read gives: bytes, or text with universal newlines."""
        if not handle.text:
            return data
        value = self.recode(data, "decode", [handle.encoding], {})
        return value.replace("\r\n", "\n").replace("\r", "\n") if isinstance(value, str) else value

    def handle_method(self, handle: Handle, name: str, args: list[Any]) -> Any:
        number = args[0] if args and isinstance(args[0], int) else None
        match name:
            case "read":
                return self.made(self.text_of(handle, handle.read(number)))
            case "getvalue" | "getbuffer":
                return self.made(self.text_of(handle, bytes(handle.data)))
            case "readline":
                end = handle.data.find(b"\n", handle.position) + 1
                return self.text_of(handle, handle.read((end or len(handle.data)) - handle.position))
            case "readlines":
                return self.items(handle)
            case "seek":
                origin = args[1] if len(args) > 1 else 0
                base = {0: 0, 1: handle.position, 2: len(handle.data)}.get(origin, 0)
                handle.position = min(max(0, base + (number or 0)), len(handle.data))
                return handle.position
            case "tell":
                return handle.position
            case "write" if args and isinstance(args[0], str | bytes | bytearray):
                chunk = args[0].encode("utf-8", "surrogatepass") if isinstance(args[0], str) else bytes(args[0])
                self.budget.allow(len(handle.data) + len(chunk))
                self.budget.hold(len(chunk))
                handle.write(chunk)
                if handle.path is not None and handle.writes:
                    self.files.written[handle.path] = bytes(handle.data)
                return len(chunk)
            case "fileno":
                return Unknown("a file number")
            case _:
                return None

    def path_method(self, path: PurePosixPath, name: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        match name:
            case "read_bytes":
                return self.handle_read(self.open([path, "rb"], {}))
            case "read_text":
                encoding = args[0] if args else kwargs.get("encoding")
                return self.handle_read(self.open([path, "r"], {"encoding": encoding}))
            case "open":
                return self.open([path, *args], kwargs)
            case "write_bytes" | "write_text" if args:
                handle = self.open([path, "wb"], {})
                return self.handle_method(handle, "write", args) if isinstance(handle, Handle) else handle
            case "exists" | "is_file":
                return self.files.exists(str(path)) or Unknown("a file outside the submission")
            case "mkdir" | "unlink" | "touch" | "chmod":
                return None
            case _ if name in _PATH_SAME:
                return PurePosixPath(self.files.resolve(str(path)))
            case _ if name in _METHODS[PurePosixPath]:
                return self.attempt(lambda: getattr(path, name)(*args))
            case _:
                return Unknown(f"Path.{name}")

    def handle_read(self, handle: Any) -> Any:
        return self.made(self.text_of(handle, handle.read())) if isinstance(handle, Handle) else handle

    def run_file(self, kind: str, path: Any, own: bool, node: ast.AST, scope: Scope) -> None:
        if isinstance(path, PurePosixPath):
            path = str(path)
        if isinstance(path, str) and (data := self.files.read(path)) is not None:
            self.run(kind, data, own, posixpath.basename(path), node, scope)
        elif isinstance(path, Unknown):
            self.run(kind, path, own, "", node, scope)

    # ---- functions of modules -----------------------------------------------------------------------------

    def call_ref(self, path: str, args: list[Any], kwargs: dict[str, Any], node: ast.AST, scope: Scope) -> Any:
        module, _, name = path.rpartition(".")
        operands = (*args, *kwargs.values())
        if path in ("builtins.exec", "builtins.eval") and args:
            if path.endswith("eval") and isinstance(args[0], str):
                return self.evaluate_text(args[0], scope)
            self.run("exec", args[0], self._is_own(args[1:], kwargs), "", node, scope)
            return None
        if path == "builtins.compile" and args:
            filename = args[1] if len(args) > 1 else kwargs.get("filename", "")
            source = args[0].source if isinstance(args[0], Code) else args[0]
            return Code(source, filename if isinstance(filename, str) else "")
        if path in ("runpy.run_path", "runpy._run_code") and args:
            self.run_file("runpy.run_path", args[0], True, node, scope)
            return {}
        if _RUNS_COMMAND.fullmatch(path):
            for word in _words(operands):
                if self.files.resolve(word) in self.files.written:
                    self.run_file(path, word, True, node, scope)
                    break
            return Unknown("the outcome of a command")
        if path in ("sys.exit", "builtins.exit", "builtins.quit", "os._exit"):
            raise _Raise
        if path in _NEVER:
            return Unknown(f"{path}: {_NEVER[path]}", packed=True)
        if path in ("importlib.import_module", "builtins.__import__") and args and isinstance(args[0], str):
            if isinstance(node, ast.expr) and self.statement is not None:
                self.imported(args[0], self.statement, scope)
            return self.constant(args[0])
        if path == "builtins.getattr" and len(args) >= 2 and isinstance(args[1], str):
            return self.attribute(args[0], args[1])
        if path in ("builtins.globals", "builtins.locals", "builtins.vars") and (
            not args or isinstance(args[0], Globals)
        ):
            return Globals()
        if path == "builtins.vars" and isinstance(args[0], Ref):
            return Ref(args[0].path + ".__dict__")
        if path.startswith("types.") and name == "ModuleType":
            return Module(args[0] if args else None)
        if path == "importlib.util.module_from_spec" and args and isinstance(args[0], Spec):
            return Module(args[0].name)
        if path.endswith(("spec_from_file_location", "SourceFileLoader", "spec_from_loader")) and args:
            given = args[1] if len(args) > 1 else kwargs.get("location", kwargs.get("path"))
            return given if isinstance(given, Spec) else Spec(args[0], given)
        if path == "functools.partial" and args:
            return Partial(args[0], tuple(args[1:]), kwargs)
        if _any_unknown(*operands) and path not in ("builtins.print", "builtins.dict"):
            unknown = _unknown_of(f"{name}()", *operands)
            return Unknown(unknown.reason, packed=True) if path in DECODERS or path in _OPENERS else unknown
        if path in DECODERS:
            if isinstance(args[0] if args else None, Handle):
                return Unknown(f"{name}()", packed=True)
            return self.decode(path, args, kwargs)
        if path in _MACHINES:
            decoder, names = _MACHINES[path]
            options = {**dict(zip(names, args, strict=False)), **kwargs}
            return Machine(decoder, {k: v for k, v in options.items() if k in names})
        if path in _OPENERS:
            inner = self.open([args[0] if args else kwargs.get("fileobj", kwargs.get("filename"))], {}, True)
            return (
                self._handle(self.decode(f"{_OPENERS[path]}.decompress", [inner.read()], {}))
                if isinstance(inner, Handle)
                else inner
            )
        if module == "os.path":
            return self.call_path(name, args)
        if module == "builtins":
            return self.call_builtin(name, args, kwargs, node, scope)
        return self.call_library(path, args, kwargs, node, scope)

    def _is_own(self, namespaces: list[Any], kwargs: dict[str, Any]) -> bool:
        """Whether exec runs in the script's own namespace, or as a script of its own."""
        namespace = namespaces[0] if namespaces else kwargs.get("globals")
        if isinstance(namespace, dict):
            return namespace.get("__name__") == "__main__"
        return namespace is None or isinstance(namespace, Globals)

    def evaluate_text(self, text: str, scope: Scope) -> Any:
        """eval of a string."""
        if len(text) > SMALL_CODE:
            return Unknown("eval of a long string", packed=True)
        try:
            tree = ast.parse(text.strip(), mode="eval")
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return Unknown("eval of a broken expression")
        for inner in walk(tree):
            if isinstance(inner, ast.expr) and self.statement is not None:
                inner.lineno, inner.col_offset = self.statement.lineno, self.statement.col_offset
        return self.value(tree.body, scope)

    def call_path(self, name: str, args: list[Any]) -> Any:
        words = [str(a) if isinstance(a, PurePosixPath) else a for a in args]
        if not words or not all(isinstance(w, str | list | tuple) for w in words):
            return Unknown(f"os.path.{name}()")
        if name in ("abspath", "realpath", "expanduser"):
            return self.files.resolve(words[0])
        if name in ("exists", "isfile"):
            return self.files.exists(words[0]) or Unknown("a file outside the submission")
        if name == "getsize":
            data = self.files.read(words[0])
            return Unknown("the size of a file") if data is None else len(data)
        function = _PATH_FUNCTIONS.get(name)
        return Unknown(f"os.path.{name}()") if function is None else self.attempt(function, *words)

    def call_library(self, path: str, args: list[Any], kwargs: dict[str, Any], node: ast.AST, scope: Scope) -> Any:
        first = args[0] if args else None
        match path:
            case "pathlib.Path" | "pathlib.PurePath" | "pathlib.PosixPath" | "pathlib.PurePosixPath":
                return self.attempt(PurePosixPath, *args)
            case "io.open" | "codecs.open":
                return self.open(args, kwargs)
            case "io.BytesIO":
                return Handle(None, bytearray(first if isinstance(first, bytes | bytearray) else b""))
            case "io.StringIO":
                return Handle(None, bytearray(str(first or "").encode("utf-8", "surrogatepass")), text=True)
            case "io.TextIOWrapper" if isinstance(first, Handle):
                first.text = True
                return first
            case "builtins.bytes.fromhex" | "builtins.bytearray.fromhex":
                return self.decode("bytes.fromhex", args, kwargs)
            case "builtins.str.encode" | "builtins.bytes.decode" | "builtins.str.join" | "builtins.bytes.join":
                return self.call_method(first, path.rpartition(".")[2], args[1:], kwargs, node, scope)
            case "builtins.int.from_bytes":
                if isinstance(first, bytes | bytearray | list):
                    self._integer_bits(8 * len(first))
                return self.attempt_packed(lambda: int.from_bytes(*args, **kwargs), *args)
            case "builtins.str.maketrans" | "builtins.bytes.maketrans":
                owner = str if ".str." in path else bytes
                return self.attempt_packed(lambda: owner.maketrans(*args), *args)
            case "builtins.dict.fromkeys":
                return self.attempt(lambda: dict.fromkeys(self.items(first) or (), *args[1:]))
            case "codecs.decode" if args:
                return self.codec(args, kwargs)
            case "codecs.encode" if args and args[-1] in ("rot13", "rot_13"):
                return self.attempt(lambda: codecs.encode(str(first), "rot13"))
            case "struct.unpack" if len(args) == 2:
                return self.attempt_packed(lambda: struct.unpack(*args), *args)
            case "struct.calcsize":
                return self.attempt_packed(lambda: struct.calcsize(*args), *args)
            case "json.loads" | "json.load" | "ast.literal_eval" if args:
                text = self.handle_read(first) if isinstance(first, Handle) else first
                if not isinstance(text, str | bytes) or len(text) > MAX_SPLIT_BYTES:
                    return Unknown(f"{path}()", packed=True)
                if path.startswith("ast"):
                    return self.made(self.attempt_packed(lambda: ast.literal_eval(_as_text(text)), text))
                return self.made(self.attempt_packed(lambda: json.loads(text), text))
            case "functools.reduce" if len(args) >= 2:
                items = self.items(args[1]) or []
                if not items and len(args) < 3:
                    return Unknown("reduce of nothing")
                value = args[2] if len(args) > 2 else items.pop(0)
                for item in items:
                    value = self.call(first, [value, item], {}, node, scope)
                return value
            case "itertools.chain":
                return [item for a in args for item in self.items(a) or ()]
            case "math.ceil" | "math.floor" | "math.log2" | "math.log" | "math.sqrt":
                return self.attempt(getattr(math, path[5:]), *args)
            case "os.getcwd":
                return self.files.resolve(".")
            case "os.fspath" if args:
                return str(first) if isinstance(first, PurePosixPath) else first
            case "os.makedirs" | "os.mkdir" | "os.chdir" | "os.replace" | "os.rename":
                return None
            case "tempfile.mkdtemp" | "tempfile.gettempdir" | "tempfile.TemporaryDirectory":
                return TEMPORARY
            case "tempfile.NamedTemporaryFile" | "tempfile.mkstemp":
                mode = args[0] if args else kwargs.get("mode", "w+b")
                suffix = kwargs.get("suffix") or ""
                name = f"{TEMPORARY}/file{len(self.files.written)}{suffix}"
                handle = self.open([name, mode if isinstance(mode, str) else "w+b"], {})
                return (Unknown("a file number"), name) if path.endswith("mkstemp") else handle
            case _:
                return _unknown_of(f"{path}() is not supported", *args, *kwargs.values())

    def codec(self, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """codecs.decode."""
        data, encoding = args[0], args[1] if len(args) > 1 else kwargs.get("encoding", "utf-8")
        if encoding in ("rot13", "rot_13") and isinstance(data, str):
            return codecs.decode(data, "rot13")
        if isinstance(encoding, str) and encoding in _CODEC_DECODERS:
            decoder = _CODEC_DECODERS[encoding]
            if decoder == "bytes.fromhex" and isinstance(data, bytes):
                decoder = "binascii.unhexlify"
            return self.decode(decoder, [data], {})
        return self.recode(data, "decode", [encoding], {}) if isinstance(data, bytes) else Unknown("codecs.decode()")

    def call_builtin(self, name: str, args: list[Any], kwargs: dict[str, Any], node: ast.AST, scope: Scope) -> Any:
        first = args[0] if args else None
        match name:
            case "open":
                return self.open(args, kwargs)
            case "print" | "setattr" | "delattr" | "input":
                return None if name != "input" else Unknown("input")
            case (
                "len" | "ord" | "chr" | "abs" | "bool" | "float" | "round" | "hex" | "bin" | "oct" | "divmod" | "range"
            ):
                return self.attempt({**_BUILTINS}[name], *args)
            case "int":
                if isinstance(first, str | bytes) and len(first) > MAX_INTEGER_TEXT:
                    raise LimitError("a very long integer")
                return self.attempt_packed(lambda: int(*args, **kwargs), *args)
            case "pow" if len(args) == 2:
                return self.binary(ast.Pow(), *args)
            case "str" | "repr" | "bytes" | "bytearray" | "memoryview":
                return self.convert(name, args, kwargs)
            case "list" | "tuple" | "set" | "frozenset" | "iter" | "reversed" | "enumerate" | "any" | "all" | "sum":
                return self.collect(name, args)
            case "dict":
                source = first if isinstance(first, dict) else self.items(first) if args else {}
                return self.attempt(lambda: {**dict(source or {}), **kwargs}) if not _any_unknown(first) else first
            case "min" | "max" | "sorted":
                items = list(args) if len(args) > 1 else self.items(first)
                if items is None or len(items) > MAX_ITEMS:
                    return Unknown(f"{name}()")
                key = kwargs.get("key")
                keys = [self.call(key, [i], {}, node, scope) for i in items] if key else items
                if _any_unknown(*keys):
                    return _unknown_of(f"{name}()", *keys)
                backwards = bool(kwargs.get("reverse", name == "max"))
                order = self.attempt(lambda: sorted(range(len(items)), key=keys.__getitem__, reverse=backwards))
                if isinstance(order, Unknown):
                    return order
                result = [items[i] for i in order]
                return result if name == "sorted" else result[0] if result else Unknown(f"{name}() of nothing")
            case "zip":
                columns = [self.items(a) for a in args]
                if any(c is None for c in columns):
                    return _unknown_of("zip()", *args)
                return list(zip(*(c for c in columns if c is not None), strict=False))
            case "map" | "filter" if len(args) >= 2:
                columns = [self.items(a) for a in args[1:]]
                if any(c is None for c in columns):
                    return _unknown_of(f"{name}()", *args)
                rows = list(zip(*(c for c in columns if c is not None), strict=False))
                if name == "filter":
                    return [r[0] for r in rows if _truth(self.call(first, [*r], {}, node, scope) if first else r[0])]
                return [self.call(first, [*row], {}, node, scope) for row in rows]
            case "next":
                if isinstance(first, Items):
                    return next(first.items, args[1] if len(args) > 1 else Unknown("next() of nothing"))
                if isinstance(first, list) and first:  # generators are read as lists
                    return first[0]
                return Unknown("next()")
            case _:
                return _unknown_of(f"{name}() is not supported", *args, *kwargs.values())

    def convert(self, name: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        first = args[0] if args else None
        if name in ("str", "repr"):
            if isinstance(first, bytes | bytearray) and (len(args) > 1 or kwargs):
                return self.recode(first, "decode", args[1:], kwargs)
            if not _is_plain(first) and not isinstance(first, PurePosixPath):
                return Unknown(f"{name}()")
            return self.made(self.attempt(str if name == "str" else repr, *args))
        if isinstance(first, str):
            value = self.recode(first, "encode", args[1:], kwargs)
        elif isinstance(first, int):
            self.budget.allow(first)
            value = self.attempt(bytes, first)
        elif isinstance(first, bytes | bytearray) or first is None:
            value = bytes(first or b"")
        else:
            items = self.items(first)
            value = Unknown(f"{name}()") if items is None else self.attempt_packed(lambda: bytes(items), *items[:1])
        if name == "bytearray" and isinstance(value, bytes):
            return self.made(bytearray(value))
        return self.made(value)

    def collect(self, name: str, args: list[Any]) -> Any:
        items = self.items(args[0]) if args else []
        if items is None:
            return _unknown_of(f"{name}()", *args)
        match name:
            case "iter":
                return Items(iter(items))
            case "reversed":
                return items[::-1]
            case "enumerate":
                return list(enumerate(items, args[1] if len(args) > 1 and isinstance(args[1], int) else 0))
            case "list":
                return items
            case "sum":
                numbers = all(isinstance(i, int | float) for i in items)
                return self.attempt(sum, items, *args[1:]) if numbers else _unknown_of("sum()", *items[:1])
            case "any" | "all":
                return _unknown_of(name, *items) if _any_unknown(*items) else _BUILTINS[name](map(_truth, items))
            case _:
                return self.attempt(_BUILTINS[name], items)


_BUILTINS: dict[str, Callable[..., Any]] = {
    "len": len, "ord": ord, "chr": chr, "abs": abs, "bool": bool, "float": float, "round": round, "hex": hex,
    "bin": bin, "oct": oct, "divmod": divmod, "range": range, "tuple": tuple, "set": set,
    "frozenset": frozenset,
    "any": any, "all": all,
}  # fmt: skip


def _mentions_payload(node: ast.AST) -> bool:
    return any(isinstance(n, ast.Constant) and looks_packed(n.value) for n in walk(node))


def _any_unknown(*values: Any) -> bool:
    return any(isinstance(v, Unknown) for v in values)


def _packed(value: Any) -> bool:
    if isinstance(value, Unknown):
        return value.packed
    if isinstance(value, list | tuple):
        return any(map(_packed, value[:64]))
    return looks_packed(value)


def _unknown_of(what: str, *operands: Any) -> Unknown:
    """The unknown outcome of ``what``: the first unknown operand's reason is the root cause and is kept."""
    packed = any(map(_packed, operands))
    cause = next((o for o in operands if isinstance(o, Unknown) and (o.packed or not packed)), None)
    return Unknown(cause.reason if cause else what, packed)


def _is_plain(value: Any) -> bool:
    return isinstance(value, _PLAIN)


def _is_view(value: Any) -> bool:
    return isinstance(value, type({}.keys()) | type({}.values()) | type({}.items()))


def _truth(value: Any) -> bool:
    return bool(value) if _is_plain(value) or _is_view(value) else True


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else bytes(value).decode("latin-1")


def _wide(spec: Any) -> bool:
    return re.search(r"\d{5}", _as_text(spec)) is not None


def _as_load(target: ast.expr) -> ast.expr:
    match target:
        case ast.Name():
            return ast.Name(target.id, ast.Load())
        case ast.Subscript():
            return ast.Subscript(target.value, target.slice, ast.Load())
        case ast.Attribute():
            return ast.Attribute(target.value, target.attr, ast.Load())
        case _:
            return target


def _is_generator(node: ast.FunctionDef) -> bool:
    return any(isinstance(n, ast.Yield | ast.YieldFrom) for n in walk(node))


def _words(values: Iterable[Any]) -> Iterable[str]:
    for value in values:
        if isinstance(value, str):
            yield value
            if " " in value:
                yield from value.split()
        elif isinstance(value, PurePosixPath):
            yield str(value)
        elif isinstance(value, list | tuple):
            yield from _words(value)


def _same_text(left: bytes, right: bytes) -> bool:
    return left.replace(b"\r\n", b"\n") == right.replace(b"\r\n", b"\n")
