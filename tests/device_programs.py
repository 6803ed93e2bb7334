"""Programs that must give the same on every device; `device` is where they run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tracegraph as torch
from tests.device_checks import to_host
from tracegraph import nn
from tracegraph.dtypes import ALL
from tracegraph.errors import DeviceError


def numbers(*shape: int, seed: int = 1) -> np.ndarray[Any, Any]:
    """Return fixed standard normal numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def same(found: Any, expected: Any, tolerance: float = 0.0) -> None:
    """Compare a tensor of a device with one of the CPU."""
    assert found.device.type == "cuda", "the result is not on the GPU"
    assert expected.device.type == "cpu"
    assert found.dtype is expected.dtype
    a, b = to_host(found.detach()._data), to_host(expected.detach()._data)
    assert a.shape == b.shape
    if tolerance:
        np.testing.assert_allclose(a, b, tolerance, tolerance)
    else:
        np.testing.assert_array_equal(a, b)


def transfers(device: str) -> None:
    """Copies between devices keep values, dtypes, shapes and requires_grad."""
    for dtype in ALL:
        for shape in ((), (0, 2), (2, 3)):
            t = torch.ones(shape, dtype=dtype)
            there = t.to(device)
            assert there.is_cuda and there.device == torch.device(device) and there.dtype is dtype
            assert there.to(device) is there and t.cpu() is t
            same(there, t)
            assert there.cpu().dtype is dtype and not there.cpu().is_cuda
    turned = torch.tensor(numbers(3, 4)).t()
    same(turned.cuda(), turned)
    same(turned.cuda()[1:, ::2], turned[1:, ::2])
    leaf = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    there = (leaf * leaf).to(device)
    (slope,) = torch.autograd.grad((there * there).sum(), there, retain_graph=True)
    assert slope.is_cuda
    assert [node.op for node in (there * there).sum().graph().order()].count("mul") == 2
    (there * there).sum().backward(create_graph=True)
    assert leaf.grad.device.type == "cpu" and leaf.grad.tolist() == [4.0, 32.0, 108.0]
    (curve,) = torch.autograd.grad(leaf.grad.sum(), leaf)
    assert curve.device.type == "cpu" and curve.tolist() == [12.0, 48.0, 108.0]
    scale = torch.tensor(2.0, requires_grad=True)
    (torch.ones(3, device=device) * scale).sum().backward()
    assert scale.grad.device.type == "cpu" and scale.grad.item() == 3.0
    table = torch.tensor(numbers(5, 2), requires_grad=True)
    rows = table[torch.tensor([1, 1, 4])]
    (rows.to(device)[:, 0] * 2).sum().backward()
    assert table.grad.device.type == "cpu" and table.grad[:, 0].tolist() == [0, 4, 0, 0, 2]
    assert torch.tensor([1.5], device=device).item() == 1.5
    assert "device='cuda:0'" in repr(torch.ones(2, device=device))
    with pytest.raises(TypeError, match=r"Tensor\.cpu"):
        torch.ones(2, device=device).numpy()


def creation(device: str) -> None:
    """Creation functions put what they make on the device asked for."""
    makers: dict[str, Callable[..., Any]] = {
        "zeros": lambda **on: torch.zeros(2, 3, **on),
        "ones": lambda **on: torch.ones(2, dtype=torch.int64, **on),
        "full": lambda **on: torch.full((2,), 1.5, **on),
        "empty": lambda **on: torch.empty(2, **on),
        "arange": lambda **on: torch.arange(1, 9, 2, **on),
        "linspace": lambda **on: torch.linspace(0, 1, 5, **on),
        "eye": lambda **on: torch.eye(3, **on),
        "tensor": lambda **on: torch.tensor([[1, 2], [3, 4]], **on),
        "as_tensor": lambda **on: torch.as_tensor(numbers(3), **on),
        "tril": lambda **on: torch.tril(torch.ones(3, 3, **on)),
    }
    for make in makers.values():
        same(make(device=device), make())
    like = torch.ones(2, 3, dtype=torch.float64, device=device)
    for name in ("zeros_like", "ones_like", "rand_like", "randn_like", "empty_like"):
        made = getattr(torch, name)(like)
        assert made.is_cuda and made.dtype is torch.float64 and made.shape == (2, 3)
    assert like.new_zeros(2).is_cuda and like.new_tensor([1.0]).is_cuda


def random_numbers(device: str) -> None:
    """One seed gives the same numbers on every device."""
    draws: dict[str, Callable[..., Any]] = {
        "rand": lambda **on: torch.rand(1000, **on),
        "rand f64": lambda **on: torch.rand(70, dtype=torch.float64, **on),
        "randn": lambda **on: torch.randn(30, 50, **on),
        "randint": lambda **on: torch.randint(-5, 1000, (99,), **on),
        "randperm": lambda **on: torch.randperm(300, **on),
        "few normals": lambda **on: torch.randn(5, **on),
    }

    def all_of(**on: Any) -> list[Any]:
        torch.manual_seed(1234567)
        return [draw(**on) for draw in draws.values()]

    for found, expected in zip(all_of(device=device), all_of(), strict=True):
        same(found, expected)
    state = torch.cuda.get_rng_state()
    first = torch.rand(3, device=device)
    torch.cuda.set_rng_state(state)
    assert torch.equal(first, torch.rand(3, device=device))
    a, b = (torch.bernoulli(torch.full((50,), 0.3, device=d)) for d in (device, "cpu"))
    assert a.is_cuda and not b.is_cuda


