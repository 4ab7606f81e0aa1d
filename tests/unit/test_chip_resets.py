"""A reset of a port or a VF takes some things away, leaves others, and is told to somebody.

Ref: Linux, ixgbe_reset_hw_82599, ixgbe_up_complete, ixgbe_vf_reset_event; drivers/pci/iov.c.
"""

from __future__ import annotations

import pytest
from port_driver import PEER_MAC, PORT_MAC, Port, port_of_chip
from vf_of_port import PortVf, mac_of
from vf_rings import frame_of

from harness.chip.configuration import SRIOV
from harness.chip.physical_function import PhysicalFunction
from harness.twin.vf import Vf
from harness.uapi import ixgbe_vf
from harness.uapi.ixgbe_pf import VFLRE, Ctrl, CtrlExt, Eicr, Register, Row
from harness.uapi.ixgbe_vf import EXPRESS, Mailbox, QueueControl, QueueRegister
from harness.uapi.ixgbe_vf import Register as VfRegister
from harness.uapi.pci_regs import Command, Express, Sriov
from harness.uapi.pci_regs import Register as PciRegister

TO_VF = frame_of(100, head=mac_of(0) + PEER_MAC)


def flr(function: PhysicalFunction | Vf) -> None:
    """Reset a function through configuration space, as pcie_flr does it."""
    function.config.write(
        EXPRESS + Express.DEVCTL, int(Express.DEVCTL_BCR_FLR).to_bytes(2, "little")
    )


def vflre(port: Port) -> list[int]:
    return [port.read(offset) for offset in VFLRE]


# --- of the port ----------------------------------------------------------------------------


@pytest.mark.parametrize("bit", [Ctrl.RST, Ctrl.LNK_RST])
def test_a_reset_of_the_port_stops_every_queue_and_clears_every_table(
    port: Port, vf: PortVf, bit: Ctrl
) -> None:
    assert port.chip.switch.passes(memoryview(TO_VF))
    assert vflre(port) == [1, 0]
    port.write(Register.CTRL, bit)
    assert not port.read(Register.CTRL) & (Ctrl.RST | Ctrl.LNK_RST)
    for ring in (port.rx[0], port.tx[0], vf.rx, vf.tx):
        assert not ring.read(QueueRegister.DCTL) & QueueControl.ENABLE
    for row in (Row.VFRE, Row.VFTE, Row.VLVF, Row.VFTA, Row.VMOLR):
        assert [port.read(row.at(index)) for index in range(row.count)] == [0] * row.count
    assert port.read(Register.VT_CTL) == port.read(Register.EIMS) == 0
    assert not port.chip.switch.passes(memoryview(TO_VF))
    assert vflre(port) == [0, 0], "a VF's reset that nobody has looked at yet"


def test_the_ports_address_is_back_after_each_reset(port: Port) -> None:
    """ixgbe_get_mac_addr_generic reads it from there as the permanent one."""
    port.set_rar(0, mac_of(9), 0)
    port.write(Register.CTRL, Ctrl.RST)
    low, high = port.read(Row.RAL.at(0)), port.read(Row.RAH.at(0))
    assert low.to_bytes(4, "little") + (high & 0xFFFF).to_bytes(2, "little") == PORT_MAC
    assert high >> 31


def test_vfs_see_the_port_in_reset_until_its_driver_is_up(port: Port, vf: PortVf) -> None:
    """A VF reads RSTI, and RSTD once PFRSTD is written; RSTD is cleared by being read."""
    port.write(Register.CTRL, Ctrl.RST)
    assert [vf.function.read(VfRegister.VFMAILBOX) for _ in range(2)] == [Mailbox.RSTI] * 2
    port.write(Register.CTRL_EXT, CtrlExt.PFRSTD)
    assert not port.read(Register.CTRL_EXT) & CtrlExt.PFRSTD
    assert [vf.function.read(VfRegister.VFMAILBOX) for _ in range(2)] == [Mailbox.RSTD, 0]
    port.write(Register.CTRL_EXT, CtrlExt.PFRSTD)
    assert vf.function.read(VfRegister.VFMAILBOX) == 0, "it was not in reset any more"


def test_vfs_stay_where_they_are_over_a_reset_of_the_port(port: Port, vf: PortVf) -> None:
    """CTRL.RST leaves the PCI functions: VFs, their COMMAND and what they are lent."""
    port.reset_hw()
    assert port.chip.vfs_enabled == 4
    assert vf.function.config.command & Command.MASTER
    port.configure(1)
    port.up_complete(1)
    vf.start()
    port.hear(TO_VF)
    assert vf.got() == [TO_VF]


def test_the_queue_split_of_a_vf_is_gone_with_a_reset_of_the_port(port: Port, vf: PortVf) -> None:
    vf.function.write(VfRegister.VFPSRTYPE, 1 << 29)
    port.write(Register.CTRL, Ctrl.RST)
    assert vf.function.read(VfRegister.VFPSRTYPE) == 0


def test_stopping_the_adapter_stops_the_vfs_queues_too(port: Port, vf: PortVf) -> None:
    """ixgbe_stop_adapter_generic writes all 128 queues, whoever owns one."""
    port.stop_adapter()
    assert not vf.rx.read(QueueRegister.DCTL) & QueueControl.ENABLE
    vf.tx.send(frame_of(100, head=PEER_MAC + mac_of(0)))
    assert port.sent == []


