"""Launch commands: how the folder's documents and scripts say the run was started."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any, Literal

from markdown_it import MarkdownIt
from markdown_it.token import Token

from auditor.runconfig.claim import Claim
from auditor.shell import ShellCommand, ShellValue, assignments_only, commands
from auditor.submission import RecordFolder, SubmissionFile
from auditor.verdict import SettingValue

MAX_DOCUMENT_BYTES = 256 * 1024
MAX_FILES = 80
_MAX_LAUNCHES = 400

_SHELL_SUFFIXES = (".sh", ".bash", ".sbatch", ".slurm", ".bat", ".ps1", ".cmd")
_NOT_SHELL = re.compile(
    r"(?i)^(?:python|py|json|jsonc|diff|yaml|yml|toml|c|cpp|c\+\+|cuda|rust|javascript|js|html|xml|latex|tex|csv|mermaid)"
)
_SETUP_SCRIPT = re.compile(
    r"(?i)(?:^|/)(?:data/|tools?/|scripts?/(?!.*train))?[\w.-]*(?:download|prepare|cached_challenge|tokeni[sz]e|retokeni|"
    r"verify|summar|plot|convert|export|setup|install|build_|check_|test_|analy[sz]e|report|inspect|bench|compress|"
    r"pack|minify|size|probe|fetch|upload|deploy|launch_pod|runpod|parse|collect|aggregate|estimate)[\w.-]*\.(?:py|sh)$"
)
_RUN_HEADING = re.compile(
    r"(?i)reproduc|\brun\b|running|usage|command|training|launch|how to|quick ?start|replicat|evaluat|"
    r"submission"
)
_SIDE_HEADING = re.compile(
    r"(?i)ablat|baseline|smoke|sanity|sweep|control|compar|previous|prior|histor|negative|failed|future|optional|"
    r"debug|quick test|\btest\b|local|1x|single.gpu|mlx|override|variant|alternativ|explor|experiment"
)

_WITHOUT = re.compile(r"(?i)\bwithout\b|\bdisabl|\bno[- ](?:ttt|slot|ngram|qat)|\binstead\b|\bonly\b")

LaunchKind = Literal["readme", "shell", "submission.json"]


@dataclass(frozen=True)
class LaunchCommand:
    """One command that starts a program of the submission.

    ``env`` and ``flags`` (argparse options after the script, dashes kept) say where each value stands.
    ``script`` is the .py (or unresolvable .sh) file as written; None for a bare list of environment settings.
    ``rank`` is higher the likelier this launch made the claimed run; ``purpose`` "setup" never counts.
    """

    kind: LaunchKind
    file: str
    line: int
    text: str
    script: str | None
    env: Mapping[str, SettingValue]
    flags: Mapping[str, SettingValue]
    heading: str = ""
    purpose: Literal["run", "setup"] = "run"
    rank: int = 0

    def setting(self, names: tuple[str, ...]) -> SettingValue | None:
        """The value this launch gives to one of ``names`` (lower case; flags with dashes as underscores)."""
        if self.names.isdisjoint(names):
            return None
        for source in (self.flags, self.env):
            for name, value in source.items():
                if _key(name) in names:
                    return value
        return None

    @cached_property
    def names(self) -> frozenset[str]:
        """What this launch gives values to (lower case; flags with dashes as underscores)."""
        return frozenset(_key(name) for name in (*self.flags, *self.env))


def _key(name: str) -> str:
    return name.lstrip("-").replace("-", "_").lower()


@dataclass(frozen=True)
class Snippet:
    """A piece of a document that may hold commands: its text, 1-based first line and the heading above it."""

    text: str
    line: int
    heading: str
    fenced: bool = True


@dataclass(frozen=True)
class Table:
    """A table of a document: the heading above it, and its rows of plain text, the header first.

    ``lines`` holds the 1-based line of each row.
    """

    heading: str
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]


@dataclass(frozen=True)
class Document:
    """A Markdown document: code pieces, its prose lines with the heading above each, and its tables."""

    file: str
    snippets: tuple[Snippet, ...]
    prose: tuple[Snippet, ...] = field(default=(), repr=False)
    tables: tuple[Table, ...] = field(default=(), repr=False)


def is_readme(file: SubmissionFile) -> bool:
    """Whether a file is a document that describes the submission."""
    return file.name.lower().endswith((".md", ".markdown", ".rst")) or file.name.lower() in (
        "readme",
        "readme.txt",
    )


def read_documents(folder: RecordFolder) -> tuple[Document, ...]:
    """The folder's Markdown documents, README files and shallow paths first."""
    found = [f for f in folder.files if is_readme(f) and f.change != "deleted" and not f.problem]
    found.sort(key=lambda f: (f.path.count("/"), not f.name.lower().startswith("readme"), f.path))
    return tuple(read_markdown(f.path, f.text) for f in found[:MAX_FILES] if f.size <= MAX_DOCUMENT_BYTES)


