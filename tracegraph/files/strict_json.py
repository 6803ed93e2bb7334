"""A strict parser for the JSON in `model.tg`: bounded, unambiguous, and finite."""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final

MAX_NUMBER_CHARACTERS: Final = 640  # int() takes quadratic time

_NOT_STRUCTURE: Final = bytes(set(range(256)) - set(b'[]{}"'))
_TO_SQUARE: Final = bytes.maketrans(b"{}", b"[]")


def parse_json(data: bytes, max_depth: int) -> Any:
    """Parse JSON in UTF-8, as `json.loads` does but strictly.

    Raises:
        ValueError: It is not JSON in UTF-8, is nested deeper than `max_depth`, has duplicate keys,
            NaN or infinite numbers, lone surrogates, or a number of more than
            `MAX_NUMBER_CHARACTERS`.
    """
    if not _is_shallow(data, max_depth):
        raise ValueError(f"its brackets do not match or nest deeper than {max_depth}")
    value = json.loads(
        data.decode("utf-8"),
        object_pairs_hook=_unique_keys,
        parse_int=_bounded_int,
        parse_float=_finite_float,
        parse_constant=_no_constant,
    )
    if re.search(rb"\\u[dD][89a-fA-F]", data):  # perhaps one half of a pair: then a ValueError
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


def _is_shallow(data: bytes, max_depth: int) -> bool:
    """Whether the brackets outside of strings match and nest at most so deep.

    A round takes away the innermost brackets. Up to the first error in the JSON, where the parser
    stops, this sees the same brackets as the parser, so it never sees fewer.
    """
    if b"\\" in data:
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    data = data.translate(_TO_SQUARE, _NOT_STRUCTURE)
    data = re.sub(rb'"[^"]*"?', b"", data)
    for _ in range(max_depth):
        if not data:
            break
        data = data.replace(b"[]", b"")
    return not data


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        for key, _ in pairs:
            if key not in result:
                raise ValueError(f"the key {key[:80]!a} appears twice in one object")
            del result[key]
    return result


def _bounded_int(text: str) -> int:
    if len(text) > MAX_NUMBER_CHARACTERS:
        raise ValueError(f"a number has {len(text)} characters")
    return int(text)


def _finite_float(text: str) -> float:
    value = float(text) if len(text) <= MAX_NUMBER_CHARACTERS else math.inf
    if math.isinf(value):
        raise ValueError(f"the number {text[:80]} is too large")
    return value


def _no_constant(text: str) -> float:
    raise ValueError(f"the token {text} is not a number")
