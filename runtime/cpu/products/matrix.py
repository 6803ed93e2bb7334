"""Matrix products as launches: result[.., m, n] = epilogue(sum of a[.., m, k] · b[.., k, n]).

The choice of kernels is made once, the words for extents are found as often as extents change:

    product = matrix_product(x, w, [y], [bias], Epilogue("add,relu", add_relu), target=target)
    texts = {kernel.name: kernel.text() for kernel in product.kernels}
    steps = product.steps(x, w, [y], [bias])

`x` and the others are `Array`s: transposed operands and broadcast leading dims are a matter of
strides. Buffers: operand 0 is a, 1 is b, 2 and on are the operands of the epilogue.

Where extents vary, say so: then the choice holds for all extents with which strides are of the
same kind, 1 where they were 1; the arrays it is made for are examples.

Where results lie in columns, or are one, their transposes are computed: of b by a, both transposed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from tracegraph.dtypes import DType, float32, float64
from tracegraph.runtime.cpu.code.llvm import Target
from tracegraph.runtime.cpu.code.values import UnsupportedError
from tracegraph.runtime.cpu.products.contraction import BLayout, Contraction, Extents, slots
from tracegraph.runtime.cpu.products.contraction_cut import schedule
from tracegraph.runtime.cpu.products.contraction_epilogue import Extent, Operand, Output
from tracegraph.runtime.cpu.products.contraction_tiles import tile_for
from tracegraph.runtime.cpu.products.launches import (
    PLAIN,
    Array,
    Buffer,
    Epilogue,
    Kernel,
    Launch,
    Steps,
)
from tracegraph.runtime.cpu.products.packing import PACKING_SLOTS, Packing, packing_text, source_of

# Rows of a from which on it pays to pack b first; see tests/benchmarks.
_PACKED_ROWS: Final = 384
_PACKING_NS: Final = 0.3
# Rows of a up to which columns of b are not copied into panels.
_DOT_ROWS: Final = 4


class MatrixProduct(NamedTuple):
    """The kernels of a matrix product.

    Attributes: `packing` (of b), `ahead`, `varies`, `fold` (as one asked for), `is_turned` (the
    transposed product is computed), `has_partial` (sums need a place of their own).
    """

    spec: Contraction
    packing: Packing | None
    target: Target
    ahead: bool
    varies: bool
    fold: bool | None
    is_turned: bool
    has_partial: bool

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """What is to be compiled."""
        product = Kernel(self.spec.name, _text, self.spec, self.target)
        if self.packing is None:
            return (product,)
        return product, packing_kernel(self.packing, self.target)

    def steps(
        self, a: Array, b: Array, results: Sequence[Array], operands: Sequence[Array] = ()
    ) -> Steps:
        """Return what to run for arrays of these extents."""
        arrays = _arrays(a, b, results, operands)
        matrices = _matrices(_turned(arrays) if self.is_turned else arrays, self.fold, self.varies)
        buffers = {f"result{i}": Buffer("result", i) for i in range(len(results))}
        buffers |= {f"operand{i}": Buffer("operand", 2 + i) for i in range(len(operands))}
        buffers |= {
            "a": Buffer("operand", self.is_turned),
            "b": Buffer("operand", 1 - self.is_turned),
        }
        return _steps(self, matrices, buffers)


def matrix_product(
    a: Array, b: Array, results: Sequence[Array], operands: Sequence[Array] = (),
    epilogue: Epilogue | None = None, *, target: Target, ahead: bool = False,
    varies: bool = False, fold: bool | None = None,
) -> MatrixProduct:  # fmt: skip
    """Return the kernels for a product; `ahead`: b is known before a call, and packed then.

    `fold`: leading dims of a and of the results become rows, which b must not have and strides must
    allow; None where extents are known: found from the strides.

    Raises:
        UnsupportedError: of dtypes or strides.
    """
    dtype = a.dtype
    if dtype not in (float32, float64) or b.dtype is not dtype:
        raise UnsupportedError(f"products of {a.dtype} and {b.dtype}")
    arrays = _arrays(a, b, results, operands)
    matrices = _matrices(arrays, fold, varies)
    is_thin = matrices.n == 1 and matrices.m > 1 and not varies
    is_turned = is_thin or not _are_rows(matrices)
    if is_turned:
        turned = _matrices(_turned(arrays), fold, varies)
        is_turned = _are_rows(turned)
        if not (is_turned or is_thin):
            raise UnsupportedError("results of a product in neither rows nor columns")
        matrices = turned if is_turned else matrices
    m, n, k = matrices.m, matrices.n, matrices.k
    tile = tile_for(target, dtype, None if varies else n)
    used = tuple(_operand(matrices, i, x.dtype) for i, x in enumerate(operands))
    output = Output(tuple(x.dtype for x in results), used, epilogue or PLAIN)
    b_layout: BLayout = _layout((k, n), matrices.strides["b"])
    packs = _can_pack(matrices) and not is_turned and (ahead or (not varies and m >= _PACKED_ROWS))
    a_layout = _layout((m, k), matrices.strides["a"])
    if packs:
        b_layout = "panels"
    elif (a_layout, b_layout) == ("rows", "columns") and m <= _DOT_ROWS and not varies:
        b_layout = "dots"
    spec = Contraction(dtype, a_layout, b_layout, len(matrices.batch), output, tile)
    has_partial = results[0].dtype is not dtype and (varies or k > spec.k_block)
    packing = None
    if packs:
        source = source_of(_packing_words(matrices, tile.columns), tile.width)
        source = "any" if varies and source == "runs" else source
        packing = Packing(dtype, tile.columns, tile.width, source)
    return MatrixProduct(spec, packing, target, ahead, varies, fold, is_turned, has_partial)


def _text(spec: Contraction, target: Target) -> str:
    from tracegraph.runtime.cpu.products.contraction_code import contraction_text

    return contraction_text(spec, target)


def packing_kernel(spec: Packing, target: Target) -> Kernel:
    """Return a kernel that packs."""
    return Kernel(spec.name, packing_text, spec, target)


def packing_launch(spec: Packing, words: dict[str, int], source: Buffer, panels: Buffer) -> Launch:
    """Return the launch that packs, by its words but for pointers."""
    filled: dict[str, int | Buffer] = {"source": source, "panels": panels, **words}
    elements = words["matrices"] * words["n"] * words["k2"] * words["k1"] * words["k0"]
    chunks = words["matrices"] * words["panel_count"] if elements else 0
    arguments = {name: filled[name] for name in PACKING_SLOTS}
    return Launch(spec.name, arguments, chunks, int(elements * _PACKING_NS))


def panels_bytes(words: dict[str, int], spec: Packing) -> int:
    """Return the size of what a packing writes."""
    k = words["k2"] * words["k1"] * words["k0"]
    return words["matrices"] * words["panel_count"] * k * spec.columns * spec.dtype.itemsize


def product_launch(
    spec: Contraction, extents: Extents, words: dict[str, int], buffers: dict[str, Buffer]
) -> Launch:
    """Return the launch of a contraction, by the words that it does not schedule itself."""
    launch = schedule(spec, extents)
    filled: dict[str, int | Buffer] = {**launch.words, **words, **buffers}
    arguments = {name: filled[name] for name in slots(spec)}
    flops = 2 * math.prod(extents.batch) * extents.m * extents.n * extents.k
    return Launch(spec.name, arguments, launch.chunks, launch.cost_ns, flops)


# Arrays and their strides.


def _arrays(
    a: Array, b: Array, results: Sequence[Array], operands: Sequence[Array]
) -> dict[str, Array]:
    named = {f"result{i}": x for i, x in enumerate(results)}
    return {"a": a, "b": b, **named, **{f"operand{i}": x for i, x in enumerate(operands)}}


def _turned(arrays: dict[str, Array]) -> dict[str, Array]:
    """Return the arrays of the transposed product."""
    wide = {name: _wide(array) for name, array in arrays.items()}
    found = {
        name: Array(
            (*shape[:-2], shape[-1], shape[-2]), (*strides[:-2], strides[-1], strides[-2]), dtype
        )
        for name, (shape, strides, dtype) in wide.items()
    }
    return found | {"a": found["b"], "b": found["a"]}


def _wide(array: Array) -> Array:
    """Return an array of at least two dims."""
    missing = max(0, 2 - len(array.shape))
    return Array((1,) * missing + array.shape, (0,) * missing + array.strides, array.dtype)


class _Matrices(NamedTuple):
    """A product of matrices: its extents, and the strides of each array.

    Strides are those of the batch dims, of a row, and of a column.
    """

    batch: tuple[int, ...]
    m: int
    n: int
    k: int
    strides: dict[str, tuple[int, ...]]


def _matrices(arrays: dict[str, Array], fold: bool | None, varies: bool) -> _Matrices:
    shape = arrays["result0"].shape
    strides = {
        name: _strides(x, (*shape[:-2], *x.shape[-2:]) if name in "ab" else shape)
        for name, x in arrays.items()
    }
    found = _Matrices(shape[:-2], shape[-2], shape[-1], arrays["a"].shape[-1], strides)
    while found.batch and (fold if varies else fold is not False and _can_fold(found)):
        found = _folded(found)
    return found if varies else _merged(found)


def _strides(array: Array, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides over a shape that an array is broadcast to."""
    missing = len(shape) - len(array.shape)
    own = zip(array.shape, array.strides, shape[missing:], strict=True)
    return (0,) * missing + tuple(0 if size == 1 and to != 1 else far for size, far, to in own)


