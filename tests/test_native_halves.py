"""Matrix products and convolutions of 16-bit floats: computed in float32, rounded by every op."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tracegraph as tg
from tracegraph import nn
from tracegraph.dtypes import DType, bfloat16, float16
from tracegraph.ir.graph import Graph, Value
from tracegraph.passes.pipeline import run_passes
from tracegraph.runtime.cpu.driver.pool import set_num_threads
from tracegraph.runtime.cpu.lowering.steps import HostCall
from tracegraph.runtime.cpu.program import NativeProgram
from tracegraph.runtime.interpreter import InterpreterProgram
from tracegraph.tensor_type import TensorType

pytestmark = pytest.mark.usefixtures("kept_threads")

HALVES = (float16, bfloat16)
SIZES = st.sampled_from((1, 2, 5, 16, 33, 70))


def exact(seed: int, shape: Sequence[int], dtype: DType) -> Any:
    """Return multiples of 1/8 of which sums of products are exact in float32."""
    return (np.random.default_rng(seed).integers(-9, 10, shape) / 8).astype(dtype.np)


class Case:
    """A graph being built, and its inputs."""

    def __init__(self, dtype: DType) -> None:
        self.graph, self.dtype, self.given = Graph("halves"), dtype, []

    def input(self, *shape: int, order: Sequence[int] | None = None) -> Value:
        """Return an input; `order`: how its dims lie in memory."""
        order = tuple(range(len(shape)) if order is None else order)
        stored = tuple(shape[d] for d in order)
        number = len(self.given)
        self.given.append(exact(number, stored, self.dtype))
        value = self.graph.add_input(f"x{number}", TensorType(self.dtype, stored)).out
        back = tuple(order.index(d) for d in range(len(shape)))
        return self.graph.add("permute", (value,), {"dims": back}).out

    def followed(self, x: Value) -> None:
        """Make results of elementwise ops, each of which rounds."""
        add = self.graph.add
        scaled = add("mul", (x, self.input(*x.type.shape))).out
        shifted = add("add", (scaled, self.input(x.type.shape[-1]))).out
        self.graph.outputs.append(add("relu", (add("sub", (shifted, x)).out,)).out)

    def check(self) -> None:
        """Compare bits: sums are exact, so that only what rounds too late or early differs."""
        wanted = InterpreterProgram(self.graph).run(self.given, {})[0]
        run_passes(self.graph, ["dead_code", "fuse"])
        program = NativeProgram(self.graph)
        assert not [s.why for s in program.plan().plan.steps if isinstance(s, HostCall)]
        for threads in (1, 2):
            set_num_threads(threads)
            for one, right in zip(program.run(self.given, {})[0], wanted, strict=True):
                assert (one.dtype, one.shape) == (right.dtype, right.shape)
                np.testing.assert_array_equal(one.astype(np.float32), right.astype(np.float32))


@settings(max_examples=60)
@given(
    dtype=st.sampled_from(HALVES),
    m=SIZES, n=SIZES, k=st.sampled_from((1, 3, 40, 500)),
    batch=st.sampled_from(((), (3,), (1,), (2, 3))),
    orders=st.tuples(st.booleans(), st.booleans()),
    repeats=st.booleans(), follows=st.booleans(),
)  # fmt: skip
def test_matmul(
    dtype: DType, m: int, n: int, k: int, batch: tuple[int, ...], orders: tuple[bool, bool],
    repeats: bool, follows: bool,
) -> None:  # fmt: skip
    case = Case(dtype)
    turned = (*range(len(batch)), len(batch) + 1, len(batch))
    x = case.input(*batch, m, k, order=turned if orders[0] else None)
    if repeats and batch:
        y = case.input(k, n, order=(1, 0) if orders[1] else None)
        y = case.graph.add("expand", (y,), {"shape": (*batch, k, n)}).out
    else:
        y = case.input(*batch, k, n, order=turned if orders[1] else None)
    made = case.graph.add("matmul", (x, y)).out
    case.followed(made) if follows else case.graph.outputs.append(made)
    case.check()


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("rows", [1, 7, 400])
@pytest.mark.parametrize("follows", [False, True])
@pytest.mark.parametrize("has_bias", [False, True])
def test_linear(dtype: DType, rows: int, follows: bool, has_bias: bool) -> None:
    case = Case(dtype)
    given = [case.input(rows, 50), case.input(37, 50), *([case.input(37)] if has_bias else [])]
    made = case.graph.add("linear", given).out
    case.followed(made) if follows else case.graph.outputs.append(made)
    case.check()


@settings(max_examples=40)
@given(
    dtype=st.sampled_from(HALVES), dims=st.integers(1, 2), groups=st.sampled_from((1, 2, 6)),
    window=st.integers(1, 3), stride=st.integers(1, 2), padding=st.integers(0, 1),
    last=st.booleans(), follows=st.booleans(),
)  # fmt: skip
def test_convolutions(
    dtype: DType, dims: int, groups: int, window: int, stride: int, padding: int, last: bool,
    follows: bool,
) -> None:  # fmt: skip
    case, size = Case(dtype), (9, 8)[:dims]
    order = (0, *range(2, dims + 2), 1) if last else None
    x = case.input(3, 6, *size, order=order)
    weight = case.input(12 if groups < 6 else 6, 6 // groups, *(window,) * dims)
    attrs = {"stride": (stride,) * dims, "padding": ((padding, padding),) * dims,
             "dilation": (1,) * dims, "groups": groups}  # fmt: skip
    made = case.graph.add("convolution", (x, weight), attrs).out
    case.followed(made) if follows else case.graph.outputs.append(made)
    g = case.input(*made.type.shape)
    own = attrs | {"size": size}
    case.graph.outputs += case.graph.add("convolution_input_grad", (g, weight), own).outs
    window_of = attrs | {"window": (window,) * dims}
    case.graph.outputs += case.graph.add("convolution_weight_grad", (x, g), window_of).outs
    case.check()


class Net(nn.Module):
    """Products of all kinds, with weights known ahead."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.deep = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, groups=16)
        self.last, self.rest = nn.Linear(16 * 36, 20), nn.Linear(20, 1, bias=False)

    def forward(self, x: Any) -> Any:
        hidden = self.deep(self.first(x).relu()).tanh().flatten(1)
        return self.rest(nn.functional.gelu(self.last(hidden))).sigmoid()


