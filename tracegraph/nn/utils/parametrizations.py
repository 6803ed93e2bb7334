"""Weight norm, spectral norm and orthogonality as parametrisations."""

from __future__ import annotations

from typing import Any

from tracegraph.api.creation import zeros_like
from tracegraph.api.elimination import geqrf, householder_product, matrix_exp
from tracegraph.api.linear_algebra import solve
from tracegraph.api.matrices import tril
from tracegraph.api.promotion import identity
from tracegraph.api.random import randn
from tracegraph.api.shape import cat
from tracegraph.autograd import no_grad
from tracegraph.eager.tensors import Tensor
from tracegraph.nn import functional as F
from tracegraph.nn.modules.module import Module
from tracegraph.nn.utils.parametrize import register_parametrization
from tracegraph.nn.utils.spectral_norm import as_matrix
from tracegraph.nn.utils.weight_norm import norm_except


class _WeightNorm(Module):
    """g v / ‖v‖, with `original0` g and `original1` v."""

    def __init__(self, dim: int | None) -> None:
        super().__init__()
        self.dim = None if dim == -1 else dim

    def forward(self, weight_g: Tensor, weight_v: Tensor) -> Tensor:
        """Return the weight."""
        return weight_v * (weight_g / norm_except(weight_v, self.dim))

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return length and direction."""
        return norm_except(weight, self.dim), weight


def weight_norm(module: Any, name: str = "weight", dim: int | None = 0) -> Any:
    """Split a Parameter into its norm over all dims but `dim`, and its direction."""
    return register_parametrization(module, name, _WeightNorm(dim), unsafe=True)


class _SpectralNorm(Module):
    """The weight over its largest singular value, found by power iteration."""

    def __init__(
        self, weight: Tensor, n_power_iterations: int = 1, dim: int = 0, eps: float = 1e-12
    ) -> None:
        super().__init__()
        if n_power_iterations <= 0:
            raise ValueError(
                "Expected n_power_iterations to be positive, but got "
                f"n_power_iterations={n_power_iterations}"
            )
        self.dim = dim if dim >= 0 else dim + weight.ndim
        self.eps = eps
        if weight.ndim > 1:
            self.n_power_iterations = n_power_iterations
            with no_grad():
                matrix = as_matrix(weight, self.dim)
                for vector, size in zip(("_u", "_v"), matrix.shape, strict=True):
                    drawn = matrix.new_empty(size).normal_(0, 1)
                    self.register_buffer(vector, F.normalize(drawn, dim=0, eps=eps))
                self._iterate(matrix, 15)

    def _iterate(self, matrix: Tensor, steps: int) -> None:
        with no_grad():
            for _ in range(steps):
                self._u.copy_(F.normalize(matrix @ self._v, dim=0, eps=self.eps))
                self._v.copy_(F.normalize(matrix.t() @ self._u, dim=0, eps=self.eps))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight; in training, after a step of power iteration."""
        if weight.ndim == 1:
            return F.normalize(weight, dim=0, eps=self.eps)
        matrix = as_matrix(weight, self.dim)
        if self.training:
            self._iterate(matrix, self.n_power_iterations)
        u, v = self._u.clone(), self._v.clone()
        return weight / (u * (matrix @ v)).sum()

    def right_inverse(self, value: Tensor) -> Tensor:
        """Return the value itself."""
        return value


def spectral_norm(
    module: Any, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12,
    dim: int | None = None,
) -> Any:  # fmt: skip
    """Divide a Parameter by its largest singular value; `dim` is its output dim.

    Raises:
        ValueError: no such Parameter.
    """
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise ValueError(f"Module '{module}' has no parameter or buffer with name '{name}'")
    if dim is None:
        dim = int(getattr(module, "transposed", False))
    function = _SpectralNorm(weight, n_power_iterations, dim, eps)
    return register_parametrization(module, name, function)


def _square(x: Tensor) -> Tensor:
    """The columns of Q in x = Q·R with a positive diagonal of R, as many as x has."""
    packed, tau = geqrf(x)
    signs = packed.diagonal(dim1=-2, dim2=-1).sgn()
    return householder_product(packed, tau) * signs.unsqueeze(-2)


