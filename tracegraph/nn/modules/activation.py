"""Activations: elementwise nonlinearities, gates and softmaxes. Attention is in `attention.py`."""

from __future__ import annotations

from typing import Any, ClassVar

from tracegraph.api import creation
from tracegraph.eager.tensors import Tensor
from tracegraph.nn import functional as F
from tracegraph.nn import init
from tracegraph.nn.modules.module import Module
from tracegraph.nn.parameter import Parameter


class _InPlace(Module):
    """An activation whose only option is to overwrite its input."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def extra_repr(self) -> str:
        """Whether the input is overwritten."""
        return "inplace=True" if self.inplace else ""


class _Shown(Module):
    """An activation whose constructor arguments are shown as they are named in `shown`."""

    shown: ClassVar[tuple[str, ...]] = ()
    inplace = False

    def extra_repr(self) -> str:
        """The arguments."""
        parts = [f"{name}={getattr(self, name)}" for name in self.shown]
        return ", ".join([*parts, "inplace=True"] if self.inplace else parts)


class ReLU(_InPlace):
    """max(x, 0)."""

    def forward(self, input: Tensor) -> Tensor:
        """Apply to every element."""
        return F.relu(input, inplace=self.inplace)


class SiLU(_InPlace):
    """x σ(x). Hendrycks & Gimpel 2016, arXiv:1606.08415."""

    def forward(self, input: Tensor) -> Tensor:
        """Apply to every element."""
        return F.silu(input, inplace=self.inplace)


class Mish(_InPlace):
    """x tanh(softplus(x)). Misra 2019, arXiv:1908.08681."""

    def forward(self, input: Tensor) -> Tensor:
        """Apply to every element."""
        return F.mish(input, inplace=self.inplace)


class Hardswish(_InPlace):
    """x relu6(x + 3) / 6. Howard et al. 2019, arXiv:1905.02244."""

    def forward(self, input: Tensor) -> Tensor:
        """Apply to every element."""
        return F.hardswish(input, self.inplace)


class Hardsigmoid(_InPlace):
    """relu6(x + 3) / 6."""

    def forward(self, input: Tensor) -> Tensor:
        """Apply to every element."""
        return F.hardsigmoid(input, self.inplace)


class SELU(_InPlace):
    """Scaled exponential linear unit. Klambauer et al. 2017, arXiv:1706.02515."""

    def forward(self, input: Tensor) -> Tensor:
        """Apply to every element."""
        return F.selu(input, self.inplace)


class Sigmoid(Module):
    """1 / (1 + e⁻ˣ)."""

    def forward(self, input: Tensor) -> Tensor:
        """Apply to every element."""
        out: Tensor = input.sigmoid()
        return out


class Tanh(Module):
    """tanh(x)."""

    def forward(self, input: Tensor) -> Tensor:
        """Apply to every element."""
        out: Tensor = input.tanh()
        return out


class LogSigmoid(Module):
    """log σ(x)."""

    def forward(self, input: Tensor) -> Tensor:
        """Apply to every element."""
        return F.logsigmoid(input)


class Softsign(Module):
    """x / (1 + |x|)."""

    def forward(self, input: Tensor) -> Tensor:
        """Apply to every element."""
        return F.softsign(input)


class Tanhshrink(Module):
    """x − tanh(x)."""

    def forward(self, input: Tensor) -> Tensor:
        """Apply to every element."""
        return F.tanhshrink(input)


class GELU(_Shown):
    """x Φ(x), or its tanh approximation. Hendrycks & Gimpel 2016, arXiv:1606.08415."""

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        self.approximate = approximate

    def forward(self, input: Tensor) -> Tensor:
        """Apply to every element."""
        return F.gelu(input, approximate=self.approximate)

    def extra_repr(self) -> str:
        """Which approximation."""
        return f"approximate={self.approximate!r}"


class ELU(_Shown):
    """x, or α (eˣ − 1) below 0. Clevert et al. 2015, arXiv:1511.07289."""

    shown: ClassVar[tuple[str, ...]] = ("alpha",)

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.alpha = alpha
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        """Apply to every element."""
        return F.elu(input, self.alpha, self.inplace)


class CELU(_Shown):
    """x, or α (eˣᐟᵅ − 1) below 0. Barron 2017, arXiv:1704.07483."""

    shown: ClassVar[tuple[str, ...]] = ("alpha",)

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.alpha = alpha
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        """Apply to every element."""
        return F.celu(input, self.alpha, self.inplace)


class LeakyReLU(_Shown):
    """x, or `negative_slope` x below 0."""

    shown: ClassVar[tuple[str, ...]] = ("negative_slope",)

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__()
        self.negative_slope = negative_slope
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        """Apply to every element."""
        return F.leaky_relu(input, self.negative_slope, self.inplace)


class RReLU(_Shown):
    """LeakyReLU whose slope is drawn from [lower, upper) in training. Xu et al. 2015."""

    shown: ClassVar[tuple[str, ...]] = ("lower", "upper")

    def __init__(
        self, lower: float = 1.0 / 8, upper: float = 1.0 / 3, inplace: bool = False
    ) -> None:
        super().__init__()
        self.lower = lower
        self.upper = upper
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        """Apply to every element."""
        return F.rrelu(input, self.lower, self.upper, self.training, self.inplace)


class Hardtanh(_Shown):
    """x clamped to [min_val, max_val]."""

    shown: ClassVar[tuple[str, ...]] = ("min_val", "max_val")

    def __init__(
        self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False,
        min_value: float | None = None, max_value: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.min_val = min_val if min_value is None else min_value
        self.max_val = max_val if max_value is None else max_value
        self.inplace = inplace
        if self.max_val <= self.min_val:
            raise AssertionError("max_val must be larger than min_val")

    def forward(self, input: Tensor) -> Tensor:
        """Apply to every element."""
        return F.hardtanh(input, self.min_val, self.max_val, self.inplace)


class ReLU6(Hardtanh):
    """x clamped to [0, 6]."""

    shown: ClassVar[tuple[str, ...]] = ()

    def __init__(self, inplace: bool = False) -> None:
        super().__init__(0.0, 6.0, inplace)


class Threshold(_Shown):
    """x where it is above `threshold`, else `value`."""

    shown: ClassVar[tuple[str, ...]] = ("threshold", "value")

    def __init__(self, threshold: float, value: float, inplace: bool = False) -> None:
        super().__init__()
        self.threshold = threshold
        self.value = value
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        """Apply to every element."""
        return F.threshold(input, self.threshold, self.value, self.inplace)


class Softplus(_Shown):
    """log(1 + eᵝˣ) / β; x itself where βx is above `threshold`."""

    shown: ClassVar[tuple[str, ...]] = ("beta", "threshold")

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta = beta
        self.threshold = threshold

    def forward(self, input: Tensor) -> Tensor:
        """Apply to every element."""
        return F.softplus(input, self.beta, self.threshold)


class Hardshrink(Module):
    """x, or 0 where |x| ≤ λ."""

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = lambd

    def forward(self, input: Tensor) -> Tensor:
        """Apply to every element."""
        return F.hardshrink(input, self.lambd)

    def extra_repr(self) -> str:
        """The threshold λ."""
        return str(self.lambd)


class Softshrink(Module):
    """x moved towards 0 by λ."""

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = lambd

    def forward(self, input: Tensor) -> Tensor:
        """Apply to every element."""
        return F.softshrink(input, self.lambd)

    def extra_repr(self) -> str:
        """The threshold λ."""
        return str(self.lambd)


class PReLU(_Shown):
    """x, or a learnt slope times x below 0: one slope, or one per channel. He et al. 2015."""

    shown: ClassVar[tuple[str, ...]] = ("num_parameters",)
    weight: Any

    def __init__(
        self, num_parameters: int = 1, init: float = 0.25, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        self.num_parameters = num_parameters
        self.init = init
        self.weight = Parameter(creation.empty(num_parameters, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set every slope to its first value."""
        init.constant_(self.weight, self.init)

    def forward(self, input: Tensor) -> Tensor:
        """Apply to every element of `input`: f[batch, channels, ...]."""
        return F.prelu(input, self.weight)


