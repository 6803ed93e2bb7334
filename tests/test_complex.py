"""Complex numbers: what every row does with them, and what PyTorch does."""

from __future__ import annotations

import copy
import pickle
import zlib
from typing import Any

import numpy as np
import pytest

import tracegraph as tg
from tests.against_torch import compare, values
from tests.both_modules import T  # noqa: F401
from tests.device_checks import EXTRA, cases, draw
from tracegraph.autograd import gradcheck, gradgradcheck
from tracegraph.dtypes import complex64, complex128
from tracegraph.eager.dispatch import dispatch
from tracegraph.eager.storage import AbstractArray
from tracegraph.eager.tensors import type_of, wrap
from tracegraph.errors import DTypeError, OpError
from tracegraph.ir.parsing import parse_graph
from tracegraph.ir.text import print_graph
from tracegraph.ops.core import MARK, Case, Op
from tracegraph.ops.table import OPS, run_op

SAMPLES = [
    pytest.param(op, case, id=f"{name}-{i}")
    for name, op in OPS.items()
    if name not in EXTRA
    for i, case in enumerate(cases(op))
    if any(s.kind in "fpc" for s in case.inputs)
]
TAKEN = [p for p in SAMPLES if p.values[0].complex]
REFUSED = [p for p in SAMPLES if not p.values[0].complex]


def operands(op: Op, case: Case, dtype: Any = complex128) -> list[Any]:
    return draw(case, dtype, seed=zlib.crc32(op.name.encode()))


def several(results: Any) -> tuple[Any, ...]:
    return tuple(results) if isinstance(results, (tuple, list)) else (results,)


@pytest.mark.parametrize(("op", "case"), TAKEN)
@pytest.mark.parametrize("dtype", [complex64, complex128], ids=str)
def test_rows_that_take_complex_operands(op: Op, case: Case, dtype: Any) -> None:
    arrays = operands(op, case, dtype)
    types = op.infer([type_of(wrap(a)) for a in arrays], case.attrs)
    with np.errstate(all="ignore"):
        real = several(run_op(op, np, *arrays, **case.attrs))
    assert [type_of(wrap(np.asarray(r))) for r in real] == list(types)
    abstract = [wrap(AbstractArray(type_of(wrap(a)))) for a in arrays]
    assert [type_of(t) for t in several(dispatch(op, abstract, case.attrs))] == list(types)


@pytest.mark.parametrize(("op", "case"), REFUSED)
def test_all_other_rows_refuse_them(op: Op, case: Case) -> None:
    """NumPy's kernels would compute something: complex numbers have an order there."""
    arrays = operands(op, case)
    with pytest.raises((DTypeError, OpError)):
        op.infer([type_of(wrap(a)) for a in arrays], case.attrs)
    with pytest.raises((DTypeError, OpError)):
        dispatch(op, [wrap(a) for a in arrays], case.attrs)


@pytest.mark.parametrize(
    ("op", "case"),
    [p for p in TAKEN if p.values[0].differentiable and MARK not in p.values[0].traits],
)
def test_gradients_are_those_of_finite_differences(op: Op, case: Case) -> None:
    """By each part of each operand; then the gradient's own gradient."""
    given = [wrap(a) for a in operands(op, case)]
    for t in given:
        if t.is_complex():
            t.requires_grad_()

    def function(*tensors: Any) -> Any:
        found = several(dispatch(op, tensors, case.attrs))
        return tuple(r for r in found if r.is_complex() or r.is_floating_point())

    if given[0].requires_grad and function(*given):
        assert gradcheck(function, given, atol=1e-5)
        assert gradgradcheck(function, given, atol=1e-4)


# Functions against PyTorch: values, dtypes and gradients.

_UNARY = """
abs angle conj sgn real imag exp exp2 expm1 log log2 log10 log1p sqrt rsqrt sin cos tan asin acos
atan sinh cosh tanh asinh acosh atanh sigmoid reciprocal neg square
"""
UNARY = tuple(_UNARY.split())


@pytest.mark.oracle
@pytest.mark.parametrize("name", UNARY)
@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_unary_functions_as_pytorch(name: str, dtype: str) -> None:
    compare(lambda t, x: getattr(t, name)(x), values(dtype, 3, 5), tolerance=limit_of(dtype))
    compare(lambda t, x: getattr(t, name)(x), values(dtype), tolerance=limit_of(dtype))


