"""Frames pass a port of the chip with VFs: from the wire, to the wire, and between pools."""

from __future__ import annotations

from port_driver import PEER_MAC, PORT_MAC, Port, port_of_chip
from vf_of_port import PortVf, mac_of, vf_of
from vf_rings import frame_of

from harness.uapi.ixgbe_pf import HLREG0_LPBK, Register

BROADCAST = b"\xff" * 6


def frame(to: bytes, source: bytes = PEER_MAC, size: int = 100, number: int = 0) -> bytes:
    return frame_of(size, number, head=to + source)


def got(port: Port) -> list[bytes]:
    return [each.data for ring in port.rx for each in ring.took()]


def test_a_port_without_vfs_sends_and_receives() -> None:
    """Queue 0 is the port's first where there are no pools."""
    with port_of_chip() as port:
        port.start()
        port.hear(frame(PORT_MAC))
        port.tx[0].send(frame(PEER_MAC, PORT_MAC))
        assert (got(port), port.sent) == ([frame(PORT_MAC)], [frame(PEER_MAC, PORT_MAC)])


def test_in_loopback_a_port_hears_itself_alone() -> None:
    """The driver's test stops counting at a frame of another's; ixgbe_clean_test_rings."""
    with port_of_chip() as port:
        port.start()
        port.set_bits(Register.HLREG0, HLREG0_LPBK)
        port.hear(frame(PORT_MAC, number=1))
        port.tx[0].send(frame(BROADCAST, PORT_MAC))
        port.hear(frame(PORT_MAC, number=2))
        assert (got(port), port.sent) == ([frame(BROADCAST, PORT_MAC)], [])
        assert port.chip.statistics.drops == {"loopback": 2}
        port.set_bits(Register.HLREG0, HLREG0_LPBK, on=False)
        port.hear(frame(PORT_MAC, number=3))
        assert got(port) == [frame(PORT_MAC, number=3)]


def test_a_frame_from_the_wire_goes_to_whom_it_is_for(port: Port, vfs: list[PortVf]) -> None:
    port.hear(frame(PORT_MAC), frame(mac_of(0)), frame(mac_of(1)), frame(mac_of(9)))
    assert got(port) == [frame(PORT_MAC)]
    assert [vf.got() for vf in vfs] == [[frame(mac_of(0))], [frame(mac_of(1))]]


def test_a_vf_sends_to_the_wire(port: Port, vfs: list[PortVf]) -> None:
    """A frame that is for no other pool leaves, and nobody on the port sees it."""
    vfs[0].tx.send(frame(PEER_MAC, mac_of(0)))
    assert port.sent == [frame(PEER_MAC, mac_of(0))]
    assert (got(port), vfs[1].got()) == ([], [])


def test_a_frame_between_two_vfs_stays_in_the_port(port: Port, vfs: list[PortVf]) -> None:
    """The switch keeps a frame from the wire if it knows the address (VEB)."""
    vfs[0].tx.send(frame(mac_of(1), mac_of(0)))
    assert (vfs[1].got(), port.sent) == ([frame(mac_of(1), mac_of(0))], [])


def test_port_and_vf_reach_each_other(port: Port, vfs: list[PortVf]) -> None:
    port.tx[0].send(frame(mac_of(0), PORT_MAC))
    vfs[0].tx.send(frame(PORT_MAC, mac_of(0)))
    port.turn()
    assert vfs[0].got() == [frame(mac_of(0), PORT_MAC)]
    assert (got(port), port.sent) == ([frame(PORT_MAC, mac_of(0))], [])


def test_a_broadcast_of_a_vf_goes_to_all_but_itself(port: Port, vfs: list[PortVf]) -> None:
    vfs[0].tx.send(frame(BROADCAST, mac_of(0)))
    port.turn()
    whole = [frame(BROADCAST, mac_of(0))]
    assert (vfs[0].got(), vfs[1].got(), got(port), port.sent) == ([], whole, whole, whole)


def test_without_loopback_every_frame_of_a_vf_goes_to_the_wire(
    port: Port, vfs: list[PortVf]
) -> None:
    """The switch outside sends such a frame back (VEPA; PFDTXGSWC is clear)."""
    port.write(Register.PFDTXGSWC, 0)
    vfs[0].tx.send(frame(mac_of(1), mac_of(0)))
    assert (vfs[1].got(), port.sent) == ([], [frame(mac_of(1), mac_of(0))])


def test_a_vf_of_a_port_that_does_not_transmit_sends_nothing(port: Port, vfs: list[PortVf]) -> None:
    """DMATXCTL.TE stops all queues, whoever owns them; ixgbe_disable_tx clears it."""
    port.write(Register.DMATXCTL, 0)
    vfs[0].tx.send(frame(PEER_MAC, mac_of(0)))
    port.tx[0].send(frame(PEER_MAC, PORT_MAC))
    assert port.sent == []


def test_a_port_that_does_not_receive_gives_nothing_to_a_pool(
    port: Port, vfs: list[PortVf]
) -> None:
    """RXCTRL.RXEN stops frames from the wire, from another pool, and in MAC loopback."""
    port.write(Register.RXCTRL, 0)
    port.hear(frame(mac_of(1)))
    vfs[0].tx.send(frame(mac_of(1), mac_of(0)))
    port.write(Register.HLREG0, HLREG0_LPBK)
    vfs[0].tx.send(frame(BROADCAST, mac_of(0)))
    assert (vfs[1].got(), got(port), port.sent) == ([], [], [])


def test_a_vf_in_every_queue_mode_has_queues_of_its_own() -> None:
    """Each pool has 2 queues with 40 VFs, and the port's own are behind those of the VFs."""
    with port_of_chip(63) as port:
        port.start(vfs=40, queues=2)
        with vf_of(port, 39) as vf:
            port.hear(frame(mac_of(39)), frame(PORT_MAC))
            vf.tx.send(frame(PORT_MAC, mac_of(39)))
            port.turn()
            assert vf.got() == [frame(mac_of(39))]
        assert got(port) == [frame(PORT_MAC), frame(PORT_MAC, mac_of(39))]


def test_a_frame_of_9014_bytes_passes_every_way_of_a_jumbo_port() -> None:
    with port_of_chip() as port:
        port.start(vfs=4, mtu=9000)
        with vf_of(port, 0) as vf, vf_of(port, 1) as other:
            jumbo = [frame(to, source, 9014) for to, source in (
                (mac_of(0), PEER_MAC), (PEER_MAC, mac_of(0)), (mac_of(1), mac_of(0)),
            )]  # fmt: skip
            port.hear(jumbo[0])
            vf.tx.send(*(jumbo[1][at : at + 4096] for at in range(0, 9014, 4096)))
            vf.tx.send(*(jumbo[2][at : at + 4096] for at in range(0, 9014, 4096)))
            assert (vf.got(), port.sent, other.got()) == ([jumbo[0]], [jumbo[1]], [jumbo[2]])
