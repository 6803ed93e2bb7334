"""Random graphs for hypothesis, arrays to run them on, and a plain evaluator to compare with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tracegraph.dtypes import (
    DType,
    bfloat16,
    bool_,
    float16,
    float32,
    float64,
    int8,
    int32,
    int64,
    uint8,
)
from tracegraph.ir.graph import CONSTANT, KERNEL, SOURCES, Graph, Loc, Value
from tracegraph.ops.table import OPS, run_op
from tracegraph.tensor_type import TensorType

SHAPES = ((), (1,), (3,), (2, 3), (2, 1), (1, 3), (4, 2, 3), (0, 3), (3, 3))
NUMBERS = (0.0, -0.0, 1.0, -1.0, 2.0, 0.5, 3.0, float("inf"), float("nan"))
UNARY = (
    "neg", "abs", "sign", "exp", "sqrt", "tanh", "sigmoid", "floor", "ceil", "trunc", "round",
    "reciprocal", "log1p", "sin", "isnan", "logical_not",
)  # fmt: skip
BINARY = (
    "add", "sub", "mul", "div", "maximum", "minimum", "eq", "ne", "lt", "le", "gt", "ge",
    "logical_and", "logical_or",
)  # fmt: skip
REDUCTIONS = ("sum", "prod", "amax", "mean")
Draw = Callable[[st.SearchStrategy[Any]], Any]


class Builder:
    """Adds random nodes to a graph."""

    def __init__(self, draw: Draw) -> None:
        self.draw = draw
        self.graph = Graph("random")
        self.values: list[Value] = []

    def choose(self, *options: Any) -> Any:
        return self.draw(st.sampled_from(options))

    def pick(self, accept: Callable[[TensorType], bool] = lambda t: True) -> Value | None:
        fitting = [v for v in self.values if accept(v.type)][-8:]
        return self.draw(st.sampled_from(fitting)) if fitting else None

    def add(self, op: str, *inputs: Value | None, **attrs: Any) -> None:
        """Add a node unless an operand is missing or the type rule refuses."""
        if any(v is None for v in inputs):
            return
        types = [v.type for v in inputs if v is not None]
        try:
            results = OPS[op].infer(types, attrs)
        except RuntimeError:
            return
        loc = self.choose(None, Loc("model.py", 3, "f"), Loc('a "b"/c d.py', 10, "<lambda>"))
        scope = self.choose("", "net.fc1", "odd scope")
        node = self.graph.add(op, inputs, attrs, results, loc=loc, scope=scope)  # type: ignore[arg-type]
        self.values += node.outs

    # One method for each kind of node.

    def constant(self) -> None:
        dtype: DType = self.choose(float32, float32, float64, float16, bfloat16, int64, bool_)
        shape = self.choose((), (), *SHAPES)
        uniform = self.choose(True, True, False)
        count = 1 if uniform else int(np.prod(shape, dtype=int))
        numbers = [self.choose(*NUMBERS) for _ in range(min(count, 6))] or [0.0]
        if not dtype.is_floating_point:
            numbers = [n if np.isfinite(n) else 5.0 for n in numbers]
        array = np.resize(np.array(numbers), shape).astype(dtype.np)
        self.values.append(self.graph.add_constant(array, TensorType(dtype, shape)).out)

    def full(self) -> None:
        dtype = self.choose(float32, int64)
        value = self.choose(0, 1, 2)
        self.add("full", shape=self.choose(*SHAPES), value=value, dtype=dtype)

    def unary(self) -> None:
        self.add(self.choose(*UNARY), self.pick())

    def binary(self) -> None:
        x = self.pick()
        assert x is not None
        y = self.choose(x, self.pick(lambda t: t.dtype is x.type.dtype))
        self.add(self.choose(*BINARY), *self.choose((x, y), (y, x)))

    def where(self) -> None:
        x = self.pick()
        assert x is not None
        condition = self.pick(lambda t: t.dtype is bool_)
        self.add("where", condition, x, self.pick(lambda t: t.dtype is x.type.dtype))

    def cast(self) -> None:
        dtype = self.choose(float32, float64, float16, bfloat16, bool_)
        self.add("cast", self.pick(), dtype=dtype)

    def cast_whole(self) -> None:
        x = self.pick(lambda t: not t.dtype.is_floating_point)
        self.add("cast", x, dtype=self.choose(int32, int64, int8, uint8, float32))

    def expand(self) -> None:
        self.add("expand", self.pick(), shape=self.choose(*SHAPES, (2, 2, 3), (4, 2, 3)))

    def reshape(self) -> None:
        x = self.pick()
        assert x is not None
        shapes = (*SHAPES, (6,), (3, 2), (6, 4), (1, 1))
        fitting = [s for s in shapes if x.type.with_shape(s).size == x.type.size]
        self.add("reshape", x, shape=self.choose(x.type.shape, *fitting))

    def permute(self) -> None:
        x = self.pick()
        assert x is not None
        self.add("permute", x, dims=tuple(self.draw(st.permutations(range(x.type.ndim)))))

    def flip(self) -> None:
        x = self.pick(lambda t: t.ndim > 0)
        if x is not None:
            dim = self.draw(st.integers(0, x.type.ndim - 1))
            self.add("flip", x, dims=self.choose((dim,), tuple(range(x.type.ndim))))

    def index_for(self, x: Value) -> tuple[Any, ...]:
        items: list[Any] = []
        for size in x.type.shape:
            whole = (0, size, 1)
            half = (size // 2, size, 1)
            other = (0, size // 2, 1)
            options: list[Any] = [whole, whole, half, other, (0, size, 2)]
            items.append(self.choose(*options, *([size - 1] if size else [])))
        return tuple(items)

    def slice(self) -> None:
        x = self.pick()
        assert x is not None
        earlier = [v.node.attrs["index"] for v in self.values if v.node.op == "slice_scatter"]
        self.add("slice", x, index=self.choose(self.index_for(x), *earlier))

    def slice_scatter(self) -> None:
        x = self.pick()
        assert x is not None
        index = self.index_for(x)
        target = OPS["slice"].infer([x.type], {"index": index})[0]
        self.add("slice_scatter", x, self.pick(lambda t: t == target), index=index)

    def overwrite(self) -> None:
        x = self.pick()
        assert x is not None
        self.add("overwrite", x, self.pick(lambda t: t == x.type))

    def pad(self) -> None:
        x = self.pick()
        assert x is not None
        pads = tuple((self.choose(0, 0, 1), self.choose(0, 2)) for _ in x.type.shape)
        self.add("pad", x, pads=pads, value=self.choose(0, 1))

    def cat(self) -> None:
        x = self.pick(lambda t: t.ndim > 0)
        if x is not None:
            dim = self.draw(st.integers(0, x.type.ndim - 1))
            self.add("cat", x, *self.choose((), (x,), (self.pick(lambda t: t == x.type),)), dim=dim)

    def split_and_join(self) -> None:
        x = self.pick(lambda t: t.ndim > 0 and t.shape[0] > 1)
        if x is not None:
            rest = tuple((0, n, 1) for n in x.type.shape[1:])
            count = len(self.values)
            self.add("slice", x, index=((0, 1, 1), *rest))
            self.add("slice", x, index=((1, x.type.shape[0], 1), *rest))
            self.add("cat", *self.values[count:], dim=0)

    def reduction(self) -> None:
        x = self.pick()
        assert x is not None
        dim = tuple(d for d in range(x.type.ndim) if self.draw(st.booleans()))
        if all(x.type.shape):
            name = self.choose(*REDUCTIONS)
            self.add(name, x, dim=dim, keepdim=self.draw(st.booleans()))

    def scan(self) -> None:
        x = self.pick(lambda t: t.ndim > 0)
        self.add(self.choose("cumsum", "cumprod"), x, dim=0)

    def softmax(self) -> None:
        """The chain that fusion is made for."""
        x = self.pick(lambda t: t.dtype is float32 and t.ndim > 0 and all(t.shape))
        if x is not None:
            last = {"dim": (x.type.ndim - 1,), "keepdim": True}
            graph = self.graph
            top = graph.add("amax", (x,), last).out
            powers = graph.add("exp", (graph.add("sub", (x, top)).out,)).out
            total = graph.add("sum", (powers,), last).out
            self.values += [powers, graph.add("div", (powers, total)).out]

    def matmul(self) -> None:
        x = self.pick(lambda t: t.ndim == 2 and t.dtype is not bool_)
        if x is not None:
            y = self.pick(lambda t: t.ndim == 2 and t.shape[0] == x.type.shape[1])
            self.add("matmul", x, y)


KINDS = [name for name in vars(Builder) if not name.startswith("_") and name not in (
    "choose", "pick", "add", "index_for")]  # fmt: skip
KINDS += ["binary"] * 5 + ["unary"] * 3 + ["constant", "expand", "reshape", "reduction"]


@st.composite
def graphs(draw: Draw, max_nodes: int = 20) -> Graph:
    """Graphs over most families of ops, with inputs, State, writes and several outputs."""
    builder = Builder(draw)
    graph = builder.graph
    for number in range(draw(st.integers(1, 3))):
        dtype = builder.choose(float32, float32, int64, float16)
        known = TensorType(dtype, builder.choose(*SHAPES))
        builder.values.append(graph.add_input(f"x{number}", known).out)
    state = graph.add_state("net.weight", TensorType(float32, (3, 3)))
    builder.values.append(state.out)
    for _ in range(draw(st.integers(0, max_nodes))):
        getattr(builder, draw(st.sampled_from(KINDS)))()
    unread = [v for v in builder.values if not graph.users(v)]
    graph.outputs = unread if draw(st.booleans()) else draw(st.lists(st.sampled_from(unread)))
    fitting = [v for v in builder.values if v.type == state.out.type]
    if draw(st.booleans()):
        graph.writes["net.weight"] = draw(st.sampled_from(fitting))
    return graph


def operands(graph: Graph, seed: int = 0) -> tuple[list[Any], dict[str, Any]]:
    """Return arrays for the inputs and States of a graph, with odd values among them."""
    generator = np.random.default_rng(seed)

    def make(known: TensorType) -> Any:
        if known.dtype.is_floating_point:
            array = generator.normal(size=known.shape)
            odd = generator.choice([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40], size=known.shape)
            array = np.where(generator.random(known.shape) < 0.2, odd, array)
            return array.astype(known.dtype.np)
        return generator.integers(0, 5, size=known.shape).astype(known.dtype.np)

    return [make(n.types[0]) for n in graph.inputs], {
        name: make(n.types[0]) for name, n in graph.states.items()
    }


def evaluate(graph: Graph, inputs: list[Any], states: dict[str, Any]) -> list[Any]:
    """Run a graph node by node with every array in row-major order; returns `graph.results()`.

    NumPy's sums depend on memory order, so only this way can bits be compared.
    """
    values = {n.out: a for n, a in zip(graph.inputs, inputs, strict=True)}
    values |= {n.out: states[name] for name, n in graph.states.items()}
    for node in graph.order():
        if node.op == CONSTANT:
            values[node.out] = node.attrs["value"]
        if node.op in SOURCES:
            continue
        arrays = [values[v] for v in node.inputs]
        if node.op == KERNEL:
            results: Any = evaluate(node.regions["body"], arrays, {})
        else:
            with np.errstate(all="ignore"):
                results = run_op(node.row, np, *arrays, **node.attrs)
        several = results if isinstance(results, (tuple, list)) else (results,)
        values |= {v: np.array(r, order="C") for v, r in zip(node.outs, several, strict=True)}
    return [values[v] for v in graph.results()]


def assert_same_bits(got: list[Any], wanted: list[Any]) -> None:
    """Equal types and bits; NaN equals NaN of any sign and payload."""
    assert len(got) == len(wanted)
    for a, b in zip(got, wanted, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        if a.dtype.kind in "fV":
            a, b = (np.where(np.isnan(x), np.array(np.nan, x.dtype), x) for x in (a, b))
        assert a.tobytes() == b.tobytes()


def assert_close(got: list[Any], wanted: list[Any]) -> None:
    """Equal types, and values within rounding."""
    assert len(got) == len(wanted)
    for a, b in zip(got, wanted, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        with np.errstate(all="ignore"):
            tolerance = 0.05 if a.dtype.itemsize == 2 else 1e-5
            np.testing.assert_allclose(
                a.astype(np.float64), b.astype(np.float64), rtol=tolerance, atol=tolerance
            )
