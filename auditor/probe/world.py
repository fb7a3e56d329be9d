"""The tiny world: a tokenizer, training and validation shards as the contest has them, and the truth about them.

::

    world = build(folder, vocabulary=320, documents=[40, 7, 64, 2, 30], seed=1)
    world.tokens            # uint16, the whole validation stream, BOS (1) before each document
    world.token_bytes       # true UTF-8 bytes that each position stands for (0 at BOS)
    world.documents[1]      # start, length, text
    world.dataset           # <folder>/data/datasets/fineweb10B_sp320
    world.tokenizer         # <folder>/data/tokenizers/fineweb_320_bpe.model

The folder is mounted read-only into the sandbox, with its ``data`` visible in the script's working directory too:
submissions look for ``./data/datasets/fineweb10B_sp*/fineweb_{train,val}_*.bin``. Settings are pointed at it by
:mod:`auditor.probe.overrides`; names that a script builds by itself are passed as ``datasets`` and ``tokenizers`` and
become links. Token ids are the contest's: 0 pad, 1 BOS, 2 EOS, 3 unknown, then the 256 bytes, merges, characters. With
``caseops`` the four case operators take ids 4 to 7, capital letters are written as operator and small letter, and the
byte sidecars ``fineweb_val_bytes_*.bin`` are written beside the validation shards. Not otherwise: the pattern
``fineweb_val_*.bin`` finds them too.

What is true is known by construction: the bytes of a token come from the text that it was made from, not from a table
of pieces. Needs numpy only; the tokenizer file is written field by field and read by sentencepiece as its own.
"""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import numpy as np
import numpy.typing as npt

from auditor.probe.text import MARK, Encoder, learn, words

PAD, BOS, EOS, UNKNOWN = range(4)
TITLE, CAPITALS, CAPITAL_NEXT, ESCAPE = "\ue001", "\ue002", "\ue003", "\ue004"
OPERATORS = (TITLE, CAPITALS, CAPITAL_NEXT, ESCAPE)
DEFAULT_VOCABULARY = 320
DEFAULT_DOCUMENTS = (48, 24, 80, 12, 64, 29)
"""257 tokens: four windows of 64 and the last target."""
MAGIC, VERSION, HEADER = 20240520, 1, 256
LARGEST = 100_000
"""Most tokens of one split: the world is tiny."""

_SAMPLE_WORDS = 6000
_SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
Shard = npt.NDArray[np.uint16]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Document:
    """One validation document: ``start`` is the position of its BOS, ``length`` counts tokens with the BOS."""

    start: int
    length: int
    text: str

    @property
    def end(self) -> int:
        """One past its last position."""
        return self.start + self.length


@dataclass(frozen=True)
class World:
    """A tiny world on disk, with what is true about it."""

    root: Path
    vocabulary: int
    pieces: tuple[str, ...]
    """What each token id stands for, as the tokenizer file has it."""
    documents: tuple[Document, ...]
    tokens: Shard
    """The validation stream."""
    token_bytes: Counts
    """For each position of it, the UTF-8 bytes of the text; 0 at BOS and case operators."""
    caseops: bool
    val_shards: int = 1

    @property
    def dataset(self) -> Path:
        """The folder of the shards."""
        return self.root / "data" / "datasets" / f"fineweb10B_sp{self.vocabulary}"

    @property
    def tokenizer(self) -> Path:
        """The tokenizer file."""
        return self.root / "data" / "tokenizers" / f"fineweb_{self.vocabulary}_bpe.model"

    @property
    def val_files(self) -> tuple[Path, ...]:
        """The validation shards, in order."""
        return tuple(self.dataset / f"fineweb_val_{i:06d}.bin" for i in range(self.val_shards))

    def document_at(self, position: int) -> int:
        """The number of the document that a position of the validation stream belongs to."""
        return int(np.searchsorted([d.start for d in self.documents], position, side="right")) - 1

    def inside(self, path: Path, mount: str) -> str:
        """A path of the world as seen where its folder is mounted at ``mount``."""
        return f"{mount.rstrip('/')}/{path.relative_to(self.root)}"

    def changed(self, target: Path, tokens: Mapping[int, int]) -> World:
        """A copy at ``target``, which must not exist, in which some validation positions hold other tokens.

        For runs that read the shards themselves. ``documents`` and ``token_bytes`` stay those of the original.
        """
        shutil.copytree(self.root, target, symlinks=True)
        stream = self.tokens.copy()
        for position, token in tokens.items():
            stream[position] = token
        copy = replace(self, root=target, tokens=stream)
        copy._write_val()
        return copy

    def _write_val(self) -> None:
        for file, part in zip(self.val_files, np.array_split(self.tokens, self.val_shards), strict=True):
            write_shard(file, part)


