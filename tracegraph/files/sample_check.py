"""Replaying a sample of a file on this machine, and finding the first node that goes wrong.

A sample is replayed twice. The interpreter goes node by node and compares digests: a kernel, an
attribute or a weight that is not what it was shows at the first node that differs. Then the
program that a service would run gives outputs; if only these differ, the fault lies in passes or
runtime, and parts of the graph are run until the first node that goes wrong is found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tracegraph.compiler import make_program
from tracegraph.devices import Device, module_of
from tracegraph.dtypes import BY_NUMPY, FLOAT_KIND, as_pairs
from tracegraph.eager.tensors import Tensor
from tracegraph.files.digests import Digest, digest_of, exact_digest, gap_between, scale_of, tell
from tracegraph.files.samples import Sample, Watched, results_of, sources_of
from tracegraph.ir.graph import SOURCES, Graph, Node
from tracegraph.ir.text import excerpt
from tracegraph.ir.verify import source_line
from tracegraph.replay.entry import EntryPoint
from tracegraph.wording import count_text


class Check(NamedTuple):
    """One check: what was checked, whether it passed, what there is to say; where a fault lies.

    `node` is the first node of a graph that differs, of the file that was loaded.
    """

    what: str
    passed: bool
    text: str
    node: Node | None = None

    def __str__(self) -> str:
        return f"{'ok   ' if self.passed else 'FAIL '} {self.what}: {self.text}"


class Replay(NamedTuple):
    """How samples are replayed; see `verify_file`."""

    device: Device
    runtime: str | None
    level: int | None
    tolerance: float | None

    def allowed(self, own: float, scale: float) -> float:
        """How much may differ."""
        return own if self.tolerance is None else self.tolerance * scale


class SampleCheck:
    """One sample of one entry point being replayed."""

    def __init__(self, what: str, entry: EntryPoint, sample: Sample, replay: Replay) -> None:
        self.what = what
        self.graph = entry.graph
        self.sample = sample
        self.replay = replay
        self.state: Mapping[str, Tensor] = entry.state
        xp = module_of(replay.device)
        hypers = [np.asarray(h.default, np.float64) for h in entry.hypers]
        if len(entry.variants) > 1:
            hypers.append(np.asarray(sample.variant, np.int64))
        self.inputs = [xp.asarray(a) for a in (*sample.inputs, *hypers)]
        order = self.graph.order()
        # A node keeps its number in the file as `seq`; decompositions put several in its place.
        self.counts: dict[int, int] = {}
        for node in order:
            self.counts[node.seq] = self.counts.get(node.seq, 0) + 1
        self.order = order

    def checks(self) -> Iterator[Check]:
        """Yield a check of all nodes on the interpreter, then one of the outputs of a program."""
        fault, compared = self._nodes()
        if fault is not None:
            yield fault
            return
        yield Check(self.what, True, f"{count_text(compared, 'node')} agree on the interpreter")
        yield self._program()

    def _row(self, node: Node) -> Sequence[Any]:
        rows = self.sample.digests
        known = self.counts[node.seq] == 1 and node.seq < len(rows)
        row = rows[node.seq] if known else ()
        return row if len(row) == len(node.outs) else (None,) * len(node.outs)

    def _difference(self, node: Node, found: Sequence[Digest]) -> str:
        """How the results of a node differ from the stored ones; "" where they agree."""
        for place, (item, digest) in enumerate(zip(self._row(node), found, strict=True)):
            if item is None:
                continue
            wanted, own = item
            if gap_between(wanted, digest) > self.replay.allowed(own, scale_of(wanted)):
                which = f"result {place} has " if len(node.outs) > 1 else ""
                return which + tell(wanted, digest)
        return ""

    def _fault(self, node: Node, text: str, how: str = "") -> Check:
        line = f"\nfrom {source_line(node.loc)}" if node.loc is not None else ""
        told = f"the first node that differs{how}: {text}\n{excerpt(self.graph, node, 1)}{line}"
        return Check(self.what, False, told, node)

    def _nodes(self) -> tuple[Check | None, int]:
        """Run node by node; returns the first fault, and how many nodes were compared."""
        faults: list[tuple[int, Check]] = []
        numbers = {node: i for i, node in enumerate(self.order)}
        compared = 0

        def note(node: Node, digests: Sequence[Digest]) -> None:
            nonlocal compared
            compared += any(item is not None for item in self._row(node))
            text = self._difference(node, digests)
            if text:
                faults.append((numbers[node], self._fault(node, text)))

        def watch(node: Node, call: Callable[..., Any], operands: Sequence[Any]) -> Any:
            result = call(*operands)
            if not faults:
                note(node, [digest_of(r) for r in results_of(node, result)])
            return result

        program = Watched(self.graph, module_of(self.replay.device), watch)
        states = {n: self._on_device(t) for n, t in self.state.items()}
        for node, array in sources_of(self.graph, self.inputs, states):
            note(node, [exact_digest(array)])
        if not faults:
            program.run(self.inputs, states)
        return (min(faults)[1] if faults else None), compared

    def _on_device(self, t: Tensor) -> Any:
        return module_of(self.replay.device).asarray(t._data)

    # The program that a service would run.

    def _make(self, graph: Graph) -> Any:
        return make_program(graph, self.replay.device, self.replay.runtime, self.replay.level)

    def _program(self) -> Check:
        outputs, writes = self._make(self.graph).run(self.inputs, self.state)
        gaps = [
            self._gap(found, wanted, own)
            for found, (wanted, own) in zip(outputs, self.sample.outputs, strict=True)
        ]
        wrong = [i for i, gap in enumerate(gaps) if gap]
        stale = [
            name for name, array in writes.items()
            if self._differs(self.graph.writes[name], array)
        ]  # fmt: skip
        if not wrong and not stale:
            count = count_text(len(outputs) + len(writes), "result")
            return Check(self.what, True, f"{count} of the program on {self._place()} agree")
        told = [f"output {i} {gaps[i]}" for i in wrong] + [f"the new {name}" for name in stale]
        culprit = self._first_wrong(
            [self.graph.outputs[i] for i in wrong] + [self.graph.writes[n] for n in stale]
        )
        return self._fault(
            culprit, "; ".join(told),
            f" once the graph is optimised for {self._place()}, though its op alone is right",
        )  # fmt: skip

    def _place(self) -> str:
        runtime, level = self.replay.runtime, self.replay.level
        if runtime is None:
            native = level is None and self.replay.device.type == "cpu"
            runtime = "native" if native else "interpreter"
        return f"{self.replay.device}, {runtime}" + ("" if level is None else f", level {level}")

    def _gap(self, found: Any, wanted: Any, own: float) -> str:
        """How an output differs; "" where it agrees."""
        array = found.get() if hasattr(found, "get") else found
        if array.shape != wanted.shape or array.dtype != wanted.dtype:
            return f"is {array.dtype}{list(array.shape)}"
        array, wanted = as_pairs(array), as_pairs(wanted)
        if BY_NUMPY[wanted.dtype].kind != FLOAT_KIND:
            count = int(np.count_nonzero(array != wanted))
            return f"has {count_text(count, 'other element')}" if count else ""
        a, b = (x.astype(np.float64) for x in (array, wanted))
        with np.errstate(all="ignore"):
            same = (a == b) | (np.isnan(a) & np.isnan(b))
            gaps = np.where(same, 0.0, np.abs(a - b))
        gap = gaps.max(initial=0.0)
        scale = np.abs(b[np.isfinite(b)]).max(initial=0.0)
        if gap <= self.replay.allowed(own, scale):
            return ""
        return f"differs by up to {gap:.3g}"

    def _differs(self, value: Any, array: Any) -> bool:
        item = self._row(value.node)[value.index]
        if item is None:
            return False
        exact = value.node.op in SOURCES
        found = exact_digest(array) if exact else digest_of(array)
        return gap_between(item[0], found) > self.replay.allowed(item[1], scale_of(item[0]))

    def _first_wrong(self, results: Sequence[Any]) -> Node:
        """Return the first node that a program of nothing but what leads to it gets wrong."""
        graph = self.graph
        needed: set[Node] = set()
        stack = [v.node for v in results]
        while stack:
            node = stack.pop()
            if node not in needed:
                needed.add(node)
                stack += [v.node for v in node.inputs]
        candidates = [n for n in self.order if n in needed and n.op not in SOURCES and n.outs]
        good, bad = -1, len(candidates) - 1
        while bad - good > 1:
            middle = (good + bad) // 2
            part = graph.subgraph(to=list(candidates[middle].outs))
            part.writes.clear()
            if self._is_wrong(part, candidates[middle]):
                bad = middle
            else:
                good = middle
        return candidates[bad]

    def _is_wrong(self, part: Graph, node: Node) -> bool:
        by_name = dict(zip((n.attrs["name"] for n in self.graph.inputs), self.inputs, strict=True))
        given = [by_name[n.attrs["name"]] for n in part.inputs]
        outputs, _ = self._make(part).run(given, self.state)
        return any(map(self._differs, node.outs, outputs))
