"""The codemod, the stand-ins and the driver: a submission for a GPU runs on a CPU, and what stops it is told."""

from __future__ import annotations

import ast
import importlib.util
import textwrap
from pathlib import Path

import pytest

from auditor.probe.adapt import AdaptError, adapt
from auditor.probe.driver.entry import split
from auditor.probe.harness import Harness, JobResult
from auditor.reading import Reading
from auditor.sandbox import SandboxError, require
from auditor.sources.local import LocalSource

try:
    require()
    MISSING = "" if importlib.util.find_spec("torch") else "torch is missing"
except SandboxError as why:
    MISSING = str(why)
needs_sandbox = pytest.mark.skipif(bool(MISSING), reason=MISSING)


def adapted(code: str, **constants: str) -> list[str]:
    names = {name.replace("__", "."): value for name, value in constants.items()}
    return adapt(textwrap.dedent(code).strip("\n"), constants=names).text.split("\n")


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ('d = torch.device("cuda", rank)', 'd = torch.device("cpu")'),
        ('x = torch.zeros(3, device=f"cuda:{rank}")', 'x = torch.zeros(3, device="cpu")'),
        ("y = x.cuda(non_blocking=True)", 'y = x.to("cpu")'),
        ("best = {n: p.detach().cpu() for n, p in s}", "best = {n: _on_cpu.host(p.detach()) for n, p in s}"),
        ('p = p.to("cpu", torch.float32)', 'p = _on_cpu.host(p, "cpu", torch.float32)'),
        ('p = p.to("cuda", torch.float32)', 'p = p.to("cpu", torch.float32)'),
        ("torch.cuda.synchronize()", "_on_cpu.cuda.synchronize()"),
        ("m = torch.compile(m, dynamic=False)", "m = _on_cpu.compile(m, dynamic=False)"),
        ("torch._dynamo.config.cache_size_limit = 8", "_on_cpu.settings.cache_size_limit = 8"),
        ("x = x.bfloat16().to(torch.bfloat16)", "x = x.to(_on_cpu.bfloat16).to(_on_cpu.bfloat16)"),
        ("x = torch.empty(3, pin_memory=True).pin_memory()", "x = _on_cpu.pinned(torch.empty(3, pin_memory=False))"),
        ("import torch.cuda", "import torch.cuda"),
        ('print("no cuda here")', 'print("no cuda here")'),
    ],
)
def test_what_needs_a_gpu_is_replaced(code: str, expected: str) -> None:
    assert adapted(code) == [expected]


def test_substitutions_are_listed_and_lines_stay() -> None:
    code = textwrap.dedent(
        """
        import torch

        @torch.compile(
            dynamic=False,
        )
        def f(x):
            return x.cuda()
        """
    )
    result = adapt(code, file="a.py")
    assert result.text.count("\n") == code.count("\n")
    assert [(s.what, s.file, s.line) for s in result.substitutions] == [
        ("stand-in for torch.compile", "a.py", 4),
        (".cuda() → .to('cpu')", "a.py", 8),
    ]


def test_constants_are_replaced_in_their_scope() -> None:
    code = """
    WIDTH = (
        512
    )
    class H:
        layers: int = 9
    def f(layers=3, stride=64):
        WIDTH = 7
    """
    result = adapt(textwrap.dedent(code), constants={"WIDTH": "32", "H.layers": "2", "f.stride": "8", "g.x": "1"})
    scope: dict[str, object] = {}
    exec(result.text, scope)  # noqa: S102 - our own text
    assert scope["WIDTH"] == 32
    assert scope["H"].layers == 2  # type: ignore[attr-defined]
    assert scope["f"].__defaults__ == (3, 8)  # type: ignore[attr-defined]
    assert result.text.count("\n") == textwrap.dedent(code).count("\n")
    assert result.unused == ("g.x",)
    with pytest.raises(AdaptError):
        adapt("x = 1", constants={"x": "1; import os"})


def names(module: ast.Module) -> list[str]:
    return [ast.unparse(s).split("\n")[0] for s in module.body]


def test_the_main_flow_is_left_out() -> None:
    head, rest = split(ast.parse("A = 1\ndef main(): ...\nif __name__ == '__main__':\n    main()\ndef g(): ..."))
    assert names(head) == ["A = 1", "def main():", "def g():"]
    assert names(rest) == ["main()"]
    head, rest = split(ast.parse("def build(): ...\nmodel = Net()\nfor i in range(3):\n    loss.backward()\nprint(1)"))
    assert names(head) == ["def build():", "model = Net()"]
    assert names(rest) == ["for i in range(3):", "print(1)"]
    head, rest = split(ast.parse("def train(): ...\nx = 1\ntrain()\nclass C: ...\ny = 2"))
    assert names(head) == ["def train():", "x = 1", "class C:"]
    assert names(rest) == ["train()", "y = 2"]


