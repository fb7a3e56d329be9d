"""Reads a SentencePiece model file: its pieces and how it normalises text.

The file is a protocol buffer (sentencepiece_model.proto of google/sentencepiece); only the few fields that rules ask
about are read, by their numbers. Any other bytes give None.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

MAX_BYTES = 32 * 1024 * 1024
MAX_PIECES = 400_000
MARK = "\u2581"

# ModelProto: pieces = 1, normalizer_spec = 3. SentencePiece: piece = 1, type = 3.
# NormalizerSpec: name = 1, precompiled_charsmap = 2, add_dummy_prefix = 3, remove_extra_whitespaces = 4,
# normalization_rule_tsv = 6.
_PIECES, _NORMALIZER = 1, 3
_BYTE_TYPE = 6


@dataclass(frozen=True)
class SentencePieceModel:
    """What a model file says. ``normalizer`` is the name of its rule set: identity, nfkc, nmt_nfkc, ..._cf."""

    pieces: tuple[str, ...]
    byte_pieces: int
    normalizer: str
    has_charsmap: bool
    """Whether it carries a compiled map of characters (every rule set but identity has one)."""
    removes_extra_whitespaces: bool
    own_rules: bool
    """Whether it was trained with a rule file of its own."""

    @property
    def has_space_piece(self) -> bool:
        """Whether the mark of a space is a piece of its own: without one it becomes three byte tokens."""
        return MARK in self.pieces

    @property
    def uppercase(self) -> int:
        """How many pieces hold an uppercase letter: a tokenizer of casefolded text has next to none."""
        return sum(1 for p in self.pieces if not p.startswith("<") and any(c.isupper() for c in p))


def read_sentencepiece(data: bytes) -> SentencePieceModel | None:
    """The model in ``data``, or None where it is none. Never raises."""
    if len(data) > MAX_BYTES:
        return None
    try:
        return _read(data)
    except (_NotOne, IndexError):
        return None


class _NotOne(Exception):
    pass


def _read(data: bytes) -> SentencePieceModel | None:
    pieces: list[str] = []
    normalizer, charsmap, whitespace, own = "", False, True, False
    at = _plain_pieces(data, pieces)
    byte_pieces = sum(1 for p in pieces if len(p) == 6 and p.startswith("<0x"))
    for number, value in _fields(data[at:]):
        if number == _PIECES and isinstance(value, bytes):
            if len(pieces) >= MAX_PIECES:
                raise _NotOne
            text, kind = "", 1
            for inner, part in _fields(value):
                if inner == 1 and isinstance(part, bytes):
                    text = part.decode("utf-8", "replace")
                elif inner == 3 and isinstance(part, int):
                    kind = part
            pieces.append(text)
            byte_pieces += kind == _BYTE_TYPE
        elif number == _NORMALIZER and isinstance(value, bytes):
            for inner, part in _fields(value):
                if inner == 1 and isinstance(part, bytes):
                    normalizer = part.decode("utf-8", "replace")
                elif inner == 2 and isinstance(part, bytes):
                    charsmap = bool(part)
                elif inner == 4 and isinstance(part, int):
                    whitespace = bool(part)
                elif inner == 6 and isinstance(part, bytes):
                    own = bool(part)
    if len(pieces) < 16:
        return None
    return SentencePieceModel(tuple(pieces), byte_pieces, normalizer, charsmap, whitespace, own)


def _plain_pieces(data: bytes, pieces: list[str]) -> int:
    """Reads the pieces at the beginning as the library writes them, and returns where it stopped.

    Each is a tag, a length and then tag, length and text, tag and score (5 bytes) and, if not normal, tag and type.
    This is the general reading of :func:`_fields` without its cost, as a model has thousands of them.
    """
    at, end = 0, len(data) - 136
    while at < end and data[at] == 0x0A and data[at + 1] < 0x80 and data[at + 2] == 0x0A:
        size, text = data[at + 1], data[at + 3]
        rest = size - text - 7
        if text >= 0x80 or data[at + 4 + text] != 0x15 or rest not in (0, 2) or len(pieces) >= MAX_PIECES:
            break
        pieces.append(data[at + 4 : at + 4 + text].decode("utf-8", "replace"))
        at += 2 + size
    return at


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message: numbers with their values, as integers or bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield number, value
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
            if at > len(data):
                raise _NotOne
        elif kind == 2:
            length, at = _varint(data, at)
            if length > len(data) - at:
                raise _NotOne
            yield number, data[at : at + length]
            at += length
        else:
            raise _NotOne


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise _NotOne
