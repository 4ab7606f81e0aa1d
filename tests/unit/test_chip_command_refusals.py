"""``vf-harness chip`` refuses a QEMU, a path or a wire that cannot work."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from fake_qemu import MACHINE, FakeQemu
from fake_qemu import nothing_left as nothing_left
from fake_qemu import qemu as qemu
from fake_qemu import temporary as temporary

from harness import cli


def refused(capfd: pytest.CaptureFixture[str], status: int, *words: str) -> str:
    """Run a command that refuses in three parts with *status*; return what it said."""
    assert cli.main(["chip", *words]) == status
    said = capfd.readouterr().err
    assert said.startswith("vf-harness: ")
    assert "because:" in said
    assert "to fix:" in said
    return said


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


def test_a_path_that_is_too_long_for_a_socket_is_told(
    capfd: pytest.CaptureFixture[str],
    qemu: FakeQemu,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """A socket's path has 107 bytes at most; on many machines TMPDIR alone has half of them."""
    long = tmp_path / ("x" * 80)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    assert "TMPDIR" in refused(capfd, 2, "--", qemu.becomes(), *MACHINE)
    assert list(long.iterdir()) == []


def test_each_port_has_one_wire(capfd: pytest.CaptureFixture[str], qemu: FakeQemu) -> None:
    words = ("--ports", "2", "--wire", "tap0", "--", qemu.becomes(), *MACHINE)
    assert "names 1 taps, and the chip has 2 ports" in refused(capfd, 2, *words)


def test_a_tap_that_is_not_there_is_told_how_to_make(
    capfd: pytest.CaptureFixture[str], qemu: FakeQemu
) -> None:
    words = ("--wire", "vfh-none", "--", qemu.becomes(), *MACHINE)
    assert "ip tuntap add dev vfh-none mode tap" in refused(capfd, 11, *words)


def test_numbers_that_no_82599_has_are_wrong_use(qemu: FakeQemu) -> None:
    for words in (
        ["--ports", "3"], ["--vfs", "64"], ["--vfs", "0"], ["--place", "1f"], ["--place", "1_0"],
        ["--bus", "0"], ["--bus", "256"], ["--bus=-5"],
        ["--mac", "52:54"], ["--mac", "ff:ff:ff:ff:ff:ff"], ["--mac", "00:00:00:00:00:00"],
    ):  # fmt: skip
        with pytest.raises(SystemExit) as ended:
            cli.main(["chip", *words, "--", qemu.becomes(), *MACHINE])
        assert ended.value.code == 2


def test_a_qemu_that_would_leave_its_chip_is_refused(
    capfd: pytest.CaptureFixture[str], qemu: FakeQemu
) -> None:
    said = refused(capfd, 2, "--", qemu.becomes(), *MACHINE, "-daemonize")
    assert "-daemonize" in said
    assert not (qemu.folder / "argv").exists()


def test_a_program_that_does_not_speak_utf_8_is_quoted(
    capfd: pytest.CaptureFixture[str], qemu: FakeQemu
) -> None:
    qemu.program.write_text("#!/bin/sh\nprintf 'g\\344be es nicht' >&2\nexit 1\n")
    qemu.program.chmod(0o755)
    assert "be es nicht" in refused(capfd, 11, "--", str(qemu.program), *MACHINE)


def test_python_files_where_the_user_is_are_not_run(
    qemu: FakeQemu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python would look for modules of the chip in that folder first, and run them as the user."""
    (tmp_path / "argparse.py").write_text("raise SystemExit('it was run')\n")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["chip", "--", qemu.becomes("exit 5"), *MACHINE]) == 5
