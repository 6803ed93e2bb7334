"""Nested inputs and outputs: flattened to leaves and a JSON tree that describes the nesting.

A tree is `{"leaf": i}`, `{"tuple": [...]}`, `{"list": [...]}`, `{"dict": [[key, tree], ...]}`,
`{"namedtuple": name, "fields": [...], "items": [...]}`, `{"dataclass": ...}` or `{"none": true}`.
A sparse tensor is `{"sparse": "coo", "fields": [...], "items": [...]}`, of what it is made of.
Python scalars and strings among inputs are leaves too; see `tracing.Signature`.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tracegraph.errors import GraphError, SignatureError, TraceError

Tree = dict[str, Any]
_KEYS = (str, int, bool, float)
SPARSE_FIELDS = ["indices", "values", "size", "is_coalesced"]


def flatten(value: Any, is_leaf: Callable[[Any], bool], path: str = "") -> tuple[list[Any], Tree]:
    """Return the leaves of nested containers and the tree that rebuilds them.

    Raises:
        TraceError: something that is neither a container nor a leaf; the place is named.
    """
    leaves: list[Any] = []
    return leaves, _flatten(value, is_leaf, path, leaves)


def _flatten(value: Any, is_leaf: Callable[[Any], bool], path: str, leaves: list[Any]) -> Tree:
    if value is None:
        return {"none": True}
    kind = type(value)
    if hasattr(kind, "__tracegraph_parts__"):
        parts = value.__tracegraph_parts__()
        items = [_flatten(v, is_leaf, f"{path}.{f}", leaves) for f, v in parts.items()]
        return {"sparse": "coo", "fields": list(parts), "items": items}
    if is_leaf(value):
        leaves.append(value)
        return {"leaf": len(leaves) - 1}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        items = [_flatten(v, is_leaf, f"{path}.{f}", leaves)
                 for f, v in zip(value._fields, value, strict=True)]  # fmt: skip
        return {"namedtuple": kind.__name__, "fields": list(value._fields), "items": items}
    if isinstance(value, (tuple, list)):
        items = [_flatten(v, is_leaf, f"{path}[{i}]", leaves) for i, v in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": items}
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, _KEYS):
                raise TraceError(f"dict key {key!r} at {path or 'the top'} is no str or number")
        return {"dict": [[k, _flatten(v, is_leaf, f"{path}[{k!r}]", leaves)]
                         for k, v in value.items()]}  # fmt: skip
    if hasattr(kind, "__dataclass_fields__"):
        names = [f.name for f in dataclasses.fields(value)]
        items = [_flatten(getattr(value, n), is_leaf, f"{path}.{n}", leaves) for n in names]
        return {"dataclass": kind.__name__, "fields": names, "items": items}
    raise TraceError(
        f"a {kind.__name__} at {path or 'the top'} cannot cross the border of a traced function: "
        "use tensors, Python scalars, strings, None, tuples, lists, dicts, namedtuples, dataclasses"
    )


def unflatten(tree: Tree, leaves: list[Any], classes: dict[str, type] | None = None) -> Any:
    """Rebuild nested containers. `classes` gives the original namedtuple and dataclass types;
    without them namedtuples of the same name and fields are made.
    """  # noqa: D205
    if "leaf" in tree:
        return leaves[tree["leaf"]]
    if "none" in tree:
        return None
    if "tuple" in tree:
        return tuple(unflatten(t, leaves, classes) for t in tree["tuple"])
    if "list" in tree:
        return [unflatten(t, leaves, classes) for t in tree["list"]]
    if "dict" in tree:
        return {k: unflatten(t, leaves, classes) for k, t in tree["dict"]}
    items = [unflatten(t, leaves, classes) for t in tree["items"]]
    if "sparse" in tree:
        from tracegraph.sparse.tensor import assemble

        return assemble(dict(zip(tree["fields"], items, strict=True)))
    name = tree.get("namedtuple") or tree["dataclass"]
    made: Any = (classes or {}).get(name)
    if made is None:
        fields: list[str] = tree["fields"]
        made = collections.namedtuple(name, fields, rename=True)  # type: ignore[misc, no-redef]
    elif "dataclass" in tree:
        return made(**dict(zip(tree["fields"], items, strict=True)))
    return made(*items)


def check_tree(tree: Any, leaves: int) -> None:
    """Check that a tree read from a file is well formed and has its leaves in order.

    Raises:
        GraphError: it is not, or not that many leaves.
    """
    seen = list(_checked_leaves(tree))
    if seen != list(range(leaves)):
        raise GraphError(f"a nesting has the leaves {seen[:20]}, not 0 to {leaves - 1}")


def _checked_leaves(tree: Any) -> Iterator[int]:
    """Yield the numbers of the leaves, in order."""
    kind = next(iter(tree), "") if isinstance(tree, dict) else ""
    body = tree[kind] if kind else None
    items: Any = ()
    if kind == "leaf" and type(body) is int:
        yield body
    elif kind in ("tuple", "list") and isinstance(body, list):
        items = body
    elif kind == "dict" and isinstance(body, list):
        keys = [key for key, _ in body]
        if not all(isinstance(k, _KEYS) for k in keys) or len({*keys}) != len(keys):
            raise GraphError(f"a nesting has bad keys {keys!r:.60}")
        items = [value for _, value in body]
    elif kind in ("namedtuple", "dataclass", "sparse"):
        items, fields = tree["items"], tree["fields"]
        collections.namedtuple(str(body), fields, rename=True)  # tells what is wrong with them
        named = isinstance(fields, list) and all(isinstance(f, str) for f in fields)
        if not named or len(items) != len(fields) or (kind == "sparse" and fields != SPARSE_FIELDS):
            raise GraphError(f"{body} has {len(items)} items for the fields {fields!r:.60}")
    elif kind != "none":
        raise GraphError(f"unknown nesting {tree!r:.60}")
    for item in items:
        yield from _checked_leaves(item)


def dataclasses_in(tree: Tree) -> dict[str, type]:
    """Return stand-ins for the dataclasses in a tree, for where their source is not at hand."""
    found: dict[str, type] = {}
    if "dataclass" in tree:
        found[tree["dataclass"]] = dataclasses.make_dataclass(tree["dataclass"], tree["fields"])
    for child in _children(tree):
        found.update(dataclasses_in(child))
    return found


def _children(tree: Tree) -> list[Tree]:
    children = [child for _, child in tree.get("dict", ())]
    for key in ("tuple", "list", "items"):
        children += tree.get(key, ())
    return children


def holds_sparse(tree: Tree) -> bool:
    """Whether there is a sparse tensor in a tree."""
    return "sparse" in tree or any(map(holds_sparse, _children(tree)))


def leaves_in(tree: Tree) -> list[int]:
    """Return the numbers of the leaves of a tree, in order."""
    return list(_checked_leaves(tree))


def renumbered(tree: Tree, numbers: Mapping[int, int]) -> Tree:
    """Return a tree with other numbers for its leaves."""
    if "leaf" in tree:
        return {"leaf": numbers[tree["leaf"]]}
    if "dict" in tree:
        return {"dict": [[k, renumbered(t, numbers)] for k, t in tree["dict"]]}
    kind = next((k for k in ("items", "tuple", "list") if k in tree), None)
    return tree if kind is None else {**tree, kind: [renumbered(t, numbers) for t in tree[kind]]}


def classes_in(value: Any) -> dict[str, type]:
    """Return the namedtuple and dataclass types that occur in nested containers, by name."""
    found: dict[str, type] = {}
    stack = [value]
    while stack:
        x = stack.pop()
        if isinstance(x, dict):
            stack.extend(x.values())
        elif isinstance(x, (tuple, list)):
            if hasattr(x, "_fields"):
                found[type(x).__name__] = type(x)
            stack.extend(x)
        elif hasattr(type(x), "__dataclass_fields__"):
            found[type(x).__name__] = type(x)
            stack.extend(getattr(x, f.name) for f in dataclasses.fields(x))
    return found


def match(tree: Tree, value: Any, is_leaf: Callable[[Any], bool], name: str) -> list[Any]:
    """Return the leaves of `value`, which must be nested as `tree` is.

    Raises:
        SignatureError: naming the place where the nesting differs.
    """
    try:
        leaves, got = flatten(value, is_leaf, name)
    except TraceError as error:
        raise SignatureError(str(error)) from None
    difference = next(_differences(tree, got, name), None)
    if difference is not None:
        raise SignatureError(difference)
    return leaves


def _kind(tree: Tree) -> str:
    return next(iter(tree))


def _differences(want: Tree, got: Tree, name: str) -> Iterator[str]:
    kind = _kind(want)
    if kind != _kind(got):
        words = {"leaf": "a tensor or scalar", "none": "None", "sparse": "a sparse tensor"}
        expected, came = (words.get(k, f"a {k}") for k in (kind, _kind(got)))
        yield f"argument {name}: expected {expected}, got {came}"
        return
    if kind == "dict":
        mine, theirs = dict(want["dict"]), dict(got["dict"])
        if list(mine) != list(theirs):
            yield f"argument {name}: expected keys {list(mine)}, got {list(theirs)}"
            return
        for key, tree in mine.items():
            yield from _differences(tree, theirs[key], f"{name}[{key!r}]")
        return
    if kind in ("leaf", "none"):
        return
    items = kind if kind in ("tuple", "list") else "items"
    if len(want[items]) != len(got[items]):
        yield f"argument {name}: expected {len(want[items])} items, got {len(got[items])}"
        return
    for i, (a, b) in enumerate(zip(want[items], got[items], strict=True)):
        yield from _differences(a, b, f"{name}[{i}]")
