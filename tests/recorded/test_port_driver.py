"""What a port's real driver answered, replayed against our model of it.

A transcript is what ``tests/lab/test_port_driver.py`` leaves among its artifacts when it plays the
whole list.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.mailbox.model import ModelPlayer
from harness.mailbox.sequences import sequences
from harness.mailbox.transcript import Transcript, differences
from harness.twin.driver import of_kernel

RECORDED = [Transcript.read(path) for path in sorted(Path(__file__).parent.glob("port-driver-*"))]
LISTED = {sequence.name: sequence for sequence in sequences()}


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda each: f"{each.driver}, {each.vfs} VFs")
@pytest.mark.parametrize("name", LISTED)
def test_the_model_answers_as_the_driver_did(recorded: Transcript, name: str) -> None:
    """A sequence that is not in the transcript, or has other steps there, is to be played anew."""
    model = ModelPlayer(of_kernel(recorded.driver.split()[-1]), recorded.vfs)
    assert list(differences(recorded.played[name], model.play(LISTED[name]))) == []


def test_there_is_a_transcript_of_the_driver_that_hosts_have() -> None:
    """And nothing but the list is in it: a sequence that was taken out is no evidence."""
    assert RECORDED
    assert all(set(recorded.played) == set(LISTED) for recorded in RECORDED)
