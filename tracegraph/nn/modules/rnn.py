"""Recurrent layers and cells."""

from __future__ import annotations

import math
import numbers
import warnings
from typing import Any

from tracegraph.api import creation, ranges, shape
from tracegraph.dtypes import int64
from tracegraph.eager.dispatch import front
from tracegraph.eager.tensors import Tensor
from tracegraph.errors import OpError
from tracegraph.nn import functional as F
from tracegraph.nn import init
from tracegraph.nn.modules.module import Module
from tracegraph.nn.parameter import Parameter
from tracegraph.nn.utils.rnn import PackedSequence, before

_GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}


def run_layer(
    mode: str, x: Tensor, state: tuple[Tensor, ...], weights: list[Any]
) -> tuple[Tensor, ...]:
    """Run one layer in one direction over [time, batch, in]; returns what it was after each step.

    `weights`: input, hidden, and, where the layer has them, two biases and a projection.
    """
    w_ih, w_hh, *rest = weights
    biases, projection = (rest[:2], rest[2:]) if len(rest) >= 2 else ([], rest)
    if mode == "GRU":
        gates = F.linear(x, w_ih, *biases[:1])
        return (front.gru(gates, *state, w_hh, *biases[1:]),)
    gates = F.linear(x, w_ih, biases[0] + biases[1]) if biases else F.linear(x, w_ih)
    if mode == "LSTM":
        both: tuple[Tensor, ...] = front.lstm(gates, *state, w_hh, *projection)
        return both
    return (front.rnn(gates, *state, w_hh, relu=mode == "RNN_RELU"),)


class _Order:
    """The order of steps: as they stand, or backwards within each sequence's length."""

    def __init__(self, lengths: Tensor | None, time: int) -> None:
        self.lengths = None if lengths is None else front.cast(lengths, dtype=int64)
        self.time = time
        self._back: tuple[Tensor, ...] | None = None

    def reversed(self, x: Tensor) -> Tensor:
        """Return [time, batch, n] with each sequence backwards; twice gives it back."""
        if self.lengths is None:
            flipped: Tensor = front.flip(x, dims=(0,))
            return flipped
        if self._back is None:
            inside = before(self.lengths, self.time)
            steps = ranges.arange(self.time, device=x.device)
            steps = front.expand(front.reshape(steps, shape=(self.time, 1)), shape=inside.shape)
            back = front.where(inside, self.lengths - 1 - steps, steps)
            self._back = (back, ranges.arange(x.shape[1], device=x.device))
        out: Tensor = front.index(x, *self._back, dims=(0, 1))
        return out

    def last(self, x: Tensor) -> Tensor:
        """Return the last step of each sequence of [time, batch, n]."""
        if self.lengths is None:
            return x[self.time - 1]
        batch = ranges.arange(x.shape[1], device=x.device)
        out: Tensor = front.index(x, self.lengths - 1, batch, dims=(0, 1))
        return out


