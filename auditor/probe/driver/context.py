"""What a job gets: the submission as modules, its main flow to run, its arguments, and a way to tell.

A job is a function of one argument that returns what ``json.dumps`` takes::

    # auditor/probe/driver/model.py
    def measure(context: Context) -> dict[str, object]:
        module = context.module()            # the entry script, its main flow left out
        net = module.GPT(...)
        context.progress("17 of 80 positions")
        return {"logits": net(...).tolist()}

and is named "model:measure" in the job file (``Harness.run("model:measure", {...})``). The job file is JSON::

    {"job": "model:measure", "entry": "train_gpt.py", "arguments": {...}, "argv": [...], "seed": 0,
     "threads": 1, "precise": true}

and so is what the driver writes to /out/result.json::

    {"status": "done", "value": {...}, "used": [{"what", "file", "line", "count"}], "seconds": 3.2}
    {"status": "stopped", "stop": {"kind", "message", "exception", "file", "line", "function"}, "used": [...]}

with ``stop`` as in :class:`auditor.probe.result.Stop`. A job stops by raising :class:`StopJob`, or by any exception;
``file`` and ``line`` are then the innermost place in the submission. The result is written by the process that also
runs the submission: code that is out to forge it can. It is read as evidence about code, not as proof against its will.
"""

from __future__ import annotations

import ast
import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from auditor.probe.driver import on_cpu
from auditor.probe.driver.entry import split
from auditor.probe.driver.used import ADAPTED, place
from auditor.unpack.source import parse

WORK = Path(place("/out/work"))
"""The working directory: the folder as shipped, writable, with ``data`` of the tiny world."""


class StopJob(Exception):
    """Ends a job with a reason: one of the kinds of :class:`auditor.probe.result.Stop`, and a sentence."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass
class Context:
    """One job."""

    entry: str
    """The entry script, relative to the submission."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    _module: types.ModuleType | None = None
    _rest: ast.Module | None = None

    def module(self) -> types.ModuleType:
        """The entry script as module ``__main__``, everything in it executed but its main flow. Executed once."""
        if self._module is None:
            tree = self.tree(self.entry)
            head, rest = split(tree)
            self._rest = rest
            module = types.ModuleType("__main__")
            module.__file__ = str(WORK / self.entry)
            vars(module)["_on_cpu"] = on_cpu
            # Classes are pickled, and annotations resolved, through the module's name.
            sys.modules["__main__"] = module
            self._module = module
            prelude = Path(ADAPTED).parent / "prelude.py"
            if prelude.is_file():
                exec(compile(prelude.read_text(encoding="utf-8"), str(prelude), "exec"), vars(module))  # noqa: S102
            exec(compile(head, ADAPTED + self.entry, "exec"), vars(module))  # noqa: S102
        return self._module

    def run_main(self) -> None:
        """Run what :meth:`module` left out: the script's main flow, in the module's namespace.

        Raises whatever it raises; SystemExit with a true code is for the caller to judge.
        """
        module = self.module()
        assert self._rest is not None
        exec(compile(self._rest, ADAPTED + self.entry, "exec"), vars(module))  # noqa: S102

    def modules(self) -> list[types.ModuleType]:
        """The submission's modules that are loaded, entry first."""
        entry = self.module()  # first, since it loads the others
        own = [m for m in list(sys.modules.values()) if isinstance(getattr(m, "__loader__", None), _Loader)]
        return [entry, *own]

    def tree(self, file: str | None = None) -> ast.Module:
        """The adapted syntax tree of a file of the submission, the entry's by default."""
        return _tree(file or self.entry)

    @staticmethod
    def file_of(module: types.ModuleType) -> str:
        """The file of one of :meth:`modules`, relative to the submission."""
        return str(Path(str(module.__file__)).relative_to(WORK))

    def progress(self, message: str) -> None:
        """Tell whoever is watching."""
        print(f"probe: {message}", flush=True)


def _tree(file: str) -> ast.Module:
    source = parse((Path(ADAPTED) / file).read_text(encoding="utf-8"))
    if source.tree is None:
        raise StopJob("no-code", f"{file} can't be parsed: {source.error}")
    return source.tree


class _Loader(importlib.abc.Loader):
    """Loads an adapted module."""

    def __init__(self, file: str) -> None:
        self.file = file

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType | None:
        return None

    def exec_module(self, module: types.ModuleType) -> None:
        vars(module)["_on_cpu"] = on_cpu
        exec(compile(_tree(self.file), ADAPTED + self.file, "exec"), vars(module))  # noqa: S102


class Finder(importlib.abc.MetaPathFinder):
    """Finds the submission's own modules among the adapted files, before any other."""

    def __init__(self, roots: Sequence[str]) -> None:
        self.roots = roots

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        for root in self.roots:
            base = f"{root}{fullname.replace('.', '/')}"
            for file, package in ((f"{base}/__init__.py", True), (f"{base}.py", False)):
                if (Path(ADAPTED) / file).is_file():
                    spec = importlib.machinery.ModuleSpec(
                        fullname, _Loader(file), origin=str(WORK / file), is_package=package
                    )
                    spec.has_location = True
                    if package:
                        spec.submodule_search_locations = [str(WORK / base)]
                    return spec
        return None
