"""The chip is a program that serves QEMU over sockets, has a wire, and ends when it is told."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from port_driver import QueueView
from vf_rings import MEMORY, MEMORY_BYTES, ReceiveRing, TransmitRing, frame_of
from vfio_client import Client
from wire import ROOT

from harness.chip.configuration import SRIOV
from harness.uapi.ixgbe_pf import Fctrl, Links, Register
from harness.uapi.pci_regs import Register as PciRegister
from harness.uapi.pci_regs import Sriov
from harness.uapi.vfio import PciRegion
from harness.uapi.vfio_user import Flag
from harness.waiting import wait_for

MAC = bytes.fromhex("525400825800")
PEER = bytes.fromhex("020000000002")
BAR0, CONFIG = PciRegion.BAR0, PciRegion.CONFIG
ECAM_BUS_1 = 0xB0000000 + (1 << 20)


@dataclass
class Running:
    """A chip that runs has one port of two VFs; *wire* is the other end of its tap."""

    process: subprocess.Popen[str]
    folder: Path
    wire: socket.socket

    @contextmanager
    def client(self, name: str) -> Iterator[Client]:
        """Lend a client of the function of that name, which has agreed on a version."""
        client = Client(self.connected(name))
        try:
            client.negotiate()
            yield client
        finally:
            client.hang_up()

    def connected(self, name: str) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(self.folder / name))
        return connection

    def status(self) -> dict[str, Any]:
        """Return what the control socket says of the port."""
        with closing(self.connected("control")) as asking:
            asking.sendall(b'{"do": "status"}\n')
            told: dict[str, Any] = json.loads(asking.recv(1 << 16))["ok"]["ports"][0]
            return told


class Remote:
    """A client reaches BAR 0 of a function like this."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def read(self, offset: int) -> int:
        return self._client.read(BAR0, offset)

    def write(self, offset: int, value: int) -> None:
        self._client.write(BAR0, offset, value)


def arguments(folder: Path, tap: int, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "harness.chip", "--folder", str(folder), "--vfs", "2",
        "--mac", MAC.hex(":"), f"--tap={tap}", *more,
    ]  # fmt: skip


@pytest.fixture
def chip(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path) as chip:
        yield chip


@contextmanager
def running(tmp_path: Path, *options: str) -> Iterator[Running]:
    """Run a chip whose tap is a pair of sockets; each message there is a frame."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    folder = Path(os.path.relpath(tmp_path))  # names of sockets are short
    near.settimeout(5)
    with far:
        process = subprocess.Popen(
            arguments(folder, far.fileno(), *options), pass_fds=[far.fileno()], cwd=Path.cwd(),
            text=True, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    try:
        wait_for("the chip's sockets", (tmp_path / "control").exists, within=20)
        yield Running(process, folder, near)
    finally:
        process.kill()
        process.communicate()
        near.close()


def test_each_function_has_a_socket_of_its_own(chip: Running) -> None:
    names = sorted(path.name for path in chip.folder.iterdir())
    assert names == ["control", "port0", "port0-vf0", "port0-vf1"]
    for name, ids in (("port0", 0x10FB8086), ("port0-vf0", 0x10ED8086)):
        with chip.client(name) as client:
            assert client.read(CONFIG, 0, 4096) & 0xFFFFFFFF == ids
            assert client.read(CONFIG, 0) == (ids if name == "port0" else 0xFFFFFFFF)


def test_frames_pass_between_wire_and_memory(chip: Running) -> None:
    """Frames go from rings in shared memory to the tap, and back."""
    with chip.client("port0") as client, client.share(MEMORY, MEMORY_BYTES) as memory:
        client.write(CONFIG, PciRegister.COMMAND, 6, 2)
        remote = Remote(client)
        for register, value in (
            (Register.FCTRL, Fctrl.BAM), (Register.RXCTRL, 1), (Register.DMATXCTL, 1),
        ):  # fmt: skip
            remote.write(register, value)
        view = QueueView(remote, 0)
        tx, rx = TransmitRing(view, memory, 0, 16), ReceiveRing(view, memory, 0, 16, 2048)
        tx.configure()
        rx.configure()
        rx.give(15)
        frame = frame_of(100, head=PEER + MAC)
        tx.send(frame)
        assert chip.wire.recv(2000) == frame
        came = frame_of(100, head=MAC + PEER)
        chip.wire.send(came)
        found = wait_for("the frame", rx.took, within=5)
        assert [each.data for each in found] == [came]
        assert remote.read(Register.GPRC) == 1


def test_qemu_is_told_where_vfs_are_that_are_enabled(chip: Running) -> None:
    """The port writes to the configuration space of each VF, and waits for nobody."""
    with chip.client("port0") as client:
        ecam = client.keep(ECAM_BUS_1, 1 << 20)
        client.write(CONFIG, PciRegister.COMMAND, 6, 2)
        for bar, address in ((0, 0x8_0000_0000), (3, 0x8_0010_0000)):
            client.write(CONFIG, SRIOV + Sriov.BAR + 4 * bar, address, 8)
        enable_vfs(client)
        for vf in range(2):
            at = (0x80 + 2 * vf) << 12
            bars = [int.from_bytes(ecam[at + bar : at + bar + 8], "little") for bar in (0x10, 0x1C)]
            assert bars == [0x8_0000_0000 + vf * 0x4000, 0x8_0010_0000 + vf * 0x4000]
        assert len(chip.status()["vfs"]) == 2


def enable_vfs(client: Client) -> None:
    """Enable both VFs, and answer all that the chip asks for then."""
    client.write(CONFIG, SRIOV + Sriov.NUM_VF, 2, 2)
    client.write(CONFIG, SRIOV + Sriov.CTRL, Sriov.CTRL_VFE | Sriov.CTRL_MSE, 2)
    assert client.read(CONFIG, SRIOV + Sriov.NUM_VF, 2) == 2


def ended(chip: Running) -> list[str]:
    """End the chip; return the lines that the chip said until then."""
    chip.process.send_signal(signal.SIGTERM)
    _, said = chip.process.communicate(timeout=5)
    assert chip.process.returncode == 0
    return said.splitlines()


def test_qemus_refusal_to_place_vfs_is_said_in_one_line(chip: Running) -> None:
    """A vIOMMU without ``iommu=pt`` refuses all of the port's writes, and every VF is dead."""
    refusal = struct.pack("<III", 16, Flag.REPLY | Flag.ERROR, errno.ENODEV)
    with chip.client("port0") as client:
        client.keep(ECAM_BUS_1, 1 << 20)
        client.answers += 8 * [refusal]  # two VFs, two BARs of each, two halves of each BAR
        enable_vfs(client)
        assert client.answers == []
        assert len(chip.status()["vfs"]) == 2
        (said,) = ended(chip)
    assert said.startswith("chip: port0: QEMU refused ")
    assert os.strerror(errno.ENODEV) in said
    assert "no driver can reach" in said
    assert "iommu=pt" in said


