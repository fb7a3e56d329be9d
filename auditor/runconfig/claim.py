"""The claim: what submission.json says was achieved, in any of the shapes people write it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from typing import Any

from auditor.submission import RecordFolder, SubmissionFile
from auditor.text import decimal, decimals
from auditor.verdict import SettingValue

MAX_JSON_BYTES = 2 * 1024 * 1024
_MAX_DEPTH = 6

_CLAIM_KEYS = (
    "val_bpb",
    "mean_val_bpb",
    "val_bpb_mean",
    "val_bpb_exact",
    "mean_bpb",
    "bpb_mean",
    "bpb",
    "three_seed_mean_bpb",
    "val_bpb_3seed_mean",
    "final_val_bpb",
    "best_val_bpb",
    "score",
)
_MEAN_KEYS = ("mean", "value", "avg", *_CLAIM_KEYS)
_LOSS_KEYS = ("val_loss", "mean_val_loss", "val_loss_mean", "val_loss_nats", "final_val_loss")
_NESTED = ("results", "metrics", "result", "final", "evaluation", "scores", "validation", "summary")
_SEED_KEY = re.compile(r"^(?:run[_-]?)?(?:seed|s)?[_ -]?(\d{1,10})$", re.I)
_SEED_SUFFIX = re.compile(r"^(?:val_)?bpb_?(?:seed|s)_?(\d{1,10})$|^seed_?(\d{1,10})_(?:val_)?bpb$", re.I)
_CONTAINER = re.compile(r"seed|per_run|\bruns\b|trials", re.I)
_BPB_KEY = re.compile(r"bpb|bits_per_byte|^score$", re.I)
_LEADING_NUMBER = re.compile(r"^\s*[~≈]?\s*(\d+\.\d+)")
_PAIR = re.compile(
    r'"(\w{1,60})"\s*:\s*("(?:[^"\\\n]|\\.){0,4000}"|-?\d[\d_]*(?:\.\d+)?(?:[eE][-+]?\d+)?|true|false|null)'
)
_SECTION_KEYS = re.compile(
    r"^(?:(?:hyper)?-?param(?:eter)?s?|hparams|(?:\w+_)?config(?:uration)?|env(?:ironment)?(?:_variables|_vars)?|"
    r"args|settings|training|train|model|architecture|ttt|run|flags|overrides|key_hyperparameters)$",
    re.I,
)
_COMMAND_KEY = re.compile(r"command|\bcmd\b|launch|reproduc|run_with|how_to_run", re.I)


@dataclass(frozen=True)
class SeedClaim:
    """What is claimed for one seed. ``values`` holds every bits-per-byte figure given for it, by its key."""

    seed: int | None
    values: Mapping[str, Decimal]
    val_loss: Decimal | None = None


@dataclass(frozen=True)
class Claim:
    """The claim of a record folder.

    ``val_bpb`` keeps the digits as written. ``problem`` says what was wrong with the file, when it was read
    only in part or not at all. ``raw`` is the parsed object ({} when there is none).
    """

    file: str | None = None
    val_bpb: Decimal | None = None
    val_bpb_key: str | None = None
    val_bpb_line: int | None = None
    val_loss: Decimal | None = None
    name: str | None = None
    seeds: tuple[int, ...] = ()
    per_seed: tuple[SeedClaim, ...] = ()
    problem: str | None = None
    raw: Mapping[str, Any] = field(default_factory=dict)
    text: str = field(default="", repr=False)

    @property
    def left_open(self) -> bool:
        """Whether submission.json has a place for the figure and leaves it empty: null, zero, or words."""
        return self.val_bpb is None and not self.per_seed and any(k in self.raw for k in _CLAIM_KEYS)

    def seed_values(self) -> tuple[tuple[int | None, Decimal], ...]:
        """The figure per seed (None = seed not told) that belongs to the headline.

        Where several are given per seed (before and after adaptation, say), the key whose mean is the
        claimed value is taken; failing that the key that holds the claimed value for some seed; failing that
        the first usual name.
        """
        keys = list(dict.fromkeys(k for claim in self.per_seed for k in claim.values))
        keys.sort(key=lambda k: _CLAIM_KEYS.index(k) if k in _CLAIM_KEYS else len(_CLAIM_KEYS))
        columns = [tuple((c.seed, c.values[k]) for c in self.per_seed if k in c.values) for k in keys]
        if self.val_bpb is not None:
            ulp = Decimal(1).scaleb(-decimals(self.val_bpb))
            for column in columns:
                mean = sum((v for _, v in column), Decimal(0)) / len(column)
                if abs(mean - self.val_bpb) <= ulp:
                    return column
            for column in columns:
                if any(abs(v - self.val_bpb) <= ulp / 2 for _, v in column):
                    return column
        return columns[0] if columns else ()

    def settings(self, names: tuple[str, ...]) -> list[SettingValue]:
        """Scalar entries named one of ``names`` (lower case): top level and configuration sections."""
        if self.file is None or self.names.isdisjoint(names):
            return []
        found: list[SettingValue] = []
        for key, value in _scalars(self.raw):
            if key.lower() in names:
                found.append(
                    SettingValue(value=_show(value), origin="submission.json", file=self.file, line=self.line_of(key))
                )
        return found

    @cached_property
    def names(self) -> frozenset[str]:
        """Names of the scalar entries, in lower case."""
        return frozenset(key.lower() for key, _ in _scalars(self.raw))

    def commands(self) -> list[tuple[str, int]]:
        """Texts of fields that hold a command line, with the line of their key."""
        found = []
        for key, value in _walk(self.raw):
            texts = value if isinstance(value, list) else [value]
            for text in texts:
                if isinstance(text, str) and ".py" in text and (_COMMAND_KEY.search(key) or "torchrun" in text):
                    found.append((text, self.line_of(key)))
        return found

    def line_of(self, key: str) -> int:
        """1-based line of the first mention of ``key`` in the file."""
        at = self.text.find(f'"{key}"')
        return self.text.count("\n", 0, at) + 1 if at >= 0 else 1


def read_claim(folder: RecordFolder) -> Claim:
    """Read the folder's submission.json. Never raises: what can't be read becomes ``problem``."""
    source = folder.file("submission.json") or _shallowest(folder)
    if source is None:
        return Claim(problem="no submission.json")
    if source.problem or source.size > MAX_JSON_BYTES:
        return Claim(file=source.path, problem=source.problem or "submission.json is too large to read")
    text = source.text
    raw, problem = parse_lenient(text)
    per_seed = tuple(_per_seed(raw))
    value, key = _first_number(raw, _CLAIM_KEYS)
    claim = Claim(
        file=source.path,
        val_bpb=value,
        val_bpb_key=key,
        val_loss=_first_number(raw, _LOSS_KEYS)[0],
        name=next((raw[k] for k in ("name", "title", "run_name") if isinstance(raw.get(k), str)), None),
        seeds=_seeds(raw, per_seed),
        per_seed=per_seed,
        problem=problem,
        raw=raw,
        text=text,
    )
    return claim if key is None else _with_line(claim, key)


def _with_line(claim: Claim, key: str) -> Claim:
    return Claim(**{**claim.__dict__, "val_bpb_line": claim.line_of(key)})


def _shallowest(folder: RecordFolder) -> SubmissionFile | None:
    files = [f for f in folder.files if f.name.lower() == "submission.json" and f.change != "deleted"]
    return min(files, key=lambda f: (f.path.count("/"), f.path), default=None)


def parse_lenient(text: str) -> tuple[dict[str, Any], str | None]:
    """Parse a JSON object that may be wrapped in other text, broken or cut off.

    Floats become Decimal so that their written digits survive. Returns the object and, where the file is not
    plain JSON, what is wrong with it; when nothing parses, the object holds the ``"key": scalar`` pairs
    found.
    """
    decoder = json.JSONDecoder(parse_float=Decimal, parse_constant=lambda _: None)
    start = text.find("{")
    if start < 0:
        return {}, "submission.json holds no JSON object"
    problem: str | None = None
    try:
        parsed, end = decoder.raw_decode(text, start)
        if text[:start].strip() or text[end:].strip():
            problem = "submission.json has text around its JSON object"
        return parsed, problem
    except (ValueError, RecursionError) as error:
        problem = f"submission.json is not valid JSON ({error})" if isinstance(error, ValueError) else "nested too deep"
    repaired = re.sub(r"(?m)^\s*//.*$", "", text[start:])
    repaired = re.sub(r",(\s*[}\]])", r"\1", repaired)
    try:
        parsed, _ = decoder.raw_decode(repaired)
        return parsed, problem
    except (ValueError, RecursionError):
        pass
    pairs: dict[str, Any] = {}
    for match in _PAIR.finditer(text[:MAX_JSON_BYTES]):
        key, value = match[1], match[2].replace("_", "") if match[2][0] in "-0123456789" else match[2]
        if key not in pairs:
            try:
                pairs[key] = json.loads(value, parse_float=Decimal)
            except ValueError:
                continue
    return pairs, problem


def _number(value: object, depth: int = 0) -> Decimal | None:
    if isinstance(value, Decimal | int | float):
        return decimal(value)
    if isinstance(value, str):
        match = _LEADING_NUMBER.match(value)
        return decimal(match[1]) if match else None
    if isinstance(value, Mapping) and depth < _MAX_DEPTH:
        return next((n for k in _MEAN_KEYS if (n := _number(value.get(k), depth + 1)) is not None), None)
    return None


def _first_number(raw: Mapping[str, Any], keys: tuple[str, ...]) -> tuple[Decimal | None, str | None]:
    for key in keys:
        number = _number(raw.get(key))
        if number is not None and number != 0:  # zero holds the place of a figure to come
            return number, key
    for section in _NESTED:
        inner = raw.get(section)
        if isinstance(inner, Mapping):
            for key in keys:
                number = _number(inner.get(key))
                if number is not None and number != 0:
                    return number, key
    return None, None


def _seed_of(key: str) -> int | None:
    match = _SEED_KEY.match(key)
    return int(match[1]) if match else None


def _seed_claim(seed: int | None, value: object) -> SeedClaim | None:
    if isinstance(value, Mapping):
        values = {
            k: n
            for k, v in value.items()
            if isinstance(k, str) and _BPB_KEY.search(k) and (n := _number(v)) is not None
        }
        return SeedClaim(seed, values, _first_number(value, _LOSS_KEYS)[0]) if values else None
    number = _number(value)
    # a seed's figure is a fraction near 1; an integer here is a count or the seed itself
    return SeedClaim(seed, {"val_bpb": number}) if number is not None and decimals(number) >= 2 else None


def _per_seed(raw: Mapping[str, Any]) -> Iterator[SeedClaim]:
    seen: set[tuple[int | None, str]] = set()

    def emit(claim: SeedClaim | None) -> Iterator[SeedClaim]:
        if claim is not None and (claim.seed, str(claim.values)) not in seen:
            seen.add((claim.seed, str(claim.values)))
            yield claim

    for key, value in raw.items():
        seed = _seed_of(key) if re.match(r"(?i)seed|s\d|run", key) else None
        if seed is not None:
            yield from emit(_seed_claim(seed, value))
        suffix = _SEED_SUFFIX.match(key)
        if suffix:
            yield from emit(_seed_claim(int(suffix[1] or suffix[2]), value))
    seeds = [s for s in raw.get("seeds", ()) if isinstance(s, int)] if isinstance(raw.get("seeds"), list) else []
    for key, value in _walk(raw):
        if isinstance(value, Mapping) and (_CONTAINER.search(key) or key in ("results", "val_bpb")):
            for inner_key, inner in value.items():
                seed = _seed_of(inner_key)
                if seed is not None:
                    yield from emit(_seed_claim(seed, inner))
        elif isinstance(value, list) and _CONTAINER.search(key):
            for index, item in enumerate(value):
                if isinstance(item, Mapping):
                    seed = item.get("seed")
                    yield from emit(_seed_claim(seed if isinstance(seed, int) else None, item))
                elif isinstance(item, Decimal):
                    yield from emit(_seed_claim(seeds[index] if len(seeds) == len(value) else None, item))


def _seeds(raw: Mapping[str, Any], per_seed: tuple[SeedClaim, ...]) -> tuple[int, ...]:
    found: list[int] = []
    listed = raw.get("seeds", raw.get("seed", ()))
    if isinstance(listed, int) and not isinstance(listed, bool):
        found.append(listed)
    elif isinstance(listed, list | tuple):
        for item in listed:
            seed = item if isinstance(item, int) else _seed_of(item) if isinstance(item, str) else None
            if seed is not None:
                found.append(seed)
    found.extend(c.seed for c in per_seed if c.seed is not None)
    return tuple(dict.fromkeys(found))


def _walk(raw: Mapping[str, Any], depth: int = 0) -> Iterator[tuple[str, Any]]:
    for key, value in raw.items():
        yield str(key), value
        if isinstance(value, Mapping) and depth < _MAX_DEPTH:
            yield from _walk(value, depth + 1)


def _scalars(raw: Mapping[str, Any], depth: int = 0) -> Iterator[tuple[str, Any]]:
    for key, value in raw.items():
        if isinstance(value, Mapping):
            if depth < _MAX_DEPTH and _SECTION_KEYS.match(str(key)):
                yield from _scalars(value, depth + 1)
        elif isinstance(value, str | int | Decimal):
            yield str(key), value


def _show(value: object) -> str:
    return value if isinstance(value, str) else str(value)
