"""Other models than the programs of `tests/workloads.py`: what is tuned for these alone shows here.

`build(torch, name)` makes one with the library given as `torch`; `small` shrinks it for the tests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.workloads import Workload, fill, floats, numbers, perceptron, timed_forward


def separable(torch: Any, width: int, stages: int) -> Any:
    """Depthwise and pointwise convolutions in turn (as MobileNet, Howard et al. 2017)."""
    nn = torch.nn

    def normed(inner: int, outer: int, **options: Any) -> list[Any]:
        conv = nn.Conv2d(inner, outer, bias=False, **options)
        return [conv, nn.BatchNorm2d(outer), nn.ReLU6()]

    layers = normed(3, width, kernel_size=3, stride=2, padding=1)
    for stage in range(stages):
        outer = width if stage % 2 else 2 * width
        options = {"kernel_size": 3, "stride": 1 + stage % 2, "padding": 1, "groups": width}
        layers += normed(width, width, **options) + normed(width, outer, kernel_size=1)
        width = outer
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 100))


def unet(torch: Any, width: int, depth: int) -> Any:
    """Convolutions down and up again, with what they had on the way down beside them."""
    nn = torch.nn

    def pair(inner: int, outer: int) -> Any:
        return nn.Sequential(
            nn.Conv2d(inner, outer, 3, padding=1), nn.ReLU(),
            nn.Conv2d(outer, outer, 3, padding=1), nn.ReLU(),
        )  # fmt: skip

    class Net(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            widths = [width << i for i in range(depth + 1)]
            self.down = nn.ModuleList(
                [pair(a, b) for a, b in zip([3, *widths], widths, strict=False)]
            )
            self.up = nn.ModuleList(
                [nn.ConvTranspose2d(2 * w, w, 2, stride=2) for w in widths[-2::-1]]
            )
            self.join = nn.ModuleList([pair(2 * w, w) for w in widths[-2::-1]])
            self.pool, self.out = nn.MaxPool2d(2), nn.Conv2d(width, 2, 1)

        def forward(self, x: Any) -> Any:
            kept = []
            for number, block in enumerate(self.down):
                x = block(self.pool(x) if number else x)
                kept.append(x)
            for up, join, beside in zip(self.up, self.join, kept[-2::-1], strict=True):
                x = join(torch.cat([up(x), beside], dim=1))
            return self.out(x)

    return Net()


def vit(torch: Any, side: int, patch: int, width: int, depth: int, heads: int) -> Any:
    """A transformer over patches of an image (as Dosovitskiy et al. 2020, arXiv:2010.11929)."""
    nn = torch.nn

    class Block(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
            self.mix, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x: Any) -> Any:
            batch, length, _ = x.shape
            mixed = self.mix(self.before(x)).view(batch, length, 3, heads, width // heads)
            q, k, v = mixed.permute(2, 0, 3, 1, 4).unbind(0)
            joined = torch.nn.functional.scaled_dot_product_attention(q, k, v)
            x = x + self.out(joined.transpose(1, 2).reshape(batch, length, width))
            return x + self.narrow(torch.nn.functional.gelu(self.wide(self.between(x))))

    class Net(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(3, width, patch, stride=patch)
            self.first = nn.Parameter(torch.zeros(1, 1, width))
            self.place = nn.Parameter(torch.zeros(1, 1 + (side // patch) ** 2, width))
            self.blocks = nn.Sequential(*(Block() for _ in range(depth)))
            self.last, self.head = nn.LayerNorm(width), nn.Linear(width, 100)

        def forward(self, x: Any) -> Any:
            x = self.patches(x).flatten(2).transpose(1, 2)
            x = torch.cat([self.first.expand(x.shape[0], -1, -1), x], dim=1) + self.place
            return self.head(self.last(self.blocks(x))[:, 0])

    return Net()


def gated(torch: Any, inner: int, hidden: int) -> Any:
    """Two layers of GRU, and a linear layer on the mean of their steps."""
    nn = torch.nn

    class Net(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(inner, hidden, num_layers=2, batch_first=True)
            self.out = nn.Linear(hidden, 11)

        def forward(self, x: Any) -> Any:
            return self.out(self.gru(x)[0].mean(dim=1))

    return Net()


def grouped(torch: Any, width: int, blocks: int) -> Any:
    """Bottlenecks around convolutions in groups of four channels (as ResNeXt, Xie et al. 2017)."""
    nn = torch.nn

    class Block(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self, outer: int) -> None:
            super().__init__()
            self.main = nn.Sequential(
                nn.Conv2d(outer, width, 1), nn.ReLU(),
                nn.Conv2d(width, width, 3, padding=1, groups=width // 4), nn.ReLU(),
                nn.Conv2d(width, outer, 1),
            )  # fmt: skip

        def forward(self, x: Any) -> Any:
            return torch.relu(x + self.main(x))

    return nn.Sequential(nn.Conv2d(3, 2 * width, 7, stride=4, padding=3), nn.ReLU(), *(
        Block(2 * width) for _ in range(blocks)
    ))  # fmt: skip


def convnext(torch: Any, width: int, blocks: int) -> Any:
    """Wide depthwise windows, and a perceptron on each pixel (as ConvNeXt, Liu et al. 2022)."""
    nn = torch.nn

    class Block(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.deep = nn.Conv2d(width, width, 7, padding=3, groups=width)
            self.norm = nn.LayerNorm(width)
            self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x: Any) -> Any:
            y = self.norm(self.deep(x).permute(0, 2, 3, 1))
            y = self.narrow(torch.nn.functional.gelu(self.wide(y)))
            return x + y.permute(0, 3, 1, 2)

    return nn.Sequential(nn.Conv2d(3, width, 4, stride=4), *(Block() for _ in range(blocks)))


def temporal(torch: Any, inner: int, width: int, levels: int) -> Any:
    """Causal convolutions over time, further and further apart (Bai et al. 2018)."""
    nn = torch.nn

    class Block(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self, inner: int, apart: int) -> None:
            super().__init__()
            self.cut = 6 * apart
            options = {"padding": self.cut, "dilation": apart}
            self.first = nn.Conv1d(inner, width, 7, **options)
            self.second = nn.Conv1d(width, width, 7, **options)
            self.skip = nn.Conv1d(inner, width, 1)

        def forward(self, x: Any) -> Any:
            y = torch.relu(self.first(x)[:, :, : -self.cut])
            return torch.relu(self.second(y)[:, :, : -self.cut] + self.skip(x))

    return nn.Sequential(*(Block(width if i else inner, 1 << i) for i in range(levels)))


def encoder(torch: Any, width: int, heads: int, depth: int) -> Any:
    """A Transformer encoder of the library's own layers."""
    nn = torch.nn
    layer = nn.TransformerEncoderLayer(width, heads, 4 * width, dropout=0.0, batch_first=True)
    return nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)


