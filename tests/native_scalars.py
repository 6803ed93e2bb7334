"""Native functions from scalar expressions, for tests and measurements: one loop over arrays."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import pytest

from tracegraph.dtypes import DType
from tracegraph.runtime.cpu.code import llvm, storage
from tracegraph.runtime.cpu.code.llvm import Target
from tracegraph.runtime.cpu.code.scalar_language import new_library
from tracegraph.runtime.cpu.code.scalars import Emitter, Library
from tracegraph.runtime.cpu.code.values import Value


def target_of(level: str) -> llvm.Target:
    return llvm.host_target() if level == "host" else runnable(level)


def runnable(level: str) -> llvm.Target:
    """Return the target of an instruction set, or skip the test where this machine has it not."""
    host = llvm.host_target()
    if not host.triple.startswith("x86_64"):
        pytest.skip("another architecture")
    if level == "avx2" and "+avx2" not in host.features.split(","):
        pytest.skip("no AVX2 here")
    return llvm.level_target(level)


class Expression(NamedTuple):
    """An expression over the scalar language: `body(m, *values)` on operands of these dtypes."""

    name: str
    body: Callable[..., Value]
    operands: tuple[DType, ...]
    result: DType


def function_text(expression: Expression, library: Library, width: int) -> str:
    """Return a function `name(ptr out, ptr in..., i64 count)`; width divides the count.

    Its result is whether a fault was met.
    """
    m = Emitter(library, width, label="loop")
    values = []
    for i, dtype in enumerate(expression.operands):
        m.lines.append(f"  %p{i} = getelementptr [{dtype.itemsize} x i8], ptr %in{i}, i64 %i")
        values.append(storage.load(m, f"%p{i}", dtype))
    result = expression.body(m, *values)
    fault = "false"
    for _, condition in m.faults:
        found = m.any_lane(condition)
        fault, name = f"%{m.fresh()}", fault
        m.lines.append(f"  {fault} = or i1 {name}, {found}")
    m.lines.append(f"  %po = getelementptr [{expression.result.itemsize} x i8], ptr %out, i64 %i")
    storage.store(m, result, "%po", expression.result)
    inputs = "".join(f", ptr noalias %in{i}" for i in range(len(expression.operands)))
    return "\n".join(
        (
            f"define i1 @{expression.name}(ptr noalias %out{inputs}, i64 %count) {{",
            "entry:",
            "  br label %loop",
            "loop:",
            f"  %i = phi i64 [ 0, %entry ], [ %next, %{m.label} ]",
            f"  %faulty = phi i1 [ false, %entry ], [ %fault, %{m.label} ]",
            *m.lines,
            f"  %fault = or i1 %faulty, {fault}",
            f"  %next = add i64 %i, {width}",
            "  %more = icmp ult i64 %next, %count",
            "  br i1 %more, label %loop, label %done",
            "done:",
            "  ret i1 %fault",
            "}",
        )
    )


class NativeFunction:
    """A compiled expression, called with arrays of one shape. `fault` is of the last call."""

    def __init__(self, code: Any, expression: Expression, width: int) -> None:
        kinds = [ctypes.c_void_p] * (1 + len(expression.operands))
        prototype = ctypes.CFUNCTYPE(ctypes.c_bool, *kinds, ctypes.c_int64)
        self.raw = prototype(code.address(expression.name))
        self._code, self._expression, self._width = code, expression, width
        self.fault = False

    def __call__(self, *arrays: Any) -> Any:
        size = arrays[0].size
        padded = -(-size // self._width) * self._width
        out = np.empty(padded, self._expression.result.np)
        operands = []
        for array, dtype in zip(arrays, self._expression.operands, strict=True):
            assert array.dtype == dtype.np and array.size == size
            operands.append(np.resize(array, padded))
        self.fault = self.raw(out.ctypes.data, *(a.ctypes.data for a in operands), padded)
        return out[:size].reshape(arrays[0].shape)


def module_texts(expressions: Iterable[Expression], width: int, target: Target) -> list[str]:
    """Return the module of some expressions, as LLVM IR."""
    library = new_library(target)
    texts = [function_text(expression, library, width) for expression in expressions]
    return ["\n".join((*texts, library.text()))]


def undefined_symbols(data: bytes) -> set[str]:
    """Return the names that an ELF object expects others to define."""
    start, size, count = (
        struct.unpack_from(kind, data, place)[0]
        for kind, place in (("<Q", 40), ("<H", 58), ("<H", 60))
    )
    # Of each section: name, type, flags, address, offset, size, link, info, alignment, entry size.
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, start + i * size) for i in range(count)]
    found = set()
    for _, kind, _, _, offset, length, link, _, _, entry in sections:
        if kind != 2:  # the symbol table
            continue
        names = sections[link][4]
        for place in range(offset, offset + length, entry):
            name, _, _, section = struct.unpack_from("<IBBH", data, place)
            if name and not section:
                found.add(data[names + name : data.index(0, names + name)].decode())
    return found


def compiled(
    expressions: Iterable[Expression], width: int, target: Target | None = None
) -> dict[str, NativeFunction]:
    """Compile expressions for a target that this machine can run, by default its own.

    The code must not need anything else: no libm, no compiler runtime; LLVM turns plain loops into
    the copies of libc.
    """
    listed = list(expressions)
    target = target or llvm.host_target()
    data = llvm.compile_object(module_texts(listed, width, target), target)
    if data.startswith(b"\x7fELF"):
        needed = undefined_symbols(data) - {"memcpy", "memmove", "memset"}
        assert not needed, needed
    code = llvm.Code([data], [expression.name for expression in listed])
    return {e.name: NativeFunction(code, e, width) for e in listed}


def unary(name: str, dtype: DType) -> Expression:
    """Return a function of the language as an expression, called `name.dtype`."""
    return Expression(f"{name}.{dtype.code}", lambda m, x: getattr(m, name)(x), (dtype,), dtype)


def binary(name: str, dtype: DType) -> Expression:
    """Return a function of two operands, called `name.dtype`."""
    return Expression(
        f"{name}.{dtype.code}", lambda m, x, y: getattr(m, name)(x, y), (dtype, dtype), dtype
    )
