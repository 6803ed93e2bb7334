"""save and load: what comes back, equal bytes, shared memory, and files made to harm."""

from __future__ import annotations

import copy
import io
import json
import os
import subprocess
import sys
import threading
from collections import OrderedDict, namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tracegraph as tg
from tracegraph.errors import (
    FileFormatError,
    SignatureError,
    StateError,
    TraceGraphError,
)
from tracegraph.files.container import Container, write_container

Pair = namedtuple("Pair", "left right")


class Box:
    """An object with attributes."""


def small() -> Any:
    """A trace with State, a constant, a Python value, writes and nested results."""
    box = Box()
    box.w = tg.tensor([[1.0, 2.0], [3.0, 4.0]])
    box.n = tg.zeros(())

    def f(x: Any, o: Any) -> Any:
        box.n.add_(1)
        y = x["a"][1:] @ box.w
        y[0] = 0
        return {"y": y, "s": Pair(y.sum(), (o["k"], 3))}, tg.tensor([1, 2, 3])

    return tg.trace(f, ({"a": tg.ones(3, 2)}, {"k": 2.5}))


CALL = ({"a": np.ones((3, 2), np.float32)}, {"k": 2.5})


def saved(obj: Any) -> bytes:
    target = io.BytesIO()
    tg.save(obj, target)
    return target.getvalue()


def loaded(data: bytes, **options: Any) -> Any:
    return tg.load(io.BytesIO(data), **options)


# What comes back.


def test_a_trace_comes_back() -> None:
    program = loaded(saved(small()))
    for count in (1, 2):
        first, second = program(*CALL)
        assert first["y"].tolist() == [[0.0, 0.0], [4.0, 6.0]]
        assert type(first["s"]).__name__ == "Pair" and first["s"].left.item() == 10.0
        assert first["s"].right == (2.5, 3)
        assert second.tolist() == [1, 2, 3]
        assert program.state_dict()["box.n"].item() == count
    assert list(program.state_dict()) == ["box.n", "box.w"]
    assert program.report()["forward"]["values"] == {"o.k": 2.5}


def test_the_same_trace_gives_the_same_bytes() -> None:
    first = small()
    assert saved(first) == saved(first) == saved(small())


def test_what_was_loaded_saves_to_the_same_bytes() -> None:
    data = saved(small())
    assert saved(loaded(data)) == data


def test_bytes_do_not_depend_on_the_process(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, tracegraph as tg\n"
        "w = {'b': tg.ones(2), 'a': tg.zeros(2)}\n"
        "def f(x):\n"
        "    w['a'].add_(x)\n"
        "    return {'s': x * w['b'], 't': w['a'].softmax(0).std() + tg.tensor([1.0, 2.0])}\n"
        "tg.save(tg.trace(f, (tg.ones(2),)), sys.argv[1])\n"
    )
    for seed in "01":
        command = [sys.executable, str(script), str(tmp_path / f"{seed}.tg")]
        subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": seed}, check=True)
    assert (tmp_path / "0.tg").read_bytes() == (tmp_path / "1.tg").read_bytes()


def test_tied_weights_are_stored_once() -> None:
    box = Box()
    box.encoder = box.decoder = tg.randn(50, 40)
    box.row = box.encoder.detach()[3]

    def f(x: Any) -> Any:
        return x @ box.encoder @ box.decoder.T + box.row.sum()

    traced = tg.trace(f, (tg.ones(1, 50),))
    data = saved(traced)
    assert len(data) < 2 * 50 * 40 * 4
    assert len(loaded(data).state_dict()) == 1
    nest = loaded(saved({"a": box.encoder, "b": [box.decoder, box.encoder.detach()]}))
    assert nest["a"] is nest["b"][0] is nest["b"][1]


def test_two_entry_points_share_state() -> None:
    box = Box()
    box.total = tg.zeros(2)
    box.scale = tg.full((2,), 3.0)

    def add(x: Any) -> Any:
        box.total.add_(x * box.scale)
        return box.total.sum()

    def read() -> Any:
        return box.total * 1

    entries = {"add": tg.trace(add, (tg.ones(2),)), "read": tg.trace(read, ())}
    program = loaded(saved(entries))
    program.add(np.ones(2, np.float32))
    assert program.add(np.ones(2, np.float32)).item() == 12.0
    assert program.read().tolist() == [6.0, 6.0]
    assert sorted(program.state_dict()) == ["box.scale", "box.total"]
    again = loaded(saved(program))
    assert again.read().tolist() == [6.0, 6.0]
    again.add(np.ones(2, np.float32))
    assert program.read().tolist() == [6.0, 6.0]
    with pytest.raises(SignatureError, match="name the entry point to use: add, read"):
        program(1)
    with pytest.raises(AttributeError, match="no entry point 'fit'; the file has: add, read"):
        program.fit  # noqa: B018


