"""The verdict as a pull-request comment in GitHub's Markdown.

What a submission contains must not act on GitHub: no mention may notify anyone, no ``#12`` may leave a
cross-reference, no HTML, link, image or table cell may be smuggled in. Identifiers and quotations go into
code spans and fences; sentences are escaped character by character.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from urllib.parse import quote

from auditor.probe.result import ProbeReport, ProbeResult, ProbeStatus, as_sentence
from auditor.verdict import (
    Effect,
    Evidence,
    Frame,
    Outcome,
    Overall,
    RunConfig,
    Setting,
    SubmissionInfo,
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
    limits,
    meanings,
    number,
    number_line,
    override_line,
    packed_note,
    position_line,
    probes_gist,
    probes_overall,
    probes_tally,
    ranked_probes,
    sandbox_note,
    settings_of,
    shown,
    stop_place,
    substitution_lines,
    tally,
    within,
)
from reports.text import lexer_for, snippet, spans, visible

MAX_CHARACTERS = 60_000
"""GitHub refuses comments over 65,536 characters; evidence is left out, with a note, before that happens."""
_RESERVE = 4_000  # for what follows the evidence
_MAX_ITEMS = 12

_ICONS = {
    Overall.VIOLATIONS_FOUND: "❌",
    Overall.NEEDS_REVIEW: "⚠️",
    Overall.NO_VIOLATION_FOUND: "✅",
}
# Every character that can start inline syntax. As numeric entities they are text wherever they stand.
_SPECIAL = str.maketrans({c: f"&#{ord(c)};" for c in "\\`*_[]<>&|~$!^"})
# A zero-width space. GitHub finds mentions and references in the rendered text, where escaping is gone.
_BREAK = "&#8203;"
_BLOCK_STARTS = tuple("0123456789#-+=")  # at the start of a line these can open a list, heading or rule
_AUTOLINK = re.compile(r"(@|#|\bGH-|://|\bwww(?=\.))", re.IGNORECASE)
_REPOSITORY = re.compile(r"[A-Za-z0-9-]+/[A-Za-z0-9._-]+")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_RENDERED = (".md", ".rst", ".ipynb")  # GitHub shows these rendered, where #L anchors do nothing


def escaped(text: str, limit: int = 1000) -> str:
    """``text`` as plain prose on one line, wherever in a line or table cell it is put."""
    inline = _inline(text, limit)
    return f"&#{ord(inline[0])};{inline[1:]}" if inline.startswith(_BLOCK_STARTS) else inline


def _inline(text: str, limit: int) -> str:
    # Split before escaping, so that the "#" of an entity is never taken for the start of a reference.
    broken = _AUTOLINK.split(visible(text, limit))
    return "".join(
        part.translate(_SPECIAL) + (_BREAK if is_autolink else "")
        for is_autolink, part in zip(cycle((False, True)), broken, strict=False)
    )


def prose(text: str, limit: int = 1000) -> str:
    """A sentence that may quote the submission; parts in backticks become code."""
    parts = spans(visible(text, limit))
    return "".join(code(part) if is_code else _joined(part) for part, is_code in parts).strip()


def _joined(text: str) -> str:
    """:func:`escaped`, with the spaces at both ends that keep it apart from its neighbours."""
    before, after = " " * text[:1].isspace(), " " * text[-1:].isspace()
    return f"{before}{escaped(text)}{after}"


def code(text: str, limit: int = 1000) -> str:
    """``text`` as inline code. HTML rather than backticks, which can't hold a ``|`` in a table."""
    return f"<code>{_inline(text, limit)}</code>"


