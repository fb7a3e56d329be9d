"""The facts of one run, read from its output on first use.

One pattern per fact, over the output only (embedded source is skipped), so that an unknown line costs nothing and
never fails.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from auditor.logs.lines import NUMBER, STEP, without_prefix
from auditor.logs.metrics import is_progress, line_metrics
from auditor.logs.model import (
    CalibrationSource,
    Fact,
    Gpu,
    Hessians,
    Metric,
    RunFacts,
    Size,
    SizeKind,
    Timer,
    TimerKind,
)

if TYPE_CHECKING:
    from auditor.logs.run import RunLog

MAX_TIMERS = 2_000

# These begin with a plain letter class, not with (?i) or \b, so that the engine can skip ahead.
_VAL_TOKENS = re.compile(
    r"[Vv](?<!\w[Vv])al(?:_?tokens|(?:idation)?[_ ]?(?:loader|set|data|dataset)?\b[^\n]{0,300}?"
    r"(?<!\w)tokens?)\s*[:=]\s*([\d_,]{4,})"
)
_TRAIN_SHARDS = re.compile(r"[Tt]rain_?(?:shards|files)\s*[:=]\s*(\d+)")
_WORLD_SIZE = re.compile(r"[Ww](?:orld[_ ]?size|ORLD_SIZE)\s*[:=]\s*(\d+)")
_UNITS = {"ms": 1.0, "s": 1e3, "sec": 1e3, "secs": 1e3, "second": 1e3, "seconds": 1e3, "m": 6e4, "min": 6e4}
_UNIT = r"(ms|s|secs?|seconds?|m|min)\b"
_STOP = re.compile(rf"[Ss]top\w*[^\n]{{0,80}}?train_time\s*[:=]\s*({NUMBER})\s*{_UNIT}")
_STOPPED = re.compile(r"[Ss]topp(?:ing|ed)[_ ]early|[Ww]all-?[Cc]lock (?:limit|cap) reached")
_STOPPED_WORDS = ("early", "reached")
_TRAIN_TIME = re.compile(rf"[Tt]rain(?:ing)?[_ ]time\s*[:=]\s*({NUMBER})\s*{_UNIT}")
_TRAINED_IN = re.compile(
    rf"(?im)^[^\n]{{0,30}}\btrain(?:ing|ed)?[^\n]{{0,40}}?\b(?:done|complete\w*|finished|in)\b[^\n]{{0,60}}?({NUMBER})\s*{_UNIT}"
)
_STEP_OF = re.compile(r"(?i)\bstep\s*[:=]?\s*(\d{1,7})(?:\s*/\s*(\d{1,7}))?")
_TRACEBACK = re.compile(r"(?m)^(?:\[?rank\d+\]?:\s*)?Traceback \(most recent call last\)")
_EXCEPTION = re.compile(r"^(?:\[?rank\d+\]?:\s*)?((?:\w+\.)*\w*(?:Error|Exception|Interrupt|Exit|Warning)\b.*)")

_DURATION = re.compile(rf"(?<![\w.])({NUMBER})[ ]?(ms|s|secs?|seconds?|min)\b(?!/)")
_IN_UNITS = re.compile(r"[ms](?:(?<=[\d.][ms])|(?<=[\d.] [ms]))(?:s|ecs?|econds?|in)?\b(?!/)")
"""Where a line may give a duration: found faster than :data:`_DURATION`, as few letters follow a figure."""
_BUDGET = re.compile(
    r"(?i)reserv|budget|\blimit|\bcap\b|timeout|\bwall\b|max_|must be|remaining|estimat|per[_ ]step|target"
)
_TIMER_KINDS: tuple[tuple[TimerKind, re.Pattern[str]], ...] = (
    ("eval-total", re.compile(r"(?i)total[_ ]eval|eval\w*[_ ]total")),
    ("compile", re.compile(r"(?i)compil|warm-?(?:ing[ _]?)?up|autotun")),
    ("deserialise", re.compile(r"(?i)deserial|decompress|dequanti|\bload(?:ed|ing)?\b")),
    ("self-generation", re.compile(r"(?i)generat")),
    ("hessian", re.compile(r"(?i)hessian|calibrat")),
    ("precompute", re.compile(r"(?i)precomput|pre-?fill|hint|(?:build|built)\b.*\b(?:table|cache|index)|cache built")),
    ("compress", re.compile(r"(?i)compress|serializ|brotli|lzma|zstd|\bsav(?:ed|ing)\b")),
    ("quantise", re.compile(r"(?i)quantiz(?:e|ed|ing|ation)\b|gptq")),
    ("adapt", re.compile(r"(?i)pre-?quant\w*ttt|adapt|finetun|\bttt\b.*\bepoch")),
    ("eval", re.compile(r"(?i)eval|ttt|sliding|slot|n-?gram|ppm|round-?trip|val_|score|\bbpb\b")),
    ("train", re.compile(r"(?i)\btrain")),
    ("total", re.compile(r"(?i)total|elapsed|wallclock")),
)
_LABEL_END = re.compile(r"(?i)(?:[\s:=,(\[{|~\-]|\b(?:in|took|done|time|elapsed|after|for|was)\b)+$")

_BYTES = re.compile(
    r"(?im)^(?=[^\n]{0,200}\b(?:bytes|B)\b)"
    r"([^\n:=]{0,80}?(?:size|serialized|submission|artifact|code|total|model)[^\n:=]{0,60}?)"
    r"\s*[:=]\s*([\d,_]{3,})\s*(?:bytes|B)\b"
)
_BYTE_KEY = re.compile(r"(?:[Bb]ytes|BYTES|_size)(?:_\w+)?[\"']?\s*[:=]\s*\d[\d,_]{3,}\b(?!\.\d)")
_KEY_COUNT = re.compile(r"(\w+)[\"']?\s*[:=]\s*(\d[\d,_]{3,})\b(?!\.\d)")
_TOTAL_OF = re.compile(r"[Tt]otal(?:[_ ]?(?:bytes|size))?\s*[:=]\s*(\d[\d,_]{5,})(?![\d.])")
_CODE_OF = re.compile(r"(?i)(?<![a-z])code(?:[_ ]?(?:bytes|size))?\s*[:=]\s*(\d[\d,_]{2,})(?![\d.])")
_LABELLED = re.compile(r"([^\s:=|,;(][^:=|;(]*?)\s*[:=]\s*(\d[\d,_]{5,})(?![\d.])")
_BYTE_NAME = re.compile(
    r"(?i)^\w*(?:code|artifact|model|total|submission)\w*_(?:bytes|size)$|^bytes_(?:total|code|model)$"
)
_MEGABYTES = re.compile(
    r"(?im)^([^\n:=]{0,60}?(?:size|submission|artifact|code|total|model)[^\n:=]{0,40}?)\s*[:=]\s*"
    r"(\d+(?:\.\d+)?)\s*([KM]i?B)\b"
)
_SIZE_WORDS = ("size", "serialized", "submission", "artifact", "code", "total", "model")
_SCALE = {"kb": 1e3, "mb": 1e6, "kib": 1024.0, "mib": 1024.0**2}
_CODEC = re.compile(
    r"(?i)int\d|quant|zlib|zstd|lzma|brotli|lrzip|per-?group|ternary|compressed|packed|\bq\d|export|artifact|submission"
)
_NOT_COMPRESSED = re.compile(r"(?i)un-?compressed|\braw\b|not compressed")
_COMPRESSED_CODE = re.compile(r"(?i)compress|packed|lzma|brotli|zlib|wrap|minif|base85|b85")
_SPECULATIVE = re.compile(
    r"(?i)limit|budget|\bcap\b|target|max|margin|headroom|remaining|left|try|under|over\b|payload|estimat"
)

_HESSIAN = re.compile(r"[HhCc](?i:essian|alibrat)")
_COUNT = re.compile(
    r"(?i)(\d+) hessians|hessians?\D{0,30}?(?:for |layers[=: ])(\d+)|calibrated (\d+)|(\d+) (?:layers|matrices|linears)"
)
_SOURCES: tuple[tuple[CalibrationSource, re.Pattern[str]], ...] = (
    ("self-generated", re.compile(r"(?i)self[-_ ]?gen|auto-?regressive|\bAR\b|generated")),
    ("random", re.compile(r"(?i)random (?:tokens|data)|source\s*[=:]\s*random")),
    ("validation", re.compile(r"(?i)\bval(?:idation)?\b(?!_)|val[-_]data|val_tokens")),
    ("training", re.compile(r"(?i)\btrain(?:ing)?\b|train[-_]data|train_files")),
)

_SMI_ROW = re.compile(r"(?m)^\|\s+(\d+)\s+(\S[^|\n]*?)\s+(?:On|Off|N/A|WDDM|TCC)\s*\|")
_SMI_LIST = re.compile(r"GPU(?<!\wGPU)\s+(\d+):\s*([^\n(]{3,60}?)\s*\(UUID")
_GPU_NAME = re.compile(
    r"(?<![A-Za-wyz0-9_/-])((?:NVIDIA|Tesla|GeForce|AMD|Apple)[ -][A-Z][\w+. -]{1,40}|"
    r"(?:GH200|GB200|B[23]00|H[12]00|A100|A10G|A40|A6000|L40S?|L4|V100|T4|RTX[ _]?(?:PRO )?\d{4}|MI\d{3}X?)"
    r"(?:[- ](?:SXM\d?|PCIe|NVL|\d+ ?GB|HBM\d\w?|Ti|SUPER|Max-Q|Ada))*)(?![\w/])"
)
_GPU_WORDS = (
    *("nvidia", "tesla", "geforce", "amd", "apple", "gh200", "gb200", "b200", "b300", "h100", "h200", "a100", "a10g"),
    *("a40", "a6000", "l40", "l4", "v100", "t4", "rtx", *(f"mi{n}" for n in range(10))),
)
_TIMES = re.compile(r"(?<![\w.])(\d{1,2})\s*[xX\u00d7]\s*\Z")


def read_facts(run: RunLog) -> RunFacts:
    """Everything ``run`` printed about itself."""
    results = run.final_metrics
    steps, planned = _steps(run)
    seed = run.setting(("seed", "args.seed", "random_seed"))
    return RunFacts(
        file=run.file,
        first_line=run.first_line,
        last_line=run.last_line,
        run_number=run.number,
        run_count=run.count,
        seed=Fact[int](value=int(seed.value), line=seed.line) if seed and seed.value.isdigit() else None,
        seed_in_name=run.seed_in_name,
        steps=steps,
        planned_steps=planned,
        train_ms=_train_time(run),
        stopped=next((_line(run, n) for _, n in run.scan(_STOPPED, quiet=True, words=_STOPPED_WORDS)), None),
        hessians=_hessians(run),
        metrics=results,
        last_validation=next((m for m in reversed(run.metrics) if m.kind == "step"), None),
        pre_quant=_last(results, "pre-quantisation"),
        post_quant=_last(results, "post-quantisation"),
        final=final_metric(results),
        timers=tuple(_timers(run)),
        sizes=tuple(_sizes(run)),
        val_tokens=_count(run, _VAL_TOKENS, ("token",)),
        train_shards=_count(run, _TRAIN_SHARDS, ("shards", "files")),
        world_size=_count(run, _WORLD_SIZE, ("world",)),
        gpus=tuple(_gpus(run)),
        tracebacks=tuple(_tracebacks(run)),
        truncated=run.last_step is not None and not results,
        embedded_source=run.embedded_source,
        hyperparameters={k: Fact[str](value=v.value, line=v.line) for k, v in run.hyperparameters.items()},
    )


def final_metric(results: tuple[Metric, ...]) -> Metric | None:
    """The result: the first figure of the last line that gives one."""
    if not results:
        return None
    return next(m for m in results if m.line == results[-1].line)


def _last(results: tuple[Metric, ...], stage: str) -> Metric | None:
    return next((m for m in reversed(results) if m.stage == stage), None)


def _line(run: RunLog, number: int) -> Fact[str]:
    return Fact[str](value=run.log.index.line(number).strip()[:300], line=number)


def _count(run: RunLog, pattern: re.Pattern[str], words: Collection[str]) -> Fact[int] | None:
    for match, line in run.scan(pattern, quiet=True, words=words):
        digits = re.sub(r"\D", "", match[1])
        if digits and len(digits) <= 18:
            return Fact[int](value=int(digits), line=line)
    return None


def _milliseconds(number: str, unit: str) -> float:
    return float(number) * _UNITS[unit.lower()]


def _train_time(run: RunLog) -> Fact[float] | None:
    """The run's own clock when training ended: the stop line, else the last training time, else "trained in"."""
    last = run.last_step
    for pattern, word in ((_STOP, "stop"), (_TRAIN_TIME, "train"), (_TRAINED_IN, "train")):
        found = [
            Fact[float](value=_milliseconds(m[1], m[2]), line=n)
            for m, n in run.scan(pattern, quiet=True, words=(word,))
        ]
        if pattern is _TRAIN_TIME and last is not None:
            told = pattern.search(run.log.index.line(last.line))
            if told is not None:
                found.append(Fact[float](value=_milliseconds(told[1], told[2]), line=last.line))
        if found:
            return max(found, key=lambda f: f.line)
    every = [(m, n) for m, n in run.scan(_TRAIN_TIME)]
    return Fact[float](value=_milliseconds(every[-1][0][1], every[-1][0][2]), line=every[-1][1]) if every else None


