"""Every figure a submission claims: submission.json and the README's tables, each with its place.

Only tables with a row (or a column) per seed, or one for their mean, are read: other tables compare, ablate or explain.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Literal

from pydantic import Field

from auditor.runconfig.claim import Claim
from auditor.runconfig.launches import Document, Table
from auditor.submission import RecordFolder
from auditor.text import decimal, decimals
from auditor.verdict import Frozen

Quantity = Literal["bpb", "nats", "bytes", "steps", "time", "other"]
Role = Literal["headline", "seed", "mean", "std"]

MAX_TABLES = 60
_SEED_CELL = re.compile(r"(?i)^\W*(?:seed|s|run)?\W{0,3}(\d{1,10})\W*(?:\((?:[^)]*)\))?\W*$")
_SEED_WORD = re.compile(r"(?i)\bseeds?\b")
_MEAN = re.compile(r"(?i)^\W*(?:(?:\d|three|five)[- ]?seed\s+)?(?:mean|avg|average|μ)\b")
_STD = re.compile(r"(?i)^\W*(?:sample |population |pop\.? )?(?:std|stdev|\u03c3|s\.?d\.?|standard dev)")
_BPB = re.compile(r"(?i)bpb|bits[ /_-]?(?:per[ _-])?byte")
_NATS = re.compile(r"(?i)\bnats?\b|\bloss\b|val_loss|\bnll\b|\bce\b")
_BYTES = re.compile(r"(?i)artifact|size|bytes|\bmb\b|total")
_STEPS = re.compile(r"(?i)\bsteps?\b(?!.*(?:ms|avg|time|/))")
_TIME = re.compile(r"(?i)time|\bms\b|\bsec|\bs\b|duration|wall")
_DIFFERENCE = re.compile(
    r"(?i)Δ|delta|gain|improve|diff|vs\.?\b|gap|baseline|prior|previous|\bsota\b|±|std|\u03c3|cost"
)
_NUMBER = re.compile(r"(?<![\w.])(-?\d[\d,]*(?:\.\d+)?)(?![\w.]*\d)")
_PLUS_MINUS = re.compile(r"(?:±|\+/-|\+-)\s*(\d*\.\d+|\d+e-\d+)")
_OF_SCORE = re.compile(r"(?i)bpb|loss|nat|score")
_STD_KEY = re.compile(r"(?i)(?:^|_)(?:std|stdev|stddev|sigma|sd)(?:_|$)")


class ClaimedFigure(Frozen):
    """One number as claimed. ``column`` is the key or table heading it stands under; ``text`` as written.

    ``seed`` is None for a headline, a mean or a standard deviation. Units are as written: bits per byte, nats per
    token, bytes, steps.
    """

    quantity: Quantity
    role: Role
    value: Decimal
    text: str
    column: str
    seed: int | None = None
    file: str
    line: int = Field(ge=1)


class ClaimedFact(Frozen):
    """A yes or no in submission.json, such as "three_seeds": true. ``name`` in lower case."""

    name: str
    value: bool
    file: str
    line: int = Field(ge=1)


class Claims(Frozen):
    """All claims of a record folder. ``tables`` groups the README's figures: one tuple for each column of a table."""

    submission: tuple[ClaimedFigure, ...] = ()
    tables: tuple[tuple[ClaimedFigure, ...], ...] = ()
    facts: tuple[ClaimedFact, ...] = ()

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that any figure is claimed for, in order of appearance."""
        figures = [*self.submission, *(f for column in self.tables for f in column)]
        return tuple(dict.fromkeys(f.seed for f in figures if f.seed is not None))


def read_claims(folder: RecordFolder, claim: Claim, documents: tuple[Document, ...]) -> Claims:
    """The claims of a folder. Never raises on its content."""
    tables: list[tuple[ClaimedFigure, ...]] = []
    depth = min((d.file.count("/") for d in documents), default=0)
    for document in documents:
        if document.file.count("/") == depth:
            for table in document.tables[:MAX_TABLES]:
                tables.extend(_columns(document.file, table))
    return Claims(submission=tuple(_of_json(claim)), tables=tuple(t for t in tables if t), facts=tuple(_facts(claim)))


def _of_json(claim: Claim) -> Iterator[ClaimedFigure]:
    if claim.file is None:
        return
    if claim.val_bpb is not None and claim.val_bpb_key is not None:
        yield ClaimedFigure(
            quantity="bpb", role="headline", value=claim.val_bpb, text=str(claim.val_bpb), column=claim.val_bpb_key,
            file=claim.file, line=claim.val_bpb_line or 1,
        )  # fmt: skip
    lines = claim.text.split("\n")
    for own in claim.per_seed:
        for key, value in own.values.items():
            at = _line_with(lines, str(value), claim.line_of(key))
            yield ClaimedFigure(
                quantity="bpb", role="seed", value=value, text=str(value), column=key, seed=own.seed, file=claim.file,
                line=at,
            )  # fmt: skip
        if own.val_loss is not None:
            yield ClaimedFigure(
                quantity="nats", role="seed", value=own.val_loss, text=str(own.val_loss), column="val_loss",
                seed=own.seed, file=claim.file, line=_line_with(lines, str(own.val_loss), 1),
            )  # fmt: skip
    for key, raw in _walk(claim.raw):
        number = decimal(raw) if isinstance(raw, Decimal | float) else None
        if number is not None and _STD_KEY.search(key) and (_OF_SCORE.search(key) or key == "std") and 0 <= number < 1:
            quantity: Quantity = "nats" if "loss" in key.lower() or "nat" in key.lower() else "bpb"
            yield ClaimedFigure(
                quantity=quantity, role="std", value=number, text=str(number), column=key, file=claim.file,
                line=_line_with(lines, str(number), claim.line_of(key)),
            )  # fmt: skip


def _facts(claim: Claim) -> Iterator[ClaimedFact]:
    for key, value in _walk(claim.raw):
        if isinstance(value, bool) and claim.file is not None:
            yield ClaimedFact(name=key.lower(), value=value, file=claim.file, line=claim.line_of(key))


def _line_with(lines: list[str], text: str, otherwise: int) -> int:
    return next((i for i, line in enumerate(lines, 1) if text in line), otherwise)


def _walk(raw: Any, depth: int = 0) -> Iterator[tuple[str, Any]]:
    if isinstance(raw, dict) and depth < 8:
        for key, value in raw.items():
            yield str(key), value
            yield from _walk(value, depth + 1)
    elif isinstance(raw, list) and depth < 8:
        for item in raw[:200]:
            yield from _walk(item, depth + 1)


def _columns(file: str, table: Table) -> Iterator[tuple[ClaimedFigure, ...]]:
    """The columns (or rows, if the seeds run across) of a table about seeds."""
    if len(table.rows) < 2:
        return
    header = table.rows[0]
    seeds_below = _SEED_WORD.search(header[0] if header else "") or any(
        _SEED_WORD.search(r[0]) and _SEED_CELL.match(r[0]) for r in table.rows[1:] if r
    )
    across = {i: int(m[1]) for i, h in enumerate(header) if i and _SEED_WORD.search(h) and (m := _SEED_CELL.match(h))}
    if across and not seeds_below:
        for row, line in zip(table.rows[1:], table.lines[1:], strict=False):
            if row:
                yield tuple(_across(file, header, row, line, across))
        return
    if not seeds_below:
        return
    for index in range(1, len(header)):
        quantity = _quantity(header[index])
        if quantity is not None:
            yield tuple(_down(file, table, index, quantity))


def _down(file: str, table: Table, index: int, quantity: Quantity) -> Iterator[ClaimedFigure]:
    for row, line in zip(table.rows[1:], table.lines[1:], strict=False):
        if len(row) <= index:
            continue
        seed, role = _row(row[0])
        yield from _cell(file, line, row[index], quantity, role, seed, table.rows[0][index])


def _across(
    file: str, header: tuple[str, ...], row: tuple[str, ...], line: int, seeds: dict[int, int]
) -> Iterator[ClaimedFigure]:
    quantity = _quantity(row[0])
    if quantity is None:
        return
    for index, cell in enumerate(row):
        if index in seeds:
            yield from _cell(file, line, cell, quantity, "seed", seeds[index], row[0])
        elif index < len(header) and _MEAN.match(header[index]):
            yield from _cell(file, line, cell, quantity, "mean", None, row[0])
        elif index < len(header) and _STD.match(header[index]):
            yield from _cell(file, line, cell, quantity, "std", None, row[0])


def _row(label: str) -> tuple[int | None, Role | None]:
    if _MEAN.match(label):
        return None, "mean"
    if _STD.match(label):
        return None, "std"
    match = _SEED_CELL.match(label)
    return (int(match[1]), "seed") if match else (None, None)


def _cell(
    file: str, line: int, cell: str, quantity: Quantity, role: Role | None, seed: int | None, column: str
) -> Iterator[ClaimedFigure]:
    if role is None or len(cell) > 120:
        return
    numbers = _NUMBER.findall(cell)
    value = decimal(numbers[0].replace(",", "")) if numbers else None
    if value is None or (quantity == "bpb" and role != "std" and (decimals(value) < 3 or not 0 < value < 10)):
        return
    yield ClaimedFigure(
        quantity=quantity, role=role, value=value, text=cell, column=column, seed=seed, file=file, line=line
    )
    spread = _PLUS_MINUS.search(cell)
    if spread and role == "mean" and (std := decimal(spread[1])) is not None:
        yield ClaimedFigure(quantity=quantity, role="std", value=std, text=cell, column=column, file=file, line=line)


def _quantity(heading: str) -> Quantity | None:
    if _DIFFERENCE.search(heading) and not re.search(r"(?i)(?:mean|bpb)\s*±", heading):
        return None
    if _BPB.search(heading):
        return "bpb"
    if _NATS.search(heading):
        return "nats"
    if _STEPS.search(heading):
        return "steps"
    if _BYTES.search(heading):
        return "bytes"
    return "time" if _TIME.search(heading) else None
