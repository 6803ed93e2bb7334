"""Control flow in the IR: guards and ops with regions.

They are no rows of the op table, since their meaning lies in their regions. A region is a closed
graph: what it reads from outside comes in as an operand, in the order of its inputs.

`guard(value; expected, text)` gives nothing; a replay whose value differs from `expected` stops.
`fact(; relation)` gives nothing; a replay whose sizes do not fulfil the relation stops.
`cond(selector, *operands; cases, text)` runs the region `case0`, `case1`, ... whose case the
selector equals, and gives what that region gives; a selector that is no case stops the replay.
`while_loop(*carried, *others; carried)` runs the region `body`, which gives new carried values, as
long as the region `condition` gives true; both take all operands. It gives the last carried values.
`scan(*carried, *xs, *others; carried, scanned, length, reverse)` runs the region `body` once for
each slice of xs along their first dim (`length` times): it takes carried values, slices and others,
and gives new carried values and ys. The node gives the last carried values, and the ys stacked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from tracegraph.dims.relations import Relation
from tracegraph.dtypes import BOOL_KIND, INT_KIND
from tracegraph.errors import GraphError
from tracegraph.ir.graph import Graph, Node
from tracegraph.ops.core import EFFECT
from tracegraph.ops.table import OPS
from tracegraph.tensor_type import TensorType

GUARD: Final = "guard"
FACT: Final = "fact"
COND: Final = "cond"
WHILE_LOOP: Final = "while_loop"
SCAN: Final = "scan"

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


def _fact_type(
    types: Sequence[TensorType], attrs: Mapping[str, Any], regions: Mapping[str, Graph]
) -> Types:
    if types or regions or not isinstance(attrs["relation"], Relation):
        raise GraphError("a fact is a relation between sizes; it takes and gives nothing")
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


def _count(value: Any, most: int, what: str) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise GraphError(f"{what} is {value!r:.60}, not a number from 0 to {most}")
    return value


def _check_regions(regions: Mapping[str, Graph], *names: str) -> None:
    if list(regions) != list(names):
        raise GraphError(f"the regions are {', '.join(names)}, not {', '.join(regions)}")


def _while_type(
    types: Sequence[TensorType], attrs: Mapping[str, Any], regions: Mapping[str, Graph]
) -> Types:
    _check_regions(regions, "condition", "body")
    carried = _count(attrs["carried"], len(types), "carried")
    asked = check_region(regions["condition"], types, "condition")
    if len(asked) != 1 or asked[0].shape or asked[0].dtype.kind != BOOL_KIND:
        raise GraphError("condition must give one bool")
    gives = check_region(regions["body"], types, "body")
    if gives != tuple(types[:carried]):
        raise GraphError("body must give the types that are carried")
    return gives


def _scan_type(
    types: Sequence[TensorType], attrs: Mapping[str, Any], regions: Mapping[str, Graph]
) -> Types:
    _check_regions(regions, "body")
    carried = _count(attrs["carried"], len(types), "carried")
    scanned = _count(attrs["scanned"], len(types) - carried, "scanned")
    length = attrs["length"]
    xs = types[carried : carried + scanned]
    if type(attrs["reverse"]) is not bool or (type(length) is int and length < 0):
        raise GraphError("reverse is a bool and length a number from 0")
    if any(not x.shape or x.shape[0] != length for x in xs):
        raise GraphError(f"what is scanned has {length!r} slices along its first dim")
    slices = [x.with_shape(x.shape[1:]) for x in xs]
    takes = [*types[:carried], *slices, *types[carried + scanned :]]
    gives = check_region(regions["body"], takes, "body")
    if gives[:carried] != tuple(types[:carried]):
        raise GraphError("body must give the types that are carried first")
    return (*gives[:carried], *(y.with_shape((length, *y.shape)) for y in gives[carried:]))


def _is_open_inside(node: Node) -> bool:
    return any_effect(node.regions.values())


CONTROL: Final[dict[str, Control]] = {
    GUARD: Control(_guard_type, lambda node: True, ("expected", "text")),
    FACT: Control(_fact_type, lambda node: True, ("relation",)),
    COND: Control(_cond_type, _is_open, ("cases", "text")),
    WHILE_LOOP: Control(_while_type, _is_open_inside, ("carried",)),
    SCAN: Control(_scan_type, _is_open_inside, ("carried", "scanned", "length", "reverse")),
}


def has_effect(node: Node) -> bool:
    """Whether a node must run though nobody reads its results."""
    control = CONTROL.get(node.op)
    if control is None:
        return node.op in OPS and EFFECT in node.row.traits
    return control.has_effect(node)


def any_effect(graphs: Any) -> bool:
    """Whether any node of some graphs has an effect."""
    return any(has_effect(node) for graph in graphs for node in graph.nodes)


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
        for node in outer.nodes:
            if node.op in CONTROL:
                found += node.regions.values()
    return found
