"""What the rows of recurrent layers share: steps and gates, over arrays and Tensors alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tracegraph.dims.shapes import is_one
from tracegraph.dtypes import FLOATS
from tracegraph.errors import DTypeError, OpError
from tracegraph.tensor_type import TensorType


def check(x: TensorType, others: Sequence[TensorType]) -> None:
    """Refuse an `x` that is not [time, batch, n], and operands of several or other dtypes.

    Raises:
        OpError: another number of dims, or no steps.
        DTypeError: dtypes that differ or are not floating.
    """
    if x.dtype not in FLOATS:
        raise DTypeError(f"not implemented for dtype {x.dtype}")
    for other in others:
        if other.dtype is not x.dtype:
            raise DTypeError(f"operands have different dtypes {x.dtype} and {other.dtype}")
    if x.ndim != 3:
        raise OpError(f"a recurrent layer needs [time, batch, n], got {x}")
    if x.shape[0] == 0:
        raise OpError("Expected sequence length to be larger than 0 in RNN")


def expect(known: TensorType, shape: tuple[int, ...], what: str) -> None:
    """Refuse an operand of another shape.

    Raises:
        OpError: the shapes differ.
    """
    if known.shape != shape:
        raise OpError(f"{what} should be {list(shape)}, got {known}")


def at(m: Any, x: Any, t: int) -> Any:
    """Step t of [time, batch, n]."""
    return m.slice(x, index=(t, (0, x.shape[1], 1), (0, x.shape[2], 1)))


def part(m: Any, x: Any, place: int, size: int) -> Any:
    """Gate number `place` of [..., gates · size]."""
    whole = tuple((0, n, 1) for n in x.shape[:-1])
    return m.slice(x, index=(*whole, (place * size, (place + 1) * size, 1)))


def stack(m: Any, steps: Sequence[Any]) -> Any:
    """Steps [batch, n] as [time, batch, n]."""
    return m.cat(*(m.reshape(s, shape=(1, *s.shape)) for s in steps), dim=0)


def _most(m: Any, steps: Any, start: int, stop: int) -> Any:
    _, batch, size = steps.shape
    return m.slice(steps, index=((start, stop, 1), (0, batch, 1), (0, size, 1)))


def before(m: Any, first: Any, steps: Any) -> Any:
    """What every step started from: `first`, then the steps but the last."""
    first = m.reshape(first, shape=(1, *first.shape))
    time = steps.shape[0]
    return first if is_one(time) else m.cat(first, _most(m, steps, 0, time - 1), dim=0)


def _no_step(m: Any, steps: Any) -> Any:
    return m.full(shape=(1, *steps.shape[1:]), value=0, dtype=steps.dtype)


def since(m: Any, steps: Any) -> Any:
    """What came before every step: zeros, then the steps but the last. For gradient rules."""
    time = steps.shape[0]
    none = _no_step(m, steps)
    return none if is_one(time) else m.cat(none, _most(m, steps, 0, time - 1), dim=0)


def after(m: Any, steps: Any) -> Any:
    """What came after every step: the steps but the first, then zeros. For gradient rules."""
    time = steps.shape[0]
    none = _no_step(m, steps)
    return none if is_one(time) else m.cat(_most(m, steps, 1, time), none, dim=0)


def rows(m: Any, x: Any) -> Any:
    """[time, batch, n] as [time · batch, n]."""
    return m.reshape(x, shape=(x.shape[0] * x.shape[1], x.shape[2]))


def times(m: Any, x: Any, w: Any) -> Any:
    """[time, batch, n] · w[n, k] as [time, batch, k]."""
    return m.reshape(m.matmul(rows(m, x), w), shape=(*x.shape[:2], w.shape[1]))


def transposed(m: Any, w: Any) -> Any:
    """A matrix with its dims swapped."""
    return m.permute(w, dims=(1, 0))


def outer(m: Any, dy: Any, x: Any) -> Any:
    """Gradient of w in dy = x · wᵀ, over all steps at once: dyᵀ · x."""
    return m.matmul(transposed(m, rows(m, dy)), rows(m, x))


def repeated(m: Any, x: Any, count: int) -> Any:
    """The same for `count` gates: [..., count · n]."""
    return m.cat(*(x,) * count, dim=len(x.shape) - 1)
