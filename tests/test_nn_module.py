"""Module: registration, walks, state dicts, hooks, conversions, copies, text, traces."""

from __future__ import annotations

import copy
import pickle
import re
import timeit
from collections import OrderedDict
from types import ModuleType
from typing import Any

import pytest

import tracegraph as tg
from tests.nn_oracle import translated
from tracegraph.eager import modes
from tracegraph.nn import Buffer, Module, Parameter


def scaled(torch: Any) -> Any:
    """Return a module class over one of the two libraries."""

    class Scale(torch.nn.Module):
        def __init__(self, n: int) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(n) * 2)
            self.register_buffer("mean", torch.zeros(n))
            self.register_buffer("cache", torch.ones(1), persistent=False)
            self.note = "plain"

        def forward(self, x: Any, power: int = 1) -> Any:
            return (x - self.mean) * self.weight**power

    return Scale


def nested(torch: Any) -> Any:
    """Return a module with children, a shared child and a shared parameter."""
    scale = scaled(torch)

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = scale(3)
            self.block = torch.nn.Sequential(OrderedDict(a=scale(3), b=torch.nn.ReLU()))
            self.again = self.first
            self.tied = scale(3)
            self.tied.weight = self.first.weight
            self.absent = None
            self.register_parameter("free", None)

        def forward(self, x: Any) -> Any:
            return self.tied(self.again(self.block(self.first(x))))

    return Net()


def both() -> tuple[ModuleType, ModuleType]:
    """Return (tracegraph, torch)."""
    import torch

    return tg, torch


@pytest.mark.oracle
def test_walks_find_the_same_names_in_the_same_order() -> None:
    mine, yours = map(nested, both())
    for walk in ("named_parameters", "named_buffers", "named_modules", "named_children"):
        assert [n for n, _ in getattr(mine, walk)()] == [n for n, _ in getattr(yours, walk)()]
    for walk in ("named_parameters", "named_buffers", "named_modules"):
        names = [
            [n for n, _ in getattr(m, walk)(prefix="p", remove_duplicate=False)]
            for m in (mine, yours)
        ]
        assert names[0] == names[1]
    assert len(list(mine.parameters())) == len(list(yours.parameters()))
    assert len(list(mine.parameters(recurse=False))) == 0
    assert list(mine.state_dict()) == list(yours.state_dict())
    assert mine.state_dict()._metadata == yours.state_dict()._metadata
    assert repr(mine) == repr(yours)
    assert set(dir(mine)) >= {"first", "block", "forward"}


def test_state_dict_shares_memory_and_knows_prefix_and_keep_vars() -> None:
    net = nested(tg)
    state = net.state_dict(prefix="net.", keep_vars=True)
    assert state["net.first.weight"] is net.first.weight
    plain = net.state_dict()
    assert type(plain["first.weight"]) is tg.Tensor
    assert not plain["first.weight"].requires_grad
    plain["first.weight"][0] = 7
    assert net.first.weight[0].item() == 7
    target: dict[str, Any] = {}
    assert net.state_dict(destination=target) is target


def assert_same_complaint(act: Any, *arguments: Any) -> None:
    """Assert that both libraries refuse with the same type of error and the same sentence."""
    complaints = []
    for library in both():
        with pytest.raises(Exception) as caught:
            act(library, *arguments)
        complaints.append((caught.value, str(caught.value)))
    (mine, my_text), (yours, your_text) = complaints
    assert isinstance(mine, type(yours))
    assert my_text.replace("tracegraph.", "torch.") == your_text


def _load(torch: Any, change: Any, **options: Any) -> Any:
    net = nested(torch)
    state = OrderedDict(net.state_dict())
    change(torch, state)
    return net.load_state_dict(state, **options)


def _resize(torch: Any, state: Any) -> None:
    state["first.weight"] = torch.ones(2, 2)
    state["tied.mean"] = torch.ones(())


def _spoil(torch: Any, state: Any) -> None:
    del state["block.a.weight"], state["first.mean"]
    state["extra"] = state["block.c.weight"] = torch.ones(1)


def _wrong_type(torch: Any, state: Any) -> None:
    state["first.weight"] = 3


@pytest.mark.oracle
@pytest.mark.parametrize("change", [_resize, _spoil, _wrong_type])
def test_load_state_dict_complains_as_pytorch(change: Any) -> None:
    assert_same_complaint(_load, change)


@pytest.mark.oracle
def test_load_state_dict_not_strict_returns_what_did_not_match() -> None:
    mine, yours = (_load(library, _spoil, strict=False) for library in both())
    assert tuple(mine) == tuple(yours)
    assert mine.missing_keys == ["first.mean", "block.a.weight"]
    net = nested(tg)
    assert repr(net.load_state_dict(net.state_dict())) == "<All keys matched successfully>"
    assert_same_complaint(_load, _resize)


