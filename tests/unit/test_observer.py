"""The observer: when it holds QEMU's descriptor, what it writes, and what it sets off.

A file stands for sysfs ``config``; a Vf for the device behind it, which QEMU opens and closes.
"""

from __future__ import annotations

import errno
import json
import os
import threading
from itertools import pairwise
from pathlib import Path

import pytest
from observed_vf import ADDRESS, OFF, ON, Script, Vf, nothing, run
from observed_vf import sysfs as sysfs

from harness.agent import bme, observer
from harness.agent.bme import HOLE_NS, Sample
from harness.agent.channel import Channel
from harness.agent.errors import AgentError
from harness.agent.vf_filter import NOT_THERE, PortFilters


def test_an_owned_vf_is_read_through_its_owner(sysfs: Path) -> None:
    """The source: QEMU has the VF before the observer starts, and so from the first sample on."""
    with Vf(sysfs).register() as register:
        assert register.sample()[1:4] == (ON, True, "vfio")


def test_the_copy_is_given_back_when_bme_falls(sysfs: Path) -> None:
    """QEMU lets go soon after: a copy still open then keeps the kernel from resetting the VF."""
    vf = Vf(sysfs)
    with vf.register() as register:
        register.sample()
        vf.set(OFF)
        assert register.sample()[1:4] == (OFF, False, "vfio")
        assert vf.copies == 0
        assert register.sample()[1:4] == (OFF, False, "sysfs")


def test_the_copy_is_given_back_when_the_owner_lets_go(sysfs: Path) -> None:
    """A QEMU that is killed leaves BME set: waiting for it to fall would hold the VF for ever."""
    vf = Vf(sysfs)
    with vf.register() as register:
        register.sample()
        vf.open_by_qemu = False
        assert register.sample().via == "sysfs"
        assert vf.copies == 0


def test_a_vf_that_is_plugged_in_later_is_borrowed_then(sysfs: Path) -> None:
    """The destination: QEMU opens the VF, the guest's driver sets BME; only then is it used."""
    vf = Vf(sysfs, OFF, open_by_qemu=False)
    with vf.register() as register:
        assert register.sample()[1:4] == (OFF, False, "sysfs")
        vf.open_by_qemu = True
        assert register.sample()[1:4] == (OFF, False, "sysfs")
        vf.set(ON)
        assert register.sample()[1:4] == (ON, True, "sysfs")
        assert register.sample()[1:4] == (ON, True, "vfio")
    assert vf.copies == 0, "the copy outlived the observer"


