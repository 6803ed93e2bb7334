"""The scalar language as native code: every elementwise row, and casts, against the interpreter.

All rows run at four widths, each on another instruction set.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest

from tests.native_scalars import (
    Expression,
    binary,
    compiled,
    module_texts,
    runnable,
    target_of,
    undefined_symbols,
)
from tracegraph.dtypes import (
    BY_CODE,
    INTS,
    REALS,
    DType,
    bfloat16,
    bool_,
    float16,
    float32,
    float64,
    int32,
    int64,
    uint8,
    uint32,
    uint64,
)
from tracegraph.errors import OpError
from tracegraph.ops.core import ELEMENTWISE, Op
from tracegraph.ops.table import OPS
from tracegraph.runtime.cpu.code import llvm
from tracegraph.runtime.cpu.code.scalar_language import emit_row, new_library, supports
from tracegraph.runtime.cpu.code.scalars import Emitter
from tracegraph.runtime.cpu.code.values import UnsupportedError, Value
from tracegraph.tensor_type import TensorType

# Each width on another instruction set; the first place has all dtypes, others these.
PLACES = {
    (16, "host"): REALS,
    (1, "host"): (float64, int32),
    (8, "avx2"): (float32, int64, uint8),
    (4, "sse2"): (float32, float64, int64),
}
HALVES = (float16, bfloat16)


# Rows.


class Row(NamedTuple):
    """An elementwise op on one dtype: its operand dtypes and the dtype of its result."""

    name: str
    op: Op
    attrs: dict[str, Any]
    operands: tuple[DType, ...]
    result: DType

    @property
    def expression(self) -> Expression:
        return Expression(
            self.name,
            lambda m, *values: emit_row(m, self.op, values, self.attrs),
            self.operands,
            self.result,
        )


def all_rows() -> Iterator[tuple[Row, bool]]:
    """Yield every elementwise row, attributes and dtype, and whether it has a native form."""
    for name, op in OPS.items():
        if ELEMENTWISE not in op.traits or name == "cast":
            continue
        for number, attrs in enumerate({str(c.attrs): c.attrs for c in op.sample}.values()):
            for dtype in REALS:
                operands = (dtype,) * len(op.operands)
                operands = (bool_, dtype, dtype) if name == "where" else operands
                try:
                    (result,) = op.infer([TensorType(d, ()) for d in operands], attrs)
                except OpError:
                    continue
                row = Row(f"{name}.{number}.{dtype.code}", op, attrs, operands, result.dtype)
                yield row, supports(op, operands, attrs)


ROWS = [row for row, native in all_rows() if native]


def test_what_has_no_native_form_is_known() -> None:
    """Floats given for integers are refused by the API, which passes integers on."""
    others = {row.name for row, native in all_rows() if not native}
    codes = [dtype.code for dtype in INTS]
    expected = {f"{name}.0.{code}" for name in ("gcd", "lcm") for code in codes}
    expected |= {f"{name}.0.{code}" for name in ("hardtanh", "threshold") for code in codes}
    expected |= {"complex.0.f32", "complex.0.f64"}
    expected |= {f"bitwise_{side}_shift.0.b8" for side in ("left", "right")}
    assert others == expected
    integers = {"low": -1, "high": 6}
    assert supports(OPS["hardtanh"], (int32,), integers)
    assert not supports(OPS["sum"], (float32,), {"dim": (0,), "keepdim": False})


def special_values(dtype: DType) -> Any:
    if dtype is bool_:
        return np.array([False, True])
    if not dtype.is_floating_point:
        limits = np.iinfo(dtype.np)
        values = [0, 1, 2, 3, 5, 7, 8, 15, 31, 32, 63, 64, limits.max, limits.max - 1]
        values += [limits.min, limits.min + 1, -1, -2, -3, -7, -8] if dtype.is_signed else []
        return np.array(values, dtype=dtype.np)
    limits = ml_dtypes.finfo(dtype.np)
    edges = [limits.max, limits.tiny, limits.smallest_subnormal, limits.eps]
    values = [0, 1, 0.5, 2, 3, 1.5, 2.5, 7.25, math.inf, 1e-3, 10, 0.3, 100, *map(float, edges)]
    values += [1 - float(limits.eps), 1 + float(limits.eps)]
    return np.array([*values, *(-v for v in values), math.nan], dtype=dtype.np)


def drawn(dtype: DType, count: int, rng: np.random.Generator) -> Any:
    if dtype is bool_:
        return rng.integers(0, 2, count).astype(bool)
    if dtype.is_floating_point:
        return (rng.standard_normal(count) * np.exp(rng.uniform(-3, 2, count))).astype(dtype.np)
    limits = np.iinfo(dtype.np)
    values = rng.integers(limits.min, limits.max, count, dtype=dtype.np, endpoint=True)
    values[::2] = rng.integers(max(limits.min, -20), 20, len(values[::2])).astype(dtype.np)
    return values


def operands_of(row: Row) -> list[Any]:
    """Return every combination of special values, and random ones, that the row does not refuse."""
    rng = np.random.default_rng(len(row.name))
    grids = np.meshgrid(*map(special_values, row.operands), indexing="ij")
    arrays = [
        np.concatenate([grid.reshape(-1), drawn(dtype, 200, rng)])
        for grid, dtype in zip(grids, row.operands, strict=True)
    ]
    if not row.operands[-1].is_floating_point and row.op.name in ("floor_divide", "trunc_divide"):
        kept = arrays[1] != 0
        return [array[kept] for array in arrays]
    if row.op.name == "pow" and not row.operands[0].is_floating_point:
        kept = arrays[1] >= 0
        return [array[kept] for array in arrays]
    return arrays


@np.errstate(all="ignore")
def interpreted(row: Row, arrays: list[Any]) -> Any:
    return np.asarray(row.op.kernel(np, *arrays, **row.attrs))


# Rows whose rounding is fixed: equal to the interpreter's to the bit, zeros by sign.
EXACT = {
    "add", "sub", "mul", "div", "floor_divide", "trunc_divide", "remainder", "fmod", "maximum",
    "minimum", "fmax", "fmin", "clamp_min", "clamp_max", "copysign", "nextafter", "neg", "abs",
    "sign", "reciprocal", "sqrt", "rsqrt", "floor", "ceil", "trunc", "round", "where", "relu",
    "leaky_relu", "prelu", "hardtanh", "hardsigmoid", "hardswish", "threshold", "hardshrink",
    "softshrink",
}  # fmt: skip
# What the others may differ by from the interpreter, which is off itself: relative to the result
# or to the scale, in units of the dtype's precision. There is a scale where the formula subtracts:
# gelu(-5) is 5 times what is left of 1 - 1.
TOLERANCE = 32.0
SCALE: dict[str, Callable[..., Any]] = {
    "gelu": lambda x: np.maximum(np.abs(x), 1),
    "logaddexp": lambda x, y: np.maximum(np.abs(x), 1),
    "logaddexp2": lambda x, y: np.maximum(np.abs(x), 1),
    "binary_cross_entropy": lambda x, target: 100 * np.maximum(np.abs(target), 1),
}
# Below, exp(-x) overflows in the interpreter's sigmoid, not in ours.
LEAST = {"sigmoid": 1e-38, "silu": 1e-36}


@np.errstate(all="ignore")
def assert_same(row: Row, got: Any, expected: Any, arrays: list[Any]) -> None:
    assert expected.dtype == row.result.np
    if not row.result.is_floating_point:
        assert np.array_equal(got, expected), row.name
        return
    a, b = got.astype(np.float64), expected.astype(np.float64)
    same = (a == b) & (np.signbit(a) == np.signbit(b)) | (np.isnan(a) & np.isnan(b))
    if row.op.name not in EXACT:
        limits = ml_dtypes.finfo(row.result.np)
        scale = np.abs(b)
        if row.op.name in SCALE:
            scale = np.maximum(scale, SCALE[row.op.name](*(x.astype(np.float64) for x in arrays)))
        least = max(2 * float(limits.smallest_subnormal), LEAST.get(row.op.name, 0.0))
        same |= np.abs(a - b) <= TOLERANCE * float(limits.eps) * scale + least
    if not same.all():
        i = int(np.argmin(same))
        pytest.fail(f"{row.name}{[x[i] for x in arrays]}: {got[i]}, not {expected[i]}")


@pytest.mark.parametrize(("width", "level"), PLACES)
def test_rows_give_what_the_interpreter_gives(width: int, level: str) -> None:
    target = target_of(level)
    rows = [row for row in ROWS if row.operands[-1] in PLACES[width, level]]
    functions = compiled([row.expression for row in rows], width, target)
    for row in rows:
        arrays = operands_of(row)
        assert_same(row, functions[row.name](*arrays), interpreted(row, arrays), arrays)
        assert not functions[row.name].fault


# Casts and storage.


def cast_expression(source: DType, target: DType) -> Expression:
    row = OPS["cast"]
    return Expression(
        f"cast.{source.code}.{target.code}",
        lambda m, x: emit_row(m, row, (x,), {"dtype": target}),
        (source,),
        target,
    )


@pytest.mark.parametrize(("width", "level"), PLACES)
def test_casts_give_what_the_interpreter_gives(width: int, level: str) -> None:
    """NaN, infinities and numbers out of range among them: as in NumPy on x86."""
    pairs = [(source, target) for source in REALS for target in REALS]
    functions = compiled([cast_expression(*pair) for pair in pairs], width, target_of(level))
    wide = np.array([1e5, 3e9, 1e10, 1e19, 1.8e19, 1e20, 255.9, 2147483647.5, 9.3e18, 4294967295.5])
    for source, target in pairs:
        x = np.concatenate([special_values(source), drawn(source, 300, np.random.default_rng(0))])
        if source.is_floating_point:
            with np.errstate(over="ignore"):
                x = np.concatenate([x, wide.astype(source.np), -wide.astype(source.np)])
        if source.is_floating_point and target in (uint32, uint64):
            # Out of range NumPy does one thing in its vectors and another in their remainders.
            half = 2.0 ** (8 * target.itemsize - 1)
            x = x[np.isfinite(x)]
            x = x[(x.astype(np.float64) >= -half) & (x.astype(np.float64) < 2 * half)]
        with np.errstate(all="ignore"):
            expected = OPS["cast"].kernel(np, x, dtype=target)
        got = functions[f"cast.{source.code}.{target.code}"](x)
        same = (got == expected) | ((got != got) & (expected != expected))
        assert same.all(), (source, target, x[~same], got[~same], expected[~same])


@pytest.mark.parametrize("level", ["host", "sse2"])
def test_every_16_bit_float_is_widened_and_rounded(level: str) -> None:
    """All of them, and float32 numbers around every midpoint between two of them."""
    functions = compiled(
        [cast_expression(*pair) for half in HALVES for pair in ((half, float32), (float32, half))],
        8,
        target_of(level),
    )
    for half in HALVES:
        x = np.arange(1 << 16, dtype=np.uint16).view(half.np)
        wide = functions[f"cast.{half.code}.f32"](x)
        np.testing.assert_array_equal(wide, x.astype(np.float32))
        bits = wide[np.isfinite(wide)].view(np.uint32)
        unit = 1 << (13 if half is float16 else 16)
        around = [bits + np.uint32(unit // 2 + step) for step in (-1, 0, 1)]
        y = np.concatenate([wide, *(b.view(np.float32) for b in around)])
        with np.errstate(all="ignore"):
            expected = y.astype(half.np)
        got = functions[f"cast.f32.{half.code}"](y)
        same = (got == expected) & (np.signbit(got) == np.signbit(expected))
        assert (same | ((got != got) & (expected != expected))).all()


def test_float64_is_rounded_to_float16_once() -> None:
    x = np.array([1 + 2**-11 + 2**-40, 1 + 3 * 2**-11 - 2**-40, 65519.999999, 2**-25 + 2**-60])
    got = compiled([cast_expression(float64, float16)], 4)["cast.f64.f16"](x)
    with np.errstate(over="ignore"):
        once, twice = x.astype(np.float16), x.astype(np.float32).astype(np.float16)
    assert got.tolist() == once.tolist() != twice.tolist()


# Integers: what would trap.


@pytest.mark.parametrize("dtype", INTS, ids=lambda d: d.code)
@pytest.mark.parametrize("name", ["floor_divide", "trunc_divide", "remainder", "fmod", "power"])
def test_integer_faults_are_reported_and_do_not_trap(name: str, dtype: DType) -> None:
    function = compiled([binary(name, dtype)], 8)[f"{name}.{dtype.code}"]
    limits = np.iinfo(dtype.np)
    x = np.array([5, 0, limits.min, limits.max], dtype=dtype.np)
    if name == "power":
        result = function(x, np.full_like(x, 2))
        assert result.tolist() == (x * x).tolist()
        function(x, np.full_like(x, limits.max))
        assert not function.fault
        if dtype.is_signed:
            function(x, np.array([1, 1, -1, 1], dtype=dtype.np))
            assert function.fault
        return
    result = function(x, np.array([1, 1, 0, 1], dtype=dtype.np))
    assert function.fault == name.endswith("divide")
    if not name.endswith("divide"):
        assert result.tolist() == [0, 0, 0, 0]
    if dtype.is_signed:
        result = function(x, np.full_like(x, -1))
        assert not function.fault
        expected = -x if name.endswith("divide") else 0 * x
        assert result.tolist() == expected.tolist()


def test_contraction_is_asked_for() -> None:
    """x * y + z is rounded twice, and once where the kernel allows contraction and FMA is there."""
    target = runnable("avx2")
    for contract in (False, True):
        m = Emitter(new_library(target), 4, contract=contract)
        x, y, z = (Value(m, f"%{name}", float64) for name in "xyz")
        result = emit_row(m, OPS["add"], (emit_row(m, OPS["mul"], (x, y), {}), z), {})
        text = "\n".join(
            (f"define <4 x double> @f({x}, {y}, {z}) {{", *m.lines, f"  ret {result}", "}")
        )
        assert ("vfmadd" in llvm.compile_assembly([text], target)) == contract


def test_a_function_does_not_lose_faults() -> None:
    library = new_library(llvm.host_target())

    def body(m: Any, x: Any) -> Any:
        return emit_row(m, OPS["floor_divide"], (x, x), {})

    with pytest.raises(UnsupportedError, match="division"):
        library.define("f", 4, body, (int32,), cold=False)


def test_a_value_steers_no_python() -> None:
    m = Emitter(new_library(llvm.host_target()), 4)
    x = Value(m, "%x", float32)
    with pytest.raises(UnsupportedError):
        max(x, 0.0)


# Code. `compiled` finds what it needs from elsewhere; here on another architecture.


def test_code_for_neon_needs_nothing_else() -> None:
    target = llvm.level_target("neon", "aarch64-unknown-linux-gnu")
    codes = ("f32", "f64", "f16", "i8", "u32", "i64")
    rows = [row for row in ROWS if row.operands[-1].code in codes]
    expressions = [row.expression for row in rows]
    expressions += [cast_expression(source, BY_CODE[c]) for source in REALS for c in codes]
    data = llvm.compile_object(module_texts(expressions, 4, target), target)
    assert undefined_symbols(data) == set()


def test_a_call_of_libm_is_found() -> None:
    def body(m: Any, x: Any) -> Any:
        return m.emit(float64, f"frem {x}, {x.text}")

    target = llvm.level_target("sse2", "x86_64-unknown-linux-gnu")
    text = module_texts([Expression("rest", body, (float64,), float64)], 1, target)
    assert undefined_symbols(llvm.compile_object(text, target)) == {"fmod"}
