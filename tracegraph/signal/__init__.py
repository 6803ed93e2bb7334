"""Signal processing, as `torch.signal`."""
