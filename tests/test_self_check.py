"""The self-check of traces: what it calls the function with, finds, and leaves alone."""

from __future__ import annotations

import random
import threading
from typing import Any
from unittest import mock

import numpy as np
import pytest

import tracegraph as tg
from tests.fuzz.check import tracegraph_program
from tests.fuzz.choices import seeded
from tests.fuzz.writer import write
from tracegraph import Dim, nn
from tracegraph.audit.perturbing import Perturbed, other_sizes
from tracegraph.capture.recording import Recorder
from tracegraph.eager.tensors import Tensor, type_of
from tracegraph.errors import SelfCheckError, TraceError, UnseenPathError

AGREES = "the replay gives what the function gives"


def checked(function: Any, *inputs: Any, **options: Any) -> dict[str, str]:
    told: dict[str, str] = tg.trace(function, inputs, **options).report()["checked"]
    return told


# Other inputs.


def test_perturbed_floats_stay_within_what_was_seen() -> None:
    x = tg.tensor([0.0, 1.0, 0.25, 0.5, float("inf"), float("nan")])
    other = Perturbed().leaf(x, "x").numpy()
    finite = other[:4]
    assert finite[0] == 0 and (finite >= 0).all() and (finite <= 1).all()
    assert (finite[2:] != [0.25, 0.5]).all() and abs(finite[2:] - [0.25, 0.5]).max() < 0.06
    assert other[4] == np.inf and np.isnan(other[5])


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0])
def test_equal_floats_are_perturbed_too(value: float) -> None:
    other = Perturbed().leaf(tg.full((50,), value), "x").numpy()
    assert len(set(other.tolist())) > 40
    assert abs(other - value).max() <= 0.1 * max(1, abs(value))


def test_integers_change_places_and_bools_flip() -> None:
    x = tg.arange(40)
    other = Perturbed().leaf(x, "x")
    assert sorted(other.tolist()) == x.tolist() != other.tolist()
    flags = Perturbed().leaf(tg.ones(40, dtype=tg.bool), "x")
    assert 0 < flags.sum().item() < 40
    assert Perturbed().leaf(3, "x") == 3
    assert Perturbed().leaf(tg.ones(2, requires_grad=True), "x").requires_grad


def test_leaves_that_share_memory_go_on_sharing_it() -> None:
    whole = tg.arange(6.0)
    other = Perturbed()
    a, b, c = (other.leaf(t, "x") for t in (whole, whole[2:4], whole.reshape(2, 3).T))
    assert np.array_equal(a.numpy()[2:4], b.numpy())
    assert np.array_equal(a.numpy().reshape(2, 3).T, c.numpy())
    assert np.shares_memory(a.numpy(), b.numpy()) and not np.array_equal(a.numpy(), whole.numpy())


def test_other_sizes_keep_to_the_bounds() -> None:
    declared = {"x": {0: Dim("n", min=2, max=5)}, "y": {1: Dim("n", min=2, max=5)}}
    tries = other_sizes(declared, {"x": (4, 3), "y": (3, 4)})
    assert tries[0] == {"x": {0: 5}, "y": {1: 5}} and {"x": {0: 2}, "y": {1: 2}} in tries
    assert other_sizes({}, {}) == []
    x = Perturbed({"x": {0: 5}}).leaf(tg.ones(2, 3), "x")
    assert x.shape == (5, 3)


# What is told.


def test_a_trace_that_holds_is_told_so() -> None:
    assert checked(lambda x: x * 2, tg.ones(3)) == {"other inputs and seed": AGREES}


def test_other_sizes_of_dynamic_dims_are_tried() -> None:
    def f(x: Any) -> Any:
        return x.sum(0) / x.shape[0]

    told = checked(f, tg.ones(4, 2), dynamic={"x": {0: "n"}})
    assert told == {"other inputs, sizes and seed": AGREES}


def test_sizes_that_the_function_does_not_take_give_way_to_others() -> None:
    def f(x: Any) -> Any:
        return x.reshape(-1, 2, 3).sum(1)

    told = checked(f, tg.ones(4, 3), dynamic={"x": {0: "n"}})
    assert told == {"other inputs, sizes and seed": AGREES}


def test_a_path_that_no_example_took_is_no_fault() -> None:
    def f(x: Any) -> Any:
        return x * 2 if x[0] > 0.9999 else x

    told = checked(f, tg.ones(3))
    assert told["other inputs"].startswith("not covered: x[0] > 0.9999 at ")
    assert told["a second call"] == AGREES


