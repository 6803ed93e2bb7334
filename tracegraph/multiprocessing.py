"""Python's `multiprocessing` under PyTorch's name, with `spawn`."""

from __future__ import annotations

import multiprocessing as _multiprocessing
from collections.abc import Callable
from multiprocessing import *  # noqa: F403
from typing import Any

__all__ = [
    *_multiprocessing.__all__, "get_all_sharing_strategies", "get_sharing_strategy",
    "set_sharing_strategy", "spawn", "start_processes",
]  # fmt: skip


class ProcessRaisedException(Exception):  # noqa: N818
    """A process that was spawned has failed."""


def start_processes(
    fn: Callable[..., Any], args: tuple[Any, ...] = (), nprocs: int = 1, join: bool = True,
    daemon: bool = False, start_method: str = "spawn",
) -> list[Any] | None:  # fmt: skip
    """Run `fn(i, *args)` in `nprocs` processes; with `join`, wait for them.

    Raises:
        ProcessRaisedException: one of them failed.
    """
    context: Any = _multiprocessing.get_context(start_method)
    running = []
    for i in range(nprocs):
        process = context.Process(target=fn, args=(i, *args), daemon=daemon)
        process.start()
        running.append(process)
    if not join:
        return running
    for i, process in enumerate(running):
        process.join()
        if process.exitcode:
            raise ProcessRaisedException(f"process {i} terminated with code {process.exitcode}")
    return None


def spawn(
    fn: Callable[..., Any], args: tuple[Any, ...] = (), nprocs: int = 1, join: bool = True,
    daemon: bool = False, start_method: str = "spawn",
) -> list[Any] | None:  # fmt: skip
    """Run `fn(i, *args)` in `nprocs` fresh processes; see `start_processes`."""
    return start_processes(fn, args, nprocs, join, daemon, start_method)


def get_all_sharing_strategies() -> set[str]:
    """Names that `set_sharing_strategy` takes."""
    return {"file_descriptor", "file_system"}


class _Said:
    strategy = "file_descriptor"


def set_sharing_strategy(new_strategy: str) -> None:
    """Say how memory should be shared; tensors are pickled by value whatever is said."""
    _Said.strategy = new_strategy


def get_sharing_strategy() -> str:
    """Return what `set_sharing_strategy` was told."""
    return _Said.strategy
