"""How results lie in memory, beside PyTorch: strides, what `view` allows, what `reshape` shares.

Graphs know nothing of it. So eager code and replays must agree on values whatever lies how.
"""

from __future__ import annotations

import copy
import re
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import tracegraph as tg
from tests import function_cases, nn_function_cases
from tests.both_modules import T  # noqa: F401

CALLS = {
    name: (function_cases.split(table), function_cases)
    for name, table in vars(function_cases).items()
    if name.isupper() and isinstance(table, str) and name != "OUT"
} | {
    name: (nn_function_cases.split(table), nn_function_cases)
    for name, table in nn_function_cases.FAMILIES.items()
}  # fmt: skip


def rows(t: ModuleType, array: Any) -> Any:
    return t.tensor(np.ascontiguousarray(array))


def reversed_dims(t: ModuleType, array: Any) -> Any:
    return rows(t, array.T).permute(*reversed(range(array.ndim))) if array.ndim else rows(t, array)


def first_dims_swapped(t: ModuleType, array: Any) -> Any:
    if array.ndim < 2:
        return rows(t, array)
    return rows(t, array.swapaxes(0, 1)).transpose(0, 1)


def channels_last(t: ModuleType, array: Any) -> Any:
    if array.ndim < 3:
        return reversed_dims(t, array)
    return rows(t, np.moveaxis(array, 1, -1)).movedim(-1, 1)


def every_other(t: ModuleType, array: Any) -> Any:
    return rows(t, array.repeat(2, -1))[..., ::2] if array.ndim else rows(t, array)


def part_of_reversed(t: ModuleType, array: Any) -> Any:
    return reversed_dims(t, array.repeat(2, 0))[::2] if array.ndim else rows(t, array)


def first_repeated(t: ModuleType, array: Any) -> Any:
    if array.ndim < 2 or not array.shape[0]:
        return rows(t, array)
    return rows(t, array[:1]).expand(*array.shape)


def last_repeated(t: ModuleType, array: Any) -> Any:
    if array.ndim < 2 or not array.shape[-1]:
        return rows(t, array)
    return rows(t, array[..., :1]).expand(*array.shape)


LAYOUTS = (rows, reversed_dims, first_dims_swapped, channels_last, every_other, part_of_reversed,
           first_repeated, last_repeated)  # fmt: skip

# What lies in rows where PyTorch has another order: matrices as LAPACK writes them, what has its
# channels side by side, parts without gaps, what advanced indices and operands of several orders
# give.
IN_ROWS = re.compile(
    r"linalg|cholesky|inverse|solve|geqrf|orgqr|ormqr|conv|pool|interpolate|F.pad|group_norm|"
    r"rms_norm|channel_shuffle|pixel_|attention|unfold|_scatter\(|unravel_index|a\[..., J\]|"
    r"x\[True\]|addr|einsum|igamma|zeta|polynomial|normalize|local_response"
)
# What lies in another order of dims than in PyTorch, neither being rows.
OTHERWISE = re.compile(
    r"_scatter\(|resize_|normalize|local_response|instance_norm|erfcx|igamma|zeta"
)


def leaves(result: Any) -> list[Any]:
    if isinstance(result, (tuple, list)):
        return [leaf for part in result for leaf in leaves(part)]
    return [result] if hasattr(result, "stride") else []


def order(x: Any) -> Any:
    """The strides that matter: those of dims with several elements."""
    if 0 in x.shape:
        return None
    return tuple(step for n, step in zip(x.shape, x.stride(), strict=True) if n > 1)


def run(t: ModuleType, call: str, cases: Any, layout: Any) -> list[Any] | None:
    """The results of a call on operands that lie in some way; None where it is refused."""
    names: dict[str, Any] = {"t": t, "F": t.nn.functional, "inf": np.inf, "nan": np.nan}
    code = compile(call, call, "eval")
    for name, array in cases.operands(np.float32).items():
        if name in code.co_names or re.search(rf"\b{name}\b", call):
            names[name] = layout(t, array)
    try:
        return leaves(eval(code, names))
    except Exception:
        return None