class _Orthogonal(Module):
    """Orthonormal columns (or rows, of a wide matrix) from any matrix.

    `matrix_exp` and `cayley` make a rotation of a skew-symmetric matrix (Lezcano-Casado &
    Martínez-Rubio 2019, arXiv:1901.08428), `householder` a product of reflections. With a base
    the rotation starts from the weight that was there (Lezcano-Casado 2019, arXiv:1909.09501).
    """

    base: Tensor | None

    def __init__(self, weight: Tensor, kind: str, use_trivialization: bool) -> None:
        super().__init__()
        self.kind = kind
        self.shape = weight.shape
        if use_trivialization:
            self.register_buffer("base", None)

    def _rotation(self, x: Tensor) -> Tensor:
        rows, columns = x.shape[-2:]
        x = tril(x)
        if rows != columns:
            x = cat([x, x.new_zeros((*x.shape[:-1], rows - columns))], -1)
        skew = x - x.mT
        if self.kind == "matrix_exp":
            q = matrix_exp(skew)
        else:
            one = identity(skew, rows)
            q = solve(one - skew / 2, one + skew / 2)
        return q[..., :columns]

    def _reflections(self, x: Tensor) -> Tensor:
        below = tril(x, -1)
        tau = 2.0 / (1.0 + (below * below).sum(-2))
        signs = x.diagonal(dim1=-2, dim2=-1).int()
        return householder_product(below, tau) * signs.unsqueeze(-2)

    def forward(self, x: Tensor) -> Tensor:
        """Return an orthogonal matrix."""
        wide = x.shape[-2] < x.shape[-1]
        tall = x.mT if wide else x
        q = self._reflections(tall) if self.kind == "householder" else self._rotation(tall)
        base = getattr(self, "base", None)
        if base is not None:
            q = base @ q
        return q.mT if wide else q

    @no_grad()
    def right_inverse(self, q: Tensor) -> Tensor:
        """Return what is mapped to an orthogonal matrix; the base makes any one do.

        Raises:
            ValueError: another shape.
            NotImplementedError: a map without a base that cannot be inverted.
        """
        if q.shape != self.shape:
            raise ValueError(
                f"Expected a matrix or batch of matrices of shape {self.shape}. Got a tensor of "
                f"shape {q.shape}."
            )
        wide = q.shape[-2] < q.shape[-1]
        tall = q.mT if wide else q
        if hasattr(self, "base"):
            extra = tall.shape[-2] - tall.shape[-1]
            if extra:
                drawn = randn(*tall.shape[:-1], extra, dtype=tall.dtype, device=tall.device)
                tall = cat([tall, drawn], -1)
            self.base = _square(tall)
            start = zeros_like(q)
            start.diagonal(dim1=-2, dim2=-1).fill_(-1.0)
            return start
        if self.kind != "householder":
            raise NotImplementedError(
                "It is not possible to assign to the matrix exponential or the Cayley "
                "parametrizations when use_trivialization=False."
            )
        packed, tau = geqrf(tall)
        signs = packed.diagonal(dim1=-2, dim2=-1).sign()
        signs[tau == 0.0] *= -1
        packed.diagonal(dim1=-2, dim2=-1).copy_(signs)
        return packed.mT if wide else packed


def orthogonal(
    module: Any, name: str = "weight", orthogonal_map: str | None = None, *,
    use_trivialization: bool = True,
) -> Any:  # fmt: skip
    """Make a matrix orthogonal, or semi-orthogonal if it is not square.

    `orthogonal_map`: "matrix_exp" (the default for square ones), "cayley" or "householder".

    Raises:
        ValueError: no such tensor, fewer than 2 dims, or another map.
    """
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise ValueError(f"Module '{module}' has no parameter or buffer with name '{name}'")
    if weight.ndim < 2:
        raise ValueError(
            f"Expected a matrix or batch of matrices. Got a tensor of {weight.ndim} dimensions."
        )
    square = weight.shape[-2] == weight.shape[-1]
    kind = orthogonal_map or ("matrix_exp" if square else "householder")
    if kind not in ("matrix_exp", "cayley", "householder"):
        raise ValueError(
            'orthogonal_map has to be one of "matrix_exp", "cayley", "householder". Got: ' + kind
        )
    function = _Orthogonal(weight, kind, use_trivialization)
    return register_parametrization(module, name, function, unsafe=True)
