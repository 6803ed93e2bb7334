"""The native CPU runtime: a graph becomes machine code through LLVM, run in one native call."""
