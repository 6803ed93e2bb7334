"""Recurrent layers and their gradients as recurrences: see `ops.recurrent` for what they compute.

Gradients go backwards in time: their walks begin at the last step, with strides that are negative.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from tracegraph.dtypes import float32, float64
from tracegraph.ir.graph import Node
from tracegraph.runtime.cpu.code.values import UnsupportedError
from tracegraph.runtime.cpu.layers.recurrence import Recurrence, Stream, cut, slots, tile_of
from tracegraph.runtime.cpu.layers.recurrence_code import recurrence_text
from tracegraph.runtime.cpu.lowering.lowering import Lowering
from tracegraph.runtime.cpu.lowering.places import Buffer as Memory
from tracegraph.runtime.cpu.lowering.places import Place, expand, row_major
from tracegraph.runtime.cpu.lowering.steps import Launch
from tracegraph.runtime.cpu.products.launches import Buffer, Epilogue, Kernel, Steps
from tracegraph.runtime.cpu.products.launches import Launch as KernelLaunch
from tracegraph.runtime.cpu.products.matrix import packing_kernel, packing_launch, panels_bytes
from tracegraph.runtime.cpu.products.packing import Packing

_Cell = Callable[..., Any]


class _Walk(NamedTuple):
    """A place[row, gates · units] and how far the next step's is; `first`: what step 0 reads."""

    place: Place
    time: int
    gates: int = 1
    first: Place | None = None
    alternates: bool = False

    @property
    def stream(self) -> Stream:
        """What code depends on."""
        return Stream(self.gates, self.first is not None, self.alternates)

    def earlier(self, first: Place) -> _Walk:
        """Return the walk over what the step before has."""
        return self._replace(first=first)


class _Sums(NamedTuple):
    """The products of a step: `weights[k, gates · units]`; a state without `lag` is this step's."""

    state: _Walk
    weights: Place
    gates: int = 1
    lag: int = 1
    has_first: bool = True


