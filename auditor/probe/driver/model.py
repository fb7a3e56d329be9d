"""Measures how the logits of the submission's network move when single tokens of its input change.

Runs inside the sandbox only. Nothing is judged here: what moved by how much is written down, and the probes outside
say what it means.

For every way to apply the network (``forward``, ``forward_logits``, ``forward_ttt``, ...), tiny and in float32, with
gates and output weights that start at zero filled with random values, three sets of runs are compared with a run on
unchanged tokens:

- one token changed, for each position p: ``influence[p][q]`` is the largest change of a logit at position q;
- all tokens after position t changed, for each t: the largest change at or before t (``after``);
- other rows of the batch changed: the largest change in the first row (``other_row``).

Rows hold several documents, each starting with the document-start token, which itself is never changed. Where the
network takes document boundaries (``cu_seqlens``, ``doc_ids``, ...), it gets them.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import json
import os
import select
import signal
import sys
import time
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from auditor.probe.driver.construct import (
    BATCH_NAMES,
    MODEL_NAMES,
    TOKENS,
    Builder,
    NotFoundError,
    Source,
    constructor_calls,
    settle_globals,
    switches,
    takes_tokens,
)
from auditor.probe.driver.context import Context
from auditor.probe.driver.used import ADAPTED

MAX_MODELS = 3
MAX_WORST = 8
BATCH = 8
"""Rows in which changes are tried side by side, where the network takes more than one."""
_TARGETS = frozenset({"target_ids", "targets", "target", "y", "labels", "tgt", "tgt_ids", "target_tokens"})
_DOCUMENTS = frozenset({"doc_ids", "document_ids", "seg_ids", "segment_ids", "docs", "doc_id", "document_id"})
_STARTS = frozenset({"cu_seqlens", "cu_seqlen", "cu", "cu_seq_lens", "cu_seqlens_q"})
_LONGEST = frozenset({"max_seqlen", "max_seq_len", "max_len", "max_seqlen_q", "max_doc_len"})


# -- input --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rows:
    """A row of tokens and its targets, [1, T], int64. ``starts``: where its documents start."""

    ids: Tensor
    targets: Tensor
    starts: tuple[int, ...]
    vocabulary: int

    @property
    def length(self) -> int:
        """Positions in the row."""
        return int(self.ids.shape[1])


def make_rows(lengths: Sequence[int], vocabulary: int, start_token: int, seed: int) -> Rows:
    """Documents of these lengths in a row, each starting with the document-start token."""
    generator = torch.Generator().manual_seed(seed)
    total = sum(lengths)
    stream = torch.randint(_first_plain(start_token), vocabulary, (1, total + 1), generator=generator)
    starts = tuple(sum(lengths[:i]) for i in range(len(lengths)))
    stream[:, list(starts)] = start_token
    return Rows(stream[:, :-1].clone(), stream[:, 1:].clone(), starts, vocabulary)


def _first_plain(start_token: int) -> int:
    """The first id that is no control token: tokenizers of the contest keep the lowest ids for those."""
    return max(start_token + 1, 4)


def other_tokens(tokens: Tensor, vocabulary: int, start_token: int, generator: torch.Generator) -> Tensor:
    """For each token another one, never a control token."""
    low = _first_plain(start_token)
    shift = torch.randint(1, vocabulary - low, tokens.shape, generator=generator)
    return (tokens - low + shift) % (vocabulary - low) + low


# -- the network ---------------------------------------------------------------------------------------------


def fill(model: nn.Module, seed: int, spread: float | None = None) -> list[str]:
    """Fill weights that start at zero, wholly or in some slices, with seeded random values; name those parameters.

    A leak behind a gate at zero would not show. Gates held shut by a large constant are opened too. ``spread`` is the
    standard deviation; by default one that keeps activations at their size.
    """
    generator = torch.Generator().manual_seed(seed)
    filled = []
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.is_floating_point() or parameter.numel() == 0:
                continue
            deviation = spread or (0.7 if parameter.ndim < 2 else (1.0 / max(parameter.shape[-1], 1)) ** 0.5)
            random = torch.randn(parameter.shape, generator=generator) * deviation
            if parameter.ndim >= 2:
                empty = parameter.flatten(1).abs().amax(1) < 1e-6
                if bool(empty.any()):
                    parameter[empty] = random[empty].to(parameter.dtype)
                    filled.append(name)
                    continue
            low, high = float(parameter.min()), float(parameter.max())
            if max(abs(low), abs(high)) < 1e-6:
                parameter.copy_(random)
                filled.append(name)
            elif high - low < 1e-6 and abs(low) > 3:
                parameter.copy_(low / abs(low) + random)
                filled.append(name)
    return filled


class _Enough(BaseException):
    """Ends a pass whose logits are there: the loss kernel after them may be slow on a CPU."""


class _Watch(TorchFunctionMode):
    """Keeps the last tensor of one value per token of the vocabulary that a forward pass makes.

    ``enough``: how many such tensors it makes, where that is known; the pass ends with the last of them.
    """

    def __init__(self, rows: int, vocabulary: int, enough: int | None) -> None:
        super().__init__()
        self.size = rows * vocabulary
        self.vocabulary = vocabulary
        self.enough = enough
        self.count = 0
        self.seen: Tensor | None = None

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and out.ndim >= 2 and self._fits(out) and out.is_floating_point():
            self.seen = out
            self.count += 1
            if self.count == self.enough:
                raise _Enough
        return out

    def _fits(self, tensor: Tensor) -> bool:
        return bool(tensor.shape[-1] == self.vocabulary and tensor.numel() == self.size)


@dataclass
class Observed:
    """What one forward pass gave: logits [B, T, V] and, if it returns them, a loss per token [B, T], in float64.

    A pass that returns the states of the positions is taken by those.
    """

    logits: Tensor | None
    losses: Tensor | None
    dtype: str
    stopped: str = ""


@dataclass
class Path:
    """One way to apply the network."""

    name: str
    """Such as ``GPT.forward_logits``."""
    ready: Callable[[], Callable[[Tensor, Tensor], Any]]
    """Makes a function that applies it, as the network is now set, to token ids and targets, both [B, T]."""
    arguments: str
    """What it is given, as text."""
    documents: bool
    """Whether it is told where documents start."""
    rows: int
    """Rows in a batch: 1 where the boundaries belong to a single packed row."""
    model: nn.Module
    state: str = ""
    """Which switches were set other than by the constructor."""
    run: Callable[[Tensor, Tensor], Any] | None = None
    returns_outputs: bool = False
    """Whether it was seen to return logits, or states, of each position: then nothing needs to be watched inside."""
    enough: int | None = None

    def observe(self, ids: Tensor, targets: Tensor, vocabulary: int, *, fresh: bool = False) -> Observed:
        """Apply it once. ``fresh``: the network is set back afterwards, so that no state is kept."""
        self.run = self.run or self.ready()
        torch.manual_seed(0)
        kept = _snapshot(self.model) if fresh else None
        batch, length = ids.shape
        out: Any = None
        stopped = ""
        watch = _Watch(batch * length, vocabulary, self.enough)
        with torch.no_grad(), contextlib.nullcontext() if self.returns_outputs else watch:
            try:
                out = self.run(ids, targets)
            except _Enough:
                pass
            except Exception as error:
                if watch.seen is None:
                    raise
                # The logits were made before: a loss that needs a GPU kernel does not matter here.
                stopped = tell(error)
        if kept is not None:
            _restore(self.model, kept)
        logits, losses = None, None
        for item in out if isinstance(out, (tuple, list)) else (out,):
            if not isinstance(item, Tensor) or not item.is_floating_point():
                continue
            if losses is None and item.numel() == batch * length and item.ndim <= 2:
                losses = item
            elif logits is None and (item.shape[:2] == (batch, length) or item.shape[:1] == (batch * length,)):
                logits = item
        self.returns_outputs = logits is not None
        if logits is None:
            logits = watch.seen
            self.enough = watch.count if losses is None and logits is not None else None
        told = logits if logits is not None else losses
        dtype = str(told.dtype) if told is not None else ""
        return Observed(
            None if logits is None else logits.detach().reshape(batch, length, -1).double(),
            None if losses is None else losses.detach().reshape(batch, length).double(),
            dtype.removeprefix("torch."),
            stopped,
        )


def _snapshot(model: nn.Module) -> list[tuple[nn.Module, dict[str, Any]]]:
    return [(m, copy.deepcopy({k: v for k, v in vars(m).items() if k != "_modules"})) for m in model.modules()]


def _restore(model: nn.Module, kept: list[tuple[nn.Module, dict[str, Any]]]) -> None:
    for module, values in kept:
        modules = module._modules
        vars(module).clear()
        vars(module).update(values)
        module._modules = modules


# -- forward paths -------------------------------------------------------------------------------------------


def methods(model: nn.Module) -> list[tuple[str, inspect.Signature]]:
    """The methods of a network's own classes whose first parameter is token ids."""
    found: dict[str, inspect.Signature] = {}
    for cls in type(model).__mro__:
        if cls.__module__.startswith("torch."):
            continue
        for name, member in vars(cls).items():
            if not isinstance(member, types.FunctionType) or name.startswith("__") or name in found:
                continue
            signature = inspect.signature(member)
            parameters = list(signature.parameters.values())
            if len(parameters) > 1 and parameters[0].name == "self" and parameters[1].name in TOKENS:
                found[name] = signature
    return sorted(found.items(), key=lambda item: (item[0] != "forward_logits", item[0] != "forward", item[0]))


