"""`tracegraph diff`: entry points, graphs, State and reports of two files compared."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tracegraph.cli.arguments import DIFFERENT, SUCCESS
from tracegraph.cli.comparing import compare_graphs
from tracegraph.cli.files import File, tensors_in
from tracegraph.cli.output import count_text, progress, write
from tracegraph.dtypes import BOOL_KIND, FLOAT_KIND
from tracegraph.entry import EntryPoint
from tracegraph.loaded import Loaded
from tracegraph.tensors import Tensor, type_of

# Parts of a report that the comparison of graphs and State tells better, or that move with lines.
_TOLD_ELSEWHERE = frozenset(("state", "writes", "hypers", "line"))
_CHUNK_ELEMENTS = 1 << 20


def run(args: argparse.Namespace) -> int:
    """Print the differences; the status says whether there are any."""
    first, second = File(args.first), File(args.second)
    count = 0
    for line in _differences(first.content, second.content):
        if count == 0:
            write(f"--- {first.path}\n+++ {second.path}")
        count += 1
        write(line)
    if not count:
        write(f"{first.path} and {second.path} hold the same")
        return SUCCESS
    write(count_text(count, "difference"))
    return DIFFERENT


def _differences(first: Any, second: Any) -> Iterator[str]:
    """Yield a text of one or more lines for each difference."""
    if isinstance(first, Loaded) != isinstance(second, Loaded):
        kinds = ["graphs" if isinstance(c, Loaded) else "tensors only" for c in (first, second)]
        yield f"kind: {kinds[0]} -> {kinds[1]}"
        return
    if not isinstance(first, Loaded):
        yield from _tensor_differences(dict(tensors_in(first)), dict(tensors_in(second)))
        yield from _plain_differences("value", _without_tensors(first), _without_tensors(second))
        return
    yield from _missing("entry point", first.entries, second.entries)
    for name, entry in first.entries.items():
        if name in second.entries:
            yield from _entry_differences(name, entry, second.entries[name])
            yield from _plain_differences(
                f"report of {name}:", first.report().get(name), second.report().get(name),
                _TOLD_ELSEWHERE,
            )  # fmt: skip
    yield from _tensor_differences(first.state_dict(), second.state_dict())


def _missing(noun: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"{noun} {name}: only in the first" for name in first if name not in second)
    yield from (f"{noun} {name}: only in the second" for name in second if name not in first)


def _entry_differences(name: str, first: EntryPoint, second: EntryPoint) -> Iterator[str]:
    if str(first.signature) != str(second.signature):
        yield f"entry point {name}: takes {first.signature} -> {second.signature}"
    old = {h.name: h.default for h in first.hypers}
    new = {h.name: h.default for h in second.hypers}
    yield from _plain_differences(f"entry point {name}: hyper-parameter", old, new)
    if first.traced_modes != second.traced_modes:
        yield f"entry point {name}: training modes {first.traced_modes} -> {second.traced_modes}"
    for difference in compare_graphs(first.graph, second.graph):
        what = "changed" if all(difference) else "removed" if difference.first else "added"
        lines = [f"  {sign} {text}" for sign, text in zip("-+", difference, strict=True) if text]
        yield "\n".join([f"graph {name}: {what}", *lines])


def _tensor_differences(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> Iterator[str]:
    yield from _missing("tensor", first, second)
    total = sum(t._data.size for t in first.values())
    with progress("comparing tensors", total) as shown:
        for name, t in first.items():
            if name in second:
                text = _tensor_difference(t, second[name])
                if text:
                    yield f"tensor {name}: {text}"
            shown.advance(t._data.size)


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
        if known.dtype.kind == FLOAT_KIND:
            differs &= (ours == ours) | (theirs == theirs)
        if differs.any():
            count += int(np.count_nonzero(differs))
            with np.errstate(all="ignore"):
                gaps = np.abs(ours[differs].astype(np.float64) - theirs[differs].astype(np.float64))
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
) -> Iterator[str]:
    """Yield the places where plain data differ."""
    if isinstance(first, dict) and isinstance(second, dict):
        for key in dict.fromkeys([*first, *second]):
            if key in skipped:
                continue
            where = f"{path} {key}"
            if key not in second:
                yield f"{where}: only in the first"
            elif key not in first:
                yield f"{where}: only in the second"
            else:
                yield from _plain_differences(where, first[key], second[key], skipped)
    elif isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        for i, (a, b) in enumerate(zip(first, second, strict=True)):
            yield from _plain_differences(f"{path} {i}", a, b, skipped)
    elif repr(first) != repr(second):
        yield f"{path}: {first!r} -> {second!r}"
