"""The twin as a program: whom it serves, how it ends, and what it says of what it has not."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from vfio_client import Client, packed
from wire import ROOT, Namespace, laid

from harness.errors import RemoteError
from harness.host.twin_control import TwinControl
from harness.uapi import ixgbe_vf
from harness.uapi.ixgbe_vf import Mailbox, Message
from harness.uapi.pci_regs import Register
from harness.uapi.vfio import PciRegion
from harness.uapi.vfio_user import Command
from harness.waiting import wait_for

needs_namespaces = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None,
    reason="needs root and iproute2: it makes network namespaces",
)


ADDRESS = "52:54:00:12:34:56"
INVENTED = {
    "name": "migration", "offset": 0x46, "length": 1,
    "id": 0x14, "at": 0x40, "writable": [(0x46, 1)],
}  # fmt: skip


def run(folder: Path, **options: str) -> subprocess.CompletedProcess[str]:
    given = {
        "socket": f"{folder}/vf", "control": f"{folder}/control", "tap": "no-such-tap",
        "bme": f"{folder}/bme.jsonl", **options,
    }  # fmt: skip
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    argv = [sys.executable, "-m", "harness.twin", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "no-such-tap: there is no such tap"),
        ({"tap": "lo"}, "lo: there is no such tap"),
        ({"bme": "/no/such/folder/bme.jsonl"}, "No such file or directory"),
        ({"dma_log": "/dev/null"}, "twin: it cannot be started: [Errno"),
    ],
)
def test_what_is_missing_is_said_in_one_line(
    tmp_path: Path, options: dict[str, str], said: str
) -> None:
    """A tap that is not there would be made, and lead to nobody."""
    done = run(tmp_path, **options)
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert not (tmp_path / "vf").exists()


@dataclass
class Running:
    """A twin that runs on a tap in a namespace of its own; *folder* has its sockets."""

    process: subprocess.Popen[str]
    folder: Path
    namespace: Namespace

    @contextmanager
    def client(self) -> Iterator[Client]:
        client = Client(connected(self.folder / "vf"))
        try:
            yield client
        finally:
            client.hang_up()

    def status(self) -> dict[str, Any]:
        return self._ask("status")

    def now(self) -> dict[str, Any]:
        return self._ask("now")

    def set_mac(self, mac: str) -> None:
        with closing(TwinControl("vf0", connected(self.folder / "control"))) as control:
            control.ask("set_mac", mac=mac)

    def entries(self) -> list[str]:
        """Which addresses the bridge sends to the twin's tap alone."""
        shown = json.loads(self.namespace.run("bridge", "-json", "fdb", "show", "dev", "vf0"))
        return [each["mac"] for each in shown if "sticky" in each.get("flags", ())]

    def _ask(self, word: str) -> dict[str, Any]:
        with closing(TwinControl("vf0", connected(self.folder / "control"))) as control:
            return dict(control.ask(word))


def connected(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(path))
    return connection


def vendor(client: Client) -> int:
    return client.read(PciRegion.CONFIG, Register.VENDOR_ID, 2)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    with laid(tmp_path) as wire:
        wire.near.ip("tuntap", "add", "vf0", "mode", "tap")
        wire.near.ip("link", "add", "br0", "type", "bridge")
        wire.near.ip("link", "set", "vf0", "master", "br0", "up")
        argv = [
            "ip", "netns", "exec", wire.near.name, sys.executable, "-m", "harness.twin",
            f"--socket={tmp_path}/vf", f"--control={tmp_path}/control", "--tap=vf0",
            f"--bme={tmp_path}/bme.jsonl", f"--dma-log={tmp_path}/dma.log",
            f"--capability={json.dumps(INVENTED)}",
        ]  # fmt: skip
        process = subprocess.Popen(argv, cwd=ROOT, text=True, stderr=subprocess.PIPE)
        try:
            wait_for("the twin to listen", (tmp_path / "control").exists, within=10)
            yield Running(process, tmp_path, wire.near)
        finally:
            process.kill()
            process.communicate()


