"""`torch.distributed` for a group of one process, so that programs written for many run here.

Exchanges between one process and itself leave tensors as they are, whatever the reduction.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from enum import Enum
from types import ModuleType
from typing import Any

from tracegraph.eager.tensors import Tensor
from tracegraph.errors import OpError

__all__ = [
    "ProcessGroup", "ReduceOp", "Work", "all_gather", "all_gather_into_tensor",
    "all_gather_object", "all_reduce", "all_to_all", "all_to_all_single", "barrier", "broadcast",
    "broadcast_object_list", "destroy_process_group", "gather", "get_backend", "get_rank",
    "get_world_size", "group", "init_process_group", "is_available", "is_gloo_available",
    "is_initialized", "is_mpi_available", "is_nccl_available", "is_torchelastic_launched",
    "is_ucc_available", "monitored_barrier", "new_group", "reduce", "reduce_op", "reduce_scatter",
    "reduce_scatter_tensor", "scatter",
]  # fmt: skip


class ReduceOp(Enum):
    """How several processes' tensors become one."""

    SUM = 0
    AVG = 1
    PRODUCT = 2
    MIN = 3
    MAX = 4
    BAND = 5
    BOR = 6
    BXOR = 7


reduce_op = ReduceOp


class ProcessGroup:
    """The group of this process alone."""

    def rank(self) -> int:
        """Return 0."""
        return 0

    def size(self) -> int:
        """Return 1."""
        return 1


class Work:
    """An exchange that is over."""

    def wait(self, timeout: Any = None) -> bool:
        """Return True at once."""
        return True

    def is_completed(self) -> bool:
        """Return True."""
        return True


class group:  # noqa: N801
    """Names of groups."""

    WORLD = ProcessGroup()


class _Started:
    backend: str | None = None


def is_available() -> bool:
    """Whether the functions of this module can be called."""
    return True


def is_initialized() -> bool:
    """Whether `init_process_group` was called."""
    return _Started.backend is not None


def is_gloo_available() -> bool:
    """Whether the "gloo" backend can be asked for."""
    return True


def is_nccl_available() -> bool:
    """Whether processes can exchange through NCCL: no."""
    return False


is_mpi_available = is_ucc_available = is_torchelastic_launched = is_nccl_available


def init_process_group(
    backend: str | None = None, init_method: str | None = None, timeout: Any = None,
    world_size: int = -1, rank: int = -1, store: Any = None, group_name: str = "",
    pg_options: Any = None, device_id: Any = None,
) -> None:  # fmt: skip
    """Start the group of one process.

    Raises:
        OpError: more processes are asked for, by argument or in the variable WORLD_SIZE.
        ValueError: it was started before.
    """
    size = world_size if world_size > 0 else int(os.environ.get("WORLD_SIZE", "1"))
    if size != 1:
        raise OpError(f"a process group has one process here, but {size} were asked for")
    if is_initialized():
        raise ValueError("trying to initialize the default process group twice!")
    _Started.backend = backend or "gloo"


def destroy_process_group(group: Any = None) -> None:
    """End the group."""
    _Started.backend = None


def _check() -> None:
    if not is_initialized():
        raise ValueError(
            "Default process group has not been initialized, please make sure to call "
            "init_process_group."
        )


def new_group(ranks: Any = None, *args: Any, **kwargs: Any) -> ProcessGroup:
    """Return the group of this process."""
    _check()
    return group.WORLD


def get_rank(group: Any = None) -> int:
    """Return 0.

    Raises:
        ValueError: the group was not started.
    """
    _check()
    return 0


def get_world_size(group: Any = None) -> int:
    """Return 1.

    Raises:
        ValueError: the group was not started.
    """
    _check()
    return 1


def get_backend(group: Any = None) -> str:
    """Return the backend that was asked for.

    Raises:
        ValueError: the group was not started.
    """
    _check()
    return str(_Started.backend)


def _kept(doc: str) -> Callable[..., Work | None]:
    def exchange(*args: Any, async_op: bool = False, **kwargs: Any) -> Work | None:
        _check()
        return Work() if async_op else None

    exchange.__doc__ = doc
    return exchange


