"""How well the rules do on labelled submissions: right, wrong and undecided per rule and strength of the label.

Two kinds of labels are read, one JSON object per line:

* *rulings*, what somebody stated about a pull request: ``pr``, ``head``, ``rule`` (a slug, or ``*``), ``expected``
  (``violation``, ``clean``, or for ``*`` ``accepted``: no rule may call it a violation under the official policy),
  ``strength``, and optionally ``stale_head``, ``sources``, ``lines``, ``note``;
* *readings*, a submission read line by line: ``pr``, ``head``, ``file``, and ``kinds``, each with the ``rules`` it
  stands for, a ``status`` (``active``, ``latent``, ``absent``, ``unclear``) and ``evidence``.

A label is a statement and not the truth. Adjudications (``pr``, ``rule``, ``status``, ``proof``) are our own readings
where one is wrong; figures are given both ways.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from enum import StrEnum
from math import sqrt
from multiprocessing import get_context
from pathlib import Path
from statistics import NormalDist
from typing import Any

from auditor.engine import audit
from auditor.errors import AuditorError, SourceError, UsageError
from auditor.sources import GitMirror
from auditor.verdict import Effect, Outcome, Status

ANY = "*"
UNDECIDED = (Status.SUSPECT, Status.UNKNOWN)


class Result(StrEnum):
    """How the tool's answer stands to one label."""

    FOUND = "found"
    """Both say it is so."""
    CLEAR = "clear"
    """Both say it is not."""
    FALSE = "false"
    """The tool accuses, the label does not."""
    MISSED = "missed"
    """The label accuses, the tool does not."""
    SUSPECTED = "suspected"
    """The label accuses, the tool is in doubt."""
    DOUBTED = "doubted"
    """The label does not accuse, the tool is in doubt."""
    UNCLEAR = "unclear"
    """The label itself decides nothing."""


DISAGREE = (Result.FALSE, Result.MISSED, Result.SUSPECTED, Result.DOUBTED)


@dataclass(frozen=True)
class Label:
    """What is said of one pull request about one rule, or about a kind that several rules share.

    ``expected``: whether it is so; None where the label decides nothing. ``file``: a file of the record folder meant.
    """

    pr: int
    head: str | None
    rules: tuple[str, ...]
    expected: bool | None
    strength: str
    file: str | None
    source: Mapping[str, Any] = field(compare=False)

    @property
    def name(self) -> str:
        """What to count it under."""
        return self.rules[0] if len(self.rules) == 1 else f"{self.rules[0]} (+{len(self.rules) - 1})"


@dataclass(frozen=True)
class Audited:
    """The outcomes for one pull request, by record folder; the folder with the claim comes first."""

    head: str | None
    folders: tuple[tuple[str, tuple[Outcome, ...]], ...]


@dataclass(frozen=True)
class Judgement:
    """One label, the outcomes it is about, and how they stand to each other."""

    label: Label
    folder: str
    outcomes: tuple[Outcome, ...]
    result: Result
    adjudication: Mapping[str, Any] | None
    adjudicated: Result


@dataclass(frozen=True)
class Benchmark:
    """Everything that was measured."""

    judgements: tuple[Judgement, ...]
    not_found: tuple[int, ...]
    """Pull requests that the mirror does not hold."""
    other_head: tuple[int, ...]
    """Pull requests whose head in the mirror is not the label's."""
    crashed: Mapping[int, str]
    """Pull requests on which the tool failed, with the error."""


@dataclass(frozen=True)
class Score:
    """Counts of one rule, and what follows from them. Intervals are Wilson's, 95 %."""

    counts: Counter[Result]

    @property
    def labels(self) -> int:
        return sum(n for result, n in self.counts.items() if result is not Result.UNCLEAR)

    @property
    def right(self) -> int:
        return self.counts[Result.FOUND] + self.counts[Result.CLEAR]

    @property
    def wrong(self) -> int:
        return self.counts[Result.FALSE] + self.counts[Result.MISSED]

    @property
    def undecided(self) -> int:
        return self.counts[Result.SUSPECTED] + self.counts[Result.DOUBTED]

    @property
    def accused(self) -> int:
        """Labels that say it is so."""
        return self.counts[Result.FOUND] + self.counts[Result.MISSED] + self.counts[Result.SUSPECTED]

    def precision(self) -> tuple[float, float, float] | None:
        """Of what the tool calls active, the part that the labels call so too: value, lower and upper bound."""
        return proportion(self.counts[Result.FOUND], self.counts[Result.FOUND] + self.counts[Result.FALSE])

    def recall(self) -> tuple[float, float, float] | None:
        """Of what the labels call active, the part that the tool calls so too: value, lower and upper bound."""
        return proportion(self.counts[Result.FOUND], self.accused)

    def recall_with_doubt(self) -> float | None:
        """Recall with what the tool suspects counted as half."""
        half = self.counts[Result.FOUND] + self.counts[Result.SUSPECTED] / 2
        return half / self.accused if self.accused else None


