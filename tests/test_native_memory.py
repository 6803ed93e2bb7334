"""What a native program holds: copies of State that nothing reads are let go."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tracegraph as tg
from tracegraph import nn


def normed(dynamic: bool = False) -> tuple[Any, Any]:
    """A convolution that takes in a batch norm: its weights are computed ahead, then packed."""
    tg.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
    with tg.no_grad():
        net[1].running_mean.uniform_(-1, 1)
        net[1].running_var.uniform_(0.5, 2)
    net.eval()
    dims = {"input": {0: tg.Dim("batch", min=1, max=64)}} if dynamic else None
    return net, tg.trace(net, (tg.randn(2, 8, 20, 20),), dynamic=dims)


def close(program: Any, net: Any, x: Any) -> None:
    np.testing.assert_allclose(program(x).numpy(), net(x).detach().numpy(), 1e-4, 1e-4)


def held(program: Any) -> set[int]:
    """Return the sizes of what is held of what was computed ahead."""
    graph = program._program
    assert graph._kept[1].keys() == {n for n in graph._both[2] if n not in graph._types}
    return {array.size for array in graph._kept[1].values()}


def test_what_was_computed_ahead_and_packed_is_let_go() -> None:
    net, traced = normed()
    program = traced.program()
    x = tg.randn(2, 8, 20, 20)
    close(program, net, x)
    assert net[0].weight.numel() not in held(program)
    close(program, net, x)


@pytest.mark.parametrize("sizes", [(1, 64, 2, 1), (64, 1)])
def test_what_was_let_go_is_made_again_for_other_sizes(sizes: tuple[int, ...]) -> None:
    net, traced = normed(dynamic=True)
    program = traced.program()
    for size in sizes:
        close(program, net, tg.randn(size, 8, 20, 20))
        assert net[0].weight.numel() not in held(program)
    program._program._main._store._made.clear()  # as if the next plan packed in another way
    close(program, net, tg.randn(3, 8, 20, 20))
    assert net[0].weight.numel() not in held(program)


def test_what_was_let_go_follows_state() -> None:
    net, traced = normed()
    program = traced.program()
    x = tg.randn(2, 8, 20, 20)
    for change in (
        lambda: net[0].weight.mul_(2),
        lambda: net[1].running_var.mul_(3),
        lambda: net[0].load_state_dict(nn.Conv2d(8, 16, 3, bias=False).state_dict()),
        lambda: net[0].weight.detach().numpy().fill(0.25),
    ):
        close(program, net, x)
        with tg.no_grad():
            change()
    close(program, net, x)
    lent = net[1].weight.detach().numpy()
    for value in (1, 2):  # as long as it is lent, nothing is kept
        lent.fill(value)
        close(program, net, x)
