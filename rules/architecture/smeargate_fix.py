"""The masked form of a smear, as a suggested change.

Where the smear takes the previous position's state (``x[:, :-1]``, a roll, a pad), that state is multiplied
by a mask that is zero where the current token starts a document. What to edit is decided on the syntax tree
that the rule judged; the edit itself is a LibCST codemod of the classes and functions concerned, so all else
in the file stays byte for byte. A change is only shown after the changed submission was audited again.
"""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import libcst as cst
from libcst.metadata import CodeRange, MetadataWrapper, PositionProvider

from auditor.index.names import last_name
from auditor.index.program_index import is_all_but_last
from auditor.index.trace import Event, Kind
from auditor.reading import Reading
from auditor.submission import Submission, SubmissionFile
from auditor.unpack import Program
from auditor.unpack.source import decode, encoding_of
from auditor.verdict import Status, SuggestedFix

MAX_SIZE = 400_000
"""Characters of a program above which no change is worked out: every step is linear in it, and slow."""
MAX_DEPTH = 3
"""Calls through which the token ids are handed down to the function that smears."""

Function = ast.FunctionDef | ast.AsyncFunctionDef
Place = tuple[int, int, int, int]
"""First line, column, last line, end column, as LibCST counts: lines from 1, columns in characters from 0."""

_IDS_NAME = re.compile(r"^(input_?ids?|idx|ids|tokens?|token_ids|tok_ids|input_tokens|x_ids)$")
_EMBEDS = re.compile(r"emb|wte", re.IGNORECASE)
_BOS_NAME = re.compile(r"^_*bos(?:_?(?:id|idx|tok|token|token_id))?$", re.IGNORECASE)
# What these make of the previous state still is that state; what any other call returns may be a gate.
_PASSES_ON = frozenset(
    {
        "cat", "concat", "concatenate", "pad", "roll", "lerp", "lerp_", "where", "addcmul", "mul", "add",
        "to", "type_as", "contiguous", "clone", "detach", "float", "bfloat16", "half",
    }
)  # fmt: skip


class _UnsupportedError(Exception):
    """This shape of smear has no simple masked form."""


class _Reaudit(Reading):
    """The reading of a changed submission: asking it for a change again would never end."""


def suggest_mask(reading: Reading, smears: Sequence[Event]) -> SuggestedFix | None:
    """A change that masks these smears at document starts, or None.

    None means that there is nothing to mask, that the code is packed or larger than ``MAX_SIZE``, that a
    smear has no simple masked form, or that the changed submission does not come out clean. The diff holds
    every place that is not masked, in all files. Never raises.
    """
    if isinstance(reading, _Reaudit):
        return None
    try:
        return _suggest(reading, smears)
    except Exception:
        # A suggestion is an extra: whatever LibCST or odd code does here must not cost the finding itself.
        return None


def _suggest(reading: Reading, smears: Sequence[Event]) -> SuggestedFix | None:
    open_places = {id(e.node) for e in (*reading.trace.of(Kind.SMEAR), *smears) if not e.detail}
    targets = {id(e.node): e for e in smears if id(e.node) in open_places}
    if not targets:
        return None
    changes: dict[str, _Change] = {}
    for event in targets.values():
        program = event.program
        if program.view != "shipped" or program.tree is None or len(program.text) > MAX_SIZE:
            return None
        changes.setdefault(program.file, _Change(program)).mask(event)
    files = {f.path: f for f in reading.folder.files}
    replaced: dict[str, SubmissionFile] = {}
    diffs: list[str] = []
    for path, change in changes.items():
        file = files[path]
        before, after, encoding = _as_shipped(file, change.program, change.apply())
        data = after.encode(encoding)
        replaced[path] = replace(file, size=len(data), load=_constant(data))
        diffs.append(_diff(path, before, after))
    if not _clean_after(reading, replaced):
        return None
    first = next(iter(changes.values()))
    places = sorted({e.frames[-1].function for e in targets.values()})
    shown = " and ".join(places) if len(places) < 3 else f"{', '.join(places[:2])} and {len(places) - 2} more"
    return SuggestedFix(
        file=first.program.file,
        description=f"In {shown}, multiply the previous position's state by a mask that is zero where the"
        f" current token starts a document (token {first.bos[0]}).",
        diff="".join(diffs),
        verified=True,
    )