def test_load_state_dict_copies_or_assigns() -> None:
    source, target = scaled(tg)(3), scaled(tg)(3)
    with tg.no_grad():
        source.weight.mul_(5)
    weight = target.weight
    target.load_state_dict(source.state_dict())
    assert target.weight is weight
    assert weight.tolist() == [10.0] * 3
    target.load_state_dict(source.state_dict(), assign=True)
    assert target.weight is not weight
    assert target.weight.requires_grad
    with tg.no_grad():
        source.weight.add_(1)
    assert target.weight.tolist() == [11.0] * 3
    target.double().load_state_dict(source.state_dict())
    assert target.weight.dtype is tg.float64


def test_a_damaged_load_changes_nothing_of_wrong_size() -> None:
    net = scaled(tg)(3)
    with pytest.raises(RuntimeError, match="size mismatch for mean"):
        net.load_state_dict({"weight": tg.zeros(3), "mean": tg.zeros(4)})
    assert net.mean.shape == (3,)


def test_old_files_hold_scalars_with_a_dim_and_no_batch_count() -> None:
    norm = tg.nn.BatchNorm1d(2)
    state = dict(norm.state_dict())
    del state["num_batches_tracked"]
    norm.load_state_dict(state)
    module = Module()
    module.scale = Parameter(tg.tensor(1.0))
    module.load_state_dict({"scale": tg.tensor([4.0])})
    assert module.scale.item() == 4.0


def _assign(torch: Any, name: str, value: Any) -> None:
    setattr(nested(torch).first, name, value(torch))


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("weight", lambda torch: 3),
        ("weight", lambda torch: torch.ones(1)),
        ("mean", lambda torch: [1]),
    ],
)
def test_wrong_assignments_complain_as_pytorch(name: str, value: Any) -> None:
    assert_same_complaint(_assign, name, value)


REGISTRATIONS = {
    "a dot": lambda torch, m: m.register_buffer("a.b", torch.ones(1)),
    "empty": lambda torch, m: m.register_parameter("", None),
    "taken": lambda torch, m: m.register_buffer("note", torch.ones(1)),
    "no string": lambda torch, m: m.add_module(3, torch.nn.ReLU()),
    "no module": lambda torch, m: m.add_module("x", 3),
    "no parameter": lambda torch, m: m.register_parameter("x", 3),
    "computed": lambda torch, m: m.register_parameter("x", torch.nn.Parameter(torch.ones(1)) * 2),
    "no tensor": lambda torch, m: m.register_buffer("x", 3),
    "no attribute": lambda torch, m: m.nothing,
    "no submodule": lambda torch, m: m.get_submodule("a.b"),
    "a parameter as module": lambda torch, m: m.get_submodule("weight"),
    "a module as parameter": lambda torch, m: m.get_parameter("note"),
    "no buffer": lambda torch, m: m.get_buffer("weight"),
    "mode": lambda torch, m: m.train(3),
    "dtype": lambda torch, m: m.to(torch.int64),
    "no mapping": lambda torch, m: m.load_state_dict([1]),
}


@pytest.mark.oracle
@pytest.mark.parametrize("name", [n for n in REGISTRATIONS if n != "computed"])
def test_refusals_are_pytorchs(name: str) -> None:
    assert_same_complaint(lambda torch: REGISTRATIONS[name](torch, scaled(torch)(2)))


def test_what_is_computed_is_no_parameter() -> None:
    with pytest.raises(TypeError):
        REGISTRATIONS["computed"](tg, scaled(tg)(2))


def test_before_init_nothing_can_be_registered() -> None:
    class Early(Module):
        def __init__(self, value: Any) -> None:
            self.value = value

    for value in (Parameter(tg.ones(1)), tg.nn.ReLU()):
        with pytest.raises(AttributeError, match="before Module"):
            Early(value)
    assert Early(3).value == 3


@pytest.mark.oracle
def test_constructor_arguments_are_refused_as_in_pytorch() -> None:
    assert_same_complaint(lambda torch: torch.nn.Module(3))
    assert_same_complaint(lambda torch: torch.nn.Module(x=3))


