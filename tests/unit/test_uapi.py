"""What harness/uapi says is what this machine's C headers say, and the system calls work."""

from __future__ import annotations

import ctypes
import errno
import importlib
import os
import pkgutil
import shutil
import subprocess
import sys
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path

import pytest

import harness.uapi
from harness.uapi import if_packet, pidfd, rtnetlink, vfio
from harness.uapi.mirror import MIRRORS, NUMBERS, Mirror, Numbers, io, mirrors

for _module in pkgutil.iter_modules(harness.uapi.__path__, "harness.uapi."):
    importlib.import_module(_module.name)  # each registers what it mirrors


def run_c(header: str, statements: list[str], folder: Path) -> list[list[str]]:
    """Compile statements with a header and run them: the words of each line printed."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.fail("no C compiler, so nothing was compared: apt-get install gcc linux-libc-dev")
    source, program = folder / "measure.c", folder / "measure"
    includes = ["stddef.h", "stdio.h", "sys/ioctl.h", header]
    source.write_text(
        "#define _GNU_SOURCE\n"
        + "".join(f"#include <{name}>\n" for name in includes)
        + "int main(void) {\n"
        + "".join(f"  {statement}\n" for statement in statements)
        + "  return 0;\n}\n"
    )
    built = subprocess.run(
        [compiler, "-w", "-o", program, source], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, f"<{header}> does not say what is mirrored:\n{built.stderr}"
    printed = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    return [line.split() for line in printed.splitlines()]


def measure_with_cc(mirror: Mirror, folder: Path) -> dict[str, tuple[int, int]]:
    """Name -> (offset, size) of each field by the C compiler; the whole structure is ``""``."""
    tag = mirror.tag
    lines = [f'printf("0 %zu\\n", sizeof({tag}));']
    lines += [
        f'printf("%zu %zu {name}\\n", offsetof({tag}, {name}), sizeof((({tag} *)0)->{name}));'
        for name, *_ in mirror.structure._fields_
    ]
    rows = run_c(mirror.header, lines, folder)
    return {"".join(name): (int(offset), int(size)) for offset, size, *name in rows}


def names_of(numbers: Numbers) -> str:
    return f"{numbers.header}-{numbers.enumeration.__name__}"


@pytest.mark.parametrize("mirror", MIRRORS, ids=lambda mirror: mirror.tag.split()[-1])
def test_mirror_has_the_layout_of_its_header(mirror: Mirror, tmp_path: Path) -> None:
    """VFIO's ioctl numbers hold no size: the kernel would fill a wrong structure without a word."""
    ours, theirs = mirror.layout(), measure_with_cc(mirror, tmp_path)
    whole, real_whole = ours.pop("")[1], theirs.pop("")[1]
    assert ours == theirs
    # Headers grow at the end, as struct vfio_device_info did by a field of padding: `argsz` tells
    # the kernel which part of it we know.  One that does not say argsz cannot grow.
    assert whole == real_whole or (whole < real_whole and "argsz" in ours)


@pytest.mark.parametrize("numbers", NUMBERS, ids=names_of)
def test_numbers_are_those_of_the_header(numbers: Numbers, tmp_path: Path) -> None:
    """A wrong ioctl or option number does something else, or nothing, and says so nowhere."""
    lines = []
    for name in numbers.values():
        macro = numbers.macros().get(name)
        lines += [
            f"#if {f'defined({macro})' if macro else 1}",
            f'printf("{name} %lld\\n", (long long)({name}));',
            "#endif",
        ]
    measured = {name: int(value) for name, value in run_c(numbers.header, lines, tmp_path)}
    unknown = numbers.macros().keys() - measured.keys()
    assert {n: v for n, v in numbers.values().items() if n not in unknown} == measured


