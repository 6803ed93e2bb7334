"""Models: torchvision's names and sizes, values against the same source run over PyTorch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tracegraph as tg
from tests.nn_oracle import compare, copy_weights, draw
from tracegraph import models

# Parameters in all, as torchvision's documentation lists them.
SIZES = {"resnet18": 11_689_512, "resnet34": 21_797_672, "resnet50": 25_557_032}
NAMES = {
    "resnet18": ["conv1.weight", "bn1.running_mean", "layer1.0.conv1.weight", "layer1.1.bn2.bias",
                 "layer2.0.downsample.0.weight", "layer4.1.bn2.num_batches_tracked", "fc.weight"],
    "resnet34": ["layer3.5.conv2.weight", "layer2.3.bn1.weight"],
    "resnet50": ["layer1.0.downsample.1.running_var", "layer4.2.conv3.weight", "layer3.5.bn3.bias"],
}  # fmt: skip


@pytest.mark.parametrize("name", SIZES)
def test_sizes_and_names_are_torchvisions(name: str) -> None:
    net = getattr(models, name)()
    assert sum(p.numel() for p in net.parameters()) == SIZES[name]
    assert set(NAMES[name]) <= set(net.state_dict())
    with pytest.raises(ValueError, match="no weights"):
        getattr(models, name)(weights="DEFAULT")


def over_pytorch() -> dict[str, Any]:
    """Return the names that the source of our ResNets defines when it runs over PyTorch."""
    source = Path(models.resnet.__file__).read_text(encoding="utf-8")
    source = re.sub(r"from tracegraph import nn", "from torch import nn", source)
    source = re.sub(r"from tracegraph.eager.tensors", "from torch", source)
    names: dict[str, Any] = {"__name__": "resnet_over_pytorch"}
    exec(compile(source, "resnet_over_pytorch", "exec"), names)
    return names


@pytest.mark.oracle
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("block", ["BasicBlock", "Bottleneck"])
def test_values_and_gradients_are_pytorchs(block: str, training: bool) -> None:
    """In float64: in float32 a ReLU's input within rounding of 0 moves gradients by percents."""
    theirs = over_pytorch()
    layers, options = [1, 1, 2, 1], {"num_classes": 7, "zero_init_residual": block == "Bottleneck"}
    yours = theirs["ResNet"](theirs[block], layers, **options).double()
    ours = models.ResNet(getattr(models, block), layers, **options).double()
    assert repr(ours) == repr(yours)
    copy_weights(yours, ours)
    x = draw((3, 3, 40, 48)).detach().double().requires_grad_()
    compare(ours.train(training), yours.train(training), (x,), 1e-8)


def test_a_perceptron() -> None:
    net = models.mlp(4, 8, 3, activation=tg.nn.Tanh)
    assert re.sub(r"\s+", " ", repr(net)).count("Linear") == 2
    assert net(tg.ones(5, 4)).shape == (5, 3)
    with pytest.raises(ValueError, match="input and an output size"):
        models.mlp(3)


def test_a_resnet_can_be_traced() -> None:
    net = models.ResNet(models.BasicBlock, [1, 1, 1, 1], num_classes=3).eval()
    traced = tg.trace(net, (draw((1, 3, 32, 32)).detach(),))
    x = draw((1, 3, 32, 32), 4).detach()
    np.testing.assert_allclose(
        traced(x).detach().numpy(), net(x).detach().numpy(), rtol=1e-4, atol=1e-5
    )
    assert "layer2.0.downsample.0.weight" in {n.attrs["name"] for n in traced.graph.states.values()}