def _steps(run: RunLog) -> tuple[Fact[int] | None, Fact[int] | None]:
    planned = run.setting(("iterations", "num_iterations", "max_steps", "total_steps", "train_steps"))
    intended = (
        Fact[int](value=int(planned.value), line=planned.line)
        if planned is not None and planned.value.isdigit() and len(planned.value) < 12
        else None
    )
    last = run.last_step
    done = Fact[int](value=int(last.value), line=last.line) if last is not None else None
    for _, line in run.scan(_STOPPED, quiet=True, words=_STOPPED_WORDS):
        told = _STEP_OF.search(run.log.index.line(line))
        if told and (done is None or int(told[1]) >= done.value):
            done = Fact[int](value=int(told[1]), line=line)
            if intended is None and told[2]:
                intended = Fact[int](value=int(told[2]), line=line)
    return done, intended


def _timers(run: RunLog) -> Iterator[Timer]:
    seen = count = 0
    for _, number in run.scan(_IN_UNITS, quiet=True):
        if number == seen:
            continue
        seen = number
        line = without_prefix(run.log.index.line(number))
        if len(line) > 600 or STEP.match(line) or is_progress(line):
            continue
        found = _DURATION.search(line)
        if found is None:
            continue
        before = line[: found.start()]
        if _BUDGET.search(before):
            continue
        count += 1
        if count > MAX_TIMERS:
            return
        metric = next(line_metrics(line, number), None)
        label = metric.label if metric is not None else _LABEL_END.sub("", before).strip()[:160] or before.strip()[:160]
        kind = "eval" if metric is not None else _timer_kind(line)
        yield Timer(label=label, ms=_milliseconds(found[1], found[2]), kind=kind, line=number)


