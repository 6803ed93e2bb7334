"""Checks of gradients, under the module name that PyTorch has for them."""

from tracegraph.autograd.numerical import gradcheck, gradgradcheck
from tracegraph.module_names import stands_for

__all__ = ["gradcheck", "gradgradcheck"]

stands_for(__name__, gradcheck)
