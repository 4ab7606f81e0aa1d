"""The numbered payload: what is filled in is read back, and nothing that is wrong goes unseen."""

from __future__ import annotations

import base64
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import frames
from harness.agent import payload

HEADERS_BYTES = 42  # Ethernet, IPv4, ICMP or UDP

flows = st.integers(0, 0xFFFF)
sequences = st.integers(0, payload.NO_SEQUENCE - 1)
times_ns = st.integers(0, 2**48 - 1)
sizes = st.integers(frames.SMALLEST_FRAME_BYTES, frames.LARGEST_FRAME_BYTES)


def echo(frame_bytes: int, flow: int = 7) -> payload.Template:
    return payload.Template(
        frames.echo_template(
            source_mac="02:00:00:00:00:01",
            destination_mac="02:00:00:00:00:02",
            source="198.18.0.1",
            destination="198.18.0.2",
            frame_bytes=frame_bytes,
            flow=flow,
        )
    )


def filled(template: payload.Template, sequence: int, time_ns: int = 0) -> bytearray:
    frame = template.blank()
    template.fill(frame, sequence, time_ns)
    return frame


def read(frame: bytearray, frame_bytes: int, flow: int = 7) -> payload.Reading | None:
    """Read a frame as the receiver does; None if it would not be taken for one of the flow."""
    place = payload.locate(frame, len(frame))
    if place is None or payload.peek(frame, place) != flow:
        return None
    return payload.Reader(flow, frame_bytes - HEADERS_BYTES).read(frame, place)


@given(flows, sequences, times_ns, sizes)
def test_what_is_filled_in_is_read_back(
    flow: int, sequence: int, time_ns: int, frame_bytes: int
) -> None:
    """Number, time and every byte of the pattern survive, for any flow and size."""
    frame = filled(echo(frame_bytes, flow), sequence, time_ns)

    assert len(frame) == frame_bytes
    assert read(frame, frame_bytes, flow) == (sequence, time_ns, 0, None)


@given(sequences, sizes, st.data())
def test_every_wrong_byte_is_seen_and_located(
    sequence: int, frame_bytes: int, data: st.DataObject
) -> None:
    """Any bits of any one byte of the payload; in the header it may be that it is not ours."""
    frame = filled(echo(frame_bytes), sequence)
    position = data.draw(st.integers(HEADERS_BYTES, frame_bytes - 1))
    frame[position] ^= data.draw(st.integers(1, 0xFF))

    reading = read(frame, frame_bytes)

    if position < HEADERS_BYTES + 4:  # magic and flow
        assert reading is None
    elif position < HEADERS_BYTES + payload.HEADER_BYTES:
        damaged = payload.CORRUPTED | payload.HEADER_DAMAGED
        assert reading == (payload.NO_SEQUENCE, 0, damaged, HEADERS_BYTES)
    else:
        assert reading == (sequence, 0, payload.CORRUPTED, position)


def test_each_bit_of_a_whole_frame_counts() -> None:
    """Not a sample but all of them, on one frame."""
    template, reader = echo(200), payload.Reader(7, 200 - HEADERS_BYTES)
    for position in range(HEADERS_BYTES + 4, 200):
        for bit in range(8):
            frame = filled(template, 3)
            frame[position] ^= 1 << bit
            place = payload.locate(frame, 200)
            assert place is not None
            assert reader.read(frame, place).flags & payload.CORRUPTED, (position, bit)


@given(sequences, sizes, st.data())
def test_a_frame_cut_short_is_short(sequence: int, frame_bytes: int, data: st.DataObject) -> None:
    """A torn frame must not pass as whole because all that is there is right."""
    length = data.draw(st.integers(HEADERS_BYTES + payload.HEADER_BYTES, frame_bytes))
    frame = filled(echo(frame_bytes), sequence)[:length]

    expected = (payload.SHORT, length) if length < frame_bytes else (0, None)
    assert read(frame, frame_bytes) == (sequence, 0, *expected)


def test_a_frame_that_is_longer_than_sent_is_corrupted() -> None:
    """Two frames run into one would otherwise pass as the first."""
    frame = filled(echo(204), 3)

    assert read(frame, 200) == (3, 0, payload.CORRUPTED, 200)


