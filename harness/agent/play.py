"""The verb ``vf.play`` speaks with a port's driver, step by step, in the place of a VF's driver.

Each step is an object; what comes of the step stands beside it here::

    {"kind": "say", "words": [1, 0]}         what VfMailbox.say returns
    {"kind": "reset", "flr": true}           a function reset by VFIO; else by the VF's register
    {"kind": "run", "argv": ["ip", ..]}      {"status": 0, "stdout": "", "stderr": ""}
    {"kind": "write", "path": P, "text": T}  as the agent's verb ``write``
    {"kind": "settle"}                       waits for a link, and for what the port says then
    {"kind": "look"}                         {"registers": [[OFFSET, VALUE], ..], "shown": TEXT}

Every result has *heard* as well: the first word of the port's last unasked message, or None.  A
look reads those registers of the port that `play` was given, and leaves out registers that are 0;
*shown* is the output of the command that `play` was given.
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

    `play` opens the VF, which resets the VF, and closes the VF afterwards, which resets the VF
    again.  Before the first step it waits for the port's link: until the file *carrier* reads 1.
    A look reads *rows* of registers and runs the command *show*; a row is the offset of its first
    register, how many there are, and the bytes from one to the next.  Returns a result for each
    step.  Raises AgentError, as when somebody else has the VF open.
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

        The driver clears the VF's bit in VFLRE before it serves the reset (ixgbe_check_for_rst_pf).
        """
        word, bit = self._index >> 5, 1 << (self._index & 31)
        deadline = time.monotonic() + _SERVED_SECONDS
        while (seen := self._registers.read([VFLRE[word]])[0]) & bit:
            if time.monotonic() > deadline:
                raise AgentError(
                    f"{self._device.address}: its reset was not served",
                    because=f"the VF's bit in the port's VFLRE({word}) stayed set "
                    f"{_SERVED_SECONDS:g} s; the register was {seen:#x} at the end",
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
        """Wait for a link and then for quiet; return what `VfMailbox.last_heard` does."""
        carrier = self._carrier
        deadline = time.monotonic() + _LINK_SECONDS
        while (seen := files.read(carrier).strip()) != "1":
            if time.monotonic() > deadline:
                raise AgentError(
                    f"{carrier}: no link after {_LINK_SECONDS:g} s",
                    because="the port was reset, and its link did not come up again; the file "
                    f"read {seen!r} at the end",
                    fix="see the cable, and the host's kernel log",
                )
            time.sleep(_PAUSE_SECONDS)
        return self._mailbox.last_heard()
