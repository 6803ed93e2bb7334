"""Facts about `nn.functional` with their numbers, in-place forms, randomness, errors and traces.

What takes the fixture `T` runs on PyTorch as well, to prove that PyTorch says the same.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import tracegraph as tg
from tests.both_modules import T, numbers  # noqa: F401
from tracegraph.errors import OpError

NAN, INF = math.nan, math.inf


def test_relu_keeps_nan_and_its_gradient(T: Any) -> None:
    x = T.tensor([-1.0, 0.0, 2.0, NAN], requires_grad=True)
    y = T.nn.functional.relu(x)
    y.sum().backward()
    assert str(numbers(y)) == "[0.0, 0.0, 2.0, nan]"
    assert numbers(x.grad) == [0.0, 0.0, 1.0, 1.0]


def test_closed_forms(T: Any) -> None:
    F, x = T.nn.functional, T.tensor([1.0, -2.0], dtype=T.float64)
    phi = [0.5 * (1 + math.erf(v / math.sqrt(2))) for v in (1, -2)]
    assert numbers(F.gelu(x)) == pytest.approx([phi[0], -2 * phi[1]], rel=1e-14)
    assert numbers(F.silu(x)) == pytest.approx([1 / (1 + math.e**-1), -2 / (1 + math.e**2)])
    assert numbers(F.softplus(x)) == pytest.approx([math.log1p(math.e), math.log1p(math.e**-2)])
    assert numbers(F.elu(x, 0.5)) == pytest.approx([1, 0.5 * math.expm1(-2)])
    uniform = T.zeros(2, 4, dtype=T.float64)
    assert float(F.cross_entropy(uniform, T.tensor([0, 3]))) == pytest.approx(math.log(4))
    assert float(F.mse_loss(x, x + 3)) == 9
    assert float(F.gaussian_nll_loss(x, x, x * 0 + 1, full=True)) == pytest.approx(
        0.5 * math.log(2 * math.pi)
    )


def test_a_convolution_by_hand(T: Any) -> None:
    F = T.nn.functional
    x, w = T.arange(6.0).reshape(1, 1, 6), T.tensor([[[1.0, 0.0, -1.0]]])
    assert numbers(F.conv1d(x, w)) == [[[-2.0] * 4]]
    assert numbers(F.conv1d(x, w, T.tensor([10.0]), 2, 1)) == [[[9.0, 8.0, 8.0]]]
    assert numbers(F.conv1d(x, w, dilation=2, padding="same"))[0][0] == [-2, -3, -4, -4, 2, 3]
    assert numbers(F.conv_transpose1d(w, x)) == [[[0, 1, 2, 2, 2, 2, -4, -5]]]


def test_a_large_convolution_is_made_in_blocks() -> None:
    """Columns of more than one block, along rows and along samples, beside a sum over taps."""
    r = np.random.default_rng(3)
    for batch, size, channels in ((1, 96, 24), (40, 12, 24)):
        x, w = r.normal(size=(batch, channels, size, size)), r.normal(size=(5, channels, 3, 3))
        wide = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        windows = [wide[:, :, i : i + size, j : j + size] for i in range(3) for j in range(3)]
        expected = np.einsum("tncij,oct->noij", windows, w.reshape(5, channels, 9))
        mine = [tg.tensor(a, requires_grad=True) for a in (x, w)]
        y = tg.nn.functional.conv2d(*mine, padding=1)
        np.testing.assert_allclose(y.detach().numpy(), expected, rtol=1e-10, atol=1e-10)
        g = r.normal(size=y.shape)
        dx, dw = tg.autograd.grad(y, mine, tg.tensor(g))
        products = [np.einsum("noij,ncij->oc", g, part) for part in windows]
        np.testing.assert_allclose(dw.numpy(), np.stack(products, -1).reshape(w.shape), rtol=1e-9)
        assert float((dx * mine[0]).sum()) == pytest.approx(float((y * tg.tensor(g)).sum()))


def test_pooling_by_hand(T: Any) -> None:
    F, x = T.nn.functional, T.tensor([[3.0, 1.0, NAN, 5.0, 5.0, 2.0, 7.0]])
    y, places = F.max_pool1d(x, 2, return_indices=True)
    assert str(numbers(y)) == "[[3.0, nan, 5.0]]"
    assert numbers(places) == [[0, 2, 4]]
    y, places = F.max_pool1d(x[:, 3:], 2, 2, 0, 1, True, True)
    assert (numbers(y), numbers(places)) == ([[5.0, 7.0]], [[0, 3]])
    mean = F.avg_pool1d(x[:, 3:], 3, 2, 1, True, False)
    assert numbers(mean)[0] == pytest.approx([5.0, 14 / 3, 7.0])
    assert numbers(F.adaptive_avg_pool1d(x[:, 3:], 3)) == [[5.0, 3.5, 4.5]]
    assert numbers(F.adaptive_avg_pool1d(T.tensor([[INF, 1.0, 2.0]]), 2)) == [[INF, 1.5]]


def test_batch_norm_follows_the_statistics(T: Any) -> None:
    F, x = T.nn.functional, T.tensor([[1.0, 0.0], [3.0, 0.0], [5.0, 6.0]], dtype=T.float64)
    mean, var = T.zeros(2, dtype=T.float64), T.ones(2, dtype=T.float64)
    y = F.batch_norm(x, mean, var, training=True, momentum=0.5, eps=1e-30)
    assert numbers(y.T)[0] == pytest.approx([-math.sqrt(1.5), 0, math.sqrt(1.5)])
    assert numbers(mean) == [1.5, 1.0]
    assert numbers(var) == [2.5, 6.5]  # of the unbiased variances 4 and 12
    assert numbers(F.batch_norm(x, mean, var, eps=0.0))[2] == pytest.approx(
        [3.5 / math.sqrt(2.5), 5 / math.sqrt(6.5)]
    )


def test_batch_norm_of_an_empty_batch_learns_nothing(T: Any) -> None:
    layer, x = T.nn.BatchNorm1d(2), T.zeros(0, 2, 3, requires_grad=True)
    for training in (True, False):
        y = layer.train(training)(x)
        y.sum().backward()
        assert tuple(y.shape) == tuple(x.grad.shape) == (0, 2, 3)
    assert numbers(layer.running_mean) == [0, 0] and numbers(layer.running_var) == [1, 1]
    assert numbers(layer.weight.grad) == [0, 0] and int(layer.num_batches_tracked) == 1


def test_variances_of_a_normal_loss_may_have_one_dim_of_size_1(T: Any) -> None:
    loss, x = T.nn.functional.gaussian_nll_loss, T.ones(4, 3)
    for shape in ((1, 3), (4, 1), (4,), (4, 3)):
        y = loss(x, x * 0, T.full(shape, 2.0), reduction="none")
        assert numbers(y)[0] == pytest.approx([(math.log(2) + 0.5) / 2] * 3)
    for shape in ((3, 1), (1, 1), (3,)):
        with pytest.raises(ValueError, match="size"):
            loss(x, x, T.ones(shape))


@pytest.mark.parametrize("dims", [2, 3])
def test_fractional_pooling_of_one_picture_takes_the_first_samples(T: Any, dims: int) -> None:
    x = T.arange(float(2 * 5**dims)).reshape(2, *[5] * dims)
    samples = T.full((3, 2, dims), 0.3) + T.arange(3.0).reshape(3, 1, 1) / 5
    pool = getattr(T.nn, f"FractionalMaxPool{dims}d")
    one = pool(2, output_size=3, _random_samples=samples)(x)
    first = pool(2, output_size=3, _random_samples=samples[:1])(x.unsqueeze(0))
    assert numbers(one) == numbers(first[0])


def test_what_changes_nothing_still_gives_memory_of_its_own(T: Any) -> None:
    F, x = T.nn.functional, T.arange(16.0).reshape(1, 4, 2, 2)
    for y in (F.max_pool2d(x, 1), F.adaptive_max_pool2d(x, 2), F.avg_pool2d(x, 1),
              F.pixel_shuffle(x, 1), F.pixel_unshuffle(x, 1), F.interpolate(x, scale_factor=1),
              F.pad(x, (0, 0)), F.adaptive_avg_pool2d(x, 2)):  # fmt: skip
        y.zero_()
    assert numbers(x.flatten()) == list(range(16))


def test_a_blind_query_attends_to_nothing(T: Any) -> None:
    q, k = T.ones(2, 3, requires_grad=True), T.ones(4, 3)
    mask = T.tensor([[True, False, False, True], [False] * 4])
    y = T.nn.functional.scaled_dot_product_attention(q, k, k * 2, mask)
    assert numbers(y) == [[2.0] * 3, [0.0] * 3]
    y.sum().backward()
    assert numbers(q.grad) == [[0.0] * 3] * 2


def test_padding(T: Any) -> None:
    F, x = T.nn.functional, T.tensor([[1, 2, 3]])
    assert numbers(F.pad(x, (1, 2), value=9)) == [[9, 1, 2, 3, 9, 9]]
    assert numbers(F.pad(x, (2, 2), "reflect")) == [[3, 2, 1, 2, 3, 2, 1]]
    assert numbers(F.pad(x, (2, 1), "circular")) == [[2, 3, 1, 2, 3, 1]]
    assert numbers(F.pad(x, (2, -1), "replicate")) == [[1, 1, 1, 2]]


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "elu", "selu", "celu", "silu", "mish",
                                  "hardtanh", "hardsigmoid", "hardswish", "relu6"])  # fmt: skip
def test_in_place_is_the_same_in_the_same_memory(T: Any, name: str) -> None:
    function = getattr(T.nn.functional, name)
    x = T.linspace(-4, 4, 7)
    y = x * 1
    assert function(y, inplace=True) is y
    assert numbers(y) == numbers(function(x))


def test_dropout_keeps_the_mean_and_scales(T: Any) -> None:
    F, x = T.nn.functional, T.ones(200, 100)
    y = F.dropout(x, 0.2)
    assert {round(v, 5) for row in numbers(y) for v in row} == {0.0, 1.25}
    assert abs(float(y.mean()) - 1) < 0.02
    assert F.dropout(x, 0.2, training=False) is x
    assert float(F.dropout(x, 1.0).abs().sum()) == 0
    dropped = F.dropout2d(x.reshape(50, 40, 2, 5), 0.5).reshape(2000, 10)
    assert {min(row) == max(row) for row in numbers(dropped)} == {True}
    y = F.alpha_dropout(T.randn(300, 100), 0.3, training=True)
    assert abs(float(y.mean())) < 0.03
    assert abs(float(y.std()) - 1) < 0.03


def test_random_activations(T: Any) -> None:
    F, x = T.nn.functional, -T.ones(5000)
    y = F.rrelu(x, 0.1, 0.3, training=True)
    assert -0.3 <= float(y.min()) < -0.28
    assert -0.12 < float(y.max()) <= -0.1
    logits = T.zeros(2000, 4, requires_grad=True)
    sample = F.gumbel_softmax(logits, hard=True)
    assert {v for row in numbers(sample) for v in row} <= {0.0, 1.0}
    assert numbers(sample.sum(1)) == [1.0] * 2000
    assert all(0.2 < share < 0.3 for share in numbers(sample.mean(0)))
    (sample * T.arange(4.0)).sum().backward()
    assert float(logits.grad.abs().sum()) > 0


def test_embedding_limits_norms_in_place(T: Any) -> None:
    weight = T.tensor([[3.0, 4.0], [0.3, 0.4], [6.0, 8.0]])
    y = T.nn.functional.embedding(T.tensor([0, 1]), weight, max_norm=1.0)
    assert numbers(y)[0] == pytest.approx([0.6, 0.8], abs=1e-6)
    assert numbers(weight)[1:] == [pytest.approx([0.3, 0.4]), [6.0, 8.0]]


ERRORS = [
    (IndexError, "F.embedding(t.tensor([3]), t.zeros(3, 2))"),
    (IndexError, "F.cross_entropy(t.zeros(2, 3), t.tensor([0, 3]))"),
    (ValueError, "F.cross_entropy(t.zeros(2, 3), t.tensor([0]))"),
    (ValueError, "F.mse_loss(t.zeros(2), t.zeros(2), reduction='average')"),
    (ValueError, "F.binary_cross_entropy(t.zeros(2), t.zeros(3))"),
    (ValueError, "F.dropout(t.zeros(2), 1.5)"),
    (ValueError, "F.batch_norm(t.zeros(1, 3), None, None, training=True)"),
    (ValueError, "F.interpolate(t.zeros(1, 1, 2, 2))"),
    (ValueError, "F.grid_sample(t.zeros(1, 1, 2, 2), t.zeros(1, 2, 2, 2), 'cubic')"),
    (NotImplementedError, "F.pad(t.zeros(2, 2), (1, 1), 'mirror')"),
    (RuntimeError, "F.linear(t.zeros(2, 3), t.zeros(4, 5))"),
    (RuntimeError, "F.linear(t.zeros(2, 3), t.zeros(4, 3, dtype=t.float64))"),
    (RuntimeError, "F.conv2d(t.zeros(1, 3, 4, 4), t.zeros(2, 4, 3, 3))"),
    (RuntimeError, "F.conv2d(t.zeros(1, 3, 2, 2), t.zeros(2, 3, 3, 3))"),
    (RuntimeError, "F.conv2d(t.zeros(1, 3, 4, 4), t.zeros(2, 3, 3, 3), padding='same', stride=2)"),
    (RuntimeError, "F.conv2d(t.zeros(3, 4), t.zeros(2, 3, 3, 3))"),
    (RuntimeError, "F.conv2d(t.zeros(1, 3, 4, 4), t.zeros(2, 3, 3, 3), stride=(1, 2, 3))"),
    (RuntimeError,
     "F.conv_transpose1d(t.zeros(1, 3, 4), t.zeros(3, 2, 3), output_padding=1)"),
    (RuntimeError, "F.max_pool2d(t.zeros(1, 1, 4, 4), 2, padding=2)"),
    (RuntimeError, "F.avg_pool2d(t.zeros(1, 1, 2, 2), 3)"),
    (RuntimeError, "F.layer_norm(t.zeros(2, 3), (4,))"),
    (RuntimeError, "F.group_norm(t.zeros(2, 3), 2)"),
    (RuntimeError, "F.pad(t.zeros(1, 1, 3), (3, 0), 'reflect')"),
    (RuntimeError, "F.pixel_shuffle(t.zeros(1, 3, 2, 2), 2)"),
    (RuntimeError, "F.gelu(t.zeros(2), approximate='fast')"),
    (RuntimeError, "F.gelu(t.zeros(2, dtype=t.int64))"),
    (RuntimeError, "F.silu(t.zeros(2, dtype=t.int64))"),
    (RuntimeError, "F.glu(t.zeros(3))"),
    (RuntimeError, "F.one_hot(t.tensor([1, 5]), 3)"),
    (RuntimeError, "F.huber_loss(t.zeros(2), t.zeros(2), delta=0)"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "call"), ERRORS)
def test_errors(T: Any, kind: type[Exception], call: str) -> None:
    with pytest.raises(kind):
        eval(call, {"F": T.nn.functional, "t": T})


def test_errors_name_what_does_not_fit() -> None:
    with pytest.raises(OpError, match=r"groups=1.*\[2, 4, 3, 3\].*expected input\[1, 3, 4, 4\]"):
        tg.nn.functional.conv2d(tg.zeros(1, 3, 4, 4), tg.zeros(2, 4, 3, 3))


def test_a_traced_training_step_of_batch_norm_moves_the_statistics() -> None:
    mean, var = tg.zeros(2), tg.ones(2)

    def step(x: tg.Tensor) -> Any:
        y = tg.nn.functional.batch_norm(x, mean, var, training=True)
        return tg.nn.functional.dropout(y, 0.5, training=False)

    x = tg.tensor([[1.0, 2.0], [3.0, 6.0]])
    traced = tg.trace(step, (x,))
    assert numbers(mean) == [0.0, 0.0]
    traced(x * 10)
    np.testing.assert_allclose(numbers(mean), [2.0, 4.0], rtol=1e-6)


def test_every_name_of_pytorch_is_there(T: Any) -> None:
    names = tg.nn.functional.__all__
    assert len(names) == len(set(names))
    assert [name for name in names if not callable(getattr(T.nn.functional, name, None))] == []
