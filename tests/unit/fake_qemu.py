"""A script that is called as QEMU is writes down its arguments; the chip is a real one."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.waiting import wait_for

LISTS = 'name "vfio-user-pci", bus PCI, desc "VFIO over socket PCI device assignment"'
MACHINE = ("-M", "q35", "-m", "512")

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
    """The script stands for QEMU; *folder* has what the script wrote down."""

    folder: Path
    program: Path

    def becomes(self, then: str = "exit 0", *, lists: str = LISTS) -> str:
        """Write the script, which ends with *then*, and return its path."""
        script = QEMU.format(folder=self.folder, then=then, lists=lists)
        self.program.write_text(script)
        self.program.chmod(0o755)
        return str(self.program)

    @property
    def argv(self) -> list[str]:
        return (self.folder / "argv").read_text().splitlines()

    def devices(self) -> list[str]:
        """Return the argument that follows each ``-device``."""
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


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield the folder for temporary files, whose name is short, as a socket's path has to be.

    pytest makes *tmp_path* below the first TMPDIR that it sees, so that is there before.
    """
    assert tmp_path.is_dir()
    with tempfile.TemporaryDirectory(prefix="t") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr(tempfile, "tempdir", None)
        yield Path(folder)


@pytest.fixture(autouse=True)
def nothing_left(temporary: Path) -> Iterator[None]:
    yield
    assert list(temporary.iterdir()) == []
    assert chips(temporary) == []


def chips(folder: Path) -> list[int]:
    """List the processes of chips whose sockets are below *folder*."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if "harness.chip" in words and any(str(folder) in word for word in words):
                found.append(int(entry.name))
    return found
