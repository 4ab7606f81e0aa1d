"""The vfio-user server: what QEMU asks is done, and what is wrong is an errno or a clean end."""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twin_client import (
    MEMORY_BYTES,
    Client,
    Refusal,
    client,
    device,
    eventfds,
    memory,
    open_descriptors,
)

from harness.twin.channel import ClientGone
from harness.twin.config_space import EXPRESS, MSIX
from harness.twin.device import Device
from harness.uapi import vfio_user
from harness.uapi.ixgbe_vf import BAR_BYTES, DEVICE, VECTORS, VENDOR, Register
from harness.uapi.pci_regs import Express
from harness.uapi.vfio import IrqInfo, IrqSetFlag, PciIrq, PciRegion, RegionInfo
from harness.uapi.vfio_user import Command, Flag

BME = (0x0406).to_bytes(2, "little")
TRIGGER_EVENTFD = IrqSetFlag.DATA_EVENTFD | IrqSetFlag.ACTION_TRIGGER


@pytest.fixture
def vf() -> Iterator[Device]:
    with device() as made:
        yield made


@pytest.fixture
def qemu(vf: Device) -> Iterator[Client]:
    with client(vf) as connected:
        yield connected


@pytest.fixture
def ram() -> Iterator[int]:
    with memory() as descriptor:
        yield descriptor


def irqs(flags: int, start: int, count: int, data: bytes = b"", index: int = PciIrq.MSIX) -> bytes:
    return struct.pack("<IIIII", 20 + len(data), flags, index, start, count) + data


def info(layout: str, index: int) -> bytes:
    size = struct.calcsize(layout)
    return struct.pack("<III", size, 0, index) + bytes(size - 12)


def test_only_capabilities_that_both_know_are_agreed_on(vf: Device) -> None:
    """The reply must be a subset of what was proposed, or QEMU closes the connection."""
    connected = Client(vf)
    reply = connected.negotiate(b'{"capabilities":{"max_msg_fds":8,"twin_socket":{}}}\0')
    assert reply[:4] == vfio_user.VERSION_HEAD.pack(0, 1)
    assert set(json.loads(reply[4:-1])["capabilities"]) == {"max_msg_fds"}
    connected.close()


def test_another_major_version_ends_the_connection(vf: Device) -> None:
    connected = Client(vf)
    connected.send(Command.VERSION, vfio_user.VERSION_HEAD.pack(1, 0))
    with pytest.raises(ClientGone, match="speaks version 1"):
        connected.channel.serve()
    connected.close()


def test_nothing_is_done_before_a_version_is_agreed_on(vf: Device, ram: int) -> None:
    connected = Client(vf)
    with pytest.raises(Refusal, match="EINVAL"):
        connected.map(0, MEMORY_BYTES, ram)
    assert not vf.memory.regions
    connected.close()


