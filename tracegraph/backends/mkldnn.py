"""PyTorch's question after mkldnn."""


def is_available() -> bool:
    """Whether mkldnn is used: NumPy and the kernels made here do without it."""
    return False


enabled = False
