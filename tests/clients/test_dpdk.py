"""DPDK's testpmd, Debian's own, on the port and on a VF of a software 82599.

Nobody here wrote DPDK for this chip: where the two do not understand each other, the chip is wrong
until it is proven right.  Each test starts testpmd anew, so all but the first are further users of
their function.
"""

from __future__ import annotations

import re

import pytest

from clients.frames import (
    OURS,
    THERE,
    Talk,
    asked_for,
    damaged,
    echo_of,
    question,
    require,
    spread_hash,
    tagged,
    untagged,
)
from clients.machine import PORT, VF, Boot, ClientMachine
from clients.testpmd import CHECKSUMS, JUMBO, SEGMENTS, Pmd, forwarding

STANDARD = (60, 61, 64, 65, 127, 128, 129, 255, 256, 511, 512, 1023, 1024, 1280, 1513, 1514)
LARGE = (1515, 1518, 2047, 2048, 2049, 4000, 4096, 6000, 8191, 8192, 8999, 9000, 9013, 9014)
"""Frames without their checksums: 64 bytes on the wire, and an MTU of 9000, at the ends."""

KEY = bytes(range(0x11, 0x11 + 40))
SEGMENT_BYTES = 800
IP_SUM, UDP_SUM, TCP_SUM = 24, 40, 50
"""Where checksums are in a frame."""


def echo(machine: ClientMachine, pmd: Pmd, sizes: tuple[int, ...], when: str) -> None:
    """Have a frame of each size come back with its addresses exchanged, and no other frame."""
    talk = Talk(pmd.mac)
    for size in sizes:
        frame = talk.datagram(size)
        require(machine.wire.exchange(frame), [echo_of(frame)], f"echo of {size} bytes {when}")
    require(machine.wire.take(within=0.2), [], f"nothing after the last echo {when}")


def answers(machine: ClientMachine, address: str, when: str) -> None:
    """Have the kernel answer on a function: once by ARP, and 20 pings of 1400 bytes."""
    name = machine.interface(address)
    machine.run(f"ip address replace {THERE}/24 dev {name}")
    mac = machine.run(f"cat /sys/class/net/{name}/address").strip()
    replies = machine.wire.exchange(question())
    require(replies, [asked_for(mac)], f"ARP {when}")
    talk = Talk(mac)
    for _ in range(20):
        ping = talk.ping()
        got = [reply[14:] for reply in machine.wire.exchange(ping)]
        # The kernel chooses what identifies the reply, and with that its header's checksum.
        got = [reply[:4] + b"\0\0" + reply[6:10] + b"\0\0" + reply[12:] for reply in got]
        wanted = talk.answer(ping)[14:]
        require(got, [wanted[:10] + b"\0\0" + wanted[12:]], f"ping {when}")
    machine.run(f"ip address flush dev {name}")


def test_frames_of_64_to_9000_bytes_come_back(machine: ClientMachine, function: str) -> None:
    with forwarding(machine, function, f"--tx-offloads={SEGMENTS:#x}") as pmd:
        echo(machine, pmd, STANDARD, "at the start")
        pmd.set_up("port config mtu 0 9000")
        pmd.tell("clear port stats 0")
        echo(machine, pmd, STANDARD + LARGE, "with an MTU of 9000")
        counted = {name: pmd.count(name) for name in ("RX-packets", "TX-packets", "RX-errors")}
    frames = len(STANDARD + LARGE)
    assert counted == {"RX-packets": frames, "TX-packets": frames, "RX-errors": 0}


def test_next_user_of_a_function_has_frames_too(machine: ClientMachine, function: str) -> None:
    """A function whose user quit, or that was reset, is as it was for its first user.

    Each has its memory at the same addresses, and in pages that were others before.
    """
    for user in ("first", "second"):
        with forwarding(
            machine, function, JUMBO, f"--tx-offloads={SEGMENTS:#x}", memory="--no-huge -m 40"
        ) as pmd:
            echo(machine, pmd, STANDARD + LARGE, f"for the {user} user")
            pmd.set_up("port reset 0")
            echo(machine, pmd, STANDARD + LARGE, f"for the {user} user after a reset")


