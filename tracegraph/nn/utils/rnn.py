"""Sequences of unequal length: packed without padding, padded, and back.

In a trace, lengths that are tensors are not read: what is packed then is the padded data with the
lengths beside it (`MaskedSequence`), whose shapes do not depend on them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from tracegraph.api import creation, ranges, shape
from tracegraph.dtypes import int64
from tracegraph.eager import modes
from tracegraph.eager.dispatch import front
from tracegraph.eager.tensors import Tensor
from tracegraph.errors import OpError, TraceError


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
        """Fill in the order that undoes `sorted_indices` if it is not given."""
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
    def over(cls, padded: Tensor, lengths: Tensor) -> Any:
        """Return the sequences of `padded`: [time, batch, ...] with lengths i64[batch]."""
        made = cls(None)
        made._padded, made._lengths = padded, lengths
        return made

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
        end = sum(self.sizes)
        places: list[int] = []
        start = 0
        for n in self.sizes:
            places += [*range(start, start + n), *[end] * (self.batch - n)]
            start += n
        last = creation.full((1, *rest), value, dtype=data.dtype, device=data.device)
        index = creation.tensor(places, dtype=int64, device=data.device)
        rows = front.index(front.cat(data, last, dim=0), index, dims=(0,))
        out: Tensor = front.reshape(rows, shape=(len(self.sizes), self.batch, *rest))
        return out

    def collect(self, padded: Tensor) -> Tensor:
        """Return [longest, batch, ...] as [steps, ...]."""
        time, batch, *rest = padded.shape
        places = [t * batch + b for t, n in enumerate(self.sizes) for b in range(n)]
        index = creation.tensor(places, dtype=int64, device=padded.device)
        rows = front.reshape(padded, shape=(time * batch, *rest))
        out: Tensor = front.index(rows, index, dims=(0,))
        return out


def before(lengths: Tensor, time: int) -> Tensor:
    """Return bool[time, batch]: whether a step belongs to a sequence of that length."""
    steps = ranges.arange(time, device=lengths.device)
    out: Tensor = front.lt(front.reshape(steps, shape=(time, 1)), front.cast(lengths, dtype=int64))
    return out


def invert_permutation(permutation: Tensor | None) -> Tensor | None:
    """Return the order that undoes an order."""
    if permutation is None:
        return None
    count = ranges.arange(permutation.shape[0], device=permutation.device)
    out: Tensor = front.index_put(
        creation.zeros_like(count), count, permutation, dims=(0,), accumulate=False
    )
    return out


def _traced(lengths: Any) -> bool:
    return (
        isinstance(lengths, Tensor) and bool(modes.recording) and (modes.RECORDER.get() is not None)
    )


def _checked(lengths: Any, batch: int) -> list[int]:
    """Return lengths as ints.

    Raises:
        OpError: not one per sequence, or one that is not positive.
    """
    counts = [int(n) for n in (lengths.tolist() if isinstance(lengths, Tensor) else lengths)]
    if len(counts) != batch:
        raise OpError(
            f"Expected `len(lengths)` to be equal to batch_size, but got {len(counts)} "
            f"(batch_size={batch})"
        )
    if min(counts, default=1) <= 0:
        raise OpError(
            "Length of all samples has to be greater than 0, but found an element in 'lengths' "
            "that is <= 0"
        )
    return counts


def pack_padded_sequence(
    input: Tensor,
    lengths: Any,
    batch_first: bool = False,
    enforce_sorted: bool = True,
) -> PackedSequence:
    """Return the steps of padded sequences that belong to them, without the padding.

    Args:
        input: [time, batch, ...], or [batch, time, ...] with `batch_first`.
        lengths: one length per sequence, i64[batch] or a list. In a trace a tensor is not read:
            the steps stay padded and are masked.
        batch_first: whether the batch stands first.
        enforce_sorted: whether the lengths must fall; otherwise the sequences are put in order.

    Raises:
        OpError: lengths that do not fit, or that do not fall.
    """
    padded = shape.transpose(input, 0, 1) if batch_first else input
    if _traced(lengths):
        return MaskedSequence.over(padded, lengths)
    counts = _checked(lengths, padded.shape[1])
    order = None
    if enforce_sorted:
        if any(a < b for a, b in pairwise(counts)):
            raise OpError(
                "`lengths` array must be sorted in decreasing order when `enforce_sorted` is True. "
                "You can pass `enforce_sorted=False` to pack_padded_sequence and/or pack_sequence "
                "to sidestep this requirement if you do not need ONNX exportability."
            )
    else:
        places = sorted(range(len(counts)), key=lambda b: -counts[b])
        order = creation.tensor(places, dtype=int64, device=input.device)
        padded = front.index(padded, order, dims=(1,))
        counts = [counts[b] for b in places]
    if counts and counts[0] > padded.shape[0]:
        raise OpError(
            f"Expected every length to be at most {padded.shape[0]}, the size of the time dim, "
            f"but got {counts[0]}"
        )
    steps = Steps(tuple(sum(n > t for n in counts) for t in range(counts[0] if counts else 0)))
    return PackedSequence(steps.collect(padded), steps.batch_sizes(), order)


def pad_packed_sequence(
    sequence: PackedSequence, batch_first: bool = False, padding_value: float = 0.0,
    total_length: int | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return packed sequences padded to the longest (or `total_length`), and their lengths.

    In a trace of sequences packed by tensor lengths, they are padded to the length they had.

    Raises:
        ValueError: `total_length` is less than the longest.
    """
    padded = sequence.padded(padding_value)
    lengths = sequence.lengths()
    time = padded.shape[0]
    if total_length is not None and total_length != time:
        if total_length < time:
            raise ValueError(
                "Expected total_length to be at least the length of the longest sequence in "
                f"input, but got total_length={total_length} and max sequence length being {time}"
            )
        more = (total_length - time, *padded.shape[1:])
        filler = creation.full(more, padding_value, dtype=padded.dtype, device=padded.device)
        padded = front.cat(padded, filler, dim=0)
    order = sequence.unsorted_indices
    if order is not None:
        padded = front.index(padded, order, dims=(1,))
        lengths = front.index(lengths, order.cpu(), dims=(0,))
    return (shape.transpose(padded, 0, 1) if batch_first else padded), lengths


