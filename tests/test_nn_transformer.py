"""Attention and transformers against PyTorch."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import tracegraph as tg
from tests.nn_oracle import compare, copy_weights, draw, pair, translated

T, S, B, E = 4, 3, 2, 8
CAUSAL = np.triu(np.ones((T, T), dtype=bool), 1)
ENDED = np.array([[False, False, True], [False, False, False]])

ATTENTION: list[dict[str, Any]] = [
    {},
    {"batch_first": True, "bias": False},
    {"kdim": 5, "vdim": 6},
    {"add_bias_kv": True, "add_zero_attn": True},
]


def ids(options: Any) -> str:
    return (
        ",".join(f"{k}={v}" for k, v in options.items())
        if isinstance(options, dict)
        else str(options)
    )


@pytest.mark.oracle
@pytest.mark.parametrize("weights", [{}, {"average_attn_weights": False}, {"need_weights": False}])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("options", ATTENTION, ids=ids)
def test_multihead_attention(options: Any, masked: bool, weights: Any) -> None:
    ours, theirs = pair("MultiheadAttention", (E, 2), options)
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    sizes = ((T, E), (S, options.get("kdim", E)), (S, options.get("vdim", E)))
    if options.get("batch_first"):
        inputs = tuple(draw((B, *size), i) for i, size in enumerate(sizes))
    else:
        inputs = tuple(draw((n, B, width), i) for i, (n, width) in enumerate(sizes))
    masks = {}
    if masked:
        masks = {"key_padding_mask": tg.tensor(ENDED), "attn_mask": tg.tensor(CAUSAL[:, :S])}
    compare(ours, theirs, inputs, **masks, **weights)


@pytest.mark.oracle
def test_unbatched_self_attention_with_a_float_mask() -> None:
    ours, theirs = pair("MultiheadAttention", (E, 2))
    mask = tg.nn.Transformer.generate_square_subsequent_mask(T)
    assert mask.tolist() == np.where(CAUSAL, -np.inf, 0.0).tolist()
    x = draw((T, E))
    compare(ours, theirs, (x, x, x), attn_mask=mask)
    with pytest.raises(AssertionError, match="divisible"):
        tg.nn.MultiheadAttention(7, 2)


LAYERS: list[dict[str, Any]] = [
    {"dropout": 0.0, "norm_first": False, "batch_first": False},
    {"dropout": 0.0, "norm_first": True, "batch_first": True, "activation": "gelu"},
    {"dropout": 0.0, "norm_first": True, "batch_first": False, "bias": False},
]


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("kind", "options"), [*itertools.product(["Encoder", "Decoder"], LAYERS)], ids=ids
)
def test_layers_and_stacks(kind: str, options: Any, training: bool) -> None:
    import torch

    batch = options["batch_first"]
    ours, theirs = pair(f"Transformer{kind}Layer", (E, 2, 16), options)
    assert repr(ours) == translated(repr(theirs))
    x = draw((B, T, E) if batch else (T, B, E))
    memory = draw((B, S, E) if batch else (S, B, E), 1)
    causal = tg.tensor(CAUSAL)
    if kind == "Encoder":
        inputs, masks = (x,), {"src_mask": causal}
        stack = {"mask": causal}
    else:
        inputs, masks = (
            (x, memory),
            {"tgt_mask": causal, "memory_key_padding_mask": tg.tensor(ENDED)},
        )
        stack = masks
    compare(ours.train(training), theirs.train(training), inputs, 1e-4, **masks)
    norm = (tg.nn.LayerNorm(E), torch.nn.LayerNorm(E))
    mine = getattr(tg.nn, f"Transformer{kind}")(ours, 2, norm[0])
    yours = getattr(torch.nn, f"Transformer{kind}")(theirs, 2, norm[1])
    assert list(mine.state_dict()) == list(yours.state_dict())
    copy_weights(yours, mine)
    inputs = tuple(t.detach().requires_grad_() for t in inputs)
    compare(mine.train(training), yours.train(training), inputs, 1e-4, **stack)


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_a_whole_transformer() -> None:
    options = {"dropout": 0.0, "batch_first": True}
    ours, theirs = pair("Transformer", (E, 2, 2, 1, 16), options)
    assert [(n, tuple(p.shape)) for n, p in ours.named_parameters()] == [
        (n, tuple(p.shape)) for n, p in theirs.named_parameters()
    ]
    source, target = draw((B, S, E)), draw((B, T, E), 1)
    mask = tg.nn.Transformer.generate_square_subsequent_mask(T)
    compare(ours, theirs, (source, target), 1e-4, tgt_mask=mask, tgt_is_causal=True)
    for bad in ((draw((B + 1, S, E)), target), (draw((B, S, E + 1)), target)):
        with pytest.raises(RuntimeError, match="must be equal"):
            ours(*bad)
    with pytest.raises(RuntimeError, match="relu/gelu"):
        tg.nn.TransformerEncoderLayer(E, 2, activation="sine")


def test_a_transformer_can_be_traced() -> None:
    net = tg.nn.TransformerEncoder(
        tg.nn.TransformerEncoderLayer(E, 2, 16, batch_first=True), 2
    ).eval()
    mask = tg.nn.Transformer.generate_square_subsequent_mask(T)
    traced = tg.trace(lambda x: net(x, mask), (draw((B, T, E)).detach(),))
    x = draw((B, T, E), 3).detach()
    np.testing.assert_allclose(
        traced(x).detach().numpy(), net(x, mask).detach().numpy(), rtol=1e-5, atol=1e-6
    )


# Rows of attention that see nothing, and padding in inference.


def test_shown_weights_of_a_row_that_sees_nothing_are_nan() -> None:
    attention = tg.nn.MultiheadAttention(4, 2, batch_first=True)
    x = tg.ones(1, 3, 4)
    blind = tg.tensor([[True, True, True], [False, True, True], [False, False, True]])
    out, weights = attention(x, x, x, attn_mask=blind)
    assert tg.isnan(out)[0].any(1).tolist() == [True, False, False]
    assert tg.isnan(weights)[0].all(1).tolist() == [True, False, False]
    out, weights = attention(x, x, x, attn_mask=blind, need_weights=False)
    assert weights is None and not tg.isnan(out).any()
    with tg.no_grad():
        out, _ = attention.eval()(x, x, x, attn_mask=blind, need_weights=False)
    assert tg.isnan(out)[0].any(1).tolist() == [True, False, False]


@pytest.mark.parametrize("tracing", [False, True])
def test_padding_at_the_end_is_zero_in_inference(tracing: bool) -> None:
    encoder = tg.nn.TransformerEncoder(tg.nn.TransformerEncoderLayer(4, 2, 6, batch_first=True), 2)
    encoder.eval()
    x = tg.arange(24.0).reshape(2, 3, 4).sin()
    padding = tg.tensor([[False, False, True], [False, True, True]])
    grads = encoder(x, src_key_padding_mask=padding)

    def infer(x: Any, padding: Any) -> Any:
        with tg.no_grad():
            return encoder(x, src_key_padding_mask=padding)

    if tracing:
        infer = tg.trace(infer, (x, padding))
    out = infer(x, padding)
    assert tg.allclose(out, grads.masked_fill(padding.unsqueeze(-1), 0), atol=1e-6)
    assert (grads != 0).all()
    left = padding.flip(1)
    assert (infer(x, left) != 0).all()


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("mask", ["none", "bool", "float", "blind"])
@pytest.mark.parametrize("padding", ["none", "end", "start"])
@pytest.mark.parametrize("mode", ["train", "eval", "inference"])
@pytest.mark.parametrize("options", [{}, {"norm_first": True}, {"batch_first": False}])
def test_encoders_agree_where_rows_see_nothing(
    mask: str, padding: str, mode: str, options: dict[str, Any]
) -> None:
    torch, outs = pytest.importorskip("torch"), []
    x = np.sin(np.arange(24.0)).reshape(2, 3, 4).astype(np.float32)
    pads = {"end": [[False, False, True], [False] * 3], "start": [[True, False, False]] * 2}
    for t in (tg, torch):
        t.manual_seed(0)
        layer = t.nn.TransformerEncoderLayer(4, 2, 6, 0.0, **{"batch_first": True, **options})
        encoder = t.nn.TransformerEncoder(layer, 2, t.nn.LayerNorm(4), enable_nested_tensor=True)
        with t.no_grad():
            for i, p in enumerate(encoder.parameters()):
                p.copy_(t.tensor(np.cos(np.arange(p.numel()) + i), dtype=p.dtype).reshape(p.shape))
        upper = np.triu(np.ones((3, 3), dtype=bool), 1)
        masks = {"bool": upper, "float": np.where(upper, -np.inf, 0).astype(np.float32),
                 "blind": upper | np.array([[True], [False], [False]])}  # fmt: skip
        encoder.train(mode == "train")
        given = t.tensor(x if encoder.layers[0].self_attn.batch_first else x.swapaxes(0, 1).copy())
        with t.set_grad_enabled(mode != "inference"):
            out = encoder(
                given, mask=None if mask == "none" else t.tensor(masks[mask]),
                src_key_padding_mask=None if padding == "none" else t.tensor(pads[padding]),
            )  # fmt: skip
        outs.append(out.detach().numpy())
    np.testing.assert_allclose(*outs, rtol=1e-4, atol=1e-4)
