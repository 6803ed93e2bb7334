"""General tensor functions beside PyTorch: values, dtypes, shapes and gradients."""

from __future__ import annotations

import copy
import functools
import math
import random
import subprocess
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import tracegraph as tg
from tests import function_cases
from tests.function_cases import FLOATS, operands, split
from tracegraph.errors import OpError

DIFFERENTIABLE = (
    function_cases.POINTWISE, function_cases.REDUCTION, function_cases.SHAPE,
    function_cases.INDEXING, function_cases.LINEAR, function_cases.LATER,
)  # fmt: skip
CALLS = [call for table in DIFFERENTIABLE for call in split(table)]
WRITES = split(function_cases.IN_PLACE) + split(function_cases.OUT)
TOLERANCE = {np.float64: 1e-9, np.float32: 2e-5}


def tensors(t: ModuleType, dtype: Any, gradients: bool, strided: bool = False) -> dict[str, Any]:
    """Return the operands as tensors of a module, floats as leaves if gradients are wanted."""
    made = {}
    for name, array in operands(dtype).items():
        if strided and array.ndim >= 2:  # the same elements, columns first in memory
            array = np.asfortranarray(array)
        made[name] = t.from_numpy(array) if strided else t.tensor(array)
        if gradients and name in FLOATS:
            made[name].requires_grad_()
    return made


def flatten(result: Any) -> list[Any]:
    if isinstance(result, (tuple, list)):
        return [leaf for part in result for leaf in flatten(part)]
    return [result]


def array_of(value: Any) -> Any:
    return value.detach().numpy(force=True) if hasattr(value, "detach") else np.asarray(value)


def compare(found: Any, expected: Any, tolerance: float) -> None:
    found, expected = array_of(found), array_of(expected)
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    if expected.dtype.kind != "f":
        np.testing.assert_array_equal(found, expected)
        return
    if expected.dtype == np.float32:
        tolerance = max(tolerance, TOLERANCE[np.float32])
    finite = np.abs(expected[np.isfinite(expected)])
    scale = max(1.0, float(finite.max(initial=0)))
    np.testing.assert_allclose(found, expected, tolerance, tolerance * scale)


def run(t: ModuleType, call: str, named: dict[str, Any]) -> list[Any]:
    return flatten(eval(call, {"t": t}, named))


def backward(results: list[Any]) -> bool:
    """Run backward from a weighted sum of what has history; says whether there was any."""
    total = None
    for result in results:
        if getattr(result, "requires_grad", False):
            weights = result.new_tensor(np.linspace(0.5, 1.5, result.numel()).tolist())
            part = (result * weights.reshape(result.shape)).sum()
            total = part if total is None else total + part
    if total is not None:
        total.backward()
    return total is not None


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("call", CALLS)
def test_results_and_gradients_are_those_of_pytorch(call: str, dtype: Any) -> None:
    import torch

    theirs = tensors(torch, dtype, gradients=True)
    mine = tensors(tg, dtype, gradients=True)
    with np.errstate(all="ignore"):
        expected, found = run(torch, call, theirs), run(tg, call, mine)
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            compare(a, b, TOLERANCE[dtype])
        try:
            if not backward(expected):
                return
        except (RuntimeError, NotImplementedError):
            return  # PyTorch has no derivative here
        assert backward(found)
    for name, tensor in theirs.items():
        if tensor.grad is not None:
            grad = mine[name].grad
            found_grad = np.zeros(tensor.shape, dtype) if grad is None else grad
            compare(found_grad, tensor.grad, 20 * TOLERANCE[dtype])


@pytest.mark.oracle
@pytest.mark.parametrize("call", CALLS)
def test_layout_in_memory_changes_nothing(call: str) -> None:
    plain = run(tg, call, tensors(tg, np.float64, gradients=False))
    if ".view(" in call:
        return  # a view of other strides is refused, as it should be
    strided = run(tg, call, tensors(tg, np.float64, gradients=False, strided=True))
    for a, b in zip(plain, strided, strict=True):
        compare(a, b, 1e-12)


