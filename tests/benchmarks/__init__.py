"""Benchmarks: `python -m tests.benchmarks [tables or rows] [--peers torch,...] [--quick]`.

    programs    the programs of `tests/workloads.py`: ours and every library that is installed
    models      other models, of other sizes
    service     latencies: pauses, busy threads, several callers, one core
    startup     from the start of a process to the first answer
    memory      what plans need, and what processes grow by
    micro       what one op, node, trace, file costs

Every library runs in processes of its own, one at a time, in turn for some rounds, with a fixed
number of threads ($THREADS); tables show the least. Nothing here passes or fails.
"""
