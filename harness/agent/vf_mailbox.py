"""An agent program uses a VF's mailbox by the registers of a VF that it has opened through VFIO.

Ref: Linux 6.12, drivers/net/ethernet/intel/ixgbevf/mbx.c; each function here names the driver's.
"""

from __future__ import annotations

import struct
import time
from typing import Protocol, final

from harness.agent.errors import AgentError
from harness.uapi.ixgbe_vf import (
    CLEAR_TO_SEND,
    FAILURE,
    MAILBOX_WORDS,
    SUCCESS,
    Mailbox,
    Message,
    Register,
    VfControl,
)
from harness.uapi.vfio import PciRegion

_WORD = struct.Struct("<I")
_REPLY_SECONDS = 5.0
_NO_REPLY_SECONDS = 0.5
_QUIET_SECONDS = 0.3
"""A port tells its VFs that the link came up a moment after the carrier is there."""

_UNTIL_QUIET_SECONDS = 10.0
_PAUSE_SECONDS = 0.0005


class Regions(Protocol):
    """An open VF has a name, and regions to read and write; ``device.VfioDevice`` is one."""

    @property
    def address(self) -> str:
        """The name by which errors call the VF."""

    def region_read(self, index: int, offset: int, length: int) -> bytes:
        """Read *length* bytes at *offset* of region *index* (vfio.PciRegion)."""

    def region_write(self, index: int, offset: int, data: bytes) -> None:
        """Write *data* at *offset* of region *index*."""


