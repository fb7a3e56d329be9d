"""Where a program mixes a token's probability with that of a byte model, read from its syntax.

A byte model counts bytes after contexts of earlier bytes (PPM and its kin). Mixing it with a network that predicts
tokens takes three things in one function, or in it and the helpers it names:

* the byte model: a table of counts that is incremented, with 255 or 256 symbols, over a window of bytes;
* the expansion of a realised token into its bytes;
* the mix itself: ``w * p + (1 - w) * q``, ``logaddexp`` or ``log(exp(a) + exp(b))``, one side of which leads back to
  the byte model.

What the network's side is made of tells the forms apart: the token's log-probability divided by its number of bytes
(``spread``) or repeated over its bytes, its root (``root``), or the whole token against the product of the byte
model's probabilities of its bytes (``product``). Other network sides, such as a sum over all tokens that start with
the bytes so far, are ``open``: reading does not decide them.

Programs without a byte model are left at once: only the facts of the index are looked at.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from auditor.index.names import leaf_name
from auditor.unpack.native import NativeFunction, NativeSource, native_string
from auditor.unpack.walk import walk

if TYPE_CHECKING:
    from auditor.index.program_index import FunctionFacts, ProgramIndex

BYTE_NAMES = frozenset({"bytes", "bytearray", "uint8", "frombuffer", "encode"})
TABLES = frozenset({"get", "setdefault", "defaultdict", "Counter", "dict", "njit", "jit", "uint64", "zeros", "empty"})
LOG_SUMS = frozenset({"logaddexp", "logaddexp2", "logsumexp"})
LOGS = frozenset({"log", "log2", "log1p", "_ln", "ln"})
SYMBOLS = frozenset({255, 256})
COMMON_METHODS = frozenset({"__init__", "forward", "reset", "get", "update", "step", "append"})
Form = str


@dataclass(frozen=True)
class ByteMixture:
    """One mix site: the expression (or the call into native code), and what the network's side is made of."""

    node: ast.AST
    function: ast.AST
    """The function it stands in."""
    form: Form
    """spread, root, product or open"""
    source: ast.AST | None
    """Where the token's probability is spread or multiplied up."""
    native: tuple[NativeSource, int, int] | None = None
    """The native text with the offsets of the mix and of the spread, where the mix is native."""


def byte_mixtures(index: ProgramIndex, native: Iterable[NativeSource] = ()) -> list[ByteMixture]:
    """All mixes of a token model with a byte model in a program, in no particular order."""
    found = _native_mixtures(index, native)
    models = [f for f in index.functions.values() if not f.in_class and _may_model_bytes(f) and _models_bytes(f.node)]
    known = {f.node.name for f in models}
    for cls in index.classes:
        methods = [index.functions[id(s)] for s in cls.body if id(s) in index.functions]
        if _may_model_bytes(*methods) and _models_bytes(cls):
            known |= {cls.name} | {m.node.name for m in methods if m.node.name not in COMMON_METHODS}
    if not known:
        return found
    near = {id(f): f for f in models}
    for facts in index.functions.values():
        if facts.names & known and not _is_method_of(index, facts, known):
            near[id(facts)] = facts
    near = {key: facts for key, facts in near.items() if not facts.node.name.startswith("test_")}
    # Outer functions hold what nested ones do: look at the innermost only once, in the outermost that is near.
    outermost = [f for f in near.values() if not _inside(f, near)]
    for facts in outermost:
        found += _mixtures_in(index, facts, known)
    unique: dict[int, ByteMixture] = {}
    for mixture in found:
        unique.setdefault(id(mixture.node), mixture)
    return list(unique.values())


def _inside(facts: FunctionFacts, near: dict[int, FunctionFacts]) -> bool:
    outer = facts.outer
    while outer is not None:
        if id(outer) in near:
            return True
        outer = outer.outer
    return False


def _is_method_of(index: ProgramIndex, facts: FunctionFacts, known: set[str]) -> bool:
    """Whether a function belongs to a class that is a byte model itself."""
    return facts.in_class and any(cls.name in known and facts.node in cls.body for cls in index.classes)


def _may_model_bytes(*parts: FunctionFacts) -> bool:
    """Whether functions together name what a table of counts over bytes takes."""
    return (
        any(f.numbers & SYMBOLS for f in parts)
        and any(f.names & TABLES for f in parts)
        and any(f.blobs or f.names & BYTE_NAMES for f in parts)
    )