def _clean_after(reading: Reading, replaced: dict[str, SubmissionFile]) -> bool:
    """Whether the rule calls the submission clean once these files are replaced, with every smear masked."""
    from rules.architecture.smeargate_bos_leak import SmearGateBOSLeak  # that module imports this one

    def new(files: Iterable[SubmissionFile]) -> tuple[SubmissionFile, ...]:
        return tuple(replaced.get(f.path, f) for f in files)

    folder = replace(reading.folder, files=new(reading.folder.files))
    submission: Submission = replace(
        reading.submission,
        files=new(reading.submission.files),
        folders=tuple(folder if f.path == folder.path else f for f in reading.submission.folders),
    )
    again = _Reaudit(submission, folder)
    if SmearGateBOSLeak().check(again).status is not Status.CLEAN:
        return False
    found = again.trace.of(Kind.SMEAR)
    return bool(found) and all(e.detail for e in found)


def _constant(data: bytes) -> Callable[[], bytes]:
    return lambda: data


def _as_shipped(file: SubmissionFile, program: Program, text: str) -> tuple[str, str, str]:
    """The shipped text, the changed ``text`` with the same BOM and line ends, and the encoding of both."""
    encoding, _ = encoding_of(file.data)
    known, note = decode(file.data)
    if known != program.text or note is not None:
        raise _UnsupportedError
    before = file.data.decode(encoding)
    if "\r" in before:
        if not before.count("\r\n") == before.count("\r") == before.count("\n"):
            raise _UnsupportedError
        text = text.replace("\n", "\r\n")
    return before, "\ufeff" * before.startswith("\ufeff") + text, encoding


def _diff(path: str, before: str, after: str) -> str:
    old, new = (re.findall(r"[^\n]*\n|[^\n]+", t) for t in (before, after))
    lines = difflib.unified_diff(old, new, f"a/{path}", f"b/{path}", n=3)
    return "".join(li if li.endswith("\n") else f"{li}\n\\ No newline at end of file\n" for li in lines)


# -- what to change, on the tree the rule judged -------------------------------------------------------------


@dataclass(frozen=True)
class _Mask:
    """A mask: its name, the text of the statement that makes it, and a remark for a line of its own."""

    name: str
    statement: str
    comment: str


@dataclass
class _Edits:
    """What to do in one statement at the top level of the program."""

    masked: dict[Place, tuple[_Mask, bool]] = field(default_factory=dict)
    """The previous state → its mask, and whether the product needs parentheses."""
    before: dict[Place, list[_Mask]] = field(default_factory=dict)
    """Statement → masks to make before it."""
    parameters: dict[Place, str] = field(default_factory=dict)
    arguments: dict[Place, tuple[str, str]] = field(default_factory=dict)
    """Call → parameter and the caller's name for it."""


