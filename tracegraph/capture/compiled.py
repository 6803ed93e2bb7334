"""A function that is traced as it is called: what `tracegraph.compile` returns.

Each kind of arguments (nesting, dtypes, shapes, Python values, which tensors need gradients) has a
graph. A call replays it. Where the replay finds a path that was not seen, the call becomes one more
example; where a Python value that the graph relied on has changed, the graph is made again; where
the function cannot be traced, it runs as it is. All of that is counted and explained.
"""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np

from tracegraph.capture.arguments import name_of
from tracegraph.capture.tracing import Traced, trace
from tracegraph.dtypes import get_default_dtype
from tracegraph.eager import modes
from tracegraph.eager.tensors import Tensor, type_of
from tracegraph.errors import GuardError, TraceError, TraceGraphError, UnseenPathError

Key = tuple[Any, ...]

# Examples that one graph takes in, and times that it is made again, before calls run eagerly.
_MAX_EXAMPLES: Final = 64
_MAX_MADE: Final = 8


class _Kind:
    """One kind of arguments: its graph, or why it has none, and what happened to it."""

    def __init__(self, shown: str) -> None:
        self.shown = shown
        self.graph: Traced | None = None
        self.reason = ""
        self.made = self.examples = self.replays = self.eager = 0
        self.history: list[str] = []

    def tell(self) -> list[str]:
        """What happened, as lines."""
        lines = [f"for {self.shown}: {self.replays} replayed, {self.eager} eager"]
        if self.graph is not None:
            lines[0] += f"; a graph of {len(self.graph.graph)} nodes, {self.examples} examples"
        lines += [f"  {text}" for text in self.history]
        return [*lines, f"  runs eagerly: {self.reason}"] if self.reason else lines


class _UnknownArgumentError(Exception):
    """An argument that no graph can take."""


