"""Bus Master Enable (BME) of one VF, read without the guest's help.

Two ways lead to the COMMAND register: sysfs ``config``, and a copy of the descriptor by which QEMU
owns the VF.  A copy keeps the VF in use after QEMU let it go, so it is held only while that delays
nothing: from when BME is set until it is clear (a driver clears it before a VF is unplugged; QEMU
lets go some 0.1 s later), or until QEMU lets go all the same::

    sysfs ──(BME set, and the owner has the VF open)──> vfio
    vfio  ──(BME clear, or the owner let go)──────────> sysfs

Through the copy the VF's migration state is read as well, where the kernel offers migration.
"""

from __future__ import annotations

import errno
import os
import time
from functools import partial
from pathlib import Path
from typing import Callable, NamedTuple, Optional, Protocol, final

from harness.agent.errors import AgentError
from harness.agent.vfio_owner import SYSFS
from harness.uapi.pci_regs import NO_ANSWER, Command, Register

LOOK_EVERY_NS = 40_000_000
"""How often it is seen whether the owner has the VF open: a scan of its descriptors is not free.

Also how often a VF is looked at that is only waited for."""

HOLE_NS = 250_000_000
"""Samples that are further apart leave a time for which nobody looked.

A kernel that resets a function holds its configuration space for 0.1 s, which is none."""

_AT, _BYTES = int(Register.COMMAND), 2
_MASTER = int(Command.MASTER)  # an IntFlag's own `&` costs more than reading the register


class Sample(NamedTuple):
    """COMMAND as it was when it was read."""

    t_ns: int
    """Monotonic, when the reading had ended.  It waits while the kernel resets the VF (0.1 s)."""

    command: int
    """NO_ANSWER if there is no such VF."""

    bme: bool
    """Whether the VF may start DMA; one that does not answer may not."""

    via: str
    """``vfio`` or ``sysfs``.  On an 82599 VF the MEMORY bit differs: VFIO makes it up."""

    state: int | None = None
    """Its ``DeviceState``; None where it offers no migration, and by sysfs."""


class Lent(Protocol):
    """What is needed of a borrowed device; VfioDevice is one."""

    @property
    def still_lent(self) -> bool: ...
    def config_read(self, offset: int, length: int) -> bytes: ...
    def config_reader(self, offset: int, length: int) -> Callable[[], bytes]: ...
    def migration(self) -> int: ...
    def migration_state(self) -> int: ...
    def read_migration_state(self) -> int: ...
    def close(self) -> None: ...


Borrow = Callable[[], Optional[Lent]]
"""Copy the owner's descriptor; None while the owner does not have the VF open."""


