"""The container of model.tg against damage, forgery and size: FileFormatError, never worse."""

from __future__ import annotations

import hashlib
import io
import mmap
import os
import struct
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.test_container import saved
from tracegraph.errors import FileFormatError
from tracegraph.files import layout
from tracegraph.files.container import DEFAULT_LIMITS, Container, Limits, read_json, write_container

SMALL = {"data/été": b"\0\1\2 data", "empty": b"", "format.json": b'{"version":1}'}


def lower_zip64_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let zip64 begin at 100 bytes and 3 members."""
    monkeypatch.setattr(layout, "_MAX_32", 100)
    monkeypatch.setattr(layout, "_MAX_16", 3)


def load(data: bytes, limits: Limits = DEFAULT_LIMITS) -> None:
    """Open a container and read all of it."""
    with Container.open(io.BytesIO(data), limits) as container:
        for name in container.names():
            if name.endswith(".json"):
                read_json(container, name, limits)
            else:
                container.verify(name)


@contextmanager
def refused(words: str = "") -> Iterator[None]:
    """Expect one sentence of FileFormatError, soon, with little memory."""
    tracemalloc.start()
    begin = time.perf_counter()
    try:
        with pytest.raises(FileFormatError, match=words) as caught:
            yield
        assert time.perf_counter() - begin < 2
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
        assert len(str(caught.value)) < 500
        assert "\n" not in str(caught.value)
    finally:
        tracemalloc.stop()


def forge(
    members: list[tuple[str, bytes]],
    manifest: bytes | None = None,
    size_of: Callable[[str, bytes], int] = lambda name, data: len(data),
    end: Callable[[int, int, int], bytes] = layout.encode_end,
) -> bytes:
    """Encode members without any check; `manifest.json` may be among them, and is by default."""
    triples = [(name, len(data), hashlib.sha256(data).hexdigest()) for name, data in members]
    if manifest is None:
        manifest = layout.encode_manifest(triples)
        members = [*members, ("manifest.json", manifest)]
    result, directory = b"", b""
    for name, data in members:
        entry = layout.Entry(name, size_of(name, data), zlib.crc32(data), len(result))
        result += entry.local_header() + data
        directory += entry.central_header()
    return result + directory + end(len(members), len(directory), len(result))


# Damage


@pytest.fixture(params=["narrow", "wide"])
def small_file(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A small file, with or without zip64 records."""
    if request.param == "wide":
        lower_zip64_limits(monkeypatch)
    data = saved(SMALL)
    load(data)
    assert (b"PK\6\6" in data) == (request.param == "wide")
    return data


def test_every_flipped_byte_is_noticed(small_file: bytes) -> None:
    for index, value in enumerate(small_file):
        for mask in (1, 2, 4, 8, 16, 32, 64, 128, 255):
            damaged = bytearray(small_file)
            damaged[index] = value ^ mask
            with pytest.raises(FileFormatError):
                load(bytes(damaged))


def test_every_truncation_is_noticed(small_file: bytes, tmp_path: Path) -> None:
    path = tmp_path / "cut.tg"
    for length in range(len(small_file)):
        with pytest.raises(FileFormatError):
            Container.open(io.BytesIO(small_file[:length]))
        path.write_bytes(small_file[:length])
        with pytest.raises(FileFormatError, match=r"cut\.tg: .*; "):
            Container.open(path)


def test_every_appended_inserted_or_removed_byte_is_noticed(small_file: bytes) -> None:
    for index in range(len(small_file) + 1):
        for extra in (b"\0", b"P", bytes(64)):
            with pytest.raises(FileFormatError):
                load(small_file[:index] + extra + small_file[index:])
        for count in (1, 22, 64):
            if index + count <= len(small_file):
                with pytest.raises(FileFormatError):
                    load(small_file[:index] + small_file[index + count :])


LARGER = saved(
    {f"m{n}": bytes(range(n)) * n for n in range(1, 40)} | {"x.json": b"[" + b"1," * 999 + b"1]"}
)


@settings(max_examples=300)
@given(st.data())
def test_any_damage_is_noticed(data: st.DataObject) -> None:
    damaged = bytearray(LARGER)
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(damaged)))
        stop = data.draw(st.integers(start, min(start + 300, len(damaged))))
        source = data.draw(st.integers(0, len(damaged)))
        copied = damaged[source : source + stop - start]
        damaged[start:stop] = data.draw(st.sampled_from([b"", copied])) or data.draw(
            st.binary(max_size=80)
        )
    if damaged != LARGER:
        with pytest.raises(FileFormatError):
            load(bytes(damaged))


