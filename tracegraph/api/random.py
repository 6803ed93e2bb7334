"""Random tensors: every number comes from `_draw`, which advances the state of a Generator."""

from __future__ import annotations

import math
from typing import Any, Final

from tracegraph.api.complex_numbers import real, view_as_complex, view_as_real
from tracegraph.api.creation import finish, shape_of
from tracegraph.api.promotion import cast, laid_as, result_type
from tracegraph.devices import Device, device_for_new, device_of
from tracegraph.dims.symint import as_size
from tracegraph.dtypes import (
    FLOAT_KIND,
    HALVES,
    INT_KIND,
    DType,
    dtype_of,
    finfo,
    float32,
    float64,
    get_default_dtype,
    iinfo,
    int64,
)
from tracegraph.eager import modes
from tracegraph.eager.dispatch import assign, dispatch, front
from tracegraph.eager.tensors import Tensor, type_of
from tracegraph.errors import DeviceError, DTypeError, OpError
from tracegraph.ops.table import OPS
from tracegraph.random import Generator, generator_of
from tracegraph.tensor_type import broadcast_shapes

_DRAW: Final = OPS["draw"]


def _draw(
    generator: Generator | None, device: Device, shape: tuple[int, ...], dtype: DType,
    distribution: str, low: int = 0, high: int = 0,
) -> Tensor:  # fmt: skip
    """Take one draw of a generator: the only place where random numbers come from."""
    if dtype.is_complex:  # normal ones have the variance 1, so their parts have 1/2
        pairs = _draw(generator, device, (*shape, 2), dtype.to_real(), distribution)
        return view_as_complex(pairs * math.sqrt(0.5) if distribution == "normal" else pairs)
    if generator is None:
        generator = generator_of(device)
    elif generator.device != device:
        raise DeviceError(
            f"Expected a '{device.type}' device type for generator but found "
            f"'{generator.device.type}'"
        )
    attrs = {"shape": shape, "dtype": dtype, "distribution": distribution}
    with generator._lock:
        values, after = dispatch(_DRAW, (generator._state,), {**attrs, "low": low, "high": high})
        assign(generator._state, after)
    out: Tensor = values
    return out


def _make(
    distribution: str, size: tuple[Any, ...], options: dict[str, Any], low: int = 0, high: int = 0
) -> Tensor:
    """Return fresh random numbers for PyTorch's creation options."""
    generator = options.pop("generator", None)
    dtype = options.pop("dtype", None)
    wanted = dtype_of(dtype) if dtype is not None else get_default_dtype()
    device = options.pop("device", None)
    on = generator.device if device is None and generator else device_for_new(device)
    requires_grad = options.pop("requires_grad", False)
    options.pop("layout", None), options.pop("pin_memory", None)
    if not size and "size" in options:
        size = (options.pop("size"),)
    if options:
        raise TypeError(f"unexpected keyword argument {next(iter(options))!r}")
    drawn = wanted
    if distribution in ("integers", "permutation") and wanted.kind != INT_KIND:
        drawn = int64
    values = _draw(generator, on, shape_of(size), drawn, distribution, low, high)
    return finish(cast(values, wanted), bool(requires_grad))


def rand(*size: Any, **options: Any) -> Tensor:
    """Return numbers uniform on [0, 1); options: generator, dtype, device, requires_grad."""
    return _make("uniform", size, options)


def randn(*size: Any, **options: Any) -> Tensor:
    """Return standard normal numbers; options: generator, dtype, device, requires_grad."""
    return _make("normal", size, options)


def _check_range(low: int, high: int) -> None:
    if low >= high:
        raise OpError(
            f"random_ expects 'from' to be less than 'to', but got from={low} >= to={high}"
        )


