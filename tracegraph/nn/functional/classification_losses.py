"""Losses between scores of classes and labels, and of sequences of labels."""

from __future__ import annotations

from typing import Any

from tracegraph.api import pointwise
from tracegraph.api.promotion import cast, filled
from tracegraph.api.reduction import log_softmax
from tracegraph.dtypes import int64
from tracegraph.eager.dispatch import front
from tracegraph.eager.tensors import Tensor, type_of
from tracegraph.errors import OpError
from tracegraph.nn.functional.dense import linear, one_hot
from tracegraph.nn.functional.losses import (
    check_reduction,
    is_floating,
    reduced,
    reduction_named,
)

_Flag = bool | None


def binary_cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: _Flag = None,
    reduce: _Flag = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """Return −target·log(input) − (1 − target)·log(1 − input) for probabilities `input`.

    Raises:
        ValueError: input and target differ in shape.
    """
    if input._data.shape != target._data.shape:
        raise ValueError(
            f"Using a target size ({target.shape}) that is different to the input size "
            f"({input.shape}) is deprecated. Please ensure they have the same size."
        )
    loss = front.binary_cross_entropy(input, target)
    if weight is not None:
        loss = loss * weight
    return reduced(loss, reduction_named(size_average, reduce, reduction))


def binary_cross_entropy_with_logits(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: _Flag = None,
    reduce: _Flag = None, reduction: str = "mean", pos_weight: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Return the binary cross entropy of sigmoid(input); `pos_weight` multiplies positives.

    Raises:
        ValueError: input and target differ in shape.
    """
    if input._data.shape != target._data.shape:
        raise ValueError(
            f"Target size ({target.shape}) must be the same as input size ({input.shape})"
        )
    log_likelihood = front.logsigmoid(input)
    if pos_weight is not None:
        log_likelihood = log_likelihood * ((pos_weight - 1) * target + 1)
    loss = (1 - target) * input - log_likelihood
    if weight is not None:
        loss = loss * weight
    return reduced(loss, reduction_named(size_average, reduce, reduction))


def _check_target(input: Tensor, target: Tensor) -> int:
    """Return the dim of classes.

    Raises:
        ValueError: the target does not have the input's shape without that dim.
        OpError: the target is no integer tensor.
    """
    dim = 1 if input.ndim > 1 else 0
    wanted = (*input.shape[:dim], *input.shape[dim + 1 :])
    if input.ndim == 0 or (target.ndim == 0 and wanted) or (target.ndim and not wanted):
        raise ValueError(f"Expected target of shape {list(wanted)}, got {list(target.shape)}")
    if wanted[:1] != tuple(target.shape[:1]):
        raise ValueError(
            f"Expected input batch_size ({input.shape[0]}) to match target batch_size "
            f"({target.shape[0]})."
        )
    if tuple(target.shape) != wanted:
        raise OpError(f"Expected target size {list(wanted)}, got {list(target.shape)}")
    if is_floating(target):
        raise OpError(f"expected scalar type Long but found {type_of(target).dtype}")
    return dim


def _labelled(
    log_probs: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, smoothing: float
) -> tuple[Tensor, Tensor]:
    """Return the loss per label, and what each label weighs (0 where ignored)."""
    dim = _check_target(log_probs, target)
    labels = cast(target, int64)
    if weight is None and not smoothing:
        plain: tuple[Tensor, Tensor] = front.nll_loss(
            log_probs, labels, dim=dim, ignore_index=ignore_index
        )
        return plain
    ignored = labels == ignore_index
    zero = filled(log_probs, (), 0)
    labels = pointwise.where(ignored, filled(labels, (), 0), labels)
    loss = -front.gather(log_probs, labels.unsqueeze(dim), dim=dim).squeeze(dim)
    if weight is None:
        worth = cast(~ignored, type_of(log_probs).dtype)
    else:
        worth = front.index(weight, labels, dims=(0,))
        loss, worth = loss * worth, pointwise.where(ignored, zero, worth)
    if smoothing:
        scores = log_probs if weight is None else log_probs * _along(weight, dim, log_probs.ndim)
        even = -scores.sum(dim) * (smoothing / log_probs.shape[dim])
        loss = loss * (1 - smoothing) + even
    return pointwise.where(ignored, zero, loss), worth


def _along(weight: Tensor, dim: int, ndim: int) -> Tensor:
    return weight.reshape(tuple(-1 if i == dim else 1 for i in range(ndim)))


def _weighted_mean(loss: Tensor, worth: Tensor, how: str) -> Tensor:
    if how == "mean":
        return loss.sum() / worth.sum()
    return reduced(loss, how)


def nll_loss(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: _Flag = None,
    ignore_index: int = -100, reduce: _Flag = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """Return −input[label] for log-probabilities [batch, class, ...] or [class].

    The mean is over the weights of the labels that are not `ignore_index`.

    Raises:
        ValueError: input and target differ in batch size.
        IndexError: a label is out of range.
    """
    loss, worth = _labelled(input, target, weight, ignore_index, 0.0)
    return _weighted_mean(loss, worth, reduction_named(size_average, reduce, reduction))


def cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: _Flag = None,
    ignore_index: int = -100, reduce: _Flag = None, reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:  # fmt: skip
    """Return the cross entropy of softmax(input) over classes (dim 1, or 0 of a 1-d input).

    `target` holds class indices, or probabilities in the shape of the input.

    Raises:
        ValueError: input and target differ in batch size.
        IndexError: a label is out of range.
    """
    how = reduction_named(size_average, reduce, reduction)
    dim = 1 if input.ndim > 1 else 0
    log_probs = log_softmax(input, dim)
    if not (is_floating(target) and target._data.shape == input._data.shape):
        loss, worth = _labelled(log_probs, target, weight, ignore_index, float(label_smoothing))
        return _weighted_mean(loss, worth, how)
    classes = input.shape[dim]
    if label_smoothing:
        target = target * (1 - label_smoothing) + label_smoothing / classes
    scores = log_probs * target
    if weight is not None:
        scores = scores * _along(weight, dim, input.ndim)
    loss = -scores.sum(dim)
    if how == "mean":
        return loss.sum() / (input._data.size // max(classes, 1))
    return reduced(loss, how)


def linear_cross_entropy(
    input: Tensor, linear_weight: Tensor, target: Tensor, *, linear_bias: Tensor | None = None,
    weight: Tensor | None = None, reduction: str = "mean", ignore_index: int | None = None,
    label_smoothing: float = 0.0, options: Any = None,
) -> Tensor:  # fmt: skip
    """Return the cross entropy of linear(input): linear_weight[class, ..., in].

    `options`, about chunks, are accepted and not needed.

    Raises:
        OpError: shapes do not fit.
    """
    spread = linear_weight.shape[1:-1]
    logits_shape = (*input.shape[:-1], linear_weight.shape[0], *spread)
    if input.ndim not in (1, 2):
        raise OpError(f"expected input with dimensionality 1 or 2, got {input.ndim}")
    if spread and input.ndim == 1:
        raise OpError(
            f"K-dimensional loss defined by linear_weight shape {tuple(linear_weight.shape)} "
            f"requires batched input, (N, {input.shape[-1]}), got unbatched input with shape "
            f"{tuple(input.shape)}"
        )
    if ignore_index is not None and tuple(target.shape) == logits_shape:
        raise OpError("ignore_index cannot be specified when target contains probabilities")
    rows = linear_weight.reshape(-1, linear_weight.shape[-1])
    logits = linear(input, rows, None if linear_bias is None else linear_bias.reshape(-1))
    logits = logits.reshape(logits_shape)
    ignored = -100 if ignore_index is None else ignore_index
    return cross_entropy(
        logits, target, weight, ignore_index=ignored, reduction=reduction,
        label_smoothing=label_smoothing,
    )  # fmt: skip


def _one_label_each(input: Tensor, target: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the input as rows of scores, and the label of each.

    Raises:
        OpError: input and target do not fit.
        ValueError: the weight is not one per class.
    """
    if input.ndim > 2 or 0 in input.shape[-1:]:
        raise OpError(
            "Expected non-empty vector or matrix with optional 0-dim batch size, but got: "
            f"{list(input.shape)}"
        )
    rows = input if input.ndim == 2 else input.reshape(1, -1)
    if target.ndim > 1 or target._data.size != rows.shape[0]:
        raise OpError(
            f"target tensor should be 1-D with size equal to the batch. Expected target size "
            f"[{rows.shape[0]}], but got {list(target.shape)}"
        )
    if weight is not None and weight.ndim != 1:
        raise ValueError("weight must be one-dimensional")
    if weight is not None and weight._data.size != rows.shape[1]:
        raise OpError(
            f"inconsistent weight size, expected {rows.shape[1]} but got {list(weight.shape)}"
        )
    if is_floating(target):
        raise OpError(f"expected scalar type Long but found {type_of(target).dtype}")
    return rows, cast(target, int64).reshape(-1)


def multi_margin_loss(
    input: Tensor, target: Tensor, p: int = 1, margin: float = 1.0, weight: Tensor | None = None,
    size_average: _Flag = None, reduce: _Flag = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """Return Σ max(0, margin − input[label] + input[i])^p / classes over the other classes i.

    Raises:
        ValueError: p is neither 1 nor 2, or the weight is not one per class.
        OpError: input and target do not fit.
    """
    how = reduction_named(size_average, reduce, reduction)
    check_reduction(how)
    if p not in (1, 2):
        raise ValueError("only p == 1 and p == 2 supported")
    rows, labels = _one_label_each(input, target, weight)
    chosen = front.gather(rows, labels.unsqueeze(1), dim=1)
    cost = (margin - chosen + rows).clamp_min(0)
    if p == 2:
        cost = cost * cost
    if weight is not None:
        cost = cost * front.index(weight, labels, dims=(0,)).unsqueeze(1)
    own = one_hot(labels, rows.shape[1]) == 1
    loss = pointwise.where(own, filled(cost, (), 0), cost).sum(1) / rows.shape[1]
    if input.ndim < 2 and target.ndim == 0:
        loss = loss.squeeze(0)
    return reduced(loss, how)


def multilabel_margin_loss(
    input: Tensor, target: Tensor, size_average: _Flag = None, reduce: _Flag = None,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """Return Σ max(0, 1 − input[label] + input[i]) / classes over labels and other classes i.

    The labels of a row of `target` end at the first −1.
    """
    check_reduction(reduction_named(size_average, reduce, reduction))
    rows = input if input.ndim == 2 else input.reshape(1, -1)
    labels = cast(target, int64).reshape(rows.shape)
    named = (labels >= 0).to(int64).cumprod(1) == 1
    safe = pointwise.where(named, labels, filled(labels, (), 0))
    hits = (one_hot(safe, rows.shape[1]) == 1) & named.unsqueeze(2)
    others = ~hits.any(dim=1)
    chosen = front.gather(rows, safe, dim=1)
    cost = (1 - chosen.unsqueeze(2) + rows.unsqueeze(1)).clamp_min(0)
    counted = named.unsqueeze(2) & others.unsqueeze(1)
    loss = pointwise.where(counted, cost, filled(cost, (), 0)).sum((1, 2)) / rows.shape[1]
    if input.ndim < 2:
        loss = loss.squeeze(0)
    return reduced(loss, reduction_named(size_average, reduce, reduction))


def multilabel_soft_margin_loss(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: _Flag = None,
    reduce: _Flag = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """Return the mean over classes (dim −1) of the binary cross entropy of sigmoid(input)."""
    scores = target * front.logsigmoid(input) + (1 - target) * front.logsigmoid(-input)
    if weight is not None:
        scores = scores * weight
    loss = -scores.sum(-1) / input.shape[-1]
    return reduced(loss, reduction_named(size_average, reduce, reduction))
