"""Opening a file for a command, and naming what is in it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from tracegraph.errors import FileFormatError, SignatureError
from tracegraph.files.archive import load
from tracegraph.files.container import Container, read_json
from tracegraph.ops.host import permit
from tracegraph.replay.entry import EntryPoint
from tracegraph.replay.loaded import Loaded


class File:
    """A file that a command works on.

    Attributes: `path`, `size_bytes`, `head` (its format.json), `content` (`Loaded`, or the nest
    of tensors that was saved).
    """

    def __init__(self, path: str, device: Any = None, allowed: Iterable[str] = ()) -> None:
        self.path = path
        self.size_bytes = os.path.getsize(path)
        with Container.open(path) as container:
            self.head: dict[str, Any] = read_json(container, "format.json")
        self.content: Any = load(path, device, verify=False, allow_host_calls=None)
        for function in allowed:
            permit(function)

    @property
    def graphs(self) -> Loaded:
        """The content, which must be graphs.

        Raises:
            FileFormatError: the file holds tensors only.
        """
        if not isinstance(self.content, Loaded):
            raise FileFormatError(
                f"{self.path} holds tensors without graphs; `tracegraph info` lists them"
            )
        return self.content

    def entry(self, name: str | None) -> tuple[str, EntryPoint]:
        """Return an entry point with its name; without a name `forward`, or the only one.

        Raises:
            SignatureError: there is no such entry point, or several to choose from.
        """
        entries = self.graphs.entries
        if name is None:
            name = "forward" if "forward" in entries or len(entries) != 1 else next(iter(entries))
        if name in entries:
            return name, entries[name]
        raise SignatureError(
            f"{self.path} has no entry point {name!r}; name one of: {', '.join(entries)}"
        )
