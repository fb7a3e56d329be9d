"""Predictions along a stream of tokens: does what is predicted for a position depend on the token that stands there?

A loop over stored tokens predicts each one from tables and then learns it. The prediction for position ``i`` may depend
on everything before ``i``; where it is only made if the token *at* ``i`` has some property (``if not
starts_word[tokens[i]]``), the property of the realised token is given away. Found in Python by the syntax tree and in
shipped C or C++ as text: a table of properties indexed with the token of this round, a condition on it, and under that
condition a write into the output at this round's position.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

from auditor.index.flow import CONVERSIONS, WRAPPERS
from auditor.index.names import leaf_name
from auditor.unpack.native import NativeFunction, NativeSource
from auditor.unpack.walk import walk


@dataclass(frozen=True)
class StreamGate:
    """A prediction that depends on a property of the token it is for."""

    body: ast.FunctionDef | ast.AsyncFunctionDef
    property: ast.expr
    """Where the property of the round's token is read."""
    condition: ast.expr
    outputs: tuple[tuple[str, ast.expr], ...]
    """Arrays that are written under the condition, each with what is written."""
    free: frozenset[str]
    """Arrays of the same loop that are written whatever the token is."""


@dataclass(frozen=True)
class NativeStreamGate:
    """The same in native code; offsets point into the source's text."""

    source: NativeSource
    function: NativeFunction
    property: int
    condition: int
    outputs: tuple[str, ...]
    free: frozenset[str]


def stream_gates(body: ast.FunctionDef | ast.AsyncFunctionDef) -> list[StreamGate]:
    """The gated predictions in the loops of one Python function."""
    return [gate for loop in walk(body) if isinstance(loop, ast.For) for gate in _gates_of(body, loop)]


def _gates_of(body: ast.FunctionDef | ast.AsyncFunctionDef, loop: ast.For) -> Iterator[StreamGate]:
    index, tokens = _round(loop)
    if index is None or not tokens:
        return
    properties: dict[str, ast.expr] = {}
    learnt: set[str] = set()
    for node in walk(loop):
        if not isinstance(node, ast.Assign) or len(node.targets) != 1:
            continue
        target = node.targets[0]
        if isinstance(target, ast.Name):
            if _same_token(node.value, tokens):
                tokens.add(target.id)
            elif (found := _property(node.value, tokens)) is not None:
                properties.setdefault(target.id, found)
        elif isinstance(target, ast.Subscript):
            key = target.slice
            if not (isinstance(key, ast.Name) and key.id == index):
                learnt.add(ast.unparse(target.value))
    gated: dict[str, tuple[ast.expr, ast.expr, ast.expr]] = {}
    free: set[str] = set()
    for store, conditions in _stores(loop.body, index, []):
        name = ast.unparse(store.targets[0].value)  # type: ignore[attr-defined]
        if not any(ast.unparse(n) in learnt for n in walk(store.value) if isinstance(n, (ast.Name, ast.Attribute))):
            continue
        for condition in conditions:
            found = _property(condition, tokens)
            named = [properties[n] for n in _names(condition) if n in properties]
            if found is not None or named:
                gated.setdefault(name, (found or named[0], condition, store.value))
                break
        else:
            free.add(name)
    if gated:
        first = next(iter(gated.values()))
        outputs = tuple((name, value) for name, (_, _, value) in gated.items() if name not in free)
        if outputs:
            yield StreamGate(body, first[0], first[1], outputs, frozenset(free))


def _round(loop: ast.For) -> tuple[str | None, set[str]]:
    """The name of the position in ``for i, token in enumerate(tokens)`` (or over a range), and names of the token."""
    if isinstance(loop.iter, ast.Call) and isinstance(loop.iter.func, ast.Name):
        if loop.iter.func.id == "enumerate" and isinstance(loop.target, ast.Tuple) and len(loop.target.elts) == 2:
            place, token = loop.target.elts
            if isinstance(place, ast.Name) and isinstance(token, ast.Name):
                return place.id, {token.id}
        if loop.iter.func.id in ("range", "prange") and isinstance(loop.target, ast.Name):
            index = loop.target.id
            found = {
                node.targets[0].id
                for node in walk(loop)
                if isinstance(node, ast.Assign)
                and isinstance(node.targets[0], ast.Name)
                and isinstance(part := _bare(node.value), ast.Subscript)
                and isinstance(part.slice, ast.Name)
                and part.slice.id == index
            }
            return index, found
    return None, set()


def _bare(node: ast.expr) -> ast.expr:
    """An expression without the conversions around it."""
    while isinstance(node, ast.Call):
        if leaf_name(node) in WRAPPERS and node.args:
            node = node.args[0]
        elif isinstance(node.func, ast.Attribute) and node.func.attr in CONVERSIONS:
            node = node.func.value
        else:
            break
    return node


def _same_token(node: ast.expr, tokens: set[str]) -> bool:
    inner = _bare(node)
    return isinstance(inner, ast.Name) and inner.id in tokens


