"""Data movement and windows of the native runtime: no host calls, and the interpreter's answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.test_ops_table import SAMPLES, accepts, operands
from tracegraph.dtypes import (
    DType,
    bfloat16,
    bool_,
    float16,
    float32,
    float64,
    int32,
    int64,
    uint8,
    uint32,
)
from tracegraph.eager.tensors import type_of, wrap
from tracegraph.ir.graph import Graph, Value
from tracegraph.runtime.cpu.code.llvm import compile_assembly, level_target
from tracegraph.runtime.cpu.driver.pool import set_num_threads
from tracegraph.runtime.cpu.lowering.lowering import Lowering
from tracegraph.runtime.cpu.lowering.steps import HostCall, Launch
from tracegraph.runtime.cpu.lowering.templates import TEMPLATES
from tracegraph.runtime.cpu.moves.selection_code import Selection, selection_kernel
from tracegraph.runtime.cpu.program import NativeProgram
from tracegraph.runtime.interpreter import InterpreterProgram
from tracegraph.tensor_type import TensorType

pytestmark = pytest.mark.usefixtures("kept_threads")

DTYPES = (float32, float32, float64, float16, bfloat16, int64, uint8, bool_)
TOLERANCE = {float16: 1e-2, bfloat16: 6e-2, float32: 1e-5}
EXTENTS = st.sampled_from((1, 2, 3, 5, 8, 17, 33, 70))
# Operands that are indices, or that lie in memory in another order of the dims.
Operand = np.ndarray[Any, Any]


def built(
    op: str, arrays: Sequence[Operand], dtypes: Sequence[DType], orders: dict[int, Any],
    **attrs: Any,
) -> tuple[Graph, list[Operand]]:  # fmt: skip
    """Return a graph of one node, and its inputs; `orders`: how an operand's dims lie in memory."""
    graph, values, given = Graph("moving"), [], []
    for number, (array, dtype) in enumerate(zip(arrays, dtypes, strict=True)):
        order = orders.get(number, tuple(range(array.ndim)))
        laid = np.ascontiguousarray(array.transpose(order))
        value: Value = graph.add_input(f"x{number}", TensorType(dtype, laid.shape)).out
        back = tuple(order.index(d) for d in range(array.ndim))
        if back != tuple(range(array.ndim)):
            value = graph.add("permute", (value,), {"dims": back}).out
        values.append(value)
        given.append(laid)
    graph.outputs += graph.add(op, values, attrs).outs
    return graph, given


def check(
    op: str, arrays: Sequence[Operand], dtypes: Sequence[DType],
    orders: dict[int, Any] | None = None,
    host: bool = False, **attrs: Any,
) -> None:  # fmt: skip
    """Compare a node's results with the interpreter's, and those of one thread with two's."""
    graph, given = built(op, arrays, dtypes, orders or {}, **attrs)
    program = NativeProgram(graph)
    calls = [s for s in program.plan().plan.steps if isinstance(s, HostCall)]
    assert host or not calls, calls[0].why
    with np.errstate(all="ignore"):
        wanted = InterpreterProgram(graph).run(given, {})[0]
    found = []
    for threads in (1, 2):
        set_num_threads(threads)
        found.append(program.run(given, {})[0])
    for one, two, right, value in zip(*found, wanted, graph.outputs, strict=True):
        assert (one.dtype, one.shape) == (right.dtype, right.shape)
        assert one.tobytes() == two.tobytes()
        tolerance = TOLERANCE.get(value.type.dtype, 1e-12)
        np.testing.assert_allclose(
            one.astype(np.float64), right.astype(np.float64), tolerance, tolerance
        )


def filled(seed: int, shape: tuple[int, ...], dtype: DType) -> Operand:
    """Return small numbers, so that sums in any order differ little."""
    random = np.random.default_rng(seed)
    if dtype.is_floating_point:
        return random.normal(size=shape).astype(dtype.np)
    return random.integers(0, 2 if dtype is bool_ else 7, shape).astype(dtype.np)


