"""Calls of `nn.functional` that are run on PyTorch and on tracegraph alike.

`F` is the module, `t` the package around it. The operands are made by `operands`; each expression
gives a tensor or a tuple of tensors.
"""

from __future__ import annotations

from typing import Any

import numpy as np

SHAPES = {
    "x": (3, 4), "z": (3, 4), "s": (), "e": (0, 4), "a": (4, 6), "b": (4, 6), "c": (4, 6),
    "x1": (2, 4, 9), "x2": (2, 4, 7, 6), "x3": (2, 4, 5, 4, 6), "e2": (0, 4, 7, 6),
    "k1": (6, 4, 3), "k2": (6, 4, 3, 2), "k3": (6, 4, 2, 3, 2), "p2": (6, 4, 1, 1),
    "g2": (6, 2, 3, 3), "d2": (4, 1, 3, 3), "h6": (6,), "h4": (4,), "m4": (4,),
    "t1": (4, 3, 3), "t2": (4, 3, 3, 2), "t3": (4, 3, 2, 3, 2), "tg": (4, 2, 3, 3), "h3": (3,),
    "l": (4, 5), "L": (2, 5, 3, 2), "W": (7, 5), "B": (3, 5, 6), "f": (2, 12, 2), "theta": (2, 2, 3),
    "theta3": (2, 3, 4), "grid": (2, 3, 5, 2), "grid3": (2, 2, 3, 4, 3), "Q": (2, 4, 3, 6),
    "K": (2, 4, 5, 6), "V": (2, 4, 5, 6), "K2": (2, 2, 5, 6), "A": (3, 5), "S": (3, 2, 8),
    "M": (5, 2, 8), "I": (24, 8), "i24": (24,), "O": (8, 8), "o8": (8,), "bk": (1, 1, 8),
}  # fmt: skip
CONSTANT = {"w": (5,), "m0": (4,), "v0": (4,), "P": (4, 6)}  # weights and statistics: no gradient
FLOATS = (*SHAPES, "r", "R", "n", "lp")


def operands(dtype: Any) -> dict[str, np.ndarray[Any, Any]]:
    """Return the arrays that expressions name; floats in `dtype`."""
    random = np.random.default_rng(5)
    made = {name: random.uniform(-2, 2, shape) for name, shape in SHAPES.items()}
    made |= {name: random.uniform(0.2, 2, shape) for name, shape in CONSTANT.items()}
    made["grid"], made["grid3"] = (made[name] * 0.7 for name in ("grid", "grid3"))
    made["r"] = random.uniform(0.05, 0.95, (4, 6))  # probabilities
    made["R"] = random.dirichlet(np.ones(5), 4)  # of classes
    made["n"] = np.array([[np.nan, 1, -np.inf, 0.0], [-0.0, np.inf, 2, -3]])
    logits = random.uniform(-2, 2, (9, 3, 4))
    made["lp"] = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    floats = {name: array.astype(dtype) for name, array in made.items()}
    return floats | {
        "y": np.array([4, 0, -100, 2]),
        "y3": np.array([1, 0, 3, 2]),
        "Y": random.integers(0, 5, (2, 3, 2)),
        "j": random.integers(0, 7, (2, 3)),
        "J": np.array([[0, 3, -1, 1], [2, -1, 0, 0]]),
        "flat": np.array([1, 2, 4, 5, 4, 3]),
        "offsets": np.array([0, 2, 2, 6]),
        "sign": np.array([1, -1, 1, -1]),
        "signs": np.where(random.integers(0, 2, (4, 6)) > 0, 1, -1),
        "mask": np.array([[True, True, False, True, False], [False] * 5, [True] * 5]),
        "late": np.array([[False, False, True, False, True], [False] * 4 + [True]]),
        "labels": np.array([[1, 2, 2], [3, 1, 0], [1, 3, 2]]),
        "label_list": np.array([1, 2, 2, 3, 1]),
        "i": random.integers(-5, 6, (3, 4)),
    }