@dataclass
class Missing(Exception):
    """A required argument that nothing is known about."""

    argument: str


Adapters = Callable[[int], nn.Module]
"""Makes the submission's adapters (LoRA) for a batch of so many rows."""


def paths(model: nn.Module, rows: Rows, adapters: Adapters | None) -> Iterator[Path | str]:
    """Ways to apply the network, those that are told where documents start first; a sentence for one that can't be."""
    later: list[tuple[str, str, list[inspect.Parameter]]] = []
    for name, signature in methods(model):
        if name.startswith("_"):
            continue
        label = getattr(type(model), name).__qualname__
        parameters = list(signature.parameters.values())[1:]
        later.append((name, label, parameters))
        if any(p.name in _STARTS | _DOCUMENTS for p in parameters):
            with contextlib.suppress(Missing):
                yield _path(model, name, label, parameters, rows, adapters, documents=True)
    for name, label, parameters in later:
        optional = any(p.name in _TARGETS and p.default is not inspect.Parameter.empty for p in parameters)
        for targets in (False, True) if optional else (False,):
            try:
                yield _path(model, name, label, parameters, rows, adapters, documents=False, targets_too=targets)
            except Missing as missing:
                yield f"{label} needs {missing.argument}"


def _path(
    model: nn.Module,
    name: str,
    label: str,
    parameters: Sequence[inspect.Parameter],
    rows: Rows,
    adapters: Adapters | None,
    *,
    documents: bool,
    targets_too: bool = False,
) -> Path:
    fixed: dict[str, Any] = {}
    told = [parameters[0].name]
    targets: str | None = None
    adapted: str | None = None
    for parameter in parameters[1:]:
        given = parameter.name
        optional = parameter.default is not inspect.Parameter.empty
        if parameter.kind in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL):
            continue
        if given in _TARGETS and (targets_too or not optional):
            targets = given
        elif documents and given in _STARTS:
            fixed[given] = torch.tensor([*rows.starts, rows.length], dtype=torch.int32)
        elif documents and given in _LONGEST:
            ends = [*rows.starts[1:], rows.length]
            fixed[given] = max(e - s for s, e in zip(rows.starts, ends, strict=True))
        elif documents and given in _DOCUMENTS:
            marks = torch.zeros(1, rows.length, dtype=torch.int64)
            marks[0, list(rows.starts[1:])] = 1
            fixed[given] = marks.cumsum(1)
        elif optional:
            continue
        elif adapters is not None and ("lora" in given.lower() or "adapter" in given.lower()):
            adapted = given
        elif given in _STARTS | _DOCUMENTS:
            fixed[given] = None
        elif given in _LONGEST:
            fixed[given] = 0
        else:
            raise Missing(given)
        told.append(given)
    # Calling the network itself runs its hooks too, as the submission does.
    method = model if name == "forward" else getattr(model, name)
    batch = 1 if documents else BATCH

    def ready() -> Callable[[Tensor, Tensor], Any]:
        values = dict(fixed)
        if adapters is not None and adapted is not None:
            values[adapted] = adapters(batch)

        def run(ids: Tensor, target_ids: Tensor) -> Any:
            if targets is not None:
                values[targets] = target_ids
            return method(ids, **values)

        return run

    return Path(label, ready, ", ".join(told), documents, batch, model)


