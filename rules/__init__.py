"""The rule catalogue: one module per rule below ``rules/<group>/``, discovered by :func:`discover`."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from functools import cache

from rules.base import Rule


@cache
def discover() -> tuple[Rule, ...]:
    """Every rule found in the packages below this one, sorted by slug."""
    found: dict[str, Rule] = {}
    for module in pkgutil.walk_packages(__path__, prefix=f"{__name__}."):
        if module.ispkg or module.name == f"{__name__}.base":
            continue
        for _, cls in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if issubclass(cls, Rule) and cls.__module__ == module.name and not inspect.isabstract(cls):
                found[cls.slug] = cls()
    return tuple(found[slug] for slug in sorted(found))
