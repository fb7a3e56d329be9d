"""What a rule is: a slug, a policy, a documentation and a check.

A rule is one module below ``rules/<group>/`` that defines exactly one subclass of :class:`Rule`. It is found by
:func:`rules.discover`; there is no list to extend. Its module docstring is its documentation, and its
``EXAMPLES`` are run as tests.
"""

from __future__ import annotations

import inspect
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from auditor.verdict import Confidence, Effect, Evidence, Frame, Policy, Status, SuggestedFix

if TYPE_CHECKING:
    from auditor.reading import Reading


@dataclass(frozen=True)
class Example:
    """A small submission and the status this rule must give it.

    ``files`` maps paths inside the record folder to their text; ``status`` is the expected fact.
    """

    title: str
    files: Mapping[str, str]
    status: Status


@dataclass(frozen=True)
class Finding:
    """What a rule found, before any policy is applied."""

    status: Status
    reason: str
    confidence: Confidence = Confidence.HIGH
    evidence: tuple[Evidence, ...] = ()
    call_path: tuple[Frame, ...] = ()
    settings: tuple[str, ...] = ()
    fix: SuggestedFix | None = None
    official: Effect | None = None
    """What the official policy makes of this finding where that is not the rule's usual effect: accepted because it
    is declared, advisory because it happens outside the evaluation."""


class Rule(ABC):
    """One rule of the catalogue."""

    slug: ClassVar[str]
    group: ClassVar[str]
    title: ClassVar[str]
    """What it catches, in a few words (as in the catalogue)."""
    official: ClassVar[Effect]
    strict: ClassVar[Effect]
    evidence: ClassVar[tuple[str, ...]] = ("code",)
    """What it is decided from: ``code``, ``log``, ``files``; ``probe`` where only running it could decide the rest."""
    precedents: ClassVar[tuple[str, ...]] = ()
    """Rulings and cases, for the documentation only."""
    VIOLATION: ClassVar[tuple[Example, ...]]
    LEGAL: ClassVar[tuple[Example, ...]]

    @abstractmethod
    def check(self, reading: Reading) -> Finding:
        """Judge one record folder. Must not raise on any input: what can't be read is ``unknown``."""

    def effect(self, finding: Finding, policy: Policy) -> Effect:
        """What ``policy`` makes of ``finding``."""
        if finding.status is not Status.ACTIVE:
            return Effect.NONE
        if policy is Policy.OFFICIAL:
            return self.official if finding.official is None else finding.official
        return self.strict

    def decides(self, policy: Policy) -> bool:
        """Whether an active finding of this rule could be a violation under ``policy``."""
        return (self.official if policy is Policy.OFFICIAL else self.strict) is Effect.VIOLATION

    @classmethod
    def documentation(cls) -> str:
        """The module docstring: what, why it breaks the score, legal look-alikes, remedy, ruling."""
        return inspect.cleandoc(sys.modules[cls.__module__].__doc__ or "")
