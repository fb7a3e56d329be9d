"""The JSON schema of the verdict, as exported to docs/verdict.schema.json by ``make schema``."""

from __future__ import annotations

import json
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from auditor.verdict import Verdict


class _AsWritten(GenerateJsonSchema):
    """Every field is required: a written verdict has them all, also those at their defaults."""

    def field_is_required(self, field: Any, total: bool) -> bool:
        return True


def verdict_schema() -> str:
    """The schema (draft 2020-12) of what ``--format json`` writes, as indented JSON ending in a newline."""
    schema = Verdict.model_json_schema(mode="serialization", schema_generator=_AsWritten)
    schema["$schema"] = GenerateJsonSchema.schema_dialect
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"
