"""What must hold of gradients: those of a replay are those of the function, or are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import tracegraph as tg
from tests.fuzz.check import SEED, Mismatch, tracegraph_program
from tests.fuzz.program import Built, Program
from tests.fuzz.values import leaves
from tracegraph.errors import AutogradError, TraceGraphError


def _gradients(function: Callable[..., Any], built: Built) -> list[Any]:
    """The gradients of a weighted sum of results, to inputs and State; None where there is none."""
    tg.manual_seed(SEED)
    args = built.inputs(0)
    for t in leaves(args):
        if t.dtype.is_floating_point and t.is_leaf:
            t.requires_grad_()
    total = None
    for t in leaves(function(*args)):
        if t.requires_grad:
            weights = np.random.default_rng(t.numel()).uniform(-1, 1, tuple(t.shape))
            term = (t * tg.tensor(weights).to(t.dtype)).sum().to(tg.float64)
            total = term if total is None else total + term
    sources = [t for t in (*leaves(args), *leaves(built.state)) if t.requires_grad and t.is_leaf]
    sources = list({id(t): t for t in sources}.values())
    if total is None:
        return [None] * len(sources)
    found = tg.autograd.grad(total, sources, allow_unused=True)
    return [None if g is None else g.numpy() for g in found]


def check_gradients(program: Program) -> str:
    """Compare gradients; returns what the program came to.

    Raises:
        Mismatch: gradients of the replay are others than those of the function.
    """
    if ".data" in str(program):
        return "writes that gradients do not see"
    eager, live = tracegraph_program(program), tracegraph_program(program)
    try:
        traced = tg.trace(live.function, live.inputs(0), check=False)
        wanted = _gradients(eager.function, eager)
    except (TraceGraphError, UnboundLocalError):
        return "refused by eager or trace"
    try:
        found = _gradients(traced, live)
    except AutogradError:
        return "refused by the replay"
    for a, b in zip(found, wanted, strict=True):
        a, b = (np.zeros(1) if g is None else g for g in (a, b))
        if not np.allclose(a, b, rtol=1e-6, atol=1e-8, equal_nan=True):
            raise Mismatch("gradients of the replay", f"{a} instead of {b}", program)
    return "equal" if any(g is not None for g in wanted) else "none"
