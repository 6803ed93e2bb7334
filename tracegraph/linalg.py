"""The face of linear algebra, as `torch.linalg`."""

from tracegraph.api.linear_algebra import *  # noqa: F403
from tracegraph.api.linear_algebra import __all__ as __all__
