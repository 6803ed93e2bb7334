"""Dims whose size is not fixed: expressions over them, relations between them, `SymInt`."""