# -- measurement ---------------------------------------------------------------------------------------------


@dataclass
class Moved:
    """A position whose output moved: ``before`` and ``after`` are the logit (or loss) that moved most."""

    changed: int
    moved: int
    before: float
    after: float
    difference: float
    single: bool
    """Whether only this token was changed; else all that follow it were too."""


@dataclass
class Measured:
    """One path, measured. Changes are absolute, of logits or, where there are none, of losses."""

    path: str
    arguments: str
    state: str
    documents: bool
    what: str
    dtype: str
    length: int
    starts: tuple[int, ...]
    scale: float
    noise: float
    trials: int
    influence: list[list[float]]
    after: list[float]
    other_row: float | None
    stopped: str = ""
    """What stopped the pass after its logits were made, if anything did."""
    worst: list[Moved] = field(default_factory=list)
    seconds: float = 0.0
    finished: bool = True


def measure(path: Path, rows: Rows, start_token: int, seeds: Sequence[int], deadline: float) -> Measured:
    """Compare runs of one path on changed tokens with a run on unchanged ones.

    Changes are tried side by side in the rows of a batch; the first row is never changed, so it tells whether rows
    act on each other. Raises whatever the submission's code raises.
    """
    began = time.monotonic()
    length, batch = rows.length, path.rows
    ids, targets = batch_of(path, rows)
    base, again, fresh = _base(path, ids, targets, rows.vocabulary)
    if base.logits is None and base.losses is None:
        raise NotFoundError(f"{path.name} gives neither logits nor a loss for each token")
    what = "losses"
    if base.logits is not None:
        what = "logits" if base.logits.shape[-1] == rows.vocabulary else "states"
    reference = base.logits if base.logits is not None else base.losses
    assert reference is not None
    if not bool(torch.isfinite(reference).all()):
        raise NotFoundError(f"{path.name} gives {what} that are not finite")
    measured = Measured(
        path.name, path.arguments, path.state, path.documents, what, base.dtype, length, rows.starts,
        scale=float(reference.abs().max()), noise=_distance(base, again), trials=0,
        influence=[[0.0] * length for _ in range(length)], after=[0.0] * length, other_row=0.0 if batch > 1 else None,
        stopped=base.stopped,
    )  # fmt: skip
    todo = list(_changes(rows, seeds, start_token, only_logits=base.losses is None))
    first = 0 if batch == 1 else 1
    width = batch - first
    while todo:
        if time.monotonic() > deadline:
            measured.finished = False
            break
        some, todo = todo[:width], todo[width:]
        changed_ids, changed_targets = ids.clone(), targets.clone()
        for row, change in enumerate(some, first):
            changed_ids[row], changed_targets[row] = change.ids, change.targets
        out = path.observe(changed_ids, changed_targets, rows.vocabulary, fresh=fresh)
        moved = _moved(base, out)
        if first and measured.other_row is not None:
            measured.other_row = max(measured.other_row, float(moved[0].max()))
            if measured.other_row > 0 and width > 1:
                # Rows act on each other: what moves in one may come from another, so each change goes alone.
                width, todo = 1, [*some, *todo]
                continue
        for row, change in enumerate(some, first):
            measured.trials += 1
            _enter(measured, change, moved[row], row, base, out)
    measured.seconds = round(time.monotonic() - began, 3)
    return measured


