"""The log model against an independent reading: 200 seeded random logs of a mirror.

    python benchmarks/logs.py --mirror DIR [--count 200] [--seed 1] [--show]

The second reader below is built differently on purpose: no line index, no labels' grammar, no runs. It walks a log
from its last line upwards and takes the first line that gives a bits-per-byte result. Agreement is counted on the
logs in which either reader finds a result; every disagreement is printed, to be checked by hand.
"""

from __future__ import annotations

import argparse
import random
import sys
from dataclasses import dataclass
from pathlib import Path

from auditor.logs import RunLog, is_log, parse_log
from auditor.sources import GitMirror
from auditor.submission import Change

NOT_A_RESULT = (
    "step:", "step ", "iter", "running", "chunk", "epoch", "batch", "progress", "gap", "delta", "gain", "baseline",
    "target", "sota", "penalty", "windows", "diff", " vs ", "compare", "saved", "expected", "previous", "degrad",
)  # fmt: skip
CODE = ("print(", "log(", "log0(", 'f"', "f'", "def ", "return ", "import ", "#", "self.", "{", "if ", "assert", '"""')


@dataclass(frozen=True)
class Seen:
    """A result: the words before the first ``key:number``, and the number after the bits-per-byte key."""

    label: str
    value: str
    line: int
    text: str


def plain_reading(text: str) -> Seen | None:
    """The last bits-per-byte result of a log, found from the end."""
    lines = text.split("\n")
    for number in range(len(lines), 0, -1):
        line = lines[number - 1].split("\r")[-1] if "\r" in lines[number - 1].rstrip("\r") else lines[number - 1]
        line = line.strip()
        low = line.lower()
        where = low.find("bpb")
        if where < 0 or len(line) > 500 or any(word in line for word in CODE) or any(w in low for w in NOT_A_RESULT):
            continue
        if low[:1].isdigit() and "/" in low.split()[0]:
            continue
        value = number_after(line, where + 3) or number_before(line, where)
        if value is not None:
            return Seen(words_before_numbers(line), value, number, line)
    return None


def number_after(line: str, start: int) -> str | None:
    """The decimal number that follows within a few characters, as printed."""
    at = start
    while at < len(line) and not line[at].isdigit():
        if at - start > 12 or line[at] in "|;":
            return None
        at += 1
    end = at
    while end < len(line) and (line[end].isdigit() or line[end] == "."):
        end += 1
    found = line[at:end].rstrip(".")
    return found if found.count(".") == 1 else None


def number_before(line: str, end: int) -> str | None:
    """The decimal number that ends just before, as printed ("1.0831 bpb")."""
    words = line[:end].replace("val_", " ").split()
    found = words[-1].strip("*:=(~") if words else ""
    return found if found.count(".") == 1 and found.replace(".", "").isdigit() else None


def words_before_numbers(line: str) -> str:
    """The words up to the first one that assigns a number."""
    kept: list[str] = []
    words = line.replace("=", ":").split()
    for i, word in enumerate(words):
        key, colon, value = word.partition(":")
        following = value or (words[i + 1] if colon and i + 1 < len(words) else "")
        if colon and following.strip("*(").replace(".", "").replace("-", "").isdigit() and not key.isdigit():
            break
        kept.append(word)
    return " ".join(kept)


def squeezed(label: str) -> str:
    """Letters and digits only: punctuation is a matter of taste."""
    return "".join(c for c in label.lower() if c.isalnum())


def agree(ours: RunLog | None, other: Seen | None) -> bool:
    """Same figure, and labels that say the same."""
    if ours is None or other is None:
        return ours is None and other is None
    final = ours.facts.final
    if final is None or float(final.bpb_text) != float(other.value):
        return False
    a, b = squeezed(final.label), squeezed(other.label)
    return final.line == other.line and (a == b or a in b or b in a)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mirror", type=Path, required=True)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", action="store_true", help="print the lines of disagreements")
    arguments = parser.parse_args()
    mirror = GitMirror(arguments.mirror)
    chance = random.Random(arguments.seed)
    numbers = sorted(mirror.numbers())
    chance.shuffle(numbers)
    same = different = neither = 0
    for number in numbers:
        if same + different >= arguments.count:
            break
        try:
            files = [f for folder in mirror.submission(number).folders for f in folder.files if is_log(f)]
        except Exception as error:
            print(f"#{number}: {error}", file=sys.stderr)
            continue
        files = [f for f in files if f.change is not Change.UNCHANGED and f.size < 5_000_000]
        if not files:
            continue
        file = chance.choice(files)
        runs = [r for r in parse_log(file.path, file.text) if r.facts.final is not None]
        ours = runs[-1] if runs else None
        other = plain_reading(file.text)
        if ours is None and other is None:
            neither += 1
        elif agree(ours, other):
            same += 1
        else:
            different += 1
            print(f"#{number} {file.path}")
            if arguments.show:
                final = ours.facts.final if ours is not None else None
                for who, seen in (
                    ("model", final and (final.line, final.label, final.bpb_text, final.text)),
                    ("plain", other and (other.line, other.label, other.value, other.text)),
                ):
                    print(f"   {who}: {seen[0]} {seen[1]!r} {seen[2]} | {seen[3][:150]}" if seen else f"   {who}: -")
    total = same + different
    print(
        f"{total} logs with a result ({neither} without): {same} agree, {different} do not; {same / max(total, 1):.1%}"
    )


if __name__ == "__main__":
    main()
