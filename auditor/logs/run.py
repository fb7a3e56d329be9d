"""Train logs: the runs in them.

A file may hold several runs, a part of one, or none. What is looked up always (metrics, settings, boundaries) is read
at once; :attr:`RunLog.facts` and :attr:`RunLog.steps` are read on first use.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import cached_property

from auditor.logs.facts import read_facts
from auditor.logs.lines import LogFile, LoggedValue
from auditor.logs.metrics import find_metrics
from auditor.logs.model import Metric, RunFacts
from auditor.logs.settings import echoed_commands, find_blocks, inline_settings, printed_seed
from auditor.logs.source import embedded_source_ranges, headless_source_ranges
from auditor.logs.steps import StepLine, read_steps
from auditor.submission import RecordFolder, SubmissionFile
from auditor.text import TextIndex, lower, matches

MAX_LOG_BYTES = 20 * 1024 * 1024
MAX_TOTAL_LOG_BYTES = 128 * 1024 * 1024
MAX_LOGS = 400
_LOG_SUFFIXES = (".log", ".txt", ".out", ".stdout", ".stderr", ".err", ".record")
_NOT_A_LOG = re.compile(
    r"(?i)^(?:requirements.*|readme.*|licen[sc]e.*|notes?|apt.*|packages.*|constraints.*|vocab.*|cmakelists|"
    r".*\bcommand.*|.*prompt.*)\.txt$"
)
_SEED_IN_NAME = re.compile(r"(?i)(?:seed[_-]?|(?<![a-z0-9])s)(\d{1,10})(?![\d])")
# All of these are looked for in TextIndex.after_newline.
_BANNER = re.compile(
    r"\n(?:val_bpb:enabled\b|logs/[\w-]+\.txt[^\S\n]*(?=\n|\Z)|W\d{4} [\d:.]+ .{0,80}distributed/run\.py:\d+\] \*{9})"
)
STEPS = re.compile(
    r"(?i)\n[ \t]*(?:\[?step\]?[ \t]*[:=]?[ \t]*)?(\d{1,7})[ \t]*/[ \t]*(\d{1,7})\b"
    r"(?=[^\n]*?(?:loss|bpb|vl:|tl:))"
)
_COUNTED = re.compile(r"(?:\n[^\n\w]{0,4}(?:[A-Za-z_]+[ :=\[#]{1,3}[a-z]{0,2})?\d+[ ]?/[ ]?\d+[^\n]*)+")
TRACEBACK = re.compile(r"\n(?:\[?rank\d+\]?:\s*)?Traceback \(most recent call last\)")


@dataclass(frozen=True, eq=False)
class RunLog:
    """One run within one log file: lines ``first_line`` to ``last_line``, both included.

    ``hyperparameters`` are the settings the run printed, by name as printed; ``environment`` those of a
    command line echoed into the log.
    """

    file: str
    log: LogFile = field(repr=False)
    first_line: int
    last_line: int
    seed: int | None
    seed_in_name: int | None
    hyperparameters: dict[str, LoggedValue] = field(repr=False)
    environment: dict[str, LoggedValue] = field(repr=False)
    metrics: tuple[Metric, ...] = field(repr=False)
    last_step: LoggedValue | None = None
    number: int = 1
    count: int = 1

    @cached_property
    def facts(self) -> RunFacts:
        """What the run printed about itself; read on first use."""
        return read_facts(self)

    @cached_property
    def steps(self) -> tuple[StepLine, ...]:
        """The training curve; read on first use."""
        return tuple(read_steps(self))

    @cached_property
    def _outputs(self) -> list[tuple[int, int]]:
        return self.log.outputs(self.first_line, self.last_line)

    def lines(self) -> Iterator[tuple[str, int]]:
        """Every line of the run's output with its 1-based number; embedded source is left out."""
        index = self.log.index
        for begin, end in self._outputs:
            first = index.line_of(begin)
            for offset, text in enumerate(index.text[begin:end].removesuffix("\n").split("\n")):
                yield text, first + offset

    @cached_property
    def line_numbers(self) -> dict[str, int]:
        """Where each text that the run printed stands first."""
        found: dict[str, int] = {}
        for text, number in self.lines():
            found.setdefault(text, number)
        return found

    @cached_property
    def _quiet(self) -> tuple[str, str, list[int], list[int]]:
        """The output without step and progress lines.

        The text, the same in lower case, where each kept piece begins, and its first line.
        """
        index = self.log.index
        pieces: list[str] = []
        starts: list[int] = []
        lines: list[int] = []
        length = 0

        def keep(begin: int, end: int) -> None:
            nonlocal length
            if begin < end:
                pieces.append(index.text[begin:end])
                starts.append(length)
                lines.append(index.line_of(begin))
                length += end - begin

        for begin, end in self._outputs:
            at = begin
            for noise in _COUNTED.finditer(index.after_newline, begin, end + 1):
                keep(at, noise.start())
                at = noise.end()
            keep(at, end)
        text = "".join(pieces)
        return text, lower(text), starts, lines

    def scan(
        self, pattern: re.Pattern[str], *, quiet: bool = False, words: Collection[str] = ()
    ) -> Iterator[tuple[re.Match[str], int]]:
        """Matches of ``pattern`` in the run's output, each with the 1-based line on which it ends.

        Embedded source is left out, and with ``quiet`` also the lines that count up ("step:5/10 ...", "chunk 5/10").
        ``words`` are what a match cannot do without: see :meth:`LogFile.find`.
        """
        if quiet:
            text, low, starts, lines = self._quiet
            before, place, line = -1, 0, 0
            for match in matches(pattern, text, low, words) if words else pattern.finditer(text):
                piece = bisect_right(starts, match.end() - 1) - 1
                if piece != before:
                    before, place, line = piece, starts[piece], lines[piece]
                # Counted on from the match before: a log can be one piece with a hundred thousand matches.
                line += text.count("\n", place, match.end())
                place = match.end()
                yield match, line
            return
        index = self.log.index
        for begin, end in self._outputs:
            found = matches(pattern, index.text, index.lower, words, begin, end) if words else None
            for match in found or pattern.finditer(index.text, begin, end):
                yield match, index.line_of(match.end())

    @property
    def embedded_source(self) -> tuple[tuple[int, int], ...]:
        """Line ranges of this run that are source code, not output."""
        return tuple((a, b) for a, b in self.log.embedded_source if a <= self.last_line and b >= self.first_line)

    @property
    def final_metrics(self) -> tuple[Metric, ...]:
        """The metrics that can be a result: neither mid-training nor running nor a comparison."""
        return tuple(m for m in self.metrics if m.kind == "final")

    @cached_property
    def _by_name(self) -> dict[str, LoggedValue]:
        merged: dict[str, LoggedValue] = {}
        for name, value in [*self.hyperparameters.items(), *self.environment.items()]:
            merged.setdefault(name.lower(), value)
            merged.setdefault(name.lower().rsplit(".", 1)[-1], value)
        return merged

    @property
    def setting_names(self) -> Collection[str]:
        """Lower-case names of all settings this run printed."""
        return self._by_name.keys()

    def setting(self, names: tuple[str, ...]) -> LoggedValue | None:
        """The value this run printed for the first of ``names`` (lower case) it printed any for."""
        return next((self._by_name[n] for n in names if n in self._by_name), None)

    def find(self, pattern: str | re.Pattern[str], *, words: Collection[str] = ()) -> list[tuple[str, int, str]]:
        """(file, line, text) of this run's lines that contain ``pattern``; embedded source is left out.

        ``words`` are what a match cannot do without: see :meth:`LogFile.find`.
        """
        hits = self.log.find(pattern, self.first_line, self.last_line, words=words)
        return [(self.file, f.line, f.value) for f in hits]