def batch_of(path: Path, rows: Rows) -> tuple[Tensor, Tensor]:
    """The row as often as the path takes it: tokens and targets, [B, T]."""
    shape = (path.rows, rows.length)
    return rows.ids.expand(shape).clone(), rows.targets.expand(shape).clone()


def same(one: Observed, two: Observed) -> bool:
    """Whether two passes gave the same logits."""
    if one.logits is None or two.logits is None or one.losses is not None or one.logits.shape != two.logits.shape:
        return False
    return bool(torch.equal(one.logits, two.logits))


def _base(path: Path, ids: Tensor, targets: Tensor, vocabulary: int) -> tuple[Observed, Observed, bool]:
    """Two runs on unchanged tokens, and whether the network must be set back between runs to make them equal."""
    base = path.observe(ids, targets, vocabulary)
    again = path.observe(ids, targets, vocabulary)
    if _distance(base, again) == 0:
        return base, again, False
    base = path.observe(ids, targets, vocabulary, fresh=True)
    return base, path.observe(ids, targets, vocabulary, fresh=True), True


@dataclass
class Change:
    """Changed tokens [T] and targets [T]. ``place``: the first position changed; ``single``: the only one."""

    place: int
    single: bool
    ids: Tensor
    targets: Tensor


def _changes(rows: Rows, seeds: Sequence[int], start_token: int, *, only_logits: bool) -> Iterator[Change]:
    """One token changed, for each position; and all tokens after a position, for each.

    With the tokens after t the targets change too: all from t on where only logits are looked at, which must not
    depend on them; those after t where there is a loss for each token, which depends on its own target.
    """
    length = rows.length
    for seed in seeds:
        generator = torch.Generator().manual_seed(1000 + seed)

        def other(tokens: Tensor, generator: torch.Generator = generator) -> Tensor:
            return other_tokens(tokens, rows.vocabulary, start_token, generator)

        for p in range(length):
            if p not in rows.starts:
                ids = rows.ids[0].clone()
                ids[p] = other(ids[p : p + 1])[0]
                yield Change(p, True, ids, rows.targets[0])
        for t in range(length - 1):
            place = torch.tensor([p for p in range(t + 1, length) if p not in rows.starts], dtype=torch.int64)
            if place.numel():
                ids, targets = rows.ids[0].clone(), rows.targets[0].clone()
                ids[place] = other(ids[place])
                since = t if only_logits else t + 1
                targets[since:] = other(targets[since:])
                yield Change(t + 1, False, ids, targets)


