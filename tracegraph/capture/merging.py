"""Several recorded paths of one function, merged into one graph with branches.

A guard that came out one way in all of them stays a guard, one that came out in several becomes a
`cond` whose regions are the ways on. Ways that end alike share that end after the `cond`; "alike"
includes every branch in it with the same outcomes seen, so no unseen path comes to be.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from tracegraph.capture.retyping import unify_results
from tracegraph.capture.rows import Row
from tracegraph.capture.trie import Block, Branch, Path, Ref, Step, Trie, condense, same_row
from tracegraph.errors import TraceError
from tracegraph.ir.control import COND, GUARD, case_name
from tracegraph.ir.graph import CONSTANT, INPUT, Graph, Value

# Branches within branches; Python's own recursion limit is 1000.
_MAX_DEPTH: Final = 120


def merge_paths(
    name: str, paths: Sequence[Path], variants: Sequence[int] | None = None
) -> Graph:  # fmt: skip
    """Return the graph of all paths.

    `variants` numbers what a caller tells apart before the first row (Python arguments, train or
    eval mode): the graph then has an input `VARIANT` and begins with a branch on it.

    Raises:
        TraceError: two paths part where no guard tells them apart, or give other types.
    """
    trie = Trie()
    written = list(dict.fromkeys(name for path in paths for name in path.writes))
    for path in paths:
        trie.declare(path)
    for number, path in enumerate(paths):
        trie.add(path, written, variants[number] if variants else None)
    condense(trie.root)
    graph = Graph(name)
    scope = _Scope(graph)
    for step in trie.sources.values():
        if step.row.op == CONSTANT:
            continue
        scope.add(step)
        node = scope.known[Ref(step, 0)].node
        if step.row.op == INPUT:
            graph.inputs.append(node)
        else:
            graph.states[node.attrs["name"]] = node
    results = _emit(scope, trie.root, 0)
    count = len(results) - len(written)
    graph.outputs = results[:count]
    graph.writes = dict(zip(written, results[count:], strict=True))
    return graph


# Ways that end alike.


class _Pairing:
    """Steps of two ways that correspond, from the end backwards."""

    def __init__(self, a: Block, b: Block) -> None:
        self.length = 0
        self._partner: dict[Step, Step] = {}
        self._taken: set[Step] = set()
        self.alike = self._pair_ends(a, b)
        while self.alike and self.length < min(len(a.steps), len(b.steps)):
            x, y = a.steps[-1 - self.length], b.steps[-1 - self.length]
            if not (same_row(x.row, y.row) and x.row.attrs.keys() == y.row.attrs.keys()):
                break
            if x.row.op == GUARD and x.row.attrs != y.row.attrs:
                break
            self._join(x, y)
            self.length += 1
        self._shrink(a, b)

    def _join(self, x: Step, y: Step) -> None:
        self._partner[x] = y
        self._taken.add(y)

    def _part(self, x: Step) -> None:
        self._taken.discard(self._partner.pop(x))

    def fits(self, x: Ref, y: Ref) -> bool:
        """Whether two operands may stand for each other: both inside and paired, or outside.

        Constants stand for themselves only.
        """
        if x.step in self._partner:
            return self._partner[x.step] is y.step and x.number == y.number
        if CONSTANT in (x.step.row.op, y.step.row.op):
            return x == y
        return y.step not in self._taken and x.type == y.type

    def _pair_ends(self, a: Block, b: Block) -> bool:
        """Pair everything in the branches that two ways end with; whether they are alike."""
        if a.branch is None or b.branch is None:
            return a.branch is b.branch
        if not same_row(a.branch.guard.row, b.branch.guard.row):
            return False
        if a.branch.ways.keys() != b.branch.ways.keys():
            return False
        for outcome, x in a.branch.ways.items():
            y = b.branch.ways[outcome]
            if len(x.steps) != len(y.steps) or not self._pair_ends(x, y):
                return False
            for s, t in zip(x.steps, y.steps, strict=True):
                if not same_row(s.row, t.row) or (s.row.op == GUARD and s.row.attrs != t.row.attrs):
                    return False
                self._join(s, t)
        return True

    def _shrink(self, a: Block, b: Block) -> None:
        """Give up the first steps of the common end until all operands fit."""
        settled = False
        while self.alike and not settled:
            settled = True
            for k in range(self.length):
                x, y = a.steps[-1 - k], b.steps[-1 - k]
                if not self._all_fit(x.inputs, y.inputs):
                    for j in range(k, self.length):
                        self._part(a.steps[-1 - j])
                    self.length, settled = k, False
                    break
            if settled:
                self.alike = self._ends_fit(a, b)

    def _all_fit(self, xs: Sequence[Ref], ys: Sequence[Ref]) -> bool:
        return len(xs) == len(ys) and all(map(self.fits, xs, ys))

    def _ends_fit(self, a: Block, b: Block) -> bool:
        if a.branch is None or b.branch is None:
            return self._all_fit(a.results or (), b.results or ())
        if not self._all_fit(a.branch.guard.inputs, b.branch.guard.inputs):
            return False
        return all(
            self._ends_fit(x, b.branch.ways[outcome])
            and all(self._all_fit(s.inputs, t.inputs)
                    for s, t in zip(x.steps, b.branch.ways[outcome].steps, strict=True))
            for outcome, x in a.branch.ways.items()
        )  # fmt: skip


class _Tail:
    """The common end of several ways: a block over the Values that the ways hand on."""

    def __init__(self, ways: Sequence[Block], length: int) -> None:
        self.handed: dict[tuple[Ref, ...], Step] = {}
        self._same: dict[Step, Step] = {}
        self._before = [len(w.steps) - length for w in ways]
        self.block = self._copy(
            [w.steps[n:] for w, n in zip(ways, self._before, strict=True)], ways
        )

    def _copy(self, steps: Sequence[Sequence[Step]], ways: Sequence[Block]) -> Block:
        block = Block([self._step(group) for group in zip(*steps, strict=True)])
        branches = [w.branch for w in ways if w.branch is not None]
        if branches:
            block.branch = Branch(self._step([b.guard for b in branches]))
            for outcome in branches[0].ways:
                inner = [b.ways[outcome] for b in branches]
                block.branch.ways[outcome] = self._copy([w.steps for w in inner], inner)
        else:
            block.results = self._refs([w.results or () for w in ways])
        return block

    def _step(self, group: Sequence[Step]) -> Step:
        made = Step(group[0].row, self._refs([s.inputs for s in group]))
        self._same[group[0]] = made
        return made

    def _refs(self, groups: Sequence[Sequence[Ref]]) -> tuple[Ref, ...]:
        return tuple(map(self._ref, zip(*groups, strict=True)))

    def _ref(self, group: tuple[Ref, ...]) -> Ref:
        inside = self._same.get(group[0].step)
        if inside is not None:
            return Ref(inside, group[0].number)
        if all(ref == group[0] for ref in group):
            return group[0]
        row = Row("", (), {}, (group[0].type,), None, "")
        return Ref(self.handed.setdefault(group, Step(row)), 0)

    def heads(self, ways: Sequence[Block]) -> Iterator[Block]:
        """What of each way comes before, with what it hands on as its results."""
        for number, (way, count) in enumerate(zip(ways, self._before, strict=True)):
            yield Block(way.steps[:count], None, tuple(group[number] for group in self.handed))


# The graph.


class _Scope:
    """A graph being made; a region brings in what it reads from around it."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.known: dict[Ref, Value] = {}
        self.captured: list[Ref] = []

    def value(self, ref: Ref) -> Value:
        """The Value of a result, as an input of the region where it comes from outside.

        Scalars are written where they are used.
        """
        value = self.known.get(ref)
        if value is None and ref.step.row.op == CONSTANT:
            self.add(ref.step)
            return self.known[ref]
        if value is None:
            node = self.graph.add_input(f"x{len(self.captured)}", ref.type)
            value = self.known[ref] = node.out
            self.captured.append(ref)
        return value

    def add(self, step: Step) -> None:
        """Add a node."""
        row = step.row
        node = self.graph.add(
            row.op, map(self.value, step.inputs), row.attrs, row.types, loc=row.loc,
            scope=row.scope, regions=row.regions,
        )  # fmt: skip
        self.known.update((Ref(step, i), v) for i, v in enumerate(node.outs))


