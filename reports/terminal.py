"""The verdict for a person at a terminal."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule as Line
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from auditor.probe.result import ProbeReport, ProbeResult, ProbeStatus, as_sentence
from auditor.verdict import (
    Effect,
    Evidence,
    FolderVerdict,
    Outcome,
    Overall,
    RunConfig,
    Setting,
    Status,
    Verdict,
)
from reports.base import (
    DISPUTE,
    HEADLINES,
    PROBE_LIMITS,
    QUIET,
    attempt_line,
    comparison,
    finding,
    folded,
    gist,
    grouped,
    has_details,
    is_packed,
    launches,
    limits,
    meanings,
    metric_places,
    number,
    number_line,
    override_line,
    packed_note,
    place,
    position_line,
    probes_gist,
    probes_overall,
    probes_tally,
    quantity,
    ranked_probes,
    sandbox_note,
    settings_of,
    shown,
    stop_place,
    substitution_lines,
    tally,
    title,
    within,
)
from reports.text import lexer_for, snippet, spans, visible

_OVERALL_STYLES = {
    Overall.VIOLATIONS_FOUND: "bold white on red",
    Overall.NEEDS_REVIEW: "bold black on yellow",
    Overall.NO_VIOLATION_FOUND: "bold black on green",
}
_EFFECT_STYLES = {Effect.VIOLATION: "bold red", Effect.ADVISORY: "yellow", Effect.ACCEPTED: "cyan"}
_STATUS_STYLES = {
    Status.SUSPECT: "yellow",
    Status.UNKNOWN: "yellow",
    Status.LATENT: "blue",
    Status.CLEAN: "green",
    Status.NOT_APPLICABLE: "dim",
}
_PROBE_STYLES = {
    ProbeStatus.VIOLATED: "bold red",
    ProbeStatus.LATENT: "blue",
    ProbeStatus.COULD_NOT_RUN: "yellow",
    ProbeStatus.CLEAN: "green",
    ProbeStatus.NOT_APPLICABLE: "dim",
}
_WIDE = 100
"""From this many columns on, status, effect and confidence get a column each."""
_MAX_WIDTH = 120
"""Longer lines are hard to read, however wide the terminal is."""
_MAX_ITEMS = 12
"""Of any list that grows with the submission (places, settings, notes) no more than this is shown."""

_MAX_FIGURES = 6
"""Of the numbers, and of the positions, of one probe."""


@dataclass(frozen=True)
class TerminalReport:
    """``width`` in columns (capped at 120). ``color_system`` as rich names it; None prints plain text.

    ``verbose`` also gives the reason of every clean or not applicable rule and the places of what is latent.
    """

    width: int = _WIDE
    color_system: str | None = None
    verbose: bool = False

    @classmethod
    def for_console(cls, console: Console, *, verbose: bool = False) -> TerminalReport:
        """Options that suit ``console``: its width, and colours only if it is a terminal that wants them."""
        colours = console.color_system if console.is_terminal and not console.no_color else None
        return cls(width=console.width, color_system=colours, verbose=verbose)

    def render(self, verdict: Verdict) -> str:
        return self._printed(_report(verdict, wide=self._width >= _WIDE, verbose=self.verbose))

    def render_probes(self, report: ProbeReport) -> str:
        return self._printed(_probe_report(report))

    @property
    def _width(self) -> int:
        return max(40, min(self.width, _MAX_WIDTH))

    def _printed(self, parts: Iterable[RenderableType]) -> str:
        out = io.StringIO()
        console = Console(
            file=out,
            width=self._width,
            color_system=self.color_system,  # type: ignore[arg-type]  # rich checks the name itself
            force_terminal=self.color_system is not None,
            no_color=self.color_system is None,
            highlight=False,
            markup=False,
            emoji=False,
            legacy_windows=False,
            _environ={},  # the options above decide, not NO_COLOR or COLUMNS
        )
        for part in parts:
            console.print(part)
        return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def _report(verdict: Verdict, *, wide: bool, verbose: bool) -> Iterator[RenderableType]:
    yield _headline(verdict)
    yield ""
    yield _what_was_read(verdict)
    yield ""
    yield from _folder(verdict.outcomes, verdict.run_config, verdict.submission.folder, wide=wide, verbose=verbose)
    for other in verdict.other_folders:
        yield _other_headline(other)
        yield ""
        yield _labelled(_run(other.run_config, other.folder, packed=is_packed(other.outcomes)))
        yield ""
        yield from _folder(other.outcomes, other.run_config, other.folder, wide=wide, verbose=verbose)
    if verdict.probes is not None:
        yield _section("What running it showed")
        yield _labelled(_conditions(verdict.probes))
        yield ""
        yield from _probes(verdict.probes, details=verbose)
    if verdict.not_checked:
        yield _section("What was not checked")
        yield from _bullets(verdict.not_checked)
        yield ""
    yield _section("How to dispute")
    yield _text(DISPUTE)
    yield _text("To see a rule, its legal look-alikes and its precedents: `auditor rules RULE`")
    yield ""
    yield _text(limits(verdict), style="dim")
    yield _text(f"{verdict.tool.name} {verdict.tool.version}, digest sha256:{verdict.digest}", style="dim")


def _text(sentence: str, *, style: str = "", limit: int = 1000) -> Text:
    """A sentence that may quote the submission: made visible, never markup, backticked parts set off."""
    text = Text(style=style, overflow="fold")
    for part, is_code in spans(visible(sentence, limit)):
        text.append(part, style="bold" if is_code else "")
    return text


def _section(name: str, style: str = "") -> Line:
    return Line(Text(name, style=f"bold {style}".strip()), align="left", characters="─", style="dim")


def _bullets(sentences: Sequence[str]) -> Iterator[RenderableType]:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for sentence in sentences[:_MAX_ITEMS]:
        grid.add_row("-", _text(sentence))
    if len(sentences) > _MAX_ITEMS:
        grid.add_row("-", f"and {len(sentences) - _MAX_ITEMS} more: see --format json")
    yield grid


def _headline(verdict: Verdict) -> Text:
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(f" {HEADLINES[verdict.verdict]} ", style=_OVERALL_STYLES[verdict.verdict])
    text.append(f"  {visible(title(verdict.submission))}  ", style="bold")
    text.append(visible(gist(verdict.verdict, verdict.outcomes)))
    return text


def _other_headline(other: FolderVerdict) -> Group:
    text = Text(overflow="fold")
    text.append(f" {HEADLINES[other.verdict]} ", style=_OVERALL_STYLES[other.verdict])
    text.append(f"  {visible(gist(other.verdict, other.outcomes))}")
    heading = _section("Another record folder of this pull request")
    return Group(heading, Text(visible(other.folder), style="bold", overflow="fold"), text)


Row = tuple[str, RenderableType]


def _labelled(rows: Iterable[Row]) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for label, value in rows:
        grid.add_row(label, value)
    return grid


def _what_was_read(verdict: Verdict) -> Table:
    info = verdict.submission
    rows: list[Row] = []
    if info.title or info.author:
        quoted = f"“{visible(info.title, 200)}”" if info.title else ""
        by = f"by {visible(info.author)}" if info.author else ""
        state = f"({visible(info.state)})" if info.state else ""
        rows.append(("Title", Text(" ".join(filter(None, (quoted, by, state))), overflow="fold")))
    if info.metadata_note:
        rows.append(("Metadata", _text(info.metadata_note, style="dim")))
    if info.head:
        rows.append(("Head", Text(visible(info.head))))
    else:
        rows.append(("Source", Text(visible(info.source), overflow="fold")))
    if info.folder:
        track = "" if info.track == "unknown" else f"  ({visible(info.track)} track)"
        rows.append(("Folder", Text(visible(info.folder) + track, overflow="fold")))
    if info.kind != "record":
        rows.append(("Kind", Text(visible(info.kind))))
    rows += _run(verdict.run_config, info.folder, packed=is_packed(verdict.outcomes), notes=info.notes)
    rows.append(("Policy", Text(verdict.policy.value)))
    return _labelled(rows)


def _run(config: RunConfig, folder: str | None, *, packed: bool, notes: tuple[str, ...] = ()) -> list[Row]:
    rows: list[Row] = []
    if config.script:
        script = Text(visible(within(config.script, folder)), overflow="fold")
        if config.entry_point:
            script.append(f", entry point {visible(config.entry_point)}")
        if packed:
            script.append(", packed: unpacked before reading")
        rows.append(("Script", script))
    else:
        rows.append(("Script", Text("none found", style="yellow")))
    if config.phases:
        rows.append(("Phases", Text(" → ".join(visible(p) for p in config.phases), overflow="fold")))
    rows.append(("Metric", _metric(config, folder)))
    if config.logs:
        logs = ", ".join(within(log, folder) for log in config.logs)
        rows.append(("Logs", Text(visible(logs, 300), overflow="fold")))
    for command in launches(config.launch_commands)[:3]:
        rows.append(("Launch", Text(visible(command, 300), overflow="fold")))
    conflicts = [s for s in config.settings if s.conflict]
    for setting in conflicts[:_MAX_ITEMS]:
        rows.append(("Conflict", _text(f"{setting.name}: {setting.conflict}", style="yellow")))
    for note in (*notes, *config.notes)[:_MAX_ITEMS]:
        rows.append(("Note", _text(note)))
    return rows


def _metric(config: RunConfig, folder: str | None) -> Text:
    metric = config.reported
    text = Text(overflow="fold")
    if metric.value is not None:
        text.append(number(metric.value), style="bold")
        text.append("  ")
    if metric.label:
        text.append(f"“{visible(metric.label)}”  ")
    places = metric_places(metric, folder)
    text.append(visible(places))
    if text:
        text.append("\n")
    text.append_text(_text(metric.how, style="" if metric.evaluation else "yellow"))
    return text


def _folder(
    outcomes: tuple[Outcome, ...], config: RunConfig, folder: str | None, *, wide: bool, verbose: bool
) -> Iterator[RenderableType]:
    rows = [group for group in grouped(outcomes) if verbose or group[0].status not in QUIET]
    if rows:
        yield _rules(rows, wide=wide)
        yield ""
    for status, slugs in [] if verbose else folded(outcomes):
        names = ", ".join(map(visible, slugs))
        yield Text.assemble((status.value, _STATUS_STYLES[status]), f" ({len(slugs)}): {names}", overflow="fold")
        yield ""
    yield Text(tally(outcomes), style="dim")
    yield ""
    for outcome in filter(has_details, shown(outcomes)):
        if verbose or outcome.status is not Status.LATENT:
            yield from _finding(outcome, config, folder)


def _styled(outcome: Outcome) -> str:
    return _EFFECT_STYLES.get(outcome.effect) or _STATUS_STYLES.get(outcome.status, "")


def _rules(groups: Sequence[Sequence[Outcome]], *, wide: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), expand=True, show_edge=False)
    table.add_column("Rule", no_wrap=True)
    for name in ("Status", "Effect", "Confidence") if wide else ("Finding",):
        table.add_column(name, no_wrap=True)
    table.add_column("Reason", ratio=1, overflow="fold")
    for outcome, *same in groups:
        style = _styled(outcome)
        effect = "" if outcome.effect is Effect.NONE else outcome.effect.value
        if wide:
            cells = [
                Text(outcome.status.value, style=style),
                Text(effect, style=style),
                Text(outcome.confidence.value),
            ]
        else:
            cell = Text(outcome.status.value, style=style)
            if effect:
                cell.append(f"\n{effect}")
            cell.append(f"\n{outcome.confidence.value} confidence", style="dim")
            cells = [cell]
        reason = _text(outcome.reason, limit=400)
        if same:
            reason.append("\n" + ", ".join(visible(o.rule) for o in (outcome, *same)), style="dim")
        name = f"{len(same) + 1} rules" if same else visible(outcome.rule)
        table.add_row(Text(name, style="bold"), *cells, reason)
    return table


def _finding(outcome: Outcome, config: RunConfig, folder: str | None) -> Iterator[RenderableType]:
    heading = f"{visible(outcome.rule)}: {finding(outcome)}, {outcome.confidence.value} confidence"
    yield _section(heading, _styled(outcome))
    yield _text(outcome.reason)
    for index, evidence in enumerate(outcome.evidence[:_MAX_ITEMS], start=1):
        yield _evidence(index, evidence, folder)
    if len(outcome.evidence) > _MAX_ITEMS:
        yield f"  and {len(outcome.evidence) - _MAX_ITEMS} more places: see --format json"
    details: list[Row] = []
    if outcome.call_path:
        path = " → ".join(f"{f.function} ({within(f.file, folder)}:{f.line})" for f in outcome.call_path)
        details.append(("Call path", Text(visible(path), overflow="fold")))
    for setting in settings_of(outcome, config)[:_MAX_ITEMS]:
        details.append(("Setting", _setting(setting, folder)))
    if details:
        yield ""
        yield Padding(_labelled(details), (0, 0, 0, 2))
    if outcome.fix:
        checked = "verified: audited again with it" if outcome.fix.verified else "not verified"
        name = within(outcome.fix.file, folder)
        yield ""
        yield Padding(_text(f"Suggested fix for {name} ({checked}): {outcome.fix.description}"), (0, 0, 0, 2))
        yield Padding(_code(snippet(outcome.fix.diff, lines=80, chars=6000), "diff"), (0, 0, 0, 7))
    yield ""


def _evidence(index: int, evidence: Evidence, folder: str | None) -> RenderableType:
    head = Text(overflow="fold")
    head.append(visible(evidence.role, 200), style="bold")
    head.append(f"  {visible(place(evidence, folder))}", style="cyan")
    note = packed_note(evidence)
    if note:
        head.append(f"\n({note})", style="dim")
    grid = Table.grid(padding=(0, 1))
    grid.add_row(f"  {index}.", head)
    return Group("", grid, Padding(_code(snippet(evidence.snippet), lexer_for(evidence.file)), (0, 0, 0, 7)))


def _code(code: str, lexer: str) -> Text:
    text = Syntax(code, lexer, theme="ansi_dark", background_color="default").highlight(code)
    text.rstrip()
    text.overflow, text.no_wrap = "fold", False
    return text


def _setting(setting: Setting, folder: str | None) -> Text:
    """The value in force, then every place it was read from, strongest first."""
    text = Text(overflow="fold")
    value = "not known" if setting.value is None else visible(setting.value, 200)
    text.append(f"{visible(setting.name)} = {value}", style="bold")
    for read in reversed(setting.values[-_MAX_ITEMS:]):
        where = f"{visible(within(read.file, folder))}:{read.line}"
        text.append(f"\n  {visible(read.value, 200)}  {read.origin}, {where}")
    if setting.conflict:
        text.append(f"\n  {visible(setting.conflict)}", style="yellow")
    return text


# -- probes ----------------------------------------------------------------------------------------------------


def _probe_report(report: ProbeReport) -> Iterator[RenderableType]:
    overall = probes_overall(report)
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(f" {HEADLINES[overall]} ", style=_OVERALL_STYLES[overall])
    text.append(f"  {visible(report.source)}  ", style="bold")
    text.append(visible(probes_gist(report)))
    yield text
    yield ""
    rows: list[Row] = []
    for label, value in (("Head", report.head), ("Folder", report.folder), ("Script", report.script)):
        if value:
            shown_as = within(value, report.folder) if label == "Script" else value
            rows.append((label, Text(visible(shown_as), overflow="fold")))
    yield _labelled([*rows, *_conditions(report)])
    yield ""
    yield from _probes(report, details=True)
    for name, lines in (
        ("Put in place so that it runs here", substitution_lines(report.substitutions, report.folder)),
        ("Settings that were changed", ["; ".join(map(override_line, report.overrides))] if report.overrides else []),
    ):
        if lines:
            yield _section(name)
            yield from (Text(visible(line, 4000), overflow="fold") for line in lines)
            yield ""
    yield _text(PROBE_LIMITS, style="dim")


def _conditions(report: ProbeReport) -> list[Row]:
    rows: list[Row] = [("Sandbox", _text(sandbox_note(report), style="" if report.sandboxed else "bold red"))]
    if report.world:
        rows.append(("World", _text(report.world)))
    rows += [("Tried", _text(attempt_line(a), style="yellow", limit=300)) for a in report.attempts[:_MAX_ITEMS]]
    rows += [("Note", _text(note)) for note in report.notes[:_MAX_ITEMS]]
    return rows


def _probes(report: ProbeReport, *, details: bool) -> Iterator[RenderableType]:
    results = ranked_probes(report)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), expand=True, show_edge=False)
    table.add_column("Probe", no_wrap=True)
    table.add_column("Result", no_wrap=True)
    table.add_column("What it found", ratio=1, overflow="fold")
    for result in results:
        status = Text(result.status.value.replace("-", " "), style=_PROBE_STYLES[result.status])
        if result.seconds is not None:
            status.append(f"\n{quantity(round(result.seconds, 1), 's')}", style="dim")
        table.add_row(Text(visible(result.name), style="bold"), status, _text(as_sentence(result.reason), limit=400))
    yield table
    yield ""
    yield Text(probes_tally(report), style="dim")
    yield ""
    for result in results:
        if result.status in (ProbeStatus.VIOLATED, ProbeStatus.LATENT) or (details and _has_numbers(result)):
            yield from _probe(result, report.folder)


def _has_numbers(result: ProbeResult) -> bool:
    return bool(result.numbers or result.positions or result.stop)


def _probe(result: ProbeResult, folder: str | None) -> Iterator[RenderableType]:
    heading = f"{visible(result.name)}: {result.status.value.replace('-', ' ')}"
    yield _section(heading, _PROBE_STYLES[result.status])
    yield _text(as_sentence(result.reason))
    rows: list[Row] = []
    for label, value in (
        ("Run", result.subject),
        ("Changed", result.changed),
        ("Must stay", result.must_stay),
        ("Switched on", ", ".join(result.switched_on)),
        ("Compared", comparison(result)),
        ("Stopped at", stop_place(result, folder)),
        ("Exception", result.stop.exception if result.stop is not None else None),
    ):
        if value:
            rows.append((label, _text(value)))
    rows += [("Number", _text(number_line(n))) for n in result.numbers[:_MAX_FIGURES]]
    rows += [("Position", _text(position_line(p))) for p in result.positions[:_MAX_FIGURES]]
    for label, items in (("numbers", result.numbers), ("positions", result.positions)):
        if len(items) > _MAX_FIGURES:
            rows.append(("", Text(f"and {len(items) - _MAX_FIGURES} more {label}: see --format json")))
    rows += [("Shows", _text(line)) for line in meanings(result)]
    if rows:
        yield ""
        yield Padding(_labelled(rows), (0, 0, 0, 2))
    for index, evidence in enumerate(list(dict.fromkeys(result.evidence))[:_MAX_ITEMS], start=1):
        yield _evidence(index, evidence, folder)
    yield ""
