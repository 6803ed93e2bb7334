"""What the code of many kernels begins with: words, units of work in chunks, vectors of a range."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from tracegraph.runtime.cpu.code.llvm import Target
from tracegraph.runtime.cpu.code.scalar_language import new_library
from tracegraph.runtime.cpu.code.writer import (
    KERNEL_PARAMETERS,
    METADATA,
    Word,
    Writer,
    function,
    vector_of,
)


class Lanes(NamedTuple):
    """A vector: where it begins among the lanes, and which of its elements are there."""

    start: Word
    mask: str | None


class UnitCode:
    """The kernel being written: its words by name, a library of functions, the width of vectors.

    Among the words are `units` and `chunk`, how many units a chunk has.
    """

    def __init__(self, target: Target, width: int) -> None:
        self.w, self.library, self.width = Writer(), new_library(target), max(1, width)
        self.words: dict[str, str] = {}

    def text(
        self, name: str, slots: Sequence[str], pointers: Collection[str],
        unit: Callable[[str], None], before: Callable[[], None] = lambda: None,
    ) -> str:  # fmt: skip
        """Return the module: `unit` writes what is done for a unit, whose number it is given.

        `before` writes what comes before all units, once the words are there.
        """
        w, words = self.w, self.words
        for i, slot in enumerate(slots):
            kind = "ptr" if slot in pointers else "i64"
            words[slot] = w.load(kind, w.at("%arguments", i, "i64"), 8)
        before()
        first = w.mul("%begin", words["chunk"])
        last = w.least(w.mul("%end", words["chunk"]), words["units"])
        w.loop(last, unit, start=first)
        kernel = function(name, KERNEL_PARAMETERS, w, "nounwind")
        return "\n".join((self.library.text(), kernel, METADATA))

    def places(self, number: Word, dims: Sequence[str]) -> list[Word]:
        """Return a number's place along each dim, of extents that words name; row-major."""
        found: list[Word] = []
        for dim in reversed(dims[1:]):
            number, place = self.w.divmod(number, self.words[dim])
            found.insert(0, place)
        return [number, *found] if dims else []

    def block(self, number: Word) -> tuple[Word, Word]:
        """Return where a block of lanes begins and ends."""
        begin = self.w.mul(number, self.words["block"])
        return begin, self.w.least(self.w.add(begin, self.words["block"]), self.words["lanes"])

    def over(self, begin: Word, end: Word, body: Callable[[Lanes], None]) -> None:
        """Run the body on the vectors of a range, the last one masked."""
        self.over_groups(begin, end, 1, lambda lanes: body(lanes[0]))

    def over_groups(
        self, begin: Word, end: Word, most: int, body: Callable[[list[Lanes]], None]
    ) -> None:
        """Run the body on a range: `most` vectors at a time, then single ones, the last masked."""
        w, width = self.w, self.width
        for count in (most, 1) if most > 1 else (1,):
            step = count * width
            stop = w.sub(end, w.rem(w.sub(end, begin), step))

            def several(place: str, count: int = count) -> None:
                body([Lanes(w.add(place, u * width), None) for u in range(count)])

            w.loop(stop, several, start=begin, step=step)
            begin = stop
        if width == 1:
            return
        left = w.sub(end, begin)

        def rest() -> None:
            (mask,) = w.masks(left, width, 1)
            body([Lanes(begin, mask)])

        w.when(w.compare("sgt", left, 0), rest)

    def vector(self, kind: str) -> str:
        """Return the type of a vector of elements."""
        return vector_of(kind, self.width)

    def called(self, symbol: str, kinds: Sequence[str], given: Sequence[str]) -> list[str]:
        """Call a function of the library; `kinds` are the types of its results."""
        returned = kinds[0] if len(kinds) == 1 else f"{{ {', '.join(kinds)} }}"
        got = self.w.let(f"call {returned} @{symbol}({', '.join(given)})")
        if len(kinds) == 1:
            return [got]
        return [self.w.let(f"extractvalue {returned} {got}, {i}") for i in range(len(kinds))]
