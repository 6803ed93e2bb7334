"""Multi-head attention. Vaswani et al. 2017, arXiv:1706.03762."""

from __future__ import annotations

from typing import Any

from tracegraph.api import creation, shape
from tracegraph.autograd.grad_mode import is_grad_enabled
from tracegraph.eager.tensors import Tensor
from tracegraph.nn import functional as F
from tracegraph.nn import init
from tracegraph.nn.modules.linear import NonDynamicallyQuantizableLinear
from tracegraph.nn.modules.module import Module
from tracegraph.nn.parameter import Parameter


class MultiheadAttention(Module):
    """Attention of `num_heads` heads over projections of query, key and value.

    The projections are one `in_proj_weight` [3 · embed_dim, embed_dim] where key and value have
    the query's size, else `q_proj_weight`, `k_proj_weight` and `v_proj_weight`.
    """

    in_proj_weight: Any
    q_proj_weight: Any
    k_proj_weight: Any
    v_proj_weight: Any
    in_proj_bias: Any
    bias_k: Any
    bias_v: Any

    def __init__(
        self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True,
        add_bias_kv: bool = False, add_zero_attn: bool = False, kdim: int | None = None,
        vdim: int | None = None, batch_first: bool = False, device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        if embed_dim <= 0 or num_heads <= 0:
            raise ValueError(
                "embed_dim and num_heads must be greater than 0, got "
                f"embed_dim={embed_dim} and num_heads={num_heads} instead"
            )
        super().__init__()
        self.embed_dim = embed_dim
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self._qkv_same_embed_dim = self.kdim == embed_dim and self.vdim == embed_dim
        self.num_heads = num_heads
        self.dropout = dropout
        self.batch_first = batch_first
        self.head_dim = embed_dim // num_heads
        if self.head_dim * num_heads != embed_dim:
            raise AssertionError("embed_dim must be divisible by num_heads")
        sizes: dict[str, tuple[int, ...] | None] = {
            "in_proj_weight": (3 * embed_dim, embed_dim) if self._qkv_same_embed_dim else None
        }
        separate = {"q": embed_dim, "k": self.kdim, "v": self.vdim}
        for name, size in separate.items():
            same = self._qkv_same_embed_dim
            sizes[f"{name}_proj_weight"] = None if same else (embed_dim, size)
        sizes["in_proj_bias"] = (3 * embed_dim,) if bias else None
        for name in ("bias_k", "bias_v"):
            sizes[name] = (1, 1, embed_dim) if add_bias_kv else None
        for name, shaped in sizes.items():
            made = None if shaped is None else creation.empty(shaped, device=device, dtype=dtype)
            self.register_parameter(name, None if made is None else Parameter(made))
        self.out_proj = NonDynamicallyQuantizableLinear(
            embed_dim, embed_dim, bias=bias, device=device, dtype=dtype
        )
        self.add_zero_attn = add_zero_attn
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        for name in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"):
            weight = getattr(self, name)
            if weight is not None:
                init.xavier_uniform_(weight)
        if self.in_proj_bias is not None:
            init.zeros_(self.in_proj_bias)
            init.zeros_(self.out_proj.bias)
        for bias in (self.bias_k, self.bias_v):
            if bias is not None:
                init.xavier_normal_(bias)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None,
        need_weights: bool = True, attn_mask: Tensor | None = None,
        average_attn_weights: bool = True, is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """Return (output, weights or None).

        Args:
            query: f[target, batch, embed_dim] ([batch, target, ...] with `batch_first`, or without
                a batch); key and value: f[source, batch, kdim or vdim].
            key: what is compared with the query.
            value: what is averaged.
            key_padding_mask: bool[batch, source], True where a key is left out; or added floats.
            need_weights: whether to return the weights.
            attn_mask: bool[target, source] (or per head), True where it may not look; or floats.
            average_attn_weights: return the mean over heads, not [batch, heads, target, source].
            is_causal: a hint that `attn_mask` is the causal mask.
        """
        swap = self.batch_first and query.ndim == 3
        masked = attn_mask is not None or key_padding_mask is not None
        shown = need_weights or (masked and self._infers(query, key, value))
        if swap:
            seen: dict[int, Tensor] = {}
            query, key, value = (_swapped(x, seen) for x in (query, key, value))
        separate: dict[str, Any] = {}
        if not self._qkv_same_embed_dim:
            separate = {"use_separate_proj_weight": True}
            for name in ("q_proj_weight", "k_proj_weight", "v_proj_weight"):
                separate[name] = getattr(self, name)
        out, weights = F.multi_head_attention_forward(
            query, key, value, self.embed_dim, self.num_heads, self.in_proj_weight,
            self.in_proj_bias, self.bias_k, self.bias_v, self.add_zero_attn, self.dropout,
            self.out_proj.weight, self.out_proj.bias, training=self.training,
            key_padding_mask=key_padding_mask, need_weights=shown, attn_mask=attn_mask,
            average_attn_weights=average_attn_weights and need_weights, is_causal=is_causal,
            **separate,
        )  # fmt: skip
        out = shape.transpose(out, 0, 1) if swap else out
        return out, weights if need_weights else None

    def _infers(self, query: Tensor, key: Tensor, value: Tensor) -> bool:
        """Whether PyTorch takes its way for inference, where rows that see nothing are NaN."""
        same = query is key and key is value and self._qkv_same_embed_dim
        if not same or self.training or not self.batch_first or query.ndim != 3:
            return False
        if self.num_heads % 2 or self.bias_k is not None or self.add_zero_attn:
            return False
        return not (is_grad_enabled() and any(t.requires_grad for t in (query, *self.parameters())))


def _swapped(x: Tensor, seen: dict[int, Tensor]) -> Tensor:
    """Return x with its first dims swapped; the same tensor again for the same tensor."""
    if id(x) not in seen:
        seen[id(x)] = shape.transpose(x, 0, 1)
    return seen[id(x)]
