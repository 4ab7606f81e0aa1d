"""The port's (PF's) side of a VF, as a model of its Linux driver: filters, mailbox, jumbo rule.

Ref: Linux 6.12, drivers/net/ethernet/intel/ixgbe/ixgbe_sriov.c; the names of its functions stand
at ours.  What that driver refuses is refused here, with the same effect on the VF.
"""

from __future__ import annotations

import errno
import os
from typing import Callable

from harness.twin.administered import Administered
from harness.twin.driver import IXGBE_6_12, Driver
from harness.twin.filters import NO_MAC, VLAN_IDS, VLAN_PRIORITY_SHIFT, Filters
from harness.twin.mailbox import MailboxRegisters
from harness.twin.port_registers import RESET_FRAME_BYTES, PortRegisters
from harness.twin.requests import LEAST_FRAME_BYTES, LEGACY_FRAME_BYTES, grant
from harness.uapi import ixgbe_vf
from harness.uapi.ixgbe_pf import Vmolr
from harness.uapi.ixgbe_vf import CLEAR_TO_SEND, FAILURE, SUCCESS, Api, Message

ETH_DATA_LEN = 1500
_HEADER_BYTES = 14
_POOLS_OF_4_QUEUES, _QUEUES_OF_64_POOLS = 32, 2
"""ixgbe_set_sriov_queues: so many pools have 4 queues each; the port's own is one of them."""
_MOST_QOS = 7
_LARGEST_MTU = ixgbe_vf.MAX_FRAME_BYTES - _HEADER_BYTES - ixgbe_vf.CHECKSUM_BYTES


