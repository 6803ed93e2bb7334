"""The report on a trace: what the graph froze, what it relies on, what was checked."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from tracegraph.eager.tensors import type_of
from tracegraph.ir.control import COND, FACT, GUARD, inner_graphs
from tracegraph.ir.dims import symbols_in
from tracegraph.ir.graph import CONSTANT
from tracegraph.ops.table import OPS
from tracegraph.wording import count_text

_KINDS: Final = {
    "item": ("read from a tensor, as allowed",
             "the replay keeps this value for every input; compute with tensors instead"),
    "call": ("computed by Python once, during the trace",
             "the replay repeats this value; pass it as an argument, or compute it with tensors"),
    "closure": ("closure variables",
                "a replay keeps the value if the variable changes (a live one refuses then); keep "
                "it in a tensor, pass it as an argument, or trace again"),
    "global": ("global variables",
               "a replay keeps the value if the variable changes (a live one refuses then); keep "
               "it in a tensor, pass it as an argument, or trace again"),
    "attribute": ("attributes and items of Python objects",
                  "a replay keeps the value if the attribute changes (a live one refuses then); "
                  "make it a tensor or buffer, or trace again"),
    "array": ("tensors made from Python or NumPy data",
              "the numbers are part of the graph; pass them as an argument, or keep them in a "
              "buffer"),
    "local": ("local values computed by Python",
              "the replay keeps the value whatever it was computed from becomes; compute it with "
              "tensors, or trace again"),
    "iteration": ("loops that were unrolled",
                  "the replay does as many rounds as the trace did; trace again for another "
                  "number, or use while_loop, scan or map"),
    "shape": ("sizes of tensors", "inputs of other sizes are refused; declare the dim dynamic"),
    "default": ("defaults of arguments", "give the argument as an example input to vary it"),
    "argument": ("arguments of functions", "what the caller passes is listed where it comes from"),
    "setting": ("settings of modules of tracegraph.nn",
                "a live replay refuses if one changes; trace again"),
    "literal": ("literals and constants by name", "they change with the source only"),
}  # fmt: skip
"""How a value entered the graph -> (title, what would have to change for it to matter)."""

_MAX_SHOWN: Final = 40


class Bake(NamedTuple):
    """A Python value, or values of one expression, that a graph froze.

    `how` it was read is a key of the kinds of a report ("closure", "item", ...); `places` are
    file:line, `owners` paths of modules (the first of each; the counts tell of how many), `origin`
    is what a local value was computed from, `effect` what the self-check saw when it changed the
    value.
    """

    expression: str
    how: str
    values: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    suspicious: bool = False
    origin: str = ""
    owners: tuple[str, ...] = ()
    effect: str = ""
    place_count: int = 0
    owner_count: int = 0

    @property
    def remedy(self) -> str:
        """What would have to change for this to matter, and what to do about it."""
        return _KINDS.get(self.how, ("", ""))[1]

    def to_data(self) -> dict[str, Any]:
        """Return it as JSON data; what is empty is left out."""
        fields = {k: list(v) if isinstance(v, tuple) else v for k, v in self._asdict().items()}
        fields["place_count"] *= self.place_count > len(self.places)
        fields["owner_count"] *= self.owner_count > len(self.owners)
        return {k: v for k, v in fields.items() if v or k == "suspicious"}


class Report(Mapping[str, Any]):
    """What a graph froze and relies on. Printed, it is a page to read; `to_data()` is plain data.

    A mapping with the keys `values` (Python arguments and the value they must have), `bakes`
    (frozen values, see `Bake`), `literals` (how many), `constants` (arrays made from Python data),
    `guards`, `dims` and `facts` about them, `sizes` (that follow from data), `training` (modes of
    modules), `hypers`, `state`, `writes`, `unread` (functions without source at hand), `left`
    (changes of Python objects, which a replay does not make), `checked` (the outcome of the
    self-check).
    """

    def __init__(self, data: Mapping[str, Any], name: str = "graph") -> None:
        self._data = dict(data)
        self._name = name

    def __getitem__(self, key: str) -> Any:
        return self._data[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)

    def to_data(self) -> dict[str, Any]:
        """Return all of it as nested dicts, lists, strings and numbers."""
        return self._data

    @property
    def bakes(self) -> tuple[Bake, ...]:
        """Every frozen value."""
        return tuple(map(_bake, self._data.get("bakes", ())))

    @property
    def suspicious(self) -> tuple[Bake, ...]:
        """The frozen values that may well change: the replay would be wrong then, or refused."""
        return tuple(b for b in self.bakes if b.suspicious)

    @property
    def harmless(self) -> tuple[Bake, ...]:
        """The frozen values that the text of the program, or a check at each call, holds fast."""
        return tuple(b for b in self.bakes if not b.suspicious)

    def __repr__(self) -> str:
        return f"<Report on {self._name}: {len(self.suspicious)} suspicious values>"

    def __str__(self) -> str:
        return "\n".join(_Page(self, self._name).lines())


def _bake(data: Mapping[str, Any]) -> Bake:
    """Return a bake from JSON data.

    Raises:
        ValueError: it is none.
    """
    fields: dict[str, Any] = {k: data.get(k, "") for k in ("expression", "how", "origin", "effect")}
    words = list(fields.values())
    for key in ("values", "places", "owners"):
        fields[key] = tuple(data.get(key, ()))
        words += fields[key]
    if not all(isinstance(word, str) for word in words) or fields["how"] not in _KINDS:
        raise ValueError(f"a report lists {data!r:.60}, which is no frozen value")
    fields.update((key, int(data.get(key, 0))) for key in ("place_count", "owner_count"))
    return Bake(**fields, suspicious=bool(data.get("suspicious")))


def told_from_data(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a file tells of a trace besides the graph, checked.

    Raises:
        ValueError: it is not of that form.
    """
    keys = ("bakes", "literals", "unread", "left", "checked")
    told = {key: data[key] for key in keys if key in data}
    for bake in told.get("bakes", ()):
        _bake(bake)
    words = [
        *told.get("unread", ()),
        *told.get("left", ()),
        *(w for row in told.get("checked", {}).items() for w in row),
    ]
    if not isinstance(told.get("literals", 0), int) or not all(isinstance(w, str) for w in words):
        raise ValueError("a report does not follow the format")
    return told


