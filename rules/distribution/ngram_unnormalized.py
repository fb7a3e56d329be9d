"""A blend that is evaluated for the realised target alone and does not sum to one over the vocabulary.

**What it catches.** The model's probability of the token that comes is mixed with a count-based one,
`(1 - a) * p[y] + a * count[y] / total`, where the second term is no distribution: the count comes from a hashed table
that other tokens share; the total is another table's count and not the sum over the vocabulary; or the term is only
mixed in where the realised token was seen before (`if count > 0`), so that a token that was not seen keeps its full
model probability. Dirichlet smoothing `(count + c * p) / (total + c)` over hashed counts is the same.

**Why it breaks the score.** Bits per byte are only comparable if the probabilities of all tokens add up to one at every
position (condition C2 of issue #1017). Hashed caches of this kind add up to hundreds; blending only on a hit gives the
hit's tokens probability that nobody else loses.

**Legal look-alikes.** Exact tables divided by the sum of the row that the token is an entry of, mixed with a
weight that does not depend on the token; the whole vocabulary looked up and normalised; a hint token
raised with its closed-form normaliser `Z = 1 + p_h * (e^b - 1)`; a log-softmax over biased logits.

**How it is read.** From the reported figure the assignments are followed back to every quotient of two table reads, as
for `ngram-target-in-key`. A hashed upper key is active; so is a row gathered over the hashed vocabulary and
divided by another table's count, and an exact row that is only used where the realised token's own count is not zero.
Where an exact count is divided by a total that is kept in a second table, a person must look at whether both are
counted together.

**Remedy.** Divide by the sum over the vocabulary and mix with a weight fixed before the token is known.

**Ruling.** Organiser, 27 March 2026 (#677 and the closures of that day): hashed caches "do not renormalize correctly";
#1026: a blend computed for the target token only is invalid. Settled for hashed tables.
"""

from __future__ import annotations

from auditor.index.tables import Form, Gate, Ratio
from auditor.reading import Reading
from auditor.verdict import Confidence, Effect, Status
from rules.base import Example, Finding, Rule
from rules.distribution.caches import lookup_suspect, not_reported, ratio_evidence, undecided
from rules.examples import script

WHY = {
    Form.HASHED: "comes from a hashed table that other tokens share, for the realised token alone",
    Form.FOREIGN: "is divided by another table's count, not by the sum over the vocabulary",
}


class NgramUnnormalized(Rule):
    """See the module's documentation."""

    slug = "ngram-unnormalized"
    group = "distribution"
    title = "a blend evaluated for the realised target alone, or wrongly normalised"
    official = Effect.VIOLATION
    strict = Effect.VIOLATION
    evidence = ("code", "probe")
    precedents = (
        "organiser on #677, 27 Mar 2026: hashed caches do not renormalise correctly",
        "organiser on #1026: blending for the target token only, without renormalising, is invalid",
        "legal: #978 (row divided by its own sum), #1514 (closed-form normaliser)",
    )

    def check(self, reading: Reading) -> Finding:
        problem = reading.unreadable()
        if problem is not None:
            return Finding(Status.UNKNOWN, f"The code could not be read: {problem}.", Confidence.HIGH)
        tables = reading.tables
        ratios = tables.ratios
        for form, why in WHY.items():
            wrong = [r for r in ratios if r.form is form]
            if wrong:
                return self._active(reading, wrong[0], f"A count behind the reported figure {why}.")
        gated = [g for g in tables.gates if g.ratio.form in (Form.COLUMN, Form.ROW)] if ratios else []
        if gated:
            return self._active(
                reading,
                gated[0].ratio,
                "A count-based probability is mixed in only where the realised token's own count is not zero: tokens"
                " that were not seen keep their full probability.",
                gated[0],
            )
        elsewhere = [r for r in tables.elsewhere if r.form in WHY] if tables.present else []
        if elsewhere:
            return not_reported(reading, elsewhere[0], "a count-based probability that is not normalised")
        if tables.lookups:
            return lookup_suspect(reading, "whether the count is used for the realised token alone")
        column = [r for r in ratios if r.form is Form.COLUMN]
        if column:
            return Finding(
                Status.SUSPECT,
                "An exact count of the realised token is divided by a total from a second table: look at whether both"
                " are counted together for every token, and whether what it is mixed with is a distribution.",
                Confidence.LOW,
                ratio_evidence(reading, column[0]),
            )
        if ratios:
            return Finding(
                Status.CLEAN,
                "The counts behind the reported figure are divided by the sum of their own row.",
                Confidence.MEDIUM,
                ratio_evidence(reading, ratios[0]),
            )
        return Finding(
            Status.CLEAN,
            "No probability made of counts is on the way to the reported figure.",
            Confidence.HIGH if tables.starts else Confidence.MEDIUM,
        )

    @staticmethod
    def _active(reading: Reading, ratio: Ratio, reason: str, gate: Gate | None = None) -> Finding:
        evidence = ratio_evidence(reading, ratio)
        if gate is not None:
            evidence = (reading.evidence(gate.site.program, gate.node, "decided by the token being scored"), *evidence)
        return undecided(reading, ratio) or Finding(
            Status.ACTIVE,
            reason,
            Confidence.HIGH if reading.reported.in_log else Confidence.MEDIUM,
            evidence,
            reading.call_path(reading.tables.starts[0]) if reading.tables.starts else (),
        )


