"""Instance normalisation, under the module name that it has in PyTorch."""

from tracegraph.nn.modules.batchnorm import (
    InstanceNorm1d as InstanceNorm1d,
)
from tracegraph.nn.modules.batchnorm import (
    InstanceNorm2d as InstanceNorm2d,
)
from tracegraph.nn.modules.batchnorm import (
    InstanceNorm3d as InstanceNorm3d,
)
from tracegraph.nn.modules.batchnorm import (
    _InstanceNorm as _InstanceNorm,
)
