"""From nodes to loop nests: which index of the space each operand of a fused kernel follows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from tracegraph.dtypes import DType
from tracegraph.ir.graph import CONSTANT, INPUT, KERNEL, Node, Value
from tracegraph.ops.table import OPS
from tracegraph.runtime.cpu.code.scalar_language import may_fail, supports
from tracegraph.runtime.cpu.code.values import UnsupportedError
from tracegraph.runtime.cpu.lowering import places
from tracegraph.runtime.cpu.lowering.places import Buffer, Place
from tracegraph.runtime.cpu.nests.nest import FOLDS, LOAD, NUMBER, Step
from tracegraph.runtime.cpu.nests.stages import costly
from tracegraph.tensor_type import Shape

if TYPE_CHECKING:
    from tracegraph.runtime.cpu.lowering.lowering import Lowering

# For each dim of a space, the dim of an array that walks along it; None: none does.
Axes = tuple[int | None, ...]
# A fold of more elements into fewer units than these is cut into parts first.
_LONG: Final = 1 << 15
_FEW_UNITS: Final = 8
_MOST_PARTS: Final = 16
_ROW_LANES: Final = 256
# Of kernels that differ in their numbers alone so many are made; the next read them from memory.
_MOST_ALIKE: Final = 8
# Their code is the same for a number that is known and one that is read.
_ANY_NUMBER: Final = frozenset(
    {"add", "sub", "mul", "div", "where", "eq", "ne", "lt", "le", "gt", "ge"}
)


class Operand(NamedTuple):
    """A Value that is read, and how it lies under the space."""

    value: Value
    axes: Axes


class Result(NamedTuple):
    """A value of the program that is stored as a Value."""

    number: int
    value: Value
    axes: Axes


class Body(NamedTuple):
    """A fused kernel, its arrays not yet placed."""

    shape: Shape
    folded: tuple[int, ...]
    steps: tuple[Step, ...]
    operands: tuple[Operand, ...]
    results: tuple[Result, ...]


def is_fold(node: Node) -> bool:
    """Whether a node is a reduction that a nest computes."""
    return node.op in FOLDS and bool(node.attrs["dim"])


def is_native(node: Node) -> bool:
    """Whether a node can be computed inside a nest."""
    if any(v.type.dtype.is_complex for v in node.inputs):
        return False
    if is_fold(node) or node.op in ("expand", "reshape"):
        return True
    if node.op not in OPS:
        return False
    dtypes = [v.type.dtype for v in node.inputs]
    return supports(node.row, dtypes, node.attrs) and not may_fail(node.row, dtypes, node.attrs)


def body_of(node: Node) -> Body:
    """Return a fused kernel, or a single node, as a program over one space.

    Raises:
        UnsupportedError: a node has no native form.
    """
    if node.op != KERNEL:
        single = _Builder([node], dict(zip(node.inputs, node.inputs, strict=True)))
        return single.body([(node.out, node.out)])
    region = node.regions["body"]
    outer = {n.out: v for n, v in zip(region.inputs, node.inputs, strict=True)}
    nodes = [n for n in region.order() if n.op not in (INPUT, CONSTANT)]
    built = _Builder(nodes, outer)
    return built.body(list(zip(region.outputs, node.outs, strict=True)))


class _Builder:
    """Turns nodes into steps."""

    def __init__(self, nodes: Sequence[Node], outer: dict[Value, Value]) -> None:
        self.nodes, self.outer = nodes, outer
        folds = [n for n in nodes if n.op in FOLDS]
        if folds:
            self.shape: Shape = folds[0].inputs[0].type.shape
            self.folded: tuple[int, ...] = folds[0].attrs["dim"]
        else:
            self.shape = max(
                (n.out.type.shape for n in nodes), key=lambda s: (math.prod(s), len(s))
            )
            self.folded = ()
        self.steps: list[Step] = []
        self.operands: list[Operand] = []
        self.loads: dict[tuple[Value, Axes], int] = {}
        self.numbers: dict[Value, int] = {}

    def body(self, results: Sequence[tuple[Value, Value]]) -> Body:
        """Return the body; results are pairs of the Value inside and the one outside."""
        for node in self.nodes:
            if not is_native(node):
                raise UnsupportedError(f"{node.op} has no native form")
            self.numbers[node.out] = self.number(node)
        stored = tuple(
            Result(self.numbers[inside], outside, self.axes(inside.type.shape))
            for inside, outside in results
        )
        return Body(self.shape, self.folded, tuple(self.steps), tuple(self.operands), stored)

    def number(self, node: Node) -> int:
        """Return the number of a node's result."""
        x = node.inputs[0]
        if node.op in FOLDS:
            inputs: tuple[int, ...] = (self.read(x, self.axes(self.shape)),)
            return self.add(Step(node.op, inputs, node.out.type.dtype))
        if node.op == "reshape":
            return self.read(x, self.axes(x.type.shape))
        frame = self.axes(node.out.type.shape)
        if node.op == "expand":
            return self.read(x, self.under(x, node.out, frame))
        inputs = tuple(self.read(v, self.under(v, node.out, frame)) for v in node.inputs)
        attrs = tuple(sorted(node.attrs.items()))
        return self.add(Step(node.op, inputs, node.out.type.dtype, attrs))

    def add(self, step: Step) -> int:
        self.steps.append(step)
        return len(self.steps) - 1

    def axes(self, shape: Shape) -> Axes:
        """Return how a Value of some shape, full or a row, lies under the space."""
        size = len(self.shape)
        if len(shape) == size and all(
            n == m or (n == 1 and (d in self.folded or m == 1))
            for d, (n, m) in enumerate(zip(shape, self.shape, strict=True))
        ):
            return tuple(d if n != 1 else None for d, n in enumerate(shape))
        kept = [d for d in range(size) if d not in self.folded]
        if shape == tuple(self.shape[d] for d in kept):
            places = {d: i for i, d in enumerate(kept) if shape[i] != 1}
            return tuple(places.get(d) for d in range(size))
        if len(shape) <= size:  # broadcast against the space
            extra = size - len(shape)
            aligned = [None] * extra + [i if n != 1 else None for i, n in enumerate(shape)]
            if all(i is None or shape[i] == self.shape[d] for d, i in enumerate(aligned)):
                return tuple(aligned)
        raise UnsupportedError(f"a value of shape {shape} in a space of shape {self.shape}")

    def under(self, value: Value, reader: Value, frame: Axes) -> Axes:
        """Return how an operand lies under the space, broadcast against its reader."""
        shape, extra = value.type.shape, len(reader.type.shape) - len(value.type.shape)
        return tuple(
            None if i is None or i < extra or shape[i - extra] == 1 else i - extra for i in frame
        )

    def read(self, value: Value, axes: Axes) -> int:
        """Return the number of a Value that is read."""
        if value in self.numbers:
            return self.numbers[value]
        node = value.node
        dtype: DType = value.type.dtype
        if node.op == CONSTANT and not value.type.shape:
            number = node.attrs["value"]
            held = (("value", number.item() if hasattr(number, "item") else number),)
            return self.add(Step(NUMBER, (), dtype, held))
        known = self.loads.get((value, axes))
        if known is None:
            self.operands.append(Operand(self.outer.get(value, value), axes))
            known = self.add(Step(LOAD, (len(self.operands) - 1,), dtype))
            self.loads[value, axes] = known
        return known


