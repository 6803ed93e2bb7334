"""Tracing: a run of a function is recorded, and the runs of several examples become one graph."""