def test_descriptors_are_looked_for_at_a_pace(sysfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan of QEMU's descriptors costs as much as a hundred samples."""
    monkeypatch.setattr(bme, "LOOK_EVERY_NS", 60_000_000_000)
    vf = Vf(sysfs, open_by_qemu=False)
    with vf.register() as register:
        for _ in range(100):
            register.sample()
    assert vf.asked == 1


def test_a_vf_that_goes_does_not_answer(sysfs: Path) -> None:
    """All ones have the bit of BME set: taken for a register they say that DMA goes on."""
    vf = Vf(sysfs, open_by_qemu=False)
    with vf.register() as register:
        vf.set(0xFFFF)
        assert register.sample()[1:4] == (0xFFFF, False, "sysfs")
        vf.config.write_bytes(b"")
        assert register.sample()[1:4] == (0xFFFF, False, "sysfs")
        vf.set(ON)
        assert register.sample()[1:4] == (ON, True, "sysfs")


def test_a_vf_that_comes_back_is_read_again(sysfs: Path) -> None:
    """Its ``config`` is a new file; the old one, still open, would never answer again."""
    vf = Vf(sysfs, OFF, open_by_qemu=False)
    with vf.register() as register:
        vf.config.write_bytes(b"")
        register.sample()
        vf.config.unlink()
        assert register.sample()[1:4] == (0xFFFF, False, "sysfs")
        vf.set(ON)
        assert register.sample()[1:4] == (ON, True, "sysfs")


def test_only_changes_and_both_ends_are_written(sysfs: Path) -> None:
    """At 500 a second a soak writes gigabytes; without the ends nobody knows how long it looked."""
    vf = Vf(sysfs)
    summary, lines = run(vf, nothing, lambda: vf.set(0x0407), nothing, lambda: vf.set(OFF), nothing)
    assert lines == [
        (ON, True, "sysfs"),
        (0x0407, True, "sysfs"),
        (OFF, False, "sysfs"),
        (OFF, False, "sysfs"),
    ]
    assert summary["samples"] == 7
    assert summary["via"] == {"vfio": 0, "sysfs": 7}


def test_what_reads_as_before_is_only_counted(sysfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of times a second: whatever else was done then would delay what is observed."""
    monkeypatch.setattr(bme, "LOOK_EVERY_NS", 60_000_000_000)
    vf = Vf(sysfs)
    with vf.register() as register:
        assert register.unchanged_ns() == 0, "nothing was seen yet"
        before_ns = register.sample().t_ns
        assert before_ns < register.unchanged_ns()
        vf.set(OFF)
        assert register.unchanged_ns() == 0
        assert register.sample()[1:4] == (OFF, False, "vfio")
        assert register.unchanged_ns() == 0, "it is read another way from now on"
        register.sample()
        assert register.unchanged_ns()
        monkeypatch.setattr(register, "_read_again", gone)
        assert register.unchanged_ns() == 0


def gone() -> bytes:
    raise OSError(errno.ENODEV, "No such device")


def test_a_change_between_two_looks_is_seen_at_once(
    sysfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And every sample is counted, those too that found nothing new."""
    monkeypatch.setattr(bme, "LOOK_EVERY_NS", 60_000_000_000)
    vf = Vf(sysfs)
    summary, lines = run(vf, nothing, nothing, lambda: vf.set(OFF), nothing, nothing)
    assert lines == [(ON, True, "sysfs"), (OFF, False, "sysfs"), (OFF, False, "sysfs")]
    assert summary["samples"] == 7
    assert summary["via"] == {"vfio": 0, "sysfs": 7}


def test_a_vf_that_nobody_has_opened_is_looked_at_less_often(
    sysfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The destination's, all the while the source's is unplugged: every sample costs that time."""
    monkeypatch.setattr(observer, "LOOK_EVERY_NS", 20_000_000)
    vf = Vf(sysfs, OFF, open_by_qemu=False)
    enable = vf.config.with_name("enable")
    enable.write_text("0\n")
    channel = Script(nothing, nothing, lambda: enable.write_text("1\n"), nothing, nothing)
    spec = {"host": "alder", "vf": ADDRESS, "path": str(sysfs / "bme.jsonl"), "rate_per_s": 1000}
    observer.main(spec, channel)
    first, second, third, fourth, *_ = (b - a for a, b in pairwise(channel.waits_s))
    assert 0.01 < first <= 0.02, "no time passes here: each wait is longer by one period"
    assert 0.01 < second <= 0.02
    assert third <= 0.001
    assert fourth <= 0.001


def test_a_vf_that_is_only_waited_for_is_seen_to_master(sysfs: Path) -> None:
    """At once where it does already, later where its driver takes its time, or not at all."""
    vf = Vf(sysfs, OFF)
    assert bme.wait_for_bme(ADDRESS, 0.05) == OFF
    driver = threading.Timer(0.05, vf.set, [ON])
    driver.start()
    assert bme.wait_for_bme(ADDRESS, 10) == ON
    driver.join()
    assert bme.wait_for_bme(ADDRESS, 0) == ON


def test_no_sample_is_written_twice(sysfs: Path) -> None:
    """The last sample may be a change, and is then in the record already."""
    with (sysfs / "bme.jsonl").open("w") as file:
        record = observer.Record(file, "alder", ADDRESS, Sample(1, ON, True, "vfio"))
        record.add(Sample(2_000_001, OFF, False, "vfio"))
        assert record.close()["longest_gap_ms"] == 2
    assert len((sysfs / "bme.jsonl").read_text().splitlines()) == 2


def test_a_time_for_which_nobody_looked_is_in_the_record(sysfs: Path) -> None:
    """Nothing changed by its end, for all that is known; what was in it nobody saw."""
    first, hole_ms = Sample(0, ON, True, "vfio"), HOLE_NS // 1_000_000
    with (sysfs / "bme.jsonl").open("w") as file:
        record = observer.Record(file, "alder", ADDRESS, first)
        record.count(2_000_000)
        record.count((2 + hole_ms) * 1_000_000)
        record.count((3 + 2 * hole_ms) * 1_000_000)
        record.add(first._replace(t_ns=(5 + 3 * hole_ms) * 1_000_000))
        record.close()
    lines = [json.loads(line) for line in (sysfs / "bme.jsonl").read_text().splitlines()]
    told = [(line["t_ns"] // 1_000_000, line["gap_ns"] // 1_000_000) for line in lines]
    assert told == [
        (0, 0), (3 + 2 * hole_ms, hole_ms + 1), (5 + 3 * hole_ms, hole_ms + 2)
    ]  # fmt: skip
    assert {line["command"] for line in lines} == {ON}


def test_the_first_fall_sets_off_what_waits_for_it_once(sysfs: Path) -> None:
    """A driver that is bound and unbound again must not move the filter a second time."""
    vf = Vf(sysfs)
    fall, rise = (lambda: vf.set(OFF)), (lambda: vf.set(ON))
    summary, _ = run(
        vf,
        *(fall, rise, fall, rise),
        on_release=[{"name": "vf released"}],
        on_master=[{"name": "vf attached"}],
    )
    assert [event["name"] for event in summary["events"]] == ["vf released", "vf attached"]


def test_what_is_so_from_the_start_is_no_change(sysfs: Path) -> None:
    """The destination's VF starts with BME clear: that is not a release."""
    actions = {"on_release": [{"name": "released"}], "on_master": [{"name": "attached"}]}
    summary, _ = run(Vf(sysfs, OFF), nothing, **actions)
    assert summary["events"] == []


def test_a_vf_that_vanishes_counts_as_released(sysfs: Path) -> None:
    """Its filter on the port is still there, and swallows the guest's frames."""
    vf = Vf(sysfs)
    summary, lines = run(vf, lambda: vf.set(0xFFFF), on_release=[{"name": "vf released"}])
    assert [event["name"] for event in summary["events"]] == ["vf released"]
    assert lines[1] == (0xFFFF, False, "sysfs")


def test_a_filter_that_is_refused_is_told_and_the_observer_goes_on(sysfs: Path) -> None:
    """BME is what is measured: an unwilling port must not end the record in mid-migration."""
    vf = Vf(sysfs)
    action = {"name": "filter", "port": "lo", "vf_index": 0, "mac": "00:00:00:00:00:00"}
    summary, lines = run(vf, lambda: vf.set(OFF), lambda: vf.set(ON), on_release=[action])
    (event,) = summary["events"]
    assert event["data"]["error"]["what"].startswith("lo: VF 0: setting its MAC address")
    assert 0 < event["data"]["took_ms"] <= (event["t_ns"] - event["data"]["seen_ns"]) / 1e6
    assert lines[-1] == (ON, True, "sysfs")


def test_a_filter_that_was_empty_already_is_cleared_and_noted(
    sysfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On ixgbe a function reset that came first has emptied it: that is no refusal."""
    monkeypatch.setattr(PortFilters, "set_mac", lambda *_: NOT_THERE)
    vf = Vf(sysfs)
    action = {"name": "filter", "port": "lo", "vf_index": 0, "mac": "00:00:00:00:00:00"}
    summary, _ = run(vf, lambda: vf.set(OFF), on_release=[action])
    (event,) = summary["events"]
    assert event["data"]["note"] == NOT_THERE
    assert "error" not in event["data"]


def test_a_port_that_is_missing_stops_the_observer_before_it_starts(sysfs: Path) -> None:
    """At the moment of release it would be too late to tell anyone."""
    action = {"name": "filter", "port": "nowhere0", "vf_index": 0, "mac": "00:00:00:00:00:00"}
    with pytest.raises(AgentError, match="nowhere0: No such device"):
        run(Vf(sysfs), on_release=[action])


def test_a_vf_that_is_not_there_is_named(sysfs: Path) -> None:
    """A wrong address would be recorded as a VF that never does DMA."""
    spec = {"host": "alder", "vf": "0000:99:00.0", "path": str(sysfs / "bme.jsonl")}
    with pytest.raises(AgentError, match=r"0000:99:00\.0 is not there"):
        observer.main(spec, Script())


def test_a_spec_of_another_version_is_refused(sysfs: Path) -> None:
    """A name that is not understood may be the action that the hand-off depends on."""
    with pytest.raises(AgentError, match="on_relase"):
        run(Vf(sysfs), on_relase=[])


def test_ready_says_what_was_found(sysfs: Path) -> None:
    """The conductor must know before it migrates whether BME was set at all."""
    script = Script()
    vf = Vf(sysfs, OFF)
    path = str(sysfs / "bme.jsonl")
    observer.main({"host": "alder", "vf": vf.config.parent.name, "path": path}, script)
    assert script.said == [{"ready": {"via": "sysfs", "command": OFF, "bme": False}}]


def test_sampling_keeps_its_pace_and_owns_up_to_gaps(sysfs: Path) -> None:
    """A change is known no better than the gap it fell into; a stalled host must show.

    100 samples at 500 a second take 0.2 s.  One of them stalls for 50 ms.
    """
    Vf(sysfs)
    reading, writing = os.pipe()
    said = os.open(os.devnull, os.O_WRONLY)
    stall = threading.Event()

    class Stalling(Channel):
        samples = 0

        def wait(self, seconds: float) -> bool:
            self.samples += 1
            if self.samples == 50:
                stall.wait(0.05)
            if self.samples == 100:
                os.close(writing)
            return super().wait(seconds)

    path = str(sysfs / "bme.jsonl")
    summary = observer.main({"host": "alder", "vf": ADDRESS, "path": path}, Stalling(reading, said))
    for descriptor in (reading, said):
        os.close(descriptor)
    assert 90 <= summary["samples"] <= 110
    assert 100 < summary["rate_per_s"] < 550
    assert summary["longest_gap_ms"] >= 50
    assert summary["cpu_seconds"] < 0.2
