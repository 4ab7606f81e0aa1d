"""The peer's own kernel cuts the peer's way out to the wire, in labs whose cables stay in.

Every frame that the peer sends is dropped in the queue of its interface, and who sent the frame is
told that the frame went out, as with a wire that is cut.  A link that is set down would show at
both ends, and a real link takes seconds to come back; a switch's port is not ours; filters of `tc`
and `nft` need modules and programs that not every peer has.  The queueing discipline ``blackhole``
is in every kernel that has `tc`, and is in place when `tc` returns, as is the queue that follows.
Ref: Linux, net/sched/Makefile and sch_blackhole.c.

Frames still come in to the peer: the cut is of round trips, and of flows to the guest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from harness.errors import LabError
from harness.host.changes import changed_back
from harness.remote import Host

OPEN = ["pfifo", "limit", "1000"]
"""The interface has this queue while the way is open; an interface's usual queue is as long."""

_TAKE_OFF = 'tc qdisc del dev "$1" root || tc qdisc show dev "$1" | grep -q " 0: root"'
"""Delete our queue; it is no error where the kernel's own, with handle 0:, is back already."""


@dataclass(frozen=True, slots=True)
class WayOut:
    """The way out of *peer* by *interface*; open until it is cut."""

    peer: Host
    interface: str

    def cut(self) -> None:
        """Drop every frame that is sent from the moment on when this returns."""
        self._put("blackhole")

    def mend(self) -> None:
        """Send frames again from the moment on when this returns."""
        self._put(*OPEN)

    def _put(self, *queue: str) -> None:
        argv = ["tc", "qdisc", "replace", "dev", self.interface, "root", *queue]
        self.peer.run(*argv, changes=True)


@contextmanager
def way_out(peer: Host, interface: str) -> Iterator[WayOut]:
    """Lend the way out of *peer*, open; afterwards its interface has the kernel's queues again.

    The journal's entry is made here, for a queue of ours: a cut is then one command, without the
    disk that a journal waits for.  Raises LabError where somebody set a queue up by hand.
    """
    shown = json.loads(peer.run("tc", "-json", "qdisc", "show", "dev", interface).stdout)
    for queue in shown:
        if queue.get("root") and queue["handle"] != "0:":
            raise LabError(
                f"{peer.name}: {interface} has a queue that somebody set up, {queue['kind']}",
                because="it would have to make room, and nobody could put it back as it was set; "
                "nothing was changed",
                fix=f"take it off (`tc qdisc del dev {interface} root`), and set it up again later",
            )
    with changed_back(peer):
        peer.change(
            f"{interface} with a queue of ours",
            do={"kind": "run", "argv": ["tc", "qdisc", "add", "dev", interface, "root", *OPEN]},
            undo={"kind": "run", "argv": ["sh", "-c", _TAKE_OFF, "sh", interface]},
        )
        yield WayOut(peer, interface)
