"""Which replays run on Tensors: those that autograd or a trace has to see op by op."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tracegraph.dtypes import FLOAT_KIND
from tracegraph.eager import modes
from tracegraph.eager.leaves import requires_grad
from tracegraph.eager.tensors import Tensor
from tracegraph.ir.graph import INPUT, STATE, Graph, Node
from tracegraph.ops.table import OPS

if TYPE_CHECKING:
    from tracegraph.replay.entry import EntryPoint


def graded_sources(graph: Graph) -> set[str]:
    """Return the names of the inputs and State that gradients of the results can reach."""
    inputs = {n.attrs["name"] for n in graph.inputs}
    written = [v for name, v in graph.writes.items() if name in inputs]
    stack = [v.node for v in (*graph.outputs, *written) if v.type.dtype.kind >= FLOAT_KIND]
    seen: set[Node] = set()
    found: set[str] = set()
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if node.op in (INPUT, STATE):
            found.add(node.attrs["name"])
        stack += [v.node for v in _graded(node) if v.type.dtype.kind >= FLOAT_KIND]
    return found


def _graded(node: Node) -> Sequence[Any]:
    """The operands that gradients of a node's results go on to."""
    if node.op not in OPS:
        return node.inputs
    row = node.row
    if not row.differentiable:
        return ()
    if not isinstance(row.vjp, tuple) or row.variadic:
        return node.inputs
    return [v for v, rule in zip(node.inputs, row.vjp, strict=False) if rule is not None]


def tracing() -> bool:
    """Whether a trace is running in this context."""
    return modes.recording > 0 and modes.RECORDER.get() is not None


def wants_tensors(entry: EntryPoint, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a call has to run on Tensors: a trace is running, or a gradient can be wanted."""
    if tracing():
        return True
    if not modes.GRAD.get():
        return False
    names, states = entry.reached()
    if not names:
        return False
    if states:
        held = entry.state
        for name in states:
            if held[name]._node is not None:
                return True
    for value in args:
        if _has_gradient(value):
            return True
    return bool(kwargs) and any(map(_has_gradient, kwargs.values()))


def _has_gradient(value: Any) -> bool:
    if value.__class__ is Tensor and value._lineage is None:
        return value._node is not None
    if isinstance(value, Tensor):
        return bool(value.requires_grad) if value.is_sparse else requires_grad(value)
    if isinstance(value, dict):
        return any(map(_has_gradient, value.values()))
    if isinstance(value, (tuple, list)):
        return any(map(_has_gradient, value))
    return hasattr(value, "__dataclass_fields__") and any(map(_has_gradient, vars(value).values()))
