"""tcpdump captures the frames on a lab's wire, and shares no code with the harness."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import LabError
from harness.lab.chroot import in_tree
from harness.lab.emulated import running_image, wire_of
from harness.lab.programs import last_words, output_of
from harness.lab.wire import BRIDGE
from harness.topology import Topology
from harness.waiting import Deadline, wait_for

SNAP_BYTES = 128
"""A capture keeps this many bytes of a frame, which hold the frame's headers and number."""

READY_SECONDS = 10
END_SECONDS = 10
READ_SECONDS = 300


class Capture:
    """A finished capture is in *file*, in pcap format, on this machine.

    *dropped* is the number of frames that the kernel dropped, as tcpdump reports it.
    """

    def __init__(self, topology: Topology, file: Path, dropped: int) -> None:
        self._topology = topology
        self.file = file
        self.dropped = dropped

    def count(self, expression: str) -> int:
        """Return how many captured frames match *expression*, a pcap filter."""
        read = output_of(
            *_tcpdump(self._topology, self.file.parent, "-r", f"/run/{self.file.name}", expression),
            means="the capture could not be read",
            fix="see whether the capture is whole and the filter one of pcap-filter(7)",
            seconds=READ_SECONDS,
        )
        return len(read.splitlines())


@contextmanager
def captured(topology: Topology, file: Path) -> Iterator[list[Capture]]:
    """Capture IPv4 and ARP frames on the wire of an emulated lab into *file*, during the body.

    The list that the body gets is empty until the body ends, and then holds the Capture.  tcpdump
    listens on the bridge of the wire, so *file* has each frame once, whichever end sent the frame.
    Raises LabError if tcpdump ends at once, and WaitError if tcpdump does not listen in time.
    """
    wire = wire_of(topology)
    argv = _tcpdump(
        topology, file.parent, "-i", BRIDGE, "-s", str(SNAP_BYTES), "-B", "65536", "-U",
        "-w", f"/run/{file.name}", "ip or arp",
    )  # fmt: skip
    done: list[Capture] = []
    words = file.with_suffix(".log")
    with words.open("w") as log:
        process = subprocess.Popen(["ip", "netns", "exec", wire.namespace, *argv], stderr=log)
    try:
        _wait_until_it_listens(process, words)
        yield done
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    done.append(Capture(topology, file, _dropped(words)))


def _tcpdump(topology: Topology, folder: Path, *arguments: str) -> list[str]:
    return in_tree(
        running_image(topology).tree,
        "tcpdump", "-n", "--immediate-mode", "-Z", "root", *arguments,
        binds={"/run": folder},
    )  # fmt: skip


def _wait_until_it_listens(process: subprocess.Popen[bytes], words: Path) -> None:
    def look() -> str:
        text = words.read_text()
        if process.poll() is not None:
            raise LabError(
                f"this machine: tcpdump ended with status {process.returncode}",
                because=f"tcpdump said: {text.strip() or 'nothing'}",
                fix="see whether the lab is up: `vf-harness lab status`",
            )
        return text

    wait_for(
        "tcpdump to listen",
        look,
        within=Deadline(READY_SECONDS),
        until=lambda text: "listening on" in text,
    )


def _dropped(words: Path) -> int:
    """Return N of the line "N packets dropped by kernel", which tcpdump prints as it ends."""
    text = words.read_text()
    if counted := re.search(r"^(\d+) packets? dropped by kernel", text, re.MULTILINE):
        return int(counted[1])
    raise LabError(
        "this machine: tcpdump did not say how many frames its kernel dropped",
        because=f"the capture may lack frames; its last words: {last_words(text)}",
        fix=f"see {words}, and capture again",
    )
