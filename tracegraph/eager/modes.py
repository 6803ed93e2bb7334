"""What is switched on in the current context: gradient recording and tracing.

Both are context variables, so they are private to a thread or task. `recording` counts the
recorders active anywhere: eager ops test that plain integer before they read a context variable.
"""

from __future__ import annotations

import threading
from contextvars import ContextVar
from typing import Any, Final

import numpy as np

GRAD: Final[ContextVar[bool]] = ContextVar("grad", default=True)
INFERENCE: Final[ContextVar[bool]] = ContextVar("inference", default=False)
RECORDER: Final[ContextVar[Any]] = ContextVar("recorder", default=None)
XP: Final[ContextVar[Any]] = ContextVar("xp", default=np)

recording = 0
sizes = 0  # traces anywhere whose dims are symbolic; dispatch tests it as eager ops do `recording`
_lock: Final = threading.Lock()


def push_recorder(recorder: Any) -> Any:
    """Make `recorder` (or None, to pause) the active one; returns the token for `pop_recorder`."""
    global recording
    with _lock:
        recording += 1
    return RECORDER.set(recorder)


def count_sizes(step: int) -> None:
    """Note that a trace with symbolic dims begins (1) or ends (-1)."""
    global sizes
    with _lock:
        sizes += step


def pop_recorder(token: Any) -> None:
    """Undo `push_recorder`."""
    global recording
    with _lock:
        recording -= 1
    RECORDER.reset(token)
