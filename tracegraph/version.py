"""Versions: of this package, and of the PyTorch API that it speaks.

Programs branch on `torch.__version__ >= "2.9"` and the like. `tracegraph.__version__` therefore
begins with the PyTorch release whose names and semantics are implemented; the package's own
version follows as the local part.
"""

from typing import Final

from tracegraph.torch_version import TorchVersion

PACKAGE: Final = "0.1.0"
API: Final = "2.13.0"

__version__ = TorchVersion(f"{API}+tracegraph{PACKAGE}")
cuda = hip = git_version = None
debug = False
