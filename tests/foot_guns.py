"""The known foot-guns of tracing: small programs, and what must become of each.

A program is RIGHT (replays do what eager calls do, whatever happens between them) or refused: by
an error that names the line marked `# <-`, when it is traced or when it is replayed.
"""

from __future__ import annotations

import dataclasses
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

import tracegraph as tg
from tracegraph import nn
from tracegraph.errors import (
    BakeError,
    GuardError,
    SelfCheckError,
    SignatureError,
    TraceError,
    UnseenPathError,
)

RIGHT = "right"
TRACE = "refused when traced"
REPLAY = "refused when replayed"


@dataclasses.dataclass
class Program:
    """A function, the inputs of its calls (the first is traced), and what happens before replays.

    `options` are those of `trace`; `state` are tensors that must come out alike.
    """

    function: Callable[..., Any]
    calls: list[tuple[Any, ...]]
    between: Callable[[], Any] = lambda: None
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    state: Callable[[], list[Any]] = list


@dataclasses.dataclass
class Gun:
    """One row of the table: the foot-gun, what becomes of it, and the error."""

    name: str
    verdict: str
    does: str
    error: type[Exception] | None
    make: Callable[[], Program]
    on_gpu: bool = False

    @property
    def line(self) -> int | None:
        """The line that an error must name."""
        code = self.make.__code__
        with open(code.co_filename, encoding="utf-8") as source:
            lines = source.read().split("\n")
        start = code.co_firstlineno
        end = next((i for i in range(start + 2, len(lines)) if lines[i - 1].startswith("@")), None)
        marked = [i for i in range(start, end or len(lines)) if lines[i - 1].endswith("# <-")]
        return marked[0] if marked else None


GUNS: list[Gun] = []


def gun(
    name: str, verdict: str, does: str, error: type[Exception] | None = None, on_gpu: bool = False
) -> Callable[[Callable[[], Program]], Callable[[], Program]]:
    """Put a program into the table."""

    def add(make: Callable[[], Program]) -> Callable[[], Program]:
        GUNS.append(Gun(name, verdict, does, error, make, on_gpu))
        return make

    return add


def x(*sizes: int, by: float = 1.0) -> Any:
    """Numbers that differ."""
    count = int(np.prod(sizes or (3,)))
    return (tg.arange(count, dtype=tg.float32) * 0.5 + 0.25).reshape(sizes or (3,)) * by


# Python values that change.


@gun("closure scalar", REPLAY, "the variable is compared at each call", GuardError)
def closure_scalar() -> Program:
    scale = 2.0

    def f(x: Any) -> Any:
        return x * scale  # <-

    def change() -> None:
        nonlocal scale
        scale = 3.0

    return Program(f, [(x(),), (x(),)], change)


GAIN = [1.5]
LEVEL = 2.0


@gun("global", REPLAY, "the variable is compared at each call", GuardError)
def global_scalar() -> Program:
    global LEVEL
    LEVEL = 2.0

    def f(x: Any) -> Any:
        return x + LEVEL  # <-

    def change() -> None:
        global LEVEL
        LEVEL = 7.0

    return Program(f, [(x(),), (x(),)], change)


@gun("item of a global list or dict", REPLAY, "the item is compared at each call", GuardError)
def global_item() -> Program:
    GAIN[:] = [1.5]

    def f(x: Any) -> Any:
        return x * GAIN[0]  # <-

    return Program(f, [(x(),), (x(),)], lambda: GAIN.__setitem__(0, 9.0))


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = 2.0
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Any) -> Any:
        return self.drop(x * self.scale)


@gun("attribute changed after the trace", REPLAY, "it is compared at each call", GuardError)
def attribute() -> Program:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = 2.0

        def forward(self, x: Any) -> Any:
            return x * self.scale  # <-

    model = Model()
    return Program(model, [(x(),), (x(),)], lambda: setattr(model, "scale", 3.0))


@gun("setting of a layer changed after the trace", REPLAY, "it is compared at each call",
     GuardError)  # fmt: skip
def setting() -> Program:
    model = Scaled()
    return Program(model, [(x(),), (x(),)], lambda: setattr(model.drop, "p", 0.1))


