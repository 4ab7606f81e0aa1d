"""Linux and QEMU read configuration space of a port and its VFs as it has to be.

Ref: Linux, drivers/pci/iov.c: sriov_init, sriov_enable, sriov_restore_state.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from port_driver import PORT_MAC, Port, port_of_chip

from harness.chip.configuration import ARI, ERRORS, SERIAL, SRIOV
from harness.uapi import ixgbe_pf, ixgbe_vf
from harness.uapi.ixgbe_vf import EXPRESS, MSIX
from harness.uapi.pci_regs import Command, Express, ExtendedId, Msix, Register, Sriov

WHOLE = 4096


@pytest.fixture
def port() -> Iterator[Port]:
    with port_of_chip(63) as port:
        yield port


def word(port: Port, offset: int, count: int = 2) -> int:
    return int.from_bytes(port.chip.config.read(offset, count), "little")


def put(port: Port, offset: int, value: int, count: int = 2) -> None:
    port.chip.config.write(offset, value.to_bytes(count, "little"))


def extended(space: bytes) -> dict[int, int]:
    """Return the places of the extended capabilities by their ids."""
    found, at = {}, 0x100
    while at:
        head = int.from_bytes(space[at : at + 4], "little")
        found[head & 0xFFFF] = at
        at = head >> 20
    return found


def test_the_kernel_finds_sriov_where_an_82599_has_it(port: Port) -> None:
    """Small reads show SR-IOV; the read of the whole space, by which QEMU begins, hides it."""
    small = b"".join(port.chip.config.read(at, 4) for at in range(0, WHOLE, 4))
    assert extended(small) == {
        ExtendedId.ERR: ERRORS, ExtendedId.DSN: SERIAL, ExtendedId.ARI: ARI,
        ExtendedId.SRIOV: SRIOV,
    }  # fmt: skip
    whole = port.chip.config.read(0, WHOLE)
    assert set(extended(whole)) == {ExtendedId.ERR, ExtendedId.DSN, ExtendedId.VNDR}
    differ = {at for at in range(WHOLE) if whole[at] != small[at]}
    assert differ <= {ARI, ARI + 1, SRIOV, SRIOV + 1}, "nothing else is hidden"


def test_the_kernel_is_told_what_vfs_there_can_be(port: Port) -> None:
    assert [word(port, SRIOV + at) for at in (Sriov.INITIAL_VF, Sriov.TOTAL_VF)] == [63, 63]
    assert [word(port, SRIOV + at) for at in (Sriov.VF_OFFSET, Sriov.VF_STRIDE)] == [0x80, 2]
    assert word(port, SRIOV + Sriov.VF_DID) == ixgbe_vf.DEVICE
    assert word(port, SRIOV + Sriov.SUP_PGSIZE, 4) & 1


@pytest.mark.parametrize(
    ("offset", "size"),
    [
        (Register.BASE_ADDRESS_0, ixgbe_pf.BAR_BYTES), (Register.BASE_ADDRESS_4, 16 << 10),
        (SRIOV + Sriov.BAR, ixgbe_vf.BAR_BYTES), (SRIOV + Sriov.BAR + 12, ixgbe_vf.BAR_BYTES),
    ],
)  # fmt: skip
def test_bars_say_how_large_they_are(port: Port, offset: int, size: int) -> None:
    """Linux writes all ones, and the bits that stay 0 are the size (__pci_read_base)."""
    put(port, offset, (1 << 64) - 1, 8)
    sized = word(port, offset, 8)
    assert sized & 0xF == 0xC, "64 bits, prefetchable"
    assert -(sized & ~0xF) & (1 << 64) - 1 == size


def test_vfs_are_there_once_enable_and_memory_space_enable_are_set(port: Port) -> None:
    put(port, SRIOV + Sriov.NUM_VF, 4)
    for control, enabled in (
        (Sriov.CTRL_VFE, 0), (Sriov.CTRL_MSE, 0), (Sriov.CTRL_VFE | Sriov.CTRL_MSE, 4), (0, 0),
    ):  # fmt: skip
        put(port, SRIOV + Sriov.CTRL, control)
        assert port.chip.vfs_enabled == enabled
        assert word(port, SRIOV + Sriov.CTRL) == control


def test_more_vfs_than_there_are_cannot_be_enabled(port: Port) -> None:
    put(port, SRIOV + Sriov.NUM_VF, 64)
    put(port, SRIOV + Sriov.CTRL, Sriov.CTRL_VFE | Sriov.CTRL_MSE)
    assert port.chip.vfs_enabled == 63


def test_each_vf_has_its_part_of_the_bars(port: Port) -> None:
    """VF n's BAR is n sizes behind the first VF's (pci_iov_add_virtfn)."""
    put(port, SRIOV + Sriov.BAR, 0x8_0000_0000, 8)
    put(port, SRIOV + Sriov.BAR + 12, 0x8_0100_0000, 8)
    assert port.chip.config.vf_bars(5) == [0x8_0001_4000, 0x8_0101_4000]


def test_the_port_has_64_vectors_and_a_link_of_8_lanes(port: Port) -> None:
    """Ixgbe reads both (ixgbe_get_pcie_msix_count_generic, ixgbe_get_bus_info_generic)."""
    assert word(port, MSIX + Msix.FLAGS) & 0x7FF == ixgbe_pf.VECTORS - 1
    assert word(port, MSIX + Msix.TABLE, 4) == 4
    assert word(port, EXPRESS + Express.LNKSTA) == 0x82
    assert word(port, EXPRESS + Express.DEVCAP, 4) & Express.DEVCAP_FLR
    assert port.chip.regions[4] >= 16 * ixgbe_pf.VECTORS


def test_the_serial_number_is_made_of_the_address(port: Port) -> None:
    assert word(port, SERIAL + 4, 8).to_bytes(8, "big") == (
        PORT_MAC[:3] + b"\xff\xff" + PORT_MAC[3:]
    )


def test_a_reset_asked_for_in_a_longer_write_is_one(port: Port) -> None:
    """Bit 15 of DEVCTL resets the function in whichever write it comes, and reads as 0."""
    put(port, Register.COMMAND, Command.MASTER)
    put(port, EXPRESS + Express.DEVCTL, Express.DEVCTL_BCR_FLR, 4)
    assert word(port, Register.COMMAND) == 0
    assert not word(port, EXPRESS + Express.DEVCTL) & Express.DEVCTL_BCR_FLR


def test_a_vf_shows_its_ids_only_in_the_one_read_of_all(port: Port) -> None:
    """No scan of the bus may find it; and its Memory Enable is not its driver's to clear."""
    config = port.chip.vfs[0].config
    ids = ixgbe_vf.VENDOR | ixgbe_vf.DEVICE << 16
    assert int.from_bytes(config.read(0, WHOLE)[:4], "little") == ids
    for at, count in ((0, 2), (2, 2), (0, 4), (1, 1), (0, 8)):
        assert config.read(at, count)[: 4 - at] == b"\xff" * min(count, 4 - at)
    assert config.read(2, 4) == b"\xff\xff" + config.read(4, 2)
    assert config.read(8, 4) == config.read(0, WHOLE)[8:12]
    config.write(Register.COMMAND, b"\0\0")
    assert config.command == Command.MEMORY


def test_a_vf_of_the_chip_has_erratum_35(port: Port) -> None:
    """The PCI Express capability has zeros; Linux resets the VF all the same."""
    vf = port.chip.vfs[0]
    assert vf.config.read(EXPRESS + 2, 2) == b"\0\0"
    assert vf.config.read(EXPRESS + Express.DEVCAP, 4) == bytes(4)
    vf.config.set_master(True)
    vf.config.write(EXPRESS + Express.DEVCTL, int(Express.DEVCTL_BCR_FLR).to_bytes(2, "little"))
    assert not vf.config.command & Command.MASTER
