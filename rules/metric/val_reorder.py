"""Validation documents scored in another order than the stored one, while state is carried between them.

**What it catches.** The documents or windows of the validation set are sorted (by length, say) or shuffled, the
reported evaluation scores them in that order, and weights that it trains on scored documents are used for those that
follow: what a document is scored with depends on an order that the data set does not have.

**Why it matters.** Issue #1017 and an organiser's remark ask for the stored order; with state carried, the order is a
choice that can lower the number. Merged records do it nevertheless.

**Legal look-alikes.** Documents sorted into batches of similar length where each is scored on its own (adapters
made anew or reset for each batch, no training): the order changes nothing. Sorted file names; sorting that restores the
stored order; shuffled *training* data; sorted gradients, quantiser columns or candidates.

**How it is read.** Sorting with a key, shuffles and permutations of what comes from validation tokens leave a mark on
the order; a reported score that bears it, inside a loop in which optimiser steps on validation tokens change
parameters that are not made anew or reset in that loop, is active. Tables and caches filled along the way are not
followed here.

**Remedy.** Score in stored order, or adapt each document from the same state.

**Ruling.** Forbidden by an organiser in issue #402 ("may NOT be re-ordered"), accepted by the merges of #1530, #1610
and their successors up to #2135, which sort documents by length and adapt the base model between phases.
"""

from __future__ import annotations

from auditor.index.adaptation import relations, renewed, shared_loops
from auditor.index.trace import Event, Kind
from auditor.reading import Reading
from auditor.verdict import Confidence, Effect, Status
from rules.base import Example, Finding, Rule
from rules.examples import script


class ValReorder(Rule):
    """See the module's documentation."""

    slug = "val-reorder"
    group = "metric"
    title = "scoring order differs from the stored order while state is carried"
    official = Effect.ACCEPTED
    strict = Effect.ADVISORY
    precedents = (
        "organiser, issue #402, 23 Mar 2026: the evaluation set may not be re-ordered",
        "accepted by merge: #1530, #1610, #1626, #1855, #2135",
    )

    def check(self, reading: Reading) -> Finding:
        problem = reading.unreadable()
        if problem is not None:
            return Finding(Status.UNKNOWN, f"The code could not be read: {problem}.", Confidence.HIGH)
        trace = reading.trace
        made = {e.seq: e for e in trace.events if e.kind is Kind.ORDER}
        sorted_scores = [(s, made[max(marks)]) for s in reading.reported.scores if (marks := _orders(s) & set(made))]
        if not sorted_scores:
            return Finding(
                Status.CLEAN,
                "The reported evaluation scores in the stored order: nothing sorts or shuffles what it goes through.",
                Confidence.HIGH if reading.reported.scores else Confidence.LOW,
            )
        score, order = sorted_scores[0]
        pairs = relations(trace, [s for s, _ in sorted_scores])
        for pair in pairs:
            loops = shared_loops(pair.score, pair.step)
            # The outermost loop goes through the documents; inner ones stay within a document or batch.
            if not loops or renewed(trace, pair.step, loops[0]):
                continue
            ran, shown = reading.ran(pair.step)
            if ran is False:
                continue
            undecided = [g for g in pair.step.undecided if g.settings and "<exception>" not in g.settings]
            evidence = (
                reading.at(order, f"validation documents or windows {order.detail} here"),
                reading.at(pair.score, "scored here, in that order"),
                reading.at(pair.step, "trains on validation tokens what later rounds use"),
                *((shown,) if shown is not None else ()),
            )
            if undecided and ran is None:
                return Finding(
                    Status.SUSPECT,
                    "The reported evaluation goes through validation text in an order of its own and may carry"
                    " trained weights along: a setting on the path is not known for this run.",
                    Confidence.LOW,
                    (*evidence, *reading.guard_evidence(undecided, "condition not decided")),
                    reading.call_path(pair.step),
                )
            return Finding(
                Status.ACTIVE,
                f"Validation text is {order.detail} before it is scored, and {pair.step.frames[-1].function} carries"
                " what it trains from round to round.",
                Confidence.HIGH if ran else Confidence.MEDIUM,
                evidence,
                reading.call_path(pair.step),
            )
        return Finding(
            Status.CLEAN,
            f"Validation text is {order.detail} before it is scored, but no trained weights go from one round to the"
            " next: the order changes nothing.",
            Confidence.MEDIUM,
            (reading.at(order, f"{order.detail} here"), reading.at(score, "scored here, in that order")),
        )


def _orders(score: Event) -> set[int]:
    roles = score.roles.union(*(loop.roles for loop in score.loops))
    return {int(r.removeprefix("order:")) for r in roles if r.startswith("order:")}


_DOCUMENTS = """
def documents(tokens):
    starts = (tokens == 1).nonzero().flatten().tolist()
    return list(zip(starts, [*starts[1:], tokens.numel()]))


def evaluate(model, val_tokens):
    docs = ORDER
    loss_sum = torch.zeros(())
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for start, end in docs:
        text = val_tokens[start:end]
        with torch.no_grad():
            loss_sum += model(text[:-1], text[1:]) * (text.numel() - 1)
        TRAIN
    return loss_sum / val_tokens.numel()


model = GPT()
print(f"final val_bpb:{evaluate(model, load_tokens('fineweb_val_*.bin')):.4f}")
"""
_TRAIN = "optimizer.zero_grad(); model(text[:-1], text[1:]).backward(); optimizer.step()"


def _example(order: str, train: str) -> dict[str, str]:
    return {"train_gpt.py": script(_DOCUMENTS.replace("ORDER", order).replace("TRAIN", train))}


ValReorder.VIOLATION = (
    Example(
        "longest documents first, the weights trained on each",
        _example("sorted(documents(val_tokens), key=lambda d: d[0] - d[1])", _TRAIN),
        Status.ACTIVE,
    ),
    Example(
        "shuffled documents",
        {
            "train_gpt.py": script(
                "import random",
                _DOCUMENTS.replace("ORDER", "documents(val_tokens)\n    random.shuffle(docs)").replace("TRAIN", _TRAIN),
            )
        },
        Status.ACTIVE,
    ),
)
ValReorder.LEGAL = (
    Example(
        "sorted, but each document is scored on its own",
        _example("sorted(documents(val_tokens), key=lambda d: d[0] - d[1])", "pass"),
        Status.CLEAN,
    ),
    Example("stored order, trained along the way", _example("documents(val_tokens)", _TRAIN), Status.CLEAN),
    Example(
        "sorted back into the stored order",
        _example("sorted(documents(val_tokens))", _TRAIN),
        Status.CLEAN,
    ),
)