@pytest.mark.oracle
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("family", CALLS)
def test_results_lie_as_in_pytorch(family: str, layout: Any) -> None:
    torch = pytest.importorskip("torch")
    calls, cases = CALLS[family]
    for call in calls:
        torch.manual_seed(0), tg.manual_seed(0)
        want = run(torch, call, cases, layout)
        found = None if want is None else run(tg, call, cases, layout)
        if found is None or want is None or OTHERWISE.search(call):
            continue
        for mine, theirs in zip(found, want, strict=True):
            in_rows = mine.is_contiguous() and IN_ROWS.search(call)
            assert order(mine) == order(theirs) or in_rows, call


STRIDES = """
x.clone() -> 1 4; x.clone(memory_format=t.contiguous_format) -> 3 1; x.contiguous() -> 3 1
x.to(t.float64) -> 1 4; x.to(memory_format=t.contiguous_format) -> 1 4; x.double() -> 1 4
a.to(memory_format=t.contiguous_format) -> 60 20 4 1; x.long() -> 1 4; x.exp() -> 1 4
x.double(memory_format=t.contiguous_format) -> 3 1; x + 1 -> 1 4; 2 ** x -> 3 1; x ** 2 -> 1 4
t.pow(2, x) -> 3 1; t.zeros_like(x) -> 1 4; t.ones_like(x, dtype=t.int64) -> 1 4
t.empty_like(x) -> 1 4; t.rand_like(x) -> 1 4; t.randn_like(x) -> 1 4; t.randint_like(x, 5) -> 1 4
t.full_like(x, 3.0) -> 1 4; t.zeros_like(x, memory_format=t.contiguous_format) -> 3 1
x.flip(0) -> 1 4; x.rot90() -> 4 1; x.sort(0)[0] -> 1 4; x.argsort(1) -> 1 4; x.tril() -> 3 1
x.masked_fill(x > 0, 0.0) -> 3 1; x.softmax(0) -> 3 1; x.cumsum(0) -> 3 1; t.fill(x, 2.0) -> 1 4
x.index_put((i,), x[:2]) -> 1 4; x.index_add(0, i, x[:2]) -> 3 1; x.put(i, x[0, :2]) -> 1 4
x.index_copy(0, i, x[:2]) -> 3 1; x.select_scatter(x[0], 0, 1) -> 1 4; x.nonzero() -> 1 12
t.renorm(x, 2, 0, 1.0) -> 3 1; x.narrow_copy(0, 0, 2) -> 3 1; F.logsigmoid(x) -> 3 1
F.batch_norm(x, None, None, training=True) -> 3 1; F.rms_norm(x, (3,)) -> 3 1; F.rrelu(x) -> 3 1
F.one_hot(x.long(), 20) -> 60 20 1; t.mvlgamma(x + 9, 2) -> 3 1; copy.deepcopy(x) -> 1 4
e.clone() -> 3 1; e.double() -> 3 1; t.zeros_like(e) -> 3 1; e + 1 -> 3 1; c.clone() -> 4 1
t.zeros_like(c) -> 4 1; c.ravel() -> 1; x.ravel() -> 1; s.clone() -> 1 3 9; t.tensor(n) -> 1 4
a.clone() -> 60 1 12 3; t.zeros_like(a) -> 60 1 12 3; F.max_pool2d(x[None], 1) -> 12 3 1
F.batch_norm(a, None, None, training=True) -> 60 1 12 3
F.batch_norm(a, t.zeros(3), t.ones(3)) -> 60 1 12 3
F.batch_norm(s, None, None, None, None, True) -> 6 2 1
t.expand_copy(x, (4, 3)) -> 3 1; t.permute_copy(x, (1, 0)) -> 4 1; t.roll(x, 0, 0) -> 3 1
t.rot90(x, 4) -> 3 1; F.pixel_shuffle(s, 1) -> 6 2 1; F.adaptive_avg_pool2d(b, (2, 2)) -> 12 4 2 1
a.float(memory_format=t.contiguous_format) -> 60 20 4 1; t.view_copy(x, (4, 3)) -> 3 1
F.pad(r, (-1, 2, 0, 0), mode="replicate") -> 20 5 1
"""
CASES = [call.split(" -> ") for call in function_cases.split(STRIDES)]