@pytest.mark.parametrize(
    ("header", "name", "value"),
    [
        ("linux/if_ether.h", "ETH_P_ALL", if_packet.ETH_P_ALL),
        ("sys/socket.h", "SOL_PACKET", if_packet.SOL_PACKET),
        ("linux/netlink.h", "NLA_TYPE_MASK", rtnetlink.NLA_TYPE_MASK),
        ("linux/vfio.h", "VFIO_API_VERSION", vfio.API_VERSION),
    ],
)
def test_single_numbers_are_those_of_the_header(
    header: str, name: str, value: int, tmp_path: Path
) -> None:
    """They stand outside the enumerations, so nothing else would compare them."""
    (row,) = run_c(header, [f'printf("%d\\n", (int)({name} & 0xffff));'], tmp_path)
    assert int(row[0]) == value


def test_a_narrow_field_with_padding_behind_it_is_caught(tmp_path: Path) -> None:
    """``iov_len`` as c_int32 gives the right size, by padding; only the fields tell.

    On a little-endian machine it even works, until a length needs the upper half or the padding
    is not zero.
    """

    @mirrors("sys/uio.h", "struct iovec", size=16)
    class Narrow(ctypes.Structure):
        _fields_ = [("iov_base", ctypes.c_void_p), ("iov_len", ctypes.c_int32)]

    mirror = MIRRORS.pop()
    measured = measure_with_cc(mirror, tmp_path)
    assert mirror.structure is Narrow
    assert mirror.layout()[""] == measured[""]
    assert mirror.layout()["iov_len"] != measured["iov_len"]


def test_a_structure_of_another_size_fails_at_import() -> None:
    """The agent runs on hosts without a compiler: there the size is the only check."""
    with pytest.raises(TypeError, match=r"Short has 4 bytes, <linux/netlink.h> .* has 8"):

        @mirrors("linux/netlink.h", "struct rtattr", size=8)
        class Short(ctypes.Structure):
            _fields_ = [("rta_len", ctypes.c_ushort), ("rta_type", ctypes.c_ushort)]


def test_a_wrong_number_is_caught(tmp_path: Path) -> None:
    """The comparison itself must be able to fail."""
    wrong = IntEnum("wrong", {"DEVICE_RESET": io(";", 112)})
    numbers = Numbers("linux/vfio.h", "VFIO_{}", wrong)
    with pytest.raises(AssertionError):
        test_numbers_are_those_of_the_header(numbers, tmp_path)


def test_a_wrong_number_that_came_later_is_caught_where_the_header_has_it(tmp_path: Path) -> None:
    """Let off for good, it would be as unchecked as on a machine with an old header."""
    wrong = IntEnum("wrong", {"STOP_COPY": 3})
    there = {"STOP_COPY": "VFIO_MIGRATION_STOP_COPY"}
    with pytest.raises(AssertionError):
        test_numbers_are_those_of_the_header(
            Numbers("linux/vfio.h", "VFIO_MIGRATION_{}", wrong, there), tmp_path
        )
    absent = {"STOP_COPY": "VFIO_MIGRATION_OF_TOMORROW"}
    test_numbers_are_those_of_the_header(
        Numbers("linux/vfio.h", "VFIO_MIGRATION_{}", wrong, absent), tmp_path
    )


@pytest.fixture
def lender() -> Iterator[subprocess.Popen[str]]:
    """A process that holds a file of its own, says its number, and ends with its stdin."""
    program = "import os, sys; print(os.memfd_create('lent'), flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        yield process


def test_a_descriptor_of_another_process_is_copied(lender: subprocess.Popen[str]) -> None:
    """What one writes the other reads: the copy is of the same open file, not a second one."""
    assert lender.stdout is not None
    number = int(lender.stdout.readline())
    process = pidfd.pidfd_open(lender.pid)
    copy = pidfd.pidfd_getfd(process, number)
    os.pwrite(copy, b"seen", 0)
    assert Path(f"/proc/{lender.pid}/fd/{number}").read_bytes() == b"seen"
    assert not os.get_inheritable(copy)
    os.close(copy)
    os.close(process)


def test_a_refused_system_call_says_which_and_why(lender: subprocess.Popen[str]) -> None:
    """The raw call returns -1 for everything; the reason is in errno alone."""
    process = pidfd.pidfd_open(lender.pid)
    with pytest.raises(OSError, match="pidfd_getfd") as caught:
        pidfd.pidfd_getfd(process, 999)
    assert caught.value.errno == errno.EBADF
    os.close(process)
