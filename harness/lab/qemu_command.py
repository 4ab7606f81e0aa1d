"""A software chip is added to a QEMU command line that a user wrote.

The command line is read by QEMU's rules as far as the chip depends on them: an option has one or
two dashes, its value is the next word, and a value is JSON or a list ``first,key=value,...``.
"""

from __future__ import annotations

import itertools
import json
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError, LabError, UsageError
from harness.lab.software_chip import DEVICE, SoftwareChip, root_port, shared_memory

ROOT_PORT, MEMORY, PREFIX = "chip", "chip-memory", "chip-"
CHASSIS = 82  # a user's root ports seldom have 82: QEMU's default is 0, and users count from 1
_SECONDS = 30
_SHARED_BY_ITSELF = ("memory-backend-memfd", "memory-backend-shm")
_ON = ("on", "yes", "true", "y")  # QEMU reads these as true: qapi_bool_parse in qapi/qapi-util.c
_IS_QEMU = re.compile(r"(qemu-system-x86_64|qemu-kvm)")
_IS_Q35 = re.compile(r"(pc-)?q35(-.*)?")
_IS_VIOMMU = re.compile(r"(intel|amd|virtio)-iommu(-pci)?")
_IS_BRIDGE = re.compile(r".*(bridge|root-port|upstream|pxb.*|ioh3420)")


