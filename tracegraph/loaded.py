"""Loaded: what `tracegraph.load` gives for a file of graphs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tracegraph.entry import EntryPoint, Signature, load_state
from tracegraph.errors import GuardError, SignatureError
from tracegraph.ir.graph import Graph
from tracegraph.tensors import Tensor


class Loaded:
    """Entry points that share State: `loaded(x)`, `loaded.train_step(x, y)`.

    Calling it runs the entry `forward`, or the only one there is.
    """

    def __init__(
        self, entries: Mapping[str, EntryPoint], state: Mapping[str, Tensor],
        reports: Mapping[str, Any], label: str,
    ) -> None:  # fmt: skip
        self.entries = dict(entries)
        self._state = dict(state)
        self._reports = dict(reports)
        self._label = label

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

    def program(self, device: Any = "cpu", runtime: str | None = None, level: int = 1) -> Any:
        """Return the main entry point as a Program on a device and runtime."""
        return self._main().program(device, runtime, level)

    def report(self) -> dict[str, Any]:
        """Return what each graph froze and relied on, as written at the time of the trace."""
        return dict(self._reports)

    def state_dict(self) -> dict[str, Tensor]:
        """Return State by name."""
        return dict(self._state)

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> None:
        """Copy tensors or arrays into State by name; nothing changes unless all of it fits.

        Raises:
            StateError: a name is missing or unknown (`strict`), or a type differs.
        """
        load_state(self._state, state, strict)

    def train(self, mode: bool = True) -> Loaded:
        """Ask for training (or evaluation) behaviour of the main entry point.

        Raises:
            GuardError: it was traced in the other mode, which is not in the file.
        """
        modes = self._main().traced_modes
        if modes and mode not in modes:
            raise GuardError(
                f"{self._label} was traced in {'eval' if mode else 'train'} mode only; trace and "
                f"save it in {'train' if mode else 'eval'} mode as well"
            )
        return self

    def eval(self) -> Loaded:
        """As `train(False)`."""
        return self.train(False)

    def save(self, f: Any) -> None:
        """Write all entry points with their present State."""
        from tracegraph.archive import save

        save(self, f)