def test_paths_and_file_objects(tmp_path: Path) -> None:
    traced = small()
    tg.save(traced, tmp_path / "a.tg")
    tg.save(traced, str(tmp_path / "b.tg"))
    with open(tmp_path / "c.tg", "wb") as target:
        tg.save(traced, target)
    assert len({(tmp_path / name).read_bytes() for name in ("a.tg", "b.tg", "c.tg")}) == 1
    with open(tmp_path / "c.tg", "rb") as source:
        assert tg.load(source)(*CALL)[0]["y"].shape == (2, 2)
    for where in ("cpu", tg.device("cpu")):
        assert tg.load(tmp_path / "a.tg", where)(*CALL)[0]["y"].shape == (2, 2)
        assert tg.load(tmp_path / "a.tg", map_location=where).state_dict()["box.w"].is_cpu
    with pytest.raises(FileNotFoundError):
        tg.load(tmp_path / "none.tg")


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.tg"
    tg.save({"a": tg.ones(2)}, path)
    before = path.read_bytes()
    with pytest.raises(TypeError, match=r"cannot save a function at \['b'\]\[0\]"):
        tg.save({"a": tg.ones(3), "b": [print_nothing]}, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["x.tg"]


def print_nothing() -> None:
    """Something that a file cannot hold."""


def test_loaded_state_is_its_own() -> None:
    traced = small()
    program = loaded(saved(traced))
    traced(*({"a": tg.ones(3, 2)}, {"k": 2.5}))
    assert program.state_dict()["box.n"].item() == 0.0
    other = loaded(saved(traced))
    other.load_state_dict(program.state_dict())
    assert other.state_dict()["box.n"].item() == 0.0
    with pytest.raises(StateError, match=r"missing \['box.w'\], unexpected \['x'\]"):
        other.load_state_dict({"box.n": tg.ones(()), "x": tg.ones(1)})
    with pytest.raises(StateError, match=r"box.w: expected f32\[2,2\], got f32\[2\]"):
        other.load_state_dict({"box.n": tg.ones(()), "box.w": tg.ones(2)})
    assert other.state_dict()["box.n"].item() == 0.0


def test_wrong_calls_are_told_apart() -> None:
    program = loaded(saved(small()))
    good, options = CALL
    for args, sentence in (
        ((), "misses argument 'x'"),
        ((good, options, 1), "takes 2 arguments"),
        ((good, {"k": 2}), "made for the value 2.5, got 2"),
        ((good, {"j": 2.5}), r"expected keys \['k'\], got \['j'\]"),
        (({"a": np.ones((3, 2))}, options), r"expected f32\[3,2\], got f64\[3,2\]"),
        (({"a": np.ones((2, 2), np.float32)}, options), r"expected f32\[3,2\], got f32\[2,2\]"),
        (({"a": 1.0}, options), r"expected f32\[3,2\], got 1.0"),
        (([good], options), "expected a dict, got a list"),
    ):
        with pytest.raises(SignatureError, match=sentence):
            program(*args)
    assert program.state_dict()["box.n"].item() == 0.0
    program(o=options, x=good)


def test_many_threads_use_one_program() -> None:
    program = loaded(saved(small()))
    seen: list[Any] = []

    def work() -> None:
        for _ in range(25):
            seen.append(program(*CALL)[0]["s"].left.item())

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(seen) == {10.0}
    assert program.state_dict()["box.n"].item() == 200.0


# Plain nests.

LEAVES = {
    "f32": tg.tensor([[1.5, -2.0]]),
    "f64": tg.tensor([1.5], dtype=tg.float64),
    "f16": tg.tensor([1.5], dtype=tg.float16),
    "bf16": tg.tensor([1.5], dtype=tg.bfloat16),
    "i8": tg.tensor([1, -2], dtype=tg.int8),
    "u64": tg.tensor([1, 2], dtype=tg.uint64),
    "bool": tg.tensor([True, False]),
    "0-d": tg.tensor(3),
    "empty": tg.zeros(0, 3),
    "strided": tg.arange(12).reshape(3, 4).T[::2],
    "expanded": tg.ones(1, 2).expand(3, 2),
    "odd values": tg.tensor([float("nan"), float("inf"), -0.0]),
}


@pytest.mark.parametrize("name", LEAVES)
def test_tensors_come_back(name: str) -> None:
    t = LEAVES[name]
    got = loaded(saved(t))
    assert got.dtype is t.dtype and got.shape == t.shape
    assert np.array_equal(np.signbit(_wide(got)), np.signbit(_wide(t)))
    assert np.array_equal(_wide(got), _wide(t), equal_nan=True)


def _wide(t: Any) -> Any:
    return t.detach().to(tg.float64).numpy()


def test_nests_come_back() -> None:
    weights = tg.ones(2, requires_grad=True)
    nest = {
        "model": OrderedDict(w=weights, again=weights),
        1: [None, True, 2, 2.5, "text", "ünïcode\0", b"\x00\xff", (), {}, [], float("inf")],
        False: {"deep": [[[(1, (2,))]]]},
        None: tg.float16,
        2.5: tg.Size([2, 3]),
        "array": np.arange(3, dtype=np.int16),
        "scalar": np.float32(0.5),
        "set": {3, 1, 2},
    }
    got = loaded(saved(nest))
    assert list(got) == list(nest)
    assert got["model"]["w"] is got["model"]["again"]
    assert got["model"]["w"].requires_grad and got["model"]["w"].is_leaf
    assert {k: v for k, v in got.items() if k not in ("model", "array")} == {
        k: v for k, v in nest.items() if k not in ("model", "array")
    }
    assert type(got[2.5]) is tg.Size and type(got["scalar"]) is float
    assert isinstance(got["array"], np.ndarray) and got["array"].dtype == np.int16
    got["model"]["w"].detach().add_(1)
    got["array"][0] = 7
    assert saved(nest) == saved(nest)


def test_big_endian_arrays_come_back() -> None:
    values = np.arange(3, dtype=">f4")
    assert loaded(saved({"x": values}))["x"].tolist() == [0.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("nest", "sentence"),
    [
        ({"a": [1, {2: object()}]}, r"cannot save a object at \['a'\]\[1\]\[2\]"),
        ({"f": lambda: 0}, r"cannot save a function at \['f'\]"),
        ({(1, 2): 3}, r"dict with key \(1, 2\)"),
        (1 + 2j, "cannot save a complex at the top"),
        ([np.array(["x"])], r"cannot save an array of <U1 at \[0\]"),
        ([np.array([None])], r"cannot save an array of object at \[0\]"),
    ],
)
def test_what_a_file_cannot_hold_is_named(nest: Any, sentence: str) -> None:
    with pytest.raises(TypeError, match=sentence):
        saved(nest)


def test_a_nest_in_a_circle_is_refused() -> None:
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(TypeError, match="nested too deeply"):
        saved(circle)


# Damage.


def test_every_truncation_is_refused() -> None:
    data = saved(small())
    for size in range(len(data)):
        with pytest.raises(FileFormatError):
            loaded(data[:size])


def test_every_flipped_byte_is_refused_or_harmless() -> None:
    """A byte that no checksum covers (padding, a date) changes nothing that is read."""
    data = saved(small())
    expected = saved(loaded(data))
    harmless = 0
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << (place % 8)
        try:
            program = loaded(bytes(damaged))
        except FileFormatError:
            continue
        assert saved(program) == expected, place
        harmless += 1
    assert harmless < len(data) // 5


# Content made to harm: well-formed containers with other JSON.


def members(data: bytes) -> dict[str, bytes]:
    with Container.open(io.BytesIO(data)) as container:
        return {name: bytes(container.read(name)) for name in container.names()}


def forged(data: bytes, name: str, content: Any) -> bytes:
    target = io.BytesIO()
    write_container(target, {**members(data), name: json.dumps(content).encode()})
    return target.getvalue()


GRAPH = "graphs/forward.json"


def _graph(change: Any) -> Any:
    """A forged file: `change` gets the graph's JSON and edits it."""
    data = saved(small())
    content = json.loads(members(data)[GRAPH])
    change(content)
    return forged(data, GRAPH, content)


def _node(content: Any, op: str) -> Any:
    return next(n for n in content["graph"]["nodes"] if n["op"] == op)


HOSTILE: dict[str, tuple[Any, str]] = {
    "an unknown op": (
        lambda c: _node(c, "matmul").update(op="system"),
        "unknown op 'system': the file is newer than this tracegraph; update it"),
    "an unknown attribute": (
        lambda c: _node(c, "matmul").update(attrs={"shell": 1}), "has no attribute .'shell'."),
    "a reference to itself": (
        lambda c: _node(c, "matmul").update({"in": [[len(c["graph"]["nodes"]), 0], [0, 0]]}),
        "list index out of range"),
    "a negative reference": (
        lambda c: _node(c, "matmul").update({"in": [[-1, 0], [0, 0]]}), "expected a number from 0"),
    "an operand too few": (
        lambda c: _node(c, "matmul")["in"].pop(), "was given 1 operands"),
    "other types": (
        lambda c: _node(c, "matmul").update(types=["f32[7,7]"]), "do not follow from the operands"),
    "a huge dim": (
        lambda c: _node(c, "matmul").update(types=["f32[999999999999999999]"]), "is too large"),
    "a negative dim": (
        lambda c: _node(c, "matmul").update(types=["f32[-1]"]), "is no tensor type"),
    "a bad slice": (
        lambda c: _node(c, "slice").update(attrs={"index": [[-5, 3, 1], [0, 2, 1]]}),
        "does not fit a dim"),
    "dims out of range": (
        lambda c: _node(c, "sum")["attrs"].update(dim=[0, 9]), "are not distinct dims"),
    "a flag that is a number": (
        lambda c: _node(c, "sum")["attrs"].update(keepdim=1), "keepdim is 1, not bool"),
    "an array for an attribute": (
        lambda c: _node(c, "sum")["attrs"].update(dim={"array": 0}), "unknown attribute value"),
    "a constant of another type": (
        lambda c: _node(c, "constant").update(types=["f32[9]"]), "a constant's data is not f32"),
    "a constant that is no array": (
        lambda c: _node(c, "constant").update(attrs={"value": 3}), "node"),
    "a missing key": (lambda c: c["graph"].pop("outputs"), "'outputs'"),
    "a write to nothing": (
        lambda c: c["graph"]["writes"].update({"ghost": [0, 0]}), "write of .* to 'ghost'"),
    "a write of another type": (
        lambda c: c["graph"]["writes"].update(
            {"box.n": [c["graph"]["nodes"].index(_node(c, "matmul")), 0]}),
        r"write of f32.2,2. to 'box.n', which is f32"),
    "state without a tensor": (lambda c: c["state"].pop("box.w"), "no tensor of type"),
    "state that is not in the file": (lambda c: c["state"].update({"box.w": "x"}), "'x'"),
    "other inputs": (
        lambda c: c["signature"]["specs"][0].update(type="f32[4]"), "are not the signature's"),
    "results that are not there": (
        lambda c: c["signature"]["ways"][0]["results"][0].update(value=99), "names no output"),
    "leaves out of range": (
        lambda c: c["signature"]["ways"][0].update(outputs={"leaf": 99}), "leaves .99., not 0 to"),
    "an unknown nesting": (
        lambda c: c["signature"]["ways"][0].update(outputs={"pickle": "x"}), "unknown nesting"),
    "keys that are lists": (
        lambda c: c["signature"]["ways"][0].update(outputs={"dict": [[[1], {"none": 1}]]}),
        "bad keys"),
    "a class name that is code": (
        lambda c: c["signature"]["ways"][0].update(
            outputs={"namedtuple": "x; import os", "fields": [], "items": []}),
        "must be valid identifiers"),
    "variants over other arguments": (
        lambda c: c["variants"][0]["scalars"].update(ghost=1), "variants"),
    "a mode that is no bool": (
        lambda c: c["variants"][0]["modes"].update(net=1), "variants"),
    "no variants": (lambda c: c.update(variants=[]), "variants"),
    "a place outside of the list of files": (
        lambda c: _node(c, "matmul").update(loc=[99, 1, "f"]), "list index out of range"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_graphs_are_refused(case: str) -> None:
    change, sentence = HOSTILE[case]
    with pytest.raises(FileFormatError, match=sentence) as caught:
        loaded(_graph(change))
    assert len(str(caught.value)) < 600


def test_a_deep_nesting_is_refused() -> None:
    data = saved(small())
    listed = members(data)
    graph = listed[GRAPH].decode().replace('{"leaf":0}', '{"list":[' * 5000 + "]}" * 5000, 1)
    target = io.BytesIO()
    write_container(target, {**listed, GRAPH: graph.encode()})
    with pytest.raises(FileFormatError, match="nest deeper than"):
        loaded(target.getvalue())


def test_deep_regions_are_refused() -> None:
    def change(content: Any) -> None:
        region = {k: v for k, v in content["graph"].items() if k != "nodes"} | {"nodes": []}
        for _ in range(30):
            node = {"op": "kernel", "types": [], "regions": {"body": region}}
            region = {**region, "nodes": [node]}
        content["graph"]["nodes"].append({"op": "kernel", "types": [], "regions": {"body": region}})

    with pytest.raises(FileFormatError, match="nest deeper than"):
        loaded(_graph(change))


def test_a_newer_format_is_named() -> None:
    data = saved(small())
    head = json.loads(members(data)["format.json"])
    with pytest.raises(FileFormatError, match=r"format version \[2, 0\] is not known .* update"):
        loaded(forged(data, "format.json", {**head, "format": [2, 0]}))


def test_other_zip_files_and_pickles_are_refused() -> None:
    for data in (b"", b"PK", b"\x80\x04N.", b"x" * 5000, saved(small())[:100] * 20):
        with pytest.raises(FileFormatError):
            loaded(data)


def test_an_unverified_load_still_checks_the_graph() -> None:
    data = _graph(lambda c: _node(c, "matmul").update(op="system"))
    with pytest.raises(FileFormatError, match="unknown op"):
        loaded(data, verify=False)


def places(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in JSON data."""
    yield path
    if isinstance(data, dict):
        for key in data:
            yield from places(data[key], (*path, key))
    elif isinstance(data, list):
        for i in range(len(data)):
            yield from places(data[i], (*path, i))


def changed(data: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    data = copy.deepcopy(data)
    inner = data
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return data


VALUES: list[Any] = [
    None, True, -1, 0, 7, 1 << 62, 1 << 70, 0.5, 1e308, "", "x", "__class__", [], [[]], [1], {},
    {"leaf": 9}, {"array": 0}, {"array": -1}, {"scalar": 1e308}, {"dtype": "f32"}, {"float": "nan"},
    [0, 0], [99, 0], "f32[2,2]", "f32[99999999999]", "graphs/forward.json",
]  # fmt: skip


def _survives(data: bytes) -> bool:
    """Load and, where that is allowed, call and save: nothing but our errors; whether it ran."""
    try:
        program = loaded(data)
        program(*CALL)
    except TraceGraphError:
        return False
    repr(program), program.report(), program.state_dict(), saved(program)
    return True


def _forgeries(every: int) -> Iterator[tuple[str, tuple[Any, ...], Any, bytes]]:
    data = saved(small())
    listed = members(data)
    count = 0
    for name in sorted(n for n in listed if n.endswith(".json")):
        content = json.loads(listed[name])
        for path in places(content):
            for value in VALUES:
                count += 1
                if count % every == 0:
                    yield name, path, value, forged(data, name, changed(content, path, value))


@pytest.mark.parametrize("every", [11, pytest.param(1, marks=pytest.mark.slow)])
def test_any_value_anywhere_gives_an_error_of_ours_or_none(every: int) -> None:
    ran = total = 0
    for name, path, value, data in _forgeries(every):
        total += 1
        try:
            ran += _survives(data)
        except Exception as error:
            raise AssertionError(f"{name} {path} = {value!r}: {error!r}") from error
    assert total > 300
    assert ran < total // 4


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_hostile_nests_are_refused(value: Any) -> None:
    data = saved({"a": [tg.ones(2), (1, 2.5)], "b": {"c": b"x"}})
    content = json.loads(members(data)["tree.json"])
    for path in places(content):
        try:
            loaded(forged(data, "tree.json", changed(content, path, value)))
        except FileFormatError:
            continue
