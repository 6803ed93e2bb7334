"""`torch._foreach_*`: one method over lists of tensors, as optimizers are written with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from tracegraph.eager.tensors import Tensor

_METHODS: Final = """
abs add addcdiv addcmul ceil clamp_max clamp_min cos div erf exp expm1 floor frac lerp log log10
log1p log2 maximum minimum mul neg pow reciprocal round rsqrt sigmoid sign sin sqrt sub tan tanh
trunc
"""


def _at(argument: Any, place: int) -> Any:
    """The argument for one tensor: a list gives its element, all else is for every tensor."""
    return argument[place] if isinstance(argument, (list, tuple)) else argument


def _over_lists(method: str) -> Callable[..., Any]:
    def function(self: Sequence[Tensor], *arguments: Any, **options: Any) -> Any:
        if method.startswith("addc") and len(arguments) == 3:  # the factor is a keyword there
            options["value"] = arguments[2]
            arguments = arguments[:2]
        results = [
            getattr(x, method)(
                *(_at(a, i) for a in arguments), **{k: _at(v, i) for k, v in options.items()}
            )
            for i, x in enumerate(self)
        ]
        return None if method.endswith("_") else results

    function.__name__ = f"_foreach_{method}"
    function.__doc__ = f"Call `{method}` of every tensor in a list."
    return function


_BOTH = [name for method in _METHODS.split() for name in (method, method + "_")]

FOREACH: Final[dict[str, Callable[..., Any]]] = {
    f"_foreach_{method}": _over_lists(method) for method in (*_BOTH, "norm", "zero_")
}
"""The functions by their names."""
