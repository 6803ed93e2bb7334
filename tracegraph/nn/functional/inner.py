"""What PyTorch's layers call inside, for programs with a changed copy of such a layer."""

from __future__ import annotations

import math
import warnings
from typing import Any

from tracegraph.api.creation import zeros_like
from tracegraph.dtypes import DType, bool_
from tracegraph.eager.tensors import Tensor, type_of
from tracegraph.errors import OpError
from tracegraph.nn.functional.attention import _project
from tracegraph.nn.functional.dense import linear
from tracegraph.nn.functional.losses import reduction_named


def _none_or_dtype(input: Tensor | None) -> DType | None:
    """Return the dtype of a tensor, None of None.

    Raises:
        OpError: it is something else.
    """
    if input is None:
        return None
    if isinstance(input, Tensor):
        return type_of(input).dtype
    raise OpError("input to _none_or_dtype() must be None or torch.Tensor")


def _canonical_mask(
    mask: Tensor | None, mask_name: str, other_type: DType | None, other_name: str,
    target_type: DType, check_other: bool = True,
) -> Tensor | None:  # fmt: skip
    """Return a mask that is added to scores: −inf where a bool mask is true.

    Raises:
        AssertionError: the mask is neither bool nor floating.
    """
    if mask is None:
        return None
    dtype = type_of(mask).dtype
    if dtype is not bool_ and not dtype.is_floating_point:
        raise AssertionError(f"only bool and floating types of {mask_name} are supported")
    if check_other and other_type is not None and dtype is not other_type:
        warnings.warn(
            f"Support for mismatched {mask_name} and {other_name} is deprecated. Use same type "
            "for both instead.",
            stacklevel=2,
        )
    if dtype is not bool_:
        return mask
    blank: Tensor = zeros_like(mask, dtype=target_type).masked_fill(mask, -math.inf)
    return blank


def _in_projection_packed(
    q: Tensor, k: Tensor, v: Tensor, w: Tensor, b: Tensor | None = None
) -> list[Tensor]:
    """Return query, key and value projected with one packed weight [3·E, E]."""
    return _project(q, k, v, w, b, ())


def _in_projection(
    q: Tensor, k: Tensor, v: Tensor, w_q: Tensor, w_k: Tensor, w_v: Tensor,
    b_q: Tensor | None = None, b_k: Tensor | None = None, b_v: Tensor | None = None,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Return query, key and value projected with a weight each."""
    return linear(q, w_q, b_q), linear(k, w_k, b_k), linear(v, w_v, b_v)


class _Reduction:
    """How a loss is reduced, as PyTorch's enumeration numbers it."""

    @staticmethod
    def get_enum(reduction: str) -> int:
        """Return 0 for "none", 1 for "mean", 2 for "sum".

        Raises:
            ValueError: another name.
        """
        if reduction == "elementwise_mean":
            reduction = "mean"
        names = ("none", "mean", "sum")
        if reduction not in names:
            raise ValueError(f"{reduction} is not a valid value for reduction")
        return names.index(reduction)

    @staticmethod
    def legacy_get_string(size_average: Any, reduce: Any, emit_warning: bool = True) -> str:
        """Return the reduction that the two flags of old mean."""
        return reduction_named(
            size_average is None or size_average, reduce is None or reduce, "mean"
        )

    @classmethod
    def legacy_get_enum(cls, size_average: Any, reduce: Any, emit_warning: bool = True) -> int:
        """Return the number of the reduction that the two flags of old mean."""
        return cls.get_enum(cls.legacy_get_string(size_average, reduce, emit_warning))
