"""Losses between numbers: distances, likelihoods and margins.

`reduction` is "mean", "sum" or "none"; the old `size_average` and `reduce` still name one.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

from tracegraph.api import pointwise
from tracegraph.api.promotion import filled
from tracegraph.autograd import no_grad
from tracegraph.dtypes import FLOAT_KIND
from tracegraph.eager import modes
from tracegraph.eager.dispatch import front
from tracegraph.eager.tensors import Tensor, type_of
from tracegraph.errors import OpError
from tracegraph.nn.functional.distances import pairwise_distance
from tracegraph.ops.core import refuse_complex


def reduction_named(size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    """Return the reduction, which the two old flags override where they are given."""
    if size_average is None and reduce is None:
        return reduction
    if reduce is False:
        return "none"
    return "sum" if size_average is False else "mean"


def check_reduction(reduction: str) -> None:
    """Refuse a reduction that does not exist.

    Raises:
        ValueError: naming it.
    """
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"{reduction} is not a valid value for reduction")


def reduced(loss: Tensor, reduction: str) -> Tensor:
    """Return the mean or sum of a loss, or the loss itself.

    Raises:
        ValueError: no such reduction.
    """
    refuse_complex("a loss", (loss._data,))
    if reduction == "mean":
        return loss.mean()
    if reduction == "sum":
        return loss.sum()
    check_reduction(reduction)
    return loss


def _difference(input: Tensor, target: Tensor, name: str) -> Tensor:
    if input._data.shape != target._data.shape:
        warnings.warn(
            f"Using a target size ({target.shape}) that is different to the input size "
            f"({input.shape}) in {name}. This will likely lead to incorrect results due to "
            "broadcasting. Please ensure they have the same size.",
            stacklevel=3,
        )
    d = input - target
    if name != "l1_loss":
        refuse_complex(name, (d._data,))
    return d


def _weighted(loss: Tensor, weight: Tensor | None, reduction: str) -> Tensor:
    """Reduce a loss; with weights the mean is over their sum."""
    if weight is None:
        return reduced(loss, reduction)
    loss = loss * weight
    if reduction == "mean":
        return loss.sum() / weight.expand(loss.shape).sum()
    return reduced(loss, reduction)


def mse_loss(
    input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
    reduction: str = "mean", weight: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Return the squared difference."""
    d = _difference(input, target, "mse_loss")
    return _weighted(d * d, weight, reduction_named(size_average, reduce, reduction))


