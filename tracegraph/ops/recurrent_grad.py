"""The recurrences that gradients of recurrent layers follow, backwards in time.

Each is linear in what arrives at the outputs (`g`), with coefficients that `recurrent.py` computes
for all steps at once. Their own gradients follow a recurrence forwards in time.
"""

from __future__ import annotations

from typing import Any

from tracegraph.ops.core import LAID_ALIKE, Joint, case, define, in_float32
from tracegraph.ops.recurrent_steps import (
    after,
    at,
    check,
    expect,
    outer,
    part,
    repeated,
    since,
    stack,
    times,
    transposed,
)
from tracegraph.tensor_type import TensorType


def _sum_gates(m: Any, x: Any, count: int) -> Any:
    """The sum over gates of [..., count · n]."""
    size = x.shape[-1] // count
    total = part(m, x, 0, size)
    for place in range(1, count):
        total = total + part(m, x, place, size)
    return total


# dx = (g + dx' w) slope, where dx' is that of the next step.


def _rnn_type(g: TensorType, slope: TensorType, w: TensorType) -> TensorType:
    check(g, (slope, w))
    expect(slope, g.shape, "slope")
    expect(w, (g.shape[2], g.shape[2]), "w")
    return g


def _rnn_kernel(xp: Any, g: Any, slope: Any, w: Any) -> Any:
    dx = xp.empty_like(g)
    later: Any = None
    for t in reversed(range(g.shape[0])):
        total = g[t] if later is None else g[t] + later @ w
        later = xp.multiply(total, slope[t], out=dx[t])
    return dx


def _rnn_steps(m: Any, g: Any, slope: Any, w: Any) -> Any:
    dx: list[Any] = []
    for t in reversed(range(g.shape[0])):
        total = at(m, g, t)
        if dx:
            total = total + m.matmul(dx[-1], w)
        dx.append(total * at(m, slope, t))
    return stack(m, dx[::-1])


def _rnn_vjp(m: Any, g: Any, dx: Any, slope: Any, w: Any, rnn_g: Any) -> Any:
    wt = transposed(m, w)
    arrived: list[Any] = []  # at dx
    passed: list[Any] = []  # at the sum that the slope multiplies
    for t in range(dx.shape[0]):
        u = at(m, g, t)
        if passed:
            u = u + m.matmul(passed[-1], wt)
        arrived.append(u)
        passed.append(u * at(m, slope, t))
    later = after(m, dx)
    total = rnn_g + times(m, later, w)
    flow = stack(m, passed)
    return flow, stack(m, arrived) * total, outer(m, later, flow)


rnn_grad = define(
    "rnn_grad(rnn_g, slope, w) -> dx", type=_rnn_type, kernel=in_float32(_rnn_kernel),
    decompose=_rnn_steps, vjp=Joint(_rnn_vjp),
    traits=(LAID_ALIKE,),
    sample=(case((3, 2, 4), (3, 2, 4), (4, 4)), case((1, 2, 4), (1, 2, 4), (4, 4)),
            case((2, 0, 4), (2, 0, 4), (4, 4))),
    doc="Gradient of x in `rnn`: dx = (g + dx' · w) slope, where dx' is the next step's.",
)  # fmt: skip


# dy = g + e' w + dy' z with e' = (dy', dy', dy') k: primes are the next step's.


def _gru_type(g: TensorType, k: TensorType, z: TensorType, w: TensorType) -> TensorType:
    check(g, (k, z, w))
    time, batch, size = g.shape
    expect(k, (time, batch, 3 * size), "k")
    expect(z, g.shape, "z")
    expect(w, (3 * size, size), "w")
    return g


def _gru_kernel(xp: Any, g: Any, k: Any, z: Any, w: Any) -> Any:
    time, batch, size = g.shape
    dys = g.copy()
    gates = k.reshape(time, batch, 3, size)
    for t in reversed(range(time - 1)):
        later = dys[t + 1]
        dys[t] += (later[:, None] * gates[t + 1]).reshape(batch, 3 * size) @ w
        dys[t] += later * z[t + 1]
    return dys


def _gru_steps(m: Any, g: Any, k: Any, z: Any, w: Any) -> Any:
    dys: list[Any] = []
    for t in reversed(range(g.shape[0])):
        dy = at(m, g, t)
        if dys:
            e = repeated(m, dys[-1], 3) * at(m, k, t + 1)
            dy = dy + m.matmul(e, w) + dys[-1] * at(m, z, t + 1)
        dys.append(dy)
    return stack(m, dys[::-1])


def _gru_vjp(m: Any, g: Any, dys: Any, k: Any, z: Any, w: Any) -> Any:
    wt = transposed(m, w)
    flows: list[Any] = []
    for t in range(dys.shape[0]):
        u = at(m, g, t)
        if flows:
            u = u + _sum_gates(m, m.matmul(flows[-1], wt) * at(m, k, t), 3) + (
                flows[-1] * at(m, z, t)
            )  # fmt: skip
        flows.append(u)
    flow = stack(m, flows)
    earlier = since(m, flow)
    dy = repeated(m, dys, 3)
    return flow, times(m, earlier, wt) * dy, earlier * dys, outer(m, dy * k, earlier)


gru_grad = define(
    "gru_grad(gru_g, k, z, w) -> dys", type=_gru_type, kernel=in_float32(_gru_kernel),
    decompose=_gru_steps, vjp=Joint(_gru_vjp),
    sample=(case((3, 2, 3), (3, 2, 9), (3, 2, 3), (9, 3)),
            case((1, 2, 3), (1, 2, 9), (1, 2, 3), (9, 3)),
            case((2, 0, 3), (2, 0, 9), (2, 0, 3), (9, 3))),
    doc="Gradient of each state of `gru`: dy = g + ((dy', dy', dy') k') · w + dy' z', with the "
        "next step's dy', k', z'.",
)  # fmt: skip


