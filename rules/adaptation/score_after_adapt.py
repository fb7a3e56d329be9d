"""A span is trained on, and then scored by the parameters that were trained on it.

**What it catches.** Inside the evaluation that is reported, each chunk, window or document is first adapted to (an
optimiser steps on a loss over its tokens) and then scored with the adapted weights or adapters.

**Why it breaks the score.** The score of a token no longer comes from a model that has not seen it: the token took
part, as a target, in an update made before it was scored (condition C3 of issue #1017). The same holds for a table
of counts that is updated with a span before the span is scored with it.

**Legal look-alikes.** Score-first: the chunk's loss is added to the reported sum, then the chunk is trained on, for
any number of epochs. A training loss taken from the same forward pass that is scored: the pass ran before the step.
Per-document adapters trained on the part of a document already scored; global SGD over documents already scored;
training on the *previous* chunk before the next is scored; adaptation whose weights are restored before scoring. A
phase over all validation tokens that ends before the reported evaluation begins is `prequant-ttt`; a loop of epochs
that scores the same tokens again is `epoch-rescore`; tensors made for one window and dropped after it are SLOT
(`slot-scored-region`).

**How it is read.** In the trace, the step and the score happen in one execution of the same loop, the step first,
and the forward pass that gave the score ran after the step. Both must depend on the same cut of the validation
tokens in that round: then it is active. If the cuts cannot be shown to be the same, it is suspect.

**Remedy.** Score each span first and add its loss to the sum, then train on it.

**Ruling.** README, 20 March 2026: test-time training only on tokens already evaluated. Organiser sweep of 24 March
2026: adapt-then-score is training on the validation set. Settled.
"""

from __future__ import annotations

from auditor.index.adaptation import Order, Relation, counted_first, repeats
from auditor.index.batch_rows import exchanged, row_picks
from auditor.index.trace import Kind
from auditor.reading import Reading
from auditor.verdict import Confidence, Effect, Evidence, Status
from rules.adaptation import order
from rules.base import Example, Finding, Rule
from rules.examples import script


class ScoreAfterAdapt(Rule):
    """See the module's documentation."""

    slug = "score-after-adapt"
    group = "adaptation"
    title = "a span is scored after state was updated with it"
    official = Effect.VIOLATION
    strict = Effect.VIOLATION
    evidence = ("code", "probe")
    precedents = (
        "README, 20 Mar 2026: test-time training only on tokens already evaluated",
        "organiser, 24 Mar 2026: adapt-then-score is training on the validation set",
        "legal: #549, #1413, #1493, #1514 (score-first, several epochs), #77, #1530 (per-document adapters)",
    )

    def check(self, reading: Reading) -> Finding:
        problem = reading.unreadable()
        if problem is not None:
            return Finding(Status.UNKNOWN, f"The code could not be read: {problem}.", Confidence.HIGH)
        found = [*reading.relations, *counted_first(reading.trace, reading.reported.scores)]
        wanted = [r for r in found if r.order is Order.TRAINED_FIRST]
        weighed = order.weigh(reading, wanted)
        if weighed.ran is not None:
            return order.happened(
                reading,
                weighed.ran,
                weighed.shown,
                f"{weighed.ran.step.frames[-1].function} trains on each span before the same span is scored with the"
                " changed parameters."
                if weighed.ran.step.kind is Kind.STEP
                else f"{weighed.ran.step.frames[-1].function} counts each span into a table before the same span is"
                " scored with that table.",
                _places(reading, weighed.ran),
            )
        unclear = [r for r in found if r.order is Order.UNCLEAR and not _epochs(r)]
        if unclear and (picks := [p for index in reading.opened() for p in row_picks(index)]):
            # A score with other documents' adapters stands under cross-row-adaptation alone.
            unclear = [r for r in unclear if exchanged(picks, r.score) is None]
        doubt = weighed.open or order.weigh(reading, unclear).ran
        if doubt is not None:
            why = weighed.why or "whether it trains on tokens of the span that it then scores could not be shown"
            return order.left_open(
                reading,
                doubt,
                f"{doubt.step.frames[-1].function}"
                + (" trains on" if doubt.step.kind is Kind.STEP else " counts")
                + f" validation tokens and then scores, in one round of a loop; {why}.",
                _places(reading, doubt),
            )
        if weighed.idle is not None:
            return order.did_not_run(reading, weighed.idle, "trains on each span before scoring it")
        latent = order.switched_off(
            reading, lambda r: r.order is Order.TRAINED_FIRST, "trains on each span before scoring it"
        )
        return latent or order.clean(reading, found)


