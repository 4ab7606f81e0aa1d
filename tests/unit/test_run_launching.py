"""Booting a guest is tried as often as the lab says, and a try that failed leaves nothing."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.errors import GuestError, HarnessError, RemoteError, WaitError
from harness.run import launching
from harness.run.launching import Launcher

TRIES = 2


class Trying(Launcher):
    """A launcher whose guests are made up; *told* has what became of each."""

    def __init__(self, told: list[str]) -> None:
        topology = SimpleNamespace(guest=SimpleNamespace(boot_tries=TRIES))
        lab: Any = SimpleNamespace(
            topology=topology, renew=lambda: None, progress=told.append, guest=None
        )
        spec: Any = SimpleNamespace(emulated_port=True)
        super().__init__(lab, spec, ExitStack(), Path())
        self._told = told

    def launch(self, berth: Any, *, incoming: bool, paused: bool = False) -> tuple[ExitStack, Any]:  # noqa: ARG002
        ending = ExitStack()
        ending.callback(self._told.append, "process ended")
        return ending, SimpleNamespace(wait_until_up=lambda: None)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    told: list[str] = []

    def machine(*_: object) -> SimpleNamespace:
        return SimpleNamespace(close=lambda: told.append("connection closed"))

    monkeypatch.setattr(launching, "GuestMachine", machine)
    monkeypatch.setattr(launching, "wait_for_lent_vf", lambda _: None)
    monkeypatch.setattr(launching, "make_own_vf", lambda _: "a VF")
    return told


@pytest.mark.parametrize("step", ["wait_for_lent_vf", "make_own_vf"])
@pytest.mark.parametrize("kind", [GuestError, RemoteError, WaitError])
def test_a_guest_without_its_vf_is_booted_again(
    step: str, kind: type[HarnessError], told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guest's kernel may be late with a VF; nothing is measured yet."""

    def fails(_: object) -> None:
        raise kind("guest: no VF", because="b", fix="f")

    monkeypatch.setattr(launching, step, fails)
    berth: Any = SimpleNamespace(vf=None, host="alder")
    with pytest.raises(kind, match="no VF"):
        Trying(told).boot(berth)
    once = ["booting the guest on alder", "connection closed", "process ended"]
    assert told == [*once, "guest: no VF; ended it", *once]


def test_a_guest_with_its_vf_keeps_its_connection(told: list[str]) -> None:
    berth: Any = SimpleNamespace(vf=None, host="alder")
    assert str(Trying(told).boot(berth).own_vf) == "a VF"
    assert told == ["booting the guest on alder"]
