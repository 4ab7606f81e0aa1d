"""Configuration space byte by byte: what is in it, what of it can be written, and what that does.

Offsets are those of <linux/pci_regs.h>; test_twin_access.py has what a guest makes of them.
"""

from __future__ import annotations

import pytest
from vfio_client import Client, Twin, first_client, served_twin

from harness.twin.capability import Capability
from harness.twin.config_bytes import BYTES
from harness.twin.config_space import ConfigSpace
from harness.uapi.ixgbe_vf import EXPRESS, MSIX, VfControl
from harness.uapi.ixgbe_vf import Register as Bar
from harness.uapi.pci_regs import Command, Express, Msix, Register
from harness.uapi.vfio import PciRegion

twin, client = pytest.fixture(served_twin), pytest.fixture(first_client)

CONTENT = {
    0x00: 0x10ED8086,  # an 82599's VF
    0x04: 0x00100000,  # STATUS: there are capabilities
    0x08: 0x02000001,  # an Ethernet controller, revision 1 (B0)
    0x10: 0x00000004,  # BAR 0 and 1: one of 64 bits
    0x1C: 0x00000004,  # BAR 3 and 4
    0x2C: 0x00008086,
    0x34: 0x00000070,
    0x70: 0x0002A011,  # MSI-X, the next one at 0xA0, three vectors
    0x74: 0x00000003,  # its table is in BAR 3
    0x78: 0x00002003,
}
EXPRESS_CONTENT = {
    0xA0: 0x00020010,  # version 2, an endpoint, and the last one
    0xA4: 0x10000000,  # function level reset
    0xAC: 0x00000082,  # LNKCAP: eight lanes of 5 GT/s
    0xB0: 0x00820000,  # LNKSTA: all of them
}
WRITABLE = {
    0x04: 0x46,
    0x05: 0x05,  # MEMORY, MASTER, PARITY; SERR, INTX_DISABLE
    0x11: 0xC0,
    **dict.fromkeys(range(0x12, 0x18), 0xFF),  # 16 KiB
    0x1D: 0xC0,
    **dict.fromkeys(range(0x1E, 0x24), 0xFF),
    0x73: 0xC0,  # MSI-X: enable, mask all
    0xA8: 0xFF,  # DEVCTL: what error reporting there is
}
RESET = Express.DEVCTL_BCR_FLR >> 8


def put(config: ConfigSpace, offset: int, value: int, count: int) -> None:
    config.write(offset, value.to_bytes(count, "little"))


def got(config: ConfigSpace, offset: int, count: int) -> int:
    return int.from_bytes(config.read(offset, count), "little")


# --- content --------------------------------------------------------------------------------


@pytest.mark.parametrize("erratum_35", [False, True])
def test_what_is_in_it_and_that_nothing_else_is(erratum_35: bool) -> None:
    """82599 specification update, erratum 35: zeros in DevCap, LinkCap, DevCap2 and version.

    Only the capability's id is left, by which it is found.
    """
    config = ConfigSpace(erratum_35=erratum_35)
    words = {at: got(config, at, 4) for at in range(0, BYTES, 4)}
    express = {0xA0: 0x00000010} if erratum_35 else EXPRESS_CONTENT
    assert {at: word for at, word in words.items() if word} == {**CONTENT, **express}


@pytest.mark.parametrize("erratum_35", [False, True])
def test_what_can_be_written_and_that_nothing_else_can(erratum_35: bool) -> None:
    """Bit by bit: a reserved one that stays set is a device that no driver has seen."""
    config = ConfigSpace(erratum_35=erratum_35)
    changed = {}
    for at in range(BYTES):
        put(config, at, 0xFF, 1)
        ones = got(config, at, 1)
        put(config, at, 0, 1)
        if bits := ones ^ got(config, at, 1):
            changed[at] = bits
    assert changed == WRITABLE


def test_a_write_changes_no_byte_beside_it() -> None:
    config = ConfigSpace()
    before = config.read(0, BYTES)
    put(config, 0x12, 0xFFFFFFFF, 4)
    assert config.read(0, BYTES) == before[:0x12] + b"\xff" * 4 + before[0x16:]


