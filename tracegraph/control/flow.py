"""Control flow as ops: `cond`, `while_loop`, `scan`, `map`.

Eager code runs them as plain Python. In a trace each becomes one node with its functions as
regions, so that the graph covers every outcome and length from one example. Its gradient is a
control flow op again, over functions that run the original once more and pull gradients back.

Functions get operands whose elements lie in rows, and what an op gives is memory of its own, in
rows too: a region is recorded once, for all that may come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from tracegraph import pytree
from tracegraph.api.creation import tensor
from tracegraph.api.shape import movedim
from tracegraph.control.branching import branch
from tracegraph.control.looping import repeat
from tracegraph.control.sweeping import sweep
from tracegraph.eager import modes
from tracegraph.eager.engine import clone, in_rows
from tracegraph.eager.storage import ROWS
from tracegraph.eager.tensors import Tensor, type_of
from tracegraph.errors import OpError, SparseError
from tracegraph.tensor_type import TensorType

Nest = Any


class Carried(NamedTuple):
    """A nest whose tensors go from step to step and keep their types."""

    tree: pytree.Tree
    types: list[TensorType]
    classes: dict[str, type]

    def nest(self, flat: Sequence[Tensor]) -> Any:
        """Return tensors in the nesting."""
        return pytree.unflatten(self.tree, list(flat), self.classes)


def _tracing() -> bool:
    return bool(modes.recording) and modes.RECORDER.get() is not None


def _leaf(value: Any) -> bool:
    return isinstance(value, (Tensor, bool, int, float))


def _flat(value: Nest, what: str) -> tuple[list[Tensor], pytree.Tree, dict[str, type]]:
    """Return the tensors of a nest (Python numbers as 0-d tensors), in rows."""
    leaves, tree = pytree.flatten(value, _leaf, what)
    if pytree.holds_sparse(tree):
        raise SparseError(
            f"sparse tensors among the {what} of control flow are not available: pass their "
            "values(), or to_dense()"
        )
    tensors = [in_rows(x) if isinstance(x, Tensor) else tensor(x) for x in leaves]
    return tensors, tree, pytree.classes_in(value)


def _own(leaves: Iterable[Any]) -> list[Any]:
    return [clone(x, ROWS) if isinstance(x, Tensor) else x for x in leaves]


def _check_kept(now: Sequence[Tensor], tree: pytree.Tree, kept: Carried, what: str) -> None:
    """Refuse a step that gives another nest or other types than it was given.

    Raises:
        OpError: naming what differs.
    """
    types = [type_of(t) for t in now]
    if tree != kept.tree or types != kept.types:
        given, made = (", ".join(str(t) for t in group) for group in (kept.types, types))
        raise OpError(
            f"{what} must return what it carries with the same nesting, dtypes and shapes: it was "
            f"given ({given}) and returned ({made})"
        )


def cond(
    pred: Tensor | bool, true_fn: Callable[..., Nest], false_fn: Callable[..., Nest],
    operands: Sequence[Nest] = (),
) -> Nest:  # fmt: skip
    """Return `true_fn(*operands)` where `pred` holds, else `false_fn(*operands)`.

    Args:
        pred: one bool. A Python bool chooses when the function is traced.
        true_fn: takes the operands, returns a nest of tensors.
        false_fn: the same; it returns the same nesting, dtypes and shapes.
        operands: nests of tensors.

    Raises:
        OpError: the functions return different things.
    """
    if not isinstance(pred, Tensor):
        return (true_fn if pred else false_fn)(*operands)
    leaves, tree, classes = _flat(tuple(operands), "operands")

    def over(function: Callable[..., Nest]) -> Callable[..., Nest]:
        return lambda *flat: function(*pytree.unflatten(tree, list(flat), classes))

    if not _tracing():
        result = over(true_fn if pred else false_fn)(*leaves)
        found, nest = pytree.flatten(result, _leaf, "result")
        return pytree.unflatten(nest, _own(found), pytree.classes_in(result))
    return branch(pred, (over(true_fn), over(false_fn)), leaves)


def while_loop(
    cond_fn: Callable[..., Any], body_fn: Callable[..., Nest], carried: Sequence[Nest],
    *, bound: int | None = None,
) -> Nest:  # fmt: skip
    """Repeat `carried = body_fn(*carried)` while `cond_fn(*carried)` holds; return the last.

    Args:
        cond_fn: gives one bool.
        body_fn: takes and returns the carried values, with the same dtypes and shapes.
        carried: a tuple of nests of tensors (numbers become 0-d tensors).
        bound: the most steps there can be. A trace needs it for gradients, which take memory and
            time for that many.

    Raises:
        OpError: the body returns other types, or `bound` steps were not enough.
    """
    leaves, tree, classes = _flat(tuple(carried), "carried")
    kept = Carried(tree, [type_of(t) for t in leaves], classes)

    def goes_on(*flat: Tensor) -> Any:
        return cond_fn(*kept.nest(flat))

    def body(*flat: Tensor) -> list[Tensor]:
        result = body_fn(*kept.nest(flat))
        now, found, _ = _flat(result if isinstance(result, tuple) else (result,), "carried")
        _check_kept(now, found, kept, "the body of while_loop")
        return now

    if _tracing():
        return kept.nest(repeat(goes_on, body, leaves, bound))
    steps = 0
    while goes_on(*leaves):
        if steps == bound:
            raise OpError(f"while_loop did not end within its bound of {bound} steps")
        leaves = body(*leaves)
        steps += 1
    return kept.nest(_own(leaves))


def scan(
    combine_fn: Callable[..., tuple[Nest, Nest]], init: Nest, xs: Nest = None, *, dim: int = 0,
    reverse: bool = False, length: int | None = None, checkpoint: bool = False,
) -> tuple[Nest, Nest]:  # fmt: skip
    """Carry a value along the slices of `xs`: `carry, y = combine_fn(carry, x)` for each.

    Args:
        combine_fn: takes the carry and a slice, returns the next carry (same dtypes and shapes)
            and an output.
        init: the first carry, a nest of tensors.
        xs: a nest of tensors of one size along `dim`, which is sliced away; None for none.
        dim: the dim to go along; outputs are stacked along it.
        reverse: from the last slice to the first.
        length: how many steps, where there are no xs.
        checkpoint: the gradient of a traced scan runs each step again from its carry; otherwise
            what it needs of the steps is kept, which takes more memory and less time.

    Returns:
        The last carry, and the outputs stacked.

    Raises:
        OpError: sizes or types do not fit.
    """
    leaves, tree, classes = _flat(init, "init")
    kept = Carried(tree, [type_of(t) for t in leaves], classes)
    slices, x_tree, x_classes = _flat(xs, "xs")
    slices = [x if dim == 0 else in_rows(movedim(x, dim, 0)) for x in slices]
    sizes = {x.shape[0] for x in slices} | ({length} if length is not None else set())
    if len(sizes) != 1 or min(sizes) < 0:
        raise OpError(f"scan needs one length, of xs along dim {dim} or as `length`, not {sizes}")
    outputs: list[tuple[pytree.Tree, dict[str, type]]] = []

    def step(*flat: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        x = pytree.unflatten(x_tree, list(flat[len(leaves) :]), x_classes)
        result = combine_fn(kept.nest(flat[: len(leaves)]), x)
        if not isinstance(result, tuple) or len(result) != 2:
            raise OpError("the function of scan returns a pair: the next carry and an output")
        now, found, _ = _flat(result[0], "carry")
        _check_kept(now, found, kept, "the function of scan")
        ys, y_tree, y_classes = _flat(result[1], "output")
        outputs[:] = [(y_tree, y_classes)]
        return now, ys

    last, ys = sweep(step, leaves, slices, sizes.pop(), reverse, checkpoint)
    if not _tracing():
        last = _own(last)
    if dim:
        ys = [movedim(y, 0, dim) for y in ys]
    y_tree, y_classes = outputs[0]
    return kept.nest(last), pytree.unflatten(y_tree, ys, y_classes)


def map(function: Callable[..., Nest], xs: Nest, *args: Any) -> Nest:
    """Return `function(x, *args)` for the slices of `xs` along their first dim, stacked.

    Args:
        function: takes a slice and `args`, returns a nest of tensors.
        xs: a nest of tensors of one size along dim 0.
        args: passed on to each call.
    """
    return scan(lambda carry, x: (carry, function(x, *args)), (), xs)[1]


__all__ = ["cond", "map", "scan", "while_loop"]
