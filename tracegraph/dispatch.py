"""The one place that every op passes: compute, keep views in step, tell the tape, tell the trace.

Also the one place for writes: `assign` puts a result into a tensor's memory and keeps the history
(and the trace) of every tensor that shares it right.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, Final

import numpy as np

from tracegraph import modes
from tracegraph.dtypes import FLOAT_KIND
from tracegraph.errors import AutogradError, DeviceError, OpError, TraceGraphError
from tracegraph.ops.core import VIEW, Op
from tracegraph.ops.table import OPS, run_op
from tracegraph.storage import AbstractArray
from tracegraph.tape import AccumulateGrad, record_node
from tracegraph.tensors import (
    Tensor,
    lineage_of,
    shell,
    storage_of,
    type_of,
    wrap,
    xp_of,
)
from tracegraph.tensor_type import TensorType

_OVERWRITE: Final = OPS["overwrite"]


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


def dispatch(op: Op, args: Sequence[Any], attrs: dict[str, Any]) -> Any:
    """Run an op on Tensors (Python scalars may stand for 0-d operands); returns Tensor(s).

    Raises:
        OpError: operands that the op refuses; the sentence names op and operand types.
    """
    datas: list[Any] = []
    history = abstract = False
    for a in args:
        if isinstance(a, Tensor):
            data = a._data
            datas.append(data)
            if data.__class__ is AbstractArray:
                abstract = True
            if a._lineage is not None:
                refresh(a)
            if a._node is not None:
                history = True
        else:
            datas.append(a)
    if abstract:
        results: Any = tuple(map(AbstractArray, op.infer(operand_types(args), attrs)))
        if len(op.results) == 1 and len(results) == 1:
            results = results[0]
    else:
        results = _compute(op, args, datas, attrs)
    several = results.__class__ is tuple or results.__class__ is list
    outs = [wrap(r) for r in results] if several else [wrap(results)]
    if VIEW in op.traits and not abstract:
        _note_view(op, args[0], attrs, outs[0])
    recorder = modes.RECORDER.get() if modes.recording else None
    if history and op.differentiable and modes.GRAD.get() and _carries_gradient(outs):
        record_node(op, args, attrs, outs, None if recorder is None else recorder.here())
        if outs[0]._lineage is not None and len(outs) == 1:
            outs[0]._seen = outs[0]._lineage.version
    if recorder is not None:
        recorder.record(op, args, attrs, outs)
    return tuple(outs) if several else outs[0]


def _carries_gradient(outs: Sequence[Tensor]) -> bool:
    return len(outs) > 1 or type_of(outs[0]).dtype.kind == FLOAT_KIND


def _compute(op: Op, args: Sequence[Any], datas: list[Any], attrs: dict[str, Any]) -> Any:
    first = next((d for d in datas if d.__class__ is np.ndarray), None)
    xp: Any = np
    if first is None or not all(d.__class__ is np.ndarray for d in datas):
        xp = _common_xp(op, datas)
    try:
        try:
            results = run_op(op, xp, *datas, **attrs)
        except RuntimeWarning:
            with np.errstate(all="ignore"):
                results = run_op(op, xp, *datas, **attrs)
    except (TraceGraphError, ZeroDivisionError, MemoryError):
        raise
    except Exception as error:
        op.infer(operand_types(args), attrs)
        shown = ", ".join(map(str, operand_types(args)))
        raise OpError(f"{op.name} failed on operands {shown}: {error}") from error
    if xp is np:
        if results.__class__ is tuple or results.__class__ is list:
            return tuple(np.asarray(r) for r in results)
        if results.__class__ is not np.ndarray:
            return np.asarray(results)
    return results


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


def _note_view(op: Op, source: Tensor, attrs: dict[str, Any], out: Tensor) -> None:
    if op.name == "reshape" and not _shares(source._data, out._data):
        return
    out._storage = storage_of(source)
    out._chain = (*source._chain, (op, tuple(attrs.items())))
    out._lineage = lineage_of(source)
    out._seen = out._lineage.version


def _shares(x: Any, y: Any) -> bool:
    if x.flags.c_contiguous:
        return True
    if isinstance(x, np.ndarray):
        return np.may_share_memory(x, y)
    return bool(x.data.ptr == y.data.ptr and x.size)


def refresh(t: Tensor) -> None:
    """Bring the history of a Tensor up to date after writes through other views of its memory."""
    lineage = t._lineage
    if lineage is None or lineage.version == t._seen:
        return
    base = wrap(AbstractArray(lineage.base))
    base._node, base._index = lineage.node, lineage.index
    fresh = _follow(base, t._chain[lineage.depth :])
    t._node, t._index = fresh[-1]._node, fresh[-1]._index
    t._seen = lineage.version


def _follow(base: Tensor, steps: Sequence[Any]) -> list[Tensor]:
    """Apply view steps to an abstract base, on the tape only; returns every stage."""
    stages = [base]
    token, grad = modes.push_recorder(None), modes.GRAD.set(True)
    try:
        for op, items in steps:
            stages.append(dispatch(op, (stages[-1],), dict(items)))
    finally:
        modes.GRAD.reset(grad)
        modes.pop_recorder(token)
    return stages


def check_writable(t: Tensor) -> None:
    """Refuse a write that autograd cannot follow.

    Raises:
        AutogradError: `t` is a leaf that requires a gradient, or a view of one.
    """
    if not modes.GRAD.get():
        return
    if t._lineage is not None:
        refresh(t)
        if (
            t._lineage.node.__class__ is AccumulateGrad
            and len(t._chain) > t._lineage.depth
            and t._node is not None
        ):
            raise AutogradError(
                "a view of a leaf Variable that requires grad is being used in an in-place "
                "operation."
            )
    if t._node.__class__ is AccumulateGrad:
        raise AutogradError(
            "a leaf Variable that requires grad is being used in an in-place operation."
        )


def assign(t: Tensor, new: Tensor) -> Tensor:
    """Overwrite the memory of `t` with `new` (same shape and dtype), history and trace included.

    `new` was computed out of place, from `shell(t)` where it depends on `t`.

    Raises:
        AutogradError: see `check_writable`.
        OpError: shapes differ, or `t` is expanded memory.
    """
    if t._data.shape != new._data.shape:
        raise OpError(
            f"output with shape {list(t.shape)} doesn't match the broadcast shape "
            f"{list(new.shape)}"
        )
    check_writable(t)
    if modes.recording:
        recorder = modes.RECORDER.get()
        if recorder is not None:
            recorder.before_write(t)
    if t._data.__class__ is not AbstractArray:
        put(t._data, new._data)
    return wrote(t, new)


def put(target: Any, source: Any) -> None:
    """Copy array to array, refusing memory that several elements share."""
    if target.__class__ is np.ndarray and source.__class__ is np.ndarray:
        if not target.flags.writeable or _overlaps_itself(target):
            _refuse_shared(target)
        if target is not source:
            np.copyto(target, source, casting="unsafe")
    else:
        target[...] = xp_of(target).asarray(source)


def _overlaps_itself(array: Any) -> bool:
    return any(s == 0 and n > 1 for s, n in zip(array.strides, array.shape, strict=True))


def _refuse_shared(array: Any) -> None:
    if _overlaps_itself(array):
        raise OpError(
            "unsupported operation: more than one element of the written-to tensor refers to a "
            "single memory location. Please clone() the tensor before performing the operation."
        )
    raise OpError("the tensor shares memory with a read-only NumPy array; clone() it first")


def wrote(t: Tensor, new: Tensor) -> Tensor:
    """Note that the memory of `t` now holds `new`: version, history, trace."""
    storage_of(t).version += 1
    if modes.GRAD.get():
        if t._lineage is not None:
            refresh(t)
        if new._node is not None or t._node is not None:
            _rebase(t, new)
    if modes.recording:
        recorder = modes.RECORDER.get()
        if recorder is not None:
            recorder.write(t, new)
    return t


def _rebase(t: Tensor, new: Tensor) -> None:
    """Give `t`, and all that views the same base, the history of `new`."""
    if new._node is None:
        whole = wrap(new._data)
        record_node(_OVERWRITE, (shell(t), new), {}, (whole,))
        new = whole
    lineage = t._lineage
    if lineage is None:
        t._node, t._index = new._node, new._index
        return
    steps = t._chain[lineage.depth :]
    base = wrap(AbstractArray(lineage.base))
    base._node, base._index = lineage.node, lineage.index
    stages = _follow(base, steps[:-1]) if steps else [base]
    value = wrap(AbstractArray(type_of(new)))
    value._node, value._index = new._node, new._index
    token = modes.push_recorder(None)
    try:
        for stage, (op, items) in zip(reversed(stages), reversed(steps), strict=False):
            value = op.write_back(front, stage, value, **dict(items))
    finally:
        modes.pop_recorder(token)
    lineage.node, lineage.index = value._node, value._index
    lineage.version += 1
    t._node, t._index, t._seen = new._node, new._index, lineage.version


def _call(op: Op, *args: Any, **attrs: Any) -> Any:
    return dispatch(op, args, attrs)


front: Final = SimpleNamespace(**{name: partial(_call, op) for name, op in OPS.items()})
"""`m` of gradient rules and of the API: every op of the table, on Tensors."""
