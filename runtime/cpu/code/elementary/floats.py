"""Steps that most elementary functions share: polynomials, powers of two, two-word arithmetic.

Sources: W. J. Cody and W. Waite, Software Manual for the Elementary Functions (1980);
T. J. Dekker, A floating-point technique for extending the available precision (1971);
J.-M. Muller et al., Handbook of Floating-Point Arithmetic (2018), chapters 4 and 10.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from tracegraph.dtypes import DType, float32, float64, int32, int64, uint32, uint64
from tracegraph.runtime.cpu.code.scalars import Emitter
from tracegraph.runtime.cpu.code.values import Value


class Format(NamedTuple):
    """How the bits of a float are laid out, and integers of its size."""

    mantissa: int  # stored bits of the significand
    bias: int  # of the exponent
    unsigned: DType
    signed: DType

    @property
    def smallest_normal(self) -> float:
        """The smallest number with a full significand."""
        return 2.0 ** (1 - self.bias)

    @property
    def shifter(self) -> float:
        """1.5 · 2^mantissa: x + shifter has the nearest integer of x in its lowest bits."""
        return 1.5 * 2.0**self.mantissa

    @property
    def shifter_bits(self) -> int:
        """The bits of `shifter`."""
        return ((self.bias + self.mantissa) << self.mantissa) | (1 << (self.mantissa - 1))

    @property
    def sign_bit(self) -> int:
        """The mask of the sign."""
        return 1 << (8 * self.unsigned.itemsize - 1)


FORMATS: Final = {
    float32: Format(23, 127, uint32, int32),
    float64: Format(52, 1023, uint64, int64),
}


def polynomial(m: Emitter, coefficients: Sequence[float], x: Value) -> Value:
    """Evaluate a polynomial, lowest degree first, by Horner's rule."""
    result = m.constant(coefficients[-1], x.dtype)
    for coefficient in coefficients[-2::-1]:
        result = m.fma(result, x, coefficient)
    return result


def bits_of(m: Emitter, x: Value) -> Value:
    """Return the bits of a float as an unsigned integer."""
    return m.view(x, FORMATS[x.dtype].unsigned)


def sign_of(m: Emitter, x: Value) -> Value:
    """Return the sign bit of a float, the others 0, as an unsigned integer."""
    return bits_of(m, x) & FORMATS[x.dtype].sign_bit


def flip_sign(m: Emitter, x: Value, sign: Value) -> Value:
    """Return −x where the sign bit of an unsigned integer is set; its others must be 0."""
    return m.view(bits_of(m, x) ^ sign, x.dtype)


def nearest_integer(m: Emitter, x: Value, factor: float) -> tuple[Value, Value]:
    """Return the integer k nearest to x · factor, and unsigned bits whose lowest ones are k's.

    For |k| < 2^(mantissa − 1); what comes out for others is of no use, but defined.
    """
    shifter = FORMATS[x.dtype].shifter
    shifted = m.fma(x, factor, shifter)
    return shifted - shifter, bits_of(m, shifted)


def power_of_two(m: Emitter, bits: Value, dtype: DType, less: int = 0) -> Value:
    """Return 2^(k − less), a normal number, from the bits that `nearest_integer` gave with k."""
    form = FORMATS[dtype]
    return m.view((bits + (form.bias - less)) << form.mantissa, dtype)


def scaled(m: Emitter, x: Value, bits: Value, less: int = 0) -> Value:
    """Return x · 2^(k − less), rounded once, from the bits that `nearest_integer` gave with k.

    Overflow and subnormal results are right for |k| up to twice the largest exponent.
    """
    form = FORMATS[x.dtype]
    if m.library.abilities.scaling:
        power = m.view(bits - (form.shifter_bits + less), form.signed)
        return m.intrinsic("ldexp", x.dtype, x, power, overloads=(x.dtype, form.signed))
    biased = bits - (form.shifter_bits + less - 2 * form.bias)
    half = biased >> 1
    first, second = half << form.mantissa, (biased - half) << form.mantissa
    return x * m.view(first, x.dtype) * m.view(second, x.dtype)


def fast_two_sum(m: Emitter, x: Value, y: Value) -> tuple[Value, Value]:
    """Return x + y and its rounding error, for |x| >= |y| or x = 0."""
    total = x + y
    return total, y - (total - x)


def two_sum(m: Emitter, x: Value, y: Value) -> tuple[Value, Value]:
    """Return x + y and its rounding error (Knuth)."""
    total = x + y
    part = total - x
    return total, (x - (total - part)) + (y - part)


def _halves(x: Value) -> tuple[Value, Value]:
    """Split x into two words of half the digits (Veltkamp); x far from overflow."""
    big = x * (2.0 ** (12 if x.dtype is float32 else 27) + 1)
    high = big - (big - x)
    return high, x - high


def two_product(m: Emitter, x: Value, y: Value) -> tuple[Value, Value]:
    """Return x · y and its rounding error (Dekker; FMA where the target has it)."""
    product = x * y
    if m.library.abilities.fma:
        return product, m.fma(x, y, -product)
    (a, b), (c, d) = _halves(x), _halves(y)
    return product, ((a * c - product) + a * d + b * c) + b * d
