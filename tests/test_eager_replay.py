"""Replays that autograd and other traces see: gradients, fine-tuning, composition."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tracegraph as torch
from tests.fuzz.choices import seeded
from tests.fuzz.gradients import check_gradients
from tests.fuzz.writer import write
from tests.replaying import in_fresh_process
from tracegraph import autograd, nn
from tracegraph.control.flow import cond, scan, while_loop
from tracegraph.eager.tensors import Tensor
from tracegraph.errors import (
    AutogradError,
    GuardError,
    SignatureError,
    TraceError,
    UnseenPathError,
)
from tracegraph.ir.control import inner_graphs


def draw(*shape: int, seed: int = 0) -> Any:
    random = np.random.default_rng(seed)
    return torch.tensor(random.uniform(-1, 1, shape).astype(np.float32))


def weight(seed: int = 9) -> Any:
    return draw(3, 3, seed=seed).requires_grad_()


# Functions of x: f32[2,3] and w: f32[3,3] whose gradients do not follow from values alone.


def plain(x: Any, w: Any) -> Any:
    return torch.tanh(x @ w).sum()


def detached(x: Any, w: Any) -> Any:
    y = x @ w
    return (y * y.detach()).sum() + x.detach().sum()


def detached_view(x: Any, w: Any) -> Any:
    y = x @ w
    return (y[0] * y.detach()[1]).sum() + (y.T.detach() @ y).sum()


def detached_in_place(x: Any, w: Any) -> Any:
    y = x @ w
    y.detach_()
    return (y * w[0]).sum()


def data_written(x: Any, w: Any) -> Any:
    y = x @ w
    y.data.mul_(2)
    y.data[0] = 3.0
    return (y * x).sum()


def detached_partly_written(x: Any, w: Any) -> Any:
    y = x @ w
    d = y.detach()
    d[0].mul_(w[0])
    d[1, :2] = x[1, :2]
    return (y * y).sum() + (d * d * 0.5).sum()


def data_read(x: Any, w: Any) -> Any:
    return (x @ w * w.data[0]).sum()


def some_without_gradient(x: Any, w: Any) -> Any:
    y = x @ w
    with torch.no_grad():
        scale = y.abs().mean() + 1
        copied = y.clone()
    return (y / scale + copied * x).sum()


def written_without_gradient(x: Any, w: Any) -> Any:
    y = x @ w
    with torch.no_grad():
        y.clamp_(-0.5, 0.5)
        y[1].add_(1)
    return (y * y).sum()


def written_twice(x: Any, w: Any) -> Any:
    y = x @ w
    with torch.no_grad():
        y[0].mul_(3)
    y[:, 0] = x[:, 0] * w[0, 0]
    with torch.no_grad():
        y.add_(1)
    y[1] = 2.0
    return (y * y).sum()


def made_without_gradient(x: Any, w: Any) -> Any:
    with torch.no_grad():
        y = x + 2.0
        y.mul_(2)
    y[1, :] = w[0]
    return (y * x).sum()


def straight_through(x: Any, w: Any) -> Any:
    y = x @ w
    rounded = y + (y.round() - y).detach()
    return (rounded * rounded).sum()


def all_without_gradient(x: Any, w: Any) -> Any:
    with torch.no_grad():
        return (x @ w).sum()


def gradient_inside(x: Any, w: Any) -> Any:
    y = (x @ w).tanh().sum()
    (g,) = autograd.grad(y, [w], create_graph=True)
    return y + (g * g).sum()


def gradient_inside_cut(x: Any, w: Any) -> Any:
    y = (x @ w).tanh().sum()
    (g,) = autograd.grad(y, [w], retain_graph=True)
    return y + (g * w).sum()


def non_differentiable_ops(x: Any, w: Any) -> Any:
    y = x @ w
    return (y * y.argmax(1, keepdim=True) + y.sign() + y.floor() * y).sum()


def scanned(x: Any, w: Any) -> Any:
    def step(h: Any, row: Any) -> Any:
        new = torch.tanh(h @ w + row)
        with torch.no_grad():
            scale = new.abs().sum()
        return new / scale, new * h.detach()

    h, ys = scan(step, torch.ones(3) * w[0, 0], x)
    return h.sum() + ys.sum()


def looped(x: Any, w: Any) -> Any:
    def body(y: Any) -> Any:
        return (y + (y @ w).detach() * y + 1,)

    (y,) = while_loop(lambda y: y.sum() < 20, body, (x,))
    return (y * w[0]).sum()


def chosen(x: Any, w: Any) -> Any:
    y = x @ w
    return cond(
        y.sum() > 0, lambda y: (y * y.detach()).sum(), lambda y: (y * y.detach() * 3).sum(), (y,)
    )


FUNCTIONS = [
    plain, detached, detached_view, detached_in_place, data_written, data_read,
    detached_partly_written, some_without_gradient, written_without_gradient, written_twice,
    made_without_gradient, straight_through,
    all_without_gradient, gradient_inside, gradient_inside_cut, non_differentiable_ops,
    scanned, looped, chosen,
]  # fmt: skip


def gradients_of(function: Callable[..., Any], x: Any, w: Any) -> list[Any]:
    """The result, its gradients to x and w, and the gradients of these."""
    y = function(x, w)
    if not y.requires_grad:
        return [y]
    first = autograd.grad(y, [x, w], create_graph=True, allow_unused=True)
    total = sum(((g * g).sum() for g in first if g is not None), torch.zeros(()))
    found = [y, *first]
    if total.requires_grad:
        found += autograd.grad(total, [x, w], allow_unused=True)
    return found


def assert_same(found: list[Any], wanted: list[Any], exact: bool = True) -> None:
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        if exact or a is None or b is None:
            assert (a is None) == (b is None)
        if a is not None and b is not None:
            np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("needed", [False, True], ids=["values", "gradients"])
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_gradients_of_a_replay_are_those_of_the_function(
    function: Callable[..., Any], needed: bool, tmp_path: Path
) -> None:
    """Whether or not the trace's own inputs required gradients; from a file too."""
    example = draw(2, 3, seed=1)
    traced = torch.trace(function, (example.requires_grad_(needed), weight(5)))
    torch.save(traced, tmp_path / "f.tg")
    x = draw(2, 3, seed=2).requires_grad_()
    wanted = gradients_of(function, x, weight())
    assert_same(gradients_of(traced, x, weight()), wanted)
    assert_same(gradients_of(torch.load(tmp_path / "f.tg"), x, weight()), wanted)


