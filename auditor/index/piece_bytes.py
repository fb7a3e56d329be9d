"""How many bytes a script counts for a token: its byte tables, worked out for a toy vocabulary.

Scripts build tables of byte lengths by going over the tokenizer's pieces. The functions that do so are short and use
little of the language, so what they make of a handful of telling pieces (a word with the leading-space mark, a
byte-fallback token, a control token, ...) can be worked out by following their statements with a vocabulary of
eight made-up pieces. Nothing of the submission is executed: the walker below knows assignments, loops over the toy
vocabulary, conditions and a few methods of strings and lists, within a fixed number of steps, and stops at anything
else; what the tables hold by then is read off.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from auditor.index.names import leaf_name
from auditor.unpack.walk import walk

if TYPE_CHECKING:
    from auditor.index.program_index import FunctionFacts, ProgramIndex

MARK = "\u2581"
"""SentencePiece's mark of a leading space: one byte of text, three bytes as a character."""
MAX_STEPS = 6_000
MAX_DEPTH = 40

CONTROL, UNKNOWN, UNUSED, BYTE, SPACE, WORD, PLAIN, ACCENT = range(8)
PIECES = ("<s>", "<unk>", "<unused>", "<0x41>", MARK, MARK + "the", "ing", "\u00e9t\u00e9")
_RIGHT = (0, 0, 0, 1, 0, 3, 3, 5)
PIECE_NAMES = frozenset({"id_to_piece", "IdToPiece"})


@dataclass(frozen=True)
class PieceBytes:
    """Bytes that one table gives to the toy pieces; None where it was not read."""

    function: ast.AST
    node: ast.AST
    """Where the word with a leading space got its bytes."""
    word: int
    """Bytes for the mark and three letters: 3 without the space, 4 with it."""
    plain: int
    """Bytes for three letters: 3."""
    byte: int
    """Bytes for a byte-fallback token: 1."""
    control: int
    """Bytes for a control token: 0."""
    accent: int
    """Bytes for three characters of which two take two bytes: 5."""
    space: int
    """Bytes for the mark alone: 0 without the space, 1 with it."""
    marks_space: bool
    """Whether a table beside it says which pieces start with a space, to be added where they are scored."""

    @property
    def counts_space(self) -> bool:
        """Whether the space is in the table itself."""
        return self.word == 4


class _Stop(Exception):
    """The walk meets something it does not know."""


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


class _Return(Exception):
    pass


class _Unknown:
    """A value that is not known; attributes and calls of it are not known either."""


class _Tokenizer:
    """The toy vocabulary."""


_UNKNOWN = _Unknown()
_TOKENIZER = _Tokenizer()


def piece_tables(index: ProgramIndex, facts: FunctionFacts) -> list[PieceBytes]:
    """The byte tables that a function builds from a tokenizer's pieces."""
    walker = _Walker(index, facts.node)
    walker.run()
    return walker.tables()


def piece_readers(index: ProgramIndex) -> list[FunctionFacts]:
    """Functions that look at the tokenizer's pieces themselves, not only through a nested function."""
    found = [f for f in index.functions.values() if f.names & PIECE_NAMES]
    inner = {id(f.outer) for f in found if f.outer is not None}
    return [f for f in found if id(f) not in inner]