def _moved(base: Observed, out: Observed) -> Tensor:
    """The largest absolute change at each position, [B, T]."""
    moved: Tensor | None = None
    for mine, theirs in ((out.logits, base.logits), (out.losses, base.losses)):
        if mine is not None and theirs is not None:
            difference = torch.nan_to_num((mine - theirs).abs(), nan=float("inf"))
            difference = difference if difference.ndim == 2 else difference.amax(-1)
            moved = difference if moved is None else torch.maximum(moved, difference)
    if moved is None:
        raise NotFoundError("a pass on other tokens gives something else than the first pass")
    return moved


def _distance(one: Observed, two: Observed) -> float:
    return float(_moved(one, two).max()) if (one.logits, one.losses) != (None, None) else 0.0


def _enter(measured: Measured, change: Change, moved: Tensor, row: int, base: Observed, out: Observed) -> None:
    """Enter one comparison: ``moved`` [T] for a change in ``row``."""
    length = measured.length
    following = length
    if change.single:
        line = measured.influence[change.place]
        for q, value in enumerate(moved.tolist()):
            line[q] = max(line[q], value)
        following = next((s for s in measured.starts if s > change.place), length)
    else:
        t = change.place - 1
        measured.after[t] = max(measured.after[t], float(moved[: t + 1].max()))
    for begin, end in ((0, change.place), (following, length)):
        if begin >= end or float(moved[begin:end].max()) <= 0:
            continue
        q = int(moved[begin:end].argmax()) + begin
        before, after = _values(base, out, row, q)
        measured.worst.append(Moved(change.place, q, before, after, float(moved[q]), change.single))
    # Backwards and forwards across a boundary are two questions: the largest of each are kept.
    ranked = sorted(measured.worst, key=lambda m: -m.difference)
    measured.worst = [m for m in ranked if m.moved < m.changed][:MAX_WORST]
    near = [m for m in ranked if m.moved > m.changed]
    measured.worst += near[:MAX_WORST]


