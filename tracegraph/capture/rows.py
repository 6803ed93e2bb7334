"""What a recorder writes: rows, entries of the memory that it met, and the graph of its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from tracegraph.eager.storage import Chain
from tracegraph.ir.collector import collector_paused
from tracegraph.ir.graph import INPUT, STATE, Graph, Loc, Value
from tracegraph.tensor_type import TensorType

RowValue = tuple[int, int]

NO_REGIONS: Final[Mapping[str, Graph]] = {}
LOCAL: Final = "local"


class Row(NamedTuple):
    """One recorded operation."""

    op: str
    inputs: tuple[RowValue, ...]
    attrs: dict[str, Any]
    types: tuple[TensorType, ...]
    loc: Loc | None
    scope: str
    regions: Mapping[str, Graph] = NO_REGIONS


class Entry:
    """What a recorder knows of one Storage.

    `value` is the present Value of the whole, `views` those of views that were taken; `origin` is
    where gradients of `value` go, if it was written under no_grad.
    """

    __slots__ = ("kind", "name", "origin", "token", "type", "value", "views", "written")

    def __init__(
        self, token: object, value: RowValue, type: TensorType, kind: str, name: str = ""
    ) -> None:
        self.token = token
        self.value = value
        self.type = type
        self.kind = kind
        self.name = name
        self.views: dict[Chain, RowValue] = {}
        self.origin: RowValue | None = None
        self.written = False


@collector_paused()
def graph_of(
    name: str, rows: Sequence[Row], outputs: Sequence[RowValue], writes: Mapping[str, RowValue]
) -> Graph:
    """Return the Graph of recorded rows; `writes` are what State and inputs hold at the end."""
    graph = Graph(name)
    values: list[tuple[Value, ...]] = []
    for seq, row in enumerate(rows):
        node = graph.add(
            row.op, (values[r][i] for r, i in row.inputs), row.attrs, row.types,
            seq=seq, loc=row.loc, scope=row.scope, regions=row.regions,
        )  # fmt: skip
        values.append(node.outs)
        if row.op == INPUT:
            graph.inputs.append(node)
        elif row.op == STATE:
            graph.states[row.attrs["name"]] = node
    graph.outputs = [values[r][i] for r, i in outputs]
    graph.writes = {name: values[r][i] for name, (r, i) in writes.items()}
    return graph
