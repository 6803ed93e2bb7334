"""Which products of a graph are attention, and the launch that takes their place.

softmax(score(q · kᵀ)) · v arrives as a product, a fused kernel that reads it alone, and another
product. It is one launch where nothing else reads the scores or the weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tracegraph.dtypes import bool_, float32, float64
from tracegraph.ir.graph import KERNEL, Graph, Node, Value
from tracegraph.runtime.cpu.code.values import UnsupportedError
from tracegraph.runtime.cpu.code.values import Value as Scalar
from tracegraph.runtime.cpu.layers.attention import Attention, cut, slots
from tracegraph.runtime.cpu.layers.attention_code import attention_text
from tracegraph.runtime.cpu.lowering.fused import Body, body_of, walked
from tracegraph.runtime.cpu.lowering.places import Place, expand, row_major
from tracegraph.runtime.cpu.nests.functions import evaluate
from tracegraph.runtime.cpu.nests.nest import FOLDS, LOAD, NUMBER, Step
from tracegraph.runtime.cpu.products.contraction_epilogue import Extent, Operand, Output
from tracegraph.runtime.cpu.products.contraction_tiles import tile_for
from tracegraph.runtime.cpu.products.launches import Buffer, Epilogue, Kernel, Launch, Steps

if TYPE_CHECKING:
    from tracegraph.runtime.cpu.lowering.lowering import Lowering

# Fewer rows do not make up for copying keys; fewer scores do not make up for compiling.
_LEAST_ROWS: Final = 16
_LEAST_SCORES: Final = 1024
# Wider heads would need too much of the stack.
_MOST_WIDTH: Final = 256


class Softmax(NamedTuple):
    """A fused kernel: `score`, a value of its steps, is what the softmax is of.

    `dead`: the number of the value that says for which rows the result is 0, and when it does.
    """

    body: Body
    score: int
    dead: tuple[int, bool] | None


def attentions(graph: Graph, order: Sequence[Node]) -> dict[Value, Node]:
    """Return the scores and the weights of all attentions, and what computes them otherwise."""
    results = set(graph.results())
    found: dict[Value, Node] = {}
    for node in order:
        if node.op != "matmul" or node.inputs[0] is node.inputs[1]:
            continue
        kernel = node.inputs[0].node
        if kernel.op != KERNEL or len(kernel.outs) != 1:
            continue
        products = [v for v in kernel.inputs if v.node.op == "matmul"]
        inner = [kernel.out, *products[:1]]
        alone = all(len(graph.users(v)) == 1 and v not in results for v in inner)
        if len(products) == 1 and alone and _fits(node, kernel, products[0]):
            found |= {kernel.out: kernel, products[0]: products[0].node}
    return found


def _fits(node: Node, kernel: Node, product: Value) -> bool:
    """Whether a fused kernel is a softmax of a product, and it all is worth while."""
    shape = product.type.shape
    if product.type.dtype not in (float32, float64) or len(node.out.type.shape) != len(shape):
        return False
    if len(shape) < 2 or shape[-2] < _LEAST_ROWS or shape[-2] * shape[-1] < _LEAST_SCORES:
        return False
    depth, width = product.node.inputs[0].type.shape[-1], node.out.type.shape[-1]
    if not (0 < depth <= _MOST_WIDTH and 0 < width <= _MOST_WIDTH) or 0 in node.out.type.shape:
        return False
    if kernel.out.type != product.type or node.out.type.shape[:-1] != shape[:-1]:
        return False
    try:
        return _softmax(body_of(kernel), product) is not None
    except UnsupportedError:
        return False


def _softmax(body: Body, product: Value) -> Softmax | None:
    """Return what a body is the softmax of; None if it is none."""
    steps = body.steps
    last = len(body.shape) - 1
    if body.folded != (last,) or body.shape != product.type.shape:
        return None
    number, dead = body.results[0].number, None
    if steps[number].op == "where":
        found = _masked(body, number)
        if found is None:
            return None
        number, dead = found[0], found[1:]
    names = []
    for op in ("div", "exp", "sub"):
        names.append(number)
        if steps[number].op != op:
            return None
        number, *others = steps[number].inputs
        names += others
    _, total, weight, _, greatest = (names[0], names[1], names[2], names[3], names[4])
    is_softmax = (
        steps[total] == Step("sum", (weight,), steps[total].dtype)
        and steps[greatest] == Step("amax", (number,), steps[total].dtype)
        and steps[number].dtype is product.type.dtype
    )
    before = _needed(steps, number)
    if not is_softmax or any(steps[i].op in FOLDS for i in before):
        return None
    return Softmax(body, number, dead) if _reads(body, before, product) else None


def _masked(body: Body, number: int) -> tuple[int, int, bool] | None:
    """Return (value, condition, when) where a step is 0 in the rows in which a condition holds."""
    condition, *sides = body.steps[number].inputs
    step = body.steps[condition]
    if step.op != LOAD or step.dtype is not bool_:
        return None
    if body.operands[step.inputs[0]].axes[-1] is not None:
        return None
    for when, (zero, other) in ((True, sides), (False, sides[::-1])):
        if body.steps[zero].op == NUMBER and dict(body.steps[zero].attrs)["value"] == 0:
            return other, condition, when
    return None


def _needed(steps: Sequence[Step], number: int) -> list[int]:
    """Return the steps that a value needs, in order."""
    found: set[int] = set()
    stack = [number]
    while stack:
        i = stack.pop()
        if i not in found:
            found.add(i)
            stack += () if steps[i].op == LOAD else steps[i].inputs
    return sorted(found)


def _reads(body: Body, order: Iterable[int], product: Value) -> bool:
    """Whether steps read a product, and place by place."""
    found = [body.operands[body.steps[i].inputs[0]] for i in order if body.steps[i].op == LOAD]
    axes = [x.axes for x in found if x.value is product]
    return len(axes) == 1 and all(
        i == d or n == 1 for d, (i, n) in enumerate(zip(axes[0], body.shape, strict=True))
    )


# The launch.


def lower_attention(low: Lowering, node: Node, kernel: Node) -> None:
    """Lower the second product of an attention with all that it reads."""
    product = next(v for v in kernel.inputs if v.node.op == "matmul")
    softmax = _softmax(body_of(kernel), product)
    if softmax is None or node.inputs[0] is not kernel.out:
        raise UnsupportedError("no attention")
    q, k, v, y = _matrices(low, node, product)
    score, operands, hides = _score(low, softmax, product)
    places = {"q": q, "k": k, "v": v, "y": y}
    places |= {f"operand{i}": x for i, x in enumerate(operands)}
    if softmax.dead is not None:
        places["dead"] = _operand(low, softmax.body, softmax.dead[0])
    spec = Attention(
        q.dtype, q.shape[-1], v.shape[-1], "rows" if k.strides[-1] == 1 else "columns",
        len(y.shape) - 2, score, None if softmax.dead is None else softmax.dead[1], hides,
        tile_for(low.target, q.dtype),
    )  # fmt: skip
    found = cut(spec, y.shape[:-2], y.shape[-2], k.shape[-2])
    words: dict[str, int | Buffer] = {**found.words}
    for number, (name, place) in enumerate(places.items()):
        *batch, row, near = place.strides
        words |= {name: Buffer("operand", number), f"{name}_row": row}
        words |= {f"{name}_batch{d}": far for d, far in enumerate(batch)}
        if name == "k":
            words["k_far"] = row if spec.keys == "rows" else near
    arguments = {name: words[name] for name in slots(spec)}
    flops = 2 * math.prod(y.shape[:-1]) * k.shape[-2] * (q.shape[-1] + v.shape[-1])
    launch = Launch(spec.name, arguments, found.chunks, found.cost_ns, flops)
    kernels = [Kernel(spec.name, attention_text, spec, low.target)]
    low.run_steps(kernels, Steps((launch,)), [*places.values()], [y], node, "attention")


def _matrices(low: Lowering, node: Node, product: Value) -> tuple[Place, ...]:
    """Return q[.., rows, d], k[.., keys, d], v[.., keys, n] and the result, of one batch each."""
    batch = node.out.type.shape[:-2]

    def placed(value: Value) -> Place:
        place = low.place(value)
        return expand(place, (*batch, *place.shape[-2:]))

    q, k, v = placed(product.node.inputs[0]), placed(product.node.inputs[1]), placed(node.inputs[1])
    q, v = _near(low, q), _near(low, v)
    if 1 not in k.strides[-2:]:
        k = low.dense(k)
    turned = (*range(len(batch)), len(batch) + 1, len(batch))
    k = k._replace(
        shape=tuple(k.shape[d] for d in turned), strides=tuple(k.strides[d] for d in turned)
    )
    return q, k, v, _result(low, node)


def _near(low: Lowering, place: Place) -> Place:
    """Return a place whose last dim is contiguous."""
    return place if place.strides[-1] == 1 or place.shape[-1] == 1 else low.dense(place)


def _result(low: Lowering, node: Node) -> Place:
    """Return a place for the result: in the order in which its only reader, a permute, wants it."""
    readers = low.graph.successors(node)
    shape = node.out.type.shape
    if len(readers) == 1 and readers[0].op == "permute" and node.out not in low.graph.results():
        dims = [d % len(shape) for d in readers[0].attrs["dims"]]
        if dims[-1] == len(shape) - 1:
            far = dict(zip(dims, row_major([shape[d] for d in dims]), strict=True))
            return low.new_as(node.out, tuple(far[d] for d in range(len(shape))))
    return low.new(node.out)


def _operand(low: Lowering, body: Body, load: int) -> Place:
    """Return an operand of a body, walked over the space."""
    value, axes = body.operands[body.steps[load].inputs[0]]
    return walked(low.place(value), axes, body.shape)


def _hidden(softmax: Softmax) -> tuple[int, bool] | None:
    """Return the load of a mask, and the value for which it makes a score -inf."""
    steps, number = softmax.body.steps, softmax.score
    if softmax.dead is not None and steps[number].op == "where":  # rows that will be 0 anyway
        condition, *sides = steps[number].inputs
        if condition == softmax.dead[0]:
            number = sides[softmax.dead[1]]
    if steps[number].op != "where":
        return None
    condition, *sides = steps[number].inputs
    for value, side in ((True, sides[0]), (False, sides[1])):
        is_least = steps[side].op == NUMBER and dict(steps[side].attrs)["value"] == float("-inf")
        if is_least and steps[condition].op == LOAD and steps[condition].dtype is bool_:
            return condition, value
    return None


def _score(
    low: Lowering, softmax: Softmax, product: Value
) -> tuple[Output, list[Place], tuple[int, bool] | None]:
    """Return what makes scores of products, its operands, and which of them hides keys, and how."""
    body, order = softmax.body, _needed(softmax.body.steps, softmax.score)
    loads = [i for i in order if body.steps[i].op == LOAD]
    others = [i for i in loads if body.operands[body.steps[i].inputs[0]].value is not product]
    places = [_operand(low, body, i) for i in others]
    used = []
    for place in places:
        *_, row, near = place.strides
        names: dict[tuple[bool, bool], Extent] = {
            (False, False): "scalar", (False, True): "column", (True, False): "row",
            (True, True): "place",
        }  # fmt: skip
        if near not in (0, 1):
            raise UnsupportedError("an operand of scores that lies in columns")
        used.append(Operand(names[row != 0, near == 1], place.dtype))
    if len(order) == 1:
        return Output((product.type.dtype,)), [], None
    steps, score = body.steps, softmax.score
    read = [next(i for i in loads if i not in others), *others]

    def epilogue(m: Any, *given: Scalar) -> Scalar:
        values = dict(zip(read, given, strict=True))
        evaluate(m, steps, values, order)
        return values[score]

    hides = _hidden(softmax)
    if hides is not None:
        number = others.index(hides[0])
        is_wide = used[number].extent in ("place", "column")
        hides = (number, hides[1]) if is_wide else None
    key = repr(([steps[i] for i in order], order, read))
    return Output((product.type.dtype,), tuple(used), Epilogue(key, epilogue)), places, hides
