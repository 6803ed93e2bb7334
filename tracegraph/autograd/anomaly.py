"""PyTorch's anomaly mode by name. An error of a gradient rule names its op without it."""

from __future__ import annotations

from typing import Any


class _Mode:
    enabled = False
    check_nan = True


class set_detect_anomaly:  # noqa: N801
    """Say whether anomalies are looked for; as a context manager, until it ends.

    What is said is kept and given back: gradients are not searched for NaN.
    """

    def __init__(self, mode: bool, check_nan: bool = True) -> None:
        self._before = (_Mode.enabled, _Mode.check_nan)
        _Mode.enabled, _Mode.check_nan = bool(mode), bool(check_nan)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc: object) -> None:
        _Mode.enabled, _Mode.check_nan = self._before


class detect_anomaly(set_detect_anomaly):  # noqa: N801
    """`set_detect_anomaly(True)` for a `with` statement."""

    def __init__(self, check_nan: bool = True) -> None:
        self._wanted = check_nan

    def __enter__(self) -> None:
        super().__init__(True, self._wanted)


def is_anomaly_enabled() -> bool:
    """Whether the program asked to look for anomalies."""
    return _Mode.enabled


def is_anomaly_check_nan_enabled() -> bool:
    """Whether it also asked to look for NaN."""
    return _Mode.check_nan


def set_anomaly_enabled(mode: Any, check_nan: bool = True) -> None:
    """Say whether anomalies are looked for."""
    _Mode.enabled, _Mode.check_nan = bool(mode), bool(check_nan)
