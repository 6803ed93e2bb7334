"""Runs contraction and convolution kernels on NumPy arrays, for their tests and benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from tracegraph.dtypes import BY_NUMPY, DType, float32
from tracegraph.runtime.cpu import convolution
from tracegraph.runtime.cpu.contraction import Contraction, Extents, slots
from tracegraph.runtime.cpu.contraction_code import contraction_text
from tracegraph.runtime.cpu.contraction_cut import schedule
from tracegraph.runtime.cpu.contraction_epilogue import Output
from tracegraph.runtime.cpu.contraction_tiles import Tile, tile_for
from tracegraph.runtime.cpu.convolution import DepthwiseProduct, Geometry, Product
from tracegraph.runtime.cpu.convolution_depthwise import (
    Depthwise,
    depthwise_slots,
    depthwise_text,
)
from tracegraph.runtime.cpu.convolution_depthwise_grad import (
    GRADIENT_SLOTS,
    DepthwiseGradient,
    gradient_text,
)
from tracegraph.runtime.cpu.llvm import Code, Target, compile_object, host_target
from tracegraph.runtime.cpu.packing import (
    PACKING_SLOTS,
    Packing,
    aligned_zeros,
    pack_panels,
    packed_shape,
    packing_text,
)
from tracegraph.runtime.cpu.pool import Call, Pool
from tracegraph.runtime.cpu.transposition import (
    TRANSPOSITION_SLOTS,
    Transposition,
    schedule_transposition,
    transposition_text,
)

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
    record = np.array([[address, block.ctypes.data, chunks]], np.int64)
    return Call(record, np.zeros(8, np.int64), max(1, cost_ns)), block


def run_contraction(
    spec: Contraction, extents: Extents, words: dict[str, int], arrays: dict[str, np.ndarray],
    target: Target, offset: int = 0,
) -> Run:  # fmt: skip
    """Return a run; `arrays` by the names of pointers; results begin at `offset`."""
    code, address = kernel_code(spec, target)
    launch = schedule(spec, extents)
    pointers = {name: array.ctypes.data for name, array in arrays.items()}
    for name, array in arrays.items():
        if name.startswith("result") or (name.startswith("operand") and array.ndim > 1):
            pointers[name] += offset * array.itemsize
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


# Convolutions: arrays are NHWC, weights [out, in, y, x].


def packed_weight(weight: np.ndarray, product: Product, tile: Tile, target: Target) -> np.ndarray:
    """Return the panels of a product's weight, packed by the native kernel."""
    assert product.panels is not None
    spec = Packing(BY_NUMPY[weight.dtype], tile.columns)
    code = _linked(spec.name, packing_text(spec), target)
    shape = packed_shape(
        (product.panels.words["matrices"], product.extents.k, product.extents.n), tile.columns
    )
    panels = aligned_zeros(shape, weight.dtype)
    words = product.panels.words | {
        "source": weight.ctypes.data + product.panels.offset * weight.itemsize,
        "panels": panels.ctypes.data,
    }
    chunks = shape[0] * shape[1]
    call, block = call_of(code.address(spec.name), [words[x] for x in PACKING_SLOTS], chunks, 1)
    assert call.run(ALONE) == 0
    del block
    return panels


def _product_run(
    product: Product, arrays: dict[str, np.ndarray], output: Output, dtype: DType, tile: Tile,
    target: Target,
) -> Run:  # fmt: skip
    spec = Contraction(dtype, product.a, product.b, len(product.extents.batch), output, tile)
    words = dict(product.words)
    for name in arrays:
        if name not in ("a", "b"):
            words |= {f"{name}_{level}": stride for level, stride in product.rows.items()}
            words |= {f"{name}_batch{d}": stride for d, stride in enumerate(product.batch)}
    return run_contraction(spec, product.extents, words, arrays, target, product.offset)


def convolve(
    x: np.ndarray, weight: np.ndarray, g: Geometry, *, output: Output | None = None,
    operands: Sequence[np.ndarray] = (), target: Target | None = None,
) -> Run:  # fmt: skip
    """Return a run of a convolution; operands are per channel, or like the result."""
    target = target or host_target()
    dtype = BY_NUMPY[x.dtype]
    tile = tile_for(target, dtype, g.outer)
    product = convolution.forward(g, tile.columns)
    output = output or Output((dtype,))
    made = aligned_zeros((g.images, *g.out_size, g.out_channels), x.dtype)
    made.view(np.uint8)[...] = 0xA5
    arrays = {"a": x, "b": packed_weight(weight, product, tile, target), "result0": made}
    arrays |= {f"operand{i}": y for i, y in enumerate(operands)}
    return _product_run(product, arrays, output, dtype, tile, target)


def input_gradient(
    dy: np.ndarray, weight: np.ndarray, g: Geometry, target: Target | None = None
) -> list[Run]:
    """Return the runs that together write the gradient of the input."""
    target = target or host_target()
    dtype = BY_NUMPY[dy.dtype]
    tile = tile_for(target, dtype, g.inner)
    made = aligned_zeros((g.images, *g.size, g.channels), dy.dtype)
    made.view(np.uint8)[...] = 0xA5
    runs = []
    for product in convolution.input_grad(g, tile.columns):
        arrays = {"a": dy, "b": packed_weight(weight, product, tile, target), "result0": made}
        runs.append(_product_run(product, arrays, Output((dtype,)), dtype, tile, target))
    return runs


