"""Nested tuples, lists and dicts as a flat list of leaves: `torch.utils._pytree`."""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from typing import Any

PyTree = Any


class TreeSpec:
    """How leaves were nested: `kind` with what is needed to make one, and the specs inside."""

    __slots__ = ("children", "context", "kind", "num_leaves")

    def __init__(self, kind: type | None, context: Any, children: list[TreeSpec]) -> None:
        self.kind = kind
        self.context = context
        self.children = children
        self.num_leaves: int = 1 if kind is None else sum(c.num_leaves for c in children)

    def is_leaf(self) -> bool:
        """Whether it stands for one leaf."""
        return self.kind is None

    def unflatten(self, leaves: Any) -> Any:
        """Nest leaves in this way."""
        return tree_unflatten(leaves, self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TreeSpec) and (self.kind, self.context, self.children) == (
            other.kind, other.context, other.children
        )  # fmt: skip

    def __hash__(self) -> int:
        return hash((self.kind, self.num_leaves))

    def __repr__(self) -> str:
        if self.kind is None:
            return "*"
        return f"TreeSpec({self.kind.__name__}, {self.context}, {self.children})"


def _opened(tree: Any) -> tuple[type, Any, list[Any]] | None:
    """Return (kind, context, children) of a container, None for a leaf."""
    kind = type(tree)
    if kind is tuple or kind is list:
        return kind, None, list(tree)
    if kind is dict or kind is OrderedDict:
        return kind, list(tree), list(tree.values())
    if kind is defaultdict:
        return kind, [tree.default_factory, list(tree)], list(tree.values())
    if kind is deque:
        return kind, tree.maxlen, list(tree)
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return kind, kind, list(tree)
    return None


def _closed(spec: TreeSpec, children: list[Any]) -> Any:
    kind, context = spec.kind, spec.context
    assert kind is not None
    if kind is dict or kind is OrderedDict:
        return kind(zip(context, children, strict=True))
    if kind is defaultdict:
        return defaultdict(context[0], zip(context[1], children, strict=True))
    if kind is deque:
        return deque(children, maxlen=context)
    return kind(*children) if hasattr(kind, "_fields") else kind(children)


def tree_flatten(
    tree: Any, is_leaf: Callable[[Any], bool] | None = None
) -> tuple[list[Any], TreeSpec]:
    """Return the leaves, and what nests them again."""
    leaves: list[Any] = []

    def walk(x: Any) -> TreeSpec:
        opened = None if is_leaf is not None and is_leaf(x) else _opened(x)
        if opened is None:
            leaves.append(x)
            return TreeSpec(None, None, [])
        kind, context, children = opened
        return TreeSpec(kind, context, [walk(c) for c in children])

    return leaves, walk(tree)


def tree_unflatten(leaves: Any, treespec: TreeSpec) -> Any:
    """Nest leaves as a spec says.

    Raises:
        ValueError: there are more or fewer than it has places.
    """
    given = list(leaves)
    if len(given) != treespec.num_leaves:
        raise ValueError(
            f"tree_unflatten(leaves, treespec): `leaves` has length {len(given)} but the spec "
            f"refers to a pytree that holds {treespec.num_leaves} items ({treespec})."
        )
    source = iter(given)

    def build(spec: TreeSpec) -> Any:
        if spec.kind is None:
            return next(source)
        return _closed(spec, [build(c) for c in spec.children])

    return build(treespec)


def tree_leaves(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> list[Any]:
    """Return the leaves."""
    return tree_flatten(tree, is_leaf)[0]


def tree_iter(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> Iterator[Any]:
    """Yield the leaves."""
    yield from tree_leaves(tree, is_leaf)


def tree_structure(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> TreeSpec:
    """Return how the leaves are nested."""
    return tree_flatten(tree, is_leaf)[1]


def tree_map(
    func: Callable[..., Any], tree: Any, *rests: Any, is_leaf: Callable[[Any], bool] | None = None
) -> Any:
    """Return `func` of every leaf (and of those at the same places of further trees), nested."""
    leaves, spec = tree_flatten(tree, is_leaf)
    columns = [leaves, *(tree_leaves(rest, is_leaf) for rest in rests)]
    return tree_unflatten([func(*items) for items in zip(*columns, strict=True)], spec)


def tree_map_(
    func: Callable[..., Any], tree: Any, *rests: Any, is_leaf: Callable[[Any], bool] | None = None
) -> Any:
    """Call `func` for every leaf, and return the tree."""
    tree_map(func, tree, *rests, is_leaf=is_leaf)
    return tree


def tree_map_only(
    kind: Any, func: Callable[[Any], Any], tree: Any, is_leaf: Callable[[Any], bool] | None = None
) -> Any:
    """Return the tree with `func` of the leaves of some types in their place."""
    return tree_map(lambda x: func(x) if isinstance(x, kind) else x, tree, is_leaf=is_leaf)


def tree_all(
    predicate: Callable[[Any], bool], tree: Any, is_leaf: Callable[[Any], bool] | None = None
) -> bool:
    """Whether it holds for all leaves."""
    return all(map(predicate, tree_leaves(tree, is_leaf)))


def tree_any(
    predicate: Callable[[Any], bool], tree: Any, is_leaf: Callable[[Any], bool] | None = None
) -> bool:
    """Whether it holds for a leaf."""
    return any(map(predicate, tree_leaves(tree, is_leaf)))