@dataclass(frozen=True, slots=True)
class QemuCommand:
    """A command runs QEMU: *program* has the words up to QEMU's name, *arguments* the other words.

    *program* has several words if another program runs QEMU, such as ``taskset -c 1``.
    """

    program: tuple[str, ...]
    arguments: tuple[str, ...]

    @classmethod
    def of(cls, words: Sequence[str]) -> QemuCommand:
        """Return the command of *words*; the first word is QEMU if no word is a name of QEMU."""
        named = (
            place for place, word in enumerate(words, start=1) if _IS_QEMU.match(Path(word).name)
        )
        end = next(named, 1)
        return cls(tuple(words[:end]), tuple(words[end:]))

    def check(self) -> None:
        """Raise UsageError or LabError if this QEMU, or its machine, cannot have a chip."""
        self._check_program()
        self._check_machine()
        self._check_firmware()
        self._check_stays()

    def with_chip(
        self, chip: SoftwareChip, sockets: Path, *, place: str = "", bus_is_known: bool = False
    ) -> list[str]:
        """Return the whole command with *chip*, whose sockets are in the folder *sockets*.

        The chip comes after a vIOMMU, which translates only for later devices, and before every
        other device: the first bridge that the firmware finds gets PCI bus 1 (SeaBIOS,
        ``pci_bios_init_bus_rec``).  *place* is the device number of the chip's root port in hex,
        and QEMU chooses that number if *place* is empty.

        Raises UsageError if the memory of QEMU's machine cannot be shared, or if a bridge comes
        before the vIOMMU; *bus_is_known* allows such a bridge, since the caller knows that the bus
        in *chip* is right.
        """
        after = self._end_of_viommu()
        if not bus_is_known:
            self._check_no_bridge(self.arguments[:after])
        added = [
            *self._memory(),
            *root_port(ROOT_PORT, chassis=CHASSIS, place=place),
            *chip.devices(ROOT_PORT, str(sockets), prefix=PREFIX),
        ]
        return [*self.program, *self.arguments[:after], *added, *self.arguments[after:]]

    def values(self, *options: str) -> list[dict[str, str]]:
        """Return the values of all options of these names, in order, each by key.

        A word without a key is under the empty string.
        """
        return [_keys(value) for option, value in _options(self.arguments) if option in options]

    def _check_program(self) -> None:
        argv = [*self.program, "-device", "help"]
        try:
            told = subprocess.run(
                argv, capture_output=True, text=True, errors="replace", check=False,
                timeout=_SECONDS, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except OSError as refused:
            raise UsageError(
                f"this machine: {argv[0]!r} cannot be run",
                because=refused.strerror or str(refused),
                fix="give QEMU's whole command after `--`, such as "
                "`vf-harness chip -- qemu-system-x86_64 -M q35 -m 2G ...`",
            ) from None
        except subprocess.TimeoutExpired:
            raise self._unknown(f"`-device help` was not over after {_SECONDS} s") from None
        if told.returncode:
            words = told.stderr.strip().splitlines()[-3:]
            raise self._unknown(f"`-device help` says: {' | '.join(words) or 'nothing'}")
        if f'"{DEVICE}"' not in told.stdout:
            raise self._unknown(f"there is no {DEVICE} in what `-device help` lists")

    def _unknown(self, seen: str) -> HarnessError:
        return LabError(
            f"this machine: {self.program[-1]} does not know the device {DEVICE}",
            because=f"{seen}; QEMU has the device since 10.1, and Debian 13's own QEMU is 10.0",
            fix="install a newer QEMU (on Debian 13: apt install -t trixie-backports "
            "qemu-system-x86), or name another one in the command",
        )

    def _check_machine(self) -> None:
        types = [keys.get("type") or keys.get("") for keys in self.values("M", "machine")]
        named = next((each for each in reversed(types) if each), None)
        if named is None or not _IS_Q35.fullmatch(named):
            raise UsageError(
                f"this QEMU's machine is {named!r}, not q35"
                if named
                else "this QEMU's command names no machine, and QEMU's own choice is not q35",
                because="an 82599 with SR-IOV needs PCI Express, and q35 is the machine with that",
                fix="add `-M q35` to QEMU's command",
            )

    def _check_firmware(self) -> None:
        flash = [keys for keys in self.values("drive") if keys.get("if") == "pflash"]
        flash += [keys for keys in self.values("M", "machine") if "pflash0" in keys]
        if flash or self.values("bios", "pflash"):
            raise UsageError(
                "this QEMU's command brings firmware of its own (-bios, -pflash or if=pflash)",
                because="the chip places its VFs through configuration space, which SeaBIOS puts "
                "at 0xb0000000; UEFI (OVMF) has another address, and no VF would work",
                fix="leave these options out: QEMU then boots by its own firmware, SeaBIOS",
            )

    def _check_stays(self) -> None:
        if any(_name(word) == "daemonize" for word in self.arguments):
            raise UsageError(
                "this QEMU's command has -daemonize",
                because="the chip ends with the first process of QEMU, and the process that "
                "-daemonize leaves would run on without its ports",
                fix="leave -daemonize out, and put `vf-harness chip` itself into the background",
            )

    def _memory(self) -> list[str]:
        """Return arguments that make the machine's memory shared; none if the memory is shared.

        Raises UsageError if the command has memory that is not shared, or no size of the memory.
        """
        self._check_shared()
        named = ["memory-backend" in keys for keys in self.values("M", "machine")]
        named += ["memdev" in keys for keys in self.values("numa")]
        if any(named):
            return []
        sizes = [keys.get("size") or keys.get("") for keys in self.values("m")]
        size = next((each for each in reversed(sizes) if each), None)
        if size is None:
            raise UsageError(
                "this QEMU's command does not say how much memory its machine has",
                because="the chip reads and writes the guest's memory by itself, so QEMU has to "
                "make shared memory of a known size",
                fix="add `-m 2G` to QEMU's command",
            )
        return shared_memory(MEMORY, f"{size}M" if size.isdigit() else size)

    def _check_shared(self) -> None:
        for keys in self.values("object"):
            kind = keys.get("qom-type") or keys.get("") or ""
            by_itself = "on" if kind in _SHARED_BY_ITSELF else "off"
            shares = keys.get("share", by_itself).lower() in _ON
            if kind.startswith("memory-backend-") and not shares:
                name = keys.get("id")
                raise UsageError(
                    f"this QEMU's memory {name!r} ({kind}) is not shared",
                    because="the chip reads and writes the guest's memory by itself, and can only "
                    "reach shared memory",
                    fix=f"add share=on to `-object {kind},id={name},...`, or leave that option and "
                    f"the use of {name!r} out: memory of the size in `-m` is then shared",
                )

    def _end_of_viommu(self) -> int:
        """Return the index of the argument after the last vIOMMU; 0 if there is no vIOMMU."""
        ends = [
            place + 2
            for place, (word, value) in enumerate(itertools.pairwise(self.arguments))
            if _name(word) == "device" and _IS_VIOMMU.fullmatch(_driver(value))
        ]
        return max(ends, default=0)

    @staticmethod
    def _check_no_bridge(before: Sequence[str]) -> None:
        for option, value in _options(before):
            if option == "device" and _IS_BRIDGE.fullmatch(driver := _driver(value)):
                raise UsageError(
                    f"this QEMU's command has a {driver} before its vIOMMU",
                    because="the chip has to be on PCI bus 1, the bus of the first bridge, and the "
                    f"chip's own bridge comes after the vIOMMU and so after this {driver}",
                    fix="put the vIOMMU first, or give the number of the chip's bus in the guest "
                    "(lspci -t) with --bus",
                )


def _options(arguments: Sequence[str]) -> list[tuple[str, str]]:
    return [(_name(word), value) for word, value in itertools.pairwise(arguments) if _name(word)]


def _name(word: str) -> str:
    """Return the name of an option without dashes, and an empty string for any other word."""
    return word.removeprefix("-").removeprefix("-") if word.startswith("-") else ""


def _driver(value: str) -> str:
    keys = _keys(value)
    return keys.get("driver") or keys.get("") or ""


def _keys(value: str) -> dict[str, str]:
    if value.startswith("{"):
        try:
            return {key: _word(each) for key, each in json.loads(value).items()}
        except ValueError:
            return {}  # QEMU itself will tell the user what is wrong
    pairs = (part.partition("=") for part in value.split(","))
    return {key if equals else "": text if equals else key for key, equals, text in pairs}


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)