def _values(base: Observed, out: Observed, row: int, q: int) -> tuple[float, float]:
    """The logit at ``q`` that moved most, before and after; the loss where no logit moved."""
    if base.logits is not None and out.logits is not None:
        v = int((base.logits[row, q] - out.logits[row, q]).abs().argmax())
        before, after = float(base.logits[row, q, v]), float(out.logits[row, q, v])
        if before != after or base.losses is None:
            return before, after
    assert base.losses is not None and out.losses is not None
    return float(base.losses[row, q]), float(out.losses[row, q])


# -- the job -------------------------------------------------------------------------------------------------


def parameters(model: nn.Module) -> int:
    """Trainable numbers of a network, shared ones once."""
    return sum(p.numel() for p in model.parameters())


@contextlib.contextmanager
def _unfilled(*, meta: bool) -> Iterator[None]:
    """Makes networks without filling their weights; on the meta device they take no memory either."""
    names = [n for n in dir(nn.init) if n.endswith("_") and not n.startswith("_")]
    kept = {n: getattr(nn.init, n) for n in names}
    for n in names:
        setattr(nn.init, n, lambda tensor, *a, **k: tensor)
    try:
        with torch.device("meta") if meta else contextlib.nullcontext():
            yield
    finally:
        for n, value in kept.items():
            setattr(nn.init, n, value)


def _builds(found: Sequence[Source]) -> Iterator[tuple[str, int, nn.Module | str]]:
    """The networks that the code makes: class, line and the network, or a sentence on why it can't be made."""
    seen: set[type] = set()
    for call in constructor_calls(found):
        if call.cls in seen or not takes_tokens(call.cls, found):
            continue
        if len(seen) >= MAX_MODELS:
            break
        try:
            made: nn.Module | str = Builder(found).build(call)
            seen.add(call.cls)
        except Exception as error:
            made = f"{type(error).__name__}: {str(error)[:300]}"
        yield call.cls.__name__, call.node.lineno, made


def count(context: Context) -> dict[str, Any]:
    """The job ``model:count``: the networks' sizes as the environment sets them, made on the meta device.

    A constructor that computes with its weights needs real ones.
    """
    found = _sources(context)
    settle_globals(found, 1)
    for meta in (True, False):
        with _unfilled(meta=meta):
            made = list(_builds(found))
        if any(isinstance(m, nn.Module) for _, _, m in made):
            break
    return {
        "models": [
            {"class": name, "line": line, "parameters": parameters(m)}
            if isinstance(m, nn.Module)
            else {"class": name, "line": line, "problem": m}
            for name, line, m in made
        ]
    }


