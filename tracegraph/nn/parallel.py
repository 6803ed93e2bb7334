"""Wrappers that programs for several devices put around a model; here they only pass it on."""

from __future__ import annotations

from typing import Any

from tracegraph.nn.modules.module import Module


class DataParallel(Module):
    """Calls `module`, with its Parameters under `module.`; the batch is not split."""

    def __init__(
        self, module: Any, device_ids: Any = None, output_device: Any = None, dim: int = 0
    ) -> None:
        super().__init__()
        self.dim = dim
        self.module = module
        self.device_ids = list(device_ids) if device_ids else []
        self.output_device = output_device

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """Call the module."""
        return self.module(*inputs, **kwargs)


class DistributedDataParallel(DataParallel):
    """Calls `module`; there is one process, so there are no gradients to average."""

    def __init__(self, module: Any, device_ids: Any = None, **options: Any) -> None:
        super().__init__(module, device_ids)


def data_parallel(
    module: Any, inputs: Any, device_ids: Any = None, output_device: Any = None, dim: int = 0,
    module_kwargs: dict[str, Any] | None = None,
) -> Any:  # fmt: skip
    """Call the module on the inputs."""
    args = inputs if isinstance(inputs, tuple) else (inputs,)
    return module(*args, **(module_kwargs or {}))