class _Change:
    """Collects the edits of one program."""

    def __init__(self, program: Program) -> None:
        assert program.tree is not None
        self.program = program
        self.tree = program.tree
        self.parents: dict[int, ast.AST] = {}
        self.nodes: list[ast.AST] = []
        todo: list[ast.AST] = [program.tree]
        while todo:
            node = todo.pop()
            self.nodes.append(node)
            for child in ast.iter_child_nodes(node):
                self.parents[id(child)] = node
                todo.append(child)
        self.bos = _document_start(self.tree, self.nodes)
        self.edits: dict[int, _Edits] = {}
        self.handed_down: dict[int, str] = {}
        self.masks: dict[int, tuple[_Mask, bool]] = {}
        self.made: list[tuple[int, int]] = []

    def mask(self, event: Event) -> None:
        """Plan the masked form of one smear."""
        frame = event.frames[-1]
        function = frame.definition
        if not isinstance(function, Function) or frame.program is not event.program:
            raise _UnsupportedError
        sources = _previous_states(function, event.node)
        if not sources:
            raise _UnsupportedError
        ids = self._token_ids(function, MAX_DEPTH)
        for source in sorted(sources, key=lambda s: (s.lineno, s.col_offset)):
            self._mask_source(source, function, ids)

    def apply(self) -> str:
        """The changed text."""
        lines = self.program.text.split("\n")
        for position in sorted(self.edits, reverse=True):
            unit = self.tree.body[position]
            first, last = unit.lineno - 1, unit.end_lineno or unit.lineno
            module = cst.parse_module("\n".join(lines[first:last]))
            codemod = _Codemod(self.edits[position], first)
            changed = MetadataWrapper(module, unsafe_skip_copy=True).visit(codemod)
            if not codemod.complete:
                raise _UnsupportedError
            lines[first:last] = changed.code.split("\n")
        return "\n".join(lines)

    # -- the mask --

    def _mask_source(self, source: ast.expr, function: Function, ids: str) -> None:
        whole = isinstance(source, ast.Call)
        base = _shifted(source)
        if isinstance(base, ast.Name) and base.id == ids:
            return
        if id(function) not in self.masks:
            name = _fresh("not_bos", function)
            bos, remark = self.bos
            dtype = f".to({ast.unparse(base)}.dtype)" if isinstance(base, (ast.Name, ast.Attribute)) else ""
            tokens = ids if whole else f"{ids}[:, 1:]"
            text = f"{name} = ({tokens} != {bos}).unsqueeze(-1){dtype}"
            self.masks[id(function)] = (_Mask(name, text, remark), whole)
        mask, of_whole = self.masks[id(function)]
        if of_whole != whole:
            raise _UnsupportedError
        edits = self._edits(source)
        place = self._place(source)
        if place in edits.masked:
            return
        edits.masked[place] = (mask, self._needs_parentheses(source))
        statement, around = self._statement(source)
        if not any(block == made and index >= at for block, index in around for made, at in self.made):
            self.made.append(around[0])
            edits.before.setdefault(self._place(statement), []).append(mask)

    def _needs_parentheses(self, node: ast.expr) -> bool:
        parent = self.parents[id(node)]
        if isinstance(parent, ast.BinOp):
            return not isinstance(parent.op, (ast.Add, ast.Sub, ast.Mult))
        if isinstance(parent, ast.Call):
            return node is parent.func
        return not isinstance(
            parent, (ast.keyword, ast.List, ast.Tuple, ast.Assign, ast.AugAssign, ast.Return, ast.IfExp)
        )

    def _statement(self, node: ast.AST) -> tuple[ast.stmt, list[tuple[int, int]]]:
        """The simple statement around a node, and its place in every block around it, innermost first."""
        while not isinstance(node, ast.stmt):
            if isinstance(node, (ast.Lambda, ast.GeneratorExp, ast.ListComp)):
                raise _UnsupportedError
            node = self.parents[id(node)]
        statement = node
        if hasattr(statement, "body") or isinstance(statement, ast.Match):
            raise _UnsupportedError  # in the head of a compound statement
        around: list[tuple[int, int]] = []
        while id(node) in self.parents and not isinstance(node, Function):
            parent = self.parents[id(node)]
            for name in ("body", "orelse", "finalbody"):
                block = getattr(parent, name, None)
                if isinstance(block, list) and any(s is node for s in block):
                    around.append((id(block), next(i for i, s in enumerate(block) if s is node)))
            node = parent
        if not around:
            raise _UnsupportedError
        return statement, around

    # -- the token ids --

    def _token_ids(self, function: Function, depth: int) -> str:
        """The name of the token ids in ``function``; hands them down from its callers where it has none."""
        if id(function) in self.handed_down:
            return self.handed_down[id(function)]
        known = _token_parameter(function)
        if known is not None:
            return known
        spec = function.args
        if depth == 0 or spec.defaults or spec.vararg or spec.kwarg or spec.kwonlyargs or spec.posonlyargs:
            raise _UnsupportedError
        calls = self._calls(function)
        if not calls:
            raise _UnsupportedError
        name = _fresh("input_ids", function)
        self.handed_down[id(function)] = name
        self._edits(function).parameters[self._place(function)] = name
        for call in calls:
            caller = self._function_around(call)
            given = self._token_ids(caller, depth - 1)
            self._edits(call).arguments[self._place(call)] = (name, given)
        return name

    def _calls(self, function: Function) -> list[ast.Call]:
        """Every call of ``function`` in the program; unsupported if it may be called in other ways too."""
        owner = self.parents[id(function)]
        if isinstance(owner, ast.ClassDef) and function.name == "forward":
            names = self._attributes_holding(owner)
        else:
            names = {function.name}
            if sum(isinstance(n, Function) and n.name == function.name for n in self.nodes) != 1:
                raise _UnsupportedError
            if function.decorator_list or not isinstance(owner, (ast.Module, ast.ClassDef)):
                raise _UnsupportedError
        as_attribute = isinstance(owner, ast.ClassDef)
        calls: list[ast.Call] = []
        for node in self.nodes:
            if not isinstance(node, ast.Attribute if as_attribute else ast.Name):
                continue
            if last_name(node) not in names or not isinstance(node.ctx, ast.Load):
                continue
            parent = self.parents[id(node)]
            if isinstance(parent, ast.Call) and parent.func is node:
                calls.append(parent)
            elif not isinstance(parent, _LOOKS_AT):
                raise _UnsupportedError  # handed on under another name, or to torch.compile or a checkpoint
        return calls

    def _attributes_holding(self, owner: ast.ClassDef) -> set[str]:
        """The attributes that hold a network of this class, and never anything else that can be called."""

        def makes(value: ast.expr | None) -> bool:
            if isinstance(value, ast.IfExp):
                return makes(value.body) and makes(value.orelse)
            if isinstance(value, ast.Call):
                return isinstance(value.func, ast.Name) and value.func.id == owner.name
            return isinstance(value, ast.Constant) and value.value is None

        holding: set[str] = set()
        other: set[str] = set()
        uses = sum(isinstance(n, ast.Name) and n.id == owner.name for n in self.nodes)
        for node in self.nodes:
            if isinstance(node, ast.Assign):
                named = sum(isinstance(n, ast.Name) and n.id == owner.name for n in ast.walk(node.value))
                attributes = {t.attr for t in node.targets if isinstance(t, ast.Attribute)}
                if attributes and named:
                    holding |= attributes
                    uses -= named
                if not makes(node.value):
                    other |= attributes
        if not holding or uses or holding & other:
            raise _UnsupportedError
        return holding

    def _function_around(self, node: ast.AST) -> Function:
        while id(node) in self.parents:
            node = self.parents[id(node)]
            if isinstance(node, Function):
                return node
            if isinstance(node, ast.Lambda):
                break
        raise _UnsupportedError

    # -- places --

    def _edits(self, node: ast.AST) -> _Edits:
        while self.parents[id(node)] is not self.tree:
            node = self.parents[id(node)]
        position = next(i for i, s in enumerate(self.tree.body) if s is node)
        if not hasattr(node, "body"):
            raise _UnsupportedError  # may share its lines with other statements
        return self.edits.setdefault(position, _Edits())

    def _place(self, node: ast.expr | ast.stmt) -> Place:
        line, column = self.program.position(node)
        end = ast.Pass(lineno=node.end_lineno or line, col_offset=node.end_col_offset or 0)
        end_line, end_column = self.program.position(end)
        return line, column - 1, end_line, end_column - 1