@gun("a function that reads a Python value", REPLAY, "what it reads is compared", GuardError)
def helper() -> Program:
    options = {"rate": 0.5}

    def rate() -> float:
        return options["rate"] * 2  # <-

    def f(x: Any) -> Any:
        return x * rate()

    return Program(f, [(x(),), (x(),)], lambda: options.update(rate=0.9))


@gun("default argument", RIGHT, "the default is what the function itself would use")
def default_argument() -> Program:
    def f(x: Any, power: float = 2.0) -> Any:
        return x**power

    return Program(f, [(x(),), (x(by=3),)])


@gun("an argument that the trace left to its default", REPLAY,
     "the replay does not have it: give it with the example inputs", SignatureError)  # fmt: skip
def default_given() -> Program:
    def f(x: Any, power: float = 2.0) -> Any:
        return x**power

    return Program(f, [(x(),), (x(), 3.0)])


@gun("another Python argument", REPLAY, "only values that an example had", SignatureError)
def python_argument() -> Program:
    def f(x: Any, power: float) -> Any:
        return x**power

    return Program(f, [(x(), 2.0), (x(), 3.0)])


@gun("mutable default argument", TRACE, "the next call would do something else", TraceError)
def mutable_default() -> Program:
    def f(x: Any, seen: list[int] = []) -> Any:  # noqa: B006
        seen.append(1)
        return x * len(seen)  # <-

    return Program(f, [(x(),)])


@gun("a counter", TRACE, "the next call would do something else", TraceError)
def counter() -> Program:
    count = 0

    def f(x: Any) -> Any:
        nonlocal count
        count += 1
        return x * count  # <-

    return Program(f, [(x(),)])


@gun("a counter that nothing depends on", RIGHT, "the graph is the same for each call")
def idle_counter() -> Program:
    count = 0

    def f(x: Any) -> Any:
        nonlocal count
        count += 1
        return x * 2

    return Program(f, [(x(),), (x(by=2),)])


@gun("random", TRACE, "a second call gives another number", SelfCheckError)
def python_random() -> Program:
    def f(x: Any) -> Any:
        return x * random.random()  # <-

    return Program(f, [(x(),)])


@gun("random in a branch", TRACE, "further calls take the other way", TraceError)
def python_coin() -> Program:
    rolls = iter([True] + [False] * 99)

    def f(x: Any) -> Any:
        if next(rolls):
            x = x * 2
        return x + 1

    return Program(f, [(x(),)])


@gun("NumPy's random numbers", TRACE, "a second call gives another number", SelfCheckError)
def numpy_random() -> Program:
    draw = np.random.default_rng(3)

    def f(x: Any) -> Any:
        noise = draw.normal(size=3).astype("f")
        return x + tg.from_numpy(noise)  # <-

    return Program(f, [(x(),)])


@gun("time", TRACE, "a second call gives another number", SelfCheckError)
def clock() -> Program:
    def f(x: Any) -> Any:
        now = time.perf_counter()
        return x + now  # <-

    return Program(f, [(x(),)])


@gun("random in a training step", TRACE, "the step is called a second time to see it", TraceError)
def random_step() -> Program:
    w = tg.ones(3)

    def step(x: Any) -> Any:
        w.add_(x * random.random())  # <-
        return w.sum()

    return Program(step, [(x(),)])


@gun("a NumPy array that changes after the trace", REPLAY, "small arrays are compared", GuardError)
def numpy_table() -> Program:
    table = np.arange(3.0, dtype="f")

    def f(x: Any) -> Any:
        return x + tg.tensor(table)  # <-

    return Program(f, [(x(),), (x(),)], lambda: table.__iadd__(1))


# Tensors that become Python values.


@gun("item() of a float", TRACE, "the number would be frozen; allow_bake accepts it", BakeError)
def item() -> Program:
    def f(x: Any) -> Any:
        return x / x.max().item()  # <-

    return Program(f, [(x(),)])


@gun("item() of an integer", REPLAY, "a guard: another number is refused", UnseenPathError)
def integer_item() -> Program:
    def f(x: Any, n: Any) -> Any:
        return x[: n.item()]  # <-

    return Program(f, [(x(), tg.tensor(2)), (x(), tg.tensor(1))])


