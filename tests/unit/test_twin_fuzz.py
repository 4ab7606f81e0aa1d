"""The vfio-user server under messages that are nearly right, quite wrong, or cut off."""

from __future__ import annotations

from twin_fuzz import Fuzz


def test_twenty_thousand_messages_leave_the_server_whole() -> None:
    """Whatever a client sends: an errno, or the end of its own connection, and nothing worse."""
    fuzz = Fuzz(seed=82599)
    fuzz.run(20_000)
    assert fuzz.answers["done"] > 1000
    assert fuzz.answers["EINVAL"] > 1000
