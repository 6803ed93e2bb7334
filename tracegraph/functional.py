"""Functions that PyTorch writes in Python, under the module name that they have there."""

from tracegraph.api.functions import FUNCTIONS as _FUNCTIONS
from tracegraph.eager.tensors import Tensor as Tensor
from tracegraph.nn import functional

F = functional

_NAMES = (
    "atleast_1d", "atleast_2d", "atleast_3d", "block_diag", "broadcast_shapes",
    "broadcast_tensors", "cartesian_prod", "cdist", "chain_matmul", "einsum", "lu", "meshgrid",
    "norm", "split", "tensordot", "unique", "unique_consecutive", "unravel_index",
)  # fmt: skip

globals().update({name: f for name, f in _FUNCTIONS.items() if name in _NAMES})