def _timer_kind(line: str) -> TimerKind:
    return next((kind for kind, pattern in _TIMER_KINDS if pattern.search(line)), "other")


def _sizes(run: RunLog) -> Iterator[Size]:
    found: dict[tuple[str, int], tuple[str, float, bool, int]] = {}
    for match, line in run.scan(_BYTES, quiet=True, words=_SIZE_WORDS):
        digits = re.sub(r"\D", "", match[2])
        if digits and len(digits) <= 15:
            label = without_prefix(match[1]).strip()
            found[label, line] = (label, float(digits), True, line)
    told = {line for _, line in found}
    keyed = run.scan(_BYTE_KEY, quiet=True, words=("bytes", "_size"))
    for line in dict.fromkeys(n for _, n in keyed if n not in told):
        for match in _KEY_COUNT.finditer(run.log.index.line(line)[:2_000]):
            digits = re.sub(r"\D", "", match[2])
            if _BYTE_NAME.search(match[1]) and len(digits) <= 15:
                found[match[1], line] = (match[1], float(digits), True, line)
    for match, line in run.scan(_MEGABYTES, quiet=True, words=_SCALE):
        if not any(at == line for _, at in found):
            label = without_prefix(match[1]).strip()
            found[label, line] = (label, float(match[2]) * _SCALE[match[3].lower()], False, line)
    added = dict(_sums(run))
    sizes = [
        Size(label=label, bytes=round(n), kind=_size_kind(label), exact=exact, line=line)
        for label, n, exact, line in found.values()
        if line not in added
    ]
    sizes += [size for parts in added.values() for size in parts]
    sizes.sort(key=lambda s: s.line)
    for plain, raw in (("total", "total-raw"), ("model", "model-raw")):
        named = any(s.kind == plain and _CODEC.search(_bare(s.label)) for s in sizes)
        for i, size in enumerate(sizes):
            if size.kind == plain and named and not _CODEC.search(_bare(size.label)):
                sizes[i] = size.model_copy(update={"kind": raw})
    yield from sizes


