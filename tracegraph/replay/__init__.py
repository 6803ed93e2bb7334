"""Calling a graph: the entry points of traces and of loaded files."""