def proportion(k: int, n: int) -> tuple[float, float, float] | None:
    """k of n, with the bounds of Wilson's score interval at 95 % (E. B. Wilson, JASA 22, 1927); None for n = 0."""
    if n == 0:
        return None
    z = NormalDist().inv_cdf(0.975)
    p = k / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return p, max(0.0, middle - reach), min(1.0, middle + reach)


# -- labels -------------------------------------------------------------------------------------------------


def read_labels(path: Path) -> list[Label]:
    """The labels of one file, in either form.

    Raises:
        UsageError: the file can't be read, or a line is no label.
    """
    found: list[Label] = []
    for number, row in _rows(path):
        try:
            found += _reading(row) if "kinds" in row else [_ruling(row)]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(f"{path}:{number} is no label: {type(error).__name__}: {error}") from error
    return found


def read_adjudications(path: Path) -> dict[tuple[int, str], Mapping[str, Any]]:
    """Our own readings: (pull request, rule) -> the row, whose ``status`` overrules the label.

    Raises:
        UsageError: the file can't be read, or a line is no adjudication.
    """
    found: dict[tuple[int, str], Mapping[str, Any]] = {}
    for number, row in _rows(path):
        try:
            Status(row["status"])
            found[int(row["pr"]), str(row["rule"])] = row
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"{path}:{number} is no adjudication: {type(error).__name__}: {error}") from error
    return found


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        lines = path.read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(f"cannot read {path}: {reason}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UsageError(f"{path}:{number} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise UsageError(f"{path}:{number} is not a JSON object")
        yield number, row


def _ruling(row: Mapping[str, Any]) -> Label:
    expected = {"violation": True, "clean": False, "accepted": False}[row["expected"]]
    strength = f"{row['strength']}, stale" if row.get("stale_head") else str(row["strength"])
    return Label(int(row["pr"]), row.get("head"), (str(row["rule"]),), expected, strength, None, row)


def _reading(row: Mapping[str, Any]) -> list[Label]:
    expected = {"active": True, "latent": False, "absent": False, "unclear": None}
    return [
        Label(
            int(row["pr"]),
            row.get("head"),
            tuple(map(str, kind["rules"])),
            expected[kind["status"]],
            "reading",
            row.get("file"),
            {"kind": name, **kind},
        )
        for name, kind in row["kinds"].items()
    ]


# -- measuring ----------------------------------------------------------------------------------------------


def measure(
    mirror: Path,
    labels: Sequence[Label],
    slugs: Sequence[str],
    *,
    adjudications: Mapping[tuple[int, str], Mapping[str, Any]] | None = None,
    jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Benchmark:
    """Audit every labelled pull request with the rules ``slugs`` and compare. ``jobs``: processes.

    Labels about other rules are left out, and those about a kind that some other rule decides too.
    ``progress`` is told how many pull requests of how many are done.

    Raises:
        SourceError: the mirror can't be opened.
    """
    GitMirror(mirror)  # says at once what is wrong with it
    wanted = [label for label in labels if label.rules == (ANY,) or set(label.rules) <= set(slugs)]
    numbers = sorted({label.pr for label in wanted})
    audited: dict[int, Audited] = {}
    failures: dict[int, str] = {}
    not_found: list[int] = []
    for done, (number, answer) in enumerate(_audit_all(mirror, numbers, tuple(slugs), jobs), 1):
        if answer is None:
            not_found.append(number)
        elif isinstance(answer, str):
            failures[number] = answer
        else:
            audited[number] = answer
        if progress is not None:
            progress(done, len(numbers))
    judged = [
        judge(label, audited[label.pr], adjudications or {})
        for label in sorted(wanted, key=lambda w: (w.pr, w.rules, w.strength))
        if label.pr in audited
    ]
    moved = {w.pr for w in wanted if w.pr in audited and w.head and audited[w.pr].head not in (None, w.head)}
    return Benchmark(tuple(judged), tuple(sorted(not_found)), tuple(sorted(moved)), dict(sorted(failures.items())))


def judge(label: Label, audited: Audited, adjudications: Mapping[tuple[int, str], Mapping[str, Any]]) -> Judgement:
    """How the outcomes for one pull request stand to one label, and to our own reading of it."""
    folder, outcomes = _folder_of(label, audited)
    if label.rules == (ANY,):
        concerned = tuple(o for o in outcomes if o.effect is Effect.VIOLATION)
        result = Result.FALSE if concerned else Result.CLEAR
        excused = [o for o in concerned if _says((label.pr, o.rule), adjudications) is True]
        adjudication = adjudications[label.pr, excused[0].rule] if excused else None
        ruled = Result.CLEAR if len(excused) == len(concerned) else result
        return Judgement(label, folder, concerned, result, adjudication, ruled)
    concerned = tuple(o for o in outcomes if o.rule in label.rules)
    own = [adjudications[label.pr, r] for r in label.rules if (label.pr, r) in adjudications]
    expected = label.expected
    told = [_decided(Status(row["status"])) for row in own]
    if len(own) == len(label.rules) or True in told:  # of several rules, one that is clean does not clear the others
        expected = True if True in told else None if None in told else False
    first = own[0] if own else None
    return Judgement(label, folder, concerned, _result(label.expected, concerned), first, _result(expected, concerned))


def scores(judgements: Iterable[Judgement], *, adjudicated: bool = False) -> dict[tuple[str, str], Score]:
    """(rule, strength) -> counts. ``adjudicated``: by our own reading where there is one."""
    found: dict[tuple[str, str], Counter[Result]] = {}
    for judgement in judgements:
        result = judgement.adjudicated if adjudicated else judgement.result
        found.setdefault((judgement.label.name, judgement.label.strength), Counter())[result] += 1
    return {key: Score(counts) for key, counts in sorted(found.items())}


def totals(by_rule: Mapping[tuple[str, str], Score]) -> dict[str, Score]:
    """Strength -> counts over all rules. What merged records are accepted under (``*``) is no rule of its own."""
    found: dict[str, Counter[Result]] = {}
    for (name, strength), score in by_rule.items():
        if name != ANY:
            found.setdefault(strength, Counter()).update(score.counts)
    return {strength: Score(counts) for strength, counts in sorted(found.items())}


def disagreements(judgements: Iterable[Judgement]) -> Iterator[dict[str, Any]]:
    """Every label the tool does not agree with, as JSON objects: what is said, by whom, and the tool's evidence."""
    for judgement in judgements:
        if judgement.result not in DISAGREE:
            continue
        label = judgement.label
        yield {
            "pr": label.pr,
            "head": label.head,
            "folder": judgement.folder,
            "rules": list(label.rules),
            "result": judgement.result.value,
            "strength": label.strength,
            "label": {k: v for k, v in label.source.items() if k not in ("pr", "head") and v is not None},
            "adjudication": judgement.adjudication,
            "adjudicated_result": judgement.adjudicated.value,
            "tool": [
                {
                    "rule": o.rule,
                    "status": o.status.value,
                    "effect": o.effect.value,
                    "confidence": o.confidence.value,
                    "reason": o.reason,
                    "evidence": [f"{e.file}:{e.line}: {e.role}: {e.snippet[:200]}" for e in o.evidence],
                    "settings": list(o.settings),
                }
                for o in judgement.outcomes
            ],
        }


def _folder_of(label: Label, audited: Audited) -> tuple[str, tuple[Outcome, ...]]:
    """The record folder that the label's file lies in, else the one with the claim."""
    inside = [f for f in audited.folders if label.file and f[0] and label.file.startswith(f"{f[0]}/")]
    if inside:
        return max(inside, key=lambda f: len(f[0]))
    return audited.folders[0] if audited.folders else ("", ())


def _result(expected: bool | None, outcomes: Sequence[Outcome]) -> Result:
    if expected is None:
        return Result.UNCLEAR
    if any(o.status is Status.ACTIVE for o in outcomes):
        return Result.FOUND if expected else Result.FALSE
    if any(o.status in UNDECIDED for o in outcomes):
        return Result.SUSPECTED if expected else Result.DOUBTED
    return Result.MISSED if expected else Result.CLEAR


def _decided(status: Status) -> bool | None:
    return None if status in UNDECIDED else status is Status.ACTIVE


def _says(key: tuple[int, str], adjudications: Mapping[tuple[int, str], Mapping[str, Any]]) -> bool | None:
    return _decided(Status(adjudications[key]["status"])) if key in adjudications else None


# -- auditing many ------------------------------------------------------------------------------------------

Answer = Audited | str | None
"""What came of one audit: the outcomes, how the tool failed, or None where the mirror has no such pull request."""

_mirrors: dict[Path, GitMirror] = {}


def _audit_all(mirror: Path, numbers: Sequence[int], slugs: tuple[str, ...], jobs: int) -> Iterator[tuple[int, Answer]]:
    if jobs <= 1 or len(numbers) < 2:
        for number in numbers:
            yield number, _audit_one(mirror, number, slugs)
        return
    # Spawned, not forked: libgit2's handles must not be shared between processes.
    with ProcessPoolExecutor(min(jobs, len(numbers)), mp_context=get_context("spawn")) as pool:
        running = {pool.submit(_audit_one, mirror, number, slugs): number for number in numbers}
        try:
            for future in as_completed(running):
                yield running.pop(future), future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _audit_one(mirror: Path, number: int, slugs: tuple[str, ...]) -> Answer:
    try:
        if mirror not in _mirrors:
            _mirrors[mirror] = GitMirror(mirror)
        verdict = audit(_mirrors[mirror].submission(number), slugs=slugs)
    except SourceError:
        return None
    except AuditorError:
        raise
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    others = ((f.folder, f.outcomes) for f in verdict.other_folders)
    return Audited(verdict.submission.head, ((verdict.submission.folder or "", verdict.outcomes), *others))
