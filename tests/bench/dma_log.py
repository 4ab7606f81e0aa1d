"""The DMA log: what it adds to a round trip, of all that a device in software does for one."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from vf_driver import Guest, guest_with_vf
from vf_rings import MAC, PEER, frame_of

from bench.rows import Row
from harness.host.software_vf import SoftwareVf
from harness.run.moving import MovingGuest
from harness.traffic.flow import Flow

FRAME_BYTES, BUFFER_BYTES = 9014, 2048
SECONDS = 10.0
BATCHES, TRIPS = 400, 10


def log_cost(
    guest: MovingGuest, device: SoftwareVf, whose: str, pps: int, say: Callable[[str], None]
) -> Row:
    """Two measurements: a VF alone with and without a log, and the program of the *guest*'s VF.

    *whose* is what that program is called; it carries *pps* round trips a second.
    """
    say(f"the DMA log's cost, {whose}")
    with_us, without_us = _device_us()
    whole_us = _program_us(guest, device, pps)
    added_us = with_us - without_us
    return Row(
        f"what the DMA log adds to a round trip of {FRAME_BYTES} bytes, {whose}",
        f"{added_us:.1f} µs: {added_us / (whole_us - added_us):.1%} of the {whole_us:.0f} µs that "
        f"the {whose} works for one, {added_us / without_us:.0%} of what is the device's own",
        "10 % or less",
        f"a device alone, {BATCHES} times {TRIPS} trips with and without a log in turn, "
        f"{with_us:.1f} and {without_us:.1f} µs; the whole: processor time of the {whose}'s "
        f"program, {pps} a second for {SECONDS:g} s",
    )


def _device_us() -> tuple[float, float]:
    """Medians of what the device itself takes for a round trip, with its log and without."""
    taken: dict[bool, list[float]] = {True: [], False: []}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        guests = {logs: _started(stack, folder / str(logs)) for logs in taken}
        guests[False].device.memory.log = None
        for number in range(BATCHES):
            for logs in (True, False) if number % 2 else (False, True):
                taken[logs].append(_batch_us(guests[logs]))
    return statistics.median(taken[True]), statistics.median(taken[False])


def _started(stack: ExitStack, log: Path) -> Guest:
    room = 100 * BATCHES * TRIPS
    guest = stack.enter_context(guest_with_vf(log, port_mtu=9710, capacity=room))
    guest.start(mtu=9000, descriptors=64, buffer_bytes=BUFFER_BYTES)
    return guest


def _batch_us(guest: Guest) -> float:
    """What is the driver's own, in between, is not counted."""
    came = frame_of(FRAME_BYTES)
    answer = frame_of(FRAME_BYTES, head=PEER + MAC)
    parts = [answer[at : at + BUFFER_BYTES] for at in range(0, FRAME_BYTES, BUFFER_BYTES)]
    spent = 0
    for _ in range(TRIPS):
        began = time.perf_counter_ns()
        guest.hear(came)
        spent += time.perf_counter_ns() - began
        guest.rx[0].took()
        guest.rx[0].refill()
        guest.tx[0].put_frame(*parts)
        began = time.perf_counter_ns()
        guest.tx[0].go()
        guest.turn()
        spent += time.perf_counter_ns() - began
    guest.sent.clear()
    return spent / TRIPS / 1e3


def _program_us(guest: MovingGuest, device: SoftwareVf, pps: int) -> float:
    flow = Flow("log-cost", "round-trip", FRAME_BYTES, pps, 960)
    before_s = device.cpu_s
    records = guest.stay(flow, SECONDS)
    return (device.cpu_s - before_s) / records.receiver.received * 1e6
