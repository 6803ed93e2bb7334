"""Kernels by name to code that can be called: objects from the disk, or made by LLVM.

A process that finds all it needs on the disk does not load LLVM.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache

from tracegraph.runtime.cpu import object_cache
from tracegraph.runtime.cpu.code.elf import Loaded, UnlinkableError
from tracegraph.runtime.cpu.code.llvm import Code, Target, compile_object, compiler, host_target


def key(target: Target, names: Sequence[str]) -> str:
    """Return the name of the entry that holds the object of some kernels."""
    parts = (*target, compiler(), _own_code(), *names)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


@cache
def _own_code() -> str:
    """Return what changes when the code that writes kernels does."""
    found = hashlib.sha256()
    for name in (__name__, "tracegraph.ops.core", "tracegraph.special_functions"):
        folder = os.path.dirname(os.path.realpath(sys.modules[name].__file__ or ""))
        found.update("".join(sorted(_sources(folder))).encode())
    return found.hexdigest()


def _sources(folder: str, place: str = "") -> Iterator[str]:
    """Yield a line for each Python file in a folder and those below it."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _sources(entry.path, f"{place}{entry.name}/")
            elif entry.name.endswith(".py"):
                known = entry.stat()
                yield f"{place}{entry.name} {known.st_size} {known.st_mtime_ns}\n"


def linked(names: Sequence[str], texts: Callable[[], Sequence[str]]) -> tuple[Code | Loaded, bool]:
    """Return linked code that defines some names, and whether it was compiled now.

    `texts` gives the modules of LLVM IR that define them; it is called where the disk has none.
    """
    target = host_target()
    name = key(target, names)
    data = object_cache.read(name)
    if data is not None:
        with contextlib.suppress(RuntimeError):  # not what its name says: it will be replaced
            return _code(data, names), False
    data = compile_object(texts(), target)
    code = _code(data, names)
    object_cache.write(name, data)
    return code, True


def _code(data: bytes, names: Sequence[str]) -> Code | Loaded:
    try:
        return Loaded(data, names)
    except UnlinkableError:
        return Code([data], names)
