"""The architecture: who imports whom, how long things are, what `import tracegraph` loads.

Imports are read with `ast`, so that a module counts as soon as its file exists.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import networkx as nx
import pytest

ROOT = Path(__file__).resolve().parent.parent

# What a layer may import besides itself. A layer is a module or package right under tracegraph/;
# the ones not listed are the front, which may import anything (but see JOINER).
ALLOWED = {
    "errors": set(),
    "philox": {"errors", "dtypes"},
    "special_functions": {"errors", "dtypes"},
    "dtypes": {"errors"},
    "dims": {"errors"},
    "tensor_type": {"errors", "dtypes", "dims"},
    "ops": {"errors", "dtypes", "dims", "tensor_type", "philox", "special_functions"},
    "ir": {"errors", "dtypes", "dims", "tensor_type", "ops"},
    "passes": {"errors", "dtypes", "dims", "tensor_type", "ops", "ir"},
    "runtime": {
        "errors",
        "dtypes",
        "dims",
        "tensor_type",
        "ops",
        "ir",
        "philox",
        "special_functions",
    },
}
# The one module that may import both passes and runtime.
JOINER = "tracegraph.compiler"
# Front modules whose imports inside functions may close a cycle: methods of tensors and of entry
# points reach what is built on them (`tensor.graph()`, `traced.save()`).
# The facade `tracegraph` is lazy by design.
LAZY_FRONT = {
    "tracegraph", "tracegraph.cli", "tracegraph.eager.tensors", "tracegraph.eager.methods",
    "tracegraph.replay.entry", "tracegraph.replay.loaded", "tracegraph.ir.graph",
    "tracegraph.capture.compiling",
}  # fmt: skip

HEAVY = ("cupy", "llvmlite", "scipy", "onnx", "networkx", "torch")

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 50
# path, or path::function -> why it may be longer. An entry that is not needed any more fails.
LONG = {
    "tracegraph/ops/core.py::define": "a parameter, its docs and its field for each column",
    "tracegraph/nn/functional/attention.py::multi_head_attention_forward": "25 parameters",
    "tracegraph/ops/pointwise.py": "a table: one row for each elementwise primitive",
    "tracegraph/eager/operators.py::_arithmetic": "the short way: a call costs 0.1 us",
    "tracegraph/eager/operators.py::method": "the short way: a call costs 0.1 us",
}


class Import(NamedTuple):
    """One import found in a module: the module it names, and when it happens."""

    source: str
    target: str
    when: str  # "load", "lazy" (inside a function) or "typing" (under `if TYPE_CHECKING`)
    line: int

    def __str__(self) -> str:
        return f"{self.source}:{self.line} imports {self.target}"


def module_files(root: Path) -> dict[str, Path]:
    """Return each module's file; `passes/` and `runtime/` under the names of their links."""
    files = {}
    for folder in ("tracegraph", "passes", "runtime"):
        for path in sorted((root / folder).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            if parts[:2] in {("tracegraph", "passes"), ("tracegraph", "runtime")}:
                continue  # the same file through its link: rglob follows links before Python 3.13
            if parts[0] != "tracegraph":
                parts = ("tracegraph", *parts)
            files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


def _statements(tree: ast.AST, when: str = "load") -> Iterator[tuple[ast.AST, str]]:
    """Yield every node below `tree` with when it runs."""
    for node in ast.iter_child_nodes(tree):
        inner = when
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            inner = "lazy" if when == "load" else when
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            inner = "typing"
        yield node, inner
        yield from _statements(node, inner)


def _literal_import(node: ast.AST) -> str | None:
    """Return the name that an `import_module("...")` or `__import__("...")` loads."""
    if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        called = ast.unparse(node.func).rpartition(".")[2]
        if called in {"import_module", "__import__"} and isinstance(node.args[0].value, str):
            return node.args[0].value
    return None


def imports_of(module: str, path: Path, known: set[str]) -> list[Import]:
    """Return the imports in one file that name tracegraph, passes or runtime."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = []
    for node, when in _statements(ast.parse(path.read_text(encoding="utf-8"))):
        targets = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            base = importlib.util.resolve_name(base, package)
            names = [f"{base}.{alias.name}" for alias in node.names]
            targets = [name if name in known else base for name in names]
        elif literal := _literal_import(node):
            targets = [importlib.util.resolve_name(literal, package)]
        for target in dict.fromkeys(targets):
            if target.partition(".")[0] in {"tracegraph", "passes", "runtime"}:
                found.append(Import(module, target, when, getattr(node, "lineno", 0)))
    return found


def read_imports(root: Path) -> list[Import]:
    """Return every import among the project's modules."""
    files = module_files(root)
    known = set(files) | {f"tracegraph.{layer}" for layer in ALLOWED}
    return [found for name, path in files.items() for found in imports_of(name, path, known)]


def layer_of(module: str) -> str:
    """Return the part of the name under `tracegraph`, "" for the facade itself."""
    return module.partition(".")[2].partition(".")[0]


def direction_faults(imports: list[Import]) -> list[str]:
    """Return the imports that ALLOWED forbids, of any kind; lazy ones point as others do."""
    faults = []
    for found in imports:
        source, target = layer_of(found.source), layer_of(found.target)
        if not found.target.startswith("tracegraph"):
            faults.append(f"{found}: say tracegraph.{found.target}")
        elif not target and layer_of(found.source):
            faults.append(f"{found}, the facade: import the defining module")
        elif source in ALLOWED and target != source and target not in ALLOWED[source]:
            faults.append(f"{found}: {source} may import {sorted(ALLOWED[source])}")
    return faults


def joiner_faults(imports: list[Import]) -> list[str]:
    """Return the modules other than JOINER that import both passes and runtime."""
    sides: dict[str, set[str]] = {}
    for found in imports:
        sides.setdefault(found.source, set()).add(layer_of(found.target))
    return [
        f"{module} imports both passes and runtime; only {JOINER} may"
        for module, targets in sides.items()
        if targets >= {"passes", "runtime"} and module != JOINER
    ]


def cycles(imports: list[Import]) -> list[list[str]]:
    """Return one cycle of imports out of each group of modules that import each other."""
    graph = nx.DiGraph()
    for found in imports:
        lazy = found.when == "lazy" and found.source in LAZY_FRONT
        if found.when != "typing" and not lazy and found.source != found.target:
            graph.add_edge(found.source, found.target, found=found)
    groups = [group for group in nx.strongly_connected_components(graph) if len(group) > 1]
    rings = [nx.find_cycle(graph.subgraph(group)) for group in groups]
    return [[str(graph.edges[edge]["found"]) for edge in ring] for ring in rings]


def long_things(root: Path) -> dict[str, int]:
    """Return the lines of each file and function that is over its budget."""
    found = {}
    for path in module_files(root).values():
        text, name = path.read_text(encoding="utf-8"), path.relative_to(root).as_posix()
        if (lines := len(text.splitlines())) > MAX_FILE_LINES:
            found[name] = lines
        for node, _ in _statements(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    found[f"{name}::{node.name}"] = lines
    return found


def run_python(code: str, cwd: Path = ROOT) -> str:
    """Run code in a fresh interpreter and return what it prints."""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def needs_facade() -> None:
    """Skip where `tracegraph/__init__.py` does not exist yet."""
    if not (ROOT / "tracegraph/__init__.py").exists():
        pytest.skip("tracegraph/__init__.py does not exist yet")


def test_modules_are_found() -> None:
    files = module_files(ROOT)
    assert {"tracegraph.passes", "tracegraph.runtime"} <= set(files)
    assert len(set(files.values())) == len({path.resolve() for path in files.values()})


def test_imports_point_downwards() -> None:
    assert direction_faults(read_imports(ROOT)) == []


def test_only_the_compiler_joins_passes_and_runtime() -> None:
    assert joiner_faults(read_imports(ROOT)) == []


def test_there_are_no_import_cycles() -> None:
    assert cycles(read_imports(ROOT)) == []


def test_long_files_and_functions_have_a_reason() -> None:
    long = long_things(ROOT)
    assert {name: lines for name, lines in long.items() if name not in LONG} == {}
    present = [name for name in LONG if (ROOT / name.partition("::")[0]).exists()]
    assert [name for name in present if name not in long] == []


def test_no_module_shares_its_name_with_a_public_function() -> None:
    needs_facade()
    code = """
import json, types, tracegraph
taken = []
for name in getattr(tracegraph, "__all__", ()):
    value = getattr(tracegraph, name)
    hidden = isinstance(value, types.ModuleType) and callable(getattr(value, name, None))
    if hidden or not isinstance(value, types.ModuleType):
        taken.append(name)
print(json.dumps(taken))
"""
    modules = {layer_of(name) for name in module_files(ROOT)}
    assert modules & set(json.loads(run_python(code))) == set()


def test_importing_tracegraph_loads_nothing_heavy() -> None:
    needs_facade()
    code = "import json, sys, tracegraph; print(json.dumps(list(sys.modules)))"
    assert set(HEAVY) & set(json.loads(run_python(code))) == set()


PLANTED = {
    "upward": ("tracegraph/dtypes.py", "from tracegraph.ir import Graph"),
    "lazy upward": ("tracegraph/ops/a.py", "def f():\n    from ..tensor import Tensor"),
    "typed upward": ("tracegraph/ir.py", "if TYPE_CHECKING:\n    import tracegraph.eager.tensors"),
    "by name": ("passes/a.py", "importlib.import_module('tracegraph.compiler')"),
    "relative": ("runtime/a.py", "from ..passes import fusion"),
    "across": ("passes/a.py", "from tracegraph import runtime"),
    "bare": ("tracegraph/compiler.py", "from passes import fusion"),
    "facade": ("tracegraph/nn/linear.py", "from tracegraph import Tensor"),
    "facade, relative": ("tracegraph/capture/tracing.py", "def f():\n    from .. import Tensor"),
}


def plant(root: Path, files: dict[str, str]) -> list[Import]:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return read_imports(root)


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_import_is_found(name: str, tmp_path: Path) -> None:
    path, text = PLANTED[name]
    assert len(direction_faults(plant(tmp_path, {path: text}))) == 1


def test_a_planted_second_joiner_is_found(tmp_path: Path) -> None:
    text = "from tracegraph.passes import fusion\nimport tracegraph.runtime.interpreter\n"
    files = {"tracegraph/compiler.py": text, "tracegraph/files/archive.py": text}
    imports = plant(tmp_path, files)
    assert direction_faults(imports) == []
    assert [fault.split()[0] for fault in joiner_faults(imports)] == ["tracegraph.files.archive"]


def test_a_planted_cycle_is_found_and_a_listed_lazy_import_is_not(tmp_path: Path) -> None:
    lazy = "def f():\n    from tracegraph.capture.tracing import trace\n"
    files = {
        "tracegraph/eager/tensors.py": lazy,
        "tracegraph/capture/tracing.py": "import tracegraph.eager.tensors",
    }
    assert cycles(plant(tmp_path, files)) == []
    files = {
        "tracegraph/a.py": lazy.replace("capture.tracing", "b"),
        "tracegraph/b.py": "from . import a",
    }
    (ring,) = cycles(plant(tmp_path, files))
    assert sorted(ring) == [
        "tracegraph.a:2 imports tracegraph.b",
        "tracegraph.b:1 imports tracegraph.a",
    ]


def test_a_planted_long_file_and_function_are_found(tmp_path: Path) -> None:
    plant(tmp_path, {"runtime/a.py": "def f():\n" + "    pass\n" * 50 + "x = 1\n" * 350})
    assert long_things(tmp_path) == {"runtime/a.py": 401, "runtime/a.py::f": 51}


def run_tool(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a tool of this interpreter, skipping visibly where it is not installed."""
    if importlib.util.find_spec(arguments[0]) is None:
        pytest.skip(f"{arguments[0]} is not installed")
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


@pytest.mark.parametrize("folder", ["tracegraph", "passes", "runtime"])
def test_ruff_fires_on_a_planted_violation(folder: str, tmp_path: Path) -> None:
    branches = "".join(f"    if x == {i}:\n        x += {i + 1}\n" for i in range(13))
    plant(tmp_path, {f"{folder}/a.py": f'"""A."""\n\n\ndef f(x):\n{branches}    return x\n'})
    options = ("--no-cache", "--output-format=json", "--config", str(ROOT / "pyproject.toml"))
    done = run_tool("ruff", "check", *options, str(tmp_path / folder))
    fired = {fault["code"] for fault in json.loads(done.stdout)}
    assert fired == {"D103", "C901", "PLR0912"}


def test_ruff_sees_each_file_once() -> None:
    done = run_tool("ruff", "check", "--no-cache", "--show-files", ".", cwd=ROOT)
    seen = [Path(line).resolve() for line in done.stdout.splitlines()]
    assert len(seen) == len(set(seen))
    assert {path.resolve() for path in module_files(ROOT).values()} <= set(seen)


@pytest.mark.slow
def test_mypy_fires_once_on_a_violation_behind_a_link(tmp_path: Path) -> None:
    planted = "def f(x):\n    return x\n"
    plant(
        tmp_path, {"tracegraph/__init__.py": "", "passes/__init__.py": "", "passes/a.py": planted}
    )
    (tmp_path / "tracegraph/passes").symlink_to("../passes")
    config = str(ROOT / "pyproject.toml")
    cache = "--cache-dir=" + str(tmp_path / "cache")
    done = run_tool("mypy", cache, "--config-file", config, cwd=tmp_path)
    faults = [line for line in done.stdout.splitlines() if "[no-untyped-def]" in line]
    assert len(faults) == 1, done.stdout + done.stderr
