"""Layers, losses and containers, with PyTorch's names, parameter names and initial values."""

from tracegraph.nn import attention, functional, init, modules, parallel, parameter, utils
from tracegraph.nn.modules import *  # noqa: F403
from tracegraph.nn.modules import __all__ as _layers
from tracegraph.nn.parallel import DataParallel
from tracegraph.nn.parameter import (
    Buffer,
    Parameter,
    UninitializedBuffer,
    UninitializedParameter,
)

__all__ = [
    "Buffer",
    "DataParallel",
    "Parameter",
    "UninitializedBuffer",
    "UninitializedParameter",
    "attention",
    "functional",
    "init",
    "modules",
    "parallel",
    "parameter",
    "utils",
]
__all__ += _layers
