"""What shrinks a submission: its own settings, as read in its code, with values that fit the tiny world.

::

    plan = plan_overrides(reading)                 # or with vocabulary=, sequence=, iterations=, mount=
    world = build(folder, **plan.world())          # the tokenizer, names and sidecars that this script looks for
    plan.environment                               # environment variables for the sandbox
    plan.arguments                                 # command line arguments
    plan.constants                                 # numbers fixed in the code, for the codemod to replace
    plan.changed                                   # what to tell people: name, value in the run, value in the probe
    plan.notes                                     # what could not be kept or shrunk, one sentence each

The number of layers stays, and everything that names layers with it. Attention heads keep the ratio of query to key
heads; the head's width is 16 (or what the size says), the model's follows. Lengths, strides, chunks and batches are
scaled with the sequence length so that what divides what stays as it is. Steps, and how fast averages of weights
forget, are scaled with the number of iterations, and the wall-clock limit is lifted, so that schedules pass through the
same phases. Whatever is not a size has its value of the run: where the launch or the log gives one that is not the
code's default, it is set.

A setting is recognised by its name here. That is no evidence of anything: the harness only has to make it small.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from auditor.index.program_index import ProgramIndex
from auditor.probe.result import Override
from auditor.probe.world import DEFAULT_DOCUMENTS, DEFAULT_VOCABULARY
from auditor.reading import Reading
from auditor.unpack.walk import walk

MOUNT = "/world"
"""Where the world's folder is mounted in the sandbox, if nothing else is said."""
MICROSTEPS = 8
"""Scripts cut a batch into 8 // WORLD_SIZE parts; each part must hold a sequence."""


@dataclass(frozen=True)
class Size:
    """The tiny sizes, and what they were in the run (0 where not known)."""

    vocabulary: int = DEFAULT_VOCABULARY
    sequence: int = 64
    """Tokens of a training sequence."""
    iterations: int = 4
    head: int = 16
    """Width of an attention head."""
    documents: int = len(DEFAULT_DOCUMENTS)
    heads: int = 4
    kv_heads: int = 2
    width: int = 64
    run_sequence: int = 2048
    run_eval_sequence: int = 2048
    run_steps: int = 20000
    run_width: int = 512
    run_heads: int = 8

    @property
    def batch(self) -> int:
        """Tokens of a training step."""
        return MICROSTEPS * self.sequence

    @property
    def eval_sequence(self) -> int:
        """Tokens of an evaluation window. Most scripts drop what is beyond the last whole one."""
        return int(_context(self.run_eval_sequence, self))


@dataclass(frozen=True)
class Constant:
    """A number fixed in the code: the value assigned to ``name`` at a line of the readable (unpacked) text."""

    name: str
    """``NAME`` of the module, ``Class.attribute``, or ``function.local``; wherever it is assigned there."""
    file: str
    line: int
    run: str
    probe: str