class CompiledFunction:
    """A function that replays graphs of itself. See `tracegraph.compile`."""

    def __init__(self, function: Callable[..., Any], fullgraph: bool, limit: int) -> None:
        self.function = function
        self.fullgraph = fullgraph
        self.limit = limit
        self._kinds: OrderedDict[Key, _Kind] = OrderedDict()
        self._dropped = self._untraceable = 0
        self._lock = threading.RLock()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function, by replay where that can be."""
        if modes.recording and modes.RECORDER.get() is not None:
            return self.function(*args, **kwargs)
        try:
            key = _key_of(args, kwargs)
        except _UnknownArgumentError as unknown:
            if self.fullgraph:
                raise TraceError(f"{self._name}: {unknown} cannot be part of a graph") from None
            self._untraceable += 1
            return self.function(*args, **kwargs)
        kind = self._kind(key, args, kwargs)
        graph = kind.graph
        if graph is None:
            return self._eagerly(kind, args, kwargs)
        try:
            result = graph(*args, **kwargs)
        except UnseenPathError as error:
            return self._widen(kind, graph, error, args, kwargs)
        except GuardError as error:
            return self._renew(kind, graph, error, args, kwargs)
        kind.replays += 1
        return result

    @property
    def _name(self) -> str:
        return name_of(self.function)

    def _kind(self, key: Key, args: Any, kwargs: Any) -> _Kind:
        """Return what is known of this kind of arguments; the first call of it makes the graph."""
        kind = self._kinds.get(key)
        if kind is not None:
            return kind
        with self._lock:
            kind = self._kinds.get(key)
            if kind is None:
                kind = _Kind(_shown(args, kwargs))
                self._make(kind, args, kwargs)
                self._kinds[key] = kind
                while len(self._kinds) > self.limit:
                    self._kinds.popitem(last=False)
                    self._dropped += 1
        return kind

    def _make(self, kind: _Kind, args: Any, kwargs: Any) -> None:
        kind.graph = None
        if kind.made == _MAX_MADE:
            kind.reason = f"its graph was made {_MAX_MADE} times, each time something had changed"
            return
        kind.made += 1
        try:
            with _refusing_prints():
                made = trace(self.function, args, kwargs)
            _refuse_changes(made)
            kind.graph, kind.examples = made, 1
        except TraceGraphError as error:
            if self.fullgraph:
                raise
            kind.reason = f"{type(error).__name__}: {error}"

    def _eagerly(self, kind: _Kind, args: Any, kwargs: Any) -> Any:
        kind.eager += 1
        return self.function(*args, **kwargs)

    def _widen(
        self, kind: _Kind, graph: Traced, error: UnseenPathError, args: Any, kwargs: Any
    ) -> Any:
        """Add a path that was not seen to a graph, and replay it."""
        with self._lock:
            if kind.graph is graph and kind.examples < _MAX_EXAMPLES:
                try:
                    with _refusing_prints():
                        graph.add_example(*args, **kwargs)
                    _refuse_changes(graph)
                    kind.examples += 1
                    kind.history.append(f"example {kind.examples}: {_first(error)}")
                except TraceGraphError as refusal:
                    if self.fullgraph:
                        raise
                    kind.graph, kind.reason = None, f"{type(refusal).__name__}: {refusal}"
        return self._once_more(kind, args, kwargs)

    def _renew(
        self, kind: _Kind, graph: Traced, error: GuardError, args: Any, kwargs: Any
    ) -> Any:  # fmt: skip
        """Make a graph again, since something that it relied on has changed, and replay it."""
        with self._lock:
            if kind.graph is graph:
                kind.history.append(f"made again: {_first(error)}")
                self._make(kind, args, kwargs)
        return self._once_more(kind, args, kwargs)

    def _once_more(self, kind: _Kind, args: Any, kwargs: Any) -> Any:
        if kind.graph is not None:
            try:
                result = kind.graph(*args, **kwargs)
            except GuardError:
                if self.fullgraph:
                    raise
            else:
                kind.replays += 1
                return result
        return self._eagerly(kind, args, kwargs)

    def explain(self) -> str:
        """Say what was traced, replayed and run eagerly, and why."""
        kinds = list(self._kinds.values())
        total = sum(k.replays for k in kinds), sum(k.eager for k in kinds) + self._untraceable
        lines = [f"{self._name}: {sum(total)} calls, {total[0]} replayed, {total[1]} eager"]
        lines += [line for kind in kinds for line in kind.tell()]
        if self._untraceable:
            lines.append(f"{self._untraceable} calls had arguments that no graph can take")
        if self._dropped:
            lines.append(f"{self._dropped} graphs were dropped, beyond the limit of {self.limit}")
        return "\n".join(lines)

    def reset(self) -> None:
        """Forget all graphs and counts."""
        with self._lock:
            self._kinds.clear()
            self._dropped = self._untraceable = 0


def _refuse_changes(graph: Traced) -> None:
    """Refuse a function that changes Python objects, which its replay would not.

    Raises:
        TraceError: naming what changes.
    """
    left = graph.left_changes()
    if left:
        raise TraceError(f"it changes Python objects, which a replay would not: {', '.join(left)}")


def _first(error: Exception) -> str:
    return str(error).partition(": ")[0].partition("; ")[0]


def _shown(args: Any, kwargs: Any) -> str:
    def show(x: Any) -> str:
        if isinstance(x, Tensor):
            return str(type_of(x))
        if isinstance(x, (tuple, list)):
            return f"({', '.join(map(show, x))})"
        if isinstance(x, dict):
            return f"{{{', '.join(f'{k}: {show(v)}' for k, v in x.items())}}}"
        text = repr(x)
        return text if len(text) <= 40 else f"{text[:37]}..."

    return f"({', '.join([*map(show, args), *(f'{k}={show(v)}' for k, v in kwargs.items())])})"


def _key_of(args: Any, kwargs: Any) -> Key:
    """Return what arguments must have in common to share a graph.

    Raises:
        _UnknownArgumentError: one is neither a tensor, a Python value, nor a nest of them.
    """
    names = tuple(kwargs)
    leaves = tuple(map(_part, (*args, *kwargs.values())))
    return (leaves, names, modes.GRAD.get(), modes.INFERENCE.get(), get_default_dtype())


def _part(x: Any) -> Any:
    if isinstance(x, Tensor):
        data = x._data
        return (Tensor, data.dtype, data.shape, x._node is not None, data.__class__)
    if isinstance(x, (bool, int, float, str)):
        return (x.__class__, repr(x))
    if x is None:
        return None
    if isinstance(x, (tuple, list)):
        return (x.__class__, *map(_part, x))
    if isinstance(x, dict):
        return (dict, tuple(map(_part, x)), tuple(map(_part, x.values())))
    if isinstance(x, (np.ndarray, np.generic)):
        return (np.ndarray, x.dtype, x.shape)
    if hasattr(x, "__dataclass_fields__") and not isinstance(x, type):
        return (x.__class__, *map(_part, vars(x).values()))
    raise _UnknownArgumentError(f"a {type(x).__name__} among the arguments")


class _Watched:
    """Standard output while this thread traces: what it prints is kept back and noted."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._thread = threading.get_ident()
        self.printed = False

    def write(self, text: str) -> int:
        if threading.get_ident() == self._thread:
            self.printed = True
            return len(text)
        return int(self._stream.write(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def _refusing_prints() -> Iterator[None]:
    """Refuse a function that prints, which its replay would not.

    Raises:
        TraceError: it has printed.
    """
    before = sys.stdout
    watched: Any = _Watched(before)
    sys.stdout = watched
    try:
        yield
    finally:
        if sys.stdout is watched:
            sys.stdout = before
    if watched.printed:
        raise TraceError("it prints, which a replay would not")
