"""Batch and instance normalisation, with running statistics."""

from __future__ import annotations

from typing import Any, ClassVar

from tracegraph.api import creation
from tracegraph.dtypes import int64
from tracegraph.eager.tensors import Tensor
from tracegraph.errors import OpError
from tracegraph.nn import functional as F
from tracegraph.nn import init
from tracegraph.nn.modules.lazy import LazyModule
from tracegraph.nn.modules.module import Module
from tracegraph.nn.parameter import Parameter, UninitializedBuffer, UninitializedParameter


class _NormBase(Module):
    """Scale and shift per feature, and running mean and variance per feature."""

    _version = 2
    weight: Any
    bias: Any
    running_mean: Any
    running_var: Any
    num_batches_tracked: Any
    allowed: ClassVar[tuple[int, ...]]

    def __init__(
        self, num_features: int, eps: float, momentum: float | None, affine: bool,
        track_running_stats: bool, device: Any, dtype: Any, bias: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats

        def per_feature() -> Tensor:
            return creation.empty(num_features, device=device, dtype=dtype)

        self.register_parameter("weight", Parameter(per_feature()) if affine else None)
        self.register_parameter("bias", Parameter(per_feature()) if affine and bias else None)
        tracked = track_running_stats
        self.register_buffer("running_mean", per_feature() if tracked else None)
        self.register_buffer("running_var", per_feature() if tracked else None)
        count = creation.zeros((), dtype=int64, device=device) if tracked else None
        self.register_buffer("num_batches_tracked", count)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Forget what was seen: mean 0, variance 1."""
        if self.track_running_stats:
            self.running_mean.zero_()
            self.running_var.fill_(1)
            self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        """Forget what was seen and learnt."""
        self.reset_running_stats()
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim not in self.allowed:
            wanted = " or ".join(f"{n}D" for n in self.allowed)
            raise ValueError(f"expected {wanted} input (got {input.ndim}D input)")

    def extra_repr(self) -> str:
        """The number of features and the options."""
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local_metadata: Any, *rest: Any
    ) -> None:
        """Files of PyTorch before 0.4.1 have no count of batches."""
        version = local_metadata.get("version")
        key = prefix + "num_batches_tracked"
        if (version is None or version < 2) and self.track_running_stats and key not in state_dict:
            state_dict[key] = self.num_batches_tracked
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)


class _BatchNorm(_NormBase):
    """Normalisation over the batch and all dims but the features'. Ioffe & Szegedy 2015."""

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1,
        affine: bool = True, track_running_stats: bool = True, device: Any = None,
        dtype: Any = None, *, bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, device, dtype, bias
        )

    def forward(self, input: Tensor) -> Tensor:
        """Normalise `input`: f[batch, num_features, ...]; in training, by its own statistics."""
        self._check_input_dim(input)
        factor: Any = 0.0 if self.momentum is None else self.momentum
        if self.training and self.track_running_stats and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:
                factor = 1.0 / self.num_batches_tracked.to(input.dtype)
        return F.batch_norm(
            input,
            self.running_mean if not self.training or self.track_running_stats else None,
            self.running_var if not self.training or self.track_running_stats else None,
            self.weight, self.bias,
            self.training or (self.running_mean is None and self.running_var is None),
            factor, self.eps,
        )  # fmt: skip


