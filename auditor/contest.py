"""The contest's own numbers: budgets, and what its validation set measures (rulebook 1 and 1.3).

The counts were read off published records; a count of tokens depends on the tokenizer and, by less than one
sequence, on how a script drops the tail.
"""

from __future__ import annotations

ARTIFACT_CAP = 16_000_000
"""Bytes of code and compressed model together; decimal, not MiB."""

BUDGET_MS = 600_000
"""Wall-clock milliseconds for training, and again for evaluation, on eight H100 SXM."""

VAL_DOCUMENTS = 50_000
"""Documents of the validation split: the first of the published order."""

VAL_BYTES = 151_074_309
"""Raw UTF-8 bytes of those documents. Scripts differ by some 0.01 % in how they count document starts."""

VAL_TOKENS = {
    "sp1024": 62_021_632,
    "sp4096": 45_508_608,
    "sp8192": 40_540_160,
    "sp8192 CaseOps": 47_851_520,
}
"""Validation tokens by tokenizer, cut to whole sequences."""

FIRST_SPLIT_VAL_TOKENS = 63_779_840
"""sp1024 tokens of the split as published in the contest's first days; it was replaced once, officially."""