def _sums(run: RunLog) -> Iterator[tuple[int, tuple[Size, ...]]]:
    """Lines that add a model and the code up: whatever the model is called, it is the total without the code."""
    for match, number in run.scan(_TOTAL_OF, quiet=True, words=("total",)):
        line = without_prefix(run.log.index.line(number)[:600])
        counted = _CODE_OF.search(line)
        if counted is None:
            continue
        total, code = _digits(match[1]), _digits(counted[1])
        model = next((m for m in _LABELLED.finditer(line) if _digits(m[2]) == total - code), None)
        if model is None:
            continue
        parts: tuple[tuple[str, int, SizeKind], ...] = (
            (model[1], total - code, "model"),
            ("code", code, "code"),
            (f"total {model[1]}", total, "total"),
        )
        yield number, tuple(Size(label=label, bytes=n, kind=kind, line=number) for label, n, kind in parts)


def _digits(text: str) -> int:
    return int(re.sub(r"\D", "", text))


def _bare(label: str) -> str:
    """A total's label without the words that every total has."""
    return re.sub(r"(?i)total|submission|serialized|artifact size|size", " ", label)


def _size_kind(label: str) -> SizeKind:
    if _SPECULATIVE.search(label):
        return "other"
    low = label.lower()
    if "code" in low and not re.search(r"total|model|submission|artifact|\+", low):
        packed = _COMPRESSED_CODE.search(label) and not _NOT_COMPRESSED.search(label)
        return "code-compressed" if packed else "code"
    if re.search(r"total|submission|artifact", low):
        return "total-raw" if _NOT_COMPRESSED.search(label) else "total"
    if re.search(r"model|serialized", low):
        return "model-raw" if _NOT_COMPRESSED.search(label) else "model"
    return "other"


