"""A mixture expert that is no distribution over the tokens: an entropy, a confidence.

**What it catches.** Experts are mixed by weights (Hedge, log-sum-exp of log weights and log-probabilities), and
beside those that give the realised token a probability stands one that gives it a number which does not depend on the
token: the entropy of the network's prediction, or its largest probability.

**Why it breaks the score.** The mixture then has no distribution: with such an expert the "probabilities" of all tokens
do not sum to one, and bits are gained where the number is smaller than any honest loss (condition C2 of issue #1017).

**Legal look-alikes.** Entropy or confidence as a *gate*, which sets the weights between experts that are
distributions; a uniform expert (a constant log-probability for every token); entropies in training losses and in
logs; losses stacked for a report.

**How it is read.** In functions that the run enters, a sum over the vocabulary of probabilities times log-probabilities
(or a maximum of either) that is stacked, concatenated or appended beside losses taken at the realised tokens. Active
where the evaluation that is reported reaches the function and its experts are mixed in log space; suspect where the
way they are mixed is not seen.

**Remedy.** Drop the expert, or use the number as a gate.

**Ruling.** None of its own: mixers of this kind (#688, #731, #745, #859) were closed for their hashed n-grams; the
principle stands in issue #1017.
"""

from __future__ import annotations

import ast

from auditor.index.names import leaf_name
from auditor.index.program_index import FunctionFacts, ProgramIndex
from auditor.reading import Reading
from auditor.unpack.walk import walk
from auditor.verdict import Confidence, Effect, Evidence, Status
from rules.base import Example, Finding, Rule
from rules.examples import script

STACKS = frozenset({"stack", "cat", "concatenate", "concat", "hstack", "vstack"})
AT_TARGET = frozenset({"gather", "cross_entropy", "nll_loss", "take_along_dim", "take_along_axis", "index_select"})
LOGS = frozenset({"log_softmax", "log", "log2", "logsoftmax"})
PROBABILITIES = frozenset({"softmax", "exp"})
MIXING = frozenset({"logsumexp", "logaddexp"})
SAME = frozenset(
    {"to", "float", "double", "detach", "clamp", "clamp_min", "unsqueeze", "squeeze", "reshape", "view", "contiguous"}
)
DEPTH = 4
MAX_EXPERTS = 40


class ScalarExpert(Rule):
    """See the module's documentation."""

    slug = "scalar-expert"
    group = "distribution"
    title = "a mixture expert that is not a distribution"
    official = Effect.ADVISORY
    strict = Effect.VIOLATION
    precedents = (
        "issue #1017, section VI: the entropy expert violates C2",
        "closed on other grounds: #688, #731, #745",
    )

    def check(self, reading: Reading) -> Finding:
        problem = reading.unreadable()
        if problem is not None:
            return Finding(Status.UNKNOWN, f"The code could not be read: {problem}.", Confidence.HIGH)
        called = reading.trace.called
        idle: tuple[ProgramIndex, FunctionFacts, ast.expr, ast.expr] | None = None
        for index in reading.opened():
            for facts in index.functions.values():
                if not _may_mix(facts.names):
                    continue
                found = _experts(facts.node)
                if found is None:
                    continue
                number, mixture = found
                if id(facts.node) not in called:
                    idle = idle or (index, facts, number, mixture)
                    continue
                return self._judged(reading, index, facts, number, mixture)
        if idle is not None:
            index, facts, number, mixture = idle
            return Finding(
                Status.LATENT,
                f"{facts.qualname} mixes a number that does not depend on the token, but is not reached in this run.",
                Confidence.MEDIUM,
                _evidence(reading, index, number, mixture),
            )
        return Finding(
            Status.CLEAN,
            "No expert of a mixture is a number that does not depend on the token (an entropy, a confidence).",
            Confidence.LOW if reading.trace.truncated else Confidence.HIGH,
        )

    def _judged(
        self, reading: Reading, index: ProgramIndex, facts: FunctionFacts, number: ast.expr, mixture: ast.expr
    ) -> Finding:
        evidence = _evidence(reading, index, number, mixture)
        mixed = [
            other
            for program in reading.opened()
            for other in program.functions.values()
            if other.names & MIXING and id(other.node) in reading.trace.called
        ]
        if not mixed:
            return Finding(
                Status.SUSPECT,
                f"{facts.qualname} puts a number that does not depend on the token beside losses of the realised one;"
                " how they are mixed is not seen: look whether it is an expert or only a gate or a report.",
                Confidence.LOW,
                evidence,
            )
        path = [known for node in reading.evaluation_path() if (known := _facts(reading, node)) is not None]
        if not reading.reported.scores or not _reaches(reading, path, facts.node.name):
            return Finding(
                Status.SUSPECT,
                f"{facts.qualname} mixes a number that does not depend on the token, but whether the reported"
                " evaluation uses the mixture is not seen.",
                Confidence.LOW,
                evidence,
            )
        return Finding(
            Status.ACTIVE,
            f"{facts.qualname} mixes the losses of distributions with a number that does not depend on the token.",
            Confidence.MEDIUM,
            evidence,
        )