@final
class SysfsConfig:
    """The VF's ``config`` file in sysfs; a context manager.  The VF may go, and come back."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        if self.command() == NO_ANSWER:
            raise AgentError(
                f"{path.parent.name} is not there",
                because=f"{path} cannot be read, or reads as all ones",
                fix="compare with `lspci -D`; a VF is there while its port's sriov_numvfs says so",
            )

    def __enter__(self) -> SysfsConfig:
        return self

    def __exit__(self, *exc: object) -> None:
        self._close()

    def opened(self) -> bool:
        """Whether a driver has enabled the VF; vfio-pci does when its user first opens it.

        Ref: Linux, drivers/pci/pci-sysfs.c, enable_show(); drivers/vfio/pci/vfio_pci_core.c,
        vfio_pci_core_enable().
        """
        try:
            return self._path.with_name("enable").read_text().strip() != "0"
        except OSError:  # no such file, or no such VF any more: look closely
            return True

    @property
    def size(self) -> int:
        """How many bytes of configuration space the VF has."""
        return self._path.stat().st_size

    def command(self) -> int:
        """Read COMMAND; NO_ANSWER while there is no such VF."""
        data = self.read(_AT, _BYTES)
        return int.from_bytes(data, "little") if data else NO_ANSWER

    def read(self, offset: int, length: int) -> bytes:
        """Read that part of configuration space; empty while there is no such VF."""
        try:
            if self._descriptor is None:
                self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            data = os.pread(self._descriptor, length, offset)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENODEV):
                raise
            data = b""
        if len(data) == length:
            return data
        self._close()  # a new VF of this address has a new file
        return b""

    def reader(self) -> Callable[[], bytes] | None:
        """What reads COMMAND again, and raises OSError; None while there is no such VF."""
        if self._descriptor is None:
            return None
        return partial(os.pread, self._descriptor, _BYTES, _AT)

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


@final
class CommandRegister:
    """The COMMAND register of one VF, by whichever way is right; a context manager.

    *was_opened* says whether its user has come by now.  Before that nothing can set BME.
    """

    def __init__(self, config: SysfsConfig, borrow: Borrow | None) -> None:
        self._config = config
        self._borrow = borrow
        self._lent: Lent | None = None
        self._migrates = False
        self._look_at_ns = 0
        self._bme = _may_start_dma(config.command())
        self._seen: object = None
        self._read_again: Callable[[], object] | None = None
        self.was_opened = config.opened()

    def __enter__(self) -> CommandRegister:
        return self

    def __exit__(self, *exc: object) -> None:
        self._give_back()

    def unchanged_ns(self) -> int:
        """When the register was read again and all was as `sample` last found it; else 0.

        It is also 0 when there is something to look at: `sample` does.  This is what is done
        hundreds of times a second, and no more than can be compared without being understood.
        """
        if self._read_again is None or time.monotonic_ns() >= self._look_at_ns:
            return 0
        try:
            return time.monotonic_ns() if self._read_again() == self._seen else 0
        except OSError:
            return 0

    def sample(self) -> Sample:
        """Read the register, and the state if there is one.  Raises AgentError if VFIO refuses."""
        now_ns = time.monotonic_ns()
        if now_ns >= self._look_at_ns:
            self._look_at_ns = now_ns + LOOK_EVERY_NS
            self._look()
        state = self._lent.migration_state() if self._lent and self._migrates else None
        if self._lent is None:
            command, via = self._config.command(), "sysfs"
        else:
            command, via = int.from_bytes(self._lent.config_read(_AT, _BYTES), "little"), "vfio"
        t_ns = time.monotonic_ns()
        self._bme = _may_start_dma(command)
        if not self._bme:
            self._give_back()
        self._remember(command, state)
        return Sample(t_ns, command, self._bme, via, state)

    def _remember(self, command: int, state: int | None) -> None:
        seen = command.to_bytes(_BYTES, "little")
        if self._lent is None:
            self._seen, self._read_again = seen, self._config.reader()
            return
        again = self._lent.config_reader(_AT, _BYTES)
        self._seen, self._read_again = seen, again
        if self._migrates:
            self._seen = (state, seen)
            self._read_again = partial(_both, self._lent.read_migration_state, again)

    def read(self, offset: int, length: int) -> tuple[bytes, str]:
        """Read another part of configuration space, and say by which way (`Sample.via`).

        It is the way that COMMAND is read next.  Empty while there is no such VF.
        """
        if self._lent is None:
            data, via = self._config.read(offset, length), "sysfs"
        else:
            data, via = self._through_vfio(self._lent, offset, length), "vfio"
        if data.count(0xFF) == length and self._config.command() == NO_ANSWER:
            data = b""
        if not data:  # it went since COMMAND was read, and its file may be closed
            self._read_again = None
        return data, via

    @staticmethod
    def _through_vfio(lent: Lent, offset: int, length: int) -> bytes:
        try:
            return lent.config_read(offset, length)
        except AgentError:  # it goes just now, which the next reading of COMMAND tells
            return b""

    def _look(self) -> None:
        self.was_opened = self.was_opened or self._config.opened()
        if self._lent is not None:
            if not self._lent.still_lent:
                self._give_back()
        elif self._bme and self._borrow is not None:
            self._lent = self._borrow()
            self._migrates = self._lent is not None and bool(self._lent.migration())

    def _give_back(self) -> None:
        if self._lent is not None:
            self._lent.close()
            self._lent = None
            self._look_at_ns = 0  # the next reading goes another way


def _both(state: Callable[[], int], command: Callable[[], bytes]) -> tuple[int, bytes]:
    return state(), command()


def wait_for_bme(address: str, seconds: float) -> int:
    """Wait until BME of a VF is set, at most *seconds*; return COMMAND as sysfs showed it last.

    The host waits itself, so that nobody asks it again and again while it is being measured.
    Raises AgentError if there is no such VF at the start.
    """
    deadline_ns = time.monotonic_ns() + int(seconds * 1e9)
    with SysfsConfig(SYSFS / address / "config") as config:
        while not _may_start_dma(command := config.command()):
            if time.monotonic_ns() >= deadline_ns:
                break
            time.sleep(LOOK_EVERY_NS / 1e9)
    return command


def _may_start_dma(command: int) -> bool:
    return command != NO_ANSWER and command & _MASTER != 0
