"""Launches that run as one: which may, in which order, and that memory and bits do not notice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

pytest.importorskip("llvmlite")

import tracegraph as torch
from tests import workloads
from tracegraph import nn
from tracegraph.runtime.cpu import program as programs
from tracegraph.runtime.cpu.code.chunks import CHUNK_NS
from tracegraph.runtime.cpu.lowering.groups import grouped, joint_uses
from tracegraph.runtime.cpu.lowering.memory import Use, plan_memory
from tracegraph.runtime.cpu.lowering.places import LINE_BYTES, Buffer
from tracegraph.runtime.cpu.lowering.steps import HostCall, Launch, Plan

LONG = 2 * CHUNK_NS


def buffers(count: int, origin: Any = "arena", size: int = 64) -> list[Buffer]:
    return [Buffer(origin, size, number) for number in range(count)]


def launch(
    reads: Sequence[Buffer], writes: Sequence[Buffer], cost_ns: int = LONG, chunks: int = 2,
    may_share: Sequence[tuple[Buffer, Buffer]] = (), what: str = "",
) -> Launch:  # fmt: skip
    kernel: Any = None
    return Launch(kernel, (), chunks, cost_ns, Use(reads, writes, may_share), None, what)


def host_call(reads: Sequence[Buffer], writes: Sequence[Buffer]) -> HostCall:
    node: Any = None
    return HostCall(node, (), (), Use(reads, writes), "a test")


def order_of(*steps: Launch | HostCall, checks: Sequence[int] = ()) -> list[list[int]]:
    """Return the numbers of steps in the order that they run in, a list for each group."""
    found = grouped(Plan(list(steps), [], {}, dict.fromkeys(checks, host_call([], [])), {})).steps
    made: list[list[int]] = []
    last = 0
    for step in found:
        group = step.group if isinstance(step, Launch) else 0
        number = next(i for i, x in enumerate(steps) if x.use is step.use)
        if group and group == last:
            made[-1].append(number)
        else:
            made.append([number])
        last = group
    return made


a, b, c, d, e = buffers(5)
w, v = buffers(2, "state")


def test_launches_that_share_nothing_or_read_the_same_run_as_one() -> None:
    assert order_of(launch([a], [b]), launch([a], [c])) == [[0, 1]]
    assert order_of(launch([w], [b]), launch([v], [c]), launch([w, v], [d])) == [[0, 1, 2]]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (launch([a], [b]), launch([b], [c])),  # what it reads is written
        (launch([a], [b]), launch([c], [a])),  # what it writes is read
        (launch([a], [b]), launch([c], [b])),  # both write it
        (launch([w], [b]), launch([c], [w])),
        (launch([a], [b]), host_call([], [c])),
    ],
)
def test_launches_that_need_each_other_follow_each_other(first: Launch, second: Launch) -> None:
    assert order_of(first, second) == [[0], [1]]


def test_the_launch_of_the_longest_chunks_comes_first() -> None:
    steps = [launch([], [a], LONG, 8), launch([], [b], LONG, 1), launch([], [c], LONG, 4)]
    assert order_of(*steps) == [[1, 2, 0]]


def test_little_work_is_not_shared() -> None:
    short = [launch([], [x], 100, 1) for x in buffers(100)]
    assert order_of(*short) == [[i] for i in range(100)]
    few = [launch([], [x], CHUNK_NS // 3, 1) for x in buffers(2)]
    assert order_of(*few) == [[0], [1]]


def test_launches_without_chunks_are_apart() -> None:
    assert order_of(launch([], [a]), launch([], [b], chunks=0), launch([], [c])) == [[0, 2], [1]]


def test_what_reads_checked_indices_follows_the_check() -> None:
    index, x = buffers(2, "input")
    steps = launch([x, index], [a]), launch([x, index], [b]), launch([w], [c])
    assert order_of(*steps) == [[0, 1, 2]]
    assert order_of(*steps, checks=[1]) == [[0, 2], [1]]


def test_what_may_fail_keeps_its_order_and_comes_before_state_is_written() -> None:
    steps = launch([a], [b]), launch([c], [d]), launch([e], [w])
    assert order_of(*steps) == [[0, 1, 2]]
    assert order_of(*steps, checks=[1, 2]) == [[0], [1], [2]]
    assert order_of(*steps, checks=[2]) == [[0, 1], [2]]
    assert order_of(host_call([a], [b]), launch([c], [w])) == [[0], [1]]
    assert order_of(host_call([a], [b]), host_call([c], [d])) == [[0], [1]]


def test_a_launch_that_ends_more_lives_than_it_begins_joins_from_far_away() -> None:
    size = 1 << 20
    chain = buffers(20, size=size)
    steps = [launch([x], [y]) for x, y in pairwise(chain)]
    gradient = Buffer("arena", size)
    first, update = launch([], [chain[0], gradient]), launch([gradient], [w])
    assert order_of(first, *steps, update)[:3] == [[0], [1, 20], [2]]
    result = launch([gradient], [Buffer("arena", size)])  # not before it ends
    assert order_of(first, *steps, result)[-1] == [20]


def test_members_of_a_group_do_not_share_memory() -> None:
    x, y, z, s = buffers(4)
    steps = grouped(
        Plan(
            [
                launch([], [x]),
                launch([x], [y], may_share=[(y, x)]),
                launch([x], [z], may_share=[(z, x)]),
                launch([y, z], [s], may_share=[(s, y)]),
            ],
            [], {}, {}, {},
        )
    ).steps  # fmt: skip
    plan_memory(joint_uses(steps))
    assert len({x.offset, y.offset, z.offset}) == 3
    assert s.offset == y.offset  # which dies there, and is read by that launch alone


# Random plans.


def random_steps(random: np.random.Generator) -> tuple[list[Launch | HostCall], list[int]]:
    """Return steps that read what was written, and the codes of those that may fail."""
    known = buffers(3, "input") + buffers(2, "state")
    steps: list[Launch | HostCall] = []
    checks = []
    for number in range(int(random.integers(1, 40))):
        picks = random.integers(0, len(known), int(random.integers(0, 3)))
        reads = [known[i] for i in picks]
        fresh = [Buffer("arena", int(random.choice([1, 64, 200, 1 << 16])))]
        old = [x for x in known if x.origin == "arena"]
        if old and random.random() < 0.1:
            fresh = [old[int(random.integers(0, len(old)))]]  # it is written again
            reads = [x for x in reads if x not in fresh]
        share = [(fresh[0], x) for x in reads if x.origin == "arena" and random.random() < 0.5]
        if random.random() < 0.05:
            steps.append(host_call(reads, fresh))
        else:
            cost, chunks = int(random.choice([10, 500, 9000])), int(random.integers(0, 6))
            steps.append(launch(reads, fresh, cost, chunks, share))
            if random.random() < 0.05:
                checks.append(number + 1)
        known += fresh
    return steps, checks


def replay(steps: Sequence[Launch | HostCall], backwards: bool) -> dict[int, list[int]]:
    """Return the numbers of the steps whose results each step finds where its operands lie."""
    memory: dict[Any, int] = {}
    found: dict[int, list[int]] = {}

    def lines(buffer: Buffer) -> list[Any]:
        if buffer.origin != "arena":
            return [buffer]
        count = max(1, math.ceil(buffer.bytes / LINE_BYTES))
        return [buffer.offset // LINE_BYTES + i for i in range(count)]

    groups: list[list[Launch | HostCall]] = []
    last = 0
    for step in steps:
        group = step.group if isinstance(step, Launch) else 0
        if group and group == last:
            groups[-1].append(step)
        else:
            groups.append([step])
        last = group
    for members in groups:
        for step in members[::-1] if backwards else members:
            found[id(step.use)] = [memory.get(x, -1) for r in step.use.reads for x in lines(r)]
            memory |= {x: id(step.use) for r in step.use.writes for x in lines(r)}
    return found


@pytest.mark.parametrize("seed", range(150))
def test_every_step_finds_what_it_found_before(seed: int) -> None:
    steps, checks = random_steps(np.random.default_rng(seed))
    plan_memory([step.use for step in steps])
    expected = replay(steps, False)
    plan = Plan(steps, [], {}, dict.fromkeys(checks, host_call([], [])), {})
    made = grouped(plan).steps
    assert sorted(id(s.use) for s in made) == sorted(id(s.use) for s in steps)
    plan_memory(joint_uses(made))
    assert replay(made, False) == replay(made, True) == expected
    failing = [s for i, s in enumerate(steps) if i + 1 in checks or isinstance(s, HostCall)]
    uses = [id(s.use) for s in made]
    places = [uses.index(id(s.use)) for s in failing]
    assert places == sorted(places)


# Programs.


def trained(threads: int, calls: int, seed: int = 0) -> tuple[list[bytes], str]:
    """Return the bits of losses and weights of a small model, and what its program tells."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(288, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    random = workloads.numbers()
    x = torch.tensor(workloads.floats(random, 16, 1, 12, 12))
    y = torch.tensor(random.randint(0, 10, 16).astype(np.int64))
    program = torch.trace(step, (x, y)).program()
    losses = [program(x, y) for _ in range(calls)]
    arrays = [t.detach().numpy() for t in (*losses, *model.parameters())]
    return [array.tobytes() for array in arrays], program.explain()


@pytest.fixture
def _threads() -> Any:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_threads")
def test_a_training_step_has_the_bits_of_launches_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = [trained(threads, 200) for threads in (1, 2, 3)]
    monkeypatch.setattr(programs, "grouped", lambda plan: plan)
    apart, told = trained(2, 200)
    assert all(bits == apart for bits, _ in found)
    assert "beside" in found[0][1]
    assert "beside" not in told