@settings(max_examples=300)
@given(st.binary(max_size=300))
def test_any_bytes_are_refused(data: bytes) -> None:
    for prefix in (b"", LARGER[:100]):
        for suffix in (b"", LARGER[-22:], LARGER[-100:]):
            with pytest.raises(FileFormatError):
                load(prefix + data + suffix)


def test_damage_is_located(tmp_path: Path) -> None:
    path = tmp_path / "model.tg"
    write_container(path, SMALL)
    data = path.read_bytes()
    at = data.index(b"\0\1\2 data")
    path.write_bytes(data.replace(b"\2 data", b"\3 data"))
    with Container.open(path) as container:
        container.verify("format.json")
        with pytest.raises(FileFormatError) as caught:
            container.verify()
    assert str(caught.value) == (
        f"{path}: member 'data/\\xe9t\\xe9' is damaged: its data (bytes {at} to {at + 8}) fail "
        "their checksums; save it again, or fetch an intact copy"
    )
    path.write_bytes(data[:10] + b"\1" + data[11:])
    with pytest.raises(
        FileFormatError, match=r"local header.*at byte 10: the field 'time' holds 1 where 0"
    ):
        Container.open(path)


def test_a_file_that_shrinks_while_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.tg"
    write_container(path, SMALL)

    class Shrinking(io.BytesIO):
        def seek(self, offset: int, whence: int = 0) -> int:
            return super().seek(offset, whence) + 1000 * (whence == 2)

    with refused("ended at byte .* while it was being read"):
        Container.open(Shrinking(path.read_bytes()))
    real = mmap.mmap
    monkeypatch.setattr(mmap, "mmap", lambda fd, size, **rest: real(fd, size + 5000, **rest))
    with refused("cut off while it was being opened"):
        Container.open(path)


# Forgery


def test_the_forger_forges_well() -> None:
    members = sorted(SMALL.items())
    assert forge([*members, ("manifest.json", b"")][:-1]) == saved(SMALL)
    load(forge([("a", b"1")]))


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../a",
        "a/../b",
        "a/..",
        "/a",
        "a//b",
        "a/",
        "./a",
        "C:/a",
        "c:a",
        "a\\b",
        "a\0b",
        "a\nb",
        "\x7f",
        "\x85",
        "x" * 1025,
        "é" * 513,
    ],
)
def test_forged_names(name: str) -> None:
    with refused("^the file object: the member name .* (is|has) "):
        load(forge([(name, b"1")]))
    with pytest.raises(ValueError, match="the member name"):
        saved({name: b"1"})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (forge([("a", b"1"), ("a", b"1")]), "'a' .* appears twice"),
        (forge([("b", b"1"), ("a", b"1")]), "'a' .* comes after 'b', out of order"),
        (forge([("a", b"1"), ("a/b", b"1")]), "'a/b' .* lies below another member"),
        (forge([("aaaa", b"1")]).replace(b"aaaa", b"a\xff\xfea"), "not UTF-8"),
        (forge([("aaaa", b"1")]).replace(b"aaaa", b"a\xed\xa0\x80"), "not UTF-8"),
        (
            forge([("a", b"1")], size_of=lambda n, d: len(d) + (n == "a")),
            "'header offset' holds 65 where 66",
        ),
        (
            forge([("a", b"1")], size_of=lambda n, d: len(d) << 60 * (n == "a")),
            "'a' would end at byte",
        ),
        (forge([("a", b"1")], size_of=lambda n, d: 0xFFFFFFFE), "'a' would end at byte"),
        (forge([("a", b"1")], size_of=lambda n, d: (1 << 64) - 1), "'a' would end at byte"),
        (
            forge([("a", b"1")], end=lambda c, s, o: layout.encode_end(10**6, s, o)),
            "1000000|999999",
        ),
        (
            forge([("a", b"1")], end=lambda c, s, o: layout.encode_end(3, s, o)),
            "cannot be that of 3",
        ),
        (forge([("a", b"1")], end=lambda c, s, o: layout.encode_end(1, s, o)), "stray|cannot be"),
        (
            forge([("a", b"1")], end=lambda c, s, o: layout.encode_end(0, s, o)),
            "cannot be that of 0",
        ),
        (
            forge([("a", b"1")], end=lambda c, s, o: layout.encode_end(c, 1 << 63, o)),
            "does not fit",
        ),
        (
            forge([("a", b"1")], end=lambda c, s, o: layout.encode_end(c, s, 1 << 63)),
            "does not fit",
        ),
        (
            forge([("a", b"1")], end=lambda c, s, o: layout.encode_end(c, s + 1, o - 1)),
            "not UTF-8|entry of",
        ),
        (
            forge([("a", b"1")], end=lambda c, s, o: layout.encode_end(c, s, o) + b"\0"),
            "does not end",
        ),
        (
            forge([("a", b"1"), ("manifest.json", b"{}")], manifest=b""),
            "'manifest.json' is missing",
        ),
        (forge([("a", b"1")], manifest=b"{}"), "'manifest.json' is missing"),
        (forge([], manifest=b"{}"), "seems to be an empty zip file"),
        (forge([("manifest.json", b'{"members": {}}')], manifest=b""), "not a list of its members"),
        (forge([("manifest.json", b'{"members":{]}')], manifest=b""), "is damaged"),
    ],
)
def test_forged_structures(data: bytes, words: str) -> None:
    with refused(words):
        load(data)


