"""The table of passes, the levels, and the loop that runs them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

from tracegraph.errors import GraphError
from tracegraph.ir.collector import collector_paused
from tracegraph.ir.control import CONTROL
from tracegraph.ir.dims import reasoning
from tracegraph.ir.graph import Graph, Node
from tracegraph.passes.algebra import reduce_strength, simplify_algebra
from tracegraph.passes.canonical import canonicalise
from tracegraph.passes.common import merge_common
from tracegraph.passes.control import trim_control
from tracegraph.passes.dead_code import eliminate_dead_code
from tracegraph.passes.decompose import decompose
from tracegraph.passes.folding import fold_constants
from tracegraph.passes.fusion import fuse
from tracegraph.passes.pieces import join_pads
from tracegraph.passes.prologue import fold_batch_norm
from tracegraph.passes.shapes import simplify_shapes


class Pass(NamedTuple):
    """One row of the table. `exact` passes keep every bit of every result."""

    name: str
    run: Callable[[Graph], int]
    exact: bool
    phase: str

    @property
    def doc(self) -> str:
        """The first sentence of the function's docstring."""
        return (self.run.__doc__ or "").strip().partition("\n")[0]


class Report(NamedTuple):
    """What one run of a pass did."""

    name: str
    seconds: float
    before: int
    after: int
    changes: int


PASSES: Final[tuple[Pass, ...]] = (
    Pass("dead_code", eliminate_dead_code, True, "clean"),
    Pass("trim_control", trim_control, True, "clean"),
    Pass("canonicalise", canonicalise, True, "clean"),
    Pass("fold_constants", fold_constants, True, "simplify"),
    Pass("simplify_shapes", simplify_shapes, True, "simplify"),
    Pass("simplify_algebra", simplify_algebra, True, "simplify"),
    Pass("merge_common", merge_common, True, "simplify"),
    Pass("fold_batch_norm", fold_batch_norm, False, "specialise"),
    Pass("decompose", decompose, False, "specialise"),
    Pass("reduce_strength", reduce_strength, False, "specialise"),
    Pass("join_pads", join_pads, False, "specialise"),
    Pass("fuse", fuse, False, "fuse"),
)
BY_NAME: Final = {p.name: p for p in PASSES}


class Phase(NamedTuple):
    """Passes in turn, and again while they change something, but at most so many rounds."""

    names: tuple[str, ...]
    rounds: int = 1


_EXACT: Final = Phase(tuple(p.name for p in PASSES if p.exact), 6)
LEVELS: Final[dict[int, tuple[Phase, ...]]] = {
    0: (),
    1: (_EXACT,),
    2: (
        _EXACT,
        Phase(("fold_batch_norm", "decompose", "reduce_strength", "join_pads")),
        _EXACT,
        Phase(("fuse",)),
    ),
}


def run_passes(
    graph: Graph,
    passes: int | Iterable[str],
    *,
    report: list[Any] | None = None,
    check: bool = False,
    accept: Callable[[Node], bool] | None = None,
) -> int:
    """Run passes on a graph in place; returns the number of changes.

    Args:
        graph: changed in place.
        passes: a level (0 nothing, 1 the exact passes until nothing changes, 2 also decomposition
            and fusion), or names of passes in the order to run them.
        report: a list that gets a `Report` per run of a pass.
        check: whether the verifier runs before the first and after each pass.
        accept: which nodes a runtime can compute inside a fused kernel; by default all.

    Raises:
        GraphError: no such level or pass, or (`check`) a pass broke the graph.
    """
    if check:
        _verify(graph)
    if not isinstance(passes, int):
        phases = tuple(Phase((_named(name).name,)) for name in passes)
    elif passes in LEVELS:
        phases = LEVELS[passes]
    else:
        raise GraphError(f"no level {passes}; there are: {', '.join(map(str, LEVELS))}")
    with collector_paused():
        table = BY_NAME
        if accept is not None:
            row = table["fuse"]
            table = {**table, "fuse": row._replace(run=partial(fuse, accept=accept))}
        return _run_phases(graph, phases, table, report, check)


def _run_phases(
    graph: Graph, phases: Iterable[Phase], table: Mapping[str, Pass], report: list[Any] | None,
    check: bool,
) -> int:  # fmt: skip
    total = 0
    idle: dict[str, int] = {}  # pass -> `total` when it found nothing: still so, skip it
    for phase in phases:
        for _ in range(phase.rounds):
            before = total
            for name in phase.names:
                if idle.get(name) != total:
                    changes = _run(graph, table[name], report, check)
                    total += changes
                    if not changes:
                        idle[name] = total
            if total == before:
                break
    return total


def _named(name: str) -> Pass:
    if name not in BY_NAME:
        raise GraphError(f"no pass {name!r}; there are: {', '.join(BY_NAME)}")
    return BY_NAME[name]


def _run_inside(graph: Graph, run: Callable[[Graph], int]) -> int:
    """Run a pass on a graph and the regions of its control nodes, with the facts of each."""
    with reasoning(graph):
        changes = run(graph)
        regions = [r for node in graph.nodes if node.op in CONTROL for r in node.regions.values()]
        return changes + sum(_run_inside(region, run) for region in regions)


def _verify(graph: Graph) -> None:
    from tracegraph.ir.verify import verify

    verify(graph)


def _run(graph: Graph, row: Pass, report: list[Any] | None, check: bool) -> int:
    before, start = len(graph), time.perf_counter()
    changes = _run_inside(graph, row.run)
    if report is not None:
        report.append(Report(row.name, time.perf_counter() - start, before, len(graph), changes))
    if check:
        try:
            _verify(graph)
        except GraphError as error:
            raise GraphError(f"after pass {row.name}: {error}") from error
    return changes
