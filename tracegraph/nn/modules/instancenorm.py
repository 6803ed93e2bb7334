"""Instance normalisation, under the module name that it has in PyTorch."""

from tracegraph.nn.modules.batchnorm import (
    InstanceNorm1d as InstanceNorm1d,
    InstanceNorm2d as InstanceNorm2d,
    InstanceNorm3d as InstanceNorm3d,
    _InstanceNorm as _InstanceNorm,
)
