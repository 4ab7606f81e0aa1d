"""What the twin answers to a client: versions, memory lent to it, what it has, and refusals."""

from __future__ import annotations

import json
import os
from contextlib import closing, suppress
from errno import EEXIST, EINVAL, ENOSYS
from pathlib import Path
from random import Random
from socket import SHUT_WR

import pytest
from descriptors import memory_file, open_descriptors
from hypothesis import given, settings
from hypothesis import strategies as st
from vfio_client import Client, Refusal, Twin, first_client, mapping, packed, served_twin
from vfio_messages import Files, spoilt, wanted

from harness.twin.channel import MAX_DESCRIPTORS
from harness.twin.memory import MOST_REGIONS
from harness.uapi import vfio_user
from harness.uapi.ixgbe_vf import BAR_BYTES, VECTORS, Register
from harness.uapi.pci_regs import Command as PciCommand
from harness.uapi.pci_regs import Register as ConfigRegister
from harness.uapi.vfio import (
    DeviceFlag,
    DeviceInfo,
    IrqFlag,
    IrqInfo,
    IrqSetFlag,
    PciIrq,
    PciRegion,
    RegionFlag,
    RegionInfo,
)
from harness.uapi.vfio_user import Command, MapFlag, UnmapFlag

PAGE = 4096
TRIGGER = IrqSetFlag.ACTION_TRIGGER
EVENTFD = IrqSetFlag.DATA_EVENTFD | TRIGGER
BAR0, CONFIG = PciRegion.BAR0, PciRegion.CONFIG

twin, client = pytest.fixture(served_twin), pytest.fixture(first_client)


# --- versions -------------------------------------------------------------------------------


def test_capabilities_are_those_that_both_have(twin: Twin) -> None:
    """QEMU takes a capability that it did not propose for a broken server, and hangs up."""
    client = twin.connect(negotiate=False)
    version, capabilities = client.negotiate(max_msg_fds=99, write_multiple=True, migration={})
    assert version == vfio_user.VERSION
    assert capabilities == {"max_msg_fds": MAX_DESCRIPTORS, "write_multiple": True}


def test_of_two_limits_the_smaller_one_holds(twin: Twin) -> None:
    """What a client cannot do is not agreed on; ours are cut accordingly."""
    client = twin.connect(negotiate=False)
    offered = {"max_msg_fds": 2, "max_data_xfer_size": 16, "max_dma_maps": 1 << 40}
    _, capabilities = client.negotiate(**offered, write_multiple=False)
    assert capabilities == {**offered, "max_dma_maps": MOST_REGIONS}
    assert twin.device.memory.largest_transfer == 16


def test_no_more_maps_are_agreed_on_than_the_client_offers(twin: Twin) -> None:
    """QEMU offers 65,535, and hangs up on whoever answers with more."""
    client = twin.connect(negotiate=False)
    assert client.negotiate(max_dma_maps=65535)[1] == {"max_dma_maps": 65535}


@pytest.mark.parametrize("offered", [0, -1, "16", 1.5, True, None, []])
def test_a_limit_that_is_none_is_refused(twin: Twin, offered: object) -> None:
    client = twin.connect(negotiate=False)
    text = json.dumps({"capabilities": {"max_data_xfer_size": offered}}).encode()
    head = vfio_user.VERSION_HEAD.pack(0, 1)
    assert client.reply_to(client.send(Command.VERSION, head + text)).error == EINVAL


@pytest.mark.parametrize(("theirs", "agreed"), [(0, 0), (1, 1), (7, 1)])
def test_the_older_minor_version_is_spoken(twin: Twin, theirs: int, agreed: int) -> None:
    """A reply with our own version whatever was asked is right for one of these alone."""
    version, capabilities = twin.connect(negotiate=False).negotiate(minor=theirs)
    assert (version, capabilities) == ((0, agreed), {})


