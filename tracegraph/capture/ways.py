"""Paths that return different things: the graph then says which, and gives all of them.

Its first output is the number of the way that was taken; then come the outputs of each way in
turn, zeros for the ways not taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tracegraph.capture.examples import Example
from tracegraph.capture.rows import Row, RowValue
from tracegraph.capture.trie import Path
from tracegraph.dims.shapes import is_always_size
from tracegraph.dtypes import int64
from tracegraph.ir.graph import CONSTANT
from tracegraph.replay.signature import Signature, Way
from tracegraph.tensor_type import TensorType


def aligned(examples: Sequence[Example]) -> tuple[list[Path], Signature]:
    """Return the paths of some examples with the same outputs each, and their signature."""
    if len(examples) == 1:
        return [examples[0].path], examples[0].signature
    # Results of other dtypes and ranks make other ways, if zeros of their shapes can be given.
    known = all(is_always_size(n) for e in examples for t in _types(e) for n in t.shape)

    def ranks(example: Example) -> list[Any]:
        return [(t.dtype, t.ndim) for t in _types(example)] if known else []

    kinds: list[tuple[Way, list[Any]]] = []
    numbers = []
    for example in examples:
        kind = Way(example.outputs, example.results), ranks(example)
        if kind not in kinds:
            kinds.append(kind)
        numbers.append(kinds.index(kind))
    signature = examples[0].signature
    if len(kinds) == 1:
        return [e.path for e in examples], signature
    types = [_types(examples[numbers.index(k)]) for k in range(len(kinds))]
    starts = np.cumsum([1, *map(len, types)]).tolist()
    ways = [_shifted(way, start) for (way, _), start in zip(kinds, starts, strict=False)]
    paths = [_padded(e.path, n, types) for e, n in zip(examples, numbers, strict=True)]
    first, *others = ways
    return paths, replace(signature, outputs=first.outputs, results=first.results,
                          others=tuple(others))  # fmt: skip


def _types(example: Example) -> list[TensorType]:
    rows = example.path.rows
    return [rows[r].types[i] for r, i in example.path.outputs]


def _shifted(way: Way, start: int) -> Way:
    """A way whose results are found from output `start` on."""
    moved = tuple({**r, "value": r["value"] + start} if "value" in r else r for r in way.results)
    return Way(way.outputs, moved)


def _padded(path: Path, number: int, types: Sequence[Sequence[TensorType]]) -> Path:
    """A path that also gives its number, and zeros for the outputs of other ways."""
    rows = list(path.rows)

    def add(op: str, inputs: tuple[RowValue, ...], attrs: dict[str, Any], t: TensorType) -> Any:
        rows.append(Row(op, inputs, attrs, (t,), None, ""))
        return (len(rows) - 1, 0)

    def scalar(value: Any, t: TensorType) -> Any:
        return add(CONSTANT, (), {"value": np.asarray(value, t.dtype.np)}, t.with_shape(()))

    def zeros(t: TensorType) -> Any:
        zero = scalar(0, t)
        return add("expand", (zero,), {"shape": t.shape}, t) if t.shape else zero

    outputs = [scalar(number, TensorType(int64, ()))]
    for way, slots in enumerate(types):
        outputs += path.outputs if way == number else [zeros(t) for t in slots]
    return Path(rows, outputs, path.writes)
