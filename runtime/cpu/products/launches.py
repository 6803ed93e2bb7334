"""What a plan needs to know of kernels: which code, with which arguments, in which order.

`products` and `convolution_products` answer in these words. The caller owns memory: it finds a
place for each `Buffer` and fills pointers into the argument blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from tracegraph.dtypes import DType
from tracegraph.runtime.cpu.code.llvm import Target

BufferKind = Literal["operand", "result", "packed", "scratch"]
# A packed or scratch buffer begins at a multiple of this; operands and results anywhere.
ALIGNMENT = 64


class Array(NamedTuple):
    """How an array lies in memory: strides are in elements, 0 repeats."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: DType


class Buffer(NamedTuple):
    """A place in the caller's memory: an array by its kind and number, and bytes from its start."""

    kind: BufferKind
    number: int
    offset_bytes: int = 0


class Launch(NamedTuple):
    """A run of a kernel. `arguments` are the words of its argument block, in order, by name.

    `flops` are the multiplications and additions of a contraction.
    """

    kernel: str
    arguments: dict[str, int | Buffer]
    chunks: int
    cost_ns: int
    flops: int = 0

    @property
    def operands(self) -> list[Buffer]:
        """The operands that it points to."""
        buffers = [x for x in self.arguments.values() if isinstance(x, Buffer)]
        return [x for x in buffers if x.kind == "operand"]


class Kernel(NamedTuple):
    """A kernel by its name, which tells it from all others for a target."""

    name: str
    write: Callable[[Any, Target], str]
    spec: Any
    target: Target

    def text(self) -> str:
        """Return its module of LLVM IR, the same one again for equal kernels.

        Raises:
            UnsupportedError: a step of an epilogue has no native form.
        """
        return _text(self)


@lru_cache(1024)
def _text(kernel: Kernel) -> str:
    return kernel.write(kernel.spec, kernel.target)


class Steps(NamedTuple):
    """Launches in order, and the buffers that they need besides operands and results.

    Attributes: `ahead` (launches that read operands and write "packed" buffers: to be run once, and
    again when an operand has changed), `launches` (each needs those before it to be done),
    `packed_bytes` and `scratch_bytes` (the sizes of these buffers; scratch is dead after the
    launches, and neither needs clearing), `may_alias` (whether result 0 may lie in the memory of
    an operand of the epilogue that has its strides and dtype; else results alias nothing).
    """

    launches: tuple[Launch, ...]
    ahead: tuple[Launch, ...] = ()
    packed_bytes: tuple[int, ...] = ()
    scratch_bytes: tuple[int, ...] = ()
    may_alias: bool = False


class Epilogue:
    """A function that is applied to each sum before it is stored.

    `body(m, total, *operands)` gets an Emitter and Values of compute dtypes (float32 for 16-bit
    floats) and gives a Value, or a tuple of one for each result, of their compute dtypes. `key`
    tells what it computes: bodies of equal keys are the same function.
    """

    __slots__ = ("body", "key")

    def __init__(self, key: str, body: Callable[..., Any]) -> None:
        self.key, self.body = key, body

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Epilogue) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return f"Epilogue({self.key!r})"


PLAIN = Epilogue("", lambda m, total: total)
