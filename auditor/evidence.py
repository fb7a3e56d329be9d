"""What findings are made of: the fact about a rule, a place to look at, and what a run was seen to try.

Shared by the verdict, the sandbox and the probes; depends on nothing of theirs.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Frozen(BaseModel):
    """Base of all reported models: immutable, nothing undeclared."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Status(StrEnum):
    """The fact about one rule, independent of any policy."""

    ACTIVE = "active"
    LATENT = "latent"
    SUSPECT = "suspect"
    CLEAN = "clean"
    NOT_APPLICABLE = "not-applicable"
    UNKNOWN = "unknown"


class Evidence(Frozen):
    """One place to look at.

    ``line`` (1-based) and ``column`` (1-based) point into the text a person reads: the shipped file, or, when
    ``view`` is "unpacked", the program unpacked from it; ``shipped_line`` and ``shipped_column`` then say where
    in the shipped file that program (or its packed payload) stands.
    """

    file: str
    line: int = Field(ge=1)
    column: int = Field(ge=1)
    snippet: str
    role: str = Field(description='what this place shows, such as "trains here" or "switched on by log line"')
    view: Literal["shipped", "unpacked"] = "shipped"
    shipped_line: int | None = None
    shipped_column: int | None = None


class Attempt(Frozen):
    """Something the code tried that the run does not allow.

    ``seen_by``: "shim" (a program of that name was looked up on PATH), "audit-hook" (Python's own report, which hostile
    code can avoid: advisory), "limit" (a bound that was reached).
    """

    kind: Literal["program", "network", "write-outside", "read-outside", "memory", "processes", "output", "time"]
    what: str
    seen_by: Literal["shim", "audit-hook", "limit"]
