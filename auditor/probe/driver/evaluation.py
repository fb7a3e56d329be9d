"""Runs a submission's own program on the tiny world, again and again from one point on, with other validation tokens.

This runs inside the sandbox. The process is forked at two points: when the program first opens a validation shard
("early": everything that ever sees validation tokens comes after it) and when the evaluation that gives the reported
number is called ("late": training is done, so a run costs only the evaluation). Each child changes the validation
tokens, goes on with the submission's own code, and stops when the reported number is printed; early children change
the shard file before it is read, late ones change the tokens where they lie in memory.

The clock that the program sees is a counter, so that nothing depends on how fast the machine is. Text is printed with
all digits. What is added to the accumulators of the named functions is kept per element.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import gc
import io
import json
import os
import random
import re
import shutil
import signal
import sys
import time
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from auditor.probe.driver import context as context_module
from auditor.probe.driver.__main__ import RESULT, stop
from auditor.probe.driver.context import WORK, Context
from auditor.probe.driver.used import noted

HEADER = 256 * 4
COPY = Path("/out/world")
"""A copy of the world that can be written to; the environment points the submission there."""
OUTPUT = Path("/out/probe")
MAX_ELEMENTS = 400_000
MAX_LINES = 400
MAX_KEPT_FILE = 64 << 20
_FLOAT_SPEC = re.compile(r"^([<>^=]?[+\- ]?\d*,?)\.\d+([fFeEgG])$")
_PERCENT = re.compile(r"%(\d*)\.\d+([feg])")
_BRACED = re.compile(r"(\{[^{}]*:[^{}]*?)\.\d+([feg]\})")
_sleep, _monotonic = time.sleep, time.monotonic


@dataclass(frozen=True)
class Run:
    """One run to make: where it branches off and what it changes.

    ``tokens`` and ``sizes`` give new token ids and, for a byte sidecar, byte counts, by position in the validation
    stream; ``length`` cuts the stream (late runs: the tensors that hold all of it).
    """

    id: str
    late: bool
    tokens: dict[int, int]
    sizes: dict[int, int]
    length: int | None = None


@dataclass
class Job:
    """What to do.

    ``tokens`` is the validation stream, ``sizes`` the bytes of each token (what a sidecar holds); ``shards`` and
    ``sidecars`` are the files of both, which can be written to. ``pattern`` matches the printed line with the
    reported number. ``function`` names the evaluation, None if it is not known; ``observed`` the functions whose
    accumulators are watched.
    """

    tokens: np.ndarray
    sizes: np.ndarray
    shards: list[Path]
    sidecars: list[Path]
    pattern: re.Pattern[str]
    function: str | None
    observed: list[str]
    runs: list[Run]
    output: Path = OUTPUT
    reported_call: tuple[int, int] | None = None
    """What an earlier job learnt: how many lines matched up to the reported one, and at which call that was."""
    seconds: float = 300.0
    run_seconds: float = 60.0


def read_job(raw: Mapping[str, Any]) -> Job:
    """The job that the host described."""
    runs = [
        Run(
            id=str(r["id"]),
            late=bool(r["late"]),
            tokens={int(k): int(v) for k, v in r.get("tokens", {}).items()},
            sizes={int(k): int(v) for k, v in r.get("sizes", {}).items()},
            length=r.get("length"),
        )
        for r in raw["runs"]
    ]
    return Job(
        tokens=np.asarray(raw["tokens"], dtype=np.int64),
        sizes=np.asarray(raw["sizes"], dtype=np.int64),
        shards=[COPY / p for p in raw["shards"]],
        sidecars=[COPY / p for p in raw.get("sidecars", ())],
        pattern=re.compile(raw["pattern"]),
        function=raw.get("function"),
        observed=list(raw.get("observed", ())),
        runs=runs,
        reported_call=tuple(raw["reported_call"]) if raw.get("reported_call") else None,
        seconds=float(raw.get("seconds", 300.0)),
        run_seconds=float(raw.get("run_seconds", 60.0)),
    )


# -- the program, with points to look in ---------------------------------------------------------------------------


def _all_digits(spec: str) -> str:
    return _FLOAT_SPEC.sub(lambda m: f"{m[1]}.17g" if m[2] in "gGeE" else f"{m[1]}.15f", spec)


class Instrument(ast.NodeTransformer):
    """Prints all digits, calls ``__probe_enter__`` where the evaluation begins, and shows what is accumulated.

    ``x += e`` in an observed function becomes ``x += __probe_value__(id, e)``; where ``e`` is the sum of a tensor,
    the tensor is shown as well. Nothing else changes; line numbers stay.
    """

    def __init__(self, function: str | None, observed: Sequence[str]) -> None:
        self._function = function
        self._observed = frozenset(observed)
        self._stack: list[str] = []
        self.entered = False

    def visit_FormattedValue(self, node: ast.FormattedValue) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.format_spec, ast.JoinedStr):
            for part in node.format_spec.values:
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    part.value = _all_digits(part.value)
        return node

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.op, ast.Mod) and isinstance(node.left, ast.Constant) and isinstance(node.left.value, str):
            node.left.value = _PERCENT.sub(r"%\1.15\2", node.left.value)
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if (
            isinstance(node.func, ast.Attribute)
            and node.func.attr == "format"
            and isinstance(node.func.value, ast.Constant)
            and isinstance(node.func.value.value, str)
        ):
            node.func.value.value = _BRACED.sub(r"\1.15\2", node.func.value.value)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self._stack.append(node.name)
        self.generic_visit(node)
        self._stack.pop()
        if node.name == self._function:
            self.entered = True
            call = ast.Expr(ast.Call(ast.Name("__probe_enter__", ast.Load()), [], []))
            first = node.body[0]
            ast.copy_location(call, first)
            ast.fix_missing_locations(call)
            at = 1 if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) else 0
            node.body.insert(at, call)
        return node

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        self.generic_visit(node)
        owner = next((name for name in reversed(self._stack) if name in self._observed), None)
        if owner is None or not isinstance(node.op, ast.Add):
            return node
        key = f"{owner}:{ast.unparse(node.target)}"
        name = ast.Constant(key)
        inner = node.value
        # e.sum(), e.sum().item(), float(e.sum()), e.to(t).sum().to(t): the tensor that is summed up.
        while isinstance(inner, ast.Call):
            if isinstance(inner.func, ast.Attribute):
                if inner.func.attr == "sum" and not inner.args and not inner.keywords:
                    inner.func.value = ast.Call(_name("__probe_part__"), [name, inner.func.value], [])
                    break
                inner = inner.func.value
            elif isinstance(inner.func, ast.Name) and inner.func.id in ("float", "int") and len(inner.args) == 1:
                inner = inner.args[0]
            else:
                break
        node.value = ast.Call(_name("__probe_value__"), [name, node.value], [])
        for new in ast.walk(node.value):
            if not hasattr(new, "lineno") and isinstance(new, (ast.expr,)):
                ast.copy_location(new, node)
        return node


def _name(identifier: str) -> ast.Name:
    return ast.Name(identifier, ast.Load())


# -- what a run shows ----------------------------------------------------------------------------------------------


class Watch:
    """What is printed and accumulated in one run, and how often the evaluation was called."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self.pattern = pattern
        self.lines: list[str] = []
        self.reported: list[str] = []
        self.entries = 0
        self.entries_at_report = 0
        self.steps_at_report = 0
        self.elements = 0
        self.steps = 0
        self.values: list[tuple[str, np.ndarray]] = []
        self.parts: list[tuple[str, np.ndarray]] = []
        self.kept: tuple[list[tuple[str, np.ndarray]], list[tuple[str, np.ndarray]]] = ([], [])
        self.on_report: Callable[[], None] | None = None
        self._rest = ""

    def enter(self) -> None:
        self.entries += 1
        self.values, self.parts, self.elements, self.steps = [], [], 0, 0

    def stepped(self, *_: Any) -> None:
        self.steps += 1

    def value(self, name: str, value: Any) -> Any:
        self._keep(self.values, name, value)
        return value

    def part(self, name: str, value: Any) -> Any:
        self._keep(self.parts, name, value)
        return value

    def _keep(self, into: list[tuple[str, np.ndarray]], name: str, value: Any) -> None:
        with contextlib.suppress(Exception):
            if isinstance(value, torch.Tensor):
                array = value.detach().to(torch.float64).reshape(-1).numpy().copy()
            else:
                array = np.asarray(value, dtype=np.float64).reshape(-1).copy()
            self.elements += array.size
            if self.elements <= MAX_ELEMENTS:
                into.append((name, array))

    def write(self, text: str) -> int:
        self._rest += text
        while "\n" in self._rest:
            line, _, self._rest = self._rest.partition("\n")
            if len(self.lines) < MAX_LINES:
                self.lines.append(line[:2000])
            if self.pattern.search(line):
                self.reported.append(line[:2000])
                self.entries_at_report, self.steps_at_report = self.entries, self.steps
                self.kept = (list(self.values), list(self.parts))
                if self.on_report is not None:
                    self.on_report()
        return len(text)