def randint(*args: Any, **options: Any) -> Tensor:
    """Return integers of [low, high): `randint(high, size)` or `randint(low, high, size)`.

    Raises:
        OpError: an empty range.
    """
    named: dict[str, Any] = {
        name: options.pop(name) for name in ("low", "high", "size") if name in options
    }
    order = ["low", "high", "size"][1 if len(args) + len(named) == 2 else 0 :]
    if len(args) + len(named) != len(order):
        raise TypeError("randint() takes (high, size) or (low, high, size)")
    named.update(zip([name for name in order if name not in named], args, strict=True))
    low, high = as_size(named.get("low", 0)), as_size(named["high"])
    _check_range(low, high)
    options["dtype"] = options.get("dtype") or int64
    return _make("integers", (tuple(named["size"]),), options, low, high)


def randperm(n: int, **options: Any) -> Tensor:
    """Return a random order of 0..n−1, int64 by default."""
    if n < 0:
        raise OpError(f"n must be non-negative, got {n}")
    options["dtype"] = options.get("dtype") or int64
    return _make("permutation", ((as_size(n),),), options)


def _like(
    distribution: str, input: Tensor, options: dict[str, Any], low: int = 0, high: int = 0
) -> Tensor:
    known = type_of(input)
    given = {name: value for name, value in options.items() if value is not None}
    given = {"dtype": known.dtype, "device": device_of(input._data)} | given
    memory_format, requires_grad = (given.pop(n, None) for n in ("memory_format", "requires_grad"))
    made = _make(distribution, (known.shape,), given, low, high)
    return finish(laid_as(made, input, memory_format), bool(requires_grad))


def rand_like(input: Tensor, **options: Any) -> Tensor:
    """Return numbers uniform on [0, 1) in the shape, dtype and device of `input`."""
    return _like("uniform", input, options)


def randn_like(input: Tensor, **options: Any) -> Tensor:
    """Return standard normal numbers in the shape, dtype and device of `input`."""
    return _like("normal", input, options)


def randint_like(input: Tensor, *bounds: int, **options: Any) -> Tensor:
    """Return integers of [low, high) in the shape of `input`: `(input, high)` or with `low`."""
    named = [options.pop(name) for name in ("low", "high") if name in options]
    low, high = (0, *bounds, *named)[-2:]
    _check_range(low, high)
    return _like("integers", input, options, as_size(low), as_size(high))


def _wide(dtype: DType) -> DType:
    """Return the dtype that transforms of numbers of `dtype` are computed in."""
    if dtype.kind < FLOAT_KIND:
        return get_default_dtype()
    return float32 if dtype in HALVES else dtype


def _standard(distribution: str, like: Tensor, generator: Generator | None) -> Tensor:
    """Return standard numbers in the shape and device of `like`, in the dtype to compute in."""
    known = type_of(like)
    return _draw(generator, device_of(like._data), known.shape, _wide(known.dtype), distribution)


def _fill(self: Tensor, values: Tensor) -> Tensor:
    return assign(self, cast(values, type_of(self).dtype))


def _need_float(self: Tensor, name: str) -> None:
    dtype = type_of(self).dtype
    if dtype.kind != FLOAT_KIND:
        raise DTypeError(f"{name} is not implemented for {dtype}")


def _check_std(std: float) -> None:
    if not std >= 0:
        raise OpError(f"normal expects std >= 0.0, but found std {std}")


