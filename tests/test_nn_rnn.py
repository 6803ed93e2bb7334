"""Recurrent layers and packed sequences against PyTorch, and in traces."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import tracegraph as tg
from tests.nn_oracle import compare, draw, flat, pair, same, to_torch
from tracegraph.eager.dispatch import front
from tracegraph.nn.utils import rnn
from tracegraph.ops.table import OPS, array_ops

TIME, BATCH, IN, HIDDEN = 5, 3, 4, 6
KINDS = ("RNN", "LSTM", "GRU")
OPTIONS: list[dict[str, Any]] = [
    {},
    {"num_layers": 2, "bidirectional": True},
    {"num_layers": 3, "bias": False, "batch_first": True},
    {"bidirectional": True, "batch_first": True},
]


def layers() -> list[Any]:
    """Return (kind, options) of all layers to try."""
    rows: list[Any] = list(itertools.product(KINDS, OPTIONS))
    rows.append(("RNN", {"nonlinearity": "relu", "num_layers": 2}))
    rows.append(("LSTM", {"proj_size": 2, "num_layers": 2, "bidirectional": True}))
    rows.append(("LSTM", {"proj_size": 3, "bias": False}))
    return rows


def states(kind: str, options: dict[str, Any], *batch: int) -> Any:
    """Return first states that accumulate gradients."""
    count = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)
    h = draw((count, *batch, options.get("proj_size") or HIDDEN), 5)
    return (h, draw((count, *batch, HIDDEN), 6)) if kind == "LSTM" else h


def ids(value: Any) -> str:
    return (
        str(value)
        if not isinstance(value, dict)
        else ",".join(f"{k}={v}" for k, v in value.items())
    )


@pytest.mark.oracle
@pytest.mark.parametrize(("kind", "options"), layers(), ids=ids)
def test_names_text_and_first_weights(kind: str, options: Any) -> None:
    ours, theirs = pair(kind, (IN, HIDDEN), options)
    assert repr(ours) == repr(theirs)
    assert [(n, tuple(p.shape)) for n, p in ours.named_parameters()] == [
        (n, tuple(p.shape)) for n, p in theirs.named_parameters()
    ]
    assert [[tuple(w.shape) for w in ws] for ws in ours.all_weights] == [
        [tuple(w.shape) for w in ws] for ws in theirs.all_weights
    ]
    fresh = getattr(tg.nn, kind)(
        IN, 200, **{**options, "proj_size": 0} if "proj_size" in options else options
    )
    values = np.concatenate([p.detach().numpy().ravel() for p in fresh.parameters()])
    assert abs(values).max() <= 200**-0.5
    assert abs(values.std() - 200**-0.5 / 3**0.5) < 0.002


@pytest.mark.oracle
@pytest.mark.parametrize("given", [False, True], ids=["zeros", "states"])
@pytest.mark.parametrize("batched", [True, False], ids=["batch", "single"])
@pytest.mark.parametrize(("kind", "options"), layers(), ids=ids)
@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_outputs_and_gradients(kind: str, options: Any, batched: bool, given: bool) -> None:
    ours, theirs = pair(kind, (IN, HIDDEN), options)
    first = options.get("batch_first")
    shape = ((BATCH, TIME) if first else (TIME, BATCH)) if batched else (TIME,)
    inputs: tuple[Any, ...] = (draw((*shape, IN)),)
    if given:
        inputs += (states(kind, options, *((BATCH,) if batched else ())),)
    compare(ours, theirs, inputs)


@pytest.mark.oracle
@pytest.mark.parametrize("as_tensor", [True, False], ids=["tensor", "list"])
@pytest.mark.parametrize("lengths", [(5, 3, 3), (2, 4, 1)], ids=str)
@pytest.mark.parametrize(("kind", "options"), layers(), ids=ids)
@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_packed_sequences(kind: str, options: Any, lengths: Any, as_tensor: bool) -> None:
    import torch

    ours, theirs = pair(kind, (IN, HIDDEN), options)
    first = bool(options.get("batch_first"))
    falls = tuple(sorted(lengths, reverse=True)) == lengths
    x = draw((BATCH, TIME, IN) if first else (TIME, BATCH, IN))
    hx = states(kind, options, BATCH)
    y, z = to_torch((x, hx))

    def run(library: Any, layer: Any, x: Any, hx: Any) -> list[Any]:
        utils = library.nn.utils.rnn
        given = library.tensor(lengths) if as_tensor else list(lengths)
        packed = utils.pack_padded_sequence(x, given, first, enforce_sorted=falls)
        out, last = layer(packed, hx)
        assert isinstance(out, utils.PackedSequence)
        padded, counts = utils.pad_packed_sequence(out, first, -2.5, total_length=6)
        return [packed.data, *flat(last), out.data, padded, counts, packed.batch_sizes,
                *flat(packed[2:])]  # fmt: skip

    mine, yours = run(tg, ours, x, hx), run(torch, theirs, y, z)
    assert len(mine) == len(yours)
    for i, (a, b) in enumerate(zip(mine, yours, strict=True)):
        same(a, b, f"result {i}")
    for values in (mine, yours):
        sum((t * t).sum() for t in values if t.requires_grad).backward()
    for a, b in zip(
        (x, *flat(hx), *ours.parameters()), (y, *flat(z), *theirs.parameters()), strict=True
    ):
        same(a.grad, b.grad, "gradient", 1e-4)


@pytest.mark.oracle
@pytest.mark.parametrize("given", [False, True], ids=["zeros", "states"])
@pytest.mark.parametrize("batched", [True, False], ids=["batch", "single"])
@pytest.mark.parametrize(
    ("kind", "options"),
    [("RNNCell", {}), ("RNNCell", {"nonlinearity": "relu"}), ("LSTMCell", {"bias": False}),
     ("LSTMCell", {}), ("GRUCell", {}), ("GRUCell", {"bias": False})],
    ids=ids,
)  # fmt: skip
def test_cells(kind: str, options: Any, batched: bool, given: bool) -> None:
    ours, theirs = pair(kind, (IN, HIDDEN), options)
    assert repr(ours) == repr(theirs)
    batch = (BATCH,) if batched else ()
    inputs: tuple[Any, ...] = (draw((*batch, IN)),)
    if given:
        h = draw((*batch, HIDDEN), 5)
        inputs += ((h, draw((*batch, HIDDEN), 6)) if kind == "LSTMCell" else h,)
    compare(ours, theirs, inputs)


def test_dropout_between_layers_only_in_training() -> None:
    layer = tg.nn.LSTM(IN, 64, num_layers=2, dropout=0.5)
    x = tg.ones(TIME, BATCH, IN)
    a, b = (layer(x)[0] for _ in range(2))
    assert not bool((a == b).all())
    layer.eval()
    a, b = (layer(x)[0] for _ in range(2))
    assert bool((a == b).all())
    with pytest.warns(UserWarning, match="num_layers greater than 1"):
        tg.nn.GRU(2, 3, dropout=0.5)


REFUSALS: dict[str, Any] = {
    "dims": lambda nn, t: nn.LSTM(2, 3)(t(1, 2, 3, 2)),
    "input size": lambda nn, t: nn.GRU(2, 3)(t(4, 5, 6)),
    "state dims": lambda nn, t: nn.RNN(2, 3)(t(4, 5, 2), t(5, 3)),
    "state size": lambda nn, t: nn.RNN(2, 3)(t(4, 5, 2), t(1, 4, 3)),
    "cell size": lambda nn, t: nn.LSTM(2, 3)(t(4, 5, 2), (t(1, 5, 3), t(1, 5, 4))),
    "dtype": lambda nn, t: nn.LSTM(2, 3)(t(4, 5, 2).double()),
    "dropout": lambda nn, t: nn.LSTM(2, 3, dropout=2),
    "hidden": lambda nn, t: nn.LSTM(2, 0),
    "layers": lambda nn, t: nn.LSTM(2, 3, num_layers=0),
    "projection": lambda nn, t: nn.GRU(2, 3, proj_size=1),
    "large projection": lambda nn, t: nn.LSTM(2, 3, proj_size=3),
    "nonlinearity": lambda nn, t: nn.RNN(2, 3, nonlinearity="sin"),
    "cell dims": lambda nn, t: nn.LSTMCell(2, 3)(t(1, 1, 2)),
    "order": lambda nn, t: nn.utils.rnn.pack_padded_sequence(t(4, 2, 1), [2, 4]),
    "no length": lambda nn, t: nn.utils.rnn.pack_padded_sequence(t(4, 2, 1), [2, 0]),
    "number of lengths": lambda nn, t: nn.utils.rnn.pack_padded_sequence(t(4, 2, 1), [2]),
    "total": lambda nn, t: nn.utils.rnn.pad_packed_sequence(
        nn.utils.rnn.pack_padded_sequence(t(4, 2, 1), [4, 2]), total_length=3
    ),
}


@pytest.mark.oracle
@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_are_pytorchs(name: str) -> None:
    import torch

    with pytest.raises(Exception) as theirs:
        REFUSALS[name](torch.nn, torch.ones)
    with pytest.raises(type(theirs.value)) as ours:
        REFUSALS[name](tg.nn, tg.ones)
    text = str(theirs.value).replace("torch.", "tracegraph.")
    assert str(ours.value) == text


@pytest.mark.oracle
def test_sequences_padded_packed_and_back() -> None:
    import torch

    parts = [np.arange(2.0 * n, dtype=np.float32).reshape(n, 2) for n in (3, 1, 4)]
    results = []
    for library in (tg, torch):
        utils, tensors = library.nn.utils.rnn, [library.tensor(p) for p in parts]
        packed = utils.pack_sequence(tensors, enforce_sorted=False)
        padded = utils.pad_sequence(tensors, batch_first=True, padding_value=-1.0)
        results.append([
            padded, utils.pad_sequence(tensors, padding_side="left"), *flat(packed),
            *utils.unpad_sequence(padded, library.tensor([3, 1, 4]), batch_first=True),
            *utils.unpack_sequence(packed), *flat(packed.double()),
            utils.invert_permutation(library.tensor([2, 0, 1])),
            *utils.pad_packed_sequence(utils.PackedSequence(packed.data, packed.batch_sizes)),
        ])  # fmt: skip
    assert len(results[0]) == len(results[1])
    for a, b in zip(*results, strict=True):
        same(a, b, "sequence")


def test_an_lstm_step_in_numbers() -> None:
    cell = tg.nn.LSTMCell(1, 1)
    with tg.no_grad():
        for p in cell.parameters():
            p.fill_(0.5)
    h, c = cell(tg.tensor([[2.0]]), (tg.tensor([[0.4]]), tg.tensor([[0.1]])))
    gate = 0.5 * 2.0 + 0.5 + 0.5 * 0.4 + 0.5
    sigma = 1 / (1 + np.exp(-gate))
    cell_state = sigma * 0.1 + sigma * np.tanh(gate)
    assert c.item() == pytest.approx(cell_state, rel=1e-6)
    assert h.item() == pytest.approx(sigma * np.tanh(cell_state), rel=1e-6)


OPERANDS = [
    ("rnn", {"relu": False}, ((3, 2, 4), (2, 4), (4, 4))),
    ("rnn", {"relu": True}, ((1, 2, 4), (2, 4), (4, 4))),
    ("lstm", {}, ((4, 2, 12), (2, 3), (2, 3), (12, 3))),
    ("lstm", {}, ((3, 2, 12), (2, 2), (2, 3), (12, 2), (2, 3))),
    ("gru", {}, ((4, 2, 9), (2, 3), (9, 3), (9,))),
    ("gru", {}, ((3, 2, 9), (2, 3), (9, 3))),
    ("gru", {}, ((1, 2, 9), (2, 3), (9, 3), (9,))),
    ("lstm", {}, ((1, 2, 12), (2, 3), (2, 3), (12, 3))),
    ("rnn_grad", {}, ((3, 2, 4), (3, 2, 4), (4, 4))),
    ("gru_grad", {}, ((4, 2, 3), (4, 2, 9), (4, 2, 3), (9, 3))),
    ("lstm_grad", {}, ((4, 2, 3), (4, 2, 3), (4, 2, 3), (4, 2, 12), (4, 2, 3), (12, 3))),
    ("lstm_grad", {}, ((3, 2, 2), (3, 2, 3), (3, 2, 3), (3, 2, 12), (3, 2, 3), (12, 2), (2, 3))),
]


def _gradients(function: Any, arrays: Any) -> list[Any]:
    """Return outputs, first and second gradients of a function of float64 arrays."""
    rng = np.random.default_rng(1)
    inputs = [tg.tensor(a, requires_grad=True) for a in arrays]
    outs = flat(function(*inputs))
    loss = sum((o * tg.tensor(rng.normal(size=o.shape))).sum() for o in outs)
    first = tg.autograd.grad(loss, inputs, create_graph=True)
    total = sum((g * tg.tensor(rng.normal(size=g.shape))).sum() for g in first)
    return [*outs, *first, *tg.autograd.grad(total, inputs, materialize_grads=True)]


@pytest.mark.parametrize(("name", "attrs", "shapes"), OPERANDS, ids=str)
def test_kernel_and_gradients_agree_with_the_decomposition(
    name: str, attrs: Any, shapes: Any
) -> None:
    op = OPS[name]
    arrays = [np.random.default_rng(i).normal(size=s) for i, s in enumerate(shapes)]
    plain = op.decompose(array_ops(np), *arrays, **attrs)  # type: ignore[misc]
    for a, b in zip(flat(op.kernel(np, *arrays, **attrs)), flat(plain), strict=True):  # type: ignore[misc]
        np.testing.assert_allclose(a, b, atol=1e-12)
    whole = _gradients(lambda *x: getattr(front, name)(*x, **attrs), arrays)
    steps = _gradients(lambda *x: op.decompose(front, *x, **attrs), arrays)  # type: ignore[misc]
    for a, b in zip(whole, steps, strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), atol=1e-9)


def test_an_empty_batch_and_no_steps() -> None:
    layer = tg.nn.GRU(IN, HIDDEN)
    out, last = layer(tg.ones(TIME, 0, IN))
    assert out.shape == (TIME, 0, HIDDEN)
    assert last.shape == (1, 0, HIDDEN)
    with pytest.raises(RuntimeError, match="sequence length to be larger than 0"):
        layer(tg.ones(0, BATCH, IN))


class DynamicRNN(tg.nn.Module):
    """Sorts sequences by length, packs them, and takes the last step of each."""

    def __init__(self, kind: str, bidirectional: bool) -> None:
        super().__init__()
        self.rnn = getattr(tg.nn, kind)(
            IN, HIDDEN, num_layers=2, batch_first=True, bidirectional=bidirectional
        )
        self.fc = tg.nn.Linear(HIDDEN * (2 if bidirectional else 1), 1)

    def forward(self, x: Any, seq_lengths: Any) -> Any:
        sorted_lengths, indices = tg.sort(seq_lengths, descending=True)
        _, unsorted = indices.sort()
        packed = rnn.pack_padded_sequence(x[indices], sorted_lengths, batch_first=True)
        packed_output, last = self.rnn(packed)
        output, _ = rnn.pad_packed_sequence(packed_output, batch_first=True)
        output = output[unsorted]
        ends = tg.stack([output[i, n - 1, :] for i, n in enumerate(seq_lengths)])
        return self.fc(ends), flat(last)[-1][:, unsorted].sum(0)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_packed_by_tensor_lengths_in_a_trace(kind: str, bidirectional: bool) -> None:
    if not hasattr(tg, "trace"):
        pytest.skip("no tracing yet")
    net = DynamicRNN(kind, bidirectional)
    x = draw((BATCH, TIME, IN)).detach()
    traced = tg.trace(net, (x, tg.tensor([5, 3, 4])))
    for lengths in ([5, 3, 4], [1, 5, 2], [2, 2, 2]):
        given = draw((BATCH, TIME, IN), 7).detach(), tg.tensor(lengths)
        for a, b in zip(traced(*given), net(*given), strict=True):
            np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_packed_by_a_list_in_a_trace_and_the_data_of_masked_ones() -> None:
    if not hasattr(tg, "trace"):
        pytest.skip("no tracing yet")
    layer = tg.nn.LSTM(IN, HIDDEN, bidirectional=True)

    def fixed(x: Any) -> Any:
        packed = rnn.pack_padded_sequence(x, [4, 2, 1])
        return layer(rnn.PackedSequence(packed.data * 2, packed.batch_sizes))[0].data

    x = draw((TIME, BATCH, IN)).detach()
    np.testing.assert_allclose(
        tg.trace(fixed, (x,))(x + 1).detach().numpy(), fixed(x + 1).detach().numpy(), atol=1e-6
    )
    with pytest.raises(RuntimeError, match="packed by tensor lengths"):
        tg.trace(lambda x, n: rnn.pack_padded_sequence(x, n).data, (x, tg.tensor([4, 2, 1])))