def _models_bytes(function: ast.AST) -> bool:
    """Whether counts are incremented in a table that is looked up by a window: x[k] += 1, d[b] = d.get(b, 0) + 1."""
    counts = window = False
    for node in walk(function):
        if isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add) and isinstance(node.target, ast.Subscript):
            counts = counts or (isinstance(node.value, ast.Constant) and node.value.value == 1)
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
            counts = counts or _plus_one(node.value)
        elif (isinstance(node, ast.Slice) and isinstance(node.lower, ast.UnaryOp)) or (
            isinstance(node, ast.BinOp) and isinstance(node.op, (ast.LShift, ast.BitXor))
        ):
            window = True
    return counts and window


def _plus_one(node: ast.expr) -> bool:
    return any(
        isinstance(n, ast.BinOp)
        and isinstance(n.op, ast.Add)
        and isinstance(n.right, ast.Constant)
        and n.right.value == 1
        for n in walk(node)
    )


# -- Python ----------------------------------------------------------------------------------------------------


def _mixtures_in(index: ProgramIndex, facts: FunctionFacts, known: set[str]) -> list[ByteMixture]:
    helpers = [h for name in facts.names if name in index.by_name for h in index.by_name[name] if not h.in_class]
    helpers = [h for h in helpers if h is not facts and h.outer is None and len(h.names) <= 60]
    bodies: list[ast.AST] = [facts.node, *(h.node for h in helpers)]
    if not any(_expands_tokens(body) for body in bodies):
        return []
    flow = _Flow(facts.node)
    spreads = sorted(_spreads(facts.node), key=lambda s: s[1].lineno) + [s for h in helpers for s in _spreads(h.node)]
    spread_names = flow.derived(_assigned_by(facts.node, {id(node) for _, node in spreads}))
    spread_names |= {h.node.name for h in helpers if any(True for _ in _spreads(h.node))}
    spread_names |= flow.derived(_results_of(facts.node, spread_names))
    counted = flow.derived(_model_reads(facts.node, known))
    nested = [n for n in walk(facts.node) if isinstance(n, (ast.FunctionDef, ast.Lambda)) and n is not facts.node]
    found = []
    for node in _mixes(facts.node):
        used = _names(node)
        form: Form
        source: ast.AST | None
        if used & spread_names:
            form, source = spreads[0] if spreads else ("spread", None)
        elif used & flow.derived(_byte_sums(facts.node)):
            form, source = "product", None
        elif used & counted:
            form, source = "open", None
        else:
            continue
        holders = [f for f in nested if any(n is node for n in walk(f))]  # the last to begin is the innermost
        found.append(ByteMixture(node, max(holders, key=_begins) if holders else facts.node, form, source))
    for helper in helpers:
        calls = [n for n in walk(facts.node) if isinstance(n, ast.Call) and leaf_name(n) == helper.node.name]
        given = {name for call in calls for name in _names(call)}
        if spreads and given & spread_names:
            found += [ByteMixture(node, helper.node, *spreads[0]) for node in _mixes(helper.node)]
    return found


def _begins(node: ast.FunctionDef | ast.Lambda) -> tuple[int, int]:
    return node.lineno, node.col_offset


class _Flow:
    """Names of a function and the names their values are computed from, without order."""

    def __init__(self, function: ast.AST) -> None:
        self.uses: list[tuple[set[str], set[str]]] = []
        for node in walk(function):
            if isinstance(node, ast.Assign):
                self.uses.append(({n for t in node.targets for n in _names(t)}, _names(node.value)))
            elif isinstance(node, (ast.AugAssign, ast.AnnAssign)) and node.value is not None:
                self.uses.append((_names(node.target), _names(node.value)))
            elif isinstance(node, ast.For):
                self.uses.append((_names(node.target), _names(node.iter)))
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "append":
                self.uses.append((_names(node.func.value), {n for a in node.args for n in _names(a)}))

    def derived(self, seeds: Iterable[str]) -> set[str]:
        found = set(seeds)
        changed = bool(found)
        while changed:
            changed = False
            for targets, used in self.uses:
                if used & found and not targets <= found:
                    found |= targets
                    changed = True
        return found


def _expands_tokens(function: ast.AST) -> bool:
    """Whether bytes of a token are gone through or joined: ``for b in table[t]``, ``b"".join(...)``, lengths."""
    for node in walk(function):
        if isinstance(node, ast.Call):
            leaf = leaf_name(node)
            if leaf == "join" and isinstance(node.func, ast.Attribute) and _is_bytes(node.func.value):
                return True
            if leaf == "extend" or (leaf == "repeat" and len(node.args) >= 2):
                return True
        elif isinstance(node, ast.For):
            inner = [n for n in walk(node) if isinstance(n, ast.For) and n is not node]
            if inner:
                return True
    return False


