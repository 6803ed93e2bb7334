"""A graph of static shapes to steps: kernels with the words of their argument blocks, host calls.

Each Value gets a place in memory. Views are places in their operand's buffer. What has a template
becomes launches; the rest is a call of the interpreter's kernel on arrays over the same memory.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import numpy as np

from tracegraph.dtypes import DType
from tracegraph.ir.graph import CONSTANT, INPUT, KERNEL, STATE, Graph, Node, Value
from tracegraph.ops.core import ELEMENTWISE, VIEW
from tracegraph.ops.table import OPS
from tracegraph.runtime.cpu.code.llvm import Target
from tracegraph.runtime.cpu.code.values import UnsupportedError
from tracegraph.runtime.cpu.kept import identity
from tracegraph.runtime.cpu.kernels import Kernel
from tracegraph.runtime.cpu.lowering import places
from tracegraph.runtime.cpu.lowering.copies import add_copy
from tracegraph.runtime.cpu.lowering.fused import Body, body_of, is_fold, lower_body
from tracegraph.runtime.cpu.lowering.fused_products import lower_product
from tracegraph.runtime.cpu.lowering.in_place import sharing, written_at_once
from tracegraph.runtime.cpu.lowering.late import late
from tracegraph.runtime.cpu.lowering.memory import Use
from tracegraph.runtime.cpu.lowering.places import Buffer, Place
from tracegraph.runtime.cpu.lowering.steps import (
    HostCall,
    Launch,
    Plan,
    Pointer,
    moved_place,
    moved_step,
    pointer,
)
from tracegraph.runtime.cpu.nests.kernel import NestKernel
from tracegraph.runtime.cpu.nests.nest import Step, Walk, make_nest
from tracegraph.runtime.cpu.products.launches import Steps

Template = Callable[..., None]  # adds what a node takes to a lowering
_Layout = tuple[Place, tuple[int, ...], DType]  # elements with other strides and another dtype


class Lowering:
    """The walk over a graph. Templates are given this, and add steps.

    `lasting` names the State that no call writes: what is made of it alone may be kept. `in_place`
    names the State whose new content may be written where the old one is, once nothing can fail.
    """

    def __init__(
        self, graph: Graph, target: Target, lasting: Iterable[str],
        templates: Mapping[str, Template], delayed: Mapping[Value, Node],
        in_place: Iterable[str] = (),
    ) -> None:  # fmt: skip
        self.graph, self.target, self.templates = graph, target, templates
        self.delayed = dict(delayed)
        self.lasting, self.in_place = set(lasting), set(in_place)
        self.steps: list[Launch | HostCall] = []
        self.ahead: dict[Any, tuple[list[Launch], list[Buffer]]] = {}
        self.checks: dict[int, HostCall] = {}
        # Indices known to name places in a dim of some size, and whether some may be negative.
        self.in_range: dict[tuple[Buffer, int, bool], None] = {}
        self.apart: dict[Node, str] = {}
        # The numbers of kernels that differ in them alone.
        self.alike: dict[Any, set[str]] = {}
        self.places: dict[Value, Place] = {}
        self._laid: dict[_Layout, Place] = {}
        # What is made of lasting places where, or before, it is read: its buffer -> of what, how.
        self._prepared: dict[_Layout, Place] = {}
        self._preparing: dict[Buffer, tuple[_Layout, Launch]] = {}
        # What a template that does not serve must leave as it was; see `_tried`.
        self._journal: tuple[dict[Any, Any], ...] = (
            self.ahead, self.checks, self.in_range, self.places, self._laid, self._prepared,
            self._preparing,
        )  # fmt: skip
        self._taken: list[tuple[Value, Node]] = []  # what was delayed, and is no more
        self._numbers = {node: number for number, node in enumerate(graph.inputs)}

    def run(self, order: Sequence[Node]) -> Plan:
        """Lower the nodes and place the results.

        `order` is the graph's, or another one that respects sizes and effects.
        """
        self.lower_all(order)
        results = self._results()
        return Plan(self.steps, results, self.ahead, self.checks, self.apart)

    def lower_all(self, order: Iterable[Node]) -> None:
        """Lower nodes of a graph, or of a region whose inputs have places."""
        for node in order:
            if node.op in (INPUT, STATE, CONSTANT):
                self._source(node)
            elif not any(v in self.delayed for v in node.outs):
                self._lower(node)

    def _source(self, node: Node) -> None:
        value = node.out
        size = places.byte_size(value.type)
        if node.op == CONSTANT:
            self.places[value] = self.constant(node.attrs["value"], value)
            return
        if node.op == INPUT:
            buffer = Buffer("input", size, self._numbers[node])
        else:
            buffer = Buffer("state", size, node.attrs["name"])
        self.places[value] = places.whole(buffer, value.type)

    def constant(self, array: Any, value: Value) -> Place:
        """Return the place of a constant."""
        held = np.ascontiguousarray(array, value.type.dtype.np).reshape(value.type.shape)
        return self.held(held, value.type.dtype)

    def held(self, array: Any, dtype: DType) -> Place:
        """Return the place of a row-major array of some dtype that the plan holds."""
        buffer = Buffer("constant", array.nbytes, None, array)
        return Place(buffer, dtype, array.shape, places.row_major(array.shape))

    def number(self, value: Any, dtype: DType) -> Place:
        """Return the place of one number."""
        return self.held(np.full((), value, dtype.np), dtype)

    def _lower(self, node: Node) -> None:
        if node.op in OPS and VIEW in node.row.traits:
            self._view(node)
            return
        fused = next((v for v in node.inputs if v in self.delayed), None)
        if fused is not None:
            refused = self._tried(node, partial(lower_with_product, product=fused))
            if not refused:
                del self.delayed[fused]
                return
            self.apart[fused.node] = refused
        for value in node.inputs:
            self.place(value)
        why, template = "there is no template", self.templates.get(node.op)
        if any(v.type.dtype.is_complex for v in (*node.inputs, *node.outs)):
            template, why = None, "complex numbers"
        elif template is None and (is_fold(node) or _is_elementwise(node)):
            template = lower_nest
        if template is not None:
            why = self._tried(node, template)
        if why:
            self.host(node, why)

    def _tried(self, node: Node, template: Template) -> str:
        """Run a template; if it does not serve, return why, and leave no trace of it."""
        steps, taken = len(self.steps), len(self._taken)
        counts = [len(known) for known in self._journal]
        try:
            template(self, node)
        except UnsupportedError as error:
            del self.steps[steps:]
            for known, count in zip(self._journal, counts, strict=True):
                while len(known) > count:
                    known.popitem()
            self.delayed.update(self._taken[taken:])
            del self._taken[taken:]
            return str(error)
        return ""

    def _view(self, node: Node) -> None:
        op, x, attrs = node.op, self.place(node.inputs[0]), node.attrs
        found = places.view(op, x, attrs) or places.view(op, self.dense(x), attrs)
        if found is None:
            self.host(node, "a view of unknown kind")
        else:
            self.places[node.out] = found

    # What templates use.

    def place(self, value: Value) -> Place:
        """Return where a Value lies; one that a later kernel was to compute is computed now."""
        if value not in self.places and value in self.delayed:
            node = self.delayed.pop(value)
            self._taken.append((value, node))
            self._lower(node)
        return self.places[value]

    def new(self, value: Value, like: Sequence[Place] = ()) -> Place:
        """Return a fresh place for a Value, in row-major order or as what it is made of lies."""
        made = self.fresh(value.type)
        for x in like:
            strides = places.strides_like(made.shape, x)
            if strides is not None:
                made = made._replace(strides=strides)
                break
        self.places[value] = made
        return made

    def new_as(self, value: Value, strides: tuple[int, ...]) -> Place:
        """Return a fresh place for a Value with the strides of some order of its dims."""
        made = self.fresh(value.type)._replace(strides=strides)
        self.places[value] = made
        return made

    def fresh(self, type: Any) -> Place:
        """Return a fresh place in the arena for a tensor."""
        return places.whole(Buffer("arena", places.byte_size(type)), type)

    def scratch(self, size: int) -> Buffer:
        """Return a fresh buffer of some bytes."""
        return Buffer("arena", size)

    def is_lasting(self, place: Place) -> bool:
        """Whether a place holds the same from call to call."""
        buffer = place.buffer
        if buffer.origin == "state":
            return buffer.key in self.lasting
        return buffer.origin == "constant" or buffer in self._preparing

    def dense(self, x: Place) -> Place:
        """Return a place with the same elements in row-major order; a copy is made if need be."""
        return self.laid(x, places.row_major(x.shape))

    def laid(self, x: Place, strides: tuple[int, ...], dtype: DType | None = None) -> Place:
        """Return a place with the same elements and the strides of some order of its dims.

        `dtype`: another one that holds them, float32 for 16-bit floats.
        """
        if places.lies_so(x, strides, dtype):
            return x
        layout = (x, strides, dtype or x.dtype)
        found = self._laid.get(layout)
        if found is None:
            found = self._laid[layout] = places.laid_out(*layout)
            self.copy(x, found)
        return found

    def prepared(self, x: Place, strides: tuple[int, ...], dtype: DType) -> Place:
        """Return what `laid` does, for `run_steps` alone to read: of lasting elements made ahead.

        Where the launches that run ahead do not read it, it is made as often as it is read.
        """
        if not self.is_lasting(x) or places.lies_so(x, strides, dtype) or 0 in x.shape:
            return self.laid(x, strides, dtype)
        layout = (x, strides, dtype)
        found = self._prepared.get(layout)
        if found is None:
            found = self._prepared[layout] = places.laid_out(*layout)
            self.copy(x, found)
            made = self.steps.pop()
            assert isinstance(made, Launch)
            self._preparing[found.buffer] = (layout, made)
        return found

    def copy(self, x: Place, y: Place, node: Node | None = None) -> None:
        """Add a copy of x to y, which has its shape."""
        add_copy(self, x, y, node)

    def nest(
        self, shape: Sequence[int], folded: Sequence[int], steps: Sequence[Step],
        operands: Sequence[Place], results: Sequence[tuple[int, Place]], costly: frozenset[int],
        node: Node | None, what: str,
    ) -> None:  # fmt: skip
        """Add a loop nest; places have the strides of the space."""
        cut = make_nest(
            tuple(shape), folded, steps, [Walk(p.dtype, p.strides) for p in operands],
            [(v, Walk(p.dtype, p.strides)) for v, p in results], costly, self.target.vector_bytes,
        )  # fmt: skip
        arrays = [pointer(p) for p in (*operands, *(p for _, p in results))]
        kernel = NestKernel(cut.nest, self.target)
        rest = [cut.words[name] for name in kernel.slots[len(arrays) :]]
        words: tuple[int | Pointer, ...] = (*arrays, *rest)
        shared = () if folded else sharing(operands, [p for _, p in results])
        use = Use([p.buffer for p in operands], [p.buffer for _, p in results], shared)
        self.steps.append(Launch(kernel, words, cut.chunks, cut.cost_ns, use, node, what))

    def run_steps(
        self, kernels: Iterable[Kernel], made: Steps, operands: Sequence[Place],
        results: Sequence[Place], node: Node, what: str,
    ) -> None:  # fmt: skip
        """Add launches that were made for operands and results."""
        by_name = {kernel.name: kernel for kernel in kernels}
        scratch = [Buffer("arena", size) for size in made.scratch_bytes]
        early = [self._preparing.get(p.buffer) for p in _read(made.ahead, operands)]
        key = (
            repr(made.ahead),
            *((identity(p), None) if x is None else (identity(x[0][0]), x[0][1:])
              for x, p in zip(early, _read(made.ahead, operands), strict=True)),
        )  # fmt: skip
        packed = self.ahead[key][1] if key in self.ahead else [
            Buffer("kept", size, key) for size in made.packed_bytes
        ]  # fmt: skip

        def word(x: Any) -> int | Pointer:
            if isinstance(x, int):
                return x
            if x.kind in ("operand", "result"):
                place = (operands if x.kind == "operand" else results)[x.number]
                first = pointer(place)
                return first._replace(offset_bytes=first.offset_bytes + x.offset_bytes)
            buffer = (packed if x.kind == "packed" else scratch)[x.number]
            return Pointer(buffer, x.offset_bytes)

        def launch(x: Any, label: str) -> Launch:
            words = tuple(map(word, x.arguments.values()))
            buffers = [w.buffer for w in words if isinstance(w, Pointer)]
            use = Use(buffers, [p.buffer for p in results] + scratch, shared)
            kernel = by_name[x.kernel]
            return Launch(kernel, words, x.chunks, x.cost_ns, use, node, label, x.flops)

        first = 0 if made.may_alias else 1  # partial sums may be kept in result 0
        shared = sharing(operands[2:], results[first:], operands[:2])
        if made.ahead and key not in self.ahead:
            before = [x[1] for x in early if x is not None]
            self.ahead[key] = ([*before, *(launch(x, "pack") for x in made.ahead)], packed)
        late = [self._preparing.get(p.buffer) for p in _read(made.launches, operands)]
        self.steps += [x[1] for x in late if x is not None]
        self.steps += [launch(x, what) for x in made.launches]

    def host(self, node: Node, why: str) -> None:
        """Add a call of the interpreter's kernel."""
        operands = tuple(self.place(v) for v in node.inputs)
        results = tuple(self.new(v) for v in node.outs)
        use = Use([p.buffer for p in operands], [p.buffer for p in results])
        self.steps.append(HostCall(node, operands, results, use, why))

    def check(self, node: Node) -> int:
        """Return the code by which the kernel of the next step says that the host is to refuse.

        It does so if the operands are wrong: the interpreter's kernel then raises its error.
        """
        code = len(self.steps) + 1
        operands = tuple(self.place(v) for v in node.inputs)
        self.checks[code] = HostCall(node, operands, (), Use([], []), "a native kernel refused")
        return code

    # Results.

    def _results(self) -> list[Place]:
        """Place each result in a buffer of its own."""
        made: list[Place] = []
        homes: dict[Buffer, tuple[Buffer, int]] = {}
        for number, value in enumerate(self.graph.results()):
            x = self.place(value)
            own = Buffer("output", places.byte_size(value.type), number)
            if x.buffer.origin == "arena" and x.is_whole and x.buffer not in homes:
                homes[x.buffer] = (own, 0)
                made.append(x)
                continue
            y = places.whole(own, value.type)
            self.copy(x, y)
            made.append(y)
        homes |= {held: (state, 0) for held, state in self._in_place(homes).items()}
        self.steps = [moved_step(step, homes) for step in self.steps]
        self.checks = {code: moved_step(step, homes) for code, step in self.checks.items()}
        return [moved_place(p, homes) for p in made]

    def _in_place(self, moved: Container[Buffer]) -> dict[Buffer, Buffer]:
        """Return the State that new contents may be written to at once, by what holds them."""
        outputs = {self.places[v].buffer for v in self.graph.outputs}
        wanted = {}
        for name, value in self.graph.writes.items():
            held = self.places[value].buffer
            if name in self.in_place and held in moved and held not in outputs:
                wanted[held] = self.places[self.graph.states[name].out].buffer
        return written_at_once(self.steps, self.checks, wanted)


