"""The pointwise and dense programs as JAX has them: functions of arrays, compiled by `jit`."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle, pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.benchmarks.modes import Made
from tests.workloads import VARIANTS


def _numbers(*shape: int, seed: int = 11) -> Any:
    return jnp.asarray(np.random.RandomState(seed).standard_normal(shape).astype(np.float32))


def _in_turn(function: Callable[..., Any], *inputs: Any) -> Made:
    compiled = jax.jit(function)
    ring = cycle([[x * (1 + 0.01 * k) for x in inputs] for k in range(VARIANTS)])
    return Made(lambda: compiled(*next(ring)), jax.block_until_ready)


def _gates(x: Any, y: Any, z: Any) -> Any:
    u = x * y + z
    return jnp.tanh(u) * jax.nn.sigmoid(u) + jnp.exp(-u * u) * 0.5


def _normed_softmax(x: Any) -> Any:
    away = x - x.mean(-1, keepdims=True)
    scale = jax.lax.rsqrt((away * away).mean(-1, keepdims=True) + 1e-5)
    return jax.nn.softmax(away * scale * 2.0, axis=-1)


def _network(weights: Any, x: Any) -> Any:
    for place, (weight, bias) in enumerate(weights):
        x = x @ weight + bias
        x = jax.nn.relu(x) if place + 1 < len(weights) else x
    return x


def _weights() -> Any:
    widths = (784, 512, 256, 10)
    return [(_numbers(a, b, seed=a) * a**-0.5, jnp.zeros(b)) for a, b in pairwise(widths)]


def _training() -> Made:
    x = _numbers(64, 784)
    labels = jnp.asarray(np.random.RandomState(11).randint(0, 10, 64))

    def loss(weights: Any) -> Any:
        scores = jax.nn.log_softmax(_network(weights, x))
        return -jnp.take_along_axis(scores, labels[:, None], 1).mean()

    @jax.jit
    def update(weights: Any, speed: Any) -> Any:
        slope = jax.grad(loss)(weights)
        speed = jax.tree.map(lambda v, g: 0.9 * v + g, speed, slope)
        return jax.tree.map(lambda w, v: w - 1e-3 * v, weights, speed), speed

    state = [_weights(), jax.tree.map(jnp.zeros_like, _weights())]

    def step() -> Any:
        state[:] = update(*state)
        return state[0]

    return Made(step, jax.block_until_ready)


def build(name: str) -> Made | None:
    """Return a program, or None where it is not written for JAX."""
    if name.startswith("pointwise"):
        size = 4096 if name.endswith("4k") else 1 << 22
        return _in_turn(_gates, *(_numbers(size, seed=s) for s in range(3)))
    if name == "ln_softmax":
        return _in_turn(_normed_softmax, _numbers(4096, 1024))
    if name in ("mlp_b1", "mlp_b64"):
        weights = _weights()
        batch = 1 if name == "mlp_b1" else 64
        return _in_turn(lambda x: _network(weights, x), _numbers(batch, 784))
    return _training() if name == "train_mlp" else None