def _may_mix(names: set[str]) -> bool:
    """Whether a function names all that an expert of this kind is made of."""
    if names.isdisjoint(AT_TARGET) or (names.isdisjoint(STACKS) and "append" not in names):
        return False
    logs, probabilities = not names.isdisjoint(LOGS), not names.isdisjoint(PROBABILITIES)
    largest = (logs or probabilities) and not names.isdisjoint({"max", "amax"})
    return "entropy" in names or largest or (logs and probabilities and "sum" in names)


def _evidence(reading: Reading, index: ProgramIndex, number: ast.expr, mixture: ast.expr) -> tuple[Evidence, ...]:
    return (
        reading.evidence(index.program, number, "does not depend on the token"),
        reading.evidence(index.program, mixture, "stands beside the losses of the realised token"),
    )


def _facts(reading: Reading, node: ast.AST | None) -> FunctionFacts | None:
    for index in reading.opened():
        if id(node) in index.functions:
            return index.functions[id(node)]
    return None


def _reaches(reading: Reading, path: list[FunctionFacts], name: str) -> bool:
    """Whether a function on the path names ``name``, through other functions if need be."""
    seen: set[str] = set()
    todo = set[str]().union(*(f.names | {f.node.name} for f in path))
    for _ in range(DEPTH):
        if name in todo:
            return True
        seen |= todo
        todo = {
            inner
            for index in reading.opened()
            for known in todo
            for facts in index.by_name.get(known, ())
            for inner in facts.names
        } - seen
    return name in todo


def _experts(function: ast.AST) -> tuple[ast.expr, ast.expr] | None:
    """A number that does not depend on the token, and the mixture that it is put into beside losses."""
    made: dict[str, list[ast.expr]] = {}
    lists: dict[str, list[ast.expr]] = {}
    stacks: list[tuple[ast.expr, list[ast.expr]]] = []
    for node in walk(function):
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            made.setdefault(node.targets[0].id, []).append(node.value)
        elif isinstance(node, ast.Call):
            leaf = leaf_name(node)
            if leaf in STACKS and node.args and isinstance(node.args[0], ast.List | ast.Tuple):
                stacks.append((node, node.args[0].elts))
            elif leaf == "append" and isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
                lists.setdefault(node.func.value.id, []).extend(node.args[:1])
    stacks += [(items[0], items) for items in lists.values()]
    for mixture, items in stacks:
        if not 2 <= len(items) <= MAX_EXPERTS:
            continue
        numbers = [item for item in items if _is_number(item, made, DEPTH)]
        if numbers and any(_at_target(item, made, set()) for item in items if item not in numbers):
            named = numbers[0].id if isinstance(numbers[0], ast.Name) else ""
            return made.get(named, numbers)[0], mixture
    return None


def _operand(node: ast.Call) -> ast.expr | None:
    """What a method is called on, or the first argument of the function of the same name."""
    if isinstance(node.func, ast.Attribute) and not (
        isinstance(node.func.value, ast.Name)
        and node.func.value.id in ("torch", "F", "np", "numpy", "math", "functional")
    ):
        return node.func.value
    return node.args[0] if node.args else None


def _peeled(node: ast.expr) -> ast.expr:
    """Without sign, scale and changes of type or shape."""
    while True:
        if isinstance(node, ast.UnaryOp):
            node = node.operand
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            node = node.left
        elif isinstance(node, ast.Attribute) and node.attr == "values":
            node = node.value
        elif isinstance(node, ast.Call) and leaf_name(node) in SAME and (inner := _operand(node)) is not None:
            node = inner
        else:
            return node