def test_every_function_here_would_be_wrong_without_its_marks() -> None:
    """The table is worth something: with marks taken out, most gradients differ."""
    wrong = set()
    for function in FUNCTIONS:
        traced = torch.trace(function, (draw(2, 3, seed=1), weight(5)))
        for graph in inner_graphs(traced.graph):
            for node in graph.order():
                if node.op in ("detach", "pass_gradient"):
                    graph.replace_all_uses(node.out, node.inputs[0])
        x = draw(2, 3, seed=2).requires_grad_()
        try:
            assert_same(gradients_of(traced, x, weight()), gradients_of(function, x, weight()))
        except AssertionError:
            wrong.add(function)
    assert set(FUNCTIONS) - wrong == {plain, gradient_inside, non_differentiable_ops}


def test_an_alias_without_history_of_a_parameter_gets_no_gradient() -> None:
    w = weight()
    frozen = w.detach()

    def f(x: Any) -> Any:
        return (x @ frozen + x @ w).sum()

    x = draw(2, 3)
    traced = torch.trace(f, (x,))
    (wanted,) = autograd.grad(f(x), [w])
    (found,) = autograd.grad(traced(x), [w])
    np.testing.assert_array_equal(found.numpy(), wanted.numpy())


def test_a_write_through_such_an_alias_leaves_gradients_as_they_are() -> None:
    w = weight()
    row = w.detach()[0]

    def f(x: Any) -> Any:
        row[row > 0] = 3.0
        return (x @ w + w * w).sum()

    x = draw(3, 3)
    before = w.detach().clone()
    traced = torch.trace(f, (x,))
    found = []
    for function in (f, traced):
        with torch.no_grad():
            w.copy_(before)
        found.append(autograd.grad(function(x), [w])[0].numpy())
    np.testing.assert_array_equal(*found)


def test_an_alias_of_other_State_gets_no_gradient_either() -> None:
    held = draw(3, 3)
    alias = held.detach()[0]

    def f(x: Any) -> Any:
        held[0] = x
        return held.sum() + (alias * 5).sum()

    traced = torch.trace(f, (draw(3),))
    for function in (traced, f):  # f leaves `held` with a history
        x = draw(3, seed=1).requires_grad_()
        function(x).backward()
        assert x.grad.tolist() == [1.0, 1.0, 1.0]


