"""What a file says of the ops in its graphs: their versions, and what its composites stand for.

A reader runs a node by the row of its op table only where that is of the version in the file.
A composite whose row it lacks, or has in another version, becomes its decomposition.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from tracegraph.dims.facts import Facts, assuming
from tracegraph.errors import GraphError, UndecidedError, UnknownOpError
from tracegraph.ir.graph import Graph, Node, Value
from tracegraph.ops.core import COMPOSITE, Op
from tracegraph.ops.table import OPS
from tracegraph.tensor_type import TensorType

# Nodes that all decompositions of a file may come to: nested ones double with each level.
MAX_NODES: Final = 1 << 18

WriteOut = Callable[[Op, list[TensorType], Mapping[str, Any]], Graph]


class Definitions:
    """The ops of graphs on their way into a file.

    `write_out(row, operand types, attributes)` gives the decomposition of a composite,
    `encode(graph)` the data of a graph.
    """

    def __init__(self, write_out: WriteOut, encode: Callable[[Graph], Any]) -> None:
        self._write_out = write_out
        self._encode = encode
        self._versions: dict[str, int] = {}
        self._numbers: dict[Any, int] = {}
        self._bodies: list[Any] = []

    def note(self, node: Node) -> int | None:
        """Note the op of a node; returns the number of its decomposition, if it is a composite.

        Nodes of one op, with the same operand types and attributes, share one. There is none where
        it depends on symbolic sizes what the decomposition is.
        """
        row = node.row
        self._versions[row.name] = row.version
        if COMPOSITE not in row.traits:
            return None
        types = [v.type for v in node.inputs]
        key = (row.name, *types, repr(sorted(node.attrs.items())))
        number = self._numbers.get(key)
        if number is None:
            try:
                with assuming(Facts()):
                    body = self._encode(self._write_out(row, types, node.attrs))
            except UndecidedError:
                return None
            number = self._numbers[key] = len(self._bodies)
            self._bodies.append(body)
        return number

    def data(self) -> dict[str, Any]:
        """Return what `ops.json` holds; a decomposition uses only those before it."""
        return {"versions": dict(sorted(self._versions.items())), "decompositions": self._bodies}


class Vocabulary:
    """The ops that a file uses, for reading it; `decode(data, number)` gives a graph."""

    def __init__(self, data: Mapping[str, Any], decode: Callable[[Any, Vocabulary], Graph]) -> None:
        self._versions: Mapping[str, int] = data["versions"]
        self._data: Sequence[Any] = data["decompositions"]
        self._decode = decode
        self._bodies: dict[int, Graph] = {}
        self._limit = len(self._data)
        self._room = MAX_NODES

    def row(self, op: str) -> Op | None:
        """Return the row that runs an op as the file means it, if there is one."""
        row, version = OPS.get(op), self._versions.get(op)
        return row if row is not None and type(version) is int and version == row.version else None

    def body(self, number: int) -> Graph:
        """Return a decomposition.

        Raises:
            GraphError: there is none, or it uses itself or a later one.
        """
        if type(number) is not int or not 0 <= number < self._limit:
            raise GraphError(f"decomposition {number!r:.60} is not among the {self._limit} before")
        body = self._bodies.get(number)
        if body is None:
            outer, self._limit = self._limit, number
            try:
                body = self._bodies[number] = self._decode(self._data[number], self)
            finally:
                self._limit = outer
            if body.states or body.writes:
                raise GraphError(f"decomposition {number} is not closed: it has State")
        return body

    def bodies(self) -> list[Graph]:
        """Return all decompositions.

        Raises:
            GraphError: one breaks a rule of the IR.
        """
        return [self.body(number) for number in range(len(self._data))]

    def written_out(
        self, graph: Graph, node: Node, number: Any, types: list[TensorType]
    ) -> list[Value]:
        """Add the decomposition of a node, whose row is not at hand, to a graph in its place.

        Raises:
            UnknownOpError: there is none.
            GraphError: it does not fit the node, or all of them come to more than `MAX_NODES`.
        """
        if number is None:
            raise UnknownOpError(self._problem(node.op))
        body = self.body(number)
        takes, gives = [n.types[0] for n in body.inputs], [v.type for v in body.outputs]
        if takes != [v.type for v in node.inputs] or gives != types:
            raise GraphError(f"decomposition {number} takes or gives other types than its node")
        self._room -= len(body)
        if self._room < 0:
            raise GraphError(f"the decompositions come to more than {MAX_NODES} nodes")
        return graph.inline(body, node.inputs, like=node)

    def _problem(self, op: Any) -> str:
        row, version = OPS.get(op), self._versions.get(op)
        if row is None:
            return f"unknown op {op!r:.60}: the file is newer than this tracegraph; update it"
        if version is None:
            return f"the file does not say which version of {op!r} it uses; save it again"
        newer = type(version) is int and version > row.version
        remedy = (
            "update tracegraph" if newer
            else "trace and save it again, or load it with the tracegraph that wrote it"
        )  # fmt: skip
        return f"op {op!r} has version {version!r:.20} in the file and {row.version} here; {remedy}"
