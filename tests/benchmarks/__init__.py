"""Times of the programs in tests/workloads.py: `make bench`."""
