"""The command line: ``auditor audit``, ``auditor probe``, ``auditor rules``, ``auditor benchmark``, ``auditor schema``.

Heavy imports (libgit2, LibCST, pydantic) wait inside the commands, so that ``--help`` and a mistyped option
answer at once.
"""

from __future__ import annotations

import difflib
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from auditor import __version__
from auditor.errors import AuditorError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from auditor.probe.result import ProbeReport
    from auditor.reading import Reading
    from auditor.significance import Record
    from auditor.verdict import Overall, Verdict
    from rules.base import Rule

INTERRUPTED = 130  # 128 + SIGINT, as shells report it
FAILED = 2

EXIT_CODES = (
    "Exit codes: 0 no violation found, 1 violations found, 2 usage or source error, 3 needs review, 130 interrupted."
)


class PolicyName(StrEnum):
    """auditor.verdict.Policy by name; importing that here would make ``--help`` wait for pydantic."""

    OFFICIAL = "official"
    STRICT = "strict"


class Format(StrEnum):
    """The report formats; reports.REPORTS holds a renderer for each."""

    TERMINAL = "terminal"
    JSON = "json"
    MARKDOWN = "markdown"
    SUMMARY = "summary"


class ProbeFormat(StrEnum):
    """The formats of a probe report."""

    TERMINAL = "terminal"
    JSON = "json"
    MARKDOWN = "markdown"


