"""Measure the rules against labels: readings (line by line) and rulings (review threads).

    python benchmarks/labels.py --mirror DIR --readings FILE [--rulings FILE] [--verbose]

Readings map each kind to active / latent / absent / unclear; a status agrees when both say active
or neither does. ``suspect`` and ``unknown`` are counted as undecided. Rulings say violation, clean
or, for the whole submission, accepted.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

from auditor.engine import audit
from auditor.errors import SourceError
from auditor.sources import GitMirror
from auditor.verdict import Effect, Verdict

KINDS = {
    "prequant_ttt": "prequant-ttt",
    "eval_subset": "eval-subset",
    "smeargate": "smeargate-bos-leak",
    "external_process": "external-binary",
}
UNDECIDED = {"suspect", "unknown"}


class Auditor:
    """Audits by number, once each."""

    def __init__(self, mirror: Path) -> None:
        self.mirror = GitMirror(mirror)
        self.verdicts: dict[int, Verdict | None] = {}

    def __call__(self, number: int) -> Verdict | None:
        if number not in self.verdicts:
            try:
                self.verdicts[number] = audit(self.mirror.submission(number))
            except SourceError:
                self.verdicts[number] = None
        return self.verdicts[number]


def readings(auditor: Auditor, path: Path, verbose: bool) -> None:
    table: dict[str, Counter[str]] = {slug: Counter() for slug in KINDS.values()}
    for line in path.read_text().splitlines():
        row = json.loads(line)
        verdict = auditor(row["pr"])
        if verdict is None:
            print(f"{row['pr']}: not in the mirror")
            continue
        outcomes = verdict.outcomes
        folder = row.get("file", "")
        for other in verdict.other_folders:
            if (
                other.folder
                and folder.startswith(other.folder + "/")
                and not folder.startswith(f"{verdict.submission.folder}/")
            ):
                outcomes = other.outcomes
        by_rule = {o.rule: o for o in outcomes}
        for kind, slug in KINDS.items():
            label, got = row["kinds"][kind]["status"], by_rule[slug].status.value
            if label == "unclear":
                result = "unclear"
            elif got in UNDECIDED:
                result = "undecided" + ("-active" if label == "active" else "")
            elif (label == "active") == (got == "active"):
                result = "right-active" if label == "active" else "right"
            else:
                result = "missed" if label == "active" else "false"
            table[slug][result] += 1
            if verbose and result not in ("right", "right-active"):
                print(f"{row['pr']} {slug}: label {label}, tool {got} [{result}]")
                print(f"    label: {row['kinds'][kind].get('evidence', '')[:300]}")
                print(f"    tool:  {by_rule[slug].reason}")
    _print(table)


def rulings(auditor: Auditor, path: Path, strengths: set[str], verbose: bool) -> None:
    table: dict[str, Counter[str]] = {}
    for line in path.read_text().splitlines():
        row = json.loads(line)
        slug = row["rule"]
        if row["strength"] not in strengths or (slug not in KINDS.values() and slug != "*"):
            continue
        verdict = auditor(row["pr"])
        if verdict is None:
            continue
        if slug == "*":
            wrong = [o for o in verdict.outcomes if o.effect is Effect.VIOLATION]
            result = "disagree" if wrong else "agree"
            detail = "; ".join(f"{o.rule}: {o.reason}" for o in wrong)
        else:
            found = [o for o in verdict.outcomes if o.rule == slug]
            active = any(o.status.value == "active" for o in found)
            undecided = not active and any(o.status.value in UNDECIDED for o in found)
            agrees = active == (row["expected"] == "violation")
            result = "undecided" if undecided else "agree" if agrees else "disagree"
            detail = f"{found[0].status.value}: {found[0].reason}"
        table.setdefault(f"{slug} {row['expected']} ({row['strength']})", Counter())[result] += 1
        if verbose and result != "agree":
            print(f"{row['pr']} {slug} {row['expected']} ({row['strength']}): {result}; {detail}  {row['lines'] or ''}")
    _print(table)


def _print(table: dict[str, Counter[str]]) -> None:
    columns = sorted({c for row in table.values() for c in row})
    width = max((len(name) for name in table), default=10)
    print(" " * width, *(f"{c:>18}" for c in columns))
    for name, row in sorted(table.items()):
        print(f"{name:<{width}}", *(f"{row[c]:>18}" for c in columns))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mirror", type=Path, required=True)
    parser.add_argument("--readings", type=Path, action="append", default=[])
    parser.add_argument("--rulings", type=Path)
    parser.add_argument("--strength", nargs="*", default=["organiser", "participant"])
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    auditor = Auditor(arguments.mirror)
    for path in arguments.readings:
        readings(auditor, path, arguments.verbose)
    if arguments.rulings:
        rulings(auditor, arguments.rulings, set(arguments.strength), arguments.verbose)


if __name__ == "__main__":
    main()
