"""What must hold of every row of the op table, driven by the rows' own samples."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest

import tracegraph as tg
from tests.device_checks import EXTRA, TOLERANCE, cases, draw
from tracegraph import autograd
from tracegraph.dtypes import FLOATS, DType, bfloat16, float16, float32, float64
from tracegraph.eager.dispatch import dispatch, front
from tracegraph.eager.storage import AbstractArray
from tracegraph.eager.tensors import Tensor, type_of, wrap
from tracegraph.errors import DTypeError, OpError
from tracegraph.ops.core import EFFECT, MARK, RANDOM, VIEW, ZERO, Case, Joint, Op
from tracegraph.ops.table import OPS, array_ops, run_op

STEP = 1e-5
# Float operands that joint rules give no gradient, by design: statistics of earlier batches.
CONSTANT = {"batch_norm_inference": (1, 2)}

ROWS = [pytest.param(op, id=name) for name, op in OPS.items()]
SAMPLES = [
    pytest.param(op, case, id=f"{name}-{i}")
    for name, op in OPS.items()
    if name not in EXTRA
    for i, case in enumerate(cases(op))
]
DIFFERENTIABLE = [
    p for p in SAMPLES if p.values[0].differentiable and MARK not in p.values[0].traits
]


def outputs(results: Any) -> tuple[Any, ...]:
    return tuple(results) if isinstance(results, (tuple, list)) else (results,)


def operands(op: Op, case: Case, dtype: DType) -> list[np.ndarray[Any, Any]]:
    return draw(case, dtype, seed=zlib.crc32(op.name.encode()))


def accepts(op: Op, case: Case, dtype: DType) -> bool:
    types = [type_of(wrap(a)) for a in operands(op, case, dtype)]
    try:
        op.infer(types, case.attrs)
    except (DTypeError, OpError):
        return False
    return True


@pytest.mark.parametrize("op", ROWS)
def test_a_row_says_what_it_is_and_shows_it(op: Op) -> None:
    assert op.doc.strip()
    assert op.doc.rstrip().endswith((".", ")")), op.doc
    if EFFECT not in op.traits:  # what Python of the user's does has no sample
        assert len(cases(op)) >= (1 if op.name in EXTRA else 2)
    assert (op.kernel is None) <= (op.decompose is not None)


def is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(is_plain, value))
    return value is None or isinstance(value, (int, float, bool, str, DType))


@pytest.mark.parametrize("op", ROWS)
def test_attributes_can_be_written_to_a_file(op: Op) -> None:
    for case in cases(op):
        assert set(case.attrs) == set(op.attrs)
        assert all(map(is_plain, case.attrs.values()))


@pytest.mark.parametrize(("op", "case"), SAMPLES)
def test_the_type_rule_says_what_the_kernel_does(op: Op, case: Case) -> None:
    floats = [d for d in FLOATS if accepts(op, case, d)]
    tried = floats if any(s.kind in "fp" for s in case.inputs) else [float32]
    assert tried, f"no float dtype is accepted by {op.name}"
    for dtype in tried:
        arrays = operands(op, case, dtype)
        types = op.infer([type_of(wrap(a)) for a in arrays], case.attrs)
        real = outputs(run_op(op, np, *arrays, **case.attrs))
        assert [type_of(wrap(np.asarray(r))) for r in real] == list(types)
        abstract = [wrap(AbstractArray(type_of(wrap(a)))) for a in arrays]
        assert [type_of(t) for t in outputs(dispatch(op, abstract, case.attrs))] == list(types)


@pytest.mark.parametrize(("op", "case"), [p for p in SAMPLES if p.values[0].decompose is not None])
def test_kernel_and_decomposition_agree(op: Op, case: Case) -> None:
    if op.kernel is None:
        pytest.skip("the decomposition is all there is")
    arrays = operands(op, case, float64)
    kernel = outputs(op.kernel(np, *arrays, **case.attrs))
    with np.errstate(all="ignore"):
        parts = outputs(op.decompose(array_ops(np), *arrays, **case.attrs))
    tensors = outputs(op.decompose(front, *map(tg.tensor, arrays), **case.attrs))
    for a, b, c in zip(kernel, parts, tensors, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(a, c.numpy(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("op", "case"), SAMPLES)
def test_sixteen_bits_are_rounded_once(op: Op, case: Case) -> None:
    """Computed in float32 and rounded: within a little of the float32 result of the same data."""
    if all(s.kind not in "fp" for s in case.inputs):
        pytest.skip("takes no floats")
    for dtype in (float16, bfloat16):
        if not accepts(op, case, dtype):
            continue
        narrow = operands(op, case, dtype)
        wide = [a.astype(np.float32) if a.dtype == dtype.np else a for a in narrow]
        for a, b in zip(
            outputs(run_op(op, np, *narrow, **case.attrs)),
            outputs(run_op(op, np, *wide, **case.attrs)),
            strict=True,
        ):
            if a.dtype == dtype.np:
                scale = max(1.0, float(np.max(np.abs(b), initial=0)))
                limit = TOLERANCE[dtype.name] * scale
                np.testing.assert_allclose(a.astype(np.float32), b, rtol=0, atol=limit)
            else:
                np.testing.assert_array_equal(a, b)


# Gradients.


class Function:
    """A weighted sum of a row's float results, as a function of its float operands."""

    def __init__(self, op: Op, case: Case) -> None:
        self.op, self.case = op, case
        self.arrays = operands(op, case, float64)
        self.kinds = [spec.kind for spec in case.inputs]
        self.moves = [kind in "fp" and not self.is_constant(i) for i, kind in enumerate(self.kinds)]
        self.random = np.random.default_rng(7)
        results = self.results([wrap(a) for a in self.arrays])
        self.weights = [wrap(self.random.uniform(0.5, 1.5, r._data.shape)) for r in results]

    def is_constant(self, place: int) -> bool:
        """Whether an operand has no gradient by design."""
        if isinstance(self.op.vjp, tuple):
            return self.op.vjp[min(place, len(self.op.vjp) - 1)] is None
        return place in CONSTANT.get(self.op.name, ())

    def results(self, tensors: list[Tensor]) -> list[Tensor]:
        """The float results; matrices said to be symmetric are made so."""
        given = [
            (t + t.transpose(-2, -1)) * 0.5 if kind == "p" else t
            for t, kind in zip(tensors, self.kinds, strict=True)
        ]
        got = outputs(dispatch(self.op, given, self.case.attrs))
        return [r for r in got if r.dtype is float64]

    def __call__(self, tensors: list[Tensor]) -> Tensor:
        terms = [(r * w).sum() for r, w in zip(self.results(tensors), self.weights, strict=True)]
        return sum(terms[1:], terms[0])

    def leaves(self, shift: float = 0.0, towards: Any = None) -> list[Tensor]:
        """Operands as leaves, the floats moved `shift` towards a direction."""
        made = []
        for place, array in enumerate(self.arrays):
            if self.moves[place] and towards is not None:
                array = array + shift * towards[place]
            made.append(wrap(np.array(array)))
            if self.moves[place]:
                made[-1].requires_grad_()
        return made

    def direction(self) -> list[np.ndarray[Any, Any]]:
        return [self.random.uniform(-1, 1, a.shape) for a in self.arrays]


