"""What random words become, in the scalar language: bit for bit what `tracegraph.philox` gives.

No multiplication and addition is contracted: each is rounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tracegraph import philox
from tracegraph.dtypes import DType, float32, float64, int32, int64, uint32, uint64
from tracegraph.runtime.cpu.code.scalars import Emitter
from tracegraph.runtime.cpu.code.storage import cast
from tracegraph.runtime.cpu.code.values import Value

_MASK32: Final = 0xFFFFFFFF
_SIGN: Final = -(1 << 63)
# From sqrt(1/2) to 1 in the bits of a float64.
_TO_ONE: Final = 0x3FF0000000000000 - 0x3FE6A09E667F3BCD
_SPLIT: Final = 0.180625
_FAR: Final = 5.0


def uniform(m: Emitter, bits: Value, dtype: DType) -> Value:
    """Return numbers in [0, 1) in the compute dtype of `dtype`."""
    kept = philox.UNIFORM_BITS[dtype.name]
    if bits.dtype is uint64:
        return m.convert("sitofp", m.view(bits >> (64 - kept), int64), float64) * 2.0**-kept
    return m.convert("sitofp", m.view(bits >> (32 - kept), int32), float32) * 2.0**-kept


def integers(m: Emitter, bits: Value, low: Value, span: Value, dtype: DType) -> Value:
    """Return integers in [low, low + span): low + (bits * span) / 2^32, or 2^64."""
    return cast(m, m.view(_scaled(m, bits, span) + low, int64), dtype)


def _scaled(m: Emitter, bits: Value, span: Value) -> Value:
    if bits.dtype is uint32:
        return m.convert("zext", bits, uint64) * span >> 32
    mask = m.constant(_MASK32, uint64)
    bits_low, bits_high, span_low, span_high = bits & mask, bits >> 32, span & mask, span >> 32
    middle = (bits_low * span_low >> 32) + bits_high * span_low
    carry = (middle & mask) + bits_low * span_high
    return bits_high * span_high + (middle >> 32) + (carry >> 32)


def normal(m: Emitter, bits: Value, dtype: DType) -> tuple[Value, Value, Value]:
    """Return normal numbers as if all were central, which of them are not, and their offsets.

    The offset is what the probability of the centre of a cell is more than a half, float64.
    """
    if bits.dtype is uint64:
        signed, cell = (m.view(bits, int64) ^ _SIGN) >> 11, 2.0**-53
    else:
        signed, cell = m.view(bits, int32) ^ -(1 << 31), 2.0**-32
    offset = (m.convert("sitofp", signed, float64) + 0.5) * cell
    argument = _SPLIT - offset * offset
    central = _horner(philox.CENTRAL_NUMERATOR, argument) * offset
    central = central / _horner(philox.CENTRAL_DENOMINATOR, argument)
    return _rounded(m, central, dtype), argument < 0.0, offset


def outer_normal(m: Emitter, offset: Value, dtype: DType) -> Value:
    """Return the normal numbers of offsets that are not central."""
    distance = m.sqrt(-_logarithm(m, 0.5 - m.abs(offset)))
    found = _quotient(philox.MIDDLE_NUMERATOR, philox.MIDDLE_DENOMINATOR, distance - 1.6)
    if dtype is float64:  # cells of 32 bits are never so far

        def far() -> list[Value]:
            return [_quotient(philox.FAR_NUMERATOR, philox.FAR_DENOMINATOR, distance - _FAR)]

        (found,) = m.repaired(distance > _FAR, [found], far)
    return _rounded(m, m.copysign(found, offset), dtype)


def _rounded(m: Emitter, x: Value, dtype: DType) -> Value:
    return x if dtype is float64 else m.convert("fptrunc", x, float32)


def _quotient(numerator: Sequence[float], denominator: Sequence[float], x: Value) -> Value:
    return _horner(numerator, x) / _horner(denominator, x)


def _logarithm(m: Emitter, x: Value) -> Value:
    """Return log of normal positive numbers: the exponent, and the series of atanh."""
    raw = m.view(x, int64)
    exponent = (raw + _TO_ONE >> 52) - 1023
    mantissa = m.view(raw - (exponent << 52), float64)
    ratio = (mantissa - 1.0) / (mantissa + 1.0)
    series = _horner(philox.ATANH_SERIES, ratio * ratio) * ratio
    whole = m.convert("sitofp", m.convert("trunc", exponent, int32), float64)
    return whole * philox.LOG_2 + (series + series)


def _horner(coefficients: Sequence[float], x: Value) -> Value:
    result = x * coefficients[-1]
    for coefficient in coefficients[-2:0:-1]:
        result = (result + coefficient) * x
    return result + coefficients[0]