def test_gradients_of_another_leaf_over_the_same_memory_are_refused() -> None:
    """Weights that are tied by `.data` are one State, but two leaves."""
    first, second = weight(), weight()
    second.data = first.data

    def f(x: Any) -> Any:
        return (x @ first).sum() + (x @ second).sum()

    x = draw(2, 3)
    traced = torch.trace(f, (x,))
    assert torch.equal(traced.program(level=1)(x), f(x).detach())
    with pytest.raises(AutogradError, match="another tensor over the memory"):
        traced(x).backward()


def test_what_python_does_in_a_backward_is_refused() -> None:
    class Reversed(autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x.view_as(x)

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return -g

    def reversing(x: Any) -> Any:
        return Reversed.apply(x).sum()

    def hooked(x: Any) -> Any:
        y = x * 2
        y.register_hook(lambda g: g * 10)
        return y.sum()

    def asking(x: Any) -> Any:
        y = x * 2
        return (y * 3 if y.requires_grad else y).sum()

    x = draw(2, 3).requires_grad_()
    example = {reversing: x, hooked: x, asking: x.detach()}
    for function, name in (
        (reversing, "Reversed"), (hooked, "a hook"), (asking, "Python read"),
    ):  # fmt: skip
        traced = torch.trace(function, (example[function],))
        y = traced(x)
        np.testing.assert_array_equal(
            y.detach().numpy(), function(example[function]).detach().numpy()
        )
        with pytest.raises(AutogradError, match=f"{name}.* at .*test_eager_replay.py:"):
            y.backward()


def test_a_module_differentiates_as_eager_and_keeps_its_statistics() -> None:
    def make() -> Any:
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))

    ours, theirs = make(), make()
    x = draw(5, 3)
    traced = torch.trace(ours, (x,))
    for seed in range(3):
        batch = draw(5, 3, seed=seed)
        torch.manual_seed(seed)
        (traced(batch) ** 2).mean().backward()
        torch.manual_seed(seed)
        (theirs(batch) ** 2).mean().backward()
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            np.testing.assert_array_equal(a.grad.numpy(), b.grad.numpy())
    for (name, a), (_, b) in zip(ours.named_buffers(), theirs.named_buffers(), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=name)
        assert not a.requires_grad


def test_an_input_written_in_place_keeps_its_gradient() -> None:
    def f(x: Any, w: Any) -> Any:
        x.mul_(w[0])
        return x.sum()

    traced = torch.trace(f, (draw(2, 3), weight()))
    found = []
    for function in (f, traced):
        base, w = draw(2, 3, seed=4).requires_grad_(), weight()
        x = base * 1
        y = function(x, w)
        (x * x + y).sum().backward()
        found.append([base.grad.numpy(), w.grad.numpy(), x.detach().numpy()])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_outputs_share_no_memory_with_parameters_or_each_other() -> None:
    w = weight()
    traced = torch.trace(lambda x: (w, w[0], x, (x @ w)[0]), (draw(2, 3),))
    x = draw(2, 3)
    outs = traced(x)
    before = w.detach().clone()
    assert [o.requires_grad for o in outs] == [True, True, False, True]
    with torch.no_grad():
        for out in outs:
            out.fill_(7)
    assert torch.equal(w, before) and torch.equal(x, draw(2, 3))


# What stays as fast as it was.


def model_file(path: Path) -> Any:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
    torch.save(torch.trace(model, (draw(4, 3),)), path)
    return model


def test_a_service_runs_compiled_programs_and_keeps_nothing(tmp_path: Path) -> None:
    model_file(tmp_path / "m.tg")
    loaded = torch.load(tmp_path / "m.tg")
    y = loaded(draw(4, 3))
    assert not y.requires_grad and not loaded.forward.tensor_programs
    list(loaded.parameters())
    assert loaded(draw(4, 3)).requires_grad
    program = loaded.program()
    assert not program(draw(4, 3)).requires_grad
    with torch.no_grad():
        assert not loaded(draw(4, 3)).requires_grad


def test_a_training_step_replays_compiled_though_parameters_require_gradients() -> None:
    w = weight()
    optimizer = torch.optim.Adam([w], lr=0.1)

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = (x @ w).tanh().sum()
        loss.backward()
        optimizer.step()
        return loss

    traced = torch.trace(step, (draw(2, 3),))
    assert traced.graded == set()
    assert not traced(draw(2, 3)).requires_grad and not traced.tensor_programs


