"""Play sequences to the driver of a port, in the place of a VF's driver.

The VF is bound to vfio-pci, and nobody else uses it.  What its port's driver has set is read from
the port's registers by that driver itself; see ``harness.agent.port_registers``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from harness.agent.port_registers import DRIVER
from harness.host.changes import changed_back, set_attribute
from harness.host.virtual_function import VirtualFunction
from harness.mailbox import state
from harness.mailbox.sequences import PORT_MTU
from harness.mailbox.steps import (
    BEGINNING,
    Administer,
    PortMtu,
    PortReset,
    PortUp,
    Say,
    Step,
    VfReset,
)
from harness.mailbox.steps import Sequence as Played
from harness.mailbox.transcript import Entry, Writer, words

DEBUGFS = "/sys/kernel/debug"
_SECONDS = 300.0
_REFUSED = "RTNETLINK answers: "
_AgentStep = dict[str, Any]
_SETTLE: _AgentStep = {"kind": "settle"}


@dataclass(frozen=True, slots=True)
class DriverPlayer:
    """Plays to the driver of *vf*'s port; see `driver_player`."""

    vf: VirtualFunction

    @property
    def release(self) -> str:
        """The release of the kernel that the driver came with."""
        return self.vf.host.run("uname", "-r").stdout.strip()

    @property
    def driver(self) -> str:
        """Which driver it is: its name, and the release of its kernel."""
        return f"{self.vf.port.profile.pf_driver.value} of Linux {self.release}"

    def play(self, sequence: Played) -> list[Entry]:
        """Play one sequence from `BEGINNING` on; return an entry for `BEGINNING` and each step.

        The port has PORT_MTU again afterwards.  Raises AgentError, for example where the port does
        not take a message.
        """
        steps = [*BEGINNING, *sequence.steps]
        before = len(BEGINNING) - 1  # the transcript has one entry for all of BEGINNING
        asked = [self._change(step) for step in BEGINNING[:before]]
        asked += [[*self._change(step), {"kind": "look"}] for step in steps[before:]]
        ending = [] if PortMtu not in map(type, steps) else self._change(PortMtu(PORT_MTU))
        vf, port = self.vf, self.vf.port
        results = iter(
            vf.host.act(
                "vf.play", seconds=_SECONDS, address=vf.pci, port=port.pci, index=vf.index,
                carrier=f"/sys/class/net/{port.interface}/carrier",
                rows=state.rows(vf.index, sequence.room),
                show=["ip", "-json", "-details", "link", "show", "dev", port.interface],
                steps=[*(each for some in asked for each in some), *ending],
            )
        )  # fmt: skip
        writer = Writer()
        for number, (step, some) in enumerate(zip(steps, asked, strict=True)):
            came = [next(results) for _ in some]
            if number >= before:
                self._write(writer, "beginning" if number == before else str(step), came)
        return writer.entries

    def _change(self, step: Step) -> list[_AgentStep]:
        interface = self.vf.port.interface
        if isinstance(step, Say):
            return [{"kind": "say", "words": step.sent}]
        if isinstance(step, VfReset):
            return [{"kind": "reset", "flr": step.flr}]
        if isinstance(step, PortReset):
            return [{"kind": "run", "argv": ["ethtool", "--negotiate", interface]}, _SETTLE]
        if isinstance(step, PortUp):
            state = "up" if step.up else "down"
            change: _AgentStep = {
                "kind": "run", "argv": ["ip", "link", "set", "dev", interface, state],
            }  # fmt: skip
            return [change, _SETTLE] if step.up else [change]
        if isinstance(step, PortMtu):
            path = f"/sys/class/net/{interface}/mtu"
            return [{"kind": "write", "path": path, "text": str(step.mtu)}, _SETTLE]
        return [{"kind": "run", "argv": self._administering(step)}]

    def _administering(self, step: Administer) -> list[str]:
        given = [word for pair in step.attributes.items() for word in pair]
        where = ["dev", self.vf.port.interface, "vf", str(self.vf.index)]
        return ["ip", "link", "set", *where, *given]

    def _write(self, writer: Writer, step: str, came: Sequence[dict[str, Any]]) -> None:
        *changes, look = came
        values = dict(look["registers"])
        seen = state.of_registers(values, self.vf.index)
        seen["shown"] = state.shown(json.loads(look["shown"]), self.vf.index)
        told = [each["heard"] for each in changes if each["heard"] is not None]
        said, refused = changes[0], changes[0].get("stderr", "")
        writer.add(
            step,
            seen,
            reply=words(said["reply"], state.rss_key(values)) if "reply" in said else None,
            after=None if said.get("after") is None else f"{said['after']:x}",
            told=f"{told[-1]:x}" if told else None,
            refused=refused.partition(_REFUSED)[2].strip() or refused.strip() or None,
        )


@contextmanager
def driver_player(vf: VirtualFunction) -> Iterator[DriverPlayer]:
    """Yield a player for the driver of *vf*'s port; the port must be up and have a link.

    While the body runs the host has debugfs mounted and the port has PORT_MTU; both are put back.
    """
    host, interface = vf.host, vf.port.interface
    with changed_back(host):
        if not host.exists(DRIVER):
            host.change(
                f"debugfs on {DEBUGFS}",
                do={"kind": "run", "argv": ["mount", "-t", "debugfs", "debugfs", DEBUGFS]},
                undo={"kind": "run", "argv": ["umount", DEBUGFS]},
            )
        set_attribute(host, f"/sys/class/net/{interface}/mtu", str(PORT_MTU))
        yield DriverPlayer(vf)
