"""Op: one row of the op table, and `define`, which makes a row.

A row says everything about an op once: its signature, type rule, meaning (a scalar expression, a
kernel over NumPy/CuPy arrays, or a decomposition into other ops), gradient, traits, sample
domain and documentation. Dispatch, the verifier, the interpreter, code generation, the docs and
the tests all read the row.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np

from tracegraph.dtypes import COMPLEX as COMPLEX_DTYPES
from tracegraph.dtypes import COMPLEX_KIND, REALS, DType
from tracegraph.errors import DTypeError, OpError
from tracegraph.ops.array_math import math_over
from tracegraph.ops.gradient_plan import NOT_DIFFERENTIABLE, ZERO, Joint, SavePlan, make_plan
from tracegraph.ops.heavy import LEAST
from tracegraph.ops.memory_order import laid_alike, row_major
from tracegraph.ops.parameters import keyword_only_names
from tracegraph.tensor_type import TensorType, broadcast_shapes

# What rows are written with is imported from here, markers of gradients and wrappers included.
__all__ = ["NOT_DIFFERENTIABLE", "ZERO", "Joint", "laid_alike", "row_major"]

# Traits: what passes and runtimes may know about an op without knowing its name.
ELEMENTWISE: Final = "elementwise"  # each output element depends on one element of each operand
COMMUTATIVE: Final = "commutative"  # op(x, y) == op(y, x)
VIEW: Final = "view"  # the eager result shares memory with the first operand
REDUCTION: Final = "reduction"  # folds the dims of the attribute `dim`; results are row-major
CONTRACTION: Final = "contraction"  # sums of products: matmul, convolution
COMPOSITE: Final = "composite"  # defined by a decomposition into other ops
CREATION: Final = "creation"  # takes no tensor operand
RANDOM: Final = "random"  # reads and advances the random state
COUNTED: Final = "counted"  # the attribute `count` is a size that data gives, -1 where unknown
EFFECT: Final = "effect"  # runs each time, for what it does besides giving results
MARK: Final = "mark"  # the first operand, with a word about its gradient
# As results of elementwise ops and views do, these may lie in the order of an operand; others give
# rows.
LAID_ALIKE: Final = "laid alike"
COMPLEX: Final = "complex"  # takes complex operands too; its gradient rules hold for them
# Takes complex operands too, and is holomorphic: there its rules are conjugated, see `SavePlan`.
HOLOMORPHIC: Final = "holomorphic"

Attrs = Mapping[str, Any]
TypeRule = Callable[..., TensorType | tuple[TensorType, ...]]


class Spec(NamedTuple):
    """How a test draws one operand: shape, range, and kind.

    Kinds: `f` floats, `c` complex numbers (both parts in the range), `i` int64, `b` bool,
    `p` symmetric positive definite matrices.
    """

    shape: tuple[int, ...]
    low: float = -2.0
    high: float = 2.0
    kind: str = "f"


class Case(NamedTuple):
    """One sample call of an op: operands and attributes."""

    inputs: tuple[Spec, ...]
    attrs: dict[str, Any]


def reals(low: float, high: float, arity: int = 1, kind: str = "f") -> tuple[Case, ...]:
    """Sample cases of an elementwise op over [low, high]: plain, broadcast, 0-d and empty."""
    shapes: tuple[tuple[tuple[int, ...], ...], ...]
    if arity == 1:
        shapes = (((3, 4),), ((),), ((0, 2),))
    else:
        tail = ((3, 4),) * (arity - 2)
        shapes = (
            ((3, 4), (3, 4), *tail),
            ((3, 1), (4,), *tail),
            ((), (2,), *(((2,),) * (arity - 2))),
            ((0, 2), (1, 2), *(((0, 2),) * (arity - 2))),
        )
    return tuple(Case(tuple(Spec(s, low, high, kind) for s in group), {}) for group in shapes)


def case(*inputs: Spec | tuple[int, ...], **attrs: Any) -> Case:
    """One sample case; a bare shape means reals in [-2, 2]."""
    return Case(tuple(s if isinstance(s, Spec) else Spec(s) for s in inputs), attrs)


@dataclass(frozen=True, eq=False)
class Op:
    """One row of the op table. See `define` for the meaning of the fields."""

    name: str
    signature: str
    operands: tuple[str, ...]
    results: tuple[str, ...]
    variadic: bool
    least: int
    type_rule: TypeRule
    kernel: Callable[..., Any] | None
    scalar: Callable[..., Any] | None
    decompose: Callable[..., Any] | None
    vjp: Any
    traits: frozenset[str]
    write_back: Callable[..., Any] | None
    sample: tuple[Case, ...]
    attrs: tuple[str, ...]
    version: int
    doc: str
    view: bool
    counted: bool
    heavy: int
    differentiable: bool
    complex: bool
    holomorphic: bool
    _plans: dict[int, SavePlan] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        return f"<op {self.name}>"

    def __reduce__(self) -> Any:
        raise OpError("ops are not pickled; name them")

    def infer(self, types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
        """Return the result types for operand types.

        Raises:
            OpError: the operands do not fit; the sentence names op, operand types, attributes.
        """
        if len(types) < self.least or (len(types) > len(self.operands) and not self.variadic):
            raise OpError(f"{self.signature} was given {len(types)} operands")
        try:
            if not self.complex and any(t.dtype.is_complex for t in types):
                raise DTypeError("not implemented for complex dtypes")
            result = self.type_rule(*types, **attrs)
        except OpError as error:
            if "operands" in str(error):
                raise
            shown = ", ".join(map(str, types))
            raise type(error)(f"{error} (in {self.name}, operands {shown})") from None
        results = (result,) if isinstance(result, TensorType) else result
        for t in results:
            for size in t.shape:
                if size.__class__ is not int and size < 0:
                    raise OpError(f"{self.name} would give the shape {t}")
        return results

    def save_plan(self, mask: int) -> SavePlan:
        """Return what to keep and which rules to run when the operands in `mask` need gradients."""
        plan = self._plans.get(mask)
        if plan is None:
            plan = self._plans[mask] = make_plan(self, mask)
        return plan


_BLOCK: Final = 1 << 15  # elements; 128 kB of float32

_SIGNATURE = re.compile(r"(\w+(?:::\w+)?)\(([^)]*)\)\s*->\s*(.+)")


def _elementwise_kernel(scalar: Callable[..., Any]) -> Callable[..., Any]:
    def kernel(xp: Any, *arrays: Any, **attrs: Any) -> Any:
        return scalar(math_over(xp), *arrays, **attrs)

    return kernel


def in_blocks(scalar: Callable[..., Any]) -> Callable[..., Any]:
    """Return the kernel of a long unary expression: large arrays go through it block by block.

    Its many temporaries then stay in cache, and in memory that is not given back in between: gelu
    of 512 · 1024 float32 numbers takes 2.6 ms instead of 9.0 inside a network.
    """
    whole = _elementwise_kernel(scalar)

    def kernel(xp: Any, x: Any, **attrs: Any) -> Any:
        if xp.__name__ != "numpy" or x.size < 4 * _BLOCK or not x.flags.c_contiguous:
            return whole(xp, x, **attrs)
        out = xp.empty_like(x)
        source, target = x.reshape(-1), out.reshape(-1)
        for start in range(0, x.size, _BLOCK):
            part = slice(start, start + _BLOCK)
            target[part] = whole(xp, source[part], **attrs)
        return out

    return in_float32(kernel)


def _is_half(array: Any) -> bool:
    return getattr(array, "itemsize", 0) == 2 and array.dtype.kind in "fV"


def is_complex(x: Any) -> bool:
    """Whether an array or a Tensor is complex; numbers are not."""
    return hasattr(x, "dtype") and x.dtype.kind in ("c", COMPLEX_KIND)


def refuse_complex(op: str, arrays: Sequence[Any]) -> None:
    """Check that no array is complex: NumPy orders complex numbers, and would compute something.

    Raises:
        DTypeError: one is.
    """
    if any(map(is_complex, arrays)):
        raise DTypeError(f"{op} is not implemented for complex dtypes")


def in_float32(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a kernel so that 16-bit floats are computed in float32 and rounded once at the end."""

    def wrapped(xp: Any, *arrays: Any, **attrs: Any) -> Any:
        for a in arrays:
            if getattr(a, "itemsize", 0) == 2 and _is_half(a):
                return _narrowed(function, a.dtype, xp, arrays, attrs)
        return function(xp, *arrays, **attrs)

    wrapped.computed = function  # type: ignore[attr-defined]
    return wrapped


