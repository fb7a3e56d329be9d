"""Triton kernels on a CPU, by Triton's own interpreter (TRITON_INTERPRET=1)."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any


class _Chosen:
    """An autotuned kernel that always runs with one configuration: there is nothing to measure."""

    def __init__(self, kernel: Any, config: Any) -> None:
        self.kernel = kernel
        self.config = config
        self.__name__ = getattr(kernel, "__name__", "kernel")

    def __getitem__(self, grid: Any) -> Callable[..., Any]:
        launch = self.kernel[grid]
        return lambda *args, **options: launch(*args, **{**self.config.all_kwargs(), **options})

    def run(self, *args: Any, **options: Any) -> Any:
        return self.kernel.run(*args, **{**self.config.all_kwargs(), **options})


def _autotune(configs: Any, *args: Any, **options: Any) -> Callable[[Any], Any]:
    """``triton.autotune``: the configuration with the smallest blocks."""

    def size(config: Any) -> int:
        total = 1
        for value in config.kwargs.values():
            total *= value if isinstance(value, int) and value > 0 else 1
        return total

    return lambda kernel: _Chosen(kernel, min(configs, key=size)) if configs else kernel


def _once(patch: Callable[..., None]) -> Callable[..., None]:
    """Patches each part of the language once: the interpreter does it again at every call, for most of its time."""
    done: list[Any] = []

    def patch_builtin(part: Any, builder: Any) -> None:
        if not any(part is other for other in done):
            done.append(part)
            patch(part, builder)

    return patch_builtin


def install() -> None:
    """Make the interpreter fit for what submissions do; nothing where Triton is missing."""
    if importlib.util.find_spec("triton") is None:
        return
    import triton
    from triton.runtime import interpreter

    patch = interpreter._patch_lang_tensor

    def patch_tensor(tensor: Any) -> None:
        patch(tensor)
        # Its scalars are arrays of one element, which newer NumPy does not turn into numbers.
        tensor.__index__ = lambda self: int(self.handle.data.item())
        tensor.__bool__ = lambda self: bool(self.handle.data.item()) if self.handle.data.size == 1 else True

    interpreter._patch_lang_tensor = patch_tensor
    interpreter._patch_builtin = _once(interpreter._patch_builtin)
    triton.autotune = _autotune
