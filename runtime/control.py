"""What the interpreter does at control nodes: guards, branches, loops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from tracegraph.errors import UnseenPathError
from tracegraph.ir.control import COND, FACT, GUARD, SCAN, WHILE_LOOP, case_name
from tracegraph.ir.graph import Graph, Node
from tracegraph.runtime.binding import check_fact

# Makes a region ready: something with `values(*operands)` and `xp`.
Inner = Callable[[Graph], Any]


def _guard(node: Node, inner: Inner) -> Callable[..., Any]:
    expected = node.attrs["expected"]

    def check(value: Any) -> tuple[Any, ...]:
        if value.item() != expected:
            raise unseen(node, value.item(), (expected,))
        return ()

    return check


def _cond(node: Node, inner: Inner) -> Callable[..., Any]:
    cases = node.attrs["cases"]
    arms = {case: inner(node.regions[case_name(i)]).values for i, case in enumerate(cases)}

    def choose(selector: Any, *arrays: Any) -> tuple[Any, ...]:
        arm = arms.get(selector.item())
        if arm is None:
            raise unseen(node, selector.item(), cases)
        return arm(*arrays)

    return choose


def unseen(node: Node, value: Any, seen: Sequence[Any]) -> UnseenPathError:
    """The error of a replay whose predicate has a value that no example of the trace had."""
    place = f" at {node.loc}" if node.loc is not None else ""
    known = " or ".join(map(repr, seen))
    return UnseenPathError(
        f"{node.attrs['text'] or 'a predicate'}{place} is {value!r} for these inputs, but {known} "
        "in every example that came here: nothing was written. Trace this path too: "
        "traced.add_example(*inputs), or trace(..., more_examples=[inputs])"
    )


def _while_loop(node: Node, inner: Inner) -> Callable[..., Any]:
    goes_on = inner(node.regions["condition"]).values
    body = inner(node.regions["body"]).values
    count = node.attrs["carried"]

    def loop(*operands: Any) -> tuple[Any, ...]:
        carried, others = operands[:count], operands[count:]
        while goes_on(*carried, *others)[0].item():
            carried = body(*carried, *others)
        return carried

    return loop


def _scan(node: Node, inner: Inner) -> Callable[..., Any]:
    body = inner(node.regions["body"])
    attrs = node.attrs
    count, end = attrs["carried"], attrs["carried"] + attrs["scanned"]
    slices = [v.type for v in node.regions["body"].outputs[count:]]

    def scan(*operands: Any) -> tuple[Any, ...]:
        carried, xs, others = operands[:count], operands[count:end], operands[end:]
        length = xs[0].shape[0] if xs else attrs["length"]
        stacked: list[Any] = []
        for step in reversed(range(length)) if attrs["reverse"] else range(length):
            given = body.values(*carried, *[x[step, ...] for x in xs], *others)
            carried, ys = given[:count], given[count:]
            if not stacked:
                stacked = [body.xp.empty((length, *y.shape), y.dtype) for y in ys]
            for whole, y in zip(stacked, ys, strict=True):
                whole[step] = y
        if not length:
            stacked = [body.xp.empty((0, *t.shape), t.dtype.np) for t in slices]
        return (*carried, *stacked)

    return scan


HANDLERS: Final[dict[str, Callable[[Node, Inner], Callable[..., Any]]]] = {
    GUARD: _guard, FACT: lambda node, inner: check_fact(node), COND: _cond,
    WHILE_LOOP: _while_loop, SCAN: _scan,
}  # fmt: skip
