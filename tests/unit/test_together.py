"""Things done on several machines at the same time are all done, and all undone."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager

import pytest

from harness.errors import RemoteError, RestoreError
from harness.together import together

SECONDS = 5


@contextmanager
def met(name: str, barrier: threading.Barrier, left: list[str]) -> Iterator[str]:
    """Enter once every party of *barrier* enters, and leave once every party leaves."""
    barrier.wait(SECONDS)
    yield name
    barrier.wait(SECONDS)
    left.append(name)


@contextmanager
def failing(left: list[str], *, early: str = "", late: str = "") -> Iterator[str]:
    if early:
        raise ValueError(early)
    yield late
    left.append(late)
    if late:
        raise ValueError(late)


@contextmanager
def raising(error: Exception) -> Iterator[None]:
    """Raise *error* when it is left."""
    yield
    raise error


def test_all_are_entered_and_left_at_the_same_time_and_given_in_their_order() -> None:
    """None of them could go on alone: each waits for the others."""
    left: list[str] = []
    barrier = threading.Barrier(3)
    with together(met(name, barrier, left) for name in ("alder", "birch", "peer")) as names:
        assert names == ["alder", "birch", "peer"]
        assert left == []
    assert sorted(left) == names


def test_one_that_cannot_be_entered_is_an_error_and_the_others_are_left() -> None:
    left: list[str] = []
    with (
        pytest.raises(ValueError, match="no power") as failed,
        together([failing(left, early="no power"), failing(left), failing(left, early="no cable")]),
    ):
        pytest.fail("the body ran")
    assert failed.value.__notes__ == ["at the same time, ValueError: no cable"]
    assert left == [""]


def test_all_are_left_where_one_cannot_be_and_where_the_body_fails() -> None:
    left: list[str] = []
    with (
        pytest.raises(ValueError, match="not as it was") as failed,
        together([failing(left, late="not as it was"), failing(left)]),
    ):
        raise KeyError("body")
    assert sorted(left) == ["", "not as it was"]
    assert isinstance(failed.value.__context__, KeyError)


def test_what_is_being_entered_at_ctrl_c_is_left_once_it_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Left earlier, it would be there for ever."""
    order: list[str] = []
    entering, interrupted = threading.Event(), threading.Event()

    @contextmanager
    def slow() -> Iterator[None]:
        entering.set()
        interrupted.wait(SECONDS)
        order.append("entered")
        yield
        order.append("left")

    def interrupted_once(calls: Sequence[Future[object]]) -> None:
        if interrupted.is_set():
            wait(calls)
            return
        assert entering.wait(SECONDS)
        interrupted.set()
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.together.wait", interrupted_once)
    with pytest.raises(KeyboardInterrupt), together([slow()]):
        pytest.fail("the body ran")
    assert order == ["entered", "left"]


def test_of_several_errors_the_one_with_the_largest_exit_code_is_raised() -> None:
    """A host that is not put back ends a run, whatever else failed meanwhile."""
    silent = RemoteError("alder: gone", because="b", fix="f")
    changed = RestoreError("birch: not as it was", because="b", fix="f")
    with pytest.raises(RestoreError) as failed, together([raising(silent), raising(changed)]):
        pass
    assert "at the same time, RemoteError: alder: gone" in str(failed.value)


def test_what_cannot_be_left_is_told_after_ctrl_c_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine is not as it was, and "interrupted" would say that it is."""
    calls = iter(["entered", "interrupted", "left"])

    def interrupted_once(called: Sequence[Future[object]]) -> None:
        wait(called)
        if next(calls) == "interrupted":
            raise KeyboardInterrupt

    monkeypatch.setattr("harness.together.wait", interrupted_once)
    changed = RestoreError("birch: not as it was", because="b", fix="f")
    with pytest.raises(RestoreError) as failed, together([raising(changed)]):
        pass
    assert isinstance(failed.value.__context__, KeyboardInterrupt)