def mixed_devices(device: str) -> None:
    """Operands of two devices are refused; a 0-d tensor of the CPU goes along."""
    here, there = torch.ones(3), torch.ones(3, device=device)
    for mix in (
        lambda: here + there, lambda: there @ here, lambda: torch.cat([here, there]),
        lambda: torch.where(there > 0, here, there),
        lambda: nn.functional.linear(there, torch.ones(2, 3)),
    ):  # fmt: skip
        with pytest.raises(RuntimeError, match="same device") as caught:
            mix()
        assert isinstance(caught.value, DeviceError)
    same(there * torch.tensor(2.0), here * 2)
    same(torch.tensor(2.0) * there, here * 2)
    here.copy_(there + 1)
    assert here.tolist() == [2.0, 2.0, 2.0]
    there.copy_(here)
    same(there, here)


def indexing(device: str) -> None:
    """Reads and writes by index, mask and slice; what is out of range raises."""
    found, expected = (torch.tensor(numbers(4, 5)).to(d) for d in (device, "cpu"))
    for t in (found, expected):
        rows = torch.tensor([2, 0], device=t.device)
        t[:, 1] = 0
        t[rows] = 7
        t[t < 0] = -1
        t[1, 2] = t[3, 3] * 2
        t[0].add_(1)
        t.index_add_(0, rows, torch.ones(2, 5, device=t.device))
        t.masked_fill_(t == 7, 3)
        t[[1, 2], :2] = torch.tensor([[5.0, 6.0]])
        t[-1] = torch.arange(5.0)
    same(found, expected)
    same(found[[3, 0]], expected[[3, 0]])
    same(found[torch.tensor([2])], expected[torch.tensor([2])])
    same(found[found > 0], expected[expected > 0])
    same(found.nonzero(), expected.nonzero())
    same(found.sort(dim=1, descending=True)[1], expected.sort(dim=1, descending=True)[1])
    expected[0] = found[1]
    assert expected[0].tolist() == expected[1].tolist()
    with pytest.raises(IndexError):
        found[torch.tensor([9], device=device)]
    with pytest.raises((IndexError, RuntimeError)):
        found.gather(1, torch.full((4, 1), 9, device=device))
    with pytest.raises(RuntimeError):
        torch.linalg.inv(torch.zeros(2, 2, device=device))


def perceptron() -> Any:
    """A small network with dropout."""
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Dropout(0.3), nn.Linear(16, 3))


def convolutional() -> Any:
    """A small network with convolution, batch norm, pooling and dropout."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
        nn.Dropout(0.2), nn.Conv2d(4, 3, 3, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


def sequence() -> Any:
    """An embedding, an LSTM and layer norm."""

    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.word = nn.Embedding(9, 5)
            self.lstm = nn.LSTM(5, 6, batch_first=True)
            self.norm, self.out = nn.LayerNorm(6), nn.Linear(6, 3)

        def forward(self, words: Any) -> Any:
            return self.out(self.norm(self.lstm(self.word(words))[0][:, -1]))

    return Tagger()


NETWORKS: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "perceptron": (perceptron, lambda: torch.tensor(numbers(8, 6))),
    "convolutional": (convolutional, lambda: torch.tensor(numbers(8, 2, 9, 8))),
    "sequence": (
        sequence, lambda: torch.tensor(np.random.default_rng(2).integers(0, 9, (8, 4)))
    ),
}  # fmt: skip
OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda weights: torch.optim.SGD(weights, lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda weights: torch.optim.Adam(weights, lr=0.01, weight_decay=0.01),
    "adamw": lambda weights: torch.optim.AdamW(weights, lr=0.01, amsgrad=True),
}


def training_step(network: str, optimizer: str, device: str) -> tuple[Any, Callable[[], Any]]:
    """Return a network on a device and its training step; all numbers are fixed."""
    torch.manual_seed(77)
    build, inputs = NETWORKS[network]
    module = build().to(device)
    update = OPTIMIZERS[optimizer](module.parameters())
    x = inputs().to(device)
    labels = torch.tensor(np.arange(8) % 3).to(device)

    def step() -> Any:
        update.zero_grad()
        loss = nn.functional.cross_entropy(module(x), labels)
        loss.backward()
        update.step()
        return loss

    torch.manual_seed(99)
    return module, step


def training(network: str, optimizer: str, device: str) -> None:
    """Three steps give the CPU's losses, weights and buffers."""
    (ours, step), (theirs, reference) = (
        training_step(network, optimizer, d) for d in (device, "cpu")
    )
    torch.manual_seed(5)
    losses = [step() for _ in range(3)]
    torch.manual_seed(5)
    for loss in losses:
        same(loss, reference(), 1e-4)
    for (name, t), (_, r) in zip(
        ours.state_dict().items(), theirs.state_dict().items(), strict=True
    ):
        assert t.is_cuda, name
        same(t, r, 2e-3)