@gun("item() that was allowed", RIGHT, "the report lists the value; replays keep it")
def allowed_item() -> Program:
    def f(x: Any) -> Any:
        top = x.max().item()
        return x / top

    return Program(f, [(x(),), (x(),)], options={"allow_bake": ["top"]})


@gun("NumPy round trip", TRACE, "the numbers would be frozen", BakeError)
def numpy_round_trip() -> Program:
    def f(x: Any) -> Any:
        return tg.from_numpy(np.sort(x.numpy()))  # <-

    return Program(f, [(x(),)])


@gun("a NumPy function on a tensor", TRACE, "the numbers would be frozen", BakeError)
def numpy_function() -> Program:
    def f(x: Any) -> Any:
        return x * float(np.mean(np.asarray(x)))  # <-

    return Program(f, [(x(),)])


@gun("tolist()", TRACE, "the numbers would be frozen", BakeError)
def to_list() -> Program:
    def f(x: Any) -> Any:
        return tg.tensor([v + 1 for v in x.tolist()])  # <-

    return Program(f, [(x(),)])


@gun("printing a tensor", RIGHT, "text for people is no use of the value")
def printing() -> Program:
    def f(x: Any) -> Any:
        _ = f"{x}" + repr(x)
        return x * 2

    return Program(f, [(x(),), (x(by=2),)])


@gun("formatting a number of a tensor", TRACE, "the text would be frozen", BakeError)
def formatting() -> Program:
    def f(x: Any) -> Any:
        return x * len(f"{x.sum():.3f}")  # <-

    return Program(f, [(x(),)])


# Inputs.


@gun("list and dict inputs", RIGHT, "any nesting is an input, leaf by leaf")
def nested_inputs() -> Program:
    def f(items: Any, named: Any) -> Any:
        return {"sum": items[0] + named["a"][1], "rest": [items[1]]}

    return Program(f, [([x(), x()], {"a": (x(), x())}), ([x(by=2), x()], {"a": (x(), x(by=3))})])


@gun("a list of another length", REPLAY, "the nesting is part of the signature", SignatureError)
def longer_list() -> Program:
    def f(items: Any) -> Any:
        return sum(items)

    return Program(f, [([x(), x()],), ([x(), x(), x()],)])


@gun("generator inputs", TRACE, "a generator can be read only once", TraceError)
def generator_input() -> Program:
    def f(items: Any) -> Any:
        return sum(items)

    return Program(f, [((x() for _ in range(2)),)])


@gun("the same tensor passed twice", RIGHT, "two inputs with the same numbers")
def same_tensor() -> Program:
    def f(a: Any, b: Any) -> Any:
        return a * 2 + b

    one = x()
    return Program(f, [(one, one), (x(), x(by=2))])


@gun("the same tensor passed twice and written", TRACE, "which of them changes is not known",
     TraceError)  # fmt: skip
def same_tensor_written() -> Program:
    def f(a: Any, b: Any) -> Any:
        a.add_(1)
        return a * b

    one = x()
    return Program(f, [(one, one)])


@gun("an input that is a view of another", RIGHT, "two inputs with their own numbers")
def view_input() -> Program:
    def f(a: Any, b: Any) -> Any:
        return a.sum() + b

    whole = x(4)
    return Program(f, [(whole, whole[1:3]), (x(4), x(2))])


@gun("an input that is a view of another, written", TRACE, "a replay could not know", TraceError)
def view_input_written() -> Program:
    def f(a: Any, b: Any) -> Any:
        b.mul_(2)
        return a.sum()

    whole = x(4)
    return Program(f, [(whole, whole[1:3])])


@gun("an input that shares memory with what a call writes, in a replay only", REPLAY,
     "when it is read would matter", GuardError)  # fmt: skip
def view_input_of_a_replay() -> Program:
    def f(a: Any, b: Any) -> Any:
        b.mul_(2)  # <-
        return a.sum()

    whole = x(4)
    return Program(f, [(x(4), x(2)), (whole, whole[1:3])])


@gun("mutated input", RIGHT, "it is written back into what the caller gives")
def mutated_input() -> Program:
    def f(a: Any) -> Any:
        a[1:] = 0
        return a.sum()

    return Program(f, [(x(),), (x(by=2),)])


@gun("a write through `reshape`, of an input in another memory layout", REPLAY,
     "there it would write to a copy", GuardError)  # fmt: skip
