"""A guest's VF as the guest's own kernel has it, and what is asked inside to stop it.

It takes a Linux guest: sysfs, ``ip`` and ``sh``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from harness.errors import GuestError
from harness.guest.machine import GuestMachine
from harness.waiting import wait_for

APPEAR_SECONDS = 30
_DEVICES = "/sys/bus/pci/devices"


@dataclass(frozen=True, slots=True)
class GuestVf:
    """The VF of *guest*: its *interface*, PCI address and driver there."""

    guest: GuestMachine
    interface: str
    pci: str
    driver: str

    @classmethod
    def find(cls, guest: GuestMachine, mac: str) -> GuestVf:
        """The PCI function whose interface has that address; it may be about to appear.

        Raises WaitError if it does not.
        """
        interface = wait_for(
            f"{guest.name}: a PCI function with the address {mac}",
            lambda: _interface(guest, mac),
            within=APPEAR_SECONDS,
            every_s=0.2,
            fix="see the guest's console: its driver must find the VF",
        )
        pci = _last(guest, f"/sys/class/net/{interface}/device")
        return cls(guest, interface, pci, _last(guest, f"{_DEVICES}/{pci}/driver"))

    def set_link(self, state: str) -> None:
        """``up`` or ``down``: the driver starts its queues, or stops them."""
        self._run("/usr/bin/ip", "link", "set", "dev", self.interface, state)

    def unbind(self) -> None:
        """The driver lets the VF go."""
        self._write(f"/sys/bus/pci/drivers/{self.driver}/unbind", self.pci)

    def bind(self) -> None:
        """The driver takes it again."""
        self._write(f"/sys/bus/pci/drivers/{self.driver}/bind", self.pci)

    def remove(self) -> None:
        """Its kernel removes the function, as it does when it is hot-unplugged."""
        self._write(f"{_DEVICES}/{self.pci}/remove", "1")

    def rescan(self) -> None:
        """Its kernel looks for functions again."""
        self._write("/sys/bus/pci/rescan", "1")

    def reset(self) -> None:
        """Its kernel resets the function, with its driver told before and after."""
        self._write(f"{_DEVICES}/{self.pci}/reset", "1")

    def suspend_devices(self, seconds: int = 5) -> None:
        """The driver's suspend alone: it resumes so much later.  Returns before that begins.

        Ref: Linux, Documentation/power/basic-pm-debugging.rst, ``pm_test``, and
        Documentation/admin-guide/kernel-parameters.txt, ``suspend.pm_test_delay``.
        """
        self._run("sh", "-c", _SUSPEND_DEVICES, "sh", str(seconds))

    def take_up(self, address: str, mtu: int) -> None:
        """Give a new interface of it what the old one had: MTU, address, link."""
        self._run("/usr/bin/ip", "link", "set", "dev", self.interface, "mtu", str(mtu), "up")
        self._run("/usr/bin/ip", "address", "replace", address, "dev", self.interface)

    def _write(self, path: str, text: str) -> None:
        done = self._run("sh", "-c", 'echo "$1" > "$2"', "sh", text, path, check=False)
        if done:
            raise GuestError(
                f"{self.guest.name}: its kernel refused {text!r} for {path}",
                because=f"it says: {done}",
                fix="see its kernel log",
            )

    def _run(self, *argv: str, check: bool = True) -> str:
        done = self.guest.host.run(*argv, check=check)
        return "" if done.status == 0 else done.stderr.strip() or f"status {done.status}"


_SUSPEND_DEVICES = (
    'set -e; echo "$1" > /sys/module/suspend/parameters/pm_test_delay; '
    "echo devices > /sys/power/pm_test; (set +e; sleep 0.2; "
    "echo mem > /sys/power/state; echo none > /sys/power/pm_test) >&- 2>&- <&- &"
)


def _interface(guest: GuestMachine, mac: str) -> str:
    """The interface of a PCI function with that address; empty while there is none."""
    shown = json.loads(guest.host.run("/usr/bin/ip", "-json", "link", "show").stdout)
    names = [str(link["ifname"]) for link in shown if link.get("address") == mac]
    return next((name for name in names if guest.host.exists(f"/sys/class/net/{name}/device")), "")


def _last(guest: GuestMachine, link: str) -> str:
    return guest.host.readlink(link).rpartition("/")[2]