class _Walker:
    def __init__(self, index: ProgramIndex, function: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.index = index
        self.function = function
        self.names: dict[str, Any] = {}
        self.steps = 0
        self.depth = 0
        self.writes: dict[int, ast.AST] = {}  # id of a table -> where its entry for WORD was written
        self.made: list[Any] = []  # keeps tables alive, so that their ids stay theirs
        arguments = function.args
        for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            size = "vocab" in argument.arg or "size" in argument.arg
            self.names[argument.arg] = len(PIECES) if size else _UNKNOWN
        positional = [*arguments.posonlyargs, *arguments.args]
        for argument, default in zip(
            positional[len(positional) - len(arguments.defaults) :], arguments.defaults, strict=True
        ):
            if isinstance(default, ast.Constant) and default.value is not None and self.names[argument.arg] is _UNKNOWN:
                self.names[argument.arg] = default.value
        self.tokenizers = self._tokenizers()
        for name in self.tokenizers:
            self.names[name] = _TOKENIZER

    def run(self) -> None:
        try:
            self.block(self.function.body)
        except (_Stop, _Return, _Break, _Continue):
            pass
        except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError, RecursionError):
            pass  # the code does not fit the toy vocabulary

    def tables(self) -> list[PieceBytes]:
        """Every list that holds bytes, or byte strings, for the word and for the plain piece."""
        flags = [t for t in self.made if isinstance(t, list) and len(t) >= len(PIECES) and _marks(t)]
        found = []
        for table in self.made:
            if not isinstance(table, list) or len(table) < len(PIECES) or id(table) not in self.writes:
                continue
            sizes = [_size(item) for item in table[: len(PIECES)]]
            if sizes[PLAIN] in (0, None) or sizes[WORD] in (0, None):
                continue
            if all(isinstance(item, bool) for item in table[: len(PIECES)]):
                continue
            # What could not be worked out is taken to be right.
            s = [n if n is not None else right for n, right in zip(sizes, _RIGHT, strict=True)]
            found.append(
                PieceBytes(
                    function=self.function,
                    node=self.writes[id(table)],
                    word=s[WORD],
                    plain=s[PLAIN],
                    byte=s[BYTE],
                    control=s[CONTROL],
                    accent=s[ACCENT],
                    space=s[SPACE],
                    marks_space=bool(flags),
                )
            )
        return found

    def _tokenizers(self) -> set[str]:
        """Names whose pieces the function asks for."""
        found = set()
        for node in walk(self.function):
            if isinstance(node, ast.Attribute) and node.attr in PIECE_NAMES and isinstance(node.value, ast.Name):
                found.add(node.value.id)
        return found

    # -- statements --------------------------------------------------------------------------------------------

    def block(self, body: list[ast.stmt]) -> None:
        for statement in body:
            self.steps += 1
            if self.steps > MAX_STEPS:
                raise _Stop
            self.statement(statement)

    def statement(self, node: ast.stmt) -> None:
        if isinstance(node, ast.Assign):
            value = self.value(node.value)
            for target in node.targets:
                self.store(target, value, node)
        elif isinstance(node, ast.AnnAssign):
            if node.value is not None:
                self.store(node.target, self.value(node.value), node)
        elif isinstance(node, ast.AugAssign):
            old = self.value(node.target)
            self.store(node.target, self.binary(node.op, old, self.value(node.value)), node)
        elif isinstance(node, ast.For):
            self.loop(node)
        elif isinstance(node, ast.If):
            test = self.value(node.test)
            if test is _UNKNOWN:
                raise _Stop
            self.block(node.body if test else node.orelse)
        elif isinstance(node, ast.Try):
            self.attempt(node)
        elif isinstance(node, ast.Return):
            if node.value is not None:
                self.value(node.value)
            raise _Return
        elif isinstance(node, ast.Continue):
            raise _Continue
        elif isinstance(node, ast.Break):
            raise _Break
        elif isinstance(node, ast.Expr):
            self.value(node.value)
        elif isinstance(node, ast.With):
            self.block(node.body)
        elif not isinstance(node, (ast.Assert, ast.Pass, ast.Import, ast.ImportFrom, ast.FunctionDef, ast.Global)):
            raise _Stop

    def attempt(self, node: ast.Try) -> None:
        try:
            self.block(node.body)
        except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError):
            for handler in node.handlers[:1]:
                self.block(handler.body)

    def loop(self, node: ast.For) -> None:
        items = self.value(node.iter)
        if not isinstance(items, (list, tuple, range)):
            return  # over something else than the vocabulary: a check of the tables, a print
        for item in list(items)[:64]:
            self.store(node.target, item, node)
            try:
                self.block(node.body)
            except _Continue:
                continue
            except _Break:
                break

    def store(self, target: ast.expr, value: Any, node: ast.stmt) -> None:
        if isinstance(target, ast.Name):
            self.names[target.id] = _TOKENIZER if target.id in self.tokenizers else value
        elif isinstance(target, (ast.Tuple, ast.List)):
            values = list(value) if isinstance(value, (list, tuple)) else [_UNKNOWN] * len(target.elts)
            for part, item in zip(target.elts, values, strict=False):
                self.store(part, item, node)
        elif isinstance(target, ast.Subscript):
            holder = self.value(target.value)
            key = self.value(target.slice)
            if isinstance(holder, (list, dict)) and not isinstance(key, _Unknown):
                holder[key] = value
                if key == WORD:
                    self.writes[id(holder)] = node
        elif isinstance(target, ast.Attribute):
            self.names[ast.unparse(target)] = value

    # -- expressions -------------------------------------------------------------------------------------------

    def value(self, node: ast.expr) -> Any:
        self.steps += 1
        self.depth += 1
        if self.steps > MAX_STEPS or self.depth > MAX_DEPTH:
            raise _Stop
        try:
            method = _EXPRESSIONS.get(type(node))
            return method(self, node) if method is not None else _UNKNOWN
        finally:
            self.depth -= 1

    def keep(self, value: Any) -> Any:
        self.made.append(value)
        return value

    def constant(self, node: ast.Constant) -> Any:
        return node.value

    def name(self, node: ast.Name) -> Any:
        if node.id in self.names:
            return self.names[node.id]
        if node.id in ("int", "bool", "float", "str"):
            return _UNKNOWN
        return self.index.module_constants.get(node.id, _UNKNOWN)

    def attribute(self, node: ast.Attribute) -> Any:
        return self.names.get(ast.unparse(node), _UNKNOWN) if isinstance(node.value, ast.Name) else _UNKNOWN

    def subscript(self, node: ast.Subscript) -> Any:
        holder = self.value(node.value)
        if isinstance(node.slice, ast.Slice):
            if not isinstance(holder, (str, bytes, list, tuple)):
                return _UNKNOWN
            parts = [self.value(p) if p is not None else None for p in (node.slice.lower, node.slice.upper)]
            if any(isinstance(p, _Unknown) for p in parts) or node.slice.step is not None:
                return _UNKNOWN
            return holder[parts[0] : parts[1]]
        key = self.value(node.slice)
        if isinstance(holder, _Unknown) or isinstance(key, _Unknown):
            return _UNKNOWN
        return holder[key]

    def sequence(self, node: ast.Tuple | ast.List) -> Any:
        items = [self.value(item) for item in node.elts]
        return self.keep(items) if isinstance(node, ast.List) else tuple(items)

    def compare(self, node: ast.Compare) -> Any:
        left = self.value(node.left)
        for op, part in zip(node.ops, node.comparators, strict=True):
            right = self.value(part)
            test = _COMPARE.get(type(op))
            if test is None or isinstance(left, _Unknown) or isinstance(right, _Unknown):
                return _UNKNOWN
            if not test(left, right):
                return False
            left = right
        return True

    def boolean(self, node: ast.BoolOp) -> Any:
        unknown = False
        for part in node.values:
            value = self.value(part)
            if isinstance(value, _Unknown):
                unknown = True
            elif bool(value) is isinstance(node.op, ast.Or):
                return value
        return _UNKNOWN if unknown else isinstance(node.op, ast.And)

    def unary(self, node: ast.UnaryOp) -> Any:
        value = self.value(node.operand)
        if isinstance(value, _Unknown):
            return value
        return not value if isinstance(node.op, ast.Not) else -value if isinstance(node.op, ast.USub) else _UNKNOWN

    def binop(self, node: ast.BinOp) -> Any:
        return self.binary(node.op, self.value(node.left), self.value(node.right))

    def binary(self, op: ast.operator, left: Any, right: Any) -> Any:
        if isinstance(left, _Unknown) or isinstance(right, _Unknown):
            return _UNKNOWN
        if isinstance(op, ast.Add):
            return left + right
        if isinstance(op, ast.Sub):
            return left - right
        if isinstance(op, ast.Mult):
            if isinstance(left, list) or isinstance(right, list):
                times = right if isinstance(left, list) else left
                items = left if isinstance(left, list) else right
                return self.keep(items * min(int(times), 64))
            return left * right if isinstance(left, (int, float)) and isinstance(right, (int, float)) else _UNKNOWN
        return _UNKNOWN

    def choice(self, node: ast.IfExp) -> Any:
        test = self.value(node.test)
        if isinstance(test, _Unknown):
            return _UNKNOWN
        return self.value(node.body if test else node.orelse)

    def comprehension(self, node: ast.ListComp | ast.GeneratorExp) -> Any:
        if len(node.generators) != 1:
            return _UNKNOWN
        part = node.generators[0]
        items = self.value(part.iter)
        if not isinstance(items, (list, tuple, range)):
            return _UNKNOWN
        made: list[Any] = []
        self.keep(made)
        for item in list(items)[:64]:
            self.store(part.target, item, ast.Pass())
            tests = [self.value(t) for t in part.ifs]
            if any(isinstance(t, _Unknown) for t in tests):
                return _UNKNOWN
            if all(tests):
                made.append(self.value(node.elt))
        self.writes[id(made)] = node
        return made

    def call(self, node: ast.Call) -> Any:
        function = node.func
        name = leaf_name(node)
        arguments = [self.value(a) for a in node.args if not isinstance(a, ast.Starred)]
        if isinstance(function, ast.Attribute):
            holder = self.value(function.value)
            if isinstance(holder, _Tokenizer):
                return _ask(name, arguments)
            if isinstance(holder, (str, bytes)):
                return _text_method(holder, name, arguments)
            if isinstance(holder, list):
                return self.list_method(holder, name, arguments, node)
        if name in ("zeros", "ones", "full", "empty", "zeros_like", "ones_like"):
            return self.table(name, arguments)
        if name in ("tensor", "from_numpy", "array", "asarray", "as_tensor", "list", "tuple") and arguments:
            return arguments[0]
        name = self.index.module_aliases.get(name, name)
        handler = _FUNCTIONS.get(name) if isinstance(function, ast.Name) else None
        if name == "range" and any(isinstance(a, _Unknown) for a in arguments):
            return range(len(PIECES))
        if handler is None or any(isinstance(a, _Unknown) for a in arguments):
            return _UNKNOWN
        return handler(*arguments)

    def table(self, name: str, arguments: list[Any]) -> Any:
        size = arguments[0] if arguments else _UNKNOWN
        if isinstance(size, tuple) and size:
            size = size[0]
        if isinstance(size, list):
            size = len(size)
        if not isinstance(size, int):
            size = len(PIECES)
        fill = arguments[1] if name == "full" and len(arguments) > 1 else 1 if name.startswith("ones") else 0
        return self.keep([fill] * min(max(size, len(PIECES)), 64))

    def list_method(self, holder: list[Any], name: str, arguments: list[Any], node: ast.AST) -> Any:
        if name in ("append", "extend") and len(holder) < 64 and arguments:
            if name == "append":
                holder.append(arguments[0])
                if len(holder) == WORD + 1:
                    self.writes[id(holder)] = node
            elif isinstance(arguments[0], list):
                holder.extend(arguments[0][:64])
            return None
        return holder  # to(), astype(), cuda(), copy() ...


