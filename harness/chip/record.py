"""Two files for each VF of a chip keep its DMA log and the changes of its COMMAND register.

Both are of the machine that the chip runs on, and in its monotonic clock.  A record begins anew
each time that its VF is enabled.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from harness.twin.dma_log import DmaLog

LOG, COMMANDS = "dma.log", "commands.jsonl"
"""The names of the two files end in these, after ``port<P>-vf<N>.``."""

CAPACITY = 1_000_000
"""A DMA log has so many records, the newest: 24 MB, or at most 3 minutes of 400 round trips a
second of 9014 bytes."""


class Record:
    """The record of one VF in *folder*; nothing is written before `begin`."""

    def __init__(self, folder: Path, name: str) -> None:
        self._log_path = folder / f"{name}.{LOG}"
        self._commands_path = folder / f"{name}.{COMMANDS}"
        self.log: DmaLog | None = None
        self._commands: int | None = None

    def begin(self) -> None:
        """Begin anew; what was recorded before is gone.  Raises OSError where there is no room."""
        self.close()
        self.log = DmaLog(str(self._log_path), CAPACITY, wraps=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        self._commands = os.open(self._commands_path, flags, 0o600)

    def note_command(self, command: int) -> None:
        """Note the COMMAND register as it is now; before `begin`, nothing."""
        if self._commands is not None:
            line = json.dumps({"t_ns": time.monotonic_ns(), "command": command})
            os.write(self._commands, line.encode() + b"\n")

    def settle(self) -> None:
        """Write into the log how many records it has; done once for each batch."""
        if self.log:
            self.log.settle()

    def close(self) -> None:
        """Let go of both files."""
        if self.log:
            self.log.close()
            self.log = None
        if self._commands is not None:
            os.close(self._commands)
            self._commands = None