def transposed_input() -> Program:
    def f(a: Any) -> Any:
        y = a * 2
        y.reshape(-1)[0] = 5  # <-
        return y

    return Program(f, [(tg.ones(2, 3),), (tg.ones(3, 2).T,)])


@gun("a view or a copy by memory layout, whose other name is not read", RIGHT,
     "nothing depends on which it is")  # fmt: skip
def transposed_input_as_a_name() -> Program:
    def f(a: Any) -> Any:
        y = (a * 2).flatten()
        y[0] = 5
        return y

    return Program(f, [(tg.ones(2, 3),), (tg.ones(3, 2).T,)])


@gun("a function of `cond` and its result, with operands in another memory layout", RIGHT,
     "operands and results of control flow lie in rows")  # fmt: skip
def transposed_operand() -> Program:
    def written(a: Any) -> Any:
        y = a * 2
        y.reshape(-1)[0] = 5
        return y

    def f(a: Any) -> Any:
        return written(tg.cond(a.sum() > 0, written, lambda a: a * 3, (a,)))

    return Program(f, [(tg.ones(2, 3),), (tg.ones(3, 2).T,)])


@gun("dtype change", REPLAY, "dtypes are part of the signature", SignatureError)
def dtype_change() -> Program:
    def f(x: Any) -> Any:
        return x * 2

    return Program(f, [(x(),), (x().double(),)])


@gun("size 0 and 1", RIGHT, "sizes like any other, where the dim is dynamic")
def small_sizes() -> Program:
    def f(a: Any) -> Any:
        return (a - a.sum(0)) / a.shape[0] if a.shape[1] else a

    options = {"dynamic": {"a": {0: "rows"}}}
    return Program(f, [(x(4, 3),), (x(1, 3),), (x(7, 3),)], options=options)


@gun("another size", REPLAY, "sizes are part of the signature, unless a dim is dynamic",
     SignatureError)  # fmt: skip
def other_size() -> Program:
    def f(a: Any) -> Any:
        return a + a.shape[0]

    return Program(f, [(x(4),), (x(1),)])


# State.


@gun("mutated closure tensor", RIGHT, "it is State: read and written at each call")
def closure_tensor() -> Program:
    total = tg.zeros(3)

    def f(x: Any) -> Any:
        total.add_(x)
        return total * 2

    return Program(f, [(x(),), (x(by=2),), (x(by=3),)], state=lambda: [total])


@gun("a write through `reshape`, of State replaced by a tensor in another memory layout", REPLAY,
     "there it would write to a copy", GuardError)  # fmt: skip
def transposed_state() -> Program:
    total = tg.ones(2, 3)

    def f(a: Any) -> Any:
        total.reshape(-1).add_(a)  # <-
        return total * 1

    def replace() -> None:
        nonlocal total
        total = tg.ones(3, 2).T.clone()

    return Program(f, [(tg.ones(6),), (tg.ones(6),)], replace)


@gun("a new tensor in the place of State, where another tensor looks at the old memory", TRACE,
     "a replay would write to it, or not, as eager code does not", TraceError)  # fmt: skip
def watched_state() -> Program:
    weight = tg.ones(3).requires_grad_()
    watched = [weight.detach()]

    def f(a: Any) -> Any:
        nonlocal weight
        weight = (weight.detach() * a).requires_grad_()
        return weight * 1

    return Program(f, [(x(),)], state=lambda: watched)


@gun("a branch that reads what another branch left in the gradient history", TRACE,
     "its gradient would go back into an earlier call", TraceError)  # fmt: skip
def history_between_branches() -> Program:
    weight, memory = tg.ones(3).requires_grad_(), tg.zeros(3)

    def f(a: Any) -> Any:
        nonlocal memory
        weight.grad = None
        if a.sum() > 0:
            memory += weight
            return a * 1
        (weight.sum() + memory.sum()).backward()
        return weight.grad * a

    return Program(f, [(x(),)], options={"more_examples": [(x(by=-1),)]})


@gun("closure tensor replaced by another", RIGHT, "a replay reads what the variable holds")
def replaced_tensor() -> Program:
    weight = x()

    def f(x: Any) -> Any:
        return x * weight

    def change() -> None:
        nonlocal weight
        weight = x(by=5)

    return Program(f, [(x(),), (x(),)], change)


