"""Branches on data: guards, merged examples, variants, and the refusal of paths never seen."""

from __future__ import annotations

import io
import random
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tracegraph as tg
from tracegraph.errors import BakeError, GuardError, SignatureError, TraceError, UnseenPathError
from tracegraph.ir.control import inner_graphs
from tracegraph.ir.verify import verify


def reloaded(traced: Any) -> Any:
    file = io.BytesIO()
    tg.save(traced, file)
    file.seek(0)
    return tg.load(file)


def forms(traced: Any) -> list[Any]:
    """A trace as it is, at each level of passes, and from its file."""
    verify(traced.graph)
    return [traced, *(traced.program(level=n) for n in (0, 1, 2)), reloaded(traced)]


def count(graph: Any) -> int:
    return sum(len(g) for g in inner_graphs(graph))


# One example: guards.


def test_a_branch_on_data_is_a_guard_that_names_the_line() -> None:
    def f(x: Any) -> Any:
        if x.sum() > 0:
            return x * 2
        return x - 1

    traced = tg.trace(f, (tg.tensor([1.0, 2.0]),))
    for run in forms(traced):
        assert run(tg.tensor([3.0, -1.0])).tolist() == [6.0, -2.0]
        with pytest.raises(UnseenPathError, match=r"x\.sum\(\) > 0 at .*test_branches\.py:\d+ is "):
            run(tg.tensor([-3.0, 1.0]))


@pytest.mark.parametrize(
    ("read", "seen", "unseen"),
    [
        (lambda x: bool(x[0]), 2.0, 0.0),
        (lambda x: int(x[0]), 2.5, 3.5),
        (lambda x: x.to(tg.int32)[0].item(), 2.0, 3.0),
        (lambda x: (x > 1)[0].item(), 2.0, 0.0),
        (lambda x: range(5)[x.to(tg.int64)[0]], 2.0, 3.0),
        (lambda x: x.to(tg.int64).tolist(), 2.0, 3.0),
        (lambda x: 1 if 2.0 in x else 0, 2.0, 3.0),
        (lambda x: x.to(tg.uint8)[:1].item(), 2.0, 3.0),
    ],
)
def test_whatever_python_reads_is_guarded(read: Any, seen: float, unseen: float) -> None:
    def f(x: Any) -> Any:
        read(x)
        return x + 1

    traced = tg.trace(f, (tg.tensor([seen]),))
    for run in forms(traced):
        assert run(tg.tensor([seen])).tolist() == [seen + 1]
        with pytest.raises(UnseenPathError):
            run(tg.tensor([unseen]))


@pytest.mark.parametrize("read", [lambda x: x[0].item(), float, lambda x: x.tolist()])
def test_floats_that_leave_the_graph_are_refused(read: Any) -> None:
    with pytest.raises(BakeError):
        tg.trace(lambda x: x * read(x), (tg.tensor([1.5]),))


def test_a_failing_guard_writes_nothing() -> None:
    weight, count = tg.ones(2), tg.zeros(())

    def step(x: Any) -> Any:
        count.add_(1)
        weight.mul_(2)
        assert x.sum() > 0, "positive inputs only"
        return (x * weight).sum()

    traced = tg.trace(step, (tg.ones(2),))
    assert count.item() == 0
    traced(tg.ones(2))
    with pytest.raises(UnseenPathError, match=r"x\.sum"):
        traced(-tg.ones(2))
    assert count.item() == 1 and weight.tolist() == [2.0, 2.0]


# Several examples: branches.


def classify(x: Any) -> Any:
    y = x * 2 if x.sum() > 0 else x - 1
    n = int(x.abs().max())
    for i in range(n):
        y = y.tanh() + i
    if (y > 0).all():
        return y.sum(), y
    return y.mean(), y