PRODUCTS: Final[dict[str, Callable[[Lowering, Node, Node, Body | None], None]]] = {
    "linear": lower_product,
    "matmul": lower_product,
    "convolution": late("fused_convolutions.lower_convolution"),
    "convolution_input_grad": late("fused_convolutions.lower_convolution"),
}


def lower_alone(low: Lowering, node: Node) -> None:
    """Lower a product by itself."""
    PRODUCTS[node.op](low, node, node, None)


def lower_with_product(low: Lowering, node: Node, product: Value) -> None:
    """Lower an elementwise node with the product that it alone reads, or an attention."""
    if product.node.op == KERNEL:
        late("attentions.lower_attention")(low, node, product.node)
        return
    body = body_of(node)
    if body.folded or body.shape != product.type.shape:
        raise UnsupportedError("a fused kernel of another shape than its product")
    PRODUCTS[product.node.op](low, node, product.node, body)


def lower_nest(low: Lowering, node: Node) -> None:
    """Lower a kernel node, an elementwise op or a reduction as a loop nest."""
    lower_body(low, node, body_of(node))


def _is_elementwise(node: Node) -> bool:
    return node.op in OPS and ELEMENTWISE in node.row.traits


def _read(launches: Iterable[Any], operands: Sequence[Place]) -> list[Place]:
    """Return the operands that launches read."""
    return [operands[i] for i in sorted({x.number for made in launches for x in made.operands})]