class _Printed(io.TextIOBase):
    """sys.stdout for the program."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def write(self, text: str) -> int:
        return self._watch.write(text)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return 2


class _Clock:
    """Time that goes on by a millisecond whenever somebody looks."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def seconds(self) -> float:
        self.now += 1e-3
        return self.now

    def nanoseconds(self) -> int:
        return int(self.seconds() * 1e9)

    def install(self) -> None:
        for name in ("time", "perf_counter", "monotonic", "process_time", "thread_time"):
            setattr(time, name, self.seconds)
            setattr(time, f"{name}_ns", self.nanoseconds)
        time.sleep = self._nap  # type: ignore[assignment]

    def _nap(self, seconds: float) -> None:
        self.now += seconds
        _sleep(min(seconds, 0.01))


class _Disk:
    """The files below some folders as they are now, to be put back after each run."""

    def __init__(self, folders: Sequence[Path], spared: Path) -> None:
        self._folders = folders
        self._spared = spared
        self._files: dict[Path, tuple[tuple[int, int], bytes | None]] = {}
        for path in self._walk():
            with contextlib.suppress(OSError):
                self._files[path] = (self._stamp(path), self._content(path))

    def _walk(self) -> list[Path]:
        found: list[Path] = []
        for folder in self._folders:
            for root, names, files in os.walk(folder):
                names[:] = [n for n in names if Path(root, n) != self._spared]
                found += [Path(root, f) for f in files]
        return found

    @staticmethod
    def _stamp(path: Path) -> tuple[int, int]:
        info = path.lstat()
        return info.st_mtime_ns, info.st_size

    @staticmethod
    def _content(path: Path) -> bytes | None:
        if path.is_symlink() or not path.is_file() or path.lstat().st_size > MAX_KEPT_FILE:
            return None
        return path.read_bytes()

    def restore(self) -> None:
        with contextlib.suppress(OSError):
            for path in self._walk():
                if path not in self._files:
                    path.unlink()
            for path, (stamp, content) in self._files.items():
                if content is not None and (not path.exists() or self._stamp(path) != stamp):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content)
                    os.utime(path, ns=(stamp[0], stamp[0]))


