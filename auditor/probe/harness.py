"""Runs jobs on a submission: adapts it, shows it to the driver in the sandbox, and brings back what came of it.

::

    plan = plan_overrides(reading)
    world = build(folder, **plan.world())
    with Harness(reading, world=world.root, overrides=plan) as harness:
        result = harness.run("model:measure", {"positions": 80}, wall=60)
        if result.stop is not None: ...       # exactly what stopped it
        result.value                          # what the job returned
        result.substitutions                  # everything that was put in place of something

Inside, /submission/shipped is the folder as shipped (unpacked program or not, the script reads its own file), and
/submission/adapted the adapted text of its entry script and of what that imports; both read-only. /world is the tiny
world. The driver works in /out/work, a copy of the former with the latter's ``data``. The job's arguments and result
are JSON; see :mod:`auditor.probe.driver.context` for both and for what a job gets.
"""

from __future__ import annotations

import ast
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any

import auditor
from auditor.evidence import Attempt, Evidence
from auditor.probe import programs
from auditor.probe.adapt import Adapted, AdaptError, adapt
from auditor.probe.overrides import Overrides, Size
from auditor.probe.result import Stop, Substitution
from auditor.reading import Reading
from auditor.sandbox import End, Limits, Sandbox, SandboxResult
from auditor.unpack import Program
from auditor.unpack.walk import walk

MAX_FILE = 4 << 20
MAX_RESULT = 64 << 20
MAX_MODULES = 40
MIB = 1 << 20
_LIMITS = Limits(memory=6144 * MIB, processes=64, file_size=256 * MIB, output=1024 * MIB, scratch=256 * MIB)
_PROGRESS = "probe: "


