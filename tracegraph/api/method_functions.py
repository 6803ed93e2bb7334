"""Methods of tensors that PyTorch also has as functions: `torch.clone(x)`, `torch.relu_(x)`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import tracegraph.eager.methods  # noqa: F401 - it completes Tensor
from tracegraph.eager.tensors import Tensor

_NAMES: Final = """
abs_ acos_ acosh_ arccos_ arccosh_ arcsin_ arcsinh_ arctan_ arctanh_ asin_ asinh_ atan_ atanh_
ceil_ clamp_ clamp_max_ clamp_min_ clip_ clone cos_ cosh_ deg2rad_ detach detach_ erf_ erfc_ exp2_
exp_ expm1_ fill_ fix_ floor_ frac_ gcd_ get_device i0_ index_put_ is_inference lcm_ ldexp_ log10_
log1p_ log2_ log_ logit_ nan_to_num_ neg_ negative_ rad2deg_ reciprocal_ resize_as_ round_ rsqrt_
sigmoid_ sin_ sinc_ sinh_ sqrt_ square_ tan_ tanh_ trunc_ xlogy_ zero_
"""

METHOD_FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    name: getattr(Tensor, name) for name in _NAMES.split()
}
"""Functions whose first argument is the tensor."""
