"""Byte tables worked out for made-up pieces, and SentencePiece model files."""

from __future__ import annotations

import ast

import pytest

from auditor.index.piece_bytes import piece_readers, piece_tables
from auditor.index.program_index import ProgramIndex
from auditor.unpack import Program
from auditor.unpack.sentencepiece_model import read_sentencepiece

CANONICAL = """
YES = True


def tables(sp, vocab_size, device):
    n = int(sp.vocab_size())
    base = np.zeros((max(n, vocab_size),), dtype=np.int16)
    space = np.zeros((max(n, vocab_size),), dtype=np.bool_)
    for i in range(n):
        if sp.is_control(i) or sp.is_unknown(i) or sp.is_unused(i):
            continue
        if sp.is_byte(i):
            base[i] = 1
            continue
        piece = sp.id_to_piece(i)
        if piece.startswith("\u2581"):
            space[i] = YES
            piece = piece[1:]
        base[i] = len(piece.encode("utf-8"))
    return torch.tensor(base, device=device), torch.tensor(space, device=device)
"""
LISTED = """
def tables(sp, size):
    return [len(sp.id_to_piece(i).replace("\u2581", " ").encode()) for i in range(size)]
"""


def _found(text: str) -> list[tuple[int, int, int, int, bool]]:
    index = ProgramIndex(Program("train_gpt.py", text, ast.parse(text), "shipped", (), None, None, False))
    return [
        (t.word, t.plain, t.byte, t.control, t.marks_space)
        for facts in piece_readers(index)
        for t in piece_tables(index, facts)
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (CANONICAL, (3, 3, 1, 0, True)),
        (CANONICAL.replace("piece[1:]", "piece[1:] + ' '"), (4, 3, 1, 0, True)),
        (CANONICAL.replace('startswith("\u2581")', 'startswith("_")'), (6, 3, 1, 0, False)),
        (CANONICAL.replace("sp.is_byte(i)", "False"), (3, 3, 6, 0, True)),
        (LISTED, (4, 3, 6, 3, False)),
    ],
)
def test_tables(text: str, expected: tuple[int, int, int, int, bool]) -> None:
    assert _found(text) == [expected]


def test_what_does_not_fit_is_left_alone() -> None:
    for body in ("while True: pass", "sp.id_to_piece(10**9)", "x = [sp.id_to_piece(i) for i in range(10**9)]", "1 / 0"):
        assert _found(f"def f(sp):\n    sp.id_to_piece(0)\n    {body}\n") == []
    assert _found(CANONICAL.replace("range(n)", "range(10**12)"))  # goes over the toy vocabulary only


def _piece(text: str, kind: int | None = None) -> bytes:
    raw = text.encode()
    body = b"\x0a" + bytes([len(raw)]) + raw + b"\x15\0\0\0\0" + (bytes([0x18, kind]) if kind else b"")
    return b"\x0a" + bytes([len(body)]) + body


def _model(pieces: list[bytes], name: str) -> bytes:
    spec = b"\x0a" + bytes([len(name)]) + name.encode() + b"\x12\x03abc"
    return b"".join(pieces) + b"\x12\x00" + b"\x1a" + bytes([len(spec)]) + spec


def test_sentencepiece_model() -> None:
    words = [_piece(f"word{i}") for i in range(40)] + [_piece("Upper"), _piece("\u2581"), _piece("<0x0A>", 6)]
    model = read_sentencepiece(_model([_piece("<unk>", 2), *words], "nmt_nfkc"))
    assert model is not None
    assert (len(model.pieces), model.byte_pieces, model.normalizer, model.has_charsmap) == (44, 1, "nmt_nfkc", True)
    assert model.has_space_piece and model.uppercase == 1
    without = read_sentencepiece(_model(words[:40], "identity"))
    assert without is not None and not without.has_space_piece


@pytest.mark.parametrize("data", [b"", b"\x0a", b"\x0a\xff", b"not a model at all" * 20, b"\x0a\x03\x0a\x01a" * 4])
def test_other_bytes_are_no_model(data: bytes) -> None:
    assert read_sentencepiece(data) is None
