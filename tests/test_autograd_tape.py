"""The tape: leaves, accumulation, hooks, kept graphs, errors. Each test also runs on PyTorch."""

from __future__ import annotations

import re
import warnings
from typing import Any

import pytest

import tracegraph as tg
from tests.both_modules import T, numbers  # noqa: F401


def test_gradients_accumulate_until_they_are_reset(T: Any) -> None:
    x = T.tensor([1.0, 2.0], requires_grad=True)
    (x * x).sum().backward()
    assert numbers(x.grad) == [2.0, 4.0]
    (3 * x).sum().backward()
    assert numbers(x.grad) == [5.0, 7.0]
    x.grad = None
    x.sum().backward()
    assert numbers(x.grad) == [1.0, 1.0]


def test_an_accumulated_gradient_is_the_same_tensor(T: Any) -> None:
    x = T.tensor([1.0], requires_grad=True)
    x.sum().backward()
    first = x.grad
    x.sum().backward()
    assert x.grad is first
    assert numbers(first) == [2.0]


def test_two_leaves_do_not_share_a_gradient(T: Any) -> None:
    x = T.ones(2, requires_grad=True)
    y = T.ones(2, requires_grad=True)
    z = x + y
    z.backward(T.ones(2))
    x.grad.add_(1)
    assert numbers(y.grad) == [1.0, 1.0]


def test_the_callers_gradient_is_not_kept() -> None:
    """PyTorch keeps it, and adds to it later."""
    import tracegraph as T

    x = T.ones(2, requires_grad=True)
    given = T.tensor([2.0, 3.0])
    x.view(2).backward(given)
    x.sum().backward()
    assert numbers(given) == [2.0, 3.0]
    assert numbers(x.grad) == [3.0, 4.0]


def test_returned_gradients_have_memory_of_their_own() -> None:
    """PyTorch returns what it was given, several times over."""
    import tracegraph as T

    x, y = T.ones(2, requires_grad=True), T.ones(2, requires_grad=True)
    given = T.tensor([2.0, 3.0])
    for graph in (False, True):
        first, second = T.autograd.grad(x + y, [x, y], given, create_graph=graph)
        if not graph:
            first.add_(1)
            assert numbers(first) == [3.0, 4.0]
        assert numbers(second) == numbers(given) == [2.0, 3.0]


def test_what_a_hook_keeps_is_never_written_to(T: Any) -> None:
    x = T.ones(2, requires_grad=True)
    seen: list[Any] = []
    y = x * 1
    y.register_hook(seen.append)
    x.register_hook(seen.append)
    loss = (y + y * 2 + y * 3 + x * 4 + x * 5).sum()
    for _ in range(2):
        loss.backward(retain_graph=True)
    assert [numbers(g) for g in seen] == [[6.0, 6.0], [15.0, 15.0]] * 2
    assert numbers(x.grad) == [30.0, 30.0]


@pytest.mark.parametrize(
    ("make", "leaf", "requires_grad"),
    [
        (lambda T, x: x, True, True),
        (lambda T, x: x * 1, False, True),
        (lambda T, x: x.detach(), True, False),
        (lambda T, x: x > 0, True, False),
        (lambda T, x: T.ones(2), True, False),
        (lambda T, x: x[0], False, True),
        (lambda T, x: (x * 1).detach().requires_grad_(), True, True),
        (lambda T, x: x.argmax(), True, False),
    ],
)
def test_leaves(T: Any, make: Any, leaf: bool, requires_grad: bool) -> None:
    t = make(T, T.ones(2, requires_grad=True))
    assert t.is_leaf is leaf
    assert t.requires_grad is requires_grad
    assert (t.grad_fn is None) is leaf


def test_a_graph_is_freed_unless_it_is_retained(T: Any) -> None:
    x = T.tensor([2.0], requires_grad=True)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert numbers(x.grad) == [8.0]
    with pytest.raises(RuntimeError, match="Trying to backward through the graph a second time"):
        y.backward()


def test_a_graph_that_keeps_no_values_is_never_spent(T: Any) -> None:
    x = T.ones(2, requires_grad=True)
    y = (x + 1).reshape(2, 1)[0].sum()
    y.backward()
    y.backward()
    assert numbers(x.grad) == [2.0, 0.0]