@gun("tensor attributes set on modules", RIGHT, "what the attribute holds then is State")
def tensor_attribute() -> Program:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = tg.zeros(3)

        def forward(self, x: Any) -> Any:
            self.last = self.last * 0.5 + x
            return self.last + 1

    model = Model()
    return Program(model, [(x(),), (x(by=2),), (x(),)], state=lambda: [model.last])


@gun("a tensor attribute that was None", TRACE, "the first call differs from the next", TraceError)
def late_attribute() -> Program:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last: Any = None

        def forward(self, x: Any) -> Any:
            self.last = x if self.last is None else self.last + x
            return self.last * 2

    return Program(Model(), [(x(),)])


@gun("a tensor attribute that is set for the first time", TRACE, "a replay would not set it",
     TraceError)  # fmt: skip
def new_attribute() -> Program:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention: Any = None

        def forward(self, x: Any) -> Any:
            self.attention = x.softmax(0)  # <-
            return x + 1

    return Program(Model(), [(x(),)])


@gun("a list that collects tensors", TRACE, "a replay would not append to it", TraceError)
def collecting_list() -> Program:
    seen: list[Any] = []

    def f(x: Any) -> Any:
        y = x * 2  # <-
        seen.append(y)
        return y + 1

    return Program(f, [(x(),)])


@gun("a model that was converted after the trace", REPLAY, "types of State are compared",
     GuardError)  # fmt: skip
def converted() -> Program:
    model = _linear()
    return Program(model, [(x(2, 3),)] * 2, model.double)


@gun("device moved after the trace", RIGHT, "a replay runs where State is", on_gpu=True)
def moved() -> Program:
    model = _linear()
    calls = [(x(2, 3),), (x(2, 3).cuda(),)]
    return Program(model, calls, model.cuda, state=lambda: [model.weight])


@gun("output that is an input", RIGHT, "a replay gives a copy")
def output_is_input() -> Program:
    def f(x: Any) -> Any:
        return x, x + 1

    return Program(f, [(x(),), (x(by=2),)])


@gun("output aliasing State", RIGHT, "a replay gives a copy: later writes do not change it")
def output_is_state() -> Program:
    memory = tg.zeros(3)

    def f(x: Any) -> Any:
        memory.copy_(x)
        return memory[:2]

    return Program(f, [(x(),), (x(by=2),)], state=lambda: [memory])


@gun("places that come to hold one tensor", TRACE,
     "a replay gives each its own, so that a later write changes one", TraceError)  # fmt: skip
def shared_places() -> Program:
    held = {"last": x(), "best": x()}

    def f(x: Any) -> Any:
        held["last"] = held["best"] = x * 2
        return x

    return Program(f, [(x(),)])


@gun("writes through `as_strided` and `unfold`", RIGHT, "they are views")
def steps() -> Program:
    memory = x(4, 3)

    def f(x: Any) -> Any:
        memory.as_strided((4,), (3,)).copy_(x)
        windows = memory.reshape(-1).unfold(0, 2, 2)
        memory.mul_(0.5)
        windows[1] = 7
        return windows * 1

    return Program(f, [(x(4),), (x(4, by=3),)], state=lambda: [memory])


@gun("tied weights", RIGHT, "one State, tied in the file as well")
def tied_weights() -> Program:
    tg.manual_seed(3)
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    optimizer = tg.optim.SGD([*first.parameters(), second.bias], lr=0.1)

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = second(first(x)).pow(2).sum()
        loss.backward()
        optimizer.step()
        return loss

    return Program(step, [(x(2, 3),)] * 3, state=lambda: [first.weight, second.weight])


def _training(model: Any, step: Callable[[Any, Any], Any]) -> tuple[Any, Any]:
    optimizer = tg.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def run(x: Any) -> Any:
        return step(optimizer, model(x).pow(2).mean())

    return run, optimizer


def _linear() -> Any:
    tg.manual_seed(3)
    return nn.Linear(3, 2)


