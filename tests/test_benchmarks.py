"""`make bench`: the table has a row for each way to run a program."""

from __future__ import annotations

import functools
import importlib.util
import sys

import pytest

from tests import workloads
from tests.benchmarks.__main__ import main


def test_a_row_for_each_way(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(workloads, "build", functools.partial(workloads.build, small=True))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["bench", "mlp_b64", "train_mlp", "--budget", "0"])
    main()
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows] == ["program"] + ["mlp_b64"] * 4 + ["train_mlp"] * 4
    assert [row[2] for row in rows[2:5]] == ["0", "1", "2"]