def test_a_test_socket_that_nobody_listens_at_does_not_end_the_chip(tmp_path: Path) -> None:
    with (
        running(tmp_path, "--placing", str(tmp_path / "qtest")) as chip,
        chip.client("port0") as client,
    ):
        enable_vfs(client)
        (said,) = ended(chip)
    assert said.startswith("chip: port0: ")
    assert "No such file or directory" in said
    assert "-qtest" in said


def test_a_second_client_of_a_function_is_turned_away(chip: Running) -> None:
    with chip.client("port0-vf0") as client:
        with closing(chip.connected("port0-vf0")) as second:
            second.settimeout(5)
            assert second.recv(1) == b""
        assert client.read(CONFIG, PciRegister.COMMAND, 2) == 2
        with chip.client("port0-vf1"):
            pass


def test_a_client_that_vanishes_makes_room_for_the_next(chip: Running) -> None:
    for _ in range(3):
        with chip.client("port0") as client:
            assert client.read(CONFIG, 0) == 0x10FB8086
            assert chip.status()["client"]
        wait_for("the client to be forgotten", lambda: not chip.status()["client"], within=5)


def test_a_client_that_sends_nonsense_ends_nobody_else(chip: Running) -> None:
    with chip.client("port0") as client:
        with closing(chip.connected("port0-vf0")) as wrong:
            wrong.sendall(b"\xff" * 64)
            wrong.settimeout(5)
            assert wrong.recv(1) == b""
        assert client.read(CONFIG, 0) == 0x10FB8086
        with chip.client("port0-vf0") as other:
            assert other.read(CONFIG, 0) == 0xFFFFFFFF


def test_a_port_whose_wire_is_gone_has_no_link_and_its_chip_goes_on(chip: Running) -> None:
    """The chip says so once, and does not read from that wire any more."""
    with chip.client("port0") as client:
        assert Remote(client).read(Register.LINKS) & Links.UP
        chip.wire.close()
        wait_for(
            "the link to be gone",
            lambda: not Remote(client).read(Register.LINKS) & Links.UP, within=5,
        )  # fmt: skip
        assert ended(chip) == ["chip: port0: its wire is gone; it has no link from now on"]


def test_without_room_for_another_descriptor_it_goes_on(chip: Running) -> None:
    """Who came then is served once there is room again."""
    used = len(list(Path(f"/proc/{chip.process.pid}/fd").iterdir()))
    limits = resource.prlimit(chip.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(chip.process.pid, resource.RLIMIT_NOFILE, (used, limits[1]))
    with closing(chip.connected("port0")), closing(chip.connected("control")):
        assert chip.process.stderr
        assert "somebody could not be served" in chip.process.stderr.readline()
        resource.prlimit(chip.process.pid, resource.RLIMIT_NOFILE, limits)
        assert chip.status()["command"] == 0


def test_it_ends_when_it_is_told_to_and_leaves_no_socket(chip: Running) -> None:
    with chip.client("port0"), closing(chip.connected("control")):
        chip.process.send_signal(signal.SIGTERM)
        assert chip.process.wait(5) == 0
    assert list(chip.folder.iterdir()) == []


def test_what_is_missing_is_said_in_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        arguments(tmp_path, 99), cwd=ROOT, capture_output=True, text=True, check=False, timeout=20
    )
    assert done.returncode == 1
    assert done.stderr == "chip: the chip cannot start: [Errno 9] Bad file descriptor\n"