def test_assignment_moves_a_name_between_the_places() -> None:
    net = Module()
    net.x = 3
    net.x = Parameter(tg.ones(1))
    assert list(net._parameters) == ["x"]
    assert "x" not in net.__dict__
    net.x = None
    assert net._parameters == {"x": None}
    net.x = tg.nn.ReLU()
    assert list(net._modules) == ["x"]
    assert not net._parameters
    net.b = Buffer(tg.ones(2), persistent=False)
    assert [name for name, _ in net.named_buffers()] == ["b"]
    assert not net.state_dict()
    net.b = tg.zeros(3)
    assert net.b.shape == (3,)
    net.t = tg.ones(1)
    assert "t" in net.__dict__
    del net.b, net.x, net.t
    assert not net._buffers
    assert not net._modules
    with pytest.raises(AttributeError):
        del net.nothing


def test_submodules_by_path() -> None:
    net = nested(tg)
    assert net.get_submodule("") is net
    assert net.get_submodule("block.a") is net.block.a
    assert net.get_parameter("block.a.weight") is net.block.a.weight
    assert net.get_buffer("first.mean") is net.first.mean
    net.set_submodule("block.a", tg.nn.Identity())
    assert isinstance(net.block.a, tg.nn.Identity)


def test_modes_and_apply() -> None:
    net = nested(tg)
    assert net.eval() is net
    assert not any(m.training for m in net.modules())
    net.train()
    assert all(m.training for m in net.modules())
    seen: list[Any] = []
    net.apply(seen.append)
    assert seen[-1] is net
    net.requires_grad_(False)
    assert not any(p.requires_grad for p in net.parameters())


def test_zero_grad() -> None:
    net = scaled(tg)(2)
    net(tg.ones(2)).sum().backward()
    net.zero_grad(set_to_none=False)
    assert net.weight.grad.tolist() == [0.0, 0.0]
    net.zero_grad()
    assert net.weight.grad is None


def test_conversions_keep_parameters_and_gradients_work_after() -> None:
    net = nested(tg)
    net.register_buffer("count", tg.tensor(3))
    weight = net.first.weight
    net(tg.ones(3)).sum().backward()
    net.double()
    assert net.first.weight is weight is net.tied.weight
    assert weight.dtype is weight.grad.dtype is net.first.mean.dtype is tg.float64
    assert net.count.dtype is tg.int64
    net.zero_grad()
    net(tg.ones(3, dtype=tg.float64)).sum().backward()
    assert weight.grad.dtype is tg.float64
    net.half()
    assert net.first.weight.dtype is tg.float16
    net.to("cpu", tg.float32).to(tg.ones(1, dtype=tg.bfloat16)).float().type(tg.float64)
    assert weight.dtype is tg.float64


def test_a_parameter_can_take_memory_of_another_size() -> None:
    p = Parameter(tg.ones(3))
    p.data = tg.ones(2, 2)
    (p * 3).sum().backward()
    assert p.grad.tolist() == [[3.0, 3.0], [3.0, 3.0]]


def test_copies_and_pickles_keep_ties_and_hooks() -> None:
    net = nested(tg)
    net.block.append(tg.nn.BatchNorm1d(3))
    net.first.weight.requires_grad_(False)
    norm = pickle.loads(pickle.dumps(tg.nn.Sequential(net.block[2], net.block[2])))
    assert norm[0] is norm[1]
    assert norm[0].weight.requires_grad
    assert list(norm.state_dict()) == [
        f"{i}.{name}" for i in (0, 1) for name in net.block[2].state_dict()
    ]
    other = copy.deepcopy(net)
    assert repr(other) == repr(net)
    assert other.first.weight is other.tied.weight
    assert other.first.weight is not net.first.weight
    assert not other.first.weight.requires_grad
    with tg.no_grad():
        other.first.weight.zero_()
    assert net.first.weight.tolist() == [2.0] * 3
    calls: list[int] = []
    net.first.register_forward_hook(lambda *_: calls.append(1))
    copy.deepcopy(net)(tg.ones(2, 3))
    assert calls == [1, 1]


