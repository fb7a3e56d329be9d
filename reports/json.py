"""The verdict as JSON, for machines: docs/verdict.schema.json says what is in it."""

from __future__ import annotations

import json

from auditor.evidence import Frozen
from auditor.probe.result import ProbeReport
from auditor.verdict import Verdict


class JsonReport:
    """Indented, keys sorted. Deterministic: the same verdict gives the same bytes."""

    def render(self, verdict: Verdict) -> str:
        return _dumped(verdict)

    def render_probes(self, report: ProbeReport) -> str:
        return _dumped(report)


def _dumped(model: Frozen) -> str:
    # By way of pydantic's own JSON, which writes nan as null where json would write an invalid token.
    # ASCII only: a bidirectional override in a snippet must not reorder the JSON on someone's terminal.
    return json.dumps(json.loads(model.model_dump_json()), indent=2, sort_keys=True) + "\n"
