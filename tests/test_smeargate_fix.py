"""The suggested change for a smear that is not masked: what it writes, and when it stays silent."""

from __future__ import annotations

import ast
import base64
import lzma
import re
import textwrap

import pytest

from auditor.index.trace import Kind
from auditor.reading import Reading
from auditor.submission import Change, RecordFolder, Submission, SubmissionFile, SubmissionKind
from auditor.verdict import Status, SuggestedFix
from rules.architecture import smeargate_fix
from rules.architecture.smeargate_bos_leak import SmearGateBOSLeak
from rules.architecture.smeargate_fix import suggest_mask

FOLDER = "records/track_10min_16mb/2026-01-01_Smear"
SCRIPT = f"{FOLDER}/train_gpt.py"

PLAIN = """\
g = torch.sigmoid(self.gate(x[:, 1:, :12]))
x = torch.cat([x[:, :1], x[:, 1:] + g * x[:, :-1]], dim=1)
"""
HEAD = """\
import glob
import os

import numpy as np
import torch
import torch.nn.functional as F
from flash_attn_interface import flash_attn_varlen_func
from torch import nn

BOS_ID = 1


class Attention(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.qkv = nn.Linear(dim, 3 * dim)

    def forward(self, x, cu_seqlens):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return flash_attn_varlen_func(q, k, v, cu_seqlens_q=cu_seqlens, cu_seqlens_k=cu_seqlens, causal=True)
"""
NETWORK = """

class SmearGPT(nn.Module):
    def __init__(self, vocab=1024, dim=64):
        super().__init__()
        self.embed = nn.Embedding(vocab, dim)
        self.attn = Attention(dim)
        self.gate = nn.Linear(12, 1)
        SETUP

    def forward(self, input_ids, targets, cu_seqlens):
        x = self.embed(input_ids)
        SMEAR
        x = x + self.attn(x, cu_seqlens)
        return F.cross_entropy(F.linear(x, self.embed.weight).flatten(0, 1), targets.flatten())
"""
RUN = """

def load_tokens(pattern):
    return torch.cat([torch.from_numpy(np.fromfile(f, dtype=np.uint16)) for f in sorted(glob.glob(pattern))])


def offsets(tokens):
    return (tokens == BOS_ID).nonzero().flatten().to(torch.int32)


model = SmearGPT()
optimizer = torch.optim.AdamW(model.parameters())
tokens = load_tokens("fineweb_train_*.bin")
for step in range(100):
    x, y = tokens[None, :-1], tokens[None, 1:]
    loss = model(x, y, offsets(x))
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
val_tokens = load_tokens("fineweb_val_*.bin")
total = torch.zeros(())
with torch.no_grad():
    for i in range(0, val_tokens.numel() - 1, 1024):
        x, y = val_tokens[None, i : i + 1024], val_tokens[None, i + 1 : i + 1025]
        total += model(x, y, offsets(x))
print(f"final val_bpb:{total:.4f}")
"""


def script(smear: str = PLAIN, *, setup: str = "pass", before: str = "") -> str:
    """A script whose network smears with ``smear``, with ``before`` ahead of its class."""
    network = NETWORK.replace("        SMEAR\n", textwrap.indent(smear, " " * 8)).replace("SETUP", setup)
    return HEAD + (f"\n\n{textwrap.dedent(before).strip()}\n" if before else "") + network + RUN


def reading(data: str | bytes, **others: str) -> Reading:
    contents = {"train_gpt.py": data.encode() if isinstance(data, str) else data}
    contents |= {f"{name}.py": text.encode() for name, text in others.items()}

    def file(name: str) -> SubmissionFile:
        content = contents[name]
        return SubmissionFile(f"{FOLDER}/{name}", len(content), Change.ADDED, lambda: content)

    files = tuple(file(name) for name in sorted(contents))
    folder = RecordFolder(FOLDER, "record", files)
    submission = Submission("here", None, None, None, None, SubmissionKind.RECORD, (folder,), files)
    return Reading(submission, folder)


def fix_of(data: str | bytes, **others: str) -> SuggestedFix | None:
    found = SmearGateBOSLeak().check(reading(data, **others))
    assert found.status is Status.ACTIVE
    return found.fix


def patched(text: str, diff: str) -> str:
    """``text`` after ``diff``; every line that the diff says it replaces or keeps is compared."""
    lines = re.findall(r"[^\n]*\n|[^\n]+", text)
    out: list[str] = []
    at = 0
    body = [li for li in re.findall(r"[^\n]*\n", diff) if not li.startswith(("--- ", "+++ "))]
    for i, line in enumerate(body):
        mark, rest = line[0], line[1:]
        if i + 1 < len(body) and body[i + 1].startswith("\\"):
            rest = rest.removesuffix("\n")
        if mark == "@":
            start = int(re.findall(r"-(\d+)", line)[0]) - 1
            out += lines[at:start]
            at = start
        elif mark == "+":
            out.append(rest)
        elif mark in " -":
            assert lines[at] == rest
            out += [rest] if mark == " " else []
            at += 1
    return "".join(out + lines[at:])


