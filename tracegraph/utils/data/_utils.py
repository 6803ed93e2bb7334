"""The modules that PyTorch's `DataLoader` is made of, where programs take functions from."""

import sys

from tracegraph.utils.data import dataloader as collate
from tracegraph.utils.data import dataloader as worker

__all__ = ["collate", "worker"]

for _name in __all__:
    sys.modules[f"{__name__}.{_name}"] = globals()[_name]
