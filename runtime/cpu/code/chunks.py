"""How many units of work make a chunk, which a thread takes at a time."""

from __future__ import annotations

from typing import Final

# Long against what taking one costs (0.1 us), short against a kernel that two threads share.
CHUNK_NS: Final = 4000


def units_in_chunk(units: int, unit_ns: float, chunk_ns: int = CHUNK_NS) -> int:
    """Return how many units of about `unit_ns` make a chunk; by sizes alone, not by threads."""
    return max(1, min(units, int(chunk_ns / max(unit_ns, 1))))
