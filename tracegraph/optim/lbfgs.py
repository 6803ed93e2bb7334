"""L-BFGS: quasi-Newton steps from the last gradients. It decides by values, so it is not traced.

Nocedal & Wright, "Numerical Optimization" (2006): algorithm 7.4 for the direction, 3.5 and 3.6 for
the line search; the step within a bracket is the minimum of a cubic, equation 3.59.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from tracegraph.autograd import enable_grad, no_grad
from tracegraph.eager.dispatch import front
from tracegraph.eager.tensors import Tensor
from tracegraph.ops.core import refuse_complex
from tracegraph.optim.optimizer import Optimizer
from tracegraph.optim.rule import check_not_negative

# The two Wolfe conditions: sufficient decrease and curvature (Nocedal & Wright, page 62).
_DECREASE: Final = 1e-4
_CURVATURE: Final = 0.9
_SEARCH_STEPS: Final = 25
# A pair of differences counts only where the curvature along the step is positive.
_POSITIVE: Final = 1e-10

Evaluate = Callable[[float], "Point"]


class Point(NamedTuple):
    """A place on the search line: step, loss, gradient [n], and slope along the direction."""

    t: float
    loss: float
    gradient: Tensor
    slope: float


def _dot(x: Tensor, y: Tensor) -> float:
    return float((x * y).sum().item())


def _largest(x: Tensor) -> float:
    return float(x.abs().max().item())


def _cubic_minimum(a: Point, b: Point, low: float, high: float) -> float:
    """Return where the cubic through two points and slopes is least, within [low, high]."""
    if a.t > b.t:
        a, b = b, a
    if a.t == b.t:
        return (low + high) / 2
    d1 = a.slope + b.slope - 3 * (a.loss - b.loss) / (a.t - b.t)
    square = d1 * d1 - a.slope * b.slope
    if not square >= 0:
        return (low + high) / 2
    d2 = math.sqrt(square)
    t = b.t - (b.t - a.t) * ((b.slope + d2 - d1) / (b.slope - a.slope + 2 * d2))
    return min(max(t, low), high)


def _bracket(evaluate: Evaluate, start: Point, t: float) -> tuple[list[Point], bool, int]:
    """Widen the step until two points hold a good one: (points, one is good, steps taken)."""
    before, now = start, evaluate(t)
    for step in range(_SEARCH_STEPS):
        enough = start.loss + _DECREASE * now.t * start.slope
        if now.loss > enough or (step > 1 and now.loss >= before.loss):
            return [before, now], False, step
        if abs(now.slope) <= -_CURVATURE * start.slope:
            return [now, now], True, step
        if now.slope >= 0:
            return [before, now], False, step
        least, most = now.t + 0.01 * (now.t - before.t), now.t * 10
        before, now = now, evaluate(_cubic_minimum(before, now, least, most))
    return [start, now], False, _SEARCH_STEPS


def _inside(points: list[Point], stalled: bool) -> tuple[float, bool]:
    """Return the next step in a bracket, and whether it came close to an end of it."""
    low, high = sorted(p.t for p in points)
    t = _cubic_minimum(points[0], points[1], low, high)
    margin = 0.1 * (high - low)
    if min(high - t, t - low) >= margin:
        return t, False
    if not stalled and low < t < high:
        return t, True
    return (high - margin if high - t < t - low else low + margin), False


def strong_wolfe(
    evaluate: Evaluate, start: Point, t: float, width: float, tolerance: float
) -> Point:
    """Return a point that meets the strong Wolfe conditions, or the best one found.

    Args:
        evaluate: gives the Point at a step.
        start: the point at step 0, with a negative slope.
        t: the first step to try.
        width: largest element of the direction: brackets below `tolerance / width` end the search.
        tolerance: smallest change of a parameter that matters.
    """
    points, good, taken = _bracket(evaluate, start, t)
    best = 0 if points[0].loss <= points[1].loss else 1
    stalled = False
    while not good and taken < _SEARCH_STEPS:
        if abs(points[1].t - points[0].t) * width < tolerance:
            break
        t, stalled = _inside(points, stalled)
        now = evaluate(t)
        taken += 1
        worst = 1 - best
        enough = start.loss + _DECREASE * t * start.slope
        if now.loss > enough or now.loss >= points[best].loss:
            points[worst] = now
            best = 0 if points[0].loss <= points[1].loss else 1
            continue
        if abs(now.slope) <= -_CURVATURE * start.slope:
            good = True
        elif now.slope * (points[worst].t - points[best].t) >= 0:
            points[worst] = points[best]
        points[best] = now
    return points[best]


class LBFGS(Optimizer):
    """L-BFGS with a fixed step or a line search (`line_search_fn="strong_wolfe"`).

    `step` needs a closure that clears the gradients, computes the loss, and calls `backward`.

    Raises:
        ValueError: more than one parameter group.
    """

    def __init__(
        self, params: Iterable[Any], lr: Any = 1, max_iter: int = 20, max_eval: int | None = None,
        tolerance_grad: float = 1e-7, tolerance_change: float = 1e-9, history_size: int = 100,
        line_search_fn: str | None = None,
    ) -> None:  # fmt: skip
        check_not_negative(lr=lr)
        if line_search_fn not in (None, "strong_wolfe"):
            raise ValueError("line_search_fn is None or 'strong_wolfe'")
        defaults = {
            "lr": lr,
            "max_iter": max_iter,
            "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
            "tolerance_grad": tolerance_grad,
            "tolerance_change": tolerance_change,
            "history_size": history_size,
            "line_search_fn": line_search_fn,
        }
        super().__init__(params, defaults)
        if len(self.param_groups) != 1:
            raise ValueError("LBFGS doesn't support per-parameter options (parameter groups)")
        self._params: list[Tensor] = self.param_groups[0]["params"]
        refuse_complex("LBFGS", [p._data for p in self._params])

    def _gradient(self) -> Tensor:
        """Return all gradients as one vector [n]."""
        flat = [(p * 0.0 if p.grad is None else p.grad).detach().reshape(-1) for p in self._params]
        out: Tensor = front.cat(*flat, dim=0)
        return out

    def _move(self, t: float, direction: Tensor) -> None:
        offset = 0
        for p in self._params:
            n = p.numel()
            p.add_(direction[offset : offset + n].reshape(p.shape), alpha=t)
            offset += n

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take up to `max_iter` steps; returns the loss before the first.

        Raises:
            TypeError: there is no closure.
        """
        if closure is None:
            raise TypeError("LBFGS.step needs a closure that computes the loss")
        compute = enable_grad()(closure)
        first = compute()
        with no_grad():
            self._iterate(compute, float(first))
        return first

    def _iterate(self, compute: Callable[[], Any], loss: float) -> None:
        group, state = self.param_groups[0], self.state[self._params[0]]
        gradient = self._gradient()
        evaluations, iterations = 1, 0
        state["func_evals"] = state.get("func_evals", 0) + 1
        done = _largest(gradient) <= group["tolerance_grad"]
        while not done and iterations < group["max_iter"]:
            iterations += 1
            state["n_iter"] = state.get("n_iter", 0) + 1
            d = self._direction(state, gradient)
            lr = float(group["lr"])
            first_size = (
                min(1.0, 1.0 / float(gradient.abs().sum())) if state["n_iter"] == 1 else 1.0
            )
            state.update(d=d, prev_flat_grad=gradient, prev_loss=loss)
            before = loss
            start = Point(0.0, loss, gradient, _dot(gradient, d))
            state["t"] = first_size * lr
            if start.slope > -group["tolerance_change"]:
                break
            last = iterations == group["max_iter"]
            point, used = self._advance(compute, start, state["t"], d, last)
            loss, gradient, state["t"] = point.loss, point.gradient, point.t
            evaluations += used
            state["func_evals"] += used
            done = (
                evaluations >= group["max_eval"]
                or _largest(gradient) <= group["tolerance_grad"]
                or _largest(d) * abs(point.t) <= group["tolerance_change"]
                or abs(loss - before) < group["tolerance_change"]
            )

    def _direction(self, state: dict[str, Any], gradient: Tensor) -> Tensor:
        """Return the quasi-Newton direction [n], after taking in the last step."""
        if state["n_iter"] == 1:
            state.update(old_dirs=[], old_stps=[], ro=[], H_diag=1.0)
            downhill: Tensor = -gradient
            return downhill
        change, moved = gradient - state["prev_flat_grad"], state["d"] * state["t"]
        changes, steps, inverse = state["old_dirs"], state["old_stps"], state["ro"]
        curvature = _dot(change, moved)
        if curvature > _POSITIVE:
            if len(changes) == self.param_groups[0]["history_size"]:
                for history in (changes, steps, inverse):
                    history.pop(0)
            changes.append(change)
            steps.append(moved)
            inverse.append(1.0 / curvature)
            state["H_diag"] = curvature / _dot(change, change)
        d: Tensor = -gradient
        weights = [0.0] * len(changes)
        for i in reversed(range(len(changes))):
            weights[i] = _dot(steps[i], d) * inverse[i]
            d = d - changes[i] * weights[i]
        d = d * state["H_diag"]
        for i in range(len(changes)):
            d = d + steps[i] * (weights[i] - _dot(changes[i], d) * inverse[i])
        return d

    def _advance(
        self, compute: Callable[[], Any], start: Point, t: float, d: Tensor, last: bool
    ) -> tuple[Point, int]:
        """Move along `d`; return where, and how often the loss was computed."""
        group = self.param_groups[0]
        if group["line_search_fn"] is None:
            self._move(t, d)
            if last:
                return Point(t, start.loss, start.gradient, start.slope), 0
            loss, gradient = float(compute()), self._gradient()
            return Point(t, loss, gradient, 0.0), 1
        origin = [p.clone() for p in self._params]
        count = 0

        def put_back() -> None:
            for p, at in zip(self._params, origin, strict=True):
                p.copy_(at)

        def evaluate(t: float) -> Point:
            nonlocal count
            count += 1
            self._move(t, d)
            loss, gradient = float(compute()), self._gradient()
            put_back()
            return Point(t, loss, gradient, _dot(gradient, d))

        point = strong_wolfe(evaluate, start, t, _largest(d), group["tolerance_change"])
        self._move(point.t, d)
        return point, count
