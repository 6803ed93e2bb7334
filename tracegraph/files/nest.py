"""Nested plain values to JSON data and back: state dicts and checkpoints.

Containers: dict (keys of str, int, float, bool or None; the `_metadata` of state dicts goes
along), list, tuple, set, sparse tensors (their parts). Leaves: tensors, NumPy
arrays, numbers, strings, None, dtypes, bytes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from tracegraph.dtypes import BY_CODE, BY_NUMPY, DType
from tracegraph.eager.tensors import Size, Tensor, wrap
from tracegraph.errors import FileFormatError, OpError
from tracegraph.ir.serial import decode_value, encode_value

_PLAIN = (bool, int, float, str, type(None))
_MAX_DEPTH = 60


def nest_to_data(value: Any, store: Callable[[Tensor], int], path: str = "") -> Any:
    """Return JSON data for a nest; `store(tensor)` keeps a tensor and numbers it.

    Raises:
        TypeError: something that cannot be stored, with its place.
    """
    if path.count("[") > _MAX_DEPTH:
        raise TypeError(f"nested too deeply (over {_MAX_DEPTH} levels) at {path[:80]}")
    if isinstance(value, Tensor):
        return _tensor_to_data(value, store, path)
    if isinstance(value, np.ndarray):
        if value.dtype.newbyteorder("=") not in BY_NUMPY:
            raise TypeError(f"cannot save an array of {value.dtype} at {path or 'the top'}")
        return {"array": store(wrap(value.astype(value.dtype.newbyteorder("="))))}
    if isinstance(value, (np.generic, DType, *_PLAIN)):
        return encode_value(value)
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, Mapping):
        pairs = [_pair(k, v, store, path) for k, v in value.items()]
        notes = getattr(value, "_metadata", None)
        if not isinstance(notes, Mapping):
            return {"dict": pairs}
        return {"dict": pairs, "metadata": nest_to_data(notes, store, f"{path}._metadata")}
    for kind, name in ((Size, "size"), (tuple, "tuple"), (list, "list"), (set, "set")):
        if isinstance(value, kind):
            items = sorted(value, key=repr) if kind is set else value
            return {name: [nest_to_data(v, store, f"{path}[{i}]") for i, v in enumerate(items)]}
    raise TypeError(
        f"cannot save a {type(value).__name__} at {path or 'the top'}: files hold tensors, arrays, "
        "numbers, strings and containers of these, no code. Save module.state_dict(), or "
        "tracegraph.trace(module, inputs)"
    )


def _tensor_to_data(t: Tensor, store: Callable[[Tensor], int], path: str) -> dict[str, Any]:
    if t.is_sparse:
        parts = t.__tracegraph_parts__()
        return {"sparse": [[k, nest_to_data(v, store, f"{path}.{k}")] for k, v in parts.items()]}
    data: dict[str, Any] = {"tensor": store(t)}
    if t.requires_grad:
        data["requires_grad"] = True
    return data


def _pair(key: Any, value: Any, store: Callable[[Tensor], int], path: str) -> list[Any]:
    if not isinstance(key, _PLAIN):
        raise TypeError(f"cannot save a dict with key {key!r} at {path or 'the top'}")
    return [encode_value(key), nest_to_data(value, store, f"{path}[{key!r}]")]


def nest_from_data(data: Any, fetch: Callable[[int], Tensor]) -> Any:
    """Undo `nest_to_data`; `fetch(number)` gives a tensor.

    Raises:
        FileFormatError: data of no known form.
    """
    if not isinstance(data, dict):
        return data
    kind = next(iter(data), "")
    body: Any = data.get(kind)
    if kind == "tensor":
        t = fetch(body)
        return t.requires_grad_() if data.get("requires_grad") else t
    if kind == "array":
        return fetch(body)._data
    if kind == "bytes":
        return bytes.fromhex(body)
    if kind == "dtype":
        return BY_CODE[body]
    if kind == "float":
        return decode_value(data)
    if kind == "sparse":
        from tracegraph.sparse.tensor import assemble

        try:
            return assemble({k: nest_from_data(v, fetch) for k, v in body}, check=True)
        except (TypeError, ValueError, LookupError, AttributeError, OpError) as error:
            raise FileFormatError(f"a stored sparse tensor is damaged: {error}") from None
    if kind == "dict":
        made = OrderedDict((decode_value(k), nest_from_data(v, fetch)) for k, v in body)
        if "metadata" not in data:
            return dict(made)
        made._metadata = nest_from_data(data["metadata"], fetch)  # type: ignore[attr-defined]
        return made
    makers: dict[str, Any] = {"size": Size, "tuple": tuple, "list": list, "set": set}
    if kind in makers:
        return makers[kind]([nest_from_data(v, fetch) for v in body])
    raise FileFormatError(f"unknown item {kind!r} in the stored tree; update tracegraph")


def tensors_in(nest: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors and arrays in nested plain values, with their paths."""
    if isinstance(nest, Tensor) and nest.is_sparse:
        yield from tensors_in(nest.__tracegraph_parts__(), path)
    elif isinstance(nest, Tensor):
        yield path or "tensor", nest
    elif isinstance(nest, np.ndarray):
        yield path or "array", wrap(nest)
    elif isinstance(nest, (dict, list, tuple)):
        items = nest.items() if isinstance(nest, dict) else enumerate(nest)
        for key, value in items:
            yield from tensors_in(value, f"{path}.{key}" if path else str(key))
