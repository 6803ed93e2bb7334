"""What a native plan does, for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tracegraph.runtime.cpu.steps import HostCall

if TYPE_CHECKING:
    from tracegraph.runtime.cpu.program import Compiled


def explained_plan(compiled: Compiled, sizes: Mapping[str, int]) -> str:
    """Return a line for each step: chunks, estimated time, what it computes, the user's line."""
    plan, arena = compiled.plan, compiled.arena
    kernels = {s.kernel.name for s in plan.steps if not isinstance(s, HostCall)}
    hosts = sum(isinstance(s, HostCall) for s in plan.steps)
    bound = "".join(f" {name}={size}" for name, size in sizes.items())
    lines = [
        f"{len(plan.steps)} steps{bound}: {len(kernels)} kernels in {len(plan.steps) - hosts} "
        f"launches, {hosts} host calls; arena {arena.bytes} bytes, {arena.live_bytes} alive at most"
    ]
    for made, buffers in plan.ahead.values():
        size = sum(b.bytes for b in buffers)
        lines += [f"  ahead   {s.cost_ns / 1e3:9.1f} us  {s.what} into {size} bytes" for s in made]
    for step in plan.steps:
        node = step.node
        place = f"  at {node.loc}" if node is not None and node.loc is not None else ""
        if isinstance(step, HostCall):
            lines.append(f"  host                  {step.node.op} ({step.why}){place}")
        else:
            lines.append(
                f"  native  {step.cost_ns / 1e3:9.1f} us  {step.what} x{step.chunks}{place}"
            )
    return "\n".join(lines)