def test_kernel_has_a_function_back(machine: ClientMachine, function: str) -> None:
    """The kernel's own driver answers on a function that testpmd had, and testpmd after that."""
    with forwarding(machine, function) as pmd:
        echo(machine, pmd, STANDARD, "before the kernel")
    machine.bind(function, "ixgbevf" if function == VF else "ixgbe")
    answers(machine, function, "after testpmd")
    with forwarding(machine, function) as pmd:
        echo(machine, pmd, STANDARD, "after the kernel")


def test_tags_are_put_in_and_taken_out(machine: ClientMachine, function: str) -> None:
    with forwarding(machine, function) as pmd:
        talk, exchange = Talk(pmd.mac), machine.wire.exchange
        plain, there, elsewhere = (talk.datagram(100, vlan=vlan) for vlan in (None, 100, 101))
        pmd.set_up("vlan set filter on 0", "tx_vlan set 0 100")
        pmd.tell("rx_vlan add 100 0")
        require(exchange(plain), [tagged(echo_of(plain), 100)], "a tag put in")
        pmd.set_up("tx_vlan reset 0")
        require(exchange(there), [echo_of(there)], "a tag of the function's VLAN")
        require(exchange(elsewhere, within=1), [], "a tag of another VLAN")
        pmd.set_up("vlan set strip on 0")
        require(exchange(there), [untagged(echo_of(there))], "a tag taken out")
        pmd.tell("rx_vlan rm 100 0")
        require(exchange(there, within=1), [], "a tag of a VLAN that was left")


@pytest.mark.parametrize("function", ["vf"], indirect=True)
def test_tag_of_a_foreign_vlan_stays_in(machine: ClientMachine, function: str) -> None:
    """A port checks its VFs for forged addresses and VLANs together, and by default.

    Ref: Linux, ixgbe_ndo_set_vf_spoofchk.
    """
    with forwarding(machine, function) as pmd:
        pmd.set_up("tx_vlan set 0 100")
        frame = Talk(pmd.mac).datagram(100)
        require(machine.wire.exchange(frame, within=1), [], "a tag of a VLAN that is not the VF's")


def test_checksums_are_looked_at_and_put_in(machine: ClientMachine, function: str) -> None:
    """UDP and TCP take turns, since DPDK keeps a context of the queue for each."""
    with forwarding(machine, function, JUMBO, *CHECKSUMS) as pmd:
        talk = Talk(pmd.mac)
        pmd.set_up("set fwd csum", *(f"csum set {each} hw 0" for each in ("ip", "udp", "tcp")),
                   f"set eth-peer 0 {OURS}")  # fmt: skip
        for size in (100, 1001, 9014):
            datagram, segment = talk.datagram(size), talk.segment(size - 54)
            for frame, wrong, whose in (
                (datagram, datagram, "UDP"), (segment, segment, "TCP"),
                (datagram, damaged(datagram, IP_SUM), "IP"),
                (datagram, damaged(datagram, UDP_SUM), "UDP that was wrong"),
                (segment, damaged(segment, TCP_SUM), "TCP that was wrong"),
            ):  # fmt: skip
                what = f"the checksum of {whose} in a frame of {size} bytes"
                require(machine.wire.exchange(wrong), [echo_of(frame)], what)
        said = pmd.tell("show fwd stats all")
    # Of UDP at a port DPDK takes no wrong checksum for wrong, nor does ixgbe_rx_checksum: an 82599
    # may say so of a datagram that has none (erratum).
    in_transport = "6" if function == VF else "3"
    assert re.findall(r"Bad-ipcsum: (\d+) +Bad-l4csum: (\d+)", said)[0] == ("3", in_transport)