def _ask(name: str, arguments: list[Any]) -> Any:
    """What a SentencePieceProcessor with the toy vocabulary answers."""
    plain = name.lower().replace("_", "")
    if plain in ("vocabsize", "getpiecesize", "piecesize"):
        return len(PIECES)
    if plain in ("unkid", "bosid", "eosid", "padid"):
        return {"unkid": UNKNOWN, "bosid": CONTROL}.get(plain, -1)
    if not arguments or not isinstance(arguments[0], (int, str)):
        return _UNKNOWN
    asked = arguments[0]
    if isinstance(asked, str):
        return PIECES.index(asked) if asked in PIECES else UNKNOWN
    if not 0 <= asked < len(PIECES):
        raise LookupError(asked)
    kinds = {"iscontrol": CONTROL, "isunknown": UNKNOWN, "isunused": UNUSED, "isbyte": BYTE}
    if plain in kinds:
        return asked == kinds[plain]
    if plain == "idtopiece":
        return PIECES[asked]
    return _UNKNOWN


def _text_method(text: str | bytes, name: str, arguments: list[Any]) -> Any:
    if any(isinstance(a, _Unknown) for a in arguments):
        # An encoding held in a variable: there is but one in use.
        return text.encode() if name == "encode" and isinstance(text, str) else _UNKNOWN
    if name == "encode" and isinstance(text, str):
        return text.encode("utf-8", "replace")
    if name == "decode" and isinstance(text, bytes):
        return text.decode("utf-8", "replace")
    if name in ("startswith", "endswith", "replace", "lstrip", "rstrip", "strip", "lower", "removeprefix"):
        return getattr(text, name)(*arguments)
    return _UNKNOWN


