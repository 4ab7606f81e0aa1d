"""The port's driver reads its counters, and each read clears one.

Ref: Linux, ixgbe_update_stats, ixgbe_clear_hw_cntrs_generic, ixgbe_ndo_get_vf_stats.
"""

from __future__ import annotations

import pytest
from port_driver import PEER_MAC, PORT_MAC, Port, port_of_chip
from vf_of_port import PortVf, mac_of
from vf_rings import frame_of

from harness.uapi.ixgbe_pf import QDE_ENABLE, QDE_WRITE, SRRCTL_DROP_EN, Register, Row
from harness.uapi.ixgbe_vf import QueueRegister
from harness.uapi.ixgbe_vf import Register as VfRegister

BROADCAST, GROUP = b"\xff" * 6, bytes.fromhex("01005e000102")
QPRC, QPTC, QBRC_L, QBRC_H, QPRDC = 0x1030, 0x6030, 0x1034, 0x1038, 0x1430
PVFGPRC, PVFGORC_LSB, PVFGORC_MSB, PVFMPRC = 0x101C, 0x1020, 0xD020, 0xD01C


def frame(to: bytes, source: bytes = PEER_MAC, size: int = 100) -> bytes:
    return frame_of(size, head=to + source)


def counts(port: Port, *registers: int) -> list[int]:
    return [port.read(register) for register in registers]


def test_received_frames_are_counted_by_kind_and_size(port: Port) -> None:
    """60 bytes are a frame of 64, whose checksum is stripped before GORC counts (DPDK)."""
    port.set_multicast(GROUP)
    port.hear(frame(PORT_MAC, size=60), frame(BROADCAST, size=124), frame(GROUP, size=1514))
    wanted = [3, 1, 1, 60 + 124 + 1514, 0, 3]
    registers = (
        Register.GPRC, Register.BPRC, Register.MPRC, Register.GORCL, Register.GORCH, Register.TPR,
    )  # fmt: skip
    assert counts(port, *registers) == wanted
    assert counts(port, *registers) == [0] * 6, "each is cleared by being read"
    sizes = (Register.PRC64, Register.PRC127, Register.PRC255, Register.PRC1522)
    assert counts(port, *sizes) == [1, 0, 1, 1]


@pytest.mark.parametrize(
    ("size", "at"), [(60, 0), (61, 1), (123, 1), (124, 2), (252, 3), (508, 4), (1019, 4), (1020, 5)]
)
def test_each_size_has_its_counter(port: Port, size: int, at: int) -> None:
    """A counter begins at 64, 65, 128, 256, 512 and 1024 bytes, both ways."""
    port.hear(frame(PORT_MAC, size=size))
    port.tx[0].send(frame(PEER_MAC, PORT_MAC, size))
    for first in (Register.PRC64, Register.PTC64):
        assert counts(port, *range(first, first + 24, 4)) == [int(at == n) for n in range(6)]


def test_sent_frames_are_counted_where_the_wire_got_them(port: Port, vf: PortVf) -> None:
    """The MAC counts a VF's frames as well, and none that stays between pools."""
    port.tx[0].send(frame(BROADCAST, PORT_MAC))
    vf.tx.send(frame(GROUP, mac_of(0)))
    vf.tx.send(frame(PORT_MAC, mac_of(0)))
    registers = (
        Register.GPTC, Register.BPTC, Register.MPTC, Register.GOTCL, Register.GOTCH, Register.TPT,
    )  # fmt: skip
    assert counts(port, *registers) == [2, 1, 1, 208, 0, 2]
    assert counts(port, *registers) == [0] * 6


def test_bytes_stay_until_the_upper_half_is_read(port: Port) -> None:
    """The driver reads GORCL, and then GORCH "to clear"."""
    port.chip.statistics._counts[Register.GORCL] = 0x3_0000_0010
    assert counts(port, Register.GORCL, Register.GORCL) == [0x10, 0x10]
    assert counts(port, Register.GORCH, Register.GORCH, Register.GORCL) == [3, 0, 0]


def test_what_is_filtered_is_not_counted_as_received(port: Port) -> None:
    port.hear(frame(mac_of(9)))
    assert counts(port, Register.GPRC, Register.TPR) == [0, 0]


def test_frames_of_port_and_vf_are_counted_as_they_leave_memory(port: Port, vf: PortVf) -> None:
    """TXDGPC grows for a frame that stays in the switch, too; ixgbe_check_for_bad_vf."""
    port.tx[0].send(frame(BROADCAST, PORT_MAC))
    vf.tx.send(frame(PORT_MAC, mac_of(0)))
    assert counts(port, Register.TXDGPC, Register.TXDGPC) == [2, 0]


