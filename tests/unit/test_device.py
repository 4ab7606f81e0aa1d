"""Which of QEMU's descriptors is whose, and what happens when QEMU closes it.

VFIO itself is not on a build machine; tests/lab opens and borrows real VFs.
"""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from harness.agent.device import VfioDevice
from harness.agent.errors import AgentError
from harness.agent.vfio_owner import DEVICE_LINK, Nodes, Owner, Place, find_place
from harness.uapi import vfio
from harness.uapi.vfio import DeviceState, MigrationFlag

VF = Nodes("0000:01:10.0", "/dev/vfio/6", alone=True, cdevs=frozenset({"/dev/vfio/devices/vfio0"}))

# Recorded on Linux 6.12 from a process that had opened VF 0 (group 6), and then VF 2 (group 7).
ONE_VF = {
    0: "pipe:[1367]",
    2: "/dev/ttyS0",
    3: "/dev/vfio/vfio",
    4: "/dev/vfio/6",
    5: DEVICE_LINK,
}
TWO_VFS = {**ONE_VF, 6: "/dev/vfio/vfio", 7: "/dev/vfio/7", 8: DEVICE_LINK}


def unsaid(_number: int) -> None:
    """Stand for a kernel before v6.18, which does not say what a descriptor is of."""


def test_the_only_device_of_the_only_group_is_it() -> None:
    """The case of one VF, on every kernel in use: nothing but a plain copy is needed."""
    assert find_place(VF, ONE_VF, unsaid) == Place(5, DEVICE_LINK)


def test_with_two_vfs_the_group_is_asked_by_name() -> None:
    """Both descriptors read the same: the first one found would be the wrong VF half the time."""
    assert find_place(VF, TWO_VFS, unsaid) == Place(4, "/dev/vfio/6", by_name=True)


def test_another_device_of_the_same_group_is_not_taken_for_it() -> None:
    """A group of two devices with one of them open: a plain copy could be the other one."""
    shared = Nodes(VF.address, VF.group, alone=False)
    assert find_place(shared, ONE_VF, unsaid) == Place(4, "/dev/vfio/6", by_name=True)


def test_the_kernel_that_says_which_device_is_believed() -> None:
    """From v6.18 on no guess is needed, and a VF that is not there is not guessed either."""
    said = {5: "/sys/devices/pci0000:00/0000:01:10.2", 8: "/sys/devices/pci0000:00/0000:01:10.0"}
    assert find_place(VF, TWO_VFS, said.get) == Place(8, DEVICE_LINK)
    assert find_place(VF, ONE_VF, said.get) is None


def test_a_character_device_is_known_by_its_path() -> None:
    """With iommufd QEMU opens no group at all, so none may be asked for."""
    links = {3: "/dev/iommu", 4: "/dev/vfio/devices/vfio1", 5: "/dev/vfio/devices/vfio0"}
    assert find_place(VF, links, unsaid) == Place(5, "/dev/vfio/devices/vfio0")


@pytest.mark.parametrize(
    "links",
    [
        {},
        {3: "/dev/vfio/vfio", 4: "/dev/vfio/6"},
        {3: "/dev/vfio/vfio", 7: "/dev/vfio/7", 8: DEVICE_LINK},
    ],
    ids=["process ended", "group opened, device not yet", "another VF"],
)
def test_a_device_that_is_not_open_has_no_place(links: dict[int, str]) -> None:
    """Asking a group for a device that QEMU has yet to open would open, and so reset, it first."""
    assert find_place(VF, links, unsaid) is None


def test_names_are_read_from_sysfs(tmp_path: Path) -> None:
    """The group's number is in a link's target, its other devices are in a folder beside."""
    group = tmp_path / "groups" / "6"
    for device in ("0000:01:10.0", "0000:01:10.2"):
        (group / "devices" / device).mkdir(parents=True)
    (tmp_path / VF.address / "vfio-dev" / "vfio0").mkdir(parents=True)
    (tmp_path / VF.address / "iommu_group").symlink_to(group)
    assert Nodes.of(VF.address, tmp_path) == Nodes(VF.address, VF.group, False, VF.cdevs)
    assert Nodes.of("0000:99:00.0", tmp_path) == Nodes("0000:99:00.0", None, alone=False)


