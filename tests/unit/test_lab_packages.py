"""Where the lab's packages come from: a named mirror, this machine's own apt, or neither."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import LabError
from harness.lab.packages import sources

DEBIAN = """\
Debian|http://mirror.example/debian/
Debian Backports|http://mirror.example/debian/
Debian-Security|http://mirror.example/debian-security/
Docker|https://download.example/linux/debian/
"""
UBUNTU = """\
Ubuntu|http://mirror.example/ubuntu/
Some Vendor|http://vendor.example/apt
"""


class Apt:
    """An ``apt-get`` in a folder that is all there is of PATH."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._path = folder / "apt-get"
        monkeypatch.setenv("PATH", str(folder))
        monkeypatch.delenv("VF_HARNESS_MIRROR", raising=False)

    def says(self, text: str, *, status: int = 0, stderr: str = "") -> None:
        """Answer with *text*, to the one question that sources asks."""
        self._path.write_text(
            "#!/bin/sh\n"
            'test "$1 $4" = "indextargets Created-By: Packages" || exit 100\n'
            f"printf '%s' '{text}'\nprintf '%s' '{stderr}' >&2\nexit {status}\n"
        )
        self._path.chmod(0o755)


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Apt:
    return Apt(tmp_path, monkeypatch)


def test_the_mirrors_of_this_machines_own_apt_are_used(apt: Apt) -> None:
    """A site behind a proxy reaches its own mirror, and perhaps no other."""
    apt.says(DEBIAN)
    assert sources() == [
        "deb http://mirror.example/debian/ trixie main",
        "deb http://mirror.example/debian/ trixie-updates main",
        "deb http://mirror.example/debian/ trixie-backports main",
        "deb http://mirror.example/debian-security/ trixie-security main",
    ]


def test_a_debian_without_security_updates_has_no_line_for_them(apt: Apt) -> None:
    """``deb None trixie-security`` is what mmdebstrap would be given."""
    apt.says("Debian|http://mirror.example/debian/\n")
    assert [line.split()[2] for line in sources()] == [
        "trixie", "trixie-updates", "trixie-backports",
    ]  # fmt: skip


@pytest.mark.parametrize("listing", [UBUNTU, ""])
def test_an_apt_without_debian_leaves_the_mirror_to_mmdebstrap(apt: Apt, listing: str) -> None:
    """Ubuntu's mirror has no trixie: its packages must not be asked for there."""
    apt.says(listing)
    assert sources() == []


def test_a_named_mirror_wins(apt: Apt, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is what an error told the reader to set: apt, which may be broken, is not asked."""
    apt.says(DEBIAN, status=100)
    monkeypatch.setenv("VF_HARNESS_MIRROR", "http://named.example/debian")
    assert sources() == [
        "deb http://named.example/debian trixie main",
        "deb http://named.example/debian trixie-updates main",
        "deb http://named.example/debian trixie-backports main",
    ]


def test_a_variable_that_is_set_to_nothing_names_no_mirror(
    apt: Apt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``deb  trixie main`` is what mmdebstrap would be given."""
    apt.says(DEBIAN)
    monkeypatch.setenv("VF_HARNESS_MIRROR", "")
    assert len(sources()) == 4


def test_an_apt_that_fails_is_quoted(apt: Apt) -> None:
    """An empty list would build from another mirror than the reader thinks."""
    apt.says("", status=100, stderr="E: Malformed entry 1 in list file debian.list")
    with pytest.raises(LabError) as broken:
        sources()
    assert "Malformed entry 1 in list file debian.list" in broken.value.because
    assert "VF_HARNESS_MIRROR" in broken.value.fix


def test_a_machine_without_apt_leaves_the_mirror_to_mmdebstrap(apt: Apt) -> None:
    """It is no Debian; a traceback over a missing apt-get tells nobody what to do."""
    assert apt
    assert sources() == []