@pytest.mark.oracle
@pytest.mark.parametrize("call", WRITES)
def test_writes_are_those_of_pytorch(call: str) -> None:
    """What a write returns, and what every operand holds afterwards."""
    import torch

    theirs = tensors(torch, np.float64, gradients=False)
    mine = tensors(tg, np.float64, gradients=False)
    with np.errstate(all="ignore"):
        expected, found = run(torch, call, theirs), run(tg, call, mine)
    for a, b in zip(found, expected, strict=True):
        compare(a, b, 1e-9)
    for name, tensor in theirs.items():
        compare(mine[name], tensor, 1e-9)


@pytest.mark.parametrize("call", split(function_cases.IN_PLACE))
def test_a_write_in_place_is_the_function_with_its_gradient(call: str) -> None:
    """`x.f_(...)` after `x = x * 1` has the gradient of `x.f(...)`, where there is such an f."""
    name, arguments, function = method_parts(call)
    if not function or not hasattr(tg.Tensor, function):
        pytest.skip("has no form out of place")
    grads = []
    for method in (function, function + "_"):
        named = tensors(tg, np.float64, gradients=True)
        leaf = named[name]
        if not leaf.requires_grad:
            pytest.skip("holds no floats")
        named[name] = leaf * 1
        with np.errstate(all="ignore"):
            backward(run(tg, f"{name}.{method}({arguments}", named))
        grads.append({k: t.grad for k, t in (named | {name: leaf}).items() if k in FLOATS})
    for key, grad in grads[0].items():
        other = grads[1][key]
        zeros = np.zeros(tuple(tensors(tg, np.float64, False)[key].shape))
        a, b = (zeros if g is None else array_of(g) for g in (grad, other))
        np.testing.assert_allclose(a, b, 1e-12, 1e-12)


def method_parts(call: str) -> tuple[str, str, str]:
    """Split `x.f_(arguments)` into the operand, the arguments and f; f is empty for other calls."""
    head, _, arguments = call.partition("(")
    name, dot, method = head.partition(".")
    plain = bool(dot) and name.isalpha() and method.endswith("_") and method[:-1].isidentifier()
    comparisons = ("eq_", "gt_", "logical_not_")  # their functions give bools
    return name, arguments, method[:-1] if plain and method not in comparisons else ""


# Without an oracle.

KNOWN = {
    "t.arange(6).reshape(2, 3) @ t.arange(3)": [5, 14],
    "t.einsum('ij,jk->ik', t.eye(2) * 2, t.ones(2, 2))": [[2.0, 2.0], [2.0, 2.0]],
    "t.tensor([3.0, 1.0, 2.0]).sort().indices": [1, 2, 0],
    "t.tensor([[1.0, 5.0], [7.0, 2.0]]).max(1).values": [5.0, 7.0],
    "t.tensor([1.0, 2.0, 3.0, 4.0]).var()": 5 / 3,
    "t.tensor([1.0, 2.0, 4.0]).cumprod(0)": [1.0, 2.0, 8.0],
    "t.tensor([0.0, 0.0]).logsumexp(0)": math.log(2),
    "t.tensor([0.0, math.log(3)]).softmax(0)": [0.25, 0.75],
    "t.linalg.det(t.tensor([[2.0, 1.0], [1.0, 3.0]]))": 5.0,
    "t.linalg.solve(t.tensor([[2.0, 0.0], [0.0, 4.0]]), t.tensor([2.0, 2.0]))": [1.0, 0.5],
    "t.lgamma(t.tensor([1.0, 2.0, 5.0]))": [0.0, 0.0, math.log(24)],
    "t.tensor([1, 5, 3, 3]).unique()": [1, 3, 5],
    "t.zeros(3).scatter_add(0, t.tensor([0, 2, 2]), t.ones(3))": [1.0, 0.0, 2.0],
    "t.tensor([[1, 2], [3, 4]]).roll(1)": [[4, 1], [2, 3]],
    "t.clamp(t.tensor([-1.0, math.nan, 3.0]), 0, 1)": [0.0, math.nan, 1.0],
    "t.cross(t.tensor([1.0, 0, 0]), t.tensor([0.0, 1, 0]))": [0.0, 0.0, 1.0],
    "t.quantile(t.tensor([0.0, 1.0, 2.0, 3.0]), 0.5)": 1.5,
    "t.histc(t.tensor([0.0, 1.0, 2.0, 1.0]), 2, 0, 2)": [1.0, 3.0],
}  # fmt: skip


