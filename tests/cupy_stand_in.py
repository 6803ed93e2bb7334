"""A stand-in for CuPy where there is no GPU: its names and its refusals over the host's memory.

`installed()` puts it in the place of the module `cupy`, so that `device="cuda"` runs op rows,
gradients and replays through everything but the GPU itself. It refuses what CuPy refuses (a mix
with NumPy arrays, functions and keywords that CuPy lacks) and does what CuPy does differently
(wraps indices that are out of range, always returns arrays, keeps silent about singular
matrices).
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from tests.cupy_facts import CREATION, FFT, FUNCTIONS, HOST, LINALG, METHODS, UFUNCS
from tracegraph.devices import cuda_count
from tracegraph.random import _cuda_generators

_WRAPPING = frozenset(("take", "take_along_axis"))


class NoSuchCall(AttributeError):
    """CuPy has no such function, method or keyword, as far as this stand-in knows."""


def _host(x: Any) -> Any:
    """Return the NumPy value behind an argument; refuse NumPy arrays, as CuPy does."""
    if isinstance(x, ndarray):
        return x.host
    if isinstance(x, np.ndarray):
        raise TypeError(f"Unsupported type {np.ndarray} (an array of the CPU among those of a GPU)")
    if isinstance(x, (tuple, list)):
        return type(x)([_host(i) for i in x])
    return x


def _device(x: Any) -> Any:
    """Return a NumPy result as arrays of this module."""
    if isinstance(x, (np.ndarray, np.generic)):
        return ndarray(np.asarray(x))
    if isinstance(x, (tuple, list)):
        return type(x)(map(_device, x)) if type(x) in (tuple, list) else tuple(map(_device, x))
    return x


def _call(function: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
    with np.errstate(all="ignore"):
        result = function(*map(_host, args), **{k: _host(v) for k, v in kwargs.items()})
    return kwargs["out"] if kwargs.get("out") is not None else _device(result)


def _known(name: str, allowed: str, kwargs: dict[str, Any]) -> None:
    for key in kwargs:
        if key not in allowed.split():
            raise NoSuchCall(f"cupy's {name} is not known to take the keyword {key!r}")


def _wrapped(index: Any, shape: tuple[int, ...]) -> Any:
    """Return an index with its integer arrays wrapped into range: CuPy does not raise."""
    items = index if isinstance(index, tuple) else (index,)
    taken = sum(
        x.host.ndim if isinstance(x, ndarray) and x.dtype.kind == "b" else x is not None
        for x in items
        if x is not Ellipsis
    )
    out: list[Any] = []
    axis = 0
    for item in items:
        if item is Ellipsis:
            axis += len(shape) - taken
        elif item is None:
            pass
        elif isinstance(item, ndarray) and item.dtype.kind == "b":
            axis += item.ndim
        else:
            if isinstance(item, ndarray):
                item = ndarray(item.host % max(shape[axis], 1))
            axis += 1
        out.append(_host(item))
    return tuple(out) if isinstance(index, tuple) else out[0]


class _Flags:
    """Flags of memory; CuPy has no `writeable`."""

    def __init__(self, flags: Any) -> None:
        self.c_contiguous = flags.c_contiguous
        self.f_contiguous = flags.f_contiguous
        self.owndata = flags.owndata


class ndarray:
    """An array that NumPy must not touch; `host` is its memory."""

    __array_ufunc__ = None  # NumPy's operators leave a mix to the methods here, which refuse it
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, host: np.ndarray[Any, Any]) -> None:
        self.host = host

    dtype = property(lambda self: self.host.dtype)
    itemsize = property(lambda self: self.host.itemsize)
    nbytes = property(lambda self: self.host.nbytes)
    ndim = property(lambda self: self.host.ndim)
    shape = property(lambda self: self.host.shape)
    size = property(lambda self: self.host.size)
    strides = property(lambda self: self.host.strides)
    T = property(lambda self: ndarray(self.host.T))
    real = property(lambda self: ndarray(self.host.real))
    base = property(lambda self: self.host.base)
    device = SimpleNamespace(id=0)

    @property
    def data(self) -> Any:
        return SimpleNamespace(ptr=self.host.__array_interface__["data"][0])

    @property
    def flags(self) -> _Flags:
        return _Flags(self.host.flags)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {"shape": self.shape, "typestr": self.dtype.str, "version": 3}

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
        )

    def get(self) -> np.ndarray[Any, Any]:
        """Return a copy as a NumPy array."""
        return self.host.copy()

    def item(self) -> Any:
        """Return the one element as a Python number."""
        return self.host.item()

    def tolist(self) -> Any:
        """Return nested lists of Python numbers."""
        return self.host.tolist()

    def __len__(self) -> int:
        return len(self.host)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self.host)))

    def __bool__(self) -> bool:
        return bool(self.host)

    def __int__(self) -> int:
        return int(self.host)

    def __float__(self) -> float:
        return float(self.host)

    def __repr__(self) -> str:
        return f"cupy{self.host!r}"

    def __getitem__(self, index: Any) -> ndarray:
        found = self.host[_wrapped(index, self.shape)]
        if not isinstance(found, np.ndarray):  # one element: still a view
            whole = index if isinstance(index, tuple) else (index,)
            found = self.host[(*_host(whole), ...)]
        return ndarray(found)

    def __setitem__(self, index: Any, value: Any) -> None:
        with np.errstate(all="ignore"):
            self.host[_wrapped(index, self.shape)] = _host(value)

    def __getattr__(self, name: str) -> Any:
        if name not in METHODS:
            raise NoSuchCall(f"cupy.ndarray is not known to have the attribute {name!r}")

        def method(*args: Any, **kwargs: Any) -> Any:
            _known(name, METHODS[name], kwargs)
            return _call(getattr(self.host, name), args, kwargs)

        return method


def _operator(name: str, reflected: bool = False, in_place: bool = False) -> Any:
    function = getattr(operator, name)

    def method(self: ndarray, *others: Any) -> Any:
        if others and isinstance(others[0], (tuple, list)):
            return NotImplemented
        operands = (*others, self) if reflected else (self, *others)
        if in_place:
            with np.errstate(all="ignore"):
                function(self.host, _host(others[0]))
            return self
        return _call(function, operands, {})

    return method


_BINARY = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and_", "or_", "xor")
for _name in (*_BINARY, "lshift", "rshift", "matmul"):
    _dunder = _name.rstrip("_")
    setattr(ndarray, f"__{_dunder}__", _operator(_name))
    setattr(ndarray, f"__r{_dunder}__", _operator(_name, reflected=True))
    if _name != "matmul":
        setattr(ndarray, f"__i{_dunder}__", _operator(f"i{_dunder}", in_place=True))
for _name in ("eq", "ne", "lt", "le", "gt", "ge", "neg", "pos", "abs", "invert"):
    setattr(ndarray, f"__{_name}__", _operator(_name))


def _floor_divide(x: Any, y: Any, **kwargs: Any) -> Any:
    """Floor of the rounded quotient, as CuPy has it."""
    if np.result_type(x, y).kind == "f":
        return np.floor(np.divide(x, y), **kwargs)
    return np.floor_divide(x, y, **kwargs)


def _fmod(x: Any, y: Any) -> Any:
    dtype = np.result_type(x, y)
    if dtype.kind == "f":
        return np.fmod(x, y)
    return np.fmod(np.asarray(x, np.float64), np.asarray(y, np.float64)).astype(dtype)


def _remainder(x: Any, y: Any) -> Any:
    return x - _floor_divide(x, y) * y if np.result_type(x, y).kind == "f" else np.remainder(x, y)


_OWN = {"floor_divide": _floor_divide, "fmod": _fmod, "remainder": _remainder}


class _Ufunc:
    """An elementwise function with the few methods that CuPy gives each."""

    # `at` adds in an order that changes from run to run and `reduceat` subtracts running sums:
    # neither is for op rows. `reduce` and `accumulate` exist for sums and products only.
    _METHODS = {"add": ("reduce", "accumulate"), "multiply": ("reduce", "accumulate")}

    def __init__(self, name: str) -> None:
        self.name = name
        self.numpy = _OWN.get(name, getattr(np, name))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        _known(self.name, "out dtype", kwargs)
        return _call(self.numpy, args, kwargs)

    def __getattr__(self, method: str) -> Any:
        if method not in ("outer", *self._METHODS.get(self.name, ())):
            raise NoSuchCall(f"cupy.{self.name}.{method} is not there, or not for op rows")
        return lambda *args, **kwargs: _call(getattr(self.numpy, method), args, kwargs)


class _Cupy(ModuleType):
    """The module `cupy`."""

    ndarray = ndarray

    def __init__(self) -> None:
        super().__init__("cupy")
        runtime = SimpleNamespace(
            getDeviceCount=lambda: 1, getDevice=lambda: 0, memGetInfo=lambda: (1 << 30, 2 << 30)
        )
        self.cuda = SimpleNamespace(
            runtime=runtime, Device=_Device, Stream=SimpleNamespace(null=_Device())
        )
        self.linalg = SimpleNamespace(
            **{name: _linear_algebra(name) for name in LINALG}, LinAlgError=np.linalg.LinAlgError
        )
        self.fft = SimpleNamespace(
            **{name: _function(name, keywords, np.fft) for name, keywords in FFT.items()}
        )
        tricks = SimpleNamespace(as_strided=_as_strided)
        self.lib = SimpleNamespace(stride_tricks=tricks)
        for name in UFUNCS:
            setattr(self, name, _Ufunc(name))
        for name, keywords in FUNCTIONS.items():
            setattr(self, name, _function(name, keywords))
        for name, keywords in CREATION.items():
            setattr(self, name, _creation(name, keywords))
        for name in HOST:
            setattr(self, name, getattr(np, name))

    def __getattr__(self, name: str) -> Any:
        raise NoSuchCall(f"module 'cupy' is not known to have {name!r}: see tests/cupy_facts.py")


class _Device:
    """A CUDA device, or its stream."""

    def __init__(self, index: int = 0) -> None:
        if index != 0:
            raise RuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
        self.id = index

    def __enter__(self) -> _Device:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def synchronize(self) -> None:
        """Wait for the device: nothing to wait for."""


def _diagonal(x: Any, *args: int, **kwargs: int) -> Any:
    view = np.diagonal(x, *args, **kwargs)
    view.flags.writeable = True
    return view


def _function(name: str, keywords: str, module: Any = np) -> Any:
    numpy = _diagonal if name == "diagonal" else getattr(module, name)

    def function(*args: Any, **kwargs: Any) -> Any:
        _known(name, keywords, kwargs)
        if name in _WRAPPING:
            axis = kwargs.get("axis", args[2] if len(args) > 2 else None)
            size = args[0].size if axis is None else args[0].shape[axis]
            args = (args[0], ndarray(args[1].host % max(size, 1)), *args[2:])
        if kwargs.get("kind") not in (None, "stable"):
            raise NoSuchCall(f"cupy.{name} sorts stably or by default only")
        return _call(numpy, args, kwargs)

    return function


def _creation(name: str, keywords: str) -> Any:
    numpy = getattr(np, name)

    def function(*args: Any, **kwargs: Any) -> Any:
        _known(name, keywords, kwargs)
        if name == "asarray" and isinstance(args[0], ndarray) and "dtype" not in kwargs:
            return args[0]
        if name in ("array", "asarray") and isinstance(args[0], (np.ndarray, np.generic)):
            return ndarray(np.array(args[0], **kwargs))
        return _call(numpy, args, kwargs)

    return function


_raises = False


@contextmanager
def errstate(*, linalg: str | None = None) -> Iterator[None]:
    """Choose whether a failed factorisation raises or is passed over (cupyx.errstate)."""
    global _raises
    before, _raises = _raises, linalg == "raise"
    try:
        yield
    finally:
        _raises = before


def _linear_algebra(name: str) -> Any:
    def function(*args: Any, **kwargs: Any) -> Any:
        if args[0].dtype.char not in "fdFD":
            raise TypeError(f"Unsupported dtype {args[0].dtype}")
        try:
            return _call(getattr(np.linalg, name), args, kwargs)
        except np.linalg.LinAlgError:
            if _raises or name not in ("inv", "cholesky", "solve"):
                raise
            return ndarray(np.full(args[-1].shape, np.nan, args[0].dtype))

    return function


def _as_strided(x: ndarray, shape: Any = None, strides: Any = None) -> ndarray:
    return ndarray(np.lib.stride_tricks.as_strided(x.host, shape, strides))


@contextmanager
def installed() -> Iterator[ModuleType]:
    """Let `import cupy` give the stand-in, and tracegraph find one GPU."""
    cupy, cupyx = _Cupy(), ModuleType("cupyx")
    cupyx.errstate = errstate  # type: ignore[attr-defined]
    before = {name: sys.modules.get(name) for name in ("cupy", "cupyx")}
    sys.modules.update(cupy=cupy, cupyx=cupyx)
    cuda_count.cache_clear()
    try:
        yield cupy
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
        _cuda_generators.clear()
        cuda_count.cache_clear()
