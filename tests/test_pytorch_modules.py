"""Small modules that programs import beside tensors and layers: switches, devices, processes."""

from __future__ import annotations

import importlib
import math
import multiprocessing
import operator
from collections import OrderedDict, defaultdict, deque, namedtuple
from pathlib import Path
from typing import Any

import pytest

import tracegraph as tg
import tracegraph.distributed as dist
from tests.both_modules import T  # noqa: F401
from tracegraph.errors import DeviceError, OpError
from tracegraph.utils import _pytree as trees

# Names.


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("accelerator", "is_available device_count current_accelerator synchronize"),
        ("compiler", "compile disable is_compiling reset allow_in_graph"),
        ("multiprocessing", "Process Queue get_context spawn set_start_method"),
        ("serialization", "load save add_safe_globals safe_globals"),
        ("types", "Device Number _size"),
        ("nn.common_types", "_size_2_t _size_any_t"),
        ("utils.hooks", "RemovableHandle"),
        ("hub", "load_state_dict_from_url download_url_to_file get_dir set_dir"),
        ("autograd.profiler", "profile record_function"),
        ("optim.swa_utils", "AveragedModel SWALR update_bn"),
        ("utils.dlpack", "from_dlpack to_dlpack"),
        ("distributed.nn.functional", "all_reduce all_gather broadcast"),
        ("nn.functional", "has_torch_function has_torch_function_variadic"),
        ("utils.model_zoo", "load_url"),
        ("utils.checkpoint", "get_device_states set_device_states set_checkpoint_early_stop"),
        ("utils.data._utils.collate", "default_collate default_convert"),
        ("nn.modules.activation", "MultiheadAttention ReLU"),
        ("nn.modules.container", "ParameterList ParameterDict Sequential"),
        ("nn.modules.rnn", "LSTMCell GRUCell RNNCell RNNCellBase LSTM"),
        ("nn.modules.module", "Module _IncompatibleKeys _addindent"),
        ("nn.modules.lazy", "LazyModuleMixin"),
        ("nn.parallel.distributed", "DistributedDataParallel"),
        ("nn.parallel.data_parallel", "DataParallel"),
        ("nn.parallel.scatter_gather", "scatter gather"),
        ("optim.adamw", "AdamW"),
        ("optim.rmsprop", "RMSprop"),
        ("optim.asgd", "ASGD"),
        ("amp.autocast_mode", "autocast"),
        ("amp.grad_scaler", "GradScaler"),
        ("cuda.amp.grad_scaler", "GradScaler"),
        ("cuda.nvtx", "range_push range_pop range mark"),
        ("cuda.memory", "memory_allocated empty_cache"),
        ("jit.annotations", "List Optional BroadcastingList2"),
        ("jit", "Final fork wait ScriptModule Attribute _unwrap_optional"),
        ("_jit_internal", "boolean_dispatch List Optional _overload"),
        ("_dynamo", "config disable reset optimize mark_dynamic"),
        ("_inductor", "config"),
        ("_utils", "_flatten_dense_tensors _unflatten_dense_tensors"),
        ("cpu", "amp is_available synchronize device_count"),
        ("mps", "is_available synchronize empty_cache manual_seed"),
        ("functional", "F Tensor norm einsum meshgrid split"),
        ("overrides", "has_torch_function handle_torch_function is_tensor_like"),
        ("torch_version", "TorchVersion"),
        ("onnx", "is_in_onnx_export export"),
        ("serialization", "MAP_LOCATION load save"),
        ("distributions.utils", "broadcast_all lazy_property probs_to_logits logits_to_probs"),
        ("distributions.constraints", "dependent dependent_property lower_triangular square"),
    ],
)
def test_modules_and_their_names_are_there(module: str, names: str) -> None:
    loaded = importlib.import_module(f"tracegraph.{module}")
    assert all(hasattr(loaded, name) for name in names.split())


# Switches.


