"""What a probe is: a name, what it changes, what must stay, the rules it speaks for, and how it is run.

A probe is one module below ``auditor/probe/probes/`` that defines exactly one subclass of :class:`Probe`. It is found
by :func:`discover`; there is no list to extend. Its module docstring is its documentation.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from abc import ABC, abstractmethod
from functools import cache
from typing import TYPE_CHECKING, ClassVar, Literal

from auditor.probe import probes
from auditor.probe.result import ProbeResult

if TYPE_CHECKING:
    from auditor.probe.run import Bench


class Probe(ABC):
    """One probe."""

    name: ClassVar[str]
    """Such as ``document-isolation``."""
    title: ClassVar[str]
    """What it asks, in a few words."""
    level: ClassVar[Literal["model", "evaluation"]]
    """``model``: imports, builds, forward passes. ``evaluation``: the submission's own evaluation or main."""
    rules: ClassVar[tuple[str, ...]]
    """The slugs it speaks for; the first is the one that a violation counts for when reading suspects none of them."""

    @abstractmethod
    def run(self, bench: Bench) -> ProbeResult:
        """Probe one record folder. Must not raise because of what a submission does: that is ``could-not-run``."""

    @classmethod
    def documentation(cls) -> str:
        """The module docstring."""
        return inspect.cleandoc(sys.modules[cls.__module__].__doc__ or "")


@cache
def discover() -> tuple[Probe, ...]:
    """Every probe, model probes first, then by name."""
    found: dict[str, Probe] = {}
    for module in pkgutil.iter_modules(probes.__path__, prefix=f"{probes.__name__}."):
        for _, cls in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if issubclass(cls, Probe) and cls.__module__ == module.name and not inspect.isabstract(cls):
                found[cls.name] = cls()
    return tuple(sorted(found.values(), key=lambda p: (p.level != "model", p.name)))
