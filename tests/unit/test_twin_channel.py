"""Messages and descriptors over a stream: cut anywhere, broken off, and both sides asking at once.

Where the twin's DMA is wanted a driver's frame is what makes it: a ring in memory that is lent
without a descriptor, so that ring, frame and status all go by message.
"""

from __future__ import annotations

import gc
import itertools
import os
import resource
import socket
import weakref
from collections.abc import Callable
from contextlib import ExitStack, suppress
from errno import EFAULT

import pytest
from descriptors import eventfds, memory_file, open_descriptors, signals
from hypothesis import example, given, settings
from hypothesis import strategies as st
from vf_rings import MAC
from vfio_client import (
    Asked,
    Client,
    Twin,
    access,
    first_client,
    irqs,
    mapping,
    packed,
    served_twin,
)

from harness.twin import channel as channel_module
from harness.twin.channel import DEEPEST, DEEPEST_OF_ALL, Channel, ClientGone, Message
from harness.uapi import ixgbe_vf, vfio_user
from harness.uapi.ixgbe_vf import QueueControl, QueueRegister, TxCommand
from harness.uapi.pci_regs import Command as PciCommand
from harness.uapi.pci_regs import Register
from harness.uapi.vfio import PciRegion
from harness.uapi.vfio_user import Command, Flag

PAGE = 4096
BAR0, CONFIG = PciRegion.BAR0, PciRegion.CONFIG
FRAME = b"\xff" * 6 + MAC + b"\x88\xb5" + bytes(range(50))
TAIL = ixgbe_vf.TRANSMIT + QueueRegister.TAIL
EVENTFD_TRIGGER, NONE_TRIGGER = 0x24, 0x21
DMA_OF_A_FRAME = [
    Asked(Command.DMA_READ, 0, 16),
    Asked(Command.DMA_READ, PAGE, len(FRAME)),
    Asked(Command.DMA_WRITE, 12, 4),
]

twin, client = pytest.fixture(served_twin), pytest.fixture(first_client)


@pytest.fixture
def driver(twin: Twin, client: Client) -> Client:
    """A client whose guest has eight frames in its ring, and needs to write TAIL to send them."""
    twin.device.port.set_mac(MAC)
    twin.device.port.transmits = True  # as after the VF's first message
    memory = client.lend(0, 2 * PAGE)
    command = ixgbe_vf.TX_TYPE_DATA | TxCommand.EOP | TxCommand.RS | len(FRAME)
    for place in range(8):
        descriptor = ixgbe_vf.TX_DESCRIPTOR.pack(PAGE, command, len(FRAME) << 14)
        memory[16 * place : 16 * place + 16] = descriptor
    memory[PAGE : PAGE + len(FRAME)] = FRAME
    client.write(CONFIG, Register.COMMAND, PciCommand.MASTER, 2)
    client.write(BAR0, ixgbe_vf.TRANSMIT + QueueRegister.LEN, 8 * 16)
    client.write(BAR0, ixgbe_vf.TRANSMIT + QueueRegister.DCTL, QueueControl.ENABLE)
    return client


def tail(value: int) -> bytes:
    return access(BAR0, TAIL, 4, value.to_bytes(4, "little"))


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


# --- both sides asking ----------------------------------------------------------------------


def test_a_frame_leaves_by_message(twin: Twin, driver: Client) -> None:
    """Ring, frame and status: each goes through the client, at the guest's own addresses."""
    driver.reply_to(driver.send(Command.REGION_WRITE, tail(1)))
    assert driver.asked == DMA_OF_A_FRAME
    assert twin.sent == [FRAME]


def test_the_twin_answers_while_it_waits(twin: Twin, driver: Client) -> None:
    """The client's answer may need the lock that its other thread holds, waiting for us."""
    driver.meanwhile.append(lambda: driver.read(CONFIG, Register.VENDOR_ID))
    driver.meanwhile.append(lambda: driver.lend(4 * PAGE, PAGE))
    driver.reply_to(driver.send(Command.REGION_WRITE, tail(1)))
    assert twin.sent == [FRAME]
    assert len(twin.device.memory.regions) == 2


