"""One step of a sequence: what the VF says, what an administrator sets, what is reset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from harness.uapi.ixgbe_vf import INFO_SHIFT, Message

NO_MAC = "00:00:00:00:00:00"


@dataclass(frozen=True, slots=True)
class Say:
    """The VF posts a message: its number, the eight bits beside it, and the words that follow."""

    message: int
    words: tuple[int, ...] = ()
    info: int = 0

    @property
    def sent(self) -> list[int]:
        """The words as they go into the mailbox."""
        return [self.message | self.info << INFO_SHIFT, *self.words]

    def __str__(self) -> str:
        known = {int(each): each.name for each in Message}
        name = known.get(self.message, f"{self.message:#x}")
        beside = [f"info={self.info}"] if self.info else []
        return " ".join(["say", name, *beside, *(f"{word:#x}" for word in self.words)])


@dataclass(frozen=True, slots=True)
class Administer:
    """An administrator sets attributes of the VF, by the words of ``ip link set PORT vf N``.

    Several are set in the order of the kernel's do_setvfinfo(), whichever order they have here.
    """

    attributes: Mapping[str, str]

    @classmethod
    def of(cls, **attributes: str) -> Administer:
        return cls(MappingProxyType(attributes))

    def __str__(self) -> str:
        return " ".join(["set", *(f"{name} {value}" for name, value in self.attributes.items())])


@dataclass(frozen=True, slots=True)
class PortMtu:
    """The port gets another MTU, which resets it."""

    mtu: int

    def __str__(self) -> str:
        return f"port mtu {self.mtu}"


@dataclass(frozen=True, slots=True)
class PortUp:
    """The port's interface goes up, or down, which resets the port."""

    up: bool

    def __str__(self) -> str:
        return f"port {'up' if self.up else 'down'}"


@dataclass(frozen=True, slots=True)
class PortReset:
    """The port is reset, as ``ethtool --negotiate`` does it."""

    def __str__(self) -> str:
        return "port reset"


@dataclass(frozen=True, slots=True)
class VfReset:
    """The VF is reset: by its own register (VFCTRL), or by a function level reset."""

    flr: bool = False

    def __str__(self) -> str:
        return "vf function level reset" if self.flr else "vf reset"


Step = Say | Administer | PortMtu | PortUp | PortReset | VfReset


@dataclass(frozen=True, slots=True)
class Sequence:
    """A sequence is a list of steps that are played one after another, after `BEGINNING`.

    A sequence that *is_long* is played by the nightly run alone.  *room* is the most addresses, and
    the most VLANs, that the port has while the sequence is played; a player reads so many entries
    of the port's tables.
    """

    name: str
    steps: tuple[Step, ...]
    is_long: bool = False
    room: int = 8


SPARE_MAC = "02:00:00:00:00:fe"
BEGINNING: tuple[Step, ...] = (
    Administer.of(vlan="0", spoofchk="on", query_rss="off", state="auto", trust="off"),
    Say(Message.RESET),
    Say(Message.API_NEGOTIATE, (3,)),
    Say(Message.UPDATE_XCAST_MODE, (0,)),
    VfReset(),
    Administer.of(mac=SPARE_MAC),
    Administer.of(mac=NO_MAC, state="auto"),
)
"""These steps bring a VF, on a port with an MTU of 1500, to the state where a sequence begins.

The port's driver keeps a VF's address and xcast mode over every reset.  So a message of the VF
sets the mode back, and the administrator sets the address back.  After these steps the VF has no
address and is not clear to send (CTS).
"""
