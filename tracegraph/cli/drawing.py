"""Drawing a graph: SVG with a small layered layout, and text for Graphviz.

Layers are networkx's topological generations; boxes are ordered within a layer by the mean place
of their neighbours (Sugiyama, Tagawa & Toda 1981). State, hyper-parameters and constants are named
inside the boxes that read them, so that the picture shows what is computed.
"""

from __future__ import annotations

import json
from html import escape
from typing import Final

import networkx as nx

from tracegraph.cli.output import printable
from tracegraph.ir.graph import INPUT, KERNEL, Graph, Node
from tracegraph.ir.text import literal, source_text
from tracegraph.ops.core import CONTRACTION, CREATION, ELEMENTWISE, RANDOM, REDUCTION, VIEW

_CHARACTER_WIDTH: Final = 6.7
_LINE_HEIGHT: Final = 14
_GAP: Final = 24
_LAYER_GAP: Final = 34
_MAX_TEXT: Final = 44
_SWEEPS: Final = 8

_COLORS: Final = (
    (CONTRACTION, "#ffd9b3"), (REDUCTION, "#f6c6d8"), (RANDOM, "#e3d0f5"), (VIEW, "#e8e8e8"),
    (ELEMENTWISE, "#cfe8cf"), (CREATION, "#f3f3c8"),
)  # fmt: skip


class Box:
    """One thing to draw: an input, an operation or a result.

    Attributes: `lines` (its text), `color`, `tip` (shown under the pointer), `is_input`, `layer`
    (0 is on top), `x` and `y` (centre, in pixels), `width`, `height`.
    """

    def __init__(self, lines: list[str], color: str, tip: str) -> None:
        self.lines = [_short(line) for line in lines if line]
        self.color = color
        self.tip = tip
        self.is_input = False
        self.layer = 0
        self.x = 0.0
        self.y = 0.0
        self.width = max(map(len, self.lines)) * _CHARACTER_WIDTH + 16
        self.height = len(self.lines) * _LINE_HEIGHT + 10


def _short(text: str) -> str:
    text = printable(text)
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 3] + "..."


def boxes_of(graph: Graph) -> nx.DiGraph[Box]:
    """Return the picture of a graph: boxes and the Values that flow between them (`type`)."""
    picture: nx.DiGraph[Box] = nx.DiGraph()
    made: dict[Node, Box] = {}
    for node in graph.order():
        if source_text(node):
            continue
        made[node] = box = _box_of(node)
        box.is_input = node.op == INPUT
        picture.add_node(box)
        for value in node.inputs:
            if value.node in made:
                picture.add_edge(made[value.node], box, type=str(value.type))
    ends = [(f"output {i}", v) for i, v in enumerate(graph.outputs)]
    ends += [(f"write {name}", v) for name, v in graph.writes.items()]
    for text, value in ends:
        box = Box([text, source_text(value.node)], "#ffffff", f"{text}: {value.type}")
        picture.add_node(box)
        if value.node in made:
            picture.add_edge(made[value.node], box, type=str(value.type))
    return picture


def _box_of(node: Node) -> Box:
    types = ", ".join(map(str, node.types))
    if node.op == INPUT:
        return Box([f"input {node.attrs['name']}", types], "#cfe2f7", "")
    read = ", ".join(t for v in node.inputs if (t := source_text(v.node)))
    attrs = ", ".join(f"{k}={literal(v)}" for k, v in node.attrs.items())
    color = "#d0d0ff"
    if node.op != KERNEL:
        color = next((c for trait, c in _COLORS if trait in node.row.traits), "#ffffff")
    tip = "\n".join(t for t in (attrs, node.scope, str(node.loc or "")) if t)
    return Box([node.op, read, attrs, types], color, tip)


def _layers(picture: nx.DiGraph[Box]) -> list[list[Box]]:
    """Put every box below those it reads, and what no input leads to right above its readers."""
    generations = list(nx.topological_generations(picture))
    fed: set[Box] = set()
    for number, generation in enumerate(generations):
        for box in generation:
            box.layer = number
            if box.is_input or any(b in fed for b in picture.predecessors(box)):
                fed.add(box)
    for generation in reversed(generations):
        for box in generation:
            if box not in fed and picture.out_degree(box):
                box.layer = min(b.layer for b in picture.successors(box)) - 1
    layers: list[list[Box]] = [[] for _ in generations]
    for box in picture:
        layers[box.layer].append(box)
    return layers