def run(folder: Path, code: str, job: str = "basic:main", protected: bool = True, **files: str) -> JobResult:
    """Run our own little submission."""
    for name, text in {"train_gpt.py": code, **{f"{k}.py": v for k, v in files.items()}}.items():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(textwrap.dedent(text), encoding="utf-8")
    submission = LocalSource(folder, str(folder)).load()
    reading = Reading(submission, submission.folders[0])
    with Harness(reading, environment={"LEVEL": "3"}, protected=protected) as harness:
        return harness.run(job, wall=60)


GPU_SCRIPT = """
import os
import torch
import torch.nn.functional as F
from torch import nn
import torch.distributed as dist
from flash_attn_interface import flash_attn_func, flash_attn_varlen_func
from helpers import twice

@torch.compile(dynamic=False, fullgraph=True)
def step(x):
    return twice(x)

def main():
    dist.init_process_group(backend="nccl", device_id=torch.device("cuda", 0))
    device = torch.device("cuda", 0)
    torch.cuda.set_device(device)
    assert torch.cuda.is_available() and torch.cuda.get_device_properties(device).major == 9
    q = torch.randn(1, 6, 4, 8, device=device, dtype=torch.bfloat16)
    k = torch.randn(1, 6, 2, 8, device="cuda", dtype=torch.bfloat16)
    with torch.autocast(device_type="cuda", dtype=torch.bfloat16):
        y = flash_attn_func(q, k, k, causal=True)
        z = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), k.transpose(1, 2), is_causal=True, enable_gqa=True
        ).transpose(1, 2)
    assert torch.allclose(y, z, atol=1e-5), (y - z).abs().max()
    cut = torch.tensor([0, 2, 6], dtype=torch.int32, device=device)
    w = flash_attn_varlen_func(q[0], k[0], k[0], cut, cut, 4, 4, causal=True, window_size=(2, 0))
    assert torch.allclose(w[:2], y[0, :2], atol=1e-5) and not torch.allclose(w[2:], y[0, 2:])
    total = step(y.sum())
    dist.all_reduce(total, op=dist.ReduceOp.SUM)
    kept = total.cpu()
    total += 1
    assert kept != total
    torch.cuda.synchronize()
    print("level", os.environ["LEVEL"], dist.get_world_size())
    dist.destroy_process_group()

if __name__ == "__main__":
    main()
"""


@needs_sandbox
def test_a_script_for_a_gpu_runs(tmp_path: Path) -> None:
    result = run(tmp_path, GPU_SCRIPT, helpers="def twice(x):\n    return 2 * x.cuda()\n")
    assert result.stop is None, result.printed
    assert "level 3 1" in result.printed
    told = {(s.what, s.file, s.line) for s in result.substitutions}
    lines = GPU_SCRIPT.split("\n")
    at = next(i for i, line in enumerate(lines, 1) if "y = flash" in line)
    assert ("stand-in for FlashAttention", "train_gpt.py", at) in told
    assert (".cuda() → .to('cpu')", "helpers.py", 2) in told
    assert any(what == "process group of one" for what, _, _ in told)


KERNEL_SCRIPT = """
import torch
import triton
import triton.language as tl

@triton.autotune(configs=[triton.Config({"BLOCK": 64}), triton.Config({"BLOCK": 4})], key=["n"])
@triton.jit
def double(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    for start in tl.range(tl.program_id(0) * BLOCK, n, BLOCK * tl.num_programs(0)):
        at = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + at, mask=at < n, other=0.0).to(tl.bfloat16)
        tl.store(y_ptr + at, (2 * x).to(tl.bfloat16), mask=at < n)

@torch.library.custom_op("ours::double", mutates_args=(), device_types="cuda")
def doubled(x: torch.Tensor) -> torch.Tensor:
    assert x.is_cuda
    y = torch.empty_like(x)
    double[lambda meta: (2,)](x, y, x.numel())
    return y

@triton.jit
def losses(logits_ptr, targets_ptr, out_ptr, n, stride, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    high = -float("inf")
    total = 0.0
    for start in range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        x = tl.load(logits_ptr + row * stride + at, mask=at < n, other=-float("inf")).to(tl.float32)
        higher = tl.maximum(high, tl.max(x, axis=0))
        total = total * tl.exp(high - higher) + tl.sum(tl.exp(x - higher), axis=0)
        high = higher
    target = tl.load(targets_ptr + row).to(tl.int32)
    tl.store(out_ptr + row, high + tl.log(total) - tl.load(logits_ptr + row * stride + target))

if __name__ == "__main__":
    logits, targets, out = torch.randn(7, 50), torch.randint(0, 50, (7,)), torch.empty(7)
    losses[(7,)](logits, targets, out, 50, logits.stride(0), BLOCK=16)
    assert torch.allclose(out, torch.nn.functional.cross_entropy(logits, targets, reduction="none"), atol=1e-5)
    x = torch.arange(10, dtype=torch.bfloat16, device="cuda") + 1 / 1024
    assert torch.equal(torch.ops.ours.double(x), 2 * x)
"""


