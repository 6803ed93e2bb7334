"""A function that is traced as it is called: what `tracegraph.compile` returns.

Each kind of arguments (nesting, dtypes, Python values, which tensors need gradients) has a graph. A
call replays it. Where sizes are others than so far, or the replay finds a path that was not seen,
the call becomes one more example, and dims that differ are dynamic from then on; sizes that this
graph cannot serve have graphs of their own. Where a Python value that a graph relied on has
changed, it is made again; where the function cannot be traced, it runs as it is. All of that is
counted and explained.
"""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np

from tracegraph import pytree
from tracegraph.capture.arguments import is_leaf, name_of
from tracegraph.capture.tracing import Traced, trace
from tracegraph.dims.shapes import mentions
from tracegraph.dtypes import get_default_dtype
from tracegraph.eager import modes
from tracegraph.eager.storage import bare
from tracegraph.eager.tensors import Tensor, type_of
from tracegraph.errors import (
    GuardError,
    SignatureError,
    SizesError,
    TraceError,
    TraceGraphError,
    UnseenPathError,
)
from tracegraph.replay.layouts import LayoutError, order_of

Family = tuple[Any, ...]
Sizes = tuple[Any, ...]
Key = tuple[Family, Sizes | None]

# Examples that one graph takes in, and times that it is made again, before calls run eagerly.
_MAX_EXAMPLES: Final = 64
_MAX_MADE: Final = 8
_MAX_NOTES: Final = 100


class _Kind:
    """One kind of arguments: its graph, or why it has none, and what happened to it.

    `sizes` are those of the first call. With `is_rigid` the graph is for them alone; with `apart`
    there are graphs for other sizes.
    """

    def __init__(self, shown: str, sizes: Sizes, is_rigid: bool) -> None:
        self.shown = shown
        self.sizes = sizes
        self.is_rigid = is_rigid
        self.apart = False
        self.graph: Traced | None = None
        self.reason = ""
        self.made = self.examples = self.replays = self.eager = 0
        self.history: list[str] = []

    @property
    def is_dynamic(self) -> bool:
        """Whether the graph serves several sizes."""
        specs = () if self.graph is None else self.graph.signature.specs
        return any(spec.type is not None and mentions(spec.type.shape) for spec in specs)

    def note(self, text: str) -> None:
        """Keep what happened, to be told."""
        if len(self.history) < _MAX_NOTES:
            self.history.append(text)

    def tell(self) -> list[str]:
        """What happened, as lines."""
        shown = self.graph.signature if self.graph is not None and self.is_dynamic else self.shown
        lines = [f"for {shown}: {self.replays} replayed, {self.eager} eager"]
        if self.graph is not None:
            lines[0] += f"; a graph of {len(self.graph.graph)} nodes, {self.examples} examples"
        lines += [f"  {text}" for text in self.history]
        return [*lines, f"  runs eagerly: {self.reason}"] if self.reason else lines


class _UnknownArgumentError(Exception):
    """An argument that no graph can take."""