def _emit(scope: _Scope, block: Block, depth: int) -> list[Value]:
    """Add what a block does to a graph; returns its results."""
    if depth > _MAX_DEPTH:
        raise TraceError(
            f"more than {_MAX_DEPTH} branches lie within one another: use while_loop or scan for "
            "loops whose length depends on data"
        )
    while True:
        for step in block.steps:
            scope.add(step)
        if block.branch is None:
            return [scope.value(ref) for ref in block.results or ()]
        ways = list(block.branch.ways.values())
        pairings = [_Pairing(ways[0], way) for way in ways[1:]]
        if not all(p.alike for p in pairings):
            return _cond(scope, block.branch, ways, depth)
        tail = _Tail(ways, min(p.length for p in pairings))
        results = _cond(scope, block.branch, list(tail.heads(ways)), depth)
        for step, value in zip(tail.handed.values(), results, strict=True):
            scope.known[Ref(step, 0)] = value
        block = tail.block


def _cond(scope: _Scope, branch: Branch, ways: Sequence[Block], depth: int) -> list[Value]:
    """Add the `cond` of a branch; returns its results."""
    arms = []
    for number, way in enumerate(ways):
        arm = _Scope(Graph(case_name(number)))
        arm.graph.outputs = _emit(arm, way, depth + 1)
        arms.append(arm)
    row = branch.guard.row
    unify_results([arm.graph for arm in arms])
    gives = [tuple(v.type for v in arm.graph.outputs) for arm in arms]
    for other in gives[1:]:
        if other != gives[0]:
            shown = ["(" + ", ".join(map(str, types)) + ")" for types in (gives[0], other)]
            raise TraceError(
                f"the branches at {row.loc} give different results, {shown[0]} and {shown[1]}: "
                "return the same nesting, dtypes and shapes from each"
            )
    captured = list(dict.fromkeys(ref for arm in arms for ref in arm.captured))
    for arm in arms:
        for ref in captured:
            arm.value(ref)
        place = dict(zip(arm.captured, arm.graph.inputs, strict=True))
        arm.graph.inputs = [place[ref] for ref in captured]
    selector = scope.value(branch.guard.inputs[0])
    node = scope.graph.add(
        COND, [selector, *map(scope.value, captured)],
        {"cases": tuple(branch.ways), "text": row.attrs["text"]}, gives[0],
        loc=row.loc, scope=row.scope,
        regions={case_name(i): arm.graph for i, arm in enumerate(arms)},
    )  # fmt: skip
    return list(node.outs)