def _joined(sizes: tuple[int, int], strides: tuple[int, int]) -> int | None:
    """Return the stride of two dims as one, None if they cannot be."""
    (outer, inner), (far, near) = sizes, strides
    if inner == 1:
        return far
    return near if outer == 1 or far == near * inner else None


def _can_fold(x: _Matrices) -> bool:
    """Whether the last batch dim and the rows are one dim, which b does not have."""
    size, d = x.batch[-1], len(x.batch) - 1
    if size != 1 and x.strides["b"][d] != 0:
        return False
    sides = [s for name, s in x.strides.items() if name != "b"]
    return all(_joined((size, x.m), (s[d], s[-2])) is not None for s in sides)


def _folded(x: _Matrices) -> _Matrices:
    """Return the last batch dim as rows."""
    size, d = x.batch[-1], len(x.batch) - 1
    strides = {}
    for name, s in x.strides.items():
        row = s[-2]
        if name != "b" and x.m == 1 and size != 1:
            row = s[d]
        strides[name] = (*s[:d], row, s[-1])
    return x._replace(batch=x.batch[:-1], m=size * x.m, strides=strides)


def _merged(x: _Matrices) -> _Matrices:
    """Return as few batch dims as there can be."""
    for d in reversed(range(len(x.batch))):
        if x.batch[d] == 1:
            strides = {name: s[:d] + s[d + 1 :] for name, s in x.strides.items()}
            x = x._replace(batch=x.batch[:d] + x.batch[d + 1 :], strides=strides)
    for d in reversed(range(len(x.batch) - 1)):
        sizes = (x.batch[d], x.batch[d + 1])
        near = {name: _joined(sizes, (s[d], s[d + 1])) for name, s in x.strides.items()}
        if None not in near.values():
            strides = {n: (*s[:d], near[n] or 0, *s[d + 2 :]) for n, s in x.strides.items()}
            batch = (*x.batch[:d], sizes[0] * sizes[1], *x.batch[d + 2 :])
            x = x._replace(batch=batch, strides=strides)
    return x