def l1_loss(
    input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
    reduction: str = "mean", weight: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Return the absolute difference."""
    d = abs(_difference(input, target, "l1_loss"))
    return _weighted(d, weight, reduction_named(size_average, reduce, reduction))


def smooth_l1_loss(
    input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
    reduction: str = "mean", beta: float = 1.0,
) -> Tensor:  # fmt: skip
    """Return d² / (2·beta) where the difference d is below beta, else d − beta / 2.

    Raises:
        OpError: a negative beta.
    """
    if beta < 0:
        raise OpError("smooth_l1_loss does not support negative values for beta.")
    d = abs(_difference(input, target, "smooth_l1_loss"))
    if beta != 0:
        d = pointwise.where(d < beta, d * d * (0.5 / beta), d - 0.5 * beta)
    return reduced(d, reduction_named(size_average, reduce, reduction))


def huber_loss(
    input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0,
    weight: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Return d² / 2 where the difference d is at most delta, else delta · (d − delta / 2).

    Raises:
        OpError: delta is not positive.
    """
    if delta <= 0:
        raise OpError("huber_loss does not support non-positive values for delta.")
    d = abs(_difference(input, target, "huber_loss"))
    loss = pointwise.where(d <= delta, d * d * 0.5, (d - 0.5 * delta) * delta)
    return _weighted(loss, weight, reduction)


def kl_div(
    input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
    reduction: str = "mean", log_target: bool = False,
) -> Tensor:  # fmt: skip
    """Return target · (log target − input), the divergence of log-probabilities `input`.

    `reduction="batchmean"` divides the sum by the size of dim 0.
    """
    if log_target:
        loss = pointwise.exp(target) * (target - input)
    else:
        loss = pointwise.xlogy(target, target) - target * input
    wanted = reduction_named(size_average, reduce, reduction)
    if wanted == "batchmean":
        out: Tensor = loss.sum()
        return out / input.shape[0] if input.ndim else out
    return reduced(loss, wanted)


def poisson_nll_loss(
    input: Tensor, target: Tensor, log_input: bool = True, full: bool = False,
    size_average: bool | None = None, eps: float = 1e-8, reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """Return the negative log-likelihood of Poisson counts; `full` adds Stirling's log target!."""
    if log_input:
        loss = pointwise.exp(input) - target * input
    else:
        loss = input - target * pointwise.log(input + eps)
    if full:
        safe = pointwise.where(target > 1, target, filled(target, (), 1))
        log_factorial = safe * safe.log() - safe + 0.5 * (safe * (2 * math.pi)).log()
        loss = loss + pointwise.where(target > 1, log_factorial, filled(log_factorial, (), 0))
    return reduced(loss, reduction_named(size_average, reduce, reduction))


def _spread_variance(input: Tensor, var: Any) -> Tensor:
    """The variance in a shape that broadcasts against the input.

    Raises:
        ValueError: it fits neither as it is nor with one dim of size 1.
    """
    if not isinstance(var, Tensor):
        if var < 0:
            raise ValueError("var has negative entry/entries")
        return filled(input, tuple(input.shape), float(var))
    if var.shape != input.shape:
        if input.shape[:-1] == var.shape:
            var = var.unsqueeze(-1)
        elif var.ndim != input.ndim or [
            n for n, wanted in zip(var.shape, input.shape, strict=True) if n != wanted
        ] != [1]:
            raise ValueError("var is of incorrect size")
    if not modes.recording and bool((var < 0).any()):
        raise ValueError("var has negative entry/entries")
    return var


def gaussian_nll_loss(
    input: Tensor, target: Tensor, var: Any, full: bool = False, eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """Return the negative log-likelihood of a normal distribution; variances count as >= eps.

    Raises:
        ValueError: `var` has the wrong shape or a negative entry.
    """
    var = _spread_variance(input, var)
    with no_grad():
        lift = var.clamp(min=eps) - var
    var = var + lift
    d = input - target
    loss = (var.log() + d * d / var) * 0.5
    if full:
        loss = loss + 0.5 * math.log(2 * math.pi)
    return reduced(loss, reduction)


def soft_margin_loss(
    input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """Return log(1 + exp(−target · input)) for targets ±1."""
    loss = -front.logsigmoid(target * input)
    return reduced(loss, reduction_named(size_average, reduce, reduction))


def hinge_embedding_loss(
    input: Tensor, target: Tensor, margin: float = 1.0, size_average: bool | None = None,
    reduce: bool | None = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """Return input for target 1, max(0, margin − input) for target −1."""
    zero = filled(input, (), 0)
    far = pointwise.where(target != 1, (margin - input).clamp_min(0), zero)
    loss = far + pointwise.where(target != -1, input, zero)
    return reduced(loss, reduction_named(size_average, reduce, reduction))


def margin_ranking_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0,
    size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """Return max(0, margin − target · (input1 − input2)).

    Raises:
        OpError: the numbers of dims differ.
    """
    if not input1.ndim == input2.ndim == target.ndim:
        raise OpError(
            "margin_ranking_loss : All input tensors should have same dimension but got sizes: "
            f"input1: {input1.shape}, input2: {input2.shape}, target: {target.shape} "
        )
    loss = (margin - target * (input1 - input2)).clamp_min(0)
    return reduced(loss, reduction_named(size_average, reduce, reduction))


def cosine_embedding_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0,
    size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """Return 1 − cos for target 1, max(0, cos − margin) for target −1; vectors lie on dim −1.

    Raises:
        OpError: the inputs are neither matrices with a 1-d target nor vectors with a 0-d one.
    """
    if target.ndim not in (0, 1) or input1.ndim != target.ndim + 1:
        raise OpError(
            f"{target.ndim}D target tensor expects {target.ndim + 1}D input tensors, but found "
            f"inputs with sizes {list(input1.shape)} and {list(input2.shape)}."
        )
    lengths = ((input1 * input1).sum(-1) + 1e-12) * ((input2 * input2).sum(-1) + 1e-12)
    cos = (input1 * input2).sum(-1) / lengths.sqrt()
    zero = filled(cos, (), 0)
    near = pointwise.where(target == 1, 1 - cos, zero)
    loss = near + pointwise.where(target == -1, (cos - margin).clamp_min(0), zero)
    return reduced(loss, reduction_named(size_average, reduce, reduction))


def _triplet(
    distance: Callable[[Tensor, Tensor], Tensor], anchor: Tensor, positive: Tensor,
    negative: Tensor, margin: float, swap: bool,
) -> Tensor:  # fmt: skip
    near, far = distance(anchor, positive), distance(anchor, negative)
    if swap:
        far = pointwise.minimum(far, distance(positive, negative))
    return (margin + near - far).clamp_min(0)


def triplet_margin_loss(
    anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0, p: float = 2,
    eps: float = 1e-6, swap: bool = False, size_average: bool | None = None,
    reduce: bool | None = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """Return max(0, margin + |anchor − positive| − |anchor − negative|).

    `swap` takes the negative's distance to the positive where that is smaller.

    Raises:
        ValueError: margin is not positive.
    """
    if margin <= 0:
        raise ValueError(f"margin must be greater than 0, got {margin}")

    def distance(x: Tensor, y: Tensor) -> Tensor:
        return pairwise_distance(x, y, p, eps)

    loss = _triplet(distance, anchor, positive, negative, margin, swap)
    return reduced(loss, reduction_named(size_average, reduce, reduction))


def triplet_margin_with_distance_loss(
    anchor: Tensor, positive: Tensor, negative: Tensor, *,
    distance_function: Callable[[Tensor, Tensor], Tensor] | None = None, margin: float = 1.0,
    swap: bool = False, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """Return triplet_margin_loss with a distance of the caller's.

    Raises:
        ValueError: margin is not positive.
    """
    if margin <= 0:
        raise ValueError(f"margin must be greater than 0, got {margin}")
    distance = pairwise_distance if distance_function is None else distance_function
    return reduced(_triplet(distance, anchor, positive, negative, margin, swap), reduction)


def is_floating(x: Tensor) -> bool:
    """Whether a tensor holds floats."""
    return type_of(x).dtype.kind == FLOAT_KIND
