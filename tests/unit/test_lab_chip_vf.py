"""A VF of a lab's chip is told by its PCI address which VF of which port it is."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.errors import RemoteError
from harness.lab import chip_vf as module
from harness.lab.chip_vf import ChipVf, chip_vf
from harness.topology import find, load


@pytest.mark.parametrize(
    ("address", "port", "vf"),
    [
        ("0000:01:10.0", 0, 0),
        ("0000:01:10.1", 1, 0),
        ("0000:01:10.2", 0, 1),
        ("0000:01:13.7", 1, 15),
    ],
)
def test_a_vf_is_found_by_its_address(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, address: str, port: int, vf: int
) -> None:
    """VFs of two ports lie between each other."""
    monkeypatch.setattr(module, "run_folder", lambda _: tmp_path)
    function = cast("Any", SimpleNamespace(host=SimpleNamespace(name="alder"), name=address))
    assert chip_vf(load(find("emulated")), function) == ChipVf(tmp_path / "alder-chip", port, vf)
    assert chip_vf(load(find("emulated-82576")), function) is None


def test_a_chip_that_is_gone_is_told_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(RemoteError, match="alder-chip: the chip cannot be asked"):
        ChipVf(tmp_path / "alder-chip", 0, 0).misbehave(loses=1)


def test_a_fault_goes_to_the_vf_or_else_to_its_port(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Both can lose interrupts; what is asked of a VF is meant for the VF."""
    monkeypatch.chdir(tmp_path)
    heard: list[dict[str, Any]] = []

    def answer() -> None:
        connection, _ = listener.accept()
        with connection, connection.makefile("rw") as lines:
            for _ in range(2):
                heard.append(json.loads(lines.readline()))
                lines.write('{"ok": null}\n')
                lines.flush()

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("control")
        listener.listen()
        listener.settimeout(5)
        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        ChipVf(Path(), 1, 4).misbehave(loses=1, silent_mailbox=True)
        thread.join(5)
    assert heard == [
        {"do": "misbehave", "port": 1, "silent_mailbox": True},
        {"do": "misbehave", "port": 1, "vf": 4, "loses": 1},
    ]
