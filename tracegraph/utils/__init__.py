"""Helpers for training programs: data loading and checkpointing."""

from tracegraph.utils import checkpoint, data

__all__ = ["checkpoint", "data"]