def build(
    target: Path,
    *,
    vocabulary: int = DEFAULT_VOCABULARY,
    documents: Sequence[int] = DEFAULT_DOCUMENTS,
    seed: int = 0,
    caseops: bool = False,
    train_tokens: int = 8192,
    train_shards: int = 2,
    val_shards: int = 1,
    datasets: Iterable[str] = (),
    tokenizers: Iterable[str] = (),
) -> World:
    """Writes a world below ``target``, which is made if need be.

    ``documents`` are the lengths of the validation documents in tokens, each with its BOS and so at least 2;
    ``train_tokens`` the length of each training shard. ``datasets`` and ``tokenizers`` are further names (folders of
    data/datasets, files of data/tokenizers) by which a script looks for the same things. The same arguments give the
    same bytes. Raises ValueError for sizes that make no world.
    """
    fixed = len(_SPECIAL) + (len(OPERATORS) if caseops else 0) + 256
    if not fixed + 8 <= vocabulary <= 65536:
        raise ValueError(f"a vocabulary of {vocabulary} has no room: {fixed} pieces are fixed")
    if not documents or min(documents) < 2 or max(sum(documents), train_tokens) > LARGEST or train_shards < 1:
        raise ValueError("every document takes two tokens at least, a split one document and 100,000 tokens at most")
    random = Random(seed)
    source = words(random)
    sample = (part for _ in range(_SAMPLE_WORDS) for part in _operated(next(source), caseops))
    encoder = learn((part for part in sample if part not in OPERATORS), vocabulary - fixed)
    pieces = _pieces(encoder, caseops, vocabulary)
    writer = _Writer(encoder, {piece: i for i, piece in enumerate(pieces)}, caseops, random)

    made: list[Document] = []
    stream: list[int] = []
    counts: list[int] = []
    for length in documents:
        tokens, sizes, text = writer.document(length)
        made.append(Document(len(stream), length, text))
        stream += tokens
        counts += sizes
    world = World(
        root=target,
        vocabulary=vocabulary,
        pieces=pieces,
        documents=tuple(made),
        tokens=np.array(stream, dtype=np.uint16),
        token_bytes=np.array(counts, dtype=np.int64),
        caseops=caseops,
        val_shards=val_shards,
    )
    dataset, tokenizer = world.dataset, world.tokenizer
    for folder in (dataset, tokenizer.parent):
        folder.mkdir(parents=True, exist_ok=True)
    tokenizer.write_bytes(_model(pieces, encoder))
    world._write_val()
    if caseops:
        for i, part in enumerate(np.array_split(world.token_bytes.astype(np.uint16), val_shards)):
            write_shard(dataset / f"fineweb_val_bytes_{i:06d}.bin", part)
    for i in range(train_shards):
        write_shard(dataset / f"fineweb_train_{i:06d}.bin", np.array(writer.shard(train_tokens), dtype=np.uint16))
    for name in dict.fromkeys(datasets):
        _link(dataset.parent / name, dataset)
    for name in dict.fromkeys(tokenizers):
        _link(tokenizer.parent / name, tokenizer)
    # Scripts that are given the shards' folder itself where others are given its parents find the shards there too.
    for file in sorted(dataset.glob("fineweb_*.bin")):
        _link(dataset.parent / file.name, file)
        _link(dataset.parent.parent / file.name, file)
    return world


def write_shard(path: Path, tokens: Shard) -> None:
    """One shard in the contest's format: 256 int32 (magic, version, count, zeros), then uint16 tokens."""
    header = np.zeros(HEADER, dtype="<i4")
    header[:3] = MAGIC, VERSION, tokens.size
    path.write_bytes(header.tobytes() + tokens.astype("<u2").tobytes())


def read_shard(path: Path) -> Shard:
    """The tokens of a shard. Raises ValueError where it is none."""
    header = np.fromfile(path, dtype="<i4", count=HEADER)
    tokens = np.fromfile(path, dtype="<u2", offset=4 * HEADER)
    if header.size != HEADER or tuple(header[:3]) != (MAGIC, VERSION, tokens.size):
        raise ValueError(f"{path} is no shard")
    return tokens.astype(np.uint16)


