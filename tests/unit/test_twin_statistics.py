"""The VF's counters as ixgbevf reads them: what they count, how far, and that they go on.

Which registers, and how wide each is: Linux, drivers/net/ethernet/intel/ixgbevf/ixgbevf_main.c,
ixgbevf_update_stats, UPDATE_VF_COUNTER_32bit and UPDATE_VF_COUNTER_36bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from vf_driver import Guest, guest_with_vf
from vf_rings import MAC, PEER, frame_of

from harness.uapi.ixgbe_vf import Register, VfControl

COUNTERS = {
    Register.VFGPRC: 3,
    Register.VFGORC_LSB: 60 + 100 + 200 + 3 * 4,
    Register.VFGORC_MSB: 0,
    Register.VFMPRC: 1,
    Register.VFGPTC: 2,
    Register.VFGOTC_LSB: 80 + 90 + 2 * 4,
    Register.VFGOTC_MSB: 0,
}
"""What they are after `traffic`; bytes are counted with each frame's checksum."""


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    with guest_with_vf(tmp_path / "dma.log") as guest:
        guest.start()
        yield guest


def traffic(guest: Guest) -> None:
    """Three frames in, one of them a broadcast and one more that is not the VF's; two out."""
    guest.hear(frame_of(60), frame_of(100, head=b"\xff" * 6 + PEER), frame_of(200))
    guest.hear(frame_of(300, head=PEER + MAC))
    for size in (80, 90):
        guest.tx[0].send(frame_of(size, head=PEER + MAC))


def counted(guest: Guest) -> dict[Register, int]:
    return {each: guest.device.read(each) for each in COUNTERS}


def test_each_counter_counts_its_own(guest: Guest) -> None:
    assert not any(counted(guest).values())
    traffic(guest)
    assert counted(guest) == COUNTERS
    assert guest.device.statistics.filtered == 1


def test_reading_clears_nothing(guest: Guest) -> None:
    """The driver takes a value below its last one for an overflow, and adds 4 Gi frames."""
    traffic(guest)
    assert [counted(guest) for _ in range(2)] == [COUNTERS] * 2


def test_writing_changes_nothing(guest: Guest) -> None:
    traffic(guest)
    for each in COUNTERS:
        guest.device.write(each, 0)
    assert counted(guest) == COUNTERS


@pytest.mark.parametrize("how", ["VFCTRL", "FLR", "port"])
def test_counters_go_on_over_a_reset(guest: Guest, how: str) -> None:
    """ixgbevf_init_last_counter_stats keeps what they are after a reset, and counts from there."""
    resets: dict[str, Callable[[], object]] = {
        "VFCTRL": lambda: guest.device.write(Register.VFCTRL, VfControl.RST),
        "FLR": guest.device.reset,
        "port": guest.device.port.reset,
    }
    traffic(guest)
    resets[how]()
    assert counted(guest) == COUNTERS
    guest.start()
    traffic(guest)
    assert counted(guest) == {each: 2 * count for each, count in COUNTERS.items()}


def test_counters_of_frames_have_32_bits(guest: Guest) -> None:
    statistics = guest.device.statistics
    statistics.received = statistics.received_multicast = statistics.sent = 0xFFFFFFFF
    traffic(guest)
    read = [Register.VFGPRC, Register.VFMPRC, Register.VFGPTC]
    assert [guest.device.read(each) for each in read] == [2, 0, 1]


@pytest.mark.parametrize(
    ("before", "high", "low"),
    [
        ((1 << 32) - 1, 1, -1),
        ((1 << 36) - (1 << 32), 15, 0),
        ((1 << 36) - 1, 0, -1),
    ],
)
def test_counters_of_bytes_have_36_bits(guest: Guest, before: int, high: int, low: int) -> None:
    """In two registers, of which the high one has four bits."""
    guest.device.statistics.received_bytes = guest.device.statistics.sent_bytes = before
    traffic(guest)
    now = counted(guest)
    assert (now[Register.VFGORC_MSB], now[Register.VFGOTC_MSB]) == (high, high)
    for each in (Register.VFGORC_LSB, Register.VFGOTC_LSB):
        assert now[each] == COUNTERS[each] + low