def walked(place: Place, axes: Axes, shape: Shape) -> Place:
    """Return a place with the strides of the space."""
    strides = tuple(0 if i is None else place.strides[i] for i in axes)
    return place._replace(shape=shape, strides=strides)


def lower_body(low: Lowering, node: Node, body: Body) -> None:
    """Add the launches of a body: one, or two where a long fold has few results."""
    operands = [walked(low.place(x.value), x.axes, body.shape) for x in body.operands]
    sizes = [body.shape[d] for d in body.folded]
    turned = [p for p in operands if not p.is_row_major and places.is_dense(p)]
    turned.sort(key=lambda p: -p.buffer.bytes)
    made = [(r, low.new(r.value, turned)) for r in body.results]
    if not any(math.prod(r.value.type.shape) for r in body.results):
        return
    if 0 in sizes or (0 in body.shape and body.folded):
        raise UnsupportedError("a reduction over nothing")
    results = [(r.number, walked(place, r.axes, body.shape)) for r, place in made]
    what = "+".join(s.op for s in body.steps if s.op not in (LOAD, NUMBER))
    parts = _parts(body, operands)
    if _has_many_alike(low, body):
        body = _with_read_numbers(low, body, operands)
    if parts is None:
        dear = frozenset(i for i, s in enumerate(body.steps) if costly(s.op))
        low.nest(body.shape, body.folded, body.steps, operands, results, dear, node, what)
    else:
        _in_parts(low, node, body, operands, results, parts, what)