def normal(
    mean: Any = 0.0, std: Any = 1.0, size: Any = None, *, generator: Generator | None = None,
    dtype: DType | None = None, device: Any = None, requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """Return normal numbers: `mean` and `std` are numbers with a `size`, or tensors.

    Raises:
        OpError: a negative `std`.
    """
    tensors = [x for x in (mean, std) if isinstance(x, Tensor)]
    if not isinstance(std, Tensor):
        _check_std(std)
    if not tensors:
        z = randn(size or (), generator=generator, dtype=dtype, device=device)
        return finish(z * std + mean, requires_grad)
    shapes = broadcast_shapes([t._data.shape for t in tensors])
    kind = result_type(*tensors)
    z = _draw(generator, device_of(tensors[0]._data), shapes, _wide(kind), "normal")
    return cast(z * _plain(std) + _plain(mean), kind)


def _plain(x: Any) -> Any:
    return x.detach() if isinstance(x, Tensor) else x


def normal_(
    self: Tensor, mean: Any = 0.0, std: Any = 1.0, *, generator: Generator | None = None
) -> Tensor:
    """Overwrite with normal numbers.

    Raises:
        OpError: a negative `std`.
    """
    _need_float(real(self), "normal_")
    _check_std(std)
    z = _standard("normal", self, generator)
    return _fill(self, z if (mean, std) == (0, 1) else z * std + mean)


def uniform_(
    self: Tensor, from_: float = 0.0, to: float = 1.0, *, generator: Generator | None = None
) -> Tensor:
    """Overwrite with numbers uniform on [from, to).

    Raises:
        OpError: from > to.
    """
    x = view_as_real(self) if self.is_complex() else self
    _need_float(x, "uniform_")
    if not from_ <= to:
        raise OpError(
            f"uniform_ expects to return a [from, to) range, but found from={from_} > to={to}"
        )
    u = _standard("uniform", x, generator)
    _fill(x, u if (from_, to) == (0, 1) else u * (to - from_) + from_)
    return self


def random_(
    self: Tensor, from_: int | None = None, to: int | None = None, *,
    generator: Generator | None = None,
) -> Tensor:  # fmt: skip
    """Overwrite with integers of [from, to), [0, to), or all that the dtype holds exactly."""
    known = type_of(self)
    if to is None:
        from_, to = 0, _exact_limit(known.dtype) + 1 if from_ is None else from_
    low, high = int(from_ or 0), int(to)
    _check_range(low, high)
    where = device_of(self._data)
    return _fill(self, _draw(generator, where, known.shape, int64, "integers", low, high))


def _exact_limit(dtype: DType) -> int:
    """Return the largest n such that the dtype holds all of 0..n."""
    if dtype.kind == FLOAT_KIND:
        return int(2 / finfo(dtype).eps)
    return int(iinfo(dtype).max) if dtype.kind == INT_KIND else 1


def _exponential(like: Tensor, generator: Generator | None) -> Tensor:
    """Return standard exponential numbers, never 0: −log(1 − u)."""
    u = _standard("uniform", like, generator)
    smallest = finfo(type_of(u).dtype).eps / 2
    out: Tensor = (-(-u).log1p()).clamp(min=smallest)
    return out


def exponential_(self: Tensor, lambd: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Overwrite with exponential numbers of rate `lambd`."""
    _need_float(self, "exponential_")
    if not lambd > 0:
        raise OpError(f"exponential_ expects lambda > 0.0, but found lambda={lambd}")
    return _fill(self, _exponential(self, generator) / lambd)


def log_normal_(
    self: Tensor, mean: float = 1.0, std: float = 2.0, *, generator: Generator | None = None
) -> Tensor:
    """Overwrite with exp of normal numbers."""
    _need_float(self, "log_normal_")
    _check_std(std)
    return _fill(self, (_standard("normal", self, generator) * std + mean).exp())


def cauchy_(
    self: Tensor, median: float = 0.0, sigma: float = 1.0, *, generator: Generator | None = None
) -> Tensor:
    """Overwrite with Cauchy numbers: median + sigma · tan(π (u − 1/2))."""
    _need_float(self, "cauchy_")
    u = _standard("uniform", self, generator)
    return _fill(self, ((u - 0.5) * math.pi).tan() * sigma + median)


def geometric_(self: Tensor, p: float, *, generator: Generator | None = None) -> Tensor:
    """Overwrite with the number of trials up to the first success of probability `p`, from 1."""
    if not 0 < p < 1:
        raise OpError(f"geometric_ expects p to be in (0, 1), but got p={p}")
    trials = _exponential(self, generator) / -math.log1p(-p)
    return _fill(self, trials.ceil())


def _check_probabilities(p: Any, name: str) -> None:
    """Refuse probabilities outside [0, 1]; a trace does not look at values."""
    if modes.recording and modes.RECORDER.get() is not None:
        return
    inside = bool(((p >= 0) & (p <= 1)).all()) if isinstance(p, Tensor) else 0 <= p <= 1
    if not inside:
        raise OpError(f"{name} expects p to be in [0, 1], but got p={p}")


def _bernoulli(like: Tensor, p: Any, generator: Generator | None, name: str) -> Tensor:
    _check_probabilities(p, name)
    chance = _plain(p)
    if isinstance(chance, Tensor) and type_of(chance).dtype in HALVES:
        chance = cast(chance, float32)
    u = _standard("uniform", like, generator)
    return cast(u < chance, type_of(like).dtype)


def bernoulli(
    input: Tensor, p: float | None = None, *, generator: Generator | None = None
) -> Tensor:
    """Return 1 with probability `input` (or `p`, in the shape of `input`) and 0 else."""
    if p is None:
        _need_float(input, "bernoulli")
    drawn = _bernoulli(input, input if p is None else p, generator, "bernoulli")
    # The gradient is zero, not missing: a straight-through estimator adds its own to it.
    return drawn + input * 0 if p is None and input.requires_grad else drawn


def bernoulli_(self: Tensor, p: Any = 0.5, *, generator: Generator | None = None) -> Tensor:
    """Overwrite with 1 with probability `p` (a number or a tensor) and 0 else."""
    return assign(self, _bernoulli(self, p, generator, "bernoulli_"))


def _check_weights(weights: Tensor, num_samples: int, replacement: bool) -> None:
    """Refuse weights that are no distribution; a trace does not look at values."""
    if modes.recording and modes.RECORDER.get() is not None:
        return
    if not bool((weights.isfinite() & (weights >= 0)).all()):
        raise OpError("probability tensor contains either `inf`, `nan` or element < 0")
    positive = (weights > 0).sum(dim=-1)
    if bool((positive < 1).any()):
        raise OpError("invalid multinomial distribution (sum of probabilities <= 0)")
    if not replacement and bool((positive < num_samples).any()):
        raise OpError(
            "invalid multinomial distribution (with replacement=False, not enough non-negative "
            "category to sample)"
        )


def multinomial(
    input: Tensor, num_samples: int, replacement: bool = False, *,
    generator: Generator | None = None,
) -> Tensor:  # fmt: skip
    """Return indices drawn with probabilities proportional to the rows of `input`.

    With replacement (or for one sample): the inverse of the cumulated weights. Without: the order
    of independent exponential arrival times with these rates (Efraimidis & Spirakis 2006).

    Raises:
        OpError: not 1-d or 2-d floats, or not a distribution; more samples than categories.
    """
    known = type_of(input)
    if known.dtype.kind != FLOAT_KIND or len(known.shape) not in (1, 2):
        raise OpError("multinomial needs 1-d or 2-d probabilities of a floating dtype")
    if num_samples < 1:
        raise OpError("cannot sample n_sample <= 0 samples")
    if not replacement and num_samples > known.shape[-1]:
        raise OpError("cannot sample n_sample > prob_dist.size(-1) samples without replacement")
    weights = cast(input.detach(), float64)
    _check_weights(weights, num_samples, replacement)
    if replacement or num_samples == 1:
        total = front.cumsum(weights, dim=len(known.shape) - 1)
        where = device_of(input._data)
        u = _draw(generator, where, (*known.shape[:-1], num_samples), float64, "uniform")
        u = u * total[..., -1:]
        if num_samples > weights.numel() // known.shape[-1]:
            return front.searchsorted(total, u, right=True)
        return (u.unsqueeze(-1) >= total.unsqueeze(-2)).sum(dim=-1)
    times = _exponential(weights, generator) / weights
    return times.argsort(dim=-1)[..., :num_samples].contiguous()


def poisson(input: Tensor, generator: Generator | None = None) -> Tensor:
    """Return Poisson counts with the rates `input`, in its dtype.

    Raises:
        OpError: a negative rate.
    """
    _need_float(input, "poisson")
    rate = cast(input.detach(), float64)
    traced = modes.recording and modes.RECORDER.get() is not None
    if not traced and bool((rate < 0).any()):
        raise OpError("invalid Poisson rate, expected rate to be non-negative")
    u = _standard("uniform", rate, generator)
    out: Tensor = cast(front.poisson_quantile(u, rate), type_of(input).dtype)
    return out
