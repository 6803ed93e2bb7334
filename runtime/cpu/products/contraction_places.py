"""Where the rows of a contraction are: rows of a matrix, or pixels of images."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from tracegraph.runtime.cpu.code.writer import Word, Writer


class Words(Mapping[str, str]):
    """The words of the argument block, each loaded where it is used: it costs no register.

    `pointers` are those that are pointers.
    """

    def __init__(self, w: Writer, names: Sequence[str], pointers: Collection[str]) -> None:
        self.w, self.pointers = w, pointers
        self.places = {name: i for i, name in enumerate(names)}
        self._known: dict[tuple[str, str], str] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, name: str) -> str:
        key = self.w.label, name
        if key not in self._known:
            kind = "ptr" if name in self.pointers else "i64"
            place = self.w.at("%arguments", self.places[name], "i64")
            self._known[key] = self.w.load(kind, place, 8)
        return self._known[key]


class Line:
    """Rows of a matrix: a place is the number of a row."""

    def __init__(self, w: Writer, words: Mapping[str, str]) -> None:
        self.w, self.words = w, words

    def start(self, row: Word) -> list[Word]:
        """Return the place of a row."""
        return [row]

    def following(self, place: Sequence[str]) -> list[Word]:
        """Return the place after this one."""
        return [self.w.add(place[0], 1)]

    def offset(self, name: str, place: Sequence[Word]) -> Word:
        """Return how far the row of an array is from its first element."""
        return self.w.mul(place[0], self.words[f"{name}_stride"])


class Grid(Line):
    """Places of windows, image after image: a place is (image, y, x)."""

    def start(self, row: Word) -> list[Word]:
        """Return the place of a row."""
        line, x = self.w.divmod(row, self.words["out_width"])
        image, y = self.w.divmod(line, self.words["out_height"])
        return [image, y, x]

    def following(self, place: Sequence[str]) -> list[Word]:
        """Return the place after this one."""
        w, (image, y, x) = self.w, place
        next_x, next_y = w.add(x, 1), w.add(y, 1)
        ends_line = w.compare("eq", next_x, self.words["out_width"])
        line = w.choose(ends_line, next_y, y)
        ends_image = w.compare("eq", line, self.words["out_height"])
        return [
            w.choose(ends_image, w.add(image, 1), image),
            w.choose(ends_image, 0, line),
            w.choose(ends_line, 0, next_x),
        ]

    def offset(self, name: str, place: Sequence[Word]) -> Word:
        """Return how far the pixel of an array is from its first element."""
        w, (image, y, x) = self.w, place
        parts = zip(("image", "line", "stride"), (image, y, x), strict=True)
        far: Word = 0
        for level, count in parts:
            far = w.add(far, w.mul(count, self.words[f"{name}_{level}"]))
        return far
