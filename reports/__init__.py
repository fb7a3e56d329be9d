"""Renderers of a verdict, one module each, chosen by format name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType

from reports.base import Report


def _lazily(module: str, name: str) -> Callable[[], Report]:
    """A factory that imports its renderer on first use: the JSON report should not pay for rich."""

    def build() -> Report:
        report: Report = getattr(import_module(module), name)()
        return report

    return build


REPORTS: Mapping[str, Callable[[], Report]] = MappingProxyType(
    {
        "terminal": _lazily("reports.terminal", "TerminalReport"),
        "json": _lazily("reports.json", "JsonReport"),
        "markdown": _lazily("reports.markdown", "MarkdownReport"),
        "summary": _lazily("reports.summary", "SummaryReport"),
    }
)
"""Format name -> factory of its renderer with default options."""

__all__ = ["REPORTS", "Report"]
