"""The program's timers pace the frames of a VF with a rate limit, and nobody else's.

Ref: Linux, ixgbe_sriov.c, ixgbe_set_vf_rate_limit.
"""

from __future__ import annotations

import pytest
from hand_clock import HandClock
from port_driver import PEER_MAC, PORT_MAC, Port
from vf_of_port import PortVf, mac_of, vf_of
from vf_rings import frame_of

from harness.chip import link, rate
from harness.uapi.ixgbe_pf import Register

FRAMES, BYTES = 12, 1500
MBIT_S = 11
"""Ixgbe takes no lower rate; a frame of 1500 bytes takes 1.1 ms then."""
LEAST_S = ((FRAMES - 1) * (BYTES + 4) - 4096) * 8 / MBIT_S / 1e6
"""All frames but the first take so long, without the 4 KiB that MMW_SIZE lets through."""


def own(size: int = BYTES) -> bytes:
    return frame_of(size, head=PEER_MAC + mac_of(0))


def send(vf: PortVf, count: int = FRAMES) -> None:
    for _ in range(count):
        vf.tx.put_frame(own())
    vf.tx.go()


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> HandClock:
    return HandClock.of(monkeypatch, rate, link)


def time_to_send(port: Port, vf: PortVf, clock: HandClock) -> float:
    """Have the frames sent, and let the program's loop turn until they are on the wire."""
    begin = clock.monotonic()
    send(vf)
    while len(port.sent) < FRAMES:
        wait = port.turn()
        assert wait or len(port.sent) == FRAMES
        clock.go_on(wait)
    return clock.monotonic() - begin


def test_frames_of_a_limited_vf_take_their_time(port: Port, vf: PortVf, clock: HandClock) -> None:
    """Each frame is sent and reported once, and all take the time that their bytes take."""
    vf.set_rate(MBIT_S)
    assert time_to_send(port, vf, clock) == pytest.approx(LEAST_S, rel=1e-3)
    assert port.sent == [own()] * FRAMES
    assert vf.tx.done() == list(range(FRAMES))


def test_other_pools_send_at_once_meanwhile(port: Port, vf: PortVf) -> None:
    with vf_of(port, 1) as other:
        vf.set_rate(MBIT_S)
        send(vf)
        before = len(port.sent)
        other.tx.send(frame_of(BYTES, head=PEER_MAC + mac_of(1)))
        port.tx[0].send(frame_of(BYTES, head=PEER_MAC + PORT_MAC))
        assert len(port.sent) == before + 2


def test_without_a_limit_all_leave_at_once(port: Port, vf: PortVf) -> None:
    vf.set_rate(100)
    vf.set_rate(0)
    send(vf)
    assert (len(port.sent), port.chip.rates.resume()) == (FRAMES, 0.0)


def test_a_limit_that_is_lifted_lets_go_what_waited(port: Port, vf: PortVf) -> None:
    vf.set_rate(MBIT_S)
    send(vf)
    assert len(port.sent) < FRAMES
    vf.set_rate(0)
    port.turn()
    assert len(port.sent) == FRAMES


def test_a_reset_of_the_port_forgets_every_limit(port: Port, vf: PortVf) -> None:
    vf.set_rate(MBIT_S)
    assert port.read(Register.RTTBCNRC)
    port.reset_hw()
    assert port.read(Register.RTTBCNRC) == 0
    assert port.chip.rates.may_send(0)


def test_each_queue_has_its_own_limit(port: Port, vf: PortVf) -> None:
    """RTTDQSEL chooses the queue of RTTBCNRC; queue 4 is VF 1's first."""
    vf.set_rate(100)
    for queue, has_one in ((0, True), (3, True), (4, False)):
        port.write(Register.RTTDQSEL, queue)
        assert bool(port.read(Register.RTTBCNRC)) == has_one


def test_the_loop_is_told_when_the_next_frame_may_leave(port: Port, vf: PortVf) -> None:
    """The loop waits for one frame's time at most, and does not poll."""
    vf.set_rate(MBIT_S)
    send(vf)
    assert 0 < port.chip.rates.resume() <= (BYTES + 4) * 8 / MBIT_S / 1e6


def test_a_slower_link_makes_the_same_factor_slower(
    port: Port, vf: PortVf, clock: HandClock
) -> None:
    """The factor is a fraction of the link's rate; ixgbe takes limits away when that changes."""
    vf.set_rate(10 * MBIT_S)
    port.chip.link.plug(True, 1000, trained=True)
    assert time_to_send(port, vf, clock) == pytest.approx(LEAST_S, rel=1e-3)


def test_rttdqsel_takes_seven_bits_of_a_queues_number(port: Port) -> None:
    """Queue 133 is queue 5, since RTTDQSEL has 7 bits."""
    port.write(Register.RTTDQSEL, 128 + 5)
    for value in (1 << 31 | 1 << 20, 0):
        port.write(Register.RTTBCNRC, value)
        port.write(Register.RTTDQSEL, 5)
        assert port.read(Register.RTTBCNRC) == value
        port.write(Register.RTTDQSEL, 128 + 5)
