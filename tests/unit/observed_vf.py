"""A VF that an observer watches: a file stands for sysfs ``config``, a Vf for the device behind it.

QEMU opens and closes it, and a script says what happens between two samples.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.agent import bme, observer
from harness.agent.bme import CommandRegister, SysfsConfig
from harness.agent.channel import Channel
from harness.uapi.vfio import DeviceState, MigrationFlag

ON, OFF = 0x0406, 0x0402
ADDRESS = "0000:01:10.0"


class Copy:
    """A copied descriptor: it reads the same register, and keeps the VF in use until closed."""

    def __init__(self, vf: Vf) -> None:
        self._vf = vf
        vf.copies += 1

    @property
    def still_lent(self) -> bool:
        return self._vf.open_by_qemu

    def config_read(self, offset: int, length: int) -> bytes:
        return self._vf.config.read_bytes()[offset : offset + length]

    def config_reader(self, offset: int, length: int) -> Callable[[], bytes]:
        return lambda: self.config_read(offset, length)

    def migration(self) -> MigrationFlag:
        return MigrationFlag(0) if self._vf.state is None else MigrationFlag.STOP_COPY

    def migration_state(self) -> int:
        assert self._vf.state is not None, "the kernel answers ENOTTY to who asks all the same"
        return self._vf.state

    read_migration_state = migration_state

    def close(self) -> None:
        self._vf.copies -= 1


class Vf:
    """A VF in sysfs, and the process that owns it; *state* is None without migration."""

    def __init__(self, sysfs: Path, command: int = ON, *, open_by_qemu: bool = True) -> None:
        self.config = sysfs / ADDRESS / "config"
        self.config.parent.mkdir()
        self.open_by_qemu = open_by_qemu
        self.copies = 0
        self.asked = 0
        self.state: DeviceState | None = None
        self.set(command)

    def set(self, command: int) -> None:
        """Write COMMAND, in place, as a device's registers are."""
        with self.config.open("wb") as config:
            config.write(b"\x86\x80\xca\x10" + command.to_bytes(2, "little"))

    def move_to(self, state: DeviceState) -> None:
        """Have a migration state, which a VF without migration has not."""
        self.state = state

    def borrow(self) -> Copy | None:
        self.asked += 1
        return Copy(self) if self.open_by_qemu else None

    def register(self) -> CommandRegister:
        return CommandRegister(SysfsConfig(self.config), self.borrow)


@pytest.fixture
def sysfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for sysfs; descriptors are looked at with every sample."""
    monkeypatch.setattr(bme, "LOOK_EVERY_NS", 0)
    for module in (bme, observer):
        monkeypatch.setattr(module, "SYSFS", tmp_path)
    return tmp_path


class Script(Channel):
    """A channel that takes one step of a script before each sample, and then ends."""

    def __init__(self, *steps: Callable[[], object]) -> None:
        super().__init__(-1, -1)
        self._steps = list(steps)
        self.said: list[dict[str, Any]] = []
        self.waits_s: list[float] = []

    def wait(self, seconds: float) -> bool:
        assert seconds >= 0
        self.waits_s.append(seconds)
        if not self._steps:
            return True
        self._steps.pop(0)()
        return False

    def say(self, message: dict[str, Any]) -> None:
        self.said.append(message)


def nothing() -> None:
    """Let one sample pass."""


def run(vf: Vf, *steps: Callable[[], object], **spec: Any) -> tuple[dict[str, Any], list[Any]]:
    """Run the observer through a script: the summary, and (command, bme, via) of each line."""
    path = vf.config.parent.parent / "bme.jsonl"
    whole = {"host": "alder", "vf": ADDRESS, "path": str(path), **spec}
    summary = observer.main(whole, Script(*steps))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert all(line["host"] == "alder" and line["vf"] == ADDRESS for line in lines)
    assert [line["t_ns"] for line in lines] == sorted(line["t_ns"] for line in lines)
    return summary, [(line["command"], line["bme"], line["via"]) for line in lines]