def test_every_traced_path_replays_and_others_are_refused() -> None:
    examples = [[1.0, 2.0, 3.0], [-1.0, -2.0, -3.0], [1.0, 1.0, 2.0], [-1.0, -1.0, 0.5]]
    inputs = [tg.tensor(e) for e in examples]
    traced = tg.trace(classify, (inputs[0],), more_examples=[(x,) for x in inputs[1:]])
    for run in forms(traced):
        for x in inputs:
            for mine, right in zip(run(x), classify(x), strict=True):
                np.testing.assert_allclose(mine.numpy(), right.numpy(), rtol=1e-6)
        with pytest.raises(UnseenPathError, match=r"is 5 .* but 3 or 2 in"):
            run(tg.tensor([5.0, 5.0, 5.0]))


def test_a_combination_that_no_example_took_is_not_made_up() -> None:
    """Python state set in one branch may matter in a later one: only whole paths are known."""

    def f(x: Any) -> Any:
        k = 1.0 if x[0] > 0 else 2.0
        if x[1] > 0:
            return x * k
        return x

    both = [tg.tensor([1.0, 1.0]), tg.tensor([-1.0, -1.0])]
    traced = tg.trace(f, (both[0],), more_examples=[(both[1],)])
    for run in forms(traced):
        for x in both:
            assert run(x).tolist() == f(x).tolist()
        for x in (tg.tensor([-1.0, 1.0]), tg.tensor([1.0, -1.0])):
            with pytest.raises(UnseenPathError):
                run(x)
    traced.add_example(tg.tensor([-1.0, 1.0]))
    assert traced(tg.tensor([-1.0, 1.0])).tolist() == [-2.0, 2.0]


def test_branches_that_end_alike_share_their_end() -> None:
    def f(x: Any) -> Any:
        for i in range(4):
            if x[i] > 0:
                x = x.exp()
            else:
                x = x * 3
            x = x.tanh() - 0.5
        return x

    rng = random.Random(1)
    every = [tg.tensor([rng.uniform(-2, 2) for _ in range(4)]) for _ in range(60)]
    traced = tg.trace(f, (every[0],), more_examples=[(x,) for x in every[1:]])
    outcomes = set()
    for run in forms(traced):
        for x in every:
            assert np.allclose(run(x).numpy(), f(x).numpy(), rtol=1e-6)
            outcomes.add(tuple(f(x).tolist()))
    single = count(tg.trace(f, (every[0],)).graph)
    assert count(traced.graph) < 6 * single  # a path each would be up to 60 times


def test_a_tree_of_a_hundred_examples_stays_compact() -> None:
    def f(x: Any) -> Any:
        total = x.sum()
        for i in range(7):
            if x[i] > 0:
                total = total + x[i]
        return total * 2

    rng = random.Random(0)
    every = [tg.tensor([rng.choice([-1.0, 1.0]) for _ in range(7)]) for _ in range(100)]
    traced = tg.trace(f, (every[0],), more_examples=[(x,) for x in every[1:]])
    rows = sum(len(e.path.rows) for e in traced._examples)
    assert count(traced.graph) < rows / 2
    for run in forms(traced):
        for x in every:
            assert run(x).item() == f(x).item()


def test_loops_whose_length_is_data() -> None:
    def collatz(n: Any) -> Any:
        steps = tg.zeros((), dtype=tg.int64)
        while n > 1:
            n = n // 2 if n % 2 == 0 else 3 * n + 1
            steps = steps + 1
        return steps

    known = [1, 2, 3, 6, 7]
    traced = tg.trace(collatz, (tg.tensor(1),), more_examples=[(tg.tensor(n),) for n in known[1:]])
    for run in forms(traced):
        assert [run(tg.tensor(n)).item() for n in known] == [0, 1, 7, 8, 16]
        with pytest.raises(UnseenPathError, match=r"n > 1|n % 2"):
            run(tg.tensor(27))


