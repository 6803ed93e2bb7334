"""The container of model.tg beyond 4 GiB and 65535 members: zip64, with lower thresholds."""

from __future__ import annotations

import hashlib
import struct
import zipfile
import zlib
from pathlib import Path

import pytest

from tests.test_container import zip_tools_read
from tests.test_container_hostile import forge, load, lower_zip64_limits, refused
from tracegraph.files import layout
from tracegraph.files.container import Container, read_json, write_container


def test_wide_files_come_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lower_zip64_limits(monkeypatch)
    members = {f"m{index}": bytes([index]) * (index * 30) for index in range(8)}
    write_container(tmp_path / "model.tg", members)
    zip_tools_read(tmp_path / "model.tg", members)
    with Container.open(tmp_path / "model.tg") as container:
        container.verify()
        assert {name: bytes(container.read(name)) for name in members} == members


def test_headers_beyond_4_gib() -> None:
    size, offset = 5 << 30, 6 << 30
    local = layout.Entry("x", size, 7, 0).local_header()
    assert local[4:6] == b"\x2d\0"
    assert local[18:26] == b"\xff" * 8
    assert local[31:51] == b"\1\0\x10\0" + 2 * size.to_bytes(8, "little")
    central = layout.Entry("x", 9, 7, offset).central_header()
    assert central[20:28] == 2 * b"\x09\0\0\0"
    assert central[42:47] == b"\xff\xff\xff\xffx"
    assert central[47:] == b"\1\0\x08\0" + offset.to_bytes(8, "little")
    limit = 0xFFFFFFFE
    for extra, entry_bytes, end_bytes in ((0, 47, 22), (1, 67, 98), (2, 67, 98)):
        assert len(layout.Entry("x", limit + extra, 7, 0).central_header()) == entry_bytes
        assert len(layout.encode_end(0xFFFE + extra, 9, 9)) == end_bytes
        assert len(layout.encode_end(1, limit + extra, 9)) == end_bytes
        assert len(layout.encode_end(1, 9, limit + extra)) == end_bytes


def test_a_sparse_file_of_5_gib_opens(tmp_path: Path) -> None:
    size, path = 5 << 30, tmp_path / "sparse.tg"
    zeros, small = hashlib.sha256().hexdigest(), hashlib.sha256(b"{}").hexdigest()
    manifest = layout.encode_manifest([("big", size, zeros), ("small.json", 2, small)])
    data = {"big": b"", "manifest.json": manifest, "small.json": b"{}"}
    entries: list[layout.Entry] = []
    offset = 0
    with path.open("wb") as file:
        for name, part in data.items():
            entries.append(layout.Entry(name, len(part) or size, zlib.crc32(part), offset))
            file.seek(offset)
            file.write(entries[-1].local_header() + part)
            offset += len(entries[-1].local_header()) + entries[-1].size_bytes
        directory = b"".join(entry.central_header() for entry in entries)
        file.write(directory + layout.encode_end(3, len(directory), offset))
    with Container.open(path) as container:
        assert container.size_bytes("big") == container.read("big").nbytes == size
        assert read_json(container, "small.json") == {}
    with zipfile.ZipFile(path) as archive:
        assert [info.file_size for info in archive.infolist()] == [size, len(manifest), 2]
        assert archive.read("small.json") == b"{}"


def test_lies_about_zip64() -> None:
    wide = layout._WIDE_END.struct
    data = forge([("a", b"1")])
    count, size, offset = 2, *struct.unpack("<II", data[-10:-2])
    short = (b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    record = (
        b"PK\6\6",
        44,
        0x32D,
        45,
        0,
        0,
        count,
        count,
        size,
        offset,
        b"PK\6\7",
        0,
        offset + size,
        1,
    )
    with refused("its end record is damaged"):  # a zip64 record without need
        load(data[:-22] + wide.pack(*record, *short))
    with refused("does not fit"):  # no zip64 record where one is announced
        load(data[:-22] + struct.pack("<4sHHHHIIH", *short))
    with refused("empty zip"):
        load(struct.pack("<4sHHHHIIH", *short))
    forged = (b"PK\6\6", 44, 0x32D, 45, 0, 0, 70_000, 70_000, size, offset, *record[10:])
    with refused("locator|end record"):
        load(data[:-22] + wide.pack(*forged, *short))
    announced = bytearray(data)  # a size that is said to be in a zip64 field, which is not there
    at = data.index(b"PK\1\2")
    announced[at + 20 : at + 28] = b"\xff" * 8
    with refused("entry of member 'a'"):
        load(bytes(announced))