LASTING = """
T.add(y, x, alpha=2); T.sub(y, x, alpha=3); T.rsub(x, y, alpha=2); x.index_add(0, i, y); x.round()
T.lerp(x, y, 0.25); T.lerp(y, x, 0.75); T.deg2rad(x)
T.rad2deg(x); T.round(x, decimals=1); T.trapezoid(x, dx=0.5); T.cumulative_trapezoid(x)
T.addmm(x, y, y, beta=2); x.index_add(0, i, y, alpha=2)
"""
PASSING = """
x * 2; x / 2; y.index_add(0, i, x); y.index_put((i,), x); T.addmm(y, x, y); T.lerp(x, y, y)
y.index_add(0, i, x, alpha=2); T.add(y, x * x, alpha=2)
"""


def calls(table: str) -> list[str]:
    return [call for call in table.replace("\n", "; ").split("; ") if call]


@pytest.mark.parametrize(
    ("call", "lasts"), [*((c, True) for c in calls(LASTING)), *((c, False) for c in calls(PASSING))]
)
def test_which_graphs_can_be_gone_through_twice(T: Any, call: str, lasts: bool) -> None:
    names = {"T": T, "y": T.ones(2, 2), "i": T.tensor([1, 0])}
    x = names["x"] = T.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    out = eval(call, names).sum()
    out.backward()
    once = x.grad.clone()
    if lasts:
        out.backward()
        assert T.equal(x.grad, 2 * once)
    else:
        with pytest.raises(RuntimeError, match="a second time"):
            out.backward()


def test_grad_frees_the_graph_as_well(T: Any) -> None:
    x = T.tensor([2.0], requires_grad=True)
    y = (x * x).sum()
    assert numbers(T.autograd.grad(y, x)[0]) == [4.0]
    assert x.grad is None
    with pytest.raises(RuntimeError, match="a second time"):
        T.autograd.grad(y, x)


