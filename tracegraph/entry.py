"""EntryPoint: a graph with a signature and State, ready to be called.

`Traced` (live, in the process that traced) and the entry points of a loaded file are EntryPoints.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tracegraph import pytree
from tracegraph.compiler import make_program
from tracegraph.devices import device_of, parse_device
from tracegraph.dispatch import put
from tracegraph.errors import GuardError, SignatureError, StateError
from tracegraph.ir.graph import Graph
from tracegraph.state import Place
from tracegraph.tensor_type import TensorType
from tracegraph.tensors import Tensor, storage_of, type_of, wrap, xp_of


class LeafSpec(NamedTuple):
    """One input leaf: a tensor of a type, or a Python value that the trace relied on."""

    name: str
    type: TensorType | None
    value: Any


class Hyper(NamedTuple):
    """A hyper-parameter: a scalar input with a default; `read` gives the present value."""

    name: str
    default: float
    read: Callable[[], float] | None = None


@dataclass(frozen=True)
class Signature:
    """What a call takes and gives.

    `names` of arguments (`positional` of them by place), the `inputs` tree over `specs`, and the
    `outputs` tree over `results` ({"value": i} is graph output i, {"constant": v} a Python value).
    """

    names: tuple[str, ...]
    positional: int
    inputs: pytree.Tree
    specs: tuple[LeafSpec, ...]
    outputs: pytree.Tree
    results: tuple[dict[str, Any], ...]

    def __str__(self) -> str:
        return f"({', '.join(f'{s.name}: {s.type or repr(s.value)}' for s in self.specs)})"


def is_leaf(value: Any) -> bool:
    """Whether a value is a leaf of nested inputs."""
    return isinstance(value, (Tensor, np.ndarray, np.generic, bool, int, float, str)) or hasattr(
        value, "__cuda_array_interface__"
    )


class Program:
    """An entry point made executable on one device by one runtime. Call it like the entry."""

    def __init__(self, entry: EntryPoint, device: Any, runtime: str | None, level: int) -> None:
        self.entry = entry
        self.device = parse_device(device)
        self._program = make_program(entry.graph, device, runtime, level)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Replay: check inputs, run, commit State, return outputs on this device.

        Raises:
            SignatureError: inputs differ from the signature.
            GuardError: something that the trace relied on has changed.
        """
        return self.entry.replay(self._program, self.device, args, kwargs)


