"""The acceptance programs of tests/seeds: eager as in PyTorch, traced, saved, loaded elsewhere."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import tracegraph
from tests import references, replaying, workloads

SEEDS = Path(__file__).resolve().parent / "seeds"
PROGRAMS = sorted(path.stem for path in SEEDS.glob("[a-z]*.py"))

# A hundred steps of a deep network: rounding differs between BLAS libraries and adds up.
LONG_RUNS = {("small_networks", "deep"): 5e-3}


def load(name: str, library: str = "tracegraph") -> ModuleType:
    """Return a program as a module, with a library in tracegraph's place."""
    source = (SEEDS / f"{name}.py").read_text(encoding="utf-8")
    module = ModuleType(f"{name}_{library}")
    code = source if library == "tracegraph" else source.replace("tracegraph", library)
    exec(compile(code, str(SEEDS / f"{name}.py"), "exec"), vars(module))
    return module


def given(name: str, torch: Any) -> tuple[Any, ...]:
    """Return inputs for a program that would draw its own."""
    random = np.random.RandomState(31)
    numbers = lambda *shape: random.standard_normal(shape).astype(np.float32)  # noqa: E731
    if name == "noisy_line":
        x = numbers(100, 1)
        return torch.tensor(x), torch.tensor(3 * x + 2 + numbers(100, 1))
    if name == "dynamic_classifier":
        return (torch.tensor(numbers(1, 100)),)
    if name == "dynamic_rnn":
        return torch.tensor(numbers(3, 10, 10)), torch.tensor([9, 7, 5])
    if name == "residual_step":
        return torch.tensor(abs(numbers(1, 3, 64, 64))), torch.tensor(abs(numbers(1, 1000)))
    return ()


def filled(program: ModuleType, torch: Any) -> Any:
    """Return a program's model with numbers that are the same in every library."""
    model = program.make_model()
    return model if model is None else workloads.fill(torch, model)


def outcome(name: str, library: str) -> tuple[str, dict[str, Any]]:
    """Run a program; returns what it printed and its results as arrays."""
    program = load(name, library)
    torch = vars(program)["torch"]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        results = program.run(filled(program, torch), *given(name, torch))
    text = printed.getvalue().replace(f"{library}.", "")
    return text, {key: t.detach().numpy() for key, t in results.items()}


@pytest.mark.parametrize("name", PROGRAMS)
def test_program_gives_the_stored_numbers(name: str) -> None:
    text, results = outcome(name, "tracegraph")
    kept = references.load("documents")[name]
    references.check_text(text, kept["text"])
    assert sorted(results) == sorted(kept["results"])
    for key, array in results.items():
        tolerance = LONG_RUNS.get((name, key), 1e-4)
        references.check_summary(array, kept["results"][key], f"{name}: {key}", tolerance)


@pytest.mark.oracle
@pytest.mark.parametrize("name", PROGRAMS)
def test_program_does_what_pytorch_does(name: str) -> None:
    (text, results), (wanted_text, wanted) = outcome(name, "tracegraph"), outcome(name, "torch")
    references.check_text(text, wanted_text)
    for key, array in wanted.items():
        tolerance = LONG_RUNS.get((name, key), 1e-4)
        scale = np.abs(array).max()
        np.testing.assert_allclose(results[key], array, tolerance, tolerance * scale, err_msg=key)


@pytest.mark.parametrize("name", PROGRAMS)
def test_function_replays_in_a_fresh_process(name: str, tmp_path: Path) -> None:
    program = load(name)
    model = filled(program, tracegraph)
    function: Callable[..., Any] = program.slope if model is None else model
    if name == "small_networks":
        function = model["deep"]
    inputs = program.trace_inputs()
    expected = replaying.arrays_of(function(*inputs))
    found = replaying.in_fresh_process(tracegraph.trace(function, inputs), inputs, tmp_path)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def make_step(name: str) -> tuple[Any, Any]:
    """Return a fresh model of a program and its training step."""
    program = load(name)
    model = filled(program, tracegraph)
    if name == "small_networks":
        model = model["deep"]
    return model, program.make_step(model, *given(name, tracegraph))


@pytest.mark.parametrize(
    "name", ["linear_regression", "noisy_line", "residual_step", "small_networks"]
)
def test_training_goes_on_in_a_fresh_process(name: str, tmp_path: Path) -> None:
    _, eager = make_step(name)
    expected = [replaying.arrays_of(eager())[0] for _ in range(4)]
    _model, step = make_step(name)
    replaying.arrays_of(step())  # the file starts where the eager run has got to
    found = replaying.in_fresh_process(tracegraph.trace(step, ()), (), tmp_path, calls=3)
    np.testing.assert_array_equal(np.stack(found), np.stack(expected[1:]))


def test_sequences_may_come_in_any_order(tmp_path: Path) -> None:
    program = load("dynamic_rnn")
    model = filled(program, tracegraph)
    x, lengths = program.trace_inputs()
    traced = tracegraph.trace(model, (x, lengths))
    order = tracegraph.tensor([2, 0, 1])
    shuffled = (x[order], lengths[order])
    alone = [model(x[i : i + 1], lengths[i : i + 1]) for i in (2, 0, 1)]
    expected = tracegraph.cat(alone).detach().numpy()
    np.testing.assert_allclose(model(*shuffled).detach().numpy(), expected, 1e-6, 1e-6)
    found = replaying.in_fresh_process(traced, shuffled, tmp_path)
    np.testing.assert_allclose(found[0], expected, 1e-6, 1e-6)


