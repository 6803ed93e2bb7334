"""The functions of the public face, by family; bound as Tensor methods in `tracegraph.methods`."""
