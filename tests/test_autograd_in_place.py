"""Writes in place, views and what the tape keeps. Each test also runs on PyTorch."""

from __future__ import annotations

from typing import Any

import pytest

from tests.both_modules import T, numbers  # noqa: F401


def leaf(T: Any) -> Any:
    return T.tensor([1.0, 2.0, 3.0, 4.0], dtype=T.float64, requires_grad=True)


WRITES: dict[str, tuple[Any, list[float]]] = {
    "in place on a result": (lambda T, x, y: y.mul_(3), [6, 6, 6, 6]),
    "part set to a number": (lambda T, x, y: y.__setitem__(slice(0, 2), 0.0), [0, 0, 2, 2]),
    "part set to a tensor": (lambda T, x, y: y.__setitem__(0, x[3] * 5), [0, 2, 2, 7]),
    "through a view": (lambda T, x, y: y[1:].mul_(3), [2, 6, 6, 6]),
    "through a view of a view": (lambda T, x, y: y.view(2, 2)[1].t().mul_(3), [2, 2, 6, 6]),
    "through a view, other views read later": (
        lambda T, x, y: (y.view(2, 2), y[::2].mul_(5))[0].sum() * 0, [10, 2, 10, 2]),
    "all zeroed": (lambda T, x, y: y.zero_(), [0, 0, 0, 0]),
    "masked": (lambda T, x, y: y.__setitem__(x > 2.5, 0.0), [2, 2, 0, 0]),
    "copied over": (lambda T, x, y: y.copy_(x * x), [2, 4, 6, 8]),
    "at places": (lambda T, x, y: y.__setitem__(T.tensor([0, 3]), x[:2] * 10), [10, 12, 2, 0]),
    "multiplied by itself": (lambda T, x, y: y.mul_(y.clone()), [8, 16, 24, 32]),
    "an outer factor": (lambda T, x, y: y.mul_(x), [4, 8, 12, 16]),
    "in another order": (lambda T, x, y: (y[0].mul_(2), y.add_(1), y[:2].mul_(3)), [12, 6, 2, 2]),
    "diagonal": (lambda T, x, y: y.view(2, 2).diagonal().fill_(1.0), [0, 2, 2, 0]),
}  # fmt: skip


@pytest.mark.parametrize("case", WRITES)
def test_gradients_see_writes(T: Any, case: str) -> None:
    write, expected = WRITES[case]
    x = leaf(T)
    y = x * 2
    write(T, x, y)
    y.sum().backward()
    assert numbers(x.grad) == expected


OVERWRITES: dict[str, Any] = {
    "copied": lambda T, y, u: y.copy_(u),
    "copied and broadcast": lambda T, y, u: y.copy_(u[0]),
    "set": lambda T, y, u: y.__setitem__(..., u * 1),
    "by rows": lambda T, y, u: (y.__setitem__(0, u[0]), y.__setitem__(1, u[1])),
    "through a view": lambda T, y, u: y.t().unsqueeze(0).copy_(u),
    "filled": lambda T, y, u: y.fill_(u[0, 0]),
    "constant": lambda T, y, u: y.copy_(u.detach()),
    "at places": lambda T, y, u: y.__setitem__(T.tensor([0, 1]), u),
}


@pytest.mark.parametrize("case", OVERWRITES)
def test_what_is_overwritten_gets_a_gradient_of_zeros(T: Any, case: str) -> None:
    x, u = (T.ones(2, 2, requires_grad=True) for _ in range(2))
    y = x * 2
    OVERWRITES[case](T, y, u)
    y.sum().backward()
    assert numbers(x.grad) == [[0.0, 0.0], [0.0, 0.0]]
    assert (u.grad is None) == (case == "constant")


def test_a_write_gives_history_to_what_had_none(T: Any) -> None:
    x = leaf(T)
    whole = T.zeros(2, 4, dtype=T.float64)
    row = whole[0]
    other = whole.view(8)
    row.copy_(x * 3)
    assert whole.requires_grad and other.requires_grad and row.requires_grad
    (other[1:3] * 2).sum().backward()
    assert numbers(x.grad) == [0.0, 6.0, 6.0, 0.0]


def test_a_detached_write_cuts_no_history(T: Any) -> None:
    x = leaf(T)
    y = x * 2
    y.detach().add_(100)
    y.sum().backward()
    assert numbers(y)[0] == 102.0
    assert numbers(x.grad) == [2.0, 2.0, 2.0, 2.0]


def test_detach_shares_memory(T: Any) -> None:
    x = leaf(T)
    d = x.detach()
    with T.no_grad():
        x.add_(1)
    assert numbers(d) == [2.0, 3.0, 4.0, 5.0]


SAVED = {
    "the operand of a square": lambda T, y: (y * y, y),
    "the result of exp": lambda T, y: (lambda z: (z, z))(y.exp()),
    "the result of sigmoid": lambda T, y: (lambda z: (z, z))(y.sigmoid()),
    "through a view": lambda T, y: (y.sin(), y[1:]),
    "through detach": lambda T, y: (y.sin(), y.detach()),
    "a factor": lambda T, y: (T.ones(4, dtype=T.float64, requires_grad=True) * y, y),
    "the base of a saved view": lambda T, y: (y[:2].sin(), y),
}


