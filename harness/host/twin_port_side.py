"""The ``PortSide`` of a twin speaks over the twin's control socket to the port in the twin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.host.port_side import LinkState, VfSettings
from harness.topology import MacAddress

if TYPE_CHECKING:
    from harness.host.twin import Twin


@dataclass(frozen=True, slots=True)
class TwinPortSide:
    """The port of *twin*: all that is set there ends with the twin's program."""

    twin: Twin

    @property
    def settings(self) -> VfSettings:
        status = self._ask("status")
        administered = status["administered"]
        return VfSettings(
            mac=MacAddress(administered["mac"]),
            vlan=administered["vlan"],
            trusted=administered["trusted"],
            spoof_check=administered["spoof_check"],
            link_state=LinkState.AUTO if status["vf"]["enabled"] else LinkState.DISABLE,
        )

    @property
    def mtu(self) -> int:
        return int(self._ask("status")["port"]["mtu"])

    def set_mtu(self, mtu: int) -> None:
        if mtu != self.mtu:
            self._ask("set_port_mtu", mtu=mtu)

    def set_up(self, up: bool) -> None:
        self._ask("set_up", up=up)

    def reset(self) -> None:
        self._ask("reset_port")

    def set_mac(self, mac: MacAddress) -> None:
        self.twin.set_filter(mac)

    def set_vlan(self, vlan: int) -> None:
        self._ask("set_vlan", vlan=vlan)

    def set_trust(self, trusted: bool) -> None:
        self._ask("set_trust", trusted=trusted)

    def set_spoof_check(self, on: bool) -> None:
        self._ask("set_spoof_check", checked=on)

    def set_link_state(self, state: LinkState) -> None:
        self._ask("set_state", enabled=state is LinkState.AUTO)

    def _ask(self, word: str, **arguments: Any) -> Any:
        return self.twin.control.ask(word, **arguments)