def _spread(layer: list[Box], wanted: dict[Box, float]) -> None:
    """Place boxes near where they want to be, in that order, without overlap."""
    layer.sort(key=lambda b: wanted[b])
    left: list[float] = []
    for i, box in enumerate(layer):
        least = -1e9 if not i else left[-1] + (layer[i - 1].width + box.width) / 2 + _GAP
        left.append(max(wanted[box], least))
    right = 1e9
    for i in range(len(layer) - 1, -1, -1):
        box = layer[i]
        most = right if i == len(layer) - 1 else right - (layer[i + 1].width + box.width) / 2 - _GAP
        right = min(wanted[box], most)
        box.x = (left[i] + right) / 2


def lay_out(picture: nx.DiGraph[Box]) -> tuple[float, float]:
    """Give every box its place; returns the width and height of the picture."""
    layers = _layers(picture)
    for layer in layers:
        _spread(layer, {b: i * 80.0 for i, b in enumerate(layer)})
    for sweep in range(_SWEEPS):
        neighbours = picture.predecessors if sweep % 2 == 0 else picture.successors
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            wanted = {}
            for box in layer:
                near = [b.x for b in neighbours(box)]
                wanted[box] = sum(near) / len(near) if near else box.x
            _spread(layer, wanted)
    start = min((b.x - b.width / 2 for b in picture), default=0.0) - _GAP
    y = float(_GAP)
    for layer in layers:
        height = max((b.height for b in layer), default=0)
        for box in layer:
            box.x -= start
            box.y = y + height / 2
        y += height + _LAYER_GAP
    return max((b.x + b.width / 2 for b in picture), default=0.0) + _GAP, y


def to_svg(graph: Graph) -> str:
    """Return an SVG drawing of a graph."""
    picture = boxes_of(graph)
    width, height = lay_out(picture)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="monospace" font-size="11">',
        f"<title>{escape(printable(graph.name))}</title>",
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    parts += [_curve(a, b, text) for a, b, text in picture.edges(data="type")]
    parts += [_rectangle(box) for box in picture]
    return "\n".join([*parts, "</svg>\n"])


def _curve(above: Box, below: Box, text: str) -> str:
    x1, y1 = above.x, above.y + above.height / 2
    x2, y2 = below.x, below.y - below.height / 2
    bend = (y2 - y1) / 2
    color = "#666" if below.layer - above.layer == 1 else "#bbb"
    path = f"M{x1:.1f} {y1:.1f}C{x1:.1f} {y1 + bend:.1f} {x2:.1f} {y2 - bend:.1f} {x2:.1f} {y2:.1f}"
    return f'<path d="{path}" fill="none" stroke="{color}"><title>{escape(text)}</title></path>'


def _rectangle(box: Box) -> str:
    left, top = box.x - box.width / 2, box.y - box.height / 2
    parts = [
        f'<g><rect x="{left:.1f}" y="{top:.1f}" width="{box.width:.1f}" height="{box.height}" '
        f'rx="4" fill="{box.color}" stroke="#555"/>'
    ]
    if box.tip:
        tip = "\n".join(printable(line) for line in box.tip.split("\n"))
        parts.append(f"<title>{escape(tip)}</title>")
    for i, line in enumerate(box.lines):
        weight = ' font-weight="bold"' if i == 0 else ""
        y = top + _LINE_HEIGHT * (i + 1)
        parts.append(
            f'<text x="{box.x:.1f}" y="{y:.1f}" text-anchor="middle"{weight}>{escape(line)}</text>'
        )
    return "".join([*parts, "</g>"])


def to_dot(graph: Graph) -> str:
    """Return a graph in the language of Graphviz."""
    picture = boxes_of(graph)
    numbers = {box: i for i, box in enumerate(picture)}
    lines = [f"digraph {json.dumps(printable(graph.name))} {{", "  node [shape=box, style=filled];"]
    for box, i in numbers.items():
        label = json.dumps("\n".join(box.lines), ensure_ascii=False)
        lines.append(f'  n{i} [label={label}, fillcolor="{box.color}"];')
    for a, b, text in picture.edges(data="type"):
        lines.append(f"  n{numbers[a]} -> n{numbers[b]} [label={json.dumps(text)}];")
    return "\n".join([*lines, "}\n"])