def test_inputs_that_the_function_refuses_are_no_fault() -> None:
    def f(x: Any) -> Any:
        if x.detach()._data[0] != 1:  # unseen by the trace, but then it stops
            raise ValueError("only ones")
        return x * 2

    told = checked(f, tg.ones(3))
    assert "only ones" in told["other inputs"] and told["a second call"] == AGREES


def test_numbers_that_matter_are_told_from_those_that_do_not() -> None:
    scale, unused, count = 2.0, 3.0, 2

    def f(x: Any) -> Any:
        y = x
        for _ in range(count):
            y = y * scale
        return y if unused is not None else x

    report = tg.trace(f, (tg.ones(3),)).report()
    effects = {b.expression: b.effect for b in report.bakes}
    assert effects["scale"] == "another value changes the graph"
    assert report["checked"]["changed Python values"] == "1 nodes depend on them"
    assert (scale, count) == (2.0, 2)

    def g(x: Any) -> Any:
        return x + len(str(unused)) * 0

    (bake,) = [b for b in tg.trace(g, (tg.ones(3),)).report().bakes if b.expression == "unused"]
    assert bake.effect == "another value changes nothing"


def test_no_numbers_are_changed_while_other_threads_run() -> None:
    scale = 2.0
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        told = checked(lambda x: x * scale, tg.ones(3))
    finally:
        stop.set()
        thread.join()
    assert told["changed Python values"] == "not tried while other threads run"


def test_integers_that_the_function_does_not_take_give_way_to_floats() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads, self.gain = 2, 0.5

        def forward(self, x: Any) -> Any:
            return x.reshape(self.heads, -1) * self.gain

    report = tg.trace(Model(), (tg.ones(4),)).report()
    assert report["checked"]["changed Python values"] == "1 nodes depend on them"
    effects = {b.expression: b.effect for b in report.bakes}
    assert effects["self.gain"] == "another value changes the graph"


# When it runs.


def test_it_can_be_switched_off_and_leaves_functions_that_write_alone() -> None:
    total = tg.zeros(3)

    def writes(x: Any) -> Any:
        return total.add_(x)

    def reads(x: Any) -> Any:
        return total + x

    for function, check, times in (
        (reads, False, 1), (reads, None, 2), (writes, None, 1), (writes, False, 1),
        (writes, True, 2),
    ):  # fmt: skip
        seen: list[int] = []
        told = _count(function, seen, tg.ones(3), check)
        assert len(seen) == times, (function, check)
        assert bool(told) == (times == 2)
    assert total.tolist() == [0.0, 0.0, 0.0]


def _count(function: Any, seen: list[int], x: Any, check: bool | None) -> dict[str, str]:
    """Count runs where the trace does not put the count back."""
    place = Counted(seen)

    def counted(x: Any) -> Any:
        place.note()
        return function(x)

    return checked(counted, x, check=check)


class Counted:
    """Keeps numbers where a walk does not look."""

    __slots__ = ("seen",)

    def __init__(self, seen: list[int]) -> None:
        self.seen = seen

    def note(self) -> None:
        self.seen.append(1)


def test_random_state_alone_does_not_count_as_state() -> None:
    tg.manual_seed(3)
    before = tg.get_rng_state().tolist()
    assert checked(nn.Dropout(0.5), tg.ones(8)) == {"other inputs and seed": AGREES}
    assert tg.get_rng_state().tolist() == before


def test_a_training_step_is_checked_on_demand_and_put_back() -> None:
    tg.manual_seed(3)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.2), nn.Linear(4, 1))
    optimizer = tg.optim.Adam(model.parameters())

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = model(x).pow(2).mean()
        loss.backward()
        optimizer.step()
        return loss

    before = {n: t.clone() for n, t in model.state_dict().items()}
    random_before = tg.get_rng_state().tolist()
    told = checked(step, tg.randn(5, 3, generator=tg.Generator().manual_seed(1)), check=True)
    assert told["other inputs and seed"] == AGREES
    for name, t in model.state_dict().items():
        assert np.array_equal(t.numpy(), before[name].numpy()), name
    assert all(p.grad is None for p in model.parameters())
    slots = [t for slots in optimizer.state.values() for t in slots.values()]
    assert slots and not any(t.any().item() for t in slots)
    assert tg.get_rng_state().tolist() == random_before


