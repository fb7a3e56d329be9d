"""Lines found by a word before a pattern is tried on them."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from auditor.logs.lines import LogFile, without_prefix
from auditor.logs.run import parse_log
from auditor.text import TextIndex, lines_with, lower, matches

_LETTERS = st.text(alphabet="abTAB\n\r \u0130", max_size=60)


@given(_LETTERS, st.integers(0, 20), st.integers(0, 60))
def test_lines_with_a_word_are_those_that_contain_it(text: str, begin: int, end: int) -> None:
    begin, end = min(begin, len(text)), min(max(begin, end), len(text))
    expected: list[tuple[int, int]] = []
    at = begin
    for line in text[begin:end].split("\n"):
        if "ab" in line or "T" in line:
            expected.append((at, at + len(line)))
        at += len(line) + 1
    assert lines_with(text, ("ab", "T"), begin, end) == expected


@given(_LETTERS)
def test_lower_case_keeps_every_character_in_its_place(text: str) -> None:
    assert len(lower(text)) == len(text)
    assert all(a == b.lower() for a, b in zip(lower(text), text, strict=True) if b != "\u0130")


@given(_LETTERS)
def test_a_pattern_on_the_lines_of_its_word_matches_as_on_the_whole_text(text: str) -> None:
    pattern = re.compile(r"(?im)^[^\n]?\bt[ab]?")
    expected = [m.span() for m in pattern.finditer(text)]
    assert [m.span() for m in matches(pattern, text, lower(text), ("t",))] == expected


def test_a_word_narrows_a_search_of_a_log_and_changes_nothing_else() -> None:
    text = "import a\nEval Timer starts\nno clock\nTimer: begin, the timer\n"
    log = LogFile("l.txt", TextIndex.of(text), ((1, 1),))
    pattern = re.compile(r"(?i)timer")
    found = log.find(pattern)
    assert [f.line for f in found] == [2, 4]
    assert log.find(pattern, words=("timer",)) == found
    assert [f.line for f in log.find("clock")] == [3]
    assert log.find("import") == []


def test_quiet_output_leaves_out_lines_that_count_up() -> None:
    text = "seed:1\nstep:1/9 train_loss:5.1\n\nstep:2/9 train_loss:5.0\n[3/9] val_bpb:1.2\nfinal val_bpb:1.1\nchunk 4/9"
    (run,) = parse_log("log.txt", text)
    assert [(m[0], n) for m, n in run.scan(re.compile(r"(?m)^.+$"), quiet=True)] == [
        ("seed:1", 1),
        ("final val_bpb:1.1", 6),
    ]
    assert [n for _, n in run.scan(re.compile("loss"), words=("loss",))] == [2, 4]


def test_prefixes_are_taken_off_and_words_are_not() -> None:
    assert without_prefix("[rank0]: step:1") == without_prefix("rank 0: step:1") == "step:1"
    assert without_prefix("INFO:root: loss") == "loss"
    assert without_prefix("val_bpb:1.1") == "val_bpb:1.1"
    assert without_prefix("") == ""
