"""The VF's counters: frames and bytes there and back, as its registers show them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from harness.uapi.ixgbe_vf import CHECKSUM_BYTES, Register

_32_BITS, _36_BITS = (1 << 32) - 1, (1 << 36) - 1


class Counts(Protocol):
    """A receiver and a transmitter count this; lengths are in bytes, without the checksum."""

    missed: int
    spoofed: int
    malformed: int
    unsent: int

    def receive(self, length: int, *, multicast: bool) -> None:
        """Count a frame that got into memory."""

    def send(self, length: int) -> None:
        """Count a frame that was sent."""


@dataclass
class Statistics:
    """Counts since the twin was started: a reset of the VF does not clear them.

    The register counts bytes with the frame's checksum.  What the registers cannot tell is for
    whoever asks the twin: frames that were not this VF's (*filtered*), that found no descriptor
    (*missed*), that were not sent (*spoofed*, *malformed*, *unsent*).
    """

    received: int = 0
    received_bytes: int = 0
    received_multicast: int = 0
    sent: int = 0
    sent_bytes: int = 0
    filtered: int = 0
    missed: int = 0
    spoofed: int = 0
    malformed: int = 0
    unsent: int = 0

    def receive(self, length: int, *, multicast: bool) -> None:
        self.received += 1
        self.received_bytes += length + CHECKSUM_BYTES
        self.received_multicast += multicast

    def send(self, length: int) -> None:
        self.sent += 1
        self.sent_bytes += length + CHECKSUM_BYTES

    def read(self, offset: int) -> int | None:
        """Return the counter at *offset*, or None if no counter is there."""
        if offset == Register.VFGPRC:
            return self.received & _32_BITS
        if offset == Register.VFGPTC:
            return self.sent & _32_BITS
        if offset == Register.VFMPRC:
            return self.received_multicast & _32_BITS
        if offset == Register.VFGORC_LSB:
            return self.received_bytes & _32_BITS
        if offset == Register.VFGORC_MSB:
            return (self.received_bytes & _36_BITS) >> 32
        if offset == Register.VFGOTC_LSB:
            return self.sent_bytes & _32_BITS
        if offset == Register.VFGOTC_MSB:
            return (self.sent_bytes & _36_BITS) >> 32
        return None
