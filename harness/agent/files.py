"""Small files of this machine: attributes of sysfs and procfs, our notes, folders.

What the kernel refuses becomes an AgentError that names the errno: EBUSY from ``sriov_numvfs``
and EINVAL from it mean different things to a person.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import os
from pathlib import Path

from harness.agent.errors import AgentError

LIMIT_BYTES = 8 << 20  # what a `read` or one stream of a command may hold; more goes to a file

_READ_BYTES = 1 << 16  # procfs wants a buffer of the size asked for, and has none of megabytes
_MEANING = {
    errno.EACCES: ("this user may not", "run the agent as root"),
    errno.EBUSY: (
        "the kernel has it in use, or in another state than one it can be changed from",
        "see who uses it; sriov_numvfs goes from 0 to n and from n to 0 only",
    ),
    errno.EINVAL: ("the kernel does not take this value", "see what values it takes"),
    errno.ENODEV: ("the device is not there, or no driver will take it", "see the kernel log"),
    errno.ENOENT: ("there is no such file", "check the path; a driver may not be loaded"),
    errno.EPERM: ("this user may not, or the kernel is locked down", "run the agent as root"),
    errno.EROFS: ("the file system is read-only", "remount it, or choose another path"),
}
_OTHER = ("the kernel refused", "see the kernel log of this host")
_KERNEL_OWNED = ("/sys/", "/proc/")  # nothing can be created there


def refused(doing: str, error: OSError) -> AgentError:
    """Say what the kernel refused, with its errno by name and in words."""
    number = error.errno or 0
    because, fix = _MEANING.get(number, _OTHER)
    name = errno.errorcode.get(number, str(number))
    return AgentError(f"{doing}: {name} ({os.strerror(number)})", because=because, fix=fix)


def read(path: str, binary: bool = False, limit_bytes: int = LIMIT_BYTES) -> str:
    """Read a whole file: UTF-8 text, or base64 if *binary*.

    Raises AgentError if it is longer than *limit_bytes* or is not text.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            data = bytearray()
            while len(data) <= limit_bytes and (more := file.read(_READ_BYTES)):
                data += more
    except OSError as error:
        raise refused(f"reading {path}", error) from error
    if len(data) > limit_bytes:
        raise AgentError(
            f"{path} is longer than {limit_bytes} bytes",
            because="`read` is for small files",
            fix="fetch it as a file",
        )
    if binary:
        return base64.b64encode(data).decode()
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise AgentError(
            f"{path} is not text: {error}",
            because="a reply is JSON, which holds text",
            fix="read it as binary, or fetch it as a file",
        ) from error


def write(path: str, text: str) -> None:
    """Put *text* into a file by one system call, which is how sysfs takes a value."""
    create = 0 if path.startswith(_KERNEL_OWNED) else os.O_CREAT
    doing = f"writing {text[:80]!r} to {path}"
    try:
        file = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC | create, 0o600)
        try:
            written = os.write(file, text.encode())
        finally:
            os.close(file)
    except OSError as error:
        raise refused(doing, error) from error
    if written != len(text.encode()):
        raise AgentError(
            f"{doing}: only {written} bytes were taken",
            because="the file holds a part of the value now",
            fix="see whether the disk is full",
        )


def exists(path: str) -> bool:
    """Tell whether there is something at *path*, a dangling link included."""
    return os.path.lexists(path)


def listdir(path: str) -> list[str]:
    """List the names in a folder, sorted."""
    try:
        return sorted(entry.name for entry in Path(path).iterdir())
    except OSError as error:
        raise refused(f"listing {path}", error) from error


def readlink(path: str) -> str:
    """Read where a symbolic link points, as it is written in it."""
    try:
        return str(Path(path).readlink())
    except OSError as error:
        raise refused(f"reading the link {path}", error) from error


def unlink(path: str) -> None:
    """Remove a file or a link."""
    try:
        Path(path).unlink()
    except OSError as error:
        raise refused(f"removing {path}", error) from error


def mkdir(path: str) -> None:
    """Make a folder that only its owner can enter, and those above it; it may be there."""
    try:
        Path(path).mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise refused(f"making the folder {path}", error) from error


def remove(path: str) -> None:
    """Remove a file, a link or an empty folder; it may be gone already."""
    try:
        if Path(path).is_dir() and not Path(path).is_symlink():
            Path(path).rmdir()
        else:
            with contextlib.suppress(FileNotFoundError):
                Path(path).unlink()
    except OSError as error:
        raise refused(f"removing {path}", error) from error


def sync_folder(path: str) -> None:
    """Put a folder's names on the disk, so that a file made in it outlives a power cut."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
