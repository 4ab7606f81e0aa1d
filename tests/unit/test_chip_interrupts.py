"""A port loses no cause between masks, messages and its driver's own writes.

Ref: 82599 datasheet, "Interrupts"; Linux, ixgbe_msix_other, ixgbe_poll, ixgbe_irq_enable.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from descriptors import eventfds, signals
from hand_clock import HandClock
from port_driver import PEER_MAC, PORT_MAC, Port, port_of_chip
from vf_rings import frame_of

from harness.chip import interrupts
from harness.uapi.ixgbe_pf import GPIE_EIAME, Eicr, Register, Row

OTHER = 2
TO_PORT, FROM_PORT = (
    frame_of(100, head=PORT_MAC + PEER_MAC),
    frame_of(100, head=PEER_MAC + PORT_MAC),
)


class Lines:
    """A port with two queues has these eventfds: one for each queue, one for other causes."""

    def __init__(self, port: Port, descriptors: list[int]) -> None:
        self._port = port
        self._descriptors = descriptors
        self.connect()

    def connect(self) -> None:
        for vector, descriptor in enumerate(self._descriptors):
            self._port.chip.vectors.connect(vector, os.dup(descriptor))

    def rung(self) -> list[int]:
        """Return how often each was signalled since this was asked last."""
        return signals(*self._descriptors)


@pytest.fixture
def port() -> Iterator[Port]:
    with port_of_chip() as port:
        port.start(queues=2)
        yield port


@pytest.fixture
def lines(port: Port) -> Iterator[Lines]:
    with eventfds(3) as descriptors:
        lines = Lines(port, descriptors)
        lines.rung()  # what came before: the link
        yield lines
        port.chip.vectors.disconnect()


def unmask(port: Port, vector: int) -> None:
    """Unmask a vector as ixgbe_irq_enable_queues does when a poll is complete."""
    port.write(Row.EIMS_EX.at(vector >> 5), 1 << (vector & 31))


# --- queues ---------------------------------------------------------------------------------


def test_a_frame_interrupts_its_queues_vector_once(port: Port, lines: Lines) -> None:
    """The port sends one message for a batch of frames, and masks its vector (EIAM_EX)."""
    port.hear(TO_PORT, TO_PORT)
    port.hear(TO_PORT)
    assert lines.rung() == [1, 0, 0]


def test_what_comes_while_the_vector_is_masked_is_told_when_it_is_not(
    port: Port, lines: Lines
) -> None:
    """Every poll has this race: a frame comes after the last look and before the unmask.

    One such message lost is a queue that stands still until the driver's watchdog rearms it.
    """
    port.hear(TO_PORT)
    assert lines.rung() == [1, 0, 0]
    port.hear(TO_PORT)
    unmask(port, 0)
    assert lines.rung() == [1, 0, 0]
    unmask(port, 0)
    assert lines.rung() == [0, 0, 0]


def test_frames_that_were_sent_interrupt_as_well(port: Port, lines: Lines) -> None:
    port.tx[1].send(FROM_PORT)
    assert lines.rung() == [0, 1, 0]


def test_a_vector_that_does_not_mask_itself_is_told_each_time(port: Port, lines: Lines) -> None:
    """EIAM masks vectors of messages only while GPIE.EIAME is set."""
    port.write(Register.GPIE, port.read(Register.GPIE) & ~GPIE_EIAME)
    for _ in range(2):
        port.hear(TO_PORT)
    assert lines.rung() == [2, 0, 0]


def test_a_driver_can_set_a_cause_itself(port: Port, lines: Lines) -> None:
    """Ixgbe sets causes of its queues every two seconds (ixgbe_irq_rearm_queues)."""
    port.write(Row.EICS_EX.at(0), 0b11)
    assert lines.rung() == [1, 1, 0]
    port.write(Register.EICS, 0b01)
    assert lines.rung() == [0, 0, 0], "its vector is masked"
    unmask(port, 0)
    assert lines.rung() == [1, 0, 0]


def test_a_queue_without_a_vector_interrupts_nobody(port: Port, lines: Lines) -> None:
    port.write(Row.IVAR.at(0), 0)
    port.hear(TO_PORT)
    assert lines.rung() == [0, 0, 0]


def test_vectors_from_32_on_have_registers_of_their_own(port: Port, lines: Lines) -> None:
    with eventfds(1) as (high,):
        port.chip.vectors.connect(40, os.dup(high))
        port.set_ivar(0, vector=40)
        unmask(port, 40)
        assert port.read(Row.EIMS_EX.at(1)) == 1 << 8
        port.hear(TO_PORT)
        assert signals(high) == [1]
        unmask(port, 40)
        port.write(Row.EIMC_EX.at(1), 1 << 8)
        port.write(Row.EICS_EX.at(1), 1 << 8)
        assert (signals(high), lines.rung()) == ([0], [0, 0, 0])


# --- other causes ---------------------------------------------------------------------------


def handle(port: Port) -> int:
    """Handle other causes as ixgbe_msix_other does: look, clear by write, enable again."""
    causes = port.read(Register.EICS) & 0xFFFF0000
    port.write(Register.EICR, causes)
    port.write(Register.EIMS, Eicr.MAILBOX | Eicr.LSC)
    return causes


def test_other_causes_go_out_by_their_own_vector(port: Port, lines: Lines) -> None:
    port.chip.link.plug(False, 10_000)
    port.turn()
    assert lines.rung() == [0, 0, 1]
    assert handle(port) == Eicr.LSC
    assert (lines.rung(), port.read(Register.EICS)) == ([0, 0, 0], 0)


def test_without_msix_mode_every_cause_goes_out_by_vector_0(port: Port, lines: Lines) -> None:
    """DPDK leaves GPIE so for a port whose queues do not interrupt (ixgbe_configure_msix)."""
    port.write(Register.GPIE, 0)
    port.write(Register.IVAR_MISC, 0)
    port.chip.link.plug(False, 10_000)
    port.turn()
    assert lines.rung() == [1, 0, 0]
    assert port.read(Register.EICR) & Eicr.LSC
    port.link_up()
    lines.rung()
    port.set_ivar(0, vector=1)
    unmask(port, 1)
    port.hear(TO_PORT)
    assert lines.rung() == [1, 0, 0]


def test_a_cause_that_comes_before_the_last_one_was_handled_is_told_too(
    port: Port, lines: Lines
) -> None:
    """The second one comes after the driver cleared what it saw, and before it enables again."""
    interrupts = port.chip.interrupts
    interrupts.set_causes(Eicr.MAILBOX)
    assert lines.rung() == [0, 0, 1]
    port.write(Register.EICR, Eicr.MAILBOX)
    interrupts.set_causes(Eicr.MAILBOX)
    port.write(Register.EIMS, Eicr.MAILBOX | Eicr.LSC)
    assert lines.rung()[2] >= 1
    assert handle(port) == Eicr.MAILBOX


def test_a_cause_that_was_set_while_it_was_masked_goes_out_when_it_is_not(
    port: Port, lines: Lines
) -> None:
    port.write(Register.EIMC, Eicr.MAILBOX)
    port.chip.interrupts.set_causes(Eicr.MAILBOX)
    assert lines.rung() == [0, 0, 0]
    port.write(Register.EIMS, Eicr.MAILBOX)
    assert lines.rung() == [0, 0, 1]


def test_a_cause_that_nobody_cleared_comes_again_with_each_enabling(
    port: Port, lines: Lines
) -> None:
    port.chip.interrupts.set_causes(Eicr.LSC)
    port.write(Register.EIMS, Eicr.LSC)
    assert lines.rung() == [0, 0, 2]


def test_reading_eics_clears_nothing_and_reading_eicr_only_other_causes(port: Port) -> None:
    """The driver reads EICS, since clear-by-read is an erratum; GPIE.OCD keeps queues' bits."""
    port.write(Register.EIMC, 0xFFFFFFFF)
    port.write(Register.EICS, Eicr.LSC | 0b1)
    assert [port.read(Register.EICS) for _ in range(2)] == [Eicr.LSC | 0b1] * 2
    assert port.read(Register.EICR) == Eicr.LSC | 0b1
    assert port.read(Register.EICS) == 0b1
    port.write(Register.GPIE, 0)
    assert [port.read(Register.EICR) for _ in range(2)] == [0b1, 0]