def is_log(file: SubmissionFile) -> bool:
    """Whether a file may be a log, by its name."""
    name = file.name.lower()
    return (
        file.change != "deleted"
        and name.endswith(_LOG_SUFFIXES)
        and not _NOT_A_LOG.match(name)
        and ".egg-info/" not in file.path
    )


def read_logs(folder: RecordFolder) -> tuple[tuple[RunLog, ...], tuple[str, ...]]:
    """All runs in the folder's logs, shallow paths first, and notes on what was left unread."""
    runs: list[RunLog] = []
    notes: list[str] = []
    total = 0
    candidates = sorted((f for f in folder.files if is_log(f)), key=lambda f: (f.path.count("/"), f.path))
    if len(candidates) > MAX_LOGS:
        notes.append(f"only {MAX_LOGS} of {len(candidates)} logs were read")
    for file in candidates[:MAX_LOGS]:
        if file.problem:
            notes.append(f"{file.path}: {file.problem}")
        elif file.size > MAX_LOG_BYTES or total + file.size > MAX_TOTAL_LOG_BYTES:
            notes.append(f"{file.path}: not read, {file.size:,} bytes")
        else:
            total += file.size
            text = file.text
            if "\0" in text[:4096]:
                text = _utf16_or_nothing(file.data)
            if text:
                runs.extend(parse_log(file.path, text))
    return tuple(runs), tuple(notes)