@pytest.mark.parametrize("call", KNOWN)
def test_known_values(call: str) -> None:
    result = eval(call, {"t": tg, "math": math})
    np.testing.assert_allclose(result.numpy(), KNOWN[call], 1e-6, 1e-6)


def test_infinities_and_nan_are_results_without_a_warning() -> None:
    code = """
import tracegraph as t
x = t.zeros(2, requires_grad=True)
(t.log(x) + x / x + t.sqrt(x - 1) + t.tensor([1e38, 1.0]).exp()).sum().backward()
"""
    command = [sys.executable, "-W", "default", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""


def gradient_of(function: Any, *values: Any) -> list[list[float]]:
    leaves = [tg.tensor(v, dtype=tg.float64, requires_grad=True) for v in values]
    function(*leaves).sum().backward()
    return [leaf.grad.tolist() for leaf in leaves]


def test_ties_share_the_gradient_of_amax_and_the_first_takes_that_of_max() -> None:
    assert gradient_of(lambda x: x.amax(0), [2.0, 2.0, 1.0]) == [[0.5, 0.5, 0.0]]
    assert gradient_of(lambda x: x.max(), [2.0, 2.0, 1.0]) == [[0.5, 0.5, 0.0]]
    assert gradient_of(lambda x: x.max(0).values, [2.0, 2.0, 1.0]) == [[1.0, 0.0, 0.0]]
    assert gradient_of(tg.maximum, [1.0, 3.0], [1.0, 2.0]) == [[0.5, 1.0], [0.5, 0.0]]


def test_products_with_zeros_have_exact_gradients() -> None:
    assert gradient_of(lambda x: x.prod(), [0.0, 3.0, 2.0]) == [[6.0, 0.0, 0.0]]
    assert gradient_of(lambda x: x.prod(), [0.0, 0.0, 2.0]) == [[0.0, 0.0, 0.0]]
    assert gradient_of(lambda x: x.cumprod(0), [2.0, 0.0, 3.0]) == [[1.0, 8.0, 0.0]]


def test_norms_have_no_gradient_at_zero_and_deviations_none_where_nothing_varies() -> None:
    assert gradient_of(lambda x: x.norm(), [0.0, 0.0]) == [[0.0, 0.0]]
    assert gradient_of(lambda x: x.std(), [1.0, 1.0]) == [[0.0, 0.0]]
    assert gradient_of(lambda x: x**0, [0.0, 2.0]) == [[0.0, 0.0]]


def test_a_determinant_of_a_singular_matrix_has_a_gradient() -> None:
    assert np.allclose(gradient_of(tg.det, [[1.0, 2.0], [2.0, 4.0]]), [[[4.0, -2.0], [-2.0, 1.0]]])


def test_named_results_have_the_names_of_pytorch() -> None:
    values, indices = found = tg.tensor([3.0, 1.0]).sort()
    assert found.values is values
    assert found.indices is indices
    assert type(found).__name__ == "sort"
    assert copy.copy(found) == found


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("t.ones(2, 3) @ t.ones(2, 3)", RuntimeError),
        ("t.ones(2) @ t.ones(3)", RuntimeError),
        ("t.ones(2, 2) @ t.ones(2, 2, dtype=t.float64)", RuntimeError),
        ("t.ones(0, 3).max()", RuntimeError),
        ("t.ones(0, 3).max(0)", IndexError),
        ("t.ones(2, 3).sum(2)", IndexError),
        ("t.ones(2, 3).mean(0, dtype=t.float32).gather(0, t.tensor([3]))", RuntimeError),
        ("t.ones(2, 3).scatter(0, t.tensor([[2]]), 1.0)", IndexError),
        ("t.tensor([1, 2]).mean()", RuntimeError),
        ("t.linalg.inv(t.zeros(2, 2))", tg.linalg.LinAlgError),
        ("t.linalg.cholesky(-t.eye(2))", tg.linalg.LinAlgError),
        ("t.linalg.inv(t.ones(2, 3))", RuntimeError),
        ("t.ones(3).topk(4)", RuntimeError),
        ("t.cat([])", ValueError),
        ("t.cat([t.ones(2, 3), t.ones(2, 2)])", RuntimeError),
        ("t.einsum('ij,jk', t.ones(2, 3), t.ones(2, 3))", RuntimeError),
        ("t.ones(2).masked_fill(t.ones(2), 0)", RuntimeError),
        ("t.tensor([1]).masked_fill(t.tensor([True]), 0.5)", RuntimeError),
        ("t.ones(3).reshape(2, 2)", RuntimeError),
        ("t.ones(2, 3).expand(2, 4)", RuntimeError),
        ("t.arange(3, 0)", RuntimeError),
        ("t.ones(3).tril()", RuntimeError),
        ("t.add(t.ones(2), 1, out=t.ones(2, dtype=t.int64))", RuntimeError),
    ],
)
def test_misuse_raises_what_pytorch_raises(call: str, error: Any) -> None:
    with pytest.raises(error) as caught:
        eval(call, {"t": tg})
    assert str(caught.value)