# dy = g + e' w, r = dy (or dy w_hr), dc = g_cs + dc' f' + r a, e = (dc, dc, dc, r) k.


def _lstm_type(
    lstm_g: TensorType, g_cs: TensorType, a: TensorType, k: TensorType, f: TensorType,
    w: TensorType, w_hr: TensorType | None = None,
) -> tuple[TensorType, TensorType]:  # fmt: skip
    check(lstm_g, (g_cs, a, k, f, w) if w_hr is None else (g_cs, a, k, f, w, w_hr))
    time, batch, size = g_cs.shape
    out = lstm_g.shape[2]
    expect(lstm_g, (time, batch, out), "g")
    for known, what in ((a, "a"), (f, "f")):
        expect(known, g_cs.shape, what)
    expect(k, (time, batch, 4 * size), "k")
    expect(w, (4 * size, out), "w")
    if w_hr is not None:
        expect(w_hr, (out, size), "w_hr")
    return lstm_g, g_cs


def _lstm_kernel(
    xp: Any, lstm_g: Any, g_cs: Any, a: Any, k: Any, f: Any, w: Any, w_hr: Any = None
) -> Any:
    time, batch, size = g_cs.shape
    dys, dcs = lstm_g.copy(), g_cs.copy()
    gates = k.reshape(time, batch, 4, size)
    e = xp.empty((batch, 4, size), dtype=k.dtype)
    for t in reversed(range(time)):
        dy, dc = dys[t], dcs[t]
        if t + 1 < time:
            dy += e.reshape(batch, 4 * size) @ w
            dc += dcs[t + 1] * f[t + 1]
        raw = dy if w_hr is None else dy @ w_hr
        dc += raw * a[t]
        xp.multiply(dc[:, None], gates[t, :, :3], out=e[:, :3])
        xp.multiply(raw, gates[t, :, 3], out=e[:, 3])
    return dys, dcs


def _lstm_steps(
    m: Any, lstm_g: Any, g_cs: Any, a: Any, k: Any, f: Any, w: Any, w_hr: Any = None
) -> Any:
    dys: list[Any] = []
    dcs: list[Any] = []
    e: Any = None
    for t in reversed(range(g_cs.shape[0])):
        dy, dc = at(m, lstm_g, t), at(m, g_cs, t)
        if dys:
            dy = dy + m.matmul(e, w)
            dc = dc + dcs[-1] * at(m, f, t + 1)
        raw = dy if w_hr is None else m.matmul(dy, w_hr)
        dc = dc + raw * at(m, a, t)
        e = m.cat(dc, dc, dc, raw, dim=1) * at(m, k, t)
        dys.append(dy)
        dcs.append(dc)
    return stack(m, dys[::-1]), stack(m, dcs[::-1])


def _lstm_vjp(m: Any, g: Any, dys: Any, dcs: Any, a: Any, k: Any, f: Any, w: Any, w_hr: Any) -> Any:
    g_dys, g_dcs = g
    size = dcs.shape[2]
    wt = transposed(m, w)
    at_dy: list[Any] = []
    at_dc: list[Any] = []
    at_raw: list[Any] = []
    for t in range(dcs.shape[0]):
        u, v = at(m, g_dys, t), at(m, g_dcs, t)
        rho: Any = None
        if at_dy:
            v = v + at_dc[-1] * at(m, f, t)
            through = m.matmul(at_dy[-1], wt) * at(m, k, t)
            v = v + _sum_gates(m, part(m, through, 0, 3 * size), 3)
            rho = part(m, through, 3, size)
        rho = v * at(m, a, t) if rho is None else rho + v * at(m, a, t)
        u = u + (rho if w_hr is None else m.matmul(rho, transposed(m, w_hr)))
        at_dy.append(u)
        at_dc.append(v)
        at_raw.append(rho)
    u, v = stack(m, at_dy), stack(m, at_dc)
    u_before, v_before = since(m, u), since(m, v)
    raw = dys if w_hr is None else times(m, dys, w_hr)
    gates = m.cat(dcs, dcs, dcs, raw, dim=2)
    grads = (u, v, v * raw, times(m, u_before, wt) * gates, v_before * dcs,
             outer(m, gates * k, u_before))  # fmt: skip
    return grads if w_hr is None else (*grads, outer(m, dys, stack(m, at_raw)))


lstm_grad = define(
    "lstm_grad(lstm_g, g_cs, a, k, f, w, w_hr?) -> dys, dcs", type=_lstm_type,
    kernel=in_float32(_lstm_kernel), decompose=_lstm_steps, vjp=Joint(_lstm_vjp),
    sample=(case((3, 2, 3), (3, 2, 3), (3, 2, 3), (3, 2, 12), (3, 2, 3), (12, 3)),
            case((2, 2, 2), (2, 2, 3), (2, 2, 3), (2, 2, 12), (2, 2, 3), (12, 2), (2, 3)),
            case((2, 0, 3), (2, 0, 3), (2, 0, 3), (2, 0, 12), (2, 0, 3), (12, 3))),
    doc="Gradients of each output and cell of `lstm`: dy = g + e' · w, dc = g_cs + dc' f' + r a, "
        "with r = dy (· w_hr) and e = (dc, dc, dc, r) k; primes are the next step's.",
)  # fmt: skip
