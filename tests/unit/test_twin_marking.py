"""The twin marks the pages that it wrote, as its DMA log names them."""

from __future__ import annotations

import pytest
from lent_memory import PAGE, SHARED, Guest, refused
from lent_memory import guest as guest
from vfio_client import Asked

from harness.twin.dma_log import Kind
from harness.twin.marking import mark
from harness.twin.memory import DmaFault
from harness.uapi.vfio_user import Command


def test_each_page_is_marked_by_the_last_byte_that_was_written_there(guest: Guest) -> None:
    """The device writes twice to one page, later in front, then over three pages, and reads.

    The byte must be the device's own: another might be the guest's, and be put back by that.
    """
    write = guest.memory.write
    write(SHARED + 100, b"early", Kind.RX_DATA)
    write(SHARED + 50, b"later", Kind.RX_DATA)
    write(SHARED + 2 * PAGE - 1, b"a" + b"b" * PAGE + b"c", Kind.RX_DATA)
    guest.memory.read(SHARED + 3 * PAGE, 8, Kind.TX_DATA)
    assert mark(guest.memory, since=0) == 4
    places = [SHARED + 54, SHARED + 2 * PAGE - 1, SHARED + 3 * PAGE - 1, SHARED + 3 * PAGE]
    assert guest.client.asked == [Asked(Command.DMA_WRITE, place, 1) for place in places]
    marked = [guest.marked[place - SHARED] for place in places]
    assert bytes(marked) == b"rabc"


def test_what_was_marked_before_is_not_marked_again(guest: Guest) -> None:
    """The last pass of marking is within the guest's silence, and has to be short."""
    guest.memory.write(SHARED, b"first", Kind.RX_DATA)
    guest.memory.write(SHARED + PAGE, b"second", Kind.RX_DATA)
    assert mark(guest.memory, since=1) == 1
    assert guest.client.asked == [Asked(Command.DMA_WRITE, SHARED + PAGE + 5, 1)]
    assert mark(guest.memory, since=2) == 0


def test_marking_is_not_the_devices_dma(guest: Guest) -> None:
    """Marking asks QEMU even without Bus Master Enable, and adds nothing to the log."""
    guest.memory.write(SHARED, b"data", Kind.RX_DATA)
    guest.set_master(False)
    assert mark(guest.memory, since=0) == 1
    assert len(guest.records()) == 1
    guest.client.answers.append(refused())
    with pytest.raises(DmaFault, match="the client refused: Bad address"):
        mark(guest.memory, since=0)


def test_nothing_is_marked_where_the_log_does_not_tell_all(guest: Guest) -> None:
    """A part of the pages looks like all, and a test would blame the order for lost pages."""
    for number in range(101):
        guest.memory.write(SHARED + number, b"x", Kind.RX_DATA)
    with pytest.raises(ValueError, match="the DMA log is full"):
        mark(guest.memory, since=0)
    guest.memory.log = None
    with pytest.raises(ValueError, match="there is no DMA log"):
        mark(guest.memory, since=0)
