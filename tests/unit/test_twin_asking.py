"""The twin and its client ask each other at once, and each answers while it waits."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import ExitStack
from errno import EFAULT

import pytest
from frame_by_message import CONFIG, DMA_OF_A_FRAME, FRAME, PAGE, tail
from frame_by_message import client as client
from frame_by_message import driver as driver
from frame_by_message import twin as twin
from vfio_client import Client, Twin, access, packed

from harness.twin.channel import DEEPEST, DEEPEST_OF_ALL, Channel, ClientGone, Message
from harness.uapi import ixgbe_vf, vfio_user
from harness.uapi.pci_regs import Register
from harness.uapi.vfio_user import Command, Flag


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
