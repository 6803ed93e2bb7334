"""PyTorch's functions under the name by which its own modules call them."""

from tracegraph.api.functions import FUNCTIONS as _FUNCTIONS

globals().update(_FUNCTIONS)
