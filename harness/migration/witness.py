"""A comparison of memory is held against the device's own log."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from harness.analysis.copies import PAGE
from harness.analysis.memory import read_log, since
from harness.guest.instance import Instance
from harness.guest.machine import GuestMachine
from harness.guest.memory import GuestMemory
from harness.host.software_vf import Logged
from harness.migration.comparison import Comparison, Digests


class WitnessedComparison(Comparison):
    """A comparison of a guest whose VF writes its DMA down in *log*.

    The addresses in the log are the guest's own: VFIO maps its memory there one to one.  A page
    that is lost and that the VF did not write since `prepare` was lost by something else, and its
    page frame stands in ``unexplained``.
    """

    def __init__(self, log: Logged) -> None:
        super().__init__()
        self._log = log
        self._before = 0

    def prepare(self, source: Instance, successor: Instance, guest: GuestMachine) -> None:
        super().prepare(source, successor, guest)
        self._before = self._log.accesses or 0

    def _explained(
        self, memory: GuestMemory, both: Digests, differ: pd.DataFrame
    ) -> dict[str, Any]:
        written = frames_written(since(read_log(self._log.dma_log()), self._before))
        lost = differ["page_frame"][differ["owner"] == ""]
        return {
            **super()._explained(memory, both, differ),
            "unexplained": [int(frame) for frame in lost[~np.isin(lost, written)]],
        }


def frames_written(log: pd.DataFrame) -> np.ndarray:
    """Return the guest's page frames that the device wrote, without repeats, in order."""
    writes = log[log["writes"]]
    first = writes["address"].to_numpy(dtype="int64") // PAGE
    last = (writes["address"] + writes["length"] - 1).to_numpy(dtype="int64") // PAGE
    longest = int((last - first).max(initial=0)) + 1
    frames = first[:, None] + np.arange(longest)
    return np.unique(frames[frames <= last[:, None]])