_LOOKS_AT = (ast.Attribute, ast.Compare, ast.BoolOp, ast.UnaryOp, ast.If, ast.IfExp)
"""Where a function or network may be named without being called or handed on."""


def _fresh(name: str, function: Function) -> str:
    used = {n.id for n in ast.walk(function) if isinstance(n, ast.Name)}
    used |= {n.arg for n in ast.walk(function) if isinstance(n, ast.arg)}
    return next(c for c in (name, *(f"{name}_{i}" for i in range(2, 99))) if c not in used)


def _token_parameter(function: Function) -> str | None:
    """The parameter that holds the token ids: the one that is embedded, or else one that is named so."""
    spec = function.args
    names = [a.arg for a in (*spec.posonlyargs, *spec.args, *spec.kwonlyargs) if a.arg != "self"]
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and node.args and _EMBEDS.search(last_name(node.func)):
            given = node.args[0]
            if isinstance(given, ast.Name) and given.id in names:
                return given.id
    optional = {a.arg for a in spec.args[len(spec.args) - len(spec.defaults) :]}
    optional |= {a.arg for a, d in zip(spec.kwonlyargs, spec.kw_defaults, strict=True) if d is not None}
    return next((n for n in names if _IDS_NAME.match(n) and n not in optional), None)


# -- the previous position's state ---------------------------------------------------------------------------