def _hooked(torch: Any) -> list[Any]:
    """Run a module with hooks of every kind; return what they saw."""
    seen: list[Any] = []

    def numbers(values: Any) -> Any:
        return [None if v is None else v.tolist() for v in values]

    net = scaled(torch)(2)
    net.register_forward_pre_hook(lambda m, args: seen.append(("pre", numbers(args))))
    net.register_forward_pre_hook(
        lambda m, args, kwargs: ((args[0] + 1,), {**kwargs, "power": 2}), with_kwargs=True
    )
    net.register_forward_pre_hook(lambda m, args: args[0] * 2, prepend=True)
    net.register_forward_hook(lambda m, args, out: seen.append(("post", out.tolist())))
    net.register_forward_hook(
        lambda m, args, kwargs, out: out + kwargs["power"], with_kwargs=True, prepend=True
    )
    net.register_full_backward_pre_hook(lambda m, g: (g[0] * 10,))
    net.register_full_backward_hook(
        lambda m, gi, go: seen.append(("back", numbers(gi), numbers(go)))
    )
    net.register_full_backward_hook(lambda m, gi, go: (gi[0] if gi[0] is None else gi[0] + 1,))
    x = torch.tensor([1.0, 3.0], requires_grad=True)
    y = net(x)
    y.sum().backward()
    seen += [y.tolist(), x.grad.tolist(), net.weight.grad.tolist()]
    net.zero_grad()
    net(torch.ones(2)).sum().backward()
    return [*seen, net.weight.grad.tolist()]


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:Full backward hook")
def test_hooks_see_and_change_what_they_do_in_pytorch() -> None:
    mine, yours = map(_hooked, both())
    assert mine == yours
    assert len(mine) > 6


def hooked_everywhere(T: Any) -> list[Any]:
    """Return what hooks of all modules see, before and after they are removed."""
    registry, seen = T.nn.modules.module, []
    model = T.nn.Sequential(T.nn.Linear(2, 2, bias=False), T.nn.ReLU())
    with T.no_grad():
        model[0].weight.fill_(0.5)
    model[0].register_forward_hook(lambda m, a, out: seen.append("own") or out * 2)
    handles = [
        registry.register_module_forward_pre_hook(
            lambda m, a: seen.append(("before", type(m).__name__))
        ),
        registry.register_module_forward_hook(
            lambda m, a, kw, out: seen.append((type(m).__name__, list(kw))), with_kwargs=True
        ),
        registry.register_module_full_backward_pre_hook(
            lambda m, out: seen.append(("to", type(m).__name__, len(out)))
        ),
        registry.register_module_full_backward_hook(
            lambda m, grads, out: seen.append(("from", type(m).__name__, grads[0].tolist()))
        ),
    ]
    x = T.ones(1, 2, requires_grad=True)
    model(x).sum().backward()
    for handle in handles:
        handle.remove()
    model(x)
    return [*seen, x.grad.tolist()]


@pytest.mark.oracle
def test_hooks_of_all_modules_run_before_a_modules_own() -> None:
    import torch
    import torch.nn.modules.module

    found = hooked_everywhere(tg)
    assert found == hooked_everywhere(torch)
    assert found[-2] == "own" and found.count("own") == 2


def test_hooks_are_removed_and_always_called() -> None:
    net = scaled(tg)(2)
    calls: list[str] = []
    with net.register_forward_hook(lambda *_: calls.append("in")):
        net(tg.ones(2))
    net(tg.ones(2))
    net.register_forward_hook(lambda *_: calls.append("always"), always_call=True)
    with pytest.raises(TypeError):
        net("no tensor")
    assert calls == ["in", "always"]


def test_state_dict_hooks() -> None:
    net = nested(tg)
    net.first._register_state_dict_hook(
        lambda m, state, prefix, meta: state.pop(prefix + "mean").fill_(0) is None or None
    )
    net.first.register_state_dict_pre_hook(lambda m, prefix, keep: setattr(m, "saved", prefix))
    assert "first.mean" not in net.state_dict()
    assert net.first.saved == "again."

    def rename(state: Any, prefix: str, *_: Any) -> None:
        if prefix + "old" in state:
            state[prefix + "mean"] = state.pop(prefix + "old")

    one = scaled(tg)(2)
    one._register_load_state_dict_pre_hook(rename)
    one.register_load_state_dict_post_hook(lambda m, keys: keys.missing_keys.clear())
    one.load_state_dict({"old": tg.tensor([5.0, 6.0])})
    assert one.mean.tolist() == [5.0, 6.0]


def test_extra_state_travels() -> None:
    class Counting(Module):
        count = 1

        def get_extra_state(self) -> Any:
            return {"count": self.count}

        def set_extra_state(self, state: Any) -> None:
            self.count = state["count"]

    one, two = Counting(), Counting()
    one.count = 5
    assert one.state_dict() == {"_extra_state": {"count": 5}}
    two.load_state_dict(one.state_dict())
    assert two.count == 5


@pytest.mark.oracle
def test_parameters_show_as_in_pytorch() -> None:
    mine, yours = (
        [torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2), False)]
        for torch in both()
    )
    assert list(map(repr, mine)) == list(map(repr, yours))


