"""Calls of native programs by the short way: they are taken, and see every change."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tracegraph as tg
from tests.test_prologue import CHANGES, Model
from tracegraph import nn
from tracegraph.errors import GuardError, SignatureError

X = tg.tensor([1.0, -2.0, 0.5])


class Network(nn.Module):
    """A layer whose weight is packed ahead, and a bias that is read where it lies."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(40, 48)
        self.scale = 2.0

    def forward(self, x: Any) -> Any:
        return self.layer(x).relu() * self.scale


def rows(count: int = 1, seed: int = 0) -> Any:
    tg.manual_seed(seed)
    return tg.randn(count, 40)


def way_of(program: Any) -> Any:
    """Return what a program has found; None if it goes the long way."""
    return program._short_way._found


class Watched:
    """A program whose runs the short way are counted."""

    def __init__(self, program: Any) -> None:
        self.program, self.short = program, 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        short = self.program._short_way
        call = short.call

        def counting(*given: Any) -> Any:
            made = call(*given)
            self.short += isinstance(made, tg.Tensor | tuple | dict)
            return made

        short.call = counting
        try:
            return self.program(*args, **kwargs)
        finally:
            short.call = call


@pytest.fixture
def network() -> Network:
    tg.manual_seed(1)
    return Network()


@pytest.fixture
def program(network: Network) -> Watched:
    return Watched(tg.trace(network, (rows(),)).program())


def close(found: Any, wanted: Any) -> bool:
    return bool(tg.allclose(found, wanted.detach(), atol=1e-5))


def test_it_is_taken_from_the_second_call_on(network: Network, program: Watched) -> None:
    for seed in range(4):
        assert close(program(rows(seed=seed)), network(rows(seed=seed)))
    assert program.short == 3


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
def test_it_follows_state(change: Callable[[Model], None]) -> None:
    model = Model()
    program = Watched(tg.trace(model, (X,)).program())
    for _ in range(3):
        assert close(program(X), model(X))
    change(model)
    for _ in range(3):
        assert close(program(X), model(X))
    gc.collect()
    taken = program.short
    assert taken >= 2
    for _ in range(2):
        assert close(program(X), model(X))
    assert program.short > taken or change.__name__ == "by_dlpack"


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_it_follows_parameters(name: str, network: Network, program: Watched) -> None:
    x = rows()
    for number in range(6):
        assert close(program(x), network(x))
        parameter = getattr(network.layer, name)
        if number % 3 == 0:
            with tg.no_grad():
                parameter.mul_(2)
        elif number % 3 == 1:
            setattr(network.layer, name, nn.Parameter(parameter.detach() + 1))
        assert close(program(x), network(x))
    assert program.short


def test_what_is_read_where_it_lies_may_be_written(network: Network, program: Watched) -> None:
    program(rows())
    for _ in range(3):
        with tg.no_grad():
            network.layer.bias.add_(1)
        assert close(program(rows()), network(rows()))
    assert program.short == 3


def test_state_in_a_closure() -> None:
    weight = tg.ones(3)

    def work(x: Any) -> Any:
        return x * weight

    program = Watched(tg.trace(work, (X,)).program())
    for number in range(5):
        if number == 2:
            weight = tg.zeros(3)
        assert close(program(X), work(X))
    assert program.short == 3


def test_places_that_share_memory(network: Network) -> None:
    network.other = nn.Linear(40, 48)
    network.other.weight = network.layer.weight
    program = Watched(tg.trace(lambda x: network(x) + network.other(x), (rows(),)).program())
    for _ in range(2):
        assert close(program(rows()), network(rows()) + network.other(rows()))
    assert program.short == 1
    network.other.weight = nn.Parameter(tg.zeros(48, 40))
    with pytest.raises(GuardError, match="several places share"):
        program(rows())


def test_state_whose_layout_is_relied_on() -> None:
    """A cache that is written through a view by its shape."""
    cache = tg.zeros(2, 3, 4)

    def f(x: Any) -> Any:
        cache.reshape(6, 4)[2] = x
        return cache * 1

    program = Watched(tg.trace(f, (tg.ones(4),), check=False).program("cpu"))
    for n in range(4):
        assert program(tg.ones(4) * n)[0, 2].tolist() == [n] * 4
    assert program.short >= 2
    cache.data = tg.zeros(4, 3, 2).transpose(0, 2).clone()
    with pytest.raises(GuardError, match="cache lies in memory in another order"):
        program(tg.ones(4))


