"""Special functions, with the names of `torch.special`."""

from __future__ import annotations

import math
from typing import Any

from tracegraph.api.pointwise import (
    digamma,
    erf,
    erfc,
    erfinv,
    exp2,
    expm1,
    i0,
    lgamma,
    log1p,
    round,
    sigmoid,
    sinc,
    xlogy,
)
from tracegraph.api.promotion import float_operand, of_tensors
from tracegraph.api.reduction import log_softmax, logsumexp, softmax
from tracegraph.eager import modes
from tracegraph.eager.dispatch import front
from tracegraph.eager.engine import in_rows
from tracegraph.eager.operators import unary_method
from tracegraph.eager.tensors import Tensor
from tracegraph.errors import OpError
from tracegraph.ops.table import OPS

i0e = unary_method(OPS["i0e"])
i1 = unary_method(OPS["i1"])
i1e = unary_method(OPS["i1e"])
ndtr = unary_method(OPS["ndtr"])
ndtri = unary_method(OPS["ndtri"])
log_ndtr = unary_method(OPS["log_ndtr"])
entr = unary_method(OPS["entr"])
psi = digamma
gammaln = lgamma
expit = sigmoid


def polygamma(n: int, input: Tensor) -> Tensor:
    """Derivative of order n of digamma."""
    if n < 0:
        raise OpError(f"polygamma(n, x) does not support negative n, but got {n}")
    return front.polygamma(float_operand(input), n=int(n))


def xlog1py(input: Any, other: Any) -> Tensor:
    """input·log(1 + other), and 0 where input is 0."""
    return of_tensors("xlog1py", input, other)


def logit(input: Tensor, eps: float | None = None) -> Tensor:
    """log(x / (1 − x)), of x limited to [eps, 1 − eps] if `eps` is given."""
    x = float_operand(input)
    return front.logit(x if eps is None else x.clamp(eps, 1 - eps))


def multigammaln(input: Tensor, p: int) -> Tensor:
    """Logarithm of the multivariate gamma function of dimension p (Muirhead 1982, 2.1.12)."""
    if p < 1:
        raise OpError("p has to be greater than or equal to 1")
    x = float_operand(input)
    total = lgamma(x)
    for j in range(1, p):
        total = total + lgamma(x - j / 2)
    return in_rows(total + p * (p - 1) / 4 * math.log(math.pi))


def spherical_bessel_j0(input: Tensor) -> Tensor:
    """sin(x) / x, and 1 at 0."""
    return sinc(input / math.pi)


modified_bessel_i0, modified_bessel_i1 = i0, i1


def erfcx(input: Tensor) -> Tensor:
    """exp(x²)·erfc(x), which does not overflow."""
    return front.erfcx(float_operand(input))


def _first_is_constant(name: str, first: Any, second: Any) -> Tensor:
    """A function whose derivative by its first argument is not known."""
    if isinstance(first, Tensor) and first._node is not None and modes.GRAD.get():
        raise OpError(f"the derivative of {name} by its first argument is not implemented")
    return of_tensors(name, first, second)


def igamma(input: Any, other: Any) -> Tensor:
    """Regularised lower incomplete gamma function P(input, other)."""
    return _first_is_constant("igamma", input, other)


def igammac(input: Any, other: Any) -> Tensor:
    """Regularised upper incomplete gamma function Q(input, other)."""
    return _first_is_constant("igammac", input, other)


gammainc, gammaincc = igamma, igammac


def zeta(input: Any, other: Any) -> Tensor:
    """Hurwitz zeta function, the sum of (other + k)^−input over k >= 0."""
    return _first_is_constant("zeta", input, other)


__all__ = [
    "digamma", "entr", "erf", "erfc", "erfcx", "erfinv", "exp2", "expit", "expm1", "gammainc",
    "gammaincc", "gammaln", "i0", "i0e", "i1", "i1e", "log1p", "log_ndtr", "log_softmax", "logit",
    "logsumexp", "modified_bessel_i0", "modified_bessel_i1", "multigammaln", "ndtr", "ndtri",
    "polygamma", "psi", "round", "sinc", "softmax", "spherical_bessel_j0", "xlog1py", "xlogy",
    "zeta",
]  # fmt: skip