class Qemu:
    """A process that holds one file, and closes it when told."""

    PROGRAM = """
import os, sys
held = os.memfd_create("vf")
print(held, flush=True)
sys.stdin.readline()
os.close(held)
print("closed", flush=True)
sys.stdin.read()
"""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process, self._in, self._out = process, process.stdin, process.stdout
        self.place = Place(int(self._out.readline()), "/memfd:vf (deleted)")

    def let_go(self) -> None:
        self._in.write("\n")
        self._in.flush()
        assert self._out.readline() == "closed\n"

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def qemu() -> Iterator[Qemu]:
    with subprocess.Popen(
        [sys.executable, "-c", Qemu.PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Qemu(process)
        process.kill()


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_an_owner_that_lets_go_is_noticed(qemu: Qemu) -> None:
    """Our copy goes on working after that: without asking we would hold the VF for ever."""
    with Owner(qemu.process.pid) as owner:
        copy = owner.copy(qemu.place)
        assert copy is not None
        assert owner.still_has(qemu.place)
        qemu.let_go()
        assert not owner.still_has(qemu.place)
        assert os.fstat(copy)
        assert owner.copy(qemu.place) is None
        os.close(copy)


def test_an_owner_that_ended_has_nothing(qemu: Qemu) -> None:
    """QEMU may be killed at any moment; the observer has to outlive it."""
    with Owner(qemu.process.pid) as owner:
        qemu.end()
        assert owner.links() == {}
        assert not owner.still_has(qemu.place)
        assert owner.copy(qemu.place) is None
        assert VfioDevice.borrow_from(owner, VF.address) is None


def test_a_number_that_is_another_file_by_now_is_not_copied(qemu: Qemu) -> None:
    """Between looking and copying QEMU may close it, and the number is the next file's."""
    before = open_descriptors()
    with Owner(qemu.process.pid) as owner:
        assert owner.copy(Place(qemu.place.number, DEVICE_LINK)) is None
    assert open_descriptors() == before, "the copy of the other file was kept"


def test_borrowing_says_what_is_missing(qemu: Qemu) -> None:
    """Three ways to be asked for the impossible, each named with its device or process."""
    with pytest.raises(AgentError, match=f"0000:99:00.0: process {qemu.process.pid} has no VFIO"):
        VfioDevice.borrow(qemu.process.pid, "0000:99:00.0")
    with pytest.raises(AgentError, match=r"0000:99:00\.0 is not there"):
        VfioDevice.open("0000:99:00.0")
    qemu.end()
    with pytest.raises(AgentError, match=f"no process {qemu.process.pid}"):
        VfioDevice.borrow(qemu.process.pid, "0000:99:00.0")


@contextmanager
def device_of(descriptor: int) -> Iterator[VfioDevice]:
    """What takes *descriptor* for that of a device, and closes it."""
    held = ExitStack()
    held.callback(os.close, descriptor)
    with VfioDevice("0000:01:10.0", descriptor, held) as device:
        yield device


def test_a_kernel_that_knows_no_migration_offers_none(tmp_path: Path) -> None:
    """Plain vfio-pci answers ENOTTY, as this file does; that is an answer and no fault."""
    with device_of(os.open(tmp_path / "no device", os.O_RDWR | os.O_CREAT)) as device:
        assert device.migration() == MigrationFlag(0)
        with pytest.raises(AgentError, match="VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE failed: Inap"):
            device.migration_state()


def test_a_device_that_cannot_be_asked_does_not_pass_for_one_without_migration(
    tmp_path: Path,
) -> None:
    """A VF that QEMU could move would be reported as one that nobody can."""
    path = tmp_path / "no device"
    path.touch()
    with (
        device_of(os.open(path, os.O_PATH)) as device,
        pytest.raises(AgentError, match="VFIO_DEVICE_FEATURE_MIGRATION failed: Bad file"),
    ):
        device.migration()


def kernel_with_migration(_descriptor: int, request: int, whole: bytearray) -> int:
    """Answer as a driver with migration does: all checks are the kernel's, by its header.

    Ref: Linux, drivers/vfio/vfio_main.c, vfio_ioctl_device_feature() and vfio_check_feature().
    """
    head = vfio.DeviceFeature.from_buffer(whole)
    assert request == vfio.Ioctl.DEVICE_FEATURE
    assert len(whole) == head.argsz
    assert head.flags & ~0xFFFF == vfio.FeatureFlag.GET
    answers: dict[int, ctypes.Structure] = {
        vfio.Feature.MIGRATION: vfio.FeatureMigration(flags=0b101),
        vfio.Feature.MIG_DEVICE_STATE: vfio.FeatureMigState(device_state=3, data_fd=-1),
    }
    data = bytes(answers[head.flags & 0xFFFF])
    if head.argsz < ctypes.sizeof(head) + len(data):
        raise OSError(errno.EINVAL, "Invalid argument")
    whole[ctypes.sizeof(head) : ctypes.sizeof(head) + len(data)] = data
    return 0


def test_what_a_kernel_offers_and_the_present_state_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No driver of a build machine has migration; the layout of question and answer is known."""
    with device_of(os.open(tmp_path / "no device", os.O_RDWR | os.O_CREAT)) as device:
        monkeypatch.setattr("harness.agent.device.fcntl.ioctl", kernel_with_migration)
        assert device.migration() == MigrationFlag.STOP_COPY | MigrationFlag.PRE_COPY
        assert device.migration_state() == DeviceState.STOP_COPY


def test_a_refused_ioctl_names_the_device_and_the_request(tmp_path: Path) -> None:
    """A bare errno from one of a dozen requests would leave the reader to guess both."""
    descriptor = os.open(tmp_path / "no device", os.O_RDWR | os.O_CREAT)
    with (
        device_of(descriptor) as device,
        pytest.raises(AgentError) as caught,
    ):
        device.reset()
    assert caught.value.what == (
        "0000:01:10.0: VFIO_DEVICE_RESET failed: Inappropriate ioctl for device"
    )
    assert "not of a VFIO device" in caught.value.because
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