def _previous_states(function: Function, mixing: ast.AST) -> list[ast.expr]:
    """The expressions that shift a state by one position and flow into ``mixing``, nearest first."""
    todo: list[ast.AST] = [mixing]
    seen: set[str] = set()
    for _ in range(MAX_DEPTH):
        found: list[ast.expr] = []
        names: set[str] = set()
        for node in todo:
            for part in _mixed(node):
                if isinstance(part, ast.Name):
                    names.add(part.id)
                else:
                    found.append(part)
        if found:
            return found
        todo = [v for name in sorted(names - seen) for v in _assigned(function, name)]
        seen |= names
    return []


def _mixed(node: ast.AST) -> Iterator[ast.expr]:
    """The shifted states in an expression, and the names it may have them from."""
    if isinstance(node, ast.expr) and _shifted(node) is not None:
        yield node
        return
    parts: list[ast.AST] = []
    if isinstance(node, ast.Name):
        yield node
    elif isinstance(node, ast.BinOp):
        parts = [node.left, node.right]
    elif isinstance(node, ast.AugAssign):
        parts = [node.value]
    elif isinstance(node, ast.Call) and last_name(node.func) in _PASSES_ON:
        parts = [*node.args, *(k.value for k in node.keywords)]
        parts += [node.func.value] if isinstance(node.func, ast.Attribute) else []
    elif isinstance(node, (ast.Subscript, ast.Starred)):
        parts = [node.value]
    elif isinstance(node, ast.UnaryOp):
        parts = [node.operand]
    elif isinstance(node, ast.IfExp):
        parts = [node.body, node.orelse]
    elif isinstance(node, (ast.Tuple, ast.List)):
        parts = [*node.elts]
    for part in parts:
        yield from _mixed(part)


def _assigned(function: Function, name: str) -> Iterator[ast.expr]:
    """What is assigned or copied to a name, or to a part of it."""
    for node in ast.walk(function):
        if isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign, ast.NamedExpr)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if node.value is not None and any(_root(t) == name for t in targets):
                yield node.value
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "copy_":
            yield from node.args[:1] if _root(node.func.value) == name else ()


