"""PyTorch's question after openmp."""


def is_available() -> bool:
    """Whether openmp is used: NumPy and the kernels made here do without it."""
    return False
