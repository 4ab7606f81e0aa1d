"""``vf-harness chip`` starts a real chip here, and a script in the place of QEMU."""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest
from fake_qemu import MACHINE, FakeQemu, chips
from fake_qemu import nothing_left as nothing_left
from fake_qemu import qemu as qemu
from fake_qemu import temporary as temporary

from harness import cli
from harness.lab import chip_command
from harness.waiting import wait_for


def started(*words: str) -> subprocess.Popen[str]:
    """Start the command as a process of its own, which SIGINT ends.

    A shell has its background commands ignore SIGINT, and every process that pytest starts from
    there would ignore SIGINT too: `env` sets this right.
    """
    command = [sys.executable, "-m", "harness.cli", "chip", *words]
    return subprocess.Popen(
        ["env", "--default-signal=INT", *command], stderr=subprocess.PIPE, text=True
    )


# --- what QEMU is told ----------------------------------------------------------------------


def test_qemu_is_run_with_the_chip_in_its_machine(qemu: FakeQemu) -> None:
    """QEMU gets these words, and every socket is there before QEMU starts."""
    assert cli.main(["chip", "--vfs", "2", "--", qemu.becomes(), *MACHINE, "-nographic"]) == 0
    words = qemu.argv
    assert words[:6] == [
        "-machine", "memory-backend=chip-memory",
        "-object", "memory-backend-memfd,id=chip-memory,size=512M,share=on",
        "-device", "pcie-root-port,id=chip,chassis=82,slot=1,bus-reserve=1,pref64-reserve=8M",
    ]  # fmt: skip
    assert words[-5:] == [*MACHINE, "-nographic"]
    functions = [json.loads(each) for each in qemu.devices()[1:]]
    assert [each["addr"] for each in functions] == ["0.0", "10.0", "10.2"]
    assert {each["bus"] for each in functions} == {"chip"}
    assert [each["id"] for each in functions] == ["chip-port0", "chip-port0-vf0", "chip-port0-vf1"]
    paths = [each["socket"]["path"] for each in functions]
    assert (qemu.folder / "sockets").read_text().splitlines() == paths


def test_a_chip_of_two_ports_has_their_vfs_interleaved(qemu: FakeQemu) -> None:
    """Each port counts First VF Offset 0x80 and VF Stride 2 from its own place."""
    assert cli.main(["chip", "--ports", "2", "--vfs", "63", "--", qemu.becomes(), *MACHINE]) == 0
    places = {each["id"]: each["addr"] for each in map(json.loads, qemu.devices()[1:])}
    assert len(places) == 2 * 64
    assert (places["chip-port1"], places["chip-port1-vf0"]) == ("0.1", "10.1")
    assert places["chip-port0-vf62"] == "1f.4"


def test_place_bus_and_address_are_the_users_to_say(qemu: FakeQemu, temporary: Path) -> None:
    """QEMU is told the place of the chip, and the chip is told its bus."""
    own = ("-device", "pcie-root-port,id=mine", "-device", "intel-iommu")
    given = ("--bus", "2", "--place", "1e", "--mac", "52:54:00:00:00:01", "--vfs", "1")
    command = started(*given, "--", qemu.becomes("exec sleep 60"), *MACHINE, *own)
    qemu.pid()
    (chip,) = chips(temporary)
    words = Path(f"/proc/{chip}/cmdline").read_text().split("\0")
    command.terminate()
    command.communicate(timeout=20)
    assert {("--bus", "2"), ("--mac", "52:54:00:00:00:01")} <= set(itertools.pairwise(words))
    assert ",addr=0x1e," in qemu.devices()[2]