class RNNBase(Module):
    """Stacked recurrent layers, in one direction or both.

    Parameters of layer k: `weight_ih_lk` [gates · hidden, in], `weight_hh_lk` [gates · hidden,
    out], `bias_ih_lk`, `bias_hh_lk`, `weight_hr_lk` [proj, hidden]; with `_reverse` the other
    direction's. All start uniform in ±1/√hidden_size.
    """

    mode: str

    def __init__(
        self, mode: str, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
        batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False,
        proj_size: int = 0, device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.mode = mode
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        self._check_options(dropout)
        self._all_weights: list[list[str]] = []
        self._flat_weights_names: list[str] = []
        for layer in range(num_layers):
            for suffix in ("", "_reverse") if bidirectional else ("",):
                self._add_layer(layer, suffix, device, dtype)
        self.reset_parameters()

    def _check_options(self, dropout: Any) -> None:
        number = isinstance(dropout, numbers.Number) and not isinstance(dropout, bool)
        if not number or not 0 <= dropout <= 1:
            raise ValueError(
                "dropout should be a number in range [0, 1] representing the probability of an "
                "element being zeroed"
            )
        if dropout > 0 and self.num_layers == 1:
            warnings.warn(
                "dropout option adds dropout after all but last recurrent layer, so non-zero "
                f"dropout expects num_layers greater than 1, but got dropout={dropout} and "
                f"num_layers={self.num_layers}",
                stacklevel=4,
            )
        if not isinstance(self.hidden_size, int):
            raise TypeError(
                f"hidden_size should be of type int, got: {type(self.hidden_size).__name__}"
            )
        for name in ("hidden_size", "num_layers"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be greater than zero")
        if self.proj_size < 0:
            raise ValueError(
                "proj_size should be a positive integer or zero to disable projections"
            )
        if self.proj_size >= self.hidden_size:
            raise ValueError("proj_size has to be smaller than hidden_size")
        if self.mode not in _GATES:
            raise ValueError("Unrecognized RNN mode: " + self.mode)

    def _add_layer(self, layer: int, suffix: str, device: Any, dtype: Any) -> None:
        gates = _GATES[self.mode] * self.hidden_size
        out = self.proj_size or self.hidden_size
        directions = 2 if self.bidirectional else 1
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih": (gates, self.input_size if layer == 0 else out * directions),
            "weight_hh": (gates, out),
        }
        if self.bias:
            shapes |= {"bias_ih": (gates,), "bias_hh": (gates,)}
        if self.proj_size:
            shapes["weight_hr"] = (self.proj_size, self.hidden_size)
        names = []
        for name, size in shapes.items():
            names.append(f"{name}_l{layer}{suffix}")
            made = creation.empty(size, device=device, dtype=dtype)
            setattr(self, names[-1], Parameter(made))
        self._all_weights.append(names)
        self._flat_weights_names += names

    @property
    def all_weights(self) -> list[list[Any]]:
        """The weights of each layer and direction."""
        return [[getattr(self, name) for name in names] for names in self._all_weights]

    @property
    def _flat_weights(self) -> list[Any]:
        return [weight for weights in self.all_weights for weight in weights]

    def flatten_parameters(self) -> None:
        """Do nothing: weights need no joint memory here."""

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        bound = 1.0 / math.sqrt(self.hidden_size)
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    def extra_repr(self) -> str:
        """The sizes, and the options that are not the usual ones."""
        parts = [f"{self.input_size}, {self.hidden_size}"]
        for name, usual in (
            ("proj_size", 0), ("num_layers", 1), ("bias", True), ("batch_first", False),
            ("dropout", 0), ("bidirectional", False),
        ):  # fmt: skip
            if getattr(self, name) != usual:
                parts.append(f"{name}={getattr(self, name)}")
        return ", ".join(parts)

    # Forward.

    def _check_input(self, input: Any) -> None:
        weight = getattr(self, self._all_weights[0][0])
        if input.dtype is not weight.dtype:
            raise ValueError(
                f"RNN input dtype ({input.dtype}) does not match weight dtype ({weight.dtype}). "
                f"Convert input: input.to({weight.dtype}), or convert model: "
                f"model.to({input.dtype})"
            )
        if input.shape[-1] != self.input_size:
            raise OpError(
                "input.size(-1) must be equal to input_size. Expected "
                f"{self.input_size}, got {input.shape[-1]}"
            )

    def _states(self, hx: Any, x: Tensor, batched: bool) -> tuple[Tensor, ...]:
        """Return the first states [layers · directions, batch, n] as the layer wants them."""
        count = self.num_layers * (2 if self.bidirectional else 1)
        lstm = self.mode == "LSTM"
        sizes = [self.proj_size or self.hidden_size] + [self.hidden_size] * lstm
        if hx is None:
            return tuple(
                creation.zeros((count, x.shape[1], n), dtype=x.dtype, device=x.device)
                for n in sizes
            )
        given = tuple(hx) if lstm else (hx,)
        wanted = 3 if batched else 2
        if any(h.ndim != wanted for h in given):
            kind = f"For {'' if batched else 'un'}batched {wanted}-D input, "
            dims = ", ".join(f"{h.ndim}-D" for h in given)
            which = "hx and cx should" if lstm else "hx should"
            got = f"({dims}) tensors" if lstm else f"{dims} tensor"
            raise OpError(f"{kind}{which} also be {wanted}-D but got {got}")
        if not batched:
            given = tuple(shape.unsqueeze(h, 1) for h in given)
        for place, (h, n) in enumerate(zip(given, sizes, strict=True)):
            expected = (count, x.shape[1], n)
            if tuple(h.shape) != expected:
                which = f"hidden[{place}]" if lstm else "hidden"
                raise OpError(f"Expected {which} size {expected}, got {list(h.shape)}")
        return given

    def forward(self, input: Any, hx: Any = None) -> Any:
        """Return (outputs, last states).

        Args:
            input: f[time, batch, input_size] ([batch, time, ...] with `batch_first`, or without a
                batch), or packed sequences.
            hx: first states f[layers · directions, batch, hidden]; for an LSTM two, hidden and
                cell; zeros if left out.
        """
        if isinstance(input, PackedSequence):
            return self._forward_packed(input, hx)
        if input.ndim not in (2, 3):
            raise ValueError(
                f"{type(self).__name__}: Expected input to be 2D or 3D, got {input.ndim}D instead"
            )
        batched = input.ndim == 3
        self._check_input(input)
        if not batched:
            x = shape.unsqueeze(input, 1)
        else:
            x = shape.transpose(input, 0, 1) if self.batch_first else input
        states = self._states(hx, x, batched)
        y, last = self._run(x, states, _Order(None, x.shape[0]))
        if not batched:
            y, last = shape.squeeze(y, 1), tuple(shape.squeeze(h, 1) for h in last)
        elif self.batch_first:
            y = shape.transpose(y, 0, 1)
        return y, last if self.mode == "LSTM" else last[0]

    def _forward_packed(self, packed: PackedSequence, hx: Any) -> Any:
        x = packed.padded()
        self._check_input(x)
        order = packed.sorted_indices
        if hx is not None and order is not None:
            hx = self.permute_hidden(hx, order)
        states = self._states(hx, x, True)
        y, last = self._run(x, states, _Order(packed.lengths().to(x.device), x.shape[0]))
        out = last if self.mode == "LSTM" else last[0]
        if order is not None:
            out = self.permute_hidden(out, packed.unsorted_indices)
        return packed.like(y), out

    def permute_hidden(self, hx: Any, permutation: Tensor | None) -> Any:
        """Return states with their batch in another order."""
        if permutation is None:
            return hx
        if isinstance(hx, tuple):
            return tuple(front.index(h, permutation, dims=(1,)) for h in hx)
        return front.index(hx, permutation, dims=(1,))

    def _run(
        self, x: Tensor, states: tuple[Tensor, ...], order: _Order
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run all layers over [time, batch, in]."""
        if x.shape[0] == 0:
            raise OpError("Expected sequence length to be larger than 0 in RNN")
        weights = self.all_weights
        directions = 2 if self.bidirectional else 1
        ends: list[tuple[Tensor, ...]] = []
        for layer in range(self.num_layers):
            outs = []
            for direction in range(directions):
                place = layer * directions + direction
                steps = order.reversed(x) if direction else x
                first = tuple(h[place] for h in states)
                seen = run_layer(self.mode, steps, first, weights[place])
                ends.append(tuple(order.last(s) for s in seen))
                outs.append(order.reversed(seen[0]) if direction else seen[0])
            x = outs[0] if directions == 1 else shape.cat(outs, 2)
            if self.dropout and layer < self.num_layers - 1:
                x = F.dropout(x, self.dropout, self.training)
        return x, tuple(shape.stack(parts) for parts in zip(*ends, strict=True))


class RNN(RNNBase):
    """Elman layers: h = tanh(W x + b + V h + c), or relu."""

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, nonlinearity: str = "tanh",
        bias: bool = True, batch_first: bool = False, dropout: float = 0.0,
        bidirectional: bool = False, device: Any = None, dtype: Any = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        if "proj_size" in kwargs:
            raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(
                f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh' or 'relu'."
            )
        super().__init__(
            f"RNN_{nonlinearity.upper()}", input_size, hidden_size, num_layers, bias, batch_first,
            dropout, bidirectional, 0, device, dtype, **kwargs,
        )  # fmt: skip
        self.nonlinearity = nonlinearity


class LSTM(RNNBase):
    """Long short-term memory, gates i, f, g, o. Hochreiter & Schmidhuber 1997."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__("LSTM", *args, **kwargs)


class GRU(RNNBase):
    """Gated recurrent units, gates r, z, n. Cho et al. 2014, arXiv:1406.1078."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if "proj_size" in kwargs:
            raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
        super().__init__("GRU", *args, **kwargs)