def limit_of(dtype: str) -> float:
    return 1e-10 if dtype == "complex128" else 1e-4


FUNCTIONS: dict[str, Any] = {
    "polar": lambda t, x, y: t.polar(x.abs(), y.imag),
    "complex": lambda t, x, y: t.complex(x.real, y.abs()),
    "mixed": lambda t, x, y: x * y.real + y.imag / x - 2 * x + (1 - 2j) * y - 3j,
    "powers": lambda t, x, y: (x**2, x**-1, x ** (0.5 - 1j), (1 + 1j) ** x, x**y, 2**y),
    "matmul": lambda t, x, y: (x @ y.mT, x @ y.mH, t.einsum("ij,kj->ik", x, y.conj())),
    "products": lambda t, x, y: (t.vdot(x[0], y[0]), t.dot(x[0], y[0]), t.linalg.vecdot(x, y)),
    "folds": lambda t, x, y: (x.sum(1), x.mean(0), x.prod(1), x.cumsum(0), y.cumprod(1), y.sum()),
    "spread": lambda t, x, y: (x.var(1), y.std(), x.norm(), t.linalg.vector_norm(y, 3, 1)),
    "shapes": lambda t, x, y: (t.cat([x, y]), t.stack([x, y], 1), x.t().reshape(-1), y.flip(0)),
    "choice": lambda t, x, y: t.where(x.real > 0, x, y),
    "places": lambda t, x, y: (x[:, [2, 0, 2]], x[1], y[x.real > 9], x.roll(1), x.diagonal()),
    "gather": lambda t, x, y: x.gather(1, t.tensor([[0, 1], [1, 1], [2, 0]])),
    "writes": lambda t, x, y: written(t, x, y),
    "parts": lambda t, x, y: (t.view_as_real(x), t.view_as_complex(t.stack([x.real, y.imag], -1))),
    "closeness": lambda t, x, y: (t.isclose(x, y), x == y, x != x, t.isreal(x), x.isfinite()),
    "solving": lambda t, x, y: (t.linalg.solve(x @ x.mH, y), t.linalg.inv(x @ y.mT)),
    "determinant": lambda t, x, y: t.linalg.det(x @ y.mT),
    "linear": lambda t, x, y: t.nn.functional.linear(x, y, y[:, 0]),
    "addmm": lambda t, x, y: t.addmm(x[:, :3], x, y.mT, beta=0.5, alpha=1 + 2j),
    "losses": lambda t, x, y: t.nn.functional.l1_loss(x, y),
}


def written(t: Any, x: Any, y: Any) -> Any:
    """Writes through views of complex memory, which all of its views see."""
    z = x * 1
    z[0] = y[1]
    t.view_as_real(z)[1, :, 0] = 5
    z.imag.mul_(2)
    z.real[2, 1:].copy_(y.real[2, 1:])
    pairs = t.view_as_real(y).clone()
    t.view_as_complex(pairs).mul_(z)
    return z, pairs


@pytest.mark.oracle
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_functions_as_pytorch(name: str, dtype: str) -> None:
    x, y = values(dtype, 3, 5), values(dtype, 3, 5, seed=1)
    compare(FUNCTIONS[name], x, y, tolerance=10 * limit_of(dtype))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_replay_equals_the_function(name: str, tmp_path: Any) -> None:
    """From memory, from a file, interpreted at each level, and compiled."""
    x, y, other = (values("complex64", 3, 5, seed=i) for i in range(3))
    if name in ("closeness", "places"):
        pytest.skip("its shapes or results follow from data")

    def function(x: Any, y: Any) -> Any:
        return FUNCTIONS[name](tg, x, y)

    traced = tg.trace(function, (tg.tensor(x), tg.tensor(y)))
    tg.save(traced, tmp_path / "f.tg")
    loaded = tg.load(tmp_path / "f.tg")
    given = (tg.tensor(other), tg.tensor(y))
    expected = several(function(*given))
    runs = [traced, loaded, *(loaded.program(level=level) for level in (0, 1, 2)), loaded.program()]
    for run in runs:
        for a, b in zip(several(run(*given)), expected, strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-4)
    text = print_graph(traced.graph, full=True)
    assert print_graph(parse_graph(text), full=True) == text


NAMES = ("bool", "uint8", "int64", "float16", "bfloat16", "float32", "float64")