def _size(item: Any) -> int | None:
    """The bytes an entry stands for: a number, or the length of bytes; a piece's text is no count of bytes."""
    if isinstance(item, bytes):
        return len(item)
    if isinstance(item, (int, float)):
        return int(item)
    return None


def _marks(table: list[Any]) -> bool:
    """Whether a table is true for the pieces with a leading space alone."""
    if not all(isinstance(item, (bool, int)) for item in table[: len(PIECES)]):
        return False
    return bool(table[WORD]) and not table[PLAIN] and not table[BYTE] and table[WORD] == 1


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "len": len, "int": int, "bool": bool, "float": float, "max": max, "min": min, "range": range, "chr": chr,
    "str": str, "bytes": bytes, "sum": sum, "enumerate": lambda items: list(enumerate(items)),
}  # fmt: skip
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: lambda a, b: a == b, ast.NotEq: lambda a, b: a != b, ast.Lt: lambda a, b: a < b,
    ast.LtE: lambda a, b: a <= b, ast.Gt: lambda a, b: a > b, ast.GtE: lambda a, b: a >= b,
    ast.In: lambda a, b: a in b, ast.NotIn: lambda a, b: a not in b,
    ast.Is: lambda a, b: a is b, ast.IsNot: lambda a, b: a is not b,
}  # fmt: skip
_EXPRESSIONS: dict[type[ast.expr], Callable[[_Walker, Any], Any]] = {
    ast.Constant: _Walker.constant, ast.Name: _Walker.name, ast.Attribute: _Walker.attribute,
    ast.Subscript: _Walker.subscript, ast.Tuple: _Walker.sequence, ast.List: _Walker.sequence,
    ast.Compare: _Walker.compare, ast.BoolOp: _Walker.boolean, ast.UnaryOp: _Walker.unary,
    ast.BinOp: _Walker.binop, ast.IfExp: _Walker.choice, ast.ListComp: _Walker.comprehension,
    ast.GeneratorExp: _Walker.comprehension, ast.Call: _Walker.call,
}  # fmt: skip
