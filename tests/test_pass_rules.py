"""Each rule of the exact passes as text: what it makes of a graph, and what it must leave alone.

A case is `passes`, `header`, lines before, lines after. Lines are `name: type = op`, as in the
text form; `return` names the results.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.random_graphs import assert_same_bits, evaluate, operands
from tracegraph.dtypes import ALL, DType, bool_, float16, float32, float64, int32, int64
from tracegraph.ir.graph import Graph
from tracegraph.ir.text import parse_graph, print_graph
from tracegraph.ir.verify import verify
from tracegraph.ops.table import OPS
from tracegraph.passes.algebra import is_lossless
from tracegraph.passes.canonical import commutes_exactly
from tracegraph.passes.pipeline import run_passes

X = "%x: f32[2,3]"
XY = "%x: f32[2,3], %y: f32[2,3]"


def graph_of(header: str, lines: str) -> Graph:
    """A graph from a header and its lines; the types of the results are looked up."""
    body = [line.strip() for line in lines.strip().splitlines()]
    types = {}
    for line in body:
        if "=" in line and not line.startswith("write"):
            left, _, right = line.partition(" = ")
            names, _, known = left.partition(": ")
            types |= dict(zip(names.split(", "), known.split(", "), strict=True))
    for part in header.split(", %"):
        name, _, known = part.partition(": ")
        types["%" + name.lstrip("%")] = known.split(" =")[0]
    returned = [r for r in body[-1].removeprefix("return").split(", ") if r]
    result = ", ".join(types[r.strip()] for r in returned)
    text = "\n".join(body)
    return parse_graph(f"graph @g({header}) -> ({result}) {{\n{text}\n}}")


# name -> passes, header, before, after. `after` is None where nothing may change.
CASES: dict[str, tuple[str, str, str, str | None]] = {
    # dead_code
    "dead nodes go, inputs stay": (
        "dead_code", XY + ', %t: f32[] = state "t"',
        "%0: f32[2,3] = exp(%x)\n%1: f32[2,3] = neg(%0)\n%2: f32[] = exp(%t)\n"
        '%3: f32[2,3] = neg(%x)\nwrite "t" = %2\nreturn %3',
        "%0: f32[] = exp(%t)\n%1: f32[2,3] = neg(%x)\nwrite \"t\" = %0\nreturn %1"),
    "one result of several": (
        "dead_code", X, "%0, %1: f32[1,3], i64[1,3] = topk(%x; k=1, dim=0, largest=true)\nreturn %1",
        None),
    "a written State stays": (
        "dead_code", '%x: f32[2], %s: f32[2] = state "s"', 'write "s" = %x\nreturn', None),
    # canonicalise
    "constants to the right": (
        "canonicalise", X, "%0: f32[] = constant(value=2.0)\n%1: f32[2,3] = add(%0, %x)\nreturn %1",
        "%0: f32[] = constant(value=2.0)\n%1: f32[2,3] = add(%x, %0)\nreturn %1"),
    "larger operand to the left": (
        "canonicalise", "%b: f32[3], %x: f32[2,3]", "%0: f32[2,3] = mul(%b, %x)\nreturn %0",
        "%0: f32[2,3] = mul(%x, %b)\nreturn %0"),
    "comparisons mirror": (
        "canonicalise", XY, "%0: b8[2,3] = lt(%y, %x)\n%1: b8[2,3] = ge(%y, %x)\nreturn %0, %1",
        "%0: b8[2,3] = gt(%x, %y)\n%1: b8[2,3] = le(%x, %y)\nreturn %0, %1"),
    "subtraction has an order": (
        "canonicalise", XY, "%0: f32[2,3] = sub(%y, %x)\nreturn %0", None),
    "maximum tells zeros apart": (
        "canonicalise", XY, "%0: f32[2,3] = maximum(%y, %x)\nreturn %0", None),
    "maximum of integers does not": (
        "canonicalise", "%x: i64[2], %y: i64[2]", "%0: i64[2] = maximum(%y, %x)\nreturn %0",
        "%0: i64[2] = maximum(%x, %y)\nreturn %0"),
    "full is an expand": (
        "canonicalise", X, "%0: f32[2,3] = full(shape=(2, 3), value=1, dtype=f32)\nreturn %0",
        "%0: f32[] = constant(value=1.0)\n%1: f32[2,3] = expand(%0; shape=(2, 3))\nreturn %1"),
    "full of one element": (
        "canonicalise", X, "%0: f32[] = full(shape=(), value=1, dtype=f32)\nreturn %0",
        "%0: f32[] = constant(value=1.0)\nreturn %0"),
    "a constant of one value": (
        "canonicalise", X, "%0: f32[2] = constant(value=[-0.0, -0.0])\nreturn %0",
        "%0: f32[] = constant(value=-0.0)\n%1: f32[2] = expand(%0; shape=(2,))\nreturn %1"),
    "zeros of both signs": (
        "canonicalise", X, "%0: f32[2] = constant(value=[0.0, -0.0])\nreturn %0", None),
    # fold_constants
    "constants fold": (
        "fold_constants", X, "%0: f32[2] = constant(value=[1.0, inf])\n%1: f32[2] = neg(%0)\n"
        "%2: f32[2] = add(%1, %1)\nreturn %2",
        "%0: f32[2] = constant(value=[-2.0, -inf])\nreturn %0"),
    "creation folds": (
        "fold_constants", X, "%0: i64[3] = iota(size=3, start=1, step=2, dtype=i64)\nreturn %0",
        "%0: i64[3] = constant(value=[1, 3, 5])\nreturn %0"),
    "several results": (
        "fold_constants", X, "%0: f32[3] = constant(value=[3.0, 9.0, 4.0])\n"
        "%1, %2: f32[1], i64[1] = topk(%0; k=1, dim=0, largest=true)\nreturn %2, %1",
        "%0: f32[1] = constant(value=[9.0])\n%1: i64[1] = constant(value=[1])\nreturn %1, %0"),
    "through an expand": (
        "fold_constants", X, "%0: f32[] = constant(value=2.0)\n"
        "%1: f32[2,2] = expand(%0; shape=(2, 2))\n%2: f32[2,2] = cumsum(%1; dim=0)\nreturn %2",
        "%0: f32[2,2] = constant(value=[[2.0, 2.0], [4.0, 4.0]])\nreturn %0"),
    "State does not fold": (
        "fold_constants", '%s: f32[] = state "s"', "%0: f32[] = neg(%s)\nreturn %0", None),
    "what raises stays": (
        "fold_constants", X, "%0: i64[] = constant(value=0)\n%1: i64[] = floor_divide(%0, %0)\n"
        "return %1", None),
    "large results stay": (
        "fold_constants", X, "%0: i64[99999] = iota(size=99999, start=0, step=1, dtype=i64)\n"
        "return %0", None),
    "random draws stay": (
        "fold_constants", X, "%0: i64[2] = constant(value=[1, 0])\n"
        '%1, %2: f32[2], i64[2] = draw(%0; shape=(2,), dtype=f32, distribution="uniform", low=0, '
        "high=0)\nreturn %1", None),
    # merge_common
    "equal nodes merge": (
        "merge_common", XY, "%0: f32[2,3] = sub(%x, %y)\n%1: f32[2,3] = sub(%x, %y)\n"
        "%2: f32[2,3] = neg(%0)\n%3: f32[2,3] = neg(%1)\nreturn %2, %3",
        "%0: f32[2,3] = sub(%x, %y)\n%1: f32[2,3] = neg(%0)\nreturn %1, %1"),
    "operands in another order": (
        "merge_common", XY, "%0: f32[2,3] = sub(%x, %y)\n%1: f32[2,3] = sub(%y, %x)\n"
        "return %0, %1", None),
    "attributes that are equal in Python only": (
        "merge_common", X, "%0: f32[2,3] = full(shape=(2, 3), value=0.0, dtype=f32)\n"
        "%1: f32[2,3] = full(shape=(2, 3), value=-0.0, dtype=f32)\n"
        "%2: f32[2,3] = pad(%x; pads=((0, 0), (0, 0)), value=1)\n"
        "%3: f32[2,3] = pad(%x; pads=((0, 0), (0, 0)), value=true)\nreturn %0, %1, %2, %3", None),
    "constants by their bits": (
        "merge_common", X, "%0: f32[2] = constant(value=[0.0, nan])\n"
        "%1: f32[2] = constant(value=[-0.0, nan])\n%2: f32[2] = constant(value=[0.0, nan])\n"
        "%3: i32[2] = constant(value=[0, 0])\nreturn %0, %1, %2, %3",
        "%0: f32[2] = constant(value=[0.0, nan])\n%1: f32[2] = constant(value=[-0.0, nan])\n"
        "%2: i32[2] = constant(value=[0, 0])\nreturn %0, %1, %0, %2"),
    "draws of one State are one": (
        "merge_common", '%s: i64[2] = state "random"',
        '%0, %1: f32[2], i64[2] = draw(%s; shape=(2,), dtype=f32, distribution="uniform", low=0, high=0)\n'
        '%2, %3: f32[2], i64[2] = draw(%1; shape=(2,), dtype=f32, distribution="uniform", low=0, high=0)\n'
        "return %0, %2", None),
    # simplify_algebra
    "x · 1": (
        "simplify_algebra", X, "%0: f32[] = constant(value=1.0)\n%1: f32[2,3] = mul(%0, %x)\n"
        "%2: f32[2,3] = div(%1, %0)\nreturn %2", "return %x"),
    "1 · x of a larger shape": (
        "simplify_algebra", "%x: f32[3]", "%0: f32[] = constant(value=1.0)\n"
        "%1: f32[2,3] = expand(%0; shape=(2, 3))\n%2: f32[2,3] = mul(%x, %1)\nreturn %2",
        "%0: f32[2,3] = expand(%x; shape=(2, 3))\nreturn %0"),
    "x + −0.0 and x − 0.0": (
        "simplify_algebra", X, "%0: f32[] = constant(value=-0.0)\n%1: f32[2,3] = add(%x, %0)\n"
        "%2: f32[] = constant(value=0.0)\n%3: f32[2,3] = sub(%1, %2)\nreturn %3", "return %x"),
    "x + 0.0 turns −0.0 into 0.0": (
        "simplify_algebra", X, "%0: f32[] = constant(value=0.0)\n%1: f32[2,3] = add(%x, %0)\n"
        "return %1", None),
    "x − −0.0": (
        "simplify_algebra", X, "%0: f32[] = constant(value=-0.0)\n%1: f32[2,3] = sub(%x, %0)\n"
        "return %1", None),
    "x · 0.0 may be NaN": (
        "simplify_algebra", X, "%0: f32[] = constant(value=0.0)\n%1: f32[2,3] = mul(%x, %0)\n"
        "return %1", None),
    "x − x may be NaN": (
        "simplify_algebra", X, "%0: f32[2,3] = sub(%x, %x)\nreturn %0", None),
    "integers and 0": (
        "simplify_algebra", "%x: i64[2]", "%0: i64[] = constant(value=0)\n%1: i64[2] = add(%x, %0)\n"
        "%2: i64[] = constant(value=1)\n%3: i64[2] = floor_divide(%1, %2)\nreturn %3", "return %x"),
    "false or x": (
        "simplify_algebra", "%x: b8[2]", "%0: b8[] = constant(value=false)\n%1: b8[2] = add(%x, %0)\n"
        "return %1", "return %x"),
    "floor of x / 1 is not x": (
        "simplify_algebra", X, "%0: f32[] = constant(value=1.0)\n"
        "%1: f32[2,3] = floor_divide(%x, %0)\nreturn %1", None),
    "double negation": (
        "simplify_algebra", X, "%0: f32[2,3] = neg(%x)\n%1: f32[2,3] = neg(%0)\nreturn %1",
        "return %x"),
    "double not": (
        "simplify_algebra", "%x: b8[2], %y: i64[2]", "%0: b8[2] = logical_not(%x)\n"
        "%1: b8[2] = logical_not(%0)\n%2: b8[2] = logical_not(%y)\n%3: b8[2] = logical_not(%2)\n"
        "return %1, %3", "%0: b8[2] = logical_not(%y)\n%1: b8[2] = logical_not(%0)\nreturn %x, %1"),
    "not equal": (
        "simplify_algebra", XY, "%0: b8[2,3] = eq(%x, %y)\n%1: b8[2,3] = logical_not(%0)\nreturn %1",
        "%0: b8[2,3] = ne(%x, %y)\nreturn %0"),
    "not less is not greater or equal": (
        "simplify_algebra", XY, "%0: b8[2,3] = lt(%x, %y)\n%1: b8[2,3] = logical_not(%0)\nreturn %1",
        None),
    "idempotent": (
        "simplify_algebra", X, "%0: f32[2,3] = floor(%x)\n%1: f32[2,3] = floor(%0)\n"
        "%2: f32[2,3] = abs(%1)\n%3: f32[2,3] = abs(%2)\n%4: f32[2,3] = maximum(%3, %3)\nreturn %4",
        "%0: f32[2,3] = floor(%x)\n%1: f32[2,3] = abs(%0)\nreturn %1"),
    "logical and of numbers is no number": (
        "simplify_algebra", X, "%0: b8[2,3] = logical_and(%x, %x)\nreturn %0", None),
    "plus minus": (
        "simplify_algebra", XY, "%0: f32[2,3] = neg(%y)\n%1: f32[2,3] = add(%x, %0)\n"
        "%2: f32[2,3] = sub(%1, %0)\n%3: f32[2,3] = add(%0, %2)\nreturn %3",
        "%0: f32[2,3] = sub(%x, %y)\n%1: f32[2,3] = add(%0, %y)\n%2: f32[2,3] = sub(%1, %y)\n"
        "return %2"),
    "minus times minus": (
        "simplify_algebra", XY, "%0: f32[2,3] = neg(%x)\n%1: f32[2,3] = neg(%y)\n"
        "%2: f32[2,3] = mul(%0, %1)\n%3: f32[2,3] = div(%1, %0)\n%4: f32[2,3] = abs(%3)\n"
        "%5: f32[2,3] = neg(%2)\n%6: f32[2,3] = abs(%5)\nreturn %4, %6",
        "%0: f32[2,3] = mul(%x, %y)\n%1: f32[2,3] = div(%y, %x)\n%2: f32[2,3] = abs(%1)\n"
        "%3: f32[2,3] = abs(%0)\nreturn %2, %3"),
    "abs of a negated unsigned": (
        "simplify_algebra", "%x: u8[2]", "%0: u8[2] = neg(%x)\n%1: u8[2] = abs(%0)\nreturn %1", None),
    "x / 4": (
        "simplify_algebra", X, "%0: f32[] = constant(value=-4.0)\n%1: f32[2,3] = div(%x, %0)\n"
        "return %1", "%0: f32[] = constant(value=-0.25)\n%1: f32[2,3] = mul(%x, %0)\nreturn %1"),
    "x / 3": (
        "simplify_algebra", X, "%0: f32[] = constant(value=3.0)\n%1: f32[2,3] = div(%x, %0)\n"
        "return %1", None),
    "x / 2^120": (
        "simplify_algebra", X, "%0: f32[] = constant(value=1.329228e+36)\n"
        "%1: f32[2,3] = div(%x, %0)\nreturn %1", None),
    "where of a constant": (
        "simplify_algebra", "%x: f32[3], %y: f32[2,3]", "%0: b8[] = constant(value=true)\n"
        "%1: f32[2,3] = where(%0, %x, %y)\n%2: f32[2,3] = where(%0, %y, %x)\nreturn %1, %2",
        "%0: f32[2,3] = expand(%x; shape=(2, 3))\nreturn %0, %y"),
    "where of equal branches": (
        "simplify_algebra", X + ", %c: b8[2,3]", "%0: f32[2,3] = where(%c, %x, %x)\nreturn %0",
        "return %x"),
    "where not": (
        "simplify_algebra", XY + ", %c: b8[2,3]", "%0: b8[2,3] = logical_not(%c)\n"
        "%1: f32[2,3] = where(%0, %x, %y)\nreturn %1",
        "%0: f32[2,3] = where(%c, %y, %x)\nreturn %0"),
    "casts there and back": (
        "simplify_algebra", "%x: f16[2]", "%0: f32[2] = cast(%x; dtype=f32)\n"
        "%1: f16[2] = cast(%0; dtype=f16)\n%2: f64[2] = cast(%0; dtype=f64)\n"
        "%3: f16[2] = cast(%1; dtype=f16)\nreturn %3, %2",
        "%0: f64[2] = cast(%x; dtype=f64)\nreturn %x, %0"),
    "casts that lose something": (
        "simplify_algebra", "%x: f32[2], %n: i64[2]", "%0: f16[2] = cast(%x; dtype=f16)\n"
        "%1: f32[2] = cast(%0; dtype=f32)\n%2: f64[2] = cast(%n; dtype=f64)\n"
        "%3: i64[2] = cast(%2; dtype=i64)\n%4: f64[2] = cast(%x; dtype=f64)\n"
        "%5: i64[2] = cast(%4; dtype=i64)\nreturn %1, %3, %5", None),
    "expand before an elementwise op": (
        "simplify_algebra", X + ", %b: f32[3]", "%0: f32[2,3] = expand(%b; shape=(2, 3))\n"
        "%1: f32[2,3] = add(%x, %0)\n%2: f32[1,3] = reshape(%b; shape=(1, 3))\n"
        "%3: f32[2,3] = mul(%1, %2)\nreturn %3",
        "%0: f32[2,3] = add(%x, %b)\n%1: f32[2,3] = mul(%0, %b)\nreturn %1"),
    "elementwise op of expands": (
        "simplify_algebra", "%a: f32[3], %b: f32[]", "%0: f32[2,3] = expand(%a; shape=(2, 3))\n"
        "%1: f32[2,3] = expand(%b; shape=(2, 3))\n%2: f32[2,3] = mul(%0, %1)\nreturn %2",
        "%0: f32[3] = mul(%a, %b)\n%1: f32[2,3] = expand(%0; shape=(2, 3))\nreturn %1"),
    "an expand to nothing computes nothing": (
        "simplify_algebra", "%a: i64[1]", "%0: i64[0] = expand(%a; shape=(0,))\n"
        "%1: i64[0] = floor_divide(%0, %0)\nreturn %1", None),
    # simplify_shapes
    "reshapes": (
        "simplify_shapes", X, "%0: f32[6] = reshape(%x; shape=(6,))\n"
        "%1: f32[3,2] = reshape(%0; shape=(3, 2))\n%2: f32[2,3] = reshape(%1; shape=(2, 3))\n"
        "return %1, %2", "%0: f32[3,2] = reshape(%x; shape=(3, 2))\nreturn %0, %x"),
    "permutes": (
        "simplify_shapes", "%x: f32[2,3,4]", "%0: f32[4,2,3] = permute(%x; dims=(2, 0, 1))\n"
        "%1: f32[3,4,2] = permute(%0; dims=(2, 0, 1))\n%2: f32[2,3,4] = permute(%0; dims=(1, 2, 0))\n"
        "return %1, %2", "%0: f32[3,4,2] = permute(%x; dims=(1, 2, 0))\nreturn %0, %x"),
    "permutes of dims of size 1": (
        "simplify_shapes", "%x: f32[2,1,3]", "%0: f32[1,2,3] = permute(%x; dims=(1, 0, 2))\n"
        "%1: f32[3,1,2] = permute(%x; dims=(2, 1, 0))\nreturn %0, %1",
        "%0: f32[1,2,3] = reshape(%x; shape=(1, 2, 3))\n"
        "%1: f32[3,1,2] = permute(%x; dims=(2, 1, 0))\nreturn %0, %1"),
    "expands": (
        "simplify_shapes", "%x: f32[3]", "%0: f32[2,3] = expand(%x; shape=(2, 3))\n"
        "%1: f32[4,2,3] = expand(%0; shape=(4, 2, 3))\n%2: f32[1,3] = expand(%x; shape=(1, 3))\n"
        "%3: f32[3] = expand(%x; shape=(3,))\nreturn %1, %2, %3",
        "%0: f32[4,2,3] = expand(%x; shape=(4, 2, 3))\n%1: f32[1,3] = reshape(%x; shape=(1, 3))\n"
        "return %0, %1, %x"),
    "shapes of one value": (
        "simplify_shapes", X, "%0: f32[] = constant(value=2.0)\n"
        "%1: f32[2,3] = expand(%0; shape=(2, 3))\n%2: f32[3,2] = permute(%1; dims=(1, 0))\n"
        "%3: f32[6] = reshape(%2; shape=(6,))\n%4: f32[2] = slice(%3; index=((1, 6, 3),))\n"
        "%5: f32[2] = flip(%4; dims=(0,))\nreturn %5",
        "%0: f32[] = constant(value=2.0)\n%1: f32[2] = expand(%0; shape=(2,))\nreturn %1"),
    "whole slices": (
        "simplify_shapes", "%x: f32[1,3]", "%0: f32[1,3] = slice(%x; index=((0, 1, 1), (0, 3, 1)))\n"
        "%1: f32[3] = slice(%0; index=(0, (0, 3, 1)))\nreturn %1",
        "%0: f32[3] = reshape(%x; shape=(3,))\nreturn %0"),
    "slices of slices": (
        "simplify_shapes", "%x: f32[9,4,5]",
        "%0: f32[3,5] = slice(%x; index=((1, 9, 3), 2, (0, 5, 1)))\n"
        "%1: f32[2,2] = slice(%0; index=((1, 3, 1), (1, 5, 2)))\n"
        "%2: f32[5] = slice(%0; index=(2, (0, 5, 1)))\n"
        "%3: f32[0,5] = slice(%0; index=((1, 1, 1), (0, 5, 1)))\nreturn %1, %2, %3",
        "%0: f32[2,2] = slice(%x; index=((4, 8, 3), 2, (1, 4, 2)))\n"
        "%1: f32[5] = slice(%x; index=(7, 2, (0, 5, 1)))\n"
        "%2: f32[0,5] = slice(%x; index=((0, 0, 1), 2, (0, 5, 1)))\nreturn %0, %1, %2"),
    "slices of writes": (
        "simplify_shapes", "%x: f32[6], %y: f32[2]",
        "%0: f32[6] = slice_scatter(%x, %y; index=((0, 2, 1),))\n"
        "%1: f32[2] = slice(%0; index=((0, 2, 1),))\n%2: f32[3] = slice(%0; index=((3, 6, 1),))\n"
        "%3: f32[3] = slice(%0; index=((1, 4, 1),))\nreturn %1, %2, %3",
        "%0: f32[6] = slice_scatter(%x, %y; index=((0, 2, 1),))\n"
        "%1: f32[3] = slice(%x; index=((3, 6, 1),))\n%2: f32[3] = slice(%0; index=((1, 4, 1),))\n"
        "return %y, %1, %2"),
    "writes": (
        "simplify_shapes", "%x: f32[2], %y: f32[1], %z: f32[2], %e: f32[0]",
        "%0: f32[2] = slice_scatter(%x, %y; index=((0, 1, 1),))\n"
        "%1: f32[2] = slice_scatter(%0, %y; index=((0, 1, 1),))\n"
        "%2: f32[2] = slice_scatter(%x, %e; index=((1, 1, 1),))\n"
        "%3: f32[2] = slice_scatter(%x, %z; index=((0, 2, 1),))\n%4: f32[2] = overwrite(%x, %z)\n"
        "%5: f32[2] = copy(%z)\nreturn %1, %2, %3, %4, %5",
        "%0: f32[2] = slice_scatter(%x, %y; index=((0, 1, 1),))\nreturn %0, %x, %z, %z, %z"),
    "a write into zeros is a pad": (
        "canonicalise simplify_shapes", "%y: f32[2,3]",
        "%0: f32[4,5,3] = full(shape=(4, 5, 3), value=0, dtype=f32)\n"
        "%1: f32[4,5,3] = slice_scatter(%0, %y; index=((1, 3, 1), 4, (0, 3, 1)))\n"
        "%2: f32[2] = slice(%1; index=((1, 3, 1), 4, 2))\n"
        "%3: f32[2] = slice(%1; index=((0, 2, 1), 4, 2))\nreturn %1, %2, %3",
        "%0: f32[2,1,3] = reshape(%y; shape=(2, 1, 3))\n"
        "%1: f32[4,5,3] = pad(%0; pads=((1, 1), (4, 0), (0, 0)), value=0.0)\n"
        "%2: f32[2] = slice(%0; index=((0, 2, 1), 0, 2))\n"
        "%3: f32[2] = slice(%1; index=((0, 2, 1), 4, 2))\nreturn %1, %2, %3"),
    "a write with gaps is not": (
        "simplify_shapes", "%y: f32[2]", "%0: f32[] = constant(value=0.0)\n"
        "%1: f32[4] = expand(%0; shape=(4,))\n"
        "%2: f32[4] = slice_scatter(%1, %y; index=((0, 4, 2),))\nreturn %2", None),
    "cats": (
        "simplify_shapes", "%x: f32[2], %e: f32[0], %y: f32[3]", "%0: f32[5] = cat(%x, %e, %y; dim=0)\n"
        "%1: f32[7] = cat(%0, %x; dim=0)\n%2: f32[2] = cat(%x; dim=0)\n"
        "%3: f32[3] = slice(%1; index=((2, 5, 1),))\n%4: f32[] = slice(%1; index=(6,))\n"
        "%5: f32[2] = slice(%1; index=((1, 3, 1),))\nreturn %2, %3, %4, %5",
        "%0: f32[7] = cat(%x, %y, %x; dim=0)\n%1: f32[] = slice(%x; index=(1,))\n"
        "%2: f32[2] = slice(%0; index=((1, 3, 1),))\nreturn %x, %y, %1, %2"),
    "cats of neighbours": (
        "simplify_shapes", "%x: f32[2,6]", "%0: f32[2,2] = slice(%x; index=((0, 2, 1), (0, 2, 1)))\n"
        "%1: f32[2,4] = slice(%x; index=((0, 2, 1), (2, 6, 1)))\n%2: f32[2,6] = cat(%0, %1; dim=1)\n"
        "%3: f32[2,6] = cat(%1, %0; dim=1)\nreturn %2, %3",
        "%0: f32[2,2] = slice(%x; index=((0, 2, 1), (0, 2, 1)))\n"
        "%1: f32[2,4] = slice(%x; index=((0, 2, 1), (2, 6, 1)))\n%2: f32[2,6] = cat(%1, %0; dim=1)\n"
        "return %x, %2"),
    "flips and pads": (
        "simplify_shapes", "%x: f32[1,3]", "%0: f32[1,3] = flip(%x; dims=(0,))\n"
        "%1: f32[1,3] = flip(%0; dims=(0, 1))\n%2: f32[1,3] = flip(%1; dims=(1, 0))\n"
        "%3: f32[1,3] = pad(%2; pads=((0, 0), (0, 0)), value=1)\nreturn %3", "return %x"),
    "reductions of single elements": (
        "simplify_shapes", "%x: f32[2,1], %n: i64[2,1]", "%0: f32[2] = amax(%x; dim=(1,), keepdim=false)\n"
        "%1: i64[2,1] = sum(%n; dim=(1,), keepdim=true)\n%2: f32[2] = sum(%x; dim=(1,), keepdim=false)\n"
        "%3: f32[2,1] = cumsum(%x; dim=1)\n%4: f32[] = sum(%0; dim=(0,), keepdim=false)\n"
        "return %0, %1, %2, %3, %4",
        "%0: f32[2] = reshape(%x; shape=(2,))\n%1: f32[] = constant(value=0.0)\n"
        "%2: f32[2,1] = add(%x, %1)\n%3: f32[2] = reshape(%2; shape=(2,))\n"
        "%4: f32[] = sum(%0; dim=(0,), keepdim=false)\nreturn %0, %n, %3, %x, %4"),
    # reduce_strength, which is not exact
    "powers": (
        "reduce_strength", X, "%0: f32[] = constant(value=2.0)\n%1: f32[2,3] = pow(%x, %0)\n"
        "%2: f32[] = constant(value=3.0)\n%3: f32[2,3] = pow(%x, %2)\n"
        "%4: f32[] = constant(value=-1.0)\n%5: f32[2,3] = pow(%x, %4)\nreturn %1, %3, %5",
        "%0: f32[2,3] = mul(%x, %x)\n%1: f32[2,3] = mul(%x, %x)\n%2: f32[2,3] = mul(%1, %x)\n"
        "%3: f32[2,3] = reciprocal(%x)\nreturn %0, %2, %3"),
    "roots are not powers": (
        "reduce_strength", X, "%0: f32[] = constant(value=0.5)\n%1: f32[2,3] = pow(%x, %0)\nreturn %1",
        None),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_rule(name: str) -> None:
    passes, header, before, after = CASES[name]
    graph = graph_of(header, before)
    verify(graph)
    wanted = print_graph(graph_of(header, after)) if after is not None else print_graph(graph)
    original = graph.copy()
    changes = run_passes(graph, passes.split(), check=True)
    assert print_graph(graph) == wanted
    assert (changes > 0) == (after is not None)
    if name != "what raises stays":
        arrays = operands(original)
        got, before_values = evaluate(graph, *arrays), evaluate(original, *arrays)
        if "reduce_strength" not in passes:
            assert_same_bits(got, before_values)


def test_lossless_casts_are_found() -> None:
    """A cast there and back keeps every extreme value, where `is_lossless` says so."""
    assert is_lossless(float16, float32)
    assert is_lossless(int32, float64)
    assert not is_lossless(int64, float64)
    assert not is_lossless(int32, float32)
    assert not is_lossless(float32, int64)
    assert is_lossless(bool_, float16)
    for a in ALL:
        for b in ALL:
            if is_lossless(a, b):
                values = extremes(a)
                with np.errstate(all="ignore"):
                    back = values.astype(b.np).astype(a.np)
                assert back.tobytes() == values.tobytes(), (a, b)


def extremes(dtype: DType):
    if dtype.kind == 0:
        return np.array([False, True])
    if not dtype.is_floating_point:
        info = np.iinfo(dtype.np)
        return np.array([info.min, info.min + 1, 0, 1, info.max - 1, info.max], dtype=dtype.np)
    bits = np.arange(0, 2**16, 17, dtype=np.uint16)
    patterns = np.repeat(bits, dtype.itemsize // 2).view(dtype.np)
    with np.errstate(all="ignore"):
        return patterns[np.isfinite(patterns)]


def test_whether_operands_commute_is_asked_of_the_kernel() -> None:
    assert commutes_exactly(OPS["add"], float32)
    assert commutes_exactly(OPS["mul"], float16)
    assert commutes_exactly(OPS["eq"], float64)
    assert commutes_exactly(OPS["maximum"], int64)
    assert not commutes_exactly(OPS["sub"], float32)
    assert not commutes_exactly(OPS["maximum"], float32)
    assert not commutes_exactly(OPS["bitwise_and"], float32)


def test_states_that_nothing_reads_or_writes_go() -> None:
    graph = graph_of('%x: f32[], %s: f32[] = state "s", %t: f32[] = state "t"', "return %t")
    assert run_passes(graph, ["dead_code"], check=True) == 1
    assert list(graph.states) == ["t"]
    assert len(graph.inputs) == 1