def test_mapped_memory_is_the_clients_own(qemu: Client, vf: Device, ram: int) -> None:
    """Not a copy: what the device writes is there for the guest at once."""
    qemu.map(0x100000, MEMORY_BYTES // 2, ram, offset=MEMORY_BYTES // 2)
    vf.config.write(4, BME)
    vf.memory.write(0x100010, b"written", 8)
    assert os.pread(ram, 7, MEMORY_BYTES // 2 + 0x10) == b"written"


@pytest.mark.parametrize(
    ("address", "size", "error"),
    [
        (0x1000, 0x1000, "EEXIST"),
        (0x0000, 0x2000, "EEXIST"),
        (0x2000, 0x4000, "EEXIST"),
        (0x3000, 0x0, "EINVAL"),
        (0x10000, 0x800, "EINVAL"),
        (0x10800, 0x1000, "EINVAL"),
        (0x10000, 2 * MEMORY_BYTES, "EINVAL"),
        ((1 << 64) - 0x1000, 0x2000, "EINVAL"),
    ],
)
def test_a_map_that_overlaps_or_does_not_fit_is_refused(
    qemu: Client, vf: Device, ram: int, address: int, size: int, error: str
) -> None:
    """A second map over the first would let one unmap take both away."""
    qemu.map(0x1000, 0x2000, ram)
    with pytest.raises(Refusal, match=error):
        qemu.map(address, size, ram)
    assert [(each.address, each.size) for each in vf.memory.regions] == [(0x1000, 0x2000)]


@pytest.mark.parametrize(("address", "size"), [(0x1000, 0x1000), (0x2000, 0x1000), (0, 0x3000)])
def test_an_unmap_must_match_exactly(
    qemu: Client, vf: Device, ram: int, address: int, size: int
) -> None:
    qemu.map(0x1000, 0x2000, ram)
    with pytest.raises(Refusal, match="ENOENT"):
        qemu.unmap(address, size)
    assert len(vf.memory.regions) == 1
    request = vfio_user.DMA_UNMAP.pack(24, 0, 0x1000, 0x2000)
    assert qemu.unmap(0x1000, 0x2000) == request, "the reply is the request again"
    assert not vf.memory.regions


def test_device_regions_and_interrupts_are_those_of_the_vf(qemu: Client) -> None:
    """QEMU builds BARs and vectors from these: a wrong size is a device that cannot be driven."""
    _, flags, regions, interrupts = struct.unpack(
        "<IIII", qemu.ask(Command.DEVICE_GET_INFO, struct.pack("<IIII", 16, 0, 0, 0))
    )
    assert (flags, regions, interrupts) == (3, 9, 5)
    sizes = {
        region: RegionInfo.from_buffer_copy(
            qemu.ask(Command.DEVICE_GET_REGION_INFO, info("<IIIIQQ", region))
        ).size
        for region in range(regions)
    }
    assert {r: size for r, size in sizes.items() if size} == {0: BAR_BYTES, 3: BAR_BYTES, 7: 4096}
    counts = [
        IrqInfo.from_buffer_copy(qemu.ask(Command.DEVICE_GET_IRQ_INFO, info("<IIII", n))).count
        for n in range(interrupts)
    ]
    assert counts == [0, 0, VECTORS, 0, 0]


def test_an_interrupt_reaches_the_eventfd_of_its_vector_alone(qemu: Client, vf: Device) -> None:
    with eventfds(VECTORS) as made:
        qemu.ask(Command.DEVICE_SET_IRQS, irqs(TRIGGER_EVENTFD, 0, VECTORS), made)
        vf.interrupts.trigger(1)
        assert [_signals(each) for each in made] == [0, 1, 0]


def test_a_masked_vector_keeps_its_message_until_it_is_unmasked(qemu: Client, vf: Device) -> None:
    """One that got lost while masked would leave a queue standing for good."""
    none = IrqSetFlag.DATA_NONE
    with eventfds(1) as (made,):
        qemu.ask(Command.DEVICE_SET_IRQS, irqs(TRIGGER_EVENTFD, 2, 1), [made])
        qemu.ask(Command.DEVICE_SET_IRQS, irqs(none | IrqSetFlag.ACTION_MASK, 2, 1))
        vf.interrupts.trigger(2)
        assert _signals(made) == 0
        qemu.ask(Command.DEVICE_SET_IRQS, irqs(none | IrqSetFlag.ACTION_UNMASK, 2, 1))
        assert _signals(made) == 1


def test_the_client_can_trigger_take_away_and_disable(qemu: Client, vf: Device) -> None:
    trigger = IrqSetFlag.DATA_BOOL | IrqSetFlag.ACTION_TRIGGER
    with eventfds(3) as made:
        qemu.ask(Command.DEVICE_SET_IRQS, irqs(TRIGGER_EVENTFD, 0, 3), made)
        qemu.ask(Command.DEVICE_SET_IRQS, irqs(trigger, 0, 3, b"\1\0\1"))
        assert [_signals(each) for each in made] == [1, 0, 1]
        qemu.ask(Command.DEVICE_SET_IRQS, irqs(TRIGGER_EVENTFD, 0, 1))  # no descriptors: taken away
        vf.interrupts.trigger(0)
        off = IrqSetFlag.DATA_NONE | IrqSetFlag.ACTION_TRIGGER
        qemu.ask(Command.DEVICE_SET_IRQS, irqs(off, 0, 0))
        vf.interrupts.trigger(2)
        assert [_signals(each) for each in made] == [0, 0, 0]


def test_registers_are_read_and_written_in_words_of_four_or_eight_bytes(qemu: Client) -> None:
    two = (0x11111111).to_bytes(4, "little") + (0x22222222).to_bytes(4, "little")
    qemu.write(PciRegion.BAR0, Register.VFMBMEM, two)
    assert qemu.read(PciRegion.BAR0, Register.VFMBMEM, 8) == two
    assert qemu.read(PciRegion.BAR0, Register.VFMBMEM + 4, 4) == two[4:]


def test_several_writes_at_once_are_all_done(qemu: Client) -> None:
    entries = b"".join(
        vfio_user.WRITE_MULTI_ENTRY.pack(Register.VFMBMEM + 4 * n, 0, 4, bytes([n]) * 8)
        for n in range(3)
    )
    request = vfio_user.WRITE_MULTI_HEAD.pack(3) + entries
    assert qemu.ask(Command.REGION_WRITE_MULTI, request) == request[:8]
    assert qemu.read(PciRegion.BAR0, Register.VFMBMEM, 8) == b"\0\0\0\0\1\1\1\1"


def test_a_posted_write_is_done_and_not_answered(qemu: Client) -> None:
    head = vfio_user.REGION_ACCESS.pack(Register.VFMBMEM, 0, 4)
    qemu.send(Command.REGION_WRITE, head + b"abcd", flags=Flag.NO_REPLY)
    assert qemu.read(PciRegion.BAR0, Register.VFMBMEM, 4) == b"abcd"  # the next reply is its own


def test_the_guest_sees_an_82599_vf(qemu: Client) -> None:
    """By these it finds its driver, the driver its BARs, and QEMU the vectors."""
    assert (qemu.config(0, 2), qemu.config(2, 2)) == (VENDOR, DEVICE)
    assert qemu.config(MSIX + 2, 2) + 1 == VECTORS
    qemu.write(PciRegion.CONFIG, 0x10, b"\xff" * 8)
    assert (1 << 64) - (qemu.config(0x10, 8) & ~0xF) == BAR_BYTES, "a BAR tells its size"
    qemu.write(PciRegion.CONFIG, 4, b"\xff\xff")
    assert qemu.config(4, 2) & 0x4
    assert qemu.config(EXPRESS + Express.DEVCAP, 4) & Express.DEVCAP_FLR


def test_with_erratum_35_the_express_capability_is_empty() -> None:
    """A real VF says that it cannot be reset, and can: the kernel has a quirk for it."""
    with device(erratum_35=True) as old, client(old) as qemu:
        assert qemu.config(EXPRESS, 1) == 0x10
        assert qemu.config(EXPRESS + Express.FLAGS, 2) == 0
        assert qemu.config(EXPRESS + Express.DEVCAP, 4) == 0


@pytest.mark.parametrize("by", ["message", "function level reset"])
def test_a_reset_takes_the_vf_off_the_bus(qemu: Client, vf: Device, by: str) -> None:
    qemu.write(PciRegion.CONFIG, 4, BME)
    vf.receiver.queues[0].head = 7
    if by == "message":
        qemu.ask(Command.DEVICE_RESET)
    else:
        qemu.write(PciRegion.CONFIG, EXPRESS + Express.DEVCTL, (0x8000).to_bytes(2, "little"))
    assert not vf.config.masters_bus
    assert vf.receiver.queues[0].head == 0


ACCESS = vfio_user.REGION_ACCESS.pack
REFUSED: dict[str, tuple[int, bytes, int, str]] = {
    "an unknown command": (99, b"", 0, "ENOSYS"),
    "a command of the server's": (Command.DMA_READ, bytes(16), 0, "ENOSYS"),
    "a second version": (Command.VERSION, vfio_user.VERSION_HEAD.pack(0, 1), 0, "EINVAL"),
    "a map cut short": (Command.DMA_MAP, bytes(31), 0, "EINVAL"),
    "a map with two descriptors": (
        Command.DMA_MAP, vfio_user.DMA_MAP.pack(32, 3, 0, 0, 4096), 2, "EINVAL",
    ),
    "a map for nothing": (Command.DMA_MAP, vfio_user.DMA_MAP.pack(32, 0, 0, 0, 4096), 1, "EINVAL"),
    "an unmap with flags": (
        Command.DMA_UNMAP, vfio_user.DMA_UNMAP.pack(24, 1, 0, 4096), 0, "EINVAL",
    ),
    "an unmap with a descriptor": (Command.DMA_UNMAP, bytes(24), 1, "EINVAL"),
    "device info without room": (Command.DEVICE_GET_INFO, bytes(16), 0, "EINVAL"),
    "a region past the last": (Command.DEVICE_GET_REGION_INFO, info("<IIIIQQ", 9), 0, "EINVAL"),
    "an interrupt past the last": (Command.DEVICE_GET_IRQ_INFO, info("<IIII", 5), 0, "EINVAL"),
    "a read past the end": (Command.REGION_READ, ACCESS(BAR_BYTES - 4, 0, 8), 0, "EINVAL"),
    "a read of nothing": (Command.REGION_READ, ACCESS(0, 0, 0), 0, "EINVAL"),
    "a read of a BAR that is not there": (Command.REGION_READ, ACCESS(0, 1, 4), 0, "EINVAL"),
    "a read of half a register": (Command.REGION_READ, ACCESS(2, 0, 2), 0, "EINVAL"),
    "a read of a whole region and more": (
        Command.REGION_READ, ACCESS(0, 7, 0xFFFFFFFF), 0, "EINVAL",
    ),
    "a write with too little data": (Command.REGION_WRITE, ACCESS(0, 0, 4) + b"ab", 0, "EINVAL"),
    "several writes with one missing": (
        Command.REGION_WRITE_MULTI, vfio_user.WRITE_MULTI_HEAD.pack(2) + bytes(24), 0, "EINVAL",
    ),
    "a write of nine bytes among several": (
        Command.REGION_WRITE_MULTI,
        vfio_user.WRITE_MULTI_HEAD.pack(1) + vfio_user.WRITE_MULTI_ENTRY.pack(0, 0, 9, b""),
        0, "EINVAL",
    ),
    "a reset with a payload": (Command.DEVICE_RESET, b"now", 0, "EINVAL"),
    "vectors past the last": (Command.DEVICE_SET_IRQS, irqs(TRIGGER_EVENTFD, 1, 3), 3, "EINVAL"),
    "vectors of the wrong kind": (
        Command.DEVICE_SET_IRQS, irqs(TRIGGER_EVENTFD, 0, 1, index=PciIrq.INTX), 1, "EINVAL",
    ),
    "fewer eventfds than vectors": (
        Command.DEVICE_SET_IRQS, irqs(TRIGGER_EVENTFD, 0, 3), 2, "EINVAL",
    ),
    "two actions at once": (Command.DEVICE_SET_IRQS, irqs(0x39, 0, 1), 0, "EINVAL"),
    "an eventfd for masking": (
        Command.DEVICE_SET_IRQS,
        irqs(IrqSetFlag.DATA_EVENTFD | IrqSetFlag.ACTION_MASK, 0, 1), 1, "EINVAL",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_refused_and_the_next_request_served(
    qemu: Client, ram: int, case: str
) -> None:
    """The server lives as long as its guest: nothing that a client sends may end it."""
    command, payload, descriptors, error = REFUSED[case]
    before = open_descriptors()
    with pytest.raises(Refusal, match=error):
        qemu.ask(command, payload, [ram] * descriptors)
    assert open_descriptors() == before, "a descriptor that came with it was not closed"
    assert qemu.config(0, 2) == VENDOR


def test_a_client_that_goes_leaves_nothing_behind(vf: Device, ram: int) -> None:
    """Also in the middle of a message, with descriptors under way; the next client is served."""
    before = open_descriptors()
    connected = Client(vf)
    connected.negotiate()
    connected.map(0, MEMORY_BYTES, ram)
    with eventfds(3) as made:
        connected.ask(Command.DEVICE_SET_IRQS, irqs(TRIGGER_EVENTFD, 0, 3), made)
    half = vfio_user.HEADER.pack(7, Command.DMA_MAP, 48, 0, 0) + bytes(5)

    socket.send_fds(connected.socket, [half], [ram])
    connected.socket.close()
    with pytest.raises(ClientGone):
        connected.channel.serve()
    connected.close()
    assert (open_descriptors(), vf.memory.regions) == (before, ())
    with client(vf) as another:
        assert another.config(0, 2) == VENDOR


@pytest.mark.parametrize("size", [0, 15, 1 << 31])
def test_a_header_that_cannot_be_one_ends_the_connection(vf: Device, size: int) -> None:
    """Where the next message begins is not known any more."""
    connected = Client(vf)
    connected.socket.send(vfio_user.HEADER.pack(1, Command.VERSION, size, 0, 0))
    with pytest.raises(ClientGone, match=f"says that it has {size} bytes"):
        connected.channel.serve()
    connected.close()


@settings(deadline=None, max_examples=50)
@given(cuts=st.lists(st.integers(1, 60), max_size=12))
def test_a_message_may_come_in_any_pieces(cuts: list[int]) -> None:
    """A stream has no message boundaries but those of the headers."""
    ask = vfio_user.HEADER.pack(1, Command.VERSION, 20, 0, 0) + vfio_user.VERSION_HEAD.pack(0, 1)
    read = ACCESS(0, 7, 2)
    stream = ask + vfio_user.HEADER.pack(2, Command.REGION_READ, 32, 0, 0) + read
    with device() as vf:
        connected = Client(vf)
        for cut in [*cuts, len(stream)]:
            piece, stream = stream[:cut], stream[cut:]
            if piece:
                connected.socket.send(piece)
                connected.channel.serve()
        assert connected.receive()[0] == 1
        assert connected.receive()[4] == read + VENDOR.to_bytes(2, "little")
        connected.close()


def _signals(eventfd: int) -> int:
    try:
        return os.eventfd_read(eventfd)
    except BlockingIOError:
        return 0
