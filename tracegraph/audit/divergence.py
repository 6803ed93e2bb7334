"""Where two runs of a traced function, or a run and a replay, first differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from tracegraph.capture.provenance import Recording
from tracegraph.capture.trie import same_attrs
from tracegraph.devices import device_of, module_of
from tracegraph.dtypes import FLOAT_KIND, as_pairs
from tracegraph.eager.tensors import Tensor, type_of, wrap
from tracegraph.files.samples import Watched, results_of
from tracegraph.ir.control import GUARD
from tracegraph.ir.graph import CONSTANT, STATE, Graph, Node

_TOLERANCE: Final = {8: 1e-9, 4: 1e-4, 2: 2e-2}


def close(a: Any, b: Any) -> bool:
    """Whether two arrays agree, but for rounding of floats; or two Python values."""
    if not hasattr(a, "dtype") or not hasattr(b, "dtype"):
        return type(a) is type(b) and bool(a == b or a != a)
    known = type_of(wrap(a))
    if known != type_of(wrap(b)):
        return False
    x, y = (v.get() if hasattr(v, "get") else v for v in (a, b))
    x, y = as_pairs(x), as_pairs(y)
    if known.dtype.kind < FLOAT_KIND:
        return bool(np.array_equal(x, y))
    x, y = x.astype(np.float64), y.astype(np.float64)
    finite = x[np.isfinite(x)]
    scale = float(np.abs(finite).max()) if finite.size else 0.0
    tolerance = _TOLERANCE[known.dtype.to_real().itemsize]
    return bool(np.allclose(x, y, rtol=tolerance, atol=tolerance * scale, equal_nan=True))


def faults(mine: Recording, theirs: Recording) -> Iterator[int]:
    """Yield rows that differ, until one that runs another op or a guard comes out otherwise."""
    for row, (a, b) in enumerate(zip(mine.rows, theirs.rows, strict=False)):
        alike = a.op == b.op and a.inputs == b.inputs
        if not alike or not same_attrs(a.attrs, b.attrs) or (
            mine.numbers.get(row) != theirs.numbers.get(row)
        ):  # fmt: skip
            yield row
        if not alike or (a.op == GUARD and a.attrs != b.attrs):
            return


def changed_constant(mine: Recording, theirs: Recording) -> str | None:
    """Say which constant is another in the second run; None if the runs do the same till then."""
    for row in faults(mine, theirs):
        a, b = mine.rows[row], theirs.rows[row]
        if not a.op == b.op == CONSTANT:
            return None
        return (
            f"at {a.loc} the value {mine.constant(row)} became {theirs.constant(row)} in another "
            "call (a Python value that changes: random, a clock, a counter; or one that was read "
            "from a tensor unseen). The graph keeps the first; pass it as an argument, or compute "
            "it with tensors"
        )
    return None


def first_fault(mine: Recording, theirs: Recording) -> str | None:
    """Say where two recordings of a function first differ; None if they do not."""
    for row in faults(mine, theirs):
        a, b = mine.rows[row], theirs.rows[row]
        if a.op == b.op == STATE:
            return (
                f"at {a.loc} a tensor is used that was made outside of the trace while it ran (in "
                "another thread, or by code that hides it): the graph would keep its values"
            )
        what = [f"{r.op}({', '.join(f'{k}={v!r}' for k, v in r.attrs.items())})" for r in (a, b)]
        return changed_constant(mine, theirs) or (
            f"at {a.loc} another call of the function does {what[1]:.90} for {what[0]:.90}"
        )
    if len(mine.rows) != len(theirs.rows):
        rows = max(mine.rows, theirs.rows, key=len)
        more = rows[min(len(mine.rows), len(theirs.rows))]
        return f"at {more.loc} another call of the function goes on otherwise, with {more.op}"
    return None


def first_node(
    graph: Graph, device: Any, inputs: Sequence[Any], state: Mapping[str, Tensor],
    kept: Mapping[int, Sequence[Any]],
) -> str | None:  # fmt: skip
    """Say which node of a replay first differs from what a run computed (`kept`, by row)."""
    found: list[Node] = []

    def watch(node: Node, call: Any, operands: tuple[Any, ...]) -> Any:
        result = call(*operands)
        both = zip(results_of(node, result), kept.get(node.seq, ()), strict=False)
        if not found and not all(close(theirs, mine) for mine, theirs in both):
            found.append(node)
        return result

    arrays = {n: t._data if device_of(t._data) == device else device.place(t._data)
              for n, t in state.items()}  # fmt: skip
    Watched(graph, module_of(device), watch).run(inputs, arrays)
    return f"{found[0].op} at {found[0].loc}" if found else None
