"""The spine: a whole training step is traced, saved, and goes on elsewhere, bit for bit.

The loader runs in a new process that imports tracegraph and NumPy only. Each case trains a fresh
optimizer: the first step, where slots begin, is part of what must be equal.
"""

from __future__ import annotations

import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import tracegraph as tg
from tracegraph import nn, optim
from tracegraph.nn import functional as F

STEPS = 100
STATE = "state/"


class Run(NamedTuple):
    """A model in training: the step, what it holds by name, and batches."""

    step: Callable[..., Any]
    state: Callable[[], dict[str, Any]]
    batches: list[tuple[np.ndarray, np.ndarray]]
    optimizer: Any


def classification(shape: tuple[int, ...], seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Batches of f32 inputs and i64 classes of 3, which depend on the inputs linearly."""
    draw = np.random.RandomState(seed)
    truth = draw.randn(int(np.prod(shape[1:])), 3)
    inputs = [draw.randn(*shape).astype(np.float32) for _ in range(STEPS)]
    return [(x, np.argmax(x.reshape(shape[0], -1) @ truth, axis=1)) for x in inputs]


def trained(model: nn.Module, optimizer: Any, shape: tuple[int, ...], clip: bool = False) -> Run:
    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        return loss

    def state() -> dict[str, Any]:
        held = {f"model.{name}": t for name, t in model.state_dict().items()}
        for name, p in model.named_parameters():
            for slot, t in optimizer.state[p].items():
                held[f"optimizer.{slot}.model.{name}"] = t
        return {**held, "random.state": tg.get_rng_state()}

    return Run(step, state, classification(shape), optimizer)


def by_hand() -> Run:
    """Two layers and momentum written out with plain tensors."""

    class Net:
        def __init__(self) -> None:
            self.layers = [
                (0.3 * tg.randn(8, 16)).requires_grad_(),
                (0.3 * tg.randn(16, 3)).requires_grad_(),
            ]
            self.speed = {i: tg.zeros(*w.shape) for i, w in enumerate(self.layers)}
            self.seen = tg.zeros(())

    net = Net()

    def step(x: Any, y: Any) -> Any:
        hidden = tg.tanh(x @ net.layers[0]) * (tg.rand(x.shape[0], 16) > 0.2)
        scores = hidden @ net.layers[1]
        loss = (tg.logsumexp(scores, 1) - scores.gather(1, y[:, None])[:, 0]).mean()
        for p in net.layers:
            p.grad = None
        loss.backward()
        with tg.no_grad():
            for i, p in enumerate(net.layers):
                net.speed[i].mul_(0.9).add_(p.grad)
                p -= 0.05 * net.speed[i]
            net.seen += x.shape[0]
        return {"loss": loss, "seen": net.seen}

    def state() -> dict[str, Any]:
        return {
            **{f"net.layers.{i}": p for i, p in enumerate(net.layers)},
            **{f"net.speed.{i}": v for i, v in net.speed.items()},
            "net.seen": net.seen, "random.state": tg.get_rng_state(),
        }  # fmt: skip

    return Run(step, state, classification((10, 8)), None)


def dense(make: Callable[[Any], Any], clip: bool = False) -> Callable[[], Run]:
    def build() -> Run:
        model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3),
                              nn.Linear(16, 3))  # fmt: skip
        return trained(model, make(model.parameters()), (10, 8), clip)

    return build


def convolutional(make: Callable[[Any], Any], clip: bool = False) -> Callable[[], Run]:
    def build() -> Run:
        model = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(),
                              nn.Flatten(), nn.Dropout(0.1), nn.Linear(3 * 36, 3))  # fmt: skip
        return trained(model, make(model.parameters()), (5, 1, 6, 6), clip)

    return build


def momentum(parameters: Any) -> Any:
    return optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=1e-3)


def slow(parameters: Any) -> Any:
    return optim.SGD(parameters, lr=0.005, momentum=0.9)


def damped(parameters: Any) -> Any:
    return optim.SGD(parameters, lr=0.05, momentum=0.9, dampening=0.3)


def adam(parameters: Any) -> Any:
    return optim.Adam(parameters, lr=0.01)


CASES = {
    "by hand": by_hand,
    "dense, momentum": dense(momentum),
    "dense, damped momentum, clipped": dense(damped, clip=True),
    "dense, Adam, clipped": dense(adam, clip=True),
    "convolution, momentum": convolutional(slow),
    "convolution, Adam": convolutional(adam),
}

LOADER = """
import sys
import types
import numpy as np
import tracegraph
path, feed, answer, first, last = sys.argv[1:]
program = tracegraph.load(path)
data = np.load(feed)
losses = []
for i in range(int(first), int(last)):
    out = program(data[f"x{i}"], data[f"y{i}"])
    losses.append((out["loss"] if isinstance(out, dict) else out).numpy())
state = {"state/" + name: t.numpy() for name, t in program.state_dict().items()}
np.savez(answer, losses=np.array(losses), **state)
program.save(path)
strange = {"torch", "scipy", "tests", "tracegraph.nn", "tracegraph.optim"} & set(sys.modules)
assert not strange, strange
"""


def elsewhere(folder: Path, path: Path, run: Run, first: int, last: int) -> dict[str, np.ndarray]:
    """Go on from a file in a new process that has no source of the model; returns what it saw."""
    feed, answer = folder / "feed.npz", folder / "answer.npz"
    np.savez(
        feed,
        **{f"{n}{i}": a for i, b in enumerate(run.batches) for n, a in zip("xy", b, strict=True)},
    )
    command = [
        sys.executable,
        "-c",
        LOADER,
        str(path),
        str(feed),
        str(answer),
        str(first),
        str(last),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    return dict(np.load(answer))


def eager(run: Run, first: int, last: int) -> np.ndarray:
    return np.array([loss_of(run.step(*tensors(b))) for b in run.batches[first:last]])


def tensors(batch: tuple[np.ndarray, np.ndarray]) -> tuple[Any, Any]:
    return tg.tensor(batch[0]), tg.tensor(batch[1])


def loss_of(out: Any) -> Any:
    return (out["loss"] if isinstance(out, dict) else out).detach().numpy().copy()


def build(case: str) -> Run:
    tg.manual_seed(17)
    run = CASES[case]()
    tg.manual_seed(23)
    return run


def assert_same_state(got: dict[str, Any], want: dict[str, Any]) -> None:
    assert set(got) == set(want)
    for name, t in want.items():
        expected = t.detach().numpy()
        assert got[name].dtype == expected.dtype, name
        assert np.array_equal(got[name], expected), name


@pytest.mark.parametrize("case", CASES)
def test_training_goes_on_in_a_new_process(case: str, tmp_path: Path) -> None:
    reference = build(case)
    losses = eager(reference, 0, STEPS)
    assert losses[-10:].mean() < losses[:10].mean()

    wanted = {name: t.detach().numpy().copy() for name, t in reference.state().items()}
    run = build(case)
    tg.trace(run.step, tensors(run.batches[0])).save(tmp_path / "step.tg")
    answer = elsewhere(tmp_path, tmp_path / "step.tg", run, 0, STEPS)
    assert np.array_equal(answer["losses"], losses)
    got = {name.removeprefix(STATE): a for name, a in answer.items() if name.startswith(STATE)}
    assert_same_state(got, {name: tg.tensor(a) for name, a in wanted.items() if name in got})
    assert set(wanted) - set(got) <= {"random.state"}  # a model without dropout draws nothing


@pytest.mark.parametrize("case", ["by hand", "dense, Adam, clipped"])
def test_interrupted_training_equals_training_in_one_go(case: str, tmp_path: Path) -> None:
    losses = eager(build(case), 0, STEPS)
    run = build(case)
    traced = tg.trace(run.step, tensors(run.batches[0]))
    here = [loss_of(traced(*tensors(b))) for b in run.batches[:30]]
    here += list(eager(run, 30, 40))  # eager training goes on from the replays' State, and back
    here += [loss_of(traced(*tensors(b))) for b in run.batches[40:50]]
    traced.save(tmp_path / "step.tg")
    first = elsewhere(tmp_path, tmp_path / "step.tg", run, 50, 80)
    second = elsewhere(tmp_path, tmp_path / "step.tg", run, 80, STEPS)
    assert np.array_equal(np.concatenate([here, first["losses"], second["losses"]]), losses)


@pytest.mark.parametrize("case", CASES)
def test_tracing_does_not_train(case: str) -> None:
    run = build(case)
    before = {n: t.detach().numpy().copy() for n, t in run.state().items()}
    run_step = tg.trace(run.step, tensors(run.batches[0]))
    after = {n: t.detach().numpy() for n, t in run.state().items()}
    for name, value in after.items():
        assert np.array_equal(value, before.get(name, np.zeros_like(value))), name
    run_step(*tensors(run.batches[0]))
    assert not np.array_equal(
        next(iter(run.state().values())).detach().numpy(), before[next(iter(before))]
    )


def test_a_scheduler_moves_a_replayed_step() -> None:
    def run(replay: bool) -> tuple[list[Any], Any]:
        tg.manual_seed(5)
        made = dense(momentum)()
        scheduler = optim.lr_scheduler.StepLR(made.optimizer, step_size=5, gamma=0.5)
        step = tg.trace(made.step, tensors(made.batches[0])) if replay else made.step
        losses = []
        for batch in made.batches[:20]:
            losses.append(loss_of(step(*tensors(batch))))
            scheduler.step()
        return losses, made.state()

    expected, state = run(False)
    got, same = run(True)
    assert got == expected
    for name, t in state.items():
        assert np.array_equal(t.detach().numpy(), same[name].detach().numpy()), name


def test_a_loaded_step_takes_hyper_parameters_by_name(tmp_path: Path) -> None:
    def run() -> Run:
        tg.manual_seed(5)
        return dense(momentum)()

    reference = run()
    expected = []
    for i, batch in enumerate(reference.batches[:10]):
        reference.optimizer.param_groups[0]["lr"] = 0.05 / (1 + i)
        expected.append(loss_of(reference.step(*tensors(batch))))
    made = run()
    tg.trace(made.step, tensors(made.batches[0])).save(tmp_path / "step.tg")
    loaded = tg.load(tmp_path / "step.tg")
    names = {h.name: h.default for h in loaded.entries["forward"].hypers}
    assert names["optimizer.lr"] == 0.05 and names["optimizer.momentum"] == 0.9
    got = [
        loss_of(loaded(*batch, **{"optimizer.lr": 0.05 / (1 + i)}))
        for i, batch in enumerate(made.batches[:10])
    ]
    assert got == expected


def test_a_loaded_step_keeps_the_hyper_parameters_of_the_time_it_was_saved(tmp_path: Path) -> None:
    made = dense(momentum)()
    traced = tg.trace(made.step, tensors(made.batches[0]))
    made.optimizer.param_groups[0]["lr"] = 0.25
    traced.save(tmp_path / "step.tg")
    loaded = tg.load(tmp_path / "step.tg")
    assert {h.name: h.default for h in loaded.entries["forward"].hypers}["optimizer.lr"] == 0.25


def test_a_scheduler_inside_the_traced_step_is_refused() -> None:
    """A replay could not move the scheduler: the trace says so instead of freezing the rate."""
    made = dense(momentum)()
    scheduler = optim.lr_scheduler.StepLR(made.optimizer, step_size=1, gamma=0.5)

    def step(x: Any, y: Any) -> Any:
        loss = made.step(x, y)
        scheduler.step()
        return loss

    with pytest.raises(tg.errors.TraceError, match=r"lr \(0.05 before, 0.025 after\)"):
        tg.trace(step, tensors(made.batches[0]))
    assert made.optimizer.param_groups[0]["lr"] == 0.05
    assert scheduler.last_epoch == 0


def test_a_mode_that_was_not_traced_is_refused() -> None:
    made = dense(momentum)()
    traced = tg.trace(made.step, tensors(made.batches[0]))
    model = made.step.__closure__
    assert model is not None
    module = next(c.cell_contents for c in model if isinstance(c.cell_contents, nn.Module))
    module.eval()
    with pytest.raises(tg.errors.GuardError, match="train mode when it was traced"):
        traced(*tensors(made.batches[0]))


@pytest.mark.parametrize("called_before", [False, True])
def test_a_weight_that_each_call_computes_anew_stays_out_of_the_way(
    called_before: bool, tmp_path: Path
) -> None:
    """The module holds a part of the gradient history after the step, as it did before it."""
    tg.manual_seed(0)
    layer = nn.utils.weight_norm(nn.Linear(3, 2))
    optimizer = optim.SGD(layer.parameters(), lr=0.1)

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = layer(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    x = tg.randn(4, 3)
    if called_before:
        step(x)
    tg.trace(step, (x,)).save(tmp_path / "step.tg")
    loaded = tg.load(tmp_path / "step.tg")
    assert [loaded(x).item() for _ in range(4)] == [step(x).item() for _ in range(4)]


def test_a_state_with_a_history_that_the_next_call_needs_is_refused() -> None:
    weight, kept = tg.ones(2, requires_grad=True), types.SimpleNamespace(h=tg.ones(2))

    def step(x: Any) -> Any:
        kept.h = kept.h * weight + x
        kept.h.sum().backward(retain_graph=True)
        return weight.grad

    with pytest.raises(tg.errors.TraceError, match=r"kept\.h \(a part of the gradient history"):
        tg.trace(step, (tg.ones(2),))