def _layout(sizes: tuple[int, int], strides: tuple[int, ...]) -> Literal["rows", "columns"]:
    """Return which index of a matrix is contiguous."""
    if strides[-1] == 1:
        return "rows"
    if strides[-2] == 1:
        return "columns"
    if min(sizes) > 1:
        raise UnsupportedError("a matrix in neither rows nor columns")
    return "rows" if sizes[1] <= 1 else "columns"


def _are_rows(x: _Matrices) -> bool:
    """Whether results lie in rows, and operands that vary by columns as well."""
    if x.n <= 1 or x.m == 0:
        return True
    results = all(s[-1] == 1 for name, s in x.strides.items() if name.startswith("result"))
    return results and all(s[-1] in (0, 1) for n, s in x.strides.items() if n.startswith("op"))


def _operand(x: _Matrices, number: int, dtype: DType) -> Operand:
    """Return what an operand of the epilogue varies by."""
    *_, row, column = x.strides[f"operand{number}"]
    names: dict[tuple[bool, bool], Extent] = {
        (False, False): "scalar", (False, True): "column", (True, False): "row",
        (True, True): "place",
    }  # fmt: skip
    return Operand(names[row != 0, column == 1], dtype)


# Launches.


def _own_dims(x: _Matrices) -> list[int]:
    """Return the batch dims that b has."""
    return [d for d, far in enumerate(x.strides["b"][:-2]) if far]


