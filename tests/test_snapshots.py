"""Memory that a trace writes is put back, wherever its copies lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tracegraph as torch
from tracegraph.capture.snapshots import Snapshots
from tracegraph.eager.storage import Storage

MIB = 1 << 20


def _arrays() -> list[Any]:
    """Arrays of many sizes, dtypes and layouts: some share a block, some are larger than one."""
    random = np.random.default_rng(5)
    made: list[Any] = [np.zeros(0, np.float32), random.random(7)]
    made += [random.random(MIB // 8 - odd) for odd in range(1, 25)]
    made += [random.random((600, 500)).T, random.random(MIB)[::3]]
    made += [random.integers(0, 2, MIB).astype(bool), random.random((3, MIB))]
    return made


def test_every_copy_is_put_back_and_counts_as_a_write() -> None:
    snapshots, arrays = Snapshots(), _arrays()
    wanted = [a.copy() for a in arrays]
    storages = [Storage(a) for a in arrays]
    for storage in storages:
        snapshots.keep(storage)
        storage.array[...] = 1
        snapshots.keep(storage)  # what it holds now is not what is put back
    snapshots.put_back()
    for array, before, storage in zip(arrays, wanted, storages, strict=True):
        assert np.array_equal(array, before)
        assert storage.unseen is not None and storage.unseen.count == 1


def test_what_shares_memory_is_put_back_last_copy_first() -> None:
    array = np.arange(MIB, dtype=np.float32)
    wanted, snapshots = array.copy(), Snapshots()
    whole, part = Storage(array), Storage(array[MIB // 4 :])
    for storage in (whole, part):
        snapshots.keep(storage)
        storage.array[...] = 0
    snapshots.put_back()
    assert np.array_equal(array, wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_traced_step_leaves_large_state_as_it_was(dtype: Any) -> None:
    torch.manual_seed(3)
    layers = torch.nn.Sequential(*(torch.nn.Linear(300, 300) for _ in range(12))).to(dtype)
    optimizer = torch.optim.Adam(layers.parameters())

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = layers(x).sum()
        loss.backward()
        optimizer.step()
        return loss.detach()

    x = torch.randn(2, 300).to(dtype)
    step(x)
    held = [*layers.parameters(), *(p.grad for p in layers.parameters())]
    held += [t for state in optimizer.state.values() for t in state.values()]
    before = [t.detach().clone() for t in held]
    traced = torch.trace(step, (x,), check=False)
    assert all(torch.equal(now, then) for now, then in zip(held, before, strict=True))
    loss, wanted = traced(x), step(x)
    assert not torch.equal(held[0], before[0])
    assert loss.item() != wanted.item()