class CompiledFunction:
    """A function that replays graphs of itself. See `tracegraph.compile`."""

    def __init__(
        self, function: Callable[..., Any], fullgraph: bool, limit: int, dynamic: bool = True
    ) -> None:
        self.function = function
        self.fullgraph = fullgraph
        self.limit = limit
        self.dynamic = dynamic
        # By what calls have in common besides sizes; graphs for some sizes alone by these too.
        self._kinds: OrderedDict[Key, _Kind] = OrderedDict()
        self._laid: set[Family] = set()  # of these, each layout of the arguments has a graph
        self._dropped = self._untraceable = 0
        self._lock = threading.RLock()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function, by replay where that can be."""
        if modes.recording and modes.RECORDER.get() is not None:
            return self.function(*args, **kwargs)
        try:
            plain, sizes = _key_of(args, kwargs)
        except _UnknownArgumentError as unknown:
            if self.fullgraph:
                raise TraceError(f"{self._name}: {unknown} cannot be part of a graph") from None
            self._untraceable += 1
            return self.function(*args, **kwargs)
        family = (*plain, _orders(args, kwargs)) if plain in self._laid else plain
        kind = self._kinds.get((family, None)) or self._kind((family, None), sizes, args, kwargs)
        if (kind.apart or kind.is_rigid) and sizes != kind.sizes:
            known = self._kinds.get((family, sizes))
            if known is not None or kind.is_rigid:
                kind = known or self._apart(kind, family, sizes, args, kwargs)
        graph = kind.graph
        if graph is None:
            return self._eagerly(kind, args, kwargs)
        try:
            result = graph(*args, **kwargs)
        except UnseenPathError as error:
            self._widen(kind, graph, _first(error), args, kwargs)
            return self._once_more(kind, args, kwargs)
        except (SignatureError, SizesError) as error:
            if kind.is_rigid:
                raise
            return self._resize(kind, graph, error, family, sizes, args, kwargs)
        except GuardError as error:
            return self._renew(kind, graph, error, plain, args, kwargs)
        kind.replays += 1
        return result

    @property
    def _name(self) -> str:
        return name_of(self.function)

    def _kind(self, key: Key, sizes: Sizes, args: Any, kwargs: Any) -> _Kind:
        """Return what is known of this kind of arguments; the first call of it makes the graph."""
        with self._lock:
            kind = self._kinds.get(key)
            if kind is None:
                is_rigid = key[1] is not None or not self.dynamic
                kind = _Kind(_shown(args, kwargs), sizes, is_rigid)
                self._make(kind, args, kwargs)
                self._kinds[key] = kind
                while len(self._kinds) > self.limit:
                    del self._kinds[self._least(key)]
                    self._dropped += 1
        return kind

    def _least(self, newest: Key) -> Key:
        """Return the key of the graph to drop: the oldest, those for some sizes alone first."""
        alone = (key for key in self._kinds if key[1] is not None and key != newest)
        return next(alone, None) or next(iter(self._kinds))

    def _apart(
        self, main: _Kind, family: Family, sizes: Sizes, args: Any, kwargs: Any
    ) -> _Kind:  # fmt: skip
        """Return a kind for sizes that the graph of their family does not serve."""
        main.apart = True
        return self._kind((family, sizes), sizes, args, kwargs)

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

    def _widen(self, kind: _Kind, graph: Traced, why: str, args: Any, kwargs: Any) -> None:
        """Add an example to a graph."""
        with self._lock:
            if kind.graph is graph and kind.examples < _MAX_EXAMPLES:
                try:
                    self._add(kind, graph, why, args, kwargs)
                except TraceGraphError as refusal:
                    if self.fullgraph:
                        raise
                    kind.graph, kind.reason = None, f"{type(refusal).__name__}: {refusal}"

    @staticmethod
    def _add(kind: _Kind, graph: Traced, why: str, args: Any, kwargs: Any) -> None:
        with _refusing_prints():
            graph.add_example(*args, **kwargs)
        _refuse_changes(graph)
        kind.examples += 1
        kind.note(f"example {kind.examples}: {why}")

    def _resize(
        self, kind: _Kind, graph: Traced, error: Exception, family: Family, sizes: Sizes,
        args: Any, kwargs: Any,
    ) -> Any:  # fmt: skip
        """Let a graph serve other sizes as well; what it cannot serve gets one for it alone."""
        with self._lock:
            fixed = isinstance(error, SignatureError)
            if fixed and kind.graph is graph and kind.examples < _MAX_EXAMPLES:
                try:
                    self._add(kind, graph, f"sizes of {_shown(args, kwargs)}", args, kwargs)
                except TraceGraphError as refusal:
                    kind.is_rigid = not kind.is_dynamic
                    kind.note(f"no sizes of {_shown(args, kwargs)}: {_sentence(refusal)}")
        if not kind.is_rigid and kind.graph is not None:
            try:
                result = kind.graph(*args, **kwargs)
            except (SignatureError, GuardError):
                pass
            else:
                kind.replays += 1
                return result
        return self._once_more(self._apart(kind, family, sizes, args, kwargs), args, kwargs)

    def _renew(
        self, kind: _Kind, graph: Traced, error: GuardError, plain: Family, args: Any, kwargs: Any
    ) -> Any:  # fmt: skip
        """Make a graph again, since something that it relied on has changed, and replay it.

        Where that is how arguments lie in memory, each layout gets a graph from now on.
        """
        if isinstance(error, LayoutError) and plain not in self._laid:
            self._laid.add(plain)
            return self(*args, **kwargs)
        with self._lock:
            if kind.graph is graph:
                kind.note(f"made again: {_first(error)}")
                self._make(kind, args, kwargs)
        return self._once_more(kind, args, kwargs)

    def _once_more(self, kind: _Kind, args: Any, kwargs: Any) -> Any:
        if kind.graph is not None:
            try:
                result = kind.graph(*args, **kwargs)
            except (GuardError, SignatureError):
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
            self._laid.clear()
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


def _sentence(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("; ")[0]


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


def _key_of(args: Any, kwargs: Any) -> tuple[Family, Sizes]:
    """Return what arguments must have in common to share a graph, and their sizes.

    Raises:
        _UnknownArgumentError: one is neither a tensor, a Python value, nor a nest of them.
    """
    sizes: list[Any] = []
    leaves = tuple([_part(x, sizes) for x in (*args, *kwargs.values())])
    grad = modes.GRAD.get(), modes.INFERENCE.get()
    return (leaves, tuple(kwargs), *grad, get_default_dtype()), tuple(sizes)


def _orders(args: Any, kwargs: Any) -> tuple[str, ...]:
    """Return how the tensors among arguments lie in memory."""
    leaves, _ = pytree.flatten((args, kwargs), is_leaf, "input")
    return tuple([
        order_of(bare(x._data if isinstance(x, Tensor) else x))
        for x in leaves if isinstance(x, (Tensor, np.ndarray))
    ])  # fmt: skip


def _part(x: Any, sizes: list[Any]) -> Any:
    """Return what stands for an argument; its sizes go to the list."""
    if isinstance(x, Tensor):
        if x.is_sparse:
            raise _UnknownArgumentError("a sparse tensor among the arguments")
        data = x._data
        sizes.append(data.shape)
        return (Tensor, data.dtype, len(data.shape), x._node is not None, data.__class__)
    if isinstance(x, (bool, int, float, str)):
        return (x.__class__, repr(x))
    if x is None:
        return None
    if isinstance(x, (tuple, list)):
        return (x.__class__, *[_part(item, sizes) for item in x])
    if isinstance(x, dict):
        keys, values = ([_part(item, sizes) for item in part] for part in (x, x.values()))
        return (dict, *keys, *values)
    if isinstance(x, (np.ndarray, np.generic)):
        sizes.append(x.shape)
        return (np.ndarray, x.dtype, x.ndim)
    if hasattr(x, "__dataclass_fields__") and not isinstance(x, type):
        return (x.__class__, *[_part(item, sizes) for item in vars(x).values()])
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