class Port(PortRegisters):
    """The port that lends the VF, and what its driver has on record of it.

    The port calls *stop_transmitting* (as by PVFTXDCTL), *clear_write_back* (as by PVFTDWBAL and
    PVFTDWBAH) and *clear_queues* (in a reset of the port), which change the VF's queues, and
    *holds_frames* (PVFTDH and PVFTDT), which says whether the VF has frames to send.
    *ring* interrupts the VF for its mailbox.  *vfs* is how many VFs the port has, of which this is
    one, and *queues* how many each has: 4, or 2 where the port has more than 31 VFs.
    """

    def __init__(
        self,
        *,
        mtu: int = ETH_DATA_LEN,
        link_mbit: int = 10_000,
        driver: Driver = IXGBE_6_12,
        vfs: int = 1,
    ) -> None:
        super().__init__(link_mbit)
        self.ring: Callable[[], None] = lambda: None
        self.stop_transmitting: Callable[[], None] = lambda: None
        self.clear_write_back: Callable[[], None] = lambda: None
        self.clear_queues: Callable[[], None] = lambda: None
        self.holds_frames: Callable[[], bool] = lambda: False
        self.mailbox = MailboxRegisters(self._message, self._acknowledged, lambda: self.ring())
        self.administered = Administered(api=driver.newest_api)
        self.vfs = vfs
        self.queues = _QUEUES_OF_64_POOLS if vfs >= _POOLS_OF_4_QUEUES else ixgbe_vf.MOST_QUEUES
        self._mtu = mtu
        self.largest_frame = self._own_frame_bytes
        self.clear_to_send = False
        self._forget_vf()
        self._set_receive_transmit()

    @property
    def mtu(self) -> int:
        return self._mtu

    @property
    def is_jumbo(self) -> bool:
        """Whether its MTU is above the standard one."""
        return self._mtu + _HEADER_BYTES > LEGACY_FRAME_BYTES

    @property
    def has_late_replies(self) -> bool:
        return self.mailbox.has_late_replies

    # What an administrator does.

    def set_mac(self, mac: bytes) -> None:
        """ixgbe_ndo_set_vf_mac: the VF's filter takes *mac* at once; all zeros clear it.

        Raises OSError: EINVAL for an address of a group; ENOMEM where a filter is to be cleared
        that a reset has emptied, and the address stays on record (ixgbe_del_mac_filter).
        """
        given = self.administered
        if mac[0] & 1:
            raise _refused(errno.EINVAL)
        if mac == NO_MAC and self.filters.mac != given.mac:
            raise _refused(errno.ENOMEM)
        given.mac, given.mac_given = mac, mac != NO_MAC
        self.filters.mac = mac

    def set_vlan(self, vlan: int, qos: int = 0) -> None:
        """ixgbe_ndo_set_vf_vlan: all frames of the VF are in this VLAN, which it does not see.

        The VLAN takes the place of VLAN 0 (ixgbe_enable_port_vlan, "revoke tagless access"), or
        gives it back; what the VF had asked for itself stays until its reset.  A priority alone
        makes a VLAN of the port's as well.  Raises OSError, EINVAL, for numbers that are none.
        """
        if not (0 <= vlan <= VLAN_IDS and 0 <= qos <= _MOST_QOS):
            raise _refused(errno.EINVAL)
        given, vlans = self.administered, self.filters.vlans
        vlans.discard(given.vlan)
        vlans.add(vlan)
        given.vlan, given.qos = vlan, qos
        if given.has_port_vlan:
            vlans.discard(0)
        self._insert_vlan()
        self._set_untagged(not given.has_port_vlan)

    def set_spoof_check(self, checked: bool) -> None:
        """ixgbe_ndo_set_vf_spoofchk, which sets MAC and VLAN anti-spoofing together."""
        self.administered.spoof_check = self.checks_spoofing = checked

    def set_trust(self, trusted: bool) -> None:
        """ixgbe_ndo_set_vf_trust: where that changes, the VF has to start anew."""
        if trusted == self.administered.trusted:
            return
        self.administered.trusted = trusted
        self.clear_to_send = False
        self._ping()

    def set_state(self, enabled: bool) -> None:
        """ixgbe_ndo_set_vf_link_state."""
        self.administered.enabled = enabled
        self._set_receive_transmit()
        self.clear_to_send = False
        self._ping()

    def set_link(self, up: bool, mbit: int) -> None:
        """The cable: ixgbe_watchdog_link_is_up, or _down, which tell every VF.

        Frames that the VF wanted to send meanwhile made the driver reset the port
        (ixgbe_watchdog_flush_tx), so they are lost, and the VF starts anew.  Raises ValueError for
        a speed that an 82599 has not.
        """
        if mbit not in ixgbe_vf.LINK_OF_MBIT:
            raise ValueError(f"an 82599 has no link of {mbit} Mbit/s")
        if up and not self.link_up and self.holds_frames():
            self.reset()
        self.link_up, self.link_mbit = up, mbit
        self._ping()

    def set_mtu(self, mtu: int) -> None:
        """ixgbe_change_mtu, which resets the port; OSError, EINVAL, for one it cannot have."""
        if not LEAST_FRAME_BYTES <= mtu <= _LARGEST_MTU:
            raise _refused(errno.EINVAL)
        self._mtu = mtu
        self.reset()

    def set_up(self, up: bool) -> None:
        """ixgbe_close, which resets the port (ixgbe_down), or ixgbe_open, which does not.

        A port that is down is in reset for its VFs: none is heard, none sends or receives.  What
        is set for a VF while the port is down stays as the port goes up.
        """
        if up == self.is_up:
            return
        self.is_up = up
        if up:
            self._configure()
        else:
            self._lose_vfs()

    def reset(self) -> None:
        """ixgbe_reinit_locked: down and up again; nothing happens to a port that is down.

        No VF is clear to send, none has a filter, and each has to start anew.
        """
        if self.is_up:
            self._lose_vfs()
            self._configure()

    def _lose_vfs(self) -> None:
        """ixgbe_down, which tells the VFs first and then resets the port (ixgbe_reset).

        ixgbe_flush_sw_mac_table empties the table of addresses, ixgbe_clear_vfta_generic that of
        VLANs, and VMOLR and VMVIR are what the hardware makes them: 0.
        """
        self.clear_to_send = False
        self._ping()
        self.mailbox.port_resets()
        self.filters = Filters(NO_MAC, set())
        self.inserted_vlan = 0
        self.largest_frame = RESET_FRAME_BYTES
        self.checks_spoofing = self.receives = self.transmits = False
        self.clear_queues()

    def _configure(self) -> None:
        """ixgbe_configure and ixgbe_up_complete, which tells the VFs.

        Of what a VF had asked for, its multicast places alone are entered again
        (ixgbe_restore_vf_multicasts).
        """
        if hashes := self.administered.hashes:
            self.filters.multicast.update(hashes)
            self.filters.accepts |= Vmolr.ROMPE
        self.largest_frame = self._own_frame_bytes
        self.checks_spoofing = self.administered.spoof_check  # ixgbe_configure_virtualization
        self._set_receive_transmit()
        self.clear_to_send = False
        self.mailbox.port_is_up()  # PFRSTD
        self._ping()

    # What the VF does.

    def vf_was_reset(self) -> None:
        """ixgbe_vf_reset_event: filters and API are those of a VF that has said nothing yet.

        The chip clears the VF's bits of VFRE and VFTE (82599 datasheet, PFVFRE and PFVFTE); the
        driver sets them again once the VF says RESET (ixgbe_vf_reset_msg).  The VF's address is
        taken out of the filter, and stays on record.  Each transmit queue that the VF left on is
        turned off ("Restart each queue for given VF").
        """
        self._forget_vf()
        self.receives = self.transmits = False
        self.stop_transmitting()

    def _forget_vf(self) -> None:
        """Take the VF's filters back, as ixgbe_vf_reset_event does.

        VMOLR keeps bits that the driver does not write: a VF that got all multicast frames goes on
        getting them.  Receiver and transmitter (VFRE, VFTE) and xcast stay too.
        """
        self.api = int(Api.V10)
        self.administered.hashes = []
        kept = self.filters.accepts & ~Vmolr.ROMPE
        self.filters = Filters(NO_MAC, {self.administered.vlan}, accepts=kept)
        self._insert_vlan()
        self._set_untagged(not self.administered.vlan)
        if self.administered.has_port_vlan and self.administered.spoof_check:
            self.checks_spoofing = True  # without a port VLAN it stays as it is

    def _insert_vlan(self) -> None:
        """ixgbe_set_vmvir: the tag has the priority too; ixgbe_clear_vmvir."""
        self.inserted_vlan = self.administered.vlan | self.administered.qos << VLAN_PRIORITY_SHIFT

    def _set_untagged(self, taken: bool) -> None:
        """ixgbe_set_vmolr: a VF gets broadcasts, and frames without a tag if they are *taken*."""
        self.filters.accepts |= Vmolr.BAM | Vmolr.AUPE
        if not taken:
            self.filters.accepts &= ~Vmolr.AUPE

    def _set_receive_transmit(self) -> None:
        """ixgbe_set_vf_rx_tx: on a jumbo port the VF receives once it has said its frame size."""
        self.transmits = self.is_up and self.administered.enabled
        self.receives = self.transmits and not self.is_jumbo

    @property
    def _own_frame_bytes(self) -> int:
        """ixgbe_set_rx_buffer_len: a standard frame at least."""
        return max(self._mtu, ETH_DATA_LEN) + _HEADER_BYTES

    def _ping(self) -> None:
        """ixgbe_ping_vf."""
        clear = CLEAR_TO_SEND if self.clear_to_send else 0
        self.mailbox.send([Message.PF_CONTROL | clear], rings=True)

    def _acknowledged(self) -> None:
        """ixgbe_rcv_ack_from_vf: answer FAILURE to a VF that is not clear to send."""
        if not self.clear_to_send:
            self.mailbox.send([FAILURE])

    def _message(self, words: list[int]) -> None:
        """ixgbe_rcv_msg_from_vf."""
        if words[0] & (SUCCESS | FAILURE):
            return  # it is our own, read back
        if words[0] == Message.RESET:
            self._reset_message()
        elif not self.clear_to_send:
            self.mailbox.send([words[0] | FAILURE])
        else:
            words[0] |= (SUCCESS if grant(self, words) else FAILURE) | CLEAR_TO_SEND
            self.mailbox.send(words)

    def _reset_message(self) -> None:
        """ixgbe_vf_reset_msg: the address on record is in the filter again.

        This reply alone does not say that the VF is clear to send.
        """
        self.vf_was_reset()
        self.mailbox.clear()
        self.clear_write_back()
        self.filters.mac = self.administered.mac
        self._set_receive_transmit()
        self.clear_to_send = True
        mac = self.administered.mac if self.administered.mac_given else NO_MAC
        result = FAILURE if mac == NO_MAC else SUCCESS
        low, high = mac[:4], mac[4:] + b"\0\0"
        self.mailbox.send([
            Message.RESET | result, int.from_bytes(low, "little"), int.from_bytes(high, "little"),
            ixgbe_vf.MULTICAST_FILTER_TYPE,
        ])  # fmt: skip


def _refused(number: int) -> OSError:
    return OSError(number, os.strerror(number))