ACTIVATIONS = """
F.relu(x); F.relu(n); F.relu(i); F.relu(e); F.relu(s); F.leaky_relu(x, 0.2); F.leaky_relu(n);
F.elu(x, 1.3); F.elu(n); F.selu(x); F.celu(x, 0.7); F.gelu(x); F.gelu(n[:, :2]); F.gelu(x,
approximate="tanh"); F.silu(x); F.mish(x); F.mish(x * 30); F.softplus(x); F.softplus(x, 3, 2);
F.softplus(x * 30); F.softsign(x); F.tanhshrink(x); F.hardtanh(x); F.hardtanh(x, -0.5, 1.5);
F.hardtanh(i, -2, 2); F.hardsigmoid(x * 2); F.hardswish(x * 2); F.relu6(x * 4); F.prelu(x, m4);
F.prelu(x, m4[:1]); F.prelu(x1, m4); F.prelu(s, m4[0]); F.rrelu(x); F.glu(x); F.glu(a, 0);
F.logsigmoid(x); F.logsigmoid(x * 50); F.threshold(x, 0.3, -1.5); F.threshold(i, 1, 9);
F.hardshrink(x); F.softshrink(x, 0.4); F.sigmoid(x); F.tanh(x); F.softmax(x, 1); F.softmax(x, 0,
dtype=t.float64); F.softmin(x, -1); F.log_softmax(x1, 1); F.relu(x * 1, inplace=True); F.elu(x *
1, inplace=True); F.hardtanh(x * 1, -1, 1, True); F.silu(x * 1, inplace=True); F.relu_(x * 1);
F.threshold_(x * 1, 0, 5)
"""

DENSE = """
F.linear(x, z); F.linear(x, z, h3); F.linear(x2, b); F.linear(x1, z.new_ones(4, 9), m4);
F.linear(e, z, h3); F.linear(x[0], z, h3); F.linear(x, z[0]); F.linear(s.expand(4), z);
F.bilinear(A, Q[0, 0], B, h3); F.bilinear(A[0], Q[0, 0, 0], B); F.embedding(j, W); F.embedding(j,
W, padding_idx=2); F.embedding(j, W, padding_idx=-1); F.embedding(j, W, scale_grad_by_freq=True);
F.embedding(j[:0], W); F.embedding(j[0, 0], W); F.embedding_bag(j, W); F.embedding_bag(flat, W,
offsets[:3], mode="sum"); F.embedding_bag(flat, W, offsets, mode="mean"); F.embedding_bag(flat, W,
offsets, mode="max"); F.embedding_bag(flat, W, offsets, mode="sum", padding_idx=4);
F.embedding_bag(flat, W, offsets, include_last_offset=True); F.embedding_bag(j, W,
per_sample_weights=A[:2, :3], mode="sum"); F.one_hot(j); F.one_hot(j, 9); F.one_hot(j[0, 0], 7);
F.normalize(x); F.normalize(x1, 3, 2); F.cosine_similarity(a, b); F.cosine_similarity(a, b[:1],
dim=-1); F.pairwise_distance(a, b); F.pairwise_distance(a, b[0], p=1, keepdim=True);
F.pairwise_distance(a, b, p=3.5); F.pdist(a); F.pdist(a, 1); F.pdist(a[:1])
"""

CONVOLUTIONS = """
F.conv1d(x1, k1); F.conv1d(x1, k1, h6, 2, 1, 2); F.conv1d(x1[0], k1, h6); F.conv1d(x1, k1,
padding="same"); F.conv2d(x2, k2); F.conv2d(x2, k2, h6, stride=2); F.conv2d(x2, k2, h6, (2, 1),
(1, 2), (1, 2)); F.conv2d(x2, k2, padding="same", dilation=(2, 1)); F.conv2d(x2, k2,
padding="valid"); F.conv2d(e2, k2); F.conv2d(x2, g2, groups=2, padding=1); F.conv2d(x2, d2, None,
1, 1, 1, 4); F.conv2d(x2[0], p2, h6); F.conv2d(x2, p2, stride=2); F.conv2d(x2, p2, padding=1);
F.conv2d(x2, d2, None, 2, 0, 1, 4); F.conv3d(x3, k3, h6); F.conv3d(x3, k3, None, (2, 1, 2), 1);
F.conv3d(x3[0], k3, dilation=(1, 1, 2)); F.conv_transpose1d(x1, t1, h3, 2, 1, 1);
F.conv_transpose1d(x1[0], t1, dilation=3, output_padding=2); F.conv_transpose2d(x2, t2);
F.conv_transpose2d(x2, t2, h3, 2, 1, 1); F.conv_transpose2d(x2[0], t2); F.conv_transpose2d(x2, t2,
None, (3, 2), (2, 0), (2, 1), 1, (1, 2)); F.conv_transpose2d(e2, t2); F.conv_transpose2d(x2, tg,
None, 1, 0, 0, 2); F.conv_transpose3d(x3, t3, h3, 2, 1, (1, 0, 1)); F.conv_tbc(x1.permute(2, 0,
1).contiguous(), k1.permute(2, 1, 0).contiguous(), h6, 1); F.unfold(x2, 3); F.unfold(x2, (2, 3),
(1, 2), (1, 0), (2, 1)); F.unfold(x2[0], 2, stride=2); F.fold(f, (3, 2), 2); F.fold(f.repeat(1, 1,
3), (4, 3), (2, 2), 1, 0, 1); F.fold(f[0], (3, 2), 2)
"""

