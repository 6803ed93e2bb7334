"""The container of model.tg: writing and reading. Its enemies are in test_container_hostile.py."""

from __future__ import annotations

import errno
import gc
import hashlib
import io
import json
import os
import resource
import shutil
import stat
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracegraph.errors import FileFormatError
from tracegraph.files.container import Container, read_json, write_container

MEMBERS: dict[str, Any] = {
    "weights/0": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "format.json": b'{"version":1}',
    "graph.json": [b"[1,", memoryview(b"2,"), bytearray(b"3]")],
    'état ✓/"quoted"': np.arange(3, dtype=ml_dtypes.bfloat16),
    "empty": b"",
    "empty too": [np.zeros((0, 3))],
    "mixed": (np.ones(3, np.complex64), np.array(7), np.zeros(2, ">i2"), np.float64(2.5), b"tail"),
}


def content(member: Any) -> bytes:
    """Return a member's bytes, computed another way."""
    if isinstance(member, list | tuple):
        return b"".join(map(content, member))
    return member.tobytes() if hasattr(member, "tobytes") else bytes(member)


def saved(members: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    write_container(file, members)
    return file.getvalue()


@pytest.fixture(params=["path", "file object"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Container]:
    """Save members and open them, through the file system or in memory."""

    def save_and_open(members: dict[str, Any]) -> Container:
        if request.param == "path":
            write_container(tmp_path / "model.tg", members)
            return Container.open(tmp_path / "model.tg")
        return Container.open(io.BytesIO(saved(members)))

    return save_and_open


def test_members_come_back(opened: Callable[..., Container]) -> None:
    with opened(MEMBERS) as container:
        assert container.names() == sorted(MEMBERS)
        container.verify()
        for name, member in MEMBERS.items():
            view = container.read(name)
            assert bytes(view) == content(member)
            assert container.size_bytes(name) == len(view)
            assert view.readonly
            container.verify(name)
        assert read_json(container, "format.json") == {"version": 1}
        assert read_json(container, "graph.json") == [1, 2, 3]
        for call in (container.read, container.size_bytes, container.verify):
            with pytest.raises(FileFormatError, match="has no member 'nothing'"):
                call("nothing")


def test_the_manifest_is_canonical_json(opened: Callable[..., Container]) -> None:
    members = {
        name: {"size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in ((name, content(member)) for name, member in MEMBERS.items())
    }
    expected, container = {"members": members}, opened(MEMBERS)
    text = json.dumps(expected, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert bytes(container.read("manifest.json")) == text.encode()
    assert read_json(container, "manifest.json") == expected
    assert opened({}).names() == []


def test_data_are_aligned_in_the_file_and_in_memory(opened: Callable[..., Container]) -> None:
    members = {"n" * length: bytes(length) for length in range(1, 140)}
    container = opened(members)
    for name in [*members, "manifest.json"]:
        assert np.frombuffer(container.read(name), np.uint8).ctypes.data % 64 == 0
    data = saved(members)
    for info in zipfile.ZipFile(io.BytesIO(data)).infolist():
        lengths = data[info.header_offset + 26 :][:4]
        start = info.header_offset + 30 + sum(np.frombuffer(lengths, "<u2").tolist())
        assert start % 64 == 0
        assert data[start : start + info.file_size] == content(
            members.get(info.filename, ()) or container.read(info.filename)
        )


def test_the_same_members_give_the_same_bytes(tmp_path: Path) -> None:
    data = saved(MEMBERS)
    assert saved(dict(reversed(MEMBERS.items()))) == data
    assert saved({name: content(member) for name, member in MEMBERS.items()}) == data
    write_container(str(tmp_path / "other name"), MEMBERS)
    assert (tmp_path / "other name").read_bytes() == data
    # The format itself: if this changes, files saved before cannot be read any more.
    digest = hashlib.sha256(saved({"a": b"1", "b/c.json": b"{}"})).hexdigest()
    assert digest == "4d9433b33c37602847f1877335584b8521fbbe30d4d989d5d1f9cc45338f3a58"


def zip_tools_read(path: Path, members: dict[str, Any]) -> None:
    """Assert that other programs read a container's members."""
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == sorted([*members, "manifest.json"])
        for info in archive.infolist():
            assert info.compress_type == zipfile.ZIP_STORED
            assert info.date_time == (1980, 1, 1, 0, 0, 0)
            assert info.flag_bits == 0x800
        for name, member in members.items():
            assert archive.read(name) == content(member)
    for tool in (["unzip", "-tqq"], ["zipinfo", "-l"], ["7z", "t"], ["bsdtar", "-tf"]):
        if shutil.which(tool[0]):
            subprocess.run([*tool, str(path)], check=True, capture_output=True)


def test_zip_tools_read_it(tmp_path: Path) -> None:
    write_container(tmp_path / "model.tg", MEMBERS)
    zip_tools_read(tmp_path / "model.tg", MEMBERS)


@pytest.mark.parametrize(
    ("members", "error", "words"),
    [
        ({"manifest.json": b""}, ValueError, "written by write_container"),
        ({"manifest.json/x": b""}, ValueError, "lies below another member"),
        ({"a/b": b"", "a/b/c": b""}, ValueError, "lies below another member"),
        ({"a/../b": b""}, ValueError, "not a plain relative path"),
        ({"x" * 1025: b""}, ValueError, "longer than 1024"),
        ({"\ud800": b""}, ValueError, "not valid Unicode"),
        ({str(n): b"" for n in range(100_001)}, ValueError, "100001 members"),
        ({"a": np.ones((4, 4))[:, 1]}, ValueError, "'a' is not C-contiguous"),
        ({"a": [memoryview(b"123456")[::2]]}, ValueError, "not C-contiguous"),
        ({3: b""}, TypeError, "must be a str, not int"),
        ({"a": "text"}, TypeError, "'a' must be a buffer"),
        ({"a": 3}, TypeError, "not int"),
        ({"a": (b"x" for _ in "1")}, TypeError, "not generator"),
        ({"a": [1, 2]}, TypeError, "bytes-like"),
    ],
)
def test_wrong_members_are_refused(
    members: dict[Any, Any], error: type[Exception], words: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=words):
        write_container(tmp_path / "model.tg", members)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(TypeError, match="expected a path"):
        write_container(3, {})  # type: ignore[arg-type]


class Lazy(Sequence[bytes]):
    """Two parts; reading them raises, or gives other bytes, at a given pass."""

    def __init__(self, fault: BaseException | None, at_pass: int) -> None:
        self.fault, self.at_pass, self.passes = fault, at_pass, 0

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: Any) -> Any:
        self.passes += index == 0
        if index == 2:
            raise IndexError
        if index == 1 and self.passes == self.at_pass:
            if self.fault is None:
                return b"y" * 100_000
            raise self.fault
        return b"x" * 100_000


FAULTS = [OSError(errno.ENOSPC, "disk full"), KeyboardInterrupt(), MemoryError()]


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("place", ["first pass", "second pass", "fsync", "replace", "close"])
def test_a_failed_save_leaves_no_trace(
    place: str, fault: Any, existing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.tg"
    if existing:
        path.write_bytes(b"the old file")
    members: dict[str, Any] = {"a": b"1", "b": b"2"}
    if "pass" in place:
        members["b"] = Lazy(fault, 1 + (place == "second pass"))
    elif place in ("fsync", "replace"):
        monkeypatch.setattr(os, place, lambda *_: (_ for _ in ()).throw(fault))
    else:
        size = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, size[1]))  # a real refusal
        members["b"], fault = bytes(2 << 20), OSError()
    try:
        with pytest.raises(type(fault)):
            write_container(path, members)
    finally:
        if place == "close":
            resource.setrlimit(resource.RLIMIT_FSIZE, size)
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"the old file"] * existing


def test_a_member_that_changes_during_the_save_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="'b' changed while it was being saved"):
        write_container(tmp_path / "model.tg", {"a": b"", "b": Lazy(None, 2)})
    assert list(tmp_path.iterdir()) == []


