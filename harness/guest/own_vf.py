"""A VF that a guest makes for itself, on the port that its QEMU emulates (`command_line.PORT_MAC`).

No host lends it.  It is part of the machine: QEMU can be asked for its configuration space without
the guest's help, and has to move it with the guest.  It does not: at the destination it makes the
VF anew, as the port's state says that there is one, and has no state of the VF's own to put in.
Ref: QEMU, hw/pci/pcie_sriov.c, pcie_sriov_pf_post_load(); hw/net/igbvf.c, igbvf_class_init(), which
names no VMState.  Seen with QEMU 11.1.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from harness.errors import GuestError, MigrationError
from harness.guest.command_line import PORT_MAC
from harness.guest.instance import Instance
from harness.guest.machine import GuestMachine
from harness.guest.qmp import QemuGoneError
from harness.host.vf import Observed
from harness.topology import PciAddress
from harness.uapi.pci_regs import NO_ANSWER, Command, Register
from harness.uapi.q35 import ECAM
from harness.waiting import wait_for

LINK_SECONDS = 30
"""Under emulation port and VF take some five, more on a busy machine."""


@dataclass(frozen=True, slots=True)
class OwnVf:
    """The VF as the guest has it: its address *pci*, and its *interface*."""

    pci: PciAddress
    interface: str

    def command(self, instance: Instance) -> int:
        """COMMAND, by QEMU's monitor; NO_ANSWER if no function answers, or QEMU has ended."""
        asked = {"command-line": f"xp /1hx {ecam_address(self.pci) + Register.COMMAND:#x}"}
        try:
            return register_in(str(instance.qmp.execute("human-monitor-command", asked)))
        except QemuGoneError:
            return NO_ANSWER

    def observe(self, instance: Instance) -> OwnVfObserving:
        """Read COMMAND now and when that is stopped; in between QEMU is left alone."""
        return OwnVfObserving(self, instance)

    def bind_anew(self, machine: GuestMachine) -> None:
        """Have its driver let it go and take it up again, which sets up all that it has."""
        machine.host.write_text(f"/sys/bus/pci/devices/{self.pci}/driver/unbind", self.pci)
        _taken_up(machine, self.pci)

    def keep_command(self, machine: GuestMachine) -> None:
        """Have the guest write COMMAND back as it is now, as soon as it reads 0; wherever it is."""
        config = f"/sys/bus/pci/devices/{self.pci}/config"
        machine.host.run("sh", "-c", _KEEP_COMMAND % {"config": config})

    def has_link(self, machine: GuestMachine) -> bool:
        """Whether the guest takes it to have a link."""
        return machine.host.read_text(f"/sys/class/net/{self.interface}/carrier").strip() == "1"


class OwnVfObserving:
    """An ``Observation`` of *vf* as *instance* has it."""

    def __init__(self, vf: OwnVf, instance: Instance) -> None:
        self._vf = vf
        self._instance = instance
        self._lines: list[dict[str, Any]] = []
        self._seen_ns = self._now_ns()
        self._read()

    def stop(self) -> Observed:
        """Read it once more."""
        self._read()
        return Observed(self._lines, [], {"samples": 2, "via": {"monitor": 2}, "events": []})

    def _read(self) -> None:
        command, since_ns = self._vf.command(self._instance), self._seen_ns
        self._seen_ns = self._now_ns()
        self._lines.append({
            "t_ns": self._seen_ns, "gap_ns": self._seen_ns - since_ns,
            "host": self._instance.host.name, "vf": self._vf.pci,
            "command": command, "bme": command != NO_ANSWER and bool(command & Command.MASTER),
            "via": "monitor",
        })  # fmt: skip

    def _now_ns(self) -> int:
        return int(self._instance.host.ask("clock")["monotonic_ns"])


