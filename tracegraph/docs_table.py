"""`python -m tracegraph.docs_table [FILE]`: writes docs/ops.md, the op table as a page."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from tracegraph.ops.core import NOT_DIFFERENTIABLE, ZERO, Joint, Op
from tracegraph.ops.table import FAMILIES, OPS

_HEAD = """# The op table

Written by `make docs` from the rows themselves; a test fails when this page is stale.

{count} ops in {families} families. Operands stand before the semicolon, attributes after it. The
operands of an op have one dtype unless the row says otherwise; `?` marks one that may be left out,
`*` any number.

Gradient: `rule` (one rule for each operand; `x -` has none), `joint` (one rule for all operands),
`zero`, or `none` (not differentiable). A trait tells passes and runtimes what they may do without
knowing the op's name: `view` shares memory with its operand in eager code, `composite` has a
decomposition into other ops. The version is raised when the meaning of an op changes.
"""


def ops_page() -> str:
    """Return the text of docs/ops.md."""
    rows = {family: list(_rows_of(family)) for family in FAMILIES}
    lines = [_HEAD.format(count=len(OPS), families=len(rows))]
    for family, ops in rows.items():
        summary = " ".join((family.__doc__ or "").split("\n\n")[0].split())
        lines += [f"## {family.__name__.rpartition('.')[2]}", "", summary, ""]
        lines += ["| op | v | gradient | traits | meaning |", "|---|---|---|---|---|"]
        lines += ["| " + " | ".join(cells) + " |" for cells in map(_cells, ops)]
        lines.append("")
    return "\n".join(lines)


def _rows_of(family: ModuleType) -> Iterator[Op]:
    """Yield the rows of a family module once each, in its order."""
    yield from dict.fromkeys(row for row in vars(family).values() if isinstance(row, Op))


def _cells(op: Op) -> list[str]:
    name, _, rest = op.signature.strip().partition("(")
    operands, _, results = rest.partition(")")
    taken = "; ".join(part for part in (operands, ", ".join(op.attrs)) if part)
    shown = f"`{name}({taken}){results}`"
    traits = ", ".join(sorted(op.traits))
    return [shown, str(op.version), _gradient(op), traits, op.doc.replace("|", "\\|")]


def _gradient(op: Op) -> str:
    if op.vjp is NOT_DIFFERENTIABLE:
        return "none"
    if op.vjp is ZERO:
        return "zero"
    if isinstance(op.vjp, Joint):
        return "joint"
    without = [o for o, rule in zip(op.operands, op.vjp, strict=False) if rule is None]
    return ", ".join(["rule", *(f"`{o}` -" for o in without)])


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/ops.md")
    target.write_text(ops_page(), encoding="utf-8")
    print(f"{target}: {len(OPS)} ops")
