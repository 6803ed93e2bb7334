"""`nn.functional` beside PyTorch: values, dtypes, shapes, gradients and gradients of gradients."""

from __future__ import annotations

import re
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import tracegraph as tg
from tests.nn_function_cases import FAMILIES, FLOATS, operands, split

CALLS = [pytest.param(call, id=call) for table in FAMILIES.values() for call in split(table)]
TOLERANCE = {np.float64: 1e-9, np.float32: 3e-5}


def tensors(t: ModuleType, call: str, dtype: Any, strided: bool = False) -> dict[str, Any]:
    """Return the operands that a call names as tensors of a module, floats as leaves."""
    used = set(re.findall(r"\w+", call))
    made = {}
    for name, array in operands(dtype).items():
        if name in used:
            array = np.asfortranarray(array) if strided and array.ndim > 1 else array.copy()
            made[name] = t.from_numpy(array)
            if name in FLOATS:
                made[name].requires_grad_()
    return made


def run(t: ModuleType, call: str, named: dict[str, Any]) -> list[Any]:
    results = eval(call, {"F": t.nn.functional, "t": t} | named)
    return [r for r in (results if isinstance(results, tuple) else (results,)) if r is not None]


def weighted(results: list[Any]) -> Any:
    """A sum of all results that has a gradient, each element weighted differently."""
    total = None
    for result in results:
        if result.requires_grad:
            weights = result.new_tensor(np.linspace(0.5, 1.5, result.numel()).tolist())
            part = (result * weights.reshape(result.shape)).sum()
            total = part if total is None else total + part
    return total


def compare(found: Any, expected: Any, tolerance: float, what: str) -> None:
    found, expected = (v.detach().numpy(force=True) for v in (found, expected))
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype), what
    if expected.dtype.kind != "f":
        np.testing.assert_array_equal(found, expected, err_msg=what)
        return
    scale = max(1.0, float(np.abs(expected[np.isfinite(expected)]).max(initial=0)))
    np.testing.assert_allclose(found, expected, tolerance, tolerance * scale, err_msg=what)


def gradients(t: ModuleType, results: list[Any], named: dict[str, Any]) -> list[Any]:
    """Gradients of the results, then those of the sum of their squares where there are any.

    None stands for no gradient, and the second half is missing where there is no derivative.
    """
    leaves = [v for name, v in named.items() if name in FLOATS]
    total = weighted(results)
    if total is None or not leaves:
        return []
    first = list(t.autograd.grad(total, leaves, create_graph=True, allow_unused=True))
    squares = [(g * g).sum() for g in first if g is not None and g.requires_grad]
    if not squares or "n" in named:  # NaN and infinity: PyTorch's kernels differ among themselves
        return [*first, *(None for _ in leaves)]
    try:
        return [*first, *t.autograd.grad(sum(squares), leaves, allow_unused=True)]
    except (RuntimeError, NotImplementedError):
        assert t is not tg
        return first


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("call", CALLS)
def test_results_and_gradients_are_those_of_pytorch(call: str, dtype: Any) -> None:
    import torch

    theirs, mine = tensors(torch, call, dtype), tensors(tg, call, dtype)
    expected, found = run(torch, call, theirs), run(tg, call, mine)
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        compare(a, b, TOLERANCE[dtype], call)
    # Where PyTorch has no second derivative, there is the first half to compare.
    for a, b in zip(gradients(tg, found, mine), gradients(torch, expected, theirs), strict=False):
        if a is None or b is None:
            rest = [g.detach().numpy(force=True) for g in (a, b) if g is not None]
            assert not np.any(rest), call
        else:
            compare(a, b, 20 * TOLERANCE[dtype], f"gradient of {call}")


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_layout_in_memory_changes_nothing(call: str) -> None:
    plain = run(tg, call, tensors(tg, call, np.float64))
    strided = run(tg, call, tensors(tg, call, np.float64, strided=True))
    for a, b in zip(strided, plain, strict=True):
        compare(a, b, 1e-12, call)


HALF = """
F.relu(x); F.gelu(x); F.softplus(x); F.linear(x, z, h3); F.conv2d(x2, k2, h6); F.max_pool2d(x2,
2); F.avg_pool2d(x2, 3, 2, 1); F.layer_norm(x, (4,), m4, h4); F.batch_norm(x2, None, None, m4, h4,
True); F.interpolate(x2, (3, 11), mode="bilinear"); F.scaled_dot_product_attention(Q, K, V);
F.mse_loss(a, b); F.cross_entropy(l, y3); F.embedding(j, W); F.conv_transpose2d(x2, t2); F.fold(f,
(3, 2), 2)
"""


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["float16", "bfloat16"])
@pytest.mark.parametrize("call", split(HALF))
def test_sixteen_bit_floats(call: str, name: str) -> None:
    import torch

    sides = []
    for t in (torch, tg):
        named = tensors(t, call, np.float32)
        dtype = getattr(t, name)
        named = {k: v.detach().to(dtype) if k in FLOATS else v for k, v in named.items()}
        (result,) = run(t, call, named)
        assert result.dtype is dtype
        sides.append(result.float())
    compare(sides[1], sides[0], 0.02 if name == "float16" else 0.06, call)
