"""Maps of single numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tracegraph.api.creation import ones_like
from tracegraph.distributions import constraints
from tracegraph.distributions.independent import sum_last
from tracegraph.distributions.transform import Transform
from tracegraph.dtypes import finfo
from tracegraph.eager.tensors import Size, Tensor
from tracegraph.nn.functional import softplus
from tracegraph.tensor_type import broadcast_shapes


class ExpTransform(Transform):
    """y = exp(x)."""

    domain, codomain, bijective, sign = constraints.real, constraints.positive, True, 1

    def _call(self, x: Any) -> Any:
        return x.exp()

    def _inverse(self, y: Any) -> Any:
        return y.log()

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        """Return x."""
        return x

    def _key(self) -> Any:
        return ()


class PowerTransform(Transform):
    """y = x^exponent, for positive x."""

    domain, codomain, bijective = constraints.positive, constraints.positive, True

    def __init__(self, exponent: Any, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.exponent = exponent

    @property
    def sign(self) -> Any:
        """The sign of the exponent."""
        if isinstance(self.exponent, Tensor):
            return self.exponent.sign()
        return math.copysign(1, self.exponent)

    def _call(self, x: Any) -> Any:
        return x**self.exponent

    def _inverse(self, y: Any) -> Any:
        return y ** (1 / self.exponent)

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        """Return log |exponent · y / x|."""
        return (self.exponent * y / x).abs().log()


class SigmoidTransform(Transform):
    """y = 1 / (1 + exp(−x))."""

    domain, codomain, bijective, sign = constraints.real, constraints.unit_interval, True, 1

    def _call(self, x: Any) -> Any:
        info = finfo(x.dtype)
        return x.sigmoid().clamp(info.tiny, 1.0 - info.eps)

    def _inverse(self, y: Any) -> Any:
        info = finfo(y.dtype)
        y = y.clamp(info.tiny, 1.0 - info.eps)
        return y.log() - (-y).log1p()

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        """Return log(y · (1 − y))."""
        return -softplus(-x) - softplus(x)

    def _key(self) -> Any:
        return ()


class SoftplusTransform(Transform):
    """y = log(1 + exp(x))."""

    domain, codomain, bijective, sign = constraints.real, constraints.positive, True, 1

    def _call(self, x: Any) -> Any:
        return softplus(x)

    def _inverse(self, y: Any) -> Any:
        return (-y).expm1().neg().log() + y

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        """Return log sigmoid(x)."""
        return -softplus(-x)

    def _key(self) -> Any:
        return ()


class TanhTransform(Transform):
    """y = tanh(x). Give it a cache: the inverse of values near ±1 is not exact."""

    domain, codomain = constraints.real, constraints.interval(-1.0, 1.0)
    bijective, sign = True, 1

    def _call(self, x: Any) -> Any:
        return x.tanh()

    def _inverse(self, y: Any) -> Any:
        return y.atanh()

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        """Return log(1 − y²), from x, where it is exact."""
        return 2.0 * (math.log(2.0) - x - softplus(-2.0 * x))

    def _key(self) -> Any:
        return ()


class AbsTransform(Transform):
    """y = |x|; the inverse gives the positive value."""

    domain, codomain = constraints.real, constraints.positive

    def _call(self, x: Any) -> Any:
        return x.abs()

    def _inverse(self, y: Any) -> Any:
        return y

    def _key(self) -> Any:
        return ()


class AffineTransform(Transform):
    """y = loc + scale·x, for values of `event_dim` dims."""

    bijective = True

    def __init__(self, loc: Any, scale: Any, event_dim: int = 0, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.loc, self.scale, self._dims = loc, scale, event_dim
        real = constraints.real
        self.domain = constraints.independent(real, event_dim) if event_dim else real
        self.codomain = self.domain

    @property
    def sign(self) -> Any:
        """The sign of the scale."""
        if isinstance(self.scale, Tensor):
            return self.scale.sign()
        return (self.scale > 0) - (self.scale < 0)

    def _call(self, x: Any) -> Any:
        return self.loc + self.scale * x

    def _inverse(self, y: Any) -> Any:
        return (y - self.loc) / self.scale

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        """Return log |scale| for each value."""
        scale = self.scale
        size = scale.abs().log() if isinstance(scale, Tensor) else math.log(abs(scale))
        return sum_last(ones_like(x) * size, self._dims)

    def forward_shape(self, shape: Sequence[int]) -> Size:
        """Return the shape that the parameters broadcast to."""
        shapes = [tuple(getattr(p, "shape", ())) for p in (self.loc, self.scale)]
        return Size(broadcast_shapes([tuple(shape), *shapes]))

    inverse_shape = forward_shape


class CumulativeDistributionTransform(Transform):
    """y = F(x) for the distribution function of a distribution of numbers."""

    codomain, bijective, sign = constraints.unit_interval, True, 1

    def __init__(self, distribution: Any, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.distribution = distribution

    @property
    def domain(self) -> Any:  # type: ignore[override]
        """The support of the distribution."""
        return self.distribution.support

    def _call(self, x: Any) -> Any:
        return self.distribution.cdf(x)

    def _inverse(self, y: Any) -> Any:
        return self.distribution.icdf(y)

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        """Return the log density."""
        return self.distribution.log_prob(x)