# --- queues ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("vf")
def test_all_queues_count_in_the_first_counter_until_told_otherwise(port: Port) -> None:
    port.hear(frame(PORT_MAC), frame(mac_of(0)))
    port.tx[0].send(frame(PEER_MAC, PORT_MAC))
    assert counts(port, QPRC, QPRC, QPTC, QPTC) == [2, 0, 1, 0]
    assert counts(port, QBRC_L, QBRC_L, QBRC_H, QBRC_L) == [200, 200, 0, 0]
    assert counts(port, Row.QBTC_L.at(0), Row.QBTC_H.at(0), Row.QBTC_L.at(0)) == [104, 0, 0]


@pytest.mark.usefixtures("vf")
def test_rqsmr_and_tqsm_give_a_queue_its_counter(port: Port) -> None:
    """Queue 16 is the port's first one behind 4 VFs of 4 queues; queue 1 is VF 0's second."""
    assert counts(port, QPRC, QPTC) == [0, 0]
    port.write(Row.RQSMR.at(4), 5)
    port.write(Row.TQSM.at(4), 7)
    port.hear(frame(PORT_MAC), frame(mac_of(0)))
    port.tx[0].send(frame(PEER_MAC, PORT_MAC))
    assert counts(port, QPRC, QPRC + 5 * 0x40, QPTC, QPTC + 7 * 0x40) == [1, 1, 0, 1]
    assert port.read(Row.QBTC_L.at(7)) == 104
    port.reset_hw()
    assert port.read(Row.QBTC_L.at(7)) == 0, "no queue counts there any more"


def test_a_frame_without_a_descriptor_is_missed(port: Port) -> None:
    """MPC counts the frame, and so does GPRC, from which ixgbe takes MPC off."""
    port.hear(*[frame(PORT_MAC)] * 18)
    assert counts(port, Row.MPC.at(0), Row.MPC.at(0), QPRDC, Register.GPRC) == [3, 0, 0, 18]


def test_a_queue_with_drop_enable_drops_it(port: Port) -> None:
    """Ixgbe sets SRRCTL.DROP_EN where there are VFs, and calls QPRDC rx_no_dma_resources."""
    control = port.rx[0].read(QueueRegister.SRRCTL)
    port.rx[0].write(QueueRegister.SRRCTL, control | SRRCTL_DROP_EN)
    port.hear(*[frame(PORT_MAC)] * 18)
    assert counts(port, QPRDC, QPRDC, Row.MPC.at(0)) == [3, 0, 0]


@pytest.mark.usefixtures("vf")
def test_qde_has_a_vfs_queue_drop(port: Port) -> None:
    """The port's driver writes QDE at each reset of a VF (ixgbe_write_qde)."""
    port.write(Register.QDE, QDE_WRITE | QDE_ENABLE | 0 << 8)
    port.hear(*[frame(mac_of(0))] * 17)
    assert counts(port, QPRDC, Row.MPC.at(0)) == [2, 0]
    port.write(Register.QDE, QDE_WRITE | 0 << 8)
    port.hear(frame(mac_of(0)))
    assert counts(port, QPRDC, Row.MPC.at(0)) == [0, 1]


def test_a_reset_of_the_port_forgets_what_qde_said() -> None:
    with port_of_chip() as port:
        port.start()
        port.write(Register.QDE, QDE_WRITE | QDE_ENABLE)
        port.start()
        port.hear(*[frame(PORT_MAC)] * 16)
        assert counts(port, QPRDC, Row.MPC.at(0)) == [0, 1]


# --- VFs ------------------------------------------------------------------------------------


def test_the_port_reads_the_counters_of_a_vf(port: Port, vf: PortVf) -> None:
    """`ip -s link` shows these counters of a VF; reading clears none of them."""
    port.hear(frame(mac_of(0)), frame(BROADCAST))
    vf.tx.send(frame(PEER_MAC, mac_of(0)))
    for _ in range(2):
        assert counts(port, PVFGPRC, PVFGORC_LSB, PVFGORC_MSB, PVFMPRC) == [2, 208, 0, 1]
        sent = Row.PVFGPTC.at(0), Row.PVFGOTC_LSB.at(0), Row.PVFGOTC_MSB.at(0)
        assert counts(port, *sent) == [1, 104, 0]
    assert vf.function.read(VfRegister.VFGPRC) == 2
    assert counts(port, PVFGPRC + 0x40, Row.PVFGPTC.at(1)) == [0, 0], "another VF's"


def test_bytes_of_a_vf_have_36_bits(port: Port, vf: PortVf) -> None:
    vf.function.statistics.received_bytes = 0xF_1234_5678
    vf.function.statistics.sent_bytes = 0x1F_0000_0001
    assert counts(port, PVFGORC_LSB, PVFGORC_MSB) == [0x12345678, 0xF]
    assert counts(port, Row.PVFGOTC_LSB.at(0), Row.PVFGOTC_MSB.at(0)) == [1, 0xF]


def test_a_counter_of_a_vf_that_is_not_there_reads_as_nothing(port: Port) -> None:
    assert counts(port, PVFGPRC + 63 * 0x40, Row.PVFGPTC.at(63)) == [0, 0]