def test_switches_say_what_they_were_told(T: Any) -> None:
    assert not T.are_deterministic_algorithms_enabled()
    T.use_deterministic_algorithms(True, warn_only=True)
    assert T.are_deterministic_algorithms_enabled() and T.get_deterministic_debug_mode() == 1
    T.set_deterministic_debug_mode("error")
    assert not T.is_deterministic_algorithms_warn_only_enabled()
    T.set_deterministic_debug_mode(0)
    assert not T.are_deterministic_algorithms_enabled()
    before = T.get_float32_matmul_precision()
    T.set_float32_matmul_precision("high")
    assert T.get_float32_matmul_precision() == "high"
    T.set_float32_matmul_precision(before)
    T.set_warn_always(True)
    assert T.is_warn_always_enabled()
    T.set_warn_always(False)
    assert T.get_num_interop_threads() >= 1
    with pytest.raises(RuntimeError):
        T.set_deterministic_debug_mode("loud")


def test_anomalies_are_looked_for_inside_a_with_statement(T: Any) -> None:
    assert not T.is_anomaly_enabled()
    with T.autograd.set_detect_anomaly(True):
        assert T.is_anomaly_enabled()
    T.autograd.set_detect_anomaly(True)
    with T.autograd.set_detect_anomaly(False):
        assert not T.is_anomaly_enabled()
    assert T.is_anomaly_enabled()
    T.autograd.set_detect_anomaly(False)
    assert not T.is_anomaly_enabled()


@pytest.mark.filterwarnings("ignore:torch.set_default_tensor_type:UserWarning")
def test_the_default_type_is_that_of_a_tensor_type(T: Any) -> None:
    try:
        T.set_default_tensor_type(T.DoubleTensor)
        assert T.ones(1).dtype == T.float64
    finally:
        T.set_default_tensor_type("torch.FloatTensor")
    assert T.ones(1).dtype == T.float32
    with pytest.raises(TypeError):
        T.set_default_tensor_type(T.LongTensor)


def test_the_default_device_is_where_new_tensors_are_made(T: Any) -> None:
    assert str(T.get_default_device()) == "cpu"
    with T.device("cpu") as here:
        assert T.ones(1).device == here
    T.set_default_device("cpu")
    assert T.zeros(1).device.type == T.randn(1).device.type == "cpu"
    T.set_default_device(None)


