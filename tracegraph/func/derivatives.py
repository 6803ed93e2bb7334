"""Derivatives of functions with respect to arguments, which may be nested and nest again."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from tracegraph.api.creation import ones_like, zeros_like
from tracegraph.api.shape import reshape, stack
from tracegraph.autograd.differentiation import grad as _gradients
from tracegraph.autograd.grad_mode import enable_grad
from tracegraph.eager.engine import clone
from tracegraph.eager.tape import Node
from tracegraph.eager.tensors import Tensor
from tracegraph.errors import OpError
from tracegraph.utils._pytree import TreeSpec, tree_flatten, tree_map, tree_unflatten


class _Variables:
    """Arguments made into variables of their own; those of an outer derivative stay joined."""

    def __init__(self, value: Any) -> None:
        self.given, self.spec = tree_flatten(value)
        for x in self.given:
            if not isinstance(x, Tensor):
                raise ValueError(f"expected tensors to differentiate by, got {type(x).__name__}")
        self.leaves = [clone(x) if x.requires_grad else x.detach().requires_grad_()
                       for x in self.given]  # fmt: skip
        self.value = tree_unflatten(self.leaves, self.spec)
        self._own = {id(x._node) for x, old in zip(self.leaves, self.given, strict=True)
                     if not old.requires_grad}  # fmt: skip

    def freed(self, x: Any) -> Any:
        """Return a result without history, unless it also depends on something outside."""
        if not isinstance(x, Tensor) or x._node is None:
            return x
        stack: list[Node | None] = [x.grad_fn]
        seen: set[int] = set()
        while stack:
            node = stack.pop()
            if node is None or id(node) in seen or id(node) in self._own:
                continue
            seen.add(id(node))
            following = [n for n, _ in node.next_functions]
            if not any(n is not None for n in following):
                return x
            stack += following
        return x.detach()


def _chosen(args: tuple[Any, ...], argnums: int | tuple[int, ...]) -> Any:
    places = (argnums,) if isinstance(argnums, int) else argnums
    for i in places:
        if not -len(args) <= i < len(args):
            raise OpError(f"Got argnum={i}, but only {len(args)} positional inputs")
    return args[argnums] if isinstance(argnums, int) else tuple(args[i] for i in argnums)


def _with(args: tuple[Any, ...], argnums: int | tuple[int, ...], value: Any) -> list[Any]:
    full = list(args)
    if isinstance(argnums, int):
        full[argnums] = value
    else:
        for i, x in zip(argnums, value, strict=True):
            full[i] = x
    return full


def _filled(found: Any, like: list[Tensor]) -> list[Tensor]:
    return [zeros_like(x) if g is None else g for g, x in zip(found, like, strict=True)]


def _by(out: Tensor, leaves: list[Tensor], weight: Tensor | None = None) -> list[Tensor]:
    """Gradients of one tensor, zeros where it does not depend on a leaf."""
    if out._node is None:
        return [zeros_like(x) for x in leaves]
    weights = None if weight is None else [weight]
    return _filled(_gradients([out], leaves, weights, True, True, allow_unused=True), leaves)


def grad_and_value(
    func: Callable[..., Any], argnums: int | tuple[int, ...] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """Return a function that gives (gradient, value) of a scalar function; see `grad`."""

    @functools.wraps(func)
    def derived(*args: Any, **kwargs: Any) -> Any:
        variables = _Variables(_chosen(args, argnums))
        with enable_grad():
            out = func(*_with(args, argnums, variables.value), **kwargs)
            value, aux = out if has_aux else (out, None)
            if not isinstance(value, Tensor):
                raise OpError(
                    f"Expected f(*args) to return tensor in grad_and_value(f)(*args), got type "
                    f"{type(value).__name__}"
                )
            if value.ndim:
                raise OpError(
                    "Expected f(*args) to return a scalar tensor, got tensor with "
                    f"{value.ndim} dims. Maybe you wanted to use the vjp or jacrev APIs instead?"
                )
            found = _by(value, variables.leaves)
        free = variables.freed
        slope = tree_unflatten(map(free, found), variables.spec)
        if has_aux:
            return slope, (free(value), tree_map(free, aux))
        return slope, free(value)

    return derived


def grad(
    func: Callable[..., Any], argnums: int | tuple[int, ...] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """Return the gradient of a scalar function, by the arguments `argnums`, nested as they are.

    With `has_aux` the function returns (value, more), and the result (gradient, more).

    Raises:
        OpError: from the result, when the function returns no 0-d tensor.
    """
    both = grad_and_value(func, argnums, has_aux)

    @functools.wraps(func)
    def derived(*args: Any, **kwargs: Any) -> Any:
        slope, value = both(*args, **kwargs)
        return (slope, value[1]) if has_aux else slope

    return derived


def vjp(func: Callable[..., Any], *primals: Any, has_aux: bool = False) -> Any:
    """Return `func(*primals)` and a function that multiplies a cotangent with the Jacobian.

    That gives a tuple, one product for each primal; with `has_aux` the rest comes last.
    """
    variables = _Variables(primals)
    with enable_grad():
        out = func(*variables.value)
    value, aux = out if has_aux else (out, None)
    outs, spec = tree_flatten(value)

    def pull(cotangents: Any = None, retain_graph: bool = True, create_graph: Any = None) -> Any:
        weights = [ones_like(o) for o in outs] if cotangents is None else _leaves(cotangents, spec)
        with enable_grad():
            parts = [_by(o, variables.leaves, w) for o, w in zip(outs, weights, strict=True)]
            sums = [functools.reduce(lambda a, b: a + b, column)
                    for column in zip(*parts, strict=True)]  # fmt: skip
        return tree_unflatten(map(variables.freed, sums), variables.spec)

    shown = tree_map(variables.freed, value)
    return (shown, pull, tree_map(variables.freed, aux)) if has_aux else (shown, pull)


def _leaves(tree: Any, spec: TreeSpec) -> list[Any]:
    leaves, given = tree_flatten(tree)
    if given != spec:
        raise OpError(f"expected values nested as {spec}, got {given}")
    return leaves


def jvp(
    func: Callable[..., Any], primals: tuple[Any, ...], tangents: tuple[Any, ...], *,
    strict: bool = False, has_aux: bool = False,
) -> Any:  # fmt: skip
    """Return `func(*primals)` and the product of its Jacobian with the tangents.

    Computed by differentiating the transposed product, which is linear in the cotangent.
    """
    variables = _Variables(primals)
    directions = _leaves(tangents, variables.spec)
    with enable_grad():
        out = func(*variables.value)
        value, aux = out if has_aux else (out, None)
        outs, spec = tree_flatten(value)
        moved = [_along(o, variables.leaves, directions) for o in outs]
    free = variables.freed
    shown = tree_map(free, value), tree_unflatten(map(free, moved), spec)
    return (*shown, tree_map(free, aux)) if has_aux else shown


def linearize(func: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[..., Any]]:
    """Return `func(*primals)` and what gives the product of its Jacobian with tangents."""

    def pushed(*tangents: Any) -> Any:
        return jvp(func, primals, tangents)[1]

    return func(*primals), pushed


def _along(out: Tensor, leaves: list[Tensor], directions: list[Tensor]) -> Tensor:
    """The derivative of one tensor along a direction."""
    dummy = zeros_like(out).requires_grad_()
    back = _by(out, leaves, dummy)
    used = [(b, d) for b, d in zip(back, directions, strict=True) if b._node is not None]
    if not used:
        return zeros_like(out)
    found = _gradients([b for b, _ in used], [dummy], [d for _, d in used], True, True,
                       allow_unused=True)  # fmt: skip
    return zeros_like(out) if found[0] is None else found[0]


def jacrev(
    func: Callable[..., Any], argnums: int | tuple[int, ...] = 0, has_aux: bool = False, *,
    chunk_size: int | None = None,
) -> Callable[..., Any]:  # fmt: skip
    """Return the Jacobian by the arguments `argnums`: for each output, nested as they are.

    Each has the shape of the output, then that of the argument.
    """

    @functools.wraps(func)
    def derived(*args: Any, **kwargs: Any) -> Any:
        variables = _Variables(_chosen(args, argnums))
        with enable_grad():
            out = func(*_with(args, argnums, variables.value), **kwargs)
            value, aux = out if has_aux else (out, None)
            table = tree_map(lambda o: _rows(o, variables), value)
        return (table, tree_map(variables.freed, aux)) if has_aux else table

    return derived


def _rows(out: Tensor, variables: _Variables) -> Any:
    """The Jacobian of one output, one reverse pass for each of its elements."""
    flat = reshape(out, (-1,))
    rows = [_by(flat[i], variables.leaves) for i in range(flat.shape[0])]
    shaped = []
    for place, x in enumerate(variables.leaves):
        shape = (*out.shape, *x.shape)
        whole = stack([row[place] for row in rows]) if rows else x.new_zeros(shape)
        shaped.append(variables.freed(reshape(whole, shape)))
    return tree_unflatten(shaped, variables.spec)


def jacfwd(
    func: Callable[..., Any], argnums: int | tuple[int, ...] = 0, has_aux: bool = False, *,
    randomness: str = "error",
) -> Callable[..., Any]:  # fmt: skip
    """Return the Jacobian; it is computed as by `jacrev`."""
    return jacrev(func, argnums, has_aux)


def hessian(func: Callable[..., Any], argnums: int | tuple[int, ...] = 0) -> Callable[..., Any]:
    """Return the second derivatives by the arguments `argnums`."""
    return jacrev(jacrev(func, argnums), argnums)
