"""Counter-based random numbers: the Philox4x32-10 generator and distributions on top of it.

Source of the generator: J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random
numbers: as easy as 1, 2, 3", SC 2011.  The key is the 64-bit seed; the 128-bit counter is
(block index low, block index high, tick low, tick high), each 32 bits.  Block ``i`` yields the
elements ``4 i .. 4 i + 3``, so an element depends on (seed, tick, index) alone and never on the
shape or on how the work is cut into pieces.

Every function takes ``xp``, the array module (``numpy`` or ``cupy``), and uses only integer and
bit operations, comparisons and the correctly rounded operations + - * / sqrt, each as an array
operation of its own (so nothing is contracted into a fused multiply-add).  Hence all array
modules give identical bits.  Arrays are one-dimensional.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy

_MASK32 = 0xFFFFFFFF
_MASK64 = 0xFFFFFFFFFFFFFFFF
_SHIFT32 = numpy.uint64(32)
_LOW32 = numpy.uint64(_MASK32)

# Multipliers and Weyl increments of Philox4x32 (Salmon et al. 2011, table 2 and section 3.3).
MULTIPLIER_0 = 0xD2511F53
MULTIPLIER_1 = 0xCD9E8D57
WEYL_0 = 0x9E3779B9
WEYL_1 = 0xBB67AE85
ROUNDS = 10

# Sizes found by measurement.  Up to 16 blocks Python integers are faster than array calls.  One
# host chunk needs 32 bytes of scratch a block, in all 1 MiB, the level-2 cache measured on; half
# of it costs 5 % more time, a quarter 20 %.  On a device a chunk only has to fill the machine.
_SCALAR_BLOCKS = 16
_HOST_CHUNK = 1 << 15
_DEVICE_CHUNK = 1 << 20

UNIFORM_BITS = {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 53}
_ONE_WORD_RANGE = 1 << 24

# Wichura, "Algorithm AS 241: the percentage points of the normal distribution", Applied
# Statistics 37 (1988) 477-484, routine PPND16; lowest degree first.
CENTRAL_NUMERATOR = (
    3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3,
    1.3731693765509461125e4, 4.5921953931549871457e4, 6.7265770927008700853e4,
    3.3430575583588128105e4, 2.5090809287301226727e3,
)  # fmt: skip
CENTRAL_DENOMINATOR = (
    1.0, 4.2313330701600911252e1, 6.8718700749205790830e2,
    5.3941960214247511077e3, 2.1213794301586595867e4, 3.9307895800092710610e4,
    2.8729085735721942674e4, 5.2264952788528545610e3,
)  # fmt: skip
MIDDLE_NUMERATOR = (
    1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0,
    3.64784832476320460504e0, 1.27045825245236838258e0, 2.41780725177450611770e-1,
    2.27238449892691845833e-2, 7.74545014278341407640e-4,
)  # fmt: skip
MIDDLE_DENOMINATOR = (
    1.0, 2.05319162663775882187e0, 1.67638483018380384940e0,
    6.89767334985100004550e-1, 1.48103976427480074590e-1, 1.51986665636164571966e-2,
    5.47593808499534494600e-4, 1.05075007164441684324e-9,
)  # fmt: skip
FAR_NUMERATOR = (
    6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0,
    2.96560571828504891230e-1, 2.65321895265761230930e-2, 1.24266094738807843860e-3,
    2.71155556874348757815e-5, 2.01033439929228813265e-7,
)  # fmt: skip
FAR_DENOMINATOR = (
    1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1,
    1.48753612908506148525e-2, 7.86869131145613259100e-4, 1.84631831751005468180e-5,
    1.42151175831644588870e-7, 2.04426310338993978564e-15,
)  # fmt: skip

# log(m) = 2 s (1 + s^2/3 + s^4/5 + ...) with s = (m - 1)/(m + 1); |s| < 0.1716 leaves 3e-18.
ATANH_SERIES = tuple(1.0 / (2 * power + 1) for power in range(12))
LOG_2 = 0.6931471805599453


def _round_keys(seed: int) -> list[tuple[int, int]]:
    """Return the two 32-bit key words of each of the ten rounds."""
    low, high = seed & _MASK32, (seed >> 32) & _MASK32
    return [
        ((low + step * WEYL_0) & _MASK32, (high + step * WEYL_1) & _MASK32)
        for step in range(ROUNDS)
    ]


def _scalar_blocks(seed: int, tick: int, first_block: int, blocks: int) -> list[int]:
    """Return the 4 * blocks words from block ``first_block`` on, by Python integers."""
    keys = _round_keys(seed)
    words: list[int] = []
    for block in range(first_block, first_block + blocks):
        word_0, word_1, word_2, word_3 = block & _MASK32, block >> 32, tick & _MASK32, tick >> 32
        for key_0, key_1 in keys:
            product_0 = word_0 * MULTIPLIER_0
            product_1 = word_2 * MULTIPLIER_1
            word_0, word_1 = (product_1 >> 32) ^ word_1 ^ key_0, product_1 & _MASK32
            word_2, word_3 = (product_0 >> 32) ^ word_3 ^ key_1, product_0 & _MASK32
        words += (word_0, word_1, word_2, word_3)
    return words


def _first_two_rounds(
    xp: Any, keys: Sequence[tuple[int, int]], tick: int, block: int, state: Any, scratch: Any
) -> None:
    """Put the state after two rounds into ``state``, uint64 (2, n), for blocks block ... + n - 1.

    The high half of the block index and the tick are the same for the whole chunk, so most of
    these rounds is done once, on Python integers.  ``scratch`` is uint64 (n,).
    """
    upper, lower = state
    tick_low, tick_high = tick & _MASK32, tick >> 32
    (key_0, key_1), (next_key_0, next_key_1) = keys[0], keys[1]
    fixed_upper = (MULTIPLIER_1 * tick_low) ^ (((block >> 32) ^ key_0) << 32)
    fixed_lower = (tick_high ^ key_1) << 32
    low_index = block & _MASK32
    scratch[...] = xp.arange(low_index, low_index + scratch.shape[0], dtype=xp.uint64)
    xp.multiply(scratch, numpy.uint64(MULTIPLIER_0), out=scratch)
    xp.bitwise_xor(scratch, numpy.uint64(fixed_lower), out=scratch)
    xp.right_shift(scratch, _SHIFT32, out=upper)
    xp.multiply(upper, numpy.uint64(MULTIPLIER_1), out=upper)
    mixed = ((fixed_upper & _MASK32) ^ next_key_0) << 32
    xp.bitwise_xor(upper, numpy.uint64(mixed), out=upper)
    xp.left_shift(scratch, _SHIFT32, out=lower)
    mixed = (MULTIPLIER_0 * (fixed_upper >> 32)) ^ (next_key_1 << 32)
    xp.bitwise_xor(lower, numpy.uint64(mixed), out=lower)


def _array_blocks(xp: Any, seed: int, tick: int, first_block: int, blocks: int) -> Any:
    """Return the 4 * blocks words from block ``first_block`` on as uint32, by array operations.

    The four words of a block are kept as two 64-bit numbers, (word 0, word 1) and (word 2,
    word 3), first word on top.  With p = multiplier * (number >> 32), a round is then
    number' = p of the other number ^ (number << 32) ^ (round key << 32).
    """
    output = xp.empty((blocks, 2), dtype="<u8")
    keys = _round_keys(seed)
    shifted_keys = xp.array(keys, dtype=xp.uint64).reshape(ROUNDS, 2, 1) << _SHIFT32
    multipliers = xp.array([[MULTIPLIER_0], [MULTIPLIER_1]], dtype=xp.uint64)
    chunk = min(blocks, _HOST_CHUNK if xp is numpy else _DEVICE_CHUNK)
    buffers = xp.empty((2, 2, chunk), dtype=xp.uint64)
    done = 0
    while done < blocks:
        block = (first_block + done) & _MASK64
        size = min(chunk, blocks - done, (1 << 32) - (block & _MASK32))
        state, products = buffers[0, :, :size], buffers[1, :, :size]
        swapped = products[::-1]
        _first_two_rounds(xp, keys, tick, block, state, products[0])
        for step in range(2, ROUNDS):
            xp.right_shift(state, _SHIFT32, out=products)
            xp.multiply(products, multipliers, out=products)
            xp.left_shift(state, _SHIFT32, out=state)
            xp.bitwise_xor(state, shifted_keys[step], out=state)
            xp.bitwise_xor(state, swapped, out=state)
        xp.right_shift(state, _SHIFT32, out=products)
        xp.left_shift(state, _SHIFT32, out=state)
        xp.bitwise_or(state, products, out=output[done : done + size].T)
        done += size
    return output.view("<u4").reshape(-1)


def _checked_key(seed: int, tick: int, count: int) -> int:
    """Return the seed modulo 2**64; raise ValueError for what ``random_bits`` refuses."""
    if not -(1 << 63) <= seed < 1 << 64:
        raise ValueError(f"seed must lie in [-2**63, 2**64), got {seed}")
    if not 0 <= tick < 1 << 64:
        raise ValueError(f"tick must lie in [0, 2**64), got {tick}")
    if count < 0:
        raise ValueError(f"count must not be negative, got {count}")
    return seed & _MASK64


def random_bits(xp: Any, seed: int, tick: int, count: int) -> Any:
    """Return ``count`` random 32-bit words as a uint32 array of shape (count,).

    ``seed`` lies in [-2**63, 2**64), where a negative one means its value modulo 2**64, and
    ``tick``, the number of the draw, in [0, 2**64).

    Raises:
        ValueError: seed or tick out of range, or count negative.
    """
    key = _checked_key(seed, tick, count)
    blocks = -(-count // 4)
    if blocks <= _SCALAR_BLOCKS:
        return xp.array(_scalar_blocks(key, tick, 0, blocks)[:count], dtype=xp.uint32)
    return _array_blocks(xp, key, tick, 0, blocks)[:count]


def _word_pairs(xp: Any, bits: Any) -> Any:
    """Join words 2 i (low half) and 2 i + 1 (high half) of uint32 (2 n,) to uint64 (n,).

    The result may share memory with ``bits``.  Raises ValueError if the number of words is odd.
    """
    if bits.shape[0] % 2:
        raise ValueError(f"an even number of words is needed, got {bits.shape[0]}")
    return xp.ascontiguousarray(bits, dtype="<u4").view("<u8")


def _dtype_name(dtype: Any) -> str:
    """Return the name of a supported floating type; raise TypeError for another type."""
    name = str(numpy.dtype(dtype).name)
    if name not in UNIFORM_BITS:
        raise TypeError(f"expected one of {', '.join(UNIFORM_BITS)}, got {name}")
    return name


def words_per_uniform(dtype: Any) -> int:
    """Return how many 32-bit words ``uniform`` and ``normal`` take per element: 2 for float64.

    Raises:
        TypeError: ``dtype`` is not float16, bfloat16 (of ml_dtypes), float32 or float64.
    """
    return 2 if _dtype_name(dtype) == "float64" else 1


def uniform(xp: Any, bits: Any, dtype: Any) -> Any:
    """Turn uint32 words of shape (n * words_per_uniform(dtype),) into n numbers in [0, 1).

    The values are the multiples of 2**-b, all equally likely, with b = 11 for float16, 8 for
    bfloat16, 24 for float32 and 53 for float64: the top b bits of the word or pair of words.

    Raises:
        TypeError: ``dtype`` is not one of these.
        ValueError: an odd number of words for float64.
    """
    name = _dtype_name(dtype)
    kept = UNIFORM_BITS[name]
    scale = 2.0**-kept
    if name == "float64":
        words = _word_pairs(xp, bits) >> numpy.uint64(64 - kept)
        result = words.view(xp.int64).astype(xp.float64)
        result *= numpy.float64(scale)
        return result
    words = bits >> numpy.uint32(32 - kept)
    result = words.view(xp.int32).astype(xp.float32)
    result *= numpy.float32(scale)
    return result if name == "float32" else result.astype(dtype)


def _horner(xp: Any, coefficients: Sequence[float], argument: Any) -> Any:
    """Evaluate a polynomial, lowest degree first, by separate multiplications and additions."""
    result = argument * coefficients[-1]
    for coefficient in coefficients[-2:0:-1]:
        result += coefficient
        xp.multiply(result, argument, out=result)
    result += coefficients[0]
    return result


def _logarithm(xp: Any, values: Any) -> Any:
    """Return log of normal positive float64 numbers, by correctly rounded operations only.

    The exponent is taken from the bits; the mantissa, brought to [sqrt(1/2), sqrt(2)), goes
    through the series of the inverse hyperbolic tangent.  Error below 2e-16 relative for the
    arguments used here (values <= 0.075).
    """
    raw = values.view(xp.int64)
    # Adding the distance from sqrt(1/2) to 1 in bits moves the split between exponents there.
    exponent = ((raw + (0x3FF0000000000000 - 0x3FE6A09E667F3BCD)) >> 52) - 1023
    mantissa = (raw - (exponent << 52)).view(xp.float64)
    ratio = (mantissa - 1.0) / (mantissa + 1.0)
    series = _horner(xp, ATANH_SERIES, ratio * ratio)
    series *= ratio
    series += series
    return exponent.astype(xp.float64) * LOG_2 + series


def _normal_tail(xp: Any, probability: Any) -> Any:
    """Return the positive z with upper tail ``probability``, float64 in [2**-54, 0.075]."""
    distance = xp.sqrt(-_logarithm(xp, probability))
    shifted = distance - 1.6
    result = _horner(xp, MIDDLE_NUMERATOR, shifted) / _horner(xp, MIDDLE_DENOMINATOR, shifted)
    far = xp.flatnonzero(distance > 5.0)
    if far.size:
        shifted = distance[far] - 5.0
        result[far] = _horner(xp, FAR_NUMERATOR, shifted) / _horner(xp, FAR_DENOMINATOR, shifted)
    return result


def _normal_quantile(xp: Any, offset: Any) -> Any:
    """Return the standard normal quantile of probability 1/2 + offset, float64 (n,).

    Needs 2**-54 <= 1/2 - |offset|.  Method: Wichura's AS 241 (1988), relative error about 1e-16
    beyond rounding.
    """
    argument = offset * offset
    xp.subtract(0.180625, argument, out=argument)
    result = _horner(xp, CENTRAL_NUMERATOR, argument)
    result *= offset
    result /= _horner(xp, CENTRAL_DENOMINATOR, argument)
    outer = xp.flatnonzero(argument < 0.0)
    if outer.size:
        selected = offset[outer]
        result[outer] = xp.copysign(_normal_tail(xp, 0.5 - xp.abs(selected)), selected)
    return result


def _pieces(xp: Any, count: int) -> Iterator[slice]:
    """Cut range(count) into slices whose temporaries stay in the cache of the machine."""
    size = _HOST_CHUNK if xp is numpy else _DEVICE_CHUNK
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def normal(xp: Any, bits: Any, dtype: Any) -> Any:
    """Turn uint32 words of shape (n * words_per_uniform(dtype),) into n standard normals.

    The number is the normal quantile at the centre of the cell that the word names: 2**32 cells
    for one word, 2**53 (the top bits of a pair) for float64; computed in float64, then rounded
    to float32 and from there to float16 or bfloat16.  It grows with the word, |z| <= 6.4 for
    one word and <= 8.3 for two.

    Raises:
        TypeError: ``dtype`` is not one of these.
        ValueError: an odd number of words for float64.
    """
    name = _dtype_name(dtype)
    if name == "float64":
        # The pair minus half its range is a signed number, whose top 53 bits name the cell.
        signed = (_word_pairs(xp, bits) ^ numpy.uint64(1 << 63)).view(xp.int64) >> 11
        cell = 2.0**-53
    else:
        signed = (bits ^ numpy.uint32(1 << 31)).view(xp.int32)
        cell = 2.0**-32
    result = xp.empty(signed.shape, dtype=xp.float64 if name == "float64" else xp.float32)
    for piece in _pieces(xp, signed.shape[0]):
        offset = signed[piece].astype(xp.float64)
        offset += 0.5
        offset *= cell
        result[piece] = _normal_quantile(xp, offset)
    return result if name in ("float32", "float64") else result.astype(dtype)


def words_per_integer(low: int, high: int) -> int:
    """Return how many 32-bit words ``random_integers`` takes: 2 if high - low exceeds 2**24.

    Raises:
        ValueError: not -2**63 <= low < high <= 2**63.
    """
    if not -(1 << 63) <= low < high <= 1 << 63:
        raise ValueError(f"need -2**63 <= low < high <= 2**63, got low={low} and high={high}")
    return 2 if high - low > _ONE_WORD_RANGE else 1


def random_integers(xp: Any, bits: Any, low: int, high: int) -> Any:
    """Turn uint32 words of shape (n * words_per_integer(low, high),) into n integers, int64.

    The integers lie in [low, high).  With r = high - low and w random bits (32 or 64) the result
    is low + floor(bits * r / 2**w).  The probability of each value is within 2**-w of 1/r: a
    relative error below r / 2**w, and none where r is a power of two.  That is at most 2**-8
    for one word (2**-16 up to r = 2**16) and 2**-32 for two words up to r = 2**32; ranges close
    to 2**64 are coarse, some values being twice as probable as others.

    Raises:
        ValueError: not -2**63 <= low < high <= 2**63, or an odd number of words where two are
            taken.
    """
    span = high - low
    one_word = words_per_integer(low, high) == 1
    words = bits if one_word else _word_pairs(xp, bits)
    result = xp.empty(words.shape, dtype=xp.uint64)
    for piece in _pieces(xp, words.shape[0]):
        if one_word:
            scaled = words[piece].astype(xp.uint64)
            scaled *= numpy.uint64(span)
            scaled >>= _SHIFT32
        elif span == 1 << 64:
            scaled = words[piece]
        else:
            scaled = _multiply_high(words[piece], span)
        xp.add(scaled, numpy.uint64(low & _MASK64), out=result[piece])
    return result.view(xp.int64)


def _multiply_high(values: Any, factor: int) -> Any:
    """Return the top 64 bits of the 128-bit products of uint64 (n,) and 0 <= factor < 2**64."""
    factor_low, factor_high = numpy.uint64(factor & _MASK32), numpy.uint64(factor >> 32)
    low, high = values & _LOW32, values >> _SHIFT32
    middle = (low * factor_low >> _SHIFT32) + high * factor_low
    carry = (middle & _LOW32) + low * factor_high
    return high * factor_high + (middle >> _SHIFT32) + (carry >> _SHIFT32)


def permutation(xp: Any, seed: int, tick: int, n: int) -> Any:
    """Return a random order of 0 .. n - 1 as int64 (n,): the stable argsort of 64-bit keys.

    Two keys coincide with probability below n**2 / 2**65; such a pair stays in order.

    Raises:
        ValueError: seed, tick or n out of the range that ``random_bits`` states for count.
    """
    _checked_key(seed, tick, n)
    keys = _word_pairs(xp, random_bits(xp, seed, tick, 2 * n))
    return xp.argsort(keys, kind="stable").astype(xp.int64, copy=False)
