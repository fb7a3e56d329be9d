"""Two versions of a program: what is a difference and what is not."""

from __future__ import annotations

import ast

import pytest

from auditor.code_diff import CodeDifference, code_lines, difference, first_change

BASE = '''"""Doc."""
import os

LIMIT = 3


class Hyperparameters:
    layers = int(os.environ.get("LAYERS", 9))
    width = 512


class Net:
    """Net."""

    depth = 1

    def forward(self, x: int) -> int:
        y = x + 1
        return y * Hyperparameters.layers


def main():
    # run
    print("start")
    return Net().forward(LIMIT) + Hyperparameters.width


main()
'''


def diff(edited: str) -> CodeDifference:
    assert edited != BASE
    return difference(BASE, ast.parse(BASE), edited, ast.parse(edited))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("    # run\n", ""),
        ('print("start")', 'print("begin", 2)'),
        ("(self, x: int) -> int", "(self, x)"),
        ('    """Net."""\n\n', ""),
        ("import os\n", "import os\nimport sys\ntry:\n    import zlib\nexcept ImportError:\n    zlib = None\n"),
        ("return y *", "return  y*"),
        ("width = 512", "width: int = 512"),
        ("    width = 512\n", "    width = 512\n    unused_setting = 4\n"),
    ],
)
def test_no_difference(old: str, new: str) -> None:
    assert diff(BASE.replace(old, new)).nothing


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("y = x + 1", "y = x + 2", "Net.forward"),
        ("LIMIT = 3", "LIMIT = 4", "<module>"),
        ("depth = 1", "depth = 2", "Net"),
        ("return Net()", "Net()\n    return Net()", "main"),
    ],
)
def test_a_difference(old: str, new: str, where: str) -> None:
    assert [a.name for a, _ in diff(BASE.replace(old, new)).changed] == [where]


def test_defaults_are_told_apart() -> None:
    for old, new in (('"LAYERS", 9', '"LAYERS", 11'), ("width = 512", "width = 768")):
        found = diff(BASE.replace(old, new))
        assert found.nothing and found.defaults == ("Hyperparameters",)


def test_functions_of_one_side() -> None:
    found = diff(BASE + "\n\ndef extra():\n    return 1\n")
    assert [u.name for u in found.only_second] == ["extra"] and not found.only_first and not found.changed


def test_a_minified_program() -> None:
    names = [f"value_{i}" for i in range(30)]
    body = "".join(
        f"def step_{i}(model, batch):\n    {n} = model.call_{i}(batch, 'mean')\n    return {n}.size_{i}\n"
        for i, n in enumerate(names)
    )
    short = body.replace("'mean'", "M").replace("model", "m").replace("batch", "b")
    for name in reversed(names):
        short = short.replace(name, "a")
    short = "M = 'mean'\n" + short
    assert difference(body, ast.parse(body), short, ast.parse(short)).minified


def test_renamed_locals_are_no_difference() -> None:
    renamed = BASE.replace("y = x + 1", "z = x + 1").replace("return y *", "return z *")
    assert diff(renamed).nothing


def test_the_first_change() -> None:
    edited = BASE.replace("        y = x + 1\n", "        y = x + 1\n        if y:\n            y += 2\n")
    ((ours, theirs),) = diff(edited).changed
    lines = [
        text.split("\n")[n - 1].strip() for text, n in zip((BASE, edited), first_change(ours, theirs), strict=True)
    ]
    assert lines == ["return y * Hyperparameters.layers", "if y:"]


def test_module_names_for_defaults_only() -> None:
    edited = BASE.replace("LIMIT = 3", "LIMIT = 3\n_NINE = 9").replace('"LAYERS", 9', '"LAYERS", _NINE')
    assert diff(edited).nothing and diff(edited).defaults


def test_code_lines() -> None:
    assert code_lines("a = 1  \n\n  # note\nb = 2 # kept\n") == ["a = 1", "b = 2 # kept"]