def _can_pack(x: _Matrices) -> bool:
    return len(_own_dims(x)) <= 1


def _packing_words(x: _Matrices, columns: int) -> dict[str, int]:
    *batch, k_stride, n_stride = x.strides["b"]
    own = _own_dims(x)
    return {
        "n": x.n, "panel_count": -(-x.n // columns), "k2": 1, "k1": 1, "k0": x.k,
        "k2_stride": 0, "k1_stride": 0, "k0_stride": k_stride, "n_stride": n_stride,
        "matrices": x.batch[own[0]] if own else 1, "matrix_stride": batch[own[0]] if own else 0,
    }  # fmt: skip


def _steps(product: MatrixProduct, x: _Matrices, buffers: dict[str, Buffer]) -> Steps:
    spec, packing = product.spec, product.packing
    strides, before = dict(x.strides), []
    scratch: list[int] = []
    packed: list[int] = []
    if packing is not None:
        words = _packing_words(x, packing.columns)
        sizes = packed if product.ahead else scratch
        panels = Buffer("packed" if product.ahead else "scratch", len(sizes))
        sizes.append(panels_bytes(words, packing))
        before.append(packing_launch(packing, words, buffers["b"], panels))
        each = words["panel_count"] * x.k * packing.columns
        far = [each if own else 0 for own in strides["b"][:-2]]
        strides["b"], buffers["b"] = (*far, 0, 0), panels
    if product.has_partial:
        buffers["partial"] = Buffer("scratch", len(scratch))
        inner = [math.prod(x.batch[d + 1 :]) * x.m * x.n for d in range(len(x.batch))]
        strides["partial"] = (*inner, x.n, 1)
        scratch.append(math.prod(x.batch) * x.m * x.n * spec.dtype.itemsize)
    else:
        buffers["partial"], strides["partial"] = buffers["result0"], strides["result0"]
    words = {f"{name}_stride": s[-2] for name, s in strides.items()}
    words |= {
        f"{name}_stride": strides[name][-1]
        for name, layout in (("a", spec.a), ("b", spec.b))
        if layout in ("columns", "dots")
    }
    for name, s in strides.items():
        words |= {f"{name}_batch{d}": far for d, far in enumerate(s[:-2])}
    if spec.b == "panels":
        del words["b_stride"]
    launch = product_launch(spec, Extents(x.batch, x.m, x.n, x.k), words, buffers)
    may_alias = product.has_partial or (not product.varies and x.k <= spec.k_block)
    if product.ahead:
        return Steps((launch,), tuple(before), tuple(packed), tuple(scratch), may_alias)
    return Steps((*before, launch), (), (), tuple(scratch), may_alias)
