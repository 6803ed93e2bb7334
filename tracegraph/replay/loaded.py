"""Loaded: what `tracegraph.load` gives for a file of graphs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tracegraph.audit.report import Report
from tracegraph.eager.tensors import Tensor
from tracegraph.errors import GuardError, SignatureError
from tracegraph.ir.graph import Graph
from tracegraph.replay.entry import EntryPoint
from tracegraph.replay.held_state import Trainable, load_state
from tracegraph.replay.signature import Signature


class Loaded:
    """Entry points that share State: `loaded(x)`, `loaded.train_step(x, y)`.

    Calling it runs the entry `forward`, or the only one there is.
    """

    def __init__(
        self, entries: Mapping[str, EntryPoint], state: Mapping[str, Tensor],
        label: str, trainable: Trainable,
    ) -> None:  # fmt: skip
        self.entries = dict(entries)
        self._state = dict(state)
        self._label = label
        self._trainable = trainable
        for entry in self.entries.values():
            entry.trainable = trainable

    def __repr__(self) -> str:
        shown = ", ".join(f"{n}{e.signature}" for n, e in self.entries.items())
        return f"Loaded({self._label}: {shown})"

    def __getattr__(self, name: str) -> EntryPoint:
        entries = self.__dict__.get("entries", {})
        if name in entries:
            entry: EntryPoint = entries[name]
            return entry
        raise AttributeError(f"no entry point {name!r}; the file has: {', '.join(entries)}")

    def _main(self) -> EntryPoint:
        if "forward" in self.entries:
            return self.entries["forward"]
        if len(self.entries) == 1:
            return next(iter(self.entries.values()))
        raise SignatureError(f"name the entry point to use: {', '.join(self.entries)}")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Replay the main entry point. Arguments by place or name: tensors or NumPy arrays."""
        return self._main()(*args, **kwargs)

    @property
    def signature(self) -> Signature:
        """Of the main entry point."""
        return self._main().signature

    @property
    def graph(self) -> Graph:
        """Of the main entry point."""
        return self._main().graph

    def program(
        self, device: Any = "cpu", runtime: str | None = None, level: int | None = None
    ) -> Any:
        """Return the main entry point compiled for a device; see `EntryPoint.program`."""
        return self._main().program(device, runtime, level)

    def subgraph(self, to: Any, from_: Any = None) -> EntryPoint:
        """Return a part of the main entry point; see `EntryPoint.subgraph`."""
        return self._main().subgraph(to, from_)

    def report(self) -> dict[str, Report]:
        """Return what each graph froze and relies on, by entry point; see `EntryPoint.report`."""
        return {name: entry.report() for name, entry in self.entries.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """Return State by name."""
        return dict(self._state)

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Return, by name, the State that required gradients when it was saved.

        It requires them again from now on, so that calls can be differentiated as those of a
        module. Before that, calls compute values only.
        """
        self._trainable.wake()
        return iter([(n, t) for n, t in self._state.items() if t in self._trainable])

    def is_trained(self, name: str) -> bool:
        """Whether a State required gradients when it was saved."""
        return self._state[name] in self._trainable

    def parameters(self) -> Iterator[Tensor]:
        """Return the State that required gradients when it was saved; see `named_parameters`."""
        return (t for _, t in self.named_parameters())

    def __tracegraph_state__(self) -> Iterator[tuple[str, Any]]:
        """What a trace that calls this takes for State."""
        yield from self._state.items()
        alone = len(self.entries) == 1
        for name, entry in self.entries.items():
            yield "" if alone or name == "forward" else name, entry

    def __tracegraph_containers__(self) -> Iterator[Any]:
        """Nothing is rebound."""
        return iter(())

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> None:
        """Copy tensors or arrays into State by name; nothing changes unless all of it fits.

        Raises:
            StateError: a name is missing or unknown (`strict`), or a type differs.
        """
        load_state(self._state, state, strict)

    def train(self, mode: bool = True) -> Loaded:
        """Ask for training (or evaluation) behaviour of the entry points that have both.

        Raises:
            GuardError: the main entry point was traced in the other mode only.
        """
        main = self._main()
        if main.modes and mode not in main.modes:
            raise GuardError(
                f"{self._label} was traced in {'eval' if mode else 'train'} mode only; trace and "
                f"save it in {'train' if mode else 'eval'} mode as well"
            )
        for entry in self.entries.values():
            if mode in entry.modes:
                entry.mode = mode
        return self

    def eval(self) -> Loaded:
        """As `train(False)`."""
        return self.train(False)

    def save(self, f: Any) -> None:
        """Write all entry points with their present State."""
        from tracegraph.files.saving import save

        save(self, f)
