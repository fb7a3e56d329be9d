"""``wandb``: tells nobody."""

from __future__ import annotations

from typing import Any

from auditor.probe.driver.on_cpu import settings


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return getattr(settings, name)
