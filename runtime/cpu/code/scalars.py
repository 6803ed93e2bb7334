"""The scalar language in LLVM IR: what `m` is when a scalar expression becomes native code.

An `Emitter` writes the straight-line part of one function as text, on vectors `<W x T>` (plain `T`
at width 1). A `Value` is one SSA value or constant, with Python's operators. Functions of the
language are looked up in the tables of the `Library`: short ones are written in place, others
become functions of the module, defined when first called.

Values have an element type that arithmetic is done in: float32, float64, integers or bool (i1).
How 16-bit floats and bools lie in memory is the business of `storage`.

Arithmetic means what IEEE 754 and NumPy say: no fast-math flags. The one freedom is `contract`,
which lets the code generator fuse a multiplication and an addition that a row has written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from tracegraph.dtypes import DType, bool_, int64
from tracegraph.runtime.cpu.code.llvm import Target
from tracegraph.runtime.cpu.code.values import (
    Operand,
    UnsupportedError,
    Value,
    constant_text,
    element_type,
)

Function = Callable[..., Any]

# Longer functions of the language are called, shorter ones inlined: code stays bounded in size.
_INLINE_LINES: Final = 64

# Python operator -> instruction for float, integer, bool operands.
_ARITHMETIC: Final = {
    "add": ("fadd", "add", "or"),
    "sub": ("fsub", "sub", None),
    "mul": ("fmul", "mul", "and"),
    "div": ("fdiv", None, None),
    "and": (None, "and", "and"),
    "or": (None, "or", "or"),
    "xor": (None, "xor", "xor"),
}
# Comparison -> predicate for float, signed, unsigned operands. Only `ne` holds for NaN.
_PREDICATES: Final = {
    "lt": ("olt", "slt", "ult"),
    "le": ("ole", "sle", "ule"),
    "gt": ("ogt", "sgt", "ugt"),
    "ge": ("oge", "sge", "uge"),
    "eq": ("oeq", "eq", "eq"),
    "ne": ("une", "ne", "ne"),
}


# What the generic x86-64 processors have, by name; any other is described by its features.
_LEVELS: Final = {
    "x86-64-v2": {"sse4.1"},
    "x86-64-v3": {"sse4.1", "fma", "f16c"},
    "x86-64-v4": {"sse4.1", "fma", "f16c", "avx512f", "avx512vl"},
}


class Abilities(NamedTuple):
    """What a target has instructions for, as far as it changes the code that is written.

    `fma` changes results in the last bits; the others do not.
    """

    fma: bool  # x * y + z, rounded once
    rounding: bool  # floor, ceil, trunc and rint
    halves: bool  # float16 <-> float32
    scaling: bool  # x * 2^k

    @classmethod
    def of(cls, target: Target) -> Abilities:
        """Return what a target has, by its features and the level that its CPU names."""
        if target.triple.startswith(("aarch64", "arm64")):
            return cls(fma=True, rounding=True, halves=True, scaling=False)
        has = {part[1:] for part in target.features.split(",") if part.startswith("+")}
        has |= _LEVELS.get(target.cpu, set())
        return cls("fma" in has, "sse4.1" in has, "f16c" in has, {"avx512f", "avx512vl"} <= has)


class Library:
    """The functions that a module's code calls, each defined once, and the tables of the language.

    `inline` functions are written where they are used; `outlined` ones become functions of the
    module. Either is called as `f(m, *values)` and gives a Value or a tuple of Values.
    """

    def __init__(
        self, abilities: Abilities, inline: Mapping[str, Function], outlined: Mapping[str, Function]
    ) -> None:
        self.abilities, self.inline, self.outlined = abilities, inline, outlined
        self._texts: dict[str, str] = {}
        self._results: dict[str, tuple[DType, ...]] = {}

    def text(self) -> str:
        """Return the definitions. Intrinsics need no declaration."""
        return "\n".join(self._texts.values())

    def constant(self, name: str, text: str) -> str:
        """Define a constant in memory, `[2 x i8] c"..."`, and return its name."""
        symbol = f"@scalar.{name}"
        self._texts[symbol] = f"{symbol} = private constant {text}"
        return symbol

    def define(
        self, symbol: str, width: int, body: Function, operands: Sequence[DType], cold: bool
    ) -> tuple[DType, ...]:
        """Write the function `symbol` unless it is there, and return its result types.

        Raises:
            UnsupportedError: the body has faults, which a function does not hand out.
        """
        if symbol in self._results:
            return self._results[symbol]
        m = Emitter(self, width)
        parameters = [Value(m, f"%a{i}", dtype) for i, dtype in enumerate(operands)]
        got = body(m, *parameters)
        if m.faults:
            raise UnsupportedError(f"{symbol} would lose the fault: {m.faults[0][0]}")
        results = got if isinstance(got, tuple) else (got,)
        returned = m.packed(results)
        attributes = "alwaysinline" if len(m.lines) <= _INLINE_LINES and not cold else "noinline"
        attributes += " cold" if cold else ""
        kind, listed = m.packed_type([r.dtype for r in results]), ", ".join(map(str, parameters))
        self._texts[symbol] = "\n".join(
            (
                f"define internal {kind} @{symbol}({listed}) {attributes} nounwind memory(none) {{",
                "entry:",
                *m.lines,
                f"  ret {kind} {returned}",
                "}",
            )
        )
        self._results[symbol] = tuple(r.dtype for r in results)
        return self._results[symbol]


class Emitter:
    """Writes one function: the scalar language on vectors of `width` elements.

    Attributes: `lines` (the text so far; its names are letters and a number: `%v7`), `label` (the
    basic block being written, which a function with a rare path changes), `faults` (a message and
    a bool Value for what must be raised after the run: integer division by zero).
    """

    def __init__(
        self, library: Library, width: int, *, contract: bool = False, label: str = "entry"
    ) -> None:
        self.library, self.width, self.label = library, width, label
        self.lines: list[str] = []
        self.faults: list[tuple[str, Value]] = []
        self._flags = " contract" if contract else ""
        self._count = 0

    def __getattr__(self, name: str) -> Function:
        library = self.library
        if name in library.inline:
            body = library.inline[name]
            return lambda *operands: body(self, *self.lifted(operands))
        if name in library.outlined:
            body = library.outlined[name]
            return lambda *operands: self.outline(name, body, *self.lifted(operands))
        raise UnsupportedError(f"{name} has no native form")

    # Text.

    def fresh(self, stem: str = "v") -> str:
        """Return a name that is new in this function, without its `%`."""
        self._count += 1
        return f"{stem}{self._count}"

    def emit(self, dtype: DType, instruction: str) -> Value:
        """Append an instruction and return its result."""
        name = f"%{self.fresh()}"
        self.lines.append(f"  {name} = {instruction}")
        return Value(self, name, dtype)

    def type_of(self, dtype: DType) -> str:
        """Return the LLVM type of a Value of this dtype: `<16 x float>`."""
        element = element_type(dtype)
        return element if self.width == 1 else f"<{self.width} x {element}>"

    def intrinsic(
        self, name: str, dtype: DType, *operands: Value, overloads: Sequence[DType] = ()
    ) -> Value:
        """Call an LLVM intrinsic, overloaded on the type of its first operand unless given."""
        suffix = ".".join(map(self._suffix, overloads or (operands[0].dtype,)))
        listed = ", ".join(map(str, operands))
        return self.emit(dtype, f"call {self.type_of(dtype)} @llvm.{name}.{suffix}({listed})")

    def _suffix(self, dtype: DType) -> str:
        """Return the type as it stands in the name of an intrinsic: `v16f32`."""
        bits = 1 if dtype is bool_ else 8 * dtype.itemsize
        element = f"{'f' if dtype.is_floating_point else 'i'}{bits}"
        return element if self.width == 1 else f"v{self.width}{element}"

    def constant(self, number: float, dtype: DType) -> Value:
        """Return a constant in every lane; a float is rounded to the dtype."""
        text = constant_text(number, dtype)
        if self.width > 1:
            text = f"splat ({element_type(dtype)} {text})"
        return Value(self, text, dtype, number)

    def lifted(self, operands: Sequence[Operand]) -> list[Value]:
        """Return the operands as Values of one dtype, which the Values among them have."""
        dtypes = {x.dtype for x in operands if isinstance(x, Value)}
        if len(dtypes) != 1:
            raise UnsupportedError(f"operands of dtypes {sorted(d.name for d in dtypes)}")
        (dtype,) = dtypes
        return [x if isinstance(x, Value) else self.constant(x, dtype) for x in operands]

    # Operators.

    def arithmetic(self, name: str, x: Operand, y: Operand) -> Value:
        """Return `x + y` and the like."""
        x, y = self.lifted((x, y))
        kind = 0 if x.dtype.is_floating_point else 2 if x.dtype is bool_ else 1
        instruction = _ARITHMETIC[name][kind]
        if instruction is None:
            raise UnsupportedError(f"{name} of {x.dtype}")
        flags = self._flags if kind == 0 and name != "div" else ""
        return self.emit(x.dtype, f"{instruction}{flags} {x}, {y.text}")

    def compare(self, name: str, x: Operand, y: Operand) -> Value:
        """Return the bool Value of a comparison."""
        x, y = self.lifted((x, y))
        if x.dtype.is_floating_point:
            return self.emit(bool_, f"fcmp {_PREDICATES[name][0]} {x}, {y.text}")
        column = 1 if x.dtype.is_signed else 2
        return self.emit(bool_, f"icmp {_PREDICATES[name][column]} {x}, {y.text}")

    def where(self, condition: Value, x: Operand, y: Operand) -> Value:
        """Return x where the condition holds, else y; a choice, not a product."""
        x, y = self.lifted((x, y))
        return self.emit(x.dtype, f"select {condition}, {x}, {y}")

    def fma(self, x: Operand, y: Operand, z: Operand) -> Value:
        """Return x * y + z, rounded once where the target can, else twice."""
        x, y, z = self.lifted((x, y, z))
        if self.library.abilities.fma:
            return self.intrinsic("fma", x.dtype, x, y, z)
        product = self.emit(x.dtype, f"fmul {x}, {y.text}")
        return self.emit(x.dtype, f"fadd {product}, {z.text}")

    def view(self, x: Value, dtype: DType) -> Value:
        """Return the bits of x as another dtype of the same size."""
        if element_type(x.dtype) == element_type(dtype):
            return Value(self, x.text, dtype)
        return self.emit(dtype, f"bitcast {x} to {self.type_of(dtype)}")

    def convert(self, instruction: str, x: Value, dtype: DType) -> Value:
        """Apply a conversion instruction: `fpext`, `sitofp`, `trunc`."""
        return self.emit(dtype, f"{instruction} {x} to {self.type_of(dtype)}")

    # Functions and control flow.

    def outline(self, name: str, body: Function, *operands: Value, cold: bool = False) -> Any:
        """Call `body` as a function of the module; gives what body gives, one Value or several."""
        dtypes = [x.dtype for x in operands]
        symbol = f"scalar.{name}.{'.'.join(d.code for d in dtypes)}x{self.width}"
        results = self.library.define(symbol, self.width, body, dtypes, cold)
        kind = self.packed_type(results)
        got = self.emit(results[0], f"call {kind} @{symbol}({', '.join(map(str, operands))})")
        if len(results) == 1:
            return got
        return tuple(
            self.emit(dtype, f"extractvalue {kind} {got.text}, {i}")
            for i, dtype in enumerate(results)
        )

    def packed_type(self, dtypes: Sequence[DType]) -> str:
        """Return the type of one result, or of a struct of several."""
        kinds = [self.type_of(dtype) for dtype in dtypes]
        return kinds[0] if len(kinds) == 1 else f"{{ {', '.join(kinds)} }}"

    def packed(self, values: Sequence[Value]) -> str:
        """Return the name of one result, or of a struct of several."""
        if len(values) == 1:
            return values[0].text
        kind, name = self.packed_type([v.dtype for v in values]), "poison"
        for i, value in enumerate(values):
            name = self.emit(value.dtype, f"insertvalue {kind} {name}, {value}, {i}").text
        return name

    def any_lane(self, condition: Value) -> str:
        """Return the i1 that says whether a bool Value holds in any lane."""
        if self.width == 1:
            return condition.text
        name = f"@llvm.vector.reduce.or.{self._suffix(bool_)}"
        return self.emit(bool_, f"call i1 {name}({condition})").text

    def repaired(
        self, wrong: Value, usual: Sequence[Value], repair: Callable[[], Sequence[Value]]
    ) -> list[Value]:
        """Return the usual values, with those of `repair` in the lanes that are wrong.

        `repair` is branched around where no lane is wrong.
        """
        start, rare, done = self.label, self.fresh("rare"), self.fresh("done")
        found = self.any_lane(wrong)
        self.lines += [f"  br i1 {found}, label %{rare}, label %{done}", f"{rare}:"]
        self.label = rare
        right = [self.where(wrong, x, y) for x, y in zip(repair(), usual, strict=True)]
        self.lines += [f"  br label %{done}", f"{done}:"]
        end, self.label = self.label, done
        return [
            self.emit(
                x.dtype,
                f"phi {self.type_of(x.dtype)} [ {y.text}, %{start} ], [ {x.text}, %{end} ]",
            )
            for x, y in zip(right, usual, strict=True)
        ]

    def repeated(
        self, start: Sequence[Value], step: Callable[..., tuple[Value, Sequence[Value]]]
    ) -> list[Value]:
        """Apply `step` to the values, at least once, while it says so in any lane.

        `step(*values)` gives a bool Value (again) and the new values.
        """
        before, loop, done = self.label, self.fresh("loop"), self.fresh("done")
        self.lines += [f"  br label %{loop}", f"{loop}:"]
        self.label, place = loop, len(self.lines)
        names = [Value(self, f"%{self.fresh()}", x.dtype) for x in start]
        again, new = step(*names)
        found = self.any_lane(again)
        self.lines[place:place] = [
            f"  {x.text} = phi {self.type_of(x.dtype)} "
            f"[ {first.text}, %{before} ], [ {later.text}, %{self.label} ]"
            for x, first, later in zip(names, start, new, strict=True)
        ]
        self.lines += [f"  br i1 {found}, label %{loop}, label %{done}", f"{done}:"]
        self.label = done
        return list(new)

    def per_lane(self, name: str, body: Function, *operands: Value) -> tuple[Value, ...]:
        """Call `body`, which has several results, for one lane after the other; for rare paths."""
        if self.width == 1:
            return tuple(self.outline(name, body, *operands, cold=True))
        before, loop, done = self.label, self.fresh("lanes"), self.fresh("done")
        self.lines += [f"  br label %{loop}", f"{loop}:"]
        place, lane = len(self.lines), f"%{self.fresh()}"
        single = Emitter(self.library, 1)
        single.lines, single._count = self.lines, self._count
        parts = [single.emit(x.dtype, f"extractelement {x}, i64 {lane}") for x in operands]
        got = single.outline(name, body, *parts, cold=True)
        self._count = single._count
        start = [Value(self, f"%{self.fresh()}", x.dtype) for x in got]
        new = [
            self.emit(y.dtype, f"insertelement {y}, {x}, i64 {lane}")
            for x, y in zip(got, start, strict=True)
        ]
        following = self.emit(int64, f"add i64 {lane}, 1").text
        more = self.emit(bool_, f"icmp ne i64 {following}, {self.width}").text
        self.lines[place:place] = [
            f"  {lane} = phi i64 [ 0, %{before} ], [ {following}, %{loop} ]",
            *(
                f"  {x.text} = phi {self.type_of(x.dtype)} "
                f"[ poison, %{before} ], [ {y.text}, %{loop} ]"
                for x, y in zip(start, new, strict=True)
            ),
        ]
        self.lines += [f"  br i1 {more}, label %{loop}, label %{done}", f"{done}:"]
        self.label = done
        return tuple(new)
