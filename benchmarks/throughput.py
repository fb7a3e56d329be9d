"""How fast a script is audited, against a LibCST parse alone of the same scripts, in one run.

    python benchmarks/throughput.py --mirror DIR [--sample 200] [--seed 1] [--rule SLUG ...]

Takes distinct ``train_gpt*.py`` blobs of all pull-request heads, and for each one in turn times (a)
the whole audit of the script (unpack, index, trace, all rules or those named; no logs) and (b)
``libcst.parse_module`` of the same bytes. Prints both totals and their ratio.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from pathlib import Path

import libcst

from auditor.engine import audit
from auditor.sources import GitMirror
from auditor.submission import Change, RecordFolder, Submission, SubmissionFile, SubmissionKind


def scripts(mirror: Path) -> list[bytes]:
    """The distinct training scripts of the corpus."""
    source = GitMirror(mirror)
    found: dict[int, bytes] = {}
    for number in source.numbers():
        for folder in source.submission(number).folders:
            for file in folder.files:
                if file.name.startswith("train_gpt") and file.name.endswith(".py") and not file.problem:
                    found.setdefault(hash(file.data), file.data)
    return list(found.values())


def audit_alone(data: bytes, rules: list[str] | None = None) -> None:
    file = SubmissionFile("train_gpt.py", len(data), Change.ADDED, lambda: data)
    folder = RecordFolder(".", "unknown", (file,))
    audit(Submission("benchmark", None, None, None, None, SubmissionKind.RECORD, (folder,), (file,)), slugs=rules)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mirror", type=Path, required=True)
    parser.add_argument("--sample", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rule", action="append")
    arguments = parser.parse_args()
    everything = sorted(scripts(arguments.mirror))
    chosen = random.Random(arguments.seed).sample(everything, min(arguments.sample, len(everything)))
    audit_alone(chosen[0], arguments.rule)  # imports are not part of either
    ours: list[float] = []
    theirs: list[float] = []
    for data in chosen:
        start = time.process_time()
        audit_alone(data, arguments.rule)
        middle = time.process_time()
        try:
            libcst.parse_module(data)
        except Exception:
            continue  # what LibCST rejects has no time to compare with
        ours.append(middle - start)
        theirs.append(time.process_time() - middle)
    ratios = sorted(b / a for a, b in zip(ours, theirs, strict=True))
    print(f"{len(everything)} distinct scripts, {len(ours)} measured, seed {arguments.seed}")
    print(f"audit:        {sum(ours):8.2f} s  {1e3 * statistics.mean(ours):7.1f} ms/file")
    print(f"libcst parse: {sum(theirs):8.2f} s  {1e3 * statistics.mean(theirs):7.1f} ms/file")
    print(f"ratio of totals {sum(theirs) / sum(ours):.2f}, median per-file ratio {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
