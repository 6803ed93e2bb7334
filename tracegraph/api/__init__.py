"""The functions of the public face, by family; `eager.methods` binds them to Tensor."""
