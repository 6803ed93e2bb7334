"""Where recorded ops come from in the user's code, and which values may leave the graph for it."""

from __future__ import annotations

import functools
import os
import sys
import types
import weakref
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from tracegraph.audit.syntax import normal, target_at, text_at
from tracegraph.devices import Device
from tracegraph.dtypes import DType
from tracegraph.eager.storage import AbstractArray, SymbolicArray, bare
from tracegraph.eager.tensors import Tensor, type_of
from tracegraph.errors import BakeError
from tracegraph.ir.graph import Loc

_PACKAGE: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_OURS: Final = (_PACKAGE, os.path.realpath(os.path.join(_PACKAGE, "passes")),
                os.path.realpath(os.path.join(_PACKAGE, "runtime")))  # fmt: skip

SCALARS: Final = (bool, int, float, complex, str, bytes, type(None), DType, Device)
_VALUES: Final = (*SCALARS, np.generic, np.ndarray)
_MAX_ITEMS: Final = 64
# Local values of these types are kept with a site only if they are small.
_LARGE: Final = (list, tuple, dict, set, np.ndarray)
_SHOWN: Final = 60
_QUICK: Final = frozenset((bool, int, float, str, type(None)))
_make: Final = tuple.__new__  # a NamedTuple's own takes twice the time


# Code of tracegraph that ran, by identity: the hash of code is that of all its content.
_MINE: Final[dict[int, types.CodeType]] = {}


def is_users(code: types.CodeType) -> bool:
    """Whether code is not of tracegraph."""
    return not code.co_filename.startswith(_OURS)


_FOREIGN: Final = frozenset(sys.stdlib_module_names) - {"test"} | {"tracegraph", "numpy", "cupy"}


@functools.lru_cache(maxsize=1024)
def is_foreign_name(name: str | None) -> bool:
    """Whether a module belongs to tracegraph, NumPy or Python's library."""
    return (name or "").partition(".")[0] in _FOREIGN


def is_value(value: Any) -> bool:
    """Whether a Python value can be frozen: a number, a string, None, an array, a few of these."""
    if isinstance(value, tuple):
        return len(value) <= _MAX_ITEMS and all(map(is_value, value))
    if isinstance(value, list):
        return len(value) <= _MAX_ITEMS and all(isinstance(v, SCALARS) for v in value)
    return isinstance(value, _VALUES)


def shown(value: Any) -> str:
    """Return a frozen value as reports and errors show it."""
    if isinstance(value, np.ndarray):
        text = f"array of {value.dtype}{list(value.shape)}"
    else:
        text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


class Shape:
    """Stands for a tensor among the local names of a site."""

    __slots__ = ("sizes",)  # no __init__, which would take half of the time

    sizes: tuple[Any, ...]


class Site(NamedTuple):
    """An instruction of the user's code that ops came from, with the local names at the time."""

    code: types.CodeType
    instruction: int
    loc: Loc
    names: dict[str, Any]
    namespace: dict[str, Any]

    @property
    def is_foreign(self) -> bool:
        """Whether the code belongs to tracegraph, NumPy or Python's library."""
        return is_foreign_name(self.namespace.get("__name__"))

    def local(self, name: str) -> Any:
        """What a local name stood for; None if it is not known, or gone."""
        value = self.names.get(name)
        return value() if isinstance(value, weakref.ref) else value


def _site(frame: types.FrameType, loc: Loc) -> Site:
    names: dict[str, Any] = {}
    for name, value in frame.f_locals.items():
        kind = value.__class__
        if kind is Tensor or isinstance(value, Tensor):
            names[name] = shape = Shape()
            shape.sizes = value._data.shape if kind is Tensor else value.shape
        elif kind in _QUICK or is_value(value):
            names[name] = value
        elif not isinstance(value, _LARGE):
            names[name] = _kept(value)
    return _make(Site, (frame.f_code, frame.f_lasti, loc, names, frame.f_globals))


def _kept(value: Any) -> Any:
    """Return a weak reference to an object, so that a trace does not keep it alive."""
    try:
        return weakref.ref(value)
    except TypeError:
        return Opaque(type(value))


class Opaque:
    """Stands for an object that cannot be referred to weakly."""

    __slots__ = ("kind",)

    def __init__(self, kind: type) -> None:
        self.kind = kind


class Baked(NamedTuple):
    """A value that was read from a tensor, by leave of the caller of `trace`."""

    loc: Loc | None
    how: str
    text: str
    value: str
    array: Any


class Recording(NamedTuple):
    """The rows of one run; `numbers` are the Python numbers behind constants, by row, as text."""

    rows: Sequence[Any]
    numbers: Mapping[int, str]

    def constant(self, row: int) -> str:
        """What is constant in a row, to be read."""
        value = self.rows[row].attrs["value"]
        if row in self.numbers:
            return self.numbers[row]
        return repr(value.item()) if getattr(value, "size", 0) == 1 else shown(value)


def recording_of(recorder: Any) -> Recording:
    """Return what a recorder recorded."""
    numbers = {
        row: number if isinstance(number, str) else repr(number)
        for (_, number, _), (row, _) in recorder._scalars.items()
    }
    return Recording(recorder.rows, numbers)


