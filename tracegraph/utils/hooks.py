"""What removes a hook, under PyTorch's name."""

from tracegraph.nn.modules.state_dict import Handle as RemovableHandle

__all__ = ["RemovableHandle"]
