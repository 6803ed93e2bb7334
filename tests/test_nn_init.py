"""Initial values: what is exact against PyTorch, what is random by its distribution."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import tracegraph as tg
from tracegraph.nn import init

EXACT: list[tuple[str, tuple[int, ...], dict[str, Any]]] = [
    ("constant_", (2, 3), {"val": 1.5}),
    ("ones_", (2, 3), {}),
    ("zeros_", (2, 3), {}),
    ("eye_", (2, 3), {}),
    ("eye_", (4, 3), {}),
    ("dirac_", (4, 2, 3), {}),
    ("dirac_", (4, 2, 3, 4), {"groups": 2}),
    ("dirac_", (2, 4, 3, 3, 1), {}),
]


@pytest.mark.oracle
@pytest.mark.parametrize(("name", "shape", "options"), EXACT)
def test_exact_values_are_pytorchs(name: str, shape: Any, options: Any) -> None:
    import torch

    mine, yours = tg.nn.Parameter(tg.ones(shape) * 9), torch.ones(shape)
    assert getattr(init, name)(mine, **options) is mine
    assert mine.is_leaf
    assert mine.requires_grad
    expected = getattr(torch.nn.init, name)(yours, **options).numpy()
    np.testing.assert_array_equal(mine.detach().numpy(), expected)


@pytest.mark.oracle
def test_gains_are_pytorchs() -> None:
    import torch

    for name in ("linear", "conv2d", "conv_transpose3d", "sigmoid", "tanh", "relu", "selu"):
        assert init.calculate_gain(name) == torch.nn.init.calculate_gain(name)
    for slope in (None, 0.3, 2):
        expected = torch.nn.init.calculate_gain("leaky_relu", slope)
        assert init.calculate_gain("leaky_relu", slope) == expected
    assert init._calculate_fan_in_and_fan_out(tg.ones(3, 4, 5)) == (20, 15)
    assert init._calculate_correct_fan(tg.ones(3, 4), "FAN_OUT") == 3


REFUSALS: dict[str, Any] = {
    "nonlinearity": lambda: init.calculate_gain("sine"),
    "slope": lambda: init.calculate_gain("leaky_relu", "a"),
    "dims": lambda: init.kaiming_normal_(tg.ones(3)),
    "mode": lambda: init.kaiming_normal_(tg.ones(3, 3), mode="fan"),
    "no matrix": lambda: init.eye_(tg.ones(3)),
    "no convolution": lambda: init.dirac_(tg.ones(3, 3)),
    "groups": lambda: init.dirac_(tg.ones(3, 3, 3), groups=2),
    "a vector": lambda: init.orthogonal_(tg.ones(3)),
    "no columns": lambda: init.sparse_(tg.ones(3), 0.1),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_cannot_be_filled_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"support|valid|can not|divisible"):
        REFUSALS[name]()


SHAPE = (300, 20, 5)  # fan_in 100, fan_out 1500

UNIFORM = {
    "uniform_": ({"a": -1.0, "b": 3.0}, (-1.0, 3.0)),
    "xavier_uniform_": ({"gain": 2.0}, (-2 * (6 / 1600) ** 0.5, 2 * (6 / 1600) ** 0.5)),
    "kaiming_uniform_": ({"a": 5**0.5}, (-0.1, 0.1)),
    "kaiming_uniform": ({"mode": "fan_out", "nonlinearity": "relu"}, (-0.0632456, 0.0632456)),
}
NORMAL = {
    "normal_": ({"mean": 3.0, "std": 2.0}, 3.0, 2.0),
    "xavier_normal_": ({}, 0.0, (2 / 1600) ** 0.5),
    "kaiming_normal_": ({"nonlinearity": "tanh"}, 0.0, 5 / 3 / 10),
    "kaiming_normal": ({"mode": "fan_out"}, 0.0, (2 / 1500) ** 0.5),
}


def _filled(name: str, **options: Any) -> Any:
    tg.manual_seed(5)
    values = getattr(init, name)(tg.nn.Parameter(tg.zeros(SHAPE)), **options)
    return values.detach().numpy().astype(np.float64)


@pytest.mark.parametrize("name", UNIFORM)
def test_uniform_fillings(name: str) -> None:
    options, (low, high) = UNIFORM[name]
    values = _filled(name, **options)
    assert low <= values.min() < low + (high - low) / 1000
    assert high - (high - low) / 1000 < values.max() <= high * (1 + 1e-6)
    assert abs(values.mean() - (low + high) / 2) < (high - low) * 0.005
    assert abs(values.std() * 12**0.5 / (high - low) - 1) < 0.02


@pytest.mark.parametrize("name", NORMAL)
def test_normal_fillings(name: str) -> None:
    options, mean, deviation = NORMAL[name]
    values = (_filled(name, **options) - mean) / deviation
    assert abs(values.mean()) < 0.02
    assert abs(values.std() - 1) < 0.02
    assert abs((values**4).mean() - 3) < 0.15


def test_truncated_normal_stays_inside_and_has_its_variance() -> None:
    values = _filled("trunc_normal_", mean=1.0, std=2.0, a=-1.0, b=2.0)
    assert values.min() >= -1.0
    assert values.max() <= 2.0
    low, high = -1.0, 0.5  # in deviations
    phi = [math.exp(-x * x / 2) / math.sqrt(2 * math.pi) for x in (low, high)]
    mass = 0.5 * (math.erf(high / 2**0.5) - math.erf(low / 2**0.5))
    shift = (phi[0] - phi[1]) / mass
    assert abs(values.mean() - (1.0 + 2.0 * shift)) < 0.02
    variance = 4.0 * (1 + (low * phi[0] - high * phi[1]) / mass - shift**2)
    assert abs(values.var() - variance) < 0.02
    with pytest.warns(UserWarning, match="more than 2 std"):
        init.trunc_normal_(tg.ones(2), mean=9.0)


@pytest.mark.parametrize("shape", [(4, 7), (7, 4), (3, 2, 2), (5, 5)])
def test_orthogonal_rows_or_columns(shape: Any) -> None:
    w = init.orthogonal_(tg.nn.Parameter(tg.zeros(shape)), gain=2.0).detach().numpy()
    w = w.reshape(shape[0], -1)
    product = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    np.testing.assert_allclose(product, 4 * np.eye(len(product)), atol=1e-5)


def test_sparse_columns() -> None:
    values = init.sparse_(tg.zeros(40, 30), sparsity=0.3, std=2.0).numpy()
    assert ((values == 0).sum(0) == 12).all()
    assert abs(values[values != 0].std() - 2) < 0.2


def test_a_generator_and_a_seed_repeat_the_draw() -> None:
    a, b = (_filled("normal_") for _ in range(2))
    np.testing.assert_array_equal(a, b)
    one, two = (
        init.uniform_(tg.zeros(5), generator=tg.Generator().manual_seed(3)).tolist()
        for _ in range(2)
    )
    assert one == two


def test_first_weights_of_layers() -> None:
    tg.manual_seed(1)
    linear, conv = tg.nn.Linear(400, 300), tg.nn.Conv2d(16, 64, 5)
    for layer, fan in ((linear, 400), (conv, 400)):
        for p in layer.parameters():
            values = p.detach().numpy()
            assert abs(values).max() <= fan**-0.5 * (1 + 1e-6)
            assert abs(values.std() * (3 * fan) ** 0.5 - 1) < 0.15
    table = tg.nn.Embedding(500, 60, padding_idx=2).weight.detach().numpy()
    assert not table[2].any()
    assert abs(table.std() - 1) < 0.02
    with pytest.warns(UserWarning, match="zero-element"):
        tg.nn.Linear(0, 3)
