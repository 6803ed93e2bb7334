"""What a native program holds: a small arena, and no copies of State that nothing reads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tracegraph as tg
from tests import workloads
from tracegraph import nn
from tracegraph.runtime.cpu.lowering.memory import Use, plan_memory
from tracegraph.runtime.cpu.lowering.places import Buffer


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
    assert graph._both[2].keys() <= graph._types.keys()  # what was made is held once
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


@st.composite
def steps(draw: st.DrawFn) -> list[Use]:
    """Steps that each write a buffer or two, of what earlier ones wrote."""
    made: list[Buffer] = []
    uses = []
    for _ in range(draw(st.integers(1, 25))):
        reads = draw(st.lists(st.sampled_from(made), max_size=3)) if made else []
        sizes = draw(st.lists(st.sampled_from((0, 1, 64, 100, 640, 1000, 4096)), max_size=2))
        writes = [Buffer("arena", size) for size in sizes]
        if draw(st.booleans()):
            writes.append(Buffer("output", 640))
        pairs = [(y, x) for y in writes for x in reads if x.bytes == y.bytes]
        uses.append(Use(reads, writes, pairs if draw(st.booleans()) else ()))
        made += writes
    return uses


def lives(uses: list[Use]) -> dict[Buffer, tuple[int, int]]:
    found: dict[Buffer, tuple[int, int]] = {}
    for number, use in enumerate(uses):
        for buffer in (*use.reads, *use.writes):
            if buffer.origin == "arena":
                found[buffer] = (found.get(buffer, (number, 0))[0], number)
    return found


@given(steps())
def test_buffers_lie_apart_while_they_are_alive(uses: list[Use]) -> None:
    arena = plan_memory(uses)
    alive = lives(uses)
    shared = {pair for use in uses for pair in use.may_share}
    for x, (first, last) in alive.items():
        assert x.offset % 64 == 0
        assert x.offset + x.bytes <= arena.bytes
        for y, (begin, end) in alive.items():
            together = first <= end and begin <= last and x is not y
            if together and x.offset < y.offset + y.bytes and y.offset < x.offset + x.bytes:
                took_over = (x, y) if first == end else (y, x) if begin == last else None
                assert took_over in shared
    assert arena.bytes >= arena.live_bytes


def test_results_lie_where_operands_die() -> None:
    x, y, z, w = (Buffer("arena", 640) for _ in range(4))
    uses = [Use([], [x]), Use([x], [y, z], [(y, x), (z, x)]), Use([y, z], [w], [(w, y), (w, z)])]
    assert plan_memory(uses) == (2 * 640, 2 * 640)
    assert y.offset == x.offset
    assert z.offset != x.offset
    assert w.offset in (y.offset, z.offset)


@pytest.mark.parametrize("name", ["resnet18", "gpt", "train_mlp", "train_cnn", "train_gpt"])
def test_arenas_are_hardly_larger_than_what_is_alive(name: str) -> None:
    made = workloads.build(tg, name, small=True)
    arguments = (made.step, ()) if made.trains else (made.module, made.inputs)
    program = tg.trace(*arguments).program().prepare(*(() if made.trains else made.inputs))
    (plan,) = program._program._main._plans.values()
    assert plan.arena.live_bytes <= plan.arena.bytes <= 1.2 * plan.arena.live_bytes


def test_plans_of_other_sizes_share_an_arena() -> None:
    tg.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 96), nn.LayerNorm(96), nn.Linear(96, 8))
    dims = {"input": {0: tg.Dim("batch", min=1, max=512)}}
    program = tg.trace(net, (tg.randn(2, 64),), dynamic=dims).program()
    for size in (2, 300, 7, 300, 1, 2):
        close(program, net, tg.randn(size, 64))
    native = program._program._main
    plans = list(native._plans.values())
    (memory,) = native._arenas._free
    assert memory.array.nbytes == max(plan.arena.bytes for plan in plans) > 0
    assert all(context.memory.array.nbytes == 0 for plan in plans for context in plan._free)
    assert program.explain(tg.randn(300, 64), profile=True)


def test_calls_at_the_same_time_have_arenas_of_their_own() -> None:
    tg.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 96), nn.LayerNorm(96), nn.Linear(96, 8))
    dims = {"input": {0: tg.Dim("batch", min=1, max=512)}}
    program = tg.trace(net, (tg.randn(2, 64),), dynamic=dims).program()
    inputs = [tg.randn(size, 64) for size in (256, 31, 128, 500)]
    wanted = [program(x).numpy() for x in inputs]

    def calls(number: int) -> bool:
        found = (program(inputs[number]).numpy() for _ in range(100))
        return all(np.array_equal(y, wanted[number]) for y in found)

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(calls, range(4)))