class _Page:
    """A report as text."""

    def __init__(self, report: Report, name: str) -> None:
        self.report = report
        self.name = name
        files = {p.rpartition(":")[0] for b in report.bakes for p in b.places}
        rows = (g for key in ("guards", "facts", "sizes") for g in report.get(key, ()))
        files |= {str(row.get("line", "")).rpartition(":")[0] for row in rows}
        names = [os.path.basename(f) for f in files]
        self.short = {f for f in files if names.count(os.path.basename(f)) == 1}

    def lines(self) -> Iterator[str]:
        """Yield the lines of the page."""
        suspicious, harmless = self.report.suspicious, self.report.harmless
        yield (
            f"{self.name}: {count_text(len(suspicious), 'frozen value')} may matter, "
            f"{len(harmless)} more and {count_text(self.report.get('literals', 0), 'literal')} "
            "are harmless"
        )
        unread = self.report.get("unread", ())
        if unread:
            yield (
                f"no source at hand of {', '.join(map(self.place, unread[:5]))}"
                + (f" and {len(unread) - 5} more" if len(unread) > 5 else "")
                + ": what these read is not listed here, but a live replay compares it"
            )
        yield from self._bakes("may matter", suspicious)
        yield from self._bakes("harmless", harmless)
        yield from self._relied()
        yield from self._checked()

    def _bakes(self, title: str, bakes: Iterable[Bake]) -> Iterator[str]:
        groups: dict[str, list[Bake]] = {}
        for bake in bakes:
            groups.setdefault(bake.how, []).append(bake)
        if groups:
            yield f"\n{title}"
        for how in sorted(groups, key=list(_KINDS).index):
            words, remedy = _KINDS[how]
            yield f"  {words}: {remedy}"
            rows = [self._row(b) for b in groups[how][:_MAX_SHOWN]]
            widths = [max(len(r[i]) for r in rows) for i in (0, 1)]
            for place, what, more in rows:
                yield f"    {place:{widths[0]}}  {what:{widths[1]}}  {more}".rstrip()
            if len(groups[how]) > _MAX_SHOWN:
                yield f"    ... and {len(groups[how]) - _MAX_SHOWN} more"

    def _row(self, bake: Bake) -> tuple[str, str, str]:
        what = bake.expression + (f" = {', '.join(bake.values)}" if bake.values else "")
        notes = [f"from {bake.origin}"] if bake.origin else []
        if bake.owners:
            count = max(bake.owner_count, len(bake.owners))
            shown = ", ".join(bake.owners[:3]) + (", ..." if count > 3 else "")
            notes.append(f"of {shown}" if count == 1 else f"of {count} modules: {shown}")
        if bake.effect:
            notes.append(bake.effect)
        places = ", ".join(map(self.place, bake.places[:2]))
        more = max(bake.place_count, len(bake.places)) - 2
        return places + (f" and {more} more" if more > 0 else ""), what, "; ".join(notes)

    def place(self, text: str) -> str:
        """Return file:line, the file without its folder where that is clear."""
        file, _, line = text.rpartition(":")
        return f"{os.path.basename(file)}:{line}" if file in self.short else text

    def _relied(self) -> Iterator[str]:
        report = self.report
        rows = [
            *(f"argument {n} = {v!r}" for n, v in report.get("values", {}).items()),
            *(f"{self.place(g['line'])}: {g['predicate']} is {_outcomes(g)}" if g.get("line")
              else f"{g['predicate']} is {_outcomes(g)}" for g in report.get("guards", ())),
            *(f"dim {n} {bounds}" for n, bounds in report.get("dims", {}).items()),
            *(f"{self.place(f['line'])}: {f['fact']}" for f in report.get("facts", ())),
            *(f"{self.place(s['line'])}: {s['size']}" for s in report.get("sizes", ())),
            *(f"module {n} in {'train' if m else 'eval'} mode"
              for n, m in _outer(report.get("training", {})).items()),
            *(f"hyper-parameter {n} = {v!r} unless it is given"
              for n, v in report.get("hypers", {}).items()),
        ]  # fmt: skip
        if rows:
            yield "\nrelies on"
            yield from (f"  {row}" for row in rows)
        left = report.get("left", ())
        if left:
            yield "\nchanges of Python objects, which a replay does not make"
            yield from (f"  {text}" for text in left)
        state, writes = report.get("state", {}), report.get("writes", ())
        if state:
            yield f"\nState: {count_text(len(state), 'tensor')}, {len(writes)} written"

    def _checked(self) -> Iterator[str]:
        checked = self.report.get("checked")
        if checked:
            yield "\nchecked"
            yield from (f"  {what}: {outcome}" for what, outcome in checked.items())


