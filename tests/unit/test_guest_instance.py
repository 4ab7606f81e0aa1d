"""One QEMU process on a host: started, spoken with, ended; in its place a program that greets."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Interface
from pathlib import Path

import pytest
from machines import alive, local_host

from harness.errors import GuestError
from harness.guest import instance as module
from harness.guest.instance import instance, put_image
from harness.guest.spec import GuestImage, GuestSpec, Place
from harness.remote import Host
from harness.topology import MacAddress

SPEC = GuestSpec(
    memory_mib=64,
    cpus=1,
    mac=MacAddress("52:54:00:12:34:56"),
    address=IPv4Interface("198.18.0.2/24"),
    mtu=9000,
)
QEMU = f"""#!{sys.executable}
import json, pathlib, socket, sys, time
path = sys.argv[sys.argv.index("-qmp") + 1].removeprefix("unix:").partition(",")[0]
pathlib.Path(path).with_name("console.log").write_text("SeaBIOS\\n")
print("qemu: unaligned", file=sys.stderr, flush=True)
time.sleep(0.2)
pathlib.Path(path).unlink(missing_ok=True)
with socket.create_server(path, family=socket.AF_UNIX) as listening:
    client, _ = listening.accept()
client.sendall(b'{{"QMP": {{"version": {{}}, "capabilities": []}}}}\\n')
while data := client.recv(65536):
    asked = json.loads(data)
    said = "EAX=0\\nRIP=fff0 RFL=2 HLT=1\\n" if "arguments" in asked else {{"status": "running"}}
    answer = {{"return": said, "id": asked.get("id")}}
    client.sendall(json.dumps(answer).encode() + b"\\n")
time.sleep(60)
"""


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with local_host(tmp_path) as host:
        host.lease.take("a test", 60)
        yield host


@pytest.fixture
def place(host: Host, tmp_path: Path) -> Place:
    """A place on this machine, with a program that stands for QEMU."""
    program = tmp_path / "qemu"
    program.write_text(QEMU)
    program.chmod(0o755)
    folder = host.scratch("guest-0/qmp").rpartition("/")[0]
    return Place(
        qemu=str(program), accelerator="tcg", kernel="/vmlinuz", initramfs="/initramfs",
        folder=folder, tap="vfh0-guest", vf=None, incoming=False,
    )  # fmt: skip


def test_an_instance_is_spoken_with_and_ended(host: Host, place: Place, tmp_path: Path) -> None:
    """A QEMU that stays holds tap and VF, and the next guest finds them busy."""
    log = tmp_path / "qmp.jsonl"
    with instance(SPEC, None, place, host, log) as running:
        assert running.state == "running"
        assert alive(running.pid)
        assert [entry["what"] for entry in host.pending()] == ["guest guest"]
    assert not alive(running.pid)
    assert host.pending() == []
    assert json.loads(log.read_text().splitlines()[0])["what"]["execute"] == "query-status"


def test_a_socket_that_a_killed_qemu_left_is_not_taken_for_its_successors(
    host: Host, place: Place, tmp_path: Path
) -> None:
    """It is there before the new one listens, and whoever connects to it is refused."""
    with socket.create_server(f"{place.folder}/qmp", family=socket.AF_UNIX):
        pass
    with instance(SPEC, None, place, host, tmp_path / "qmp.jsonl") as running:
        assert running.state == "running"


def test_a_qemu_that_does_not_start_is_quoted(
    host: Host, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it said is on the host, where nobody looks first; and nothing of it stays."""
    monkeypatch.setattr(module, "START_SECONDS", 0.3)
    refusing = tmp_path / "refusing"
    refusing.write_text("#!/bin/sh\necho 'qemu: -accel tcg: invalid accelerator' >&2\nexit 1\n")
    refusing.chmod(0o755)
    with (
        pytest.raises(GuestError) as failed,
        instance(SPEC, None, replace(place, qemu=str(refusing)), host, tmp_path / "log"),
    ):
        pytest.fail("it started")
    assert failed.value.what == "alder: QEMU did not start the guest"
    assert "invalid accelerator" in failed.value.because
    assert host.pending() == []


@pytest.mark.parametrize(
    ("console", "error"),
    [
        ("", "did not say 'guest runs its init'"),
        ("guest runs its init\nigbvf: probe failed\n", "did not say 'guest is up'"),
    ],
)
def test_a_guest_that_does_not_come_up_says_how_far_it_came(
    host: Host,
    place: Place,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    console: str,
    error: str,
) -> None:
    """A kernel that never ran and a program of ours that failed are looked for at two places."""
    monkeypatch.setattr(module, "SILENT_SECONDS", 0.1)
    monkeypatch.setattr(module, "BOOT_SECONDS", 0.1)
    with instance(SPEC, None, place, host, tmp_path / "log") as running:
        host.send(f"SeaBIOS\n{console}".encode(), f"{place.folder}/console.log")
        with pytest.raises(GuestError, match=error) as failed:
            running.wait_until_up()
    last = console.strip().replace("\n", " | ")
    assert failed.value.because == (
        f"its console ends: SeaBIOS{' | ' * bool(last)}{last}; "
        "its processor stands at RIP=fff0 RFL=2 HLT=1"
    )


def test_a_guest_whose_qemu_ends_is_waited_for_no_longer(
    host: Host, place: Place, tmp_path: Path
) -> None:
    """A guest that resets its machine ends QEMU, and nothing more is ever said."""
    with instance(SPEC, None, place, host, tmp_path / "log") as running:
        host.send(b"SeaBIOS\n", f"{place.folder}/console.log")
        os.kill(running.pid, signal.SIGKILL)
        with pytest.raises(
            GuestError, match="ended before it said 'guest runs its init'"
        ) as failed:
            running.wait_until_up()
    assert failed.value.because == "its console ends: SeaBIOS; its QEMU has ended: see qemu.log"


def test_a_guest_that_is_up_is_waited_for_no_longer(
    host: Host, place: Place, tmp_path: Path
) -> None:
    """The other side of the check above.  What QEMU complains of is kept apart from it."""
    with instance(SPEC, None, place, host, tmp_path / "log") as running:
        said = b"guest runs its init\nguest is up\n"
        host.send(said, f"{place.folder}/console.log")
        running.wait_until_up()
        assert running.console() == said.decode()
        assert running.complaints() == "qemu: unaligned\n"


def test_an_image_is_sent_once_and_kept_by_its_digest(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is 60 MB over a slow network; another guest's must not be taken for it."""
    monkeypatch.setattr(module, "IMAGES", str(tmp_path / "images"))
    for name in ("vmlinuz", "initramfs"):
        (tmp_path / name).write_text(f"{name} 1")
    image = GuestImage(
        tmp_path / "vmlinuz", tmp_path / "initramfs", "digest-1", tmp_path / "k", tmp_path / "h"
    )
    kernel, initramfs = put_image(host, image)
    assert (host.fetch(kernel), host.fetch(initramfs)) == (b"vmlinuz 1", b"initramfs 1")

    (tmp_path / "vmlinuz").write_text("vmlinuz 2")
    assert put_image(host, image) == (kernel, initramfs)
    assert host.fetch(kernel) == b"vmlinuz 1", "it was sent again"
    other, _ = put_image(host, replace(image, digest="digest-2"))
    assert host.fetch(other) == b"vmlinuz 2"
