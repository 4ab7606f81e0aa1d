"""What is read out of a guest."""

from __future__ import annotations

from types import SimpleNamespace

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