POOLINGS = """
F.max_pool1d(x1, 2); F.max_pool1d(x1, 3, 2, 1, 1, True); F.max_pool1d(x1[0], 3,
return_indices=True); F.max_pool2d(x2, 2); F.max_pool2d(x2, 3, 2, 1); F.max_pool2d(x2, (3, 2), (2,
1), (1, 0), (1, 2), True); F.max_pool2d(x2, 3, 2, 1, return_indices=True); F.max_pool2d(e2, 2);
F.max_pool2d(i[None], 2); F.max_pool2d(x2 * 0, 2, return_indices=True); F.max_pool3d(x3, 2, 1);
F.max_pool3d(x3, (3, 2, 2), 2, 1); F.max_pool3d(x3[0], 2, return_indices=True);
F.max_pool2d(n[None], 2, 1, return_indices=True); F.avg_pool1d(x1, 3); F.avg_pool1d(x1, 3, 2, 1,
True, False); F.avg_pool2d(x2, 2); F.avg_pool2d(x2, 7, 1, 3); F.avg_pool2d(x2, 3, 2, 1);
F.avg_pool2d(x2, 3, 2, 1, True); F.avg_pool2d(x2, 3, 2, 1, False, False); F.avg_pool2d(x2, 3, 2,
1, True, False); F.avg_pool2d(x2[0], (2, 3), divisor_override=5); F.avg_pool3d(x3, 2);
F.avg_pool3d(x3, 3, 2, 1, True); F.adaptive_avg_pool1d(x1, 4); F.adaptive_avg_pool2d(x2, 1);
F.adaptive_avg_pool2d(x2, (3, 4)); F.adaptive_avg_pool2d(x2, (None, 3));
F.adaptive_avg_pool2d(x2[0], (7, 2)); F.adaptive_avg_pool3d(x3, (2, 3, 4));
F.adaptive_max_pool1d(x1, 3); F.adaptive_avg_pool2d(x2, (0, 2)).detach();
F.adaptive_max_pool2d(x2, (3, 4), return_indices=True); F.adaptive_max_pool2d(x2, (None, 3));
F.adaptive_max_pool3d(x3, 2, return_indices=True); F.lp_pool1d(x1.abs(), 2, 3);
F.lp_pool2d(x2.abs(), 3, 2, 1, True); F.lp_pool3d(x3.abs(), 1, 2);
F.max_unpool1d(*F.max_pool1d(x1, 2, return_indices=True), 2); F.max_unpool2d(*F.max_pool2d(x2, 2,
return_indices=True), 2, output_size=(7, 6)); F.max_unpool3d(*F.max_pool3d(x3, 2,
return_indices=True), 2); F.fractional_max_pool2d(x2, 2, (3, 4), return_indices=True,
_random_samples=x2.detach()[:, :, 0, :2].abs() / 2); F.fractional_max_pool3d(x3, 2, 2,
_random_samples=x3.detach()[:, :, 0, 0, :3].abs() / 2)
"""

NORMS = """
F.layer_norm(x, (4,)); F.layer_norm(x, (4,), m4, h4); F.layer_norm(x, (4,), None, h4);
F.layer_norm(e, (4,)); F.layer_norm(x2, (7, 6), None, None, 0.1); F.layer_norm(x2, x2.shape[1:]);
F.rms_norm(x, (4,)); F.rms_norm(x2, (7, 6), x2[0, 0], 0.1); F.batch_norm(x2, None, None,
training=True); F.batch_norm(x2, None, None, m4, h4, True, eps=0.1); F.batch_norm(x, None, None,
m4, None, True); F.batch_norm(x2, m0, v0, m4, h4); F.batch_norm(x2, m0, v0); F.batch_norm(x, m0,
v0, None, m4); F.batch_norm(x1, None, None, None, h4, True); F.group_norm(x2, 2); F.group_norm(x2,
4, m4, h4); F.group_norm(x, 1, m4); F.instance_norm(x2); F.instance_norm(x1, weight=m4, bias=h4);
F.instance_norm(x2, m0, v0, m4, h4, False); F.local_response_norm(x2, 3);
F.local_response_norm(x1, 2, 0.5)
"""

