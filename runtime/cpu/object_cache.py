"""Object code on disk, so that a second process starts without compiling.

The directory is private, since it holds machine code that will be run: it must belong to this
user and be writable by nobody else, or it is not used. An entry is a digest and the object; one
that does not match is ignored and replaced. Entries are written to a file of their own and
renamed, so any number of processes may share the directory. The oldest are removed beyond a total
size.

TRACEGRAPH_CACHE_DIR names another directory; empty, there is no cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from pathlib import Path
from typing import Final

_DIGEST: Final = 32
_MOST_BYTES: Final = 256 << 20
_SUFFIX: Final = ".object"


def directory() -> Path | None:
    """Return the directory of the cache; None where there is none, or none that can be trusted."""
    said = os.environ.get("TRACEGRAPH_CACHE_DIR")
    if said == "":
        return None
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    found = Path(said or f"{base}/tracegraph").expanduser()
    with contextlib.suppress(OSError, RuntimeError):
        found.mkdir(parents=True, exist_ok=True, mode=0o700)
        known = found.stat()
        owned = not hasattr(os, "getuid") or known.st_uid == os.getuid()
        if owned and not known.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return found
    return None


def read(name: str) -> bytes | None:
    """Return an object, or None."""
    folder = directory()
    if folder is None:
        return None
    with contextlib.suppress(OSError):
        path = folder / (name + _SUFFIX)
        data = path.read_bytes()
        if hashlib.sha256(data[_DIGEST:]).digest() == data[:_DIGEST]:
            os.utime(path)
            return data[_DIGEST:]
    return None


def write(name: str, data: bytes) -> None:
    """Keep an object; where that fails, nothing is kept."""
    folder = directory()
    if folder is None:
        return
    import tempfile  # a process that finds all it needs does not

    with contextlib.suppress(OSError):
        handle, temporary = tempfile.mkstemp(dir=folder, prefix="new-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.sha256(data).digest() + data)
            os.replace(temporary, folder / (name + _SUFFIX))
        except BaseException:
            os.unlink(temporary)
            raise
        _shrink(folder)


def _shrink(folder: Path) -> None:
    """Remove the entries that were used longest ago, beyond the total size."""
    entries = []
    for entry in os.scandir(folder):
        if entry.name.endswith(_SUFFIX):
            known = entry.stat()
            entries.append((known.st_mtime_ns, known.st_size, entry.path))
    total = sum(size for _, size, _ in entries)
    for _, size, path in sorted(entries):
        if total <= _MOST_BYTES:
            break
        with contextlib.suppress(OSError):
            os.unlink(path)
            total -= size
