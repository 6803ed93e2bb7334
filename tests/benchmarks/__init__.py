"""Benchmarks: `python -m tests.benchmarks [names] [--peers torch,...] [--quick]` prints tables.

Every library runs the programs of `tests/workloads.py` in processes of its own, one at a time,
with a fixed number of threads. Nothing here passes or fails.
"""
