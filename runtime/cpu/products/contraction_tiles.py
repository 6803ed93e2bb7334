"""The innermost kernel of contractions: a tile of the product kept in registers.

A tile is `rows` × `vectors` registers. For each k it loads `vectors` vectors of B, broadcasts one
element of A per row, and adds the products: rows · vectors independent chains, enough to hide the
latency of FMA, with few loads (van Zee and van de Geijn 2015, "BLIS: a framework for rapidly
instantiating BLAS functionality"). Each element is the sum over k in order, whatever the tile.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from tracegraph.dtypes import DType
from tracegraph.runtime.cpu.code.llvm import Target
from tracegraph.runtime.cpu.code.values import element_type
from tracegraph.runtime.cpu.code.writer import Word, Writer, function


class Tile(NamedTuple):
    """The shapes of tiles: `heights`, tallest first, by `vectors` of `width` elements.

    Rows that the tallest leaves over are done by the next that fits, down to 1: nothing is padded.
    """

    heights: tuple[int, ...]
    vectors: int
    width: int

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """Heights, and how many panels are done at once."""
        wide = tuple((height, TOGETHER[height]) for height in self.heights if height in TOGETHER)
        return (*((height, 1) for height in self.heights), *wide)

    @property
    def columns(self) -> int:
        """How many columns a tile has: the width of a panel of B."""
        return self.vectors * self.width


# Registers of 64 bytes: 14 × 2 + 2 of 32. Of 32 and 16 bytes (16 on x86, 32 on AArch64, where a
# multiplication may take one lane of a register): 6 × 2 + 2 + 1, 4 × 2 + 2 + 2 without FMA.
# GFLOP/s on one Zen 4 core (peak 117), sums over 192 in cache: 8 × 2: 85-105, 8 × 3, 6 × 4, 14 × 2,
# 14 × 1: 111-112; AVX2: 6 × 2: 112, 4 × 2: 105, 3 × 4: 48.
_HEIGHTS: Final = {64: (14, 6, 4, 2, 1), 32: (6, 4, 2, 1), 16: (4, 2, 1)}
# Panels that low tiles do at once: for chains enough, and because memory answers faster to several
# streams. One row by 4096 × 1024 takes 202 us in place of 228, 515 for 585 where no cache holds it.
TOGETHER: Final = {1: 4, 2: 2}
# Bytes that a cache fetches at once.
LINE: Final = 64


def tile_for(target: Target, dtype: DType, columns: int | None = None) -> Tile:
    """Return the tile for a target, and for a number of columns if that is known."""
    width = target.vector_bytes // dtype.itemsize
    vectors = 1 if columns is not None and columns <= width else 2
    return Tile(_HEIGHTS[target.vector_bytes], vectors, width)


class TileCode(NamedTuple):
    """What the code of a tile depends on: element (row, k) of A is a[row · a_row + k · a_step].

    One that `goes_on` does so with the sums that are there, and has the cache fetch what follows.
    """

    height: int
    vectors: int
    width: int
    dtype: DType
    a_row: int
    a_step: int
    has_fma: bool
    panels: int = 1
    is_spread: bool = False
    goes_on: bool = False

    @property
    def name(self) -> str:
        """A name that tells it from others."""
        lanes = f"{self.dtype.code}x{self.width}"
        fma = ("" if self.has_fma else "_unfused") + ("_spread" if self.is_spread else "")
        fma += "_on" if self.goes_on else ""
        shape = f"{self.height}x{self.panels}x{self.vectors}"
        return f"tile_{shape}_{lanes}_{self.a_row}_{self.a_step}{fma}"


def tile_text(code: TileCode) -> str:
    """Return the function (ptr a, ptr b, ptr sums, i64 k, i64 far); sums[panels, height, columns].

    Element (k, column) of panel p is b[p · far + k · columns + column]; one panel has no `far`.
    Where B is spread there is a last parameter `step` in place of columns. One that goes on
    has parameters `first`, the k at which it is (0: it begins), and `following`, of which it has
    a `LINE` of the cache fetched for each k.
    Modules that hold the same tile can be linked together: one of them is kept.
    """
    w, element = Writer(), element_type(code.dtype)
    vector, bytes_each = f"<{code.width} x {element}>", code.width * code.dtype.itemsize
    panels = ["%b"]
    for _ in range(1, code.panels):
        panels.append(w.at(panels[-1], "%far", element))
    places = _sums_of(w, code, element)
    start = ["zeroinitializer"] * len(places)
    if code.goes_on:
        begins = w.compare("eq", "%first", 0)
        before = [w.load(vector, place, bytes_each) for place in places]
        start = [
            w.let(f"select i1 {begins}, {vector} zeroinitializer, {vector} {x}") for x in before
        ]
    _, *sums = w.repeat(
        [("i64", 0), *((vector, x) for x in start)],
        lambda values: w.compare("slt", values[0], "%k"),
        lambda values: _added(w, code, panels, values[0], values[1:]),
    )
    for total, place in zip(sums, places, strict=True):
        w.store(vector, total, place, bytes_each)
    parameters = ["ptr noalias %a", "ptr noalias %b", "ptr noalias %sums", "i64 %k"]
    parameters += ["i64 %far"] if code.panels > 1 else []
    parameters += ["i64 %step"] if code.is_spread else []
    parameters += ["i64 %first", "ptr %following"] if code.goes_on else []
    return function(code.name, parameters, w, "nounwind noinline", "linkonce_odr hidden")


def _added(w: Writer, code: TileCode, panels: list[str], k: str, sums: list[str]) -> list[Word]:
    """Return the next k, and the sums with the products of this one added."""
    element, size = element_type(code.dtype), code.dtype.itemsize
    vector, columns = f"<{code.width} x {element}>", code.vectors * code.width
    align = size if code.is_spread else code.width * size
    a = w.at("%a", w.mul(k, code.a_step), element)
    offset = w.mul(k, "%step" if code.is_spread else columns)
    loaded = [
        w.load(vector, w.at(w.at(b, offset, element), v * code.width, element), align)
        for b in panels
        for v in range(code.vectors)
    ]
    if code.goes_on:
        following = w.at("%following", w.mul(k, LINE), "i8")
        w.do(f"call void @llvm.prefetch.p0(ptr {following}, i32 0, i32 2, i32 1)")
    found = [w.add(k, 1)]
    for row in range(code.height):
        factor = w.load(element, w.at(a, row * code.a_row, element), size)
        factors = w.splat(factor, element, code.width)
        for column in loaded:
            total = sums[len(found) - 1]
            made = w.multiply_add(element, code.width, code.has_fma, factors, column, total)
            found.append(made)
    return found


def _sums_of(w: Writer, code: TileCode, element: str) -> list[str]:
    """Return where the vectors of sums are: of a row, those of panels one after another."""
    found = []
    for row in range(code.height):
        for panel in range(code.panels):
            start = (panel * code.height + row) * code.vectors * code.width
            found += [w.at("%sums", start + v * code.width, element) for v in range(code.vectors)]
    return found


class DotsCode(NamedTuple):
    """What the code of a few dot products depends on; `width`: elements of a vector."""

    width: int
    dtype: DType
    has_fma: bool

    @property
    def columns(self) -> int:
        """How many are computed at once: from so many places memory answers fastest."""
        return min(8, self.width)

    @property
    def name(self) -> str:
        """A name that tells it from others."""
        return f"dots_{self.columns}_{self.dtype.code}x{self.width}"


def dots_text(code: DotsCode) -> str:
    """Return the function (ptr a, ptr b, ptr sums, i64 k, i64 stride, i64 first, i64 last).

    sums[i] is the sum over k of a[k] · b[(first + i) · stride + k]; after the last column, of that
    one. Lanes sum every so-manieth product; then halves are added to halves.
    """
    w, width, element = Writer(), code.width, element_type(code.dtype)
    vector, size = f"<{width} x {element}>", code.dtype.itemsize
    places = []
    for i in range(code.columns):
        column = w.least(w.add("%first", i), "%last")
        places.append(w.at("%b", w.mul(column, "%stride"), element))
    whole = w.mul(w.div("%k", width), width)

    def run(start: Word, end: Word, sums: list[str], is_whole: bool) -> list[str]:
        def step(values: list[str]) -> list[Word]:
            k, *totals = values
            mask = None if is_whole else w.masks(w.sub("%k", k), width, 1)[0]
            factor = w.load_lanes(element, width, w.at("%a", k, element), mask)
            added: list[Word] = [w.add(k, width)]
            for column, total in zip(places, totals, strict=True):
                loaded = w.load_lanes(element, width, w.at(column, k, element), mask)
                added.append(w.multiply_add(element, width, code.has_fma, factor, loaded, total))
            return added

        begin = [("i64", start), *((vector, total) for total in sums)]
        return w.repeat(begin, lambda values: w.compare("slt", values[0], end), step)[1:]

    sums = run(0, whole, ["zeroinitializer"] * code.columns, is_whole=True)
    sums = run(whole, "%k", sums, is_whole=False)
    while len(sums) > 1:  # pairs are interleaved: lanes of the last vector are in order of columns
        half = len(sums) // 2
        sums = [
            _folded(w, vector, width, *pair) for pair in zip(sums[:half], sums[half:], strict=True)
        ]
    (total,), lanes = sums, width
    while lanes > code.columns:
        lanes //= 2
        kind = f"<{2 * lanes} x {element}>"
        low, high = (
            w.let(f"shufflevector {kind} {total}, {kind} poison, {_lanes(range(at, at + lanes))}")
            for at in (0, lanes)
        )
        total = w.let(f"fadd <{lanes} x {element}> {low}, {high}")
    w.store(f"<{code.columns} x {element}>", total, "%sums", size)
    parameters = ["ptr noalias %a", "ptr noalias %b", "ptr noalias %sums"]
    parameters += [f"i64 %{name}" for name in ("k", "stride", "first", "last")]
    return function(code.name, parameters, w, "nounwind noinline", "linkonce_odr hidden")


def _folded(w: Writer, vector: str, width: int, x: str, y: str) -> str:
    """Return the halves of x added in the even lanes, those of y in the odd ones."""
    parts = []
    for first in (0, width // 2):
        picked = (first + i // 2 + width * (i % 2) for i in range(width))
        parts.append(w.let(f"shufflevector {vector} {x}, {vector} {y}, {_lanes(picked)}"))
    return w.let(f"fadd {vector} {parts[0]}, {parts[1]}")


def _lanes(picked: Iterable[int]) -> str:
    lanes = [f"i32 {i}" for i in picked]
    return f"<{len(lanes)} x i32> <{', '.join(lanes)}>"
