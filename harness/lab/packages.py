"""What a lab machine is made of: Debian packages, and where this machine gets packages from."""

from __future__ import annotations

import os
import subprocess

from harness.errors import LabError

SUITE = "trixie"
PACKAGES = (
    "busybox-static",     # both initramfs and the hosts' init
    "ethtool",            # driver, firmware and counters of a port
    "iproute2",           # links, bridges, VFs
    "kmod",               # the hosts' drivers
    "linux-image-amd64",  # igb, igbvf, vfio-pci, kvm: as shipped
    "openssh-server",     # the only way in
    "python3",            # the agent
    "qemu-system-x86",    # for guests on the hosts, and for the hosts on the runner
    "tcpdump",            # the wire as someone else's program sees it
)  # fmt: skip

PINNED = """\
Package: src:qemu src:seabios
Pin: release n=trixie-backports
Pin-Priority: 990
"""
"""QEMU 11.1 comes from backports, with the firmware it asks for; the kernel does not (a newer
one was seen to boot a lab host a third slower)."""

NEWEST_KERNEL = (
    "Package: src:linux src:linux-signed-amd64 src:linux-base\n"
    f"Pin: release n={SUITE}-backports\n"
    "Pin-Priority: 990\n"
)
"""The kernel of backports; linux-base, which it needs, comes from there with it."""

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
"""Where mmdebstrap chose the mirror: the same one's backports."""


def sources() -> list[str]:
    """The apt lines for SUITE, with the mirrors that this machine's own apt uses.

    ``VF_HARNESS_MIRROR`` names a Debian mirror instead.  On a machine that is not Debian and
    names none, the list is empty: mmdebstrap then uses the mirror that it knows.
    """
    named = os.environ.get("VF_HARNESS_MIRROR")
    mirror, security = (named, None) if named else _apt_mirrors()
    if mirror is None:
        return []
    lines = [f"deb {mirror} {SUITE}{part} main" for part in ("", "-updates", "-backports")]
    return [*lines, f"deb {security} {SUITE}-security main"] if security else lines


def _apt_mirrors() -> tuple[str | None, str | None]:
    """Where this machine's apt, if it has one, gets Debian and its security updates from."""
    argv = [
        "apt-get", "indextargets", "--format", "$(LABEL)|$(REPO_URI)", "Created-By: Packages",
    ]  # fmt: skip
    try:
        listing = subprocess.run(argv, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None, None
    if listing.returncode:
        raise LabError(
            "this machine: apt-get indextargets failed",
            because=f"apt says: {listing.stderr.strip() or 'nothing'}",
            fix="mend apt, or name a Debian mirror in VF_HARNESS_MIRROR",
        )
    by_label = dict(line.split("|", 1) for line in listing.stdout.splitlines() if "|" in line)
    return by_label.get("Debian"), by_label.get("Debian-Security")
