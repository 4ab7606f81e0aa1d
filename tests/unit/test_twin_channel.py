"""Messages and descriptors come over a stream that may be cut anywhere, and break off."""

from __future__ import annotations

import gc
import itertools
import os
import resource
import socket
import weakref
from contextlib import suppress

import pytest
from descriptors import eventfds, memory_file, open_descriptors, signals
from frame_by_message import CONFIG, PAGE, tail
from frame_by_message import client as client
from frame_by_message import driver as driver
from frame_by_message import twin as twin
from hypothesis import example, given, settings
from hypothesis import strategies as st
from vfio_client import (
    Client,
    Twin,
    access,
    irqs,
    mapping,
    packed,
)

from harness.twin import channel as channel_module
from harness.twin.channel import Channel, ClientGone
from harness.uapi import ixgbe_vf, vfio_user
from harness.uapi.pci_regs import Register
from harness.uapi.vfio import PciRegion
from harness.uapi.vfio_user import Command, Flag

EVENTFD_TRIGGER, NONE_TRIGGER = 0x24, 0x21


# --- cut anywhere ---------------------------------------------------------------------------

TALK = [
    (packed(1, Command.VERSION, vfio_user.VERSION_HEAD.pack(0, 1) + b'{"capabilities":{}}\0'), ""),
    (packed(2, Command.DMA_MAP, mapping(0, PAGE)), "memory"),
    (packed(3, Command.REGION_WRITE, access(CONFIG, 4, 2, b"\6\0")), ""),
    (packed(4, Command.DEVICE_SET_IRQS, irqs(EVENTFD_TRIGGER)), "eventfd"),
    (packed(5, Command.DMA_MAP, mapping(PAGE, PAGE)), "memory"),
    (packed(6, Command.DEVICE_SET_IRQS, irqs(NONE_TRIGGER), flags=Flag.NO_REPLY), ""),
    (packed(7, Command.REGION_READ, access(CONFIG, 0, 8)), ""),
    (packed(8, Command.DMA_UNMAP, vfio_user.DMA_UNMAP.pack(24, 0, 7, PAGE)), ""),
]
STREAM = b"".join(data for data, _ in TALK)
REPLY_BYTES = 16 * 7 + (4 + len(b'{"capabilities": {}}\0')) + 16 + (16 + 8)


ENDS = list(itertools.accumulate(len(data) for data, _ in TALK))
DESCRIPTORS = {end - len(data): which for end, (data, which) in zip(ENDS, TALK, strict=True)}
"""Where in the stream each message begins, and what comes with it."""


def said(cuts: set[int]) -> tuple[bytes, int, list[bool]]:
    """What a twin says to TALK, how often it signals, and which memory has a descriptor.

    Each message is sent by itself, since that is how descriptors belong to one; and in pieces.
    """
    near, far = socket.socketpair()
    near.setblocking(False)
    twin = Twin()
    channel = Channel(far, twin.server.answer)
    places = sorted({0, *ENDS, *cuts})
    with near, memory_file(PAGE) as memory, eventfds(1) as (eventfd,):
        descriptors = {"memory": [memory], "eventfd": [eventfd], "": []}
        for begin, end in itertools.pairwise(places):
            which = descriptors[DESCRIPTORS.get(begin, "")]
            assert socket.send_fds(near, [STREAM[begin:end]], which) == end - begin
            channel.serve()
        replies = near.recv(1 << 16)
        lent = [region.file is not None for region in twin.device.memory.regions]
        twin.server.client_gone()
        channel.close()
        return replies, signals(eventfd)[0], lent


@settings(max_examples=100)
@given(cuts=st.sets(st.integers(1, len(STREAM) - 1)))
@example(cuts=set(range(1, len(STREAM))))
def test_a_stream_may_be_cut_anywhere(cuts: set[int]) -> None:
    """The kernel promises no more: every header, payload and descriptor gets split some day."""
    replies, signalled, lent = said(cuts)
    assert (len(replies), signalled, lent) == (REPLY_BYTES, 1, [True, True])


def test_descriptors_stay_with_their_message(twin: Twin, client: Client) -> None:
    """A message of more than one read comes before; then two at once, each with its own file."""
    writes = 1000 * vfio_user.WRITE_MULTI_ENTRY.pack(0, PciRegion.BAR3, 8, b"")
    client.send(Command.REGION_WRITE_MULTI, (1000).to_bytes(8, "little") + writes)
    with memory_file(PAGE) as first, memory_file(PAGE) as second:
        os.write(first, b"first")
        os.write(second, b"second")
        client.send(Command.DMA_MAP, mapping(0, PAGE), first)
        number = client.send(Command.DMA_MAP, mapping(PAGE, PAGE), second)
        assert client.reply_to(number).error == 0
    memory = twin.device.memory
    assert bytes(memory.peek(0, 7)) == b"first\0\0"
    assert bytes(memory.peek(PAGE, 7)) == b"second\0"


