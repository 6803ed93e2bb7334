"""Vectors of elements that may not follow each other in memory."""

from __future__ import annotations

from tracegraph.runtime.cpu.code.writer import Word, Writer, element_bytes, suffix

ALL_LANES = "splat (i1 true)"


def steps_of(w: Writer, width: int, stride: Word) -> str:
    """Return the vector 0, stride, 2 * stride, ..."""
    numbers = ", ".join(f"i64 {i}" for i in range(width))
    return w.let(f"mul <{width} x i64> <{numbers}>, {w.splat(str(stride), 'i64', width)}")


def gather(
    w: Writer, kind: str, width: int, pointer: str, offsets: str, mask: str | None
) -> str:  # fmt: skip
    """Return the elements at offsets, an i64 vector; 0 where a mask does not hold."""
    vector, tail = f"<{width} x {kind}>", f"{suffix(kind, width)}.v{width}p0"
    pointers = w.let(f"getelementptr {kind}, ptr {pointer}, <{width} x i64> {offsets}")
    place = f"<{width} x ptr> align {element_bytes(kind)} {pointers}"
    there = f"<{width} x i1> {mask or ALL_LANES}"
    return w.let(
        f"call {vector} @llvm.masked.gather.{tail}({place}, {there}, {vector} zeroinitializer)"
    )


def scatter(
    w: Writer, kind: str, width: int, value: str, pointer: str, offsets: str, mask: str | None
) -> None:  # fmt: skip
    """Write the elements of a vector at offsets after a pointer, those where a mask holds."""
    vector, tail = f"<{width} x {kind}>", f"{suffix(kind, width)}.v{width}p0"
    pointers = w.let(f"getelementptr {kind}, ptr {pointer}, <{width} x i64> {offsets}")
    place = f"<{width} x ptr> align {element_bytes(kind)} {pointers}"
    there = f"<{width} x i1> {mask or ALL_LANES}"
    w.do(f"call void @llvm.masked.scatter.{tail}({vector} {value}, {place}, {there})")


def reversed_lanes(
    w: Writer, kind: str, width: int, pointer: str, start: Word, mask: str | None
) -> str:
    """Return the elements at -start, -start - 1, ... after a pointer; 0 where there is none."""
    order = ", ".join(f"i32 {i}" for i in reversed(range(width)))

    def turned(element: str, vector: str) -> str:
        whole = f"<{width} x {element}>"
        return w.let(f"shufflevector {whole} {vector}, {whole} poison, <{width} x i32> <{order}>")

    place = w.at(pointer, w.sub(1 - width, start), kind)
    return turned(kind, w.load_lanes(kind, width, place, mask and turned("i1", mask)))
