"""The programs that are timed and compared, written against PyTorch's names.

`build(torch, name)` makes one with the library given as `torch`: PyTorch itself or tracegraph.
Weights and inputs are the same numbers in both. `small=True` shrinks a program for the tests
without changing which operations it runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import cycle, pairwise
from typing import Any

import numpy as np

VARIANTS = 4
"""Input sets that a forward program is called with in turn: no call repeats the one before."""


@dataclass(frozen=True)
class Workload:
    """A program: `step()` runs it once; a forward one also has its module and its inputs."""

    name: str
    step: Callable[[], Any]
    module: Any = None
    inputs: tuple[Any, ...] = ()
    variants: tuple[tuple[Any, ...], ...] = ()
    optimizer: Any = None
    target: Any = None
    parameters: Callable[[], Iterator[Any]] = field(default=lambda: iter(()))

    @property
    def trains(self) -> bool:
        """Whether a step updates weights."""
        return self.optimizer is not None

    def calling(self, function: Callable[..., Any]) -> Callable[[], Any]:
        """Return a step that calls `function` with the input sets in turn."""
        ring = cycle(self.variants)
        return lambda: function(*next(ring))


def numbers(seed: int = 11) -> np.random.RandomState:
    """Return the source of the numbers of a program."""
    return np.random.RandomState(seed)


def floats(random: np.random.RandomState, *shape: int) -> Any:
    """Return float32 numbers of a shape."""
    return random.standard_normal(shape).astype(np.float32)


def fill(torch: Any, module: Any, seed: int = 23) -> Any:
    """Give every parameter its numbers, drawn in order, scaled to keep activations near 1."""
    random = numbers(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            shape = tuple(parameter.shape)
            width = shape[-1] if len(shape) > 1 else 10
            parameter.copy_(torch.tensor(floats(random, *shape) / np.float32(math.sqrt(width))))
    return module


def perceptron(torch: Any, widths: tuple[int, ...]) -> Any:
    """Linear layers with relu between them."""
    nn, layers = torch.nn, []
    for wide, narrow in pairwise(widths):
        layers += [nn.Linear(wide, narrow), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def small_cnn(torch: Any, channels: int) -> Any:
    """Two convolutions with pooling and two linear layers, for images of 28 x 28."""
    nn = torch.nn
    return nn.Sequential(
        nn.Conv2d(1, channels, kernel_size=3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(channels, 2 * channels, kernel_size=3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(2 * channels * 49, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip


def resnet18(torch: Any, width: int, classes: int) -> Any:
    """The 18-layer residual network of He et al. 2015 (arXiv:1512.03385)."""
    nn = torch.nn

    def normed(inner: int, outer: int, kernel: int, stride: int) -> list[Any]:
        pad = kernel // 2
        conv = nn.Conv2d(inner, outer, kernel, stride=stride, padding=pad, bias=False)
        return [conv, nn.BatchNorm2d(outer)]

    class Residual(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self, inner: int, outer: int, stride: int) -> None:
            super().__init__()
            self.main = nn.Sequential(
                *normed(inner, outer, 3, stride), nn.ReLU(), *normed(outer, outer, 3, 1)
            )
            same = stride == 1 and inner == outer
            self.skip = nn.Identity() if same else nn.Sequential(*normed(inner, outer, 1, stride))

        def forward(self, x: Any) -> Any:
            return torch.relu(self.main(x) + self.skip(x))

    stages, inner = [], width
    for stage in range(4):
        outer = width << stage
        stages += [Residual(inner, outer, 1 if stage == 0 else 2), Residual(outer, outer, 1)]
        inner = outer
    return nn.Sequential(
        *normed(3, width, 7, 2), nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1), *stages,
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inner, classes),
    )  # fmt: skip


def gpt(torch: Any, depth: int, width: int, heads: int, words: int, span: int) -> Any:
    """A decoder of pre-normed blocks of causal attention (as GPT-2, Radford et al. 2019)."""
    nn = torch.nn

    class Block(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
            self.mix, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
            self.register_buffer("past", torch.tril(torch.ones(span, span)).view(1, 1, span, span))

        def attend(self, x: Any) -> Any:
            batch, length, _ = x.shape
            query, key, value = (
                part.view(batch, length, heads, width // heads).transpose(1, 2)
                for part in self.mix(x).split(width, dim=2)
            )
            score = query @ key.transpose(-2, -1) / math.sqrt(width // heads)
            hidden = self.past[:, :, :length, :length] == 0
            weight = torch.nn.functional.softmax(score.masked_fill(hidden, -math.inf), dim=-1)
            joined = (weight @ value).transpose(1, 2).contiguous().view(batch, length, width)
            return self.out(joined)

        def forward(self, x: Any) -> Any:
            x = x + self.attend(self.before(x))
            return x + self.narrow(torch.nn.functional.gelu(self.wide(self.between(x))))

    class Decoder(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.word = nn.Embedding(words, width)
            self.place = nn.Parameter(torch.zeros(1, span, width))
            self.blocks = nn.ModuleList([Block() for _ in range(depth)])
            self.last = nn.LayerNorm(width)
            self.head = nn.Linear(width, words, bias=False)

        def forward(self, tokens: Any) -> Any:
            x = self.word(tokens) + self.place[:, : tokens.shape[1]]
            for block in self.blocks:
                x = block(x)
            return self.head(self.last(x))

    return Decoder()


def recurrent(torch: Any, inner: int, hidden: int) -> Any:
    """An LSTM and a linear layer on its last step."""
    nn = torch.nn

    class Last(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(inner, hidden, batch_first=True)
            self.out = nn.Linear(hidden, 10)

        def forward(self, x: Any) -> Any:
            steps, _ = self.lstm(x)
            return self.out(steps[:, -1])

    return Last()


def function_module(torch: Any, function: Callable[..., Any]) -> Any:
    """Return a function as a module without parameters."""

    class Wrapped(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, *inputs: Any) -> Any:
            return function(*inputs)

    return Wrapped()


def _gates(torch: Any) -> Callable[..., Any]:
    def gates(x: Any, y: Any, z: Any) -> Any:
        u = x * y + z
        return torch.tanh(u) * torch.sigmoid(u) + torch.exp(-u * u) * 0.5

    return gates


def _normed_softmax(torch: Any, width: int) -> Any:
    class Normed(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.norm = torch.nn.LayerNorm(width)

        def forward(self, x: Any) -> Any:
            return torch.nn.functional.softmax(self.norm(x) * 2.0, dim=-1)

    return Normed()


def timed_forward(torch: Any, name: str, module: Any, arrays: tuple[Any, ...]) -> Workload:
    """Return the program that runs a module on variations of some arrays in turn."""
    module.eval()

    def varied(array: Any, k: int) -> Any:
        if array.dtype.kind == "i":
            return torch.tensor(np.roll(array, k, -1))
        return torch.tensor((array * np.float32(1 + 0.01 * k)).astype(array.dtype))

    variants = tuple(tuple(varied(a, k) for a in arrays) for k in range(VARIANTS))

    def quiet(*inputs: Any) -> Any:
        with torch.no_grad():
            return module(*inputs)

    made = Workload(name, quiet, module, variants[0], variants, parameters=module.parameters)
    return Workload(
        name, made.calling(quiet), module, variants[0], variants, parameters=module.parameters
    )


def _training(torch: Any, name: str, module: Any, x: Any, labels: Any) -> Workload:
    criterion = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3, momentum=0.9)
    x, labels = torch.tensor(x), torch.tensor(labels)

    def step() -> Any:
        optimizer.zero_grad()
        made = module(x)
        loss = criterion(made.reshape(-1, made.shape[-1]), labels)
        loss.backward()
        optimizer.step()
        return loss

    return Workload(
        name, step, module, (x,), ((x,),), optimizer, labels, parameters=module.parameters
    )  # fmt: skip


def _tiny_adds(torch: Any, count: int) -> Workload:
    random = numbers()
    start, more = (torch.tensor(floats(random, 8)) for _ in range(2))

    def step() -> Any:
        with torch.no_grad():
            x = start
            for _ in range(count):
                x = x + more
        return x

    return Workload("eager_add", step)


def _tiny_gradient(torch: Any, count: int) -> Workload:
    random = numbers()
    leaf = torch.tensor(floats(random, 8), requires_grad=True)
    factor = torch.tensor(floats(random, 8))

    def step() -> Any:
        x = leaf
        for _ in range(count):
            x = (x * factor + leaf).tanh()
        leaf.grad = None
        x.sum().backward()
        return leaf.grad

    return Workload("eager_grad", step, parameters=lambda: iter((leaf,)))


def _gpt_sizes(small: bool) -> dict[str, int]:
    if small:
        return {"depth": 2, "width": 16, "heads": 2, "words": 40, "span": 12}
    return {"depth": 2, "width": 256, "heads": 8, "words": 512, "span": 128}


def _pointwise(torch: Any, name: str, size: int) -> Workload:
    random = numbers()
    arrays = tuple(floats(random, size) for _ in range(3))
    return timed_forward(torch, name, function_module(torch, _gates(torch)), arrays)


def _mlp(torch: Any, name: str, batch: int, small: bool) -> Workload:
    widths = (32, 24, 16, 10) if small else (784, 512, 256, 10)
    random, module = numbers(), fill(torch, perceptron(torch, widths))
    x = floats(random, batch, widths[0])
    if name.startswith("train"):
        return _training(torch, name, module, x, random.randint(0, 10, batch).astype(np.int64))
    return timed_forward(torch, name, module, (x,))


def _gpt(torch: Any, name: str, batch: int, small: bool) -> Workload:
    sizes, random = _gpt_sizes(small), numbers()
    module = fill(torch, gpt(torch, **sizes))
    tokens = random.randint(0, sizes["words"], (batch, sizes["span"])).astype(np.int64)
    if name.startswith("train"):
        wanted = random.randint(0, sizes["words"], tokens.size).astype(np.int64)
        return _training(torch, name, module, tokens, wanted)
    return timed_forward(torch, name, module, (tokens,))


def _resnet(torch: Any, small: bool) -> Workload:
    module = fill(torch, resnet18(torch, 4 if small else 64, 10 if small else 1000))
    side = 33 if small else 224
    return timed_forward(torch, "resnet18", module, (floats(numbers(), 1, 3, side, side),))


def _lstm(torch: Any, small: bool) -> Workload:
    inner, hidden, steps = (6, 8, 5) if small else (64, 128, 64)
    module = fill(torch, recurrent(torch, inner, hidden))
    return timed_forward(torch, "lstm", module, (floats(numbers(), 8, steps, inner),))


def _train_cnn(torch: Any, small: bool) -> Workload:
    random, batch = numbers(), 3 if small else 32
    module = fill(torch, small_cnn(torch, 4 if small else 32))
    x = floats(random, batch, 1, 28, 28)
    return _training(torch, "train_cnn", module, x, random.randint(0, 10, batch).astype(np.int64))


def _rows(torch: Any, small: bool) -> Workload:
    rows, width = (6, 20) if small else (4096, 1024)
    module = fill(torch, _normed_softmax(torch, width))
    return timed_forward(torch, "ln_softmax", module, (floats(numbers(), rows, width),))


_BUILDERS: dict[str, Callable[[Any, bool], Workload]] = {
    "eager_add": lambda torch, small: _tiny_adds(torch, 20 if small else 1000),
    "eager_grad": lambda torch, small: _tiny_gradient(torch, 10 if small else 100),
    "pointwise_4k": lambda torch, small: _pointwise(torch, "pointwise_4k", 4096),
    "pointwise_4m": lambda torch, small: _pointwise(
        torch, "pointwise_4m", 99 if small else 1 << 22
    ),
    "ln_softmax": _rows,
    "mlp_b1": lambda torch, small: _mlp(torch, "mlp_b1", 1, small),
    "mlp_b64": lambda torch, small: _mlp(torch, "mlp_b64", 5 if small else 64, small),
    "resnet18": _resnet,
    "gpt": lambda torch, small: _gpt(torch, "gpt", 1, small),
    "lstm": _lstm,
    "train_mlp": lambda torch, small: _mlp(torch, "train_mlp", 5 if small else 64, small),
    "train_cnn": _train_cnn,
    "train_gpt": lambda torch, small: _gpt(torch, "train_gpt", 2 if small else 4, small),
}  # fmt: skip
NAMES = tuple(_BUILDERS)
EAGER_ONLY = frozenset(("eager_add", "eager_grad"))
"""Programs that time eager calls: they are no function of inputs."""


def build(torch: Any, name: str, small: bool = False) -> Workload:
    """Return a program made with the library `torch`."""
    return _BUILDERS[name](torch, small)
