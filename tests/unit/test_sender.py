"""The sender's account, on links that take what a full queue takes."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from wire import echo

from harness.agent import sender
from harness.agent.channel import Channel
from harness.agent.errors import AgentError
from harness.agent.packet_socket import SendingSocket
from harness.agent.payload import Template
from harness.agent.records import SENT, RecordWriter

FRAMES = 40
INTERVAL_NS = 1_000_000


class FullQueue(SendingSocket):
    """A link with a queue that is full now and then.

    answers   what each call of `send` does: take so many frames, or refuse with an errno;
              after the last one, everything is taken
    """

    def __init__(self, template: Template, answers: list[int]) -> None:
        self.buffers = [memoryview(template.blank()) for _ in range(8)]
        self._answers = answers
        self.taken: list[int] = []

    def send(self, first: int, count: int) -> int:
        answer = self._answers.pop(0) if self._answers else count
        if answer < 0:
            raise OSError(-answer, os.strerror(-answer))
        took = min(answer, count)
        for buffer in self.buffers[first : first + took]:
            self.taken.append(int.from_bytes(buffer[46:50], "big"))
        return took


@pytest.fixture
def channel() -> Iterator[Channel]:
    reading, writing = os.pipe()
    yield Channel(reading, writing)
    os.close(reading)
    os.close(writing)


class Run:
    """FRAMES frames, sent at once and in bursts since all of them are overdue."""

    def __init__(self, channel: Channel, path: Path, answers: list[int]) -> None:
        template = Template(echo(64))
        self.link = FullQueue(template, answers)
        records = RecordWriter(str(path), SENT)
        overdue_ns = time.monotonic_ns() - FRAMES * INTERVAL_NS
        schedule = sender.Schedule(channel, overdue_ns, INTERVAL_NS, spin_us=0)
        sending = sender.Sending(self.link, template, records, schedule)
        try:
            sending.run(burst=8, count=FRAMES)
        finally:
            records.close()
        self.summary = sending.summary()
        self.recorded = [row[0] for row in SENT.iter_unpack(path.read_bytes())]


def test_a_queue_that_is_full_for_a_moment_loses_nothing(channel: Channel, tmp_path: Path) -> None:
    """Frames that were refused, or left over of a burst, are offered again, each once."""
    full = -errno.ENOBUFS
    run = Run(channel, tmp_path / "sent", [3, full, full, 2, 8, -errno.EAGAIN, 1])

    assert run.link.taken == run.recorded == list(range(FRAMES))
    assert (run.summary["sent"], run.summary["unsent"]) == (FRAMES, 0)


def test_a_queue_that_stays_full_costs_numbers_that_are_counted(
    channel: Channel, tmp_path: Path
) -> None:
    """What was taken of the burst is recorded, the rest is unsent, and the sum is what was due."""
    run = Run(channel, tmp_path / "sent", [3, *[-errno.ENOBUFS] * 4])

    assert run.link.taken == run.recorded == [0, 1, 2, *range(8, FRAMES)]
    assert run.summary["unsent_because"] == {"ENOBUFS": 5}
    assert run.summary["sent"] + run.summary["unsent"] == FRAMES


def test_an_error_that_is_no_state_of_a_link_is_not_swallowed(
    channel: Channel, tmp_path: Path
) -> None:
    """Counted as unsent, a fault of ours would pass for a busy link."""
    with pytest.raises(OSError, match="Bad address"):
        Run(channel, tmp_path / "sent", [-errno.EFAULT])


def test_a_record_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    records = RecordWriter(str(tmp_path / "sent"), SENT)
    records.close()

    assert stat.S_IMODE((tmp_path / "sent").stat().st_mode) == 0o600


def test_a_record_of_many_chunks_is_whole(tmp_path: Path) -> None:
    """Chunks are written as they fill; one written twice or left out shows here."""
    records = RecordWriter(str(tmp_path / "sent"), SENT)
    for number in range(5000):
        records.add(number, 2 * number, 3 * number)
    records.close()

    rows = list(SENT.iter_unpack((tmp_path / "sent").read_bytes()))
    assert rows == [(number, 2 * number, 3 * number) for number in range(5000)]


@pytest.mark.parametrize("wrong", [{"rate_pps": 0}, {"rate_pps": 2_000_000}, {"burst": 0}])
def test_a_rate_that_cannot_be_is_refused(channel: Channel, wrong: dict[str, Any]) -> None:
    spec = {"interface": "lo", "template": echo(64), "rate_pps": 1, "path": "unused", **wrong}

    with pytest.raises(AgentError, match="cannot send"):
        sender.main(spec, channel)


def test_realtime_that_is_not_permitted_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ordinary sender on a busy machine is late, and the reader should know why."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)

    (note,) = sender._become_realtime()
    assert "SCHED_FIFO was not permitted" in note