def read_markdown(path: str, text: str) -> Document:
    """Split Markdown into code (fenced, indented, inline) and prose. Never raises."""
    snippets: list[Snippet] = []
    prose: list[Snippet] = []
    headings: list[tuple[int, str]] = []
    title = ""
    env: dict[str, Any] = {}
    try:
        tokens: list[Token] = _blocks().parse(text, env)
    except (ValueError, RecursionError, IndexError):
        tokens = []
    level: int | None = None
    line = 1
    tables: list[Table] = []
    rows: list[tuple[str, ...]] = []
    lines: list[int] = []
    cells: list[str] | None = None
    for token in tokens:
        if token.map:
            line = token.map[0] + 1
        if token.type == "heading_open":
            level = int(token.tag[1:])
        elif token.type == "tr_open":
            cells = []
            lines.append(line)
        elif token.type == "tr_close":
            rows.append(tuple(cells or ()))
            cells = None
        elif token.type == "table_close":
            tables.append(Table(title, tuple(rows), tuple(lines)))
            rows, lines = [], []
        elif token.type == "fence" and not _NOT_SHELL.match(token.info.strip()):
            snippets.append(Snippet(token.content, line + 1, title))
        elif token.type == "code_block":
            snippets.append(Snippet(token.content, line, title))
        elif token.type == "inline":
            if level is not None:
                headings = [h for h in headings if h[0] < level]
                headings.append((level, token.content))
                title = " / ".join(h[1] for h in headings)
                level = None
            if cells is not None:
                cells.append(_plain(_inline(token, env)))
            for number, part in enumerate(token.content.split("\n")):
                prose.append(Snippet(part, line + number, title, fenced=False))
            for child in _inline(token, env) if "`" in token.content and ".py" in token.content else ():
                if child.type == "code_inline" and ".py" in child.content:
                    snippets.append(Snippet(child.content, line, title, fenced=False))
    return Document(path, tuple(snippets), tuple(prose), tuple(tables))


@cache
def _blocks() -> MarkdownIt:
    """A parser that leaves what stands inside of paragraphs and cells as it is: most of it is only searched."""
    return MarkdownIt("commonmark").enable("table").disable("inline")


def _inline(token: Token, env: dict[str, Any]) -> list[Token]:
    """The parts of an inline token; ``env`` holds the link references of its document."""
    parts: list[Token] = []
    try:
        _blocks().inline.parse(token.content, _blocks(), env, parts)
    except (ValueError, RecursionError, IndexError):
        return []
    return parts


def _plain(parts: list[Token]) -> str:
    """The text of inline tokens without their markup."""
    texts = (" " if c.type in ("softbreak", "hardbreak") else c.content for c in parts if c.type != "html_inline")
    return "".join(texts).strip()


def read_launches(folder: RecordFolder, documents: tuple[Document, ...], claim: Claim) -> tuple[LaunchCommand, ...]:
    """Every launch found in README, shell scripts and submission.json, in that order."""
    shells = _shell_scripts(folder)
    found: list[LaunchCommand] = []
    called: set[str] = set()
    for document in documents:
        depth = document.file.count("/")
        for snippet in document.snippets:
            launches = list(_of_text(folder, shells, "readme", document.file, snippet, called))
            if not launches and snippet.fenced:
                bare = assignments_only(snippet.text)
                if bare:
                    launches = [_bare(document.file, snippet, bare)]
            own = depth == min(d.file.count("/") for d in documents)
            found.extend(replace(x, rank=x.rank + (1 if own else -2)) for x in launches)
    for path, file in shells.items():
        if path not in called:
            snippet = Snippet(file.text, 1, file.name)
            found.extend(_of_text(folder, shells, "shell", path, snippet, called))
    for text, line in claim.commands():
        if claim.file:
            snippet = Snippet(text, line, "command", fenced=False)
            found.extend(_of_text(folder, shells, "submission.json", claim.file, snippet, called, one_line=line))
    return tuple(found[:_MAX_LAUNCHES])


def claimed(launches: tuple[LaunchCommand, ...]) -> tuple[LaunchCommand, ...]:
    """The launches that speak for the claimed run: those of highest rank among the ones that run something.

    Another script started in the same section (an evaluation after the training) belongs to them.
    """
    running = [x for x in launches if x.purpose == "run"]
    best = max((x.rank for x in running), default=0)
    chosen = [x for x in running if x.rank == best]
    scripts = {script_name(x) for x in chosen}
    sections = {(x.file, x.heading) for x in chosen if x.heading}
    return tuple(
        x
        for x in running
        if x.rank == best or (x.rank >= best - 2 and script_name(x) not in scripts and (x.file, x.heading) in sections)
    )


def script_name(launch: LaunchCommand) -> str:
    """The script's file name; "" for a bare list of settings."""
    return (launch.script or "").rsplit("/", 1)[-1]


def _shell_scripts(folder: RecordFolder) -> dict[str, SubmissionFile]:
    files = [
        f
        for f in folder.files
        if f.name.lower().endswith(_SHELL_SUFFIXES)
        and f.change != "deleted"
        and not f.problem
        and f.size <= MAX_DOCUMENT_BYTES
    ]
    files.sort(key=lambda f: (f.path.count("/"), f.path))
    return {f.path: f for f in files[:MAX_FILES]}


