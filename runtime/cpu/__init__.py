"""The native CPU runtime: a graph becomes machine code through LLVM, run in one native call."""

WORKER = "tracegraph-worker"
"""What the names of the threads that help running plans begin with."""
