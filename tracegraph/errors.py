"""The tree of errors that tracegraph raises.

Low layers raise the fact; the boundary (dispatch, verifier, loader) adds the op, the operand
types, the user's line and the remedy.
"""

from __future__ import annotations

from typing import Any


class TraceGraphError(Exception):
    """Base of every error that tracegraph raises on purpose."""


class OpError(TraceGraphError, RuntimeError):
    """An op was given operands that its type rule refuses. A `RuntimeError`, as in PyTorch."""


class OpIndexError(OpError, IndexError):
    """An index array names an element that does not exist."""


class SparseError(OpError):
    """A sparse tensor was given to what has no form for it; the message names it and the remedy."""

    def elsewhere(self, name: str, args: Any, kwargs: Any) -> Any:
        """Run the form for sparse tensors of a function that raised this, if there is one."""
        raise self


class DTypeError(OpError):
    """An op was given operands of a dtype that it does not accept."""


class LinAlgError(OpError):
    """A matrix has no such inverse or factorisation (singular, not positive definite)."""


class DeviceError(TraceGraphError, RuntimeError):
    """A device is missing, or operands live on different devices."""


class AutogradError(TraceGraphError, RuntimeError):
    """Differentiation was asked for where it cannot be done."""


class GraphError(TraceGraphError, ValueError):
    """A graph breaks a rule of the IR."""


class UndecidedError(GraphError):
    """An answer depends on sizes that are known only when a graph runs."""


class UnknownOpError(GraphError):
    """A file uses an op that is not known here, or another version of it."""


class ParseError(GraphError):
    """The text form of a graph cannot be read; the message names line and column."""


class TraceError(TraceGraphError, RuntimeError):
    """A function cannot be traced truthfully; the message names the line and the remedy."""


class BakeError(TraceError):
    """A value would leave the graph and be frozen: `if tensor:`, `item()`, `numpy()`, ..."""


class SelfCheckError(TraceError):
    """The function does other things when it is called again, which a replay would not."""


class SignatureError(TraceGraphError, TypeError):
    """A program was called with inputs that differ from its signature."""


class GuardError(TraceGraphError, RuntimeError):
    """Something that the trace relied on no longer holds."""


class UnseenPathError(GuardError):
    """A replay came to a branch that no example of the trace took; nothing was written."""


class SizesError(GuardError):
    """The sizes of the inputs are not such as the trace relied on; nothing was written."""


class FileFormatError(TraceGraphError, ValueError):
    """A file is damaged, hostile, of another format or of an unknown version."""


class StateError(TraceGraphError, RuntimeError):
    """State given to a program or module does not fit it."""
