"""A smear whose multiplier is zero from start to end: a parameter that starts at zero and that nothing trains.

Such a smear adds nothing to the state and can carry nothing across a document's start. What trains a parameter is an
optimiser that was given it; that is asked of the whole program, by names: whether anything outside of the network's
class mentions the parameter, and whether all the network's parameters are handed on anywhere.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from auditor.index.program_index import ProgramIndex
from auditor.index.trace import Event
from auditor.reading import Reading
from auditor.unpack.walk import walk

MAX_DEPTH = 3
"""Assignments that are followed back from the smear to its multiplier."""
_PASSES_ON = frozenset({"to", "float", "bfloat16", "half", "type_as", "view", "reshape", "expand", "contiguous"})
_HANDED_OUT = frozenset({"parameters", "named_parameters"})


def untrained_multiplier(reading: Reading, smear: Event) -> ast.AST | None:
    """Where the parameter is made that multiplies the smeared share, if it starts at zero and nothing trains it."""
    index = next((i for i in reading.opened() if i.program is smear.program), None)
    function = smear.frames[-1].definition
    node = smear.node
    if index is None or not isinstance(function, ast.FunctionDef) or not isinstance(node, ast.BinOp):
        return None
    made = next((c for c in index.classes if any(s is function for s in c.body)), None)
    if made is None or not isinstance(node.op, ast.Add) or _is_a_part(reading, made):
        return None
    zeros = _zero_parameters(made)
    for side in (node.left, node.right):
        for name in _own_factors(side, function, MAX_DEPTH):
            if name in zeros and not any(_trains(i, made, name) for i in reading.opened()):
                return zeros[name]
    return None


def _is_a_part(reading: Reading, made: ast.ClassDef) -> bool:
    """Whether another class makes one of these for itself: then whoever gets that one's parameters gets these."""
    return any(
        isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == made.name
        for index in reading.opened()
        for other in index.classes
        for n in walk(other)
    )


def _own_factors(node: ast.expr, function: ast.FunctionDef, depth: int) -> Iterator[str]:
    """The attributes of ``self`` that a product is multiplied by, also through local names."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        yield from _own_factors(node.left, function, depth)
        yield from _own_factors(node.right, function, depth)
    elif isinstance(node, ast.Subscript):
        yield from _own_factors(node.value, function, depth)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _PASSES_ON:
        yield from _own_factors(node.func.value, function, depth)
    elif isinstance(node, ast.Attribute):
        if isinstance(node.value, ast.Name) and node.value.id == "self":
            yield node.attr
    elif isinstance(node, ast.Name) and depth:
        before = [
            n
            for n in walk(function)
            if isinstance(n, ast.Assign)
            and n.lineno < node.lineno
            and any(isinstance(t, ast.Name) and t.id == node.id for t in n.targets)
        ]
        if before:
            yield from _own_factors(max(before, key=lambda n: n.lineno).value, function, depth - 1)


def _zero_parameters(made: ast.ClassDef) -> dict[str, ast.AST]:
    """Parameters of a class that are made of zeros and set nowhere else in it."""
    found: dict[str, list[ast.expr]] = {}
    for node in walk(made):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Attribute):
                    found.setdefault(target.attr, []).append(node.value)
    return {name: values[0] for name, values in found.items() if len(values) == 1 and _is_zeros(values[0])}


def _is_zeros(value: ast.expr) -> bool:
    if not isinstance(value, ast.Call) or not value.args or not ast.unparse(value.func).endswith("Parameter"):
        return False
    inner = value.args[0]
    return isinstance(inner, ast.Call) and ast.unparse(inner.func).endswith("torch.zeros")


def _trains(index: ProgramIndex, made: ast.ClassDef, name: str) -> bool:
    """Whether this program could give the parameter to an optimiser: by its name or among all of the network's."""
    tree = index.program.tree
    if tree is None:
        return False
    own = {
        n.attr
        for n in walk(made)
        if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name) and n.value.id == "self"
    }
    inside = {id(n) for n in walk(made)}
    around: dict[int, ast.AST] = {id(child): node for node in walk(tree) for child in ast.iter_child_nodes(node)}
    networks = {"self"}
    for node in walk(tree):
        if isinstance(node, ast.Constant) and node.value == name:
            return True  # getattr, or a list of names
        if isinstance(node, ast.Attribute) and id(node) not in inside:
            if node.attr == name:
                return True
            if isinstance(node.value, ast.Name) and node.attr in own and not node.attr.startswith("_"):
                networks.add(node.value.id)
    for node in walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if node.func.attr not in _HANDED_OUT:
            continue
        of = node.func.value
        if isinstance(of, ast.Attribute) and of.attr not in ("module", "_orig_mod"):
            continue  # a part of the network, such as its blocks
        if isinstance(of, ast.Name) and of.id not in networks:
            continue
        if not _harmless(node, around):
            return True
    return False


def _harmless(call: ast.Call, around: dict[int, ast.AST]) -> bool:
    """Whether all parameters are only counted, clipped, cast or frozen here."""
    above = around.get(id(call))
    if isinstance(above, ast.Call) and ast.unparse(above.func).endswith("clip_grad_norm_"):
        return True
    if isinstance(above, ast.comprehension):
        generator = around.get(id(above))
        holder = around.get(id(generator)) if generator is not None else None
        return isinstance(holder, ast.Call) and ast.unparse(holder.func) in ("sum", "any", "all", "max", "next")
    if isinstance(above, ast.For) and above.iter is call:
        return all(_only_sets(s) for s in above.body)
    return False


def _only_sets(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.If):
        return all(_only_sets(s) for s in (*statement.body, *statement.orelse))
    if isinstance(statement, ast.With):
        return all(_only_sets(s) for s in statement.body)
    if isinstance(statement, ast.Assign):
        return all(
            isinstance(t, ast.Attribute) and t.attr in ("data", "grad", "requires_grad") for t in statement.targets
        )
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        function = statement.value.func
        return isinstance(function, ast.Attribute) and function.attr in ("requires_grad_", "broadcast", "all_reduce")
    return isinstance(statement, (ast.Pass, ast.Continue))