def test_a_training_step_that_branches_commits_what_its_path_writes() -> None:
    tg.manual_seed(0)
    model = tg.nn.Linear(3, 1)
    optimizer = tg.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    skipped = tg.zeros((), dtype=tg.int64)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = ((model(x) - y) ** 2).mean()
        if loss > 5:
            skipped.add_(1)
            return loss
        loss.backward()
        optimizer.step()
        return loss

    def data(scale: float) -> tuple[Any, Any]:
        return tg.randn(4, 3), scale * tg.ones(4, 1)

    traced = tg.trace(step, data(1.0), more_examples=[data(100.0)])
    start = {n: t.clone() for n, t in traced.state_dict().items()}
    batches = [data(scale) for scale in (1.0, 100.0, 1.0, 50.0, 1.0)]
    eager = [step(*b).item() for b in batches]
    after = {n: t.clone() for n, t in traced.state_dict().items()}
    for run in (traced, reloaded(traced)):
        run.load_state_dict(start)
        assert [run(*b).item() for b in batches] == eager
        state = run.state_dict()
        assert all(np.array_equal(state[n].numpy(force=True), after[n].numpy(force=True))
                   for n in after)  # fmt: skip
    assert skipped.item() == 2


def test_random_numbers_are_drawn_as_the_path_draws_them() -> None:
    def f(x: Any) -> Any:
        y = tg.rand(2) if x[0] > 0 else tg.rand(2) + tg.rand(2)
        return y + tg.rand(2)

    a, b = tg.tensor([1.0]), tg.tensor([-1.0])
    traced = tg.trace(f, (a,), more_examples=[(b,)])
    tg.manual_seed(3)
    right = [f(x).tolist() for x in (a, b, b, a)]
    tg.manual_seed(3)
    assert [traced(x).tolist() for x in (a, b, b, a)] == right


