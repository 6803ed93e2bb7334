"""Layers against PyTorch's: text, state dicts, outputs, gradients, buffers."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

import tracegraph as tg
from tests.nn_oracle import compare, draw, pair, translated

WORDS = np.array([[1, 2, 4, 0], [3, 3, 0, 1]])
CLASSES = np.array([1, 0, 3])
SIGNS = np.array([1.0, -1.0, 1.0], dtype=np.float32)
ONES = np.array([[1, 0, 1], [0, 0, 1]], dtype=np.float32)
IMAGE, CUBE, SIGNAL = (2, 4, 6, 5), (2, 4, 4, 5, 3), (2, 4, 7)

# name, constructor arguments, keywords, inputs (a shape is drawn; an array is given).
CASES: list[tuple[str, tuple[Any, ...], dict[str, Any], tuple[Any, ...]]] = [
    ("Identity", (54,), {"unused": 1}, ((2, 3),)),
    ("Linear", (3, 4), {}, ((2, 3),)),
    ("Linear", (3, 4), {"bias": False}, ((2, 5, 3),)),
    ("Bilinear", (3, 4, 2), {}, ((5, 3), (5, 4))),
    ("Bilinear", (3, 4, 2), {"bias": False}, ((5, 3), (5, 4))),
    ("Conv1d", (4, 6, 3), {}, (SIGNAL,)),
    ("Conv1d", (4, 6, 3), {"padding": "same", "dilation": 2, "groups": 2}, (SIGNAL,)),
    ("Conv1d", (4, 6, 4), {"padding": "valid", "bias": False}, ((4, 7),)),
    ("Conv2d", (4, 6, 3), {"stride": 2, "padding": 1}, (IMAGE,)),
    ("Conv2d", (4, 6, (3, 2)), {"padding": (1, 2), "padding_mode": "circular"}, (IMAGE,)),
    ("Conv2d", (4, 6, 4), {"padding": "same", "padding_mode": "reflect"}, (IMAGE,)),
    ("Conv2d", (4, 8, 3), {"padding": 1, "padding_mode": "replicate", "groups": 4}, (IMAGE,)),
    ("Conv3d", (4, 2, 2), {"stride": (1, 2, 1)}, (CUBE,)),
    ("ConvTranspose1d", (4, 2, 3), {"stride": 2}, (SIGNAL,)),
    ("ConvTranspose2d", (4, 6, 3), {"stride": 2, "padding": 1, "output_padding": 1}, (IMAGE,)),
    ("ConvTranspose2d", (4, 6, 3), {"groups": 2, "dilation": 2, "bias": False}, (IMAGE,)),
    ("ConvTranspose3d", (4, 2, 2), {}, (CUBE,)),
    ("Embedding", (5, 3), {}, (WORDS,)),
    ("Embedding", (5, 3), {"padding_idx": -2}, (WORDS,)),
    ("Embedding", (5, 3), {"padding_idx": 1, "max_norm": 0.5, "norm_type": 1.0}, (WORDS,)),
    ("Embedding", (5, 3), {"scale_grad_by_freq": True}, (WORDS,)),
    ("EmbeddingBag", (5, 3), {"mode": "sum"}, (WORDS,)),
    ("EmbeddingBag", (5, 3), {"padding_idx": 1}, (WORDS,)),
    ("EmbeddingBag", (5, 3), {"mode": "max"}, (WORDS.ravel(), np.array([0, 3, 5]))),
    ("BatchNorm1d", (4,), {}, ((3, 4),)),
    ("BatchNorm1d", (4,), {"affine": False}, (SIGNAL,)),
    ("BatchNorm2d", (4,), {"momentum": None}, (IMAGE,)),
    ("BatchNorm2d", (4,), {"track_running_stats": False, "eps": 0.1}, (IMAGE,)),
    ("BatchNorm2d", (4,), {"bias": False}, (IMAGE,)),
    ("BatchNorm3d", (4,), {"momentum": 0.3}, (CUBE,)),
    ("InstanceNorm1d", (4,), {}, (SIGNAL,)),
    ("InstanceNorm2d", (4,), {"affine": True, "track_running_stats": True}, (IMAGE,)),
    ("InstanceNorm3d", (4,), {"affine": True}, (CUBE,)),
    ("LayerNorm", (5,), {}, (IMAGE,)),
    ("LayerNorm", ((6, 5),), {"bias": False, "eps": 0.1}, (IMAGE,)),
    ("LayerNorm", ([6, 5],), {"elementwise_affine": False}, (IMAGE,)),
    ("RMSNorm", (5,), {}, (IMAGE,)),
    ("RMSNorm", ((6, 5),), {"eps": 0.1, "elementwise_affine": False}, (IMAGE,)),
    ("GroupNorm", (2, 4), {}, (IMAGE,)),
    ("GroupNorm", (2, 4), {"affine": False}, (SIGNAL,)),
    ("GroupNorm", (2, 4), {"bias": False}, (SIGNAL,)),
    ("LocalResponseNorm", (3,), {"alpha": 0.1}, (IMAGE,)),
    ("Flatten", (), {}, (IMAGE,)),
    ("Flatten", (0, 2), {}, (IMAGE,)),
    ("Unflatten", (1, (2, 2)), {}, (IMAGE,)),
    ("Fold", ((4, 5), (2, 2)), {}, ((2, 8, 12),)),
    ("Unfold", ((2, 3),), {"padding": 1, "stride": 2}, (IMAGE,)),
    ("PixelShuffle", (2,), {}, (IMAGE,)),
    ("PixelUnshuffle", (2,), {}, ((2, 1, 6, 4),)),
    ("ChannelShuffle", (2,), {}, (IMAGE,)),
    ("Upsample", (), {"scale_factor": 2}, (IMAGE,)),
    ("Upsample", (), {"size": (9, 4), "mode": "bilinear", "align_corners": True}, (IMAGE,)),
    ("Upsample", (), {"scale_factor": (2, 3), "mode": "bicubic"}, (IMAGE,)),
    ("UpsamplingNearest2d", (), {"scale_factor": 2}, (IMAGE,)),
    ("UpsamplingBilinear2d", (), {"size": (4, 9)}, (IMAGE,)),
    ("MaxPool1d", (3,), {}, (SIGNAL,)),
    ("MaxPool2d", (2,), {"return_indices": True}, (IMAGE,)),
    ("MaxPool2d", ((3, 2),), {"stride": 1, "padding": 1, "ceil_mode": True}, (IMAGE,)),
    ("MaxPool3d", (2,), {"dilation": (1, 2, 1)}, (CUBE,)),
    ("AvgPool1d", (3,), {"padding": 1, "count_include_pad": False}, (SIGNAL,)),
    ("AvgPool2d", (2,), {"divisor_override": 3}, (IMAGE,)),
    ("AvgPool3d", (2,), {"stride": 1}, (CUBE,)),
    ("LPPool1d", (2, 3), {}, (SIGNAL,)),
    ("LPPool2d", (3, 2), {"ceil_mode": True}, (np.abs(np.ones(IMAGE, np.float32)),)),
    ("AdaptiveAvgPool1d", (3,), {}, (SIGNAL,)),
    ("AdaptiveAvgPool2d", ((None, 2),), {}, (IMAGE,)),
    ("AdaptiveAvgPool3d", (2,), {}, (CUBE,)),
    ("AdaptiveMaxPool1d", (3,), {}, (SIGNAL,)),
    ("AdaptiveMaxPool2d", ((3, 2),), {"return_indices": True}, (IMAGE,)),
    ("AdaptiveMaxPool3d", (2,), {}, (CUBE,)),
    ("ZeroPad1d", (1,), {}, (SIGNAL,)),
    ("ZeroPad2d", ((1, 0, 2, 1),), {}, (IMAGE,)),
    ("ZeroPad3d", (1,), {}, (CUBE,)),
    ("ConstantPad1d", (2, 1.5), {}, (SIGNAL,)),
    ("ConstantPad2d", (1, -1.0), {}, (IMAGE,)),
    ("ConstantPad3d", (1, 0.5), {}, (CUBE,)),
    ("ReflectionPad1d", ((2, 1),), {}, (SIGNAL,)),
    ("ReflectionPad2d", (2,), {}, (IMAGE,)),
    ("ReflectionPad3d", (1,), {}, (CUBE,)),
    ("ReplicationPad1d", (3,), {}, (SIGNAL,)),
    ("ReplicationPad2d", ((1, 0, 2, 1),), {}, (IMAGE,)),
    ("ReplicationPad3d", (1,), {}, (CUBE,)),
    ("CircularPad1d", (2,), {}, (SIGNAL,)),
    ("CircularPad2d", (1,), {}, (IMAGE,)),
    ("CircularPad3d", (1,), {}, (CUBE,)),
    ("ReLU", (), {}, ((3, 4),)),
    ("ReLU6", (), {}, ((3, 4),)),
    ("SiLU", (), {}, ((3, 4),)),
    ("Mish", (), {}, ((3, 4),)),
    ("Hardswish", (), {}, ((3, 4),)),
    ("Hardsigmoid", (), {}, ((3, 4),)),
    ("SELU", (), {}, ((3, 4),)),
    ("Sigmoid", (), {}, ((3, 4),)),
    ("Tanh", (), {}, ((3, 4),)),
    ("LogSigmoid", (), {}, ((3, 4),)),
    ("Softsign", (), {}, ((3, 4),)),
    ("Tanhshrink", (), {}, ((3, 4),)),
    ("GELU", (), {}, ((3, 4),)),
    ("GELU", ("tanh",), {}, ((3, 4),)),
    ("ELU", (0.7,), {}, ((3, 4),)),
    ("CELU", (0.7,), {}, ((3, 4),)),
    ("LeakyReLU", (0.2,), {}, ((3, 4),)),
    ("Hardtanh", (-0.5, 0.7), {}, ((3, 4),)),
    ("Threshold", (0.1, 20.0), {}, ((3, 4),)),
    ("Softplus", (2.0, 1.0), {}, ((3, 4),)),
    ("Hardshrink", (0.3,), {}, ((3, 4),)),
    ("Softshrink", (0.3,), {}, ((3, 4),)),
    ("PReLU", (), {}, ((3, 4),)),
    ("PReLU", (4,), {"init": 0.1}, (IMAGE,)),
    ("GLU", (1,), {}, ((3, 4),)),
    ("Softmax", (1,), {}, ((3, 4),)),
    ("Softmin", (0,), {}, ((3, 4),)),
    ("LogSoftmax", (-1,), {}, ((3, 4),)),
    ("Softmax2d", (), {}, (IMAGE,)),
    ("CosineSimilarity", (), {"dim": 0}, ((3, 4), (3, 4))),
    ("PairwiseDistance", (), {"keepdim": True}, ((3, 4), (3, 4))),
    ("L1Loss", (), {}, ((3, 4), (3, 4))),
    ("MSELoss", (), {"reduction": "sum"}, ((3, 4), (3, 4))),
    ("SmoothL1Loss", (), {"beta": 0.5}, ((3, 4), (3, 4))),
    ("HuberLoss", (), {"delta": 0.5, "reduction": "none"}, ((3, 4), (3, 4))),
    ("NLLLoss", (), {"ignore_index": 3}, ((3, 4), CLASSES)),
    ("CrossEntropyLoss", (), {}, ((3, 4), CLASSES)),
    ("CrossEntropyLoss", (), {"label_smoothing": 0.2, "ignore_index": 1}, ((3, 4), CLASSES)),
    ("PoissonNLLLoss", (), {"full": True}, ((2, 3), ONES)),
    ("GaussianNLLLoss", (), {"full": True}, ((2, 3), ONES, ONES + 1)),
    ("KLDivLoss", (), {"reduction": "batchmean"}, ((2, 3), ONES)),
    ("KLDivLoss", (), {"log_target": True, "reduction": "sum"}, ((2, 3), (2, 3))),
    ("BCELoss", (), {}, (ONES * 0.4 + 0.3, ONES)),
    ("BCEWithLogitsLoss", (), {}, ((2, 3), ONES)),
    ("HingeEmbeddingLoss", (), {"margin": 0.5}, ((3,), SIGNS)),
    ("SoftMarginLoss", (), {}, ((3,), SIGNS)),
    ("MultiLabelMarginLoss", (), {}, ((2, 3), np.array([[2, -1, 0], [0, 1, -1]]))),
    ("MultiLabelSoftMarginLoss", (), {}, ((2, 3), ONES)),
    ("MultiMarginLoss", (), {"p": 2, "margin": 0.5}, ((3, 4), CLASSES)),
    ("CosineEmbeddingLoss", (), {"margin": 0.1}, ((3, 4), (3, 4), SIGNS)),
    ("MarginRankingLoss", (), {"margin": 0.1}, ((3,), (3,), SIGNS)),
    ("TripletMarginLoss", (), {"swap": True}, ((3, 4), (3, 4), (3, 4))),
    ("TripletMarginWithDistanceLoss", (), {}, ((3, 4), (3, 4), (3, 4))),
    ("CTCLoss", (), {"blank": 1}, ("logits", np.array([[2, 3], [0, 2]]), (5, 4), (2, 2))),
    ("LinearCrossEntropyLoss", (4, 5), {}, ((3, 4), CLASSES)),
    ("LinearCrossEntropyLoss", (4, 5), {"out_features": (2,), "bias": True, "ignore_index": 1},
     ((3, 4), np.array([[0, 1], [4, 3], [2, 2]]))),
    ("AdaptiveLogSoftmaxWithLoss", (8, 10, [3, 6]), {"div_value": 2.0}, ((3, 8), CLASSES * 3)),
]  # fmt: skip

# PyTorch's own CrossMapLRN2d keeps one channel too long in its running sum (size 3: channel 0 in
# the window of channel 2); here it is LocalResponseNorm.
TEXT_ONLY = [("CrossMapLRN2d", (3,), {}, (IMAGE,))]

RANDOM = [
    ("Dropout", (0.5,), {}, ((40, 50),)),
    ("Dropout1d", (0.4,), {}, ((40, 50, 3),)),
    ("Dropout2d", (0.4,), {}, ((40, 50, 2, 3),)),
    ("Dropout3d", (0.4,), {}, ((20, 50, 2, 3, 2),)),
    ("AlphaDropout", (0.3,), {}, ((40, 50),)),
    ("FeatureAlphaDropout", (0.3,), {}, ((40, 50, 2),)),
    ("RReLU", (0.1, 0.4), {}, ((40, 50),)),
]


def _name(case: Any) -> str:
    return f"{case[0]}-{','.join(f'{k}={v}' for k, v in case[2].items())}"


def _inputs(inputs: Any) -> list[Any]:
    drawn = []
    for seed, given in enumerate(inputs):
        if given == "logits" if isinstance(given, str) else False:
            logits = draw((5, 2, 4)).detach()
            drawn.append((logits - logits.logsumexp(2, keepdim=True)).requires_grad_())
        elif isinstance(given, tuple) and inputs[0] == "logits":
            drawn.append(given)
        else:
            drawn.append(draw(given, seed))
    return drawn


@pytest.mark.oracle
@pytest.mark.parametrize("case", [*CASES, *TEXT_ONLY, *RANDOM], ids=_name)
def test_text_and_state_are_pytorchs(case: Any) -> None:
    ours, theirs = pair(*case[:3])
    assert repr(ours) == translated(repr(theirs))
    mine, yours = ours.state_dict(), theirs.state_dict()
    assert [(k, tuple(v.shape)) for k, v in mine.items()] == [
        (k, tuple(v.shape)) for k, v in yours.items()
    ]
    assert mine._metadata == yours._metadata


@pytest.mark.oracle
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("case", CASES, ids=_name)
def test_values_and_gradients_are_pytorchs(case: Any, training: bool) -> None:
    ours, theirs = pair(*case[:3])
    compare(ours.train(training), theirs.train(training), _inputs(case[3]))


@pytest.mark.oracle
@pytest.mark.parametrize("case", RANDOM, ids=_name)
def test_random_layers_pass_their_input_in_evaluation(case: Any) -> None:
    ours, theirs = pair(*case[:3])
    compare(ours.eval(), theirs.eval(), _inputs(case[3]))


@pytest.mark.parametrize("case", RANDOM[:4], ids=_name)
def test_dropout_zeroes_its_share_and_scales_the_rest(case: Any) -> None:
    name, (p,), _, (shape,) = case
    tg.manual_seed(3)
    x = tg.ones(shape, requires_grad=True)
    y = getattr(tg.nn, name)(p)(x)
    y.sum().backward()
    kept = y.detach().numpy().reshape(*shape[: 1 if name == "Dropout" else 2], -1)
    assert set(np.unique(kept).round(4)) == {0.0, np.float32(round(1 / (1 - p), 4))}
    assert abs((kept == 0).mean() - p) < 0.05
    np.testing.assert_array_equal(x.grad.numpy(), y.detach().numpy())
    if name != "Dropout":
        assert (kept == kept[..., :1]).all()


@pytest.mark.oracle
def test_every_layer_of_pytorch_exists_with_its_arguments() -> None:
    import torch

    missing = {"Container"}
    for name, theirs in vars(torch.nn).items():
        if not inspect.isclass(theirs) or not issubclass(theirs, torch.nn.Module):
            continue
        if name in missing:
            continue
        ours = getattr(tg.nn, name)
        if name.startswith("Lazy") or name in ("LSTM", "GRU", "RNN"):
            continue
        wanted = list(inspect.signature(theirs.__init__).parameters)
        assert list(inspect.signature(ours.__init__).parameters) == wanted, name