@needs_namespaces
def test_a_second_client_is_hung_up_on_and_the_first_is_served_on(running: Running) -> None:
    with running.client() as first:
        first.negotiate()
        with running.client() as second, pytest.raises((EOFError, ConnectionError)):
            second.negotiate()
        assert vendor(first) == 0x8086
        assert running.status()["client"] is True


@needs_namespaces
def test_a_client_that_vanishes_in_the_middle_of_a_message_makes_room(running: Running) -> None:
    """QEMU is killed as it writes: the next guest is to have the VF."""
    with running.client() as first:
        first.negotiate()
        first.send_bytes(packed(1, Command.REGION_READ, bytes(16))[:20])
    wait_for("the twin to be free", lambda: running.status()["client"] is False, within=5)
    with running.client() as next_one:
        next_one.negotiate()
        assert vendor(next_one) == 0x8086


@needs_namespaces
def test_a_twin_whose_tap_is_deleted_has_no_link_and_goes_on(running: Running) -> None:
    running.namespace.ip("link", "del", "vf0")
    wait_for("the link to be gone", lambda: not running.status()["port"]["link_up"], within=5)
    with running.client() as client:
        client.negotiate()
        assert vendor(client) == 0x8086


@needs_namespaces
def test_what_becomes_of_described_registers_is_written_with_command(running: Running) -> None:
    """In one file, in the order in which the guest wrote them; each time when it did."""
    with running.client() as client:
        client.negotiate()
        client.write(PciRegion.CONFIG, 0x46, 1, 1)
        client.write(PciRegion.CONFIG, Register.COMMAND, 0x0406, 2)
        client.write(PciRegion.CONFIG, 0x46, 0, 1)
        now = running.now()
    written = [json.loads(line) for line in (running.folder / "bme.jsonl").read_text().splitlines()]
    times = [each.pop("t_ns") for each in written]
    assert times == sorted(times)
    assert written[:3] == [
        {"capability": "migration", "bytes": "01"},
        {"command": 0x0406},
        {"capability": "migration", "bytes": "00"},
    ]
    assert now["registers"] == {"migration": "00"}


@needs_namespaces
def test_the_bridge_follows_the_filter(running: Running) -> None:
    """An entry that stayed after a function reset would cut the guest's standby off.

    So would one for the address that was there before.
    """
    running.set_mac("02:00:00:00:00:07")
    assert running.entries() == ["02:00:00:00:00:07"]
    running.set_mac(ADDRESS)
    assert running.entries() == [ADDRESS]
    with running.client() as client:
        client.negotiate()
        wait_for("the entry to go", lambda: running.entries() == [], within=5)
        client.write(PciRegion.BAR0, ixgbe_vf.Register.VFMBMEM, Message.RESET, 4)
        client.write(PciRegion.BAR0, ixgbe_vf.Register.VFMAILBOX, Mailbox.REQ, 4)
        wait_for("the entry to come back", lambda: running.entries() == [ADDRESS], within=5)
    wait_for("the entry to go", lambda: running.entries() == [], within=5)


@needs_namespaces
def test_what_the_bridge_refuses_is_told_to_whoever_sets_the_filter(running: Running) -> None:
    """Nothing would show that the guest's frames go elsewhere."""
    running.set_mac(ADDRESS)
    running.namespace.run("bridge", "fdb", "del", ADDRESS, "dev", "vf0", "master")
    with pytest.raises(RemoteError) as refused:
        running.set_mac("00:00:00:00:00:00")
    assert "the host's bridge refused it: RTNETLINK answers" in refused.value.because


def test_a_capability_that_is_not_understood_is_refused(tmp_path: Path) -> None:
    """One that was left out would look like one whose registers never change."""
    done = run(tmp_path, capability='{"name": "migration", "offset": 70, "colour": 1}')
    assert done.returncode == 2
    assert "argument --capability: invalid" in done.stderr


@needs_namespaces
def test_it_ends_at_once_when_it_is_told_to(running: Running) -> None:
    """With a client that says nothing, and somebody who asks: nobody is waited for."""
    with running.client() as client:
        client.negotiate()
        with closing(connected(running.folder / "control")):
            running.process.send_signal(signal.SIGTERM)
            _, said = running.process.communicate(timeout=5)
    assert (running.process.returncode, said) == (0, "")
