"""The version, under PyTorch's names."""

__version__ = "0.1.0"
cuda = hip = git_version = None
debug = False
