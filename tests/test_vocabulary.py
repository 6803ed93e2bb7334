"""Files say what their ops mean: versions, and decompositions that run where a row is missing."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tracegraph as tg
from tests.device_checks import draw
from tests.test_archive import changed, forged, loaded, members, places, saved
from tracegraph import nn
from tracegraph.dtypes import DType, float16, float32, float64
from tracegraph.eager.tensors import type_of, wrap
from tracegraph.errors import FileFormatError, TraceGraphError
from tracegraph.files.archive import load_decompositions
from tracegraph.files.container import write_container
from tracegraph.ir import vocabulary
from tracegraph.ir.graph import Graph
from tracegraph.ir.verify import verify
from tracegraph.ops.core import COMPOSITE, Case, Op
from tracegraph.ops.table import OPS
from tracegraph.replay.entry import EntryPoint
from tracegraph.replay.signature import LeafSpec, Signature

COMPOSITES = [op for op in OPS.values() if COMPOSITE in op.traits]


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Read files with another op table: rows by name, None for a missing one."""

    def replace(**rows: Op | None) -> None:
        known = {**OPS, **rows}
        made = {name: row for name, row in known.items() if row is not None}
        monkeypatch.setattr(vocabulary, "OPS", made)

    return replace


def entry_of(op: Op, case: Case, dtype: DType) -> tuple[EntryPoint, list[Any]]:
    """An entry point of one node, and arguments for it."""
    arrays = draw(case, dtype)
    graph = Graph("f")
    types = [type_of(wrap(a)) for a in arrays]
    names = [f"x{i}" for i in range(len(arrays))]
    values = [graph.add_input(n, t).out for n, t in zip(names, types, strict=True)]
    node = graph.add(op.name, values, case.attrs)
    graph.outputs = list(node.outs)
    signature = Signature(
        names=tuple(names), positional=len(names),
        inputs={"tuple": [{"leaf": i} for i in range(len(names))]},
        specs=tuple(LeafSpec(n, t, None) for n, t in zip(names, types, strict=True)),
        outputs={"tuple": [{"leaf": i} for i in range(len(node.outs))]},
        results=tuple({"value": i} for i in range(len(node.outs))),
    )  # fmt: skip
    return EntryPoint(graph, signature, {}, []), arrays


@pytest.mark.parametrize("op", COMPOSITES, ids=lambda op: op.name)
def test_every_composite_runs_without_its_row(op: Op, table: Callable[..., None]) -> None:
    for number, case in enumerate(op.sample):
        for dtype in (float32, float64, float16) if number == 0 else (float32,):
            try:
                entry, arrays = entry_of(op, case, dtype)
                wanted = entry(*arrays)
            except TraceGraphError:
                assert dtype is float16, "a sample that the row itself refuses"
                continue
            data = saved(entry)
            table(**{op.name: None})
            program = loaded(data)
            assert op.name not in {node.op for node in program.graph}
            verify(program.graph)
            loose = (
                {"rtol": 1e-2, "atol": 1e-2} if dtype is float16 else {"rtol": 1e-4, "atol": 1e-6}
            )
            for found, expected in zip(program(*arrays), wanted, strict=True):
                assert found.dtype is expected.dtype and found.shape == expected.shape
                np.testing.assert_allclose(
                    found.to(tg.float64).numpy(), expected.to(tg.float64).numpy(), **loose
                )
            assert saved(loaded(saved(program))) == saved(program)
            table()


def network() -> Any:
    """Composites within composites, one of them twice with equal types, one with others."""
    tg.manual_seed(0)
    return nn.Sequential(
        nn.Linear(3, 4), nn.LayerNorm(4), nn.Softmax(-1), nn.Linear(4, 4), nn.LayerNorm(4),
        nn.BatchNorm1d(4), nn.LogSoftmax(1),
    ).eval()  # fmt: skip


X = tg.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]])


def traced() -> tuple[bytes, Any]:
    net = network()
    with tg.no_grad():
        return saved(tg.trace(net, (X,))), net(X).tolist()


REMOVED = """
import gc, sys
import tracegraph as tg
from tracegraph.ops.table import OPS

(rows,) = [d for d in gc.get_referents(OPS._ours) if isinstance(d, dict)]
for name in sys.argv[2:]:
    del rows[name]
assert not set(sys.argv[2:]) & set(OPS)
program = tg.load(sys.argv[1])
print(program(tg.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]])).tolist())
print(sorted({node.op for node in program.graph}))
"""


def test_another_process_lacks_rows(tmp_path: Path) -> None:
    data, wanted = traced()
    path = tmp_path / "x.tg"
    path.write_bytes(data)
    removed = ["softmax", "layer_norm", "batch_norm_inference"]
    command = [sys.executable, "-c", REMOVED, str(path), *removed]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    np.testing.assert_allclose(json.loads(first), wanted, rtol=1e-5, atol=1e-6)
    assert "linear" in second and "log_softmax" in second
    assert not any(f"'{name}'" in second for name in removed)


