"""The loss that is reported was taken again after epochs of training on the same tokens.

**What it catches.** Inside the reported evaluation a document or chunk is gone through several times; each round
scores it and trains on it, and what is reported is the loss of the last round, of the best one, or of all of them.
Also: a whole pass scores and trains for several epochs, everything is scored again after it, and that is reported.

**Why it breaks the score.** From the second round on, the tokens are scored by parameters that were trained on
them: it is the same as training on the validation set (conditions C3 and C4 of issue #1017).

**Legal look-alikes.** Several epochs of training on a chunk *after* its score was taken once; a loop of epochs whose
score is frozen in its first round (`if epoch == 0`); one epoch; a loop of rounds in which the adapter is reset; a
loss that is only printed to follow the training and is not part of the reported sum.

**How it is read.** In the trace, the score that feeds the reported number and the step share a loop with a known
number of rounds (more than one) whose counter has no part in the choice of the scored tokens, so that each round
scores the same ones; the stepped parameters are not made anew, reset or reloaded inside that loop; and the conditions
on the counter do not limit the score to the first round.

**Remedy.** Add the loss to the sum once, before the first step on these tokens.

**Ruling.** Organiser, 24 to 28 March 2026, on #512, #568, #684, #771, #991: evaluating a document, training on it for
several epochs and reporting the loss after training is training on the test set. Settled.
"""

from __future__ import annotations

from auditor.index.adaptation import Order, Relation, Rescoring, moves, number_of_rounds, repeats
from auditor.index.trace import Loop
from auditor.reading import Reading
from auditor.verdict import Confidence, Effect, Evidence, Status
from rules.adaptation import order
from rules.base import Example, Finding, Rule
from rules.examples import script


class EpochRescore(Rule):
    """See the module's documentation."""

    slug = "epoch-rescore"
    group = "adaptation"
    title = "loss re-reported after training epochs on the same tokens"
    official = Effect.VIOLATION
    strict = Effect.VIOLATION
    evidence = ("code", "probe")
    precedents = (
        "organiser on #568: evaluates a document, trains on it for several epochs, reports the loss after training",
        "organiser on #991: s_0 is trained to s_1, and s_1 is reported",
        "legal: #549, #1413, #1493, #1514 (several epochs after the score was taken)",
    )

    def check(self, reading: Reading) -> Finding:
        problem = reading.unreadable()
        if problem is not None:
            return Finding(Status.UNKNOWN, f"The code could not be read: {problem}.", Confidence.HIGH)
        found = reading.relations
        weighed = order.weigh(reading, [r for r in found if r.order is Order.SCORED_AGAIN])
        if weighed.ran is not None:
            rounds = number_of_rounds(weighed.ran.loop) if weighed.ran.loop is not None else None
            kept = {
                "last": "the last one is kept",
                "every": "every one's loss goes on to the reported number",
                "some": "later ones are kept",
            }[weighed.ran.kept]
            return order.happened(
                reading,
                weighed.ran,
                weighed.shown,
                f"{weighed.ran.score.frames[-1].function} scores and trains on the same tokens in"
                f" {rounds or 'several'} rounds, and {kept}: the reported loss follows training on the scored tokens.",
                _places(reading, weighed.ran),
            )
        for case in reading.rescorings:
            epochs = _epochs_of(case)
            if epochs is not None and reading.ran(case.state)[0] is not False and not order.unknown_setting(case.state):
                return order.happened(
                    reading,
                    Relation(case.state, case.score, Order.SCORED_AGAIN, epochs),
                    None,
                    f"{case.state.frames[-1].function} scores the tokens and trains on them in"
                    f" {number_of_rounds(epochs) or 'several'} rounds, and the loss that is reported is taken again"
                    " afterwards.",
                    (
                        *((reading.at(case.first, "scored here, first"),) if case.first is not None else ()),
                        reading.at(case.state, "trained on here, in each round"),
                        reading.at(case.score, "scored again here, and reported"),
                    ),
                )
        doubt = weighed.open or order.weigh(reading, [r for r in found if r.order is Order.UNCLEAR and _epochs(r)]).ran
        if doubt is not None:
            why = weighed.why or "how many rounds there are, or which of them is kept, could not be shown"
            return order.left_open(
                reading,
                doubt,
                f"A loop scores and trains on the same tokens round by round; {why}.",
                _places(reading, doubt),
            )
        if weighed.idle is not None:
            return order.did_not_run(reading, weighed.idle, "scores the same tokens again after training on them")
        latent = order.switched_off(
            reading,
            lambda r: r.order is Order.SCORED_AGAIN or (r.order is Order.UNCLEAR and _epochs(r)),
            "scores the same tokens again after training on them",
        )
        return latent or order.clean(reading, found)


def _epochs_of(case: Rescoring) -> Loop | None:
    """The loop of epochs around the step of a first pass whose tokens a later pass scores again."""
    if case.proof != "phase" or case.first is None:
        return None
    around = {loop.id for loop in case.first.loops}
    for loop in case.state.loops:
        known = "const" in loop.roles and number_of_rounds(loop) != 1
        if loop.id not in around and known and not moves(case.state.roles, loop):
            return loop
    return None


