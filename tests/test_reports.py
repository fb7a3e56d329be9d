"""The reports say everything, and nothing a submission contains can act on a terminal or on GitHub."""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from auditor.verdict import Effect, Evidence, Outcome, Overall, Status, Verdict
from reports import REPORTS
from reports.base import gist, ranked, tally
from reports.json import JsonReport
from reports.markdown import MAX_CHARACTERS, MarkdownReport, code, fenced, permalink, prose
from reports.summary import SummaryReport
from reports.terminal import TerminalReport
from reports.text import snippet, spans, visible, visible_lines

VERDICT = Path(__file__).parent / "fixtures" / "verdict.json"
HEAD = "0123456789abcdef0123456789abcdef01234567"
HOSTILE = (
    "\x1b[2J\x1b]0;owned\x07 [bold red]x[/] :bomb: \u202eevil\u2066 \u200b\U000e0041 \x9b31m @everyone "
    "#1 GH-2 octo/repo#3 a@b.example http://evil.example www.evil.example <img src=x onerror=alert(1)> "
    "<!-- --> </details> | cell | ``` ~~~ ` `` **bold** _it_ [link](http://evil.example) "
    "![i](http://evil.example/i.png) \\ &lt; $x$"
)


@pytest.fixture
def verdict() -> Verdict:
    return Verdict.model_validate_json(VERDICT.read_text("utf-8"))


def changed(verdict: Verdict, /, **fields: Any) -> Verdict:
    """A copy with other top-level fields, validated (model_copy would not)."""
    return Verdict.model_validate(verdict.model_dump() | fields)


def made_hostile(value: Any) -> Any:
    """``value`` (a dumped verdict) with HOSTILE put into every free-text field."""
    free = {
        *("author", "conflict", "description", "diff", "entry_point", "evaluation", "file", "folder"),
        *("function", "how", "kind", "label", "launch_commands", "log_file", "logs", "metadata_note", "name"),
        *("not_checked", "notes", "phases", "reason", "role", "script", "snippet", "source", "state"),
        *("title", "track", "value"),
    }
    if isinstance(value, list | tuple):
        return [made_hostile(item) for item in value]
    if not isinstance(value, dict):
        return value
    hostile = {}
    for key, item in value.items():
        if key in free and isinstance(item, str):
            hostile[key] = item + HOSTILE
        elif key in free and isinstance(item, list | tuple):
            hostile[key] = [entry + HOSTILE for entry in item]
        else:
            hostile[key] = made_hostile(item)
    return hostile


@pytest.fixture
def hostile(verdict: Verdict) -> Verdict:
    dumped = verdict.model_dump(mode="json")
    tool = dumped.pop("tool")
    return Verdict.model_validate(made_hostile(dumped) | {"tool": tool})


