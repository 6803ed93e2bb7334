"""Shape ops that cancel, compose or do nothing. All exact: they only move elements."""

from __future__ import annotations

from typing import Any, Final

from tracegraph.dtypes import FLOAT_KIND
from tracegraph.ir.graph import Graph, Node, Value
from tracegraph.passes.rewriting import Maker, rewrite, table, uniform_of

Index = tuple[Any, ...]

# A cat of more pieces is not joined with the cat that reads it: chains would grow quadratically.
_MAX_PIECES: Final = 64


def simplify_shapes(graph: Graph) -> int:
    """Compose and remove reshape, permute, expand, slice, cat, pad and reductions of nothing."""
    return rewrite(graph, _RULES)


def _same_type(make: Maker, node: Node) -> Value | None:
    """Ops that with this result type can only be the identity."""
    x = node.inputs[0]
    return x if x.type == node.out.type else None


def _reshape(make: Maker, node: Node) -> Value | None:
    """reshape(reshape(x)) = reshape(x)."""
    inner = node.inputs[0].node
    return make.reshape(inner.inputs[0], node.out.type.shape) if inner.op == "reshape" else None


def _permute(make: Maker, node: Node) -> Value | None:
    """Composed permutes; those that keep the order of dims larger than 1 are reshapes."""
    dims = node.attrs["dims"]
    x = node.inputs[0]
    if dims == tuple(range(len(dims))):
        return x
    if x.node.op == "permute":
        outer = x.node.attrs["dims"]
        return make.op("permute", x.node.inputs[0], dims=tuple(outer[d] for d in dims))
    moved = [d for d in dims if x.type.shape[d] != 1]
    return make.reshape(x, node.out.type.shape) if moved == sorted(moved) else None


def _expand(make: Maker, node: Node) -> Value | None:
    """expand(expand(x)) = expand(x); an expand that adds only dims of size 1 is a reshape."""
    x = node.inputs[0]
    if x.node.op == "expand":
        return make.expand(x.node.inputs[0], node.out.type.shape)
    return make.reshape(x, node.out.type.shape) if x.type.size == node.out.type.size else None


def _of_uniform(make: Maker, node: Node) -> Value | None:
    """Moving elements that are all equal gives as many of them."""
    x = node.inputs[0]
    if x.node.op != "expand" or uniform_of(x) is None:
        return None
    origin = x.node.inputs[0]
    return make.expand(make.reshape(origin, ()), node.out.type.shape)


def _is_whole(index: Index, shape: tuple[int, ...]) -> bool:
    """Whether a slice covers all elements."""
    return all(
        _count(item) == size if isinstance(item, tuple) else size == 1
        for item, size in zip(index, shape, strict=True)
    )


