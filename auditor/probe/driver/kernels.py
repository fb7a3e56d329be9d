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

    def patch_builtin(part: Any, *others: Any) -> None:
        if not any(part is other for other in done):
            done.append(part)
            patch(part, *others)

    return patch_builtin


def install() -> None:
    """Make the interpreter fit for what submissions do; nothing where Triton is missing."""
    if importlib.util.find_spec("triton") is None:
        return
    import triton
    from triton.runtime import interpreter

    patch = interpreter._patch_lang_tensor

    def patch_tensor(tensor: Any, *scope: Any) -> None:
        patch(tensor, *scope)
        # Its scalars are arrays of one element, which newer NumPy does not turn into numbers.
        tensor.__index__ = lambda self: int(self.handle.data.item())
        tensor.__bool__ = lambda self: bool(self.handle.data.item()) if self.handle.data.size == 1 else True

    interpreter._patch_lang_tensor = patch_tensor
    interpreter._patch_builtin = _once(interpreter._patch_builtin)
    if hasattr(interpreter, "_LangPatchScope"):  # newer versions take their patches back after each call
        interpreter._LangPatchScope.restore = lambda self: None
    triton.autotune = _autotune
    _hasten(interpreter.tl.core, interpreter)


def _hasten(core: Any, interpreter: Any) -> None:
    """Most of the interpreter's time goes into describing types anew; the same few come again and again."""
    shapes: dict[Any, tuple[Any, int, str]] = {}
    dtypes: dict[str, Any] = {}
    described: dict[Any, tuple[Any, Any]] = {}

    def block_type(self: Any, element_ty: Any, shape: Any) -> None:
        key = (str(element_ty), tuple(getattr(s, "value", s) for s in shape))
        if key not in shapes:
            describe(self, element_ty, shape)
            shapes[key] = (self.shape, self.numel, self.name)
        self.element_ty = element_ty
        self.shape, self.numel, self.name = shapes[key]

    def tensor(self: Any, handle: Any, type: Any) -> None:
        shape = type.shape if type.is_block() else ()
        key = tuple(shape)
        if key not in described:
            build(self, handle, type)
            described[key] = (self.shape, self.numel)
        self.handle, self.type, self.dtype = handle, type, type.scalar
        self.shape, self.numel = described[key]

    def dtype_of(dtype: Any) -> Any:
        key = str(dtype)
        if key not in dtypes:
            dtypes[key] = look_up(dtype)
        return dtypes[key]

    describe, core.block_type.__init__ = core.block_type.__init__, block_type
    build, core.tensor.__init__ = core.tensor.__init__, tensor
    look_up, interpreter._get_np_dtype = interpreter._get_np_dtype, dtype_of
