"""What attention is written with: memory, vectors, and copies of keys and of v to the stack."""

from __future__ import annotations

from tracegraph.runtime.cpu.code.storage import stored_dtype
from tracegraph.runtime.cpu.code.values import constant_text, element_type
from tracegraph.runtime.cpu.code.writer import Word, Writer
from tracegraph.runtime.cpu.layers.attention import Attention, slots
from tracegraph.runtime.cpu.products.contraction_staging import (
    Block,
    Lanes,
    copy_columns,
    copy_transposed,
)


class Parts:
    """Writes parts of one kernel: `words` are those of its argument block.

    `keys` and `values` are a block of keys and of v on the stack, in panels.
    """

    def __init__(self, spec: Attention, has_fma: bool) -> None:
        self.spec, self.tile, self.w, self.has_fma = spec, spec.tile, Writer(), has_fma
        self.kind, self.width = element_type(spec.dtype), spec.tile.width
        self.lanes = Lanes(self.kind, self.width)
        self.vector, self.size = f"<{self.width} x {self.kind}>", spec.dtype.itemsize
        self.columns = spec.tile.columns
        self.kinds = dict.fromkeys(("q", "k", "v", "y"), self.kind) | {"dead": "i8"}
        for i, x in enumerate(spec.score.operands):
            self.kinds[f"operand{i}"] = element_type(stored_dtype(x.dtype))
        self.depth = -(-spec.depth // self.width) * self.width
        self.out_panels = -(-spec.width // self.columns)
        self.least = constant_text(float("-inf"), spec.dtype)
        w = self.w
        self.words = {
            name: w.load("ptr" if name in spec.pointers else "i64", w.at("%arguments", i, "i64"), 8)
            for i, name in enumerate(slots(spec))
        }
        self.keys = self.memory(spec.block * self.depth + self.columns * self.width)
        self.values = self.memory(self.out_panels * spec.block * self.columns)

    def memory(self, elements: int) -> str:
        """Return memory on the stack."""
        return self.w.let(f"alloca [{elements} x {self.kind}], align 64")

    def at(self, pointer: str, *offsets: Word) -> str:
        """Return the place of an element after a pointer."""
        for offset in offsets:
            pointer = self.w.at(pointer, offset, self.kind)
        return pointer

    def load(self, pointer: str) -> str:
        """Return the vector at a pointer."""
        return self.w.load(self.vector, pointer, self.size)

    def store(self, value: str, pointer: str) -> None:
        """Write a vector to a pointer."""
        self.w.store(self.vector, value, pointer, self.size)

    def call(self, name: str, kind: str, x: str, y: str) -> str:
        """Return what a function of two values gives."""
        return self.w.let(f"call {kind} @{name}({kind} {x}, {kind} {y})")

    def number(self, number: float) -> str:
        """Return a constant."""
        return constant_text(number, self.spec.dtype)

    def splat(self, text: str) -> str:
        """Return a vector with a constant in every lane."""
        return f"splat ({self.kind} {text})"

    def folded(self, name: str, value: str) -> str:
        """Return the fold of the lanes of a vector: halves onto halves."""
        w, width = self.w, self.width
        while width > 1:
            vector, half = f"<{width} x {self.kind}>", width // 2
            parts = []
            for first in (0, half):
                if half == 1:
                    parts.append(w.let(f"extractelement {vector} {value}, i64 {first}"))
                    continue
                picked = ", ".join(f"i32 {i}" for i in range(first, first + half))
                mask = f"<{half} x i32> <{picked}>"
                parts.append(w.let(f"shufflevector {vector} {value}, {vector} poison, {mask}"))
            kind = self.kind if half == 1 else f"<{half} x {self.kind}>"
            value = self.call(f"{name}{half}", kind, *parts)
            width = half
        return value

    # Copies.

    def copy_keys(self, k: str, key: Word, count: Word) -> None:
        """Copy a block of keys as panels[panel, element, key]."""
        w, far, panel_size = self.w, self.words["k_far"], self.depth * self.columns
        if self.spec.keys == "rows":
            block = Block(self.at(k, w.mul(key, far)), far, count, self.spec.depth)

            def place(vector: str) -> Word:
                panel, part = w.divmod(vector, self.tile.vectors)
                return w.add(w.mul(panel, panel_size), w.mul(part, self.width))

            return copy_transposed(w, self.lanes, block, self.keys, self.columns, place)

        def panel(first: str) -> None:
            source = self.at(k, key, first)
            to = self.at(self.keys, w.mul(w.div(first, self.columns), panel_size))
            block = Block(source, far, self.spec.depth, self.columns)
            self._copy_panel(block, to, w.sub(count, first))

        return w.loop(count, panel, step=self.columns)

    def _copy_panel(self, block: Block, to: str, count: Word) -> None:
        places = list(range(0, self.columns, self.width))
        masks = self.w.masks(count, self.width, len(places))
        copy_columns(self.w, self.lanes, block, to, self.columns, places, masks)

    def copy_values(self, v: str, key: Word, count: Word) -> None:
        """Copy a block of v as panels[panel, key, column]."""
        w, stride = self.w, self.words["v_row"]
        start = self.at(v, w.mul(key, stride))
        for panel in range(self.out_panels):
            column = panel * self.columns
            block = Block(self.at(start, column), stride, count, self.columns)
            to = self.at(self.values, panel * self.spec.block * self.columns)
            self._copy_panel(block, to, self.spec.width - column)

    def is_finite(self, count: Word) -> str:
        """Return whether v has neither infinities nor NaNs in a block."""
        w, total = self.w, "zeroinitializer"
        size = w.mul(count, self.columns)
        for panel in range(self.out_panels):
            values = self.at(self.values, panel * self.spec.block * self.columns)

            def add(turn: list[str], values: str = values) -> list[Word]:
                place, total = turn
                found = self.load(self.at(values, place))
                zero = w.let(f"fmul {self.vector} {found}, zeroinitializer")
                added = w.let(f"fadd {self.vector} {total}, {zero}")
                return [w.add(place, self.width), added]

            start: list[tuple[str, Word]] = [("i64", 0), (self.vector, total)]
            _, total = w.repeat(start, lambda v: w.compare("slt", v[0], size), add)
        return w.let(f"fcmp ord {self.kind} {self.folded('sum', total)}, {self.number(0)}")