@needs_sandbox
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is missing")
def test_a_kernel_runs_in_the_interpreter(tmp_path: Path) -> None:
    result = run(tmp_path, KERNEL_SCRIPT)
    assert result.stop is None, result.printed


@needs_sandbox
def test_programs_have_stand_ins_and_are_told(tmp_path: Path) -> None:
    code = """
    import pathlib, subprocess
    pathlib.Path("a.bin").write_bytes(b"abc")
    subprocess.run(["lrzip", "-z", "-L", "9", "-q", "-o", "b.lrz", "a.bin"], check=True)
    subprocess.run(["lrzip", "-d", "-f", "-o", "c.bin", "b.lrz"], check=True)
    assert pathlib.Path("c.bin").read_bytes() == b"abc"
    done = subprocess.run(["pyminify", "-"], input=b"x = 1", stdout=subprocess.PIPE, check=True)
    assert done.stdout == b"x = 1"
    """
    result = run(tmp_path, code)
    assert result.stop is None, result.printed
    assert any("lrzip" in s.what for s in result.substitutions)
    assert [a.what for a in result.attempts if a.seen_by == "shim"] == [
        "lrzip -z -L 9 -q -o b.lrz a.bin",
        "lrzip -d -f -o c.bin b.lrz",
        "pyminify -",
    ]


@needs_sandbox
@pytest.mark.parametrize(
    ("line", "kind", "message"),
    [
        ("import no_such_module; no_such_module.go()", "missing-module", "no stand-in for no_such_module.go"),
        ("__import__('no_such_module')", "missing-module", "No module named 'no_such_module'"),
        ("torch.zeros(3).view(2, 2)", "shape", "shape '[2, 2]' is invalid for input of size 3"),
        ("torch.cuda.CUDAGraph()", "missing-module", "no stand-in for torch.cuda.CUDAGraph"),
        ("raise SystemExit(3)", "exception", "the script ended itself: 3"),
        ("open('/usr/here', 'w')", "refused", "Read-only"),
    ],
)
def test_what_stops_a_script_is_told_with_its_line(tmp_path: Path, line: str, kind: str, message: str) -> None:
    result = run(tmp_path, f"import torch\n\ndef main():\n    {line}\n\nif __name__ == '__main__':\n    main()\n")
    assert result.stop is not None and result.value is None
    assert result.stop.kind == kind
    assert message in result.stop.message
    assert (result.stop.file, result.stop.line) == ("train_gpt.py", 4)


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is missing")
def test_without_a_sandbox_the_same_is_run_and_told(tmp_path: Path) -> None:
    code = "import os\nfrom helpers import here\nhere(), os.environ['LEVEL']\nopen('a', 'w')\n1 / 0\n"
    result = run(tmp_path, code, protected=False, helpers="def here():\n    return __file__\n")
    assert not result.sandboxed
    assert result.stop is not None and result.stop.exception == "ZeroDivisionError" and result.stop.line == 5
    assert not (tmp_path / "a").exists()


@needs_sandbox
def test_a_missing_module_that_is_not_used_stops_nothing(tmp_path: Path) -> None:
    result = run(tmp_path, "import no_such_module\n\ndef main():\n    print('done')\n\nmain()\n")
    assert result.stop is None and "done" in result.printed
    assert any("no_such_module is missing" in s.what for s in result.substitutions)


@needs_sandbox
def test_importing_does_not_run_the_main_flow(tmp_path: Path) -> None:
    code = "import torch\nclass Net(torch.nn.Module): ...\ndef main():\n    raise ValueError\nmain()\n"
    result = run(tmp_path, code, job="basic:imports")
    assert result.stop is None, result.printed
    assert result.value == {"classes": ["Net"], "functions": ["main"]}