@dataclass(frozen=True)
class JobResult:
    """What came of a job. Either ``value`` or ``stop``."""

    value: Any = None
    stop: Stop | None = None
    substitutions: tuple[Substitution, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    seconds: float = 0.0
    printed: str = ""
    """The last of what was printed, both streams one after the other."""
    sandboxed: bool = True
    output: Path | None = None
    """The job's /out on the host, until the harness is closed. Hostile: regular files only, by output_files."""

    @property
    def ok(self) -> bool:
        """Whether the job ran to its end."""
        return self.stop is None


@dataclass
class Harness:
    """One submission, ready for jobs.

    ``overrides`` make it small: environment, command line, and constants that the codemod replaces. ``environment``
    goes over theirs. ``world`` is a folder mounted at /world. ``protected=False`` only if a person typed --no-sandbox.
    """

    reading: Reading
    world: Path | None = None
    overrides: Overrides = field(default_factory=lambda: Overrides(Size()))
    environment: Mapping[str, str] = field(default_factory=dict)
    protected: bool = True
    progress: Callable[[str], None] = lambda message: None

    def __post_init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="probe-")
        self._runs = 0

    def __enter__(self) -> Harness:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._folder.cleanup()

    # -- what is run -------------------------------------------------------------------------------------

    @cached_property
    def entry(self) -> str | None:
        """The entry script, relative to the submission's folder; None if there is none that could be read."""
        index = self.reading.entry
        if index is None:
            return None
        return next((path for path in self.reading.python_files if self.reading.index(path) is index), None)

    @cached_property
    def programs(self) -> dict[str, Program]:
        """The entry script and the modules of the submission that it may import, by relative path."""
        if self.entry is None:
            return {}
        found: dict[str, Program] = {}
        above = f"{self.entry.rpartition('/')[0]}/" if "/" in self.entry else ""
        todo = [self.entry]
        while todo and len(found) < MAX_MODULES:
            path = todo.pop(0)
            index = self.reading.index(path)
            if path in found or index is None:
                continue
            found[path] = program = index.program
            for inner in program.bundled:
                if inner.name and inner.name.endswith(".py") and inner.tree is not None:
                    found.setdefault(inner.name, inner)
            for name in _imported(program):
                module = name.replace(".", "/")
                for candidate in (f"{above}{module}.py", f"{above}{module}/__init__.py", f"{module}.py"):
                    if candidate in self.reading.python_files:
                        todo.append(candidate)
        return found

    @cached_property
    def adapted(self) -> dict[str, Adapted]:
        """The adapted texts.

        Raises:
            AdaptError: the entry script can't be adapted.
        """
        found: dict[str, Adapted] = {}
        for path, program in self.programs.items():
            try:
                constants = {c.name: c.probe for c in self.overrides.constants if c.file == program.file}
                found[path] = _adapt(program.text, program.file, tuple(sorted(constants.items())))
            except AdaptError:
                if path == self.entry:
                    raise
        return found

    @cached_property
    def _submission(self) -> Path:
        """The folder that is mounted at /submission."""
        root = Path(self._folder.name) / "submission"
        base = self.reading.folder.path
        prefix = len(base) + 1 if base not in ("", ".") else 0
        for file in self.reading.folder.files:
            relative = PurePosixPath(file.path[prefix:])
            if file.change == "deleted" or file.problem or file.size > MAX_FILE or file.name.endswith(".log"):
                continue
            if relative.is_absolute() or ".." in relative.parts:
                continue
            _write(root / "shipped" / relative, file.data)
        for path, adapted in self.adapted.items():
            _write(root / "adapted" / path, adapted.text.encode("utf-8", "surrogatepass"))
        entry = self.programs[self.entry or ""]
        if entry.prelude is not None:
            _write(root / "prelude.py", ast.unparse(entry.prelude).encode("utf-8", "surrogatepass"))
        programs.furnish(root / "bin")
        (root / "shipped").mkdir(exist_ok=True)
        return root

    # -- running it --------------------------------------------------------------------------------------

    def run(
        self,
        job: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        wall: float = 60.0,
        seed: int = 0,
        precise: bool = True,
        environment: Mapping[str, str] | None = None,
    ) -> JobResult:
        """Run a job, such as "model:measure", for at most ``wall`` seconds.

        ``environment`` goes over the harness's own, to switch something on. ``precise`` computes bfloat16 as float32.

        Raises:
            SandboxError: there is no sandbox here.
        """
        problem = self._problem()
        if problem is not None:
            return JobResult(stop=problem, sandboxed=self.protected)
        self._runs += 1
        output = Path(self._folder.name) / f"run{self._runs}"
        told = Path(self._folder.name) / f"job{self._runs}"
        output.mkdir()
        package = Path(auditor.__file__).parent
        mounts = {"/submission": self._submission, "/job": told, "/probe/auditor": package}
        if self.world is not None:
            mounts["/world"] = self.world

        def inside(path: str) -> str:
            """A path as the submission sees it: without a sandbox, nothing is mounted."""
            return path if self.protected else _unmounted(path, {**mounts, "/out": output})

        task = {
            "job": job,
            "entry": self.entry,
            "arguments": dict(arguments or {}),
            "argv": [inside(argument) for argument in self.overrides.arguments],
            "seed": seed,
            "threads": 1,
            "precise": precise,
        }
        _write(told / "job.json", json.dumps(task).encode())
        own = {
            **self.overrides.environment,
            **self.environment,
            **(environment or {}),
            "PYTHONHASHSEED": "0",
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "TRITON_INTERPRET": "1",
            "TORCHDYNAMO_DISABLE": "1",
            "TORCHINDUCTOR_CACHE_DIR": "/out/inductor",
        }
        path = [inside("/submission/bin"), "/guard/bin", str(Path(sys.executable).parent), "/usr/bin", "/bin"]
        modules = [inside("/probe/auditor/probe/stand_ins"), inside("/probe")]
        sandbox = Sandbox(
            output=output,
            mounts=mounts,
            environment={
                **{name: inside(value) for name, value in own.items()},
                "PATH": os.pathsep.join(path),
                "PYTHONPATH": os.pathsep.join(modules),
                **{f"AUDITOR_{name.upper()}": inside(f"/{name}") for name in ("submission", "out", "world", "job")},
            },
            limits=replace(_LIMITS, wall=wall, cpu=int(4 * wall) + 10),
            progress=self._told,
            protected=self.protected,
        )
        done = sandbox.run([sys.executable, "-m", "auditor.probe.driver", inside("/job/job.json")])
        return self._result(done, output, wall)

    def _told(self, line: str) -> None:
        if line.startswith(_PROGRESS):
            self.progress(line[len(_PROGRESS) :])

    def _problem(self) -> Stop | None:
        """Why nothing can be run."""
        if self.entry is None or self.entry not in self.programs:
            return Stop(kind="no-code", message="there is no Python script")
        program = self.programs[self.entry]
        if program.tree is None or program.problem is not None:
            message = f"the script can't be read: {program.detail or program.problem}"
            return Stop(kind="no-code", message=message, file=program.file)
        try:
            _ = self.adapted
        except AdaptError as why:
            return Stop(kind="no-code", message=str(why), file=program.file)
        return None

    def _result(self, done: SandboxResult, output: Path, wall: float) -> JobResult:
        raw = _read(output / "result.json")
        stop = self._stop(raw, done, wall)
        return JobResult(
            value=raw.get("value") if stop is None and raw is not None else None,
            stop=stop,
            substitutions=(*self._adapted_substitutions(), *self._used(raw, done)),
            attempts=done.attempts,
            seconds=done.seconds,
            printed=f"{done.stdout}\n{done.stderr}".strip(),
            sandboxed=done.sandboxed,
            output=output,
        )

    def _stop(self, raw: dict[str, Any] | None, done: SandboxResult, wall: float) -> Stop | None:
        if done.end is End.TIMEOUT:
            return Stop(kind="time", message=f"still running after {wall:g} s")
        if done.end in (End.MEMORY, End.KILLED, End.PROCESSES, End.OUTPUT):
            why = {End.MEMORY: "too much memory", End.OUTPUT: "too many files", End.PROCESSES: "too many processes"}
            message = f"stopped by the sandbox: {why.get(done.end, 'killed, perhaps for memory or processor time')}"
            return Stop(kind="memory" if done.end is not End.PROCESSES else "refused", message=message)
        if raw is None:
            last = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
            return Stop(kind="exception", message=f"the driver left no result: {last[0][:200]}")
        if raw.get("status") == "done":
            return None
        told = raw.get("stop")
        told = told if isinstance(told, dict) else {}
        file, line = told.get("file"), told.get("line")
        program = self.programs.get(file) if isinstance(file, str) else None
        kinds = ("no-code", "missing-module", "shape", "time", "memory", "refused", "exception", "not-found")
        kind = told.get("kind")
        return Stop(
            kind=kind if kind in kinds else "exception",
            message=str(told.get("message", ""))[:400] or "no reason given",
            exception=str(told["exception"])[:100] if told.get("exception") else None,
            file=program.file if program is not None else None,
            line=line if isinstance(line, int) and line > 0 and program is not None else None,
        )

    def stop_evidence(self, stop: Stop) -> Evidence | None:
        """The line at which a job stopped, for a report; None where it is not known."""
        program = next((p for p in self.programs.values() if p.file == stop.file), None)
        if program is None or stop.line is None:
            return None
        shipped = program.locate(stop.line, 1)
        unpacked = program.view == "unpacked"
        return Evidence(
            file=program.file,
            line=stop.line,
            column=1,
            snippet=program.snippet(stop.line, 1),
            role="stopped here",
            view=program.view,
            shipped_line=shipped[0] if unpacked else None,
            shipped_column=shipped[1] if unpacked else None,
        )

    def _adapted_substitutions(self) -> tuple[Substitution, ...]:
        return tuple(dict.fromkeys(s for adapted in self.adapted.values() for s in adapted.substitutions))

    def _used(self, raw: dict[str, Any] | None, done: SandboxResult) -> tuple[Substitution, ...]:
        """Stand-ins that the driver saw being used, and programs."""
        found: list[Substitution] = []
        used = raw.get("used", []) if raw is not None else []
        for item in used if isinstance(used, list) else []:
            if not isinstance(item, dict) or not isinstance(item.get("what"), str):
                continue
            program = self.programs.get(str(item.get("file")))
            line = item.get("line")
            found.append(
                Substitution(
                    what=item["what"][:200],
                    file=program.file if program is not None else None,
                    line=line if isinstance(line, int) and line > 0 and program is not None else None,
                )
            )
        for attempt in done.attempts:
            name = attempt.what.split(" ")[0]
            if attempt.kind == "program" and attempt.seen_by == "shim" and name in programs.SUBSTITUTED:
                found.append(Substitution(what=f"stand-in: {programs.SUBSTITUTED[name]}"))
        return tuple(dict.fromkeys(found))


@lru_cache(maxsize=16)
def _adapt(text: str, file: str, constants: tuple[tuple[str, str], ...]) -> Adapted:
    """LibCST takes seconds for a long script, and every probe has a harness of its own."""
    return adapt(text, file=file, constants=dict(constants))


def _imported(program: Program) -> list[str]:
    """The modules that a program imports anywhere, and the names that may be modules of a package."""
    found: list[str] = []
    for node in walk(program.tree) if program.tree is not None else ():
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return list(dict.fromkeys(part for name in found for part in _prefixes(name)))


def _prefixes(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[: i + 1]) for i in range(len(parts))]


def _unmounted(path: str, mounts: Mapping[str, Path]) -> str:
    """A path or other text, with the host's folder where it begins with a mount."""
    for mount, folder in mounts.items():
        if path == mount or path.startswith(f"{mount}/"):
            return f"{folder.absolute()}{path[len(mount) :]}"
    return str(Path(auditor.__file__).parent.parent) if path == "/probe" else path


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _read(path: Path) -> dict[str, Any] | None:
    """The driver's result. The submission could have put anything there."""
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > MAX_RESULT:
            return None
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None
