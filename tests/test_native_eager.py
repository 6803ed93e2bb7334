"""Large eager ops as native code: same results, layouts and errors as the kernels over NumPy."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tracegraph as torch
from tracegraph import nn, single_ops
from tracegraph.backends.cpu import native_kernels
from tracegraph.errors import OpError
from tracegraph.ops import heavy
from tracegraph.ops.core import Case
from tracegraph.ops.table import OPS, run_op

pytest.importorskip("llvmlite")

ROOT = Path(__file__).resolve().parent.parent
F = nn.functional

CASES = [(name, number) for name in heavy.LEAST for number in range(len(OPS[name].sample))]

# Of transposed operands, their kernels give what their steps happen to give.
ANY_ORDER = ("rms_norm", "batch_norm", "rnn_grad")


@pytest.fixture
def forced() -> Iterator[None]:
    """Let every call of an op of LEAST be native, however small."""
    before = heavy.scaled(0.0)
    yield
    heavy.scaled(before)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Draw the same numbers whatever ran before."""
    torch.manual_seed(3)


def operands(case: Case, dtype: Any) -> list[Any]:
    random = np.random.default_rng(5)
    made = []
    for spec in case.inputs:
        x = random.uniform(spec.low, spec.high, spec.shape)
        kinds = {"f": dtype, "i": np.int64, "b": np.bool_}
        made.append(x.astype(kinds[spec.kind]) if spec.kind != "b" else x > 0)
    return made


def as_tuple(x: Any) -> tuple[Any, ...]:
    return x if isinstance(x, tuple) else (x,)


def turned(x: Any) -> Any:
    """The same array with its dims in reversed order of memory."""
    return np.asfortranarray(x)


def check(got: Any, want: Any, tolerance: float, laid_alike: bool) -> None:
    assert len(as_tuple(got)) == len(as_tuple(want))
    for g, w in zip(as_tuple(got), as_tuple(want), strict=True):
        assert (g.shape, g.dtype) == (w.shape, w.dtype)
        if g.size and laid_alike:
            long = [d for d, n in enumerate(g.shape) if n > 1]
            assert [g.strides[d] for d in long] == [w.strides[d] for d in long]
        np.testing.assert_allclose(g, w, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("name", "number"), CASES)
def test_samples_agree_with_kernels(name: str, number: int, dtype: Any, forced: None) -> None:
    row, case = OPS[name], OPS[name].sample[number]
    arrays = operands(case, dtype)
    for given in (arrays, [turned(x) for x in arrays]):
        laid_alike = given is arrays or name not in ANY_ORDER
        got = run_op(row, np, *given, **case.attrs)
        with native_kernels(False):
            want = run_op(row, np, *given, **case.attrs)
        check(got, want, 1e-5 if dtype == np.float32 else 1e-12, laid_alike)


@pytest.mark.parametrize("name", heavy.LEAST)
def test_each_op_has_a_native_form(name: str, forced: None) -> None:
    case = OPS[name].sample[0]
    assert heavy.natively(OPS[name], operands(case, np.float32), case.attrs) is not None


def test_special_values(forced: None) -> None:
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, 88.8, -104.0], np.float32)
    for name in ("exp", "tanh", "sigmoid", "erf", "gelu", "silu"):
        attrs = OPS[name].sample[0].attrs
        got = run_op(OPS[name], np, x, **attrs)
        with native_kernels(False), np.errstate(all="ignore"):
            want = run_op(OPS[name], np, x, **attrs)
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-37)


def test_halves_are_rounded_once(forced: None) -> None:
    x = torch.randn(5, 7).half()
    want = torch.softmax(x.float(), -1).half()
    assert torch.allclose(torch.softmax(x, -1).float(), want.float(), rtol=1e-3)
    assert torch.softmax(x.bfloat16(), -1).dtype is torch.bfloat16


def net() -> Any:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.GELU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(16, 8), nn.LayerNorm(8), nn.Sigmoid(), nn.Linear(8, 3),
        nn.LogSoftmax(-1),
    )  # fmt: skip


