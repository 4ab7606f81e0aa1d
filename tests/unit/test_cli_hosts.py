"""The command ``vf-harness`` where hosts are at fault, or were left changed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from machines import local_host
from test_cli import told

import harness.remote
from harness import cli
from harness.errors import RemoteError
from harness.remote import Host


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Host]:
    """Every host that the command connects to is this machine, by a real agent of its own."""

    def connect(name: str, _: object = None) -> Host:
        return local_host(tmp_path / name, name)

    monkeypatch.setattr(harness.remote, "connect", connect)
    return connect


def test_an_unhealthy_lab_is_told_fault_by_fault(
    capsys: pytest.CaptureFixture[str], hosts: Callable[[str], Host]
) -> None:
    """No such ports are on this machine: both hosts' faults stand in one list."""
    del hosts
    said = told(capsys, 11, "doctor", "--lab", "x520-pair")
    for host in ("alder", "birch"):
        assert f"{host}: there is no PCI device" in said
    assert "nothing was changed" in said


def test_a_host_that_cannot_be_reached_is_one_fault_among_others(
    capsys: pytest.CaptureFixture[str],
    hosts: Callable[[str], Host],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The others are looked at all the same: somebody is on the way to that rack."""

    def connect(name: str, _: object = None) -> Host:
        if name == "alder":
            raise RemoteError("alder: no answer", because="timed out", fix="switch it on")
        return hosts(name)

    monkeypatch.setattr(harness.remote, "connect", connect)
    said = told(capsys, 11, "doctor", "--lab", "x520-pair")
    assert "alder: no answer (timed out): switch it on" in said
    assert "birch: there is no PCI device" in said


def test_a_host_that_the_lab_does_not_have_is_not_put_back(
    capsys: pytest.CaptureFixture[str], hosts: Callable[[str], Host], tmp_path: Path
) -> None:
    """A slip in a name is no host that could not be put back, and touches none."""
    file = tmp_path / "file"
    left_changed(hosts("alder"), file)
    assert "cedar" in told(capsys, 2, "restore", "alder", "cedar", "--lab", "x520-pair")
    assert file.read_text() == "after"


def test_a_host_is_put_back_from_its_journal(
    capsys: pytest.CaptureFixture[str], hosts: Callable[[str], Host], tmp_path: Path
) -> None:
    """The agent that made the change was killed: only the journal knows of it."""
    file = tmp_path / "file"
    left_changed(hosts("alder"), file)
    assert cli.main(["restore", "alder", "--lab", "x520-pair"]) == 0
    assert capsys.readouterr().out == "alder: 1 changes undone\n"
    assert file.read_text() == "before"


def test_a_host_that_cannot_be_put_back_has_an_exit_code_of_its_own(
    capsys: pytest.CaptureFixture[str], hosts: Callable[[str], Host], tmp_path: Path
) -> None:
    """And keeps no other host from its turn."""
    file = tmp_path / "folder" / "file"
    file.parent.mkdir()
    left_changed(hosts("alder"), file)
    shutil.rmtree(file.parent)
    assert cli.main(["restore", "--lab", "x520-pair"]) == 12
    out, err = capsys.readouterr()
    assert out == "birch: 0 changes undone\npeer: 0 changes undone\n"
    assert f"alder: not undone: {file} = after" in err


def left_changed(host: Host, file: Path) -> None:
    """Let *host* have one change that nobody undid: its agent is killed right after it."""
    file.write_text("before")
    host.lease.take("a test", 60)
    host.change(
        f"{file} = after",
        do={"kind": "write", "path": str(file), "text": "after"},
        undo={"kind": "write", "path": str(file), "text": "before"},
    )
    os.kill(host.facts.pid, 9)
    host.close()
    assert file.read_text() == "after"