@st.composite
def moves(draw: Any, wraps: bool) -> tuple[Any, ...]:
    """Return shape, dims to index, shapes of indices, an order of dims, dtype and seed."""
    shape = tuple(draw(st.lists(EXTENTS, min_size=1, max_size=3)))
    order = tuple(draw(st.permutations(range(len(shape)))))
    dtype, seed = draw(st.sampled_from(DTYPES)), draw(st.integers(0, 1000))
    random = np.random.default_rng(seed)
    if not wraps:
        dim = draw(st.integers(0, len(shape) - 1))
        along = draw(st.sampled_from((0, 1, 4, 19, 64)))
        sizes = tuple(along if d == dim else draw(st.integers(1, n)) for d, n in enumerate(shape))
        return shape, order, dtype, seed, dim, random.integers(0, shape[dim], sizes)
    dims = tuple(sorted(draw(st.sets(st.integers(0, len(shape) - 1), min_size=1))))
    lead = tuple(draw(st.lists(st.sampled_from((0, 1, 3, 20)), max_size=2)))
    indices = []
    for dim in dims:
        own = lead if draw(st.booleans()) else tuple(draw(st.sampled_from((n, 1))) for n in lead)
        indices.append(random.integers(-shape[dim], shape[dim], own))
    return shape, order, dtype, seed, dims, indices


@settings(max_examples=40)
@given(
    shape=st.lists(st.sampled_from((1, 3, 8, 17, 130)), min_size=2, max_size=4),
    dtype=st.sampled_from(DTYPES), data=st.data(),
)  # fmt: skip
def test_copies_in_another_order(shape: list[int], dtype: DType, data: Any) -> None:
    while np.prod(shape) > 300_000:
        shape[shape.index(130)] = 8
    dims = tuple(data.draw(st.permutations(range(len(shape)))))
    check("permute", (filled(0, tuple(shape), dtype),), (dtype,), dims=dims)


@settings(max_examples=60)
@given(case=moves(wraps=True), op=st.sampled_from(("index", "put", "add")), narrow=st.booleans())
def test_index_arrays(case: Any, op: str, narrow: bool) -> None:
    shape, order, dtype, seed, dims, indices = case
    x, wide = filled(seed, shape, dtype), (int64,) * len(indices)
    if op == "index":
        check("index", (x, *indices), (dtype, *wide), {0: order}, dims=dims)
        return
    places: list[Any] = [slice(None)] * len(shape)
    for dim, index in zip(dims, indices, strict=True):
        places[dim] = index
    target = x[tuple(places)].shape
    y = filled(seed + 1, tuple(1 for _ in target) if narrow else target, dtype)
    orders = {0: order, 1: tuple(reversed(range(y.ndim)))}
    check("index_put", (x, y, *indices), (dtype, dtype, *wide), orders, dims=dims,
          accumulate=op == "add")  # fmt: skip


@settings(max_examples=80)
@given(
    case=moves(wraps=False),
    op=st.sampled_from(("gather", "scatter", "scatter_add", "prod", "amax", "amin")),
    include=st.booleans(),
)
def test_places_along_a_dim(case: Any, op: str, include: bool) -> None:
    shape, order, dtype, seed, dim, index = case
    x, y = filled(seed, shape, dtype), filled(seed + 1, index.shape, dtype)
    orders = {0: order, 1: order, 2: tuple(reversed(order))}
    if op == "gather":
        check(op, (x, index), (dtype, int64), orders, dim=dim)
    elif op.startswith("scatter"):
        check(op, (x, index, y), (dtype, int64, dtype), orders, dim=dim)
    else:
        check("scatter_reduce", (x, index, y), (dtype, int64, dtype), orders, dim=dim, reduce=op,
              include_self=include)  # fmt: skip


def test_the_last_of_several_writes_wins() -> None:
    random = np.random.default_rng(0)
    rows, columns = random.integers(0, 2, (20, 20)), random.integers(-3, 3, (1, 20))
    for order in ((0, 1), (1, 0)):
        y = np.arange(400.0, dtype=np.float32).reshape(20, 20)
        x = np.zeros((2, 3), np.float32)
        check("index_put", (x, y, rows, columns), (float32, float32, int64, int64),
              {0: order, 2: order}, dims=(0, 1), accumulate=False)  # fmt: skip