app = typer.Typer(
    name="auditor",
    help="A referee for openai/parameter-golf: reads a submission and shows the evidence; probes run it in a sandbox.",
    epilog=EXIT_CODES,
    add_completion=False,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class _RuleCommands(typer.core.TyperGroup):
    """``auditor rules SLUG`` is short for ``auditor rules show SLUG``."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        known = not args or args[0] in self.commands or args[0].startswith("-")
        return super().resolve_command(ctx, args if known else ["show", *args])


rules_app = typer.Typer(
    cls=_RuleCommands,
    help="List the rules, or show one.",
    invoke_without_command=True,
    epilog="Without a command: the list. With the name of a rule instead of a command: that rule.",
)
app.add_typer(rules_app, name="rules")


def exit_code(overall: Overall) -> int:
    """The exit code that stands for a verdict."""
    return {"no-violation-found": 0, "violations-found": 1, "needs-review": 3}[overall.value]


def probe_exit_code(report: ProbeReport) -> int:
    """The exit code that stands for a probe report: a probe that could not run leaves its question open."""
    statuses = {result.status.value for result in report.results}
    return 1 if "violated" in statuses else 3 if "could-not-run" in statuses else 0


def _print_version(wanted: bool) -> None:
    if wanted:
        _emit(f"auditor {__version__}\n")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help(), file=sys.stderr)
        raise typer.Exit(FAILED)


_Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="A pull request (its address, or owner/repo#number), a folder, or a train_gpt.py.",
        show_default=False,
    ),
]
_Mirror = Annotated[
    Path | None,
    typer.Option(
        envvar="AUDITOR_MIRROR",
        help="A bare git repository with refs/pull/*/head; pull requests are read from it, offline.",
        metavar="DIR",
        show_default=False,
    ),
]
_Output = Annotated[
    Path | None,
    typer.Option(help="Write the report to this file instead.", metavar="FILE", show_default=False),
]
_Timeout = Annotated[float, typer.Option(help="For all probes together.", metavar="SECONDS", min=1.0)]
_NoSandbox = Annotated[
    bool,
    typer.Option(
        "--no-sandbox",
        help="Run the submission's code with your own rights: it can read, write and send whatever you can."
        " The report says so.",
    ),
]
TIMEOUT = 600.0
"""Seconds for all probes of one submission."""


@app.command(epilog=EXIT_CODES)
def audit(
    source: _Source,
    mirror: _Mirror = None,
    policy: Annotated[
        PolicyName,
        typer.Option(help="official: rulings as applied. strict: the letter of issue #1017 and the README."),
    ] = PolicyName.OFFICIAL,
    report_format: Annotated[Format, typer.Option("--format", help="How to write it.")] = Format.TERMINAL,
    output: _Output = None,
    rule: Annotated[
        list[str] | None,
        typer.Option(help="Check this rule only; may be given several times.", metavar="SLUG", show_default=False),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            help="Measure a record's gain against this one (#1493), or against bits per byte by seed (1.0810,1.0808);"
            " by default against the record that stood when it was opened.",
            metavar="RECORD",
            show_default=False,
        ),
    ] = None,
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", help="Give the reason of every rule, and the places of what is switched off."),
    ] = False,
    probe: Annotated[
        bool,
        typer.Option("--probe", help="Also run its code, tiny and on a CPU, in a sandbox, and count what that shows."),
    ] = False,
    timeout: _Timeout = TIMEOUT,
    no_sandbox: _NoSandbox = False,
) -> None:
    """Audit one submission. Its code is read, and run only with --probe."""
    slugs = _known_slugs(rule) if rule else None
    against = _baseline(baseline) if baseline is not None else None
    if no_sandbox and not probe:
        raise UsageError("--no-sandbox goes with --probe: without it nothing is run")
    if output is not None:
        _check_writable(output)
    if probe:
        _require_probes(sandboxed=not no_sandbox)
    prober = _Prober(None, timeout, sandboxed=not no_sandbox) if probe else None
    verdict = _audit(source, mirror, policy, slugs, against, prober)
    # Who asks for single rules wants to know what they say.
    text = _render(verdict, report_format, to_terminal=output is None, verbose=verbose or slugs is not None)
    _deliver(text, output)
    raise typer.Exit(exit_code(verdict.verdict))


@app.command(epilog=EXIT_CODES)
def probe(
    source: _Source,
    mirror: _Mirror = None,
    probe: Annotated[
        list[str] | None,
        typer.Option(help="Run this probe only; may be given several times.", metavar="NAME", show_default=False),
    ] = None,
    timeout: _Timeout = TIMEOUT,
    report_format: Annotated[ProbeFormat, typer.Option("--format", help="How to write it.")] = ProbeFormat.TERMINAL,
    output: _Output = None,
    no_sandbox: _NoSandbox = False,
) -> None:
    """Run a submission's own model and evaluation, tiny and on a CPU, in a sandbox, and measure what they do."""
    if output is not None:
        _check_writable(output)
    _require_probes(sandboxed=not no_sandbox)
    from auditor.probe.run import select

    select(probe)
    report = _probe(source, mirror, _Prober(probe, timeout, sandboxed=not no_sandbox))
    _deliver(_render_probes(report, report_format, to_terminal=output is None), output)
    raise typer.Exit(probe_exit_code(report))


@rules_app.callback()
def _rules(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for heading in ("Rule", "Evidence", "Official", "Strict", "What it catches"):
            table.add_column(heading, no_wrap=heading != "What it catches", header_style="bold")
        group = ""
        for rule in sorted(_rules_by_slug().values(), key=lambda r: (r.group, r.slug)):
            if rule.group != group:
                group = rule.group
                table.add_row(Text(group, style="bold"))
            cells = (f"  {rule.slug}", ", ".join(rule.evidence), rule.official.value, rule.strict.value, rule.title)
            table.add_row(*map(Text, cells))
        console = _stdout_console()
        with console.capture() as captured:
            console.print(table)
        _emit(_trimmed(captured.get()))


@rules_app.command("docs")
def docs(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write one page per rule and an index.")],
) -> None:
    """Write the rules' documentation as Markdown; pages of rules that are gone are removed."""
    from auditor.ruledocs import write

    write(folder)


@rules_app.command("show")
def show(
    slug: Annotated[str, typer.Argument(help="The rule's name, as `auditor rules` lists it.")],
) -> None:
    """Show a rule: what it catches, its legal look-alikes, examples and precedents."""
    from rich.markdown import Markdown
    from rich.padding import Padding
    from rich.syntax import Syntax
    from rich.text import Text

    from reports.text import lexer_for

    _known_slugs([slug])
    rule = _rules_by_slug()[slug]
    console = _stdout_console()
    with console.capture() as captured:
        console.print(Text.assemble((rule.slug, "bold"), f"  ({rule.group})"))
        console.print(Text(rule.title))
        console.print(f"Decided from {', '.join(rule.evidence)}.")
        console.print(f"An active finding is {rule.official} under official, {rule.strict} under strict.\n")
        console.print(Markdown(rule.documentation()))
        if rule.precedents:
            console.print("\nPrecedents", style="bold")
            console.print(Markdown("\n".join(f"- {precedent}" for precedent in rule.precedents)))
        for heading, examples in (("Violation", rule.VIOLATION), ("Legal", rule.LEGAL)):
            for example in examples:
                name = (example.title, "bold")
                console.print(Text.assemble(f"\n{heading}: ", name, f" ({example.status})"))
                for path, content in example.files.items():
                    syntax = Syntax(content.strip("\n"), lexer_for(path), theme="ansi_dark", word_wrap=True)
                    syntax.background_color = "default"
                    console.print(Padding(Text(path, style="dim"), (0, 2)), Padding(syntax, (0, 4)))
    _emit(_trimmed(captured.get()))


@app.command()
def benchmark(
    mirror: Annotated[
        Path,
        typer.Option(
            envvar="AUDITOR_MIRROR",
            help="A bare git repository with refs/pull/*/head.",
            metavar="DIR",
            show_default=False,
        ),
    ],
    labels: Annotated[
        list[Path],
        typer.Option(help="Rulings or readings, as JSON lines; may be given several times.", metavar="FILE"),
    ],
    rule: Annotated[
        list[str] | None,
        typer.Option(help="Measure this rule only; may be given several times.", metavar="SLUG", show_default=False),
    ] = None,
    strength: Annotated[
        list[str] | None,
        typer.Option(help="Only labels of this strength; may be given several times.", show_default=False),
    ] = None,
    adjudicated: Annotated[
        Path | None,
        typer.Option(
            help="Our own readings where a label is wrong, as JSON lines.", metavar="FILE", show_default=False
        ),
    ] = None,
    disagreements: Annotated[
        Path | None,
        typer.Option(
            help="Write every disagreement to this file: the label beside the tool's evidence, as JSON lines.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    jobs: Annotated[
        int, typer.Option(help="Processes; 0 for one per processor.", min=0, metavar="N", show_default=False)
    ] = 0,
) -> None:
    """Measure the rules against labelled submissions."""
    from auditor import benchmark as bench
    from reports.benchmark import render

    slugs = _known_slugs(rule) if rule else tuple(_rules_by_slug())
    if disagreements is not None:
        _check_writable(disagreements)
    rulings = adjudicated and bench.read_adjudications(adjudicated)
    wanted = [label for path in labels for label in bench.read_labels(path)]
    if strength:
        told = sorted({label.strength for label in wanted})
        if unknown := sorted(set(strength) - set(told)):
            raise UsageError(
                f"no label has the strength {_one_line(unknown[0])}: there are {', '.join(told) or 'none'}"
            )
        wanted = [label for label in wanted if label.strength in strength]
    with _counting() as progress:
        processes = jobs or os.cpu_count() or 1
        done = bench.measure(mirror, wanted, slugs, adjudications=rulings or None, jobs=processes, progress=progress)
    if disagreements is not None:
        import json

        rows = (json.dumps(row, sort_keys=True) + "\n" for row in bench.disagreements(done.judgements))
        _write(disagreements, "".join(rows))
    console = _stdout_console()
    console.width = max(console.width, 140)  # a table is no use with its columns cut
    with console.capture() as captured:
        for part in render(done, adjudicated=adjudicated is not None):
            console.print(part)
    _emit(_trimmed(captured.get()))
    if done.crashed:
        raise UsageError(f"the tool failed on {len(done.crashed)} pull requests, which the table leaves out")


@app.command()
def schema() -> None:
    """Print the JSON schema of --format json."""
    from auditor.schema import verdict_schema

    _emit(verdict_schema())


def _baseline(text: str) -> Record:
    from auditor.significance import baseline_from

    return baseline_from(text)


@dataclass(frozen=True)
class _Prober:
    """Runs the chosen probes on the record folder that carries the claim."""

    names: Sequence[str] | None
    timeout: float
    sandboxed: bool

    def run(self, reading: Reading, progress: Callable[[str], None]) -> ProbeReport:
        from auditor.probe.run import run_probes

        return run_probes(reading, self.names, timeout=self.timeout, progress=progress, sandboxed=self.sandboxed)


def _require_probes(*, sandboxed: bool) -> None:
    from auditor.probe.run import require

    require(sandboxed=sandboxed)


def _audit(
    source: str,
    mirror: Path | None,
    policy: PolicyName,
    slugs: Sequence[str] | None,
    baseline: Record | None,
    prober: _Prober | None,
) -> Verdict:
    with _progress() as progress:
        progress("starting")
        from auditor.engine import audit as run_audit
        from auditor.sources import open_submission
        from auditor.verdict import Policy

        submission = open_submission(source, mirror=mirror, progress=progress)
        probe = (lambda reading: prober.run(reading, progress)) if prober is not None else None
        return run_audit(
            submission, policy=Policy(policy.value), slugs=slugs, baseline=baseline, progress=progress, probe=probe
        )


def _probe(source: str, mirror: Path | None, prober: _Prober) -> ProbeReport:
    with _progress() as progress:
        progress("starting")
        from auditor.engine import claimed
        from auditor.sources import open_submission

        reading = claimed(open_submission(source, mirror=mirror, progress=progress))
        if reading is None:
            raise UsageError("the submission holds no code to run")
        return prober.run(reading, progress)


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Shows what is going on, on stderr and only if someone is watching: silent in a pipe or a log."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.table import Column

    from reports.text import shorten, visible

    console = Console(stderr=True)
    # Not console.is_terminal: FORCE_COLOR asks for colours in a log, not for a spinner.
    if not sys.stderr.isatty() or console.is_dumb_terminal:
        yield lambda message: None
        return
    text = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis"))
    columns = (SpinnerColumn(), TimeElapsedColumn(), text)
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda message: bar.update(task, description=shorten(visible(message), 200))


@contextmanager
def _counting() -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr that shows how much is done, and only if someone is watching."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not sys.stderr.isatty() or console.is_dumb_terminal:
        yield lambda done, total: None
        return
    columns = (TextColumn("auditing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("auditing", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _render(verdict: Verdict, report_format: Format, *, to_terminal: bool, verbose: bool) -> str:
    from reports import REPORTS

    if report_format is Format.TERMINAL:
        from reports.terminal import TerminalReport

        if to_terminal:
            return TerminalReport.for_console(_stdout_console(), verbose=verbose).render(verdict)
        return TerminalReport(verbose=verbose).render(verdict)
    if report_format is Format.MARKDOWN:
        from reports.markdown import MarkdownReport

        return MarkdownReport(verbose=verbose).render(verdict)
    return REPORTS[report_format.value]().render(verdict)


def _render_probes(report: ProbeReport, report_format: ProbeFormat, *, to_terminal: bool) -> str:
    if report_format is ProbeFormat.TERMINAL:
        from reports.terminal import TerminalReport

        chosen = TerminalReport.for_console(_stdout_console()) if to_terminal else TerminalReport()
        return chosen.render_probes(report)
    if report_format is ProbeFormat.MARKDOWN:
        from reports.markdown import MarkdownReport

        return MarkdownReport().render_probes(report)
    from reports.json import JsonReport

    return JsonReport().render_probes(report)


def _stdout_console() -> Console:
    """Standard output as rich sees it: width, colours, NO_COLOR. 100 columns where there is no terminal."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal and not os.environ.get("COLUMNS"):
        console.width = 100
    return console


def _trimmed(text: str) -> str:
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def _rules_by_slug() -> dict[str, Rule]:
    from rules import discover

    return {rule.slug: rule for rule in discover()}


def _known_slugs(wanted: Sequence[str]) -> tuple[str, ...]:
    """``wanted`` without repetition; UsageError with the nearest names for one that is no rule."""
    known = _rules_by_slug()
    for slug in wanted:
        if slug not in known:
            near = difflib.get_close_matches(slug.lower().replace("_", "-"), known, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else "`auditor rules` lists them"
            raise UsageError(f"unknown rule {_one_line(slug)}: {hint}")
    return tuple(dict.fromkeys(wanted))


def _deliver(text: str, output: Path | None) -> None:
    if output is not None:
        _write(output, text)
    else:
        _emit(text)


def _check_writable(path: Path) -> None:
    """Find out before a long audit, not after it, that the report has nowhere to go."""
    if path.is_dir():
        raise UsageError(f"cannot write {path}: it is a folder")
    if not path.parent.is_dir():
        raise UsageError(f"cannot write {path}: there is no folder {path.parent}")


def _write(path: Path, text: str) -> None:
    """Write a whole file or none: a reader never sees half a report, a failure leaves the old one."""
    data = text.encode("utf-8", "backslashreplace")
    try:
        target = path.resolve()  # through a symbolic link, which os.replace would overwrite
        if target.exists() and not stat.S_ISREG(target.stat().st_mode):
            target.write_bytes(data)  # /dev/stdout, a named pipe: nothing to replace
            return
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as file:
            temporary = Path(file.name)
            try:
                file.write(data)
                file.close()
                temporary.chmod(target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~_umask())
                temporary.replace(target)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from error


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


# The reports' own typography, for terminals that can't show it; anything else becomes an escape.
_ASCII = str.maketrans({"─": "-", "│": "|", "→": "->", "“": '"', "”": '"', "…": "...", "•": "*"})


def _emit(text: str) -> None:
    """Write to standard output. A reader that has left, such as ``head``, does not change the verdict."""
    if sys.stdout is None:  # closed by the caller, as in `auditor ... >&-`
        raise UsageError("cannot write the report: standard output is closed")
    try:
        text.encode(sys.stdout.encoding or "utf-8", "strict")
    except UnicodeEncodeError:
        text = text.translate(_ASCII)
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        # Python flushes standard output once more on exit; give it somewhere harmless to go.
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise UsageError(f"cannot write the report: {error.strerror or error}") from error


def _one_line(message: object) -> str:
    from reports.text import shorten, visible

    return shorten(visible(str(message)), 500)


def _fail(message: str) -> int:
    print(message, file=sys.stderr)
    return FAILED


# Typer does not export the base of its own usage errors, and where it lives differs between its versions.
_ClickException = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code. ``arguments`` default to the process's own.

    Whatever goes wrong is one line on stderr; AUDITOR_DEBUG=1 lets unexpected exceptions through.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):  # replaced by something that is no text file, or closed
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        args = None if arguments is None else list(arguments)
        code = app(args, standalone_mode=False, prog_name="auditor") or 0
    except AuditorError as error:
        return _fail(f"error: {_one_line(error)}")
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except BrokenPipeError:
        return FAILED
    except Exception as error:
        format_message = getattr(error, "format_message", None)
        if isinstance(error, _ClickException) and format_message is not None:
            return _fail(f"error: {_one_line(format_message())} (see auditor --help)")
        if os.environ.get("AUDITOR_DEBUG") == "1":
            raise
        what = f"{type(error).__name__}: {_one_line(error)}"
        return _fail(f"internal error: {what}; please report it (AUDITOR_DEBUG=1 shows more)")
    if code == INTERRUPTED:
        print("interrupted", file=sys.stderr)
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
