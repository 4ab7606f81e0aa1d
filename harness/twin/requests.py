"""What a VF asks its port for over the mailbox, and what the port's driver does about it.

Ref: Linux 6.12, drivers/net/ethernet/intel/ixgbe/ixgbe_sriov.c; the names of its functions stand
at ours.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Callable

from harness.twin.filters import NO_MAC, VLAN_IDS
from harness.uapi import ixgbe_vf
from harness.uapi.ixgbe_pf import RECEIVE_ADDRESSES, VLAN_FILTERS, Vmolr
from harness.uapi.ixgbe_vf import Api, Message, Xcast

if TYPE_CHECKING:
    from harness.twin.port import Port

LEAST_FRAME_BYTES = 68
"""ETH_MIN_MTU, which the driver holds a frame against."""

LEGACY_FRAME_BYTES = 1514
"""ETH_FRAME_LEN: a larger one, without its checksum, is a jumbo frame."""

_MULTICAST_ENTRIES = 30  # IXGBE_MAX_VF_MC_ENTRIES
_MACVLANS_WITHOUT_VFS = RECEIVE_ADDRESSES - (15 + 1)
"""ixgbe_alloc_vf_macvlans: num_rar_entries less IXGBE_MAX_PF_MACVLANS and the port's own."""

_SIGN = 1 << 31


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
    if given.mac_given and given.mac != mac and not given.trusted:
        return False
    given.mac = port.filters.mac = mac  # the driver keeps one address, whoever set it last
    return True


def _set_multicast(port: Port, words: list[int]) -> bool:
    """ixgbe_set_vf_multicasts: positions in the table, two to a word.

    Those that were asked for before stay in the table until a reset of the VF, or of the port.
    """
    entries = min(_info(words), _MULTICAST_ENTRIES)
    halves = [half for word in words[1:] for half in (word & 0xFFFF, word >> 16)]
    port.administered.hashes = [half & 0xFFF for half in halves[:entries]]
    port.filters.multicast.update(port.administered.hashes)
    port.filters.accepts |= Vmolr.ROMPE
    return True


def _set_vlan(port: Port, words: list[int]) -> bool:
    """ixgbe_set_vf_vlan_msg; VLAN 0 cannot be removed, and there are so many entries."""
    vlan, adds, vlans = words[1] & VLAN_IDS, bool(_info(words)), port.filters.vlans
    if port.administered.vlan:
        return False
    if not (vlan or adds):
        return True
    if vlan not in vlans and len(vlans) == VLAN_FILTERS:  # the first is for VLAN 0
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
    if index and given.mac_given and not given.trusted:
        return False
    if index and (mac[0] & 1 or mac == NO_MAC):
        return False
    if index <= 1:
        port.filters.macvlans.clear()
    if index:
        port.checks_spoofing = False
        if len(port.filters.macvlans) == _MACVLANS_WITHOUT_VFS - port.vfs:
            return False
        port.filters.macvlans.append(mac)
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
    transparent_vlan = port.administered.has_port_vlan
    words[1:5] = [port.queues, port.queues, transparent_vlan, 0]
    return True


def _get_reta(port: Port, words: list[int]) -> bool:
    """ixgbe_get_vf_reta: two bits for each entry, of which every four are 0, 1, 2, 3."""
    if not port.administered.rss_query or port.api < Api.V12:
        return False
    entries = range(ixgbe_vf.RETA_ENTRIES)
    whole = sum(each % ixgbe_vf.MOST_QUEUES << 2 * each for each in entries)
    words[1:9] = _words(whole.to_bytes(ixgbe_vf.RETA_ENTRIES // 4, "little"))
    return True


def _get_rss_key(port: Port, words: list[int]) -> bool:
    """ixgbe_get_vf_rss_key."""
    if not port.administered.rss_query or port.api < Api.V12:
        return False
    words[1:11] = _words(port.rss_key)
    return True


def _update_xcast(port: Port, words: list[int]) -> bool:
    """ixgbe_update_vf_xcast_mode; the 82599 knows no promiscuous VF.

    A mode that the driver has on record is granted without a look at the hardware, which a reset
    of the VF has changed meanwhile: with MULTI the VF then gets no multicast frame.
    """
    mode = words[1]
    if port.api < Api.V12 or (port.api == Api.V12 and mode == Xcast.PROMISC):
        return False
    if Xcast.MULTI < mode < _SIGN and not port.administered.trusted:
        mode = int(Xcast.MULTI)
    if mode >= Xcast.PROMISC:
        return False
    if mode != port.administered.xcast:
        kept = port.filters.accepts & ~(Vmolr.ROMPE | Vmolr.MPE)
        port.filters.accepts = kept | _ACCEPTED[mode]
    port.administered.xcast = words[1] = mode
    return True


def _get_link_state(port: Port, words: list[int]) -> bool:
    """ixgbe_get_vf_link_state."""
    if port.api < Api.V12:
        return False
    words[1] = int(port.administered.enabled)
    return True


def _negotiate_features(port: Port, words: list[int]) -> bool:
    """ixgbe_negotiate_vf_features: it offers IPsec, and grants none to a VF."""
    if port.api < Api.V17:
        return False
    words[1] &= ixgbe_vf.FEATURE_IPSEC
    return True


def _add_security_association(_port: Port, words: list[int]) -> bool:
    """ixgbe_ipsec_vf_add_sa, on a port where nobody set the private flag ``vf-ipsec``."""
    words[1] = -errno.EACCES & 0xFFFFFFFF
    return False


_ANSWERS: dict[int, Callable[[Port, list[int]], bool]] = {
    Message.SET_MAC_ADDR: _set_mac_addr,
    Message.SET_MULTICAST: _set_multicast,
    Message.SET_VLAN: _set_vlan,
    Message.SET_LPE: _set_lpe,
    Message.SET_MACVLAN: _set_macvlan,
    Message.API_NEGOTIATE: _negotiate,
    Message.GET_QUEUES: _get_queues,
    Message.GET_RETA: _get_reta,
    Message.GET_RSS_KEY: _get_rss_key,
    Message.UPDATE_XCAST_MODE: _update_xcast,
    Message.GET_LINK_STATE: _get_link_state,
    Message.FEATURES_NEGOTIATE: _negotiate_features,
    Message.IPSEC_ADD: _add_security_association,
}
"""The port answers these requests and refuses every other."""

_ACCEPTED: dict[int, int] = {
    Xcast.NONE: Vmolr.BAM,
    Xcast.MULTI: Vmolr.BAM | Vmolr.ROMPE,
    Xcast.ALLMULTI: Vmolr.BAM | Vmolr.ROMPE | Vmolr.MPE,
}


def _info(words: list[int]) -> int:
    return words[0] >> ixgbe_vf.INFO_SHIFT & ixgbe_vf.INFO_MASK


def _mac(words: list[int]) -> bytes:
    return words[1].to_bytes(4, "little") + (words[2] & 0xFFFF).to_bytes(2, "little")


def _words(data: bytes) -> list[int]:
    return [int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 4)]
