"""Values learnt outside of the run are frozen in its code.

**What it catches.** Tables of numbers with many digits, written out in the code, that end in the network: a
buffer or parameter of learnt scales, gates or mixing weights from another, possibly much longer, training.

**Why it matters.** Training has ten minutes. What was learnt elsewhere and copied in as literals is training
that was not counted, and can't be reproduced from the submission.

**Legal look-alikes.** Coefficients of Newton-Schulz or Polar Express iterations; code books of quantisers
(normal floats, quantiles of a known distribution); round numbers, schedules and initial values chosen by hand.

**How it is read.** Lists of at least six numbers of which most have five or more significant digits, inside
`register_buffer`, `Parameter` or `tensor` of a network; other such tables are for a person to look at.

**Remedy.** Learn the values in the run.

**Ruling.** None settled. The "frozen carry" of #1779 and #1801 was flagged by a participant; organisers left
#1787, #1797 and #1801 aside as "validity/provenance blocked".
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from auditor.index.names import leaf_name
from auditor.index.program_index import ProgramIndex
from auditor.reading import Reading
from auditor.unpack.walk import walk
from auditor.verdict import Confidence, Effect, Status
from rules.base import Example, Finding, Rule
from rules.examples import script

FEWEST = 6
"""A table of fewer numbers may be a formula's."""
DIGITS = 5
HOLDERS = frozenset({"register_buffer", "Parameter", "copy_", "Buffer"})


class OfflineConstants(Rule):
    """See the module's documentation."""

    slug = "offline-constants"
    group = "evidence"
    title = "values learnt outside the run frozen in the code"
    official = Effect.ADVISORY
    strict = Effect.ADVISORY
    precedents = ("#1779, #1801: twelve frozen carry weights; validity and provenance questioned",)

    def check(self, reading: Reading) -> Finding:
        problem = reading.unreadable()
        if problem is not None:
            return Finding(Status.UNKNOWN, f"The code could not be read: {problem}.", Confidence.HIGH)
        frozen: list[tuple[ProgramIndex, ast.expr, int]] = []
        others: list[tuple[ProgramIndex, ast.expr, int]] = []
        _ = reading.entry
        for index in reading.opened():
            if index.program.file not in reading.trace.modules or index.precise < FEWEST:
                continue
            tables = list(_tables(index))
            if not tables:
                continue
            held = {id(n) for call in _holding(index) for n in walk(call)}
            running = _running(reading, index)
            for table, count in tables:
                if id(table) in held and id(table) in running:
                    frozen.append((index, table, count))
                elif id(table) in running:
                    others.append((index, table, count))
        if frozen:
            index, table, count = frozen[0]
            total = sum(n for _, _, n in frozen)
            return Finding(
                Status.ACTIVE,
                f"The network holds {total} written-out numbers of many digits, which nothing in the run makes.",
                Confidence.MEDIUM,
                tuple(reading.evidence(i.program, t, f"{n} numbers frozen in the network") for i, t, n in frozen[:3]),
            )
        if others:
            index, table, count = others[0]
            return Finding(
                Status.SUSPECT,
                f"A table of {count} numbers of many digits is written out in the code; look where it comes from and"
                " whether the network uses it.",
                Confidence.LOW,
                (reading.evidence(index.program, table, f"{count} numbers"),),
            )
        return Finding(
            Status.CLEAN, "No table of learnt numbers is written out in the code that runs.", Confidence.MEDIUM
        )


def _holding(index: ProgramIndex) -> Iterator[ast.Call]:
    """Calls that put their arguments into a network."""
    for node in walk(index.program.tree) if index.program.tree is not None else ():
        if isinstance(node, ast.Call):
            leaf = leaf_name(node)
            if leaf in HOLDERS:
                yield node


def _running(reading: Reading, index: ProgramIndex) -> set[int]:
    """Nodes of the functions that run, of networks that are built, and of statements outside of functions."""
    found: set[int] = set()
    if index.program.tree is None:
        return found
    for statement in index.program.tree.body:
        if not isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.update(id(n) for n in walk(statement))
    for key, facts in index.functions.items():
        if key in reading.trace.called:
            found.update(id(n) for n in walk(facts.node))
    return found


