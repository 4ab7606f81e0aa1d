"""The verb ``vf.play``: a VF speaks with its port's driver, step by step, in its driver's place.

::

    {"kind": "say", "words": [1, 0]}         what VfMailbox.say returns
    {"kind": "reset", "flr": true}           a function reset by VFIO; else by the VF's register
    {"kind": "run", "argv": ["ip", ..]}      {"status": 0, "stdout": "", "stderr": ""}
    {"kind": "write", "path": P, "text": T}  as the agent's verb ``write``
    {"kind": "settle"}                       waits for a link, and for what the port says then
    {"kind": "look"}                         {"registers": [[OFFSET, VALUE], ..], "shown": TEXT}

Every result has *heard* as well: the first word of what the port said unasked, or None.  A look
reads the port's registers that were named at the start, and leaves out those that are 0; *shown* is
what the command said that was named with them.
"""

from __future__ import annotations

import time
from typing import Any, final

from harness.agent import files, lent_vf
from harness.agent.commands import Commands
from harness.agent.device import VfioDevice
from harness.agent.errors import AgentError
from harness.agent.port_registers import PortRegisters
from harness.agent.vf_mailbox import VfMailbox
from harness.uapi.ixgbe_pf import VFLRE

_LINK_SECONDS = 30.0
_QUIET_SECONDS = 0.3
"""A port whose link comes up tells its VFs so a moment after its carrier is there."""
_SERVED_SECONDS = 5.0
_PAUSE_SECONDS = 0.002


def play(
    address: str,
    port: str,
    index: int,
    carrier: str,
    rows: list[list[int]],
    show: list[str],
    steps: list[dict[str, Any]],
) -> list[dict[str, Any]]:
    """Carry out *steps* with the VF at PCI *address*, number *index* of the *port*'s.

    Opens the VF, which resets it, and lets it go afterwards, which resets it again.  Where the
    port's link is up, the file *carrier* reads 1, which is waited for first.  A look reads
    *rows* of registers, for each its first offset, how many, and the bytes from one to the next;
    and runs *show*.  Returns what came of each step.  Raises AgentError, as when somebody else has
    the VF open.
    """
    with VfioDevice.open(address) as device, PortRegisters(port) as registers:
        player = _Player(device, registers, index, _Look(registers, rows, show), carrier)
        lent_vf.master(device, True)  # as every driver does before it speaks with its VF
        player.settle()
        player.wait_until_served()
        return [player.carry_out(step) for step in steps]


@final
class _Look:
    def __init__(self, registers: PortRegisters, rows: list[list[int]], show: list[str]) -> None:
        self._registers = registers
        self._show = show
        self._offsets = [
            offset
            for first, count, step in rows
            for offset in range(first, first + count * step, step)
        ]

    def take(self, commands: Commands) -> dict[str, Any]:
        values = zip(self._offsets, self._registers.read(self._offsets))
        shown = commands.run(self._show)
        return {
            "registers": [[offset, value] for offset, value in values if value],
            "shown": shown["stdout"],
        }


@final
class _Player:
    def __init__(
        self,
        device: VfioDevice,
        registers: PortRegisters,
        index: int,
        look: _Look,
        carrier: str,
    ) -> None:
        self._device = device
        self._look = look
        self._carrier = carrier
        self._mailbox = VfMailbox(device)
        self._registers = registers
        self._index = index
        self._commands = Commands()

    def carry_out(self, step: dict[str, Any]) -> dict[str, Any]:
        kind = step["kind"]
        result: dict[str, Any] = {}
        heard = None
        if kind == "say":
            result = self._mailbox.say(step["words"])
        elif kind == "reset":
            self._reset(flr=step["flr"])
        elif kind == "run":
            result = self._commands.run(step["argv"])
        elif kind == "write":
            files.write(step["path"], step["text"])
        elif kind == "settle":
            heard = self.settle()
        elif kind == "look":
            result = self._look.take(self._commands)
        else:
            raise AgentError(
                f"there is no step {kind!r}", because="it was not carried out", fix="mend the steps"
            )
        later = self._mailbox.heard()
        return {**result, "heard": heard if later is None else later}

    def wait_until_served(self) -> None:
        """Return once the port's driver has served a reset (ixgbe_vf_reset_event).

        It clears the VF's bit in VFLRE before it begins with that (ixgbe_check_for_rst_pf).
        """
        deadline = time.monotonic() + _SERVED_SECONDS
        while self._registers.read([VFLRE[self._index >> 5]])[0] >> (self._index & 31) & 1:
            if time.monotonic() > deadline:
                raise AgentError(
                    f"{self._device.address}: its reset was not served",
                    because=f"the VF's bit in the port's VFLRE stayed set {_SERVED_SECONDS:g} s",
                    fix="see that the port is up, and the host's kernel log",
                )
        self._mailbox.wait_until_idle()

    def _reset(self, *, flr: bool) -> None:
        if flr:
            self._device.reset()
        else:
            self._mailbox.reset()
        self.wait_until_served()

    def settle(self) -> int | None:
        """Wait for a link and then for quiet; what the port said last."""
        carrier = self._carrier
        deadline = time.monotonic() + _LINK_SECONDS
        while files.read(carrier).strip() != "1":
            if time.monotonic() > deadline:
                raise AgentError(
                    f"{carrier}: no link after {_LINK_SECONDS:g} s",
                    because="the port was reset, and its link did not come up again",
                    fix="see the cable, and the host's kernel log",
                )
            time.sleep(_PAUSE_SECONDS)
        last, quiet_since = None, time.monotonic()
        while time.monotonic() < quiet_since + _QUIET_SECONDS:
            said = self._mailbox.heard()
            if said is not None:
                last, quiet_since = said, time.monotonic()
            time.sleep(_PAUSE_SECONDS)
        return last