def _utf16_or_nothing(data: bytes) -> str:
    """Logs redirected by PowerShell may be UTF-16 without a byte order mark; other NULs mean binary."""
    half = data[: 4096 // 2 * 2]
    if half[1::2].count(0) > len(half) * 0.4:
        return data.decode("utf-16-le", "replace")
    return "" if half.count(0) > len(half) * 0.1 else data.decode("utf-8", "replace").replace("\0", "")


def parse_log(path: str, text: str) -> list[RunLog]:
    """The runs in one log. Empty when nothing in it looks like a run (no metric, no setting, no step)."""
    index = TextIndex.of(text)
    source = list(embedded_source_ranges(index))
    source = sorted([*source, *headless_source_ranges(index, source)])
    log = LogFile(path, index, tuple(source))
    metrics = list(find_metrics(log))
    blocks, headers = find_blocks(log)
    inline = list(inline_settings(log))
    told = metrics or blocks or any(k.lower() in ("seed", "iterations") for k, _ in inline)
    steps = [(index.line_of(m.start()), m[1]) for m in STEPS.finditer(index.after_newline)]
    if not told and not steps and not TRACEBACK.search(index.after_newline):
        return []
    echoed = list(echoed_commands(log))
    steps = [s for s in steps if not log.in_source(s[0])]
    bounds = _boundaries(log, headers, sorted([m.line for m in metrics] + [s[0] for s in steps]))
    name_seed = _SEED_IN_NAME.findall(path.rsplit("/", 1)[-1])
    in_name = int(name_seed[-1]) if name_seed else None
    runs: list[RunLog] = []
    for number, (first, last) in enumerate(bounds, 1):
        settings: dict[str, LoggedValue] = {}
        for name, value in [*blocks, *inline]:
            if first <= value.line <= last:
                settings.setdefault(name, value)
        environment = {n: v for n, v in echoed if first <= v.line <= last}
        own = tuple(m for m in metrics if first <= m.line <= last)
        seed = printed_seed(settings, environment)
        runs.append(
            RunLog(
                file=path,
                log=log,
                first_line=first,
                last_line=last,
                seed=seed if seed is not None else in_name,
                seed_in_name=in_name,
                hyperparameters=settings,
                environment=environment,
                metrics=own,
                last_step=next((LoggedValue(n, at) for at, n in reversed(steps) if first <= at <= last), None),
                number=number,
                count=len(bounds),
            )
        )
    return runs


def _boundaries(log: LogFile, headers: list[int], happened: list[int]) -> list[tuple[int, int]]:
    """Split a log into runs: a start-up sign begins a new one if something was measured since the last."""
    total = len(log.index)
    marks = {first for first, _ in log.embedded_source} | set(headers)
    for match in _BANNER.finditer(log.index.after_newline):
        line = log.index.line_of(match.start())
        if not log.in_source(line):
            marks.add(line)
    bounds: list[tuple[int, int]] = []
    first = 1
    for mark in sorted(marks):
        if any(first <= line < mark for line in happened):
            bounds.append((first, mark - 1))
            first = mark
    bounds.append((first, total))
    return bounds
