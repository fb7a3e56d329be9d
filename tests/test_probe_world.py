"""The tiny world: its files are what submissions expect, and what it says about them is true."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from auditor.probe.text import learn
from auditor.probe.world import BOS, OPERATORS, build, read_shard
from auditor.unpack.sentencepiece_model import read_sentencepiece

LENGTHS = [48, 2, 24, 3, 80, 12, 64, 29]


def test_documents_have_the_lengths_asked_for(tmp_path: Path) -> None:
    world = build(tmp_path, documents=LENGTHS, seed=3)
    assert [d.length for d in world.documents] == LENGTHS
    assert np.flatnonzero(world.tokens == BOS).tolist() == [d.start for d in world.documents]
    assert read_shard(world.val_files[0]).tolist() == world.tokens.tolist()
    assert world.document_at(0) == 0 and world.document_at(48) == 1 and world.document_at(50) == 2
    assert int(world.tokens.max()) < world.vocabulary


@pytest.mark.parametrize("caseops", [False, True])
def test_the_bytes_are_those_of_the_text(tmp_path: Path, caseops: bool) -> None:
    world = build(tmp_path, documents=LENGTHS, seed=3, caseops=caseops)
    for document in world.documents:
        size = int(world.token_bytes[document.start : document.end].sum())
        assert size == len(document.text.encode("utf-8"))
    # Characters of several bytes are among them, or the byte counts would show nothing.
    assert any(not d.text.isascii() for d in world.documents)


def test_shards_are_in_the_contests_format(tmp_path: Path) -> None:
    world = build(tmp_path, train_tokens=1000, train_shards=3, val_shards=2)
    header = np.fromfile(world.val_files[0], dtype="<i4", count=256)
    assert header[:2].tolist() == [20240520, 1] and not header[3:].any()
    assert world.val_files[0].stat().st_size == 1024 + 2 * header[2]
    assert np.concatenate([read_shard(f) for f in world.val_files]).tolist() == world.tokens.tolist()
    train = [read_shard(f) for f in sorted(world.dataset.glob("fineweb_train_*.bin"))]
    assert [t.size for t in train] == [1000] * 3 and all(t[0] == BOS for t in train)
    assert not list(world.dataset.glob("fineweb_val_bytes_*"))


def test_case_operators_and_their_sidecar(tmp_path: Path) -> None:
    world = build(tmp_path, documents=LENGTHS, seed=3, caseops=True)
    assert world.pieces[4:8] == OPERATORS
    sidecar = read_shard(world.dataset / "fineweb_val_bytes_000000.bin")
    assert sidecar.tolist() == world.token_bytes.tolist()
    operated = np.isin(world.tokens, [4, 5, 6, 7])
    assert operated.any() and not sidecar[operated].any()


def test_the_same_arguments_give_the_same_world(tmp_path: Path) -> None:
    one, two = build(tmp_path / "1", seed=5), build(tmp_path / "2", seed=5)
    other = build(tmp_path / "3", seed=6)
    assert one.tokens.tolist() == two.tokens.tolist() != other.tokens.tolist()
    assert one.tokenizer.read_bytes() == two.tokenizer.read_bytes()


def test_other_names_lead_to_the_same_files(tmp_path: Path) -> None:
    world = build(tmp_path / "a", datasets=["fineweb10B_sp8192"], tokenizers=["fineweb_8192_bpe.model"])
    model = world.tokenizer.read_bytes()
    assert world.inside(world.dataset, "/world/") == f"/world/data/datasets/fineweb10B_sp{world.vocabulary}"
    data = world.root.rename(tmp_path / "moved") / "data"
    assert len(list((data / "datasets/fineweb10B_sp8192").glob("fineweb_train_*.bin"))) == 2
    assert (data / "tokenizers/fineweb_8192_bpe.model").read_bytes() == model
    assert read_shard(data / "fineweb_val_000000.bin").tolist() == world.tokens.tolist()


def test_a_copy_with_other_tokens(tmp_path: Path) -> None:
    world = build(tmp_path / "a")
    copy = world.changed(tmp_path / "b", {10: 300, 11: 7})
    assert read_shard(copy.val_files[0])[[10, 11]].tolist() == [300, 7]
    assert set(np.flatnonzero(copy.tokens != world.tokens)) <= {10, 11}
    assert read_shard(world.val_files[0]).tolist() == world.tokens.tolist()


def test_the_auditor_reads_the_tokenizer(tmp_path: Path) -> None:
    model = read_sentencepiece(build(tmp_path, vocabulary=400).tokenizer.read_bytes())
    assert model is not None and len(model.pieces) == 400
    assert model.byte_pieces == 256 and model.has_space_piece and model.normalizer == "identity"


@pytest.mark.parametrize(("vocabulary", "caseops"), [(280, True), (320, False), (512, False), (900, True)])
def test_sentencepiece_agrees(tmp_path: Path, vocabulary: int, caseops: bool) -> None:
    spm = pytest.importorskip("sentencepiece")
    world = build(tmp_path, vocabulary=vocabulary, documents=LENGTHS, seed=vocabulary, caseops=caseops)
    sp = spm.SentencePieceProcessor(model_file=str(world.tokenizer))
    assert sp.vocab_size() == vocabulary
    assert (sp.pad_id(), sp.bos_id(), sp.eos_id(), sp.unk_id()) == (0, 1, 2, 3)
    assert [sp.id_to_piece(i) for i in range(vocabulary)] == list(world.pieces)
    assert sp.piece_to_id("\u2581") != sp.unk_id()
    assert sum(sp.is_byte(i) for i in range(vocabulary)) == 256
    for document in world.documents:
        ids = world.tokens[document.start + 1 : document.end].tolist()
        text = sp.decode(ids)
        assert sp.encode(text) == ids
        assert caseops or text == document.text


def test_learning_keeps_digits_apart() -> None:
    encoder = learn([" in", " 1999", " 1999", " 1999"], 40)
    assert not any(c.isdigit() for piece in encoder.rank for c in piece)
    assert len(encoder.word("1999")) == 4


@pytest.mark.parametrize("wrong", [{"vocabulary": 200}, {"documents": [1]}, {"documents": []}, {"train_tokens": 10**6}])
def test_sizes_that_make_no_world(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        build(tmp_path, **wrong)
