"""An initramfs is built from the programs, libraries and kernel modules of a file tree.

The initramfs of a lab host mounts the host's disk.  A guest has no disk, and a machine of
``tests/clients`` has none either, so their initramfs holds all their files.
"""

from __future__ import annotations

import lzma
import zipfile
from collections.abc import Iterable
from importlib import resources
from io import BytesIO
from pathlib import Path

from harness.lab.cpio import Archive
from harness.lab.programs import output_of

HOST_MODULES = ("virtio_pci", "virtio_blk", "crc32c_generic", "ext4", "overlay")
GUEST_MODULES = (
    "virtio_pci", "virtio_net", "net_failover", "igb", "igbvf", "ixgbevf", "bonding", "virtio_rng",
    "msr",
)  # fmt: skip
GUEST_PROGRAMS = (
    "usr/sbin/sshd",
    "usr/lib/openssh/sshd-session",
    "usr/lib/openssh/sshd-auth",
    "usr/lib/openssh/sftp-server",
    "usr/bin/ip",
    "usr/sbin/ethtool",
    "usr/bin/python3",
)

# The agent imports none of these, and whatever is in the guest's memory has to be migrated.
NOT_IN_THE_GUEST = frozenset({
    "_pydecimal", "_pyrepl", "asyncio", "concurrent", "curses", "dbm", "doctest", "email",
    "ensurepip", "html", "http", "idlelib", "mailbox", "multiprocessing", "pdb", "pydoc",
    "pydoc_data", "sqlite3", "test", "tkinter", "turtle", "turtledemo", "unittest", "venv",
    "wsgiref", "xml", "xmlrpc",
})  # fmt: skip
EXTENSIONS = ("_contextvars", "_ctypes", "_queue", "mmap", "resource", "termios")


def script(name: str) -> bytes:
    """Return the content of the file *name* in the folder ``files`` of this package."""
    return resources.files("harness.lab").joinpath("files", name).read_bytes()


def modules_of(tree: Path) -> Path:
    """Return the folder of the modules of *tree*'s only kernel, which is named for its release."""
    (modules,) = (tree / "usr/lib/modules").iterdir()
    return modules


def write_host(tree: Path, out: Path) -> None:
    """Write the initramfs of a lab host to *out*.

    The initramfs mounts the host's disk, puts a writable layer in memory over the disk, and starts
    the init of the result.
    """
    with out.open("wb") as file:
        archive = Archive(file)
        _base(archive, tree, script("host-initramfs"))
        _modules(archive, modules_of(tree), HOST_MODULES)
        archive.close()


def write_guest(tree: Path, modules: Path, keys: Path, out: Path) -> None:
    """Write a guest's initramfs to *out*: busybox, sshd, Python, and drivers of its interfaces.

    The programs are those of *tree*.  *modules* is the folder with the modules of the guest's
    kernel, in *tree* or in another tree.  *keys* has ``guest`` (the guest's host key) and
    ``authorized_keys``.
    """
    with out.open("wb") as file:
        archive = Archive(file)
        _base(archive, tree, script("guest-init"))
        _modules(archive, modules, GUEST_MODULES)
        for program in GUEST_PROGRAMS:
            _program(archive, tree, program)
        _python(archive, tree)
        archive.file("etc/ssh/host_key", (keys / "guest").read_bytes(), 0o600)
        archive.file("root/.ssh/authorized_keys", (keys / "authorized_keys").read_bytes(), 0o600)
        archive.file("etc/ssh/sshd_config", script("sshd_config"))
        archive.file("etc/inittab", script("inittab"))
        archive.file("etc/passwd", script("guest-passwd"))
        archive.file("etc/group", b"root:x:0:\nsshd:x:101:\n")
        for folder in ("run/sshd", "var/log", "tmp"):
            archive.directory(folder)
        archive.close()


