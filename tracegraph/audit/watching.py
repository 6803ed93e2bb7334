"""What a live replay compares first: the Python values that its graph froze."""

from __future__ import annotations

import types
from collections.abc import Iterable

from tracegraph.audit.frozen import Findings, Frozen, differs, names_in, reads_of
from tracegraph.audit.resolving import Resolver
from tracegraph.audit.syntax import Read, source_of
from tracegraph.capture.provenance import shown
from tracegraph.errors import GuardError


class Watch:
    """Compares the values that a graph froze with what their places hold now.

    Those that `allowed` names (by expression) may change.
    """

    def __init__(self, findings: Findings, allowed: frozenset[str] = frozenset()) -> None:
        self._findings = findings
        self._allowed = allowed
        self._start(findings.values.values())

    def _start(self, items: Iterable[Frozen]) -> None:
        self._items = list(items)
        self._plain = [(i.read, i.key, i.value) for i in self._items if i.before is None]
        self._arrays = [i for i in self._items if i.before is not None]

    def check(self) -> None:
        """Refuse a replay if a value that the code reads has changed.

        Raises:
            GuardError: naming the value, the line that reads it and the remedy.
        """
        try:
            for read, key, value in self._plain:
                if read(key) is not value:
                    break
            else:
                if not any(differs(i.now(), i.before) for i in self._arrays):
                    return
        except (LookupError, ValueError):
            pass
        self._start([i for i in map(self._settled, self._items) if i is not None])

    def _settled(self, item: Frozen) -> Frozen | None:
        """Return what to compare with from now on; None if it need not be compared."""
        now, before = item.now(), item.value if item.before is None else item.before
        if not differs(now, before):
            return item._replace(value=now)
        known = not any(
            source_of(code) is None and item.name in names_in(code)
            for code in self._findings.functions
        )
        reads = self._reads(item)
        if {read.text for read, _ in reads} <= self._allowed if reads else known:
            return None
        text, place = item.name, ""
        if reads:
            read, code = reads[0]
            text, place = read.text, f" at {code.co_filename}:{read.line}"
        whose = f" of {item.owner}" if item.owner else ""
        raise GuardError(
            f"{text}{whose} was {shown(before)} when it was traced{place} and is {shown(now)} now: "
            f"the graph keeps {shown(before)}. Trace again, keep it in a tensor or buffer, pass it "
            f"as an argument, or let it be frozen with allow_bake=[{text!r}]"
        )

    def _reads(self, item: Frozen) -> list[tuple[Read, types.CodeType]]:
        """Return what reads a value: all of its name, but those that are known to mean another."""
        resolver = Resolver(self._findings)
        reached = set(resolver.reached())
        found = []
        for read, code in reads_of(self._findings, item):
            if code not in reached:
                continue
            places = [held.place for end in range(len(read.steps) + 1)
                      for held in resolver.look_up(code, read.root, read.steps[:end])]  # fmt: skip
            if item.place in places or not any(places):
                found.append((read, code))
        return found
