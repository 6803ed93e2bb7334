"""Datasets, samplers, the loader; and the small modules that training programs touch."""

from __future__ import annotations

import io
from collections import Counter, namedtuple
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import tracegraph as tg
from tests.conftest import SEED
from tracegraph import testing
from tracegraph.devices import cuda_count
from tracegraph.errors import DeviceError, TraceError
from tracegraph.utils import checkpoint, data

Pair = namedtuple("Pair", "x y")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    tg.manual_seed(SEED)


class Squares(data.Dataset[Any]):
    def __init__(self, size: int) -> None:
        self.size = size

    def __getitem__(self, index: int) -> Any:
        return {"n": index, "square": np.float32(index**2), "name": str(index)}

    def __len__(self) -> int:
        return self.size


class Stream(data.IterableDataset[Any]):
    def __init__(self, size: int) -> None:
        self.size = size

    def __iter__(self) -> Iterator[Any]:
        return iter((float(i), [i, i + 1]) for i in range(self.size))

    def __len__(self) -> int:
        return self.size


def rows(size: int) -> data.TensorDataset:
    return data.TensorDataset(tg.arange(size), tg.arange(2 * size).reshape(size, 2) / 2)


def as_lists(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, dict):
        return {k: as_lists(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_lists(v) for v in value]
    return value


def test_batches_in_order() -> None:
    loader = data.DataLoader(rows(5), batch_size=2)
    assert as_lists(list(loader)) == [
        [[0, 1], [[0.0, 0.5], [1.0, 1.5]]],
        [[2, 3], [[2.0, 2.5], [3.0, 3.5]]],
        [[4], [[4.0, 4.5]]],
    ]
    assert len(loader) == 3 and len(data.DataLoader(rows(5), 2, drop_last=True)) == 2
    assert len(list(data.DataLoader(rows(5), 2, drop_last=True))) == 2


def test_shuffling_is_a_permutation_that_the_seed_decides() -> None:
    loader = data.DataLoader(rows(20), batch_size=6, shuffle=True, num_workers=3, pin_memory=True)
    passes = []
    for seed in (1, 1, 2):
        tg.manual_seed(seed)
        passes.append([i for batch in loader for i in batch[0].tolist()])
    assert passes[0] == passes[1] != passes[2]
    assert sorted(passes[0]) == sorted(passes[2]) == list(range(20))
    first, second = (
        data.DataLoader(rows(20), shuffle=True, generator=tg.Generator().manual_seed(4))
        for _ in range(2)
    )
    assert as_lists(list(first)) == as_lists(list(second)) != as_lists(list(first))


def test_a_gather_gives_what_collating_samples_gives() -> None:
    class Plain(data.TensorDataset):
        pass

    tensors = rows(7).tensors
    for batch, other in zip(
        data.DataLoader(rows(7), 3), data.DataLoader(Plain(*tensors), 3), strict=True
    ):
        assert type(batch) is type(other) and as_lists(batch) == as_lists(other)
        assert [t.dtype for t in batch] == [t.dtype for t in other]


def test_streams() -> None:
    batches = list(data.DataLoader(Stream(5), batch_size=2))
    assert as_lists(batches) == [
        [[0.0, 1.0], [[0, 1], [1, 2]]],
        [[2.0, 3.0], [[2, 3], [3, 4]]],
        [[4.0], [[4], [5]]],
    ]
    assert batches[0][0].dtype is tg.float64
    assert len(list(data.DataLoader(Stream(5), batch_size=2, drop_last=True))) == 2
    assert len(data.DataLoader(Stream(5), batch_size=2)) == 3
    assert list(data.DataLoader(Stream(2), batch_size=None)) == [(0.0, [0, 1]), (1.0, [1, 2])]
    chained = Stream(2) + Stream(1)
    assert [x for x, _ in chained] == [0.0, 1.0, 0.0] and len(chained) == 3


def test_collating() -> None:
    batch = data.default_collate([Squares(3)[i] for i in range(3)])
    assert as_lists(batch) == {"n": [0, 1, 2], "square": [0.0, 1.0, 4.0], "name": ["0", "1", "2"]}
    assert batch["n"].dtype is tg.int64 and batch["square"].dtype is tg.float32
    pairs = data.default_collate([Pair(1, np.ones(2)), Pair(2, np.zeros(2))])
    assert isinstance(pairs, Pair) and as_lists(pairs) == [[1, 2], [[1.0, 1.0], [0.0, 0.0]]]
    assert data.default_collate([True, False]).dtype is tg.bool
    converted = data.default_convert({"a": np.ones(1), "b": (1, "x")})
    assert isinstance(converted["a"], tg.Tensor) and converted["b"] == (1, "x")
    summed = data.DataLoader(
        rows(4), 2, collate_fn=lambda samples: sum(s[0].item() for s in samples)
    )
    assert list(summed) == [1, 5]


def test_datasets() -> None:
    both = data.ConcatDataset([rows(2), rows(3)])
    assert len(both) == 5 and both[2][0] == 0 and both[-1][0] == 2 and len(rows(2) + rows(3)) == 5
    part = data.Subset(Squares(5), [4, 2])
    assert len(part) == 2 and part[1]["n"] == 2
    stacked = data.StackDataset(a=rows(2), b=[5, 6])
    assert len(stacked) == 2 and stacked[1]["b"] == 6 and data.StackDataset([1], [2])[0] == (1, 2)
    for lengths, sizes in (([3, 7], [3, 7]), ([0.5, 0.25, 0.25], [6, 2, 2])):
        parts = data.random_split(Squares(10), lengths)
        assert [len(p) for p in parts] == sizes
        assert sorted(i for p in parts for i in p.indices) == list(range(10))


def test_samplers() -> None:
    size = range(10)
    assert list(data.SequentialSampler(size)) == list(size)
    assert sorted(data.RandomSampler(size)) == list(size)
    assert len(list(data.RandomSampler(size, num_samples=25))) == 25
    assert len(list(data.RandomSampler(size, replacement=True, num_samples=4))) == 4
    assert sorted(data.SubsetRandomSampler([3, 5, 8])) == [3, 5, 8]
    drawn = Counter(data.WeightedRandomSampler([0.0, 1.0, 3.0], 1000))
    assert drawn[0] == 0 and 650 < drawn[2] < 850
    assert list(data.BatchSampler(data.SequentialSampler(range(5)), 2, False)) == [
        [0, 1],
        [2, 3],
        [4],
    ]
    sampler = data.BatchSampler(data.SequentialSampler(rows(5)), 3, True)
    assert [b[0].tolist() for b in data.DataLoader(rows(5), batch_sampler=sampler)] == [[0, 1, 2]]
    shares = [list(data.DistributedSampler(size, 4, rank)) for rank in range(4)]
    assert [len(s) for s in shares] == [3] * 4 and {i for s in shares for i in s} == set(size)
    lone = data.DistributedSampler(size)
    order = list(lone)
    lone.set_epoch(1)
    assert sorted(order) == list(size) and list(lone) != order


BAD: dict[str, Callable[[], Any]] = {
    "sizes": lambda: data.TensorDataset(tg.ones(2), tg.ones(3)),
    "shuffle and sampler": lambda: data.DataLoader(rows(2), shuffle=True, sampler=[0]),
    "shuffled stream": lambda: data.DataLoader(Stream(2), shuffle=True),
    "batch sampler": lambda: data.DataLoader(rows(2), batch_size=2, batch_sampler=[[0]]),
    "no batches to drop": lambda: data.DataLoader(rows(2), batch_size=None, drop_last=True),
    "batch size": lambda: data.BatchSampler([0], 0, False),
    "workers": lambda: data.DataLoader(rows(2), num_workers=-1),
    "lengths": lambda: data.random_split(rows(5), [2, 2]),
    "index": lambda: data.ConcatDataset([rows(2)])[2],
    "nothing": lambda: data.ConcatDataset([]),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_refused(name: str) -> None:
    with pytest.raises(ValueError):
        BAD[name]()


@pytest.mark.oracle
def test_collating_follows_pytorch() -> None:
    import torch
    from torch.utils.data import default_collate

    samples = [
        {
            "a": i,
            "b": [float(i), (True, "s")],
            "c": np.full((2, 2), i, np.int16),
            "d": np.float64(i),
        }
        for i in range(3)
    ]

    def describe(value: Any) -> Any:
        if isinstance(value, (tg.Tensor, torch.Tensor)):
            return str(value.dtype).rpartition(".")[2], value.tolist()
        if isinstance(value, dict):
            return {k: describe(v) for k, v in value.items()}
        return [describe(v) for v in value] if isinstance(value, (list, tuple)) else value

    assert describe(data.default_collate(samples)) == describe(default_collate(samples))


# What training programs touch beside data.


def test_checkpoint_runs_the_function() -> None:
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    checkpoint.checkpoint(lambda a, b: (a * b).sum(), x, 3.0, use_reentrant=False).backward()
    assert x.grad.tolist() == [3.0, 3.0]
    assert checkpoint.checkpoint_sequential([tg.neg, tg.abs], 2, x).tolist() == [1.0, 2.0]


@pytest.mark.skipif(cuda_count() > 0, reason="there is a CUDA device")
def test_cuda_without_a_device() -> None:
    assert not tg.cuda.is_available() and tg.cuda.device_count() == 0
    tg.cuda.manual_seed_all(1)
    tg.cuda.empty_cache()
    assert tg.cuda.memory_allocated() == tg.cuda.max_memory_allocated() == 0
    for question in (tg.cuda.current_device, tg.cuda.synchronize, tg.cuda.get_device_name,
                     tg.cuda.get_rng_state, lambda: tg.cuda.FloatTensor([1.0])):  # fmt: skip
        with pytest.raises(DeviceError, match="no CUDA device"):
            question()
    start, end = tg.cuda.Event(enable_timing=True), tg.cuda.Event()
    start.record()
    end.record()
    with tg.cuda.stream(tg.cuda.Stream()), tg.cuda.device(-1):
        assert start.elapsed_time(end) >= 0


def test_amp_leaves_everything_in_float32() -> None:
    p = tg.ones(2, requires_grad=True)
    optimizer, scaler = tg.optim.SGD([p], lr=0.5), tg.cuda.amp.GradScaler()
    with tg.autocast("cuda", dtype=tg.float16), tg.cuda.amp.autocast():
        loss = (p * 2).sum()
    assert loss.dtype is tg.float32 and not tg.is_autocast_enabled()
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    assert p.tolist() == [0.0, 0.0] and scaler.get_scale() == 1.0
    assert tg.amp.autocast("cpu")(abs)(-1) == 1


def test_backends_keep_their_switches() -> None:
    cudnn = tg.backends.cudnn
    cudnn.benchmark = True
    with cudnn.flags(benchmark=False, deterministic=True):
        assert not cudnn.benchmark and cudnn.deterministic
    assert cudnn.benchmark and not tg.backends.mps.is_available()
    cudnn.benchmark = False
    tg.backends.cuda.matmul.allow_tf32 = True
    tg.backends.cuda.matmul.allow_tf32 = False
    assert tg.version.cuda is None


def test_jit_traces_saves_and_loads() -> None:
    @tg.jit.script
    def double(x: Any) -> Any:
        return x * 2

    @tg.jit.ignore(drop=True)
    def f(x: Any) -> Any:
        assert not tg.jit.is_scripting()
        return double(x) + (1 if tg.jit.is_tracing() else 0)

    traced = tg.jit.trace(f, tg.ones(3), check_trace=False, strict=False)
    buffer = io.BytesIO()
    tg.jit.save(traced, buffer)
    buffer.seek(0)
    assert tg.jit.load(buffer)(tg.ones(3)).tolist() == [3.0] * 3
    assert f(tg.ones(1)).tolist() == [2.0]
    with pytest.raises(TraceError, match=r"tracegraph\.trace"):
        tg.jit.script(tg.nn.Linear(2, 2))


CLOSE: list[tuple[Any, Any, dict[str, Any], bool]] = [
    (tg.ones(2), tg.ones(2) + 1e-6, {}, True),
    (tg.ones(2), tg.ones(2) + 1e-4, {}, False),
    (tg.ones(2), tg.ones(2, dtype=tg.float64), {}, False),
    (tg.ones(2), tg.ones(2, dtype=tg.float64), {"check_dtype": False}, True),
    (tg.ones(2), tg.ones(2, 1), {}, False),
    (tg.tensor([1, 2]), tg.tensor([1, 3]), {}, False),
    (tg.tensor([True]), tg.tensor([True]), {}, True),
    ({"a": [tg.ones(1)]}, {"a": [tg.ones(1)]}, {}, True),
    ({"a": 1.0}, {"b": 1.0}, {}, False),
    ([1.0], [1.0, 2.0], {}, False),
    (tg.tensor(float("nan")), tg.tensor(float("nan")), {}, False),
    (tg.tensor(float("nan")), tg.tensor(float("nan")), {"equal_nan": True}, True),
    (tg.tensor(float("inf")), tg.tensor(float("inf")), {}, True),
    (tg.tensor(float("inf")), tg.tensor(1.0), {}, False),
    (tg.tensor(1.0), tg.tensor(float("inf")), {"rtol": 1.0, "atol": 1.0}, False),
    (1.0, 1.5, {"rtol": 0.5, "atol": 0.0}, True),
]


@pytest.mark.parametrize(("actual", "expected", "options", "close"), CLOSE)
def test_assert_close(actual: Any, expected: Any, options: dict[str, Any], close: bool) -> None:
    if close:
        testing.assert_close(actual, expected, **options)
    else:
        with pytest.raises(AssertionError):
            testing.assert_close(actual, expected, **options)


def test_make_tensor() -> None:
    x = testing.make_tensor((30, 4), dtype=tg.float32, low=1, high=2, requires_grad=True)
    assert x.requires_grad and (x >= 1).all() and (x < 2).all()
    y = testing.make_tensor(50, dtype=tg.int64, low=-1, high=2, exclude_zero=True)
    assert set(y.unique().tolist()) == {-1, 1}
    z = testing.make_tensor((3, 4), dtype=tg.bool, noncontiguous=True)
    assert z.shape == (3, 4) and not z.is_contiguous() and z.dtype is tg.bool
    assert testing.make_tensor(100, dtype=tg.uint8).max() < 10