def test_what_came_before_the_twin_asked_is_answered_first(driver: Client) -> None:
    """One read brought both commands, and nothing more comes until the second has its reply."""
    first = packed(1, Command.REGION_WRITE, tail(1), flags=Flag.NO_REPLY)
    second = packed(2, Command.REGION_READ, access(CONFIG, 0, 4))
    driver.send_bytes(first + second)
    asked, answered = driver.receive(), driver.receive()
    assert (asked.command, asked.is_reply) == (Command.DMA_READ, False)
    assert (answered.number, answered.is_reply) == (2, True)


def test_commands_that_each_make_the_twin_ask_do_not_pile_up(twin: Twin, driver: Client) -> None:
    """Each is served within the one before it: without a limit Python's own is met, and raised."""
    deepest = 0

    def another() -> None:
        nonlocal deepest
        if len(driver.asked) < 10 * DEEPEST:
            driver.send(Command.REGION_WRITE, tail(1), flags=Flag.NO_REPLY)
            driver.send(Command.DEVICE_RESET, b"wrong")
            driver.meanwhile.append(another)

    driver.meanwhile.append(another)
    driver.reply_to(driver.send(Command.REGION_WRITE, tail(1)))
    assert driver.read(CONFIG, Register.VENDOR_ID, 2) == ixgbe_vf.VENDOR
    assert FRAME in twin.sent


def test_clients_that_have_us_ask_one_another_do_not_pile_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each client leaves a request open, and its command makes us ask the next client."""
    monkeypatch.setattr("harness.twin.channel.PATIENCE_SECONDS", 0.01)
    gone: dict[int, str] = {}
    channels: list[Channel] = []

    def ask(number: int) -> None:
        try:
            channels[number].request(Command.DMA_READ)
        except ClientGone as why:
            gone[number] = str(why)

    def answering(number: int) -> Callable[[Channel, Message], None]:
        return lambda _channel, _message: ask(number + 1)

    with ExitStack() as stack:
        for number in range(2 * DEEPEST_OF_ALL):
            near, far = socket.socketpair()
            stack.callback(near.close)
            channels.append(Channel(far, answering(number)))
            stack.callback(channels[-1].close)
            near.sendall(packed(1, Command.REGION_READ, access(CONFIG, 0, 4)))
        for channel in channels:
            channel._receive()
        ask(0)
    assert next(iter(gone)) == DEEPEST_OF_ALL
    assert gone[DEEPEST_OF_ALL] == f"{DEEPEST_OF_ALL} requests to clients were open already"
    assert all(why == "the client did nothing for 0.01 s" for why in list(gone.values())[1:])


@pytest.mark.parametrize(
    "answer",
    [
        vfio_user.HEADER.pack(0, 0, 16, Flag.REPLY | Flag.ERROR, EFAULT),
        vfio_user.HEADER.pack(0, 0, 16, Flag.REPLY | Flag.ERROR, (1 << 32) - 1),
        vfio_user.HEADER.pack(0, 0, 16, Flag.REPLY, 0),
        vfio_user.HEADER.pack(0, 0, 47, Flag.REPLY, 0) + bytes(31),
        vfio_user.HEADER.pack(0, 0, 49, Flag.REPLY, 0) + bytes(33),
    ],
    ids=["refused", "refused with no errno", "nothing", "a byte too few", "a byte too many"],
)
def test_a_dma_that_is_not_answered_as_it_should_be_is_none(
    twin: Twin, driver: Client, answer: bytes
) -> None:
    """The ring stands still as after a bus error, and goes on when the driver rings again."""
    driver.answers.append(answer[4:])
    driver.reply_to(driver.send(Command.REGION_WRITE, tail(1)))
    assert (twin.sent, driver.asked) == ([], DMA_OF_A_FRAME[:1])
    driver.reply_to(driver.send(Command.REGION_WRITE, tail(1)))
    assert twin.sent == [FRAME]


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
