"""What must hold on every device: checks shared by the stand-in for CuPy and by real GPUs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tracegraph.devices import device_of, module_of, parse_device
from tracegraph.dtypes import ALL, FLOATS, DType, bool_, float32, float64, int64
from tracegraph.eager.dispatch import dispatch, front
from tracegraph.eager.tensors import Tensor, wrap
from tracegraph.errors import OpError
from tracegraph.ops.core import MARK, Case, Op, Spec
from tracegraph.ops.table import OPS, run_op
from tracegraph.tensor_type import TensorType

TOLERANCE = {"float64": 1e-9, "float32": 2e-4, "float16": 1e-2, "bfloat16": 6e-2}
# Vectors that are unique up to their sign.
SIGNLESS = frozenset(("eigh", "svd", "qr"))
# Rows whose samples cannot be drawn by range, or that have no static result type.
_STATE = (Spec((2,), 3, 9, "i"),)
_DRAWN = {"uniform": float32, "normal": float64, "integers": int64, "permutation": int64}
EXTRA = {
    "full": (Case((), {"shape": (2, 3), "value": 1.5, "dtype": float32}),),
    "iota": (Case((), {"size": 5, "start": 2, "step": 3, "dtype": int64}),),
    "nonzero": (Case((Spec((3, 4), 0, 2, "i"),), {}), Case((Spec((), 1, 2, "i"),), {})),
    "unique": (
        Case((Spec((7,), 0, 4, "i"),), {"dim": None}),
        Case((Spec((6, 2), 0, 2, "i"),), {"dim": 0}),
    ),
    "draw": tuple(
        Case(_STATE, {"shape": (50,), "dtype": dtype, "distribution": kind, "low": 2, "high": 9})
        for kind, dtype in _DRAWN.items()
    ),
}


def draw(case: Case, dtype: DType, seed: int = 5) -> list[np.ndarray[Any, Any]]:
    """Return operands for a sample case, its floats in `dtype`, complex ones as precise."""
    random = np.random.default_rng(seed)
    arrays = []
    for spec in case.inputs:
        if spec.kind == "i":
            arrays.append(random.integers(int(spec.low), int(spec.high), spec.shape))
        elif spec.kind == "b":
            arrays.append(random.integers(0, 2, spec.shape) > 0)
        elif spec.kind == "c" or dtype.is_complex:
            real, imag = random.uniform(spec.low, spec.high, (2, *spec.shape))
            arrays.append(np.asarray(real + 1j * imag, dtype.to_complex().np))
        elif spec.kind == "p":
            half = random.uniform(-1, 1, spec.shape)
            square = half @ half.swapaxes(-1, -2) + np.eye(spec.shape[-1])
            arrays.append(square.astype(dtype.np))
        elif dtype in FLOATS:
            arrays.append(random.uniform(spec.low, spec.high, spec.shape).astype(dtype.np))
        else:
            low = 1 if spec.low > 0 else 0
            whole = random.integers(low, 2 if dtype is bool_ else 5, spec.shape)
            arrays.append(whole.astype(dtype.np))
    return arrays


def cases(op: Op) -> tuple[Case, ...]:
    """Return the samples of a row."""
    return op.sample or EXTRA.get(op.name, ())


def accepted(op: Op, case: Case, among: Sequence[DType] = ALL) -> Iterator[DType]:
    """Yield the dtypes that a row takes for the floats of a case."""
    if op.name in EXTRA or all(spec.kind not in "fp" for spec in case.inputs):
        yield float32
        return
    for dtype in among:
        if any(s.kind == "p" for s in case.inputs) and dtype not in FLOATS:
            continue
        types = [
            TensorType({"i": int64, "b": bool_}.get(s.kind, dtype), s.shape) for s in case.inputs
        ]
        try:
            op.infer(types, case.attrs)
        except OpError:
            continue
        yield dtype


def to_host(array: Any) -> np.ndarray[Any, Any]:
    """Return an array of any device as a NumPy array."""
    return np.asarray(array if isinstance(array, np.ndarray) else array.get())


def close(found: Any, expected: Any, dtype: DType, what: str, signless: bool = False) -> None:
    """Compare an array of a device with one of the CPU: dtype, shape, values."""
    found, expected = to_host(found), np.asarray(expected)
    assert found.dtype == expected.dtype, f"{what}: {found.dtype} for {expected.dtype}"
    assert found.shape == expected.shape, f"{what}: {found.shape} for {expected.shape}"
    if expected.dtype.kind in "biu":
        np.testing.assert_array_equal(found, expected, err_msg=what)
        return
    wide = np.complex128 if expected.dtype.kind == "c" else np.float64
    found, expected = found.astype(wide), expected.astype(wide)
    if signless:
        found, expected = abs(found), abs(expected)
    finite = np.abs(expected[np.isfinite(expected)])
    scale = max(1.0, float(finite.max(initial=0)))
    tolerance = TOLERANCE.get(dtype.name, 1e-4)
    np.testing.assert_allclose(found, expected, tolerance, tolerance * scale, err_msg=what)


def check_row(op: Op, device: str, among: Sequence[DType] = ALL) -> int:
    """Run every sample of a row in every dtype on a device and on the CPU; returns how many."""
    xp, count = module_of(parse_device(device)), 0
    for case in cases(op):
        for dtype in accepted(op, case, among):
            arrays = draw(case, dtype)
            with np.errstate(all="ignore"):
                expected = run_op(op, np, *arrays, **case.attrs)
            there = [xp.asarray(a) for a in arrays]
            found = run_op(op, xp, *there, **case.attrs)
            many = isinstance(expected, (tuple, list))
            what = f"{op.name} {case} of {dtype}"
            pairs = zip(found if many else [found], expected if many else [expected], strict=True)
            for f, e in pairs:
                assert device_of(f).type == "cuda", f"{what}: the result is on the CPU"
                close(f, e, dtype, what, op.name in SIGNLESS)
            for array, before in zip(there, arrays, strict=True):
                np.testing.assert_array_equal(
                    to_host(array), before, err_msg=f"{what} wrote operand"
                )
            count += 1
    return count


def gradients(op: Op, case: Case, device: str) -> list[Any]:
    """Return the gradients of a weighted sum of a row's results, in float64."""
    leaves = []
    for spec, array in zip(case.inputs, draw(case, float64), strict=True):
        t = wrap(array).to(device)
        leaves.append(t.requires_grad_() if spec.kind in "fp" else t)
    made = dispatch(op, leaves, case.attrs)
    random = np.random.default_rng(3)
    total = None
    for result in made if isinstance(made, tuple) else (made,):
        if result.requires_grad:
            weights = wrap(random.uniform(0.5, 1, tuple(result.shape))).to(device)
            part = (result * weights).sum()
            total = part if total is None else total + part
    if total is None:
        return []
    total.backward()
    return [t.grad for t in leaves if t.requires_grad]