class Permit:
    """Which values may be read from tensors and frozen: none, all, or those that are named.

    An entry names an expression (`loss.item()`), a line (`train.py:12`) or the variable that the
    value is assigned to.
    """

    def __init__(
        self, strict: bool = True, allowed: Iterable[str] = (), given: Sequence[Baked] = (),
        keep: bool = False,
    ) -> None:  # fmt: skip
        self.strict = strict
        self.texts = frozenset(map(normal, allowed))
        self.given = given
        self.keep = keep

    def again(self, given: Sequence[Baked], keep: bool) -> Permit:
        """Return the same for another run, in which Python reads what it read in the first.

        With `keep` the recorder keeps every result.
        """
        return Permit(self.strict, self.texts, given, keep)

    def covers(self, frame: types.FrameType | None, text: str) -> bool:
        """Whether the value that an instruction reads may be frozen."""
        if not self.strict or normal(text) in self.texts:
            return True
        if frame is None or not self.texts:
            return False
        place = f"{frame.f_code.co_filename}:{frame.f_lineno}".replace(os.sep, "/")
        targets = target_at(frame.f_code, frame.f_lasti)
        return any(
            entry in targets or place == entry or place.endswith("/" + entry)
            for entry in self.texts
        )


class Provenance:
    """The part of a Recorder that knows where in the user's code it is.

    `sites` are the instructions that ops came from, `baked` what left the graph.
    """

    sizes: Any

    def __init__(self, permit: Permit | None = None) -> None:
        self.permit = permit or Permit()
        self.sites: list[Site] = []
        self.baked: list[Baked] = []
        self.kept: dict[int, list[Any]] | None = {} if self.permit.keep else None
        self._given = deque(self.permit.given)
        self._locs: dict[tuple[int, int], Loc] = {}
        self._inside: set[tuple[int, int]] = set()  # those that the traced function ran
        self._forced: list[Any] = []
        self._root: types.FrameType | None = None

    def here(self) -> Loc | None:
        """Return the user's source line that is running (or whose gradient is)."""
        if self._forced and self._forced[-1] is not None:
            forced: Loc = self._forced[-1]
            return forced
        frame: types.FrameType | None = sys._getframe(2)
        while frame is not None and id(frame.f_code) in _MINE:
            frame = frame.f_back
        if frame is None:
            return None
        loc = self._locs.get((id(frame.f_code), frame.f_lasti))
        if loc is None and is_users(frame.f_code):
            return self._note(frame)
        if loc is None:  # code of tracegraph that never ran
            frame = self.frame()
            if frame is not None:
                loc = self._locs.get((id(frame.f_code), frame.f_lasti)) or self._note(frame)
        return loc

    def _note(self, frame: types.FrameType) -> Loc:
        """Keep a site that is new, and those that called it, if the traced function did."""
        locs, root = self._locs, self._root
        found: list[tuple[tuple[int, int], Site]] = []
        at: types.FrameType | None = frame
        while at is not None and at is not root:
            code = at.f_code
            key = (id(code), at.f_lasti)
            if key in locs:
                break
            if id(code) not in _MINE and is_users(code):
                loc = locs[key] = _make(Loc, (code.co_filename, at.f_lineno, code.co_name))
                if root is None:  # the function does not run yet
                    return loc
                found.append((key, _site(at, loc)))
            at = at.f_back
        if at is not None and (at is root or key in self._inside):
            for key, site in found:
                self._inside.add(key)
                self.sites.append(site)
        return found[0][1].loc

    @staticmethod
    def frame() -> types.FrameType | None:
        """Return the innermost frame of the user's code."""
        frame: types.FrameType | None = sys._getframe(1)
        while frame is not None:
            code = frame.f_code
            if id(code) not in _MINE:
                if not code.co_filename.startswith(_OURS):
                    break
                _MINE[id(code)] = code
            frame = frame.f_back
        return frame

    def enter(self, loc: Any) -> None:
        """Attribute what follows to `loc` (a forward op whose gradient runs)."""
        self._forced.append(loc)

    def leave(self, loc: Any) -> None:
        """Undo `enter`."""
        self._forced.pop()

    def fixed(self, data: Any) -> Any:
        """Return an array whose sizes are fixed from here on."""
        for size in data.shape if data.__class__ is SymbolicArray else ():
            self.sizes.fix(size)
        return bare(data)

    def keep(self, row: int, outs: Iterable[Tensor]) -> None:
        """Keep what an op gave, for the self-check."""
        assert self.kept is not None
        datas = [bare(out._data) for out in outs]
        self.kept[row] = [d.copy() for d in datas if not isinstance(d, AbstractArray)]

    def bake(self, t: Tensor, how: str) -> Any:
        """Return the array that Python reads where a value leaves the graph and is frozen.

        Raises:
            BakeError: this was not allowed; names the expression, the line, the value, the remedy.
        """
        frame, loc, data = self.frame(), self.here(), self.fixed(t._data)
        text = "" if frame is None else text_at(frame.f_code, frame.f_lasti)
        if not self.permit.covers(frame, text):
            value = data.item() if data.size == 1 else f"a tensor of {type_of(t)}"
            raise BakeError(
                f"{how} in `{text or 'a line without source'}` at {loc} would freeze the value "
                f"{value} of a traced tensor into the graph: the replay could not follow other "
                "values. Compute with tensors instead (where, masks, indexing), do it outside of "
                f"the traced function, or accept it: trace(..., allow_bake=[{text or str(loc)!r}])"
            )
        if self._given and self._given[0][1:3] == (how, text):
            data = self._given.popleft().array
        value = repr(data.item()) if data.size == 1 else f"array of {list(data.shape)}"
        self.baked.append(Baked(loc, how, text, value, data.copy()))
        return data.copy()