def test_a_cause_is_cleared_by_its_message_where_eiac_says_so(port: Port) -> None:
    port.write(Register.EIAC, 0b10)
    port.write(Register.EICS, 0b11)
    assert port.read(Register.EICS) == 0b01


def test_masks_are_read_as_they_are(port: Port) -> None:
    assert port.read(Register.EIMS) == Eicr.MAILBOX | Eicr.LSC | 0b11
    port.write(Register.EIMC, Eicr.LSC | 0b01)
    assert port.read(Register.EIMS) == port.read(Register.EIMC) == Eicr.MAILBOX | 0b10


# --- when a message may go ------------------------------------------------------------------


def test_a_message_waits_for_its_interval(
    port: Port, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EITR is 1022 microseconds here; the loop learns how long to wait, and looks again then."""
    clock = HandClock.of(monkeypatch, interrupts)
    port.write(Row.EITR.at(0), 0xFF8)
    port.hear(TO_PORT)
    unmask(port, 0)
    port.hear(TO_PORT)
    assert lines.rung() == [1, 0, 0]
    clock.go_on(0.001)
    assert port.turn() == pytest.approx(22e-6, rel=0.01)
    assert lines.rung() == [0, 0, 0]
    clock.go_on(22e-6)
    assert port.turn() == 0
    assert lines.rung() == [1, 0, 0]


def test_vectors_from_24_on_have_their_intervals_elsewhere(
    port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    HandClock.of(monkeypatch, interrupts)
    port.set_ivar(0, vector=30)
    unmask(port, 30)
    port.write(Row.EITR_HIGH.at(30 - 24), 0xFF8)
    port.hear(TO_PORT)
    unmask(port, 30)
    port.hear(TO_PORT)
    assert port.chip.interrupts.deliver() == pytest.approx(1022e-6)


def test_nothing_is_sent_while_the_bus_is_not_the_ports(port: Port, lines: Lines) -> None:
    """A message is a write to memory; what is due goes out when Bus Master Enable is back."""
    port.set_master(False)
    port.write(Row.EICS_EX.at(0), 0b1)
    assert lines.rung() == [0, 0, 0]
    port.set_master(True)
    assert lines.rung() == [1, 0, 0]


def test_a_message_while_qemu_takes_its_eventfds_away_comes_when_they_are_back(
    port: Port, lines: Lines
) -> None:
    """QEMU disables and enables all vectors for each vector more (vfio_msix_vector_do_use)."""
    port.chip.vectors.disconnect()
    port.hear(TO_PORT)
    lines.connect()
    assert lines.rung() == [1, 0, 0]


def test_a_reset_forgets_causes_and_masks(port: Port, lines: Lines) -> None:
    port.write(Register.EIMC, 0xFFFFFFFF)
    port.write(Register.EICS, Eicr.LSC | 0b1)
    port.chip.vectors.mask(1, True)
    port.chip.vectors.trigger(1)
    port.reset_hw()
    assert port.read(Register.EICS) == port.read(Register.EIMS) == 0
    port.chip.vectors.mask(1, False)
    unmask(port, 0)
    assert lines.rung() == [0, 0, 0]
