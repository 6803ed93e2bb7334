"""Special functions in the scalar language, for arrays and for generated code alike.

Every function is ``f(m, x)``: ``x`` is an array or a symbolic scalar, ``m`` the namespace with
``where``, ``exp``, ``log``, ``log1p``, ``sqrt``, ``abs``, ``floor``, ``sin``, ``tan`` and
``isnan``.  On ``x`` only + - * /, unary minus and comparisons are used, and each ``where`` has a
branch of the type of ``x``; constants are Python floats, inf and NaN among them.  So one source
serves NumPy, CuPy, LLVM IR and CUDA C, in float32 and float64.

Arguments have any shape and the result has the same; angles are in radians; NaN gives NaN; nothing
is raised unless stated.  Branches that are not taken are given harmless arguments, so that they
neither warn nor trap; NumPy warns only where the result itself overflows or divides by zero.

Accuracy, relative and away from zeros of the function: in float64 1e-14 (1e-13 for lgamma,
digamma and polygamma), in float32 1e-6 (2e-6 for polygamma of order above 10).  erf, erfc and
ndtr are within 4 units in the last place in float64.
"""

from tracegraph.special_functions.bessel import i0, i0e, i1, i1e
from tracegraph.special_functions.elementary import entr, expit, logit, sinc, xlog1py, xlogy
from tracegraph.special_functions.gamma import digamma, lgamma, polygamma
from tracegraph.special_functions.normal import erf, erfc, erfinv, log_ndtr, ndtr, ndtri

__all__ = [
    "erf", "erfc", "erfinv", "ndtr", "ndtri", "log_ndtr",
    "lgamma", "digamma", "polygamma",
    "i0", "i0e", "i1", "i1e",
    "sinc", "xlogy", "xlog1py", "entr", "logit", "expit",
]  # fmt: skip
