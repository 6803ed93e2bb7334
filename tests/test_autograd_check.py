"""gradcheck and gradgradcheck. Each test of both modules also runs on PyTorch."""

from __future__ import annotations

from typing import Any

import pytest

from tests.both_modules import T  # noqa: F401


def inputs(T: Any, *shapes: tuple[int, ...]) -> tuple[Any, ...]:
    draws = [T.linspace(0.3, 1.7, max(1, _size(s)), dtype=T.float64) for s in shapes]
    return tuple(
        d[: _size(s)].reshape(s).requires_grad_() for d, s in zip(draws, shapes, strict=True)
    )


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for n in shape:
        size *= n
    return size


FUNCTIONS = {
    "elementwise": (lambda T, x: T.sin(x) * x.exp(), [(2, 3)]),
    "two inputs, broadcast": (lambda T, x, y: x * y + y / x, [(2, 3), (3,)]),
    "a product": (lambda T, x, y: T.tanh(x @ y), [(2, 3), (3, 2)]),
    "two outputs": (lambda T, x: (x.sum(0), x * x), [(2, 2)]),
    "writes through views": (
        lambda T, x: _written(T, x), [(2, 2)]),
    "a number": (lambda T, x: x * x, [()]),
    "nothing": (lambda T, x: x * 2, [(0, 2)]),
    "a norm": (lambda T, x: T.nn.functional.layer_norm(x, (3,)), [(2, 3)]),
}  # fmt: skip


def _written(T: Any, x: Any) -> Any:
    y = x * 1
    y.t()[0].mul_(x[1])
    y[1] = x[0] * x[1]
    return y


@pytest.mark.parametrize("case", FUNCTIONS)
def test_right_gradients_pass(T: Any, case: str) -> None:
    function, shapes = FUNCTIONS[case]
    given = inputs(T, *shapes)
    assert T.autograd.gradcheck(lambda *xs: function(T, *xs), given)
    assert T.autograd.gradgradcheck(lambda *xs: function(T, *xs), given)


def wrong(T: Any) -> Any:
    class Wrong(T.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * 3 * ctx.saved_tensors[0]

    return Wrong.apply


def test_wrong_gradients_fail(T: Any) -> None:
    given = inputs(T, (3,))
    with pytest.raises(
        RuntimeError, match="Jacobian mismatch for output 0 with respect to input 0"
    ):
        T.autograd.gradcheck(wrong(T), given)
    assert not T.autograd.gradcheck(wrong(T), given, raise_exception=False)


def test_wrong_second_gradients_fail(T: Any) -> None:
    class Half(T.autograd.Function):  # type: ignore[misc]
        """Right gradient, whose own gradient is cut."""

        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            (x,) = ctx.saved_tensors
            return g * 3 * x.detach() ** 2

    given = inputs(T, (3,))
    assert T.autograd.gradcheck(Half.apply, given)
    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        T.autograd.gradgradcheck(Half.apply, given)


def test_missing_gradients_fail(T: Any) -> None:
    given = inputs(T, (3,))
    with pytest.raises(
        RuntimeError, match=r"Jacobian mismatch|None of the outputs|Numerical gradient"
    ):
        T.autograd.gradcheck(lambda x: (x * x, x.detach() * x), (given[0],))


def test_unstable_gradients_fail(T: Any) -> None:
    calls = [0]

    class Unstable(T.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x * 2

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            calls[0] += 1
            return g * (2 + 1e-9 * calls[0])

    with pytest.raises(RuntimeError, match="Backward is not reentrant"):
        T.autograd.gradcheck(Unstable.apply, inputs(T, (2,)))
    assert T.autograd.gradcheck(Unstable.apply, inputs(T, (2,)), nondet_tol=1e-3)


def test_something_must_require_a_gradient(T: Any) -> None:
    with pytest.raises(ValueError, match="at least one input tensor to require gradient"):
        T.autograd.gradcheck(lambda x: x, (T.ones(1, dtype=T.float64),))


def test_single_precision_is_warned_of(T: Any) -> None:
    x = T.ones(1, requires_grad=True)
    with pytest.warns(UserWarning):
        T.autograd.gradcheck(lambda x: x * 2, (x,), eps=1e-2, atol=1e-2)
