"""Sequences of unequal length: packed without padding, padded, and back.

In a trace, lengths that are tensors are not read: what is packed then is the padded data with the
lengths beside it (`MaskedSequence`), whose shapes do not depend on them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from tracegraph import modes
from tracegraph.api import creation, shape
from tracegraph.dispatch import front
from tracegraph.dtypes import int64
from tracegraph.errors import OpError, TraceError
from tracegraph.tensors import Tensor


class _Fields(NamedTuple):
    data: Any
    batch_sizes: Any
    sorted_indices: Any
    unsorted_indices: Any


class PackedSequence(_Fields):
    """Sequences, longest first, their steps one after the other: all first steps, all second, ...

    `data`: [steps in all, ...]; `batch_sizes`: i64[longest] on the CPU, how many sequences have
    that step; `sorted_indices` is the order in which the sequences stand (None: as they came).
    """

    def __new__(
        cls, data: Any, batch_sizes: Any = None, sorted_indices: Any = None,
        unsorted_indices: Any = None,
    ) -> PackedSequence:  # fmt: skip
        if unsorted_indices is None:
            unsorted_indices = invert_permutation(sorted_indices)
        return super().__new__(cls, data, batch_sizes, sorted_indices, unsorted_indices)

    @property
    def is_cuda(self) -> bool:
        """Whether the data lives on a GPU."""
        return bool(self.data.is_cuda)

    def is_pinned(self) -> bool:
        """Whether the data is in pinned memory: never."""
        return False

    def to(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """Return the sequences with data (and orders) in another dtype or on another device."""
        data = self.data.to(*args, **kwargs)
        if data is self.data:
            return self
        moved = [None if i is None else i.to(data.device) for i in self[2:]]
        return type(self)(data, self.batch_sizes, *moved)

    def cpu(self) -> PackedSequence:
        """Return the sequences in main memory."""
        return self.to("cpu")

    def cuda(self, device: Any = None) -> PackedSequence:
        """Return the sequences on a GPU."""
        return self.to(device or "cuda")

    def float(self) -> PackedSequence:
        """Return the sequences as float32."""
        return self._with(self.data.float())

    def double(self) -> PackedSequence:
        """Return the sequences as float64."""
        return self._with(self.data.double())

    def half(self) -> PackedSequence:
        """Return the sequences as float16."""
        return self._with(self.data.half())

    def _with(self, data: Any) -> PackedSequence:
        return PackedSequence(data, *self[1:])

    def layout(self) -> Steps:
        """Return where the steps stand."""
        return Steps.of(self.batch_sizes)

    def padded(self, value: Any = 0) -> Tensor:
        """Return the data as [longest, batch, ...], in the order in which the sequences stand."""
        return self.layout().spread(self.data, value)

    def lengths(self) -> Tensor:
        """Return the lengths i64[batch], in the order in which the sequences stand."""
        return creation.tensor(self.layout().lengths, dtype=int64)

    def like(self, padded: Tensor) -> PackedSequence:
        """Return these sequences with the steps of `padded`: [longest, batch, ...] instead."""
        return self._with(self.layout().collect(padded))


class MaskedSequence(PackedSequence):
    """Packed sequences in a trace: padded data, and lengths that are not read."""

    _padded: Tensor
    _lengths: Tensor

    @classmethod
    def over(cls, padded: Tensor, lengths: Tensor) -> MaskedSequence:
        """Return the sequences of `padded`: [time, batch, ...] with lengths i64[batch]."""
        made: Any = cls(None)
        made._padded, made._lengths = padded, lengths
        return made  # type: ignore[no-any-return]

    @property
    def data(self) -> Any:
        """Refused: the size of the packed data depends on the lengths.

        Raises:
            TraceError: always.
        """
        raise TraceError(
            "a trace cannot hold the data of sequences packed by tensor lengths: its size depends "
            "on them. Give pack_padded_sequence the lengths as a list, which the trace then "
            "relies on, or use pad_packed_sequence and mask by length."
        )

    def padded(self, value: Any = 0) -> Tensor:
        """Return the data as [time, batch, ...] with `value` where a sequence has ended."""
        x = self._padded
        keep = before(self._lengths, x.shape[0])
        keep = front.reshape(keep, shape=(*keep.shape, *(1,) * (x.ndim - 2)))
        out: Tensor = front.where(keep, x, creation.full((), value, dtype=x.dtype))
        return out

    def lengths(self) -> Tensor:
        """Return the lengths i64[batch]."""
        return self._lengths

    def like(self, padded: Tensor) -> PackedSequence:
        """Return these sequences with the steps of `padded`: [time, batch, ...] instead."""
        return MaskedSequence.over(padded, self._lengths)


class Steps:
    """Where the steps of sequences of known lengths (longest first) stand, packed and padded."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        self.sizes = sizes
        self.batch = sizes[0] if sizes else 0
        self.lengths = [sum(n > b for n in sizes) for b in range(self.batch)]

    @classmethod
    def of(cls, batch_sizes: Tensor) -> Steps:
        """Return the layout for `batch_sizes`: noted when it was made, else read."""
        noted = batch_sizes.__dict__.get("sizes")
        return cls(noted if noted is not None else tuple(batch_sizes.tolist()))

    def batch_sizes(self) -> Tensor:
        """Return the sizes as a tensor that notes them, so that nobody has to read it."""
        t = creation.tensor(list(self.sizes), dtype=int64)
        t.__dict__["sizes"] = self.sizes
        return t

    def spread(self, data: Tensor, value: Any) -> Tensor:
        """Return [steps, ...] as [longest, batch, ...], with `value` where a sequence has ended."""
        rest = tuple(data.shape[1:])
        places, start = [], 0
        for n in self.sizes:
            places.append([*range(start, start + n), *[start_of_end] * (self.batch - n)])
            start += n
        end = creation.full((1, *rest), value, dtype=data.dtype, device=data.device)
        index = creation.tensor(
            [p if p >= 0 else start for row in places for p in row], dtype=int64,
            device=data.device,
        )  # fmt: skip
        rows = front.index(front.cat(data, end, dim=0), index, dims=(0,))
        out: Tensor = front.reshape(rows, shape=(len(self.sizes), self.batch, *rest))
        return out

    def collect(self, padded: Tensor) -> Tensor:
        """Return [longest, batch, ...] as [steps, ...]."""
        time, batch, *rest = padded.shape
        index = creation.tensor(
            [t * batch + b for t, n in enumerate(self.sizes) for b in range(n)], dtype=int64,
            device=padded.device,
        )  # fmt: skip
        rows = front.reshape(padded, shape=(time * batch, *rest))
        out: Tensor = front.index(rows, index, dims=(0,))
        return out


start_of_end = -1
