"""The layer over LLVM: what is compiled and linked runs, targets can be forced, errors are told."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("llvmlite")

from tracegraph.runtime.cpu.code.llvm import (
    LEVELS,
    Code,
    Target,
    compile_assembly,
    compile_object,
    host_target,
    level_target,
)

ROOT = Path(__file__).resolve().parent.parent
NATIVE_LEVELS = [name for name in LEVELS if (name == "neon") == ("aarch64" in os.uname().machine)]


def twice(name: str, lanes: int = 16) -> str:
    """Return a function that doubles some f32 of an array."""
    kind = f"<{lanes} x float>"
    return f"""
define void @{name}(ptr %x) {{
  %old = load {kind}, ptr %x, align 4
  %new = fadd {kind} %old, %old
  store {kind} %new, ptr %x, align 4
  ret void
}}"""


def call(address: int, *arguments: object) -> None:
    ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * len(arguments))(address)(*arguments)


def test_modules_become_one_object_that_runs() -> None:
    code = Code([compile_object([twice("f"), twice("g")]), compile_object([twice("h")])], "fgh")
    x = np.arange(16, dtype=np.float32)
    for name in "fgh":
        call(code.address(name), x.ctypes.data)
    assert x.tolist() == [8.0 * i for i in range(16)]


def test_the_same_name_may_be_linked_again() -> None:
    data = compile_object([twice("f")])
    first, second = Code([data], "f"), Code([data], "f")
    assert first.address("f") != second.address("f")


def test_the_same_text_gives_the_same_object() -> None:
    assert compile_object([twice("f")]) == compile_object([twice("f")])


def test_code_reaches_the_c_library() -> None:
    text = "declare i32 @getpid()\ndefine i32 @f() {\n  %r = call i32 @getpid()\n  ret i32 %r\n}"
    code = Code([compile_object([text])], "f")
    assert ctypes.CFUNCTYPE(ctypes.c_int)(code.address("f"))() == os.getpid()


def test_what_is_missing_or_wrong_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match="expected"):
        compile_object(["define void @f( {"])
    with pytest.raises(RuntimeError, match="multiply defined"):
        compile_object([twice("f"), twice("f")])
    text = "declare void @no_such_thing()\ndefine void @f() {\n  call void @no_such_thing()\n"
    with pytest.raises(RuntimeError, match="Failed to materialize"):
        Code([compile_object([text + "  ret void\n}"])], "f")
    assert "no_such_thing" in capfd.readouterr().err


def test_code_that_nobody_holds_is_freed() -> None:
    table = ", ".join(["i32 1"] * (1 << 18))
    text = f"@t = constant [{1 << 18} x i32] [{table}]\ndefine ptr @f() {{\n  ret ptr @t\n}}"
    data = compile_object([text])  # 1 MiB
    Code([data], "f")
    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(100):
        Code([data], "f")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000


@pytest.mark.parametrize(("level", "vector_bytes", "register"), [
    ("avx512", 64, "zmm0"), ("avx2", 32, "ymm0"), ("sse2", 16, "xmm0"), ("neon", 16, "v0.4s"),
])  # fmt: skip
def test_levels_use_their_vectors(level: str, vector_bytes: int, register: str) -> None:
    triple = ("aarch64" if level == "neon" else "x86_64") + "-unknown-linux-gnu"
    target = level_target(level, triple)
    assert target.vector_bytes == vector_bytes
    assert register in compile_assembly([twice("f", vector_bytes // 4)], target)


def test_the_host_uses_its_widest_vectors() -> None:
    target = host_target()
    assert target == Target(*target)
    widest = {64: "zmm", 32: "ymm"}.get(target.vector_bytes)
    if widest is not None:
        assert widest in compile_assembly([twice("f", target.vector_bytes // 4)])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_compiles_too() -> None:
    code = f"""
import os, threading
from tracegraph.runtime.cpu.code.llvm import Code, compile_object
text = {twice("f")!r}
Code([compile_object([text])], "f")

def compiling():
    while not stop.is_set():
        compile_object([text])

stop = threading.Event()
thread = threading.Thread(target=compiling)
thread.start()
for _ in range(10):  # while another thread compiles
    pid = os.fork()
    if pid == 0:
        Code([compile_object([text])], "f")
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
stop.set()
thread.join()
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)


@pytest.mark.parametrize(("found", "told"), [
    ("None", "the native CPU runtime needs llvmlite"), ("'0.43.0'", "llvmlite 0.43.0 is too old"),
])  # fmt: skip
def test_missing_llvmlite_is_told(found: str, told: str) -> None:
    code = f"""
import sys, types
from tracegraph.errors import DeviceError
from tracegraph.runtime.cpu.driver import pool
version = {found}
if version is None:
    sys.modules["llvmlite"] = None
else:
    import llvmlite
    llvmlite.__version__ = version
try:
    pool.shared_pool()
except DeviceError as error:
    print(error)
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert told in done.stdout
    assert "pip install 'llvmlite>=0.50'" in done.stdout
