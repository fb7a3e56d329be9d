"""What the evaluation probes share: a stream to evaluate, the runs to make, and what the runs came out at.

The submission's own program is run in the tiny world (:mod:`auditor.probe.driver.evaluation`), branched off where it
first opens a validation shard ("early") and where the reported evaluation is called ("late"). Every branch has other
validation tokens and ends with the reported number.

Which accumulator the reported number is made of is not taken from names: of everything that was added up, the pair is
taken whose quotient is the printed loss, and the third whose share in it gives the printed bits per byte. Which
position an element belongs to is found out, too: in run ``bit-k`` every token whose position has bit k set is
replaced by one of another size, so the runs in which the bytes of an element change spell its position.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from auditor.index.trace import CallFrame
from auditor.index.values import HOLE
from auditor.logs.metrics import line_metrics
from auditor.probe.world import BOS, World, build
from auditor.reading import Reading

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

DOCUMENTS = (50, 24, 27, 12)
"""With the copies of the last, 257 tokens: four windows of 64 and the last target."""
LARGER = (50, 24, 27, 90, 7, 129, 30, 12)
"""Eight windows."""
COPIES = 12
"""What predicts from repetition (n-grams, byte models) is sure of itself after that many."""
BITS = 10
TESTED = 6
TRIED = 10
"""Tokens put at one position where the log-sum-exp of its logits is seen."""
EXACT = 1e-6
MAX_RESULT = 64 << 20


@dataclass(frozen=True)
class Stream:
    """The validation stream of the probe and what is true about it.

    ``sizes`` are the bytes of the text that each position stands for, ``lengths`` those of each vocabulary item;
    ``plain`` are ordinary items without a space in front, ``editable`` the positions that may hold any of these.
    """

    tokens: Ints
    sizes: Ints
    lengths: Ints
    plain: tuple[int, ...]
    editable: tuple[int, ...]
    world: World

    @property
    def last(self) -> int:
        """The last position."""
        return int(self.tokens.size) - 1

    def other(self, position: int, salt: int = 0) -> int:
        """A token of another size for a position, always the same."""
        source = random.Random(position * 7919 + salt)
        return source.choice([t for t in self.plain if self.lengths[t] != self.sizes[position]])

    def gain(self, edits: Mapping[int, int], upto: int | None = None) -> int:
        """Bytes that the text gains by these edits."""
        return sum(
            int(self.lengths[token] - self.sizes[position])
            for position, token in edits.items()
            if upto is None or position <= upto
        )


def make_stream(target: Path, *, documents: Sequence[int] = DOCUMENTS, seed: int = 1, **options: Any) -> Stream:
    """A world below ``target`` and a stream of its documents, the last of them thirteen times.

    What predicts from repetition is thus sure of the last token, where the distribution is looked at.
    """
    world = build(target, documents=documents, seed=seed, **options)
    again = world.documents[-1]
    order = np.concatenate([np.arange(world.tokens.size), np.tile(np.arange(again.start, again.end), COPIES)])
    tokens = world.tokens.astype(np.int64)[order]
    sizes = world.token_bytes.astype(np.int64)[order]
    lengths = np.asarray([_length(piece) for piece in world.pieces], dtype=np.int64)
    plain = tuple(
        number
        for number, piece in enumerate(world.pieces)
        if number >= 260 and piece.isascii() and piece.isalpha() and len(piece) <= 4
    )
    editable = tuple(int(p) for p in range(1, tokens.size) if sizes[p] == lengths[tokens[p]] > 0 and tokens[p] != BOS)
    return Stream(tokens, sizes, lengths, plain, editable, world)


def _length(piece: str) -> int:
    if re.fullmatch(r"<0x[0-9A-F]{2}>", piece):
        return 1
    if re.fullmatch(r"<(pad|s|/s|unk|unused_\d+)>", piece) or "\ue001" <= piece <= "\ue004":
        return 0
    return len(piece.replace("\u2581", " ").encode("utf-8"))


# -- the runs --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Branch:
    """One run: its name, where it branches off, and the tokens it puts in place of others."""

    id: str
    late: bool
    tokens: Mapping[int, int] = field(default_factory=dict)
    length: int | None = None


def first_branches(stream: Stream) -> list[Branch]:
    """The runs that every evaluation probe looks at."""
    tested = tested_positions(stream)
    found = [Branch("base", late=False), Branch("repeat", late=False)]
    # Last first: if time runs out, the changes that most comes before are the ones that were made.
    found += [Branch(f"early-{p}", late=False, tokens={p: stream.other(p)}) for p in reversed(tested)]
    found += [Branch("late-base", late=True), Branch("late-repeat", late=True)]
    middle = tested[len(tested) // 2]
    found.append(Branch(f"late-{middle}", late=True, tokens={middle: stream.other(middle)}))
    for bit in range(BITS):
        edits = {p: stream.other(p, bit + 1) for p in stream.editable if (p + 1) >> bit & 1}
        found.append(Branch(f"bit-{bit}", late=True, tokens=edits))
    for token in tried_tokens(stream):
        found.append(Branch(f"last-{token}", late=True, tokens={stream.last: token}))
    found.append(Branch("short", late=True, length=stream.last))
    return found


def tested_positions(stream: Stream) -> list[int]:
    """Positions all over the stream whose token is changed before anything has seen it; the last one is among them."""
    inner = [p for p in stream.editable if stream.tokens[min(p + 1, stream.last)] != BOS]
    step = len(inner) / (TESTED - 1)
    return sorted({inner[int(i * step + step / 2)] for i in range(TESTED - 1)} | {stream.last})


def tried_tokens(stream: Stream) -> list[int]:
    """Some tokens to put at the last position: of all kinds but control tokens."""
    others = [t for t in range(stream.lengths.size) if stream.lengths[t] > 0 and t != stream.tokens[stream.last]]
    return sorted(random.Random(11).sample(others, TRIED))


def all_tokens(stream: Stream) -> tuple[list[Branch], list[Branch]]:
    """Every token of the vocabulary at the last position: first those that the stream holds or that begin likewise."""
    true = int(stream.tokens[stream.last])
    begins = _first_byte(stream.world.pieces[true])
    seen = set(stream.tokens.tolist()) - {BOS}
    likely: list[Branch] = []
    others: list[Branch] = []
    for token, piece in enumerate(stream.world.pieces):
        if token == true:
            continue
        first = token in seen or (stream.lengths[token] > 0 and _first_byte(piece) == begins)
        (likely if first else others).append(Branch(f"all-{token}", late=True, tokens={stream.last: token}))
    return likely, others


def _first_byte(piece: str) -> int:
    byte = re.fullmatch(r"<0x([0-9A-F]{2})>", piece)
    return int(byte[1], 16) if byte else piece.replace("\u2581", " ").encode("utf-8")[0]


# -- what came out ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """One run: the reported figures, and what was accumulated on the way, in order of time.

    ``values`` are the summands of each accumulator, ``parts`` the elements of those summands that are sums of a
    tensor; the ``_pieces`` say how many belong to each addition.
    """

    id: str
    loss: float | None
    bpb: float | None
    line: str
    values: Mapping[str, Floats]
    parts: Mapping[str, Floats]
    pieces: Mapping[str, Ints]
    error: str | None = None
    steps: int = 0
    """Optimiser steps within the reported evaluation."""

    @property
    def ok(self) -> bool:
        """Whether it got to the reported number."""
        return self.error is None and self.bpb is not None


@dataclass(frozen=True)
class Account:
    """What the reported number is made of: the names of the accumulators of losses, tokens and bytes.

    ``elements`` is where the losses of single tokens are seen, None if only their sums are.
    """

    losses: str
    count: str
    bytes: str | None
    elements: str | None


class Outcomes:
    """All runs of one submission, and what they have in common."""

    def __init__(self, stream: Stream, runs: Mapping[str, Outcome], summary: Mapping[str, Any]) -> None:
        self.stream = stream
        self.runs = dict(runs)
        self.summary = summary

    def get(self, name: str) -> Outcome | None:
        """A run that got to the reported number; None otherwise."""
        run = self.runs.get(name)
        return run if run is not None and run.ok else None

    def why_not(self, name: str) -> str:
        """What stopped a run."""
        run = self.runs.get(name)
        if run is None:
            return f"the run {name} was not made"
        return run.error or "no bits per byte were printed"

    @cached_property
    def late(self) -> bool | None:
        """Whether tokens changed late do what tokens changed early do; None if that could not be compared.

        False where validation tokens were used before the reported evaluation, or lie where they were not found.
        """
        for name, run in self.runs.items():
            early = self.get(f"early-{name.removeprefix('late-')}") if name.startswith("late-") else None
            if early is not None:
                return _near(early.bpb, run.bpb) if run.ok else None
        return None

    @cached_property
    def noise(self) -> float:
        """Largest difference of the reported number, in nats per token or bits per byte, between unchanged runs."""
        worst = 0.0
        for one, other in (("base", "repeat"), ("late-base", "late-repeat")):
            a, b = self.get(one), self.get(other)
            if a is not None and b is not None:
                worst = max(worst, abs((a.bpb or 0.0) - (b.bpb or 0.0)), _most(self.losses(a), self.losses(b)))
        return worst

    @property
    def tolerance(self) -> float:
        """A change of a loss beyond this is no rounding: far above the noise, and above 1e-5 nats."""
        return max(1e-5, 20 * self.noise)

    @cached_property
    def account(self) -> Account | None:
        """Which accumulators the reported number is made of, if they were seen."""
        base = self.get("base")
        return find_account(base) if base is not None else None

    @cached_property
    def scored(self) -> float:
        """How many targets the reported number is a mean of."""
        base = self.get("base")
        if self.account is not None and base is not None:
            return float(base.values[self.account.count].sum())
        return float(self.stream.last)

    def losses(self, run: Outcome) -> Floats:
        """The loss of every scored element, or of every addition, in order of time."""
        account = self.account
        if account is None:
            return np.zeros(0)
        return run.parts.get(account.elements, np.zeros(0)) if account.elements else run.values[account.losses]

    def times(self, run: Outcome) -> Ints:
        """For each of :meth:`losses`, which addition it came with."""
        account = self.account
        if account is None:
            return np.zeros(0, dtype=np.int64)
        if account.elements is None:
            return np.arange(run.values[account.losses].size)
        return np.repeat(np.arange(run.pieces[account.elements].size), run.pieces[account.elements])

    @cached_property
    def aligned(self) -> bool:
        """Whether each element's bytes were seen beside its loss."""
        account, base = self.account, self.get("base")
        if account is None or base is None or account.bytes is None or account.elements is None:
            return False
        return account.bytes in base.parts and base.parts[account.bytes].size == self.losses(base).size

    @cached_property
    def positions(self) -> Ints | None:
        """For each of :meth:`losses`, the position of its target; -1 where it has none or is not known."""
        base = self.get("late-base")
        if not self.aligned or base is None or self.account is None or self.account.bytes is None:
            return None
        name = self.account.bytes
        codes = np.zeros(base.parts[name].size, dtype=np.int64)
        for bit in range(BITS):
            run = self.get(f"bit-{bit}")
            if run is None or run.parts.get(name, np.zeros(0)).size != codes.size:
                return None
            codes |= (run.parts[name] != base.parts[name]).astype(np.int64) << bit
        places = codes - 1
        known = np.isin(places, self.stream.editable)
        return np.where(known, places, -1)

    @cached_property
    def ranges(self) -> tuple[Ints, Ints] | None:
        """The first and last position of each addition, where only sums are seen and each is of neighbours."""
        base, account = self.get("late-base"), self.account
        if base is None or account is None or account.bytes is None or account.elements is not None:
            return None
        counts, sizes = base.values[account.count], base.values[account.bytes]
        if counts.size != base.values[account.losses].size or sizes.size != counts.size:
            return None
        gains: list[tuple[Floats, Floats]] = []
        for branch in first_branches(self.stream):
            run = self.get(branch.id) if branch.id.startswith("bit-") else None
            if run is None or run.values[account.bytes].size != sizes.size:
                continue
            each = np.zeros(self.stream.last + 2)
            for place, token in branch.tokens.items():
                each[place + 1] = self.stream.lengths[token] - self.stream.sizes[place]
            gains.append((np.cumsum(each), run.values[account.bytes] - sizes))
        if len(gains) < BITS:
            return None
        first = np.full(sizes.size, -1)
        last = np.full(sizes.size, -1)
        for index, count in enumerate(counts.astype(int)):
            starts = np.arange(1, self.stream.last + 2 - count)
            fits = np.ones(starts.size, dtype=bool)
            for total, gain in gains:
                fits &= np.abs(total[starts + count] - total[starts] - gain[index]) < 0.01
            if count > 0 and fits.sum() == 1:
                first[index] = starts[np.flatnonzero(fits)[0]]
                last[index] = first[index] + count - 1
            elif count > 0:
                return None
        return first, last

    def size(self, run: Outcome) -> float | None:
        """The bytes that the reported number is a quotient by, from the run's own accumulator or from its figures."""
        if self.account is not None and self.account.bytes is not None:
            return float(run.values[self.account.bytes].sum())
        if run.loss is not None and run.bpb:
            return run.loss / math.log(2) / run.bpb * self._count(run)
        return None

    def _count(self, run: Outcome) -> float:
        return self.scored - 1 if run is self.get("short") else self.scored

    def total(self, run: Outcome) -> float | None:
        """The sum of all losses in nats that the reported number stands for."""
        if self.account is not None:
            return float(run.values[self.account.losses].sum())
        return run.loss * self._count(run) if run.loss is not None else None

    @cached_property
    def reach(self) -> int | None:
        """The last position whose bytes are counted, if all positions up to it are counted once and none after it."""
        base = self.get("late-base")
        whole = self.size(base) if base is not None else None
        if base is None or whole is None:
            return None
        seen: list[tuple[Mapping[int, int], float]] = []
        for branch in first_branches(self.stream):
            run = self.get(branch.id) if branch.id.startswith("bit-") else None
            size = self.size(run) if run is not None else None
            if size is not None:
                seen.append((branch.tokens, size - whole))
        if len(seen) < BITS:
            return None
        for end in range(self.stream.last, 0, -1):
            if all(abs(gain - self.stream.gain(tokens, end)) < 0.01 for tokens, gain in seen):
                return end
        return None