def _epochs(relation: Relation) -> bool:
    return relation.loop is not None and repeats(relation.loop, relation.score)


def _places(reading: Reading, relation: Relation) -> tuple[Evidence, ...]:
    return (
        reading.at(
            relation.step, "trained on here, first" if relation.step.kind is Kind.STEP else "counted here, first"
        ),
        reading.at(relation.score, "scored here, afterwards"),
    )


_BASE = """
def evaluate(model, val_tokens, rounds):
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    loss_sum = torch.zeros(())
    for i in range(0, val_tokens.numel() - 1, 1024):
        chunk = val_tokens[i : i + 1025]
        x, y = chunk[:-1], chunk[1:]
        for _ in range(rounds):
            optimizer.zero_grad()
            loss = model(x, y)
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            loss_sum += model(x, y)
    return loss_sum / val_tokens.numel()
"""
_MAIN = """
model = GPT()
val_tokens = load_tokens("fineweb_val_*.bin")
if int(os.environ.get("TTT_ENABLED", "1")):
    print(f"final val_bpb:{evaluate(model, val_tokens, 3):.4f}")
"""

ScoreAfterAdapt.VIOLATION = (
    Example("each chunk is trained on, then scored", {"train_gpt.py": script(_BASE, _MAIN)}, Status.ACTIVE),
    Example(
        "through helpers: an adapter is fitted to a document, then the document is scored with it",
        {
            "train_gpt.py": script(
                """
                class Adapter(nn.Module):
                    def __init__(self, dim=64):
                        super().__init__()
                        self.a = nn.Parameter(torch.zeros(dim, 4))

                def fit(model, adapter, document):
                    optimizer = torch.optim.Adam(adapter.parameters(), lr=1e-2)
                    for _ in range(5):
                        optimizer.zero_grad()
                        model(document[:-1] + adapter(document[:-1]), document[1:]).backward()
                        optimizer.step()

                def score(model, adapter, document):
                    with torch.no_grad():
                        return model(document[:-1] + adapter(document[:-1]), document[1:])

                def evaluate(model, val_tokens):
                    starts = (val_tokens == 1).nonzero().flatten().tolist()
                    total = torch.zeros(())
                    for start, end in zip(starts, starts[1:]):
                        document = val_tokens[start:end]
                        adapter = Adapter()
                        fit(model, adapter, document)
                        total += score(model, adapter, document)
                    return total / val_tokens.numel()

                model = GPT()
                print(f"final val_bpb:{evaluate(model, load_tokens('fineweb_val_*.bin')):.4f}")
                """,
            )
        },
        Status.ACTIVE,
    ),
    Example(
        "a cache that is updated with each chunk before the chunk is scored with it",
        {
            "train_gpt.py": script(
                """
                def evaluate(model, val_tokens, rounds):
                    counts = np.zeros((1024, 1024))
                    total = 0.0
                    for i in range(0, val_tokens.numel() - 1, 1024):
                        chunk = val_tokens[i : i + 1025]
                        x, y = chunk[:-1], chunk[1:]
                        np.add.at(counts, (x, y), 1)
                        with torch.no_grad():
                            p = F.softmax(model(x, None), dim=-1).gather(-1, y[:, None]).squeeze(-1)
                        total -= torch.log(0.9 * p + 0.1 * counts[x, y] / counts[x].sum(-1)).sum()
                    return total / val_tokens.numel()
                """,
                _MAIN,
            )
        },
        Status.ACTIVE,
    ),
)
ScoreAfterAdapt.LEGAL = (
    Example(
        "prompt vectors computed from the window by the network, copied off and optimised: the slot rules judge these",
        {
            "train_gpt.py": script(
                """
                def start_vectors(model, x):
                    return model.embed(x).mean(dim=1, keepdim=True)

                def evaluate(model, val_tokens, rounds):
                    loss_sum = torch.zeros(())
                    for i in range(0, val_tokens.numel() - 1, 1024):
                        chunk = val_tokens[i : i + 1025]
                        x, y = chunk[None, :-1], chunk[None, 1:]
                        vectors = start_vectors(model, x).detach().clone().requires_grad_(True)
                        optimizer = torch.optim.AdamW([vectors], lr=1e-2)
                        for _ in range(rounds):
                            optimizer.zero_grad()
                            F.cross_entropy(model.with_prompt(x, vectors)[0], y[0]).backward()
                            optimizer.step()
                        with torch.no_grad():
                            loss_sum += F.cross_entropy(model.with_prompt(x, vectors)[0], y[0], reduction="sum")
                    return loss_sum / val_tokens.numel()
                """,
                _MAIN,
            )
        },
        Status.CLEAN,
    ),
    Example(
        "trained and scored in one round, on cuts that may or may not be the same",
        {
            "train_gpt.py": script(
                _BASE.replace(
                    "            loss = model(x, y)\n",
                    "            j = max(i - int(os.environ.get('BACK', '0')), 0)\n"
                    "            loss = model(val_tokens[j : j + 1024], val_tokens[j + 1 : j + 1025])\n",
                ),
                _MAIN,
            )
        },
        Status.SUSPECT,
    ),
    Example(
        "score-first: the chunk is scored, then trained on for three epochs",
        {
            "train_gpt.py": script(
                """
                def evaluate(model, val_tokens, rounds):
                    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
                    loss_sum = torch.zeros(())
                    for i in range(0, val_tokens.numel() - 1, 1024):
                        chunk = val_tokens[i : i + 1025]
                        x, y = chunk[:-1], chunk[1:]
                        with torch.no_grad():
                            loss_sum += model(x, y)
                        for _ in range(rounds):
                            optimizer.zero_grad()
                            model(x, y).backward()
                            optimizer.step()
                    return loss_sum / val_tokens.numel()
                """,
                _MAIN,
            )
        },
        Status.CLEAN,
    ),
    Example(
        "the scored loss is the training loss, from the pass before the step",
        {
            "train_gpt.py": script(
                """
                def evaluate(model, val_tokens, rounds):
                    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
                    total = 0.0
                    for i in range(0, val_tokens.numel() - 1, 1024):
                        chunk = val_tokens[i : i + 1025]
                        loss = model(chunk[:-1], chunk[1:])
                        optimizer.zero_grad()
                        loss.backward()
                        optimizer.step()
                        total += loss.item()
                    return total / val_tokens.numel()
                """,
                _MAIN,
            )
        },
        Status.CLEAN,
    ),
    Example(
        "the adapted weights are put back before scoring",
        {
            "train_gpt.py": script(
                _BASE.replace(
                    "        for _ in range(rounds):",
                    "        saved = {k: v.clone() for k, v in model.state_dict().items()}\n"
                    "        for _ in range(rounds):",
                ).replace(
                    "        with torch.no_grad():",
                    "        model.load_state_dict(saved)\n        with torch.no_grad():",
                ),
                _MAIN,
            )
        },
        Status.CLEAN,
    ),
    Example(
        "tensors of one window only: the slot rules judge these",
        {
            "train_gpt.py": script(
                """
                def evaluate(model, val_tokens, rounds):
                    total = torch.zeros(())
                    for i in range(0, val_tokens.numel() - 1, 1024):
                        chunk = val_tokens[i : i + 1025]
                        delta = torch.zeros(1, 64, requires_grad=True)
                        optimizer = torch.optim.AdamW([delta], lr=1e-2)
                        for _ in range(rounds):
                            optimizer.zero_grad()
                            model(chunk[:-1] + delta, chunk[1:]).backward()
                            optimizer.step()
                        with torch.no_grad():
                            total += model(chunk[:-1] + delta, chunk[1:])
                    return total / val_tokens.numel()
                """,
                _MAIN,
            )
        },
        Status.CLEAN,
    ),
    Example(
        "a cache that is updated with each chunk after the chunk was scored",
        {
            "train_gpt.py": script(
                """
                def evaluate(model, val_tokens, rounds):
                    counts = np.zeros((1024, 1024))
                    total = 0.0
                    for i in range(0, val_tokens.numel() - 1, 1024):
                        chunk = val_tokens[i : i + 1025]
                        x, y = chunk[:-1], chunk[1:]
                        with torch.no_grad():
                            p = F.softmax(model(x, None), dim=-1).gather(-1, y[:, None]).squeeze(-1)
                        total -= torch.log(0.9 * p + 0.1 * counts[x, y] / counts[x].sum(-1)).sum()
                        np.add.at(counts, (x, y), 1)
                    return total / val_tokens.numel()
                """,
                _MAIN,
            )
        },
        Status.CLEAN,
    ),
    Example(
        "switched off by the launch command",
        {
            "train_gpt.py": script(
                _BASE,
                """
                model = GPT()
                val_tokens = load_tokens("fineweb_val_*.bin")
                with torch.no_grad():
                    total = torch.zeros(())
                    total += model(val_tokens[:-1], val_tokens[1:])
                print(f"plain val_bpb:{total:.4f}")
                if int(os.environ.get("TTT_ENABLED", "0")):
                    print(f"final val_bpb:{evaluate(model, val_tokens, 3):.4f}")
                """,
            )
        },
        Status.LATENT,
    ),
)