def test_parameters_share_memory_with_their_data_and_results_are_tensors() -> None:
    data = tg.ones(3)
    p = Parameter(data)
    with tg.no_grad():
        p.mul_(4)
    assert data.tolist() == [4.0] * 3
    assert p.requires_grad
    assert p.is_leaf
    for result in (p * 2, p.detach(), p.clone(), p[0], p.data, p.view(3, 1)):
        assert type(result) is tg.Tensor
    assert isinstance(p, tg.Tensor)
    view = Parameter(tg.arange(4.0)[2:])
    (view**2).sum().backward()
    assert view.grad.tolist() == [4.0, 6.0]
    with pytest.raises(TypeError):
        Parameter([1.0])
    with pytest.raises(RuntimeError, match="floating"):
        Parameter(tg.arange(3))
    assert Parameter(tg.arange(3), requires_grad=False).dtype is tg.int64


def test_lazy_modules_take_sizes_from_the_first_input() -> None:
    net = tg.nn.Sequential(
        tg.nn.LazyConv2d(4, 3), tg.nn.LazyBatchNorm2d(), tg.nn.Flatten(), tg.nn.LazyLinear(2)
    )
    assert repr(net[3]) == "LazyLinear(in_features=0, out_features=2, bias=True)"
    with pytest.raises(RuntimeError, match="shape"):
        _ = net[3].weight.shape
    copied = copy.deepcopy(net)
    out = net(tg.ones(2, 3, 5, 5))
    assert out.shape == (2, 2)
    assert type(net[0]) is tg.nn.Conv2d
    assert type(net[1]) is tg.nn.BatchNorm2d
    assert net[3].weight.shape == (2, 36)
    assert net[0].weight.std() > 0
    out.sum().backward()
    assert net[3].weight.grad.shape == (2, 36)
    assert copied(tg.ones(1, 2, 5, 5)).shape == (1, 2)
    fresh = tg.nn.LazyLinear(2)
    fresh.load_state_dict(net[3].state_dict())
    assert fresh.weight.tolist() == net[3].weight.tolist()


def test_a_trace_notes_module_paths_and_modes_once() -> None:
    class Recorder:
        def __init__(self, net: Module) -> None:
            self.scopes = [""]
            self.module_paths = {id(m): name for name, m in net.named_modules()}
            self.training_flags: dict[int, Any] = {}
            self.seen: list[str] = []

    net = nested(tg)
    net.eval()
    recorder = Recorder(net)
    for module in net.modules():
        module.forward = lambda x, module=module: (recorder.seen.append(recorder.scopes[-1]), x)[1]
    del net.__dict__["forward"]
    token = modes.push_recorder(recorder)
    try:
        net(1)
        net(1)
    finally:
        modes.pop_recorder(token)
    assert recorder.seen == ["first", "block", "first", "tied"] * 2
    assert recorder.scopes == [""]
    flags = [(path, flag) for path, _, flag in recorder.training_flags.values()]
    assert flags == [("", False), ("first", False), ("block", False), ("tied", False)]


def test_what_a_trace_walks_and_restores() -> None:
    net = scaled(tg)(2)
    net.extra = [tg.ones(1)]
    assert [name for name, _ in net.__tracegraph_state__()] == ["weight", "mean", "cache", "extra"]
    before = [dict(place) for place in net.__tracegraph_containers__()]
    net.weight, net.fresh = Parameter(tg.zeros(2)), 3
    for place, kept in zip(net.__tracegraph_containers__(), before, strict=True):
        place.clear()
        place.update(kept)
    assert net.weight.tolist() == [2.0, 2.0]
    assert not hasattr(net, "fresh")


def test_a_call_costs_little_over_forward() -> None:
    class Empty(Module):
        def forward(self, x: Any) -> Any:
            return x

    net = Empty()
    number = 20_000
    call = min(timeit.repeat(lambda: net(1), number=number, repeat=5))
    forward = min(timeit.repeat(lambda: net.forward(1), number=number, repeat=5))
    assert (call - forward) / number < 2e-6  # measured: 0.2 µs; the limit allows for a busy machine


@pytest.mark.oracle
def test_reprs_of_nested_modules_with_lists() -> None:
    for build in (
        lambda nn: nn.ModuleList([nn.Linear(2, 3), nn.Linear(2, 3), nn.ReLU(), nn.Linear(2, 3)]),
        lambda nn: nn.ModuleList(),
        lambda nn: nn.ModuleDict({"a": nn.ReLU(), "b": nn.Sequential(nn.ReLU())}),
        lambda nn: nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), 2),
    ):
        mine, yours = (repr(build(torch.nn)) for torch in both())
        assert mine == translated(yours)
    assert re.search(r"\(0-1\): 2 x Linear", repr(tg.nn.ModuleList([tg.nn.Linear(2, 3)] * 2)))