@dataclass(frozen=True)
class Counted:
    """Which positions the reported number is made of, up to ``end``, the last one. ``how`` that was seen."""

    end: int
    missing: tuple[int, ...]
    repeated: Mapping[int, int]
    bytes: float
    """Of the text at the counted positions."""
    how: str
    trials: int


def counted(outcomes: Outcomes) -> Counted | str:
    """Which positions count; or why that is not known."""
    stream = outcomes.stream
    trials = sum(1 for bit in range(BITS) if outcomes.get(f"bit-{bit}") is not None)
    if trials < BITS:
        broken = next(f"bit-{bit}" for bit in range(BITS) if outcomes.get(f"bit-{bit}") is None)
        return f"the run {broken} did not get to the reported number: {outcomes.why_not(broken)}"
    positions, times = outcomes.positions, dict[int, int]()
    how = "seen where single losses are added up"
    if positions is None and outcomes.ranges is not None:
        positions = np.concatenate([np.arange(a, b + 1) for a, b in zip(*outcomes.ranges, strict=True) if a >= 0])
        how = "seen where losses are added up"
    if positions is not None:
        for place in positions[positions >= 0].tolist():
            times[place] = times.get(place, 0) + 1
        missing = tuple(p for p in stream.editable if p not in times)
        end = max(times, default=0)
        held = sum(int(stream.sizes[p]) * times.get(p, 0 if p in missing else 1) for p in range(1, end + 1))
        repeated = {p: k for p, k in times.items() if k > 1}
        return Counted(end, missing, repeated, float(held), how, trials)
    base = outcomes.get("late-base")
    whole = outcomes.size(base) if base is not None else None
    sizes = [outcomes.size(run) for bit in range(BITS) if (run := outcomes.get(f"bit-{bit}")) is not None]
    if whole is None or any(size is None for size in sizes):
        return "loss and bits per byte are not both known"
    if all(abs((size or 0.0) - whole) < 0.01 for size in sizes):
        return "what the reported number is divided by does not depend on the validation text"
    if outcomes.reach is None:
        return "the bytes that the reported number is divided by change by what fits no beginning of the stream"
    held = int(stream.sizes[1 : outcomes.reach + 1].sum())
    missing = tuple(p for p in stream.editable if p > outcomes.reach)
    return Counted(outcomes.reach, missing, {}, float(held), "seen in the bytes of the reported number", trials)