class EntryPoint:
    """A callable graph. See `Traced` and `tracegraph.load`."""

    def __init__(
        self, graph: Graph, signature: Signature, state: Mapping[str, Tensor],
        hypers: Sequence[Hyper],
    ) -> None:  # fmt: skip
        self.graph = graph
        self.signature = signature
        # Of live traces: where State is held; a name that several places share must not move.
        self.places: dict[str, Place] = {}
        self.shared: dict[str, list[tuple[Place, Tensor]]] = {}
        self.rebound: dict[str, list[Place]] = {}
        self._held = dict(state)
        self.hypers = list(hypers)
        self.classes: dict[str, type] = {}
        self.training_flags: list[tuple[str, Any, bool]] = []
        self.traced_modes: list[bool] = []
        self._programs: dict[tuple[str, str | None], Program] = {}
        self._lock = threading.RLock()

    @property
    def state(self) -> dict[str, Tensor]:
        """State by name: the tensors that its places hold now (a place may have been rebound).

        Raises:
            GuardError: a place holds nothing of the type that it held when it was traced.
        """
        held = self._held
        for name, place in self.places.items():
            container = place.container
            now = container.get(place.key) if container.__class__ is dict else place.read()
            if now is not held[name]:
                held[name] = _moved(name, place, held[name], now)
        for name, places in self.shared.items():
            if any(place.read() is not t for place, t in places):
                raise GuardError(
                    f"{name} was memory that several places share when it was traced, and one of "
                    "them holds another tensor now; trace again, or write in place (copy_)"
                )
        return held

    def program(self, device: Any = "cpu", runtime: str | None = None, level: int = 1) -> Program:
        """Return this entry as a Program on a device and runtime ("interpreter")."""
        return Program(self, device, runtime, level)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Replay on the best runtime at hand, on the device where State (or the first input) is."""
        device = self._home(args)
        key = (str(device), None)
        program = self._programs.get(key)
        if program is None:
            with self._lock:
                program = self._programs.setdefault(key, self.program(device))
        return program(*args, **kwargs)

    def _home(self, args: Sequence[Any]) -> Any:
        for t in self._held.values():
            return device_of(t._data)
        for a in args:
            if isinstance(a, Tensor):
                return device_of(a._data)
        return parse_device("cpu")

    def replay(self, program: Any, device: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Run a compiled program of this entry and commit what it writes."""
        for path, module, flag in self.training_flags:
            if module.training != flag:
                raise GuardError(
                    f"module {path or 'self'!r} was in {'train' if flag else 'eval'} mode when it "
                    f"was traced and is in {'eval' if flag else 'train'} mode now; trace it again "
                    f"in this mode, or call .{'train' if flag else 'eval'}() first"
                )
        arrays, given, hypers = self._arguments(device, args, kwargs)
        if not self.graph.writes:
            states = {n: self._on(device, t) for n, t in self.state.items()}
            outputs, _ = program.run([*arrays, *hypers], states)
            return self._results(outputs)
        with self._lock:
            states = {n: self._on(device, t) for n, t in self.state.items()}
            outputs, writes = program.run([*arrays, *hypers], states)
            self._commit(writes, given)
        return self._results(outputs)

    def _on(self, device: Any, t: Tensor) -> Any:
        data = t._data
        return data if device_of(data) == device else device.place(data)

    def _arguments(
        self, device: Any, args: Any, kwargs: dict[str, Any]
    ) -> tuple[list[Any], dict[str, Any], list[Any]]:
        """Check a call against the signature; returns arrays, given leaves by name, hypers."""
        values = {h.name: kwargs.pop(h.name) for h in self.hypers if h.name in kwargs}
        leaves = pytree.match(self.signature.inputs, self._bind(args, kwargs), is_leaf, "input")
        arrays, given = [], {}
        for leaf, spec in zip(leaves, self.signature.specs, strict=True):
            if spec.type is None:
                if type(leaf) is not type(spec.value) or leaf != spec.value:
                    raise SignatureError(
                        f"argument {spec.name}: the trace was made for the value {spec.value!r}, "
                        f"got {leaf!r}; trace again with that value, or pass a tensor"
                    )
                continue
            arrays.append(_checked(leaf, spec, device))
            given[spec.name] = leaf
        hypers = [
            np.asarray(values.get(h.name, h.default if h.read is None else h.read()), np.float64)
            for h in self.hypers
        ]
        if device.type != "cpu":
            hypers = [device.place(h) for h in hypers]
        return arrays, given, hypers

    def _bind(self, args: Any, kwargs: dict[str, Any]) -> tuple[Any, ...]:
        names = self.signature.names
        if len(args) > len(names):
            raise SignatureError(
                f"{self.graph.name} takes {len(names)} arguments {self.signature}, got {len(args)}"
            )
        bound = dict(zip(names, args, strict=False))
        for name, value in kwargs.items():
            if name not in names:
                known = ", ".join((*names, *(h.name for h in self.hypers)))
                raise SignatureError(f"{self.graph.name} has no argument {name!r}; it has: {known}")
            if name in bound:
                raise SignatureError(f"argument {name!r} was given twice")
            bound[name] = value
        missing = [n for n in names if n not in bound]
        if missing:
            raise SignatureError(
                f"{self.graph.name} misses argument {missing[0]!r} of {self.signature}"
            )
        return tuple(bound[n] for n in names)

    def _commit(self, writes: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        for name, array in writes.items():
            target = self._held.get(name)
            if target is None:
                target = given[name]
                if not isinstance(target, Tensor):
                    target[...] = array
                    continue
            if device_of(array) != device_of(target._data):
                array = device_of(target._data).place(array)
            places = self.rebound.get(name)
            if places is None:
                put(target._data, array)
                storage_of(target).version += 1
                if name in self.places and self.places[name].read() is None:
                    self.places[name].write(target)
            else:
                self._held[name] = made = wrap(array)
                for place in places:
                    place.write(made)
                if name in self.shared:
                    self.shared[name] = [(place, made) for place in places]

    def _results(self, outputs: list[Any]) -> Any:
        leaves = [
            wrap(outputs[r["value"]]) if "value" in r else r["constant"]
            for r in self.signature.results
        ]
        return pytree.unflatten(self.signature.outputs, leaves, self.classes)

    def report(self) -> dict[str, Any]:
        """Return what the graph froze and relied on, as plain data.

        Keys: `values` (Python arguments with the value they must have), `constants` (arrays made
        from Python data, with the line), `hypers`, `training` (module modes), `state`.
        """
        constants = [
            {"type": str(n.types[0]), "line": str(n.loc) if n.loc else ""}
            for n in self.graph.order()
            if n.op == "constant" and n.types[0].shape
        ]
        modes = {path or "self": flag for path, _, flag in self.training_flags}
        return {
            "values": {s.name: s.value for s in self.signature.specs if s.type is None},
            "constants": constants,
            "hypers": {h.name: h.default for h in self.hypers},
            "training": modes,
            "state": {n: str(type_of(t)) for n, t in self.state.items()},
            "writes": list(self.graph.writes),
        }

    def save(self, f: Any) -> None:
        """Write this entry point to a file; the same as `tracegraph.save(self, f)`."""
        from tracegraph.archive import save

        save(self, f)

    def state_dict(self) -> dict[str, Tensor]:
        """Return State by name: parameters, buffers, optimizer slots, random state."""
        return dict(self.state)

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> None:
        """Copy tensors or arrays into State by name; nothing changes unless all of it fits.

        Raises:
            StateError: a name is missing or unknown (`strict`), or a type differs.
        """
        load_state(self.state, state, strict)


def _moved(name: str, place: Place, held: Tensor, now: Any) -> Tensor:
    """What a place holds that no longer holds what it did: a gradient that is None is zero."""
    if now is None and isinstance(place.container, Tensor):
        data = held._data
        return wrap(xp_of(data).zeros(data.shape, data.dtype))
    if isinstance(now, Tensor) and not now._chain and type_of(now) == type_of(held):
        return now
    kind = f"{type_of(now)}" if isinstance(now, Tensor) else f"a {type(now).__name__}"
    raise GuardError(
        f"{name} was {type_of(held)} when it was traced and is {kind} now; trace again, or put "
        "back a tensor of that type"
    )


def load_state(into: Mapping[str, Tensor], state: Mapping[str, Any], strict: bool) -> None:
    """Copy `state` into tensors by name, after checking all of it."""
    missing = [n for n in into if n not in state]
    unknown = [n for n in state if n not in into]
    if strict and (missing or unknown):
        raise StateError(f"state does not fit: missing {missing}, unexpected {unknown}")
    arrays = {}
    for name, value in state.items():
        if name not in into:
            continue
        source = value if isinstance(value, Tensor) else wrap(np.asarray(value))
        if type_of(source) != type_of(into[name]):
            raise StateError(f"{name}: expected {type_of(into[name])}, got {type_of(source)}")
        arrays[name] = source._data
    for name, array in arrays.items():
        target = into[name]
        if device_of(array) != device_of(target._data):
            array = device_of(target._data).place(array)
        if not getattr(target._data.flags, "writeable", True):
            target._data = target._data.copy()
            storage_of(target).array = target._data
        put(target._data, array)
        storage_of(target).version += 1


def _checked(leaf: Any, spec: LeafSpec, device: Any) -> Any:
    """Return the array of an input leaf on `device`, of the type that the signature wants."""
    assert spec.type is not None
    if isinstance(leaf, Tensor):
        array = leaf._data
    elif isinstance(leaf, (bool, int, float, str)):
        raise SignatureError(f"argument {spec.name}: expected {spec.type}, got {leaf!r}")
    else:
        array = np.asarray(leaf) if isinstance(leaf, np.generic) else leaf
    try:
        got = type_of(wrap(array))
    except KeyError:
        raise SignatureError(
            f"argument {spec.name}: expected {spec.type}, got an array of dtype {array.dtype}"
        ) from None
    if got != spec.type:
        raise SignatureError(f"argument {spec.name}: expected {spec.type}, got {got}")
    return array if device_of(array) == device else device.place(array)
