"""Attention: queries look values up by keys. Vaswani et al. 2017, arXiv:1706.03762."""

from __future__ import annotations

import math
from typing import Any

from tracegraph.api import pointwise
from tracegraph.api.promotion import cast, counting, filled
from tracegraph.api.shape import cat
from tracegraph.dims.symint import SymInt
from tracegraph.dtypes import bool_
from tracegraph.eager.dispatch import front
from tracegraph.eager.tensors import Tensor, type_of
from tracegraph.errors import OpError
from tracegraph.nn.functional.dense import linear
from tracegraph.nn.functional.dropouts import dropout


def _causal(like: Tensor, rows: int, columns: int) -> Tensor:
    """bool[rows, columns]: whether row i may see column j, j <= i."""
    return counting(like, rows).unsqueeze(1) >= counting(like, columns).unsqueeze(0)


def _probabilities(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax of masked scores over the last dim; a row that sees nothing is 0."""
    last = scores.ndim - 1
    if mask is None:
        return front.softmax(scores, dim=last)
    zero = filled(scores, (), 0)
    if type_of(mask).dtype is bool_:
        blind = ~mask.any(-1, keepdim=True)
        scores = pointwise.where(mask, scores, filled(scores, (), -math.inf))
    else:
        blind = (mask == -math.inf).all(-1, keepdim=True)
        scores = scores + mask
    scores = pointwise.where(blind, zero, scores)
    return pointwise.where(blind, zero, front.softmax(scores, dim=last))


def _attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout_p: float,
    scale: float | None, shown: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return the values looked up and the probabilities they were weighted with.

    In probabilities that are to be `shown`, a row that sees nothing is NaN, as in PyTorch.
    """
    width: Any = query.shape[-1]
    steep = scale
    if scale is None:
        steep = width**-0.5 if width.__class__ is SymInt else 1 / math.sqrt(width)
    scores = (query * steep) @ key.transpose(-2, -1)
    if shown and mask is not None:
        shares = front.softmax(scores + mask, dim=scores.ndim - 1)
    else:
        shares = _probabilities(scores, mask)
    shares = dropout(shares, dropout_p, training=True)
    return shares @ value, shares


def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
    dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """Return softmax(query · keyᵀ · scale + mask) · value.

    query[..., L, E], key[..., S, E], value[..., S, V]; a bool mask[..., L, S] is true where
    attention may go, a float mask is added. `enable_gqa` repeats key and value heads (dim −3).

    Raises:
        OpError: a mask beside `is_causal`, or heads that do not divide.
    """
    if is_causal:
        if attn_mask is not None:
            raise OpError(
                "_scaled_dot_product_attention: Explicit attn_mask should not be set when "
                "is_causal=True"
            )
        attn_mask = _causal(query, query.shape[-2], key.shape[-2])
    if enable_gqa:
        heads = query.shape[-3]
        if heads % key.shape[-3] or heads % value.shape[-3]:
            raise OpError(
                "Number of heads in key and value must divide the number of heads in query"
            )
        key = key.repeat_interleave(heads // key.shape[-3], -3)
        value = value.repeat_interleave(heads // value.shape[-3], -3)
    return _attend(query, key, value, attn_mask, dropout_p, scale)[0]


def _project(
    query: Tensor, key: Tensor, value: Tensor, packed: Tensor | None, packed_bias: Tensor | None,
    separate: tuple[Tensor | None, ...],
) -> list[Tensor]:  # fmt: skip
    """Project to heads with one packed weight [3·E, E], or with three."""
    width = query.shape[-1]
    if packed is not None and key is value and query is key:
        y = linear(query, packed, packed_bias)
        return list(y.chunk(3, -1))
    if packed is not None:
        weights: tuple[Any, ...] = packed.split((width, width, width))
    else:
        weights = separate
    biases = (None,) * 3 if packed_bias is None else packed_bias.chunk(3)
    return [linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True)]


def _as_float(mask: Tensor, like: Tensor) -> Tensor:
    """A mask to be added: −inf where a bool mask is true."""
    if type_of(mask).dtype is not bool_:
        return cast(mask, type_of(like).dtype)
    return pointwise.where(mask, filled(like, (), -math.inf), filled(like, (), 0))


def _merged_mask(
    attn_mask: Tensor | None, key_padding_mask: Tensor | None, like: Tensor, batch: int,
    heads: int, keys: int,
) -> Tensor | None:  # fmt: skip
    """The sum of both masks, float[batch|1, heads|1, L|1, keys]; keys added later are open."""
    merged: Tensor | None = None
    for mask in (attn_mask, key_padding_mask):
        if mask is None:
            continue
        part = _as_float(mask, like)
        if mask is key_padding_mask:
            part = part.reshape(batch, 1, 1, part.shape[-1])
        elif part.ndim == 3:
            part = part.reshape(batch, heads, *part.shape[1:])
        else:
            part = part.reshape(1, 1, *part.shape)
        if part.shape[-1] < keys:
            pads = (*((0, 0),) * 3, (0, keys - part.shape[-1]))
            part = front.pad(part, pads=pads, value=0.0)
        merged = part if merged is None else merged + part
    return merged


def _check_mask(mask: Tensor | None, rows: int, columns: int, together: int) -> None:
    if mask is None:
        return
    wanted = (rows, columns) if mask.ndim == 2 else (together, rows, columns)
    if mask.ndim not in (2, 3) or tuple(mask.shape) != wanted:
        raise OpError(
            f"The shape of the {mask.ndim}D attn_mask is {tuple(mask.shape)}, but should be "
            f"{wanted}."
        )


def _appended(x: Tensor, bias: Tensor | None, batch: int) -> Tensor:
    """A sequence [S, batch, E] with one learnt element more."""
    return x if bias is None else cat([x, bias.expand(1, batch, x.shape[2])], 0)


def _heads(x: Tensor, batch: int, heads: int) -> Tensor:
    """[S, batch, heads·D] as [batch, heads, S, D]."""
    return x.reshape(x.shape[0], batch, heads, x.shape[2] // heads).permute(1, 2, 0, 3)


def multi_head_attention_forward(
    query: Tensor, key: Tensor, value: Tensor, embed_dim_to_check: int, num_heads: int,
    in_proj_weight: Tensor | None, in_proj_bias: Tensor | None, bias_k: Tensor | None,
    bias_v: Tensor | None, add_zero_attn: bool, dropout_p: float, out_proj_weight: Tensor,
    out_proj_bias: Tensor | None, training: bool = True, key_padding_mask: Tensor | None = None,
    need_weights: bool = True, attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False, q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None, v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None, static_v: Tensor | None = None,
    average_attn_weights: bool = True, is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """Return attention of several heads with its projections, and its weights if asked.

    query[L, batch?, E], key and value[S, batch?, ...]; masks are true (or −inf) where attention
    may not go: attn_mask[L, S] or [batch·heads, L, S], key_padding_mask[batch?, S].
    The weights are [batch?, L, S], or [batch?, heads, L, S] unless averaged.

    Raises:
        OpError: shapes do not fit, or `is_causal` without a mask.
    """
    batched = query.ndim == 3
    if not batched:
        query, key, value = _with_batch(query, key, value)
        if key_padding_mask is not None:
            key_padding_mask = key_padding_mask.unsqueeze(0)
    rows, batch, width = query.shape
    if width != embed_dim_to_check or width % num_heads:
        raise OpError(
            f"was expecting embedding dimension of {embed_dim_to_check} divisible by {num_heads} "
            f"heads, but got {width}"
        )
    if is_causal and attn_mask is None:
        raise OpError("Need attn_mask if specifying the is_causal hint.")
    _check_mask(attn_mask, rows, key.shape[0], batch * num_heads)
    packed = None if use_separate_proj_weight else in_proj_weight
    q, k, v = _project(
        query, key, value, packed, in_proj_bias, (q_proj_weight, k_proj_weight, v_proj_weight)
    )
    k, v = _appended(k, bias_k, batch), _appended(v, bias_v, batch)
    q, k, v = (_heads(x, batch, num_heads) for x in (q, k, v))
    k = k if static_k is None else static_k.reshape(batch, num_heads, *static_k.shape[1:])
    v = v if static_v is None else static_v.reshape(batch, num_heads, *static_v.shape[1:])
    if add_zero_attn:
        k, v = (cat([x, filled(x, (*x.shape[:2], 1, x.shape[3]), 0)], 2) for x in (k, v))
    mask = _merged_mask(attn_mask, key_padding_mask, q, batch, num_heads, k.shape[2])
    y, shares = _attend(q, k, v, mask, dropout_p if training else 0.0, None, need_weights)
    y = linear(y.permute(2, 0, 1, 3).reshape(rows, batch, width), out_proj_weight, out_proj_bias)
    y = y if batched else y.squeeze(1)
    if not need_weights:
        return y, None
    shares = shares.mean(1) if average_attn_weights else shares
    return y, shares if batched else shares.squeeze(0)


def _with_batch(*sequences: Tensor) -> list[Tensor]:
    """Sequences with a batch dim of 1; those that are one tensor stay one."""
    wide = {id(x): x.unsqueeze(1) for x in sequences}
    return [wide[id(x)] for x in sequences]
