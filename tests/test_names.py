"""The names that expressions end in."""

from __future__ import annotations

import ast

import pytest

from auditor.index.names import last_name, leaf_name


@pytest.mark.parametrize(
    ("text", "name"), [("x", "x"), ("np.add", "add"), ("self.net.head", "head"), ("xs[0]", ""), ("f()", ""), ("3", "")]
)
def test_the_last_name_of_an_expression(text: str, name: str) -> None:
    node = ast.parse(text, mode="eval").body
    assert last_name(node) == name
    assert leaf_name(ast.Call(node, [], [])) == name
