"""What adapted code calls in place of what needs a GPU. The codemod writes it as ``_on_cpu``.

A device that is one CPU: streams run at once, events read the clock, memory queries say nothing is used. What is not
here raises :class:`NoStandInError`, so that the report can name it.
"""

from __future__ import annotations

import contextlib
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from auditor.probe.driver.used import NoStandInError, note

bfloat16: Any = torch.float32
"""The dtype that stands for bfloat16: float32, in which a difference is not lost in rounding."""
autocasts = False
"""Whether autocast does anything; off, everything is computed in the dtype it comes in."""


_INFERENCE_MODE: Any = torch.inference_mode


def _no_grad(mode: Any = True) -> Any:
    """``torch.inference_mode`` where everything is float32.

    Scripts keep tables (rotary angles) that they first make in inference mode, and train with a cast copy of them. In
    float32 that cast makes no copy, and training with what inference mode made is refused.
    """
    note("torch.inference_mode → torch.no_grad")
    if callable(mode):
        return torch.no_grad()(mode)
    return torch.no_grad() if mode else torch.enable_grad()


def precise(*, on: bool) -> None:
    """Compute in float32 throughout (``on``), or as the script says."""
    global bfloat16, autocasts
    bfloat16 = torch.float32 if on else torch.bfloat16
    autocasts = not on
    anything: Any = torch
    anything.inference_mode = _no_grad if on else _INFERENCE_MODE


def __getattr__(name: str) -> Any:
    """``kernel_bfloat16``, the same for Triton's kernels."""
    if name != "kernel_bfloat16":
        raise AttributeError(name)
    import triton.language as tl

    return tl.bfloat16 if autocasts else tl.float32


def host(value: Any, *args: Any, **options: Any) -> Any:
    """``value.cpu()`` or ``value.to("cpu", ...)`` of something on a GPU: never the same memory."""
    if not isinstance(value, torch.Tensor):
        return value.to(*args, **options) if args or options else value.cpu()
    moved = value.to(*args, **options) if args or options else value
    return moved.clone() if moved is value else moved


def pinned(value: Any, *args: Any, **options: Any) -> Any:
    """``value.pin_memory()``: there is nothing to pin for."""
    return value


def compile(function: Any = None, **options: Any) -> Any:
    """``torch.compile``: the function as it is, called directly or as a decorator with options."""
    return (lambda f: f) if function is None else function


class autocast(contextlib.ContextDecorator):
    """``torch.autocast``, as a context and as a decorator."""

    def __init__(self, device_type: str = "cpu", dtype: Any = None, enabled: bool = True, **options: Any) -> None:
        self.dtype = dtype if dtype in (torch.bfloat16, torch.float16) else torch.bfloat16
        self.enabled = enabled and autocasts
        self.inner: list[Any] = []

    def __enter__(self) -> autocast:
        inner = torch.autocast("cpu", dtype=self.dtype, enabled=self.enabled) if autocasts else contextlib.nullcontext()
        inner.__enter__()
        self.inner.append(inner)
        return self

    def __exit__(self, *error: Any) -> None:
        self.inner.pop().__exit__(*error)


class GradScaler:
    """``GradScaler``: no scaling."""

    def __init__(self, *args: Any, **options: Any) -> None:
        pass

    def scale(self, loss: Any) -> Any:
        return loss

    def unscale_(self, optimizer: Any) -> None:
        pass

    def step(self, optimizer: Any, *args: Any, **options: Any) -> Any:
        return optimizer.step(*args, **options)

    def update(self, new_scale: Any = None) -> None:
        pass

    def get_scale(self) -> float:
        return 1.0

    def is_enabled(self) -> bool:
        return False

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class _Settings:
    """A configuration object that takes anything and does nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        made = _Settings()
        object.__setattr__(self, name, made)
        return made

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self

    def __getitem__(self, key: Any) -> Any:
        return self

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: Any) -> None:
        pass

    def __bool__(self) -> bool:
        return False


settings = _Settings()


class Stream:
    """A stream: what is put on it has already happened."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.cuda_stream = 0
        self.device = torch.device("cpu")

    def wait_stream(self, stream: Any) -> None:
        pass

    def wait_event(self, event: Any) -> None:
        pass

    def record_event(self, event: Any = None) -> Any:
        event = Event() if event is None else event
        event.record()
        return event

    def synchronize(self) -> None:
        pass

    def query(self) -> bool:
        return True

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *error: Any) -> None:
        pass


class Event:
    """An event: the clock when it was recorded."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.at = 0.0

    def record(self, stream: Any = None) -> None:
        self.at = time.perf_counter()

    def wait(self, stream: Any = None) -> None:
        pass

    def synchronize(self) -> None:
        pass

    def query(self) -> bool:
        return True

    def elapsed_time(self, end: Event) -> float:
        """Milliseconds until ``end``."""
        return 1000 * (end.at - self.at)


@contextlib.contextmanager
def _context(*args: Any, **options: Any) -> Iterator[Any]:
    yield args[0] if args else None


def _new_context() -> Callable[..., Any]:
    """A context of its own: torch._dynamo has a rule for each of torch's functions and takes none for two of them."""
    return contextlib.contextmanager(_context.__wrapped__)  # type: ignore[attr-defined]


def _nothing(*args: Any, **options: Any) -> None:
    return None


def _constantly(value: Any) -> Callable[..., Any]:
    return lambda *args, **options: value


