"""The address of an array's first element, fast.

NumPy's C interface fixes that the pointer to the data follows the object's header, so it can be
read there (0.1 us; `array.ctypes.data` takes 1.3). Where that is not so, the slow way is taken.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import numpy as np

_HEADER = object.__basicsize__
_WORD = ctypes.sizeof(ctypes.c_size_t)
# Memory as one array of words: to take an item of it makes no object of ctypes.
_memory = (ctypes.c_size_t * (sys.maxsize // _WORD)).from_address(0)


def _read(array: Any) -> int:
    return _memory[(id(array) + _HEADER) // _WORD]


def _asked(array: Any) -> int:
    return int(array.ctypes.data)


_probe = np.zeros(3)[1:]
address_of = _read if _read(_probe) == _asked(_probe) else _asked