@pytest.mark.parametrize("case", SAVED)
def test_overwritten_saved_values_are_noticed(T: Any, case: str) -> None:
    result, victim = SAVED[case](T, leaf(T) * 1)
    victim.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        result.sum().backward()


NOT_SAVED = {
    "the operand of a sum": lambda T, y: (y + 1, y),
    "the operand of exp": lambda T, y: (y.exp(), y),
    "the result of a square": lambda T, y: (lambda z: (z, z))(y * y),
    "the result of silu": lambda T, y: (lambda z: (z, z))(T.nn.functional.silu(y)),
    "the result of a linear map": lambda T, y: (lambda z: (z, z))(
        T.nn.functional.linear(y, T.ones(4, 4, dtype=T.float64))),
    "the result of layer norm": lambda T, y: (
        (lambda z: (z, z))(T.nn.functional.layer_norm(y, (4,)))
    ),
    "through .data": lambda T, y: (y.sin(), y.data),
    "a clone": lambda T, y: (y.clone().sin(), y),
}  # fmt: skip


@pytest.mark.parametrize("case", NOT_SAVED)
def test_values_that_are_not_saved_may_be_overwritten(T: Any, case: str) -> None:
    x = leaf(T)
    result, victim = NOT_SAVED[case](T, x * 1)
    victim.add_(1)
    result.sum().backward()
    assert x.grad is not None


def test_what_an_in_place_factor_needs_is_kept(T: Any) -> None:
    """The gradient of `p` in `h *= p` is the old `h`, which the write destroys."""
    p = T.tensor([2.0], requires_grad=True)
    h = T.tensor([5.0])
    h.mul_(p)
    h.sum().backward()
    assert numbers(p.grad) == [5.0]


def test_versions_count_writes(T: Any) -> None:
    x = T.zeros(3)
    start = x._version
    x.add_(1)
    x[0] = 2
    x[1:].zero_()
    assert x._version == start + 3
    x.data.add_(1)
    assert x._version == start + 3
    assert x.view(3)._version == x._version


def test_optimizer_steps_between_forward_and_backward_are_noticed(T: Any) -> None:
    w = T.tensor([2.0], requires_grad=True)
    x = T.tensor([3.0], requires_grad=True)
    y = w * x
    with T.no_grad():
        w.sub_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_writes_under_no_grad_pass_leaves(T: Any) -> None:
    x = leaf(T)
    with T.no_grad():
        x[0] = 9.0
        x.mul_(2)
    assert x.is_leaf and x.requires_grad
    assert numbers(x) == [18.0, 4.0, 6.0, 8.0]


def test_a_masked_write_to_a_number(T: Any) -> None:
    x = T.tensor(2.0)
    x[x > 1] = 5.0
    assert numbers(x) == 5.0
    x[x > 9] = 1.0
    assert numbers(x) == 5.0


def test_one_element_is_a_view(T: Any) -> None:
    x = T.zeros(3)
    x[1].add_(4)
    x[2] = 7
    assert numbers(x) == [0.0, 4.0, 7.0]


def test_writes_to_expanded_memory(T: Any) -> None:
    x = T.zeros(1, 3)
    with pytest.raises(RuntimeError, match="more than one element of the written-to tensor"):
        x.expand(2, 3).add_(1)
    x.expand(1, 1, 3).add_(1)
    assert numbers(x) == [[1.0, 1.0, 1.0]]
    x.expand(0, 3).add_(1)


def test_flatten_returns_a_vector_itself(T: Any) -> None:
    x = T.zeros(3)
    assert x.flatten() is x
    assert T.zeros(()).flatten().shape == (1,)


def test_flip_of_one_element_is_a_copy(T: Any) -> None:
    x = T.zeros(1, 1)
    T.flip(x, [0]).add_(1)
    assert numbers(x) == [[0.0]]


def test_a_leaf_that_is_a_view_of_plain_memory(T: Any) -> None:
    base = T.ones(2, 2)
    row = base[0].requires_grad_()
    assert not base.requires_grad
    (row * 3).sum().backward()
    assert numbers(row.grad) == [3.0, 3.0]


@pytest.mark.parametrize("write", ["all", "a view", "filled", "a part"])
def test_what_a_gradient_past_a_write_comes_from(T: Any, write: str) -> None:
    """Past a write of a whole through a view, zeros are a part of the gradient history."""
    x = leaf(T)
    y = x * 2
    if write == "a view":
        y.view(2, 2)[:] = x.detach().view(2, 2)
    elif write == "filled":
        y.view(2, 2).fill_(0.5)
    else:
        y[slice(1 if write == "a part" else None, None)] = 0.5
    (grad,) = T.autograd.grad(y.tanh().sum() + (x * 3).sum(), [x], create_graph=True)
    assert grad.requires_grad is (write != "all")
    first = 3.0 if write != "a part" else 3 + 2 * (1 - T.tensor(2.0).tanh().item() ** 2)
    assert grad.tolist() == pytest.approx([first, 3, 3, 3], rel=1e-6)
    if write != "all":
        (second,) = T.autograd.grad(grad.sum(), [x], allow_unused=True)
        assert second is None or second[1:].tolist() == [0, 0, 0]
