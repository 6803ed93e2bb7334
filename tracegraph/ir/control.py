"""Control flow in the IR: guards and ops with regions.

They are no rows of the op table, since their meaning lies in their regions. A region is a closed
graph: what it reads from outside comes in as an operand, in the order of its inputs.

`guard(value; expected, text)` gives nothing; a replay whose value differs from `expected` stops.
`cond(selector, *operands; cases, text)` runs the region `case0`, `case1`, ... whose case the
selector equals, and gives what that region gives; a selector that is no case stops the replay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from tracegraph.dtypes import BOOL_KIND, INT_KIND
from tracegraph.errors import GraphError
from tracegraph.ir.graph import Graph, Node
from tracegraph.tensor_type import TensorType

GUARD: Final = "guard"
COND: Final = "cond"

Types = tuple[TensorType, ...]


class Control(NamedTuple):
    """One kind of control node.

    `infer(operand types, attrs, regions)` gives the types of its results and raises `GraphError`;
    `has_effect(node)` says whether it may stop a replay, so that no pass may drop it; `attrs`
    are the names of its attributes, in the order in which they are written.
    """

    infer: Callable[[Sequence[TensorType], Mapping[str, Any], Mapping[str, Graph]], Types]
    has_effect: Callable[[Node], bool]
    attrs: tuple[str, ...]


def case_name(number: int) -> str:
    """The name of the region of a case."""
    return f"case{number}"


def _check_selector(types: Sequence[TensorType]) -> None:
    if not types or types[0].shape or types[0].dtype.kind not in (BOOL_KIND, INT_KIND):
        shown = types[0] if types else "nothing"
        raise GraphError(f"a predicate is one bool or integer, not {shown}")


def _check_outcome(value: Any, known: TensorType) -> None:
    wanted = bool if known.dtype.kind == BOOL_KIND else int
    if type(value) is not wanted:
        raise GraphError(f"a predicate of type {known} cannot be {value!r:.60}")


def check_region(region: Graph, takes: Sequence[TensorType], what: str) -> Types:
    """Check that a region is closed and takes some types; returns the types that it gives.

    Raises:
        GraphError: it has State or takes other types.
    """
    if region.states or region.writes:
        raise GraphError(f"{what} is a region and closed: it has no State")
    wants = [n.types[0] for n in region.inputs]
    if wants != list(takes):
        shown = ", ".join(map(str, wants))
        raise GraphError(f"{what} takes ({shown}), not ({', '.join(map(str, takes))})")
    return tuple(v.type for v in region.outputs)


def _guard_type(
    types: Sequence[TensorType], attrs: Mapping[str, Any], regions: Mapping[str, Graph]
) -> Types:
    _check_selector(types)
    if len(types) != 1 or regions:
        raise GraphError("a guard takes one predicate and has no region")
    _check_outcome(attrs["expected"], types[0])
    return ()


def _cond_type(
    types: Sequence[TensorType], attrs: Mapping[str, Any], regions: Mapping[str, Graph]
) -> Types:
    _check_selector(types)
    cases = attrs["cases"]
    if not isinstance(cases, tuple) or not cases or len(set(cases)) != len(cases):
        raise GraphError(f"the cases must be different values, not {cases!r:.60}")
    for case in cases:
        _check_outcome(case, types[0])
    if list(regions) != [case_name(i) for i in range(len(cases))]:
        raise GraphError(f"{len(cases)} cases need as many regions, got {sorted(regions)}")
    gives = {name: check_region(r, types[1:], name) for name, r in regions.items()}
    first = gives[case_name(0)]
    for name, found in gives.items():
        if found != first:
            raise GraphError(f"{name} gives other types than {case_name(0)}")
    return first


def _is_open(node: Node) -> bool:
    return set(node.attrs["cases"]) != {False, True} or any_effect(node.regions.values())


CONTROL: Final[dict[str, Control]] = {
    GUARD: Control(_guard_type, lambda node: True, ("expected", "text")),
    COND: Control(_cond_type, _is_open, ("cases", "text")),
}


def has_effect(node: Node) -> bool:
    """Whether a node must run though nobody reads its results."""
    control = CONTROL.get(node.op)
    return control is not None and control.has_effect(node)


def any_effect(graphs: Any) -> bool:
    """Whether any node of some graphs has an effect."""
    return any(has_effect(node) for graph in graphs for node in graph.nx)


def infer(node_op: str, types: Sequence[TensorType], attrs: Mapping[str, Any],
          regions: Mapping[str, Graph]) -> Types:  # fmt: skip
    """Return the result types of a control node.

    Raises:
        GraphError: operands, attributes or regions do not fit.
    """
    control = CONTROL[node_op]
    if set(attrs) != set(control.attrs) or not isinstance(attrs.get("text", ""), str):
        raise GraphError(f"{node_op} has the attributes {', '.join(control.attrs)}")
    return control.infer(types, attrs, regions)


def inner_graphs(graph: Graph) -> list[Graph]:
    """Return a graph and all regions of control nodes in it, outer ones first."""
    found = [graph]
    for outer in found:
        for node in outer.nx:
            if node.op in CONTROL:
                found += node.regions.values()
    return found