# -- validation tokens, on disk and in memory ----------------------------------------------------------------------


def write_shard(path: Path, values: np.ndarray) -> None:
    """Write a shard in the contest's format, in place, so that who has mapped the file sees it."""
    header = np.zeros(256, dtype="<i4")
    header[:3] = (20240520, 1, values.size)
    data = header.tobytes() + values.astype("<u2").tobytes()
    with open(path, "r+b" if path.exists() else "wb") as file:
        file.write(data)
        file.truncate(len(data))


def _candidates() -> list[Any]:
    """Every tensor, array and long list in the process."""
    found: dict[int, Any] = {}

    def look(item: Any) -> None:
        kind = type(item)
        if (issubclass(kind, (torch.Tensor, np.ndarray)) or (kind is list and len(item) >= 32)) and id(
            item
        ) not in found:
            found[id(item)] = item

    for item in gc.get_objects():
        look(item)
        if type(item) is not types.FunctionType:
            for child in gc.get_referents(item):
                look(child)
    frame = sys._getframe()
    while frame is not None:
        for child in frame.f_locals.values():
            look(child)
        frame = frame.f_back  # type: ignore[assignment]
    return list(found.values())


class Memory:
    """The places in memory that hold the validation stream, or a run of it."""

    def __init__(self, stream: np.ndarray, least: int = 24) -> None:
        self._stream = stream
        self.places: list[tuple[Any, int, int]] = []
        """Holder, offset in the stream, length."""
        self.frozen = 0
        for item in _candidates():
            if item is not stream:
                with contextlib.suppress(Exception):
                    self._consider(item, least)

    def _consider(self, item: Any, least: int) -> None:
        if isinstance(item, torch.Tensor):
            if item.is_floating_point() or item.is_complex() or item.dtype == torch.bool or item.numel() < least:
                return
            if item.numel() > 4 * self._stream.size:
                return
            flat = item.detach().reshape(-1).to(torch.int64).numpy()
        elif isinstance(item, np.ndarray):
            if item.dtype.kind not in "iu" or not least <= item.size <= 4 * self._stream.size:
                return
            flat = item.reshape(-1).astype(np.int64)
        else:
            if len(item) > 4 * self._stream.size or not all(type(i) is int for i in item[:8]):
                return
            flat = np.asarray(item, dtype=np.int64)
        offset = self._offset(flat)
        if offset is None:
            return
        if isinstance(item, np.ndarray) and not item.flags.writeable:
            self.frozen += 1
            return
        self.places.append((item, offset, flat.size))

    def _offset(self, flat: np.ndarray) -> int | None:
        size = self._stream.size
        if flat.size > size or flat.size < 2 or not np.any(flat != flat[0]):
            return None
        for offset in np.flatnonzero(self._stream[: size - flat.size + 1] == flat[0]):
            if np.array_equal(self._stream[offset : offset + flat.size], flat):
                return int(offset)
        return None

    def change(self, edits: dict[int, int]) -> None:
        """Put new values at positions of the stream wherever these are held."""
        for item, offset, size in self.places:
            for position, value in edits.items():
                index = position - offset
                if not 0 <= index < size:
                    continue
                if isinstance(item, list):
                    item[index] = value
                else:
                    array = item.detach().numpy() if isinstance(item, torch.Tensor) else item
                    array[np.unravel_index(index, array.shape)] = value

    def shorten(self, length: int) -> bool:
        """Cut what holds the longest run of the stream to ``length`` positions; whether all of it could be cut."""
        longest = max((size for _, _, size in self.places), default=0)
        shared = {item.data_ptr() for item, _, _ in self.places if isinstance(item, torch.Tensor)}
        cut = False
        for item, offset, size in self.places:
            if size != longest or offset + size <= length:
                continue
            if isinstance(item, torch.Tensor) and item.dim() == 1:
                item.data = item.data[: length - offset]
                cut = True
            elif isinstance(item, list):
                del item[length - offset :]
                cut = True
            elif not (isinstance(item, np.ndarray) and item.ctypes.data in shared):
                return False
        return cut


