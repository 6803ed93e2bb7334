"""The foot-guns of tracing (tests/foot_guns.py): each replays right, or is refused by name."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tracegraph as tg
from tests import cupy_stand_in, foot_guns
from tests.foot_guns import GUNS, REPLAY, RIGHT, TRACE, Gun, Program
from tracegraph.eager.tensors import Tensor, storage_of

PAGE = Path(__file__).resolve().parent.parent / "docs" / "foot_guns.md"
BEGIN, END = "<!-- table -->\n", "<!-- end -->\n"


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Return nested results as arrays and Python values by path."""
    if isinstance(value, Tensor):
        return {path: value.detach().cpu().numpy().copy()}
    if isinstance(value, dict):
        return {
            k: v for key, inner in value.items() for k, v in flat(inner, f"{path}.{key}").items()
        }
    if isinstance(value, (tuple, list)):
        return {
            k: v for i, inner in enumerate(value) for k, v in flat(inner, f"{path}.{i}").items()
        }
    return {path: value}


def fresh(inputs: tuple[Any, ...]) -> list[Any]:
    """Return copies of tensors, views of one of them as views of its copy."""
    wholes = {storage_of(a): a.clone() for a in inputs if isinstance(a, Tensor) and not a._chain}

    def copied(a: Any) -> Any:
        if not isinstance(a, Tensor):
            return a
        whole = wholes.get(storage_of(a))
        if whole is None or not a._chain:
            return a.clone() if whole is None else whole
        return whole.as_strided(a.shape, a.stride(), a.storage_offset())

    return [copied(a) for a in inputs]


def run(program: Program, function: Any) -> list[dict[str, Any]]:
    """Call the function with each of the inputs; returns results, inputs and State after each."""
    seen = []
    for number, inputs in enumerate(program.calls):
        if number:
            program.between()
        given = fresh(inputs)
        result = function(*given)
        seen.append(flat([result, given, program.state()]))
    return seen


def assert_same(got: Any, want: Any) -> None:
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        assert a.keys() == b.keys()
        for path, value in b.items():
            if isinstance(value, np.ndarray):
                assert a[path].dtype == value.dtype and a[path].shape == value.shape
                np.testing.assert_allclose(a[path], value, 1e-6, 1e-6, err_msg=path)
            else:
                assert a[path] == value


def check_line(gun: Gun, error: BaseException) -> None:
    """The error names the marked line, where one is marked."""
    if gun.line is not None:
        assert f"foot_guns.py:{gun.line}" in str(error), str(error)


@pytest.mark.parametrize("gun", GUNS, ids=lambda gun: gun.name)
def test_foot_gun(gun: Gun) -> None:
    with cupy_stand_in.installed() if gun.on_gpu else contextlib.nullcontext():
        check(gun)


def check(gun: Gun) -> None:
    if gun.verdict == TRACE:
        program = gun.make()
        assert gun.error is not None
        with pytest.raises(gun.error) as caught:
            tg.trace(program.function, program.calls[0], **program.options)
        check_line(gun, caught.value)
        return
    eager = gun.make()
    state = tg.get_rng_state()
    wanted = run(eager, eager.function) if gun.verdict == RIGHT else []
    program = gun.make()
    tg.set_rng_state(state)
    traced = tg.trace(program.function, program.calls[0], **program.options)
    if gun.verdict == RIGHT:
        assert_same(run(program, traced), wanted)
        return
    assert gun.verdict == REPLAY and gun.error is not None
    with pytest.raises(gun.error) as caught:
        run(program, traced)
    check_line(gun, caught.value)


def table() -> str:
    """Return the table of the page."""
    rows = ["| foot-gun | outcome | how |", "|---|---|---|"]
    for gun in GUNS:
        error = f", `{gun.error.__name__}`" if gun.error is not None else ""
        rows.append(f"| {gun.name} | {gun.verdict}{error} | {gun.does} |")
    return "\n".join(rows) + "\n"


def test_the_page_has_this_table() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip() == table().strip(), (
        "run: python -m tests.test_foot_guns"
    )


def test_names_differ() -> None:
    names = [gun.name for gun in GUNS]
    assert len(names) == len(set(names)) and foot_guns.__doc__


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    head, tail = page[: page.index(BEGIN) + len(BEGIN)], page[page.index(END) :]
    PAGE.write_text(head + table() + tail, encoding="utf-8")