@pytest.mark.parametrize(("call", "strides"), CASES)
def test_strides(T: Any, call: str, strides: str) -> None:
    numbers = np.arange(1, 13, dtype=np.float32).reshape(3, 4)
    names = {
        "t": T, "F": T.nn.functional, "copy": copy, "n": numbers.T, "x": T.tensor(numbers).t(),
        "i": T.tensor([1, 0]), "e": T.ones(1, 3).expand(4, 3), "c": T.ones(3, 8)[:, ::2],
        "s": T.ones(2, 3, 6).permute(2, 1, 0)[::2], "a": T.ones(2, 5, 4, 3).movedim(-1, 1),
        "r": T.ones(2, 4, 4), "b": T.ones(2, 4, 3, 2).permute(3, 2, 1, 0),
    }  # fmt: skip
    found = eval(call, names)
    assert " ".join(map(str, found.stride())) == strides


GRADIENTS = ("w * w", "T.ones(2, 4) @ w", "w.t() * 2", "w[1:]", "w[T.tensor([0, 1])]", "w.sum()",
             "T.nn.functional.linear(T.ones(2, 3), w)", "(w @ w.t()).inverse()")  # fmt: skip


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("call", GRADIENTS)
def test_gradients_lie_as_their_leaves_do(T: Any, call: str, turned: bool) -> None:
    w = T.arange(12.0).reshape(4, 3).cos()
    w = (w.t().contiguous().t() if turned else w).requires_grad_()
    for _ in range(2):
        eval(call, {"T": T, "w": w}).sum().backward()
        assert w.grad.stride() == w.stride() == ((1, 4) if turned else (3, 1))


def test_what_view_allows_and_what_reshape_shares(T: Any) -> None:
    x = T.arange(12.0).reshape(3, 4).t()
    for copied in (x.clone(), x.flip(0), T.zeros_like(x), x.sort(0)[0]):
        with pytest.raises(RuntimeError):
            copied.view(-1)
        before = copied.clone()
        copied.reshape(-1)[0] = 99
        assert T.equal(copied, before)
        copied.t().reshape(-1)[0] = 99
        assert copied[0, 0].item() == 99
    filled = x.masked_fill(x > 5, 0.0)
    filled.view(-1)[0] = 99
    assert filled[0, 0].item() == 99
    part = T.zeros(3, 4)[:, ::2]
    part.ravel()[0] = 1
    assert not part.any()
    image = T.zeros(1, 1, 4, 4)
    T.nn.functional.pad(image, (-1, 0, 0, 0), mode="replicate")[...] = 1
    assert not image.any()


def written(x: Any) -> Any:
    """What a function gives whose writes reach what they do by how memory lies."""
    y = x.t().clone()
    y.reshape(-1)[0] = 50
    y.t().reshape(-1)[1] = 60
    z = tg.zeros_like(y)
    z.reshape(-1)[2] = 70
    w = y.masked_fill(y > 20, 1.0)
    w.view(-1)[3] = 80
    return y, z, w, y.sort(0)[0] + w.flip(1), (y * z).sum(0)


@pytest.mark.parametrize("turned", [False, True])
def test_replays_agree_with_eager_code(turned: bool) -> None:
    x = tg.arange(12.0).reshape(3, 4)
    x = x.t().contiguous().t() if turned else x
    want = written(x)
    traced = tg.trace(written, (x,))
    for replay in (traced, traced.program(level=1), traced.program()):
        for found, expected in zip(replay(x), want, strict=True):
            assert tg.equal(found, expected)