def test_a_reply_that_nobody_waits_for_is_dropped(client: Client) -> None:
    """It is not answered, which would go on for ever; and its descriptors are closed."""
    before = len(open_descriptors())
    with memory_file(PAGE) as descriptor:
        client.send_bytes(packed(0, Command.DMA_READ, flags=Flag.REPLY), descriptor)
    number = client.send(Command.DEVICE_RESET)
    assert client.receive().number == number
    assert len(open_descriptors()) == before


# --- broken off -----------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [0, 1, 15, 16, 17, 47])
def test_a_client_may_vanish_within_a_message(twin: Twin, kept: int) -> None:
    """What it lent, its eventfds, and a descriptor on its way are let go; the next is served."""
    before = open_descriptors()
    client = twin.connect()
    with client.share(0, PAGE), eventfds(1) as ends, memory_file(PAGE) as descriptor:
        client.set_irqs(EVENTFD_TRIGGER, *ends)
        if kept:
            message = packed(1, Command.DMA_MAP, mapping(PAGE, PAGE))
            client.send_bytes(message[:kept], descriptor)
        client.hang_up()
        assert "the client" in twin.served()
    assert open_descriptors() == before
    assert twin.device.memory.regions == ()
    assert twin.connect().read(CONFIG, Register.VENDOR_ID, 2) == ixgbe_vf.VENDOR


def test_a_client_may_vanish_instead_of_answering(twin: Twin, driver: Client) -> None:
    """The twin waits within a command: everything that was begun has to be left, and cleanly.

    vfio_pci_core_disable() resets a VF whose user is gone: it does not master the bus any more.
    """
    driver.meanwhile.append(driver.hang_up)
    with suppress(OSError, ValueError):  # it goes on to answer, on what it has closed
        driver.reply_to(driver.send(Command.REGION_WRITE, tail(1)))
    assert "the client" in twin.served()
    assert twin.sent == []
    assert twin.commanded[-1] == 0
    assert twin.connect().read(CONFIG, Register.COMMAND, 2) == 0


def test_a_client_that_does_not_answer_is_left(
    twin: Twin, driver: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its guest hangs; the twin is asked by others too, and must not hang with it."""
    monkeypatch.setattr(channel_module, "PATIENCE_SECONDS", 0.05)
    driver.send(Command.REGION_WRITE, tail(1))
    assert twin.served() == "the client did nothing for 0.05 s"
    twin.connect().read(CONFIG, Register.VENDOR_ID)


def test_a_client_that_takes_no_replies_is_left(
    twin: Twin, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reply that does not fit into the socket is waited for, and not cut off or lost."""
    monkeypatch.setattr(channel_module, "PATIENCE_SECONDS", 0.05)
    with suppress(BrokenPipeError, ConnectionResetError):
        for _ in range(1000):
            client.send(Command.REGION_READ, access(CONFIG, 0, 4096))
    assert twin.served() == "the client did nothing for 0.05 s"


def test_descriptors_that_find_no_room_end_the_connection(twin: Twin, client: Client) -> None:
    """The kernel drops them and says so in a flag: memory would count as lent without one."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with memory_file(PAGE) as descriptor:
        highest = max(int(number) for number, _ in open_descriptors())
        fillers = [os.dup(descriptor) for _ in range(highest + 1 - len(open_descriptors()))]
        highest = max(int(number) for number, _ in open_descriptors())
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, limits[1]))
        try:
            client.send(Command.DMA_MAP, mapping(0, PAGE), descriptor)
            assert twin.served() == "descriptors of the client's got lost: we have too many"
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            for each in fillers:
                os.close(each)


def test_whoever_serves_the_channel_learns_that_the_client_is_gone(twin: Twin) -> None:
    """A DMA for a frame from the wire meets it first: that must not be the end of the twin."""
    near, far = socket.socketpair()
    channel = Channel(far, twin.server.answer)
    near.close()
    for ask in (lambda: channel.request(Command.DMA_READ, bytes(16)), channel.serve):
        with pytest.raises(ClientGone, match="the client closed the connection"):
            ask()
    channel.close()


def test_a_client_that_is_gone_keeps_nothing_alive(twin: Twin) -> None:
    """Neither memory that it lent nor a frame under way, until some day a collector comes."""
    near, far = socket.socketpair()
    channel = Channel(far, twin.server.answer)
    near.close()
    gc.disable()
    try:
        assert under_way(channel)() is None
    finally:
        gc.enable()
        channel.close()


class UnderWay:
    """What a frame's function holds while its DMA is asked for."""


def under_way(channel: Channel) -> weakref.ref[UnderWay]:
    held = UnderWay()
    for ask in (lambda: channel.request(Command.DMA_READ, bytes(16)), channel.serve):
        with suppress(ClientGone):
            ask()
    return weakref.ref(held)
