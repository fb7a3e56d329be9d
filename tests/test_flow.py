"""What a value is computed from: reaching assignments, calls, callbacks, records, and the keys of count tables."""

from __future__ import annotations

import ast
import textwrap

import pytest

from auditor.index.flow import Definitions, Flow, Item, _collect
from auditor.index.tables import Form, Tables
from auditor.index.trace import Kind
from auditor.reading import Reading
from tests.test_rules import read


def definitions(code: str) -> tuple[Definitions, ast.FunctionDef]:
    body = ast.parse(textwrap.dedent(code)).body[0]
    assert isinstance(body, ast.FunctionDef)
    return _collect(body, {}), body


@pytest.mark.parametrize(
    ("code", "line", "expected"),
    [
        ("def f(a):\n    x = 1\n    x = 2\n    return x\n", 4, {2}),
        ("def f(a):\n    x = 1\n    if a:\n        x = 2\n    return x\n", 5, {1, 2}),
        ("def f(a):\n    x = 1\n    for i in a:\n        use(x)\n        x = 2\n", 4, {1, 2}),
        ("def f(a):\n    for i in a:\n        x = 1\n        use(x)\n        x = 2\n", 4, {1}),
        ("def f(a):\n    use(x)\n    x = 2\n", 2, set()),
    ],
    ids=["overwritten", "either branch", "a later round", "set anew in each round", "not yet"],
)
def test_only_assignments_that_reach_a_line_count(code: str, line: int, expected: set[int]) -> None:
    known, _ = definitions(code)
    reaching, _ = known.reaching("x", line)
    assert {d.value.value for d in reaching if isinstance(d.value, ast.Constant)} == expected


def script(code: str) -> Reading:
    return read({"train_gpt.py": textwrap.dedent(code)})


def sources(reading: Reading, wanted: str) -> set[str]:
    """Texts of the constants behind the argument of the call ``show(wanted)``."""
    entry = reading.entry
    assert entry is not None and entry.program.tree is not None
    flow = Flow(reading.trace, reading.opened())
    found: set[str] = set()
    for facts in entry.functions.values():
        for node in ast.walk(facts.node):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == wanted:
                site = flow.site(facts.node, entry.program)
                for item in flow.walk([Item(node.args[0], site)]):
                    if isinstance(item.node, ast.Constant) and isinstance(item.node.value, str):
                        found.add(item.node.value)
    return found


def test_the_function_that_this_call_passes_is_the_one_entered() -> None:
    reading = script(
        """
        def timed(run):
            result = run()
            return result


        def main():
            first = timed(lambda: "one")
            second = timed(lambda: "two")
            show(second)
            print(first)


        main()
        """
    )
    assert sources(reading, "show") == {"two"}


def test_tuples_in_lists_keep_their_elements_apart() -> None:
    reading = script(
        """
        def main(n):
            kept = []
            for i in range(n):
                kept.append(("left", "right"))
            for a, b in kept:
                show(b)


        main(3)
        """
    )
    assert sources(reading, "show") == {"right"}


def test_a_field_of_a_record_is_what_it_was_built_with() -> None:
    reading = script(
        """
        from dataclasses import dataclass


        @dataclass
        class Result:
            loss: str
            time: str


        def evaluate():
            return Result(loss="the loss", time="the time")


        def main():
            result = evaluate()
            show(result.loss)


        main()
        """
    )
    assert sources(reading, "show") == {"the loss"}


CACHE = """
import numpy as np


def evaluate(tokens):
    contexts, pairs = np.zeros(4096), np.zeros(4096)
    total = 0.0
    for t in range(1, len(tokens)):
        context = tokens[t - 1] * 36313
        p = 1.0
        seen = contexts[context % 4096]
        p = {quotient}
        total -= np.log(p)
        contexts[context % 4096] += 1
        pairs[(context ^ tokens[t] * 27191) % 4096] += 1
    return total


tokens = np.fromfile("fineweb_val_000.bin", dtype=np.uint16)
print(f"final val_bpb:{{evaluate(tokens):.4f}}")
"""


@pytest.mark.parametrize(
    ("quotient", "forms"),
    [
        ("pairs[(context ^ tokens[t] * 27191) % 4096] / max(seen, 1)", [Form.HASHED]),
        ("pairs[(context ^ tokens[t - 2] * 27191) % 4096] / max(seen, 1)", [Form.HASHED]),
        ("pairs[context % 4096] / max(seen, 1)", []),
        ("pairs[context % 4096 : t] / pairs[context % 4096 : t].sum()", []),
        ("1.0", []),
    ],
)
def test_a_quotient_is_told_by_the_tokens_of_its_keys(quotient: str, forms: list[Form]) -> None:
    reading = script(CACHE.format(quotient=quotient))
    tables = Tables(reading.trace, reading.opened(), reading.trace.of(Kind.METRIC))
    assert [r.form for r in tables.ratios] == forms


@pytest.mark.parametrize(
    ("boost", "looked_up"),
    [
        ("np.log1p(pairs[(context ^ tokens[t] * 27191) % 4096]) - np.log1p(seen)", 1),
        ("np.log1p(pairs[context % 4096]) - np.log1p(seen)", 0),
    ],
)
def test_counts_of_a_pair_and_its_context_need_no_quotient(boost: str, looked_up: int) -> None:
    reading = script(CACHE.format(quotient=boost))
    tables = Tables(reading.trace, reading.opened(), reading.trace.of(Kind.METRIC))
    assert not tables.ratios and len(tables.lookups) == looked_up


def test_a_table_that_is_not_counted_is_none() -> None:
    reading = script(CACHE.format(quotient="1.0").replace("+= 1", "= 1"))
    tables = Tables(reading.trace, reading.opened(), ())
    assert not tables.counted