def _is_number(node: ast.expr, made: dict[str, list[ast.expr]], depth: int) -> bool:
    """Whether an expression is the entropy or the largest probability of a prediction."""
    node = _peeled(node)
    if isinstance(node, ast.Name):
        known = made.get(node.id, [])
        return depth > 0 and bool(known) and all(_is_number(value, made, depth - 1) for value in known)
    if isinstance(node, ast.Subscript):
        return _is_number(node.value, made, depth)
    if not isinstance(node, ast.Call):
        return False
    leaf, operand = leaf_name(node), _operand(node)
    if leaf == "entropy" and not node.args:
        return True
    if operand is None:
        return False
    if leaf in ("max", "amax"):
        return _is(operand, LOGS | PROBABILITIES, made, depth)
    if leaf != "sum" or not (node.keywords or node.args):
        return False
    product = _peeled(operand)
    if not isinstance(product, ast.BinOp) or not isinstance(product.op, ast.Mult):
        return False
    sides = (product.left, product.right)
    return any(
        _is(one, PROBABILITIES, made, depth) and _is(other, LOGS, made, depth) for one, other in (sides, sides[::-1])
    )


def _is(node: ast.expr, kinds: frozenset[str], made: dict[str, list[ast.expr]], depth: int) -> bool:
    """Whether an expression is the result of one of these functions."""
    node = _peeled(node)
    if isinstance(node, ast.Name):
        return depth > 0 and any(_is(value, kinds, made, depth - 1) for value in made.get(node.id, ()))
    return isinstance(node, ast.Call) and leaf_name(node) in kinds


def _at_target(node: ast.expr, made: dict[str, list[ast.expr]], seen: set[str]) -> bool:
    """Whether an expression takes a loss or probability at given tokens."""
    for part in walk(node):
        if isinstance(part, ast.Call) and leaf_name(part) in AT_TARGET:
            return True
        if isinstance(part, ast.Subscript) and _is(part.value, LOGS, {}, 0):
            return True
        if isinstance(part, ast.Name) and part.id in made and part.id not in seen:
            seen.add(part.id)
            if any(_at_target(value, made, seen) for value in made[part.id]):
                return True
    return False


_MIXER = """
class Mixer:
    def __init__(self, vocab=1024):
        self.counts = torch.ones(vocab, vocab)
        self.log_weights = torch.zeros(3)

    def losses(self, logits, x, y):
        log_p = F.log_softmax(logits, dim=-1)
        model = -log_p.gather(-1, y[:, None]).squeeze(-1)
        table = self.counts / self.counts.sum(-1, keepdim=True)
        pairs = -table.log()[x, y]
        THIRD
        return torch.stack([model, pairs, third], dim=-1)

    def mix(self, losses):
        return -(torch.log_softmax(WEIGHTS, -1) - losses).logsumexp(-1)

    def update(self, x, y):
        self.counts.index_put_((x, y), torch.ones(x.numel()), accumulate=True)


class Net(GPT):
    def logits(self, x):
        return F.linear(self.embed(x), self.embed.weight)


def evaluate(model, val_tokens, mixer):
    loss_sum = torch.zeros(())
    with torch.no_grad():
        for i in range(0, val_tokens.numel() - 1, 1024):
            x, y = val_tokens[i : i + 1024], val_tokens[i + 1 : i + 1025]
            loss_sum += mixer.mix(mixer.losses(model.logits(x), x, y)).sum()
            mixer.update(x, y)
    return loss_sum / val_tokens.numel()


print(f"final val_bpb:{evaluate(Net(), load_tokens('fineweb_val_*.bin'), Mixer()):.4f}")
"""


def _example(third: str, weights: str = "self.log_weights") -> dict[str, str]:
    return {"train_gpt.py": script(_MIXER.replace("THIRD", third).replace("WEIGHTS", weights))}


ScalarExpert.VIOLATION = (
    Example("the model's entropy as an expert", _example("third = -(log_p.exp() * log_p).sum(-1)"), Status.ACTIVE),
    Example("the largest log-probability as an expert", _example("third = -log_p.max(dim=-1).values"), Status.ACTIVE),
)
ScalarExpert.LEGAL = (
    Example("a uniform expert", _example("third = torch.full_like(model, 6.93)"), Status.CLEAN),
    Example(
        "entropy as a gate between distributions",
        {
            "train_gpt.py": _example("self.gate = -(log_p.exp() * log_p).sum(-1)", "self.gate[:, None]")[
                "train_gpt.py"
            ].replace("[model, pairs, third]", "[model, pairs]")
        },
        Status.CLEAN,
    ),
)
