"""Generators of random numbers: their state, seeds, and saving both; the face of `torch.random`.

The state is a tensor i64[2] (seed, tick). A draw takes one tick and puts the advanced state back
in place, so a trace holds it as State and a replay draws fresh numbers. One seed gives the same
integers and uniforms on every device.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any, Final

import numpy as np

from tracegraph.api.creation import tensor
from tracegraph.devices import Device, parse_device
from tracegraph.dtypes import int64
from tracegraph.eager import modes
from tracegraph.eager.dispatch import assign
from tracegraph.eager.tensors import Tensor, type_of, wrap
from tracegraph.errors import OpError

# What PyTorch gives a Generator that nobody seeded.
_UNSEEDED: Final = 67280421310721


def _words(seed: int) -> Any:
    """Return the state of a fresh seed as an array."""
    seed = int(seed)
    if not -(1 << 63) <= seed < 1 << 64:
        raise OpError(f"a seed lies in [-2**63, 2**64), got {seed}")
    return np.array([seed - (1 << 64) if seed >= 1 << 63 else seed, 0], dtype=np.int64)


class Generator:
    """A source of random numbers with its own state; reproducible after `manual_seed`."""

    def __init__(self, device: Any = "cpu") -> None:
        self.device: Device = parse_device(device)
        self._lock = Lock()
        self._state: Tensor = wrap(self.device.place(_words(_UNSEEDED)))

    def __tracegraph_state__(self) -> Iterator[tuple[str, Any]]:
        """What a trace takes for State."""
        yield "state", self._state

    def __tracegraph_containers__(self) -> Iterator[Any]:
        """Nothing but `_state` changes."""
        return iter(())

    def manual_seed(self, seed: int) -> Generator:
        """Start again from a seed in [-2**63, 2**64)."""
        words = _words(seed)
        assign(self._state, tensor(words, device=self.device))
        return self

    def seed(self) -> int:
        """Start again from a seed of the operating system, and return it."""
        seed = int.from_bytes(os.urandom(8), "little")
        self.manual_seed(seed)
        return seed

    def initial_seed(self) -> int:
        """Return the seed that the present sequence started from."""
        seed: int = self._state[0].item()
        return seed % (1 << 64)

    def get_state(self) -> Tensor:
        """Return a copy of the state, i64[2] on the CPU: seed and number of draws."""
        state: Tensor = self._state.clone().to("cpu")
        return state

    def set_state(self, new_state: Tensor) -> None:
        """Continue from a state that `get_state` returned.

        Raises:
            OpError: not a state.
        """
        known = type_of(new_state)
        if known.dtype is not int64 or known.shape != (2,):
            raise OpError(f"the random state is a tensor i64[2], got {known}")
        assign(self._state, new_state.to(self.device))

    def __reduce__(self) -> Any:
        return (_rebuild, (str(self.device), self.get_state().tolist()))


def _rebuild(device: str, state: list[int]) -> Generator:
    generator = Generator(device)
    generator.set_state(tensor(state))
    return generator


default_generator: Final = Generator()
default_generator.seed()
_cuda_generators: Final[dict[int, Generator]] = {}


def generator_of(device: Device) -> Generator:
    """Return the default generator of a device; that of a GPU starts with the CPU's seed."""
    if device.type == "cpu":
        return default_generator
    index = device.index or 0
    if index not in _cuda_generators:
        token = modes.push_recorder(None)  # no part of what a trace records
        try:
            made = Generator(Device("cuda", index))
            made.manual_seed(default_generator.initial_seed())
        finally:
            modes.pop_recorder(token)
        _cuda_generators[index] = made
    return _cuda_generators[index]


def known_generators() -> dict[str, Generator]:
    """Return the default generators in use, by the name their State has in a trace."""
    found = {"random.state": default_generator}
    found.update({f"random.cuda{i}.state": g for i, g in _cuda_generators.items()})
    return found


def manual_seed(seed: int) -> Generator:
    """Start the default generators of all devices again from a seed in [-2**63, 2**64)."""
    for generator in _cuda_generators.values():
        generator.manual_seed(seed)
    return default_generator.manual_seed(seed)


def seed() -> int:
    """Start the default generators again from a seed of the operating system, and return it."""
    value = int.from_bytes(os.urandom(8), "little")
    manual_seed(value)
    return value


def initial_seed() -> int:
    """Return the seed of the default generator."""
    return default_generator.initial_seed()


def get_rng_state() -> Tensor:
    """Return the state of the default generator, i64[2]."""
    return default_generator.get_state()


def set_rng_state(new_state: Tensor) -> None:
    """Set the state of the default generator."""
    default_generator.set_state(new_state)


@contextmanager
def fork_rng(devices: Any = None, enabled: bool = True, **options: Any) -> Iterator[None]:
    """Put the states of the default generators back at the end of the block."""
    if not enabled:
        yield
        return
    before = {name: g.get_state() for name, g in known_generators().items()}
    try:
        yield
    finally:
        for name, generator in known_generators().items():
            if name in before:
                generator.set_state(before[name])
