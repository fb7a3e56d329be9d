"""The masked form of a smear, as a suggested change."""

from __future__ import annotations

from auditor.index.trace import Event
from auditor.reading import Reading
from auditor.verdict import SuggestedFix


def suggest_mask(reading: Reading, smears: list[Event]) -> SuggestedFix | None:
    """A change that masks these smears at document starts, or None."""
    return None