def test_a_version_without_text_proposes_nothing(twin: Twin) -> None:
    """The text is optional: a parser that is given nothing must not fail on it."""
    client = twin.connect(negotiate=False)
    reply = client.ask(Command.VERSION, vfio_user.VERSION_HEAD.pack(0, 1))
    assert reply == vfio_user.VERSION_HEAD.pack(0, 1) + b'{"capabilities": {}}\0'


def test_another_major_version_ends_the_connection_and_not_the_twin(twin: Twin) -> None:
    """There is no message that both would understand; the next client may speak ours."""
    stranger = twin.connect(negotiate=False)
    stranger.send(Command.VERSION, vfio_user.VERSION_HEAD.pack(1, 0))
    with pytest.raises(EOFError):
        stranger.receive()
    assert twin.served() == "the client speaks version 1, we speak 0"
    assert twin.connect().read(CONFIG, ConfigRegister.VENDOR_ID, 2) == 0x8086


@pytest.mark.parametrize(
    "text", [b"{", b"[]", b"7", b'{"capabilities": 7}', b'{"capabilities": [[[], 1]]}',
             b"\xff\xfe\xfd", b"[" * 100_000, b"1" * 5000],
    ids=lambda text: text[:16].decode(errors="replace"),
)  # fmt: skip
def test_a_version_that_is_not_json_of_capabilities_is_refused(twin: Twin, text: bytes) -> None:
    """Each fails in another place of the parser, with an exception of its own."""
    client = twin.connect(negotiate=False)
    with pytest.raises(Refusal) as refused:
        client.ask(Command.VERSION, vfio_user.VERSION_HEAD.pack(0, 1) + text)
    assert refused.value.error == EINVAL
    assert client.negotiate()[0] == vfio_user.VERSION


# --- memory that is lent --------------------------------------------------------------------


def test_lent_memory_is_let_go_when_it_is_taken_back(twin: Twin, client: Client) -> None:
    """QEMU unplugs memory once the reply is there: a map kept longer keeps the memory itself."""
    before = open_descriptors()
    with client.share(PAGE, 2 * PAGE) as memory:
        memory[5:10] = b"hello"
        assert bytes(twin.device.memory.peek(PAGE + 5, 5)) == b"hello"
    assert any("memfd:guest" in what for _, what in open_descriptors() - before)
    assert client.unmap(PAGE, 2 * PAGE) == vfio_user.DMA_UNMAP.pack(24, 0, PAGE, 2 * PAGE)
    assert open_descriptors() == before
    assert twin.device.memory.regions == ()


@pytest.mark.parametrize(
    ("address", "size"), [(4, 4), (3, 2), (7, 2), (5, 1), (2, 9), (4, 1), (7, 1)]
)
def test_memory_is_not_lent_twice(client: Client, address: int, size: int) -> None:
    """Pages 4 to 7 are lent; each of these meets them from another side."""
    client.lend(4 * PAGE, 4 * PAGE)
    with pytest.raises(Refusal) as refused:
        client.lend(address * PAGE, size * PAGE)
    assert refused.value.error == EEXIST


def test_neighbours_are_no_overlap(twin: Twin, client: Client) -> None:
    """An end that is taken for the last byte refuses the regions that QEMU lends side by side."""
    for page in (4, 6, 2, 0):
        client.lend(page * PAGE, 2 * PAGE)
    top = (1 << 64) - PAGE
    client.lend(top, PAGE)
    lent = [region.address for region in twin.device.memory.regions]
    assert lent == [0, 2 * PAGE, 4 * PAGE, 6 * PAGE, top]


@pytest.mark.parametrize(("address", "size"), [(4, 1), (4, 3), (5, 1), (5, 3), (5, 9), (1, 4)])
def test_a_part_of_a_region_cannot_be_taken_back(
    twin: Twin, client: Client, address: int, size: int
) -> None:
    """To take all of it would be a surprise, and so would be what else lies in that range."""
    for page, pages in ((2, 1), (4, 4), (9, 1)):
        client.lend(page * PAGE, pages * PAGE)
    with pytest.raises(Refusal) as refused:
        client.unmap(address * PAGE, size * PAGE)
    assert refused.value.error == EINVAL
    assert len(twin.device.memory.regions) == 3


