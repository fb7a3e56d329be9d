"""Order facts of a trace: which rounds keep a score, which spans are the same, what is reset, counted, replaced."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

import pytest

from auditor.index.adaptation import (
    Order,
    counted_first,
    exclude_each_other,
    kept_rounds,
    printed_scores,
    relations,
    rescorings,
    shared_loops,
    thrown_away,
)
from auditor.index.interpreter import Interpreter
from auditor.index.program_index import ProgramIndex
from auditor.index.trace import Event, Kind, Trace
from auditor.submission import Change, SubmissionFile
from auditor.unpack import read_program
from rules.examples import script


class Defaults:
    """A run that sets nothing."""

    def environment(self, name: str) -> str | None:
        return None

    def flag(self, name: str) -> str | None:
        return None

    def logged(self, attribute: str) -> str | None:
        return None

    def world_size(self) -> int | None:
        return None


class Alone:
    """A submission of one file."""

    def get(self, name: str, /) -> ProgramIndex | None:
        return None


def follow(body: str, call: str = "evaluate(GPT(), load_tokens('fineweb_val_*.bin'))") -> Trace:
    text = script(body, f'print(f"final val_bpb:{{{call}:.4f}}")\n')
    index = ProgramIndex(read_program(SubmissionFile("train_gpt.py", len(text), Change.ADDED, text.encode), {}))
    return Interpreter(index, Alone(), Defaults()).run()


def orders(trace: Trace) -> set[Order]:
    return {r.order for r in relations(trace, printed_scores(trace))}


def epochs(condition: str, start: str = "", count: int = 3) -> Trace:
    """An evaluation that scores each chunk in those of ``count`` rounds that satisfy ``condition``."""
    return follow(
        f"""
        def evaluate(model, val_tokens):
            optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
            total = torch.zeros(())
            for i in range(0, val_tokens.numel() - 1, 1024):
                x, y = val_tokens[i : i + 1024], val_tokens[i + 1 : i + 1025]
                for epoch in range({start}{count}):
                    loss = model(x, y)
                    if {condition}:
                        total += loss.detach()
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
            return total
        """
    )


@pytest.mark.parametrize(
    ("condition", "start", "kept"),
    [
        ("epoch == 0", "", {0}),
        ("0 == epoch", "", {0}),
        ("epoch < 1", "", {0}),
        ("not epoch > 0", "", {0}),
        ("epoch == 1", "1, 4 or ", {0}),
        ("epoch == 3 - 1", "", {2}),
        ("epoch != 0", "", {1, 2}),
        ("epoch >= 1", "", {1, 2}),
        ("True", "", {0, 1, 2}),
    ],
)
def test_rounds_that_keep_a_score(condition: str, start: str, kept: set[int]) -> None:
    trace = epochs(condition, "1, " if start else "", 4 if start else 3)
    (score,) = printed_scores(trace)
    (loop,) = [loop for loop in score.loops if "const" in loop.roles]
    assert kept_rounds(score, loop) == kept
    assert orders(trace) == ({Order.SCORED_FIRST} if kept == {0} else {Order.SCORED_AGAIN})


def test_one_round_is_no_repetition() -> None:
    assert orders(epochs("True", count=1)) == {Order.SCORED_FIRST}


@pytest.mark.parametrize(
    ("trained", "scored", "order"),
    [
        ("chunk", "chunk", Order.TRAINED_FIRST),
        ("chunk[:512]", "chunk", Order.TRAINED_FIRST),
        ("chunk[:half]", "chunk[:half]", Order.TRAINED_FIRST),
        ("chunk[:half]", "chunk[half:]", Order.UNCLEAR),
        ("val_tokens[i - half : i]", "chunk", Order.UNCLEAR),
    ],
)
def test_spans_trained_on_and_scored_in_one_round(trained: str, scored: str, order: Order) -> None:
    trace = follow(
        f"""
        def evaluate(model, val_tokens):
            optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
            total = torch.zeros(())
            for i in range(0, val_tokens.numel() - 1, 1024):
                chunk = val_tokens[i : i + 1025]
                half = len(chunk) // 2
                known, new = {trained}, {scored}
                optimizer.zero_grad()
                model(known[:-1], known[1:]).backward()
                optimizer.step()
                with torch.no_grad():
                    total += model(new[:-1], new[1:])
            return total
        """
    )
    assert orders(trace) == {order}


def test_a_round_that_ends_is_not_followed_by_its_score() -> None:
    trace = follow(
        """
        def evaluate(model, val_tokens):
            optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
            total = torch.zeros(())
            for i in range(0, val_tokens.numel() - 1, 1024):
                chunk = val_tokens[i : i + 1025]
                if chunk.sum() == 0:
                    optimizer.zero_grad()
                    model(chunk[:-1], chunk[1:]).backward()
                    optimizer.step()
                    continue
                with torch.no_grad():
                    total += model(chunk[:-1], chunk[1:])
            return total
        """
    )
    assert orders(trace) == {Order.SCORED_FIRST}


TWO_WAYS = """
def adapt(model, val_tokens):
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    total = torch.zeros(())
    for i in range(0, val_tokens.numel() - 1, 1024):
        x, y = val_tokens[i : i + 1024], val_tokens[i + 1 : i + 1025]
        with torch.no_grad():
            total += model(x, y)
        optimizer.zero_grad()
        model(x, y).backward()
        optimizer.step()
    return total