@pytest.mark.parametrize("lengths", [[10, 2, 6], [3, 2, 1], [4, 4, 4], [1, 10, 1]])
def test_a_trace_follows_other_lengths(lengths: list[int]) -> None:
    program = load("dynamic_rnn")
    model = filled(program, tracegraph)
    x, example = program.trace_inputs()
    traced = tracegraph.trace(model, (x, example))
    given_lengths = tracegraph.tensor(lengths)
    expected = model(x, given_lengths).detach().numpy()
    np.testing.assert_allclose(traced(x, given_lengths).detach().numpy(), expected, 1e-6, 1e-6)


def check_everywhere(model: Any, traced: Any, sets: list[Any], folder: Path) -> None:
    """Save once; in a fresh process every set of inputs must give what the model gives."""
    found = replaying.all_in_fresh_process(traced, sets, folder)
    for inputs, array in zip(sets, found, strict=True):
        np.testing.assert_allclose(array, model(*inputs).detach().numpy(), 1e-5, 1e-6)


def test_the_classifier_is_right_on_every_branch(tmp_path: Path) -> None:
    """As in its document, where the size is that of a layer; and by the size of the batch."""
    program = load("dynamic_classifier")
    batches = [(tracegraph.randn(n, 100),) for n in (2, 1, 7, 0, 40, 41, 64)]
    model = filled(program, tracegraph)
    traced = tracegraph.trace(model, batches[0], more_examples=batches[1:2])
    check_everywhere(model, traced, batches, tmp_path)

    class BySize(program.DynamicClassifier):
        def forward(self, x: Any) -> Any:
            x = tracegraph.relu(self.fc1(x))
            layer = self.fc2 if x.shape[0] > 40 else self.fc3
            return tracegraph.relu(layer(x))

    model = workloads.fill(tracegraph, BySize())
    traced = tracegraph.trace(model, batches[0], more_examples=[batches[-1]])
    check_everywhere(model, traced, batches, tmp_path)
    bare = workloads.fill(tracegraph, program.DynamicClassifier())
    layers = [bare.fc2 if len(x) > 40 else bare.fc3 for (x,) in batches]
    for layer, (x,) in zip(layers, batches, strict=True):
        right = tracegraph.relu(layer(tracegraph.relu(bare.fc1(x))))
        np.testing.assert_allclose(model(x).detach().numpy(), right.detach().numpy(), 1e-6)


def sequences(*lengths: int) -> tuple[Any, Any]:
    """Return inputs of the recurrent network."""
    return tracegraph.randn(len(lengths), max(lengths) + 1, 10), tracegraph.tensor(lengths)


def test_the_rnn_is_right_for_other_lengths(tmp_path: Path) -> None:
    model = filled(load("dynamic_rnn"), tracegraph)
    examples = [sequences(9, 7, 5), sequences(8, 3), sequences(2)]
    traced = tracegraph.trace(model, examples[0], more_examples=examples[1:])
    others = [(3, 11, 5), (1, 4, 2), (5, 6), (2, 2), (7,), (1,)]
    check_everywhere(model, traced, [sequences(*ls) for ls in others], tmp_path)


def test_the_rnn_with_map_takes_any_batch(tmp_path: Path) -> None:
    """Two examples: where the loop over the lengths is a `map`, it is none of Python's."""
    program = load("dynamic_rnn")

    class Mapped(program.DynamicRNN):
        def forward(self, x: Any, seq_lengths: Any) -> Any:
            order, indices = tracegraph.sort(seq_lengths, descending=True)
            packing = tracegraph.nn.utils.rnn
            packed = packing.pack_padded_sequence(x[indices], order, batch_first=True)
            output, _ = packing.pad_packed_sequence(self.rnn(packed)[0], batch_first=True)
            last = tracegraph.map(
                lambda s: s[0][s[1] - 1], (output[indices.argsort()], seq_lengths)
            )
            return self.fc(last)

    model, right = (workloads.fill(tracegraph, c(10, 20, 1)) for c in (Mapped, program.DynamicRNN))
    traced = tracegraph.trace(model, sequences(9, 7, 5), more_examples=[sequences(8, 3)])
    others = [(3, 11, 5), (1, 4, 2, 6, 6), (5, 6), (2,) * 9, (7,), (1,)]
    check_everywhere(right, traced, [sequences(*ls) for ls in others], tmp_path)


def test_the_graph_behind_a_loss_can_be_looked_at() -> None:
    program = load("small_networks")
    model = filled(program, tracegraph)["deep"]
    graph = model(*program.trace_inputs()).mean().graph()
    assert sum(node.op == "linear" for node in graph.order()) == 3
    assert {"tanh", "relu"} <= {node.op for node in graph.order()}


def test_the_classifier_takes_its_other_layer() -> None:
    program = load("dynamic_classifier")
    model = filled(program, tracegraph)
    model.fc1 = tracegraph.nn.Linear(100, 30)
    model.fc3 = tracegraph.nn.Linear(30, 10)
    assert model(*program.trace_inputs()).shape == (2, 10)
