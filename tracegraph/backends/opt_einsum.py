"""Switches of the order of einsum: kept, without effect."""

enabled = False
strategy = None


def is_available() -> bool:
    """Whether opt_einsum is used: no."""
    return False