def test_branches_that_use_different_layers() -> None:
    class Model(tg.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.small, self.large = tg.nn.Linear(4, 2), tg.nn.Linear(4, 2)

        def forward(self, x: Any) -> Any:
            return self.small(x) if x.norm() < 1 else self.large(x)

    model = Model()
    small, large = tg.full((4,), 0.1), tg.full((4,), 3.0)
    traced = tg.trace(model, (small,), more_examples=[(large,)])
    assert {"small.weight", "large.weight"} <= set(traced.state_dict())
    for run in forms(traced):
        for x in (small, large):
            assert np.array_equal(run(x).numpy(force=True), model(x).numpy(force=True))


# Variants: modes and Python arguments.


def test_train_and_eval_in_one_file() -> None:
    model = tg.nn.Sequential(tg.nn.Linear(3, 4), tg.nn.BatchNorm1d(4), tg.nn.Dropout(0.5))
    x = tg.randn(5, 3)
    traced = tg.trace(model, (x,))
    model.eval()
    with pytest.raises(GuardError, match="train mode when it was traced"):
        traced(x)
    traced.add_example(x)
    assert np.array_equal(traced(x).numpy(force=True), model(x).numpy(force=True))
    loaded = reloaded(traced)
    assert np.array_equal(loaded.eval()(x).numpy(force=True), model(x).numpy(force=True))
    tg.manual_seed(1)
    model.train()
    right = model(x)
    tg.manual_seed(1)
    loaded.load_state_dict(dict(loaded.state_dict(), **{
        n: t for n, t in traced.state_dict().items() if n == "random.state"}))  # fmt: skip
    assert np.array_equal(loaded.train()(x).numpy(force=True), right.numpy(force=True))
    mean = loaded.state_dict()["1.running_mean"]
    assert np.array_equal(mean.numpy(), model[1].running_mean.numpy())
    assert len([n for n in loaded.state_dict() if n == "0.weight"]) == 1


def test_python_arguments_that_differ_between_examples_choose_the_way() -> None:
    def f(x: Any, how: str, power: int = 2, flag: bool = False) -> Any:
        y = x.sum() if how == "sum" else x.mean()
        return y**power if flag else y

    x = tg.tensor([1.0, 2.0, 6.0])
    traced = tg.trace(
        f, (x, "sum", 2, False), more_examples=[(x, "mean", 2, False), (x, "mean", 2, True)]
    )
    for run in (traced, reloaded(traced)):
        assert run(x, "sum", 2, False).item() == 9.0
        assert run(x, "mean", 2, False).item() == 3.0
        assert run(x, "mean", 2, True).item() == 9.0
        with pytest.raises(UnseenPathError, match="no example of the trace had the arguments"):
            run(x, "sum", 2, True)
        with pytest.raises(SignatureError, match="power"):
            run(x, "sum", 3, False)
        with pytest.raises(UnseenPathError):
            run(x, "sum", 2, 0)  # 0 is not False


def test_paths_may_return_different_things() -> None:
    def f(x: Any, verbose: bool = False) -> Any:
        if x.sum() == 0:
            return None
        if x.sum() < 0:
            return {"negative": x[:2], "why": "below"}
        return (x * 2, "fine", x.sum()) if verbose else x * 2

    cases = [(tg.tensor([1.0, 2.0, 3.0]), False), (tg.zeros(3), False), (-tg.ones(3), False),
             (tg.ones(3), True)]  # fmt: skip
    traced = tg.trace(f, cases[0], more_examples=cases[1:])
    for run in forms(traced):
        for case in cases:
            mine, right = run(*case), f(*case)
            if isinstance(right, dict):
                assert mine["why"] == "below" and mine["negative"].tolist() == [-1.0, -1.0]
            elif isinstance(right, tuple):
                assert mine[1] == "fine" and mine[2].item() == 3.0 and mine[0].tolist() == [2.0] * 3
            else:
                assert (right is None and mine is None) or mine.tolist() == right.tolist()


# What cannot be merged.


def test_examples_that_part_without_a_guard_are_refused() -> None:
    calls = []

    def f(x: Any) -> Any:
        calls.append(1)
        return x * len(calls)

    with pytest.raises(TraceError, match=r"nothing that the trace sees|leaves changes"):
        tg.trace(f, (tg.ones(2),), more_examples=[(tg.ones(2),)])


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ((tg.ones(3, dtype=tg.float64),), "f64"),
        (([tg.ones(3)],), "another nesting"),
        ((-tg.ones(3),), "give different results"),
    ],
)
def test_a_refused_example_leaves_the_trace_as_it_was(other: Any, message: str) -> None:
    def f(x: Any) -> Any:
        x = x[0] if isinstance(x, list) else x
        return x * 2 if x.sum() > 0 else x[:2]

    traced = tg.trace(f, (tg.ones(3),))
    graph = traced.graph
    with pytest.raises(TraceError, match=message):
        traced.add_example(*other)
    assert traced.graph is graph
    assert traced(tg.ones(3)).tolist() == [2.0, 2.0, 2.0]


def test_a_program_follows_an_added_example() -> None:
    def f(x: Any) -> Any:
        return x + 1 if x[0] > 0 else x - 1

    traced = tg.trace(f, (tg.ones(1),))
    program = traced.program()
    traced.add_example(-tg.ones(1))
    assert program(-tg.ones(1)).tolist() == [-2.0]


def test_too_many_branches_within_one_another_are_refused_with_a_remedy() -> None:
    def f(n: Any) -> Any:
        x = tg.zeros(())
        while x < n:
            x = x + 1
        return x

    many = [(tg.tensor(float(n)),) for n in range(200)]
    with pytest.raises(TraceError, match="while_loop"):
        tg.trace(f, many[0], more_examples=many[1:])


