"""``vf-harness chip``: a real chip, and for a QEMU a script that writes down how it was called."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import select
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from harness import cli
from harness.lab import cable, chip_command
from harness.twin.tap import Tap
from harness.waiting import wait_for

LISTS = 'name "vfio-user-pci", bus PCI, desc "VFIO over socket PCI device assignment"'
MACHINE = ("-M", "q35", "-m", "512")
FRAME = bytes(9014)

QEMU = """\
#!/bin/sh
if [ "$1 $2" = "-device help" ]; then
    echo '{lists}'
    exit 0
fi
printf '%s\\n' "$@" > {folder}/argv
for word in "$@"; do
    case $word in *'"path": '*)
        path=${{word##*'"path": "'}}; path=${{path%%'"'*}}
        [ -S "$path" ] && echo "$path" >> {folder}/sockets ;;
    esac
done
echo $$ > {folder}/pid.partial
mv {folder}/pid.partial {folder}/pid
{then}
"""


@dataclass
class FakeQemu:
    """A program called as QEMU is; *folder* has what it wrote down."""

    folder: Path
    program: Path

    def becomes(self, then: str = "exit 0", *, lists: str = LISTS) -> str:
        """Write the program: *then* is what it does in the end; its path."""
        script = QEMU.format(folder=self.folder, then=then, lists=lists)
        self.program.write_text(script)
        self.program.chmod(0o755)
        return str(self.program)

    @property
    def argv(self) -> list[str]:
        return (self.folder / "argv").read_text().splitlines()

    def devices(self) -> list[str]:
        """What follows each ``-device``."""
        words = self.argv
        return [after for word, after in itertools.pairwise(words) if word == "-device"]

    def pid(self) -> int:
        """Return the process id, once the program runs."""
        file = self.folder / "pid"
        wait_for("the fake QEMU", file.exists, within=20)
        return int(file.read_text())


@pytest.fixture
def qemu(tmp_path: Path) -> FakeQemu:
    return FakeQemu(tmp_path, tmp_path / "qemu-system-x86_64")


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Everything temporary is made where the test can see whether it has gone.

    The folder's name is short, since the name of a socket has 107 characters at most; *tmp_path*,
    which pytest makes below the first TMPDIR that it sees, is there before.
    """
    assert tmp_path.is_dir()
    folder = Path(tempfile.mkdtemp(prefix="vfh-", dir="/tmp"))
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield folder
    assert list(folder.iterdir()) == []
    assert chips(folder) == []
    folder.rmdir()


def chips(folder: Path) -> list[int]:
    """List the processes of chips whose sockets are below *folder*."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if "harness.chip" in words and any(str(folder) in word for word in words):
                found.append(int(entry.name))
    return found


def started(*words: str) -> subprocess.Popen[str]:
    """Start the command as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "harness.cli", "chip", *words], stderr=subprocess.PIPE, text=True
    )


def refused(capfd: pytest.CaptureFixture[str], status: int, *words: str) -> str:
    """Run the command, which is to refuse in three parts with *status*; what it said."""
    assert cli.main(["chip", *words]) == status
    said = capfd.readouterr().err
    assert said.startswith("vf-harness: ")
    assert "because:" in said
    assert "to fix:" in said
    return said


# --- what QEMU is told ----------------------------------------------------------------------


def test_qemu_is_run_with_the_chip_in_its_machine(qemu: FakeQemu) -> None:
    """Word by word, and every socket is there before QEMU starts."""
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
    """As the chip's are: First VF Offset 0x80, Stride 2, seen from each port."""
    assert cli.main(["chip", "--ports", "2", "--vfs", "63", "--", qemu.becomes(), *MACHINE]) == 0
    places = {each["id"]: each["addr"] for each in map(json.loads, qemu.devices()[1:])}
    assert len(places) == 2 * 64
    assert (places["chip-port1"], places["chip-port1-vf0"]) == ("0.1", "10.1")
    assert places["chip-port0-vf62"] == "1f.4"


def test_the_chip_comes_after_a_viommu_and_before_all_else(qemu: FakeQemu) -> None:
    """QEMU translates only for what it is told of later; and a bridge before it takes bus 1."""
    viommu = ("-device", "intel-iommu,intremap=on,caching-mode=on")
    others = ("-device", "pcie-root-port,id=mine", "-device", "virtio-net-pci,bus=mine")
    command = [qemu.becomes(), *MACHINE, *viommu, *others]
    assert cli.main(["chip", "--vfs", "1", "--", *command]) == 0
    kinds = [re.split('[,"]', each.removeprefix('{"driver": "'))[0] for each in qemu.devices()]
    assert kinds == [
        *("intel-iommu", "pcie-root-port", "vfio-user-pci", "vfio-user-pci"),
        *("pcie-root-port", "virtio-net-pci"),
    ]


def test_what_runs_qemu_runs_it_with_the_chip(qemu: FakeQemu) -> None:
    """``taskset``, ``sudo``, ``env`` and the like stay before QEMU's name."""
    command = ["env", "A=b", qemu.becomes(), *MACHINE]
    assert cli.main(["chip", "--vfs", "1", "--", *command]) == 0
    assert qemu.argv[-4:] == list(MACHINE)
    assert len(qemu.devices()) == 3