def find_account(run: Outcome) -> Account | None:
    """The accumulators whose quotients are the printed figures; None if there are none."""
    if run.bpb is None:
        return None
    sums = {name: float(values.sum()) for name, values in run.values.items()}
    whole = [name for name, values in run.values.items() if np.all(values >= 0) and np.all(values == np.round(values))]
    for losses, total in sums.items():
        for count in whole:
            if not sums[count] or losses == count or losses in whole:
                continue
            mean = total / sums[count]
            if run.loss is not None and not _near(mean, run.loss):
                continue
            for size in whole:
                if size != count and sums[size] and _near(mean / math.log(2) * sums[count] / sums[size], run.bpb):
                    return Account(losses, count, size, _elements(run, losses, count))
            if run.loss is not None:
                return Account(losses, count, None, _elements(run, losses, count))
    return None


def _elements(run: Outcome, losses: str, count: str) -> str | None:
    """Where the elements are seen that add up to each addition to ``losses``."""
    values, counts = run.values[losses], run.values[count]
    for name in (losses, "cross_entropy"):
        parts, pieces = run.parts.get(name), run.pieces.get(name)
        if parts is None or pieces is None or pieces.size != values.size or parts.size == 0:
            continue
        sums = np.add.reduceat(parts, np.concatenate([[0], np.cumsum(pieces)[:-1]])) if np.all(pieces > 0) else None
        if sums is None:
            continue
        if np.allclose(sums, values, rtol=1e-4, atol=1e-4):
            return name
        if counts.size == pieces.size and np.allclose(sums / pieces * counts, values, rtol=1e-4, atol=1e-4):
            return name
    return None


