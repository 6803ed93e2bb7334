"""Wrappers that programs for several devices put around a model; here they only pass it on."""

from __future__ import annotations

import copy
from typing import Any

from tracegraph.errors import OpError
from tracegraph.module_names import also_named
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


def scatter(inputs: Any, target_gpus: Any, dim: int = 0) -> Any:
    """Return the parts of the inputs that devices get: for one device, the whole."""
    return [inputs]


def gather(outputs: Any, target_device: Any, dim: int = 0) -> Any:
    """Return the outputs of all devices as one: there is one device.

    Raises:
        OpError: outputs of several devices.
    """
    (output,) = _alone(outputs)
    return output


def replicate(network: Any, devices: Any, detach: bool = False) -> Any:
    """Return a copy of the module for each device; its parameters are the same tensors.

    Raises:
        OpError: several devices.
    """
    _alone(devices)
    tensors = (*network.parameters(), *network.buffers())
    return [copy.deepcopy(network, {id(t): t for t in tensors})]


def parallel_apply(
    modules: Any, inputs: Any, kwargs_tup: Any = None, devices: Any = None
) -> list[Any]:
    """Return what each module gives for its inputs."""
    kwargs_tup = kwargs_tup or [{}] * len(modules)
    return [
        module(*(x if isinstance(x, tuple) else (x,)), **kwargs)
        for module, x, kwargs in zip(modules, inputs, kwargs_tup, strict=True)
    ]


class Broadcast:
    """The Function that copies tensors to devices: to one, they are what they are."""

    @staticmethod
    def apply(target_gpus: Any, *inputs: Any) -> tuple[Any, ...]:
        """Return the tensors.

        Raises:
            OpError: several devices.
        """
        _alone(target_gpus)
        return inputs


class ReduceAddCoalesced:
    """The Function that adds up tensors of several devices: of one, they are the sums."""

    @staticmethod
    def apply(destination: Any, num_inputs: int, *grads: Any) -> tuple[Any, ...]:
        """Return the tensors.

        Raises:
            OpError: several devices.
        """
        _alone(grads[::num_inputs])
        return grads


def _alone(devices: Any) -> Any:
    if len(devices) != 1:
        raise OpError(f"a model runs on one device here, but there are {len(devices)}")
    return devices


also_named(__name__, "_functions data_parallel distributed parallel_apply replicate scatter_gather")