def gradients(value: Tensor, leaves: list[Tensor], again: bool) -> list[Tensor | None]:
    wanted = [t for t in leaves if t.requires_grad]
    if not value.requires_grad:
        return [None] * len(leaves)
    found = iter(autograd.grad(value, wanted, create_graph=again, allow_unused=True))
    return [next(found) if t.requires_grad else None for t in leaves]


def along(grads: list[Tensor | None], towards: list[np.ndarray[Any, Any]]) -> float:
    """The derivative in a direction."""
    return sum(
        float((g.detach().numpy() * v).sum())
        for g, v in zip(grads, towards, strict=True)
        if g is not None
    )


def check(analytic: float, numeric: float, scale: float) -> None:
    assert abs(analytic - numeric) <= 2e-6 * max(1.0, scale), (analytic, numeric)


def wants_gradient(op: Op, case: Case) -> bool:
    return any(s.kind in "fp" for s in case.inputs) and accepts(op, case, float64)


@pytest.mark.parametrize(("op", "case"), DIFFERENTIABLE)
def test_gradients_are_those_of_finite_differences(op: Op, case: Case) -> None:
    """Along a random direction, by central differences; then the gradient's own gradient."""
    if not wants_gradient(op, case):
        pytest.skip("has no float operand")
    f = Function(op, case)
    if not f.weights:
        pytest.skip("has no float result")
    leaves, towards = f.leaves(), f.direction()
    first = gradients(f(leaves), leaves, again=True)
    for leaf, grad in zip(leaves, first, strict=True):
        if grad is not None:
            assert type_of(grad) == type_of(leaf)
    ends = [float(f(f.leaves(sign * STEP, towards)).detach()) for sign in (1, -1)]
    slope = along(first, towards)
    check(slope, (ends[0] - ends[1]) / (2 * STEP), max(map(abs, (*ends, slope))))

    probe = f.direction()

    def slope_at(points: list[Tensor], again: bool) -> Any:
        grads = gradients(f(points), points, again=True)
        terms = [(g * wrap(v)).sum() for g, v in zip(grads, probe, strict=True) if g is not None]
        return sum(terms[1:], terms[0]) if terms else wrap(np.zeros(()))

    second = gradients(slope_at(leaves, True), leaves, again=False)
    ends = [float(slope_at(f.leaves(sign * STEP, towards), False).detach()) for sign in (1, -1)]
    bend = along(second, towards)
    check(bend, (ends[0] - ends[1]) / (2 * STEP), 10 * max(map(abs, (*ends, bend))))


