"""Distribution: the base class, with batch and event shapes, and checks of values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tracegraph.api.creation import tensor
from tracegraph.api.shape import broadcast_tensors
from tracegraph.autograd import no_grad
from tracegraph.distributions.constraints import Constraint, is_dependent
from tracegraph.eager import modes
from tracegraph.eager.tensors import Size, Tensor


def broadcast_all(*values: Any) -> list[Tensor]:
    """Return numbers and tensors as tensors of one shape; numbers take the tensors' dtype."""
    known = next((v for v in values if isinstance(v, Tensor)), None)
    options = {} if known is None else {"dtype": known.dtype, "device": known.device}
    return broadcast_tensors(
        *(v if isinstance(v, Tensor) else tensor(float(v), **options) for v in values)
    )


def _traced() -> bool:
    return modes.recording > 0 and modes.RECORDER.get() is not None


class Distribution:
    """A distribution over events of shape `event_shape`, one for each place of `batch_shape`.

    `arg_constraints` names the parameters. Parameters and values are checked unless
    `validate_args` is False; a trace does not look at values.

    Raises:
        ValueError: a parameter breaks its constraint.
    """

    has_rsample = False
    has_enumerate_support = False
    arg_constraints: dict[str, Constraint] = {}
    support: Any = None
    _validate_args = True

    def __init__(
        self, batch_shape: Sequence[int] = (), event_shape: Sequence[int] = (),
        validate_args: bool | None = None,
    ) -> None:  # fmt: skip
        self._batch_shape, self._event_shape = Size(batch_shape), Size(event_shape)
        if validate_args is not None:
            self._validate_args = validate_args
        if not self._validate_args or _traced():
            return
        for name, constraint in self.arg_constraints.items():
            value = None if is_dependent(constraint) else vars(self).get(name)
            if value is not None and not bool(constraint.check(value.detach()).all()):
                raise ValueError(
                    f"Expected parameter {name} ({type(value).__name__} of shape "
                    f"{tuple(value.shape)}) of distribution {self!r} to satisfy the constraint "
                    f"{constraint!r}, but found invalid values:\n{value}"
                )

    @staticmethod
    def set_default_validate_args(value: bool) -> None:
        """Switch checks on or off for distributions that do not say."""
        Distribution._validate_args = bool(value)

    @property
    def batch_shape(self) -> Size:
        """The shape of the parameters."""
        return self._batch_shape

    @property
    def event_shape(self) -> Size:
        """The shape of one sample."""
        return self._event_shape

    def _extended_shape(self, sample_shape: Sequence[int] = ()) -> Size:
        """Return the shape of samples."""
        return Size((*sample_shape, *self._batch_shape, *self._event_shape))

    def _validate_sample(self, value: Tensor) -> None:
        """Refuse values outside of the support.

        Raises:
            ValueError: such a value, or one whose shape does not fit.
        """
        if not isinstance(value, Tensor):
            raise ValueError("The value argument to log_prob must be a Tensor")
        events = len(self._event_shape)
        if events and tuple(value.shape[-events:]) != tuple(self._event_shape):
            raise ValueError(
                f"The right-most size of value must match event_shape: {tuple(value.shape)} vs "
                f"{tuple(self._event_shape)}."
            )
        support = self.support
        if support is None or not self._validate_args or is_dependent(support) or _traced():
            return
        if not bool(support.check(value.detach()).all()):
            raise ValueError(
                f"Expected value argument ({type(value).__name__} of shape {tuple(value.shape)}) "
                f"to be within the support ({support!r}) of the distribution {self!r}, but "
                f"found invalid values:\n{value}"
            )

    def _get_checked_instance(self, cls: Any, _instance: Any = None) -> Any:
        """Return an object to fill in `expand`: the one given, or a bare one of this class.

        Raises:
            NotImplementedError: none is given, and a subclass of `cls` has an `__init__`.
        """
        if _instance is not None:
            return _instance
        if type(self).__init__ is not cls.__init__:
            raise NotImplementedError(
                f"Subclass {type(self).__name__} of {cls.__name__} that defines a custom __init__ "
                "method must also define a custom .expand() method."
            )
        return type(self).__new__(type(self))

    def expand(self, batch_shape: Sequence[int]) -> Any:
        """Return the distribution with its parameters expanded to a batch shape."""
        new = type(self).__new__(type(self))
        for name, constraint in self.arg_constraints.items():
            value = vars(self).get(name)
            if value is not None:
                tail = value.shape[value.ndim - constraint.event_dim :]
                setattr(new, name, value.expand((*batch_shape, *tail)))
        Distribution.__init__(new, batch_shape, self._event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Return samples of shape sample_shape + batch_shape + event_shape, without gradient."""
        with no_grad():
            return self.rsample(sample_shape)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Return samples through which gradients reach the parameters.

        Raises:
            NotImplementedError: no such form is known here.
        """
        raise NotImplementedError(f"{type(self).__name__} has no rsample; use sample()")

    def sample_n(self, n: int) -> Tensor:
        """Return n samples."""
        return self.sample((n,))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log of the density (or mass) at values."""
        raise NotImplementedError(f"{type(self).__name__} has no log_prob")

    def cdf(self, value: Tensor) -> Tensor:
        """Return the distribution function at values."""
        raise NotImplementedError(f"{type(self).__name__} has no cdf")

    def icdf(self, value: Tensor) -> Tensor:
        """Return the quantiles of probabilities."""
        raise NotImplementedError(f"{type(self).__name__} has no icdf")

    def entropy(self) -> Tensor:
        """Return the entropy in nats."""
        raise NotImplementedError(f"{type(self).__name__} has no entropy")

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """Return all values, along a new first dim."""
        raise NotImplementedError(f"{type(self).__name__} has no enumerate_support")

    def _enumerated(self, values: Tensor, expand: bool) -> Tensor:
        values = values.reshape(-1, *(1,) * len(self._batch_shape))
        return values.expand((-1, *self._batch_shape)) if expand else values

    def perplexity(self) -> Tensor:
        """Return exp of the entropy."""
        return self.entropy().exp()

    @property
    def mean(self) -> Tensor:
        """The mean."""
        raise NotImplementedError(f"{type(self).__name__} has no mean")

    @property
    def mode(self) -> Tensor:
        """The mode."""
        raise NotImplementedError(f"{type(self).__name__} has no mode")

    @property
    def variance(self) -> Tensor:
        """The variance."""
        raise NotImplementedError(f"{type(self).__name__} has no variance")

    @property
    def stddev(self) -> Tensor:
        """The standard deviation."""
        return self.variance.sqrt()

    def __repr__(self) -> str:
        shown = []
        for name in self.arg_constraints:
            value = vars(self).get(name)
            if value is not None:
                small = value.numel() == 1 and not _traced()
                shown.append(f"{name}: {value if small else value.size()}")
        return f"{type(self).__name__}({', '.join(shown)})"


ExponentialFamily = Distribution
