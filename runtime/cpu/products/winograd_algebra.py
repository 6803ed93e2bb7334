"""Transforms of `winograd` in registers: a small matrix, and sums and differences of pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tracegraph.dtypes import DType
from tracegraph.runtime.cpu.code.values import constant_text, element_type
from tracegraph.runtime.cpu.code.writer import Writer
from tracegraph.runtime.cpu.products.winograd import Matrix


class Algebra(NamedTuple):
    """Vectors of a function that is being written."""

    w: Writer
    dtype: DType
    width: int
    has_fma: bool

    @property
    def vector(self) -> str:
        """The type of a vector."""
        return f"<{self.width} x {element_type(self.dtype)}>"

    def in_two_dims(
        self, rows: Matrix, values: list[list[str]], *, is_result: bool = False
    ) -> list[list[str]]:
        """Return R · values · Rᵀ, where R is a matrix and the step of sums and differences."""
        for _ in range(2):
            columns = zip(*values, strict=True)
            values = [self._transformed(rows, column, is_result) for column in columns]
        return values

    def _transformed(self, rows: Matrix, values: Sequence[str], is_result: bool) -> list[str]:
        if is_result:
            return [self._sum(row, self._paired(values)) for row in rows]
        return self._paired([self._sum(row, values) for row in rows])

    def _paired(self, values: Sequence[str]) -> list[str]:
        """Return the values, those of pairs replaced by their sum and difference."""
        found = [values[0]]
        for i in range(1, len(values) - 1, 2):
            x, y = values[i], values[i + 1]
            found += [self._let("fadd", x, y), self._let("fsub", x, y)]
        return [*found, values[-1]]

    def _sum(self, row: Sequence[float], values: Sequence[str]) -> str:
        """Return the sum of values times factors, those of factor 1 first."""
        terms = [(factor, x) for factor, x in zip(row, values, strict=True) if factor]
        terms.sort(key=lambda term: term[0] != 1)
        (first, total), *others = terms
        if first != 1:
            total = self._let("fmul", self._factor(first), total)
        for factor, x in others:
            if abs(factor) == 1:
                total = self._let("fadd" if factor > 0 else "fsub", total, x)
                continue
            kind = element_type(self.dtype)
            total = self.w.multiply_add(
                kind, self.width, self.has_fma, self._factor(factor), x, total
            )
        return total

    def _let(self, name: str, x: str, y: str) -> str:
        return self.w.let(f"{name} {self.vector} {x}, {y}")

    def _factor(self, number: float) -> str:
        one = f"{element_type(self.dtype)} {constant_text(number, self.dtype)}"
        return f"<{', '.join([one] * self.width)}>"
