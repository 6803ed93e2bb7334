"""The time of each step of a native plan, and what this machine can do at most."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tracegraph.dtypes import DType, float32, float64
from tracegraph.runtime.cpu.arrays import Arenas, Arrays, lines
from tracegraph.runtime.cpu.code.llvm import Target, host_target
from tracegraph.runtime.cpu.code.scalars import Abilities
from tracegraph.runtime.cpu.code.values import element_type
from tracegraph.runtime.cpu.code.writer import METADATA, Carried, Writer, function
from tracegraph.runtime.cpu.context import Context
from tracegraph.runtime.cpu.driver.layout import RECORD_WORDS
from tracegraph.runtime.cpu.driver.pool import Call, get_num_threads
from tracegraph.runtime.cpu.kernels import addresses, name_of
from tracegraph.runtime.cpu.lowering.steps import HostCall

if TYPE_CHECKING:
    from tracegraph.runtime.cpu.explaining import Work
    from tracegraph.runtime.cpu.program import Compiled

_BUDGET_S: Final = 0.2
_CALL_BUDGET_S: Final = 0.01
_LEAST_RUNS: Final = 3
_LEAST_S: Final = 5e-8  # what a clock can tell
_MOST_RUNS: Final = 200
# Of the kernels that measure peaks: sums side by side, turns of a chunk, chunks; and bytes that a
# copy moves: in a core's cache, in the shared one, in memory.
_SUMS: Final = 12
_TURNS: Final = 2000
_CHUNKS: Final = 64
_MOVED: Final = (1 << 18, 1 << 22, 1 << 26)
_COSTS_NS: Final = 1 << 40


class Profile(NamedTuple):
    """Seconds of each step of a plan, and the peak of the machine."""

    seconds: list[float]
    peak: Peak


class Peak(NamedTuple):
    """The most operations a second by dtype, and bytes a second by how many are moved."""

    flops: dict[DType, float]
    copies: dict[int, float]

    def share(self, work: Work, seconds: float) -> float:
        """Return what part of a peak a step reaches: of arithmetic or of memory."""
        if not seconds:
            return 0.0
        moved = work.read + work.written
        size = next((size for size in self.copies if size >= moved), max(self.copies))
        return max(work.flops / self.flops[work.dtype], moved / self.copies[size]) / seconds

    def __str__(self) -> str:
        rates = [f"{rate / 1e9:.0f} GFLOP/s {dtype.code}" for dtype, rate in self.flops.items()]
        rates += [
            f"{rate / 1e9:.0f} GB/s of {size >> 10} KiB" for size, rate in self.copies.items()
        ]
        return ", ".join(rates)


def profiled(
    compiled: Compiled, inputs: Sequence[Any], states: Mapping[str, Any], stamp_of: Any
) -> Profile:
    """Return the least time of each step, each one run by a call of its own.

    The steps run in order, so that each finds what it does in a call. Nothing is committed; what
    the host does besides computing it does again.
    """
    inputs = [_dense(a) for a in inputs]
    written = [p.buffer.key for p in compiled.plan.results if p.buffer.origin == "state"]
    own = {name: states[name].copy() for name in written}
    given, states = states, {name: _dense(a) for name, a in states.items()} | own
    context = Context(compiled)
    context.lie_in(Arenas().take(compiled.arena.bytes))
    results = context.run(inputs, states, stamp_of)
    arrays = Arrays(inputs, states)
    for place, array in zip(compiled.plan.results, results, strict=True):
        arrays.held[place.buffer] = array
    calls = _calls(compiled, context, arrays)
    idle = _least(Call(np.empty((0, RECORD_WORDS), np.int64), np.zeros(1, np.int64), 0).run)
    seconds = [float("inf")] * len(calls)
    end, runs = time.perf_counter() + _BUDGET_S, 0
    while runs < _LEAST_RUNS or (runs < _MOST_RUNS and time.perf_counter() < end):
        runs += 1
        for name, array in own.items():
            np.copyto(array, given[name])
        for number, call in enumerate(calls):
            began = time.perf_counter()
            call()
            took = time.perf_counter() - began
            seconds[number] = min(seconds[number], max(took - idle, _LEAST_S))
    return Profile(seconds, peak(get_num_threads()))


def _calls(compiled: Compiled, context: Context, arrays: Arrays) -> list[Callable[[], Any]]:
    """Return what runs each step alone."""
    records = compiled.blocks.records(context.words)
    records[:, -1] = 0  # no groups
    frame = np.zeros(1, np.int64)
    calls: list[Callable[[], Any]] = []
    for part in compiled.parts:
        if part.host is not None:
            calls.append(_host_call(context, part.host, arrays))
        calls += [
            Call(records[i : i + 1], frame, part.cost_ns).run for i in range(part.begin, part.end)
        ]
    return calls


def _host_call(context: Context, step: HostCall, arrays: Arrays) -> Callable[[], Any]:
    return lambda: context.host(step, arrays)


def _dense(array: Any) -> Any:
    return array if array.flags.c_contiguous else array.copy(order="C")


def _least(call: Callable[[], Any]) -> float:
    """Return the least seconds of a call."""
    took, end, runs = float("inf"), time.perf_counter() + _CALL_BUDGET_S, 0
    while runs < _LEAST_RUNS or time.perf_counter() < end:
        began = time.perf_counter()
        call()
        took, runs = min(took, time.perf_counter() - began), runs + 1
    return took


# The peak.


class _PeakKernel(NamedTuple):
    """Sums in registers, or, without a number of sums, memory to memory.

    Words: where from, where to, elements of a chunk. A chunk of sums stores one vector.
    """

    dtype: DType
    sums: int
    target: Target

    @property
    def name(self) -> str:
        return name_of("peak", self.dtype.code, self.sums)

    def text(self) -> str:
        w, kind = Writer(), element_type(self.dtype)
        width = self.target.vector_bytes // self.dtype.itemsize
        vector, has_fma = f"<{width} x {kind}>", Abilities.of(self.target).fma
        source = w.load("ptr", "%arguments", 8)
        target, size = (w.load(k, w.at("%arguments", i, "i64"), 8)
                        for i, k in ((1, "ptr"), (2, "i64")))  # fmt: skip

        def add(chunk: str) -> None:
            x = w.load_lanes(kind, width, source, None)

            def turn(values: list[str]) -> list[str | int]:
                made = [w.multiply_add(kind, width, has_fma, v, x, x) for v in values[1:]]
                return [w.add(values[0], 1), *made]

            start: list[Carried] = [("i64", 0), *[(vector, x)] * self.sums]
            _, *found = w.repeat(start, lambda v: w.compare("slt", v[0], _TURNS), turn)
            total = found[0]
            for value in found[1:]:
                total = w.let(f"fadd {vector} {total}, {value}")
            w.store_lanes(kind, width, total, w.at(target, w.mul(chunk, width), kind), None)

        def copy(chunk: str) -> None:
            first = w.mul(chunk, size)

            def turn(place: str) -> None:
                for i in range(4):
                    at = w.add(w.add(first, place), i * width)
                    x = w.load_lanes(kind, width, w.at(source, at, kind), None)
                    x = w.let(f"fneg {vector} {x}")  # a plain copy would become a call
                    w.store_lanes(kind, width, x, w.at(target, at, kind), None)

            w.loop(size, turn, step=4 * width)

        w.loop("%end", add if self.sums else copy, "%begin")
        parameters = ("ptr %arguments", "ptr %frame", "i64 %begin", "i64 %end")
        return "\n".join((function(self.name, parameters, w, "nounwind"), METADATA))


@cache
def peak(threads: int) -> Peak:
    """Return the peak of this machine with a number of threads; measured once."""
    target = host_target()
    sums = {dtype: _PeakKernel(dtype, _SUMS, target) for dtype in (float32, float64)}
    copies = _PeakKernel(float32, 0, target)
    found = addresses((*sums.values(), copies))
    memory = lines(max(_MOVED))
    memory[:] = 0
    flops = {}
    for dtype, kernel in sums.items():
        width = target.vector_bytes // dtype.itemsize
        took = _timed(found[kernel.name], memory, 4096, 1, _CHUNKS)
        flops[dtype] = 2.0 * _SUMS * width * _TURNS * _CHUNKS / took
    rates = {}
    for moved in _MOVED:
        chunk = min(1 << 15, moved // 8)  # bytes
        took = _timed(found[copies.name], memory, moved // 2, chunk // 4, moved // 2 // chunk)
        rates[moved] = moved / took
    return Peak(flops, rates)


def _timed(kernel: int, memory: NDArray[Any], far: int, size: int, chunks: int) -> float:
    base = int(memory.ctypes.data)
    words = np.array([base, base + far, size], np.int64)
    records = np.array([[kernel, words.ctypes.data, chunks, 0]], np.int64)
    return _least(Call(records, np.zeros(1, np.int64), _COSTS_NS).run)
