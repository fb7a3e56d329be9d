"""The rules' own documentation as Markdown pages: ``docs/rules/``, written by ``make docs``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import rules
from auditor.errors import UsageError
from reports.text import lexer_for
from rules.base import Rule
from rules.examples import without_scaffolding

INDEX = "README.md"
MAX_LINES = 80
_HEAD = """# The rules

One page per rule: what it catches, why that breaks the score, its legal look-alikes, how it is read, the remedy, the
ruling, and one of the examples that are its tests. Written by `make docs` from the rules themselves; do not edit.

*Official* is what an active finding means under the organisers' rulings as applied (the default), *strict* the same
under the letter of issue #1017 and of the challenge's README: a *violation*, an *advisory* (reported, never decides)
or *accepted* (a precedent allows it). A rule's page says where the circumstances change that. *Probe* stands for what
reading can't decide and running could.
"""


def page(rule: Rule) -> str:
    """The page of one rule."""
    first, _, rest = rule.documentation().partition("\n")
    blocks = [
        f"# {rule.slug}",
        first,
        _table(
            ("group", "decided from", "official", "strict"),
            [(rule.group, ", ".join(rule.evidence), rule.official.value, rule.strict.value)],
        ),
        rest.strip(),
    ]
    if rule.precedents:
        blocks += ["## Precedents", "\n".join(f"- {precedent}" for precedent in rule.precedents)]
    shown = rule.VIOLATION[0]
    blocks += ["## Example", f"{_sentence(shown.title)}: **{shown.status.value}**."]
    for path, content in shown.files.items():
        blocks += [f"`{path}`", _fenced(_short(without_scaffolding(content).strip("\n")), lexer_for(path))]
    rows = [(_sentence(e.title), e.status.value) for e in (*rule.VIOLATION, *rule.LEGAL)]
    blocks += [f"All examples, in full: `auditor rules {rule.slug}`.", _table(("example", "status"), rows)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def index(catalogue: Iterable[Rule]) -> str:
    """The table of all rules, by group."""
    groups: dict[str, list[Rule]] = {}
    for rule in catalogue:
        groups.setdefault(rule.group, []).append(rule)
    blocks = [_HEAD.rstrip()]
    for group, members in sorted(groups.items()):
        rows = [
            (f"[`{r.slug}`]({r.slug}.md)", r.title, ", ".join(r.evidence), r.official.value, r.strict.value)
            for r in sorted(members, key=lambda r: r.slug)
        ]
        blocks += [f"## {group}", _table(("rule", "what it catches", "decided from", "official", "strict"), rows)]
    return "\n\n".join(blocks) + "\n"


def pages() -> Mapping[str, str]:
    """Every file of ``docs/rules/``: name -> text."""
    catalogue = rules.discover()
    return {INDEX: index(catalogue), **{f"{rule.slug}.md": page(rule) for rule in catalogue}}


def write(folder: Path) -> None:
    """Write all pages to ``folder`` and remove those of rules that are gone.

    Raises:
        UsageError: the folder can't be written, or holds something else.
    """
    made = pages()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stale = [p for p in folder.iterdir() if p.name not in made]
        foreign = [p.name for p in stale if not p.is_file() or p.suffix != ".md"]
        if foreign:
            raise UsageError(f"{folder} holds {foreign[0]}, which is no page of a rule: name a folder of its own")
        for path in stale:
            path.unlink()
        for name, text in made.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {folder}: {error.strerror or error}") from error


def _sentence(title: str) -> str:
    return title[:1].upper() + title[1:]


def _short(text: str) -> str:
    lines = text.split("\n")
    if len(lines) <= MAX_LINES:
        return text
    return "\n".join([*lines[:MAX_LINES], f"... {len(lines) - MAX_LINES} more lines"])


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines)


def _fenced(text: str, language: str) -> str:
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"
