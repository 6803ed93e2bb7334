"""Connectionist temporal classification: the likelihood of labels without alignment."""

from __future__ import annotations

from typing import Any

from tracegraph.api import creation, pointwise
from tracegraph.api.promotion import cast, counting, filled
from tracegraph.api.shape import cat, stack
from tracegraph.dtypes import int64
from tracegraph.eager.dispatch import front
from tracegraph.eager.tensors import Tensor, type_of
from tracegraph.errors import OpError
from tracegraph.nn.functional.losses import reduced

# The logarithm of an impossible path: finite, so that its gradient is 0 and not NaN.
_NEVER = -1e30


def _lengths(value: Any, like: Tensor) -> Tensor:
    if isinstance(value, Tensor):
        return cast(value, int64).reshape(-1).to(like.device)
    return creation.tensor(list(value), dtype=int64, device=like.device)


def _padded_targets(targets: Tensor, lengths: Tensor, batch: int) -> Tensor:
    """Targets as [batch, longest]; a 1-d tensor of all of them is cut by their lengths."""
    if targets.ndim == 2:
        return targets
    sizes = [int(n) for n in lengths.tolist()]
    longest = max(sizes, default=0)
    starts = lengths.cumsum(0) - lengths
    places = starts.unsqueeze(1) + counting(lengths, longest).unsqueeze(0)
    if targets.shape[0] == 0:
        return filled(targets, (batch, longest), 0)
    return front.index(targets, places.clamp(0, targets.shape[0] - 1), dims=(0,))


def _shifted(x: Tensor, by: int) -> Tensor:
    """The values of states `by` earlier; those before the first are never."""
    states = x.shape[1]
    kept = front.slice(x, index=((0, x.shape[0], 1), (0, max(states - by, 0), 1)))
    return cat([filled(x, (x.shape[0], min(by, states)), _NEVER), kept], 1)


def _path_logs(emitted: Tensor, labels: Tensor, blank: int, input_lengths: Tensor) -> Tensor:
    """Log-likelihood of ending in each state after the input: the forward recursion.

    Graves et al. 2006, "Connectionist temporal classification", equations 6 to 8.
    """
    steps, _, states = emitted.shape
    never = filled(emitted, (), _NEVER)
    before = cat([filled(labels, (labels.shape[0], 2), blank), labels[:, :-2]], 1)
    may_skip = (labels != blank) & (labels != before[:, :states])
    first = counting(labels, states).unsqueeze(0) < 2
    alpha = pointwise.where(first, emitted[0], never)
    for step in range(1, steps):
        ways = [alpha, _shifted(alpha, 1), pointwise.where(may_skip, _shifted(alpha, 2), never)]
        moved = front.logsumexp(stack(ways), dim=(0,), keepdim=False) + emitted[step]
        running = (input_lengths > step).unsqueeze(1)
        alpha = pointwise.where(running, moved, alpha)
    return alpha


def ctc_loss(
    log_probs: Tensor, targets: Tensor, input_lengths: Any, target_lengths: Any, blank: int = 0,
    reduction: str = "mean", zero_infinity: bool = False,
) -> Tensor:  # fmt: skip
    """Return −log of the likelihood of targets, summed over their alignments.

    log_probs[steps, batch?, class] must be normalised (the gradient relies on it); targets are
    [batch, longest], or 1-d one after the other. The mean is of losses over target lengths.

    Raises:
        OpError: shapes and lengths do not fit.
    """
    batched = log_probs.ndim == 3
    x = log_probs if batched else log_probs.unsqueeze(1)
    if not batched and targets.ndim == 1:
        targets = targets.unsqueeze(0)
    steps, batch, classes = x.shape
    if not 0 <= blank < classes:
        raise OpError("blank must be in label range")
    times, sizes = _lengths(input_lengths, x), _lengths(target_lengths, x)
    if times.shape[0] != batch or sizes.shape[0] != batch:
        raise OpError("input_lengths and target_lengths must be of size batch_size")
    labels = cast(_padded_targets(targets, sizes, batch), int64)
    longest = labels.shape[1]
    known = counting(labels, longest).unsqueeze(0) < sizes.unsqueeze(1)
    blanks = filled(labels, (batch, longest), blank)
    labels = pointwise.where(known, labels, blanks)
    spaced = stack([blanks, labels], 2).reshape(batch, 2 * longest)
    states = cat([spaced, filled(labels, (batch, 1), blank)], 1)
    emitted = front.gather(x, states.unsqueeze(0).expand(steps, *states.shape), dim=2)
    alpha = _path_logs(emitted, states, blank, times)
    last = (sizes * 2).unsqueeze(1)
    ends = [front.gather(alpha, last, dim=1),
            front.gather(alpha, (last - 1).clamp(min=0), dim=1)]  # fmt: skip
    ends[1] = pointwise.where(last > 0, ends[1], filled(alpha, (), _NEVER))
    loss = -front.logsumexp(cat(ends, 1), dim=(1,), keepdim=False)
    loss = loss + _normaliser(x, times)
    missing = filled(loss, (), 0 if zero_infinity else float("inf"))
    loss = pointwise.where(loss > -_NEVER / 10, missing, loss)
    if reduction == "mean":
        weights = cast(sizes.clamp(min=1), type_of(loss).dtype)
        return (loss / weights).mean()
    return reduced(loss if batched else loss.squeeze(0), reduction)


def _normaliser(log_probs: Tensor, input_lengths: Tensor) -> Tensor:
    """0, with the gradient exp(log_probs): what the logits behind log_softmax expect.

    PyTorch's gradient has this term, which a following log_softmax takes out again.
    """
    steps = counting(input_lengths, log_probs.shape[0])
    running = (steps.unsqueeze(1) < input_lengths.unsqueeze(0)).unsqueeze(2)
    total = pointwise.where(running, log_probs.exp(), filled(log_probs, (), 0)).sum((0, 2))
    return total - total.detach()
