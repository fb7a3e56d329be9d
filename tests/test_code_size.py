"""A program's bytes as shipped code, by the compressors and wrappers of the contest."""

from __future__ import annotations

import base64
import lzma
import zlib
from importlib.resources import files

import brotli
import pytest

from auditor.code_size import LONG, ships_as


def _source(module: str) -> str:
    """Real code: what is skipped without a try rests on how real code compresses."""
    return (files("auditor") / module).read_text("utf-8")


@pytest.mark.parametrize("module", ["errors.py", "reading.py", "index/flow.py"])
def test_every_way_to_ship_a_script_is_known(module: str) -> None:
    text = _source(module)
    data = text.encode()
    assert (len(data) > LONG) is (module != "errors.py")
    for payload in (
        zlib.compress(data, 9),
        lzma.compress(data, preset=6),
        lzma.compress(data, preset=9 | lzma.PRESET_EXTREME),
        brotli.compress(data, quality=11),
    ):
        assert ships_as(text, len(payload))
        assert ships_as(text, len(base64.b85encode(payload)) + 75)
        assert ships_as(text, len(base64.b64encode(payload)) + 75)


def test_the_size_of_something_else_is_not_taken_for_it() -> None:
    text = _source("reading.py")
    assert not ships_as(text, len(zlib.compress(text.encode(), 9)) * 2)
    assert not ships_as(text, 0)