def check_fixed(text: str, fix: SuggestedFix | None) -> str:
    """The patched text, after checking that it is clean and has nothing left to mask."""
    assert fix is not None
    assert fix.verified
    assert fix.file == SCRIPT
    assert fix.diff.startswith(f"--- a/{SCRIPT}\n+++ b/{SCRIPT}\n@@ ")
    after = patched(text, fix.diff)
    ast.parse(after)
    again = reading(after)
    found = SmearGateBOSLeak().check(again)
    assert found.status is Status.CLEAN
    assert found.fix is None
    smears = again.trace.of(Kind.SMEAR)
    assert smears and all(s.detail for s in smears)
    assert suggest_mask(again, smears) is None
    return after


def changed(diff: str) -> list[str]:
    """The lines that a diff takes out and puts in."""
    return [
        f"{li[0]} {li[1:].strip()}"
        for li in diff.split("\n")
        if li[:1] in ("+", "-") and not li.startswith(("+++", "---"))
    ]


def test_the_usual_form_is_masked() -> None:
    text = script()
    fix = fix_of(text)
    check_fixed(text, fix)
    assert fix is not None
    assert changed(fix.diff) == [
        "- x = torch.cat([x[:, :1], x[:, 1:] + g * x[:, :-1]], dim=1)",
        "+ not_bos = (input_ids[:, 1:] != BOS_ID).unsqueeze(-1).to(x.dtype)",
        "+ x = torch.cat([x[:, :1], x[:, 1:] + g * x[:, :-1] * not_bos], dim=1)",
    ]
    assert fix.description == (
        "In SmearGPT.forward, multiply the previous position's state by a mask that is zero where the current"
        " token starts a document (token BOS_ID)."
    )


@pytest.mark.parametrize(
    ("smear", "masked"),
    [
        pytest.param(
            "prev = F.pad(x[:, :-1], (0, 0, 1, 0))\nx = x + torch.sigmoid(self.gate(x[..., :12])) * prev\n",
            "prev = F.pad(x[:, :-1] * not_bos, (0, 0, 1, 0))",
            id="pad",
        ),
        pytest.param(
            "prev = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1)\n"
            "g = torch.sigmoid(self.gate(x[..., :12]))\nx = (1 - g) * x + g * prev\n",
            "prev = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1] * not_bos], dim=1)",
            id="cat and weighted sum",
        ),
        pytest.param(
            "prev = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1)\n"
            "x = torch.lerp(x, prev, torch.sigmoid(self.gate(x[..., :12])))\n",
            "prev = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1] * not_bos], dim=1)",
            id="lerp",
        ),
        pytest.param(
            "prev = torch.zeros_like(x)\nprev[:, 1:] = x[:, :-1]\nx = x + 0.1 * prev\n",
            "prev[:, 1:] = x[:, :-1] * not_bos",
            id="slice assignment",
        ),
        pytest.param(
            "prev = torch.roll(x, 1, dims=1)\nx = x + 0.1 * prev\n",
            "prev = torch.roll(x, 1, dims=1) * not_bos",
            id="roll",
        ),
        pytest.param(
            "prev = x.roll(shifts=1, dims=1)\nx = x + 0.1 * prev\n",
            "prev = x.roll(shifts=1, dims=1) * not_bos",
            id="roll as a method",
        ),
        pytest.param(
            "x = torch.cat([x[:, :1], x[:, 1:] + 0.1 * x[:, :-1].float()], dim=1)\n",
            "x = torch.cat([x[:, :1], x[:, 1:] + 0.1 * (x[:, :-1] * not_bos).float()], dim=1)",
            id="parentheses where needed",
        ),
        pytest.param(
            "shifted = x[:, :-1, :]\ny = x[:, 1:] + 0.1 * shifted\nx = torch.cat([x[:, :1], y], dim=1)\n",
            "shifted = x[:, :-1, :] * not_bos",
            id="through a name",
        ),
    ],
)
def test_common_forms(smear: str, masked: str) -> None:
    text = script(smear)
    after = check_fixed(text, fix_of(text))
    assert f"        {masked}\n" in after
    assert after.count("not_bos = (") == 1