def _has_many_alike(low: Lowering, body: Body) -> bool:
    """Whether kernels with many other numbers are made in the place of this one's."""
    held = [s.attrs[0][1] for s in body.steps if s.op == NUMBER]
    if not held:
        return False
    steps = tuple(s._replace(attrs=()) if s.op == NUMBER else s for s in body.steps)
    known = low.alike.setdefault((len(body.shape), body.folded, steps), set())
    if repr(held) not in known and len(known) >= _MOST_ALIKE:
        return True
    known.add(repr(held))
    return False


def _with_read_numbers(low: Lowering, body: Body, operands: list[Place]) -> Body:
    """Return the body with loads for numbers, and add their places to the operands."""
    known = {i for s in body.steps if s.op not in (*_ANY_NUMBER, LOAD) for i in s.inputs}
    steps = list(body.steps)
    everywhere: Axes = (None,) * len(body.shape)
    for i, step in enumerate(steps):
        if step.op == NUMBER and i not in known:
            steps[i] = Step(LOAD, (len(operands),), step.dtype)
            place = low.number(step.attrs[0][1], step.dtype)
            operands.append(walked(place, everywhere, body.shape))
    return body._replace(steps=tuple(steps))


class _Parts(NamedTuple):
    dim: int
    number: int


def _parts(body: Body, operands: Sequence[Place]) -> _Parts | None:
    """Return how to cut a long fold of one pass, if it is worth it."""
    if not body.folded or not _is_single_pass(body):
        return None
    kept = math.prod(n for d, n in enumerate(body.shape) if d not in body.folded)
    total = math.prod(body.shape)
    if total < _LONG or kept // _ROW_LANES >= _FEW_UNITS:
        return None
    if kept >= _FEW_UNITS and total // kept < _ROW_LANES:
        return None

    def reach(d: int) -> int:
        return max((p.strides[d] for p in operands), default=0)

    for dim in sorted(body.folded, key=reach, reverse=True):
        size = body.shape[dim]
        found = [p for p in range(2, _MOST_PARTS + 1) if size % p == 0]
        if found:
            return _Parts(dim, found[-1])
    return None


def _is_single_pass(body: Body) -> bool:
    """Whether folds depend on no other fold, and all results follow from folds."""
    after: list[bool] = []
    full: list[bool] = []
    for step in body.steps:
        if step.op == LOAD:
            axes = body.operands[step.inputs[0]].axes
            after.append(False)
            full.append(any(axes[d] is not None for d in body.folded))
            continue
        after.append(step.op in FOLDS or any(after[i] for i in step.inputs))
        full.append(step.op not in FOLDS and any(full[i] for i in step.inputs))
        if step.op in FOLDS and after[step.inputs[0]]:
            return False
    return all(not full[r.number] for r in body.results) and all(
        all(r.axes[d] is None or body.shape[d] == 1 for d in body.folded) for r in body.results
    )


