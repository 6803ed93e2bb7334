"""PyTorch's question after the CPU."""


def get_cpu_capability() -> str:
    """Return "DEFAULT": kernels are made for the CPU at hand."""
    return "DEFAULT"
