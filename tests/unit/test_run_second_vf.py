"""A guest that hangs as a second VF comes is replaced as often as its lab says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.guest.vf import GuestVf
from harness.remote import DeadlineError
from harness.run.moving import MovingGuest
from harness.run.second_vf import take_second
from harness.topology import MacAddress


def test_a_guest_that_hangs_is_replaced_and_the_last_ones_error_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    replaced: list[str] = []

    def find(*_: Any) -> None:
        raise DeadlineError("guest", f"`ip` of guest {len(replaced)}", 40)

    guest = SimpleNamespace(
        boot_tries=3,
        spare=SimpleNamespace(set_filter=lambda _: None),
        instance=SimpleNamespace(plug_spare=lambda _: None),
        machine=None,
        replace=replaced.append,
    )
    monkeypatch.setattr(GuestVf, "find", find)
    with pytest.raises(DeadlineError, match="of guest 2 was not over"):
        take_second(cast(MovingGuest, guest), MacAddress("52:54:00:12:34:57"), "198.18.0.200")
    assert [why.partition(" was")[0] for why in replaced] == [
        "guest: `ip` of guest 0", "guest: `ip` of guest 1",
    ]  # fmt: skip
