"""Random programs (tests/fuzz): what must hold of each, and that planted faults are found."""

from __future__ import annotations

import importlib.util

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.bugs import BUGS, hunt, planted
from tests.fuzz.check import Checker
from tests.fuzz.choices import drawn, seeded
from tests.fuzz.writer import write

# Eager itself is wrong, and a replay alike: another library must tell.
EAGER_FAULTS = (
    "overwritten saved tensors go unnoticed",
    "views do not follow the history of their base",
)
TORCH = importlib.util.find_spec("torch") is not None


@settings(max_examples=150)
@given(st.data())
def test_random_programs(data: st.DataObject) -> None:
    Checker(torch=TORCH)(write(drawn(data.draw)))


def test_the_same_seed_writes_the_same_program() -> None:
    assert str(write(seeded(3))) == str(write(seeded(3))) != str(write(seeded(4)))


def test_most_programs_are_replayed() -> None:
    """A generator whose programs were mostly refused would prove nothing."""
    check = Checker(torch=False, levels=(0,))
    for seed in range(100):
        check(write(seeded(seed)))
    assert check.seen["replayed"] >= 80, check.seen


@pytest.mark.slow
@pytest.mark.parametrize("bug", BUGS)
def test_planted_faults_are_found(bug: str) -> None:
    torch = bug in EAGER_FAULTS
    if torch and not TORCH:
        pytest.skip("eager faults show against PyTorch, which is not installed")
    with planted(bug):
        found = hunt(1500, torch=torch, levels=(0,))
    assert found is not None, f"nothing found: {bug}"
