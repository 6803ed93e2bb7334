"""Kernels by name: compiled once in a process, and once on a machine.

A kernel's name says all that its code depends on but for the target and this package's own code.
Those and the names make the key of an object in the cache on disk. Missing kernels are compiled
together, since an object costs some milliseconds whatever is in it.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable
from typing import Any, Final, Protocol

from tracegraph.runtime.cpu.code.elf import Loaded
from tracegraph.runtime.cpu.code.llvm import Code
from tracegraph.runtime.cpu.linking import linked


class Kernel(Protocol):
    """A function `void name(ptr arguments, ptr frame, i64 begin, i64 end)`.

    Equal names do the same.
    """

    @property
    def name(self) -> str:
        """The name of the function."""

    def text(self) -> str:
        """Return the module of textual LLVM IR that defines it."""


def name_of(family: str, *parts: Any) -> str:
    """Return the name of a kernel whose code depends on parts that their `repr` tells."""
    digest = hashlib.sha256(repr(parts).encode()).hexdigest()[:24]
    return f"{family}_{digest}"


class _Linked:
    """The kernels of this process."""

    addresses: Final[dict[str, int]] = {}
    codes: Final[list[Code | Loaded]] = []  # keep the code alive
    lock: Final = threading.RLock()
    compiled = 0  # objects made by LLVM; others came from the disk


def addresses(kernels: Iterable[Kernel]) -> dict[str, int]:
    """Return the addresses of kernels by name; those that are new are compiled, or found on disk.

    Raises:
        UnsupportedError: a kernel has no native form.
    """
    wanted = {kernel.name: kernel for kernel in kernels}
    with _Linked.lock:
        missing = [kernel for name, kernel in wanted.items() if name not in _Linked.addresses]
        if missing:
            _link(sorted(missing, key=lambda kernel: kernel.name))
        return {name: _Linked.addresses[name] for name in wanted}


def kernel_count() -> int:
    """Return how many kernels this process has."""
    return len(_Linked.addresses)


def _link(kernels: list[Kernel]) -> None:
    names = [kernel.name for kernel in kernels]
    code, is_new = linked(names, lambda: [kernel.text() for kernel in kernels])
    _Linked.compiled += is_new
    _Linked.codes.append(code)
    _Linked.addresses.update((name, code.address(name)) for name in names)
