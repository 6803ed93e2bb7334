"""The driver of `driver_code`, compiled and ready to be called."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from functools import cache
from typing import Final, NamedTuple

from tracegraph.runtime.cpu.code.elf import Loaded
from tracegraph.runtime.cpu.code.llvm import Code, host_target
from tracegraph.runtime.cpu.driver.layout import ENTRIES
from tracegraph.runtime.cpu.linking import linked

Entry = Callable[..., int]
# Of two drivers that threads make at once one would be forgotten, and its code with it.
_LOCK: Final = threading.Lock()


class Driver(NamedTuple):
    """The native functions, by the C types that ctypes gives them.

    `run_holding` is `run` with the GIL kept: right for short calls, because getting it back takes
    up to 5 ms while another Python thread computes.
    """

    prepare: Entry
    run: Entry
    run_holding: Entry
    serve: Entry
    stop: Entry
    code: Code | Loaded


def make_driver(data: bytes) -> Driver:
    """Return the functions of a driver's object code."""
    return _driver(Code([data], ENTRIES))


def _driver(code: Code | Loaded) -> Driver:
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    run = ctypes.CFUNCTYPE(integer, pointer, pointer)
    run_holding = ctypes.PYFUNCTYPE(integer, pointer, pointer)
    serve = ctypes.CFUNCTYPE(None, pointer, integer, pointer)
    on_control = ctypes.CFUNCTYPE(None, pointer)
    return Driver(
        prepare=on_control(code.address("prepare")),
        run=run(code.address("run")),
        run_holding=run_holding(code.address("run")),
        serve=serve(code.address("serve")),
        stop=on_control(code.address("stop")),
        code=code,
    )


def host_driver() -> Driver:
    """Return this process's driver; compiled at the first call, or found on disk.

    Raises:
        DeviceError: llvmlite is missing or too old.
    """
    with _LOCK:
        return _host_driver()


@cache
def _host_driver() -> Driver:
    code, _ = linked(ENTRIES, _texts)
    return _driver(code)


def _texts() -> list[str]:
    from tracegraph.runtime.cpu.driver.text import driver_text

    return [driver_text(host_target().triple)]