def invisible(text: str) -> set[str]:
    return {c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co")}


# What all of them have in common


@pytest.mark.parametrize("name", sorted(REPORTS))
def test_every_report_is_deterministic_and_ends_in_one_newline(name: str, verdict: Verdict) -> None:
    text = REPORTS[name]().render(verdict)
    assert text == REPORTS[name]().render(verdict)
    assert text.endswith("\n")
    assert not text.endswith("\n\n")


@pytest.mark.parametrize("name", sorted(REPORTS))
def test_no_report_lets_invisible_characters_through(name: str, hostile: Verdict) -> None:
    assert invisible(REPORTS[name]().render(hostile)) == set()


def test_ranking_puts_what_decides_first(verdict: Verdict) -> None:
    slugs = "smeargate-bos-leak external-binary target-gate prequant-ttt eval-subset broken-script"
    assert [o.rule for o in ranked(verdict.outcomes)] == slugs.split()
    assert tally(verdict.outcomes).startswith("1 active (violation), 1 active (accepted), 1 suspect")


def test_the_gist_names_a_few_and_counts_the_rest(verdict: Verdict) -> None:
    outcome = next(o for o in verdict.outcomes if o.effect is Effect.VIOLATION)
    many = tuple(outcome.model_copy(update={"rule": f"rule-{i}"}) for i in range(5))
    assert gist(Overall.VIOLATIONS_FOUND, many) == "rule-0, rule-1, rule-2 and 2 more"
    assert gist(Overall.NEEDS_REVIEW, verdict.outcomes) == "target-gate"
    assert gist(Overall.NO_VIOLATION_FOUND, verdict.outcomes) == "6 rules checked"


def crowded(verdict: Verdict) -> Verdict:
    """As many rules as the catalogue has: two of note, three unreadable alike, the rest clean or not applicable."""
    by_status = {o.status: o for o in verdict.outcomes}
    clean = by_status[Status.CLEAN]
    unknown = clean.model_copy(update={"status": Status.UNKNOWN, "reason": "The helper could not be read."})
    outcomes = [by_status[Status.ACTIVE], by_status[Status.LATENT]]
    outcomes += [unknown.model_copy(update={"rule": f"unread-{i}"}) for i in range(3)]
    outcomes += [clean.model_copy(update={"rule": f"clean-{i}", "reason": f"Absent {i}."}) for i in range(40)]
    absent = clean.model_copy(update={"status": Status.NOT_APPLICABLE, "reason": "No such thing."})
    outcomes += [absent.model_copy(update={"rule": f"absent-{i}"}) for i in range(5)]
    return verdict.model_copy(update={"outcomes": tuple(outcomes), "other_folders": ()})


def test_fifty_rules_stay_readable(verdict: Verdict) -> None:
    many = crowded(verdict)
    text = TerminalReport(100).render(many)
    table = text[text.index("Rule ") : text.index("What was not checked")]
    flat = " ".join(table.split())
    assert "clean (40): clean-0, clean-1," in flat
    assert "not-applicable (5): absent-0," in flat
    assert table.count("Absent ") == 0
    assert table.count("The helper could not be read.") == 1
    assert "3 rules unknown" in flat and "unread-0, unread-1, unread-2" in flat
    markdown = MarkdownReport().render(many)
    assert "<details><summary>40 clean, 5 not-applicable</summary>" in markdown
    assert markdown.count("Absent ") == 0
    assert markdown.count("The helper could not be read.") == 1


def test_verbose_gives_every_reason(verdict: Verdict) -> None:
    many = crowded(verdict)
    latent = next(o for o in many.outcomes if o.status is Status.LATENT)
    place = f"{latent.evidence[0].line}:{latent.evidence[0].column}"
    for brief, verbose in (
        (TerminalReport(120).render(many), TerminalReport(120, verbose=True).render(many)),
        (MarkdownReport().render(many), MarkdownReport(verbose=True).render(many)),
    ):
        assert "Absent 39." in verbose and "Absent 39." not in brief
        assert len(verbose) > len(brief)
    assert place in TerminalReport(120, verbose=True).render(many)


def test_the_summary_counts_what_there_is_much_of(verdict: Verdict) -> None:
    many = crowded(verdict)
    outcome = next(o for o in many.outcomes if o.status is Status.UNKNOWN)
    more = tuple(outcome.model_copy(update={"rule": f"unread-{i}"}) for i in range(30))
    line = SummaryReport().render(many.model_copy(update={"outcomes": more}))
    assert line.endswith("  30 unknown\n")
    violated = next(o for o in verdict.outcomes if o.effect is Effect.VIOLATION)
    all_of_them = tuple(violated.model_copy(update={"rule": f"rule-{i}"}) for i in range(9))
    assert "rule-8 active (violation)" in SummaryReport().render(many.model_copy(update={"outcomes": all_of_them}))


# Text


def test_visible_writes_out_what_cannot_be_seen() -> None:
    assert visible("a\x1b[31m\u202eb\u200b\u2028\x00\ud800\U000e0041c") == (
        "a\\x1b[31m\\u202eb\\u200b\\u2028\\x00\\ud800\\U000e0041c"
    )
    assert visible("é 漢字 \N{WARNING SIGN}\ufe0f") == "é 漢字 \N{WARNING SIGN}\ufe0f"
    assert visible("two\nlines\r\nand\ta tab") == "two lines and a tab"
    assert visible("x" * 5000, 10) == "x" * 9 + "…"


@given(st.text())
def test_visible_lines_keeps_lines_and_nothing_invisible(text: str) -> None:
    shown = visible_lines(text)
    assert invisible(shown) == set()
    assert shown.count("\n") == text.count("\n")
    assert visible_lines(shown) == shown


def test_snippets_are_bounded() -> None:
    assert snippet("\n".join(map(str, range(100))), lines=3) == "0\n1\n2\n… 97 more lines"
    assert len(snippet("x" * 10_000_000)) == 1200
    assert snippet("") == ""


@given(st.text(alphabet="ab `\n"))
def test_spans_lose_nothing_but_backticks(text: str) -> None:
    assert "".join(f"`{part}`" if is_code else part for part, is_code in spans(text)) == text


# JSON


def test_json_is_the_verdict(verdict: Verdict) -> None:
    text = JsonReport().render(verdict)
    assert Verdict.model_validate_json(text) == verdict
    assert list(json.loads(text)) == sorted(json.loads(text))
    assert text.startswith('{\n  "digest"')


def test_json_has_no_invalid_tokens(verdict: Verdict) -> None:
    reported = verdict.run_config.reported.model_copy(update={"value": float("nan")})
    config = verdict.run_config.model_copy(update={"reported": reported})

    def refuse(token: str) -> None:
        raise AssertionError(f"not JSON: {token}")

    text = JsonReport().render(verdict.model_copy(update={"run_config": config}))
    assert json.loads(text, parse_constant=refuse)["run_config"]["reported"]["value"] is None


# Terminal


@pytest.mark.parametrize("width", [40, 80, 120])
def test_terminal_lines_fit(width: int, verdict: Verdict, hostile: Verdict) -> None:
    for each in (verdict, hostile):
        lines = TerminalReport(width).render(each).splitlines()
        assert max(map(len, lines)) <= width


def test_terminal_says_everything_that_matters(verdict: Verdict) -> None:
    text = TerminalReport(120).render(verdict)
    first = text.splitlines()[0]
    assert "VIOLATIONS FOUND" in first
    assert "example/parameter-golf#4321" in first
    assert "smeargate-bos-leak" in first
    flat = " ".join(text.split())
    for expected in (
        f"Head {HEAD}",
        "Folder records/track_10min_16mb/2026-04-20_SmearedLoop (record track)",
        "Script train_gpt.py, entry point main, packed",
        "1.0712 “quantized val_bpb:” from eval_val (train_gpt.py:640), logged at train_seed42.log:901",
        "1. mixes across document starts here train_gpt.py:212:9",
        "return torch.cat([x[:, :1], x[:, 1:] + g[:, 1:] * x[:, :-1]], dim=1)",
        "Call path main (train_gpt.py:900) → eval_val (train_gpt.py:640)",
        "SMEAR_GATE = True True log, train_seed42.log:31 1 launch command, README.md:25 0 code default",
        "seed 42 says True, seed 1337 says False",
        "Suggested fix for train_gpt.py (verified",
        "packed in line 2, column 19 of the shipped file",
        "Another record folder of this pull request",
        "Whether the run took less than 600 s.",
        "How to dispute",
        verdict.digest,
    ):
        assert expected in flat
    # Of clean rules there is the name, and nothing else.
    assert text.count("eval-subset") == 1


def test_terminal_is_plain_unless_asked(verdict: Verdict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b" not in TerminalReport(80).render(verdict)
    coloured = TerminalReport(80, "truecolor").render(verdict)
    stripped = re.sub(r"\x1b\[[0-9;]*m", "", coloured)
    assert "\x1b[" in coloured
    plain = TerminalReport(80).render(verdict)
    assert [line.rstrip() for line in stripped.splitlines()] == plain.splitlines()


def test_terminal_shows_hostile_text_as_text(hostile: Verdict) -> None:
    flat = TerminalReport(120).render(hostile)
    assert "\\x1b[2J" in flat
    assert "\\u202eevil" in flat
    coloured = TerminalReport(120, "truecolor").render(hostile)
    # Every escape sequence is one of rich's own: colours and attributes, nothing that moves or clears.
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured).count("\x1b") == 0
    assert invisible(re.sub(r"\x1b\[[0-9;]*m", "", coloured)) == set()
    assert ":bomb:" in flat
    assert "[bold red]x[/]" in " ".join(flat.split())


def test_long_lists_are_cut_and_say_so(verdict: Verdict) -> None:
    outcome = next(o for o in verdict.outcomes if o.effect is Effect.VIOLATION)
    many = outcome.model_copy(update={"evidence": outcome.evidence * 20})
    text = TerminalReport(100).render(verdict.model_copy(update={"outcomes": (many,)}))
    assert "and 48 more places" in text


# Markdown


def parse(text: str) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(text)


def flatten(tokens: list[Token]) -> list[Token]:
    return [t for token in tokens for t in (token, *flatten(token.children or []))]


def shown_text(tokens: list[Token]) -> str:
    return "".join(t.content for t in flatten(tokens) if t.type == "text").replace("\u200b", "")


@given(st.text(alphabet=st.one_of(st.sampled_from("`*_[]<>&|~$!^@#\\-+=1. \n\t/:wgh"), st.characters())))
def test_prose_is_nothing_but_text_and_code(text: str) -> None:
    source = prose(text)
    tokens = parse(source)
    assert "\n" not in source
    assert {t.type for t in tokens} <= {"paragraph_open", "inline", "paragraph_close"}
    html = [t.content for t in flatten(tokens) if t.type == "html_inline"]
    assert set(html) <= {"<code>", "</code>"}
    assert {t.type for t in flatten(tokens)} <= {
        *("paragraph_open", "inline", "paragraph_close", "text", "html_inline")
    }
    expected = "".join(part for part, _ in spans(visible(text)))
    assert "".join(shown_text(tokens).split()) == "".join(expected.split())


@given(st.text(alphabet=st.one_of(st.sampled_from("|\\` \n"), st.characters())))
def test_prose_and_code_stay_in_their_cell(text: str) -> None:
    for cell in (prose(text), code(text)):
        tokens = parse(f"| a | b |\n|---|---|\n| {cell} | x |")
        assert sum(t.type == "td_open" for t in tokens) == 2
        assert [t.content for t in tokens if t.type == "inline"][-1] == "x"


@given(st.text(alphabet="`~a\n "))
def test_a_fence_cannot_be_closed_from_inside(text: str) -> None:
    tokens = parse(fenced(text, "text") + "\n\nafter")
    assert [t.type for t in tokens] == ["fence", "paragraph_open", "inline", "paragraph_close"]
    assert tokens[0].content == f"{text}\n"


def test_markdown_cannot_be_hijacked(hostile: Verdict) -> None:
    text = MarkdownReport().render(hostile)
    tokens = flatten(parse(text))
    html = {t.content.strip() for t in tokens if t.type == "html_inline"}
    assert html <= {"<code>", "</code>", "<sub>", "</sub>"}
    blocks = [t.content for t in tokens if t.type == "html_block"]
    assert all(re.fullmatch(r"<details><summary>.*</summary>\n?|</details>\n?", block) for block in blocks)
    assert sum(b.startswith("<details>") for b in blocks) == sum(b.startswith("</details>") for b in blocks)
    assert not [t for t in tokens if t.type in ("image", "strikethrough_open", "s_open")]
    hrefs = [str(t.attrs["href"]) for t in tokens if t.type == "link_open"]
    assert hrefs
    assert all(h.startswith(f"https://github.com/example/parameter-golf/blob/{HEAD}/") for h in hrefs)
    # GitHub looks for these in rendered text outside code: a zero-width space must follow each.
    outside = "".join(t.content for t in tokens if t.type == "text")
    assert "@\u200beveryone" in outside
    assert not re.search(r"@\w|#\d|GH-\d|://\w|www\.", outside)
    assert sum(t.type == "table_open" for t in tokens) == 2


def test_markdown_says_everything_that_matters(verdict: Verdict) -> None:
    text = MarkdownReport().render(verdict)
    folder = f"https://github.com/example/parameter-golf/blob/{HEAD}/records/track_10min_16mb/2026-04-20_SmearedLoop"
    assert text.startswith("## ❌ Violations found: smeargate-bos-leak\n")
    assert "| <code>smeargate-bos-leak</code> | active | **violation** | high |" in text
    assert f"({folder}/train_gpt.py#L212)" in text
    assert f"({folder}/README.md?plain=1#L25)" in text  # GitHub renders Markdown; its lines need ?plain=1
    # Evidence in the unpacked program links to the line that holds the payload, and says so.
    assert f"3:48211</code>]({folder}/train_gpt.py#L2) (line of the unpacked program; packed in" in text
    assert "the link leads to the shipped line" in text
    assert "### What was not checked\n\n- Whether the run took less than 600 s." in text
    assert "### How to dispute" in text
    assert text.count("<details>") == text.count("</details>") == 5
    assert verdict.digest in text


def test_markdown_of_a_local_folder_has_no_links(verdict: Verdict) -> None:
    info = verdict.submission.model_copy(update={"repository": None, "number": None, "head": None})
    text = MarkdownReport().render(verdict.model_copy(update={"submission": info}))
    assert "https://" not in re.sub(r"<code>.*?</code>", "", text)
    assert "- Source: <code>" in text


@pytest.mark.parametrize(
    ("repository", "head"),
    [("a/b) [x](y", HEAD), ("a/b", "HEAD"), ("a/b", None), (None, HEAD), ("../b", HEAD)],
)
def test_no_permalinks_to_made_up_addresses(repository: str | None, head: str | None, verdict: Verdict) -> None:
    info = verdict.submission.model_copy(update={"repository": repository, "head": head})
    assert permalink(info, "a.py", 1) is None


def test_permalinks_quote_paths(verdict: Verdict) -> None:
    url = permalink(verdict.submission, "a b/(c)#?.py", 7)
    assert url == f"https://github.com/example/parameter-golf/blob/{HEAD}/a%20b/%28c%29%23%3F.py#L7"


def test_markdown_fits_into_a_comment(verdict: Verdict) -> None:
    row = verdict.outcomes[0]
    evidence = Evidence(file="a" * 900, line=1, column=1, snippet="`" * 1200, role="<" * 900)
    outcomes = tuple(
        Outcome(
            rule=f"rule-{i:02}",
            status=Status.ACTIVE,
            effect=Effect.VIOLATION,
            confidence=row.confidence,
            reason="<" * 100,
            evidence=(evidence,) * 12,
        )
        for i in range(50)
    )
    text = MarkdownReport().render(changed(verdict, outcomes=outcomes, not_checked=("*" * 5000,) * 50))
    assert len(text) <= 65_536
    assert MAX_CHARACTERS < 65_536
    assert "parts did not fit into a comment" in text
    assert "### How to dispute" in text


# Summary


def test_summary_is_one_line(verdict: Verdict, hostile: Verdict) -> None:
    assert SummaryReport().render(verdict) == (
        "violations-found    example/parameter-golf#4321  smeargate-bos-leak active (violation), "
        "external-binary active (accepted), target-gate suspect, prequant-ttt latent\n"
    )
    assert SummaryReport().render(hostile).count("\n") == 1
    nothing = changed(verdict, outcomes=(), verdict=Overall.NO_VIOLATION_FOUND)
    expected = "no-violation-found  example/parameter-golf#4321  nothing found\n"
    assert SummaryReport().render(nothing) == expected
