"""The members of a file: JSON, and tensors by number."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from tracegraph.eager.storage import Storage
from tracegraph.eager.tensors import Tensor, storage_of, type_of, wrap
from tracegraph.errors import FileFormatError
from tracegraph.files.container import Container, read_json
from tracegraph.ir.serial import text, type_from_text


class TensorStore:
    """Arrays on their way into a file: each memory once, numbered in order."""

    def __init__(self) -> None:
        self.arrays: list[Any] = []
        self._by_storage: dict[tuple[int, int, tuple[int, ...], Any], int] = {}
        self._kept: list[Storage] = []

    def add(self, array: Any) -> int:
        """Keep an array; returns its number."""
        host = array.get() if hasattr(array, "get") else array
        self.arrays.append(np.ascontiguousarray(host).reshape(host.shape))
        return len(self.arrays) - 1

    def add_tensor(self, t: Tensor) -> int:
        """Keep a tensor; two that are the same memory share a number."""
        storage = storage_of(t)
        key = (id(storage), len(t._chain), tuple(t.shape), t._chain)
        number = self._by_storage.get(key)
        if number is None:
            self._kept.append(storage)
            number = self._by_storage[key] = self.add(t._data)
        return number

    def members(self) -> dict[str, Any]:
        """Return the file members `tensors/...`."""
        index = []
        members: dict[str, Any] = {}
        for number, array in enumerate(self.arrays):
            member = f"tensors/{number:06d}.bin"
            known = type_of(wrap(array))
            index.append({"type": str(known), "member": member})
            members[member] = _bytes_of(array)
        members["tensors/index.json"] = json_bytes({"tensors": index})
        return members


def _bytes_of(array: Any) -> Any:
    """Little-endian bytes of a C-ordered array."""
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    return array.reshape(-1).view(np.uint8) if array.size else b""


def json_bytes(data: Any) -> bytes:
    """Return the one way in which a file holds JSON data."""
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def json_lines(data: dict[str, Any], key: str) -> bytes:
    """JSON with one item of the list `data[key]` a line, so that files can be compared by line."""
    head = json_bytes({k: v for k, v in data.items() if k != key})[:-1]
    comma = b"," if len(head) > 1 else b""
    items = b",\n".join(map(json_bytes, data[key]))
    return head + comma + json_bytes(key) + b":[\n" + items + b"\n]}"


def read_arrays(container: Container) -> list[Any]:
    """Return the tensors of a file by number, as arrays over its mapped memory.

    Raises:
        FileFormatError: a member has another size than its type needs.
    """
    arrays = []
    for item in read_json(container, "tensors/index.json")["tensors"]:
        known = type_from_text(item["type"])
        data = container.read(text(item["member"]))
        if len(data) != known.size_bytes:
            raise FileFormatError(
                f"{container.label}: member {item['member']} has {len(data)} bytes, {known} needs "
                f"{known.size_bytes}; save it again"
            )
        arrays.append(np.frombuffer(data, known.dtype.np).reshape(known.shape))
    return arrays