def _outcomes(guard: Mapping[str, Any]) -> str:
    return " or ".join(map(str, guard.get("outcomes", ())))


def _outer(modes: Mapping[str, bool]) -> dict[str, bool]:
    """Leave out modules inside others of the same mode."""
    return {
        path: mode for path, mode in modes.items()
        if not any(path.startswith(f"{o}.") or o == "self" != path for o, m in modes.items()
                   if o != path and m == mode)
    }  # fmt: skip


def report_on(entry: Any, found: Mapping[str, Any]) -> Report:
    """Return the report on an entry point; `found` is what its trace, or its file, tells.

    That is `bakes`, `literals`, `unread`, `left` and `checked`; see `Report`.
    """
    graph = entry.graph
    constants: dict[tuple[str, str], int] = {}
    guards: dict[tuple[str, str], list[Any]] = {}
    facts: dict[tuple[str, str], None] = {}
    sizes: dict[tuple[str, str], None] = {}
    for node in (n for inner in inner_graphs(graph) for n in inner.order()):
        line = str(node.loc) if node.loc else ""
        if node.op == CONSTANT and node.types[0].shape:
            key = (str(node.types[0]), line)
            constants[key] = constants.get(key, 0) + 1
        elif node.op in (GUARD, COND):
            seen = guards.setdefault((node.attrs["text"], line), [])
            cases = node.attrs.get("cases", (node.attrs.get("expected"),))
            seen += [c for c in cases if c not in seen]
        elif node.op == FACT:
            facts[str(node.attrs["relation"]), line] = None
        elif node.op in OPS and node.row.counted:
            sizes[f"{node.op} finds {node.attrs['count']}", line] = None
    dims = {n: s for node in graph.inputs for n, s in symbols_in(node).items()}
    return Report({
        "values": {s.name: s.value for s in entry.signature.specs if s.type is None},
        **found,
        "constants": [{"type": t, "line": line, "count": n} for (t, line), n in constants.items()],
        "guards": [{"predicate": text or "a value of a tensor", "outcomes": cases, "line": line}
                   for (text, line), cases in guards.items()],
        "sizes": [{"size": size, "line": line} for size, line in sizes],
        "dims": {n: f"from {s.min}" + ("" if s.max is None else f" to {s.max}")
                 for n, s in dims.items()},
        "facts": [{"fact": fact, "line": line} for fact, line in facts],
        "training": {path or "self": mode for path, (_, mode) in entry.variants[0].modes.items()},
        "hypers": {h.name: h.default for h in entry.hypers},
        "state": {n: str(type_of(t)) for n, t in entry.state.items()},
        "writes": list(graph.writes),
    }, graph.name)  # fmt: skip
