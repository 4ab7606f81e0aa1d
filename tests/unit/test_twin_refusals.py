"""What the twin refuses: with which errno, and that it then goes on as before."""

from __future__ import annotations

from contextlib import ExitStack
from errno import EINVAL, ENOSYS

import pytest
from descriptors import memory_file
from vfio_client import LENT, Client, Twin, access, first_client, irqs, mapping, served_twin

from harness.twin.channel import LARGEST_MESSAGE
from harness.uapi import vfio_user
from harness.uapi.ixgbe_vf import BAR_BYTES
from harness.uapi.pci_regs import Command as PciCommand
from harness.uapi.pci_regs import Register as ConfigRegister
from harness.uapi.vfio import (
    DeviceInfo,
    IrqInfo,
    IrqSetFlag,
    PciIrq,
    PciRegion,
    RegionInfo,
)
from harness.uapi.vfio_user import Command, Flag

PAGE = 4096
TRIGGER = IrqSetFlag.ACTION_TRIGGER
EVENTFD = IrqSetFlag.DATA_EVENTFD | TRIGGER
BAR0, CONFIG = PciRegion.BAR0, PciRegion.CONFIG

twin, client = pytest.fixture(served_twin), pytest.fixture(first_client)

INFO = bytes(RegionInfo(argsz=32))
INDEX_9 = bytes(RegionInfo(argsz=32, index=9))
ENTRY = vfio_user.WRITE_MULTI_ENTRY
REFUSED: dict[str, tuple[int, bytes, int]] = {
    "no such command": (14, b"", 0),
    "a command of the server's": (Command.DMA_READ, bytes(16), 0),
    "no region can be mapped": (Command.DEVICE_GET_REGION_IO_FDS, bytes(16), 0),
    "a second version": (Command.VERSION, vfio_user.VERSION_HEAD.pack(0, 1), 0),
    "map: short": (Command.DMA_MAP, mapping(0, PAGE)[:-1], 0),
    "map: long": (Command.DMA_MAP, mapping(0, PAGE) + b"\0", 0),
    "map: empty": (Command.DMA_MAP, mapping(0, 0), 0),
    "map: half a page": (Command.DMA_MAP, mapping(0, PAGE // 2), 0),
    "map: between pages": (Command.DMA_MAP, mapping(PAGE // 2, PAGE), 0),
    "map: past the end": (Command.DMA_MAP, mapping((1 << 64) - PAGE, 2 * PAGE), 0),
    "map: neither read nor written": (Command.DMA_MAP, mapping(0, PAGE, flags=0), 0),
    "map: unknown flag": (Command.DMA_MAP, mapping(0, PAGE, flags=LENT | 4), 0),
    "map: past the file's end": (Command.DMA_MAP, mapping(0, 2 * PAGE), 1),
    "map: offset past the file's end": (Command.DMA_MAP, mapping(0, PAGE, offset=PAGE), 1),
    "map: offset between pages": (Command.DMA_MAP, mapping(0, PAGE, offset=512), 1),
    "map: offset that is no offset": (Command.DMA_MAP, mapping(0, PAGE, offset=1 << 63), 1),
    "map: two descriptors": (Command.DMA_MAP, mapping(0, PAGE), 2),
    "map: argsz": (Command.DMA_MAP, mapping(0, PAGE, argsz=31), 0),
    "unmap: argsz": (Command.DMA_UNMAP, vfio_user.DMA_UNMAP.pack(23, 0, 0, PAGE), 0),
    "unmap: short": (Command.DMA_UNMAP, bytes(23), 0),
    "unmap: descriptor": (Command.DMA_UNMAP, bytes(24), 1),
    "unmap: flag": (Command.DMA_UNMAP, vfio_user.DMA_UNMAP.pack(24, 1, 0, PAGE), 0),
    "unmap: nothing": (Command.DMA_UNMAP, vfio_user.DMA_UNMAP.pack(24, 0, 0, 0), 0),
    "unmap: half a page": (Command.DMA_UNMAP, vfio_user.DMA_UNMAP.pack(24, 0, 0, PAGE // 2), 0),
    "unmap: between pages": (Command.DMA_UNMAP, vfio_user.DMA_UNMAP.pack(24, 0, 8, PAGE), 0),
    "unmap: past the end": (
        Command.DMA_UNMAP, vfio_user.DMA_UNMAP.pack(24, 0, (1 << 64) - PAGE, 2 * PAGE), 0
    ),
    "device info: argsz": (Command.DEVICE_GET_INFO, bytes(16), 0),
    "device info: with capabilities": (Command.DEVICE_GET_INFO, bytes(DeviceInfo(argsz=20)), 0),
    "region info: short": (Command.DEVICE_GET_REGION_INFO, INFO[:-1], 0),
    "region info: argsz": (Command.DEVICE_GET_REGION_INFO, bytes(32), 0),
    "region info: no such region": (Command.DEVICE_GET_REGION_INFO, INDEX_9, 0),
    "region info: descriptor": (Command.DEVICE_GET_REGION_INFO, INFO, 1),
    "irq info: none such": (Command.DEVICE_GET_IRQ_INFO, bytes(IrqInfo(argsz=16, index=5)), 0),
    "irqs: argsz": (Command.DEVICE_SET_IRQS, irqs(1 | TRIGGER, argsz=19), 0),
    "irqs: short": (Command.DEVICE_SET_IRQS, irqs(EVENTFD)[:-1], 0),
    "irqs: no action": (Command.DEVICE_SET_IRQS, irqs(IrqSetFlag.DATA_NONE), 0),
    "irqs: no kind of data": (Command.DEVICE_SET_IRQS, irqs(TRIGGER), 0),
    "irqs: two actions": (
        Command.DEVICE_SET_IRQS, irqs(1 | TRIGGER | IrqSetFlag.ACTION_MASK), 0
    ),
    "irqs: unknown flag": (Command.DEVICE_SET_IRQS, irqs(1 | TRIGGER | 1 << 9), 0),
    "irqs: past the last": (Command.DEVICE_SET_IRQS, irqs(1 | TRIGGER, start=2, count=2), 0),
    "irqs: none of that index": (Command.DEVICE_SET_IRQS, irqs(1 | TRIGGER, index=PciIrq.INTX), 0),
    "irqs: no such index": (Command.DEVICE_SET_IRQS, irqs(1 | TRIGGER, index=5), 0),
    "irqs: a value too few": (Command.DEVICE_SET_IRQS, irqs(2 | TRIGGER, count=2, data=b"\1"), 0),
    "irqs: data with none": (Command.DEVICE_SET_IRQS, irqs(1 | TRIGGER, data=b"\1"), 0),
    "irqs: a descriptor too few": (Command.DEVICE_SET_IRQS, irqs(EVENTFD, count=2), 1),
    "irqs: a descriptor too many": (Command.DEVICE_SET_IRQS, irqs(EVENTFD), 2),
    "irqs: no eventfd": (Command.DEVICE_SET_IRQS, irqs(EVENTFD), 1),
    "irqs: eventfd to mask by": (Command.DEVICE_SET_IRQS, irqs(4 | IrqSetFlag.ACTION_MASK), 1),
    "irqs: descriptor with none": (Command.DEVICE_SET_IRQS, irqs(1 | TRIGGER), 1),
    "read: short": (Command.REGION_READ, access(CONFIG, 0, 4)[:-1], 0),
    "read: nothing": (Command.REGION_READ, access(CONFIG, 0, 0), 0),
    "read: past the end": (Command.REGION_READ, access(CONFIG, 4093, 4), 0),
    "read: offset past everything": (Command.REGION_READ, access(CONFIG, (1 << 64) - 1, 4), 0),
    "read: no such region": (Command.REGION_READ, access(9, 0, 4), 0),
    "read: region without bytes": (Command.REGION_READ, access(PciRegion.ROM, 0, 4), 0),
    "read: register's half": (Command.REGION_READ, access(BAR0, 0, 2), 0),
    "read: between registers": (Command.REGION_READ, access(BAR0, 2, 4), 0),
    "read: descriptor": (Command.REGION_READ, access(CONFIG, 0, 4), 1),
    "write: less than it says": (Command.REGION_WRITE, access(CONFIG, 4, 4, b"\0\0"), 0),
    "write: more than it says": (Command.REGION_WRITE, access(CONFIG, 4, 2, bytes(4)), 0),
    "write: past the end": (Command.REGION_WRITE, access(BAR0, BAR_BYTES - 4, 8, bytes(8)), 0),
    "write: between registers": (Command.REGION_WRITE, access(BAR0, 2, 4, bytes(4)), 0),
    "writes: fewer than it says": (Command.REGION_WRITE_MULTI, bytes([2, *bytes(7 + 24)]), 0),
    "writes: too long a one": (
        Command.REGION_WRITE_MULTI, b"\1" + bytes(7) + ENTRY.pack(0, CONFIG, 9, b""), 0
    ),
    "reset: payload": (Command.DEVICE_RESET, b"\0", 0),
    "reset: descriptor": (Command.DEVICE_RESET, b"", 1),
}  # fmt: skip
UNKNOWN = {"no such command", "a command of the server's", "no region can be mapped"}


@pytest.mark.parametrize("wrong", REFUSED)
def test_refused(client: Client, wrong: str) -> None:
    """The reply is a header with the errno and nothing else, and the next command is served.

    Descriptors that came with it are closed, which the fixture looks at.
    """
    command, payload, count = REFUSED[wrong]
    with ExitStack() as stack:
        files = [stack.enter_context(memory_file(PAGE)) for _ in range(count)]
        reply = client.reply_to(client.send(command, payload, *files))
    assert reply.flags == Flag.REPLY | Flag.ERROR
    assert reply.error == (ENOSYS if wrong in UNKNOWN else EINVAL)
    assert (reply.command, reply.payload) == (command, b"")
    assert client.read(CONFIG, ConfigRegister.VENDOR_ID, 2) == 0x8086


@pytest.mark.parametrize("command", sorted(set(Command) - {Command.VERSION}))
def test_nothing_is_done_before_the_version_is_agreed_on(twin: Twin, command: Command) -> None:
    """The payload is right for one of them at least: a reset."""
    reply = (client := twin.connect(negotiate=False)).reply_to(client.send(command))
    handled = {*Command} - {
        Command.DMA_READ, Command.DMA_WRITE, Command.DEVICE_GET_REGION_IO_FDS,
    }  # fmt: skip
    assert reply.error == (EINVAL if command in handled else ENOSYS)
    assert twin.commanded == []


@pytest.mark.parametrize("kind", [2, 7, 15])
@pytest.mark.parametrize("command", [Command.DEVICE_RESET, Command.VERSION, 14])
def test_what_is_neither_a_command_nor_a_reply_is_not_done(
    twin: Twin, client: Client, kind: int, command: int
) -> None:
    """The type has four bits, of which two values are known: a reset must not come of another."""
    client.write(CONFIG, ConfigRegister.COMMAND, PciCommand.MASTER, 2)
    assert client.reply_to(client.send(command, flags=kind)).error == EINVAL
    assert twin.commanded == [PciCommand.MASTER]


def test_who_wants_no_reply_gets_none(twin: Twin, client: Client) -> None:
    """Neither for what was done nor for what was not: QEMU would take it for the next one's."""
    bme = access(CONFIG, ConfigRegister.COMMAND, 2, b"\4\0")
    client.send(Command.REGION_WRITE, bme, flags=Flag.NO_REPLY)
    client.send(Command.REGION_WRITE, bme[:-1], flags=Flag.NO_REPLY)
    number = client.send(Command.DEVICE_GET_REGION_INFO, INFO)
    assert client.receive().number == number
    assert twin.commanded == [PciCommand.MASTER]


@pytest.mark.parametrize("size", [0, 15, LARGEST_MESSAGE + 1, (1 << 32) - 1])
def test_a_size_that_no_message_has_ends_the_connection(twin: Twin, size: int) -> None:
    """Where the next message begins is not known any more: a guess would be served as commands."""
    client = twin.connect()
    client.send_bytes(vfio_user.HEADER.pack(1, Command.DEVICE_RESET, size, 0, 0) + bytes(64))
    assert twin.served() == f"a message says that it has {size} bytes"
