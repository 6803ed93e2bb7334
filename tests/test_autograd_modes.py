"""Where gradients are recorded: no_grad and its kin. Each test also runs on PyTorch."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.both_modules import T, numbers  # noqa: F401


@pytest.fixture(autouse=True)
def _gradients_are_on(T: Any) -> Iterator[None]:
    """A test that fails inside a mode must not fail the next ones."""
    yield
    T.set_grad_enabled(True)


def recorded(T: Any) -> bool:
    return bool((T.ones(1, requires_grad=True) * 2).requires_grad)


def test_contexts_nest_and_end(T: Any) -> None:
    assert recorded(T)
    with T.no_grad():
        assert not recorded(T)
        with T.enable_grad():
            assert recorded(T)
            with T.no_grad():
                assert not recorded(T)
            assert recorded(T)
        assert not recorded(T)
    assert recorded(T)


def test_an_exception_ends_a_context(T: Any) -> None:
    with pytest.raises(ValueError, match="stop"), T.no_grad():
        raise ValueError("stop")
    assert recorded(T)


def test_one_object_used_twice() -> None:
    """PyTorch forgets the outer mode here."""
    import tracegraph as T

    off = T.no_grad()
    with off:
        with off:
            assert not recorded(T)
        assert not recorded(T)
    assert recorded(T)


def test_decorators(T: Any) -> None:
    @T.no_grad()
    def off(x: Any) -> Any:
        """Its doc."""
        return x * 2

    @T.no_grad
    def bare(x: Any) -> Any:
        return x * 2

    @T.enable_grad()
    def on(x: Any) -> Any:
        return x * 2

    x = T.ones(1, requires_grad=True)
    assert not off(x).requires_grad and not bare(x).requires_grad
    assert off.__name__ == "off" and off.__doc__ == "Its doc."
    with T.no_grad():
        assert on(x).requires_grad


def test_decorated_generators(T: Any) -> None:
    @T.no_grad()
    def steps() -> Iterator[bool]:
        got = yield recorded(T)
        try:
            got = yield (recorded(T), got)
        except KeyError:
            yield (recorded(T), "caught")
        return "end"

    made = steps()
    assert next(made) is False
    assert recorded(T)
    assert made.send("sent") == (False, "sent")
    assert made.throw(KeyError()) == (False, "caught")
    assert recorded(T)
    with pytest.raises(StopIteration) as stop:
        next(made)
    assert stop.value.value == "end"


def test_a_closed_generator_is_closed(T: Any) -> None:
    ended = []

    @T.no_grad()
    def steps() -> Iterator[int]:
        try:
            yield 1
        finally:
            ended.append(True)

    made = steps()
    next(made)
    made.close()
    assert ended == [True]
    assert recorded(T)


def test_set_grad_enabled(T: Any) -> None:
    with T.set_grad_enabled(False):
        assert not recorded(T)
        with T.set_grad_enabled(True):
            assert recorded(T)
    assert recorded(T)
    T.set_grad_enabled(False)
    try:
        assert not recorded(T) and not T.is_grad_enabled()
    finally:
        T.set_grad_enabled(True)
    assert recorded(T)

    @T.set_grad_enabled(False)
    def off() -> bool:
        return recorded(T)

    assert recorded(T)
    assert not off()
    assert recorded(T)


def test_inference_mode(T: Any) -> None:
    x = T.ones(1, requires_grad=True)
    with T.inference_mode():
        assert T.is_inference_mode_enabled()
        y = x * 2
        assert not y.requires_grad
    assert not T.is_inference_mode_enabled()
    with T.inference_mode(False):
        assert recorded(T)

    @T.inference_mode()
    def off() -> bool:
        return recorded(T)

    assert not off()


def test_threads_begin_with_gradients_on(T: Any) -> None:
    seen = []
    with T.no_grad():
        thread = threading.Thread(target=lambda: seen.append(recorded(T)))
        thread.start()
        thread.join()
        assert not recorded(T)
    assert seen == [True]


def test_threads_do_not_see_each_other(T: Any) -> None:
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with T.no_grad():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    inside.wait(10)
    assert recorded(T)
    leave.set()
    thread.join()


def test_backward_in_many_threads(T: Any) -> None:
    leaves = [T.ones(50, requires_grad=True) for _ in range(4)]

    def work(x: Any) -> None:
        for _ in range(20):
            (x * x).sum().backward()

    threads = [threading.Thread(target=work, args=(x,)) for x in leaves]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(numbers(x.grad) == [40.0] * 50 for x in leaves)


def test_a_backward_pass_leaves_the_mode_alone(T: Any) -> None:
    x = T.ones(1, requires_grad=True)
    y = x * 2
    with T.no_grad():
        y.backward()
        assert not recorded(T)
    assert recorded(T)
    assert numbers(x.grad) == [2.0]


def test_leaves_made_without_gradients_still_are_leaves(T: Any) -> None:
    with T.no_grad():
        x = T.ones(1, requires_grad=True)
        y = T.ones(1).requires_grad_()
    (x * y * 3).sum().backward()
    assert numbers(x.grad) == numbers(y.grad) == [3.0]
