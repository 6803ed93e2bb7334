"""User-defined functions: `autograd.Function`. Each test also runs on PyTorch."""

from __future__ import annotations

from typing import Any

import pytest

from tests.both_modules import T, numbers  # noqa: F401


def define(T: Any, forward: Any, backward: Any, **more: Any) -> Any:
    """Return a subclass of Function."""
    body = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    body.update({name: staticmethod(f) for name, f in more.items()})
    return type("Mine", (T.autograd.Function,), body)


def test_saved_operands_and_results(T: Any) -> None:
    def forward(ctx: Any, x: Any, y: Any) -> Any:
        out = x * y
        ctx.save_for_backward(x, None, out)
        ctx.power = 2
        return out

    def backward(ctx: Any, g: Any) -> Any:
        x, nothing, out = ctx.saved_tensors
        assert nothing is None and numbers(out) == [6.0]
        return g * 100, g * x * ctx.power

    x, y = T.tensor([2.0], requires_grad=True), T.tensor([3.0], requires_grad=True)
    out = define(T, forward, backward).apply(x, y)
    assert numbers(out) == [6.0] and out.requires_grad
    out.sum().backward()
    assert numbers(x.grad) == [100.0]
    assert numbers(y.grad) == [4.0]


def test_operands_without_gradient_and_plain_arguments(T: Any) -> None:
    needs = []

    def forward(ctx: Any, x: Any, scale: float, y: Any, label: str) -> Any:
        needs.append(ctx.needs_input_grad)
        return x * scale + y

    def backward(ctx: Any, g: Any) -> Any:
        needs.append(ctx.needs_input_grad)
        return g * 3, None, None, None

    x = T.ones(1, requires_grad=True)
    define(T, forward, backward).apply(x, 3.0, T.ones(1), "name").sum().backward()
    assert needs == [(True, False, False, False)] * 2
    assert numbers(x.grad) == [3.0]


def test_several_results_and_missing_gradients(T: Any) -> None:
    seen = []

    def forward(ctx: Any, x: Any) -> Any:
        return x * 2, x * 3, 7

    def backward(ctx: Any, a: Any, b: Any, c: Any) -> Any:
        seen.append((numbers(a), numbers(b), c))
        return a * 2 + b * 3

    x = T.ones(2, requires_grad=True)
    first, second, number = define(T, forward, backward).apply(x)
    assert number == 7
    second.sum().backward()
    assert seen == [([0.0, 0.0], [1.0, 1.0], None)]
    assert numbers(x.grad) == [3.0, 3.0]
    assert first.requires_grad


def test_missing_gradients_as_none(T: Any) -> None:
    seen = []

    def forward(ctx: Any, x: Any) -> Any:
        ctx.set_materialize_grads(False)
        return x * 2, x * 3

    def backward(ctx: Any, a: Any, b: Any) -> Any:
        seen.append(a)
        return b * 3

    x = T.ones(2, requires_grad=True)
    define(T, forward, backward).apply(x)[1].sum().backward()
    assert seen == [None]


