"""Packaging: one import name, real files in wheels, and bare folder names refused."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def run_python(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("folder", ["passes", "runtime"])
def test_the_bare_name_is_refused(folder: str) -> None:
    done = run_python(f"import {folder}", ROOT)
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1].startswith(f"ImportError: import tracegraph.{folder},")


@pytest.mark.parametrize("folder", ["passes", "runtime"])
def test_the_package_reaches_the_folder_by_a_relative_link(folder: str) -> None:
    assert (ROOT / "tracegraph" / folder).readlink() == Path("..") / folder


def build(kind: str, source: Path, out: Path) -> Path:
    """Build a wheel or sdist through setuptools' own hook: no network, no isolation."""
    out.mkdir(exist_ok=True)
    code = f"from setuptools import build_meta; build_meta.build_{kind}({str(out)!r})"
    done = run_python(code, source)
    assert done.returncode == 0, done.stderr
    (built,) = out.iterdir()
    return built


def files_in_wheel(wheel: Path) -> dict[str, int]:
    """Return each packaged file's size, without the metadata folder."""
    with zipfile.ZipFile(wheel) as archive:
        members = archive.infolist()
        assert all(m.external_attr >> 28 != 0o12 for m in members), "a link in the wheel"
        return {m.filename: m.file_size for m in members if ".dist-info/" not in m.filename}


@pytest.mark.slow
def test_wheels_hold_one_package_with_real_files(tmp_path: Path) -> None:
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("setuptools is not installed")
    source = tmp_path / "source"
    skipped = shutil.ignore_patterns("__pycache__")
    for folder in ("tracegraph", "passes", "runtime"):
        shutil.copytree(ROOT / folder, source / folder, symlinks=True, ignore=skipped)
    for name in ("pyproject.toml", "README.md"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, source)

    packed = files_in_wheel(build("wheel", source, tmp_path / "wheel"))
    assert {name.split("/")[0] for name in packed} == {"tracegraph"}
    wanted = {
        path.relative_to(source).as_posix(): path.stat().st_size
        for path in (source / "tracegraph").rglob("*.py")
        if not {"passes", "runtime"} & set(path.relative_to(source).parts)
    }
    for folder in ("passes", "runtime"):
        for path in (source / folder).rglob("*.py"):
            wanted["tracegraph/" + path.relative_to(source).as_posix()] = path.stat().st_size
    assert packed == wanted | {"tracegraph/py.typed": 0}

    sdist = build("sdist", source, tmp_path / "sdist")
    # Not extractall: its `filter` is missing before 3.11.4, and its absence warns from 3.12 on.
    command = [sys.executable, "-m", "tarfile", "-e", str(sdist), str(tmp_path / "unpacked")]
    subprocess.run(command, check=True)
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    assert files_in_wheel(build("wheel", unpacked, tmp_path / "again")) == packed
