"""Validation is not the first 50,000 documents in order.

**What it catches.** Another public data set, or training shards, evaluated in place of the validation shards; a
validation file that holds other documents than the contest's: more or fewer bytes of text than these have,
though the tokenizer's bytes per token are right, or a file cut at a round number of tokens.

**Why it breaks the score.** Other texts are easier or harder. Only the score on the same 50,000 documents can be
compared.

**Legal look-alikes.** A tail dropped to fill sequences or batches (47,851,520 and 47,853,343 tokens); the split as
first published (63,779,840 tokens), which was replaced once; other tokenizers, which make another number of tokens of
the same text; a wrong count of bytes on the right documents (`byte-count`); part of the right ones (`eval-subset`).

**How it is read.** The trace tells which data the reported evaluation scores. The log tells the number of validation
tokens, and val_loss / ln 2 * val_tokens / val_bpb the bytes they stand for: the split has 151.07 million. Checks during
training use the same file, so a mixture's figure doesn't hide it.

**Remedy.** Evaluate the published `fineweb_val_*` shards, or prove that your own preparation holds the same documents
in the same order.

**Ruling.** README, 18 March 2026: the fixed first-50k-document set. Organisers excluded #2109, whose first runs joined
the validation parts of four parallel preparations. Settled.
"""

from __future__ import annotations

from auditor.contest import VAL_BYTES, VAL_TOKENS
from auditor.implied_bytes import CANONICAL_TOLERANCE, BytesEvidence, Denominator, ImpliedBytes, classify, implied_bytes
from auditor.reading import Reading
from auditor.verdict import Confidence, Effect, Status
from rules.base import Example, Finding, Rule
from rules.examples import script

SAME_TOKENS = 3e-3
"""Relative: dropped tails move the number of tokens by less."""
SAME_TEXT = 5e-3
"""Relative: how closely two runs of one tokenizer agree on bytes per token."""
ROUND = 10_000_000
"""Shards hold a round number of tokens: a file that is full was cut there, not after a document."""
TAIL = 8_192
"""Tokens that a script may drop from the end of such a file."""
LEAST_PART = 0.25
"""A smaller part of the bytes is a subset of the split rather than another partition."""


class NoncanonicalVal(Rule):
    """See the module's documentation."""

    slug = "noncanonical-val"
    group = "metric"
    title = "validation is not the first 50,000 documents in order"
    official = Effect.VIOLATION
    strict = Effect.VIOLATION
    evidence = ("log", "files")
    precedents = (
        "README, 18 Mar 2026: the fixed first-50k-document set",
        "organiser on #2109, 2 May 2026: non-canonical validation partition, excluded",
        "legal: truncations (#2135), the first published split (issue #837)",
    )

    def check(self, reading: Reading) -> Finding:
        other = _other_data(reading)
        if other is not None:
            return other
        evidence = implied_bytes(reading)
        if evidence is not None and evidence.best is not None:
            return _by_bytes(evidence, evidence.best)
        return _by_tokens(reading)


def _other_data(reading: Reading) -> Finding | None:
    """Where the code of the reported evaluation scores something else than validation shards."""
    scores = reading.reported.scores
    foreign = reading.foreign_texts()
    if foreign is not None and scores:
        if reading.run.claim.val_bpb is None:
            return Finding(
                Status.NOT_APPLICABLE,
                f"The texts evaluated come from the data set {foreign}, and no score is claimed.",
                Confidence.MEDIUM,
                (reading.at(scores[0], "scored here, from another data set"),),
            )
        return Finding(
            Status.ACTIVE,
            f"The reported evaluation scores texts of the data set {foreign}, not the challenge's validation shards.",
            Confidence.HIGH if reading.reported.in_log else Confidence.MEDIUM,
            (reading.at(scores[0], "scored here, from another data set"),),
            reading.call_path(scores[0]),
        )
    if scores and all("train" in s.roles and "val" not in s.roles for s in scores):
        return Finding(
            Status.ACTIVE,
            "The reported evaluation scores training shards.",
            Confidence.HIGH if reading.reported.in_log else Confidence.MEDIUM,
            (reading.at(scores[0], "scored here, from training shards"),),
            reading.call_path(scores[0]),
        )
    return None


