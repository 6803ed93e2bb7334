"""PyTorch's names at the top level whose arguments differ from those of `nn.functional`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tracegraph.eager.dispatch import front
from tracegraph.eager.tensors import Tensor
from tracegraph.nn.functional import dense, norms, poolings


def native_layer_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None, bias: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return layer_norm with the mean and the inverse standard deviation of each row."""
    ndim = norms.normalized_dims(input, normalized_shape)
    y = norms.layer_norm(input, normalized_shape, weight, bias, eps)
    _, mean, var = front.layer_norm(input, ndim=ndim, eps=float(eps))
    return y, mean, (var + eps).rsqrt()


def native_group_norm(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, N: int, C: int, HxW: int,
    group: int, eps: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return group_norm with the mean and the inverse standard deviation of each group."""
    y = norms.group_norm(input, group, weight, bias, eps)
    rows = input.reshape(N, group, C // group * HxW)
    _, mean, var = front.layer_norm(rows, ndim=1, eps=float(eps))
    return y, mean.squeeze(-1), (var + eps).rsqrt().squeeze(-1)


def native_batch_norm(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, running_mean: Tensor | None,
    running_var: Tensor | None, training: bool, momentum: float, eps: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return batch_norm with the mean and inverse standard deviation, empty in evaluation."""
    y = norms.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    if not training:
        return y, input.new_empty(0), input.new_empty(0)
    _, mean, var = front.batch_norm(input, eps=float(eps))
    return y, mean, (var + eps).rsqrt()


def batch_norm(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, running_mean: Tensor | None,
    running_var: Tensor | None, training: bool, momentum: float, eps: float,
    cudnn_enabled: bool = True,
) -> Tensor:  # fmt: skip
    """Return `nn.functional.batch_norm`."""
    return norms.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)


def instance_norm(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, running_mean: Tensor | None,
    running_var: Tensor | None, use_input_stats: bool, momentum: float, eps: float,
    cudnn_enabled: bool = True,
) -> Tensor:  # fmt: skip
    """Return `nn.functional.instance_norm`."""
    return norms.instance_norm(
        input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps
    )


def embedding(
    weight: Tensor, indices: Tensor, padding_idx: int = -1, scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:  # fmt: skip
    """Return `nn.functional.embedding`; a negative `padding_idx` means none."""
    row = None if padding_idx < 0 else padding_idx
    return dense.embedding(indices, weight, row, scale_grad_by_freq=scale_grad_by_freq)


def adaptive_max_pool1d(input: Tensor, output_size: Any) -> tuple[Tensor, Tensor]:
    """Return `nn.functional.adaptive_max_pool1d` with indices."""
    return poolings.adaptive_max_pool1d_with_indices(input, output_size)
