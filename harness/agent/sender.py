"""Recorder `sender`: sends the numbered frames of one flow at a steady rate.

The spec::

    interface    by name
    template     see payload.Template
    rate_pps     frames a second
    path         file of `sent` records, see records
    count        frames to send; without it, until told to end
    start_at_ns  monotonic time of the first frame; without it, at once
    burst        most frames to send at once when late (8)
    spin_us      how long to look at the clock before a frame is due, rather than sleep (50)
    realtime     whether to ask for SCHED_FIFO

Frame n is due at start + n * interval, whatever became of those before.  A late sender catches up,
at no more than twice the rate and *burst* frames at once.  A frame that the kernel does not take
is tried again for a moment; then its number is given up and counted, so that
sent + unsent is always the number of frames that were due.
"""

from __future__ import annotations

import errno
import gc
import os
import time
from collections import Counter
from contextlib import ExitStack, closing
from typing import Any

from harness.agent.channel import Channel
from harness.agent.errors import AgentError
from harness.agent.packet_socket import SendingSocket
from harness.agent.payload import Template
from harness.agent.records import SENT, RecordWriter

_SECOND_NS = 1_000_000_000
_HEAD_START_NS = 20_000_000  # between saying "ready" and the first frame
_TRIES = 4
_BETWEEN_TRIES_NS = 200_000
_PASSING = (errno.ENOBUFS, errno.EAGAIN)  # no room in a queue
_REFUSED = (errno.ENETDOWN, errno.ENXIO, errno.ENODEV, errno.EMSGSIZE)  # link down, gone, small MTU
_REALTIME_PRIORITY = 10


def main(spec: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Send until *count* frames were due or the channel ended.

    The summary::

        sent, unsent               frames
        unsent_because             name of the errno -> frames
        started_ns, ended_ns       monotonic; started_ns is the base of the times in the frames
        notes                      sentences on what was not as asked for
    """
    template = Template(spec["template"])
    rate_pps, burst = spec["rate_pps"], spec.get("burst", 8)
    if not 0 < rate_pps <= 1_000_000 or burst < 1:
        raise AgentError(
            f"cannot send {rate_pps} frames a second in bursts of {burst}",
            because="the rate must be above 0 and at most 1,000,000, a burst at least one frame",
            fix="change rate_pps or burst of the flow",
        )
    notes = _become_realtime() if spec.get("realtime") else []
    with ExitStack() as stack:
        link = stack.enter_context(closing(SendingSocket(spec["interface"], template, burst)))
        records = stack.enter_context(closing(RecordWriter(spec["path"], SENT)))
        link.bind()
        started_ns = max(spec.get("start_at_ns", 0), time.monotonic_ns() + _HEAD_START_NS)
        interval_ns = round(_SECOND_NS / rate_pps)
        schedule = Schedule(channel, started_ns, interval_ns, spec.get("spin_us", 50))
        sending = Sending(link, template, records, schedule)
        gc.disable()  # there are no cycles to collect, and a collection is a pause
        channel.ready(started_ns=started_ns)
        sending.run(burst, spec.get("count"))
    return {**sending.summary(), "notes": notes}


class Schedule:
    """When each frame is due, and the waiting for it."""

    def __init__(self, channel: Channel, started_ns: int, interval_ns: int, spin_us: int) -> None:
        self._channel = channel
        self.started_ns = started_ns
        self.interval_ns = interval_ns
        self._spin_ns = spin_us * 1000

    def due_ns(self, sequence: int) -> int:
        return self.started_ns + sequence * self.interval_ns

    def due_by(self, now_ns: int) -> int:
        """How many frames were due until now."""
        return (now_ns - self.started_ns) // self.interval_ns + 1

    def wait_until(self, moment_ns: int) -> bool:
        """Wait for a moment; False, at once, if the channel ended.

        The kernel wakes a sleeper tens of microseconds late, so the last bit is spent looking.
        """
        while True:
            left_ns = moment_ns - self._spin_ns - time.monotonic_ns()
            if self._channel.wait(max(0, left_ns) / _SECOND_NS):
                return False
            if left_ns <= 0:
                break
        while time.monotonic_ns() < moment_ns:
            pass
        return True


class Sending:
    """The sending of one flow, and the account of it."""

    def __init__(
        self, link: SendingSocket, template: Template, records: RecordWriter, schedule: Schedule
    ) -> None:
        self._link = link
        self._template = template
        self._records = records
        self._schedule = schedule
        self._sent = 0
        self._unsent: Counter[str] = Counter()

    def run(self, burst: int, count: int | None) -> None:
        """Send until the channel ended or *count* frames were due."""
        schedule = self._schedule
        sequence = 0
        not_before_ns = 0
        while count is None or sequence < count:
            if not schedule.wait_until(max(schedule.due_ns(sequence), not_before_ns)):
                return
            now_ns = time.monotonic_ns()
            frames = min(burst, schedule.due_by(now_ns) - sequence)
            if count is not None:
                frames = min(frames, count - sequence)
            self._send(sequence, frames)
            sequence += frames
            not_before_ns = now_ns + frames * schedule.interval_ns // 2

    def _send(self, sequence: int, frames: int) -> None:
        """Send *frames* frames from *sequence* on, each in a buffer of its own."""
        started_ns = self._schedule.started_ns
        times = []
        for number in range(frames):
            times.append(time.monotonic_ns())
            self._template.fill(
                self._link.buffers[number], sequence + number, times[number] - started_ns
            )
        done, tries = 0, 0
        while done < frames:
            try:
                taken = self._link.send(done, frames - done)
            except OSError as error:
                tries += 1
                if not self._try_again(error, tries):
                    self._unsent[errno.errorcode[error.errno or 0]] += frames - done
                    return
                continue
            for number in range(done, done + taken):
                self._account(sequence + number, times[number])
            done += taken

    def _try_again(self, error: OSError, tries: int) -> bool:
        """Pause, and say whether to try once more.  Raises what is no state of a link."""
        if error.errno in _PASSING:
            again_ns = time.monotonic_ns() + _BETWEEN_TRIES_NS
            return tries < _TRIES and self._schedule.wait_until(again_ns)
        if error.errno not in _REFUSED:
            raise error
        self._link.follow()
        return False

    def _account(self, sequence: int, sent_ns: int) -> None:
        self._records.add(sequence, self._schedule.due_ns(sequence), sent_ns)
        self._sent += 1

    def summary(self) -> dict[str, Any]:
        return {
            "sent": self._sent,
            "unsent": sum(self._unsent.values()),
            "unsent_because": dict(self._unsent),
            "started_ns": self._schedule.started_ns,
            "ended_ns": time.monotonic_ns(),
        }


def _become_realtime() -> list[str]:
    """Ask the kernel for SCHED_FIFO, and return a sentence if that is not permitted."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_REALTIME_PRIORITY))
    except PermissionError:
        return ["SCHED_FIFO was not permitted: the sender ran at ordinary priority"]
    return []