@pytest.mark.skipif(tg.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("make", ["ones(1)", "tensor([1.0])", "randn(2)", "arange(3)",
                                  "tril_indices(2, 2)", "eye(2)"])  # fmt: skip
def test_a_default_device_that_is_not_there_is_an_error(make: str) -> None:
    with tg.device("cuda"), pytest.raises(DeviceError):
        eval(make, vars(tg))
    kept = tg.ones(2)
    with tg.device("cuda"):
        assert tg.tensor(kept).device.type == "cpu" and tg.ones_like(kept).device.type == "cpu"
        with tg.device("cpu"):
            assert tg.ones(1).device.type == "cpu"
    assert tg.ones(1).device.type == "cpu"


def test_without_an_accelerator_there_is_none() -> None:
    if tg.cuda.is_available():
        assert tg.accelerator.current_accelerator().type == "cuda"
    else:
        assert not tg.accelerator.is_available() and tg.accelerator.device_count() == 0
        assert tg.accelerator.current_accelerator() is None
        assert tg.accelerator.memory_allocated() == 0
        with pytest.raises(DeviceError):
            tg.accelerator.current_device_index()
    with tg.accelerator.device_index(None):
        pass


# Processes.


@pytest.fixture
def group() -> Any:
    dist.init_process_group("gloo", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_a_group_of_one_process(group: Any) -> None:
    assert dist.is_available() and dist.is_initialized() and dist.get_backend() == "gloo"
    assert dist.get_rank() == 0 and dist.get_world_size() == 1
    x, y = tg.tensor([1.0, 2.0]), tg.zeros(2)
    dist.all_reduce(x, op=dist.ReduceOp.SUM)
    dist.broadcast(x, src=0)
    dist.reduce(x, dst=0)
    assert x.tolist() == [1.0, 2.0] and dist.barrier() is None
    gathered = [tg.zeros(2)]
    work = dist.all_gather(gathered, x, async_op=True)
    assert work is not None and work.wait() and gathered[0].tolist() == [1.0, 2.0]
    dist.all_gather_into_tensor(y, x)
    dist.scatter(gathered[0], [x * 2], src=0)
    assert y.tolist() == [1.0, 2.0] and gathered[0].tolist() == [2.0, 4.0]
    objects: list[Any] = [None]
    dist.all_gather_object(objects, "mine")
    dist.reduce_scatter(y, [x * 3])
    assert objects == ["mine"] and y.tolist() == [3.0, 6.0]
    assert dist.new_group([0]).size() == 1
    with pytest.raises(ValueError):
        dist.init_process_group()


def test_without_a_group_nothing_is_exchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    for call in (dist.get_rank, dist.get_world_size, dist.barrier):
        with pytest.raises(ValueError):
            call()
    with pytest.raises(OpError):
        dist.init_process_group(world_size=2, rank=0)
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(OpError):
        dist.init_process_group()
    assert not dist.is_initialized() and not dist.is_nccl_available()


def leave(place: int, folder: str) -> None:
    Path(folder, str(place)).write_text("here")


def fail(place: int) -> None:
    raise SystemExit(3)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork")
def test_processes_are_spawned_and_waited_for(tmp_path: Path) -> None:
    from tracegraph.multiprocessing import ProcessRaisedException, start_processes

    assert start_processes(leave, (str(tmp_path),), nprocs=2, start_method="fork") is None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0", "1"]
    with pytest.raises(ProcessRaisedException, match="code 3"):
        start_processes(fail, nprocs=1, start_method="fork")


# Profiles, files from the web, nested values.


def test_marked_ranges_are_timed(tmp_path: Path) -> None:
    from tracegraph import profiler

    ready = []
    with profiler.profile(
        schedule=profiler.schedule(wait=1, warmup=1, active=2, repeat=1),
        on_trace_ready=lambda p: ready.append(p.step_num),
    ) as profile:
        for _ in range(6):
            with profiler.record_function("step"):
                tg.ones(2) + 1
            profile.step()
    (average,) = profile.key_averages()
    assert average.key == "step" and average.count == 2 and ready == [3]
    assert average.cpu_time_total == pytest.approx(2 * average.cpu_time)
    assert "step" in profile.key_averages().table(sort_by="cpu_time_total", row_limit=5)
    profiler.tensorboard_trace_handler(str(tmp_path))(profile)
    assert '"ph": "X"' in next(tmp_path.iterdir()).read_text()

    @profiler.record_function("marked")
    def work() -> int:
        return 3

    with profiler.profile() as second:
        assert work() == 3
    assert [r.name for r in second.events()] == ["marked"]


def test_a_state_dict_is_fetched_once_and_kept(tmp_path: Path) -> None:
    from tracegraph import hub

    source, kept = tmp_path / "weights-abc123.pt", tmp_path / "kept"
    tg.save({"w": tg.ones(2)}, source)
    for _ in range(2):
        state = hub.load_state_dict_from_url(source.as_uri(), model_dir=str(kept))
        assert state["w"].tolist() == [1.0, 1.0]
        if source.exists():
            source.unlink()
    tg.save({"w": tg.ones(2)}, source)
    with pytest.raises(RuntimeError, match="hash"):
        hub.load_state_dict_from_url(source.as_uri(), str(tmp_path / "other"), check_hash=True)
    assert not list((tmp_path / "other").iterdir())
    hub.set_dir(str(tmp_path))
    assert hub.get_dir() == str(tmp_path)


def test_memory_is_handed_over_by_dlpack() -> None:
    from tracegraph.utils.dlpack import from_dlpack, to_dlpack

    x = tg.arange(3.0)
    from_dlpack(x)[0] = 5
    assert x.tolist() == [5.0, 1.0, 2.0]
    assert type(to_dlpack(x)).__name__ == "PyCapsule"


def test_safe_globals_are_kept_inside_a_with_statement() -> None:
    from tracegraph import serialization

    with serialization.safe_globals([dict]):
        assert serialization.get_safe_globals() == [dict]
    serialization.add_safe_globals([list, list])
    assert serialization.get_safe_globals() == [list]
    serialization.clear_safe_globals()
    assert serialization.get_safe_globals() == []


Pair = namedtuple("Pair", "a b")
NESTED: list[Any] = [
    1, [1, (2, 3)], {"a": [1], "b": None}, Pair(1, [2]), OrderedDict(x=1), (), [],
    deque([1, 2], maxlen=3), {"k": defaultdict(list, q=[1, 2])},
]  # fmt: skip


@pytest.mark.parametrize("value", NESTED, ids=str)
def test_nested_values_are_flattened_and_nested_again(value: Any) -> None:
    leaves, spec = trees.tree_flatten(value)
    assert trees.tree_unflatten(leaves, spec) == value
    assert type(trees.tree_unflatten(leaves, spec)) is type(value)
    assert len(leaves) == spec.num_leaves and trees.tree_structure(value) == spec
    with pytest.raises(ValueError):
        trees.tree_unflatten([*leaves, 1], spec)


@pytest.mark.oracle
@pytest.mark.parametrize("value", NESTED, ids=str)
def test_leaves_are_those_of_pytorch(value: Any) -> None:
    from torch.utils import _pytree as theirs

    assert trees.tree_leaves(value) == theirs.tree_leaves(value)


def test_functions_of_nested_values() -> None:
    value = {"a": [1, 2.0], "b": (3,)}
    assert trees.tree_map(lambda x: x + 1, value) == {"a": [2, 3.0], "b": (4,)}
    assert trees.tree_map(lambda x, y: x * y, [1, 2], [3, 4]) == [3, 8]
    assert trees.tree_map_only(float, str, value) == {"a": [1, "2.0"], "b": (3,)}
    assert trees.tree_map(len, [[1], [2, 3]], is_leaf=lambda x: len(x) < 3 and x != [[1], [2, 3]])
    assert trees.tree_all(bool, value) and not trees.tree_any(lambda x: x > 3, value)
    assert trees.tree_leaves([1, [2]], is_leaf=lambda x: x == [2]) == [1, [2]]


# Versions.


@pytest.mark.parametrize("operation", ["lt", "le", "eq", "gt", "ge"])
@pytest.mark.parametrize("left", ["2.13.0+local", "1.9.0", "2.0.0rc1"])
def test_versions_compare_by_their_numbers(T: Any, operation: str, left: str) -> None:
    of = importlib.import_module(f"{T.__name__}.torch_version").TorchVersion
    others = ("2.13", "2.9", "2.13.0+local", (2, 13), (1, 9, 0), (1, 10), "2.0", "1.9")
    found = [getattr(operator, operation)(of(left), other) for other in others]
    numbers = {"2.13.0+local": (2, 13, 0, 0, 1), "1.9.0": (1, 9), "2.0.0rc1": (2, 0, 0, -1)}
    known = [(2, 13), (2, 9), (2, 13, 0, 0, 1), (2, 13), (1, 9), (1, 10), (2,), (1, 9)]

    def padded(v: tuple[int, ...]) -> tuple[int, ...]:
        return v + (0,) * (5 - len(v))

    mine = padded(numbers[left])
    assert found == [getattr(operator, operation)(mine, padded(v)) for v in known]


def test_the_version_is_newer_than_any_of_one_digit(T: Any) -> None:
    assert T.__version__ >= "2.9" and T.__version__ > (1, 8) and str(T.__version__) == T.__version__


# Copies of PyTorch's own layers call these.


def test_masks_of_copied_layers(T: Any) -> None:
    F = T.nn.functional
    mask = T.tensor([[True, False]])
    added = F._canonical_mask(mask, "src_mask", F._none_or_dtype(None), "", T.float64)
    assert added.dtype == T.float64 and added.tolist() == [[-math.inf, 0.0]]
    assert F._canonical_mask(added, "src_mask", T.float64, "", T.float64) is added
    assert F._canonical_mask(None, "src_mask", None, "", T.float32) is None
    with pytest.warns(UserWarning, match="mismatched"):
        F._canonical_mask(mask, "src_mask", T.float32, "other", T.float32)
    with pytest.raises(AssertionError, match="only bool and floating types of m"):
        F._canonical_mask(T.ones(1, dtype=T.int64), "m", None, "", T.float32)
    assert F._none_or_dtype(mask) == T.bool
    with pytest.raises(RuntimeError):
        F._none_or_dtype(3)
    assert [F._Reduction.get_enum(name) for name in ("none", "mean", "sum")] == [0, 1, 2]
    assert F._Reduction.legacy_get_string(False, True, False) == "sum"
    assert F._Reduction.legacy_get_string(None, False, False) == "none"
    with pytest.raises(ValueError, match="loud"):
        F._Reduction.get_enum("loud")


def test_projections_of_copied_layers(T: Any) -> None:
    F = T.nn.functional
    x, y, z = (T.arange(n, n + 6.0).reshape(3, 2) for n in range(3))
    weight, bias = T.arange(12.0).reshape(6, 2), T.arange(6.0)
    apart = F._in_projection(x, y, z, *weight.chunk(3), *bias.chunk(3))
    for q, k, v in ((x, y, z), (x, y, y), (x, x, x)):
        packed = F._in_projection_packed(q, k, v, weight, bias)
        for part, of, w, b in zip(packed, (q, k, v), weight.chunk(3), bias.chunk(3), strict=True):
            assert part.tolist() == (of @ w.T + b).tolist()
    assert apart[2].tolist() == (z @ weight[4:].T + bias[4:]).tolist()


def test_tensors_become_one_and_come_back(T: Any) -> None:
    utils = importlib.import_module(f"{T.__name__}._utils")
    given = [T.arange(6.0).reshape(2, 3), T.tensor(7.0), T.ones(2, 1)]
    flat = utils._flatten_dense_tensors(given)
    assert flat.tolist() == [0, 1, 2, 3, 4, 5, 7, 1, 1]
    back = utils._unflatten_dense_tensors(flat, given)
    assert [t.tolist() for t in back] == [t.tolist() for t in given]
    back[0].zero_()
    assert flat[:6].tolist() == [0] * 6


def test_names_of_types(T: Any) -> None:
    assert T.torch is T
    assert T.typename(T.ones(1, dtype=T.float64)) == "torch.DoubleTensor"
    assert T.typename(3) == "int"
    with pytest.raises(AssertionError, match="why"):
        T._assert(False, "why")


def test_forks_run_at_once() -> None:
    future = tg.jit.fork(lambda x, y: x + y, tg.ones(2), y=1)
    assert tg.jit.wait(future).tolist() == [2, 2]
    assert tg.jit.Final[int] is not None and tg.jit.Attribute(3, int) == 3
    assert not isinstance(tg.nn.Linear(1, 1), tg.jit.ScriptModule)


def test_a_replica_has_the_parameters_of_the_model() -> None:
    parallel, model = tg.nn.parallel, tg.nn.Sequential(tg.nn.Linear(2, 2), tg.nn.BatchNorm1d(2))
    (replica,) = parallel.replicate(model, [0])
    assert replica is not model and replica[0].weight is model[0].weight
    assert replica[1].running_mean is model[1].running_mean
    inputs = parallel.scatter(tg.ones(3, 2), [0])
    output = parallel.gather(parallel.parallel_apply([replica], inputs), 0)
    assert output.shape == (3, 2)
    with pytest.raises(OpError, match="one device"):
        parallel.replicate(model, [0, 1])


# Numbers between the operands, as programs wrote them before PyTorch 1.5.


@pytest.mark.filterwarnings("ignore:.*overload of:UserWarning")
@pytest.mark.parametrize("form", ["function", "method", "in place"])
@pytest.mark.parametrize(
    ("name", "shapes", "numbers"),
    [
        ("add", [(2, 3), (3,)], {"alpha": 3}),
        ("sub", [(2, 3), (2, 3)], {"alpha": 0.5}),
        ("addcmul", [(2, 3), (2, 3), (3,)], {"value": 3}),
        ("addcdiv", [(2,), (2,), (2,)], {"value": 0.5}),
        ("addmm", [(2, 4), (2, 3), (3, 4)], {"beta": 3}),
        ("addmm", [(2, 4), (2, 3), (3, 4)], {"beta": 3, "alpha": 2}),
        ("addmv", [(2,), (2, 3), (3,)], {"beta": 3, "alpha": 2}),
        ("addr", [(2, 3), (2,), (3,)], {"beta": 3, "alpha": 2}),
        ("baddbmm", [(1, 2, 4), (1, 2, 3), (1, 3, 4)], {"beta": 3, "alpha": 2}),
        ("addbmm", [(2, 4), (5, 2, 3), (5, 3, 4)], {"beta": 3}),
    ],
)
def test_numbers_may_stand_before_the_operands(
    T: Any, name: str, shapes: Any, numbers: Any, form: str
) -> None:
    first, *others = (T.arange(1.0, 1 + math.prod(s)).reshape(s) for s in shapes)
    expected = getattr(T, name)(first, *others, **numbers)
    given = list(numbers.values())
    if form == "function" and "beta" in numbers:
        found = getattr(T, name)(given[0], first, *given[1:], *others)
    elif form == "function":
        found = getattr(T, name)(first, *given, *others)
    else:
        found = getattr(first, name + "_" * (form == "in place"))(*given, *others)
    assert found.tolist() == expected.tolist()
    assert (found is first) == (form == "in place")


@pytest.mark.filterwarnings("ignore:.*overload of:UserWarning")
def test_an_old_rule_of_adam(T: Any) -> None:
    p, g, m, v = (T.full((2,), x) for x in (1.0, 2.0, 0.5, 4.0))
    m.mul_(0.5).add_(0.5, g)
    v.mul_(0.5).addcmul_(0.5, g, g)
    p.addcdiv_(-0.5, m, v.sqrt().add_(0.5))
    assert m.tolist() == [1.25] * 2 and v.tolist() == [4.0] * 2 and p.tolist() == [0.75] * 2
    with pytest.raises(TypeError):
        m.mul_(2, g)


def test_an_optimizer_fills_in_what_an_older_state_lacks(T: Any) -> None:
    class Old(T.optim.SGD):  # type: ignore[misc, name-defined]
        def __setstate__(self, state: Any) -> None:
            super().__setstate__(state)
            for group in self.param_groups:
                group.setdefault("warmup", 5)

    parameter, told = T.nn.Parameter(T.ones(2)), []
    optimizer = Old([parameter], lr=0.1)
    optimizer.register_load_state_dict_post_hook(told.append)
    optimizer.load_state_dict(T.optim.SGD([parameter], lr=0.25).state_dict())
    assert optimizer.param_groups[0]["warmup"] == 5 and optimizer.param_groups[0]["lr"] == 0.25
    assert told == [optimizer]


# Second names of parameters, and results by name.


def test_parameters_have_second_names(T: Any) -> None:
    x = T.arange(1.0, 7.0).reshape(2, 3)
    for found, expected in [
        (T.pow(x, exponent=2), x * x),
        (x.pow(exponent=2), x * x),
        (T.pow(self=2.0, exponent=x), 2**x),
        (x.clamp_min(min=2), x.clamp(2)),
        (T.clamp_max(x, max=2), x.clamp(max=2)),
        (x.clone().clamp_max_(max=2), x.clamp(max=2)),
        (T.swapaxes(x, axis0=0, axis1=1), x.T),
        (T.tensor_split(x, indices=[1])[1], x[1:]),
        (T.tensor_split(x, sections=3, dim=1)[1], x[:, 1:2]),
        (x.view(size=(3, 2)), x.reshape(3, 2)),
    ]:
        assert found.tolist() == expected.tolist()


def test_results_by_name_show_their_names(T: Any) -> None:
    assert repr(T.max(T.tensor([[1, 3]]), 1)) == (
        "torch.return_types.max(\nvalues=tensor([3]),\nindices=tensor([1]))"
    )


# Text.


def test_limits_of_dtypes_are_shown(T: Any) -> None:
    assert repr(T.iinfo(T.int8)) == "iinfo(min=-128, max=127, dtype=int8)"
    assert repr(T.finfo(T.float32)) == (
        "finfo(resolution=1e-06, min=-3.40282e+38, max=3.40282e+38, eps=1.19209e-07, "
        "smallest_normal=1.17549e-38, tiny=1.17549e-38, dtype=float32)"
    )
    for dtype in (T.float16, T.bfloat16, T.float64):
        assert repr(T.finfo(dtype)).startswith("finfo(resolution=")


def test_a_long_tensor_is_cut_short(T: Any) -> None:
    assert repr(T.arange(2000)) == "tensor([   0,    1,    2,  ..., 1997, 1998, 1999])"
    assert repr(T.ones(2000, 1)[:, 0].bool())[:40] == "tensor([True, True, True,  ..., True, Tr"
