"""The pages: every Python and console block runs, prints what the page says, links lead somewhere.

Blocks of a page run in order, in one namespace and one empty folder:

    ```python               runs; ```python new-process runs in a process of its own
    ```python append=FILE   is appended to a file in a copy of the sources; processes import that
    ```output               what the Python block before it prints
    ```console              `$ tracegraph ...` lines, each followed by what it prints

In outputs `...` stands for anything.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import tracegraph as torch
from tracegraph.cli import main
from tracegraph.docs_table import ops_page

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINKED = [*PAGES, ROOT / "CHANGELOG.md", ROOT / "docs/examples/DIGITS.md"]

COPY = "source"  # the folder, in that of the page's test, for a copy of the sources

_FENCE = re.compile(r"^```(\S*)[ ]*([^\n]*)\n(.*?)^```[ ]*$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


class Block(NamedTuple):
    """One fenced block: language, the rest of the opening line, text, its first line's number."""

    language: str
    option: str
    text: str
    line: int


def blocks_of(text: str) -> Iterator[Block]:
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.start(3)) + 1
        yield Block(match[1], match[2].strip(), match[3], line)


def assert_output(got: str, wanted: str, place: str) -> None:
    """Compare with `...` as a wildcard; line ends and runs of blanks do not count."""
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    same = doctest.OutputChecker().check_output(wanted.strip(), got.strip(), options)
    assert same, f"{place}: expected\n{wanted}\ngot\n{got}"


def append_to_copy(block: Block) -> None:
    """Append a block to a file of a copy of the sources, which is made when first needed."""
    copy = Path(COPY)
    if not copy.exists():
        for folder in ("tracegraph", "passes", "runtime"):
            skipped = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / folder, copy / folder, symlinks=True, ignore=skipped)
    with (copy / block.option.removeprefix("append=")).open("a", encoding="utf-8") as file:
        file.write(block.text)


def run_python(block: Block, page: str, namespace: dict[str, Any]) -> str:
    """Run a block; its lines are numbered as in the page. Returns what it prints."""
    if block.option.startswith("append="):
        append_to_copy(block)
        return ""
    if block.option == "new-process":
        command = [sys.executable, "-c", block.text]
        env = {**os.environ, "PYTHONPATH": os.path.abspath(COPY) if Path(COPY).exists() else ""}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
        assert done.returncode == 0, f"{page}:{block.line}: {done.stderr}"
        return done.stdout
    code = compile("\n" * (block.line - 1) + block.text, page, "exec")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code, namespace)
    return printed.getvalue()


def run_console(block: Block, page: str) -> None:
    """Run the commands of a block and compare what each prints."""
    assert block.text.startswith("$ "), f"{page}:{block.line}: a console block begins with `$ `"
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        line, _, wanted = part.partition("\n")
        program, *arguments = shlex.split(line)
        assert program == "tracegraph", f"{page}:{block.line}: {line}"
        status_line = re.search(r"\[exit status (\d+)\]\s*\Z", wanted)
        if status_line:
            wanted = wanted[: status_line.start()]
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            status = main(arguments)
        assert_output(printed.getvalue(), wanted, f"{page}:{block.line}: {line}")
        assert status == int(status_line[1] if status_line else 0), line


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_the_blocks_of_a_page_run(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = path.relative_to(ROOT).as_posix()
    namespace: dict[str, Any] = {"__name__": path.stem}
    monkeypatch.chdir(tmp_path)
    state = torch.get_rng_state()
    printed = ""
    try:
        for block in blocks_of(path.read_text(encoding="utf-8")):
            if block.language == "python":
                printed = run_python(block, page, namespace)
            elif block.language == "output":
                assert_output(printed, block.text, f"{page}:{block.line}")
            elif block.language == "console":
                run_console(block, page)
    finally:
        torch.set_rng_state(state)


def headings(path: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    found = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text).strip().lower().replace(" ", "-") for text in found}


@pytest.mark.parametrize("path", LINKED, ids=lambda p: p.name)
def test_links_lead_somewhere(path: Path) -> None:
    text = _FENCE.sub("", path.read_text(encoding="utf-8"))
    for link in _LINK.findall(text):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        assert target.exists(), f"{path.name}: {link}"
        assert not anchor or anchor in headings(target), f"{path.name}: {link}"


def test_the_page_of_ops_is_fresh() -> None:
    page = ROOT / "docs/ops.md"
    assert page.read_text(encoding="utf-8") == ops_page(), "run `make docs`"


def test_a_wrong_output_and_a_failing_block_are_noticed(tmp_path: Path) -> None:
    text = "a\n```python\nprint(1)\n```\n```output\n2\n```\n"
    python, output = blocks_of(text)
    assert (python.line, output.language) == (3, "output")
    with pytest.raises(AssertionError, match="expected"):
        assert_output(run_python(python, "p.md", {}), output.text, "p.md:1")
    assert_output("a\nb 12 c\n", "a\nb ... c", "p.md:1")
    with pytest.raises(ZeroDivisionError) as caught:
        run_python(Block("python", "", "1 / 0\n", 7), "p.md", {})
    assert caught.traceback[-1].lineno == 6
    with pytest.raises(AssertionError):
        run_console(Block("console", "", "$ tracegraph info missing.tg\n", 1), "p.md")
