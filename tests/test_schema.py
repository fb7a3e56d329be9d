"""docs/verdict.schema.json is what the models say; ``make schema`` writes it anew."""

from __future__ import annotations

import json
from pathlib import Path

from auditor.schema import verdict_schema

ROOT = Path(__file__).parent.parent
EXPORTED = ROOT / "docs" / "verdict.schema.json"


def test_the_exported_schema_is_current() -> None:
    assert json.loads(EXPORTED.read_text("utf-8")) == json.loads(verdict_schema()), "run: make schema"


def test_the_schema_promises_what_readers_rely_on() -> None:
    schema = json.loads(verdict_schema())
    assert {"verdict", "policy", "submission", "run_config", "outcomes"} <= set(schema["required"])
    definitions = schema["$defs"]
    fields = {"rule", "status", "effect", "reason", "confidence", "evidence"}
    assert fields <= set(definitions["Outcome"]["required"])
    assert {"file", "line", "column", "snippet", "role"} <= set(definitions["Evidence"]["required"])
    objects = [schema, *(d for d in definitions.values() if d["type"] == "object")]
    assert all(o["additionalProperties"] is False for o in objects)
