"""The user's source: the text of the expression that an instruction of theirs computes."""

from __future__ import annotations

import itertools
import linecache
import types

_MAX_TEXT = 80


def expression_at(code: types.CodeType, instruction: int) -> str:
    """Return the source text of the expression at an instruction (`frame.f_lasti`), on one line.

    Returns "" where the source is not at hand.
    """
    places = itertools.islice(code.co_positions(), instruction // 2, None)
    first, last, start, end = next(places, (None,) * 4)
    if first is None or last is None or start is None or end is None:
        return ""
    lines = [linecache.getline(code.co_filename, n).rstrip("\n") for n in range(first, last + 1)]
    if not all(lines):
        return ""
    pieces = [line.encode() for line in lines]  # columns count bytes
    pieces[-1] = pieces[-1][:end]
    pieces[0] = pieces[0][start:]
    text = " ".join(piece.decode(errors="replace").strip() for piece in pieces)
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 3] + "..."
