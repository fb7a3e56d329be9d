"""Reading launch commands out of shell text and Markdown."""

from __future__ import annotations

import pytest

from auditor.runconfig.launches import read_markdown
from auditor.shell import assignments_only, commands, unresolved


def envs(text: str) -> list[dict[str, str]]:
    return [{n: v.value for n, v in c.env.items()} for c in commands(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A=1 B='x y' torchrun --nproc_per_node=8 train_gpt.py", {"A": "1", "B": "x y"}),
        ("env A=1 B=2 python3 train_gpt.py", {"A": "1", "B": "2"}),
        ("export A=1\nexport B=2\ntorchrun train_gpt.py", {"A": "1", "B": "2"}),
        ("A=1 \\\nB=2 \\\n  torchrun train_gpt.py", {"A": "1", "B": "2"}),
        ("A=1 \\\n# B=2 \\\nC=3 torchrun train_gpt.py", {"A": "1", "C": "3"}),
        ("N=3\nA=${N:-7} B=${M:-7} C=$N python train_gpt.py", {"A": "3", "B": "7", "C": "3"}),
        ("$ A=1 python train_gpt.py 2>&1 | tee log.txt", {"A": "1"}),
        ("cd /somewhere && A=1 python train_gpt.py; echo done", {"A": "1"}),
        ('$env:A="1"\npython train_gpt.py', {"A": "1"}),
        ("set A=1\npython train_gpt.py", {"A": "1"}),
        ("RUN A=1 python train_gpt.py", {"A": "1"}),
        ("bash -c '\n  A=1 python train_gpt.py\n'", {"A": "1"}),
        ('VARS=(A=1 B=2)\nenv "${VARS[@]}" python train_gpt.py', {"A": "1", "B": "2"}),
        ('base="A=1 B=2"\nenv $base python train_gpt.py', {"A": "1", "B": "2"}),
        ('python run.py --extra-env "A=1;B=2"', {"A": "1", "B": "2"}),
        ("uv run torchrun train_gpt.py  # A=1", {}),
    ],
)
def test_environment(text: str, expected: dict[str, str]) -> None:
    assert envs(text) == [expected]


def test_unexported_variables_stay_in_the_shell() -> None:
    assert envs("A=1\npython train_gpt.py") == [{}]


def test_loops_over_seeds_are_unrolled() -> None:
    text = "for SEED in 42 314 999; do\n  SEED=$SEED A=1 torchrun train_gpt.py\ndone\npython after.py"
    assert envs(text) == [{"SEED": s, "A": "1"} for s in ("42", "314", "999")] + [{}]


def test_a_branch_does_not_overrule_what_is_set_unconditionally() -> None:
    text = 'export A=1\nif [ -n "$FAST" ]; then\n  export A=0\nfi\npython train_gpt.py'
    assert envs(text) == [{"A": "1"}]


def test_what_only_a_running_shell_knows_is_kept_as_written() -> None:
    (env,) = envs("A=$(date +%s) B=$1 python train_gpt.py")
    assert env == {"A": "$(date +%s)", "B": "$1"}
    assert all(unresolved(v) for v in env.values()) and not unresolved("1e-3")


def test_flags_of_the_script_not_of_the_launcher() -> None:
    (command,) = commands("torchrun --nproc_per_node=8 train_gpt.py --slot-steps 100 --lr=-1e-3 model_dim=8 --fast")
    flags = {n: v.value for n, v in command.flags.items()}
    assert flags == {"--slot-steps": "100", "--lr": "-1e-3", "--fast": "True", "model_dim": "8"}
    assert command.script == "train_gpt.py"


@pytest.mark.parametrize(
    "text",
    [
        "train_gpt.py",
        "echo run torchrun train_gpt.py",
        "To run it you would use python on train gpt",
        "pip install train.py",
        "cat > run.sh <<'EOF'\npython train_gpt.py\nEOF",
        "# python train_gpt.py",
        'python -c "import x" foo.py',
        "├── train_gpt.py   the script",
    ],
)
def test_not_a_launch(text: str) -> None:
    assert commands(text) == []


def test_growth_by_expansion_is_bounded() -> None:
    text = "export A=xxxxxxxx\n" + "export A=$A$A\n" * 200 + "python train_gpt.py"
    (env,) = envs(text)
    assert len(env["A"]) <= 20_000


def test_bare_settings() -> None:
    found = assignments_only("# run with\nA=1\nB_C=x  # why\n")
    assert {n: (v.value, v.line) for n, v in found.items()} == {"A": ("1", 2), "B_C": ("x", 3)}
    assert assignments_only("A=1\nsome words\n") == {} and assignments_only("a=1\nb=2\n") == {}


def test_markdown_lines_and_headings() -> None:
    text = (
        "# T\n\nUse `A=1 python train_gpt.py` here.\n\n## Run\n\n1. first\n\n"
        "   ```sh\n   python a.py\n   ```\n\n    python b.py\n"
    )
    document = read_markdown("README.md", text)
    found = [(s.text.strip(), s.line, s.heading, s.fenced) for s in document.snippets]
    assert ("A=1 python train_gpt.py", 3, "T", False) in found
    assert ("python a.py", 10, "T / Run", True) in found


def test_python_blocks_are_not_shell() -> None:
    assert read_markdown("README.md", "```python\nos.system('python train_gpt.py')\n```\n").snippets == ()
