"""Files: written, read, verified by samples, and compared."""
