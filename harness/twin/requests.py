"""What a VF asks its port for over the mailbox, and what the port's driver does about it.

Ref: Linux 6.12, drivers/net/ethernet/intel/ixgbe/ixgbe_sriov.c; the names of its functions stand
at ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from harness.twin.filters import NO_MAC, VLAN_IDS
from harness.uapi import ixgbe_vf
from harness.uapi.ixgbe_vf import Api, Message, Xcast

if TYPE_CHECKING:
    from harness.twin.port import Port

LEAST_FRAME_BYTES = 68
"""ETH_MIN_MTU, which the driver holds a frame against."""

LEGACY_FRAME_BYTES = 1514
"""ETH_FRAME_LEN: a larger one, without its checksum, is a jumbo frame."""

_MULTICAST_ENTRIES = 30  # IXGBE_MAX_VF_MC_ENTRIES
_VLVF_ENTRIES = 64  # IXGBE_VLVF_ENTRIES; the first is for VLAN 0


def grant(port: Port, words: list[int]) -> bool:
    """Do what the message *words* asks for; whether it was granted.

    Where the answer is more than that, it stands in *words* then.
    """
    answer = _ANSWERS.get(words[0] & 0xFFFF)
    return answer is not None and answer(port, words)


def _set_mac_addr(port: Port, words: list[int]) -> bool:
    """ixgbe_set_vf_mac_addr: what an administrator gave is not overridden."""
    mac = _mac(words)
    if mac[0] & 1 or mac == NO_MAC:
        return False
    given = port.administered
    if given.mac not in (NO_MAC, mac) and not given.trusted:
        return False
    if given.mac != NO_MAC:
        given.mac = mac  # the driver keeps one address of a VF, whoever set it last
    port.filters.mac = mac
    return True


def _set_multicast(port: Port, words: list[int]) -> bool:
    """ixgbe_set_vf_multicasts: positions in the table, two to a word."""
    entries = min(_info(words), _MULTICAST_ENTRIES)
    halves = [half for word in words[1:] for half in (word & 0xFFFF, word >> 16)]
    port.filters.multicast = {half & 0xFFF for half in halves[:entries]}
    port.filters.by_hash = True
    return True


def _set_vlan(port: Port, words: list[int]) -> bool:
    """ixgbe_set_vf_vlan_msg; VLAN 0 cannot be removed, and there are so many entries."""
    vlan, adds, vlans = words[1] & VLAN_IDS, bool(_info(words)), port.filters.vlans
    if port.administered.vlan:
        return False
    if not (vlan or adds):
        return True
    if vlan not in vlans and len(vlans) == _VLVF_ENTRIES:
        return False  # ixgbe_find_vlvf_slot finds neither the VLAN nor an empty slot
    if adds:
        vlans.add(vlan)
    else:
        vlans.discard(vlan)
    return True


def _set_lpe(port: Port, words: list[int]) -> bool:
    """ixgbe_set_vf_lpe: the 82599 cannot mix jumbo frames and others."""
    frame_bytes = words[1]  # its checksum counted
    if not LEAST_FRAME_BYTES <= frame_bytes <= ixgbe_vf.MAX_FRAME_BYTES:
        return False
    new_mailbox = port.api >= Api.V11 and port.api != Api.V20
    wants_jumbo = frame_bytes > LEGACY_FRAME_BYTES + ixgbe_vf.CHECKSUM_BYTES
    allowed = (new_mailbox and port.is_jumbo) or not (port.is_jumbo or wants_jumbo)
    port.receives = allowed
    if allowed:
        largest = frame_bytes - ixgbe_vf.CHECKSUM_BYTES
        port.largest_frame = max(port.largest_frame, largest)
    return allowed


def _set_macvlan(port: Port, words: list[int]) -> bool:
    """ixgbe_set_vf_macvlan_msg: index 0 clears, 1 begins a new list.

    An address that is added turns the spoof check off, "to avoid false positives", and to clear the
    list does not turn it on again: an administrator does, or a reset of the port, or one of a VF
    that has a port VLAN (ixgbe_vf_reset_event).
    """
    index, mac = _info(words), _mac(words)
    given = port.administered
    if index and given.mac != NO_MAC and not given.trusted:
        return False
    if index and (mac[0] & 1 or mac == NO_MAC):
        return False
    if index <= 1:
        port.filters.macvlans.clear()
    if index:
        port.checks_spoofing = False
        port.filters.macvlans.add(mac)
    return True


def _negotiate(port: Port, words: list[int]) -> bool:
    """ixgbe_negotiate_vf_api."""
    api = words[1]
    if api in (Api.V20, Api.V15) or api > port.administered.api:
        return False
    port.api = api
    return True


def _get_queues(port: Port, words: list[int]) -> bool:
    """ixgbe_get_vf_queues."""
    if port.api < Api.V20:
        return False
    transparent_vlan = bool(port.administered.vlan)
    words[1:5] = [ixgbe_vf.QUEUES, ixgbe_vf.QUEUES, transparent_vlan, 0]
    return True


def _update_xcast(port: Port, words: list[int]) -> bool:
    """ixgbe_update_vf_xcast_mode; the 82599 knows no promiscuous VF."""
    mode = words[1]
    if port.api < Api.V12 or (port.api == Api.V12 and mode == Xcast.PROMISC):
        return False
    if mode > Xcast.MULTI and not port.administered.trusted:
        mode = int(Xcast.MULTI)
    if mode >= Xcast.PROMISC:
        return False
    if mode != port.filters.xcast:
        port.filters.by_hash = mode >= Xcast.MULTI
    port.filters.xcast = words[1] = mode
    return True


def _get_link_state(port: Port, words: list[int]) -> bool:
    """ixgbe_get_vf_link_state."""
    if port.api < Api.V12:
        return False
    words[1] = int(port.administered.enabled)
    return True


def _negotiate_features(port: Port, words: list[int]) -> bool:
    """ixgbe_negotiate_vf_features; IPsec would be one, and is not modelled."""
    if port.api < Api.V17:
        return False
    words[1] = 0
    return True


_ANSWERS: dict[int, Callable[[Port, list[int]], bool]] = {
    Message.SET_MAC_ADDR: _set_mac_addr,
    Message.SET_MULTICAST: _set_multicast,
    Message.SET_VLAN: _set_vlan,
    Message.SET_LPE: _set_lpe,
    Message.SET_MACVLAN: _set_macvlan,
    Message.API_NEGOTIATE: _negotiate,
    Message.GET_QUEUES: _get_queues,
    Message.UPDATE_XCAST_MODE: _update_xcast,
    Message.GET_LINK_STATE: _get_link_state,
    Message.FEATURES_NEGOTIATE: _negotiate_features,
}
"""What is answered; RETA and RSS key are refused as on a port where nobody turned the query on."""


def _info(words: list[int]) -> int:
    return words[0] >> ixgbe_vf.INFO_SHIFT & ixgbe_vf.INFO_MASK


def _mac(words: list[int]) -> bytes:
    return words[1].to_bytes(4, "little") + (words[2] & 0xFFFF).to_bytes(2, "little")