class Raw(io.RawIOBase):
    """A raw file that takes few bytes at a time, and at last none or an error."""

    def __init__(self, room: int, at_end: int | OSError | None = None) -> None:
        self.data, self.room, self.at_end = b"", room, at_end

    def write(self, data: Any) -> Any:
        if len(self.data) >= self.room:
            if isinstance(self.at_end, OSError):
                raise self.at_end
            return self.at_end
        self.data += bytes(data[:7])
        return len(data[:7])


def test_file_objects_that_write_partly_or_fail() -> None:
    data = saved(MEMBERS)
    file = Raw(1 << 20)
    write_container(file, MEMBERS)  # type: ignore[arg-type]
    assert file.data == data
    for room in range(0, len(data), 97):
        for at_end, error in ((None, BlockingIOError), (0, BlockingIOError), (FAULTS[0], OSError)):
            with pytest.raises(error):
                write_container(Raw(room, at_end), MEMBERS)  # type: ignore[arg-type]
    parts: list[bytes] = []
    uncounted = type("Uncounted", (), {"write": lambda _, data: parts.append(bytes(data))})()
    write_container(uncounted, MEMBERS)
    assert b"".join(parts) == data


def test_where_a_save_goes(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "model.tg")
    for mask in (0o022, 0o077, 0o002):
        before = os.umask(mask)
        try:
            write_container(tmp_path / "link", {})
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "model.tg").stat().st_mode) == 0o666 & ~mask
    assert (tmp_path / "link").is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["link", "model.tg"]
    write_container(tmp_path / ("n" * 255), {})  # the longest name there can be
    with pytest.raises(IsADirectoryError):
        write_container(tmp_path, {})
    missing = str(tmp_path / "missing" / "model.tg")
    with pytest.raises(FileNotFoundError) as caught:
        write_container(missing, {})
    assert caught.value.filename == missing
    with pytest.raises(ValueError, match="not a regular file"):
        write_container("/dev/null", {})
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_save_is_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[Any] = []

    def synchronise(descriptor: int) -> None:
        status = os.fstat(descriptor)
        steps.append("folder" if stat.S_ISDIR(status.st_mode) else status.st_size)

    replace = os.replace
    monkeypatch.setattr(os, "fsync", synchronise)
    monkeypatch.setattr(os, "replace", lambda *paths: (steps.append("rename"), replace(*paths)))
    write_container(tmp_path / "model.tg", MEMBERS)
    assert steps == [len(saved(MEMBERS)), "rename", "folder"]


