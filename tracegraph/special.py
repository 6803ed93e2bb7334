"""The face of the special functions, as `torch.special`."""

from tracegraph.api.polynomials import POLYNOMIALS as _POLYNOMIALS
from tracegraph.api.special import *  # noqa: F403
from tracegraph.api.special import __all__ as _names

globals().update(_POLYNOMIALS)

__all__ = [*_names, *_POLYNOMIALS]
