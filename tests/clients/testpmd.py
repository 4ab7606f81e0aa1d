"""DPDK's testpmd, as a person runs it: started in a shell, and told what to do at its prompt."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from clients.machine import ClientMachine
from harness.errors import LabError
from harness.lab.packages import LEFT_OUT
from harness.lab.programs import last_words
from harness.lab.tree import Recipe

RECIPE = Recipe(
    ("busybox-static", "dpdk-dev", "kmod", "librte-mempool-ring25", "linux-image-amd64"),
    left_out=LEFT_OUT,
)
FILES = (
    "usr/bin/dpdk-testpmd",
    "usr/lib/x86_64-linux-gnu/dpdk/pmds-25.0/librte_mempool_ring.so.25.0",  # DPDK opens it by name
    "usr/lib/x86_64-linux-gnu/libgcc_s.so.1",  # and glibc this, when a thread is cancelled
)
MODULES = ("ixgbe", "ixgbevf", "vfio_pci", "vfio_iommu_type1", "uio_pci_generic")

JUMBO = "--max-pkt-len=9018"
SEGMENTS = 0x8000
"""RTE_ETH_TX_OFFLOAD_MULTI_SEGS of rte_ethdev.h: a frame may be in more than one buffer."""

CHECKSUMS = ("--tx-offloads=0x802e", "--rx-offloads=0xe")
"""All of rte_ethdev.h for checksums of IPv4, UDP and TCP, TCP's segments, and MULTI_SEGS."""

_PROMPT = "testpmd> "
_SECONDS = 60
_BUFFERS = 4096  # its own choice, 155456, does not fit in the machine's huge pages


class Pmd:
    """A testpmd that runs in *machine* and has port 0."""

    def __init__(self, machine: ClientMachine) -> None:
        self._machine = machine

    def tell(self, *lines: str) -> str:
        """Type commands, each at a new prompt; return what was said to the last of them.

        Raises LabError if testpmd ends, or takes a line for an error.
        """
        said = ""
        for line in lines:
            self._machine.console.say(line)
            pattern = re.escape(line) + rf"(.*?)({_PROMPT}|status=)"
            said = self._machine.console.hear(pattern, within=_SECONDS)[1]
            if "Bad arguments" in said or "Command not found" in said or "Ambiguous" in said:
                raise LabError(
                    f"the client: testpmd does not take `{line}`",
                    because=f"it says: {last_words(said)}",
                    fix="see the testpmd guide of the DPDK that the distribution has",
                )
        return said

    def hear(self, pattern: str) -> re.Match[str]:
        """Return the first match of *pattern* in what it says by itself."""
        return self._machine.console.hear(pattern, within=_SECONDS)

    def set_up(self, *lines: str) -> None:
        """Type commands that it takes only while nothing is forwarded and the port is stopped."""
        self.tell("stop", "port stop 0", *lines, "port start 0", "start")

    @property
    def mac(self) -> str:
        """The address of the function."""
        found = re.search(r"MAC address: (\S+)", self.tell("show port info 0"))
        assert found, "testpmd says no address"
        return found[1].lower()

    def count(self, name: str) -> int:
        """Return a counter of the port, such as RX-packets."""
        found = re.search(rf"{name}: +(\d+)", self.tell("show port stats 0"))
        assert found, f"testpmd has no counter {name}"
        return int(found[1])


@contextmanager
def forwarding(
    machine: ClientMachine, address: str, *options: str,
    driver: str = "vfio-pci", memory: str = "",
) -> Iterator[Pmd]:  # fmt: skip
    """Run testpmd on the function at *address*, which begins to forward; it quits with the body.

    The function is had by *driver*, which gives it to programs; *memory* are DPDK's options for
    its memory, which is in huge pages by default.  Raises LabError if testpmd does not come up.
    """
    machine.bind(address, driver)
    options = ("--auto-start", "--forward-mode=macswap", f"--total-num-mbufs={_BUFFERS}", *options)
    machine.console.say(
        f"dpdk-testpmd -l 0,1 -a {address} --no-telemetry {memory} -- -i {' '.join(options)}; "
        'echo "status=$?"'
    )
    started = machine.console.hear(rf"(.*?)({_PROMPT}|status=\d+\n)", within=_SECONDS)
    if started[2] != _PROMPT:
        raise _not_up(address, started[1])
    try:
        if "No probed ethernet devices" in started[1]:
            raise _not_up(address, started[1].partition("testpmd: No probed")[0])
        yield Pmd(machine)
    finally:
        machine.console.say("quit")
        machine.console.hear(r"status=0\n", within=_SECONDS)


def _not_up(address: str, said: str) -> LabError:
    return LabError(
        f"the client: testpmd does not come up on {address}",
        because=f"it says: {last_words(said)}",
        fix="see dmesg of the client, and what its chip says",
    )
