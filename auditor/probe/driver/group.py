"""``torch.distributed`` for a process group of one, without a backend: what is reduced or gathered is one's own.

No sockets, no threads: it survives ``os.fork``, which evaluation probes rely on.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed

from auditor.probe.driver.used import note


class Work:
    """A collective that is already done."""

    def wait(self, *args: Any) -> bool:
        return True

    def is_completed(self) -> bool:
        return True

    def get_future(self) -> Any:
        future: Any = torch.futures.Future()
        future.set_result([])
        return future


class Group:
    """The group of one."""

    def size(self) -> int:
        return 1

    def rank(self) -> int:
        return 0

    def name(self) -> str:
        return "one"


_ONE = Group()
_state = {"initialized": False}


def _init_process_group(*args: Any, **options: Any) -> None:
    note("process group of one")
    _state["initialized"] = True


def _destroy_process_group(*args: Any, **options: Any) -> None:
    _state["initialized"] = False


def _done(async_op: bool) -> Work | None:
    return Work() if async_op else None


def _in_place(*args: Any, async_op: bool = False, **options: Any) -> Work | None:
    # Positional async_op: all_reduce(tensor, op, group, async_op).
    return _done(async_op or (len(args) > 3 and args[3] is True))


def _copied(output: Any, given: Any, *args: Any, async_op: bool = False, **options: Any) -> Work | None:
    with torch.no_grad():
        output.copy_(given.reshape(output.shape))
    return _done(async_op)


def _gathered(outputs: list[Any], given: Any, *args: Any, async_op: bool = False, **options: Any) -> Work | None:
    with torch.no_grad():
        outputs[0].copy_(given)
    return _done(async_op)


def _gather(given: Any, outputs: Any = None, *args: Any, async_op: bool = False, **options: Any) -> Work | None:
    outputs = options.get("gather_list", outputs)
    if outputs:
        with torch.no_grad():
            outputs[0].copy_(given)
    return _done(async_op)


def _scatter(output: Any, parts: Any = None, *args: Any, async_op: bool = False, **options: Any) -> Work | None:
    parts = options.get("scatter_list", parts)
    if parts:
        with torch.no_grad():
            output.copy_(parts[0])
    return _done(async_op)


def _reduced(output: Any, parts: list[Any], *args: Any, async_op: bool = False, **options: Any) -> Work | None:
    return _gathered([output], parts[0], async_op=async_op)


def _all_to_all(outputs: list[Any], parts: list[Any], *args: Any, async_op: bool = False, **options: Any) -> Any:
    return _gathered(outputs, parts[0], async_op=async_op)


def _objects(outputs: list[Any], given: Any, *args: Any, **options: Any) -> None:
    outputs[0] = given


def _gather_object(given: Any, outputs: Any = None, *args: Any, **options: Any) -> None:
    outputs = options.get("object_gather_list", outputs)
    if outputs:
        outputs[0] = given


def _scatter_objects(outputs: list[Any], given: Any, *args: Any, **options: Any) -> None:
    outputs[0] = given[0]


def _constantly(value: Any) -> Any:
    return lambda *args, **options: value


_STAND_INS: dict[str, Any] = {
    "init_process_group": _init_process_group,
    "destroy_process_group": _destroy_process_group,
    "is_initialized": lambda: _state["initialized"],
    "is_available": _constantly(True),
    "is_nccl_available": _constantly(True),
    "is_torchelastic_launched": _constantly(False),
    "get_rank": _constantly(0),
    "get_world_size": _constantly(1),
    "get_group_rank": _constantly(0),
    "get_node_local_rank": _constantly(0),
    "get_backend": _constantly("nccl"),
    "new_group": _constantly(_ONE),
    "barrier": _in_place,
    "monitored_barrier": _in_place,
    "all_reduce": _in_place,
    "all_reduce_coalesced": _in_place,
    "reduce": _in_place,
    "broadcast": _in_place,
    "broadcast_object_list": _constantly(None),
    "all_gather_into_tensor": _copied,
    "_all_gather_base": _copied,
    "reduce_scatter_tensor": _copied,
    "_reduce_scatter_base": _copied,
    "all_to_all_single": _copied,
    "all_gather": _gathered,
    "gather": _gather,
    "scatter": _scatter,
    "reduce_scatter": _reduced,
    "all_to_all": _all_to_all,
    "all_gather_object": _objects,
    "gather_object": _gather_object,
    "scatter_object_list": _scatter_objects,
}


def install() -> None:
    """Replace the functions of ``torch.distributed`` and its group of all."""
    distributed: Any = torch.distributed
    for module in (distributed, getattr(distributed, "distributed_c10d", None)):
        for name, stand_in in _STAND_INS.items():
            if hasattr(module, name):
                setattr(module, name, stand_in)
    distributed.group.WORLD = _ONE
