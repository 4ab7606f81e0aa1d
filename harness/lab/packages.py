"""A lab machine is made of Debian packages, which come from the mirrors that this machine uses."""

from __future__ import annotations

import os
import shutil

from harness.errors import LabError
from harness.lab.programs import run

SUITE = "trixie"
PACKAGES = (
    "busybox-static",     # runs both initramfs and the hosts' init
    "ethtool",            # shows driver, firmware and counters of a port
    "iproute2",           # sets links, bridges, VFs
    "kmod",               # loads the hosts' drivers
    "linux-image-amd64",  # has igb, igbvf, vfio-pci, kvm as shipped
    "openssh-server",     # is the only way in
    "python3",            # runs the agent
    "qemu-system-x86",    # runs guests on the hosts, and the hosts on this machine
    "tcpdump",            # captures the wire, and shares no code with the harness
)  # fmt: skip

PINNED = """\
Package: src:qemu src:seabios
Pin: release n=trixie-backports
Pin-Priority: 990
"""
"""QEMU 11.1 comes from backports, with the firmware that QEMU depends on.

The kernel comes from trixie, since a lab host took a third longer to boot the kernel of backports.
"""

NEWEST_KERNEL = (
    "Package: src:linux src:linux-signed-amd64 src:linux-base\n"
    f"Pin: release n={SUITE}-backports\n"
    "Pin-Priority: 990\n"
)
"""The kernel comes from backports, and so does linux-base, which that kernel depends on."""

LEFT_OUT = (
    "/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*",
    "/usr/lib/modules/*/kernel/drivers/gpu/*", "/usr/lib/modules/*/kernel/sound/*",
    "/usr/lib/modules/*/kernel/drivers/media/*", "/usr/lib/modules/*/kernel/drivers/staging/*",
    "/usr/lib/modules/*/kernel/drivers/net/wireless/*",
)  # fmt: skip

ADD_BACKPORTS = (
    'sed -n "s/ trixie main/ trixie-backports main/p" "$1/etc/apt/sources.list"'
    ' > "$1/etc/apt/sources.list.d/backports.list"'
)
"""This hook adds backports of the mirror that mmdebstrap chose."""


def sources() -> list[str]:
    """Return apt's source lines for SUITE, with the mirrors that this machine's apt uses.

    The environment variable ``VF_HARNESS_MIRROR`` names another Debian mirror.  The list is empty
    on a machine that is not Debian, without that variable: mmdebstrap then chooses a mirror.
    Raises LabError if apt fails.
    """
    named = os.environ.get("VF_HARNESS_MIRROR")
    mirror, security = (named, None) if named else _apt_mirrors()
    if mirror is None:
        return []
    lines = [f"deb {mirror} {SUITE}{part} main" for part in ("", "-updates", "-backports")]
    return [*lines, f"deb {security} {SUITE}-security main"] if security else lines


def _apt_mirrors() -> tuple[str | None, str | None]:
    """Return the mirrors of Debian and of its security updates that this machine's apt uses.

    None stands for a mirror that apt does not use, or for a machine without apt.
    """
    argv = [
        "apt-get", "indextargets", "--format", "$(LABEL)|$(REPO_URI)", "Created-By: Packages",
    ]  # fmt: skip
    if shutil.which(argv[0]) is None:
        return None, None
    listing = run(*argv, means="it is not known which mirror of Debian this machine uses")
    if listing.returncode:
        raise LabError(
            "this machine: apt-get indextargets failed",
            because=f"apt says: {listing.stderr.strip() or 'nothing'}",
            fix="repair apt's configuration, or name a Debian mirror in VF_HARNESS_MIRROR",
        )
    by_label = dict(line.split("|", 1) for line in listing.stdout.splitlines() if "|" in line)
    return by_label.get("Debian"), by_label.get("Debian-Security")
