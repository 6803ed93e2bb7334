"""Writes functions of textual LLVM IR: 64-bit integers with constants folded, loops, masks.

A `Word` is a 64-bit integer: a Python int, or the SSA name of one. So what is known when code is
written (a stride, an extent) is a constant in the code, and what is not is a register.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

Word = int | str
# What a loop hands from turn to turn: an LLVM type and a value.
Carried = tuple[str, Word]

_FOLDED: dict[str, Callable[[int, int], int]] = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "udiv": lambda x, y: x // y,
    "urem": lambda x, y: x % y,
}
# y for which x stays what it is.
_NEUTRAL = {"add": 0, "sub": 0, "mul": 1, "udiv": 1}
# Loops are unrolled where they are written, if at all: LLVM's own unrolling of tiles spills.
_LOOP = "!llvm.loop !0"
# What every kernel is called with: its argument block, the frame, and which chunks to do.
KERNEL_PARAMETERS = ("ptr noalias %arguments", "ptr %frame", "i64 %begin", "i64 %end")
METADATA = '!0 = distinct !{!0, !1}\n!1 = !{!"llvm.loop.unroll.disable"}'


class Writer:
    """The body of one function. `label` is the basic block being written."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.label = "entry"
        self._count = 0

    def fresh(self, stem: str) -> str:
        """Return a name that is new in this function, without its `%`."""
        self._count += 1
        return f"{stem}.{self._count}"

    def let(self, instruction: str) -> str:
        """Append an instruction and return the name of its result."""
        name = f"%{self.fresh('t')}"
        self.lines.append(f"  {name} = {instruction}")
        return name

    def do(self, instruction: str) -> None:
        """Append an instruction without a result."""
        self.lines.append(f"  {instruction}")

    # Words.

    def _binary(self, name: str, x: Word, y: Word) -> Word:
        if isinstance(x, int) and isinstance(y, int):
            return _FOLDED[name](x, y)
        if y == _NEUTRAL.get(name):
            return x
        if name in ("add", "mul") and x == _NEUTRAL[name]:
            return y
        return self.let(f"{name} i64 {x}, {y}")

    def add(self, x: Word, y: Word) -> Word:
        """Return x + y."""
        return self._binary("add", x, y)

    def sub(self, x: Word, y: Word) -> Word:
        """Return x - y."""
        return self._binary("sub", x, y)

    def mul(self, x: Word, y: Word) -> Word:
        """Return x * y."""
        return self._binary("mul", x, y)

    def div(self, x: Word, y: Word) -> Word:
        """Return x // y; neither is negative."""
        return self._binary("udiv", x, y)

    def rem(self, x: Word, y: Word) -> Word:
        """Return x % y; neither is negative."""
        return self._binary("urem", x, y)

    def divmod(self, x: Word, y: Word) -> tuple[Word, Word]:
        """Return x // y and x % y; neither is negative."""
        quotient = self.div(x, y)
        return quotient, self.sub(x, self.mul(quotient, y))

    def least(self, x: Word, y: Word) -> Word:
        """Return the smaller one."""
        if isinstance(x, int) and isinstance(y, int):
            return min(x, y)
        return self.let(f"call i64 @llvm.smin.i64(i64 {x}, i64 {y})")

    def most(self, x: Word, y: Word) -> Word:
        """Return the larger one."""
        if isinstance(x, int) and isinstance(y, int):
            return max(x, y)
        return self.let(f"call i64 @llvm.smax.i64(i64 {x}, i64 {y})")

    def compare(self, predicate: str, x: Word, y: Word) -> str:
        """Return an i1: `slt`, `sle`, `eq`, ..."""
        return self.let(f"icmp {predicate} i64 {x}, {y}")

    def choose(self, condition: str, x: Word, y: Word) -> Word:
        """Return x where the i1 holds, else y."""
        return self.let(f"select i1 {condition}, i64 {x}, i64 {y}")

    # Memory.

    def at(self, pointer: str, index: Word, kind: str) -> str:
        """Return the place of an element of type `kind` after a pointer."""
        if index == 0:
            return pointer
        return self.let(f"getelementptr {kind}, ptr {pointer}, i64 {index}")

    def load(self, kind: str, pointer: str, align: int) -> str:
        """Return what is at a pointer."""
        return self.let(f"load {kind}, ptr {pointer}, align {align}")

    def store(self, kind: str, value: str, pointer: str, align: int) -> None:
        """Write a value to a pointer."""
        self.do(f"store {kind} {value}, ptr {pointer}, align {align}")

    # Vectors.

    def masks(self, count: Word, width: int, vectors: int) -> list[str | None]:
        """Return the masks of the lanes of some vectors that are below a count, 0 or more."""
        short = self.let(f"trunc i64 {self.least(count, vectors * width)} to i32")
        limit = self.splat(short, "i32", width)
        found: list[str | None] = []
        for first in range(0, vectors * width, width):
            lanes = ", ".join(f"i32 {first + lane}" for lane in range(width))
            found.append(self.let(f"icmp slt <{width} x i32> <{lanes}>, {limit}"))
        return found

    def in_lanes(
        self, count: Word, width: int, vectors: int, has_masks: bool,
        body: Callable[[list[str | None]], None],
    ) -> None:  # fmt: skip
        """Run the body with the masks of some vectors, of which `count` lanes are there.

        Where masks are dear there is a way without them, for when all lanes are there.
        """

        def partial() -> None:
            body(self.masks(count, width, vectors))

        if has_masks:
            return partial()
        is_whole = self.compare("sge", count, vectors * width)
        return self.either(is_whole, lambda: body([None] * vectors), partial)

    def splat(self, value: str, kind: str, width: int) -> str:
        """Return a vector with a value in every lane."""
        vector, zeros = f"<{width} x {kind}>", f"<{width} x i32> zeroinitializer"
        one = self.let(f"insertelement {vector} poison, {kind} {value}, i64 0")
        return self.let(f"shufflevector {vector} {one}, {vector} poison, {zeros}")

    def load_lanes(self, kind: str, width: int, pointer: str, mask: str | None) -> str:
        """Return elements of type `kind`: all, or those where a mask holds, else 0."""
        vector, size = f"<{width} x {kind}>", element_bytes(kind)
        if mask is None:
            return self.load(vector, pointer, size)
        name = f"@llvm.masked.load.{suffix(kind, width)}.p0"
        place = f"ptr align {size} {pointer}, <{width} x i1> {mask}"
        return self.let(f"call {vector} {name}({place}, {vector} zeroinitializer)")

    def store_lanes(
        self, kind: str, width: int, value: str, pointer: str, mask: str | None
    ) -> None:
        """Write elements of type `kind`: all, or those where a mask holds."""
        vector, size = f"<{width} x {kind}>", element_bytes(kind)
        if mask is None:
            return self.store(vector, value, pointer, size)
        name = f"@llvm.masked.store.{suffix(kind, width)}.p0"
        place = f"ptr align {size} {pointer}, <{width} x i1> {mask}"
        return self.do(f"call void {name}({vector} {value}, {place})")

    def multiply_add(self, kind: str, width: int, has_fma: bool, x: str, y: str, z: str) -> str:
        """Return x · y + z, rounded once if `has_fma`."""
        vector = f"<{width} x {kind}>"
        if not has_fma:
            product = self.let(f"fmul {vector} {x}, {y}")
            return self.let(f"fadd {vector} {z}, {product}")
        name = f"@llvm.fma.{suffix(kind, width)}"
        return self.let(f"call {vector} {name}({vector} {x}, {vector} {y}, {vector} {z})")

    # Control flow.

    def begin(self, label: str) -> None:
        """Start a basic block."""
        self.lines.append(f"{label}:")
        self.label = label

    def when(self, condition: str, body: Callable[[], None]) -> None:
        """Run the body if the i1 holds."""
        inside, after = self.fresh("when"), self.fresh("after")
        self.do(f"br i1 {condition}, label %{inside}, label %{after}")
        self.begin(inside)
        body()
        self.do(f"br label %{after}")
        self.begin(after)

    def either(self, condition: str, body: Callable[[], None], other: Callable[[], None]) -> None:
        """Run one of two bodies."""
        yes, no, after = self.fresh("either"), self.fresh("or"), self.fresh("after")
        self.do(f"br i1 {condition}, label %{yes}, label %{no}")
        for label, part in ((yes, body), (no, other)):
            self.begin(label)
            part()
            self.do(f"br label %{after}")
        self.begin(after)

    def switch(self, value: Word, cases: Sequence[int], body: Callable[[int], None]) -> None:
        """Run the body for the case that the value is; it is one of them."""
        after, labels = self.fresh("after"), [self.fresh("case") for _ in cases]
        listed = [f"i64 {case}, label %{x}" for case, x in zip(cases, labels, strict=True)]
        self.do(f"switch i64 {value}, label %{labels[0]} [ {' '.join(listed)} ]")
        for case, label in zip(cases, labels, strict=True):
            self.begin(label)
            body(case)
            self.do(f"br label %{after}")
        self.begin(after)

    def repeat(
        self,
        start: Sequence[Carried],
        condition: Callable[[list[str]], str],
        body: Callable[[list[str]], Sequence[Word]],
    ) -> list[str]:
        """Replace values by those that the body gives while the condition (an i1) holds."""
        before, head = self.label, self.fresh("head")
        inside, after = self.fresh("inside"), self.fresh("after")
        self.do(f"br label %{head}")
        self.begin(head)
        place = len(self.lines)
        names = [f"%{self.fresh('turn')}" for _ in start]
        found = condition(names)
        self.do(f"br i1 {found}, label %{inside}, label %{after}")
        self.begin(inside)
        results = body(names)
        end = self.label
        self.do(f"br label %{head}, {_LOOP}")
        self.lines[place:place] = [
            f"  {name} = phi {kind} [ {first}, %{before} ], [ {result}, %{end} ]"
            for name, (kind, first), result in zip(names, start, results, strict=True)
        ]
        self.begin(after)
        return names

    def loop(
        self, stop: Word, body: Callable[[str], None], start: Word = 0, step: Word = 1
    ) -> None:
        """Run the body for start, start + step, ... as long as that is below stop."""

        def turn(values: list[str]) -> list[Word]:
            body(values[0])
            return [self.add(values[0], step)]

        self.repeat([("i64", start)], lambda values: self.compare("slt", values[0], stop), turn)


def vector_of(kind: str, width: int) -> str:
    """Return the LLVM type of so many elements."""
    return kind if width == 1 else f"<{width} x {kind}>"


def element_bytes(kind: str) -> int:
    """Return the size of an LLVM element type."""
    return {"float": 4, "double": 8}.get(kind) or int(kind[1:]) // 8


def suffix(kind: str, width: int) -> str:
    """Return a vector type as it stands in the name of an intrinsic: `v16f32`."""
    return f"v{width}" + {"float": "f32", "double": "f64"}.get(kind, kind)


def function(
    name: str, parameters: Sequence[str], writer: Writer, attributes: str, linkage: str = ""
) -> str:
    """Return the text of a function without a result."""
    head = f"define {linkage} void @{name}({', '.join(parameters)}) {attributes} {{"
    return "\n".join((head, "entry:", *writer.lines, "  ret void", "}"))