LOSSES = """
F.mse_loss(a, b); F.mse_loss(a, b, reduction="sum"); F.mse_loss(a, b, weight=P); F.l1_loss(a, b);
F.l1_loss(a, b, reduction="none"); F.smooth_l1_loss(a, b); F.smooth_l1_loss(a, b, beta=0.3);
F.smooth_l1_loss(a, b, beta=0); F.huber_loss(a, b, delta=0.7); F.huber_loss(a, b, "sum",
weight=P); F.mse_loss(a, b, size_average=False); F.mse_loss(a, b, reduce=False); F.kl_div(a, r);
F.kl_div(a, b, log_target=True); F.kl_div(a, r, reduction="batchmean"); F.poisson_nll_loss(a, P);
F.poisson_nll_loss(r, P, False, True); F.gaussian_nll_loss(a, b, r); F.gaussian_nll_loss(a, b,
r[:, :1], full=True); F.gaussian_nll_loss(a, b, 0.5); F.soft_margin_loss(a, signs);
F.hinge_embedding_loss(a, signs, 0.5); F.margin_ranking_loss(a, b, signs, 0.2);
F.cosine_embedding_loss(a, b, sign, 0.1); F.cosine_embedding_loss(a[0], b[0], sign[1]);
F.triplet_margin_loss(a, b, c); F.triplet_margin_loss(a, b, c, 0.5, 1, swap=True,
reduction="none"); F.triplet_margin_with_distance_loss(a, b, c, distance_function=lambda p, q: (p
- q).abs().sum(-1)); F.binary_cross_entropy(r, t.sigmoid(b)); F.binary_cross_entropy(r.round(),
r.round() * 0 + 0.5, P); F.binary_cross_entropy_with_logits(a, r);
F.binary_cross_entropy_with_logits(a * 40, r, P, pos_weight=P[0]); F.nll_loss(l, y3);
F.nll_loss(l, y, w); F.nll_loss(l, y, reduction="none"); F.nll_loss(L, Y, w); F.nll_loss(l, y3,
ignore_index=3, reduction="sum"); F.cross_entropy(l, y3); F.cross_entropy(l, y);
F.cross_entropy(l, y, w, label_smoothing=0.2); F.cross_entropy(L, Y, w, reduction="none");
F.cross_entropy(l, y, label_smoothing=0.1, reduction="none"); F.cross_entropy(l[0], y[0]);
F.cross_entropy(l, R); F.cross_entropy(l, R, w, label_smoothing=0.3); F.cross_entropy(l, R,
reduction="none"); F.cross_entropy(L, L.softmax(1)); F.multi_margin_loss(l, y3);
F.multi_margin_loss(l, y3, 2, 0.5, w); F.multi_margin_loss(l[0], y3[0], reduction="none");
F.multilabel_margin_loss(x[:2], J); F.multilabel_margin_loss(x[0], J[0]);
F.multilabel_soft_margin_loss(a, r, P); F.ctc_loss(lp, labels, (9, 9, 7), (3, 2, 2));
F.ctc_loss(lp, labels, (9, 5, 4), (0, 2, 3), reduction="none"); F.ctc_loss(lp, label_list, (9, 9,
7), (2, 1, 2), 0, "sum"); F.ctc_loss(lp[:, 0], labels[0], (9,), (3,)); F.ctc_loss(lp[:2], labels,
(2, 2, 2), (3, 1, 3), zero_infinity=True)
"""

