"""Runs contraction and convolution kernels on NumPy arrays, for their tests and benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from tracegraph.dtypes import BY_NUMPY, DType, float32
from tracegraph.runtime.cpu.code.llvm import Code, Target, compile_object, host_target
from tracegraph.runtime.cpu.driver.pool import Call, Pool
from tracegraph.runtime.cpu.products.contraction import Contraction, Extents, slots
from tracegraph.runtime.cpu.products.contraction_code import contraction_text
from tracegraph.runtime.cpu.products.contraction_cut import schedule
from tracegraph.runtime.cpu.products.contraction_epilogue import Output
from tracegraph.runtime.cpu.products.contraction_tiles import Tile, tile_for
from tracegraph.runtime.cpu.products.convolution import Geometry
from tracegraph.runtime.cpu.products.convolution_products import (
    convolution,
    convolution_input_grad,
    convolution_weight_grad,
)
from tracegraph.runtime.cpu.products.launches import Array, Buffer, Epilogue, Kernel, Launch, Steps
from tracegraph.runtime.cpu.products.matrix import matrix_product
from tracegraph.runtime.cpu.products.packing import aligned_zeros, pack_panels
from tracegraph.runtime.cpu.products.transposition import Matrices, Transposition

ALONE = Pool(0)


@cache
def _linked(name: str, text: str, target: Target) -> Code:
    return Code([compile_object([text], target)], [name])


def spec_of(a: Any, b: Any, target: Target | None = None) -> Contraction:
    """Return a spec of float32 without batch dims or epilogue."""
    tile = tile_for(target or host_target(), float32)
    return Contraction(float32, a, b, 0, Output((float32,)), tile)


@cache
def kernel_code(spec: Contraction, target: Target) -> tuple[Code, int]:
    """Return a kernel's code and address."""
    code = _linked(spec.name, contraction_text(spec, target), target)
    return code, code.address(spec.name)


class Run(NamedTuple):
    """A plan of one record, its results, and what it must keep alive."""

    call: Call
    results: list[np.ndarray]
    kept: tuple[Any, ...]

    def __call__(self, pool: Pool = ALONE) -> np.ndarray:
        assert self.call.run(pool) == 0
        return self.results[0]


def call_of(address: int, words: Sequence[int], chunks: int, cost_ns: int) -> tuple[Call, Any]:
    block = np.array(words, np.int64)
    record = np.array([[address, block.ctypes.data, chunks, 0]], np.int64)
    return Call(record, np.zeros(8, np.int64), max(1, cost_ns)), block


def run_contraction(
    spec: Contraction, extents: Extents, words: dict[str, int], arrays: dict[str, np.ndarray],
    target: Target,
) -> Run:  # fmt: skip
    """Return a run; `arrays` by the names of pointers."""
    code, address = kernel_code(spec, target)
    launch = schedule(spec, extents)
    pointers = {name: array.ctypes.data for name, array in arrays.items()}
    pointers["partial"] = pointers["result0"]
    words |= {f"partial{x[7:]}": far for x, far in words.items() if x.startswith("result0_")}
    filled = launch.words | words | pointers
    block = [filled[name] for name in slots(spec)]
    call, kept = call_of(address, block, launch.chunks, launch.cost_ns)
    results = [arrays[f"result{i}"] for i in range(len(spec.output.results))]
    return Run(call, results, (code, kept, *arrays.values()))


def _stored(array: np.ndarray, layout: str, tile: Tile) -> tuple[np.ndarray, int]:
    """Return an array [.., i, j] in a layout, and its stride in elements."""
    if layout == "panels":
        panels = pack_panels(array, tile.columns)
        return panels, array.shape[-2] * tile.columns
    if layout == "rows":
        return np.ascontiguousarray(array), array.shape[-1]
    return np.ascontiguousarray(array.swapaxes(-1, -2)), array.shape[-2]


