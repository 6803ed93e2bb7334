"""Calls of the general tensor functions that are run on PyTorch and on tracegraph alike.

`t` is the module. The operands are made by `operands` below; each expression gives a tensor, or
a tuple of tensors, numbers and None.
"""

from __future__ import annotations

from typing import Any

import numpy as np

SHAPES = {
    "x": (3, 4), "z": (3, 4), "y": (4,), "c": (3, 1), "s": (), "e": (0, 4), "v": (5,), "w": (5,),
    "a": (2, 3, 4), "b": (2, 4, 3), "q": (3, 3), "r": (4, 3), "B": (2, 3, 3),
}  # fmt: skip
FLOATS = (*SHAPES, "p", "u", "n", "d", "D", "T")


def operands(dtype: Any) -> dict[str, np.ndarray[Any, Any]]:
    """Return the arrays that expressions name; floats in `dtype`, no ties but where noted."""
    random = np.random.default_rng(11)
    made = {name: random.uniform(-2, 2, shape) for name, shape in SHAPES.items()}
    made["p"] = random.uniform(0.2, 4, (3, 4))  # positive
    made["u"] = random.uniform(-0.9, 0.9, (3, 4))  # within (-1, 1)
    made["n"] = np.array([[np.nan, 1, -np.inf, 0.0], [-0.0, np.inf, 2, -3], [1, 1, 0, np.nan]])
    square = random.uniform(-1, 1, (2, 3, 3))
    made["D"] = square @ square.swapaxes(1, 2) + np.eye(3)  # positive definite
    made["d"] = made["D"][0]
    made["T"] = made["x"].repeat(2, 1)[:, [0, 2, 1, 3, 4, 6, 5, 7]].round()  # ties
    floats = {name: array.astype(dtype) for name, array in made.items()}
    return floats | {
        "i": random.integers(-5, 6, (3, 4)),
        "I": np.array([[0, 2, 1, 1], [3, 3, 0, 2], [2, 0, 0, 0]]),  # an index for dim 1
        "J": np.array([2, 0, 2]),
        "k": random.integers(0, 2, (3, 4)) > 0,
        "K": random.integers(0, 2, (3,)) > 0,
        "h": random.integers(0, 250, (3, 4)).astype(np.uint8),
        "o": random.integers(1, 6, (3, 4)).astype(np.int32),
        "N": np.array([1, 5, 3, 3, 0, 5, 5]),
    }


