"""Digests: a few numbers about an array that tell whether another machine computed the same.

Integers and bools have a hash. Floats have their least and greatest element, the numbers of NaN
and infinities, and a sketch: projections on fixed pseudo-random directions, which move as the root
mean square of the elements does (Johnson & Lindenstrauss 1984). What differs by rounding has a
digest that differs by little; how much is allowed is measured, see `samples.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any, Final

import numpy as np

from tracegraph.dtypes import BY_NUMPY, FLOAT_KIND, as_pairs
from tracegraph.errors import FileFormatError
from tracegraph.philox import random_bits, uniform

Digest = dict[str, Any]

_DIRECTIONS: Final = 3
_BLOCK: Final = 4096  # elements that share a row of signs
_CHUNK: Final = 256  # blocks that are turned into float64 at once: 8 MB
_SEED: Final = 0x7467
_DIGITS: Final = 9


def digest_of(array: Any) -> Digest:
    """Return the digest of an array on any device; its size does not depend on the array's."""
    host = as_pairs(_host(array))
    floats = BY_NUMPY[host.dtype].kind == FLOAT_KIND
    return _of_floats(host.reshape(-1)) if floats else exact_digest(host)


def exact_digest(array: Any) -> Digest:
    """Return a digest that only equal bits have."""
    host = _host(array)
    little = host.astype(host.dtype.newbyteorder("<"), copy=False)
    return {"sha256": hashlib.sha256(little.tobytes()).hexdigest()[:16]}


def _host(array: Any) -> Any:
    return np.asarray(array.get() if hasattr(array, "get") else array, order="C")


def _of_floats(flat: Any) -> Digest:
    low, high = np.inf, -np.inf
    odd = np.zeros(3, np.int64)
    sketch = np.zeros(_DIRECTIONS)
    size = _BLOCK * _CHUNK
    for start in range(0, flat.size, size):
        part = flat[start : start + size].astype(np.float64)
        finite = np.isfinite(part)
        if not finite.all():
            odd += (np.isnan(part).sum(), (part == np.inf).sum(), (part == -np.inf).sum())
            part = np.where(finite, part, 0.0)
        known = part[finite]
        if known.size:
            low, high = min(low, known.min()), max(high, known.max())
        sketch += _projected(part, start // size)
    found: Digest = {"sketch": [_short(s) for s in sketch / np.sqrt(max(flat.size, 1))]}
    if low <= high:
        found |= {"min": _short(low), "max": _short(high)}
    if odd.any():
        found["odd"] = odd.tolist()
    return found


def _projected(part: Any, chunk: int) -> Any:
    """The sums of a chunk's elements times the signs and weights of their places."""
    blocks = -(-part.size // _BLOCK)
    padded = np.zeros((blocks, _BLOCK))
    padded.reshape(-1)[: part.size] = part
    with np.errstate(over="ignore", invalid="ignore"):
        return (_weights(chunk)[:blocks] * (padded @ _signs())).sum(0)


@cache
def _signs() -> Any:
    bits = random_bits(np, _SEED, 0, _BLOCK * _DIRECTIONS)
    return np.where(bits & np.uint32(1), 1.0, -1.0).reshape(_BLOCK, _DIRECTIONS)


@lru_cache(maxsize=64)
def _weights(chunk: int) -> Any:
    """The weights of a chunk's blocks, of variance 1."""
    bits = random_bits(np, _SEED, 1 + chunk, _CHUNK * _DIRECTIONS * 2)
    drawn = uniform(np, bits, np.float64).reshape(_CHUNK, _DIRECTIONS)
    return (drawn * 2 - 1) * np.sqrt(3)


def _short(number: Any) -> float | None:
    """A number with as many digits as a digest needs; None if it is not finite."""
    return float(f"{number:.{_DIGITS}g}") if np.isfinite(number) else None


def noise_like(array: Any, salt: int) -> Any:
    """Return pseudo-random signs in the shape of an array; others for another salt."""
    signs = np.roll(_signs().reshape(-1), salt * 1009)
    return np.resize(signs, array.size).reshape(array.shape)


def gap_between(a: Digest, b: Digest) -> float:
    """Return how far apart two digests are: 0 for equal hashes, infinity for other ones."""
    if a.keys() != b.keys() or a.get("sha256") != b.get("sha256") or a.get("odd") != b.get("odd"):
        return np.inf
    gaps = [
        0.0 if x is y else np.inf if x is None or y is None else abs(x - y)
        for x, y in zip(_numbers(a), _numbers(b), strict=True)
    ]
    return float(max(gaps, default=0.0))


def scale_of(digest: Digest) -> float:
    """Return the size of the largest finite element; 1 for hashes."""
    return max((abs(digest[k] or 0.0) for k in ("min", "max") if k in digest), default=1.0)


def _numbers(digest: Digest) -> list[float | None]:
    return [*digest.get("sketch", ()), digest.get("min", 0.0), digest.get("max", 0.0)]


def tell(wanted: Digest, found: Digest) -> str:
    """Say how a digest differs from the one that was stored."""
    if "sha256" in wanted or "sha256" in found:
        return "other values"
    if wanted.get("odd") != found.get("odd"):
        names = ("NaN", "inf", "-inf")
        counts = (d.get("odd", [0, 0, 0]) for d in (wanted, found))
        told = [f"{b} {n} instead of {a}" for n, a, b in zip(names, *counts, strict=True) if a != b]
        return ", ".join(told)
    if "min" not in wanted or "min" not in found:
        return "other values"
    ranges = [f"[{d['min']:.6g}, {d['max']:.6g}]" for d in (wanted, found)]
    gap = gap_between(wanted, found)
    if ranges[0] == ranges[1]:
        return f"values in {ranges[0]} differ by about {gap:.3g}"
    return f"values lie in {ranges[1]} instead of {ranges[0]}"


def check_digest(data: Any) -> Digest:
    """Return data of a file that must be a digest.

    Raises:
        FileFormatError: it is none.
    """
    kinds: Mapping[str, Any] = {"sha256": str, "sketch": list, "min": float, "max": float,
                                "odd": list}  # fmt: skip
    good = isinstance(data, dict) and ("sha256" in data) != ("sketch" in data)
    if not good or any(not isinstance(v, kinds.get(k, ())) for k, v in data.items()):
        raise FileFormatError(f"{data!r:.60} is no digest; save the file again")
    numbers = [*data.get("sketch", ()), *data.get("odd", ())]
    lengths = {"sketch": _DIRECTIONS, "odd": 3}
    if any(len(data[k]) != n for k, n in lengths.items() if k in data) or any(
        not isinstance(n, (int, float, type(None))) or isinstance(n, bool) for n in numbers
    ):
        raise FileFormatError(f"{data!r:.60} is no digest; save the file again")
    return dict(data)