def _batch_words(name: str, array: np.ndarray, lead: tuple[int, ...], inner: int) -> dict[str, int]:
    shape = (1,) * (len(lead) + inner - array.ndim) + array.shape
    strides = (0,) * (len(lead) + inner - array.ndim) + array.strides
    return {
        f"{name}_batch{d}": 0 if shape[d] == 1 else strides[d] // array.itemsize
        for d in range(len(lead))
    }


def matmul(
    a: np.ndarray, b: np.ndarray, layouts: tuple[Any, Any] = ("rows", "panels"), *,
    output: Output | None = None, operands: Sequence[np.ndarray] = (),
    target: Target | None = None, known_columns: bool = True,
) -> Run:  # fmt: skip
    """Return a run of a[.., m, k] @ b[.., k, n], the operands copied to the given layouts."""
    target = target or host_target()
    dtype = BY_NUMPY[a.dtype]
    (m, k), n = a.shape[-2:], b.shape[-1]
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    tile = tile_for(target, dtype, n if known_columns else None)
    output = output or Output((dtype,))
    spec = Contraction(dtype, *layouts, len(lead), output, tile)
    stored_a, a_stride = _stored(a, layouts[0], tile)
    stored_b, b_stride = _stored(b, layouts[1], tile)
    words = {"a_stride": a_stride, "b_stride": b_stride}
    words |= _batch_words("a", stored_a, lead, 2)
    words |= _batch_words("b", stored_b, lead, 3 if layouts[1] == "panels" else 2)
    arrays = {"a": stored_a, "b": stored_b}
    for i, result in enumerate(output.results):
        made = aligned_zeros((*lead, m, n), result.np)
        made.view(np.uint8)[...] = 0xA5
        arrays[f"result{i}"] = made
        words |= {f"result{i}_stride": n} | _batch_words(f"result{i}", made, lead, 2)
    for i, (operand, array) in enumerate(zip(output.operands, operands, strict=True)):
        arrays[f"operand{i}"] = array
        words[f"operand{i}_stride"] = {"row": 1, "place": n}.get(operand.extent, 0)
        inner = {"scalar": 0, "row": 1, "column": 1, "place": 2}[operand.extent]
        words |= _batch_words(f"operand{i}", array, lead, inner)
    return run_contraction(spec, Extents(lead, m, n, k), words, arrays, target)


# Steps of products and convolutions. Arrays are NHWC, weights [out, in, y, x].


