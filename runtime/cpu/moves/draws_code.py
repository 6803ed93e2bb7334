"""The code of random draws: Philox4x32-10, bit for bit as `tracegraph.philox` has it.

The four words of a block are two 64-bit numbers, (word 0, word 1) and (word 2, word 3), the first
word on top; a lane has a block. With p = multiplier * (number >> 32), a round is number' = p of the
other number ^ (number << 32) ^ (round key << 32).

Normal numbers: three in twenty are not central, and need a logarithm. Those of a unit are put side
by side on the stack, and computed after the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from tracegraph import philox
from tracegraph.dtypes import DType, float64, uint32, uint64
from tracegraph.runtime.cpu.code.lane_access import scatter
from tracegraph.runtime.cpu.code.llvm import Target
from tracegraph.runtime.cpu.code.scalars import Emitter
from tracegraph.runtime.cpu.code.storage import narrowed, stored_dtype
from tracegraph.runtime.cpu.code.unit_code import UnitCode
from tracegraph.runtime.cpu.code.values import Value, element_type
from tracegraph.runtime.cpu.code.writer import Word, suffix
from tracegraph.runtime.cpu.kernels import name_of
from tracegraph.runtime.cpu.moves.draws_numbers import integers, normal, outer_normal, uniform
from tracegraph.runtime.cpu.products.launches import Kernel

# The words of the argument block; a group is as many blocks as there are lanes.
SLOTS: Final = ("state", "values", "low", "span", "elements", "groups", "units", "chunk")
UNIT_GROUPS: Final = 64
_MASK32: Final = 0xFFFFFFFF


class Draw(NamedTuple):
    """What the code depends on; `words`: how many of 32 bits an element takes."""

    distribution: Literal["uniform", "normal", "integers"]
    dtype: DType
    words: int

    @property
    def bits(self) -> DType:
        """The dtype of an element's words."""
        return uint64 if self.words == 2 else uint32

    @property
    def is_wide(self) -> bool:
        """Whether an element is computed in 64 bits."""
        return self.words == 2 or self.distribution != "uniform"


