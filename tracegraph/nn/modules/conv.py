"""Convolutions over 1, 2 and 3 spatial dims, and their transposes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from tracegraph.api import creation
from tracegraph.eager.tensors import Tensor
from tracegraph.nn import functional as F
from tracegraph.nn import init
from tracegraph.nn.modules.lazy import LazyModule
from tracegraph.nn.modules.module import Module
from tracegraph.nn.modules.utils import _ntuple, _reverse_repeat_tuple
from tracegraph.nn.parameter import Parameter, UninitializedParameter

_MODES = ("zeros", "reflect", "replicate", "circular")


class _ConvNd(Module):
    """What all convolutions share.

    `weight` is [out, in / groups, *kernel] ([in, out / groups, *kernel] transposed), `bias` [out];
    both start uniform in ±1/√fan_in.
    """

    dims: ClassVar[int]
    transposed: ClassVar[bool] = False
    weight: Any
    bias: Any

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any, padding: Any,
        dilation: Any, output_padding: Any, groups: int, bias: bool, padding_mode: str,
        device: Any, dtype: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        _check_channels(in_channels, out_channels, groups)
        spread = _ntuple(self.dims)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = spread(kernel_size)
        self.stride = spread(stride)
        self.padding = padding if isinstance(padding, str) else spread(padding)
        self.dilation = spread(dilation)
        self.output_padding = spread(output_padding)
        self.groups = groups
        self.padding_mode = padding_mode
        self._check_padding()
        self._edges = self._edge_widths()
        shape = (
            (in_channels, out_channels // groups) if self.transposed
            else (out_channels, in_channels // groups)
        )  # fmt: skip
        self.weight = Parameter(
            creation.empty((*shape, *self.kernel_size), device=device, dtype=dtype)
        )
        if bias:
            self.bias = Parameter(creation.empty(out_channels, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def _check_padding(self) -> None:
        if self.padding_mode not in _MODES:
            raise ValueError(
                f"padding_mode must be one of {set(_MODES)}, but got "
                f"padding_mode='{self.padding_mode}'"
            )
        if isinstance(self.padding, str):
            if self.padding not in ("same", "valid"):
                raise ValueError(
                    f"Invalid padding string {self.padding!r}, should be one of {{'same', 'valid'}}"
                )
            if self.padding == "same" and any(s != 1 for s in self.stride):
                raise ValueError("padding='same' is not supported for strided convolutions")

    def _edge_widths(self) -> tuple[int, ...]:
        """Widths for `F.pad`, last dim first, left before right."""
        if not isinstance(self.padding, str):
            return _reverse_repeat_tuple(self.padding, 2)
        widths: list[int] = []
        for d, k in zip(reversed(self.dilation), reversed(self.kernel_size), strict=True):
            total = d * (k - 1) if self.padding == "same" else 0
            widths += [total // 2, total - total // 2]
        return tuple(widths)

    def reset_parameters(self) -> None:
        """Draw weight and bias anew."""
        init.kaiming_uniform_(self.weight, a=5**0.5)
        if self.bias is not None:
            init.uniform_bias_(self.bias, self.weight)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Any) -> Tensor:
        """Convolve with a weight that may be another than the module's own."""
        convolve = getattr(F, f"conv{self.dims}d")
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            input = F.pad(input, self._edges, mode=self.padding_mode)
            padding = 0
        out: Tensor = convolve(
            input, weight, bias, self.stride, padding, self.dilation, self.groups
        )
        return out

    def forward(self, input: Tensor) -> Tensor:
        """Convolve `input`: f[batch, in_channels, *size] (the batch may be left out)."""
        return self._conv_forward(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        """Sizes, and the options that are not the usual ones."""
        parts = [
            str(self.in_channels), str(self.out_channels), f"kernel_size={self.kernel_size}",
            f"stride={self.stride}",
        ]  # fmt: skip
        if self.padding != (0,) * len(self.kernel_size):
            shown = self.padding if isinstance(self.padding, tuple) else f"{self.padding}"
            parts.append(f"padding={shown}")
        for name, usual in (("dilation", 1), ("output_padding", 0)):
            value = getattr(self, name)
            if value != (usual,) * len(value):
                parts.append(f"{name}={value}")
        if self.groups != 1:
            parts.append(f"groups={self.groups}")
        if self.bias is None:
            parts.append("bias=False")
        if self.padding_mode != "zeros":
            parts.append(f"padding_mode={self.padding_mode}")
        return ", ".join(parts)


def _check_channels(in_channels: int, out_channels: int, groups: int) -> None:
    if groups <= 0:
        raise ValueError("groups must be a positive integer")
    if in_channels % groups:
        raise ValueError("in_channels must be divisible by groups")
    if out_channels % groups:
        raise ValueError("out_channels must be divisible by groups")


class _Conv(_ConvNd):
    """A convolution: the constructor of `Conv1d`, `Conv2d` and `Conv3d`."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1,
        padding: Any = 0, dilation: Any = 1, groups: int = 1, bias: bool = True,
        padding_mode: str = "zeros", device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, 0, groups, bias,
            padding_mode, device, dtype,
        )  # fmt: skip


class Conv1d(_Conv):
    """Convolution of f[batch, in_channels, length]."""

    dims = 1


class Conv2d(_Conv):
    """Convolution of f[batch, in_channels, height, width]."""

    dims = 2


class Conv3d(_Conv):
    """Convolution of f[batch, in_channels, depth, height, width]."""

    dims = 3


class _ConvTransposeNd(_ConvNd):
    """The gradient of a convolution with respect to its input, as a layer."""

    transposed = True

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1,
        padding: Any = 0, output_padding: Any = 0, groups: int = 1, bias: bool = True,
        dilation: Any = 1, padding_mode: str = "zeros", device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        if padding_mode != "zeros":
            raise ValueError(f'Only "zeros" padding mode is supported for {type(self).__name__}')
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, output_padding,
            groups, bias, padding_mode, device, dtype,
        )  # fmt: skip

    def _output_padding(self, size: Sequence[int], output_size: Any) -> tuple[int, ...]:
        """Return what must be added on the far side to reach `output_size`.

        Raises:
            ValueError: the size cannot be reached.
        """
        if output_size is None:
            return tuple(self.output_padding)
        extra = len(output_size) - self.dims
        if extra not in (0, len(size) - self.dims):
            raise ValueError(
                f"{type(self).__name__}: output_size must have {self.dims} or {len(size)} "
                f"elements (got {len(output_size)})"
            )
        wanted = tuple(output_size)[extra:]
        low = tuple(
            (n - 1) * s - 2 * p + d * (k - 1) + 1
            for n, s, p, d, k in zip(
                size[-self.dims :], self.stride, self.padding, self.dilation, self.kernel_size,
                strict=True,
            )
        )  # fmt: skip
        high = tuple(least + s - 1 for least, s in zip(low, self.stride, strict=True))
        if not all(a <= n <= b for a, n, b in zip(low, wanted, high, strict=True)):
            raise ValueError(
                f"requested an output size of {list(output_size)}, but valid sizes range from "
                f"{list(low)} to {list(high)} (for an input of {list(size[-self.dims :])})"
            )
        return tuple(n - least for n, least in zip(wanted, low, strict=True))

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        """Spread `input`: f[batch, in_channels, *size]; `output_size` picks among fitting sizes."""
        spread = getattr(F, f"conv_transpose{self.dims}d")
        out: Tensor = spread(
            input, self.weight, self.bias, self.stride, self.padding,
            self._output_padding(input.shape, output_size), self.groups, self.dilation,
        )  # fmt: skip
        return out


class ConvTranspose1d(_ConvTransposeNd):
    """Transposed convolution of f[batch, in_channels, length]."""

    dims = 1


class ConvTranspose2d(_ConvTransposeNd):
    """Transposed convolution of f[batch, in_channels, height, width]."""

    dims = 2


class ConvTranspose3d(_ConvTransposeNd):
    """Transposed convolution of f[batch, in_channels, depth, height, width]."""

    dims = 3


class _LazyConv(LazyModule, _ConvNd):
    """A convolution that takes `in_channels` from its first input."""

    def __init__(
        self, out_channels: int, kernel_size: Any, *args: Any, bias: bool = True,
        device: Any = None, dtype: Any = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        place = 5 if self.transposed else 4  # where `bias` stands after kernel_size
        if len(args) > place:
            bias, args = args[place], (*args[:place], False, *args[place + 1 :])
        else:
            kwargs["bias"] = False
        super().__init__(0, 0, kernel_size, *args, device=device, dtype=dtype, **kwargs)
        self.out_channels = out_channels
        self.weight = UninitializedParameter(device=device, dtype=dtype)
        if bias:
            self.bias = UninitializedParameter(device=device, dtype=dtype)

    def initialize_parameters(self, input: Tensor, *args: Any, **kwargs: Any) -> None:
        """Give the parameters their shapes."""
        if input.ndim not in (self.dims + 1, self.dims + 2):
            raise RuntimeError(
                f"Expected {self.dims + 1}D (unbatched) or {self.dims + 2}D (batched) input to "
                f"{type(self).__name__}, but got input of size: {input.shape}"
            )
        self.in_channels = input.shape[-self.dims - 1]
        _check_channels(self.in_channels, self.out_channels, self.groups)
        shape = (
            (self.in_channels, self.out_channels // self.groups) if self.transposed
            else (self.out_channels, self.in_channels // self.groups)
        )  # fmt: skip
        self.weight.materialize((*shape, *self.kernel_size))
        if self.bias is not None:
            self.bias.materialize((self.out_channels,))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias anew, once their shapes are known."""
        if self.in_channels != 0:
            super().reset_parameters()


class LazyConv1d(_LazyConv, Conv1d):
    """A Conv1d that takes `in_channels` from its first input."""

    final = Conv1d


class LazyConv2d(_LazyConv, Conv2d):
    """A Conv2d that takes `in_channels` from its first input."""

    final = Conv2d


class LazyConv3d(_LazyConv, Conv3d):
    """A Conv3d that takes `in_channels` from its first input."""

    final = Conv3d


class LazyConvTranspose1d(_LazyConv, ConvTranspose1d):
    """A ConvTranspose1d that takes `in_channels` from its first input."""

    final = ConvTranspose1d


class LazyConvTranspose2d(_LazyConv, ConvTranspose2d):
    """A ConvTranspose2d that takes `in_channels` from its first input."""

    final = ConvTranspose2d


class LazyConvTranspose3d(_LazyConv, ConvTranspose3d):
    """A ConvTranspose3d that takes `in_channels` from its first input."""

    final = ConvTranspose3d
