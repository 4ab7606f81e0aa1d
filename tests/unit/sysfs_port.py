"""A port in a folder that behaves as sysfs does.

VFs go from 0 to n and from n to 0 only, a bind of what is bound is refused, and so is an unbind
from another driver.  It can kill the agent that changes it, before or after a given change.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

# $1 is what to do, $2 with what; where `crash` says so, the agent that runs us is killed.
BEHAVIOUR = r"""
crash() { test "$(cat crash)" = "$1" && { echo never > crash; kill -9 $PPID; exit 1; }; }
refuse() { echo "$1" >&2; exit 1; }
crash "before $1 $2"
case $1 in
numvfs) test "$(cat sriov_numvfs)" != 0 -a "$2" != 0 && refuse "Device or resource busy"
        test "$(cat sriov_numvfs)" = "$2" -a "$2" != 0 && refuse "Invalid argument"
        echo "$2" > sriov_numvfs; rm -rf virtfn*
        n=0; while test $n -lt "$2"; do mkdir virtfn$n; ln -s drivers/vf virtfn$n/driver
        n=$((n + 1)); done ;;
bind)   test -d virtfn0 || refuse "No such device"
        test -L virtfn0/driver && refuse "Device or resource busy"
        ln -s drivers/$2 virtfn0/driver ;;
unbind) test "$(readlink virtfn0/driver)" = drivers/$2 || refuse "No such device"
        rm virtfn0/driver ;;
esac
crash "after $1 $2"
exit 0
"""


@dataclass(frozen=True)
class Port:
    """A port's folder in a tree that behaves as sysfs does."""

    path: Path

    @classmethod
    def make(cls, path: Path) -> Port:
        path.mkdir()
        (path / "behaviour").write_text(BEHAVIOUR)
        (path / "sriov_numvfs").write_text("0\n")
        (path / "mtu").write_text("1500\n")
        (path / "crash").write_text("never\n")
        return cls(path)

    def step(self, *words: str, unless: tuple[str, str | None] | None = None) -> dict[str, Any]:
        argv = ["sh", "-c", f'cd "{self.path}" && . ./behaviour', "sh", *words]
        step: dict[str, Any] = {"kind": "run", "argv": argv}
        if unless:
            step["unless"] = {"path": str(self.path / unless[0]), "text": unless[1]}
        return step

    def crash(self, when: str) -> None:
        (self.path / "crash").write_text(f"{when}\n")

    def mtu(self, value: str) -> dict[str, Any]:
        return {"kind": "write", "path": str(self.path / "mtu"), "text": value}

    def now(self) -> dict[str, str]:
        """Snapshot: each file's text and each link's target."""
        found = {}
        for path in sorted(self.path.rglob("*")):
            if path.is_symlink():
                found[path.name] = str(path.readlink())
            elif path.is_file() and path.name != "crash":
                found[path.name] = path.read_text()
        return found

    def changes(self) -> list[dict[str, Any]]:
        """What a failover test does to a port: VFs, a VF's driver swapped, the MTU."""
        driver = "virtfn0/driver"
        return [
            {
                "what": "2 VFs",
                "do": self.step("numvfs", "2"),
                "undo": self.step("numvfs", "0"),
            },
            {
                "what": "VF 0 taken from its driver",
                "do": self.step("unbind", "vf"),
                "undo": self.step("bind", "vf", unless=(driver, "vf")),
            },
            {
                "what": "VF 0 given to vfio-pci",
                "do": self.step("bind", "vfio-pci"),
                "undo": self.step("unbind", "vfio-pci", unless=(driver, None)),
            },
            {"what": "9000-byte frames", "do": self.mtu("9000\n"), "undo": self.mtu("1500\n")},
        ]