@dataclass(frozen=True)
class Overrides:
    """How one submission is made tiny; see the module."""

    size: Size
    environment: dict[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    constants: tuple[Constant, ...] = ()
    changed: tuple[Override, ...] = ()
    caseops: bool = False
    """It reads byte sidecars, so the world needs them."""
    datasets: tuple[str, ...] = ()
    tokenizers: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def world(self) -> dict[str, Any]:
        """The keywords of :func:`auditor.probe.world.build` that this submission asks for."""
        return {
            "vocabulary": self.size.vocabulary,
            "caseops": self.caseops,
            "datasets": self.datasets,
            "tokenizers": self.tokenizers,
        }


@dataclass(frozen=True)
class _Read:
    """A setting as the code reads it."""

    name: str
    default: str | None
    run: str | None
    """Its value in the run: what launch or log say, else the default."""
    told: bool
    """Launch or log say so."""
    cast: str
    """int, float, bool, str: what the code makes of it, as far as it is plain."""
    launched: str | None = None
    """What a launch command sets it to."""


def plan_overrides(
    reading: Reading,
    *,
    vocabulary: int | None = None,
    sequence: int = 64,
    iterations: int = 4,
    mount: str = MOUNT,
) -> Overrides:
    """The overrides for the entry script of one record folder. Never raises on what a submission holds.

    ``mount`` is where the sandbox sees the world's folder. Without an entry script nothing is overridden.
    """
    entry = reading.entry
    if entry is None:
        return Overrides(Size(), notes=("no script was found that could have been run",))
    indexes = [i for i in reading.opened() if i.program.tree is not None]
    reads = _reads(reading, indexes)
    constants = list(_constants(indexes))
    fixed = [_Read(c.name, c.run, c.run, False, "int") for c in constants]
    size = _size(reading, [*reads, *fixed], Size(sequence=sequence, iterations=iterations))
    if vocabulary is not None:
        size = replace(size, vocabulary=vocabulary)
    text = "\n".join(i.program.text for i in indexes)
    caseops = "val_bytes" in text
    datasets, tokenizers = _names(text)
    data = f"{mount.rstrip('/')}/data"
    dataset = f"{data}/datasets/fineweb10B_sp{size.vocabulary}"
    tokenizer = f"{data}/tokenizers/fineweb_{size.vocabulary}_bpe.model"

    environment: dict[str, str] = {}
    arguments: list[str] = []
    changed: list[Override] = []
    notes: list[str] = []
    for read in reads:
        value = _path(read, data, dataset, tokenizer)
        if value is None:
            value = _special(read, text)
        if value is None:
            value = _small(read, size)
        if value is None and read.told and read.run is not None and read.run != read.default:
            value = _as_run(read)
            if value is None and read.launched is not None:
                value = _as_run(replace(read, run=read.launched))
            if value is None and not (read.default or "").startswith(read.run.strip("[( ")):
                notes.append(f"{read.name} stays at its default: {read.run[:60]!r} of the run could not be passed on")
        if value is None:
            continue
        if read.name.startswith("--"):
            arguments += [read.name, value]
        else:
            environment[read.name] = value
        if not _same(value, read.run):
            changed.append(Override(name=read.name, run=read.run, probe=value))
    replaced: list[Constant] = []
    for constant, read in zip(constants, fixed, strict=True):
        value = _small(read, size)
        if value is not None and not _same(value, constant.run):
            replaced.append(replace(constant, probe=value))
            changed.append(Override(name=constant.name, run=constant.run, probe=value))
    return Overrides(
        size=size,
        environment=environment,
        arguments=tuple(arguments),
        constants=tuple(replaced),
        changed=tuple(changed),
        caseops=caseops,
        datasets=datasets,
        tokenizers=tokenizers,
        notes=tuple(notes),
    )


# -- what the code reads -------------------------------------------------------------------------------------


def _reads(reading: Reading, indexes: Iterable[ProgramIndex]) -> list[_Read]:
    """Every setting that the scripts read: those of the trace, and plain reads of the environment elsewhere."""
    defaults: dict[str, str | None] = {}
    casts: dict[str, str] = {}
    for index in indexes:
        for name, default, cast in _environment_reads(index.program.tree):
            if defaults.get(name) is None:
                defaults[name] = default
            if cast != "str" or name not in casts:
                casts[name] = cast
    for name, (_, _, value) in reading.trace.defaults.items():
        if defaults.get(name) is None:
            defaults[name] = None if value == "None" else value
    found = []
    for name, default in defaults.items():
        if name in _LAUNCHER:
            continue
        told = reading.run.effective(
            **({"flag": name[2:]} if name.startswith("--") else {"env": name, "attribute": _attribute(reading, name)})
        )
        run = told.value
        if run is not None and _CODE.search(run):
            run = None
        if run is not None and _numeric(default) is not None:
            # Logs also print types, words and lists where the code reads a number.
            run = {"True": "1", "False": "0", "enabled": "1", "disabled": "0"}.get(run, run)
            run = run if _numeric(run) is not None else None
        launched = [v.value for v in told.values if v.origin == "launch command"]
        found.append(
            _Read(
                name,
                default,
                default if run is None else run,
                run is not None,
                casts.get(name, ""),
                launched[-1] if launched else None,
            )
        )
    return found


_CODE = re.compile(r"[({=]|^(?:self|args|h|hp|cfg|config|hparams|os)\.[A-Za-z_]")
"""A value that is a piece of code: some logs hold the script in a form that reads like settings."""
_LAUNCHER = frozenset({"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "PATH"})
"""What torchrun sets: the harness decides."""


def _attribute(reading: Reading, name: str) -> str:
    return reading.trace.aliases.get(name, name)


def _environment_reads(tree: ast.AST | None) -> Iterator[tuple[str, str | None, str]]:
    """(name, default, cast) for each plain read of an environment variable."""
    if tree is None:
        return
    inner: dict[int, str] = {}
    for node in walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _CASTS and node.args:
            inner.setdefault(id(node.args[0]), node.func.id)
        if isinstance(node, ast.Subscript) and _is_environment(node.value) and isinstance(node.slice, ast.Constant):
            yield str(node.slice.value), None, inner.get(id(node), "str")
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = node.args[0].value
            if not isinstance(name, str) or not name.isidentifier():
                continue
            function = node.func
            reads = isinstance(function, ast.Attribute) and (
                function.attr == "getenv" or (function.attr == "get" and _is_environment(function.value))
            )
            if reads or (isinstance(function, ast.Name) and function.id == "getenv"):
                default = node.args[1] if len(node.args) > 1 else None
                yield name, _literal(default), inner.get(id(node), "str")


_CASTS = frozenset({"int", "float", "bool"})


def _is_environment(node: ast.AST) -> bool:
    return (isinstance(node, ast.Attribute) and node.attr == "environ") or (
        isinstance(node, ast.Name) and node.id == "environ"
    )


def _literal(node: ast.expr | None) -> str | None:
    if isinstance(node, ast.Constant) and node.value is not None:
        return str(node.value)
    return None


def _constants(indexes: Iterable[ProgramIndex]) -> Iterator[Constant]:
    """Numbers fixed in the module or in a class: only under names whose meaning is plain."""
    for index in indexes:
        tree = index.program.tree
        if not isinstance(tree, ast.Module):
            continue
        yield from _locals(index.program.file, tree)
        bodies: list[tuple[str, list[ast.stmt]]] = [("", tree.body)]
        bodies += [(f"{n.name}.", n.body) for n in tree.body if isinstance(n, ast.ClassDef)]
        for prefix, body in bodies:
            for statement in body:
                target, value = _assigned(statement)
                if target is None or value is None or not _FIXED.fullmatch(target.upper()):
                    continue
                number = _number(value)
                if number is not None and number > 0:
                    yield Constant(f"{prefix}{target}", index.program.file, value.lineno, str(number), str(number))


def _locals(file: str, tree: ast.Module) -> Iterator[Constant]:
    """Numbers fixed in a function, each assigned to its name there once and for all."""
    for function in tree.body:
        if not isinstance(function, ast.FunctionDef):
            continue
        found: dict[str, list[ast.expr]] = {}
        for node in walk(function):
            target, value = _assigned(node)
            if target is not None and value is not None and _LOCAL.fullmatch(target.upper()):
                found.setdefault(target, []).append(value)
        for target, values in found.items():
            number = _number(values[0])
            if len(values) == 1 and number is not None:
                yield Constant(f"{function.name}.{target}", file, values[0].lineno, str(number), str(number))


_LOCAL = re.compile(r"EMA_DECAY|EMA_BETA")
_FIXED = re.compile(
    r"(?:DEFAULT_)?(?:N_?)?VOCAB(?:_SIZE)?|MODEL_DIM|D_MODEL|N_EMBD|(?:NUM|N)_(?:KV_)?HEADS?|HEAD_DIM|ITERATIONS|NUM_ITERATIONS"
    r"|(?:TRAIN_|EVAL_|VAL_)?SEQ(?:UENCE)?_LEN(?:GTH)?|TRAIN_BATCH_TOKENS|VAL_BATCH_(?:SIZE|TOKENS)|EVAL_STRIDE"
    r"|EMA_DECAY|WARMUP_STEPS|WARMDOWN_ITERS|MAX_WALLCLOCK_SECONDS|BIGRAM_(?:VOCAB_SIZE|DIM|BUCKETS)|TTT_CHUNK_(?:SIZE|TOKENS)"
)


def _assigned(statement: ast.AST) -> tuple[str | None, ast.expr | None]:
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1 and isinstance(statement.targets[0], ast.Name):
        return statement.targets[0].id, statement.value
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        return statement.target.id, statement.value
    return None, None


def _number(node: ast.expr) -> int | float | None:
    """A literal number, or a product, sum, power or shift of literals."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        return node.value
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        left, right = _number(node.left), _number(node.right)
        if isinstance(left, int) and isinstance(right, int) and abs(left) < 2**31 and 0 <= right < 2**31:
            return (
                _OPERATIONS[type(node.op)](left, right) if not isinstance(node.op, ast.LShift) or right < 40 else None
            )
    return None


_OPERATIONS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Mult: lambda a, b: a * b,
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.LShift: lambda a, b: a << b,
}


def _names(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of data sets and tokenizers that stand in the code."""
    datasets = dict.fromkeys(re.findall(r"\b(fineweb\w*?_sp\d\w*)\b", text))
    tokenizers = dict.fromkeys(re.findall(r"(?<![\w/.*{}])([\w.-]+\.model)\b(?=[\"'])", text))
    tokenizers |= dict.fromkeys(re.findall(r"/tokenizers/([\w.-]+\.model)\b", text))
    return tuple(datasets)[:16], tuple(t for t in tokenizers if t != ".model")[:16]


# -- sizes ---------------------------------------------------------------------------------------------------


def _integer(text: str | None) -> int | None:
    number = _numeric(text)
    return int(number) if number is not None and number == int(number) else None


def _numeric(text: str | None) -> float | None:
    try:
        number = float((text or "").replace("_", ""))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _same(one: str, other: str | None) -> bool:
    if other is None:
        return False
    a, b = _numeric(one), _numeric(other)
    if a is not None and b is not None:
        return a == b
    return one == other or {"True": "1", "False": "0"}.get(other, other) == one


def _bare(name: str) -> str:
    """The name without what leads to it: ``--n-heads`` and ``Config.n_heads`` are N_HEADS."""
    return name.rsplit(".", 1)[-1].lstrip("-").replace("-", "_").upper()


def _find(reads: Iterable[_Read], pattern: str) -> int | None:
    """The value in the run of the first setting so named that holds a positive number."""
    for read in reads:
        if re.fullmatch(pattern, _bare(read.name)):
            value = _integer(read.run)
            if value is not None and value > 0:
                return value
    return None


_WIDTH = r"MODEL_DIM|D_MODEL|DIM_MODEL|N_EMBD|EMBEDDING_DIM|HIDDEN(?:_DIM|_SIZE)?|MODEL_WIDTH|DIM|WIDTH"
_HEADS = r"(?:NUM|N)_HEADS?|(?:NUM|N)_ATTN_HEADS|(?:NUM|N)_Q_HEADS|HEADS"
_KV_HEADS = r"(?:NUM|N)_KV_HEADS?|KV_HEADS"
_STEPS = r"ITERATIONS|(?:NUM|MAX|TRAIN|TOTAL)_(?:ITERATIONS|ITERS|STEPS)"


def _size(reading: Reading, reads: list[_Read], tiny: Size) -> Size:
    """Sizes that keep what divides what."""
    width = _find(reads, _WIDTH) or tiny.run_width
    heads = _find(reads, _HEADS)
    kv = _find(reads, _KV_HEADS)
    sequence = _find(reads, r"TRAIN_SEQ(?:UENCE)?_LEN(?:GTH)?") or _find(reads, r"SEQ(?:UENCE)?_LEN(?:GTH)?|BLOCK_SIZE")
    steps = max((_integer(run.last_step.value) or 0 for run in reading.run.claim_runs if run.last_step), default=0)
    made_heads, made_kv = 8, 4
    if heads is not None:
        ratio = max(1, heads // kv) if kv else 1
        made_heads = ratio * max(1, math.ceil(tiny.heads / ratio)) if heads % ratio == 0 else heads
        made_kv = made_heads // ratio
        if heads < made_heads:
            made_heads, made_kv = heads, kv or heads
    run_sequence = sequence or tiny.run_sequence
    return replace(
        tiny,
        heads=made_heads,
        kv_heads=made_kv,
        width=made_heads * tiny.head,
        run_sequence=run_sequence,
        run_eval_sequence=_find(reads, r"EVAL_SEQ(?:UENCE)?_LEN(?:GTH)?") or run_sequence,
        run_steps=steps or _find(reads, _STEPS) or tiny.run_steps,
        run_width=width,
        run_heads=heads or 8,
    )


_Rule = Callable[[float, Size], float | None]


def _at_most(limit: int) -> _Rule:
    return lambda value, size: min(value, limit)


def _length(value: float, size: Size) -> float:
    """A number of tokens as a part or multiple of the training sequence."""
    if value <= 0:
        return value
    return max(8, round(value * size.sequence / size.run_sequence / 8) * 8)


def _context(value: float, size: Size) -> float:
    """A sequence length: a little longer or shorter than in training where it is so in the run."""
    return value if value <= 0 else min(_length(value, size), 2 * size.sequence)


def _stride(value: float, size: Size) -> float:
    """A stride: a quarter of the window where windows overlap, else the window."""
    window = size.eval_sequence
    return value if value <= 0 else window if value >= size.run_eval_sequence else max(1, window // 4)


def _chunk(value: float, size: Size) -> float:
    """A chunk: a quarter of a sequence where it is shorter than one, else one or two sequences."""
    if value <= 0:
        return value
    if value < size.run_sequence:
        return max(8, size.sequence // 4 if value < size.run_sequence / 2 else size.sequence // 2)
    return size.sequence * min(2, int(value // size.run_sequence))


def _scaled_steps(value: float, size: Size) -> float:
    """Training steps; a handful, or a part of one, counts something else."""
    return value if value <= 8 else max(1, round(value * size.iterations / max(size.run_steps, 1)))


def _average(value: float, size: Size) -> float:
    """The weight of the past in an average of weights over training: as much is forgotten as in all of the run."""
    if not 0.5 < value < 1:
        return value
    kept: float = value ** max(1.0, size.run_steps / size.iterations)
    return max(0.5, round(kept, 3))


def _part_of_width(value: float, size: Size) -> float:
    return value if value <= 0 else max(8, round(value * size.width / size.run_width / 8) * 8)


def _rope(value: float, size: Size) -> float:
    """Dimensions that rotate: the same part of a head, even."""
    head = size.run_width / size.run_heads
    return value if value <= 0 else max(2, min(size.head, round(value * size.head / head / 2) * 2))


def _table(value: float, size: Size) -> float:
    """Rows of a hash table: few, a power of two where it was one."""
    whole = int(value)
    return min(value, 256 if whole & (whole - 1) == 0 else 250) if value > 0 else value


def _counts(value: float, size: Size) -> float:
    """Buckets of a count table: these cost little, and collisions should stay rare."""
    whole = int(value)
    return min(value, 1 << 16 if whole & (whole - 1) == 0 else 65521) if value > 0 else value


def _some_documents(value: float, size: Size) -> float:
    return min(value, max(1, size.documents // 2)) if value > 0 else value


def _evaluation_batch(value: float, size: Size) -> float:
    """Tokens of an evaluation batch, of all ranks; where it counts sequences, a few of them."""
    if value <= 0:
        return value
    return 2 * size.batch if value >= 4 * size.run_sequence or value >= 16384 else min(value, 4)


def _part_of_validation(value: float, size: Size) -> float:
    """A limit on validation tokens; the whole split of the contest has 62 million."""
    if value <= 0:
        return value
    return size.sequence * max(1, min(4, round(4 * value / 62e6)))


def _to(part: str) -> _Rule:
    """Whatever the size says."""
    return lambda value, size: getattr(size, part)


def _leave(value: float, size: Size) -> None:
    """No size, whatever its name sounds like."""


def _rank(value: float, size: Size) -> float:
    return min(value, 4) if value > 0 else value


def _batch_tokens(value: float, size: Size) -> float:
    return size.batch if value >= 4096 else value


def _attention_window(value: float, size: Size) -> float | None:
    """A window of positions; of a few numbers only it is something else."""
    return _length(value, size) if value >= 64 else None


def _few_tokens(value: float, size: Size) -> float:
    return min(value, 2048) if value > 0 else value


_RULES: tuple[tuple[str, _Rule], ...] = (
    # Names whose words would lead a later rule astray.
    (r".*SEED|MUON_BACKEND_STEPS|.*NS_STEPS|.*_LAYERS?|.*_LAST_N|.*_BITS|GATE_WINDOW|.*_DECAY_STEPS_FRAC", _leave),
    (r"(?:DEFAULT_|SP_)?VOCAB(?:_SIZE)?|N_?VOCAB", _to("vocabulary")),
    (_KV_HEADS, _to("kv_heads")),
    (_HEADS, _to("heads")),
    (r"HEAD_DIM|D_HEAD", _to("head")),
    (_WIDTH, _to("width")),
    (r"(?:.*_)?(?:PARTIAL_)?(?:ROPE|ROTARY)_DIMS?", _rope),
    (r".*(?:MLP|FFN|FF)_?(?:HIDDEN|DIM)(?:_DIM|_SIZE)?|.*_HIDDEN|D_FF|D_ATTN|.*_DIMS?|DIM_.*", _part_of_width),
    (r".*_RANK|RANK_.*", _rank),
    (r".*_PER_CHUNK", _at_most(3)),
    (r".*CHUNK_?(?:TOKENS|SIZE|LEN|LENGTH)?(?:_TOKENS)?", _chunk),
    (r".*(?:NGRAM|PHRASE|CACHE|BACKOFF|COUNT).*(?:BUCKETS|TABLE_SIZE|HASH_SIZE|SLOTS|ENTRIES)", _counts),
    (r".*(?:GRAM|HASH).*_(?:VOCAB|SIZE|ROWS)|.*_BUCKETS|.*_VOCAB_SIZE", _table),
    # Time and steps.
    (_STEPS, _to("iterations")),
    (r"(?:MODEL_|WEIGHT_)?EMA_(?:DECAY|BETA)", _average),
    (r"VAL_LOSS_EVERY|VAL_EVERY|EVAL_EVERY", _at_most(0)),
    (r"TRAIN_LOG_EVERY|LOG_EVERY", _at_most(1)),
    (r"(?:LOOP_|COMPILE_|RECUR_)?WARMUP_STEPS|.*COMPILE_WARMUP.*STEPS", _at_most(1)),
    (r".*EPOCHS?", _at_most(2)),
    (r".*(?:SLOT|TTT|ETLB|REFINE|BURST|GRAD|INNER|ADAPT|CALIB)\w*_(?:STEPS?|ITERS?|MAX_ITER)", _at_most(3)),
    (
        r".*CALIB\w*_(?:BATCHES|SAMPLES|SEQS|DOCS|SHARDS)|.*_N_?(?:SAMPLES|CALIB\w*)|(?:GPTQ_)?(?:AR_|NUM_)?SEQS",
        _at_most(2),
    ),
    (r".*(?:_STEPS?|_ITERS?|_EVERY|_FREQ|_INTERVAL|_STEP_START|_WARMUP)", _scaled_steps),
    # Tokens.
    (r"(?:.*_)?TRAIN_BATCH_(?:TOKENS|SIZE)(?:_TOKENS)?|(?:TOTAL_)?BATCH_TOKENS", _batch_tokens),
    (r"(?:VAL|EVAL|TEST|SLIDING)\w*BATCH_(?:SIZE|TOKENS)", _evaluation_batch),
    (r".*BATCH_TOKENS", _few_tokens),
    (r".*(?:BATCH_SEQS|BATCH_SIZE|_BATCH|BATCH_DOCS|BATCH_WINDOWS)", _at_most(4)),
    (r".*MIN_DOC_LEN\w*", _length),
    (r"(?:.*_)?(?:SEQ|SEQUENCE|CONTEXT|CTX|DOC)(?:_\w+)?_?LEN(?:GTH)?(?:_\w+)?|CONTEXT_SIZE", _context),
    (r"(?:.*_)?STRIDE(?:_TOKENS)?", _stride),
    (r"VAL_(?:TOKENS_LIMIT|MAX_TOKENS|TOKEN_LIMIT)|(?:MAX_)?(?:VAL|EVAL)_TOKENS(?:_MAX)?", _part_of_validation),
    (r".*(?:_WINDOW|_WINDOW_SIZE|WINDOW_TOKENS)", _attention_window),
    (r".*_MIN_TOKENS", _at_most(16)),
    (r".*(?:MEMORY|REGISTER|SINK|PREFIX|META)_TOKENS", _at_most(4)),
    (r".*_SEQ", _attention_window),
    (r".*(?:_TOKENS|TOKEN_BUDGET)", _few_tokens),
    (r".*_DOCS", _some_documents),
    (r".*_SHARDS", _at_most(2)),
)
"""The first pattern that the whole name matches decides."""
_COMPILED = tuple((re.compile(pattern), rule) for pattern, rule in _RULES)


def _small(read: _Read, size: Size) -> str | None:
    """The tiny value of a setting that is a size; None where it is none, or is small already."""
    value = _numeric(read.run)
    name = _bare(read.name)
    if value is None or read.run in ("True", "False"):
        return None
    for pattern, rule in _COMPILED:
        if pattern.fullmatch(name):
            made = rule(value, size)
            return None if made is None or made == value else _written(made, read)
    return None


def _written(value: float, read: _Read) -> str:
    """A number as the code can read it."""
    if value == int(value) and (read.cast != "float" or "." not in (read.default or "")):
        return str(int(value))
    return str(float(value))


# -- paths, switches and what stays as it was -----------------------------------------------------------------

_DATA_FILES = re.compile(r"fineweb_(train|val)(_bytes)?_")


def _path(read: _Read, data: str, dataset: str, tokenizer: str) -> str | None:
    """Where a setting that names data has to point."""
    name, default = _bare(read.name), read.default or read.run or ""
    if default.endswith(".model") or re.fullmatch(
        r"(?:\w+_)?(?:TOKENIZER|SPM?|SENTENCEPIECE)(?:_MODEL)?_(?:PATH|FILE)", name
    ):
        return tokenizer
    if (files := _DATA_FILES.search(default)) is not None:
        return f"{dataset}/fineweb_{files[1]}{files[2] or ''}_*.bin"
    if re.search(r"fineweb\w*_sp\d", default) or re.fullmatch(
        r"(?:DATA|DATASETS?|TRAIN_DATA)_(?:PATH|ROOT_PATH|DIR_PATH)", name
    ):
        return dataset
    if re.fullmatch(r"DATASETS?_DIR", name):
        return dataset
    if re.fullmatch(r"DATA_(?:DIR|ROOT)|DATA", name):
        return f"{data}/"
    return None


_OUTPUT = re.compile(
    r"(?:\w+_)?(?:OUT|OUTPUT|ARTIFACT|LOG|SAVE|CKPT|CHECKPOINT|RUNS?|WORK|EXPORT|CACHE)S?_(?:DIR|PATH|ROOT|FILE)"
)
_NO_TRAINING = re.compile(
    r"(?:\w+_)?EVAL_ONLY|(?:\w+_)?ONLY_EVAL|SKIP_TRAIN(?:ING)?|(?:LOAD|RESUME|RESTORE)\w*|INIT_(?:FROM|CKPT|CHECKPOINT)\w*"
    r"|(?:\w+_)?(?:CKPT|CHECKPOINT)(?:_PATH|_FILE)?|PREQUANT_ONLY|QUANT(?:IZE)?_ONLY"
)


def _special(read: _Read, text: str) -> str | None:
    """Settings that need a value of their own."""
    name = _bare(read.name)
    if re.fullmatch(r"MAX_WALLCLOCK_SECONDS|TRAIN_(?:TIME|WALLCLOCK)_(?:LIMIT|SECONDS)", name):
        return _written(0.0, read) if _may_be_unlimited(text) else None
    if name == "RUN_ID":
        return "probe"
    if _OUTPUT.fullmatch(name) and (read.run or "").startswith(("/", "~", "..")):
        return "./out"
    if _NO_TRAINING.fullmatch(name) and read.told:
        # The run's own artifact is not there: the tiny model has to be trained first.
        return read.default if read.default is not None else ""
    return None


def _may_be_unlimited(text: str) -> bool:
    """Whether zero means no limit: the code asks whether there is one, and wherever it computes with it."""
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if re.search(r"\bmax_wallclock_ms\s*[-/*]|[-/*]\s*max_wallclock_ms\b|\{max_wallclock_ms:", line):
            before = "\n".join(lines[max(0, number - 8) : number + 1])
            if not re.search(r"max_wallclock_ms\s+is\b|\bif\s+max_wallclock_ms\b|max_wallclock_ms\s+and\b", before):
                return False
    return re.search(r"(?i)\bmax_wallclock_seconds\s*>\s*0", text) is not None


def _as_run(read: _Read) -> str | None:
    """The value of the run as text for the environment; None where the log's form can't be taken back."""
    run = read.run or ""
    default = read.default or ""
    if run in ("True", "False"):
        if default.lower() in ("true", "false"):
            return run.lower() if default.islower() else run
        return "1" if run == "True" else "0"
    if run in ("None", "") or run[:1] in "[({<" or "/" in run or "$" in run:
        return None
    number = _numeric(run)
    if number is None:
        return run
    if number == int(number) and (read.cast == "int" or (default and re.fullmatch(r"-?\d+", default))):
        return str(int(number))
    return run