def check_gradient(op: Op, device: str) -> int:
    """Compare the gradients of every sample of a row on a device with those on the CPU."""
    count = 0
    for case in cases(op):
        if op.name in EXTRA or not op.differentiable or MARK in op.traits:
            continue
        for found, expected in zip(
            gradients(op, case, device), gradients(op, case, "cpu"), strict=True
        ):
            if expected is None:
                assert found is None
                continue
            assert device_of(found._data).type == "cuda"
            close(found._data, expected._data, float64, f"gradient of {op.name}")
            count += 1
    return count


_BIG = 2**62 + 1
HARD = {
    "floor_divide": (
        [1.0, -1.0, 5.5, -5.5, np.inf, 0.3, 7.0],
        [0.1, 0.1, -2.0, 2.0, 2.0, 0.1, 0.0],
    ),
    "remainder": ([1.0, -1.0, 5.5, -5.5, 0.3, 7.0, -6.0], [0.1, 0.1, -2.0, 2.0, 0.1, 0.0, 3.0]),
    "fmod": ([1.0, -1.0, 5.5, -5.5, 0.3, 7.0, -6.0], [0.1, 0.1, -2.0, 2.0, 0.1, 0.0, 3.0]),
    "floor_divide of ints": ([7, -7, 7, -7, _BIG], [2, 2, -2, -2, 3]),
    "remainder of ints": ([7, -7, 7, -7, _BIG], [2, 2, -2, -2, 3]),
    "fmod of ints": ([7, -7, 7, -7, _BIG, -_BIG], [2, 2, -2, -2, 3, 1000]),
    "maximum": ([np.nan, 1.0, -np.inf], [1.0, np.nan, 0.0]),
    "fmax": ([np.nan, 1.0, -np.inf], [1.0, np.nan, 0.0]),
    "logaddexp": ([np.inf, -np.inf, 0.0], [np.inf, -np.inf, -np.inf]),
    "pow": ([0.0, -2.0, 2.0, -0.0], [0.0, 3.0, -1.0, -1.0]),
    "round": ([0.5, 1.5, -0.5, 2.5],),
    "sign": ([True, False],),
}
"""Operands where array modules are known to differ: row (and note) -> operands."""


def check_hard(name: str, device: str) -> None:
    """Compare a device with the CPU where array modules are known to differ."""
    op, xp = OPS[name.partition(" ")[0]], module_of(parse_device(device))
    arrays = [np.asarray(values) for values in HARD[name]]
    with np.errstate(all="ignore"):
        expected = run_op(op, np, *arrays)
    found = run_op(op, xp, *map(xp.asarray, arrays))
    close(found, expected, float64, name)


def check_repeats(device: str) -> None:
    """Scatters of many repeats: right, and the same bits every time."""
    xp, random = module_of(parse_device(device)), np.random.default_rng(1)
    x, y = random.standard_normal((50, 6)), random.standard_normal((4000, 6))
    index = random.integers(0, 50, (4000, 6))
    for name, attrs in (
        ("scatter_add", {}), ("scatter_reduce", {"reduce": "amax", "include_self": True}),
    ):  # fmt: skip
        expected = run_op(OPS[name], np, x, index, y, dim=0, **attrs)
        there = [xp.asarray(a) for a in (x, index, y)]
        found, again = (run_op(OPS[name], xp, *there, dim=0, **attrs) for _ in range(2))
        close(found, expected, float64, name)
        np.testing.assert_array_equal(to_host(found), to_host(again))


def rows() -> list[Op]:
    """Return the op table in order."""
    return list(OPS.values())


def tensor_on(array: Any, device: str) -> Tensor:
    """Return a tensor with a copy of an array on a device."""
    made: Tensor = wrap(np.asarray(array).copy()).to(device)
    return made


__all__ = ["check_gradient", "check_row", "close", "front", "rows", "tensor_on", "to_host"]
