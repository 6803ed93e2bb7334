"""Containers against PyTorch: the same steps give the same text, names and errors."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest

import tracegraph as tg
from tests.nn_oracle import translated


def _sequential(torch: Any) -> Any:
    nn = torch.nn
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    yield net
    yield net.append(nn.Linear(3, 1)), len(net), net[-1], net[:2], net[1:]
    yield net.extend([nn.Tanh(), nn.Sigmoid()])
    yield net.insert(1, nn.ELU())
    net[0] = nn.Linear(2, 4)
    yield net
    del net[1]
    yield net, list(net.state_dict())
    del net[3:]
    yield net, net.pop(-1), net
    yield net + nn.Sequential(nn.GELU()), net * 2, 2 * net
    net += nn.Sequential(nn.SELU())
    net *= 2
    yield net
    named = nn.Sequential(OrderedDict(first=nn.ReLU(), second=nn.Tanh()))
    yield named, named[0], named[1:], named.first
    yield [type(m).__name__ for m in named]


def _module_list(torch: Any) -> Any:
    nn = torch.nn
    items = nn.ModuleList([nn.ReLU()])
    items.append(nn.Linear(2, 3))
    yield items
    items += [nn.Tanh(), nn.Tanh()]
    items.insert(1, nn.ELU())
    items.insert(2, nn.SELU())
    yield items, len(items), items[0], items[-2], items[1:3], items.__add__([nn.GELU()])
    del items[0], items[1:3]
    items[0] = nn.Linear(1, 1)
    yield items, items.pop(0), items, list(items.state_dict())
    yield nn.ModuleList(m for m in [nn.ReLU()]), list(map(repr, reversed(items)))


def _module_dict(torch: Any) -> Any:
    nn = torch.nn
    items = nn.ModuleDict({"a": nn.ReLU(), "b": nn.Linear(1, 2)})
    items["c"] = nn.Tanh()
    items.update([["d", nn.ELU()], ("a", nn.GELU())])
    yield items, list(items), list(items.keys()), len(items), "a" in items, "z" in items
    yield [n for n, _ in items.items()], [repr(m) for m in items.values()]
    del items["d"]
    yield items.pop("a"), items, list(items.state_dict())
    items.clear()
    yield items, nn.ModuleDict(OrderedDict(z=nn.ReLU(), y=nn.Tanh()))


def _parameter_list(torch: Any) -> Any:
    nn = torch.nn
    items = nn.ParameterList([nn.Parameter(torch.ones(2, 3)), torch.zeros(4), "text"])
    yield items, len(items), list(items.state_dict()), len(list(items.parameters()))
    items.append(nn.Parameter(torch.ones(1), requires_grad=False))
    items += [torch.ones(2, dtype=torch.float64)]
    items[0] = torch.ones(5)
    yield items, items[-1].requires_grad, items[2], items[1:3], [type(p).__name__ for p in items]


def _parameter_dict(torch: Any) -> Any:
    nn = torch.nn
    items = nn.ParameterDict({"a": torch.ones(2), "b": nn.Parameter(torch.zeros(3))})
    items["c"] = 5
    yield items, list(items), len(items), "a" in items, list(items.state_dict())
    items.update({"d": torch.ones(1)})
    yield items.setdefault("e", torch.ones(2)), items.get("x", 7), list(reversed(items))
    yield items.pop("a"), items.popitem()[0], items, items.copy(), items | {"z": torch.ones(1)}
    yield list(items.keys()), [n for n, _ in items.items()], len(list(items.values()))
    yield items.fromkeys(["p", "q"], torch.ones(1)), nn.ParameterDict([("k", torch.ones(1))])
    items |= {"last": torch.ones(1)}
    yield items
    items.clear()
    yield items


STEPS = [_sequential, _module_list, _module_dict, _parameter_list, _parameter_dict]


@pytest.mark.oracle
@pytest.mark.parametrize("steps", STEPS, ids=lambda f: f.__name__)
def test_every_step_gives_the_same_text(steps: Any) -> None:
    import torch

    for i, (mine, yours) in enumerate(zip(steps(tg), steps(torch), strict=True)):
        assert repr(mine) == translated(repr(yours)), f"step {i}"


REFUSALS: dict[str, Any] = {
    "index": lambda torch: torch.nn.Sequential(torch.nn.ReLU())[1],
    "negative": lambda torch: torch.nn.ModuleList([torch.nn.ReLU()])[-2],
    "extend": lambda torch: torch.nn.ModuleList().extend(3),
    "no module": lambda torch: torch.nn.Sequential(3),
    "list of no modules": lambda torch: torch.nn.ModuleList([3]),
    "key": lambda torch: torch.nn.ModuleDict()["a"],
    "update": lambda torch: torch.nn.ModuleDict().update(3),
    "pairs": lambda torch: torch.nn.ModuleDict().update([("a",)]),
    "parameter index": lambda torch: torch.nn.ParameterList()[0],
    "call": lambda torch: torch.nn.ParameterList()(1),
    "call of a dict": lambda torch: torch.nn.ParameterDict()(1),
    "times": lambda torch: torch.nn.Sequential() * -1,
    "plus": lambda torch: torch.nn.Sequential() + 3,
    "taken": lambda torch: torch.nn.ModuleDict({"items": torch.nn.ReLU()}),
}


@pytest.mark.oracle
@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_are_pytorchs(name: str) -> None:
    import torch

    with pytest.raises(Exception) as theirs:
        REFUSALS[name](torch)
    with pytest.raises(type(theirs.value)):
        REFUSALS[name](tg)


def test_a_sequential_calls_in_order() -> None:
    net = tg.nn.Sequential(tg.nn.ZeroPad1d(1), tg.nn.Flatten(0))
    assert net(tg.ones(1, 2)).tolist() == [0.0, 1.0, 1.0, 0.0]
    assert tg.nn.Sequential()(3) == 3