def test_accepted_values_are_read_again_as_they_were() -> None:
    def f(x: Any) -> Any:
        return x / x.max().item()

    told = checked(f, tg.arange(4.0), allow_bake=["x.max().item()"])
    assert told == {"other inputs and seed": AGREES}


def test_a_failed_check_leaves_the_trace_as_it_was() -> None:
    rolls = iter(range(1, 50))

    def f(x: Any) -> Any:
        return x * 2 if x.sum() > 0 else x * next(rolls)

    traced = tg.trace(f, (tg.ones(3),))
    graph = len(traced.graph)
    with pytest.raises(SelfCheckError, match=r"the value 1\.0 became 2\.0"):
        traced.add_example(-tg.ones(3))
    assert traced(tg.ones(3)).tolist() == [2.0] * 3 and len(traced.graph) == graph
    with pytest.raises(UnseenPathError):
        traced(-tg.ones(3))


def test_every_branch_of_many_examples_is_covered() -> None:
    def f(x: Any) -> Any:
        return x * 2 if x.sum() > 0 else x - 1

    examples = [(tg.ones(3) * s,) for s in (1, -1, 2, -2)]
    told = checked(f, *examples[0], more_examples=examples[1:])
    assert told == {"other inputs and seed": AGREES}


# What it finds.


def test_numbers_that_change_are_named_with_their_line() -> None:
    def f(x: Any) -> Any:
        y = x * 2
        return y + random.random()  # the number

    line = f.__code__.co_firstlineno + 2
    with pytest.raises(SelfCheckError, match=rf"test_self_check.py:{line} the value 0\.\d+ became"):
        tg.trace(f, (tg.ones(3),))


def test_a_value_that_was_read_unseen_is_found() -> None:
    def f(x: Any) -> Any:
        return x * float(x._data.mean())

    line = f.__code__.co_firstlineno + 1
    with pytest.raises(SelfCheckError, match=f"test_self_check.py:{line} the value"):
        tg.trace(f, (tg.arange(4.0),))


def test_a_branch_that_was_taken_unseen_is_found() -> None:
    def f(x: Any) -> Any:
        return x * 2 if x._data[0] == 1 else x.exp()

    line = f.__code__.co_firstlineno + 1
    with pytest.raises(SelfCheckError, match=f"test_self_check.py:{line} another call .* does exp"):
        tg.trace(f, (tg.ones(3),))


def test_a_result_that_is_no_tensor_is_compared() -> None:
    def f(x: Any) -> Any:
        return x, random.random()

    with pytest.raises(SelfCheckError, match="result 1"):
        tg.trace(f, (tg.ones(3),))


def _lost(self: Recorder, t: Tensor, new: Tensor) -> None:
    """As if writes through views went unnoticed."""
    if not t._chain:
        _write(self, t, new)


def _no_seed(self: Recorder, args: Any, graded: bool) -> Any:
    """As if 0-d tensors were frozen."""
    found = _inputs(self, args, graded)
    return tuple(
        self._constant(x._data.copy(), type_of(x)) if isinstance(x, Tensor) and not x.shape else v
        for x, v in zip((x for x in args if x is not None), found, strict=True)
    )


_write, _inputs = Recorder.write, Recorder._inputs


def test_the_first_node_that_differs_is_named() -> None:
    def f(x: Any) -> Any:
        y = x * 2
        y[1:] = x[:-1]
        z = y.exp()  # differs first
        return z + 1

    line = f.__code__.co_firstlineno + 3
    with (
        mock.patch.object(Recorder, "write", _lost),
        pytest.raises(SelfCheckError, match=f"first node that differs is exp at .*:{line}"),
    ):
        tg.trace(f, (tg.arange(4.0),))


def test_scalars_that_were_frozen_are_found() -> None:
    with (
        mock.patch.object(Recorder, "_inputs", _no_seed),
        pytest.raises(SelfCheckError, match=r"the value 6\.0 became"),
    ):
        tg.trace(lambda x: x / x.sum(), (tg.arange(4.0),))


@pytest.mark.parametrize("start", range(0, 60, 20))
def test_random_programs_give_no_false_alarm(start: int) -> None:
    for seed in range(start, start + 20):
        built = tracegraph_program(write(seeded(seed)))
        args = built.inputs(0)
        try:
            tg.trace(built.function, args, check=True)
        except SelfCheckError:
            raise
        except (TraceError, RuntimeError, IndexError, ValueError):
            pass
