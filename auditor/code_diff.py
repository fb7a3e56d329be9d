"""Two versions of one program: which functions differ in what they do.

Comments, layout, docstrings, annotations, imports and printed messages are no difference. Functions are compared by
name, textually first, and as syntax trees only where their text differs.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from auditor.unpack.walk import FIELDS, children, walk

MODULE = "<module>"

_PRINTS = re.compile(r"(?i)(?:^|\.|_)(?:print\w*|log\d?|logger|info|warning|debug|write)$")
_READS_SETTING = re.compile(r"environ\.get$|getenv$|add_argument$")
_CONFIGURATION = re.compile(r"(?i)hyper|args|config|settings|hparams")


@dataclass(frozen=True)
class Unit:
    """One function, method or the module's own statements: its text without comments, and its nodes."""

    name: str
    text: str
    nodes: tuple[ast.stmt, ...]

    @property
    def line(self) -> int:
        return self.nodes[0].lineno if self.nodes else 1


@dataclass(frozen=True)
class CodeDifference:
    """What differs between a first and a second version.

    ``changed`` pairs the units of one name that do different things; ``defaults`` names those that differ only in
    default values of settings. ``minified``: the versions are one program as far as names and constants tell, but one
    of them was put through a minifier, so that functions can't be compared one by one.
    """

    changed: tuple[tuple[Unit, Unit], ...] = ()
    only_first: tuple[Unit, ...] = ()
    only_second: tuple[Unit, ...] = ()
    defaults: tuple[str, ...] = ()
    units: int = 0
    minified: bool = False

    @property
    def nothing(self) -> bool:
        return not self.changed and not self.only_first and not self.only_second


def code_lines(text: str) -> list[str]:
    """The lines that hold code: comment lines and blank ones left out, white space at the end removed."""
    return [s for line in text.split("\n") if (s := line.rstrip()) and not s.lstrip().startswith("#")]


def difference(first: str, first_tree: ast.Module, second: str, second_tree: ast.Module) -> CodeDifference:
    """Compare two versions, each as text with its tree."""
    ours, theirs = dict(_units(first, first_tree)), dict(_units(second, second_tree))
    changed: list[tuple[Unit, Unit]] = []
    defaults: list[str] = []
    for name, unit in ours.items():
        other = theirs.get(name)
        if other is None or unit.text == other.text:
            continue
        a, b = _meaning(unit), _meaning(other)
        if a == b or (_CONFIGURATION.search(name) and _unused_apart(unit, first, other, second)):
            continue
        if name == MODULE and _only_for_defaults(unit, ours, other, theirs):
            defaults.append(name)
            continue
        if _meaning(unit, defaults=False) == _meaning(other, defaults=False):
            defaults.append(name)
        else:
            changed.append((unit, other))
    only_first = tuple(u for n, u in ours.items() if n not in theirs)
    only_second = tuple(u for n, u in theirs.items() if n not in ours)
    every = max(len(ours), len(theirs))
    if len(changed) + max(len(only_first), len(only_second)) > every // 2 and _minified(first_tree) != _minified(
        second_tree
    ):
        words, others = _vocabulary(first_tree), _vocabulary(second_tree)
        if len(words & others) >= 0.9 * min(len(words), len(others)):
            return CodeDifference(units=every, minified=True)
    return CodeDifference(tuple(changed), only_first, only_second, tuple(defaults), every)


def _unused_apart(unit: Unit, text: str, other: Unit, other_text: str) -> bool:
    """Whether two configuration classes differ only in settings that their program names nowhere else."""
    ours, theirs = _settings(unit), _settings(other)
    if any(ours[name] != theirs[name] for name in ours.keys() & theirs.keys()):
        return False
    apart = [(n, text) for n in ours.keys() - theirs.keys()] + [(n, other_text) for n in theirs.keys() - ours.keys()]
    return "" not in (n for n, _ in apart) and all(len(re.findall(rf"\b{re.escape(n)}\b", t)) == 1 for n, t in apart)