def make_own_vf(machine: GuestMachine) -> OwnVf:
    """Make VF 0 on the guest's emulated port, and give it the guest's MAC, MTU and address.

    Its driver is bound last: one that has the VF already would keep a MAC of its own.  Raises
    GuestError if port or VF has no interface, and WaitError if one has no link in time.
    """
    spec, host = machine.instance.spec, machine.host
    port = _interface_of(machine, PORT_MAC)
    device = f"/sys/class/net/{port}/device"
    _ip(machine, "link", "set", "dev", port, "mtu", str(spec.mtu), "up")
    _wait_for_link(machine, port)
    host.write_text(f"{device}/sriov_drivers_autoprobe", "0")
    host.write_text(f"{device}/sriov_numvfs", "1")
    _ip(machine, "link", "set", "dev", port, "vf", "0", "mac", spec.mac)
    host.write_text(f"{device}/sriov_drivers_autoprobe", "1")
    pci = PciAddress(host.readlink(f"{device}/virtfn0").rpartition("/")[2])
    return _taken_up(machine, pci)


def ecam_address(pci: PciAddress) -> int:
    """Where the configuration space of *pci* lies in the guest's memory; of its domain 0 only.

    Ref: PCI Express base specification, "Enhanced Configuration Access Mechanism".
    """
    bus, device, function = (int(each, 16) for each in re.split("[:.]", pci)[1:])
    return ECAM + (bus << 20) + (device << 15) + (function << 12)


def register_in(answer: str) -> int:
    """The 16-bit register in what the monitor's ``xp /1hx`` answers.

    NO_ANSWER where nothing is mapped: firmware has not run there yet.  Raises MigrationError for
    what is neither.  Ref: QEMU, monitor/hmp-cmds-target.c, memory_dump().
    """
    shown = re.fullmatch(r"[0-9a-f]+: (?:0x([0-9a-f]{4})|Cannot access memory)", answer.strip())
    if shown:
        return int(shown[1], 16) if shown[1] else NO_ANSWER
    raise MigrationError(
        f"QEMU's monitor answered {answer.strip()!r}, which is no register of 16 bits",
        because="the command xp prints an address and what is there",
        fix="try `xp /1hx` in that QEMU's monitor; another version may print it another way",
    )


_COMMAND = f"bs=2 skip={Register.COMMAND // 2} seek={Register.COMMAND // 2} count=1 conv=notrunc"
_KEEP_COMMAND = f"""
config=%(config)s kept=/run/own-vf-command
command() {{ od -An -tx2 -j{Register.COMMAND} -N2 $config; }}
dd if=$config of=$kept {_COMMAND} 2>&-
(while [ $(command) != 0000 ]; do sleep 0.1; done
 dd if=$kept of=$config {_COMMAND}) > /dev/null 2>&1 &
"""


def _taken_up(machine: GuestMachine, pci: PciAddress) -> OwnVf:
    """Return the VF, once its driver has it and it has a link.

    Raises GuestError if the driver made no interface, and WaitError without a link.
    """
    spec, host = machine.instance.spec, machine.host
    host.write_text("/sys/bus/pci/drivers_probe", pci)
    folder = f"/sys/bus/pci/devices/{pci}/net"
    interface = next(iter(host.listdir(folder) if host.exists(folder) else ()), None)
    if interface is None:
        raise _missing(machine, f"VF {pci} has no interface")
    _ip(machine, "link", "set", "dev", interface, "mtu", str(spec.mtu), "up")
    _ip(machine, "address", "add", str(spec.address), "dev", interface)
    _wait_for_link(machine, interface)
    return OwnVf(pci, interface)


def _interface_of(machine: GuestMachine, mac: str) -> str:
    for link in json.loads(_ip(machine, "-json", "link", "show")):
        if link["address"] == mac:
            return str(link["ifname"])
    raise _missing(machine, f"no interface of the guest has {mac}")


def _missing(machine: GuestMachine, what: str) -> GuestError:
    return GuestError(
        f"{machine.name}: {what}",
        because="the drivers igb and igbvf did not take the emulated port or its VF",
        fix="see the guest's console for what they said",
    )


def _wait_for_link(machine: GuestMachine, interface: str) -> None:
    wait_for(
        f"{machine.name}: a link on {interface}",
        lambda: machine.host.read_text(f"/sys/class/net/{interface}/operstate").strip(),
        within=LINK_SECONDS,
        until=lambda state: state == "up",
        fix="see the guest's console for its drivers, igb and igbvf",
    )


def _ip(machine: GuestMachine, *arguments: str) -> str:
    return machine.host.run("/usr/bin/ip", *arguments).stdout
