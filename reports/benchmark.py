"""What a benchmark found, as tables for a person at a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from auditor.benchmark import ANY, Benchmark, Result, Score, scores, totals
from reports.text import visible

_COLUMNS = ("labels", "right", "false", "missed", "undecided", "precision", "recall", "with doubt")
_LISTED = 20


def render(benchmark: Benchmark, *, adjudicated: bool) -> Iterator[RenderableType]:
    """One table by the labels as they stand and, if asked, one with our own readings in their place."""
    by_label = scores(benchmark.judgements)
    yield Text("By the labels as they stand", style="bold")
    yield _table(by_label)
    if adjudicated:
        count = sum(1 for j in benchmark.judgements if j.adjudication is not None)
        yield Text(f"\nWith our own readings in place of {count} labels", style="bold")
        yield _table(scores(benchmark.judgements, adjudicated=True))
    yield ""
    yield Text(
        "false: the tool accuses and the label does not; missed: the other way round; undecided: suspect or unknown."
        " With doubt: recall with what is suspected counted as half. Intervals are Wilson's, 95 %."
        f" {ANY}: accepted by the organisers, so no effect may be a violation."
    )
    if benchmark.not_found:
        yield Text(f"Not in the mirror: {_numbers(benchmark.not_found)}")
    if benchmark.other_head:
        yield Text(f"Another head than the label's: {_numbers(benchmark.other_head)}")
    for number, error in benchmark.crashed.items():
        yield Text(f"#{number}: the tool failed: {visible(error, 200)}", style="red")


def _table(by_rule: Mapping[tuple[str, str], Score]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("rule", header_style="bold", no_wrap=True)
    table.add_column("strength", header_style="bold", no_wrap=True)
    for name in _COLUMNS:
        table.add_column(name, header_style="bold", justify="right", no_wrap=True)
    for (name, strength), score in by_rule.items():
        table.add_row(Text(visible(name)), Text(visible(strength)), *_cells(score))
    for strength, score in totals(by_rule).items():
        table.add_row(Text("all rules", style="bold"), Text(visible(strength), style="bold"), *_cells(score))
    return table


def _cells(score: Score) -> list[str]:
    counts = score.counts
    numbers = (score.labels, score.right, counts[Result.FALSE], counts[Result.MISSED], score.undecided)
    with_doubt = score.recall_with_doubt()
    doubt = "" if with_doubt is None else f"{with_doubt:.3f}"
    return [*map(str, numbers), _interval(score.precision()), _interval(score.recall()), doubt]


def _interval(bounds: tuple[float, float, float] | None) -> str:
    return "" if bounds is None else "{:.3f} ({:.2f}-{:.2f})".format(*bounds)


def _numbers(numbers: tuple[int, ...]) -> str:
    more = f" and {len(numbers) - _LISTED} more" if len(numbers) > _LISTED else ""
    return ", ".join(f"#{n}" for n in numbers[:_LISTED]) + more