def test_a_traced_start_of_narrow_is_followed_and_its_result_refuses_writes() -> None:
    x, one = tg.arange(20.0).reshape(4, 5), tg.tensor(1)
    traced = tg.trace(lambda x, start: tg.narrow(x, 1, start, 2) * 2, (x, one))
    for start in (0, 3, -2):
        expected = tg.narrow(x, 1, start, 2) * 2
        assert traced(x, tg.tensor(start)).tolist() == expected.tolist()
    for start in (4, -1, -7, 9):
        with pytest.raises(IndexError):
            traced(x, tg.tensor(start))
    with pytest.raises(RuntimeError, match="clone"):
        tg.trace(lambda x, start: tg.narrow(x, 1, start, 2).add_(1), (x, one))
    for start in (tg.tensor([1]), tg.tensor(1.0)):
        with pytest.raises(RuntimeError, match="integral"):
            tg.narrow(x, 1, start, 2)


def test_running_sums_of_exponentials_keep_their_digits_in_float32() -> None:
    x = np.linspace(0, 1000, 2000, dtype=np.float32)
    found = tg.logcumsumexp(tg.tensor(x), 0).numpy().astype(np.float64)
    expected = np.logaddexp.accumulate(x.astype(np.float64))
    assert np.abs(found - expected).max() <= 3.1e-5  # half a unit in the last place of 1000


def test_an_object_of_a_subclass_shares_memory_and_history() -> None:
    class Named(tg.Tensor):
        pass

    x = tg.ones(2, requires_grad=True)
    y = (x * 2).as_subclass(Named)
    assert type(y) is Named
    y.sum().backward()
    assert x.grad.tolist() == [2.0, 2.0]
    base = tg.zeros(2)
    base.as_subclass(Named).add_(1)
    assert base.tolist() == [1.0, 1.0]
    for call in (lambda: x.apply_(abs), lambda: x.set_(base)):
        with pytest.raises(RuntimeError):
            call()
    with pytest.raises(RuntimeError, match="igamma"):
        tg.igamma(x, x)
    with pytest.raises(RuntimeError, match="int"):
        tg.special.legendre_polynomial_p(x, tg.tensor([1, 2]))
    tg.special.legendre_polynomial_p(x, 2).sum().backward()
    assert x.grad.tolist() == [5.0, 5.0]


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("call", CALLS)
def test_results_share_memory_with_an_operand_where_pytorch_s_do(call: str) -> None:
    """So that a write to a result is seen, or not, where it is in PyTorch."""
    import torch

    found = []
    for t in (tg, torch):
        named = tensors(t, np.float32, gradients=False)
        results = [r for r in run(t, call, named) if hasattr(r, "stride") and r.numel()]
        found.append([
            [name for name, x in named.items()
             if hasattr(x, "stride") and np.shares_memory(x.numpy(), r.numpy())]
            for r in results
        ])  # fmt: skip
    assert found[0] == found[1]


