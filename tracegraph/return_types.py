"""Named tuples that functions with several results return, as in `torch.return_types`."""

from __future__ import annotations

from collections import namedtuple

max = namedtuple("max", "values indices")
min = namedtuple("min", "values indices")
median = namedtuple("median", "values indices")
nanmedian = namedtuple("nanmedian", "values indices")
mode = namedtuple("mode", "values indices")
kthvalue = namedtuple("kthvalue", "values indices")
sort = namedtuple("sort", "values indices")
topk = namedtuple("topk", "values indices")
cummax = namedtuple("cummax", "values indices")
cummin = namedtuple("cummin", "values indices")
aminmax = namedtuple("aminmax", "min max")
frexp = namedtuple("frexp", "mantissa exponent")
histogram = namedtuple("histogram", "hist bin_edges")
qr = namedtuple("qr", "Q R")
svd = namedtuple("svd", "U S V")
slogdet = namedtuple("slogdet", "sign logabsdet")
triangular_solve = namedtuple("triangular_solve", "solution cloned_coefficient")
linalg_qr = namedtuple("linalg_qr", "Q R")
linalg_svd = namedtuple("linalg_svd", "U S Vh")
linalg_eigh = namedtuple("linalg_eigh", "eigenvalues eigenvectors")
linalg_slogdet = namedtuple("linalg_slogdet", "sign logabsdet")
linalg_lstsq = namedtuple("linalg_lstsq", "solution residuals rank singular_values")
linalg_cholesky_ex = namedtuple("linalg_cholesky_ex", "L info")
linalg_inv_ex = namedtuple("linalg_inv_ex", "inverse info")
linalg_solve_ex = namedtuple("linalg_solve_ex", "result info")