def test_the_example_of_the_help_can_be_pasted(
    qemu: FakeQemu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test runs the example as a shell would, with the fake QEMU first in PATH."""
    qemu.becomes()
    monkeypatch.setenv("PATH", f"{qemu.folder}:{os.environ['PATH']}")
    (example,) = re.findall(r"  vf-harness (chip (?:.|\\\n)*?[^\\])\n", chip_command.DESCRIPTION)
    assert cli.main(shlex.split(example.replace("\\\n", ""))) == 0
    assert len(qemu.devices()) == 6
    assert "-nographic" in qemu.argv


# --- how it ends ----------------------------------------------------------------------------


@pytest.mark.parametrize(("then", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", 137)])
def test_the_status_is_qemus(qemu: FakeQemu, then: str, status: int) -> None:
    """A shell too says 128 and the signal's number of a program that a signal ended."""
    assert cli.main(["chip", "--vfs", "1", "--", qemu.becomes(then), *MACHINE]) == status


def test_a_qemu_that_is_killed_takes_the_chip_along(qemu: FakeQemu) -> None:
    command = started("--vfs", "1", "--", qemu.becomes("exec sleep 60"), *MACHINE)
    os.kill(qemu.pid(), signal.SIGKILL)
    said = command.communicate(timeout=20)[1]
    assert command.returncode == 137
    assert "an 82599 at 01:00: a port, whose cable leads nowhere, with up to 1 VFs" in said


def test_a_chip_that_is_killed_takes_qemu_along(qemu: FakeQemu, temporary: Path) -> None:
    """The command ends a machine whose device has gone, and says why."""
    command = started("--vfs", "1", "--", qemu.becomes("exec sleep 60"), *MACHINE)
    pid = qemu.pid()
    (chip,) = chips(temporary)
    os.kill(chip, signal.SIGKILL)
    said = command.communicate(timeout=20)[1]
    assert command.returncode == 11
    assert "this QEMU: its chip ended with status -9" in said
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_command_that_is_ended_takes_both_along(
    qemu: FakeQemu, number: signal.Signals, status: int
) -> None:
    command = started("--vfs", "1", "--", qemu.becomes("exec sleep 60"), *MACHINE)
    pid = qemu.pid()
    command.send_signal(number)
    command.communicate(timeout=20)
    assert command.returncode == status
    assert not Path(f"/proc/{pid}").exists()


def test_a_signal_that_does_not_wake_the_command_ends_it_within_a_second() -> None:
    """A signal can come just before the command waits, and then nothing wakes the command.

    A signal that another thread receives does not wake it either, and this test can send one.
    """

    def wait_for_the_end_of(process: subprocess.Popen[bytes]) -> None:
        with chip_command._ended_by_signals():
            threading.Timer(0.2, signal.raise_signal, [signal.SIGTERM]).start()
            chip_command._wait_for_either(process)

    with subprocess.Popen(["sleep", "20"]) as sleeper:
        try:
            with pytest.raises(SystemExit):
                wait_for_the_end_of(sleeper)
            assert sleeper.poll() is None
        finally:
            sleeper.kill()


def test_a_command_that_is_killed_takes_both_along(qemu: FakeQemu, temporary: Path) -> None:
    """The kernel ends QEMU and chip; the folder in TMPDIR is left, and the test removes it."""
    command = started("--vfs", "1", "--", qemu.becomes("exec sleep 60"), *MACHINE)
    pid = qemu.pid()
    assert len(chips(temporary)) == 1
    command.kill()
    command.communicate()
    wait_for("QEMU to go", lambda: not Path(f"/proc/{pid}").exists(), within=10)
    wait_for("the chip to go", lambda: not chips(temporary), within=10)
    (left,) = temporary.iterdir()
    shutil.rmtree(left)


def test_no_privileges_are_needed(qemu: FakeQemu) -> None:
    """The command runs without a single capability, as any user's does."""
    argv = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*argv, sys.executable, "-m", "harness.cli", "chip", "--ports", "2", "--vfs", "1", "--",
         qemu.becomes("grep CapEff /proc/self/status"), *MACHINE],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "CapEff:\t0000000000000000\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who alone makes a tap")
def test_a_tap_of_this_machine_is_a_wire(qemu: FakeQemu) -> None:
    """The chip has the tap open while QEMU runs, and nobody has it open afterwards."""
    name = f"vfh{os.getpid() % 100_000}"
    ip = partial(subprocess.run, check=True)
    ip(["ip", "tuntap", "add", "dev", name, "mode", "tap"])
    try:
        then = f"cat /sys/class/net/{name}/carrier > {qemu.folder}/carrier"
        ip(["ip", "link", "set", name, "up"])
        words = ("--wire", name, "--vfs", "1", "--", qemu.becomes(then), *MACHINE)
        assert cli.main(["chip", *words]) == 0
        assert (qemu.folder / "carrier").read_text() == "1\n"
        assert Path(f"/sys/class/net/{name}/carrier").read_text() == "0\n"
    finally:
        ip(["ip", "link", "delete", name])
