"""Batch norm folded into the layer before it, for evaluation."""

from __future__ import annotations

import copy
from typing import Any

from tracegraph.api.creation import ones_like, zeros_like
from tracegraph.eager.tensors import Tensor
from tracegraph.nn.parameter import Parameter


def _folded(
    weight: Tensor, bias: Any, mean: Tensor, var: Tensor, eps: float, gain: Any, shift: Any,
    place: int,
) -> tuple[Parameter, Parameter]:  # fmt: skip
    """Weight and bias of a layer and a batch norm in one; `place` is the weight's output dim."""
    scale = (ones_like(mean) if gain is None else gain) * (var + eps).rsqrt()
    base = zeros_like(mean) if bias is None else bias
    shape = [-1 if i == place else 1 for i in range(weight.ndim)]
    moved = (base - mean) * scale + (zeros_like(mean) if shift is None else shift)
    learns = weight.requires_grad
    fused = Parameter((weight * scale.reshape(shape)).to(dtype=weight.dtype).detach(), learns)
    return fused, Parameter(moved.to(dtype=weight.dtype).detach(), learns)


def fuse_conv_bn_weights(
    conv_w: Tensor, conv_b: Any, bn_rm: Tensor, bn_rv: Tensor, bn_eps: float, bn_w: Any,
    bn_b: Any, transpose: bool = False,
) -> tuple[Parameter, Parameter]:  # fmt: skip
    """Return weight and bias of a convolution that includes the batch norm after it."""
    return _folded(conv_w, conv_b, bn_rm, bn_rv, bn_eps, bn_w, bn_b, int(transpose))


def fuse_linear_bn_weights(
    linear_w: Tensor, linear_b: Any, bn_rm: Tensor, bn_rv: Tensor, bn_eps: float, bn_w: Any,
    bn_b: Any,
) -> tuple[Parameter, Parameter]:  # fmt: skip
    """Return weight and bias of a linear layer that includes the batch norm after it."""
    return _folded(linear_w, linear_b, bn_rm, bn_rv, bn_eps, bn_w, bn_b, 0)


def _fused(layer: Any, bn: Any, place: int) -> Any:
    if layer.training or bn.training:
        raise AssertionError("Fusion only for eval!")
    fused = copy.deepcopy(layer)
    fused.weight, fused.bias = _folded(
        fused.weight, fused.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias, place
    )
    return fused


def fuse_conv_bn_eval(conv: Any, bn: Any, transpose: bool = False) -> Any:
    """Return a copy of a convolution that includes the batch norm after it.

    Raises:
        AssertionError: one of them is in training mode.
    """
    return _fused(conv, bn, int(transpose))


def fuse_linear_bn_eval(linear: Any, bn: Any) -> Any:
    """Return a copy of a linear layer that includes the batch norm after it.

    Raises:
        AssertionError: one of them is in training mode, or their sizes differ.
    """
    if linear.out_features != bn.num_features and bn.num_features != 1:
        raise AssertionError(
            "To fuse, linear.out_features == bn.num_features or bn.num_features == 1"
        )
    return _fused(linear, bn, 0)


def skip_init(module_cls: Any, *args: Any, **kwargs: Any) -> Any:
    """Return a module; its Parameters may hold anything, so its own initial values will do."""
    return module_cls(*args, **kwargs)
