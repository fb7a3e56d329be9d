"""Runs one job: ``python -m auditor.probe.driver /job/job.json``. See :mod:`auditor.probe.driver.context`."""

from __future__ import annotations

import importlib
import json
import os
import random
import re
import shutil
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from auditor.probe.driver.used import ADAPTED, NoStandInError, noted, place

RESULT = Path(place("/out/result.json"))
SHIPPED = Path(place("/submission/shipped"))
WORLD = Path(place("/world"))
_SHAPE = re.compile(r"shape|size|dimension|divisible|multiple of|broadcast|must match|out of range|out of bounds", re.I)


def main(job_file: str) -> None:
    """Run the job and write what came of it."""
    started = time.perf_counter()
    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    result: dict[str, Any]
    try:
        result = {"status": "done", "value": _run(job)}
    except BaseException as error:  # whatever the submission raises, SystemExit too
        result = {"status": "stopped", "stop": stop(error)}
        traceback.print_exc()
    result |= {"used": noted(), "seconds": round(time.perf_counter() - started, 3)}
    sys.stdout.flush()
    sys.stderr.flush()
    part = RESULT.with_suffix(".part")
    part.write_text(json.dumps(result), encoding="utf-8")
    part.replace(RESULT)
    # Threads that the submission left behind must not keep the process.
    os._exit(0)


def _run(job: Mapping[str, Any]) -> Any:
    from auditor.probe.driver.context import WORK, Context, Finder

    furnish(WORK)
    os.chdir(WORK)
    import numpy
    import torch

    from auditor.probe.driver import absent, on_cpu

    torch.set_num_threads(int(job.get("threads", 1)))
    torch.set_num_interop_threads(1)
    on_cpu.precise(on=bool(job.get("precise", True)))
    on_cpu.install()
    seed = int(job.get("seed", 0))
    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)
    entry = str(job["entry"])
    above = entry.rpartition("/")[0]
    roots = [f"{above}/", ""] if above else [""]
    sys.meta_path.insert(0, Finder(roots))
    sys.path[0:0] = [str(WORK / root) for root in roots]
    sys.argv = [str(WORK / entry), *job.get("argv", ())]
    module, _, name = str(job["job"]).partition(":")
    function = getattr(importlib.import_module(f"auditor.probe.driver.{module}"), name)
    context = Context(entry, job.get("arguments", {}), seed)
    absent.install(context.tree())
    return function(context)


def furnish(folder: Path) -> None:
    """A writable copy of what was shipped, with the tiny world's ``data``."""
    shutil.copytree(SHIPPED, folder, dirs_exist_ok=True)
    for item in WORLD.iterdir() if WORLD.is_dir() else ():
        target = folder / item.name
        if not target.exists():
            target.symlink_to(item)


def stop(error: BaseException) -> dict[str, Any]:
    """What stopped the job: the exception, and the innermost place in the submission."""
    place = None
    seen: BaseException | None = error
    while seen is not None and place is None:
        frames = traceback.extract_tb(seen.__traceback__)
        place = next((f for f in reversed(frames) if f.filename.startswith(ADAPTED)), None)
        seen = seen.__cause__ or seen.__context__
    message = " ".join(str(error).split())[:300] or type(error).__name__
    kind = getattr(error, "kind", None)
    if not isinstance(kind, str):
        if isinstance(error, NoStandInError):
            kind, message = "missing-module", f"no stand-in for {message}"
        elif isinstance(error, ImportError):
            kind = "missing-module"
        elif isinstance(error, MemoryError):
            kind = "memory"
        elif isinstance(error, PermissionError) or "Read-only file system" in message:
            kind = "refused"
        elif isinstance(error, RuntimeError | ValueError | AssertionError | IndexError) and _SHAPE.search(message):
            kind = "shape"
        else:
            kind = "exception"
    return {
        "kind": kind,
        "message": message,
        "exception": type(error).__name__,
        "file": place.filename[len(ADAPTED) :] if place else None,
        "line": place.lineno if place else None,
        "function": place.name if place else None,
    }


if __name__ == "__main__":
    main(sys.argv[1])
