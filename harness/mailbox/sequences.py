"""Sequences are played to the driver of a port and to our model of that driver.

A sequence has messages of a VF, each answered by one function of ixgbe_sriov.c that
ixgbe_rcv_msg_from_vf() calls, and events: what an administrator sets, resets of the VF and of the
port.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.mailbox.steps import (
    Administer,
    PortMtu,
    PortReset,
    PortUp,
    Say,
    Sequence,
    Step,
    VfReset,
)
from harness.uapi.ixgbe_pf import RECEIVE_ADDRESSES
from harness.uapi.ixgbe_vf import FAILURE, SUCCESS, Api, Message, Xcast

OWN, OTHER, THIRD = "02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:03"
GROUP, BROADCAST, NOBODY = "01:00:5e:00:00:fb", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00"
PORT_MTU = 1500
"""The port has this MTU, in bytes, when a sequence begins."""

PLACES = (0x000, 0x123, 0x124, 0x563, 0xFB0, 0xFFF)
"""Places in the multicast table that sequences ask for, and that a state tells of."""

_RESET = Say(Message.RESET)
_TRUSTED, _UNTRUSTED = Administer.of(trust="on"), Administer.of(trust="off")
_SPOKEN = (Api.V10, Api.V11, Api.V12, Api.V13, Api.V14, Api.V16, Api.V17)


def sequences() -> list[Sequence]:
    """Return the list; names are unique, and short ones come first."""
    listed = [*_short(), *_after_events(), *_full_tables(), *_sizes()]
    return sorted(listed, key=lambda sequence: sequence.is_long)


def agree(api: int) -> Say:
    """API_NEGOTIATE."""
    return Say(Message.API_NEGOTIATE, (api,))


def address(message: Message, mac: str, index: int = 0) -> Say:
    """A message with an address in its second and third word, as ixgbevf_set_rar_vf puts it."""
    raw = bytes.fromhex(mac.replace(":", "")) + bytes(2)
    words = int.from_bytes(raw[:4], "little"), int.from_bytes(raw[4:], "little")
    return Say(message, words, index)


def multicast(*places: int) -> Say:
    """SET_MULTICAST: places in the table, two to a word."""
    padded = [*places, 0] if len(places) % 2 else list(places)
    words = tuple(low | high << 16 for low, high in zip(padded[::2], padded[1::2], strict=True))
    return Say(Message.SET_MULTICAST, words, len(places))


def vlan(number: int, *, add: bool = True) -> Say:
    """SET_VLAN."""
    return Say(Message.SET_VLAN, (number,), int(add))


def _started(*steps: Step, api: int = Api.V14) -> tuple[Step, ...]:
    """A VF that was reset and has agreed on a version, and then *steps*."""
    return (_RESET, agree(api), *steps)


def _lpe(*frame_bytes: int) -> tuple[Step, ...]:
    return tuple(Say(Message.SET_LPE, (each,)) for each in frame_bytes)


def _xcast(*modes: int) -> tuple[Step, ...]:
    return tuple(Say(Message.UPDATE_XCAST_MODE, (mode,)) for mode in modes)


_RSS = (Say(Message.GET_RETA), Say(Message.GET_RSS_KEY))
_OF_EACH_KIND: dict[str, tuple[Step, ...]] = {
    "address": (address(Message.SET_MAC_ADDR, OWN),),
    "foreign address": (address(Message.SET_MAC_ADDR, OTHER),),
    "further addresses": (
        address(Message.SET_MACVLAN, OTHER, 1),
        address(Message.SET_MACVLAN, THIRD, 2),
    ),
    "vlan": (vlan(5), vlan(0, add=False)),
    "multicast": (multicast(0x123, 0x563),),
    "promiscuity": _xcast(Xcast.PROMISC, Xcast.MULTI, Xcast.NONE, Xcast.ALLMULTI),
    "frame size": _lpe(1518),
    "refused frame size": _lpe(9018),
    "questions": (Say(Message.GET_QUEUES), *_RSS, Say(Message.GET_LINK_STATE)),
    "RSS query": _RSS,
    "versions": (*map(agree, _SPOKEN), agree(Api.V14)),
    "jumbo frame size": _lpe(9018),
    "standard frame size beside jumbo frames": (agree(Api.V10), *_lpe(1518)),
    "unknown": (Say(0x13),),
}
"""What a VF says when it starts, by kind; it is said again after each event."""

_BEFORE_KIND: dict[str, tuple[Step, ...]] = {
    "foreign address": (Administer.of(mac=OWN),),
    "RSS query": (Administer.of(query_rss="on"),),
    "jumbo frame size": (PortMtu(9000),),
    "standard frame size beside jumbo frames": (PortMtu(9000),),
}
"""The port grants a kind of message, or refuses it, only after these steps."""


def _short() -> Iterator[Sequence]:
    yield from _resets_and_versions()
    yield from _addresses()
    yield from _vlans_and_groups()
    yield Sequence(
        "frame sizes on a standard port",
        _started(*_lpe(0, 67, 68, 1500, 1518, 1519, 9018, 9728, 9729, 0xFFFFFFFF, 1518)),
    )
    yield Sequence("frame sizes with the oldest version", _started(*_lpe(68, 1518, 1519), api=0))
    yield Sequence(
        "frame size of a VF whose link is disabled",
        (Administer.of(state="disable"), *_started(*_lpe(1518))),
    )
    yield Sequence(
        "link state", (*_started(Say(Message.GET_LINK_STATE)), Administer.of(state="enable"),
        Say(Message.GET_LINK_STATE), Administer.of(state="disable"),
        *_started(Say(Message.GET_LINK_STATE)), Administer.of(state="auto"),
        *_started(Say(Message.GET_LINK_STATE)))
    )  # fmt: skip
    yield Sequence(
        "RSS query", (*_started(*_RSS), Administer.of(query_rss="on"), *_RSS,
        *(step for api in (Api.V10, Api.V11, Api.V12, Api.V13) for step in (agree(api), *_RSS)))
    )  # fmt: skip
    # A trusted VF never says IPSEC_DEL here: ixgbe_ipsec_vf_del_sa then reads a table that a port
    # without IPsec does not have, in its interrupt handler.
    ipsec = Say(Message.IPSEC_ADD, (0, 0)), Say(Message.IPSEC_DEL, (0,))
    yield Sequence(
        "what no VF is granted",
        (*_started(*ipsec, Say(Message.GET_PF_LINK_STATE), Say(Message.FEATURES_NEGOTIATE, (3,))),
         *(Say(number) for number in (0, 7, 0x0F, 0x13, 0xFFFF)), Say(Message.RESET, info=1),
         Say(Message.RESET | SUCCESS), Say(Message.GET_QUEUES | FAILURE), Say(Message.GET_QUEUES),
         _TRUSTED, *_started(ipsec[0])),
    )  # fmt: skip


def _resets_and_versions() -> Iterator[Sequence]:
    yield Sequence(
        "nothing is done before a reset",
        (*(Say(each, (1518,)) for each in Message if each != Message.RESET), Say(0x13), _RESET,
         Say(Message.GET_LINK_STATE)),
    )  # fmt: skip
    yield Sequence("versions", (_RESET, *map(agree, (*range(10), 0xFFFFFFFF))))
    for api in _SPOKEN:
        yield Sequence(
            f"what {api.name} knows",
            _started(
                Say(Message.GET_QUEUES), *_RSS, *_xcast(Xcast.MULTI, Xcast.PROMISC),
                Say(Message.GET_LINK_STATE), Say(Message.FEATURES_NEGOTIATE, (3,)),
                Say(Message.GET_PF_LINK_STATE), api=api,
            ),
        )  # fmt: skip
    asked_for = (
        *_OF_EACH_KIND["address"], *_OF_EACH_KIND["further addresses"], vlan(5), multicast(0x123),
        *_xcast(Xcast.MULTI),
    )  # fmt: skip
    again = (Say(Message.GET_QUEUES), agree(Api.V12), *_xcast(Xcast.MULTI, Xcast.NONE, Xcast.MULTI))
    for name, reset in (("message", _RESET), ("register", VfReset()), ("function", VfReset(True))):
        yield Sequence(f"reset by {name}", (*_started(*asked_for), reset, *again))


def _addresses() -> Iterator[Sequence]:
    bad = tuple(address(Message.SET_MAC_ADDR, each) for each in (GROUP, BROADCAST, NOBODY))
    own, other = (address(Message.SET_MAC_ADDR, each) for each in (OWN, OTHER))
    yield Sequence("own address", (*_started(own, *bad, other, own), _RESET, other))
    yield Sequence(
        "given address",
        (Administer.of(mac=OWN), *_started(own, other, *bad), _RESET, Administer.of(mac=OTHER),
         own, Administer.of(mac=GROUP), Administer.of(mac=NOBODY), own, _RESET),
    )  # fmt: skip
    yield Sequence(
        "given address of a trusted VF",
        (Administer.of(mac=OWN, trust="on"), *_started(other, *bad), _UNTRUSTED, *_started(own)),
    )
    yield Sequence(
        "given address that a reset takes out",
        (Administer.of(mac=OWN), _RESET, VfReset(True), Administer.of(mac=NOBODY),
         Administer.of(mac=NOBODY), _RESET, Administer.of(mac=NOBODY), _RESET,
         Administer.of(mac=NOBODY)),
    )  # fmt: skip
    bad = tuple(address(Message.SET_MACVLAN, each, 1) for each in (GROUP, NOBODY))
    more = (
        *_OF_EACH_KIND["further addresses"], address(Message.SET_MACVLAN, OTHER, 3), *bad,
        address(Message.SET_MACVLAN, THIRD, 1), address(Message.SET_MACVLAN, NOBODY),
        address(Message.SET_MACVLAN, OTHER, 2), address(Message.SET_MACVLAN, OWN, 255),
    )  # fmt: skip
    yield Sequence("further addresses", _started(*more, _RESET))
    yield Sequence("further addresses beside a given one", (Administer.of(mac=OWN), _RESET, *more))
    yield Sequence(
        "further addresses of a trusted VF",
        (Administer.of(mac=OWN, trust="on"), _RESET, *more[:2], _UNTRUSTED, _RESET, *more[:2]),
    )
    yield Sequence(
        "spoof check",
        (*_started(own, Administer.of(spoofchk="off")), Administer.of(spoofchk="on"), *bad,
         more[0], Administer.of(spoofchk="on"), _RESET, more[0], _RESET, Administer.of(vlan="7"),
         _RESET, Administer.of(spoofchk="off"), more[0], _RESET),
    )  # fmt: skip


def _vlans_and_groups() -> Iterator[Sequence]:
    some = (vlan(5), vlan(5), vlan(4095), vlan(0x1006), vlan(0), vlan(5, add=False))
    yield Sequence("VLANs", _started(*some, vlan(9, add=False), vlan(0, add=False)))
    yield Sequence(
        "VLANs of a VF that is in one of the port's",
        (*_started(vlan(5)), Administer.of(vlan="7"), *some, Say(Message.GET_QUEUES), _RESET,
         agree(Api.V14), *some, Say(Message.GET_QUEUES), Administer.of(vlan="8"),
         Administer.of(vlan="0"), vlan(6), _RESET),
    )  # fmt: skip
    yield Sequence(
        "VLANs with a priority",
        (*_started(vlan(5)), Administer.of(vlan="7", qos="3"), Say(Message.GET_QUEUES), vlan(6),
         *_started(Say(Message.GET_QUEUES)), Administer.of(vlan="0", qos="5"), vlan(6),
         Say(Message.GET_QUEUES), *_started(Say(Message.GET_QUEUES), vlan(6)),
         Administer.of(vlan="8", qos="7"), Administer.of(vlan="0"),
         vlan(6), _RESET),
    )  # fmt: skip
    yield Sequence(
        "multicast",
        _started(
            multicast(0x123), multicast(0xFFF, 0xFB0), multicast(), multicast(*[0x124] * 29, 0x563),
            Say(Message.SET_MULTICAST, (0xF123F124,), 2), _RESET, multicast(),
        ),
    )  # fmt: skip
    modes = (*range(5), 0, 0xFFFFFFFF, 0x80000000)
    for trusted in (False, True):
        for api in (Api.V12, Api.V13):
            yield Sequence(
                f"xcast modes, {api.name}, {'trusted' if trusted else 'untrusted'}",
                (Administer.of(trust="on" if trusted else "off"), *_started(*_xcast(*modes),
                 multicast(0x123), *_xcast(2, 1, 0, 2), api=api), _RESET, agree(api),
                 *_xcast(2, 1, 2, 0)),
            )  # fmt: skip


def _after_events() -> Iterator[Sequence]:
    """Each kind of message before an event, after it, and after the reset that it asks for."""
    disabled = Administer.of(state="disable")
    events: dict[str, tuple[tuple[Step, ...], tuple[Step, ...]]] = {
        "trust is given": ((), (_TRUSTED,)),
        "trust is withdrawn": ((_TRUSTED,), (_UNTRUSTED,)),
        "the link state is set": ((), (Administer.of(state="auto"),)),
        "the link is disabled": ((), (disabled,)),
        "the link is no more disabled": ((disabled,), (Administer.of(state="auto"),)),
        "a reset of the port": ((), (PortReset(),)),
        "the port goes down and up": ((), (PortUp(False), PortUp(True))),
    }
    for event, (before, happens) in events.items():
        for kind, said in _OF_EACH_KIND.items():
            yield Sequence(
                f"{kind}, and then {event}",
                (*_BEFORE_KIND.get(kind, ()), *before, *_started(*said), *happens, *said,
                 *_started(*said)), is_long=True,
            )  # fmt: skip
    given = Administer.of(mac=OWN, trust="on", vlan="7")
    multi = (multicast(0x123), *_xcast(Xcast.ALLMULTI))
    yield Sequence(
        "what an administrator set outlives a reset of the port",
        (given, *_started(*multi), PortReset(), Administer.of(mac=NOBODY), *_started(*multi)), True,
    )  # fmt: skip


def _full_tables() -> Iterator[Sequence]:
    yield Sequence(
        "more VLANs than there is room for",
        _started(*map(vlan, range(1, 66)), vlan(100, add=False), vlan(9, add=False), vlan(100)),
        is_long=True, room=RECEIVE_ADDRESSES,
    )  # fmt: skip
    macs = (f"02:00:00:00:01:{number:02x}" for number in range(1, 114))
    yield Sequence(
        "more addresses than there is room for",
        _started(
            *(address(Message.SET_MACVLAN, mac, min(at, 255)) for at, mac in enumerate(macs, 1)),
            address(Message.SET_MACVLAN, OTHER, 1), _RESET,
        ),
        is_long=True, room=RECEIVE_ADDRESSES,
    )  # fmt: skip


def _sizes() -> Iterator[Sequence]:
    """Yield sequences about jumbo frames: sizes at every limit, for each MTU and API version."""
    asked = _lpe(67, 68, 1518, 1519, 1522, 9018, 9728, 9729, 1518)
    for mtu in (1000, 1501, 9000, 9710):
        yield Sequence(
            f"frame sizes on a port with an MTU of {mtu}",
            (PortMtu(mtu), *(step for api in _SPOKEN for step in _started(*asked, api=api))),
            is_long=True,
        )
