"""The lab tries whether KVM runs a kernel on this machine, since ``/dev/kvm`` alone proves nothing.

The lab uses TCG where KVM runs none.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from harness.lab.chroot import in_tree
from harness.lab.image import Image
from harness.lab.tree import Progress

PROBE_SECONDS = 10
PROBE_LINE = "lab probe: a kernel runs, and can run guests"
"""The initramfs of a host prints this line; see ``files/host-initramfs``."""

ANSWER = Path("/run/vf-harness/accelerator")
"""This file keeps the answer until this machine boots again, since a boot empties /run."""

VIOMMU = "intel-iommu,intremap=on,caching-mode=on"
"""A lab host has this vIOMMU, whose interrupt remapping needs KVM's ``kernel-irqchip=split``."""

CPU = {
    "kvm": "host",
    # TCG emulates AMD SVM with nested paging.  phys-bits=36 keeps SeaBIOS from opening a 64-bit
    # PCI window: QEMU up to 10.0 cut the address of a VF's BAR in that window to 32 bits.
    "tcg": "EPYC-Rome,+svm,phys-bits=36",
}
ACCEL = {"kvm": "kvm,kernel-irqchip=split", "tcg": "tcg,thread=multi,tb-size=1024"}


def accelerator(image: Image, progress: Progress) -> str:
    """Return ``kvm`` if KVM boots a kernel within PROBE_SECONDS, else ``tcg``.

    The probe boots a machine with a lab host's vIOMMU from *image*.  The machine's processor must
    have the virtualization (vmx or svm) that a host needs to run guests.  Later calls return the
    answer of the first call, until this machine boots again.
    """
    if ANSWER.exists():
        return ANSWER.read_text()
    found = "tcg"
    if Path("/dev/kvm").exists():
        progress(f"probing whether KVM runs a kernel (up to {PROBE_SECONDS} s)")
        found = "kvm" if _kernel_runs(image) else "tcg"
    ANSWER.parent.mkdir(mode=0o700, exist_ok=True)
    ANSWER.write_text(found)
    return found


def _kernel_runs(image: Image) -> bool:
    argv = in_tree(
        image.tree,
        "qemu-system-x86_64", "-nodefaults", "-display", "none", "-no-reboot", "-M", "q35",
        "-accel", ACCEL["kvm"], "-cpu", CPU["kvm"], "-m", "256", "-device", VIOMMU,
        "-kernel", "/lab/vmlinuz", "-initrd", "/lab/host-initramfs",
        "-append", "console=ttyS0 quiet panic=-1 lab.probe", "-serial", "stdio",
        binds={"/lab": image.folder},
    )  # fmt: skip
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, check=False, timeout=PROBE_SECONDS
        )
    except subprocess.TimeoutExpired:
        return False
    return PROBE_LINE in done.stdout
