"""A VF taken out of a guest and put back, by QEMU as it is over QMP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from two_ends import PLACE, End

from harness.errors import MigrationError
from harness.guest import instance


@pytest.fixture
def end(tmp_path: Path) -> Iterator[End]:
    with ExitStack() as stack:
        end = End("alder", "running", tmp_path, stack)
        end.instance.place = replace(PLACE, tap=None, vf={"driver": "vfio-pci", "host": "01:10.0"})
        yield end


def test_a_vf_is_out_when_the_guest_has_let_it_go(end: End) -> None:
    """Asking is not enough: the answer comes at once, the event when the guest is done."""
    monitor = end.monitor

    def let_go() -> None:
        monitor.emit("DEVICE_DELETED", path="/machine/peripheral/vf0/x")
        monitor.emit("DEVICE_DELETED", device="vf0", path="/machine/peripheral/vf0")

    monitor.reacts["device_del"] = lambda _: monitor.then.append(let_go)
    end.instance.unplug()
    assert monitor.asked[-1] == ("device_del", {"id": "vf0"})
    end.instance.plug()
    back = {"driver": "vfio-pci", "host": "01:10.0", "id": "vf0", "bus": "slot2"}
    assert monitor.asked[-1] == ("device_add", back)


def test_a_guest_that_keeps_its_vf_is_told(end: End, monkeypatch: pytest.MonkeyPatch) -> None:
    """An event of an earlier unplug does not count, nor that of a part of the device."""
    part = {"path": "/machine/peripheral/vf0/x"}
    monitor = end.monitor
    monitor.reacts["device_del"] = lambda _: monitor.then.append(
        lambda: monitor.emit("DEVICE_DELETED", **part)
    )
    monkeypatch.setattr(instance, "UNPLUG_SECONDS", 0.3)
    end.monitor.emit("DEVICE_DELETED", device="vf0")
    end.instance.qmp.wait_for("it", lambda event: event.name == "DEVICE_DELETED", within=5)
    with pytest.raises(MigrationError, match="for the guest to let its VF go"):
        end.instance.unplug()
