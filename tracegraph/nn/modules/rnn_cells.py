"""Recurrent cells: one step of a recurrent layer."""

from __future__ import annotations

import math
from typing import Any

from tracegraph.api import creation, shape
from tracegraph.eager.tensors import Tensor
from tracegraph.errors import OpError
from tracegraph.nn import init
from tracegraph.nn.modules.module import Module
from tracegraph.nn.modules.rnn import run_layer
from tracegraph.nn.parameter import Parameter


class RNNCellBase(Module):
    """One step of a recurrent layer; parameters `weight_ih`, `weight_hh`, `bias_ih`, `bias_hh`."""

    weight_ih: Any
    weight_hh: Any
    bias_ih: Any
    bias_hh: Any

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool, num_chunks: int, device: Any = None,
        dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        gates = num_chunks * hidden_size
        for name, size in (("weight_ih", (gates, input_size)), ("weight_hh", (gates, hidden_size))):
            setattr(self, name, Parameter(creation.empty(size, device=device, dtype=dtype)))
        for name in ("bias_ih", "bias_hh"):
            made = Parameter(creation.empty(gates, device=device, dtype=dtype)) if bias else None
            self.register_parameter(name, made)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        bound = 1.0 / math.sqrt(self.hidden_size) if self.hidden_size > 0 else 0
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    def extra_repr(self) -> str:
        """The sizes, and the options that are not the usual ones."""
        shown = f"{self.input_size}, {self.hidden_size}"
        if not self.bias:
            shown += f", bias={self.bias}"
        nonlinearity = getattr(self, "nonlinearity", "tanh")
        return shown + (f", nonlinearity={nonlinearity}" if nonlinearity != "tanh" else "")

    def _step(self, mode: str, input: Tensor, hx: tuple[Tensor, ...] | None) -> Any:
        """Return the next states for f[batch, input_size] or f[input_size]."""
        name = type(self).__name__
        if input.ndim not in (1, 2):
            raise ValueError(f"{name}: Expected input to be 1D or 2D, got {input.ndim}D instead")
        if hx is not None:
            for place, h in enumerate(hx):
                if h.ndim not in (1, 2):
                    which = f"hx[{place}]" if len(hx) > 1 else "hidden"
                    raise ValueError(
                        f"{name}: Expected {which} to be 1D or 2D, got {h.ndim}D instead"
                    )
        batched = input.ndim == 2
        x = input if batched else shape.unsqueeze(input, 0)
        if hx is None:
            count = 2 if mode == "LSTM" else 1
            zeros = creation.zeros((x.shape[0], self.hidden_size), dtype=x.dtype, device=x.device)
            states: tuple[Tensor, ...] = (zeros,) * count
        else:
            states = tuple(h if batched else shape.unsqueeze(h, 0) for h in hx)
        biases = [self.bias_ih, self.bias_hh] if self.bias else []
        seen = run_layer(
            mode, shape.unsqueeze(x, 0), states, [self.weight_ih, self.weight_hh, *biases]
        )
        ends = tuple(s[0] for s in seen)
        return ends if batched else tuple(shape.squeeze(h, 0) for h in ends)


class RNNCell(RNNCellBase):
    """One step of an Elman layer."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh",
        device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(input_size, hidden_size, bias, 1, device, dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """Return the next state f[batch, hidden_size]."""
        if self.nonlinearity not in ("tanh", "relu"):
            raise OpError(f"Unknown nonlinearity: {self.nonlinearity}")
        mode = f"RNN_{self.nonlinearity.upper()}"
        (h,) = self._step(mode, input, None if hx is None else (hx,))
        out: Tensor = h
        return out


class LSTMCell(RNNCellBase):
    """One step of a long short-term memory."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None,
        dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(input_size, hidden_size, bias, 4, device, dtype)

    def forward(
        self,
        input: Tensor,
        hx: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the next (hidden, cell), each f[batch, hidden_size]."""
        both: tuple[Tensor, Tensor] = self._step("LSTM", input, None if hx is None else tuple(hx))
        return both


class GRUCell(RNNCellBase):
    """One step of a gated recurrent unit."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None,
        dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(input_size, hidden_size, bias, 3, device, dtype)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """Return the next state f[batch, hidden_size]."""
        (h,) = self._step("GRU", input, None if hx is None else (hx,))
        out: Tensor = h
        return out
