"""The modules that PyTorch's `DataLoader` is made of, where programs take functions from."""

from tracegraph.module_names import also_named
from tracegraph.utils.data import dataloader

also_named(__name__, "collate worker", dataloader)
