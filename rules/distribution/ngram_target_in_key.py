"""A cache is addressed with the realised target when it scores.

**What it catches.** An n-gram cache keeps two hashed tables, counts of contexts and counts of context and next token,
and reads both for the token that really follows: the key of the second read is a hash of the context *and the realised
target* (`full_key = (ctx_hash ^ (target * prime)) & mask`), and `min(pairs, contexts) / contexts` is blended with the
model's probability of that token.

**Why it breaks the score.** The number looked up belongs to one token that the predictor is not supposed to know yet.
Entries of a hashed table are shared, so the same lookup for every token of the vocabulary gives numbers that add up
to hundreds: the realised token gets probability that was never taken from the others (conditions C1 and C2 of issue
#1017). With one bucket the "probability" tends to 1 for any token.

**Legal look-alikes.** Hash embeddings of *input* tokens (BigramHash, TrigramHash, EngramLite), which address a
learnt row with context tokens; tables whose key is the context alone and whose entry is a row over the vocabulary
or a hint token; writes with the target in the key that come after scoring, where the read side enumerates
every token of the vocabulary; exact tables in which the token is an index of its own; the same
code where the run leaves it out (order 0, weight 0); a training-time oracle on training tokens.

**How it is read.** From the reported figure the assignments are followed back, through the calls that the
trace saw, to every quotient of two table reads. Keys are compared by the stored tokens they are made of: where the
upper key holds a token more than the lower one, and that token goes through an exclusive-or, a modulus or a mask, the
cache is addressed with the token it scores. Where two such counts are not divided (a difference of logarithms), a
person must look. Vocabulary enumerations are no stored tokens and do not count.

**Remedy.** Look up every token of the vocabulary and normalise, or use the cache's own best token as a hint with the
closed-form normaliser.

**Ruling.** Organiser, #779, 27 March 2026: hashed caches "look ahead to the target token to mix probabilities"; some 33
submissions were closed with it. Settled.
"""

from __future__ import annotations

from auditor.index.tables import Form
from auditor.reading import Reading
from auditor.verdict import Confidence, Effect, Status
from rules.base import Example, Finding, Rule
from rules.distribution.caches import lookup_suspect, not_reported, ratio_evidence, undecided
from rules.examples import script


class NgramTargetInKey(Rule):
    """See the module's documentation."""

    slug = "ngram-target-in-key"
    group = "distribution"
    title = "a cache is addressed with the realised target"
    official = Effect.VIOLATION
    strict = Effect.VIOLATION
    evidence = ("code", "probe")
    precedents = (
        "organiser on #779, 27 Mar 2026, and the closures of the same day: the cache looks ahead to the target token",
        "legal: #1514 (token-only hints with a closed-form normaliser), hash embeddings of input tokens",
    )

    def check(self, reading: Reading) -> Finding:
        problem = reading.unreadable()
        if problem is not None:
            return Finding(Status.UNKNOWN, f"The code could not be read: {problem}.", Confidence.HIGH)
        tables = reading.tables
        hashed = [r for r in tables.ratios if r.form is Form.HASHED]
        if hashed:
            ratio = hashed[0]
            return undecided(reading, ratio) or Finding(
                Status.ACTIVE,
                "The reported figure blends in a count that is looked up with the token being scored in the hash key.",
                Confidence.HIGH if reading.reported.in_log else Confidence.MEDIUM,
                ratio_evidence(reading, ratio),
                reading.call_path(tables.starts[0]) if tables.starts else (),
            )
        elsewhere = [r for r in tables.elsewhere if r.form is Form.HASHED] if tables.present else []
        if elsewhere:
            return not_reported(reading, elsewhere[0], "a lookup with the realised target in the key")
        if tables.lookups:
            return lookup_suspect(
                reading, "whether it is the token being scored, or one before it, that goes into the hash"
            )
        if tables.ratios:
            ratio = tables.ratios[0]
            return Finding(
                Status.CLEAN,
                "The counts behind the reported figure are read with the context in the key; the token is an index of"
                " its own, not part of a hash.",
                Confidence.MEDIUM,
                ratio_evidence(reading, ratio),
            )
        return Finding(
            Status.CLEAN,
            "No count table is read on the way to the reported figure."
            if not tables.reads
            else "Tables that are counted at run time are read on the way to the reported figure, but no count is"
            " divided by another one whose key lacks a token.",
            Confidence.HIGH if tables.starts else Confidence.MEDIUM,
        )


