"""The numbered payload: how a frame is filled, and what a received one is.

::

    magic u16 | flow u16 | sequence u32 | time u48 | crc u32 | pattern ...     (network order)

time     ns since the flow's start, in the sender's monotonic clock
crc      zlib's CRC-32 of the 14 bytes before it: a header that passes can be trusted
pattern  a piece of the flow's table, whose place follows from the sequence number

The table is made once, so that a frame is filled by one copy and checked by one comparison,
however long it is.  The sums of the table's words are kept too: the Internet checksum of
a frame (RFC 1071) then costs the same for 60 and for 9728 bytes.
"""

from __future__ import annotations

import base64
import hashlib
import struct
import sys
import zlib
from array import array
from itertools import accumulate
from typing import Any, NamedTuple, Union

MAGIC = 0x5646
HEADER = struct.Struct(">HHIHII")
HEADER_BYTES = HEADER.size
LARGEST_FRAME_BYTES = 9728  # IXGBE_MAX_JUMBO_FRAME_SIZE, Linux ixgbe and ixgbevf

CORRUPTED = 1  # a byte of the payload is not what was sent
SHORT = 2  # bytes are missing at the end
HEADER_DAMAGED = 4  # the number and the time cannot be trusted; always with CORRUPTED
NO_SEQUENCE = 0xFFFFFFFF  # stands for the number of a frame whose header is damaged

_COVERED = struct.Struct(">HHIHI")  # what the crc covers
_CRC = struct.Struct(">I")
_PLACES = 1 << 15
_STEP = 40503  # odd, so that _PLACES frames in a row have different places
_TABLE_BYTES = 2 * _PLACES + LARGEST_FRAME_BYTES

Frame = Union[bytes, bytearray]


