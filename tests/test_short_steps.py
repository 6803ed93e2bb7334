"""Calls that write State by the short way: what they write, count and refuse is as ever."""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tracegraph as tg
from tests.test_short_way import Watched
from tracegraph import nn
from tracegraph.errors import GuardError


class Training:
    """A step of a small network, and programs of it."""

    def __init__(self, dropout: float = 0.0, name: str = "Adam", scale: float = 1.0) -> None:
        tg.manual_seed(3)
        layers = [nn.Linear(6, 8), nn.Dropout(dropout), nn.Tanh(), nn.Linear(8, 2)]
        self.model = nn.Sequential(*layers)
        with tg.no_grad():
            for parameter in self.model.parameters():
                parameter.mul_(scale)
        self.optimizer = getattr(tg.optim, name)(self.model.parameters(), lr=0.05)
        self.x = tg.randn(4, 6)

    def step(self, x: Any) -> Any:
        self.optimizer.zero_grad()
        loss = self.model(x).square().mean()
        loss.backward()
        self.optimizer.step()
        return loss

    def program(self, short: bool = True) -> Watched:
        program = tg.trace(self.step, (self.x,)).program()
        program._short_way._exists &= short
        return Watched(program)

    def state(self) -> list[Any]:
        return [t.detach().numpy().copy() for t in tg.trace(self.step, (self.x,)).state.values()]


def same(first: Training, second: Training) -> bool:
    pairs = zip(first.state(), second.state(), strict=True)
    return all(np.array_equal(a, b, equal_nan=True) for a, b in pairs)


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop"])
def test_steps_are_those_of_the_long_way(name: str) -> None:
    one, other = Training(name=name), Training(name=name)
    short, long = one.program(), other.program(short=False)
    for _ in range(6):
        assert short(one.x).item() == long(other.x).item()
    assert (short.short, long.short) == (5, 0)
    versions = [[p._version for p in t.model.parameters()] for t in (one, other)]
    assert versions[0] == versions[1]
    assert same(one, other)


def test_random_state_goes_on() -> None:
    found = []
    for is_short in (True, False):
        made = Training(dropout=0.5)
        program = made.program(is_short)
        tg.manual_seed(11)
        found.append([program(made.x).item() for _ in range(5)] + [tg.rand(1).item()])
        assert program.short == 4 * is_short
    assert found[0] == found[1]


def test_a_learning_rate_is_followed() -> None:
    one, other = Training(), Training()
    short, long = one.program(), other.program(short=False)
    for number in range(5):
        for made in (one, other):
            made.optimizer.param_groups[0]["lr"] = 0.1 / (number + 1)
        assert short(one.x).item() == long(other.x).item()
    assert short.short == 4
    assert same(one, other)


def test_a_file_takes_a_learning_rate_by_keyword(tmp_path: Path) -> None:
    made = Training()
    tg.trace(made.step, (made.x,)).save(tmp_path / "step.tg")
    short, long = (tg.load(tmp_path / "step.tg").program() for _ in range(2))
    long._short_way._exists = False
    short, names = Watched(short), [h.name for h in long.entry.hypers]
    for number in range(6):
        given = {names[0]: 0.1 / (number + 1)} if number % 2 else {}
        assert short(made.x, **given).item() == long(made.x, **given).item()
    assert short.short == 5
    with pytest.raises(tg.errors.SignatureError, match="no argument"):
        short(made.x, momentum=0.5)


def by_hand(made: Training) -> None:
    with tg.no_grad():
        made.model[0].weight.mul_(0.5)


def by_another_parameter(made: Training) -> None:
    made.model[3].weight.data = tg.ones(2, 8)


def by_memory_of_others(made: Training) -> None:
    made.model[3].bias.data = tg.from_numpy(np.ones(2, np.float32))


def by_another_order(made: Training) -> None:
    made.model[3].weight.data = tg.ones(8, 2).t()


def by_a_state_dict(made: Training) -> None:
    made.model.load_state_dict({k: v * 2 for k, v in made.model.state_dict().items()})


def by_a_loan(made: Training) -> None:
    made.lent = made.model[0].bias.detach().numpy()
    made.lent[:] = 1