@pytest.mark.parametrize("dtype", [tg.float16, tg.bfloat16], ids=str)
def test_weights_are_widened_ahead(dtype: Any) -> None:
    tg.manual_seed(0)
    net, x = Net().to(dtype), tg.randn(5, 3, 8, 8).to(dtype)
    traced = tg.trace(net, (x,))
    program, interpreter = traced.program(), traced.program(runtime="interpreter")
    for _ in range(2):
        one, right = (p(x).detach().to(tg.float32).numpy() for p in (program, interpreter))
        np.testing.assert_allclose(one, right, rtol=4 * tg.finfo(dtype).eps)
        with tg.no_grad():
            net.last.weight.mul_(-2)
            net.first.weight.mul_(0.5)
    plan = program._program._main.plan().plan
    assert not [s for s in plan.steps if isinstance(s, HostCall)]
    ahead = [s.what for launches, _ in plan.ahead.values() for s in launches]
    assert ahead.count("copy") == 3


@pytest.mark.parametrize("dtype", [tg.float16, tg.bfloat16], ids=str)
def test_a_training_step(dtype: Any) -> None:
    losses = []
    for runtime in ("native", "interpreter"):
        tg.manual_seed(0)
        net, x = Net().to(dtype), tg.randn(5, 3, 8, 8).to(dtype)
        optimizer = tg.optim.SGD(net.parameters(), lr=0.05)

        def step(net: Any = net, x: Any = x, optimizer: Any = optimizer) -> Any:
            optimizer.zero_grad()
            loss = (net(x) - 1).square().mean()
            loss.backward()
            optimizer.step()
            return loss

        program = tg.trace(step, ()).program(runtime=runtime)
        losses.append([program().item() for _ in range(4)])
    np.testing.assert_allclose(losses[0], losses[1], rtol=8 * tg.finfo(dtype).eps)
    assert losses[0][3] < losses[0][0]


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_against_pytorch(name: str) -> None:
    torch = pytest.importorskip("torch", reason="the oracle PyTorch is not installed")
    tg.manual_seed(1)
    net, x = Net().to(getattr(tg, name)), tg.randn(5, 3, 8, 8).to(getattr(tg, name))
    one = tg.trace(net, (x,)).program()(x).detach().to(tg.float32).numpy()
    p = {n: torch.tensor(v.detach().to(tg.float32).numpy()).to(getattr(torch, name))
         for n, v in net.named_parameters()}  # fmt: skip
    functional = torch.nn.functional
    hidden = torch.tensor(x.to(tg.float32).numpy()).to(getattr(torch, name))
    hidden = functional.conv2d(hidden, p["first.weight"], p["first.bias"], padding=1).relu()
    hidden = functional.conv2d(hidden, p["deep.weight"], p["deep.bias"], groups=16).tanh()
    hidden = functional.linear(hidden.flatten(1), p["last.weight"], p["last.bias"])
    right = functional.linear(functional.gelu(hidden), p["rest.weight"]).sigmoid()
    np.testing.assert_allclose(one, right.float().numpy(), rtol=8 * tg.finfo(getattr(tg, name)).eps)
