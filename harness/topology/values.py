"""The values that may stand in a topology: what each looks like, in words and with an example.

A description is a noun phrase, so that "expected <description>, such as <example>" is a sentence.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Annotated, Any, NewType

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

from harness.devices import PROFILES

PciAddress = NewType("PciAddress", str)
"""``domain:bus:device.function`` in lower case, as the names in sysfs are."""

MacAddress = NewType("MacAddress", str)
"""Six bytes in lower case, of one station: never a group address."""

_PCI = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]")
_MAC = re.compile(r"([0-9a-f]{2})(:[0-9a-f]{2}){5}")
_GROUP_BIT = 0x01


def _pci(text: str) -> PciAddress:
    if not _PCI.fullmatch(text.lower()):
        raise ValueError("not a PCI address")
    return PciAddress(text.lower())


def _mac(text: str) -> MacAddress:
    match = _MAC.fullmatch(text.lower())
    if match is None or int(match[1], 16) & _GROUP_BIT:
        raise ValueError("not a unicast MAC address")
    return MacAddress(text.lower())


def _with_prefix(value: Any) -> Any:
    # IPv4Interface takes "198.18.0.1" for a /32 and an integer for an address; a person who wrote
    # either meant something else.
    if isinstance(value, IPv4Interface) or (isinstance(value, str) and "/" in value):
        return value
    raise ValueError("no prefix length")


def _profile(name: str) -> str:
    if name not in PROFILES:
        raise ValueError("no such device profile")
    return name


def _own_path(path: Path) -> Path:
    # Relative to what? To the reader it is the file, to the program its working directory.
    path = path.expanduser()
    if not path.is_absolute():
        raise ValueError("a relative path")
    return path


Pci = Annotated[
    PciAddress,
    AfterValidator(_pci),
    Field(description="PCI address, as `lspci -D` prints it", examples=["0000:17:00.0"]),
]
Mac = Annotated[
    MacAddress,
    AfterValidator(_mac),
    Field(description="MAC address of one station", examples=["52:54:00:12:34:56"]),
]
Cidr = Annotated[
    IPv4Interface,
    BeforeValidator(_with_prefix),
    Field(description="IPv4 address with its prefix length", examples=["198.18.0.1/24"]),
]
Device = Annotated[
    str,
    AfterValidator(_profile),
    Field(
        description=f"name of a device profile: {', '.join(PROFILES)}",
        examples=["82599"],
        json_schema_extra={"enum": sorted(PROFILES)},
    ),
]
OwnPath = Annotated[Path, AfterValidator(_own_path)]
"""A path from / or ~; always absolute once read."""

Address = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9:][A-Za-z0-9.:%_-]*$")]
"""A host name or an IP address, without user, port or prefix length."""

_TABLE_NAME = r"^[a-z][a-z0-9-]{0,30}$"
TableName = Annotated[str, StringConstraints(pattern=_TABLE_NAME)]
"""The name of a host or port: it becomes part of file names and of ``host.port``."""

_REGISTER_NAME = r"^[A-Za-z][A-Za-z0-9_-]{0,30}$"
RegisterName = Annotated[str, StringConstraints(pattern=_REGISTER_NAME)]
"""The name of a capability, a field of it, or a value: parts of ``capability.FIELD = VALUE``."""

NAMES = {
    _TABLE_NAME: "a letter, then letters, digits and -, all lower case, at most 31, such as alder",
    _REGISTER_NAME: "a letter, then letters, digits, _ and -, at most 31, such as VF_STATUS",
}
"""What a name must be, by its pattern."""

End = Annotated[
    str, Field(description="port written host.port, host.twin or peer", examples=["alder.p0"])
]
Text = Annotated[str, StringConstraints(min_length=1)]
Word = Annotated[str, StringConstraints(pattern=r"^[^\s/]+$")]
InterfaceName = Annotated[str, StringConstraints(pattern=r"^[^\s/]{1,15}$")]
TcpPort = Annotated[int, Field(strict=True, ge=1, le=65535)]
Count = Annotated[int, Field(strict=True, ge=1)]
Mtu = Annotated[int, Field(strict=True, ge=68, le=65535)]
Share = Annotated[float, Field(strict=True, ge=0, le=1)]
Milliseconds = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