ERRORS = {
    "no history": (
        lambda T, x: T.ones(1).backward(),
        "element 0 of tensors does not require grad and does not have a grad_fn",
    ),
    "not a scalar": (
        lambda T, x: (x * 2).backward(), "grad can be implicitly created only for scalar outputs"),
    "unused": (
        lambda T, x: T.autograd.grad(x.sum(), T.ones(1, requires_grad=True)),
        "The differentiated Tensor at index 0 appears to not have been used in the graph. Set "
        "allow_unused=True if this is the desired behavior.",
    ),
    "not required": (
        lambda T, x: T.autograd.grad(x.sum(), T.ones(1)),
        "One of the differentiated Tensors does not require grad",
    ),
    "a leaf in place": (
        lambda T, x: x.add_(1),
        "a leaf Variable that requires grad is being used in an in-place operation.",
    ),
    "a view of a leaf in place": (
        lambda T, x: x[0].add_(1),
        "a view of a leaf Variable that requires grad is being used in an in-place operation.",
    ),
    "an item of a leaf": (lambda T, x: x.__setitem__(0, 1.0), "leaf Variable that requires grad"),
    "flags of a non-leaf": (
        lambda T, x: (x * 1).requires_grad_(False),
        "you can only change requires_grad flags of leaf variables.",
    ),
    "integers": (
        lambda T, x: T.ones(1, dtype=T.int64).requires_grad_(),
        "only Tensors of floating point dtype can require gradients",
    ),
    "numpy": (
        lambda T, x: x.numpy(),
        "Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.",
    ),
    "shape of the gradient": (
        lambda T, x: (x * 1).backward(T.ones(3)), "Mismatch in shape: grad_output"),
    "a hook without gradient": (
        lambda T, x: T.ones(1).register_hook(print),
        "cannot register a hook on a tensor that doesn't require gradient",
    ),
    "deepcopy": (
        lambda T, x: __import__("copy").deepcopy(x * 1),
        "Only Tensors created explicitly by the user",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ERRORS)
def test_errors_say_what_pytorch_says(T: Any, case: str) -> None:
    function, sentence = ERRORS[case]
    x = T.ones(2, requires_grad=True)
    with pytest.raises(RuntimeError, match=re.escape(sentence)):
        function(T, x)
    assert numbers(x) == [1.0, 1.0]


def test_allow_unused_and_materialized_gradients(T: Any) -> None:
    x = T.ones(2, requires_grad=True)
    y = T.ones(3, requires_grad=True)
    assert T.autograd.grad(x.sum(), (x, y), allow_unused=True)[1] is None
    found = T.autograd.grad(x.sum(), (x, y), allow_unused=True, materialize_grads=True)
    assert numbers(found[1]) == [0.0, 0.0, 0.0]


def test_several_outputs_and_the_same_input_twice(T: Any) -> None:
    x = T.tensor([1.0, 2.0], requires_grad=True)
    a, b = x * 2, (x * x).sum()
    first, again = T.autograd.grad((a, b), (x, x), (T.ones(2), T.tensor(3.0)))
    assert numbers(first) == numbers(again) == [8.0, 14.0]


def test_gradients_of_intermediate_results(T: Any) -> None:
    x = T.tensor([1.0, 2.0], requires_grad=True)
    h = x * 3
    y = (h * h).sum()
    gh, gx = T.autograd.grad(y, (h, x))
    assert numbers(gh) == [6.0, 12.0]
    assert numbers(gx) == [18.0, 36.0]


def test_backward_of_chosen_inputs_leaves_others_alone(T: Any) -> None:
    x, y = T.ones(1, requires_grad=True), T.ones(1, requires_grad=True)
    (x * y * 2).sum().backward(inputs=[x])
    assert numbers(x.grad) == [2.0]
    assert y.grad is None


def test_retain_grad(T: Any) -> None:
    x = T.tensor([1.0, 2.0], requires_grad=True)
    h = x * 3
    h.retain_grad()
    h.retain_grad()
    (h * h).sum().backward()
    assert numbers(h.grad) == [6.0, 12.0]
    assert h.retains_grad
    assert not x.retains_grad


def test_hooks_change_gradients_in_order(T: Any) -> None:
    x = T.tensor([1.0], requires_grad=True)
    h = x * 2
    seen = []
    first = h.register_hook(lambda g: g * 10)
    h.register_hook(lambda g: seen.append(numbers(g)))
    x.register_hook(lambda g: g + 1)
    h.sum().backward()
    assert seen == [[10.0]]
    assert numbers(x.grad) == [21.0]
    first.remove()
    first.remove()
    (x * 2).sum().backward()
    assert numbers(x.grad) == [24.0]


def test_a_hook_runs_once_with_the_whole_gradient(T: Any) -> None:
    x = T.tensor([1.0], requires_grad=True)
    h = x * 2
    seen: list[Any] = []
    h.register_hook(lambda g: seen.append(numbers(g)))
    (h * 3 + h * 4).sum().backward()
    assert seen == [[7.0]]


def test_a_hook_removed_as_a_context(T: Any) -> None:
    x = T.tensor([1.0], requires_grad=True)
    with x.register_hook(lambda g: g * 5):
        x.sum().backward()
    x.sum().backward()
    assert numbers(x.grad) == [6.0]


def test_hooks_after_accumulation(T: Any) -> None:
    x = T.tensor([1.0], requires_grad=True)
    seen = []
    handle = x.register_post_accumulate_grad_hook(lambda p: seen.append(numbers(p.grad)))
    x.sum().backward()
    x.sum().backward()
    handle.remove()
    x.sum().backward()
    assert seen == [[1.0], [2.0]]


def test_hooks_of_a_node(T: Any) -> None:
    x = T.tensor([2.0], requires_grad=True)
    y = x * x
    seen = []
    y.grad_fn.register_prehook(lambda gs: seen.append(numbers(gs[0])))
    y.grad_fn.register_hook(lambda gi, go: seen.append((numbers(gi[0]), numbers(go[0]))))
    y.sum().backward()
    assert seen == [[1.0], ([2.0], [1.0])]


def test_a_hook_on_a_copy_does_not_act_on_its_source(T: Any) -> None:
    x = T.tensor([1.0], requires_grad=True)
    y = x * 1
    z = T.zeros(1)
    z.copy_(y)
    z.register_hook(lambda g: g * 100)
    (y * 2).sum().backward(retain_graph=True)
    assert numbers(x.grad) == [2.0]
    z.sum().backward()
    assert numbers(x.grad) == [102.0]


def test_names_of_nodes(T: Any) -> None:
    x = T.ones(2, 2, requires_grad=True)
    names = [type(t.grad_fn).__name__ if T.__name__ == "torch" else t.grad_fn.name()
             for t in (x + 1, x * 2, x.exp(), x.sum(), x @ x, x.relu())]  # fmt: skip
    assert names == ["AddBackward0", "MulBackward0", "ExpBackward0", "SumBackward0", "MmBackward0",
                     "ReluBackward0"]  # fmt: skip
    assert (x + 1).grad_fn.next_functions[0][0].variable is x


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_derivatives_of_higher_order(T: Any, order: int) -> None:
    x = T.tensor([0.5, 2.0], dtype=T.float64, requires_grad=True)
    y = (x**5).sum()
    for _ in range(order):
        (g,) = T.autograd.grad(y, x, create_graph=True)
        y = g.sum()
    factor = {1: 5, 2: 20, 3: 60, 4: 120}[order]
    assert numbers(g) == pytest.approx([factor * v ** (5 - order) for v in (0.5, 2.0)])


def test_gradients_of_a_gradient_with_backward(T: Any) -> None:
    x = T.tensor([3.0], requires_grad=True)
    (g,) = T.autograd.grad((x * x * x).sum(), x, create_graph=True)
    assert g.requires_grad
    (g * g).sum().backward()
    assert numbers(x.grad) == [2 * 27.0 * 18.0]


def test_created_gradients_stay_on_the_tape(T: Any) -> None:
    x = T.tensor([3.0], requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns of the cycle
        (x * x).sum().backward(create_graph=True)
    assert x.grad.requires_grad
    (again,) = T.autograd.grad(x.grad.sum(), x)
    assert numbers(again) == [2.0]


# Kinks: a second derivative that is zero is there.


@pytest.mark.parametrize(
    ("name", "arguments", "slopes"),
    [
        ("relu", (), (0, 0, 1, 1)),
        ("relu6", (), (0, 0, 1, 1)),
        ("leaky_relu", (0.2,), (0.2, 0.2, 1, 1)),
        ("hardtanh", (-1.0, 1.5), (0, 1, 1, 0)),
        ("threshold", (0.5, -1.0), (0, 0, 0, 1)),
        ("softshrink", (), (1, 0, 0, 1)),
        ("rrelu", (), (11 / 48, 11 / 48, 1, 1)),
    ],
)
def test_second_derivatives_of_straight_pieces_are_zeros(
    T: Any, name: str, arguments: Any, slopes: Any
) -> None:
    """Not None, which an optimizer would pass over, nor an error."""
    x = T.tensor([-2.0, -0.3, 0.2, 3.0], requires_grad=True)
    w = T.tensor(1.5, requires_grad=True)
    y = getattr(T.nn.functional, name)(x * w, *arguments)
    (first,) = T.autograd.grad(y.sum(), x, create_graph=True)
    by_x, by_w = T.autograd.grad(first.square().sum(), (x, w))
    assert numbers(by_x) == [0, 0, 0, 0]
    assert by_w.item() == pytest.approx(2 * 1.5 * sum(s * s for s in slopes))


def test_the_gradient_penalty_of_a_critic_reaches_every_bias(T: Any) -> None:
    critic = T.nn.Sequential(T.nn.Linear(2, 3), T.nn.LeakyReLU(0.2), T.nn.Linear(3, 1))
    x = T.ones(4, 2, requires_grad=True)
    (slope,) = T.autograd.grad(critic(x).sum(), x, create_graph=True)
    ((slope.norm(dim=1) - 1) ** 2).mean().backward()
    grads = [p.grad for p in critic.parameters()]
    assert grads[1].tolist() == [0, 0, 0] and grads[3] is None
    assert grads[0].abs().sum() > 0 and grads[2].abs().sum() > 0


def test_a_trace_of_second_derivatives_at_kinks() -> None:
    def second(x: Any, w: Any) -> Any:
        x = x.detach().requires_grad_()
        (first,) = tg.autograd.grad((x * w).relu().square().sum(), x, create_graph=True)
        return tg.autograd.grad(first.square().sum(), x)[0]

    traced = tg.trace(second, (tg.ones(2), tg.tensor(2.0)))
    x, w = tg.tensor([-1.0, 3.0]), tg.tensor(0.5)
    assert traced(x, w).tolist() == second(x, w).tolist() == [0, 8 * 0.5**4 * 3]
    assert traced.program()(x, w).tolist() == [0, 1.5]


@pytest.mark.parametrize("name", ["sort", "topk", "cummax", "kthvalue", "median", "gather", "exp"])
def test_what_a_gradient_of_a_gradient_depends_on(T: Any, name: str) -> None:
    """Places of elements, which are results too, are nothing that a gradient goes through."""
    x = T.tensor([[3.0, 1.0, 2.0], [0.5, 4.0, 0.0]], requires_grad=True)
    calls = {
        "sort": lambda: T.sort(x, dim=1)[0], "topk": lambda: x.topk(2, 1)[0],
        "cummax": lambda: T.cummax(x, 1)[0], "kthvalue": lambda: x.kthvalue(2, 1)[0],
        "median": lambda: x.median(1)[0], "gather": lambda: x.gather(1, x.argsort(1)),
        "exp": lambda: x.exp(),
    }  # fmt: skip
    (g,) = T.autograd.grad(calls[name]().sum(), x, create_graph=True)
    assert g.requires_grad is (name == "exp")
