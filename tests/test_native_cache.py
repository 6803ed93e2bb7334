"""The object cache: a second process compiles nothing, and no bad entry or directory is trusted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tracegraph.runtime.cpu import object_cache

PROGRAM = """
import numpy as np
import tracegraph as tg
from tracegraph.runtime.cpu import kernels
traced = tg.trace(lambda x: (x * 2 + 1).tanh().sum(), (tg.ones(5, 7),))
print(traced.program()(tg.ones(5, 7)).item(), kernels._Linked.compiled)
"""


def run(directory: Path | str) -> tuple[float, int]:
    """Run the program in a process of its own; returns its result and what it compiled."""
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**os.environ, "TRACEGRAPH_CACHE_DIR": str(directory)},
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    value, compiled = found.stdout.split()
    return float(value), int(compiled)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tmp_path / "cache"
    monkeypatch.setenv("TRACEGRAPH_CACHE_DIR", str(made))
    return made


def test_a_second_process_compiles_nothing(tmp_path: Path) -> None:
    first, second = run(tmp_path / "cache"), run(tmp_path / "cache")
    assert first == (pytest.approx(34.826917), 1)
    assert second == (first[0], 0)


def test_damaged_entries_are_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    wanted = run(folder)
    for damage in (lambda d: d[:-1], lambda d: b"", lambda d: d[:40] + bytes([d[40] ^ 1]) + d[41:]):
        for path in folder.iterdir():
            path.write_bytes(damage(path.read_bytes()))
        assert run(folder) == wanted
        assert run(folder) == (wanted[0], 0)


def test_processes_may_fill_it_at_the_same_time(tmp_path: Path) -> None:
    environment = {**os.environ, "TRACEGRAPH_CACHE_DIR": str(tmp_path / "cache")}
    runs = [
        subprocess.Popen([sys.executable, "-c", PROGRAM], env=environment, stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    outputs = {process.communicate(timeout=120)[0].split()[0] for process in runs}
    assert len(outputs) == 1
    assert not [p for p in (tmp_path / "cache").iterdir() if p.name.startswith("new-")]


def test_a_directory_that_others_can_write_to_is_not_used(folder: Path) -> None:
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    assert object_cache.directory() is None
    object_cache.write("entry", b"code")
    assert object_cache.read("entry") is None
    folder.chmod(0o700)
    assert object_cache.directory() == folder


def test_a_file_in_the_place_of_the_directory_is_no_error(folder: Path) -> None:
    folder.write_text("here")
    assert object_cache.directory() is None


def test_no_directory_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEGRAPH_CACHE_DIR", "")
    assert object_cache.directory() is None


def test_the_oldest_entries_go_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_cache, "_MOST_BYTES", 3000)
    for number in range(3):
        object_cache.write(f"e{number}", bytes(900))
        path = folder / f"e{number}.object"
        os.utime(path, ns=(number, number))
    assert object_cache.read("e0") == bytes(900)  # used again: now the youngest
    object_cache.write("e3", bytes(900))
    assert sorted(p.name for p in folder.iterdir()) == ["e0.object", "e2.object", "e3.object"]