def _near(one: float | None, other: float | None) -> bool:
    return one is not None and other is not None and abs(one - other) <= EXACT * max(1.0, abs(other))


def _most(one: Floats, other: Floats) -> float:
    return float(np.abs(one - other).max()) if one.size and one.size == other.size else 0.0


# -- doing it --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """What static reading says about the reported number: how its line looks, and which evaluation makes it."""

    pattern: str
    key: str | None
    function: str | None
    observed: tuple[str, ...]

    @classmethod
    def of(cls, reading: Reading) -> Target | None:
        """None if no printed line is known."""
        reported = reading.reported
        text = reported.metric.text if reported.metric is not None else None
        label = reported.log
        pattern = _line_pattern(text, label.label if label is not None and reported.in_log else None)
        if pattern is None:
            return None
        frame = reported.function
        function = _name(frame) if frame is not None else None
        observed: dict[str, None] = {function: None} if function else {}
        for score in reported.scores:
            observed.update(dict.fromkeys(map(_name, score.own_frames)))
        return cls(pattern, label.key if label is not None else None, function, tuple(observed))


def _name(frame: CallFrame) -> str:
    return frame.function.rpartition(".")[2]


def _line_pattern(text: str | None, label: str | None) -> str | None:
    if text is not None:
        line = max(text.split("\n"), key=len)
        known = line.split(HOLE)
        if sum(c.isalnum() for piece in known for c in piece) >= 3:
            return ".*?".join(re.escape(re.sub(r"\s+", " ", piece)) for piece in known).replace(r"\ ", r"\s+")
    if label:
        return re.escape(label).replace(r"\ ", r"\s+") + r".*?\d"
    return None