def _by_bytes(evidence: BytesEvidence, best: ImpliedBytes) -> Finding:
    tokens = best.tokens
    # Checks during training score the same file with the same byte count, without what the evaluation mixes in.
    plain = evidence.training if evidence.training is not None else best.per_token
    denominator = classify(plain, tokens)
    total = plain * tokens
    told = f"the figures stand for {total / 1e6:.2f} million bytes of text"
    count = f"The log counts {tokens:,} validation tokens"
    if not best.tokens_logged:
        count = f"With {tokens:,} validation tokens, as published for this vocabulary"
    if denominator is Denominator.CANONICAL:
        return Finding(
            Status.CLEAN,
            f"{count}, and {told}: the split's {VAL_BYTES / 1e6:.2f} million.",
            Confidence.HIGH if best.tokens_logged else Confidence.MEDIUM,
            best.evidence,
        )
    if denominator is Denominator.FIRST_SPLIT:
        return Finding(
            Status.CLEAN,
            f"{count}: the split as first published, before it was replaced officially.",
            Confidence.HIGH,
            best.evidence,
        )
    if any(abs(tokens / n - 1) <= SAME_TOKENS for n in VAL_TOKENS.values()):
        return Finding(
            Status.CLEAN,
            f"{count}, as many as the split has, and {told}: a question of byte-count.",
            Confidence.MEDIUM,
            best.evidence,
        )
    reason = f"{count}, and {told}, where the split has {VAL_BYTES / 1e6:.2f} million"
    if total < LEAST_PART * VAL_BYTES:
        return Finding(
            Status.CLEAN,
            f"{reason}: a small part at most, which is a question of eval-subset.",
            Confidence.LOW,
            best.evidence,
        )
    known = [VAL_BYTES / n for n in VAL_TOKENS.values()]
    off = abs(total / VAL_BYTES - 1)
    if best.tokens_logged and off > 2 * CANONICAL_TOLERANCE:
        if tokens > ROUND and -tokens % ROUND <= TAIL:
            return Finding(
                Status.ACTIVE,
                f"{reason}: the validation file was cut at {round(tokens / ROUND) * ROUND:,} tokens, not after the"
                " 50,000th document.",
                Confidence.MEDIUM,
                best.evidence,
            )
        if any(abs(plain / k - 1) <= SAME_TEXT for k in known):
            return Finding(
                Status.ACTIVE if denominator is not Denominator.PART else Status.SUSPECT,
                f"{reason}; the bytes per token are those of a published tokenizer, so the documents differ.",
                Confidence.MEDIUM,
                best.evidence,
            )
        if denominator is Denominator.PART:
            return Finding(
                Status.SUSPECT,
                f"{reason}: part of the split or another partition of the documents; a person must compare the"
                " validation file with the published one.",
                Confidence.LOW,
                best.evidence,
            )
    return Finding(
        Status.CLEAN,
        f"{reason}: with a tokenizer of its own, that is a question of byte-count as long as nothing shows other"
        " documents.",
        Confidence.LOW,
        best.evidence,
    )


def _by_tokens(reading: Reading) -> Finding:
    """Without a loss beside the bits per byte only the number of tokens and the code can tell."""
    run = next((r for r in reading.run.claim_runs if r.facts.val_tokens is not None), None)
    fact = run.facts.val_tokens if run is not None else None
    first = reading.reported.first_score()
    if run is not None and fact is not None:
        line = reading.line_text(run.file, fact.line) or f"val_tokens {fact.value}"
        shown = reading.log_evidence(run.file, fact.line, line, "validation tokens, as logged")
        same = next((k for k, n in VAL_TOKENS.items() if abs(fact.value / n - 1) <= SAME_TOKENS), None)
        if same is not None:
            return Finding(
                Status.CLEAN,
                f"The log counts {fact.value:,} validation tokens, as many as the split has with {same}.",
                Confidence.MEDIUM,
                (shown,),
            )
    if first is not None and "val" in first.roles:
        return Finding(
            Status.CLEAN,
            "The reported evaluation reads the validation shards by their name; no log tells more about their content.",
            Confidence.LOW,
            (reading.at(first, "scored here, from the validation shards"),),
            reading.call_path(first),
        )
    if not reading.run.logs and reading.run.claim.val_bpb is None:
        return Finding(Status.NOT_APPLICABLE, "No result is claimed and no run is logged.", Confidence.MEDIUM)
    return Finding(
        Status.UNKNOWN,
        "The evaluation was not found in the code, and no log gives the tokens and bytes it counted.",
        Confidence.HIGH,
    )