def test_a_function_level_reset_of_the_port_ends_its_vfs(port: Port, vf: PortVf) -> None:
    """The reset turns SR-IOV and BME off; pci_restore_iov_state brings the VFs back."""
    flr(port.chip)
    assert port.chip.vfs_enabled == 0
    assert (port.chip.config.command, vf.function.config.command) == (0, Command.MEMORY)
    assert [port.chip.config.word(SRIOV + at) for at in (Sriov.NUM_VF, Sriov.CTRL)] == [0, 0]
    assert vf.rx.read(QueueRegister.DCTL) == 0
    assert vflre(port) == [0, 0]
    port.enable_vfs(4)
    port.start(vfs=4)
    vf.start()
    port.hear(TO_VF)
    assert vf.got() == [TO_VF]


def test_the_link_trains_anew_after_a_link_reset_only(port: Port) -> None:
    port.write(Register.CTRL, Ctrl.RST)
    assert port.chip.link.is_up
    port.write(Register.CTRL, Ctrl.LNK_RST)
    assert not port.chip.link.is_up


# --- of a VF --------------------------------------------------------------------------------


def test_a_vf_that_is_reset_is_told_to_the_port(port: Port, vf: PortVf) -> None:
    """The port gets VFLRE and the mailbox's interrupt; VFLREC clears VFLRE."""
    port.write(Register.EICR, Eicr.MAILBOX)
    port.write(Row.VFLREC.at(0), 1)
    flr(vf.function)
    assert vflre(port) == [1, 0]
    assert port.read(Register.EICS) & Eicr.MAILBOX
    port.write(Row.VFLREC.at(0), 1)
    assert vflre(port) == [0, 0]


def test_vf_40_is_in_the_second_register() -> None:
    with port_of_chip(63) as port:
        port.start(vfs=63)
        flr(port.chip.vfs[40])
        assert vflre(port) == [0, 1 << 8]


def test_a_vf_that_is_reset_neither_receives_nor_sends_until_it_starts_anew(
    port: Port, vf: PortVf
) -> None:
    """The reset clears the VF's own bits of VFRE and VFTE; its filter stays."""
    flr(vf.function)
    assert [port.read(row.at(0)) & 0xF1 for row in (Row.VFRE, Row.VFTE)] == [0xF0, 0xF0]
    assert port.read(Row.RAH.at(1)) >> 31, "its address stands until the driver takes it out"
    port.hear(TO_VF)
    assert port.chip.statistics.drops == {"pool": 1}
    vf.start()
    port.hear(TO_VF)
    assert vf.got() == [TO_VF]


def test_a_reset_by_the_vfs_own_register_leaves_its_configuration(port: Port, vf: PortVf) -> None:
    """The port learns of VFCTRL.RST as well; Bus Master Enable stays, since it is PCI's."""
    port.write(Row.VFLREC.at(0), 1)
    vf.function.write(VfRegister.VFCTRL, ixgbe_vf.VfControl.RST)
    assert vflre(port) == [1, 0]
    assert vf.function.config.command & Command.MASTER


def test_a_function_level_reset_takes_the_vf_off_the_bus(vf: PortVf) -> None:
    flr(vf.function)
    assert vf.function.config.command == Command.MEMORY
    vf.function.config.write(PciRegister.COMMAND, b"\0\0")
    assert vf.function.config.command == Command.MEMORY, "its port governs Memory Enable"


def test_a_function_level_reset_of_a_vf_leaves_all_but_its_rings(vf: PortVf) -> None:
    """82599 specification update, software clarification 5; see ``harness.twin.queue``."""
    function = vf.function
    function.write(VfRegister.VFPSRTYPE, 1 << 29)
    vf.rx.write(QueueRegister.DCA, 0x200)
    vf.tx.write(QueueRegister.DCA, 0x200)
    vf.tx.write(QueueRegister.WBAL, 0x1000)
    queues = (vf.rx, vf.tx)
    before = [{each: queue.read(each) for each in QueueRegister} for queue in queues]
    flr(function)
    lost = dict.fromkeys((QueueRegister.BAL, QueueRegister.BAH, QueueRegister.LEN), 0)
    after = [{each: queue.read(each) for each in QueueRegister} for queue in queues]
    assert after == [each | lost for each in before]
    assert all(each[QueueRegister.LEN] for each in before)
    assert function.read(VfRegister.VFPSRTYPE) == 1 << 29


def test_vfs_that_are_disabled_are_gone_and_nobody_is_told(port: Port, vf: PortVf) -> None:
    vf.function.write(VfRegister.VFMAILBOX, Mailbox.REQ)
    port.write(Row.VFLREC.at(0), 0xF)
    port.write(Register.EICR, Eicr.MAILBOX)
    port.enable_vfs(0)
    assert (vflre(port), port.read(Row.MBVFICR.at(0))) == ([0, 0], 0)
    assert not port.read(Register.EICS) & Eicr.MAILBOX
    assert vf.rx.read(QueueRegister.DCTL) == 0


def test_a_vf_that_is_not_enabled_tells_nothing_when_it_is_reset() -> None:
    """QEMU resets every function as the machine starts, those that nobody enabled too."""
    with port_of_chip() as port:
        port.start()
        for vf in port.chip.vfs:
            vf.reset()
        assert vflre(port) == [0, 0]
