"""The profiler under its older name."""

from tracegraph.profiler import profile, record_function

__all__ = ["profile", "record_function"]
