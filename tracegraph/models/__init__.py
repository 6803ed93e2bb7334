"""Models to start from, with torchvision's parameter names; weights are drawn, not downloaded."""

from tracegraph.models.perceptron import mlp
from tracegraph.models.resnet import (
    BasicBlock,
    Bottleneck,
    ResNet,
    resnet18,
    resnet34,
    resnet50,
)

__all__ = ["BasicBlock", "Bottleneck", "ResNet", "mlp", "resnet18", "resnet34", "resnet50"]
