"""What dispatch does with arrays: an op's kernel, on the device that its operands share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tracegraph.eager import modes
from tracegraph.eager.tensors import Tensor, type_of, xp_of
from tracegraph.errors import DeviceError, OpError, TraceGraphError
from tracegraph.ops.core import Op
from tracegraph.ops.heavy import natively
from tracegraph.ops.table import run_op
from tracegraph.tensor_type import TensorType


def operand_types(args: Sequence[Any]) -> list[TensorType]:
    """Types of operands; a Python scalar counts as a 0-d tensor of the first tensor's dtype."""
    dtype = next((type_of(a).dtype for a in args if isinstance(a, Tensor)), None)
    types = []
    for a in args:
        if isinstance(a, Tensor):
            types.append(type_of(a))
        elif a is not None:
            assert dtype is not None
            types.append(TensorType(dtype, ()))
    return types


def compute(
    op: Op, args: Sequence[Any], datas: list[Any], attrs: dict[str, Any], foreign: bool
) -> Any:
    """Return array(s): the kernel's result; errors name op and operand types."""
    if op.heavy:
        results = natively(op, datas, attrs, args)
        if results is not None:
            return results
    xp: Any = _common_xp(op, datas) if foreign else np
    kernel = op.kernel
    try:
        try:
            results = (
                run_op(op, xp, *datas, **attrs) if kernel is None else kernel(xp, *datas, **attrs)
            )
        except RuntimeWarning:
            with np.errstate(all="ignore"):
                results = run_op(op, xp, *datas, **attrs)
    except (TraceGraphError, IndexError, ZeroDivisionError, MemoryError):
        raise
    except Exception as error:
        op.infer(operand_types(args), attrs)
        shown = ", ".join(map(str, operand_types(args)))
        raise OpError(f"{op.name} failed on operands {shown}: {error}") from error
    if results.__class__ is np.ndarray:
        return results
    if results.__class__ is tuple or results.__class__ is list:
        return tuple([xp.asarray(r) for r in results])
    return np.asarray(results) if xp is np else results


def _common_xp(op: Op, datas: list[Any]) -> Any:
    """Return the array module of mixed operands; moves 0-d CPU operands beside GPU ones."""
    arrays = [d for d in datas if hasattr(d, "__array_interface__") or hasattr(d, "get")]
    if not arrays:
        return modes.XP.get()
    modules = {xp_of(d) for d in arrays}
    if len(modules) == 1:
        return modules.pop()
    gpu = next(x for x in modules if x is not np)
    for i, d in enumerate(datas):
        if isinstance(d, np.ndarray):
            if d.ndim:
                raise DeviceError(
                    f"{op.name}: expected all tensors to be on the same device, but found at "
                    "least two devices, cuda:0 and cpu! Move them with .to(device)"
                )
            datas[i] = gpu.asarray(d)
    return gpu