def measure_all(context: Context) -> dict[str, Any]:
    """The job ``model:measure_all``: import, build, find the forward paths, measure them.

    Arguments: ``start_token``, ``rows`` (each the lengths of its documents; a network that does not take the first
    gets the next), ``seeds``, ``seconds``. The result is as :class:`auditor.probe.forward.Measurement` reads it.
    """
    began = time.monotonic()
    job = context.arguments
    deadline = began + float(job["seconds"])
    full = _Aside(lambda: count(context), job["full"]) if job.get("full") is not None else None
    found = _sources(context)
    imported = time.monotonic() - began
    settled = settle_globals(found, int(job["start_token"]))
    result: dict[str, Any] = {"imported": round(imported, 3), "models": [], "paths": [], "skipped": []}
    result["start_token"] = start_token = _start_token(found, settled, int(job["start_token"]))
    for name, line, made in _builds(found):
        if isinstance(made, str):
            result["models"].append({"class": name, "line": line, "problem": made})
            continue
        entry: dict[str, Any] = {"class": name, "line": line, "parameters": parameters(made)}
        result["models"].append(entry)
        _measure_model(made.float().eval(), found, context, start_token, deadline, entry, result)
    if not result["models"]:
        made = list(dict.fromkeys(call.cls.__name__ for call in constructor_calls(found)))
        told = ", ".join(made[:8]) or "none"
        result["skipped"].append(f"no network that takes token ids first is made (made: {told})")
    if full is not None:
        result["full"] = full.result(deadline + 5)
    return result


class _Aside:
    """A job done in a forked process before the submission is imported, under another environment."""

    def __init__(self, work: Callable[[], dict[str, Any]], environment: Mapping[str, str | None]) -> None:
        self._read, write = os.pipe()
        self._process = os.fork()
        if self._process:
            os.close(write)
            return
        try:
            for name, value in environment.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
            sys.argv = sys.argv[:1]
            try:
                told = work()
            except BaseException as error:
                told = {"problem": tell(error)}
            with os.fdopen(write, "w") as pipe:
                json.dump(told, pipe)
        finally:
            os._exit(0)

    def result(self, deadline: float) -> dict[str, Any]:
        """What it told, or why it told nothing."""
        text = b""
        while True:
            ready, _, _ = select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))
            piece = os.read(self._read, 1 << 16) if ready else b""
            if not piece:
                break
            text += piece
        with contextlib.suppress(OSError):
            os.kill(self._process, signal.SIGKILL)
            os.waitpid(self._process, 0)
        try:
            told = json.loads(text)
        except ValueError:
            told = None
        return told if isinstance(told, dict) else {"problem": "it did not come to an end"}


def _sources(context: Context) -> list[Source]:
    return [Source(module, context.tree(context.file_of(module))) for module in context.modules()]


def _start_token(found: Sequence[Source], settled: Mapping[str, Any], usual: int) -> int:
    """The token that starts a document: the one the code names so, else the contest's."""
    for value in (*(v for k, v in settled.items() if "bos" in k.lower()), getattr(found[0].module, "BOS_ID", None)):
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
    return usual


