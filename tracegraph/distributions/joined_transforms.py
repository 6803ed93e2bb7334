"""Maps that each take a part of a dim."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tracegraph.api.shape import cat, stack
from tracegraph.distributions.constraints import Constraint
from tracegraph.distributions.transform import Transform


class _Split(Transform):
    """Maps that each take a part of a dim."""

    dim: int
    transforms: list[Transform]

    def _set(self, tseq: Sequence[Transform], dim: int) -> None:
        self.transforms, self.dim = list(tseq), dim
        self.bijective = all(t.bijective for t in self.transforms)

    def _side(self, which: str) -> Constraint:
        """What the parts' constraints say side by side."""
        sides = [getattr(t, which) for t in self.transforms]

        def check(x: Any) -> Any:
            return self._joined([c.check(p) for c, p in zip(sides, self._parts(x), strict=True)])

        return Constraint(f"{type(self).__name__}({sides})", check, max(c.event_dim for c in sides))

    @property
    def domain(self) -> Any:  # type: ignore[override]
        """The domains of the parts."""
        return self._side("domain")

    @property
    def codomain(self) -> Any:  # type: ignore[override]
        """The codomains of the parts."""
        return self._side("codomain")

    def _parts(self, x: Any) -> list[Any]:
        raise NotImplementedError

    def _joined(self, parts: list[Any]) -> Any:
        raise NotImplementedError

    def _call(self, x: Any) -> Any:
        return self._joined([t(p) for t, p in zip(self.transforms, self._parts(x), strict=True)])

    def _inverse(self, y: Any) -> Any:
        pairs = zip(self.transforms, self._parts(y), strict=True)
        return self._joined([t.inv(p) for t, p in pairs])

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        """Return those of the parts, side by side."""
        triples = zip(self.transforms, self._parts(x), self._parts(y), strict=True)
        return self._joined([t.log_abs_det_jacobian(a, b) for t, a, b in triples])


class CatTransform(_Split):
    """Maps of consecutive pieces of a dim, of given lengths."""

    def __init__(
        self, tseq: Sequence[Transform], dim: int = 0, lengths: Sequence[int] | None = None,
        cache_size: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(cache_size)
        self._set(tseq, dim)
        self.lengths = [1] * len(self.transforms) if lengths is None else list(lengths)

    def _parts(self, x: Any) -> list[Any]:
        return list(x.split(self.lengths, self.dim))

    def _joined(self, parts: list[Any]) -> Any:
        return cat(parts, self.dim)


class StackTransform(_Split):
    """Maps of the slices along a dim."""

    def __init__(self, tseq: Sequence[Transform], dim: int = 0, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self._set(tseq, dim)

    def _parts(self, x: Any) -> list[Any]:
        return list(x.unbind(self.dim))

    def _joined(self, parts: list[Any]) -> Any:
        return stack(parts, self.dim)