@pytest.mark.parametrize(
    ("address", "size", "left"),
    [(4, 4, [2, 9]), (3, 6, [2, 9]), (2, 8, []), (0, 9, [9]), (0, 4, [4, 9]), (8, 1, [2, 4, 9]),
     (0, 1 << 51, [])],
)  # fmt: skip
def test_what_lies_in_a_range_is_taken_back_be_it_nothing(
    twin: Twin, client: Client, address: int, size: int, left: list[int]
) -> None:
    """QEMU unmaps by whole ranges when a vIOMMU's domain ends: what is kept is in the next's way.

    The next one's maps would get EEXIST, and its DMA the pages of the one before.
    """
    for page, pages in ((2, 1), (4, 4), (9, 1)):
        client.lend(page * PAGE, pages * PAGE)
    reply = client.unmap(address * PAGE, size * PAGE)
    assert reply == vfio_user.DMA_UNMAP.pack(24, 0, address * PAGE, size * PAGE)
    assert [region.address // PAGE for region in twin.device.memory.regions] == left


def test_all_can_be_taken_back_at_once(twin: Twin, client: Client) -> None:
    """QEMU says so for an address space of 2^64 bytes, whose size no message can tell."""
    client.lend(0, PAGE)
    client.lend((1 << 64) - PAGE, PAGE)
    with pytest.raises(Refusal) as refused:
        client.ask(Command.DMA_UNMAP, vfio_user.DMA_UNMAP.pack(24, UnmapFlag.ALL, 0, PAGE))
    assert (refused.value.error, len(twin.device.memory.regions)) == (EINVAL, 2)
    asked = vfio_user.DMA_UNMAP.pack(24, UnmapFlag.ALL, 0, 0)
    assert client.ask(Command.DMA_UNMAP, asked) == asked
    assert twin.device.memory.regions == ()


def test_a_stretch_of_a_file_is_lent(twin: Twin, client: Client) -> None:
    """QEMU lends RAM below and above 4 GiB from one file: an offset that is dropped swaps them."""
    with memory_file(4 * PAGE) as descriptor:
        os.pwrite(descriptor, b"third page", 2 * PAGE)
        client.ask(Command.DMA_MAP, mapping(0, PAGE, offset=2 * PAGE), descriptor)
    assert bytes(twin.device.memory.peek(0, 10)) == b"third page"


@pytest.mark.parametrize("path", ["/dev/null", "/", "/proc/self/status"])
def test_what_cannot_be_mapped_is_refused(client: Client, path: str) -> None:
    """The kernel says no in a way of its own to each; none of it may end the twin."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with pytest.raises(Refusal) as refused:
            client.ask(Command.DMA_MAP, mapping(0, PAGE), descriptor)
    finally:
        os.close(descriptor)
    assert refused.value.error == EINVAL


def test_a_read_only_file_is_lent_for_reading_alone(client: Client, tmp_path: Path) -> None:
    """A writable map of it fails in the kernel, and one that is not asked for must not be made."""
    (path := tmp_path / "rom").write_bytes(bytes(PAGE))
    with path.open("rb") as rom:
        client.ask(Command.DMA_MAP, mapping(0, PAGE, flags=MapFlag.READABLE), rom.fileno())
        with pytest.raises(Refusal) as refused:
            client.ask(Command.DMA_MAP, mapping(PAGE, PAGE), rom.fileno())
    assert refused.value.error == EINVAL


# --- what the device has --------------------------------------------------------------------


def test_the_device_says_what_it_is(client: Client) -> None:
    """The structure is vfio's without its last field; with it, QEMU finds the reply too long."""
    size = DeviceInfo.cap_offset.offset
    reply = client.ask(Command.DEVICE_GET_INFO, size.to_bytes(4, "little") + bytes(size - 4))
    flags = DeviceFlag.PCI | DeviceFlag.RESET
    assert reply == bytes(DeviceInfo(argsz=16, flags=flags, num_regions=9, num_irqs=5))[:size]


@pytest.mark.parametrize("index", PciRegion)
def test_a_region_says_how_large_it_is(client: Client, index: PciRegion) -> None:
    """None can be mapped: every access has to reach the twin."""
    sizes = {PciRegion.BAR0: BAR_BYTES, PciRegion.BAR3: BAR_BYTES, PciRegion.CONFIG: 4096}
    reply = client.ask(Command.DEVICE_GET_REGION_INFO, bytes(RegionInfo(argsz=32, index=index)))
    info = RegionInfo.from_buffer_copy(reply)
    size = sizes.get(index, 0)
    assert (info.index, info.size) == (index, size)
    assert info.flags == (RegionFlag.READ | RegionFlag.WRITE if size else 0)


@pytest.mark.parametrize("index", PciIrq)
def test_interrupts_are_those_of_msix(client: Client, index: PciIrq) -> None:
    """A VF has no INTx and no MSI; a guest that is offered them uses them."""
    reply = client.ask(Command.DEVICE_GET_IRQ_INFO, bytes(IrqInfo(argsz=16, index=index)))
    info = IrqInfo.from_buffer_copy(reply)
    assert (info.index, info.count) == (index, VECTORS if index == PciIrq.MSIX else 0)
    assert bool(info.flags & IrqFlag.EVENTFD) == bool(info.count)


def test_a_reset_resets_the_device_and_not_what_is_lent_to_it(twin: Twin, client: Client) -> None:
    """QEMU maps nothing again after it: memory that went with the reset would be gone for good."""
    client.lend(0, PAGE)
    client.write(CONFIG, ConfigRegister.COMMAND, PciCommand.MASTER, 2)
    client.write(BAR0, Register.VTEIMS, 1)
    assert client.ask(Command.DEVICE_RESET) == b""
    assert client.read(CONFIG, ConfigRegister.COMMAND, 2) == 0
    assert client.read(BAR0, Register.VTEIMS) == 0
    assert twin.commanded == [PciCommand.MASTER, 0]
    assert len(twin.device.memory.regions) == 1


@settings(max_examples=150)
@given(chance=st.randoms(use_true_random=False), count=st.integers(1, 30))
def test_no_few_messages_end_the_server(chance: Random, count: int) -> None:
    """Whatever a client says before it hangs up, the next one is served; a failure is made small.

    Its messages are those of tests/fuzz, which sends a million.
    """
    messages = [spoilt(chance, wanted(chance)) for _ in range(count)]
    with closing(Files()) as files, Twin() as twin:
        client = twin.connect()
        with suppress(OSError):  # it was hung up on
            for data, kinds in messages:
                client.send_bytes(data, *files.of(kinds))
            client.socket.shutdown(SHUT_WR)
        twin.served()
        assert twin.connect().read(CONFIG, ConfigRegister.VENDOR_ID, 2) == 0x8086


def test_random_messages_do_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short run of tests/fuzz/twin_server.py, which asserts and counts by itself."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1])
    from fuzz.twin_server import fuzz

    counted = fuzz(messages=20_000, seed=82599)
    assert counted.messages >= 20_000
    assert {0, EINVAL, ENOSYS, EEXIST} <= set(counted.replies)


def test_the_clients_number_and_command_come_back(client: Client) -> None:
    """Replies are told apart by their number alone, and a client may have many open."""
    for number in (7, 0xFFFF, 0):
        client.send_bytes(packed(number, Command.DEVICE_RESET))
    replies = [client.reply_to(number) for number in (0, 0xFFFF, 7)]
    assert [(each.number, each.command) for each in replies] == [(0, 13), (0xFFFF, 13), (7, 13)]