_LOOKUP = """
    def lookup(self, tokens, positions):
        h = self.context_hash(tokens, positions)
        target = tokens[positions].astype(np.uint64)
        context_count = self.contexts[(h & self.mask).astype(np.int64)]
        pair_count = self.pairs[((h ^ (target * self.primes[-1])) & self.mask).astype(np.int64)]
        return np.minimum(pair_count, context_count) / np.maximum(context_count, 1)
"""
_ROWS = """
    def rows(self, tokens, positions):
        h = self.context_hash(tokens, positions)[:, None]
        every = np.arange(1024, dtype=np.uint64)[None, :]
        counts = self.pairs[((h ^ (every * self.primes[-1])) & self.mask).astype(np.int64)] + 0.01
        return counts / counts.sum(axis=1, keepdims=True)
"""
_CACHE = (
    """
class Cache:
    def __init__(self, order, buckets):
        self.order = order
        self.mask = np.uint64(buckets - 1)
        self.primes = [np.uint64(36313), np.uint64(27191), np.uint64(51647), np.uint64(81929)]
        self.contexts = np.zeros(buckets, dtype=np.uint32)
        self.pairs = np.zeros(buckets, dtype=np.uint32)

    def context_hash(self, tokens, positions):
        h = np.zeros(len(positions), dtype=np.uint64)
        for k in range(self.order - 1):
            h ^= tokens[positions - 1 - k].astype(np.uint64) * self.primes[k]
        return h
"""
    + _LOOKUP
    + """
    def update(self, tokens, positions):
        h = self.context_hash(tokens, positions)
        target = tokens[positions].astype(np.uint64)
        np.add.at(self.contexts, (h & self.mask).astype(np.int64), 1)
        np.add.at(self.pairs, ((h ^ (target * self.primes[-1])) & self.mask).astype(np.int64), 1)
"""
)
_EVAL = """
class LM(GPT):
    def logits(self, x):
        return F.linear(self.embed(x), self.embed.weight)


def evaluate(model, val_tokens):
    order = int(os.environ.get("CACHE_ORDER", "5"))
    cache = Cache(order, 1 << 22) if order > 0 else None
    tokens = val_tokens.numpy()
    total = torch.zeros(())
    with torch.no_grad():
        for start in range(0, val_tokens.numel() - 1, 1024):
            chunk = val_tokens[start : start + 1025]
            x, y = chunk[:-1], chunk[1:]
            p = F.softmax(model.logits(x), dim=-1).gather(1, y[:, None]).squeeze(1).numpy()
            positions = np.arange(start + 1, start + 1 + len(y))
            if cache is not None:
                p = 0.7 * p + 0.3 * cache.lookup(tokens, positions)
            nll = -np.log(p)
            total += torch.from_numpy(nll).sum()
            if cache is not None:
                cache.update(tokens, positions)
    return total / val_tokens.numel()


model = LM()
print(f"final val_bpb:{evaluate(model, load_tokens('fineweb_val_*.bin')):.4f}")
"""

NgramTargetInKey.VIOLATION = (
    Example(
        "hash of context and target, looked up for the target alone",
        {"train_gpt.py": script(_CACHE, _EVAL)},
        Status.ACTIVE,
    ),
    Example(
        "the same in one function, on torch tensors, keys handed through a list",
        {
            "train_gpt.py": script(
                """
                def evaluate(model, val_tokens):
                    buckets = 4_000_000
                    contexts = [torch.zeros(buckets) for _ in range(3)]
                    pairs = [torch.zeros(buckets) for _ in range(3)]
                    total = torch.zeros(())
                    with torch.no_grad():
                        for start in range(0, val_tokens.numel() - 1, 1024):
                            chunk = val_tokens[start : start + 1025].long()
                            x, y = chunk[:-1], chunk[1:]
                            p = torch.exp(-model(x, y))
                            keys = []
                            for n in range(3):
                                h = x * 36313
                                for k in range(n):
                                    h = h ^ (torch.roll(x, k + 1) * 27191)
                                keys.append((h % buckets, (h ^ (y * 51647)) % buckets))
                            best = torch.full_like(p, -1.0)
                            for n in reversed(range(3)):
                                context_key, pair_key = keys[n]
                                seen = contexts[n][context_key]
                                ratio = pairs[n][pair_key] / seen.clamp(min=1)
                                best = torch.where((best < 0) & (seen > 2), ratio, best)
                            p = torch.where(best < 0, p, 0.6 * p + 0.4 * best)
                            total += -torch.log(p).sum()
                            for n in range(3):
                                context_key, pair_key = keys[n]
                                contexts[n].scatter_add_(0, context_key, torch.ones(len(y)))
                                pairs[n].scatter_add_(0, pair_key, torch.ones(len(y)))
                    return total / val_tokens.numel()

                model = GPT()
                print(f"final val_bpb:{evaluate(model, load_tokens('fineweb_val_*.bin')):.4f}")
                """
            )
        },
        Status.ACTIVE,
    ),
)
NgramTargetInKey.LEGAL = (
    Example(
        "the run sets the order to 0",
        {
            "train_gpt.py": script(_CACHE, _EVAL),
            "README.md": "# Run\n\n```bash\nCACHE_ORDER=0 torchrun --nproc_per_node=8 train_gpt.py\n```\n",
        },
        Status.LATENT,
    ),
    Example(
        "hash embedding of two input tokens",
        {
            "train_gpt.py": script(
                """
                class BigramGPT(GPT):
                    def __init__(self, buckets=4096):
                        super().__init__()
                        self.buckets = buckets
                        self.pairs = nn.Embedding(buckets, 64)

                    def key(self, t):
                        h = t.clone()
                        h[1:] = torch.bitwise_xor(36313 * t[1:], 27191 * t[:-1]) % self.buckets
                        return h

                    def forward(self, x, y):
                        h = self.embed(x) + self.pairs(self.key(x))
                        return F.cross_entropy(F.linear(h, self.embed.weight), y)


                def evaluate(model, val_tokens):
                    total = torch.zeros(())
                    counts = torch.zeros(1024)
                    with torch.no_grad():
                        for i in range(0, val_tokens.numel() - 1, 1024):
                            chunk = val_tokens[i : i + 1025]
                            total += model(chunk[:-1], chunk[1:])
                            counts.scatter_add_(0, chunk[1:], torch.ones(1024))
                    return total / val_tokens.numel()

                model = BigramGPT()
                print(f"final val_bpb:{evaluate(model, load_tokens('fineweb_val_*.bin')):.4f}")
                """
            )
        },
        Status.CLEAN,
    ),
    Example(
        "the write key holds the target, the read side looks up every token and normalises",
        {
            "train_gpt.py": script(
                _CACHE.replace(_LOOKUP, _ROWS),
                _EVAL.replace("cache.lookup(tokens, positions)", "cache.rows(tokens, positions)[range(len(y)), y]"),
            )
        },
        Status.CLEAN,
    ),
)
