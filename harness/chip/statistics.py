"""A port counts frames and bytes at its MAC, which `ethtool -S` and `ip -s` show.

A read clears a counter.  A counter of bytes has 36 bits in two registers, and a read of the upper
register clears both.  Ref: 82599 datasheet, "Statistics registers"; Linux, ixgbe_update_stats.
"""

from __future__ import annotations

from collections import Counter

from harness.chip.registers import MASK_32, Read, Registers
from harness.uapi.ixgbe_pf import Register, Row
from harness.uapi.ixgbe_vf import CHECKSUM_BYTES

_RECEIVED_BY_SIZE = (
    (64, Register.PRC64), (127, Register.PRC127), (255, Register.PRC255),
    (511, Register.PRC511), (1023, Register.PRC1023), (1 << 16, Register.PRC1522),
)  # fmt: skip
_SENT_BY_SIZE = (
    (64, Register.PTC64), (127, Register.PTC127), (255, Register.PTC255),
    (511, Register.PTC511), (1023, Register.PTC1023), (1 << 16, Register.PTC1522),
)  # fmt: skip
_COUNTERS = (
    *(register for _, register in (*_RECEIVED_BY_SIZE, *_SENT_BY_SIZE)),
    *(Register.GPRC, Register.BPRC, Register.MPRC, Register.GPTC, Register.MPTC, Register.BPTC),
    *(Register.TPR, Register.TPT, Register.RUC, Register.ROC, Register.SSVPC, Register.TXDGPC),
)
_BYTES = (
    (Register.GORCL, Register.GORCH), (Register.GOTCL, Register.GOTCH),
    (Register.TORL, Register.TORH),
)  # fmt: skip
_MASK_36 = (1 << 36) - 1
_BROADCAST = b"\xff" * 6


class PortStatistics:
    """A port counts the frames that pass its MAC, and the frames that the port drops.

    GORC lacks the checksums of frames, which the MAC strips (HLREG0.RXCRCSTRP, which ixgbe sets);
    TOR and GOTC have them.  Ref: DPDK, ixgbe_read_stats_registers.

    Registers count the frames that pass, and few of the frames that the port drops.  Attributes
    count the others: *malformed* and *unsent* are frames that the port's own queues could not send,
    *missed* are frames for these queues that found no descriptor, and *spoofed* are frames that
    anti-spoofing held back, of VFs too.  *drops* has the frames from the wire by cause:

    * ``link``: the link is down
    * ``loopback``: the MAC receives its own frames alone
    * ``receive``: the driver has not enabled reception (RXCTRL)
    * ``address``: no filter lets the destination pass
    * ``vlan``: no filter lets frames of the VLAN, or frames without a tag, pass
    * ``pool``: every pool of the frame is disabled (VFRE)
    * ``length``: the frame is longer than the port takes
    """

    def __init__(self, registers: Registers) -> None:
        self._counts = dict.fromkeys((*_COUNTERS, *(low for low, _ in _BYTES)), 0)
        self.malformed = self.unsent = self.missed = self.spoofed = 0
        self.drops: Counter[str] = Counter()
        self._held = registers.held
        for register in _COUNTERS:
            registers.claim(register, self._reader(register))
        for low, high in _BYTES:
            registers.claim(low, self._low_reader(low))
            registers.claim(high, self._high_reader(low))

    def received(self, frame: memoryview) -> None:
        """Count a good frame from the wire; *frame* lacks its checksum."""
        size = len(frame) + CHECKSUM_BYTES
        counts = self._counts
        counts[Register.GPRC] += 1
        counts[Register.TPR] += 1
        counts[Register.GORCL] += len(frame)
        counts[Register.TORL] += size
        counts[_bin(_RECEIVED_BY_SIZE, size)] += 1
        if frame[0] & 1:
            counts[Register.BPRC if frame[:6] == _BROADCAST else Register.MPRC] += 1

    def drop(self, cause: str) -> None:
        """Count a frame from the wire that the port dropped for this *cause*."""
        self.drops[cause] += 1

    def oversized(self, frame: memoryview) -> None:
        """Count a frame that passed the filters but is longer than the port takes."""
        self.drop("length")
        self._counts[Register.ROC] += 1
        self._counts[Register.TPR] += 1
        self._counts[Register.TORL] += len(frame) + CHECKSUM_BYTES

    def sent(self, head: bytes, length: int) -> None:
        """Count a frame of *length* bytes, without checksum, that the port put onto the wire.

        *head* has at least the six bytes of the frame's destination.
        """
        size = length + CHECKSUM_BYTES
        counts = self._counts
        counts[Register.GPTC] += 1
        counts[Register.TPT] += 1
        counts[Register.GOTCL] += size
        counts[_bin(_SENT_BY_SIZE, size)] += 1
        if head[0] & 1:
            counts[Register.BPTC if head[:6] == _BROADCAST else Register.MPTC] += 1

    def fetched(self) -> None:
        """Count a frame that the transmit DMA gave to the switch, of the port or of a VF.

        ixgbe_check_for_bad_vf reads TXDGPC, and looks at no VF while the count grows.
        """
        self._counts[Register.TXDGPC] += 1

    def spoof_dropped(self, pool: int) -> None:
        """Count a frame that the anti-spoofing of *pool* held back.

        SSVPC counts the frame only if VMECM has the bit of *pool*.
        """
        self.spoofed += 1
        if self._held(Row.VMECM.at(pool >> 5)) >> (pool & 31) & 1:
            self._counts[Register.SSVPC] += 1

    # The receiver and the transmitter of the port's own queues call these two (`Counts`).

    def receive(self, length: int, *, multicast: bool) -> None:
        """Count nothing: the port has no counter for frames that reach its memory."""

    def send(self, length: int) -> None:
        """Count nothing: the port has no counter for frames that its own queues send."""

    def _reader(self, register: Register) -> Read:
        def read() -> int:
            value, self._counts[register] = self._counts[register], 0
            return value & MASK_32

        return read

    def _low_reader(self, low: Register) -> Read:
        return lambda: self._counts[low] & MASK_32

    def _high_reader(self, low: Register) -> Read:
        def read() -> int:
            value, self._counts[low] = self._counts[low], 0
            return (value & _MASK_36) >> 32

        return read


def _bin(bins: tuple[tuple[int, Register], ...], size: int) -> Register:
    return next(register for most, register in bins if size <= most)
