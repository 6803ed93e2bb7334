"""The JSON in model.tg: strict, bounded, never a RecursionError."""

from __future__ import annotations

import io
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.test_container import saved
from tests.test_container_hostile import refused
from tracegraph.errors import FileFormatError
from tracegraph.files.container import Container, Limits, read_json
from tracegraph.files.strict_json import parse_json


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "Expecting value"),
        (b"{", "brackets do not match"),
        (b"[}", "Expecting"),
        (b"nul", "Expecting value"),
        (b"1 2", "Extra data"),
        (b"\xff", "utf-8"),
        (b"\xef\xbb\xbf1", "BOM"),
        ("[1]".encode("utf-16"), "utf-8"),
        (b'"\\ud800"', "surrogates"),
        (b'{"\\uDFFF":1}', "surrogates"),
        (b'{"a":1,"b":2,"a":1}', "'a' appears twice"),
        (b'[{"":{"\\u0061":1,"a":2}}]', "'a' appears twice"),
        (b"NaN", "NaN"),
        (b"[-Infinity]", "-Infinity"),
        (b"1e999", "1e999 is too large"),
        (b"-1e400", "-1e400 is too large"),
        (b"9" * 400 + b".0", "too large"),
        (b"1" * 1_000_000, "1000000 characters"),
        (b"0." + b"1" * 1_000_000, "too large"),
        (b"[" * 65 + b"]" * 65, "deeper than 64"),
        (b"[" * 1_000_000, "deeper than 64"),
        (b"[" * 500_000 + b"]" * 500_000, "deeper than 64"),
        (b'{"":' * 65 + b"1" + b"}" * 65, "deeper than 64"),
        (b'"\\\\",' + b"[" * 100_000 + b'"', "deeper than 64"),
        (
            b"{" + b",".join(b'"%d":0' % (n // 2) for n in range(40_000, 0, -1)) + b"}",
            "'19999' appears",
        ),
    ],
)
def test_strict_json(data: bytes, words: str) -> None:
    container = Container.open(io.BytesIO(saved({"x.json": data})))
    with refused(f"^the file object: member 'x.json' is not JSON .*{words}"):
        read_json(container, "x.json")


def test_json_that_is_fine() -> None:
    deep = b"[" * 32 + b'{"":' * 32 + b"1" + b"}" * 32 + b"]" * 32
    assert parse_json(deep, 64) == json.loads(deep)
    for text in (
        '"\\ud83d\\ude00"',
        '"[[[{{{\\"[[["',
        '["\\\\",[]]',
        "1" * 640,
        "1e308",
        "-0.0",
        "1",
    ):
        assert parse_json(text.encode(), 1 + ("[]" in text)) == json.loads(text)
    container = Container.open(io.BytesIO(saved({"x.json": b"[" * 3000 + b"]" * 3000})))
    with suppress(FileFormatError):  # as the interpreter's stack allows; but no RecursionError
        read_json(container, "x.json", Limits(max_json_depth=3000))


def depth(value: Any) -> int:
    if isinstance(value, dict | list):
        items = value.values() if isinstance(value, dict) else value
        return 1 + max(map(depth, items), default=0)
    return 0


TEXTS = st.text('[]{}"\\,:aé\n', max_size=6)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=20,
)


@given(VALUES, st.booleans(), st.sampled_from([None, 1]))
def test_json_depth_is_exact(value: Any, ascii_only: bool, indent: int | None) -> None:
    data = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    assert parse_json(data, depth(value)) == value
    if depth(value):
        with pytest.raises(ValueError, match="deeper"):
            parse_json(data, depth(value) - 1)


@given(st.text('[]{}"\\,:1u', max_size=60))
def test_json_depth_is_never_underestimated(text: str) -> None:
    with suppress(ValueError):
        assert depth(parse_json(text.encode(), 2)) <= 2