@pytest.mark.parametrize(
    ("asked", "size"), [("2G", "2G"), ("768", "768M"), ("size=1G,slots=2,maxmem=4G", "1G")]
)
def test_the_memory_is_shared_and_as_large_as_asked(qemu: FakeQemu, asked: str, size: str) -> None:
    """``-m`` counts MiB without a unit, a backend counts bytes."""
    assert cli.main(["chip", "--vfs", "1", "--", qemu.becomes(), "-M", "q35", "-m", asked]) == 0
    assert f"memory-backend-memfd,id=chip-memory,size={size},share=on" in qemu.argv


@pytest.mark.parametrize(
    "backend",
    [
        "memory-backend-file,id=ram,size=512M,mem-path=/dev/hugepages,share=on",
        "memory-backend-memfd,id=ram,size=512M",
        '{"qom-type": "memory-backend-ram", "id": "ram", "size": 536870912, "share": true}',
    ],
)
@pytest.mark.parametrize("use", [("-M", "memory-backend=ram"), ("-numa", "node,memdev=ram")])
def test_memory_that_is_shared_already_is_left_alone(
    qemu: FakeQemu, backend: str, use: tuple[str, str]
) -> None:
    assert cli.main(["chip", "--vfs", "1", "--", qemu.becomes(), *MACHINE, *use, "-object",
                     backend]) == 0  # fmt: skip
    assert not any("chip-memory" in word for word in qemu.argv)


def test_place_and_bus_are_the_users_to_say(qemu: FakeQemu) -> None:
    """Where another bridge is before the chip on purpose."""
    own = ("-device", "pcie-root-port,id=mine", "-device", "intel-iommu")
    given = ["--bus", "2", "--place", "1e", "--vfs", "1"]
    assert cli.main(["chip", *given, "--", qemu.becomes(), *MACHINE, *own]) == 0
    assert any(each.startswith("pcie-root-port,id=chip,") and ",addr=0x1e," in each
               for each in qemu.devices())  # fmt: skip


def test_the_example_of_the_help_can_be_pasted(
    qemu: FakeQemu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own words, run by a shell's rules, with the fake QEMU first in PATH."""
    qemu.becomes()
    monkeypatch.setenv("PATH", f"{qemu.folder}:{os.environ['PATH']}")
    (example,) = re.findall(r"  vf-harness (chip (?:.|\\\n)*?[^\\])\n", chip_command.DESCRIPTION)
    assert cli.main(shlex.split(example.replace("\\\n", ""))) == 0
    assert len(qemu.devices()) == 6
    assert "-nographic" in qemu.argv


# --- how it ends ----------------------------------------------------------------------------


@pytest.mark.parametrize(("then", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", 137)])
def test_the_status_is_qemus(qemu: FakeQemu, then: str, status: int) -> None:
    """A QEMU that a signal ended gives what a shell would say of it."""
    assert cli.main(["chip", "--vfs", "1", "--", qemu.becomes(then), *MACHINE]) == status


def test_a_qemu_that_is_killed_takes_the_chip_along(qemu: FakeQemu) -> None:
    command = started("--vfs", "1", "--", qemu.becomes("exec sleep 60"), *MACHINE)
    os.kill(qemu.pid(), signal.SIGKILL)
    said = command.communicate(timeout=20)[1]
    assert command.returncode == 137
    assert "an 82599 at 01:00: a port, whose cable leads nowhere, with up to 1 VFs" in said


def test_a_chip_that_is_killed_takes_qemu_along(qemu: FakeQemu, temporary: Path) -> None:
    """A machine whose device has gone would only confuse; the reason is told."""
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


def test_a_command_that_is_killed_takes_both_along(qemu: FakeQemu, temporary: Path) -> None:
    """The kernel ends them then; only the folder in /tmp is left, which is removed here."""
    command = started("--vfs", "1", "--", qemu.becomes("exec sleep 60"), *MACHINE)
    pid = qemu.pid()
    assert len(chips(temporary)) == 1
    command.kill()
    command.communicate()
    wait_for("QEMU to go", lambda: not Path(f"/proc/{pid}").exists(), within=10)
    wait_for("the chip to go", lambda: not chips(temporary), within=10)
    (left,) = temporary.iterdir()
    for each in (*left.iterdir(), left):
        each.rmdir() if each.is_dir() else each.unlink()


def test_no_privileges_are_needed(qemu: FakeQemu) -> None:
    """Without a single capability, as for any user."""
    argv = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*argv, sys.executable, "-m", "harness.cli", "chip", "--ports", "2", "--vfs", "1", "--",
         qemu.becomes("grep CapEff /proc/self/status"), *MACHINE],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "CapEff:\t0000000000000000\n"


# --- what is refused ------------------------------------------------------------------------


def test_a_qemu_without_the_device_is_told_apart(
    capfd: pytest.CaptureFixture[str], qemu: FakeQemu
) -> None:
    program = qemu.becomes(lists='name "vfio-pci", bus PCI')
    said = refused(capfd, 11, "--", program, *MACHINE)
    assert "does not know the device vfio-user-pci" in said
    assert "10.1" in said
    assert not (qemu.folder / "argv").exists()


def test_a_program_that_is_no_qemu_is_quoted(capfd: pytest.CaptureFixture[str]) -> None:
    said = refused(capfd, 11, "--", "ls", *MACHINE)
    assert "`-device help` says: ls: " in said


def test_a_program_that_is_not_there_is_wrong_use(capfd: pytest.CaptureFixture[str]) -> None:
    assert "No such file" in refused(capfd, 2, "--", "/nowhere/qemu-system-x86_64", *MACHINE)


@pytest.mark.parametrize("words", [[], ["--"], ["--ports", "2"]])
def test_without_a_qemu_there_is_nothing_to_run(
    capfd: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert "there is no QEMU to run" in refused(capfd, 2, *words)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["-m", "1G"], "names no machine"),
        (["-m", "1G", "-M", "pc"], "is 'pc', not q35"),
        (["-m", "1G", "-machine", "type=microvm,accel=kvm"], "is 'microvm', not q35"),
        (["-M", "q35"], "how much memory"),
        (["-M", "q35,memory-backend=ram", "-m", "1G", "-object",
          "memory-backend-ram,id=ram,size=1G"], "'ram' (memory-backend-ram) is not shared"),
        (["-M", "q35", "-m", "1G", "-object", "memory-backend-memfd,id=ram,size=1G,share=off",
          "-numa", "node,memdev=ram"], "'ram' (memory-backend-memfd) is not shared"),
        ([*MACHINE, "-drive", "if=pflash,file=OVMF_CODE.fd,format=raw"], "firmware of its own"),
        ([*MACHINE, "-bios", "OVMF.fd"], "firmware of its own"),
        ([*MACHINE, "-device", "pcie-root-port,id=a", "-device", "intel-iommu"],
         "a pcie-root-port before its vIOMMU"),
    ],
)  # fmt: skip
def test_a_machine_that_cannot_have_a_chip_is_refused(
    capfd: pytest.CaptureFixture[str], qemu: FakeQemu, words: list[str], told: str
) -> None:
    """Before anything is started."""
    assert told in refused(capfd, 2, "--", qemu.becomes(), *words)
    assert not (qemu.folder / "argv").exists()