def write_programs(
    tree: Path, modules: Iterable[str], programs: Iterable[str], init: bytes, out: Path
) -> None:
    """Write an initramfs with *programs* to *out*; *init* is the script that busybox runs as init.

    *programs* are paths in *tree*: programs, and shared libraries that a program opens by itself.
    *modules* are names of modules of the tree's only kernel.
    """
    with out.open("wb") as file:
        archive = Archive(file)
        _base(archive, tree, init)
        _modules(archive, modules_of(tree), modules)
        for program in programs:
            _program(archive, tree, program)
        archive.close()


def _base(archive: Archive, tree: Path, init: bytes) -> None:
    for folder in ("proc", "sys", "dev", "root", "run"):
        archive.directory(folder, 0o700 if folder == "root" else 0o755)
    archive.device("dev/console", 5, 1)
    for link in ("bin", "sbin", "lib", "lib64"):
        archive.link(link, f"usr/{link}")
    archive.copy(tree / "usr/bin/busybox", "usr/bin/busybox")
    for applet in ("sh", "mount", "insmod", "cat", "ln", "mkdir"):
        archive.link(f"usr/bin/{applet}", "busybox")
    archive.file("init", init, 0o755)


def _modules(archive: Archive, root: Path, names: Iterable[str]) -> None:
    """Add the modules *names*, the modules that they depend on, and ``modules/order``.

    The modules are not compressed.  ``modules/order`` has their paths in the order of insertion.
    """
    needs: dict[str, list[str]] = {}
    by_name: dict[str, str] = {}
    for line in (root / "modules.dep").read_text().splitlines():
        path, _, after = line.partition(":")
        needs[path] = after.split()
        by_name[Path(path).name.split(".")[0].replace("-", "_")] = path
    order: list[str] = []
    for name in names:
        found = by_name.get(name.replace("-", "_"))
        if found is None:
            continue  # built into this kernel
        order += [each for each in [*reversed(needs[found]), found] if each not in order]
    for path in order:
        module = (root / path).read_bytes()
        plain = lzma.decompress(module) if path.endswith(".xz") else module
        archive.file(f"modules/{Path(path).name.removesuffix('.xz')}", plain)
    listing = "".join(f"/modules/{Path(path).name.removesuffix('.xz')}\n" for path in order)
    archive.file("modules/order", listing.encode())


def _program(archive: Archive, tree: Path, path: str) -> None:
    """Add the program *path* of *tree*, and the shared libraries that ldd names."""
    real = (tree / path).resolve()
    if path not in archive:
        archive.file(path, real.read_bytes(), 0o755)
    for library in _libraries(tree, path):
        if library not in archive:
            archive.copy((tree / library).resolve(), library)


def _libraries(tree: Path, path: str) -> list[str]:
    listed = output_of(
        "chroot", str(tree), "ldd", f"/{path}", means="the libraries of a program are not known"
    )
    words = [word for line in listed.splitlines() for word in line.split() if word[0] == "/"]
    return [f"usr{word}" if not word.startswith("/usr/") else word[1:] for word in words]


def _python(archive: Archive, tree: Path) -> None:
    """Add Python's standard library as one zip of compiled modules, and EXTENSIONS."""
    (library,) = (tree / "usr/lib").glob("python3.*[0-9]")
    version = library.name.removeprefix("python")
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w") as bundle:
        for compiled in sorted(library.rglob("__pycache__/*.pyc")):
            module = compiled.parent.parent / f"{compiled.name.split('.')[0]}.pyc"
            inside = module.relative_to(library)
            first = inside.parts[0].removesuffix(".pyc")
            if compiled.name.count(".") == 2 and first not in NOT_IN_THE_GUEST:
                entry = zipfile.ZipInfo(str(inside))  # a fixed date, so that zips are equal
                bundle.writestr(entry, compiled.read_bytes(), zipfile.ZIP_DEFLATED)
    archive.file(f"usr/lib/python{version.replace('.', '')}.zip", packed.getvalue())
    archive.copy(library / "os.py", f"usr/lib/python{version}/os.py")  # shows Python its prefix
    for name in EXTENSIONS:
        (extension,) = (library / "lib-dynload").glob(f"{name}.*.so")
        _program(archive, tree, f"usr/lib/python{version}/lib-dynload/{extension.name}")