@pytest.mark.oracle
def test_promotion_as_pytorch() -> None:
    import torch

    for name in NAMES:
        for other in ("complex64", "complex128"):
            mine = tg.promote_types(getattr(tg, name), getattr(tg, other))
            wanted = torch.promote_types(getattr(torch, name), getattr(torch, other))
            assert str(mine).split(".")[1] == str(wanted).split(".")[1]
            for shape, rest in (((2,), ()), ((), (2,)), ((), ())):
                found = [
                    str(t.result_type(t.ones(shape, dtype=getattr(t, name)),
                                      t.ones(rest, dtype=getattr(t, other)))).split(".")[1]
                    for t in (tg, torch)
                ]  # fmt: skip
                if name != "float16":  # which would become a complex number of 16-bit parts
                    assert found[0] == found[1], (name, other, shape)
        if name != "float16":
            kinds = [str((t.ones(2, dtype=getattr(t, name)) * 1j).dtype) for t in (tg, torch)]
            assert kinds[0].split(".")[1] == kinds[1].split(".")[1]


@pytest.mark.oracle
def test_text_as_pytorch() -> None:
    import torch

    for a in (
        values("complex64", 3, 4), np.complex64([1 + 2j, 3]), np.complex64(1.5 - 2j),
        np.complex64([1e5 + 1e-5j, 2]), np.complex64([complex(np.nan, 1), complex(1, np.inf)]),
        np.arange(2000).astype("c8") * 1j, np.complex64([10 + 100j, -1.5j]),
    ):  # fmt: skip
        assert repr(tg.tensor(a)) == repr(torch.tensor(a))


# What means something by itself.


def test_euler() -> None:
    z = tg.polar(tg.ones(3), tg.tensor([0.0, np.pi / 2, np.pi]))
    assert tg.allclose(z, tg.tensor([1, 1j, -1]), atol=1e-6)
    assert tg.allclose(z.angle().abs(), tg.tensor([0.0, np.pi / 2, np.pi]))
    assert (z.dtype, z.abs().dtype, z.to(tg.complex128).real.dtype) == (
        tg.complex64, tg.float32, tg.float64
    )  # fmt: skip
    assert tg.cfloat is tg.complex64 and tg.cdouble is tg.complex128
    assert complex(tg.tensor(1 + 2j)) == tg.tensor(1 + 2j).item() == 1 + 2j
    assert tg.tensor([[1j]]).tolist() == [[1j]]


def test_the_gradient_is_the_direction_of_steepest_ascent() -> None:
    """Of |z|² it is 2z; of re(z²) it is 2·conj(z); a real operand gets a real one."""
    z = tg.tensor([1 + 2j, -3j], requires_grad=True)
    (g,) = tg.autograd.grad(z.abs().square().sum(), z)
    assert tg.allclose(g, 2 * z.detach())
    (g,) = tg.autograd.grad((z * z).real.sum(), z)
    assert tg.allclose(g, 2 * z.detach().conj())
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    (x * z.detach()).imag.sum().backward()
    assert x.grad.dtype is tg.float32 and tg.allclose(x.grad, tg.tensor([2.0, -3.0]))


def test_where_there_is_no_direction_the_gradient_is_zero() -> None:
    z = tg.zeros(2, dtype=tg.complex64, requires_grad=True)
    for function in (tg.abs, tg.angle, lambda z: tg.sgn(z).real):
        (g,) = tg.autograd.grad(function(z).sum(), z)
        assert tg.equal(g, tg.zeros(2, dtype=tg.complex64))


def test_views_share_memory() -> None:
    x = tg.zeros(3, 2)
    z = tg.view_as_complex(x)
    z.fill_(1 + 2j)
    assert x.tolist() == [[1, 2]] * 3
    z.real = tg.tensor([7.0, 8.0, 9.0])
    tg.view_as_real(z)[0, 1] = -1
    assert x.tolist() == [[7, -1], [8, 2], [9, 2]]
    with pytest.raises(RuntimeError, match="stride 1"):
        tg.view_as_complex(tg.zeros(2, 3).t())
    with pytest.raises(RuntimeError, match="divisible by 2"):
        tg.view_as_complex(tg.zeros(3, 5)[:, 1:3])
    with pytest.raises(RuntimeError, match="size 2"):
        tg.view_as_complex(tg.zeros(3))