_PROPERTIES = types.SimpleNamespace(
    name="NVIDIA H100 80GB HBM3",
    major=9,
    minor=0,
    total_memory=80 << 30,
    multi_processor_count=132,
    max_threads_per_multi_processor=2048,
    shared_memory_per_block=49152,
    shared_memory_per_block_optin=232448,
    shared_memory_per_multiprocessor=233472,
    regs_per_multiprocessor=65536,
    warp_size=32,
    L2_cache_size=50 << 20,
    uuid="00000000-0000-0000-0000-000000000000",
    gcnArchName="",
)

_KNOWN: dict[str, Any] = {
    **dict.fromkeys(
        (
            "synchronize", "empty_cache", "set_device", "reset_peak_memory_stats", "reset_max_memory_allocated",
            "reset_accumulated_memory_stats", "set_per_process_memory_fraction", "ipc_collect", "init", "set_stream",
            "manual_seed", "manual_seed_all", "seed", "seed_all", "set_sync_debug_mode", "_lazy_init",
        ),
        _nothing,
    ),
    **dict.fromkeys(
        (
            "memory_allocated", "max_memory_allocated", "memory_reserved", "max_memory_reserved", "current_device",
            "initial_seed", "utilization", "temperature", "power_draw",
        ),
        _constantly(0),
    ),
    "is_available": _constantly(True),
    "is_initialized": _constantly(True),
    "is_bf16_supported": _constantly(True),
    "device_count": _constantly(1),
    "get_device_name": _constantly(_PROPERTIES.name),
    "get_device_properties": _constantly(_PROPERTIES),
    "get_device_capability": _constantly((9, 0)),
    "get_arch_list": _constantly(["sm_90"]),
    "mem_get_info": _constantly((80 << 30, 80 << 30)),
    "memory_summary": _constantly(""),
    "memory_stats": _constantly({}),
    "get_rng_state": lambda *args, **options: torch.get_rng_state(),
    "set_rng_state": lambda state, *args, **options: torch.set_rng_state(state),
    "get_rng_state_all": lambda: [torch.get_rng_state()],
    "set_rng_state_all": lambda states: torch.set_rng_state(states[0]),
    "current_stream": lambda *args, **options: Stream(),
    "default_stream": lambda *args, **options: Stream(),
    "Stream": Stream,
    "Event": Event,
    "stream": _context,
    "device": _context,
    "amp": types.SimpleNamespace(autocast=lambda *a, **o: autocast("cpu", *a, **o), GradScaler=GradScaler),
    "nvtx": types.SimpleNamespace(range_push=_nothing, range_pop=_nothing, mark=_nothing, range=_context),
    "profiler": types.SimpleNamespace(start=_nothing, stop=_nothing, profile=_context),
    "OutOfMemoryError": torch.OutOfMemoryError,
    "FloatTensor": torch.FloatTensor,
    "LongTensor": torch.LongTensor,
}  # fmt: skip


class _Cuda:
    """``torch.cuda``."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name not in _KNOWN:
            raise NoStandInError(f"torch.cuda.{name}")
        return _KNOWN[name]


cuda = _Cuda()


class DataParallel(nn.Module):
    """``DistributedDataParallel`` of one process."""

    def __init__(self, module: nn.Module, *args: Any, **options: Any) -> None:
        super().__init__()
        self.module = module
        self.require_backward_grad_sync = True

    def forward(self, *args: Any, **options: Any) -> Any:
        return self.module(*args, **options)

    def no_sync(self) -> Any:
        return contextlib.nullcontext()

    def register_comm_hook(self, state: Any, hook: Any) -> None:
        pass


def install() -> None:
    """Put stand-ins where scripts import them by name from torch itself."""
    # Reads torch's functions when it is first imported, and has to find the real ones.
    import torch._dynamo
    import torch.nn.attention
    import torch.nn.parallel

    from auditor.probe.driver import group, kernels

    group.install()
    kernels.install()
    parallel: Any = torch.nn.parallel
    parallel.DistributedDataParallel = parallel.distributed.DistributedDataParallel = DataParallel
    attention: Any = torch.nn.attention
    attention.sdpa_kernel = _new_context()
    backends: Any = torch.backends.cuda
    backends.sdp_kernel = _new_context()
    for kind in ("flash", "mem_efficient", "math", "cudnn"):
        # A script that leaves only its GPU's kernels on would leave none here.
        setattr(backends, f"enable_{kind}_sdp", _constantly(None))
    amp: Any = torch.cuda.amp
    amp.autocast, amp.GradScaler = _KNOWN["amp"].autocast, GradScaler
    cpu_amp: Any = torch.amp
    cpu_amp.GradScaler = GradScaler
    tensor: Any = torch.Tensor
    tensor.record_stream = _constantly(None)
    tensor.cuda = lambda self, *args, **options: self
    tensor.pin_memory = pinned
    module: Any = nn.Module
    module.cuda = lambda self, *args, **options: self
    anything: Any = torch.cuda
    for name, value in _KNOWN.items():
        # What is reached past the codemod (``from torch.cuda import synchronize``, getattr); torch itself asks
        # is_available and the like, and must go on hearing the truth.
        if value is _nothing or name in ("Stream", "Event", "stream", "current_stream", "get_device_properties"):
            setattr(anything, name, _constantly(None) if value is _nothing else value)
