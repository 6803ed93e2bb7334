"""Training steps as native programs: what they write, where, and what a failure leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tracegraph as tg
from tracegraph import nn

OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda p: tg.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01),
    "adam": lambda p: tg.optim.Adam(p, lr=0.01),
    "adamw": lambda p: tg.optim.AdamW(p, lr=0.01, amsgrad=True),
    "rmsprop": lambda p: tg.optim.RMSprop(p, lr=0.01, momentum=0.5, centered=True),
}


def dense() -> tuple[Any, Any, Any]:
    net = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.LayerNorm(9), nn.Linear(9, 4))
    return net, tg.randn(5, 6), tg.arange(5) % 4


def convolutional() -> tuple[Any, Any, Any]:
    net = nn.Sequential(
        nn.Conv2d(2, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(5, 5, 3, groups=5, stride=2, padding=1), nn.GELU(), nn.Flatten(),
        nn.Linear(20, 3),
    )  # fmt: skip
    return net, tg.randn(4, 2, 8, 8), tg.arange(4) % 3


def recurrent() -> tuple[Any, Any, Any]:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.rnn = nn.Embedding(11, 6), nn.LSTM(6, 7, batch_first=True)
            self.head = nn.Linear(7, 4)

        def forward(self, x: Any) -> Any:
            return self.head(self.rnn(self.tokens(x))[0][:, -1])

    return Net(), tg.arange(12).reshape(3, 4) % 11, tg.arange(3)


NETS = {"dense": dense, "convolutional": convolutional, "recurrent": recurrent}


def training(net: str, optimizer: str) -> tuple[Any, Any]:
    """Return a network with a step of its training."""
    tg.manual_seed(0)
    model, x, y = NETS[net]()
    chosen = OPTIMIZERS[optimizer](model.parameters())
    loss_of = nn.CrossEntropyLoss()

    def step() -> Any:
        chosen.zero_grad()
        loss = loss_of(model(x), y)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        chosen.step()
        return loss

    return model, step


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("net", NETS)
def test_native_steps_train_as_eager_ones_do(net: str, optimizer: str) -> None:
    model, step = training(net, optimizer)
    program = tg.trace(step, ()).program()
    other, eager = training(net, optimizer)
    memory = {n: p.data_ptr() for n, p in model.named_parameters()}
    for _ in range(4):
        np.testing.assert_allclose(program().item(), eager().item(), rtol=1e-4)
    for (name, p), q in zip(model.named_parameters(), other.parameters(), strict=True):
        np.testing.assert_allclose(
            p.detach().numpy(), q.detach().numpy(), rtol=1e-3, atol=1e-4, err_msg=name
        )
        assert p.data_ptr() == memory[name]


def directly_written(program: Any) -> set[str]:
    results = program._program._main.plan().plan.results
    return {p.buffer.key for p in results if p.buffer.origin == "state"}


def test_weights_are_written_where_they_are() -> None:
    model, step = training("dense", "sgd")
    program = tg.trace(step, ()).program()
    program()
    written = directly_written(program)
    assert sum("momentum_buffer" in name for name in written) == len(list(model.parameters()))
    assert len(written) >= 2 * len(list(model.parameters())) - 1


def test_state_that_is_read_after_its_write_is_not_written_at_once() -> None:
    a, b = tg.tensor([1.0, 2, 3]), tg.tensor([10.0, 20, 30])

    def swap() -> Any:
        old = a.clone()
        a.copy_(b)
        b.copy_(old)
        return old.sum()

    program = tg.trace(swap, ()).program()
    for _ in range(3):
        program()
    assert (a.tolist(), b.tolist()) == ([10, 20, 30], [1, 2, 3])


def test_rolled_state_is_not_written_over_what_is_to_be_read() -> None:
    state = tg.arange(300.0)

    def roll() -> Any:
        state.copy_(tg.cat((state[1:], state[:1])) + state.flip(0) * 0)
        return state.sum()

    program = tg.trace(roll, ()).program()
    program()
    program()
    assert state.tolist() == [*range(2, 300), 0, 1]


def test_nothing_is_written_before_a_step_that_may_fail() -> None:
    table, count = tg.arange(6.0), tg.zeros(())

    def look(i: Any) -> Any:
        count.add_(1)
        return table[i]

    program = tg.trace(look, (tg.tensor([0, 5]),)).program()
    with pytest.raises(IndexError):
        program(tg.tensor([0, 6]))
    assert count.item() == 0
    assert program(tg.tensor([1, 2])).tolist() == [1, 2]
    assert count.item() == 1


def test_memory_that_is_read_only_is_replaced_by_the_caller_as_ever() -> None:
    base = np.zeros((3, 2), "f").T  # neither row-major
    state = tg.from_numpy(base)

    def step(x: Any) -> Any:
        state.add_(x)
        return state * 2

    program = tg.trace(step, (tg.ones(2, 3),)).program()
    assert program(tg.ones(2, 3)).tolist() == [[2, 2, 2], [2, 2, 2]]
    assert program(tg.ones(2, 3)).tolist() == [[4, 4, 4], [4, 4, 4]]
    assert base.tolist() == [[2, 2, 2], [2, 2, 2]]


def test_a_tensor_that_was_rebound_keeps_what_it_held() -> None:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("total", tg.zeros(3))

        def forward(self, x: Any) -> Any:
            self.total = self.total + x
            return self.total * 1

    net = Counter()
    before = net.total
    program = tg.trace(net, (tg.ones(3),)).program()
    program(tg.ones(3))
    assert before.tolist() == [0, 0, 0]
    assert net.total.tolist() == [1, 1, 1]
