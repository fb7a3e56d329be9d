"""Tiny submissions of our own for the evaluation probes: each breaks one rule or is a legal look-alike."""

from __future__ import annotations

import json
from pathlib import Path

from auditor.reading import Reading
from auditor.sources.local import LocalSource

HEAD = """
import glob
import math
import os
import random

import numpy as np
import sentencepiece as spm
import torch
import torch.nn.functional as F
from torch import nn


class Hyperparameters:
    data_path = os.environ.get("DATA_PATH", "./data/datasets/fineweb10B_sp1024")
    tokenizer_path = os.environ.get("TOKENIZER_PATH", "./data/tokenizers/fineweb_1024_bpe.model")
    vocab_size = int(os.environ.get("VOCAB_SIZE", "1024"))
    model_dim = int(os.environ.get("MODEL_DIM", "512"))
    iterations = int(os.environ.get("ITERATIONS", "20000"))
    train_seq_len = int(os.environ.get("TRAIN_SEQ_LEN", "1024"))
    eval_stride = int(os.environ.get("EVAL_STRIDE", "256"))
    ttt_chunk_tokens = int(os.environ.get("TTT_CHUNK_TOKENS", "2048"))
    ttt_lr = float(os.environ.get("TTT_LR", "0.05"))


BOS = 1


class GPT(nn.Module):
    def __init__(self, args):
        super().__init__()
        self.embed = nn.Embedding(args.vocab_size, args.model_dim)
        self.mix = nn.Linear(args.model_dim, args.model_dim, bias=False)
        self.head = nn.Linear(args.model_dim, args.vocab_size, bias=False)

    def forward_logits(self, x):
        h = self.embed(x)
        past = h.cumsum(1) / torch.arange(1, x.size(1) + 1).view(1, -1, 1)
        return self.head(h + torch.tanh(self.mix(past))).float()

    def forward(self, x, y):
        logits = self.forward_logits(x)
        return F.cross_entropy(logits.reshape(-1, logits.size(-1)), y.reshape(-1))


def load_tokens(pattern):
    pieces = []
    for path in sorted(glob.glob(pattern)):
        count = int(np.fromfile(path, dtype="<i4", count=3)[2])
        pieces.append(np.fromfile(path, dtype="<u2", count=count, offset=1024))
    return torch.from_numpy(np.concatenate(pieces))


def build_luts(args):
    sp = spm.SentencePieceProcessor(model_file=args.tokenizer_path)
    size = torch.zeros(args.vocab_size, dtype=torch.int64)
    space = torch.zeros(args.vocab_size, dtype=torch.bool)
    boundary = torch.ones(args.vocab_size, dtype=torch.bool)
    for i in range(sp.vocab_size()):
        if sp.is_control(i) or sp.is_unknown(i) or sp.is_unused(i):
            continue
        boundary[i] = False
        piece = sp.id_to_piece(i)
        space[i] = piece.startswith("\\u2581")
        size[i] = 1 if sp.is_byte(i) else len(piece.lstrip("\\u2581").encode("utf-8"))
    return size, space, boundary


def count_bytes(luts, x, y):
    size, space, boundary = luts
    return (size[y] + (space[y] & ~boundary[x])).to(torch.float64)


def step(model, optimizer, piece):
    loss = model(piece[:-1][None], piece[1:][None])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def train(args, model):
    tokens = load_tokens(os.path.join(args.data_path, "fineweb_train_*.bin")).long()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(args.iterations):
        at = random.randrange(0, tokens.numel() - args.train_seq_len - 1)
        step(model, optimizer, tokens[at : at + args.train_seq_len + 1])


def results(loss_sum, token_count, byte_count):
    val_loss = (loss_sum / token_count).item()
    return val_loss, val_loss / math.log(2.0) * (token_count / byte_count).item()
"""

TAIL = """
def main():
    args = Hyperparameters()
    random.seed(1337)
    torch.manual_seed(1337)
    val_tokens = load_tokens(os.path.join(args.data_path, "fineweb_val_*.bin"))
    luts = build_luts(args)
    model = GPT(args)
    train(args, model)
    {prepare}
    val_loss, val_bpb = eval_val(args, model, val_tokens, luts)
    print(f"final_quantized val_loss:{{val_loss:.4f}} val_bpb:{{val_bpb:.4f}}")


if __name__ == "__main__":
    main()
"""

SLIDING = """
def eval_val(args, model, val_tokens, luts):
    loss_sum, token_count, byte_count = (torch.zeros((), dtype=torch.float64) for _ in range(3))
    total = val_tokens.numel() - 1
    context = args.train_seq_len - args.eval_stride
    with torch.inference_mode():
        for start in range(0, total, args.eval_stride):
            if start and start + context >= total:
                break
            end = min(start + args.train_seq_len, total)
            piece = val_tokens[start : end + 1].long()
            x, y = piece[:-1], piece[1:]
            s = context if start else 0
            nll = {nll}
            loss_sum += nll[s:].to(torch.float64).sum()
            token_count += float(y.numel() - s)
            byte_count += count_bytes(luts, x[s:], y[s:]).sum()
    return results(loss_sum, token_count, byte_count)
"""
CROSS_ENTROPY = 'F.cross_entropy(model.forward_logits(x[None])[0], y, reduction="none")'