POINTWISE = """
x + z; x - y; x * c; x / p; x ** 2; p ** x; x ** 0; x ** 3.0; 2 ** x; x // p; x % p; -x; abs(x); ~k
x > 0; x == x; i == 2; x + 1; i + 1.5; i / 2; i // 2; i % 3; k & k; k | (x > 0); i << 1; h >> 1
1 - x; 2 / p; 3 % p; 7 // o; i ** 2; h + 1; h + o; k + k; k * 2; x + s; i + s; o + i; h * 1.5
t.exp(x); t.exp2(x); t.expm1(x); t.log(p); t.log2(p); t.log10(p); t.log1p(p); t.sqrt(p); t.rsqrt(p)
t.sin(x); t.cos(x); t.tan(u); t.asin(u); t.acos(u); t.atan(x); t.sinh(x); t.cosh(x); t.tanh(x)
t.asinh(x); t.acosh(p + 1); t.atanh(u); t.sigmoid(x); t.erf(x); t.erfc(x); t.erfinv(u); t.lgamma(p)
t.digamma(p); t.polygamma(1, p); t.polygamma(2, p); t.mvlgamma(p + 2, 3); t.i0(x); t.sinc(x)
t.logit(p / 5); t.logit(x, 0.1); t.xlogy(x, p); t.xlogy(0, p); t.logaddexp(x, z)
t.logaddexp2(x, z); t.hypot(x, z); t.copysign(x, z); t.nextafter(x, z); t.atan2(x, z); t.fmax(n, x)
t.fmin(n, x); t.maximum(x, z); t.minimum(x, z); t.maximum(n, x); t.fmod(x, p); t.remainder(x, -p)
t.floor(x); t.ceil(x); t.trunc(x); t.round(x); t.round(x, decimals=1); t.frac(x); t.floor(i)
t.sign(x); t.sgn(n); t.neg(x); t.abs(n); t.square(x); t.reciprocal(p); t.rsub(x, z, alpha=2)
t.clamp(x, -1, 1); t.clamp(x, min=0); t.clamp(x, max=y); t.clamp(x, z, z + 1); t.clamp(n, 0, 1)
t.clamp(i, 0.5); t.clamp(i, -2, 2); t.clamp_min(x, 0.5); t.clamp_max(x, 0.5); x.clamp(1, -1)
t.add(x, z, alpha=2); t.sub(x, z, alpha=-1); t.addcmul(x, z, p, value=0.5); t.addcdiv(x, z, p)
t.lerp(x, z, 0.3); t.lerp(x, z, u); t.div(x, p, rounding_mode="floor")
t.div(i, 2, rounding_mode="trunc"); t.float_power(i, 2); t.ldexp(x, o); t.deg2rad(x); t.rad2deg(x)
t.heaviside(n, x); t.nan_to_num(n); t.nan_to_num(n, 1.0, 9.0, -9.0); t.isnan(n); t.isinf(n)
t.isfinite(n); t.isposinf(n); t.isneginf(n); t.isreal(x); t.signbit(n)
t.isclose(n, n, equal_nan=True); t.isclose(x, x + 1e-9); t.angle(n); t.logical_and(x, z)
t.logical_or(i, k); t.logical_xor(k, x > 0); t.logical_not(n); t.frexp(p); t.bitwise_and(i, 3)
t.bitwise_or(i, i); t.bitwise_xor(h, h); t.bitwise_not(i); t.positive(x); t.special.entr(p)
t.special.i0e(x); t.special.i1(x); t.special.i1e(x); t.special.ndtr(x); t.special.ndtri(p / 5)
t.special.log_ndtr(x); t.special.xlog1py(x, p); t.special.expit(x)
t.special.multigammaln(p + 2, 2); t.special.psi(p); t.special.gammaln(p); t.where(x > 0, x, z)
t.where(k, x, 0.0); t.where(k, 1, i); t.where(k, 1.0, 0.0); x.where(k, z); t.where(k, x, y)
x.where(k, s); t.where(k, i, 0.5)
"""