def mixer(torch: Any, tokens: int, width: int, depth: int) -> Any:
    """Perceptrons across tokens and across channels in turn (Tolstikhin et al. 2021)."""
    nn = torch.nn

    def mlp(size: int) -> Any:
        return nn.Sequential(nn.Linear(size, 4 * size), nn.GELU(), nn.Linear(4 * size, size))

    class Block(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
            self.across, self.along = mlp(tokens), mlp(width)

        def forward(self, x: Any) -> Any:
            x = x + self.across(self.before(x).transpose(1, 2)).transpose(1, 2)
            return x + self.along(self.between(x))

    return nn.Sequential(*(Block() for _ in range(depth)))


def autoencoder(torch: Any, width: int) -> Any:
    """Convolutions with strides down, transposed ones up again."""
    nn = torch.nn
    halved = {"kernel_size": 4, "stride": 2, "padding": 1}
    return nn.Sequential(
        nn.Conv2d(3, width, **halved), nn.ReLU(), nn.Conv2d(width, 2 * width, **halved), nn.ReLU(),
        nn.ConvTranspose2d(2 * width, width, **halved), nn.ReLU(),
        nn.ConvTranspose2d(width, 3, **halved), nn.Sigmoid(),
    )  # fmt: skip


def _image(batch: int, side: int) -> tuple[Any, ...]:
    return (floats(numbers(), batch, 3, side, side),)


def _odd(torch: Any, small: bool) -> tuple[Any, tuple[Any, ...]]:
    widths = (13, 7, 5) if small else (123, 457, 251, 19)
    return perceptron(torch, widths), (floats(numbers(), 3 if small else 37, widths[0]),)


def _separable(torch: Any, small: bool) -> tuple[Any, tuple[Any, ...]]:
    return (separable(torch, 4, 3), _image(1, 17)) if small else (
        separable(torch, 32, 7), _image(1, 160)
    )  # fmt: skip


def _unet(torch: Any, small: bool) -> tuple[Any, tuple[Any, ...]]:
    return (unet(torch, 4, 2), _image(1, 12)) if small else (unet(torch, 16, 3), _image(1, 96))


def _vit(torch: Any, small: bool) -> tuple[Any, tuple[Any, ...]]:
    if small:
        return vit(torch, 16, 8, 12, 2, 3), _image(2, 16)
    return vit(torch, 112, 16, 192, 4, 3), _image(4, 112)


def _gated(torch: Any, small: bool) -> tuple[Any, tuple[Any, ...]]:
    batch, steps, inner, hidden = (2, 4, 5, 6) if small else (16, 50, 40, 96)
    return gated(torch, inner, hidden), (floats(numbers(), batch, steps, inner),)


def _grouped(torch: Any, small: bool) -> tuple[Any, tuple[Any, ...]]:
    return (grouped(torch, 8, 1), _image(1, 17)) if small else (
        grouped(torch, 128, 3), _image(1, 160)
    )  # fmt: skip


def _convnext(torch: Any, small: bool) -> tuple[Any, tuple[Any, ...]]:
    return (convnext(torch, 8, 1), _image(1, 20)) if small else (
        convnext(torch, 96, 2), _image(1, 160)
    )  # fmt: skip


def _temporal(torch: Any, small: bool) -> tuple[Any, tuple[Any, ...]]:
    batch, inner, width, levels, steps = (1, 2, 5, 2, 30) if small else (8, 1, 25, 4, 400)
    return temporal(torch, inner, width, levels), (floats(numbers(), batch, inner, steps),)


def _encoder(torch: Any, small: bool) -> tuple[Any, tuple[Any, ...]]:
    batch, steps, width, heads, depth = (2, 3, 8, 2, 1) if small else (8, 64, 256, 4, 2)
    return encoder(torch, width, heads, depth), (floats(numbers(), batch, steps, width),)


def _mixer(torch: Any, small: bool) -> tuple[Any, tuple[Any, ...]]:
    batch, tokens, width, depth = (1, 5, 7, 1) if small else (4, 49, 128, 3)
    return mixer(torch, tokens, width, depth), (floats(numbers(), batch, tokens, width),)


def _autoencoder(torch: Any, small: bool) -> tuple[Any, tuple[Any, ...]]:
    return (autoencoder(torch, 4), _image(1, 12)) if small else (
        autoencoder(torch, 32), _image(4, 64)
    )  # fmt: skip


_BUILDERS: dict[str, Callable[[Any, bool], tuple[Any, tuple[Any, ...]]]] = {
    "odd_mlp": _odd,
    "separable": _separable,
    "unet": _unet,
    "vit": _vit,
    "gru": _gated,
    "resnext": _grouped,
    "convnext": _convnext,
    "tcn": _temporal,
    "encoder": _encoder,
    "mixer": _mixer,
    "autoencoder": _autoencoder,
}
NAMES = tuple(_BUILDERS)


def build(torch: Any, name: str, small: bool = False) -> Workload:
    """Return a model made with the library `torch`, its numbers the same with any."""
    module, arrays = _BUILDERS[name](torch, small)
    return timed_forward(torch, name, fill(torch, module), arrays)
