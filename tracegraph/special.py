"""The face of the special functions, as `torch.special`."""

from tracegraph.api.special import *  # noqa: F403
from tracegraph.api.special import __all__ as __all__
