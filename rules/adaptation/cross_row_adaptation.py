"""A document of a batch is scored with adapters that were trained on the other documents of that batch.

**What it catches.** The evaluation adapts a batch of documents at once, one row of an adapter tensor per document.
After the batch has been trained, each document is scored again with its neighbours' rows, and that result goes into
the reported number.

**Why it breaks the score.** The neighbours may stand later in the stream, and the document's own score was fixed
already: what is reported rests on tokens that had not come (condition C1 of issue #1017) and on a second look (C4).

**Legal look-alikes.** Independent rows: each document is scored and trained with its own row only; a reset of all rows
per batch; a warm start of all rows from one shared template; state carried forward from documents that were fully
scored before the batch; layers of a network kept in one tensor and picked by their number.

**How it is read.** A class keeps parameters whose first size is given when it is made, and its forward pass picks
rows of them by an index that is kept outside (or rolls them). The evaluation sets that index, and in the trace a score
behind the reported number is computed after the step on those adapters, in the same round of the batch loop.

**Remedy.** Score each document with its own row, before that row is trained on it.

**Ruling.** Organiser on #2139, 2 May 2026: a peer ensemble of adapters not shown to be score-first in the original
order; excluded, also for its seeds. The rows' order is the point; the same reading is used here.
"""

from __future__ import annotations

from auditor.index.adaptation import Order, Relation
from auditor.index.batch_rows import RowPick, exchanged, row_picks
from auditor.reading import Reading
from auditor.verdict import Confidence, Effect, Evidence, Status
from rules.adaptation import order
from rules.base import Example, Finding, Rule
from rules.examples import script


class CrossRowAdaptation(Rule):
    """See the module's documentation."""

    slug = "cross-row-adaptation"
    group = "adaptation"
    title = "an adapter trained on other rows of the same batch scores a row"
    official = Effect.VIOLATION
    strict = Effect.VIOLATION
    precedents = (
        "organiser on #2139, 2 May 2026: not shown to be score-first in the original order",
        "legal: #77, #1530 (independent rows per document), #807 and #1610 (state from fully scored documents)",
    )

    def check(self, reading: Reading) -> Finding:
        problem = reading.unreadable()
        if problem is not None:
            return Finding(Status.UNKNOWN, f"The code could not be read: {problem}.", Confidence.HIGH)
        found = reading.relations
        later = any(r.order in (Order.UNCLEAR, Order.TRAINED_FIRST) for r in found)
        picks = [p for index in reading.opened() for p in row_picks(index)] if later else []
        if not picks:
            rows = any(r.order is Order.SCORED_FIRST for r in found)
            return Finding(
                Status.CLEAN,
                "Spans are scored before the step that trains on them: no row is scored with what the others taught."
                if rows
                else "No score of the reported evaluation follows, in one round, a step on the adapters of a batch.",
                Confidence.LOW if reading.trace.truncated else Confidence.HIGH,
            )
        opened: tuple[Relation, RowPick] | None = None
        for relation in found:
            if relation.order not in (Order.UNCLEAR, Order.TRAINED_FIRST):
                continue
            used = exchanged(picks, relation.score)
            if used is None:
                continue
            pick, place = used
            ran, shown = reading.ran(relation.score)
            if ran is None and order.unknown_setting(relation.step, relation.score):
                opened = opened or (relation, pick)
                continue
            if ran is False:
                continue
            set_here = (
                () if place is None else (reading.evidence(relation.score.program, place, "rows exchanged here"),)
            )
            return order.happened(
                reading,
                relation,
                shown,
                f"{relation.score.frames[-1].function} scores the documents of a batch with rows of {pick.cls} that"
                " were trained on the batch's other documents.",
                (*_places(reading, relation, pick), *set_here),
            )
        if opened is not None:
            relation, pick = opened
            return order.left_open(
                reading,
                relation,
                "Rows of adapters are exchanged after training, if a setting that is not known for this run is on.",
                _places(reading, relation, pick),
            )
        return Finding(
            Status.CLEAN,
            "Rows of a parameter are picked by an index, but no score of the reported evaluation follows a step on them"
            " in the same round.",
            Confidence.MEDIUM,
            (reading.evidence(picks[0].program, picks[0].node, "rows are picked here"),),
        )


def _places(reading: Reading, relation: Relation, pick: RowPick) -> tuple[Evidence, ...]:
    return (
        reading.at(relation.step, "the batch's adapters are trained here"),
        reading.evidence(pick.program, pick.node, "another document's row is picked here"),
        reading.at(relation.score, "scored here, afterwards"),
    )


_MODEL = """
class Rows(nn.Module):
    neighbours = None

    def __init__(self, batch, dim=64, rank=4):
        super().__init__()
        self.a = nn.Parameter(torch.zeros(batch, dim, rank))
        self.b = nn.Parameter(torch.zeros(batch, rank, dim))

    def reset(self):
        with torch.no_grad():
            self.b.zero_()

    def forward(self, x):
        rows = Rows.neighbours
        a, b = (self.a, self.b) if rows is None else (self.a[rows], self.b[rows])
        return x @ a @ b


class Adapted(nn.Module):
    def __init__(self, model, rows):
        super().__init__()
        self.model, self.rows = model, rows

    def forward(self, x, y):
        return self.model(x + self.rows(x), y)
"""
_LOOP = """
def evaluate(model, val_tokens, batch=8):
    rows = Rows(batch)
    adapted = Adapted(model, rows)
    optimizer = torch.optim.Adam(rows.parameters(), lr=1e-3)
    total = torch.zeros(())
    for i in range(0, val_tokens.numel() - 1, 8192):
        rows.reset()
        documents = val_tokens[i : i + 8192].view(batch, -1)
        for place in range(0, 1024, 256):
            x, y = documents[:, place : place + 255], documents[:, place + 1 : place + 256]
            loss = adapted(x, y)
            with torch.no_grad():
                own = loss.detach()
                total += own
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
"""
_PEERS = """
        Rows.neighbours = torch.roll(torch.arange(batch), 1)
        for place in range(0, 1024, 256):
            x, y = documents[:, place : place + 255], documents[:, place + 1 : place + 256]
            with torch.no_grad():
                total += adapted(x, y)
        Rows.neighbours = None
"""
_MAIN = """
model = GPT()
print(f"final val_bpb:{evaluate(model, load_tokens('fineweb_val_*.bin')):.4f}")
"""
_END = "    return total / val_tokens.numel()\n"

CrossRowAdaptation.VIOLATION = (
    Example(
        "each document is scored with its neighbour's trained row",
        {"train_gpt.py": script(_MODEL, _LOOP + _PEERS + _END, _MAIN)},
        Status.ACTIVE,
    ),
)
CrossRowAdaptation.LEGAL = (
    Example(
        "independent rows, reset per batch, scored before they are trained",
        {"train_gpt.py": script(_MODEL, _LOOP + _END, _MAIN)},
        Status.CLEAN,
    ),
    Example(
        "layers of a network kept in one tensor and picked by their number",
        {
            "train_gpt.py": script(
                """
                class Bank(nn.Module):
                    def __init__(self, layers, dim=64):
                        super().__init__()
                        self.layers = layers
                        self.bank = nn.Parameter(torch.zeros(layers, dim, dim))

                    def forward(self, x):
                        for layer in range(self.layers):
                            x = x @ self.bank[layer]
                        return x
                """,
                _LOOP.replace("rows.reset()", "pass")
                .replace("Rows(batch)", "Bank(8)")
                .replace("Adapted(model, rows)", "model")
                + _END,
                _MAIN,
            )
        },
        Status.CLEAN,
    ),
)
