"""The registers of a described capability, read along with COMMAND; see ``observer``."""

from __future__ import annotations

import time
from typing import Any, Callable, final

from harness.agent.bme import CommandRegister, SysfsConfig
from harness.agent.errors import AgentError


@final
class Registers:
    """*length* bytes of configuration space from *offset* on, called *name*.

    *write* gets a line for what was seen first, and for each change: {"t_ns", "capability",
    "bytes", "via", "gap_ns"}.  The bytes are in hex, and none while there is no such VF; gap_ns is
    the time since they were read before, within which they changed.
    """

    def __init__(
        self, write: Callable[[dict[str, Any]], None], name: str, offset: int, length: int
    ) -> None:
        self.name = name
        self._write = write
        self._place = offset, length
        self._seen = b""
        self._looked_ns = 0

    def check_there(self, config: SysfsConfig) -> None:
        """Raise AgentError if the VF's configuration space ends before them."""
        offset, length = self._place
        if offset + length > config.size:
            raise AgentError(
                f"capability {self.name}: its registers, {length} bytes at {offset:#x}, are not "
                "all in the VF's configuration space",
                because=f"that has {config.size} bytes",
                fix="correct the offset in the topology; `lspci -vv` shows what the VF has",
            )

    def look(self, register: CommandRegister) -> None:
        """Read them once, all by one access, the way that COMMAND is read."""
        now, via = register.read(*self._place)
        t_ns = time.monotonic_ns()
        if now != self._seen:
            gap_ns = t_ns - self._looked_ns if self._looked_ns else 0
            line = {"t_ns": t_ns, "capability": self.name, "bytes": now.hex(), "via": via}
            self._write({**line, "gap_ns": gap_ns})
            self._seen = now
        self._looked_ns = t_ns