@gun("learning-rate scheduler", RIGHT, "the learning rate is an input that follows the optimizer")
def scheduler() -> Program:
    def step(optimizer: Any, loss: Any) -> Any:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    model = _linear()
    run, optimizer = _training(model, step)
    schedule = tg.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    calls = [(x(2, 3),)] * 3
    return Program(run, calls, schedule.step, state=lambda: [model.weight])


@gun("a learning rate that the code reads itself", REPLAY, "it is a Python number: compared",
     GuardError)  # fmt: skip
def own_rate() -> Program:
    model = _linear()
    optimizer = tg.optim.SGD(model.parameters(), lr=0.1)

    def step(x: Any) -> Any:
        loss = model(x).sum()
        (grad,) = tg.autograd.grad(loss, [model.weight])
        with tg.no_grad():
            model.weight -= optimizer.param_groups[0]["lr"] * grad  # <-
        return loss

    def change() -> None:
        optimizer.param_groups[0]["lr"] = 0.01

    return Program(step, [(x(2, 3),)] * 2, change)


@gun("gradient accumulation", RIGHT, "`.grad` is State where it is added to")
def accumulation() -> Program:
    model = _linear()

    def backward(x: Any) -> Any:
        loss = model(x).pow(2).sum()
        loss.backward()
        return loss

    return Program(backward, [(x(2, 3),)] * 3, state=lambda: [model.weight.grad])


@gun("dropout", RIGHT, "replays draw fresh numbers, the ones that eager calls would draw")
def dropout() -> Program:
    tg.manual_seed(5)
    return Program(nn.Dropout(0.5), [(x(8),)] * 3)


@gun("batch-norm buffers in train mode", RIGHT, "running statistics are State")
def batch_norm() -> Program:
    layer = nn.BatchNorm1d(3)
    calls = [(x(4, 3),), (x(4, 3, by=3),)]
    return Program(layer, calls, state=lambda: [layer.running_mean, layer.num_batches_tracked])


@gun("batch-norm buffers in eval mode", RIGHT, "running statistics are State, and are read only")
def batch_norm_in_eval() -> Program:
    layer = nn.BatchNorm1d(3).eval()

    def change() -> None:
        layer.running_mean.add_(1)

    calls = [(x(4, 3),), (x(4, 3, by=3),)]
    return Program(layer, calls, change, state=lambda: [layer.running_mean])


@gun("train mode traced, eval mode replayed", REPLAY, "the mode is a guard", GuardError)
def mode() -> Program:
    layer = nn.BatchNorm1d(3)
    return Program(layer, [(x(4, 3),)] * 2, layer.eval)


@gun("a gradient that one branch leaves None", TRACE,
     "a replay would leave zeros: let it be zeros before", TraceError)  # fmt: skip
def unset_gradient() -> Program:
    first, second = (tg.ones(3, requires_grad=True) for _ in range(2))

    def f(x: Any) -> Any:
        weight = first if x.sum() > 0 else second
        (x * weight).sum().backward()
        return x

    return Program(f, [(x(),)], options={"more_examples": [(x(by=-1),)]})


# Control flow.


@gun("branch on value", REPLAY, "a guard: the way not seen is refused", UnseenPathError)
def branch() -> Program:
    def f(x: Any) -> Any:
        if x.sum() > 0:  # <-
            return x * 2
        return x - 1

    return Program(f, [(x(),), (x(by=-1),)])


@gun("branch on value, both ways among the examples", RIGHT, "the graph branches")
def both_branches() -> Program:
    def f(x: Any) -> Any:
        if x.sum() > 0:
            return x * 2
        return x - 1

    options = {"more_examples": [(x(by=-1),)]}
    return Program(f, [(x(),), (x(by=-2),), (x(by=3),)], options=options)


@gun("branch on shape", REPLAY, "a guard: the way not seen is refused", UnseenPathError)
def shape_branch() -> Program:
    def f(a: Any) -> Any:
        if a.shape[0] > 3:  # <-
            return a.sum(0)
        return a.amax(0)

    options = {"dynamic": {"a": {0: "rows"}}}
    return Program(f, [(x(5, 2),), (x(2, 2),)], options=options)


@gun("branch on shape, both ways among the examples", RIGHT, "the graph branches by the size")
def both_shapes() -> Program:
    def f(a: Any) -> Any:
        if a.shape[0] > 3:
            return a.sum(0)
        return a.amax(0)

    options = {"more_examples": [(x(2, 2),)]}
    return Program(f, [(x(5, 2),), (x(1, 2),), (x(9, 2),), (x(3, 2),)], options=options)