def test_overlapping_members_and_gaps() -> None:
    data = forge([("a", b"1"), ("b", b"2")])
    second = data.index(b"PK\1\2", data.index(b"PK\1\2") + 1)
    with refused("'header offset' holds 0 where 65 belongs"):
        load(data[: second + 42] + bytes(4) + data[second + 46 :])
    first = data.index(b"PK\3\4", 4)
    directory = data.index(b"PK\1\2")
    end = struct.pack("<I", directory + 64)
    with refused("local header of member 'b' is damaged at byte 65"):
        load(data[:first] + bytes(64) + data[first:-6] + end + data[-2:])


def zipped(**options: Any) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(zipfile.ZipInfo("bombe à zip"), bytes(1 << 20), **options)
    return file.getvalue()


def test_zip_files_of_others() -> None:
    with refused("bombe.*'method' holds 8 where 0"):
        load(zipped(compress_type=zipfile.ZIP_DEFLATED))
    with refused("bombe.*'external attributes' holds"):
        load(zipped())


def test_checksums_must_both_hold() -> None:
    digest = hashlib.sha256(b"1").hexdigest()
    members = [("a", b"1"), ("manifest.json", layout.encode_manifest([("a", 1, digest[::-1])]))]
    with refused("member 'a' is damaged"):
        load(forge(members, manifest=b""))
    good = forge([("a", b"1")])
    crc = struct.pack("<I", zlib.crc32(b"1"))
    assert good.count(crc) == 2
    with refused("member 'a' is damaged"):
        load(good.replace(crc, b"\0\0\0\1"))
    manifest = zipfile.ZipFile(io.BytesIO(good)).getinfo("manifest.json")
    with refused("member 'manifest.json' .* is damaged"):
        load(good.replace(struct.pack("<I", manifest.CRC), b"\0\0\0\1"))


@pytest.mark.parametrize(
    "limits",
    [
        Limits(max_members=2),
        Limits(max_name_bytes=9),
        Limits(max_file_bytes=500),
        Limits(max_json_bytes=12),
    ],
)
def test_limits(limits: Limits) -> None:
    with refused("max_|longer than 9"):
        load(saved(SMALL), limits)
    exact = Limits(3, 13, len(saved(SMALL)), 13, 1)
    load(saved(SMALL), exact)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the file is empty"),
        (b"\x80\x02}q\x00.", "Python pickle"),
        (b"PK\3\4\0\0\x08\x08" + bytes(22) + b"archive/data.pkl", "PyTorch archive"),
        (b"PK\5\6" + bytes(18), "empty zip file"),
        (b"\x08\x08\x12\x07pytorch" + bytes(100), "ONNX model"),
        (struct.pack("<Q", 80) + b'{"__metadata__":{}}', "safetensors"),
        (b"\x93NUMPY\1\0", "npy"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "web page"),
        (bytes(1000), "zero bytes"),
        (b"hello, this is just some text", "does not end as a tracegraph file"),
    ],
)
def test_files_of_other_formats(data: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "other.bin"
    path.write_bytes(data)
    with refused(f"^{path}: .*{words}.*; "):
        Container.open(path)


def test_things_that_are_not_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Container.open(tmp_path / "missing.tg")
    with pytest.raises(IsADirectoryError):
        Container.open(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with refused("not a regular file"):
            Container.open(path)
    with pytest.raises(TypeError, match="path or a binary file object, not bytes"):
        Container.open(b"contents")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="binary mode"):
        Container.open(io.StringIO("text"))  # type: ignore[arg-type]
    file = io.BytesIO()
    write_container(file, SMALL)
    with refused("empty from byte .*, where the file object stands"):
        Container.open(file)