def test_frozen_values_and_modes_are_watched(network: Network, program: Watched) -> None:
    program(rows())
    network.train(False)
    with pytest.raises(GuardError, match="train mode"):
        program(rows())
    network.train(True)
    program(rows())
    program(rows())
    assert program.short
    network.scale = 3.0
    with pytest.raises(GuardError, match="scale"):
        program(rows())


BAD = {
    "another shape": lambda: tg.ones(2, 40),
    "another dtype": lambda: tg.ones(1, 40, dtype=tg.float64),
    "a number": lambda: 3.0,
    "nothing": lambda: None,
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_what_does_not_fit_is_refused(bad: Callable[[], Any], program: Watched) -> None:
    for _ in range(2):
        program(rows())
        with pytest.raises(SignatureError):
            program(bad())
    with pytest.raises(SignatureError):
        program(rows(), rows())


def test_other_arguments_go_the_long_way(network: Network, program: Watched) -> None:
    x = rows()
    wide = tg.zeros(40, 2)
    wide[:, 0] = x[0]
    program(x)
    taken = [wide[:, :1].t(), x.numpy(), nn.Parameter(x)]
    for given in taken:
        assert close(program(given), network(x))
    assert close(program(x=x), network(x))
    assert program.short == 0
    assert close(program(x), network(x))
    assert program.short == 1


def test_every_batch_size_has_its_own(network: Network) -> None:
    sizes = {"x": {0: tg.Dim("batch", min=1, max=100)}}
    program = Watched(tg.trace(network, (rows(3),), dynamic=sizes).program())
    for count in (1, 7, 64, 7, 1, 64):
        assert close(program(rows(count)), network(rows(count)))
    assert program.short == 3
    with tg.no_grad():
        network.layer.weight.neg_()
    for count in (1, 7, 1, 7):
        assert close(program(rows(count)), network(rows(count)))
    assert program.short == 5
    with pytest.raises(SignatureError, match="at most 100"):
        program(rows(101))


def test_results_are_nested_and_fresh() -> None:
    program = Watched(tg.trace(lambda x, y: {"a": (x + y, x * y), "b": 3}, (X, X)).program())
    first = program(X, X)
    again, third = program(X, X), program(X, -X)
    assert program.short == 2
    assert again["b"] == 3
    assert again["a"][0].tolist() == first["a"][0].tolist() == (X + X).tolist()
    assert third["a"][0].tolist() == [0, 0, 0]


def test_a_refusal_by_a_kernel_is_told_as_ever() -> None:
    table = tg.arange(10.0).reshape(5, 2)
    program = Watched(tg.trace(lambda i: table[i], (tg.tensor([1, 2]),)).program())
    for _ in range(2):
        assert program(tg.tensor([4, 0])).tolist() == table[tg.tensor([4, 0])].tolist()
        with pytest.raises(IndexError):
            program(tg.tensor([1, 9]))
    assert program.short == 1


def test_a_new_example_makes_a_new_program() -> None:
    traced = tg.trace(lambda x: x + 1 if x.sum() > 0 else x - 1, (tg.ones(2),))
    program = Watched(traced.program())
    program(tg.ones(2))
    program(tg.ones(2))
    traced.add_example(-tg.ones(2))
    assert program(-tg.ones(2)).tolist() == [-2, -2]
    assert program(tg.ones(2)).tolist() == [2, 2]


def test_a_trace_sees_the_ops_of_a_program(network: Network, program: Watched) -> None:
    program(rows())
    program(rows())
    outer = tg.trace(lambda x: program.program(x) + 1, (rows(),))
    assert outer.graph.states
    assert close(outer(rows()), network(rows()) + 1)


def test_old_memory_is_let_go(network: Network, program: Watched) -> None:
    program(rows())
    program(rows())
    old = weakref.ref(network.layer.weight._data)
    with tg.no_grad():
        network.layer.weight = nn.Parameter(tg.zeros(48, 40))
    program(rows())
    program(rows())
    gc.collect()
    assert old() is None
    kept = weakref.ref(program.program)
    program.program = None
    gc.collect()
    assert kept() is None


def test_threads_follow_writes(network: Network) -> None:
    """Whoever writes and then calls sees what was written, whatever others do meanwhile."""
    program = tg.trace(network, (rows(),)).program()
    x, faults, stop = rows(), [], threading.Event()

    def call() -> None:
        while not stop.is_set():
            program(x)

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in range(200):
            with tg.no_grad():
                network.layer.weight.fill_(number % 7 / 100)
            if not close(program(x), network(x)):
                faults.append(number)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert faults == []
    assert np.isfinite(program(x).numpy()).all()