def test_eager_and_replays_give_the_same_bits(forced: None) -> None:
    model, x = net(), torch.randn(3, 2, 4, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = -model(x).mean()
        loss.backward()
        optimizer.step()
        return loss

    step(x)
    traced = torch.trace(step, (x,))
    state = {name: t.clone() for name, t in model.state_dict().items()}
    first = traced(x)
    after = {name: t.clone() for name, t in model.state_dict().items()}
    model.load_state_dict(state)
    assert torch.equal(step(x), first)
    for name, t in model.state_dict().items():
        assert torch.equal(t, after[name]), name


def test_passes_keep_how_large_calls_are_computed() -> None:
    def function(x: Any) -> Any:
        same = torch.full((300, 300), 0.3)
        wide = x.expand(40, 300, 300)
        return F.gelu(same), torch.exp(wide), F.gelu(wide), torch.softmax(same, -1), torch.exp(x.T)

    x = torch.randn(300, 300)
    for here, there in zip(function(x), torch.trace(function, (x,))(x), strict=True):
        assert torch.equal(here, there)
        assert here.stride() == there.stride()


def test_gradients_agree_with_kernels(forced: None) -> None:
    model, x = net(), torch.randn(3, 2, 4, 4)

    def gradients() -> list[Any]:
        return list(torch.autograd.grad(model(x)[:, 0].sum(), model.parameters()))

    native = gradients()
    with native_kernels(False):
        plain = gradients()
    for one, other in zip(native, plain, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-6)


def test_second_gradients(forced: None) -> None:
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    for f in (F.gelu, torch.exp, lambda x: torch.softmax(x, -1), lambda x: F.layer_norm(x, (4,))):
        assert torch.autograd.gradgradcheck(f, (x,))


def test_recurrent_layer(forced: None) -> None:
    layer, x = nn.LSTM(3, 5, batch_first=True), torch.randn(2, 6, 3)
    y, (h, c) = layer(x)
    y.sum().backward()
    native = layer.weight_hh_l0.grad.clone()
    layer.zero_grad()
    with native_kernels(False):
        z, _ = layer(x)
        z.sum().backward()
    assert torch.allclose(y, z, atol=1e-6)
    assert torch.allclose(native, layer.weight_hh_l0.grad, atol=1e-5)
    assert h.shape == c.shape == (1, 2, 5)


def test_bits_do_not_depend_on_threads_nor_on_kept_programs() -> None:
    x, w = torch.randn(256, 512), torch.randn(512, 512)
    calls = (lambda: F.gelu(x), lambda: torch.softmax(x, 0), lambda: F.linear(x, w))
    threads = torch.get_num_threads()
    try:
        found = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            single_ops._programs.clear()
            found.append([f() for f in calls for _ in range(2)])
        for other in found[1:]:
            assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))
    finally:
        torch.set_num_threads(threads)