def _is_bytes(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, bytes)


def _spreads(function: ast.AST) -> Iterator[tuple[Form, ast.expr]]:
    """Places where a value per token is shared out over its bytes."""
    lengths = _lengths(function)
    iterated = _iterated(function)
    for node in walk(function):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            by = _stripped(node.right)
            sized = isinstance(by, ast.Call) and leaf_name(by) == "len" and bool(by.args)
            mean = bool(_names(by) & _names(node.left))  # sum(x) / len(x)
            if not mean and ((isinstance(by, ast.Name) and by.id in lengths) or (sized and _names(by) & iterated)):
                yield "spread", node
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
            power = _stripped(node.right)
            if (
                isinstance(power, ast.BinOp)
                and isinstance(power.op, ast.Div)
                and isinstance(power.left, ast.Constant)
                and power.left.value == 1
                and isinstance(_stripped(power.right), ast.Name)
            ):
                yield "root", node


def _iterated(function: ast.AST) -> set[str]:
    """Names that are gone through by a loop or a comprehension, or appended item by item."""
    found: set[str] = set()
    for node in walk(function):
        if isinstance(node, (ast.For, ast.comprehension)):
            found |= _names(node.iter)
        elif isinstance(node, ast.Call) and leaf_name(node) == "extend" and node.args:
            found |= _names(node.args[0])
    return found


def _lengths(function: ast.AST) -> set[str]:
    """Names of byte lengths of tokens: of what is gone through byte by byte, or a count that repeats something."""
    iterated = _iterated(function)
    measured: dict[str, set[str]] = {}
    repeats: set[str] = set()
    for node in walk(function):
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            sized = {
                name
                for call in walk(node.value)
                if isinstance(call, ast.Call) and leaf_name(call) == "len" and call.args
                for name in _names(call.args[0])
            }
            if sized:
                for name in _names(node.targets[0]):
                    measured.setdefault(name, set()).update(sized)
            if isinstance(node.value, ast.Call) and leaf_name(node.value) == "repeat":
                repeats |= _names(node.targets[0])
        elif isinstance(node, ast.Call) and leaf_name(node) == "repeat" and len(node.args) >= 2:
            repeats |= _names(node.args[-1])
    lengths = {name for name, sized in measured.items() if sized & iterated} | repeats
    for node in walk(function):
        if isinstance(node, ast.For) and _names(node.iter) & lengths:
            lengths = lengths | _names(node.target)
    return lengths


def _mixes(function: ast.AST) -> Iterator[ast.AST]:
    """Sums of two weighted probabilities, or of two exponentials under a logarithm."""
    for node in walk(function):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            if _weighted(node) or any(_is_log_of_exp(n) for n in (node.left, node.right)):
                yield node
        elif isinstance(node, ast.Call) and leaf_name(node) in LOG_SUMS and len(node.args) >= 2:
            yield node


def _weighted(node: ast.BinOp) -> bool:
    """``w * p + (1 - w) * q``, in any order."""
    sides = [s for s in (node.left, node.right) if isinstance(s, ast.BinOp) and isinstance(s.op, ast.Mult)]
    if len(sides) != 2:
        return False
    factors = [[ast.dump(_stripped(f)) for f in (s.left, s.right)] for s in sides]
    for i in (0, 1):
        for factor in (sides[i].left, sides[i].right):
            factor = _stripped(factor)
            if (
                isinstance(factor, ast.BinOp)
                and isinstance(factor.op, ast.Sub)
                and isinstance(factor.left, ast.Constant)
                and factor.left.value == 1
                and ast.dump(_stripped(factor.right)) in factors[1 - i]
            ):
                return True
    return False


def _is_log_of_exp(node: ast.expr) -> bool:
    """``log1p(exp(x))`` or ``log(exp(a) + exp(b))``."""
    if not isinstance(node, ast.Call) or leaf_name(node) not in LOGS or not node.args:
        return False
    inner = node.args[0]
    exps = sum(1 for n in walk(inner) if isinstance(n, ast.Call) and leaf_name(n) in ("exp", "exp2"))
    return exps >= (1 if leaf_name(node) == "log1p" else 2)


def _model_reads(function: ast.AST, known: set[str]) -> set[str]:
    """Names that are assigned what a byte model or a table of counts says."""
    found: set[str] = set()
    for node in walk(function):
        if isinstance(node, ast.Assign):
            for call in walk(node.value):
                if isinstance(call, ast.Call) and (leaf_name(call) in known or leaf_name(call) == "get"):
                    found |= {n for t in node.targets for n in _names(t)}
    return found