class _Layer:
    """One node that is lowered."""

    def __init__(self, low: Lowering, node: Node) -> None:
        self.low, self.node = low, node
        dtype = node.inputs[0].type.dtype
        if dtype not in (float32, float64):
            raise UnsupportedError(f"recurrent layers of {dtype}")
        self.dtype, self.backward = dtype, node.op.endswith("_grad")
        self.time, self.rows = node.outs[0].type.shape[:2]
        self.given = [low.place(v) for v in node.inputs]
        self.launches: list[Launch] = []

    def near(self, place: Place) -> Place:
        """Return a place whose last dim is contiguous."""
        is_near = place.shape[-1] == 1 or place.strides[-1] == 1
        return place if is_near else self.low.dense(place)

    def walk(self, place: Place, gates: int = 1) -> _Walk:
        """Return the walk over a place[time, rows, gates · units]."""
        place = self.near(place)
        far, *strides = place.strides
        start = place.offset + (far * (self.time - 1) if self.backward else 0)
        step = place._replace(shape=place.shape[1:], strides=tuple(strides), offset=start)
        return _Walk(step, -far if self.backward else far, gates)

    def results(self) -> list[_Walk]:
        """Return the walks over the results of the node."""
        return [self.walk(self.low.new(v)) for v in self.node.outs]

    def scratch(self, size: int, gates: int, steps: int) -> _Walk:
        """Return memory for one step or for two in turn."""
        shape = (self.rows, gates * size)
        count = steps * self.rows * gates * size
        memory = self.low.scratch(count * self.dtype.itemsize)
        place = Place(memory, self.dtype, shape, row_major(shape))
        return _Walk(place, count // steps if steps > 1 else 0, gates, None, steps > 1)

    def zeros(self, size: int) -> Place:
        """Return zeros for what comes before step 0."""
        held = np.zeros(size, self.dtype.np)
        memory = Memory("constant", held.nbytes, None, held)
        return Place(memory, self.dtype, (self.rows, size), (0, 1))

    def add(
        self, key: str, cell: _Cell, sums: _Sums, operands: Sequence[_Walk],
        results: Sequence[_Walk], by_step: bool = False,
    ) -> None:  # fmt: skip
        """Add the launch of all steps, or `by_step` the launch that `finish` repeats."""
        low, state, weights = self.low, sums.state, sums.weights
        k, units = weights.shape[0], weights.shape[1] // sums.gates
        width, vectors, height = tile_of(low.target, self.dtype, sums.gates, units)
        spec = Recurrence(
            self.dtype, width, sums.gates, vectors, height, sums.lag, state.alternates,
            tuple(x.stream for x in operands), tuple(y.stream for y in results),
            Epilogue(key, cell),
        )  # fmt: skip
        packing = Packing(self.dtype, vectors * width, width, "any")
        packed = _packing_words(weights, sums.gates, units, packing.columns)
        found = cut(spec, self.rows, units, k, by_step)
        ahead = low.is_lasting(weights)
        panels = Buffer("packed" if ahead else "scratch", 0)
        words, places = _words(sums, operands, results, units)
        words |= {**found.words, "begin": 0, "end": self.time, "panels": panels}
        source = Buffer("operand", len(places))
        before = packing_launch(packing, packed, source, panels)
        arguments = {name: words[name] for name in slots(spec)}
        steps = 1 if found.by_step else self.time
        flops = 2 * steps * self.rows * units * sums.gates * k
        cost_ns = int(steps * found.step_ns)
        launch = KernelLaunch(spec.name, arguments, found.chunks, cost_ns, flops)
        size = (panels_bytes(packed, packing),)
        made = Steps((launch,), (before,), size) if ahead else Steps((before, launch), (), (), size)
        kernels = [Kernel(spec.name, recurrence_text, spec, low.target)]
        kernels.append(packing_kernel(packing, low.target))
        written = [y.place for y in results]
        low.run_steps(kernels, made, [*places, weights], written, self.node, self.node.op)
        step = low.steps[-1]
        if found.by_step and isinstance(step, Launch):
            self.launches.append(step)
            low.steps.pop()

    def finish(self) -> None:
        """Repeat the launches of one step for all: they differ by the number of the step."""
        self.low.steps += [
            launch._replace(words=(t, t + 1, *launch.words[2:]))
            for t in range(self.time if self.launches else 0)
            for launch in self.launches
        ]


def _words(
    sums: _Sums, operands: Sequence[_Walk], results: Sequence[_Walk], units: int
) -> tuple[dict[str, int | Buffer], list[Place]]:
    """Return the words for what is walked over, and the places that their buffers number."""
    places: list[Place] = []

    def at(name: str, place: Place) -> dict[str, int | Buffer]:
        places.append(place)
        return {name: Buffer("operand", len(places) - 1), f"{name}_row": place.strides[0]}

    state = sums.state
    words = at("state", state.place) | at("first", state.first or state.place)
    words |= {"state_time": state.time, "first_k": sums.weights.shape[0] if sums.has_first else 0}
    walks = {f"x{i}": x for i, x in enumerate(operands)}
    for name, walk in (walks | {f"y{i}": y for i, y in enumerate(results)}).items():
        words |= {**at(name, walk.place), f"{name}_time": walk.time, f"{name}_gate": units}
        if walk.first is not None:
            words |= at(f"{name}_first", walk.first)
    return words, places


def _packing_words(weights: Place, gates: int, units: int, columns: int) -> dict[str, int]:
    """Return the words of a packing for which (k, gate) is one index, of the rows of panels."""
    k, (k_stride, n_stride) = weights.shape[0], weights.strides
    return {
        "n": units, "panel_count": -(-units // columns), "k2": 1, "k1": k, "k0": gates,
        "k2_stride": 0, "k1_stride": k_stride, "k0_stride": units * n_stride,
        "n_stride": n_stride, "matrices": 1, "matrix_stride": 0,
    }  # fmt: skip


def _transposed(place: Place) -> Place:
    return place._replace(shape=place.shape[::-1], strides=place.strides[::-1])


# Forwards.


def _rnn(layer: _Layer, is_relu: bool) -> None:
    x, h, w = layer.given
    (ys,) = layer.results()

    def cell(m: Any, total: Any, x: Any) -> Any:
        return m.maximum(total + x, 0) if is_relu else m.tanh(total + x)

    sums = _Sums(ys.earlier(layer.near(h)), _transposed(w))
    layer.add(f"rnn {is_relu}", cell, sums, [layer.walk(x)], [ys])


def _lstm_cell(m: Any, *given: Any) -> tuple[Any, Any]:
    i, f, cell, o = (h + x for h, x in zip(given[:4], given[4:8], strict=True))
    c = m.sigmoid(f) * given[8] + m.sigmoid(i) * m.tanh(cell)
    return m.sigmoid(o) * m.tanh(c), c


def _lstm(layer: _Layer) -> None:
    x, h, c, w, *projection = layer.given
    ys, cs = layer.results()
    raw = layer.scratch(c.shape[1], 1, 1) if projection else ys
    sums = _Sums(ys.earlier(layer.near(h)), _transposed(w), 4)
    operands = [layer.walk(x, 4), cs.earlier(layer.near(c))]
    layer.add("lstm", _lstm_cell, sums, operands, [raw, cs], bool(projection))
    if projection:
        sums = _Sums(raw, _transposed(projection[0]), lag=0)
        layer.add("projection", lambda m, total: total, sums, [], [ys], by_step=True)


def _gru_cell(m: Any, *given: Any) -> Any:
    hidden, (xr, xz, xn, h) = given[:3], given[3:7]
    r, z, n = (s + b for s, b in zip(hidden, given[7:], strict=True)) if given[7:] else hidden
    new = m.tanh(xn + m.sigmoid(xr + r) * n)
    return new + m.sigmoid(xz + z) * (h - new)


def _gru(layer: _Layer) -> None:
    x, h, w, *bias = layer.given
    (ys,) = layer.results()
    before = ys.earlier(layer.near(h))
    operands = [layer.walk(x, 3), before]
    for b in bias:
        row = expand(layer.near(b), (layer.rows, *b.shape))
        operands.append(_Walk(row, 0, 3))
    layer.add("gru", _gru_cell, _Sums(before, _transposed(w), 3), operands, [ys])


# Backwards.


def _rnn_grad(layer: _Layer) -> None:
    g, slope, w = layer.given
    (dx,) = layer.results()

    def cell(_: Any, total: Any, g: Any, slope: Any) -> Any:
        return (g + total) * slope

    layer.add("rnn_grad", cell, _Sums(dx, w, has_first=False), [*map(layer.walk, (g, slope))], [dx])


def _gru_grad_cell(_: Any, *given: Any) -> tuple[Any, ...]:
    total, g, later, z, *k = given
    dy = g + total + later * z
    return dy, *(dy * one for one in k)


def _gru_grad(layer: _Layer) -> None:
    g, k, z, w = layer.given
    (dys,) = layer.results()
    size = g.shape[2]
    e, none = layer.scratch(size, 3, 2), layer.zeros(size)
    operands = [layer.walk(g), dys.earlier(none), layer.walk(z).earlier(none), layer.walk(k, 3)]
    layer.add("gru_grad", _gru_grad_cell, _Sums(e, w, has_first=False), operands, [dys, e])


def _lstm_grad_cell(_: Any, raw: Any, *given: Any) -> tuple[Any, ...]:
    """Return dc and the gates' part of e, whose last piece is of dy."""
    g_cs, later, f, a, *k = given
    dc = g_cs + later * f + raw * a
    return dc, *(dc * one for one in k[:3]), raw * k[3]


def _lstm_grad(layer: _Layer) -> None:
    g, g_cs, a, k, f, w, *projection = layer.given
    dys, dcs = layer.results()
    size = a.shape[2]
    e, none = layer.scratch(size, 4, 2), layer.zeros(size)
    to_cells = [layer.walk(g_cs), dcs.earlier(none), layer.walk(f).earlier(none), layer.walk(a),
                layer.walk(k, 4)]  # fmt: skip
    sums = _Sums(e, w, has_first=False)

    def both(m: Any, total: Any, g: Any, *given: Any) -> tuple[Any, ...]:
        return g + total, *_lstm_grad_cell(m, g + total, *given)

    def output(_: Any, total: Any, g: Any) -> Any:
        return g + total

    if not projection:
        layer.add("lstm_grad", both, sums, [layer.walk(g), *to_cells], [dys, dcs, e])
        return
    layer.add("lstm_grad output", output, sums, [layer.walk(g)], [dys], by_step=True)
    raw = _Sums(dys, projection[0], lag=0)
    layer.add("lstm_grad cells", _lstm_grad_cell, raw, to_cells, [dcs, e], by_step=True)


_LAYERS: Final[dict[str, Callable[..., None]]] = {
    "rnn": _rnn, "lstm": _lstm, "gru": _gru,
    "rnn_grad": _rnn_grad, "lstm_grad": _lstm_grad, "gru_grad": _gru_grad,
}  # fmt: skip


def lower_recurrent(low: Lowering, node: Node) -> None:
    """Lower a recurrent layer or its gradient."""
    layer = _Layer(low, node)
    if 0 in (n for v in (*node.inputs, *node.outs) for n in v.type.shape):
        if any(0 not in v.type.shape for v in node.outs):
            raise UnsupportedError("a recurrent layer without units")
        for value in node.outs:
            low.new(value)
        return
    _LAYERS[node.op](layer, *([node.attrs["relu"]] if node.op == "rnn" else []))
    layer.finish()
