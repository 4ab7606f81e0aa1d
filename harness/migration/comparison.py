"""Both memories of a guest that stands still at its destination, compared page by page.

It lengthens the stop by the time that digests take, so it is done only where a test asks for it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness.analysis.measured import DIGESTED, MEMORY_COMPARED, NOT_COMPARED
from harness.analysis.memory import differing
from harness.errors import HarnessError
from harness.guest.instance import Instance
from harness.guest.machine import GuestMachine
from harness.guest.memory import Digested, GuestMemory, digest_speeds, hypervisor_pages
from harness.migration.outcome import Note, Outcome

SECONDS_PER_GIB = 60
"""An emulated host digests some 250 MiB a second; this is how long it is waited for."""


@dataclass(frozen=True, slots=True)
class Digests:
    """A number for each page at the source, *here*, and at the destination, made as *name* says.

    They began to be made at *began_ns* of our monotonic clock, and the guest stood still for
    *took_ms*; *bytes_per_s* is that of the slower host.
    """

    name: str
    here: bytes
    there: bytes
    pages: int
    began_ns: int
    took_ms: float
    bytes_per_s: float


class Comparison:
    """One comparison; `prepare`, `digest` while both sides stand still, `compare` or `conclude`.

    *notes* are the moments of it.  What keeps it from being made is a note, too, and no error: the
    guest has to run on, and the migration was measured all the same.  *tables* has a row for each
    page that differs (``memory``): ``page``, its number in the guest's memory; ``page_frame``, the
    guest's own number for it; ``owner``, what the hypervisor has there, empty for one that is lost.
    """

    def __init__(self) -> None:
        self.tables: dict[str, pd.DataFrame] = {}
        self.notes: list[Note] = []
        self._name = ""
        self._owners: Mapping[int, str] = {}
        self._taken: tuple[GuestMemory, GuestMemory, list[Digested]] | None = None
        self._began_ns, self._took_ms = 0, 0.0

    def prepare(self, source: Instance, successor: Instance, guest: GuestMachine) -> None:
        """Ask what has to be known before: which digest is fastest, and whose pages there are."""
        self._name = fastest(source, successor)
        self._owners = hypervisor_pages(guest)

    def digest(self, source: Instance, successor: Instance) -> None:
        """Digest both memories side by side; the guest waits for that."""
        seconds = 60 + SECONDS_PER_GIB * source.spec.memory_mib / 1024
        self._began_ns = time.monotonic_ns()
        try:
            memories = GuestMemory.of(source), GuestMemory.of(successor)
            with ThreadPoolExecutor() as pool:
                made = list(
                    pool.map(lambda each: each.digest(self._name, seconds=seconds), memories)
                )
        except HarnessError as failed:
            self._note(NOT_COMPARED, f"{failed.what}; {failed.because}", {})
            return
        self._took_ms = (time.monotonic_ns() - self._began_ns) / 1e6
        self._taken = (*memories, made)
        self._note(DIGESTED, f"in {self._took_ms:.0f} ms", {"took_ms": self._took_ms})

    def compare(self) -> tuple[Note, ...]:
        """Compare what `digest` has taken, and return all notes; after the flows: it takes a while.

        Neither guest nor QEMU is asked, so a guest that is lost is compared too.
        """
        if self._taken is not None:
            try:
                self._compare(self._taken[0], self._fetched(*self._taken))
            except HarnessError as failed:
                self._note(NOT_COMPARED, f"{failed.what}; {failed.because}", {})
        return tuple(self.notes)

    def conclude(self, outcome: Outcome) -> Outcome:
        """Return *outcome* with what `compare` has to say of it."""
        if outcome.status == "completed" and not self.notes:
            self._note(NOT_COMPARED, "both sides were never seen to stand still", {})
        return outcome.noted(*self.compare())

    def _compare(self, memory: GuestMemory, both: Digests) -> None:
        pages = differing(both.here, both.there, both.name, both.pages)
        page_frames = [memory.page_frame(int(page)) for page in pages]
        owners = [self._owners.get(each, "") for each in page_frames]
        differ = pd.DataFrame({"page": pages, "page_frame": page_frames, "owner": owners})
        self.tables["memory"] = differ
        owned = differ[differ["owner"] != ""]
        lost = len(differ) - len(owned)
        data = {"pages": both.pages, "digest": both.name, "bytes_per_s": both.bytes_per_s}
        data["owned"] = dict(zip(map(hex, owned["page_frame"]), owned["owner"], strict=True))
        data |= {"differ": lost, **self._explained(memory, both, differ)}
        self._note(MEMORY_COMPARED, f"{lost} of {both.pages} pages differ", data)

    def _explained(
        self, memory: GuestMemory, both: Digests, differ: pd.DataFrame
    ) -> dict[str, Any]:
        """What else there is to say of the pages that *differ*, as *tables* has them."""
        del memory, both
        return {"page_frames": differ["page_frame"][differ["owner"] == ""].tolist()}

    def _fetched(self, here: GuestMemory, there: GuestMemory, made: list[Digested]) -> Digests:
        of_source, of_successor = (
            memory.instance.host.fetch(each.path)
            for memory, each in zip((here, there), made, strict=True)
        )
        bytes_per_s = here.size / max(each.seconds for each in made)
        times = self._began_ns, self._took_ms
        return Digests(self._name, of_source, of_successor, here.pages, *times, bytes_per_s)

    def _note(self, name: str, text: str, data: Mapping[str, Any]) -> None:
        self.notes.append(Note(time.monotonic_ns(), name, text, data))


def fastest(source: Instance, successor: Instance) -> str:
    """The digest that the slower of both hosts makes fastest: both have to make the same."""
    speeds = [digest_speeds(instance.host) for instance in (source, successor)]
    return max(speeds[0], key=lambda name: min(each[name] for each in speeds))