class BatchNorm1d(_BatchNorm):
    """Batch normalisation of f[batch, features] or f[batch, features, length]."""

    allowed = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Batch normalisation of f[batch, features, height, width]."""

    allowed = (4,)


class BatchNorm3d(_BatchNorm):
    """Batch normalisation of f[batch, features, depth, height, width]."""

    allowed = (5,)


class SyncBatchNorm(_BatchNorm):
    """Batch normalisation of any number of dims; one process has nothing to synchronise."""

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1,
        affine: bool = True, track_running_stats: bool = True, process_group: Any = None,
        device: Any = None, dtype: Any = None, *, bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias
        )
        self.process_group = process_group

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"expected at least 2D input (got {input.ndim}D input)")

    @classmethod
    def convert_sync_batchnorm(cls, module: Any, process_group: Any = None) -> Any:
        """Return `module` with every batch normalisation in it replaced by this class."""
        if not isinstance(module, _BatchNorm):
            for name, child in module.named_children():
                module.add_module(name, cls.convert_sync_batchnorm(child, process_group))
            return module
        made = cls(
            module.num_features, module.eps, module.momentum, module.affine,
            module.track_running_stats, process_group, bias=module.bias is not None,
        )  # fmt: skip
        made.training = module.training
        made.weight, made.bias = module.weight, module.bias
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            setattr(made, name, getattr(module, name))
        return made


class _InstanceNorm(_NormBase):
    """Normalisation over the spatial dims of each sample. Ulyanov et al. 2016, arXiv:1607.08022."""

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = False,
        track_running_stats: bool = False, device: Any = None, dtype: Any = None, *,
        bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, device, dtype, bias
        )

    def forward(self, input: Tensor) -> Tensor:
        """Normalise `input`: f[batch, num_features, *size] (the batch may be left out)."""
        self._check_input_dim(input)
        single = input.ndim == min(self.allowed)
        size = input.shape[0 if single else 1]
        if self.affine and size != self.num_features:
            raise ValueError(
                f"expected input's size at dim={0 if single else 1} to match num_features "
                f"({self.num_features}), but got: {size}."
            )
        out = F.instance_norm(
            input.unsqueeze(0) if single else input, self.running_mean, self.running_var,
            self.weight, self.bias, self.training or not self.track_running_stats,
            0.0 if self.momentum is None else self.momentum, self.eps,
        )  # fmt: skip
        return out.squeeze(0) if single else out


class InstanceNorm1d(_InstanceNorm):
    """Instance normalisation of f[batch, features, length]."""

    allowed = (2, 3)


class InstanceNorm2d(_InstanceNorm):
    """Instance normalisation of f[batch, features, height, width]."""

    allowed = (3, 4)


class InstanceNorm3d(_InstanceNorm):
    """Instance normalisation of f[batch, features, depth, height, width]."""

    allowed = (4, 5)


class _LazyNorm(LazyModule, _NormBase):
    """A normalisation that takes `num_features` from its first input."""

    def __init__(
        self, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
        track_running_stats: bool = True, device: Any = None, dtype: Any = None, *,
        bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(0, eps, momentum, False, False, device, dtype, bias=bias)
        self.affine = affine
        self.track_running_stats = track_running_stats
        if affine:
            self.weight = UninitializedParameter(device=device, dtype=dtype)
            if bias:
                self.bias = UninitializedParameter(device=device, dtype=dtype)
        if track_running_stats:
            self.running_mean = UninitializedBuffer(device=device, dtype=dtype)
            self.running_var = UninitializedBuffer(device=device, dtype=dtype)
            self.num_batches_tracked = creation.zeros((), dtype=int64, device=device)

    def reset_parameters(self) -> None:
        """Forget what was seen and learnt, once the shapes are known."""
        if self.num_features != 0:
            super().reset_parameters()

    def initialize_parameters(self, input: Tensor) -> None:
        """Give parameters and statistics their shapes."""
        if input.ndim < 2:
            raise OpError(f"{type(self).__name__} needs input of at least 2 dims")
        self.num_features = input.shape[1]
        for t in (self.weight, self.bias, self.running_mean, self.running_var):
            if t is not None:
                t.materialize((self.num_features,))
        self.reset_parameters()


class LazyBatchNorm1d(_LazyNorm, BatchNorm1d):
    """A BatchNorm1d that takes `num_features` from its first input."""

    final = BatchNorm1d


class LazyBatchNorm2d(_LazyNorm, BatchNorm2d):
    """A BatchNorm2d that takes `num_features` from its first input."""

    final = BatchNorm2d


class LazyBatchNorm3d(_LazyNorm, BatchNorm3d):
    """A BatchNorm3d that takes `num_features` from its first input."""

    final = BatchNorm3d


class LazyInstanceNorm1d(_LazyNorm, InstanceNorm1d):
    """An InstanceNorm1d that takes `num_features` from its first input."""

    final = InstanceNorm1d


class LazyInstanceNorm2d(_LazyNorm, InstanceNorm2d):
    """An InstanceNorm2d that takes `num_features` from its first input."""

    final = InstanceNorm2d


class LazyInstanceNorm3d(_LazyNorm, InstanceNorm3d):
    """An InstanceNorm3d that takes `num_features` from its first input."""

    final = InstanceNorm3d
