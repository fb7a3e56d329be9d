"""Audit every pull request of a mirror: crashes, statuses per rule, wall time.

    python benchmarks/sweep.py --mirror DIR [--jobs 2] [--prs 1-2200] [--output sweep.jsonl]

Writes one JSON line per pull request and prints the table. Nothing of the submissions' text is written: numbers,
statuses and reasons only.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

from auditor.engine import audit
from auditor.sources import GitMirror

_mirror: GitMirror | None = None


def _open(path: Path) -> None:
    global _mirror
    _mirror = GitMirror(path)


def _one(number: int) -> dict[str, object]:
    assert _mirror is not None
    start = time.perf_counter()
    try:
        submission = _mirror.submission(number)
        verdict = audit(submission)
    except Exception:
        return {"pr": number, "crash": traceback.format_exc(limit=-4), "seconds": time.perf_counter() - start}
    return {
        "pr": number,
        "kind": submission.kind.value,
        "verdict": verdict.verdict.value,
        "folder": verdict.submission.folder,
        "files": sum(1 for folder in submission.folders for f in folder.files if f.path.endswith(".py")),
        "reported": verdict.run_config.reported.how,
        "evaluation": verdict.run_config.reported.evaluation,
        "outcomes": {o.rule: [o.status.value, o.effect.value, o.confidence.value, o.reason] for o in verdict.outcomes},
        "seconds": time.perf_counter() - start,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mirror", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--prs", default="1-100000")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    low, _, high = arguments.prs.partition("-")
    numbers = [n for n in GitMirror(arguments.mirror).numbers() if int(low) <= n <= int(high or low)]
    start = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(arguments.jobs, _open, (arguments.mirror,)) as pool:
        rows = []
        for row in pool.imap_unordered(_one, numbers, chunksize=4):
            rows.append(row)
            if len(rows) % 100 == 0:
                print(f"{len(rows)}/{len(numbers)} {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    wall = time.perf_counter() - start
    rows.sort(key=lambda r: r["pr"])  # type: ignore[arg-type, return-value]
    if arguments.output:
        arguments.output.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows))
    crashes = [r for r in rows if "crash" in r]
    files = sum(r.get("files", 0) for r in rows)  # type: ignore[misc]
    print(f"{len(rows)} pull requests, {len(crashes)} crashes, {wall:.1f} s wall, {files / wall:.1f} files/s")
    print("kinds", dict(Counter(r.get("kind") for r in rows)))
    print("verdicts", dict(Counter(r.get("verdict") for r in rows)))
    table: dict[str, Counter[str]] = {}
    effects: dict[str, Counter[str]] = {}
    for row in rows:
        for rule, (status, effect, *_) in row.get("outcomes", {}).items():  # type: ignore[attr-defined]
            table.setdefault(rule, Counter())[status] += 1
            if status == "active":
                effects.setdefault(rule, Counter())[effect] += 1
    for rule, counts in sorted(table.items()):
        print(f"{rule:20}", dict(counts), "active:", dict(effects.get(rule, {})))
    for row in crashes[:20]:
        print("CRASH", row["pr"], str(row["crash"])[-600:])
    slow = sorted(rows, key=lambda r: -r["seconds"])[:8]  # type: ignore[operator, arg-type]
    print("slowest", [(r["pr"], round(r["seconds"], 2)) for r in slow])  # type: ignore[call-overload]


if __name__ == "__main__":
    main()