@pytest.mark.parametrize(
    ("op", "attrs", "wrong"),
    [
        ("index", {"dims": (0,)}, 4), ("index", {"dims": (0,)}, -5), ("index", {"dims": (1,)}, 300),
        ("index_put", {"dims": (0,), "accumulate": True}, 1 << 40),
        ("index_put", {"dims": (1,), "accumulate": False}, -301),
        ("gather", {"dim": 0}, 4), ("gather", {"dim": 1}, -1),
        ("scatter", {"dim": 1}, 300), ("scatter_add", {"dim": 0}, -1),
    ],
)  # fmt: skip
def test_an_index_out_of_range_raises_what_the_interpreter_raises(
    op: str, attrs: dict[str, Any], wrong: int
) -> None:
    x, random = filled(0, (4, 300), float32), np.random.default_rng(1)
    along = "dim" in attrs
    index = random.integers(0, 4, (4, 300) if along else (50,))
    y = filled(1, (1, 1) if not along else index.shape, float32)
    arrays, dtypes = (x, index), (float32, int64)
    if op not in ("index", "gather"):
        arrays = (x, index, y) if along else (x, y, index)
        dtypes = tuple(int64 if a is index else float32 for a in arrays)
    graph, given = built(op, arrays, dtypes, {}, **attrs)
    program, interpreter = NativeProgram(graph), InterpreterProgram(graph)
    (right,), _ = program.run(given, {})
    place = next(i for i, a in enumerate(given) if a.dtype == np.int64)
    spoilt = [a.copy() for a in given]
    spoilt[place].reshape(-1)[-1] = wrong
    for threads in (1, 2):
        set_num_threads(threads)
        with pytest.raises(IndexError) as wanted:
            interpreter.run(spoilt, {})
        with pytest.raises(IndexError) as got:
            program.run(spoilt, {})
        assert (type(got.value), str(got.value)) == (type(wanted.value), str(wanted.value))
        np.testing.assert_array_equal(program.run(given, {})[0][0], right)