def lanes_of(target: Target) -> int:
    """Return how many blocks are made side by side."""
    return max(2, target.vector_bytes // 8)


def draw_kernel(draw: Draw, target: Target) -> Kernel:
    """Return the kernel of a draw; it leaves the state as it is."""
    return Kernel(name_of("draw", draw), _text, draw, target)


def _text(draw: Draw, target: Target) -> str:
    code = _Code(draw, target)
    return code.text(name_of("draw", draw), SLOTS, ("state", "values"), code.unit)


class _Code(UnitCode):
    """Writes one kernel."""

    def __init__(self, draw: Draw, target: Target) -> None:
        super().__init__(target, lanes_of(target))
        self.draw, self.kind = draw, element_type(stored_dtype(draw.dtype))
        self.across = self.width if draw.is_wide else 2 * self.width  # elements of a vector
        self.parts = 4 * self.width // draw.words // self.across
        self.has_masks = target.vector_bytes == 64
        self.wide, self.made = self.vector("i64"), f"<{self.across} x {self.kind}>"
        self.given: list[str] = []
        self.outer = _Outer(self) if draw.distribution == "normal" else None
        self._define()

    def _define(self) -> None:
        """Define `number` (words to bits in memory), and what else normal numbers need."""
        draw, dtype, define = self.draw, self.draw.dtype, self.library.define

        def number(m: Emitter, bits: Value, *span: Value) -> Value | tuple[Value, ...]:
            if draw.distribution == "normal":
                found, *rest = normal(m, bits, dtype)
                return (narrowed(m, found, dtype), *rest)
            if draw.distribution == "integers":
                return narrowed(m, integers(m, bits, span[0], span[1], dtype), dtype)
            return narrowed(m, uniform(m, bits, dtype), dtype)

        def outer(m: Emitter, offset: Value) -> Value:
            return narrowed(m, outer_normal(m, offset, dtype), dtype)

        own = [uint64, uint64] if draw.distribution == "integers" else []
        define("number", self.across, number, [draw.bits, *own], cold=False)
        if draw.distribution == "normal":
            define("outer", self.across, outer, [float64], cold=False)

    def unit(self, unit: str) -> None:
        """Write a unit: some groups."""
        w, words, width = self.w, self.words, self.width
        each, outer = self.parts * self.across, self.outer
        seed, tick = (w.load("i64", w.at(words["state"], i, "i64"), 8) for i in (0, 1))
        keys = self._keys(seed)
        lower = self._swapped(w.splat(tick, "i64", width))
        if self.draw.distribution == "integers":
            self.given = [f"{self.wide} {w.splat(words[x], 'i64', width)}" for x in ("low", "span")]
        begin = w.mul(unit, UNIT_GROUPS)
        end = w.least(w.add(begin, UNIT_GROUPS), words["groups"])
        first = w.at(words["values"], w.mul(begin, each), self.kind)
        if outer is not None:
            outer.clear()

        def group(number: str) -> None:
            blocks = self._swapped(self.numbered(w.mul(number, width)))
            bits = self._bits(*self._rounds(blocks, lower, keys))
            made = [self._number(x) for x in bits]
            start = w.mul(w.sub(number, begin), each)

            def store(masks: list[str | None]) -> None:
                for i, (mask, (value, *rest)) in enumerate(zip(masks, made, strict=True)):
                    place = w.add(start, i * self.across)
                    to = w.at(first, place, self.kind)
                    w.store_lanes(self.kind, self.across, value, to, mask)
                    if outer is not None:
                        outer.note(place, rest[0], rest[1], mask)

            left = w.sub(words["elements"], w.mul(number, each))
            w.in_lanes(left, self.across, self.parts, self.has_masks, store)

        w.loop(end, group, start=begin)
        if outer is not None:
            outer.write(first)

    def numbered(self, first: Word) -> str:
        """Return first, first + 1, ..."""
        numbers = ", ".join(f"i64 {i}" for i in range(self.width))
        return self.w.let(
            f"add {self.wide} {self.w.splat(str(first), 'i64', self.width)}, <{numbers}>"
        )

    def _keys(self, seed: str) -> list[tuple[str, str]]:
        """Return the two key words of each round, in the upper halves of all lanes."""
        w = self.w
        high, low = w.let(f"and i64 {seed}, {-1 << 32}"), w.let(f"shl i64 {seed}, 32")

        def key(word: str, weyl: int, step: int) -> str:
            return w.splat(str(w.add(word, (step * weyl & _MASK32) << 32)), "i64", self.width)

        return [
            (key(low, philox.WEYL_0, step), key(high, philox.WEYL_1, step))
            for step in range(philox.ROUNDS)
        ]

    def _rounds(self, upper: str, lower: str, keys: Sequence[tuple[str, str]]) -> tuple[str, str]:
        for upper_key, lower_key in keys:
            from_upper = self._product(upper, philox.MULTIPLIER_0)
            from_lower = self._product(lower, philox.MULTIPLIER_1)
            upper = self._mixed(from_lower, upper, upper_key)
            lower = self._mixed(from_upper, lower, lower_key)
        return upper, lower

    def _product(self, number: str, multiplier: int) -> str:
        top = self.w.let(f"lshr {self.wide} {number}, splat (i64 32)")
        return self.w.let(f"mul nuw {self.wide} {top}, splat (i64 {multiplier})")

    def _mixed(self, product: str, number: str, key: str) -> str:
        bottom = self.w.let(f"shl {self.wide} {number}, splat (i64 32)")
        mixed = self.w.let(f"xor {self.wide} {bottom}, {key}")
        return self.w.let(f"xor {self.wide} {mixed}, {product}")

    def _swapped(self, numbers: str) -> str:
        """Return numbers with their halves swapped."""
        wide = self.wide
        rotate = f"@llvm.fshl.v{self.width}i64"
        return self.w.let(
            f"call {wide} {rotate}({wide} {numbers}, {wide} {numbers}, {wide} splat (i64 32))"
        )

    def _bits(self, upper: str, lower: str) -> list[str]:
        """Return the words of the blocks in order, in as many vectors as there are parts."""
        w, width = self.w, self.width
        pairs = self._swapped(upper), self._swapped(lower)
        order = [lane + half * width for lane in range(width) for half in (0, 1)]
        found = [self._picked(self.wide, pairs, order[i : i + width]) for i in (0, width)]
        if self.draw.words == 2:
            return found
        single = f"<{2 * width} x i32>"
        found = [w.let(f"bitcast {self.wide} {x} to {single}") for x in found]
        if self.across == 2 * width:
            return found
        halves = [list(range(i, i + width)) for i in (0, width)]
        return [self._picked(single, (x, "poison"), half) for x in found for half in halves]

    def _picked(self, kind: str, pair: tuple[str, str], lanes: Sequence[int]) -> str:
        picked = ", ".join(f"i32 {i}" for i in lanes)
        return self.w.let(
            f"shufflevector {kind} {pair[0]}, {kind} {pair[1]}, <{len(lanes)} x i32> <{picked}>"
        )

    def _number(self, bits: str) -> list[str]:
        """Return elements as they lie in memory; of normal ones, which are outer, and offsets."""
        kinds = [self.made]
        if self.draw.distribution == "normal":
            kinds += [f"<{self.across} x i1>", f"<{self.across} x double>"]
        vector = f"<{self.across} x {element_type(self.draw.bits)}>"
        return self.called("number", kinds, [f"{vector} {bits}", *self.given])


class _Outer:
    """The normal numbers of a unit that are not central: their offsets and places, on the stack."""

    def __init__(self, code: _Code) -> None:
        self.code, self.w = code, code.w
        room = UNIT_GROUPS * code.parts * code.across + code.width
        self.offsets = self.w.let(f"alloca double, i64 {room}, align 64")
        self.places = self.w.let(f"alloca i64, i64 {room}, align 64")
        self.count = self.w.let("alloca i64, align 8")

    def clear(self) -> None:
        """Begin a unit."""
        self.w.store("i64", "0", self.count, 8)

    def note(self, place: Word, outer: str, offsets: str, mask: str | None) -> None:
        """Keep the outer ones of a vector of elements."""
        w, code, width = self.w, self.code, self.code.width
        if mask is not None:
            outer = w.let(f"and <{width} x i1> {outer}, {mask}")
        count = w.load("i64", self.count, 8)
        for kind, values, to in (
            ("double", offsets, self.offsets),
            ("i64", code.numbered(place), self.places),
        ):
            vector = code.vector(kind)
            name = f"@llvm.experimental.vector.compress.{suffix(kind, width)}"
            given = f"{vector} {values}, <{width} x i1> {outer}, {vector} poison"
            packed = w.let(f"call {vector} {name}({given})")
            w.store(vector, packed, w.at(to, count, kind), 8)
        bits = w.let(f"bitcast <{width} x i1> {outer} to i{width}")
        found = w.let(f"call i{width} @llvm.ctpop.i{width}(i{width} {bits})")
        w.store("i64", str(w.add(count, w.let(f"zext i{width} {found} to i64"))), self.count, 8)

    def write(self, first: str) -> None:
        """Compute them and put them where they belong."""
        w, code, width = self.w, self.code, self.code.width
        count, doubles = w.load("i64", self.count, 8), code.vector("double")

        def vector(start: str) -> None:
            (mask,) = w.masks(w.sub(count, start), width, 1)
            there = w.at(self.offsets, start, "double")
            offsets = w.load_lanes("double", width, there, mask)
            places = w.load_lanes("i64", width, w.at(self.places, start, "i64"), mask)
            (made,) = code.called("outer", [code.made], [f"{doubles} {offsets}"])
            scatter(w, code.kind, width, made, first, places, mask)

        w.loop(count, vector, step=width)
