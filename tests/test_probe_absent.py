"""Modules that are missing: what is imported outright may be named, not used."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator

import pytest

from auditor.probe.driver.absent import install, unguarded
from auditor.probe.driver.used import NoStandInError, noted

SCRIPT = """
import json
import missing_packer
from missing_layers.blocks import Mixer

try:
    import missing_codec
except ImportError:
    missing_codec = None


def pack():
    import missing_later
"""


@pytest.fixture
def finders() -> Iterator[None]:
    before = list(sys.meta_path)
    yield
    sys.meta_path[:] = before
    for name in [n for n in sys.modules if n.startswith("missing_")]:
        del sys.modules[name]


def test_only_what_is_not_guarded_counts() -> None:
    assert unguarded(ast.parse(SCRIPT)) == ["json", "missing_packer", "missing_layers", "missing_later"]


def test_a_missing_module_is_imported_and_stops_where_it_is_used(finders: None) -> None:
    install(ast.parse(SCRIPT))
    packer = importlib.import_module("missing_packer")
    blocks = importlib.import_module("missing_layers.blocks")
    with pytest.raises(NoStandInError, match=r"missing_packer\.Queue\.encode"):
        packer.Queue.encode([1])

    class Own(blocks.Mixer):  # type: ignore[misc, name-defined]
        pass

    with pytest.raises(NoStandInError, match=r"missing_layers\.blocks\.Mixer"):
        Own()
    assert any("missing_packer is missing" in str(n["what"]) for n in noted())
    with pytest.raises(ImportError):
        importlib.import_module("missing_codec")
    assert type(importlib.import_module("json").loads).__name__ == "function"
