"""The command ``vf-harness`` as its users meet it: exit codes, and words in the right place."""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from test_topology import EMULATED

from harness import cli
from harness.lab import emulated
from harness.lab.image import RUN
from harness.topology import load

as_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="needs root: what it tries is refused to others before"
)


@pytest.fixture
def spare(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """A lab like the emulated one, under a name and ports of its own; nothing of it is up."""
    name = f"spare-{os.getpid()}"

    def describe(*changes: tuple[str, str]) -> str:
        own = (
            ('name = "emulated-82576"', f'name = "{name}"'),
            ("vfh-emulated-82576-peer", f"vfh-{name}"),
            ("port = 22022", "port = 32022"),
            ("port = 22023", "port = 32023"),
        )
        text = EMULATED
        for old, new in (*own, *changes):
            assert old in text
            text = text.replace(old, new, 1)
        path = tmp_path / "spare.toml"
        path.write_text(text)
        return str(path)

    yield describe
    (RUN / f"lab-{name}.lock").unlink(missing_ok=True)


def told(capsys: pytest.CaptureFixture[str], status: int, *arguments: str) -> str:
    """Run the command, which is to end with *status*, and say only what is wrong; on stderr."""
    assert cli.main(list(arguments)) == status
    out, err = capsys.readouterr()
    assert out == "", "a pipe would take this for a result"
    assert err.startswith("vf-harness: ")
    assert "because:" in err
    assert "to fix:" in err
    return err


def test_a_lab_that_there_is_not_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert "emulated, twin, x520-pair" in told(capsys, 2, "doctor", "--lab", "nowhere")


def test_a_wrong_topology_is_wrong_use(
    capsys: pytest.CaptureFixture[str], spare: Callable[..., str]
) -> None:
    """With file, line and key, as pytest says it too."""
    path = spare(("52:54:00:12:34:56", "52:54"))
    assert f"{path}:" in (said := told(capsys, 2, "lab", "status", "--lab", path))
    assert "guest.mac" in said


def test_a_real_lab_is_not_started(capsys: pytest.CaptureFixture[str]) -> None:
    """Its machines have a power switch; what is asked for is a mistake."""
    assert "is not an emulated lab" in told(capsys, 2, "lab", "up", "--lab", "x520-pair")


def test_a_lab_that_is_down_is_not_looked_at(
    capsys: pytest.CaptureFixture[str], spare: Callable[..., str]
) -> None:
    assert "start the lab with `vf-harness lab up --lab" in told(
        capsys, 2, "doctor", "--lab", spare()
    )


def test_a_folder_without_results_is_wrong_use(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert "results.json" in told(capsys, 2, "report", str(tmp_path))


@pytest.mark.parametrize("arguments", [[], ["lab"], ["lab", "sideways"], ["report"]])
def test_words_that_are_no_command_are_wrong_use(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2


def test_the_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    """The three commands of a first hour, and what each exit code means."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    for words in ("vf-harness lab up", "pytest tests/lab -m smoke", "10 the lab is lent", "12 "):
        assert words in said


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    """``vf-harness schema | head``: the other end of the pipe is closed."""
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as pipe:
        done = subprocess.run(
            [sys.executable, "-m", "harness.cli", "schema"],
            stdout=pipe, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_an_error_that_nobody_reads_has_its_exit_code_all_the_same() -> None:
    """``vf-harness lab status --lab nosuch 2>&1 >/dev/null | true``."""
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as pipe:
        done = subprocess.run(
            [sys.executable, "-m", "harness.cli", "lab", "status", "--lab", "nosuch"],
            stdout=subprocess.DEVNULL, stderr=pipe, check=False,
        )  # fmt: skip
    assert done.returncode == 2


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_stream_that_is_closed_changes_no_exit_code(closed: str) -> None:
    """A service manager may start a program without any of the three."""
    argv = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-m", "harness.cli"]
    for status, words in ((0, ["schema"]), (2, ["lab", "status", "--lab", "nosuch"])):
        assert (
            subprocess.run([*argv, *words], capture_output=True, check=False).returncode == status
        )


def test_a_child_finds_no_stream_closed() -> None:
    """What opens a file after us must not get the number of a stream: it would be written to."""
    own = (
        "import os; from harness import cli; cli._have_streams(); "
        "os.execvp('ls', ['ls', '-l', '/proc/self/fd'])"
    )
    argv = ["sh", "-c", 'exec "$@" <&- 2>&-', "sh", sys.executable, "-c", own]
    shown = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert re.search(r" 0 -> /dev/null$", shown, re.MULTILINE), shown
    assert re.search(r" 2 -> /dev/null$", shown, re.MULTILINE), shown


def test_a_broken_pipe_elsewhere_is_no_reader_that_has_seen_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def hang_up(_: object) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(cli, "_report", hang_up)
    with pytest.raises(BrokenPipeError):
        cli.main(["report", "runs/latest"])


def test_what_the_operating_system_refuses_is_told_in_words(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operating system has many reasons, such as a file system that cannot be written."""

    def refuse(_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", "/run/vf-harness")

    monkeypatch.setattr(cli, "_report", refuse)
    said = told(capsys, 11, "report", "runs/latest")
    assert "this machine: /run/vf-harness: Read-only file system" in said


def test_an_interruption_is_told_in_a_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_lab_status", interrupt)
    assert cli.main(["lab", "status"]) == 130
    assert capsys.readouterr().err == "vf-harness: interrupted; what was begun was undone\n"


def test_a_full_disk_is_told_in_words(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report that could not be written is named, and no traceback hides it."""

    def fill_up(_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "report.html")

    monkeypatch.setattr(cli, "_report", fill_up)
    assert "report.html could not be written" in told(capsys, 11, "report", "runs/latest")


# --- what this machine lacks ----------------------------------------------------------------


def test_without_root_nothing_is_begun(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    spare: Callable[..., str],
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    said = told(capsys, 11, "lab", "up", "--lab", spare())
    assert said.startswith("vf-harness: this machine: not run as root")
    assert "sudo" in said


@as_root
def test_without_tun_nothing_is_begun(spare: Callable[..., str]) -> None:
    """In a mount namespace of its own, where /dev/net is empty."""
    argv = [sys.executable, "-m", "harness.cli", "lab", "up", "--lab", spare()]
    inside = 'mount -t tmpfs none /dev/net && exec "$@"'
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", inside, "sh", *argv],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 11
    assert "there is no /dev/net/tun" in done.stderr
    assert "modprobe tun" in done.stderr
    assert "Traceback" not in done.stderr


@as_root
def test_a_port_that_is_taken_is_named_with_whose_it_should_be(
    capsys: pytest.CaptureFixture[str], spare: Callable[..., str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = told(capsys, 11, "lab", "up", "--lab", spare(("port = 32023", f"port = {port}")))
    assert f"TCP port {port}, which leads to birch" in said
    assert "spare.toml" in said


@as_root
@pytest.mark.skipif(shutil.which("mmdebstrap") is None, reason="needs mmdebstrap")
def test_a_mirror_out_of_reach_is_told_and_leaves_nothing(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    spare: Callable[..., str],
) -> None:
    """By the real mmdebstrap, with a mirror where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("VF_HARNESS_MIRROR", f"http://127.0.0.1:{port}/debian")
    monkeypatch.setenv("VF_HARNESS_CACHE", str(tmp_path / "cache"))
    path = spare()
    assert cli.main(["lab", "up", "--lab", path]) == 11
    said = capsys.readouterr().err
    assert "mmdebstrap ended with status" in said
    assert "VF_HARNESS_MIRROR names another" in said
    assert list((tmp_path / "cache").iterdir()) == []
    left = emulated.status(load(Path(path)))
    assert (left.machines, left.namespaces, left.folder) == ((), (), None)