_ROW = """
class Cache:
    def __init__(self, vocab):
        self.vocab = vocab
        self.rows = {}

    def probability(self, context, target):
        row = self.rows.get(context)
        if row is None:
            return 1.0 / self.vocab
        return (row.get(target, 0) + 0.1) / (sum(row.values()) + 0.1 * self.vocab)

    def update(self, context, target):
        row = self.rows.setdefault(context, {})
        row[target] = row.get(target, 0) + 1


class LM(GPT):
    def logits(self, x):
        return F.linear(self.embed(x), self.embed.weight)


def evaluate(model, val_tokens):
    cache = Cache(1024)
    total = 0.0
    with torch.no_grad():
        for start in range(0, val_tokens.numel() - 1, 1024):
            chunk = val_tokens[start : start + 1025]
            x, y = chunk[:-1], chunk[1:]
            p = F.softmax(model.logits(x), dim=-1).gather(1, y[:, None]).squeeze(1).tolist()
            context, target = x.tolist(), y.tolist()
            for t in range(len(p)):
                q = cache.probability(context[t], target[t])
                total -= np.log(0.9 * p[t] + 0.1 * q)
            for t in range(len(p)):
                cache.update(context[t], target[t])
    return total / val_tokens.numel()


print(f"final val_bpb:{evaluate(LM(), load_tokens('fineweb_val_*.bin')):.4f}")
"""
_GATHERED = """
class LM(GPT):
    def logits(self, x):
        return F.linear(self.embed(x), self.embed.weight)


def evaluate(model, val_tokens):
    contexts, pairs = torch.zeros(1 << 20), torch.zeros(1 << 20)
    every = torch.arange(1024)
    total = torch.zeros(())
    with torch.no_grad():
        for start in range(0, val_tokens.numel() - 1, 1024):
            chunk = val_tokens[start : start + 1025].long()
            x, y = chunk[:-1], chunk[1:]
            p = F.softmax(model.logits(x), dim=-1).gather(1, y[:, None]).squeeze(1)
            row = pairs[(x[:, None] * 27191 + every[None, :] * 36313) % (1 << 20)]
            seen = row.gather(1, y[:, None]).squeeze(1)
            q = (seen + p) / (contexts[x * 27191 % (1 << 20)] + 1)
            total -= torch.log(0.9 * p + 0.1 * q).sum()
            contexts.scatter_add_(0, x * 27191 % (1 << 20), torch.ones(1024))
            pairs.scatter_add_(0, (x * 27191 + y * 36313) % (1 << 20), torch.ones(1024))
    return total / val_tokens.numel()


print(f"final val_bpb:{evaluate(LM(), load_tokens('fineweb_val_*.bin')):.4f}")
"""
_BACKOFF = """
class Cache:
    def __init__(self, vocab):
        self.vocab = vocab
        self.rows, self.sizes, self.single = {}, {}, {}

    def one(self, context, token):
        size = self.sizes.get(context, 0)
        if size == 0:
            return self.single.get(token, 0) + 0.1
        return self.rows.get((context, token), 0) + 0.1

    def row(self, context):
        scores = torch.zeros(self.vocab)
        for token in range(self.vocab):
            scores[token] = self.one(context, token)
        size = scores.sum()
        return scores / size

    def update(self, context, token):
        self.sizes[context] = self.sizes.get(context, 0) + 1
        self.single[token] = self.single.get(token, 0) + 1
        self.rows[(context, token)] = self.rows.get((context, token), 0) + 1


class LM(GPT):
    def logits(self, x):
        return F.linear(self.embed(x), self.embed.weight)


def evaluate(model, val_tokens):
    cache = Cache(1024)
    total = 0.0
    with torch.no_grad():
        for start in range(0, val_tokens.numel() - 1, 1024):
            chunk = val_tokens[start : start + 1025]
            x, y = chunk[:-1], chunk[1:]
            p = F.softmax(model.logits(x), dim=-1)
            for t in range(len(y)):
                mixed = 0.9 * p[t] + 0.1 * cache.row(int(x[t]))
                total -= torch.log(mixed[y[t]]).item()
                cache.update(int(x[t]), int(y[t]))
    return total / val_tokens.numel()


print(f"final val_bpb:{evaluate(LM(), load_tokens('fineweb_val_*.bin')):.4f}")
"""