def _tables(index: ProgramIndex) -> Iterator[tuple[ast.expr, int]]:
    """The outermost lists of numbers with many digits that are no known kind, with how many such numbers they hold."""
    inside: set[int] = set()
    for node in index.rows:
        if id(node) in inside:
            continue
        numbers = [n for n in map(_number, walk(node)) if n is not None]
        if len(numbers) < FEWEST:
            continue
        precise = sum(1 for n in numbers if _digits(n) >= DIGITS)
        if precise * 2 < len(numbers) or precise < FEWEST or _is_standard(node, numbers):
            continue
        inside.update(id(n) for n in walk(node))
        yield node, precise


def _number(node: ast.AST) -> float | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, float):
        return node.value
    return None


def _digits(number: float) -> int:
    """Significant digits as written (near enough: trailing zeros don't count)."""
    return len(f"{abs(number):.12g}".replace(".", "").split("e")[0].strip("0"))


def _is_standard(node: ast.List | ast.Tuple, numbers: list[float]) -> bool:
    """Polynomials of an orthogonalising iteration, and code books: sorted levels, or levels symmetric about zero."""
    rows = [r for r in node.elts if isinstance(r, (ast.List, ast.Tuple))]
    if rows and all(len(r.elts) == 3 for r in rows) and len(rows) == len(node.elts):
        signs = [[isinstance(e, ast.UnaryOp) and isinstance(e.op, ast.USub) for e in r.elts] for r in rows]
        if all(s == [False, True, False] for s in signs):
            return True
    if rows:
        return False
    signed = [_signed(e) for e in node.elts]
    known = [n for n in signed if n is not None]
    ordered = known == sorted(known) or known == sorted(known, reverse=True)
    symmetric = bool(known) and abs(sum(known)) < 1e-3 * sum(abs(n) for n in known)
    return ordered or symmetric


def _signed(node: ast.expr) -> float | None:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _number(node.operand)
        return -inner if inner is not None else None
    return _number(node)


_RUN = """
class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = GPT()
        STATE

    def forward(self, x, y):
        return self.inner(x, y) * self.gates.mean()


def orthogonalize(g):
    for a, b, c in [(8.28721, -23.59588, 17.30038), (4.10705, -2.94784, 0.54484), (3.94869, -2.90890, 0.55181)]:
        s = g @ g.T
        g = a * g + (b * s + c * s @ s) @ g
    return g


def evaluate(model, tokens):
    total = torch.zeros(())
    with torch.no_grad():
        for i in range(0, tokens.numel() - 1, 1024):
            total += model(tokens[i : i + 1024], tokens[i + 1 : i + 1025])
    return total / tokens.numel()


orthogonalize(torch.eye(4))
model = Gated()
print(f"final val_bpb:{evaluate(model, load_tokens('fineweb_val_*.bin')):.4f}")
"""
_FROZEN = """self.register_buffer(
            "gates", torch.tensor([[1.597342, 0.251953, -0.209961], [0.668945, 1.882621, -0.347656]])
        )"""

OfflineConstants.VIOLATION = (
    Example(
        "gates of another training written out as a buffer",
        {"train_gpt.py": script(_RUN.replace("STATE", _FROZEN))},
        Status.ACTIVE,
    ),
)
OfflineConstants.LEGAL = (
    Example(
        "gates learnt in the run; coefficients of an orthogonalising iteration",
        {"train_gpt.py": script(_RUN.replace("STATE", "self.gates = nn.Parameter(torch.ones(6))"))},
        Status.CLEAN,
    ),
    Example(
        "a code book of sorted levels",
        {
            "train_gpt.py": script(
                _RUN.replace(
                    "STATE",
                    "levels = [-1.51034, -0.77882, -0.45278, 0.45278, 0.77882, 1.51034]\n"
                    '        self.register_buffer("gates", torch.tensor(levels))',
                )
            )
        },
        Status.CLEAN,
    ),
)