def test_results_without_gradient(T: Any) -> None:
    def forward(ctx: Any, x: Any) -> Any:
        order = x.argsort()
        rounded = x.round()
        ctx.mark_non_differentiable(order, rounded)
        ctx.save_for_backward(order)
        return x[order], order, rounded

    def backward(ctx: Any, g: Any, _: Any, __: Any) -> Any:
        (order,) = ctx.saved_tensors
        back = T.zeros_like(g)
        back[order] = g
        return back

    x = T.tensor([3.0, 1.0, 2.0], requires_grad=True)
    ordered, order, rounded = define(T, forward, backward).apply(x)
    assert not order.requires_grad and not rounded.requires_grad
    (ordered * T.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert numbers(x.grad) == [3.0, 1.0, 2.0]


def test_a_function_that_writes_in_place(T: Any) -> None:
    def forward(ctx: Any, x: Any) -> Any:
        x.mul_(2)
        ctx.mark_dirty(x)
        return x

    x = T.ones(2, requires_grad=True)
    y = x * 1
    view = y[0]
    z = define(T, forward, lambda ctx, g: g * 2).apply(y)
    assert z is y
    assert numbers(y) == [2.0, 2.0]
    (y * 3).sum().backward()
    assert numbers(x.grad) == [6.0, 6.0]
    assert view.requires_grad


def test_an_operand_as_the_result(T: Any) -> None:
    y = T.ones(2, requires_grad=True)
    z = define(T, lambda ctx, x: x, lambda ctx, g: g * 5).apply(y)
    assert z is not y
    z.sum().backward()
    assert numbers(y.grad) == [5.0, 5.0]


def test_differentiated_twice(T: Any) -> None:
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return x**3

    def backward(ctx: Any, g: Any) -> Any:
        (x,) = ctx.saved_tensors
        return 3 * x * x * g

    x = T.tensor([2.0], requires_grad=True)
    (g,) = T.autograd.grad(define(T, forward, backward).apply(x).sum(), x, create_graph=True)
    assert numbers(g) == [12.0]
    assert numbers(T.autograd.grad(g.sum(), x)[0]) == [12.0]


def test_setup_context_apart_from_forward(T: Any) -> None:
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    x = T.tensor([2.0], requires_grad=True)
    function = define(T, lambda x: x * x, lambda ctx, g: g * 2 * ctx.saved_tensors[0],
                      setup_context=setup_context)  # fmt: skip
    function.apply(x).sum().backward()
    assert numbers(x.grad) == [4.0]


def test_gradients_are_off_inside(T: Any) -> None:
    seen = []

    def forward(ctx: Any, x: Any) -> Any:
        seen.append((T.is_grad_enabled(), (x * 2).requires_grad))
        return x * 2

    def backward(ctx: Any, g: Any) -> Any:
        seen.append(T.is_grad_enabled())
        return g

    x = T.ones(1, requires_grad=True)
    define(T, forward, backward).apply(x).sum().backward()
    assert seen == [(False, False), False]


def test_nothing_is_recorded_without_need(T: Any) -> None:
    function = define(T, lambda ctx, x: x * 2, lambda ctx, g: g)
    assert not function.apply(T.ones(1)).requires_grad
    with T.no_grad():
        assert not function.apply(T.ones(1, requires_grad=True)).requires_grad


def test_wrong_number_of_gradients(T: Any) -> None:
    x = T.ones(1, requires_grad=True)
    out = define(T, lambda ctx, x, y: x + y, lambda ctx, g: g).apply(x, T.ones(1))
    with pytest.raises(RuntimeError, match="incorrect number of gradients"):
        out.sum().backward()


def test_wrong_shape_of_a_gradient(T: Any) -> None:
    x = T.ones(2, requires_grad=True)
    out = define(T, lambda ctx, x: x * 2, lambda ctx, g: T.ones(3)).apply(x)
    with pytest.raises(RuntimeError, match="invalid gradient"):
        out.sum().backward()


def test_overwritten_saved_tensors_are_noticed(T: Any) -> None:
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return x * x

    x = T.ones(1, requires_grad=True) * 1
    out = define(T, forward, lambda ctx, g: 2 * g * ctx.saved_tensors[0]).apply(x)
    x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_saved_tensors_are_freed(T: Any) -> None:
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return x * x

    x = T.ones(1, requires_grad=True)
    out = define(T, forward, lambda ctx, g: 2 * g * ctx.saved_tensors[0]).apply(x).sum()
    out.backward(retain_graph=True)
    out.backward()
    assert numbers(x.grad) == [4.0]
    with pytest.raises(RuntimeError, match="a second time"):
        out.backward()


def test_once_differentiable(T: Any) -> None:
    from importlib import import_module

    once = import_module(f"{T.__name__}.autograd.function").once_differentiable

    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return x * x

    backward = once(lambda ctx, g: 2 * g * ctx.saved_tensors[0])
    x = T.ones(1, requires_grad=True)
    out = define(T, forward, backward).apply(x)
    (g,) = T.autograd.grad((out * out).sum(), x, create_graph=True)
    assert numbers(g) == [4.0]
    with pytest.raises(RuntimeError, match="once_differentiable"):
        g.sum().backward()
