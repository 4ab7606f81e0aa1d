"""What is read out of a guest."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from harness.errors import GuestError
from harness.guest.machine import GuestMachine

SNMP = """\
Ip: Forwarding DefaultTTL InReceives
Ip: 2 64 1
Icmp: InMsgs InErrors InCsumErrors InDestUnreachs InTimeExcds InParmProbs InSrcQuenchs \
InRedirects InEchos InEchoReps InTimestamps OutMsgs OutErrors OutDestUnreachs OutEchos OutEchoReps
Icmp: 1731 0 0 1 0 0 0 0 1724 6 0 1716 0 2 7 1707
IcmpMsg: InType8 OutType0
IcmpMsg: 1 2
"""


def test_echoes_are_what_came_in_and_what_went_out_for_it() -> None:
    """The guest sends requests of its own, and gets replies: neither is part of a flow."""
    machine = object.__new__(GuestMachine)
    machine.host = SimpleNamespace(read_text={"/proc/net/snmp": SNMP}.__getitem__)  # type: ignore[assignment]
    assert machine.echoes() == {"requests": 1724, "replies": 1707}


def test_the_interface_with_an_address_is_found_or_missed_by_name() -> None:
    """A guest whose init gave it none is told from one that does not answer."""
    said = [
        {"ifname": "lo", "addr_info": [{"local": "127.0.0.1"}, {"local": "::1"}]},
        {"ifname": "eth0", "addr_info": [{"local": "198.18.0.2"}]},
    ]
    machine = object.__new__(GuestMachine)
    machine.name = "guest"
    machine.host = SimpleNamespace(run=lambda *_: SimpleNamespace(stdout=json.dumps(said)))  # type: ignore[assignment]
    assert machine.interface_with("198.18.0.2") == "eth0"
    with pytest.raises(GuestError, match=r"guest: no interface of the guest has 198\.18\.0\.9"):
        machine.interface_with("198.18.0.9")


def test_an_interface_that_was_tested_is_left_when_it_has_a_carrier() -> None:
    """The offline test closes the interface, and its driver sees the link some time later."""
    said = "The test result is PASS\nThe test extra info:\nLink test   (on/offline)\t 0\n"
    carriers = iter(["0", "0", "1"])
    machine = object.__new__(GuestMachine)
    machine.name = "guest"
    machine.host = SimpleNamespace(  # type: ignore[assignment]
        run=lambda *_, **how: SimpleNamespace(stdout=said, how=how),
        read_text=lambda path: next(carriers) if path.endswith("carrier") else "10000",
    )
    tested = machine.self_test("eth1", offline=True)
    assert (tested.passed, tested.results) == (True, {"Link test (on/offline)": 0})
    assert next(carriers, "all were looked at") == "all were looked at"
