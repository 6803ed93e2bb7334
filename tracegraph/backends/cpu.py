"""The CPU: what PyTorch asks about it, and whether eager code uses native kernels for large ops."""

from __future__ import annotations

from tracegraph.ops import heavy


def get_cpu_capability() -> str:
    """Return "DEFAULT": kernels are made for the CPU at hand."""
    return "DEFAULT"


class native_kernels:  # noqa: N801 (a switch, as `no_grad`)
    """Say whether large eager ops run as native code: from now on, or in a `with` block.

    It holds for all threads. TRACEGRAPH_EAGER_NATIVE=0 in the environment says no from the start.
    """

    def __init__(self, enabled: bool = True) -> None:
        self._before = heavy.scaled(1.0 if enabled else float("inf"))

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        heavy.scaled(self._before)