def test_a_statement_among_others_on_one_line() -> None:
    text = script("g=torch.sigmoid(self.gate(x[:,1:,:12]));x=torch.cat([x[:,:1],x[:,1:]+g*x[:,:-1]],dim=1)\n")
    after = check_fixed(text, fix_of(text))
    assert (
        "self.gate(x[:,1:,:12]));not_bos = (input_ids[:, 1:] != BOS_ID).unsqueeze(-1).to(x.dtype);"
        "x=torch.cat([x[:,:1],x[:,1:]+g*x[:,:-1] * not_bos],dim=1)\n"
    ) in after


def test_a_suite_on_the_line_of_its_condition() -> None:
    text = script("if x.ndim == 3: x = torch.cat([x[:, :1], x[:, 1:] + 0.1 * x[:, :-1]], dim=1)\n")
    after = check_fixed(text, fix_of(text))
    assert "if x.ndim == 3: not_bos = (input_ids[:, 1:] != BOS_ID).unsqueeze(-1).to(x.dtype); x = " in after


def test_every_place_is_in_one_diff() -> None:
    second = NETWORK[NETWORK.index("    def forward(") :].replace("forward(", "forward_ttt(")
    text = script().replace(RUN, textwrap.indent("", "")) + second.replace(
        "        SMEAR\n", textwrap.indent(PLAIN, " " * 8)
    )
    text += RUN.replace("total += model(", "total += model.forward_ttt(")
    after = check_fixed(text, fix_of(text))
    assert after.count("not_bos = (input_ids[:, 1:] != BOS_ID)") == 2
    assert after.count("g * x[:, :-1] * not_bos") == 2


def test_two_smears_share_a_mask_where_one_comes_first() -> None:
    other = re.sub(r"\bx\b", "z", PLAIN)
    text = script(f"{PLAIN}z = self.embed(input_ids)\n{other}x = self.attn(x, cu_seqlens) + z\n")
    after = check_fixed(text, fix_of(text))
    assert after.count("not_bos = (") == 1
    assert after.count("* not_bos]") == 2


def test_branches_make_their_own_masks() -> None:
    line = "x = torch.cat([x[:, :1], x[:, 1:] + 0.1 * x[:, :-1]], dim=1)\n"
    text = script(f"if x.size(1) > 8:\n    {line}else:\n    {line}")
    after = check_fixed(text, fix_of(text))
    assert after.count("not_bos = (") == 2


def test_a_free_name_is_taken() -> None:
    text = script("not_bos = 0.1\n" + PLAIN.replace("g * x", "g * not_bos * x"))
    after = check_fixed(text, fix_of(text))
    assert "g * not_bos * x[:, :-1] * not_bos_2]" in after


SHIFT = "pairs = 31 * input_ids[:, :-1] + input_ids[:, 1:]\n"
"""A shift in the class itself: networks without one are not followed."""
HELPER = """
    def smear(
        x,
        gate,
    ):
        g = torch.sigmoid(gate(x[:, 1:, :12]))
        return torch.cat([x[:, :1], x[:, 1:] + g * x[:, :-1]], dim=1)
"""
MODULE = """
    class SmearGate(nn.Module):
        def __init__(self):
            super().__init__()
            self.lam = nn.Parameter(torch.zeros(1))

        def forward(self, x):
            prev = F.pad(x[:, :-1], (0, 0, 1, 0))
            return x + self.lam * prev
"""


def test_a_helper_is_handed_the_token_ids() -> None:
    text = script(f"{SHIFT}x = smear(x, self.gate)\n", before=HELPER)
    after = check_fixed(text, fix_of(text))
    assert "def smear(\n    x,\n    gate,\n    input_ids,\n):" in after
    assert "x = smear(x, self.gate, input_ids)\n" in after
    assert "not_bos = (input_ids[:, 1:] != BOS_ID)" in after


def test_a_comment_among_parameters_is_not_repeated() -> None:
    text = script(f"{SHIFT}x = smear(x, self.gate)\n", before=HELPER.replace("x,\n", "x,  # (B, T, dim)\n"))
    after = check_fixed(text, fix_of(text))
    assert after.count("# (B, T, dim)") == 1
    assert "gate, input_ids,\n):" in after


def test_a_helper_called_by_keyword() -> None:
    text = script(f"{SHIFT}x = smear(x, gate=self.gate)\n", before=HELPER)
    after = check_fixed(text, fix_of(text))
    assert "x = smear(x, gate=self.gate, input_ids=input_ids)\n" in after


def test_a_gate_module_is_handed_the_token_ids() -> None:
    text = script("x = self.smear(x)\n", setup="self.smear = SmearGate()", before=MODULE)
    after = check_fixed(text, fix_of(text))
    assert "def forward(self, x, input_ids):\n" in after
    assert "x = self.smear(x, input_ids)\n" in after