class Pattern:
    """What the bytes after the header of each frame of one flow are."""

    def __init__(self, flow: int) -> None:
        self._table = memoryview(hashlib.shake_128(b"vf-harness %d" % flow).digest(_TABLE_BYTES))
        words = array("H", self._table.tobytes())
        if sys.byteorder == "little":
            words.byteswap()
        self._sums = array("Q", accumulate(words, initial=0))

    def piece(self, sequence: int, length: int) -> memoryview:
        """*length* bytes of frame *sequence*, from the first one after the header."""
        place = _place(sequence)
        return self._table[place : place + length]

    def word_sum(self, sequence: int, length: int) -> int:
        """Sum of the same bytes as 16-bit words in network order; an odd last byte is padded."""
        place = _place(sequence)
        words = self._sums[(place + length) // 2] - self._sums[place // 2]
        return words + (self._table[place + length - 1] << 8) if length % 2 else words


def _place(sequence: int) -> int:
    """Where the piece of *sequence* begins: even, so that words of table and frame agree."""
    return 2 * (sequence * _STEP % _PLACES)


class Template:
    """A frame of one flow that lacks its number, time, pattern and checksum.

    The spec is what JSON can carry::

        flow          number of the flow
        frame         the whole frame in base64, its payload zero
        payload_at    where the payload begins
        checksum_at   where the checksum that covers the payload lies; null when there is none.
                      The frame must hold the one that is right for a payload of zeros
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        self.flow: int = spec["flow"]
        self.payload_at: int = spec["payload_at"]
        self._frame = base64.b64decode(spec["frame"], validate=True)
        self._checksum_at: int | None = spec["checksum_at"]
        self._pattern = Pattern(self.flow)
        self._pattern_at = self.payload_at + HEADER_BYTES
        self._pattern_bytes = len(self._frame) - self._pattern_at
        if self._pattern_bytes < 0:
            raise ValueError(f"a frame of {len(self._frame)} bytes has no room for its header")
        if self._checksum_at is not None:
            (of_zeros,) = struct.unpack_from(">H", self._frame, self._checksum_at)
            self._base_sum = 0xFFFF - of_zeros

    @property
    def frame_bytes(self) -> int:
        return len(self._frame)

    def blank(self) -> bytearray:
        """Make a new buffer that `fill` can fill again and again."""
        return bytearray(self._frame)

    def fill(self, frame: bytearray | memoryview, sequence: int, time_ns: int) -> None:
        """Make *frame*, which came from `blank`, the one that is numbered *sequence*."""
        covered = _COVERED.pack(
            MAGIC, self.flow, sequence, time_ns >> 32 & 0xFFFF, time_ns & 0xFFFFFFFF
        )
        header = covered + _CRC.pack(zlib.crc32(covered))
        frame[self.payload_at : self._pattern_at] = header
        frame[self._pattern_at :] = self._pattern.piece(sequence, self._pattern_bytes)
        if self._checksum_at is not None:
            total = (
                self._base_sum
                + int.from_bytes(header, "big")  # 2**16 is 1 modulo 0xFFFF: this adds the words
                + self._pattern.word_sum(sequence, self._pattern_bytes)
            )
            struct.pack_into(">H", frame, self._checksum_at, -total % 0xFFFF)


class Reading(NamedTuple):
    """What one received frame is."""

    sequence: int  # NO_SEQUENCE when the header is damaged
    sent_ns: int  # as the frame says: since the flow's start, in the sender's clock
    flags: int
    wrong_at: int | None  # the first byte of the frame that is wrong or missing, from 0


class Reader:
    """Checks the frames of one flow, byte by byte.

    payload_bytes   length of the payload as sent; None takes each frame's own word for it
    """

    def __init__(self, flow: int, payload_bytes: int | None = None) -> None:
        self._flow = flow
        self._payload_bytes = payload_bytes
        self._pattern = Pattern(flow)

    def read(self, frame: Frame, place: Place) -> Reading:
        """Say what the frame is whose payload `locate` found at *place*."""
        at = place.payload_at
        if place.end - at < HEADER_BYTES:
            return Reading(NO_SEQUENCE, 0, CORRUPTED | SHORT | HEADER_DAMAGED, place.end)
        magic, flow, sequence, high, low, crc = HEADER.unpack_from(frame, at)
        intact = (magic, flow) == (MAGIC, self._flow)
        if not intact or zlib.crc32(frame[at : at + _COVERED.size]) != crc:
            return Reading(NO_SEQUENCE, 0, CORRUPTED | HEADER_DAMAGED, at)
        sent_end = place.said_end if self._payload_bytes is None else at + self._payload_bytes
        flags, wrong_at = self._compare(frame, sequence, at + HEADER_BYTES, place.end, sent_end)
        return Reading(sequence, high << 32 | low, flags, wrong_at)

    def _compare(
        self, frame: Frame, sequence: int, at: int, end: int, sent_end: int
    ) -> tuple[int, int | None]:
        """Compare the pattern, which lies from *at* to *end*: (flags, first wrong byte)."""
        flags, wrong_at = (SHORT, end) if end < sent_end else (0, None)
        common = min(end, sent_end)
        sent = self._pattern.piece(sequence, common - at)
        if not frame.startswith(sent, at):  # memcmp; slices of a bytearray would be copied
            difference = int.from_bytes(frame[at:common], "big") ^ int.from_bytes(sent, "big")
            return flags | CORRUPTED, common - (difference.bit_length() + 7) // 8
        if end > sent_end:
            return CORRUPTED, sent_end
        return flags, wrong_at


class Place(NamedTuple):
    """Where the payload of a received frame lies."""

    kind: str  # echo-request, echo-reply or datagram
    payload_at: int
    end: int  # of what is there
    said_end: int  # of what there should be, by the IPv4 header


_KINDS = {(1, 8): "echo-request", (1, 0): "echo-reply"}
_VLAN_TAGS = (b"\x81\x00", b"\x88\xa8")


def locate(frame: Frame, length: int) -> Place | None:
    """Find the payload in the first *length* bytes of an Ethernet frame, VLAN-tagged or not.

    None for anything but a whole (not fragmented) ICMP echo or UDP datagram over IPv4.
    """
    ip = 14
    while frame[ip - 2 : ip] in _VLAN_TAGS:
        ip += 4
    if length < ip + 28 or frame[ip - 2 : ip] != b"\x08\x00":
        return None
    if frame[ip + 6] & 0x3F or frame[ip + 7]:  # more fragments, or not the first
        return None
    upper = ip + 4 * (frame[ip] & 0x0F)
    if upper + 8 > length:
        return None
    protocol = frame[ip + 9]
    kind = "datagram" if protocol == 17 else _KINDS.get((protocol, frame[upper]))
    if kind is None:
        return None
    said_end = ip + int.from_bytes(frame[ip + 2 : ip + 4], "big")
    return Place(kind, upper + 8, min(length, said_end), said_end)


def peek(frame: Frame, place: Place) -> int | None:
    """Read the flow's number; None unless the payload begins as ours do."""
    at = place.payload_at
    if place.end < at + 4 or frame[at : at + 2] != b"VF":
        return None
    return frame[at + 2] << 8 | frame[at + 3]