@pytest.mark.parametrize("machine", ["q35", "pc-q35-10.1", "type=q35,accel=tcg"])
def test_a_q35_is_known_by_its_names(qemu: FakeQemu, machine: str) -> None:
    command = [qemu.becomes(), "-machine", machine, "--m", "256", "-M", "accel=tcg"]
    assert cli.main(["chip", "--vfs", "1", "--", *command]) == 0


def test_each_port_has_one_wire(capfd: pytest.CaptureFixture[str], qemu: FakeQemu) -> None:
    words = ("--ports", "2", "--wire", "tap0", "--", qemu.becomes(), *MACHINE)
    assert "names 1 taps, and the chip has 2 ports" in refused(capfd, 2, *words)


def test_a_tap_that_is_not_there_is_told_how_to_make(
    capfd: pytest.CaptureFixture[str], qemu: FakeQemu
) -> None:
    words = ("--wire", "vfh-none", "--", qemu.becomes(), *MACHINE)
    assert "ip tuntap add dev vfh-none mode tap" in refused(capfd, 11, *words)


def test_numbers_that_no_82599_has_are_wrong_use(qemu: FakeQemu) -> None:
    for words in (["--ports", "3"], ["--vfs", "64"], ["--mac", "52:54"], ["--place", "1f"]):
        with pytest.raises(SystemExit) as ended:
            cli.main(["chip", *words, "--", qemu.becomes(), *MACHINE])
        assert ended.value.code == 2


# --- the cables -----------------------------------------------------------------------------


def test_two_ports_are_cabled_to_each_other() -> None:
    """Frames of one port come out at the other, each whole, and nothing else does."""
    with ExitStack() as stack:
        one, other = (Tap(descriptor) for descriptor in cable.cables(2, [], stack))
        for frame in (FRAME, FRAME[:60]):
            assert one.write([frame[:14], frame[14:]])
        for frame in (FRAME, FRAME[:60]):
            select.select([other], [], [], 5)
            assert bytes(other.read() or b"") == frame
        assert other.read() is one.read() is None


def test_a_single_port_has_a_cable_that_leads_nowhere() -> None:
    """It takes whatever is sent, however much, and nothing comes in."""
    with ExitStack() as stack:
        (descriptor,) = cable.cables(1, [], stack)
        wire = Tap(descriptor)
        assert all(wire.write([FRAME]) for _ in range(1000))
        assert wire.read() is None


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who alone makes a tap")
def test_a_tap_of_this_machine_is_a_wire(qemu: FakeQemu) -> None:
    """A user's tap: the chip has it open while QEMU runs, and nobody has it afterwards."""
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