LAYERS = {
    "winograd": (lambda: nn.Conv2d(32, 64, 3, padding=1), (2, 32, 14, 14)),
    "strided": (lambda: nn.Conv2d(32, 64, 3, stride=2, padding=1), (2, 32, 14, 14)),
    "linear": (lambda: nn.Linear(70, 130), (3, 17, 70)),
    "few_rows": (lambda: nn.Linear(70, 130), (2, 70)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_bits_do_not_depend_on_what_is_kept_of_weights(name: str, forced: None) -> None:
    make, shape = LAYERS[name]
    layer, x = make(), torch.randn(*shape)
    with native_kernels(False):
        right = layer(x)
    made = layer(x)
    assert torch.allclose(made, right, atol=1e-5)
    held = len(single_ops._stores)
    with torch.no_grad():
        assert all(torch.equal(layer(x), made) for _ in range(2))
        assert len(single_ops._stores) == held + (name != "few_rows")
    assert torch.equal(torch.trace(layer, (x,))(x), made)
    with torch.inference_mode():
        assert torch.equal(layer(x), made)


def double_unseen(w: Any) -> None:
    seen = w.detach().numpy()
    seen *= 2


WRITES = (lambda w: w.mul_(2), lambda w: w.data.mul_(2), lambda w: w[:].mul_(2), double_unseen)


@pytest.mark.parametrize("name", LAYERS)
def test_what_is_kept_of_a_weight_ends_with_it(name: str, forced: None) -> None:
    make, shape = LAYERS[name]
    layer, x = make(), torch.randn(*shape)
    layer.bias.data.zero_()
    before = len(single_ops._stores)
    with torch.no_grad():
        first = layer(x)
        for number, write in enumerate(WRITES):
            write(layer.weight)
            assert torch.equal(layer(x), first * 2 ** (number + 1))
        seen = layer.weight.detach().numpy()
        for _ in range(2):  # as long as others hold its memory, nothing is kept
            seen *= 2
            first = first * 2
            assert torch.equal(layer(x), first * 2 ** len(WRITES))
        del seen, layer
    gc.collect()
    assert len(single_ops._stores) == before


def test_what_is_kept_of_weights_is_bounded(forced: None, monkeypatch: pytest.MonkeyPatch) -> None:
    layers, x = [nn.Linear(64, 64) for _ in range(6)], torch.randn(32, 64)
    single_ops._stores.clear()
    monkeypatch.setattr(single_ops, "_KEPT_BYTES", 3 * 64 * 64 * 4)
    with torch.no_grad():
        want = [layer(x) for layer in layers]
        assert len(single_ops._stores) == 3
        assert all(torch.equal(f(x), y) for f, y in zip(layers, want, strict=True))
        assert sum(store.bytes for _, store in single_ops._stores.values()) == 3 * 64 * 64 * 4


def test_results_are_fresh(forced: None) -> None:
    x = torch.randn(4, 4)
    one, other = torch.exp(x), torch.exp(x)
    one.fill_(0)
    assert torch.equal(other, torch.exp(x))
    assert not np.shares_memory(one.numpy(), other.numpy())


def test_what_is_no_plain_array_of_floats_is_left_to_the_kernel(forced: None) -> None:
    x = torch.arange(6).view(2, 3)
    assert (x @ x.T).tolist() == [[5, 14], [14, 50]]
    assert heavy.natively(OPS["exp"], [np.float32(1)], {}) is None
    assert heavy.natively(OPS["exp"], [np.ones(2, ">f4")], {}) is None
    assert heavy.natively(OPS["linear"], [np.ones((2, 2)), 3.0], {}) is None


def test_memory_that_is_not_aligned(forced: None) -> None:
    x = np.zeros(33, np.uint8)[1:].view(np.float32)
    assert not x.flags.aligned
    assert run_op(OPS["exp"], np, x).tolist() == [1] * 8


def test_errors_are_the_kernels(forced: None) -> None:
    with pytest.raises(OpError, match="linear"):
        F.linear(torch.ones(2, 3), torch.ones(4, 5))
    with pytest.raises((OpError, IndexError)):
        torch.softmax(torch.ones(2, 3), 5)


def test_programs_are_bounded(forced: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(single_ops, "_MAX_PROGRAMS", 3)
    single_ops._programs.clear()
    for n in range(1, 8):
        assert torch.exp(torch.zeros(n)).tolist() == [1] * n
    assert len(single_ops._programs) == 3


def test_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    x, called = np.ones(1 << 18, np.float32), []
    monkeypatch.setattr(heavy.Native, "compute", lambda *call: called.append(call))
    monkeypatch.setattr(heavy.Native, "factor", 1.0)
    run_op(OPS["exp"], np, x)
    with native_kernels(False):
        run_op(OPS["exp"], np, x)
        with native_kernels():
            run_op(OPS["exp"], np, x)
    run_op(OPS["exp"], np, x[:100])
    assert len(called) == 2


SMALL = """
import sys
import tracegraph as torch
from tracegraph import nn
model = nn.Sequential(nn.Linear(784, 128), nn.Tanh(), nn.Linear(128, 10), nn.LogSoftmax(-1))
optimizer = torch.optim.Adam(model.parameters())
loss = nn.functional.nll_loss(model(torch.randn(64, 784)), torch.zeros(64, dtype=torch.int64))
loss.backward()
optimizer.step()
nn.LSTM(4, 8)(torch.randn(5, 2, 4))
nn.Conv2d(1, 8, 3)(torch.randn(4, 1, 28, 28))
assert "tracegraph.single_ops" not in sys.modules and "llvmlite" not in sys.modules
"""
LARGE = """
import sys
{before}
import tracegraph as torch
x = torch.randn(512, 512)
assert abs(torch.softmax(x, -1).sum().item() - 512) < 1e-2
assert ("tracegraph.single_ops" in sys.modules) is {found}
"""


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (SMALL, "1"),
        (LARGE.format(before="", found=False), "0"),
        (LARGE.format(before="", found=True), "1"),
        (LARGE.format(before="sys.modules['llvmlite'] = None", found=True), "1"),
    ],
    ids=["small", "off", "on", "without llvmlite"],
)
def test_fresh_process(code: str, said: str) -> None:
    settings = {**os.environ, "PYTHONPATH": str(ROOT), "TRACEGRAPH_EAGER_NATIVE": said}
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