CHANGES = (
    by_hand,
    by_another_parameter,
    by_memory_of_others,
    by_another_order,
    by_a_state_dict,
    by_a_loan,
)


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
def test_state_is_followed(change: Any) -> None:
    one, other = Training(), Training()
    short, long = one.program(), other.program(short=False)
    for number in range(8):
        if number == 3:
            change(one)
            change(other)
        assert short(one.x).item() == long(other.x).item()
    assert short.short >= (2 if change is by_another_order else 5)
    assert same(one, other)
    if change is by_a_loan:
        assert np.array_equal(one.lent, one.model[0].bias.detach().numpy())


def test_an_argument_that_shares_written_memory_is_refused() -> None:
    weight = tg.ones(3)

    def step(x: Any) -> Any:
        weight.add_(x)
        return weight.sum()

    x = tg.full((3,), 2.0)
    program = Watched(tg.trace(step, (x,)).program())
    held = np.zeros(3, np.float32)
    weight.data = tg.from_numpy(held)
    assert [program(x).item() for _ in range(3)] == [6, 12, 18]
    assert program.short == 2
    assert held.tolist() == [6, 6, 6]
    for given in (weight, weight.detach(), tg.from_numpy(held), tg.from_numpy(held[::1])):
        with pytest.raises(GuardError, match="shares memory"):
            program(given)
    assert held.tolist() == [6, 6, 6]
    own = tg.from_numpy(np.full(3, 2, np.float32))
    assert program(own).item() == 24
    assert program.short == 3
    held.flags.writeable = False
    with pytest.raises(tg.errors.OpError):
        program(x)
    assert held.tolist() == [8, 8, 8]


def test_a_refused_step_leaves_state_as_it_was() -> None:
    table = nn.Embedding(5, 3)
    optimizer = tg.optim.SGD(table.parameters(), lr=0.1)

    def step(i: Any) -> Any:
        optimizer.zero_grad()
        loss = table(i).square().sum()
        loss.backward()
        optimizer.step()
        return loss

    program = Watched(tg.trace(step, (tg.tensor([1, 2]),)).program())
    for _ in range(3):
        program(tg.tensor([4, 0]))
        before, version = table.weight.detach().numpy().copy(), table.weight._version
        with pytest.raises(IndexError):
            program(tg.tensor([1, 9]))
        assert np.array_equal(table.weight.detach().numpy(), before)
        assert table.weight._version == version


def test_a_file_goes_on_with_its_state(tmp_path: Path) -> None:
    made = Training()
    tg.trace(made.step, (made.x,)).save(tmp_path / "step.tg")
    short, long = (tg.load(tmp_path / "step.tg").program() for _ in range(2))
    long._short_way._exists = False
    short = Watched(short)
    assert [short(made.x).item() for _ in range(5)] == [long(made.x).item() for _ in range(5)]
    assert short.short == 4


def test_what_is_made_of_state_ahead_follows_it() -> None:
    """A weight that is read before it is written, and a bias that only others write."""
    weight, bias = tg.ones(40, 48), tg.zeros(48)

    def step(x: Any) -> Any:
        y = x @ weight + bias.exp()
        weight.mul_(0.5)
        return y

    x = tg.ones(2, 40)
    program = Watched(tg.trace(step, (x,)).program())
    for number in range(6):
        if number == 3:
            bias.fill_(1)
        wanted = 40 * 0.5**number + (math.e if number >= 3 else 1.0)
        assert np.allclose(program(x).numpy(), wanted)


def test_where_state_is_another_at_each_call_it_is_sought_ever_more_seldom() -> None:
    holder = nn.Module()
    holder.register_buffer("sum", tg.zeros(3))

    def step(x: Any) -> Any:
        holder.sum.add_(x)
        return holder.sum * 1

    x = tg.ones(3)
    program = Watched(tg.trace(step, (x,)).program())
    for number in range(40):
        holder.sum = tg.full((3,), float(number))
        assert program(x).tolist() == [number + 1] * 3
    assert program.program._short_way._patience >= 16
    for _ in range(80):
        program(x)
    assert program.short > 8
    assert holder.sum.tolist() == [120] * 3


def test_steps_of_several_threads_take_turns() -> None:
    count = tg.zeros(2, dtype=tg.int64)

    def step(x: Any) -> Any:
        count.add_(x)
        return count * 1

    x = tg.ones(2, dtype=tg.int64)
    program = tg.trace(step, (x,)).program()
    before = count._version
    found: list[int] = []

    def call() -> None:
        for _ in range(200):
            found.append(program(x)[0].item())

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(1, 801))
    assert count._version == before + 800