IMAGES = """
F.interpolate(x2, (5, 9)); F.interpolate(x2, scale_factor=2); F.interpolate(x1, 13,
mode="nearest-exact"); F.interpolate(x1, 13, mode="linear"); F.interpolate(x2, (3, 11),
mode="bilinear"); F.interpolate(x2, (3, 11), mode="bilinear", align_corners=True);
F.interpolate(x2, scale_factor=(0.6, 1.7)); F.interpolate(x2, scale_factor=1.7, mode="bilinear");
F.interpolate(x2, (9, 4), mode="bicubic"); F.interpolate(x2, scale_factor=1.7, mode="bilinear",
recompute_scale_factor=True); F.interpolate(x2, (9, 4), mode="bicubic", align_corners=True);
F.interpolate(x3, 5, mode="trilinear"); F.interpolate(x2, (3, 4), mode="area"); F.interpolate(x2,
(1, 1), mode="bilinear", align_corners=True); F.interpolate(x2, (3, 4), mode="bilinear",
antialias=True); F.interpolate(x2, (3, 9), mode="bicubic", antialias=True); F.pixel_shuffle(x2,
2); F.pixel_unshuffle(x2[:, :, :6], 2); F.channel_shuffle(x2, 2); F.pad(x, (1, 2)); F.pad(x2, (1,
0, 0, 2), value=1.5); F.pad(x, (-1, 2, 1, -1)); F.pad(i, (1, 1), value=3); F.pad(x2, (1, 2, 3, 0),
mode="reflect"); F.pad(x2, (1, 2, 3, 0), mode="replicate"); F.pad(x1, (2, 9), mode="circular");
F.pad(x2, (-1, 2, 1, -2), mode="replicate"); F.pad(x2, (-1, 2, 1, -2), mode="circular"); F.pad(x3,
(1, 1, 0, 2, 1, 0), mode="reflect"); F.affine_grid(theta, (2, 1, 3, 4), False);
F.affine_grid(theta, (2, 1, 3, 4), True); F.affine_grid(theta3, (2, 1, 2, 3, 4), False);
F.grid_sample(x2, grid, align_corners=False); F.grid_sample(x2, grid, align_corners=True);
F.grid_sample(x2, grid, "nearest", align_corners=False); F.grid_sample(x2, grid * 2, "bilinear",
"border", False); F.grid_sample(x2, grid * 3, "bilinear", "reflection", False); F.grid_sample(x2,
grid * 3, "bilinear", "reflection", True); F.grid_sample(x2, grid, "bicubic",
align_corners=False); F.grid_sample(x2, grid * 2, "bicubic", "border", True); F.grid_sample(x2,
grid * 2, "bicubic", "reflection", False); F.grid_sample(x3, grid3, align_corners=False);
F.grid_sample(x3, grid3, "nearest", "border", True)
"""

ATTENTION = """
F.scaled_dot_product_attention(Q, K, V); F.scaled_dot_product_attention(Q, K, V, mask);
F.scaled_dot_product_attention(Q, K, V, A, scale=0.3); F.scaled_dot_product_attention(Q, K, V,
is_causal=True); F.scaled_dot_product_attention(Q, K2, K2, enable_gqa=True);
F.scaled_dot_product_attention(Q[0, 0], K[0, 0], V[0, 0]); F.multi_head_attention_forward(S, S, S,
8, 2, I, i24, None, None, False, 0.0, O, o8); F.multi_head_attention_forward(S, M, M, 8, 2, I,
i24, None, None, False, 0.0, O, o8, key_padding_mask=late); F.multi_head_attention_forward(S, M, M
* 2, 8, 2, I, None, bk, bk, True, 0.0, O, o8, attn_mask=~mask[[0, 0, 2]]);
F.multi_head_attention_forward(S, M, M, 8, 4, I, i24, None, None, True, 0.0, O, None, attn_mask=A,
average_attn_weights=False); F.multi_head_attention_forward(S[:, 0], M[:, 0], M[:, 0], 8, 2, I,
i24, None, None, False, 0.0, O, o8, key_padding_mask=late[0]); F.multi_head_attention_forward(S,
S, S, 8, 2, None, i24, None, None, False, 0.0, O, o8, need_weights=False,
use_separate_proj_weight=True, q_proj_weight=O, k_proj_weight=O * 2, v_proj_weight=I[:8])
"""

FAMILIES = {
    "activations": ACTIVATIONS, "dense": DENSE, "convolutions": CONVOLUTIONS, "pooling": POOLINGS,
    "norms": NORMS, "losses": LOSSES, "images": IMAGES, "attention": ATTENTION,
}  # fmt: skip


def split(table: str) -> list[str]:
    """Return the expressions of a table."""
    return " ".join(table.split()).split("; ")
