"""How a VF is looked at that was stopped: once frames have ceased, at what it can write to then."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.audit import conduct
from harness.audit.ways import Way
from harness.clock import Relation
from harness.guest.memory import PAGE, GuestMemory
from harness.host.vf import Ring
from harness.migration.clocks import Clocks, SharedClock
from harness.uapi.ixgbe_vf import RX_READ

OLD, NEW = Ring(0x10_000, 4, 0, 2), Ring(0x20_000, 4, 0, 2)
"""A ring of before the step, and one that its driver has made since, each with two buffers."""

LOOK_S = 0.2


class Memory:
    """A guest's memory; of the pages that are watched the first *changing* change."""

    def __init__(self, changing: int = 0) -> None:
        self.digested: list[tuple[float, tuple[int, ...]]] = []
        self._changing = changing

    def has(self, page_frame: int) -> bool:
        return page_frame > 0

    def read(self, address: int, size: int) -> bytes:
        buffers = b"".join(RX_READ.pack(address * 16 + n * PAGE, 0) for n in range(4))
        return buffers[:size]

    def digest_pages(self, page_frames: tuple[int, ...]) -> list[int]:
        self.digested.append((time.monotonic(), page_frames))
        seen = len(self.digested)
        return [seen if place < self._changing else 0 for place, _ in enumerate(page_frames)]

    def newest_frame(self, flow: int) -> int:
        return 40 + flow


@pytest.fixture(autouse=True)
def shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conduct, "LOOK_S", LOOK_S)
    monkeypatch.setattr(conduct, "SILENT_S", 0.2)
    monkeypatch.setattr(conduct, "SETTLE_S", 0.8)


class Running:
    """A flow of which so much has arrived at each time of asking, and the last from then on."""

    flow = SimpleNamespace(number=2)

    def __init__(self, *arrived: int) -> None:
        self.asked = 0
        self._arrived = arrived or (0,)

    @property
    def arrived(self) -> int:
        self.asked += 1
        return self._arrived[min(self.asked, len(self._arrived)) - 1]


class Counted:
    """A device's log whose number of accesses is each time the next of those given."""

    def __init__(self, accesses: Iterator[int]) -> None:
        self._accesses = accesses

    @property
    def accesses(self) -> int:
        return next(self._accesses)

    @property
    def clock_of(self) -> str:
        raise AssertionError("nobody needs its times during a look")

    def dma_log(self) -> bytes:
        raise AssertionError("nobody reads it during a look")


def looked(
    monkeypatch: pytest.MonkeyPatch, memory: Memory, way: Way, accesses: Iterator[int] | None = None
) -> conduct._Notes:
    monkeypatch.setattr(GuestMemory, "of", lambda _: memory)
    rings = iter(([OLD], [NEW]))
    vf = SimpleNamespace(receive_rings=lambda **_: next(rings))
    subject = SimpleNamespace(instance=SimpleNamespace(pid=1), vf=vf, stop=lambda _: None)
    notes = conduct._Notes()
    log = None if accesses is None else Counted(accesses)
    conduct._stop_and_look(way, cast("Any", subject), cast("Any", Running()), notes, log)
    return notes


def pages_of(ring: Ring) -> set[int]:
    """The ring's own page, and those of its buffers, which the driver has all given."""
    return {ring.address // PAGE, *(ring.address * 16 // PAGE + n for n in range(4))}


def test_what_a_vf_could_write_to_once_frames_had_ceased_is_watched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A ring of before the step may be nobody's by then, and its pages anybody's."""
    memory = Memory(changing=2)
    seen = looked(monkeypatch, memory, Way.BME_CLEARED, iter((100, 107))).evidence
    assert seen is not None
    assert (seen.has_rings, seen.changed, seen.newest, seen.accesses) == (True, 2, 42, 7)
    (first_s, watched), (again_s, watched_again) = memory.digested
    assert watched == watched_again
    assert set(watched) <= pages_of(NEW)
    assert NEW.address // PAGE in watched
    assert (seen.watched, seen.buffers) == (len(watched), len(watched) - 1)
    assert again_s - first_s >= LOOK_S


def test_where_the_driver_gives_its_rings_back_those_of_before_are_watched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory = Memory()
    seen = looked(monkeypatch, memory, Way.UNBIND).evidence
    assert seen is not None
    assert (seen.has_rings, seen.accesses) == (False, None)
    assert OLD.address // PAGE in memory.digested[0][1]
    assert not set(memory.digested[0][1]) & pages_of(NEW)


def test_all_that_is_seen_lies_between_the_moments_that_are_noted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory = Memory()
    at = looked(monkeypatch, memory, Way.BME_CLEARED).times
    assert at["asked"] <= at["taken"] <= at["looked"] <= at["looked_again"]
    for when_s, _ in memory.digested:
        assert at["looked"] <= when_s * 1e9 <= at["looked_again"]
    assert at["looked"] - at["taken"] >= 0.2e9, "frames may have come in until then"


@pytest.mark.parametrize(
    ("arrived", "least_s", "most"),
    [((), 0.2, 4), ((1, 2, 3, 4, 5), 0.5, 9), (range(100), 0.8, 10)],
    ids=["at once", "after a while", "never"],
)
def test_it_is_waited_until_frames_have_ceased_and_no_longer(
    arrived: tuple[int, ...], least_s: float, most: int
) -> None:
    """The flow is asked ten times a second, so often at *most*."""
    began, flow = time.monotonic(), Running(*arrived)
    conduct._settle(cast("Any", flow))
    assert time.monotonic() - began >= least_s
    assert flow.asked <= most


def test_moments_are_known_as_well_as_the_worst_of_them() -> None:
    apart = Clocks(monotonic=Relation(0, 1000, 30), wall=Relation(0, 0, 0))
    notes = conduct._Notes()
    for name in ("asked", "taken", "looked", "looked_again", "taking_back"):
        notes.times[name] = 5000
    moments = conduct._moments(SharedClock({"peer": apart}, {"peer": apart}, "peer"), notes)
    assert (moments.asked, moments.taking_back, moments.uncertainty_ns) == (6000, 6000, 30)