barrier = _kept("Return at once: nobody else is to be waited for.")
monitored_barrier = _kept("Return at once: nobody else is to be waited for.")
all_reduce = _kept("Leave the tensor as it is: it is the reduction over one process.")
reduce = _kept("Leave the tensor as it is: it is the reduction over one process.")
broadcast = _kept("Leave the tensor as it is: it came from this process.")
broadcast_object_list = _kept("Leave the list as it is: it came from this process.")


def _passed(
    target: Any, source: Any, async_op: bool, put: Callable[[Any, Any], Any]
) -> Work | None:
    _check()
    put(target, source)
    return Work() if async_op else None


def _fill(target: Any, source: Any) -> None:
    target.copy_(source.reshape(target.shape))


def _fill_first(target: Any, source: Any) -> None:
    if target is not None:
        target[0].copy_(source)


def all_gather(
    tensor_list: list[Tensor], tensor: Tensor, group: Any = None, async_op: bool = False
) -> Work | None:
    """Copy the tensor into the one place of the list."""
    return _passed(tensor_list, tensor, async_op, _fill_first)


def gather(
    tensor: Tensor, gather_list: list[Tensor] | None = None, dst: int | None = None,
    group: Any = None, async_op: bool = False, group_dst: int | None = None,
) -> Work | None:  # fmt: skip
    """Copy the tensor into the one place of the list."""
    return _passed(gather_list, tensor, async_op, _fill_first)


def scatter(
    tensor: Tensor, scatter_list: list[Tensor] | None = None, src: int | None = None,
    group: Any = None, async_op: bool = False, group_src: int | None = None,
) -> Work | None:  # fmt: skip
    """Copy the one tensor of the list."""
    return _passed(tensor, (scatter_list or [tensor])[0], async_op, _fill)


def reduce_scatter(
    output: Tensor, input_list: list[Tensor], op: Any = ReduceOp.SUM, group: Any = None,
    async_op: bool = False,
) -> Work | None:  # fmt: skip
    """Copy the one tensor of the list."""
    return _passed(output, input_list[0], async_op, _fill)


def all_gather_into_tensor(
    output_tensor: Tensor, input_tensor: Tensor, group: Any = None, async_op: bool = False
) -> Work | None:
    """Copy the input."""
    return _passed(output_tensor, input_tensor, async_op, _fill)


def reduce_scatter_tensor(
    output: Tensor, input: Tensor, op: Any = ReduceOp.SUM, group: Any = None,
    async_op: bool = False,
) -> Work | None:  # fmt: skip
    """Copy the input."""
    return _passed(output, input, async_op, _fill)


def all_to_all_single(
    output: Tensor, input: Tensor, output_split_sizes: Any = None, input_split_sizes: Any = None,
    group: Any = None, async_op: bool = False,
) -> Work | None:  # fmt: skip
    """Copy the input."""
    return _passed(output, input, async_op, _fill)


def all_to_all(
    output_tensor_list: list[Tensor], input_tensor_list: list[Tensor], group: Any = None,
    async_op: bool = False,
) -> Work | None:  # fmt: skip
    """Copy the one tensor of the list."""
    return _passed(output_tensor_list, input_tensor_list[0], async_op, _fill_first)


def all_gather_object(object_list: list[Any], obj: Any, group: Any = None) -> None:
    """Put the object into the one place of the list."""
    _check()
    object_list[0] = obj


# PyTorch's exchanges through which gradients pass return their results.


def _same(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Return the tensor: nobody else has a part in it."""
    return tensor


def _gathered(tensor: Tensor, group: Any = None) -> tuple[Tensor, ...]:
    """Return the tensors of all processes: this one's."""
    return (tensor,)


nn = ModuleType(f"{__name__}.nn")
vars(nn).update(all_reduce=_same, broadcast=_same, reduce=_same, all_gather=_gathered)
vars(nn)["functional"] = sys.modules[nn.__name__] = sys.modules[f"{nn.__name__}.functional"] = nn
