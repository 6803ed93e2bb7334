"""Kernels that are loop nests: elementwise ops and reductions."""
