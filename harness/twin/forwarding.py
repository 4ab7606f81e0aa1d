"""The host's bridge follows the port's filter: frames for the VF's address go to its tap alone.

While the filter holds an address, the bridge has a sticky entry for it, as the port's own switch
would have: whoever sends with that address, frames for it go to the VF and nowhere else.  While the
filter is empty there is no entry, and the bridge sends such frames to all, the standby among them.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from harness.twin.filters import NO_MAC

_SECONDS = 5


class Forwarding:
    """The entry of the bridge that leads to *tap*; a tap that is in no bridge has none."""

    def __init__(self, tap: str) -> None:
        self._tap = tap
        self._mac = NO_MAC

    def follow(self, mac: bytes) -> str:
        """Let the bridge lead *mac* to the tap, or nothing for NO_MAC; return a refusal, or ``""``.

        Costs a process where the address is another than before, and nothing where it is not.
        """
        was, self._mac = self._mac, mac
        if was == mac or not Path("/sys/class/net", self._tap, "brport").exists():
            return ""
        refused = [] if was == NO_MAC else [self._bridge("del", was)]
        if mac != NO_MAC:
            refused.append(self._bridge("replace", mac, "static", "sticky"))
        return "; ".join(filter(None, refused))

    def _bridge(self, action: str, mac: bytes, *kind: str) -> str:
        argv = ["bridge", "fdb", action, mac.hex(":"), "dev", self._tap, "master", *kind]
        try:
            done = subprocess.run(
                argv, capture_output=True, text=True, errors="replace", check=False,
                timeout=_SECONDS,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as failed:
            return str(failed)
        return done.stderr.strip()
