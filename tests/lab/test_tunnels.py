"""TCP runs through a tunnel between two ports, whose driver has the port cut it into segments.

A tunnel's frame has two IP headers.  The port knows one, and its sums come out right only if it
begins with the values that the driver left for it (ixgbe_tso, "cancel out any data").
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from harness.host.changes import changed_back
from harness.host.port import Port, find_port, port_up
from harness.remote import Host
from harness.run.lab import Lab
from harness.waiting import wait_for

pytestmark = [
    *(pytest.mark.nightly, pytest.mark.about("TCP in a tunnel")),
    pytest.mark.needs("82599", "sriov", "two-hosts"),
    pytest.mark.usefixtures("no_guest"),
]

BYTES, SECONDS = 4 << 20, 60
_TAKE = """
import socket
with socket.create_server(("::", 5201), family=socket.AF_INET6) as server:
    with server.accept()[0] as came:
        print(sum(iter(lambda: len(came.recv(1 << 16)), 0)))
"""
_GIVE = """
import socket, sys
with socket.create_connection(("fd00:7::2", 5201), 10) as out:
    out.sendall(bytes(int(sys.argv[1])))
"""
_LISTENS = f":{5201:04X} {0:032X}:0000 0A"
"""A line of /proc/net/tcp6 for a socket that listens on that port."""


@pytest.fixture
def ends(lab: Lab, hosts: list[Host]) -> Iterator[list[Port]]:
    """Yield the first port of each host; a VXLAN with IPv6 inside joins the two."""
    ports = []
    with ExitStack() as stack:
        for number, host in enumerate(hosts, start=1):
            name, entry = next(iter(lab.topology.hosts[host.name].ports.items()))
            port = find_port(host, name, entry)
            stack.enter_context(port_up(port, mtu=1500))
            stack.enter_context(changed_back(host))
            _join(port, number, 3 - number)
            ports.append(port)
        yield ports


def _join(port: Port, number: int, other: int) -> None:
    outer, inner = f"198.18.4.{number}/24", f"fd00:7::{number}/64"
    tunnel = [
        *("type", "vxlan", "id", "7", "dstport", "4789", "dev", port.interface),
        *("local", f"198.18.4.{number}", "remote", f"198.18.4.{other}"),
    ]
    address = ["ip", "address", "add", outer, "dev", port.interface]
    port.host.change(
        f"{outer} on {port.interface}",
        do={"kind": "run", "argv": address},
        undo={"kind": "run", "argv": ["del" if each == "add" else each for each in address]},
    )
    port.host.change(
        "a VXLAN",
        do={"kind": "run", "argv": ["ip", "link", "add", "tunnel0", *tunnel]},
        undo={"kind": "run", "argv": ["ip", "link", "del", "tunnel0"]},
    )
    port.host.run("ip", "address", "add", inner, "dev", "tunnel0", "nodad", changes=True)
    port.host.run("ip", "link", "set", "tunnel0", "up", changes=True)


def wrong_sums(host: Host) -> int:
    """Read how many IP headers, UDP datagrams and TCP segments came in damaged."""
    rows = [line.split() for line in host.read_text("/proc/net/snmp").splitlines()]
    counted = {
        f"{names[0]}{name}": int(value)
        for names, values in zip(rows[::2], rows[1::2], strict=True)
        for name, value in zip(names[1:], values[1:], strict=True)
    }
    return sum(counted[name] for name in ("Ip:InHdrErrors", "Udp:InCsumErrors", "Tcp:InCsumErrors"))


def test_no_sum_is_wrong_where_the_port_cuts_a_tunnels_segments(ends: list[Port]) -> None:
    giver, taker = ends
    shown = giver.host.run("ethtool", "-k", giver.interface).stdout
    assert "tx-udp_tnl-segmentation: on" in shown
    before = wrong_sums(taker.host)
    with ThreadPoolExecutor(1) as pool:
        taken = pool.submit(taker.host.run, "python3", "-c", _TAKE, seconds=SECONDS)
        wait_for(
            "the other end to listen",
            lambda: _LISTENS in taker.host.read_text("/proc/net/tcp6"), within=SECONDS,
        )  # fmt: skip
        giver.host.run("python3", "-c", _GIVE, str(BYTES), seconds=SECONDS)
        assert int(taken.result().stdout) == BYTES
    assert wrong_sums(taker.host) == before