def fenced(text: str, language: str) -> str:
    """``text`` as a code block that it can't close."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def permalink(info: SubmissionInfo, path: str, line: int | None) -> str | None:
    """The address of a line at the head commit; None for sources that GitHub does not hold."""
    if not info.repository or not info.head:
        return None
    if not _REPOSITORY.fullmatch(info.repository) or not _COMMIT.fullmatch(info.head):
        return None
    plain = "?plain=1" if path.lower().endswith(_RENDERED) else ""
    anchor = f"#L{line}" if line else ""
    blob = f"https://github.com/{info.repository}/blob/{info.head}"
    return f"{blob}/{quote(path, errors='replace')}{plain}{anchor}"


@dataclass(frozen=True)
class MarkdownReport:
    """A comment of at most MAX_CHARACTERS characters. ``verbose`` gives every rule a row of its own."""

    verbose: bool = False

    def render(self, verdict: Verdict) -> str:
        return _fitted(_body(verdict, verdict.submission, verbose=self.verbose), list(_closing(verdict)))

    def render_probes(self, report: ProbeReport) -> str:
        return _fitted(_probe_report(report), [f"<sub>{PROBE_LIMITS}</sub>"])


def _fitted(body: Iterable[str], closing: Sequence[str]) -> str:
    """As many blocks as fit into a comment, and ``closing`` in any case."""
    budget = MAX_CHARACTERS - max(_RESERVE, sum(len(block) + 2 for block in closing))
    kept: list[str] = []
    left_out = 0
    for block in body:
        size = len(block) + 2
        if size > budget:
            left_out += 1
            continue
        budget -= size
        kept.append(block)
    if left_out:
        kept.append(f"*{left_out} parts did not fit into a comment; `--format json` has everything.*")
    return "\n\n".join([*kept, *closing]) + "\n"


def _body(verdict: Verdict, info: SubmissionInfo, *, verbose: bool) -> Iterator[str]:
    """The blocks that may be left out if room runs short, most important first."""
    head = f"## {_ICONS[verdict.verdict]} {HEADLINES[verdict.verdict].capitalize()}"
    yield f"{head}: {escaped(gist(verdict.verdict, verdict.outcomes))}"
    yield _what_was_read(verdict, info)
    yield from _rules(verdict.outcomes, verbose=verbose)
    for outcome in filter(has_details, shown(verdict.outcomes)):
        yield _finding(outcome, verdict.run_config, info, info.folder)
    if verdict.probes is not None:
        yield "### What running it showed"
        yield from _probes(verdict.probes)
    for other in verdict.other_folders:
        yield f"### Another record folder: {code(other.folder)}"
        yield f"**{HEADLINES[other.verdict].capitalize()}**: {escaped(gist(other.verdict, other.outcomes))}"
        yield _bullets(_run(other.run_config, info, other.folder, packed=is_packed(other.outcomes)))
        yield from _rules(other.outcomes, verbose=verbose)
        for outcome in filter(has_details, shown(other.outcomes)):
            yield _finding(outcome, other.run_config, info, other.folder)


def _closing(verdict: Verdict) -> Iterator[str]:
    if verdict.not_checked:
        items = [prose(item, 300) for item in verdict.not_checked[:_MAX_ITEMS]]
        if len(verdict.not_checked) > _MAX_ITEMS:
            items.append(f"and {len(verdict.not_checked) - _MAX_ITEMS} more")
        yield "### What was not checked"
        yield _bullets(items)
    yield "### How to dispute"
    yield DISPUTE
    tool = f"{verdict.tool.name} {escaped(verdict.tool.version)}"
    yield f"<sub>{limits(verdict)} {tool}, digest {code(verdict.digest)}</sub>"


def _bullets(items: Sequence[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _location(info: SubmissionInfo, path: str, line: int | None, shown_as: str) -> str:
    url = permalink(info, path, line)
    return f"[{code(shown_as)}]({url})" if url else code(shown_as)


def _what_was_read(verdict: Verdict, info: SubmissionInfo) -> str:
    items: list[str] = []
    if info.number is None:
        items.append(f"Source: {code(info.source)}")
    if info.head:
        items.append(f"Head commit: {code(info.head)}")
    if info.folder:
        track = "" if info.track == "unknown" else f" ({escaped(info.track)} track)"
        items.append(f"Folder: {_location(info, info.folder, None, info.folder)}{track}")
    if info.kind != "record":
        items.append(f"Kind: {escaped(info.kind)}")
    items += _run(verdict.run_config, info, info.folder, packed=is_packed(verdict.outcomes), notes=info.notes)
    if info.metadata_note:
        items.append(prose(info.metadata_note, 300))
    items.append(f"Policy: {verdict.policy.value}; {tally(verdict.outcomes)}")
    return _bullets(items)


def _run(
    config: RunConfig, info: SubmissionInfo, folder: str | None, *, packed: bool, notes: tuple[str, ...] = ()
) -> list[str]:
    items: list[str] = []
    if config.script:
        entry = f", entry point {code(config.entry_point)}" if config.entry_point else ""
        unpacked = ", packed: unpacked before reading" if packed else ""
        script = _location(info, config.script, None, within(config.script, folder))
        items.append(f"Script: {script}{entry}{unpacked}")
    else:
        items.append("Script: none found")
    items.append(_metric(config, info, folder, packed=packed))
    conflicts = [s for s in config.settings if s.conflict]
    items += [f"Conflict: {code(s.name)}: {prose(s.conflict or '', 300)}" for s in conflicts[:_MAX_ITEMS]]
    items += [prose(note, 300) for note in (*notes, *config.notes)[:_MAX_ITEMS]]
    return items


def _metric(config: RunConfig, info: SubmissionInfo, folder: str | None, *, packed: bool) -> str:
    metric = config.reported
    parts = ["Reported metric"]
    if metric.value is not None:
        parts.append(f"**{number(metric.value)}**")
    if metric.label:
        parts.append(code(metric.label))
    if metric.evaluation:
        parts.append(f"from {code(metric.evaluation)}")
        if metric.file and metric.line:
            # A line of an unpacked program is not a line of the file GitHub shows: link to the file alone.
            name = f"{within(metric.file, folder)}:{metric.line}"
            parts.append(f"({_location(info, metric.file, None if packed else metric.line, name)})")
    if metric.log_file:
        name = within(metric.log_file, folder) + (f":{metric.log_line}" if metric.log_line else "")
        parts.append(f"logged at {_location(info, metric.log_file, metric.log_line, name)}")
    return f"{' '.join(parts)}: {prose(metric.how, 400)}"


def _rules(outcomes: tuple[Outcome, ...], *, verbose: bool) -> Iterator[str]:
    """The table of what was found, and the rest of the rules by name."""
    groups = [group for group in grouped(outcomes) if verbose or group[0].status not in QUIET]
    if groups:
        yield _table(groups)
    quiet = [] if verbose else folded(outcomes)
    if quiet:
        summary = ", ".join(f"{len(slugs)} {status.value}" for status, slugs in quiet)
        items = [f"{status.value}: {', '.join(map(code, slugs))}" for status, slugs in quiet]
        yield f"<details><summary>{summary}</summary>\n\n{_bullets(items)}\n\n</details>"


def _table(groups: Sequence[Sequence[Outcome]]) -> str:
    rows = ["| Rule | Status | Effect | Confidence | Reason |", "|---|---|---|---|---|"]
    for group in groups:
        o = group[0]
        effect = {Effect.NONE: "", Effect.VIOLATION: "**violation**"}.get(o.effect, o.effect.value)
        name = ", ".join(code(same.rule) for same in group)
        rows.append(f"| {name} | {o.status.value} | {effect} | {o.confidence.value} | {prose(o.reason, 400)} |")
    return "\n".join(rows)


def _finding(outcome: Outcome, config: RunConfig, info: SubmissionInfo, folder: str | None) -> str:
    count = len(outcome.evidence)
    places = "" if not count else ", 1 place" if count == 1 else f", {count} places"
    summary = f"{code(outcome.rule)} {finding(outcome)}, {outcome.confidence.value} confidence{places}"
    blocks = [f"<details><summary>{summary}</summary>", prose(outcome.reason)]
    for index, evidence in enumerate(outcome.evidence[:_MAX_ITEMS], start=1):
        blocks += _evidence(index, evidence, info, folder)
    if count > _MAX_ITEMS:
        blocks.append(f"and {count - _MAX_ITEMS} more places: see `--format json`")
    if outcome.call_path:
        blocks.append(f"Call path: {' → '.join(_frame(f, folder) for f in outcome.call_path[:_MAX_ITEMS])}")
    settings = settings_of(outcome, config)[:_MAX_ITEMS]
    if settings:
        blocks.append("\n".join(_setting(s, info, folder) for s in settings))
    if outcome.fix:
        checked = "verified: audited again with it" if outcome.fix.verified else "not verified"
        description = prose(outcome.fix.description, 300)
        name = code(within(outcome.fix.file, folder))
        blocks.append(f"Suggested fix for {name} ({checked}): {description}")
        blocks.append(fenced(snippet(outcome.fix.diff, lines=80, chars=6000), "diff"))
    blocks.append("</details>")
    return "\n\n".join(blocks)


def _evidence(index: int, evidence: Evidence, info: SubmissionInfo, folder: str | None) -> Iterator[str]:
    name = f"{within(evidence.file, folder)}:{evidence.line}:{evidence.column}"
    line = evidence.shipped_line if evidence.view == "unpacked" else evidence.line
    note = packed_note(evidence)
    target = f"; the link leads to the shipped {'line' if line else 'file'}"
    packed = f" ({note}{target if permalink(info, evidence.file, line) else ''})" if note else ""
    yield f"**{index}. {escaped(evidence.role)}** {_location(info, evidence.file, line, name)}{packed}"
    yield fenced(snippet(evidence.snippet), lexer_for(evidence.file))


def _frame(frame: Frame, folder: str | None) -> str:
    return code(f"{frame.function} ({within(frame.file, folder)}:{frame.line})")


def _setting(setting: Setting, info: SubmissionInfo, folder: str | None) -> str:
    value = "not known" if setting.value is None else code(setting.value, 200)
    lines = [f"- Setting {code(setting.name)} = {value}"]
    for read in reversed(setting.values[-_MAX_ITEMS:]):
        where = _location(info, read.file, read.line, f"{within(read.file, folder)}:{read.line}")
        lines.append(f"  - {code(read.value, 200)}: {read.origin}, {where}")
    if setting.conflict:
        lines.append(f"  - {prose(setting.conflict, 300)}")
    return "\n".join(lines)


# -- probes ----------------------------------------------------------------------------------------------------


def _probe_report(report: ProbeReport) -> Iterator[str]:
    overall = probes_overall(report)
    yield f"## {_ICONS[overall]} {HEADLINES[overall].capitalize()}: {escaped(probes_gist(report))}"
    items = [f"Source: {code(report.source)}"]
    for label, value in (("Head commit", report.head), ("Folder", report.folder), ("Script", report.script)):
        if value:
            items.append(f"{label}: {code(within(value, report.folder) if label == 'Script' else value)}")
    yield _bullets(items)
    yield from _probes(report)
    for name, lines in (
        ("Put in place so that it runs here", substitution_lines(report.substitutions, report.folder)),
        ("Settings that were changed", [override_line(o) for o in report.overrides]),
    ):
        if lines:
            rows = _bullets([code(line, 300) for line in lines[:100]])
            yield f"<details><summary>{name}</summary>\n\n{rows}\n\n</details>"


def _probes(report: ProbeReport) -> Iterator[str]:
    items = [f"Sandbox: {prose(sandbox_note(report))}"]
    if report.world:
        items.append(f"World: {prose(report.world)}")
    items += [f"Tried: {code(attempt_line(a), 300)}" for a in report.attempts[:_MAX_ITEMS]]
    items += [prose(note) for note in report.notes[:_MAX_ITEMS]]
    yield _bullets([*items, probes_tally(report)])
    rows = ["| Probe | Result | What it found |", "|---|---|---|"]
    for result in ranked_probes(report):
        status = result.status.value.replace("-", " ")
        shown_as = f"**{status}**" if result.status is ProbeStatus.VIOLATED else status
        rows.append(f"| {code(result.name)} | {shown_as} | {prose(as_sentence(result.reason), 400)} |")
    yield "\n".join(rows)
    for result in ranked_probes(report):
        if result.numbers or result.positions or result.stop is not None:
            yield _probe(result, report.folder)


def _probe(result: ProbeResult, folder: str | None) -> str:
    items = [
        f"{label}: {prose(value)}"
        for label, value in (
            ("Run", result.subject),
            ("Changed", result.changed),
            ("Must stay", result.must_stay),
            ("Switched on", ", ".join(result.switched_on)),
            ("Compared", comparison(result)),
            ("Stopped at", stop_place(result, folder)),
            ("Exception", result.stop.exception if result.stop is not None else None),
        )
        if value
    ]
    items += [prose(number_line(n)) for n in result.numbers[:_MAX_ITEMS]]
    items += [prose(position_line(p)) for p in result.positions[:_MAX_ITEMS]]
    for label, count in (("numbers", len(result.numbers)), ("positions", len(result.positions))):
        if count > _MAX_ITEMS:
            items.append(f"and {count - _MAX_ITEMS} more {label}: see `--format json`")
    items += [prose(line) for line in meanings(result)]
    summary = f"{code(result.name)} {result.status.value.replace('-', ' ')}"
    blocks = (
        f"<details><summary>{summary}</summary>",
        prose(as_sentence(result.reason)),
        _bullets(items),
        "</details>",
    )
    return "\n\n".join(blocks)
