"""Linear maps, and tables of rows looked up by index."""

from __future__ import annotations

from typing import Any

from tracegraph.api.indexing import check_index_dtype
from tracegraph.api.promotion import cast, counting, filled
from tracegraph.autograd import no_grad
from tracegraph.dtypes import bool_, int64
from tracegraph.eager import modes
from tracegraph.eager.dispatch import front
from tracegraph.eager.engine import in_rows
from tracegraph.eager.tensors import Tensor, type_of
from tracegraph.errors import OpError
from tracegraph.nn.functional.support import count, need_one_dtype


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return input · weightᵀ + bias: input[..., in], weight[out, in] (or [in]), bias[out]."""
    need_one_dtype("linear", input, weight, bias)
    out: Tensor
    if weight.ndim == 1:
        out = front.linear(input, weight.unsqueeze(0)).squeeze(-1)
    elif bias is not None and bias.ndim == 1:
        out = front.linear(input, weight, bias)
        return out
    else:
        out = front.linear(input, weight)
    return out if bias is None else out + bias


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return Σᵢⱼ input1[..., i] · weight[o, i, j] · input2[..., j] + bias[o].

    Raises:
        OpError: the leading dims differ, or sizes do not fit the weight.
    """
    if input1.shape[:-1] != input2.shape[:-1]:
        raise OpError(
            "bilinear(): input batch dimensions do not match: got "
            f"{list(input1.shape)} and {list(input2.shape)}"
        )
    outs, width1, width2 = weight.shape
    lead = tuple(input1.shape[:-1])
    rows = input1.reshape(count(lead), width1)
    middle = rows @ weight.permute(1, 0, 2).reshape(width1, outs * width2)
    out: Tensor = middle.reshape(-1, outs, width2) @ input2.reshape(-1, width2, 1)
    out = out.reshape(*lead, outs)
    return out if bias is None else out + bias


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """Return int64[..., num_classes] with a 1 at each index; −1 counts the classes from the data.

    Raises:
        OpError: indices that are no int64, negative, or not below `num_classes`.
    """
    if type_of(tensor).dtype is not int64:
        raise OpError("one_hot is only applicable to index tensor of type LongTensor.")
    if num_classes == -1 or not modes.recording:
        num_classes = _count_classes(tensor, num_classes)
    hit = in_rows(tensor).unsqueeze(-1) == counting(tensor, num_classes)
    return cast(hit, int64)


def _count_classes(tensor: Tensor, num_classes: int) -> int:
    if tensor._data.size == 0:
        if num_classes <= 0:
            raise OpError("Can not infer total number of classes from empty tensor.")
        return num_classes
    if int(tensor.min()) < 0:
        raise OpError("Class values must be non-negative.")
    largest = int(tensor.max())
    if num_classes == -1:
        return largest + 1
    if num_classes < 1:
        raise OpError("num_classes should be positive")
    if largest >= num_classes:
        raise OpError("Class values must be smaller than num_classes.")
    return num_classes


def _row(weight: Tensor, padding_idx: int | None) -> int:
    """Return `padding_idx` counted from the front, −1 for none."""
    if padding_idx is None:
        return -1
    rows = weight.shape[0]
    if not -rows <= padding_idx < rows:
        raise AssertionError("Padding_idx must be within num_embeddings")
    return padding_idx % rows


def _limit_rows(weight: Tensor, index: Tensor, max_norm: float, norm_type: float) -> None:
    """Scale the rows that are looked up, in place, where their norm exceeds `max_norm`."""
    with no_grad():
        norms = weight.norm(norm_type, dim=1, keepdim=True)
        used = filled(weight, (weight.shape[0],), 0).index_put((index.reshape(-1),), _one(weight))
        too_long = (norms > max_norm) & cast(used, bool_).unsqueeze(1)
        weight.copy_((weight * (max_norm / (norms + 1e-7))).where(too_long, weight))


def _one(like: Tensor) -> Tensor:
    return filled(like, (), 1)


