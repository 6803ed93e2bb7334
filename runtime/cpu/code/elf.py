"""Objects made runnable without LLVM, whose library takes 50 MB of memory and 25 ms to load.

A small linker for what the objects of our kernels are, for x86-64 on Linux: code and constants
without absolute addresses, which refer to each other by 32-bit distances, and call functions of
the C library. So nothing depends on where the piece will lie. It is put together, then mapped to
be read and executed: no memory is ever writable and executable at once.

What an object is beyond that raises `UnlinkableError`, and LLVM links it. Formats: Tool Interface
Standard, Executable and Linking Format 1.2; System V ABI, AMD64 supplement, 4.4 (relocation).
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import struct
import sys
from collections.abc import Iterable
from functools import cache
from typing import Any, Final, NamedTuple

import numpy as np

_HEADER: Final = struct.Struct("<4sBB10xHHIQQQIHHHHHH")
_SECTION: Final = struct.Struct("<IIQQQQIIQQ")
_SYMBOL: Final = struct.Struct("<IBBHQQ")
_RELOCATION: Final = struct.Struct("<QQq")
_DISTANCE: Final = struct.Struct("<i")
_RELOCATABLE, _X86_64 = 1, 62
_CONTENT, _SYMBOLS, _RELOCATIONS = 1, 2, 4
_WRITE, _ALLOCATE, _THREAD_LOCAL = 0x1, 0x2, 0x400
_UNDEFINED = 0
_PC32, _PLT32 = 2, 4
_PAGE = 4096
# A function of the C library may lie anywhere: jmp *0(%rip), and behind it the address.
_JUMP: Final = struct.Struct("<6sQ")
_JUMP_CODE: Final = b"\xff\x25\x00\x00\x00\x00"


class UnlinkableError(Exception):
    """An object, or this machine, is not what this linker knows."""


class Loaded:
    """Code in memory. Its addresses are valid as long as it lives."""

    def __init__(self, data: bytes, exports: Iterable[str]) -> None:
        """Link an object with the C library.

        Raises:
            UnlinkableError: this linker cannot.
        """
        if sys.platform != "linux" or platform.machine() != "x86_64":
            raise UnlinkableError("this is not Linux on x86-64")
        try:
            image, places = _linked(data)
            self._addresses = {name: places[name] for name in exports}
            self._memory = _mapped(image)
        except (struct.error, LookupError, ValueError, OSError) as error:
            raise UnlinkableError(f"{type(error).__name__}: {error}") from error
        base = int(np.frombuffer(self._memory, np.uint8).ctypes.data)
        self._addresses = {name: base + place for name, place in self._addresses.items()}

    def address(self, name: str) -> int:
        """Return the address of an exported function."""
        return self._addresses[name]


def _mapped(image: bytes) -> mmap.mmap:
    """Return memory with such content that can be executed, but not written."""
    file = os.memfd_create("tracegraph", os.MFD_CLOEXEC)
    try:
        if os.write(file, image) != len(image):
            raise UnlinkableError("the code was not written whole")
        access = mmap.PROT_READ | mmap.PROT_EXEC
        return mmap.mmap(file, len(image), flags=mmap.MAP_PRIVATE, prot=access)
    finally:
        os.close(file)


class _Section(NamedTuple):
    name: int
    type: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    align: int
    entry_size: int


def _linked(data: bytes) -> tuple[bytes, dict[str, int]]:
    """Return what is to be mapped, and where in it named symbols lie."""
    sections = _sections(data)
    image, starts = _laid_out(data, sections)
    symbols = _symbols(data, sections)
    jumps: dict[str, int] = {}
    for section in sections:
        if section.type != _RELOCATIONS or section.info not in starts:
            continue
        for place, info, more in _RELOCATION.iter_unpack(_content(data, section)):
            (name, home, value), kind = symbols[info >> 32], info & 0xFFFFFFFF
            if home == _UNDEFINED and kind == _PLT32:
                target = jumps.get(name) or jumps.setdefault(name, _add_jump(image, name))
            elif kind in (_PC32, _PLT32):
                target = starts[home] + value
            else:
                raise UnlinkableError(f"a relocation of kind {kind}")
            if place + _DISTANCE.size > sections[section.info].size:
                raise UnlinkableError("a relocation outside of its section")
            at = starts[section.info] + place
            _DISTANCE.pack_into(image, at, target + more - at)
    found = {name: starts[home] + value for name, home, value in symbols if home in starts}
    return bytes(image), found


def _sections(data: bytes) -> list[_Section]:
    magic, bits, order, kind, machine, *rest = _HEADER.unpack_from(data)
    if (magic, bits, order, kind, machine) != (b"\x7fELF", 2, 1, _RELOCATABLE, _X86_64):
        raise UnlinkableError("this is no relocatable object for x86-64")
    start, size, count = rest[3], rest[8], rest[9]
    if size != _SECTION.size:
        raise UnlinkableError("headers of another size")
    return [_Section(*_SECTION.unpack_from(data, start + size * i)) for i in range(count)]


def _content(data: bytes, section: _Section) -> bytes:
    if section.offset + section.size > len(data):
        raise UnlinkableError("a section outside of the object")
    return data[section.offset : section.offset + section.size]


def _laid_out(data: bytes, sections: list[_Section]) -> tuple[bytearray, dict[int, int]]:
    """Return code and constants behind each other, and where each section begins."""
    image, starts = bytearray(), {}
    for number, section in enumerate(sections):
        if section.flags & _ALLOCATE and section.size:
            if section.type != _CONTENT or section.flags & (_WRITE | _THREAD_LOCAL):
                raise UnlinkableError("a section that is neither code nor constants")
            if section.align > _PAGE:
                raise UnlinkableError("a section aligned to more than pages")
            image += bytes(-len(image) % max(section.align, 1))
            starts[number] = len(image)
            image += _content(data, section)
    return image, starts


def _symbols(data: bytes, sections: list[_Section]) -> list[tuple[str, int, int]]:
    """Return name, section and value of each symbol."""
    (table,) = (section for section in sections if section.type == _SYMBOLS)
    names = _content(data, sections[table.link])
    found = []
    for name, _, _, home, value, _ in _SYMBOL.iter_unpack(_content(data, table)):
        found.append((names[name : names.index(b"\0", name)].decode(), home, value))
    return found


def _add_jump(image: bytearray, name: str) -> int:
    """Add a jump to a function of this process; return where it lies."""
    function: Any = getattr(_library(), name, None)
    address = ctypes.cast(function, ctypes.c_void_p).value if function else None
    if not address:
        raise UnlinkableError(f"there is no function {name!r}")
    image += bytes(-len(image) % 16)
    place = len(image)
    image += _JUMP.pack(_JUMP_CODE, address)
    return place


@cache
def _library() -> Any:
    return ctypes.CDLL(None)