def test_a_newer_row_is_not_what_the_file_means(table: Callable[..., None]) -> None:
    data, wanted = traced()
    wrong = {"kernel": lambda xp, x, **_: x * 0, "version": 2}
    table(softmax=dataclasses.replace(OPS["softmax"], **wrong))
    program = loaded(data)
    assert "softmax" not in {node.op for node in program.graph}
    np.testing.assert_allclose(program(X).tolist(), wanted, rtol=1e-5, atol=1e-6)
    loc = next(n.loc for n in program.graph if n.op == "amax")
    assert loc is not None and loc.file.endswith("test_vocabulary.py")


def test_a_file_that_is_newer_in_one_composite(table: Callable[..., None]) -> None:
    table(softmax=dataclasses.replace(OPS["softmax"], version=0))
    data, wanted = traced()
    np.testing.assert_allclose(loaded(data)(X).tolist(), wanted, rtol=1e-5, atol=1e-6)


VERSIONS: dict[str, tuple[dict[str, Any], str]] = {
    "missing": (
        {"exp": None},
        r"by tracegraph \d[\d.]*: .*unknown op 'exp': the file is newer than this tracegraph; "
        "update it"),
    "older here": (
        {"exp": 0}, "op 'exp' has version 1 in the file and 0 here; update tracegraph"),
    "newer here": (
        {"exp": 3}, "op 'exp' has version 1 in the file and 3 here; trace and save it again, or"),
}  # fmt: skip


@pytest.mark.parametrize("case", VERSIONS)
@pytest.mark.parametrize("inside", [False, True], ids=["in the graph", "in a decomposition"])
def test_a_primitive_of_another_version_is_refused(
    case: str, inside: bool, table: Callable[..., None]
) -> None:
    function = (lambda x: x.softmax(-1)) if inside else tg.exp
    data = saved(tg.trace(function, (X,), name="f"))
    rows, sentence = VERSIONS[case]
    table(
        **({"softmax": None} if inside else {}),
        **{n: v if v is None else dataclasses.replace(OPS[n], version=v) for n, v in rows.items()},
    )
    with pytest.raises(FileFormatError, match=sentence) as caught:
        loaded(data)
    assert len(str(caught.value)) < 400


def test_formats_of_other_versions_are_told_apart() -> None:
    data, _ = traced()
    head = json.loads(members(data)["format.json"])
    for version, remedy in ([9, 0], "update tracegraph"), ([0, 3], "load it with tracegraph 0"):
        with pytest.raises(FileFormatError, match=remedy):
            loaded(forged(data, "format.json", {**head, "format": version}))


# One decomposition for all nodes of a kind, and the same bytes each time.


def ops_of(data: bytes) -> Any:
    return json.loads(members(data)["ops.json"])


def test_a_decomposition_is_stored_once() -> None:
    deep = nn.Sequential(*[m for _ in range(20) for m in (nn.Linear(4, 4), nn.Softmax(-1))])
    listed = ops_of(saved(tg.trace(deep, (tg.ones(2, 4),))))
    assert [d["name"] for d in listed["decompositions"]] == ["linear", "softmax"]
    assert listed["versions"]["softmax"] == 1 and "amax" in listed["versions"]
    names = [d["name"] for d in ops_of(traced()[0])["decompositions"]]
    assert names == ["linear", "mean", "layer_norm", "softmax", "linear", "batch_norm_inference",
                     "log_softmax"]  # fmt: skip


def test_attributes_that_are_equal_but_not_the_same() -> None:
    def f(x: Any) -> Any:
        return [tg.nn.functional.layer_norm(x, (3,), eps=e) for e in (1e-5, 1e-3)] + [
            x.std(dim=1, keepdim=flag) for flag in (True, False)
        ]

    names = [d["name"] for d in ops_of(saved(tg.trace(f, (X,))))["decompositions"]]
    assert names.count("layer_norm") == names.count("std") == 2


def test_the_same_bytes_twice() -> None:
    data, _ = traced()
    assert traced()[0] == data
    assert saved(loaded(data)) == data


def test_decompositions_can_be_checked() -> None:
    bodies = load_decompositions(io.BytesIO(traced()[0]))
    assert len(bodies) == 7
    for body in bodies:
        verify(body)


# Decompositions made to harm.


def _forge(change: Callable[[Any], None]) -> bytes:
    data = saved(tg.trace(network(), (X,)))
    content = ops_of(data)
    change(content)
    return forged(data, "ops.json", content)


def _body(content: Any, name: str) -> Any:
    return next(d for d in content["decompositions"] if d["name"] == name)