def test_memory_that_is_written_and_left_is_refused_where_others_see_it() -> None:
    memory = tg.ones(3)
    view = memory[1:]  # that the function does not know

    def f(x: Any) -> Any:
        nonlocal memory
        memory.mul_(2)
        memory = memory + x
        return memory.sum()

    with pytest.raises(TraceError, match=r"shares the memory .* does not write there"):
        tg.trace(f, (tg.ones(3),))
    assert memory.tolist() == [1, 1, 1] and view.tolist() == [1, 1]
    del view
    traced = tg.trace(f, (tg.ones(3),))
    assert [traced(tg.ones(3)).item() for _ in range(2)] == [9, 21]


def test_a_gradient_that_one_branch_leaves_none_is_refused() -> None:
    w, v = (tg.ones(2, requires_grad=True) for _ in range(2))

    def f(x: Any) -> Any:
        y = x * w if x.sum() > 0 else x * v
        y.sum().backward()
        return y.detach()

    examples = [(tg.ones(2),), (-tg.ones(2),)]
    with pytest.raises(TraceError, match=r"[wv]\.grad is None before .*set_to_none=False"):
        tg.trace(f, examples[0], more_examples=examples[1:])
    w.grad, v.grad = tg.zeros(2), tg.zeros(2)
    traced = tg.trace(f, examples[0], more_examples=examples[1:])
    for inputs in (*examples, *examples):
        traced(*inputs)
    assert w.grad.tolist() == [2, 2] and v.grad.tolist() == [-2, -2]


def test_places_that_come_to_share_memory_are_refused() -> None:
    """What is written through one of them later would change both, but not after a replay."""

    class Box:
        first, second = tg.ones(2), tg.zeros(2)

    box = Box()
    box.first, box.second = tg.ones(2), tg.zeros(2)

    def alias(x: Any) -> Any:
        box.first = box.second.detach()
        return x

    def both(x: Any) -> Any:
        box.first = box.second = x * 2
        return x

    for function in (alias, both):
        with pytest.raises(TraceError, match="share memory after the traced call"):
            tg.trace(function, (tg.ones(2),))

    def shifted(x: Any) -> Any:  # no two places hold one tensor
        box.first, box.second = box.second, x * 2
        return box.first.sum()

    traced = tg.trace(shifted, (tg.ones(2),))
    assert [traced(tg.ones(2)).item() for _ in range(3)] == [0.0, 4.0, 4.0]


def test_a_place_that_comes_to_hold_another_view_of_itself_is_refused() -> None:
    """Once, such a rebinding was no change: the replay left the memory as it was."""
    box = types.SimpleNamespace(h=tg.arange(4.0).reshape(2, 2).clone())

    def turned() -> Any:
        box.h = box.h.t().detach()
        return box.h.sum()

    with pytest.raises(TraceError, match=r"box\.h holds another view of its own memory"):
        tg.trace(turned)

    def kept() -> Any:
        box.h = box.h.view(4).view(2, 2).detach()
        return box.h.sum()

    def cloned() -> Any:
        box.h = box.h.t().clone()
        return box.h[0].sum()

    assert tg.trace(kept)().item() == 6
    traced = tg.trace(cloned)
    assert [traced().item() for _ in range(3)] == [2.0, 1.0, 2.0]


@pytest.mark.parametrize("level", [0, 1, 2])
def test_what_a_replay_binds_can_be_written(level: int) -> None:
    """Once, an overwritten tensor was bound to the expanded number: the next write failed.

    And a trace of a trace put what it computed where the inner one looks, and nowhere else.
    """
    box = types.SimpleNamespace(h=tg.ones(3))

    def filled(x: Any) -> Any:
        box.h = box.h * 2
        box.h[None, :] = x.sum()
        return x

    traced = tg.trace(filled, (tg.ones(2),))
    for run in (traced.program(level=level), traced, tg.trace(lambda x: traced(x), (tg.ones(2),))):
        run(tg.ones(2))
        box.h.add_(tg.tensor([1.0, 2.0, 3.0]))
        assert box.h.tolist() == [3, 4, 5]


