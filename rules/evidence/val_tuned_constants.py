"""Constants of the evaluation are chosen by their outcome on the validation set.

**What it catches.** A search inside the run: a temperature, a mixing weight, a softcap or a gate is tried at
several values, each is scored on validation tokens, and the best is kept for the reported evaluation.

**Why it matters.** The number is then the best of several looks at the test set. Each look costs little
alone, but the chosen value is fitted to the very tokens that are scored.

**Legal look-alikes.** The same search on training tokens or on generated text; searches over clipping
or scales of a quantiser by its own error; ordinary tuning of hyperparameters between runs, which the README
allows; a schedule that is fixed beforehand.

**How it is read.** A loop over written-out values in which validation tokens are scored and the value is kept
where the result beats the best so far. Constants tuned before the run leave no trace in the code: those a
reading can't see.

**Remedy.** Choose on training tokens, or fix the value before the run.

**Ruling.** Organisers on #1991 and #2098 (2 May 2026) object to "validation-outcome tuning" of a gate; ordinary
hyperparameter sweeps are allowed by the README. The line is fuzzy, hence an advisory.
"""

from __future__ import annotations

import ast

from auditor.index.names import leaf_name
from auditor.index.trace import Event, Kind, Trace
from auditor.reading import Reading
from auditor.unpack.walk import walk
from auditor.verdict import Confidence, Effect, Status
from rules.base import Example, Finding, Rule
from rules.examples import script

GRIDS = frozenset({"linspace", "arange", "product", "geomspace", "logspace"})


class ValTunedConstants(Rule):
    """See the module's documentation."""

    slug = "val-tuned-constants"
    group = "evidence"
    title = "evaluation-time constants selected on validation outcomes"
    official = Effect.ADVISORY
    strict = Effect.ADVISORY
    precedents = ("organiser on #1991 and #2098, 2 May 2026", "legal: hyperparameter sweeps between runs (README)")

    def check(self, reading: Reading) -> Finding:
        problem = reading.unreadable()
        if problem is not None:
            return Finding(Status.UNKNOWN, f"The code could not be read: {problem}.", Confidence.HIGH)
        metric = reading.reported.metric
        searches = _searches(reading.trace)
        used = [(e, loop) for e, loop in searches if metric is None or e.seq < metric.seq]
        if used:
            event, loop = used[0]
            ran = reading.ran(event)[0]
            undecided = [g for g in event.undecided if g.settings]
            if ran is False:
                return self._off(reading, event, loop, "the log shows that it did not run")
            values = ast.unparse(loop.iter)[:60]
            return Finding(
                Status.SUSPECT if undecided and ran is None else Status.ACTIVE,
                f"Before the reported evaluation a value is chosen from {values} by its result on validation tokens.",
                Confidence.MEDIUM,
                (
                    reading.evidence(event.program, loop, "tries each value"),
                    reading.at(event, "scored on validation tokens"),
                ),
                reading.call_path(event),
            )
        if searches:
            event, loop = searches[0]
            return self._off(reading, event, loop, "it comes after the reported figure")
        return Finding(
            Status.CLEAN,
            "No loop in the run keeps the value that scores best on validation tokens; what was tuned before the run is"
            " not in the code.",
            Confidence.MEDIUM,
        )

    def _off(self, reading: Reading, event: Event, loop: ast.For, why: str) -> Finding:
        return Finding(
            Status.LATENT,
            f"A search by validation results is in the code, but {why}.",
            Confidence.MEDIUM,
            (reading.evidence(event.program, loop, "tries each value"),),
            reading.call_path(event),
        )


def _searches(trace: Trace) -> list[tuple[Event, ast.For]]:
    """Scores of validation tokens inside a loop over written-out values that keeps the best of them."""
    found: list[tuple[Event, ast.For]] = []
    judged: dict[int, bool] = {}
    for event in trace.of(Kind.SCORE):
        for loop in event.loops:
            node = loop.node
            if not isinstance(node, ast.For):
                continue
            if id(node) not in judged:
                judged[id(node)] = _is_grid(node.iter) and _keeps_best(node)
            if judged[id(node)]:
                found.append((event, node))
                break
    return found


def _is_grid(node: ast.expr) -> bool:
    """Whether a loop goes over written-out numbers: a list of them, a range of fractions, offsets around a value."""
    if isinstance(node, (ast.List, ast.Tuple)):
        numbers = sum(1 for n in walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, (int, float)))
        return len(node.elts) >= 2 and numbers >= len(node.elts)
    if isinstance(node, ast.ListComp):
        return _is_grid(node.generators[0].iter)
    if isinstance(node, ast.Call):
        leaf = leaf_name(node)
        return leaf in GRIDS
    return False


def _keeps_best(loop: ast.For) -> bool:
    """Whether the loop's value (or something computed in the round) is kept where a comparison favours it."""
    values = {n.id for n in walk(loop.target) if isinstance(n, ast.Name)}
    for node in walk(loop):
        if not isinstance(node, ast.If) or not isinstance(node.test, ast.Compare):
            continue
        if not isinstance(node.test.ops[0], (ast.Lt, ast.Gt, ast.LtE, ast.GtE)):
            continue
        compared = {n.id for n in walk(node.test) if isinstance(n, ast.Name)}
        kept = updated = False
        for statement in node.body:
            if isinstance(statement, ast.Assign):
                targets = {n.id for t in statement.targets for n in walk(t) if isinstance(n, ast.Name)}
                used = {n.id for n in walk(statement.value) if isinstance(n, ast.Name)}
                kept = kept or bool(used & values)
                updated = updated or bool(targets & compared)
        if kept and updated:
            return True
    return False


_RUN = """
def evaluate(model, tokens, temperature):
    total = torch.zeros(())
    with torch.no_grad():
        for i in range(0, tokens.numel() - 1, 1024):
            total += model(tokens[i : i + 1024], tokens[i + 1 : i + 1025]) / temperature
    return total / tokens.numel()


model = GPT()
val_tokens = load_tokens("fineweb_val_*.bin")
train_tokens = load_tokens("fineweb_train_*.bin")
SEARCH
print(f"final val_bpb:{evaluate(model, val_tokens, best):.4f}")
"""
_SEARCH = """
best, lowest = 1.0, 1e9
for temperature in [0.9, 1.0, 1.1]:
    loss = evaluate(model, TOKENS, temperature)
    if loss < lowest:
        best, lowest = temperature, loss
"""

ValTunedConstants.VIOLATION = (
    Example(
        "the temperature that scores best on validation tokens",
        {"train_gpt.py": script(_RUN.replace("SEARCH", _SEARCH.replace("TOKENS", "val_tokens")))},
        Status.ACTIVE,
    ),
)
ValTunedConstants.LEGAL = (
    Example(
        "the same search on training tokens",
        {"train_gpt.py": script(_RUN.replace("SEARCH", _SEARCH.replace("TOKENS", "train_tokens")))},
        Status.CLEAN,
    ),
    Example("a fixed temperature", {"train_gpt.py": script(_RUN.replace("SEARCH", "best = 1.05"))}, Status.CLEAN),
)
