"""docs/rules/ is what the rules say of themselves; ``make docs`` (auditor rules docs docs/rules) writes it anew."""

from __future__ import annotations

from pathlib import Path

import pytest
from markdown_it import MarkdownIt

import rules
from auditor import cli
from auditor.ruledocs import INDEX, pages

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "rules"


def test_the_pages_are_current() -> None:
    written = {path.name: path.read_text("utf-8") for path in FOLDER.iterdir()}
    made = pages()
    assert sorted(written) == sorted(made), "run: make docs"
    assert [name for name in made if written[name] != made[name]] == [], "run: make docs"


def test_the_command_writes_them(tmp_path: Path) -> None:
    folder = tmp_path / "rules"
    folder.mkdir()
    (folder / "gone.md").write_text("A rule that is no more.\n", "utf-8")
    assert cli.main(["rules", "docs", str(folder)]) == 0
    assert {path.name: path.read_text("utf-8") for path in folder.iterdir()} == dict(pages())


def test_the_command_leaves_other_folders_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "code.py"
    other.write_text("x = 1\n", "utf-8")
    (tmp_path / "notes.md").write_text("Mine.\n", "utf-8")
    assert cli.main(["rules", "docs", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "code.py" in error and error.count("\n") == 1
    assert (tmp_path / "notes.md").read_text("utf-8") == "Mine.\n"
    assert not (tmp_path / INDEX).exists()


def test_a_page_holds_what_a_reader_needs() -> None:
    made = pages()
    for rule in rules.discover():
        text = made[f"{rule.slug}.md"]
        assert rule.documentation().split("\n")[0] in text
        for example in (*rule.VIOLATION, *rule.LEGAL):
            assert f"{example.title[:1].upper()}{example.title[1:]}".replace("|", "&#124;") in text
        fences = [t for t in MarkdownIt("commonmark").parse(text) if t.type == "fence"]
        assert len(fences) == len(rule.VIOLATION[0].files)
        assert len(text.split("\n")) < 400


def test_the_index_links_to_every_page() -> None:
    made = pages()
    assert [r.slug for r in rules.discover() if f"]({r.slug}.md)" not in made[INDEX]] == []