REDUCTION = """
x.sum(); x.sum(0); x.sum((0, 1)); x.sum(-1, keepdim=True); i.sum(); k.sum(); h.sum(1); e.sum()
e.sum(0); x.sum(dtype=t.float64); i.sum(dtype=t.float32); x.mean(); x.mean(1); a.mean((0, 2))
e.mean(0); s.sum(0); x.prod(); x.prod(1); i.prod(0); n.prod(1); t.nansum(n); t.nansum(n, 1)
t.nanmean(n, 0); x.amax(); x.amax(1); T.amax((0, 1)); x.amin(0, keepdim=True); n.amax(1); n.amin(0)
i.amax(1); x.max(); x.min(); T.max(); n.detach().max(); x.max(1); x.min(0, keepdim=True); n.max(1)
n.min(1); i.max(0); t.max(x, z); t.min(x, 1, True); s.max(0); s.max(); t.aminmax(x)
t.aminmax(x, dim=1); x.argmax(); x.argmax(1); x.argmin(0, keepdim=True); n.argmax(1); n.argmin(1)
x.argmax(keepdim=True); T.argmax(1); s.argmax(); s.argmax(0); k.any(); k.all(1)
k.any(0, keepdim=True); x.all(); h.any(1); e.all(); e.any(0); t.count_nonzero(n)
t.count_nonzero(i, 1); x.logsumexp(1); x.logsumexp((0, 1)); n.logsumexp(1); x.cumsum(1)
i.cumsum(0); k.cumsum(1); x.cumprod(1); n.detach().cumprod(1); x.cummax(1); T.cummin(1)
n.cummax(1); x.logcumsumexp(1); n.logcumsumexp(1); s.cumsum(0); e.cumsum(0); x.softmax(1)
x.log_softmax(0); n.softmax(1); s.softmax(0); i.softmax(1, dtype=t.float32); e.softmax(1)
a.softmax(1); a.log_softmax(-1); x.var(); x.var(1); x.var(1, unbiased=False)
x.std(0, keepdim=True); a.std((0, 2)); x.var(1, correction=2); t.var_mean(x, 1); t.std_mean(x)
x.std(False); v.var(0); t.var(c, 1, unbiased=False); x.median(); x.median(1); n.median()
n.median(1); n.nanmedian(); n.nanmedian(1); i.median(0); T.median(); x.quantile(0.3)
x.quantile(0.5, 1); x.quantile(y.abs() / 3, 1, keepdim=True); n.nanquantile(0.4, 1)
n.quantile(0.5, 1); x.quantile(0.3, 0, interpolation="lower")
x.quantile(0.3, 0, interpolation="nearest"); x.quantile(0.3, 0, interpolation="midpoint")
x.quantile(0.3, 0, interpolation="higher"); x.norm(); x.norm(1); x.norm(p=3, dim=1)
x.norm(float("inf")); x.norm(2, (0, 1), True); q.norm("nuc"); (x * 0).norm(); (x * 0).norm(2, 1)
(x * 0).norm(1, 1); x.norm(0, 1); x.norm(-1, 1); x.norm(0.5, 0); t.dist(x, z); t.dist(x, z, 1)
t.cdist(x, z); t.cdist(x, z, 1.0); t.cdist(x, x); t.renorm(x, 2, 0, 1.0); t.cov(x); t.cov(v)
t.corrcoef(x); t.cov(x, correction=0); t.histc(x, 4); t.histc(x, 4, -1, 1); t.bincount(N)
t.bincount(N, minlength=9); t.bincount(N, N * 0.5); t.histogram(x, 4)
"""

SHAPE = """
x.reshape(4, 3); x.reshape(-1); x.view(2, -1); x.t(); x.T; a.permute(2, 0, 1); a.transpose(0, -1)
a.mT; x.flatten(); a.flatten(1); s.flatten(); x[None].squeeze(); c.squeeze(-1); x.unsqueeze(1)
x.ravel(); c.expand(3, 4); c.expand(-1, 2); y.expand(2, 3, 4); c.expand_as(x)
t.broadcast_to(y, (3, 4)); t.broadcast_tensors(c, y); a.unflatten(2, (2, -1)); x.reshape_as(r)
a.movedim(0, 2); a.movedim((0, 1), (2, 0)); a.swapaxes(0, 1); a.swapdims(1, 2); t.adjoint(a)
x.narrow(1, 1, 2); x.select(1, 2); a.unbind(1); x.chunk(3, 1); x.split(3, 1); x.split([1, 3], 1)
t.tensor_split(v, 3); t.tensor_split(v, (1, 4)); t.hsplit(x, 2); t.vsplit(r, 2); t.dsplit(a, 2)
x.diagonal(); a.diagonal(1, 1, 2); x.diag(); v.diag(); v.diag(1); t.diag_embed(x); t.diagflat(x)
t.diag_embed(x, 1, 0, 2); x.tril(); x.triu(1); a.tril(-1); x.flip(0); x.flip([0, 1]); t.fliplr(x)
t.flipud(x); x.roll(1); x.roll(1, 0); x.roll((1, -2), (0, 1)); t.rot90(x); t.rot90(x, 2)
t.rot90(a, 3, (1, 2)); x.rot90(-1); x.repeat(2, 1); x.repeat(2, 1, 3); x.tile(2)
t.tile(x, (2, 2, 1)); v.repeat_interleave(2); x.repeat_interleave(J, 0); x.repeat_interleave(2, 1)
x.repeat_interleave(3); t.repeat_interleave(J); t.cat([x, z]); t.cat([x, z], -1); t.cat([x, i], 1)
t.stack([x, z]); t.stack([x, z], 1); t.stack([x, z], 2); t.stack([s, s]); t.hstack([x, z])
t.hstack([v, w]); t.vstack([v, w]); t.dstack([x, z]); t.column_stack([v, w]); t.block_diag(x, v, s)
t.atleast_1d(s); t.atleast_2d(v); t.atleast_3d(x); t.atleast_3d(v); t.atleast_2d(s, v)
t.meshgrid(v, y, indexing="ij"); t.meshgrid(v, y, indexing="xy"); t.cartesian_prod(v, y)
t.combinations(v); t.combinations(v, 3); t.combinations(v, 2, True); v.unfold(0, 2, 1)
x.unfold(1, 3, 1); a.unfold(2, 2, 2); t.diff(x); t.diff(x, 2, 0); t.diff(v, prepend=w[:1])
t.diff(k); t.gradient(v); t.gradient(x, dim=1); t.gradient(v, spacing=0.5, edge_order=2)
t.gradient(v, spacing=(w.cumsum(0),)); t.trapezoid(x); t.trapezoid(x, y)
t.trapezoid(x, dx=0.5, dim=0); t.cumulative_trapezoid(x); t.cumulative_trapezoid(x, y); t.vander(v)
t.vander(v, 3, True); t.linalg.vander(v, N=3); t.tril_indices(3, 4); t.triu_indices(3, 4, 1)
t.as_strided(v, (2, 2), (1, 2)); t.as_strided(v, (2,), (2,), 1); t.block_diag(x, z); t.kron(x, c)
t.kron(v, y); x.new_zeros(2); x.new_ones(2, 3); x.new_full((2,), 7); x.new_tensor([1, 2])
i.new_zeros((2, 2)); x.sum_to_size(1, 4); t.zeros_like(x); t.ones_like(i); t.full_like(x, 2)
t.eye(3); t.eye(2, 3); t.arange(5); t.arange(1, 2, 0.25); t.linspace(0, 1, 5); t.logspace(0, 2, 3)
t.full((2,), 3); t.full((2,), 1.5); t.full((2,), True); t.scalar_tensor(3)
t.unravel_index(N, (2, 3)); t.constant_pad_nd(x, (1, -1, 0, 2), 0.5); t.arange(5.0)
t.arange(6, 0, -2)
"""