def test_repeated_tensors_have_memory_of_their_own() -> None:
    x = tg.arange(4.0)
    for y in (x.repeat(3, 1), x.reshape(1, 1, 4).repeat(2, 3, 1), x.repeat(1), x.tile((2, 1)),
              x.reshape(4, 1).repeat_interleave(3, 1), x.repeat_interleave(1)):  # fmt: skip
        y[0] = 9
    assert x.tolist() == [0.0, 1.0, 2.0, 3.0]


def test_results_along_a_dim_can_be_viewed() -> None:
    x = tg.rand(2, 3, 4)
    for dim in range(3):
        for result in (x.kthvalue(2, dim), x.median(dim), x.mode(dim), x.max(dim), x.topk(1, dim)):
            for part in result:
                part.view(-1)


def test_windows_side_by_side_are_a_view() -> None:
    x = tg.arange(10.0)
    x.unfold(0, 2, 3)[1] = -1
    assert x.tolist() == [0, 1, 2, -1, -1, 5, 6, 7, 8, 9]
    x.unfold(0, 3, 3)[0, 1] = 7
    assert x[1].item() == 7


def _through_steps(x: Any) -> Any:
    view = x.as_strided((2, 2), (4, 1), 5)
    view.mul_(10)
    x[2].fill_(3)
    rows = x[1:].as_strided((2,), (4,))
    return x * 1, view * 1, rows + x[1:].storage_offset(), x[1:].as_strided((2,), (1,), 6) * 2


def _through_windows(x: Any) -> Any:
    windows = x.reshape(-1).unfold(0, 4, 3)
    x.add_(1)
    return windows * 2, x.unfold(0, 2, 1).sum(), x.unfold(1, 3, 1) * 1


def _squares_of_windows(x: Any) -> Any:
    y = x * 1
    y.as_strided((3,), (2,)).mul_(3)
    return (y.unfold(1, 2, 1) ** 2).sum(), (y**2).sum()


@pytest.mark.oracle
@pytest.mark.parametrize("function", [_through_steps, _through_windows, _squares_of_windows])
def test_views_by_steps_share_memory(function: Any) -> None:
    torch = pytest.importorskip("torch")
    x, y, z = tg.arange(12.0).reshape(3, 4), torch.arange(12.0).reshape(3, 4), tg.ones(3, 4)
    if function is _squares_of_windows:
        mine, theirs = x.clone().requires_grad_(), y.clone().requires_grad_()
        sum(function(mine)).backward()
        sum(function(theirs)).backward()
        assert mine.grad.tolist() == theirs.grad.tolist()
    traced = tg.trace(function, (z,))
    assert z.tolist() == tg.ones(3, 4).tolist()
    right = function(y)
    for run, given in ((function, x.clone()), (traced, x)):
        for mine, theirs in zip(run(given), right, strict=True):
            assert mine.tolist() == theirs.tolist()
        assert given.tolist() == y.tolist()


def _some_view(t: Any, x: Any, seed: int) -> Any:
    draw = random.Random(seed)
    for _ in range(draw.randrange(1, 6)):
        kind = draw.randrange(3)
        if kind == 0:
            index: list[Any] = []
            for n in x.shape:
                first = draw.randrange(n + 1)
                part = slice(first, draw.randrange(first, n + 1), draw.choice((1, 1, 2, 3)))
                index.append(draw.randrange(n) if n and draw.random() < 0.2 else part)
            x = x[tuple(index)]
        elif kind == 1:
            order = list(range(x.ndim))
            draw.shuffle(order)
            x = x.permute(order)
        else:
            x = x[None] if draw.random() < 0.5 else x.unsqueeze(-1)
    return x


