"""Every error a person can meet: what happened (host first), what it means, what to do.

The class says who must act::

    HarnessError
    ├── UsageError        our caller: an option, a topology file, a marker
    ├── LabError          a person at the lab
    │   ├── LabBusy       ... or nobody: someone else holds the lease
    │   ├── RestoreError  a host could not be put back as it was
    │   └── UnsupportedQemu  the QEMU of an emulated lab cannot run its software chip
    ├── RemoteError       a host, a command or the way there failed
    ├── WaitError         a state that was waited for did not come
    ├── GuestError        the guest did not boot, answer or obey
    ├── MigrationError    the thing under test
    └── MeasurementError  the harness itself has no trustworthy data
"""

from __future__ import annotations


class HarnessError(Exception):
    """An error in three parts, each one sentence without a final full stop.

    what     what happened, the host's name first where there is one
    because  what that means
    fix      what the reader can do about it
    """

    exit_code = 1

    def __init__(self, what: str, *, because: str, fix: str) -> None:
        super().__init__(what)
        self.what = what
        self.because = because
        self.fix = fix

    def __str__(self) -> str:
        said = f"{self.what}\n  because: {self.because}\n  to fix:  {self.fix}"
        return "\n".join([said, *getattr(self, "__notes__", ())])


class UsageError(HarnessError):
    """Our caller made a mistake; nothing was touched."""

    exit_code = 2


class LabError(HarnessError):
    """The lab is not as it must be; a person there has to act."""

    exit_code = 11


class LabBusy(LabError):
    """Someone else holds the lease of a host."""

    exit_code = 10


class RestoreError(LabError):
    """A host could not be put back as it was."""

    exit_code = 12


class UnsupportedQemu(LabError):
    """The QEMU that runs an emulated lab cannot run its software chip; another lab may do."""

    exit_code = 13


class RemoteError(HarnessError):
    """A host did not answer, a command failed or did not end in time."""


class WaitError(HarnessError):
    """A state that was waited for did not come before the deadline."""


class GuestError(HarnessError):
    """A guest did not boot, did not answer or did not obey."""


class MigrationError(HarnessError):
    """QEMU, the kernel or the guest failed to migrate."""


class MeasurementError(HarnessError):
    """There is no data, or none that can be trusted."""


def disk_full(error: OSError) -> LabError:
    """What ENOSPC on the machine that we run on means to a person."""
    return LabError(
        f"this machine: {error.filename or 'a file'} could not be written: its disk is full",
        because="what was begun there is not complete",
        fix="free some; --artifacts and VF_HARNESS_CACHE name other folders",
    )