def _epochs(relation: Relation) -> bool:
    return relation.loop is not None and repeats(relation.loop, relation.score)


def _places(reading: Reading, relation: Relation) -> tuple[Evidence, ...]:
    loop = relation.loop
    around = () if loop is None else (reading.evidence(relation.score.program, loop.node, "goes over the same tokens"),)
    return (
        *around,
        reading.at(relation.score, "scored here, in a round that follows training"),
        reading.at(relation.step, "trained on here, in each round"),
    )


_BASE = """
class Adapter(nn.Module):
    def __init__(self, dim=64):
        super().__init__()
        self.a = nn.Parameter(torch.zeros(dim, 4))

    def reset(self):
        with torch.no_grad():
            self.a.zero_()


def evaluate(model, val_tokens, epochs):
    starts = (val_tokens == 1).nonzero().flatten().tolist()
    adapter = Adapter()
    optimizer = torch.optim.Adam(adapter.parameters(), lr=1e-2)
    total = torch.zeros(())
    for start, end in zip(starts, starts[1:]):
        document = val_tokens[start:end]
        adapter.reset()
        document_loss = torch.zeros(())
        for epoch in range(epochs):
            document_loss.zero_()
            for place in range(0, end - start - 1, 256):
                piece = document[place : place + 257]
                loss = model(piece[:-1] + adapter(piece[:-1]), piece[1:])
                document_loss += loss.detach()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        total += document_loss
    return total / val_tokens.numel()
"""
_MAIN = """
model = GPT()
epochs = int(os.environ.get("TTT_EPOCHS", "3"))
print(f"final val_bpb:{evaluate(model, load_tokens('fineweb_val_*.bin'), epochs):.4f}")
"""

EpochRescore.VIOLATION = (
    Example(
        "the document's loss is taken anew in every epoch, the last one is reported",
        {"train_gpt.py": script(_BASE, _MAIN)},
        Status.ACTIVE,
    ),
    Example(
        "the loss is added in the last epoch only",
        {
            "train_gpt.py": script(
                _BASE.replace("            document_loss.zero_()\n", "").replace(
                    "                document_loss += loss.detach()",
                    "                if epoch == epochs - 1:\n                    document_loss += loss.detach()",
                ),
                _MAIN,
            )
        },
        Status.ACTIVE,
    ),
)
EpochRescore.LEGAL = (
    Example(
        "the score is frozen in the first epoch",
        {
            "train_gpt.py": script(
                _BASE.replace("            document_loss.zero_()\n", "").replace(
                    "                document_loss += loss.detach()",
                    "                if epoch == 0:\n                    document_loss += loss.detach()",
                ),
                _MAIN,
            )
        },
        Status.CLEAN,
    ),
    Example(
        "one epoch, by the launch command",
        {
            "train_gpt.py": script(_BASE, _MAIN),
            "README.md": "# Run\n\n```bash\nTTT_EPOCHS=1 torchrun --nproc_per_node=8 train_gpt.py\n```\n",
        },
        Status.CLEAN,
    ),
    Example(
        "scored once, then trained on for several epochs",
        {
            "train_gpt.py": script(
                """
                def evaluate(model, val_tokens, epochs):
                    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
                    total = torch.zeros(())
                    position = 0
                    while position < val_tokens.numel() - 1:
                        chunk = val_tokens[position : position + 1025]
                        with torch.no_grad():
                            total += model(chunk[:-1], chunk[1:])
                        for epoch in range(epochs):
                            optimizer.zero_grad()
                            model(chunk[:-1], chunk[1:]).backward()
                            optimizer.step()
                        position += 1024
                    return total / val_tokens.numel()
                """,
                _MAIN,
            )
        },
        Status.CLEAN,
    ),
    Example(
        "a fixed number of chunks, each scored before it is trained on: the counter chooses the tokens",
        {
            "train_gpt.py": script(
                """
                def evaluate(model, val_tokens, chunks):
                    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
                    total = torch.zeros(())
                    bounds = [k * 4096 for k in range(chunks + 1)]
                    for chunk in range(chunks):
                        window = val_tokens[bounds[chunk] : bounds[chunk + 1]]
                        with torch.no_grad():
                            total += model(window[:-1], window[1:])
                        optimizer.zero_grad()
                        model(window[:-1], window[1:]).backward()
                        optimizer.step()
                    return total / val_tokens.numel()
                """,
                _MAIN,
            )
        },
        Status.CLEAN,
    ),
    Example(
        "the adapter is reset in every round, and only the rounds' settings differ",
        {
            "train_gpt.py": script(
                _BASE.replace("            document_loss.zero_()\n", "            adapter.reset()\n").replace(
                    "                optimizer.zero_grad()\n                loss.backward()\n"
                    "                optimizer.step()\n",
                    "                optimizer.zero_grad()\n                loss.backward()\n"
                    "                optimizer.step()\n                adapter.reset()\n",
                ),
                _MAIN,
            )
        },
        Status.CLEAN,
    ),
)