@pytest.mark.parametrize("bar", [Register.BASE_ADDRESS_0, Register.BASE_ADDRESS_3])
def test_a_bar_is_sized_by_its_halves(bar: int) -> None:
    """__pci_read_base writes ones to each half by itself, and puts the old ones back."""
    config = ConfigSpace()
    put(config, bar, 0xFE000000, 4)
    put(config, bar, 0xFFFFFFFF, 4)
    assert (got(config, bar, 4), got(config, bar + 4, 4)) == (0xFFFFC004, 0)
    put(config, bar + 4, 0xFFFFFFFF, 4)
    assert got(config, bar + 4, 4) == 0xFFFFFFFF
    put(config, bar, 0xFE000000, 4)
    assert got(config, bar, 8) == 0xFFFFFFFF_FE000004


# --- COMMAND --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "data", "told"),
    [
        (0x04, b"\x06\x04", [0x0406]),
        (0x04, b"\xff\xff", [0x0546]),
        (0x04, b"\x04", [0x0004]),
        (0x05, b"\x04", [0x0400]),
        (0x03, b"\x00\x04", [0x0004]),
        (0x00, bytes(4) + b"\x06\x04\xff\xff", [0x0406]),
        (0x00, b"\xff" * 4, []),
        (0x06, b"\xff\xff", []),
        (0x08, b"\x04", []),
    ],
)
def test_command_is_told_whenever_it_is_written(offset: int, data: bytes, told: list[int]) -> None:
    """In one access with others or in part: an observer of BME must not miss one."""
    commanded: list[int] = []
    config = ConfigSpace(commanded=commanded.append)
    config.write(offset, data)
    assert (commanded, config.command) == (told, sum(told))
    assert config.masters_bus == bool(sum(told) & Command.MASTER)


def test_a_host_takes_bus_mastering_away_and_nothing_else() -> None:
    """VFIO's own write: MEMORY and INTX_DISABLE stay as the guest has them."""
    commanded: list[int] = []
    config = ConfigSpace(commanded=commanded.append)
    put(config, Register.COMMAND, 0x0546, 2)
    config.set_master(False)
    assert (config.command, config.masters_bus, commanded) == (0x0542, False, [0x0546, 0x0542])


# --- described registers --------------------------------------------------------------------

CONTROL = Capability("msix", MSIX + Msix.FLAGS, 2)
INVENTED = Capability("migration", 0x44, 3, id=0x14, at=0x40, writable=((0x44, 1), (0x46, 1)))
OTHER = Capability("other", 0x52, 2, id=0x09, at=0x50, writable=((0x52, 2),))


def described(*capabilities: Capability) -> tuple[ConfigSpace, list[tuple[str, bytes]]]:
    """Configuration space, and what is told of the registers of *capabilities*."""
    told: list[tuple[str, bytes]] = []
    changed = lambda name, now: told.append((name, now))  # noqa: E731
    return ConfigSpace(capabilities=capabilities, changed=changed), told


def test_a_register_of_its_own_is_told_when_it_becomes_another() -> None:
    """The driver writes Message Control several times with what is there: that is no change."""
    config, told = described(CONTROL)
    put(config, MSIX + Msix.FLAGS, 0x8002, 2)
    put(config, MSIX + Msix.FLAGS, 0x8002, 2)
    put(config, MSIX + Msix.FLAGS, 0x0FFD, 2)
    assert told == [("msix", b"\x02\x80"), ("msix", b"\x02\x00")]
    assert config.registers == {"msix": b"\x02\x00"}


def test_a_reset_is_such_a_change_too() -> None:
    config, told = described(CONTROL, INVENTED)
    put(config, MSIX + Msix.FLAGS, 0x8002, 2)
    put(config, 0x46, 1, 1)
    told.clear()
    config.clear()
    assert told == [("msix", b"\x02\x00"), ("migration", b"\0\0\0")]


