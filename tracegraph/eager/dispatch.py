"""The one place that every op passes: compute, keep views in step, tell the tape, tell the trace.

Also the one place for writes: `assign` puts a result into a tensor's memory and keeps the history
(and the trace) of every tensor that shares it right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, Final

import numpy as np

from tracegraph.dims.shapes import hints
from tracegraph.dims.symint import SymInt, traces_sizes
from tracegraph.dtypes import FLOAT_KIND, DType, int64
from tracegraph.eager import modes
from tracegraph.eager.computing import compute, operand_types
from tracegraph.eager.storage import AbstractArray, Storage, bare, extended, sized
from tracegraph.eager.tape import AccumulateGrad, record_node
from tracegraph.eager.tensors import (
    Tensor,
    count_write,
    dtype_of_data,
    lineage_of,
    shell,
    storage_of,
    type_of,
    type_of_data,
    wrap,
    xp_of,
)
from tracegraph.errors import AutogradError, OpError, TraceError
from tracegraph.ops.core import Op
from tracegraph.ops.strided import overlaps
from tracegraph.ops.table import OPS

_OVERWRITE: Final = OPS["overwrite"]
_OVERWRITE_VIEW: Final = OPS["overwrite_view"]
_RESHAPE: Final = OPS["reshape"]
# Views of what lies in row-major order; of other memory they are copies.
_ROW_MAJOR: Final = (_RESHAPE, OPS["strided"])
_COPY: Final = OPS["copy"]
_DETACHED: Final = (OPS["detach"], ())


def dispatch(op: Op, args: Sequence[Any], attrs: dict[str, Any]) -> Any:
    """Run an op on Tensors (Python scalars may stand for 0-d operands); returns Tensor(s).

    Raises:
        OpError: operands that the op refuses; the sentence names op and operand types.
    """
    datas: list[Any] = []
    history = foreign = False
    for a in args:
        if isinstance(a, Tensor):
            data = a._data
            datas.append(data)
            if data.__class__ is not np.ndarray:
                foreign = True
            if a._lineage is not None:
                refresh(a)
            if a._node is not None:
                history = True
        else:
            datas.append(a)
    if foreign and any(d.__class__ is AbstractArray for d in datas):
        results: Any = tuple(map(AbstractArray, op.infer(operand_types(args), attrs)))
        if len(op.results) == 1 and len(results) == 1:
            results = results[0]
    elif modes.recording and _is_sized(op):
        return _sized(op, args, attrs, history)
    else:
        results = compute(op, args, datas, attrs, foreign or not datas)
        if op.view:
            return _finish(op, args, attrs, [_view(op, args[0], attrs, results)], history)
    if results.__class__ is tuple:
        outs = [wrap(r) for r in results]
        _finish(op, args, attrs, outs, history)
        return tuple(outs)
    return _finish(op, args, attrs, [wrap(results)], history)


def _is_sized(op: Op) -> bool:
    """Whether a trace in this context has symbolic sizes, or gets one by this op."""
    if op.counted:
        return modes.RECORDER.get() is not None
    return bool(modes.sizes) and traces_sizes()


def _sized(op: Op, args: Sequence[Any], attrs: dict[str, Any], history: bool) -> Any:
    """As `dispatch`, in a trace with symbolic sizes: kernels get hints, types keep the symbols."""
    if any(a.__class__ is SymInt for a in args):
        dtype = next((type_of(a).dtype for a in args if isinstance(a, Tensor)), int64)
        args = [size_tensor(a, dtype) if a.__class__ is SymInt else a for a in args]
        history = history or any(isinstance(a, Tensor) and a._node is not None for a in args)
    datas = [bare(a._data) if isinstance(a, Tensor) else a for a in args]
    if not op.counted:  # the rule first: its sentences are about the symbolic sizes
        types = op.infer(operand_types(args), attrs)
    results = compute(op, args, datas, {name: hints(v) for name, v in attrs.items()}, True)
    arrays = results if results.__class__ is tuple else (results,)
    if op.counted:
        if attrs["count"] == -1:
            found = modes.RECORDER.get().sizes.found(op.name, arrays[-1].shape[0])
            attrs = {**attrs, "count": found}
        types = op.infer(operand_types(args), attrs)
    for known, array in zip(types, arrays, strict=True):
        if hints(known.shape) != array.shape:
            raise TraceError(f"{op.name} gave {array.shape} where its type rule says {known}")
    made = list(map(sized, types, arrays))
    if op.view:
        return _finish(op, args, attrs, [_view(op, args[0], attrs, made[0])], history)
    outs = list(map(wrap, made))
    first = _finish(op, args, attrs, outs, history)
    return tuple(outs) if results.__class__ is tuple else first


def size_tensor(size: Any, dtype: DType) -> Tensor:
    """Return a symbolic size as a 0-d tensor."""
    value: Tensor = dispatch(OPS["dim_value"], (), {"value": size})
    if dtype is not int64:
        value = dispatch(OPS["cast"], (value,), {"dtype": dtype})
    return value


def _finish(
    op: Op, args: Sequence[Any], attrs: dict[str, Any], outs: list[Tensor], history: bool
) -> Tensor:
    """Tell the tape and the trace; returns the first result."""
    recorder = modes.RECORDER.get() if modes.recording else None
    loc = None if recorder is None else recorder.here()
    if history and op.differentiable and modes.GRAD.get() and _carries_gradient(outs):
        record_node(op, args, attrs, outs, loc)
    if recorder is not None:
        recorder.record(op, args, attrs, outs, loc)
    return outs[0]


def _carries_gradient(outs: Sequence[Tensor]) -> bool:
    return len(outs) > 1 or dtype_of_data(outs[0]._data).kind >= FLOAT_KIND


def _view(op: Op, source: Tensor, attrs: dict[str, Any], array: Any) -> Tensor:
    """Return the result of a view op as a Tensor that shares storage and lineage with `source`."""
    out = wrap(array)
    if op in _ROW_MAJOR and not _shares(bare(source._data), bare(array)):
        if op is not _RESHAPE:
            lock(array)
        return out
    storage = source._storage
    if storage is None:
        storage = storage_of(source)
    lineage = source._lineage
    if lineage is None:
        lineage = lineage_of(source)
    out._storage = storage
    out._chain = extended(source._chain, lineage.depth, op, attrs)
    out._lineage = lineage
    out._seen = lineage.version
    return out


def lock(array: Any) -> None:
    """Refuse writes to a copy that would be a view in PyTorch: they would be lost."""
    array = bare(array)
    if array.__class__ is np.ndarray:
        array.flags.writeable = False


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
    base = wrap(AbstractArray(type_of_data(lineage.base)))
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
            f"output with shape {list(t.shape)} doesn't match the broadcast shape {list(new.shape)}"
        )
    check_writable(t)
    if modes.recording:
        recorder = modes.RECORDER.get()
        if recorder is not None:
            recorder.before_write(t)
    if t._data.__class__ is not AbstractArray:
        put(t._data, new._data)
    return wrote(t, new)


def set_aside(old: Tensor | None) -> None:
    """Give a shell that the tape keeps (None if it does not) its own copy of what it holds.

    To be called before the memory is overwritten with what was computed from the shell.
    """
    if old is None or old._data.__class__ is AbstractArray:
        return
    recorder = modes.RECORDER.get() if modes.recording else None
    value = None if recorder is None else recorder.value_of(old)
    version = storage_of(old).version
    old._data = old._data.copy()
    old._storage, old._chain, old._lineage = Storage(old._data), (), None
    old._storage.version = version
    if recorder is not None:
        recorder.bind(old, value)


def passed_on(t: Tensor, target: Tensor) -> Tensor:
    """Return a shell of a Tensor with a node of its own, for `assign` to `target`.

    Without it the target would share the node, and hooks on it would act on `t`. What a target
    was that is overwritten as a whole gets a gradient of zeros; parts get it by `write_back`.
    """
    other = shell(t)
    other._lineage = None
    if t._lineage is not None:
        refresh(t)
    if t._node is None or not modes.GRAD.get():
        return other
    refresh(target)
    lineage = target._lineage
    whole = lineage is None or bare(lineage.base).size == bare(target._data).size
    if whole and target._node is not None:
        record_node(_overwriting(target), (shell(target), t), {}, (other,))
    else:
        record_node(_COPY, (t,), {}, (other,))
    return other


def alias(t: Tensor, source: Tensor) -> Tensor:
    """Let a tensor without history stand for the memory of `source`; a trace notes the difference.

    In a trace it is a view by `detach`: reads end gradients, writes leave them as they are.
    """
    t._storage, t._chain = storage_of(source), source._chain
    recorder = modes.RECORDER.get() if modes.recording else None
    if recorder is not None:
        recorder.value_of(source)
        if type_of(source).dtype.kind >= FLOAT_KIND and t._chain[-1:] != (_DETACHED,):
            t._chain = (*t._chain, _DETACHED)
    return t


def put(target: Any, source: Any) -> None:
    """Copy array to array, refusing memory that several elements share."""
    target, source = bare(target), bare(source)
    if target.__class__ is np.ndarray and source.__class__ is np.ndarray:
        if target.size and (not target.flags.writeable or _overlaps_itself(target)):
            _refuse_shared(target)
        if target is not source and target.size:
            np.copyto(target, source, casting="unsafe")
    else:
        target[...] = xp_of(target).asarray(source)


def _overlaps_itself(array: Any) -> bool:
    return any(s == 0 and n > 1 for s, n in zip(array.strides, array.shape, strict=True))


def _refuse_shared(array: Any) -> None:
    if overlaps(array.shape, array.strides):
        raise OpError(
            "unsupported operation: more than one element of the written-to tensor refers to a "
            "single memory location. Please clone() the tensor before performing the operation."
        )
    raise OpError(
        "the tensor is a part of expanded memory, a copy that stands for a view of memory in "
        "another order, or a read-only NumPy array; clone() it first"
    )


def wrote(t: Tensor, new: Tensor) -> Tensor:
    """Note that the memory of `t` now holds `new`: version, history, trace."""
    count_write(t)
    if modes.GRAD.get():
        if t._lineage is not None:
            refresh(t)
        if new._node is not None or t._node is not None:
            rebase(t, new)
    if modes.recording:
        recorder = modes.RECORDER.get()
        if recorder is not None:
            recorder.write(t, new)
    return t


def _overwriting(t: Tensor) -> Op:
    """Return what the tape has for a write of all of a tensor."""
    lineage = t._lineage
    is_view = lineage is not None and len(t._chain) > lineage.depth
    return _OVERWRITE_VIEW if is_view else _OVERWRITE


def rebase(t: Tensor, new: Tensor) -> None:
    """Give `t`, and all that views the same base, the history of `new`."""
    if new._node is None:
        whole = wrap(new._data)
        record_node(_overwriting(t), (shell(t), new), {}, (whole,))
        assert whole._node is not None
        whole._node.rest = [None, new]
        new = whole
    lineage = t._lineage
    if lineage is None:
        t._node, t._index = new._node, new._index
        return
    steps = t._chain[lineage.depth :]
    base = wrap(AbstractArray(type_of_data(lineage.base)))
    base._node, base._index = lineage.node, lineage.index
    stages = _follow(base, steps[:-1]) if steps else [base]
    value = wrap(AbstractArray(type_of(new)))
    value._node, value._index = new._node, new._index
    token = modes.push_recorder(None)
    try:
        for stage, (op, items) in zip(reversed(stages), reversed(steps), strict=False):
            assert op.write_back is not None
            value = op.write_back(front, stage, value, **dict(items))
    finally:
        modes.pop_recorder(token)
    lineage.node, lineage.index = value._node, value._index
    lineage.version += 1
    t._node, t._index, t._seen = new._node, new._index, lineage.version


def bound(op: Op) -> Callable[..., Any]:
    """Return `f(*operands, **attrs)` for an op, on Tensors."""

    def call(*args: Any, **attrs: Any) -> Any:
        return dispatch(op, args, attrs)

    call.__name__ = op.name
    call.__doc__ = op.doc
    return call


front: Final = SimpleNamespace(**{name: bound(op) for name, op in OPS.items()})
"""`m` of gradient rules and of the API: every op of the table, on Tensors."""
