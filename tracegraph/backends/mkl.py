"""PyTorch's question after mkl."""


def is_available() -> bool:
    """Whether mkl is used: NumPy and the kernels made here do without it."""
    return False
