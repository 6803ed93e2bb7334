"""Where things lie in the memory that the native driver shares with Python."""

from __future__ import annotations

from enum import IntEnum


class Control(IntEnum):
    """Byte offsets in a control block.

    Words that different threads write are 128 bytes apart: lines have 128 bytes on Apple's cores,
    and x86 fetches them in pairs. A slot has two words of 32 bits: 1 while its thread is parked or
    about to be, and the number that the system knows the thread by if it may be steered, else 0.
    """

    LEFT = 0  # this line is watched by who has nothing to do
    FINISHED = 8
    STARTED = 16  # groups ever started for several threads
    PENDING = 128
    NEXT = 256  # this line is written by who starts a group
    END = 264
    CURRENT = 272
    FRAME = 280
    WAKES = 288
    LOCK = 384  # this one by the caller that has the pool
    LAST_END = 392
    STOP = 512  # this one hardly ever
    WORKERS = 520
    SPIN_NS = 528
    WAKE_NS = 536
    SHARE_SHIFT = 544
    CORES = 640  # the cores that workers may use, a bit each
    MUTEX = 768
    CONDITION = 896
    SLOTS = 1024  # 8 bytes for the caller (slot 0) and each worker (slots 1, 2, ...)


ENTRIES = ("prepare", "run", "serve", "stop")
CORES_BYTES = 128
RECORD_WORDS = 4  # kernel, arguments, chunks, chunks of the records after it in its group
CALL_WORDS = 4  # records, number of records, frame, cost_ns
