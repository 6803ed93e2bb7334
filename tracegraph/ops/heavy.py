"""Large calls of costly ops: from which size on native code is worth it, and who runs it.

A kernel over NumPy arrays is one thread that writes each intermediate result to memory. From some
size on, machine code made for the op takes a half to a fiftieth of its time, and soon earns the 30
to 90 ms that making it takes once on a machine. Eager code, gradient rules on bare arrays and the
interpreter ask here, by sizes alone, so they give the same bits.

The table of ops cannot know a runtime: `offer` tells where one is to be found.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from tracegraph.ops.core import Op

# Computes a call natively, or returns None: then the kernel has to. The last are the Tensors whose
# arrays these are, where there are any.
Computer = Callable[["Op", Sequence[Any], Mapping[str, Any], Sequence[Any]], Any]

# The least elements of the first operand, by what NumPy takes for each: 20 to 50 us in all.
_DEAR: Final = 1 << 13
_ROWS: Final = 1 << 14
_CHEAP: Final = 1 << 16

LEAST: Final[dict[str, int]] = {
    **dict.fromkeys(("exp", "sigmoid", "tanh", "silu", "elu", "softplus", "leaky_relu"), _CHEAP),
    **dict.fromkeys(("gelu", "erf", "softmax", "log_softmax", "layer_norm", "rms_norm"), _ROWS),
    **dict.fromkeys(("batch_norm", "batch_norm_inference"), _ROWS),
    "where": _CHEAP,
    **dict.fromkeys(("erfc", "erfinv", "ndtr", "ndtri", "log_ndtr", "lgamma", "digamma"), _DEAR),
    **dict.fromkeys(("i0", "i0e", "i1", "i1e", "polygamma", "sinc", "logit"), _DEAR),
    **dict.fromkeys(("max_pool", "max_pool_indices", "max_pool_grad"), _CHEAP),
    **dict.fromkeys(("avg_pool", "avg_pool_grad"), _CHEAP),
    **dict.fromkeys(("lstm", "gru", "rnn", "lstm_grad", "gru_grad", "rnn_grad"), _ROWS),
    **dict.fromkeys(("linear", "matmul"), _ROWS),
    **dict.fromkeys(("convolution", "convolution_input_grad", "convolution_weight_grad"), _ROWS),
}
"""The ops that native code may compute, and from how many elements of the first operand on."""

# Of sums of products: the dim of the second operand that each element meets, and the least product
# of the two numbers. One thread of BLAS takes 0.2 ms for it; small ones it does as well.
_MEETS: Final = {
    "linear": (0, 1 << 23),
    "matmul": (-1, 1 << 23),
    "convolution": (0, 1 << 22),
    "convolution_input_grad": (1, 1 << 22),
    "convolution_weight_grad": (1, 1 << 22),
}


class Native:
    """Who computes, how it is found when it is first needed, and what LEAST is multiplied by."""

    find: Callable[[], Computer] | None = None
    compute: Computer | None = None
    factor = float("inf") if os.environ.get("TRACEGRAPH_EAGER_NATIVE") == "0" else 1.0


def offer(find: Callable[[], Computer]) -> None:
    """Tell how to find what computes large calls; it is found when there is one."""
    Native.find, Native.compute = find, None


def scaled(factor: float) -> float:
    """Set what the sizes of LEAST are multiplied by, and return what it was; infinity: never."""
    old, Native.factor = Native.factor, factor
    return old


def natively(
    op: Op, arrays: Sequence[Any], attrs: Mapping[str, Any], tensors: Sequence[Any] = ()
) -> Any:
    """Return what native code computes for an op of LEAST; None where the kernel has to.

    `tensors`: those that the arrays are of, where it is known; what is made of a weight alone may
    then be kept.
    """
    x, factor = arrays[0], Native.factor
    if x.__class__ is not np.ndarray or x.size < op.heavy * factor:
        return None
    if op.name in _MEETS and not _is_worth_it(op.name, x, arrays[1]):
        return None
    compute = Native.compute
    if compute is None:
        if Native.find is None:
            return None
        compute = Native.compute = Native.find()
    return compute(op, arrays, attrs, tensors)


def _is_worth_it(name: str, x: Any, y: Any) -> bool:
    """Whether a sum of products is large enough."""
    if y.__class__ is not np.ndarray or not y.ndim:
        return False
    dim, least = _MEETS[name]
    return bool(x.size * y.shape[dim] >= least * Native.factor)