def test_numbers_that_do_not_fit_are_refused(T: Any) -> None:
    x = T.ones(3)
    for call in (
        lambda: x.add_(1j), lambda: x.fill_(1j), lambda: x.__setitem__(0, 1j),
        lambda: T.tensor(1j, dtype=T.float32), lambda: T.full((2,), 1j, dtype=T.float32),
        lambda: T.imag(x), lambda: T.view_as_real(x), lambda: T.complex(x, x.double()),
        lambda: x * 1j < 2, lambda: (x * 1j).max(), lambda: (x * 1j).sort(),
        lambda: (x * 1j).relu(), lambda: (x * 1j) // 2, lambda: (x * 1j).clamp(0, 1),
        lambda: T.nn.functional.mse_loss(x * 1j, x * 1j), lambda: (x * 1j).softmax(0),
    ):  # fmt: skip
        with pytest.raises((RuntimeError, TypeError)):
            call()
    with pytest.warns(UserWarning, match="discards the imaginary part"):
        assert (x * (2 + 1j)).float().tolist() == [2, 2, 2]


def test_random_numbers() -> None:
    z = tg.randn(20000, dtype=tg.complex64)
    assert abs(z.abs().square().mean().item() - 1) < 0.05
    assert abs((z * z).mean().item()) < 0.05
    u = tg.rand(1000, dtype=tg.complex128)
    assert u.real.min() >= 0 and u.imag.max() < 1 and u.imag.std() > 0.2
    assert tg.nn.Linear(4, 3, dtype=tg.cfloat)(tg.ones(2, 4, dtype=tg.cfloat)).shape == (2, 3)


OPTIMIZERS = ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "Adamax", "Rprop", "NAdam")


@pytest.mark.oracle
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_move_complex_parameters_as_pytorch(name: str) -> None:
    import torch

    moved = []
    for t in (tg, torch):
        w = t.nn.Parameter(t.tensor(values("complex64", 3, 4)))
        optimizer = getattr(t.optim, name)([w], lr=0.1)
        for _ in range(4):
            optimizer.zero_grad()
            ((w * w).abs().sum() + (w - 1j).abs().square().sum()).backward()
            optimizer.step()
        moved.append(w.detach().numpy())
    np.testing.assert_allclose(*moved, rtol=1e-4, atol=1e-5)


def test_gradients_are_clipped_by_their_moduli() -> None:
    z = tg.tensor([3 + 4j, 1j], requires_grad=True)
    (z.abs().square().sum() / 2).backward()
    assert tg.nn.utils.clip_grad_norm_([z], 1.0).item() == pytest.approx(26**0.5)
    assert tg.allclose(z.grad.abs().square().sum(), tg.tensor(1.0))
    with pytest.raises(RuntimeError, match="LBFGS"):
        tg.optim.LBFGS([z])


def test_many_operands_of_one_op() -> None:
    """Their mask must not be taken for what marks a holomorphic op."""
    xs = [tg.ones(1, requires_grad=True) for _ in range(70)]
    tg.cat(xs).sum().backward()
    assert all(x.grad.item() == 1 for x in xs)
    zs = [tg.full((1,), 1j, requires_grad=True) for _ in range(70)]
    (tg.stack(zs) * 1j).real.sum().backward()
    assert all(z.grad.item() == -1j for z in zs)


def test_control_flow_and_replays_carry_gradients() -> None:
    z = tg.randn(3, dtype=tg.complex64)

    def function(z: Any) -> Any:
        turned = tg.cond(z.abs().sum() > 9, lambda z: z.conj(), lambda z: z * 2j, (z,))
        return (turned.exp() * z).abs().sum()

    traced = tg.trace(function, (z,))
    found = []
    for run in (function, traced):
        leaf = z.clone().requires_grad_()
        run(leaf).backward()
        found.append(leaf.grad)
    assert tg.allclose(*found)


def test_files_and_copies_keep_complex_numbers(tmp_path: Any) -> None:
    layer = tg.nn.Module()
    layer.weight = tg.nn.Parameter(tg.randn(3, 3, dtype=tg.complex64))
    layer.register_buffer("turn", tg.polar(tg.ones(3), tg.arange(3.0)))
    tg.save(layer.state_dict(), tmp_path / "w.tg")
    for copied in (
        tg.load(tmp_path / "w.tg"), pickle.loads(pickle.dumps(layer.state_dict())),
        copy.deepcopy(layer.state_dict()),
    ):  # fmt: skip
        assert tg.equal(copied["turn"], layer.turn) and tg.equal(copied["weight"], layer.weight)
        assert copied["weight"].dtype is tg.complex64