def job(
    target: Target,
    stream: Stream,
    branches: Sequence[Branch],
    *,
    reported_call: tuple[int, int] | None = None,
    seconds: float,
    run_seconds: float = 60.0,
) -> dict[str, Any]:
    """What the driver is told."""
    world = stream.world
    sidecars = sorted(world.dataset.glob("fineweb_val_bytes_*.bin"))
    return {
        "tokens": stream.tokens.tolist(),
        "sizes": stream.sizes.tolist(),
        "shards": [str(path.relative_to(world.root)) for path in world.val_files],
        "sidecars": [str(path.relative_to(world.root)) for path in sidecars],
        "pattern": target.pattern,
        "function": target.function,
        "observed": list(target.observed),
        "reported_call": list(reported_call) if reported_call else None,
        "seconds": seconds,
        "run_seconds": run_seconds,
        "runs": [
            {
                "id": b.id,
                "late": b.late,
                "tokens": {str(p): int(t) for p, t in b.tokens.items()},
                "sizes": {str(p): int(stream.lengths[t]) for p, t in b.tokens.items()},
                "length": b.length,
            }
            for b in branches
        ],
    }


def read_outcomes(summary: Mapping[str, Any], folder: Path, stream: Stream, target: Target) -> Outcomes:
    """What the driver returned, and left in its output folder."""
    runs = summary.get("runs")
    found = {
        str(name): _outcome(str(name), raw, folder, target)
        for name, raw in (runs.items() if isinstance(runs, dict) else ())
        if isinstance(raw, dict) and re.fullmatch(r"[\w-]+", str(name))
    }
    return Outcomes(stream, found, summary)