@pytest.mark.parametrize("dtype", [float32, float64], ids=lambda d: d.name)
@pytest.mark.parametrize(("op", "case"), DIFFERENTIABLE)
def test_rules_give_the_same_on_arrays_and_on_tensors(op: Op, case: Case, dtype: DType) -> None:
    """A backward pass that nobody records runs rules on bare arrays: to the bit the same."""
    if not wants_gradient(op, case):
        pytest.skip("has no float operand")
    given = []
    for spec, array in zip(case.inputs, operands(op, case, dtype), strict=True):
        symmetric = (array + array.swapaxes(-1, -2)) * 0.5 if spec.kind == "p" else array
        given.append(wrap(symmetric.astype(array.dtype)))
    leaves = [t.requires_grad_() for t in given if t.dtype is dtype]
    results = [r for r in outputs(dispatch(op, given, case.attrs)) if r.requires_grad]
    if not results:
        pytest.skip("has no float result")
    bare, seen = (
        autograd.grad(
            results, leaves, [r.detach() for r in results], True, again, allow_unused=True
        )
        for again in (False, True)
    )
    for a, b in zip(bare, seen, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert type_of(a) == type_of(b)
            np.testing.assert_array_equal(a.numpy(), b.detach().numpy())


@pytest.mark.parametrize("op", ROWS)
def test_a_view_shares_memory_and_knows_its_way_back(op: Op) -> None:
    if VIEW not in op.traits:
        assert op.write_back is None
        return
    assert op.write_back is not None
    for case in cases(op):
        base = wrap(operands(op, case, float64)[0])
        view = dispatch(op, [base], case.attrs)
        if op.name == "expand" or not view._data.size:
            continue
        new = wrap(np.full(view._data.shape, 7.0, view._data.dtype))
        written = op.write_back(front, base, new, **case.attrs)
        view.fill_(7.0)
        np.testing.assert_array_equal(base.numpy(), written.numpy())


def test_rows_that_keep_nothing_say_so() -> None:
    assert {name for name, op in OPS.items() if op.vjp is None} == set()
    for op in OPS.values():
        if op.differentiable and op.vjp is not ZERO and not isinstance(op.vjp, Joint):
            assert len(op.vjp) >= len(op.operands) - op.variadic


def test_the_finite_differences_find_a_wrong_rule() -> None:
    """A planted fault: the derivative of exp taken as its argument."""
    from tracegraph.ops.core import define, reals
    from tracegraph.ops.pointwise import exp

    wrong = define(
        "exp(x) -> y", type=exp.type_rule, scalar=exp.scalar, vjp=(lambda g, x: g * x,),
        sample=reals(-1, 1), doc="Wrong.",
    )  # fmt: skip
    with pytest.raises(AssertionError):
        test_gradients_are_those_of_finite_differences(wrong, wrong.sample[0])


def test_random_rows_have_samples_of_their_own() -> None:
    """They draw from a state that has no gradient and no range."""
    assert {name for name, op in OPS.items() if RANDOM in op.traits} <= set(EXTRA)