def embedding(
    input: Tensor, weight: Tensor, padding_idx: int | None = None, max_norm: float | None = None,
    norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False,
) -> Tensor:  # fmt: skip
    """Return rows of weight[count, width] by index: [*input.shape, width].

    `padding_idx` names a row without gradient; `max_norm` limits the norm of rows in place;
    `sparse` gives the same, dense, gradient.

    Raises:
        IndexError: an index out of range.
    """
    index, row = check_index_dtype(input), _row(weight, padding_idx)
    if max_norm is not None:
        _limit_rows(weight, index, max_norm, norm_type)
    return front.embedding(
        weight, index, padding_idx=row, scale_grad_by_freq=bool(scale_grad_by_freq)
    )


def _bags(input: Tensor, offsets: Tensor | None, last: bool) -> tuple[Tensor, Tensor, int]:
    """Return flat indices, the bag of each, and the number of bags."""
    if input.ndim == 2:
        if offsets is not None:
            raise ValueError(
                "if input is 2D, then offsets has to be None, as input is treated is a mini-batch "
                "of fixed length sequences. However, found offsets of type <class 'Tensor'>"
            )
        bags, length = input.shape
        bag = counting(input, bags).reshape(-1, 1).expand(bags, length).reshape(-1)
        return input.reshape(-1), bag, bags
    if input.ndim != 1:
        raise ValueError(
            f"input has to be 1D or 2D Tensor, but got Tensor of dimension {input.ndim}"
        )
    if offsets is None:
        raise ValueError("offsets has to be a 1D Tensor but got None")
    starts = cast(offsets, int64)
    bags = starts.shape[0] - int(last)
    places = counting(input, input.shape[0])
    bag = (places.reshape(-1, 1) >= starts[:bags].reshape(1, -1)).sum(1) - 1
    return input, bag, bags


def embedding_bag(
    input: Tensor, weight: Tensor, offsets: Tensor | None = None, max_norm: float | None = None,
    norm_type: float = 2, scale_grad_by_freq: bool = False, mode: str = "mean",
    sparse: bool = False, per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False, padding_idx: int | None = None,
) -> Tensor:  # fmt: skip
    """Return the sum, mean or max of embeddings per bag: f[bags, width].

    A bag is a row of a 2-d input, or what lies between two `offsets` of a 1-d input; entries at
    `padding_idx` do not count.

    Raises:
        ValueError: input, offsets and mode do not fit together.
    """
    if mode not in ("sum", "mean", "max"):
        raise ValueError("mode has to be one of sum, mean or max")
    if per_sample_weights is not None and mode != "sum":
        raise NotImplementedError(
            "embedding_bag: per_sample_weights was not None. per_sample_weights is only supported "
            f"for mode='sum' (got mode='{mode}'). Please open a feature request on GitHub."
        )
    index, bag, bags = _bags(check_index_dtype(input), offsets, include_last_offset)
    rows = embedding(index, weight, padding_idx, max_norm, norm_type, scale_grad_by_freq)
    row = _row(weight, padding_idx)
    keep = cast(index != row, type_of(weight).dtype)
    if mode == "max":
        return _largest_rows(rows, bag, bags, keep)
    if per_sample_weights is not None:
        keep = keep * per_sample_weights.reshape(-1)
    rows = rows * keep.unsqueeze(1)
    zeros = filled(weight, (bags, weight.shape[1]), 0)
    total: Tensor = front.index_put(zeros, rows, bag, dims=(0,), accumulate=True)
    if mode == "sum":
        return total
    none = filled(weight, (bags,), 0)
    sizes: Tensor = front.index_put(none, keep, bag, dims=(0,), accumulate=True)
    return total / sizes.clamp(min=1).unsqueeze(1)


def _largest_rows(rows: Tensor, bag: Tensor, bags: int, keep: Tensor) -> Tensor:
    """The largest entry per bag and column, 0 for a bag without entries."""
    member = (bag.unsqueeze(0) == counting(bag, bags).unsqueeze(1)) & (keep != 0).unsqueeze(0)
    low = filled(rows, (), float("-inf"))
    spread = rows.unsqueeze(0).where(member.unsqueeze(2), low)
    largest: Any = spread.max(dim=1)
    found = member.any(dim=1).unsqueeze(1)
    return largest.values.where(found, filled(rows, (), 0))