def test_a_segment_is_cut_into_smaller_ones(machine: ClientMachine, function: str) -> None:
    with forwarding(machine, function, JUMBO, *CHECKSUMS) as pmd:
        talk = Talk(pmd.mac)
        pmd.set_up("set fwd csum", "csum set ip hw 0", "csum set tcp hw 0",
                   f"tso set {SEGMENT_BYTES} 0", f"set eth-peer 0 {OURS}")  # fmt: skip
        for payload_bytes in (SEGMENT_BYTES + 1, 8000, 8960):
            frame = talk.segment(payload_bytes)
            wanted = talk.segments(frame, SEGMENT_BYTES)
            got = machine.wire.exchange(frame, len(wanted))
            require(got, wanted, f"segments of {payload_bytes} bytes")


@pytest.mark.parametrize("function", ["port"], indirect=True)
def test_hashes_are_the_driver_s_and_lead_to_queues(machine: ClientMachine, function: str) -> None:
    """Datagrams are hashed with their ports where the driver says so, and with its key."""
    with forwarding(machine, function, "--rxq=2", "--txq=2") as pmd:
        talk = Talk(pmd.mac)
        pmd.tell(f"port config 0 rss-hash-key ipv4-udp {KEY.hex()}", "port config all rss udp")
        pmd.tell("stop", "set fwd rxonly", "set verbose 1", "start")
        for port in range(1000, 1016):
            machine.wire.send(talk.datagram(100, port=port))
            told = pmd.hear(r"RSS hash=0x(\w+) - RSS queue=0x(\w+)")
            hashed = spread_hash(KEY, port)
            assert (int(told[1], 16), int(told[2], 16)) == (hashed, hashed & 1), port


@pytest.mark.parametrize("function", ["vf"], indirect=True)
def test_flows_of_a_vf_are_spread_over_its_queues(machine: ClientMachine, function: str) -> None:
    """Key and fields are those of the port's driver, by which ports count for TCP alone."""
    with forwarding(machine, function, "--rxq=2", "--txq=2") as pmd:
        talk = Talk(pmd.mac)
        pmd.tell("stop", "set fwd rxonly", "set verbose 1", "start")

        def queue_of(frame: bytes) -> str:
            machine.wire.send(frame)
            return pmd.hear(r"port 0/queue (\d): received 1 packets")[1]

        segments = [talk.segment(100, port=port) for port in range(1000, 1024)]
        queues = [queue_of(frame) for frame in segments]
        assert set(queues) == {"0", "1"}
        assert [queue_of(frame) for frame in segments] == queues
        assert len({queue_of(talk.datagram(100, port=port)) for port in range(1000, 1024)}) == 1


def test_a_strict_viommu_translates_for_all(boot: Boot) -> None:
    """Each buffer of the kernel's drivers is mapped by itself, and unmapped as soon as it is done.

    The machine begins with a port that passes, since the chip tells QEMU by the port's own DMA
    where VFs are.
    """
    with boot(kernel_words="intel_iommu=on iommu=pt iommu.strict=1") as machine:
        machine.make_vfs()
        machine.translate_strictly(VF)
        machine.bind(VF, "ixgbevf")
        answers(machine, VF, "on the VF")
        for user in ("first", "second"):
            with forwarding(machine, VF) as pmd:
                echo(machine, pmd, STANDARD, f"for the VF's {user} user")
        machine.bind(VF, "ixgbevf")
        answers(machine, VF, "on the VF after testpmd")
        machine.remove_vfs()
        machine.translate_strictly(PORT)
        machine.bind(PORT, "ixgbe")
        answers(machine, PORT, "on the port")
        with forwarding(machine, PORT) as pmd:
            echo(machine, pmd, STANDARD, "on the port")


@pytest.mark.parametrize("address", [PORT, VF])
def test_a_machine_without_a_viommu_will_do(boot: Boot, address: str) -> None:
    """Debian's kernel has no VFIO without an IOMMU, so the function goes by uio_pci_generic."""
    with boot(kernel_words="", viommu=False) as machine:
        if address == VF:
            machine.make_vfs()
        with forwarding(machine, address, driver="uio_pci_generic") as pmd:
            echo(machine, pmd, STANDARD, "without a vIOMMU")
