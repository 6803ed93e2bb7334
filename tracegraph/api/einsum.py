"""einsum: sums of products by subscripts, made of permutations and matrix products."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from tracegraph.api.contraction import matrix_product
from tracegraph.api.promotion import cast, result_type
from tracegraph.api.reduction import sum as total
from tracegraph.api.shape import diagonal, permute, reshape, reshaped
from tracegraph.dims.shapes import alike, was_broadcast
from tracegraph.eager.tensors import Tensor
from tracegraph.errors import OpError


@lru_cache(maxsize=1024)
def _parse(equation: str, ranks: tuple[int, ...]) -> tuple[list[list[Any]], list[Any]]:
    """Return the labels of each operand's dims and of the result; `...` become negative ints.

    Raises:
        OpError: the equation does not fit operands of these ranks.
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    parts = left.split(",")
    if len(parts) != len(ranks):
        raise OpError(
            f"einsum(): the equation has {len(parts)} operands but {len(ranks)} were provided"
        )
    terms = [_labels(part, rank) for part, rank in zip(parts, ranks, strict=True)]
    wide = max((sum(isinstance(label, int) for label in term) for term in terms), default=0)
    hidden: list[Any] = list(range(-wide, 0))
    if arrow:
        before, dots, after = right.partition("...")
        return terms, [*before, *(hidden if dots else ()), *after]
    letters = [c for c in left if c.isalpha()]
    once = sorted(c for c in set(letters) if letters.count(c) == 1)
    return terms, [*hidden, *once]


def _labels(part: str, rank: int) -> list[Any]:
    before, dots, after = part.partition("...")
    named = len(before) + len(after)
    if not (before + after).isalpha() and named:
        raise OpError(f"einsum(): invalid subscript given in {part!r}; they are letters")
    if named > rank or (not dots and named != rank):
        raise OpError(f"einsum(): the subscripts {part!r} do not fit an operand with {rank} dims")
    hidden = list(range(named - rank, 0)) if dots else []
    return [*before, *hidden, *after]


def _from_sublists(operands: Sequence[Any]) -> tuple[str, list[Tensor]]:
    """Return the equation and tensors of `einsum(x, [0, 1], y, [1, 2], [0, 2])`."""

    def text(labels: Sequence[Any]) -> str:
        return "".join("..." if i is ... else chr((65 if i < 26 else 71) + i) for i in labels)

    pairs = len(operands) // 2
    equation = ",".join(text(operands[2 * i + 1]) for i in range(pairs))
    if len(operands) % 2:
        equation += "->" + text(operands[-1])
    return equation, [operands[2 * i] for i in range(pairs)]


def _diagonals(x: Tensor, labels: list[Any]) -> tuple[Tensor, list[Any]]:
    """Fold a label that stands twice in one operand onto its diagonal."""
    for label in dict.fromkeys(labels):
        while labels.count(label) > 1:
            i = labels.index(label)
            j = labels.index(label, i + 1)
            if x.shape[i] != x.shape[j]:
                raise OpError(f"einsum(): subscript {label} is repeated for sizes that differ")
            x = diagonal(x, 0, i, j)
            labels = [*labels[:i], *labels[i + 1 : j], *labels[j + 1 :], label]
    return x, labels


def _sum_out(x: Tensor, labels: list[Any], keep: set[Any]) -> tuple[Tensor, list[Any]]:
    """Sum the dims whose label nothing else names; dims of size 1 that only broadcast go too."""
    gone = tuple(i for i, label in enumerate(labels) if label not in keep)
    if gone:
        x = total(x, gone)
    return x, [label for label in labels if label in keep]


def _pair(
    x: Tensor, lx: list[Any], y: Tensor, ly: list[Any], keep: set[Any]
) -> tuple[Tensor, list[Any]]:
    """Multiply two operands and sum what only they name."""
    both = [label for label in lx if label in ly]
    for label in both:
        i, j = lx.index(label), ly.index(label)
        if was_broadcast(x.shape[i], y.shape[j]):
            x = reshape(x, tuple(n for k, n in enumerate(x.shape) if k != i))
            lx = [known for known in lx if known != label]
        elif was_broadcast(y.shape[j], x.shape[i]):
            y = reshape(y, tuple(n for k, n in enumerate(y.shape) if k != j))
            ly = [known for known in ly if known != label]
        elif x.shape[i] != y.shape[j]:
            raise OpError(
                f"einsum(): subscript {label} has size {x.shape[i]} and {y.shape[j]}, which "
                "do not broadcast"
            )
    x, lx = _sum_out(x, lx, keep | set(ly))
    y, ly = _sum_out(y, ly, keep | set(lx))
    if x._data.dtype is not y._data.dtype:
        dtype = result_type(x, y)
        x, y = cast(x, dtype), cast(y, dtype)
    both = [label for label in lx if label in ly]
    batch = [label for label in both if label in keep]
    summed = [label for label in both if label not in keep]
    only_x = [label for label in lx if label not in both]
    only_y = [label for label in ly if label not in both]
    sizes = {**dict(zip(lx, x.shape, strict=True)), **dict(zip(ly, y.shape, strict=True))}
    result = [*batch, *only_x, *only_y]
    shape = tuple(sizes[label] for label in result)

    def group(t: Tensor, labels: list[Any], *groups: list[Any]) -> Tensor:
        order = [labels.index(label) for g in groups for label in g]
        lead = tuple(sizes[label] for label in batch)
        ends = tuple(math.prod(sizes[label] for label in g) for g in groups[1:])
        return _shaped(_ordered(t, order), (*lead, *ends))

    if summed:
        out = matrix_product(
            group(x, lx, batch, only_x, summed), group(y, ly, batch, summed, only_y)
        )
    else:
        out = group(x, lx, batch, only_x, []) * group(y, ly, batch, [], only_y)
    return _shaped(out, shape), result


def _ordered(x: Tensor, order: list[int]) -> Tensor:
    return x if order == sorted(order) else permute(x, tuple(order))


def _shaped(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    return x if alike(x._data.shape, shape) else reshaped(x, shape)


def einsum(equation: Any, *operands: Any) -> Tensor:
    """Sums of products of elements whose subscripts agree, pair by pair from the left.

    Also as `einsum(x, [0, 1], y, [1, 2], [0, 2])`. An ellipsis broadcasts.

    Raises:
        OpError: the equation does not fit the operands.
    """
    if not isinstance(equation, str):
        equation, tensors = _from_sublists((equation, *operands))
    elif len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        tensors = list(operands[0])
    else:
        tensors = list(operands)
    terms, wanted = _parse(equation, tuple(len(x._data.shape) for x in tensors))
    known = {label for term in terms for label in term}
    if len(set(wanted)) != len(wanted) or not set(wanted) <= known:
        raise OpError(f"einsum(): the output of {equation!r} repeats or invents a subscript")
    pending = [_diagonals(x, term) for x, term in zip(tensors, terms, strict=True)]
    x, labels = pending[0]
    for place, (y, more) in enumerate(pending[1:], 2):
        later = {label for _, rest in pending[place:] for label in rest}
        x, labels = _pair(x, labels, y, more, later | set(wanted))
    x, labels = _sum_out(x, labels, set(wanted))
    return _ordered(x, [labels.index(label) for label in wanted])
