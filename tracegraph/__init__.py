"""tracegraph: eager array programs with PyTorch's names, traced, optimised, saved and replayed.

The eager functions are here at once; tracing, files, `nn`, `optim` and the rest are imported at
first use.
"""

from __future__ import annotations

import importlib
import sys
import warnings as _warnings
from typing import Any

from tracegraph import dtypes as _dtypes
from tracegraph.api.constants import CONSTANTS as _CONSTANTS
from tracegraph.api.functions import FUNCTIONS as _FUNCTIONS
from tracegraph.api.legacy import TYPES as _TYPES
from tracegraph.api.method_functions import METHOD_FUNCTIONS as _METHOD_FUNCTIONS
from tracegraph.autograd.grad_mode import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)
from tracegraph.devices import Device as device
from tracegraph.devices import get_default_device, set_default_device
from tracegraph.dtypes import (
    DType,
    bfloat16,
    complex64,
    complex128,
    finfo,
    float16,
    float32,
    float64,
    get_default_dtype,
    iinfo,
    int8,
    int16,
    int32,
    int64,
    promote_types,
    set_default_dtype,
    uint8,
    uint16,
    uint32,
    uint64,
)
from tracegraph.eager.printing import set_printoptions
from tracegraph.eager.tensors import Size, Tensor
from tracegraph.ops import heavy as _heavy
from tracegraph.random import (
    Generator,
    default_generator,
    get_rng_state,
    initial_seed,
    manual_seed,
    seed,
    set_rng_state,
)
from tracegraph.version import __version__ as __version__

# inf and NaN are results here, as in PyTorch: NumPy's warnings about them are not for users.
_warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"tracegraph\.")

_heavy.offer(lambda: importlib.import_module("tracegraph.single_ops").compute)

dtype = DType
bool = _dtypes.bool_
half, float, double = float16, float32, float64
cfloat, cdouble = complex64, complex128
short, int, long = int16, int32, int64

# `trace` of a matrix is reached through the lazy one, which traces functions.
globals().update({name: f for name, f in _FUNCTIONS.items() if name != "trace"})
globals().update(_METHOD_FUNCTIONS)
globals().update(_TYPES)
globals().update(_CONSTANTS)

_LAZY = {
    "GradScaler": "tracegraph.amp",
    "autocast": "tracegraph.amp",
    "OutOfMemoryError": "tracegraph.cuda",
    **dict.fromkeys(("spmm", "dsmm"), "tracegraph.sparse.algebra"),
    "sparse_coo_tensor": "tracegraph.sparse.tensor",
    "compile": "tracegraph.capture.compiling",
    "get_autocast_cpu_dtype": "tracegraph.amp",
    "is_autocast_cache_enabled": "tracegraph.amp",
    "is_autocast_cpu_enabled": "tracegraph.amp",
    "is_anomaly_enabled": "tracegraph.autograd.anomaly",
    "set_anomaly_enabled": "tracegraph.autograd.anomaly",
    "vmap": "tracegraph.func",
    "get_autocast_dtype": "tracegraph.amp",
    "get_autocast_gpu_dtype": "tracegraph.amp",
    "is_autocast_enabled": "tracegraph.amp",
    **dict.fromkeys(("cond", "while_loop", "scan"), "tracegraph.control.flow"),
    "Dim": "tracegraph.dims.declared",
    **dict.fromkeys(("SymInt", "sym_max", "sym_min"), "tracegraph.dims.symint"),
    "trace": "tracegraph.capture.tracing",
    "Traced": "tracegraph.capture.tracing",
    "save": "tracegraph.files.saving",
    "load": "tracegraph.files.archive",
    "host_call": "tracegraph.host_calls",
    "verify_file": "tracegraph.files.verification",
    "compare_files": "tracegraph.files.comparison",
    "optimize": "tracegraph.compiler",
    **dict.fromkeys(("_assert", "typename"), "tracegraph._utils"),
    "set_num_threads": "tracegraph.runtime.cpu.driver.pool",
    "get_num_threads": "tracegraph.runtime.cpu.driver.pool",
}
_FUNCTIONAL = """adaptive_avg_pool1d alpha_dropout avg_pool1d bilinear celu celu_ channel_shuffle
    conv1d conv2d conv3d conv_tbc conv_transpose1d conv_transpose2d conv_transpose3d
    cosine_similarity dropout feature_alpha_dropout group_norm layer_norm max_pool1d
    max_pool1d_with_indices max_pool2d max_pool3d native_channel_shuffle pairwise_distance pdist
    pixel_shuffle pixel_unshuffle relu_ rms_norm rrelu rrelu_ selu selu_ threshold threshold_"""