def _outcome(name: str, raw: Mapping[str, Any], folder: Path, target: Target) -> Outcome:
    values: dict[str, Floats] = {}
    parts: dict[str, Floats] = {}
    pieces: dict[str, Ints] = {}
    path = folder / f"{name}.npz"
    if not path.is_symlink() and path.exists() and path.stat().st_size < MAX_RESULT:
        try:
            with np.load(path, allow_pickle=False) as stored:
                for key in stored.files:
                    kind, _, what = key.partition("|")
                    if kind == "value":
                        values[what] = stored[key].astype(np.float64)
                    elif kind == "part":
                        parts[what] = stored[key].astype(np.float64)
                    elif kind == "part-sizes":
                        pieces[what] = stored[key].astype(np.int64)
        except (OSError, ValueError):
            pass
    lines = raw.get("reported") or [""]
    line = str(lines[-1])
    metrics = list(line_metrics(line, 1))
    metric = next((m for m in reversed(metrics) if m.key == target.key), metrics[-1] if metrics else None)
    error = raw.get("error")
    return Outcome(
        id=name,
        loss=float(metric.loss_text) if metric is not None and metric.loss_text else None,
        bpb=float(metric.bpb_text) if metric is not None else None,
        line=line,
        values=values,
        parts=parts,
        pieces=pieces,
        error=describe(error) if error else None,
        steps=int(raw.get("steps") or 0),
    )


def describe(error: Mapping[str, Any]) -> str:
    """What a run stopped at, in one sentence."""
    where = f" (line {error['line']}, in {error.get('function')})" if error.get("line") else ""
    kind = f"{error['exception']}: " if error.get("exception") else ""
    return f"{kind}{str(error.get('message'))[:300]}{where}"