def _of_text(
    folder: RecordFolder,
    shells: Mapping[str, SubmissionFile],
    kind: LaunchKind,
    file: str,
    snippet: Snippet,
    called: set[str],
    one_line: int | None = None,
) -> Iterator[LaunchCommand]:
    text = snippet.text.replace("\\_", "_")
    if ".py" not in text and ".sh" not in text:
        return
    for command in commands(text):
        base = command.script.rsplit("/", 1)[-1]
        target = next((p for p in shells if p.rsplit("/", 1)[-1] == base), None) if base.endswith(".sh") else None
        outer = _launch(folder, kind, file, snippet, command, one_line)
        inner: list[LaunchCommand] = []
        if target is not None and kind != "shell" and not _SETUP_SCRIPT.search(command.script):
            called.add(target)
            script = Snippet(shells[target].text, 1, snippet.heading)
            for nested in commands(script.text, command.env):
                launch = _launch(folder, "shell", target, script, nested, None)
                # values handed in by the README keep their place there
                merged = {
                    n: outer.env[n] if n in outer.env and outer.env[n].value == v.value else v
                    for n, v in launch.env.items()
                }
                inner.append(replace(launch, env=merged, rank=launch.rank + 1))
        yield from inner or [outer]


def _launch(
    folder: RecordFolder,
    kind: LaunchKind,
    file: str,
    snippet: Snippet,
    command: ShellCommand,
    one_line: int | None,
) -> LaunchCommand:
    lines = snippet.text.split("\n")

    def place(name: str, value: ShellValue) -> SettingValue:
        at = value.line
        if at == command.line:  # a command continued over several lines: point at the line of the setting
            wanted = re.compile(rf"(?<![\w-]){re.escape(name)}(?:[=\s]|$)")
            span = range(at, min(at + command.lines, len(lines) + 1))
            at = next((n for n in span if wanted.search(lines[n - 1])), at)
        line = one_line or snippet.line + at - 1
        return SettingValue(value=value.value, origin="launch command", file=file, line=max(1, line))

    setup = bool(_SETUP_SCRIPT.search(command.script)) and not re.search(r"(?i)(?:^|/)train[\w-]*\.py$", command.script)
    return LaunchCommand(
        kind=kind,
        file=file,
        line=one_line or snippet.line + command.line - 1,
        text=command.text[:4000],
        script=command.script,
        env={n: place(n, v) for n, v in command.env.items()},
        flags={n: place(n, v) for n, v in command.flags.items()},
        heading=snippet.heading,
        purpose="setup" if setup else "run",
        rank=_rank(folder, kind, file, snippet, command),
    )


def _bare(file: str, snippet: Snippet, values: Mapping[str, ShellValue]) -> LaunchCommand:
    env = {
        n: SettingValue(value=v.value, origin="launch command", file=file, line=snippet.line + v.line - 1)
        for n, v in values.items()
    }
    return LaunchCommand(
        kind="readme",
        file=file,
        line=snippet.line,
        text=" ".join(f"{n}={v.value}" for n, v in values.items())[:4000],
        script=None,
        env=env,
        flags={},
        heading=snippet.heading,
        rank=-3 + _heading_rank(snippet.heading),
    )


def _heading_rank(heading: str) -> int:
    last = heading.rsplit(" / ", 1)[-1]
    rank = 2 if _RUN_HEADING.search(last) else 0
    return rank - 4 if _SIDE_HEADING.search(last) else rank


def _rank(folder: RecordFolder, kind: LaunchKind, file: str, snippet: Snippet, command: ShellCommand) -> int:
    script = command.script
    base = script.rsplit("/", 1)[-1]
    name = folder.path.rstrip("/").rsplit("/", 1)[-1]
    rank = _heading_rank(snippet.heading)
    if any(f.name == base for f in folder.files):
        rank += 4
    if base == "train_gpt.py":
        rank += 2
    elif re.match(r"(?i)train|run|main", base):
        rank += 1
    if "records/" in script:
        # a path into some other record folder is somebody else's run
        rank += 2 if name and name in script else -6
    if len(command.env) + len(command.flags) > 0:
        rank += 1
    if kind == "shell":
        rank += -4 if _SIDE_HEADING.search(file.rsplit("/", 1)[-1]) else 0
        rank -= 2 * (file.count("/") > folder.path.count("/") + 1)
    if not snippet.fenced:
        rank -= 1
    comment = _comment_above(snippet, command.line)
    if comment and (_SIDE_HEADING.search(comment) or _WITHOUT.search(comment)):
        rank -= 4
    return rank


def _comment_above(snippet: Snippet, line: int) -> str:
    """The shell comment directly above a command: it heads the command as a title does."""
    lines = snippet.text.split("\n")
    found: list[str] = []
    for number in range(line - 1, max(0, line - 6), -1):
        text = lines[number - 1].strip() if number <= len(lines) else ""
        if not text.startswith("#") or text.startswith("#!"):
            break
        found.append(text)
    return " ".join(found)
