"""What runs at once: Tensors and their memory, dispatch of ops, the tape and the backward pass."""