def _in_parts(
    low: Lowering, node: Node, body: Body, operands: Sequence[Place],
    results: Sequence[tuple[int, Place]], parts: _Parts, what: str,
) -> None:  # fmt: skip
    """Fold parts into partial results, then these."""
    dim, count = parts.dim, parts.number
    piece = body.shape[dim] // count
    shape = (*body.shape[:dim], count, piece, *body.shape[dim + 1 :])
    folded = tuple(d + 1 if d >= dim else d for d in body.folded)

    def split(p: Place) -> Place:
        stride = p.strides[dim]
        strides = (*p.strides[:dim], stride * piece, stride, *p.strides[dim + 1 :])
        return p._replace(shape=shape, strides=strides)

    folds = [i for i, s in enumerate(body.steps) if s.op in FOLDS]
    before, number = _subset(body.steps, folds)
    kept = tuple(1 if d in folded else n for d, n in enumerate(shape))
    partial: list[Place] = []
    for i in folds:
        dtype = body.steps[i].dtype.compute
        buffer = Buffer("arena", math.prod(kept) * dtype.itemsize)
        laid = Place(buffer, dtype, kept, places.row_major(kept))
        strides = tuple(0 if n == 1 else s for n, s in zip(kept, laid.strides, strict=True))
        partial.append(laid._replace(shape=shape, strides=strides))
    used = sorted({s.inputs[0] for s in before if s.op == LOAD})
    renumbered = [
        s._replace(inputs=(used.index(s.inputs[0]),)) if s.op == LOAD else s for s in before
    ]
    dear = frozenset(i for i, s in enumerate(renumbered) if costly(s.op))
    stored = [(number[i], p) for i, p in zip(folds, partial, strict=True)]
    given = [split(operands[i]) for i in used]
    low.nest(shape, folded, tuple(renumbered), given, stored, dear, node, f"parts of {what}")
    _rest_of_parts(low, node, body, operands, results, partial, dim, what)


def _rest_of_parts(
    low: Lowering, node: Node, body: Body, operands: Sequence[Place],
    results: Sequence[tuple[int, Place]], partial: Sequence[Place], dim: int, what: str,
) -> None:  # fmt: skip
    """Fold the partial results, and compute what follows from the folds."""
    folds = [i for i, s in enumerate(body.steps) if s.op in FOLDS]
    count = partial[0].shape[dim]
    shape = tuple(
        count if d == dim else 1 if d in body.folded else n for d, n in enumerate(body.shape)
    )

    def over_parts(p: Place) -> Place:
        strides = (*p.strides[: dim + 1], *p.strides[dim + 2 :])
        return p._replace(shape=shape, strides=strides)

    steps: list[Step] = []
    number: dict[int, int] = {}
    given: list[Place] = []
    for place, i in zip(partial, folds, strict=True):
        fold = body.steps[i]
        given.append(over_parts(place))
        steps.append(Step(LOAD, (len(given) - 1,), fold.dtype.compute))
        steps.append(Step(fold.op, (len(steps) - 1,), fold.dtype))
        number[i] = len(steps) - 1
    stack = [n for n, _ in results]
    needed: set[int] = set()
    while stack:
        i = stack.pop()
        if i not in number and i not in needed:
            needed.add(i)
            if body.steps[i].op != LOAD:
                stack += body.steps[i].inputs
    for i in sorted(needed):
        step = body.steps[i]
        if step.op == LOAD:
            given.append(operands[step.inputs[0]]._replace(shape=shape))
            inputs: tuple[int, ...] = (len(given) - 1,)
        else:
            inputs = tuple(number[j] for j in step.inputs)
        steps.append(step._replace(inputs=inputs))
        number[i] = len(steps) - 1
    dear = frozenset(i for i, s in enumerate(steps) if costly(s.op))
    stored = [(number[n], p._replace(shape=shape)) for n, p in results]
    low.nest(shape, (dim,), tuple(steps), given, stored, dear, node, what)


def _subset(steps: Sequence[Step], wanted: Sequence[int]) -> tuple[list[Step], dict[int, int]]:
    """Return the steps that some values need, renumbered."""
    needed: set[int] = set()
    stack = list(wanted)
    while stack:
        i = stack.pop()
        if i not in needed:
            needed.add(i)
            if steps[i].op != LOAD:
                stack += steps[i].inputs
    number = {old: new for new, old in enumerate(sorted(needed))}
    made = [
        steps[old] if steps[old].op == LOAD
        else steps[old]._replace(inputs=tuple(number[i] for i in steps[old].inputs))
        for old in sorted(needed)
    ]  # fmt: skip
    return made, number