INDEXING = """
x[0]; x[1, 2]; x[:, 1]; x[..., -1]; x[1:, ::2]; x[None]; x[J]; x[:, J]; x[J, J]; x[k]; x[K]
x[K, 1]; a[:, J, 1]; x[J, :, None]; a[0, J]; a[J - 2, :, J]; x[[0, 2]]; x[-1:]; x[x > 0]; a[..., J]
a[:, k]; x[True]; x[J[:, None], J]; x.gather(1, I); x.gather(0, I.clamp(max=2))
t.take_along_dim(x, I[:, :2], 1); t.take_along_dim(x, J); s.gather(0, J[1])
x.scatter(1, I[:, :2], z); x.scatter(1, I[:, 2:3], 3.0); x.scatter_add(1, I, z)
x.scatter(1, I, z, reduce="add"); x.scatter_reduce(1, I, z, "sum")
x.scatter_reduce(1, I, z, "mean"); x.scatter_reduce(1, I, z, "prod")
x.scatter_reduce(1, I, z, "amax"); x.scatter_reduce(1, I, z, "amin", include_self=False)
x.scatter_reduce(1, I, z, "mean", include_self=False)
x.scatter_reduce(1, I, z, "sum", include_self=False); i.scatter_reduce(1, I, i, "mean")
x.index_select(1, J); x.index_add(0, J, z); x.index_add(0, J, z, alpha=2)
x.index_copy(0, J[:2], z[:2]); x.index_fill(1, J, 5.0); x.index_put((J, J), y[:3])
x.index_put((J,), z, True); x.index_put((k,), s); x.index_reduce(0, J, z, "amax")
x.index_reduce(0, J, z, "mean", include_self=False); x.take(J); x.put(J[:2], y[:2])
x.put(J, y[:3], True); x.masked_fill(k, 2.0); x.masked_fill(k, s); i.masked_fill(k, 2)
c.masked_fill(k, 0.0); x.masked_select(k); y.masked_select(k); x.masked_scatter(k, z); x.nonzero()
k.nonzero(); t.nonzero(k, as_tuple=True); t.where(k); t.argwhere(i); s.nonzero()
t.select_scatter(x, y, 0, 1); t.slice_scatter(x, z[1:], 0, 1); t.diagonal_scatter(x, y[:3])
t.isin(i, J); t.isin(i, 2); t.isin(i, J, invert=True); x.sort(); x.sort(0, True); n.sort(1)
n.sort(1, descending=True); s.sort(); x.argsort(1); t.msort(x); e.sort(0)
T.sort(dim=1, stable=True); T.sort(dim=1, descending=True, stable=True); x.topk(2)
x.topk(2, 0, False); n[:2].topk(2); s.topk(1); x.kthvalue(2); x.kthvalue(2, 0, True); x.mode(1)
t.searchsorted(N.sort()[0], i); t.searchsorted(v.sort()[0], x, right=True)
t.searchsorted(x.sort()[0], z); t.bucketize(x, v.sort()[0])
t.bucketize(x, v.sort()[0], out_int32=True); t.unique(N)
t.unique(N, return_inverse=True, return_counts=True); t.unique(i); t.unique(k, dim=0)
t.unique_consecutive(N); t.unique_consecutive(N, return_inverse=True, return_counts=True)
t.unique(n[1:2]); t.unique_consecutive(i % 2, dim=0); t.equal(x, x); t.allclose(x, x + 1e-9)
t.numel(x); t.is_tensor(x)
"""

