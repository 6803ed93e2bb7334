"""Writing graphs in Python: `m` whose ops add nodes, as in decompositions and gradient rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from tracegraph.dims.symint import SymInt
from tracegraph.dtypes import FLOAT_KIND, DType, int64
from tracegraph.errors import GraphError
from tracegraph.ir.graph import Graph, Node, Value
from tracegraph.ops.core import Op
from tracegraph.ops.table import OPS
from tracegraph.tensor_type import TensorType


class Term:
    """A Value with Python's operators; Python numbers beside it become constants of its dtype."""

    __slots__ = ("m", "value")

    def __init__(self, m: GraphMath, value: Value) -> None:
        self.m = m
        self.value = value

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape."""
        return self.value.type.shape

    @property
    def dtype(self) -> DType:
        """The element type."""
        return self.value.type.dtype

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return self.value.type.ndim

    def __bool__(self) -> bool:
        raise GraphError("a value of a graph that is being built is not known")

    def __neg__(self) -> Any:
        return self.m.neg(self)

    def __invert__(self) -> Any:
        return self.m.bitwise_not(self)

    def __abs__(self) -> Any:
        return self.m.abs(self)


def _operator(op: str) -> Callable[[Term, Any], Any]:
    return lambda self, other: self.m.call(OPS[op], self, other)


def _reflected(op: str) -> Callable[[Term, Any], Any]:
    return lambda self, other: self.m.call(OPS[op], other, self)


for _name, _op in {
    "add": "add", "sub": "sub", "mul": "mul", "truediv": "div", "pow": "pow", "mod": "remainder",
    "floordiv": "floor_divide", "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor",
}.items():  # fmt: skip
    setattr(Term, f"__{_name}__", _operator(_op))
    setattr(Term, f"__r{_name}__", _reflected(_op))
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    setattr(Term, f"__{_name}__", _operator(_name))
Term.__hash__ = object.__hash__  # type: ignore[method-assign]


class GraphMath:
    """`m` of decompositions: `m.op(x, 2.0, attr=...)` adds a node to a graph and returns Terms."""

    def __init__(self, graph: Graph, like: Node | None = None) -> None:
        self.graph = graph
        self.like = like

    def __getattr__(self, name: str) -> Any:
        if name not in OPS:
            raise AttributeError(f"there is no op {name!r}")
        return partial(self.call, OPS[name])

    def term(self, value: Value) -> Term:
        """A Value as a Term."""
        return Term(self, value)

    def call(self, op: Op, *operands: Any, **attrs: Any) -> Any:
        """Add one node; operands that are None were left out.

        Raises:
            OpError: the type rule refuses the operands.
        """
        given = [x for x in operands if x is not None]
        terms = [x for x in given if isinstance(x, Term)]
        values = [
            x.value if isinstance(x, Term) else self.constant(x, terms[-1].dtype) for x in given
        ]
        node = self.graph.add(op.name, values, attrs, like=self.like)
        results = tuple(Term(self, v) for v in node.outs)
        return results[0] if len(op.results) == 1 and len(results) == 1 else results

    def constant(self, number: Any, dtype: DType) -> Value:
        """Add a number: a 0-d constant, or what a symbolic size is.

        Raises:
            GraphError: a fraction beside integers: cast them first.
        """
        if number.__class__ is SymInt:
            value = self.graph.add("dim_value", (), {"value": number}, like=self.like).out
            if dtype is int64:
                return value
            return self.graph.add("cast", (value,), {"dtype": dtype}, like=self.like).out
        if isinstance(number, float) and dtype.kind != FLOAT_KIND:
            raise GraphError(f"{number} beside {dtype}: cast first")
        with np.errstate(over="ignore"):  # 70000 is inf in float16, as where arrays are cast
            array = np.asarray(number, dtype=dtype.np)
        return self.graph.add_constant(array, TensorType(dtype, array.shape), self.like).out


def build(name: str, types: Sequence[TensorType], function: Callable[..., Any]) -> Graph:
    """Return the graph of `function(m, *terms)`, which returns a Term or a tuple of them."""
    graph = Graph(name)
    m = GraphMath(graph)
    terms = [m.term(graph.add_input(f"x{i}", t).out) for i, t in enumerate(types)]
    result = function(m, *terms)
    several = result if isinstance(result, (tuple, list)) else (result,)
    graph.outputs = [t.value for t in several]
    return graph
