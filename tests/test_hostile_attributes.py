"""Attributes made to harm: every op of the table either refuses them or runs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.test_archive import changed, places
from tests.test_vocabulary import entry_of
from tracegraph.dtypes import float32
from tracegraph.errors import TraceGraphError
from tracegraph.ir.serial import graph_from_data, graph_to_data
from tracegraph.ir.vocabulary import Vocabulary
from tracegraph.ops.core import Op
from tracegraph.ops.table import OPS
from tracegraph.runtime.interpreter import InterpreterProgram

VALUES: list[Any] = [
    None, True, -1, 0, 7, 3, 1 << 40, 1 << 70, 0.5, 1e308, "", "x", [], [[]], [1], [0, 1], [-1],
    [1, 1, 1], [0.5], [True], {}, {"dtype": "f32"}, {"dtype": "b8"}, {"float": "nan"}, "f32[2,2]",
]  # fmt: skip
MOST = 1 << 22  # elements: a type can ask for more memory than there is
VERSIONS = {"versions": {name: op.version for name, op in OPS.items()}, "decompositions": []}


def read(data: Any) -> Any:
    return graph_from_data(data, [], Vocabulary(VERSIONS, lambda *_: pytest.fail("none is kept")))


@pytest.mark.parametrize("op", [op for op in OPS.values() if op.attrs], ids=lambda op: op.name)
def test_any_value_for_an_attribute(op: Op) -> None:
    """What is refused raises an error of ours, when it is read or when it runs."""
    for case in op.sample:
        try:
            entry, arrays = entry_of(op, case, float32)
        except TraceGraphError:
            continue  # not of float32
        data = graph_to_data(entry.graph, lambda _: 0, lambda _: None)
        node = next(n for n in data["nodes"] if n["op"] == op.name)
        attrs = node["attrs"]
        for path in places(attrs):
            for value in VALUES if path else ():
                node["attrs"] = changed(attrs, path, value)
                try:
                    graph = read(json.loads(json.dumps(data)))
                    if all(v.type.size < MOST for v in graph.outputs):
                        InterpreterProgram(graph).run(arrays, {})
                except TraceGraphError:
                    continue
                except Exception as error:
                    raise AssertionError(f"{op.name}: {path} = {value!r}: {error!r}") from error
        node["attrs"] = attrs
        assert read(data).outputs[0].type == entry.graph.outputs[0].type
