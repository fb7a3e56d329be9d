"""The whole audit against general-purpose scanners, on the same files, in one run.

    python benchmarks/scanners.py --mirror DIR [--sample 100] [--seed 1] [--bandit PATH] [--semgrep PATH]

Takes sampled pull requests, writes their record folders to a temporary directory and gives the same Python files to
(a) this auditor (all rules, logs and documents included), (b) bandit and (c) semgrep with the rules of
``benchmarks/semgrep.yml``; each in one process of its own on one core. Prints CPU seconds per Python file, the
ratios, and each one's peak memory. bandit and semgrep are not dependencies: install them where you like and name
them with the options.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from auditor.sources import GitMirror

HERE = Path(__file__).parent
AUDIT_ALL = """
import sys
from auditor.engine import audit
from auditor.sources import open_submission
for folder in sys.argv[1:]:
    audit(open_submission(folder)).model_dump_json()
"""


@dataclass(frozen=True)
class Run:
    """CPU seconds and peak memory in MiB of one process and its children."""

    seconds: float
    peak: float


def measure(command: list[str], accepted: tuple[int, ...] = (0, 1)) -> Run:
    """Run ``command`` to its end. Exits when it fails: a scanner that crashes is quick."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # a process of its own, so that its children's usage is counted apart
        os.close(reader)
        import resource

        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        failed = "" if done.returncode in accepted else done.stderr[-500:].replace("\n", " ") or "failed"
        os.write(writer, f"{used.ru_utime + used.ru_stime} {used.ru_maxrss / 1024} {failed}".encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        seconds, peak, *failed = pipe.read().split(" ", 2)
    os.waitpid(child, 0)
    if failed and failed[0]:
        sys.exit(f"error: {command[0]}: {failed[0]}")
    return Run(float(seconds), float(peak))


def write_out(mirror: Path, sample: int, seed: int, target: Path) -> tuple[list[Path], list[Path]]:
    """The record folders of sampled pull requests, and the Python files in them."""
    source = GitMirror(mirror)
    numbers = sorted(source.numbers())
    random.Random(seed).shuffle(numbers)
    folders: list[Path] = []
    files: list[Path] = []
    taken = 0
    for number in numbers:
        if taken == sample:
            break
        found = False
        for folder in source.submission(number).folders:
            root = target / str(number) / folder.path
            for file in folder.files:
                if file.change == "deleted" or file.problem:
                    continue
                path = target / str(number) / file.path
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(file.data)
                if path.suffix == ".py":
                    files.append(path)
                    found = True
            if root.is_dir():
                folders.append(root)
        taken += found
    return folders, files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mirror", type=Path, required=True)
    parser.add_argument("--sample", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--bandit", default=shutil.which("bandit"))
    parser.add_argument("--semgrep", default=shutil.which("semgrep"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        folders, files = write_out(arguments.mirror, arguments.sample, arguments.seed, Path(directory))
        names = [str(f) for f in files]
        print(f"{arguments.sample} pull requests, {len(folders)} record folders, {len(files)} Python files")
        ours = measure([sys.executable, "-c", AUDIT_ALL, *map(str, folders)])
        print(f"auditor: {1e3 * ours.seconds / len(files):8.1f} ms/file, peak {ours.peak:6.0f} MiB")
        scanners = {
            "bandit": arguments.bandit and [arguments.bandit, "-q", "-f", "json", *names],
            "semgrep": arguments.semgrep
            and [
                *(arguments.semgrep, "scan", "--config", str(HERE / "semgrep.yml"), "--metrics=off", "--jobs=1"),
                *("--disable-version-check", "--no-git-ignore", "--json", "--quiet", *names),
            ],
        }
        for name, command in scanners.items():
            if not command:
                print(f"{name}: not found, not measured")
                continue
            theirs = measure(command)
            ratio = theirs.seconds / ours.seconds
            each = 1e3 * theirs.seconds / len(files)
            print(f"{name + ':':8} {each:8.1f} ms/file, peak {theirs.peak:6.0f} MiB, {ratio:.2f}x")


if __name__ == "__main__":
    main()