class GLU(_Shown):
    """The first half along a dim times the sigmoid of the second. Dauphin et al. 2016."""

    shown: ClassVar[tuple[str, ...]] = ("dim",)

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        """Gate `input`, whose size along `dim` is even."""
        return F.glu(input, self.dim)


class _Softmax(_Shown):
    """Something over the softmax of a dim."""

    shown: ClassVar[tuple[str, ...]] = ("dim",)

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim


class Softmax(_Softmax):
    """eˣ / Σ eˣ over a dim."""

    def forward(self, input: Tensor) -> Tensor:
        """Apply along the dim."""
        return F.softmax(input, self.dim)


class Softmin(_Softmax):
    """e⁻ˣ / Σ e⁻ˣ over a dim."""

    def forward(self, input: Tensor) -> Tensor:
        """Apply along the dim."""
        return F.softmin(input, self.dim)


class LogSoftmax(_Softmax):
    """x − log Σ eˣ over a dim."""

    def forward(self, input: Tensor) -> Tensor:
        """Apply along the dim."""
        return F.log_softmax(input, self.dim)


class Softmax2d(Module):
    """Softmax over the channels of f[batch, channels, height, width]."""

    def forward(self, input: Tensor) -> Tensor:
        """Apply along the channels (the batch may be left out).

        Raises:
            ValueError: not 3 or 4 dims.
        """
        if input.ndim not in (3, 4):
            raise ValueError(f"Softmax2d: expected input to be 3D or 4D, got {input.ndim}D instead")
        return F.softmax(input, -3)