LINEAR = """
x @ r; q @ q; v @ w; x @ y; v[:3] @ x; a @ b; a @ r; y @ r; a @ y; v[:3] @ a
t.matmul(a[:, None], b); t.mm(x, r); t.bmm(a, b); t.mv(x, y); t.dot(v, w); t.vdot(v, w)
t.inner(x, z); t.inner(v, w); t.outer(v, y); i @ i.T; t.addmm(q, x, r)
t.addmm(q, x, r, beta=0.5, alpha=2); t.addmm(n[:, :3], x, r, beta=0); t.addmv(v[:3], x, y)
t.addr(x, c[:, 0], y); t.baddbmm(B, a, b, beta=0.2); t.addbmm(q, a, b); t.chain_matmul(x, r, q)
t.trace(q); t.einsum("ij,jk->ik", x, r); t.einsum("ij->ji", x); t.einsum("ii->i", q)
t.einsum("ii", q); t.einsum("ij,ij->", x, z); t.einsum("bij,bjk->bik", a, b)
t.einsum("...ij,...jk", a, b); t.einsum("i,j->ij", v, y); t.einsum("ij,kj,k->i", x, z, c[:, 0])
t.einsum("bij,jk->bik", a, r); t.einsum("ij,ij->ij", x, z); t.einsum("bnd,bmd->bnm", a, a)
t.einsum("i...->...", a); t.einsum(x, [0, 1], r, [1, 2], [0, 2]); t.einsum("ij,j", x, y)
t.einsum("ab,cd->abcd", q, q); t.einsum("i->", v); t.tensordot(x, r, 1)
t.tensordot(a, a, ([0, 1], [0, 1])); t.tensordot(a, b, ([2, 0], [1, 0])); t.tensordot(v, y, 0)
t.linalg.multi_dot([x, r, q]); t.linalg.multi_dot([v[:3], x, y]); t.linalg.vecdot(x, z)
t.matrix_power(q, 3); t.linalg.matrix_power(d, -2); t.linalg.matrix_power(q, 0); t.cross(q, q.T)
t.linalg.cross(q, q.T, dim=0); t.linalg.inv(d); t.inverse(D); t.linalg.det(q); t.det(B)
t.slogdet(q); t.linalg.slogdet(D); t.logdet(d); t.linalg.solve(d, q); t.linalg.solve(D, B)
t.linalg.solve(d, v[:3]); t.linalg.solve(d, q, left=False)
t.linalg.solve_triangular(d, q, upper=True)
t.linalg.solve_triangular(d, q, upper=False, unitriangular=True)
t.linalg.solve_triangular(d, q, upper=True, left=False); t.linalg.cholesky(D)
t.cholesky(d, upper=True); t.cholesky_solve(q, t.linalg.cholesky(d))
t.cholesky_inverse(t.linalg.cholesky(d)); t.triangular_solve(q, d); t.linalg.eigvalsh(D)
t.linalg.eigh(d).eigenvalues; t.linalg.svdvals(a); t.linalg.svd(x, False).S; t.linalg.pinv(x)
t.linalg.pinv(a); t.linalg.lstsq(r, q.T[:, :2].repeat(2, 1)[:4]).solution; t.linalg.matrix_rank(d)
t.linalg.matrix_rank(x * 0); t.linalg.norm(x); t.linalg.norm(x, "nuc"); t.linalg.norm(x, 2)
t.linalg.norm(v, 3); t.linalg.norm(a, dim=(1, 2)); t.linalg.matrix_norm(a, 1)
t.linalg.matrix_norm(x, -2); t.linalg.matrix_norm(a, float("inf"), keepdim=True)
t.linalg.vector_norm(x, 1, 0); t.linalg.vector_norm(T, float("inf"), 1); t.linalg.cond(q)
t.linalg.cond(q, 1); t.linalg.qr(x.T)[1].abs(); t.linalg.qr(x)[0].abs(); t.linalg.eigh(d)[1].abs()
t.linalg.svd(r, False)[0].abs()
t.linalg.tensorinv(t.eye(6, dtype=x.dtype).reshape(6, 2, 3) * 2, 1); t.linalg.tensorsolve(d, v[:3])
t.linalg.diagonal(a)
"""

