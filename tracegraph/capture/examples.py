"""Example: what a single run of a traced function did."""

from __future__ import annotations

from typing import Any, NamedTuple

from tracegraph import pytree
from tracegraph.audit.frozen import Findings
from tracegraph.capture.places import Place
from tracegraph.capture.trie import Path
from tracegraph.eager.tensors import Tensor
from tracegraph.replay.signature import Hyper, LeafSpec, Signature


class Example(NamedTuple):
    """One run: what it took and gave, what it recorded, and the State that it met.

    `places` are where State is held, `shared` the places of State held by several, `rebound` the
    places that got another tensor, by the name of the State. `left` says what the run changed in
    Python objects, which no replay does; `in_history` is the State that it left as a part of the
    gradient history. `orders` say how inputs lie in memory, `layouts` which of them the run relied
    on.
    """

    path: Path
    names: tuple[str, ...]
    positional: int
    inputs: pytree.Tree
    specs: tuple[LeafSpec, ...]
    outputs: pytree.Tree
    results: tuple[dict[str, Any], ...]
    classes: dict[str, type]
    state: dict[str, Tensor]
    hypers: tuple[Hyper, ...]
    places: dict[str, Place]
    shared: dict[str, list[tuple[Place, Tensor]]]
    rebound: dict[str, list[Place]]
    modes: dict[str, tuple[Any, bool]]
    left: tuple[str, ...]
    in_history: frozenset[str]
    findings: Findings
    orders: dict[str, str]
    layouts: dict[str, tuple[bool, str]]

    @property
    def signature(self) -> Signature:
        """Of this example alone."""
        return Signature(self.names, self.positional, self.inputs, self.specs, self.outputs,
                         self.results)  # fmt: skip
