"""Runtimes: each turns a Graph into a Program for one device."""

if __name__ == "runtime":
    raise ImportError("import tracegraph.runtime, not runtime: the folder is reached by a link")