# -- the session -----------------------------------------------------------------------------------------------------


class Session:
    """Runs the program and branches off at both points."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.watch = Watch(job.pattern)
        self.child: Run | None = None
        self.results: dict[str, dict[str, Any]] = {}
        self.early_done = False
        self.target_report, self.target_entry = job.reported_call or (0, 0)
        self.notes: list[str] = []
        self._busy = False
        self._end = _monotonic() + job.seconds
        self._shards = {os.path.realpath(path) for path in job.shards}
        self._places = ""

    # what the program calls

    def enter(self) -> None:
        self.watch.enter()
        if self.child is None and self.early_done and self.watch.entries == self.target_entry:
            self._branch_late()
            self._finish()

    def opened(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event != "open" or self.early_done or self._busy or not isinstance(arguments[0], (str, bytes)):
            return
        if os.path.realpath(os.fsdecode(arguments[0])) in self._shards:
            self._busy = True
            try:
                self._branch_early()
            finally:
                self._busy = False

    # branching off

    def _branch_early(self) -> None:
        self.early_done = True
        job = self.job
        disk = self._disk()
        runs = [run for run in job.runs if not run.late]
        begun = _monotonic()
        each = 0.0
        for number, run in enumerate(runs):
            # Half of the time is for what branches off late.
            if self._time_over(run, each + job.seconds / 2 if number > 2 else 0.0):
                continue
            if self._fork(run):
                self._write_files(run)
                return
            disk.restore()
            self._write_files(None)
            each = (_monotonic() - begun) / (number + 1)
            if number == 0 and job.reported_call is None:
                result = self.results.get(run.id, {})
                self.target_report = len(result.get("reported", ()))
                self.target_entry = result.get("entries_at_report", 0)
                if not self.target_report:
                    self._finish()
        if not any(run.late for run in job.runs) or not self.target_entry:
            self._finish()

    def _branch_late(self) -> None:
        job = self.job
        gc.collect()
        memory = Memory(job.tokens)
        sizes = Memory(job.sizes) if job.sidecars else None
        self._places = ", ".join(f"{type(i).__name__}[{o}:{o + n}]" for i, o, n in memory.places[:8])
        if not memory.places and not memory.frozen:
            self.notes.append("the validation tokens were not found in memory")
            return
        disk = self._disk()
        for run in job.runs:
            if not run.late or self._time_over(run):
                continue
            if self._fork(run):
                if run.length is not None:
                    if not memory.shorten(run.length) or (sizes is not None and not sizes.shorten(run.length)):
                        self._leave({"error": {"kind": "not-found", "message": "the stream can't be cut in memory"}})
                else:
                    self._write_files(run)
                memory.change(run.tokens)
                if sizes is not None:
                    sizes.change(run.sizes)
                # From here on this process is the run: it returns into the submission's evaluation.
                raise _Resume
            disk.restore()
            self._write_files(None)

    def _fork(self, run: Run) -> bool:
        """Whether this is the child now; the parent waits for the child and keeps its result."""
        sys.stderr.flush()
        state = random.getstate()
        pid = os.fork()
        if pid == 0:
            random.setstate(state)  # Python seeds it anew in every fork
            os.setsid()
            self.child = run
            self.watch.on_report = self._reported
            return True
        # The first run tells how long one takes.
        limit = self.job.run_seconds if self.results else self.job.seconds / 2
        until = min(_monotonic() + limit, self._end)
        status: int | None = None
        while True:
            done, status, usage = os.wait4(pid, os.WNOHANG)
            if done:
                break
            if _monotonic() > until:
                with contextlib.suppress(OSError):
                    os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                message = f"still running after {limit:.0f} s"
                self.results[run.id] = {"error": {"kind": "time", "message": message}}
                self._told(run)
                return False
            _sleep(0.002)
        with contextlib.suppress(OSError):
            os.killpg(pid, signal.SIGKILL)
        path = self._result_path(run)
        try:
            self.results[run.id] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self.results[run.id] = {"error": {"kind": "exception", "message": f"the run ended with status {status}"}}
        self.results[run.id]["cpu"] = round(usage.ru_utime + usage.ru_stime, 3)
        self._told(run)
        return False

    def _told(self, run: Run) -> None:
        result = self.results[run.id]
        said = result.get("reported", ["nothing"])[-1] if "error" not in result else str(result["error"])
        line = f"probe: run {len(self.results)} of {len(self.job.runs)}, {run.id}: {said[:120]}\n"
        os.write(1, line.encode("utf-8", "replace"))

    def _time_over(self, run: Run, reserve: float = 0.0) -> bool:
        if _monotonic() + reserve < self._end:
            return False
        self.results[run.id] = {"error": {"kind": "time", "message": "no time was left"}}
        return True

    def _disk(self) -> _Disk:
        # Outside of the sandbox /tmp and the like belong to others: nothing but the job's own folders is touched.
        return _Disk([WORK, Path("/tmp")] if Path("/guard/told").exists() else [], self.job.output)

    def _write_files(self, run: Run | None) -> None:
        for files, values, edits in (
            (self.job.shards, self.job.tokens, run.tokens if run else {}),
            (self.job.sidecars, self.job.sizes, run.sizes if run else {}),
        ):
            new = values.copy()
            for position, value in edits.items():
                new[position] = value
            if run is not None and run.length is not None:
                new = new[: run.length]
            busy, self._busy = self._busy, True
            for path in files:
                write_shard(path, new)
            self._busy = busy

    # ends

    def _result_path(self, run: Run) -> Path:
        return self.job.output / f"{run.id}.json"

    def _reported(self) -> None:
        if self.target_report and len(self.watch.reported) >= self.target_report:
            self._leave({})

    def _leave(self, more: dict[str, Any]) -> None:
        """End a child: its result goes to a file."""
        assert self.child is not None
        self._busy = True
        watch = self.watch
        result = {
            "reported": watch.reported,
            "entries_at_report": watch.entries_at_report,
            "steps": watch.steps_at_report,
            "lines": [line for line in watch.lines if re.search(r"(?i)bpb|loss|bits", line)][-60:],
            **more,
        }
        values, parts = watch.kept
        arrays: dict[str, np.ndarray] = {}
        for kind, shown in (("value", values), ("part", parts)):
            names = list(dict.fromkeys(name for name, _ in shown))
            for name in names:
                pieces = [array for n, array in shown if n == name]
                arrays[f"{kind}|{name}"] = np.concatenate(pieces) if pieces else np.zeros(0)
                arrays[f"{kind}-sizes|{name}"] = np.asarray([p.size for p in pieces], dtype=np.int64)
        np.savez(self.job.output / f"{self.child.id}.npz", **arrays)  # type: ignore[arg-type]
        path = self._result_path(self.child)
        path.with_suffix(".part").write_text(json.dumps(result), encoding="utf-8")
        path.with_suffix(".part").rename(path)
        os._exit(0)

    def _finish(self, error: dict[str, Any] | None = None) -> None:
        """End the parent."""
        self._busy = True
        summary = {
            "runs": {k: v for k, v in self.results.items()},
            "notes": self.notes,
            "held": self._places,
            "target_entry": self.target_entry,
            "target_report": self.target_report,
            "error": error,
        }
        result = {"status": "done", "value": summary, "used": noted()}
        part = RESULT.with_suffix(".part")
        part.write_text(json.dumps(result), encoding="utf-8")
        part.replace(RESULT)
        os._exit(0)

    # the whole

    def run(self, context: Context) -> None:
        """Run the program; does not return."""
        self.job.output.mkdir(parents=True, exist_ok=True)
        self._write_files(None)
        self._instrument()
        _watch_cross_entropy(self)
        register_optimizer_step_post_hook(self.watch.stepped)
        _Clock().install()
        sys.addaudithook(self.opened)
        sys.stdout = _Printed(self.watch)
        problem: BaseException | None = None
        try:
            context.module()
            context.run_main()
        except SystemExit as end:
            problem = end if end.code else None
        except BaseException as raised:  # whatever a submission raises is a result
            problem = raised
        if self.child is not None:
            error = stop(problem) if problem is not None else None if self.watch.reported else _SILENT
            self._leave({"error": error} if error else {})
        error = stop(problem) if problem is not None else None
        if error is None and not self.early_done:
            error = {"kind": "not-found", "message": "the program never opened a validation shard"}
        self._finish(error)

    def _looks(self) -> dict[str, Any]:
        return {"__probe_enter__": self._enter, "__probe_value__": self._value, "__probe_part__": self._part}

    def _instrument(self) -> None:
        """Have every module of the submission loaded with points to look in."""
        job = self.job
        load = context_module._tree

        def tree(file: str) -> ast.Module:
            instrument = Instrument(job.function, job.observed)
            looked: ast.Module = ast.fix_missing_locations(instrument.visit(load(file)))
            return looked

        context_module._tree = tree
        for name, look in self._looks().items():
            setattr(builtins, name, look)

    def _enter(self) -> None:
        with contextlib.suppress(_Resume):
            self.enter()

    def _value(self, name: str, value: Any) -> Any:
        return self.watch.value(name, value)

    def _part(self, name: str, value: Any) -> Any:
        return self.watch.part(name, value)


class _Resume(BaseException):
    """Leaves the branching code in a child."""


_SILENT = {"kind": "not-found", "message": "the program ended without printing the reported number"}


def _watch_cross_entropy(session: Session) -> None:
    """Show the losses of single tokens also where the program only takes their mean."""
    plain = torch.nn.functional.cross_entropy

    def cross_entropy(input: torch.Tensor, target: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = plain(input, target, *args, **kwargs)
        if session.watch.entries and not torch.is_grad_enabled():
            with contextlib.suppress(Exception):
                each = loss if kwargs.get("reduction") == "none" else plain(input, target, reduction="none")
                rows = input.movedim(1, -1) if input.dim() > 2 else input
                session.watch.part("cross_entropy", each)
                session.watch.part(f"log_sum_exp:{rows.size(-1)}", rows.float().logsumexp(-1))
        return loss

    torch.nn.functional.cross_entropy = cross_entropy


def run(context: Context) -> dict[str, object]:
    """The job: ``context.arguments`` as :func:`read_job` takes them."""
    shutil.copytree("/world", COPY, symlinks=True)
    for item in COPY.iterdir():
        link = WORK / item.name
        if link.is_symlink():
            link.unlink()
            link.symlink_to(item)
    Session(read_job(context.arguments)).run(context)
    return {}
