"""atan, atan2, asin, acos: an odd polynomial on a short interval, and complements beyond."""

from __future__ import annotations

import math

from tracegraph.runtime.cpu.code.elementary.coefficients import ASIN, ATAN, HALF_PI
from tracegraph.runtime.cpu.code.elementary.floats import flip_sign, polynomial, sign_of
from tracegraph.runtime.cpu.code.scalars import Emitter
from tracegraph.runtime.cpu.code.values import Value


def _angle(m: Emitter, opposite: Value, adjacent: Value, left: Value | None = None) -> Value:
    """Return the angle, in [0, pi], of a point with these distances from the axes.

    At most pi / 4 comes from the polynomial, the rest is added in two words. `left` says where
    the angle is obtuse.
    """
    steep = opposite > adjacent
    shorter, longer = m.where(steep, adjacent, opposite), m.where(steep, opposite, adjacent)
    t = shorter / longer
    square = t * t
    tail = polynomial(m, ATAN[t.dtype], square) * (square * t)
    high, low = HALF_PI[t.dtype]
    base, base_low = (
        m.where(steep, m.constant(high, t.dtype), 0.0),
        m.where(steep, m.constant(low, t.dtype), 0.0),
    )
    down = steep
    if left is not None:
        flat = m.where(left, m.constant(2 * high, t.dtype), 0.0)
        flat_low = m.where(left, m.constant(2 * low, t.dtype), 0.0)
        base, base_low = m.where(steep, base, flat), m.where(steep, base_low, flat_low)
        down = steep ^ left
    t, tail = m.where(down, -t, t), m.where(down, -tail, tail)
    return base + (t + (tail + base_low))


def atan(m: Emitter, x: Value) -> Value:
    """Arc tangent."""
    return flip_sign(m, _angle(m, m.abs(x), m.constant(1.0, x.dtype)), sign_of(m, x))


def atan2(m: Emitter, y: Value, x: Value) -> Value:
    """Angle of the point (x, y), with the signs of zeros, as IEEE 754 has it."""
    opposite, adjacent = m.abs(y), m.abs(x)
    infinite = (opposite == math.inf) & (adjacent == math.inf)
    origin = (opposite == 0.0) & (adjacent == 0.0)
    opposite = m.where(infinite, 1.0, opposite)
    adjacent = m.where(infinite | origin, 1.0, adjacent)
    return flip_sign(m, _angle(m, opposite, adjacent, m.signbit(x)), sign_of(m, y))


def _asin_parts(m: Emitter, x: Value) -> tuple[Value, Value, Value]:
    """Return whether |x| > 1/2, and then s = sqrt((1 − |x|) / 2), else |x|, and asin(s) − s."""
    a = m.abs(x)
    far = a > 0.5
    square = m.where(far, 0.5 - 0.5 * a, a * a)
    s = m.where(far, m.sqrt(square), a)
    return far, s, polynomial(m, ASIN[x.dtype], square) * (square * s)


def asin(m: Emitter, x: Value) -> Value:
    """Arc sine; NaN outside [−1, 1]."""
    far, s, tail = _asin_parts(m, x)
    high, low = HALF_PI[x.dtype]
    value = m.where(far, high - (2.0 * s + (2.0 * tail - low)), s + tail)
    return flip_sign(m, value, sign_of(m, x))


def acos(m: Emitter, x: Value) -> Value:
    """Arc cosine; NaN outside [−1, 1]."""
    far, s, tail = _asin_parts(m, x)
    high, low = HALF_PI[x.dtype]
    sign = sign_of(m, x)
    near = high - (flip_sign(m, s, sign) + (flip_sign(m, tail, sign) - low))
    sum_ = s + tail
    beyond = m.where(x < 0.0, 2.0 * (high - (sum_ - low)), 2.0 * sum_)
    return m.where(far, beyond, near)
