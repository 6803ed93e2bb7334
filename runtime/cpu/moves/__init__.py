"""Kernels that move or make elements: by index arrays, through windows, along scans, at random."""
