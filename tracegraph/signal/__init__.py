"""Signal processing, as `torch.signal`."""

from tracegraph.signal import windows

__all__ = ["windows"]