@pytest.mark.oracle
def test_views_of_views_are_written_where_pytorch_writes() -> None:
    """Steps of one kind are joined to one; an empty view may lie anywhere."""
    torch = pytest.importorskip("torch")

    def double(t: Any, by: Any, seed: int) -> Any:
        whole = t.arange(120.0).reshape(4, 5, 6) * 1
        view = _some_view(t, whole, seed)
        whole.add_(1)
        before = view * 1
        view.mul_(by)
        return whole, view * 1, before

    for seed in range(150):
        right = double(torch, 2.0, seed)
        traced = tg.trace(functools.partial(double, tg, seed=seed), (tg.tensor(3.0),), check=False)
        for found in (double(tg, 2.0, seed), traced(tg.tensor(2.0))):
            for mine, theirs in zip(found, right, strict=True):
                assert mine.tolist() == theirs.tolist(), seed


@pytest.mark.parametrize(
    ("write", "why"),
    [
        (lambda x: x.unfold(0, 3, 1).mul_(2), "more than one element"),
        (lambda x: x.as_strided((3, 3), (1, 1)).fill_(0), "more than one element"),
        (lambda x: x.reshape(2, 5).t().unfold(0, 3, 1).zero_(), "a copy that stands for a view"),
        (lambda x: x.reshape(2, 5).t().as_strided((2,), (1,)), "not contiguous"),
        (lambda x: x[3:].as_strided((2,), (1,), 2), "lies before the memory"),
        (lambda x: x.as_strided((4, 4), (3, 1)), "out of bounds"),
    ],
)
def test_writes_that_would_be_lost_are_refused(write: Any, why: str) -> None:
    for run in (write, lambda x: tg.trace(write, (x,))):
        x = tg.arange(10.0)
        with pytest.raises(OpError, match=why):
            run(x)
        assert x.tolist() == tg.arange(10.0).tolist()


def test_closed_forms_of_what_is_computed_in_loops() -> None:
    x = tg.tensor([0.25, 1.0, 3.0], dtype=tg.float64)
    one, two = tg.ones_like(x), tg.full_like(x, 2)
    special = tg.special
    exponential = -(-x).expm1()
    pairs = [
        (special.gammainc(one, x), exponential),
        (special.gammaincc(two, x), (1 + x) * (-x).exp()),
        (special.zeta(two, one), one * math.pi**2 / 6),
        (special.zeta(two * 2, one), one * math.pi**4 / 90),
        (special.erfcx(x), (x * x).exp() * x.erfc()),
        (special.erfcx(-x), (x * x).exp() * (-x).erfc()),
        (special.legendre_polynomial_p(x, 2), (3 * x * x - 1) / 2),
        (special.chebyshev_polynomial_t(x, 3), 4 * x**3 - 3 * x),
        (special.chebyshev_polynomial_u(x, 2), 4 * x * x - 1),
        (special.hermite_polynomial_h(x, 3), 8 * x**3 - 12 * x),
        (special.hermite_polynomial_he(x, 2), x * x - 1),
        (special.laguerre_polynomial_l(x, two), 1 - 2 * x + x * x / 2),
        (special.shifted_chebyshev_polynomial_t(x, 2), 2 * (2 * x - 1) ** 2 - 1),
    ]
    for got, wanted in pairs:
        np.testing.assert_allclose(got.numpy(), wanted.numpy(), rtol=2e-14)
    ends = tg.tensor([0.0, math.inf, -math.inf, math.nan])
    assert str(special.erfcx(ends).tolist()) == "[1.0, 0.0, inf, nan]"
    assert special.gammainc(tg.ones(2), tg.tensor([0.0, math.inf])).tolist() == [0.0, 1.0]
    assert math.isinf(special.zeta(tg.tensor(1.0), tg.tensor(2.0)).item())
    assert special.legendre_polynomial_p(x, -1).tolist() == [0.0] * 3


@pytest.mark.parametrize("name", ["sum", "mean", "prod", "amax", "var", "std", "norm", "any"])
def test_what_is_reduced_lies_in_rows(name: str) -> None:
    """Whatever its operand does, as in PyTorch: `flatten` of it is a view of it."""
    x = tg.arange(24.0).reshape(2, 3, 4).transpose(1, 2)
    y = getattr(x, name)(dim=0)
    flat = y.flatten()
    y.zero_()
    assert y.stride() == (3, 1) and not flat.any()
