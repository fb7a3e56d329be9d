"""Modules that are not installed here and that no stand-in replaces.

A script that imports one outright would stop there, whatever it needs it for: mostly to pack the artifact. Where the
import is not guarded by a handler, an empty module takes its place; the first use of anything in it stops the job and
names it. A guarded import fails, as it would where the script was written for that case.
"""

from __future__ import annotations

import ast
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Iterator, Sequence

from auditor.probe.driver.used import NoStandInError, note


class Absent:
    """Something of a module that is not here: it may be named, not used."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __getattr__(self, name: str) -> Absent:
        if name.startswith("__"):
            raise AttributeError(name)
        return Absent(f"{self.name}.{name}")

    def __call__(self, *args: object, **options: object) -> object:
        raise NoStandInError(self.name)

    def __mro_entries__(self, bases: tuple[object, ...]) -> tuple[type, ...]:
        name = self.name

        class Missing:
            def __init__(self, *args: object, **options: object) -> None:
                raise NoStandInError(name)

        return (Missing,)


class _Empty(types.ModuleType):
    """A module in which everything is absent."""

    def __getattr__(self, name: str) -> Absent:
        if name.startswith("__"):
            raise AttributeError(name)
        return Absent(f"{self.__name__}.{name}")


class _Loader(importlib.abc.Loader):
    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _Empty(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        module.__path__ = []


class AbsentFinder(importlib.abc.MetaPathFinder):
    """The last finder: makes empty modules for the names given to it, and for what is below them."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = frozenset(names)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition(".")[0] not in self.names:
            return None
        note(f"stand-in: {fullname} is missing, an empty module is imported")
        return importlib.machinery.ModuleSpec(fullname, _Loader(), is_package=True)


def install(tree: ast.Module) -> None:
    """Let the unguarded imports of a script succeed whose modules are neither installed nor its own."""
    names = [name for name in unguarded(tree) if name not in sys.modules and importlib.util.find_spec(name) is None]
    if names:
        sys.meta_path.append(AbsentFinder(names))


def unguarded(tree: ast.Module) -> list[str]:
    """The first parts of the modules that are imported outside of any ``try``, in order."""
    found: dict[str, None] = {}
    for node in _outside_try(tree):
        if isinstance(node, ast.Import):
            found |= dict.fromkeys(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found[node.module.partition(".")[0]] = None
    guarded = {
        alias.name.partition(".")[0] if isinstance(node, ast.Import) else (node.module or "").partition(".")[0]
        for attempt in ast.walk(tree)
        if isinstance(attempt, ast.Try)
        for statement in attempt.body
        for node in ast.walk(statement)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    return [name for name in found if name not in guarded]


def _outside_try(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.Try):
            yield child
            yield from _outside_try(child)