LATER = """
t.linalg.lu(q)[2]; t.linalg.lu(a)[1]; t.linalg.lu(r)[1]; t.linalg.lu_factor(B)[0]
t.linalg.lu_factor(q).pivots; t.lu_unpack(*t.linalg.lu_factor(a)); t.matrix_exp(q)
t.linalg.matrix_exp(B * 5); t.linalg.lu_solve(*t.linalg.lu_factor(q), r.T[:3, :2])
t.linalg.lu_solve(*t.linalg.lu_factor(q), q, adjoint=True)
t.linalg.lu_solve(*t.linalg.lu_factor(q), q, left=False); t.hann_window(5)
t.hamming_window(6, False); t.kaiser_window(5); t.blackman_window(4, dtype=t.float64)
t.bartlett_window(5); t.signal.windows.cosine(5); t.signal.windows.gaussian(5, std=2)
t.signal.windows.exponential(5, tau=2.0); t.signal.windows.nuttall(6, sym=False); t.hann_window(1)
t.hann_window(0); t.signal.windows.kaiser(5, beta=3.0)
t.signal.windows.general_cosine(4, a=[0.5, 0.3, 0.2]); t.expand_copy(c, (3, 4)); t.unbind_copy(x)
t.view_copy(x, (4, 3)); t._foreach_add([x, y], [z, y]); t._foreach_mul([x, v], 2.0)
t._foreach_addcmul([x], [z], [p], 0.5); t._foreach_norm([x, y]); x.H; a.mH; x.real
t.linspace(y[0], y[1], 4).detach(); t.fill(x, 2.0); t.fill(x, s); t.special.spherical_bessel_j0(p)
x.type(t.float32); i.type("torch.FloatTensor"); t.cholesky_solve(B, t.linalg.cholesky(D).mT, True)
t.cholesky_inverse(t.linalg.cholesky(D).mT, upper=True); t.cholesky_inverse(t.linalg.cholesky(D))
t.cholesky_solve(q, d.tril()); t.cholesky_inverse(d.triu(), True); t.logcumsumexp(x * 50, 1)
t.geqrf(r)[0].abs(); t.geqrf(a)[1]; t.linalg.householder_product(r, y[:3])
t.linalg.householder_product(b, x[:2, :2]); t.linalg.householder_product(r, y[:0])
t.orgqr(r, y[:2])
t.ormqr(r, y[:3], r); t.ormqr(r, y[:3], x, left=False); t.ormqr(r, y[:3], r, transpose=True)
t.ormqr(r, y[:3], x, left=False, transpose=True); t.special.erfcx(x * 3); t.special.erfcx(i)
t.special.erfcx(n); t.igamma(p.detach(), p); t.igammac(p.detach(), c.abs())
t.special.gammainc(p.detach() * 9, p * 12); t.special.gammaincc(s.detach().abs(), y.abs())
t.igamma(n.detach().abs(), n.detach()); t.special.zeta(p.detach() + 1, p)
t.special.zeta(n.detach(), p.detach()); t.special.zeta(p.detach() + 1, 2)
t.special.chebyshev_polynomial_t(u.detach(), i); t.special.chebyshev_polynomial_u(u.detach(), 4)
t.special.chebyshev_polynomial_v(x.detach(), I); t.special.chebyshev_polynomial_w(x.detach(), 3)
t.special.shifted_chebyshev_polynomial_t(p.detach(), I); t.special.hermite_polynomial_h(i, 3)
t.special.hermite_polynomial_he(x.detach(), I); t.special.laguerre_polynomial_l(p.detach(), 5)
t.special.legendre_polynomial_p(u.detach(), 6); t.special.legendre_polynomial_p(u.detach(), -1)
t.special.legendre_polynomial_p(0.5, I); t.narrow(x, 1, t.tensor(1), 2); x.narrow_copy(0, 1, 2)
t.narrow(x, 1, t.tensor(-2), 2); t.clone(x); t.detach(x); t.get_device(x)
"""

