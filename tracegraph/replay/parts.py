"""Parts of entry points: `loaded.subgraph(to="layer4")`, to be called, trained and saved."""

from __future__ import annotations

from typing import Any

from tracegraph import pytree
from tracegraph.capture.variants import VARIANT, Variant
from tracegraph.ir.graph import Graph
from tracegraph.replay.entry import EntryPoint
from tracegraph.replay.signature import LeafSpec, Signature


def part_of(entry: EntryPoint, from_: Any, to: Any) -> EntryPoint:
    """Return the part of an entry point between places of its graph; State is shared with it.

    Without `from_` it takes the arguments that it needs, nested as they were; else the values that
    it begins with, by place. It gives one tensor, or a tuple of them if `to` is a list.

    Raises:
        GraphError: see `ir.cutting.cut`.
    """
    graph = entry.graph.subgraph(to, from_)
    names = {n.attrs["name"] for n in graph.inputs}
    hypers = [h for h in entry.hypers if h.name in names]
    extra = {h.name for h in hypers} | {VARIANT}
    if from_ is None:
        signature = _same_arguments(entry, names)
        for spec in signature.specs:
            if spec.type is not None and spec.name not in names:
                graph.add_input(spec.name, spec.type)
        rank = {s.name: i for i, s in enumerate(entry.signature.specs)}
        graph.inputs.sort(key=lambda n: rank.get(n.attrs["name"], len(rank)))
    else:
        specs = [LeafSpec(n.attrs["name"], n.types[0], None) for n in graph.inputs
                 if n.attrs["name"] not in extra]  # fmt: skip
        tree = {"tuple": [{"leaf": i} for i in range(len(specs))]}
        signature = Signature(tuple(s.name for s in specs), len(specs), tree, tuple(specs), {}, ())
    held = entry.held.part(graph.states)
    part = EntryPoint(graph, _with_results(signature, graph, isinstance(to, (list, tuple))),
                      held.present(), hypers)  # fmt: skip
    part.hold(held)
    part.classes, part.trainable, part.lock = entry.classes, entry.trainable, entry.lock
    part.mode = entry.mode
    if from_ is None:
        part.layouts = {name: known for name, known in entry.layouts.items() if name in names}
    part.variants = entry.variants if VARIANT in names else _common(entry.variants)
    return part


def _same_arguments(entry: EntryPoint, needed: set[str]) -> Signature:
    """The signature with the arguments that hold a needed leaf, or one that chooses a variant."""
    old = entry.signature
    wanted = needed | set(entry.variants[0].scalars)
    names: list[str] = []
    trees: list[pytree.Tree] = []
    specs: list[LeafSpec] = []
    positional = 0
    for place, (name, tree) in enumerate(zip(old.names, old.inputs["tuple"], strict=True)):
        leaves = pytree.leaves_in(tree)
        if wanted.isdisjoint(old.specs[i].name for i in leaves):
            continue
        renumbered = {i: len(specs) + k for k, i in enumerate(leaves)}
        names.append(name)
        trees.append(pytree.renumbered(tree, renumbered))
        specs += [old.specs[i] for i in leaves]
        positional += place < old.positional
    return Signature(tuple(names), positional, {"tuple": trees}, tuple(specs), {}, ())


def _with_results(signature: Signature, graph: Graph, several: bool) -> Signature:
    leaves: list[Any] = [{"leaf": i} for i in range(len(graph.outputs))]
    results = tuple({"value": i} for i in range(len(leaves)))
    outputs = {"tuple": leaves} if several else leaves[0]
    return Signature(signature.names, signature.positional, signature.inputs, signature.specs,
                     outputs, results)  # fmt: skip


def _common(variants: list[Variant]) -> list[Variant]:
    """What all variants rely on, for a part that comes before they differ."""
    first, *rest = variants
    modes = {
        path: known for path, known in first.modes.items()
        if all(v.modes.get(path, known)[1] == known[1] for v in rest)
    }  # fmt: skip
    return [Variant({} if rest else first.scalars, modes)]