def _count(item: tuple[int, int, int]) -> int:
    start, stop, step = item
    return -(-(stop - start) // step)


def _slice(make: Maker, node: Node) -> Value | None:
    """Whole slices, and slices of slices, of writes and of cats."""
    x = node.inputs[0]
    index = node.attrs["index"]
    if _is_whole(index, x.type.shape):
        return make.reshape(x, node.out.type.shape)
    inner = x.node
    if inner.op == "slice":
        composed = _compose(inner.attrs["index"], index)
        return make.op("slice", inner.inputs[0], index=composed)
    if inner.op == "slice_scatter":
        if inner.attrs["index"] == index:
            return inner.inputs[1]
        if _disjoint(inner.attrs["index"], index):
            return make.op("slice", inner.inputs[0], index=index)
    if inner.op == "cat":
        return _slice_of_cat(make, inner, index)
    return _slice_of_pad(make, inner, index) if inner.op == "pad" else None


def _compose(first: Index, second: Index) -> Index:
    """The one slice that does `first` and then `second`."""
    rest = iter(second)
    composed: list[Any] = []
    for item in first:
        if not isinstance(item, tuple):
            composed.append(item)
            continue
        start, _, step = item
        then = next(rest)
        if not isinstance(then, tuple):
            composed.append(start + then * step)
            continue
        count = _count(then)
        begin = start + then[0] * step
        stride = step * then[2]
        end = begin + (count - 1) * stride + 1 if count else begin
        composed.append((begin, end, stride) if count else (0, 0, 1))
    return tuple(composed)


def _disjoint(a: Index, b: Index) -> bool:
    """Whether two slices of one array share no element, as far as their bounds tell."""
    for one, other in zip(a, b, strict=True):
        low = one if isinstance(one, tuple) else (one, one + 1)
        high = other if isinstance(other, tuple) else (other, other + 1)
        if low[1] <= high[0] or high[1] <= low[0]:
            return True
    return False


def _slice_of_cat(make: Maker, cat: Node, index: Index) -> Value | None:
    """A slice that falls into one operand of a cat."""
    dim = cat.attrs["dim"]
    item = index[dim]
    is_span = isinstance(item, tuple)
    first, last = (item[0], max(item[0], item[1] - 1)) if is_span else (item, item)
    start = 0
    for piece in cat.inputs:
        size = piece.type.shape[dim]
        if start <= first and last < start + size:
            moved = (item[0] - start, item[1] - start, item[2]) if is_span else item - start
            return make.op("slice", piece, index=(*index[:dim], moved, *index[dim + 1 :]))
        start += size
    return None


def _slice_of_pad(make: Maker, pad: Node, index: Index) -> Value | None:
    """A slice that takes nothing of the border."""
    x = pad.inputs[0]
    moved: list[Any] = []
    for item, (before, _), size in zip(index, pad.attrs["pads"], x.type.shape, strict=True):
        start, stop, step = item if isinstance(item, tuple) else (item, item + 1, 1)
        start, stop = start - before, stop - before
        if start < 0 or stop > size:
            return None
        moved.append((start, stop, step) if isinstance(item, tuple) else start)
    return make.op("slice", x, index=tuple(moved))


def _slice_scatter(make: Maker, node: Node) -> Value | None:
    """Writes of everything, writes that are overwritten, and writes into a constant border."""
    x, y = node.inputs
    index = node.attrs["index"]
    if _is_whole(index, x.type.shape):
        return make.reshape(y, x.type.shape)
    if y.type.size == 0:
        return x
    if x.node.op == "slice_scatter" and x.node.attrs["index"] == index:
        return make.op("slice_scatter", x.node.inputs[0], y, index=index)
    fill = uniform_of(x)
    if fill is None or x.type.size == y.type.size or fill.dtype.kind == "c":
        return None
    spans = [i if isinstance(i, tuple) else (i, i + 1, 1) for i in index]
    if any(step != 1 and _count((start, stop, step)) > 1 for start, stop, step in spans):
        return None
    shape = tuple(_count(span) for span in spans)
    pads = tuple(
        (span[0], size - span[0] - count)
        for span, size, count in zip(spans, x.type.shape, shape, strict=True)
    )
    return make.op("pad", make.reshape(y, shape), pads=pads, value=_exact(fill))


def _exact(array: Any) -> Any:
    return array.item() if array.dtype.kind != "V" else float(array)


def _overwrite(make: Maker, node: Node) -> Value | None:
    """All of x is written: what is left is y."""
    y = node.inputs[1]
    return y if y.type == node.out.type else None


def _cat(make: Maker, node: Node) -> Value | None:
    """Cats of one piece, of cats, of nothing, and of neighbouring slices of one array."""
    dim = node.attrs["dim"]
    pieces: list[Value] = []
    for value in node.inputs:
        inner = value.node
        if inner.op == "cat" and inner.attrs["dim"] == dim and len(inner.inputs) <= _MAX_PIECES:
            pieces.extend(inner.inputs)
        elif value.type.shape[dim]:
            pieces.append(value)
    pieces = pieces or [node.inputs[0]]
    joined = [pieces[0]]
    for piece in pieces[1:]:
        merged = _neighbours(make, joined[-1], piece, dim)
        if merged is None:
            joined.append(piece)
        else:
            joined[-1] = merged
    if len(joined) == 1:
        return joined[0]
    return None if joined == list(node.inputs) else make.op("cat", *joined, dim=dim)


def _neighbours(make: Maker, a: Value, b: Value, dim: int) -> Value | None:
    """Two slices of one array that continue each other along a dim, as one slice."""
    if a.node.op != "slice" or b.node.op != "slice" or a.node.inputs != b.node.inputs:
        return None
    one, other = a.node.attrs["index"], b.node.attrs["index"]
    if not all(isinstance(i, tuple) for i in (*one, *other)):
        return None
    rest = one[:dim] + one[dim + 1 :] == other[:dim] + other[dim + 1 :]
    if not rest or one[dim][2] != 1 or other[dim][2] != 1 or one[dim][1] != other[dim][0]:
        return None
    index = (*one[:dim], (one[dim][0], other[dim][1], 1), *one[dim + 1 :])
    return make.op("slice", a.node.inputs[0], index=index)


def _flip(make: Maker, node: Node) -> Value | None:
    """Flips that undo each other, or reverse single elements."""
    x = node.inputs[0]
    if all(x.type.shape[d] == 1 for d in node.attrs["dims"]):
        return x
    if x.node.op == "flip" and set(x.node.attrs["dims"]) == set(node.attrs["dims"]):
        return x.node.inputs[0]
    return None


def _reduction_of_one(make: Maker, node: Node) -> Value | None:
    """Reductions over dims of size 1; a float sum still turns −0.0 into 0.0."""
    x = node.inputs[0]
    if any(x.type.shape[d] != 1 for d in node.attrs["dim"]):
        return None
    if node.op in ("sum", "mean") and x.type.dtype.kind >= FLOAT_KIND:
        x = make.op("add", x, make.constant(0.0, x.type.dtype))
    return make.reshape(x, node.out.type.shape)


def _scan_of_one(make: Maker, node: Node) -> Value | None:
    """Running sums of single elements."""
    x = node.inputs[0]
    return x if x.type.shape and x.type.shape[node.attrs["dim"]] == 1 else None


_RULES: Final = table(
    {
        "reshape": (_same_type, _of_uniform, _reshape),
        "permute": (_of_uniform, _permute),
        "expand": (_same_type, _expand),
        "slice": (_of_uniform, _slice),
        "slice_scatter": _slice_scatter,
        "overwrite": _overwrite,
        "overwrite_view": _overwrite,
        "copy pad": _same_type,
        "cat": _cat,
        "flip": (_of_uniform, _flip),
        "sum mean prod amax amin any all": _reduction_of_one,
        "cumsum cumprod": _scan_of_one,
    }
)