@pytest.mark.parametrize(
    ("smear", "setup", "before"),
    [
        pytest.param("x = self.smear(x)\n", "self.smear = torch.compile(SmearGate())", MODULE, id="compiled"),
        pytest.param(
            "for smear in self.smears:\n    x = smear(x)\n",
            "self.smears = nn.ModuleList([SmearGate() for _ in range(2)])",
            MODULE,
            id="list of modules",
        ),
        pytest.param(
            f"{SHIFT}shift = smear\nx = shift(x, self.gate)\n", "pass", HELPER, id="helper under another name"
        ),
        pytest.param(
            "if (x := torch.cat([x[:, :1], x[:, 1:] + 0.1 * x[:, :-1]], dim=1)) is not None:\n    pass\n",
            "pass",
            "",
            id="in the head of a compound statement",
        ),
    ],
)
def test_unsupported_shapes_have_no_fix(smear: str, setup: str, before: str) -> None:
    checked = reading(script(smear, setup=setup, before=before))
    smears = checked.trace.of(Kind.SMEAR)
    assert suggest_mask(checked, smears) is None


@pytest.mark.parametrize(
    ("constant", "token"),
    [
        ("BOS_ID = 1", "BOS_ID"),
        ("BOS_ID = None", "1"),
        ("BOS_ID = None\n\n\ndef find():\n    global BOS_ID\n    BOS_ID = 7", "7"),
        ("EOT, BOS_TOKEN_ID = 0, 50256\nBOS_ID: None = None", "BOS_TOKEN_ID"),
    ],
)
def test_how_the_document_start_is_written(constant: str, token: str) -> None:
    text = script().replace("BOS_ID = 1", constant)
    after = check_fixed(text, fix_of(text))
    remark = "  # BOS" if token.isdigit() else ""
    assert f"not_bos = (input_ids[:, 1:] != {token}).unsqueeze(-1).to(x.dtype){remark}\n" in after


def test_text_around_is_kept() -> None:
    text = script().replace("x = self.embed(input_ids)\n", "x = self.embed( input_ids )  # Größe: ü\n")
    text = text.replace("        g = torch", "        'Ä'; g = torch").removesuffix("\n")
    fix = fix_of(text)
    after = check_fixed(text, fix)
    assert fix is not None
    assert len(changed(fix.diff)) == 3
    assert (
        after.replace(" * not_bos", "").replace(
            "        not_bos = (input_ids[:, 1:] != BOS_ID).unsqueeze(-1).to(x.dtype)\n", ""
        )
        == text
    )


def test_a_last_line_without_a_line_end() -> None:
    before, after = "a = 1\nb = 2", "a = 1\nm = 0\nb = 2 * m"
    diff = smeargate_fix._diff("train_gpt.py", before, after)
    assert diff.count("\n\\ No newline at end of file\n") == 2
    assert patched(before, diff) == after


def test_windows_line_ends_and_bom() -> None:
    text = script()
    data = b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()
    fix = fix_of(data)
    assert fix is not None
    after = patched(data.decode(), fix.diff)
    assert after.startswith("\ufeff")
    assert after.count("\r\n") == after.count("\n") == text.count("\n") + 1


def test_a_module_of_the_folder() -> None:
    head, network = script().split("\n\nclass SmearGPT")
    model = head + "\n\nclass SmearGPT" + network.removesuffix(RUN)
    main = "from model import BOS_ID, SmearGPT, F, glob, np, torch\n" + RUN
    fix = fix_of(main, model=model)
    assert fix is not None
    assert fix.file == f"{FOLDER}/model.py"
    assert "g * x[:, :-1] * not_bos]" in patched(model, fix.diff)


def test_packed_code_has_no_fix() -> None:
    packed = base64.b85encode(lzma.compress(script().encode())).decode()
    text = f"import base64, lzma\nexec(lzma.decompress(base64.b85decode({packed!r})))\n"
    assert fix_of(text) is None


def test_large_programs_have_no_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smeargate_fix, "MAX_SIZE", 100)
    assert fix_of(script()) is None


def test_a_change_that_does_not_help_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smeargate_fix._Change, "apply", lambda change: change.program.text + "\n")
    assert fix_of(script()) is None


def test_an_edit_that_finds_no_place_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smeargate_fix._Change, "_place", lambda change, node: (1, 0, 1, 0))
    assert fix_of(script()) is None


def test_failures_never_reach_the_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> str:
        raise ZeroDivisionError

    monkeypatch.setattr(smeargate_fix._Change, "apply", fail)
    assert fix_of(script()) is None