def _root(node: ast.expr) -> str | None:
    while isinstance(node, ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def _shifted(node: ast.expr) -> ast.expr | None:
    """The state that this expression shifts by one position along its second axis, or None."""
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else []
        if len(parts) < 2 or not is_all_but_last(parts[1]):
            return None
        first = parts[0]
        if _is_full(first) or (
            isinstance(first, ast.Constant)
            and first.value is Ellipsis
            and len(parts) == 3
            and isinstance(parts[2], ast.Slice)
        ):
            return node.value
        return None
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return None
    given = {k.arg: k.value for k in node.keywords}
    if node.func.attr == "roll":
        on_module = last_name(node.func.value) == "torch"
        if on_module and not node.args:
            return None
        base, rest = (node.args[0], node.args[1:]) if on_module else (node.func.value, node.args)
        by = rest[0] if rest else given.get("shifts")
        along = rest[1] if len(rest) > 1 else given.get("dims", given.get("dim"))
        return base if _integer(by) == 1 and _integer(along) in (1, -2) else None
    if node.func.attr == "pad" and node.args:
        amounts = node.args[1] if len(node.args) > 1 else given.get("pad")
        known = [_integer(a) for a in amounts.elts] if isinstance(amounts, (ast.Tuple, ast.List)) else []
        return node.args[0] if known == [0, 0, 1, -1] else None
    return None


def _is_full(part: ast.expr) -> bool:
    return isinstance(part, ast.Slice) and part.lower is None and part.upper is None and part.step is None


def _integer(node: ast.expr | None) -> int | None:
    if isinstance(node, ast.Tuple) and len(node.elts) == 1:
        node = node.elts[0]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _integer(node.operand)
        return -value if value is not None else None
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    return None


# -- where documents start -----------------------------------------------------------------------------------


def _document_start(tree: ast.Module, nodes: Sequence[ast.AST]) -> tuple[str, str]:
    """How to write the token that starts a document in this program, and a remark on it.

    A module's own constant is used by name. A name that is only set once some function has run, such as
    ``BOS_ID = None`` at first, may still be None when the network is called: then its value is written out.
    """
    named = sorted(n for n in _constants(tree) if _BOS_NAME.match(n))
    if named:
        compared = {
            last_name(side)
            for node in nodes
            if isinstance(node, ast.Compare)
            for side in (node.left, *node.comparators)
        }
        return next((n for n in named if n in compared), named[0]), ""
    bound = [b for node in nodes for b in _bindings(node)]
    numbers = {_integer(value) for name, value in bound if _BOS_NAME.match(name)} - {None}
    return str(numbers.pop()) if len(numbers) == 1 else "1", "BOS"


def _constants(tree: ast.Module) -> set[str]:
    """Names bound at the top level of the module, and to nothing that is None."""
    found: set[str] = set()
    for statement in tree.body:
        if isinstance(statement, (ast.Import, ast.ImportFrom)):
            found |= {a.asname or a.name for a in statement.names}
        found |= {name for name, _ in _bindings(statement)}
    empty = {
        name
        for statement in tree.body
        for name, value in _bindings(statement)
        if value is None or (isinstance(value, ast.Constant) and value.value is None)
    }
    return found - empty


def _bindings(node: ast.AST) -> Iterator[tuple[str, ast.expr | None]]:
    if isinstance(node, ast.Assign):
        for target in node.targets:
            if isinstance(target, (ast.Name, ast.Attribute)):
                yield last_name(target), node.value
            elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                for one, value in zip(target.elts, node.value.elts, strict=False):
                    yield last_name(one), value
    elif isinstance(node, ast.AnnAssign):
        yield last_name(node.target), node.value


# -- the edit ------------------------------------------------------------------------------------------------


class _Codemod(cst.CSTTransformer):
    """Makes the edits of one top-level statement, whose text starts after ``offset`` lines of the program."""

    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self, edits: _Edits, offset: int) -> None:
        super().__init__()
        self.edits = edits
        self.offset = offset
        self.planned = sum(len(e) for e in (edits.masked, edits.before, edits.parameters, edits.arguments))
        self.made = 0

    @property
    def complete(self) -> bool:
        """Whether every edit found its place."""
        return self.made == self.planned

    def _place(self, node: cst.CSTNode) -> Place:
        found = self.get_metadata(PositionProvider, node)
        assert isinstance(found, CodeRange)
        start, end = found.start, found.end
        return start.line + self.offset, start.column, end.line + self.offset, end.column

    def leave_Subscript(self, original_node: cst.Subscript, updated_node: cst.Subscript) -> cst.BaseExpression:
        return self._masked(original_node, updated_node)

    def leave_Call(self, original_node: cst.Call, updated_node: cst.Call) -> cst.BaseExpression:
        added = self.edits.arguments.get(self._place(original_node))
        if added is not None:
            by_name = any(a.keyword is not None or a.star for a in updated_node.args)
            argument = cst.Arg(cst.Name(added[1]))
            self.made += 1
            if by_name:
                equal = cst.AssignEqual(cst.SimpleWhitespace(""), cst.SimpleWhitespace(""))
                argument = argument.with_changes(keyword=cst.Name(added[0]), equal=equal)
            updated_node = updated_node.with_changes(args=_with_argument(updated_node.args, argument))
        return self._masked(original_node, updated_node)

    def _masked(self, original: cst.BaseExpression, updated: cst.BaseExpression) -> cst.BaseExpression:
        edit = self.edits.masked.get(self._place(original))
        if edit is None:
            return updated
        self.made += 1
        mask, parentheses = edit
        product = cst.BinaryOperation(updated, cst.Multiply(), cst.Name(mask.name))
        if parentheses:
            return product.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])
        return product

    def leave_FunctionDef(self, original_node: cst.FunctionDef, updated_node: cst.FunctionDef) -> cst.FunctionDef:
        place = self._place(original_node)
        for at, name in self.edits.parameters.items():
            if at[:2] == place[:2]:
                spec = updated_node.params
                added = cst.Param(cst.Name(name))
                spec = spec.with_changes(params=_with_parameter(spec.params, added))
                updated_node = updated_node.with_changes(params=spec)
                self.made += 1
        return updated_node

    def leave_SimpleStatementLine(
        self, original_node: cst.SimpleStatementLine, updated_node: cst.SimpleStatementLine
    ) -> cst.SimpleStatementLine | cst.FlattenSentinel[cst.SimpleStatementLine]:
        if len(original_node.body) > 1:
            return updated_node.with_changes(body=self._joined(original_node.body, updated_node.body))
        masks = self.edits.before.get(self._place(original_node.body[0]))
        if masks is None:
            return updated_node
        self.made += 1
        lines: list[cst.SimpleStatementLine] = []
        for mask in masks:
            text = f"{mask.statement}  # {mask.comment}\n" if mask.comment else f"{mask.statement}\n"
            line = cst.parse_statement(text)
            assert isinstance(line, cst.SimpleStatementLine)
            lines.append(line)
        lines[0] = lines[0].with_changes(leading_lines=updated_node.leading_lines)
        return cst.FlattenSentinel([*lines, updated_node.with_changes(leading_lines=[])])

    def leave_SimpleStatementSuite(
        self, original_node: cst.SimpleStatementSuite, updated_node: cst.SimpleStatementSuite
    ) -> cst.SimpleStatementSuite:
        return updated_node.with_changes(body=self._joined(original_node.body, updated_node.body))

    def _joined(
        self, original: Sequence[cst.BaseSmallStatement], updated: Sequence[cst.BaseSmallStatement]
    ) -> list[cst.BaseSmallStatement]:
        """Statements on one line, with the masks among them."""
        body: list[cst.BaseSmallStatement] = []
        for before, after in zip(original, updated, strict=True):
            masks = self.edits.before.get(self._place(before), [])
            self.made += bool(masks)
            for mask in masks:
                line = cst.parse_statement(mask.statement)
                assert isinstance(line, cst.SimpleStatementLine)
                body.append(line.body[0].with_changes(semicolon=_separator(original)))
            body.append(after)
        return body