@gun("loop over a length", REPLAY, "a guard: a number of steps not seen is refused",
     UnseenPathError)  # fmt: skip
def loop() -> Program:
    def f(a: Any) -> Any:
        total = a.sum() * 0
        for i in range(a.shape[0]):  # <-
            total = total * 0.5 + a[i].sum()
        return total

    return Program(f, [(x(3, 2),), (x(5, 2),)], options={"dynamic": {"a": {0: "rows"}}})


@gun("loop over a length, as scan", RIGHT, "one node, for any number of steps")
def scanned() -> Program:
    def f(a: Any) -> Any:
        return tg.scan(lambda t, row: (t * 0.5 + row.sum(), row * 2), a.sum() * 0, a)

    calls = [(x(3, 2),), (x(5, 2),), (x(1, 2),)]
    return Program(f, calls, options={"dynamic": {"a": {0: "rows"}}})


@gun("early return", REPLAY, "a guard: the way not seen is refused", UnseenPathError)
def early_return() -> Program:
    def f(x: Any) -> Any:
        for _ in range(5):
            x = x - 1
            if (x < 0).any():  # <-
                return x
        return x * 2

    return Program(f, [(x(),), (x(by=9) + 9,)])


@gun("exception paths", REPLAY, "the check in Python is a guard", UnseenPathError)
def exception_path() -> Program:
    def f(x: Any) -> Any:
        if (x < 0).any():  # <-
            raise ValueError("negative")
        return x.sqrt()

    return Program(f, [(x(),), (x(by=-1),)])


@gun("an exception that the function catches", RIGHT, "what it recorded before is not used")
def caught_exception() -> Program:
    def f(x: Any) -> Any:
        try:
            y = x + 1
            return y @ tg.ones(7)
        except RuntimeError:
            return x * 3

    return Program(f, [(x(),), (x(by=2),)])


@gun("recursion", RIGHT, "the calls are unrolled")
def recursion() -> Program:
    def f(x: Any, depth: int = 0) -> Any:
        return x if depth == 4 else f(x * 1.5 + depth, depth + 1)

    return Program(f, [(x(),), (x(by=2),)])


@gun("nested traced calls", RIGHT, "the inner graph becomes part of the outer one")
def nested_trace() -> Program:
    weight = x()
    inner = tg.trace(lambda a: a * weight + 1, (x(),))

    def f(x: Any) -> Any:
        return inner(x * 2).sum()

    return Program(f, [(x(),), (x(by=2),)])


@gun("non-tensor outputs", RIGHT, "Python values are returned as they were")
def python_outputs() -> Program:
    def f(x: Any) -> Any:
        return {"y": x * 2, "name": "double", "count": 3, "none": None}

    return Program(f, [(x(),), (x(by=2),)])


@gun("a Python number computed from a tensor, returned", TRACE, "it would be frozen", BakeError)
def float_output() -> Program:
    def f(x: Any) -> Any:
        return x * 2, x.mean().item()  # <-

    return Program(f, [(x(),)])


# Threads.


@gun("ops in another thread", TRACE, "the trace does not see them, a second call tells",
     SelfCheckError)  # fmt: skip
def worker_thread() -> Program:
    def f(x: Any) -> Any:
        with ThreadPoolExecutor(1) as pool:
            y = pool.submit(lambda: x * 2).result()
        return y + 1  # <-

    return Program(f, [(x(),)])


@gun("replays from many threads", RIGHT, "each call has its own memory")
def many_threads() -> Program:
    traced = tg.trace(lambda a: (a * 2).sum(), (x(),))
    inputs = [x(by=i) for i in range(8)]

    def f(x: Any) -> Any:
        results: list[Any] = [None] * len(inputs)

        def work(i: int) -> None:
            results[i] = traced(inputs[i])

        threads = [threading.Thread(target=work, args=(i,)) for i in range(len(inputs))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [r.item() for r in results] == [(i * 2).sum().item() for i in inputs]
        return x + 1

    f(x())
    return Program(lambda x: x + 1, [(x(),), (x(by=2),)])