_EVAL = """
def evaluate(model, tokens):
    total = torch.zeros(())
    with torch.no_grad():
        for i in range(0, tokens.numel() - 1, 1024):
            chunk = tokens[i : i + 1025]
            total += model(chunk[:-1], chunk[1:]) * (chunk.numel() - 1)
    return total / tokens.numel()


model = GPT()
tokens = load_tokens("fineweb_val_*.bin")
bpb = evaluate(model, tokens)
print(f"final_int8_zlib_roundtrip val_loss:{bpb:.4f} val_bpb:{bpb:.4f}")
"""
_SCRIPT = script(_EVAL)
_FOREIGN = script(
    _EVAL.replace(
        'tokens = load_tokens("fineweb_val_*.bin")',
        'texts = datasets.load_dataset("wikitext", "wikitext-103-raw-v1", split="test")["text"]\n'
        'tokens = torch.tensor([b for text in texts for b in text.encode("utf-8")])',
    )
).replace("import torch\n", "import datasets\nimport torch\n", 1)


def _log(tokens: int, loss: float, bpb: float) -> str:
    return f"val_tokens: {tokens}\nfinal_int8_zlib_roundtrip val_loss:{loss} val_bpb:{bpb}\n"


def _json(bpb: float) -> str:
    return f'{{"val_bpb": {bpb}}}\n'


NoncanonicalVal.VIOLATION = (
    Example(
        "the validation file was cut at 50 million tokens",
        {
            "train_gpt.py": _SCRIPT,
            "submission.json": _json(1.03968781),
            "train.log": _log(49_999_872, 2.85300876, 1.03968781),
        },
        Status.ACTIVE,
    ),
    Example(
        "another public data set is scored",
        {"train_gpt.py": _FOREIGN, "submission.json": _json(1.2)},
        Status.ACTIVE,
    ),
    Example(
        "more documents than the split has, with the usual tokenizer",
        {
            "train_gpt.py": _SCRIPT,
            "submission.json": _json(1.0736),
            "train.log": _log(44_594_176, 2.7732, 1.0736),
        },
        Status.ACTIVE,
    ),
)

NoncanonicalVal.LEGAL = (
    Example(
        "the split, with its last tokens dropped",
        {
            "train_gpt.py": _SCRIPT,
            "submission.json": _json(1.0611),
            "train.log": _log(47_851_520, 2.3222, 1.0611),
        },
        Status.CLEAN,
    ),
    Example(
        "the split as first published",
        {
            "train_gpt.py": _SCRIPT,
            "submission.json": _json(1.2243657),
            "train.log": _log(63_779_840, 2.07269931, 1.2243657),
        },
        Status.CLEAN,
    ),
    Example(
        "the right documents with the bytes counted wrongly",
        {
            "train_gpt.py": _SCRIPT,
            "submission.json": _json(1.00692894),
            "train.log": _log(47_851_520, 2.40073153, 1.00692894),
        },
        Status.CLEAN,
    ),
    Example(
        "a tokenizer of its own",
        {
            "train_gpt.py": _SCRIPT,
            "submission.json": _json(1.0810),
            "train.log": _log(36_286_464, 3.1196, 1.0810),
        },
        Status.CLEAN,
    ),
    Example(
        "no log",
        {"train_gpt.py": _SCRIPT, "submission.json": _json(1.2)},
        Status.CLEAN,
    ),
)