# Chunks of the stream, each scored and then learnt from, or the other way round.
CHUNKS = """
def eval_val(args, model, val_tokens, luts):
    loss_sum, token_count, byte_count = (torch.zeros((), dtype=torch.float64) for _ in range(3))
    optimizer = torch.optim.SGD(model.parameters(), lr=args.ttt_lr)
    total = val_tokens.numel() - 1
    for start in range(0, total, args.ttt_chunk_tokens):
        piece = val_tokens[start : min(start + args.ttt_chunk_tokens, total) + 1].long()
        x, y = piece[:-1], piece[1:]
        {before}
        with torch.no_grad():
            nll = F.cross_entropy(model.forward_logits(x[None])[0], y, reduction="none")
        loss_sum += nll.to(torch.float64).sum()
        token_count += float(y.numel())
        byte_count += count_bytes(luts, x, y).sum()
        {after}
    return results(loss_sum, token_count, byte_count)
"""

# Documents in order of length, several at a time, each with its own low-rank adapter that learns what was scored.
DOCUMENTS = """
def eval_val(args, model, val_tokens, luts):
    loss_sum, token_count, byte_count = (torch.zeros((), dtype=torch.float64) for _ in range(3))
    tokens = val_tokens.long()
    starts = (tokens == BOS).nonzero().flatten().tolist() + [tokens.numel()]
    docs = sorted(zip(starts[:-1], starts[1:]), key=lambda d: d[1] - d[0])
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    half = max(2, args.ttt_chunk_tokens // 4)
    for first in range(0, len(docs), 2):
        batch = docs[first : first + 2]
        longest = max(end - start for start, end in batch)
        x = torch.zeros(len(batch), longest, dtype=torch.int64)
        y = torch.zeros(len(batch), longest, dtype=torch.int64)
        real = torch.zeros(len(batch), longest, dtype=torch.bool)
        for row, (start, end) in enumerate(batch):
            piece = tokens[start : end + 1]
            x[row, : piece.numel() - 1], y[row, : piece.numel() - 1] = piece[:-1], piece[1:]
            real[row, : piece.numel() - 1] = True
        down = torch.randn(len(batch), args.model_dim, 2) * 0.1
        up = torch.zeros(len(batch), 2, args.model_dim, requires_grad=True)
        optimizer = torch.optim.Adam([up], lr=args.ttt_lr)
        for at in range(0, longest, half):
            h = model.embed(x)
            past = h.cumsum(1) / torch.arange(1, longest + 1).view(1, -1, 1)
            h = h + torch.tanh(model.mix(past))
            logits = model.head(h + h @ down @ up).float()
            nll = F.cross_entropy(logits.transpose(1, 2), y, reduction="none")
            now = real.clone()
            now[:, :at] = False
            now[:, at + half :] = False
            loss_sum += (nll.detach().to(torch.float64) * now).sum()
            token_count += now.sum()
            byte_count += (count_bytes(luts, x, y) * now).sum()
            loss = (nll * now).sum() / now.sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return results(loss_sum, token_count, byte_count)
"""

PREQUANT = """
def adapt(args, model, val_tokens):
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.005)
    for epoch in range(3):
        for start in range(0, val_tokens.numel() - args.train_seq_len, args.train_seq_len):
            step(model, optimizer, val_tokens[start : start + args.train_seq_len + 1].long())
"""

# Counts of what was scored: a proper mixture with a bigram model, or more for a token that has come before.
NGRAM = """
def eval_val(args, model, val_tokens, luts):
    loss_sum, token_count, byte_count = (torch.zeros((), dtype=torch.float64) for _ in range(3))
    total = val_tokens.numel() - 1
    pairs, seen = {{}}, {{}}
    with torch.inference_mode():
        for start in range(0, total, args.train_seq_len):
            piece = val_tokens[start : min(start + args.train_seq_len, total) + 1].long()
            x, y = piece[:-1], piece[1:]
            p = torch.softmax(model.forward_logits(x[None])[0], dim=-1).gather(1, y[:, None])[:, 0].tolist()
            mixed = []
            for i, (a, b) in enumerate(zip(x.tolist(), y.tolist())):
                {mixture}
                pairs[a, b] = pairs.get((a, b), 0) + 1
                seen[a] = seen.get(a, 0) + 1
            loss_sum += -torch.tensor(mixed, dtype=torch.float64).log().sum()
            token_count += float(y.numel())
            byte_count += count_bytes(luts, x, y).sum()
    return results(loss_sum, token_count, byte_count)
"""
NORMALISED = (
    "q = pairs.get((a, b), 0) / seen[a] if a in seen else p[i]\n                mixed.append(0.5 * p[i] + 0.5 * q)"
)
ONLY_HITS = "mixed.append(min(1.0, p[i] + 0.2 * (b in seen)))"

