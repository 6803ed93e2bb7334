"""What a recorder writes: rows, entries of the memory that it met, and the graph of its rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from tracegraph.dtypes import BY_NUMPY
from tracegraph.eager.storage import Chain, Storage
from tracegraph.eager.tensors import type_of_data
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


_make: Final = tuple.__new__  # as in `recording`


class Rows(Sequence[Row]):
    """What was recorded, in order.

    `raw` is the list that a recorder appends to: Rows, and plain tuples (op, inputs, attributes,
    NumPy's dtype, shape, line, scope) of one result. These become Rows when one is first looked at.
    """

    __slots__ = ("_made", "_types", "raw")

    def __init__(self) -> None:
        self.raw: list[Any] = []
        self._made = 0
        self._types: dict[Any, tuple[TensorType]] = {}

    def __len__(self) -> int:
        return len(self.raw)

    def __getitem__(self, place: Any) -> Any:
        return (self.raw if self._made == len(self.raw) else self._all())[place]

    def __iter__(self) -> Iterator[Row]:
        return iter(self._all())

    def _all(self) -> list[Row]:
        raw, types = self.raw, self._types
        for place in range(self._made, len(raw)):
            row = raw[place]
            if row.__class__ is tuple:
                op, inputs, attrs, dtype, shape, loc, scope = row
                known = types.get((dtype, shape))
                if known is None:
                    known = types[dtype, shape] = (TensorType(BY_NUMPY[dtype], shape),)
                raw[place] = _make(Row, (op, inputs, attrs, known, loc, scope, NO_REGIONS))
        self._made = len(raw)
        return raw


class Entry:
    """What a recorder knows of one Storage.

    `value` is the present Value of the whole, `views` those of views that were taken; `origin` is
    where gradients of `value` go, if it was written under no_grad; `made` what the memory was made
    with, and `sharing` what is known of its views where layouts matter (`layouts.Sharing`).
    """

    __slots__ = (
        "kind", "made", "name", "origin", "sharing", "token", "type", "value", "views", "written",
    )  # fmt: skip

    def __init__(
        self, token: object, value: RowValue, type: TensorType, kind: str, name: str = ""
    ) -> None:
        self.token = token
        self.value = self.made = value
        self.type = type
        self.kind = kind
        self.name = name
        self.views: dict[Chain, RowValue] = {}
        self.origin: RowValue | None = None
        self.written = False
        self.sharing: Any = None


def entry_in(storage: Storage) -> Entry | None:
    """Return what the last recorder that met a Storage knows of it.

    Of a fresh result that is a plain (token, value), until more is to be known.
    """
    entry: Any = storage.entry
    if entry.__class__ is tuple:
        token, value = entry
        entry = storage.entry = Entry(token, value, type_of_data(storage.array), LOCAL)
    known: Entry | None = entry
    return known


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