NgramUnnormalized.VIOLATION = (
    Example(
        "the whole vocabulary is looked up in a hashed table, but divided by the count of the context",
        {"train_gpt.py": script(_GATHERED)},
        Status.ACTIVE,
    ),
    Example(
        "an exact table, mixed in only where the realised token was seen",
        {
            "train_gpt.py": script(_ROW)
            .replace(
                "        return (row.get(target, 0) + 0.1) / (sum(row.values()) + 0.1 * self.vocab)\n",
                "        count = row.get(target, 0)\n"
                "        if count == 0:\n"
                "            return None\n"
                "        return count / sum(row.values())\n",
            )
            .replace(
                "                total -= np.log(0.9 * p[t] + 0.1 * q)\n",
                "                total -= np.log(p[t] if q is None else 0.9 * p[t] + 0.1 * q)\n",
            )
        },
        Status.ACTIVE,
    ),
)
NgramUnnormalized.LEGAL = (
    Example("an exact row, smoothed and divided by its own sum", {"train_gpt.py": script(_ROW)}, Status.CLEAN),
    Example(
        "the whole vocabulary is looked up and divided by its sum",
        {"train_gpt.py": script(_GATHERED).replace("(contexts[x * 27191 % (1 << 20)] + 1)", "(row.sum(dim=1) + 1)")},
        Status.CLEAN,
    ),
    Example(
        "every token gets a score that backs off where the context is new; the row is divided by its own sum",
        {"train_gpt.py": script(_BACKOFF)},
        Status.CLEAN,
    ),
    Example(
        "a hint with its closed-form normaliser",
        {
            "train_gpt.py": script(
                """
                class LM(GPT):
                    def logits(self, x):
                        return F.linear(self.embed(x), self.embed.weight)


                def evaluate(model, val_tokens):
                    seen = torch.zeros(4096, 1024)
                    beta = 2.0
                    total = torch.zeros(())
                    with torch.no_grad():
                        for start in range(0, val_tokens.numel() - 1, 1024):
                            chunk = val_tokens[start : start + 1025].long()
                            x, y = chunk[:-1], chunk[1:]
                            log_p = F.log_softmax(model.logits(x), dim=-1)
                            count, hint = seen[x * 27191 % 4096].max(dim=1)
                            p_hint = log_p.gather(1, hint[:, None]).squeeze(1).exp()
                            nll = -log_p.gather(1, y[:, None]).squeeze(1)
                            tilted = nll - beta * (y == hint) + torch.log1p(p_hint * (np.exp(beta) - 1))
                            total += torch.where(count > 2, tilted, nll).sum()
                            seen.index_put_((x * 27191 % 4096, y), torch.ones(1024), accumulate=True)
                    return total / val_tokens.numel()

                print(f"final val_bpb:{evaluate(LM(), load_tokens('fineweb_val_*.bin')):.4f}")
                """
            )
        },
        Status.CLEAN,
    ),
)
