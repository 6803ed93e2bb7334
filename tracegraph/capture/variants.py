"""Variants: the Python arguments and modes (train, eval) that the paths of a graph belong to.

They are told apart before the graph runs, since strings and modules' modes are no tensors. A
graph of several variants takes the number of the one that a call belongs to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from tracegraph.errors import GuardError, SignatureError, UnseenPathError

VARIANT: Final = "trace.variant"
"""The name of the input that numbers the variant."""


class Variant(NamedTuple):
    """Values of the Python arguments that differ between variants, and modes of modules.

    `modes`: path -> (the module, None in a loaded file; whether it was in train mode).
    """

    scalars: dict[str, Any]
    modes: dict[str, tuple[Any, bool]]

    @property
    def mode(self) -> bool | None:
        """The mode of the outermost module, None if there is none."""
        return next((flag for _, flag in self.modes.values()), None)

    def fits(self, scalars: Mapping[str, Any]) -> bool:
        """Whether a call has these Python arguments."""
        return all(is_same(v, scalars[n]) for n, v in self.scalars.items())

    def moved(self, mode: bool | None) -> str | None:
        """Name a module that is not in the mode of this variant; `mode` is a file's own mode."""
        for path, (module, flag) in self.modes.items():
            if module is not None and module.training != flag:
                return path
            if module is None and mode is not None and self.mode != mode:
                return path
        return None


def is_same(a: Any, b: Any) -> bool:
    """Whether two Python arguments are the same for a trace: 1, 1.0 and True are not."""
    return type(a) is type(b) and a == b


def choose(variants: Sequence[Variant], scalars: Mapping[str, Any], mode: bool | None) -> int:
    """Return which variant a call belongs to.

    Raises:
        UnseenPathError: no example had these Python arguments.
        GuardError: no example was traced in the mode that the modules are in.
    """
    if len(variants) == 1 and not variants[0].scalars and variants[0].moved(mode) is None:
        return 0
    fitting = [i for i, v in enumerate(variants) if v.fits(scalars)]
    if not fitting:
        given = {n: scalars[n] for n in variants[0].scalars}
        known = "; ".join(str(v.scalars) for v in variants)
        raise UnseenPathError(
            f"no example of the trace had the arguments {given}; traced were {known}. Trace this "
            "too: traced.add_example(*inputs), or trace(..., more_examples=[inputs])"
        )
    for number in fitting:
        if variants[number].moved(mode) is None:
            return number
    path = variants[fitting[0]].moved(mode)
    assert path is not None
    flag = variants[fitting[0]].modes[path][1]
    was, now = ("train", "eval") if flag else ("eval", "train")
    raise GuardError(
        f"module {path or 'self'!r} was in {was} mode when it was traced and is in {now} mode now; "
        f"call .{was}() first, or trace this mode too: traced.add_example(*inputs)"
    )


def check_value(name: str, wanted: Any, got: Any) -> None:
    """Refuse another value of a Python argument than all examples had.

    Raises:
        SignatureError: naming the argument, both values and the remedy.
    """
    if not is_same(wanted, got):
        raise SignatureError(
            f"argument {name}: the trace was made for the value {wanted!r}, got {got!r}; trace "
            "that value too: traced.add_example(*inputs), or pass a tensor"
        )