def test_a_replay_keeps_no_more_than_the_tape_needs() -> None:
    def f(x: Any) -> Any:
        for _ in range(50):
            x = x + 1.0
        return x

    x = draw(1000, 1000).requires_grad_()
    traced = torch.trace(f, (x,))
    traced(x)
    gc.collect()
    large: list[int] = []
    original = Tensor.__init__

    def count() -> int:
        gc.collect()
        return sum(type(o) is Tensor and o._data.size == 10**6 for o in gc.get_objects())

    before = count()
    y = traced(x)
    assert count() - before <= 2, (large, original)
    del y


# Files.


def test_a_loaded_file_is_fine_tuned_as_the_module_would_be(tmp_path: Path) -> None:
    model = model_file(tmp_path / "m.tg")
    loaded = torch.load(tmp_path / "m.tg")
    assert [n for n, _ in loaded.named_parameters()] == [n for n, _ in model.named_parameters()]
    losses: list[list[float]] = []
    for call, parameters in ((model, model.parameters()), (loaded, loaded.parameters())):
        optimizer = torch.optim.AdamW(parameters, lr=0.05)
        losses.append([])
        for seed in range(5):
            optimizer.zero_grad()
            loss = (call(draw(4, 3, seed=seed)) ** 2).mean()
            loss.backward()
            optimizer.step()
            losses[-1].append(loss.item())
    assert losses[0] == losses[1] and losses[0][-1] < losses[0][0]
    loaded.save(tmp_path / "tuned.tg")
    again = torch.load(tmp_path / "tuned.tg")
    x = draw(4, 3, seed=8)
    np.testing.assert_array_equal(again(x).numpy(), model(x).detach().numpy())
    assert len(list(again.parameters())) == 4
    assert torch.equal(torch.load(tmp_path / "m.tg")(x), again(x)) is False


def test_what_is_frozen_stays_frozen(tmp_path: Path) -> None:
    model_file(tmp_path / "m.tg")
    loaded = torch.load(tmp_path / "m.tg")
    first = next(loaded.parameters()).requires_grad_(False)
    assert [p.requires_grad for p in loaded.parameters()] == [False, True, True, True]
    loaded(draw(4, 3)).sum().backward()
    assert first.grad is None
    assert all(p.grad is not None for p in list(loaded.parameters())[1:])


# Traces that call replays.


