"""searchsorted: binary searches side by side, one in each lane."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from tracegraph.dtypes import DType, uint64
from tracegraph.ir.graph import Node
from tracegraph.runtime.cpu.code.chunks import units_in_chunk
from tracegraph.runtime.cpu.code.lane_access import gather
from tracegraph.runtime.cpu.code.llvm import Target
from tracegraph.runtime.cpu.code.storage import stored_dtype
from tracegraph.runtime.cpu.code.unit_code import Lanes, UnitCode
from tracegraph.runtime.cpu.code.values import UnsupportedError, element_type
from tracegraph.runtime.cpu.code.writer import Word
from tracegraph.runtime.cpu.kernels import name_of
from tracegraph.runtime.cpu.lowering.lowering import Lowering
from tracegraph.runtime.cpu.lowering.memory import Use
from tracegraph.runtime.cpu.lowering.steps import Launch, Pointer, pointer
from tracegraph.runtime.cpu.moves.selection_code import Selection, key_of
from tracegraph.runtime.cpu.products.launches import Kernel

_SLOTS: Final = (
    "edges", "x", "y", "size", "half", "row", "lanes", "block", "blocks", "units", "chunk",
)  # fmt: skip
_BLOCK: Final = 256
_STEP_NS: Final = 0.8


class Search(NamedTuple):
    """What the code depends on; `right`: the place is behind equal edges."""

    dtype: DType
    right: bool


def lower_searchsorted(low: Lowering, node: Node) -> None:
    """Lower searchsorted: of one row of edges, or of a row for each row of x."""
    edges, x = (low.dense(low.place(v)) for v in node.inputs)
    y = low.new(node.out)
    if x.dtype is uint64:
        raise UnsupportedError("an order of uint64")
    if 0 in x.shape:
        return
    rows = math.prod(x.shape[:-1]) if len(edges.shape) > 1 else 1
    size, lanes = edges.shape[-1], math.prod(x.shape) // rows
    block = min(lanes, _BLOCK)
    blocks = -(-lanes // block)
    units, half = rows * blocks, 1 << size.bit_length() - 1 if size else 0
    unit_ns = 10 + block * size.bit_length() * _STEP_NS
    chunk = units_in_chunk(units, unit_ns)
    known = {
        "size": size, "half": half, "row": size if len(edges.shape) > 1 else 0, "lanes": lanes,
        "block": block, "blocks": blocks, "units": units, "chunk": chunk,
    }  # fmt: skip
    arrays: list[int | Pointer] = [pointer(p) for p in (edges, x, y)]
    words = (*arrays, *(known[name] for name in _SLOTS[len(arrays) :]))
    spec = Search(x.dtype, node.attrs["right"])
    kernel = Kernel(name_of("search", spec), _text, spec, low.target)
    use, cost = Use([edges.buffer, x.buffer], [y.buffer]), int(units * unit_ns)
    low.steps.append(Launch(kernel, words, -(-units // chunk), cost, use, node, node.op))


def _text(spec: Search, target: Target) -> str:
    code = _Code(spec, target)
    return code.text(name_of("search", spec), _SLOTS, ("edges", "x", "y"), code.unit)


class _Code(UnitCode):
    """Writes the kernel. Elements are compared by integer keys, NaN is the largest."""

    def __init__(self, spec: Search, target: Target) -> None:
        super().__init__(target, max(2, target.vector_bytes // 8))
        self.kind, order = element_type(stored_dtype(spec.dtype)), Selection(spec.dtype, True)
        self.key, self.predicate = element_type(order.key), "sle" if spec.right else "slt"
        stored = [stored_dtype(spec.dtype)]
        self.library.define(
            "keys", self.width, lambda m, bits: key_of(m, order, bits), stored, cold=False
        )

    def unit(self, unit: str) -> None:
        """Write a unit: a block of searches in a row of edges."""
        w, words = self.w, self.words
        row, block = w.divmod(unit, words["blocks"])
        edges = w.at(words["edges"], w.mul(row, words["row"]), self.kind)
        first = w.mul(row, words["lanes"])
        self.over(*self.block(block), lambda lanes: self._search(edges, first, lanes))

    def _search(self, edges: str, first: Word, lanes: Lanes) -> None:
        w, width, wide = self.w, self.width, self.vector("i64")
        here = w.add(first, lanes.start)
        x = w.load_lanes(self.kind, width, w.at(self.words["x"], here, self.kind), lanes.mask)
        wanted, size = self._keys(x), w.splat(self.words["size"], "i64", width)

        def halve(values: list[str]) -> list[Word]:
            step, found = values
            more = w.let(f"add {wide} {found}, {w.splat(step, 'i64', width)}")
            fits = w.let(f"icmp sle {wide} {more}, {size}")
            last = w.let(f"add {wide} {more}, splat (i64 -1)")
            edge = self._keys(gather(w, self.kind, width, edges, last, fits))
            before = w.let(f"icmp {self.predicate} {self.vector(self.key)} {edge}, {wanted}")
            moves = w.let(f"and <{width} x i1> {before}, {fits}")
            moved = w.let(f"select <{width} x i1> {moves}, {wide} {more}, {wide} {found}")
            return [w.let(f"lshr i64 {step}, 1"), moved]

        start: list[tuple[str, Word]] = [("i64", self.words["half"]), (wide, "zeroinitializer")]
        _, found = w.repeat(start, lambda values: w.compare("ne", values[0], 0), halve)
        w.store_lanes("i64", width, found, w.at(self.words["y"], here, "i64"), lanes.mask)

    def _keys(self, bits: str) -> str:
        return self.called("keys", [self.vector(self.key)], [f"{self.vector(self.kind)} {bits}"])[0]
