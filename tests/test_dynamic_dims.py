"""Traces that serve other sizes than that of their example."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tracegraph as tg
from tests.resizing import compare, flatten
from tests.seeds import dynamic_rnn
from tracegraph import Dim, nn
from tracegraph.compiler import optimize
from tracegraph.errors import (
    FileFormatError,
    GuardError,
    SignatureError,
    TraceError,
    UnseenPathError,
)
from tracegraph.ir.control import FACT
from tracegraph.ir.text import parse_graph, print_graph
from tracegraph.ir.verify import verify
from tracegraph.runtime.interpreter import InterpreterProgram

nnF = nn.functional
EAGER_REFUSES = (RuntimeError, IndexError, ValueError, ZeroDivisionError)


def saved(entry: Any) -> Any:
    """The entry point after a round trip through a file."""
    file = io.BytesIO()
    tg.save(entry, file)
    file.seek(0)
    return tg.load(file)


def facts(traced: Any) -> list[str]:
    return [str(n.attrs["relation"]) for n in traced.graph if n.op == FACT]


def whole(traced: Any) -> Any:
    """Verify the graph and return it after a round trip through text and file."""
    verify(traced.graph)
    text = print_graph(traced.graph)
    assert print_graph(parse_graph(text)) == text
    verify(parse_graph(text))
    loaded = saved(traced)
    assert print_graph(loaded.graph) == text
    return loaded


def rows(*shape: int) -> Any:
    return tg.tensor(np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32))


# A program from end to end.


def make_mlp() -> Any:
    tg.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.LayerNorm(8), nn.Linear(8, 4))


@pytest.mark.parametrize("example", [3, 1, 0])
def test_a_model_serves_every_batch(example: int) -> None:
    model = make_mlp()
    traced = tg.trace(model, (rows(example, 16),), dynamic={"input": {0: Dim("batch")}})
    assert str(traced.signature) == "(input: f32[batch,16])"
    assert facts(traced) == []
    assert str(traced.graph.outputs[0].type) == "f32[batch,4]"
    loaded = whole(traced)
    for batch in (1, 0, 7):
        x = rows(batch, 16)
        wanted = model(x)
        for replay in (traced, loaded, traced.program(level=0), traced.program(level=2)):
            compare(replay(x), wanted, f"batch {batch}")


def test_the_text_names_dims_with_their_bounds() -> None:
    traced = tg.trace(
        lambda x, y: tg.cat([x, y])[1:] * x.shape[0], (rows(3, 2), rows(4, 2)),
        dynamic={"x": {0: Dim("a", min=2, max=9)}, "y": {0: "b"}}, name="both",
    )  # fmt: skip
    text = print_graph(traced.graph)
    assert text.startswith("graph @both[a(min=2, max=9, hint=3), b(hint=4)](")
    assert "%x: f32[a,2]," in text
    assert "slice(%0; index=((1, `a + b`, 1), (0, 2, 1)))" in text
    assert "dim_value(value=`a`)" in text


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((rows(1, 4), rows(1, 2)), "dim 0 of argument x is 1, but batch is at least 2 and at most"),
        ((rows(9, 4), rows(9, 2)), "is 9, but batch is at least 2 and at most 8"),
        ((rows(3, 5), rows(3, 2)), r"argument x: expected f32\[batch,4\], got f32\[3,5\]"),
        ((rows(3, 4), rows(4, 2)), "batch is 3 as dim 0 of argument x, and 4 as dim 0 of argument"),
        ((rows(3), rows(3, 2)), r"expected f32\[batch,4\], got f32\[3\]"),
        ((rows(3, 4).double(), rows(3, 2)), r"expected f32\[batch,4\], got f64\[3,4\]"),
    ],
)
def test_other_inputs_are_refused_by_name(inputs: Any, message: str) -> None:
    dynamic = {"x": {0: Dim("batch", min=2, max=8)}, "y": {0: "batch"}}
    dynamic["y"] = dynamic["x"]
    traced = tg.trace(lambda x, y: tg.cat([x, y], 1), (rows(3, 4), rows(3, 2)), dynamic=dynamic)
    for replay in (traced, saved(traced)):
        with pytest.raises(SignatureError, match=message):
            replay(*inputs)


@pytest.mark.parametrize(
    ("dynamic", "error", "message"),
    [
        ({"z": {0: "n"}}, TraceError, "no input is named 'z'; there are: x, y.0, y.1"),
        ({"x": {2: "n"}}, TraceError, "x has 2 dims, no dim 2"),
        ({"x": {0: Dim("n", min=4)}}, TraceError, "is 3 in the example, outside of Dim"),
        ({"x": {0: Dim("n", max=2)}}, TraceError, "is 3 in the example, outside of Dim"),
        ({"x": {0: "n", 1: "n"}}, TraceError, "another dim named 'n' is 3"),
        ({"x": {"0": "n"}}, TypeError, "is like"), ({"x": {0: 5}}, TypeError, "is like"),
        ({"x": {0: "1n"}}, ValueError, "name like a Python variable's"),
    ],
)  # fmt: skip
def test_declarations_that_do_not_fit(dynamic: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        tg.trace(lambda x, y: x + y[0], (rows(3, 2), [rows(3, 2), rows(1)]), dynamic=dynamic)


def test_dims_of_nested_inputs() -> None:
    traced = tg.trace(
        lambda batch: batch["a"][0] * 2 + batch["b"], ({"a": [rows(3, 2)], "b": rows(3, 1)},),
        dynamic={"batch.a.0": ["n"], "batch.b": {-2: "n"}},
    )  # fmt: skip
    assert str(traced.signature) == "(batch.a.0: f32[n,2], batch.b: f32[n,1])"
    other = {"a": [rows(5, 2)], "b": rows(5, 1)}
    compare(traced(other), other["a"][0] * 2 + other["b"], "nested")


# Small programs: what they rely on, and that they are right elsewhere.


def window_mean(x: Any) -> Any:
    padded = nnF.pad(x, (1, 1))
    return (padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]) / 3


def attend(x: Any) -> Any:
    scores = x @ x.transpose(-2, -1) / x.shape[-1] ** 0.5
    hidden = tg.triu(tg.ones(x.shape[0], x.shape[0]), 1).bool()
    return nnF.softmax(scores.masked_fill(hidden, float("-inf")), -1) @ x


def in_place(x: Any) -> Any:
    y = x.clone()
    y[1:] = 0
    y[:, -1] += x.shape[0]
    y.view(-1)[0] = 7
    y.t().mul_(2)
    return y


PROGRAMS: dict[str, tuple[Callable[[Any], Any], list[str]]] = {
    "view": (lambda x: x.view(-1), []),
    "view of sizes": (lambda x: x.view(x.shape[0] * 2, x.size(1) // 2), []),
    "halves": (lambda x: x.reshape(2, -1, 4), ["n % 2 == 0"]),
    "flatten": (lambda x: x[None].flatten(1), []),
    "unsqueeze": (lambda x: x.unsqueeze(1).expand(-1, 3, -1), []),
    "expand to it": (lambda x: tg.arange(4.0).expand(x.shape), []),
    "broadcast": (lambda x: x * x[:, :1] + x.new_ones(x.shape[0], 1), []),
    "arange": (lambda x: tg.arange(x.shape[0])[:, None] + tg.arange(1, 2 * len(x.shape), 2), []),
    "linspace": (lambda x: tg.linspace(0, 1, x.shape[0]), []),
    "creation": (
        lambda x: (tg.zeros(x.shape), tg.full((2, x.size(0)), 1.5), tg.eye(x.size(0))), []),
    "number": (lambda x: (x.shape[0], x.numel() // 2, x.sum() / x.size(0), 1 / x.shape[0] + x), []),
    "tensor": (lambda x: tg.tensor([x.shape[0], 3]) + tg.tensor(x.shape[0]), []),
    "slices": (lambda x: (x[1:], x[:-1], x[-2:], x[::2], x[: x.shape[0] // 2]), []),
    "last": (lambda x: (x[-1], x[x.shape[0] - 1, 0]), ["n >= 1"]),
    "mask": (lambda x: x.masked_fill(tg.arange(x.shape[0])[:, None] > 1, 0), []),
    "cat": (lambda x: tg.cat([x, x[:1], x.new_zeros(x.shape[0], 4)]), []),
    "stack": (lambda x: tg.stack([x, x * 2], 1).flip(0), []),
    "chunk": (lambda x: tg.chunk(x, 2, 1), []),
    "tensor_split": (lambda x: tg.tensor_split(x, 3), []),
    "roll": (lambda x: x.roll(1, 0), ["n >= 1"]),
    "repeat": (lambda x: (x.repeat(2, 1), x.repeat_interleave(3, 0), x.tile(2)), []),
    "reductions": (lambda x: (x.mean(0), x.var(0), x.std(), x.logsumexp(0), x.norm(dim=0)), []),
    "largest": (lambda x: (x.amax(0), x.max(0)[0], x.argmax(0)), ["n >= 1"]),
    "scans": (lambda x: (x.cumsum(0), x.sort(0)[0], x.softmax(0)), []),
    "topk": (lambda x: x.topk(2, 0)[0], ["n >= 2"]),
    "products": (
        lambda x: (x @ x.t(), tg.einsum("ij,kj->ik", x, x), tg.bmm(x[None], x.t()[None])), []),
    "gather": (lambda x: x.gather(1, tg.zeros(x.shape[0], 2).long()), []),
    "index": (lambda x: x[tg.arange(x.shape[0]).flip(0)], []),
    "convolution": (lambda x: nnF.conv1d(x[None], tg.ones(2, x.shape[0], 3)), []),
    "windows": (window_mean, []),
    "unfold": (lambda x: x.unfold(0, 2, 1), ["n >= 2"]),
    "pooling": (lambda x: nnF.avg_pool1d(x.t()[None], 2, 2, ceil_mode=True), ["n >= n // 2 + 1"]),
    "interpolate": (lambda x: nnF.interpolate(x.t()[None], scale_factor=2.0), ["n >= 1"]),
    "losses": (lambda x: nnF.cross_entropy(x, tg.zeros(x.shape[0]).long()), []),
    "embedding": (lambda x: nnF.embedding(tg.arange(x.shape[0]) % 3, x[:3]), []),
    "attention": (attend, []),
    "writes": (in_place, ["n >= 1"]),
    "chosen": (lambda x: x[x > 0] * 2, []),
    "counted": (lambda x: (x > 0).nonzero().shape[0] + x.sum(), []),
    "unique": (lambda x: (x > 0).long().sum(1).unique(return_counts=True), []),
    "spread": (lambda x: x.repeat_interleave((x[:, 0] > 0).long() + 1, 0), []),
    "outer": (lambda x: tg.meshgrid(tg.arange(x.shape[0]), tg.arange(3), indexing="ij")[0], []),
    "python": (lambda x: tg.sym_max(x.shape[0], 3) + x.sum() + divmod(x.shape[0], 2)[1], []),
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_is_right_at_other_sizes(name: str) -> None:
    function, wanted_facts = PROGRAMS[name]
    traced = tg.trace(function, (rows(6, 4),), dynamic={"x": {0: Dim("n")}}, check=False)
    assert facts(traced) == wanted_facts
    loaded = whole(traced)
    programs = [
        (level, InterpreterProgram(optimize(traced.graph, level, check=True))) for level in (1, 2)
    ]
    for n in (6, 8, 2, 1, 0):
        x = rows(n, 4)
        try:
            wanted = function(x)
        except EAGER_REFUSES:
            continue
        holds = all(eval(fact, {"n": n}) for fact in wanted_facts)
        if not holds:
            with pytest.raises(GuardError, match="does not hold for these inputs"):
                traced(x)
            continue
        compare(traced(x), wanted, f"n = {n}")
        compare(loaded(x), wanted, f"n = {n}, from a file")
        plain = [t for t in flatten(wanted) if isinstance(t, tg.Tensor)]
        for level, program in programs:
            arrays = program.run([x.numpy()], {})[0]
            found = [tg.tensor(a) for a in arrays][: len(plain)]
            if len(plain) == len(flatten(wanted)):
                compare(found, plain, f"n = {n}, level {level}")


# What fixes a size.


@pytest.mark.parametrize(
    "read",
    [
        lambda x: [x[i] for i in range(x.shape[0])][-1],
        lambda x: x * len(x), lambda x: x * [1, 2, 3, 4, 5][x.shape[0]],
        lambda x: x * len([0] * x.shape[0]), lambda x: x * {3: 2.0}[x.shape[0]],
        lambda x: x * len(f"{x.shape[0]}"), lambda x: x * float(x.shape[0]),
        lambda x: x * int(x.shape[0]), lambda x: sum(row for row in x),
        lambda x: x * len(x.unbind(0)), lambda x: x * len(x.split(2)),
        lambda x: x * (2 if x.shape[0] == 3 else 3), lambda x: x * np.zeros(x.shape[0]).size,
        lambda x: x * len(x.tolist()) if x.dtype == tg.int64 else x * len(list(x)),
        lambda x: x * list(range(9)).index(x.shape[0]),
    ],
)  # fmt: skip
def test_a_size_that_python_reads_is_guarded(read: Callable[[Any], Any]) -> None:
    traced = tg.trace(read, (rows(3, 2),), dynamic={"x": {0: Dim("n")}}, check=False)
    compare(traced(rows(3, 2)), read(rows(3, 2)), "same")
    for n in (5, 1):
        with pytest.raises(UnseenPathError, match=r"test_dynamic_dims\.py:\d+.*every example"):
            traced(rows(n, 2))


def test_a_branch_on_a_size_is_a_branch_of_the_graph() -> None:
    def choose(x: Any) -> Any:
        if x.shape[0] > 4:
            return x * 2
        return x - 1 if x.shape[0] > 2 else x * x.shape[0]

    traced = tg.trace(choose, (rows(6, 2),), dynamic={"x": {0: "n"}})
    with pytest.raises(UnseenPathError, match=r"x\.shape\[0\] > 4 at .* is False"):
        traced(rows(3, 2))
    traced.add_example(rows(3, 2)).add_example(rows(1, 2))
    for n in range(9):
        compare(traced(rows(n, 2)), choose(rows(n, 2)), f"n = {n}")
    loaded = saved(traced)
    compare(loaded(rows(5, 2)), choose(rows(5, 2)), "from a file")


@pytest.mark.parametrize(
    ("function", "relation"),
    [
        (lambda x: x + tg.ones(3, 2), "n == 3"), (lambda x: x.view(3, 2), "n == 3"),
        (lambda x: tg.ones(2, 3) @ x, "n == 3"), (lambda x: x.expand(3, 2), "n == 3"),
        (lambda x: nnF.linear(x.t(), tg.ones(4, 3)), "n == 3"),
    ],
)  # fmt: skip
def test_a_declared_dim_is_never_fixed_in_silence(function: Any, relation: str) -> None:
    with pytest.raises(TraceError, match=rf"test_dynamic_dims\.py:\d+ needs {relation}.*declared"):
        tg.trace(function, (rows(3, 2),), dynamic={"x": {0: Dim("n")}})


def test_a_dim_that_is_one_broadcasts_only_if_it_is_always_one() -> None:
    with pytest.raises(TraceError, match="needs n == 1"):
        tg.trace(lambda x: x + tg.ones(4, 2), (rows(1, 2),), dynamic={"x": {0: Dim("n")}})
    traced = tg.trace(lambda x: x + x[:1], (rows(1, 2),), dynamic={"x": {0: Dim("n")}})
    compare(traced(rows(3, 2)), rows(3, 2) + rows(3, 2)[:1], "a literal 1 broadcasts")


def test_dims_that_must_be_equal_become_a_fact() -> None:
    traced = tg.trace(lambda x, y: x + y, (rows(3, 2), rows(3, 2)),
                      dynamic={"x": {0: "n"}, "y": {0: "m"}})  # fmt: skip
    assert facts(traced) == ["m == n"]
    compare(traced(rows(5, 2), rows(5, 2)), rows(5, 2) * 2, "equal")
    message = r"m == n does not hold for these inputs \(m = 1, n = 5\).*test_dynamic_dims\.py:\d+"
    with pytest.raises(GuardError, match=message):
        traced(rows(5, 2), rows(1, 2))
    report = traced.report()
    assert report["dims"] == {"n": "from 0", "m": "from 0"}
    assert report["facts"][0]["fact"] == "m == n"
    assert "test_dynamic_dims.py" in report["facts"][0]["line"]


def test_nothing_is_written_where_a_fact_fails() -> None:
    total = tg.zeros(2)

    def add(x: Any) -> Any:
        total.add_(x.sum(0))
        return x.reshape(-1, 2, 2)

    traced = tg.trace(add, (rows(4, 2),), dynamic={"x": {0: "n"}})
    with pytest.raises(GuardError, match="n % 2 == 0"):
        traced(rows(3, 2))
    assert total.tolist() == [0, 0]


# Examples that differ.


def test_dims_that_differ_between_examples_become_dynamic() -> None:
    traced = tg.trace(lambda x, y: x @ y, (rows(3, 4), rows(4, 2)),
                      more_examples=[(rows(5, 4), rows(4, 2)),
                                     (rows(2, 6), rows(6, 2))])  # fmt: skip
    assert str(traced.signature) == "(x: f32[x_0,x_1], y: f32[y_0,2])"
    assert facts(traced) == ["x_1 == y_0"]
    compare(traced(rows(9, 1), rows(1, 2)), rows(9, 1) @ rows(1, 2), "another size")


def test_branches_of_several_lengths_give_one_shape() -> None:
    def stacked(x: Any) -> Any:
        return tg.stack([row * 2 for row in x])

    examples = [(rows(n, 2),) for n in (1, 2)]
    traced = tg.trace(stacked, (rows(3, 2),), more_examples=examples)
    assert str(traced.graph.outputs[0].type) == "f32[x_0,2]"
    for n in (1, 2, 3):
        compare(traced(rows(n, 2)), rows(n, 2) * 2, f"n = {n}")
    with pytest.raises(UnseenPathError):
        traced(rows(4, 2))
    whole(traced)


# Models.


def sequence(batch: int, time: int) -> Any:
    return rows(batch, time, 4)


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(4, 12)

    def forward(self, x: Any) -> Any:
        batch, time, width = x.size()
        parts = self.mix(x).split(width, dim=2)
        q, k, v = (t.view(batch, time, 2, width // 2).transpose(1, 2) for t in parts)
        seen = tg.tril(tg.ones(time, time)).view(1, 1, time, time)
        scores = (q @ k.transpose(-2, -1)).masked_fill(seen == 0, float("-inf"))
        out = nnF.softmax(scores, -1) @ v
        return out.transpose(1, 2).contiguous().view(batch, time, width)


MODELS: dict[str, Callable[[], Any]] = {
    "lstm": lambda: nn.LSTM(4, 3, 2, batch_first=True, bidirectional=True),
    "gru": lambda: nn.GRU(4, 3, batch_first=True),
    "decoder": Decoder,
    "transformer": lambda: nn.TransformerEncoderLayer(4, 2, 8, batch_first=True, dropout=0.0),
    "convolution": lambda: nn.Sequential(nn.Conv1d(4, 3, 3, padding=1), nn.BatchNorm1d(3),
                                         nn.MaxPool1d(2, ceil_mode=True)),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("training", [False, True])
def test_a_model_serves_other_batches_and_lengths(name: str, training: bool) -> None:
    tg.manual_seed(1)
    model = MODELS[name]().train(training)
    parameters = list(model.parameters())

    def run(x: Any) -> Any:
        x = x.transpose(1, 2) if name == "convolution" else x
        result = model(x)
        if not training:
            return result
        loss = sum((r * r).sum() for r in flatten(result))
        return result, tg.autograd.grad(loss, parameters)

    dims = {0: Dim("batch", min=1), 1: Dim("time", min=2)}
    traced = tg.trace(run, (sequence(3, 5),), dynamic={"x": dims}, check=False)
    assert all("==" not in fact for fact in facts(traced)), facts(traced)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    for batch, time in ((3, 5), (1, 7), (4, 2)):
        wanted = run(sequence(batch, time))
        model.load_state_dict(before)
        compare(traced(sequence(batch, time)), wanted, f"{batch} of {time}")
        model.load_state_dict(before)


@pytest.mark.parametrize("kind", ["SGD", "Adam"])
def test_a_training_step_takes_batches_of_any_size(kind: str) -> None:
    def make() -> tuple[Any, Any]:
        model = make_mlp()
        options = {"momentum": 0.9} if kind == "SGD" else {}
        return model, getattr(tg.optim, kind)(model.parameters(), lr=0.1, **options)

    def step_of(model: Any, optimizer: Any) -> Callable[[Any, Any], Any]:
        def step(x: Any, y: Any) -> Any:
            optimizer.zero_grad()
            loss = nnF.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        return step

    data = [(rows(n, 16), tg.arange(n) % 4) for n in (8, 3, 1, 16)]
    traced_model, optimizer = make()
    traced = tg.trace(step_of(traced_model, optimizer), data[0],
                      dynamic={"x": {0: Dim("batch")}, "y": {0: "batch"}})  # fmt: skip
    assert facts(traced) == []
    loaded = saved(traced)
    eager_model, eager_optimizer = make()
    eager = step_of(eager_model, eager_optimizer)
    for x, y in data:
        wanted = eager(x, y)
        compare(traced(x, y), wanted, "loss")
        compare(loaded(x, y), wanted, "loss from a file")
    compare(list(traced_model.parameters()), list(eager_model.parameters()), "parameters")


def test_the_dynamic_rnn_serves_other_lengths_and_batches() -> None:
    tg.manual_seed(0)
    model = dynamic_rnn.make_model()

    def example(*lengths: int) -> tuple[Any, Any]:
        return rows(len(lengths), max(lengths) + 1, 10), tg.tensor(lengths)

    traced = tg.trace(model, example(9, 7, 5), more_examples=[example(8, 3), example(2)])
    assert str(traced.signature) == "(x: f32[x_0,x_1,10], seq_lengths: i64[seq_lengths_0])"
    loaded = saved(traced)
    for lengths in ((3, 11, 5), (1, 4, 2), (5, 6), (2, 2), (7,)):
        compare(loaded(*example(*lengths)), model(*example(*lengths)), f"lengths {lengths}")
    with pytest.raises(UnseenPathError, match="enumerate"):
        loaded(*example(1, 2, 3, 4))


# Sizes that follow from data.


def test_sizes_that_follow_from_data_need_no_declaration() -> None:
    def chosen(x: Any) -> Any:
        y = x[x > 0]
        return y * 2, y.shape[0], y.sum() / y.shape[0], x.nonzero()[:, 0]

    traced = tg.trace(chosen, (tg.tensor([1.0, -2, 3]),))
    assert str(traced.graph.outputs[0].type) == "f32[nonzero]"
    loaded = whole(traced)
    for values in ([1.0, 2, 3], [-1.0, -1, 0], [5.0, -4, 0]):
        x = tg.tensor(values)
        compare(traced(x), chosen(x), str(values))
        compare(loaded(x), chosen(x), str(values))


def test_a_size_from_data_that_must_fit_is_a_fact() -> None:
    traced = tg.trace(lambda x: x[x > 0] + tg.ones(2), (tg.tensor([1.0, -2, 3]),))
    assert facts(traced) == ["nonzero == 2"]
    compare(traced(tg.tensor([1.0, 1, -1])), tg.tensor([2.0, 2]), "as many")
    with pytest.raises(GuardError, match=r"nonzero == 2 does not hold .*\(nonzero = 3\)"):
        traced(tg.tensor([1.0, 1, 1]))


def test_a_node_stays_if_only_its_size_is_read() -> None:
    traced = tg.trace(lambda x: x[x > 0].shape[0] * x, (tg.tensor([1.0, -2, 3]),))
    compare(traced(tg.tensor([1.0, 1, 1])), tg.tensor([3.0, 3, 3]), "level 1")
    compare(traced.program(level=2)(tg.tensor([1.0, 1, 1])), tg.tensor([3.0, 3, 3]), "level 2")


# Composition and control flow.


def test_a_replay_inside_a_trace_keeps_its_sizes_symbolic() -> None:
    inner = tg.trace(lambda y: y[1:] * y.shape[0], (rows(3, 2),), dynamic={"y": {0: "n"}})
    outer = tg.trace(lambda x: inner(x * 2).sum() + inner(x), (rows(5, 2),),
                     dynamic={"x": {0: "batch"}})  # fmt: skip
    for n in (5, 2, 1):
        x = rows(n, 2)
        wanted = (x[1:] * 2 * n).sum() + x[1:] * n
        compare(outer(x), wanted, f"n = {n}")
    with pytest.raises(TraceError, match=r"needs batch >= 3|outside|at least 3|declared"):
        strict = tg.trace(lambda y: y * 2, (rows(3, 2),), dynamic={"y": {0: Dim("n", max=3)}})
        tg.trace(lambda x: strict(x) + tg.ones(3, 2), (rows(3, 2),), dynamic={"x": {0: Dim("b")}})


def test_loops_over_a_dynamic_dim() -> None:
    w = rows(4, 4)

    def run(x: Any, h: Any) -> Any:
        last, sums = tg.scan(lambda c, a: ((c @ w + a).tanh(), c.sum(-1)), h, x)
        return last, sums, tg.map(lambda row: row.sum() * x.shape[0], x)

    traced = tg.trace(run, (rows(5, 3, 4), rows(3, 4)),
                      dynamic={"x": {0: "time", 1: "batch"}, "h": {0: "batch"}})  # fmt: skip
    for time, batch in ((5, 3), (7, 1), (1, 4), (0, 2)):
        inputs = rows(time, batch, 4), rows(batch, 4)
        compare(traced(*inputs), run(*inputs), f"{time} steps of {batch}")
    whole(traced)


# Files that lie.


def forged(traced: Any, change: Callable[[dict[str, Any]], None]) -> Any:
    """Load a file whose graph was changed."""
    from tests.test_archive import rewritten  # the one place that knows how to forge a file

    return rewritten(traced, "graphs/forward.json", change)


def graph_of(traced: Any) -> Any:
    from tracegraph.ir.serial import graph_to_data

    return graph_to_data(traced.graph, lambda array: 0, lambda node: None)


def reload(data: Any, traced: Any) -> Any:
    from tracegraph.ir.graph import Graph
    from tracegraph.ir.serial import graph_from_data
    from tracegraph.ir.vocabulary import Vocabulary
    from tracegraph.ops.table import OPS

    versions = {name: row.version for name, row in OPS.items()}
    vocabulary = Vocabulary({"versions": versions, "decompositions": []}, lambda d, v: Graph())
    return graph_from_data(json.loads(json.dumps(data)), [], vocabulary)


def _drop_facts(data: Any) -> None:
    for node in data["nodes"]:
        if node["op"] == FACT:
            node["attrs"]["relation"] = {"relation": "n >= 0"}


def _set(path: str, value: Any) -> Callable[[Any], None]:
    def change(data: Any) -> None:
        *keys, last = [int(k) if k.lstrip("-").isdigit() else k for k in path.split("/")]
        for key in keys:
            data = data[key]
        data[last] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        _drop_facts, _set("dims", []), _set("dims/0/name", "k"), _set("dims/0/min", -1),
        _set("dims/0/min", 1.5), _set("dims/0/max", "9"), _set("dims/0/hint", None),
        _set("dims/0/data", 1), _set("nodes/0/types", ["f32[n*2,4]"]),
        _set("nodes/0/types", ["f32[n,4,]"]), _set("nodes/-1/types", ["f32[n,7]"]),
        _set("nodes/-1/types", ["f32[n+1,2,4]"]), _set("dims/0", {"name": "n", "extra": 1}),
    ],
)  # fmt: skip
def test_a_forged_graph_is_refused(change: Callable[[Any], None]) -> None:
    traced = tg.trace(lambda x: x.reshape(-1, 2, 4), (rows(6, 4),), dynamic={"x": {0: "n"}})
    data = graph_of(traced)
    assert facts(traced) == ["n % 2 == 0"]
    reload(data, traced)
    change(data)
    with pytest.raises((FileFormatError, ValueError, TypeError)):
        reload(data, traced)


# Random programs.

STEPS: dict[str, Callable[[Any], Any]] = {
    "double": lambda x: tg.cat([x, x], 0), "halve": lambda x: x[::2], "head": lambda x: x[:3],
    "tail": lambda x: x[1:], "butlast": lambda x: x[:-1], "pad": lambda x: nnF.pad(x, (0, 0, 1, 2)),
    "turn": lambda x: x.t().reshape(-1, 2), "pairs": lambda x: x.reshape(-1, 4),
    "flat": lambda x: x.reshape(-1, 1), "sum": lambda x: x + x.sum(0),
    "scale": lambda x: x * x.shape[0],
    "positions": lambda x: x + tg.arange(x.shape[0])[:, None], "mean": lambda x: x - x.mean(0),
    "positive": lambda x: x[x[:, 0] > 0], "outer": lambda x: x @ x.t()[:, :2],
    "write": lambda x: x.clone().index_fill_(0, tg.arange(x.shape[0]), 1.0) + x,
    "split": lambda x: tg.tensor_split(x, 2)[1], "window": lambda x: x.unfold(0, 1, 2)[..., 0],
    "branch": lambda x: x * 2 if x.shape[0] > 4 else x - 1, "roll": lambda x: x.roll(2, 0),
    "pool": lambda x: nnF.max_pool1d(x.t()[None], 2)[0].t(),
}  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=5), st.integers(1, 9))
def test_random_programs_are_right_or_refused(steps: list[str], size: int) -> None:
    def program(x: Any) -> Any:
        for step in steps:
            x = STEPS[step](x)
        return x, x.shape[0]

    with np.errstate(all="ignore"):
        try:
            program(rows(size, 2))
        except EAGER_REFUSES:
            return
        dim = Dim("n")
        dim.declared = False
        traced = tg.trace(program, (rows(size, 2),), dynamic={"x": {0: dim}}, check=False)
        verify(traced.graph)
        for n in range(10):
            try:
                wanted = program(rows(n, 2))
            except EAGER_REFUSES:
                continue
            try:
                found = traced(rows(n, 2))
            except (GuardError, RuntimeError, IndexError, ZeroDivisionError):
                assert n != size
                continue
            compare(found, wanted, f"{steps} at {n}, traced at {size}")


def test_examples_of_other_sizes_may_have_loops_in_loops() -> None:
    def f(xs: Any) -> Any:
        def outer(total: Any, rows: Any) -> Any:
            inner = tg.map(lambda row: row.cumsum(0) * total, rows)
            return total + inner.sum(), inner.sum(1)

        return tg.scan(outer, tg.tensor(1.0), xs)

    def wanted(xs: Any) -> Any:
        total, found = np.float64(1), []
        for rows in xs.numpy().astype(np.float64):
            inner = rows.cumsum(1) * total
            total, found = total + inner.sum(), [*found, inner.sum(1)]
        return total, np.array(found).reshape(xs.shape[:2])

    examples = [tg.rand(2, 3, 4) / 9, tg.rand(3, 1, 5) / 9]
    traced = tg.trace(f, (examples[0],), more_examples=[(examples[1],)])
    loaded = saved(traced)
    for shape in ((2, 3, 4), (1, 2, 2), (4, 1, 1), (0, 2, 3)):
        xs = tg.rand(*shape) / 9
        for replay in (traced, loaded):
            for result, right in zip(replay(xs), wanted(xs), strict=True):
                np.testing.assert_allclose(result.numpy(), right, 1e-4, 1e-5)
