"""Settings of PyTorch's code generator: they can be set, and change nothing."""

from types import SimpleNamespace

config = SimpleNamespace(
    coordinate_descent_tuning=False, epilogue_fusion=True, fx_graph_cache=True,
    triton=SimpleNamespace(unique_kernel_names=True, cudagraphs=False),
)  # fmt: skip
