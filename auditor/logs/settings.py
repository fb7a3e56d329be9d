"""Settings a run printed: hyperparameter blocks, ``key:value`` lines, dicts, namespaces, echoed commands."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator

from auditor.logs.lines import RULE, STEP, LogFile, LoggedValue, without_prefix
from auditor.logs.metrics import BPB, BPB_WORD
from auditor.shell import commands, unresolved
from auditor.text import MAX_LINE, lines_with

_HEADER = re.compile(
    r"(?i)\n[^\w\n]{0,80}(?:hyper-?parameters?|hparams|(?:run |model |training )?config(?:uration)?|args|"
    r"arguments|(?:run |effective )?settings|env(?:ironment)?(?: overrides| variables)?)[^\w\n]{0,80}(?=\n|\Z)"
)
_HEADER_WORDS = ("param", "config", "arg", "settings", "env")
_BLOCK_ENTRY = re.compile(r"^[ \t│|*-]{0,12}[\"']?([A-Za-z_][\w.]*)[\"']?\s*[:=]\s*(.*?)\s*,?\s*$")
_BLOCK_GAP = 12
_INDENT = tuple(" \t│|*-\"'")
_BRACKETED = re.compile(r"^\s*\[[^\]]{1,40}\]\s*:?\s*")
_KEY_VALUE = re.compile(r"^([A-Za-z_][\w./]*)[:=](\S+)$")
_SPACED = re.compile(r"^\s*([A-Za-z_]\w*)\s*[:=]\s+(\S{1,200})$")
_NAMESPACE = re.compile(r"^[^({\n]{0,60}\b[A-Z]\w*\((\w+=.+)\)\s*$")
_NAMESPACE_ITEM = re.compile(r"(\w+)=('[^']*'|\"[^\"]*\"|\[[^\]]*\]|\([^)]*\)|[^,()]*)")
_KEY_VALUE_LINE = re.compile(
    # not the lines of a training or evaluation that goes on
    r"\n(?!step[: ]|warmup_step:|ttp:|tttg:|ttpp:|ttpr:|  ttt_chunk|  sliding)"
    r"[ \t]*(?:\[[^\]\n]{1,40}\][ \t:]*)?[A-Za-z_][\w./]*[ \t]?[:=][ \t]?\S"
)
_NEVER_SETTING = re.compile(
    r"(?i)bpb|loss|time|elapsed|^(?:step|t|s|epoch|phase|file|line|chunk|batch|windows|progress)$|^ms$"
)
# "name:start" tells what happens, not how something is set
_EVENT = re.compile(
    r"(?i)^(?:start(?:ed|ing)?|done|begin|end(?:ed)?|finish(?:ed)?|complete[d]?|appl(?:y|ying|ied)|activated|"
    r"load(?:ed|ing)?|sav(?:ed|ing)|init|skip(?:ped)?|reserving|collecting|params)$"
)
_COMMAND = re.compile(r"(?:torchrun|python3?)\s[^\n]{0,400}?\.py\b")
_STRUCTURE = re.compile(r"\{[\"']\w+[\"']\s*:|\(\w+=")


def find_blocks(log: LogFile) -> tuple[list[tuple[str, LoggedValue]], list[int]]:
    """Entries of "Hyperparameters:" style blocks, and the lines of their headers.

    Other processes may write into the block, so a few foreign lines don't end it.
    """
    index = log.index
    entries: list[tuple[str, LoggedValue]] = []
    headers: list[int] = []
    done = 0
    for at in (at for span in log.output for at, _ in lines_with(index.lower, _HEADER_WORDS, *span)):
        header = index.line_of(at)
        if header <= done or not _HEADER.match(index.after_newline, at):
            continue
        own: list[tuple[str, LoggedValue]] = []
        gap = 0
        for number in range(header + 1, min(header + 2_000, len(index)) + 1):
            raw = index.line(number)
            short = len(raw) < 2_000
            line = without_prefix(raw) if short and raw[:1] in "[0123456789" else raw
            entry = _BLOCK_ENTRY.match(line) if short else None
            # an unindented line inside an indented block is somebody else's message
            foreign = line[:1] not in _INDENT and bool(own) and index.line(own[-1][1].line)[:1] in _INDENT
            if entry and not foreign and not STEP.match(line) and not BPB.search(line):
                many = _pairs(line) if line.count("=") + line.count(":") > 2 else []
                for name, value in many if len(many) > 2 else [(entry[1], entry[2].strip("'\""))]:
                    own.append((name, LoggedValue(value, number)))
                gap = 0
                done = number
            else:
                gap += 1
                if gap > _BLOCK_GAP or (own and RULE.match(line)) or (short and STEP.match(line)):
                    break
        if len(own) >= 2:
            entries.extend(own)
            headers.append(header)
    return entries, headers


def inline_settings(log: LogFile) -> Iterator[tuple[str, LoggedValue]]:
    """Settings from lines that hold nothing but ``key:value`` / ``key=value`` words, dicts and namespaces."""
    index = log.index
    starts = (
        m.start() for begin, end in log.output for m in _KEY_VALUE_LINE.finditer(index.after_newline, begin, end + 1)
    )
    for at in starts:
        number = index.line_of(at)
        line = index.line(number)
        if len(line) > MAX_LINE:
            continue
        for name, value in _pairs(line):
            yield name, LoggedValue(value, number)
    for found in log.find(_STRUCTURE):
        for name, value in _structured(index.line(found.line)):
            yield name, LoggedValue(value, found.line)


def _pairs(line: str) -> list[tuple[str, str]]:
    plain = without_prefix(line)
    if "[" in plain:
        plain = _BRACKETED.sub("", plain)
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
    pairs = [m for w in words if ("=" in w or ":" in w) and (m := _KEY_VALUE.match(w))]
    if not pairs or len(pairs) < len(words) - 1 - len(words) // 4:
        return []
    if any(BPB_WORD.search(m[1]) or "loss" in m[1].lower() or m[1].lower() == "step" for m in pairs):
        return []  # something that happened, not a setting
    return [
        (m[1], m[2].strip("'\""))
        for m in pairs
        if not _NEVER_SETTING.search(m[1]) and m[2][:2] != "//" and not _EVENT.match(m[2])
    ]


def _structured(line: str) -> list[tuple[str, str]]:
    if len(line) > MAX_LINE or STEP.match(line):
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
    if not isinstance(parsed, dict) or len(parsed) < 3 or any(BPB_WORD.search(str(k)) for k in parsed):
        return []
    return [(str(k), str(v)) for k, v in parsed.items() if not isinstance(v, dict | list)]


def echoed_commands(log: LogFile) -> Iterator[tuple[str, LoggedValue]]:
    """Environment and flags of command lines echoed into the log."""
    for hit in log.find(_COMMAND, words=("torchrun", "python"))[:50]:
        text = re.sub(r"^(?:\++|[\w ]{1,30}:|\$)\s+", "", without_prefix(hit.value).strip())
        if "distributed/run.py" in text or text.startswith(("File ", "^")):
            continue
        for command in commands(text):
            for name, value in {**command.env, **command.flags}.items():
                if not unresolved(value.value):
                    yield name.lstrip("-").replace("-", "_"), LoggedValue(value.value, hit.line)


def printed_seed(settings: dict[str, LoggedValue], environment: dict[str, LoggedValue]) -> int | None:
    """The seed among a run's own settings, else among an echoed command's."""
    for source in (settings, environment):
        for name, value in source.items():
            if name.lower() in ("seed", "args.seed", "random_seed") and re.fullmatch(r"\d{1,18}", value.value):
                return int(value.value)
    return None