@st.composite
def pools(draw: Any) -> tuple[Any, ...]:
    """Return shape, order of dims, dtype, seed and attributes of pooling."""
    pooled = draw(st.integers(1, 3))
    lead = draw(st.lists(st.sampled_from((1, 2, 3, 20)), max_size=2))
    largest = 40 if pooled == 1 else 12 if pooled == 2 else 7
    sizes = draw(st.lists(st.integers(1, largest), min_size=pooled, max_size=pooled))
    window = tuple(draw(st.integers(1, min(4, n))) for n in sizes)
    stride = tuple(draw(st.integers(1, 6)) for _ in sizes)
    padding = tuple(draw(st.integers(0, n // 2)) for n in window)
    shape = (*lead, *sizes)
    order = tuple(draw(st.permutations(range(len(shape)))))
    if draw(st.booleans()) and lead:  # channels side by side
        c = len(lead) - 1
        order = (*(d for d in range(len(shape)) if d != c), c)
    attrs = {"window": window, "stride": stride, "padding": padding,
             "ceil_mode": draw(st.booleans())}  # fmt: skip
    return shape, order, draw(st.sampled_from(DTYPES[:5])), draw(st.integers(0, 999)), attrs


@settings(max_examples=80)
@given(
    case=pools(),
    dilation=st.sampled_from((1, 1, 2)),
    op=st.sampled_from(("", "_indices", "_grad")),
    special=st.booleans(),
)
def test_maxima_of_windows(case: Any, dilation: int, op: str, special: bool) -> None:
    shape, order, dtype, seed, attrs = case
    attrs["dilation"] = tuple(
        dilation if dilation * (w - 1) < n else 1
        for w, n in zip(attrs["window"], shape[-len(attrs["window"]) :], strict=True)
    )
    x = filled(seed, shape, dtype)
    x = np.round(x.astype(np.float32) * 2).astype(x.dtype)  # several are the largest
    if special:  # windows of which all are the smallest, or several are not numbers
        rare = np.random.default_rng(seed).integers(0, 4, shape)
        x = np.where(rare == 0, np.nan, np.where(rare == 1, x.astype(np.float32), -np.inf))
        x = x.astype(dtype.np)
    if op != "_grad":
        check("max_pool" + op, (x,), (dtype,), {0: order}, **attrs)
        return
    graph, given = built("max_pool_indices", (x,), (dtype,), {}, **attrs)
    (index,), _ = InterpreterProgram(graph).run(given, {})
    if index.min() < 0:
        return
    check("max_pool_grad", (filled(seed, index.shape, dtype), index), (dtype, int64),
          {0: order, 1: order}, size=shape[-len(attrs["window"]) :])  # fmt: skip


@settings(max_examples=60)
@given(case=pools(), include=st.booleans(), divisor=st.sampled_from((None, None, 3)))
def test_means_of_windows(case: Any, include: bool, divisor: int | None) -> None:
    shape, order, dtype, seed, attrs = case
    attrs |= {"count_include_pad": include, "divisor": divisor}
    x, size = filled(seed, shape, dtype), shape[-len(attrs["window"]) :]
    check("avg_pool", (x,), (dtype,), {0: order}, **attrs)
    graph, given = built("avg_pool", (x,), (dtype,), {}, **attrs)
    g = InterpreterProgram(graph).run(given, {})[0][0]
    check("avg_pool_grad", (g,), (dtype,), {0: order}, size=size, **attrs)


@st.composite
def arrays(draw: Any, least: int = 1, dtypes: Any = DTYPES) -> tuple[Any, ...]:
    """Return an array, its dtype, an order of its dims, and one of them."""
    extents = st.sampled_from((0, 1, 2, 3, 7, 16, 17, 40))
    shape = tuple(draw(st.lists(extents, min_size=least, max_size=3)))
    dtype = draw(st.sampled_from(dtypes))
    x = filled(draw(st.integers(0, 999)), shape, dtype)
    if dtype.is_floating_point and x.size and draw(st.booleans()):
        x = np.round(x.astype(np.float32)).astype(x.dtype)  # some are equal
        for special in (np.nan, -np.inf, np.inf):
            x.reshape(-1)[draw(st.integers(0, x.size - 1))] = special
    order = tuple(draw(st.permutations(range(len(shape)))))
    return x, dtype, order, draw(st.integers(0, len(shape) - 1))


@settings(max_examples=80)
@given(
    case=arrays(), op=st.sampled_from(("argmax", "argmin", "max_at", "min_at")), keep=st.booleans()
)
def test_places_of_extremes(case: Any, op: str, keep: bool) -> None:
    x, dtype, order, dim = case
    if x.shape[dim]:
        check(op, (x,), (dtype,), {0: order}, dim=dim, keepdim=keep)


@pytest.mark.parametrize("op", ["argmax", "min_at"])
@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
@pytest.mark.parametrize(
    ("shape", "order", "dim"),
    [((5, 300), (0, 1), 1), ((5, 300), (1, 0), 1), ((4, 9, 261), (0, 1, 2), 1),
     ((300, 5), (0, 1), 1), ((3, 7, 20), (1, 2, 0), 1), ((7, 64), (0, 1), 1),
     ((2, 2000), (0, 1), 0), ((1031,), (0,), 0), ((3, 4, 129), (2, 0, 1), 2)],
)  # fmt: skip
def test_the_first_of_many_extremes(
    op: str, dtype: DType, shape: tuple[int, ...], order: tuple[int, ...], dim: int
) -> None:
    random = np.random.default_rng(0)
    for spread in (1, 3, 100):
        x = random.integers(0, spread, shape)
        x = x.astype(dtype.np) if dtype is not bool_ else x > 0
        check(op, (x,), (dtype,), {0: order}, dim=dim, keepdim=False)
        if not dtype.is_floating_point:
            continue
        lost = np.where(random.integers(0, 200, shape) == 0, np.nan, x.astype(np.float64))
        check(op, (lost.astype(dtype.np),), (dtype,), {0: order}, dim=dim, keepdim=False)
        least = np.full(shape, -np.inf if op == "argmax" else np.inf).astype(dtype.np)
        check(op, (least,), (dtype,), {0: order}, dim=dim, keepdim=False)


@settings(max_examples=100)
@given(
    case=arrays(), op=st.sampled_from(("sort", "topk")), falls=st.booleans(), part=st.floats(0, 1)
)
def test_orders(case: Any, op: str, falls: bool, part: float) -> None:
    x, dtype, order, dim = case
    attrs: dict[str, Any] = {"descending": falls}
    if op == "topk":
        attrs = {"k": int(part * x.shape[dim]), "largest": falls}
    check(op, (x,), (dtype,), {0: order}, dim=dim, **attrs)


@pytest.mark.parametrize("dtype", (*DTYPES[1:], int32, uint32), ids=str)
@pytest.mark.parametrize("k", [1, 2, 50, 256])
def test_the_first_of_long_rows(dtype: DType, k: int) -> None:
    random = np.random.default_rng(0)
    for spread in (3, 30_000):
        x = random.integers(-spread if dtype.is_signed else 0, spread, (3, 777))
        x = (x.astype(np.int64) if dtype is not bool_ else x > 0).astype(dtype.np)
        if dtype.is_floating_point:
            x[0, ::100], x[1, ::77], x[1, 5], x[2, ::3] = np.nan, np.inf, -np.inf, -0.0
        for largest in (True, False):
            check("topk", (x,), (dtype,), {}, dim=1, k=k, largest=largest)
            check("topk", (np.sort(x, -1),), (dtype,), {}, dim=1, k=k, largest=largest)


@settings(max_examples=100)
@given(
    case=arrays(), rows=st.booleans(), right=st.booleans(),
    size=st.sampled_from((0, 1, 2, 3, 8, 31, 100)),
)  # fmt: skip
def test_places_in_sorted_edges(case: Any, rows: bool, right: bool, size: int) -> None:
    x, dtype, order, _ = case
    edges = filled(7, (*x.shape[:-1], size) if rows else (size,), dtype)
    if dtype.is_floating_point:
        edges = np.round(edges.astype(np.float32)).astype(dtype.np)
        edges.reshape(-1)[:3] = [np.nan, np.inf, -0.0][: edges.size]
    edges = np.sort(edges.astype(np.float32) if dtype.is_floating_point else edges, -1)
    check("searchsorted", (edges.astype(dtype.np), x), (dtype, dtype), {1: order}, right=right)


def test_what_the_host_orders() -> None:
    x = filled(0, (2, 300), float32)
    check("sort", (x[:, :128],), (float32,), {}, dim=1, descending=False)
    check("sort", (x,), (float32,), {}, host=True, dim=1, descending=False)
    check("topk", (x,), (float32,), {}, host=True, dim=1, k=257, largest=True)


@settings(max_examples=100)
@given(
    case=arrays(dtypes=DTYPES[:7]),
    op=st.sampled_from(("cumsum", "cumprod", "cummax", "cummin", "logcumsumexp")),
)
def test_scans(case: Any, op: str) -> None:
    x, dtype, order, dim = case
    if op == "logcumsumexp" and not dtype.is_floating_point:
        return
    check(op, (x,), (dtype,), {0: order}, dim=dim)


@settings(max_examples=60)
@given(
    case=arrays(least=2), offset=st.integers(-20, 20), op=st.sampled_from(("tril", "triu", "flip"))
)
def test_triangles_and_flips(case: Any, offset: int, op: str) -> None:
    x, dtype, order, dim = case
    if op == "flip":
        dims = (dim, (dim + 1) % x.ndim) if offset > 0 else (dim,)
        check(op, (x,), (dtype,), {0: order}, dims=dims)
    else:
        check(op, (x,), (dtype,), {0: order}, diagonal=offset)


@settings(max_examples=30)
@given(case=arrays(least=2), offset=st.integers(-4, 4))
def test_diagonals(case: Any, offset: int) -> None:
    x, dtype, order, _ = case
    y = np.diagonal(x, offset, 0, 1).astype(x.dtype) * 0 + filled(3, (), dtype)
    if y.shape[-1]:
        check("diagonal_scatter", (x, y.astype(x.dtype)), (dtype, dtype), {0: order}, offset=offset,
              dim1=0, dim2=1)  # fmt: skip


@settings(max_examples=30)
@given(case=pools())
def test_all_windows(case: Any) -> None:
    shape, order, dtype, seed, attrs = case
    attrs["dilation"] = (1,) * len(attrs["window"])
    del attrs["ceil_mode"]
    x = filled(seed, shape, dtype)
    check("unfold_windows", (x,), (dtype,), {0: order}, **attrs)
    graph, given = built("unfold_windows", (x,), (dtype,), {}, **attrs)
    y, size = InterpreterProgram(graph).run(given, {})[0][0], shape[-len(attrs["window"]) :]
    order = tuple(np.random.default_rng(seed).permutation(y.ndim).tolist())
    check("fold_windows", (y,), (dtype,), {0: order}, size=size, **attrs)


MODES = (
    "nearest", "nearest-exact", "linear", "cubic", "area", "linear-antialias", "cubic-antialias",
)  # fmt: skip


@settings(max_examples=80)
@given(
    case=pools(),
    data=st.data(),
    mode=st.sampled_from(
        (
            "nearest",
            "nearest-exact",
            "linear",
            "cubic",
            "area",
            "linear-antialias",
            "cubic-antialias",
        )
    ),
    align=st.booleans(),
)
def test_resizing(case: Any, data: Any, mode: str, align: bool) -> None:
    shape, order, dtype, seed, pooling = case
    count = len(pooling["window"])
    before = shape[len(shape) - count :]
    after = tuple(data.draw(st.integers(1, 40 if count == 1 else 9)) for _ in before)
    attrs = {"mode": mode, "align_corners": align and mode in ("linear", "cubic"),
             "scales": (None,) * count}  # fmt: skip
    if dtype.is_floating_point:
        g = filled(seed, (*shape[: len(shape) - count], *after), dtype)
        check("resize_grad", (g,), (dtype,), {0: order}, size=before, **attrs)
    elif not mode.startswith("nearest"):
        return
    check("resize", (filled(seed, shape, dtype),), (dtype,), {0: order}, size=after, **attrs)


OURS = (
    "index", "index_put", "gather", "scatter", "scatter_add", "scatter_reduce", "max_pool",
    "max_pool_indices", "max_pool_grad", "avg_pool", "avg_pool_grad", "argmax", "argmin", "max_at",
    "min_at", "cumsum", "cumprod", "cummax", "cummin", "logcumsumexp", "tril", "triu", "flip",
    "unfold_windows", "fold_windows", "diagonal_scatter", "resize", "resize_grad", "sort", "topk",
    "searchsorted",
)  # fmt: skip


@pytest.mark.parametrize(
    ("level", "machine"),
    [("sse2", "x86_64"), ("avx2", "x86_64"), ("neon", "aarch64")],
)
def test_kernels_compile_for_other_machines(level: str, machine: str) -> None:
    target = level_target(level, f"{machine}-unknown-linux-gnu")
    kernels: dict[str, Any] = {}
    for op, case in (sample.values for sample in SAMPLES):
        if op.name not in OURS or not accepts(op, case, float32):
            continue
        graph, types = Graph("row"), [type_of(wrap(a)) for a in operands(op, case, float32)]
        inputs = [graph.add_input(f"x{i}", t).out for i, t in enumerate(types)]
        graph.outputs += graph.add(op.name, inputs, case.attrs).outs
        plan = Lowering(graph, target, [], TEMPLATES, {}).run(graph.order())
        assert not [s.why for s in plan.steps if isinstance(s, HostCall)], op.name
        kernels |= {s.kernel.name: s.kernel for s in plan.steps if isinstance(s, Launch)}
    many = selection_kernel(Selection(float32, largest=True, is_many=True, outer=1), target)
    assert compile_assembly([kernel.text() for kernel in (*kernels.values(), many)], target)


def test_indices_are_checked_once() -> None:
    graph = Graph("training")
    index = graph.add_input("index", TensorType(int64, (50,))).out
    table = graph.add_input("table", TensorType(float32, (9, 4))).out
    rows = graph.add("index", (table, index), {"dims": (0,)}).out
    image = graph.add_input("image", TensorType(float32, (2, 8, 8))).out
    put = {"dims": (0,), "accumulate": True}
    graph.outputs.append(graph.add("index_put", (table, rows, index), put).out)
    half = {"window": (2, 2), "stride": (2, 2), "padding": (0, 0), "ceil_mode": False}
    pool = half | {"dilation": (1, 1)}
    best = graph.add("max_pool", (image,), pool).out
    index_of_best = graph.add("max_pool_indices", (image,), pool).out
    graph.outputs.append(graph.add("max_pool_grad", (best, index_of_best), {"size": (8, 8)}).out)
    checks = NativeProgram(graph).plan().plan.checks
    assert [step.node.op for step in checks.values()] == ["index"]
