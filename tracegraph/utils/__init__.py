"""Helpers for training programs: data loading and checkpointing."""

from tracegraph.utils import checkpoint, data, model_zoo

__all__ = ["checkpoint", "data", "model_zoo"]
