"""The linker for cached objects: it does what LLVM's does, or refuses; then LLVM links them."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tracegraph.runtime.cpu import linking, object_cache
from tracegraph.runtime.cpu.code import elf, llvm

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="LLVM links elsewhere"
)

# Constants, a table of jumps, a call within the object and two of the C library.
TEXT = """
@numbers = private constant [4 x double] [double 1.5, double 2.5, double 3.5, double 4.5], align 64
declare i32 @getpid() nounwind
declare ptr @memcpy(ptr, ptr, i64)

define private i64 @twice(i64 %x) noinline {
  %y = mul i64 %x, 2
  ret i64 %y
}

define i64 @chosen(i64 %x) nounwind {
  switch i64 %x, label %other [
    i64 0, label %a
    i64 1, label %b
    i64 2, label %c
    i64 3, label %d
    i64 4, label %e
  ]
a:
  %pid = call i32 @getpid()
  %ra = sext i32 %pid to i64
  ret i64 %ra
b:
  %rb = call i64 @twice(i64 %x)
  ret i64 %rb
c:
  %rc = call i64 @twice(i64 30)
  ret i64 %rc
d:
  ret i64 -5
e:
  ret i64 44
other:
  %ro = call i64 @twice(i64 %x)
  %rn = sub i64 %ro, 7
  ret i64 %rn
}

define double @number(i64 %i) {
  %p = getelementptr [4 x double], ptr @numbers, i64 0, i64 %i
  %v = load double, ptr %p
  %w = fadd double %v, 0.123
  ret double %w
}

define void @copy(ptr %to, ptr %from, i64 %size) {
  %ignored = call ptr @memcpy(ptr %to, ptr %from, i64 %size)
  ret void
}
"""
NAMES = ("chosen", "number", "copy")


@pytest.fixture(scope="module")
def made() -> bytes:
    return llvm.compile_object([TEXT])


def answers(code: Any) -> list[Any]:
    integer, double = ctypes.c_int64, ctypes.c_double
    chosen = ctypes.CFUNCTYPE(integer, integer)(code.address("chosen"))
    number = ctypes.CFUNCTYPE(double, integer)(code.address("number"))
    copy = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, integer)(code.address("copy"))
    target = ctypes.create_string_buffer(6)
    copy(target, b"hello", 6)
    return [*map(chosen, range(-1, 7)), *map(number, range(4)), target.value]


def test_code_does_what_it_does_when_llvm_links_it(made: bytes) -> None:
    wanted = [-9, os.getpid(), 2, 60, -5, 44, 3, 5, 1.623, 2.623, 3.623, 4.623, b"hello"]
    assert answers(elf.Loaded(made, NAMES)) == answers(llvm.Code([made], NAMES)) == wanted


def test_no_memory_can_be_written_and_executed(made: bytes) -> None:
    code = elf.Loaded(made, NAMES)
    (line,) = (
        line
        for line in Path("/proc/self/maps").read_text().splitlines()
        if int(line.split("-")[0], 16)
        <= code.address("copy")
        < int(line.split("-")[1].split()[0], 16)
    )
    assert line.split()[1] == "r-xp"


REFUSED = {
    "another machine": lambda d: d[:18] + b"\xb7" + d[19:],
    "32 bits": lambda d: d[:4] + b"\x01" + d[5:],
    "a shared library": lambda d: d[:16] + b"\x03" + d[17:],
    "not an object": lambda d: b"#!/bin/sh\n" + d,
    "nothing": lambda d: b"",
    "half of it": lambda d: d[: len(d) // 2],
    "a function that there is not": lambda d: d.replace(b"getpid\0", b"gotpid\0"),
}


@pytest.mark.parametrize("damage", REFUSED.values(), ids=REFUSED)
def test_what_it_does_not_know_is_refused(made: bytes, damage: Callable[[bytes], bytes]) -> None:
    with pytest.raises(elf.UnlinkableError):
        elf.Loaded(damage(made), NAMES)


@pytest.mark.parametrize(
    "text",
    [
        "@x = global i64 5 define i64 @f() { %v = load i64, ptr @x ret i64 %v }",
        "@x = thread_local global i64 5 define i64 @f() { %v = load i64, ptr @x ret i64 %v }",
        "@x = external global i64 define i64 @f() { %v = load i64, ptr @x ret i64 %v }",
        "define i64 @f() { ret i64 ptrtoint (ptr @f to i64) }",
        "@x = constant ptr @f define ptr @f() { %v = load ptr, ptr @x ret ptr %v }",
    ],
    ids=["a variable", "one of a thread", "one elsewhere", "an address", "an address in data"],
)
def test_other_code_is_refused(text: str) -> None:
    try:
        elf.Loaded(llvm.compile_object([text]), "f")
    except elf.UnlinkableError:
        return
    assert "ptrtoint" in text  # a distance after all: nothing of it depends on where it lies


def test_what_is_refused_llvm_links(made: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(linking._code(made, NAMES), elf.Loaded)
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    code = linking._code(made, NAMES)
    assert isinstance(code, llvm.Code)
    assert answers(code)[3] == 60


def test_memory_that_may_not_be_executed_is_no_error(
    made: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any, **__: Any) -> Any:
        raise PermissionError

    monkeypatch.setattr(elf.mmap, "mmap", refused)
    assert isinstance(linking._code(made, NAMES), llvm.Code)


def test_the_machine_that_is_remembered_is_the_one_that_llvm_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACEGRAPH_CACHE_DIR", str(tmp_path / "cache"))
    wanted = llvm._found_host()
    assert llvm._host.__wrapped__() == wanted
    assert object_cache.directory() is not None
    with monkeypatch.context() as patch:
        patch.setattr(llvm, "_found_host", lambda: pytest.fail("it was not remembered"))
        assert llvm._host.__wrapped__() == wanted
    told = llvm._processor()
    assert told is not None
    monkeypatch.setattr(llvm, "_processor", lambda: told.replace("avx", "xva"))
    monkeypatch.setattr(llvm, "_found_host", lambda: wanted._replace(cpu="another"))
    assert llvm._host.__wrapped__().cpu == "another"


PROGRAM = """
import sys
import tracegraph as tg
x = tg.linspace(-1, 1, 40 * 70).reshape(40, 70)
program = tg.trace(lambda x: ((x @ x.T).exp().softmax(-1).sum(0), x.sort()[0]), (x,)).program()
print([float(y.sum()) for y in program(x)], "llvmlite.binding" in sys.modules)
"""


def test_a_process_that_compiles_nothing_does_not_load_llvm(tmp_path: Path) -> None:
    settings = {**os.environ, "TRACEGRAPH_CACHE_DIR": str(tmp_path / "cache")}
    first, second = (
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env=settings,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for _ in range(2)
    )
    assert first.endswith("True\n")
    assert second == first.replace("True", "False")
