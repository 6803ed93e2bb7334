"""Small kernels and plans for the tests and benchmarks of the native driver."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from tracegraph.runtime.cpu.code.llvm import Code, compile_object
from tracegraph.runtime.cpu.driver.driver import Driver
from tracegraph.runtime.cpu.driver.layout import RECORD_WORDS
from tracegraph.runtime.cpu.driver.pool import Call, Pool

DEAR = 1 << 40  # ns: worth waking everybody, and releasing the GIL
CHEAP = 1000

_LOOP = """
define void @{name}(ptr %arguments, ptr %frame, i64 %begin, i64 %end) nounwind {{
entry:
  br label %loop
loop:
  %i = phi i64 [%begin, %entry], [%i.next, %next]
{body}
  br label %next
next:
  %i.next = add i64 %i, 1
  %more = icmp slt i64 %i.next, %end
  br i1 %more, label %loop, label %done
done:
  ret void
}}
"""
_BODIES = {
    # arguments: i64[chunks]. Chunk i adds 1 to its own word, plainly: twice would show.
    "count": """
  %place = getelementptr i64, ptr %arguments, i64 %i
  %old = load i64, ptr %place
  %new = add i64 %old, 1
  store i64 %new, ptr %place""",
    # arguments: i64[chunks]. Chunk i stores the number of the call, frame[1].
    "fill": """
  %number.at = getelementptr i64, ptr %frame, i64 1
  %number = load i64, ptr %number.at
  %place = getelementptr i64, ptr %arguments, i64 %i
  store i64 %number, ptr %place""",
    # arguments: from, to, chunks. to[i] = from[chunks - 1 - i] + 1: what another chunk has written.
    "follow": """
  %from = load ptr, ptr %arguments
  %to.at = getelementptr i64, ptr %arguments, i64 1
  %to = load ptr, ptr %to.at
  %chunks.at = getelementptr i64, ptr %arguments, i64 2
  %chunks = load i64, ptr %chunks.at
  %last = sub i64 %chunks, 1
  %other = sub i64 %last, %i
  %from.place = getelementptr i64, ptr %from, i64 %other
  %old = load i64, ptr %from.place
  %new = add i64 %old, 1
  %to.place = getelementptr i64, ptr %to, i64 %i
  store i64 %new, ptr %to.place""",
    # arguments: i64[chunks]. Error 1 unless word i is frame[1] + frame[2].
    "check": """
  %number.at = getelementptr i64, ptr %frame, i64 1
  %number = load i64, ptr %number.at
  %steps.at = getelementptr i64, ptr %frame, i64 2
  %steps = load i64, ptr %steps.at
  %right = add i64 %number, %steps
  %place = getelementptr i64, ptr %arguments, i64 %i
  %found = load i64, ptr %place
  %wrong = icmp ne i64 %found, %right
  %code = zext i1 %wrong to i64
  %old = atomicrmw umax ptr %frame, i64 %code monotonic""",
    # arguments: i64[1], a code. Chunk i reports code + i.
    "fail": """
  %base = load i64, ptr %arguments
  %code = add i64 %base, %i
  %old = atomicrmw umax ptr %frame, i64 %code monotonic""",
    # arguments: i64[1], a number of multiplications that wait for each other.
    "work": """
  %rounds = load i64, ptr %arguments
  br label %turn
turn:
  %r = phi i64 [0, %loop], [%r.next, %turn]
  %x = phi i64 [%i, %loop], [%y, %turn]
  %x.odd = or i64 %x, 1
  %y = mul i64 %x.odd, %x.odd
  %r.next = add i64 %r, 1
  %again = icmp ult i64 %r.next, %rounds
  br i1 %again, label %turn, label %turned
turned:
  store volatile i64 %y, ptr %frame.sink
""",
    # arguments: i64[1]. Chunks meet in pairs: each waits until the other is there, so one thread
    # alone would wait for ever; after some 10 s it reports error 1.
    "meet": """
  %old = atomicrmw add ptr %arguments, i64 1 acq_rel
  %pair = or i64 %old, 1
  br label %poll
poll:
  %polls = phi i64 [0, %loop], [%polls.next, %poll]
  %here = load atomic i64, ptr %arguments acquire, align 8
  %polls.next = add i64 %polls, 1
  %met = icmp sgt i64 %here, %pair
  %tired = icmp ugt i64 %polls, 10000000000
  %over = or i1 %met, %tired
  br i1 %over, label %met.or.tired, label %poll
met.or.tired:
  %code = zext i1 %tired to i64
  %before = atomicrmw umax ptr %frame, i64 %code monotonic""",
}


Step = tuple[str, np.ndarray, int]


@cache
def kernels() -> Code:
    """Return the kernels, compiled."""
    texts = []
    for name, body in _BODIES.items():
        text = _LOOP.format(name=name, body=body)
        if "%frame.sink" in text:
            sink = "entry:\n  %frame.sink = alloca i64"
            text = text.replace("entry:", sink, 1)
        texts.append(text)
    return Code([compile_object(texts)], _BODIES)


class Plan(NamedTuple):
    """A call and the arrays that its records point to."""

    call: Call
    arrays: tuple[np.ndarray, ...]


def plan(*steps: Step | list[Step], cost_ns: int = DEAR, driver: Driver | None = None) -> Plan:
    """Return a plan of (kernel, arguments, chunks) steps; a list of them is a group."""
    code, rows = kernels(), []
    groups = [step if isinstance(step, list) else [step] for step in steps]
    for group in groups:
        after = sum(chunks for _, _, chunks in group)
        for name, array, chunks in group:
            after -= chunks
            rows.append((code.address(name), array.ctypes.data, chunks, after))
    records = np.array(rows, np.int64).reshape(-1, RECORD_WORDS)
    call = Call(records, np.zeros(8, np.int64), cost_ns, driver)
    return Plan(call, tuple(array for group in groups for _, array, _ in group))


def relay(
    chunks: int, steps: int, cost_ns: int = DEAR, driver: Driver | None = None, parts: int = 1
) -> Plan:
    """Return a plan whose steps hand words on: error 1 tells a step that began too early.

    Each step is a group of `parts` records. `frame[1]`, the number of the call, must differ from
    call to call.
    """
    words = [np.zeros(max(chunks, 1), np.int64) for _ in range(2)]
    cuts = [chunks * i // parts for i in range(parts + 1)]

    def link(source: np.ndarray, target: np.ndarray, begin: int, end: int) -> np.ndarray:
        source, target = source[chunks - end :], target[begin:]  # `follow` reads from the end
        return np.array([source.ctypes.data, target.ctypes.data, end - begin], np.int64)

    made = plan(
        [("fill", words[0][a:], b - a) for a, b in pairwise(cuts)],
        *(
            [
                ("follow", link(words[k % 2], words[1 - k % 2], a, b), b - a)
                for a, b in pairwise(cuts)
            ]
            for k in range(steps)
        ),
        [("check", words[steps % 2][a:], b - a) for a, b in pairwise(cuts)],
        cost_ns=cost_ns,
        driver=driver,
    )
    made.call.frame[2] = steps
    return Plan(made.call, (*made.arrays, *words))


def checked(made: Plan, pool: Pool | None = None) -> Callable[[], None]:
    """Return a function that runs a relay as a new call and raises if it was out of order."""
    frame = made.call.frame

    def step() -> None:
        frame[1] += 1
        if made.call.run(pool):
            raise AssertionError(f"call {frame[1]}: a record began too early")

    return step
