"""Two files for each VF of a chip keep its DMA log and the changes of its COMMAND register.

Both files are on the machine that runs the chip, and their times are in ns of that machine's
monotonic clock.  A record begins anew each time that the port's driver enables the VF.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from harness.twin.dma_log import DmaLog

LOG, COMMANDS = "dma.log", "commands.jsonl"
"""The files of a VF are called ``port<P>-vf<N>.dma.log`` and ``port<P>-vf<N>.commands.jsonl``."""

CAPACITY = 1_000_000
"""A DMA log has room for this many records (24 MB), and a full log begins again at the front.

400 round trips a second of frames of 9014 bytes fill a log in 3 minutes.
"""


class Record:
    """A record keeps what one VF does, in two files in *folder* whose names begin with *name*.

    Nothing is recorded before the first `begin`.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._log_path = folder / f"{name}.{LOG}"
        self._commands_path = folder / f"{name}.{COMMANDS}"
        self.log: DmaLog | None = None
        self._commands: int | None = None

    def begin(self) -> None:
        """Empty both files.  Raises OSError if the disk has no room for a log of CAPACITY."""
        self.close()
        self.log = DmaLog(str(self._log_path), CAPACITY, wraps=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        self._commands = os.open(self._commands_path, flags, 0o600)

    def note_command(self, command: int) -> None:
        """Note *command*, the new value of the COMMAND register, with the time."""
        if self._commands is not None:
            line = json.dumps({"t_ns": time.monotonic_ns(), "command": command})
            os.write(self._commands, line.encode() + b"\n")

    def settle(self) -> None:
        """Write the number of records into the log; call this once for each batch."""
        if self.log:
            self.log.settle()

    def close(self) -> None:
        """Close both files, which stay; `begin` empties them."""
        if self.log:
            self.log.close()
            self.log = None
        if self._commands is not None:
            os.close(self._commands)
            self._commands = None
