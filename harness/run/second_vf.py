"""A guest takes a second VF of the same port, beside the VF that it was started with."""

from __future__ import annotations

from harness.guest.vf import GuestVf
from harness.remote import DeadlineError
from harness.run.moving import MovingGuest
from harness.topology import MacAddress
from harness.traffic.flow import Endpoint
from harness.waiting import wait_for

LINK_SECONDS = 20


def take_second(guest: MovingGuest, mac: MacAddress, address: str) -> Endpoint:
    """Plug the spare VF of its berth into *guest*, and give the guest's end of a flow through it.

    The port has *mac* on record for the VF before the guest finds it.  The VF stays in the guest.
    A guest that hangs as the VF comes is replaced as often as its lab says; nothing is measured
    yet.  Raises WaitError if the guest finds no VF with that address, or if it gets no link.
    """
    left = guest.boot_tries
    while True:
        guest.spare.set_filter(mac)
        guest.instance.plug_spare(guest.spare)
        try:
            return _taken_up(guest, mac, address)
        except DeadlineError as silent:
            left -= 1
            if not left:
                raise
            guest.replace(silent.what)


def _taken_up(guest: MovingGuest, mac: MacAddress, address: str) -> Endpoint:
    inside = GuestVf.find(guest.machine, mac)
    inside.take_up(f"{address}/{guest.spec.address.network.prefixlen}", guest.spec.mtu)
    wait_for(
        f"{guest.spec.name}: a link on {inside.interface}",
        lambda: guest.machine.link(inside.interface)[0],
        within=LINK_SECONDS,
        fix="see the guest's kernel log for what its driver says of the VF",
    )
    return Endpoint(guest.machine, inside.interface, mac, address)