def test_a_frame_cut_within_our_header_has_no_number() -> None:
    frame = filled(echo(100), 3)[: HEADERS_BYTES + 12]

    damaged = payload.CORRUPTED | payload.SHORT | payload.HEADER_DAMAGED
    assert read(frame, 100) == (payload.NO_SEQUENCE, 0, damaged, HEADERS_BYTES + 12)


@given(
    st.integers(0, payload.NO_SEQUENCE - 32_768),  # numbers do not wrap
    st.integers(1, 32_767),
    st.integers(HEADERS_BYTES + 18, 9000),
)
def test_the_end_of_another_frame_is_not_taken_for_ours(
    sequence: int, behind: int, seam: int
) -> None:
    """A receive buffer that kept what an earlier frame left in it: a 9K frame torn by DMA.

    No other frame among 32,768 in a row has the same pattern; here 14 bytes or more are old.
    """
    template = echo(9014)
    torn = filled(template, sequence + behind)[:seam] + filled(template, sequence)[seam:]

    reading = read(torn, 9014)

    assert reading is not None
    assert reading.flags == payload.CORRUPTED
    assert reading.wrong_at is not None
    assert seam <= reading.wrong_at < seam + 8


def test_no_two_of_32768_frames_in_a_row_share_a_pattern() -> None:
    """All of them, where the test above draws only some."""
    pattern = payload.Pattern(7)

    assert len({pattern.piece(sequence, 16).tobytes() for sequence in range(32_768)}) == 32_768


def test_flows_do_not_share_a_pattern() -> None:
    """A frame of one flow delivered with another's header must not pass."""
    one, other = (payload.Pattern(flow).piece(5, 64).tobytes() for flow in (1, 2))

    assert one != other


@given(sequences, times_ns, st.integers(0, 9_000))
def test_the_checksum_is_that_of_the_plain_algorithm(
    sequence: int, time_ns: int, length: int
) -> None:
    """RFC 1071 over the whole message, which sums to 0xFFFF with the right checksum in it."""
    frame = filled(echo(60 + length), sequence, time_ns)
    message = bytes(frame[34:]) + bytes(len(frame) % 2)

    total = sum(struct.unpack(f">{len(message) // 2}H", message))
    while total > 0xFFFF:
        total = (total >> 16) + (total & 0xFFFF)

    assert total == 0xFFFF


def test_a_buffer_can_be_filled_again() -> None:
    """The sender fills the same buffers for the whole flow; nothing of the last frame may stay."""
    template = echo(1514)
    frame = filled(template, 1, 123)
    template.fill(frame, 2, 456)

    assert frame == filled(template, 2, 456)


def test_a_template_without_room_for_our_header_is_refused() -> None:
    spec = {
        "flow": 7,
        "frame": base64.b64encode(bytes(59)).decode(),
        "payload_at": HEADERS_BYTES,
        "checksum_at": None,
    }
    with pytest.raises(ValueError, match="no room"):
        payload.Template(spec)


def changed(offset: int, value: int) -> bytearray:
    frame = filled(echo(100), 3)
    frame[offset] = value
    return frame


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(bytearray(), id="empty"),
        pytest.param(bytearray(60), id="zeros"),
        pytest.param(changed(12, 0x86), id="not IPv4"),
        pytest.param(changed(20, 0x20), id="first fragment"),
        pytest.param(changed(21, 1), id="later fragment"),
        pytest.param(changed(23, 6), id="TCP"),
        pytest.param(changed(34, 3), id="ICMP unreachable"),
        pytest.param(changed(14, 0x4F)[:60], id="headers longer than the frame"),
    ],
)
def test_what_is_not_ours_is_left_alone(frame: bytearray) -> None:
    """A receiver sees whatever the interface sees."""
    assert payload.locate(frame, len(frame)) is None


def test_the_rest_of_a_reused_buffer_is_not_read() -> None:
    """The receiver's buffer is longer than the frame and holds what came before."""
    frame = filled(echo(100), 3)
    place: Any = payload.locate(frame, 80)

    assert payload.Reader(7, 58).read(frame, place) == (3, 0, payload.SHORT, 80)
