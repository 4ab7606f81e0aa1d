"""What is said of the order of DMA, the last pass and STOP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["kept", "broken", "unknown"]


@dataclass(frozen=True, slots=True)
class Order:
    """*kept*, *broken*, or *unknown* for a VF of the source, and a sentence that says why.

    *excerpt* has the lines of the timeline that it is about, unless it was kept.
    """

    outcome: Outcome
    why: str
    excerpt: tuple[str, ...] = ()