def _hessians(run: RunLog) -> Hessians | None:
    """The calibration's lines taken together: its time, its count and its data, wherever each is printed."""
    ms: float | None = None
    count: int | None = None
    at = 0
    source: tuple[CalibrationSource, int] | None = None
    seen = 0
    for _, number in run.scan(_HESSIAN, quiet=True, words=("hessian", "calibrat")):
        if number == seen:
            continue
        seen = number
        line = without_prefix(run.log.index.line(number))
        if len(line) > 600 or STEP.match(line) or re.match(r"^\s*[\w.]+\s*[:=]\s*\S+$", line):
            continue  # a step, or an entry of a hyperparameter dump
        if source is None:
            told = next((k for k, p in _SOURCES if p.search(line)), None)
            if told is not None:
                source = (told, number)
        found = _DURATION.search(line)
        if found is not None and ms is None and not _BUDGET.search(line[: found.start()]):
            ms, at = _milliseconds(found[1], found[2]), number
        counted = _COUNT.search(line)
        if counted is not None and count is None:
            count = int(next(g for g in counted.groups() if g))
        at = at or number
    if not at:
        return None
    return Hessians(
        ms=ms,
        count=count,
        source=source[0] if source else None,
        line=at,
        source_line=source[1] if source else None,
    )


def _gpus(run: RunLog) -> Iterator[Gpu]:
    """Devices of nvidia-smi tables and lists, else the device names that the output mentions."""
    listed: dict[tuple[int, str], Gpu] = {}
    for pattern, word in ((_SMI_ROW, "|"), (_SMI_LIST, "gpu")):
        for match, line in run.scan(pattern, quiet=True, words=(word,)):
            index, name = int(match[1]), match[2].strip()
            if _GPU_NAME.search(name):
                listed.setdefault((index, name), Gpu(name=name, index=index, line=line))
    yield from listed.values()
    named: set[str] = set()
    for match, line in run.scan(_GPU_NAME, quiet=True, words=_GPU_WORDS):
        name = match[1].strip(" .-")
        if match.string[match.end() : match.end() + 1] in (":", "="):
            name = name.rpartition(" ")[0]  # the next key of a "key:value" line
        if (
            not name
            or name in named
            or run.log.index.line(line).startswith("|")
            or any(g.name.startswith(name) for g in listed.values())
        ):
            continue
        named.add(name)
        many = _TIMES.search(match.string, max(0, match.start() - 8), match.start())
        yield Gpu(name=name, count=int(many[1]) if many else None, line=line)


def _tracebacks(run: RunLog) -> Iterator[Fact[str]]:
    for _, line in run.scan(_TRACEBACK, quiet=True, words=("traceback",)):
        told = ""
        for number in range(line + 1, min(line + 200, run.last_line) + 1):
            match = _EXCEPTION.match(run.log.index.line(number))
            if match:
                told = match[1][:300]
                break
        yield Fact[str](value=told, line=line)