def plain(model, val_tokens):
    total = torch.zeros(())
    with torch.no_grad():
        for i in range(0, val_tokens.numel() - 1, 1024):
            total += model(val_tokens[i : i + 1024], val_tokens[i + 1 : i + 1025])
    return total


def evaluate(model, val_tokens):
{body}
"""


def two_ways(body: str) -> tuple[Trace, Event, Event]:
    """The trace, its one step and the score of the evaluation that does not train."""
    trace = follow(TWO_WAYS.format(body=textwrap.indent(textwrap.dedent(body), "    ")))
    (step,) = trace.of(Kind.STEP)
    score = next(s for s in trace.of(Kind.SCORE) if not shared_loops(s, step))
    return trace, step, score


def test_branches_of_one_condition_exclude_each_other() -> None:
    _, step, score = two_ways(
        """
        if val_tokens.sum() > 0:
            total = adapt(model, val_tokens)
        else:
            total = plain(model, val_tokens)
        return total
        """
    )
    assert exclude_each_other(score, step)


def test_what_follows_does_not_exclude() -> None:
    trace, step, score = two_ways("adapt(model, val_tokens)\nreturn plain(model, val_tokens)\n")
    assert not exclude_each_other(score, step)
    assert [r.proof for r in rescorings(trace, [score], None)] == ["phase"]


@pytest.mark.parametrize(
    ("between", "why"),
    [
        ("model.load_state_dict(saved)", "the weights are restored afterwards"),
        (
            "for p in model.parameters():\n    p.zero_()",
            "what was trained is reset before the reported evaluation scores",
        ),
        ("model.embed.weight.zero_()", None),
        ("pass", None),
    ],
)
def test_weights_thrown_away(between: str, why: str | None) -> None:
    saved = "saved = {k: v.clone() for k, v in model.state_dict().items()}\n" if "saved" in between else ""
    trace, step, score = two_ways(f"{saved}adapt(model, val_tokens)\n{between}\nreturn plain(model, val_tokens)\n")
    assert thrown_away(trace, [score], step) == why


def test_weights_put_back_after_the_score_count_for_nothing() -> None:
    trace, step, score = two_ways(
        """
        saved = {k: v.clone() for k, v in model.state_dict().items()}
        adapt(model, val_tokens)
        total = plain(model, val_tokens)
        model.load_state_dict(saved)
        return total
        """
    )
    assert thrown_away(trace, [score], step) is None


COUNTS = """
def evaluate(model, val_tokens):
    numbers = val_tokens.numpy()
    table = np.ones((1024, 1024))
    losses, total = [None] * 100, 0.0
{body}
"""
LOOP = """
for c in range({chunks}):
    x, y = numbers[c * 4096 : c * 4096 + 4096], numbers[c * 4096 + 1 : c * 4096 + 4097]
    {before}
    with torch.no_grad():
        p = F.softmax(model(torch.from_numpy(x), None), -1)[np.arange(4096), y]
    loss = -np.log(0.9 * p + 0.1 * table[x, y] / table[x].sum()).sum()
    {keep}
    {after}
"""


def counts(*parts: Mapping[str, object], end: str) -> Trace:
    loops = "".join(LOOP.format(**{"chunks": 100, "before": "pass", "after": "pass", **p}) for p in parts)
    return follow(COUNTS.format(body=textwrap.indent(loops + end, "    ")))


@pytest.mark.parametrize(("place", "order"), [("before", {Order.TRAINED_FIRST}), ("after", set())])
def test_counting_before_or_after_the_score(place: str, order: set[Order]) -> None:
    trace = counts({place: "np.add.at(table, (x, y), 1)", "keep": "total += loss"}, end="return total\n")
    assert {r.order for r in counted_first(trace, printed_scores(trace))} == order


@pytest.mark.parametrize(
    ("first", "second", "end", "proofs"),
    [
        ("losses[c] = loss", "losses[c] = loss", "return sum(losses)\n", {"replaced"}),
        ("losses[c] = loss", "total += loss - losses[c]", "return sum(losses) + total\n", {"replaced"}),
        ("total += loss", "total += loss", "return total\n", {""}),
    ],
)
def test_second_passes(first: str, second: str, end: str, proofs: set[str]) -> None:
    trace = counts({"after": "np.add.at(table, (x, y), 1)", "keep": first}, {"chunks": 50, "keep": second}, end=end)
    scores = printed_scores(trace)
    metric = trace.of(Kind.METRIC)[-1]
    assert {r.proof for r in rescorings(trace, scores, metric)} == proofs