def _narrowed(
    function: Callable[..., Any], dtype: Any, xp: Any, arrays: Sequence[Any], attrs: Attrs
) -> Any:
    wide = [a.astype(xp.float32) if _is_half(a) else a for a in arrays]
    out = function(xp, *wide, **attrs)

    def narrow(a: Any) -> Any:
        return a.astype(dtype) if a.dtype == xp.float32 else a

    return tuple(map(narrow, out)) if isinstance(out, tuple) else narrow(out)


# The highest number of a NumPy dtype that is neither complex nor a 16-bit float.
_PLAIN: Final = np.dtype(np.longdouble).num


def _for_reals(op: str, kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a kernel so that it refuses complex operands; that of `in_float32` at no more cost."""
    function = getattr(kernel, "computed", None)
    if function is None:

        def checked(xp: Any, *arrays: Any, **attrs: Any) -> Any:
            for a in arrays:
                if getattr(a, "itemsize", 4) > 4 and a.dtype.kind == "c":
                    refuse_complex(op, arrays)
            return kernel(xp, *arrays, **attrs)

        return checked

    def wrapped(xp: Any, *arrays: Any, **attrs: Any) -> Any:
        for a in arrays:
            if getattr(a, "itemsize", 4) != 4 and a.dtype.num > _PLAIN:
                refuse_complex(op, arrays)
                return _narrowed(function, a.dtype, xp, arrays, attrs)
        return function(xp, *arrays, **attrs)

    return wrapped


def define(
    signature: str,
    *,
    type: TypeRule,
    vjp: Any,
    scalar: Callable[..., Any] | None = None,
    kernel: Callable[..., Any] | None = None,
    decompose: Callable[..., Any] | None = None,
    traits: tuple[str, ...] = (),
    write_back: Callable[..., Any] | None = None,
    sample: tuple[Case, ...] = (),
    version: int = 1,
    doc: str,
) -> Op:
    """Make one row of the op table.

    Args:
        signature: `"name(x, y) -> z"`; tensor operands only; the last may be `*xs` (any number)
            or `b?` (may be left out); several results are named, `-> *ys` is any number.
        type: result type(s) from operand types and attributes; raises `OpError`.
        vjp: a tuple with one rule per operand (None where there is no gradient), a `Joint`,
            `ZERO` or `NOT_DIFFERENTIABLE`. A rule names what it needs: `m` (ops), `g` (gradient
            of the result; a tuple for several results), operands, results, `x_type`, attributes.
            Gradients are summed over broadcast axes by the driver, not by rules.
        scalar: elementwise ops: the expression over the scalar language.
        kernel: others (and long expressions, see `in_blocks`): a function
            `(xp, *arrays, **attrs)` over NumPy or CuPy.
        decompose: composites: the same op written `(m, *operands, **attrs)` in other ops. With a
            kernel as well, the kernel is what eager and the interpreter run.
        traits: see the constants of this module. Without COMPLEX or HOLOMORPHIC an op refuses
            complex operands.
        write_back: views: `(m, base, value, **attrs)` gives the base after a write of the view.
        sample: cases that tests and docs draw operands from.
        version: raised when the meaning changes.
        doc: one sentence, with the source of the formula.
    """
    match = _SIGNATURE.fullmatch(signature.strip())
    if match is None:
        raise OpError(f"bad op signature {signature!r}")
    name, left, right = match.groups()
    names = [n.strip() for n in left.split(",") if n.strip()]
    results = tuple(n.strip().lstrip("*") for n in right.split(","))
    all_traits = frozenset(traits)
    if scalar is not None:
        kernel = kernel or in_float32(_elementwise_kernel(scalar))
        all_traits |= {ELEMENTWISE}
    takes_complex = not all_traits.isdisjoint((COMPLEX, HOLOMORPHIC))
    if kernel is not None and not takes_complex:
        kernel = _for_reals(name, kernel)
    if kernel is not None and REDUCTION in all_traits:
        kernel = row_major(kernel)
    if decompose is not None:
        all_traits |= {COMPOSITE}
    return Op(
        name=name,
        signature=signature,
        operands=tuple(n.lstrip("*").rstrip("?") for n in names),
        results=results,
        variadic=bool(names) and names[-1].startswith("*"),
        least=sum(not n.startswith("*") and not n.endswith("?") for n in names),
        type_rule=type,
        kernel=kernel,
        scalar=scalar,
        decompose=decompose,
        vjp=vjp,
        traits=all_traits,
        write_back=write_back,
        sample=sample,
        attrs=keyword_only_names(type),
        version=version,
        doc=doc,
        view=VIEW in all_traits,
        counted=COUNTED in all_traits,
        heavy=LEAST.get(name, 0),
        differentiable=vjp is not NOT_DIFFERENTIABLE,
        complex=takes_complex,
        holomorphic=HOLOMORPHIC in all_traits,
    )


def elementwise_type(
    among: Sequence[DType] = REALS, result: DType | None = None
) -> Callable[..., TensorType]:
    """Type rule: operands of one dtype out of `among`, broadcast; `result` fixes the dtype.

    Whether they may be complex is for the row's traits to say.
    """

    def rule(*types: TensorType) -> TensorType:
        dtype = types[0].dtype
        for t in types:
            if t.dtype is not dtype:
                raise DTypeError(f"operands have different dtypes {dtype} and {t.dtype}")
        if dtype not in among and dtype not in COMPLEX_DTYPES:
            raise DTypeError(f"not implemented for dtype {dtype}")
        return TensorType(result or dtype, broadcast_shapes([t.shape for t in types]))

    return rule


def is_composite(op: Op) -> bool:
    """Whether the op is defined by a decomposition."""
    return COMPOSITE in op.traits