def test_a_file_object_is_written_and_read_from_where_it_stands(tmp_path: Path) -> None:
    with (tmp_path / "two.bin").open("w+b") as file:
        file.write(b"prefix!")
        write_container(file, MEMBERS)
        file.seek(7)
        container = Container.open(file)
        assert not file.closed
        assert container.label == str(tmp_path / "two.bin")
    container.verify()
    assert np.frombuffer(container.read("weights/0"), np.float32).ctypes.data % 64 == 0


def test_views_outlive_close_and_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.tg"
    write_container(path, {"a": b"old" * 1000})
    container = Container.open(path)
    view = container.read("a")
    write_container(path, {"a": b"new" * 1000})
    path.unlink()
    container.close()
    container.close()
    for call in (container.read, container.verify):
        with pytest.raises(ValueError, match="closed"):
            call("a")
    del container
    gc.collect()
    assert bytes(view) == b"old" * 1000


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_closing_unmaps_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.tg"
    write_container(path, {"a": b"x"})
    with Container.open(path):
        assert str(path) in Path("/proc/self/maps").read_text()
    assert str(path) not in Path("/proc/self/maps").read_text()


def test_many_threads_read_while_one_closes(opened: Callable[..., Container]) -> None:
    container = opened({f"m{index}": bytes([index]) * 300_000 for index in range(8)})
    start = threading.Barrier(9)

    def work(index: int) -> int:
        start.wait()
        for rounds in range(1000):
            try:
                container.verify(f"m{index}")
                assert container.read(f"m{index}")[-1] == index
            except ValueError as error:
                assert "closed" in str(error)
                return rounds
        return 1000

    with ThreadPoolExecutor(9) as pool:
        futures = [pool.submit(work, index) for index in range(8)]
        start.wait()
        container.verify()
        container.close()
        assert all(future.result() < 1000 for future in futures)


def test_many_threads_save_to_one_path(tmp_path: Path) -> None:
    path = tmp_path / "model.tg"

    def save(index: int) -> None:
        write_container(path, {"a": bytes([index]) * 1000})
        with Container.open(path) as container:
            container.verify()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(save, range(100)))
    assert os.listdir(tmp_path) == ["model.tg"]


PARTS = st.text(st.characters(exclude_categories=("C",), exclude_characters="/\\:"), min_size=1)
NAMES = st.lists(PARTS.filter(lambda part: part not in (".", "..")), min_size=1, max_size=3)


@settings(max_examples=50)
@given(st.dictionaries(NAMES.map("/".join), st.lists(st.binary(max_size=200), max_size=3)))
def test_any_members_come_back(members: dict[str, list[bytes]]) -> None:
    members.pop("manifest.json", None)
    try:
        data = saved(members)
    except ValueError as error:
        assert "lies below another member" in str(error)
        return
    with Container.open(io.BytesIO(data)) as container:
        container.verify()
        assert container.names() == sorted(members)
        assert all(bytes(container.read(n)) == b"".join(parts) for n, parts in members.items())


def test_saving_takes_little_memory(tmp_path: Path) -> None:
    code = (
        "import numpy as np, resource, sys\n"
        "from tracegraph.files.container import write_container\n"
        "array = np.ones(1 << 23, np.float32)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "write_container(sys.argv[1], {'a': [array, array]})\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "model.tg")]
    kib = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert int(kib) < 8 << 10
