"""Recurrent layers over time: one layer, one direction, all steps.

`x` is what the input gives to every gate, [time, batch, gates · hidden], made outside by one
product for all steps; `w` is what the last state is multiplied by. The gradient rules compute all
that needs no order for all steps at once, and keep only the recurrence in the loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tracegraph.dtypes import FLOATS
from tracegraph.errors import DTypeError, OpError
from tracegraph.ops.core import Joint, case, define, in_float32
from tracegraph.tensor_type import TensorType


def _check(x: TensorType, others: Sequence[TensorType]) -> None:
    if x.dtype not in FLOATS:
        raise DTypeError(f"not implemented for dtype {x.dtype}")
    for other in others:
        if other.dtype is not x.dtype:
            raise DTypeError(f"operands have different dtypes {x.dtype} and {other.dtype}")
    if x.ndim != 3:
        raise OpError(f"a recurrent layer needs x[time, batch, gates], got {x}")
    if x.shape[0] == 0:
        raise OpError("Expected sequence length to be larger than 0 in RNN")


def _expect(known: TensorType, shape: tuple[int, ...], what: str) -> None:
    if known.shape != shape:
        raise OpError(f"{what} should be {list(shape)}, got {known}")


# Pieces, over arrays and Tensors alike.


def _at(m: Any, x: Any, t: int) -> Any:
    """Step t of [time, batch, n]."""
    return m.slice(x, index=(t, (0, x.shape[1], 1), (0, x.shape[2], 1)))


def _part(m: Any, x: Any, place: int, size: int) -> Any:
    """Gate number `place` of [..., gates · size]."""
    whole = tuple((0, n, 1) for n in x.shape[:-1])
    return m.slice(x, index=(*whole, (place * size, (place + 1) * size, 1)))


def _stack(m: Any, steps: Sequence[Any]) -> Any:
    return m.cat(*(m.reshape(s, shape=(1, *s.shape)) for s in steps), dim=0)


def _before(m: Any, first: Any, steps: Any) -> Any:
    """What every step started from: `first`, then the steps but the last."""
    time, batch, size = steps.shape
    first = m.reshape(first, shape=(1, *first.shape))
    if time == 1:
        return first
    early = m.slice(steps, index=((0, time - 1, 1), (0, batch, 1), (0, size, 1)))
    return m.cat(first, early, dim=0)


def _weight_grad(m: Any, dy: Any, x: Any) -> Any:
    """Gradient of w in x · wᵀ, over all steps at once."""
    dy = m.reshape(dy, shape=(dy.shape[0] * dy.shape[1], dy.shape[2]))
    x = m.reshape(x, shape=(x.shape[0] * x.shape[1], x.shape[2]))
    return m.matmul(m.permute(dy, dims=(1, 0)), x)


def _transposed(m: Any, w: Any) -> Any:
    return m.permute(w, dims=(1, 0))


def _slope(s: Any) -> Any:
    """Derivative of the sigmoid at its value s."""
    return s * (1 - s)


def _sigmoid_in_place(xp: Any, x: Any) -> Any:
    """1 / (1 + exp(-x)); exp overflows to inf for very negative x, which gives the right 0."""
    xp.negative(x, out=x)
    xp.exp(x, out=x)
    x += 1
    return xp.reciprocal(x, out=x)


# h = act(x + h wᵀ).


def _rnn_type(x: TensorType, h: TensorType, w: TensorType, *, relu: bool) -> TensorType:
    _check(x, (h, w))
    size = x.shape[2]
    _expect(h, (x.shape[1], size), "h")
    _expect(w, (size, size), "w")
    return x


def _rnn_kernel(xp: Any, x: Any, h: Any, w: Any, *, relu: bool) -> Any:
    ys = x.copy()
    wt = xp.ascontiguousarray(w.T)
    for y in ys:
        y += h @ wt
        h = xp.maximum(y, 0, out=y) if relu else xp.tanh(y, out=y)
    return ys


def _rnn_steps(m: Any, x: Any, h: Any, w: Any, *, relu: bool) -> Any:
    wt = _transposed(m, w)
    ys = []
    for t in range(x.shape[0]):
        h = _at(m, x, t) + m.matmul(h, wt)
        h = m.relu(h) if relu else m.tanh(h)
        ys.append(h)
    return _stack(m, ys)


def _rnn_vjp(m: Any, g: Any, h: Any, w: Any, ys: Any, relu: bool) -> Any:
    slope = m.cast(m.gt(ys, 0), dtype=g.dtype) if relu else 1 - ys * ys
    dh: Any = None
    dx = []
    for t in reversed(range(ys.shape[0])):
        dy = _at(m, g, t)
        dy = (dy if dh is None else dy + dh) * _at(m, slope, t)
        dh = m.matmul(dy, w)
        dx.append(dy)
    grad = _stack(m, dx[::-1])
    return grad, dh, _weight_grad(m, grad, _before(m, h, ys))


rnn = define(
    "rnn(x, h, w) -> ys", type=_rnn_type, kernel=in_float32(_rnn_kernel), decompose=_rnn_steps,
    vjp=Joint(_rnn_vjp),
    sample=(case((3, 2, 4), (2, 4), (4, 4), relu=False),
            case((2, 3, 4), (3, 4), (4, 4), relu=True),
            case((2, 0, 4), (0, 4), (4, 4), relu=False)),
    doc="All states of an Elman layer: h = tanh (or relu) of x + h · wᵀ. Elman 1990.",
)  # fmt: skip


# Gates in the order input, forget, cell, output.


def _lstm_type(
    x: TensorType, h: TensorType, c: TensorType, w: TensorType, w_hr: TensorType | None = None
) -> tuple[TensorType, TensorType]:
    _check(x, (h, c, w) if w_hr is None else (h, c, w, w_hr))
    time, batch, gates = x.shape
    size = gates // 4
    out = size if w_hr is None else w_hr.shape[0]
    _expect(x, (time, batch, 4 * size), "x")
    _expect(h, (batch, out), "h")
    _expect(c, (batch, size), "c")
    _expect(w, (4 * size, out), "w")
    if w_hr is not None:
        _expect(w_hr, (out, size), "w_hr")
    return x.with_shape((time, batch, out)), x.with_shape((time, batch, size))


def _lstm_kernel(xp: Any, x: Any, h: Any, c: Any, w: Any, w_hr: Any = None) -> Any:
    time, size = x.shape[0], c.shape[1]
    ys = xp.empty((time, *h.shape), dtype=x.dtype)
    cs = xp.empty((time, *c.shape), dtype=x.dtype)
    wt = xp.ascontiguousarray(w.T)
    with np.errstate(over="ignore"):
        for t in range(time):
            gates = h @ wt
            gates += x[t]
            cell = xp.tanh(gates[:, 2 * size : 3 * size])
            gates = _sigmoid_in_place(xp, gates)
            cell *= gates[:, :size]
            c = xp.multiply(gates[:, size : 2 * size], c, out=cs[t])
            c += cell
            xp.tanh(c, out=cell)
            cell *= gates[:, 3 * size :]
            ys[t] = cell if w_hr is None else cell @ w_hr.T
            h = ys[t]
    return ys, cs


def _lstm_steps(m: Any, x: Any, h: Any, c: Any, w: Any, w_hr: Any = None) -> Any:
    size = c.shape[1]
    wt = _transposed(m, w)
    ys, cs = [], []
    for t in range(x.shape[0]):
        gates = _at(m, x, t) + m.matmul(h, wt)
        i, f, cell, o = (_part(m, gates, place, size) for place in range(4))
        c = m.sigmoid(f) * c + m.sigmoid(i) * m.tanh(cell)
        h = m.sigmoid(o) * m.tanh(c)
        if w_hr is not None:
            h = m.matmul(h, _transposed(m, w_hr))
        ys.append(h)
        cs.append(c)
    return _stack(m, ys), _stack(m, cs)


def _lstm_vjp(m: Any, g: Any, x: Any, h: Any, c: Any, w: Any, w_hr: Any, ys: Any, cs: Any) -> Any:
    g_ys, g_cs = g
    size = cs.shape[2]
    h_before, c_before = _before(m, h, ys), _before(m, c, cs)
    gates = x + m.linear(h_before, w)
    i, f, o = (m.sigmoid(_part(m, gates, place, size)) for place in (0, 1, 3))
    cell, tanh_c = m.tanh(_part(m, gates, 2, size)), m.tanh(cs)
    to_c = o * (1 - tanh_c * tanh_c)
    to_gates = m.cat(
        cell * _slope(i), c_before * _slope(f), i * (1 - cell * cell), tanh_c * _slope(o), dim=2
    )
    dh: Any = None
    dc: Any = None
    d_gates, d_ys = [], []
    for t in reversed(range(ys.shape[0])):
        dy, dct = _at(m, g_ys, t), _at(m, g_cs, t)
        dy = dy if dh is None else dy + dh
        raw = dy if w_hr is None else m.matmul(dy, w_hr)
        dct = (dct if dc is None else dct + dc) + raw * _at(m, to_c, t)
        d_gate = m.cat(dct, dct, dct, raw, dim=1) * _at(m, to_gates, t)
        dh, dc = m.matmul(d_gate, w), dct * _at(m, f, t)
        d_gates.append(d_gate)
        d_ys.append(dy)
    dx = _stack(m, d_gates[::-1])
    grads = (dx, dh, dc, _weight_grad(m, dx, h_before))
    if w_hr is None:
        return grads
    return (*grads, _weight_grad(m, _stack(m, d_ys[::-1]), o * tanh_c))


lstm = define(
    "lstm(x, h, c, w, w_hr?) -> ys, cs", type=_lstm_type, kernel=in_float32(_lstm_kernel),
    decompose=_lstm_steps, vjp=Joint(_lstm_vjp),
    sample=(case((3, 2, 12), (2, 3), (2, 3), (12, 3)),
            case((2, 2, 12), (2, 2), (2, 3), (12, 2), (2, 3)),
            case((2, 0, 12), (0, 3), (0, 3), (12, 3))),
    doc="All outputs and cells of an LSTM layer, gates i, f, g, o = x + h · wᵀ: c = σ(f) c + "
        "σ(i) tanh(g), h = σ(o) tanh(c) (times w_hrᵀ). Hochreiter & Schmidhuber 1997; projection: "
        "Sak et al. 2014, arXiv:1402.1128.",
)  # fmt: skip


# Gates in the order reset, update, new.


def _gru_type(
    x: TensorType, h: TensorType, w: TensorType, b: TensorType | None = None
) -> TensorType:
    _check(x, (h, w) if b is None else (h, w, b))
    time, batch, gates = x.shape
    size = gates // 3
    _expect(x, (time, batch, 3 * size), "x")
    _expect(h, (batch, size), "h")
    _expect(w, (3 * size, size), "w")
    if b is not None:
        _expect(b, (3 * size,), "b")
    return x.with_shape((time, batch, size))


def _gru_kernel(xp: Any, x: Any, h: Any, w: Any, b: Any = None) -> Any:
    time, size = x.shape[0], h.shape[1]
    ys = xp.empty((time, *h.shape), dtype=x.dtype)
    wt = xp.ascontiguousarray(w.T)
    with np.errstate(over="ignore"):
        for t in range(time):
            hidden = h @ wt
            if b is not None:
                hidden += b
            gates = _sigmoid_in_place(xp, x[t, :, : 2 * size] + hidden[:, : 2 * size])
            new = hidden[:, 2 * size :]
            new *= gates[:, :size]
            new += x[t, :, 2 * size :]
            xp.tanh(new, out=new)
            y = xp.subtract(h, new, out=ys[t])
            y *= gates[:, size:]
            y += new
            h = y
    return ys


def _gru_steps(m: Any, x: Any, h: Any, w: Any, b: Any = None) -> Any:
    size = h.shape[1]
    ys = []
    for t in range(x.shape[0]):
        step = _at(m, x, t)
        hidden = m.linear(h, w) if b is None else m.linear(h, w, b)
        r, z = (
            m.sigmoid(_part(m, step, place, size) + _part(m, hidden, place, size))
            for place in (0, 1)
        )
        new = m.tanh(_part(m, step, 2, size) + r * _part(m, hidden, 2, size))
        h = new + z * (h - new)
        ys.append(h)
    return _stack(m, ys)


def _gru_vjp(m: Any, g: Any, x: Any, h: Any, w: Any, b: Any, ys: Any) -> Any:
    size = ys.shape[2]
    before = _before(m, h, ys)
    hidden = m.linear(before, w) if b is None else m.linear(before, w, b)
    r, z = (m.sigmoid(_part(m, x, place, size) + _part(m, hidden, place, size)) for place in (0, 1))
    from_new = _part(m, hidden, 2, size)
    new = m.tanh(_part(m, x, 2, size) + r * from_new)
    to_new = (1 - z) * (1 - new * new)
    to_reset, to_update = to_new * from_new * _slope(r), (before - new) * _slope(z)
    to_hidden = m.cat(to_reset, to_update, to_new * r, dim=2)
    dh: Any = None
    dys, d_hidden = [], []
    for t in reversed(range(ys.shape[0])):
        dy = _at(m, g, t)
        dy = dy if dh is None else dy + dh
        step = m.cat(dy, dy, dy, dim=1) * _at(m, to_hidden, t)
        dh = m.matmul(step, w) + dy * _at(m, z, t)
        dys.append(dy)
        d_hidden.append(step)
    dy, step = _stack(m, dys[::-1]), _stack(m, d_hidden[::-1])
    dx = m.cat(dy, dy, dy, dim=2) * m.cat(to_reset, to_update, to_new, dim=2)
    grads = (dx, dh, _weight_grad(m, step, before))
    return grads if b is None else (*grads, m.sum(step, dim=(0, 1), keepdim=False))


gru = define(
    "gru(x, h, w, b?) -> ys", type=_gru_type, kernel=in_float32(_gru_kernel),
    decompose=_gru_steps, vjp=Joint(_gru_vjp),
    sample=(case((3, 2, 9), (2, 3), (9, 3), (9,)), case((2, 2, 9), (2, 3), (9, 3)),
            case((2, 0, 9), (0, 3), (9, 3))),
    doc="All states of a GRU layer: r, z = σ(x + h · wᵀ + b), n = tanh(x + r (h · wᵀ + b)), "
        "h = (1 − z) n + z h. Cho et al. 2014, arXiv:1406.1078.",
)  # fmt: skip
