"""N-gram tables from training data that evaluation uses and the artifact does not count.

**What it catches.** The count tables behind the reported figure are filled from training shards by the process
that evaluates: before or during evaluation, or in training and kept in memory past it, instead of being
packed into the artifact.

**Why it breaks the score.** What crosses from training to evaluation has to fit into the 16,000,000 bytes; a table of
millions of counts in memory does not, and reading training shards during evaluation is excluded by the README.

**Legal look-alikes.** Tables filled with validation tokens that were scored before; tables of a tracker that
only weights the training loss; tables packed into the artifact and counted with it (whether their probabilities are
normalised is `ngram-unnormalized`); the same code where the run leaves it out.

**How it is read.** For each count read behind the reported figure, the writes to the same table are followed to the
calls that make them, as far as they hold the same object, and the tokens that go in to the names of the
files they are read from. Training shards are active. Where another object may be meant, or the table is read back
from a file, a person must look.

**Remedy.** Pack the table into the artifact and count it, or fill it with scored tokens only.

**Ruling.** README, 18 March 2026: no training data during evaluation "unless you pay for those bits in the <16MB
limit". #925, #944, #945 and #982 were closed under the wording for hashed caches. Tables that are packed and
normalised: unsettled.
"""

from __future__ import annotations

from auditor.index.tables import Fill, Read
from auditor.reading import Reading
from auditor.verdict import Confidence, Effect, Evidence, Status
from rules.base import Example, Finding, Rule
from rules.examples import script


class NgramTrainTables(Rule):
    """See the module's documentation."""

    slug = "ngram-train-tables"
    group = "distribution"
    title = "n-gram tables from training data used at evaluation and not counted"
    official = Effect.VIOLATION
    strict = Effect.VIOLATION
    precedents = (
        "README, 18 Mar 2026: no training data during evaluation unless you pay for those bits",
        "organiser closures of #925, #944, #945, #982 (under the wording for hashed caches)",
    )

    def check(self, reading: Reading) -> Finding:
        problem = reading.unreadable()
        if problem is not None:
            return Finding(Status.UNKNOWN, f"The code could not be read: {problem}.", Confidence.HIGH)
        tables = reading.tables
        reads: dict[object, Read] = {}
        for ratio in tables.ratios:
            reads.setdefault(ratio.numerator.root, ratio.numerator)
        for read, _ in tables.lookups if not reads else ():
            reads.setdefault(read.root, read)
        if not reads:
            return Finding(
                Status.CLEAN,
                "No probability made of counts is on the way to the reported figure.",
                Confidence.HIGH if tables.starts else Confidence.MEDIUM,
            )
        unclear: tuple[Read, Fill] | None = None
        known: tuple[Read, Fill] | None = None
        for read in reads.values():
            for fill in tables.fills(read):
                if fill.splits == {"train"} and fill.same:
                    return Finding(
                        Status.ACTIVE,
                        "The counts behind the reported figure are filled from training shards in the evaluating"
                        " process, not read from the artifact.",
                        Confidence.HIGH if reading.reported.in_log else Confidence.MEDIUM,
                        _places(reading, read, fill),
                    )
                if "train" in fill.splits:
                    unclear = unclear or (read, fill)
                elif fill.splits:
                    known = known or (read, fill)
        for read in reads.values():
            packed = tables.read_back(read)
            if packed is not None:
                return Finding(
                    Status.SUSPECT,
                    "The counts behind the reported figure are read back from a file: see whether that file is part of"
                    " the counted artifact.",
                    Confidence.LOW,
                    (
                        reading.evidence(packed[1].program, packed[0], "the table is read back here"),
                        reading.evidence(read.site.program, read.node, "counts, read"),
                    ),
                )
        if unclear is not None:
            return Finding(
                Status.SUSPECT,
                "The counts behind the reported figure may be filled from training shards: what goes in here can be"
                " read from them.",
                Confidence.LOW,
                _places(reading, *unclear),
            )
        if known is not None:
            return Finding(
                Status.CLEAN,
                "The counts behind the reported figure are filled from validation tokens only.",
                Confidence.MEDIUM,
                _places(reading, *known),
            )
        return Finding(
            Status.CLEAN,
            "No training file is seen to go into the counts behind the reported figure; what fills them could not be"
            " followed to the end.",
            Confidence.LOW,
            tuple(reading.evidence(r.site.program, r.node, "counts, read") for r in reads.values()),
        )


