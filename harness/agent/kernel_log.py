"""Recorder ``kernel-log``: what this machine's kernel says from now on.

Spec ``{"path": FILE, "device": "/dev/kmsg"}``.  FILE gets a JSON line per message::

    {"t_ns": 123, "level": "warn", "text": "ixgbe 0000:01:00.0: ..", "sequence": 8, "kernel_us": 4}

``t_ns`` is CLOCK_MONOTONIC when we read it, a moment after; ``kernel_us`` is the kernel's own
stamp, of a clock that drifts against it.  Summary: ``lines``, ``lost`` (overwritten before we read
them), ``levels`` (count of each) and ``faults``, the first hundred that tell of something broken.

Ref: Linux Documentation/ABI/testing/dev-kmsg.
"""

from __future__ import annotations

import collections
import json
import os
import re
import select
import time
from collections.abc import Iterator
from typing import IO, Any

from harness.agent.channel import Channel

# <linux/kern_levels.h>, KERN_EMERG to KERN_DEBUG
LEVELS = ("emerg", "alert", "crit", "err", "warn", "notice", "info", "debug")
FAULT = re.compile(
    r"\bBUG\b|WARNING: |\bOops\b|kernel panic|Call Trace:|general protection fault"
    r"|DMAR:.*fault|AMD-Vi:.*(?:FAULT|Event logged)|\bAER: |PCIe Bus Error"
    r"|NETDEV WATCHDOG|Reset adapter|Detected Tx Unit Hang|soft lockup|hung_task|blocked for more"
    r"|rcu: INFO: .*stall|Out of memory",
    re.IGNORECASE,
)
_MAX_FAULTS = 100
_MAX_RECORD = 8192  # <linux/printk.h>, PRINTK_MESSAGE_MAX is 2048; a smaller buffer gives EINVAL


def parse(record: bytes) -> dict[str, Any]:
    r"""Read one record of /dev/kmsg: {"level", "text", "sequence", "kernel_us"}.

    ``b"4,1234,5678,-;text\n KEY=value\n"``: priority, sequence, microseconds, flags; lines that
    begin with a space say which device it is about and are left out.
    """
    head, _, body = record.decode(errors="backslashreplace").partition(";")
    priority, sequence, stamp = head.split(",")[:3]
    return {
        "level": LEVELS[int(priority) & 7],  # the other bits are the facility
        "text": body.partition("\n")[0],
        "sequence": int(sequence),
        "kernel_us": int(stamp),
    }


def main(spec: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Record until the channel ends; the summary."""
    device = os.open(spec.get("device", "/dev/kmsg"), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.lseek(device, 0, os.SEEK_END)
        with open(spec["path"], "w") as file:
            channel.ready()
            return _record(device, file, channel)
    finally:
        os.close(device)


def _record(device: int, file: IO[str], channel: Channel) -> dict[str, Any]:
    seen = _Seen()
    while True:
        ending = channel.ended()  # asked first, so that what came before the end is still read
        if not ending:
            select.select([device, channel.fileno()], [], [])
        for message in _waiting(device):
            seen.take(message)
            file.write(json.dumps({"t_ns": time.monotonic_ns(), **message}) + "\n")
        if ending:
            return seen.summary()


def _waiting(device: int) -> Iterator[dict[str, Any]]:
    """Read the messages that are there."""
    while True:
        try:
            yield parse(os.read(device, _MAX_RECORD))
        except BlockingIOError:
            return
        except BrokenPipeError:  # the ring went round; the next read gives the oldest that is left
            continue


class _Seen:
    """Counts messages, and those that were overwritten between two of them."""

    def __init__(self) -> None:
        self._levels: collections.Counter[str] = collections.Counter()
        self._faults: list[dict[str, Any]] = []
        self._next = 0
        self._lost = 0

    def take(self, message: dict[str, Any]) -> None:
        self._lost += message["sequence"] - self._next if self._next else 0
        self._next = message["sequence"] + 1
        self._levels[message["level"]] += 1
        if FAULT.search(message["text"]) and len(self._faults) < _MAX_FAULTS:
            self._faults.append({"t_ns": message["t_ns"], "text": message["text"]})

    def summary(self) -> dict[str, Any]:
        return {
            "lines": sum(self._levels.values()),
            "lost": self._lost,
            "levels": dict(self._levels),
            "faults": self._faults,
        }
