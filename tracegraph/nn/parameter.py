"""Parameter and Buffer: tensors that a Module registers when they are assigned to it."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracegraph.api import creation
from tracegraph.devices import module_of, parse_device
from tracegraph.dtypes import dtype_of, get_default_dtype
from tracegraph.eager import printing
from tracegraph.eager.conversion import leave_graph
from tracegraph.eager.dispatch import alias
from tracegraph.eager.engine import clone
from tracegraph.eager.tape import make_leaf
from tracegraph.eager.tensors import Size, Tensor, _allocate, _clear, wrap
from tracegraph.errors import OpError, SparseError


def _over(cls: type[Tensor], data: Any) -> Any:
    """Return a tensor of class `cls` without history over the memory of `data`."""
    if data is None:
        data = creation.empty(0)
    if not isinstance(data, Tensor):
        raise TypeError(f"{cls.__name__} data must be a Tensor, not {type(data).__name__}")
    if data.is_sparse:
        raise SparseError(f"{cls.__name__} data must be dense: make a {cls.__name__} of values()")
    made = _allocate(cls)
    _clear(made)
    made._data = data._data
    return alias(made, data)


def _rebuild(cls: type[Tensor], array: Any, options: tuple[Any, ...], extra: Any) -> Tensor:
    made = cls(wrap(array), *options)
    made.__dict__.update(extra)
    return made


class Parameter(Tensor):
    """A tensor that a Module optimises; it shares the memory of `data`.

    Raises:
        TypeError: `data` is not a tensor.
        AutogradError: a gradient is wanted of a tensor that is not floating.
    """

    __slots__ = ()

    def __new__(cls, data: Any = None, requires_grad: bool = True) -> Any:
        """Return a leaf over the memory of `data`."""
        made = _over(cls, data)
        if requires_grad:
            made.requires_grad_()
        return made

    def __init__(self, data: Any = None, requires_grad: bool = True) -> None:
        pass

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        copied: Parameter = type(self)(clone(self.detach()), self.requires_grad)
        copied.__dict__.update(self.__dict__)
        memo[id(self)] = copied
        return copied

    def __reduce_ex__(self, protocol: Any) -> Any:
        data = leave_graph(self, "pickle")
        return (_rebuild, (type(self), data, (self.requires_grad,), dict(self.__dict__)))

    def __repr__(self) -> str:
        return "Parameter containing:\n" + printing.tensor_repr(self)


class Buffer(Tensor):
    """A tensor that belongs to a Module's state but is not optimised.

    `persistent` says whether it is part of the state dict.
    """

    __slots__ = ()

    persistent: bool

    def __new__(cls, data: Any = None, *, persistent: bool = True) -> Any:
        """Return a tensor over the memory of `data`."""
        made = _over(cls, data)
        made.persistent = persistent
        return made

    def __init__(self, data: Any = None, *, persistent: bool = True) -> None:
        pass

    def __deepcopy__(self, memo: dict[int, Any]) -> Buffer:
        copied: Buffer = type(self)(clone(self.detach()))
        copied.__dict__.update(self.__dict__)
        memo[id(self)] = copied
        return copied

    def __reduce_ex__(self, protocol: Any) -> Any:
        data = leave_graph(self, "pickle")
        return (_rebuild, (type(self), data, (), dict(self.__dict__)))


def _hold(t: Tensor, array: Any) -> None:
    """Let a tensor stand for fresh memory."""
    t._data, t._storage, t._chain = array, None, ()


class _Uninitialized:
    """What a tensor whose shape is not known yet can do: become known, and move."""

    __slots__ = ()

    _final: type[Tensor]

    def materialize(self: Any, shape: Any, device: Any = None, dtype: Any = None) -> None:
        """Take a shape, and become an ordinary Parameter (or Buffer) of zeros."""
        wanted = self._data.dtype if dtype is None else dtype_of(dtype).np
        xp = np if device is None else module_of(parse_device(device))
        _hold(self, xp.zeros(shape, dtype=wanted))
        self.__class__ = self._final
        if self._node is not None:
            make_leaf(self)

    @property
    def shape(self) -> Size:
        """Not known yet."""
        raise OpError(
            "Can't access the shape of an uninitialized parameter or buffer. This error usually "
            "happens in `load_state_dict` when trying to load an uninitialized parameter into an "
            "initialized one. Call `forward` to initialize the parameters before accessing their "
            "attributes."
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


def _empty(device: Any, dtype: Any) -> Tensor:
    return creation.empty(0, device=device, dtype=dtype or get_default_dtype())


class UninitializedParameter(_Uninitialized, Parameter):
    """A Parameter of a lazy module, before its first input told its shape."""

    __slots__ = ()

    _final = Parameter

    def __new__(
        cls, requires_grad: bool = True, device: Any = None, dtype: Any = None
    ) -> UninitializedParameter:
        """Return a Parameter without a shape."""
        made: UninitializedParameter = Parameter.__new__(cls, _empty(device, dtype), requires_grad)
        return made

    def __init__(self, requires_grad: bool = True, device: Any = None, dtype: Any = None) -> None:
        pass

    def __deepcopy__(self, memo: dict[int, Any]) -> UninitializedParameter:
        copied = type(self)(self.requires_grad, self.device, self.dtype)
        memo[id(self)] = copied
        return copied


class UninitializedBuffer(_Uninitialized, Buffer):
    """A buffer of a lazy module, before its first input told its shape."""

    __slots__ = ()

    _final = Tensor

    def __new__(
        cls, requires_grad: bool = False, device: Any = None, dtype: Any = None,
        persistent: bool = True,
    ) -> UninitializedBuffer:  # fmt: skip
        """Return a buffer without a shape."""
        made: UninitializedBuffer = Buffer.__new__(
            cls, _empty(device, dtype), persistent=persistent
        )
        return made

    def __init__(
        self, requires_grad: bool = False, device: Any = None, dtype: Any = None,
        persistent: bool = True,
    ) -> None:  # fmt: skip
        pass

    def __deepcopy__(self, memo: dict[int, Any]) -> UninitializedBuffer:
        copied = type(self)(device=self.device, dtype=self.dtype, persistent=self.persistent)
        memo[id(self)] = copied
        return copied


def is_lazy(t: Any) -> bool:
    """Whether a tensor waits for its shape."""
    return isinstance(t, _Uninitialized)
