"""Shared scaffolding for the rules' example submissions: the few lines every script needs."""

from __future__ import annotations

import textwrap

_PRELUDE = """
import glob
import os

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


class GPT(nn.Module):
    def __init__(self, vocab=1024, dim=64):
        super().__init__()
        self.embed = nn.Embedding(vocab, dim)

    def forward(self, x, y):
        return F.cross_entropy(F.linear(self.embed(x), self.embed.weight), y)


def load_tokens(pattern):
    return torch.cat([torch.from_numpy(np.fromfile(f, dtype=np.uint16)) for f in sorted(glob.glob(pattern))])


def quantize(state):
    return {name: (t * 127).round().to(torch.int8) for name, t in state.items()}


def dequantize(state):
    return {name: t.float() / 127 for name, t in state.items()}
"""


def script(*parts: str) -> str:
    """A small train_gpt.py: imports, a network, a shard loader and a quantiser, then ``parts``, dedented."""
    return _PRELUDE.lstrip("\n") + "".join("\n\n" + textwrap.dedent(p).strip("\n") + "\n" for p in parts)


def without_scaffolding(text: str) -> str:
    """An example's script without what all of them begin with, for a reader."""
    prelude = _PRELUDE.strip("\n")
    if not text.startswith(prelude):
        return text
    return "# imports, GPT, load_tokens, quantize and dequantize: see rules/examples.py" + text[len(prelude) :]
