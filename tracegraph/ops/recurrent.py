"""Recurrent layers over time: one layer, one direction, all steps.

`x` is what the input gives to every gate, [time, batch, gates · hidden], made outside by one
product for all steps; `w` is what the last state is multiplied by. The gradient rules compute all
that needs no order for all steps at once, and keep only the recurrence in the loop.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tracegraph.ops.core import Joint, case, define, in_float32
from tracegraph.ops.recurrent_steps import (
    at,
    before,
    check,
    expect,
    outer,
    part,
    repeated,
    stack,
    times,
    transposed,
)
from tracegraph.tensor_type import TensorType


def _slope(s: Any) -> Any:
    """Derivative of the sigmoid at its value s."""
    return s * (1 - s)


def _sigmoid_in_place(xp: Any, x: Any) -> Any:
    """1 / (1 + exp(-x)); exp overflows to inf for very negative x, which gives the right 0."""
    xp.negative(x, out=x)
    xp.exp(x, out=x)
    x += 1
    return xp.reciprocal(x, out=x)


def _for_steps(xp: Any, w: Any, time: int) -> Any:
    """wᵀ, as a copy where many steps make up for it (a product then takes 10 µs, not 42)."""
    return w.T if time < 3 else xp.ascontiguousarray(w.T)


# h = act(x + h wᵀ).


def _rnn_type(x: TensorType, h: TensorType, w: TensorType, *, relu: bool) -> TensorType:
    check(x, (h, w))
    size = x.shape[2]
    expect(h, (x.shape[1], size), "h")
    expect(w, (size, size), "w")
    return x


def _rnn_kernel(xp: Any, x: Any, h: Any, w: Any, *, relu: bool) -> Any:
    ys = x.copy()
    wt = _for_steps(xp, w, x.shape[0])
    for y in ys:
        y += h @ wt
        h = xp.maximum(y, 0, out=y) if relu else xp.tanh(y, out=y)
    return ys


def _rnn_steps(m: Any, x: Any, h: Any, w: Any, *, relu: bool) -> Any:
    wt = transposed(m, w)
    ys = []
    for t in range(x.shape[0]):
        h = at(m, x, t) + m.matmul(h, wt)
        h = m.relu(h) if relu else m.tanh(h)
        ys.append(h)
    return stack(m, ys)


def _rnn_vjp(m: Any, g: Any, h: Any, w: Any, ys: Any, relu: bool) -> Any:
    slope = m.cast(m.gt(ys, 0), dtype=g.dtype) if relu else 1 - ys * ys
    dx = m.rnn_grad(g, slope, w)
    return dx, m.matmul(at(m, dx, 0), w), outer(m, dx, before(m, h, ys))


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
    check(x, (h, c, w) if w_hr is None else (h, c, w, w_hr))
    time, batch, gates = x.shape
    size = gates // 4
    out = size if w_hr is None else w_hr.shape[0]
    expect(x, (time, batch, 4 * size), "x")
    expect(h, (batch, out), "h")
    expect(c, (batch, size), "c")
    expect(w, (4 * size, out), "w")
    if w_hr is not None:
        expect(w_hr, (out, size), "w_hr")
    return x.with_shape((time, batch, out)), x.with_shape((time, batch, size))


def _lstm_kernel(xp: Any, x: Any, h: Any, c: Any, w: Any, w_hr: Any = None) -> Any:
    time, size = x.shape[0], c.shape[1]
    ys = xp.empty((time, *h.shape), dtype=x.dtype)
    cs = xp.empty((time, *c.shape), dtype=x.dtype)
    wt = _for_steps(xp, w, x.shape[0])
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
    wt = transposed(m, w)
    ys, cs = [], []
    for t in range(x.shape[0]):
        gates = at(m, x, t) + m.matmul(h, wt)
        i, f, cell, o = (part(m, gates, place, size) for place in range(4))
        c = m.sigmoid(f) * c + m.sigmoid(i) * m.tanh(cell)
        h = m.sigmoid(o) * m.tanh(c)
        if w_hr is not None:
            h = m.matmul(h, transposed(m, w_hr))
        ys.append(h)
        cs.append(c)
    return stack(m, ys), stack(m, cs)


def _lstm_vjp(m: Any, g: Any, x: Any, h: Any, c: Any, w: Any, w_hr: Any, ys: Any, cs: Any) -> Any:
    g_ys, g_cs = g
    size = cs.shape[2]
    h_before, c_before = before(m, h, ys), before(m, c, cs)
    gates = x + m.linear(h_before, w)
    i, f, o = (m.sigmoid(part(m, gates, place, size)) for place in (0, 1, 3))
    cell, tanh_c = m.tanh(part(m, gates, 2, size)), m.tanh(cs)
    to_c = o * (1 - tanh_c * tanh_c)
    to_gates = m.cat(
        cell * _slope(i), c_before * _slope(f), i * (1 - cell * cell), tanh_c * _slope(o), dim=2
    )
    options = () if w_hr is None else (w_hr,)
    dys, dcs = m.lstm_grad(g_ys, g_cs, to_c, to_gates, f, w, *options)
    raw = dys if w_hr is None else times(m, dys, w_hr)
    dx = m.cat(dcs, dcs, dcs, raw, dim=2) * to_gates
    first, first_c = at(m, dx, 0), at(m, dcs, 0) * at(m, f, 0)
    grads = (dx, m.matmul(first, w), first_c, outer(m, dx, h_before))
    return grads if w_hr is None else (*grads, outer(m, dys, o * tanh_c))


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
    check(x, (h, w) if b is None else (h, w, b))
    time, batch, gates = x.shape
    size = gates // 3
    expect(x, (time, batch, 3 * size), "x")
    expect(h, (batch, size), "h")
    expect(w, (3 * size, size), "w")
    if b is not None:
        expect(b, (3 * size,), "b")
    return x.with_shape((time, batch, size))


def _gru_kernel(xp: Any, x: Any, h: Any, w: Any, b: Any = None) -> Any:
    time, size = x.shape[0], h.shape[1]
    ys = xp.empty((time, *h.shape), dtype=x.dtype)
    wt = _for_steps(xp, w, x.shape[0])
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
        step = at(m, x, t)
        hidden = m.linear(h, w) if b is None else m.linear(h, w, b)
        r, z = (
            m.sigmoid(part(m, step, place, size) + part(m, hidden, place, size)) for place in (0, 1)
        )
        new = m.tanh(part(m, step, 2, size) + r * part(m, hidden, 2, size))
        h = new + z * (h - new)
        ys.append(h)
    return stack(m, ys)


def _gru_vjp(m: Any, g: Any, x: Any, h: Any, w: Any, b: Any, ys: Any) -> Any:
    size = ys.shape[2]
    earlier = before(m, h, ys)
    hidden = m.linear(earlier, w) if b is None else m.linear(earlier, w, b)
    r, z = (m.sigmoid(part(m, x, place, size) + part(m, hidden, place, size)) for place in (0, 1))
    from_new = part(m, hidden, 2, size)
    new = m.tanh(part(m, x, 2, size) + r * from_new)
    to_new = (1 - z) * (1 - new * new)
    to_reset, to_update = to_new * from_new * _slope(r), (earlier - new) * _slope(z)
    to_hidden = m.cat(to_reset, to_update, to_new * r, dim=2)
    dys = m.gru_grad(g, to_hidden, z, w)
    dy = repeated(m, dys, 3)
    step = dy * to_hidden
    dx = dy * m.cat(to_reset, to_update, to_new, dim=2)
    dh = m.matmul(at(m, step, 0), w) + at(m, dys, 0) * at(m, z, 0)
    grads = (dx, dh, outer(m, step, earlier))
    return grads if b is None else (*grads, m.sum(step, dim=(0, 1), keepdim=False))


gru = define(
    "gru(x, h, w, b?) -> ys", type=_gru_type, kernel=in_float32(_gru_kernel),
    decompose=_gru_steps, vjp=Joint(_gru_vjp),
    sample=(case((3, 2, 9), (2, 3), (9, 3), (9,)), case((2, 2, 9), (2, 3), (9, 3)),
            case((2, 0, 9), (0, 3), (9, 3))),
    doc="All states of a GRU layer: r, z = σ(x + h · wᵀ + b), n = tanh(x + r (h · wᵀ + b)), "
        "h = (1 − z) n + z h. Cho et al. 2014, arXiv:1406.1078.",
)  # fmt: skip
