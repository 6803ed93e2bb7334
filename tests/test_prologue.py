"""What depends on State only is computed once, and again whenever State may have changed."""

from __future__ import annotations

import copy
import ctypes
import gc
import io
import queue
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import tracegraph as tg
from tests import cupy_stand_in
from tracegraph import nn
from tracegraph.runtime.interpreter import InterpreterProgram


class Model(nn.Module):
    """`x · exp(weight)`: the exponential depends on State only."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(tg.tensor([1.0, 2.0, 3.0]))

    def forward(self, x: Any) -> Any:
        return x * self.weight.exp()


X = tg.tensor([1.0, -2.0, 0.5])


class Counted:
    """A program that counts how often its prologue runs."""

    def __init__(self, entry: Any, **options: Any) -> None:
        self.program = entry.program(**options)
        self.runs = 0
        early = self.program._program._early
        run = early.run

        def counting(*args: Any) -> Any:
            self.runs += 1
            return run(*args)

        early.run = counting

    def __call__(self, *args: Any) -> Any:
        return self.program(*args)


@pytest.fixture
def model() -> Model:
    return Model()


def in_place(m: Model) -> None:
    with tg.no_grad():
        m.weight.add_(1)


def through_a_view(m: Model) -> None:
    with tg.no_grad():
        m.weight[1:].view(2, 1)[0] = 5


def through_detach(m: Model) -> None:
    m.weight.detach().mul_(2)


def through_data(m: Model) -> None:
    m.weight.data.add_(1)


def through_a_view_of_data(m: Model) -> None:
    m.weight.data[0] = 4


def through_data_in_arithmetic(m: Model) -> None:
    m.weight.data *= 3


def other_data(m: Model) -> None:
    m.weight.data = tg.tensor([0.0, 1.0, 0.0])


def data_of_a_larger_tensor(m: Model) -> None:
    m.weight.data = tg.arange(6.0).reshape(2, 3)[1]


def another_parameter(m: Model) -> None:
    m.weight = nn.Parameter(tg.zeros(3))


def another_in_the_dict(m: Model) -> None:
    m._parameters["weight"] = nn.Parameter(tg.full((3,), -1.0))


def state_dict(m: Model) -> None:
    m.load_state_dict({"weight": tg.tensor([3.0, 2.0, 1.0])})


def state_dict_assigned(m: Model) -> None:
    m.load_state_dict({"weight": nn.Parameter(tg.tensor([3.0, 2.0, 0.0]))}, assign=True)


def optimizer_step(m: Model) -> None:
    optimizer = tg.optim.Adam(m.parameters(), lr=0.5)
    m(X).sum().backward()
    optimizer.step()


def traced_step(m: Model) -> None:
    optimizer = tg.optim.SGD(m.parameters(), lr=0.1, momentum=0.5)

    def step(x: Any) -> None:
        optimizer.zero_grad()
        m(x).sum().backward()
        optimizer.step()

    tg.trace(step, (X,))(X)


def init(m: Model) -> None:
    nn.init.uniform_(m.weight)


def by_numpy(m: Model) -> None:
    m.weight.detach().numpy()[0] = 7


def by_a_view_in_numpy(m: Model) -> None:
    array = m.weight.detach()[1:].numpy()[:1].reshape(1, 1)
    array += 1


def by_asarray(m: Model) -> None:
    np.asarray(m.weight.detach())[...] = 0.5


def by_dlpack(m: Model) -> None:
    array = np.from_dlpack(m.weight.detach())  # NumPy makes it read-only, others do not
    ctypes.cast(array.ctypes.data, ctypes.POINTER(ctypes.c_float))[2] = 8.0


def by_a_shallow_copy(m: Model) -> None:
    with tg.no_grad():
        copy.copy(m.weight).add_(1)


def nothing(m: Model) -> None:
    """No change: what was kept is used."""


CHANGES = [
    in_place, through_a_view, through_detach, through_data, through_a_view_of_data,
    through_data_in_arithmetic, other_data, data_of_a_larger_tensor, another_parameter,
    another_in_the_dict, state_dict, state_dict_assigned, optimizer_step, traced_step, init,
    by_numpy, by_a_view_in_numpy, by_asarray, by_dlpack, by_a_shallow_copy,
]  # fmt: skip


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("change", [*CHANGES, nothing], ids=lambda f: f.__name__)
def test_a_replay_follows(change: Callable[[Model], None], level: int, model: Model) -> None:
    replay = Counted(tg.trace(model, (X,)), level=level)
    for _ in range(3):
        assert replay(X).tolist() == model(X).tolist()
    assert replay.runs == (level > 0)
    before = model(X).tolist()
    change(model)
    wanted = model(X).tolist()
    assert (wanted == before) == (change is nothing)
    for _ in range(3):
        assert replay(X).tolist() == wanted
    assert replay.runs == (level > 0) * (1 if change is nothing else 2)


def test_tied_places_cannot_swap_unnoticed() -> None:
    """Two views of one memory are told apart, though it is not written."""
    model = Model()
    rows = tg.arange(6.0).reshape(2, 3)
    replay = Counted(tg.trace(model, (X,)))
    for i in (0, 1, 0, 0):
        model.weight.data = rows[i]
        assert replay(X).tolist() == model(X).tolist()
    assert replay.runs == 3


@pytest.mark.parametrize("other", [tg.ones(1), tg.ones(2, 3), tg.ones(3, dtype=tg.float64)])
def test_state_of_another_type_is_refused(other: Any, model: Model) -> None:
    """NumPy would broadcast it."""
    for reads in (lambda x: x * model.weight.exp(), lambda x: x * model.weight):
        replay = tg.trace(reads, (X,))
        replay(X)
        kept = model.weight.data
        model.weight.data = other
        with pytest.raises(tg.errors.GuardError, match=r"weight was f32\[3\] when it was traced"):
            replay(X)
        model.weight.data = kept
        replay(X)


def test_memory_that_is_lent_is_not_trusted(model: Model) -> None:
    replay = Counted(tg.trace(model, (X,)))
    replay(X)
    array = model.weight.detach().numpy()
    part = array[:2]
    for i in range(3):
        part[:] = i
        assert replay(X).tolist() == model(X).tolist()
    assert replay.runs == 4
    del array
    part[0] = 9
    assert replay(X).tolist() == model(X).tolist()
    part[0] = 8
    del part
    for _ in range(3):
        assert replay(X).tolist() == model(X).tolist()
    assert replay.runs == 6


MAKERS: dict[str, Callable[[Any], Any]] = {
    "from_numpy": tg.from_numpy,
    "as_tensor": tg.as_tensor,
    "from_dlpack": tg.from_dlpack,
    "frombuffer": lambda a: tg.frombuffer(a, dtype=tg.float32),
    "a view": lambda a: tg.from_numpy(a).reshape(1, 3)[0],
    "a parameter": lambda a: nn.Parameter(tg.from_numpy(a)).detach(),
}  # fmt: skip


@pytest.mark.parametrize("name", MAKERS)
def test_memory_of_others_is_not_trusted(name: str) -> None:
    array = np.ones(3, np.float32)
    box = [MAKERS[name](array)]
    traced = tg.trace(lambda x: x * box[0].exp(), (X,))
    replay = Counted(traced)
    for i in range(3):
        array[:] = i
        assert replay(X).tolist() == (X * tg.full((3,), float(i)).exp()).tolist()
    assert replay.runs == 3


def test_a_trace_that_writes_and_undoes(model: Model) -> None:
    """What was replayed while a trace had changed State is not kept for after it."""
    inner = Counted(tg.trace(model, (X,)))
    seen: queue.SimpleQueue[Any] = queue.SimpleQueue()  # a list would be put back

    def step(x: Any) -> Any:
        with tg.no_grad():
            model.weight.add_(1)
        thread = threading.Thread(target=lambda: seen.put(inner(X).tolist()))
        thread.start()
        thread.join()
        return x * 2

    tg.trace(step, (X,))
    assert inner(X).tolist() == model(X).tolist() != seen.get()


def test_buffers_that_training_writes() -> None:
    norm = nn.BatchNorm1d(3)
    x = tg.randn(5, 3)
    norm(x)
    evaluate = Counted(tg.trace(norm.eval(), (x,)), level=2)
    for _ in range(2):
        assert np.allclose(evaluate(x).detach(), norm(x).detach(), atol=1e-6)
    norm.train()(tg.randn(5, 3) * 9 + 4)
    norm.eval()
    assert np.allclose(evaluate(x).detach(), norm(x).detach(), atol=1e-6)


def conv_net() -> Any:
    torch = tg
    torch.manual_seed(3)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 5, 3, bias=False), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(80, 6),
        nn.BatchNorm1d(6),
    )  # fmt: skip
    for _ in range(3):
        net(torch.randn(7, 3, 6, 6) * 2 + 1)
    return net.eval()


def ops_of(program: Any) -> set[str]:
    return {node.op for node in program._program._main.graph}


def test_batch_norm_is_folded_once_per_version() -> None:
    net = conv_net()
    x = tg.randn(2, 3, 6, 6)
    replay = Counted(tg.trace(net, (x,)), level=2)
    assert "batch_norm_inference" not in ops_of(replay.program)
    assert not {"rsqrt", "sqrt"} & ops_of(replay.program)
    layers = 3  # of each the weight and what is added
    assert len(replay.program._program._made) == 2 * layers
    for runs in (1, 2, 3):
        for _ in range(3):
            assert np.allclose(replay(x).detach(), net(x).detach(), atol=1e-5)
        assert replay.runs == layers * runs
        with tg.no_grad():
            (net[1].running_var if runs == 1 else net[6].bias).mul_(3)
    exact = Counted(tg.trace(net, (x,)), level=1)
    assert exact(x).tolist() == net(x).tolist()


def test_folded_weights_are_let_go_when_they_are_packed() -> None:
    net, x = conv_net(), tg.randn(2, 3, 6, 6)
    program = tg.trace(net, (x,)).program(runtime="native")
    want = net(x).detach()
    for _ in range(3):
        assert np.allclose(program(x).detach(), want, atol=1e-5)
        _, made = program._program._kept
        assert sorted(array.size for array in made.values()) == [4, 5, 6]  # what is added


def files() -> Iterator[tuple[Any, Any]]:
    """A pair of entry points, read and write, that share State: live and from a file."""
    model = Model()
    optimizer = tg.optim.SGD(model.parameters(), lr=0.1)

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = model(x).sum()
        loss.backward()
        optimizer.step()
        return loss

    forward, train = tg.trace(model, (X,)), tg.trace(step, (X,))
    yield forward, train
    target = io.BytesIO()
    tg.save({"forward": forward, "step": train}, target)
    target.seek(0)
    loaded = tg.load(target)
    yield loaded.forward, loaded.step


@pytest.mark.parametrize("place", [0, 1], ids=["live", "loaded"])
def test_a_training_entry_shares_state(place: int) -> None:
    forward, train = list(files())[place]
    read = Counted(forward)
    name = next(iter(forward.state))
    for count in range(1, 4):
        for _ in range(2):
            wanted = X * forward.state[name].detach().exp()
            assert read(X).tolist() == wanted.tolist()
        assert read.runs == count
        train(X)


def test_state_of_a_file_is_replaced() -> None:
    target = io.BytesIO()
    tg.save(tg.trace(Model(), (X,)), target)
    target.seek(0)
    loaded = tg.load(target)
    read = Counted(loaded.forward)
    for i in range(3):
        values = {"weight": tg.full((3,), float(i))}
        loaded.load_state_dict(values)
        for _ in range(2):
            assert read(X).tolist() == (X * values["weight"].exp()).tolist()
    assert read.runs == 3


def test_a_network_that_moves_to_another_device() -> None:
    with cupy_stand_in.installed():
        model = Model()
        traced = tg.trace(model, (X,))
        here = Counted(traced)
        there = Counted(traced, device="cuda")
        for device in ("cpu", "cuda", "cpu"):
            model.to(device)
            for value in (1.0, 2.0):
                with tg.no_grad():
                    model.weight.fill_(value)
                wanted = (X * tg.full((3,), value).exp()).tolist()
                for program in (here, there):
                    for _ in range(2):
                        assert program(X.to(device)).cpu().tolist() == wanted
                assert traced(X.to(device)).cpu().tolist() == wanted
        assert here.runs == there.runs == 6


def test_results_are_not_what_is_kept() -> None:
    """A result that is computed from State alone is a copy each time."""
    model = Model()
    replay = Counted(tg.trace(lambda: model.weight.exp(), ()))
    wanted = model.weight.exp().tolist()
    for _ in range(3):
        found = replay()
        assert found.tolist() == wanted
        found.add_(1)
    assert replay.runs == 1


def test_an_error_in_the_prologue_comes_with_each_call() -> None:
    box = [tg.zeros(2, 2)]
    with tg.no_grad():
        box[0].add_(tg.eye(2))
    replay = Counted(tg.trace(lambda x: x @ tg.linalg.inv(box[0]), (tg.ones(1, 2),)))
    replay(tg.ones(1, 2))
    box[0].zero_()
    for _ in range(2):
        with pytest.raises(tg.errors.LinAlgError, match="singular"):
            replay(tg.ones(1, 2))
    box[0].add_(tg.eye(2) * 2)
    assert replay(tg.ones(1, 2)).tolist() == [[0.5, 0.5]]


def test_a_write_during_the_prologue_is_not_lost(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """State is written after the prologue read it, and before it is done."""
    replay = Counted(tg.trace(model, (X,)))
    early = replay.program._program._early
    run = early.run

    def slow(*args: Any) -> Any:
        made = run(*args)
        in_place(model)
        return made

    early.run = slow
    replay(X)
    early.run = run
    assert replay(X).tolist() == model(X).tolist()


def test_a_swap_during_the_prologue_is_not_kept(model: Model) -> None:
    """Another thread puts other weights in place while the prologue begins, and back later."""
    replay = Counted(tg.trace(model, (X,)))
    compiled = replay.program._program
    first, second = model.weight.data, tg.zeros(3)
    read = compiled._array

    def late(name: str, t: Any) -> Any:
        model.weight.data = second
        return read(name, t)

    compiled._array = late
    replay(X)
    compiled._array = read
    model.weight.data = first
    assert replay(X).tolist() == model(X).tolist()


def test_threads_never_see_what_is_stale() -> None:
    """Readers replay while a writer counts up: each result is of a time during its call."""
    box = [tg.zeros(())]
    program = tg.trace(lambda x: x + (box[0] + 0.0), (tg.zeros(()),)).program()
    assert len(program._program._made) == 1
    now = [0]
    faults: list[Any] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            least = now[0]
            found = program(tg.zeros(())).item()
            most = now[0] + 1
            if not least <= found <= most:
                faults.append((least, found, most))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for value in range(1, 1500):
        box[0].fill_(float(value)) if value % 2 else box[0].data.fill_(float(value))
        now[0] = value
        if value % 7 == 0 and program(tg.zeros(())).item() != value:
            faults.append(value)
    done.set()
    for thread in threads:
        thread.join()
    assert faults == []


def test_old_memory_is_let_go(model: Model) -> None:
    target = io.BytesIO()
    tg.save(tg.trace(model, (X,)), target)
    target.seek(0)
    loaded = tg.load(target)
    replay, weight = Counted(loaded.forward), loaded.state_dict()["weight"]
    replay(X)
    old = weakref.ref(weight._storage)
    weight.data = tg.zeros(3)
    gc.collect()
    assert old() is None


def test_a_graph_without_such_a_part_has_no_prologue() -> None:
    net = nn.Linear(3, 2)
    program = tg.trace(net, (tg.ones(1, 3),)).program(level=1)._program
    assert program._sources == program._made == ()
    assert isinstance(program._main, InterpreterProgram)


def test_what_is_counted_comes_before_what_uses_its_count() -> None:
    """`2 * index` is the prologue's; zeros read nothing, but for the count of what reads that."""
    index = tg.tensor([5, 3, 5, 1])

    def function(x: Any) -> Any:
        values, places = tg.unique(index * 2, return_inverse=True)
        return tg.zeros(values.shape[0]).index_add(0, places, x)

    traced = tg.trace(function, (X.new_ones(4),))
    assert traced(tg.arange(4.0)).tolist() == [3, 1, 2]