def test_a_described_command_register_is_told_when_the_host_clears_it() -> None:
    config, told = described(Capability("header", Register.COMMAND, 2))
    put(config, Register.COMMAND, 0x0406, 2)
    config.set_master(False)
    assert told == [("header", b"\x06\x04"), ("header", b"\x02\x04")]


def test_an_invented_capability_is_found_by_the_list_and_can_be_written() -> None:
    """At its end, each after the one before: a driver walks it by the links.  The rest stays."""
    config, told = described(CONTROL, INVENTED, OTHER)
    found, at = {}, got(config, Register.CAPABILITY_LIST, 1)
    while at:
        found[at] = got(config, at, 1)
        at = got(config, at + 1, 1)
    assert list(found.items()) == [(0x70, 0x11), (0xA0, 0x10), (0x40, 0x14), (0x50, 0x09)]
    config.write(0x40, b"\xff" * 8)
    assert config.read(0x40, 8) == b"\x14\x50\0\0\xff\0\xff\0"
    assert told == [("migration", b"\xff\0\xff")]
    assert got(config, 0x70, 4) == CONTENT[0x70]


# --- resets ---------------------------------------------------------------------------------


@pytest.mark.parametrize("erratum_35", [False, True])
@pytest.mark.parametrize(
    ("offset", "data", "asked"),
    [
        (EXPRESS + Express.DEVCTL + 1, bytes([RESET]), True),
        (EXPRESS + Express.DEVCTL, bytes([0, RESET]), True),
        (EXPRESS + Express.DEVCTL - 2, bytes([0, 0, 0, RESET]), True),
        (EXPRESS + Express.DEVCTL, bytes([0xFF, 0xFF & ~RESET]), False),
        (EXPRESS + Express.DEVCTL, bytes([RESET]), False),
        (EXPRESS + Express.DEVCTL + 2, bytes([RESET, RESET]), False),
    ],
)
def test_a_reset_is_asked_for_by_one_bit(
    offset: int, data: bytes, asked: bool, erratum_35: bool
) -> None:
    """vfio_exp_config_write: where DEVCAP has no FLR the bit is dropped, and no reset comes."""
    resets: list[str] = []
    config = ConfigSpace(erratum_35=erratum_35, reset=lambda: resets.append("reset"))
    config.write(offset, data)
    assert resets == (["reset"] if asked and not erratum_35 else [])
    assert got(config, EXPRESS + Express.DEVCTL + 1, 1) == 0


def test_a_reset_takes_the_switches_back_and_leaves_the_addresses() -> None:
    """pci_restore_state puts BARs back, so a guest finds its registers where they were."""
    commanded: list[int] = []
    config = ConfigSpace(commanded=commanded.append)
    put(config, Register.BASE_ADDRESS_0, 0xFE000000, 4)
    put(config, Register.COMMAND, 0x0406, 2)
    put(config, MSIX + Msix.FLAGS, Msix.FLAGS_ENABLE | Msix.FLAGS_MASKALL, 2)
    config.clear()
    assert (config.command, commanded) == (0, [0x0406, 0])
    assert got(config, MSIX + Msix.FLAGS, 2) == 2
    assert got(config, Register.BASE_ADDRESS_0, 4) == 0xFE000004


@pytest.mark.parametrize("value", [int(VfControl.RST), 0xFFFFFFFF & ~VfControl.RST])
def test_a_drivers_own_reset_leaves_configuration_space_alone(
    twin: Twin, client: Client, value: int
) -> None:
    """VFCTRL.RST is the registers' alone; with it BME would fall, and every DMA after it stop."""
    config = PciRegion.CONFIG
    client.write(config, Register.COMMAND, Command.MASTER, 2)
    client.write(config, MSIX + Msix.FLAGS, Msix.FLAGS_ENABLE, 2)
    client.write(PciRegion.BAR0, Bar.VTEIMS, 1)
    client.write(PciRegion.BAR0, Bar.VFCTRL, value)
    assert client.read(PciRegion.BAR0, Bar.VTEIMS) == (0 if value & VfControl.RST else 1)
    assert client.read(config, MSIX + Msix.FLAGS, 2) & Msix.FLAGS_ENABLE
    assert twin.commanded == [Command.MASTER]
