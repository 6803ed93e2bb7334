"""`compare_files`: entry points, graphs, State and reports of two files compared by meaning."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import numpy as np

from tracegraph.dtypes import BOOL_KIND, FLOAT_KIND
from tracegraph.eager.tensors import Tensor, type_of
from tracegraph.files.archive import load
from tracegraph.files.nest import tensors_in
from tracegraph.ir.difference import compare_graphs
from tracegraph.replay.entry import EntryPoint
from tracegraph.replay.loaded import Loaded

# Parts of a report that the comparison of graphs and State tells better, or that move with lines.
_TOLD_ELSEWHERE: Final = frozenset((
    "state", "writes", "hypers", "training", "guards", "sizes", "constants", "bakes", "literals",
    "line", "lines", "places",
))  # fmt: skip
_CHUNK_ELEMENTS: Final = 1 << 20


class Difference(NamedTuple):
    """One difference between two files.

    `kind` is "kind" (graphs or tensors only), "entry point", "graph", "report", "tensor" or
    "value"; `name` says of which; `text` how it differs, on one line or several.
    """

    kind: str
    name: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}: {self.text}" if self.name else f"{self.kind}: {self.text}"


def compare_files(
    first: str | os.PathLike[str], second: str | os.PathLike[str]
) -> list[Difference]:
    """Return what differs between two files that `save` wrote; an empty list if nothing does.

    Graphs are compared by what they compute: numbers of nodes, the order of independent ones and
    source lines do not count.

    Raises:
        FileFormatError: one of them cannot be read.
    """
    loaded = [
        load(os.fspath(path), verify=False, allow_host_calls=None) for path in (first, second)
    ]
    return list(differences(*loaded))


def differences(
    first: Any, second: Any, advance: Callable[[int], None] | None = None
) -> Iterator[Difference]:
    """Yield the differences of what `load` gave; `advance` is told of elements compared."""
    if isinstance(first, Loaded) != isinstance(second, Loaded):
        kinds = ["graphs" if isinstance(c, Loaded) else "tensors only" for c in (first, second)]
        yield Difference("kind", "", f"{kinds[0]} -> {kinds[1]}")
        return
    if not isinstance(first, Loaded):
        old, new = (dict(tensors_in(content)) for content in (first, second))
        yield from _tensor_differences(old, new, advance)
        plain = _plain_differences("", _without_tensors(first), _without_tensors(second))
        yield from (Difference("value", *told) for told in plain)
        return
    yield from _missing("entry point", first.entries, second.entries)
    for name, entry in first.entries.items():
        if name in second.entries:
            yield from _entry_differences(name, entry, second.entries[name])
            yield from _report_differences(name, entry, second.entries[name])
    yield from _tensor_differences(first.state_dict(), second.state_dict(), advance)
    for name in first.state_dict().keys() & second.state_dict().keys():
        words = ["trained" if c.is_trained(name) else "not trained" for c in (first, second)]
        if words[0] != words[1]:
            yield Difference("tensor", name, " -> ".join(words))


def _missing(
    kind: str, first: Mapping[str, Any], second: Mapping[str, Any]
) -> Iterator[Difference]:
    for a, b, which in ((first, second, "first"), (second, first, "second")):
        yield from (Difference(kind, name, f"only in the {which}") for name in a if name not in b)


def _entry_differences(name: str, first: EntryPoint, second: EntryPoint) -> Iterator[Difference]:
    kind = "entry point"
    if str(first.signature) != str(second.signature):
        yield Difference(kind, name, f"takes {first.signature} -> {second.signature}")
    gives = [(e.signature.outputs, e.signature.results) for e in (first, second)]
    if gives[0] != gives[1]:
        yield Difference(kind, name, "nests its results in another way")
    old, new = ({h.name: h.default for h in entry.hypers} for entry in (first, second))
    for place, text in _plain_differences("", old, new):
        yield Difference(kind, name, f"hyper-parameter {place}: {text}")
    if first.modes != second.modes:
        yield Difference(kind, name, f"training modes {first.modes} -> {second.modes}")
    for difference in compare_graphs(first.graph, second.graph):
        what = "changed" if all(difference) else "removed" if difference.first else "added"
        lines = [f"  {sign} {text}" for sign, text in zip("-+", difference, strict=True) if text]
        yield Difference("graph", name, "\n".join([what, *lines]))


def _report_differences(name: str, first: EntryPoint, second: EntryPoint) -> Iterator[Difference]:
    """Frozen values are matched by how they were read and their expression, wherever they stand."""
    reports = [entry.report() for entry in (first, second)]
    old, new = (
        {f"{b.how} {b.expression}": ", ".join(b.values) or "?" for b in report.bakes}
        for report in reports
    )
    for place, text in _plain_differences("", old, new):
        yield Difference("report", name, f"frozen {place}: {text}")
    plain = [report.to_data() for report in reports]
    for place, text in _plain_differences("", plain[0], plain[1], _TOLD_ELSEWHERE):
        yield Difference("report", name, f"{place}: {text}")


def _tensor_differences(
    first: Mapping[str, Tensor], second: Mapping[str, Tensor],
    advance: Callable[[int], None] | None,
) -> Iterator[Difference]:  # fmt: skip
    yield from _missing("tensor", first, second)
    for name, t in first.items():
        text = _tensor_difference(t, second[name]) if name in second else ""
        if text:
            yield Difference("tensor", name, text)
        if advance is not None:
            advance(t._data.size)


def _tensor_difference(first: Tensor, second: Tensor) -> str:
    """How two tensors differ; "" where they are equal (NaN equals NaN, -0 equals 0)."""
    known = type_of(first)
    if known != type_of(second):
        return f"{known} -> {type_of(second)}"
    a, b = first._data.reshape(-1), second._data.reshape(-1)
    count, gap = 0, 0.0
    for start in range(0, a.size, _CHUNK_ELEMENTS):
        ours, theirs = a[start : start + _CHUNK_ELEMENTS], b[start : start + _CHUNK_ELEMENTS]
        differs = ours != theirs
        if known.dtype.kind >= FLOAT_KIND:
            differs &= (ours == ours) | (theirs == theirs)
        if differs.any():
            count += int(np.count_nonzero(differs))
            with np.errstate(all="ignore"):
                wide = np.complex128 if known.dtype.is_complex else np.float64
                gaps = np.abs(ours[differs].astype(wide) - theirs[differs].astype(wide))
            gap = float(np.maximum(gap, gaps.max()))
    if not count:
        return ""
    text = f"{count:,} of {a.size:,} elements differ"
    return text if known.dtype.kind == BOOL_KIND else f"{text}, at most by {gap:.3g}"


def _without_tensors(nest: Any) -> Any:
    """Nested values with the tensors, which are compared for themselves, taken out."""
    if isinstance(nest, dict):
        return {k: _without_tensors(v) for k, v in nest.items()}
    if isinstance(nest, (list, tuple)):
        return [_without_tensors(v) for v in nest]
    return None if isinstance(nest, (Tensor, np.ndarray)) else nest


def _plain_differences(
    path: str, first: Any, second: Any, skipped: frozenset[str] = frozenset()
) -> Iterator[tuple[str, str]]:
    """Yield the places where plain data differ, and how."""
    if isinstance(first, dict) and isinstance(second, dict):
        for key in dict.fromkeys([*first, *second]):
            where = f"{path} {key}".strip()
            if key in skipped:
                continue
            if key not in second or key not in first:
                yield where, f"only in the {'first' if key in first else 'second'}"
            else:
                yield from _plain_differences(where, first[key], second[key], skipped)
    elif isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        for i, (a, b) in enumerate(zip(first, second, strict=True)):
            yield from _plain_differences(f"{path} {i}".strip(), a, b, skipped)
    elif repr(first) != repr(second):
        yield path, f"{first!r} -> {second!r}"
