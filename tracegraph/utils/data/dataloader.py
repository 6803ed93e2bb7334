"""DataLoader: batches of a dataset, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from tracegraph.api.creation import as_tensor, tensor
from tracegraph.api.shape import stack
from tracegraph.dtypes import float64
from tracegraph.eager.tensors import Tensor
from tracegraph.random import Generator
from tracegraph.utils.data.dataset import IterableDataset, TensorDataset
from tracegraph.utils.data.sampler import BatchSampler, RandomSampler, SequentialSampler

T = TypeVar("T", covariant=True)


def _rebuilt(like: Any, items: list[Any]) -> Any:
    """Return items in the kind of sequence that `like` is."""
    if hasattr(like, "_fields"):
        return type(like)(*items)
    try:
        return type(like)(items)
    except TypeError:
        return items


def default_convert(data: Any) -> Any:
    """Return NumPy arrays and numbers inside nested data as tensors."""
    if isinstance(data, (np.ndarray, np.generic)) and data.dtype.kind in "biuf":
        return as_tensor(data)
    if isinstance(data, Mapping):
        return {key: default_convert(value) for key, value in data.items()}
    if isinstance(data, Sequence) and not isinstance(data, (str, bytes)):
        return _rebuilt(data, [default_convert(value) for value in data])
    return data


def default_collate(batch: Sequence[Any]) -> Any:
    """Return a batch of samples as one: tensors and arrays are stacked, numbers become tensors.

    Raises:
        TypeError: samples of a type that cannot be batched.
        RuntimeError: sequences of different lengths.
    """
    first = batch[0]
    if isinstance(first, Tensor):
        return stack(list(batch), 0)
    if isinstance(first, (np.ndarray, np.generic)):
        if first.dtype.kind not in "biuf":
            raise TypeError(f"default_collate: cannot batch arrays of {first.dtype}")
        return as_tensor(np.stack([np.asarray(a) for a in batch]))
    if isinstance(first, float):
        return tensor(batch, dtype=float64)
    if isinstance(first, int):
        return tensor(batch)
    if isinstance(first, (str, bytes)):
        return batch
    if isinstance(first, Mapping):
        return {key: default_collate([sample[key] for sample in batch]) for key in first}
    if isinstance(first, Sequence):
        if any(len(sample) != len(first) for sample in batch):
            raise RuntimeError("each element in list of batch should be of equal size")
        columns = [default_collate(column) for column in zip(*batch, strict=True)]
        if isinstance(first, tuple) and not hasattr(first, "_fields"):
            return columns
        return _rebuilt(first, columns)
    raise TypeError(
        "default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; "
        f"found {type(first)}"
    )


def get_worker_info() -> None:
    """Return None: samples are always loaded in the main process."""


class DataLoader(Generic[T]):
    """Iterates over batches of a dataset, loading in this process.

    `num_workers`, `pin_memory` and what belongs to worker processes is accepted and changes
    nothing. Shuffling follows `generator`, or the default generator.

    Raises:
        ValueError: options that exclude each other.
    """

    def __init__(
        self, dataset: Any, batch_size: int | None = 1, shuffle: bool | None = None,
        sampler: Iterable[Any] | None = None, batch_sampler: Iterable[Any] | None = None,
        num_workers: int = 0, collate_fn: Callable[[list[Any]], Any] | None = None,
        pin_memory: bool = False, drop_last: bool = False, timeout: float = 0,
        worker_init_fn: Any = None, multiprocessing_context: Any = None,
        generator: Generator | None = None, *, prefetch_factor: int | None = None,
        persistent_workers: bool = False, pin_memory_device: str = "", in_order: bool = True,
    ) -> None:  # fmt: skip
        self._stream = isinstance(dataset, IterableDataset)
        if num_workers < 0:
            raise ValueError("num_workers option should be non-negative")
        if sampler is not None and shuffle:
            raise ValueError("sampler option is mutually exclusive with shuffle")
        if self._stream and (shuffle or sampler is not None or batch_sampler is not None):
            raise ValueError("an IterableDataset has no shuffle, sampler or batch_sampler option")
        if batch_sampler is not None:
            if batch_size != 1 or shuffle or sampler is not None or drop_last:
                raise ValueError(
                    "batch_sampler option is mutually exclusive with batch_size, shuffle, sampler, "
                    "and drop_last"
                )
            batch_size = None
        elif batch_size is None and drop_last:
            raise ValueError("batch_size=None option disables auto-batching and has no drop_last")
        self.dataset, self.batch_size, self.drop_last = dataset, batch_size, drop_last
        self.num_workers, self.pin_memory, self.timeout = num_workers, pin_memory, timeout
        self.worker_init_fn, self.prefetch_factor = worker_init_fn, prefetch_factor
        self.persistent_workers, self.generator = persistent_workers, generator
        if sampler is None and not self._stream:
            random = RandomSampler(dataset, generator=generator) if shuffle else None
            sampler = random or SequentialSampler(dataset)
        if batch_sampler is None and batch_size is not None and sampler is not None:
            batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        self.sampler: Any = sampler
        self.batch_sampler: Any = batch_sampler
        plain = batch_size is None and batch_sampler is None
        self.collate_fn: Callable[[Any], Any] = (
            collate_fn or (default_convert if plain else default_collate)
        )  # fmt: skip

    def __iter__(self) -> Iterator[Any]:
        if self._stream:
            return self._batches_of_stream()
        if self.batch_sampler is None:
            return (self.collate_fn(self.dataset[i]) for i in self.sampler)
        return (self._batch(indices) for indices in self.batch_sampler)

    def _batch(self, indices: list[Any]) -> Any:
        dataset = self.dataset
        if type(dataset) is TensorDataset and self.collate_fn is default_collate:
            # One gather a tensor: the same values as stacking one view a sample.
            return [t[indices] for t in dataset.tensors]
        if hasattr(dataset, "__getitems__"):
            return self.collate_fn(dataset.__getitems__(indices))
        return self.collate_fn([dataset[i] for i in indices])

    def _batches_of_stream(self) -> Iterator[Any]:
        if self.batch_size is None:
            yield from map(self.collate_fn, self.dataset)
            return
        batch: list[Any] = []
        for sample in self.dataset:
            batch.append(sample)
            if len(batch) == self.batch_size:
                yield self.collate_fn(batch)
                batch = []
        if batch and not self.drop_last:
            yield self.collate_fn(batch)

    def __len__(self) -> int:
        if not self._stream:
            return len(self.sampler if self.batch_sampler is None else self.batch_sampler)
        size = len(self.dataset)
        if self.batch_size is None:
            return size
        return size // self.batch_size if self.drop_last else -(-size // self.batch_size)