IN_PLACE = """
x.add_(z); x.sub_(1); x.mul_(z); x.div_(p); x.pow_(2); x.clamp_(-1, 1); x.abs_(); x.exp_()
x.neg_(); x.sqrt_(); x.zero_(); x.fill_(2.0); x.masked_fill_(k, 0.0); x.masked_scatter_(k, z)
x.index_add_(0, J, z); x.index_fill_(0, J, 1.0); x.index_copy_(0, J[:2], z[:2])
x.scatter_(1, I[:, :1], 9.0); x.scatter_add_(1, I, z); x.index_put_((J, J), y[:3])
x.scatter_reduce_(1, I, z, "amax"); x.tril_(); x.triu_(1); x.cumsum_(1); x.lerp_(z, 0.5)
x.addcmul_(z, p); x.put_(J, y[:3]); x.addcdiv_(z, p, value=2); x.copy_(y); x.floor_(); x.round_()
x.sigmoid_(); x.tanh_(); x.t_(); x.transpose_(0, 1); x.unsqueeze_(0); c.squeeze_(1)
q.fill_diagonal_(0); x.eq_(z); x.gt_(0); x.logical_not_(); x.resize_(2, 3); i.add_(1)
i.floor_divide_(2); i.bitwise_and_(3); k.logical_and_(k); x.clamp_min_(0); x.nan_to_num_()
x[0].add_(1); x[:, 1].zero_(); x.view(-1)[3].fill_(7); x.diagonal().add_(2); x.t().mul_(c.t())
x.set_(z); x.apply_(lambda v: 2 * v); x.map_(z, lambda a, b: a - b)
x.erfinv_(); x.addmm_(x, t.eye(4, dtype=x.dtype))
"""

OUT = """
t.relu_(x); t.zero_(x); t.sigmoid_(x); p.detach().igamma_(p.detach() * 2)
t.add(x, z, out=t.empty(0, dtype=x.dtype)); t.mm(x, r, out=q)
t.cat([x, z], out=t.empty(6, 4, dtype=x.dtype))
t.max(x, 1, out=(t.empty(0, dtype=x.dtype), t.empty(0, dtype=t.int64))); t.exp(x, out=z)
t.sum(x, 1, out=v[:3]); t.sum(x, axis=1); x.mean(axis=0, keepdims=True); x.max(axis=1)[0]
t.arange(3, out=J); x.softmax(dim=1); x.argmax(axis=1)
"""


def split(table: str) -> list[str]:
    """Return the expressions of a table: one or more on a line, parted by `; `."""
    return [call.strip() for line in table.strip().splitlines() for call in line.split("; ")]
