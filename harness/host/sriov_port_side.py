"""The ``PortSide`` of a port's VF: ``ip link set PORT vf N``, and the port's own interface.

The settings of a VF end with the VF, so only changes of the port itself are journalled.  Ref:
Linux, drivers/net/ethernet/intel/ixgbe/ixgbe_sriov.c, ixgbe_disable_sriov(), which frees vfinfo,
and __ixgbe_enable_sriov(), which makes it anew: no VLAN, no trust, spoof check on, link state
auto; ixgbe_sriov_reinit() resets the filters.  igb_disable_sriov() of igb_main.c frees its like.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.errors import RemoteError
from harness.host.changes import changed_again
from harness.host.port import LINK_SECONDS, Port
from harness.host.port_side import LinkState, VfSettings
from harness.remote import CommandError, Host
from harness.topology import MacAddress
from harness.waiting import wait_for

if TYPE_CHECKING:
    from harness.host.virtual_function import VirtualFunction

RESET_SECONDS = 30
"""A port with VFs waits two seconds for their drivers as it resets.

Ref: Linux, drivers/net/ethernet/intel/ixgbe/ixgbe_main.c, ixgbe_reinit_locked().
"""


@dataclass(frozen=True, slots=True)
class VfPortSide:
    """The port of *vf*, as the administrator of its host has it."""

    vf: VirtualFunction

    @property
    def settings(self) -> VfSettings:
        shown = self._port.link()["vfinfo_list"]
        (vf,) = (each for each in shown if each["vf"] == self.vf.index)
        return VfSettings(
            mac=MacAddress(vf["address"]),
            vlan=sum(each.get("vlan", 0) for each in vf.get("vlan_list", ())),
            trusted=bool(vf.get("trust")),
            spoof_check=bool(vf.get("spoofchk")),
            link_state=LinkState(vf.get("link-state", LinkState.AUTO.value)),
        )

    @property
    def mtu(self) -> int:
        return int(self._port.link()["mtu"])

    def set_mtu(self, mtu: int) -> None:
        before, path = self.mtu, f"/sys/class/net/{self._port.interface}/mtu"
        if mtu == before:
            return
        changed_again(
            self._host,
            f"{self._port.interface} with MTU {mtu}",
            do={"kind": "write", "path": path, "text": str(mtu)},
            undo={"kind": "write", "path": path, "text": str(before)},
        )
        self._wait_for_link()

    def set_up(self, up: bool) -> None:
        if up == ("UP" in self._port.link()["flags"]):
            return
        to, back = ("up", "down") if up else ("down", "up")
        changed_again(
            self._host,
            f"{self._port.interface} {to}",
            do={"kind": "run", "argv": [*self._set, to]},
            undo={"kind": "run", "argv": [*self._set, back]},
        )
        if up:
            self._wait_for_link()

    def reset(self) -> None:
        """Restart its negotiation of a link: ixgbe_nway_reset() and igb's reset the whole port."""
        again = ["ethtool", "--negotiate", self._port.interface]
        self._host.run(*again, changes=True, seconds=RESET_SECONDS)
        self._wait_for_link()

    def set_mac(self, mac: MacAddress) -> None:
        self.vf.set_filter(mac)

    def set_vlan(self, vlan: int) -> None:
        self._set_for_vf("vlan", str(vlan))

    def set_trust(self, trusted: bool) -> None:
        self._set_for_vf("trust", _SWITCH[trusted])

    def set_spoof_check(self, on: bool) -> None:
        self._set_for_vf("spoofchk", _SWITCH[on])

    def set_link_state(self, state: LinkState) -> None:
        self._set_for_vf("state", state.value)

    def set_rate(self, mbit: int) -> None:
        """Let the VF send so many Mbit/s at most; 0 for no limit.

        Raises RemoteError for a limit that ixgbe_ndo_set_vf_bw does not take.
        """
        try:
            self._set_for_vf("max_tx_rate", str(mbit))
        except CommandError as refused:
            raise RemoteError(
                f"{self._host.name}: VF {self.vf.index} of {self._port.interface} cannot be "
                f"limited to {mbit} Mbit/s",
                because=f"{refused.because}; ixgbe takes 11 to 10000 Mbit/s, and 0 for no limit, "
                "on a link of 10 Gbit/s that is up (ixgbe_ndo_set_vf_bw)",
                fix="see `ethtool` on the port for its link, and choose such a limit",
            ) from None

    @property
    def _port(self) -> Port:
        return self.vf.port

    @property
    def _host(self) -> Host:
        return self.vf.host

    @property
    def _set(self) -> list[str]:
        return ["ip", "link", "set", "dev", self._port.interface]

    def _set_for_vf(self, what: str, value: str) -> None:
        self._host.run(*self._set, "vf", str(self.vf.index), what, value, changes=True)

    def _wait_for_link(self) -> None:
        """Return once the port's interface has its carrier; its state follows some time later."""
        wait_for(
            f"{self._host.name}: a link on {self._port.interface} again",
            self._link_now,
            within=LINK_SECONDS,
            until=lambda now: "LOWER_UP" in now and "UP" in now,
            fix="see that the other end of its cable is up, and that host's kernel log",
        )

    def _link_now(self) -> list[str]:
        """The flags of the port's interface, and its operational state."""
        link = self._port.link()
        return [*(flag for flag in link["flags"] if flag == "LOWER_UP"), link["operstate"]]


_SWITCH = {True: "on", False: "off"}
