"""Helpers around Modules: gradient clipping, parameter vectors, reparametrisations, sequences."""

from tracegraph.nn.utils import parametrizations, parametrize, rnn
from tracegraph.nn.utils.clip_grad import (
    clip_grad_norm,
    clip_grad_norm_,
    clip_grad_value_,
    clip_grads_with_norm_,
    get_total_norm,
)
from tracegraph.nn.utils.convert_parameters import parameters_to_vector, vector_to_parameters
from tracegraph.nn.utils.spectral_norm import remove_spectral_norm, spectral_norm
from tracegraph.nn.utils.weight_norm import remove_weight_norm, weight_norm

__all__ = [
    "clip_grad_norm",
    "clip_grad_norm_",
    "clip_grad_value_",
    "clip_grads_with_norm_",
    "get_total_norm",
    "parametrizations",
    "parametrize",
    "parameters_to_vector",
    "remove_spectral_norm",
    "remove_weight_norm",
    "rnn",
    "spectral_norm",
    "vector_to_parameters",
    "weight_norm",
]
