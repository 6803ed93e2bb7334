"""Kernels of whole layers: recurrences and attention."""
