"""Apple GPUs: there are none here."""


def is_available() -> bool:
    """Whether there is an Apple GPU that can be used: no."""
    return False


def is_built() -> bool:
    """Whether Apple GPUs are supported: no."""
    return False
