"""Train logs: what the runs printed, told apart from the source code many of them embed.

The dialects differ per submission, so nothing here knows one script's labels: a metric is a line that gives a
bits-per-byte figure, and its label is whatever stands before the first ``key:number`` of that line.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from typing import Literal

from auditor.runconfig.shell import commands, unresolved
from auditor.runconfig.text import MAX_LINE, TextIndex, decimal
from auditor.submission import RecordFolder, SubmissionFile

MAX_LOG_BYTES = 20 * 1024 * 1024
MAX_TOTAL_LOG_BYTES = 128 * 1024 * 1024
MAX_LOGS = 400
MAX_METRICS = 5_000

_LOG_SUFFIXES = (".log", ".txt", ".out", ".stdout", ".stderr", ".err", ".record")
_NOT_A_LOG = re.compile(
    r"(?i)^(?:requirements.*|readme.*|licen[sc]e.*|notes?|apt.*|packages.*|constraints.*|vocab.*|cmakelists|"
    r".*\bcommand.*|.*prompt.*)\.txt$"
)
_SEED_IN_NAME = re.compile(r"(?i)(?:seed[_-]?|(?<![a-z0-9])s)(\d{1,10})(?![\d])")

_IMPORT = re.compile(r"(?m)^\ufeff?(?:import [A-Za-z_]|from [\w.]+ import\b)")
_CODE = re.compile(
    r"^\ufeff?(?:import [A-Za-z_]|from [\w.]+ import\b|def \w+\(|class \w+\s*[(:]|@\w|if __name__\b|"
    r"async def )"
)
_PACKED = re.compile(r"^(?:exec\s*\(|import [\w, .]+;|\w+\s*=\s*\w+\()")
_MAIN_GUARD = re.compile(r"^if __name__\b")
_GUARD_LINE = re.compile(r"(?m)^if __name__\b")
_STATEMENT = re.compile(
    r"^(?:[A-Za-z_][\w.\[\], ]*\s*(?::[^=\n]+)?=\s|[\w.]+\(|@\w|"
    r"(?:with|for|if|try|else|elif|except|finally|while|assert|raise|del|global)\b)"
)
_RULE = re.compile(r"^[=\-*]{20,}\s*$")

_PREFIX = re.compile(
    r"^(?:\s*(?:\[?\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[\d.,+:]*Z?\]?|\[\d\d:\d\d(?::\d\d)?[\d.,]*\]|"
    r"\[?rank\s?:?\d+\]?:?|\[default\d+\]:?|(?:INFO|WARNING|DEBUG)(?::\w+)?:|\[\d+(?:\.\d+)?s\]))+\s*",
    re.I,
)
_NUMBER = r"[-+]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][-+]?\d+)?"
_BPB_WORD = re.compile(r"(?i)bpb|bits[ _-]?per[ _-]?byte")
_BPB = re.compile(
    r"(?i)(?<![\w.])((?:\w+[_/])?(?:bpb|bits[ _-]?per[ _-]?byte)(?:_\w+)?)[\"']?(?:\s*\([^()]{0,40}\))?"
    rf"(?:\s*(?::=|[:=→])\s*\**|\s+)({_NUMBER})(?![\w%])"
)
_BPB_AFTER = re.compile(r"(?i)(?<![\w.])(\d\.\d{3,})\**\s*(?:val_?)?bpb\b")
_LOSS = re.compile(rf"(?i)(?<![\w.])((?:\w+_)?loss|vl|nll|nats)[\"']?\s*[:=]?\s*({_NUMBER})(?![\w%])")
_KEY_NUMBER = re.compile(rf"[\"'{{]*(?<![\w.])[A-Za-z_][\w./]*[\"']?(?:\s*\([^()]{{0,40}}\))?\s*[:=]\s*\**{_NUMBER}")
_EVAL_TIME = re.compile(rf"(?i)\b(?:eval(?:_?time)?|elapsed|time|t)\s*[:=]\s*({_NUMBER})\s*(ms|s)\b")
_STEP = re.compile(
    r"(?i)^\W{0,3}(?:(?:step|s|iter(?:ation)?)\s*[:=# ]?\s*)?\d+\s*/\s*\d+|"
    r"^\W{0,3}(?:step|iter(?:ation)?|s)\s*[:=# ]\s*\d+"
)
_PROGRESS = re.compile(
    r"(?i)\d\s*/\s*\d|\d\s*%|running|progress|\bepochs?\b\W*\d|\bep\W?\d|\bchunks?\b\W*\d|\bbatch(?:es)?\b\W*\d|batch_\w*bpb|"
    r"\bstep\b\W*\d|\b(?:tc|ttt_chunk)\b"
)
_COMPARISON = re.compile(
    r"(?i)gap|delta|Δ|gain|improve|degrad|diff\b|\bvs\b|baseline|target|sota|leader|penalty|expected|previous|"
    r"threshold|saved|reference|\bprior\b|\brecord\b"
)

_HEADER = re.compile(
    r"(?im)^[^\w\n]{0,80}(?:hyper-?parameters?|hparams|(?:run |model |training )?config(?:uration)?|args|"
    r"arguments|(?:run |effective )?settings|env(?:ironment)?(?: overrides| variables)?)[^\w\n]{0,80}$"
)
_BLOCK_ENTRY = re.compile(r"^[ \t│|*-]{0,12}[\"']?([A-Za-z_][\w.]*)[\"']?\s*[:=]\s*(.*?)\s*,?\s*$")
_BLOCK_GAP = 12
_INDENT = tuple(" \t│|*-\"'")
_KEY_VALUE_LINE = re.compile(r"(?m)^[ \t]*(?:\[[^\]\n]{1,40}\][ \t:]*)?[A-Za-z_][\w./]*[ \t]?[:=][ \t]?\S")
_KEY_VALUE = re.compile(r"^([A-Za-z_][\w./]*)[:=](\S+)$")
_SPACED = re.compile(r"^\s*([A-Za-z_]\w*)\s*[:=]\s+(\S{1,200})$")
_NAMESPACE = re.compile(r"^[^({\n]{0,60}\b[A-Z]\w*\((\w+=.+)\)\s*$")
_NAMESPACE_ITEM = re.compile(r"(\w+)=('[^']*'|\"[^\"]*\"|\[[^\]]*\]|\([^)]*\)|[^,()]*)")
_STEP_LINE_START = (
    "step:",
    "step ",
    "warmup_step:",
    "ttp:",
    "tttg:",
    "ttpp:",
    "ttpr:",
    "  ttt_chunk",
    "  sliding",
)
_NEVER_SETTING = re.compile(
    r"(?i)bpb|loss|time|elapsed|^(?:step|t|s|epoch|phase|file|line|chunk|batch|windows|progress)$|^ms$"
)
# "name:start" tells what happens, not how something is set
_EVENT = re.compile(
    r"(?i)^(?:start(?:ed|ing)?|done|begin|end(?:ed)?|finish(?:ed)?|complete[d]?|appl(?:y|ying|ied)|activated|"
    r"load(?:ed|ing)?|sav(?:ed|ing)|init|skip(?:ped)?|reserving|collecting|params)$"
)
_BANNER = re.compile(
    r"(?m)^(?:val_bpb:enabled\b|logs/[\w-]+\.txt\s*$|W\d{4} [\d:.]+ .{0,80}distributed/run\.py:\d+\] \*{9})"
)

# These begin with a plain letter class, not with (?i) or \b, so that the engine can skip ahead.
_VAL_TOKENS = re.compile(
    r"[Vv](?<!\w[Vv])al(?:_?tokens|(?:idation)?[_ ]?(?:loader|set|data|dataset)?\b[^\n]{0,300}?"
    r"(?<!\w)tokens?)\s*[:=]\s*([\d_,]{4,})"
)
_TRAIN_SHARDS = re.compile(r"[Tt]rain_?(?:shards|files)\s*[:=]\s*(\d+)")
_WORLD_SIZE = re.compile(r"[Ww]orld_?size\s*[:=]\s*(\d+)")
_STEPS = re.compile(
    r"(?im)^[ \t]*(?:\[?step\]?[ \t]*[:=]?[ \t]*)?(\d{1,7})[ \t]*/[ \t]*(\d{1,7})\b"
    r"(?=[^\n]*(?:loss|bpb|vl:|tl:))"
)
_STOP = re.compile(rf"(?im)^[^\n]{{0,40}}\bstop\w*[^\n]{{0,80}}?train_time\s*[:=]\s*({_NUMBER})\s*(ms|s|m)\b")
_TRAIN_TIME = re.compile(rf"[Tt]rain(?:ing)?_time\s*[:=]\s*({_NUMBER})\s*(ms|s|m)\b")
_TRACEBACK = re.compile(r"(?m)^(?:\[rank\d+\]:\s*)?Traceback \(most recent call last\)")
_BYTES = re.compile(
    r"(?im)^(?=[^\n]{0,200}\bbytes\b)"
    r"([^\n:]{0,80}?(?:size|serialized|submission|artifact|code|total)[^\n:=]{0,60})"
    r"[:=]\s*([\d,_]{3,})\s*(?:bytes|B)\b"
)

_COMMAND = re.compile(r"(?:torchrun|python3?)\s[^\n]{0,400}?\.py\b")
_STRUCTURE = re.compile(r"\{[\"']\w+[\"']\s*:|\(\w+=")

MetricKind = Literal["final", "step", "progress", "other"]


@dataclass(frozen=True)
class LoggedValue:
    """A value as printed and its 1-based line."""

    value: str
    line: int


@dataclass(frozen=True)
class Metric:
    """A bits-per-byte figure in a log.

    ``label`` is the text before the first ``key:number`` on its line ("quantized_sliding_window"), or the key
    itself where nothing stands before it. ``kind``: "step" = validation during training, "progress" = a
    running figure inside an evaluation, "other" = a comparison (gain, baseline, target), "final" = the rest.
    ``val_loss`` is in nats per token and ``eval_time_ms`` in milliseconds where the line gives them.
    """

    label: str
    key: str
    val_bpb: float
    bpb_text: str
    val_loss: float | None
    loss_text: str | None
    eval_time_ms: float | None
    kind: MetricKind
    line: int
    text: str

    @property
    def bpb(self) -> Decimal:
        """The figure with its printed digits."""
        return Decimal(self.bpb_text)


@dataclass(frozen=True)
class RunFacts:
    """Facts that a run printed about itself; None where it did not.

    ``stop_ms`` is the training time in milliseconds when training ended. ``byte_sizes`` pairs what was
    measured ("Total submission size int8+zlib") with its size in bytes.
    """

    val_tokens: LoggedValue | None = None
    train_shards: LoggedValue | None = None
    world_size: LoggedValue | None = None
    steps: LoggedValue | None = None
    stop_ms: LoggedValue | None = None
    traceback_line: int | None = None
    truncated: bool = False
    byte_sizes: tuple[tuple[str, LoggedValue], ...] = ()


@dataclass(frozen=True)
class LogFile:
    """One log: its text by line, and the 1-based inclusive line ranges that are embedded source code."""

    path: str
    index: TextIndex = field(repr=False)
    embedded_source: tuple[tuple[int, int], ...] = ()

    def in_source(self, line: int) -> bool:
        """Whether a line belongs to embedded source."""
        return any(first <= line <= last for first, last in self.embedded_source)

    def find(self, pattern: str | re.Pattern[str], first: int = 1, last: int | None = None) -> list[LoggedValue]:
        """Lines ``first`` to ``last`` that contain ``pattern`` (fixed text or regex), source left out."""
        index = self.index
        last = len(index) if last is None else min(last, len(index))
        if first > last:
            return []
        begin = index.starts[first - 1]
        end = index.starts[last] if last < len(index) else len(index.text)
        regex = re.compile(re.escape(pattern)) if isinstance(pattern, str) else pattern
        found: list[LoggedValue] = []
        for match in regex.finditer(index.text, begin, end):
            line = index.line_of(match.start())
            if (not found or found[-1].line != line) and not self.in_source(line):
                found.append(LoggedValue(index.line(line)[:2000], line))
        return found


@dataclass(frozen=True)
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

    @cached_property
    def facts(self) -> RunFacts:
        """What the run printed about itself; read on first use."""
        return _facts(self)

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

    def setting(self, names: tuple[str, ...]) -> LoggedValue | None:
        """The value this run printed for the first of ``names`` (lower case) it printed any for."""
        return next((self._by_name[n] for n in names if n in self._by_name), None)

    def find(self, pattern: str | re.Pattern[str]) -> list[tuple[str, int, str]]:
        """(file, line, text) of this run's lines that contain ``pattern``; embedded source is left out."""
        return [(self.file, f.line, f.value) for f in self.log.find(pattern, self.first_line, self.last_line)]


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
    source = list(_embedded_source(index))
    source = sorted([*source, *_headless_source(index, source)])
    log = LogFile(path, index, tuple(source))
    metrics = list(_metrics(log))
    blocks, headers = _blocks(log)
    inline = list(_inline_settings(log))
    told = metrics or blocks or any(k.lower() in ("seed", "iterations") for k, _ in inline)
    if not told and not _STEPS.search(index.text) and not _TRACEBACK.search(index.text):
        return []
    echoed = list(_echoed_commands(log))
    steps = [(index.line_of(m.start()), m[1]) for m in _STEPS.finditer(index.text)]
    steps = [s for s in steps if not log.in_source(s[0])]
    bounds = _boundaries(log, headers, sorted([m.line for m in metrics] + [s[0] for s in steps]))
    name_seed = _SEED_IN_NAME.findall(path.rsplit("/", 1)[-1])
    in_name = int(name_seed[-1]) if name_seed else None
    runs: list[RunLog] = []
    for first, last in bounds:
        settings: dict[str, LoggedValue] = {}
        for name, value in [*blocks, *inline]:
            if first <= value.line <= last:
                settings.setdefault(name, value)
        environment = {n: v for n, v in echoed if first <= v.line <= last}
        own = tuple(m for m in metrics if first <= m.line <= last)
        seed = _seed(settings, environment)
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
            )
        )
    return runs