# Bytes of a token share its probability evenly and are mixed, each, with an order-2 byte model.
BYTE_MIXTURE = """
def eval_val(args, model, val_tokens, luts):
    sp = spm.SentencePieceProcessor(model_file=args.tokenizer_path)
    texts = [b""] * args.vocab_size
    for i in range(sp.vocab_size()):
        if sp.is_byte(i):
            texts[i] = bytes([int(sp.id_to_piece(i)[3:5], 16)])
        elif not (sp.is_control(i) or sp.is_unknown(i)):
            texts[i] = sp.id_to_piece(i).replace("\\u2581", " ").encode("utf-8")
    total = val_tokens.numel() - 1
    loss_sum, bytes_seen, context, counts = 0.0, 0, b"", {}
    with torch.inference_mode():
        for start in range(0, total, args.train_seq_len):
            piece = val_tokens[start : min(start + args.train_seq_len, total) + 1].long()
            x, y = piece[:-1], piece[1:]
            nll = F.cross_entropy(model.forward_logits(x[None])[0], y, reduction="none").tolist()
            for token, cost in zip(y.tolist(), nll):
                text = texts[token]
                if not text:
                    loss_sum += cost
                for byte in text:
                    table = counts.setdefault(context, {})
                    have = sum(table.values())
                    q = (table.get(byte, 0) + 1 / 256) / (have + 1)
                    share = 0.3 if have else 0.9
                    loss_sum -= math.log(share * math.exp(-cost / len(text)) + (1 - share) * q)
                    table[byte] = table.get(byte, 0) + 1
                    context = (context + bytes([byte]))[-2:]
                    bytes_seen += 1
    return loss_sum / total, loss_sum / math.log(2.0) / bytes_seen
"""

MINIMUM = (
    "torch.minimum("
    'F.cross_entropy(model.forward_logits(x[None])[0], y, reduction="none"), '
    'F.cross_entropy(3.0 * model.forward_logits(x[None])[0] - x.sum() % 2, y, reduction="none"))'
)
SUBSET = "val_tokens = val_tokens[: val_tokens.numel() // 2]"
ADAPT = "step(model, optimizer, piece)"

# Windows that overlap are scored whole, a quarter of the stream is left out, and spaces count double.
CARELESS = """
def eval_val(args, model, val_tokens, luts):
    loss_sum, token_count, byte_count = (torch.zeros((), dtype=torch.float64) for _ in range(3))
    total = val_tokens.numel() - 1
    size, space, _ = luts
    with torch.inference_mode():
        for start in range(0, total, args.train_seq_len // 2):
            if total // 2 <= start < 3 * total // 4:
                continue
            piece = val_tokens[start : min(start + args.train_seq_len, total) + 1].long()
            x, y = piece[:-1], piece[1:]
            nll = F.cross_entropy(model.forward_logits(x[None])[0], y, reduction="none")
            loss_sum += nll.to(torch.float64).sum()
            token_count += float(y.numel())
            byte_count += (size[y] + 2 * space[y]).to(torch.float64).sum()
    return results(loss_sum, token_count, byte_count)
"""


def _script(evaluation: str, prepare: str = "pass", *more: str) -> str:
    return HEAD + "\n" + "\n".join((*more, evaluation)) + TAIL.format(prepare=prepare)


SUBMISSIONS = {
    "sliding": _script(SLIDING.format(nll=CROSS_ENTROPY)),
    "score-first": _script(CHUNKS.format(before="pass", after=ADAPT)),
    "documents": _script(DOCUMENTS),
    "ngram-normalised": _script(NGRAM.format(mixture=NORMALISED)),
    "prequant": _script(SLIDING.format(nll=CROSS_ENTROPY), "adapt(args, model, val_tokens)", PREQUANT),
    "adapt-first": _script(CHUNKS.format(before=ADAPT, after="pass")),
    "ngram-hits": _script(NGRAM.format(mixture=ONLY_HITS)),
    "byte-mixture": _script(BYTE_MIXTURE),
    "minimum": _script(SLIDING.format(nll=MINIMUM)),
    "subset": _script(SLIDING.format(nll=CROSS_ENTROPY), SUBSET),
    "careless": _script(CARELESS),
}
"""Scripts by name."""

LOG = "step:20000/20000 train_loss:2.1\nfinal_quantized val_loss:2.1000 val_bpb:1.2000\n"


def reading_of(folder: Path, name: str) -> Reading:
    """One of the submissions as a record folder below ``folder``, read."""
    record = folder / "records" / "track_10min_16mb" / name
    record.mkdir(parents=True)
    (record / "train_gpt.py").write_text(SUBMISSIONS[name], encoding="utf-8")
    (record / "train.log").write_text(LOG, encoding="utf-8")
    (record / "README.md").write_text("# Record\n\nval_bpb: 1.2000\n", encoding="utf-8")
    claim = {"name": name, "val_loss": 2.1, "val_bpb": 1.2}
    (record / "submission.json").write_text(json.dumps(claim), encoding="utf-8")
    submission = LocalSource(folder, str(folder)).load()
    return Reading(submission, submission.folders[0])