@final
class VfMailbox:
    """The mailbox of *device* is used by nobody else."""

    def __init__(self, device: Regions) -> None:
        self._device = device
        self._seen = 0

    def say(self, words: list[int]) -> dict[str, object]:
        """Post a message, and return the port's *reply* and what it said *after* our ACK.

        The reply is all sixteen words of the mailbox; *reply* and *after* are None where nothing
        came.  A port that has not let the VF send (CLEAR_TO_SEND) answers each ACK with one more
        word, which `say` does not acknowledge.  Raises AgentError where the port does not take the
        message, or says something unasked meanwhile.
        """
        if self._look(Mailbox.PFSTS):
            raise self._crossed()
        self._seen = 0
        self._post(words)
        processed = words[0] & (SUCCESS | FAILURE)  # ixgbe_rcv_msg_from_vf: it says nothing then
        if not self._wait(Mailbox.PFSTS, _NO_REPLY_SECONDS if processed else _REPLY_SECONDS):
            return {"reply": None, "after": None}
        reply = self._take_words()
        if reply[0] & 0xFFFF == Message.PF_CONTROL != words[0] & 0xFFFF:
            raise self._crossed()
        is_reset = reply[0] & 0xFFFF == Message.RESET and words[0] == Message.RESET
        after = None
        if not (is_reset or reply[0] & CLEAR_TO_SEND):
            after = self._next_word() if self._wait(Mailbox.PFSTS, _REPLY_SECONDS) else None
        return {"reply": reply, "after": after}

    def wait_until_idle(self) -> None:
        """Return once the port's driver has done all that the VF asked for, a reset included.

        The driver takes a message that is one of its own answers without a reply
        (ixgbe_rcv_msg_from_vf), and takes messages after it has served resets (ixgbe_msg_task).
        Raises AgentError as `say` does.
        """
        self._seen = 0
        self._post([SUCCESS])

    def heard(self) -> int | None:
        """Return the first word of the port's unasked message, or None; acknowledge nothing."""
        return self._next_word() if self._look(Mailbox.PFSTS) else None

    def last_heard(self) -> int | None:
        """Wait until the port has been silent for 0.3 s; return what `heard` returned last.

        Raises AgentError where the port does not fall silent within 10 s.
        """
        deadline = time.monotonic() + _UNTIL_QUIET_SECONDS
        last, quiet_since = None, time.monotonic()
        while time.monotonic() < quiet_since + _QUIET_SECONDS:
            said = self.heard()
            if said is not None:
                last, quiet_since = said, time.monotonic()
                if quiet_since > deadline:
                    raise AgentError(
                        f"{self._device.address}: the port does not fall silent",
                        because=f"after {_UNTIL_QUIET_SECONDS:g} s the port said {said:#x} to its "
                        "VF, unasked",
                        fix="see that the port's link is steady, and the host's kernel log",
                    )
            time.sleep(_PAUSE_SECONDS)
        return last

    def reset(self) -> None:
        """Reset the VF by its own register (ixgbevf_reset_hw_vf)."""
        self._write(Register.VFCTRL, VfControl.RST)

    def _post(self, words: list[int]) -> None:
        """Write a message and wait until the port has taken it (ixgbevf_write_mbx_vf)."""
        self._lock()
        self._write_words(words)
        self._write(Register.VFMAILBOX, Mailbox.REQ)
        if not self._wait(Mailbox.PFACK, _REPLY_SECONDS):
            raise AgentError(
                f"{self._device.address}: the port did not take {words[0]:#x} from the mailbox",
                because=f"VFMAILBOX.PFACK stayed clear for {_REPLY_SECONDS:g} s; VFMAILBOX was "
                f"{self._seen:#x} at the end, with what reading had cleared",
                fix="see the host's kernel log; the port must be up, and past its reset",
            )

    def _lock(self) -> None:
        """Take the mailbox (ixgbevf_obtain_mbx_lock_vf)."""
        deadline = time.monotonic() + _REPLY_SECONDS
        while time.monotonic() < deadline:
            self._write(Register.VFMAILBOX, Mailbox.VFU)
            if self._look(Mailbox.VFU):
                return
            time.sleep(_PAUSE_SECONDS)
        raise AgentError(
            f"{self._device.address}: the mailbox cannot be had",
            because=f"VFMAILBOX.VFU stayed clear for {_REPLY_SECONDS:g} s; VFMAILBOX was "
            f"{self._seen:#x} at the end (PFU, {Mailbox.PFU:#x}, says that the port holds it)",
            fix="see the host's kernel log",
        )

    def _wait(self, bit: Mailbox, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not self._look(bit):
            if time.monotonic() > deadline:
                return False
            time.sleep(_PAUSE_SECONDS)
        return True

    def _look(self, bit: Mailbox) -> bool:
        """Say whether *bit* was seen; reading clears bits, which `_seen` keeps.

        Ref: ixgbevf_read_mailbox_vf.
        """
        self._seen = self._seen & ~Mailbox.VFU | self._read(Register.VFMAILBOX)
        return bool(self._seen & bit)

    def _take_words(self) -> list[int]:
        """Read all words and acknowledge them (ixgbevf_read_mbx_vf)."""
        self._seen &= ~Mailbox.PFSTS
        self._lock()
        words = [self._read(Register.VFMBMEM + 4 * at) for at in range(MAILBOX_WORDS)]
        self._write(Register.VFMAILBOX, Mailbox.ACK)
        return words

    def _next_word(self) -> int:
        self._seen &= ~Mailbox.PFSTS
        return self._read(Register.VFMBMEM)

    def _write_words(self, words: list[int]) -> None:
        for at, word in enumerate(words + [0] * (MAILBOX_WORDS - len(words))):
            self._write(Register.VFMBMEM + 4 * at, word)

    def _read(self, offset: int) -> int:
        (value,) = _WORD.unpack(self._device.region_read(PciRegion.BAR0, offset, _WORD.size))
        return int(value)

    def _write(self, offset: int, value: int) -> None:
        self._device.region_write(PciRegion.BAR0, offset, _WORD.pack(value))

    def _crossed(self) -> AgentError:
        return AgentError(
            f"{self._device.address}: the port said something else meanwhile",
            because="it tells its VFs of a link that changes, which overwrites a message",
            fix="play the sequence again; see that the port's link is steady",
        )
