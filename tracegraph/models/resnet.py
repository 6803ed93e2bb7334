"""Residual networks. He et al. 2015, arXiv:1512.03385; parameter names are torchvision's.

The stride of a bottleneck is in its 3×3 convolution, as in torchvision.
"""

from __future__ import annotations

from typing import Any, ClassVar

from tracegraph import nn
from tracegraph.eager.tensors import Tensor


def _conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)


def _conv1x1(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel_size=1, stride=stride, bias=False)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut."""

    expansion: ClassVar[int] = 1

    def __init__(self, inputs: int, width: int, stride: int = 1, downsample: Any = None) -> None:
        super().__init__()
        self.conv1 = _conv3x3(inputs, width, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = _conv3x3(width, width)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = downsample
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Return f[batch, width, height / stride, width / stride]."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        result: Tensor = self.relu(out + shortcut)
        return result


class Bottleneck(nn.Module):
    """A 1×1, a 3×3 and a 1×1 convolution beside a shortcut."""

    expansion: ClassVar[int] = 4

    def __init__(self, inputs: int, width: int, stride: int = 1, downsample: Any = None) -> None:
        super().__init__()
        self.conv1 = _conv1x1(inputs, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv3x3(width, width, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _conv1x1(width, width * self.expansion)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Return f[batch, 4 · width, height / stride, width / stride]."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        result: Tensor = self.relu(out + shortcut)
        return result


class ResNet(nn.Module):
    """A stem, four stages of blocks, a mean over the image and a linear map.

    `layers` is the number of blocks per stage; `zero_init_residual` starts every block as its
    shortcut.
    """

    def __init__(
        self, block: type[BasicBlock] | type[Bottleneck], layers: list[int],
        num_classes: int = 1000, zero_init_residual: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.inplanes = 64
        self.conv1 = nn.Conv2d(3, 64, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = self._stage(block, 64, layers[0], 1)
        self.layer2 = self._stage(block, 128, layers[1], 2)
        self.layer3 = self._stage(block, 256, layers[2], 2)
        self.layer4 = self._stage(block, 512, layers[3], 2)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(512 * block.expansion, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif zero_init_residual and isinstance(module, (BasicBlock, Bottleneck)):
                last = module.bn3 if isinstance(module, Bottleneck) else module.bn2
                nn.init.zeros_(last.weight)

    def _stage(
        self, block: type[BasicBlock] | type[Bottleneck], width: int, count: int, stride: int
    ) -> nn.Sequential:
        outputs = width * block.expansion
        downsample = None
        if stride != 1 or self.inplanes != outputs:
            downsample = nn.Sequential(
                _conv1x1(self.inplanes, outputs, stride), nn.BatchNorm2d(outputs)
            )
        blocks = [block(self.inplanes, width, stride, downsample)]
        self.inplanes = outputs
        blocks += [block(outputs, width) for _ in range(1, count)]
        return nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits f[batch, num_classes] of images f[batch, 3, height, width]."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits


def _resnet(block: Any, layers: list[int], weights: Any, options: dict[str, Any]) -> ResNet:
    if weights is not None:
        raise ValueError(
            "no weights are distributed with tracegraph; build the model and load_state_dict() a "
            "state dict with torchvision's names"
        )
    return ResNet(block, layers, **options)


def resnet18(*, weights: Any = None, progress: bool = True, **options: Any) -> ResNet:
    """Return ResNet-18.

    Raises:
        ValueError: `weights` are asked for.
    """
    return _resnet(BasicBlock, [2, 2, 2, 2], weights, options)


def resnet34(*, weights: Any = None, progress: bool = True, **options: Any) -> ResNet:
    """Return ResNet-34.

    Raises:
        ValueError: `weights` are asked for.
    """
    return _resnet(BasicBlock, [3, 4, 6, 3], weights, options)


def resnet50(*, weights: Any = None, progress: bool = True, **options: Any) -> ResNet:
    """Return ResNet-50.

    Raises:
        ValueError: `weights` are asked for.
    """
    return _resnet(Bottleneck, [3, 4, 6, 3], weights, options)
