"""The words of a command line that code hands to a shell or to ``subprocess``, as far as they are known."""

from __future__ import annotations

import shlex

from auditor.index.values import HOLE, Const, Seq, Value, options_of


def command_words(value: Value | None) -> list[str]:
    """The words of a command, with HOLE for what is not known."""
    if value is None:
        return []
    value = options_of(value)[0]
    if isinstance(value, Seq):
        return [_word(item) for item in value.items]
    if isinstance(value, Const) and isinstance(value.value, str):
        return split_command(value.value)
    if value.text:
        return split_command(value.text)
    return []


def split_command(text: str) -> list[str]:
    """A command line as its words, the way a shell splits it; by white space where its quotes don't match."""
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def _word(value: Value) -> str:
    value = options_of(value)[0]
    if isinstance(value, Const):
        return str(value.value)[:200]
    return value.text or HOLE