HOSTILE: dict[str, tuple[Callable[[Any], Any], str]] = {
    "none at all": (
        lambda c: c["decompositions"].clear(), "decomposition 3 is not among the 0 before"),
    "no versions": (
        lambda c: c["versions"].clear(), "does not say which version of '.*' it uses; save it"),
    "versions that are a list": (lambda c: c.update(versions=[1]), "does not follow the format"),
    "a version that is text": (
        lambda c: c["versions"].update(exp="1"), "op 'exp' has version '1' in the file and 1 here"),
    "a version that is true": (
        lambda c: c["versions"].update(exp=True), "has version True in the file"),
    "one that uses itself": (
        lambda c: _body(c, "softmax")["nodes"][3].update(op="softmax", decomposition=3),
        "decomposition 3 is not among the 3 before"),
    "one that uses a later one": (
        lambda c: _body(c, "softmax")["nodes"][3].update(op="other", decomposition=4),
        "decomposition 4 is not among the 3 before"),
    "of other operands": (
        lambda c: c["decompositions"].__setitem__(3, _body(c, "linear")),
        "decomposition 3 takes or gives other types than its node"),
    "of other results": (
        lambda c: _body(c, "softmax").update(outputs=[[1, 0]]),
        "decomposition 3 takes or gives other types than its node"),
    "with State": (
        lambda c: _body(c, "softmax")["nodes"].append(
            {"op": "state", "attrs": {"name": "w"}, "types": ["f32[2]"]}),
        "decomposition 3 is not closed: it has State"),
    "with a write": (
        lambda c: _body(c, "softmax").update(writes={"x0": [3, 0]}), "is not closed: it has State"),
    "with types that do not follow": (
        lambda c: _body(c, "softmax")["nodes"][3].update(types=["f32[7]"]), "do not follow"),
    "with a file's place": (
        lambda c: _body(c, "softmax")["nodes"][3].update(loc=[0, 1, "f"]), "index out of range"),
    "a number that is none": (
        lambda c: c["decompositions"].__setitem__(3, 7), "does not follow the format"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_decompositions_are_refused(case: str, table: Callable[..., None]) -> None:
    change, sentence = HOSTILE[case]
    data = _forge(change)
    table(softmax=None)
    with pytest.raises(FileFormatError, match=sentence) as caught:
        loaded(data)
    assert len(str(caught.value)) < 500


def test_decompositions_that_double_are_refused(table: Callable[..., None]) -> None:
    data = _doubling(40)
    with pytest.raises(FileFormatError, match="the decompositions come to more than 262144 nodes"):
        loaded(data)
    assert len(loaded(_doubling(9)).graph) == 1 + 2**9


def _doubling(levels: int) -> bytes:
    """A file whose composite applies exp 2^levels times, in decompositions of two nodes."""
    data = saved(tg.trace(tg.exp, (X,), name="f"))
    graph = json.loads(members(data)["graphs/forward.json"])
    graph["graph"]["nodes"][1].update(op="doubled", decomposition=levels - 1)
    source = {"op": "input", "attrs": {"name": "x"}, "types": ["f32[2,3]"]}

    def body(i: int) -> Any:
        inner = {"op": "doubled", "decomposition": i - 1} if i else {"op": "exp"}
        nodes = [{**inner, "types": ["f32[2,3]"], "in": [[j, 0]]} for j in range(2)]
        return {"name": "d", "files": [], "inputs": [0], "outputs": [[2, 0]], "writes": {},
                "nodes": [source, *nodes]}  # fmt: skip

    content = {"versions": {"exp": 1}, "decompositions": [body(i) for i in range(levels)]}
    data = forged(data, "ops.json", content)
    return forged(data, "graphs/forward.json", graph)


VALUES: list[Any] = [None, True, -1, 1 << 70, "x", [], [[0, 0]], {}, {"leaf": 0}, 3, "f32[2,3]"]


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_any_value_anywhere_in_decompositions(every: int, table: Callable[..., None]) -> None:
    """With the rows of the composites missing, so that all of `ops.json` is read."""
    data = saved(tg.trace(lambda x: x.softmax(-1).std(dim=0), (X,), name="f"))
    content = ops_of(data)
    table(softmax=None, std=None, var=None, mean=None)
    assert loaded(data)(X).shape == (3,)
    ran = total = 0
    for path in places(content):
        for value in VALUES:
            total += 1
            if total % every:
                continue
            try:
                program = loaded(forged(data, "ops.json", changed(content, path, value)))
                program(X)
                ran += 1
            except TraceGraphError:
                continue
            except Exception as error:
                raise AssertionError(f"{path} = {value!r}: {error!r}") from error
    assert total > 800
    assert ran * every < total // 4


def test_every_damaged_byte_of_a_file_with_decompositions() -> None:
    data = saved(tg.trace(lambda x: x.softmax(-1), (X,), name="f"))
    start = data.index(b'{"versions"')
    stop = start + len(members(data)["ops.json"])
    for place in range(start, stop):
        damaged = bytearray(data)
        damaged[place] ^= 1 << (place % 8)
        with pytest.raises(FileFormatError, match=r"member 'ops.json' is damaged"):
            loaded(bytes(damaged))
    with pytest.raises(FileFormatError, match=r"it has no member 'ops.json'"):
        listed = {name: content for name, content in members(data).items() if name != "ops.json"}
        target = io.BytesIO()
        write_container(target, listed)
        loaded(target.getvalue())
