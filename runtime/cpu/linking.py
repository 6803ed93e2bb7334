"""Kernels by name to code that can be called: objects from the disk, or made by LLVM.

A process that finds all it needs on the disk does not load LLVM.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

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
    package = Path(__file__).resolve().parent
    operations = Path(sys.modules["tracegraph.ops.core"].__file__ or "").resolve().parent
    special = Path(sys.modules["tracegraph.special_functions"].__file__ or "").resolve().parent
    for folder in (package, operations, special):
        for path in sorted(folder.rglob("*.py")):
            known = path.stat()
            place = path.relative_to(folder)
            found.update(f"{place} {known.st_size} {known.st_mtime_ns}\n".encode())
    return found.hexdigest()


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
