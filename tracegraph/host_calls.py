"""`host_call`: Python that must stay Python, in eager code, in traces and in files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from tracegraph.dtypes import dtype_of
from tracegraph.eager.dispatch import front
from tracegraph.eager.leaves import requires_grad
from tracegraph.eager.tensors import Tensor, type_of, wrap
from tracegraph.errors import FileFormatError, OpError, TraceError
from tracegraph.ir.graph import Graph, Node
from tracegraph.ops.host import path_of, permit
from tracegraph.replay.choosing import tracing

TypeLike = tuple[Any, Sequence[int]]


def host_call(
    function: Callable[..., Any], *tensors: Any, like: Any = None, types: Any = None,
    vjp: Callable[..., Any] | None = None,
) -> Any:  # fmt: skip
    """Call `function(*arrays)` on NumPy arrays and return what it gives as tensors.

    A trace keeps the call as a node that names the function by its import path. A file with such
    nodes is loaded only if the path is allowed: `load(path, allow_host_calls=["module:name"])`.

    Args:
        function: takes and returns NumPy arrays (one, or a tuple); it must not change what it is
            given. It runs once for every call and replay, whether or not its results are used.
        tensors: its operands.
        like: a tensor, or a list of them, whose types the results have.
        types: the same as (dtype, shape), or a list of these.
        vjp: `vjp(*operand arrays, *gradients of float results)` returns the gradient of each float
            operand; without it, a gradient that arrives is refused.

    Raises:
        TraceError: a trace is running, and the function has no import path.
        OpError: the results have other types.
    """
    if (like is None) == (types is None):
        raise TypeError("host_call needs `like` or `types`: the types of its results")
    several = isinstance(like, (list, tuple)) if types is None else isinstance(types, list)
    wanted = _types(like, types)
    operands = [t if isinstance(t, Tensor) else _operand(t) for t in tensors]
    try:
        path = path_of(function)
        gradient = None if vjp is None else path_of(vjp)
    except OpError as error:
        if tracing():
            raise TraceError(str(error)) from None
        if any(map(requires_grad, operands)):
            raise OpError(f"{error}; or detach() its operands") from None
        return _called(function, operands, wanted, several)
    results = front.host_call(*operands, function=path, types=wanted, vjp=gradient)
    return results if several else results[0]


def _operand(value: Any) -> Tensor:
    from tracegraph.api.creation import tensor

    return tensor(value)


def _types(like: Any, types: Any) -> tuple[tuple[Any, tuple[int, ...]], ...]:
    if types is None:
        known = map(type_of, like if isinstance(like, (list, tuple)) else (like,))
        return tuple((t.dtype, tuple(t.shape)) for t in known)
    pairs = types if isinstance(types, list) else [types]
    return tuple((dtype_of(dtype), tuple(shape)) for dtype, shape in pairs)


def _called(
    function: Callable[..., Any], operands: Sequence[Tensor], wanted: Any, several: bool
) -> Any:
    """Call a function that has no import path: that is for eager code only."""
    results = function(*(np.array(t._data) for t in operands))
    many = results if isinstance(results, (tuple, list)) else (results,)
    made = tuple(wrap(np.array(r, order="C")) for r in many)
    if [(type_of(t).dtype, tuple(t.shape)) for t in made] != list(wanted):
        raise OpError(f"{function!r} returned {[str(type_of(t)) for t in made]}, not {wanted}")
    return made if several else made[0]


def check_host_calls(graphs: Sequence[Graph], allowed: Iterable[str]) -> None:
    """Refuse graphs of a file that call functions which were not allowed; let the others run.

    Raises:
        FileFormatError: naming function and line.
    """
    allowed = list(allowed)
    found = [(graph, *call) for graph in graphs for call in _calls(graph)]
    for graph, node, path in found:
        if path not in allowed:
            place = f" at {node.loc}" if node.loc is not None else ""
            raise FileFormatError(
                f"graph {graph.name!r} calls the Python function {path}{place}: load it with "
                f"allow_host_calls=[{path!r}] if you trust that function"
            )
    for path in dict.fromkeys(path for _, _, path in found):
        permit(path)


def _calls(graph: Graph) -> Iterable[tuple[Node, str]]:
    """The functions that a graph, regions included, calls."""
    for node in graph.order():
        if node.op == "host_call":
            yield from ((node, node.attrs[k]) for k in ("function", "vjp") if node.attrs[k])
        for region in node.regions.values():
            yield from _calls(region)