def test_history_that_goes_from_state_to_state_is_seen() -> None:
    """The second call is like the first; in the third one `seen` has a history."""
    box = types.SimpleNamespace(w=tg.tensor(2.0, requires_grad=True), h=tg.ones(2), seen=tg.ones(2))

    def step(moves: bool) -> Any:
        loss = (box.seen * box.seen).sum()
        if loss.requires_grad:
            loss.backward(retain_graph=True)
        if moves:
            box.seen = box.h
        box.h = box.h * 0.5 + box.w
        return loss.detach()

    with pytest.raises(TraceError, match=r"leaves changes: step\.box\.h \(a part"):
        tg.trace(lambda: step(True))
    traced = tg.trace(lambda: step(False))
    assert [traced().item() for _ in range(3)] == [2.0, 2.0, 2.0]


def test_memory_that_a_replay_would_write_and_others_look_at() -> None:
    """The new value requires a gradient, so replays write it in place: eager code would not."""
    weight = tg.ones(3).requires_grad_()
    view = weight.detach()

    def f() -> None:
        nonlocal weight
        weight = (weight.detach() * weight).detach().requires_grad_()

    with pytest.raises(TraceError, match=r"^weight holds another .* writes the new value there"):
        tg.trace(f)
    assert view.tolist() == [1, 1, 1]
    del view
    tg.trace(f)()
    assert weight.tolist() == [1, 1, 1] and weight.requires_grad


def test_a_place_that_gets_a_tensor_with_a_gradient_is_refused() -> None:
    held = tg.ones(2)

    def f() -> None:
        nonlocal held
        made = held.detach().clone().requires_grad_()
        (made * made).sum().backward()
        held = made

    with pytest.raises(TraceError, match=r"^held holds a tensor with a .grad after"):
        tg.trace(f)
    assert held.grad is None
    f()
    traced = tg.trace(f)
    traced()
    assert held.tolist() == [1, 1] and held.grad.tolist() == [2, 2]


def test_history_that_one_branch_leaves_and_another_meets_is_refused() -> None:
    """The second branch, after the first, gives `weight` a gradient by way of `memory`."""
    weight, memory = tg.ones(2).requires_grad_(), tg.zeros(2)

    def f(x: Any) -> Any:
        weight.grad = None
        nonlocal memory
        if x.sum() > 0:
            memory += weight
            return x * 1
        (weight.sum() + memory.sum()).backward()
        return weight.grad * x

    traced = tg.trace(f, (tg.ones(2),))
    with pytest.raises(TraceError, match=r"memory is .* after example 0, and example 1 meets it"):
        traced.add_example(-tg.ones(2))
    for _ in range(2):
        assert traced(tg.ones(2)).tolist() == [1, 1]
    assert memory.tolist() == [2, 2]


def test_state_that_is_a_view_and_was_rebound_is_refused() -> None:
    held = {"v": tg.ones(2, 3)[0]}
    traced = tg.trace(lambda x: x * held["v"], (tg.ones(3),))
    assert traced(tg.ones(3)).tolist() == [1, 1, 1]
    held["v"] = tg.full((3,), 5.0)
    with pytest.raises(GuardError, match="holds another tensor now"):
        traced(tg.ones(3))


def test_branches_may_give_results_of_other_types(tmp_path: Path) -> None:
    def f(x: Any) -> Any:
        if x.shape[0] > 3:
            return x * 2
        if x.sum() > 0:
            return x.sum()
        return x.reshape(-1) > 0

    examples = [tg.ones(5, 2), tg.ones(2, 2), -tg.ones(2, 2)]
    traced = tg.trace(f, (examples[0],), more_examples=[(x,) for x in examples[1:]])
    traced.save(tmp_path / "model.tg")
    for replay in (traced, tg.load(tmp_path / "model.tg")):
        for n in range(7):
            for x in (tg.ones(n, 2), -tg.ones(n, 2)):
                right = f(x)
                given = replay(x)
                assert given.dtype == right.dtype and given.tolist() == right.tolist()
