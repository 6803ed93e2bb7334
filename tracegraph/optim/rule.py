"""RuleOptimizer: runs an update rule that is written once, eagerly and in traces.

A rule is elementwise arithmetic. `_prepare` gives the scalars of one step, `_update` the new
parameter and slots. Eager steps run it over pieces of the arrays that stay in the cache, traced
ones over Tensors. Both round at the same places, so a replay equals an eager step bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import Any, Final

import numpy as np

from tracegraph.api import pointwise
from tracegraph.api.complex_numbers import view_as_complex, view_as_real
from tracegraph.api.creation import full, zeros_like
from tracegraph.api.promotion import cast
from tracegraph.dtypes import BOOL_KIND, HALVES, DType, float32, float64, get_default_dtype
from tracegraph.eager import modes
from tracegraph.eager.dispatch import assign
from tracegraph.eager.storage import AbstractArray
from tracegraph.eager.tensors import Tensor, dtype_of_data, shell, storage_of, type_of, wrap
from tracegraph.errors import DTypeError
from tracegraph.optim.optimizer import Group, Optimizer

Scalars = SimpleNamespace

# Elements of a piece of a large array. Measured on 1.8 M parameters, Adam: 16 K take 6.0 ms, 128 K
# 4.4 ms (NumPy reuses temporaries from 256 KiB on), everything at once 6.0 ms (out of the cache).
_PIECE: Final = 1 << 17
# Elements of a parameter that a trace computes on as eager steps do.
_SMALL: Final = 1 << 14
_FUNCTIONS: Final = ("abs", "maximum", "minimum", "sign", "sqrt", "where")
_ON_ARRAYS: Final = SimpleNamespace(
    **{name: getattr(np, name) for name in _FUNCTIONS},
    add=lambda x, y: np.add(x, y, out=x),
    scale=lambda x, c: np.multiply(x, c, out=x),
)


def _choose(condition: Any, x: Any, y: Any) -> Any:
    """`where`, for a condition that may be a Python bool (a rule's scalars, outside of traces)."""
    if isinstance(condition, bool):
        return x if condition else y
    return pointwise.where(condition, x, y)


_ON_TENSORS: Final = SimpleNamespace(
    **{name: getattr(pointwise, name) for name in _FUNCTIONS if name != "where"},
    where=_choose,
    add=lambda x, y: x + y,
    scale=lambda x, c: x * c,
)
"""`m` of a rule. `add` and `scale` may overwrite their first operand: a parameter, a slot or an
intermediate result that the rule does not need any more, never the gradient."""


class RuleOptimizer(Optimizer):
    """An optimizer given by an elementwise rule.

    Slots are what `_layout` names: counters (0-d, like `step`) and arrays like the parameter. A
    rule that looks at whole tensors says `_elementwise = False` and always runs on Tensors.
    """

    _elementwise = True

    def __init__(self, params: Iterable[Any], **defaults: Any) -> None:
        super().__init__(params, defaults)

    def _layout(self, group: Group, p: Tensor) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the names of the counters and of the array slots of a group's parameters."""
        raise NotImplementedError

    def _initial(self, name: str, group: Group, p: Tensor) -> Tensor:
        """Return a slot as it is before the first step: zeros, for most rules."""
        counters, _ = self._layout(group, p)
        return counter(0.0) if name in counters else zeros_like(p, requires_grad=False)

    def _prepare(self, group: Group, count: Scalars) -> Scalars:
        """Return the scalars of one step and advance the counters.

        `count` holds each counter as a 0-d f64 tensor; the scalars are numbers or 0-d tensors.
        """
        raise NotImplementedError

    def _update(
        self, m: Any, group: Group, c: Scalars, p: Any, g: Any, *slots: Any
    ) -> tuple[Any, ...]:
        """Return the new parameter and array slots, from `m`'s functions and operators.

        Scalars of `c` meet arrays only: between themselves they are combined in `_prepare`, in
        float64, since here a trace has rounded them to the parameter's dtype already.
        """
        raise NotImplementedError

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters from their gradients; `closure` computes the loss again."""
        loss = self._loss_of(closure)
        differentiable = bool(self.defaults.get("differentiable"))
        token = modes.GRAD.set(differentiable)
        try:
            with np.errstate(all="ignore"):
                for group in self.param_groups:
                    self._step_group(group, differentiable)
        finally:
            modes.GRAD.reset(token)
        return loss

    def _step_group(self, group: Group, differentiable: bool) -> None:
        symbolic = differentiable or (modes.recording and modes.RECORDER.get() is not None)
        known: dict[Any, tuple[Scalars, tuple[Any, ...]]] = {}
        for p in group["params"]:
            if p._grad is None:
                continue
            counters, arrays = self._layout(group, p)
            state = self._slots(group, p)
            counts = [state[name] for name in counters]
            slots = [state[name] for name in arrays]
            if type_of(p).dtype.is_complex:
                p, *slots = self._as_pairs(p, slots)
            wide = _wide(p)
            if symbolic:
                key = (wide, *map(id, counts))
                if key not in known:
                    known[key] = self._symbolic(group, counters, counts, wide)
                c, after = known[key]
                for t, value in zip(counts, after, strict=True):
                    assign(t, cast(value, dtype_of_data(t._data)))
            else:
                numbers = tuple(t._data.item() for t in counts)
                key = (wide, *numbers)
                if key not in known:
                    known[key] = self._numbers(group, counters, numbers)
                c, after = known[key]
                for t, value in zip(counts, after, strict=True):
                    t._data[...] = value
                    storage_of(t).version += 1
            plain = self._arrays(p, slots) if self._elementwise else None
            if plain is None or differentiable or (symbolic and not _is_noted(p)):
                self._on_tensors(group, c, p, slots, wide)
                continue
            self._on_arrays(group, self._noted(group, c, p, slots, wide) if symbolic else c, plain)
            for t in (p, *slots):
                storage_of(t).version += 1

    def _as_pairs(self, p: Tensor, slots: Sequence[Tensor]) -> list[Tensor]:
        """Return views of a complex parameter and its slots as real numbers, as PyTorch has them.

        Raises:
            DTypeError: the rule looks at whole tensors, which views would change.
        """
        if not self._elementwise:
            raise DTypeError(f"{type(self).__name__} does not support complex parameters")
        pairs = [view_as_real(t) for t in (p, *slots)]
        assert p._grad is not None
        pairs[0]._grad = view_as_real(p._grad)
        return pairs

    def _slots(self, group: Group, p: Tensor) -> dict[str, Any]:
        """Return the state of a parameter with every slot in place."""
        state: dict[str, Any] = self.state[p]
        counters, arrays = self._layout(group, p)
        for name in (*counters, *arrays):
            value = state.get(name)
            if value is None:
                state[name] = self._fresh(name, group, p)
            elif not isinstance(value, Tensor):
                state[name] = counter(value)
        return state

    def _fresh(self, name: str, group: Group, p: Tensor) -> Tensor:
        """Return a slot before the first step; of a complex parameter, as of its parts."""
        counters, _ = self._layout(group, p)
        if name in counters or not type_of(p).dtype.is_complex:
            return self._initial(name, group, p)
        return view_as_complex(self._initial(name, group, view_as_real(p.detach())))

    def _symbolic(
        self, group: Group, names: Sequence[str], counts: Sequence[Tensor], wide: DType
    ) -> tuple[Scalars, tuple[Any, ...]]:
        """Return scalars and advanced counters as tensors, the scalars in the compute dtype."""
        count = Scalars(**{n: cast(t, float64) for n, t in zip(names, counts, strict=True)})
        c = self._prepare(group, count)
        for name, value in vars(c).items():
            if isinstance(value, Tensor) and dtype_of_data(value._data).kind != BOOL_KIND:
                setattr(c, name, cast(value, wide))
        return c, tuple(getattr(count, name) for name in names)

    def _numbers(
        self, group: Group, names: Sequence[str], counts: Sequence[float]
    ) -> tuple[Scalars, tuple[Any, ...]]:
        """Return scalars and advanced counters as Python numbers, by the arithmetic of a trace."""
        made = {n: wrap(np.asarray(v, np.float64)) for n, v in zip(names, counts, strict=True)}
        count = Scalars(**made)
        c = self._prepare(group, count)
        for name, value in vars(c).items():
            if isinstance(value, Tensor):
                setattr(c, name, value._data.item())
        return c, tuple(getattr(count, name)._data.item() for name in names)

    @staticmethod
    def _arrays(p: Tensor, slots: Sequence[Tensor]) -> list[Any] | None:
        """Return parameter, gradient and slots as arrays; None where they are not plain memory."""
        own = [p._data, *[t._data for t in slots]]
        gradient = p._grad._data  # type: ignore[union-attr]
        large = own[0].size > _PIECE
        for a in own:
            if a.__class__ is not np.ndarray or not a.flags.writeable:
                return None
            if large and not a.flags.c_contiguous:
                return None
        if gradient.__class__ is not np.ndarray:
            return None
        arrays = [own[0], gradient, *own[1:]]
        return [a.reshape(-1) for a in arrays] if large or not own[0].shape else arrays

    def _on_arrays(self, group: Group, c: Scalars, arrays: list[Any]) -> None:
        """Run the rule over arrays in place."""
        if arrays[0].size <= _PIECE:
            self._on_piece(group, c, arrays)
            return
        for start in range(0, arrays[0].size, _PIECE):
            self._on_piece(group, c, [a[start : start + _PIECE] for a in arrays])

    def _on_piece(self, group: Group, c: Scalars, pieces: list[Any]) -> None:
        """Run the rule over parameter, gradient and slots, and write the results to them."""
        targets = (pieces[0], *pieces[2:])
        if pieces[0].dtype.itemsize == 2:
            pieces = [a.astype(np.float32) for a in pieces]
        if group.get("maximize"):
            pieces[1] = -pieces[1]
        results = self._update(_ON_ARRAYS, group, c, *pieces)
        for target, value in zip(targets, results, strict=True):
            if value is not target:
                target[...] = value

    def _on_tensors(
        self, group: Group, c: Scalars, p: Tensor, slots: Sequence[Tensor], wide: DType
    ) -> None:
        """Run the rule over Tensors and write the results in place."""
        own = (p, *slots)
        for t, value in zip(own, self._results(group, c, p._grad, own, wide), strict=True):
            assign(t, cast(value, dtype_of_data(t._data)))

    def _noted(
        self, group: Group, c: Scalars, p: Tensor, slots: Sequence[Tensor], wide: DType
    ) -> Scalars:
        """Record the rule over Tensors without data, and that its results are written in place.

        Returns the scalars as numbers: arrays are to be written next. Large Tensors that compute
        would take several times the time, and fresh memory for each result.
        """
        recorder, own = modes.RECORDER.get(), (p, *slots)
        g, *operands = map(_abstract, (p._grad, *own))
        for t, value in zip(own, self._results(group, c, g, operands, wide), strict=True):
            new = cast(value, dtype_of_data(t._data))
            recorder.before_write(t)
            recorder.write(t, new)
        return Scalars(
            **{n: v._data.item() if isinstance(v, Tensor) else v for n, v in vars(c).items()}
        )

    def _results(
        self, group: Group, c: Scalars, gradient: Any, own: Sequence[Tensor], wide: DType
    ) -> tuple[Any, ...]:
        """Return the new parameter and slots, of Tensors."""
        g: Any = cast(gradient, wide)
        if group.get("maximize"):
            g = -g
        operands = [cast(t, wide) for t in own]
        return self._update(_ON_TENSORS, group, c, operands[0], g, *operands[1:])

    def __tracegraph_materialize__(self) -> None:
        """Make every slot that the first step would make, as it is before that step."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.requires_grad:
                    self._slots(group, p)


def _is_noted(p: Tensor) -> bool:
    """Whether a trace notes what a rule does to a parameter, and arrays do it."""
    recorder = modes.RECORDER.get()
    if p._chain or recorder is None:
        return False
    return bool(p._data.size > _SMALL and recorder.kept is None)


def _abstract(t: Any) -> Tensor:
    """Return a Tensor without data that a trace takes for `t`."""
    other = shell(t)
    other._data = AbstractArray(type_of(t))
    return other


def _wide(p: Tensor) -> DType:
    """Return the dtype that a rule computes in: 16-bit floats are updated in float32."""
    dtype = dtype_of_data(p._data)
    return float32 if dtype in HALVES else dtype


def counter(value: float) -> Tensor:
    """Return a 0-d counter as PyTorch keeps it: float32, float64 where that is the default."""
    dtype = float64 if get_default_dtype() is float64 else float32
    return full((), float(value), dtype=dtype)


def check_not_negative(**values: Any) -> None:
    """Refuse negative hyper-parameters.

    Raises:
        ValueError: naming the first one.
    """
    for name, value in values.items():
        if not isinstance(value, Tensor) and not value >= 0:
            raise ValueError(f"Invalid {name}: {value} is negative")


def check_betas(betas: Sequence[Any]) -> None:
    """Refuse decay rates outside [0, 1).

    Raises:
        ValueError: naming the first one.
    """
    for i, beta in enumerate(betas):
        if not isinstance(beta, Tensor) and not 0 <= beta < 1:
            raise ValueError(f"Invalid beta parameter at index {i}: {beta}")
