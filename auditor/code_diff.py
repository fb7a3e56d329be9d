"""Two versions of one program: which functions differ in what they do.

Comments, layout, docstrings, annotations, imports and printed messages are no difference. Functions are compared by
name, textually first, and as syntax trees only where their text differs.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

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


def _settings(unit: Unit) -> dict[str, str]:
    """What each name of a configuration class is set to; under "" what isn't a plain setting."""
    found: dict[str, str] = {}
    for node in unit.nodes:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        name = target.id if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(target, ast.Name) else ""
        found[name] = found.get(name, "") + _dump(node, True, True)
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
    configuration = _CONFIGURATION.search(unit.name) is not None
    parts = [_dump(node, defaults, configuration) for node in unit.nodes]
    return "\n".join(p for p in parts if p)


_SKIPPED = frozenset({"annotation", "returns", "type_comment", "ctx", "type_params", "simple", "kind"})


def _dump(node: object, defaults: bool, configuration: bool) -> str:
    if isinstance(node, list):
        return "[" + ",".join(p for n in node if (p := _dump(n, defaults, configuration))) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    if isinstance(node, ast.Expr):
        called = node.value
        if isinstance(called, ast.Constant):
            return ""  # a docstring
        if isinstance(called, ast.Call) and _PRINTS.search(_name(called.func)):
            return ""
    elif isinstance(node, ast.Pass | ast.Import | ast.ImportFrom) or _tries_import(node):
        return ""
    elif isinstance(node, ast.AnnAssign):
        if node.value is None:
            return ""
        target, value = _dump(node.target, defaults, configuration), _dump(node.value, defaults, configuration)
        return f"Assign([{target}],{_default(node.value, value, defaults, configuration)})"
    elif isinstance(node, ast.Assign):
        targets, value = _dump(node.targets, defaults, configuration), _dump(node.value, defaults, configuration)
        return f"Assign({targets},{_default(node.value, value, defaults, configuration)})"
    elif isinstance(node, ast.Call) and not defaults and _READS_SETTING.search(_name(node.func)):
        return f"Call({_name(node.func)},{_dump(node.args[:1], defaults, configuration)})"
    fields = (_dump(v, defaults, configuration) for f, v in ast.iter_fields(node) if f not in _SKIPPED)
    return f"{type(node).__name__}({','.join(fields)})"


def _tries_import(node: ast.AST) -> bool:
    """An import that may fail, with what stands in for it."""
    return isinstance(node, ast.Try) and all(isinstance(n, ast.Import | ast.ImportFrom) for n in node.body)


def _default(node: ast.expr, dumped: str, defaults: bool, configuration: bool) -> str:
    plain = isinstance(node, ast.Constant) or (isinstance(node, ast.UnaryOp) and isinstance(node.operand, ast.Constant))
    return "#" if configuration and not defaults and plain else dumped


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
    names = [n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
    return len(names) >= 20 and sum(len(n) <= 2 for n in names) > 0.6 * len(names)


def _vocabulary(tree: ast.Module) -> set[str]:
    """What a minifier leaves alone: attributes, keywords and texts."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.keyword) and node.arg:
            found.add(node.arg)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < 80:
            found.add(node.value)
    return found
