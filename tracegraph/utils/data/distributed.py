"""PyTorch's place of DistributedSampler."""

from tracegraph.utils.data.sampler import DistributedSampler

__all__ = ["DistributedSampler"]
