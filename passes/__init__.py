"""Passes: each takes a Graph, changes it in place and returns the number of changes."""

if __name__ == "passes":
    raise ImportError("import tracegraph.passes, not passes: the folder is reached by a link")