def pad_sequence(
    sequences: Iterable[Tensor], batch_first: bool = False, padding_value: float = 0.0,
    padding_side: str = "right",
) -> Tensor:  # fmt: skip
    """Return tensors [length, ...] as one [longest, batch, ...] (or the batch first).

    Raises:
        OpError: no sequences, or `padding_side` is neither "right" nor "left".
    """
    parts = list(sequences)
    if not parts:
        raise OpError("received an empty list of sequences")
    if padding_side not in ("right", "left"):
        raise OpError(f"padding_side should be 'right' or 'left', not {padding_side!r}")
    longest = max(part.shape[0] for part in parts)
    whole = []
    for part in parts:
        more = (longest - part.shape[0], *part.shape[1:])
        if more[0]:
            filler = creation.full(more, padding_value, dtype=part.dtype, device=part.device)
            both = (part, filler) if padding_side == "right" else (filler, part)
            part = front.cat(*both, dim=0)
        whole.append(part)
    return shape.stack(whole, 0 if batch_first else 1)


def unpad_sequence(
    padded_sequences: Tensor, lengths: Tensor, batch_first: bool = False
) -> list[Tensor]:
    """Return the sequences that `pad_sequence` padded."""
    x = padded_sequences if batch_first else shape.transpose(padded_sequences, 0, 1)
    return [x[b, :n] for b, n in enumerate(lengths.tolist())]


def pack_sequence(sequences: Sequence[Tensor], enforce_sorted: bool = True) -> PackedSequence:
    """Return tensors [length, ...] as packed sequences.

    Raises:
        OpError: lengths that do not fall, where they must.
    """
    lengths = [sequence.shape[0] for sequence in sequences]
    return pack_padded_sequence(pad_sequence(sequences), lengths, enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """Return the sequences that `pack_sequence` packed."""
    return unpad_sequence(*pad_packed_sequence(packed_sequences))