def test_a_replay_becomes_a_part_of_a_larger_graph(tmp_path: Path) -> None:
    model_file(tmp_path / "m.tg")
    encoder = torch.load(tmp_path / "m.tg")
    head = nn.Linear(2, 1)
    optimizer = torch.optim.SGD([*encoder.parameters(), *head.parameters()], lr=0.1, momentum=0.9)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = ((head(encoder(x)) - y) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss

    x, y = draw(4, 3), draw(4, 1)
    traced = torch.trace(step, (x, y))
    names = {"head.weight", "head.bias", *(f"encoder.{n}" for n, _ in encoder.named_parameters())}
    assert names <= set(traced.state) and names <= set(traced.graph.writes)
    assert {"encoder.0", "encoder.2", "head"} <= {n.scope for n in traced.graph}
    lines = {n.loc.file for n in traced.graph if n.op == "tanh"}
    assert lines == {nn.modules.activation.__file__} or all("tracegraph" not in f for f in lines)
    wanted = in_fresh_process(traced, (x, y), tmp_path, calls=3)
    for loss in wanted:
        np.testing.assert_allclose(loss, step(x, y).detach().numpy(), rtol=1e-5)


def test_a_file_traced_by_itself_keeps_its_names(tmp_path: Path) -> None:
    model = model_file(tmp_path / "m.tg")
    loaded = torch.load(tmp_path / "m.tg")
    again = torch.trace(loaded, (draw(4, 3),))
    assert list(again.state) == [n for n, _ in model.named_parameters()]
    assert [s.name for s in again.signature.specs] == ["input"]
    x = draw(4, 3, seed=5)
    np.testing.assert_array_equal(again.program(level=1)(x).numpy(), model(x).detach().numpy())


def test_hyper_parameters_of_a_part_are_those_of_the_whole(tmp_path: Path) -> None:
    w = weight()
    optimizer = torch.optim.SGD([w], lr=0.5)

    def step(x: Any) -> None:
        optimizer.zero_grad()
        (x @ w).sum().backward()
        optimizer.step()

    torch.save({"step": torch.trace(step, (draw(2, 3),))}, tmp_path / "s.tg")
    part = torch.load(tmp_path / "s.tg")

    def twice(x: Any) -> None:
        part.step(x)
        part.step(x)

    whole = torch.trace(twice, (draw(2, 3),))
    assert [(h.name, h.default) for h in whole.hypers] == [("part.optimizer.lr", 0.5)]
    whole(draw(2, 3), **{"part.optimizer.lr": 0.0})
    np.testing.assert_array_equal(part.state_dict()["w"].numpy(), w.detach().numpy())
    whole(draw(2, 3))
    step(draw(2, 3))
    step(draw(2, 3))
    np.testing.assert_allclose(part.state_dict()["w"].numpy(), w.detach().numpy(), rtol=1e-6)


def test_random_numbers_of_a_part_are_fresh_in_each_replay(tmp_path: Path) -> None:
    torch.manual_seed(4)
    torch.save(torch.trace(lambda x: torch.rand(3) + x, (torch.zeros(3),)), tmp_path / "r.tg")
    part = torch.load(tmp_path / "r.tg")
    before = part.state_dict()["random.state"].clone()
    whole = torch.trace(lambda x: (part(x), part(x)), (torch.zeros(3),))
    assert torch.equal(part.state_dict()["random.state"], before)
    draws = [t for _ in range(2) for t in whole(torch.zeros(3))]
    wanted = [torch.load(tmp_path / "r.tg")(torch.zeros(3))]
    assert torch.equal(draws[0], wanted[0])
    assert len({tuple(t.tolist()) for t in draws}) == 4
    assert part.state_dict()["random.state"][1].item() == before[1].item() + 4


def test_a_branch_inside_a_part_is_one_of_the_whole() -> None:
    part = torch.trace(
        lambda x: x * 2 if x.sum() > 0 else x - 1,
        (torch.ones(2),),
        more_examples=[(-torch.ones(2),)],
    )
    whole = torch.trace(lambda x: part(x) + 1, (torch.ones(2),))
    assert whole(torch.ones(2) * 3).tolist() == [7.0, 7.0]
    with pytest.raises(UnseenPathError, match=r"x.sum\(\) > 0"):
        whole(-torch.ones(2))
    whole.add_example(-torch.ones(2))
    assert whole(-torch.ones(2)).tolist() == [-1.0, -1.0]
    x = torch.tensor([-1.0, -2.0], requires_grad=True)
    whole(x).sum().backward()
    assert x.grad.tolist() == [1.0, 1.0]


def test_loops_and_sizes_of_a_part_stay_open_in_the_whole() -> None:
    w = weight()
    part = torch.trace(lambda x: scanned(x, w), (draw(4, 3),))
    whole = torch.trace(lambda x: part(x) * 2, (draw(4, 3, seed=1),))
    assert "scan" in {n.op for n in whole.graph}
    x = draw(4, 3, seed=2).requires_grad_()
    found, wanted = (
        torch.autograd.grad(f(x), [x, w]) for f in (whole, lambda x: scanned(x, w) * 2)
    )
    assert_same(list(found), list(wanted))

    until = torch.trace(lambda x: while_loop(lambda x: x.sum() < 9, lambda x: x * 2, (x,))[0], x)
    whole = torch.trace(lambda x: until(x) + 1, (draw(4, 3),))
    for scale in (1.0, 0.01):
        start = torch.ones(4, 3) * scale
        assert torch.equal(whole(start), until(start) + 1)

    rows = torch.trace(
        lambda x: x.reshape(-1) * torch.arange(x.shape[0] * 3), (draw(4, 3),),
        dynamic={"x": {0: "rows"}},
    )  # fmt: skip
    whole = torch.trace(lambda x: rows(x) + 1, (draw(2, 3),), dynamic={"x": {0: "n"}})
    x = draw(5, 3)
    assert torch.equal(whole(x), rows(x) + 1)
    assert str(whole.graph.outputs[0].type) == "f32[n*3]"


def test_a_mode_that_a_part_relies_on_guards_the_whole() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)).eval()
    part = torch.trace(model, (draw(2, 3),))
    whole = torch.trace(lambda x: part(x) + 1, (draw(2, 3),))
    model.train()
    with pytest.raises(GuardError, match="mode"):
        whole(draw(2, 3))


def test_a_compiled_program_called_in_a_trace_is_not_frozen() -> None:
    part = torch.trace(lambda x: x * 2, (torch.ones(2),)).program()
    whole = torch.trace(lambda x: part(x) + 1, (torch.ones(2),))
    assert whole(torch.full((2,), 5.0)).tolist() == [11.0, 11.0]


