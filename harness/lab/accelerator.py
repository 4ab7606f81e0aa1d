"""Which accelerator really runs a kernel here. That ``/dev/kvm`` is there proves nothing."""

from __future__ import annotations

import subprocess
from pathlib import Path

from harness.lab.chroot import in_tree
from harness.lab.image import Image
from harness.lab.tree import Progress

PROBE_SECONDS = 10
PROBE_LINE = "lab probe: a kernel runs, and can run guests"
ANSWER = Path("/run/vf-harness/accelerator")
"""The answer holds until this machine is booted again, so it is kept where a boot clears it."""

VIOMMU = "intel-iommu,intremap=on,caching-mode=on"
"""Of a lab host; remapped interrupts are why KVM must leave part of them to QEMU (split)."""

CPU = {
    "kvm": "host",
    # AMD SVM with nested paging is what TCG emulates.  phys-bits=36 keeps SeaBIOS from opening a
    # 64-bit PCI window whose addresses QEMU up to 10.0 cut to 32 bits for a VF's BAR.
    "tcg": "EPYC-Rome,+svm,phys-bits=36",
}
ACCEL = {"kvm": "kvm,kernel-irqchip=split", "tcg": "tcg,thread=multi,tb-size=1024"}


def accelerator(image: Image, progress: Progress) -> str:
    """``kvm`` if a machine like a lab host comes up under it within PROBE_SECONDS, else ``tcg``.

    Its processor must show the virtualization that guests on it need.
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