def _only_for_defaults(unit: Unit, ours: dict[str, Unit], other: Unit, theirs: dict[str, Unit]) -> bool:
    """Whether module names that only one side sets serve nothing but defaults of settings there."""
    left, right = _settings(unit), _settings(other)
    if any(left[name] != right[name] for name in left.keys() & right.keys()):
        return False
    for apart, units in ((left.keys() - right.keys(), ours), (right.keys() - left.keys(), theirs)):
        used = " ".join(u.text for n, u in units.items() if n != MODULE and not _CONFIGURATION.search(n))
        if "" in apart or any(re.search(rf"\b{re.escape(name)}\b", used) for name in apart):
            return False
    return True


def _settings(unit: Unit) -> dict[str, str]:
    """What each name of a configuration class is set to; under "" what isn't a plain setting."""
    found: dict[str, str] = {}
    dump = _Dump(unit)
    for node in unit.nodes:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        name = target.id if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(target, ast.Name) else ""
        found[name] = found.get(name, "") + dump(node)
    return found


def _units(text: str, tree: ast.Module) -> Iterator[tuple[str, Unit]]:
    lines = text.split("\n")
    rest: list[ast.stmt] = []
    seen: set[str] = set()

    def make(name: str, nodes: list[ast.stmt]) -> tuple[str, Unit]:
        while name in seen:  # defined again, under a condition or to replace the first
            name += "'"
        seen.add(name)
        source = [line for n in nodes for line in lines[n.lineno - 1 : n.end_lineno]]
        return name, Unit(name, "\n".join(code_lines("\n".join(source))), tuple(nodes))

    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield make(node.name, [node])
        elif isinstance(node, ast.ClassDef):
            own: list[ast.stmt] = []
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield make(f"{node.name}.{inner.name}", [inner])
                else:
                    own.append(inner)
            if own:
                yield make(node.name, own)
        elif not isinstance(node, ast.Import | ast.ImportFrom):
            rest.append(node)
    if rest:
        yield make(MODULE, rest)


def _meaning(unit: Unit, *, defaults: bool = True) -> str:
    """A text that is the same for two units that do the same; with ``defaults`` off, whatever their defaults."""
    dump = _Dump(unit, defaults)
    return "\n".join(p for n in unit.nodes if (p := dump(n)))


def first_change(ours: Unit, theirs: Unit) -> tuple[int, int]:
    """The lines of the first statement that differs, in each version."""
    a, b = _Dump(ours), _Dump(theirs)
    a.own, b.own = {}, {}  # numbered names shift after an inserted one
    return _first_change(list(ours.nodes), list(theirs.nodes), a, b, (ours.line, theirs.line))


def _first_change(
    ours: list[ast.stmt], theirs: list[ast.stmt], a: _Dump, b: _Dump, at: tuple[int, int]
) -> tuple[int, int]:
    left = [n for n in ours if a(n)]
    right = [n for n in theirs if b(n)]
    for x, y in zip(left, right, strict=False):
        at = (x.lineno, y.lineno)
        if a(x) == b(y):
            continue
        for part in ("body", "orelse", "finalbody"):
            inner, other = getattr(x, part, None), getattr(y, part, None)
            if type(x) is type(y) and isinstance(inner, list) and isinstance(other, list) and a(inner) != b(other):
                head = (f for f in ast.iter_fields(x) if f[0] not in ("body", "orelse", "finalbody", *_SKIPPED))
                if all(a(v) == b(getattr(y, f)) for f, v in head):
                    return _first_change(inner, other, a, b, at)
        return at
    if len(left) > len(right):
        return left[len(right)].lineno, at[1]
    return at[0], right[len(left)].lineno if len(right) > len(left) else at[1]


_SKIPPED = frozenset({"annotation", "returns", "type_comment", "ctx", "type_params", "simple", "kind"})
_SPECIAL = frozenset(
    {ast.arg, ast.Expr, ast.Pass, ast.Import, ast.ImportFrom, ast.Try, ast.AnnAssign, ast.Assign, ast.Call}
)
_COMPARED = {kind: tuple(f for f in kind._fields if f not in _SKIPPED) for kind in FIELDS}
"""The fields of each kind of node that make a difference."""


