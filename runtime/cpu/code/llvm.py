"""The thin layer over llvmlite: textual LLVM IR to object code, object code to addresses.

Object code is plain bytes without absolute addresses, so it can be kept on disk. Code is linked
by ORC with JITLink (measured for five small objects: 0.5 ms, against 1.8 ms with MCJIT), which
lays one object out as one piece, so position-independent code of the small model is enough.
"""

from __future__ import annotations

import hashlib
import importlib
import itertools
import json
import os
import platform
import sys
import threading
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from tracegraph.errors import DeviceError
from tracegraph.runtime.cpu import object_cache

OLDEST = (0, 50)
# One lock for whole compilations: LLVM's global context must not see two threads, and a process
# must not fork halfway through one (the child would inherit half-made structures).
_LOCK = threading.RLock()
os.register_at_fork(
    before=_LOCK.acquire, after_in_parent=_LOCK.release, after_in_child=_LOCK.release
)
_library_numbers = itertools.count()
_TELLING = ("vendor_id", "cpu family", "model", "stepping", "microcode", "flags")


class Target(NamedTuple):
    """What code is made for; part of the key of every cached object."""

    triple: str
    cpu: str
    features: str

    @property
    def vector_bytes(self) -> int:
        """Bytes of the widest vector register."""
        features = self.features.split(",")
        return 64 if "+avx512f" in features else 32 if "+avx2" in features else 16


# Targets that can be forced, by name: an instruction set of x86-64 or of AArch64.
LEVELS = {
    "avx512": ("x86-64-v4", "+avx512f,-prefer-256-bit"),
    "avx2": ("x86-64-v3", "+avx2"),
    "sse2": ("x86-64", ""),
    "neon": ("generic", "+neon"),
}


@cache
def compiler() -> str:
    """Return what tells one llvmlite from another. Its library, LLVM, is not loaded.

    Raises:
        DeviceError: llvmlite is missing or too old.
    """
    remedy = "pip install 'llvmlite>=0.50', or choose runtime='interpreter'"
    try:
        import llvmlite
    except ImportError as error:
        raise DeviceError(f"the native CPU runtime needs llvmlite ({error}): {remedy}") from error
    version = str(llvmlite.__version__)
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        raise DeviceError(f"llvmlite {version} is too old: {remedy}")
    libraries = sorted((Path(llvmlite.__file__).parent / "binding").glob("*llvmlite.*"))
    known = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in libraries]
    return f"{version} {known}"


@cache
def binding() -> Any:
    """Return `llvmlite.binding`, ready for this machine.

    Raises:
        DeviceError: llvmlite is missing or too old.
    """
    compiler()
    found = importlib.import_module("llvmlite.binding")
    found.initialize_native_target()
    found.initialize_native_asmprinter()
    return found


@cache
def host_target() -> Target:
    """Return the target that is this machine.

    TRACEGRAPH_NATIVE_LEVEL names a lower instruction set of LEVELS that it has, for tests.

    Raises:
        DeviceError: no such level; llvmlite is missing or too old.
    """
    level = os.environ.get("TRACEGRAPH_NATIVE_LEVEL")
    if not level:
        return _host()
    if level not in LEVELS:
        known = ", ".join(LEVELS)
        raise DeviceError(f"TRACEGRAPH_NATIVE_LEVEL is {level!r}; there are: {known}")
    return level_target(level)


def level_target(level: str, triple: str | None = None) -> Target:
    """Return the target of an instruction set of LEVELS, on this machine's triple by default."""
    cpu, features = LEVELS[level]
    return Target(triple or _host().triple, cpu, features)


@cache
def _host() -> Target:
    """Return this machine's target: as it was remembered, or as LLVM finds it."""
    told = _processor()
    if told is None:
        return _found_host()
    name = hashlib.sha256(f"{Target._fields} {compiler()} {told}".encode()).hexdigest()
    data = object_cache.read(name)
    if data is not None:
        return Target(*json.loads(data))
    found = _found_host()
    object_cache.write(name, json.dumps(found).encode())
    return found


def _processor() -> str | None:
    """Return all that Linux tells of an x86-64 processor but how fast it runs just now."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return None
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            lines = list(itertools.takewhile(str.strip, file))
    except OSError:
        return None
    kept = [line for line in lines if line.startswith(_TELLING)]
    return "".join(kept) if any(line.startswith("flags") for line in kept) else None


def _found_host() -> Target:
    llvm = binding()
    features = llvm.get_host_cpu_features().flatten()
    if "+avx512f" in features.split(","):
        features += ",-prefer-256-bit"  # LLVM halves the vectors where a CPU prefers 256 bits
    return Target(llvm.get_process_triple(), llvm.get_host_cpu_name(), features)


@cache
def _machine(target: Target) -> Any:
    llvm = binding()
    if target.triple != llvm.get_process_triple():
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
    return _new_machine(target)


def _new_machine(target: Target, jit: bool = False) -> Any:
    found = binding().Target.from_triple(target.triple)
    return found.create_target_machine(
        cpu=target.cpu, features=target.features, opt=3, reloc="pic", codemodel="small", jit=jit
    )


def _optimized(texts: Iterable[str], machine: Any, speed: int) -> Any:
    llvm = binding()
    whole = llvm.parse_assembly("")
    for text in texts:
        whole.link_in(llvm.parse_assembly(text))
    whole.triple, whole.data_layout = machine.triple, str(machine.target_data)
    whole.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=speed)
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(whole, builder)
    return whole


def compile_object(texts: Iterable[str], target: Target | None = None, speed: int = 2) -> bytes:
    """Return one object with the code of some modules of textual LLVM IR.

    A module may not define what another one defines, but for private names. All in one: emitting
    costs 4 ms an object whatever is in it.

    Raises:
        RuntimeError: LLVM refuses a module; the message is LLVM's.
    """
    with _LOCK:
        machine = _machine(target or host_target())
        return bytes(machine.emit_object(_optimized(texts, machine, speed)))


def compile_assembly(texts: Iterable[str], target: Target | None = None, speed: int = 2) -> str:
    """Return what `compile_object` would, as assembly to be read."""
    with _LOCK:
        machine = _machine(target or host_target())
        return str(machine.emit_assembly(_optimized(texts, machine, speed)))


@cache
def _linker() -> Any:
    machine = _new_machine(host_target(), jit=True)
    return binding().create_lljit_compiler(machine, use_jit_link=True)


class Code:
    """Linked code. Its addresses are valid as long as it lives."""

    def __init__(self, objects: Iterable[bytes], exports: Iterable[str]) -> None:
        """Link objects among each other and to this process (libc).

        Raises:
            RuntimeError: a name is defined twice or nowhere; the message is LLVM's.
        """
        names = list(exports)
        with _LOCK:
            library = binding().JITLibraryBuilder().add_current_process()
            for data in objects:
                library.add_object_img(data)
            for name in names:
                library.export_symbol(name)
            self._tracker = library.link(_linker(), f"tracegraph{next(_library_numbers)}")
        self._addresses: dict[str, int] = {name: self._tracker[name] for name in names}

    def address(self, name: str) -> int:
        """Return the address of an exported function."""
        return self._addresses[name]
