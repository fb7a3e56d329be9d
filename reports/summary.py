"""The verdict in one line, for lists of submissions."""

from __future__ import annotations

from auditor.verdict import Verdict
from reports.base import finding, shown, title
from reports.text import visible


class SummaryReport:
    """Overall verdict, submission, and every finding that is not clean, separated by two spaces."""

    def render(self, verdict: Verdict) -> str:
        findings = ", ".join(f"{o.rule} {finding(o)}" for o in shown(verdict.outcomes))
        name = visible(title(verdict.submission))
        return f"{verdict.verdict.value:<18}  {name}  {visible(findings) or 'nothing found'}\n"