def optimizers(device: str) -> None:
    """Every elementwise optimizer makes the CPU's steps."""
    names = "SGD Adam AdamW NAdam RAdam Adamax Adagrad Adadelta RMSprop Rprop ASGD"
    for name in names.split():
        weights = [torch.nn.Parameter(torch.tensor(numbers(5)).to(d)) for d in (device, "cpu")]
        rules = [getattr(torch.optim, name)([w], lr=0.03) for w in weights]
        for _ in range(8):
            for weight, rule in zip(weights, rules, strict=True):
                rule.zero_grad()
                (weight**2).sum().backward()
                rule.step()
        same(*weights, 1e-5)


def replay(network: str, device: str, folder: Path) -> None:
    """A file made on the CPU gives its numbers on the device, for a module and for its step."""
    module, _ = training_step(network, "adam", "cpu")
    module.eval()
    x = NETWORKS[network][1]()
    torch.save(torch.trace(module, x), folder / "module.tg")
    same(torch.load(folder / "module.tg", device=device)(x.to(device)), module(x), 1e-4)

    _, step = training_step(network, "adam", "cpu")
    torch.save(torch.trace(step, ()), folder / "step.tg")
    here, there = (torch.load(folder / "step.tg", device=d) for d in ("cpu", device))
    for _ in range(3):
        same(there(), here(), 1e-4)
    for name, t in there.state_dict().items():
        same(t, here.state_dict()[name], 2e-3)


def trace_on_device(device: str, folder: Path) -> None:
    """A trace of tensors on a GPU runs there, and its file runs on a CPU."""
    x = torch.tensor(numbers(4, 5))
    picked = torch.trace(
        lambda t: t[[2, 0]] * torch.tensor([1.0, 2, 3, 4, 5], device=device), x.cuda()
    )
    torch.save(picked, folder / "picked.tg")
    same(picked(x.cuda()), torch.load(folder / "picked.tg")(x))
    _, step = training_step("perceptron", "sgd", device)
    traced = torch.trace(step, ())
    torch.save(traced, folder / "there.tg")
    here = torch.load(folder / "there.tg")
    for _ in range(2):
        same(traced(), here(), 1e-4)


def state_across_devices(device: str, folder: Path) -> None:
    """Weights saved from a GPU load on a CPU, and the other way."""
    module = perceptron().to(device)
    torch.save(module.state_dict(), folder / "weights.tg")
    loaded = torch.load(folder / "weights.tg", map_location="cpu")
    other = perceptron()
    other.load_state_dict(loaded)
    for a, b in zip(module.parameters(), other.parameters(), strict=True):
        same(a, b)
    module.load_state_dict(other.state_dict())
    assert all(p.is_cuda for p in module.parameters())


def fine_tuning(device: str, folder: Path) -> None:
    """A loaded file is trained on the device as on the CPU, and called in a trace there."""
    module = convolutional().eval()
    x = NETWORKS["convolutional"][1]()
    torch.save(torch.trace(module, x), folder / "module.tg")
    found = []
    for place in (device, "cpu"):
        loaded = torch.load(folder / "module.tg", device=place)
        optimizer = torch.optim.SGD(loaded.parameters(), lr=0.1)
        here = x.to(place)
        for _ in range(2):
            optimizer.zero_grad()
            (loaded(here) ** 2).mean().backward()
            optimizer.step()
        whole = torch.trace(lambda x, loaded=loaded: loaded(x) * 2, here)
        found.append([whole(here).detach(), *(p.detach() for p in loaded.parameters())])
        assert all(t.is_cuda == (place != "cpu") for t in found[-1])
    for a, b in zip(*found, strict=True):
        same(a, b, 1e-3)


def samples(device: str, folder: Path) -> None:
    """Samples that were stored on the CPU agree on the device; a call of Python is made there."""
    from tests import host_functions

    def forward(x: Any) -> Any:
        y = torch.host_call(host_functions.median_filter, x[0], like=x[0])
        return (x @ y).softmax(-1), x.argmax(0)

    traced = torch.trace(forward, torch.tensor(numbers(4, 5)))
    torch.save(traced, folder / "samples.tg", samples=True)
    path = "tests.host_functions:median_filter"
    found = torch.verify_file(folder / "samples.tg", device=device, allow_host_calls=[path])
    assert found.passed, str(found)


PLAIN = (transfers, creation, random_numbers, mixed_devices, indexing, optimizers)
FILES = (trace_on_device, state_across_devices, fine_tuning, samples)