_LAZY.update(dict.fromkeys(_FUNCTIONAL.split(), "tracegraph.nn.functional"))
_NATIVE = """adaptive_max_pool1d batch_norm embedding instance_norm native_batch_norm
    native_group_norm native_layer_norm"""
_LAZY.update(dict.fromkeys(_NATIVE.split(), "tracegraph.nn.functional.native"))
_LAZY.update(dict.fromkeys(("TypedStorage", "UntypedStorage"), "tracegraph.api.storages"))
_INNER = """_log_softmax _log_softmax_backward_data _softmax _softmax_backward_data _weight_norm
    frobenius_norm norm_except_dim nuclear_norm"""
_LAZY.update(dict.fromkeys(_INNER.split(), "tracegraph.api.inner_names"))
_SWITCHES = """are_deterministic_algorithms_enabled get_deterministic_debug_mode
    get_float32_matmul_precision get_num_interop_threads
    is_deterministic_algorithms_warn_only_enabled is_warn_always_enabled set_default_tensor_type
    set_deterministic_debug_mode set_float32_matmul_precision set_flush_denormal
    set_num_interop_threads set_warn_always use_deterministic_algorithms"""
_LAZY.update(dict.fromkeys(_SWITCHES.split(), "tracegraph.api.switches"))
_SUBMODULES = frozenset((
    "amp", "autograd", "cuda", "distributions", "errors", "fft", "fx", "jit",
    "library", "linalg", "models", "nn", "optim", "random", "special", "utils", "hub",
    "backends", "version", "testing", "onnx", "passes", "runtime", "ir", "return_types",
    "signal", "accelerator", "compiler", "distributed", "func", "multiprocessing", "profiler",
    "serialization", "types", "_dynamo", "_inductor", "_jit_internal", "_utils", "cpu",
    "functional", "mps", "overrides", "sparse", "torch_version", "_C", "_VF",
))  # fmt: skip

__all__ = [
    "DType", "Generator", "Size", "Tensor", "bfloat16", "default_generator",
    "device", "dtype", "enable_grad", "finfo", "float16", "float32",
    "float64", "get_default_dtype", "get_rng_state", "iinfo", "inference_mode", "initial_seed",
    "cdouble", "cfloat", "complex128", "complex64",
    "int16", "int32", "int64", "int8", "is_grad_enabled", "is_inference_mode_enabled",
    "manual_seed", "no_grad", "promote_types", "seed", "set_default_dtype", "set_grad_enabled",
    "set_printoptions", "set_rng_state", "uint16", "uint32", "uint64", "uint8",
    "get_default_device", "set_default_device",
    *_FUNCTIONS, *_METHOD_FUNCTIONS, *_TYPES, *_LAZY,
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import what is public but not yet loaded."""
    if name == "torch":  # PyTorch's facade has itself for an attribute
        value = sys.modules[__name__]
    elif name == "map":  # not for `import *`, where it would hide Python's
        value = importlib.import_module("tracegraph.control.flow").map
    elif name in _LAZY:
        value = getattr(importlib.import_module(_LAZY[name]), name)
    elif name in _SUBMODULES:
        try:
            value = importlib.import_module(f"tracegraph.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"tracegraph.{name}":
                raise
            raise AttributeError(f"module 'tracegraph' has no attribute {name!r}") from None
    else:
        raise AttributeError(f"module 'tracegraph' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY, *_SUBMODULES})
