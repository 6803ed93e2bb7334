"""Numbers that PyTorch gave, kept in tests/references by `tests.tools.make_references`."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).resolve().parent / "references"
_NUMBER = re.compile(r"-?\d+\.\d*(?:e-?\d+)?")
_LINEAR = re.compile(r"<(Addmm|Linear)Backward0>")  # one node here, a choice of two in PyTorch
_KEPT = 12


def summary(array: Any) -> dict[str, Any]:
    """Return what is kept of an array: shape, dtype, evenly spaced values, sums."""
    array = np.asarray(array)
    flat = array.reshape(-1)
    step = max(1, -(-flat.size // _KEPT))
    return {
        "shape": list(array.shape),
        "dtype": str(array.dtype),
        "values": [float(f"{v:.8g}") for v in flat[::step].tolist()],
        "sum": float(f"{flat.astype(np.float64).sum():.8g}"),
        "size": float(f"{np.abs(flat.astype(np.float64)).sum():.8g}"),
    }


def check_summary(array: Any, kept: dict[str, Any], what: str, tolerance: float = 1e-4) -> None:
    """Compare an array with what is kept of PyTorch's."""
    found = summary(array)
    assert found["shape"] == kept["shape"], what
    assert found["dtype"] == kept["dtype"], what
    scale = max(1.0, kept["size"] / max(1, np.asarray(array).size))
    np.testing.assert_allclose(
        found["values"], kept["values"], rtol=tolerance, atol=tolerance * scale, err_msg=what
    )
    for name in ("sum", "size"):
        np.testing.assert_allclose(
            found[name], kept[name], rtol=tolerance, atol=tolerance * kept["size"], err_msg=what
        )


def check_text(found: str, expected: str) -> None:
    """Compare printed text: words alike, decimal numbers within a unit of their last place."""
    found, expected = (_LINEAR.sub("<linear>", text) for text in (found, expected))
    assert _NUMBER.sub("#", found) == _NUMBER.sub("#", expected)
    for a, b in zip(_NUMBER.findall(found), _NUMBER.findall(expected), strict=True):
        place = 10.0 ** -len(b.partition(".")[2].partition("e")[0])
        assert abs(float(a) - float(b)) <= 1.01 * place * max(1.0, abs(float(b))), f"{a} for {b}"


@cache
def load(name: str) -> dict[str, Any]:
    """Return a file of references."""
    kept: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return kept