def test_checks_of_a_call_are_those_of_other_replays() -> None:
    w = weight()
    traced = torch.trace(lambda x: x @ w, (draw(2, 3),))
    with pytest.raises(SignatureError, match="expected f32"):
        traced(draw(3, 3))
    with pytest.raises(SignatureError, match="misses"):
        traced()
    assert traced(draw(2, 3).numpy()).requires_grad


# Random programs.


def test_gradients_of_random_programs() -> None:
    """A slice of what `tests/fuzz/gradients.py` checks; 6000 programs found no difference."""
    seen = Counter(check_gradients(write(seeded(seed), 20)) for seed in range(170))
    assert seen["equal"] >= 40, seen


def _twice_unseen(x: Any) -> Any:
    alias = x.detach()
    alias[None, :] += alias.clone()
    return x.sum() * 0


def _unseen_on_both_ways(x: Any) -> Any:
    y = x * 1.0
    with torch.no_grad():
        x[:] = 0.25
    return y.relu() if y.sum() > 1 else y.tanh()


@pytest.mark.parametrize("function", [_twice_unseen, _unseen_on_both_ways])
def test_a_leaf_may_be_written_where_autograd_does_not_look(function: Any) -> None:
    traced = torch.trace(function, (torch.ones(3),), more_examples=[(-torch.ones(3),)])
    for sign in (1.0, -1.0):
        mine, theirs = ((sign * torch.ones(3)).requires_grad_() for _ in range(2))
        for run, x in ((traced, mine), (function, theirs)):
            run(x).sum().backward()
        assert mine.tolist() == theirs.tolist() and mine.grad.tolist() == theirs.grad.tolist()
    with pytest.raises(AutogradError, match="a leaf Variable"):
        torch.trace(lambda x: x.mul_(2).sum(), (torch.ones(3),))(torch.ones(3).requires_grad_())


def test_nothing_is_written_to_nothing() -> None:
    def f(x: Any) -> Any:
        wide = x.expand(2, 2)
        wide[:0] += 1.0
        return wide

    assert torch.trace(f, (torch.arange(2.0),))(torch.ones(2)).tolist() == [[1, 1], [1, 1]]


def test_a_gradient_of_nothing_is_zeros() -> None:
    w = torch.tensor(2.0, requires_grad=True)

    def f(x: Any) -> Any:
        y = x * 1.0
        y.unsqueeze(-1).copy_(w)
        y.sum().backward()
        return y.detach()

    f(torch.ones(0, 3))
    assert w.grad is not None and w.grad.item() == 0
    w.grad = None
    torch.trace(f, (torch.ones(0, 3),))(torch.ones(0, 3))
    assert w.grad is not None and w.grad.item() == 0


@pytest.mark.parametrize("shape", [(4,), (0, 3)])
@pytest.mark.parametrize("dynamic", [{}, {"a": {0: "n"}, "b": {0: "n"}}])
def test_inputs_that_are_one_tensor_are_refused_where_it_is_written(
    shape: tuple[int, ...], dynamic: dict[str, Any]
) -> None:
    def f(a: Any, b: Any) -> Any:
        b.mul_(2.0)
        return a.sum()

    x = torch.ones(shape)
    with pytest.raises(TraceError, match="input 'a' shares memory with 'b'"):
        torch.trace(f, (x, x), dynamic=dynamic)


def test_an_input_that_shares_memory_with_written_state_is_refused() -> None:
    """Eager code reads the new content after the write, a replay the old one; once it answered."""
    w = torch.ones(3)

    def f(x: Any) -> Any:
        y = x * 2
        w.add_(1)
        return y + x

    traced = torch.trace(f, (torch.zeros(3),))
    shared = (
        w,
        w.view(3),
        w[:],
        w.detach(),
        w.numpy(),
        torch.from_numpy(w.numpy()),
        w.numpy()[::-1],
    )
    for run in (traced, traced.program(), traced.program(level=1)):
        for x in shared:
            with pytest.raises(GuardError, match=r"'x' shares memory with 'w', .* at .*clone\(\)"):
                run(x)
    assert w.tolist() == [1, 1, 1]
    compiled = torch.compile(f)
    for x in (torch.zeros(3), w, w.clone(), w[:]):
        before = w.clone()
        assert (compiled(x) == (3 * before + 1 if x._storage is w._storage else 3 * x)).all()
        assert (w == before + 1).all()
