"""Play sequences to our model of the port's driver, in the place of a VF's driver."""

from __future__ import annotations

from dataclasses import dataclass

from harness.mailbox.sequences import PLACES, PORT_MTU
from harness.mailbox.state import State, in_hex
from harness.mailbox.steps import (
    BEGINNING,
    Administer,
    PortMtu,
    PortReset,
    PortUp,
    Say,
    Sequence,
    Step,
    VfReset,
)
from harness.mailbox.transcript import Entry, Writer, words
from harness.twin.device import Device
from harness.twin.driver import Driver
from harness.twin.filters import NO_MAC
from harness.twin.port import Port
from harness.uapi.ixgbe_pf import Vmolr
from harness.uapi.ixgbe_vf import (
    CHECKSUM_BYTES,
    MAILBOX_WORDS,
    Mailbox,
    Register,
    VfControl,
)

_WORD = 4


@dataclass(frozen=True, slots=True)
class ModelPlayer:
    """Plays to the model of *driver*, each sequence to a new VF of a port that has *vfs*."""

    driver: Driver
    vfs: int = 1

    def play(self, sequence: Sequence) -> list[Entry]:
        """Play one sequence from `BEGINNING` on."""
        vf, writer = _Vf(self.driver, self.vfs), Writer()
        for step in BEGINNING:
            vf.take(step)
        writer.add("beginning", vf.state(), told=vf.told())
        for step in sequence.steps:
            reply, after, refused = vf.take(step)
            writer.add(
                str(step), vf.state(), reply=reply, after=after, told=vf.told(), refused=refused
            )
        return writer.entries


class _Vf:
    """A VF of the model, and its mailbox as a driver uses it."""

    def __init__(self, driver: Driver, vfs: int) -> None:
        self._port = Port(mtu=PORT_MTU, driver=driver, vfs=vfs)
        self._device = Device(port=self._port, send=lambda _: True)
        key = self._port.rss_key
        self._key = [
            int.from_bytes(key[at : at + _WORD], "little") for at in range(0, len(key), _WORD)
        ]

    def take(self, step: Step) -> tuple[str | None, str | None, str | None]:
        """Carry out *step*; return the reply, the word after it, and the administrator's error."""
        if isinstance(step, Say):
            return (*self._say(step), None)
        if isinstance(step, Administer):
            return None, None, self._administer(step)
        if isinstance(step, VfReset):
            if step.flr:
                self._device.reset()
            else:
                self._device.write(Register.VFCTRL, VfControl.RST)
        elif isinstance(step, PortUp):
            self._port.set_up(step.up)
        elif isinstance(step, PortReset):
            self._port.reset()
        elif isinstance(step, PortMtu):
            self._port.set_mtu(step.mtu)
        return None, None, None

    def told(self) -> str | None:
        """The first word of what the port said unasked."""
        if not self._device.read(Register.VFMAILBOX) & Mailbox.PFSTS:
            return None
        return f"{self._device.read(Register.VFMBMEM):x}"

    def state(self) -> State:
        """What the model has set, as `mailbox.state` names it."""
        port, filters, given = self._port, self._port.filters, self._port.administered
        own = [] if filters.mac == NO_MAC else [filters.mac]
        return {
            "addresses": sorted(mac.hex(":") for mac in (*own, *filters.macvlans)),
            "vlans": sorted(filters.vlans),
            "accepts": sorted(each.name for each in Vmolr if filters.accepts & each),
            "multicast": in_hex([place for place in PLACES if place in filters.multicast]),
            "receives": port.receives,
            "transmits": port.transmits,
            "largest_frame": port.largest_frame + CHECKSUM_BYTES,
            "inserted_vlan": f"{port.inserted_vlan:#x}" if port.inserted_vlan else "",
            "spoof_check": ["mac", "vlan"] if port.checks_spoofing else [],
            "shown": {
                "mac": given.mac.hex(":"),
                "spoofchk": given.spoof_check,
                "state": "auto" if given.enabled else "disable",
                "trust": given.trusted,
                "query_rss": given.rss_query,
                "vlan": given.vlan,
                "qos": given.qos,
            },
        }

    def _say(self, step: Say) -> tuple[str, str | None]:
        """ixgbevf_write_mbx_vf, ixgbevf_read_mbx_vf."""
        self._device.write(Register.VFMAILBOX, Mailbox.VFU)
        for at, word in enumerate(step.sent + [0] * (MAILBOX_WORDS - len(step.sent))):
            self._device.write(Register.VFMBMEM + _WORD * at, word)
        self._device.write(Register.VFMAILBOX, Mailbox.REQ)
        if not self._device.read(Register.VFMAILBOX) & Mailbox.PFSTS:
            return "none", None
        memory = range(Register.VFMBMEM, Register.VFMBMEM + _WORD * MAILBOX_WORDS, _WORD)
        reply = [self._device.read(at) for at in memory]
        self._device.write(Register.VFMAILBOX, Mailbox.ACK)
        return words(reply, self._key), self.told()

    def _administer(self, step: Administer) -> str | None:
        """Set attributes in do_setvfinfo()'s order; return the first refusal, which ends that."""
        asked, port = step.attributes, self._port
        try:
            if "mac" in asked:
                port.set_mac(bytes.fromhex(asked["mac"].replace(":", "")))
            if "vlan" in asked:
                port.set_vlan(int(asked["vlan"]), int(asked.get("qos", "0")))
            if "spoofchk" in asked:
                port.set_spoof_check(asked["spoofchk"] == "on")
            if asked.get("state", "enable") != "enable":  # ixgbe ignores the state "enable"
                port.set_state(asked["state"] == "auto")
            if "query_rss" in asked:
                port.administered.rss_query = asked["query_rss"] == "on"
            if "trust" in asked:
                port.set_trust(asked["trust"] == "on")
        except OSError as refused:
            return refused.strerror
        return None
