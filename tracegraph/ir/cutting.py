"""Cutting a part out of a graph: from some values or modules, to others.

A place is a Value, a node, an input or State by its name, a result as `show` prints it (`%12`), or
a module by its path (or the end of it: `layer4` for `model.layer4`). What a module is given are the
values from elsewhere that it computes with; what it gives is the last value of it that is read
elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from tracegraph.errors import GraphError
from tracegraph.ir.control import has_effect
from tracegraph.ir.graph import INPUT, SOURCES, STATE, Graph, Node, Value
from tracegraph.ir.text import value_names
from tracegraph.ops.core import RANDOM
from tracegraph.ops.table import OPS

Place = Any
_MAX_SHOWN: Final = 12


def cut(graph: Graph, from_: Place | Sequence[Place] | None, to: Place | Sequence[Place]) -> Graph:
    """Return the part of a graph that gives `to`, as a graph of its own.

    Args:
        graph: left as it is.
        from_: where the part begins: these places become its inputs. None: at the graph's inputs.
        to: what it gives.

    Writes of State that belong to the part stay in it, as do guards. Of random numbers the part
    draws its own share.

    Raises:
        GraphError: there is no such place; or the part depends on an input before `from_`.
    """
    return _Cut(graph, from_, to).made()


def _listed(places: Place | Sequence[Place]) -> list[Place]:
    return list(places) if isinstance(places, (list, tuple)) else [places]


class _Cut:
    """One cut: the nodes in order with their numbers, the values at both ends."""

    def __init__(self, graph: Graph, from_: Any, to: Any) -> None:
        self.graph = graph
        self.order = graph.order()
        self.number = {node: i for i, node in enumerate(self.order)}
        self.results = set(graph.outputs)
        self.outputs = [self._given_by(place) for place in _listed(to)]
        self.whole = from_ is None
        self.entries: dict[Value, str] = {}
        for place in () if self.whole else _listed(from_):
            found = self._taken_by(place)
            for i, value in enumerate(found):
                name = self._name(place, value)
                several = len(found) > 1 and value.node.op not in (INPUT, STATE)
                self.entries.setdefault(value, f"{name}.{i}" if several else name)
        self.last = max(self._end(p, v) for p, v in zip(_listed(to), self.outputs, strict=True))

    # Places.

    def _value(self, place: Place) -> Value | None:
        """The value that a place names; None if it is a module."""
        if isinstance(place, Value):
            found: Value | None = place
        elif isinstance(place, Node):
            found = place.outs[-1] if place.outs else None
        elif place.startswith("%"):
            found = value_names(self.graph).get(place)
            if found is None:
                raise GraphError(f"graph {self.graph.name!r} has no value {place}")
        else:
            named = (*self.graph.inputs, *self.graph.states.values())
            return next((n.out for n in named if n.attrs["name"] == place), None)
        if found is None or found.node not in self.number:
            raise GraphError(f"{place} is no value of graph {self.graph.name!r}")
        return found

    def _module(self, place: str) -> list[Node]:
        """The nodes of a module and of those inside it."""
        paths = {p for node in self.order for p in _prefixes(node.scope)}
        found = {place} & paths or {p for p in paths if p.endswith(f".{place}")}
        if len(found) != 1:
            known = sorted(found or paths)
            shown = ", ".join(known[:_MAX_SHOWN]) + (", ..." if len(known) > _MAX_SHOWN else "")
            what = "several modules of that name" if found else "no input, State or module"
            raise GraphError(
                f"graph {self.graph.name!r} has {what} {place!r}; there are: {shown or 'none'}"
            )
        path = found.pop()
        return [n for n in self.order if path in _prefixes(n.scope) and n.op not in SOURCES]

    def _given_by(self, place: Place) -> Value:
        value = self._value(place)
        if value is not None:
            return value
        nodes = self._module(place)
        inside = set(nodes)
        for node in reversed(nodes):
            for value in reversed(node.outs):
                users = self.graph.users(value)
                if value in self.results or any(user not in inside for user in users):
                    return value
        raise GraphError(f"nothing that module {place!r} computes is read outside of it")

    def _taken_by(self, place: Place) -> list[Value]:
        value = self._value(place)
        if value is not None:
            return [value]
        nodes = self._module(place)
        inside = set(nodes)
        read = dict.fromkeys(v for n in nodes for v in n.inputs if v.node not in inside)
        found = [v for v in read if self._depends_on_inputs(v)]
        if not found:
            raise GraphError(f"module {place!r} computes with State and constants only")
        return found

    def _end(self, place: Place, value: Value) -> int:
        """The number of the last node that belongs to the part that gives a place."""
        if self._value(place) is not None:
            return self.number[value.node]
        return max(self.number[n] for n in self._module(place))

    def _name(self, place: Place, value: Value) -> str:
        if value.node.op in (INPUT, STATE):
            return str(value.node.attrs["name"])
        if isinstance(place, str):
            return place.replace("%", "value")
        return f"value{self.number[value.node]}"

    # The part.

    def _before(self, values: Iterable[Value]) -> set[Node]:
        """The nodes that values need, up to where the part begins."""
        seen: set[Node] = set()
        stack = [v.node for v in values if v not in self.entries]
        while stack:
            node = stack.pop()
            if node not in seen:
                seen.add(node)
                stack += [v.node for v in node.inputs if v not in self.entries]
        return seen

    def _depends_on_inputs(self, value: Value) -> bool:
        return any(n.op == INPUT for n in self._before([value]))

    def _is_free(self, nodes: Iterable[Node]) -> bool:
        """Whether nodes can be computed from where the part begins."""
        return self.whole or not any(n.op == INPUT and not _is_extra(n) for n in nodes)

    def made(self) -> Graph:
        """Return the part as a graph."""
        needed = self._before(self.outputs)
        if not self._is_free(needed):
            self._refuse(needed)
        own = [n for n in needed if n.op not in SOURCES]
        readers = {u for v in self.entries for u in self.graph.users(v)}
        starts = [self.number[n] for n in own if self.whole or n in readers]
        first = min(starts, default=0)
        span = self.order[first : self.last + 1]
        kept = set(needed)
        for node in span:
            if has_effect(node):
                before = self._before(node.inputs)
                if not self._is_free(before):
                    self._refuse(before)
                kept |= {node, *before}
        writes: dict[str, Value] = {}
        for name, value in self.graph.writes.items():
            before = self._before([value])
            number = self.number[value.node]
            inside = number <= self.last and (number >= first or value in self.outputs)
            if inside and self._is_free(before):
                writes[name] = value
                kept |= before
        self._draw(kept, writes)
        return self._copied(kept, writes)

    def _draw(self, kept: set[Node], writes: dict[str, Value]) -> None:
        """Leave random State as it is after the draws of the part."""
        for name in self.graph.writes:
            state = self.graph.states.get(name)
            if name in writes or state is None:
                continue
            value = state.out
            for node in self.order:
                draws = node.op in OPS and RANDOM in node.row.traits
                if draws and node in kept and value in node.inputs:
                    value = next(v for v in node.outs if v.type == state.out.type)
            if value is not state.out:
                writes[name] = value

    def _refuse(self, nodes: Iterable[Node]) -> None:
        """Raise the error that names the inputs which the part does not begin with.

        Raises:
            GraphError: always.
        """
        missing = sorted(n.attrs["name"] for n in nodes if n.op == INPUT and not _is_extra(n))
        raise GraphError(
            f"the part of graph {self.graph.name!r} from {', '.join(self.entries.values())} "
            f"depends on other inputs too: {', '.join(missing)}; add to `from_` what they lead to, "
            "or them"
        )

    def _copied(self, kept: set[Node], writes: dict[str, Value]) -> Graph:
        part = Graph(self.graph.name)
        mapped: dict[Value, Value] = {}
        for value, name in self.entries.items():
            mapped[value] = part.add_input(name, value.type).out
            part.inputs[-1].loc, part.inputs[-1].scope = value.node.loc, value.node.scope
        for node in self.order:
            if node not in kept:
                continue
            made = part.add(
                node.op, [mapped[v] for v in node.inputs], node.attrs, node.types, like=node,
                regions={name: region.copy() for name, region in node.regions.items()},
            )  # fmt: skip
            for old, new in zip(node.outs, made.outs, strict=True):
                mapped.setdefault(old, new)
            if node.op == STATE:
                part.states[node.attrs["name"]] = made
            elif node.op == INPUT:
                part.inputs.append(made)
        rank = {n.attrs["name"]: i for i, n in enumerate(self.graph.inputs)}
        begin = len(self.entries)
        part.inputs[begin:] = sorted(part.inputs[begin:], key=lambda n: rank[n.attrs["name"]])
        part.outputs = [mapped[v] for v in self.outputs]
        part.writes = {name: mapped[v] for name, v in writes.items()}
        return part


def _prefixes(scope: str) -> list[str]:
    """The paths of a module and of those around it."""
    parts = scope.split(".")
    return [".".join(parts[: i + 1]) for i in range(len(parts))] if scope else []


def _is_extra(node: Node) -> bool:
    """Whether an input is given without being an argument: hyper-parameters, the variant."""
    return "default" in node.attrs
