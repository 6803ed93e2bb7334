"""Sizes and counts as people read them."""

from __future__ import annotations


def size_text(size_bytes: int) -> str:
    """Return a size as people read it: `512 B`, `1.5 KiB`."""
    if size_bytes < 1024:
        return f"{size_bytes} B"
    power = min((size_bytes.bit_length() - 1) // 10, 4)
    return f"{size_bytes / 1024**power:.1f} {' KMGT'[power]}iB"


def count_text(count: int, noun: str) -> str:
    """Return a number with its noun: `1 node`, `1,234 nodes`."""
    if count == 1:
        return f"1 {noun}"
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{count:,} {plural}"
