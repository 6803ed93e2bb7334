"""Kernels of matrix products and convolutions."""