class _Writer:
    """Makes documents of exact lengths."""

    def __init__(self, encoder: Encoder, ids: Mapping[str, int], caseops: bool, random: Random) -> None:
        self.encoder, self.ids, self.caseops, self.random = encoder, ids, caseops, random

    def word(self, word: str) -> list[tuple[int, int]]:
        """(token id, bytes of the original text) of one word with the space in front of it."""
        found: list[tuple[int, int]] = []
        for part in _operated(word, self.caseops):
            if part in OPERATORS:
                found.append((self.ids[part], 0))
                continue
            for piece in self.encoder.word(part):
                if isinstance(piece, int):
                    found.append((self.ids[f"<0x{piece:02X}>"], 1))
                else:
                    found.append((self.ids[piece], len(piece.replace(MARK, " ").encode("utf-8"))))
        return found

    def document(self, length: int) -> tuple[list[int], list[int], str]:
        """Token ids, their bytes, and the text of a document of ``length`` tokens with its BOS.

        Words are added while they fit; the rest is filled with digits, which are a token each.
        """
        tokens, sizes, text = [BOS], [0], ""
        source = words(self.random)
        while len(tokens) < length:
            word = next(source) if text else next(source).lstrip(" ")
            made = self.word(word)
            left = length - len(tokens)
            if len(made) > left:
                space = " " if text and left > 1 else ""
                word = space + "".join(self.random.choices("123456789", k=left - len(space)))
                made = self.word(word)
            text += word
            tokens += [token for token, _ in made]
            sizes += [size for _, size in made]
        return tokens, sizes, text

    def shard(self, length: int) -> list[int]:
        """Training documents of mixed lengths, ``length`` tokens in all."""
        stream: list[int] = []
        while len(stream) < length:
            left = length - len(stream)
            size = min(self.random.randrange(16, 200), left)
            stream += self.document(left if left - size < 2 else size)[0]
        return stream


def _operated(word: str, caseops: bool) -> Iterator[str]:
    """The parts of a word with its space: with case operators, an operator and the same in small letters."""
    bare = word.lstrip(" ")
    capitals = [c.isupper() for c in bare if c.isascii() and c.isalpha()]
    if not caseops or not bare.isascii() or not any(capitals):
        yield word
    elif all(capitals) and len(capitals) > 1:
        yield from (CAPITALS, word.lower())
    elif sum(capitals) == 1 and bare[0].isupper():
        yield from (TITLE, word.lower())
    else:
        yield word


def _pieces(encoder: Encoder, caseops: bool, vocabulary: int) -> tuple[str, ...]:
    """All pieces in the order of their ids; where learning ran out of pairs, control pieces fill up."""
    found = [*_SPECIAL, *(OPERATORS if caseops else ()), *(f"<0x{byte:02X}>" for byte in range(256))]
    found += [*encoder.rank, *sorted(encoder.characters)]
    found += [f"<unused_{i}>" for i in range(vocabulary - len(found))]
    return tuple(found)


def _model(pieces: Sequence[str], encoder: Encoder) -> bytes:
    """A SentencePiece model file (sentencepiece_model.proto): pieces, trainer and normaliser specification."""
    normal, unknown, control, user, byte = 1, 2, 3, 4, 6
    out = bytearray()
    for number, piece in enumerate(pieces):
        kind, score = normal, -float(len(pieces))
        if number == UNKNOWN:
            kind = unknown
        elif number in (PAD, BOS, EOS) or piece.startswith("<unused_"):
            kind = control
        elif piece in OPERATORS:
            kind = user
        elif piece.startswith("<0x") and len(piece) == 6:
            kind = byte
        elif piece in encoder.rank:
            score = -float(encoder.rank[piece])
        out += _field(1, _field(1, piece.encode("utf-8")) + _tag(2, 5) + struct.pack("<f", score) + _number(3, kind))
    pairs = 2
    trainer = _number(3, pairs) + _number(4, len(pieces)) + _number(35, 1)
    trainer += _number(40, UNKNOWN) + _number(41, BOS) + _number(42, EOS) + _number(43, PAD)
    # The text is taken as it is: no prefix space, no changed characters.
    normaliser = _field(1, b"identity") + _number(3, 0) + _number(4, 0) + _number(5, 1)
    return bytes(out + _field(2, trainer) + _field(3, normaliser))


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _tag(field: int, wire: int) -> bytes:
    return _varint(field << 3 | wire)


def _number(field: int, number: int) -> bytes:
    return _tag(field, 0) + _varint(number)


def _field(field: int, content: bytes) -> bytes:
    return _tag(field, 2) + _varint(len(content)) + content


def _link(path: Path, target: Path) -> None:
    """A relative link, so that it holds wherever the world is mounted. What is there already stays."""
    if not path.exists() and not path.is_symlink():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(os.path.relpath(target, path.parent))