def _byte_sums(function: ast.AST) -> set[str]:
    """Names that collect a sum in a loop within a loop: a byte model's log-probabilities of one token's bytes."""
    found: set[str] = set()
    for outer in walk(function):
        if not isinstance(outer, ast.For):
            continue
        reset = {
            name
            for statement in walk(outer)
            if isinstance(statement, ast.Assign) and _has_zero(statement.value)
            for target in statement.targets
            for name in _names(target)
        }
        for inner in walk(outer):
            if isinstance(inner, ast.For) and inner is not outer:
                for node in walk(inner):
                    if isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add):
                        found |= _names(node.target) & reset
    return found


def _has_zero(node: ast.expr) -> bool:
    return any(isinstance(n, ast.Constant) and n.value == 0 for n in walk(node))


def _assigned_by(function: ast.AST, nodes: set[int]) -> set[str]:
    """Names whose assigned value (or appended item) holds one of ``nodes``."""
    found: set[str] = set()
    for node in walk(function):
        if isinstance(node, ast.Assign) and any(id(n) in nodes for n in walk(node.value)):
            found |= {n for t in node.targets for n in _names(t)}
    return found


def _results_of(function: ast.AST, names: set[str]) -> set[str]:
    """Names that are assigned the result of calling one of ``names``."""
    return {
        n
        for node in walk(function)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and leaf_name(node.value) in names
        for t in node.targets
        for n in _names(t)
    }


def _names(node: ast.AST) -> set[str]:
    return {n.id for n in walk(node) if isinstance(n, ast.Name)}


def _stripped(node: ast.expr) -> ast.expr:
    """Without ``float(...)``, ``int(...)`` and ``max(x, 1)`` around it."""
    while isinstance(node, ast.Call) and leaf_name(node) in ("float", "int", "max", "maximum", "clip") and node.args:
        node = node.args[0]
    return node


# -- native code -----------------------------------------------------------------------------------------------


def _native_mixtures(index: ProgramIndex, shipped: Iterable[NativeSource]) -> list[ByteMixture]:
    sources = [*shipped, *(n for node in index.texts if (n := native_string(index.program, node)) is not None)]
    found: list[ByteMixture] = []
    for source in sources:
        roots = dict(_native_roots(source))
        if not roots or index.program.tree is None:
            continue
        callers = [f for f in index.functions.values() if f.names & roots.keys()]
        for facts in callers:
            for node in walk(facts.node):
                name = leaf_name(node) if isinstance(node, ast.Call) else ""
                if name in roots:
                    found.append(ByteMixture(node, facts.node, "spread", None, (source, *roots[name])))
    return found


def _native_roots(source: NativeSource) -> Iterator[tuple[str, tuple[int, int]]]:
    """Functions that spread a token's loss over its bytes and reach a mix: name, offsets of mix and spread."""
    mixes = {f.name: offset for f in source.functions if (offset := _native_mix(f)) is not None}
    if not mixes:
        return
    for function in source.functions:
        spread = _native_spread(function)
        if spread is None:
            continue
        reached = [f.name for f in source.called_from({function.name})]
        mixed = next((mixes[name] for name in reached if name in mixes), None)
        if mixed is not None:
            yield function.name, (mixed, spread)


def _native_mix(function: NativeFunction) -> int | None:
    """The offset of ``log(exp(a) + exp(b))`` or ``w * p + (1 - w) * q`` where bytes are counted too."""
    if not any("++" in part for part in (function.body,)) and "+= 1" not in function.body:
        return None
    for assignment in function.assignments:
        value = assignment.value.replace(" ", "")
        two_exps = value.count("exp(") + value.count("expf(") >= 2 and "log" in value
        weighted = ("(1.0-" in value or "(1-" in value or "(1.0f-" in value) and "*" in value and "+" in value
        if two_exps or weighted:
            return assignment.offset
    return None


def _native_spread(function: NativeFunction) -> int | None:
    """The offset of a division of a loss by a length that was read at a token's index."""
    lengths = {a.name for a in function.assignments if "[" in a.value and ("len" in a.value or "nbytes" in a.value)}
    lengths = set(function.derived(lengths)) if lengths else set()
    for assignment in function.assignments:
        _, slash, divisor = assignment.value.partition("/")
        if slash and any(name in lengths for name in _native_names(divisor)):
            return assignment.offset
    return None


def _native_names(text: str) -> set[str]:
    return {part for part in "".join(c if c.isalnum() or c == "_" else " " for c in text).split()}
