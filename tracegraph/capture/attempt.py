"""One run of a traced function under a recorder: what it finds, records, leaves and puts back."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import Any

import numpy as np

from tracegraph import pytree
from tracegraph.audit.frozen import find
from tracegraph.capture.arguments import SCALARS, is_leaf
from tracegraph.capture.examples import Example
from tracegraph.capture.places import Place
from tracegraph.capture.provenance import Permit
from tracegraph.capture.rebinding import (
    Left,
    check_gradients,
    check_left_behind,
    check_parts,
    check_sharing,
    check_views,
)
from tracegraph.capture.recording import Recorder
from tracegraph.capture.rows import RowValue, entry_in
from tracegraph.capture.sizes import Declared
from tracegraph.capture.state import Walk, changes, new_tensors, restore, tensors_after
from tracegraph.capture.trie import Path, first_difference
from tracegraph.dims.symint import SymInt
from tracegraph.dtypes import int64
from tracegraph.eager.dispatch import refresh, size_tensor
from tracegraph.eager.storage import Storage, bare, sized
from tracegraph.eager.tape import make_leaf, set_history
from tracegraph.eager.tensors import Tensor, storage_of, type_of, wrap
from tracegraph.errors import TraceError
from tracegraph.replay.held_state import overlapping
from tracegraph.replay.layouts import order_of, orders_of
from tracegraph.replay.signature import Hyper, LeafSpec


class Attempt:
    """One run of the function under a recorder."""

    def __init__(
        self, function: Any, found: Walk, leaves: list[Any], tree: pytree.Tree,
        paths: list[str], positional: int, names: list[str], captured: dict[Storage, str],
        permit: Permit, declared: Declared,
    ) -> None:  # fmt: skip
        self.function = function
        self.found = found
        self.leaves = leaves
        self.tree = tree
        self.paths = paths
        self.positional = positional
        self.names = names
        self.recorder = Recorder(found.names, captured, permit, declared)
        self.recorder.note_aliases(found.leaves)
        self.recorder.module_paths = {id(m): path for path, m in found.modules.items()}
        self.outputs: list[RowValue] = []
        self.output_tree: pytree.Tree = {"none": True}
        self.output_leaves: list[Any] = []
        self.input_specs: list[LeafSpec] = []
        self.aliases: list[Tensor] = []
        self.classes: dict[str, type] = {}
        for t in found.leaves:
            refresh(t)
        self.histories = [(t, t._node, t._index) for t in found.leaves]
        self.rebinding: dict[str, list[Place]] = {}
        self.fixed: set[str] = set()  # rebound State that is written in place all the same
        self.returned: list[Any] = []
        self.left: list[str] = []
        self._moved: list[tuple[Any, Any]] | None = None
        self._after: dict[str, Tensor] | None = None

    def run(self) -> None:
        """Run the function and keep its outputs' Values."""
        recorder = self.recorder
        shells = [self._bind(x, path) for x, path in zip(self.leaves, self.paths, strict=True)]
        values = pytree.unflatten(self.tree, shells, self._classes())
        args, named = values[: self.positional], values[self.positional :]
        keywords = dict(zip(self.names[self.positional :], named, strict=True))
        with recorder:
            result = self.function(*args, **keywords)
            leaves, self.output_tree = pytree.flatten(result, is_leaf, "output")
            self.classes = pytree.classes_in(result)
            self.returned = leaves
            for leaf in leaves:
                if isinstance(leaf, Tensor):
                    self.output_leaves.append({"value": len(self.outputs)})
                    self.outputs.append(recorder.output_of(leaf))
                elif isinstance(leaf, SymInt):
                    self.output_leaves.append({"value": len(self.outputs), "number": True})
                    self.outputs.append(recorder.value_of(size_tensor(leaf, int64)))
                elif isinstance(leaf, (np.ndarray, np.generic)):
                    raise TraceError(
                        "a NumPy array among the outputs is frozen: return tensors from a traced "
                        "function"
                    )
                else:
                    self.output_leaves.append({"constant": leaf})
            recorder.settle_inputs()

    def _classes(self) -> dict[str, type]:
        """Return the namedtuple and dataclass types among the arguments."""
        if all("leaf" in tree for tree in self.tree["tuple"]):
            return {}
        return pytree.classes_in(pytree.unflatten(self.tree, self.leaves))

    def _bind(self, x: Any, path: str) -> Any:
        """Return what the function gets for an input leaf; tensors come as fresh shells."""
        if isinstance(x, SCALARS):
            self.input_specs.append(LeafSpec(path, None, x))
            return x
        array = x._data if isinstance(x, Tensor) else np.asarray(x)
        shape = self.recorder.sizes.shape(path, array.shape)
        t = wrap(sized(type_of(wrap(array)).with_shape(shape), array))
        if isinstance(x, Tensor) and x.requires_grad:
            make_leaf(t)
        self.input_specs.append(LeafSpec(path, type_of(t), None))
        self.recorder.add_input(path, t)
        self.aliases.append(t)
        return t

    def moved(self) -> list[tuple[Any, Any]]:
        """Return the containers that hold other things after the run, with what they held."""
        if self._moved is None:
            self._moved = self.found.moved()
        return self._moved

    def after(self) -> dict[str, Tensor]:
        """Return the tensors that the function can reach after the run, by path."""
        if self._after is None:
            self._after = tensors_after(self.found, self.function, bool(self.moved()))
        return self._after

    def left_changes(self) -> list[str]:
        """Say what a second call would find otherwise than this one did, besides values."""
        told = changes(self.moved())
        known = self.found.tensors
        for path, t in self.after().items():
            before = known.get(path)
            if before is not None and t.grad_fn is not None:
                told.append(f"{path} (a part of the gradient history after; detach() it)")
            elif before is None or before is t:
                continue
            elif t.requires_grad != before.requires_grad:
                told.append(f"{path} (requires_grad is {t.requires_grad} after)")
        for path, t in known.items():
            grad = known.get(f"{path}.grad") if t._grad is None else None
            if grad is not None and storage_of(grad) in self.recorder.states:
                told.append(f"{path}.grad (None after)")
        return told

    def check_again(self, again: Callable[[], Attempt], known: set[str]) -> None:
        """Run again from what this run left: the graph must be the same.

        And once more as long as more State has come to be a part of the gradient history, which
        goes from tensor to tensor where one takes the place of another.

        Raises:
            TraceError: what the function does depends on what an earlier call left.
        """
        told = ", ".join(self.left_changes()[:5])
        remedy = (
            f"the function leaves changes: {told}; the next call does other things because of "
            "them, which a replay cannot. Call it once before you trace it, keep what changes in "
            "tensors of fixed shape, or change it outside of the traced function"
        )
        second = again()
        try:
            second.run()
            second.after()  # what it holds now, not what the undo below puts back
            place = first_difference(self.recorder.rows, second.recorder.rows)
            mine, theirs = (
                (a.outputs, a.output_leaves, a.output_tree, a.writes(self.found))
                for a in (self, second)
            )
            if place is not None or mine != theirs:
                raise TraceError(remedy + (f" (at {place})" if place else ""))
            if not second.in_history() <= known:
                self.check_again(again, known | second.in_history())
        except TraceError:
            raise
        except Exception as error:
            raise TraceError(f"{remedy} (the next call raises {error!r})") from error
        finally:
            second.undo({t: t._grad for t in second.found.leaves})
            self._moved = None

    def in_history(self) -> set[str]:
        """Return the tensors that are a part of the gradient history after the run, by path."""
        return {path for path, t in self.after().items() if t.grad_fn is not None}

    def check_left(self) -> None:
        """Refuse tensors of this run that Python places hold now, where they held none before.

        Raises:
            TraceError: naming the place, the line and the remedy.
        """
        permit, rows = self.recorder.permit, self.recorder.rows
        for name, t in new_tensors(self.found):
            entry = entry_in(storage_of(t))
            if entry is None or entry.token is not self.recorder.token:
                continue
            if entry.kind == "local" and permit.strict and name not in permit.texts:
                raise TraceError(
                    f"{name} holds a tensor of {rows[entry.value[0]].loc} after the call, and none "
                    "before it: a replay would not put one there. Return the tensor; or let "
                    f"{name} hold a tensor of its type before the trace, so that it is State; or "
                    f"accept it: trace(..., allow_bake=[{name!r}])"
                )

    def writes(self, places: Walk) -> dict[str, RowValue | None]:
        """Return the Values that tensors in `places` hold after the run, where they changed."""
        entries = (*self.recorder.states.values(), *self.recorder.inputs)
        held: dict[str, RowValue | None] = {e.name: e.value for e in entries if e.written}
        for path, _, now in self.rebound(places):
            entry = entry_in(storage_of(now))
            known = entry is not None and entry.token is self.recorder.token
            held[path] = self.recorder.value_of(now) if known else None
        return held

    def rebound(self, places: Walk) -> list[tuple[str, Tensor, Tensor]]:
        """Return (path, before, after) of places that hold another tensor's memory now."""
        after = self.after()
        moved = []
        for path, t in places.tensors.items():
            now = after.get(path)
            if now is None or storage_of(now) is storage_of(t):
                continue
            if path.endswith(".grad") and storage_of(t) not in self.recorder.states:
                continue
            moved.append((path, t, now))
        return moved

    def note_rebinding(self) -> None:
        """Turn attributes that now hold another tensor (`self.h = h`) into writes of State.

        Raises:
            TraceError: the new tensor is of another type, or the memory is still in use elsewhere.
        """
        recorder = self.recorder
        check_views(self.found.tensors, self.after())
        moved = self.rebound(self.found)
        if not moved:
            return
        held_now = {path: now for path, _, now in moved}
        check_sharing(self.found.tensors, held_now)
        check_gradients(self.found.tensors, held_now)
        values = []
        for path, t, now in moved:
            place, name = self.found.places[path], recorder.entry_of(t).name
            check_parts(path, place)
            if place is None or t._chain or type(now) is not Tensor or now.requires_grad:
                self.fixed.add(name)  # it is written in place
            else:
                self.rebinding.setdefault(name, []).append(place)
            if type_of(now) != type_of(t):
                raise TraceError(
                    f"{path} is {type_of(t)} before the traced call and {type_of(now)} after it; "
                    "State must keep its type"
                )
            values.append((t, recorder.value_of(now)))
        for name in self.fixed:
            self.rebinding.pop(name, None)
        entries = [recorder.entry_of(t) for _, t, _ in moved]
        left = [
            Left(*place, entry.name in self.fixed)
            for place, entry in zip(moved, entries, strict=True)
            if entry.written or entry.name in self.fixed
        ]
        check_left_behind(self.found.leaves, left)
        with recorder:
            for t, value in values:
                recorder.write(t, recorder.abstract(value, type_of(t)))

    def example(self) -> Example:
        """Return what this run did."""
        self._check_aliases()
        recorder = self.recorder
        entries = (*recorder.states.values(), *recorder.inputs)
        places, shared = self._places()
        state = {e.name: self._holder(s, e.name) for s, e in recorder.states.items()}
        recorder.forget_tensors()  # it lives on
        writes = {e.name: e.value for e in entries if e.written}
        layouts = recorder.layouts.found(self.outputs, writes)
        return Example(
            Path(recorder.rows, self.outputs, writes),
            names=tuple(self.names), positional=self.positional, inputs=self.tree,
            specs=tuple(self.input_specs), outputs=self.output_tree,
            results=tuple(self.output_leaves), classes=self.classes, state=state,
            hypers=tuple(Hyper(n, t._data.item(), read)
                         for n, (read, t) in recorder.hypers.items()),
            places=places, shared=shared, rebound=self.rebinding, left=tuple(self.left),
            in_history=frozenset(self.in_history()),
            modes={path: (module, flag) for path, module, flag in recorder.training_flags.values()},
            findings=find(recorder, self.found, self.function),
            orders=orders_of(self.input_specs, self.aliases) | self._state_orders(layouts),
            layouts=layouts,
        )  # fmt: skip

    def _state_orders(self, layouts: Container[str]) -> dict[str, str]:
        """Tell how State lies whose layout the run relied on.

        Raises:
            TraceError: it lies otherwise after the run.
        """
        states = self.recorder.states.items()
        orders = {e.name: order_of(bare(s.array)) for s, e in states if e.name in layouts}
        for path, t, now in self.rebound(self.found) if orders else ():
            name = self.recorder.entry_of(t).name
            if orders.get(name, order_of(bare(now._data))) != order_of(bare(now._data)):
                raise TraceError(
                    f"{path} lies in memory in another order after the traced call, which the next "
                    "call would depend on: call the function once before you trace it, or let "
                    f"{path} lie as before (contiguous())"
                )
        return orders

    def _places(self) -> tuple[dict[str, Place], dict[str, list[tuple[Place, Tensor]]]]:
        """Tell where State is held, so that replays follow what is rebound between them."""
        places: dict[str, Place] = {}
        shared: dict[str, list[tuple[Place, Tensor]]] = {}
        holders: dict[Storage, list[str]] = {}
        for path, t in self.found.tensors.items():
            holders.setdefault(storage_of(t), []).append(path)
        for storage, entry in self.recorder.states.items():
            paths = holders.get(storage, ())
            known = [(self.found.places[p], self.found.tensors[p]) for p in paths]
            held = [(place, t) for place, t in known if place is not None]
            if len(paths) > 1 or any(t._chain for _, t in held):
                shared[entry.name] = held
            elif held and not held[0][1]._chain:
                places[entry.name] = held[0][0]
        return places, shared

    def _holder(self, storage: Storage, name: str) -> Tensor:
        """Return the tensor that replays read State from: the user's own where it is a whole."""
        t = self.recorder.graded.get(storage, self.found.tensors.get(name))
        if t is not None and not t._chain:
            return t
        whole = wrap(storage.array)
        whole._storage = storage
        return whole

    def _check_aliases(self) -> None:
        """Refuse inputs that share memory with other inputs or State while one is written."""
        inputs = zip(self.recorder.inputs, self.aliases, strict=False)
        given = {e.name: bare(t._data) for e, t in inputs}
        written = {e.name: s.array for s, e in self.recorder.states.items() if e.written}
        written |= {e.name: given[e.name] for e in self.recorder.inputs
                    if e.written and e.name in given}  # fmt: skip
        for name, other in overlapping(given, written):
            raise TraceError(
                f"input {name!r} shares memory with {other!r} and one of them is written "
                "in place: a replay could not know; clone() one of them"
            )

    def undo(self, grads: Mapping[Tensor, Tensor | None]) -> None:
        """Put back memory, gradient histories, containers and gradients."""
        for t, node, index in self.histories:
            if t._lineage is not None:
                refresh(t)
            now = t._node
            if now is not node and (node is None or now is None or not t._chain):
                set_history(t, node, index)
        self.recorder.snapshots.put_back()
        restore(self.moved())
        for t, g in grads.items():
            t._grad = g