def _seed(settings: dict[str, LoggedValue], environment: dict[str, LoggedValue]) -> int | None:
    for source in (settings, environment):
        for name, value in source.items():
            if name.lower() in ("seed", "args.seed", "random_seed") and re.fullmatch(r"\d{1,18}", value.value):
                return int(value.value)
    return None


def _embedded_source(index: TextIndex) -> Iterator[tuple[int, int]]:
    """Line ranges (1-based, inclusive) in which a log prints a program's source.

    Scripts of this contest print themselves before they start, so a dump begins with imports and ends at the
    main guard or at the rule printed after it. A packed script is an import followed by ``exec(...)``.
    """
    done = 0
    for match in _IMPORT.finditer(index.text):
        first = index.line_of(match.start())
        if first <= done:
            continue
        ahead = [index.line(n) for n in range(first, min(first + 80, len(index)) + 1)]
        if not (sum(1 for line in ahead if _CODE.match(line)) >= 3 or any(_PACKED.match(x) for x in ahead[:4])):
            continue
        last = _source_end(index, first)
        begin = _docstring_start(index, first, done)
        yield begin, last
        done = last


def _headless_source(index: TextIndex, known: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Dumps whose beginning is lost (overwritten or cut): found from their main guard upwards."""
    floor = 0
    for match in _GUARD_LINE.finditer(index.text):
        guard = index.line_of(match.start())
        if any(first <= guard <= last for first, last in known):
            continue
        begin = guard
        while begin - 1 > floor and _like_source(index.line(begin - 1)):
            begin -= 1
        if guard - begin < 20:
            continue  # a main guard on its own proves nothing
        floor = _source_end(index, guard)
        yield begin, floor


def _like_source(line: str) -> bool:
    if not line.strip() or line.lstrip().startswith("#"):
        return True
    if not (line[0] in " \t)]}\"'" or _CODE.match(line) or _STATEMENT.match(line)):
        return False
    return not any(_line_metrics(line, 1)) and not _STEP.match(line.strip())


def _source_end(index: TextIndex, first: int) -> int:
    last_code = number = first
    while number <= len(index):
        line = index.line(number)
        if _CODE.match(line) or _PACKED.match(line):
            last_code = number
            if _MAIN_GUARD.match(line):
                number += 1
                while number <= len(index) and (not (text := index.line(number)).strip() or text[0] in " \t"):
                    number += 1
                following = index.line(number)
                last_code = number - 1
                if number > len(index) or not (_CODE.match(following) or following.startswith("#")):
                    break
                continue
        elif _RULE.match(line) and number > first:
            after = [t for n in range(number + 1, number + 5) if (t := index.line(n)).strip()]
            if not any(t[0] in " \t#\"'" or _CODE.match(t) for t in after[:2]):
                return number
        elif number - last_code > 1500:
            break
        number += 1
    number = last_code + 1
    while number <= len(index) and (text := index.line(number)) and (not text.strip() or text[0] in " \t)]}"):
        number += 1
    return number - 1


def _docstring_start(index: TextIndex, first: int, floor: int) -> int:
    """Walk up from the first import over comments and one docstring."""

    def skip(number: int) -> int:
        while number - 1 > floor and (not (t := index.line(number - 1).strip()) or t.startswith("#")):
            number -= 1
        return number

    begin = skip(first)
    above = index.line(begin - 1).rstrip() if begin - 1 > floor else ""
    quote = next((q for q in ('"""', "'''") if above.endswith(q)), None)
    if quote:
        if above.lstrip().startswith(quote) and len(above.strip()) >= 6:
            return skip(begin - 1)
        for number in range(begin - 2, max(floor, begin - 200), -1):
            if index.line(number).startswith((quote, "r" + quote)):
                return skip(number)
    return begin


def _metrics(log: LogFile) -> Iterator[Metric]:
    index = log.index
    seen = count = 0
    for hit in _BPB_WORD.finditer(index.text):
        number = index.line_of(hit.start())
        if number == seen or log.in_source(number):
            continue
        seen = number
        text = index.line(number)
        if len(text) > 2_000:
            continue
        for metric in _line_metrics(text, number):
            count += 1
            if count > MAX_METRICS and metric.kind != "final":
                continue
            if count > 4 * MAX_METRICS:
                return
            yield metric


def _line_metrics(text: str, number: int) -> Iterator[Metric]:
    plain = _PREFIX.sub("", text)
    found = [(m.start(), m[1], m[2]) for m in _BPB.finditer(plain) if "." in m[2]]
    keyed = bool(found)
    if not keyed:
        found = [(m.start(), "bpb", m[1]) for m in _BPB_AFTER.finditer(plain)]
    if not found:
        return
    first_pair = _KEY_NUMBER.search(plain) if keyed else None
    cut = min([p for p, _, _ in found] + ([first_pair.start()] if first_pair else []))
    label = re.sub(r"[\s:=|,\-→(\[{*\"']+$", "", plain[:cut]).strip()[:160]
    timing = _EVAL_TIME.search(plain, found[0][0])
    time_ms = float(timing[1]) * (1000.0 if timing[2].lower() == "s" else 1.0) if timing else None
    for position, key, value in found:
        exact = decimal(value)
        if exact is None or not 0 < exact < 50:
            continue
        before = plain[:position]
        losses = [m for m in _LOSS.finditer(plain) if m.start() < position] or [
            m for m in _LOSS.finditer(plain, position) if "val" in m[1].lower()
        ]
        loss = losses[-1][2] if losses else None
        kind: MetricKind = "final"
        if _STEP.match(plain):
            kind = "step"
        elif _COMPARISON.search(before) or _COMPARISON.search(key):
            kind = "other"
        elif _PROGRESS.search(before) or "running" in key.lower() or key.lower().startswith("batch"):
            kind = "progress"
        yield Metric(
            label=label or key,
            key=key,
            val_bpb=float(exact),
            bpb_text=str(exact),
            val_loss=float(loss) if loss else None,
            loss_text=loss,
            eval_time_ms=time_ms,
            kind=kind,
            line=number,
            text=text[:2000],
        )


def _blocks(log: LogFile) -> tuple[list[tuple[str, LoggedValue]], list[int]]:
    """Entries of "Hyperparameters:" style blocks, and the lines of their headers.

    Other processes may write into the block, so a few foreign lines don't end it.
    """
    index = log.index
    entries: list[tuple[str, LoggedValue]] = []
    headers: list[int] = []
    done = 0
    for match in _HEADER.finditer(index.text):
        header = index.line_of(match.end())
        if header <= done or log.in_source(header):
            continue
        own: list[tuple[str, LoggedValue]] = []
        gap = 0
        for number in range(header + 1, min(header + 2_000, len(index)) + 1):
            raw = index.line(number)
            short = len(raw) < 2_000
            line = _PREFIX.sub("", raw) if short and raw[:1] in "[0123456789" else raw
            entry = _BLOCK_ENTRY.match(line) if short else None
            # an unindented line inside an indented block is somebody else's message
            foreign = line[:1] not in _INDENT and bool(own) and index.line(own[-1][1].line)[:1] in _INDENT
            if entry and not foreign and not _STEP.match(line) and not _BPB.search(line):
                many = _pairs(line) if line.count("=") + line.count(":") > 2 else []
                for name, value in many if len(many) > 2 else [(entry[1], entry[2].strip("'\""))]:
                    own.append((name, LoggedValue(value, number)))
                gap = 0
                done = number
            else:
                gap += 1
                if gap > _BLOCK_GAP or (own and _RULE.match(line)) or (short and _STEP.match(line)):
                    break
        if len(own) >= 2:
            entries.extend(own)
            headers.append(header)
    return entries, headers


def _inline_settings(log: LogFile) -> Iterator[tuple[str, LoggedValue]]:
    """Settings from lines that hold nothing but ``key:value`` / ``key=value`` words, dicts and namespaces."""
    index = log.index
    taken = 0
    for match in _KEY_VALUE_LINE.finditer(index.text):
        number = index.line_of(match.start())
        if number == taken:
            continue
        taken = number
        start = index.starts[number - 1]
        if index.text.startswith(_STEP_LINE_START, start) or log.in_source(number):
            continue
        line = index.line(number)
        if len(line) > MAX_LINE:
            continue
        for name, value in _pairs(line):
            yield name, LoggedValue(value, number)
    for found in log.find(_STRUCTURE):
        for name, value in _structured(index.line(found.line)):
            yield name, LoggedValue(value, found.line)


def _pairs(line: str) -> list[tuple[str, str]]:
    plain = re.sub(r"^\s*\[[^\]]{1,40}\]\s*:?\s*", "", _PREFIX.sub("", line))
    if len(plain) > 2_000:
        return []
    spaced = _SPACED.match(plain)
    if spaced and ("_" in spaced[1] or spaced[1].isupper() or spaced[1].lower() == "seed"):
        return (
            []
            if _NEVER_SETTING.search(spaced[1]) or _EVENT.match(spaced[2])
            else [(spaced[1], spaced[2].rstrip(",").strip("'\""))]
        )
    words = [w for w in re.split(r"[\s,;|]+", plain) if w]
    pairs = [m for w in words if (m := _KEY_VALUE.match(w))]
    if not pairs or len(pairs) < len(words) - 1 - len(words) // 4:
        return []
    if any(_BPB_WORD.search(m[1]) or "loss" in m[1].lower() or m[1].lower() == "step" for m in pairs):
        return []  # something that happened, not a setting
    return [
        (m[1], m[2].strip("'\""))
        for m in pairs
        if not _NEVER_SETTING.search(m[1]) and m[2][:2] != "//" and not _EVENT.match(m[2])
    ]


def _structured(line: str) -> list[tuple[str, str]]:
    if len(line) > MAX_LINE or _STEP.match(line):
        return []
    namespace = _NAMESPACE.match(line)
    if namespace:
        items = [(m[1], m[2].strip().strip("'\"")) for m in _NAMESPACE_ITEM.finditer(namespace[1])]
        return items if len(items) >= 3 else []
    start, end = line.find("{"), line.rfind("}")
    if not 0 <= start <= 60 or end < start:
        return []
    body = line[start : end + 1]
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        try:
            parsed = ast.literal_eval(body)
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            return []
    if not isinstance(parsed, dict) or len(parsed) < 3 or any(_BPB_WORD.search(str(k)) for k in parsed):
        return []
    return [(str(k), str(v)) for k, v in parsed.items() if not isinstance(v, dict | list)]


def _echoed_commands(log: LogFile) -> Iterator[tuple[str, LoggedValue]]:
    for hit in log.find(_COMMAND)[:50]:
        text = re.sub(r"^(?:\++|[\w ]{1,30}:|\$)\s+", "", _PREFIX.sub("", hit.value).strip())
        if "distributed/run.py" in text or text.startswith(("File ", "^")):
            continue
        for command in commands(text):
            for name, value in {**command.env, **command.flags}.items():
                if not unresolved(value.value):
                    yield name.lstrip("-").replace("-", "_"), LoggedValue(value.value, hit.line)


def _boundaries(log: LogFile, headers: list[int], happened: list[int]) -> list[tuple[int, int]]:
    """Split a log into runs: a start-up sign begins a new one if something was measured since the last."""
    total = len(log.index)
    marks = {first for first, _ in log.embedded_source} | set(headers)
    for match in _BANNER.finditer(log.index.text):
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


def _facts(run: RunLog) -> RunFacts:
    log, index, first, last = run.log, run.log.index, run.first_line, run.last_line
    begin = index.starts[first - 1]
    end = index.starts[last] if last < len(index) else len(index.text)

    def hits(pattern: re.Pattern[str]) -> Iterator[tuple[re.Match[str], int]]:
        for match in pattern.finditer(index.text, begin, end):
            line = index.line_of(match.end())
            if not log.in_source(line):
                yield match, line

    def one(pattern: re.Pattern[str]) -> LoggedValue | None:
        return next((LoggedValue(re.sub(r"[_,]", "", m[1]), n) for m, n in hits(pattern)), None)

    stop: LoggedValue | None = None
    for pattern in (_STOP, _TRAIN_TIME):
        for match, line in hits(pattern):
            factor = {"ms": 1, "s": 1000, "m": 60_000}[match[2].lower()]
            stop = LoggedValue(f"{float(match[1]) * factor:.0f}", line)
        if stop:
            break
    sizes: dict[str, LoggedValue] = {}
    for match, line in hits(_BYTES):
        sizes[match[1].strip()] = LoggedValue(re.sub(r"[_,]", "", match[2]), line)
    traceback = next((line for _, line in hits(_TRACEBACK)), None)
    return RunFacts(
        val_tokens=one(_VAL_TOKENS),
        train_shards=one(_TRAIN_SHARDS),
        world_size=one(_WORLD_SIZE),
        steps=run.last_step,
        stop_ms=stop,
        traceback_line=traceback,
        truncated=run.last_step is not None and not run.final_metrics,
        byte_sizes=tuple(sizes.items()),
    )
