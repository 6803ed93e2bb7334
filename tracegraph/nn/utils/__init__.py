"""Helpers around Modules: gradient clipping, parameter vectors, reparametrisations, sequences."""

from tracegraph.module_names import stands_for
from tracegraph.nn.utils import parametrizations, parametrize, prune, rnn, stateless
from tracegraph.nn.utils.clip_grad import (
    clip_grad_norm,
    clip_grad_norm_,
    clip_grad_value_,
    clip_grads_with_norm_,
    get_total_norm,
)
from tracegraph.nn.utils.convert_parameters import parameters_to_vector, vector_to_parameters
from tracegraph.nn.utils.fusion import (
    fuse_conv_bn_eval,
    fuse_conv_bn_weights,
    fuse_linear_bn_eval,
    fuse_linear_bn_weights,
    skip_init,
)
from tracegraph.nn.utils.spectral_norm import remove_spectral_norm, spectral_norm
from tracegraph.nn.utils.weight_norm import remove_weight_norm, weight_norm

__all__ = [
    "clip_grad_norm",
    "clip_grad_norm_",
    "clip_grad_value_",
    "clip_grads_with_norm_",
    "fuse_conv_bn_eval",
    "fuse_conv_bn_weights",
    "fuse_linear_bn_eval",
    "fuse_linear_bn_weights",
    "get_total_norm",
    "parametrizations",
    "parametrize",
    "parameters_to_vector",
    "prune",
    "remove_spectral_norm",
    "remove_weight_norm",
    "rnn",
    "skip_init",
    "spectral_norm",
    "stateless",
    "vector_to_parameters",
    "weight_norm",
]

stands_for(f"{__name__}.spectral_norm", spectral_norm)
stands_for(f"{__name__}.weight_norm", weight_norm)