def _separator(statements: Sequence[cst.BaseSmallStatement]) -> cst.Semicolon:
    for statement in statements[:-1]:
        if isinstance(statement.semicolon, cst.Semicolon):
            return statement.semicolon
    return cst.Semicolon(whitespace_after=cst.SimpleWhitespace(" "))


def _with_argument(arguments: Sequence[cst.Arg], added: cst.Arg) -> list[cst.Arg]:
    if not arguments:
        return [added]
    # The new last one takes over what stands before the closing parenthesis: a comma, a line end.
    last = arguments[-1]
    added = added.with_changes(comma=last.comma, whitespace_after_arg=last.whitespace_after_arg)
    last = last.with_changes(comma=_usual_comma(arguments), whitespace_after_arg=cst.SimpleWhitespace(""))
    return [*arguments[:-1], last, added]


def _with_parameter(parameters: Sequence[cst.Param], added: cst.Param) -> list[cst.Param]:
    if not parameters:
        return [added]
    last = parameters[-1]
    added = added.with_changes(comma=last.comma, whitespace_after_param=last.whitespace_after_param)
    last = last.with_changes(comma=_usual_comma(parameters), whitespace_after_param=cst.SimpleWhitespace(""))
    return [*parameters[:-1], last, added]


def _usual_comma(items: Sequence[cst.Arg] | Sequence[cst.Param]) -> cst.Comma | cst.MaybeSentinel:
    """The comma before the last item, line end and all, unless it carries a comment."""
    comma = items[-2].comma if len(items) > 1 else cst.MaybeSentinel.DEFAULT
    if isinstance(comma, cst.Comma) and "#" not in cst.Module([]).code_for_node(comma):
        return comma
    return cst.MaybeSentinel.DEFAULT