def _property(node: ast.expr, tokens: set[str]) -> ast.expr | None:
    """A table read at the token of this round, inside an expression."""
    for part in walk(node):
        if isinstance(part, ast.Subscript) and _same_token(part.slice, tokens):
            return part
    return None


def _names(node: ast.AST) -> set[str]:
    return {n.id for n in walk(node) if isinstance(n, ast.Name)}


def _stores(
    block: list[ast.stmt], index: str, conditions: list[ast.expr]
) -> Iterator[tuple[ast.Assign, list[ast.expr]]]:
    """Writes at the round's position, each with the conditions it stands under; leaving the round early is one."""
    held = list(conditions)
    for statement in block:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Subscript):
            key = statement.targets[0].slice
            if isinstance(key, ast.Name) and key.id == index:
                yield statement, held
        elif isinstance(statement, ast.If):
            yield from _stores(statement.body, index, [*held, statement.test])
            yield from _stores(statement.orelse, index, [*held, statement.test])
            if statement.body and isinstance(statement.body[-1], (ast.Continue, ast.Break, ast.Return)):
                held = [*held, statement.test]
        elif isinstance(statement, (ast.For, ast.While, ast.With, ast.Try)):
            yield from _stores(statement.body, index, held)


# -- native code ------------------------------------------------------------------------------------------

_TOKEN = re.compile(r"\b(\w+)\s*=\s*(?:\([\w\s]+\)|\w+(?:<[^<>]*>)?\()?\s*(\w+)\s*\[\s*(\w+)\s*\]\s*\)?\s*;")
_LOOP = re.compile(r"\bfor\s*\(\s*[^;()]*?\b(\w+)\s*=[^;]*;")


def native_gates(source: NativeSource, function: NativeFunction) -> list[NativeStreamGate]:
    """The gated predictions in one native function."""
    code = function.body
    found: list[NativeStreamGate] = []
    for loop in _LOOP.finditer(code):
        start = code.find("{", loop.end())
        end = _closing(code, start)
        if start < 0 or end < 0:
            continue
        inner = code[start:end]
        gate = _native_gate(source, function, inner, function.body_offset + start, loop[1])
        if gate is not None:
            found.append(gate)
    return found


def _native_gate(
    source: NativeSource, function: NativeFunction, code: str, offset: int, index: str
) -> NativeStreamGate | None:
    places = {index}  # p = positions[i] is this round's position as well
    tokens: dict[str, int] = {}
    for match in _TOKEN.finditer(code):
        if match[3] not in places:
            continue
        if "pos" in match[2] or "idx" in match[2]:
            places.add(match[1])
        elif match[2] in function.parameters or match[2].endswith("_"):
            tokens.setdefault(match[1], match.start())
    properties: dict[str, int] = {}
    for token in tokens:
        reads = re.compile(rf"\b(\w+)\s*=\s*[^;=]*?\w+\s*\[\s*{re.escape(token)}\s*\]")
        for match in reads.finditer(code):
            if match[1] not in tokens:
                properties.setdefault(match[1], match.start())
    if not properties:
        return None
    word = re.compile(rf"\b(?:{'|'.join(map(re.escape, properties))})\b")
    gated: dict[str, tuple[int, int]] = {}
    free: set[str] = set()
    branches = list(_branches(code, word))
    for store in re.finditer(rf"\b(\w+)\s*\[\s*{re.escape(index)}\s*\]\s*=(?!=)", code):
        if store[1] not in function.parameters:
            continue
        around = [b for b in branches if b[1] <= store.start() < b[2]]
        if around:
            name = word.search(code, around[0][0])
            gated.setdefault(store[1], (properties[name[0]] if name else around[0][0], around[0][0]))
        else:
            free.add(store[1])
    gated = {name: places_ for name, places_ in gated.items() if name not in free}
    if not gated:
        return None
    seen, condition = next(iter(gated.values()))
    return NativeStreamGate(source, function, offset + seen, offset + condition, tuple(gated), frozenset(free))


def _branches(code: str, word: re.Pattern[str]) -> Iterator[tuple[int, int, int]]:
    """Branches whose condition holds one of the words: (condition, start, end), with their ``else``."""
    for match in re.finditer(r"\bif\s*\(", code):
        close = _closing(code, match.end() - 1, "()")
        if close < 0 or word.search(code, match.end(), close) is None:
            continue
        start = code.find("{", close)
        if start < 0 or code[close + 1 : start].strip():
            continue
        end = _closing(code, start)
        while (more := re.compile(r"\}\s*else\s*\{").match(code, end)) is not None:
            end = _closing(code, more.end() - 1)
        yield match.start(), start, end


def _closing(code: str, start: int, pair: str = "{}") -> int:
    """The offset of the bracket that closes the one at ``start``; -1 where there is none."""
    depth = 0
    for place in range(max(start, 0), len(code)):
        if code[place] == pair[0]:
            depth += 1
        elif code[place] == pair[1]:
            depth -= 1
            if depth == 0:
                return place
    return -1