def _places(reading: Reading, read: Read, fill: Fill) -> tuple[Evidence, ...]:
    return (
        reading.evidence(fill.site.program, fill.node, "the table is filled here"),
        reading.evidence(read.site.program, read.node, "counts, read"),
        *(reading.at(s, "scored here") for s in reading.reported.scores[:1]),
    )


_CACHE = """
class Cache:
    def __init__(self, vocab):
        self.counts = np.zeros((vocab, vocab), dtype=np.int64)

    def update(self, tokens):
        np.add.at(self.counts, (tokens[:-1], tokens[1:]), 1)


class LM(GPT):
    def logits(self, x):
        return F.linear(self.embed(x), self.embed.weight)


def evaluate(model, val_tokens, cache):
    total = 0.0
    with torch.no_grad():
        for start in range(0, val_tokens.numel() - 1, 1024):
            chunk = val_tokens[start : start + 1025]
            x, y = chunk[:-1], chunk[1:]
            p = F.softmax(model.logits(x), dim=-1).gather(1, y[:, None]).squeeze(1).numpy()
            q = cache.counts[x.numpy(), y.numpy()] / (cache.counts[x.numpy()].sum(axis=1) + 1)
            total -= np.log(0.9 * p + 0.1 * q).sum()
            UPDATE
    return total / val_tokens.numel()
"""
_MAIN = """
cache = Cache(1024)
FILL
print(f"final val_bpb:{evaluate(LM(), load_tokens('fineweb_val_*.bin'), cache):.4f}")
"""
_FILL = "for path in glob.glob('fineweb_train_*.bin'):\n    cache.update(np.fromfile(path, dtype=np.uint16))"

NgramTrainTables.VIOLATION = (
    Example(
        "the cache is filled from training shards before the evaluation",
        {"train_gpt.py": script(_CACHE.replace("UPDATE", "pass"), _MAIN.replace("FILL", _FILL))},
        Status.ACTIVE,
    ),
    Example(
        "one table in a function, filled from training shards",
        {
            "train_gpt.py": script(
                """
                def evaluate(model, val_tokens, train_tokens):
                    counts = np.zeros((1024, 1024))
                    known = train_tokens.numpy()
                    np.add.at(counts, (known[:-1], known[1:]), 1)
                    total = 0.0
                    with torch.no_grad():
                        for start in range(0, val_tokens.numel() - 1, 1024):
                            chunk = val_tokens[start : start + 1025]
                            p = torch.exp(-model(chunk[:-1], chunk[1:])).numpy()
                            x, y = chunk[:-1].numpy(), chunk[1:].numpy()
                            q = counts[x, y] / (counts[x].sum(axis=1) + 1)
                            total -= np.log(0.9 * p + 0.1 * q).sum()
                    return total / val_tokens.numel()

                train_tokens = load_tokens("fineweb_train_*.bin")
                val_tokens = load_tokens("fineweb_val_*.bin")
                print(f"final val_bpb:{evaluate(GPT(), val_tokens, train_tokens):.4f}")
                """
            )
        },
        Status.ACTIVE,
    ),
)
NgramTrainTables.LEGAL = (
    Example(
        "filled with the chunk that was scored",
        {"train_gpt.py": script(_CACHE.replace("UPDATE", "cache.update(chunk.numpy())"), _MAIN.replace("FILL", ""))},
        Status.CLEAN,
    ),
    Example(
        "another object of the same class counts training tokens, for the training loss",
        {
            "train_gpt.py": script(
                _CACHE.replace("UPDATE", "cache.update(chunk.numpy())"),
                _MAIN.replace("FILL", "tracker = Cache(1024)\n" + _FILL.replace("cache.", "tracker.")),
            )
        },
        Status.CLEAN,
    ),
)
