"""The verdict in one line, for lists of submissions."""

from __future__ import annotations

from itertools import groupby

from auditor.verdict import Effect, Verdict
from reports.base import finding, shown, title
from reports.text import visible

_NAMED = 3


class SummaryReport:
    """Overall verdict, submission, and what is not clean, separated by two spaces.

    Violations are all named; of any other kind that there are many of, only the number is given.
    """

    def render(self, verdict: Verdict) -> str:
        parts: list[str] = []
        for what, group in groupby(shown(verdict.outcomes), finding):
            outcomes = list(group)
            if len(outcomes) > _NAMED and outcomes[0].effect is not Effect.VIOLATION:
                parts.append(f"{len(outcomes)} {what}")
            else:
                parts += [f"{o.rule} {what}" for o in outcomes]
        findings = ", ".join(parts)
        name = visible(title(verdict.submission))
        return f"{verdict.verdict.value:<18}  {name}  {visible(findings) or 'nothing found'}\n"
