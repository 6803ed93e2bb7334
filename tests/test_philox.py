"""The generator against published vectors; the distributions against theory and stored values."""

from __future__ import annotations

from types import ModuleType

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracegraph import philox

HALVES = (np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16))
COUNT = 1 << 19


@pytest.fixture(params=["numpy", pytest.param("cupy", marks=pytest.mark.gpu)])
def xp(request: pytest.FixtureRequest) -> ModuleType:
    return pytest.importorskip(request.param)


def host(array: object) -> np.ndarray:
    """Copy to NumPy an array of either module."""
    return array.get() if hasattr(array, "get") else array


def words(values: list[int] | np.ndarray) -> np.ndarray:
    """Split 64-bit numbers into pairs of 32-bit words, low word first."""
    return np.array(values, dtype=np.uint64).view(np.uint32)


# Known-answer vectors of Random123 (D. E. Shaw Research), file kat_vectors, philox4x32 10:
# counter (block index, tick), key, result.
KNOWN = [
    (0, 0, 0, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    (2**64 - 1, 2**64 - 1, 2**64 - 1, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (
        0x85A308D3243F6A88,
        0x0370734413198A2E,
        0x299F31D0A4093822,
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]


@pytest.mark.parametrize(("block", "tick", "seed", "expected"), KNOWN)
def test_known_answers(xp: ModuleType, block: int, tick: int, seed: int, expected: str) -> None:
    answer = [int(word, 16) for word in expected.split()]
    assert philox._scalar_blocks(seed, tick, block, 1) == answer
    assert host(philox._array_blocks(xp, seed, tick, block, 1)).tolist() == answer


@pytest.mark.parametrize("count", [0, 1, 3, 4, 63, 64, 65, 1001])
def test_random_bits_do_not_depend_on_the_count(xp: ModuleType, count: int) -> None:
    bits = host(philox.random_bits(xp, 42, 7, count))
    assert bits.dtype == np.uint32 and bits.shape == (count,)
    assert bits.tolist() == philox._scalar_blocks(42, 7, 0, 251)[:count]


def test_chunks_fit_together(monkeypatch: pytest.MonkeyPatch) -> None:
    first = (1 << 32) - 5  # the low half of the block index wraps within the range
    expected = philox._scalar_blocks(3, 1 << 40, first, 23)
    monkeypatch.setattr(philox, "_HOST_CHUNK", 7)
    assert philox._array_blocks(np, 3, 1 << 40, first, 23).tolist() == expected
    bits = philox.random_bits(np, 9, 0, 100)
    draws = [philox.normal(np, bits, "float64"), philox.random_integers(np, bits, 0, 1 << 60)]
    monkeypatch.undo()
    assert draws[0].tolist() == philox.normal(np, bits, "float64").tolist()
    assert draws[1].tolist() == philox.random_integers(np, bits, 0, 1 << 60).tolist()


@given(
    seed=st.integers(-(1 << 63), (1 << 64) - 1),
    tick=st.integers(0, (1 << 64) - 1),
    blocks=st.integers(0, 40),
    first=st.integers(0, (1 << 64) - 1),
)
def test_array_path_equals_scalar_path(seed: int, tick: int, blocks: int, first: int) -> None:
    blocks = min(blocks, (1 << 64) - first)
    key = seed % (1 << 64)
    expected = philox._scalar_blocks(key, tick, first, blocks)
    assert philox._array_blocks(np, key, tick, first, blocks).tolist() == expected
    assert philox.random_bits(np, seed, tick, 5).tolist() == (
        philox.random_bits(np, key, tick, 80)[:5].tolist()
    )


def test_streams_differ_and_bits_are_balanced(xp: ModuleType) -> None:
    first = host(philox.random_bits(xp, 1, 1, COUNT))
    for seed, tick in ((2, 1), (1, 2), (1 | 1 << 32, 1), (1, 1 | 1 << 32)):
        other = host(philox.random_bits(xp, seed, tick, COUNT))
        assert np.mean(first == other) < 1e-4
        ones = np.unpackbits((first ^ other).view(np.uint8))
        assert abs(ones.mean() - 0.5) < 5 * 0.5 / ones.size**0.5


@pytest.mark.parametrize(
    ("seed", "tick", "count"),
    [(1 << 64, 0, 1), (-(1 << 63) - 1, 0, 1), (0, -1, 1), (0, 1 << 64, 1), (0, 0, -1)],
)
def test_arguments_out_of_range(seed: int, tick: int, count: int) -> None:
    with pytest.raises(ValueError, match="must"):
        philox.random_bits(np, seed, tick, count)
    with pytest.raises(ValueError, match="must"):
        philox.permutation(np, seed, tick, count)


@pytest.mark.parametrize("dtype", [np.int32, np.complex128, np.bool_])
def test_other_types_are_refused(dtype: type) -> None:
    for function in (philox.uniform, philox.normal):
        with pytest.raises(TypeError, match="expected one of float16"):
            function(np, np.zeros(4, np.uint32), dtype)


def test_an_odd_number_of_words_is_refused() -> None:
    odd = np.zeros(3, np.uint32)
    for call in (philox.uniform, philox.normal):
        with pytest.raises(ValueError, match="even"):
            call(np, odd, np.float64)
    with pytest.raises(ValueError, match="even"):
        philox.random_integers(np, odd, 0, 1 << 40)


@pytest.mark.parametrize(
    ("dtype", "step"), [(HALVES[0], 11), (HALVES[1], 8), (np.float32, 24), (np.float64, 53)]
)
def test_uniform_ends_and_steps(dtype: np.dtype, step: int) -> None:
    count = philox.words_per_uniform(dtype)
    assert count == (2 if step == 53 else 1)
    top = 1 << (32 * count - 1)
    cell = 1 << (32 * count - step)
    raw = [0, cell - 1, cell, top, 2 * top - 1]
    bits = words(raw) if count == 2 else np.array(raw, np.uint32)
    values = philox.uniform(np, bits, dtype)
    assert values.dtype == dtype
    expected = [0.0, 0.0, 2.0**-step, 0.5, 1 - 2.0**-step]
    assert values.astype(np.float64).tolist() == expected


@pytest.mark.parametrize("dtype", [*HALVES, np.float32, np.float64])
def test_uniform_moments(dtype: np.dtype) -> None:
    bits = philox.random_bits(np, 11, 5, COUNT * philox.words_per_uniform(dtype))
    values = philox.uniform(np, bits, dtype).astype(np.float64)
    offset = 2.0 ** -{2: 8, 4: 24, 8: 53}[np.dtype(dtype).itemsize] / 2
    noise = 5 / COUNT**0.5
    assert abs(values.mean() - 0.5) < noise * 0.289 + offset
    assert abs(values.var() - 1 / 12) < noise * 0.0745 + offset
    assert values.min() >= 0 and values.max() < 1
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < noise


@pytest.mark.parametrize("dtype", [*HALVES, np.float32, np.float64])
def test_normal_moments(dtype: np.dtype) -> None:
    bits = philox.random_bits(np, 12, 6, COUNT * philox.words_per_uniform(dtype))
    values = philox.normal(np, bits, dtype)
    assert values.dtype == dtype and values.shape == (COUNT,)
    values = values.astype(np.float64)
    noise = 5 / COUNT**0.5  # five standard deviations of the mean
    assert abs(values.mean()) < noise
    assert abs(values.var() - 1) < noise * 2**0.5
    assert abs((values**3).mean()) < noise * 15**0.5
    assert abs((values**4).mean() - 3) < noise * 96**0.5


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_distributions_by_kolmogorov_and_smirnov(dtype: type) -> None:
    stats = pytest.importorskip("scipy.stats", reason="the oracle scipy is not installed")
    bits = philox.random_bits(np, 13, 7, 50_000 * philox.words_per_uniform(dtype))
    assert stats.kstest(philox.normal(np, bits, dtype), "norm").pvalue > 1e-3
    assert stats.kstest(philox.uniform(np, bits, dtype), "uniform").pvalue > 1e-3


def test_normal_against_scipy() -> None:
    special = pytest.importorskip("scipy.special", reason="the oracle scipy is not installed")
    cells = 2.0 ** np.linspace(0, 51.9, 4000)
    cells = np.concatenate([np.arange(40), cells]).astype(np.uint64)
    values = philox.normal(np, words(cells << np.uint64(11)), np.float64)
    expected = special.ndtri((cells + 0.5) * 2.0**-53)
    assert np.max(np.abs(values / expected - 1)) < 1e-12
    mirrored = philox.normal(np, words(~(cells << np.uint64(11))), np.float64)
    assert (mirrored == -values).all()


# Made with mpmath at 50 digits: the normal quantile of (cell + 1/2) / 2**53.
NORMAL_REFERENCE = {
    0: -8.2923610758135955382,
    1: -8.1607078408585831755,
    1000: -7.3347380140439433241,
    1518500249: -5.1013861711185266402,  # mantissa next to sqrt(2), where the logarithm is hardest
    83878563412086: -2.3529571047322620251,
    1099511627776: -3.6683292851212067292,
    675539944105575: -1.4395314709384550526,
    4503599627370496: 1.3914582123358834611e-16,
}


def test_normal_against_stored_values() -> None:
    cells = np.array(list(NORMAL_REFERENCE), np.uint64) << np.uint64(11)
    expected = np.array(list(NORMAL_REFERENCE.values()))
    assert np.max(np.abs(philox.normal(np, words(cells), np.float64) / expected - 1)) < 1e-15


# The generator's own output, so that a change in any bit is seen (seed 2024, tick 3).
GOLDEN = {
    "bits": [
        3173742968,
        1020595756,
        279512434,
        3458709553,
        4179302574,
        3325660690,
        3225605338,
        2360187836,
    ],
    "float32": [
        "0x1.47ba8c0000000p-1",
        "-0x1.6d8c2a0000000p-1",
        "-0x1.8373560000000p+0",
        "0x1.b8ab660000000p-1",
        "0x1.ed8e880000000p+0",
        "0x1.819af60000000p-1",
        "0x1.5afbcc0000000p-1",
        "0x1.fdc8ae0000000p-4",
    ],
    "float64": [
        "-0x1.6d8c293206512p-1",
        "0x1.b8ab651acea4fp-1",
        "0x1.819af622de0dfp-1",
        "0x1.fdc8ad689ad98p-4",
    ],
    "uniform": [
        "0x1.e6a87165e95bcp-3",
        "0x1.9c4f706221520p-1",
        "0x1.8c731c25f2363p-1",
        "0x1.195b37798085ap-1",
    ],
    "integers": [
        6,
        -2,
        -5,
        7,
        9,
        6,
        6,
        3,
        237625966951932,
        805293571451929,
        774315719253631,
        549524053174771,
    ],
    "permutation": [9, 11, 7, 10, 5, 6, 0, 3, 8, 2, 4, 1],
}


def test_golden_values(xp: ModuleType) -> None:
    bits = philox.random_bits(xp, 2024, 3, 8)
    assert host(bits).tolist() == GOLDEN["bits"]
    assert [x.hex() for x in host(philox.normal(xp, bits, "float32")).tolist()] == (
        GOLDEN["float32"]
    )
    assert [x.hex() for x in host(philox.normal(xp, bits, "float64")).tolist()] == (
        GOLDEN["float64"]
    )
    assert [x.hex() for x in host(philox.uniform(xp, bits, "float64")).tolist()] == (
        GOLDEN["uniform"]
    )
    integers = host(philox.random_integers(xp, bits, -5, 10)).tolist()
    integers += host(philox.random_integers(xp, bits, -5, 10**15)).tolist()
    assert integers == GOLDEN["integers"]
    assert host(philox.permutation(xp, 2024, 3, 12)).tolist() == GOLDEN["permutation"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_devices_agree_bit_for_bit(xp: ModuleType, dtype: str) -> None:
    count = 200_000
    bits = philox.random_bits(np, 5, 9, count)
    here = philox.normal(np, bits, dtype)
    there = philox.normal(xp, philox.random_bits(xp, 5, 9, count), dtype)
    assert (here == host(there)).all()


RANGES = [
    (0, 1),
    (-3, 4),
    (0, 1 << 24),
    (0, (1 << 24) + 1),
    (-(10**12), 10**15 + 7),
    (0, (1 << 63) - 1),
    (5 - (1 << 63), (1 << 62) + 12345),
    (-(1 << 63), 1 << 63),
]


@pytest.mark.parametrize(("low", "high"), RANGES)
def test_random_integers_are_the_scaled_words(xp: ModuleType, low: int, high: int) -> None:
    count = philox.words_per_integer(low, high)
    assert count == (2 if high - low > 1 << 24 else 1)
    raw = philox.random_bits(np, 1, 2, 2000)
    raw[:4], raw[4:8] = 0, 0xFFFFFFFF
    before = raw.copy()
    drawn = host(philox.random_integers(xp, xp.asarray(raw), low, high))
    assert drawn.dtype == np.int64
    values = raw.tolist() if count == 1 else raw.view(np.uint64).tolist()
    expected = [low + (value * (high - low) >> 32 * count) for value in values]
    assert drawn.tolist() == expected
    assert (raw == before).all()


def test_random_integers_are_uniform() -> None:
    bits = philox.random_bits(np, 8, 8, COUNT)
    counts = np.bincount(philox.random_integers(np, bits, 0, 10))
    assert np.sum((counts - COUNT / 10) ** 2) / (COUNT / 10) < 35  # chi-square, 9 degrees


@pytest.mark.parametrize(("low", "high"), [(3, 3), (4, 3), (0, (1 << 63) + 1), (-(1 << 64), 0)])
def test_empty_and_impossible_ranges(low: int, high: int) -> None:
    with pytest.raises(ValueError, match=r"low < high"):
        philox.random_integers(np, np.zeros(2, np.uint32), low, high)


@pytest.mark.parametrize("n", [0, 1, 2, 1000])
def test_permutation(xp: ModuleType, n: int) -> None:
    order = host(philox.permutation(xp, 3, 4, n))
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(n))
    assert n < 3 or order.tolist() != list(range(n))


def test_permutations_are_equally_likely() -> None:
    orders = [tuple(philox.permutation(np, 1, tick, 3).tolist()) for tick in range(3000)]
    counts = np.array([orders.count(order) for order in sorted(set(orders))])
    assert counts.shape == (6,)
    assert np.sum((counts - 500) ** 2) / 500 < 25  # chi-square, 5 degrees
