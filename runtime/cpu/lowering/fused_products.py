"""Matrix products, with the elementwise ops that follow them as epilogues."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from tracegraph.ir.graph import Node, Value
from tracegraph.runtime.cpu.code.values import UnsupportedError
from tracegraph.runtime.cpu.lowering.fused import Body, walked
from tracegraph.runtime.cpu.lowering.places import Place, compact, row_major
from tracegraph.runtime.cpu.nests.nest import LOAD, NUMBER, Step
from tracegraph.runtime.cpu.products.launches import Array, Epilogue
from tracegraph.runtime.cpu.products.matrix import matrix_product

if TYPE_CHECKING:
    from tracegraph.runtime.cpu.code.scalars import Emitter
    from tracegraph.runtime.cpu.code.values import Value as Scalar
    from tracegraph.runtime.cpu.lowering.lowering import Lowering


class Program(NamedTuple):
    """What is done to a sum: load 0 is the sum, others are operands under the result's shape."""

    steps: tuple[Step, ...]
    operands: tuple[Place, ...]
    results: tuple[tuple[int, Value], ...]

    def epilogue(self) -> Epilogue | None:
        """Return it as a function of the scalar language; None where nothing is done."""
        if len(self.steps) == 1:
            return None
        steps, wanted = self.steps, [number for number, _ in self.results]

        def body(m: Emitter, total: Scalar, *given: Scalar) -> tuple[Scalar, ...]:
            from tracegraph.runtime.cpu.nests.functions import evaluate

            arrays = (total, *given)
            values = {i: arrays[s.inputs[0]] for i, s in enumerate(steps) if s.op == LOAD}
            evaluate(m, steps, values, range(len(steps)))
            return tuple(values[number] for number in wanted)

        return Epilogue(repr((steps, wanted)), body)

    @property
    def what(self) -> str:
        """The ops, for people."""
        return "".join(f"+{s.op}" for s in self.steps if s.op not in (LOAD, NUMBER))


def program_of(low: Lowering, out: Value, bias: Value | None, body: Body | None) -> Program:
    """Return what follows a product that gives `out`: its bias, and the body of its reader.

    Raises:
        UnsupportedError: the reader wants the product in another order.
    """
    steps = [Step(LOAD, (0,), out.type.dtype)]
    operands: list[Place] = []

    def load(value: Value, axes: Sequence[int | None]) -> int:
        operands.append(walked(low.place(value), tuple(axes), out.type.shape))
        steps.append(Step(LOAD, (len(operands),), value.type.dtype))
        return len(steps) - 1

    total, dtype = 0, out.type.dtype
    if bias is None and body is not None and dtype.compute is not dtype:
        steps.append(Step("cast", (0,), dtype, (("dtype", dtype),)))
        total = 1
    if bias is not None:
        number = load(bias, (*(None for _ in out.type.shape[1:]), 0))
        steps.append(Step("add", (0, number), out.type.dtype))
        total = len(steps) - 1
    if body is None:
        return Program(tuple(steps), tuple(operands), ((total, out),))
    numbers: list[int] = []
    for step in body.steps:
        if step.op != LOAD:
            steps.append(step._replace(inputs=tuple(numbers[i] for i in step.inputs)))
            numbers.append(len(steps) - 1)
            continue
        value, axes = body.operands[step.inputs[0]]
        if value is not out:
            numbers.append(load(value, axes))
        elif all(i == d or out.type.shape[d] == 1 for d, i in enumerate(axes)):
            numbers.append(total)
        else:
            raise UnsupportedError("a product that is read in another order")
    results = tuple((numbers[r.number], r.value) for r in body.results)
    return Program(tuple(steps), tuple(operands), results)


def lower_product(low: Lowering, node: Node, product: Node, body: Body | None) -> None:
    """Lower a matrix product and what follows it, which `node` computes."""
    x, y = (low.place(v) for v in product.inputs[:2])
    if product.op == "linear":
        y = y._replace(shape=y.shape[::-1], strides=y.strides[::-1])
    bias = product.inputs[2] if len(product.inputs) == 3 else None
    program = program_of(low, product.out, bias, body)
    results = [low.new(v) for _, v in program.results]
    if 0 in product.out.type.shape:
        return
    ahead = low.is_lasting(y)
    x, y = _read(low, x), _read(low, y)
    a, b = _array(x), _array(y)
    outs, others = [_array(p) for p in results], [_array(p) for p in program.operands]
    made = matrix_product(a, b, outs, others, program.epilogue(), target=low.target, ahead=ahead)
    steps = made.steps(a, b, outs, others)
    operands = [x, y, *program.operands]
    low.run_steps(made.kernels, steps, operands, results, node, product.op + program.what)


def _read(low: Lowering, x: Place) -> Place:
    """Return a place of matrices in rows or columns; 16-bit floats are widened."""
    near = [s for n, s in zip(x.shape[-2:], x.strides[-2:], strict=True) if n != 1]
    dtype, is_near = x.dtype.compute, not near or 1 in near
    if not is_near:
        return low.prepared(x, row_major(x.shape), dtype)
    if x.dtype is dtype:
        return x
    own = x._replace(shape=tuple(n if s else 1 for n, s in zip(x.shape, x.strides, strict=True)))
    return low.prepared(own, compact(own), dtype)._replace(shape=x.shape)


def _array(place: Place) -> Array:
    """Return a place as an array of at least two dims."""
    missing = (1,) * (2 - len(place.shape))
    return Array((*missing, *place.shape), (*(0 for _ in missing), *place.strides), place.dtype)