def weight_gradient(
    x: np.ndarray, dy: np.ndarray, g: Geometry, target: Target | None = None
) -> Run:
    """Return a run of the gradient of the weight, [out, y, x, in]."""
    target = target or host_target()
    dtype = BY_NUMPY[dy.dtype]
    product = convolution.weight_grad(g)
    tile = tile_for(target, dtype, product.extents.n)
    made = aligned_zeros((g.out_channels, *g.window, g.inner), dy.dtype)
    made.view(np.uint8)[...] = 0xA5
    arrays = {"a": dy, "b": x, "result0": made}
    return _product_run(product, arrays, Output((dtype,)), dtype, tile, target)


def _depthwise_run(
    product: DepthwiseProduct, arrays: dict[str, np.ndarray], output: Output, target: Target
) -> Run:
    dtype = BY_NUMPY[arrays["a"].dtype]
    spec = Depthwise(dtype, output, target.vector_bytes // dtype.itemsize)
    code = _linked(spec.name, depthwise_text(spec, target), target)
    words = dict(product.words)
    for name, array in arrays.items():
        words[name] = array.ctypes.data
        words |= {f"{name}_{level}": stride for level, stride in product.rows.items()}
    words["b"] += product.weight_offset * arrays["b"].itemsize
    words["result0"] += product.offset * arrays["result0"].itemsize
    block = [words[name] for name in depthwise_slots(spec)]
    call, kept = call_of(code.address(spec.name), block, product.chunks, product.cost_ns)
    return Run(call, [arrays["result0"]], (code, kept, *arrays.values()))


def _by_taps(weight: np.ndarray) -> np.ndarray:
    """Return weights [channels, 1, y, x] as [taps, channels]."""
    return np.ascontiguousarray(weight.reshape(weight.shape[0], -1).T)


def convolve_depthwise(
    x: np.ndarray, weight: np.ndarray, g: Geometry, *, output: Output | None = None,
    operands: Sequence[np.ndarray] = (), target: Target | None = None,
) -> Run:  # fmt: skip
    output = output or Output((BY_NUMPY[x.dtype],))
    made = aligned_zeros((g.images, *g.out_size, g.out_channels), x.dtype)
    made.view(np.uint8)[...] = 0xA5
    arrays = {"a": x, "b": _by_taps(weight), "result0": made}
    arrays |= {f"operand{i}": y for i, y in enumerate(operands)}
    product = convolution.depthwise_forward(g)
    return _depthwise_run(product, arrays, output, target or host_target())


def depthwise_input_gradient(
    dy: np.ndarray, weight: np.ndarray, g: Geometry, target: Target | None = None
) -> list[Run]:
    made = aligned_zeros((g.images, *g.size, g.channels), dy.dtype)
    made.view(np.uint8)[...] = 0xA5
    arrays = {"a": dy, "b": _by_taps(weight), "result0": made}
    return [
        _depthwise_run(product, arrays, Output((BY_NUMPY[dy.dtype],)), target or host_target())
        for product in convolution.depthwise_input_grad(g)
    ]


def depthwise_weight_gradient(
    x: np.ndarray, dy: np.ndarray, g: Geometry, target: Target | None = None
) -> Run:
    """Return a run of the gradient of the weight, [taps, channels]."""
    target = target or host_target()
    dtype = BY_NUMPY[x.dtype]
    spec = DepthwiseGradient(dtype, target.vector_bytes // dtype.itemsize)
    code = _linked(spec.name, gradient_text(spec, target), target)
    made = aligned_zeros((g.window[0] * g.window[1], g.channels), x.dtype)
    made.view(np.uint8)[...] = 0xA5
    words = convolution.depthwise_weight_grad(g)
    words |= {"x": x.ctypes.data, "dy": dy.ctypes.data, "dw": made.ctypes.data}
    chunks = made.shape[0] * -(-g.channels // spec.width)
    block = [words[name] for name in GRADIENT_SLOTS]
    call, kept = call_of(code.address(spec.name), block, chunks, 1 << 20)
    return Run(call, [made], (code, kept, x, dy))


def transpose(x: np.ndarray, target: Target | None = None) -> Run:
    """Return a run of the transposition of x[matrix, row, column]."""
    target, dtype = target or host_target(), BY_NUMPY[x.dtype]
    matrices, rows, columns = x.shape
    spec = Transposition(dtype, target.vector_bytes // dtype.itemsize)
    code = _linked(spec.name, transposition_text(spec), target)
    made = np.zeros((matrices, columns, rows), x.dtype)
    words, chunks, cost_ns = schedule_transposition(spec, matrices, rows, columns)
    words |= {
        "source": x.ctypes.data, "source_matrix": rows * columns, "source_row": columns,
        "target": made.ctypes.data, "target_matrix": rows * columns, "target_row": rows,
    }  # fmt: skip
    block = [words[name] for name in TRANSPOSITION_SLOTS]
    call, kept = call_of(code.address(spec.name), block, chunks, cost_ns)
    return Run(call, [made], (code, kept, x))
