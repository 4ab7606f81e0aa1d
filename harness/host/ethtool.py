"""``ethtool`` asks the driver of an interface: to test its device, to count, to set and to show.

The interface is that of a port on its host, or of a VF inside a guest: both are asked as a `Host`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from harness.errors import RemoteError
from harness.remote import Host

SELF_TEST_SECONDS = 120
"""The offline test of an 82599 port waits 3.6 seconds for frames in loopback, and resets six times.

Ref: Linux, drivers/net/ethernet/intel/ixgbe/ixgbe_ethtool.c, ixgbe_run_loopback_test() and
ixgbe_diag_test().
"""

_RESULT = re.compile(r"^(.*\S)\s+(\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class SelfTest:
    """An interface's driver tested its device with this result.

    *results* has a number for each test by the driver's name for it; 0 stands for a test that found
    no fault, and for one that the driver left out.
    """

    passed: bool
    results: Mapping[str, int]

    @property
    def failed(self) -> list[str]:
        """The names of the tests that found a fault."""
        return [name for name, result in self.results.items() if result]


def self_test(host: Host, interface: str, *, offline: bool, leased: bool) -> SelfTest:
    """Have the driver of *interface*, which is up, test its device.

    The *offline* test closes the interface and resets the device, and opens the interface again:
    the link comes back some time after this returns.  *leased* says whether *host* is one that is
    changed under a lease only, which a guest is not.  Raises RemoteError where the driver has no
    test, or the test does not run.
    """
    argv = ["ethtool", "--test", interface, "offline" if offline else "online"]
    changes = offline and leased
    done = host.run(*argv, check=False, changes=changes, seconds=SELF_TEST_SECONDS)
    head, _, tests = done.stdout.partition("The test extra info:")
    said = re.search(r"The test result is (PASS|FAIL)", head)
    if said is None:
        raise RemoteError(
            f"{host.name}: the driver of {interface} did not test its device",
            because=f"ethtool said {(done.stderr or done.stdout).strip()!r}",
            fix="see that the driver has a self-test, and that host's kernel log",
        )
    results = {" ".join(name.split()): int(number) for name, number in _RESULT.findall(tests)}
    return SelfTest(passed=said[1] == "PASS", results=results)


def statistics(host: Host, interface: str) -> dict[str, int]:
    """Read the counters that the driver of *interface* keeps, by the driver's names for them.

    The driver asks its device first: ixgbe_get_ethtool_stats() calls ixgbe_update_stats().
    """
    lines = _pairs(host.run("ethtool", "--statistics", interface).stdout)
    return {name: int(value) for name, value in lines.items() if value}


def module(host: Host, interface: str) -> dict[str, str]:
    """Read what the module in the cage of *interface* says of itself, by ethtool's names for it.

    Raises CommandError where there is no module, or it does not answer.
    """
    return _pairs(host.run("ethtool", "--module-info", interface).stdout)


@dataclass(frozen=True, slots=True)
class Setting:
    """A driver has this setting: ``ethtool`` *option* sets it by *name*, and shows it by *shown*.

    *option* in lower case is the one that shows; the value is the first group of *shown*.
    """

    option: str
    name: str
    shown: re.Pattern[str]

    def value(self, host: Host, interface: str) -> str:
        """Read the value now.  Raises RemoteError where the driver has no such setting."""
        told = host.run("ethtool", self.option.lower(), interface).stdout
        found = self.shown.search(told)
        if found is None:
            raise RemoteError(
                f"{host.name}: the driver of {interface} shows no {self.name}",
                because=f"`ethtool {self.option.lower()}` said {told.strip()!r}",
                fix="see which of ethtool's settings that driver has",
            )
        return found[1]

    def set(self, host: Host, interface: str, value: str, *, leased: bool) -> None:
        """Set it; *leased* as in `self_test`.  Raises CommandError where the driver refuses."""
        host.run(*self.command(interface, value), changes=leased)

    def command(self, interface: str, value: str) -> list[str]:
        """Return the command that sets *value*."""
        return ["ethtool", self.option, interface, self.name, value]


RX_RING = Setting("-G", "rx", re.compile(r"Current hardware.*?RX:\s+(\d+)", re.DOTALL))
TX_RING = Setting("-G", "tx", re.compile(r"Current hardware.*?TX:\s+(\d+)", re.DOTALL))
RX_INTERVAL = Setting("-C", "rx-usecs", re.compile(r"rx-usecs:\s+(\d+)"))
RX_CHECKSUMS = Setting("-K", "rx", re.compile(r"rx-checksumming: (\w+)"))


def eeprom(host: Host, interface: str, length: int) -> bytes:
    """Read the first *length* bytes of the device's EEPROM."""
    asked = ["ethtool", "--eeprom-dump", interface, "offset", "0", "length", str(length)]
    rows = re.findall(r"^0x\w+:\s+((?:[0-9a-f]{2} ?)+)", host.run(*asked).stdout, re.MULTILINE)
    return bytes.fromhex("".join(rows))


def registers(host: Host, interface: str) -> str:
    """Read the device's registers, in the words of ``ethtool`` that names each."""
    return host.run("ethtool", "--register-dump", interface).stdout


def _pairs(text: str) -> dict[str, str]:
    """Read lines of a name, a colon and a value."""
    split = (line.partition(":") for line in text.splitlines())
    return {name.strip(): value.strip() for name, colon, value in split if colon}
