"""Acceptance programs: what five tutorials on PyTorch's dynamic graphs do, as users write it.

Each file uses the library under the name `torch`. `tests/test_documents.py` runs it as it stands
and, where PyTorch is installed, once more with PyTorch in that place.
"""
