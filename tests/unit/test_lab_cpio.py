"""What is written is a "newc" archive, as a reader that follows its description sees it."""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pytest

from harness.lab.cpio import Archive


@dataclass(frozen=True)
class Entry:
    """One entry of an archive; *device* is (major, minor)."""

    name: str
    mode: int
    data: bytes
    device: tuple[int, int]
    inode: int
    mtime: int
    owner: tuple[int, int]
    links: int


def read(archive: bytes) -> list[Entry]:
    """Read an archive as Linux, buffer-format.rst ("initramfs buffer format"), describes it.

    An entry is a header, its name with a NUL, and data; each but the name starts at a multiple of
    four.  The header is a magic number and thirteen fields of eight hexadecimal digits.
    """
    entries: list[Entry] = []
    at = 0
    while True:
        at += -at % 4
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        inode, mode, uid, gid, links, mtime, size, _, _, major, minor, name_size, check = fields
        name = archive[at + 110 : at + 110 + name_size]
        assert name.endswith(b"\0")
        assert check == 0
        at += 110 + name_size
        at += -at % 4
        data = archive[at : at + size]
        assert len(data) == size
        at += size
        if name == b"TRAILER!!!\0":
            assert archive[at:].strip(b"\0") == b""
            return entries
        path = name[:-1].decode()
        entries.append(Entry(path, mode, data, (major, minor), inode, mtime, (uid, gid), links))


def written(fill: Callable[[Archive], None]) -> bytes:
    out = BytesIO()
    archive = Archive(out)
    fill(archive)
    archive.close()
    return out.getvalue()


def entries(fill: Callable[[Archive], None]) -> dict[str, Entry]:
    found = read(written(fill))
    assert len({entry.name for entry in found}) == len(found)
    return {entry.name: entry for entry in found}


def initramfs(archive: Archive) -> None:
    """Fill *archive* with one of each kind, and sizes around the alignment."""
    archive.directory("root", 0o700)
    archive.device("dev/console", 5, 1)
    archive.link("bin", "usr/bin")
    archive.file("init", b"#!/bin/sh\n", 0o755)
    for size in range(9):
        archive.file(f"data/{'n' * size}{size}", bytes(range(size)))


def test_every_kind_is_read_back_as_it_was_given() -> None:
    """The kernel takes a wrong field for another file, and says so nowhere."""
    found = entries(initramfs)
    assert list(found)[:5] == ["root", "dev", "dev/console", "bin", "init"]
    assert found["root"].mode == stat.S_IFDIR | 0o700
    assert found["dev"].mode == stat.S_IFDIR | 0o755
    assert found["dev/console"].mode == stat.S_IFCHR | 0o600
    assert found["dev/console"].device == (5, 1)
    assert found["bin"].mode == stat.S_IFLNK | 0o777
    assert found["bin"].data == b"usr/bin"
    assert found["init"].mode == stat.S_IFREG | 0o755
    assert found["init"].data == b"#!/bin/sh\n"


def test_names_and_data_of_any_length_are_aligned() -> None:
    """One byte off, and everything after it is garbage; lengths 0 to 8 see each remainder."""
    found = entries(initramfs)
    for size in range(9):
        assert found[f"data/{'n' * size}{size}"].data == bytes(range(size))


def test_everything_is_roots_and_no_two_entries_are_one_file() -> None:
    """Equal inodes are hard links to the kernel: the second file would be the first one."""
    found = read(written(initramfs))
    assert {entry.owner for entry in found} == {(0, 0)}
    assert len({entry.inode for entry in found}) == len(found)
    assert {entry.links for entry in found} == {1}


def test_parents_are_added_once_and_before_what_is_in_them() -> None:
    """The kernel makes no folder by itself: a file without one is left out without a word."""

    def fill(archive: Archive) -> None:
        archive.file("a/b/c/one", b"")
        archive.file("a/b/c/two", b"")
        archive.link("a/d/three", "../b")

    names = [entry.name for entry in read(written(fill))]
    assert names == ["a", "a/b", "a/b/c", "a/b/c/one", "a/b/c/two", "a/d", "a/d/three"]


@pytest.mark.parametrize(
    "again",
    [
        lambda archive: archive.file("etc/passwd", b""),
        lambda archive: archive.file("/etc/passwd/", b""),
        lambda archive: archive.link("etc/passwd", "shadow"),
        lambda archive: archive.directory("etc"),
    ],
)
def test_a_path_cannot_be_added_twice(again: Callable[[Archive], None]) -> None:
    """Which one of two the kernel keeps depends on their kinds."""
    archive = Archive(BytesIO())
    archive.file("etc/passwd", b"root:x:0:0::/root:/bin/sh\n")
    with pytest.raises(ValueError, match="is in the archive already"):
        again(archive)


def test_an_archive_knows_what_is_in_it() -> None:
    """Programs share libraries, and ask before they add one."""
    archive = Archive(BytesIO())
    archive.file("/usr/lib/libc.so.6", b"")
    assert "usr/lib/libc.so.6" in archive
    assert "/usr/lib" in archive
    assert "usr/lib/libm.so.6" not in archive


def test_a_copied_file_keeps_its_permissions_and_nothing_else(tmp_path: Path) -> None:
    """A program without its x bit is not run; an owner of the build machine means nothing."""
    source = tmp_path / "busybox"
    source.write_bytes(b"\x7fELF")
    source.chmod(0o750)

    found = entries(lambda archive: archive.copy(source, "usr/bin/busybox"))
    assert found["usr/bin/busybox"].mode == stat.S_IFREG | 0o750
    assert found["usr/bin/busybox"].data == b"\x7fELF"


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    """A host that has an image already knows it by its digest; times would make each one new."""
    source = tmp_path / "file"
    source.write_bytes(b"content")

    def fill(archive: Archive) -> None:
        initramfs(archive)
        archive.copy(source, "file")

    first = written(fill)
    source.touch()
    assert written(fill) == first
    assert {entry.mtime for entry in read(first)} == {0}