def array_of(x: np.ndarray) -> Array:
    """Return how a NumPy array lies in memory."""
    return Array(x.shape, tuple(far // x.itemsize for far in x.strides), BY_NUMPY[x.dtype])


def run_steps(
    kernels: Sequence[Kernel], steps: Steps, operands: Sequence[np.ndarray],
    results: Sequence[np.ndarray], target: Target,
) -> Run:  # fmt: skip
    """Return a run of the launches; those ahead are run at once."""
    codes = {kernel.name: _linked(kernel.name, kernel.text(), target) for kernel in kernels}
    buffers = {
        "operand": list(operands),
        "result": list(results),
        "packed": [_filled(size) for size in steps.packed_bytes],
        "scratch": [_filled(size) for size in steps.scratch_bytes],
    }
    blocks = []

    def record(launch: Launch) -> list[int]:
        words = [
            buffers[x.kind][x.number].ctypes.data + x.offset_bytes if isinstance(x, Buffer) else x
            for x in launch.arguments.values()
        ]
        blocks.append(np.array(words, np.int64))
        address = codes[launch.kernel].address(launch.kernel)
        return [address, blocks[-1].ctypes.data, launch.chunks, 0]

    def call(launches: Sequence[Launch]) -> Call:
        records = np.array([record(launch) for launch in launches], np.int64).reshape(-1, 4)
        cost_ns = sum(launch.cost_ns for launch in launches)
        return Call(records, np.zeros(8, np.int64), max(1, cost_ns))

    assert call(steps.ahead).run(ALONE) == 0
    return Run(call(steps.launches), list(results), (codes, blocks, buffers))


def _filled(size: int) -> np.ndarray:
    """Return aligned bytes of which no kernel may expect anything."""
    found = aligned_zeros((size,), np.dtype(np.uint8))
    found[...] = 0xFF
    return found


def _result(shape: tuple[int, ...], dtype: DType) -> np.ndarray:
    made = aligned_zeros(shape, dtype.np)
    made.view(np.uint8)[...] = 0xA5
    return made


def product_run(
    a: np.ndarray, b: np.ndarray, operands: Sequence[np.ndarray] = (),
    epilogue: Epilogue | None = None, *, results: Sequence[np.ndarray] | None = None,
    target: Target | None = None, **how: Any,
) -> Run:  # fmt: skip
    """Return a run of a matrix product as the arrays lie in memory."""
    target = target or host_target()
    if results is None:
        lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        results = [_result((*lead, a.shape[-2], b.shape[-1]), BY_NUMPY[a.dtype])]
    views = array_of(a), array_of(b), list(map(array_of, results)), list(map(array_of, operands))
    made = matrix_product(*views, epilogue, target=target, **how)
    return run_steps(made.kernels, made.steps(*views), (a, b, *operands), results, target)


def convolve(
    x: np.ndarray, weight: np.ndarray, g: Geometry, *, operands: Sequence[np.ndarray] = (),
    epilogue: Epilogue | None = None, target: Target | None = None, ahead: bool = True,
    results: Sequence[DType] | None = None,
) -> Run:  # fmt: skip
    """Return a run of a convolution."""
    target, dtype = target or host_target(), BY_NUMPY[x.dtype]
    views = list(map(array_of, operands))
    how: dict[str, Any] = {"target": target, "ahead": ahead}
    made = convolution(g, dtype, results, views, epilogue, **how)
    outputs = [_result((g.images, *g.out_size, g.out_channels), r) for r in results or (dtype,)]
    return run_steps(made.kernels, made.steps(g, views), (x, weight, *operands), outputs, target)


def input_gradient(
    dy: np.ndarray, weight: np.ndarray, g: Geometry, *, operands: Sequence[np.ndarray] = (),
    epilogue: Epilogue | None = None, target: Target | None = None, ahead: bool = False,
) -> Run:  # fmt: skip
    """Return a run of the gradient of the input."""
    target, dtype = target or host_target(), BY_NUMPY[dy.dtype]
    views = list(map(array_of, operands))
    how: dict[str, Any] = {"target": target, "ahead": ahead}
    made = convolution_input_grad(g, dtype, None, views, epilogue, **how)
    outputs = [_result((g.images, *g.size, g.channels), dtype)]
    return run_steps(made.kernels, made.steps(g, views), (dy, weight, *operands), outputs, target)


def weight_gradient(
    x: np.ndarray, dy: np.ndarray, g: Geometry, target: Target | None = None
) -> Run:
    """Return a run of the gradient of the weight."""
    target, dtype = target or host_target(), BY_NUMPY[x.dtype]
    made = convolution_weight_grad(g, dtype, target=target)
    outputs = [_result((g.out_channels, g.inner, *g.window), dtype)]
    return run_steps(made.kernels, made.steps(g), (x, dy), outputs, target)


def transpose(x: np.ndarray, target: Target | None = None) -> Run:
    """Return a run of the transposition of x[matrix, row, column]."""
    target, dtype = target or host_target(), BY_NUMPY[x.dtype]
    made = Transposition.of(dtype, 1, target)
    outputs = [_result((x.shape[0], x.shape[2], x.shape[1]), dtype)]
    launch = made.launch(Matrices.dense(*x.shape), Buffer("operand", 0), Buffer("result", 0))
    return run_steps([made.kernel(target)], Steps((launch,)), (x,), outputs, target)
