"""Waiting: with a deadline, on a clock that only sleeping moves."""

import pytest

from harness import waiting
from harness.errors import WaitError
from harness.waiting import Deadline, wait_for


class Clock:
    """Stands in for the time module: sleeping takes exactly as long as it was asked to."""

    def __init__(self) -> None:
        self.now = 100.0
        self.sleeps: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0, "a sleep of nothing is a busy loop"
        self.sleeps.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    stand_in = Clock()
    monkeypatch.setattr(waiting, "time", stand_in)
    return stand_in


def test_what_was_waited_for_is_returned_as_soon_as_it_is_seen(clock: Clock) -> None:
    """Not true alone but the thing itself: callers go on with what they saw."""
    states = iter(["down", "down", "up"])
    seen = wait_for("link", lambda: next(states), within=10, until=lambda s: s == "up", every_s=1)
    assert seen == "up"
    assert clock.sleeps == [1, 1]


def test_a_wait_that_ran_out_says_what_for_how_long_and_what_was_last_seen(clock: Clock) -> None:
    """A bare "timed out" starts an investigation; the last thing seen often ends it."""
    states = iter(range(100))
    with pytest.raises(WaitError) as caught:
        wait_for("link up on ens1v0", lambda: next(states), within=1, until=lambda _: False,
                 every_s=0.4, fix="look at the cable")  # fmt: skip
    assert caught.value.what == "waited 1 s for link up on ens1v0"
    assert caught.value.because == "last seen: 3"
    assert caught.value.fix == "look at the cable"
    assert clock.now == pytest.approx(101.0)


def test_the_last_look_is_at_the_deadline_and_not_before(clock: Clock) -> None:
    """A state that came during the last sleep was there in time."""
    assert wait_for("it", lambda: clock.now >= 101.0, within=1, every_s=0.7) is True
    assert clock.sleeps == pytest.approx([0.7, 0.3])


@pytest.mark.usefixtures("clock")
def test_one_look_is_taken_even_when_no_time_is_left() -> None:
    """Whoever passes an expired deadline still learns what is the case."""
    assert wait_for("it", lambda: "there", within=0) == "there"
    with pytest.raises(WaitError, match="waited 0 s"):
        wait_for("it", lambda: None, within=0)


def test_a_deadline_that_is_passed_on_is_not_spent_again(clock: Clock) -> None:
    """Two waits of 3 s under one deadline of 4 s end after 4 s, not after 6 s."""
    deadline = Deadline(4)
    wait_for("the first", lambda: clock.now >= 103.0, within=deadline, every_s=1)
    assert deadline.remaining == pytest.approx(1.0)
    with pytest.raises(WaitError, match="waited 4 s for the second"):
        wait_for("the second", lambda: False, within=deadline, every_s=1)
    assert clock.now == pytest.approx(104.0)


def test_a_deadline_says_how_much_is_left_and_never_less_than_nothing(clock: Clock) -> None:
    deadline = Deadline(2)
    assert (deadline.remaining, deadline.expired) == (2.0, False)
    clock.now += 1.5
    assert (deadline.remaining, deadline.expired) == (0.5, False)
    clock.now += 5
    assert (deadline.remaining, deadline.expired) == (0.0, True)


@pytest.mark.usefixtures("clock")
def test_an_error_of_the_look_itself_is_not_swallowed() -> None:
    """Waiting on would turn a broken host into a slow one."""

    def look() -> bool:
        raise ConnectionResetError("alder hung up")

    with pytest.raises(ConnectionResetError, match="alder hung up"):
        wait_for("it", look, within=10)