def _measure_model(
    model: nn.Module,
    found: Sequence[Source],
    context: Context,
    start_token: int,
    deadline: float,
    entry: dict[str, Any],
    result: dict[str, Any],
) -> None:
    """Measure every forward path of one network: first as it is set in evaluation, then as the constructor left it."""
    job = context.arguments
    vocabulary = _vocabulary(model)
    if vocabulary is None:
        entry["problem"] = "it embeds no tokens"
        return
    entry["vocabulary"] = vocabulary
    entry["filled"] = fill(model, seed=1)
    flips = switches(found, model)
    built = {name: getattr(model, name) for name in flips}
    entry["switches"] = flips
    shapes = [make_rows(lengths, vocabulary, start_token, int(job["seeds"][0])) for lengths in job["rows"]]
    seen: list[Observed] = []
    for state in (flips, built) if flips else (flips,):
        for name, value in state.items():
            setattr(model, name, value)
        told = ", ".join(f"{k} = {v}" for k, v in state.items())
        problems: dict[str, str] = {}
        done: set[tuple[str, str]] = set()
        # Some networks take rows only of certain lengths: the next shape is for those that did not take the first.
        for rows in shapes:
            for path in paths(model, rows, _adapters(found, model, problems)):
                if isinstance(path, str):
                    problems[path] = path
                    continue
                if (path.name, path.arguments) in done:
                    continue
                path.state = told
                context.progress(f"{path.name}({path.arguments})")
                try:
                    # What gives the very outputs of a pass that was measured, or differs from it by a switch alone,
                    # is tried with fewer changes.
                    base = path.observe(*batch_of(path, rows), vocabulary)
                    again = any(same(base, other) for other in seen) or state is not flips
                    seen.append(base)
                    # No pass may take so long that those after it go without.
                    now = time.monotonic()
                    until = min(deadline, now + max(2.0, 0.4 * (deadline - now)))
                    measured = measure(path, rows, start_token, job["seeds"][: 1 if again else None], until)
                except Exception as error:
                    problems[path.name + path.arguments] = f"{path.name}({path.arguments}): {tell(error)}"
                    continue
                done.add((path.name, path.arguments))
                problems.pop(path.name + path.arguments, None)
                result["paths"].append(_as_json(measured))
        result["skipped"] += [p for p in problems.values() if p not in result["skipped"]]


def tell(error: BaseException) -> str:
    """An exception in one line, with the place in the submission."""
    place = ""
    trace = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if file.startswith(ADAPTED):
            place = f" ({os.path.basename(file)}:{trace.tb_lineno})"
        trace = trace.tb_next
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}{place}"


def _as_json(measured: Measured) -> dict[str, Any]:
    told = dict(vars(measured))
    told["worst"] = [vars(m) for m in measured.worst]
    told["influence"] = [[float(f"{v:.4g}") for v in row] for row in measured.influence]
    told["after"] = [float(f"{v:.4g}") for v in measured.after]
    return told


def _vocabulary(model: nn.Module) -> int | None:
    """The size of the vocabulary: rows of the first embedding that is named for tokens, else of the first one."""
    found = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Embedding)]
    named = [m for n, m in found if any(w in n.rsplit(".", 1)[-1] for w in ("tok", "wte", "embed"))]
    for attribute in ("vocab_size", "n_vocab"):
        value = getattr(model, attribute, None)
        if isinstance(value, int) and value > 8:
            return value
    chosen = (named or [m for _, m in found])[:1]
    return chosen[0].num_embeddings if chosen else None


def _adapters(found: Sequence[Source], model: nn.Module, problems: dict[str, str]) -> Adapters | None:
    """Makes adapters that forward paths want, by the submission's own call; None if it makes none for a network."""
    calls = [c for c in constructor_calls(found) if any(w in c.cls.__name__.lower() for w in ("lora", "adapter"))]
    if not calls:
        return None

    def make(batch: int) -> nn.Module:
        for call in calls:
            names = inspect.signature(call.cls.__init__).parameters
            given: dict[str, Any] = {n: batch for n in names if n in BATCH_NAMES}
            given |= {n: model for n in names if n in MODEL_NAMES}
            given |= {n: batch for n in BATCH_NAMES} | {n: model for n in MODEL_NAMES}
            try:
                made = Builder(found, given).build(call).float().eval()
            except Exception as error:
                problems[call.cls.__name__] = f"{call.cls.__name__}: {tell(error)}"
                continue
            fill(made, seed=2, spread=0.02)
            problems.pop(call.cls.__name__, None)
            return made
        raise NotFoundError("its adapters could not be made")

    return make