class _Dump:
    """Writes nodes of one unit as text without what makes no difference.

    In a function its own names are numbered, so that renaming them changes nothing.
    """

    def __init__(self, unit: Unit, defaults: bool = True) -> None:
        self.defaults = defaults
        self.configuration = _CONFIGURATION.search(unit.name) is not None
        self.own: dict[str, str] = {}
        if len(unit.nodes) == 1 and isinstance(unit.nodes[0], ast.FunctionDef | ast.AsyncFunctionDef):
            shared: set[str] = set()
            nodes: list[ast.AST] = [unit.nodes[0]]
            for node in nodes:  # level by level, as ast.walk goes
                nodes += children(node)
                kind = node.__class__
                if kind is ast.Name:
                    if isinstance(node.ctx, ast.Store):  # type: ignore[attr-defined]
                        self.own.setdefault(node.id, f"${len(self.own)}")  # type: ignore[attr-defined]
                elif kind is ast.arg:
                    self.own.setdefault(node.arg, f"${len(self.own)}")  # type: ignore[attr-defined]
                elif isinstance(node, ast.Global | ast.Nonlocal):
                    shared.update(node.names)
            for name in shared:
                self.own.pop(name, None)

    def __call__(self, node: Any) -> str:
        # Called for every node and field of what is compared: the commonest kinds come first.
        kind = node.__class__
        if kind is ast.Name:
            return self.own.get(node.id, str(node.id))
        if kind is list:
            return "[" + ",".join([p for n in node if (p := self(n))]) + "]"
        if kind not in _COMPARED:
            return repr(node)
        if kind in _SPECIAL:
            special = self._special(node)
            if special is not None:
                return special
        return f"{kind.__name__}({','.join([self(getattr(node, f, None)) for f in _COMPARED[kind]])})"

    def _special(self, node: ast.AST) -> str | None:
        """How a node is written of which not everything counts; "" for nothing, None where all of it does."""
        if isinstance(node, ast.arg):
            return self.own.get(node.arg, node.arg)
        if isinstance(node, ast.Expr):
            called = node.value
            if isinstance(called, ast.Constant):
                return ""  # a docstring
            if isinstance(called, ast.Call) and _PRINTS.search(_name(called.func)):
                return ""
        elif isinstance(node, ast.Pass | ast.Import | ast.ImportFrom) or _tries_import(node):
            return ""
        elif isinstance(node, ast.AnnAssign):
            return f"Assign([{self(node.target)}],{self._value(node.value)})" if node.value is not None else ""
        elif isinstance(node, ast.Assign):
            return f"Assign({self(node.targets)},{self._value(node.value)})"
        elif isinstance(node, ast.Call) and not self.defaults and _READS_SETTING.search(_name(node.func)):
            return f"Call({_name(node.func)},{self(node.args[:1])})"
        return None

    def _value(self, node: ast.expr) -> str:
        plain = isinstance(node, ast.UnaryOp) and isinstance(node.operand, ast.Constant)
        if self.configuration and not self.defaults and (plain or isinstance(node, ast.Constant)):
            return "#"
        return self(node)


def _tries_import(node: ast.AST) -> bool:
    """An import that may fail, with what stands in for it."""
    return isinstance(node, ast.Try) and all(isinstance(n, ast.Import | ast.ImportFrom) for n in node.body)


def _name(node: ast.expr) -> str:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if isinstance(node, ast.Name):
        parts.append(node.id)
    return ".".join(reversed(parts))


def _minified(tree: ast.Module) -> bool:
    """Whether most local names have one or two letters."""
    names = [n.id for n in walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
    return len(names) >= 20 and sum(len(n) <= 2 for n in names) > 0.6 * len(names)


def _vocabulary(tree: ast.Module) -> set[str]:
    """What a minifier leaves alone: attributes, keywords and texts."""
    found: set[str] = set()
    for node in walk(tree):
        if isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.keyword) and node.arg:
            found.add(node.arg)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < 80:
            found.add(node.value)
    return found
